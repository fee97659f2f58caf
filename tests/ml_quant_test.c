/*
 * ml_quant_test.c: block formats and elementary functions against other implementations: the
 * CPU's half-precision instructions, libm's long double functions, and (pack of
 * tests/witness/quant.py) Python's gguf package.
 */
#include <immintrin.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ml/mathf.h"
#include "ml/quant.h"
#include "tests/ml_pack.h"
#include "tests/oracle/element.h"
#include "tests/oracle/oracle.h"
#include "tests/test.h"

static u32 bits_of(f32 value)
{
    u32 bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

TEST(ml_quant_half)
{
    /* Guards: every half becomes the float that the CPU makes of it, and back. */
    for (u32 i = 0; i < 65536; i++) {
        f32 want = _cvtsh_ss((u16)i), seen = f16_to_f32((u16)i);
        bool is_nan = want != want;

        EXPECT(is_nan ? seen != seen : bits_of(seen) == bits_of(want));
        EXPECT(is_nan ? (f32_to_f16(seen) & 0x7fff) > 0x7c00 : f32_to_f16(seen) == i);
        EXPECT_EQ(bits_of(bf16_to_f32((u16)i)), i << 16);
        EXPECT((i & 0x7fff) > 0x7f80 || f32_to_bf16(bf16_to_f32((u16)i)) == i);
    }
}

TEST(ml_quant_round_to_half)
{
    /* Guards: rounding to half is the CPU's: ties to even, denormals, overflow to infinity. */
    for (u32 i = 0; i < 2000000; i++) {
        u32 bits = (u32)test_random();
        f32 value;

        if (i % 4 == 0)
            bits = (bits & 0x8fffe000) | 0x30000000 | (u32[]){0x1000, 0xfff, 0x1001, 0}[i / 4 % 4];
        memcpy(&value, &bits, sizeof(value));
        if (value == value)
            EXPECT_EQ(f32_to_f16(value), (u16)_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT));
        else
            EXPECT((f32_to_f16(value) & 0x7fff) > 0x7c00 && (f32_to_bf16(value) & 0x7fff) > 0x7f80);
    }
    EXPECT_EQ(f32_to_bf16(1.00390625f), 0x3f80); /* 1 + 2^-8: a tie, down to even */
    EXPECT_EQ(f32_to_bf16(1.01171875f), 0x3f82); /* 1 + 3 * 2^-8: a tie, up to even */
    EXPECT_EQ(f32_to_bf16(3.4e38f), 0x7f80);
}

TEST(ml_quant_unpack_is_decode)
{
    /* Guards: scale * code + offset is the reference value, and zero folds as promised. */
    static u8 bytes[QUANT_BLOCK_MAX];
    static f32 want[QUANT_BLOCK_MAX];
    struct quant_block block;

    for (u32 round = 0; round < 200; round++) {
        for (u32 type = 0; type < 40; type++) {
            const struct quant_format *format = quant_format(type);

            if (format == NULL || format->unpack == NULL)
                continue;
            for (u32 i = 0; i < format->bytes; i++) /* exponents stay small: no NaN */
                bytes[i] = (u8)test_random() & 0xbf;
            quant_decode(format, bytes, want, format->elements);
            quant_unpack(format, bytes, &block);
            for (u32 i = 0; i < format->elements; i++) {
                u32 sub = i / format->sub_elements;
                f32 product = block.scale[sub] * (f32)block.code[i];
                f32 size = fabsf(product) + fabsf(block.offset[sub]);

                EXPECT(block.code[i] < 1u << format->code_bits);
                EXPECT(fabsf(product + block.offset[sub] - want[i]) <= size * 2e-7f);
                EXPECT(format->has_min ||
                       block.offset[sub] == -block.scale[sub] * (f32)format->zero);
            }
        }
    }
    EXPECT(quant_format(4) == NULL && quant_format(~0u) == NULL);
}

TEST(ml_quant_pack)
{
    /* Guards: each format decodes bit by bit as gguf.quants does; pack of
     * tests/witness/quant.py: blocks, then floats. */
    struct pack pack = pack_open("quant_pack");
    struct pack_file file;
    u32 formats = 0;

    while (pack_next(&pack, &file)) {
        const struct quant_format *format = quant_format(file.expect);
        u64 blocks, count;
        f32 *seen;

        EXPECT(format != NULL);
        blocks = file.len / (format->bytes + format->elements * sizeof(f32));
        count = blocks * format->elements;
        seen = malloc(count * sizeof(f32));
        quant_decode(format, file.bytes, seen, count);
        for (u64 i = 0; i < count; i++) {
            f32 want;

            memcpy(&want, file.bytes + blocks * format->bytes + i * sizeof(f32), sizeof(f32));
            if (seen[i] != want && (seen[i] == seen[i] || want == want))
                test_fail(__FILE__, __LINE__, "%s: element %llu is %a, want %a", format->name,
                          (unsigned long long)i, (double)seen[i], (double)want);
        }
        free(seen);
        formats++;
    }
    EXPECT_EQ(formats, 11);
    pack_close(&pack);
}

/* ---- elementary functions ---- */

/* Distance in units of the last place of the exact value. */
static f64 ulps(f64 seen, long double want)
{
    int exponent;

    if (!(fabsl(want) <= (long double)__DBL_MAX__) || seen != seen)
        return seen == (f64)want || (seen != seen && want != want) ? 0 : 1e9;
    frexpl(want, &exponent);
    if (exponent < -1021)
        exponent = -1021;
    return (f64)(fabsl((long double)seen - want) / ldexpl(1, exponent - 53));
}

static f64 random_between(f64 low, f64 high)
{
    return low + (high - low) * (f64)(test_random() >> 11) * 0x1p-53;
}

TEST(ml_mathf_ulps)
{
    /* Guards: the bounds that mathf.h states, against libm's long double (64-bit mantissa). */
    static const f64 max = 1.0;
    f64 worst[6] = {};

    for (u32 i = 0; i < 1000000; i++) {
        f64 x = i % 2 ? random_between(-745, 709.7) : random_between(-1, 1);
        f64 y = i % 2 ? exp(random_between(-740, 709)) : random_between(0.5, 2);
        f64 angle = random_between(-1, 1) * (f64[]){4, 100, 131072, MATH_TRIG_MAX}[i % 4];

        worst[0] = fmax(worst[0], ulps(math_exp(x), expl(x)));
        worst[1] = fmax(worst[1], ulps(math_log(y), logl(y)));
        worst[2] = fmax(worst[2], ulps(math_sin(angle), sinl(angle)));
        worst[3] = fmax(worst[3], ulps(math_cos(angle), cosl(angle)));
        worst[4] = fmax(worst[4], ulps(math_sqrt(y), sqrtl(y)));
        worst[5] = fmax(worst[5], ulps(math_floor(x), floorl(x)));
    }
    if (test_data("show") != NULL)
        printf("ulp: exp %.3f log %.3f sin %.3f cos %.3f\n", worst[0], worst[1], worst[2],
               worst[3]);
    for (u32 i = 0; i < 4; i++)
        EXPECT(worst[i] < max);
    EXPECT(worst[4] <= 0.5 && worst[5] == 0);
}

TEST(ml_mathf_edges)
{
    /* Guards: NaN, infinities, zeros, the quarters of the circle, and what is out of range. */
    EXPECT(math_exp(MATH_INF) == MATH_INF && math_exp(-MATH_INF) == 0 && math_exp(0) == 1);
    EXPECT(math_exp(710) == MATH_INF && math_exp(-746) == 0 && math_exp(-745) > 0);
    EXPECT(math_log(0) == -MATH_INF && math_log(1) == 0 && math_log(MATH_INF) == MATH_INF);
    EXPECT(isnan(math_log(-1)) && isnan(math_exp(MATH_NAN)) && isnan(math_sin(MATH_INF)));
    EXPECT(isnan(math_cos(2e6)) && isnan(math_sqrt(-1)) && isnan(math_log(MATH_NAN)));
    EXPECT(ulps(math_log(5e-324), logl((long double)5e-324)) < 1);
    EXPECT(math_cos(0) == 1 && math_sin(0) == 0 && math_floor(-0.5) == -1);
    for (i32 n = -1000000; n < 1000000; n += 997) { /* the worst arguments: next to n * pi / 2 */
        f64 x = (f64)n * 1.5707963267948966;

        EXPECT(ulps(math_sin(x), sinl(x)) < 1 && ulps(math_cos(x), cosl(x)) < 1);
    }
    EXPECT(math_pow(0, 2) == 0 && math_pow(0, 0) == 1 && math_pow(0, -1) == MATH_INF);
    for (u32 i = 0; i < 10000; i++) {
        f64 x = random_between(0.001, 1e6), y = random_between(-5, 5);
        f64 bound = 2.5e-16 * (1 + fabs(y * log(x)));

        EXPECT(fabsl(math_pow(x, y) / powl(x, y) - 1) < bound);
    }
}

static struct str number_text(f64 value, u32 decimals)
{
    static char chars[64];
    static struct text out;

    out = TEXT_ON(chars);
    text_f64(&out, value, decimals, STR("null"));
    return text_str(&out);
}

TEST(ml_mathf_text)
{
    /* Guards: numbers as JSON wants them, rounded once, and read back. */
    f64 value = 0;

    EXPECT_STR(number_text(0, 6), STR("0"));
    EXPECT_STR(number_text(-0.0000001, 6), STR("0"));
    EXPECT_STR(number_text(1.5, 6), STR("1.5"));
    EXPECT_STR(number_text(-0.03125, 4), STR("-0.0313"));
    EXPECT_STR(number_text(9.9999996, 6), STR("10"));
    EXPECT_STR(number_text(123456789.000001, 6), STR("123456789.000001"));
    EXPECT_STR(number_text(1e15, 3), STR("1e+15"));
    EXPECT_STR(number_text(-2.5e300, 3), STR("-2.5e+300"));
    EXPECT_STR(number_text(MATH_NAN, 3), STR("null"));
    EXPECT_STR(number_text(-MATH_INF, 3), STR("null"));
    for (u32 i = 0; i < 100000; i++) {
        f64 want = random_between(-1, 1) * exp(random_between(-20, 40));
        char chars[64];
        struct str text = number_text(want, 9);

        memcpy(chars, text.ptr, text.len);
        chars[text.len] = 0;
        EXPECT(fabs(strtod(chars, NULL) - want) <= 0.50000001e-9 + fabs(want) * 1e-9);
        EXPECT_OK(str_to_f64(text, &value));
        EXPECT(ulps(value, strtold(chars, NULL)) <= 2);
    }
}

TEST(ml_mathf_read)
{
    /* Guards: decimal text of any exponent reads as strtod does within 8 ulp, and nothing else
     * reads. */
    static const char *const bad[] = {"",   "-",   ".5",  "5.",  "1e",  "1e+",   "0x10", " 1",
                                      "1 ", "nan", "inf", "1,0", "--1", "1.2.3", "1e5.0"};
    f64 value = 0;

    for (u32 i = 0; i < 100000; i++) {
        char chars[64];

        snprintf(chars, sizeof(chars), "%.*g", (int)test_random_below(19) + 1,
                 random_between(-1, 1) * pow(10, random_between(-300, 300)));
        EXPECT_OK(str_to_f64(str_of(chars), &value));
        EXPECT(ulps(value, strtold(chars, NULL)) <= 8);
    }
    for (u32 i = 0; i < ARRAY_LEN(bad); i++)
        EXPECT_EQ(str_to_f64(str_of(bad[i]), &value), E_FORMAT);
    EXPECT_EQ(str_to_f64(STR("1e999"), &value), E_RANGE);
    EXPECT_OK(str_to_f64(STR("1e-999"), &value));
    EXPECT(value == 0);
    EXPECT_OK(str_to_f64(STR("0e999999999999"), &value));
    EXPECT(value == 0);
}
