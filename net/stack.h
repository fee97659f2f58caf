/*
 * stack.h: what netif.c, isn.c, conn.c and net.c share: the interface under lwIP and the places of
 * TCP connections above it. Only these files see lwIP; above `struct stream` (priv.h) nobody does.
 */
#ifndef NOHOST_NET_STACK_H
#define NOHOST_NET_STACK_H

#include "kernel/base.h"
#include "net/net.h"
#include "net/priv.h"

#include "lwip/netif.h"
#include "lwip/tcp.h"

#define NET_BATCH_MAX 64u /* frames per turn of the loop */
#define HOSTNAME_MAX  63u /* one DNS label */

/* ---- netif.c: frames <-> lwIP, card, link ---- */

struct stack {
    const struct net_config *config;
    struct nic *nic; /* NULL: no card; the stack then only keeps time */
    struct netif netif;
    struct pbuf *in; /* a frame that is not complete yet */
    u16 in_len;
    bool in_dropped; /* its other parts are to be dropped as well */
    bool in_checked; /* the card has verified its TCP or UDP checksum */
    bool tx_waiting; /* frames were given to the card since the last doorbell */
    bool irq_on, link, fallback, named, time_asked;
    bool off;                 /* the card failed too often */
    volatile bool name_taken; /* set by the mDNS callback */
    u32 faults;
    u64 fault_ns, sent_ns; /* the last of each */
    struct {
        u64 rx_frames, tx_frames, rx_bytes, tx_bytes, rx_dropped, tx_dropped;
    } count;
    u64 dropped_seen;
    u64 isn_key[2];
    u64 link_ns;  /* when the link came up */
    u64 bound_ns; /* when DHCP last needed no help */
    u64 look_ns;  /* when the link was looked at */
    ip4_addr_t ip4_seen;
    u8 ip6_seen; /* bit per address that has been logged as valid */
    char hostname[HOSTNAME_MAX + 1];
    char sntp_server[HOSTNAME_MAX * 2];
    u8 out[NIC_FRAME_MAX]; /* a frame that lwIP holds in pieces */
};

static inline bool stack_has_card(const struct stack *stack)
{
    return stack->nic && !stack->off;
}

/* Starts lwIP and, with a card, the interface on it. lwIP's state is the program's: once only. */
void stack_open(struct stack *stack, const struct net_config *config, struct nic *nic);
/* At most NET_BATCH_MAX frames in, then the timers that are due. True when there was a frame. */
bool stack_poll(struct stack *stack);
/* Rings the card's doorbell when frames wait for it. */
void stack_flush(struct stack *stack);
/* Turns the card's interrupts on; false when a frame is there already. */
bool stack_irq_arm(struct stack *stack);
u64 stack_idle_ns(const struct stack *stack);

/* ---- address.c: addresses, name and clock ---- */

void address_start(struct stack *stack);
/* Ten times a second: fallback when DHCP is silent, another name when ours is taken. */
void address_look(struct stack *stack, u64 now);
/* Every turn: logs what is new, asks for the time once there is an address. */
void address_note(struct stack *stack, u64 now);

/* ---- isn.c: sequence numbers that nobody can guess ---- */

/* SipHash-2-4 of `bytes` under a 128-bit key. */
u64 siphash(const u64 key[2], const u8 *data, usize bytes);

/* ---- conn.c: TCP connections as streams ---- */

struct tcp_conn {
    struct stream stream; /* first: the stream is the connection */
    struct tcp_pcb *pcb;  /* NULL: gone */
    u8 *ring;             /* received, not yet read: TCP_WND bytes */
    u32 ring_start, ring_used;
    bool taken, waiting; /* place in use; not yet shown to the server */
    bool peer_done;
};

struct tcp_conns {
    struct tcp_conn conn[NET_CONNECTIONS_MAX];
    struct tcp_pcb *listener;
    u32 refused; /* no place was left, or the server refused */
};

/* Listens on the port, IPv4 and IPv6. E_NOMEM. */
err conns_open(struct tcp_conns *conns, u16 port);
/* Shows each new connection to accept(ctx, stream); aborts it when that says no. True when there
 * was one. */
bool conns_accept(struct tcp_conns *conns, bool (*accept)(void *ctx, struct stream *), void *ctx);
/* Hands to the interface whatever the windows allow. */
void conns_flush(struct tcp_conns *conns);
/* Called with every TCP header before lwIP sees it. A SYN beyond the end of a connection in
 * TIME_WAIT ends that one (RFC 1122, 4.2.2.13): lwIP would answer for the old one, and a client
 * that got the same port again would wait for seconds. Seen with QEMU's user network. */
void conns_reopen(const u8 *ip, const u8 *tcp);

#endif
