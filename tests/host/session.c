/*
 * session.c: drives ml/model.h with one sequence in slot 0. Position p lives in row p of the KV
 * pool: no paging is needed for one sequence. A step takes as many rows as the model allows.
 */
#include <stdlib.h>

#include "tests/host/card.h"
#include "tests/host/session.h"

#define ARENA_BYTES (512 * MIB) /* touched only as far as the metadata reach */

static void load(struct session *session, struct text *why);

void session_open(struct session *session, const char *path, const struct ml_config *config,
                  u32 outputs_max)
{
    static char words[400];
    struct text why = TEXT_ON(words);
    struct ml_config one = *config;
    struct model_config wanted = {.limits = &one, .outputs_max = outputs_max};
    u32 parts = tool_model(path, session->part);

    one.slots = 1;
    wanted.gpu = config->gpu;
    wanted.gpu_count = config->gpu_count;
    session->arena = tool_arena(ARENA_BYTES);
    if (gguf_open(&session->gguf, session->part, parts, &session->arena, &why) != OK ||
        tokenizer_open(&session->tok, &session->gguf, &session->arena, &why) != OK ||
        device_open(&wanted.cores, config->threads) != OK ||
        model_open(&session->model, &session->gguf, &wanted, &why) != OK)
        tool_fail("%s: %.*s", path, (int)why.len, why.ptr);
    load(session, &why);
    session->vocab = model_shape(session->model)->vocab;
    session->ctx_max = model_shape(session->model)->ctx_max;
    session->rows_max = model_shape(session->model)->rows_max;
    for (u32 i = 0; i < session->ctx_max; i++)
        model_batch(session->model)->kv_index[i] = (i32)i;
}

static void load(struct session *session, struct text *why)
{
    bool done = false;
    u32 percent;

    while (!done) {
        if (model_load(session->model, time_ns() + NS_PER_S, &done, &percent, why) != OK)
            tool_fail("loading: %.*s", (int)why->len, why->ptr);
        card_turn();
    }
}

void session_run(struct session *session, const struct stretch *part, session_take *take,
                 void *ctx)
{
    struct model_batch *batch = model_batch(session->model);
    u32 end = part->first + part->count;
    u32 outputs_max = model_shape(session->model)->outputs_max;

    if (end > session->ctx_max)
        tool_fail("%u tokens do not fit the context of %u", end, session->ctx_max);
    for (u32 at = part->first, rows; at < end; at += rows) {
        u32 outputs = 0, unasked = part->wanted > at ? part->wanted - at : 0;
        rows = min_u32(min_u32(end - at, session->rows_max), unasked + outputs_max);
        for (u32 i = 0; i < rows; i++) {
            batch->token[i] = (i32)part->token[at - part->first + i];
            batch->position[i] = batch->kv_write[i] = (i32)(at + i);
            batch->slot[i] = 0;
            if (i >= unasked)
                batch->out_row[outputs++] = (i32)i;
        }
        model_start(session->model, rows, outputs);
        err e;
        while ((e = model_advance(session->model, time_ns() + NS_PER_S)) == E_BUSY)
            card_turn();
        if (e != OK)
            tool_fail("a step: %s", err_text(e));
        for (u32 i = 0; i < outputs; i++)
            take(ctx, at + (u32)batch->out_row[i], model_logits(session->model, i));
    }
}

u32 *session_tokens(struct session *session, struct str text, u32 *count)
{
    struct ml_part part = {ML_PART_USER, text};
    struct arena scratch = tool_arena(TOKEN_SCRATCH_BYTES(text.len));
    struct token_list list = {.max = (u32)min_u64(text.len + 1, UINT32_MAX)};

    list.token = malloc(list.max * sizeof *list.token);
    if (!list.token || tokenizer_encode(session->tok, &scratch, &part, 1, &list) != OK)
        tool_fail("the text can not be tokenized");
    free(scratch.base);
    *count = list.count;
    return list.token;
}
