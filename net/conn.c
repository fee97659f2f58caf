/*
 * conn.c: TCP connections as streams (priv.h): places, what has arrived, back-pressure, and a
 * bounded end. lwIP's callbacks fill a place and set flags; the loop does the rest. Knows no HTTP.
 * Follows: RFC 9293; lwIP 2.2.1, doc/rawapi.txt; for sequence numbers RFC 6528 and J.-P. Aumasson,
 * D. J. Bernstein, "SipHash: a fast short-input PRF" (2012).
 */
#include "net/stack.h"

#include "lwip/priv/tcp_priv.h"

/* A closed connection may drain this long, then it is reset (lwIP polls twice a second). */
#define LINGER_POLLS 40u
#define ISN_CLOCK_NS 4000u /* RFC 6528, section 3: M ticks every 4 microseconds */

/* ---- lwIP's callbacks ---- */

/* Copies at once, so that many small segments hold no frame buffers; the window is the room for
 * it. What arrives after our close (no ctx) is thrown away. */
static err_t received(void *ctx, struct tcp_pcb *pcb, struct pbuf *chain, err_t)
{
    struct tcp_conn *conn = ctx;

    if (chain && conn) {
        if (chain->tot_len > TCP_WND - conn->in_len)
            return ERR_MEM; /* lwIP keeps it and offers it again */
        conn->in_len += pbuf_copy_partial(chain, conn->in + conn->in_len, chain->tot_len, 0);
    } else if (chain) {
        tcp_recved(pcb, chain->tot_len);
    } else if (conn) {
        conn->peer_done = true;
    }
    if (chain)
        pbuf_free(chain);
    return ERR_OK;
}

/* lwIP has freed the control block already. */
static void failed(void *ctx, err_t)
{
    ((struct tcp_conn *)ctx)->pcb = NULL;
}

/* ---- the stream face ---- */

static struct tcp_conn *conn_of(struct stream *stream)
{
    struct tcp_conn *conn = (struct tcp_conn *)stream;

    CHECK(conn->taken);
    return conn;
}

static usize conn_recv(struct stream *stream, void *out, usize cap)
{
    struct tcp_conn *conn = conn_of(stream);
    u32 len = (u32)min_u64(cap, conn->in_len);

    memcpy(out, conn->in, len);
    memmove(conn->in, conn->in + len, conn->in_len - len);
    conn->in_len -= len;
    if (conn->pcb && len)
        tcp_recved(conn->pcb, (u16)len);
    return len;
}

static usize conn_send(struct stream *stream, const void *data, usize len)
{
    struct tcp_pcb *pcb = conn_of(stream)->pcb;
    u16 room = pcb ? (u16)min_u64(len, tcp_sndbuf(pcb)) : 0;

    if (!room || tcp_write(pcb, data, room, TCP_WRITE_FLAG_COPY) != ERR_OK)
        return 0; /* queue or heap is full: the caller offers it again */
    tcp_output(pcb);
    return room;
}

static usize conn_unsent(struct stream *stream)
{
    struct tcp_conn *conn = conn_of(stream);

    return conn->pcb ? (usize)(TCP_SND_BUF - tcp_sndbuf(conn->pcb)) : 0;
}

static enum stream_state conn_state(struct stream *stream)
{
    struct tcp_conn *conn = conn_of(stream);

    return !conn->pcb ? STREAM_GONE : conn->peer_done ? STREAM_PEER_DONE : STREAM_OPEN;
}

/* ---- the end: the place is free at once, the control block lives on until its peer agrees or time
 * is up ---- */

static struct tcp_pcb *place_free(struct stream *stream)
{
    struct tcp_conn *conn = conn_of(stream);

    conn->taken = conn->waiting = false;
    if (conn->pcb) {
        tcp_arg(conn->pcb, NULL);
        tcp_err(conn->pcb, NULL);
    }
    return conn->pcb;
}

static err_t lingered(void *, struct tcp_pcb *pcb)
{
    tcp_abort(pcb);
    return ERR_ABRT;
}

/* Only our direction is shut, so that a client that still sends gets to read its answer before a
 * reset; when there is no memory for the FIN, lwIP tries again from its timer. */
static void conn_close(struct stream *stream)
{
    u32 unread = conn_of(stream)->in_len;
    struct tcp_pcb *pcb = place_free(stream);

    if (!pcb)
        return;
    tcp_recved(pcb, (u16)unread);
    tcp_poll(pcb, lingered, LINGER_POLLS);
    tcp_setprio(pcb, TCP_PRIO_MIN); /* the first to go when control blocks run out */
    if (tcp_shutdown(pcb, 0, 1) != ERR_OK)
        tcp_abort(pcb);
}

static void conn_abort(struct stream *stream)
{
    struct tcp_pcb *pcb = place_free(stream);

    if (pcb)
        tcp_abort(pcb);
}

static const struct stream_ops conn_ops = {conn_recv,  conn_send,  conn_unsent,
                                           conn_state, conn_close, conn_abort};

/* ---- new connections ---- */

static err_t accepted(void *ctx, struct tcp_pcb *pcb, err_t status)
{
    struct net *net = ctx;
    struct tcp_conn *conn = net->conn, *end = net->conn + NET_CONNECTIONS_MAX;

    if (status != ERR_OK)
        return ERR_VAL;
    while (conn < end && conn->taken)
        conn++;
    if (conn == end)
        return ERR_MEM; /* lwIP resets it */
    conn->stream.ops = &conn_ops;
    conn->pcb = pcb;
    conn->in_len = 0;
    conn->taken = conn->waiting = true;
    conn->peer_done = false;
    ipaddr_ntoa_r(&pcb->remote_ip, conn->stream.peer, sizeof conn->stream.peer);
    tcp_setprio(pcb, TCP_PRIO_NORMAL + 1); /* a flood of new ones cannot push it out */
    tcp_nagle_disable(pcb);
    ip_set_option(pcb, SOF_KEEPALIVE);
    tcp_arg(pcb, conn);
    tcp_recv(pcb, received);
    tcp_err(pcb, failed);
    return ERR_OK;
}

err conns_open(struct net *net)
{
    struct tcp_pcb *pcb = tcp_new_ip_type(IPADDR_TYPE_ANY);

    if (!pcb)
        return E_NOMEM;
    CHECK(tcp_bind(pcb, IP_ANY_TYPE, net->config.port) == ERR_OK);
    pcb = tcp_listen(pcb);
    if (!pcb)
        return E_NOMEM;
    tcp_arg(pcb, net);
    tcp_accept(pcb, accepted);
    return OK;
}

struct stream *conns_next(struct net *net)
{
    for (struct tcp_conn *conn = net->conn; conn < net->conn + NET_CONNECTIONS_MAX; conn++) {
        if (conn->waiting) {
            conn->waiting = false;
            return &conn->stream;
        }
    }
    return NULL;
}

void conns_reopen(const u8 *ip, const u8 *tcp)
{
    const struct tcp_hdr *syn = (const struct tcp_hdr *)tcp;
    bool v6 = ip[0] >> 4 == 6;

    for (struct tcp_pcb *pcb = tcp_tw_pcbs, *next; TCPH_FLAGS(syn) == TCP_SYN && pcb; pcb = next) {
        next = pcb->next;
        if (IP_IS_V6_VAL(pcb->remote_ip) == v6 && pcb->remote_port == lwip_ntohs(syn->src) &&
            pcb->local_port == lwip_ntohs(syn->dest) &&
            memcmp(v6 ? ip + 8 : ip + 12, &pcb->remote_ip, v6 ? 16 : 4) == 0 &&
            (i32)(lwip_ntohl(syn->seqno) - pcb->rcv_nxt) > 0)
            tcp_abort(pcb); /* sends nothing in this state */
    }
}

/* ---- sequence numbers that nobody can guess ---- */

static u64 rotate(u64 value, u32 by)
{
    return value << by | value >> (64 - by);
}

static void rounds(u64 v[4], u32 count)
{
    while (count--) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[2] += v[1];
        v[0] = rotate(v[0], 32) + v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

u64 siphash(const u64 key[2], const u64 *word, u32 count)
{
    u64 v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};

    for (u32 i = 0; i < count; i++) {
        v[3] ^= word[i];
        rounds(v, 2);
        v[0] ^= word[i];
    }
    v[2] ^= 0xff;
    rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* A 4 us clock plus a keyed hash of both ends, so that an outsider cannot forge segments. lwIP asks
 * without a context; the only interface there is carries it. */
u32_t port_tcp_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote,
                   u16_t remote_port)
{
    const struct net *net = netif_default->state;
    u64 ends[5] = {[4] = (u64)local_port << 16 | remote_port};
    usize bytes = IP_IS_V6(local) ? 16 : 4;

    memcpy(&ends[0], &local->u_addr, bytes);
    memcpy(&ends[2], &remote->u_addr, bytes);
    return (u32)(time_ns() / ISN_CLOCK_NS + siphash(net->isn_key, ends, ARRAY_LEN(ends)));
}
