/*
 * mathf.c: elementary functions by argument reduction and series whose terms are facts of the
 * function, not fitted numbers: exp and sin/cos by Taylor, log by the area tangent. Reductions
 * take a constant in two pieces and fuse product and difference, so they are exact.
 */
#include "ml/mathf.h"

#define LN2_HIGH      0x1.62e42fefa39efp-1
#define LN2_LOW       0x1.abc9e3b39803fp-56
#define PIO2_HIGH     0x1.921fb54442d18p+0
#define PIO2_LOW      0x1.1a62633145c07p-54
#define PIO2_LOWEST   (-0x1.f1976b7ed8fbcp-110)
#define EXP_OVERFLOW  709.782712893384
#define EXP_UNDERFLOW (-745.1332191019412)

union bits {
    f64 value;
    u64 u;
};

/* 2^n for the exponents of normal numbers. */
static f64 power_of_two(i32 n)
{
    return (union bits){.u = (u64)(1023 + n) << 52}.value;
}

f64 math_floor(f64 x)
{
    return __builtin_floor(x); /* one instruction: AVX is the floor of this room */
}

f64 math_sqrt(f64 x)
{
    typedef f64 pair __attribute__((vector_size(16)));

    return ((pair)__builtin_ia32_sqrtsd((pair){x, 0}))[0]; /* __builtin_sqrt would want errno */
}

/* x = n * log 2 + r; exp r = 1 + r + r^2 / 2 (1 + r / 3 (1 + r / 4 (...))), |r| < 0.35. */
f64 math_exp(f64 x)
{
    f64 n = math_floor(x / LN2_HIGH + 0.5), sum = 1, r;
    i32 half;

    if (x != x || x > EXP_OVERFLOW)
        return x + MATH_INF;
    if (x < EXP_UNDERFLOW)
        return 0;
    r = __builtin_fma(-n, LN2_LOW, __builtin_fma(-n, LN2_HIGH, x));
    for (u32 k = 13; k > 2; k--) /* 0.35^14 / 14! is 5e-18 */
        sum = 1 + sum * r / k;
    half = (i32)n / 2; /* in two steps, so that a denormal result is rounded once */
    return (1 + (r + r * r / 2 * sum)) * power_of_two(half) * power_of_two((i32)n - half);
}

/* x = 2^n * m with m near 1; log m = 2 artanh s with s = (m - 1) / (m + 1), |s| < 0.172. */
f64 math_log(f64 x)
{
    i32 n = x < 0x1p-1022 ? -54 - 1023 : -1023;
    union bits m = {x < 0x1p-1022 ? x * 0x1p54 : x};
    f64 f, s, sum = 0, half;

    if (!(x > 0) || x == MATH_INF)
        return x == 0 ? -MATH_INF : x > 0 ? x : MATH_NAN;
    n += (i32)(m.u >> 52);
    m.u = (m.u & 0xfffffffffffffull) | 1023ull << 52;
    n += m.value > 1.4142135623730951;
    f = (m.value > 1.4142135623730951 ? m.value / 2 : m.value) - 1;
    s = f / (2 + f);
    for (i32 k = 21; k >= 3; k -= 2)
        sum = (sum + 2.0 / k) * s * s;
    half = f * f / 2; /* log m = f - (half - s * (half + sum)) loses no bits of f */
    return __builtin_fma(n, LN2_HIGH, f - (half - (s * (half + sum) + n * LN2_LOW)));
}

f64 math_pow(f64 x, f64 y)
{
    return y == 0 || x == 1 ? 1 : math_exp(y * math_log(x));
}

/* r^2 / (k (k + 1)) (1 - r^2 / ((k + 2) (k + 3)) (1 - ...)) for |r| <= pi / 4. */
static f64 alternating(f64 r, u32 k)
{
    f64 sum = 0;

    for (u32 n = k + 14; n >= k; n -= 2)
        sum = r * r / (n * (n + 1)) * (1 - sum);
    return sum;
}

/* sin(x + turns * pi / 2); the quarter in which x lies picks series and sign. */
static f64 sin_quarters(f64 x, u32 turns)
{
    f64 n = math_floor(x / PIO2_HIGH + 0.5), far, low, r, rest, half, high, value;

    if (!(x >= -MATH_TRIG_MAX && x <= MATH_TRIG_MAX))
        return MATH_NAN;
    far = __builtin_fma(-n, PIO2_HIGH, x);
    low = n * PIO2_LOW;
    r = far - low; /* and what product and difference lose: */
    rest = (far - r) - low - (__builtin_fma(n, PIO2_LOW, -low) + n * PIO2_LOWEST);
    turns += (u32)(i32)n;
    half = r * r / 2;
    high = 1 - half;
    value = turns & 1 ? high + (((1 - high) - half) + (half * alternating(r, 3) - r * rest))
                      : r - (r * alternating(r, 2) - rest);
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

/* value * 10^exponent, a few roundings. */
static f64 scale_by_ten(f64 value, i32 exponent)
{
    while (exponent != 0) {
        f64 power = 1;
        bool down = exponent < 0;

        for (u32 i = 0; i < EXACT_POWER_MAX && exponent != 0; i++) {
            exponent += down ? 1 : -1;
            power *= 10;
        }
        value = down ? value / power : value * power;
    }
    return value;
}

void text_f64(struct text *out, f64 value, u32 decimals, struct str otherwise)
{
    f64 size = value < 0 ? -value : value;
    u64 one = (u64)scale_by_ten(1, (i32)decimals), whole, rest;
    i32 exponent = 0;

    CHECK(decimals <= 15);
    if (!(size < MATH_INF)) {
        text_put(out, otherwise);
        return;
    }
    while (size >= 1e15 && scale_by_ten(size, -exponent) >= 10)
        exponent++;
    size = scale_by_ten(size, -exponent);
    whole = (u64)size;
    rest = (u64)((size - (f64)whole) * (f64)one + 0.5);
    whole += rest / one;
    rest %= one;
    text_fmt(out, "%s%lu%s", value < 0 && (whole | rest) ? "-" : "", whole, rest ? "." : "");
    while (rest != 0) { /* the first digit is what the unit ten times smaller goes into */
        one /= 10;
        text_char(out, (char)('0' + rest / one));
        rest %= one;
    }
    if (exponent > 0)
        text_fmt(out, "e+%d", exponent);
}

/* Takes a sign off the text, if there is one; whether it was a minus. */
static bool take_minus(struct str *text)
{
    bool minus = str_starts(*text, STR("-")), plus = str_starts(*text, STR("+"));

    *text = str_slice(*text, minus || plus, text->len);
    return minus;
}

err str_to_f64(struct str text, f64 *value)
{
    bool negative = take_minus(&text), down = false, any = false; /* digits in this part */
    enum { WHOLE, FRACTION, POWER } in = WHOLE;
    i32 exponent = 0, power = 0;
    u64 digits = 0;
    f64 result;

    if (text.len > 1000)
        return E_FORMAT;
    while (text.len > 0) {
        char c = text.ptr[0];
        bool fits = digits < 1000000000000000000ull; /* the rest is only counted */

        text = str_slice(text, 1, text.len);
        if (c >= '0' && c <= '9') {
            any = true;
            if (in == POWER)
                power = power < 1000 ? power * 10 + (c - '0') : power;
            else
                exponent += (fits ? 0 : 1) - (in == FRACTION);
            if (in != POWER && fits)
                digits = digits * 10 + (u64)(c - '0');
        } else if (any && in == WHOLE && c == '.') {
            in = FRACTION;
            any = false;
        } else if (any && in != POWER && (c == 'e' || c == 'E')) {
            in = POWER;
            any = false;
            down = take_minus(&text);
        } else {
            return E_FORMAT;
        }
    }
    if (!any)
        return E_FORMAT;
    result = scale_by_ten((f64)digits, exponent + (down ? -power : power));
    if (!(result < MATH_INF))
        return E_RANGE;
    *value = negative ? -result : result;
    return OK;
}
