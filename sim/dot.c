/*
 * dot.c: vector operations that are no single expression: dot products of bytes, nibbles and
 * halves, the mixed FMA (they choose by bits of the instruction), bits of 2 / pi. Rows of
 * valu_rows.c call them as they call the loops of valu.def.
 */
#include "sim/lane_math.h"
#include "sim/wave.h"

#define STEP 8 /* lanes of one host vector */

/* Bytes as 16-bit numbers: the even or the odd ones of each lane. */
static inline __m256i widen(__m256i bytes, bool odd, bool is_signed)
{
    __m256i at_top = odd ? bytes : _mm256_slli_epi16(bytes, 8);

    return is_signed ? _mm256_srai_epi16(at_top, 8) : _mm256_srli_epi16(at_top, 8);
}

static inline __m256i dot4(__m256i a, __m256i b, bool a_signed, bool b_signed)
{
    __m256i even = _mm256_madd_epi16(widen(a, false, a_signed), widen(b, false, b_signed));
    __m256i odd = _mm256_madd_epi16(widen(a, true, a_signed), widen(b, true, b_signed));

    return _mm256_add_epi32(even, odd);
}

/* Nibbles as bytes: the low or the high one of each byte. */
static inline __m256i nibbles(__m256i from, bool high, bool is_signed)
{
    __m256i mask = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(8);
    __m256i part = _mm256_and_si256(high ? _mm256_srli_epi16(from, 4) : from, mask);

    return is_signed ? _mm256_sub_epi8(_mm256_xor_si256(part, eight), eight) : part;
}

static inline __m256i dot8(__m256i a, __m256i b, bool a_signed, bool b_signed)
{
    __m256i low = dot4(nibbles(a, false, a_signed), nibbles(b, false, b_signed), true, true);
    __m256i high = dot4(nibbles(a, true, a_signed), nibbles(b, true, b_signed), true, true);

    return _mm256_add_epi32(low, high);
}

/* The exact sum fits 64 bits; CLAMP saturates it to 32. */
static inline __m256i add_saturating(__m256i sum, __m256i c)
{
    __m256i wrapped = _mm256_add_epi32(sum, c);
    __m256i overflow = _mm256_srai_epi32(
        _mm256_andnot_si256(_mm256_xor_si256(sum, c), _mm256_xor_si256(sum, wrapped)), 31);
    __m256i limit = _mm256_xor_si256(_mm256_srai_epi32(c, 31), _mm256_set1_epi32(INT32_MAX));

    return _mm256_blendv_epi8(wrapped, limit, overflow);
}

static inline __m256i row_load(const u32 *row, u32 at)
{
    return _mm256_loadu_si256((const __m256i *)(row + at));
}

/* VNNI multiplies unsigned by signed bytes: a + 128 is unsigned, 128 b is taken off again. */
__attribute__((target("avx512vl,avx512vnni"))) static void dot4_vnni(struct lane_args *args)
{
    const u32 *s0 = args->s[0], *s1 = args->s[1], *s2 = args->s[2];
    __m256i bias = _mm256_set1_epi8(INT8_MIN), zero = _mm256_setzero_si256();
    u32 *d = args->d;

    for (u32 at = 0; at < LANES; at += STEP) {
        __m256i a = _mm256_xor_si256(row_load(s0, at), bias), b = row_load(s1, at);
        __m256i sum = _mm256_dpbusd_epi32(row_load(s2, at), a, b);
        __m256i result = _mm256_sub_epi32(sum, _mm256_dpbusd_epi32(zero, bias, b));

        _mm256_storeu_si256((__m256i *)(d + at), result);
    }
}

lane_fn *lanes_on_this_host(const struct isa_inst *inst, lane_fn *usual)
{
    bool dot4 = inst->op == ISA_v_dot4_i32_iu8 && !inst->clamp && (inst->neg & 3) == 3;

    return dot4 && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")
               ? dot4_vnni
               : usual;
}

void lanes_v_dot4_i32_iu8(struct lane_args *args)
{
    const struct isa_inst *inst = &args->uop->inst;
    bool clamp = inst->clamp, sa = inst->neg & 1, sb = inst->neg & 2;

    for (u32 at = 0; at < LANES; at += STEP) {
        __m256i a = row_load(args->s[0], at), b = row_load(args->s[1], at);
        __m256i sum = dot4(a, b, sa, sb), c = row_load(args->s[2], at);
        __m256i result = clamp ? add_saturating(sum, c) : _mm256_add_epi32(sum, c);

        _mm256_storeu_si256((__m256i *)(args->d + at), result);
    }
}

void lanes_v_dot8_i32_iu4(struct lane_args *args)
{
    const struct isa_inst *inst = &args->uop->inst;
    bool clamp = inst->clamp, sa = inst->neg & 1, sb = inst->neg & 2;

    for (u32 at = 0; at < LANES; at += STEP) {
        __m256i a = row_load(args->s[0], at), b = row_load(args->s[1], at);
        __m256i sum = dot8(a, b, sa, sb), c = row_load(args->s[2], at);
        __m256i result = clamp ? add_saturating(sum, c) : _mm256_add_epi32(sum, c);

        _mm256_storeu_si256((__m256i *)(args->d + at), result);
    }
}

/* One half of each lane as floats. */
static inline __m256 half_floats(__m256i words, bool high)
{
    __m256i low =
        high ? _mm256_srli_epi32(words, 16) : _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);

    return _mm256_cvtph_ps(_mm256_castsi256_si128(packed));
}

/* The products are exact, so that each step rounds once: first the low halves, then the high. */
static void dot2(struct lane_args *args, const u32 *sum)
{
    for (u32 at = 0; at < LANES; at += STEP) {
        __m256i a = row_load(args->s[0], at), b = row_load(args->s[1], at);
        __m256 c = _mm256_loadu_ps((const f32 *)(const void *)(sum + at));

        c = _mm256_fmadd_ps(half_floats(a, false), half_floats(b, false), c);
        c = _mm256_fmadd_ps(half_floats(a, true), half_floats(b, true), c);
        _mm256_storeu_ps((f32 *)(void *)(args->d + at), c);
    }
}

void lanes_v_dot2_f32_f16(struct lane_args *args)
{
    dot2(args, args->s[2]);
}
void lanes_v_dot2acc_f32_f16(struct lane_args *args)
{
    dot2(args, args->s[2]);
}

/* op_sel_hi: the source is f16, of the half that op_sel says; then neg_hi is abs. */
static inline __m256 mix_source(const struct lane_args *args, u32 n, u32 at)
{
    const struct isa_inst *inst = &args->uop->inst;
    __m256i words = row_load(args->s[n], at);
    __m256 value = inst->op_sel_hi >> n & 1 ? half_floats(words, inst->op_sel >> n & 1)
                                            : _mm256_castsi256_ps(words);
    __m256 sign = _mm256_set1_ps(-0.0f);

    if (inst->abs >> n & 1)
        value = _mm256_andnot_ps(sign, value);
    return inst->neg >> n & 1 ? _mm256_xor_ps(value, sign) : value;
}

static inline __m256 mix(const struct lane_args *args, u32 at)
{
    return _mm256_fmadd_ps(mix_source(args, 0, at), mix_source(args, 1, at),
                           mix_source(args, 2, at));
}

void lanes_v_fma_mix_f32(struct lane_args *args)
{
    for (u32 at = 0; at < LANES; at += STEP)
        _mm256_storeu_ps((f32 *)(void *)(args->d + at), mix(args, at));
}

void lanes_v_fma_mixlo_f16(struct lane_args *args)
{
    for (u32 at = 0; at < LANES; at += STEP) {
        __m128i halves = _mm256_cvtps_ph(mix(args, at), _MM_FROUND_CUR_DIRECTION);
        _mm256_storeu_si256((__m256i *)(args->d + at), _mm256_cvtepu16_epi32(halves));
    }
}

void lanes_v_fma_mixhi_f16(struct lane_args *args)
{
    lanes_v_fma_mixlo_f16(args);
}

/* Four sums of the bytes of b against four windows of a, on four registers. */
void lanes_v_mqsad_u32_u8(struct lane_args *args)
{
    for (u32 i = 0; i < LANES; i++) {
        u64 a = pair(args->s[0][i], args->s[0][LANES + i]);
        for (u32 n = 0; n < 4; n++)
            args->d[n * LANES + i] =
                sad_u8((u32)(a >> 8 * n), args->s[1][i], true) + args->s[2][n * LANES + i];
    }
}

/* ---- v_trig_preop_f64 ---- */

/* 53 bits of 2 / pi from bit `shift` behind the point on, scaled to their place: parts of the long
 * product that reduces a large angle. */
f64 trig_preop(f64 a, u32 segment)
{
    static const u64 two_over_pi[] = {
        /* the first bits behind the point, most significant first */
        0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041, 0xfe5163abdebbc561,
        0xb7246e3a424dd2e0, 0x06492eea09d1921c, 0xfe1deb1cb129a73e, 0xe88235f52ebb4484,
        0xe99c7026b45f7e41, 0x3991d639835339f4, 0x9c845f8bbdf9283b, 0x1ff897ffde05980f,
        0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d, 0x7527bac7ebe5f17b,
        0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08, 0x56033046fc7b0000, 0x0000000000000000,
    };
    u32 exponent = (u32)exponent_f64(a);
    u32 shift = (segment & 31) * 53 + (exponent > 1077 ? exponent - 1077 : 0);
    u32 word = shift / 64, bit = shift % 64;
    u64 high = word < ARRAY_LEN(two_over_pi) ? two_over_pi[word] : 0;
    u64 low = word + 1 < ARRAY_LEN(two_over_pi) ? two_over_pi[word + 1] : 0;
    u64 bits = bit ? high << bit | low >> (64 - bit) : high;

    return scalbn((f64)(bits >> 11), -53 - (i32)shift + (exponent >= 1968 ? 128 : 0));
}
