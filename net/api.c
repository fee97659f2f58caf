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
    bool below; /* what is below it: the rest is an argument */
    u32 method; /* GET means HEAD as well */
    enum access access;
    bool (*answer)(struct conn *conn); /* false: server->fault says why; NULL: 204 */
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

static bool answer_generate(struct conn *conn)
{
    struct server *server = conn->server;
    bool chat = str_eq(conn->route->path, STR("/v1/chat/completions"));
    struct ml_refusal refusal = {};
    u64 ticket;

    if (json_read(&server->json, conn->body.ptr, conn->body.len) != OK)
        return fault_set(server, FAULT_BAD_JSON, "",
                         "The body is not valid JSON: %s (at byte %zu).", server->json.why,
                         server->json.at);
    if (!request_read(server, chat))
        return false;
    err e = server->on->submit(server->ml, &server->request.ml, &ticket, &refusal);
    if (e != OK)
        return fault_from_ml(server, e, chat ? "messages" : "prompt", &refusal);
    buffer_empty(&conn->body); /* the runtime has its own copy */
    answer_start(conn, ticket);
    return true;
}

/* Percent-decoding, RFC 3986, 2.1; what is no escape stays as it is. */
static struct str decode(struct str path, struct text *out)
{
    for (u32 high, low; path.len; path = str_slice(path, 1, path.len)) {
        bool escape = path.ptr[0] == '%' && path.len > 2 && json_hex(path.ptr[1], &high) &&
                      json_hex(path.ptr[2], &low);
        text_char(out, escape ? (char)(high << 4 | low) : path.ptr[0]);
        path = str_slice(path, escape ? 2 : 0, path.len);
    }
    return text_str(out);
}

/* The list or, behind "/v1/models/", the one that is named. */
static bool answer_models(struct conn *conn)
{
    struct server *server = conn->server;
    const struct ml_model_info *info = server->on->model_info(server->ml);
    struct text *out = reply_line(server);
    bool list = !conn->route->below;
    char name[HTTP_TARGET_BYTES_MAX];
    struct str rest = str_slice(conn->request.path, conn->route->path.len, SIZE_MAX);

    if (!model_ready(server) || !request_model_known(server, decode(rest, &TEXT_ON(name))))
        return false;
    json_put_member(out, list ? "{\"object\":\"list\",\"data\":[{\"id\":" : "{\"id\":", info->id);
    text_fmt(out,
             ",\"object\":\"model\",\"created\":%ld,\"owned_by\":\"nohost\","
             "\"max_model_len\":%u,\"meta\":{\"n_vocab\":%u,\"n_ctx_train\":%u,\"n_embd\":%u,"
             "\"n_params\":%lu,\"size\":%lu",
             info->created_unix_s, info->ctx_max, info->vocab, info->ctx_train, info->embed,
             info->parameters, info->file_bytes);
    json_put_member(out, ",\"architecture\":", info->architecture);
    json_put_member(out, ",\"quantisation\":", info->quantisation);
    text_fmt(out, list ? "}}]}" : "}}");
    return reply_ok(conn, "application/json");
}

static void put_gpu_step(const struct server *server, struct text *out)
{
    char bytes[LOG_LINE_MAX];
    struct text step = TEXT_ON(bytes);

    if (server->config->gpu_step && server->config->gpu_step(&step))
        json_put_member(out, ",\"gpu\":", text_str(&step));
}

static bool answer_health(struct conn *conn)
{
    struct text *out = reply_line(conn->server);
    struct ml_status status;

    conn->server->on->status(conn->server->ml, &status);
    if (status.state == ML_READY) {
        text_fmt(out, "{\"status\":\"ok\"");
        put_gpu_step(conn->server, out);
        text_fmt(out, "}");
        return reply_ok(conn, "application/json");
    }
    text_fmt(out, "{\"status\":\"%s\"", status.state == ML_FAILED ? "failed" : "loading");
    json_put_member(out, ",\"step\":", str_of(status.step));
    text_fmt(out, ",\"percent\":%u", status.percent);
    json_put_member(
        out, ",\"reason\":", str_of(status.reason ? status.reason : "The model is loading."));
    put_gpu_step(conn->server, out);
    text_fmt(out, "}");
    return reply_send(conn, "503 Not Ready\r\nRetry-After: 1", "application/json", text_str(out));
}

static bool answer_metrics(struct conn *conn)
{
    metrics_write(conn->server, reply_line(conn->server));
    return reply_ok(conn, "text/plain; version=0.0.4; charset=utf-8");
}

static bool answer_page(struct conn *conn)
{
    return reply_send(conn,
                      "200 OK\r\nContent-Encoding: gzip\r\nReferrer-Policy: no-referrer\r\n"
                      "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "
                      "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; "
                      "form-action 'none'; frame-ancestors 'none'",
                      "text/html; charset=utf-8",
                      (struct str){(const char *)page_gz, sizeof(page_gz)});
}

static bool answer_log(struct conn *conn)
{
    struct text *out = reply_line(conn->server);

    out->len = log_read(out->ptr, out->cap);
    return reply_ok(conn, "text/plain; charset=utf-8");
}

static bool answer_gpus(struct conn *conn)
{
    if (!conn->server->config->gpus)
        return fault_set(conn->server, FAULT_NO_ROUTE, "", "This machine drives no GPU.");
    conn->server->config->gpus(reply_line(conn->server));
    return reply_ok(conn, "application/json");
}

/* Reset or power-off. Says yes first; server.c acts when that has left. */
static bool answer_action(struct conn *conn)
{
    struct server *server = conn->server;
    struct str path = conn->route->path;

    server->act = str_ends(path, STR("reset")) ? server->config->reset : server->config->power_off;
    if (!server->act)
        return fault_set(server, FAULT_NO_ROUTE, "", "This machine has no way to do that.");
    log_warn("api", "%s asks for %s", conn->stream->peer, path.ptr);
    server->act_after = conn;
    server->act_deadline_ns = time_ns() + ACT_TIMEOUT_S * NS_PER_S;
    conn->close_after = true;
    text_fmt(reply_line(server), "{\"status\":\"ok\"}");
    return reply_ok(conn, "application/json");
}

/* ---- routes ---- */

// clang-format off
static const struct route routes[] = {
    {STR("/v1/chat/completions"), false, HTTP_POST, KEY,        answer_generate},
    {STR("/v1/completions"),      false, HTTP_POST, KEY,        answer_generate},
    {STR("/v1/models"),           false, HTTP_GET,  KEY,        answer_models},
    {STR("/v1/models/"),          true,  HTTP_GET,  KEY,        answer_models},
    {STR("/health"),              false, HTTP_GET,  PUBLIC,     answer_health},
    {STR("/v1/health"),           false, HTTP_GET,  PUBLIC,     answer_health},
    {STR("/metrics"),             false, HTTP_GET,  KEY,        answer_metrics},
    {STR("/"),                    false, HTTP_GET,  PUBLIC,     answer_page},
    {STR("/favicon.ico"),         false, HTTP_GET,  PUBLIC,     NULL},
    {STR("/debug/log"),           false, HTTP_GET,  PRIVILEGED, answer_log},
    {STR("/debug/gpu"),           false, HTTP_GET,  PRIVILEGED, answer_gpus},
    {STR("/v1/nohost/reset"),     false, HTTP_POST, PRIVILEGED, answer_action},
    {STR("/v1/nohost/power-off"), false, HTTP_POST, PRIVILEGED, answer_action},
};
// clang-format on

static const struct route *find_route(struct str path)
{
    for (const struct route *route = routes; route < routes + ARRAY_LEN(routes); route++)
        if (str_starts(path, route->path) && route->below == (path.len > route->path.len))
            return route;
    return NULL;
}

void api_put_allow(struct text *out, const struct route *route)
{
    bool get = !route || route->method == HTTP_GET, post = !route || route->method == HTTP_POST;

    text_fmt(out, "\r\nAllow: %s%sOPTIONS", get ? "GET, HEAD, " : "", post ? "POST, " : "");
}

void api_answer(struct conn *conn)
{
    char buffer[64] = {};
    struct text fields = TEXT_ON(buffer);

    if (conn->request.method != HTTP_OPTIONS && conn->route && conn->route->answer) {
        if (!conn->route->answer(conn))
            reply_fault(conn);
        return;
    }
    /* No Access-Control-Allow-Origin: pages of other origins are not meant to use this server. */
    text_fmt(&fields, "204 No Content");
    api_put_allow(&fields, conn->route);
    reply_send(conn, buffer, NULL, (struct str){});
}

/* ---- the gate ---- */

/* Looks at every byte of every key, whatever the token is: the time tells nothing. */
static bool key_known(const struct net_config *config, struct str token)
{
    u32 known = 0;

    for (u32 i = 0; token.len && i < config->api_key_count; i++) {
        struct str key = config->api_key[i];
        u32 differs = key.len != token.len;
        for (usize at = 0; at < key.len; at++)
            differs |= (u32)(u8)key.ptr[at] ^ (u8)token.ptr[at % token.len];
        known |= differs == 0;
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
    const struct route *route = conn->route = find_route(path);
    u32 keys = server->config->api_key_count, method = conn->request.method;
    const char *method_name = http_method_names[method];

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
    return route->answer != answer_generate || (model_ready(server) && check_media(conn));
}
