/*
 * matvec.h: y = W x for quantised weights, the frame that the matvec_*.cl share: what our own
 * compiler is measured against (docs/BENCH.md). Committed before our kernels were tuned; it stays
 * as it is.
 *
 * Weights: tiles of 32 rows; lane = row. A tile is a run of units of 8 blocks; a unit is planes of
 * 16-byte granules, [granule][lane]: all weight loads are aligned 16 bytes a lane. A code plane of b
 * bits holds in dword w the columns 4 * g + j in bits 8 * j + b * (g mod 8 / b), w = g / (8 / b).
 * Activations: 15-bit codes as two planes of bytes, code = high * 128 + low, and for each block what
 * scales and shifts its dot product: x = code * fold.x, fold.y = fold.x * zero * (sum of codes).
 * 8 waves share the columns of one tile and add up in LDS.
 */
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define WAVES 8
#define WAVE __builtin_amdgcn_readfirstlane(__builtin_amdgcn_workitem_id_x() >> 5)
#define LANE (__builtin_amdgcn_workitem_id_x() & 31)
#define TILE __builtin_amdgcn_workgroup_id_x()
/* Bytes of weights are not signed, those of activations are. */
#define DOT(w, x, sum) __builtin_amdgcn_sudot4(false, w, true, x, sum, false)
#define SDOT(w, x, sum) __builtin_amdgcn_sudot4(true, w, true, x, sum, false)
#define LOW 0x0f0f0f0fu

typedef uint granule __attribute__((ext_vector_type(4)));
typedef uint8 block_codes; /* 32 bytes: what 32 columns of one plane hold */
#define WEIGHTS __global const granule *restrict
#define CODES __global const block_codes *restrict
#define FOLDS __global const float2 *restrict

static inline float half_of(granule of, uint n)
{
    uint word = n < 2 ? of.x : n < 4 ? of.y : n < 6 ? of.z : of.w;
    return (float)as_half((ushort)(n & 1 ? word >> 16 : word));
}

static inline int byte_of(granule of, uint n)
{
    uint word = n < 4 ? of.x : n < 8 ? of.y : n < 12 ? of.z : of.w;
    return (int)(word >> (n & 3) * 8 & 0xff);
}

/* 32 nibbles a lane times 32 bytes */
static inline int dot_nibbles(granule w, block_codes x)
{
    int sum = DOT(w.x & LOW, x.s0, 0);
    sum = DOT(w.x >> 4 & LOW, x.s1, sum);
    sum = DOT(w.y & LOW, x.s2, sum);
    sum = DOT(w.y >> 4 & LOW, x.s3, sum);
    sum = DOT(w.z & LOW, x.s4, sum);
    sum = DOT(w.z >> 4 & LOW, x.s5, sum);
    sum = DOT(w.w & LOW, x.s6, sum);
    return DOT(w.w >> 4 & LOW, x.s7, sum);
}

/* 32 signed bytes a lane times 32 bytes */
static inline int dot_bytes(granule a, granule b, block_codes x)
{
    int sum = SDOT(a.x, x.s0, 0);
    sum = SDOT(a.y, x.s1, sum);
    sum = SDOT(a.z, x.s2, sum);
    sum = SDOT(a.w, x.s3, sum);
    sum = SDOT(b.x, x.s4, sum);
    sum = SDOT(b.y, x.s5, sum);
    sum = SDOT(b.z, x.s6, sum);
    return SDOT(b.w, x.s7, sum);
}

/* The waves' parts of 32 rows, added up by the first. */
static inline void store_rows(__local float *part, float sum, __global float *restrict y)
{
    uint wave = WAVE, lane = LANE;

    part[wave * 32 + lane] = sum;
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
    if (wave != 0)
        return;
    for (uint w = 1; w < WAVES; w++)
        sum += part[w * 32 + lane];
    y[TILE * 32 + lane] = sum;
}

/* A file says how many folds and how many block_codes (8 where there are two planes) a unit has.
 * unit_PLANES(w, high, low, fold, sum): one unit of 8 blocks, w at its first granule of this lane */
#define MATVEC(name, unit_sum, unit_granules)                                                      \
    __kernel __attribute__((reqd_work_group_size(WAVES * 32, 1, 1))) void name(                    \
        WEIGHTS w, CODES high, CODES low, FOLDS fold, __global float *restrict y, uint units)      \
    {                                                                                              \
        __local float part[WAVES * 32];                                                            \
        uint wave = WAVE, end = (wave + 1) * units / WAVES;                                        \
        float sum = 0;                                                                             \
        for (uint unit = wave * units / WAVES; unit < end; unit++)                                 \
            sum = unit_sum(w + (TILE * units + unit) * (unit_granules * 32) + LANE,                \
                           high + unit * CODES_A_UNIT, low + unit * CODES_A_UNIT,                  \
                           fold + unit * FOLDS_A_UNIT, sum);                                       \
        store_rows(part, sum, y);                                                                  \
    }
