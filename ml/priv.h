/*
 * priv.h: what the files of the runtime share: the chat template, the sampler, the batch, the
 * engine. Prototypes stand in the order in which a request meets them.
 */
#ifndef NOHOST_ML_PRIV_H
#define NOHOST_ML_PRIV_H

#include "ml/gguf.h"
#include "ml/jinja.h"
#include "ml/model.h"
#include "ml/tokenizer.h"

/* ---- chat.c: messages -> typed text, by the model's own template ---- */

/* The template and the texts of bos and eos, copied into the arena; E_NOMEM. A file without a
 * template gets ChatML's when its vocabulary has the two tokens, else the source is empty. */
err chat_open(struct jinja_env *chat, const struct gguf *gguf, const struct tokenizer *tok,
              struct arena *arena);

/* ---- sampler.c: logits -> token ---- */

struct rng {
    u64 state;
};

/* From the request's seed, or from random_bytes. */
void rng_start(struct rng *rng, const struct ml_sampling *how);

struct sampler { /* scratch, one for all sequences */
    u32 vocab;
    u64 *key; /* [vocab, rounded up to whole vectors] a token and its weight */
};

struct draw {
    u32 token;
    f32 logprob;
    struct ml_top top[ML_TOP_LOGPROBS_MAX]; /* best first; no text */
    u32 top_count;
};

err sampler_init(struct sampler *sampler, struct arena *arena, u32 vocab); /* E_NOMEM */
/* E_DEVICE: the logits are not numbers. Equal logits: the lowest token. */
err sampler_draw(struct sampler *sampler, const f32 *logit, const struct ml_sampling *how,
                 struct rng *rng, struct draw *draw);

/* ---- stream.c: bytes of tokens -> text that may be shown ---- */

/* What may be held back: a stop sequence but for its last byte, then a token, each byte of which
 * may become U+FFFD. */
#define STREAM_HELD_MAX (ML_STOP_BYTES_MAX + 3 * TOKEN_BYTES_MAX + 16)

struct utf8_stream { /* a character is never split */
    char held[4];
    u32 held_len;
};

struct stream {
    struct utf8_stream utf8;
    char stop[ML_STOPS_MAX][ML_STOP_BYTES_MAX];
    u32 stop_len[ML_STOPS_MAX], stop_count;
    char held[STREAM_HELD_MAX];
    u32 held_len;
};

/* E_RANGE: too many, too long or not UTF-8; empty stop sequences are left out. */
err stream_start(struct stream *stream, const struct str *stop, u32 stop_count);
/* Takes a token's bytes and appends what is decided to `out`. True: a stop sequence is complete,
 * the text before it is in `out` and nothing follows. */
bool stream_put(struct stream *stream, struct str bytes, struct text *out);
/* The end without a stop sequence: appends all that was held back. */
void stream_end(struct stream *stream, struct text *out);
/* Appends complete characters, holds back an unfinished one; what can never become one, or is held
 * at the end, is replaced by U+FFFD. */
void utf8_stream_put(struct utf8_stream *stream, struct str bytes, struct text *out);
void utf8_stream_end(struct utf8_stream *stream, struct text *out);

/* ---- batch.c: slots, KV pages, the queue, and the rows of a step ---- */

enum sequence_state { SEQUENCE_FREE, SEQUENCE_WAITING, SEQUENCE_RUNNING };

struct sequence { /* one request from submit to its end */
    enum sequence_state state;
    u64 ticket;
    struct ml_sampling sampling;
    struct rng rng;
    struct stream stream;
    bool ignore_eos;
    u32 *token;        /* [ctx_max] prompt, then what was drawn */
    u32 prompt, count; /* tokens of the prompt; of all */
    u32 count_max;     /* the end by length; its KV pages are reserved from the start */
    u32 computed;      /* tokens whose keys and values are in the pool */
    u32 rows, output;  /* in the step that runs: rows, and which logits (or BATCH_NONE) */
    struct lane *lane;
    u32 slot;
    u64 start_ns, first_ns; /* admitted; first token drawn */
};

#define BATCH_NONE 0xffffffffu
struct batch {
    u32 slots, ctx_max, page_count, page_free_count;
    u32 *page_free;                         /* a stack */
    bool *page_dirty;                       /* by page: holds what nobody may see again */
    u32 *page;                              /* [slots][pages of ctx_max] */
    struct sequence **running;              /* [slots], NULL: free */
    struct sequence *waiting[ML_QUEUE_MAX]; /* first come, first served */
    u32 waiting_count;
};

/* E_NOMEM. ctx_max is at most kv_tokens. */
err batch_init(struct batch *batch, struct arena *arena, const struct model_shape *shape);
void batch_wait(struct batch *batch, struct sequence *sequence); /* the queue must have room */
/* The next of the queue into a slot with all pages it may come to need; NULL when there is none or
 * no room. No step may run. */
struct sequence *batch_admit(struct batch *batch, struct model_batch *rows);
/* Out of the queue, or out of its slot, whose pages are free at once. */
void batch_leave(struct batch *batch, struct sequence *sequence);
/* Pages in a row that are to be zeroed before the next step; how many, 0: none. */
u32 batch_dirty(const struct batch *batch, u32 *first);
void batch_cleaned(struct batch *batch, u32 first, u32 count);
/* Fills the rows of a step: the newest token of each running sequence, then prompts, of which at
 * most `prefill_max` tokens. Returns the rows; 0: nothing to compute. */
u32 batch_plan(struct batch *batch, struct model_batch *rows, u32 rows_max, u32 prefill_max,
               u32 *outputs);

/* ---- the engine: load.c brings it up, engine.c runs it ---- */

struct event_place {
    struct ml_event event; /* ticket 0: cancelled meanwhile */
    char text[STREAM_HELD_MAX];
    struct ml_top top[ML_TOP_LOGPROBS_MAX];
};

#define EVENTS_PER_SLOT 3u /* of one step: START, TOKEN, END */

enum lane_state { LANE_OFF, LANE_LOADING, LANE_READY };

struct lane { /* one copy of the model, on cards of its own or on the cores */
    enum lane_state state;
    struct gpu *gpu[ML_LANES_MAX]; /* each has a part of the layers */
    u32 gpu_count;                 /* 0: the cores */
    struct model *model;
    struct batch batch;
    u32 forget_first, forget_count; /* pages that are being zeroed */
    bool running;                   /* a step is on the device */
    u32 step_rows;
    u64 step_start_ns, row_ns; /* what a row of a prompt took lately */
};

struct ml {
    struct ml_config config;
    enum ml_state state;
    bool loaded; /* once, well */
    u32 load_step, load_lane, percent;
    u64 load_deadline_ns;
    struct text reason;
    char reason_text[256];

    struct arena tables, vocabulary, work, scratch; /* tables: of the GGUF, only while loading */
    struct gguf gguf;
    struct tokenizer *tok;
    struct jinja_env chat; /* no messages in it */
    struct device *cores;
    struct ml_model_info info;

    struct lane lane[ML_LANES_MAX];
    u32 lane_count;
    struct sampler sampler;
    struct sequence *sequence; /* [slots + ML_QUEUE_MAX] */
    u32 sequence_count;
    u64 ticket_last;
    struct event_place *event; /* a ring */
    u32 event_first, event_count, event_max;

    struct ml_stats stats;
};

/* One slice of loading; true: there is more to do. */
bool load_advance(struct ml *ml, u64 deadline_ns);
/* Memory of sequences, events, sampler and scratch, once the model's shape is known; E_NOMEM. */
err engine_start(struct ml *ml);
/* A new event, with room for its text; there must be room. */
struct event_place *engine_event(struct ml *ml, const struct sequence *sequence,
                                 enum ml_event_kind kind);
/* The last one of a sequence; its slot and pages are free for the next. */
void engine_finish(struct ml *ml, struct sequence *sequence, enum ml_finish finish, err why);

/* ---- lane.c ---- */

/* A slice of a lane's work; true: there is more to do now. */
bool lane_step(struct ml *ml, struct lane *lane, u64 deadline_ns);
/* The READY lane with the fewest requests; NULL: none is. */
struct lane *lane_least(struct ml *ml);
void lane_wait(struct ml *ml, struct sequence *sequence); /* in the queue of that one */

#endif
