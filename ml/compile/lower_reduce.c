/*
 * lower_reduce.c: a reduction held in registers: accumulators for every instance of the nest, loops
 * over the reduced axes, and, when the lanes run along one of them, the sum across lanes at the
 * end.
 */
#include "ml/compile/emit.h"

#define WIDE_MOST 32u /* elements of a row that lanes load at once */

/* By operation, then I32 or F32: what nothing gives, how two are joined, and all lanes of a vector.
 */
static const struct combine {
    u32 identity;
    u8 op, across;
} combines[][2] = {
    {{0, LIR_IADD, LIR_HSUM_I}, {0, LIR_FADD, LIR_HSUM_F}},
    {{0x80000000u, LIR_IMAX, LIR_HMAX_I}, {0xff800000u, LIR_FMAX, LIR_HMAX_F}},
    {{0x7fffffffu, LIR_IMIN, LIR_HMIN_I}, {0x7f800000u, LIR_FMIN, LIR_HMIN_F}},
};
_Static_assert(OP_REDUCE_MAX == OP_REDUCE_SUM + 1 && OP_REDUCE_MIN == OP_REDUCE_SUM + 2,
               "order of op.def");

static const struct combine *combine_of(const struct node *heavy)
{
    return &combines[heavy->op - OP_REDUCE_SUM][heavy->dtype == DT_F32];
}

struct reduction {
    const struct node *heavy;
    const struct affine *idx;          /* of the heavy node */
    const struct affine *src_idx;      /* of its source */
    u16 acc[UNROLL_MAX * VECTORS_MAX]; /* lanes of the target */
    u16 tail[UNROLL_MAX]; /* lanes 1: what is left over when the lanes run along a reduced axis */
    u32 inner;            /* axis of the innermost loop */
    u16 mask;             /* lanes that count, or LIR_NONE: all */
};

/* acc = acc combined with the source's element, where mask (or NONE) holds; a product of floats is
 * added in one rounding. */
static void accumulate(struct emit *e, const struct reduction *r, u16 acc)
{
    const struct node *heavy = r->heavy, *src = emit_node(e, heavy->src[0]);
    const struct affine *idx = r->src_idx;

    if (r->mask == LIR_NONE && heavy->op == OP_REDUCE_SUM && src->op == OP_MUL &&
        src->dtype == DT_F32 && e->schedule->stage_of[heavy->src[0]] == NO_NODE) {
        u16 a = emit_value(e, src->src[0], idx), b = emit_value(e, src->src[1], idx);
        emit_fma(e, acc, a, b);
        return;
    }
    u16 value = emit_value(e, heavy->src[0], idx);
    if (r->mask != LIR_NONE)
        value =
            emit_v(e, LIR_SELECT, r->mask, value, emit_const_i32(e, combine_of(heavy)->identity));
    emit_combine(e, acc, (enum lir_op)combine_of(heavy)->op, value);
}

static void accumulate_all(struct nest *n, struct reduction *r, bool tail)
{
    for (u32 u = 0; u < n->unroll; u++)
        for (u32 v = 0; v < n->vectors; v++) {
            set_bias(n, u, v);
            accumulate(n->e, r, tail ? r->tail[u] : r->acc[u * n->vectors + v]);
        }
    set_bias(n, 0, 0);
}

static u16 reduced_end(struct emit *e, const struct reduction *r, u32 d)
{
    const struct node *src = emit_node(e, r->heavy->src[0]);
    u16 end = emit_extent(e, src->shape[d]);

    if (r->heavy->reduce.has_len)
        end = emit_s(e, LIR_S_MIN, end, emit_scalar(e, r->heavy->src[1], r->idx), 0);
    return end;
}

/* What a loop over the innermost axis does: some whole vectors or elements a trip; single elements;
 * the last vector, some lanes of which do not count. */
enum reduce_kind { REDUCE_WHOLE, REDUCE_SINGLE, REDUCE_LAST };

static void reduce_loop(struct nest *n, struct reduction *r, struct range range,
                        enum reduce_kind kind)
{
    struct emit *e = n->e;
    u8 lanes = e->lanes, lane_axis = e->lane_axis;
    u32 axis = RANK_MAX + r->inner, times = kind == REDUCE_WHOLE ? (u32)range.count : 1;
    bool along = n->reduce_lane == axis, single = kind == REDUCE_SINGLE;

    if (along) {
        e->lanes = single ? 1 : (u8)e->target->lanes;
        e->lane_axis = single ? NO_AXIS : n->reduce_lane;
    }
    u32 step = along && !single ? e->target->lanes : 1;
    u16 counter = n->split_axis == axis ? emit_shared_loop(e, range.start, range.end, step * times)
                                        : emit_loop(e, range.start, range.end, step * times);
    axis_open(e, axis, counter);
    e->axis[axis].factor = kind == REDUCE_WHOLE ? times * step : 1;
    if (kind == REDUCE_LAST) {
        u16 left = emit_s(e, LIR_S_SUB, range.end, counter, 0);
        r->mask =
            emit_compare(e, LIR_ICMP, LIR_LT, emit_v(e, LIR_V_IOTA, LIR_NONE, LIR_NONE, LIR_NONE),
                         emit_vi(e, LIR_V_FROM_S, left, 0, 0));
    }
    for (u32 i = 0; i < times; i++) {
        e->axis[axis].bias = (i32)(i * step);
        accumulate_all(n, r, single && along);
    }
    r->mask = LIR_NONE;
    axis_close(e, axis);
    emit_end(e);
    e->lanes = lanes;
    e->lane_axis = lane_axis;
}

/* Single elements, all of them in a row. */
static void reduce_rest(struct nest *n, struct reduction *r, u32 start, u32 count)
{
    struct emit *e = n->e;
    u32 axis = RANK_MAX + r->inner;
    u8 lanes = e->lanes, lane_axis = e->lane_axis;

    e->lanes = 1;
    e->lane_axis = NO_AXIS;
    axis_open(e, axis, emit_s_const(e, start));
    for (u32 i = 0; i < count; i++) {
        e->axis[axis].bias = (i32)i;
        accumulate_all(n, r, true);
    }
    axis_close(e, axis);
    e->lanes = lanes;
    e->lane_axis = lane_axis;
}

/* How often the innermost loop's body is written in a row: a CPU predicts its loops, for a GPU's
 * they are instructions. */
static u32 repetitions(const struct nest *n, const struct reduction *r)
{
    const struct emit *e = n->e;
    const struct node *src = emit_node(e, r->heavy->src[0]);
    u32 axis = RANK_MAX + r->inner, step = n->reduce_lane == axis ? e->target->lanes : 1;
    u32 trips = dim_bound(e->graph, src->shape[r->inner]) / step;
    u32 least = n->split_axis == axis ? e->waves : 1;

    if (n->wide)
        return n->unroll > 1 || trips % WIDE_MOST ? UNROLL_MAX : WIDE_MOST;
    for (u32 times = 8; times > 1 && e->target->waves; times /= 2)
        if (trips % times == 0 && trips / times >= least && n->unroll * n->vectors * times <= 32)
            return times;
    return 1;
}

/* The innermost axis: whole vectors where the lanes run along it, then what is left. */
static void reduce_inner(struct nest *n, struct reduction *r)
{
    struct emit *e = n->e;
    dim extent = emit_node(e, r->heavy->src[0])->shape[r->inner];
    bool known = !dim_is_sym(extent) && !r->heavy->reduce.has_len, group = e->target->waves > 0;
    u32 lanes = n->reduce_lane == NO_AXIS ? 1 : e->target->lanes, times = repetitions(n, r);
    u32 rest = known ? (u32)extent.v % (lanes * times) : 0;
    u16 zero = emit_s_const(e, 0), end = reduced_end(e, r, r->inner), whole = end;

    if (lanes * times > 1)
        whole = emit_s(e, LIR_S_ANDI, emit_s(e, LIR_S_MAX, end, zero, 0), LIR_NONE,
                       -(i64)(lanes * times));
    if (!group || !known || (u32)extent.v > rest)
        reduce_loop(n, r, (struct range){.start = zero, .end = whole, .count = times},
                    REDUCE_WHOLE);
    if (known && rest == 0)
        return;
    if (times > 1 && lanes > 1) { /* vectors one by one */
        u16 all = emit_s(e, LIR_S_ANDI, emit_s(e, LIR_S_MAX, end, zero, 0), LIR_NONE, -(i64)lanes);
        reduce_loop(n, r, (struct range){.start = whole, .end = all, .count = 1}, REDUCE_WHOLE);
        whole = all;
    }
    struct range last = {.start = whole, .end = end};
    if (group && !known && !dim_is_sym(extent) && lanes > 1 && (u32)extent.v % lanes == 0)
        reduce_loop(n, r, last, REDUCE_LAST);
    else if (group && known && n->split_axis == NO_AXIS)
        reduce_rest(n, r, (u32)extent.v - rest, rest);
    else if (lanes * times > 1)
        reduce_loop(n, r, last, REDUCE_SINGLE);
}

/* Loops over the reduced axes, the one with the lanes innermost. */
static void reduce_axes(struct nest *n, struct reduction *r)
{
    struct emit *e = n->e;
    const struct node *src = emit_node(e, r->heavy->src[0]);
    u32 opened[RANK_MAX], count = 0;

    for (u32 d = 0; d < src->rank; d++)
        if (r->heavy->reduce.axes >> d & 1)
            r->inner = n->reduce_lane == NO_AXIS ? d : n->reduce_lane - (u32)RANK_MAX;
    for (u32 d = 0; d < src->rank; d++) {
        if (!(r->heavy->reduce.axes >> d & 1) || d == r->inner)
            continue;
        u16 first = emit_s_const(e, 0), last = reduced_end(e, r, d);
        axis_open(e, RANK_MAX + d,
                  n->split_axis == RANK_MAX + d ? emit_shared_loop(e, first, last, 1)
                                                : emit_loop(e, first, last, 1));
        opened[count++] = d;
    }
    reduce_inner(n, r);
    while (count > 0) {
        axis_close(e, RANK_MAX + opened[--count]);
        emit_end(e);
    }
}

bool hold_reduction(struct nest *n, const struct affine *idx, struct held *held)
{
    struct emit *e = n->e;
    struct reduction *r = arena_new(e->arena, struct reduction, 1);
    struct affine *heavy_idx = arena_new(e->arena, struct affine, RANK_MAX);
    struct affine *src_idx = arena_new(e->arena, struct affine, RANK_MAX);
    bool across = n->reduce_lane != NO_AXIS;

    if (!r || !heavy_idx || !src_idx ||
        !find_index(e, e->stage->node, idx, e->stage->heavy, heavy_idx))
        return false;
    r->heavy = emit_node(e, e->stage->heavy);
    r->mask = LIR_NONE;
    for (u32 d = 0; d < r->heavy->rank; d++)
        src_idx[d] = r->heavy->reduce.axes >> d & 1 ? affine_axis(RANK_MAX + d) : heavy_idx[d];
    r->idx = heavy_idx;
    r->src_idx = src_idx;
    const struct combine *how = combine_of(r->heavy);
    u8 lanes = e->lanes;
    for (u32 i = 0; i < n->unroll * n->vectors; i++) {
        e->lanes = across ? (u8)e->target->lanes : lanes;
        r->acc[i] = emit_var(e, LIR_VECTOR);
        emit_set_const(e, r->acc[i], how->identity);
        e->lanes = lanes;
        if (across) {
            r->tail[i] = emit_var(e, LIR_VECTOR);
            emit_set_const(e, r->tail[i], how->identity);
        }
    }
    reduce_axes(n, r);
    for (u32 u = 0; u < n->unroll; u++)
        for (u32 v = 0; v < n->vectors; v++) {
            u16 res = r->acc[u * n->vectors + v];
            set_bias(n, u, v);
            if (across) {
                e->lanes = (u8)e->target->lanes;
                res = emit_v(e, (enum lir_op)how->across, res, LIR_NONE, LIR_NONE);
                e->lanes = lanes;
                res = emit_v(e, (enum lir_op)how->op, res, r->tail[u], LIR_NONE);
            }
            held->res[u * n->vectors + v] = res;
        }
    set_bias(n, 0, 0);
    held->idx = heavy_idx;
    held->op = (enum lir_op)how->op;
    return true;
}
