/*
 * server.c: connections and their deadlines: bytes -> request -> api -> bytes, one small turn at
 * a time. A connection is in exactly one phase (priv.h); what goes wrong on one never touches
 * another. Must not know what a request asks for, nor how bytes travel (struct stream).
 */
#include "net/priv.h"

static const struct server_ml runtime = {
    ml_status, ml_model_info, ml_submit, ml_cancel, ml_event_next, ml_stats,
};

static bool turn(struct server *server, struct conn *conn);
static void move_events(struct server *server, bool *work);
static void act_when_sent(struct server *server);
static void conn_close(struct server *server, struct conn *conn);

err server_open(struct server **server, const struct net_config *config, struct ml *ml)
{
    return server_open_on(server, config, ml, &runtime);
}

#define ARENA_BYTES                                                                                \
    (NET_CONNECTIONS_MAX * sizeof(struct conn) + UPLOAD_POOL_BYTES + OUT_POOL_BYTES +              \
     HTTP_BODY_BYTES_MAX + JSON_NODES_MAX * (sizeof(struct json) + sizeof(u32)) +                  \
     MESSAGES_MAX * sizeof(struct ml_message) + LINE_BYTES_MAX + 64 * KIB)

err server_open_on(struct server **out, const struct net_config *config, struct ml *ml,
                   const struct server_ml *on)
{
    void *pages = pages_alloc(ARENA_BYTES);
    if (!pages)
        return E_NOMEM;
    struct arena arena = arena_on("server", pages, ARENA_BYTES);
    struct server *server = arena_new(&arena, struct server, 1);

    *server = (struct server){.config = config, .ml = ml, .on = on};
    server->conn = arena_new(&arena, struct conn, NET_CONNECTIONS_MAX);
    server->body = arena_new(&arena, char, HTTP_BODY_BYTES_MAX);
    server->json = (struct json_doc){.node_max = JSON_NODES_MAX};
    server->json.node = arena_new(&arena, struct json, JSON_NODES_MAX);
    server->message = arena_new(&arena, struct ml_message, MESSAGES_MAX);
    server->token = arena_new(&arena, u32, JSON_NODES_MAX);
    server->line = (struct text){arena_new(&arena, char, LINE_BYTES_MAX), 0, LINE_BYTES_MAX, false};
    TRY(fifo_pool_init(&server->in_pool, "upload", &arena, UPLOAD_POOL_BYTES));
    TRY(fifo_pool_init(&server->out_pool, "out", &arena, OUT_POOL_BYTES));
    CHECK(server->line.ptr);
    server->arena = arena;
    *out = server;
    return OK;
}

void server_close(struct server *server)
{
    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        conn_drop(server, &server->conn[i]);
    pages_free(server->arena.base, server->arena.cap);
}

u32 server_connections(const struct server *server)
{
    u32 count = 0;

    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        count += server->conn[i].phase != CONN_FREE;
    return count;
}

bool server_poll(struct server *server)
{
    bool work = false;

    move_events(server, &work);
    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        if (server->conn[i].phase != CONN_FREE)
            work |= turn(server, &server->conn[i]);
    act_when_sent(server);
    return work;
}

static void move_events(struct server *server, bool *work)
{
    struct ml_event event;

    while (server->on->event_next(server->ml, &event)) {
        *work = true;
        for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++) {
            struct conn *conn = &server->conn[i];
            if (conn->phase == CONN_RUN && conn->answer.ticket == event.ticket) {
                answer_event(server, conn, &event);
                break;
            }
        }
    }
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

/* ---- places ---- */

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
    if (oldest) {
        conn_close(server, oldest);
        server->stats.evicted++;
    }
    return oldest;
}

static void start_request(struct conn *conn)
{
    conn->head = (struct http_head){};
    conn->answer = (struct answer){};
    conn->route = NULL;
    conn->head_len = 0;
    conn->request_id_len = 0;
    conn->close_after = false;
    conn_phase(conn, CONN_HEAD);
}

bool server_accept(struct server *server, struct stream *stream)
{
    struct conn *conn = place_for_new(server);

    if (!conn) {
        server->stats.refused++;
        return false;
    }
    conn->stream = stream;
    conn->in_len = 0;
    conn->moved_ns = time_ns();
    start_request(conn);
    server->stats.accepted++;
    return true;
}

void conn_phase(struct conn *conn, enum conn_phase phase)
{
    conn->phase = phase;
    conn->since_ns = time_ns();
}

static void release(struct server *server, struct conn *conn)
{
    if (conn->phase == CONN_RUN)
        server->on->cancel(server->ml, conn->answer.ticket);
    fifo_clear(&conn->upload, &server->in_pool);
    fifo_clear(&conn->out, &server->out_pool);
    fifo_clear(&conn->answer.text, &server->out_pool);
    for (u32 i = 0; i < ANSWER_LISTS; i++)
        fifo_clear(&conn->answer.list[i], &server->out_pool);
    conn->stream = NULL;
    conn->phase = CONN_FREE;
}

void conn_drop(struct server *server, struct conn *conn)
{
    struct stream *stream = conn->stream;

    if (conn->phase == CONN_FREE)
        return;
    release(server, conn);
    stream->ops->abort(stream);
}

/* A farewell: what was taken for sending still arrives. */
static void conn_close(struct server *server, struct conn *conn)
{
    struct stream *stream = conn->stream;

    release(server, conn);
    stream->ops->close(stream);
}

bool conn_put(struct server *server, struct conn *conn, struct str bytes)
{
    if (!conn->out.len) /* the wait for a slow reader starts here */
        conn->moved_ns = time_ns();
    u32 spare = conn->out.len + bytes.len <= SMALL_BYTES ? 0 : OUT_SPARE_BLOCKS;
    if (conn->out.len <= OUT_BYTES_MAX && fifo_put(&conn->out, &server->out_pool, bytes, spare))
        return true;
    log_warn("http", "%s: want it to read, saw %zu bytes wait: dropped", conn->stream->peer,
             conn->out.len);
    server->stats.stalls++;
    conn_drop(server, conn);
    return false;
}

/* ---- one turn of one connection ---- */

static bool receive(struct conn *conn);
static bool read_head(struct server *server, struct conn *conn);
static bool read_body(struct server *server, struct conn *conn);
static bool send_out(struct server *server, struct conn *conn);
static bool after_send(struct server *server, struct conn *conn);
static bool peer_left(struct server *server, struct conn *conn, bool waiting);
static bool enforce_deadlines(struct server *server, struct conn *conn);

static bool turn(struct server *server, struct conn *conn)
{
    if (peer_left(server, conn, false))
        return true;
    bool work = receive(conn);
    if (conn->phase == CONN_HEAD && conn->in_len)
        work |= read_head(server, conn);
    if (conn->phase == CONN_BODY)
        work |= read_body(server, conn);
    if (conn->phase != CONN_FREE && conn->out.len)
        work |= send_out(server, conn);
    if (conn->phase == CONN_SEND && !conn->out.len)
        work |= after_send(server, conn);
    if (conn->phase != CONN_FREE && !(!work && peer_left(server, conn, true)))
        work |= enforce_deadlines(server, conn);
    return work;
}

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

/* The peer has gone; or will send no more while we are `waiting` for it, or run for it. */
static bool peer_left(struct server *server, struct conn *conn, bool waiting)
{
    enum stream_state state = conn->stream->ops->state(conn->stream);
    bool running = conn->phase == CONN_RUN;

    if (state == STREAM_OPEN || (state == STREAM_PEER_DONE && !waiting && !running))
        return false;
    if (state == STREAM_PEER_DONE && conn->phase == CONN_SEND)
        return false; /* half closed: it still reads */
    server->stats.disconnects += running;
    if (state == STREAM_PEER_DONE && !running)
        conn_close(server, conn);
    else
        conn_drop(server, conn);
    return true;
}

/* An answer before the whole request was read: what follows cannot be trusted to be a request. */
static void refuse(struct server *server, struct conn *conn, const struct fault *fault)
{
    conn->close_after = true;
    reply_fault(server, conn, fault);
}

static void name_request(struct conn *conn)
{
    struct str wanted = conn->head.field[FIELD_REQUEST_ID];
    struct text id = TEXT_ON(conn->request_id);
    bool fit = wanted.len > 0 && wanted.len <= sizeof(conn->request_id);
    u64 number;

    for (usize i = 0; i < wanted.len && fit; i++)
        fit = wanted.ptr[i] > ' ' && wanted.ptr[i] < 0x7f;
    random_bytes(&number, sizeof(number));
    if (fit)
        text_put(&id, wanted);
    else
        text_fmt(&id, "req_%016lx", number);
    conn->request_id_len = id.len;
}

static bool read_head(struct server *server, struct conn *conn)
{
    struct fault fault = {};
    enum http_step step = http_head_read(&conn->head, (struct str){conn->in, conn->in_len});

    if (step == HTTP_MORE)
        return false;
    name_request(conn);
    conn->head_len = conn->head.line_start;
    if (step == HTTP_BAD) {
        server->stats.bad_http++;
        conn->head.method = HTTP_GET; /* whatever it was, the answer has a body */
        fault_set(&fault, fault_of_status(conn->head.status), "", "Bad request: %s.",
                  conn->head.why);
        refuse(server, conn, &fault);
        return true;
    }
    conn->body = http_body_start(&conn->head);
    if (!api_admit(server, conn, &fault)) {
        if (conn->head.chunked || conn->head.content_length)
            refuse(server, conn, &fault);
        else
            reply_fault(server, conn, &fault);
        return true;
    }
    conn_phase(conn, CONN_BODY);
    if (conn->head.wants_continue && conn->in_len == conn->head_len)
        (void)conn_put(server, conn, STR("HTTP/1.1 100 Continue\r\n\r\n"));
    return true;
}

static bool keep_body(struct server *server, struct conn *conn, struct str data)
{
    bool small = conn->upload.len + data.len <= SMALL_BYTES;

    return fifo_put(&conn->upload, &server->in_pool, data, small ? 0 : UPLOAD_SPARE_BLOCKS);
}

static bool read_body(struct server *server, struct conn *conn)
{
    struct str bytes = {conn->in + conn->head_len, conn->in_len - conn->head_len}, data;
    enum http_step step = HTTP_MORE;
    usize used = 1, before = bytes.len;
    struct fault fault;

    while (step == HTTP_MORE && used) {
        step = http_body_read(&conn->body, bytes, &used, &data);
        bytes = str_slice(bytes, used, bytes.len);
        if (data.len && !keep_body(server, conn, data)) {
            fault_set(&fault, FAULT_OVERLOADED, "", "Too many large requests arrive at once.");
            refuse(server, conn, &fault);
            return true;
        }
    }
    memmove(conn->in + conn->head_len, bytes.ptr, bytes.len);
    conn->in_len = conn->head_len + bytes.len;
    if (step == HTTP_BAD) {
        server->stats.bad_http++;
        fault_set(&fault, fault_of_status(conn->body.status), "", "Bad request: %s.",
                  conn->body.why);
        refuse(server, conn, &fault);
    } else if (step == HTTP_DONE) {
        api_answer(server, conn);
    }
    return step != HTTP_MORE || bytes.len != before;
}

static bool send_out(struct server *server, struct conn *conn)
{
    struct stream *stream = conn->stream;
    usize taken = 0, before = conn->out.len;

    do {
        struct str next = fifo_peek(&conn->out);
        taken = stream->ops->send(stream, next.ptr, next.len);
        fifo_drop(&conn->out, &server->out_pool, taken);
    } while (taken && conn->out.len);
    if (conn->out.len == before)
        return false;
    conn->moved_ns = time_ns();
    stream->ops->push(stream);
    return true;
}

/* The answer is on its way: the next request, or the end. */
static bool after_send(struct server *server, struct conn *conn)
{
    fifo_clear(&conn->upload, &server->in_pool);
    if (server->act && server->act_after == conn)
        return false; /* open until the answer has arrived */
    if (conn->close_after) {
        conn_close(server, conn);
        return true;
    }
    memmove(conn->in, conn->in + conn->head_len, conn->in_len - conn->head_len);
    conn->in_len -= conn->head_len;
    start_request(conn);
    return true;
}

/* ---- deadlines ---- */

static bool passed(u64 since_ns, u64 limit_s)
{
    return time_ns() > since_ns + limit_s * NS_PER_S;
}

static void time_out(struct server *server, struct conn *conn, const char *what)
{
    struct fault fault;

    server->stats.timeouts++;
    if (!conn->request_id_len)
        name_request(conn);
    fault_set(&fault, FAULT_SLOW, "", "The request's %s did not arrive in time.", what);
    refuse(server, conn, &fault);
}

/* Which deadline of the connection has passed; true when something was done about it. */
static bool enforce_deadlines(struct server *server, struct conn *conn)
{
    bool begun = conn->phase == CONN_HEAD && conn->in_len;
    u64 phase_max_s = begun                      ? HEAD_TIMEOUT_S
                      : conn->phase == CONN_HEAD ? IDLE_TIMEOUT_S
                      : conn->phase == CONN_BODY ? BODY_TOTAL_TIMEOUT_S
                                                 : UINT32_MAX;
    bool over = passed(conn->since_ns, phase_max_s);

    if (conn->out.len && passed(conn->moved_ns, SEND_STALL_TIMEOUT_S)) {
        server->stats.stalls++;
        conn_drop(server, conn);
    } else if (conn->phase == CONN_RUN && conn->answer.stream && !conn->out.len &&
               passed(conn->moved_ns, PING_INTERVAL_S)) {
        answer_ping(server, conn);
    } else if (over && begun) {
        time_out(server, conn, "header");
    } else if (conn->phase == CONN_BODY && (over || passed(conn->moved_ns, BODY_IDLE_TIMEOUT_S))) {
        time_out(server, conn, "body");
    } else if (over) {
        conn_close(server, conn);
    } else {
        return false;
    }
    return true;
}
