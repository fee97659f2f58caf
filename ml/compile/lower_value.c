/*
 * lower_value.c: expressions to LIR: indexes that are data, loads by way of address.c, elementwise
 * operations.
 * Recursion follows the expression, whose depth schedule.c has bounded by EXPR_DEPTH_MAX.
 */
#include "ml/compile/emit.h"

/* ---- indexes that are data ---- */

static bool index_has_lanes(const struct emit *e, const struct affine *idx, u32 rank)
{
    for (u32 d = 0; d < rank && e->lanes > 1 && e->lane_axis != NO_AXIS; d++)
        if (idx[d].coef[e->lane_axis] || idx[d].dynamic_lanes != LIR_NONE)
            return true;
    return false;
}

/* The table's index for one element of a GATHER: clamped into the table. */
static void gather_index(struct emit *e, const struct node *n, const struct affine *idx,
                         struct affine *out)
{
    const struct node *table = emit_node(e, n->src[0]), *index = emit_node(e, n->src[1]);
    u16 rows = emit_extent(e, table->shape[0]);

    out[0] = affine_zero();
    if (index_has_lanes(e, idx, index->rank)) {
        u16 last = emit_vi(e, LIR_V_FROM_S, emit_s_addi(e, rows, -1), 0, 0);
        u16 v = emit_two(e, LIR_IMIN, emit_value(e, n->src[1], idx), last);
        out[0].dynamic_lanes = emit_two(e, LIR_IMAX, v, emit_const_i32(e, 0));
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
    struct lir_instr i = emit_blank(e, LIR_S_FROM_V);
    u8 lanes = e->lanes, lane_axis = e->lane_axis;

    if (emit_node(e, node)->op == OP_SCALAR)
        return emit_s_const(e, (i32)emit_node(e, node)->scalar.bits);
    e->lanes = 1;
    e->lane_axis = NO_AXIS;
    i.a = emit_value(e, node, idx);
    e->lanes = lanes;
    e->lane_axis = lane_axis;
    return emit_pure(e, i);
}

/* ---- elementwise ---- */

static u16 emit_iota(struct emit *e, const struct affine *idx)
{
    u16 s = emit_index(e, idx);
    u16 v = s == LIR_NONE ? emit_const_i32(e, 0) : emit_vi(e, LIR_V_FROM_S, s, 0, 0);

    if (idx->dynamic_lanes != LIR_NONE)
        v = emit_two(e, LIR_IADD, v, idx->dynamic_lanes);
    if (e->lanes == 1 || e->lane_axis == NO_AXIS || idx->coef[e->lane_axis] == 0)
        return v;
    u16 lane = emit_v(e, LIR_V_IOTA, LIR_NONE, LIR_NONE, LIR_NONE);
    lane = emit_two(e, LIR_IMUL, lane, emit_const_i32(e, (u32)idx->coef[e->lane_axis]));
    return emit_two(e, LIR_IADD, v, lane);
}

static bool is_compare(enum op op)
{
    return op == OP_LT || op == OP_LE || op == OP_EQ;
}

/* All ones where the comparison node holds. */
static u16 emit_condition(struct emit *e, const struct node *n, const struct affine *idx)
{
    enum lir_op op = emit_node(e, n->src[0])->dtype == DT_F32 ? LIR_FCMP : LIR_ICMP;
    u8 predicate = n->op == OP_LT ? LIR_LT : n->op == OP_LE ? LIR_LE : LIR_EQ;
    u16 a = emit_value(e, n->src[0], idx);

    return emit_compare(e, op, predicate, a, emit_value(e, n->src[1], idx));
}

static u16 emit_where(struct emit *e, const struct node *n, const struct affine *idx)
{
    const struct node *condition = emit_node(e, n->src[0]);
    u16 yes = emit_value(e, n->src[1], idx), no = emit_value(e, n->src[2], idx);

    if (is_compare(condition->op) && e->schedule->stage_of[n->src[0]] == NO_NODE)
        return emit_v(e, LIR_SELECT, emit_condition(e, condition, idx), yes, no);
    u16 value = emit_value(e, n->src[0], idx);
    u16 zero = emit_compare(e, LIR_ICMP, LIR_EQ, value, emit_const_i32(e, 0));
    return emit_v(e, LIR_SELECT, zero, no, yes);
}

static u16 emit_unary(struct emit *e, const struct node *n, u16 a)
{
    bool is_float = emit_node(e, n->src[0])->dtype == DT_F32;

    switch (n->op) {
    case OP_NEG:
        return is_float ? emit_two(e, LIR_IXOR, a, emit_const_i32(e, 0x80000000u))
                        : emit_two(e, LIR_ISUB, emit_const_i32(e, 0), a);
    case OP_ABS:
        return is_float ? emit_two(e, LIR_IAND, a, emit_const_i32(e, 0x7fffffffu))
                        : emit_two(e, LIR_IMAX, a, emit_two(e, LIR_ISUB, emit_const_i32(e, 0), a));
    case OP_EXP:
        return emit_exp(e, a);
    case OP_LOG:
        return emit_log(e, a);
    case OP_SIN:
        return emit_sin_cos(e, a, false);
    case OP_COS:
        return emit_sin_cos(e, a, true);
    case OP_SQRT:
        return emit_v(e, LIR_FSQRT, a, LIR_NONE, LIR_NONE);
    case OP_RSQRT:
        return emit_v(e, LIR_FDIV, emit_const_f32(e, 1),
                      emit_v(e, LIR_FSQRT, a, LIR_NONE, LIR_NONE), LIR_NONE);
    case OP_RECIP:
        return emit_two(e, LIR_FDIV, emit_const_f32(e, 1), a);
    case OP_FLOOR:
        return emit_vi(e, LIR_FROUND, a, 0, LIR_DOWN);
    case OP_ROUND:
        return emit_vi(e, LIR_FROUND, a, 0, LIR_NEAREST);
    case OP_CAST_F32:
        return is_float ? a : emit_v(e, LIR_CVT_I2F, a, LIR_NONE, LIR_NONE);
    case OP_CAST_I32:
        return is_float ? emit_vi(e, LIR_CVT_F2I, a, 0, LIR_TRUNC) : a;
    default:
        panic(__FILE__, __LINE__, "unary operation without lowering");
    }
}

static u16 emit_binary(struct emit *e, const struct node *n, u16 a, u16 b)
{
    static const struct {
        u8 op, f, i;
    } row[] = {
        {OP_ADD, LIR_FADD, LIR_IADD}, {OP_SUB, LIR_FSUB, LIR_ISUB}, {OP_MUL, LIR_FMUL, LIR_IMUL},
        {OP_MAX, LIR_FMAX, LIR_IMAX}, {OP_MIN, LIR_FMIN, LIR_IMIN}, {OP_DIV, LIR_FDIV, LIR_FDIV},
        {OP_AND, LIR_IAND, LIR_IAND}, {OP_OR, LIR_IOR, LIR_IOR},    {OP_XOR, LIR_IXOR, LIR_IXOR},
    };
    bool is_float = emit_node(e, n->src[0])->dtype == DT_F32;

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
    u64 h = number_mix(0x5eedull << 32 | node, (u64)e->lanes << 8 | e->lane_axis);

    for (u32 d = 0; d < rank; d++) {
        i64 bias = idx[d].constant;
        for (u32 a = 0; a < AXES_MAX; a++) {
            if (idx[d].coef[a] == 0)
                continue;
            h = number_mix(h, (u64)(u32)idx[d].coef[a] << 32 | a << 16 | e->axis[a].counter);
            bias += (i64)idx[d].coef[a] * e->axis[a].bias;
        }
        h = number_mix(h, (u64)bias);
        h = number_mix(h, (u64)idx[d].dynamic << 16 | idx[d].dynamic_lanes);
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
    if (op_is_source(n->op) || (node != e->stage->node && e->schedule->stage_of[node] != NO_NODE))
        return emit_load(e, node, idx);
    if (n->op == OP_IOTA)
        return emit_iota(e, &idx[n->iota.axis]);
    if (n->op == OP_GATHER) {
        gather_index(e, n, idx, below);
        return emit_value(e, n->src[0], below);
    }
    if (op_is_move(n->op)) {
        index_through(e->graph, n, idx, below);
        return emit_value(e, n->src[0], below);
    }
    CHECK(op_is_element(
        n->op)); /* reductions and products are remembered before their users are emitted */
    if (n->op == OP_WHERE)
        return emit_where(e, n, idx);
    if (emit_fused_add(e, n, idx, &res))
        return res;
    if (is_compare(n->op))
        return emit_two(e, LIR_IAND, emit_condition(e, n, idx), emit_const_i32(e, 1));
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
        (from != e->stage->node && e->schedule->stage_of[from] != NO_NODE) ||
        e->depth > EXPR_DEPTH_MAX)
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
