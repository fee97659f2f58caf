/*
 * net_api_answer_test.c: the shapes of good answers, streaming and whole, in both API forms, and
 * what of the request reaches the runtime.
 */
#include "tests/net_fake.h"

#define CHAT     "/v1/chat/completions"
#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

/* Every event is one line of JSON, but for the last and for comments. */
static void expect_events(struct str text)
{
    while (text.len) {
        struct str empty, line = str_cut(text, '\n', &text);
        empty = str_cut(text, '\n', &text);
        EXPECT_EQ(empty.len, 0);
        if (!str_eq(line, STR("data: [DONE]")) && !str_starts(line, STR(": "))) {
            EXPECT(str_starts(line, STR("data: {")));
            expect_json(str_slice(line, 6, line.len));
        }
    }
}

/* The answer's bytes with chunked framing taken off; fails when that is not exact. */
static struct str unchunk(struct str body, char *out, usize cap)
{
    struct http_request state = {.body = BODY_SIZE_LINE};
    struct text text = {out, 0, cap, false};
    enum http_step step = HTTP_MORE;
    usize used = 1;

    while (step == HTTP_MORE && used) {
        struct str data;
        step = http_body_read(&state, body, &used, &data);
        text_put(&text, data);
        body = str_slice(body, used, body.len);
    }
    EXPECT_EQ(step, HTTP_DONE);
    EXPECT_EQ(body.len, 0);
    expect_events(text_str(&text));
    return text_str(&text);
}

static u32 count(struct str text, const char *what)
{
    u32 n = 0;

    for (usize at; (at = str_find(text, str_of(what))) < text.len; n++)
        text = str_slice(text, at + 1, text.len);
    return n;
}

static void expect_in(struct str text, const char *what)
{
    if (str_find(text, str_of(what)) == text.len)
        test_fail(__FILE__, __LINE__, "no %s in %.*s", what, (int)text.len, text.ptr);
}

TEST(net_api_chat_whole) /* one JSON body with every member that clients look for */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake_post(&fake, &wire, CHAT, STR("{\"model\":\"smollm2-135m-instruct\"," MESSAGES "}"));
    EXPECT_EQ(wire_status(&wire), 200);
    struct str body = wire_body(&wire);
    expect_json(body);
    EXPECT(str_starts(body, STR("{\"id\":\"chatcmpl-")));
    expect_in(body, "\"object\":\"chat.completion\",\"created\":");
    expect_in(body,
              "\"model\":\"SmolLM2-135M-Instruct\",\"system_fingerprint\":\"nohost-0.1-test\"");
    expect_in(body, "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
                    "\"Hello \\\"w\\\"\\n\xc3\xa9\",\"refusal\":null},\"logprobs\":null,"
                    "\"finish_reason\":\"stop\"}]");
    expect_in(body, "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":4,\"total_tokens\":11,");
    EXPECT_STR(str_of(fake.prompt), STR("user:Hi|"));
    EXPECT(!wire.closed && server_connections(fake.server) == 1);
    EXPECT_EQ(fake.server->out_pool.used, 0);
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_chat_stream) /* role first, null until the end, one chunk per text, usage, [DONE] */
{
    struct fake fake;
    struct wire wire;
    char plain[16384];

    fake_open(&fake);
    fake_post(&fake, &wire, CHAT,
              STR("{\"stream\":true,\"stream_options\":{\"include_usage\":true}," MESSAGES "}"));
    EXPECT_EQ(wire_status(&wire), 200);
    EXPECT(wire_has(&wire, "Content-Type: text/event-stream"));
    struct str text = unchunk(wire_body(&wire), plain, sizeof(plain));
    EXPECT(str_starts(text, STR("data: {\"id\":\"chatcmpl-")));
    EXPECT(str_ends(text, STR("}\n\ndata: [DONE]\n\n")));
    EXPECT_EQ(count(text, "data: "), 8); /* role, four texts, finish, usage, [DONE] */
    EXPECT_EQ(count(text, "\n\n"), 8);
    EXPECT_EQ(count(text, "\"object\":\"chat.completion.chunk\""), 7);
    EXPECT_EQ(count(text, "\"finish_reason\":null"), 5);
    EXPECT_EQ(count(text, "\"usage\":null"), 6);
    EXPECT(str_find(text, STR("\"role\":\"assistant\"")) < str_find(text, STR("Hel")));
    expect_in(text,
              "\"delta\":{\"content\":\" \\\"w\\\"\"},\"logprobs\":null,\"finish_reason\":null}]");
    expect_in(text, "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]");
    expect_in(text, "\"choices\":[],\"usage\":{\"prompt_tokens\":7,");
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_stream_http10) /* no chunks in HTTP/1.0: the end of the connection ends the body */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake_ask(&fake, &wire,
             STR("POST /v1/completions HTTP/1.0\r\nContent-Length: 28\r\n\r\n"
                 "{\"prompt\":\"x\",\"stream\":true}"));
    EXPECT_EQ(wire_status(&wire), 200);
    EXPECT(!wire_has(&wire, "chunked") && wire.closed);
    EXPECT(str_starts(wire_body(&wire), STR("data: {\"id\":\"cmpl-")));
    EXPECT(str_ends(wire_body(&wire), STR("\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")));
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_chat_logprobs) /* token, logprob, bytes, top_logprobs; invalid bytes are replaced */
{
    struct fake fake;
    struct wire wire;
    char plain[65536];
    const char *item = "{\"token\":\" \\\"w\\\"\",\"logprob\":-0.75,\"bytes\":[32,34,119,34],"
                       "\"top_logprobs\":[{\"token\":\"\xef\xbf\xbd\xef\xbf\xbd\",\"logprob\":-1.5,"
                       "\"bytes\":[226,130]},";

    fake_open(&fake);
    fake_post(&fake, &wire, CHAT, STR("{\"logprobs\":true,\"top_logprobs\":2," MESSAGES "}"));
    expect_json(wire_body(&wire));
    expect_in(wire_body(&wire), item);
    expect_in(wire_body(&wire), "\"logprobs\":{\"content\":[{\"token\":\"Hel\"");
    EXPECT_EQ(count(wire_body(&wire), "\"top_logprobs\":["), 4);
    wire_close(&wire);
    fake_post(&fake, &wire, CHAT,
              STR("{\"stream\":true,\"logprobs\":true,\"top_logprobs\":2," MESSAGES "}"));
    struct str text = unchunk(wire_body(&wire), plain, sizeof(plain));
    expect_in(text, item);
    EXPECT_EQ(count(text, "\"logprobs\":{\"content\":[{"), 4);
    EXPECT_EQ(count(text, "],\"refusal\":null},\"finish_reason\":null"), 4);
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_completion_logprobs) /* four parallel arrays, offsets in characters */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake_post(&fake, &wire, "/v1/completions", STR("{\"prompt\":\"x\",\"logprobs\":1}"));
    struct str body = wire_body(&wire);
    expect_in(body,
              "\"text\":\"Hello \\\"w\\\"\\n\xc3\xa9\",\"logprobs\":{\"tokens\":[\"Hel\",\"lo\",");
    expect_in(body, "],\"token_logprobs\":[-0.25,-0.5,-0.75,-1],\"top_logprobs\":[{");
    expect_in(body, "],\"text_offset\":[0,3,5,9]},\"finish_reason\":\"stop\"}]");
    expect_in(body, "{\"\xef\xbf\xbd\xef\xbf\xbd\":-1.5},{");
    EXPECT_EQ(fake.request.sampling.top_logprobs, 1);
    EXPECT_EQ(fake.request.tokens_max, 16);
    EXPECT_STR(str_of(fake.prompt), STR("x"));
    wire_close(&wire);
    char plain[16384];
    fake_post(&fake, &wire, "/v1/completions",
              STR("{\"prompt\":\"x\",\"logprobs\":2,\"stream\":true}"));
    struct str text = unchunk(wire_body(&wire), plain, sizeof(plain));
    expect_in(text, "{\"tokens\":[\"lo\"],\"token_logprobs\":[-0.5],\"top_logprobs\":[{");
    expect_in(text, "],\"text_offset\":[3]}");
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_prompt_forms) /* content parts, roles, token ids */
{
    static const struct {
        const char *path, *body, *prompt;
    } rows[] = {
        {CHAT,
         "{\"messages\":[{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":"
         "\"a\\u00e9\"},"
         "{\"text\":\"b\\\\\",\"type\":\"text\"}]},{\"content\":\"\",\"role\":\"assistant\"},"
         "{\"role\":\"user\",\"content\":\"<|im_start|>system\",\"name\":\"x\"}]}",
         "system:a\xc3\xa9"
         "b\\|assistant:|user:<|im_start|>system|"},
        {"/v1/completions", "{\"prompt\":[\"one\"]}", "one"},
        {"/v1/completions", "{\"prompt\":[0,2,49151]}", "0,2,49151,"},
        {"/v1/completions", "{\"prompt\":[[5]]}", "5,"},
        {"/v1/completions", "{\"prompt\":\"first\",\"prompt\":\"last\"}", "last"},
    };

    for (usize i = 0; i < ARRAY_LEN(rows); i++) {
        struct fake fake;
        struct wire wire;
        fake_open(&fake);
        fake_post(&fake, &wire, rows[i].path, str_of(rows[i].body));
        EXPECT_EQ(wire_status(&wire), 200);
        EXPECT_STR(str_of(fake.prompt), str_of(rows[i].prompt));
        wire_close(&wire);
        fake_close(&fake);
    }
}

TEST(net_api_params_reach_runtime) /* every sampling field lands in ml_request */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake_post(
        &fake, &wire, CHAT,
        STR("{" MESSAGES ",\"temperature\":0.7,\"top_p\":0.9,\"top_k\":40,\"min_p\":5e-2,"
            "\"seed\":-3,\"stop\":[\"a\",\"\\n\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"0\","
            "\"1\",\"2\",\"3\",\"4\",\"5\",\"6\"],\"max_tokens\":5,\"max_completion_tokens\":9,"
            "\"logprobs\":true,\"top_logprobs\":20,\"ignore_eos\":true,\"n\":1,"
            "\"user\":\"me\",\"store\":false,\"metadata\":{},\"never_heard_of\":[1],"
            "\"tools\":[],\"tool_choice\":\"none\",\"response_format\":{\"type\":\"text\"},"
            "\"frequency_penalty\":0.0,\"logit_bias\":{},\"functions\":null}"));
    EXPECT_EQ(wire_status(&wire), 200);
    const struct ml_request *r = &fake.request;
    EXPECT(r->sampling.temperature == 0.7f && r->sampling.top_p == 0.9f);
    EXPECT(r->sampling.min_p == 0.05f && r->sampling.top_k == 40);
    EXPECT(r->sampling.has_seed && (i64)r->sampling.seed == -3);
    EXPECT(r->stop_count == 16 && r->tokens_max == 9 && r->ignore_eos);
    EXPECT(r->sampling.logprobs && r->sampling.top_logprobs == 20);
    wire_close(&wire);
    fake_post(&fake, &wire, CHAT, STR("{" MESSAGES ",\"top_k\":-1,\"stop\":\"x\"}"));
    EXPECT(r->sampling.temperature == 1 && r->sampling.top_p == 1 && r->sampling.top_k == 0);
    EXPECT(!r->sampling.has_seed && r->tokens_max == 0 && r->stop_count == 1);
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_stream_error) /* a failure after the head becomes an event, and no [DONE] */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake.fail = E_DEVICE;
    fake_post(&fake, &wire, CHAT, STR("{\"stream\":true," MESSAGES "}"));
    EXPECT(wire_has(&wire, "data: {\"error\":{\"message\":") &&
           wire_has(&wire, "\"device_failed\""));
    EXPECT(!wire_has(&wire, "[DONE]") && wire.closed);
    EXPECT(str_ends(wire_out(&wire), STR("\r\n0\r\n\r\n")));
    wire_close(&wire);
    fake_post(&fake, &wire, CHAT, STR("{" MESSAGES "}"));
    EXPECT_EQ(wire_status(&wire), 503);
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_long_whole_answer) /* too much for one answer ends as "length", not as error */
{
    static const char *many[3000];
    static char piece[200];
    struct fake fake;
    struct wire wire;

    memset(piece, 'x', sizeof(piece) - 1);
    for (usize i = 0; i < ARRAY_LEN(many); i++)
        many[i] = piece;
    fake_open(&fake);
    fake.token = many;
    fake.token_count = ARRAY_LEN(many);
    fake_post(&fake, &wire, CHAT, STR("{" MESSAGES "}"));
    EXPECT_EQ(wire_status(&wire), 200);
    EXPECT(wire_has(&wire, "\"finish_reason\":\"length\""));
    EXPECT(wire_body(&wire).len > OUT_BYTES_MAX / 4 * 3 && wire_body(&wire).len < OUT_BYTES_MAX);
    EXPECT_EQ(fake.cancelled, 1);
    EXPECT_EQ(fake.server->out_pool.used, 0);
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_large_prompt) /* a body of many blocks arrives whole and in order, chunked or not */
{
    static char body[400000], request[500000];
    struct text text = TEXT_ON(body), all = TEXT_ON(request);
    struct fake fake;
    struct wire wire;
    u64 sum = 0;

    text_put(&text, STR("{\"prompt\":["));
    for (u32 i = 0; i < 49152; i++)
        text_fmt(&text, i ? ",%u" : "%u", i);
    text_put(&text, STR("]}"));
    fake_open(&fake);
    text_put(&all, STR("POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n"));
    for (usize at = 0; at < text.len; at += 777) {
        struct str part = str_slice(text_str(&text), at, at + 777);
        text_fmt(&all, "%zx\r\n", part.len);
        text_put(&all, part);
        text_put(&all, STR("\r\n"));
    }
    text_put(&all, STR("0\r\n\r\n"));
    fake.hold = true;
    for (u32 chunked = 0; chunked < 2; chunked++) {
        if (chunked)
            fake_ask(&fake, &wire, text_str(&all));
        else
            fake_post(&fake, &wire, "/v1/completions", text_str(&text));
        EXPECT_EQ(fake.request.token_count, 49152);
        for (u32 i = 0; i < 49152; i++)
            sum += fake.request.token[i] != i;
        EXPECT_EQ(sum, 0);
        wire_close(&wire);
    }
    fake_close(&fake);
}
