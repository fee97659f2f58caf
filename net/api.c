/*
 * api.c: the routes, the gate before them, and the answers that need no model run. Nothing is
 * public unless its row says so: the gate asks for a key first, even for what does not exist.
 * Follows OpenAI's API description for /v1; must not know sockets.
 */
#include "net/priv.h"
#include "page.h"

enum access { KEY, PUBLIC, PRIVILEGED };

struct route {
    struct str path;
    u32 method; /* GET means HEAD as well */
    enum access access;
    bool prefix; /* the rest of the path is an argument */
    void (*answer)(struct server *server, struct conn *conn);
};

static void answer_generation(struct server *server, struct conn *conn);
static void answer_models(struct server *server, struct conn *conn);
static void answer_health(struct server *server, struct conn *conn);
static void answer_metrics(struct server *server, struct conn *conn);
static void answer_page(struct server *server, struct conn *conn);
static void answer_icon(struct server *server, struct conn *conn);
static void answer_log(struct server *server, struct conn *conn);
static void answer_action(struct server *server, struct conn *conn);

#define CHAT_PATH  "/v1/chat/completions"
#define RESET_PATH "/v1/nohost/reset"

// clang-format off
static const struct route routes[] = {
    {STR(CHAT_PATH),              HTTP_POST, KEY,        false, answer_generation},
    {STR("/v1/completions"),      HTTP_POST, KEY,        false, answer_generation},
    {STR("/v1/models"),           HTTP_GET,  KEY,        false, answer_models},
    {STR("/v1/models/"),          HTTP_GET,  KEY,        true,  answer_models},
    {STR("/health"),              HTTP_GET,  PUBLIC,     false, answer_health},
    {STR("/v1/health"),           HTTP_GET,  PUBLIC,     false, answer_health},
    {STR("/metrics"),             HTTP_GET,  KEY,        false, answer_metrics},
    {STR("/"),                    HTTP_GET,  PUBLIC,     false, answer_page},
    {STR("/favicon.ico"),         HTTP_GET,  PUBLIC,     false, answer_icon},
    {STR("/debug/log"),           HTTP_GET,  PRIVILEGED, false, answer_log},
    {STR(RESET_PATH),             HTTP_POST, PRIVILEGED, false, answer_action},
    {STR("/v1/nohost/power-off"), HTTP_POST, PRIVILEGED, false, answer_action},
};
// clang-format on

static const struct route *find_route(struct str path)
{
    for (usize i = 0; i < ARRAY_LEN(routes); i++) {
        bool longer = path.len > routes[i].path.len && str_starts(path, routes[i].path);
        if (str_eq(path, routes[i].path) ? !routes[i].prefix : routes[i].prefix && longer)
            return &routes[i];
    }
    return NULL;
}

/* ---- the gate ---- */

static bool check_key(struct server *server, struct conn *conn, struct fault *fault);
static bool check_method(struct conn *conn, struct fault *fault);
static bool check_model_ready(struct server *server, struct fault *fault);
static bool check_media(struct conn *conn, struct fault *fault);

bool api_admit(struct server *server, struct conn *conn, struct fault *fault)
{
    const struct route *route = find_route(conn->head.path);
    u32 keys = server->config->api_key_count;

    conn->route = route;
    if ((!route || route->access != PUBLIC) && keys && !check_key(server, conn, fault))
        return false;
    if (!route && !str_eq(conn->head.path, STR("*")))
        return fault_set(fault, FAULT_NO_ROUTE, "", "Unknown request URL: %s %.*s.",
                         http_method_names[conn->head.method],
                         (int)min_u64(conn->head.path.len, 120), conn->head.path.ptr);
    if (route && route->access == PRIVILEGED && !keys)
        return fault_set(fault, FAULT_FORBIDDEN, "",
                         "This route is off until an API key is configured: put a line "
                         "'api_key = ...' into nohost.conf and send it as a Bearer token.");
    if (!route || conn->head.method == HTTP_OPTIONS)
        return true;
    if (!check_method(conn, fault))
        return false;
    return route->answer != answer_generation ||
           (check_model_ready(server, fault) && check_media(conn, fault));
}

/* Looks at every byte of every key, whatever the token is: the time tells nothing. */
static bool key_known(const struct net_config *config, struct str token)
{
    u32 known = 0;

    for (u32 i = 0; i < config->api_key_count; i++) {
        struct str key = config->api_key[i];
        u32 differs = key.len != token.len;
        for (usize at = 0; at < key.len; at++)
            differs |= (u32)(u8)key.ptr[at] ^ (token.len ? (u8)token.ptr[at % token.len] : 1u);
        known |= differs == 0 && key.len != 0;
    }
    return known;
}

static bool check_key(struct server *server, struct conn *conn, struct fault *fault)
{
    struct str token, scheme = str_cut(conn->head.field[FIELD_AUTHORIZATION], ' ', &token);

    if (!str_eq_nocase(scheme, STR("Bearer")))
        return fault_set(fault, FAULT_NO_KEY, "",
                         "You didn't provide an API key. Send it in an Authorization header: "
                         "'Authorization: Bearer YOUR_KEY'.");
    if (!key_known(server->config, str_trim(token)))
        return fault_set(fault, FAULT_BAD_KEY, "", "Incorrect API key provided.");
    return true;
}

static bool check_method(struct conn *conn, struct fault *fault)
{
    u32 wanted = conn->route->method, method = conn->head.method;

    if (method == wanted || (method == HTTP_HEAD && wanted == HTTP_GET))
        return true;
    return fault_set(fault, FAULT_METHOD, "", "Not allowed here: %s. Use %s.",
                     http_method_names[method], http_method_names[wanted]);
}

static bool check_model_ready(struct server *server, struct fault *fault)
{
    struct ml_status status;

    server->on->status(server->ml, &status);
    if (status.state == ML_FAILED)
        return fault_set(fault, FAULT_FAILED, "", "There is no model to answer: %s",
                         status.reason ? status.reason : status.step);
    if (status.state != ML_READY)
        return fault_set(fault, FAULT_LOADING, "", "Loading model: %s, %u %%.", status.step,
                         status.percent);
    return true;
}

/* What a form of some other web page would start here costs: only JSON is taken. */
static bool check_media(struct conn *conn, struct fault *fault)
{
    struct str rest, type = conn->head.field[FIELD_CONTENT_TYPE];

    if (!type.ptr || str_eq_nocase(str_trim(str_cut(type, ';', &rest)), STR("application/json")))
        return true;
    return fault_set(fault, FAULT_MEDIA, "",
                     "The body must be JSON: send 'Content-Type: application/json'.");
}

/* ---- answers ---- */

void api_put_allow(struct text *out, const struct route *route)
{
    bool get = !route || route->method == HTTP_GET, post = !route || route->method == HTTP_POST;

    text_fmt(out, "Allow: %s%sOPTIONS\r\n", get ? "GET, HEAD, " : "", post ? "POST, " : "");
}

void api_answer(struct server *server, struct conn *conn)
{
    char allow[64];
    struct text extra = TEXT_ON(allow);

    if (conn->head.method != HTTP_OPTIONS && conn->route) {
        conn->route->answer(server, conn);
        return;
    }
    /* No Access-Control-Allow-Origin: pages of other origins are not meant to use this server. */
    api_put_allow(&extra, conn->route);
    text_char(&extra, 0);
    reply_send(server, conn, (struct http_reply){204, NULL, allow}, (struct str){});
}

static void reply_json(struct server *server, struct conn *conn, u32 status, struct text *body)
{
    const char *extra = status == 503 ? "Retry-After: 1\r\n" : "";

    CHECK(!body->truncated);
    reply_send(server, conn, (struct http_reply){status, "application/json", extra},
               text_str(body));
}

static bool generate(struct server *server, struct conn *conn, struct fault *fault)
{
    bool chat = str_eq(conn->route->path, STR(CHAT_PATH));
    struct ml_refusal refusal = {};
    struct api_request request;
    u64 ticket;

    fifo_copy(&conn->upload, server->body);
    if (json_read(&server->json, server->body, conn->upload.len) != OK)
        return fault_set(fault, FAULT_BAD_JSON, "", "The body is not valid JSON: %s (at byte %zu).",
                         server->json.why, server->json.at);
    fifo_clear(&conn->upload, &server->in_pool);
    if (!api_request_read(server, chat, &request, fault))
        return false;
    err e = server->on->submit(server->ml, &request.ml, &ticket, &refusal);
    if (e != OK)
        return fault_from_ml(fault, e, chat ? "messages" : "prompt", &refusal);
    answer_start(server, conn, &request, ticket);
    return true;
}

static void answer_generation(struct server *server, struct conn *conn)
{
    struct fault fault;

    if (!generate(server, conn, &fault))
        reply_fault(server, conn, &fault);
}

static void put_model(struct text *out, const struct ml_model_info *info)
{
    text_put(out, STR("{\"id\":"));
    json_put_str(out, info->id);
    text_fmt(out,
             ",\"object\":\"model\",\"created\":%ld,\"owned_by\":\"nohost\","
             "\"max_model_len\":%u,\"meta\":{\"n_vocab\":%u,\"n_ctx_train\":%u,\"n_embd\":%u,"
             "\"n_params\":%lu,\"size\":%lu,\"architecture\":",
             info->created_unix_s, info->ctx_max, info->vocab, info->ctx_train, info->embed,
             info->parameters, info->file_bytes);
    json_put_str(out, info->architecture);
    text_put(out, STR(",\"quantisation\":"));
    json_put_str(out, info->quantisation);
    text_put(out, STR("}}"));
}

/* Percent-decoding, RFC 3986 2.1; what is no escape stays as it is. */
static struct str decode_path(struct str path, struct text *out)
{
    for (u32 high, low; path.len; path = str_slice(path, 1, path.len)) {
        bool escape = path.ptr[0] == '%' && path.len > 2 && json_hex(path.ptr[1], &high) &&
                      json_hex(path.ptr[2], &low);
        text_char(out, escape ? (char)(high << 4 | low) : path.ptr[0]);
        path = escape ? str_slice(path, 2, path.len) : path;
    }
    return text_str(out);
}

/* The list, or behind "/v1/models/" the one that is named. */
static void answer_models(struct server *server, struct conn *conn)
{
    char name[HTTP_TARGET_BYTES_MAX];
    struct text decoded = TEXT_ON(name), *out = reply_line(server);
    struct str rest = str_slice(conn->head.path, conn->route->path.len, conn->head.path.len);
    struct str id = decode_path(rest, &decoded);
    struct fault fault;

    if (!check_model_ready(server, &fault) || !api_model_known(server, id, &fault)) {
        reply_fault(server, conn, &fault);
        return;
    }
    text_put(out, conn->route->prefix ? STR("") : STR("{\"object\":\"list\",\"data\":["));
    put_model(out, server->on->model_info(server->ml));
    text_put(out, conn->route->prefix ? STR("") : STR("]}"));
    reply_json(server, conn, 200, out);
}

static void answer_health(struct server *server, struct conn *conn)
{
    struct text *out = reply_line(server);
    struct ml_status status;

    server->on->status(server->ml, &status);
    if (status.state == ML_READY) {
        text_put(out, STR("{\"status\":\"ok\"}"));
        reply_json(server, conn, 200, out);
        return;
    }
    text_fmt(out, "{\"status\":\"%s\",\"step\":", status.state == ML_FAILED ? "failed" : "loading");
    json_put_str(out, str_of(status.step));
    text_fmt(out, ",\"percent\":%u,\"reason\":", status.percent);
    json_put_str(out, str_of(status.reason ? status.reason : "The model is loading."));
    text_char(out, '}');
    reply_json(server, conn, 503, out);
}

static void answer_metrics(struct server *server, struct conn *conn)
{
    struct text *out = reply_line(server);

    metrics_write(server, out);
    reply_send(server, conn,
               (struct http_reply){200, "text/plain; version=0.0.4; charset=utf-8", ""},
               text_str(out));
}

static void answer_page(struct server *server, struct conn *conn)
{
    static const char extra[] =
        "Content-Encoding: gzip\r\nReferrer-Policy: no-referrer\r\n"
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src "
        "'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'\r\n";

    reply_send(server, conn, (struct http_reply){200, "text/html; charset=utf-8", extra},
               (struct str){(const char *)page_gz, sizeof(page_gz)});
}

static void answer_icon(struct server *server, struct conn *conn)
{
    reply_send(server, conn, (struct http_reply){204, NULL, ""}, (struct str){});
}

/* ---- privileged ---- */

static void answer_log(struct server *server, struct conn *conn)
{
    struct text *out = reply_line(server);

    out->len = log_read(out->ptr, out->cap);
    reply_send(server, conn, (struct http_reply){200, "text/plain; charset=utf-8", ""},
               text_str(out));
}

/* Reset or power-off: says yes first, and server.c acts when that has left. */
static void answer_action(struct server *server, struct conn *conn)
{
    bool reset = str_eq(conn->route->path, STR(RESET_PATH));
    void (*act)(void) = reset ? server->config->reset : server->config->power_off;
    struct fault fault;

    if (!act) {
        fault_set(&fault, FAULT_NO_ROUTE, "", "This machine has no way to do that.");
        reply_fault(server, conn, &fault);
        return;
    }
    log_warn("api", "%s asks for %s", conn->stream->peer, reset ? "reset" : "power-off");
    server->act = act;
    server->act_after = conn;
    server->act_deadline_ns = time_ns() + ACT_TIMEOUT_S * NS_PER_S;
    conn->close_after = true;
    reply_send(server, conn, (struct http_reply){200, "application/json", ""},
               STR("{\"status\":\"ok\"}"));
}
