/*
 * lower_tile.c: the way through a row tile of a packed weight: pointers or units, codes of four
 * columns, scales and minima. Driven by `struct packing` (compile.h): a new weight format is new
 * numbers there, not new code here.
 */
#include "ml/compile/lower_tile.h"

struct lir_mem in_stage(const struct emit *e, const struct stage *s, u16 base, i64 disp)
{
    struct lir_mem mem = mem_at(base, disp);

    mem.space = s->local ? LIR_GROUP : LIR_GLOBAL;
    mem.fixed = s != e->stage && is_fixed(e, s->node);
    return mem;
}

struct lir_mem fixed_at(u16 base, i64 disp)
{
    struct lir_mem mem = mem_at(base, disp);

    mem.fixed = true;
    return mem;
}

u16 emit_pointer(struct emit *e, u16 start)
{
    u16 p = emit_var(e, LIR_SCALAR);
    emit_move(e, p, start);
    return p;
}

void emit_advance(struct emit *e, u16 p, i64 bytes)
{
    struct lir_instr i = emit_blank(e, LIR_S_ADDI);

    i.dst = i.a = p;
    i.imm = bytes;
    *lir_emit(e->lir, LIR_S_ADDI) = i;
}

u16 quant_address(struct emit *e, u32 node, const struct affine *idx, u8 axis, i64 *step)
{
    const struct node *n = emit_node(e, node);
    const struct stage *s = &e->schedule->stage[e->schedule->stage_of[node]];
    i64 stride = quant_row(e->graph, node).bytes;
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

u32 open_rows(struct emit *e, u32 axes, bool share)
{
    u32 opened = 0;

    for (u32 a = 0; a < axes; a++) {
        struct range r = axis_range(e, a);
        if (r.fixed)
            continue;
        axis_open(e, a,
                  share && a + 1 == axes ? emit_shared_loop(e, r.start, r.end, 1)
                                         : emit_loop(e, r.start, r.end, 1));
        opened++;
    }
    return opened;
}

void close_rows(struct emit *e, u32 opened)
{
    while (opened-- > 0) {
        axis_close(e, e->order[e->open_count - 1]);
        emit_end(e);
    }
}

/* ---- where a row tile lies ---- */

struct tile tile_open(struct emit *e, u32 weight, u16 row, bool whole)
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
    if (whole || t.packing->granule)
        return t;
    u16 lane = emit_s(e, LIR_S_ANDI, row, LIR_NONE, tile - 1);
    u32 element = t.packing->code_bits ? 4 : dtype_bytes(t.packing->float_type);
    t.planes = emit_s_add(e, base, emit_s_muli(e, lane, element));
    t.scales =
        emit_s_add(e, base, emit_s_muli(e, lane, dtype_bytes((enum dtype)t.packing->scale_type)));
    t.head = emit_s_add(e, base, emit_s_muli(e, lane, 2));
    return t;
}

/* ---- granules ---- */

u16 unit_word(struct emit *e, const struct tile *t, u32 at, u32 word)
{
    u32 granule = t->packing->granule, words = granule / 4;
    i64 disp = at + (i64)(word / words) * granule * t->packing->tile;

    return (u16)(emit_get(e, LIR_V_LOAD4, DT_I32, fixed_at(t->planes, disp)) + word % words);
}

u16 factor_word(struct emit *e, const struct tile *t, u32 which, u32 *part)
{
    u32 bytes = dtype_bytes((enum dtype)t->packing->scale_type);
    u32 number = which * t->blocks + t->block;

    *part = number % (4 / bytes);
    return unit_word(e, t, t->unit.factors_at, number / (4 / bytes));
}

/* A scale or minimum as float; small whole numbers without their super factor. */
static u16 unit_factor(struct emit *e, const struct tile *t, u32 which)
{
    u32 part;
    u16 word = factor_word(e, t, which, &part);

    if (t->packing->scale_type == DT_F16)
        return emit_half(e, word, part);
    if (t->packing->scale_type == DT_I8) {
        word = part < 3 ? emit_vi(e, LIR_ISHLI, word, 24 - 8 * (i64)part, 0) : word;
        word = emit_vi(e, LIR_ISARI, word, 24, 0);
    } else {
        word = part > 0 ? emit_vi(e, LIR_ISHRI, word, 8 * (i64)part, 0) : word;
        word = part < 3 ? emit_two(e, LIR_IAND, word, emit_const_i32(e, 0xff)) : word;
    }
    return emit_v(e, LIR_CVT_I2F, word, LIR_NONE, LIR_NONE);
}

/* A loop of one trip for one wave, none for the others; its counter is 0. */
static u16 only_wave(struct emit *e, u32 wave)
{
    u16 number = emit_s_const(e, wave);
    u16 apart = emit_s(e, LIR_S_MAX, emit_s(e, LIR_S_SUB, LIR_WAVE, number, 0),
                       emit_s(e, LIR_S_SUB, number, LIR_WAVE, 0), 0);

    return emit_loop(e, apart, emit_s_const(e, 1), 1);
}

/* `unit`: its number, a SCALAR. */
static void one_unit(struct emit *e, const struct units *units, u16 unit, u32 blocks)
{
    struct tile *t = units->tile;
    u16 base = t->planes;
    u32 bytes = pack_unit(t->packing, t->size.unit_blocks).bytes;

    t->planes = emit_s_add(e, base, emit_s_muli(e, unit, bytes));
    t->unit = pack_unit(t->packing, blocks);
    t->blocks = blocks;
    u16 column = emit_s_muli(e, unit, (i64)t->size.unit_blocks * t->packing->block);
    units->body(e, units->ctx, column);
    t->planes = base;
}

void each_unit(struct emit *e, const struct units *units)
{
    const struct pack_tile *size = &units->tile->size;
    u32 count = size->blocks / size->unit_blocks, rest = size->blocks % size->unit_blocks;
    u16 zero = emit_s_const(e, 0), end = emit_s_const(e, count);

    if (count) {
        one_unit(e, units,
                 units->shared ? emit_shared_loop(e, zero, end, 1) : emit_loop(e, zero, end, 1),
                 size->unit_blocks);
        emit_end(e);
    }
    if (!rest)
        return;
    u16 counter = units->shared && e->waves > 1 ? only_wave(e, count % e->waves)
                                                : emit_loop(e, zero, emit_s_const(e, 1), 1);
    one_unit(e, units, emit_s_addi(e, counter, count), rest);
    emit_end(e);
}

u32 unit_count(const struct pack_tile *size)
{
    return (u32)div_up(size->blocks, max_u32(size->unit_blocks, 1));
}

/* ---- plain or with granules ---- */

/* Makes the pointers advance through the tile: three registers when lanes stand apart, else one. */
void tile_walk(struct emit *e, struct tile *t)
{
    bool same = t->scales == t->planes;

    t->planes = emit_pointer(e, t->planes);
    t->scales = same ? t->planes : emit_pointer(e, t->scales);
    if (t->packing->super > 1)
        t->head = emit_pointer(e, t->head);
}

void tile_advance(struct emit *e, const struct tile *t, i64 bytes)
{
    emit_advance(e, t->planes, bytes);
    if (t->scales != t->planes)
        emit_advance(e, t->scales, bytes);
}

u16 plane_word(struct emit *e, const struct tile *t, u32 plane, u32 word)
{
    u32 bits = plane ? t->size.high_bits : t->size.low_bits;

    if (t->packing->granule)
        return unit_word(e, t, plane ? t->unit.high_at : 0,
                         t->block * t->packing->block * bits / 32 + word);
    i64 disp = (plane ? t->size.low_bytes : 0) + (i64)word * 4 * t->packing->tile;
    return emit_get(e, LIR_V_LOAD, DT_I32, fixed_at(t->planes, disp));
}

u16 block_factor(struct emit *e, const struct tile *t, u32 which, u16 super_factor)
{
    enum dtype type = (enum dtype)t->packing->scale_type;
    if (t->packing->granule) {
        u16 value = unit_factor(e, t, which);
        return super_factor == LIR_NONE ? value : emit_two(e, LIR_FMUL, value, super_factor);
    }
    i64 offset = t->size.low_bytes + t->size.high_bytes + which * t->size.scale_bytes;
    u16 f = emit_get(e, LIR_V_LOAD, type, fixed_at(t->scales, offset));

    if (type == DT_U8 || type == DT_I8)
        f = emit_v(e, LIR_CVT_I2F, f, LIR_NONE, LIR_NONE);
    return super_factor == LIR_NONE ? f : emit_two(e, LIR_FMUL, f, super_factor);
}

struct super super_factors(struct emit *e, const struct tile *t)
{
    struct super s = {LIR_NONE, LIR_NONE};

    if (t->packing->super > 1 && t->packing->granule) {
        u16 head = emit_get(e, LIR_V_LOAD, DT_I32, fixed_at(t->planes, t->unit.head_at));
        s.scale = emit_half(e, head, 0);
        s.min = t->packing->has_min ? emit_half(e, head, 1) : LIR_NONE;
    } else if (t->packing->super > 1) {
        s.scale = emit_get(e, LIR_V_LOAD, DT_F16, fixed_at(t->head, 0));
        if (t->packing->has_min)
            s.min = emit_get(e, LIR_V_LOAD, DT_F16, fixed_at(t->head, 2 * t->packing->tile));
    }
    return s;
}

u16 group_codes(struct emit *e, const struct tile *t, u32 group)
{
    u32 low = t->size.low_bits, high = t->size.high_bits, per = 8 / low;
    u16 codes = plane_word(e, t, 0, group / per);

    if (low == 4) {
        codes = group % per ? emit_vi(e, LIR_ISHRI, codes, 4, 0) : codes;
        codes = emit_two(e, LIR_IAND, codes, emit_const_i32(e, 0x0f0f0f0fu));
    }
    if (high == 0)
        return codes;
    per = 8 / high;
    u16 top = plane_word(e, t, 1, group / per);
    i32 up = 4 - (i32)(high * (group % per));
    top = up > 0   ? emit_vi(e, LIR_ISHLI, top, up, 0)
          : up < 0 ? emit_vi(e, LIR_ISHRI, top, -up, 0)
                   : top;
    top = emit_two(e, LIR_IAND, top, emit_const_i32(e, high == 1 ? 0x10101010u : 0x30303030u));
    return emit_two(e, LIR_IOR, codes, top);
}

struct super begin_blocks(struct emit *e, struct tile *t)
{
    u16 zero = emit_s_const(e, 0);
    struct super s = {LIR_NONE, LIR_NONE};

    tile_walk(e, t);
    if (t->packing->super > 1) {
        emit_loop(e, zero, emit_s_const(e, t->size.blocks / t->packing->super), 1);
        s = super_factors(e, t);
        tile_advance(e, t, t->size.super_head_bytes);
        emit_loop(e, zero, emit_s_const(e, t->packing->super), 1);
    } else {
        emit_loop(e, zero, emit_s_const(e, t->size.blocks), 1);
    }
    return s;
}

void end_blocks(struct emit *e, const struct tile *t)
{
    tile_advance(e, t, t->size.block_bytes);
    emit_end(e);
    if (t->packing->super > 1) {
        emit_advance(e, t->head, t->size.super_bytes);
        emit_end(e);
    }
}

u16 code_offset(struct emit *e, const struct tile *t, u16 scale, struct super super)
{
    if (t->packing->has_min)
        return block_factor(e, t, 1, super.min);
    return emit_two(e, LIR_FMUL, scale, emit_const_f32(e, -(f32)t->packing->zero));
}

u16 code_value(struct emit *e, u16 codes, u32 j)
{
    u16 code =
        emit_two(e, LIR_IAND, emit_vi(e, LIR_ISHRI, codes, 8 * (i64)j, 0), emit_const_i32(e, 0xff));

    return emit_v(e, LIR_CVT_I2F, code, LIR_NONE, LIR_NONE);
}
