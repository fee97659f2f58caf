/* elementwise.cl: one item, one result: every kind of number. */
KERNEL saxpy(__global const float *x, __global float *y, float a, uint n)
{
    if (GID < n)
        y[GID] = a * x[GID] + y[GID];
}

KERNEL int_mix(__global const int *a, __global const int *b, __global int *out)
{
    int x = a[GID], y = b[GID];
    out[GID] = (x * y) ^ (x >> (y & 31)) + (x < y ? x - y : y / 3) - (x & ~y);
}

KERNEL divide(__global const int *a, __global const int *b, __global int *quotient,
              __global uint *rest)
{
    quotient[GID] = a[GID] / b[GID];
    rest[GID] = (uint)a[GID] % (uint)b[GID];
}

KERNEL long_mix(__global const long *a, __global const long *b, __global long *out)
{
    long x = a[GID], y = b[GID];
    out[GID] = x * y + (x >> (int)(y & 63)) - ((ulong)y << (int)(x & 63)) + (x < y ? x : ~y);
}

KERNEL long_divide(__global const long *a, __global const long *b, __global long *out)
{
    out[GID] = a[GID] / b[GID] + (long)((ulong)a[GID] % (ulong)b[GID]);
}

KERNEL bits(__global const uint *a, __global uint *out)
{
    uint x = a[GID];
    uint s = __builtin_popcount(x) + (x ? __builtin_clz(x) : 32) * 64 + (x ? __builtin_ctz(x) : 32) * 4096;
    out[GID] = s + __builtin_bitreverse32(x) + ((x << 7) | (x >> 25)) + ((x >> 5) & 0x3ff);
}

KERNEL doubles(__global const double *a, __global const double *b, __global double *out)
{
    double x = a[GID], y = b[GID];
    out[GID] = __builtin_fma(x, y, 1.5) - x / y + __builtin_floor(x) * (x < y ? 2.0 : -0.5);
}

KERNEL convert(__global const float *a, __global int *i, __global uchar *u, __global float *back)
{
    float x = a[GID];
    i[GID] = (int)x;
    u[GID] = (uchar)(x < 0 ? 0 : x > 255 ? 255 : (uint)x);
    back[GID] = (float)(short)(int)x + (float)(char)(int)x;
}

KERNEL halves(__global const half *a, __global const half *b, __global half *out)
{
    half x = a[GID], y = b[GID];
    out[GID] = x * y + x - (x > y ? y : (half)0.25);
}

KERNEL half_pairs(__global const half2 *a, __global const half2 *b, __global half2 *out)
{
    out[GID] = a[GID] * b[GID] + a[GID] - b[GID].yx;
}

KERNEL shorts(__global const short2 *a, __global const short2 *b, __global short2 *out)
{
    out[GID] = a[GID] * b[GID] + (a[GID] >> (b[GID] & (short2)15)) - b[GID].yx;
}

KERNEL roots(__global const float *a, __global float *out)
{
    float x = a[GID];
    out[4 * GID + 0] = __builtin_amdgcn_rcpf(x);
    out[4 * GID + 1] = __builtin_amdgcn_sqrtf(x);
    out[4 * GID + 2] = __builtin_amdgcn_exp2f(-x);
    out[4 * GID + 3] = __builtin_amdgcn_logf(x);
}

KERNEL float_divide(__global const float *a, __global const float *b, __global float *out)
{
    out[GID] = a[GID] / b[GID];
}

KERNEL median(__global const float *a, __global const float *b, __global const float *c,
              __global float *out)
{
    out[GID] = __builtin_amdgcn_fmed3f(a[GID], b[GID], c[GID]) + __builtin_fabsf(a[GID]) -
               __builtin_fminf(b[GID], c[GID]);
}
