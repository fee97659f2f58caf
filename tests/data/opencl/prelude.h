/*
 * prelude.h: what these kernels use instead of OpenCL's device library, which is not linked.
 */
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#pragma OPENCL EXTENSION cl_khr_fp64 : enable

#define LID __builtin_amdgcn_workitem_id_x()
#define LID_Y __builtin_amdgcn_workitem_id_y()
#define LID_Z __builtin_amdgcn_workitem_id_z()
#define GROUP __builtin_amdgcn_workgroup_id_x()
#define GROUP_Y __builtin_amdgcn_workgroup_id_y()
#define GROUP_Z __builtin_amdgcn_workgroup_id_z()
#define LANE (__builtin_amdgcn_workitem_id_x() & 31)
/* Every kernel here has groups of this size, unless it says otherwise. */
#define SIZE 64
#define GID (GROUP * SIZE + LID)

static inline void sync(void)
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

#define KERNEL __attribute__((reqd_work_group_size(SIZE, 1, 1))) __kernel void
