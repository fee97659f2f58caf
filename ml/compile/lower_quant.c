/*
 * lower_quant.c: QUANT: a row of activations, block by block, as whole numbers in planes of bytes
 * or half bytes (quant_row in priv.h).
 */
#include "ml/compile/lower_tile.h"

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

static void put_bytes(struct emit *e, u16 code, const struct quant_out *out, i64 at)
{
    u16 up = emit_two(e, LIR_IADD, code, emit_const_i32(e, 1u << (QUANT_LOW_BITS - 1)));
    u16 high = emit_vi(e, LIR_ISARI, up, QUANT_LOW_BITS, 0);
    u16 low = emit_two(e, LIR_ISUB, code, emit_vi(e, LIR_ISHLI, high, QUANT_LOW_BITS, 0));

    emit_put(e, high, DT_I8, in_stage(e, e->stage, out->codes, at));
    emit_put(e, low, DT_I8, in_stage(e, e->stage, out->codes, out->row.plane + at));
}

/* A byte holds half bytes of two columns, four lanes apart: one of the two lanes makes that of
 * planes 0 and 1, the other that of planes 2 and 3. */
static void put_half_bytes(struct emit *e, u16 code, const struct quant_out *out, i64 at)
{
    u16 iota = emit_v(e, LIR_V_IOTA, LIR_NONE, LIR_NONE, LIR_NONE), four = emit_const_i32(e, 4);
    u16 second = emit_compare(e, LIR_ICMP, LIR_EQ, emit_two(e, LIR_IAND, iota, four), four);
    u16 other = emit_vi(e, LIR_V_SWAP, code, 4, 0);
    u16 a = emit_v(e, LIR_SELECT, second, emit_vi(e, LIR_ISHRI, other, 8, 0), code);
    u16 b = emit_v(e, LIR_SELECT, second, emit_vi(e, LIR_ISHRI, code, 8, 0), other);
    u16 low = emit_const_i32(e, 0x0f), high = emit_const_i32(e, 0xf0);
    u16 even = emit_two(e, LIR_IOR, emit_two(e, LIR_IAND, a, low), emit_vi(e, LIR_ISHLI, b, 4, 0));
    u16 odd = emit_two(e, LIR_IAND, emit_vi(e, LIR_ISHRI, a, 4, 0), low);

    odd = emit_two(e, LIR_IOR, odd, emit_two(e, LIR_IAND, b, high));
    at += out->row.half_at;
    emit_put(e, even, DT_U8, in_stage(e, e->stage, out->codes, at));
    emit_put(e, odd, DT_U8, in_stage(e, e->stage, out->codes, out->row.plane + at));
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
        if (out->row.forms & QUANT_BYTES)
            put_bytes(e, c, out, (i64)v * e->lanes);
        if (out->row.forms & QUANT_HALF_BYTES)
            put_half_bytes(e, c, out, (i64)v * e->lanes);
        sum = v == 0 ? c : emit_two(e, LIR_IADD, sum, c);
    }
    sum = across(e, LIR_HSUM_I, sum, out);
    u16 scale = emit_two(e, LIR_FDIV, amax, emit_const_f32(e, QUANT_MOST));
    u16 negative =
        emit_vi(e, LIR_ISHLI, emit_two(e, LIR_ISUB, emit_const_i32(e, 0), sum), QUANT_ZERO_BITS, 0);
    u16 scaled = emit_two(e, LIR_FMUL, scale, emit_v(e, LIR_CVT_I2F, sum, LIR_NONE, LIR_NONE));
    put_factor(e, scale, DT_F32, out, 0);
    put_factor(e, negative, DT_I32, out, out->row.nsum_at - out->row.scale_at);
    put_factor(e, scaled, DT_F32, out, out->row.ssum_at - out->row.scale_at);
}

/* Where an item has but one vector of each row, the waves share its rows. */
bool quant_shares_rows(const struct emit *e)
{
    const struct node *n = emit_node(e, e->stage->node);

    return n->rank > 1 && !is_grid_fixed(e, n->rank - 2u) &&
           axis_bound(e, n->rank - 1u) <= max_u32(n->quant.block, e->target->lanes);
}

/* Columns of the row at out.codes, some whole vectors at a time. */
static void quant_columns(struct emit *e, const struct affine *idx, struct range columns,
                          struct quant_out out)
{
    const struct node *n = emit_node(e, e->stage->node);
    u32 last = n->rank - 1u;
    u16 x[QUANT_VECTORS_MAX];

    i64 step = out.vectors * e->target->lanes;
    u16 column = quant_shares_rows(e) ? emit_loop(e, columns.start, columns.end, step)
                                      : emit_shared_loop(e, columns.start, columns.end, step);
    axis_open(e, last, column);
    e->lanes = (u8)e->target->lanes;
    e->lane_axis = (u8)last;
    for (u32 v = 0; v < out.vectors; v++) {
        e->axis[last].bias = (i32)(v * e->lanes);
        x[v] = emit_value(e, n->src[0], idx);
    }
    e->axis[last].bias = 0;
    u16 block = emit_s(e, LIR_S_SHRI, column, LIR_NONE, __builtin_ctz(out.row.block));
    out.rest = emit_s_addi(e, emit_s_add(e, out.codes, emit_s_muli(e, block, 4)), out.row.scale_at);
    out.codes = emit_s_add(e, out.codes, column);
    quant_block(e, x, &out);
    e->lanes = 1;
    e->lane_axis = NO_AXIS;
    axis_close(e, last);
    emit_end(e);
}

void emit_quant_stage(struct emit *e)
{
    const struct node *n = emit_node(e, e->stage->node);
    u32 last = n->rank - 1u, opened = open_rows(e, last, quant_shares_rows(e));
    u32 lanes = e->target->lanes;
    struct quant_row row = quant_row(e->graph, e->stage->node);
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
    struct quant_out out = {.codes = base, .row = row, .vectors = vectors, .parts = parts};
    u32 full = row.columns / (vectors * lanes) * (vectors * lanes);
    if (e->stage->block[last] == 0)
        whole.end = emit_s_const(e, full);
    if (full)
        quant_columns(e, idx, whole, out);
    out.parts = (row.columns - full) / row.block;
    if (out.parts) /* what a last vector writes behind them is the padding of the planes */
        quant_columns(e, idx, (struct range){.start = whole.end, .end = all.end}, out);
    close_rows(e, opened);
}
