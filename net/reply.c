/*
 * reply.c: whole answers into a connection's outgoing bytes; and faults, every way in which a
 * request can fail, in the client's words. FAULT_TABLE in priv.h is the list. Follows the Error
 * schema of OpenAI's API description: message, type, param and code are always there. Must not
 * know the runtime beyond its refusals.
 */
#include "net/priv.h"

struct text *reply_line(struct server *server)
{
    server->line.len = 0;
    server->line.truncated = false;
    return &server->line;
}

bool reply_head(struct server *server, struct conn *conn, struct http_reply reply, u64 length)
{
    char head[1536];
    struct text text = TEXT_ON(head);

    conn->close_after |= length == HTTP_LENGTH_UNTIL_CLOSE || !conn->head.keep_alive;
    http_reply_head(&text, reply, length,
                    &(struct http_sender){{conn->request_id, conn->request_id_len},
                                          server->config->version,
                                          conn->close_after});
    CHECK(!text.truncated); /* every part of it has a bound of ours */
    server->stats.replies[reply.status / 100]++;
    return conn_put(server, conn, text_str(&text));
}

void reply_send(struct server *server, struct conn *conn, struct http_reply reply, struct str body)
{
    if (reply_head(server, conn, reply, body.len) &&
        (conn->head.method == HTTP_HEAD || conn_put(server, conn, body)))
        conn_phase(conn, CONN_SEND);
}

/* ---- faults ---- */

static const struct {
    u32 status, retry_s;
    const char *type, *code;
} faults[FAULT_COUNT] = {
#define FAULT_ROW(name, status, type, code, retry) [FAULT_##name] = {status, retry, type, code},
    FAULT_TABLE(FAULT_ROW)
#undef FAULT_ROW
};

/* With the fields that a status brings along: RFC 9110, 15.5.2, 15.5.6, 10.2.3. */
void reply_fault(struct server *server, struct conn *conn, const struct fault *fault)
{
    /* An escape takes six bytes at most. */
    char body[6 * sizeof(struct fault) + 256], extra[160];
    struct text json = TEXT_ON(body), fields = TEXT_ON(extra);
    u32 status = faults[fault->kind].status, retry_s = faults[fault->kind].retry_s;

    fault_json(&json, fault);
    if (status == 401)
        text_put(&fields, STR("WWW-Authenticate: Bearer realm=\"nohost\"\r\n"));
    if (status == 405)
        api_put_allow(&fields, conn->route);
    if (retry_s)
        text_fmt(&fields, "Retry-After: %u\r\n", retry_s);
    text_char(&fields, 0);
    CHECK(!json.truncated && !fields.truncated);
    reply_send(server, conn, (struct http_reply){status, "application/json", extra},
               text_str(&json));
}

bool fault_set(struct fault *fault, enum fault_kind kind, const char *param, const char *format,
               ...)
{
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

bool fault_from_ml(struct fault *fault, err why, const char *param,
                   const struct ml_refusal *refusal)
{
    switch (why) {
    case E_LIMIT:
        fault_set(fault, FAULT_CONTEXT, param,
                  "This model's maximum context length is %u tokens, but the prompt has %u.",
                  refusal->ctx_max, refusal->prompt_tokens);
        fault->prompt_tokens = refusal->prompt_tokens;
        fault->ctx_max = refusal->ctx_max;
        return false;
    case E_BUSY:
        return fault_set(fault, FAULT_QUEUE_FULL, "", "Every slot is taken, the queue is full.");
    case E_STATE:
        return fault_set(fault, FAULT_LOADING, "", "The model is not ready: %s", refusal->text);
    case E_FORMAT:
        return fault_set(fault, FAULT_TEMPLATE, param, "The prompt was refused: %s", refusal->text);
    case E_RANGE:
        return fault_set(fault, FAULT_VALUE, param, "%s", refusal->text);
    case E_DEVICE:
        return fault_set(fault, FAULT_DEVICE, "", "The device that computes has failed.");
    default:
        return fault_set(fault, FAULT_INTERNAL, "", "The server failed: %s.", err_text(why));
    }
}

enum fault_kind fault_of_status(u32 status)
{
    enum fault_kind kind = 0;

    while (kind < FAULT_COUNT && faults[kind].status != status)
        kind++;
    return kind < FAULT_COUNT ? kind : FAULT_INTERNAL;
}

void fault_json(struct text *out, const struct fault *fault)
{
    text_put(out, STR("{\"error\":{\"message\":"));
    json_put_str(out, str_of(fault->text));
    text_fmt(out, ",\"type\":\"%s\",\"param\":", faults[fault->kind].type);
    if (fault->param[0])
        json_put_str(out, str_of(fault->param));
    else
        text_put(out, STR("null"));
    text_fmt(out, ",\"code\":\"%s\"", faults[fault->kind].code);
    if (fault->kind == FAULT_CONTEXT)
        text_fmt(out, ",\"n_prompt_tokens\":%u,\"n_ctx\":%u", fault->prompt_tokens, fault->ctx_max);
    text_put(out, STR("}}"));
}
