/*
 * stack.h: what netif.c, address.c and conn.c share: the interface under lwIP and the places of TCP
 * connections above it. Only these files see lwIP; above `struct stream` (priv.h) nobody does.
 */
#ifndef NOHOST_NET_STACK_H
#define NOHOST_NET_STACK_H

#include "net/priv.h"

#include "lwip/netif.h"
#include "lwip/tcp.h"

#define HOSTNAME_MAX 63u /* one DNS label */

struct tcp_conn {
    struct stream stream; /* first: the stream is the connection */
    struct tcp_pcb *pcb;  /* NULL: gone */
    bool taken, waiting;  /* place in use; not yet shown to the server */
    bool peer_done;
    u32 in_len;
    u8 in[TCP_WND]; /* received, not yet read */
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
    char hostname[HOSTNAME_MAX + 1], sntp_server[HOSTNAME_MAX * 2];
};

/* netif.c. Starts lwIP and, with a card, the interface on it; lwIP's state is the program's: once
 * only. Then a bounded number of frames in, and the timers that are due; true: it had frames. */
void stack_open(struct net *net);
bool stack_poll(struct net *net);

/* address.c. Addresses, name and clock; looked at ten times a second. */
void address_start(struct net *net);
void address_look(struct net *net, u64 now);

/* conn.c. Listens on the configured port, IPv4 and IPv6 (E_NOMEM); a new connection, each once. */
err conns_open(struct net *net);
struct stream *conns_next(struct net *net);
/* Called with every TCP header before lwIP sees it. A SYN beyond the end of a connection in
 * TIME_WAIT ends that one (RFC 1122, 4.2.2.13): lwIP would answer for the old one, and a client
 * that got the same port again would wait for seconds. Seen with QEMU's user network. */
void conns_reopen(const u8 *ip, const u8 *tcp);
/* SipHash-2-4 under a 128-bit key; the last word holds the length, or all inputs have the same. */
u64 siphash(const u64 key[2], const u64 *word, u32 count);

#endif
