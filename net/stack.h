/*
 * stack.h: what net.c, netif.c, address.c and conn.c share: the interface under lwIP and
 * the places of TCP connections above it. Only these files see lwIP; above `struct stream`
 * (priv.h) nobody does.
 */
#ifndef NOHOST_NET_STACK_H
#define NOHOST_NET_STACK_H

#include "kernel/base.h"
#include "net/net.h"
#include "net/priv.h"

#include "lwip/netif.h"
#include "lwip/tcp.h"

#define HOSTNAME_MAX 63u /* one DNS label */

struct tcp_conn {
    struct stream stream; /* first: the stream is the connection */
    struct tcp_pcb *pcb;  /* NULL: gone */
    u8 *ring;             /* received, not yet read: TCP_WND bytes */
    u32 ring_start, ring_used;
    bool taken, waiting; /* place in use; not yet shown to the server */
    bool peer_done;
};

enum net_count { RX_FRAMES, RX_BYTES, RX_DROPPED, TX_FRAMES, TX_BYTES, TX_DROPPED, NET_COUNTS };

struct net {
    struct net_config config;
    struct tcp_conn conn[NET_CONNECTIONS_MAX];
    struct server *server;
    struct nic *nic; /* NULL: no card; the stack then only keeps time */
    struct netif netif;
    netif_ext_callback_t address_watch;
    struct nic_frame in;
    u8 out[NIC_FRAME_MAX]; /* in one piece; lwIP holds frames in several */
    bool link, fallback;
    u64 count[NET_COUNTS];
    u32 faults; /* of the card, lately; over FAULTS_MAX it stays off */
    u64 fault_ns, sent_ns;
    u64 link_ns; /* when the link came up */
    u64 asks_ns; /* since when DHCP has asked in vain */
    u64 look_ns; /* when card and link are looked at next */
    u64 isn_key[2];
    char hostname[HOSTNAME_MAX + 1];
    char sntp_server[HOSTNAME_MAX * 2];
};

/* ---- netif.c: frames <-> lwIP, card, link ---- */

/* Starts lwIP and, with a card, the interface on it. lwIP's state is the program's: once only. */
void stack_open(struct net *net);
/* A bounded number of frames in, then the timers that are due. True when there was a frame. */
bool stack_poll(struct net *net);

/* ---- address.c: addresses, name and clock ---- */

void address_start(struct net *net);
/* Ten times a second: fallback when DHCP is silent. */
void address_look(struct net *net, u64 now);

/* ---- conn.c: TCP connections as streams ---- */

/* Listens on the configured port, IPv4 and IPv6. E_NOMEM. */
err conns_open(struct net *net);
/* A new connection, each once; NULL: none. */
struct stream *conns_next(struct net *net);
/* Called with every TCP header before lwIP sees it. A SYN beyond the end of a connection in
 * TIME_WAIT ends that one (RFC 1122, 4.2.2.13): lwIP would answer for the old one, and a client
 * that got the same port again would wait for seconds. Seen with QEMU's user network. */
void conns_reopen(const u8 *ip, const u8 *tcp);
/* SipHash-2-4 of `bytes` under a 128-bit key. */
u64 siphash(const u64 key[2], const u8 *data, usize bytes);

#endif
