/*
 * model_graph.c: the graph of one step of a llama-like model: rows of tokens, each at its own
 * position of its own sequence, through all layers to the logits of the wanted rows. Reads like the
 * forward pass; shapes stand beside it.
 */
#include "ml/model_priv.h"

struct build {
    const struct gguf *gguf;
    const struct hyper *hyper;
    struct graph *graph;
    struct graph_io *io;
    struct text *why;
    err status;
    dim rows;                    /* T */
    u32 position, index, length; /* nodes shared by all layers: [T], [T, ctx], [T,1,1,1,1] */
    u32 cosine, sine, sign;      /* [T,1,1,half] twice, [2,1] */
    u32 layer;                   /* or as many as there are */
    u32 table;                   /* of embeddings, where this part has it */
};

static dim d(u32 extent)
{
    return dim_of(extent);
}

/* ---- weights ---- */

static u32 external_of(const struct build *b, u32 node)
{
    return b->graph->node[node].source.external;
}

/* A matrix [rows, columns] or, with rows 0, a vector; of the layer, or of the whole model when
 * there is none. The file keeps columns first. */
static u32 weight(struct build *b, const char *part, u32 rows, u32 columns)
{
    char name[GGUF_NAME_BYTES_MAX];
    struct text text = TEXT_ON(name);

    if (b->layer < b->hyper->shape.layers)
        text_fmt(&text, "blk.%u.", b->layer);
    text_fmt(&text, "%s.weight", part);
    const struct gguf_tensor *t = gguf_tensor(b->gguf, text_str(&text));
    if (b->status != OK)
        return 0;
    if (!t || t->dim_count != (rows ? 2 : 1) || t->dim[0] != columns ||
        t->dim[1] != max_u32(rows, 1) || (!rows && t->format->unpack)) {
        b->status = gguf_refuse(
            b->why, E_FORMAT, "model: tensor %.*s is %s [%lu, %lu], expected %s [%u, %u]",
            (int)text.len, text.ptr, t ? t->format->name : "missing", t ? t->dim[0] : 0,
            t ? t->dim[1] : 0, rows ? "a matrix" : "floats", columns, max_u32(rows, 1));
        return 0;
    }
    struct external source = {.kind = OP_CONST, .name = t->name, .rank = 1, .shape = {d(columns)}};
    if (rows)
        source = (struct external){.kind = OP_WEIGHT,
                                   .name = t->name,
                                   .rank = 2,
                                   .packing = packing_for(t->format, &b->hyper->target),
                                   .shape = {d(rows), d(columns)}};
    u32 node = graph_source(b->graph, &source);
    bool turns = str_eq(str_of(part), STR("attn_q")) || str_eq(str_of(part), STR("attn_k"));
    b->io->weight[t - b->gguf->tensor] = (struct weight){true, turns, external_of(b, node)};
    return node;
}

/* ---- the pass ---- */

static u32 input(struct build *b, const char *name, const dim *shape, u32 rank, u32 *external)
{
    struct external source = {
        .kind = OP_INPUT, .name = str_of(name), .storage = DT_I32, .rank = (u8)rank};

    memcpy(source.shape, shape, rank * sizeof *shape);
    u32 node = graph_source(b->graph, &source);
    *external = external_of(b, node);
    return node;
}

/* Turns pairs (i, i + half) of each head by the position's angles: x * cos + swapped(x) * (-sin,
 * sin). */
static u32 rope(struct build *b, u32 x, u32 heads) /* [T, heads * dim] -> [T, heads, 2, half] */
{
    struct graph *g = b->graph;
    u32 half = b->hyper->shape.head_dim / 2;
    const dim split[] = {b->rows, d(heads), d(2), d(half)};
    u32 pairs = graph_reshape(g, x, split, 4);
    u32 swapped = graph_binary(g, OP_MUL, graph_flip(g, pairs, 1u << 2),
                               graph_binary(g, OP_MUL, b->sine, b->sign));

    return graph_binary(g, OP_ADD, graph_binary(g, OP_MUL, pairs, b->cosine), swapped);
}

/* Writes this step's rows into the layer's cache and reads every row of each sequence: [T, kv, 1,
 * ctx, dim]. */
static u32 cached(struct build *b, const char *kind, u32 value, u32 kv_write, u32 number)
{
    struct graph *g = b->graph;
    const struct model_shape *s = &b->hyper->shape;
    u32 half = s->head_dim / 2;
    struct external pool = {.kind = OP_STATE,
                            .storage = b->hyper->kv_type,
                            .rank = 4,
                            .shape = {d(s->kv_tokens), d(s->kv_heads), d(2), d(half)}};
    char name[32];
    struct text text = TEXT_ON(name);

    text_fmt(&text, "%s.%u", kind, b->layer);
    pool.name = arena_str(g->arena, text_str(&text));
    u32 state = graph_source(g, &pool);
    b->io->kv[2 * b->layer + number] = external_of(b, state);
    u32 rows = graph_gather(g, graph_scatter(g, state, kv_write, value),
                            b->index); /* [T, ctx, kv, 2, half] */
    const dim joined[] = {b->rows, d(s->ctx_max), d(s->kv_heads), d(s->head_dim)};
    const u8 order[] = {0, 2, 1, 3};
    const dim grouped[] = {b->rows, d(s->kv_heads), d(1), d(s->ctx_max), d(s->head_dim)};
    return graph_reshape(g, graph_permute(g, graph_reshape(g, rows, joined, 4), order), grouped, 5);
}

/* softmax(q k / sqrt(dim)) v over the first `length` positions of each row's own sequence. */
static u32 attention(struct build *b, u32 q, u32 keys, u32 values)
{
    struct graph *g = b->graph;
    const struct model_shape *s = &b->hyper->shape;
    u32 group = s->heads / s->kv_heads;
    f32 scale = 1.0f / mathf_sqrt((f32)s->head_dim);
    const dim query[] = {b->rows, d(s->kv_heads), d(group), d(1), d(s->head_dim)};
    const dim flat[] = {b->rows, d(s->heads * s->head_dim)};
    u32 product =
        graph_binary(g, OP_MUL, graph_reshape(g, q, query, 5), keys); /* [T, kv, group, ctx, dim] */
    u32 score = graph_binary(g, OP_MUL, graph_reduce(g, OP_REDUCE_SUM, product, 1u << 4, NO_NODE),
                             graph_scalar_f32(g, scale)); /* [T, kv, group, ctx, 1] */
    u32 most = graph_reduce(g, OP_REDUCE_MAX, score, 1u << 3, b->length);
    u32 share = graph_unary(g, OP_EXP, graph_binary(g, OP_SUB, score, most));
    u32 total = graph_reduce(g, OP_REDUCE_SUM, share, 1u << 3, b->length);
    u32 mixed =
        graph_reduce(g, OP_REDUCE_SUM, graph_binary(g, OP_MUL, share, values), 1u << 3, b->length);

    return graph_reshape(g, graph_binary(g, OP_DIV, mixed, total), flat, 2);
}

static u32 layer(struct build *b, u32 h, u32 kv_write) /* [T, embed] -> [T, embed] */
{
    struct graph *g = b->graph;
    const struct model_shape *s = &b->hyper->shape;
    u32 q_rows = s->heads * s->head_dim, kv_rows = s->kv_heads * s->head_dim;
    const dim kv_split[] = {b->rows, d(s->kv_heads), d(2), d(s->head_dim / 2)};
    u32 x = graph_rms_norm(g, h, weight(b, "attn_norm", 0, s->embed), b->hyper->norm_epsilon);
    u32 q = rope(b, graph_linear(g, x, weight(b, "attn_q", q_rows, s->embed)), s->heads);
    u32 k = rope(b, graph_linear(g, x, weight(b, "attn_k", kv_rows, s->embed)), s->kv_heads);
    u32 v =
        graph_reshape(g, graph_linear(g, x, weight(b, "attn_v", kv_rows, s->embed)), kv_split, 4);
    u32 keys = cached(b, "keys", k, kv_write, 0), values = cached(b, "values", v, kv_write, 1);
    u32 mixed = attention(b, q, keys, values);
    h = graph_binary(g, OP_ADD, graph_linear(g, mixed, weight(b, "attn_output", s->embed, q_rows)),
                     h);
    x = graph_rms_norm(g, h, weight(b, "ffn_norm", 0, s->embed), b->hyper->norm_epsilon);
    u32 up = graph_linear(g, x, weight(b, "ffn_up", s->ffn, s->embed));
    u32 gate = graph_linear(g, x, weight(b, "ffn_gate", s->ffn, s->embed));
    x = graph_binary(g, OP_MUL, graph_silu(g, gate), up);
    return graph_binary(g, OP_ADD, graph_linear(g, x, weight(b, "ffn_down", s->embed, s->ffn)), h);
}

static void shared_nodes(struct build *b)
{
    struct graph *g = b->graph;
    const struct model_shape *s = &b->hyper->shape;
    u32 half = s->head_dim / 2;
    const dim rows[] = {b->rows};
    const dim index[] = {d(s->slots), d(s->ctx_max)}, spread[] = {b->rows, d(1), d(1), d(half)};
    const dim length[] = {b->rows, d(1), d(1), d(1), d(1)};
    struct external table = {
        .kind = OP_CONST, .name = STR("rope.cos"), .rank = 2, .shape = {d(s->ctx_max), d(half)}};
    u32 cosines = graph_source(g, &table);
    table.name = STR("rope.sin");
    u32 sines = graph_source(g, &table);

    b->position = input(b, "position", rows, 1, &b->io->position);
    u32 slot = input(b, "slot", rows, 1, &b->io->slot);
    u32 pages = input(b, "kv_index", index, 2, &b->io->kv_index);
    b->io->rope_cos = external_of(b, cosines);
    b->io->rope_sin = external_of(b, sines);
    b->cosine = graph_reshape(g, graph_gather(g, cosines, b->position), spread, 4);
    b->sine = graph_reshape(g, graph_gather(g, sines, b->position), spread, 4);
    b->sign = graph_source(
        g, &(struct external){
               .kind = OP_CONST, .name = STR("rope.sign"), .rank = 2, .shape = {d(2), d(1)}});
    b->io->rope_sign = external_of(b, b->sign);
    b->index = graph_gather(g, pages, slot);
    b->length =
        graph_reshape(g, graph_binary(g, OP_ADD, b->position, graph_scalar_i32(g, 1)), length, 5);
}

static u32 embedding(struct build *b) /* [T, embed] */
{
    const struct model_shape *s = &b->hyper->shape;
    u32 token = input(b, "token", &b->rows, 1, &b->io->token);

    b->table = weight(b, "token_embd", s->vocab, s->embed);
    return graph_gather(b->graph, b->table, token);
}

/* What the part before has computed: [T, embed] */
static u32 hidden(struct build *b)
{
    struct external source = {.kind = OP_INPUT,
                              .name = STR("hidden"),
                              .storage = DT_F32,
                              .rank = 2,
                              .shape = {b->rows, d(b->hyper->shape.embed)}};
    u32 node = graph_source(b->graph, &source);

    b->io->hidden = external_of(b, node);
    return node;
}

static u32 head(struct build *b, u32 h) /* [T, embed] -> [O, vocab] */
{
    struct graph *g = b->graph;
    const struct model_shape *s = &b->hyper->shape;
    const dim outputs[] = {dim_sym(SYM_OUTPUTS)};
    bool tied = !gguf_tensor(b->gguf, STR("output.weight"));

    b->layer = s->layers;
    u32 out_row = input(b, "out_row", outputs, 1, &b->io->out_row);
    h = graph_rms_norm(g, graph_gather(g, h, out_row), weight(b, "output_norm", 0, s->embed),
                       b->hyper->norm_epsilon); /* [O, embed] */
    if (!tied || b->table == NO_NODE)
        b->table = weight(b, tied ? "token_embd" : "output", s->vocab, s->embed);
    return graph_linear(g, h, b->table);
}

err model_graph(const struct gguf *gguf, const struct hyper *hyper, struct graph *graph,
                struct graph_io *io, struct text *why)
{
    const struct model_shape *s = &hyper->shape;
    struct build b = {.gguf = gguf,
                      .hyper = hyper,
                      .graph = graph,
                      .io = io,
                      .why = why,
                      .layer = s->layers,
                      .table = NO_NODE};

    CHECK(graph_sym(graph, STR("rows"), s->rows_max) == SYM_ROWS);
    CHECK(graph_sym(graph, STR("outputs"), s->outputs_max) == SYM_OUTPUTS);
    b.rows = dim_sym(SYM_ROWS);
    const dim rows[] = {b.rows};
    u32 kv_write = input(&b, "kv_write", rows, 1, &io->kv_write);
    shared_nodes(&b);
    u32 h = hyper->layer_first ? hidden(&b) : embedding(&b);
    for (b.layer = hyper->layer_first; b.layer < hyper->layer_end && b.status == OK; b.layer++)
        h = layer(&b, h, kv_write);
    if (hyper->layer_end < s->layers)
        graph_output(graph, STR("hidden"), h);
    else
        graph_output(graph, STR("logits"), head(&b, h));
    if (b.status == OK && graph->status != OK)
        b.status = gguf_refuse(why, graph->status, "model: graph: %s", graph->why);
    return b.status;
}
