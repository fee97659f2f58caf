/*
 * model_priv.h: between the files of the model: what the file and the configuration say, the graph
 * of one step, and where its weights come from.
 */
#ifndef NOHOST_MODEL_PRIV_H
#define NOHOST_MODEL_PRIV_H

#include "ml/model.h"
#include "ml/mathf.h"
#include "ml/quant.h"

#define MODEL_LAYERS_MAX 256u
#define MODEL_CTX_MAX    131072u

/* ---- hyper.c ---- */

struct hyper { /* in the file's terms */
    struct model_shape shape;
    f32 norm_epsilon, rope_base, rope_scale; /* scale: positions are divided by it */
    u32 rope_dims;                           /* of head_dim that turn */
    enum dtype kv_type;                      /* of the KV pool */
    struct target target;                    /* decides the packing of the weights */
    u32 layer_first, layer_end;              /* of the part of the model that one device computes */
};

err hyper_read(const struct gguf *gguf, struct hyper *hyper, struct text *why);
/* Then what the configuration and the device decide. */
void hyper_limit(struct hyper *hyper, const struct ml_config *config, u32 outputs_max,
                 struct target target);
/* Fills the tables of cosines and sines, [ctx_max][head_dim / 2] each, from the frequencies that
 * the file asks for. */
err rope_tables(const struct gguf *gguf, const struct hyper *hyper, f32 *cosines, f32 *sines,
                struct text *why);

/* ---- pack.c: from the block formats of a file to what compiled code reads (`struct packing`,
 * compile.h), one row tile at a time, so that loading streams; packing_row.c of the tests reads it
 * back ---- */

#define PACK_TILE_MAX 32u

/* The layout for weights of this format on that target. */
struct packing packing_for(const struct quant_format *format, const struct target *target);
/* row[i]: bytes of row i of the tile in the file's format; NULL: a row of zeros. Writes one row
 * tile to out. */
void pack_tile_rows(const struct packing *packing, const struct quant_format *format,
                    const u8 *const row[PACK_TILE_MAX], u32 columns, u8 *out);

/* ---- model_graph.c ---- */

struct weight { /* of a tensor of the file */
    bool used;
    bool pairs_to_halves; /* the file pairs rows (2i, 2i+1) of a head, the graph (i, i + half) */
    u32 external;
};

/* Externals that the engine or the model fills. */
struct graph_io {
    u32 token, position, slot, kv_write, kv_index, out_row; /* token: of the first part */
    u32 hidden;                                             /* of the others, f32 [rows, embed] */
    u32 rope_cos, rope_sin, rope_sign;
    u32 kv[2 * MODEL_LAYERS_MAX]; /* keys and values of layer l: 2 l, 2 l + 1 */
    struct weight *weight;        /* the caller's, zeroed, by the number of the tensor */
};

enum { SYM_ROWS, SYM_OUTPUTS };
err model_graph(const struct gguf *gguf, const struct hyper *hyper, struct graph *graph,
                struct graph_io *io, struct text *why);

/* ---- model.c ---- */

#define ROPE_TABLES 3u

struct memory { /* of an external */
    bool placed;
    struct packing packing; /* of a matrix */
    bool is_matrix;
};

struct table { /* of rotary positions, on its way to the device */
    u32 external;
    const f32 *from;
    u64 bytes, done;
};

/* The whole model on one device, or its part of consecutive layers: then the first part stands for
 * all of them. */
struct model {
    struct hyper hyper;
    struct model *first, *next; /* part */
    struct model *at;           /* of the first: the part that computes the step */
    f32 *hidden;                /* input of all but the first part */
    u32 rows, outputs;          /* of the step */
    struct gguf *gguf;
    struct device *cores, *device; /* who packs weights, who runs steps; may be the same */
    struct loaded *loaded, *few;   /* few: for ROWS_FEW, or NULL; it shares all memory */
    struct loaded *run;            /* the last that was started */
    struct graph_io io;
    struct memory memory[EXTERNALS_MAX];
    struct model_batch batch;
    bool f32_activations;
    u32 tensor_at, row_at;         /* what is being loaded; its first row that is still to do */
    u32 group_rows, group_count;   /* rows of a group; groups in flight on the device */
    err load_status;               /* of a group that failed */
    u64 weights_done, weights_all; /* bytes of the file */
    u8 *staging;                   /* a group's rows as in the file, for each worker */
    usize staging_stride;
    u32 forget_at; /* of keys and values of all layers, in a model_forget that goes on */
    u64 window_bytes;
    u8 *window; /* where what is packed goes */
    f32 *rope;  /* NULL: the tables are not made */
    struct table table[ROPE_TABLES];
    bool rope_done;
};

/* ---- model_load.c ---- */

u64 model_kv_layer_bytes(const struct model *model);
u64 model_tensor_bytes(const struct model *model, u32 idx); /* on the device */
err model_staging(struct model *model);                     /* memory to load with; E_NOMEM */

#endif
