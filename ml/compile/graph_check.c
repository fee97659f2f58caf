/*
 * graph_check.c: what makes a node legal: builders and passes ask before they add one. What the
 * builders themselves make right (result shapes and types) tests/oracle/graph_check.c asks. Must
 * not know who built the graph or why.
 */
#include "ml/compile/compile.h"

/* ---- shapes ---- */

u32 dim_value(const struct graph *graph, dim extent, const u32 *sym_value)
{
    if (!dim_is_sym(extent))
        return (u32)extent.v;
    return sym_value ? sym_value[dim_sym_idx(extent)] : graph->sym[dim_sym_idx(extent)].bound;
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

bool shape_same(const dim *a, u32 a_rank, const dim *b, u32 b_rank)
{
    return a_rank == b_rank && (a_rank == 0 || memcmp(a, b, a_rank * sizeof *a) == 0);
}

static const char *shape_fault(const struct graph *graph, const struct node *node)
{
    for (u32 i = 0; i < node->rank; i++) {
        dim extent = node->shape[i];
        if (extent.v == 0 || (dim_is_sym(extent) && dim_sym_idx(extent) >= graph->sym_count))
            return "an extent must be 1 or more, or a declared symbol";
    }
    if (shape_elements(graph, node->shape, node->rank, NULL) > SHAPE_ELEMENTS_MAX)
        return "too many elements";
    return NULL;
}

/* ---- types ---- */

enum dtype node_dtype(const struct graph *graph, const struct node *node)
{
    switch (op_row[node->op].rule) {
    case RULE_F32:
        return DT_F32;
    case RULE_BOOL:
    case RULE_I32:
        return DT_I32;
    case RULE_SAME: /* WHERE's first source is the condition */
        return graph->node[node->src[node->op == OP_WHERE]].dtype;
    default:
        return node->dtype;
    }
}

static enum dtype dtype_wanted(const struct graph *graph, const struct node *node, u32 src)
{
    enum op_class class = op_row[node->op].class;
    bool index = class == CLASS_REDUCE || class == CLASS_GATHER || class == CLASS_SCATTER;

    if ((index && src == 1) || (node->op == OP_WHERE && src == 0) || node->op == OP_CAST_F32)
        return DT_I32;
    if (node->op == OP_CAST_I32 || op_row[node->op].rule == RULE_F32)
        return DT_F32;
    if (op_row[node->op].rule == RULE_I32)
        return DT_I32;
    return graph->node[node->src[node->op == OP_WHERE]].dtype;
}

static const char *source_fault(const struct graph *graph, const struct node *node)
{
    for (u32 i = 0; i < node->src_count; i++) {
        const struct node *src = &graph->node[node->src[i]];
        if (src->op == OP_WEIGHT && !(node->op == OP_LINEAR && i == 1) &&
            !(node->op == OP_GATHER && i == 0))
            return "a weight can only be used by linear and as the table of gather";
        if (src->dtype != dtype_wanted(graph, node, i))
            return "wrong type of a source: cast it";
    }
    return NULL;
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
        if (from >= src->rank || seen >> from & 1)
            return "the order must name every axis once";
        seen |= 1u << from;
    }
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

static const char *part_fault(const struct graph *graph, const struct node *src,
                              const struct node *node)
{
    const struct node *inner = node->op == OP_PAD ? src : node;
    const struct node *outer = node->op == OP_PAD ? node : src;

    for (u32 i = 0; i < node->rank; i++)
        if (!range_inside(graph, inner->shape[i], node->slice.begin[i], outer->shape[i]) ||
            (node->op == OP_PAD && dim_is_sym(inner->shape[i]) && !dim_is_sym(outer->shape[i])))
            return "the part does not lie inside; a symbolic axis can not be cut or padded";
    return NULL;
}

/* ---- the rest ---- */

static const char *scatter_fault(const struct graph *graph, const struct node *node)
{
    const struct node *state = &graph->node[node->src[0]], *at = &graph->node[node->src[1]];
    const struct node *value = &graph->node[node->src[2]];

    if (state->op != OP_STATE && state->op != OP_SCATTER)
        return "only a state can be scattered into";
    if (state->rank == 0 || at->rank != 1 || value->rank != state->rank ||
        !dim_same(value->shape[0], at->shape[0]) ||
        !shape_same(value->shape + 1, value->rank - 1u, state->shape + 1, state->rank - 1u))
        return "needs state [rows, ...], index [n], value [n, ...]";
    return NULL;
}

static const char *linear_fault(const struct graph *graph, const struct node *node)
{
    const struct node *x = &graph->node[node->src[0]], *weight = &graph->node[node->src[1]];

    if (weight->op != OP_WEIGHT)
        return "the second source must be a weight";
    if (x->rank == 0 || !dim_same(x->shape[x->rank - 1], weight->shape[1]))
        return "needs x [..., columns], weight [rows, columns]";
    return NULL;
}

/* What one axis of a node may not be. */
static const char *axis_fault(const struct node *src, const struct node *node, u32 axis)
{
    dim extent = node->shape[axis];

    if (node->op == OP_EXPAND && !dim_same(src->shape[axis], extent) && src->shape[axis].v != 1)
        return "only an axis of extent 1 can be expanded";
    if (node->op == OP_FLIP && dim_is_sym(extent) && node->flip.axes >> axis & 1)
        return "a symbolic axis can not be flipped";
    if (node->op == OP_WEIGHT && (dim_is_sym(extent) || node->rank != 2))
        return "a weight is [rows, columns]";
    if (node->op == OP_QUANT && axis + 1u == node->rank &&
        (dim_is_sym(extent) || extent.v % node->quant.block))
        return "needs a constant last axis, a multiple of the block";
    return NULL;
}

static const char *own_fault(const struct graph *graph, const struct node *node)
{
    const struct node *src = &graph->node[node->src[0]];
    u32 axes = node->reduce.axes, rank = node->rank;

    switch (node->op) {
    case OP_IOTA:
        return node->iota.axis >= rank ? "no such axis" : NULL;
    case OP_RESHAPE:
        return reshape_fault(src, node);
    case OP_PERMUTE:
        return permute_fault(src, node);
    case OP_FLIP:
        return node->flip.axes >> rank ? "no such axis" : NULL;
    case OP_SLICE:
    case OP_PAD:
        return part_fault(graph, src, node);
    case OP_REDUCE_SUM:
    case OP_REDUCE_MAX:
    case OP_REDUCE_MIN:
        if (node->reduce.has_len && axes & (axes - 1))
            return "a length needs one reduced axis";
        return axes == 0 || axes >> rank ? "reduces an axis that is not there" : NULL;
    case OP_SCATTER:
        return scatter_fault(graph, node);
    case OP_LINEAR:
        return linear_fault(graph, node);
    case OP_WEIGHT:
    case OP_QUANT:
        return rank == 0 || (node->op == OP_QUANT && node->quant.block == 0) ? "needs axes" : NULL;
    default:
        return NULL;
    }
}

const char *node_fault(const struct graph *graph, const struct node *node)
{
    const char *fault = shape_fault(graph, node);

    fault = fault ? fault : source_fault(graph, node);
    fault = fault ? fault : own_fault(graph, node);
    for (u32 i = 0; !fault && i < node->rank; i++)
        fault = axis_fault(&graph->node[node->src[0]], node, i);
    return fault;
}
