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

#endif
