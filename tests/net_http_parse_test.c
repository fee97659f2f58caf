/*
 * net_http_parse_test.c: the request parser decides the same for every way in which the same
 * bytes arrive, and refuses every shape that two parsers could read in two ways.
 */
#include <stdlib.h>

#include "net/priv.h"
#include "tests/test.h"

/* A request with its body; status 0: good. */
struct vector {
    const char *bytes;
    u32 status;
    const char *body;
};

#define H    "Host: x\r\n"
#define POST "POST / HTTP/1.1\r\n" H

static const struct vector vectors[] = {
    {"GET / HTTP/1.1\r\n" H "\r\n", 0, ""},
    {"GET / HTTP/1.0\r\n\r\n", 0, ""},
    {"\r\nGET / HTTP/1.1\r\n" H "\r\n", 0, ""},
    {"GET http://x/a?b HTTP/1.1\r\n" H "\r\n", 0, ""},
    {"GET http://x HTTP/1.1\r\n" H "\r\n", 0, ""},
    {"OPTIONS * HTTP/1.1\r\n" H "\r\n", 0, ""},
    {"GET / HTTP/1.1\r\nhOsT:\tx \r\nX: \xff\xfe\r\nEmpty:\r\n\r\n", 0, ""},
    {POST "Content-Length: 5\r\n\r\nhello", 0, "hello"},
    {POST "Content-Length: 0\r\n\r\n", 0, ""},
    {POST "Content-Length: 005\r\n\r\nhello", 0, "hello"},
    {POST "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 0, "hello"},
    {POST "transfer-encoding: CHUNKED\r\n\r\n1;a=b\r\nh\r\n004\r\nello\r\n0;x\r\nX-T: 1\r\n\r\n", 0,
     "hello"},
    {POST "Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx", 0, "x"},
    /* framing */
    {POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked, identity\r\n\r\n", 501, 0},
    {POST "Transfer-Encoding: xchunked\r\n\r\n", 501, 0},
    {POST "Transfer-Encoding: chunked\x0b\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: \"chunked\"\r\n\r\n", 501, 0},
    {POST "Transfer-Encoding:\r\n\r\n", 501, 0},
    {POST "Transfer-Encoding : chunked\r\n\r\n", 400, 0},
    {POST " Transfer-Encoding: chunked\r\n\r\n", 400, 0},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, 0},
    {POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400, 0},
    {POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, 0},
    {POST "Content-Length: 5, 5\r\n\r\n", 400, 0},
    {POST "Content-Length: +5\r\n\r\n", 400, 0},
    {POST "Content-Length: -1\r\n\r\n", 400, 0},
    {POST "Content-Length: 0x10\r\n\r\n", 400, 0},
    {POST "Content-Length: 1e3\r\n\r\n", 400, 0},
    {POST "Content-Length:\r\n\r\n", 400, 0},
    {POST "Content-Length: 1048577\r\n\r\n", 413, 0},
    {POST "Content-Length: 99999999999999999999\r\n\r\n", 413, 0},
    {POST "Content-Length: 18446744073709551615\r\n\r\n", 413, 0},
    /* line ends and names */
    {"GET / HTTP/1.1\n" H "\r\n", 400, 0},
    {"GET / HTTP/1.1\r\nHost: x\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\nHost: x\r\n\rX", 400, 0},
    {"\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "Na me: x\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H ": x\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "no colon\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "N\xc3\xa9: x\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "A: b\r\n folded\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "A: \x01\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "A: \x7f\r\n\r\n", 400, 0},
    /* request line */
    {"GET / HTTP/1.1\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H H "\r\n", 400, 0},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, 0},
    {"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400, 0},
    {"GET /\r\n\r\n", 400, 0},
    {"GET  / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/1.1 \r\n" H "\r\n", 400, 0},
    {" GET / HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET / http/1.1\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/1.9\r\n" H "\r\n", 505, 0},
    {"GET / HTTP/2.0\r\n" H "\r\n", 505, 0},
    {"PRI * HTTP/2.0\r\n\r\n", 505, 0},
    {"GET / HTTP/11\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/:.1\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/1.:\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/1./\r\n" H "\r\n", 400, 0},
    {"GET / HTTP/1,1\r\n" H "\r\n", 400, 0},
    {"get / HTTP/1.1\r\n" H "\r\n", 501, 0},
    {"CONNECT x:1 HTTP/1.1\r\n" H "\r\n", 501, 0},
    {"GET x HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET * HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /\x7f HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /a#b HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n", 400, 0},
    {"\x16\x03\x01\x02\x00\x01\x00\x01", 400, 0},
    {"G\xc3\xa9T / HTTP/1.1\r\n", 400, 0},
    {"GET / HTTP/1.1\r\n" H "Expect: 200-ok\r\n\r\n", 417, 0},
    {"GET / HTTP/1.1\r\n" H "Authorization: a\r\nAuthorization: b\r\n\r\n", 400, 0},
    /* chunks */
    {POST "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n5 ;\r\nhello\r\n0\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n000000001\r\nh\r\n0\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\nh", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\nffffffff\r\nh", 413, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", 400, 0},
    {POST "Transfer-Encoding: chunked\r\n\r\n0\r\nbad name: 5\r\n\r\n", 400, 0},
};

struct outcome {
    enum http_step step;
    u32 status;
    usize used;
    char body[64];
    usize body_len;
};

/* `first` bytes arrive, then `step` at a time; they lie at the very end of their memory. */
static struct outcome parse(struct str bytes, usize first, usize step)
{
    struct http_request head = {};
    struct outcome outcome = {};
    char *copy = malloc(bytes.len);
    bool in_body = false;
    usize at = 0;

    memcpy(copy, bytes.ptr, bytes.len);
    for (usize have = first;; have = min_u64(have + step, bytes.len)) {
        if (!in_body) {
            outcome.step = http_head_read(&head, (struct str){copy, have});
            outcome.status = head.status;
            at = head.line_start;
            in_body = outcome.step == HTTP_DONE;
        }
        for (usize used = 1; in_body && used && outcome.step != HTTP_BAD;) {
            struct str data;
            outcome.step = http_body_read(&head, (struct str){copy + at, have - at}, &used, &data);
            outcome.status = head.status;
            at += used;
            EXPECT(outcome.body_len + data.len <= sizeof(outcome.body));
            memcpy(outcome.body + outcome.body_len, data.ptr, data.len);
            outcome.body_len += data.len;
            if (outcome.step == HTTP_DONE)
                break;
        }
        if (outcome.step != HTTP_MORE || have == bytes.len)
            break;
    }
    outcome.used = outcome.step == HTTP_DONE ? at : 0;
    free(copy);
    return outcome;
}

static void expect_vector(const struct vector *v, usize first, usize step)
{
    struct str bytes = str_of(v->bytes);
    struct outcome seen = parse(bytes, first, step);

    if (seen.status != v->status || seen.step != (v->status ? HTTP_BAD : HTTP_DONE))
        test_fail(__FILE__, __LINE__, "status %u (step %d), expected %u, split %zu/%zu: %s",
                  seen.status, (int)seen.step, v->status, first, step, v->bytes);
    if (!v->status) {
        EXPECT_EQ(seen.used, bytes.len);
        EXPECT_STR(((struct str){seen.body, seen.body_len}), str_of(v->body));
    }
}

TEST(net_http_vectors_split_everywhere) /* one verdict: whole, cut anywhere, byte by byte */
{
    for (usize i = 0; i < ARRAY_LEN(vectors); i++) {
        usize len = strlen(vectors[i].bytes);
        for (usize first = 0; first <= len; first++)
            expect_vector(&vectors[i], first, len);
        expect_vector(&vectors[i], 0, 1);
    }
}

TEST(net_http_nul_bytes) /* a NUL is refused wherever it stands in a head */
{
    static const char good[] = "GET /a HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n";

    for (usize at = 0; at < sizeof(good) - 1; at++) {
        char bytes[sizeof(good)];
        memcpy(bytes, good, sizeof(good));
        bytes[at] = 0;
        EXPECT_EQ(parse((struct str){bytes, sizeof(good) - 1}, 0, 1).status, 400);
    }
}

/* A head of `fields` fields with `value` bytes each, and a target of `target` bytes. */
static u32 head_status(usize target, usize fields, usize value)
{
    usize cap = 64 + target + fields * (value + 8);
    struct text text = {malloc(cap), 0, cap, false};

    text_put(&text, STR("GET /"));
    for (usize i = 1; i < target; i++)
        text_char(&text, 'a');
    text_put(&text, STR(" HTTP/1.1\r\nHost: x\r\n"));
    for (usize f = 1; f < fields; f++) {
        text_put(&text, STR("A: "));
        for (usize i = 0; i < value; i++)
            text_char(&text, 'v');
        text_put(&text, STR("\r\n"));
    }
    text_put(&text, STR("\r\n"));
    struct outcome whole = parse(text_str(&text), text.len, 1),
                   split = parse(text_str(&text), 0, 7);
    EXPECT_EQ(whole.status, split.status);
    free(text.ptr);
    return whole.status;
}

TEST(net_http_limits) /* 414 and 431 exactly beyond the limits of priv.h */
{
    EXPECT_EQ(head_status(HTTP_TARGET_BYTES_MAX, 1, 0), 0);
    EXPECT_EQ(head_status(HTTP_TARGET_BYTES_MAX + 1, 1, 0), 414);
    EXPECT_EQ(head_status(65536, 1, 0), 414);
    EXPECT_EQ(head_status(1, HTTP_FIELDS_MAX, 1), 0);
    EXPECT_EQ(head_status(1, HTTP_FIELDS_MAX + 1, 1), 431);
    EXPECT_EQ(head_status(1, 2, HTTP_FIELD_BYTES_MAX - 4), 0);
    EXPECT_EQ(head_status(1, 2, HTTP_FIELD_BYTES_MAX + 1), 431);
    EXPECT_EQ(head_status(1, 4, 6000), 431);
    EXPECT_EQ(head_status(1, 90, 170), 0);
    EXPECT_EQ(head_status(1, 90, 200), 431);
}

TEST(net_http_connection_field) /* keep-alive by version, close wins over it */
{
    static const struct {
        const char *bytes;
        bool keep;
    } rows[] = {
        {"GET / HTTP/1.1\r\n" H "\r\n", true},
        {"GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" H "Connection: keep-alive, Close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" H "Connection: close\r\nConnection: keep-alive\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
    };

    for (usize i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_request head = {};
        EXPECT_EQ(http_head_read(&head, str_of(rows[i].bytes)), HTTP_DONE);
        EXPECT_EQ(head.keep_alive, rows[i].keep);
    }
}

TEST(net_http_paths) /* origin and absolute form give the same path, without the query */
{
    static const struct {
        const char *line, *path;
    } rows[] = {
        {"GET / HTTP/1.1\r\n", "/"},
        {"GET /a/b?c=/d HTTP/1.1\r\n", "/a/b"},
        {"GET http://x.y:80/a?b HTTP/1.1\r\n", "/a"},
        {"GET http://x HTTP/1.1\r\n", "/"},
        {"OPTIONS * HTTP/1.1\r\n", "*"},
    };

    for (usize i = 0; i < ARRAY_LEN(rows); i++) {
        char bytes[128];
        struct text text = TEXT_ON(bytes);
        struct http_request head = {};
        text_fmt(&text, "%s" H "X-Request-Id: a\r\nX-Request-Id: b\r\n\r\n", rows[i].line);
        EXPECT_EQ(http_head_read(&head, text_str(&text)), HTTP_DONE);
        EXPECT_STR(head.path, str_of(rows[i].path));
        EXPECT_STR(head.field[FIELD_REQUEST_ID], STR("b"));
    }
}
