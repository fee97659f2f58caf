/*
 * lower_unpack.c: UNPACK: rows of a packed table by their number.
 */
#include "ml/compile/lower_tile.h"

static void store_column(struct emit *e, u16 value, const struct affine *to, u32 column)
{
    e->axis[RANK_MAX].bias = (i32)column;
    emit_store(e, value, e->stage->node, to);
}

/* ---- with granules: lanes are columns ---- */

struct row {
    struct tile tile;
    u16 lane_bytes; /* SCALAR: 16 * lane of the row */
    const struct affine *to;
};

/* 1 << shift per lane; shift < 32. */
static u16 lane_power(struct emit *e, u16 shift)
{
    u16 power = emit_const_i32(e, 1), zero = emit_const_i32(e, 0);

    for (u32 bit = 0; bit < 5; bit++) {
        u16 none = emit_compare(e, LIR_ICMP, LIR_EQ,
                                emit_two(e, LIR_IAND, shift, emit_const_i32(e, 1u << bit)), zero);
        power = emit_v(e, LIR_SELECT, none, power, emit_vi(e, LIR_ISHLI, power, 1 << bit, 0));
    }
    return power;
}

static u16 lane_bits(struct emit *e, u16 value, u32 shift, u32 mask)
{
    u16 down = shift ? emit_vi(e, LIR_ISHRI, value, shift, 0) : value;

    return emit_two(e, LIR_IAND, down, emit_const_i32(e, mask));
}

/* Word `first` + words[lane] of the row's part at `at` of the unit. */
static u16 row_words(struct emit *e, const struct row *r, u32 at, u32 first, u16 words)
{
    struct lir_instr i = emit_blank(e, LIR_V_GATHER);
    u32 tile = r->tile.packing->tile;
    u16 granule = emit_vi(e, LIR_ISHLI, lane_bits(e, words, 2, 7), __builtin_ctz(4 * tile), 0);

    i.mem_type = DT_I32;
    i.mem = fixed_at(emit_s_add(e, r->tile.planes, r->lane_bytes),
                     at + (first / 4 * tile * 4 + first % 4) * 4);
    i.mem.index = emit_two(e, LIR_IADD, granule, lane_bits(e, words, 0, 3));
    i.mem.scale = 4;
    return emit_pure(e, i);
}

/* Bits of the lanes' codes of 32 columns from column 32 * chunk of the unit. */
static u16 row_codes(struct emit *e, const struct row *r, u32 at, u32 bits, u32 chunk)
{
    u16 iota = emit_v(e, LIR_V_IOTA, LIR_NONE, LIR_NONE, LIR_NONE);
    u32 per = 8 / bits; /* groups of four columns in a word */
    u16 words = emit_vi(e, LIR_ISHRI, iota, __builtin_ctz(4 * per), 0);
    u16 byte = emit_vi(e, LIR_ISHLI, lane_bits(e, iota, 0, 3), 3, 0);
    u16 place = emit_two(e, LIR_IMUL, lane_bits(e, iota, 2, per - 1), emit_const_i32(e, bits));
    u16 up =
        emit_two(e, LIR_ISUB, emit_const_i32(e, 32 - bits), emit_two(e, LIR_IADD, byte, place));
    u16 word = row_words(e, r, at, chunk * bits, words);

    return emit_vi(e, LIR_ISHRI, emit_two(e, LIR_IMUL, word, lane_power(e, up)), 32 - bits, 0);
}

static struct lir_mem row_at(struct emit *e, const struct row *r, u32 part, u32 byte)
{
    u32 granule = r->tile.packing->granule;

    return fixed_at(emit_s_add(e, r->tile.planes, r->lane_bytes),
                    part + (i64)(byte / granule * granule * r->tile.packing->tile) +
                        byte % granule);
}

/* Scale or minimum of each lane's column: of one block, or of two side by side. */
static u16 row_factor(struct emit *e, struct row *r, u32 which, u32 chunk)
{
    const struct tile *t = &r->tile;
    enum dtype type = (enum dtype)t->packing->scale_type;
    u32 count = e->lanes / t->packing->block, head = t->unit.head_at + 2 * which;
    u16 value = LIR_NONE;

    for (u32 i = 0; i < count; i++) {
        u32 number = which * t->blocks + chunk * count + i;
        u16 f = emit_get(e, LIR_V_BCAST, type,
                         row_at(e, r, t->unit.factors_at, number * dtype_bytes(type)));
        u16 iota = emit_v(e, LIR_V_IOTA, LIR_NONE, LIR_NONE, LIR_NONE);
        u16 before =
            emit_compare(e, LIR_ICMP, LIR_LT, iota, emit_const_i32(e, i * t->packing->block));
        value = i == 0 ? f : emit_v(e, LIR_SELECT, before, value, f);
    }
    if (t->packing->super == 1)
        return value;
    u16 quarter = emit_s(e, LIR_S_SHRI, r->lane_bytes, LIR_NONE, 2); /* of 4 bytes each */
    u16 super = emit_get(e, LIR_V_BCAST, DT_F16, fixed_at(emit_s_add(e, t->planes, quarter), head));
    return emit_two(e, LIR_FMUL, emit_v(e, LIR_CVT_I2F, value, LIR_NONE, LIR_NONE), super);
}

static u16 row_values(struct emit *e, struct row *r, u32 chunk)
{
    const struct packing *p = r->tile.packing;
    u16 code = row_codes(e, r, 0, r->tile.size.low_bits, chunk);

    if (r->tile.size.high_bits) {
        u16 high = row_codes(e, r, r->tile.unit.high_at, r->tile.size.high_bits, chunk);
        code = emit_two(e, LIR_IOR, code, emit_vi(e, LIR_ISHLI, high, 4, 0));
    }
    u16 scale = row_factor(e, r, 0, chunk);
    u16 offset = p->has_min ? row_factor(e, r, 1, chunk)
                            : emit_two(e, LIR_FMUL, scale, emit_const_f32(e, -(f32)p->zero));
    return emit_v(e, LIR_FMA, emit_v(e, LIR_CVT_I2F, code, LIR_NONE, LIR_NONE), scale, offset);
}

/* 32 floats of a row. */
static u16 row_floats(struct emit *e, const struct row *r)
{
    enum dtype type = r->tile.packing->float_type;
    u16 iota = emit_v(e, LIR_V_IOTA, LIR_NONE, LIR_NONE, LIR_NONE);

    if (type == DT_F32)
        return row_words(e, r, 0, 0, iota);
    u16 word = row_words(e, r, 0, 0, emit_vi(e, LIR_ISHRI, iota, 1, 0));
    u16 even = emit_compare(e, LIR_ICMP, LIR_EQ, lane_bits(e, iota, 0, 1), emit_const_i32(e, 0));
    if (type == DT_F16)
        return emit_v(e, LIR_SELECT, even, emit_half(e, word, 0), emit_half(e, word, 1));
    return emit_v(e, LIR_SELECT, even, emit_vi(e, LIR_ISHLI, word, 16, 0),
                  emit_two(e, LIR_IAND, word, emit_const_i32(e, 0xffff0000u)));
}

static void unit_row(struct emit *e, void *ctx, u16 column)
{
    struct row *r = ctx;
    u32 block = r->tile.packing->block, columns = r->tile.blocks * block, done = 0;
    enum dtype type = r->tile.packing->float_type;

    axis_open(e, RANK_MAX, column);
    e->lanes = (u8)e->target->lanes;
    e->lane_axis = RANK_MAX;
    for (; done + e->lanes <= columns; done += e->lanes)
        store_column(
            e, r->tile.packing->code_bits ? row_values(e, r, done / e->lanes) : row_floats(e, r),
            r->to, done);
    e->lanes = 1;
    e->lane_axis = NO_AXIS;
    for (; done < columns; done++) /* a float row may end anywhere */
        store_column(e, emit_get(e, LIR_V_LOAD, type, row_at(e, r, 0, done * dtype_bytes(type))),
                     r->to, done);
    axis_close(e, RANK_MAX);
}

static void unpack_units(struct emit *e, u32 weight, u16 row, const struct affine *to)
{
    struct row r = {.tile = tile_open(e, weight, row, true), .to = to};
    u16 lane = emit_s(e, LIR_S_ANDI, row, LIR_NONE, r.tile.packing->tile - 1);

    r.lane_bytes = emit_s_muli(e, lane, r.tile.packing->granule);
    each_unit(e, &(struct units){.tile = &r.tile, .shared = true, .body = unit_row, .ctx = &r});
}

/* ---- rows ---- */

void emit_unpack_stage(struct emit *e)
{
    const struct node *n = emit_node(e, e->stage->node), *index = emit_node(e, n->src[1]);
    const struct node *table = emit_node(e, n->src[0]);
    u32 opened = open_rows(e, n->rank - 1u, false);
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
    row = emit_s(e, LIR_S_MAX, row, emit_s_const(e, 0), 0);
    if (e->target->waves) {
        unpack_units(e, n->src[0], row, to);
        close_rows(e, opened);
        return;
    }
    struct tile t = tile_open(e, n->src[0], row, false);
    if (t.packing->code_bits == 0) {
        tile_walk(e, &t);
        axis_open(e, RANK_MAX,
                  emit_loop(e, emit_s_const(e, 0), emit_s_const(e, table->shape[1].v), 1));
        store_column(e, emit_get(e, LIR_V_LOAD, t.packing->float_type, fixed_at(t.planes, 0)), to,
                     0);
        tile_advance(e, &t, t.packing->tile * (i64)dtype_bytes(t.packing->float_type));
        axis_close(e, RANK_MAX);
        emit_end(e);
    } else {
        u16 column = emit_pointer(e, emit_s_const(e, 0));
        struct super super = begin_blocks(e, &t);
        u16 scale = block_factor(e, &t, 0, super.scale), offset = code_offset(e, &t, scale, super);
        axis_open(e, RANK_MAX, column);
        for (u32 k = 0; k < t.packing->block; k++) {
            u16 code = code_value(e, group_codes(e, &t, k / 4), k % 4);
            store_column(e, emit_v(e, LIR_FMA, code, scale, offset), to, k);
        }
        axis_close(e, RANK_MAX);
        emit_advance(e, column, t.packing->block);
        end_blocks(e, &t);
    }
    close_rows(e, opened);
}
