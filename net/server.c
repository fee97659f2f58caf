/*
 * server.c: connections and their deadlines: bytes -> request -> api -> bytes, one small turn at
 * a time. A connection is in exactly one phase (priv.h); what goes wrong on one never touches
 * another. Must not know what a request asks for, nor how bytes travel (struct stream).
 */
#include "net/priv.h"

err server_open(struct server **out, const struct net_config *config, struct ml *ml)
{
    static const struct server_ml runtime = {
        ml_status, ml_model_info, ml_submit, ml_cancel, ml_event_next, ml_stats,
    };
    struct server *server = *out = pages_alloc(sizeof(struct server));

    if (!server)
        return E_NOMEM;
    server->config = config;
    server->ml = ml;
    server->on = &runtime;
    server->json = (struct json_doc){.node = server->node, .node_max = JSON_NODES_MAX};
    /* With a head before it, a full line can be sent. */
    server->line = (struct text){.ptr = server->line_bytes, .cap = OUT_BYTES_MAX - 2 * KIB};
    struct arena arena = arena_on("server", server->large, sizeof(server->large));
    TRY(pool_init(&server->in_pool, "upload", &arena, HTTP_BODY_BYTES_MAX, LARGE_BODIES));
    TRY(pool_init(&server->out_pool, "out", &arena, OUT_BYTES_MAX, LARGE_OUTS));
    for (struct conn *conn = server->conn; conn < server->conn + NET_CONNECTIONS_MAX; conn++) {
        conn->server = server;
        conn->body.pool = &server->in_pool;
        conn->out.pool = &server->out_pool;
    }
    return OK;
}

void server_close(struct server *server)
{
    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        conn_drop(&server->conn[i]);
    pages_free(server, sizeof(*server));
}

u32 server_connections(const struct server *server)
{
    u32 count = 0;

    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        count += server->conn[i].phase != CONN_FREE;
    return count;
}

/* ---- bytes that wait ---- */

void buffer_empty(struct buffer *buffer)
{
    if (buffer->cap > SMALL_BYTES)
        pool_give(buffer->pool, buffer->ptr);
    buffer->ptr = buffer->small;
    buffer->len = 0;
    buffer->cap = SMALL_BYTES;
}

bool buffer_put(struct buffer *buffer, struct str bytes)
{
    usize len = buffer->len + bytes.len, large = buffer->pool->place_bytes;

    if (len > buffer->cap && len <= large) {
        char *place = pool_take(buffer->pool);
        if (!place)
            return false;
        buffer->ptr = memcpy(place, buffer->small, buffer->len);
        buffer->cap = large;
    }
    if (len > buffer->cap)
        return false;
    memcpy(buffer->ptr + buffer->len, bytes.ptr, bytes.len);
    buffer->len = len;
    return true;
}

bool conn_put(struct conn *conn, struct str bytes)
{
    if (!conn->ready) /* the wait for a slow reader starts here */
        conn->moved_ns = time_ns();
    bool room = buffer_put(&conn->out, bytes);
    conn->ready = conn->out.len;
    if (room)
        return true;
    log_warn("http", "%s: want it to read, saw %zu bytes wait: dropped", conn->stream->peer,
             conn->ready);
    conn->server->stats.stalls++;
    conn_drop(conn);
    return false;
}

/* ---- places: a connection comes, starts a request, ends ---- */

void conn_phase(struct conn *conn, enum conn_phase phase)
{
    conn->phase = phase;
    conn->since_ns = time_ns();
}

static void end(struct conn *conn, void (*how)(struct stream *stream))
{
    struct server *server = conn->server;

    if (conn->phase == CONN_RUN)
        server->on->cancel(server->ml, conn->answer.ticket);
    buffer_empty(&conn->body);
    buffer_empty(&conn->out);
    conn->phase = CONN_FREE;
    how(conn->stream);
}

void conn_drop(struct conn *conn)
{
    if (conn->phase != CONN_FREE)
        end(conn, conn->stream->ops->abort);
}

static void start_request(struct conn *conn)
{
    struct text id = TEXT_ON(conn->request_id);
    u64 number;

    random_bytes(&number, sizeof(number));
    text_fmt(&id, "req_%016lx%c", number, 0); /* unless the client names it */
    conn->request = (struct http_request){};
    conn->answer = (struct answer){};
    conn->route = NULL;
    conn->head_len = conn->ready = 0;
    conn->close_after = false;
    buffer_empty(&conn->body);
    buffer_empty(&conn->out);
    conn_phase(conn, CONN_HEAD);
}

/* When every place is taken, who has waited longest between or inside request heads makes room. */
bool server_accept(struct server *server, struct stream *stream)
{
    struct conn *place = NULL;

    for (struct conn *conn = server->conn; conn < server->conn + NET_CONNECTIONS_MAX; conn++) {
        if (conn->phase > CONN_HEAD || (place && place->phase == CONN_FREE))
            continue;
        if (!place || conn->phase == CONN_FREE || conn->moved_ns < place->moved_ns)
            place = conn;
    }
    server->stats.refused += !place;
    if (!place)
        return false;
    if (place->phase != CONN_FREE)
        end(place, place->stream->ops->close);
    place->stream = stream;
    place->in_len = 0;
    place->moved_ns = time_ns();
    start_request(place);
    server->stats.accepted++;
    return true;
}

/* ---- in: the head, the body ---- */

static bool receive(struct conn *conn)
{
    if (conn->phase > CONN_BODY)
        return false; /* a pipelined request waits in the transport's window */
    usize got = conn->stream->ops->recv(conn->stream, conn->in + conn->in_len,
                                        sizeof(conn->in) - conn->in_len);
    if (!got)
        return false;
    conn->moved_ns = time_ns();
    if (conn->phase == CONN_HEAD && !conn->in_len)
        conn->since_ns = conn->moved_ns;
    conn->in_len += got;
    return true;
}

static bool read_head(struct conn *conn)
{
    struct http_request *request = &conn->request;
    enum http_step step = http_head_read(request, (struct str){conn->in, conn->in_len});
    struct str id = request->field[FIELD_REQUEST_ID];

    if (step == HTTP_MORE)
        return false;
    if (id.len && id.len <= REQUEST_ID_BYTES_MAX && http_visible(id, ' ')) {
        memcpy(conn->request_id, id.ptr, id.len);
        conn->request_id[id.len] = 0;
    }
    conn->head_len = request->line_start;
    if (step == HTTP_BAD)
        request->method = HTTP_GET; /* whatever it was, the answer has a body */
    if (step == HTTP_BAD ? !fault_from_http(conn->server, request) : !api_admit(conn)) {
        reply_fault(conn);
        return true;
    }
    conn_phase(conn, CONN_BODY);
    if (request->wants_continue && conn->in_len == conn->head_len)
        (void)conn_put(conn, STR("HTTP/1.1 100 Continue\r\n\r\n"));
    return true;
}

static bool read_body(struct conn *conn)
{
    struct str bytes = {conn->in + conn->head_len, conn->in_len - conn->head_len}, data;
    enum http_step step = HTTP_MORE;
    usize used = 1, before = bytes.len;
    bool room = true;

    while (step == HTTP_MORE && used && room) {
        step = http_body_read(&conn->request, bytes, &used, &data);
        bytes = str_slice(bytes, used, bytes.len);
        room = buffer_put(&conn->body, data);
    }
    memmove(conn->in + conn->head_len, bytes.ptr, bytes.len);
    conn->in_len = conn->head_len + bytes.len;
    if (!room)
        fault_set(conn->server, FAULT_OVERLOADED, "", "Too many large requests at once.");
    else if (step == HTTP_BAD)
        fault_from_http(conn->server, &conn->request);
    else if (step == HTTP_DONE)
        api_answer(conn);
    if (!room || step == HTTP_BAD)
        reply_fault(conn);
    return step != HTTP_MORE || bytes.len != before;
}

/* ---- out ---- */

static bool send_out(struct conn *conn)
{
    struct buffer *out = &conn->out;
    usize taken = conn->stream->ops->send(conn->stream, out->ptr, conn->ready);

    if (!taken)
        return false;
    memmove(out->ptr, out->ptr + taken, out->len - taken);
    out->len -= taken;
    conn->ready -= taken;
    conn->moved_ns = time_ns();
    if (!out->len)
        buffer_empty(out);
    return true;
}

/* The answer is on its way: the next request, or the end. */
static bool after_send(struct conn *conn)
{
    if (conn->server->act && conn->server->act_after == conn)
        return false; /* open until the answer has arrived */
    if (conn->close_after) {
        end(conn, conn->stream->ops->close);
        return true;
    }
    conn->in_len -= conn->head_len;
    memmove(conn->in, conn->in + conn->head_len, conn->in_len);
    start_request(conn);
    return true;
}

/* ---- ends: peers that leave, and deadlines ---- */

/* The peer has gone; or will send no more while we are `waiting` for it, or run for it. A half
 * closed one that we send to still reads. */
static bool peer_left(struct conn *conn, bool waiting)
{
    const struct stream_ops *ops = conn->stream->ops;
    enum stream_state state = ops->state(conn->stream);
    bool running = conn->phase == CONN_RUN;

    if (state == STREAM_OPEN ||
        (state == STREAM_PEER_DONE && (!waiting || conn->phase == CONN_SEND)))
        return false;
    conn->server->stats.disconnects += running;
    end(conn, running || state == STREAM_GONE ? ops->abort : ops->close);
    return true;
}

static bool passed(u64 since_ns, u64 limit_s)
{
    return time_ns() > since_ns + limit_s * NS_PER_S;
}

/* Which deadline of the connection has passed; true when something was done about it. */
static bool enforce_deadlines(struct conn *conn)
{
    bool body = conn->phase == CONN_BODY, head = conn->phase == CONN_HEAD && conn->in_len;
    u64 phase_max_s = body ? BODY_TOTAL_TIMEOUT_S : head ? HEAD_TIMEOUT_S : IDLE_TIMEOUT_S;
    bool over = conn->phase <= CONN_BODY && passed(conn->since_ns, phase_max_s);

    if (conn->ready && passed(conn->moved_ns, SEND_STALL_TIMEOUT_S)) {
        conn->server->stats.stalls++;
        conn_drop(conn);
    } else if (conn->phase == CONN_RUN && conn->answer.stream && !conn->ready &&
               passed(conn->moved_ns, PING_INTERVAL_S)) {
        answer_ping(conn);
    } else if (over && !body && !head) {
        end(conn, conn->stream->ops->close);
    } else if (over || (body && passed(conn->moved_ns, BODY_IDLE_TIMEOUT_S))) {
        conn->server->stats.timeouts++;
        fault_set(conn->server, FAULT_SLOW, "", "The request did not arrive in time.");
        reply_fault(conn);
    } else {
        return false;
    }
    return true;
}

/* ---- one turn ---- */

static bool turn(struct conn *conn)
{
    bool ran = conn->phase == CONN_RUN, work = receive(conn);

    if (conn->phase == CONN_HEAD && conn->in_len)
        work |= read_head(conn);
    if (conn->phase == CONN_BODY)
        work |= read_body(conn);
    if (conn->phase != CONN_FREE && conn->ready)
        work |= send_out(conn);
    if (conn->phase == CONN_SEND && !conn->ready)
        work |= after_send(conn);
    if (conn->phase != CONN_FREE && !peer_left(conn, ran || !work))
        work |= enforce_deadlines(conn);
    return work;
}

/* Reset and power-off wait for their own answer to arrive, but not for ever. */
static void act_when_sent(struct server *server)
{
    struct conn *conn = server->act_after;
    void (*act)(void) = server->act;

    if (!act)
        return;
    bool sent = conn->phase == CONN_FREE || /* it left by itself */
                (!conn->ready && !conn->stream->ops->unsent(conn->stream));
    if (sent || time_ns() > server->act_deadline_ns) {
        server->act = NULL;
        act();
    }
}

bool server_poll(struct server *server)
{
    struct conn *conns_end = server->conn + NET_CONNECTIONS_MAX;
    struct ml_event event;
    bool work = false;

    for (; server->on->event_next(server->ml, &event); work = true)
        for (struct conn *conn = server->conn; conn < conns_end; conn++)
            if (conn->phase == CONN_RUN && conn->answer.ticket == event.ticket)
                answer_event(conn, &event);
    for (struct conn *conn = server->conn; conn < conns_end; conn++)
        if (conn->phase != CONN_FREE)
            work |= turn(conn);
    act_when_sent(server);
    return work;
}
