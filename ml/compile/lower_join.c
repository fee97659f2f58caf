/*
 * lower_join.c: results that the waves of a group have parts of: each wave writes its part of all
 * into the group's memory; then each takes some results, joins their parts and finishes them.
 */
#include "ml/compile/emit.h"

/* The waves' parts of one result, joined in the order of the waves. */
static u16 join_parts(struct emit *e, u16 first, u32 wave_bytes, enum lir_op op)
{
    u16 sum = LIR_NONE;

    for (u32 w = 0; w < e->waves; w++) {
        struct lir_instr *i = lir_emit(e->lir, LIR_V_LOAD);
        u16 part = i->dst = emit_fresh(e, LIR_VECTOR);
        i->lanes = e->lanes;
        i->mem = mem_at(first, (i64)w * wave_bytes);
        i->mem.space = LIR_GROUP;
        sum = w == 0 ? part : emit_two(e, op, sum, part);
    }
    return sum;
}

/* Counters of the instance number i, which is known only when the code runs. */
static void open_instance(struct nest *n, u16 i)
{
    struct emit *e = n->e;
    u32 shift = (u32)__builtin_ctz(n->vectors);

    if (n->unroll_axis != NO_AXIS) {
        u16 *counter = &e->axis[n->unroll_axis].counter;
        *counter = emit_s_add(e, *counter, shift ? emit_s(e, LIR_S_SHRI, i, LIR_NONE, shift) : i);
    }
    if (n->lane_axis != NO_AXIS && n->vectors > 1) {
        u16 *counter = &e->axis[n->lane_axis].counter;
        u16 vector = emit_s(e, LIR_S_ANDI, i, LIR_NONE, n->vectors - 1);
        *counter = emit_s_add(e, *counter, emit_s_muli(e, vector, e->target->lanes));
    }
}

void store_joined(struct nest *n, const struct affine *idx, const struct held *held)
{
    struct emit *e = n->e;
    struct axis axis[AXES_MAX];
    u32 count = n->unroll * n->vectors, bytes = 4u * e->lanes, wave_bytes = count * bytes;
    u32 at = (u32)round_up(e->kernel->scratch_bytes, 64);
    u16 own = emit_s_add(e, LIR_SCRATCH, emit_s_muli(e, LIR_WAVE, wave_bytes));

    memcpy(axis, e->axis, sizeof axis);
    e->out->group_bytes = max_u32(e->out->group_bytes, at + e->waves * wave_bytes);
    if (e->joined)
        emit_barrier(e);
    for (u32 i = 0; i < count; i++) {
        struct lir_mem mem = mem_at(own, at + (i64)i * bytes);
        mem.space = LIR_GROUP;
        emit_put(e, held->res[i], DT_F32, mem);
    }
    emit_barrier(e);
    u16 base = emit_s_addi(e, LIR_SCRATCH, at);
    for (u32 u = 0; u < (n->partial ? n->unroll : 1); u++) {
        u16 end = n->partial ? emit_s(e, LIR_S_SUB, n->end, e->axis[n->lane_axis].counter, 0)
                             : emit_s_const(e, count);
        u16 i = emit_loop(e, LIR_WAVE, end, e->waves);
        u16 first = emit_s_add(e, base, emit_s_muli(e, i, n->partial ? 4 : bytes));
        if (n->partial) {
            e->lanes = 1;
            e->lane_axis = NO_AXIS;
            set_bias(n, u, 0);
            e->axis[n->lane_axis].counter = emit_s_add(e, e->axis[n->lane_axis].counter, i);
        } else {
            open_instance(n, i);
        }
        u16 sum = join_parts(e, emit_s_addi(e, first, u * bytes), wave_bytes, held->op);
        emit_remember(e, e->stage->heavy, held->idx, sum);
        emit_store(e, emit_value(e, e->stage->node, idx), e->stage->node, idx);
        emit_end(e);
        memcpy(e->axis, axis, sizeof axis);
    }
    e->joined = true;
    if (e->scope_depth > 0) /* the next round writes parts again */
        emit_barrier(e);
}
