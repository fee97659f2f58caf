/*
 * priv.h: what the files of the runtime share: the chat template, the sampler, the batch, the
 * engine. Prototypes stand in the order in which a request meets them.
 */
#ifndef NOHOST_ML_PRIV_H
#define NOHOST_ML_PRIV_H

#include "ml/gguf.h"
#include "ml/jinja.h"
#include "ml/tokenizer.h"

/* ---- chat.c: messages -> typed text, by the model's own template ---- */

struct chat {
    struct str source; /* empty: neither a template in the file nor ChatML's tokens */
    struct str bos, eos;
};

/* Copies what it needs into the arena; E_NOMEM. A file without a template gets ChatML's when its
 * vocabulary has the two tokens. */
err chat_open(struct chat *chat, const struct gguf *gguf, const struct tokenizer *tok,
              struct arena *arena);
/* What to render; the time is the machine's. */
struct jinja_env chat_env(const struct chat *chat, const struct ml_message *message, u32 count,
                          bool add_generation_prompt);

/* ---- sampler.c: logits -> token ---- */

struct rng {
    u64 s[4];
};

/* From the request's seed, or from random_bytes. */
void rng_start(struct rng *rng, const struct ml_sampling *how);

#define SAMPLER_BUCKETS 1024u
struct sampler { /* scratch, one for all sequences */
    u32 vocab;
    f32 *weight; /* [vocab] */
    u32 *member; /* [vocab] tokens of one bucket */
    u32 count[SAMPLER_BUCKETS];
    f64 mass[SAMPLER_BUCKETS];
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

#endif
