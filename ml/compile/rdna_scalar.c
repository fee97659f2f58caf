/*
 * rdna_scalar.c: SCALAR values and loops on the scalar unit. An SGPR holds 32 bits; a value is 64
 * bits wide, a pair, only where an address is made of it and it may not fit in 32: what is no part
 * of an address must lie in i32. Products and sums that are wide are exact.
 */
#include "ml/compile/rdna_select.h"

/* ---- bounds ---- */

struct bounds {
    i64 low, high;
};

static i64 least(i64 a, i64 b)
{
    return a < b ? a : b;
}

static i64 most(i64 a, i64 b)
{
    return a > b ? a : b;
}

static i64 sum(i64 a, i64 b)
{
    i64 result;

    return __builtin_add_overflow(a, b, &result) ? (a < 0 ? INT64_MIN : INT64_MAX) : result;
}

static bool fits(i64 low, i64 high)
{
    return low >= INT32_MIN && high <= INT32_MAX;
}

/* Bounds that are one value say it all, but of what is written again. */
bool scalar_constant(const struct rselect *s, u16 v)
{
    return s->value[v].writes == 1 && s->value[v].low == s->value[v].high;
}

/* to - from, where it is a constant. */
static bool difference(const struct rselect *s, u16 to, u16 from, i64 *result)
{
    const struct lir_instr *in = &s->lir->instr[s->value[to].writer];
    bool adds = to >= LIR_FIRST_FREE && s->value[to].writes == 1 && s->value[from].writes == 1;
    u16 other = in->a == from ? in->b : in->a;

    *result = (i64)((u64)s->value[to].low - (u64)s->value[from].low);
    if (scalar_constant(s, to) && scalar_constant(s, from))
        return true;
    *result = in->op == LIR_S_ADDI ? in->imm : s->value[other == LIR_NONE ? 0 : other].low;
    return adds &&
           ((in->op == LIR_S_ADDI && in->a == from) ||
            (in->op == LIR_S_ADD && (in->a == from || in->b == from) && scalar_constant(s, other)));
}

static bool trips_known(const struct rselect *s, const struct lir_instr *loop)
{
    i64 span;

    return difference(s, loop->b, loop->a, &span) && span > 0;
}

static bool single_trip(const struct rselect *s, const struct lir_instr *loop)
{
    i64 span;

    return difference(s, loop->b, loop->a, &span) && span > 0 && span <= loop->imm;
}

static struct bounds bounds_of(const struct rselect *s, u16 v)
{
    return v == LIR_NONE ? (struct bounds){0, 0}
                         : (struct bounds){s->value[v].low, s->value[v].high};
}

/* Of the value as a 32-bit operand. */
static struct bounds narrow(const struct rselect *s, u16 v)
{
    struct bounds b = bounds_of(s, v);

    return (struct bounds){most(b.low, INT32_MIN), least(b.high, INT32_MAX)};
}

static struct bounds product(struct bounds a, struct bounds b)
{
    const i64 corner[] = {a.low * b.low, a.low * b.high, a.high * b.low, a.high * b.high};
    struct bounds result = {corner[0], corner[0]};

    for (u32 i = 1; i < ARRAY_LEN(corner); i++) {
        result.low = least(result.low, corner[i]);
        result.high = most(result.high, corner[i]);
    }
    return result;
}

/* Of the result of an operation whose register is written once. */
static struct bounds result_bounds(const struct rselect *s, const struct lir_instr *in)
{
    struct bounds a = bounds_of(s, in->a), b = bounds_of(s, in->b);
    struct bounds na = narrow(s, in->a), nb = narrow(s, in->b);
    struct bounds unknown = {INT32_MIN, INT32_MAX};
    i64 known;

    switch (in->op) {
    case LIR_S_CONST:
        return (struct bounds){in->imm, in->imm};
    case LIR_S_MOV:
        return a;
    case LIR_S_ARG: /* extents and addresses are never negative */
        return (struct bounds){0, INT64_MAX};
    case LIR_S_ADD:
        return (struct bounds){sum(a.low, b.low), sum(a.high, b.high)};
    case LIR_S_ADDI:
        return (struct bounds){sum(a.low, in->imm), sum(a.high, in->imm)};
    case LIR_S_SUB:
        if (difference(s, in->a, in->b, &known))
            return (struct bounds){known, known};
        return (struct bounds){sum(a.low, -most(b.high, -INT64_MAX)),
                               sum(a.high, -most(b.low, -INT64_MAX))};
    case LIR_S_MUL:
        return product(na, nb);
    case LIR_S_MULI:
        return product(na, (struct bounds){in->imm, in->imm});
    case LIR_S_SHLI:
        return in->imm > 31 ? (struct bounds){INT64_MIN, INT64_MAX}
                            : product(na, (struct bounds){(i64)1 << in->imm, (i64)1 << in->imm});
    case LIR_S_SHRI:
        return (struct bounds){a.low >> in->imm, a.high >> in->imm};
    case LIR_S_MIN:
        return (struct bounds){least(na.low, nb.low), least(na.high, nb.high)};
    case LIR_S_MAX:
        return (struct bounds){most(na.low, nb.low), most(na.high, nb.high)};
    case LIR_S_ANDI:
        if (in->imm >= 0)
            return (struct bounds){0, in->imm};
        return na.low == na.high ? (struct bounds){na.low & in->imm, na.low & in->imm}
               : na.low >= 0     ? (struct bounds){0, na.high}
                                 : unknown;
    case LIR_S_DIV:
        return (struct bounds){0, na.low >= 0 ? na.high / most(nb.low, 1) : INT32_MAX};
    case LIR_S_MOD:
        return (struct bounds){0, most(nb.high - 1, 0)};
    case LIR_LOOP:
        return single_trip(s, in) ? na : (struct bounds){na.low, most(nb.high - 1, na.low)};
    default:
        return unknown;
    }
}

/* An address is wanted: then so are its summands. */
static bool want(struct rselect *s, u16 v)
{
    if (v == LIR_NONE || s->value[v].wanted)
        return false;
    s->value[v].wanted = true;
    return true;
}

static bool want_backwards(struct rselect *s)
{
    bool changed = false;

    for (u32 i = s->lir->count; i-- > 0;) {
        const struct lir_instr *in = &s->lir->instr[i];
        bool adds = in->op == LIR_S_ADD || in->op == LIR_S_ADDI || in->op == LIR_S_SUB ||
                    in->op == LIR_S_MOV;
        if (in->mem.base != LIR_NONE && in->mem.space == LIR_GLOBAL)
            changed = want(s, in->mem.base) || changed;
        if (adds && s->value[in->dst].wanted) {
            changed = want(s, in->a) || changed;
            changed = want(s, in->b) || changed;
        }
    }
    return changed;
}

void scalar_survey(struct rselect *s)
{
    s->value[LIR_ARGS].high = INT64_MAX;
    s->value[LIR_BEGIN].high = INT32_MAX;
    s->value[LIR_WAVE].high = RDNA_LANES;
    for (u32 i = 0; i < s->lir->count; i++) {
        const struct lir_instr *in = &s->lir->instr[i];
        bool once = in->dst != LIR_NONE && s->value[in->dst].writes == 1;
        if (lir_rows[in->op].operands[0] != 'S')
            continue;
        struct bounds b = once ? result_bounds(s, in) : (struct bounds){INT64_MIN, INT64_MAX};
        s->value[in->dst].low = b.low;
        s->value[in->dst].high = b.high;
    }
    while (want_backwards(s))
        ;
    for (u32 v = 0; v < s->lir->vreg_count; v++) {
        struct rvalue *value = &s->value[v];
        value->wide = value->kind == RV_SCALAR && value->wanted && !fits(value->low, value->high);
    }
}

/* Shifts that undo each other: what lies in i32 is not cut off. */
u16 scalar_shifted(const struct rselect *s, u16 v, u32 *shift)
{
    u32 left = 0, right = 0;
    u16 source = v;

    *shift = 0;
    for (;;) {
        const struct lir_instr *in = &s->lir->instr[s->value[v].writer];
        bool shifts = (in->op == LIR_S_SHLI || in->op == LIR_S_SHRI) && in->imm <= 31;
        bool equal = in->op == LIR_S_MOV || (in->op == LIR_LOOP && single_trip(s, in));
        if (v < LIR_FIRST_FREE || s->value[v].writes != 1 || !(shifts || equal) ||
            s->value[in->a].writes != 1)
            return source;
        u32 undone = in->op == LIR_S_SHLI ? min_u32(right, (u32)in->imm) : 0;
        left += in->op == LIR_S_SHLI ? (u32)in->imm - undone : 0;
        right += in->op == LIR_S_SHRI ? (u32)in->imm : 0 - undone;
        v = in->a;
        if (right == 0 && left < 31) {
            source = v;
            *shift = left;
        }
    }
}

/* ---- operands ---- */

struct rsrc scalar_low(struct rselect *s, u16 v)
{
    return scalar_constant(s, v) ? rsrc_const((u32)s->value[v].low) : rsrc_of(s->value[v].code);
}

struct rsrc scalar_high(struct rselect *s, u16 v)
{
    const struct rvalue *value = &s->value[v];

    if (scalar_constant(s, v))
        return rsrc_const((u32)((u64)s->value[v].low >> 32));
    if (value->wide)
        return rsrc_of((u16)(value->code + 1));
    if (value->low >= 0)
        return rsrc_const(0);
    return rsrc_of(rdna_new(s, R_s_ashr_i32, rsrc_of(value->code), rsrc_const(31)));
}

void scalar_add_wide(struct rselect *s, u16 dst, const struct rsrc a[2], const struct rsrc b[2])
{
    rdna_put(s, R_s_add_u32, dst, a[0], b[0]);
    rdna_put(s, R_s_addc_u32, (u16)(dst + 1), a[1], b[1]);
}

/* ---- wide results ---- */

static void halves(struct rselect *s, u16 v, struct rsrc out[2])
{
    out[0] = scalar_low(s, v);
    out[1] = scalar_high(s, v);
}

static void move_wide(struct rselect *s, u16 dst, const struct rsrc a[2])
{
    rdna_put(s, R_s_mov_b32, dst, a[0], RSRC_NONE);
    rdna_put(s, R_s_mov_b32, (u16)(dst + 1), a[1], RSRC_NONE);
}

/* The high half is made first: dst may be a source. */
static void multiply_wide(struct rselect *s, u16 dst, struct rsrc a, struct rsrc b)
{
    rdna_put(s, R_s_mul_hi_i32, (u16)(dst + 1), a, b);
    rdna_put(s, R_s_mul_i32, dst, a, b);
}

static void shift_wide(struct rselect *s, u16 dst, struct rsrc a, u32 shift)
{
    rdna_put(s, R_s_ashr_i32, (u16)(dst + 1), a, rsrc_const(32 - shift));
    rdna_put(s, R_s_lshl_b32, dst, a, rsrc_const(shift));
}

static void subtract_wide(struct rselect *s, u16 dst, const struct rsrc a[2],
                          const struct rsrc b[2])
{
    rdna_put(s, R_s_sub_u32, dst, a[0], b[0]);
    rdna_put(s, R_s_subb_u32, (u16)(dst + 1), a[1], b[1]);
}

/* False: the result fits in 32 bits and is extended. */
static bool expand_wide(struct rselect *s, const struct lir_instr *in, u16 dst)
{
    struct rsrc a[2], b[2] = {rsrc_const((u32)in->imm), rsrc_const((u32)((u64)in->imm >> 32))};

    u32 shift;
    u16 from;

    switch (in->op) {
    case LIR_S_CONST:
        move_wide(s, dst, b);
        return true;
    case LIR_S_MULI:
        if (in->imm > 1 && (in->imm & (in->imm - 1)) == 0)
            shift_wide(s, dst, scalar_low(s, in->a), (u32)__builtin_ctzll((u64)in->imm));
        else
            multiply_wide(s, dst, scalar_low(s, in->a), b[0]);
        return true;
    case LIR_S_MUL:
        multiply_wide(s, dst, scalar_low(s, in->a), scalar_low(s, in->b));
        return true;
    case LIR_S_SHLI:
        from = scalar_shifted(s, in->dst, &shift);
        if (from == in->dst || shift < 1)
            return false;
        shift_wide(s, dst, scalar_low(s, from), shift);
        return true;
    case LIR_S_MOV:
    case LIR_S_ADD:
    case LIR_S_ADDI:
    case LIR_S_SUB:
        halves(s, in->a, a);
        if (in->b != LIR_NONE)
            halves(s, in->b, b);
        if (in->op == LIR_S_MOV)
            move_wide(s, dst, a);
        else if (in->op == LIR_S_SUB)
            subtract_wide(s, dst, a, b);
        else
            scalar_add_wide(s, dst, a, b);
        return true;
    default:
        return false;
    }
}

/* ---- division ---- */

/* floor(a / d) for 0 <= a < 2^31 (Granlund and Montgomery, 1994). */
static u16 divide_by_constant(struct rselect *s, struct rsrc a, u32 d)
{
    u32 bits = d > 1 ? 32u - (u32)__builtin_clz(d - 1) : 0;

    if ((d & (d - 1)) == 0)
        return rdna_new(s, R_s_lshr_b32, a, rsrc_const(bits));
    u32 factor = (u32)(((u64)1 << (31 + bits)) / d + 1);
    u16 high = rdna_new(s, R_s_mul_hi_u32, a, rsrc_const(factor));
    return rdna_new(s, R_s_lshr_b32, rsrc_of(high), rsrc_const(bits - 1));
}

/* A quotient that may be one too small, and its remainder: one more when that is >= d. */
static void correct(struct rselect *s, u16 q[2], struct rsrc d)
{
    u16 more = rdna_new(s, R_s_add_i32, rsrc_of(q[0]), rsrc_const(1));
    u16 less = rdna_new(s, R_s_sub_i32, rsrc_of(q[1]), d);

    rdna_put(s, R_s_cmp_ge_u32, RDNA_NONE, rsrc_of(q[1]), d);
    q[0] = rdna_new(s, R_s_cselect_b32, rsrc_of(more), rsrc_of(q[0]));
    q[1] = rdna_new(s, R_s_cselect_b32, rsrc_of(less), rsrc_of(q[1]));
}

/* 2^32 / d is at most 2 too small by the float reciprocal and one step of Newton's. */
static void divide(struct rselect *s, struct rsrc a, struct rsrc d, u16 q[2])
{
    const struct rsrc scale = {RDNA_CONST, 0x4f7ffffe}; /* just below 2^32 */
    u16 f = rdna_new(s, R_v_cvt_f32_u32, d, RSRC_NONE);

    f = rdna_new(s, R_v_rcp_iflag_f32, rsrc_of(f), RSRC_NONE);
    f = rdna_new(s, R_v_mul_f32, rsrc_of(f), scale);
    f = rdna_new(s, R_v_cvt_u32_f32, rsrc_of(f), RSRC_NONE);
    u16 z = rdna_new(s, R_v_readfirstlane_b32, rsrc_of(f), RSRC_NONE);
    u16 t = rdna_new(s, R_s_sub_i32, rsrc_const(0), d);
    t = rdna_new(s, R_s_mul_i32, rsrc_of(t), rsrc_of(z));
    t = rdna_new(s, R_s_mul_hi_u32, rsrc_of(t), rsrc_of(z));
    z = rdna_new(s, R_s_add_i32, rsrc_of(z), rsrc_of(t));
    q[0] = rdna_new(s, R_s_mul_hi_u32, a, rsrc_of(z));
    t = rdna_new(s, R_s_mul_i32, rsrc_of(q[0]), d);
    q[1] = rdna_new(s, R_s_sub_i32, a, rsrc_of(t));
    correct(s, q, d);
    correct(s, q, d);
}

/* The quotient by a constant, maybe known from the kernel's first straight part. */
static u16 known_quotient(struct rselect *s, const struct lir_instr *in)
{
    struct rquotient *last = &s->quotient;
    u32 d = (u32)s->value[in->b].low;

    if (last->q == RDNA_NONE || last->a != in->a || last->d != d || s->value[in->a].writes > 1) {
        u16 q = divide_by_constant(s, scalar_low(s, in->a), d);
        if (s->depth > 0)
            return q;
        *last = (struct rquotient){in->a, q, d};
    }
    return last->q;
}

static void expand_division(struct rselect *s, const struct lir_instr *in, u16 dst)
{
    struct rsrc a = scalar_low(s, in->a), d = scalar_low(s, in->b);
    u16 q[2];

    if (scalar_constant(s, in->b)) {
        q[0] = known_quotient(s, in);
        q[1] = q[0];
        if (in->op == LIR_S_MOD) {
            u16 t = rdna_new(s, R_s_mul_i32, rsrc_of(q[0]), d);
            q[1] = rdna_new(s, R_s_sub_i32, a, rsrc_of(t));
        }
    } else {
        divide(s, a, d, q);
    }
    rdna_put(s, R_s_mov_b32, dst, rsrc_of(q[in->op == LIR_S_MOD]), RSRC_NONE);
}

/* ---- 32 bits ---- */

static u16 row_of(enum lir_op op)
{
    switch (op) {
    case LIR_S_ADD:
    case LIR_S_ADDI:
        return R_s_add_i32;
    case LIR_S_SUB:
        return R_s_sub_i32;
    case LIR_S_MUL:
    case LIR_S_MULI:
        return R_s_mul_i32;
    case LIR_S_MIN:
        return R_s_min_i32;
    case LIR_S_MAX:
        return R_s_max_i32;
    case LIR_S_SHLI:
        return R_s_lshl_b32;
    case LIR_S_SHRI:
        return R_s_ashr_i32;
    case LIR_S_ANDI:
        return R_s_and_b32;
    default:
        return R_s_mov_b32;
    }
}

static void from_lane(struct rselect *s, u16 dst, u16 vreg)
{
    struct rsrc a = rdna_operand(s, vreg);

    rdna_put(s, rdna_is_vgpr(s, a.code) ? R_v_readfirstlane_b32 : R_s_mov_b32, dst, a, RSRC_NONE);
}

static void expand_narrow(struct rselect *s, const struct lir_instr *in, u16 dst)
{
    bool shifts = in->op == LIR_S_SHLI || in->op == LIR_S_SHRI;
    u32 shift;
    u16 from = shifts ? scalar_shifted(s, in->dst, &shift) : in->dst;
    struct rsrc a = in->a == LIR_NONE || in->op == LIR_S_FROM_V ? RSRC_NONE : scalar_low(s, in->a);
    struct rsrc b = rsrc_const((u32)in->imm);

    if (in->op == LIR_S_DIV || in->op == LIR_S_MOD) {
        expand_division(s, in, dst);
    } else if (in->op == LIR_S_FROM_V) {
        from_lane(s, dst, in->a);
    } else if (in->op == LIR_S_CONST) {
        rdna_put(s, R_s_mov_b32, dst, b, RSRC_NONE);
    } else if (in->op == LIR_S_MOV) {
        rdna_put(s, R_s_mov_b32, dst, a, RSRC_NONE);
    } else if (from != in->dst) {
        rdna_put(s, R_s_lshl_b32, dst, scalar_low(s, from), rsrc_const(shift));
    } else if (shifts && in->imm > 31) { /* all bits go, or all but the sign's copies */
        bool left = in->op == LIR_S_SHLI;
        rdna_put(s, R_s_ashr_i32, dst, left ? rsrc_const(0) : a, rsrc_const(31));
    } else {
        rdna_put(s, row_of(in->op), dst, a, in->b == LIR_NONE ? b : scalar_low(s, in->b));
    }
}

/* The source that the result equals, LIR_NONE: none. */
static u16 same_as(const struct rselect *s, const struct lir_instr *in)
{
    struct bounds a = bounds_of(s, in->a), b = bounds_of(s, in->b);
    bool zero = b.low == 0 && b.high == 0;
    u32 shift;
    u16 from;

    switch (in->op) {
    case LIR_S_MOV:
        return in->a;
    case LIR_S_SHLI:
    case LIR_S_SHRI:
        from = scalar_shifted(s, in->dst, &shift);
        return shift == 0 && from != in->dst ? from : LIR_NONE;
    case LIR_S_ADD:
        return zero ? in->a : a.low == 0 && a.high == 0 ? in->b : LIR_NONE;
    case LIR_S_SUB:
        return zero ? in->a : LIR_NONE;
    case LIR_S_MIN:
        return a.high <= b.low ? in->a : b.high <= a.low ? in->b : LIR_NONE;
    case LIR_S_MAX:
        return a.low >= b.high ? in->a : b.low >= a.high ? in->b : LIR_NONE;
    default:
        return LIR_NONE;
    }
}

/* Takes over the register of a source, when both are written once. */
static bool share(struct rselect *s, u16 dst, u16 v)
{
    struct rvalue *value = &s->value[dst];

    if (v == LIR_NONE || value->writes != 1 || s->value[v].writes != 1 ||
        (value->wide && !s->value[v].wide) || scalar_constant(s, v))
        return false;
    value->code = s->value[v].code;
    return true;
}

void scalar_expand(struct rselect *s, const struct lir_instr *in)
{
    const struct rvalue *value = &s->value[in->dst];

    if (scalar_constant(s, in->dst) || share(s, in->dst, same_as(s, in)) ||
        (value->wide && expand_wide(s, in, value->code)))
        return;
    expand_narrow(s, in, value->code);
    if (value->wide)
        rdna_put(s, R_s_ashr_i32, (u16)(value->code + 1), rsrc_of(value->code), rsrc_const(31));
}

/* ---- loops: tested before the first trip where that is not known, then at the bottom ---- */

void loop_head(struct rselect *s, const struct lir_instr *in)
{
    u16 counter = s->value[in->dst].code;
    u32 label = s->labels;

    s->labels += 2; /* the head's, the end's */
    s->loop[s->depth] = in;
    s->label[s->depth] = label;
    s->depth++;
    if (!single_trip(s, in) || !share(s, in->dst, in->a))
        rdna_put(s, R_s_mov_b32, counter, scalar_low(s, in->a), RSRC_NONE);
    if (!trips_known(s, in)) {
        rdna_put(s, R_s_cmp_ge_i32, RDNA_NONE, rsrc_of(counter), scalar_low(s, in->b));
        rdna_put_imm(s, R_s_cbranch_scc1, (i32)label + 1);
    }
    memory_open(s);
    if (single_trip(s, in))
        return;
    rdna_put_imm(s, R_LOOP, (i32)label);
    rdna_put_imm(s, R_LABEL, (i32)label);
}

void loop_end(struct rselect *s)
{
    const struct lir_instr *in = s->loop[--s->depth];
    u16 counter = s->value[in->dst].code;
    u32 label = s->label[s->depth];

    memory_close(s);
    if (!single_trip(s, in)) {
        rdna_put(s, R_s_add_i32, counter, rsrc_of(counter), rsrc_const((u32)in->imm));
        rdna_put(s, R_s_cmp_lt_i32, RDNA_NONE, rsrc_of(counter), scalar_low(s, in->b));
        rdna_put_imm(s, R_s_cbranch_scc1, (i32)label);
        rdna_put_imm(s, R_ENDLOOP, (i32)label);
    }
    if (!trips_known(s, in))
        rdna_put_imm(s, R_LABEL, (i32)label + 1);
}
