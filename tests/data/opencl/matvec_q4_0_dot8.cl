/* For information: Q4_0 as in matvec_q4_0.cl with the activations' 16-bit codes in four planes of
 * nibbles, the top one signed, in the order of the weights' nibbles: `high` holds the four planes
 * block after block, `low` is not used. A product of nibbles needs no unpacking. */
#include "matvec.h"
#define FOLDS_A_UNIT 8
#define CODES_A_UNIT 16
#define DOT8(w, x, sum) __builtin_amdgcn_sudot8(false, w, false, x, sum, false)
#define DOT8_TOP(w, x, sum) __builtin_amdgcn_sudot8(false, w, true, x, sum, false)

static inline int dot_plane(granule w, uint4 x)
{
    return DOT8(w.w, x.w, DOT8(w.z, x.z, DOT8(w.y, x.y, DOT8(w.x, x.x, 0))));
}

static inline int dot_top(granule w, uint4 x)
{
    return DOT8_TOP(w.w, x.w, DOT8_TOP(w.z, x.z, DOT8_TOP(w.y, x.y, DOT8_TOP(w.x, x.x, 0))));
}

static inline float unit_16(WEIGHTS w, CODES high, CODES low, FOLDS fold, float sum)
{
    granule scales = w[8 * 32];
#pragma unroll
    for (uint b = 0; b < 8; b++) {
        granule codes = w[b * 32];
        int dot = dot_top(codes, high[2 * b].lo);
        dot = dot * 16 + dot_plane(codes, high[2 * b].hi);
        dot = dot * 16 + dot_plane(codes, high[2 * b + 1].lo);
        dot = dot * 16 + dot_plane(codes, high[2 * b + 1].hi);
        sum += half_of(scales, b) * ((float)dot * fold[b].x - fold[b].y);
    }
    return sum;
}

MATVEC(matvec_q4_0_dot8, unit_16, 9)
