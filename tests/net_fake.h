/*
 * net_fake.h: a server without a wire and without a model: streams in memory, whose every byte
 * and refusal a test decides, and a runtime that answers as it is told. For tests of the server
 * half only.
 */
#ifndef NOHOST_NET_FAKE_H
#define NOHOST_NET_FAKE_H

#include "net/priv.h"
#include "tests/test.h"

#define WIRE_BYTES (2 * MIB)
#define FAKE_RUNS  64u

struct wire {
    struct stream stream;
    char *in, *out; /* WIRE_BYTES each */
    usize in_len, in_at, out_len;
    usize recv_max;  /* bytes per recv call; 0: any */
    usize send_room; /* bytes the peer still takes */
    usize unacked;   /* what unsent() says */
    enum stream_state state;
    bool closed, aborted;
    struct server *server;
};

struct fake_run {
    u64 ticket; /* 0: free */
    u32 at;     /* events given */
};

struct fake {
    struct server *server;
    struct net_config config;
    struct ml_status status;
    struct ml_model_info info;
    /* What submit answers, and what it was given last. */
    err submit_error;
    struct ml_refusal refusal;
    struct ml_request request;
    char prompt[4096]; /* "role:content|" of messages, the text of parts, or ids */
    /* What each run answers: `tokens` pieces of text, then END. */
    const char *const *token;
    u32 token_count;
    bool hold; /* no event yet */
    err fail;  /* END says so after the tokens */
    struct fake_run run[FAKE_RUNS];
    struct ml_top top[ML_TOP_LOGPROBS_MAX];
    u64 tickets, cancelled;
};

void fake_open(struct fake *fake);
void fake_close(struct fake *fake);
u32 fake_running(const struct fake *fake);
/* Turns the server until it has nothing to do. */
void fake_settle(struct fake *fake);

/* Opens and accepts. */
void wire_open(struct fake *fake, struct wire *wire);
/* The peer and the test's memory go. */
void wire_close(struct wire *wire);
void wire_feed(struct wire *wire, struct str bytes);
struct str wire_out(const struct wire *wire);
/* The status of the first answer in it, 0 when there is none. */
u32 wire_status(const struct wire *wire);
/* What follows the first head. */
struct str wire_body(const struct wire *wire);
bool wire_has(const struct wire *wire, const char *text);
/* Fails when the text is not one JSON document. */
void expect_json(struct str text);

/* A fresh connection, one request, the settled answer in *wire. */
void fake_ask(struct fake *fake, struct wire *wire, struct str request);
/* POST with the headers that it needs. */
void fake_post(struct fake *fake, struct wire *wire, const char *path, struct str body);

#endif
