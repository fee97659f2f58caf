/*
 * lower_linear.c: products with packed weights, the quantisation of their activations, and rows of
 * packed tables. All are driven by `struct packing` (compile.h): a new weight format is new numbers
 * there, not new code here.
 *
 * Lanes are rows of the weight. Per block of columns the inner loop is integers only: code planes
 * are unpacked once and multiplied with four broadcast activation bytes at a time for each of the
 * unrolled activation rows.
 */
#include "ml/compile/emit.h"

/* Memory of a stage's result. */
static struct lir_mem in_stage(const struct emit *e, const struct stage *s, u16 base, i64 disp)
{
    struct lir_mem mem = mem_at(base, disp);

    mem.space = s->local ? LIR_GROUP : LIR_GLOBAL;
    mem.fixed = s != e->stage && is_fixed(e, s->node);
    return mem;
}

/* Memory of a weight. */
static struct lir_mem fixed_at(u16 base, i64 disp)
{
    struct lir_mem mem = mem_at(base, disp);

    mem.fixed = true;
    return mem;
}

/* A pointer that the loop advances: its own register, written twice. */
static u16 pointer(struct emit *e, u16 start)
{
    u16 p = emit_var(e, LIR_SCALAR);
    emit_move(e, p, start);
    return p;
}

static void advance(struct emit *e, u16 p, i64 bytes)
{
    struct lir_instr i = emit_blank(e, LIR_S_ADDI);

    i.dst = i.a = p;
    i.imm = bytes;
    *lir_emit(e->lir, LIR_S_ADDI) = i;
}

/* Address of a row of a QUANT result; *step: bytes from one element of `axis` to the next. */
static u16 quant_address(struct emit *e, u32 node, const struct affine *idx, u8 axis, i64 *step)
{
    const struct node *n = emit_node(e, node);
    const struct stage *s = &e->schedule->stage[e->schedule->stage_of[node]];
    u32 columns = dim_bound(e->graph, n->shape[n->rank - 1]);
    i64 stride = quant_row(columns, n->quant.block).bytes;
    u16 base = emit_arg(e, s->place);

    *step = 0;
    for (u32 d = n->rank - 1; d-- > 0;) {
        for (u32 o = 0; o < e->open_count; o++) {
            u32 a = e->order[o];
            if (idx[d].coef[a])
                base = emit_s_add(e, base,
                                  emit_s_muli(e, e->axis[a].counter, idx[d].coef[a] * stride));
            if (a == axis)
                *step += idx[d].coef[a] * stride;
        }
        base = emit_s_addi(e, base, idx[d].constant * stride);
        stride *= dim_bound(e->graph, n->shape[d]);
    }
    return base;
}

/* ---- where a row tile lies ---- */

struct tile open_tile(struct emit *e, u32 weight, u16 row, bool whole)
{
    const struct node *w = emit_node(e, weight);
    const struct external *x = &e->graph->external[w->source.external];
    struct tile t = {.packing = &x->packing,
                     .size = pack_tile(&x->packing, dim_bound(e->graph, w->shape[1]))};
    u32 tile = t.packing->tile;
    u16 number = emit_s(e, LIR_S_SHRI, row, LIR_NONE, __builtin_ctz(tile));
    u16 base =
        emit_s_add(e, emit_arg(e, w->source.external), emit_s_muli(e, number, t.size.tile_bytes));

    t.planes = t.scales = t.head = base;
    if (whole)
        return t;
    u16 lane = emit_s(e, LIR_S_ANDI, row, LIR_NONE, tile - 1);
    u32 element = t.packing->code_bits ? 4 : dtype_bytes(t.packing->float_type);
    t.planes = emit_s_add(e, base, emit_s_muli(e, lane, element));
    t.scales =
        emit_s_add(e, base, emit_s_muli(e, lane, dtype_bytes((enum dtype)t.packing->scale_type)));
    t.head = emit_s_add(e, base, emit_s_muli(e, lane, 2));
    return t;
}

/* Makes the pointers advance through the tile: three registers when lanes stand apart, else one. */
static void walk_tile(struct emit *e, struct tile *t)
{
    bool same = t->scales == t->planes;

    t->planes = pointer(e, t->planes);
    t->scales = same ? t->planes : pointer(e, t->scales);
    if (t->packing->super > 1)
        t->head = pointer(e, t->head);
}

static void advance_tile(struct emit *e, const struct tile *t, i64 bytes)
{
    advance(e, t->planes, bytes);
    if (t->scales != t->planes)
        advance(e, t->scales, bytes);
}

u16 block_factor(struct emit *e, const struct tile *t, u32 which, u16 super_factor)
{
    i64 offset = t->size.low_bytes + t->size.high_bytes + which * t->size.scale_bytes;
    enum dtype type = (enum dtype)t->packing->scale_type;
    u16 f = emit_get(e, LIR_V_LOAD, type, fixed_at(t->scales, offset));

    if (type == DT_U8 || type == DT_I8)
        f = emit_v(e, LIR_CVT_I2F, f, LIR_NONE, LIR_NONE);
    return super_factor == LIR_NONE ? f : emit_two(e, LIR_FMUL, f, super_factor);
}

struct super super_factors(struct emit *e, const struct tile *t)
{
    struct super s = {LIR_NONE, LIR_NONE};

    if (t->packing->super > 1) {
        s.scale = emit_get(e, LIR_V_LOAD, DT_F16, fixed_at(t->head, 0));
        if (t->packing->has_min)
            s.min = emit_get(e, LIR_V_LOAD, DT_F16, fixed_at(t->head, 2 * t->packing->tile));
    }
    return s;
}

u16 group_codes(struct emit *e, const struct tile *t, u32 group)
{
    u32 low = t->size.low_bits, high = t->size.high_bits, row_bytes = 4u * t->packing->tile;
    u32 per = 8 / low;
    u16 codes =
        emit_get(e, LIR_V_LOAD, DT_I32, fixed_at(t->planes, (i64)(group / per) * row_bytes));

    if (low == 4) {
        codes = group % per ? emit_vi(e, LIR_ISHRI, codes, 4, 0) : codes;
        codes = emit_two(e, LIR_IAND, codes, emit_const_i32(e, 0x0f0f0f0fu));
    }
    if (high == 0)
        return codes;
    per = 8 / high;
    u16 top = emit_get(e, LIR_V_LOAD, DT_I32,
                       fixed_at(t->planes, t->size.low_bytes + (i64)(group / per) * row_bytes));
    i32 up = 4 - (i32)(high * (group % per));
    top = up > 0   ? emit_vi(e, LIR_ISHLI, top, up, 0)
          : up < 0 ? emit_vi(e, LIR_ISHRI, top, -up, 0)
                   : top;
    top = emit_two(e, LIR_IAND, top, emit_const_i32(e, high == 1 ? 0x10101010u : 0x30303030u));
    return emit_two(e, LIR_IOR, codes, top);
}

/* Loops over super blocks and blocks; body emits one block. Closed by end_blocks. */
static struct super begin_blocks(struct emit *e, struct tile *t)
{
    u16 zero = emit_s_const(e, 0);
    struct super s = {LIR_NONE, LIR_NONE};

    walk_tile(e, t);
    if (t->packing->super > 1) {
        emit_loop(e, zero, emit_s_const(e, t->size.blocks / t->packing->super), 1);
        s = super_factors(e, t);
        advance_tile(e, t, t->size.super_head_bytes);
        emit_loop(e, zero, emit_s_const(e, t->packing->super), 1);
    } else {
        emit_loop(e, zero, emit_s_const(e, t->size.blocks), 1);
    }
    return s;
}

static void end_blocks(struct emit *e, const struct tile *t)
{
    advance_tile(e, t, t->size.block_bytes);
    emit_end(e);
    if (t->packing->super > 1) {
        advance(e, t->head, t->size.super_bytes);
        emit_end(e);
    }
}

/* ---- products ---- */

struct product {
    struct tile tile;
    u32 unroll;
    u16 *acc;                    /* float results, one per activation row */
    u16 codes, rest;             /* QUANT: pointers to the first row's codes and its scale */
    const struct stage *x_stage; /* which computes them */
    struct quant_row row;
    i64 step;                   /* bytes between activation rows */
    u32 x;                      /* the activations' node */
    const struct affine *x_idx; /* of the first row and the open column axis RANK_MAX */
    u8 unroll_axis;
};

/* chain + four codes times four activation bytes. */
static u16 dot4(struct emit *e, u32 code_bits, u16 codes, u16 x, u16 chain)
{
    struct lir_instr i = emit_blank(e, LIR_DOT4);

    i.a = codes;
    i.b = x;
    i.c = chain;
    i.imm = (1 << code_bits) - 1;
    return emit_pure(e, i);
}

/* One plane of activation bytes times the codes of a group. Without an exact 8-bit product, codes
 * of 8 bits go as two halves: chain[0] their low, chain[1] their high four bits. */
static void group_dot(struct emit *e, const struct packing *packing, u16 codes, u16 x, u16 chain[2])
{
    u16 low = emit_const_i32(e, 0x0f0f0f0fu);

    if (packing->code_bits < 8 || e->target->vnni) {
        chain[0] = dot4(e, packing->code_bits, codes, x, chain[0]);
        return;
    }
    u16 top = emit_two(e, LIR_IAND, emit_vi(e, LIR_ISHRI, codes, 4, 0), low);
    chain[0] = dot4(e, 4, emit_two(e, LIR_IAND, codes, low), x, chain[0]);
    chain[1] = dot4(e, 4, top, x, chain[1]);
}

/* sum over the block of code * activation, with the zero point taken off by the sum of the
 * activations. A chain of dot products for each plane of the activations. */
static void block_dot(struct emit *e, const struct product *p, u16 *dot)
{
    const struct packing *packing = p->tile.packing;
    u16 zero = emit_const_i32(e, 0), chain[UNROLL_MAX][2][2];

    for (u32 u = 0; u < p->unroll; u++)
        for (u32 i = 0; i < 4; i++)
            chain[u][i / 2][i % 2] = zero;
    for (u32 g = 0; g < packing->block / 4u; g++) {
        u16 codes = group_codes(e, &p->tile, g);
        for (u32 u = 0; u < p->unroll; u++)
            for (u32 plane = 0; plane < 2; plane++) {
                i64 disp = plane * p->row.low_at + 4 * g + u * p->step;
                u16 x = emit_get(e, LIR_V_BCAST, DT_I32, in_stage(e, p->x_stage, p->codes, disp));
                group_dot(e, packing, codes, x, chain[u][plane]);
            }
    }
    for (u32 u = 0; u < p->unroll; u++) {
        for (u32 plane = 0; plane < 2; plane++)
            if (chain[u][plane][1] != zero)
                chain[u][plane][0] = emit_two(e, LIR_IADD, chain[u][plane][0],
                                              emit_vi(e, LIR_ISHLI, chain[u][plane][1], 4, 0));
        u16 high = emit_vi(e, LIR_ISHLI, chain[u][0][0], QUANT_LOW_BITS, 0);
        dot[u] = emit_two(e, LIR_IADD, high, chain[u][1][0]);
        if (!packing->zero)
            continue;
        i64 nsum_at = p->row.nsum_at - p->row.scale_at + u * p->step;
        u16 nsum = emit_get(e, LIR_V_BCAST, DT_I32, in_stage(e, p->x_stage, p->rest, nsum_at));
        dot[u] = emit_two(e, LIR_IADD, dot[u],
                          emit_vi(e, LIR_ISHLI, nsum, __builtin_ctz(packing->zero), 0));
    }
}

static void product_quant(struct emit *e, struct product *p)
{
    const struct node *n = emit_node(e, p->x);
    u16 dot[UNROLL_MAX];

    p->row = quant_row(dim_bound(e->graph, n->shape[n->rank - 1]), n->quant.block);
    p->x_stage = &e->schedule->stage[e->schedule->stage_of[p->x]];
    u16 base = quant_address(e, p->x, p->x_idx, p->unroll_axis, &p->step);
    p->codes = pointer(e, base);
    p->rest = pointer(e, emit_s_addi(e, base, p->row.scale_at));
    struct super super = begin_blocks(e, &p->tile);
    block_dot(e, p, dot);
    u16 scale = block_factor(e, &p->tile, 0, super.scale);
    u16 min = p->tile.packing->has_min ? block_factor(e, &p->tile, 1, super.min) : LIR_NONE;
    for (u32 u = 0; u < p->unroll; u++) {
        u16 d = emit_get(e, LIR_V_BCAST, DT_F32, in_stage(e, p->x_stage, p->rest, u * p->step));
        emit_fma(e, p->acc[u], emit_v(e, LIR_CVT_I2F, dot[u], LIR_NONE, LIR_NONE),
                 emit_two(e, LIR_FMUL, scale, d));
        if (min == LIR_NONE)
            continue;
        u16 sum = emit_get(
            e, LIR_V_BCAST, DT_F32,
            in_stage(e, p->x_stage, p->rest, p->row.ssum_at - p->row.scale_at + u * p->step));
        emit_fma(e, p->acc[u], min, sum);
    }
    advance(e, p->codes, p->row.block);
    advance(e, p->rest, 4);
    end_blocks(e, &p->tile);
}

/* acc[u] += weight * x[u][column]. */
static void add_column(struct emit *e, const struct product *p, u32 column, u16 w)
{
    e->axis[RANK_MAX].bias = (i32)column;
    for (u32 u = 0; u < p->unroll; u++) {
        if (p->unroll_axis != NO_AXIS)
            e->axis[p->unroll_axis].bias = (i32)u;
        emit_fma(e, p->acc[u], w, emit_value(e, p->x, p->x_idx));
    }
    if (p->unroll_axis != NO_AXIS)
        e->axis[p->unroll_axis].bias = 0;
}

/* Float weights: one load per column. */
static void product_float(struct emit *e, struct product *p)
{
    const struct packing *packing = p->tile.packing;
    const struct node *x = emit_node(e, p->x);
    u32 columns = dim_bound(e->graph, x->shape[x->rank - 1]);
    u32 stride = packing->tile * dtype_bytes(packing->float_type), start = 0;

    walk_tile(e, &p->tile);
    for (u32 step = 4; step > 0; step /= 4) {
        u32 end = columns / step * step;
        if (end <= start)
            continue;
        axis_open(e, RANK_MAX, emit_loop(e, emit_s_const(e, start), emit_s_const(e, end), step));
        for (u32 k = 0; k < step; k++)
            add_column(e, p, k,
                       emit_get(e, LIR_V_LOAD, packing->float_type,
                                fixed_at(p->tile.planes, (i64)k * stride)));
        advance_tile(e, &p->tile, (i64)step * stride);
        axis_close(e, RANK_MAX);
        emit_end(e);
        start = end;
    }
}

/* Code byte j of a group as float. */
static u16 code_value(struct emit *e, u16 codes, u32 j)
{
    u16 code =
        emit_two(e, LIR_IAND, emit_vi(e, LIR_ISHRI, codes, 8 * (i64)j, 0), emit_const_i32(e, 0xff));

    return emit_v(e, LIR_CVT_I2F, code, LIR_NONE, LIR_NONE);
}

/* What is added to scale * code: the block's minimum, or minus the zero point times the scale. */
static u16 code_offset(struct emit *e, const struct tile *t, u16 scale, struct super super)
{
    if (t->packing->has_min)
        return block_factor(e, t, 1, super.min);
    return emit_two(e, LIR_FMUL, scale, emit_const_f32(e, -(f32)t->packing->zero));
}

/* Quantised weights with float activations: the witness for what quantising the activations costs.
 */
static void product_decode(struct emit *e, struct product *p)
{
    const struct packing *packing = p->tile.packing;
    u16 column = pointer(e, emit_s_const(e, 0));
    struct super super = begin_blocks(e, &p->tile);
    u16 scale = block_factor(e, &p->tile, 0, super.scale),
        offset = code_offset(e, &p->tile, scale, super);

    axis_open(e, RANK_MAX, column);
    for (u32 g = 0; g < packing->block / 4u; g++) {
        u16 codes = group_codes(e, &p->tile, g);
        for (u32 j = 0; j < 4; j++)
            add_column(e, p, 4 * g + j, emit_v(e, LIR_FMA, code_value(e, codes, j), scale, offset));
    }
    axis_close(e, RANK_MAX);
    advance(e, column, packing->block);
    end_blocks(e, &p->tile);
}

bool hold_linear(struct nest *nest, const struct affine *idx, struct held *held)
{
    struct emit *e = nest->e;
    const struct node *n = emit_node(e, e->stage->heavy);
    struct affine *x_idx = arena_new(e->arena, struct affine, RANK_MAX);
    struct product p = {.unroll = nest->unroll,
                        .acc = held->res,
                        .x = n->src[0],
                        .x_idx = x_idx,
                        .unroll_axis = nest->unroll_axis};

    if (!x_idx)
        return false;
    held->idx = idx;
    held->op = LIR_FADD;
    memcpy(x_idx, idx, RANK_MAX * sizeof *x_idx);
    x_idx[n->rank - 1] = affine_axis(RANK_MAX);
    for (u32 u = 0; u < p.unroll; u++) {
        p.acc[u] = emit_var(e, LIR_VECTOR);
        emit_set_const(e, p.acc[u], 0);
    }
    p.tile = open_tile(e, n->src[1], e->axis[n->rank - 1].counter, e->lanes > 1);
    if (p.tile.packing->code_bits == 0)
        product_float(e, &p);
    else if (emit_node(e, p.x)->op == OP_QUANT)
        product_quant(e, &p);
    else
        product_decode(e, &p);
    return true;
}

/* ---- QUANT: a row of activations, block by block ---- */

/* A vector may hold several short blocks: its parts. */
struct quant_out {
    u16 codes, rest;
    struct quant_row row;
    u32 vectors, parts; /* one of them is 1 */
};

static u16 across(struct emit *e, enum lir_op op, u16 value, const struct quant_out *out)
{
    return emit_vi(e, op, value, out->row.block < e->lanes ? out->row.block : 0, 0);
}

/* Stores what is the same in all lanes of a part. */
static void put_factor(struct emit *e, u16 value, enum dtype type, const struct quant_out *out,
                       u32 at)
{
    u8 lanes = e->lanes;

    for (u32 p = 0; p < out->parts; p++) {
        u16 one = value;
        if (p > 0) { /* brings it to lane 0: whole numbers, so that no bit changes */
            u16 iota = emit_v(e, LIR_V_IOTA, LIR_NONE, LIR_NONE, LIR_NONE);
            u16 here =
                emit_compare(e, LIR_ICMP, LIR_EQ, iota, emit_const_i32(e, p * out->row.block));
            one = emit_v(e, LIR_SELECT, here, value, emit_const_i32(e, 0));
            one = emit_v(e, LIR_HSUM_I, one, LIR_NONE, LIR_NONE);
        }
        e->lanes = 1;
        emit_put(e, one, type, in_stage(e, e->stage, out->rest, at + 4 * p));
        e->lanes = lanes;
    }
}

static void quant_block(struct emit *e, const u16 *x, const struct quant_out *out)
{
    u32 count = out->vectors;
    u16 amax = LIR_NONE, sum = LIR_NONE;

    for (u32 v = 0; v < count; v++) {
        u16 a = emit_two(e, LIR_IAND, x[v], emit_const_i32(e, 0x7fffffffu));
        amax = v == 0 ? a : emit_two(e, LIR_FMAX, amax, a);
    }
    amax = across(e, LIR_HMAX_F, amax, out);
    /* QUANT_MOST / amax would overflow: such a block is all zero */
    u16 tiny = emit_compare(e, LIR_FCMP, LIR_LT, amax, emit_const_f32(e, 1e-30f));
    u16 inverse = emit_v(e, LIR_SELECT, tiny, emit_const_i32(e, 0),
                         emit_two(e, LIR_FDIV, emit_const_f32(e, QUANT_MOST), amax));
    for (u32 v = 0; v < count; v++) {
        u16 c = emit_vi(e, LIR_CVT_F2I, emit_two(e, LIR_FMUL, x[v], inverse), 0, LIR_NEAREST);
        u16 up = emit_two(e, LIR_IADD, c, emit_const_i32(e, 1u << (QUANT_LOW_BITS - 1)));
        u16 high = emit_vi(e, LIR_ISARI, up, QUANT_LOW_BITS, 0);
        u16 low = emit_two(e, LIR_ISUB, c, emit_vi(e, LIR_ISHLI, high, QUANT_LOW_BITS, 0));
        emit_put(e, high, DT_I8, in_stage(e, e->stage, out->codes, (i64)v * e->lanes));
        emit_put(e, low, DT_I8,
                 in_stage(e, e->stage, out->codes, out->row.low_at + (i64)v * e->lanes));
        sum = v == 0 ? c : emit_two(e, LIR_IADD, sum, c);
    }
    sum = across(e, LIR_HSUM_I, sum, out);
    u16 scale = emit_two(e, LIR_FDIV, amax, emit_const_f32(e, QUANT_MOST));
    u16 negative = emit_two(e, LIR_ISUB, emit_const_i32(e, 0), sum);
    u16 scaled = emit_two(e, LIR_FMUL, scale, emit_v(e, LIR_CVT_I2F, sum, LIR_NONE, LIR_NONE));
    put_factor(e, scale, DT_F32, out, 0);
    put_factor(e, negative, DT_I32, out, out->row.nsum_at - out->row.scale_at);
    put_factor(e, scaled, DT_F32, out, out->row.ssum_at - out->row.scale_at);
}

/* Opens loops over the leading axes of the stage's space that the grid has not fixed. */
static u32 open_rows(struct emit *e, u32 axes)
{
    u32 opened = 0;

    for (u32 a = 0; a < axes; a++) {
        struct range r = axis_range(e, a);
        if (r.fixed)
            continue;
        axis_open(e, a, emit_loop(e, r.start, r.end, 1));
        opened++;
    }
    return opened;
}

static void close_rows(struct emit *e, u32 opened)
{
    while (opened-- > 0) {
        axis_close(e, e->order[e->open_count - 1]);
        emit_end(e);
    }
}

/* Columns of a row at `base`, some whole vectors at a time. */
static void quant_columns(struct emit *e, const struct affine *idx, u16 base, struct range columns,
                          struct quant_out out)
{
    const struct node *n = emit_node(e, e->stage->node);
    u32 last = n->rank - 1u;
    u16 x[QUANT_VECTORS_MAX];

    u16 column = emit_shared_loop(e, columns.start, columns.end, out.vectors * e->target->lanes);
    axis_open(e, last, column);
    e->lanes = (u8)e->target->lanes;
    e->lane_axis = (u8)last;
    for (u32 v = 0; v < out.vectors; v++) {
        e->axis[last].bias = (i32)(v * e->lanes);
        x[v] = emit_value(e, n->src[0], idx);
    }
    e->axis[last].bias = 0;
    u16 block = emit_s(e, LIR_S_SHRI, column, LIR_NONE, __builtin_ctz(out.row.block));
    out.rest = emit_s_addi(e, emit_s_add(e, base, emit_s_muli(e, block, 4)), out.row.scale_at);
    out.codes = emit_s_add(e, base, column);
    quant_block(e, x, &out);
    e->lanes = 1;
    e->lane_axis = NO_AXIS;
    axis_close(e, last);
    emit_end(e);
}

void emit_quant_stage(struct emit *e)
{
    const struct node *n = emit_node(e, e->stage->node);
    u32 last = n->rank - 1u, opened = open_rows(e, last), lanes = e->target->lanes;
    struct quant_row row = quant_row(dim_bound(e->graph, n->shape[last]), n->quant.block);
    u32 vectors = max_u32(row.block / lanes, 1), parts = max_u32(lanes / row.block, 1);
    struct affine *idx = arena_new(e->arena, struct affine, RANK_MAX);
    i64 step;

    if (!idx || vectors > QUANT_VECTORS_MAX || vectors * lanes != row.block * parts) {
        e->status = idx ? E_UNSUPPORTED : E_NOMEM;
        return;
    }
    for (u32 i = 0; i < RANK_MAX; i++)
        idx[i] = i < n->rank ? affine_axis(i) : affine_zero();
    u16 base = quant_address(e, e->stage->node, idx, NO_AXIS, &step);
    struct range all = axis_range(e, last), whole = all;
    struct quant_out out = {.row = row, .vectors = vectors, .parts = parts};
    u32 full = row.columns / (vectors * lanes) * (vectors * lanes);
    if (e->stage->block[last] == 0)
        whole.end = emit_s_const(e, full);
    if (full)
        quant_columns(e, idx, base, whole, out);
    out.parts = (row.columns - full) / row.block;
    if (out.parts) /* what a last vector writes behind them is the padding of the planes */
        quant_columns(e, idx, base, (struct range){.start = whole.end, .end = all.end}, out);
    close_rows(e, opened);
}

/* ---- UNPACK: rows of a packed table, one lane ---- */

static void store_column(struct emit *e, u16 value, const struct affine *to, u32 column)
{
    e->axis[RANK_MAX].bias = (i32)column;
    emit_store(e, value, e->stage->node, to);
}

void emit_unpack_stage(struct emit *e)
{
    const struct node *n = emit_node(e, e->stage->node), *index = emit_node(e, n->src[1]);
    const struct node *table = emit_node(e, n->src[0]);
    bool one = e->waves > 1;
    if (one)
        emit_loop(e, LIR_WAVE, emit_s_const(e, 1), 1);
    u32 opened = open_rows(e, n->rank - 1u);
    struct affine *idx = arena_new(e->arena, struct affine, RANK_MAX),
                  *to = arena_new(e->arena, struct affine, RANK_MAX);

    if (!idx || !to) {
        e->status = E_NOMEM;
        return;
    }
    for (u32 i = 0; i < RANK_MAX; i++)
        idx[i] = to[i] = i < index->rank ? affine_axis(i) : affine_zero();
    to[n->rank - 1] = affine_axis(RANK_MAX);
    u16 row = emit_s(e, LIR_S_MIN, emit_scalar(e, n->src[1], idx),
                     emit_s_const(e, table->shape[0].v - 1), 0);
    struct tile t =
        open_tile(e, n->src[0], emit_s(e, LIR_S_MAX, row, emit_s_const(e, 0), 0), false);
    if (t.packing->code_bits == 0) {
        walk_tile(e, &t);
        axis_open(e, RANK_MAX,
                  emit_loop(e, emit_s_const(e, 0), emit_s_const(e, table->shape[1].v), 1));
        store_column(e, emit_get(e, LIR_V_LOAD, t.packing->float_type, fixed_at(t.planes, 0)), to,
                     0);
        advance_tile(e, &t, t.packing->tile * (i64)dtype_bytes(t.packing->float_type));
        axis_close(e, RANK_MAX);
        emit_end(e);
    } else {
        u16 column = pointer(e, emit_s_const(e, 0));
        struct super super = begin_blocks(e, &t);
        u16 scale = block_factor(e, &t, 0, super.scale), offset = code_offset(e, &t, scale, super);
        axis_open(e, RANK_MAX, column);
        for (u32 k = 0; k < t.packing->block; k++) {
            u16 code = code_value(e, group_codes(e, &t, k / 4), k % 4);
            store_column(e, emit_v(e, LIR_FMA, code, scale, offset), to, k);
        }
        axis_close(e, RANK_MAX);
        advance(e, column, t.packing->block);
        end_blocks(e, &t);
    }
    close_rows(e, opened);
    if (one)
        emit_end(e);
}

u32 row_parts(const struct emit *e)
{
    const struct node *n = emit_node(e, e->stage->node);

    if (e->stage->kind != STAGE_QUANT)
        return 1;
    return axis_bound(e, n->rank - 1u) / max_u32(n->quant.block, e->target->lanes);
}
