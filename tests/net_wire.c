/*
 * net_wire.c: see tests/net_wire.h. Frames are built from RFC 826, 791, 768, 9293 and 2131 alone,
 * so that they judge lwIP and our port rather than repeat them.
 */
#include "tests/net_wire.h"

#include "lwip/memp.h"
#include "lwip/stats.h"

static const u8 peer_mac[6] = {2, 0, 0, 0, 0, 1};
static const u8 our_mac[6] = {2, 0, 0, 0, 0, 2};

static struct wire the_wire;

/* ---- the card ---- */

static struct wire *wire_of(struct nic *nic)
{
    return (struct wire *)nic;
}

static bool fake_link_up(struct nic *nic)
{
    return wire_of(nic)->link;
}

static bool fake_rx(struct nic *nic, struct nic_frame *frame)
{
    struct wire_queue *q = &wire_of(nic)->in;

    if (!q->count)
        return false;
    frame->len = q->len[q->head] <= sizeof frame->data ? q->len[q->head] : 0;
    frame->checksum_good = q->checked[q->head];
    memcpy(frame->data, q->frame[q->head], frame->len);
    q->head = (q->head + 1) % WIRE_FRAMES;
    q->count--;
    return true;
}

static err fake_tx(struct nic *nic, struct str frame, u16 tcp_start)
{
    struct wire *w = wire_of(nic);
    struct wire_queue *q = &w->out;

    if (w->full || q->count == WIRE_FRAMES)
        return E_BUSY;
    u32 at = (q->head + q->count++) % WIRE_FRAMES;
    memcpy(q->frame[at], frame.ptr, frame.len);
    q->len[at] = (u32)frame.len;
    w->tcp_start = tcp_start;
    if (tcp_start) /* the sum of everything from there on replaces the field */
        wire_put16(q->frame[at] + tcp_start + 16,
                   wire_sum(q->frame[at] + tcp_start, (u32)frame.len - tcp_start, 0));
    return OK;
}

static void fake_irq(struct nic *nic, bool on)
{
    (void)nic, (void)on;
}

static err fake_start(struct nic *nic)
{
    wire_of(nic)->starts++;
    return wire_of(nic)->broken ? E_DEVICE : OK;
}

static err fake_reset(struct nic *nic)
{
    (void)nic;
    return OK;
}

static const struct nic_ops fake_ops = {
    .start = fake_start,
    .link_up = fake_link_up,
    .rx = fake_rx,
    .tx = fake_tx,
    .irq = fake_irq,
    .reset = fake_reset,
};

/* ---- the loop ---- */

struct wire *wire_plug(void)
{
    struct wire *w = &the_wire;

    if (!w->open) {
        w->now_ns = 1000 * NS_PER_S;
        platform_clock_fake(w->now_ns);
        w->nic =
            (struct nic){.name = "wire", .ops = &fake_ops, .tx_checksum = true, .has_irq = true};
        memcpy(w->nic.mac, our_mac, 6);
        w->net.config = (struct net_config){.hostname = STR("nohost"), .port = WIRE_PORT};
        w->net.nic = &w->nic;
        stack_open(&w->net);
        if (conns_open(&w->net) != OK)
            panic(__FILE__, __LINE__, "conns_open");
        w->open = true;
    }
    platform_clock_fake(w->now_ns);
    w->full = w->refuse = false;
    return w;
}

static bool turn_once(struct wire *w)
{
    bool worked = stack_poll(&w->net);

    for (struct stream *stream; (stream = conns_next(&w->net)); worked = true) {
        if (w->refuse)
            stream->ops->abort(stream);
        else
            w->accepted = stream;
    }
    return worked;
}

void wire_turn(struct wire *w)
{
    while (turn_once(w))
        ;
}

void wire_run(struct wire *w, u64 ms)
{
    for (u64 done = 0; done < ms; done += 10) {
        w->now_ns += 10 * NS_PER_MS;
        platform_clock_fake(w->now_ns);
        wire_turn(w);
    }
}

void wire_send(struct wire *w, const void *frame, u32 len)
{
    struct wire_queue *q = &w->in;

    if (q->count == WIRE_FRAMES)
        return;
    u32 at = (q->head + q->count++) % WIRE_FRAMES;
    memcpy(q->frame[at], frame, len);
    q->len[at] = len;
    q->checked[at] = false;
}

const u8 *wire_take(struct wire *w, u32 *len)
{
    struct wire_queue *q = &w->out;

    if (!q->count)
        return NULL;
    const u8 *frame = q->frame[q->head];
    *len = q->len[q->head];
    q->head = (q->head + 1) % WIRE_FRAMES;
    q->count--;
    return frame;
}

/* ---- bytes ---- */

u16 wire_sum(const void *data, u32 len, u32 sum)
{
    const u8 *at = data;

    for (u32 i = 0; i < len; i++)
        sum += i & 1 ? at[i] : (u32)at[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (u16)~sum;
}

void wire_put16(u8 *at, u32 value)
{
    at[0] = (u8)(value >> 8);
    at[1] = (u8)value;
}

void wire_put32(u8 *at, u32 value)
{
    wire_put16(at, value >> 16);
    wire_put16(at + 2, value);
}

u32 wire_get16(const u8 *at)
{
    return (u32)at[0] << 8 | at[1];
}

u32 wire_get32(const u8 *at)
{
    return wire_get16(at) << 16 | wire_get16(at + 2);
}

static void put_ethernet(u8 *frame, u32 type)
{
    memcpy(frame, our_mac, 6);
    memcpy(frame + 6, peer_mac, 6);
    wire_put16(frame + 12, type);
}

void wire_ip4(struct wire *w, u32 to, u8 protocol, const void *payload, u32 len)
{
    u8 frame[WIRE_FRAME_MAX] = {0};
    u8 *ip = frame + 14;

    put_ethernet(frame, 0x0800);
    ip[0] = 0x45;
    wire_put16(ip + 2, 20 + len);
    ip[8] = 64;
    ip[9] = protocol;
    wire_put32(ip + 12, WIRE_PEER_IP);
    wire_put32(ip + 16, to);
    wire_put16(ip + 10, wire_sum(ip, 20, 0));
    memcpy(ip + 20, payload, len);
    wire_send(w, frame, 34 + len);
}

void wire_udp4(struct wire *w, u32 to, u16 from_port, u16 to_port, struct str payload)
{
    u8 udp[WIRE_FRAME_MAX] = {0};

    wire_put16(udp, from_port);
    wire_put16(udp + 2, to_port);
    wire_put16(udp + 4, 8 + (u32)payload.len); /* checksum 0: none (RFC 768) */
    memcpy(udp + 8, payload.ptr, payload.len);
    wire_ip4(w, to, 17, udp, 8 + (u32)payload.len);
}

/* ---- ARP and DHCP ---- */

static void answer_arp(struct wire *w, const u8 *frame)
{
    u8 reply[42] = {0};

    if (wire_get16(frame + 20) != 1 || wire_get32(frame + 38) != WIRE_PEER_IP)
        return;
    put_ethernet(reply, 0x0806);
    memcpy(reply + 14, "\0\1\10\0\6\4\0\2", 8);
    memcpy(reply + 22, peer_mac, 6);
    wire_put32(reply + 28, WIRE_PEER_IP);
    memcpy(reply + 32, frame + 22, 10);
    wire_send(w, reply, sizeof reply);
}

static void answer_dhcp(struct wire *w, const u8 *dhcp)
{
    u8 reply[300] = {0};
    u8 kind = 0;
    static const u8 options[] = {54, 4,   10,  0,   2,  2, 51, 4,  0, 0, 14, 16, 1,
                                 4,  255, 255, 255, 0,  3, 4,  10, 0, 2, 2,  6,  4,
                                 10, 0,   2,   3,   42, 4, 10, 0,  2, 2, 255};

    for (u32 at = 240; dhcp[at] != 255 && at < 500; at += 2u + dhcp[at + 1]) {
        if (dhcp[at] == 53)
            kind = dhcp[at + 2];
    }
    if (kind != 1 && kind != 3)
        return;
    memcpy(reply, "\2\1\6\0", 4);
    memcpy(reply + 4, dhcp + 4, 4); /* transaction */
    wire_put32(reply + 16, WIRE_OUR_IP);
    memcpy(reply + 28, our_mac, 6);
    wire_put32(reply + 236, 0x63825363);
    memcpy(reply + 240, (u8[]){53, 1, kind == 1 ? 2 : 5}, 3);
    memcpy(reply + 243, options, sizeof options);
    wire_udp4(w, 0xffffffff, 67, 68, (struct str){(char *)reply, sizeof reply});
}

void wire_answer(struct wire *w, bool dhcp, void (*other)(void *ctx, const u8 *frame, u32 len),
                 void *ctx)
{
    const u8 *frame;
    u32 len;

    while ((frame = wire_take(w, &len))) {
        u32 type = wire_get16(frame + 12);
        if (type == 0x0806)
            answer_arp(w, frame);
        else if (type == 0x0800 && frame[23] == 17 && wire_get16(frame + 36) == 67 && dhcp)
            answer_dhcp(w, frame + 42);
        else if (other)
            other(ctx, frame, len);
    }
}

void wire_drop_all(struct wire *w)
{
    wire_answer(w, false, NULL, NULL);
}

u32 wire_bind(struct wire *w)
{
    u64 start = w->now_ns;

    w->link = true;
    for (u32 i = 0;
         i < 1000 && ip4_addr_get_u32(netif_ip4_addr(&w->net.netif)) != PP_HTONL(WIRE_OUR_IP);
         i++) {
        wire_run(w, 10);
        wire_answer(w, true, NULL, NULL);
        wire_turn(w);
    }
    if (ip4_addr_get_u32(netif_ip4_addr(&w->net.netif)) != PP_HTONL(WIRE_OUR_IP))
        return WIRE_NO_ANSWER;
    u32 took = (u32)((w->now_ns - start) / NS_PER_MS);
    wire_drop_all(w);
    wire_turn(w);
    return took;
}

/* ---- TCP ---- */

void wire_tcp_send(struct wire_tcp *t, u8 flags, const void *data, u32 len)
{
    u8 segment[WIRE_FRAME_MAX] = {0};
    u32 header = flags & TCP_F_SYN ? 24 : 20;
    u8 pseudo[12] = {0};

    wire_put16(segment, t->port);
    wire_put16(segment + 2, WIRE_PORT);
    wire_put32(segment + 4, t->seq);
    wire_put32(segment + 8, flags & TCP_F_ACK ? t->ack : 0);
    segment[12] = (u8)(header / 4 << 4);
    segment[13] = flags;
    wire_put16(segment + 14, t->window);
    if (flags & TCP_F_SYN)
        memcpy(segment + 20, "\2\4\5\264", 4); /* MSS 1460 */
    if (len)
        memcpy(segment + header, data, len);
    wire_put32(pseudo, WIRE_PEER_IP);
    wire_put32(pseudo + 4, WIRE_OUR_IP);
    wire_put16(pseudo + 8, 6);
    wire_put16(pseudo + 10, header + len);
    u16 partial = (u16)~wire_sum(pseudo, sizeof pseudo, 0);
    wire_put16(segment + 16, wire_sum(segment, header + len, partial));
    wire_ip4(t->wire, WIRE_OUR_IP, 6, segment, header + len);
    t->seq += len + !!(flags & TCP_F_SYN) + !!(flags & TCP_F_FIN);
}

static void tcp_input_frame(void *ctx, const u8 *frame, u32 len)
{
    struct wire_tcp *t = ctx;
    const u8 *ip = frame + 14, *tcp = frame + 34;

    if (len < 54 || wire_get16(frame + 12) != 0x0800 || ip[9] != 6 ||
        wire_get16(tcp + 2) != t->port)
        return;
    u32 total = wire_get16(ip + 2), header = (u32)tcp[12] >> 4 << 2, data = total - 20 - header;
    u32 partial = (u16)~wire_sum(ip + 12, 8, 6 + total - 20);
    CHECK(total + 14 <= len);
    CHECK(wire_sum(tcp, total - 20, partial) == 0); /* what the card was asked to fill included */
    if (tcp[13] & TCP_F_RST)
        t->reset = true;
    if (tcp[13] & TCP_F_SYN) {
        t->ack = wire_get32(tcp + 4) + 1;
        t->open = true;
    } else if (wire_get32(tcp + 4) == t->ack) { /* in order; the rest is sent again */
        CHECK(t->data_len + data <= sizeof t->data);
        memcpy(t->data + t->data_len, tcp + header, data);
        t->data_len += data;
        t->ack += data;
        if (tcp[13] & TCP_F_FIN) {
            t->fin = true;
            t->ack++;
        }
    }
    if (tcp[13] & TCP_F_ACK) {
        t->acked = wire_get32(tcp + 8);
        t->their_window = wire_get16(tcp + 14);
    }
}

void wire_tcp_turn(struct wire_tcp *t, bool ack)
{
    u32 before = t->ack;

    wire_turn(t->wire);
    wire_answer(t->wire, true, tcp_input_frame, t);
    if (ack && t->ack != before && t->open && !t->reset)
        wire_tcp_send(t, TCP_F_ACK, NULL, 0);
    wire_turn(t->wire);
}

bool wire_tcp_connect(struct wire_tcp *t, struct wire *w, u16 port)
{
    *t = (struct wire_tcp){.wire = w, .port = port, .window = 65535, .seq = port * 1000u};
    w->accepted = NULL;
    wire_tcp_send(t, TCP_F_SYN, NULL, 0);
    for (u32 i = 0; i < 4 && !t->open; i++)
        wire_tcp_turn(t, true);
    return t->open && w->accepted;
}

u32 wire_connections(const struct wire *w)
{
    u32 count = 0;

    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        count += w->net.conn[i].taken;
    return count;
}

struct wire_pools wire_pools(void)
{
    struct wire_pools now = {0};

    for (u32 i = 0; i < MEMP_MAX && i < ARRAY_LEN(now.used); i++) {
        if (i != MEMP_SYS_TIMEOUT) /* timers come and go with the clock */
            now.used[i] = (u32)lwip_stats.memp[i]->used;
    }
    now.heap = (u32)lwip_stats.mem.used;
    return now;
}
