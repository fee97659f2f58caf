/*
 * element.c: what each elementwise op of op.def means for one element, as the oracle evaluates it:
 * f32 by IEEE 754, integers wrap at 32 bits, comparisons with NaN are false. Transcendentals are
 * computed in f64 and rounded once.
 */
#include "tests/oracle/element.h"
#include "ml/mathf.h"

f32 f32_round_even(f32 x)
{
    const f64 magic = 6755399441055744.0; /* 1.5 * 2^52: no bit of a sum is behind the point */

    return x > -8388608 && x < 8388608 ? (f32)((f64)x + magic - magic) : x;
}

static i32 truncate(f32 x) { return x >= -2147483648.0f && x < 2147483648.0f ? (i32)x : INT32_MIN; }

static inline __attribute__((always_inline)) f32 element_f32(enum op op, f32 a, f32 b)
{
    switch (op) {
    case OP_NEG:   return -a;
    case OP_ABS:   return __builtin_fabsf(a);
    case OP_EXP:   return (f32)math_exp((f64)a);
    case OP_LOG:   return (f32)math_log((f64)a);
    case OP_SQRT:  return (f32)math_sqrt((f64)a);
    case OP_RSQRT: return (f32)(1 / math_sqrt((f64)a));
    case OP_RECIP: return 1 / a;
    case OP_SIN:   return (f32)math_sin((f64)a);
    case OP_COS:   return (f32)math_cos((f64)a);
    case OP_FLOOR: return (f32)math_floor((f64)a);
    case OP_ROUND: return f32_round_even(a);
    case OP_ADD:   return a + b;
    case OP_SUB:   return a - b;
    case OP_MUL:   return a * b;
    case OP_DIV:   return a / b;
    case OP_MAX:   return a > b ? a : b; /* b when one is NaN, as the machine has it */
    case OP_MIN:   return a < b ? a : b;
    default:       return a;
    }
}

static inline __attribute__((always_inline)) u32 element_u32(enum op op, u32 a, u32 b)
{
    switch (op) {
    case OP_NEG: return 0 - a;
    case OP_ABS: return (i32)a < 0 ? 0 - a : a;
    case OP_ADD: return a + b;
    case OP_SUB: return a - b;
    case OP_MUL: return a * b;
    case OP_MAX: return (i32)a > (i32)b ? a : b;
    case OP_MIN: return (i32)a < (i32)b ? a : b;
    case OP_LT:  return (i32)a < (i32)b;
    case OP_LE:  return (i32)a <= (i32)b;
    case OP_EQ:  return a == b;
    case OP_AND: return a & b;
    case OP_OR:  return a | b;
    case OP_XOR: return a ^ b;
    default:     return a;
    }
}

static inline __attribute__((always_inline)) union cell element(enum op op, bool floats,
                                                                const union cell x[3])
{
    union cell out = {.u = 0};

    if (op == OP_WHERE)
        out = x[0].u ? x[1] : x[2];
    else if (op == OP_CAST_F32)
        out.f = (f32)x[0].i;
    else if (op == OP_CAST_I32)
        out.i = truncate(x[0].f);
    else if (floats && (op == OP_LT || op == OP_LE || op == OP_EQ))
        out.u = op == OP_LT ? x[0].f < x[1].f : op == OP_LE ? x[0].f <= x[1].f : x[0].f == x[1].f;
    else if (floats)
        out.f = element_f32(op, x[0].f, x[1].f);
    else
        out.u = element_u32(op, x[0].u, x[1].u);
    return out;
}

static inline __attribute__((always_inline)) void row_eval(enum op op, const struct operands *src,
                                                           union cell *out, u64 count)
{
    for (i64 i = 0; i < (i64)count; i++) {
        union cell x[3] = {src->base[0][i * src->step[0]], src->base[1][i * src->step[1]],
                           src->base[2][i * src->step[2]]};
        out[i] = src->floats ? element(op, true, x) : element(op, false, x);
    }
}

/* One loop per op, made from op.def. */
void element_row(enum op op, const struct operands *src, union cell *out, u64 count)
{
    switch (op) {
#define OP(name, ...)                         \
    case OP_##name:                           \
        row_eval(OP_##name, src, out, count); \
        return;
#include "ml/compile/op.def"
#undef OP
    default:
        return;
    }
}

u16 f32_to_bf16(f32 value)
{
    u32 bits;

    memcpy(&bits, &value, sizeof(bits));
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (u16)(bits >> 16 | 0x40);
    return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
