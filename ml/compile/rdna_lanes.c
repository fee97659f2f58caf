/*
 * rdna_lanes.c: operations on lanes: which unit computes them, the rows of those that have one, and
 * the sequences of those that have none. What is the same in all lanes and whole stays on the
 * scalar unit; comparisons stay masks while their readers take masks.
 */
#include "ml/compile/rdna_select.h"

/* ---- operations with a row of their own ---- */

enum {
    L_SHIFT = 1,  /* by imm, which comes first */
    L_NEGATE = 2, /* the first source */
    L_PACKED = 4, /* halves: no constants */
};
struct lane_row {
    u8 op;
    u8 traits;
    u16 row, scalar; /* scalar: on the scalar unit, 0: none */
};
// clang-format off
static const struct lane_row rows[] = {
    {LIR_V_MOV,   0,        R_v_mov_b32,     0},
    {LIR_FADD,    0,        R_v_add_f32,     0},
    {LIR_FSUB,    0,        R_v_sub_f32,     0},
    {LIR_FMUL,    0,        R_v_mul_f32,     0},
    {LIR_FMA,     0,        R_v_fma_f32,     0},
    {LIR_FNMA,    L_NEGATE, R_v_fma_f32,     0},
    {LIR_CVT_I2F, 0,        R_v_cvt_f32_i32, 0},
    {LIR_IADD,    0,        R_v_add_nc_u32,  R_s_add_i32},
    {LIR_ISUB,    0,        R_v_sub_nc_u32,  R_s_sub_i32},
    {LIR_IMUL,    0,        R_v_mul_lo_u32,  R_s_mul_i32},
    {LIR_IAND,    0,        R_v_and_b32,     R_s_and_b32},
    {LIR_IOR,     0,        R_v_or_b32,      R_s_or_b32},
    {LIR_IXOR,    0,        R_v_xor_b32,     R_s_xor_b32},
    {LIR_ISHLI,   L_SHIFT,  R_v_lshlrev_b32, R_s_lshl_b32},
    {LIR_ISHRI,   L_SHIFT,  R_v_lshrrev_b32, R_s_lshr_b32},
    {LIR_ISARI,   L_SHIFT,  R_v_ashrrev_i32, R_s_ashr_i32},
    {LIR_IMAX,    0,        R_v_max_i32,     R_s_max_i32},
    {LIR_IMIN,    0,        R_v_min_i32,     R_s_min_i32},
    {LIR_H_ADD,   L_PACKED, R_v_pk_add_f16,  0},
    {LIR_H_MUL,   L_PACKED, R_v_pk_mul_f16,  0},
    {LIR_H_FMA,   L_PACKED, R_v_pk_fma_f16,  0},
};
// clang-format on

static const struct lane_row *row_of(u32 op)
{
    for (u32 i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].op == op)
            return &rows[i];
    return NULL;
}

/* ---- kinds ---- */

static u8 kind_of(const struct rselect *s, u16 v)
{
    return v == LIR_NONE ? RV_CONST : s->value[v].kind;
}

static bool is_uniform(const struct rselect *s, u16 v)
{
    return kind_of(s, v) == RV_UNIFORM || kind_of(s, v) == RV_CONST;
}

static bool joins_masks(const struct rselect *s, const struct lir_instr *in)
{
    return (in->op == LIR_IAND || in->op == LIR_IOR || in->op == LIR_IXOR) &&
           kind_of(s, in->a) == RV_MASK && kind_of(s, in->b) == RV_MASK;
}

enum rvalue_kind lanes_kind(const struct rselect *s, const struct lir_instr *in)
{
    const struct lane_row *row = row_of(in->op);

    if (in->op == LIR_V_CONST)
        return RV_CONST;
    if (in->op == LIR_V_FROM_S || memory_is_scalar(in))
        return RV_UNIFORM;
    if (in->op == LIR_FCMP || in->op == LIR_ICMP || joins_masks(s, in))
        return RV_MASK;
    if (row && row->scalar && is_uniform(s, in->a) && is_uniform(s, in->b))
        return RV_UNIFORM;
    return RV_LANES;
}

bool lanes_take_mask(const struct rselect *s, const struct lir_instr *in, u32 k)
{
    if (in->op == LIR_SELECT)
        return k == 0;
    if (joins_masks(s, in))
        return s->value[in->dst].kind == RV_MASK;
    return in->op == LIR_IAND && k < 2; /* the other one where the mask is set */
}

/* ---- masks ---- */

/* dst = mask ? b : c. */
static void choose(struct rselect *s, u16 dst, u16 mask, struct rsrc b, struct rsrc c)
{
    rdna_put3(s, R_v_cndmask_b32, dst, (struct rsrc[3]){c, b, rsrc_of(mask)});
}

/* What a new mask is wanted as. */
static void give_mask(struct rselect *s, const struct lir_instr *in, u16 mask)
{
    const struct rvalue *value = &s->value[in->dst];
    u16 lanes = value->kind == RV_MASK ? value->lanes : value->code;

    if (lanes != RDNA_NONE)
        choose(s, lanes, mask, rsrc_const(UINT32_MAX), rsrc_const(0));
}

static u16 mask_of(struct rselect *s, u16 v)
{
    if (s->value[v].kind == RV_MASK)
        return s->value[v].code;
    return rdna_new(s, R_v_cmp_ne_u32, rsrc_const(0), rdna_operand(s, v));
}

static void compare(struct rselect *s, const struct lir_instr *in)
{
    static const u16 floats[] = {R_v_cmp_eq_f32, R_v_cmp_lt_f32, R_v_cmp_le_f32};
    static const u16 ints[] = {R_v_cmp_eq_i32, R_v_cmp_lt_i32, R_v_cmp_le_i32};
    const struct rvalue *value = &s->value[in->dst];
    u16 row = in->op == LIR_FCMP ? floats[in->aux] : ints[in->aux];
    u16 mask = value->kind == RV_MASK ? value->code : rdna_sgpr(s);

    rdna_put(s, row, mask, rdna_operand(s, in->a), rdna_operand(s, in->b));
    give_mask(s, in, mask);
}

static void join_masks(struct rselect *s, const struct lir_instr *in)
{
    struct rsrc a = rsrc_of(s->value[in->a].code), b = rsrc_of(s->value[in->b].code);

    rdna_put(s, row_of(in->op)->scalar, s->value[in->dst].code, a, b);
    give_mask(s, in, s->value[in->dst].code);
}

/* A mask and other lanes: these where it is set. */
static void mask_and(struct rselect *s, const struct lir_instr *in)
{
    bool first = kind_of(s, in->a) == RV_MASK;
    u16 other = first ? in->b : in->a, mask = s->value[first ? in->a : in->b].code;

    if (kind_of(s, other) == RV_MASK) {
        u16 both = rdna_new(s, R_s_and_b32, rsrc_of(mask), rsrc_of(s->value[other].code));
        give_mask(s, in, both);
        return;
    }
    choose(s, s->value[in->dst].code, mask, rdna_operand(s, other), rsrc_const(0));
}

/* ---- float sequences ---- */

static void select_by(struct rselect *s, const struct lir_instr *in, u16 row)
{
    struct rsrc a = rdna_operand(s, in->a), b = rdna_operand(s, in->b);

    choose(s, s->value[in->dst].code, rdna_new(s, row, a, b), a, b);
}

static void larger(struct rselect *s, const struct lir_instr *in)
{
    select_by(s, in, R_v_cmp_gt_f32);
}

static void smaller(struct rselect *s, const struct lir_instr *in)
{
    select_by(s, in, R_v_cmp_lt_f32);
}

/* a * b + c, the first source negated when asked. */
static u16 fused(struct rselect *s, bool negate, u16 a, u16 b, struct rsrc c)
{
    u16 dst = rdna_vgpr(s);

    rdna_put3(s, R_v_fma_f32, dst, (struct rsrc[3]){rsrc_of(a), rsrc_of(b), c})->neg = negate;
    return dst;
}

/* As LLVM divides: correctly rounded, with denormals. */
static void divide(struct rselect *s, const struct lir_instr *in)
{
    struct rsrc a = rdna_operand(s, in->a), b = rdna_operand(s, in->b);
    u16 below = rdna_vgpr(s), above = rdna_vgpr(s);

    rdna_put3(s, R_v_div_scale_f32, below, (struct rsrc[3]){b, b, a})->sdst = RDNA_NULL;
    rdna_put3(s, R_v_div_scale_f32, above, (struct rsrc[3]){a, b, a})->sdst = RDNA_VCC;
    u16 r = rdna_new(s, R_v_rcp_f32, rsrc_of(below), RSRC_NONE);
    u16 e = fused(s, true, below, r, rsrc_const(0x3f800000));
    r = fused(s, false, e, r, rsrc_of(r));
    u16 q = rdna_new(s, R_v_mul_f32, rsrc_of(above), rsrc_of(r));
    e = fused(s, true, below, q, rsrc_of(above));
    q = fused(s, false, e, r, rsrc_of(q));
    e = fused(s, true, below, q, rsrc_of(above));
    q = rdna_new3(s, R_v_div_fmas_f32, (struct rsrc[3]){rsrc_of(e), rsrc_of(r), rsrc_of(q)});
    rdna_put3(s, R_v_div_fixup_f32, s->value[in->dst].code, (struct rsrc[3]){rsrc_of(q), b, a});
}

/* The unit's result and its two neighbours: the one whose square is nearest. What is small is
 * scaled by 2^32 first. */
static void square_root(struct rselect *s, const struct lir_instr *in)
{
    const struct rsrc limit = {RDNA_CONST, 0x0f800000}, up = {RDNA_CONST, 0x4f800000};
    const struct rsrc down = {RDNA_CONST, 0x37800000};
    u16 a = rdna_in_vgpr(s, rdna_operand(s, in->a)), dst = s->value[in->dst].code;
    u16 tiny = rdna_new(s, R_v_cmp_gt_f32, limit, rsrc_of(a));
    u16 scaled = rdna_new(s, R_v_mul_f32, up, rsrc_of(a));
    u16 x = rdna_vgpr(s), root = rdna_vgpr(s), result = rdna_vgpr(s);

    choose(s, x, tiny, rsrc_of(scaled), rsrc_of(a));
    rdna_put(s, R_v_sqrt_f32, root, rsrc_of(x), RSRC_NONE);
    u16 less = rdna_new(s, R_v_add_nc_u32, rsrc_const(UINT32_MAX), rsrc_of(root));
    u16 more = rdna_new(s, R_v_add_nc_u32, rsrc_const(1), rsrc_of(root));
    u16 over = fused(s, true, less, root, rsrc_of(x)),
        under = fused(s, true, more, root, rsrc_of(x));
    u16 mask = rdna_new(s, R_v_cmp_ge_f32, rsrc_const(0), rsrc_of(over));
    choose(s, root, mask, rsrc_of(less), rsrc_of(root));
    mask = rdna_new(s, R_v_cmp_lt_f32, rsrc_const(0), rsrc_of(under));
    choose(s, root, mask, rsrc_of(more), rsrc_of(root));
    scaled = rdna_new(s, R_v_mul_f32, down, rsrc_of(root));
    choose(s, result, tiny, rsrc_of(scaled), rsrc_of(root));
    mask = rdna_new(s, R_v_cmp_class_f32, rsrc_of(x), rsrc_const(0x260));
    choose(s, dst, mask, rsrc_of(x), rsrc_of(result)); /* zeros and infinity stay */
}

static void round_by(struct rselect *s, u16 dst, struct rsrc a, u8 aux)
{
    static const u16 by[] = {R_v_rndne_f32, R_v_floor_f32, R_v_ceil_f32, R_v_trunc_f32};

    rdna_put(s, by[aux], dst, a, RSRC_NONE);
}

static void to_whole(struct rselect *s, const struct lir_instr *in)
{
    round_by(s, s->value[in->dst].code, rdna_operand(s, in->a), in->aux);
}

static void to_int(struct rselect *s, const struct lir_instr *in)
{
    struct rsrc a = rdna_operand(s, in->a);

    if (in->aux == LIR_NEAREST) {
        u16 whole = rdna_vgpr(s);
        round_by(s, whole, a, LIR_NEAREST);
        a = rsrc_of(whole);
    }
    rdna_put(s, R_v_cvt_i32_f32, s->value[in->dst].code, a, RSRC_NONE);
}

/* ---- products of parts of words ---- */

static void dot4(struct rselect *s, const struct lir_instr *in)
{
    struct rinstr *dot = rdna_put3(
        s, R_v_dot4_i32_iu8, s->value[in->dst].code,
        (struct rsrc[3]){rdna_operand(s, in->a), rdna_operand(s, in->b), rdna_operand(s, in->c)});
    dot->neg = 2; /* the second source's bytes have a sign */
}

static void dot8(struct rselect *s, const struct lir_instr *in)
{
    struct rinstr *dot = rdna_put3(
        s, R_v_dot8_i32_iu4, s->value[in->dst].code,
        (struct rsrc[3]){rdna_operand(s, in->a), rdna_operand(s, in->b), rdna_operand(s, in->c)});
    dot->neg = in->imm ? 2 : 0;
}

static void swap(struct rselect *s, const struct lir_instr *in)
{
    u16 a = rdna_in_vgpr(s, rdna_operand(s, in->a));

    rdna_put(s, R_v_mov_b32, s->value[in->dst].code, rsrc_of(a), RSRC_NONE)->dpp =
        (u16)(DPP_ROW_XMASK + in->imm);
}

static void half_fma(struct rselect *s, const struct lir_instr *in)
{
    u16 a = rdna_in_vgpr(s, rdna_operand(s, in->a));
    struct rinstr *mix =
        rdna_put3(s, R_v_fma_mix_f32, s->value[in->dst].code,
                  (struct rsrc[3]){rsrc_of(a), rdna_operand(s, in->b), rdna_operand(s, in->c)});
    mix->op_sel_hi = 1; /* the first source is a half */
    mix->op_sel = in->imm != 0;
}

/* The high half is b * 1 - 0, which leaves the low one as it is. */
static void pack_halves(struct rselect *s, const struct lir_instr *in)
{
    u16 dst = s->value[in->dst].code;

    rdna_put(s, R_v_cvt_f16_f32, dst, rdna_operand(s, in->a), RSRC_NONE);
    rdna_put3(s, R_v_fma_mixhi_f16, dst,
              (struct rsrc[3]){rdna_operand(s, in->b), rsrc_const(0x3f800000), rsrc_const(0)})
        ->neg = 4;
}

static void matrix(struct rselect *s, const struct lir_instr *in)
{
    rdna_put3(s, R_v_wmma_f32_16x16x16_f16, s->value[in->dst].code,
              (struct rsrc[3]){rsrc_of(s->value[in->a].code), rsrc_of(s->value[in->b].code),
                               rsrc_of(s->value[in->c].code)});
}

/* ---- across lanes: each lane meets the one at a distance, the largest first ---- */

static u16 combining_row(enum lir_op op)
{
    switch (op) {
    case LIR_HSUM_F:
        return R_v_add_f32;
    case LIR_HSUM_I:
        return R_v_add_nc_u32;
    case LIR_HMAX_F:
        return R_v_max_f32;
    case LIR_HMIN_F:
        return R_v_min_f32;
    case LIR_HMAX_I:
        return R_v_max_i32;
    default:
        return R_v_min_i32;
    }
}

static void across(struct rselect *s, const struct lir_instr *in)
{
    const struct rsrc low = {RDNA_CONST, 0x76543210};
    u16 now = rdna_in_vgpr(s, rdna_operand(s, in->a)), row = combining_row(in->op);
    u32 lanes = in->lanes == 1 ? 1 : in->imm ? (u32)in->imm : RDNA_LANES;

    if (lanes == 1)
        rdna_put(s, R_v_mov_b32, s->value[in->dst].code, rsrc_of(now), RSRC_NONE);
    for (u32 distance = lanes / 2; distance; distance /= 2) {
        u16 to = distance == 1 ? s->value[in->dst].code : rdna_vgpr(s);
        struct rsrc other = rsrc_of(now);
        if (distance == 16)
            other =
                rsrc_of(rdna_new3(s, R_v_permlanex16_b32,
                                  (struct rsrc[3]){rsrc_of(now), low, rsrc_of(rdna_row_order(s))}));
        struct rinstr *joined = rdna_put(s, row, to, other, rsrc_of(now));
        if (distance < 16)
            joined->dpp = (u16)(DPP_ROW_XMASK + distance);
        now = to;
    }
}

/* ---- the walk ---- */

static void by_row(struct rselect *s, const struct lir_instr *in, const struct lane_row *row)
{
    const struct rvalue *value = &s->value[in->dst];
    struct rsrc src[3] = {RSRC_NONE, RSRC_NONE, RSRC_NONE};
    const u16 use[] = {in->a, in->b, in->c};
    bool scalar = value->kind == RV_UNIFORM;

    for (u32 k = 0; k < 3; k++) {
        if (use[k] != LIR_NONE)
            src[k] = rdna_operand(s, use[k]);
        if (row->traits & L_PACKED && use[k] != LIR_NONE && !rdna_is_scalar(s, src[k].code))
            src[k] = rsrc_of(rdna_in_vgpr(s, src[k]));
    }
    if (row->traits & L_SHIFT) {
        src[1] = src[0];
        src[0] = rsrc_const((u32)in->imm);
    }
    if (scalar && row->traits & L_SHIFT)
        rdna_put(s, row->scalar, value->code, src[1], src[0]);
    else
        rdna_put3(s, scalar ? row->scalar : row->row, value->code, src)->neg =
            (row->traits & L_NEGATE) != 0;
}

static void from_scalar(struct rselect *s, const struct lir_instr *in)
{
    struct rvalue *value = &s->value[in->dst];
    bool same = value->kind == RV_UNIFORM && s->value[in->a].writes == 1;
    struct rsrc a = scalar_low(s, in->a);

    if (same && rdna_is_scalar(s, a.code))
        value->code = a.code;
    else
        rdna_put(s, value->kind == RV_UNIFORM ? R_s_mov_b32 : R_v_mov_b32, value->code, a,
                 RSRC_NONE);
}

static void constant(struct rselect *s, const struct lir_instr *in)
{
    const struct rvalue *value = &s->value[in->dst];

    if (value->kind != RV_CONST)
        rdna_put(s, R_v_mov_b32, value->code, rsrc_const((u32)in->imm), RSRC_NONE);
}

static void lane_number(struct rselect *s, const struct lir_instr *in)
{
    rdna_put(s, R_v_mov_b32, s->value[in->dst].code, rsrc_of(rdna_shifted_lane(s, 0)), RSRC_NONE);
}

static void select(struct rselect *s, const struct lir_instr *in)
{
    u16 mask = mask_of(s, in->a);

    choose(s, s->value[in->dst].code, mask, rdna_operand(s, in->b), rdna_operand(s, in->c));
}

/* What is no sequence: masks joined, the rest by its row. */
static void plain(struct rselect *s, const struct lir_instr *in)
{
    bool masks = kind_of(s, in->a) == RV_MASK || kind_of(s, in->b) == RV_MASK;

    if (s->value[in->dst].kind == RV_MASK)
        join_masks(s, in);
    else if (in->op == LIR_IAND && masks)
        mask_and(s, in);
    else
        by_row(s, in, row_of(in->op));
}

void lanes_expand(struct rselect *s, const struct lir_instr *in)
{
    static void (*const sequence[LIR_OP_COUNT])(struct rselect *, const struct lir_instr *) = {
        [LIR_V_CONST] = constant,
        [LIR_V_IOTA] = lane_number,
        [LIR_V_FROM_S] = from_scalar,
        [LIR_V_SWAP] = swap,
        [LIR_FDIV] = divide,
        [LIR_FMAX] = larger,
        [LIR_FMIN] = smaller,
        [LIR_FSQRT] = square_root,
        [LIR_FROUND] = to_whole,
        [LIR_CVT_F2I] = to_int,
        [LIR_FCMP] = compare,
        [LIR_ICMP] = compare,
        [LIR_SELECT] = select,
        [LIR_FMAH] = half_fma,
        [LIR_DOT4] = dot4,
        [LIR_DOT8] = dot8,
        [LIR_H_PACK] = pack_halves,
        [LIR_WMMA] = matrix,
        [LIR_HSUM_F... LIR_HMIN_I] = across,
    };

    (sequence[in->op] ? sequence[in->op] : plain)(s, in);
}
