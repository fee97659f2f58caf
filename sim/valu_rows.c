/*
 * valu_rows.c: the rows of valu.def and the comparisons as functions over 32 lanes, one loop each,
 * which the compiler turns into vector code. Knows no registers: operands are prepared, results
 * are placed by valu.c.
 */
#include "sim/lane_math.h"
#include "sim/wave.h"

/* A type of valu.def: its C type, how a lane is read and how it is written. */
#define C_none         u32
#define C_u32          u32
#define C_i32          i32
#define C_f32          f32
#define C_b32          u32
#define C_u64          u64
#define C_i64          i64
#define C_f64          f64
#define C_b64          u64
#define C_u16          u16
#define C_i16          i16
#define C_f16          f32
#define C_b16          u16
#define C_pk           u32
#define C_mask         u32
#define GET_none(x)    0
#define GET_mask(x)    0
#define GET_u32(x)     x[i]
#define GET_i32(x)     (i32) x[i]
#define GET_f32(x)     f32_of_bits(x[i])
#define GET_b32(x)     x[i]
#define GET_u64(x)     pair(x[i], x[i + LANES])
#define GET_i64(x)     (i64) pair(x[i], x[i + LANES])
#define GET_f64(x)     f64_of_bits(pair(x[i], x[i + LANES]))
#define GET_b64(x)     pair(x[i], x[i + LANES])
#define GET_u16(x)     (u16) x[i]
#define GET_i16(x)     (i16) x[i]
#define GET_f16(x)     x##_float[i]
#define GET_b16(x)     (u16) x[i]
#define GET_pk(x)      x[i]
#define PUT_u32(value) d[i] = (value)
#define PUT_i32(value) d[i] = (u32)(value)
#define PUT_f32(value) d[i] = bits_of_f32(value)
#define PUT_b32(value) d[i] = (value)
#define PUT_u64(value) put_64(d, i, value)
#define PUT_i64(value) put_64(d, i, (u64)(value))
#define PUT_f64(value) put_64(d, i, bits_of_f64(value))
#define PUT_b64(value) put_64(d, i, value)
#define PUT_u16(value) d[i] = (value)
#define PUT_i16(value) d[i] = (u16)(value)
#define PUT_f16(value) d_float[i] = (value)
#define PUT_b16(value) d[i] = (value)

/* f16 is computed in f32: all lanes are converted before and after the loop. */
#define NOTHING(x)
#define OPEN_f16(x)                                                                                \
    f32 x##_float[LANES];                                                                          \
    halves_load(x##_float, x);
#define OPEN_none NOTHING
#define OPEN_mask NOTHING
#define OPEN_u32  NOTHING
#define OPEN_i32  NOTHING
#define OPEN_f32  NOTHING
#define OPEN_b32  NOTHING
#define OPEN_u64  NOTHING
#define OPEN_i64  NOTHING
#define OPEN_f64  NOTHING
#define OPEN_b64  NOTHING
#define OPEN_u16  NOTHING
#define OPEN_i16  NOTHING
#define OPEN_b16  NOTHING
#define OPEN_pk   NOTHING
#define DRAIN_f16 f32 d_float[LANES]
#define DRAIN_u32 (void)0
#define DRAIN_i32 (void)0
#define DRAIN_f32 (void)0
#define DRAIN_b32 (void)0
#define DRAIN_u64 (void)0
#define DRAIN_i64 (void)0
#define DRAIN_f64 (void)0
#define DRAIN_b64 (void)0
#define DRAIN_u16 (void)0
#define DRAIN_i16 (void)0
#define DRAIN_b16 (void)0
#define CLOSE_f16 halves_store(d, d_float)
#define CLOSE_u32 (void)0
#define CLOSE_i32 (void)0
#define CLOSE_f32 (void)0
#define CLOSE_b32 (void)0
#define CLOSE_u64 (void)0
#define CLOSE_i64 (void)0
#define CLOSE_f64 (void)0
#define CLOSE_b64 (void)0
#define CLOSE_u16 (void)0
#define CLOSE_i16 (void)0
#define CLOSE_b16 (void)0
#define LOW_u32   0
#define HIGH_u32  UINT32_MAX
#define LOW_i32   INT32_MIN
#define HIGH_i32  INT32_MAX
#define LOW_u16   0
#define HIGH_u16  UINT16_MAX
#define LOW_i16   INT16_MIN
#define HIGH_i16  INT16_MAX

static inline void put_64(u32 *d, u32 lane, u64 value)
{
    d[lane] = (u32)value;
    d[lane + LANES] = (u32)(value >> 32);
}

static inline void halves_load(f32 *to, const u32 *from)
{
    for (u32 at = 0; at < LANES; at += 8) {
        __m256i words = _mm256_loadu_si256((const __m256i *)(from + at));
        __m256i low = _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
        __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);

        _mm256_storeu_ps(to + at, _mm256_cvtph_ps(_mm256_castsi256_si128(packed)));
    }
}

static inline void halves_store(u32 *to, const f32 *from)
{
    for (u32 at = 0; at < LANES; at += 8) {
        __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(from + at), _MM_FROUND_CUR_DIRECTION);

        _mm256_storeu_si256((__m256i *)(to + at), _mm256_cvtepu16_epi32(halves));
    }
}

static inline const u32 *halves_at(u32 *buffer, const u32 *from, u32 shift)
{
    VECTOR_LOOP buffer[i] = from[i] >> shift;
    return buffer;
}

/* ---- valu.def ---- */

#define BIT               (in >> i & 1)
#define OUT(bit)          (out |= (u32)(bit) << i)
#define UNUSED            __attribute__((unused))
#define CLAMPED(R, value) (C_##R) MAX(MIN((value), (i64)HIGH_##R), (i64)LOW_##R)

#define ROW(function, R, A, B, C, expression)                                                      \
    static void function(struct lane_args *args)                                                   \
    {                                                                                              \
        UNUSED const u32 *s0 = args->s[0], *s1 = args->s[1], *s2 = args->s[2];                     \
        UNUSED const u32 in = args->in;                                                            \
        UNUSED const bool ieee = args->ieee;                                                       \
        u32 *d = args->d, out = 0;                                                                 \
                                                                                                   \
        OPEN_##A(s0) OPEN_##B(s1) OPEN_##C(s2) DRAIN_##R;                                          \
        VECTOR_LOOP                                                                                \
        {                                                                                          \
            UNUSED C_##A a = GET_##A(s0);                                                          \
            UNUSED C_##B b = GET_##B(s1);                                                          \
            UNUSED C_##C c = GET_##C(s2);                                                          \
            PUT_##R(expression);                                                                   \
        }                                                                                          \
        CLOSE_##R;                                                                                 \
        args->out = out;                                                                           \
    }
#define ROW_OF_HALVES(function, row)                                                               \
    static void function(struct lane_args *args)                                                   \
    {                                                                                              \
        lanes result[2], source[3];                                                                \
                                                                                                   \
        for (u32 half = 0; half < 2; half++) {                                                     \
            struct lane_args one = *args;                                                          \
            for (u32 n = 0; n < args->uop->sources; n++)                                           \
                one.s[n] = halves_at(source[n], args->s[n], 16 * half);                            \
            one.d = result[half];                                                                  \
            row(&one);                                                                             \
        }                                                                                          \
        VECTOR_LOOP args->d[i] = result[0][i] | result[1][i] << 16;                                \
    }

#define V(name, R, A, B, C, expression) ROW(lanes_##name, R, A, B, C, expression)
#define S(name, R, A, B, C, expression) ROW(saturate_##name, R, A, B, C, CLAMPED(R, expression))
#define PK(name, R, A, B, C, expression)                                                           \
    ROW(half_##name, R, A, B, C, expression)                                                       \
    ROW_OF_HALVES(lanes_##name, half_##name)
#define PS(name, R, A, B, C, expression)                                                           \
    ROW(half_saturate_##name, R, A, B, C, CLAMPED(R, expression))                                  \
    ROW_OF_HALVES(saturate_##name, half_saturate_##name)
#include "sim/valu.def"
#undef V
#undef S
#undef PK
#undef PS

/* ---- comparisons ---- */

/* The classes of v_cmp_class: signalling and quiet NaN, then from -infinity to +infinity. */
static inline u32 float_class(u64 bits, u32 exponent_bits, u32 mantissa_bits)
{
    u64 infinity = ((1ull << exponent_bits) - 1) << mantissa_bits;
    u64 magnitude = bits & (infinity | ((1ull << mantissa_bits) - 1));
    bool negative = bits >> (exponent_bits + mantissa_bits) & 1;

    if (magnitude > infinity)
        return magnitude >> (mantissa_bits - 1) & 1 ? 1 : 0;
    u32 step = magnitude == infinity ? 0 : magnitude >> mantissa_bits ? 1 : magnitude ? 2 : 3;
    return negative ? 2 + step : 9 - step;
}

#define COMPARE(name, A, B, expression)                                                            \
    static void compare_##name(struct lane_args *args)                                             \
    {                                                                                              \
        UNUSED const u32 *s0 = args->s[0], *s1 = args->s[1];                                       \
        u32 out = 0;                                                                               \
                                                                                                   \
        OPEN_##A(s0) OPEN_##B(s1) VECTOR_LOOP                                                      \
        {                                                                                          \
            UNUSED C_##A a = GET_##A(s0);                                                          \
            UNUSED C_##B b = GET_##B(s1);                                                          \
            OUT(expression);                                                                       \
        }                                                                                          \
        args->out = out;                                                                           \
    }
/* X(name, types, expression), for every comparison. */
#define COMPARE_INT(X, T)                                                                          \
    X(lt_##T, T, T, a < b)                                                                         \
    X(eq_##T, T, T, a == b)                                                                        \
    X(le_##T, T, T, a <= b)                                                                        \
    X(gt_##T, T, T, a > b)                                                                         \
    X(ne_##T, T, T, a != b)                                                                        \
    X(ge_##T, T, T, a >= b)
#define COMPARE_CONSTANT(X, T)                                                                     \
    X(f_##T, T, T, false)                                                                          \
    X(t_##T, T, T, true)
#define COMPARE_FLOAT(X, T)                                                                        \
    COMPARE_CONSTANT(X, T)                                                                         \
    X(lt_##T, T, T, a < b)                                                                         \
    X(eq_##T, T, T, a == b)                                                                        \
    X(le_##T, T, T, a <= b)                                                                        \
    X(gt_##T, T, T, a > b)                                                                         \
    X(lg_##T, T, T, (a < b) | (a > b))                                                             \
    X(ge_##T, T, T, a >= b)                                                                        \
    X(o_##T, T, T, (a == a) & (b == b))                                                            \
    X(u_##T, T, T, (a != a) | (b != b))                                                            \
    X(nge_##T, T, T, !(a >= b))                                                                    \
    X(nlg_##T, T, T, !((a < b) | (a > b)))                                                         \
    X(ngt_##T, T, T, !(a > b))                                                                     \
    X(nle_##T, T, T, !(a <= b))                                                                    \
    X(neq_##T, T, T, a != b)                                                                       \
    X(nlt_##T, T, T, !(a < b))
#define COMPARISONS(X)                                                                             \
    COMPARE_FLOAT(X, f16)                                                                          \
    COMPARE_FLOAT(X, f32)                                                                          \
    COMPARE_FLOAT(X, f64)                                                                          \
    COMPARE_INT(X, i16)                                                                            \
    COMPARE_INT(X, u16)                                                                            \
    COMPARE_INT(X, i32)                                                                            \
    COMPARE_INT(X, u32)                                                                            \
    COMPARE_INT(X, i64)                                                                            \
    COMPARE_INT(X, u64)                                                                            \
    COMPARE_CONSTANT(X, i32)                                                                       \
    COMPARE_CONSTANT(X, u32)                                                                       \
    COMPARE_CONSTANT(X, i64)                                                                       \
    COMPARE_CONSTANT(X, u64)                                                                       \
    X(class_f16, b16, u32, b >> float_class(a, 5, 10) & 1)                                         \
    X(class_f32, b32, u32, b >> float_class(a, 8, 23) & 1)                                         \
    X(class_f64, b64, u32, b >> float_class(a, 11, 52) & 1)
COMPARISONS(COMPARE)

/* ---- the table ---- */

#define V(name, R, A, B, C, expression)                                                            \
    [ISA_##name].run = lanes_##name, [ISA_##name].result = TYPE_##R,                               \
    [ISA_##name].type = {TYPE_##A, TYPE_##B, TYPE_##C},
#define CHOOSER(name, R, A, B, C)       V(name, R, A, B, C, )
#define S(name, R, A, B, C, expression) [ISA_##name].saturate = saturate_##name,
#define PK(name, R, A, B, C, expression)                                                           \
    [ISA_##name].run = lanes_##name, [ISA_##name].result = TYPE_pk_of_##R,                         \
    [ISA_##name].type = {TYPE_pk_of_##A, TYPE_pk_of_##B, TYPE_pk_of_##C},
#define PS S
#define COMPARE_ROW(name, A, B, expression)                                                        \
    [ISA_v_cmp_##name] = {compare_##name, NULL, TYPE_mask, {TYPE_##A, TYPE_##B}},                  \
    [ISA_v_cmpx_##name] = {compare_##name, NULL, TYPE_mask, {TYPE_##A, TYPE_##B}},
enum {
    TYPE_pk_of_none = TYPE_none,
    TYPE_pk_of_i16 = TYPE_pk,
    TYPE_pk_of_u16 = TYPE_pk,
    TYPE_pk_of_f16 = TYPE_pkf,
    TYPE_pk_of_b16 = TYPE_pkf,
};

const struct valu_op valu_ops[ISA_OPS] = {
#include "sim/valu.def"
    CHOOSERS(CHOOSER) COMPARISONS(COMPARE_ROW)};
