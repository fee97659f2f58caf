/*
 * net.h: public face of the network room: open, poll, idle, metrics; struct nic for the drivers.
 */
#ifndef NOHOST_NET_H
#define NOHOST_NET_H

#include "kernel/base.h"
#include "ml/ml.h"

#define NET_KEYS_MAX 16u
#define NET_CONNECTIONS_MAX 64u

/* From nohost.conf; text fields point into memory that lives for ever. */
struct net_config {
    struct str hostname;      /* "nohost": also <hostname>.local */
    struct str ip4_address, ip4_netmask, ip4_gateway, dns, sntp_server; /* empty: DHCP decides */
    /* Taken (with ip4_netmask) when DHCP does not answer; empty: a link-local 169.254.x.y. */
    struct str ip4_fallback;
    struct str api_key[NET_KEYS_MAX]; /* none: the API is open, privileged routes are off */
    u32 api_key_count;
    u16 port; /* 80 */
    struct str version;       /* build identity, for the Server: field */
    void (*reset)(void);      /* what a privileged client may ask for; NULL: absent */
    void (*power_off)(void);
    void (*metrics)(struct text *out); /* lines for /metrics from other rooms; may be NULL */
    bool (*gpu_step)(struct text *out); /* words for /health; false: no GPU; may be NULL */
    void (*gpus)(struct text *out);     /* JSON for /debug/gpu; may be NULL */
};

/* ---- a network interface card, as netif.c sees it ---- */

#define NIC_MTU       1500u
#define NIC_FRAME_MAX (NIC_MTU + 18u) /* Ethernet header, one VLAN tag */

struct nic_frame {
    u32 len;            /* 0: damaged, or longer than NIC_FRAME_MAX */
    bool checksum_good; /* TCP or UDP: the device has verified it, or it never was on a wire */
    u8 data[NIC_FRAME_MAX];
};

struct nic {
    const char *name; /* "00:02.0" */
    u8 mac[6];
    bool tx_checksum; /* the card completes TCP checksums when asked */
    bool has_irq;     /* false: the loop must poll, nothing wakes it */
    bool failed;      /* set by the driver, which has logged why: netif.c starts it again */
    const struct nic_ops *ops;
};

struct nic_ops {
    err (*reset)(struct nic *nic); /* no transfer and no interrupt from here on */
    err (*start)(struct nic *nic); /* reset, and brought up; what was under way is dropped */
    bool (*link_up)(struct nic *nic);
    /* Copies the next received frame out of the ring; false when there is none. */
    bool (*rx)(struct nic *nic, struct nic_frame *frame);
    /* Sends a copy of a frame of at most NIC_FRAME_MAX bytes; E_BUSY when the ring is full. From
     * tcp_start on, if not 0, the card shall sum, into the checksum field of that TCP header. */
    err (*tx)(struct nic *nic, struct str frame, u16 tcp_start);
    void (*irq)(struct nic *nic, bool on); /* on before idling, off while polling */
};

/* Logs what was wanted and what was seen, and sets nic->failed. E_DEVICE. */
err nic_fault(struct nic *nic, const char *want, u64 seen);
/* The handler that drivers give to pci_vector_on. That it wakes the loop is all it does. */
void nic_interrupted(void *nothing);

/* Each driver returns its card of the bus, or NULL. nic_*.c alone see pci.h. */
struct pci_bus;
struct nic *nic_virtio_start(struct pci_bus *bus);
struct nic *nic_e1000e_start(struct pci_bus *bus);

/* ---- netif.c ---- */

struct net;
/* Starts stack, interface (nic NULL: there is none) and server, before the model is there. */
err net_open(struct net **net, const struct net_config *config, struct nic *nic, struct ml *ml);
/* Frames -> requests, timers, server; a bounded amount of work. True when there was some. */
bool net_poll(struct net *net);
/* How long the loop may idle when nothing else happens. Called with the CPU's interrupts off; turns
 * those of the card on, until net_poll. 0: there is something to do, so don't. */
u64 net_idle_ns(struct net *net);
bool net_bound(const struct net *net); /* the interface has an IPv4 address */
void net_metrics(struct text *out);    /* lines for config.metrics */

#endif
