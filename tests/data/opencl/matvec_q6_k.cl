/* A unit is one super block of 256: 8 granules of low nibbles, 4 of the two high bits, one with 16
 * signed byte factors, one with the scale (f16) and 14 unused bytes. Two sub-blocks of 16 to a block
 * of activations. w = scale * factor * (code - 32); fold.y (of each 16) has the 32. */
#include "matvec.h"
#define FOLDS_A_UNIT 16
#define CODES_A_UNIT 8

static inline uint code_of(uint low, uint high, uint g)
{
    return (g & 1 ? low >> 4 & LOW : low & LOW) | (high >> 2 * (g & 3) & 0x03030303u) << 4;
}

/* 16 columns a lane: four dwords of codes out of two of nibbles and one of high bits */
static inline int dot_six(uint low0, uint low1, uint high, uint4 x)
{
    int sum = DOT(code_of(low0, high, 0), x.s0, 0);
    sum = DOT(code_of(low0, high, 1), x.s1, sum);
    sum = DOT(code_of(low1, high, 2), x.s2, sum);
    return DOT(code_of(low1, high, 3), x.s3, sum);
}

static inline float sub_block(int dot, int factor, float2 fold)
{
    return (float)factor * ((float)dot * fold.x - fold.y);
}

static inline float unit_15(WEIGHTS w, CODES high, CODES low, FOLDS fold, float sum)
{
    granule factors = w[12 * 32], super = w[13 * 32];
    float scaled = 0;
#pragma unroll
    for (uint b = 0; b < 8; b++) {
        granule codes = w[b * 32], bits = w[(8 + b / 2) * 32];
        uint first = b & 1 ? bits.z : bits.x, second = b & 1 ? bits.w : bits.y;
        int one = dot_six(codes.x, codes.y, first, high[b].lo) * 128 +
                  dot_six(codes.x, codes.y, first, low[b].lo);
        int two = dot_six(codes.z, codes.w, second, high[b].hi) * 128 +
                  dot_six(codes.z, codes.w, second, low[b].hi);
        scaled += sub_block(one, (char)byte_of(factors, 2 * b), fold[2 * b]);
        scaled += sub_block(two, (char)byte_of(factors, 2 * b + 1), fold[2 * b + 1]);
    }
    return sum + half_of(super, 0) * scaled;
}

static inline float unit_8(WEIGHTS w, CODES high, CODES low, FOLDS fold, float sum)
{
    granule factors = w[12 * 32], super = w[13 * 32];
    float scaled = 0;
#pragma unroll
    for (uint b = 0; b < 8; b++) {
        granule codes = w[b * 32], bits = w[(8 + b / 2) * 32];
        uint first = b & 1 ? bits.z : bits.x, second = b & 1 ? bits.w : bits.y;
        int one = dot_six(codes.x, codes.y, first, high[b].lo);
        int two = dot_six(codes.z, codes.w, second, high[b].hi);
        scaled += sub_block(one, (char)byte_of(factors, 2 * b), fold[2 * b]);
        scaled += sub_block(two, (char)byte_of(factors, 2 * b + 1), fold[2 * b + 1]);
    }
    return sum + half_of(super, 0) * scaled;
}

MATVEC(matvec_q6_k, unit_15, 14)
MATVEC(matvec_q6_k_int8, unit_8, 14)
