/*
 * priv.h: what the files of net/ share: the stream face (bytes of one connection), the server, HTTP, JSON, API.
 * Wire-to-API order. The server half knows nothing of lwIP; the lwIP half knows nothing of HTTP; `struct stream` is between.
 */
#ifndef NOHOST_NET_PRIV_H
#define NOHOST_NET_PRIV_H

#include "kernel/base.h"
#include "ml/ml.h"
#include "net/net.h"

/* ---- stream: bytes in and out of one connection; plain TCP today, TLS tomorrow, a socket or a wire in memory in tests ---- */

enum stream_state {
    STREAM_OPEN,
    STREAM_PEER_DONE, /* the peer sends no more (FIN); it may still read */
    STREAM_GONE,      /* reset or timed out: nothing can be sent any more */
};

struct stream;
struct stream_ops {
    /* Up to cap bytes that have arrived; 0: none now. Reading opens the receive window. */
    usize (*recv)(struct stream *stream, void *out, usize cap);
    /* Takes up to len bytes for sending, returns how many; the rest is the caller's to offer again. */
    usize (*send)(struct stream *stream, const void *data, usize len);
    /* Sent bytes leave now rather than wait to be joined by more. */
    void (*push)(struct stream *stream);
    /* Bytes taken but not yet acknowledged by the peer: 0 means all has arrived. */
    usize (*unsent)(struct stream *stream);
    enum stream_state (*state)(struct stream *stream);
    /* Closes after what was taken is sent (close), or at once with a reset (abort). The stream is never used again. */
    void (*close)(struct stream *stream);
    void (*abort)(struct stream *stream);
};

struct stream {
    const struct stream_ops *ops;
    char peer[48]; /* address in text, for logs and limits per client */
};

/* ---- server.c: connections -> http -> api -> events back ---- */

struct server;

/* Memory from pages_alloc. `ml` may still be loading for a long time: /health says so. */
err server_open(struct server **server, const struct net_config *config, struct ml *ml);
/* A new connection; false when every place is taken: the transport then aborts it. */
bool server_accept(struct server *server, struct stream *stream);
/* Reads what has arrived, answers, moves ml events into responses, enforces deadlines. True when there was work. */
bool server_poll(struct server *server);
u32 server_connections(const struct server *server);
void server_close(struct server *server);

#endif
