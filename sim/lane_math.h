/*
 * lane_math.h: arithmetic of one lane that C has no operator for. Knows no registers.
 * Follows the pseudo-code of AMD's "RDNA3 Instruction Set Architecture" reference; accuracy of the
 * transcendental instructions: 1 unit in the last place there, correctly rounded or close to it
 * here. They flush denormals (f32), as LLVM says silicon does.
 */
#ifndef NOHOST_SIM_LANE_MATH_H
#define NOHOST_SIM_LANE_MATH_H

#include <immintrin.h>
#include <math.h>

#include "kernel/base.h"

typedef int16_t i16;

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

static inline u32 bits_of_f32(f32 value)
{
    u32 bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static inline f32 f32_of_bits(u32 bits)
{
    f32 value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline u64 bits_of_f64(f64 value)
{
    u64 bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
static inline f64 f64_of_bits(u64 bits)
{
    f64 value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline f32 f32_of_half(u32 half)
{
    return _cvtsh_ss((u16)half);
}
static inline u32 half_of_f32(f32 value)
{
    return _cvtss_sh(value, _MM_FROUND_CUR_DIRECTION);
}
static inline u32 half_toward_zero(f32 value)
{
    return _cvtss_sh(value, _MM_FROUND_TO_ZERO);
}
static inline f32 f32_of_bf16(u32 bits)
{
    return f32_of_bits(bits << 16);
}

static inline u32 bf16_of_f32(f32 value)
{
    u32 bits = bits_of_f32(value);
    u32 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;

    return value == value ? rounded : bits >> 16 | 0x40;
}

/* ---- integers ---- */

static inline u64 pair(u32 low, u32 high)
{
    return low | (u64)high << 32;
}
static inline i32 i24(u32 value)
{
    return (i32)(value << 8) >> 8;
}
/* Out of bit 31, by the bits that went in and came out. */
static inline u32 carry_of(u32 a, u32 b, u32 sum)
{
    return ((a & b) | ((a | b) & ~sum)) >> 31;
}
static inline u32 borrow_of(u32 a, u32 b, u32 rest)
{
    return ((~a & b) | ((~a | b) & rest)) >> 31;
}
static inline u32 bit_count(u32 value)
{
    return (u32)__builtin_popcount(value);
}

/* The low `width` bits as a signed number; 0 of no bits. */
static inline i32 sign_extend(i32 value, u32 width)
{
    return width ? (i32)((u32)value << (32 - width)) >> (32 - width) : 0;
}

static inline u32 reverse_bits(u32 value)
{
    value = (value >> 1 & 0x55555555) | (value & 0x55555555) << 1;
    value = (value >> 2 & 0x33333333) | (value & 0x33333333) << 2;
    value = (value >> 4 & 0x0f0f0f0f) | (value & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(value);
}

/* How many bits from the top equal the sign bit; -1 when all do. */
static inline i32 leading_signs(i32 value)
{
    u32 changed = (u32)(value ^ value >> 31);

    return changed ? __builtin_clz(changed) : -1;
}

static inline u32 byte_of(u64 value, u32 n)
{
    return (u32)(value >> 8 * n & 255);
}
static inline u32 byte_insert(u32 into, u32 byte, u32 n)
{
    return (into & ~(255u << 8 * n)) | byte << 8 * n;
}
static inline u32 u8_of_i16(u32 value)
{
    return (u32)MAX(MIN((i16)value, 255), 0);
}
static inline u32 i16_of_i32(i32 value)
{
    return (u16)MAX(MIN(value, 32767), -32768);
}

static inline u32 lerp_u8(u32 a, u32 b, u32 round)
{
    u32 result = 0;

    for (u32 n = 0; n < 4; n++)
        result |= ((byte_of(a, n) + byte_of(b, n) + (round >> 8 * n & 1)) >> 1) << 8 * n;
    return result;
}

/* Sum of absolute differences of bytes; masked: where b's byte is 0, nothing counts. */
static inline u32 sad_u8(u32 a, u32 b, bool masked)
{
    u32 sum = 0;

    for (u32 n = 0; n < 4; n++) {
        i32 difference = (i32)byte_of(a, n) - (i32)byte_of(b, n);
        sum += masked && !byte_of(b, n) ? 0 : (u32)(difference < 0 ? -difference : difference);
    }
    return sum;
}

static inline u32 sad_u16(u32 a, u32 b)
{
    i32 low = (i32)(a & 65535) - (i32)(b & 65535), high = (i32)(a >> 16) - (i32)(b >> 16);

    return (u32)(low < 0 ? -low : low) + (u32)(high < 0 ? -high : high);
}

static inline u64 qsad(u64 a, u32 b, u64 c, bool masked)
{
    u64 result = 0;

    for (u32 n = 0; n < 4; n++) {
        u32 sum = sad_u8((u32)(a >> 8 * n), b, masked) + (u32)(c >> 16 * n & 65535);
        result |= (u64)(u16)sum << 16 * n;
    }
    return result;
}

static inline u32 permute_bytes(u64 from, u32 select)
{
    u32 result = 0;

    for (u32 n = 0; n < 4; n++) {
        u32 s = byte_of(select, n);
        u32 sign = (from >> (16 * (s & 3) + 15) & 1) ? 255 : 0; /* 8..11: of bytes 1, 3, 5, 7 */
        u32 byte = s < 8 ? byte_of(from, s & 7) : s < 12 ? sign : s == 12 ? 0 : 255;
        result |= byte << 8 * n;
    }
    return result;
}

static inline u64 mad_u64(u32 a, u32 b, u64 c, u32 *out, u32 lane)
{
    u64 product = (u64)a * b;

    *out |= (u32)(product + c < c) << lane;
    return product + c;
}

static inline u64 mad_i64(i32 a, i32 b, u64 c, u32 *out, u32 lane)
{
    i64 sum;
    bool overflow = __builtin_add_overflow((i64)a * b, (i64)c, &sum);

    *out |= (u32)((sum < 0) != overflow) << lane; /* bit 64 of the exact sum */
    return (u64)sum;
}

static inline u32 dot4_u8(u32 a, u32 b)
{
    return byte_of(a, 0) * byte_of(b, 0) + byte_of(a, 1) * byte_of(b, 1) +
           byte_of(a, 2) * byte_of(b, 2) + byte_of(a, 3) * byte_of(b, 3);
}

static inline u32 dot8_u4(u32 a, u32 b)
{
    return dot4_u8(a & 0x0f0f0f0f, b & 0x0f0f0f0f) +
           dot4_u8(a >> 4 & 0x0f0f0f0f, b >> 4 & 0x0f0f0f0f);
}

/* ---- conversions: toward zero, saturating, NaN gives 0 ---- */

static inline f32 clamp_f32(f32 value, f32 low, f32 high)
{
    return value != value ? 0 : value < low ? low : value > high ? high : value;
}
static inline i32 i32_of_f32(f32 value)
{
    return value >= 0x1p31f    ? INT32_MAX
           : value >= -0x1p31f ? (i32)value
           : value != value    ? 0
                               : INT32_MIN;
}
static inline u32 u32_of_f32(f32 value)
{
    return value >= 0x1p32f ? UINT32_MAX : value > 0 ? (u32)value : 0;
}
static inline i32 i32_of(f64 value)
{
    return value >= 0x1p31    ? INT32_MAX
           : value >= -0x1p31 ? (i32)value
           : value != value   ? 0
                              : INT32_MIN;
}
static inline u32 u32_of(f64 value)
{
    return value >= 0x1p32 ? UINT32_MAX : value > 0 ? (u32)value : 0;
}
static inline u32 i16_of_f32(f32 value)
{
    return (u16)(i16)clamp_f32(value, -32768, 32767);
}
static inline u32 u16_of_f32(f32 value)
{
    return (u16)clamp_f32(value, 0, 65535);
}
static inline u32 snorm16(f32 value)
{
    return (u16)(i16)__builtin_floorf(clamp_f32(value, -1, 1) * 32767 + 0.5f);
}
static inline u32 unorm16(f32 value)
{
    return (u16)__builtin_floorf(clamp_f32(value, 0, 1) * 65535 + 0.5f);
}

/* ---- floats ---- */

/* Denormals to zero of the same sign. */
static inline f32 flush(f32 value)
{
    u32 bits = bits_of_f32(value);

    return f32_of_bits(bits & 0x7f800000 ? bits : bits & 0x80000000);
}

/* Minimum and maximum on bits: -0 < +0; a quiet NaN loses against a number; with the IEEE mode bit
 * a signalling NaN wins, quieted. `key` orders bits as the numbers are ordered. */
#define MIN_MAX(name, type, sign, infinity, quiet, less)                                           \
    static inline type name(type a, type b, bool ieee)                                             \
    {                                                                                              \
        bool a_nan = (a & (type) ~(sign)) > (infinity), b_nan = (b & (type) ~(sign)) > (infinity); \
        type a_key = (type)(a ^ (a & (sign) ? (type) ~(type)0 : (sign)));                          \
        type b_key = (type)(b ^ (b & (sign) ? (type) ~(type)0 : (sign)));                          \
        type result = b_nan ? a : a_nan ? b : a_key less b_key ? a : b;                            \
                                                                                                   \
        result = ieee && b_nan && !(b & (quiet)) ? (type)(b | (quiet)) : result;                   \
        return ieee && a_nan && !(a & (quiet)) ? (type)(a | (quiet)) : result;                     \
    }
MIN_MAX(min_b32, u32, 0x80000000u, 0x7f800000u, 0x400000u, <)
MIN_MAX(max_b32, u32, 0x80000000u, 0x7f800000u, 0x400000u, >)
MIN_MAX(min_b16, u16, 0x8000, 0x7c00, 0x200, <)
MIN_MAX(max_b16, u16, 0x8000, 0x7c00, 0x200, >)
MIN_MAX(min_b64, u64, 1ull << 63, 0x7ffull << 52, 1ull << 51, <)
MIN_MAX(max_b64, u64, 1ull << 63, 0x7ffull << 52, 1ull << 51, >)

/* By the text's comparisons, to which -0 equals +0. */
#define MEDIAN(name, type, magnitude, infinity, min, max)                                          \
    static inline type name(type a, type b, type c, bool ieee)                                     \
    {                                                                                              \
        bool nan = (a & (magnitude)) > (infinity) || (b & (magnitude)) > (infinity) ||             \
                   (c & (magnitude)) > (infinity);                                                 \
        type most = max(max(a, b, ieee), c, ieee);                                                 \
        bool is_a = most == a || !((most | a) & (magnitude));                                      \
        bool is_b = most == b || !((most | b) & (magnitude));                                      \
                                                                                                   \
        return nan    ? min(min(a, b, ieee), c, ieee)                                              \
               : is_a ? max(b, c, ieee)                                                            \
               : is_b ? max(a, c, ieee)                                                            \
                      : max(a, b, ieee);                                                           \
    }
MEDIAN(med3_b32, u32, 0x7fffffffu, 0x7f800000u, min_b32, max_b32)
MEDIAN(med3_b16, u16, 0x7fff, 0x7c00, min_b16, max_b16)

/* The largest value below 1 stands in for 1, which a tiny negative number would give. */
static inline f32 fract_f32(f32 a)
{
    f32 fraction = a - __builtin_floorf(a);
    return fraction >= 1 ? 0x1.fffffep-1f : fraction;
}
static inline f32 fract_f16(f32 a)
{
    f32 fraction = a - __builtin_floorf(a);
    return fraction > 0x1.ffcp-1f ? 0x1.ffcp-1f : fraction;
}
static inline f64 fract_f64(f64 a)
{
    f64 fraction = a - __builtin_floor(a);
    return fraction >= 1 ? 0x1.fffffffffffffp-1 : fraction;
}

static inline bool finite_f64(f64 value)
{
    return (bits_of_f64(value) >> 52 & 2047) != 2047;
}
static inline i32 frexp_exponent(f64 a)
{
    int exponent = 0;

    if (finite_f64(a))
        (void)frexp(a, &exponent);
    return exponent;
}
static inline f64 frexp_mantissa(f64 a)
{
    int exponent;

    return finite_f64(a) ? frexp(a, &exponent) : a + a;
}

static inline f64 sin_turns(f64 turns)
{
    f64 part = turns - __builtin_rint(turns); /* exact */
    f64 value = sin(part * 6.283185307179586476925);

    return part == 0.5 || part == -0.5 ? 0 : value;
}
static inline f64 cos_turns(f64 turns)
{
    f64 part = turns - __builtin_rint(turns);

    return part == 0.25 || part == -0.25 ? 0 : cos(part * 6.283185307179586476925);
}

static inline f32 ldexp_f32(f32 a, i32 exponent)
{
    i32 bounded = MAX(MIN(exponent, 400), -400); /* in f64 the product is exact */

    return (f32)((f64)a * f64_of_bits((u64)(bounded + 1023) << 52));
}

/* (a * b) + c rounded to odd in 64 bits: rounding that once more, to fewer than 51 bits, gives what
 * one rounding would. a * b must be exact in f64. */
static inline f64 fma_odd(f64 product, f64 c)
{
    f64 sum = product + c;
    f64 other = sum - product;
    f64 error = (product - (sum - other)) + (c - other); /* exact (Knuth's two-sum) */
    u64 bits = bits_of_f64(sum);

    if (!(error != 0) || !finite_f64(sum) || (bits & 1))
        return sum;
    return f64_of_bits((error > 0) == (sum > 0) ? bits + 1 : bits - 1);
}

/* Exact to the rounding of f16: the product of two f16 and any sum that is near a tie fit f64; the
 * last step to f32 is to odd. */
static inline f32 fma_f16(f32 a, f32 b, f32 c)
{
    f64 exact = (f64)a * b + c;
    f32 near = (f32)exact;
    f64 error = exact - near;
    u32 bits = bits_of_f32(near);

    if (!(error != 0) || (bits & 1) || (bits & 0x7f800000) == 0x7f800000)
        return near;
    return f32_of_bits((error > 0) == (near > 0) ? bits + 1 : bits - 1);
}

static inline f32 dot2_f16(u32 a, u32 b, f32 c)
{
    f32 low = f32_of_half(half_of_f32(f32_of_half(a) * f32_of_half(b)));
    f32 high = f32_of_half(half_of_f32(f32_of_half(a >> 16) * f32_of_half(b >> 16)));

    return f32_of_half(half_of_f32(c + low)) + high;
}
static inline f32 dot2_f32_bf16(u32 a, u32 b, f32 c)
{
    c += f32_of_bf16(a) * f32_of_bf16(b);
    return c + f32_of_bf16(a >> 16) * f32_of_bf16(b >> 16);
}
static inline u16 dot2_bf16(u32 a, u32 b, u16 c)
{
    f32 low = f32_of_bf16(bf16_of_f32(f32_of_bf16(a) * f32_of_bf16(b)));
    f32 high = f32_of_bf16(bf16_of_f32(f32_of_bf16(a >> 16) * f32_of_bf16(b >> 16)));

    return (u16)bf16_of_f32(f32_of_bf16(bf16_of_f32(f32_of_bf16(c) + low)) + high);
}

struct cube {
    f32 id, s, t, major;
};
static inline struct cube cube(f32 x, f32 y, f32 z)
{
    f32 ax = __builtin_fabsf(x), ay = __builtin_fabsf(y), az = __builtin_fabsf(z);

    if (az >= ax && az >= ay)
        return (struct cube){z < 0 ? 5 : 4, z < 0 ? -x : x, -y, z};
    if (ay >= ax)
        return (struct cube){y < 0 ? 3 : 2, x, y < 0 ? -z : z, y};
    return (struct cube){x < 0 ? 1 : 0, x < 0 ? z : -z, -y, x};
}

static inline f32 mullit(f32 a, f32 b, f32 c)
{
    const f32 least = -0x1.fffffep127f;

    return b <= least || b != b || c <= 0 || c != c ? least : a * b;
}

/* ---- division in steps: scale, (Newton by FMA), fmas, fixup ---- */

static inline i32 exponent_f32(f32 a)
{
    return (i32)(bits_of_f32(a) >> 23 & 255);
}
static inline i32 exponent_f64(f64 a)
{
    return (i32)(bits_of_f64(a) >> 52 & 2047);
}

/* Which of denominator and numerator `what` is, is seen by its value. The bit tells fmas to undo.
 */
static inline f32 div_scale_f32(f32 what, f32 den, f32 num, u32 *out, u32 lane)
{
    i32 n = exponent_f32(num), d = exponent_f32(den);
    bool tiny_quotient = n - d < -126 || (n - d == -126 && __builtin_fabsf(num / den) < 0x1p-126f);

    if (num == 0 || den == 0)
        return (*out |= 1u << lane, NAN);
    if (n - d >= 96)
        return (*out |= 1u << lane, what == den ? what * 0x1p64f : what);
    if (d == 0)
        return what * 0x1p64f;
    if (d >= 253 && tiny_quotient) /* 1 / den is denormal, the quotient too: a larger one */
        return (*out |= 1u << lane, what == den ? what * 0x1p-64f : what);
    if (d >= 253)
        return what * 0x1p-64f;
    if (tiny_quotient)
        return (*out |= 1u << lane, what == num ? what * 0x1p64f : what);
    return n <= 23 ? what * 0x1p64f : what;
}

static inline f64 div_scale_f64(f64 what, f64 den, f64 num, u32 *out, u32 lane)
{
    i32 n = exponent_f64(num), d = exponent_f64(den);
    bool tiny_quotient = n - d < -1022 || (n - d == -1022 && __builtin_fabs(num / den) < 0x1p-1022);

    if (num == 0 || den == 0)
        return (*out |= 1u << lane, NAN);
    if (n - d >= 768)
        return (*out |= 1u << lane, what == den ? what * 0x1p128 : what);
    if (d == 0)
        return what * 0x1p128;
    if (d >= 2045 && tiny_quotient)
        return (*out |= 1u << lane, what == den ? what * 0x1p-128 : what);
    if (d >= 2045)
        return what * 0x1p-128;
    if (tiny_quotient)
        return (*out |= 1u << lane, what == num ? what * 0x1p128 : what);
    return n <= 53 ? what * 0x1p128 : what;
}

/* With the bit: 2^64 when the quotient's estimate is large, for a scaled denominator; 2^-64 when it
 * is small, for a scaled numerator. Rounded once. */
static inline f32 div_fmas_f32(f32 a, f32 b, f32 c, u32 undo)
{
    f64 scale = exponent_f32(c) > 127 ? 0x1p64 : 0x1p-64;

    return undo ? (f32)(fma_odd((f64)a * b, c) * scale) : __builtin_fmaf(a, b, c);
}
static inline f64 div_fmas_f64(f64 a, f64 b, f64 c, u32 undo)
{
    f64 scale = exponent_f64(c) > 1023 ? 0x1p128 : 0x1p-128;

    return undo ? (f64)(((__float128)a * b + c) * scale) : __builtin_fma(a, b, c);
}

static inline f64 div_fixup(f64 quotient, f64 den, f64 num, bool underflow)
{
    f64 sign = signbit(den) != signbit(num) ? -1 : 1;

    if (num != num)
        return num + num;
    if (den != den)
        return den + den;
    if ((num == 0 && den == 0) || (isinf(num) && isinf(den)))
        return -NAN;
    if (den == 0 || isinf(num))
        return sign * INFINITY;
    if (isinf(den) || num == 0 || underflow)
        return sign * 0.0;
    return sign * (quotient != quotient ? INFINITY : __builtin_fabs(quotient));
}
static inline f32 div_fixup_f32(f32 quotient, f32 den, f32 num)
{
    return (f32)div_fixup(quotient, den, num, exponent_f32(num) - exponent_f32(den) < -150);
}
static inline f64 div_fixup_f64(f64 quotient, f64 den, f64 num)
{
    return div_fixup(quotient, den, num, exponent_f64(num) - exponent_f64(den) < -1075);
}

/* 53 bits of 2/pi, from bit `shift` behind the point on. */
f64 trig_preop(f64 a, u32 segment);

#endif
