/*
 * mathf.c: elementary functions by argument reduction and series whose terms are facts of the
 * function, not fitted numbers: exp and sin/cos by Taylor, log by the area tangent. Reductions
 * are in two or three steps with constants whose low bits are zero (Cody and Waite), so they are
 * exact.
 */
#include "ml/mathf.h"

#define LN2_HIGH      0x1.62e42fee00000p-1 /* 32 bits: times an exponent it is exact */
#define LN2_LOW       0x1.a39ef35793c76p-33
#define LOG2_E        0x1.71547652b82fep+0
#define PIO2_1        0x1.921fb54400000p+0 /* pi / 2 in pieces of 33 bits, and what is left */
#define PIO2_2        0x1.0b4611a600000p-34
#define PIO2_3        0x1.3198a2e037073p-69
#define TWO_OVER_PI   0x1.45f306dc9c883p-1
#define EXP_OVERFLOW  709.782712893384
#define EXP_UNDERFLOW (-745.1332191019412)

static f64 f64_of_bits(u64 bits)
{
    f64 value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static u64 bits_of_f64(f64 value)
{
    u64 bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* 2^n for the exponents of normal numbers. */
static f64 power_of_two(i32 n)
{
    return f64_of_bits((u64)(1023 + n) << 52);
}

f64 math_floor(f64 x)
{
    f64 whole;

    if (!(x > -0x1p52 && x < 0x1p52)) /* whole already, or NaN */
        return x;
    whole = (f64)(i64)x;
    return whole > x ? whole - 1 : whole;
}

f64 math_sqrt(f64 x)
{
    typedef f64 pair __attribute__((vector_size(16)));

    return ((pair)__builtin_ia32_sqrtsd((pair){x, 0}))[0];
}

/* 1 / n! */
// clang-format off
static const f64 inverse_factorial[] = {
    1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320,
    1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800,
    1.0 / 87178291200, 1.0 / 1307674368000, 1.0 / 20922789888000, 1.0 / 355687428096000,
};
// clang-format on

/* The sum of r^n / n! from n = 1 up to the last term, for |r| < 0.35. */
static f64 exp_less_1(f64 r, u32 last)
{
    f64 sum = inverse_factorial[last];

    for (u32 n = last - 1; n > 1; n--)
        sum = sum * r + inverse_factorial[n];
    return r + r * r * sum;
}

static f64 exp_terms(f64 x, u32 last)
{
    f64 n, r;
    i32 half;

    if (x != x)
        return x;
    if (x > EXP_OVERFLOW)
        return MATH_INF;
    if (x < EXP_UNDERFLOW)
        return 0;
    n = math_floor(x * LOG2_E + 0.5);
    r = x - n * LN2_HIGH;
    r -= n * LN2_LOW;
    half = (i32)n / 2; /* in two steps, so that a denormal result is rounded once */
    return (1 + exp_less_1(r, last)) * power_of_two(half) * power_of_two((i32)n - half);
}

f64 math_exp(f64 x)
{
    return exp_terms(x, 13); /* 0.35^14 / 14! is 5e-18 */
}

f32 mathf_exp(f32 x)
{
    return (f32)exp_terms((f64)x, 8); /* 0.35^9 / 9! is 2e-10, a hundredth of an f32 ulp */
}

/* x = 2^n * m with m near 1; log m = 2 artanh s with s = (m - 1) / (m + 1), |s| < 0.172. */
f64 math_log(f64 x)
{
    i32 n = 0;
    u64 bits;
    f64 f, s, s2, sum = 0, half;

    if (!(x > 0))
        return x == 0 ? -MATH_INF : MATH_NAN;
    if (x == MATH_INF)
        return x;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        n = -54;
    }
    bits = bits_of_f64(x);
    n += (i32)(bits >> 52) - 1023;
    f = f64_of_bits((bits & 0xfffffffffffffull) | 1023ull << 52);
    if (f > 1.4142135623730951) {
        f /= 2;
        n++;
    }
    f -= 1;
    s = f / (2 + f);
    s2 = s * s;
    for (i32 k = 21; k >= 3; k -= 2)
        sum = (sum + 2.0 / k) * s2;
    half = f * f / 2; /* log m = f - (half - s * (half + sum)) loses no bits of f */
    return n * LN2_HIGH - ((half - (s * (half + sum) + n * LN2_LOW)) - f);
}

f64 math_pow(f64 x, f64 y)
{
    if (y == 0 || x == 1)
        return 1;
    return math_exp(y * math_log(x));
}

/* r^2 (1 / n! - r^2 (1 / (n + 2)! - ...)) with n = first + 2, for |r| <= pi / 4. */
static f64 alternating(f64 r, u32 first)
{
    f64 r2 = r * r, sum = 0;

    for (u32 n = 16 + first % 2; n > first; n -= 2)
        sum = (inverse_factorial[n] - sum) * r2;
    return sum;
}

/* sin(r + rest) and cos(r + rest) where rest is below half a unit of r. */
static f64 sin_near(f64 r, f64 rest)
{
    return r - (r * alternating(r, 1) - rest);
}

static f64 cos_near(f64 r, f64 rest)
{
    f64 half = r * r / 2, high = 1 - half; /* and what this difference loses is put back */

    return high + (((1 - high) - half) + (r * r * alternating(r, 2) - r * rest));
}

/* sin(x + turns * pi / 2); the quarter in which x lies picks series and sign. */
static f64 sin_quarters(f64 x, u32 turns)
{
    f64 n, high, low, rest, r, near, value;

    if (!(x >= -MATH_TRIG_MAX && x <= MATH_TRIG_MAX))
        return MATH_NAN;
    n = math_floor(x * TWO_OVER_PI + 0.5);
    high = x - n * PIO2_1;
    low = n * PIO2_2;
    r = high - low; /* exact products; what this difference loses is put into rest */
    rest = n * PIO2_3 - ((high - r) - low);
    near = r - rest;
    rest = (r - near) - rest;
    turns += (u32)(i32)n;
    value = turns & 1 ? cos_near(near, rest) : sin_near(near, rest);
    return turns & 2 ? -value : value;
}

f64 math_sin(f64 x)
{
    return sin_quarters(x, 0);
}

f64 math_cos(f64 x)
{
    return sin_quarters(x, 1);
}

/* ---- decimal text ---- */

#define EXACT_POWER_MAX 22 /* 10^22 is the last power of ten that f64 holds exactly */
#define DIGITS_MAX      19 /* that fit into a u64 */

static f64 exact_power_of_ten(u32 n)
{
    f64 power = 1;

    CHECK(n <= EXACT_POWER_MAX);
    for (u32 i = 0; i < n; i++)
        power *= 10;
    return power;
}

/* 0 <= value < 1e16 */
static void text_fixed(struct text *out, f64 value, u32 decimals)
{
    u64 one = (u64)exact_power_of_ten(decimals), whole = (u64)value;
    u64 rest = (u64)((value - (f64)whole) * (f64)one + 0.5);

    whole += rest / one;
    rest %= one;
    text_fmt(out, "%lu", whole);
    if (rest != 0)
        text_char(out, '.');
    while (rest != 0) { /* the first digit is what the unit ten times smaller goes into */
        one /= 10;
        text_char(out, (char)('0' + rest / one));
        rest %= one;
    }
}

void text_f64(struct text *out, f64 value, u32 decimals, struct str otherwise)
{
    f64 size = value < 0 ? -value : value;
    u32 exponent = 0;

    CHECK(decimals <= 15);
    if (!(size < MATH_INF)) {
        text_put(out, otherwise);
        return;
    }
    if (value < 0 && size * exact_power_of_ten(decimals) >= 0.5)
        text_char(out, '-');
    if (size < 1e15) {
        text_fixed(out, size, decimals);
        return;
    }
    for (; size >= 1e16; exponent += 16)
        size /= 1e16;
    for (; size >= 10; exponent++)
        size /= 10;
    text_fixed(out, size, decimals);
    text_fmt(out, "e+%u", exponent);
}

/* Digits into *value until it is full, then only counted; returns how many there were. */
static usize take_digits(struct str *text, u64 *value, i32 *exponent, i32 step)
{
    usize n = 0;

    for (; n < text->len && text->ptr[n] >= '0' && text->ptr[n] <= '9'; n++) {
        bool fits = *value < 1000000000000000000ull;

        if (fits)
            *value = *value * 10 + (u64)(text->ptr[n] - '0');
        *exponent += (fits ? 0 : 1) + step;
    }
    *text = str_slice(*text, n, text->len);
    return n;
}

static bool take_char(struct str *text, char c)
{
    if (text->len == 0 || text->ptr[0] != c)
        return false;
    *text = str_slice(*text, 1, text->len);
    return true;
}

err str_to_f64(struct str text, f64 *value)
{
    u64 digits = 0, power = 0;
    i32 exponent = 0, ignored = 0;
    bool negative = take_char(&text, '-'), small;
    f64 result;

    if (!negative)
        take_char(&text, '+');
    if (text.len > 1000 || take_digits(&text, &digits, &exponent, 0) == 0)
        return E_FORMAT;
    if (take_char(&text, '.') && take_digits(&text, &digits, &exponent, -1) == 0)
        return E_FORMAT;
    if (take_char(&text, 'e') || take_char(&text, 'E')) {
        small = take_char(&text, '-');
        if (!small)
            take_char(&text, '+');
        if (take_digits(&text, &power, &ignored, 0) == 0)
            return E_FORMAT;
        power = min_u64(power, 10000);
        exponent += small ? -(i32)power : (i32)power;
    }
    if (text.len != 0)
        return E_FORMAT;
    result = (f64)digits;
    for (; exponent > EXACT_POWER_MAX && result < MATH_INF; exponent -= EXACT_POWER_MAX)
        result *= 1e22;
    for (; exponent < -EXACT_POWER_MAX && result > 0; exponent += EXACT_POWER_MAX)
        result /= 1e22;
    if (exponent > 0 && result < MATH_INF)
        result *= exact_power_of_ten((u32)exponent);
    else if (result > 0 && result < MATH_INF)
        result /= exact_power_of_ten((u32)-exponent);
    if (!(result < MATH_INF))
        return E_RANGE;
    *value = negative ? -result : result;
    return OK;
}
