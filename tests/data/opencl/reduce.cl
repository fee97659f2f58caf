/* reduce.cl: many items, one result. */
KERNEL sum_tree(__global const float *in, __global float *out)
{
    __local float part[SIZE];
    part[LID] = in[GID];
    sync();
    for (uint step = SIZE / 2; step; step >>= 1) {
        if (LID < step)
            part[LID] += part[LID + step];
        sync();
    }
    if (LID == 0)
        out[GROUP] = part[0];
}

#define DPP(value, ctrl) __builtin_amdgcn_update_dpp(0, value, ctrl, 15, 15, 1)

KERNEL sum_dpp(__global const int *in, __global int *out)
{
    int x = in[GID];
    x += DPP(x, 0x111); /* row_shr:1 */
    x += DPP(x, 0x112);
    x += DPP(x, 0x114);
    x += DPP(x, 0x118);
    out[GID] = x; /* inclusive sums over rows of 16 */
}

KERNEL max_cross(__global const int *in, __global int *out)
{
    int x = in[GID], y;
    y = DPP(x, 0xb1); /* quad_perm [1,0,3,2] */
    x = x > y ? x : y;
    y = DPP(x, 0x4e); /* quad_perm [2,3,0,1] */
    x = x > y ? x : y;
    y = DPP(x, 0x141); /* row_half_mirror */
    x = x > y ? x : y;
    y = DPP(x, 0x140); /* row_mirror */
    x = x > y ? x : y;
    y = __builtin_amdgcn_permlanex16(x, x, 0x76543210, 0xfedcba98, 0, 0);
    x = x > y ? x : y;
    out[GID] = x; /* of the wave's 32, in every lane */
}

KERNEL sum_permute(__global const int *in, __global int *out)
{
    int x = in[GID];
    for (int mask = 16; mask; mask >>= 1)
        x += __builtin_amdgcn_ds_bpermute((LANE ^ mask) << 2, x);
    out[GID] = x;
}

KERNEL swizzle(__global const int *in, __global int *out)
{
    int x = in[GID];
    x += 3 * __builtin_amdgcn_ds_swizzle(x, 0x041f); /* swap neighbours */
    x += 5 * __builtin_amdgcn_mov_dpp8(x, 0x53977 & 0xffffff);
    out[GID] = x + 7 * __builtin_amdgcn_permlane16(0, x, 0x01234567, 0x89abcdef, 0, 0);
}

KERNEL dot_product(__global const float4 *a, __global const float4 *b, __global float *out)
{
    __local float part[SIZE];
    float4 p = a[GID] * b[GID];
    part[LID] = p.x + p.y + p.z + p.w;
    sync();
    if (LID < 8) {
        float s = 0;
        for (uint i = 0; i < SIZE / 8; i++)
            s += part[LID * (SIZE / 8) + i];
        out[GROUP * 8 + LID] = s;
    }
}

KERNEL arg_max(__global const float *in, __global uint *out)
{
    __local float best[SIZE];
    __local uint where[SIZE];
    best[LID] = in[GID];
    where[LID] = GID;
    sync();
    for (uint step = SIZE / 2; step; step >>= 1) {
        if (LID < step && best[LID + step] > best[LID]) {
            best[LID] = best[LID + step];
            where[LID] = where[LID + step];
        }
        sync();
    }
    if (!LID)
        out[GROUP] = where[0];
}

KERNEL vote(__global const int *in, __global uint *out)
{
    uint mask = __builtin_amdgcn_ballot_w32(in[GID] > 0);
    uint before = __builtin_amdgcn_mbcnt_lo(mask, 0);
    uint first = __builtin_amdgcn_readfirstlane(in[GID]);
    uint ninth = __builtin_amdgcn_readlane(in[GID], 9);
    out[GID] = __builtin_popcount(mask) * 1000 + before + first * 7 + ninth * 13;
}

KERNEL dot4(__global const uint *a, __global const uint *b, __global int *out)
{
    out[2 * GID] = __builtin_amdgcn_sudot4(true, a[GID], true, b[GID], 5, false);
    out[2 * GID + 1] = __builtin_amdgcn_udot4(a[GID], b[GID], 7, false) +
                       __builtin_amdgcn_sudot8(true, a[GID], false, b[GID], 0, false);
}

KERNEL dot2(__global const half2 *a, __global const half2 *b, __global float *out)
{
    out[GID] = __builtin_amdgcn_fdot2(a[GID], b[GID], 0.5f, false);
}
