/*
 * rewrite_tile.c: rewrite.c's rules for targets whose kernels are cut in tiles of a row: what needs
 * a whole row, or a whole context, is said in parts, so that what makes a part goes on with it.
 */
#include "ml/compile/priv.h"

#define FACTOR_DEPTH_MAX 4u /* products above a row's factor, or a softmax */
#define TILES_CUT        4u /* a reduction over fewer tiles of a row is not long */
#define PARTS_DEPTH_MAX  6u /* of what is computed part by part, above what is only read so */
#define CONTEXT_LONG     4096u
#define CONTEXT_PART     1024u
#define LEAST_F32        (-3e38f)

/* ---- the factor of a row ---- */

/* The product without one factor that is the same along the row, and that factor as a column;
 * NO_NODE: it has none. */
static u32 without_factor(struct graph *graph, u32 product, u32 depth, u32 *factor)
{
    const struct node *node = &graph->node[product];
    u32 src[2] = {node->src[0], node->src[1]}, last = node->rank - 1u;

    if (node->op != OP_MUL || node->rank == 0 || depth == 0)
        return NO_NODE;
    for (u32 i = 0; i < 2; i++) {
        const struct node *f = &graph->node[src[i]];
        *factor = f->src[0];
        if (f->op == OP_EXPAND && graph->node[*factor].shape[last].v == 1 && f->shape[last].v != 1)
            return src[1 - i];
    }
    for (u32 i = 0; i < 2; i++) {
        u32 rest = without_factor(graph, src[i], depth - 1, factor);
        if (rest != NO_NODE)
            return graph_binary(graph, OP_MUL, rest, src[1 - i]);
    }
    return NO_NODE;
}

u32 tile_factor(struct graph *graph, const struct node *node, u32 tile)
{
    u32 factor, weight = node->src[1];
    u32 rest = without_factor(graph, node->src[0], FACTOR_DEPTH_MAX, &factor);

    (void)tile;
    if (rest == NO_NODE)
        return NO_NODE;
    return graph_binary(graph, OP_MUL, graph_linear(graph, rest, weight), factor);
}

/* ---- a reduction along a row ---- */

/* The node with its axis in parts of that length, or twice where it is 1 long. */
static u32 cut_axis(struct graph *graph, u32 idx, u32 axis, u32 length)
{
    const struct node *node = &graph->node[idx];
    u32 extent = (u32)node->shape[axis].v;
    dim shape[RANK_MAX + 1];

    memcpy(shape, node->shape, axis * sizeof *shape);
    memcpy(shape + axis + 1, node->shape + axis, (node->rank - axis) * sizeof *shape);
    shape[axis] = dim_of(extent == 1 ? 1 : extent / length);
    shape[axis + 1] = dim_of(extent == 1 ? 1 : length);
    return graph_reshape(graph, idx, shape, node->rank + 1);
}

u32 tile_reduction(struct graph *graph, const struct node *node, u32 tile)
{
    const struct node *src = &graph->node[node->src[0]];
    u32 last = node->rank - 1u;
    enum op op = node->op;
    dim shape[RANK_MAX];

    if (node->reduce.has_len || node->reduce.axes != 1u << last || node->rank == RANK_MAX ||
        dim_is_sym(src->shape[last]))
        return NO_NODE;
    u32 columns = (u32)src->shape[last].v;
    for (u32 i = 1; i < last; i++)
        if (src->shape[i].v > 1) /* a part of a row */
            return NO_NODE;
    bool cut = src->op == OP_RESHAPE && graph->node[src->src[0]].op == op;
    if (cut || columns % tile || columns / tile < TILES_CUT)
        return NO_NODE;
    memcpy(shape, src->shape, sizeof shape);
    shape[last] = dim_of(columns / tile);
    u32 tiles = cut_axis(graph, node->src[0], last, tile);
    tiles = graph_reduce(graph, op, tiles, 1u << (last + 1), NO_NODE);
    return graph_reduce(graph, op, graph_reshape(graph, tiles, shape, last + 1), 1u << last,
                        NO_NODE);
}

/* ---- a softmax along a context ---- */

struct softmax {
    struct graph *graph;
    u32 axis, score, share; /* share = exp(score - its largest along the axis) */
    u32 part_share;         /* the same with the largest of each part of the context */
};

/* The softmax's exp under products and broadcasts of the summed node; NO_NODE: there is none. */
static u32 find_share(const struct graph *g, u32 idx, u32 depth)
{
    const struct node *node = &g->node[idx];
    u32 found = NO_NODE;

    if (node->op == OP_EXP)
        return idx;
    for (u32 i = 0; i < 2 && depth && found == NO_NODE; i++)
        if (node->op == OP_MUL || (node->op == OP_EXPAND && i == 0))
            found = find_share(g, node->src[i], depth - 1);
    return found;
}

static bool is_softmax(struct softmax *s, const struct node *sum)
{
    const struct graph *g = s->graph;
    const struct node *less = &g->node[g->node[s->share].src[0]];

    if (less->op != OP_SUB || g->node[less->src[1]].op != OP_EXPAND)
        return false;
    s->score = less->src[0];
    const struct node *most = &g->node[g->node[less->src[1]].src[0]];
    return most->op == OP_REDUCE_MAX && most->reduce.has_len && most->src[0] == s->score &&
           most->reduce.axes == sum->reduce.axes && most->rank == sum->rank &&
           expanded_from(g, most->src[1]) == expanded_from(g, sum->src[1]);
}

/* How much of each part lies below the length; parts behind it have nothing. */
static u32 part_lengths(struct graph *g, u32 len, u32 axis, u32 parts)
{
    dim shape[RANK_MAX];

    for (u32 i = 0; i < RANK_MAX; i++)
        shape[i] = dim_of(i == axis ? parts : 1);
    u32 rank = g->node[len].rank + 1u;
    u32 first = graph_binary(g, OP_MUL, graph_iota(g, axis, shape, rank),
                             graph_scalar_i32(g, (i32)CONTEXT_PART));
    return graph_binary(g, OP_SUB, cut_axis(g, len, axis, CONTEXT_PART), first);
}

static u32 on_parts(const struct softmax *s, u32 idx, u32 depth);

static u32 element_on_parts(const struct softmax *s, const struct node *node, u32 depth)
{
    u32 src[NODE_SRCS_MAX];

    for (u32 i = 0; i < node->src_count; i++)
        src[i] = on_parts(s, node->src[i], depth - 1);
    return graph_element(s->graph, node->op, src);
}

/* The node on the parts, computed there and not before, with each part's own share in the place of
 * the softmax's. */
static u32 on_parts(const struct softmax *s, u32 idx, u32 depth)
{
    struct graph *g = s->graph;
    const struct node *node = &g->node[idx];
    u32 below = (1u << s->axis) - 1;

    if (idx == s->share)
        return s->part_share;
    if (depth && op_is_element(node->op))
        return element_on_parts(s, node, depth);
    u32 cut = cut_axis(g, idx, s->axis, CONTEXT_PART);
    if (depth && node->op == OP_EXPAND)
        return graph_expand(g, on_parts(s, node->src[0], depth - 1), g->node[cut].shape,
                            node->rank + 1u);
    if (!depth || !op_is_reduce(node->op) || node->reduce.has_len ||
        node->reduce.axes >> s->axis & 1)
        return cut;
    u32 axes = (node->reduce.axes & below) | (node->reduce.axes & ~below) << 1;
    return graph_reduce(g, node->op, on_parts(s, node->src[0], depth - 1), axes, NO_NODE);
}

/* exp(score - most) = exp(score - the part's most) * exp(the part's most - most): the second factor
 * is the same for a part and leaves its sum. */
u32 tile_softmax(struct graph *graph, const struct node *node, u32 tile)
{
    const struct node *src = &graph->node[node->src[0]];
    u32 axis = (u32)__builtin_ctz(node->reduce.axes | 1u << (RANK_MAX - 1));
    struct softmax s = {
        .graph = graph, .axis = axis, .share = find_share(graph, node->src[0], FACTOR_DEPTH_MAX)};

    (void)tile;
    if (node->op != OP_REDUCE_SUM || !node->reduce.has_len || node->rank == RANK_MAX ||
        dim_is_sym(src->shape[axis]) || s.share == NO_NODE || !is_softmax(&s, node))
        return NO_NODE;
    u32 extent = (u32)src->shape[axis].v;
    if (extent < CONTEXT_LONG || extent % CONTEXT_PART)
        return NO_NODE;
    u32 len = part_lengths(graph, expanded_from(graph, node->src[1]), axis, extent / CONTEXT_PART);
    u32 score = on_parts(&s, s.score, PARTS_DEPTH_MAX), inside = 1u << (axis + 1);
    u32 least = graph_scalar_f32(graph, LEAST_F32); /* of a part without elements */
    u32 most = graph_reduce(graph, OP_REDUCE_MAX, score, inside, len);
    most = graph_binary(graph, OP_MAX, most, least);
    s.part_share = graph_unary(graph, OP_EXP, graph_binary(graph, OP_SUB, score, most));
    u32 sum = graph_reduce(graph, OP_REDUCE_SUM, on_parts(&s, node->src[0], PARTS_DEPTH_MAX),
                           inside, len);
    u32 all = graph_reduce(graph, OP_REDUCE_MAX, most, 1u << axis, NO_NODE);
    u32 factor = graph_unary(graph, OP_EXP, graph_binary(graph, OP_SUB, most, all));
    sum = graph_reduce(graph, OP_REDUCE_SUM, graph_binary(graph, OP_MUL, sum, factor), 1u << axis,
                       NO_NODE);
    return graph_reshape(graph, sum, node->shape, node->rank);
}
