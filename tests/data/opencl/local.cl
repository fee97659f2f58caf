/* local.cl: LDS, barriers, sorting. */
#define TILE 16
__attribute__((reqd_work_group_size(TILE, TILE, 1))) __kernel void
transpose(__global const float *in, __global float *out, uint n)
{
    __local float tile[TILE][TILE + 1];
    tile[LID_Y][LID] = in[(GROUP_Y * TILE + LID_Y) * n + GROUP * TILE + LID];
    sync();
    out[(GROUP * TILE + LID_Y) * n + GROUP_Y * TILE + LID] = tile[LID][LID_Y];
}

KERNEL bitonic(__global const int *in, __global int *out)
{
    __local int a[2 * SIZE];
    a[LID] = in[GROUP * 2 * SIZE + LID];
    a[LID + SIZE] = in[GROUP * 2 * SIZE + LID + SIZE];
    for (uint k = 2; k <= 2 * SIZE; k <<= 1)
        for (uint j = k >> 1; j; j >>= 1) {
            uint i = 2 * j * (LID / j) + LID % j;
            sync();
            int x = a[i], y = a[i + j];
            if ((x > y) == !(i & k)) {
                a[i] = y;
                a[i + j] = x;
            }
        }
    sync();
    out[GROUP * 2 * SIZE + LID] = a[LID];
    out[GROUP * 2 * SIZE + LID + SIZE] = a[LID + SIZE];
}

KERNEL prefix_sum(__global const uint *in, __global uint *out)
{
    __local uint a[2][SIZE];
    uint from = 0;
    a[0][LID] = in[GID];
    for (uint step = 1; step < SIZE; step <<= 1) {
        sync();
        a[1 - from][LID] = a[from][LID] + (LID >= step ? a[from][LID - step] : 0);
        from = 1 - from;
    }
    out[GID] = a[from][LID];
}

KERNEL rank_sort(__global const float *in, __global float *out)
{
    __local float a[SIZE];
    uint rank = 0;
    a[LID] = in[GID];
    sync();
    for (uint i = 0; i < SIZE; i++)
        rank += a[i] < a[LID] || (a[i] == a[LID] && i < LID);
    out[GROUP * SIZE + rank] = a[LID];
}

KERNEL radix_pass(__global const uint *in, __global uint *out, uint shift)
{
    __local uint count[16][SIZE];
    uint key = in[GID], digit = key >> shift & 15, at = 0;
    for (uint d = 0; d < 16; d++)
        count[d][LID] = d == digit;
    sync();
    for (uint d = 0; d < 16; d++)
        for (uint i = 0; i < SIZE; i++)
            if (d < digit || (d == digit && i < LID))
                at += count[d][i];
    out[GROUP * SIZE + at] = key;
}

KERNEL given(__global const uint *in, __local uint *a, __local uchar *b, __global uint *out)
{
    a[LID] = in[GID];
    b[LID] = (uchar)(in[GID] >> 8);
    sync();
    out[GID] = a[SIZE - 1 - LID] * 3 + b[LID ^ 5];
}

KERNEL wide(__global const uint4 *in, __global uint4 *out)
{
    __local uint4 a[SIZE];
    __local ulong b[SIZE];
    a[LID] = in[GID];
    b[LID] = (ulong)in[GID].x << 32 | in[GID].w;
    sync();
    ulong x = b[LID ^ 3];
    out[GID] = a[LID ^ 1] + (uint4)((uint)x, (uint)(x >> 32), 1, 2);
}

KERNEL life(__global const uchar *in, __global uchar *out)
{
    __local uchar cell[SIZE + 2][SIZE + 2];
    for (uint y = 0; y < SIZE + 2; y++)
        for (uint x = LID; x < SIZE + 2; x += SIZE)
            cell[y][x] = x && y && x <= SIZE && y <= SIZE ? in[(y - 1) * SIZE + x - 1] : 0;
    sync();
    for (uint y = 1; y <= SIZE; y++) {
        uint x = LID + 1, n = 0;
        for (int dy = -1; dy <= 1; dy++)
            for (int dx = -1; dx <= 1; dx++)
                n += cell[y + dy][x + dx];
        n -= cell[y][x];
        out[(y - 1) * SIZE + LID] = n == 3 || (n == 2 && cell[y][x]);
    }
}
