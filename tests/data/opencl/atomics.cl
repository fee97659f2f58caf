/* atomics.cl: many items at one place. */
#define ATOMIC(op, at, value) __opencl_atomic_fetch_##op((at), (value), memory_order_relaxed, \
                                                         memory_scope_device)
KERNEL histogram(__global const uchar *in, volatile __global atomic_uint *bins)
{
    __local atomic_uint part[256];
    for (uint i = LID; i < 256; i += SIZE)
        __opencl_atomic_store(&part[i], 0, memory_order_relaxed, memory_scope_work_group);
    sync();
    for (uint i = 0; i < 16; i++)
        __opencl_atomic_fetch_add(&part[in[GID * 16 + i]], 1, memory_order_relaxed,
                                  memory_scope_work_group);
    sync();
    for (uint i = LID; i < 256; i += SIZE)
        ATOMIC(add, &bins[i], __opencl_atomic_load(&part[i], memory_order_relaxed,
                                                   memory_scope_work_group));
}

KERNEL compact(__global const int *in, __global int *out, volatile __global atomic_uint *count)
{
    int x = in[GID];
    if (x > 0)
        out[ATOMIC(add, count, 1u)] = x;
}

KERNEL extremes(__global const int *in, volatile __global atomic_int *out,
                volatile __global atomic_uint *bits)
{
    ATOMIC(min, &out[0], in[GID]);
    ATOMIC(max, &out[1], in[GID]);
    ATOMIC(sub, &out[2], in[GID]);
    ATOMIC(or, &bits[0], (uint)in[GID]);
    ATOMIC(and, &bits[1], (uint)in[GID]);
    ATOMIC(xor, &bits[2], (uint)in[GID]);
}

KERNEL locked(__global const int *in, volatile __global atomic_int *out)
{
    for (uint lane = 0; lane < SIZE; lane++)
        if (lane == LID) {
            int old = __opencl_atomic_load(out, memory_order_relaxed, memory_scope_device);
            while (!__opencl_atomic_compare_exchange_strong(
                out, &old, old * 3 + in[GID], memory_order_relaxed, memory_order_relaxed,
                memory_scope_device))
                ;
        }
}

KERNEL add_floats(__global const float *in, volatile __global float *out)
{
    __builtin_amdgcn_global_atomic_fadd_f32((__global float *)out + (GID & 3), in[GID]);
}

KERNEL add_longs(__global const ulong *in, volatile __global atomic_ulong *out)
{
    ATOMIC(add, out, in[GID]);
    ATOMIC(max, out + 1, in[GID]);
}

KERNEL ticket(__global uint *order, volatile __global atomic_uint *next)
{
    order[ATOMIC(add, next, 1u)] = GID;
}

KERNEL wrap(volatile __global uint *out, __global uint *seen)
{
    seen[GID] = __builtin_amdgcn_atomic_inc32((volatile __global uint *)out, 9, __ATOMIC_RELAXED,
                                              "agent");
}
