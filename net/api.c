/*
 * api.c: the answers that need no model run, the routes to all of them, and the gate before these.
 * Nothing is public unless its row says so: the gate asks for a key first, even for what does not
 * exist. Follows OpenAI's API description for /v1; must not know sockets.
 */
#include "net/priv.h"
#include "page.h"

enum access { KEY, PUBLIC, PRIVILEGED };

struct route {
    struct str path;
    u32 method; /* GET means HEAD as well */
    enum access access;
    bool prefix; /* the rest of the path is an argument */
    void (*answer)(struct conn *conn); /* NULL: 204 */
};

static bool model_ready(struct server *server)
{
    struct ml_status status;

    server->on->status(server->ml, &status);
    if (status.state == ML_FAILED)
        return fault_set(server, FAULT_FAILED, "", "There is no model to answer: %s",
                         status.reason ? status.reason : status.step);
    return status.state == ML_READY ||
           fault_set(server, FAULT_LOADING, "", "Loading model: %s, %u %%.", status.step,
                     status.percent);
}

/* ---- answers ---- */

static bool generate(struct conn *conn, bool chat)
{
    struct server *server = conn->server;
    struct ml_refusal refusal = {};
    u64 ticket;

    server->body.len = 0;
    fifo_take(&conn->upload, &server->in_pool, &server->body);
    if (json_read(&server->json, server->body.ptr, server->body.len) != OK)
        return fault_set(server, FAULT_BAD_JSON, "",
                         "The body is not valid JSON: %s (at byte %zu).", server->json.why,
                         server->json.at);
    if (!api_request_read(server, chat))
        return false;
    err e = server->on->submit(server->ml, &server->request.ml, &ticket, &refusal);
    if (e != OK)
        return fault_from_ml(server, e, chat ? "messages" : "prompt", &refusal);
    answer_start(conn, ticket);
    return true;
}

static void answer_chat(struct conn *conn)
{
    if (!generate(conn, true))
        reply_fault(conn);
}

static void answer_completion(struct conn *conn)
{
    if (!generate(conn, false))
        reply_fault(conn);
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
static void answer_models(struct conn *conn)
{
    struct server *server = conn->server;
    struct str path = conn->request.path;
    char name[HTTP_TARGET_BYTES_MAX];
    struct text decoded = TEXT_ON(name), *out = reply_line(server);
    struct str id = decode_path(str_slice(path, conn->route->path.len, path.len), &decoded);

    if (!model_ready(server) || !api_model_known(server, id)) {
        reply_fault(conn);
        return;
    }
    text_put(out, conn->route->prefix ? STR("") : STR("{\"object\":\"list\",\"data\":["));
    put_model(out, server->on->model_info(server->ml));
    text_put(out, conn->route->prefix ? STR("") : STR("]}"));
    reply_ok(conn, "application/json");
}

static void answer_health(struct conn *conn)
{
    const struct reply wait = {"503 Not Ready", "application/json", "Retry-After: 1\r\n"};
    struct text *out = reply_line(conn->server);
    struct ml_status status;

    conn->server->on->status(conn->server->ml, &status);
    if (status.state == ML_READY) {
        text_put(out, STR("{\"status\":\"ok\"}"));
        reply_ok(conn, "application/json");
        return;
    }
    text_fmt(out, "{\"status\":\"%s\",\"step\":", status.state == ML_FAILED ? "failed" : "loading");
    json_put_str(out, str_of(status.step));
    text_fmt(out, ",\"percent\":%u,\"reason\":", status.percent);
    json_put_str(out, str_of(status.reason ? status.reason : "The model is loading."));
    text_char(out, '}');
    reply_send(conn, wait, text_str(out));
}

static void answer_metrics(struct conn *conn)
{
    metrics_write(conn->server, reply_line(conn->server));
    reply_ok(conn, "text/plain; version=0.0.4; charset=utf-8");
}

static void answer_page(struct conn *conn)
{
    static const struct reply reply = {
        "200 OK", "text/html; charset=utf-8",
        "Content-Encoding: gzip\r\nReferrer-Policy: no-referrer\r\n"
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; script-src "
        "'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'\r\n"};

    reply_send(conn, reply, (struct str){(const char *)page_gz, sizeof(page_gz)});
}

static void answer_log(struct conn *conn)
{
    struct text *out = reply_line(conn->server);

    out->len = log_read(out->ptr, out->cap);
    reply_ok(conn, "text/plain; charset=utf-8");
}

/* Says yes first; server.c acts when that has left. */
static void answer_action(struct conn *conn, void (*act)(void))
{
    struct server *server = conn->server;
    struct str path = conn->request.path;

    if (!act) {
        fault_set(server, FAULT_NO_ROUTE, "", "This machine has no way to do that.");
        reply_fault(conn);
        return;
    }
    log_warn("api", "%s asks for %.*s", conn->stream->peer, (int)path.len, path.ptr);
    server->act = act;
    server->act_after = conn;
    server->act_deadline_ns = time_ns() + ACT_TIMEOUT_S * NS_PER_S;
    conn->close_after = true;
    text_put(reply_line(server), STR("{\"status\":\"ok\"}"));
    reply_ok(conn, "application/json");
}

static void answer_reset(struct conn *conn)
{
    answer_action(conn, conn->server->config->reset);
}

static void answer_power_off(struct conn *conn)
{
    answer_action(conn, conn->server->config->power_off);
}

/* ---- routes ---- */

// clang-format off
static const struct route routes[] = {
    {STR("/v1/chat/completions"), HTTP_POST, KEY,        false, answer_chat},
    {STR("/v1/completions"),      HTTP_POST, KEY,        false, answer_completion},
    {STR("/v1/models"),           HTTP_GET,  KEY,        false, answer_models},
    {STR("/v1/models/"),          HTTP_GET,  KEY,        true,  answer_models},
    {STR("/health"),              HTTP_GET,  PUBLIC,     false, answer_health},
    {STR("/v1/health"),           HTTP_GET,  PUBLIC,     false, answer_health},
    {STR("/metrics"),             HTTP_GET,  KEY,        false, answer_metrics},
    {STR("/"),                    HTTP_GET,  PUBLIC,     false, answer_page},
    {STR("/favicon.ico"),         HTTP_GET,  PUBLIC,     false, NULL},
    {STR("/debug/log"),           HTTP_GET,  PRIVILEGED, false, answer_log},
    {STR("/v1/nohost/reset"),     HTTP_POST, PRIVILEGED, false, answer_reset},
    {STR("/v1/nohost/power-off"), HTTP_POST, PRIVILEGED, false, answer_power_off},
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

void api_put_allow(struct text *out, const struct route *route)
{
    bool get = !route || route->method == HTTP_GET, post = !route || route->method == HTTP_POST;

    text_fmt(out, "Allow: %s%sOPTIONS\r\n", get ? "GET, HEAD, " : "", post ? "POST, " : "");
}

void api_answer(struct conn *conn)
{
    char allow[64] = {};
    struct text extra = TEXT_ON(allow);

    if (conn->request.method != HTTP_OPTIONS && conn->route && conn->route->answer) {
        conn->route->answer(conn);
        return;
    }
    /* No Access-Control-Allow-Origin: pages of other origins are not meant to use this server. */
    api_put_allow(&extra, conn->route);
    reply_send(conn, (struct reply){"204 No Content", NULL, allow}, (struct str){});
}

/* ---- the gate ---- */

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

static bool check_key(struct conn *conn)
{
    struct str token, scheme = str_cut(conn->request.field[FIELD_AUTHORIZATION], ' ', &token);

    if (!str_eq_nocase(scheme, STR("Bearer")))
        return fault_set(conn->server, FAULT_NO_KEY, "",
                         "You didn't provide an API key. Send it in an Authorization header: "
                         "'Authorization: Bearer YOUR_KEY'.");
    return key_known(conn->server->config, str_trim(token)) ||
           fault_set(conn->server, FAULT_BAD_KEY, "", "Incorrect API key provided.");
}

/* What a form of some other web page would start here costs: only JSON is taken. */
static bool check_media(struct conn *conn)
{
    struct str rest, type = conn->request.field[FIELD_CONTENT_TYPE];

    return !type.ptr ||
           str_eq_nocase(str_trim(str_cut(type, ';', &rest)), STR("application/json")) ||
           fault_set(conn->server, FAULT_MEDIA, "",
                     "The body must be JSON: send 'Content-Type: application/json'.");
}

bool api_admit(struct conn *conn)
{
    struct server *server = conn->server;
    struct str path = conn->request.path;
    const struct route *route = find_route(path);
    u32 keys = server->config->api_key_count, method = conn->request.method;
    const char *method_name = http_method_names[method];

    conn->route = route;
    if ((!route || route->access != PUBLIC) && keys && !check_key(conn))
        return false;
    if (!route && !str_eq(path, STR("*")))
        return fault_set(server, FAULT_NO_ROUTE, "", "Unknown request URL: %s %.*s.", method_name,
                         (int)min_u64(path.len, 120), path.ptr);
    if (route && route->access == PRIVILEGED && !keys)
        return fault_set(server, FAULT_FORBIDDEN, "",
                         "This route is off until an API key is configured: put a line "
                         "'api_key = ...' into nohost.conf and send it as a Bearer token.");
    if (!route || method == HTTP_OPTIONS)
        return true;
    if (method != route->method && (method != HTTP_HEAD || route->method != HTTP_GET))
        return fault_set(server, FAULT_METHOD, "", "Not allowed here: %s. Use %s.", method_name,
                         http_method_names[route->method]);
    return (route->answer != answer_chat && route->answer != answer_completion) ||
           (model_ready(server) && check_media(conn));
}
