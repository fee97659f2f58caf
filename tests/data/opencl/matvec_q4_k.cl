/* A unit is one super block of 256: 8 granules of codes, one with 8 byte factors of the scale and 8
 * of the minimum, one with scale and minimum (f16) and 12 unused bytes.
 * w = scale * factor * code - min * factor; fold.y is the sum of x. */
#include "matvec.h"
#define FOLDS_A_UNIT 8
#define CODES_A_UNIT 8

static inline float unit_15(WEIGHTS w, CODES high, CODES low, FOLDS fold, float sum)
{
    granule factors = w[8 * 32], super = w[9 * 32];
    float scaled = 0, shifted = 0;
#pragma unroll
    for (uint b = 0; b < 8; b++) {
        granule codes = w[b * 32];
        int dot = dot_nibbles(codes, high[b]) * 128 + dot_nibbles(codes, low[b]);
        scaled += (float)byte_of(factors, b) * ((float)dot * fold[b].x);
        shifted += (float)byte_of(factors, 8 + b) * fold[b].y;
    }
    return sum + half_of(super, 0) * scaled - half_of(super, 1) * shifted;
}

static inline float unit_8(WEIGHTS w, CODES high, CODES low, FOLDS fold, float sum)
{
    granule factors = w[8 * 32], super = w[9 * 32];
    float scaled = 0, shifted = 0;
#pragma unroll
    for (uint b = 0; b < 8; b++) {
        scaled += (float)byte_of(factors, b) * ((float)dot_nibbles(w[b * 32], high[b]) * fold[b].x);
        shifted += (float)byte_of(factors, 8 + b) * fold[b].y;
    }
    return sum + half_of(super, 0) * scaled - half_of(super, 1) * shifted;
}

MATVEC(matvec_q4_k, unit_15, 10)
MATVEC(matvec_q4_k_int8, unit_8, 10)
