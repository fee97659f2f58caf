/* A unit: 16 granules of signed codes, two a block, one of 8 scales. w = scale * code; fold.y is not
 * used. */
#include "matvec.h"
#define FOLDS_A_UNIT 8
#define CODES_A_UNIT 8

static inline float unit_15(WEIGHTS w, CODES high, CODES low, FOLDS fold, float sum)
{
    granule scales = w[16 * 32];
#pragma unroll
    for (uint b = 0; b < 8; b++) {
        granule first = w[2 * b * 32], second = w[(2 * b + 1) * 32];
        int dot = dot_bytes(first, second, high[b]) * 128 + dot_bytes(first, second, low[b]);
        sum += half_of(scales, b) * ((float)dot * fold[b].x);
    }
    return sum;
}

static inline float unit_8(WEIGHTS w, CODES high, CODES low, FOLDS fold, float sum)
{
    granule scales = w[16 * 32];
#pragma unroll
    for (uint b = 0; b < 8; b++)
        sum += half_of(scales, b) *
               ((float)dot_bytes(w[2 * b * 32], w[(2 * b + 1) * 32], high[b]) * fold[b].x);
    return sum;
}

MATVEC(matvec_q8_0, unit_15, 17)
MATVEC(matvec_q8_0_int8, unit_8, 17)
