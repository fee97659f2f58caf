/*
 * rewrite.c: makes a graph smaller by rules. A sweep rebuilds the graph node by node; each node's
 * sources are final when the rules see it, so most of the work is done in one sweep, and equal
 * nodes fall together because the rebuilt graph is hash-consed as well. A rule never adds work: it
 * folds, drops, merges, or computes an element once instead of many times. So sweeping ends.
 * Results stay equal bit by bit, but for sums of sums, which round once less, and for what is done
 * so that kernels can be cut in tiles. Knows no machine but its tile.
 */
#include "ml/compile/priv.h"

#define SWEEPS_MAX 16u

/* An output is made of 4-byte elements: one that is a source of another storage needs an op that
 * reads it, and the larger of x and x is x. */
static void widen_outputs(struct graph *graph)
{
    for (u32 i = 0; i < graph->output_count; i++) {
        u32 source = graph->output[i];
        while (graph->node[source].op == OP_SCATTER)
            source = graph->node[source].src[0];
        bool stored = graph->node[source].op <= OP_STATE;
        if (stored && dtype_bytes(graph->node[source].source.storage) != 4)
            graph->output[i] = graph_binary(graph, OP_MAX, graph->output[i], graph->output[i]);
    }
}

/* What outputs need, and every scatter: it writes memory that outlives the run. */
static void mark_live(const struct graph *graph, u8 *live)
{
    for (u32 i = 0; i < graph->output_count; i++)
        live[graph->output[i]] = 1;
    for (u32 i = graph->node_count; i-- > 0;) {
        live[i] |= graph->node[i].op == OP_SCATTER;
        for (u32 s = 0; live[i] && s < graph->node[i].src_count; s++)
            live[graph->node[i].src[s]] = 1;
    }
}

/* Codes are kept where a linear multiplies them with weights in blocks of the same length; all
 * other users (NULL: an output) need the rounded values, and get them from plain operations. */
static u32 quant_for(struct graph *graph, const struct node *user, u32 src)
{
    const struct node *quant = &graph->node[src];
    u32 rank = quant->rank, block = quant->quant.block;
    dim shape[RANK_MAX + 1];

    if (quant->op != OP_QUANT)
        return src;
    if (user && user->op == OP_LINEAR) {
        u32 external = graph->node[user->src[1]].source.external;
        const struct packing *packing = &graph->external[external].packing;
        if (packing->code_bits && packing->block == block)
            return src;
    }
    memcpy(shape, quant->shape, sizeof quant->shape);
    shape[rank - 1] = dim_of((u32)shape[rank - 1].v / block);
    shape[rank] = dim_of(block);
    u32 x = graph_reshape(graph, quant->src[0], shape, rank + 1);
    u32 peak =
        graph_reduce(graph, OP_REDUCE_MAX, graph_unary(graph, OP_ABS, x), 1u << rank, NO_NODE);
    u32 zero = graph_scalar_f32(graph, 0), most = graph_scalar_f32(graph, QUANT_MOST);
    u32 inverse = graph_where(graph, graph_binary(graph, OP_LT, zero, peak),
                              graph_binary(graph, OP_DIV, most, peak), zero);
    u32 code = graph_unary(graph, OP_ROUND, graph_binary(graph, OP_MUL, x, inverse));
    u32 value = graph_binary(graph, OP_MUL, code, graph_binary(graph, OP_DIV, peak, most));
    return graph_reshape(graph, value, quant->shape, rank);
}

/* ---- rules: each looks at one node and returns what stands for it, or NO_NODE ---- */

static const struct node *source(const struct graph *graph, const struct node *node, u32 i)
{
    return &graph->node[node->src[i]];
}

static f32 f32_of(u32 bits)
{
    f32 value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static bool is_scalar(const struct graph *graph, u32 idx, u32 whole)
{
    const struct node *node = &graph->node[idx];

    if (node->op != OP_SCALAR)
        return false;
    return node->dtype == DT_F32 ? f32_of(node->scalar.bits) == (f32)whole
                                 : node->scalar.bits == whole;
}

/* A constant of this type and shape. */
static u32 scalar_like(struct graph *graph, const struct node *like, u32 bits)
{
    u32 scalar = like->dtype == DT_F32 ? graph_scalar_f32(graph, f32_of(bits))
                                       : graph_scalar_i32(graph, (i32)bits);

    return graph_expand(graph, scalar, like->shape, like->rank);
}

/* Sums, products and quotients of constants -> constant */
static u32 fold(struct graph *graph, const struct node *node)
{
    const struct node *a = source(graph, node, 0), *b = source(graph, node, 1);
    u32 p = a->scalar.bits, q = b->scalar.bits;
    f32 x = f32_of(p), y = f32_of(q);
    u32 which = (u32)node->op - OP_ADD;
    const f32 floats[] = {x + y, x - y, x * y, x / y}; /* as op.def has ADD, SUB, MUL, DIV */
    const u32 ints[] = {p + q, p - q, p * q, 0};

    _Static_assert(OP_DIV == OP_ADD + 3, "order of op.def");
    if (a->op != OP_SCALAR || b->op != OP_SCALAR || which >= ARRAY_LEN(ints))
        return NO_NODE;
    if (node->dtype == DT_I32)
        return scalar_like(graph, node, ints[which]);
    memcpy(&p, &floats[which], sizeof p);
    return scalar_like(graph, node, p);
}

/* x + 0, x - 0, x * 1, x / 1, x | 0, x ^ 0 -> x, from either side where the order is free */
static u32 drop_neutral(struct graph *graph, const struct node *node)
{
    bool one = node->op == OP_MUL || node->op == OP_DIV;
    bool zero = node->op == OP_ADD || node->op == OP_SUB || node->op == OP_OR || node->op == OP_XOR;
    bool ordered = node->op == OP_SUB || node->op == OP_DIV;

    if (!one && !zero)
        return NO_NODE;
    if (is_scalar(graph, node->src[1], one))
        return node->src[0];
    if (!ordered && is_scalar(graph, node->src[0], one))
        return node->src[1];
    return NO_NODE;
}

/* where(c, x, x) -> x, where(constant, x, y) -> x or y */
static u32 where_decided(struct graph *graph, const struct node *node)
{
    if (node->op != OP_WHERE)
        return NO_NODE;
    if (node->src[1] == node->src[2])
        return node->src[1];
    if (source(graph, node, 0)->op != OP_SCALAR)
        return NO_NODE;
    return node->src[source(graph, node, 0)->scalar.bits ? 1 : 2];
}

/* -(-x) -> x, |-x| and ||x|| -> |x| */
static u32 sign_twice(struct graph *graph, const struct node *node)
{
    const struct node *src = source(graph, node, 0);

    if (node->op == OP_NEG && src->op == OP_NEG)
        return src->src[0];
    if (node->op == OP_ABS && (src->op == OP_NEG || src->op == OP_ABS))
        return graph_unary(graph, OP_ABS, src->src[0]);
    return NO_NODE;
}

/* x / 2^n -> x * 2^-n, which is exact; 1 / x -> recip(x) */
static u32 divide_cheaply(struct graph *graph, const struct node *node)
{
    const struct node *by = source(graph, node, 1);
    u32 bits = by->scalar.bits, exponent = bits >> 23 & 0xff;

    if (node->op != OP_DIV)
        return NO_NODE;
    if (is_scalar(graph, node->src[0], 1))
        return graph_unary(graph, OP_RECIP, node->src[1]);
    if (by->op != OP_SCALAR || (bits & 0x7fffff) || exponent < 2 || exponent > 252)
        return NO_NODE;
    u32 inverse = graph_scalar_f32(graph, 1 / f32_of(bits));
    return graph_binary(graph, OP_MUL, node->src[0], inverse);
}

/* b + a -> a + b: both orders become one node */
static u32 sort_sources(struct graph *graph, const struct node *node)
{
    bool free = node->op == OP_ADD || node->op == OP_MUL || node->op == OP_EQ ||
                node->op == OP_AND || node->op == OP_OR || node->op == OP_XOR;

    if (!free || node->src[0] <= node->src[1])
        return NO_NODE;
    return graph_binary(graph, node->op, node->src[1], node->src[0]);
}

/* op(expand(a), expand(b), constant) -> expand(op(a, b, constant)): computes each element once */
static u32 expand_last(struct graph *graph, const struct node *node)
{
    dim small[RANK_MAX];
    u32 src[NODE_SRCS_MAX] = {};

    for (u32 axis = 0; axis < node->rank; axis++) {
        small[axis] = dim_of(1);
        for (u32 i = 0; i < node->src_count; i++) {
            const struct node *from = source(graph, node, i);
            from = from->op == OP_EXPAND ? source(graph, from, 0) : from;
            if (from->op != OP_SCALAR && from->shape[axis].v != 1)
                small[axis] = node->shape[axis];
        }
    }
    if (shape_same(small, node->rank, node->shape, node->rank))
        return NO_NODE;
    for (u32 i = 0; i < node->src_count; i++) {
        const struct node *from = source(graph, node, i);
        src[i] = from->op == OP_EXPAND ? from->src[0] : node->src[i];
        if (from->op == OP_SCALAR)
            src[i] = scalar_like(graph, &(struct node){.dtype = from->dtype}, from->scalar.bits);
    }
    return graph_expand(graph, graph_element(graph, node->op, src), node->shape, node->rank);
}

/* A move of a move of the same kind is one move; of a constant, none. */
static u32 merge_moves(struct graph *graph, const struct node *node)
{
    const struct node *src = source(graph, node, 0);
    u8 order[RANK_MAX];
    i32 begin[RANK_MAX];

    if (src->op == OP_SCALAR && node->op != OP_PAD)
        return scalar_like(graph, node, src->scalar.bits);
    if (src->op != node->op)
        return NO_NODE;
    for (u32 i = 0; i < node->rank; i++) {
        order[i] = src->permute.order[node->op == OP_PERMUTE ? node->permute.order[i] : 0];
        begin[i] = src->slice.begin[i] + node->slice.begin[i];
    }
    switch (node->op) {
    case OP_RESHAPE:
        return graph_reshape(graph, src->src[0], node->shape, node->rank);
    case OP_EXPAND:
        return graph_expand(graph, src->src[0], node->shape, node->rank);
    case OP_PERMUTE:
        return graph_permute(graph, src->src[0], order);
    case OP_SLICE:
        return graph_slice(graph, src->src[0], begin, node->shape);
    case OP_FLIP:
        return graph_flip(graph, src->src[0], src->flip.axes ^ node->flip.axes);
    default:
        return NO_NODE;
    }
}

/* Over axes of extent 1 -> the source; of a constant -> a constant; a sum of sums -> one sum */
static u32 merge_reductions(struct graph *graph, const struct node *node)
{
    const struct node *src = source(graph, node, 0);
    u64 count = 1;
    bool known = true;

    if (node->reduce.has_len)
        return NO_NODE;
    for (u32 i = 0; i < node->rank; i++)
        if (node->reduce.axes >> i & 1) {
            known &= !dim_is_sym(src->shape[i]);
            count *= known ? (u64)src->shape[i].v : 1;
        }
    if (known && count == 1)
        return node->src[0];
    if (src->op == node->op && !src->reduce.has_len)
        return graph_reduce(graph, node->op, src->src[0], src->reduce.axes | node->reduce.axes,
                            NO_NODE);
    if (src->op != OP_SCALAR || !known)
        return NO_NODE;
    if (node->op != OP_REDUCE_SUM)
        return scalar_like(graph, node, src->scalar.bits);
    if (node->dtype == DT_I32)
        return scalar_like(graph, node, src->scalar.bits * (u32)count);
    f64 sum = (f64)f32_of(src->scalar.bits) * (f64)count;
    return graph_expand(graph, graph_scalar_f32(graph, (f32)sum), node->shape, node->rank);
}

/* x times quantised weight -> x as whole numbers times quantised weight: integer products */
static u32 quantise_linear(struct graph *graph, const struct node *node)
{
    const struct node *weight = source(graph, node, 1);
    const struct packing *packing = &graph->external[weight->source.external].packing;

    if (packing->code_bits == 0 || source(graph, node, 0)->op == OP_QUANT ||
        weight->shape[1].v % packing->block)
        return NO_NODE;
    return graph_linear(graph, graph_quant(graph, node->src[0], packing->block), node->src[1]);
}

// clang-format off
static const struct rule {
    enum op_class class;
    bool int8_only;
    u32 (*apply)(struct graph *graph, const struct node *node);
    u32 (*apply_tiles)(struct graph *graph, const struct node *node, u32 tile);
} rules[] = {
    {CLASS_ELEMENT, false, fold,             NULL},
    {CLASS_ELEMENT, false, drop_neutral,     NULL},
    {CLASS_ELEMENT, false, where_decided,    NULL},
    {CLASS_ELEMENT, false, sign_twice,       NULL},
    {CLASS_ELEMENT, false, divide_cheaply,   NULL},
    {CLASS_ELEMENT, false, sort_sources,     NULL},
    {CLASS_ELEMENT, false, expand_last,      NULL},
    {CLASS_MOVE,    false, merge_moves,      NULL},
    {CLASS_REDUCE,  false, merge_reductions, NULL},
    {CLASS_REDUCE,  false, NULL,             tile_reduction},
    {CLASS_REDUCE,  false, NULL,             tile_softmax},
    {CLASS_LINEAR,  false, NULL,             tile_factor},
    {CLASS_LINEAR,  true,  quantise_linear,  NULL},
};
// clang-format on

static u32 apply_rules(struct graph *graph, const struct node *node,
                       const struct compile_options *options)
{
    u32 tile = options->target ? options->target->tile : 0;

    if (matrix_fits(graph, options->target, node)) /* no codes; without the factor a row may be too
                                                      large for half floats */
        return NO_NODE;
    for (u32 i = 0; i < ARRAY_LEN(rules); i++) {
        if (rules[i].class != op_row[node->op].class ||
            (rules[i].int8_only && !options->int8_activations))
            continue;
        u32 found = rules[i].apply ? rules[i].apply(graph, node)
                    : tile         ? rules[i].apply_tiles(graph, node, tile)
                                   : NO_NODE;
        if (found != NO_NODE)
            return found;
    }
    return NO_NODE;
}

/* options NULL: no rules, only what is live stays. */
static err sweep(struct graph *graph, const struct compile_options *options, bool *changed)
{
    const struct node *old = graph->node;
    u32 count = graph->node_count;
    u32 *map = arena_new(graph->arena, u32, count + 1);
    u8 *live = arena_new(graph->arena, u8, count + 1);
    struct node *fresh = arena_new(graph->arena, struct node, graph->node_max);

    if (!map || !live || !fresh)
        return E_NOMEM;
    mark_live(graph, live);
    *changed = false;
    graph->node = fresh;
    graph->node_count = 0;
    memset(graph->hash, 0, (graph->hash_mask + 1) * sizeof *graph->hash);
    for (u32 i = 0; i < count && graph->status == OK; i++) {
        struct node node = old[i];
        if (!live[i])
            continue;
        for (u32 s = 0; s < node.src_count; s++)
            node.src[s] = map[node.src[s]];
        for (u32 s = 0; s < node.src_count; s++)
            node.src[s] = quant_for(graph, &node, node.src[s]);
        map[i] = options ? apply_rules(graph, &node, options) : NO_NODE;
        *changed |= map[i] != NO_NODE;
        map[i] = map[i] == NO_NODE ? graph_add(graph, &node) : map[i];
    }
    for (u32 i = 0; i < graph->output_count; i++)
        graph->output[i] = quant_for(graph, NULL, map[graph->output[i]]);
    return graph->status;
}

err graph_rewrite(struct graph *graph, const struct compile_options *options)
{
    bool changed = true;

    TRY(graph->status);
    for (u32 i = 0; i < SWEEPS_MAX && changed; i++)
        TRY(sweep(graph, options, &changed));
    TRY(sweep(graph, NULL, &changed)); /* leaves no dead node */
    widen_outputs(graph);
    return graph->status;
}
