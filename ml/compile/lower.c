/*
 * lower.c: a kernel's loop nests. Items of the grid, then per stage: which axis the vector lanes run along, which axes are
 * unrolled so that operands are shared in registers, and the reduction that the stage holds.
 */
#include "ml/compile/emit.h"

#define NOTES_BYTES (256 * KIB) /* indexes and lists of one stage */

/* A stage's nest: output axes outermost first, each with its role. */
struct nest {
    struct emit *e;
    const struct node *space;
    u8 axis[RANK_MAX]; u32 count;
    u8 unroll_axis, lane_axis;   /* output axes, or NO_AXIS */
    u8 reduce_lane;              /* axis of the heavy node's source that the lanes run along instead, or NO_AXIS */
    u32 unroll_max, vectors_max;
    u32 unroll, vectors;         /* of the variant being emitted */
    bool zero;                   /* PAD: fill instead of copy */
};

/* ---- items ---- */

struct grid { u16 block[RANK_MAX]; };

/* Which block of each grid axis this item is; the last axis runs fastest. */
static void open_item(struct emit *e, u16 item, struct grid *grid)
{
    const struct kernel *k = e->kernel;
    const struct node *space = stage_space(e->graph, &e->schedule->stage[k->stage_first]);
    u16 rest = item;

    for (u32 a = k->grid_rank; a-- > 0;) {
        if (a == 0) {
            grid->block[a] = rest;
        } else {
            u16 n = emit_extent(e, space->shape[a]);
            if (k->divisor[a] > 1)
                n = emit_s(e, LIR_S_DIV, emit_s_addi(e, n, k->divisor[a] - 1), emit_s_const(e, k->divisor[a]), 0);
            grid->block[a] = emit_s(e, LIR_S_MOD, rest, n, 0);
            rest = emit_s(e, LIR_S_DIV, rest, n, 0);
        }
    }
}

static bool is_grid_fixed(const struct emit *e, u32 axis)
{
    return axis < e->kernel->grid_rank && e->kernel->divisor[axis] == 1;
}

/* The length that bounds an axis may depend on grid axes only, which are open before all others. */
static bool length_usable(const struct emit *e)
{
    const struct node *len;

    if (e->stage->len_node == NO_NODE)
        return false;
    len = emit_node(e, e->stage->len_node);
    for (u32 d = 0; d < len->rank; d++)
        if (len->shape[d].v != 1 && !is_grid_fixed(e, d))
            return false;
    return true;
}

struct range axis_range(struct emit *e, u32 axis)
{
    dim d = stage_space(e->graph, e->stage)->shape[axis];
    struct range r = {.count = dim_is_sym(d) ? -1 : d.v};

    if (is_grid_fixed(e, axis))
        return (struct range){.fixed = true, .count = 1};
    r.start = emit_s_const(e, 0);
    r.end = emit_extent(e, d);
    if (axis < e->kernel->grid_rank) {
        u32 divisor = e->kernel->divisor[axis];
        r.start = emit_s_muli(e, e->axis[axis].counter, divisor);
        r.end = emit_s(e, LIR_S_MIN, emit_s_addi(e, r.start, divisor), r.end, 0);
        r.count = !dim_is_sym(d) && (u32)d.v % divisor == 0 ? (i64)divisor : -1;
    }
    if (length_usable(e) && axis == e->stage->len_axis) {
        struct affine *idx = arena_new(e->arena, struct affine, RANK_MAX);
        const struct node *len = emit_node(e, e->stage->len_node);
        for (u32 i = 0; idx && i < RANK_MAX; i++)
            idx[i] = i < len->rank && len->shape[i].v != 1 ? affine_axis(i) : affine_zero();
        if (idx)
            r.end = emit_s(e, LIR_S_MIN, r.end, emit_scalar(e, e->stage->len_node, idx), 0);
        r.count = -1;
    }
    return r;
}

/* ---- choosing lanes and unrolling ---- */

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

/* Cost of one vector of a leaf along the axis, in loads; negative when there is no way to load it. */
static i32 lane_cost(const struct emit *e, const struct leaf *leaf, u32 axis)
{
    i64 stride = leaf_stride(e, leaf, axis);

    if (stride == 0 || stride == 1)
        return 1;
    if (dtype_bytes(node_storage(e, leaf->node)) != 4 || stride == INT32_MAX - 1)
        return -1;
    return (i32)e->target->lanes;
}

static u32 axis_extent(const struct emit *e, const struct nest *n, u32 axis)
{
    const struct node *of = axis < RANK_MAX ? n->space : emit_node(e, emit_node(e, e->stage->heavy)->src[0]);
    return dim_bound(e->graph, of->shape[axis % RANK_MAX]);
}

/* Cost per element of running lanes along the axis; UINT32_MAX: impossible. */
static u32 axis_cost(const struct emit *e, const struct nest *n, const struct leaf *leaf, u32 leaves, u32 axis)
{
    u32 lanes = e->target->lanes, cost = 1, extent = axis_extent(e, n, axis);

    for (u32 i = 0; i < leaves; i++) {
        i32 c = lane_cost(e, &leaf[i], axis);
        if (axis >= RANK_MAX && !leaf[i].in_heavy)
            continue;
        if (c < 0)
            return UINT32_MAX;
        cost += (u32)c * 16;
    }
    if (axis >= RANK_MAX) /* the lanes are added up at the end of each result */
        cost += 16 * 10 * lanes / max_u32(extent, lanes);
    return cost * (u32)round_up(extent, lanes) / extent;
}

/* The last axis that is longer than 1: stores along it are contiguous. */
static u8 store_axis(const struct node *space)
{
    for (u32 a = space->rank; a-- > 0;)
        if (space->shape[a].v != 1)
            return (u8)a;
    return NO_AXIS;
}

/* Vector stores need consecutive elements. */
static bool store_contiguous(const struct emit *e, u32 axis)
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

/* An output axis along which some operand of the reduction stays the same: unrolling it shares that operand. */
static u8 sharing_axis(struct emit *e, const struct nest *n, const struct leaf *leaf, u32 leaves)
{
    const struct node *heavy = emit_node(e, e->stage->heavy);

    for (u32 a = n->space->rank; a-- > 0;) {
        if (a == n->lane_axis || is_grid_fixed(e, a) || n->space->shape[a].v == 1 ||
            (e->stage->len_node != NO_NODE && a == e->stage->len_axis && n->reduce_lane == NO_AXIS) ||
            length_depends(e, heavy, a))
            continue;
        for (u32 i = 0; i < leaves; i++)
            if (leaf[i].in_heavy && leaf_stride(e, &leaf[i], a) == 0)
                return (u8)a;
    }
    return NO_AXIS;
}

static void choose_roles(struct nest *n)
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
    n->unroll_axis = sharing_axis(e, n, leaf, leaves);
    if (n->unroll_axis != NO_AXIS)
        n->unroll_max = 4;
    if (n->lane_axis != NO_AXIS) {
        u32 room = e->target->vector_regs > 16 ? VECTORS_MAX : n->unroll_axis != NO_AXIS ? 2 : VECTORS_MAX;
        u32 full = axis_extent(e, n, n->lane_axis) / e->target->lanes;
        n->vectors_max = full >= room ? room : full >= 2 ? 2 : 1;
    }
}

/* ---- reductions ---- */

static u32 identity_bits(const struct node *heavy)
{
    bool is_float = heavy->dtype == DT_F32;

    if (heavy->op == OP_REDUCE_SUM)
        return 0;
    if (heavy->op == OP_REDUCE_MAX)
        return is_float ? 0xff800000u : 0x80000000u;
    return is_float ? 0x7f800000u : 0x7fffffffu;
}

static enum lir_op combine_op(const struct node *heavy)
{
    bool is_float = heavy->dtype == DT_F32;

    if (heavy->op == OP_REDUCE_SUM)
        return is_float ? LIR_FADD : LIR_IADD;
    if (heavy->op == OP_REDUCE_MAX)
        return is_float ? LIR_FMAX : LIR_IMAX;
    return is_float ? LIR_FMIN : LIR_IMIN;
}

static enum lir_op across_op(const struct node *heavy)
{
    bool is_float = heavy->dtype == DT_F32;

    if (heavy->op == OP_REDUCE_SUM)
        return is_float ? LIR_HSUM_F : LIR_HSUM_I;
    if (heavy->op == OP_REDUCE_MAX)
        return is_float ? LIR_HMAX_F : LIR_HMAX_I;
    return is_float ? LIR_HMIN_F : LIR_HMIN_I;
}

/* acc = acc combined with the source's element; a product of floats is added in one rounding. */
static void accumulate(struct emit *e, const struct node *heavy, const struct affine *idx, u16 acc)
{
    const struct node *src = emit_node(e, heavy->src[0]);

    if (heavy->op == OP_REDUCE_SUM && src->op == OP_MUL && src->dtype == DT_F32 &&
        e->schedule->stage_of[heavy->src[0]] == NO_NODE) {
        u16 a = emit_value(e, src->src[0], idx), b = emit_value(e, src->src[1], idx);
        emit_into(e, acc, LIR_FMA, a, b, acc);
        return;
    }
    u16 value = emit_value(e, heavy->src[0], idx);
    emit_into(e, acc, combine_op(heavy), acc, value, LIR_NONE);
}

struct reduction {
    const struct node *heavy;
    const struct affine *idx;      /* of the heavy node */
    const struct affine *src_idx;  /* of its source */
    u16 acc[UNROLL_MAX * VECTORS_MAX];  /* lanes of the target */
    u16 tail[UNROLL_MAX];          /* lanes 1: what is left over when the lanes run along a reduced axis */
};

static void set_bias(struct nest *n, u32 u, u32 v)
{
    struct emit *e = n->e;

    if (n->unroll_axis != NO_AXIS)
        e->axis[n->unroll_axis].bias = (i32)u;
    if (n->lane_axis != NO_AXIS)
        e->axis[n->lane_axis].bias = (i32)(v * e->target->lanes);
}

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

static void reduce_loop(struct nest *n, struct reduction *r, u16 start, u16 end, u32 d, bool tail)
{
    struct emit *e = n->e;
    u8 lanes = e->lanes, lane_axis = e->lane_axis;
    bool along = n->reduce_lane == RANK_MAX + d;

    if (along) {
        e->lanes = tail ? 1 : (u8)e->target->lanes;
        e->lane_axis = tail ? NO_AXIS : n->reduce_lane;
    }
    axis_open(e, RANK_MAX + d, emit_loop(e, start, end, along && !tail ? e->target->lanes : 1));
    if (along || n->reduce_lane == NO_AXIS)
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
    u32 inner = NO_AXIS, opened[RANK_MAX], count = 0;

    for (u32 d = 0; d < src->rank; d++)
        if (r->heavy->reduce.axes >> d & 1)
            inner = n->reduce_lane == NO_AXIS ? d : n->reduce_lane - RANK_MAX;
    for (u32 d = 0; d < src->rank; d++) {
        if (!(r->heavy->reduce.axes >> d & 1) || d == inner)
            continue;
        axis_open(e, RANK_MAX + d, emit_loop(e, emit_s_const(e, 0), reduced_end(e, r, d), 1));
        opened[count++] = d;
    }
    CHECK(inner != NO_AXIS);
    u16 zero = emit_s_const(e, 0), end = reduced_end(e, r, inner);
    if (n->reduce_lane == NO_AXIS) {
        reduce_loop(n, r, zero, end, inner, false);
    } else {
        u16 whole = emit_s(e, LIR_S_ANDI, emit_s(e, LIR_S_MAX, end, zero, 0), LIR_NONE, -(i64)e->target->lanes);
        reduce_loop(n, r, zero, whole, inner, false);
        if (dim_is_sym(src->shape[inner]) || r->heavy->reduce.has_len || (u32)src->shape[inner].v % e->target->lanes)
            reduce_loop(n, r, whole, end, inner, true);
    }
    while (count > 0) {
        axis_close(e, RANK_MAX + opened[--count]);
        emit_end(e);
    }
}

static bool hold_reduction(struct nest *n, const struct affine *idx)
{
    struct emit *e = n->e;
    struct reduction *r = arena_new(e->arena, struct reduction, 1);
    struct affine *heavy_idx = arena_new(e->arena, struct affine, RANK_MAX);
    struct affine *src_idx = arena_new(e->arena, struct affine, RANK_MAX);
    bool across = n->reduce_lane != NO_AXIS;

    if (!r || !heavy_idx || !src_idx || !find_index(e, e->stage->node, idx, e->stage->heavy, heavy_idx))
        return false;
    r->heavy = emit_node(e, e->stage->heavy);
    for (u32 d = 0; d < r->heavy->rank; d++)
        src_idx[d] = r->heavy->reduce.axes >> d & 1 ? affine_axis(RANK_MAX + d) : heavy_idx[d];
    r->idx = heavy_idx;
    r->src_idx = src_idx;
    u8 lanes = e->lanes;
    for (u32 i = 0; i < n->unroll * n->vectors; i++) {
        e->lanes = across ? (u8)e->target->lanes : lanes;
        r->acc[i] = emit_var(e, LIR_VECTOR);
        emit_set_const(e, r->acc[i], identity_bits(r->heavy));
        e->lanes = lanes;
        if (across) {
            r->tail[i] = emit_var(e, LIR_VECTOR);
            emit_set_const(e, r->tail[i], identity_bits(r->heavy));
        }
    }
    reduce_axes(n, r);
    for (u32 u = 0; u < n->unroll; u++)
        for (u32 v = 0; v < n->vectors; v++) {
            u16 res = r->acc[u * n->vectors + v];
            set_bias(n, u, v);
            if (across) {
                e->lanes = (u8)e->target->lanes;
                res = emit_v(e, across_op(r->heavy), res, LIR_NONE, LIR_NONE);
                e->lanes = lanes;
                res = emit_v(e, combine_op(r->heavy), res, r->tail[u], LIR_NONE);
            }
            emit_remember(e, e->stage->heavy, heavy_idx, res);
        }
    set_bias(n, 0, 0);
    return true;
}

static bool hold_linear(struct nest *n, const struct affine *idx)
{
    struct emit *e = n->e;
    u16 res[UNROLL_MAX];

    emit_linear(e, e->stage->heavy, idx, n->unroll, n->unroll_axis, res);
    for (u32 u = 0; u < n->unroll; u++) {
        set_bias(n, u, 0);
        emit_remember(e, e->stage->heavy, idx, res[u]);
    }
    set_bias(n, 0, 0);
    return true;
}

/* ---- nests ---- */

static struct affine *identity_index(struct emit *e, const struct node *space)
{
    struct affine *idx = arena_new(e->arena, struct affine, RANK_MAX);

    for (u32 i = 0; idx && i < RANK_MAX; i++)
        idx[i] = i < space->rank ? affine_axis(i) : affine_zero();
    if (!idx)
        e->status = E_NOMEM;
    return idx;
}

/* state[index, rest] = value: a loop of one or no trip stands for the test whether the index lies inside. */
static void scatter_element(struct nest *n, const struct affine *idx)
{
    struct emit *e = n->e;
    const struct node *node = emit_node(e, e->stage->node), *index = emit_node(e, node->src[1]);
    struct affine *to = arena_new(e->arena, struct affine, RANK_MAX);
    u16 rows = emit_extent(e, node->shape[0]), row = emit_scalar(e, node->src[1], idx);
    u16 inside = emit_s(e, LIR_S_MIN, emit_s_addi(e, row, 1), emit_s(e, LIR_S_SUB, rows, row, 0), 0);

    if (!to) {
        e->status = E_NOMEM;
        return;
    }
    to[0] = affine_zero();
    to[0].dynamic = row;
    for (u32 d = 1; d < node->rank; d++)
        to[d] = idx[index->rank + d - 1];
    emit_loop(e, emit_s_const(e, 0), emit_s(e, LIR_S_MIN, inside, emit_s_const(e, 1), 0), 1);
    emit_store(e, emit_value(e, node->src[2], idx), e->stage->node, to);
    emit_end(e);
}

static void pad_element(struct nest *n, const struct affine *idx)
{
    struct emit *e = n->e;
    const struct node *node = emit_node(e, e->stage->node);
    struct affine *to = arena_new(e->arena, struct affine, RANK_MAX);

    if (!to) {
        e->status = E_NOMEM;
        return;
    }
    memcpy(to, idx, RANK_MAX * sizeof *to);
    for (u32 d = 0; !n->zero && d < node->rank; d++)
        to[d].constant += node->slice.begin[d];
    emit_store(e, n->zero ? emit_const_i32(e, 0) : emit_value(e, node->src[0], idx), e->stage->node, to);
}

static void nest_body(struct nest *n)
{
    struct emit *e = n->e;
    usize mark = arena_mark(e->arena);
    struct affine *idx = identity_index(e, n->space);

    if (!idx || e->status != OK)
        return;
    e->lane_axis = e->lanes > 1 ? n->lane_axis : NO_AXIS;
    if (n->zero || e->stage->kind == STAGE_SCATTER || e->stage->kind == STAGE_PAD) {
        e->stage->kind == STAGE_SCATTER ? scatter_element(n, idx) : pad_element(n, idx);
        arena_reset(e->arena, mark);
        return;
    }
    if (e->stage->heavy != NO_NODE) {
        bool linear = emit_node(e, e->stage->heavy)->op == OP_LINEAR;
        if (!(linear ? hold_linear(n, idx) : hold_reduction(n, idx)))
            e->status = E_UNSUPPORTED;
    }
    for (u32 u = 0; u < n->unroll && e->status == OK; u++)
        for (u32 v = 0; v < n->vectors; v++) {
            set_bias(n, u, v);
            emit_store(e, emit_value(e, e->stage->node, idx), e->stage->node, idx);
        }
    set_bias(n, 0, 0);
    arena_reset(e->arena, mark);
}

static void nest_level(struct nest *n, u32 level);

static void nest_variant(struct nest *n, u32 level, u16 start, u16 end, u32 step)
{
    struct emit *e = n->e;
    u32 axis = n->axis[level];

    if (axis == n->unroll_axis)
        n->unroll = step;
    if (axis == n->lane_axis) {
        e->lanes = step == 1 ? 1 : (u8)e->target->lanes;
        n->vectors = step == 1 ? 1 : step / e->target->lanes;
    }
    struct axis block = e->axis[axis]; /* a grid axis in blocks keeps its block number here */
    axis_open(e, axis, emit_loop(e, start, end, step));
    nest_level(n, level + 1);
    axis_close(e, axis);
    e->axis[axis] = block;
    emit_end(e);
    n->unroll = axis == n->unroll_axis ? 1 : n->unroll;
    if (axis == n->lane_axis) {
        e->lanes = 1;
        n->vectors = 1;
    }
}

static void nest_level(struct nest *n, u32 level)
{
    struct emit *e = n->e;

    if (level == n->count) {
        nest_body(n);
        return;
    }
    u32 axis = n->axis[level], step = 1;
    struct range r = axis_range(e, axis);
    if (r.fixed) {
        nest_level(n, level + 1);
        return;
    }
    if (r.count == 1 && axis >= e->kernel->grid_rank) { /* no loop for a single element */
        axis_open(e, axis, r.start);
        nest_level(n, level + 1);
        axis_close(e, axis);
        return;
    }
    if (axis == n->unroll_axis)
        step = n->unroll_max;
    if (axis == n->lane_axis)
        step = n->vectors_max * e->target->lanes;
    i64 left = r.count;
    for (;;) {
        u16 mid = r.end;
        if (step > 1) {
            u16 span = emit_s(e, LIR_S_MAX, emit_s(e, LIR_S_SUB, r.end, r.start, 0), emit_s_const(e, 0), 0);
            mid = emit_s_add(e, r.start, emit_s(e, LIR_S_ANDI, span, LIR_NONE, -(i64)step));
        }
        if (left < 0 || left >= step)
            nest_variant(n, level, r.start, mid, step);
        left = left < 0 ? left : left % step;
        if (step == 1 || left == 0 || e->status != OK)
            return;
        r.start = mid;
        bool lanes = axis == n->lane_axis;
        step = lanes && step > e->target->lanes ? e->target->lanes : lanes ? 1 : step / 2;
    }
}

/* Loop axes outside, then the unrolled one, then the one with the lanes. */
static void run_nest(struct nest *n)
{
    struct emit *e = n->e;
    n->count = 0;
    for (u32 pass = 0; pass < 3; pass++)
        for (u32 a = 0; a < n->space->rank; a++) {
            u32 role = a == n->lane_axis ? 2 : a == n->unroll_axis ? 1 : 0;
            if (role == pass)
                n->axis[n->count++] = (u8)a;
        }
    n->unroll = n->vectors = 1;
    e->lanes = 1;
    e->lane_axis = NO_AXIS;
    nest_level(n, 0);
}

/* The result of PAD before the source is copied into it: a nest over the result's own shape. */
static void fill_zero(struct emit *e)
{
    const struct stage *stage = e->stage;
    struct stage whole = *stage;
    struct nest n = {.e = e, .space = emit_node(e, stage->node), .unroll_axis = NO_AXIS, .reduce_lane = NO_AXIS,
                     .unroll_max = 1, .vectors_max = 1, .zero = true};

    whole.kind = STAGE_MAP;
    e->stage = &whole;
    n.lane_axis = store_axis(n.space);
    if (n.lane_axis != NO_AXIS && !store_contiguous(e, n.lane_axis))
        n.lane_axis = NO_AXIS;
    run_nest(&n);
    e->stage = stage;
}

static void lower_stage(struct emit *e)
{
    struct nest n = {.e = e, .space = stage_space(e->graph, e->stage), .unroll_axis = NO_AXIS, .lane_axis = NO_AXIS,
                     .reduce_lane = NO_AXIS, .unroll_max = 1, .vectors_max = 1};

    if (e->stage->kind == STAGE_QUANT || e->stage->kind == STAGE_UNPACK) {
        e->stage->kind == STAGE_QUANT ? emit_quant_stage(e) : emit_unpack_stage(e);
        return;
    }
    if (e->stage->heavy != NO_NODE && emit_node(e, e->stage->heavy)->op == OP_LINEAR) {
        n.lane_axis = (u8)(n.space->rank - 1);
        n.unroll_axis = n.space->rank > 1 ? (u8)(n.space->rank - 2) : NO_AXIS;
        n.unroll_max = n.unroll_axis == NO_AXIS ? 1 : e->target->vector_regs > 16 ? 8 : 4;
    } else {
        choose_roles(&n);
    }
    if (e->stage->kind == STAGE_PAD)
        fill_zero(e);
    run_nest(&n);
}

err lower_open(const struct graph *graph, const struct schedule *schedule, const struct target *target,
               struct arena *arena, struct emit **out)
{
    struct emit *e = arena_new(arena, struct emit, 1);
    void *notes = arena_take(arena, NOTES_BYTES, 64);

    if (!e || !notes)
        return E_NOMEM;
    e->graph = graph;
    e->schedule = schedule;
    e->target = target;
    e->notes = arena_on("lower", notes, NOTES_BYTES);
    e->arena = &e->notes;
    e->number = arena_take(arena, VALUE_NUMBERS_MAX * sizeof *e->number, _Alignof(struct value_number));
    *out = e;
    return e->number ? OK : E_NOMEM;
}

static void reset(struct emit *e, const struct kernel *kernel, struct lowered *out)
{
    e->kernel = kernel;
    e->out = out;
    e->lir = &out->lir;
    e->lanes = 1;
    e->lane_axis = NO_AXIS;
    e->number_count = e->open_count = e->scope_depth = e->depth = 0;
    e->status = OK;
    out->arg_count = 0;
    arena_reset(e->arena, 0);
    memset(e->head, 0xff, sizeof e->head);
    memset(e->axis, 0, sizeof e->axis);
    for (u32 a = 0; a < AXES_MAX; a++)
        e->axis[a].counter = LIR_NONE;
}

err lower_kernel(struct emit *e, const struct kernel *kernel, struct arena *arena, struct lowered *out)
{
    const struct schedule *schedule = e->schedule;
    struct grid grid = {};

    reset(e, kernel, out);
    TRY(lir_init(e->lir, arena));
    u16 item = emit_loop(e, LIR_BEGIN, LIR_END, 1);
    e->stage = &schedule->stage[kernel->stage_first];
    open_item(e, item, &grid);
    for (u32 i = 0; i < kernel->stage_count && e->status == OK; i++) {
        e->stage = &schedule->stage[kernel->stage_first + i];
        for (u32 a = 0; a < kernel->grid_rank; a++) {
            if (kernel->divisor[a] == 1)
                axis_open(e, a, grid.block[a]);
            else
                e->axis[a].counter = grid.block[a];
        }
        lower_stage(e);
        for (u32 a = kernel->grid_rank; a-- > 0;)
            if (kernel->divisor[a] == 1)
                axis_close(e, a);
    }
    emit_end(e);
    if (e->status != OK)
        return e->status;
    return e->lir->status;
}
