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

static f32 element(const u32 *rows, u32 lane, u32 k, enum element type, bool is_signed)
{
    u32 bits;

    switch (type) {
    case ELEMENT_F16:
        return f32_of_half(rows[k / 2 * LANES + lane] >> 16 * (k & 1));
    case ELEMENT_BF16:
        return f32_of_bf16(rows[k / 2 * LANES + lane] >> 16 * (k & 1));
    case ELEMENT_IU8:
        bits = byte_of(rows[k / 4 * LANES + lane], k & 3);
        return (f32)(is_signed ? (int8_t)bits : (i32)bits);
    default:
        bits = rows[k / 8 * LANES + lane] >> 4 * (k & 7) & 15;
        return (f32)(is_signed ? (i32)(bits ^ 8) - 8 : (i32)bits);
    }
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

/* neg_lo and neg_hi of float matrices change the sign of even and odd k. */
static void gather(struct wave *wave, const struct uop *uop, u32 n, f32 to[SIDE][SIDE])
{
    enum element type = element_of(uop->inst.op);
    bool integer = type == ELEMENT_IU8 || type == ELEMENT_IU4;
    const u32 *rows = wave->v[uop->inst.src[n] - ISA_VGPR];
    f32 even = uop->inst.neg >> n & 1 ? -1 : 1, odd = uop->inst.abs >> n & 1 ? -1 : 1;

    for (u32 i = 0; i < SIDE; i++)
        for (u32 k = 0; k < SIDE; k++) {
            to[i][k] = element(rows, i, k, type, uop->inst.neg >> n & 1);
            if (!integer)
                to[i][k] *= k & 1 ? odd : even;
            if (!integer && memcmp(rows + k / 2 * LANES + i, rows + k / 2 * LANES + i + SIDE, 4))
                wave_find(wave, "wmma-halves", "%c differs between lanes %u and %u", "AB"[n], i,
                          i + SIDE);
        }
}

/* Where C and D of (row, column) lie. */
struct place {
    u32 row, lane;
};
static struct place place_of(u32 row, u32 column)
{
    return (struct place){row / 2, column + SIDE * (row & 1)};
}

static u32 accumulator(struct wave *wave, const struct uop *uop, struct place at)
{
    const struct operand *operand = &uop->src[2];

    if (operand->source == SOURCE_VGPR)
        return wave->v[operand->reg + at.row][at.lane];
    return (u32)operand_scalar(wave, operand);
}

static u32 integer_result(const struct uop *uop, f32 a[SIDE], f32 b[SIDE], u32 c)
{
    i64 sum = (i32)c;

    for (u32 k = 0; k < SIDE; k++)
        sum += (i64)a[k] * (i64)b[k];
    if (uop->inst.clamp)
        sum = MAX(MIN(sum, INT32_MAX), INT32_MIN);
    return (u32)sum;
}

static f32 float_result(f32 a[SIDE], f32 b[SIDE], f32 c)
{
    for (u32 k = 0; k < SIDE; k++)
        c = __builtin_fmaf(a[k], b[k], c);
    return c;
}

static u32 half_result(const struct uop *uop, f32 a[SIDE], f32 b[SIDE], u32 c)
{
    bool bf16 = uop->inst.op == ISA_v_wmma_bf16_16x16x16_bf16;
    u32 shift = uop->inst.op_sel & 4 ? 16 : 0, bits = c >> shift & 0xffff;
    f32 sum = float_result(a, b, bf16 ? f32_of_bf16(bits) : f32_of_half(bits));

    bits = bf16 ? bf16_of_f32(sum) : half_of_f32(sum);
    return (c & ~(0xffffu << shift)) | bits << shift;
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
    for (u32 row = 0; row < SIDE; row++)
        for (u32 column = 0; column < SIDE; column++) {
            struct place at = place_of(row, column);
            u32 c = accumulator(wave, uop, at), d;
            if (integer)
                d = integer_result(uop, a[row], b[column], c);
            else if (half)
                d = half_result(uop, a[row], b[column], c);
            else
                d = bits_of_f32(float_result(a[row], b[column], f32_of_bits(c ^ flip)));
            result[at.row][at.lane] = d;
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
