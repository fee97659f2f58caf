/* private.cl: scratch memory, calls, loops that end at different times, what a launch is told. */
KERNEL array(__global const uint *in, __global uint *out)
{
    uint a[32];
    for (uint i = 0; i < 32; i++)
        a[i] = in[GID] * (i + 1);
    for (uint i = 0; i < 32; i++)
        a[in[(GID + i) & 1023] & 31] += i;
    uint sum = 0;
    for (uint i = 0; i < 32; i++)
        sum = sum * 31 + a[i];
    out[GID] = sum;
}

KERNEL insertion_sort(__global const int *in, __global int *out)
{
    int a[16];
    for (uint i = 0; i < 16; i++) {
        int x = in[GID * 16 + i];
        uint at = i;
        for (; at && a[at - 1] > x; at--)
            a[at] = a[at - 1];
        a[at] = x;
    }
    for (uint i = 0; i < 16; i++)
        out[GID * 16 + i] = a[i];
}

__attribute__((noinline)) static uint weigh(uint *a, uint n, __local uint *b)
{
    uint sum = 0;
    for (uint i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

KERNEL call(__global const uint *in, __global uint *out)
{
    __local uint b[8];
    uint a[8];
    if (LID < 8)
        b[LID] = LID + 3;
    for (uint i = 0; i < 8; i++)
        a[i] = in[GID] >> i;
    sync();
    out[GID] = weigh(a + (in[GID] & 1), in[GID] & 7, b);
}

/* Through a pointer that may mean LDS, scratch or a buffer. */
__attribute__((noinline)) static uint total(const uint *a)
{
    uint sum = 0;
    for (uint i = 0; i < 4; i++)
        sum = sum * 5 + a[i];
    return sum;
}

KERNEL any_memory(__global const uint *in, __global uint *out)
{
    __local uint b[SIZE + 4];
    uint a[4] = {in[GID], GID, 7, in[GID] ^ 9};
    b[LID] = in[GID];
    if (LID < 4)
        b[SIZE + LID] = LID;
    sync();
    out[GID] = total(GID & 1 ? (const uint *)a : (const uint *)(b + LID)) + total((const uint *)in);
}

KERNEL collatz(__global const uint *in, __global uint *out)
{
    uint x = in[GID], steps = 0;
    while (x != 1) {
        x = x & 1 ? 3 * x + 1 : x / 2;
        steps++;
    }
    out[GID] = steps;
}

KERNEL mandelbrot(__global uint *out, uint width, float scale)
{
    float cx = (float)(GID % width) * scale - 2.0f, cy = (float)(GID / width) * scale - 1.0f;
    float x = 0, y = 0;
    uint n = 0;
    for (; n < 100 && x * x + y * y < 4.0f; n++) {
        float t = x * x - y * y + cx;
        y = 2 * x * y + cy;
        x = t;
    }
    out[GID] = n;
}

KERNEL crc(__global const uchar *in, __global uint *out)
{
    uint x = ~0u;
    for (uint i = 0; i < 16; i++) {
        x ^= in[GID * 16 + i];
        for (uint k = 0; k < 8; k++)
            x = x >> 1 ^ (x & 1 ? 0xedb88320u : 0);
    }
    out[GID] = ~x;
}

KERNEL branches(__global const uint *in, __global uint *out)
{
    uint x = in[GID], y = 0;
    switch (x & 7) {
    case 0: y = x * 3; break;
    case 1: y = x ^ 0x55; break;
    case 2: y = x >> 3;
    case 3: y += 11; break;
    case 5: for (uint i = 0; i < (x & 15); i++) y += i * x; break;
    case 6: y = __builtin_popcount(x); break;
    default: y = ~x;
    }
    out[GID] = y;
}

constant uint table[16] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53};
global uint counter[4] = {10, 20, 30, 40};

KERNEL tables(__global const uint *in, __global uint *out)
{
    out[GID] = table[in[GID] & 15] * counter[in[GID] >> 4 & 3];
}

/* Groups that are not full, in three dimensions; what the launch says of itself. */
__kernel void launch(__global uint *out, uint nx, uint ny)
{
    uint sx = __builtin_amdgcn_workgroup_size_x(), sy = __builtin_amdgcn_workgroup_size_y();
    constant uint *hidden = (constant uint *)__builtin_amdgcn_implicitarg_ptr();
    constant ushort *sizes = (constant ushort *)hidden;
    uint x = GROUP * sizes[6] + LID, y = GROUP_Y * sizes[7] + LID_Y, z = GROUP_Z * sizes[8] + LID_Z;
    out[(z * ny + y) * nx + x] = sx + sy * 100 + hidden[0] * 10000 + sizes[9] * 1000000 +
                                 __builtin_amdgcn_grid_size_x() * 10000000u + sizes[32] * 7;
}
