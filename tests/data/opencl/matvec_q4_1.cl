/* A unit: 8 granules of codes, one of 8 scales, one of 8 minima. w = scale * code + min; fold.y is
 * the sum of x. Q4_K whose factors were multiplied out into such planes is this kernel too. */
#include "matvec.h"
#define FOLDS_A_UNIT 8
#define CODES_A_UNIT 8

static inline float unit_15(WEIGHTS w, CODES high, CODES low, FOLDS fold, float sum)
{
    granule scales = w[8 * 32], minima = w[9 * 32];
#pragma unroll
    for (uint b = 0; b < 8; b++) {
        granule codes = w[b * 32];
        int dot = dot_nibbles(codes, high[b]) * 128 + dot_nibbles(codes, low[b]);
        sum += half_of(scales, b) * ((float)dot * fold[b].x) + half_of(minima, b) * fold[b].y;
    }
    return sum;
}

static inline float unit_8(WEIGHTS w, CODES high, CODES low, FOLDS fold, float sum)
{
    granule scales = w[8 * 32], minima = w[9 * 32];
#pragma unroll
    for (uint b = 0; b < 8; b++)
        sum += half_of(scales, b) * ((float)dot_nibbles(w[b * 32], high[b]) * fold[b].x) +
               half_of(minima, b) * fold[b].y;
    return sum;
}

MATVEC(matvec_q4_1, unit_15, 10)
MATVEC(matvec_q4_1_int8, unit_8, 10)
