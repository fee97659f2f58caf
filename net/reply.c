/*
 * reply.c: whole answers into a connection's outgoing bytes. Must not know routes or the runtime.
 */
#include "net/priv.h"

struct text *reply_line(struct server *server)
{
    server->line.len = 0;
    server->line.truncated = false;
    return &server->line;
}

bool reply_head(struct server *server, struct conn *conn, u32 status, const char *content_type,
                const char *extra, u64 length)
{
    char head[1536];
    struct text text = TEXT_ON(head);

    if (length == HTTP_LENGTH_UNTIL_CLOSE || !conn->head.keep_alive)
        conn->close_after = true;
    http_reply_head(&text, &(struct http_reply){
                               .status = status,
                               .length = length,
                               .content_type = content_type,
                               .extra = extra,
                               .request_id = {conn->request_id, conn->request_id_len},
                               .version = server->config->version,
                               .close = conn->close_after,
                           });
    CHECK(!text.truncated); /* every part of it has a bound of ours */
    server->stats.replies[status / 100]++;
    return conn_put(server, conn, text_str(&text));
}

void reply_send(struct server *server, struct conn *conn, u32 status, const char *content_type,
                const char *extra, struct str body)
{
    if (!reply_head(server, conn, status, content_type, extra, body.len))
        return;
    if (conn->head.method != HTTP_HEAD && !conn_put(server, conn, body))
        return;
    conn_phase(conn, CONN_SEND);
}

/* Fields that a status brings with it: RFC 9110, 15.5.2, 15.5.6, 10.2.3. */
static void put_fault_fields(struct text *out, const struct conn *conn, enum fault_kind kind)
{
    if (fault_status(kind) == 401)
        text_put(out, STR("WWW-Authenticate: Bearer realm=\"nohost\"\r\n"));
    if (kind == FAULT_METHOD)
        api_put_allow(out, conn->route);
    if (fault_retry_s(kind))
        text_fmt(out, "Retry-After: %u\r\n", fault_retry_s(kind));
    text_char(out, 0);
}

void reply_fault(struct server *server, struct conn *conn, const struct fault *fault)
{
    char body[2 * sizeof(struct fault) + 256], extra[160];
    struct text json = TEXT_ON(body), fields = TEXT_ON(extra);

    fault_json(&json, fault);
    put_fault_fields(&fields, conn, fault->kind);
    CHECK(!json.truncated);
    reply_send(server, conn, fault_status(fault->kind), "application/json", extra, text_str(&json));
}
