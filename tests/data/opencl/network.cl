/* network.cl: what a language model is made of. */
static inline float wave_sum(float x)
{
    for (int mask = 16; mask; mask >>= 1)
        x += as_float(__builtin_amdgcn_ds_bpermute((LANE ^ mask) << 2, as_int(x)));
    return x;
}

static inline float wave_max(float x)
{
    for (int mask = 16; mask; mask >>= 1)
        x = __builtin_fmaxf(
            x, as_float(__builtin_amdgcn_ds_bpermute((LANE ^ mask) << 2, as_int(x))));
    return x;
}

#define WAVE __attribute__((reqd_work_group_size(32, 1, 1))) __kernel void

WAVE softmax(__global const float *in, __global float *out, uint n)
{
    float most = -__builtin_inff(), sum = 0;
    in += GROUP * n;
    out += GROUP * n;
    for (uint i = LANE; i < n; i += 32)
        most = __builtin_fmaxf(most, in[i]);
    most = wave_max(most);
    for (uint i = LANE; i < n; i += 32)
        sum += __builtin_amdgcn_exp2f((in[i] - most) * 1.44269504f);
    sum = wave_sum(sum);
    for (uint i = LANE; i < n; i += 32)
        out[i] = __builtin_amdgcn_exp2f((in[i] - most) * 1.44269504f) / sum;
}

WAVE rms_norm(__global const float *in, __global const float *weight, __global float *out, uint n)
{
    float sum = 0;
    in += GROUP * n;
    for (uint i = LANE; i < n; i += 32)
        sum += in[i] * in[i];
    sum = __builtin_amdgcn_rsqf(wave_sum(sum) / n + 1e-5f);
    for (uint i = LANE; i < n; i += 32)
        out[GROUP * n + i] = in[i] * sum * weight[i];
}

KERNEL silu(__global const float *gate, __global const float *up, __global float *out)
{
    float x = gate[GID];
    out[GID] = x / (1 + __builtin_amdgcn_exp2f(-1.44269504f * x)) * up[GID];
}

KERNEL rope(__global float2 *x, float step)
{
    float turns = step * GID;
    float s = __builtin_amdgcn_sinf(turns), c = __builtin_amdgcn_cosf(turns);
    float2 v = x[GID];
    x[GID] = (float2)(v.x * c - v.y * s, v.x * s + v.y * c);
}

struct q4 {
    half scale;
    uchar pair[16];
};

KERNEL dequantize(__global const struct q4 *in, __global float *out)
{
    for (uint i = 0; i < 16; i++) {
        out[GID * 32 + i] = ((in[GID].pair[i] & 15) - 8) * (float)in[GID].scale;
        out[GID * 32 + 16 + i] = ((in[GID].pair[i] >> 4) - 8) * (float)in[GID].scale;
    }
}

KERNEL mixed(__global const half *a, __global const half *b, __global const float *c,
             __global float *out)
{
    out[GID] = (float)a[GID] * (float)b[GID] + c[GID];
}

__attribute__((reqd_work_group_size(8, 4, 2))) __kernel void
convolve(__global const float *in, __constant float *filter, __global float *out, uint3 size)
{
    uint x = GROUP * 8 + LID, y = GROUP_Y * 4 + LID_Y, z = GROUP_Z * 2 + LID_Z;
    float sum = 0;
    for (uint j = 0; j < 3; j++)
        for (uint i = 0; i < 3; i++)
            sum += in[(z * (size.y + 2) + y + j) * (size.x + 2) + x + i] * filter[j * 3 + i];
    out[(z * size.y + y) * size.x + x] = sum;
}
