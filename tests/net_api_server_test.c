/*
 * net_api_server_test.c: connections: bytes in any pieces, pipelining, peers that leave, stall or
 * crawl, limits; and that nothing is lost to any of them.
 */
#include "tests/host/platform.h"
#include "tests/net_fake.h"

#define GET         "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
#define CHAT_BODY   "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}"
#define CHAT_HEAD   "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 45\r\n\r\n"
#define STREAM_BODY "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"stream\":true}"
#define STREAM_HEAD "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 59\r\n\r\n"
#define CHUNKED_HEAD                                                                               \
    "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

static const u64 start_ns = 1000 * NS_PER_S;

static void at_second(struct fake *fake, u64 second)
{
    platform_clock_fake(start_ns + second * NS_PER_S + 1);
    fake_settle(fake);
}

static u32 answers(const struct wire *wire)
{
    struct str out = wire_out(wire);
    u32 n = 0;

    for (usize at; (at = str_find(out, STR("HTTP/1.1 200 OK\r\n"))) < out.len; n++)
        out = str_slice(out, at + 1, out.len);
    return n;
}

static void expect_nothing_held(struct fake *fake)
{
    EXPECT_EQ(fake->server->in_pool.used, 0);
    EXPECT_EQ(fake->server->out_pool.used, 0);
    EXPECT_EQ(fake_running(fake), 0);
}

TEST(net_api_split_at_every_byte) /* the same answer however the request is cut, and byte by byte */
{
    static const char *const requests[] = {
        CHAT_HEAD CHAT_BODY,
        CHUNKED_HEAD
        "1d\r\n{\"messages\":[{\"role\":\"user\",\"\r\n10\r\ncontent\":\"Hi\"}]}\r\n0\r\n\r\n",
    };
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    for (usize i = 0; i < ARRAY_LEN(requests); i++) {
        struct str all = str_of(requests[i]);
        for (usize at = 0; at <= all.len + 1; at++) {
            fake_ask(&fake, &wire, str_slice(all, 0, at > all.len ? 0 : at));
            wire.recv_max = at > all.len; /* the last round: one byte a turn */
            wire_feed(&wire, str_slice(all, at > all.len ? 0 : at, all.len));
            fake_settle(&fake);
            EXPECT_EQ(wire_status(&wire), 200);
            EXPECT(wire_has(&wire, "\"content\":\"Hello \\\"w"));
            EXPECT_STR(str_of(fake.prompt), STR("user:Hi|"));
            wire_close(&wire);
        }
    }
    expect_nothing_held(&fake);
    fake_close(&fake);
}

TEST(net_api_pipelining) /* a thousand at once, in order, over a narrow wire */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    wire_open(&fake, &wire);
    wire_feed(&wire, STR(CHAT_HEAD CHAT_BODY));
    for (u32 i = 0; i < 998; i++)
        wire_feed(&wire, STR(GET));
    wire_feed(&wire, STR(CHAT_HEAD CHAT_BODY));
    wire.send_room = 1;
    for (u32 i = 0; i < 100000 && answers(&wire) < 10; i++) {
        fake_settle(&fake);
        wire.send_room = 1 + test_random_below(500);
    }
    wire.state = STREAM_PEER_DONE; /* half closed: what was asked is still answered */
    wire.send_room = WIRE_BYTES;
    fake_settle(&fake);
    EXPECT_EQ(answers(&wire), 1000);
    EXPECT(wire.closed);
    wire_close(&wire);
    expect_nothing_held(&fake);
    fake_close(&fake);
}

TEST(net_api_continue) /* 100 before the body, but a refusal instead of it when that is certain */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake_ask(&fake, &wire,
             STR("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 45\r\n"
                 "Expect: 100-continue\r\n\r\n"));
    EXPECT_STR(wire_out(&wire), STR("HTTP/1.1 100 Continue\r\n\r\n"));
    wire_feed(&wire, STR(CHAT_BODY));
    fake_settle(&fake);
    EXPECT_EQ(answers(&wire), 1);
    wire_close(&wire);
    fake_ask(&fake, &wire,
             STR("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                 "Content-Length: 2000000\r\nExpect: 100-continue\r\n\r\n"));
    EXPECT_EQ(wire_status(&wire), 413);
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_disconnects) /* who leaves frees its run at once, whenever that is */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    for (u32 leave = 0; leave < 8; leave++) {
        for (u32 half = 0; half < 4; half++) {
            u64 before = fake.cancelled;
            fake.hold = true;
            fake_ask(&fake, &wire,
                     half & 1 ? STR(STREAM_HEAD STREAM_BODY) : STR(CHAT_HEAD CHAT_BODY));
            EXPECT_EQ(fake_running(&fake), 1);
            for (u32 i = 0; i < leave; i++) { /* `leave` events, then silence */
                struct ml_event event;
                fake.hold = false;
                if (fake_running(&fake) && fake.run[0].at < fake.token_count &&
                    fake.server->on->event_next((struct ml *)&fake, &event))
                    answer_event(&fake.server->conn[0], &event);
                fake.hold = true;
            }
            wire.state = half & 2 ? STREAM_PEER_DONE : STREAM_GONE;
            server_poll(fake.server);
            EXPECT_EQ(fake.cancelled, before + 1);
            EXPECT(wire.aborted && server_connections(fake.server) == 0);
            expect_nothing_held(&fake);
            wire_close(&wire);
        }
    }
    EXPECT_EQ(fake.server->stats.disconnects, 32);
    fake_close(&fake);
}

TEST(net_api_gone_in_every_state) /* a reset after any byte of a request leaves nothing behind */
{
    struct str all = STR(CHUNKED_HEAD "2d\r\n" CHAT_BODY "\r\n0\r\n\r\n");
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake.hold = true;
    for (usize at = 0; at <= all.len; at++) {
        for (u32 half = 0; half < 2; half++) {
            fake_ask(&fake, &wire, str_slice(all, 0, at));
            wire.state = half ? STREAM_PEER_DONE : STREAM_GONE;
            fake_settle(&fake);
            EXPECT(wire.aborted || wire.closed);
            EXPECT_EQ(server_connections(fake.server), 0);
            expect_nothing_held(&fake);
            wire_close(&wire);
        }
    }
    fake_close(&fake);
}

TEST(net_api_timeouts) /* header 10 s, body 30 s idle and 120 s in all, keep-alive 60 s */
{
    struct fake fake;
    struct wire head, body, crawl, idle;

    fake_open(&fake);
    fake_ask(&fake, &head, STR("GET / HT"));
    fake_ask(&fake, &body, STR(CHAT_HEAD "{"));
    fake_ask(&fake, &crawl, STR(CHAT_HEAD));
    fake_ask(&fake, &idle, STR(GET));
    at_second(&fake, 9);
    EXPECT_EQ(head.out_len, 0);
    wire_feed(&head, STR("TP/")); /* a byte now and then does not buy time */
    at_second(&fake, 10);
    EXPECT_EQ(wire_status(&head), 408);
    at_second(&fake, 29);
    EXPECT_EQ(body.out_len, 0);
    for (u64 second = 29; second < 120; second += 29) {
        wire_feed(&crawl, STR(" "));
        at_second(&fake, second);
    }
    EXPECT_EQ(wire_status(&body), 408);
    EXPECT(body.closed && idle.closed && !idle.aborted);
    EXPECT_EQ(crawl.out_len, 0);
    at_second(&fake, 121);
    EXPECT_EQ(wire_status(&crawl), 408);
    EXPECT(head.closed && crawl.closed);
    EXPECT_EQ(fake.server->stats.timeouts, 3);
    wire_close(&head);
    wire_close(&body);
    wire_close(&crawl);
    wire_close(&idle);
    expect_nothing_held(&fake);
    fake_close(&fake);
}

TEST(net_api_idle_at_59) /* a keep-alive connection may rest for a minute */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake_ask(&fake, &wire, STR(GET));
    at_second(&fake, 59);
    EXPECT(!wire.closed);
    wire_feed(&wire, STR(GET));
    at_second(&fake, 59);
    EXPECT_EQ(answers(&wire), 2);
    at_second(&fake, 118);
    EXPECT(!wire.closed);
    at_second(&fake, 120);
    EXPECT(wire.closed);
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_stalled_reader) /* bounded, dropped at 30 s; others stream on */
{
    static const char *many[2000];
    struct fake fake;
    struct wire bad, good;

    for (usize i = 0; i < ARRAY_LEN(many); i++)
        many[i] = "some text of a token";
    fake_open(&fake);
    fake.token = many;
    fake.token_count = 100;
    wire_open(&fake, &bad);
    bad.send_room = 100;
    wire_feed(&bad, STR(STREAM_HEAD STREAM_BODY));
    fake_settle(&fake);
    fake_ask(&fake, &good, STR(STREAM_HEAD STREAM_BODY));
    EXPECT(wire_has(&good, "data: [DONE]"));
    at_second(&fake, 29);
    EXPECT(!bad.aborted);
    at_second(&fake, 31);
    EXPECT(bad.aborted && fake.server->stats.stalls == 1);
    wire_close(&bad);
    fake.token_count = ARRAY_LEN(many); /* about 450 KiB of chunks */
    wire_open(&fake, &bad);
    bad.send_room = 100;
    wire_feed(&bad, STR(STREAM_HEAD STREAM_BODY));
    fake_settle(&fake);
    EXPECT(bad.aborted && fake.cancelled == 1);
    EXPECT(fake.server->out_pool.peak == 1); /* its one place of OUT_BYTES_MAX, no more */
    wire_close(&bad);
    wire_close(&good);
    expect_nothing_held(&fake);
    fake_close(&fake);
}

TEST(net_api_ping) /* comments keep a stream alive while nothing else can be said */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake.hold = true;
    fake_ask(&fake, &wire, STR(STREAM_HEAD STREAM_BODY));
    for (u64 second = 0; second <= 65; second++)
        at_second(&fake, second);
    EXPECT(wire_has(&wire, "\r\n\r\n8\r\n: ping\n\n\r\n8\r\n: ping\n\n\r\n"));
    EXPECT(!wire.aborted && fake_running(&fake) == 1);
    fake.hold = false;
    fake_settle(&fake);
    EXPECT(wire_has(&wire, "[DONE]"));
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_full_house) /* the 65th connection pushes out an idle one, never one that works */
{
    static struct wire wire[NET_CONNECTIONS_MAX + 1], late;
    struct fake fake;

    fake_open(&fake);
    fake.hold = true;
    fake_ask(&fake, &wire[0], STR(CHAT_HEAD CHAT_BODY));
    for (u32 i = 1; i < NET_CONNECTIONS_MAX; i++) {
        at_second(&fake, i);
        if (i < 40)
            wire_open(&fake, &wire[i]);
        else
            fake_ask(&fake, &wire[i], STR(STREAM_HEAD STREAM_BODY));
    }
    EXPECT(!wire[0].aborted && !wire[1].aborted);
    wire_open(&fake, &wire[NET_CONNECTIONS_MAX]);
    EXPECT(wire[1].aborted || wire[1].closed); /* or its minute was over by then */
    EXPECT(!wire[0].aborted && !wire[39].aborted && !wire[40].aborted);
    for (u32 i = 0; i <= NET_CONNECTIONS_MAX; i++)
        wire_close(&wire[i]);
    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        fake_ask(&fake, &wire[i], STR(CHAT_HEAD CHAT_BODY));
    late = (struct wire){.stream = wire[0].stream};
    EXPECT(!server_accept(fake.server, &late.stream));
    EXPECT_EQ(fake.server->stats.refused, 1);
    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        wire_close(&wire[i]);
    expect_nothing_held(&fake);
    fake_close(&fake);
}

TEST(net_api_large_bodies) /* many at once get 503, small requests still pass, the limit is exact */
{
    static char space[HTTP_BODY_BYTES_MAX];
    static struct wire wire[8];
    struct fake fake;
    struct wire small;
    u32 refused = 0;

    memset(space, ' ', sizeof(space));
    fake_open(&fake);
    for (u32 i = 0; i < ARRAY_LEN(wire); i++) {
        fake_ask(&fake, &wire[i],
                 STR("POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                     "Content-Length: 1048576\r\n\r\n"));
        wire_feed(&wire[i], (struct str){space, sizeof(space) - 1});
        fake_settle(&fake);
        refused += wire_status(&wire[i]) == 503;
    }
    EXPECT(refused > 0 && refused < ARRAY_LEN(wire));
    fake_ask(&fake, &small, STR(CHAT_HEAD CHAT_BODY));
    EXPECT_EQ(wire_status(&small), 200);
    wire_close(&small);
    for (u32 i = 0; i < ARRAY_LEN(wire); i++) {
        if (!wire[i].out_len) {
            wire_feed(&wire[i], STR(" "));
            fake_settle(&fake);
            EXPECT_EQ(wire_status(&wire[i]), 400); /* blanks are no JSON */
        }
        wire_close(&wire[i]);
    }
    expect_nothing_held(&fake);
    fake_close(&fake);
}

TEST(net_api_greedy_clients) /* whatever they let pile up, small answers still find room */
{
    static const char *many[700];
    static struct wire greedy[NET_CONNECTIONS_MAX - 1];
    struct str body = STR("{\"prompt\":\"x\",\"stream\":true,\"logprobs\":20}");
    struct fake fake;
    struct wire small;

    for (usize i = 0; i < ARRAY_LEN(many); i++)
        many[i] = "some text";
    fake_open(&fake);
    fake.token = many;
    fake.token_count = ARRAY_LEN(many);
    fake.hold = true;
    for (u32 i = 0; i < ARRAY_LEN(greedy); i++) {
        if (i % 2) /* kept whole: never read at all, so ends in the pool */
            body = STR("{\"prompt\":\"x\",\"logprobs\":20,\"max_tokens\":700}");
        wire_open(&fake, &greedy[i]);
        greedy[i].send_room = 0;
        char head[256];
        struct text text = TEXT_ON(head);
        text_fmt(&text, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                 body.len);
        wire_feed(&greedy[i], text_str(&text));
        wire_feed(&greedy[i], body);
        fake_settle(&fake);
    }
    EXPECT_EQ(fake_running(&fake), ARRAY_LEN(greedy));
    fake.hold = false;
    fake_settle(&fake);
    EXPECT_EQ(fake.server->out_pool.peak, fake.server->out_pool.count);
    fake.token_count = 3;
    for (u32 i = 0; i < 10; i++) {
        fake_post(&fake, &small, "/v1/completions", STR("{\"prompt\":\"x\",\"logprobs\":5}"));
        EXPECT_EQ(wire_status(&small), 200);
        expect_json(wire_body(&small));
        wire_close(&small);
    }
    for (u32 i = 0; i < ARRAY_LEN(greedy); i++)
        wire_close(&greedy[i]);
    expect_nothing_held(&fake);
    fake_close(&fake);
}

TEST(net_api_refused_body_is_no_request) /* what follows an early refusal is never taken for one */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    wire_open(&fake, &wire);
    wire_feed(&wire, STR("POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"));
    for (u32 i = 0; i < 50; i++)
        wire_feed(&wire, STR(GET));
    fake_settle(&fake);
    EXPECT(wire_status(&wire) == 404 && wire_has(&wire, "Connection: close"));
    EXPECT(wire.closed && answers(&wire) == 0);
    wire_close(&wire);
    fake_close(&fake);
}

/* ---- ten thousand malformed requests ---- */

static usize mutate(char *bytes, usize len, usize cap)
{
    static const char *const bits[] = {"\r\n",    "\n",       "\r",   ":",
                                       " ",       "{",        "[",    "\"",
                                       "\\u",     "0",        "-",    "Content-Length: 5\r\n",
                                       "chunked", "\r\n\r\n", "\xff", "}"};

    for (u32 n = 1 + test_random_below(3); n && len; n--) {
        usize at = test_random_below((u32)len);
        struct str bit = str_of(bits[test_random_below(ARRAY_LEN(bits))]);
        switch (test_random_below(4)) {
        case 0:
            bytes[at] = (char)test_random_below(256);
            break;
        case 1: /* cut out */
            memmove(bytes + at, bytes + at + 1, len - at - 1);
            len--;
            break;
        case 2: /* cut off */
            len = at + 1;
            break;
        default:
            if (len + bit.len < cap) {
                memmove(bytes + at + bit.len, bytes + at, len - at);
                memcpy(bytes + at, bit.ptr, bit.len);
                len += bit.len;
            }
        }
    }
    return len;
}

TEST(net_api_ten_thousand_malformed) /* no memory lost, a stream beside them undisturbed */
{
    static const char *const seeds[] = {CHAT_HEAD CHAT_BODY, STREAM_HEAD STREAM_BODY, GET,
                                        CHUNKED_HEAD "2d\r\n" CHAT_BODY "\r\n0\r\n\r\n"};
    struct fake fake;
    struct wire beside, wire;
    u32 answered[600] = {};

    fake_open(&fake);
    fake.hold = true;
    fake_ask(&fake, &beside, STR(STREAM_HEAD STREAM_BODY));
    u32 in_used = fake.server->in_pool.used, out_used = fake.server->out_pool.used;
    for (u32 i = 0; i < 10000; i++) {
        char bytes[1024];
        struct str seed = str_of(seeds[test_random_below(ARRAY_LEN(seeds))]);
        memcpy(bytes, seed.ptr, seed.len);
        usize len = mutate(bytes, seed.len, sizeof(bytes));
        wire_open(&fake, &wire);
        wire.recv_max = test_random_below(8);
        wire_feed(&wire, (struct str){bytes, len});
        fake_settle(&fake);
        answered[wire_status(&wire)]++;
        wire.state = STREAM_GONE;
        fake_settle(&fake);
        wire_close(&wire);
    }
    EXPECT_EQ(answered[500], 0);
    EXPECT(answered[400] > 1000);
    EXPECT_EQ(fake.server->in_pool.used, in_used);
    EXPECT_EQ(fake.server->out_pool.used, out_used);
    EXPECT_EQ(server_connections(fake.server), 1);
    EXPECT_EQ(fake_running(&fake), 1);
    fake.hold = false;
    fake_settle(&fake);
    EXPECT(wire_has(&beside, "data: [DONE]"));
    wire_close(&beside);
    expect_nothing_held(&fake);
    fake_close(&fake);
}
