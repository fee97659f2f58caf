/*
 * compile_lir_eval.c: the direct interpreter of LIR. Slow and plain: one function per kind of
 * operation, one lane at a time, halves and bfloat16 by arithmetic instead of bit tricks.
 */
#include <math.h>

#include "tests/compile_lir_eval.h"
#include "tests/test.h"

#define LANES_MAX 16u
#define UNDEFINED 0x7fa5dead /* a signalling NaN and an odd integer */

union lane {
    f32 f;
    u32 u;
    i32 i;
};

struct eval {
    const struct lir *lir;
    i64 scalar[LIR_VREGS_MAX];
    union lane vector[LIR_VREGS_MAX][LANES_MAX];
};

/* ---- elements of memory ---- */

static f32 f16_decode(u16 bits)
{
    u32 exponent = bits >> 10 & 31, fraction = bits & 1023;
    f64 size = exponent == 31 ? (fraction ? NAN : INFINITY)
               : exponent     ? ldexp(1024 + fraction, (int)exponent - 25)
                              : ldexp(fraction, -24);

    return (f32)(bits >> 15 ? -size : size);
}

static u16 f16_encode(f32 value)
{
    f64 size = fabs((f64)value);
    u32 sign = signbit(value) ? 0x8000 : 0;
    int exponent = size > 0 && isfinite(size) ? ilogb(size) : -14;

    if (isnan(value))
        return (u16)(sign | 0x7e00);
    if (size >= 65520)
        return (u16)(sign | 0x7c00);
    exponent = exponent < -14 ? -14 : exponent;
    f64 units = nearbyint(ldexp(size, 10 - exponent));
    return (u16)(sign | (u32)((exponent + 14) * 1024 + (int)units));
}

static u16 bf16_encode(f32 value)
{
    union lane lane = {.f = value};
    u32 low = lane.u & 0xffff, high = lane.u >> 16;

    if (isnan(value))
        return (u16)(high | 0x40);
    return (u16)(high + (low > 0x8000 || (low == 0x8000 && high & 1)));
}

u32 lir_eval_load(enum dtype type, const void *from)
{
    union lane lane = {.u = 0};

    switch (type) {
    case DT_F16:
        lane.f = f16_decode(*(const u16 *)from);
        break;
    case DT_BF16:
        lane.u = (u32) * (const u16 *)from << 16;
        break;
    case DT_I8:
        lane.i = *(const i8 *)from;
        break;
    case DT_U8:
        lane.u = *(const u8 *)from;
        break;
    default:
        memcpy(&lane, from, 4);
    }
    return lane.u;
}

void lir_eval_store(enum dtype type, void *to, u32 bits)
{
    union lane lane = {.u = bits};
    u16 half = type == DT_F16 ? f16_encode(lane.f) : bf16_encode(lane.f);

    if (type == DT_F16 || type == DT_BF16)
        memcpy(to, &half, 2);
    else if (type == DT_I8 || type == DT_U8)
        *(u8 *)to = (u8)bits;
    else
        memcpy(to, &bits, 4);
}

static u8 *address(const struct eval *eval, const struct lir_mem *mem, u32 lane, bool gather)
{
    i64 index = 0;

    if (gather)
        index = eval->vector[mem->index][lane].i;
    else if (mem->index != LIR_NONE)
        index = eval->scalar[mem->index];
    return (u8 *)(u64)(eval->scalar[mem->base] + index * mem->scale + mem->disp);
}

static bool memory_op(struct eval *eval, const struct lir_instr *in)
{
    static const u32 bytes[] = {
        [DT_F32] = 4, [DT_I32] = 4, [DT_F16] = 2, [DT_BF16] = 2, [DT_I8] = 1, [DT_U8] = 1};
    u8 *at = lir_rows[in->op].operands[4] == '-' || in->op == LIR_V_GATHER
                 ? NULL
                 : address(eval, &in->mem, 0, false);

    for (u32 i = 0; i < in->lanes; i++) {
        u32 step = i * bytes[in->mem_type];
        if (in->op == LIR_V_LOAD)
            eval->vector[in->dst][i].u = lir_eval_load(in->mem_type, at + step);
        else if (in->op == LIR_V_BCAST)
            eval->vector[in->dst][i].u = lir_eval_load(in->mem_type, at);
        else if (in->op == LIR_V_STORE)
            lir_eval_store(in->mem_type, at + step, eval->vector[in->a][i].u);
        else if (in->op == LIR_V_GATHER)
            memcpy(&eval->vector[in->dst][i], address(eval, &in->mem, i, true), 4);
    }
    return at || in->op == LIR_V_GATHER;
}

/* ---- scalar ---- */

static i64 scalar_op(struct eval *eval, const struct lir_instr *in)
{
    bool lane = in->op == LIR_S_FROM_V;
    u64 a = in->a == LIR_NONE ? 0
            : lane            ? (u64)(i64)eval->vector[in->a][0].i
                              : (u64)eval->scalar[in->a];
    u64 b = in->b == LIR_NONE ? 0 : (u64)eval->scalar[in->b];
    u64 imm = (u64)in->imm;

    switch (in->op) {
    case LIR_S_CONST:
        return in->imm;
    case LIR_S_MOV:
    case LIR_S_FROM_V:
        return (i64)a;
    case LIR_S_ARG:
        return (i64)((const u64 *)eval->scalar[LIR_ARGS])[imm];
    case LIR_S_ADD:
        return (i64)(a + b);
    case LIR_S_ADDI:
        return (i64)(a + imm);
    case LIR_S_SUB:
        return (i64)(a - b);
    case LIR_S_MUL:
        return (i64)(a * b);
    case LIR_S_MULI:
        return (i64)(a * imm);
    case LIR_S_MIN:
        return (i64)a < (i64)b ? (i64)a : (i64)b;
    case LIR_S_MAX:
        return (i64)a > (i64)b ? (i64)a : (i64)b;
    case LIR_S_SHLI:
        return (i64)(a << imm);
    case LIR_S_SHRI:
        return (i64)a >> imm;
    case LIR_S_ANDI:
        return (i64)(a & imm);
    case LIR_S_DIV:
        return (i64)(a / b);
    case LIR_S_MOD:
        return (i64)(a % b);
    default:
        CHECK(in->op == LIR_OP_COUNT); /* no such scalar operation */
        return 0;
    }
}

/* ---- lanes ---- */

static f32 round_by(f32 value, u8 aux)
{
    return aux == LIR_NEAREST ? nearbyintf(value)
           : aux == LIR_DOWN  ? floorf(value)
           : aux == LIR_UP    ? ceilf(value)
                              : truncf(value);
}

static i32 to_int(f32 value, u8 aux)
{
    f32 whole = round_by(value, aux);

    return whole >= -0x1p31f && whole < 0x1p31f ? (i32)whole : INT32_MIN;
}

static bool holds(u8 predicate, bool less, bool equal)
{
    return predicate == LIR_EQ ? equal : predicate == LIR_LT ? less : less || equal;
}

static union lane float_op(const struct lir_instr *in, union lane a, union lane b, union lane c)
{
    switch (in->op) {
    case LIR_FADD:
        return (union lane){.f = a.f + b.f};
    case LIR_FSUB:
        return (union lane){.f = a.f - b.f};
    case LIR_FMUL:
        return (union lane){.f = a.f * b.f};
    case LIR_FDIV:
        return (union lane){.f = a.f / b.f};
    case LIR_FMAX:
        return (union lane){.f = a.f > b.f ? a.f : b.f};
    case LIR_FMIN:
        return (union lane){.f = a.f < b.f ? a.f : b.f};
    case LIR_FMA:
        return (union lane){.f = fmaf(a.f, b.f, c.f)};
    case LIR_FNMA:
        return (union lane){.f = fmaf(-a.f, b.f, c.f)};
    case LIR_FSQRT:
        return (union lane){.f = sqrtf(a.f)};
    case LIR_FROUND:
        return (union lane){.f = round_by(a.f, in->aux)};
    case LIR_CVT_F2I:
        return (union lane){.i = to_int(a.f, in->aux)};
    case LIR_CVT_I2F:
        return (union lane){.f = (f32)a.i};
    case LIR_FCMP:
        return (union lane){.u = holds(in->aux, a.f < b.f, a.f == b.f) ? UINT32_MAX : 0};
    default:
        CHECK(in->op == LIR_OP_COUNT); /* no such operation on lanes */
        return a;
    }
}

static u32 dot4(u32 a, u32 b)
{
    i32 sum = 0;

    for (u32 i = 0; i < 32; i += 8)
        sum += (u8)(a >> i) * (i8)(b >> i);
    return (u32)sum;
}

static union lane lane_op(const struct lir_instr *in, union lane a, union lane b, union lane c)
{
    switch (in->op) {
    case LIR_V_MOV:
        return a;
    case LIR_IADD:
        return (union lane){.u = a.u + b.u};
    case LIR_ISUB:
        return (union lane){.u = a.u - b.u};
    case LIR_IMUL:
        return (union lane){.u = a.u * b.u};
    case LIR_IAND:
        return (union lane){.u = a.u & b.u};
    case LIR_IOR:
        return (union lane){.u = a.u | b.u};
    case LIR_IXOR:
        return (union lane){.u = a.u ^ b.u};
    case LIR_ISHLI:
        return (union lane){.u = a.u << in->imm};
    case LIR_ISHRI:
        return (union lane){.u = a.u >> in->imm};
    case LIR_ISARI:
        return (union lane){.i = a.i >> in->imm};
    case LIR_IMAX:
        return (union lane){.i = a.i > b.i ? a.i : b.i};
    case LIR_IMIN:
        return (union lane){.i = a.i < b.i ? a.i : b.i};
    case LIR_ICMP:
        return (union lane){.u = holds(in->aux, a.i < b.i, a.i == b.i) ? UINT32_MAX : 0};
    case LIR_SELECT:
        return a.u ? b : c;
    case LIR_DOT4:
        return (union lane){.u = c.u + dot4(a.u, b.u)};
    default:
        return float_op(in, a, b, c);
    }
}

/* ---- across lanes ---- */

static union lane combine(u8 op, union lane a, union lane b)
{
    switch (op) {
    case LIR_HSUM_F:
        return (union lane){.f = a.f + b.f};
    case LIR_HSUM_I:
        return (union lane){.u = a.u + b.u};
    case LIR_HMAX_F:
        return (union lane){.f = a.f > b.f ? a.f : b.f};
    case LIR_HMIN_F:
        return (union lane){.f = a.f < b.f ? a.f : b.f};
    case LIR_HMAX_I:
        return (union lane){.i = a.i > b.i ? a.i : b.i};
    default:
        return (union lane){.i = a.i < b.i ? a.i : b.i};
    }
}

/* Every lane meets the one half a vector away, then a quarter, and so on. */
static void across(const struct lir_instr *in, const union lane *from, union lane *to)
{
    union lane now[LANES_MAX], next[LANES_MAX];

    memcpy(now, from, sizeof(now));
    for (u32 distance = in->lanes / 2; distance; distance /= 2) {
        for (u32 i = 0; i < in->lanes; i++)
            next[i] = combine(in->op, now[i], now[i ^ distance]);
        memcpy(now, next, sizeof(now));
    }
    memcpy(to, now, in->lanes * sizeof(*now));
}

static void vector_op(struct eval *eval, const struct lir_instr *in)
{
    static const union lane none[LANES_MAX];
    const union lane *a = in->a == LIR_NONE ? none : eval->vector[in->a];
    const union lane *b = in->b == LIR_NONE ? none : eval->vector[in->b];
    const union lane *c = in->c == LIR_NONE ? none : eval->vector[in->c];
    union lane *dst = eval->vector[in->dst];

    if (in->op >= LIR_HSUM_F) {
        across(in, a, dst);
        return;
    }
    for (u32 i = 0; i < in->lanes; i++) {
        if (in->op == LIR_V_CONST)
            dst[i].u = (u32)in->imm;
        else if (in->op == LIR_V_FROM_S)
            dst[i].u = (u32)eval->scalar[in->a];
        else if (in->op == LIR_V_IOTA)
            dst[i].u = i;
        else
            dst[i] = lane_op(in, a[i], b[i], c[i]);
    }
}

/* ---- the walk ---- */

static u32 loop_partner(const struct lir *lir, u32 at)
{
    bool forward = lir->instr[at].op == LIR_LOOP;
    u32 depth = 0;

    for (;; at += forward ? 1 : UINT32_MAX) {
        depth += lir->instr[at].op == (forward ? LIR_LOOP : LIR_ENDLOOP);
        depth -= lir->instr[at].op == (forward ? LIR_ENDLOOP : LIR_LOOP);
        if (!depth)
            return at;
    }
}

/* Returns the index of the next instruction. */
static u32 step(struct eval *eval, u32 at)
{
    const struct lir_instr *in = &eval->lir->instr[at];
    bool ends = in->op == LIR_ENDLOOP;
    u32 head = ends ? loop_partner(eval->lir, at) : at;
    const struct lir_instr *loop = &eval->lir->instr[head];

    if (ends)
        eval->scalar[loop->dst] += loop->imm;
    if (in->op == LIR_LOOP)
        eval->scalar[in->dst] = eval->scalar[in->a];
    if (ends || in->op == LIR_LOOP) {
        bool more = eval->scalar[loop->dst] < eval->scalar[loop->b];
        return more ? head + 1 : (ends ? at : loop_partner(eval->lir, at)) + 1;
    }
    if (memory_op(eval, in))
        ;
    else if (lir_rows[in->op].operands[0] == 'S')
        eval->scalar[in->dst] = scalar_op(eval, in);
    else
        vector_op(eval, in);
    if (lir_rows[in->op].operands[0] == 'V')
        for (u32 i = in->lanes; i < LANES_MAX; i++)
            eval->vector[in->dst][i].u = UNDEFINED;
    return at + 1;
}

void lir_eval(const struct lir *lir, const u64 *args, u64 begin, u64 end, void *scratch)
{
    struct eval *eval = pages_alloc(sizeof(*eval));

    CHECK(eval != NULL);
    eval->lir = lir;
    eval->scalar[LIR_ARGS] = (i64)(u64)args;
    eval->scalar[LIR_BEGIN] = (i64)begin;
    eval->scalar[LIR_END] = (i64)end;
    eval->scalar[LIR_SCRATCH] = (i64)(u64)scratch;
    for (u32 at = 0; at < lir->count;)
        at = step(eval, at);
    pages_free(eval, sizeof(*eval));
}
