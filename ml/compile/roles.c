/*
 * roles.c: which axis of a stage the vector lanes run along and which is unrolled, by the strides
 * of what the stage reads; and which axis the waves of a group share out.
 */
#include "ml/compile/emit.h"

#define SPLIT_LEAST 8u /* elements of a sum that are worth a wave */

/* Elements that a leaf moves per step of an axis; INT32_MAX when that is not a constant. */
static i64 leaf_stride(const struct emit *e, const struct leaf *leaf, u32 axis)
{
    const struct node *n = emit_node(e, leaf->node);
    i64 total = 0;

    if (n->op == OP_QUANT || n->op == OP_WEIGHT)
        return 0;
    for (u32 d = 0; d < n->rank; d++) {
        struct stride stride = node_stride(e, leaf->node, d);
        if (leaf->idx[d].dynamic_axes >> axis & 1)
            return INT32_MAX;
        if (leaf->idx[d].coef[axis] && stride.symbolic)
            return INT32_MAX - 1;
        total += leaf->idx[d].coef[axis] * stride.elements;
    }
    return total;
}

static bool length_depends(struct emit *e, const struct node *heavy, u32 axis)
{
    struct affine *idx = arena_new(e->arena, struct affine, 2 * RANK_MAX);
    const struct node *len;

    if (!heavy->reduce.has_len || !idx)
        return !idx;
    len = emit_node(e, expanded_from(e->graph, heavy->src[1]));
    for (u32 i = 0; i < RANK_MAX; i++)
        idx[i] = affine_axis(i);
    if (!find_index(e, e->stage->node, idx, e->stage->heavy, idx + RANK_MAX))
        return true;
    for (u32 d = 0; d < len->rank; d++)
        if (len->shape[d].v != 1 && idx[RANK_MAX + d].coef[axis])
            return true;
    return false;
}

/* May the axis be written UNROLL_MAX times in a row, throughout? */
static bool unrolls_whole(struct emit *e, u32 axis)
{
    const struct stage *s = e->stage;
    const struct node *heavy = emit_node(e, s->heavy), *src = emit_node(e, heavy->src[0]);

    if (axis >= RANK_MAX) { /* the innermost loop, of known length */
        dim extent = src->shape[axis - RANK_MAX];
        bool inner = (heavy->reduce.axes >> (axis - RANK_MAX)) == 1;
        return inner && !heavy->reduce.has_len && !dim_is_sym(extent) &&
               (u32)extent.v % UNROLL_MAX == 0;
    }
    dim extent = stage_space(e->graph, s)->shape[axis];
    return !dim_is_sym(extent) && (u32)extent.v % UNROLL_MAX == 0 &&
           s->block[axis] % UNROLL_MAX == 0 && !(s->len_node != NO_NODE && axis == s->len_axis) &&
           !length_depends(e, heavy, axis);
}

/* The axis along which lanes that run along `axis` find 16 bytes of the leaf each, which are loaded
 * together (address.c) when it is unrolled; NO_AXIS: none. */
static u8 wide_axis(struct emit *e, const struct leaf *leaf, u32 axis)
{
    const struct node *n = emit_node(e, leaf->node);
    i64 bytes = dtype_bytes(node_storage(e, leaf->node)), moved[AXES_MAX] = {};
    u8 inside = NO_AXIS;

    if (!e->target->waves || e->stage->heavy == NO_NODE || bytes == 1 || n->op == OP_QUANT ||
        n->op == OP_WEIGHT)
        return NO_AXIS;
    for (u32 d = 0; d < n->rank; d++) {
        struct stride stride = node_stride(e, leaf->node, d);
        if (stride.symbolic || (leaf->idx[d].dynamic_axes && stride.elements * bytes % 16))
            return NO_AXIS;
        for (u32 a = 0; a < AXES_MAX; a++)
            moved[a] += leaf->idx[d].coef[a] * stride.elements * bytes;
    }
    for (u32 a = 0; a < AXES_MAX; a++) {
        if (moved[a] % 16 == 0 || (a < RANK_MAX && is_grid_fixed(e, a)))
            continue;
        if (inside != NO_AXIS || moved[a] != bytes || a == axis)
            return NO_AXIS;
        inside = (u8)a;
    }
    if (inside == NO_AXIS ||
        (axis >= RANK_MAX && inside >= RANK_MAX)) /* then lanes are innermost */
        return NO_AXIS;
    return unrolls_whole(e, inside) ? inside : NO_AXIS;
}

/* Cost of one vector of a leaf along the axis, in loads; negative when there is no way to load it.
 */
static i32 lane_cost(struct emit *e, const struct leaf *leaf, u32 axis)
{
    i64 stride = leaf_stride(e, leaf, axis);

    if (stride == 0 || stride == 1)
        return 1;
    if (leaf->in_heavy && wide_axis(e, leaf, axis) != NO_AXIS)
        return 2;
    if (dtype_bytes(node_storage(e, leaf->node)) != 4 || stride == INT32_MAX - 1)
        return -1;
    return (i32)e->target->lanes;
}

/* On a GPU: of the scalar instructions for each element of a row that is found by its number. */
static u32 leaf_scalar_cost(const struct emit *e, const struct leaf *leaf, u32 axis)
{
    u32 reduced = 0;

    for (u32 d = 0; d < emit_node(e, leaf->node)->rank && e->target->waves; d++)
        reduced |= (u32)leaf->idx[d].dynamic_axes >> RANK_MAX;
    return leaf_stride(e, leaf, axis) != INT32_MAX && reduced ? 8 * 16 : 0;
}

static u32 axis_extent(const struct emit *e, const struct nest *n, u32 axis)
{
    const struct node *of =
        axis < RANK_MAX ? n->space : emit_node(e, emit_node(e, e->stage->heavy)->src[0]);
    return dim_bound(e->graph, of->shape[axis % RANK_MAX]);
}

/* Cost per element of running lanes along the axis; UINT32_MAX: impossible. */
static u32 axis_cost(struct emit *e, const struct nest *n, const struct leaf *leaf, u32 leaves,
                     u32 axis)
{
    u32 lanes = e->target->lanes, cost = 1, extent = axis_extent(e, n, axis);

    for (u32 i = 0; i < leaves; i++) {
        i32 c = lane_cost(e, &leaf[i], axis);
        if (axis >= RANK_MAX && !leaf[i].in_heavy)
            continue;
        if (c < 0)
            return UINT32_MAX;
        cost += (u32)c * 16;
        cost += leaf_scalar_cost(e, leaf + i, axis);
    }
    if (axis >= RANK_MAX) /* the lanes are added up at the end of each result */
        cost += 16 * 10 * lanes / max_u32(extent, lanes);
    return cost * (u32)round_up(extent, lanes) / extent;
}

/* The last axis that is longer than 1: stores along it are contiguous. */
u8 store_axis(const struct node *space)
{
    for (u32 a = space->rank; a-- > 0;)
        if (space->shape[a].v != 1)
            return (u8)a;
    return NO_AXIS;
}

/* Vector stores need consecutive elements. */
bool store_contiguous(const struct emit *e, u32 axis)
{
    const struct node *node = emit_node(e, e->stage->node);
    u32 d = axis;

    if (e->stage->kind == STAGE_SCATTER) {
        u32 index_rank = emit_node(e, node->src[1])->rank;
        if (axis < index_rank)
            return false;
        d = axis - index_rank + 1;
    }
    struct stride stride = node_stride(e, e->stage->node, d);
    return !stride.symbolic && stride.elements == 1;
}

/* An output axis along which some operand of the reduction stays the same: unrolling it shares that
 * operand. */
static u8 sharing_axis(struct emit *e, const struct nest *n, const struct leaf *leaf, u32 leaves)
{
    const struct node *heavy = emit_node(e, e->stage->heavy);

    for (u32 a = n->space->rank; a-- > 0;) {
        if (a == n->lane_axis || is_grid_fixed(e, a) || n->space->shape[a].v == 1 ||
            (e->stage->len_node != NO_NODE && a == e->stage->len_axis &&
             n->reduce_lane == NO_AXIS) ||
            length_depends(e, heavy, a))
            continue;
        for (u32 i = 0; i < leaves; i++)
            if (leaf[i].in_heavy && leaf_stride(e, &leaf[i], a) == 0)
                return (u8)a;
    }
    return NO_AXIS;
}

void choose_roles(struct nest *n)
{
    struct emit *e = n->e;
    const struct leaf *leaf = e->stage->leaf;
    u32 leaves = e->stage->leaf_count;
    u8 out = store_axis(n->space);
    bool is_reduce = e->stage->heavy != NO_NODE && op_is_reduce(emit_node(e, e->stage->heavy)->op);
    u32 best = UINT32_MAX;

    if (out != NO_AXIS && !is_grid_fixed(e, out) && store_contiguous(e, out))
        best = axis_cost(e, n, leaf, leaves, out);
    if (is_reduce && best != UINT32_MAX && length_depends(e, emit_node(e, e->stage->heavy), out))
        best = UINT32_MAX;
    n->lane_axis = best == UINT32_MAX ? NO_AXIS : out;
    n->unroll_max = n->vectors_max = 1;
    if (!is_reduce)
        return;
    const struct node *heavy = emit_node(e, e->stage->heavy), *src = emit_node(e, heavy->src[0]);
    for (u32 d = 0; d < src->rank; d++) {
        if (!(heavy->reduce.axes >> d & 1) || src->shape[d].v == 1)
            continue;
        u32 cost = axis_cost(e, n, leaf, leaves, RANK_MAX + d);
        if (cost < best) {
            best = cost;
            n->reduce_lane = (u8)(RANK_MAX + d);
            n->lane_axis = NO_AXIS;
        }
    }
    u8 lanes_axis = n->lane_axis != NO_AXIS ? n->lane_axis : n->reduce_lane;
    bool wide = false;
    for (u32 i = 0; i < leaves && lanes_axis != NO_AXIS && !wide; i++) {
        u8 inside = leaf_stride(e, &leaf[i], lanes_axis) > 1 && leaf[i].in_heavy
                        ? wide_axis(e, &leaf[i], lanes_axis)
                        : NO_AXIS;
        wide = inside != NO_AXIS;
        if (wide && inside < RANK_MAX) {
            n->unroll_axis = inside;
            n->unroll_max = UNROLL_MAX;
            return;
        }
    }
    n->unroll_axis = sharing_axis(e, n, leaf, leaves);
    if (n->unroll_axis != NO_AXIS)
        n->unroll_max = 4;
    n->wide = wide;
    if (wide) /* the reduced axis is unrolled, and that far */
        return;
    if (n->lane_axis != NO_AXIS) {
        u32 room = e->target->vector_regs > 16 ? VECTORS_MAX
                   : n->unroll_axis != NO_AXIS ? 2
                                               : VECTORS_MAX;
        u32 full = axis_extent(e, n, n->lane_axis) / e->target->lanes;
        n->vectors_max = full >= room ? room : full >= 2 ? 2 : 1;
    }
}

/* Trips of the nest's loop over an output axis. */
static u32 axis_trips(const struct nest *n, u32 axis)
{
    u32 step = axis == n->lane_axis     ? n->vectors_max * n->e->target->lanes
               : axis == n->unroll_axis ? n->unroll_max
                                        : 1;

    return is_grid_fixed(n->e, axis) ? 1 : (u32)div_up(axis_bound(n->e, axis), step);
}

/* The output axis with the most trips, of those whose extent is known or of the others. */
static void choose_spread(struct nest *n, bool symbolic, u32 *best)
{
    for (u32 a = 0; a < n->space->rank; a++) {
        u32 trips = axis_trips(n, a);
        if (dim_is_sym(n->space->shape[a]) != symbolic || trips <= *best)
            continue;
        *best = trips;
        n->spread_axis = (u8)a;
    }
}

static void choose_split(struct nest *n, u32 *best)
{
    const struct emit *e = n->e;
    const struct node *heavy = emit_node(e, e->stage->heavy), *src = emit_node(e, heavy->src[0]);

    for (u32 d = 0; d < src->rank; d++) {
        bool linear = heavy->op == OP_LINEAR;
        u32 lanes = n->reduce_lane == RANK_MAX + d ? e->target->lanes : 1;
        u32 trips = linear ? row_parts(e)
                           : dim_bound(e->graph, src->shape[d]) / max_u32(lanes, SPLIT_LEAST);
        if ((linear ? d > 0 : !(heavy->reduce.axes >> d & 1)) || trips <= *best)
            continue;
        *best = trips;
        n->split_axis = (u8)(RANK_MAX + d);
        n->spread_axis = NO_AXIS;
    }
}

bool whole_tiles(const struct nest *n)
{
    const struct emit *e = n->e;

    return e->target->waves > 0 && !e->own && e->stage->heavy != NO_NODE &&
           emit_node(e, e->stage->heavy)->op == OP_LINEAR;
}

u32 choose_shares(struct nest *n)
{
    const struct emit *e = n->e;
    u32 best = 1;

    if (e->target->waves == 0)
        return best;
    choose_spread(n, false, &best);
    if (whole_tiles(n) && axis_extent(e, n, n->lane_axis) % e->target->lanes &&
        n->spread_axis != n->lane_axis) { /* the last tile is every wave's: they meet in it */
        best = 1;
        n->spread_axis = NO_AXIS;
        n->split_axis = RANK_MAX;
    }
    if (best < e->target->waves && e->stage->kind == STAGE_MAP && e->stage->heavy != NO_NODE)
        choose_split(n, &best);
    u32 some = best;
    if (best == 1 && n->split_axis == NO_AXIS) /* may be short when it runs: not worth a wave */
        choose_spread(n, true, &some);
    return best;
}
