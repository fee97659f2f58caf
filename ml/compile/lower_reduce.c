/*
 * lower_reduce.c: a reduction held in registers: accumulators for every instance of the nest, loops
 * over the reduced axes, and, when the lanes run along one of them, the sum across lanes at the
 * end.
 */
#include "ml/compile/emit.h"

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

/* acc = acc combined with the source's element; a product of floats is added in one rounding. */
static void accumulate(struct emit *e, const struct node *heavy, const struct affine *idx, u16 acc)
{
    const struct node *src = emit_node(e, heavy->src[0]);

    if (heavy->op == OP_REDUCE_SUM && src->op == OP_MUL && src->dtype == DT_F32 &&
        e->schedule->stage_of[heavy->src[0]] == NO_NODE) {
        u16 a = emit_value(e, src->src[0], idx), b = emit_value(e, src->src[1], idx);
        emit_fma(e, acc, a, b);
        return;
    }
    u16 value = emit_value(e, heavy->src[0], idx);
    emit_combine(e, acc, (enum lir_op)combine_of(heavy)->op, value);
}

struct reduction {
    const struct node *heavy;
    const struct affine *idx;          /* of the heavy node */
    const struct affine *src_idx;      /* of its source */
    u16 acc[UNROLL_MAX * VECTORS_MAX]; /* lanes of the target */
    u16 tail[UNROLL_MAX]; /* lanes 1: what is left over when the lanes run along a reduced axis */
    u32 inner;            /* axis of the innermost loop */
};

static void accumulate_all(struct nest *n, struct reduction *r, bool tail)
{
    for (u32 u = 0; u < n->unroll; u++)
        for (u32 v = 0; v < n->vectors; v++) {
            set_bias(n, u, v);
            accumulate(n->e, r->heavy, r->src_idx, tail ? r->tail[u] : r->acc[u * n->vectors + v]);
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

static void reduce_loop(struct nest *n, struct reduction *r, struct range range, bool tail)
{
    struct emit *e = n->e;
    u8 lanes = e->lanes, lane_axis = e->lane_axis;
    u32 d = r->inner;
    bool along = n->reduce_lane == RANK_MAX + d;

    if (along) {
        e->lanes = tail ? 1 : (u8)e->target->lanes;
        e->lane_axis = tail ? NO_AXIS : n->reduce_lane;
    }
    u32 step = along && !tail ? e->target->lanes : 1;
    axis_open(e, RANK_MAX + d,
              n->split_axis == RANK_MAX + d ? emit_shared_loop(e, range.start, range.end, step)
                                            : emit_loop(e, range.start, range.end, step));
    accumulate_all(n, r, tail);
    axis_close(e, RANK_MAX + d);
    emit_end(e);
    e->lanes = lanes;
    e->lane_axis = lane_axis;
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
    u16 zero = emit_s_const(e, 0), end = reduced_end(e, r, r->inner);
    if (n->reduce_lane == NO_AXIS) {
        reduce_loop(n, r, (struct range){.start = zero, .end = end}, false);
    } else {
        u16 whole = emit_s(e, LIR_S_ANDI, emit_s(e, LIR_S_MAX, end, zero, 0), LIR_NONE,
                           -(i64)e->target->lanes);
        reduce_loop(n, r, (struct range){.start = zero, .end = whole}, false);
        if (dim_is_sym(src->shape[r->inner]) || r->heavy->reduce.has_len ||
            (u32)src->shape[r->inner].v % e->target->lanes)
            reduce_loop(n, r, (struct range){.start = whole, .end = end}, true);
    }
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
