/*
 * net_wire.h: a card made of two queues and a peer that builds its frames by hand, for the tests of
 * the lower half of net/ and for fuzz_frames.c. lwIP's state is the program's, so there is one wire
 * per process; its fake clock only goes forward.
 */
#ifndef NOHOST_TESTS_NET_WIRE_H
#define NOHOST_TESTS_NET_WIRE_H

#include "net/stack.h"
#include "tests/host/platform.h"

#define WIRE_FRAMES    512u
#define WIRE_FRAME_MAX 1600u
#define WIRE_PORT      80u
#define WIRE_PEER_IP   0x0a000202u /* 10.0.2.2 */
#define WIRE_OUR_IP    0x0a00020fu /* 10.0.2.15, what the peer's DHCP server gives */
#define WIRE_NO_ANSWER 0xffffffffu

struct wire_queue {
    u8 frame[WIRE_FRAMES][WIRE_FRAME_MAX];
    u32 len[WIRE_FRAMES];
    bool checked[WIRE_FRAMES]; /* the card says so */
    u32 head, count;
};

struct wire {
    struct nic nic;
    struct wire_queue in, out;
    bool link, full; /* full: the card takes no frame */
    u32 starts;
    bool broken;   /* start fails */
    u16 tcp_start; /* of the newest frame sent */
    struct net net;
    struct stream *accepted; /* the newest */
    bool refuse;
    u64 now_ns;
    bool open;
};

/* Opens the stack at the first call; takes the clock. */
struct wire *wire_plug(void);
/* Lets time pass in steps of 10 ms, turning the loop at each. */
void wire_run(struct wire *w, u64 ms);
/* Turns the loop without letting time pass, until nothing happens. */
void wire_turn(struct wire *w);
/* The peer sends this. */
void wire_send(struct wire *w, const void *frame, u32 len);
/* The oldest frame that the stack has sent and nobody has taken; NULL: none. Valid until the next
 * call. */
const u8 *wire_take(struct wire *w, u32 *len);
/* Forgets them, but answers ARP. */
void wire_drop_all(struct wire *w);

u16 wire_sum(const void *data, u32 len, u32 start);
void wire_put16(u8 *at, u32 value);
void wire_put32(u8 *at, u32 value);
u32 wire_get16(const u8 *at);
u32 wire_get32(const u8 *at);

/* Each builds one frame of the peer's and sends it. `protocol` is IPv4's, port 67 that of DHCP. */
void wire_ip4(struct wire *w, u32 to, u8 protocol, const void *payload, u32 len);
void wire_udp4(struct wire *w, u32 to, u16 from_port, u16 to_port, struct str payload);

/* Brings the link up and plays the DHCP server until the stack is bound; milliseconds since
 * link-up. */
u32 wire_bind(struct wire *w);
/* Answers ARP questions and DHCP messages among the frames sent; leaves the others to the caller's
 * callback. */
void wire_answer(struct wire *w, bool dhcp, void (*other)(void *ctx, const u8 *frame, u32 len),
                 void *ctx);

/* A TCP client of the peer's. */
struct wire_tcp {
    struct wire *wire;
    u16 port, window;
    u32 seq, ack; /* next to send, next expected */
    u32 acked;    /* the stack has acknowledged up to here */
    u32 their_window;
    u8 data[256 * 1024];
    u32 data_len;
    bool open, fin, reset;
};
enum { TCP_F_FIN = 1, TCP_F_SYN = 2, TCP_F_RST = 4, TCP_F_PSH = 8, TCP_F_ACK = 16 };
void wire_tcp_send(struct wire_tcp *t, u8 flags, const void *data, u32 len);
/* Takes what the stack has sent, acknowledges data when `ack` is set. */
void wire_tcp_turn(struct wire_tcp *t, bool ack);
/* SYN, SYN-ACK, ACK; true when open and shown to the server's side (wire->accepted). */
bool wire_tcp_connect(struct wire_tcp *t, struct wire *w, u16 port);

u32 wire_connections(const struct wire *w);

/* Places in use of every pool of lwIP and bytes of its heap, to be compared before and after. */
struct wire_pools {
    u32 used[32];
    u32 heap;
};
struct wire_pools wire_pools(void);

#endif
