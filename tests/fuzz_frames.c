/*
 * fuzz_frames.c: the interface against frames from anybody. The input is a script of records: a
 * frame with sound outer headers (so that the fuzzer gets past them), a raw frame, a step of time,
 * a step of the server. Transport checksums are marked as verified by the card.
 */
#include "tests/net_wire.c" /* the fuzz programs link one test file */

int LLVMFuzzerTestOneInput(const u8 *data, usize size);

enum record { RAW, IP4, IP6, TCP, TIME, SERVER, RECORD_KINDS };

static void mark_checked(struct wire *w)
{
    if (w->in.count)
        w->in.checked[(w->in.head + w->in.count - 1) % WIRE_FRAMES] = true;
}

static void send_ip6(struct wire *w, u8 protocol, const u8 *payload, u32 len)
{
    u8 frame[WIRE_FRAME_MAX] = {0};

    put_ethernet(frame, 0x86dd);
    frame[14] = 0x60;
    wire_put16(frame + 18, len);
    frame[20] = protocol;
    frame[21] = 255;
    memcpy(frame + 22, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16);
    memcpy(frame + 38, "\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\1", 16);
    memcpy(frame + 54, payload, len);
    wire_send(w, frame, 54 + len);
}

/* Acts on the newest connection as a server would. */
static void serve(struct wire *w, u8 what)
{
    u8 buffer[256] = {0};
    struct stream *s = w->accepted;

    if (!s || !((struct tcp_conn *)s)->taken)
        return;
    if (what % 4 == 0)
        (void)s->ops->recv(s, buffer, what);
    else if (what % 4 == 1)
        (void)s->ops->send(s, buffer, what);
    else if (what % 4 == 2)
        s->ops->close(s);
    else
        s->ops->abort(s);
}

static void act(struct wire *w, struct wire_tcp *t, enum record kind, const u8 *at, u32 len)
{
    u8 frame[WIRE_FRAME_MAX] = {0};

    if (kind == RAW && len >= 2) {
        put_ethernet(frame, 0x0800 + (at[0] % 2 ? 0x06 : at[1] % 2 ? 0x7edd : 0));
        memcpy(frame + 14, at, len);
        wire_send(w, frame, 14 + len);
    } else if (kind == IP4 && len >= 1) {
        wire_ip4(w, at[0] & 64 ? 0xffffffff : WIRE_OUR_IP, at[0] & 63, at + 1, len - 1);
    } else if (kind == IP6 && len >= 1) {
        send_ip6(w, at[0], at + 1, len - 1);
    } else if (kind == TCP && len >= 3) {
        t->port = 1000 + at[2] % 4;
        t->window = (u16)(at[1] << 8);
        t->seq += at[2] & 128 ? 0 : at[2];
        wire_tcp_send(t, at[0], at + 3, len - 3);
    } else if (kind == TIME && len >= 1) {
        wire_run(w, at[0] * 40u);
    } else if (kind == SERVER && len >= 1) {
        serve(w, at[0]);
    }
    mark_checked(w);
}

int LLVMFuzzerTestOneInput(const u8 *data, usize size)
{
    static struct wire_tcp t;
    struct wire *w = wire_plug();

    if (!w->net.link)
        CHECK(wire_bind(w) != WIRE_NO_ANSWER);
    t = (struct wire_tcp){.wire = w, .window = 4000, .seq = 7};
    for (usize at = 0; at + 2 <= size;) {
        u32 len = (u32)min_u64(data[at + 1] * (data[at] & 128 ? 5u : 1u), size - at - 2);
        act(w, &t, data[at] % RECORD_KINDS, data + at + 2, len);
        at += 2 + len;
        wire_turn(w);
        wire_answer(w, true, tcp_input_frame, &t);
        t.data_len = 0;
    }
    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++) {
        if (w->net.conn[i].taken)
            w->net.conn[i].stream.ops->abort(&w->net.conn[i].stream);
    }
    wire_turn(w);
    wire_drop_all(w);
    return 0;
}
