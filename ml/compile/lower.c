/*
 * lower.c: a kernel's loop nests. Per stage: which axis the vector lanes run along, which axes are
 * unrolled so that operands are shared in registers, and the reduction that the stage holds.
 */
#include "ml/compile/emit.h"

#define NOTES_BYTES (2 * MIB) /* indexes and lists of one stage */

void set_bias(struct nest *n, u32 u, u32 v)
{
    struct emit *e = n->e;

    if (n->unroll_axis != NO_AXIS)
        e->axis[n->unroll_axis].bias = (i32)u;
    if (n->lane_axis != NO_AXIS)
        e->axis[n->lane_axis].bias = (i32)(v * e->target->lanes);
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

/* state[index, rest] = value: a loop of one or no trip stands for the test whether the index lies
 * inside. */
static void scatter_element(struct nest *n, const struct affine *idx)
{
    struct emit *e = n->e;
    const struct node *node = emit_node(e, e->stage->node), *index = emit_node(e, node->src[1]);
    struct affine *to = arena_new(e->arena, struct affine, RANK_MAX);
    u16 rows = emit_extent(e, node->shape[0]), row = emit_scalar(e, node->src[1], idx);
    u16 inside =
        emit_s(e, LIR_S_MIN, emit_s_addi(e, row, 1), emit_s(e, LIR_S_SUB, rows, row, 0), 0);

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
    emit_store(e, n->zero ? emit_const_i32(e, 0) : emit_value(e, node->src[0], idx), e->stage->node,
               to);
}

static void nest_body(struct nest *n)
{
    struct emit *e = n->e;
    struct held held;
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
        e->quiet = true;
        if (e->own)
            hold_matrix(n, idx, &held);
        else if (!(linear ? hold_linear(n, idx, &held) : hold_reduction(n, idx, &held)))
            e->status = E_UNSUPPORTED;
        e->quiet = false;
        bool parts = n->partial || (e->waves > 1 && n->split_axis != NO_AXIS);
        if (parts && e->status == OK) {
            store_joined(n, idx, &held);
            arena_reset(e->arena, mark);
            return;
        }
    }
    for (u32 i = 0; i < n->unroll * n->vectors && e->stage->heavy != NO_NODE; i++) {
        set_bias(n, i / n->vectors, i % n->vectors);
        emit_remember(e, e->stage->heavy, held.idx, held.res[i]);
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
    bool shared = axis == n->spread_axis && !n->partial;
    axis_open(e, axis,
              shared ? emit_shared_loop(e, start, end, step) : emit_loop(e, start, end, step));
    if (e->stage->block[axis] % step == 0 && step == n->unroll_max) /* else others came before */
        e->axis[axis].factor = step;
    nest_level(n, level + 1);
    axis_close(e, axis);
    emit_end(e);
    n->unroll = axis == n->unroll_axis ? 1 : n->unroll;
    if (axis == n->lane_axis) {
        e->lanes = 1;
        n->vectors = 1;
    }
}

/* Elements behind a length are there, only nobody reads them: no need to stop within a vector. */
static bool rounds_up(const struct nest *n, u32 axis)
{
    const struct emit *e = n->e;
    dim extent = n->space->shape[axis];

    return e->target->waves > 0 && length_usable(e) && axis == e->stage->len_axis &&
           !dim_is_sym(extent) && axis_bound(e, axis) % e->target->lanes == 0 &&
           (u32)extent.v % e->target->lanes == 0 && !e->stage->output;
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
    if (r.count == 1) { /* no loop for a single element */
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
    u16 start = r.start;
    bool whole = axis == n->lane_axis && rounds_up(n, axis); /* up to the end of a vector */
    if (whole)
        r.end = emit_s(e, LIR_S_ANDI, emit_s_addi(e, r.end, e->target->lanes - 1), LIR_NONE,
                       -(i64)e->target->lanes);
    for (;;) {
        u16 mid = r.end;
        if (step > 1) {
            u16 from = e->target->waves ? start : r.start; /* the same, with fewer instructions */
            u16 span =
                emit_s(e, LIR_S_MAX, emit_s(e, LIR_S_SUB, r.end, from, 0), emit_s_const(e, 0), 0);
            mid = emit_s_add(e, from, emit_s(e, LIR_S_ANDI, span, LIR_NONE, -(i64)step));
        }
        n->partial = step == 1 && axis == n->lane_axis && whole_tiles(n);
        n->end = r.end;
        if (left < 0 || left >= step)
            nest_variant(n, level, r.start, n->partial ? r.end : mid,
                         n->partial ? e->target->lanes : step);
        n->partial = false;
        left = left < 0 ? left : left % step;
        if (step == 1 || left == 0 || (whole && step == e->target->lanes) || e->status != OK)
            return;
        r.start = mid;
        bool lanes = axis == n->lane_axis;
        step = lanes && step > e->target->lanes ? e->target->lanes : lanes ? 1 : step / 2;
    }
}

/* Loop axes outside, then the unrolled one, then the one with the lanes. */
void run_nest(struct nest *n)
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
    bool one = e->waves > 1 && !e->own && n->spread_axis == NO_AXIS && n->split_axis == NO_AXIS;
    if (one) /* nothing to share: the first wave alone */
        emit_loop(e, LIR_WAVE, emit_s_const(e, 1), 1);
    nest_level(n, 0);
    if (one)
        emit_end(e);
}

static struct nest blank_nest(struct emit *e)
{
    return (struct nest){.e = e,
                         .space = stage_space(e->graph, e->stage),
                         .unroll_axis = NO_AXIS,
                         .lane_axis = NO_AXIS,
                         .reduce_lane = NO_AXIS,
                         .spread_axis = NO_AXIS,
                         .split_axis = NO_AXIS,
                         .unroll_max = 1,
                         .vectors_max = 1};
}

/* The result of PAD before the source is copied into it: a nest over the result's own shape. */
static void fill_zero(struct emit *e)
{
    const struct stage *stage = e->stage;
    struct stage whole = *stage;

    whole.kind = STAGE_MAP;
    e->stage = &whole;
    struct nest n = blank_nest(e);
    n.zero = true;
    n.lane_axis = store_axis(n.space);
    if (n.lane_axis != NO_AXIS && !store_contiguous(e, n.lane_axis))
        n.lane_axis = NO_AXIS;
    choose_shares(&n);
    run_nest(&n);
    e->stage = stage;
    if (e->waves > 1)
        emit_barrier(e);
}

static struct nest stage_nest(struct emit *e)
{
    struct nest n = blank_nest(e);

    if (e->stage->heavy != NO_NODE && emit_node(e, e->stage->heavy)->op == OP_LINEAR) {
        n.lane_axis = (u8)(n.space->rank - 1);
        n.unroll_axis = n.space->rank > 1 ? (u8)(n.space->rank - 2) : NO_AXIS;
        n.unroll_max = n.unroll_axis == NO_AXIS ? 1 : linear_rows(e);
    } else {
        choose_roles(&n);
    }
    return n;
}

/* How many waves have something to do in the stage. */
static u32 stage_waves(struct emit *e)
{
    usize mark = arena_mark(e->arena);

    if (e->stage->kind == STAGE_QUANT || e->stage->kind == STAGE_UNPACK)
        return row_parts(e);
    if (is_matrix(e))
        return MATRIX_WAVES;
    struct nest n = stage_nest(e);
    u32 waves = choose_shares(&n);
    arena_reset(e->arena, mark);
    return waves;
}

/* Where a stage has to wait until all waves are done with those from `first` on: at its start, or
 * where the parts of its sums meet anyway, if what it reads of theirs is not read before. */
enum { WAIT_NOT, WAIT_LATER, WAIT_NOW };
static u32 must_wait(const struct emit *e, u32 first, bool meets)
{
    const struct schedule *s = e->schedule;
    u32 wait = WAIT_NOT;

    if (e->waves == 1 || &s->stage[first] == e->stage)
        return WAIT_NOT;
    if (e->stage->kind == STAGE_SCATTER || e->stage->len_node != NO_NODE)
        return WAIT_NOW;
    for (u32 i = 0; i < e->stage->leaf_count; i++) {
        const struct leaf *leaf = &e->stage->leaf[i];
        u32 writer = s->stage_of[leaf->node];
        if (writer != NO_NODE && writer >= first && &s->stage[writer] < e->stage)
            wait = max_u32(wait, meets && !leaf->in_heavy ? WAIT_LATER : WAIT_NOW);
    }
    return wait;
}

/* *first: the stages before it are done in all waves. */
static void lower_stage(struct emit *e, u32 *first)
{
    bool quant = e->stage->kind == STAGE_QUANT, rows = quant || e->stage->kind == STAGE_UNPACK;
    struct nest n = rows ? blank_nest(e) : stage_nest(e);
    bool matrix = !rows && is_matrix(e);

    if (!rows && !matrix)
        choose_shares(&n);
    u32 wait = must_wait(e, *first, n.split_axis != NO_AXIS);
    if (wait != WAIT_NOT)
        *first = (u32)(e->stage - e->schedule->stage);
    if (wait == WAIT_NOW)
        emit_barrier(e);
    if (rows) {
        quant ? emit_quant_stage(e) : emit_unpack_stage(e);
    } else if (matrix) {
        emit_matrix(&n);
    } else {
        if (e->stage->kind == STAGE_PAD)
            fill_zero(e);
        run_nest(&n);
    }
}

err lower_open(const struct graph *graph, const struct schedule *schedule,
               const struct target *target, struct arena *arena, struct emit **out)
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
    e->number =
        arena_take(arena, VALUE_NUMBERS_MAX * sizeof *e->number, _Alignof(struct value_number));
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
    e->quiet = false;
    e->own = NULL;
    out->arg_count = 0;
    e->waves = 1;
    e->joined = false;
    out->group_bytes = kernel->scratch_bytes;
    arena_reset(e->arena, 0);
    memset(e->head, 0xff, sizeof e->head);
    memset(e->axis, 0, sizeof e->axis);
    memset(e->place, 0, sizeof e->place);
    memset(e->defined_at, 0, sizeof e->defined_at);
    memset(e->writer, 0, sizeof e->writer);
    for (u32 a = 0; a < AXES_MAX; a++)
        e->axis[a].counter = LIR_NONE;
}

err lower_kernel(struct emit *e, const struct kernel *kernel, struct arena *arena,
                 struct lowered *out)
{
    const struct schedule *schedule = e->schedule;

    reset(e, kernel, out);
    TRY(lir_init(e->lir, arena));
    bool group = e->target->waves > 0;
    for (u32 i = 0; group && i < kernel->stage_count; i++) {
        e->stage = &schedule->stage[kernel->stage_first + i];
        e->waves = min_u32(max_u32(e->waves, stage_waves(e)), e->target->waves);
    }
    out->waves = e->waves;
    u16 item = group ? LIR_BEGIN : emit_loop(e, LIR_BEGIN, LIR_END, 1);
    e->stage = &schedule->stage[kernel->stage_first];
    open_item(e, item);
    u32 waiting = kernel->stage_first;
    for (u32 i = 0; i < kernel->stage_count && e->status == OK; i++) {
        e->stage = &schedule->stage[kernel->stage_first + i];
        open_stage(e);
        lower_stage(e, &waiting);
        close_stage(e);
    }
    if (!group)
        emit_end(e);
    TRY(e->status);
    TRY(e->lir->status);
    return emit_settle(e, arena);
}
