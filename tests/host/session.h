/*
 * session.h: one model and one sequence of tokens, for the commands that measure: every token is
 * given, logits come back position by position. No sampling, no server.
 */
#ifndef NOHOST_SESSION_H
#define NOHOST_SESSION_H

#include "ml/model.h"
#include "ml/tokenizer.h"
#include "tests/host/tool.h"

struct session {
    struct store part[ML_PARTS_MAX];
    struct gguf gguf;
    struct arena arena;
    struct model *model;
    struct tokenizer *tok;
    u32 vocab, ctx_max;
    u32 rows_max; /* of a step; session_open says the model's */
};

/* Loads the model; exits with a message when it can not. outputs_max: logits per step. */
void session_open(struct session *session, const char *path, const struct ml_config *config,
                  u32 outputs_max);

/* Tokens for positions first.. of the sequence; logits are wanted from position `wanted` on. */
struct stretch {
    const u32 *token;
    u32 count, first, wanted;
};
/* Logits of one position, valid during the call. */
typedef void session_take(void *ctx, u32 position, const f32 *logits);
/* What was run before stays the context of what is run now. */
void session_run(struct session *session, const struct stretch *part, session_take *take,
                 void *ctx);
/* The whole text as tokens, from malloc; exits when it can not. */
u32 *session_tokens(struct session *session, struct str text, u32 *count);

#endif
