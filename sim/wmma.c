/*
 * wmma.c: D = A x B + C on 16 x 16 matrices over a wave of 32 lanes.
 * Layout of gfx11 (AMD, "How to accelerate AI applications on RDNA 3 using WMMA"): lane l holds row
 * l % 16 of A and column l % 16 of B, both halves of the wave the same; C and D: register r of lane
 * l is row 2 r + l / 16, column l % 16; 16-bit C and D use one half of a register, by op_sel.
 */
#include <string.h>

#include "sim/lane_math.h"
#include "sim/wave.h"

#define SIDE 16u

enum element { ELEMENT_F16, ELEMENT_BF16, ELEMENT_IU8, ELEMENT_IU4 };

/* One k of all rows or columns, out of the words that hold it at `shift`. */
static void floats_gather(const u32 *words, u32 shift, bool bf16, f32 to[SIDE])
{
    u16 bits[SIDE];

    for (u32 i = 0; i < SIDE; i++)
        bits[i] = (u16)(words[i] >> shift);
    for (u32 i = 0; i < SIDE && bf16; i++)
        to[i] = f32_of_bf16(bits[i]);
    for (u32 i = 0; i < SIDE && !bf16; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(bits + i))));
}

static void integers_gather(const u32 *words, u32 shift, u32 mask, bool is_signed, f32 to[SIDE])
{
    i32 sign = is_signed ? (i32)(mask + 1) / 2 : 0;

    for (u32 i = 0; i < SIDE; i++)
        to[i] = (f32)(((i32)(words[i] >> shift & mask) ^ sign) - sign);
}

static enum element element_of(u32 op)
{
    switch (op) {
    case ISA_v_wmma_f32_16x16x16_f16:
    case ISA_v_wmma_f16_16x16x16_f16:
        return ELEMENT_F16;
    case ISA_v_wmma_i32_16x16x16_iu8:
        return ELEMENT_IU8;
    case ISA_v_wmma_i32_16x16x16_iu4:
        return ELEMENT_IU4;
    default:
        return ELEMENT_BF16;
    }
}

/* A strict wave's halves must hold the same. */
static void compare_halves(struct wave *wave, const u32 *rows, u32 n)
{
    for (u32 k = 0; k < SIDE / 2; k++)
        for (u32 i = 0; i < SIDE; i++)
            if (rows[k * LANES + i] != rows[k * LANES + i + SIDE])
                wave_find(wave, "wmma-halves", "%c differs between lanes %u and %u", "AB"[n], i,
                          i + SIDE);
}

/* By k, then by row of A or column of B: what stands beside each other is computed at once. neg_lo
 * and neg_hi of float matrices change the sign of even and odd k. */
static void gather(struct wave *wave, const struct uop *uop, u32 n, f32 to[SIDE][SIDE])
{
    enum element type = element_of(uop->inst.op);
    bool integer = type == ELEMENT_IU8 || type == ELEMENT_IU4, is_signed = uop->inst.neg >> n & 1;
    const u32 *rows = wave->v[uop->inst.src[n] - ISA_VGPR];

    if (wave->strict && !integer)
        compare_halves(wave, rows, n);
    for (u32 k = 0; k < SIDE; k++) {
        u32 bits = type == ELEMENT_IU4 ? 4 : type == ELEMENT_IU8 ? 8 : 16, at = k * bits;
        u32 negative = k & 1 ? uop->inst.abs : uop->inst.neg;
        const u32 *words = rows + at / 32 * LANES;
        if (integer)
            integers_gather(words, at % 32, (1u << bits) - 1, is_signed, to[k]);
        else
            floats_gather(words, at % 32, type == ELEMENT_BF16, to[k]);
        for (u32 i = 0; i < SIDE && !integer && negative >> n & 1; i++)
            to[k][i] = -to[k][i];
    }
}

/* C and D: where the columns of a row lie; those of a register follow each other. */
static u32 *row_of(lanes *registers, u32 row)
{
    return &registers[row / 2][SIDE * (row & 1)];
}

static void accumulators(struct wave *wave, const struct uop *uop, lanes to[8])
{
    const struct operand *operand = &uop->src[2];

    if (operand->source == SOURCE_VGPR) {
        memcpy(to, wave->v[operand->reg], 8 * sizeof(lanes));
        return;
    }
    u32 value = (u32)operand_scalar(wave, operand);
    for (u32 r = 0; r < 8; r++)
        VECTOR_LOOP to[r][i] = value;
}

static void integer_row(const struct uop *uop, u32 row, f32 a[SIDE][SIDE], f32 b[SIDE][SIDE],
                        u32 *c)
{
    i32 sum[SIDE] = {};

    for (u32 k = 0; k < SIDE; k++)
        for (u32 i = 0; i < SIDE; i++)
            sum[i] += (i32)a[k][row] * (i32)b[k][i];
    for (u32 i = 0; i < SIDE; i++) {
        i64 wide = (i64)sum[i] + (i32)c[i];
        c[i] = (u32)(uop->inst.clamp ? MAX(MIN(wide, INT32_MAX), INT32_MIN) : wide);
    }
}

static void float_row(u32 row, f32 a[SIDE][SIDE], f32 b[SIDE][SIDE], f32 sum[SIDE])
{
    for (u32 k = 0; k < SIDE; k++)
        for (u32 i = 0; i < SIDE; i++)
            sum[i] = __builtin_fmaf(a[k][row], b[k][i], sum[i]);
}

static void half_row(const struct uop *uop, u32 row, f32 a[SIDE][SIDE], f32 b[SIDE][SIDE], u32 *c)
{
    bool bf16 = uop->inst.op == ISA_v_wmma_bf16_16x16x16_bf16;
    u32 shift = uop->inst.op_sel & 4 ? 16 : 0;
    f32 sum[SIDE];

    for (u32 i = 0; i < SIDE; i++) {
        u32 bits = c[i] >> shift & 0xffff;
        sum[i] = bf16 ? f32_of_bf16(bits) : f32_of_half(bits);
    }
    float_row(row, a, b, sum);
    for (u32 i = 0; i < SIDE; i++) {
        u32 bits = bf16 ? bf16_of_f32(sum[i]) : half_of_f32(sum[i]);
        c[i] = (c[i] & ~(0xffffu << shift)) | bits << shift;
    }
}

static void single_row(u32 flip, u32 row, f32 a[SIDE][SIDE], f32 b[SIDE][SIDE], u32 *c)
{
    f32 sum[SIDE];

    for (u32 i = 0; i < SIDE; i++)
        sum[i] = f32_of_bits(c[i] ^ flip);
    float_row(row, a, b, sum);
    for (u32 i = 0; i < SIDE; i++)
        c[i] = bits_of_f32(sum[i]);
}

static void run_wmma(struct wave *wave, const struct uop *uop)
{
    u32 op = uop->inst.op, flip = uop->inst.neg & 4 ? 1u << 31 : 0;
    f32 a[SIDE][SIDE], b[SIDE][SIDE];
    lanes result[8];
    bool integer = op == ISA_v_wmma_i32_16x16x16_iu8 || op == ISA_v_wmma_i32_16x16x16_iu4;
    bool half = op == ISA_v_wmma_f16_16x16x16_f16 || op == ISA_v_wmma_bf16_16x16x16_bf16;

    if (wave->EXEC != LANES_ALL)
        wave_find(wave, "wmma-exec", "exec is %x", wave->EXEC);
    gather(wave, uop, 0, a);
    gather(wave, uop, 1, b);
    accumulators(wave, uop, result);
    for (u32 row = 0; row < SIDE; row++) {
        u32 *c = row_of(result, row);
        if (integer)
            integer_row(uop, row, a, b, c);
        else if (half)
            half_row(uop, row, a, b, c);
        else
            single_row(flip, row, a, b, c);
    }
    memcpy(wave->v[uop->inst.dst - ISA_VGPR], result, sizeof result);
}

bool wmma_decode(struct uop *uop)
{
    u32 op = uop->inst.op;

    uop->class = CLASS_WMMA;
    uop->run = run_wmma;
    operand_decode(uop, 0, TYPE_bytes);
    operand_decode(uop, 1, TYPE_bytes);
    operand_decode(uop, 2, op == ISA_v_wmma_i32_16x16x16_iu8 ? TYPE_u32 : TYPE_f32);
    return op >= ISA_v_wmma_f32_16x16x16_f16 && op <= ISA_v_wmma_i32_16x16x16_iu4 &&
           uop->src[0].source == SOURCE_VGPR && uop->src[1].source == SOURCE_VGPR;
}
