/*
 * net_api_refuse_test.c: what is not served is refused with the right status, names its
 * parameter, and has all four members of an OpenAI error; the gate stands before everything.
 */
#include "tests/host/platform.h"
#include "tests/net_fake.h"

#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"
#define M    "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"
#define P    "\"prompt\":\"x\""

struct row {
    const char *path, *body;
    u32 status;
    const char *param, *code; /* param "": null */
};

static const struct row rows[] = {
    {CHAT, "", 400, "", "invalid_json"},
    {CHAT, "{", 400, "", "invalid_json"},
    {CHAT, "[]", 400, "", "invalid_json"},
    {CHAT, "{} x", 400, "", "invalid_json"},
    {CHAT, "\xff", 400, "", "invalid_json"},
    {CHAT, "{\"temperature\":NaN," M "}", 400, "", "invalid_json"},
    {CHAT, "{}", 400, "messages", "missing_required_parameter"},
    {CHAT, "{\"messages\":null}", 400, "messages", "missing_required_parameter"},
    {CHAT, "{\"messages\":{}}", 400, "messages", "invalid_type"},
    {CHAT, "{\"messages\":[]}", 400, "messages", "invalid_value"},
    {CHAT, "{\"messages\":[1]}", 400, "messages[0]", "invalid_type"},
    {CHAT, "{\"messages\":[{\"content\":\"x\"}]}", 400, "messages[0].role",
     "missing_required_parameter"},
    {CHAT,
     "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"king\",\"content\":\"x\"}]}",
     400, "messages[1].role", "invalid_value"},
    {CHAT, "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", 400, "messages[0].role",
     "unsupported_parameter"},
    {CHAT, "{\"messages\":[{\"role\":\"user\"}]}", 400, "messages[0].content",
     "missing_required_parameter"},
    {CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":5}]}", 400, "messages[0].content",
     "invalid_type"},
    {CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[]}]}", 400, "messages[0].content",
     "invalid_value"},
    {CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}", 400,
     "messages[0].content", "unsupported_parameter"},
    {CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}", 400,
     "messages[0].content", "invalid_type"},
    {CHAT, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{}]}]}", 400,
     "messages[0].tool_calls", "unsupported_parameter"},
    {CHAT, "{\"model\":\"gpt-4o\"," M "}", 404, "model", "model_not_found"},
    {CHAT, "{\"model\":\"xSmolLM2-135M-Instruct\"," M "}", 404, "model", "model_not_found"},
    {CHAT, "{\"model\":\"x/y/smollm2-135m-instruct2\"," M "}", 404, "model", "model_not_found"},
    {CHAT, "{\"model\":5," M "}", 400, "model", "invalid_type"},
    {CHAT, "{\"temperature\":2.1," M "}", 400, "temperature", "invalid_value"},
    {CHAT, "{\"temperature\":-1," M "}", 400, "temperature", "invalid_value"},
    {CHAT, "{\"temperature\":1e999," M "}", 400, "temperature", "invalid_value"},
    {CHAT, "{\"temperature\":\"1\"," M "}", 400, "temperature", "invalid_type"},
    {CHAT, "{\"top_p\":1.5," M "}", 400, "top_p", "invalid_value"},
    {CHAT, "{\"top_p\":0," M "}", 400, "top_p", "invalid_value"},
    {CHAT, "{\"min_p\":-0.1," M "}", 400, "min_p", "invalid_value"},
    {CHAT, "{\"top_k\":-2," M "}", 400, "top_k", "invalid_value"},
    {CHAT, "{\"top_k\":2147483648," M "}", 400, "top_k", "invalid_value"},
    {CHAT, "{\"max_tokens\":0," M "}", 400, "max_tokens", "invalid_value"},
    {CHAT, "{\"max_tokens\":-1," M "}", 400, "max_tokens", "invalid_value"},
    {CHAT, "{\"max_tokens\":1.5," M "}", 400, "max_tokens", "invalid_type"},
    {CHAT, "{\"max_tokens\":9223372036854775808," M "}", 400, "max_tokens", "invalid_value"},
    {CHAT, "{\"max_completion_tokens\":true," M "}", 400, "max_completion_tokens", "invalid_type"},
    {CHAT, "{\"seed\":1.5," M "}", 400, "seed", "invalid_type"},
    {CHAT, "{\"stream\":1," M "}", 400, "stream", "invalid_type"},
    {CHAT, "{\"stream_options\":{}," M "}", 400, "stream_options", "invalid_value"},
    {CHAT, "{\"stream\":true,\"stream_options\":1," M "}", 400, "stream_options", "invalid_type"},
    {CHAT, "{\"stream\":true,\"stream_options\":{\"include_usage\":1}," M "}", 400,
     "stream_options.include_usage", "invalid_type"},
    {CHAT, "{\"stop\":\"\"," M "}", 400, "stop", "invalid_value"},
    {CHAT, "{\"stop\":[1]," M "}", 400, "stop", "invalid_type"},
    {CHAT,
     "{\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"0\",\"1\",\"2\",\"3\","
     "\"4\",\"5\",\"6\",\"7\"]," M "}",
     400, "stop", "invalid_value"},
    {CHAT, "{\"logprobs\":1," M "}", 400, "logprobs", "invalid_type"},
    {CHAT, "{\"top_logprobs\":2," M "}", 400, "top_logprobs", "invalid_value"},
    {CHAT, "{\"logprobs\":true,\"top_logprobs\":21," M "}", 400, "top_logprobs", "invalid_value"},
    {CHAT, "{\"n\":2," M "}", 400, "n", "unsupported_parameter"},
    {CHAT, "{\"n\":2147483648," M "}", 400, "n", "unsupported_parameter"},
    {CHAT, "{\"tools\":[{}]," M "}", 400, "tools", "unsupported_parameter"},
    {CHAT, "{\"tool_choice\":\"auto\"," M "}", 400, "tool_choice", "unsupported_parameter"},
    {CHAT, "{\"functions\":[{}]," M "}", 400, "functions", "unsupported_parameter"},
    {CHAT, "{\"response_format\":{\"type\":\"json_object\"}," M "}", 400, "response_format",
     "unsupported_parameter"},
    {CHAT, "{\"modalities\":[\"text\",\"audio\"]," M "}", 400, "modalities",
     "unsupported_parameter"},
    {CHAT, "{\"audio\":{\"voice\":\"x\"}," M "}", 400, "audio", "unsupported_parameter"},
    {CHAT, "{\"logit_bias\":{\"5\":1}," M "}", 400, "logit_bias", "unsupported_parameter"},
    {CHAT, "{\"presence_penalty\":0.5," M "}", 400, "presence_penalty", "unsupported_parameter"},
    {CHAT, "{\"frequency_penalty\":-1," M "}", 400, "frequency_penalty", "unsupported_parameter"},
    {CHAT, "{\"prediction\":{\"type\":\"content\"}," M "}", 400, "prediction",
     "unsupported_parameter"},
    {CHAT, "{\"web_search_options\":{}," M "}", 400, "web_search_options", "unsupported_parameter"},
    {CHAT, "{\"reasoning_effort\":\"high\"," M "}", 400, "reasoning_effort",
     "unsupported_parameter"},
    {TEXT, "{}", 400, "prompt", "missing_required_parameter"},
    {TEXT, "{\"prompt\":\"\"}", 400, "prompt", "invalid_value"},
    {TEXT, "{\"prompt\":[]}", 400, "prompt", "invalid_type"},
    {TEXT, "{\"prompt\":[\"a\",\"b\"]}", 400, "prompt", "unsupported_parameter"},
    {TEXT, "{\"prompt\":[1,-1]}", 400, "prompt", "invalid_value"},
    {TEXT, "{\"prompt\":[49152]}", 400, "prompt", "invalid_value"},
    {TEXT, "{\"prompt\":[1,\"a\"]}", 400, "prompt", "invalid_value"},
    {TEXT, "{\"prompt\":5}", 400, "prompt", "invalid_type"},
    {TEXT, "{\"echo\":true," P "}", 400, "echo", "unsupported_parameter"},
    {TEXT, "{\"suffix\":\"x\"," P "}", 400, "suffix", "unsupported_parameter"},
    {TEXT, "{\"best_of\":2," P "}", 400, "best_of", "unsupported_parameter"},
    {TEXT, "{\"logprobs\":true," P "}", 400, "logprobs", "invalid_type"},
    {TEXT, "{\"logprobs\":21," P "}", 400, "logprobs", "invalid_value"},
};

static void expect_fault(const struct wire *wire, u32 status, const char *param, const char *code)
{
    struct json nodes[16];
    struct json_doc doc = {.node = nodes, .node_max = ARRAY_LEN(nodes)};
    struct str body = wire_body(wire);

    EXPECT_EQ(wire_status(wire), status);
    EXPECT(wire_has(wire, "Content-Type: application/json\r\n"));
    EXPECT_OK(json_read(&doc, (char *)(uintptr_t)body.ptr, body.len));
    const struct json *error = json_member(doc.node, STR("error"));
    EXPECT(error && json_member(error, STR("message")) && json_member(error, STR("type")));
    EXPECT(json_member(error, STR("message"))->text.len > 0);
    EXPECT_STR(json_member(error, STR("code"))->text, str_of(code));
    EXPECT_EQ(json_member(error, STR("param"))->kind, param[0] ? JSON_STRING : JSON_NULL);
    EXPECT_STR(json_member(error, STR("param"))->text, str_of(param));
}

TEST(net_api_refusals) /* each row of what cannot be served; the connection lives on */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    for (usize i = 0; i < ARRAY_LEN(rows); i++) {
        fake_post(&fake, &wire, rows[i].path, str_of(rows[i].body));
        if (wire_status(&wire) != rows[i].status)
            test_fail(__FILE__, __LINE__, "%u for %s", wire_status(&wire), rows[i].body);
        expect_fault(&wire, rows[i].status, rows[i].param, rows[i].code);
        wire.out_len = 0;
        wire_feed(&wire, STR("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        fake_settle(&fake);
        EXPECT_EQ(wire_status(&wire), 200);
        EXPECT(wire.closed);
        wire_close(&wire);
    }
    EXPECT_EQ(fake.tickets, 0);
    fake_close(&fake);
}

TEST(net_api_runtime_refusals) /* context length, full queue, loading, failed */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake.submit_error = E_LIMIT;
    fake.refusal = (struct ml_refusal){E_LIMIT, 3000, 2048, ""};
    fake_post(&fake, &wire, CHAT, STR("{" M "}"));
    EXPECT(wire_has(&wire, "\"n_prompt_tokens\":3000,\"n_ctx\":2048}}"));
    expect_fault(&wire, 400, "messages", "context_length_exceeded");
    wire_close(&wire);
    fake.submit_error = E_BUSY;
    fake_post(&fake, &wire, TEXT, STR("{" P "}"));
    EXPECT(wire_has(&wire, "Retry-After: "));
    expect_fault(&wire, 429, "", "queue_full");
    wire_close(&wire);
    fake.status = (struct ml_status){ML_LOADING, "compiling", 40, NULL};
    fake_post(&fake, &wire, CHAT, STR("{" M "}"));
    EXPECT(wire_has(&wire, "Retry-After: "));
    expect_fault(&wire, 503, "", "model_loading");
    wire_close(&wire);
    fake_ask(&fake, &wire, STR("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"));
    EXPECT_EQ(wire_status(&wire), 503);
    EXPECT_STR(wire_body(&wire),
               STR("{\"status\":\"loading\",\"step\":\"compiling\",\"percent\":40,"
                   "\"reason\":\"The model is loading.\"}"));
    wire_close(&wire);
    fake.status = (struct ml_status){ML_FAILED, "no model file", 0, "Put one on the stick."};
    fake_ask(&fake, &wire, STR("GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"));
    EXPECT(wire_has(&wire,
                    "\"failed\",\"step\":\"no model file\",\"percent\":0,\"reason\":\"Put one"));
    wire_close(&wire);
    fake_ask(&fake, &wire, STR("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"));
    expect_fault(&wire, 503, "", "model_failed");
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_longest_fault) /* words of the client's in a refusal never outgrow its room */
{
    char body[8192];
    struct text text = TEXT_ON(body);
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    text_put(&text, STR("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\""));
    for (u32 i = 0; i < 300; i++)
        text_put(&text, STR("\\u0001"));
    text_put(&text, STR("\"}]}],\"model\":\""));
    for (u32 i = 0; i < 300; i++)
        text_put(&text, i % 2 ? STR("\\u0002") : STR("\\ud83d\\ude00"));
    text_put(&text, STR("\"}"));
    fake_post(&fake, &wire, CHAT, text_str(&text));
    expect_fault(&wire, 400, "messages[0].content", "unsupported_parameter");
    wire_close(&wire);
    memcpy(str_find(text_str(&text), STR("\"type\"")) + body, "\"text\"", 6);
    body[2] = 'M'; /* only the model is left to complain about */
    fake_post(&fake, &wire, CHAT, text_str(&text));
    expect_fault(&wire, 404, "model", "model_not_found");
    EXPECT(utf8_valid(wire_body(&wire)));
    wire_close(&wire);
    fake_close(&fake);
}

/* ---- routes and the gate ---- */

static bool acted;
static void act(void)
{
    acted = true;
}

static u32 status_of(struct fake *fake, const char *line, const char *headers)
{
    char request[2048];
    struct text text = TEXT_ON(request);
    struct wire wire;

    text_fmt(&text, "%s HTTP/1.1\r\nHost: x\r\n%s\r\n", line, headers);
    fake_ask(fake, &wire, text_str(&text));
    u32 status = wire_status(&wire);
    wire_close(&wire);
    return status;
}

TEST(net_api_routes_by_key) /* deny by default: no key opens only what is public */
{
    static const struct {
        const char *line;
        u32 without, with, open; /* key configured: absent, right; none configured */
    } routes[] = {
        {"GET /", 200, 200, 200},
        {"HEAD /", 200, 200, 200},
        {"GET /?x=/v1/models", 200, 200, 200},
        {"GET /favicon.ico", 204, 204, 204},
        {"GET /health", 200, 200, 200},
        {"GET /v1/health", 200, 200, 200},
        {"GET /metrics", 401, 200, 200},
        {"GET /v1/models", 401, 200, 200},
        {"GET /v1/models/SmolLM2-135M-Instruct", 401, 200, 200},
        {"GET /v1/models/HuggingFaceTB%2FSmolLM2%2D135M-Instruct", 401, 200, 200},
        {"GET /v1/models/", 401, 404, 404},
        {"GET /v1/models/gpt-4", 401, 404, 404},
        {"POST " CHAT, 401, 400, 400},
        {"POST " TEXT, 401, 400, 400},
        {"GET " CHAT, 401, 405, 405},
        {"PUT " TEXT, 401, 405, 405},
        {"DELETE /v1/models/x", 401, 405, 405},
        {"POST /health", 405, 405, 405},
        {"OPTIONS " CHAT, 401, 204, 204},
        {"OPTIONS /health", 204, 204, 204},
        {"OPTIONS *", 401, 204, 204},
        {"GET /debug/log", 401, 200, 403},
        {"POST /v1/nohost/reset", 401, 200, 403},
        {"POST /v1/nohost/power-off", 401, 404, 403}, /* this machine has none */
        {"GET /v1/nohost/reset", 401, 405, 403},
        {"GET /nothing", 401, 404, 404},
        {"GET //", 401, 404, 404},
        {"GET /health/", 401, 404, 404},
        {"GET /healthx", 401, 404, 404},
        {"GET /../health", 401, 404, 404},
        {"GET /%68ealth", 401, 404, 404},
        {"GET /health%00", 401, 404, 404},
        {"GET /v1", 401, 404, 404},
    };
    struct fake fake;

    fake_open(&fake);
    fake.config.reset = act;
    for (usize i = 0; i < ARRAY_LEN(routes); i++) {
        fake.config.api_key_count = 0;
        EXPECT_EQ(status_of(&fake, routes[i].line, ""), routes[i].open);
        fake.config.api_key[0] = STR("sk-other");
        fake.config.api_key[1] = STR("sk-right");
        fake.config.api_key_count = 2;
        EXPECT_EQ(status_of(&fake, routes[i].line, ""), routes[i].without);
        EXPECT_EQ(status_of(&fake, routes[i].line, "Authorization: Bearer sk-right\r\n"),
                  routes[i].with);
    }
    fake_close(&fake);
}

TEST(net_api_keys) /* only the whole key, as a Bearer token */
{
    static const struct {
        const char *header;
        u32 status;
    } rows_[] = {
        {"Authorization: Bearer sk-right\r\n", 200},
        {"authorization: bearer   sk-right \r\n", 200},
        {"Authorization: Bearer sk-righ\r\n", 401},
        {"Authorization: Bearer sk-right2\r\n", 401},
        {"Authorization: Bearer sk-rightsk-right\r\n", 401},
        {"Authorization: Bearer SK-RIGHT\r\n", 401},
        {"Authorization: Bearer\r\n", 401},
        {"Authorization: Bearer \r\n", 401},
        {"Authorization: sk-right\r\n", 401},
        {"Authorization: Basic sk-right\r\n", 401},
        {"Authorization:\r\n", 401},
        {"X-Api-Key: sk-right\r\n", 401},
        {"Authorization: Bearer sk-right\r\nAuthorization: Bearer sk-right\r\n", 400},
    };
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake.config.api_key[0] = STR("sk-right");
    fake.config.api_key_count = 1;
    fake_ask(&fake, &wire, STR("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
    EXPECT(wire_has(&wire, "WWW-Authenticate: Bearer"));
    expect_fault(&wire, 401, "", "missing_api_key");
    wire_close(&wire);
    for (usize i = 0; i < ARRAY_LEN(rows_); i++)
        EXPECT_EQ(status_of(&fake, "GET /v1/models", rows_[i].header), rows_[i].status);
    EXPECT_EQ(status_of(&fake, "GET /v1/models?key=sk-right", ""), 401);
    fake.config.api_key[0] = STR("");
    EXPECT_EQ(status_of(&fake, "GET /v1/models", "Authorization: Bearer \r\n"), 401);
    fake_close(&fake);
}

TEST(net_api_reset_answers_first) /* the machine is reset when its answer has left, not before */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake.config.api_key[0] = STR("k");
    fake.config.api_key_count = 1;
    fake.config.reset = act;
    acted = false;
    wire_open(&fake, &wire);
    wire.send_room = 10;
    wire_feed(&wire,
              STR("POST /v1/nohost/reset HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n\r\n"));
    fake_settle(&fake);
    EXPECT(!acted && wire.out_len == 10);
    wire.send_room = WIRE_BYTES;
    wire.unacked = 1;
    fake_settle(&fake);
    EXPECT(!acted && wire_status(&wire) == 200 && !wire.closed);
    wire.unacked = 0;
    fake_settle(&fake);
    EXPECT(acted);
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_reset_does_not_wait_for_ever) /* for a client that reads nothing, two seconds */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake.config.api_key[0] = STR("k");
    fake.config.api_key_count = 1;
    fake.config.power_off = act;
    acted = false;
    wire_open(&fake, &wire);
    wire.send_room = 10;
    wire_feed(&wire, STR("POST /v1/nohost/power-off HTTP/1.1\r\nHost: x\r\n"
                         "Authorization: Bearer k\r\n\r\n"));
    platform_clock_fake(1001 * NS_PER_S);
    fake_settle(&fake);
    EXPECT(!acted);
    platform_clock_fake(1004 * NS_PER_S);
    fake_settle(&fake);
    EXPECT(acted);
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_model_names) /* which names mean the model that is loaded */
{
    static const struct {
        const char *name;
        u32 status;
    } names[] = {
        {"", 200},
        {"any", 200},
        {"default", 200},
        {"smollm2-135m-INSTRUCT", 200},
        {"a/b/SmolLM2-135M-Instruct", 200},
        {"a/SmolLM2-135M-Instruct/b", 404},
        {"Any", 404},
        {"SmolLM2-135M", 404},
        {"aSmolLM2-135M-Instruct", 404},
    };
    struct fake fake;
    struct wire wire;
    char body[256];

    fake_open(&fake);
    for (usize i = 0; i < ARRAY_LEN(names); i++) {
        struct text text = TEXT_ON(body);
        text_fmt(&text, "{\"prompt\":\"x\",\"model\":\"%s\"}", names[i].name);
        fake_post(&fake, &wire, TEXT, text_str(&text));
        EXPECT_EQ(wire_status(&wire), names[i].status);
        wire_close(&wire);
    }
    fake_ask(&fake, &wire, STR("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"));
    expect_json(wire_body(&wire));
    EXPECT(wire_has(&wire, "\"id\":\"SmolLM2-135M-Instruct\",\"object\":\"model\",\"created\":"));
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_headers) /* request id, content type, Allow, no body for HEAD */
{
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    fake_ask(&fake, &wire, STR("HEAD /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: my-id\r\n\r\n"));
    EXPECT(wire_has(&wire, "X-Request-Id: my-id\r\n") && wire_has(&wire, "Content-Length: 15\r\n"));
    EXPECT_EQ(wire_body(&wire).len, 0);
    wire_close(&wire);
    fake_ask(&fake, &wire, STR("POST /health HTTP/1.1\r\nHost: x\r\n\r\n"));
    EXPECT(wire_has(&wire, "Allow: GET, HEAD, OPTIONS\r\n") &&
           wire_has(&wire, "X-Request-Id: req_"));
    expect_fault(&wire, 405, "", "method_not_allowed");
    wire_close(&wire);
    fake_ask(&fake, &wire,
             STR("POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                 "Content-Type: text/plain\r\n\r\n{}"));
    expect_fault(&wire, 415, "", "unsupported_media_type");
    wire_close(&wire);
    fake_close(&fake);
}

TEST(net_api_request_ids) /* a client's own id comes back when it is one word of 64 at most */
{
    char id[66] = "";
    struct fake fake;
    struct wire wire;

    fake_open(&fake);
    memset(id, 'x', 64);
    for (u32 bad = 0; bad < 4; bad++) {
        char request[256];
        struct text text = TEXT_ON(request);
        if (bad == 1)
            id[7] = ' ';
        if (bad == 2)
            id[7] = (char)0xe9;
        if (bad == 3)
            memset(id, 'x', 65);
        text_fmt(&text, "GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: %s\r\n\r\n", id);
        fake_ask(&fake, &wire, text_str(&text));
        EXPECT_EQ(wire_has(&wire, id), bad == 0);
        EXPECT_EQ(wire_has(&wire, "X-Request-Id: req_"), bad != 0);
        wire_close(&wire);
    }
    fake_close(&fake);
}

TEST(net_api_metrics_text) /* every line is a comment or name{labels} value */
{
    struct fake fake;
    struct wire wire;
    struct str rest, line;

    fake_open(&fake);
    fake_ask(&fake, &wire, STR("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
    EXPECT(wire_has(&wire, "vllm:kv_cache_usage_perc{engine=\"0\",model_name="
                           "\"SmolLM2-135M-Instruct\"} 0.25\n"));
    EXPECT(wire_has(&wire, "# TYPE nohost_http_replies_total counter\nnohost_http_replies_total{"));
    EXPECT(wire_has(&wire, "nohost_pool_blocks{pool=\"out\",is=\"used\"} 0\n"));
    EXPECT(wire_has(&wire, "nohost_connections 1\n"));
    EXPECT(wire_has(&wire, "nohost_connections_accepted_total 1\n"));
    EXPECT(wire_has(&wire, "nohost_slots 4\n"));
    for (rest = wire_body(&wire); rest.len;) {
        line = str_cut(rest, '\n', &rest);
        EXPECT(line.len > 0);
        if (line.ptr[0] != '#')
            EXPECT(str_find_char(line, ' ') < line.len - 1);
    }
    wire_close(&wire);
    fake_close(&fake);
}
