/*
 * address.c: from an affine index to an address: strides, symbols, lanes; loads and stores of
 * elements.
 */
#include "ml/compile/emit.h"

enum dtype node_storage(const struct emit *e, u32 node)
{
    const struct node *n = emit_node(e, node);
    return op_is_source(n->op) ? n->source.storage
           : n->op == OP_SCATTER
               ? e->graph->external[node_place(e->graph, e->schedule, node)].storage
               : n->dtype;
}

/* Internal buffers are strided by the bounds of symbols; what comes from or goes to outside is
 * compact. A local result is the item's run of the row, once for each row that the item has. */
struct stride node_stride(const struct emit *e, u32 node, u32 d)
{
    const struct node *n = emit_node(e, node);
    u32 stage = e->schedule->stage_of[node];
    bool source = op_is_source(n->op) || n->op == OP_SCATTER;
    const struct stage *s = source ? NULL : &e->schedule->stage[stage];
    struct stride stride = {.elements = 1};

    if (s && s->local && d < e->kernel->lead)
        return (struct stride){.elements = s->block[d] == 1 ? 0 : (i64)s->row};
    for (u32 i = d + 1; i < n->rank; i++) {
        if (dim_is_sym(n->shape[i]) && (source || s->output)) {
            stride.syms[dim_sym_idx(n->shape[i])]++;
            stride.symbolic = true;
        } else {
            stride.elements *= dim_bound(e->graph, n->shape[i]);
        }
    }
    return stride;
}

static u16 emit_stride(struct emit *e, const struct stride *stride, i64 scale)
{
    u16 s = emit_s_const(e, stride->elements * scale);

    for (u32 i = 0; i < SYMS_MAX; i++)
        for (u32 k = 0; k < stride->syms[i]; k++)
            s = emit_s(e, LIR_S_MUL, s, emit_sym(e, i), 0);
    return s;
}

u16 emit_index(struct emit *e, const struct affine *idx)
{
    u16 s = LIR_NONE;
    i64 constant = idx->constant;

    for (u32 o = 0; o < e->open_count; o++) {
        u32 a = e->order[o];
        if (idx->coef[a] == 0)
            continue;
        constant += (i64)idx->coef[a] * e->axis[a].bias;
        s = emit_s_add(e, s, emit_s_muli(e, e->axis[a].counter, idx->coef[a]));
    }
    s = emit_s_add(e, s, idx->dynamic);
    if (s == LIR_NONE)
        return constant ? emit_s_const(e, constant) : LIR_NONE;
    return emit_s_addi(e, s, constant);
}

/* In the memory of the item. */
static bool is_local(const struct emit *e, u32 node)
{
    return !op_is_source(emit_node(e, node)->op) &&
           e->schedule->stage[e->schedule->stage_of[node]].local;
}

static u16 node_base(struct emit *e, u32 node)
{
    const struct stage *s = &e->schedule->stage[e->schedule->stage_of[node]];
    u32 lead = e->kernel->lead;

    if (!is_local(e, node))
        return emit_arg(e, node_place(e->graph, e->schedule, node));
    u16 base = emit_s_addi(e, LIR_SCRATCH, s->place);
    for (u32 a = 0; a < lead; a++)
        if (s->block[a] > 1)
            base =
                emit_s_add(e, base, emit_s_muli(e, e->item[a], -4 * (i64)(s->row * s->block[a])));
    if (e->item[lead] != LIR_NONE && !s->again)
        base = emit_s_add(e, base, emit_s_muli(e, e->item[lead], -4 * (i64)s->row));
    return base;
}

struct lir_mem emit_address(struct emit *e, u32 node, const struct affine *idx, i64 *lane_stride,
                            u16 *lane_index)
{
    const struct node *n = emit_node(e, node);
    i64 bytes = dtype_bytes(node_storage(e, node));
    i64 coef[AXES_MAX] = {}, disp = 0;
    u16 base = node_base(e, node);

    *lane_stride = 0;
    *lane_index = LIR_NONE;
    for (u32 d = 0; d < n->rank; d++) {
        struct stride stride = node_stride(e, node, d);
        if (stride.symbolic) {
            struct affine part = idx[d];
            CHECK(part.dynamic_lanes == LIR_NONE &&
                  (e->lanes == 1 || e->lane_axis == NO_AXIS || !part.coef[e->lane_axis]));
            u16 s = emit_index(e, &part);
            if (s != LIR_NONE)
                base =
                    emit_s_add(e, base, emit_s(e, LIR_S_MUL, s, emit_stride(e, &stride, bytes), 0));
            continue;
        }
        for (u32 a = 0; a < AXES_MAX; a++)
            coef[a] += idx[d].coef[a] * stride.elements;
        disp += idx[d].constant * stride.elements * bytes;
    }
    u16 index = LIR_NONE; /* the innermost counter, in the addressing mode if its factor allows */
    u8 scale = 1;
    for (u32 o = 0; o < e->open_count; o++) {
        u32 a = e->order[o];
        i64 factor = coef[a] * bytes;
        if (factor == 0)
            continue;
        disp += factor * e->axis[a].bias;
        if (index != LIR_NONE)
            base = emit_s_add(e, base, emit_s_muli(e, index, scale));
        index = e->axis[a].counter;
        scale = factor == 1 || factor == 2 || factor == 4 || factor == 8 ? (u8)factor : 1;
        if (factor != scale)
            index = emit_s_muli(e, index, factor);
    }
    for (u32 d = 0; d < n->rank; d++) {
        struct stride stride = node_stride(e, node, d);
        if (stride.symbolic)
            continue;
        if (idx[d].dynamic != LIR_NONE)
            base = emit_s_add(e, base, emit_s_muli(e, idx[d].dynamic, stride.elements * bytes));
        if (idx[d].dynamic_lanes != LIR_NONE)
            *lane_index = emit_two(e, LIR_IMUL, idx[d].dynamic_lanes,
                                   emit_const_i32(e, (u32)stride.elements));
    }
    if (e->lanes > 1 && e->lane_axis != NO_AXIS)
        *lane_stride = coef[e->lane_axis];
    if (disp != (i32)disp) {
        base = emit_s_addi(e, base, disp);
        disp = 0;
    }
    if (*lane_index != LIR_NONE ||
        (*lane_stride != 0 && *lane_stride != 1)) { /* a gather's index is the lanes' */
        if (index != LIR_NONE)
            base = emit_s_add(e, base, emit_s_muli(e, index, scale));
        index = LIR_NONE;
        scale = 1;
    }
    return (struct lir_mem){.base = base,
                            .index = index,
                            .scale = scale,
                            .space = is_local(e, node) ? LIR_GROUP : LIR_GLOBAL,
                            .disp = (i32)disp};
}

bool is_fixed(const struct emit *e, u32 node)
{
    const struct schedule *s = e->schedule;
    enum op op = emit_node(e, node)->op;

    if (op != OP_STATE && op_is_source(op))
        return true;
    u32 place = node_place(e->graph, s, node);
    for (u32 i = 0; i < e->kernel->stage_count; i++) {
        const struct stage *own = &s->stage[e->kernel->stage_first + i];
        if (own->node == node || (!own->local && own->place == place))
            return false;
    }
    return true;
}

struct lir_mem mem_at(u16 base, i64 disp)
{
    CHECK(disp == (i32)disp);
    return (struct lir_mem){.base = base, .index = LIR_NONE, .scale = 1, .disp = (i32)disp};
}

u16 emit_get(struct emit *e, enum lir_op op, enum dtype type, struct lir_mem mem)
{
    struct lir_instr i = emit_blank(e, op);

    i.mem_type = (u8)type;
    i.mem = mem;
    return emit_pure(e, i);
}

void emit_put(struct emit *e, u16 value, enum dtype type, struct lir_mem mem)
{
    struct lir_instr i = emit_blank(e, LIR_V_STORE);

    i.a = value;
    i.mem_type = (u8)type;
    i.mem = mem;
    *lir_emit(e->lir, LIR_V_STORE) = i;
}

u16 emit_half(struct emit *e, u16 word, u32 half)
{
    struct lir_instr i = emit_blank(e, LIR_FMAH);

    i.a = word;
    i.b = emit_const_f32(e, 1);
    i.c = emit_const_f32(e, 0);
    i.imm = half;
    return emit_pure(e, i);
}

/* Whether each lane's address is a multiple of 16 bytes but for a constant, and some loop is
 * unrolled over what lies in these 16 bytes. */
static bool is_wide(const struct emit *e, u32 node, const struct affine *idx)
{
    i64 bytes = dtype_bytes(node_storage(e, node)), coef[AXES_MAX] = {};
    bool inside = false;

    for (u32 d = 0; d < emit_node(e, node)->rank; d++) {
        struct stride stride = node_stride(e, node, d);
        bool dynamic = idx[d].dynamic != LIR_NONE || idx[d].dynamic_lanes != LIR_NONE;
        if (stride.symbolic || (dynamic && stride.elements * bytes % 16))
            return false;
        for (u32 a = 0; a < AXES_MAX; a++)
            coef[a] += idx[d].coef[a] * stride.elements * bytes;
    }
    for (u32 o = 0; o < e->open_count; o++) {
        u32 a = e->order[o], factor = a == e->lane_axis ? 1 : max_u32(e->axis[a].factor, 1);
        inside |= coef[a] % 16 != 0;
        if (coef[a] * factor % 16)
            return false;
    }
    return inside && e->target->waves > 0;
}

/* One element of each lane's 16 bytes, which are loaded together. */
static u16 emit_wide(struct emit *e, struct lir_instr i)
{
    enum dtype type = (enum dtype)i.mem_type;
    u32 at = (u32)i.mem.disp & 15;

    i.op = LIR_V_GATHER4;
    i.mem_type = DT_I32;
    i.mem.scale = (u8)dtype_bytes(type);
    i.mem.disp -= (i32)at;
    u16 word = (u16)(emit_pure(e, i) + at / 4);
    if (type == DT_F16)
        return emit_half(e, word, at / 2 % 2);
    if (type == DT_BF16)
        return at % 4 ? emit_two(e, LIR_IAND, word, emit_const_i32(e, 0xffff0000u))
                      : emit_vi(e, LIR_ISHLI, word, 16, 0);
    return word;
}

u16 emit_load(struct emit *e, u32 node, const struct affine *idx)
{
    struct lir_instr i = emit_blank(e, LIR_V_LOAD);
    i64 lane_stride;
    u16 lane_index;

    i.mem_type = (u8)node_storage(e, node);
    i.mem = emit_address(e, node, idx, &lane_stride, &lane_index);
    i.mem.fixed = is_fixed(e, node);
    if (lane_index != LIR_NONE || (lane_stride != 0 && lane_stride != 1)) {
        if (lane_stride != 0) {
            u16 iota = emit_v(e, LIR_V_IOTA, LIR_NONE, LIR_NONE, LIR_NONE);
            iota = emit_two(e, LIR_IMUL, iota, emit_const_i32(e, (u32)lane_stride));
            lane_index = lane_index == LIR_NONE ? iota : emit_two(e, LIR_IADD, lane_index, iota);
        }
        i.mem.index = lane_index;
        if (dtype_bytes((enum dtype)i.mem_type) > 1 && is_wide(e, node, idx))
            return emit_wide(e, i);
        CHECK(dtype_bytes((enum dtype)i.mem_type) == 4);
        i.op = LIR_V_GATHER;
        i.mem.scale = 4;
    } else if (e->lanes > 1 && lane_stride == 0) {
        i.op = LIR_V_BCAST;
    }
    return emit_pure(e, i);
}

void emit_store(struct emit *e, u16 value, u32 node, const struct affine *idx)
{
    struct lir_instr i = emit_blank(e, LIR_V_STORE);
    i64 lane_stride;
    u16 lane_index;

    i.mem_type = (u8)node_storage(e, node);
    i.a = value;
    i.mem = emit_address(e, node, idx, &lane_stride, &lane_index);
    CHECK(lane_index == LIR_NONE && (e->lanes == 1 || lane_stride == 1));
    *lir_emit(e->lir, LIR_V_STORE) = i;
}
