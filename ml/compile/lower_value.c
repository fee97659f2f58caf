/*
 * lower_value.c: expressions to LIR: value numbering, addresses, loads, elementwise operations.
 * Recursion follows the expression, whose depth schedule.c has bounded by EXPR_DEPTH_MAX.
 */
#include "ml/compile/emit.h"

/* ---- value numbers ---- */

static u64 mix(u64 h, u64 v)
{
    h ^= v + 0x9e3779b97f4a7c15ull + (h << 6) + (h >> 2);
    h *= 0xff51afd7ed558ccdull;
    return h ^ (h >> 33);
}

/* 64 bits of hash stand for the key: with at most 2^14 live entries an accidental match has odds below 2^-36. */
static u16 *number_find(struct emit *e, u64 key)
{
    for (u16 i = e->head[key % VALUE_HEADS]; i != LIR_NONE; i = e->number[i].next)
        if (e->number[i].key == key)
            return &e->number[i].vreg;
    return NULL;
}

static void number_add(struct emit *e, u64 key, u16 vreg)
{
    if (e->number_count == VALUE_NUMBERS_MAX) {
        e->status = E_LIMIT;
        return;
    }
    e->number[e->number_count] = (struct value_number){key, vreg, e->head[key % VALUE_HEADS]};
    e->head[key % VALUE_HEADS] = (u16)e->number_count++;
}

static u64 instr_key(const struct lir_instr *i)
{
    u64 h = mix(i->op, (u64)i->lanes << 24 | (u64)i->mem_type << 16 | i->aux);
    h = mix(h, (u64)i->a << 32 | (u64)i->b << 16 | i->c);
    h = mix(h, (u64)i->imm);
    h = mix(h, (u64)i->mem.base << 32 | (u64)i->mem.index << 16 | i->mem.scale);
    return mix(h, (u64)(u32)i->mem.disp);
}

u16 emit_pure(struct emit *e, struct lir_instr instr)
{
    u64 key = instr_key(&instr);
    u16 *known = number_find(e, key);

    if (known)
        return *known;
    enum lir_class class = instr.op < LIR_V_CONST ? LIR_SCALAR : LIR_VECTOR;
    instr.dst = lir_vreg(e->lir, class);
    *lir_emit(e->lir, (enum lir_op)instr.op) = instr;
    number_add(e, key, instr.dst);
    return instr.dst;
}

static struct lir_instr blank(enum lir_op op)
{
    struct lir_instr i = {.op = (u8)op, .a = LIR_NONE, .b = LIR_NONE, .c = LIR_NONE, .dst = LIR_NONE};
    i.mem.base = i.mem.index = LIR_NONE;
    return i;
}

u16 emit_s(struct emit *e, enum lir_op op, u16 a, u16 b, i64 imm)
{
    struct lir_instr i = blank(op);
    i.a = a;
    i.b = b;
    i.imm = imm;
    return emit_pure(e, i);
}

u16 emit_s_const(struct emit *e, i64 value) { return emit_s(e, LIR_S_CONST, LIR_NONE, LIR_NONE, value); }

u16 emit_s_add(struct emit *e, u16 a, u16 b)
{
    if (a == LIR_NONE || b == LIR_NONE)
        return a == LIR_NONE ? b : a;
    return emit_s(e, LIR_S_ADD, a, b, 0);
}

u16 emit_s_addi(struct emit *e, u16 a, i64 value)
{
    if (value == 0)
        return a;
    if (value != (i32)value)
        return emit_s_add(e, a, emit_s_const(e, value));
    return emit_s(e, LIR_S_ADDI, a, LIR_NONE, value);
}

u16 emit_s_muli(struct emit *e, u16 a, i64 factor)
{
    if (factor == 1)
        return a;
    if (factor > 0 && (factor & (factor - 1)) == 0)
        return emit_s(e, LIR_S_SHLI, a, LIR_NONE, __builtin_ctzll((u64)factor));
    if (factor != (i32)factor)
        return emit_s(e, LIR_S_MUL, a, emit_s_const(e, factor), 0);
    return emit_s(e, LIR_S_MULI, a, LIR_NONE, factor);
}

u16 emit_arg(struct emit *e, u32 place)
{
    u32 i = 0;

    while (i < e->out->arg_count && e->out->arg[i] != place)
        i++;
    if (i == KERNEL_ARGS_MAX) {
        e->status = E_LIMIT;
        return LIR_ARGS;
    }
    if (i == e->out->arg_count)
        e->out->arg[e->out->arg_count++] = place;
    return emit_s(e, LIR_S_ARG, LIR_NONE, LIR_NONE, i);
}

static u16 emit_sym(struct emit *e, u32 sym)
{
    return emit_arg(e, e->graph->external_count + e->schedule->buffer_count + sym);
}

u16 emit_extent(struct emit *e, dim d)
{
    return dim_is_sym(d) ? emit_sym(e, dim_sym_idx(d)) : emit_s_const(e, d.v);
}

u16 emit_v(struct emit *e, enum lir_op op, u16 a, u16 b, u16 c)
{
    struct lir_instr i = blank(op);
    i.lanes = e->lanes;
    i.a = a;
    i.b = b;
    i.c = c;
    return emit_pure(e, i);
}

u16 emit_vi(struct emit *e, enum lir_op op, u16 a, i64 imm, u8 aux)
{
    struct lir_instr i = blank(op);
    i.lanes = e->lanes;
    i.a = a;
    i.imm = imm;
    i.aux = aux;
    return emit_pure(e, i);
}

u16 emit_const_i32(struct emit *e, u32 bits) { return emit_vi(e, LIR_V_CONST, LIR_NONE, (i64)bits, 0); }

u16 emit_const_f32(struct emit *e, f32 value)
{
    u32 bits;
    memcpy(&bits, &value, sizeof bits);
    return emit_const_i32(e, bits);
}

u16 emit_var(struct emit *e, enum lir_class class) { return lir_vreg(e->lir, class); }

void emit_into(struct emit *e, u16 dst, enum lir_op op, u16 a, u16 b, u16 c)
{
    struct lir_instr i = blank(op);
    i.lanes = e->lanes;
    i.dst = dst;
    i.a = a;
    i.b = b;
    i.c = c;
    *lir_emit(e->lir, op) = i;
}

void emit_set_const(struct emit *e, u16 dst, u32 bits)
{
    struct lir_instr i = blank(LIR_V_CONST);
    i.lanes = e->lanes;
    i.dst = dst;
    i.imm = (i64)bits;
    *lir_emit(e->lir, LIR_V_CONST) = i;
}

/* ---- scopes ---- */

u16 emit_loop(struct emit *e, u16 start, u16 end, i64 step)
{
    struct lir_instr i = blank(LIR_LOOP);
    i.dst = lir_vreg(e->lir, LIR_SCALAR);
    i.a = start;
    i.b = end;
    i.imm = step;
    *lir_emit(e->lir, LIR_LOOP) = i;
    if (e->scope_depth == LIR_LOOP_DEPTH_MAX)
        e->status = E_LIMIT;
    else
        e->scope[e->scope_depth++] = e->number_count;
    return i.dst;
}

void emit_end(struct emit *e)
{
    *lir_emit(e->lir, LIR_ENDLOOP) = blank(LIR_ENDLOOP);
    if (e->status != OK || e->scope_depth == 0)
        return;
    u32 keep = e->scope[--e->scope_depth];
    while (e->number_count > keep) {
        struct value_number *n = &e->number[--e->number_count];
        e->head[n->key % VALUE_HEADS] = n->next;
    }
}

void axis_open(struct emit *e, u32 axis, u16 counter)
{
    e->axis[axis] = (struct axis){.counter = counter};
    e->order[e->open_count++] = (u8)axis;
}

void axis_close(struct emit *e, u32 axis)
{
    CHECK(e->open_count > 0 && e->order[e->open_count - 1] == axis);
    e->open_count--;
    e->axis[axis] = (struct axis){.counter = LIR_NONE};
}

/* ---- addresses ---- */

enum dtype node_storage(const struct emit *e, u32 node)
{
    const struct node *n = emit_node(e, node);
    return op_is_source(n->op) ? n->source.storage : n->op == OP_SCATTER ?
           e->graph->external[node_place(e->graph, e->schedule, node)].storage : n->dtype;
}

/* Internal buffers are strided by the bounds of symbols; what comes from or goes to outside is compact. */
struct stride node_stride(const struct emit *e, u32 node, u32 d)
{
    const struct node *n = emit_node(e, node);
    u32 stage = e->schedule->stage_of[node];
    bool source = op_is_source(n->op) || n->op == OP_SCATTER;
    const struct stage *s = source ? NULL : &e->schedule->stage[stage];
    struct stride stride = {.elements = 1};

    if (s && s->local && d < e->schedule->kernel[s->kernel].grid_rank)
        return (struct stride){.elements = 0};
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

/* The index as SCALAR, without its lanes; LIR_NONE for 0. */
static u16 emit_index(struct emit *e, const struct affine *idx)
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

static u16 node_base(struct emit *e, u32 node)
{
    u32 stage = e->schedule->stage_of[node];

    if (!op_is_source(emit_node(e, node)->op) && e->schedule->stage[stage].local)
        return emit_s_addi(e, LIR_SCRATCH, e->schedule->stage[stage].place);
    return emit_arg(e, node_place(e->graph, e->schedule, node));
}

struct lir_mem emit_address(struct emit *e, u32 node, const struct affine *idx, i64 *lane_stride, u16 *lane_index)
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
            CHECK(part.dynamic_lanes == LIR_NONE && (e->lanes == 1 || e->lane_axis == NO_AXIS || !part.coef[e->lane_axis]));
            u16 s = emit_index(e, &part);
            if (s != LIR_NONE)
                base = emit_s_add(e, base, emit_s(e, LIR_S_MUL, s, emit_stride(e, &stride, bytes), 0));
            continue;
        }
        for (u32 a = 0; a < AXES_MAX; a++)
            coef[a] += idx[d].coef[a] * stride.elements;
        disp += idx[d].constant * stride.elements * bytes;
    }
    u16 index = LIR_NONE; /* the innermost counter goes into the addressing mode when its factor allows */
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
            *lane_index = emit_v(e, LIR_IMUL, idx[d].dynamic_lanes, emit_const_i32(e, (u32)stride.elements), LIR_NONE);
    }
    if (e->lanes > 1 && e->lane_axis != NO_AXIS)
        *lane_stride = coef[e->lane_axis];
    if (disp != (i32)disp) {
        base = emit_s_addi(e, base, disp);
        disp = 0;
    }
    if (*lane_index != LIR_NONE || (*lane_stride != 0 && *lane_stride != 1)) { /* a gather's index is the lanes' */
        if (index != LIR_NONE)
            base = emit_s_add(e, base, emit_s_muli(e, index, scale));
        index = LIR_NONE;
        scale = 1;
    }
    return (struct lir_mem){.base = base, .index = index, .scale = scale, .disp = (i32)disp};
}

static u16 emit_load(struct emit *e, u32 node, const struct affine *idx)
{
    struct lir_instr i = blank(LIR_V_LOAD);
    i64 lane_stride;
    u16 lane_index;

    i.mem_type = (u8)node_storage(e, node);
    i.lanes = e->lanes;
    i.mem = emit_address(e, node, idx, &lane_stride, &lane_index);
    if (lane_index != LIR_NONE || (lane_stride != 0 && lane_stride != 1)) {
        CHECK(dtype_bytes((enum dtype)i.mem_type) == 4);
        if (lane_stride != 0) {
            u16 iota = emit_v(e, LIR_V_IOTA, LIR_NONE, LIR_NONE, LIR_NONE);
            iota = emit_v(e, LIR_IMUL, iota, emit_const_i32(e, (u32)lane_stride), LIR_NONE);
            lane_index = lane_index == LIR_NONE ? iota : emit_v(e, LIR_IADD, lane_index, iota, LIR_NONE);
        }
        i.op = LIR_V_GATHER;
        i.mem.index = lane_index;
        i.mem.scale = 4;
    } else if (e->lanes > 1 && lane_stride == 0) {
        i.op = LIR_V_BCAST;
    }
    return emit_pure(e, i);
}

void emit_store(struct emit *e, u16 value, u32 node, const struct affine *idx)
{
    struct lir_instr i = blank(LIR_V_STORE);
    i64 lane_stride;
    u16 lane_index;

    i.mem_type = (u8)node_storage(e, node);
    i.lanes = e->lanes;
    i.a = value;
    i.mem = emit_address(e, node, idx, &lane_stride, &lane_index);
    CHECK(lane_index == LIR_NONE && (e->lanes == 1 || lane_stride == 1));
    *lir_emit(e->lir, LIR_V_STORE) = i;
}

/* ---- indexes that are data ---- */

static bool index_has_lanes(const struct emit *e, const struct affine *idx, u32 rank)
{
    for (u32 d = 0; d < rank && e->lanes > 1 && e->lane_axis != NO_AXIS; d++)
        if (idx[d].coef[e->lane_axis] || idx[d].dynamic_lanes != LIR_NONE)
            return true;
    return false;
}

/* The table's index for one element of a GATHER: clamped into the table. */
static void gather_index(struct emit *e, const struct node *n, const struct affine *idx, struct affine *out)
{
    const struct node *table = emit_node(e, n->src[0]), *index = emit_node(e, n->src[1]);
    u16 rows = emit_extent(e, table->shape[0]);

    out[0] = affine_zero();
    if (index_has_lanes(e, idx, index->rank)) {
        u16 last = emit_vi(e, LIR_V_FROM_S, emit_s_addi(e, rows, -1), 0, 0);
        u16 v = emit_v(e, LIR_IMIN, emit_value(e, n->src[1], idx), last, LIR_NONE);
        out[0].dynamic_lanes = emit_v(e, LIR_IMAX, v, emit_const_i32(e, 0), LIR_NONE);
    } else {
        u16 s = emit_scalar(e, n->src[1], idx);
        s = emit_s(e, LIR_S_MIN, s, emit_s_addi(e, rows, -1), 0);
        out[0].dynamic = emit_s(e, LIR_S_MAX, s, emit_s_const(e, 0), 0);
    }
    for (u32 d = 1; d < table->rank; d++)
        out[d] = idx[index->rank + d - 1];
}

u16 emit_scalar(struct emit *e, u32 node, const struct affine *idx)
{
    const struct node *n = emit_node(e, node);
    struct affine *below = arena_new(e->arena, struct affine, RANK_MAX);

    if (!below || e->depth > EXPR_DEPTH_MAX) {
        e->status = E_LIMIT;
        return LIR_BEGIN;
    }
    if (n->op == OP_SCALAR)
        return emit_s_const(e, (i32)n->scalar.bits);
    if (op_is_source(n->op) || (node != e->stage->node && e->schedule->stage_of[node] != NO_NODE)) {
        struct lir_instr i = blank(LIR_S_LOAD);
        u8 lanes = e->lanes;
        i64 lane_stride;
        u16 lane_index;
        e->lanes = 1;
        i.mem = emit_address(e, node, idx, &lane_stride, &lane_index);
        i.mem_type = (u8)node_storage(e, node);
        e->lanes = lanes;
        return emit_pure(e, i);
    }
    e->depth++;
    u16 s;
    if (n->op == OP_GATHER) {
        gather_index(e, n, idx, below);
    } else {
        CHECK(op_is_move(n->op));
        index_through(e->graph, n, idx, below);
    }
    s = emit_scalar(e, n->src[0], below);
    e->depth--;
    return s;
}

/* ---- elementwise ---- */

static u16 emit_iota(struct emit *e, const struct affine *idx)
{
    u16 s = emit_index(e, idx);
    u16 v = s == LIR_NONE ? emit_const_i32(e, 0) : emit_vi(e, LIR_V_FROM_S, s, 0, 0);

    if (idx->dynamic_lanes != LIR_NONE)
        v = emit_v(e, LIR_IADD, v, idx->dynamic_lanes, LIR_NONE);
    if (e->lanes == 1 || e->lane_axis == NO_AXIS || idx->coef[e->lane_axis] == 0)
        return v;
    u16 lane = emit_v(e, LIR_V_IOTA, LIR_NONE, LIR_NONE, LIR_NONE);
    lane = emit_v(e, LIR_IMUL, lane, emit_const_i32(e, (u32)idx->coef[e->lane_axis]), LIR_NONE);
    return emit_v(e, LIR_IADD, v, lane, LIR_NONE);
}

static bool is_compare(enum op op) { return op == OP_LT || op == OP_LE || op == OP_EQ; }

/* All ones where the comparison holds. */
static u16 emit_compare(struct emit *e, const struct node *n, u16 a, u16 b)
{
    struct lir_instr i = blank(emit_node(e, n->src[0])->dtype == DT_F32 ? LIR_FCMP : LIR_ICMP);
    i.lanes = e->lanes;
    i.a = a;
    i.b = b;
    i.aux = n->op == OP_LT ? LIR_LT : n->op == OP_LE ? LIR_LE : LIR_EQ;
    return emit_pure(e, i);
}

static u16 emit_where(struct emit *e, const struct node *n, const struct affine *idx)
{
    const struct node *condition = emit_node(e, n->src[0]);
    u16 yes = emit_value(e, n->src[1], idx), no = emit_value(e, n->src[2], idx), mask;

    if (is_compare(condition->op) && e->schedule->stage_of[n->src[0]] == NO_NODE) {
        mask = emit_compare(e, condition, emit_value(e, condition->src[0], idx), emit_value(e, condition->src[1], idx));
        return emit_v(e, LIR_SELECT, mask, yes, no);
    }
    struct lir_instr i = blank(LIR_ICMP);
    i.lanes = e->lanes;
    i.a = emit_value(e, n->src[0], idx);
    i.b = emit_const_i32(e, 0);
    i.aux = LIR_EQ;
    mask = emit_pure(e, i);
    return emit_v(e, LIR_SELECT, mask, no, yes);
}

static u16 emit_unary(struct emit *e, const struct node *n, u16 a)
{
    bool is_float = emit_node(e, n->src[0])->dtype == DT_F32;

    switch (n->op) {
    case OP_NEG:
        return is_float ? emit_v(e, LIR_IXOR, a, emit_const_i32(e, 0x80000000u), LIR_NONE)
                        : emit_v(e, LIR_ISUB, emit_const_i32(e, 0), a, LIR_NONE);
    case OP_ABS:
        return is_float ? emit_v(e, LIR_IAND, a, emit_const_i32(e, 0x7fffffffu), LIR_NONE)
                        : emit_v(e, LIR_IMAX, a, emit_v(e, LIR_ISUB, emit_const_i32(e, 0), a, LIR_NONE), LIR_NONE);
    case OP_EXP: return emit_exp(e, a);
    case OP_LOG: return emit_log(e, a);
    case OP_SIN: return emit_sin_cos(e, a, false);
    case OP_COS: return emit_sin_cos(e, a, true);
    case OP_SQRT: return emit_v(e, LIR_FSQRT, a, LIR_NONE, LIR_NONE);
    case OP_RSQRT:
        return emit_v(e, LIR_FDIV, emit_const_f32(e, 1), emit_v(e, LIR_FSQRT, a, LIR_NONE, LIR_NONE), LIR_NONE);
    case OP_RECIP: return emit_v(e, LIR_FDIV, emit_const_f32(e, 1), a, LIR_NONE);
    case OP_FLOOR: return emit_vi(e, LIR_FROUND, a, 0, LIR_DOWN);
    case OP_ROUND: return emit_vi(e, LIR_FROUND, a, 0, LIR_NEAREST);
    case OP_CAST_F32: return is_float ? a : emit_v(e, LIR_CVT_I2F, a, LIR_NONE, LIR_NONE);
    case OP_CAST_I32: return is_float ? emit_vi(e, LIR_CVT_F2I, a, 0, LIR_TRUNC) : a;
    default: panic(__FILE__, __LINE__, "unary operation without lowering");
    }
}

static u16 emit_binary(struct emit *e, const struct node *n, u16 a, u16 b)
{
    static const struct { u8 op, f, i; } row[] = {
        {OP_ADD, LIR_FADD, LIR_IADD}, {OP_SUB, LIR_FSUB, LIR_ISUB}, {OP_MUL, LIR_FMUL, LIR_IMUL},
        {OP_MAX, LIR_FMAX, LIR_IMAX}, {OP_MIN, LIR_FMIN, LIR_IMIN}, {OP_DIV, LIR_FDIV, LIR_FDIV},
        {OP_AND, LIR_IAND, LIR_IAND}, {OP_OR, LIR_IOR, LIR_IOR},    {OP_XOR, LIR_IXOR, LIR_IXOR},
    };
    bool is_float = emit_node(e, n->src[0])->dtype == DT_F32;

    if (is_compare(n->op))
        return emit_v(e, LIR_IAND, emit_compare(e, n, a, b), emit_const_i32(e, 1), LIR_NONE);
    for (u32 i = 0; i < ARRAY_LEN(row); i++)
        if (row[i].op == n->op)
            return emit_v(e, (enum lir_op)(is_float ? row[i].f : row[i].i), a, b, LIR_NONE);
    panic(__FILE__, __LINE__, "binary operation without lowering");
}

/* a * b + c in one rounding when the product has no other name. */
static bool emit_fused_add(struct emit *e, const struct node *n, const struct affine *idx, u16 *res)
{
    if ((n->op != OP_ADD && n->op != OP_SUB) || n->dtype != DT_F32)
        return false;
    for (u32 i = 0; i < 2; i++) {
        u32 m = n->src[i];
        const struct node *mul = emit_node(e, m);
        if (mul->op != OP_MUL || e->schedule->stage_of[m] != NO_NODE || (n->op == OP_SUB && i == 0))
            continue;
        u16 a = emit_value(e, mul->src[0], idx), b = emit_value(e, mul->src[1], idx);
        u16 c = emit_value(e, n->src[1 - i], idx);
        *res = emit_v(e, n->op == OP_ADD ? LIR_FMA : LIR_FNMA, a, b, c);
        return true;
    }
    return false;
}

static u64 value_key(const struct emit *e, u32 node, const struct affine *idx)
{
    u32 rank = emit_node(e, node)->rank;
    u64 h = mix(0x5eedull << 32 | node, (u64)e->lanes << 8 | e->lane_axis);

    for (u32 d = 0; d < rank; d++) {
        i64 bias = idx[d].constant;
        for (u32 a = 0; a < AXES_MAX; a++) {
            if (idx[d].coef[a] == 0)
                continue;
            h = mix(h, (u64)(u32)idx[d].coef[a] << 32 | a << 16 | e->axis[a].counter);
            bias += (i64)idx[d].coef[a] * e->axis[a].bias;
        }
        h = mix(h, (u64)bias);
        h = mix(h, (u64)idx[d].dynamic << 16 | idx[d].dynamic_lanes);
    }
    return h;
}

void emit_remember(struct emit *e, u32 node, const struct affine *idx, u16 vreg)
{
    number_add(e, value_key(e, node, idx), vreg);
}

static u16 emit_new_value(struct emit *e, u32 node, const struct affine *idx)
{
    const struct node *n = emit_node(e, node);
    struct affine *below = arena_new(e->arena, struct affine, RANK_MAX);
    u16 res;

    if (!below) {
        e->status = E_NOMEM;
        return emit_const_i32(e, 0);
    }
    if (n->op == OP_SCALAR)
        return emit_const_i32(e, n->scalar.bits);
    if (n->op == OP_IOTA)
        return emit_iota(e, &idx[n->iota.axis]);
    if (op_is_source(n->op) || (node != e->stage->node && e->schedule->stage_of[node] != NO_NODE))
        return emit_load(e, node, idx);
    if (n->op == OP_GATHER) {
        gather_index(e, n, idx, below);
        return emit_value(e, n->src[0], below);
    }
    if (op_is_move(n->op)) {
        index_through(e->graph, n, idx, below);
        return emit_value(e, n->src[0], below);
    }
    CHECK(op_is_element(n->op)); /* reductions and products are remembered before their users are emitted */
    if (n->op == OP_WHERE)
        return emit_where(e, n, idx);
    if (emit_fused_add(e, n, idx, &res))
        return res;
    if (n->src_count == 1)
        return emit_unary(e, n, emit_value(e, n->src[0], idx));
    u16 a = emit_value(e, n->src[0], idx);
    return emit_binary(e, n, a, emit_value(e, n->src[1], idx));
}

u16 emit_value(struct emit *e, u32 node, const struct affine *idx)
{
    u64 key = value_key(e, node, idx);
    u16 *known = number_find(e, key);

    if (known)
        return *known;
    if (e->depth >= 2 * EXPR_DEPTH_MAX || e->status != OK) {
        e->status = e->status == OK ? E_LIMIT : e->status;
        return emit_const_i32(e, 0);
    }
    e->depth++;
    u16 vreg = emit_new_value(e, node, idx);
    e->depth--;
    number_add(e, key, vreg);
    return vreg;
}

bool find_index(struct emit *e, u32 from, const struct affine *idx, u32 target, struct affine *out)
{
    const struct node *n = emit_node(e, from);
    struct affine *below;

    if (from == target) {
        memcpy(out, idx, RANK_MAX * sizeof *out);
        return true;
    }
    if (n->op == OP_SCALAR || n->op == OP_IOTA || op_is_source(n->op) ||
        (from != e->stage->node && e->schedule->stage_of[from] != NO_NODE) || e->depth > EXPR_DEPTH_MAX)
        return false;
    below = arena_new(e->arena, struct affine, RANK_MAX);
    if (!below)
        return false;
    if (op_is_move(n->op))
        index_through(e->graph, n, idx, below);
    else if (op_is_element(n->op))
        memcpy(below, idx, RANK_MAX * sizeof *below);
    else
        return false;
    e->depth++;
    bool found = false;
    for (u32 i = 0; i < n->src_count && !found; i++)
        found = find_index(e, n->src[i], below, target, out);
    e->depth--;
    return found;
}
