/*
 * reply.c: whole answers into a connection's outgoing bytes; and faults, every way in which a
 * request can fail, in the client's words. FAULT_TABLE in priv.h is the list. Follows RFC 9112
 * and the Error schema of OpenAI's API description. Must not know the runtime beyond its refusals.
 */
#include "net/priv.h"

struct text *reply_line(struct server *server)
{
    server->line.len = 0;
    server->line.truncated = false;
    return &server->line;
}

bool reply_head(struct conn *conn, const char *fields, const char *type, u64 length)
{
    struct str version = conn->server->config->version;
    bool stream = length == REPLY_STREAM, chunked = stream && conn->request.minor;
    char head[1536];
    struct text out = TEXT_ON(head);

    conn->close_after |= !conn->request.keep_alive || (stream && !chunked);
    text_fmt(&out, "HTTP/1.1 %s\r\nServer: nohost/%.*s\r\nX-Request-Id: %s\r\nConnection: %s\r\n",
             fields, (int)version.len, version.ptr, conn->request_id,
             conn->close_after ? "close" : "keep-alive");
    if (type)
        text_fmt(&out, "Content-Type: %s\r\nX-Content-Type-Options: nosniff\r\n", type);
    if (chunked)
        text_fmt(&out, "Transfer-Encoding: chunked\r\n");
    else if (type && !stream)
        text_fmt(&out, "Content-Length: %lu\r\n", length);
    text_fmt(&out, "Cache-Control: no-store\r\n\r\n");
    CHECK(!out.truncated); /* every part of it has a bound of ours */
    conn->server->stats.replies[fields[0] - '0']++;
    return conn_put(conn, text_str(&out));
}

bool reply_send(struct conn *conn, const char *fields, const char *type, struct str body)
{
    if (reply_head(conn, fields, type, body.len) &&
        (conn->request.method == HTTP_HEAD || conn_put(conn, body)))
        conn_phase(conn, CONN_SEND);
    return true;
}

bool reply_ok(struct conn *conn, const char *type)
{
    return reply_send(conn, "200 OK", type, text_str(&conn->server->line));
}

/* ---- faults ---- */

#define FAULT_ROW(name, status, type, code, retry) {status, retry, type, code},
static const struct {
    u32 status, retry_s;
    const char *type, *code;
} faults[FAULT_COUNT] = {FAULT_TABLE(FAULT_ROW)};
#undef FAULT_ROW

void fault_json(struct server *server, struct text *out)
{
    const struct fault *fault = &server->fault;

    json_put_member(out, "{\"error\":{\"message\":", str_of(fault->text));
    text_fmt(out, ",\"type\":\"%s\",\"code\":\"%s\"", faults[fault->kind].type,
             faults[fault->kind].code);
    if (fault->param[0])
        json_put_member(out, ",\"param\":", str_of(fault->param));
    else
        text_fmt(out, ",\"param\":null");
    if (fault->kind == FAULT_CONTEXT)
        text_fmt(out, ",\"n_prompt_tokens\":%u,\"n_ctx\":%u", fault->prompt_tokens, fault->ctx_max);
    text_fmt(out, "}}");
}

/* The code is the reason phrase; with the fields that a status brings along: RFC 9110, 15.5.2,
 * 15.5.6, 10.2.3. */
void reply_fault(struct conn *conn)
{
    enum fault_kind kind = conn->server->fault.kind;
    char buffer[256] = {};
    struct text fields = TEXT_ON(buffer), *out = reply_line(conn->server);

    text_fmt(&fields, "%u %s", faults[kind].status, faults[kind].code);
    if (faults[kind].status == 401)
        text_fmt(&fields, "\r\nWWW-Authenticate: Bearer realm=\"nohost\"");
    if (kind == FAULT_METHOD)
        api_put_allow(&fields, conn->route);
    if (faults[kind].retry_s)
        text_fmt(&fields, "\r\nRetry-After: %u", faults[kind].retry_s);
    fault_json(conn->server, out);
    conn->close_after |= conn->request.body != BODY_DONE;
    reply_send(conn, buffer, "application/json", text_str(out));
}

bool fault_set(struct server *server, enum fault_kind kind, const char *param, const char *format,
               ...)
{
    struct fault *fault = &server->fault;
    struct text where = {fault->param, 0, sizeof(fault->param) - 1, false};
    struct text what = {fault->text, 0, sizeof(fault->text) - 1, false};
    va_list args;

    *fault = (struct fault){.kind = kind};
    text_put(&where, str_of(param));
    va_start(args, format);
    text_vfmt(&what, format, args);
    va_end(args);
    return false;
}

bool fault_from_http(struct server *server, const struct http_request *request)
{
    enum fault_kind kind = 0;

    while (faults[kind].status != request->status)
        CHECK(++kind < FAULT_COUNT);
    server->stats.bad_http++;
    return fault_set(server, kind, "", "Bad request: %s.", request->why);
}

bool fault_from_ml(struct server *server, err why, const char *param,
                   const struct ml_refusal *refusal)
{
    switch (why) {
    case E_LIMIT:
        fault_set(server, FAULT_CONTEXT, param,
                  "This model's maximum context length is %u tokens, but the prompt has %u.",
                  refusal->ctx_max, refusal->prompt_tokens);
        server->fault.prompt_tokens = refusal->prompt_tokens;
        server->fault.ctx_max = refusal->ctx_max;
        return false;
    case E_BUSY:
        return fault_set(server, FAULT_QUEUE_FULL, "", "Every slot is taken, the queue is full.");
    case E_STATE:
        return fault_set(server, FAULT_LOADING, "", "The model is not ready: %s", refusal->text);
    case E_FORMAT:
        return fault_set(server, FAULT_TEMPLATE, param, "Prompt refused: %s", refusal->text);
    case E_RANGE:
        return fault_set(server, FAULT_VALUE, param, "%s", refusal->text);
    case E_DEVICE:
        return fault_set(server, FAULT_DEVICE, "", "The device that computes has failed.");
    default:
        return fault_set(server, FAULT_INTERNAL, "", "Internal error: %s.", err_text(why));
    }
}
