/*
 * priv.h: what the files of the server half share, from the wire up. It knows nothing of lwIP, the
 * other half (stack.h) nothing of HTTP; `struct stream` is between.
 */
#ifndef NOHOST_NET_PRIV_H
#define NOHOST_NET_PRIV_H

#include "net/json.h"
#include "net/net.h"

/* ---- every bound and every patience; docs/API.md repeats those that a client can meet ---- */

#define HTTP_HEAD_BYTES_MAX   (16 * KIB)
#define HTTP_FIELD_BYTES_MAX  (8 * KIB)
#define HTTP_FIELDS_MAX       100u
#define HTTP_TARGET_BYTES_MAX 2048u
#define HTTP_BODY_BYTES_MAX   (1 * MIB)
#define HTTP_READ_AHEAD_BYTES (4 * KIB) /* room behind the head for the body's next bytes */
#define HTTP_CHUNK_LINE_MAX   256u      /* size and extension of one chunk; a trailer line */
#define HTTP_CHUNK_DIGITS_MAX 8u
#define REQUEST_ID_BYTES_MAX  64u
#define JSON_NODES_MAX        65536u
#define MESSAGES_MAX          4096u
#define SMALL_BYTES           (32 * KIB)  /* every connection's own room for a body, and to send */
#define OUT_BYTES_MAX         (256 * KIB) /* behind one client that does not read */
#define LARGE_BODIES          3u          /* at a time; the next gets 503 */
#define LARGE_OUTS            12u

#define HEAD_TIMEOUT_S       10u
#define IDLE_TIMEOUT_S       60u /* keep-alive, no byte of a next request */
#define BODY_IDLE_TIMEOUT_S  30u
#define BODY_TOTAL_TIMEOUT_S 120u
#define SEND_STALL_TIMEOUT_S 30u
#define PING_INTERVAL_S      10u
#define ACT_TIMEOUT_S        2u /* reset and power-off wait this long for their answer to leave */

/* ---- stream: bytes of one connection; plain TCP today, TLS tomorrow, memory in tests ---- */

enum stream_state {
    STREAM_OPEN,
    STREAM_PEER_DONE, /* the peer sends no more (FIN); it may still read */
    STREAM_GONE,      /* reset or timed out: nothing can be sent any more */
};

struct stream {
    const struct stream_ops *ops;
    char peer[48]; /* its address, for the log */
};

struct stream_ops {
    /* Up to cap bytes that have arrived; 0: none now. Reading opens the receive window. */
    usize (*recv)(struct stream *stream, void *out, usize cap);
    /* Sends up to len bytes, returns how many; the caller offers the rest again. */
    usize (*send)(struct stream *stream, const void *data, usize len);
    usize (*unsent)(struct stream *stream); /* bytes that the peer has not acknowledged yet */
    enum stream_state (*state)(struct stream *stream);
    /* The stream is never used again. Close lets what was sent arrive, and throws away what still
     * comes so that no reset overtakes it; abort is a reset at once. */
    void (*close)(struct stream *stream);
    void (*abort)(struct stream *stream);
};

/* ---- http.c: RFC 9112 as pure functions over bytes ---- */

// clang-format off
enum { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_OPTIONS, HTTP_PUT, HTTP_DELETE, HTTP_PATCH,
       HTTP_METHODS };
extern const char *const http_method_names[HTTP_METHODS];

/* The fields that steer us; two of one before CONNECTION could mean two things: refused. */
enum { FIELD_HOST, FIELD_CONTENT_LENGTH, FIELD_TRANSFER_ENCODING, FIELD_EXPECT,
       FIELD_AUTHORIZATION, FIELD_CONTENT_TYPE, FIELD_CONNECTION, FIELD_REQUEST_ID, FIELD_COUNT };

enum http_step { HTTP_MORE, HTTP_DONE, HTTP_BAD };
enum http_body { BODY_UNKNOWN, BODY_LENGTH, BODY_SIZE_LINE, BODY_CHUNK, BODY_CHUNK_END,
                 BODY_TRAILER, BODY_DONE };
// clang-format on

/* Zero it before the first byte of a request. Slices point into the caller's bytes. */
struct http_request {
    usize scanned, line_start; /* how far the head's bytes have been read */
    u32 lines, method, minor;
    struct str path; /* the target without query, scheme and authority */
    struct str field[FIELD_COUNT];
    bool keep_alive, said_close, wants_continue;
    enum http_body body; /* what comes next of it */
    u64 left, total;     /* of this chunk or of the whole; data bytes so far */
    u32 status;          /* HTTP_BAD: what to answer, and why */
    const char *why;
};

/* `bytes` is all since the request's first byte; HTTP_DONE: line_start is the head's length. */
enum http_step http_head_read(struct http_request *request, struct str bytes);
/* Takes *used bytes from the front; *data is the part of them that belongs to the body. HTTP_MORE
 * with *used == 0: nothing can be done before more arrives. */
enum http_step http_body_read(struct http_request *request, struct str bytes, usize *used,
                              struct str *data);
/* Visible ASCII and nothing else, nor `except`. */
bool http_visible(struct str text, char except);

/* ---- server.c: connections -> http -> api -> events back ---- */

enum conn_phase {
    CONN_FREE,
    CONN_HEAD, /* between requests, or inside a request's head */
    CONN_BODY,
    CONN_RUN,  /* a ticket of the runtime is out; events become the answer */
    CONN_SEND, /* the answer is complete in `out` */
};

/* Bytes that wait: in the connection's own room or, when they are more, on a place of the pool. */
struct buffer {
    char *ptr; /* zeroed: empty */
    usize len, cap;
    struct pool *pool;
    char small[SMALL_BYTES];
};
/* All of it or, when there is no room, nothing. */
bool buffer_put(struct buffer *buffer, struct str bytes);
void buffer_empty(struct buffer *buffer);

/* An answer of the runtime in the making: answer.c. */
struct answer {
    u64 ticket;
    const struct form *form;
    bool stream, include_usage, logprobs;
    char id[40];
    i64 created_unix_s;
    u64 text_offset; /* /v1/completions: characters before this token */
};

struct conn {
    struct server *server;
    struct stream *stream;
    enum conn_phase phase;
    struct http_request request;
    const struct route *route;
    usize in_len, head_len;
    struct buffer body, out;
    usize ready; /* bytes at the front of `out` that may leave; behind them is kept for later */
    struct answer answer;
    u64 since_ns; /* when the phase began */
    u64 moved_ns; /* when bytes last moved */
    char request_id[REQUEST_ID_BYTES_MAX + 1];
    bool close_after; /* no further request on this connection */
    char in[HTTP_HEAD_BYTES_MAX + HTTP_READ_AHEAD_BYTES];
};

/* Memory from pages_alloc. `ml` may still be loading for a long time: /health says so. */
struct server;
err server_open(struct server **server, const struct net_config *config, struct ml *ml);
void server_close(struct server *server);
/* A new connection; false when every place is taken: the transport then aborts it. */
bool server_accept(struct server *server, struct stream *stream);
/* Reads what has arrived, answers, moves ml events into responses, enforces deadlines. True when
 * there was work. */
bool server_poll(struct server *server);
u32 server_connections(const struct server *server);
/* Appends to what leaves on this connection; false: too much waits, the connection was dropped. */
bool conn_put(struct conn *conn, struct str bytes);
void conn_phase(struct conn *conn, enum conn_phase phase);
/* A reset; gives back everything, a running request is cancelled. */
void conn_drop(struct conn *conn);

/* ---- reply.c: whole answers; what the client did wrong, or why we cannot serve it now ---- */

// clang-format off
/*    name            status  type                     code                       Retry-After s */
#define FAULT_TABLE(X)                                                                          \
    X(BAD_HTTP,        400, "invalid_request_error", "bad_http", 0)                             \
    X(BAD_JSON,        400, "invalid_request_error", "invalid_json", 0)                         \
    X(MISSING,         400, "invalid_request_error", "missing_required_parameter", 0)           \
    X(TYPE,            400, "invalid_request_error", "invalid_type", 0)                         \
    X(VALUE,           400, "invalid_request_error", "invalid_value", 0)                        \
    X(UNSUPPORTED,     400, "invalid_request_error", "unsupported_parameter", 0)                \
    X(TEMPLATE,        400, "invalid_request_error", "chat_template_error", 0)                  \
    X(CONTEXT,         400, "invalid_request_error", "context_length_exceeded", 0)              \
    X(NO_KEY,          401, "authentication_error",  "missing_api_key", 0)                      \
    X(BAD_KEY,         401, "authentication_error",  "invalid_api_key", 0)                      \
    X(FORBIDDEN,       403, "permission_error",      "privileged_route_disabled", 0)            \
    X(NO_ROUTE,        404, "invalid_request_error", "unknown_url", 0)                          \
    X(NO_MODEL,        404, "invalid_request_error", "model_not_found", 0)                      \
    X(METHOD,          405, "invalid_request_error", "method_not_allowed", 0)                   \
    X(SLOW,            408, "invalid_request_error", "request_timeout", 0)                      \
    X(BODY_SIZE,       413, "invalid_request_error", "request_too_large", 0)                    \
    X(TARGET_SIZE,     414, "invalid_request_error", "uri_too_long", 0)                         \
    X(MEDIA,           415, "invalid_request_error", "unsupported_media_type", 0)               \
    X(EXPECT,          417, "invalid_request_error", "expectation_failed", 0)                   \
    X(QUEUE_FULL,      429, "rate_limit_error",      "queue_full", 1)                           \
    X(HEAD_SIZE,       431, "invalid_request_error", "request_header_fields_too_large", 0)      \
    X(INTERNAL,        500, "server_error",          "internal_error", 0)                       \
    X(NOT_IMPLEMENTED, 501, "invalid_request_error", "not_implemented", 0)                      \
    X(LOADING,         503, "server_error",          "model_loading", 1)                        \
    X(FAILED,          503, "server_error",          "model_failed", 0)                         \
    X(OVERLOADED,      503, "server_error",          "overloaded", 1)                           \
    X(DEVICE,          503, "server_error",          "device_failed", 5)                        \
    X(VERSION,         505, "invalid_request_error", "http_version_not_supported", 0)
#define FAULT_ENUM(name, status, type, code, retry) FAULT_##name,
enum fault_kind { FAULT_TABLE(FAULT_ENUM) FAULT_COUNT };
#undef FAULT_ENUM
// clang-format on

struct fault {
    enum fault_kind kind;
    char param[64]; /* "": null */
    char text[240];
    u32 prompt_tokens, ctx_max; /* with FAULT_CONTEXT */
};

/* Fills server->fault and returns false, so that a check can `return fault_set(...)`. */
__attribute__((format(printf, 4, 5))) bool fault_set(struct server *server, enum fault_kind kind,
                                                     const char *param, const char *format, ...);
/* What http.c found. */
bool fault_from_http(struct server *server, const struct http_request *request);
/* A refusal or a failure of the runtime, in the client's words; `param` held the prompt. */
bool fault_from_ml(struct server *server, err why, const char *param,
                   const struct ml_refusal *refusal);
/* {"error":{...}} of server->fault. */
void fault_json(struct server *server, struct text *out);

/* server->line, empty: for the one answer, chunk or page being written. */
struct text *reply_line(struct server *server);
#define REPLY_STREAM UINT64_MAX /* chunks, or in HTTP/1.0 until the connection ends */
/* The head alone; the caller appends the `length` bytes that it announces. `fields` are its status,
 * and whole lines with CRLF; type NULL: no body. */
bool reply_head(struct conn *conn, const char *fields, const char *type, u64 length);
bool reply_send(struct conn *conn, const char *fields, const char *type, struct str body);
/* 200 with server->line; true. */
bool reply_ok(struct conn *conn, const char *type);
/* server->fault. When the request was not read to its end, what follows cannot be trusted to be
 * one: the connection ends. */
void reply_fault(struct conn *conn);

/* ---- api.c: routes and the gate before them ---- */

/* At the end of the head: may this request be read? Sets conn->route. */
bool api_admit(struct conn *conn);
void api_put_allow(struct text *out, const struct route *route);
/* At the end of the body: answers, or submits and leaves the rest to answer.c. */
void api_answer(struct conn *conn);

/* ---- request.c: the body of a generation request ---- */

struct api_request {
    struct ml_request ml;
    bool chat, stream, include_usage, stream_options;
    i32 max_tokens, max_completion_tokens, top_k, top_logprobs, text_logprobs;
};

/* server->json -> server->request; its text points into the body. */
bool request_read(struct server *server, bool chat);
bool request_model_known(struct server *server, struct str name);

/* ---- answer.c: ml events -> chunks of a stream, or one whole answer ---- */

/* To server->request. */
void answer_start(struct conn *conn, u64 ticket);
void answer_event(struct conn *conn, const struct ml_event *event);
/* A comment that keeps proxies from giving up during a long prefill. */
void answer_ping(struct conn *conn);

void metrics_write(struct server *server, struct text *out); /* metrics.c */

struct server_ml { /* ml.h's functions, or a test's */
    void (*status)(const struct ml *ml, struct ml_status *status);
    const struct ml_model_info *(*model_info)(const struct ml *ml);
    err (*submit)(struct ml *ml, const struct ml_request *request, u64 *ticket,
                  struct ml_refusal *refusal);
    void (*cancel)(struct ml *ml, u64 ticket);
    bool (*event_next)(struct ml *ml, struct ml_event *event);
    void (*stats)(const struct ml *ml, struct ml_stats *stats);
};

struct server {
    const struct net_config *config;
    struct ml *ml;
    const struct server_ml *on;
    struct conn conn[NET_CONNECTIONS_MAX];
    struct pool in_pool, out_pool;
    struct server_stats {
        u64 accepted, refused, timeouts, stalls, disconnects, bad_http;
        u64 replies[6]; /* by first digit of the status */
    } stats;
    /* Scratch of the one request that is being looked at. */
    struct text line;
    struct json_doc json;
    struct ml_part part;
    struct api_request request;
    struct fault fault;
    /* Reset or power-off, once its answer has left. */
    void (*act)(void);
    struct conn *act_after;
    u64 act_deadline_ns;
    struct ml_message message[MESSAGES_MAX];
    struct json node[JSON_NODES_MAX];
    u32 token[JSON_NODES_MAX];
    char line_bytes[OUT_BYTES_MAX];
    _Alignas(16) u8 large[LARGE_BODIES * HTTP_BODY_BYTES_MAX + LARGE_OUTS * OUT_BYTES_MAX];
};

#endif
