/*
 * server.c: connections and their deadlines: bytes -> request -> api -> bytes, one small turn at
 * a time. A connection is in exactly one phase (priv.h); what goes wrong on one never touches
 * another. Must not know what a request asks for, nor how bytes travel (struct stream).
 */
#include "net/priv.h"

static const struct server_ml runtime = {
    ml_status, ml_model_info, ml_submit, ml_cancel, ml_event_next, ml_stats,
};

#define ARENA_BYTES                                                                                \
    (NET_CONNECTIONS_MAX * sizeof(struct conn) + (UPLOAD_BLOCKS + OUT_BLOCKS) * BLOCK_BYTES +      \
     HTTP_BODY_BYTES_MAX + JSON_NODES_MAX * (sizeof(struct json) + sizeof(u32)) +                  \
     MESSAGES_MAX * sizeof(struct ml_message) + LINE_BYTES_MAX + 64 * KIB)

err server_open(struct server **out, const struct net_config *config, struct ml *ml)
{
    void *pages = pages_alloc(ARENA_BYTES);
    if (!pages)
        return E_NOMEM;
    struct arena arena = arena_on("server", pages, ARENA_BYTES);
    struct server *server = arena_new(&arena, struct server, 1);

    *server = (struct server){.config = config, .ml = ml, .on = &runtime};
    server->conn = arena_new(&arena, struct conn, NET_CONNECTIONS_MAX);
    server->body.ptr = arena_new(&arena, char, HTTP_BODY_BYTES_MAX);
    server->body.cap = HTTP_BODY_BYTES_MAX;
    server->json.node = arena_new(&arena, struct json, JSON_NODES_MAX);
    server->json.node_max = JSON_NODES_MAX;
    server->message = arena_new(&arena, struct ml_message, MESSAGES_MAX);
    server->token = arena_new(&arena, u32, JSON_NODES_MAX);
    server->line =
        (struct text){.ptr = arena_new(&arena, char, LINE_BYTES_MAX), .cap = LINE_BYTES_MAX};
    TRY(pool_init(&server->in_pool, "upload", &arena, BLOCK_BYTES, UPLOAD_BLOCKS));
    TRY(pool_init(&server->out_pool, "out", &arena, BLOCK_BYTES, OUT_BLOCKS));
    CHECK(server->line.ptr);
    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        server->conn[i].server = server;
    server->arena = arena;
    *out = server;
    return OK;
}

void server_close(struct server *server)
{
    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        conn_drop(&server->conn[i]);
    pages_free(server->arena.base, server->arena.cap);
}

u32 server_connections(const struct server *server)
{
    u32 count = 0;

    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        count += server->conn[i].phase != CONN_FREE;
    return count;
}

/* ---- places ---- */

void conn_phase(struct conn *conn, enum conn_phase phase)
{
    conn->phase = phase;
    conn->since_ns = time_ns();
}

/* The place is free again; its stream is still to be ended. */
static struct stream *release(struct conn *conn)
{
    struct server *server = conn->server;
    struct stream *stream = conn->stream;

    if (conn->phase == CONN_RUN)
        server->on->cancel(server->ml, conn->answer.ticket);
    fifo_drop(&conn->upload, &server->in_pool, conn->upload.len);
    fifo_drop(&conn->out, &server->out_pool, conn->out.len);
    for (u32 i = 0; i < ANSWER_PARTS; i++)
        fifo_drop(&conn->answer.part[i], &server->out_pool, conn->answer.part[i].len);
    conn->stream = NULL;
    conn->phase = CONN_FREE;
    return stream;
}

void conn_drop(struct conn *conn)
{
    if (conn->phase == CONN_FREE)
        return;
    struct stream *stream = release(conn);
    stream->ops->abort(stream);
}

/* A farewell: what was taken for sending still arrives. */
static void conn_close(struct conn *conn)
{
    struct stream *stream = release(conn);

    stream->ops->close(stream);
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
    conn->head_len = 0;
    conn->close_after = false;
    conn_phase(conn, CONN_HEAD);
}

/* When every place is taken, who has waited longest between or inside request heads makes room. */
static struct conn *place_for_new(struct server *server)
{
    struct conn *oldest = NULL;

    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++) {
        struct conn *conn = &server->conn[i];
        if (conn->phase == CONN_FREE)
            return conn;
        if (conn->phase == CONN_HEAD && (!oldest || conn->moved_ns < oldest->moved_ns))
            oldest = conn;
    }
    if (oldest)
        conn_close(oldest);
    server->stats.evicted += oldest != NULL;
    server->stats.refused += !oldest;
    return oldest;
}

bool server_accept(struct server *server, struct stream *stream)
{
    struct conn *conn = place_for_new(server);

    if (!conn)
        return false;
    conn->stream = stream;
    conn->in_len = 0;
    conn->moved_ns = time_ns();
    start_request(conn);
    server->stats.accepted++;
    return true;
}

bool conn_put(struct conn *conn, struct str bytes)
{
    struct server *server = conn->server;
    /* A whole answer gets back the blocks that it has just given, or one more at most. */
    bool whole = conn->phase == CONN_RUN && !conn->answer.stream;
    bool small = conn->out.len + bytes.len <= SMALL_BYTES;

    if (!conn->out.len) /* the wait for a slow reader starts here */
        conn->moved_ns = time_ns();
    if (conn->out.len <= OUT_BYTES_MAX &&
        fifo_put(&conn->out, &server->out_pool, bytes, small || whole ? 0 : OUT_SPARE_BLOCKS))
        return true;
    log_warn("http", "%s: want it to read, saw %zu bytes wait: dropped", conn->stream->peer,
             conn->out.len);
    server->stats.stalls++;
    conn_drop(conn);
    return false;
}

/* ---- in: the head, the body ---- */

static bool receive(struct conn *conn)
{
    if (conn->phase == CONN_RUN || conn->phase == CONN_SEND)
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

    if (step == HTTP_MORE)
        return false;
    struct str id = request->field[FIELD_REQUEST_ID];
    if (id.len && id.len <= REQUEST_ID_BYTES_MAX && http_visible(id, ' ')) {
        memcpy(conn->request_id, id.ptr, id.len);
        conn->request_id[id.len] = 0;
    }
    conn->head_len = request->line_start;
    if (step == HTTP_BAD) {
        request->method = HTTP_GET; /* whatever it was, the answer has a body */
        fault_from_http(conn->server, request);
    }
    if (step == HTTP_BAD || !api_admit(conn)) {
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
    struct server *server = conn->server;
    enum http_step step = HTTP_MORE;
    usize used = 1, before = bytes.len;

    while (step == HTTP_MORE && used) {
        step = http_body_read(&conn->request, bytes, &used, &data);
        bytes = str_slice(bytes, used, bytes.len);
        bool small = conn->upload.len + data.len <= SMALL_BYTES;
        if (!fifo_put(&conn->upload, &server->in_pool, data, small ? 0 : UPLOAD_SPARE_BLOCKS)) {
            fault_set(server, FAULT_OVERLOADED, "", "Too many large requests arrive at once.");
            reply_fault(conn);
            return true;
        }
    }
    memmove(conn->in + conn->head_len, bytes.ptr, bytes.len);
    conn->in_len = conn->head_len + bytes.len;
    if (step == HTTP_BAD) {
        fault_from_http(server, &conn->request);
        reply_fault(conn);
    } else if (step == HTTP_DONE) {
        api_answer(conn);
    }
    return step != HTTP_MORE || bytes.len != before;
}

/* ---- out ---- */

static bool send_out(struct conn *conn)
{
    struct stream *stream = conn->stream;
    usize taken = 0, before = conn->out.len;

    do {
        struct str next = fifo_peek(&conn->out);
        taken = stream->ops->send(stream, next.ptr, next.len);
        fifo_drop(&conn->out, &conn->server->out_pool, taken);
    } while (taken && conn->out.len);
    if (conn->out.len == before)
        return false;
    conn->moved_ns = time_ns();
    stream->ops->push(stream);
    return true;
}

/* The answer is on its way: the next request, or the end. */
static bool after_send(struct conn *conn)
{
    struct server *server = conn->server;

    fifo_drop(&conn->upload, &server->in_pool, conn->upload.len);
    if (server->act && server->act_after == conn)
        return false; /* open until the answer has arrived */
    if (conn->close_after) {
        conn_close(conn);
        return true;
    }
    memmove(conn->in, conn->in + conn->head_len, conn->in_len - conn->head_len);
    conn->in_len -= conn->head_len;
    start_request(conn);
    return true;
}

/* ---- ends: peers that leave, and deadlines ---- */

/* The peer has gone; or will send no more while we are `waiting` for it, or run for it. */
static bool peer_left(struct conn *conn, bool waiting)
{
    enum stream_state state = conn->stream->ops->state(conn->stream);
    bool running = conn->phase == CONN_RUN;

    if (state == STREAM_OPEN || (state == STREAM_PEER_DONE && !waiting && !running))
        return false;
    if (state == STREAM_PEER_DONE && conn->phase == CONN_SEND)
        return false; /* half closed: it still reads */
    conn->server->stats.disconnects += running;
    if (state == STREAM_PEER_DONE && !running)
        conn_close(conn);
    else
        conn_drop(conn);
    return true;
}

static bool passed(u64 since_ns, u64 limit_s)
{
    return time_ns() > since_ns + limit_s * NS_PER_S;
}

/* Which deadline of the connection has passed; true when something was done about it. */
static bool enforce_deadlines(struct conn *conn)
{
    bool head = conn->phase == CONN_HEAD, body = conn->phase == CONN_BODY;
    bool begun = body || (head && conn->in_len);
    u64 phase_max_s = body ? BODY_TOTAL_TIMEOUT_S : begun ? HEAD_TIMEOUT_S : IDLE_TIMEOUT_S;
    bool over = (head || body) && passed(conn->since_ns, phase_max_s);

    if (conn->out.len && passed(conn->moved_ns, SEND_STALL_TIMEOUT_S)) {
        conn->server->stats.stalls++;
        conn_drop(conn);
    } else if (conn->phase == CONN_RUN && conn->answer.stream && !conn->out.len &&
               passed(conn->moved_ns, PING_INTERVAL_S)) {
        answer_ping(conn);
    } else if (over && !begun) {
        conn_close(conn);
    } else if (over || (body && passed(conn->moved_ns, BODY_IDLE_TIMEOUT_S))) {
        conn->server->stats.timeouts++;
        fault_set(conn->server, FAULT_SLOW, "", "The request's %s did not arrive in time.",
                  body ? "body" : "header");
        reply_fault(conn);
    } else {
        return false;
    }
    return true;
}

/* ---- one turn ---- */

static bool turn(struct conn *conn)
{
    if (peer_left(conn, false))
        return true;
    bool work = receive(conn);
    if (conn->phase == CONN_HEAD && conn->in_len)
        work |= read_head(conn);
    if (conn->phase == CONN_BODY)
        work |= read_body(conn);
    if (conn->phase != CONN_FREE && conn->out.len)
        work |= send_out(conn);
    if (conn->phase == CONN_SEND && !conn->out.len)
        work |= after_send(conn);
    if (conn->phase != CONN_FREE && !(!work && peer_left(conn, true)))
        work |= enforce_deadlines(conn);
    return work;
}

/* Reset and power-off wait for their own answer to arrive, but not for ever. */
static void act_when_sent(struct server *server)
{
    struct conn *conn = server->act_after;

    if (!server->act)
        return;
    bool sent = conn->phase == CONN_FREE || /* it left by itself */
                (!conn->out.len && !conn->stream->ops->unsent(conn->stream));
    if (sent || time_ns() > server->act_deadline_ns) {
        void (*act)(void) = server->act;
        server->act = NULL;
        act();
    }
}

bool server_poll(struct server *server)
{
    struct ml_event event;
    bool work = false;

    for (; server->on->event_next(server->ml, &event); work = true)
        for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
            if (server->conn[i].phase == CONN_RUN && server->conn[i].answer.ticket == event.ticket)
                answer_event(&server->conn[i], &event);
    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        if (server->conn[i].phase != CONN_FREE)
            work |= turn(&server->conn[i]);
    act_when_sent(server);
    return work;
}
