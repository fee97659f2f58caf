/*
 * ml.h: the model runtime as the server sees it: requests in, events out, by slot. Knows nothing of
 * HTTP. One thread of control calls everything here; ml_step does a bounded slice of work and
 * returns.
 */
#ifndef NOHOST_ML_H
#define NOHOST_ML_H

#include "kernel/base.h"

/* The model's bytes come through `struct store` of base.h: extents, never a resident pointer. */

struct gpu;
/* AUTO: a card, or the cores when there is none that starts and has room. */
enum ml_device { ML_DEVICE_AUTO, ML_DEVICE_CPU, ML_DEVICE_GPU };

#define ML_LANES_MAX 8u  /* copies of the model, one a card */
#define ML_PARTS_MAX 64u /* split GGUF files, or extents of one */

struct ml_config {
    struct store *part; /* one GGUF, or all parts of a split one in order */
    u32 part_count;
    const char *model_id; /* as the API names it; NULL: from general.name or the file's name */
    u32 ctx_max;          /* tokens per sequence; 0: the model's, at most ML_CTX_DEFAULT_MAX */
    u32 slots;            /* concurrent sequences; 0: ML_SLOTS_DEFAULT */
    u32 kv_tokens; /* size of the KV pool in tokens; 0: slots * ctx_max, or what memory allows */
    u32 threads;   /* cores that compute, 0: all */
    struct gpu *const *gpu; /* cards that may still be starting; turned by the caller */
    u32 gpu_count;
    enum ml_device device;
    bool split_layers; /* over all cards; else a copy on each, unless a copy is too large */
    bool f32_activations; /* plain float32 products and KV instead of int8 activations: the accuracy
                             witness of the host tool */
};

#define ML_CTX_DEFAULT_MAX   2048u
#define ML_SLOTS_DEFAULT     4u
#define ML_SLOTS_MAX         64u
#define ML_QUEUE_MAX         32u /* requests waiting for a slot; then E_BUSY */
#define ML_TOP_LOGPROBS_MAX  20u
#define ML_STOPS_MAX         16u
#define ML_STOP_BYTES_MAX    256u
#define ML_REQUEST_BYTES_MAX (1 * MIB) /* all text of one request */

/* ---- engine.c ---- */

struct ml;

/* Memory for everything comes from pages_alloc. Never reads the model yet: ml_step does, step by
 * step. */
err ml_open(struct ml **ml, const struct ml_config *config);

enum ml_state { ML_LOADING, ML_READY, ML_FAILED };

struct ml_status {
    enum ml_state state;
    const char
        *step;   /* "reading model", "repacking weights", "compiling", "ready", "no model file" */
    u32 percent; /* of that step */
    const char *reason; /* set when ML_FAILED: a sentence for the operator */
};
void ml_status(const struct ml *ml, struct ml_status *status);

struct ml_model_info { /* valid from ML_READY on */
    struct str id, architecture, quantisation;
    u64 parameters, file_bytes;
    u32 vocab, ctx_max, ctx_train, embed;
    i64 created_unix_s;
};
const struct ml_model_info *ml_model_info(const struct ml *ml);

/* ---- requests ---- */

struct ml_sampling {
    f32 temperature, top_p, min_p; /* 0 <= t <= 2, 0 < top_p <= 1, 0 <= min_p <= 1 */
    u32 top_k;                     /* 0: off */
    u64 seed;
    bool has_seed;
    u32 top_logprobs; /* how many alternatives each event carries */
    bool logprobs;
};

/* Typed text: TEMPLATE may hold special tokens, USER never can. */
enum ml_part_kind { ML_PART_TEMPLATE, ML_PART_USER };
struct ml_part {
    enum ml_part_kind kind;
    struct str text;
};

struct ml_message {
    struct str role, content;
};

struct ml_request {
    /* Exactly one of the three prompts: chat messages (rendered by the model's template), typed
     * parts, token ids. */
    const struct ml_message *message;
    u32 message_count;
    const struct ml_part *part;
    u32 part_count;
    const u32 *token;
    u32 token_count;
    u32 tokens_max; /* to generate; 0: until the context is full */
    bool ignore_eos;
    struct ml_sampling sampling;
    struct str stop[ML_STOPS_MAX];
    u32 stop_count;
};

/* Why a request was refused before it started. */
struct ml_refusal {
    err why; /* E_LIMIT: prompt over the context; E_BUSY: queue full; E_STATE: loading or failed;
              * E_FORMAT: template; E_RANGE: another value, as `text` says */
    u32 prompt_tokens, ctx_max; /* for E_LIMIT */
    char text[160];
};

/* Copies what it needs. On OK *ticket names the request in events (unique, never 0). Queued when no
 * slot is free. */
err ml_submit(struct ml *ml, const struct ml_request *request, u64 *ticket,
              struct ml_refusal *refusal);
/* The client went away: the slot and its KV pages are free at once, no further event comes. */
void ml_cancel(struct ml *ml, u64 ticket);
/* A bounded slice of loading or computing, at most about slice_us; never waits. Returns true when
 * there is more to do now. */
bool ml_step(struct ml *ml, u32 slice_us);

/* ---- events ---- */

enum ml_event_kind {
    ML_EVENT_START, /* admitted to a slot; prompt_tokens is known */
    ML_EVENT_TOKEN, /* one token; text may be empty while a character or a stop sequence is
                       undecided */
    ML_EVENT_END,   /* the last event of a ticket; text holds what was still held back */
};
enum ml_finish { ML_FINISH_NONE, ML_FINISH_STOP, ML_FINISH_LENGTH, ML_FINISH_ERROR };

struct ml_top {
    u32 token;
    f32 logprob;
    struct str text; /* the token's bytes */
};

struct ml_event {
    u64 ticket;
    enum ml_event_kind kind;
    struct str
        text; /* valid UTF-8, complete characters; valid until the next ml_step or ml_event_next */
    u32 token;
    struct str token_text; /* the token's own bytes, maybe half a character; for logprobs */
    f32 logprob;           /* natural log, of the untempered distribution */
    const struct ml_top *top;
    u32 top_count;
    enum ml_finish finish;
    err why; /* ML_FINISH_ERROR */
    u32 prompt_tokens, completion_tokens, cached_tokens;
    u64 prompt_ns, decode_ns; /* on END */
};

bool ml_event_next(struct ml *ml, struct ml_event *event);

/* ---- numbers for /metrics ---- */

struct ml_stats {
    u64 prompt_tokens_total, generated_tokens_total, requests_total, steps_total, cancelled_total,
        failed_total;
    u64 prompt_ns_total, decode_ns_total;
    u32 slots, slots_busy, queue_waiting;
    u32 kv_pages, kv_pages_used, kv_page_tokens;
    u64 weights_bytes, kv_bytes, program_bytes;
};
void ml_stats(const struct ml *ml, struct ml_stats *stats);

#endif
