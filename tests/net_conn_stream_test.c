/*
 * net_conn_stream_test.c: TCP connections as streams: conn.c over lwIP with a client that builds
 * its segments by hand (net_wire.c). Checksums of what the stack sends are verified there.
 */
#include "tests/net_wire.h"
#include "tests/test.h"

static struct wire_tcp client, other;

static struct stream *connected(struct wire_tcp *t, u16 port)
{
    struct wire *w = wire_plug();

    EXPECT(wire_bind(w) != WIRE_NO_ANSWER);
    wire_drop_all(w);
    EXPECT(wire_tcp_connect(t, w, port));
    return w->accepted;
}

static void expect_text(struct stream *stream, struct str want)
{
    char got[64] = {0};
    usize len = stream->ops->recv(stream, got, sizeof got);

    EXPECT_STR(((struct str){got, len}), want);
}

/* Everything closed lets go of every pool once TIME_WAIT is over. */
static void settle(struct wire *w)
{
    wire_run(w, 130000);
    wire_answer(w, true, NULL, NULL);
    wire_run(w, 1000);
    wire_drop_all(w);
}

/* Guards: the plain life of a connection: request, answer, both sides close, no abort. */
TEST(net_conn_carries_a_request_and_its_answer)
{
    struct stream *s = connected(&client, 40001);

    EXPECT_STR(str_of(s->peer), STR("10.0.2.2"));
    wire_tcp_send(&client, TCP_F_ACK | TCP_F_PSH, "hello", 5);
    wire_tcp_turn(&client, true);
    expect_text(s, STR("hello"));
    EXPECT_EQ(s->ops->send(s, "answer", 6), 6);
    EXPECT_EQ(s->ops->unsent(s), 6);
    wire_tcp_turn(&client, true);
    EXPECT_STR(((struct str){(char *)client.data, client.data_len}), STR("answer"));
    EXPECT_EQ(s->ops->unsent(s), 0);
    EXPECT_EQ(s->ops->state(s), STREAM_OPEN);
    wire_tcp_send(&client, TCP_F_FIN | TCP_F_ACK, NULL, 0);
    wire_tcp_turn(&client, true);
    EXPECT_EQ(s->ops->state(s), STREAM_PEER_DONE);
    EXPECT_EQ(s->ops->send(s, "late", 4), 4); /* a half-closed client still reads */
    s->ops->close(s);
    wire_tcp_turn(&client, true);
    EXPECT_EQ(client.data_len, 10);
    EXPECT(client.fin && !client.reset);
    EXPECT_EQ(wire_connections(client.wire), 0);
}

/* Guards: a client that resets is seen as gone, and the place is free after close. */
TEST(net_conn_sees_a_reset)
{
    struct stream *s = connected(&client, 40002);

    wire_tcp_send(&client, TCP_F_RST | TCP_F_ACK, NULL, 0);
    wire_tcp_turn(&client, false);
    EXPECT_EQ(s->ops->state(s), STREAM_GONE);
    EXPECT_EQ(s->ops->send(s, "x", 1), 0);
    s->ops->close(s);
    EXPECT_EQ(wire_connections(client.wire), 0);
}

/* Guards: back-pressure towards the client: what is not read closes its window, reading opens it
 * again, and not a byte is lost or turned around at the ring's end. */
TEST(net_conn_window_closes_and_opens)
{
    struct stream *s = connected(&client, 40003);
    static u8 sent[3 * TCP_WND], got[sizeof sent];
    u32 offered = 0, taken = 0;

    for (u32 i = 0; i < sizeof sent; i++)
        sent[i] = (u8)test_random();
    for (u32 round = 0; round < 10000 && taken < sizeof sent; round++) {
        u32 room = client.acked + client.their_window - client.seq;
        u32 len = min_u32(min_u32(1 + test_random_below(1460), (u32)sizeof sent - offered), room);
        if (len && round % 3) {
            wire_tcp_send(&client, TCP_F_ACK, sent + offered, len);
            offered += len;
        } else if (!room || test_random_below(40) == 0) {
            taken += (u32)s->ops->recv(s, got + taken, 1 + test_random_below(20000));
        }
        wire_tcp_turn(&client, true);
        wire_run(client.wire, 10);
    }
    taken += (u32)s->ops->recv(s, got + taken, sizeof got - taken);
    EXPECT_EQ(taken, sizeof sent);
    EXPECT(memcmp(sent, got, sizeof sent) == 0);
    s->ops->abort(s);
}

/* Guards: back-pressure towards the server: a client that does not acknowledge makes send take less
 * and then nothing; when it reads again, everything arrives in order. */
TEST(net_conn_send_is_bounded_by_a_slow_client)
{
    struct stream *s = connected(&client, 40004);
    static u8 data[100000];
    u32 taken = 0;

    for (u32 i = 0; i < sizeof data; i++)
        data[i] = (u8)(i * 7 >> 3);
    while (true) {
        u32 more = (u32)s->ops->send(s, data + taken, 999);
        if (!more)
            break;
        taken += more;
        EXPECT(taken <= TCP_SND_BUF);
    }
    EXPECT_EQ(s->ops->unsent(s), taken);
    for (u32 i = 0; i < 2000 && client.data_len < sizeof data; i++) {
        wire_tcp_turn(&client, true);
        taken += (u32)s->ops->send(s, data + taken, min_u64(3000, sizeof data - taken));
        wire_run(client.wire, 10);
    }
    EXPECT_EQ(client.data_len, sizeof data);
    EXPECT(memcmp(client.data, data, sizeof data) == 0);
    s->ops->abort(s);
    wire_tcp_turn(&client, false);
    EXPECT(client.reset);
}

/* Guards: a full transmit ring loses nothing: TCP sends again. */
TEST(net_conn_full_card_loses_nothing)
{
    struct stream *s = connected(&client, 40005);

    client.wire->full = true;
    EXPECT_EQ(s->ops->send(s, "patience", 8), 8);
    wire_tcp_turn(&client, true);
    EXPECT_EQ(client.data_len, 0);
    client.wire->full = false;
    for (u32 i = 0; i < 500 && !client.data_len; i++) {
        wire_run(client.wire, 10);
        wire_tcp_turn(&client, true);
    }
    EXPECT_EQ(client.data_len, 8);
    s->ops->abort(s);
}

/* Guards: closing early while the client still sends lets it read the answer: no reset, its bytes
 * are drained. */
TEST(net_conn_close_lets_the_client_finish)
{
    struct stream *s = connected(&client, 40006);
    static const u8 body[1400];

    wire_tcp_send(&client, TCP_F_ACK, body, sizeof body);
    wire_tcp_turn(&client, true);
    EXPECT_EQ(s->ops->send(s, "413", 3), 3); /* unread bytes are left in the ring */
    s->ops->close(s);
    wire_tcp_turn(&client, true);
    EXPECT_EQ(client.data_len, 3);
    EXPECT(client.fin);
    for (u32 i = 0; i < 50; i++) {
        wire_tcp_send(&client, TCP_F_ACK, body, sizeof body);
        wire_tcp_turn(&client, true);
    }
    EXPECT(!client.reset);
    EXPECT_EQ(client.acked, client.seq);
    wire_tcp_send(&client, TCP_F_FIN | TCP_F_ACK, NULL, 0);
    wire_tcp_turn(&client, true);
    EXPECT(!client.reset);
}

/* Guards: a client that gets the port of a connection we closed first is served at once, unless its
 * SYN is older than that connection's end (RFC 1122, 4.2.2.13). */
TEST(net_conn_reopens_from_time_wait)
{
    for (u32 old = 0; old < 2; old++) {
        struct stream *s = connected(&client, 40020);
        s->ops->close(s);
        wire_tcp_turn(&client, true);
        wire_tcp_send(&client, TCP_F_FIN | TCP_F_ACK, NULL, 0);
        wire_tcp_turn(&client, true);
        EXPECT(client.fin && client.acked == client.seq);
        other = (struct wire_tcp){.wire = client.wire, .port = 40020, .window = 65535};
        other.seq = client.seq + (old ? 0u - 1000u : 64000u);
        wire_tcp_send(&other, TCP_F_SYN, NULL, 0);
        wire_tcp_turn(&other, true);
        EXPECT_EQ(other.open, !old);
        if (other.open)
            client.wire->accepted->ops->abort(client.wire->accepted);
        wire_drop_all(client.wire);
    }
}

/* Guards: a peer that is dead when we close costs a control block for a bounded time only. */
TEST(net_conn_close_to_a_dead_peer_is_bounded)
{
    struct wire *w = wire_plug();

    settle(w);
    struct wire_pools before = wire_pools();
    struct stream *s = connected(&client, 40007);
    static const u8 data[20000];
    EXPECT(s->ops->send(s, data, sizeof data) > 0);
    s->ops->close(s);
    for (u32 i = 0; i < 25; i++) { /* nobody answers */
        wire_run(w, 1000);
        wire_drop_all(w);
    }
    struct wire_pools after = wire_pools();
    EXPECT(memcmp(&before, &after, sizeof before) == 0);
}

/* Guards: every place taken means a reset for the next, not silence; and places come back. */
TEST(net_conn_refuses_when_full)
{
    struct wire *w = wire_plug();
    struct stream *streams[NET_CONNECTIONS_MAX];

    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        streams[i] = connected(&client, (u16)(41000 + i));
    wire_tcp_connect(&other, w, 42000);
    wire_tcp_turn(&other, false);
    EXPECT(other.reset);
    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        streams[i]->ops->abort(streams[i]);
    wire_drop_all(w);
    EXPECT(wire_tcp_connect(&other, w, 42001));
    w->accepted->ops->abort(w->accepted);
}

/* Guards: the server may refuse a connection that the stack has accepted. */
TEST(net_conn_aborts_what_the_server_refuses)
{
    struct wire *w = wire_plug();

    wire_bind(w);
    w->refuse = true;
    EXPECT(!wire_tcp_connect(&client, w, 43000));
    wire_tcp_turn(&client, false);
    EXPECT(client.reset);
    EXPECT_EQ(wire_connections(w), 0);
}

/* Guards: with no memory for what is sent, send takes nothing; a close then still reaches the
 * client once there is memory again. */
TEST(net_conn_survives_an_empty_heap)
{
    struct stream *s = connected(&client, 40008);
    static void *taken[4096];
    u32 count = 0;

    for (mem_size_t size = 1 << 20; size >= 16; size /= 2) {
        while (count < ARRAY_LEN(taken) && (taken[count] = mem_malloc(size)))
            count++;
    }
    EXPECT_EQ(s->ops->send(s, "no room", 7), 0);
    s->ops->close(s);
    wire_tcp_turn(&client, true);
    EXPECT(!client.fin);
    while (count)
        mem_free(taken[--count]);
    for (u32 i = 0; i < 100 && !client.fin; i++) {
        wire_run(client.wire, 10);
        wire_tcp_turn(&client, true);
    }
    EXPECT(client.fin && !client.reset);
}

/* Guards: half-open connections of a SYN flood expire, and a client is served afterwards. */
TEST(net_conn_syn_flood_passes)
{
    struct wire *w = wire_plug();

    wire_bind(w);
    settle(w);
    struct wire_pools before = wire_pools();
    for (u32 i = 0; i < 2000; i++) {
        struct wire_tcp *t = &other;
        t->wire = w, t->port = (u16)(10000 + i), t->window = 1000, t->seq = (u32)test_random();
        wire_tcp_send(t, TCP_F_SYN, NULL, 0);
        wire_turn(w);
        wire_drop_all(w);
    }
    wire_run(w, 30000);
    wire_answer(w, true, NULL, NULL);
    settle(w);
    struct wire_pools after = wire_pools();
    EXPECT(memcmp(&before, &after, sizeof before) == 0);
    EXPECT(wire_tcp_connect(&client, w, 40009));
    w->accepted->ops->abort(w->accepted);
}

/* Guards: sequence numbers of two connections tell nothing about each other (RFC 6528), yet run
 * forward for the same two ends. */
TEST(net_conn_sequence_numbers_are_keyed)
{
    struct stream *s = connected(&client, 40010);
    u32 first = client.ack;
    s->ops->abort(s);
    connected(&client, 40011)->ops->abort(client.wire->accepted);
    u32 second = client.ack;
    s = connected(&client, 40010);
    u32 again = client.ack;
    s->ops->abort(s);
    EXPECT(second - first > 100000 || first - second > 100000);
    EXPECT(again - first < 1u << 31);
}

/* Guards: nothing leaks: ten thousand connections that end in every way there is, pools counted
 * before and after. */
TEST(net_conn_ten_thousand_leave_nothing)
{
    struct wire *w = wire_plug();
    u8 buffer[2000];

    wire_bind(w);
    settle(w);
    struct wire_pools before = wire_pools();
    for (u32 i = 0; i < 10000; i++) {
        if (!wire_tcp_connect(&client, w, (u16)(1024 + i % 60000))) {
            wire_run(w, 200);
            wire_drop_all(w);
            continue;
        }
        struct stream *s = w->accepted;
        u32 steps = test_random_below(6);
        for (u32 step = 0; step < steps; step++) {
            u32 what = test_random_below(5);
            if (what == 0)
                wire_tcp_send(&client, TCP_F_ACK, buffer, test_random_below(1400));
            else if (what == 1)
                (void)s->ops->recv(s, buffer, test_random_below(sizeof buffer));
            else if (what == 2)
                (void)s->ops->send(s, buffer, test_random_below(sizeof buffer));
            else if (what == 3 && !client.fin)
                wire_tcp_send(&client, TCP_F_FIN | TCP_F_ACK, NULL, 0), client.fin = true;
            else
                client.seq += test_random_below(3) * 700; /* a hole: out of order from here */
            wire_tcp_turn(&client, test_random_below(3) > 0);
        }
        if (test_random_below(3) == 0)
            wire_tcp_send(&client, TCP_F_RST, NULL, 0);
        if (test_random_below(2))
            s->ops->close(s);
        else
            s->ops->abort(s);
        if (i % 16 == 0)
            wire_run(w, 10);
        wire_drop_all(w);
    }
    EXPECT_EQ(wire_connections(w), 0);
    settle(w);
    struct wire_pools after = wire_pools();
    for (u32 i = 0; i < ARRAY_LEN(before.used); i++)
        EXPECT_EQ(after.used[i], before.used[i]);
    EXPECT_EQ(after.heap, before.heap);
}
