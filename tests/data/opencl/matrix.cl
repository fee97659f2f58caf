/* matrix.cl: products, by hand and by WMMA (wave32: 16 x 16 results, one wave). */
#define TILE 16
__attribute__((reqd_work_group_size(TILE, TILE, 1))) __kernel void
gemm_tiled(__global const float *a, __global const float *b, __global float *c, uint n)
{
    __local float x[TILE][TILE], y[TILE][TILE];
    uint row = GROUP_Y * TILE + LID_Y, col = GROUP * TILE + LID;
    float sum = 0;
    for (uint k = 0; k < n; k += TILE) {
        x[LID_Y][LID] = a[row * n + k + LID];
        y[LID_Y][LID] = b[(k + LID_Y) * n + col];
        sync();
        for (uint i = 0; i < TILE; i++)
            sum += x[LID_Y][i] * y[i][LID];
        sync();
    }
    c[row * n + col] = sum;
}

KERNEL matvec(__global const float *a, __global const float *x, __global float *y, uint n)
{
    float sum = 0;
    for (uint i = 0; i < n; i++)
        sum += a[GID * n + i] * x[i];
    y[GID] = sum;
}

#define WAVE __attribute__((reqd_work_group_size(32, 1, 1))) __kernel void
typedef short short16_ __attribute__((ext_vector_type(16)));

WAVE wmma_f16(__global const half *a, __global const half *b, __global float *c)
{
    half16 x, y;
    float8 sum;
    for (uint i = 0; i < 16; i++) {
        x[i] = a[(LANE & 15) * 16 + i];
        y[i] = b[i * 16 + (LANE & 15)];
    }
    for (uint i = 0; i < 8; i++)
        sum[i] = c[(2 * i + LANE / 16) * 16 + (LANE & 15)];
    sum = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(x, y, sum);
    for (uint i = 0; i < 8; i++)
        c[(2 * i + LANE / 16) * 16 + (LANE & 15)] = sum[i];
}

WAVE wmma_bf16(__global const short *a, __global const short *b, __global float *c, uint n)
{
    float8 sum = 0;
    for (uint k = 0; k < n; k += 16) {
        short16_ x, y;
        for (uint i = 0; i < 16; i++) {
            x[i] = a[(LANE & 15) * n + k + i];
            y[i] = b[(k + i) * 16 + (LANE & 15)];
        }
        sum = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(x, y, sum);
    }
    for (uint i = 0; i < 8; i++)
        c[(2 * i + LANE / 16) * 16 + (LANE & 15)] = sum[i];
}

WAVE wmma_iu8(__global const uint *a, __global const uint *b, __global int *c)
{
    int4 x, y;
    int8 sum = 100;
    for (uint i = 0; i < 4; i++) {
        x[i] = a[(LANE & 15) * 4 + i];
        y[i] = b[(LANE & 15) * 4 + i]; /* b is given by columns */
    }
    sum = __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32(true, x, false, y, sum, false);
    for (uint i = 0; i < 8; i++)
        c[(2 * i + LANE / 16) * 16 + (LANE & 15)] = sum[i];
}

WAVE wmma_iu4(__global const uint *a, __global const uint *b, __global int *c)
{
    int2 x = {a[(LANE & 15) * 2], a[(LANE & 15) * 2 + 1]};
    int2 y = {b[(LANE & 15) * 2], b[(LANE & 15) * 2 + 1]};
    int8 sum = __builtin_amdgcn_wmma_i32_16x16x16_iu4_w32(false, x, true, y, (int8)0, false);
    for (uint i = 0; i < 8; i++)
        c[(2 * i + LANE / 16) * 16 + (LANE & 15)] = sum[i];
}
