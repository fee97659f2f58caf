/*
 * lower_linear.c: products with packed weights.
 *
 * Lanes are rows of the weight. Per block of columns the inner loop is integers only: code planes
 * are unpacked once and multiplied with four broadcast activation bytes at a time for each of the
 * unrolled activation rows.
 */
#include "ml/compile/lower_tile.h"

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
    bool shared; /* the waves take units in turn */
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

/* One of the numbers that stand beside the codes of activation row u for this block. */
static u16 block_number(struct emit *e, const struct product *p, u32 u, enum dtype type, u32 at)
{
    i64 disp = at - p->row.scale_at + 4 * p->tile.block + u * p->step;

    return emit_get(e, LIR_V_BCAST, type, in_stage(e, p->x_stage, p->rest, disp));
}

/* The zero point times minus the sum of the activations. */
static u16 block_zero(struct emit *e, const struct product *p, u32 u)
{
    u16 nsum = block_number(e, p, u, DT_I32, p->row.nsum_at);

    i64 shift = __builtin_ctz(p->tile.packing->zero) - (i32)QUANT_ZERO_BITS;

    return shift ? emit_vi(e, LIR_ISHLI, nsum, shift, 0) : nsum;
}

/* The word of the activations' codes at byte `at` of a row's planes, for the block. */
static u16 activations(struct emit *e, const struct product *p, u32 u, u32 at)
{
    i64 disp = (i64)p->tile.block * p->tile.packing->block + at + u * p->step;

    return emit_get(e, LIR_V_BCAST, DT_I32, in_stage(e, p->x_stage, p->codes, disp));
}

/* sum over the block of code * activation, with the zero point taken off by the sum of the
 * activations. A chain of dot products for each plane of the activations. */
static void block_dot(struct emit *e, const struct product *p, u16 *dot)
{
    const struct packing *packing = p->tile.packing;
    u16 zero = emit_const_i32(e, 0), chain[UNROLL_MAX][2][2];

    for (u32 u = 0; u < p->unroll; u++) {
        for (u32 i = 0; i < 4; i++)
            chain[u][i / 2][i % 2] = zero;
        if (packing->granule && packing->zero)
            chain[u][1][0] = block_zero(e, p, u);
    }
    for (u32 g = 0; g < packing->block / 4u; g++) {
        u16 codes = group_codes(e, &p->tile, g);
        for (u32 u = 0; u < p->unroll; u++)
            for (u32 plane = 0; plane < 2; plane++)
                group_dot(e, packing, codes, activations(e, p, u, plane * p->row.plane + 4 * g),
                          chain[u][plane]);
    }
    for (u32 u = 0; u < p->unroll; u++) {
        for (u32 plane = 0; plane < 2; plane++)
            if (chain[u][plane][1] != zero)
                chain[u][plane][0] = emit_two(e, LIR_IADD, chain[u][plane][0],
                                              emit_vi(e, LIR_ISHLI, chain[u][plane][1], 4, 0));
        u16 high = emit_vi(e, LIR_ISHLI, chain[u][0][0], QUANT_LOW_BITS, 0);
        dot[u] = emit_two(e, LIR_IADD, high, chain[u][1][0]);
        if (packing->zero && !packing->granule)
            dot[u] = emit_two(e, LIR_IADD, dot[u], block_zero(e, p, u));
    }
}

/* The same of 4-bit codes as they are: eight at a time, times each plane of half bytes. */
static void block_dot_half_bytes(struct emit *e, const struct product *p, u16 *dot)
{
    u16 zero = emit_const_i32(e, 0), chain[UNROLL_MAX][4];

    for (u32 u = 0; u < p->unroll; u++) {
        chain[u][0] = p->tile.packing->zero ? block_zero(e, p, u) : zero;
        chain[u][1] = chain[u][2] = chain[u][3] = zero;
    }
    for (u32 w = 0; w < p->tile.packing->block / 8u; w++)
        for (u32 i = 0; i < 4 * p->unroll; i++) {
            u32 plane = i % 4, u = i / 4;
            u32 at = p->row.half_at + plane % 2 * p->row.plane + 8 * w + plane / 2 * 4;
            struct lir_instr in = emit_blank(e, LIR_DOT8);
            in.a = plane_word(e, &p->tile, 0, w);
            in.b = activations(e, p, u, at);
            in.c = chain[u][plane];
            in.imm = plane == 3;
            chain[u][plane] = emit_pure(e, in);
        }
    for (u32 u = 0; u < p->unroll; u++) {
        dot[u] = chain[u][3];
        for (u32 plane = 3; plane-- > 0;)
            dot[u] = emit_two(e, LIR_IADD, emit_vi(e, LIR_ISHLI, dot[u], 4, 0), chain[u][plane]);
    }
}

static void product_quant(struct emit *e, struct product *p, u16 base)
{
    u16 dot[UNROLL_MAX];

    p->codes = emit_pointer(e, base);
    p->rest = emit_pointer(e, emit_s_addi(e, base, p->row.scale_at));
    struct super super = begin_blocks(e, &p->tile);
    block_dot(e, p, dot);
    u16 scale = block_factor(e, &p->tile, 0, super.scale);
    u16 min = p->tile.packing->has_min ? block_factor(e, &p->tile, 1, super.min) : LIR_NONE;
    for (u32 u = 0; u < p->unroll; u++) {
        u16 d = block_number(e, p, u, DT_F32, p->row.scale_at);
        emit_fma(e, p->acc[u], emit_v(e, LIR_CVT_I2F, dot[u], LIR_NONE, LIR_NONE),
                 emit_two(e, LIR_FMUL, scale, d));
        if (min == LIR_NONE)
            continue;
        u16 sum = block_number(e, p, u, DT_F32, p->row.ssum_at);
        emit_fma(e, p->acc[u], min, sum);
    }
    emit_advance(e, p->codes, p->row.block);
    emit_advance(e, p->rest, 4);
    end_blocks(e, &p->tile);
}

/* ---- with granules ---- */

/* acc += half `half` of a word * b. */
static void emit_fmah(struct emit *e, u16 acc, u16 word, u32 half, u16 b)
{
    struct lir_instr i = emit_blank(e, LIR_FMAH);

    i.dst = i.c = acc;
    i.a = word;
    i.b = b;
    i.imm = half;
    *lir_emit(e->lir, LIR_FMAH) = i;
}

/* All loads of the unit, before anything waits for one. */
static void load_unit(struct emit *e, const struct tile *t)
{
    u32 step = t->packing->granule * t->packing->tile;

    for (u32 at = 0; at + step <= (t->packing->super > 1 ? t->unit.head_at : t->unit.bytes);
         at += step)
        (void)unit_word(e, t, at, 0);
}

/* sum = a * b + sum, from nothing at first. */
static u16 add_product(struct emit *e, u16 a, u16 b, u16 sum)
{
    return sum == LIR_NONE ? emit_two(e, LIR_FMUL, a, b) : emit_v(e, LIR_FMA, a, b, sum);
}

/* Scales the dot products of a block: halves of the factors' words go in as they are, whole numbers
 * are collected in part for the super block. */
static void scale_block(struct emit *e, struct product *p, const u16 *dot, u16 part[][2])
{
    const struct tile *t = &p->tile;

    for (u32 which = 0; which < (t->packing->has_min ? 2u : 1u); which++) {
        u32 half;
        bool super = t->packing->super > 1;
        u16 factor = super ? block_factor(e, t, which, LIR_NONE) : factor_word(e, t, which, &half);
        for (u32 u = 0; u < p->unroll; u++) {
            u16 x = block_number(e, p, u, DT_F32, which ? p->row.ssum_at : p->row.scale_at);
            if (which == 0)
                x = emit_two(e, LIR_FMUL, emit_v(e, LIR_CVT_I2F, dot[u], LIR_NONE, LIR_NONE), x);
            if (super)
                part[u][which] = add_product(e, factor, x, part[u][which]);
            else
                emit_fmah(e, p->acc[u], factor, half, x);
        }
    }
}

static void unit_quant(struct emit *e, void *ctx, u16 column)
{
    struct product *p = ctx;
    struct tile *t = &p->tile;
    u16 codes = p->codes, rest = p->rest, dot[UNROLL_MAX], part[UNROLL_MAX][2];

    memset(part, 0xff, sizeof part);
    p->codes = emit_s_add(e, codes, column);
    u16 block = emit_s(e, LIR_S_SHRI, column, LIR_NONE, __builtin_ctz(t->packing->block));
    p->rest = emit_s_add(e, rest, emit_s_muli(e, block, 4));
    load_unit(e, t);
    u16 head = t->packing->super > 1
                   ? emit_get(e, LIR_V_LOAD, DT_I32, fixed_at(t->planes, t->unit.head_at))
                   : LIR_NONE;
    for (t->block = 0; t->block < t->blocks; t->block++) {
        if (quant_form(t->packing) == QUANT_HALF_BYTES)
            block_dot_half_bytes(e, p, dot);
        else
            block_dot(e, p, dot);
        scale_block(e, p, dot, part);
    }
    for (u32 i = 0; i < 2 * p->unroll; i++)
        if (part[i / 2][i % 2] != LIR_NONE)
            emit_fmah(e, p->acc[i / 2], head, i % 2, part[i / 2][i % 2]);
    p->codes = codes;
    p->rest = rest;
}

/* acc[u] += weight * x[u][column]; half: of a word of F16, or LIR_NONE. */
static void add_column(struct emit *e, const struct product *p, u32 column, u16 w, u32 half)
{
    e->axis[RANK_MAX].bias = (i32)column;
    for (u32 u = 0; u < p->unroll; u++) {
        if (p->unroll_axis != NO_AXIS)
            e->axis[p->unroll_axis].bias = (i32)u;
        u16 x = emit_value(e, p->x, p->x_idx);
        if (half == LIR_NONE)
            emit_fma(e, p->acc[u], w, x);
        else
            emit_fmah(e, p->acc[u], w, half, x);
    }
    if (p->unroll_axis != NO_AXIS)
        e->axis[p->unroll_axis].bias = 0;
}

static void unit_float(struct emit *e, void *ctx, u16 column)
{
    struct product *p = ctx;
    const struct tile *t = &p->tile;
    enum dtype type = t->packing->float_type;
    u32 per = 4 / dtype_bytes(type);

    axis_open(e, RANK_MAX, column);
    load_unit(e, t);
    for (u32 k = 0; k < t->blocks; k++) {
        u16 w = unit_word(e, t, 0, k / per);
        if (type == DT_BF16)
            w = k % 2 ? emit_two(e, LIR_IAND, w, emit_const_i32(e, 0xffff0000u))
                      : emit_vi(e, LIR_ISHLI, w, 16, 0);
        add_column(e, p, k, w, type == DT_F16 ? k % 2 : LIR_NONE);
    }
    axis_close(e, RANK_MAX);
}

/* ---- float activations ---- */

/* Float weights: one load per column. */
static void product_float(struct emit *e, struct product *p)
{
    const struct packing *packing = p->tile.packing;
    const struct node *x = emit_node(e, p->x);
    u32 columns = dim_bound(e->graph, x->shape[x->rank - 1]);
    u32 stride = packing->tile * dtype_bytes(packing->float_type), start = 0;

    tile_walk(e, &p->tile);
    for (u32 step = 4; step > 0; step /= 4) {
        u32 end = columns / step * step;
        if (end <= start)
            continue;
        axis_open(e, RANK_MAX, emit_loop(e, emit_s_const(e, start), emit_s_const(e, end), step));
        for (u32 k = 0; k < step; k++)
            add_column(e, p, k,
                       emit_get(e, LIR_V_LOAD, packing->float_type,
                                fixed_at(p->tile.planes, (i64)k * stride)),
                       LIR_NONE);
        tile_advance(e, &p->tile, (i64)step * stride);
        axis_close(e, RANK_MAX);
        emit_end(e);
        start = end;
    }
}

/* Quantised weights with float activations: the witness for what quantising the activations costs.
 */
static void decode_block(struct emit *e, struct product *p, struct super super)
{
    const struct tile *t = &p->tile;
    u16 scale = block_factor(e, t, 0, super.scale), offset = code_offset(e, t, scale, super);

    for (u32 g = 0; g < t->packing->block / 4u; g++) {
        u16 codes = group_codes(e, t, g);
        for (u32 j = 0; j < 4; j++)
            add_column(e, p, t->block * t->packing->block + 4 * g + j,
                       emit_v(e, LIR_FMA, code_value(e, codes, j), scale, offset), LIR_NONE);
    }
}

static void product_decode(struct emit *e, struct product *p)
{
    u16 column = emit_pointer(e, emit_s_const(e, 0));
    struct super super = begin_blocks(e, &p->tile);

    axis_open(e, RANK_MAX, column);
    decode_block(e, p, super);
    axis_close(e, RANK_MAX);
    emit_advance(e, column, p->tile.packing->block);
    end_blocks(e, &p->tile);
}

static void unit_decode(struct emit *e, void *ctx, u16 column)
{
    struct product *p = ctx;
    struct super super = super_factors(e, &p->tile);

    axis_open(e, RANK_MAX, column);
    for (p->tile.block = 0; p->tile.block < p->tile.blocks; p->tile.block++)
        decode_block(e, p, super);
    axis_close(e, RANK_MAX);
}

/* ---- the product ---- */

static void product_units(struct emit *e, struct product *p, u16 base)
{
    bool quant = base != LIR_NONE;

    if (quant) {
        p->codes = base;
        p->rest = emit_s_addi(e, base, p->row.scale_at);
    }
    each_unit(e, &(struct units){.tile = &p->tile,
                                 .shared = p->shared,
                                 .body = quant                             ? unit_quant
                                         : p->tile.packing->code_bits == 0 ? unit_float
                                                                           : unit_decode,
                                 .ctx = p});
}

static bool is_quant(const struct emit *e, u32 node)
{
    return emit_node(e, node)->op == OP_QUANT;
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
                        .unroll_axis = nest->unroll_axis,
                        .shared = nest->split_axis != NO_AXIS || nest->partial};
    u16 base = LIR_NONE;

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
    p.tile = tile_open(e, n->src[1], e->axis[n->rank - 1].counter, e->lanes > 1);
    bool quant = is_quant(e, p.x) && p.tile.packing->code_bits;
    if (quant) {
        p.row = quant_row(e->graph, p.x);
        p.x_stage = &e->schedule->stage[e->schedule->stage_of[p.x]];
        base = quant_address(e, p.x, p.x_idx, p.unroll_axis, &p.step);
    }
    if (p.tile.packing->granule)
        product_units(e, &p, base);
    else if (quant)
        product_quant(e, &p, base);
    else
        p.tile.packing->code_bits ? product_decode(e, &p) : product_float(e, &p);
    return true;
}

u32 linear_rows(const struct emit *e)
{
    bool quant = is_quant(e, emit_node(e, e->stage->heavy)->src[0]);

    if (e->target->waves)
        return quant ? UNROLL_MAX : 2; /* units are long */
    return e->target->vector_regs > 16 ? 8 : 2;
}

u32 row_parts(const struct emit *e)
{
    const struct node *n = emit_node(e, e->stage->node);

    if (e->stage->kind == STAGE_QUANT && quant_shares_rows(e)) /* few when it runs: no reason */
        return dim_is_sym(n->shape[n->rank - 2]) ? 1 : axis_bound(e, n->rank - 2u);
    if (e->stage->kind == STAGE_QUANT)
        return axis_bound(e, n->rank - 1u) / max_u32(n->quant.block, e->target->lanes);
    u32 weight = e->stage->kind == STAGE_UNPACK ? n->src[0] : emit_node(e, e->stage->heavy)->src[1];
    const struct node *w = emit_node(e, weight);
    struct pack_tile size = pack_tile(&e->graph->external[w->source.external].packing,
                                      dim_bound(e->graph, w->shape[1]));
    return unit_count(&size);
}
