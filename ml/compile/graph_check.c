/*
 * graph_check.c: what makes a node legal, in one place: builders and passes ask before they add a
 * node. Must not know who built the graph or why.
 */
#include "ml/compile/compile.h"

static const char *shape_fault(const struct graph *graph, const struct node *node);
static const char *source_fault(const struct graph *graph, const struct node *node, u32 limit);
static const char *class_fault(const struct graph *graph, const struct node *node);
static const char *move_fault(const struct graph *graph, const struct node *node);

const char *node_fault(const struct graph *graph, const struct node *node, u32 limit)
{
    const char *fault = shape_fault(graph, node);

    fault = fault ? fault : source_fault(graph, node, limit);
    return fault ? fault : class_fault(graph, node);
}

/* ---- shapes ---- */

static const char *shape_fault(const struct graph *graph, const struct node *node)
{
    if (node->rank > RANK_MAX)
        return "too many axes";
    for (u32 i = 0; i < node->rank; i++) {
        dim extent = node->shape[i];
        if (extent.v == 0 || (dim_is_sym(extent) && dim_sym_idx(extent) >= graph->sym_count))
            return "an extent must be 1 or more, or a declared symbol";
    }
    if (shape_elements(graph, node->shape, node->rank, NULL) > SHAPE_ELEMENTS_MAX)
        return "too many elements";
    return NULL;
}

u64 shape_elements(const struct graph *graph, const dim *shape, u32 rank, const u32 *sym_value)
{
    u64 count = 1;

    for (u32 i = 0; i < rank; i++) {
        u64 extent = dim_value(graph, shape[i], sym_value);
        if (extent == 0)
            return 0;
        if (count > SHAPE_ELEMENTS_MAX / extent)
            return SHAPE_ELEMENTS_MAX + 1;
        count *= extent;
    }
    return count;
}

u32 dim_value(const struct graph *graph, dim extent, const u32 *sym_value)
{
    if (!dim_is_sym(extent))
        return (u32)extent.v;
    return sym_value ? sym_value[dim_sym_idx(extent)] : graph->sym[dim_sym_idx(extent)].bound;
}

bool shape_same(const dim *a, u32 a_rank, const dim *b, u32 b_rank)
{
    return a_rank == b_rank && (a_rank == 0 || memcmp(a, b, a_rank * sizeof *a) == 0);
}

static bool node_shape_same(const struct node *a, const struct node *b)
{
    return shape_same(a->shape, a->rank, b->shape, b->rank);
}

/* ---- types ---- */

/* The source that gives SAME its meaning: WHERE's first one is the condition. */
static u32 value_src(enum op op)
{
    return op == OP_WHERE ? 1 : 0;
}

enum dtype node_dtype(const struct graph *graph, const struct node *node)
{
    switch (op_row[node->op].rule) {
    case RULE_F32:
        return DT_F32;
    case RULE_BOOL:
    case RULE_I32:
        return DT_I32;
    case RULE_SAME: {
        u32 src = node->src[value_src(node->op)];
        return src < graph->node_count ? graph->node[src].dtype : DT_F32;
    }
    default:
        return node->dtype;
    }
}

static enum dtype dtype_wanted(const struct graph *graph, const struct node *node, u32 src)
{
    bool indexes =
        op_row[node->op].class == CLASS_REDUCE || node->op == OP_GATHER || node->op == OP_SCATTER;

    if ((indexes && src == 1) || (node->op == OP_WHERE && src == 0) || node->op == OP_CAST_F32)
        return DT_I32;
    if (node->op == OP_CAST_I32 || op_row[node->op].rule == RULE_F32)
        return DT_F32;
    if (op_row[node->op].rule == RULE_I32)
        return DT_I32;
    return graph->node[node->src[value_src(node->op)]].dtype;
}

static const char *source_fault(const struct graph *graph, const struct node *node, u32 limit)
{
    bool has_len = op_row[node->op].class == CLASS_REDUCE && node->reduce.has_len;

    if (node->src_count != op_row[node->op].sources + (has_len ? 1 : 0))
        return "wrong number of sources";
    for (u32 i = 0; i < node->src_count; i++)
        if (node->src[i] >= limit)
            return "a source does not come before its user";
    for (u32 i = 0; i < node->src_count; i++) {
        bool weight = graph->node[node->src[i]].op == OP_WEIGHT;
        if (weight && !(node->op == OP_LINEAR && i == 1) && !(node->op == OP_GATHER && i == 0))
            return "a weight can only be used by linear and as the table of gather";
        if (graph->node[node->src[i]].dtype != dtype_wanted(graph, node, i))
            return "wrong type of a source: cast it";
    }
    if (node->dtype > DT_I32 || node->dtype != node_dtype(graph, node))
        return "wrong type";
    return NULL;
}

/* ---- rules by class ---- */

static const char *element_fault(const struct graph *graph, const struct node *node)
{
    for (u32 i = 0; i < node->src_count; i++)
        if (!node_shape_same(&graph->node[node->src[i]], node))
            return "elementwise sources need the result's shape";
    return NULL;
}

static const char *reduce_fault(const struct graph *graph, const struct node *node)
{
    const struct node *src = &graph->node[node->src[0]];
    u32 axes = node->reduce.axes;

    if (axes == 0 || axes >> src->rank || node->rank != src->rank)
        return "reduces an axis that is not there";
    for (u32 i = 0; i < node->rank; i++)
        if (!dim_same(node->shape[i], axes >> i & 1 ? dim_of(1) : src->shape[i]))
            return "a reduced axis keeps extent 1, the others their own";
    if (node->reduce.has_len &&
        ((axes & (axes - 1)) || !node_shape_same(&graph->node[node->src[1]], node)))
        return "a length needs one reduced axis and the result's shape";
    return NULL;
}

static const char *gather_fault(const struct graph *graph, const struct node *node)
{
    const struct node *table = &graph->node[node->src[0]], *at = &graph->node[node->src[1]];

    if (table->rank == 0 || node->rank != at->rank + table->rank - 1 ||
        !shape_same(node->shape, at->rank, at->shape, at->rank) ||
        !shape_same(node->shape + at->rank, table->rank - 1u, table->shape + 1, table->rank - 1u))
        return "the result has the index's axes, then the table's without its first";
    return NULL;
}

static const char *scatter_fault(const struct graph *graph, const struct node *node)
{
    const struct node *state = &graph->node[node->src[0]], *at = &graph->node[node->src[1]];
    const struct node *value = &graph->node[node->src[2]];

    if (state->op != OP_STATE && state->op != OP_SCATTER)
        return "only a state can be scattered into";
    if (!node_shape_same(node, state) || state->rank == 0 || at->rank != 1 ||
        value->rank != state->rank || !dim_same(value->shape[0], at->shape[0]) ||
        !shape_same(value->shape + 1, value->rank - 1u, state->shape + 1, state->rank - 1u))
        return "needs state [rows, ...], index [n], value [n, ...]";
    return NULL;
}

static const char *linear_fault(const struct graph *graph, const struct node *node)
{
    const struct node *x = &graph->node[node->src[0]], *weight = &graph->node[node->src[1]];

    if (weight->op != OP_WEIGHT)
        return "the second source must be a weight";
    if (x->rank == 0 || node->rank != x->rank ||
        !shape_same(node->shape, node->rank - 1u, x->shape, x->rank - 1u) ||
        !dim_same(x->shape[x->rank - 1], weight->shape[1]) ||
        !dim_same(node->shape[node->rank - 1], weight->shape[0]))
        return "needs x [..., columns], weight [rows, columns]";
    return NULL;
}

static const char *quant_fault(const struct graph *graph, const struct node *node)
{
    dim last = node->rank ? node->shape[node->rank - 1] : dim_of(1);

    if (element_fault(graph, node) || node->quant.block == 0 || dim_is_sym(last) ||
        last.v % node->quant.block)
        return "needs a constant last axis, a multiple of the block";
    return NULL;
}

static const char *class_fault(const struct graph *graph, const struct node *node)
{
    switch (op_row[node->op].class) {
    case CLASS_ELEMENT:
        return element_fault(graph, node);
    case CLASS_MOVE:
        return move_fault(graph, node);
    case CLASS_REDUCE:
        return reduce_fault(graph, node);
    case CLASS_GATHER:
        return gather_fault(graph, node);
    case CLASS_SCATTER:
        return scatter_fault(graph, node);
    case CLASS_LINEAR:
        return linear_fault(graph, node);
    case CLASS_QUANT:
        return quant_fault(graph, node);
    default:
        if (node->op == OP_WEIGHT &&
            (node->rank != 2 || dim_is_sym(node->shape[0]) || dim_is_sym(node->shape[1])))
            return "a weight is [rows, columns]";
        return node->op == OP_IOTA && node->iota.axis >= node->rank ? "no such axis" : NULL;
    }
}

/* ---- moves ---- */

/* Extents between two symbols may be split and merged; symbols stay whole and in order. */
static const char *reshape_fault(const struct node *src, const struct node *node)
{
    u32 a = 0, b = 0;

    while (a < src->rank || b < node->rank) {
        u64 have = 1, want = 1;
        while (a < src->rank && !dim_is_sym(src->shape[a]))
            have *= (u64)src->shape[a++].v;
        while (b < node->rank && !dim_is_sym(node->shape[b]))
            want *= (u64)node->shape[b++].v;
        if (have != want || (a < src->rank) != (b < node->rank))
            return "reshape must keep the number of elements, and symbols as whole axes";
        if (a < src->rank && !dim_same(src->shape[a++], node->shape[b++]))
            return "reshape must keep the order of symbols";
    }
    return NULL;
}

static const char *permute_fault(const struct node *src, const struct node *node)
{
    u32 seen = 0;

    for (u32 i = 0; i < src->rank; i++) {
        u32 from = node->permute.order[i];
        if (from >= src->rank || seen >> from & 1 || !dim_same(node->shape[i], src->shape[from]))
            return "the order must name every axis once";
        seen |= 1u << from;
    }
    return NULL;
}

static const char *expand_fault(const struct node *src, const struct node *node)
{
    for (u32 i = 0; i < src->rank; i++)
        if (!dim_same(src->shape[i], node->shape[i]) && src->shape[i].v != 1)
            return "only an axis of extent 1 can be expanded";
    return NULL;
}

/* The part of `outer` that starts at `begin` and is `inner` long; a symbol counts by its bound. */
static bool range_inside(const struct graph *graph, dim inner, i32 begin, dim outer)
{
    if (dim_is_sym(outer))
        return begin == 0 && dim_same(inner, outer);
    return begin >= 0 && dim_value(graph, inner, NULL) <= (u32)outer.v &&
           (u32)begin <= (u32)outer.v - dim_value(graph, inner, NULL);
}

static const char *move_fault(const struct graph *graph, const struct node *node)
{
    const struct node *src = &graph->node[node->src[0]];

    if (node->op == OP_RESHAPE)
        return reshape_fault(src, node);
    if (node->rank != src->rank)
        return "the number of axes must stay";
    if (node->op == OP_PERMUTE)
        return permute_fault(src, node);
    if (node->op == OP_EXPAND)
        return expand_fault(src, node);
    if (node->op == OP_FLIP && (node->flip.axes >> node->rank || element_fault(graph, node)))
        return "no such axis";
    for (u32 i = 0; i < node->rank; i++) {
        if (node->op == OP_FLIP && dim_is_sym(node->shape[i]) && node->flip.axes >> i & 1)
            return "a symbolic axis can not be flipped";
        if (node->op == OP_FLIP)
            continue;
        dim inner = node->op == OP_SLICE ? node->shape[i] : src->shape[i];
        dim outer = node->op == OP_SLICE ? src->shape[i] : node->shape[i];
        if (!range_inside(graph, inner, node->slice.begin[i], outer) ||
            (node->op == OP_PAD && dim_is_sym(inner) && !dim_is_sym(outer)))
            return "the part does not lie inside; a symbolic axis can not be cut or padded";
    }
    return NULL;
}
