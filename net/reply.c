/*
 * reply.c: whole answers into a connection's outgoing bytes. Must not know the runtime.
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

/* With the fields that a status brings along: RFC 9110, 15.5.2, 15.5.6, 10.2.3. */
void reply_fault(struct server *server, struct conn *conn, const struct fault *fault)
{
    char body[6 * sizeof(struct fault) + 256], extra[160]; /* an escape takes 6 bytes at most */
    struct text json = TEXT_ON(body), fields = TEXT_ON(extra);
    u32 status = fault_status(fault->kind), retry_s = fault_retry_s(fault->kind);

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
