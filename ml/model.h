/*
 * model.h: one model: architecture -> graph of one step -> program, its weights repacked, its KV
 * pool. The engine fills a batch, starts it, advances it, and reads logits. Knows nothing of
 * requests, text or slots' owners.
 */
#ifndef NOHOST_MODEL_H
#define NOHOST_MODEL_H

#include "ml/compile/compile.h"
#include "ml/device.h"
#include "ml/gguf.h"
#include "ml/ml.h"

#define MODEL_KV_PAGE_TOKENS  16u
#define MODEL_ROWS_MAX        256u /* tokens of one step: decode rows and prefill chunks together */
#define MODEL_MATRIX_ROWS_MAX 512u /* where a matrix instruction multiplies: fills a card's units  \
                                    */

struct model;

struct model_shape {
    u32 layers, embed, heads, kv_heads, head_dim, ffn, vocab;
    u32 ctx_train;
    u32 ctx_max;   /* tokens per sequence that this model instance serves */
    u32 slots;     /* rows of kv_index */
    u32 kv_tokens; /* rows of the KV pool, a multiple of MODEL_KV_PAGE_TOKENS */
    u32 rows_max, outputs_max;
    u64 parameters, weights_bytes, kv_bytes, program_bytes;
};

struct model_config {
    const struct ml_config *limits; /* ctx, slots, kv_tokens, threads, f32_activations */
    struct device *cores;           /* pack the weights */
    struct gpu *const *gpu;         /* READY cards that run it, each its share of the layers */
    u32 gpu_count;                  /* 0: the cores do */
    u32 outputs_max;                /* 0: slots */
};

/* Reads hyper-parameters, builds and compiles the graph, allocates memory. The gguf must outlive
 * loading. E_NOMEM: says what is missing; another device may have it. */
err model_open(struct model **model, struct gguf *gguf, const struct model_config *config,
               struct text *why);
const struct model_shape *model_shape(const struct model *model);

/* Repacks weights tile by tile until done or the deadline; the parts' bytes are released as they
 * are used. *done tells; *percent of all weights. */
err model_load(struct model *model, u64 deadline_ns, bool *done, u32 *percent, struct text *why);

/* The inputs of the next step; the engine writes them between runs. */
struct model_batch {
    i32 *token;    /* [rows_max] */
    i32 *position; /* [rows_max] position in its sequence, < ctx_max */
    i32 *slot;     /* [rows_max] row of kv_index that holds its sequence's pages */
    i32 *kv_write; /* [rows_max] row of the KV pool that takes this token's keys and values */
    i32 *kv_index; /* [slots][ctx_max] position -> row of the KV pool; kept across steps, must cover
                      0..position */
    i32 *out_row;  /* [outputs_max] rows whose logits are wanted */
};
struct model_batch *model_batch(struct model *model);

/* Zeroes rows of the KV pool, and what kernels left in memory of their own; the next step sees it.
 * E_BUSY: again with the same. Not while a step runs. */
err model_forget(struct model *model, u32 kv_row, u32 kv_rows);

/* rows >= 1, outputs <= outputs_max (0: a pure prefill step). Tokens of one sequence stand in order
 * of position. */
void model_start(struct model *model, u32 rows, u32 outputs);
/* E_BUSY: not yet. E_DEVICE: the device has lost the step. */
err model_advance(struct model *model, u64 deadline_ns);
/* OK: a step may be started. E_BUSY: the device recovers. E_STATE: it has lost the weights, so
 * model_reload, then model_load again. E_DEVICE: it is dead, for the reason in *why. */
err model_health(const struct model *model, struct text *why);
err model_reload(struct model *model);
bool model_keeps_file(const struct model *model); /* for that: the gguf must outlive the model */
/* [vocab] logits of output i; valid until the next start. */
const f32 *model_logits(const struct model *model, u32 output);

#endif
