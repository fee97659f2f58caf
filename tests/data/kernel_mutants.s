; A workgroup of four waves reverses 128 words through LDS and adds 1. Each mutant below replaces one
; place of it (;- by ;+) and must be caught by one of the findings behind its name.
	.amdgcn_target "amdgcn-amd-amdhsa--gfx1100"
	.amdhsa_code_object_version 5
	.text
	.globl reverse
	.p2align 8
	.type reverse,@function
reverse:
	s_load_b128 s[4:7], s[0:1], 0x0
	v_and_b32 v0, 0x3ff, v0
	v_lshlrev_b32 v1, 2, v0
	s_lshl_b32 s2, s2, 9
	v_add_nc_u32 v2, s2, v1
	v_sub_nc_u32 v3, 0x1fc, v1
	s_waitcnt lgkmcnt(0)
	global_load_b32 v4, v2, s[4:5]
	s_waitcnt vmcnt(0)
	v_add_nc_u32 v4, 1, v4
	ds_store_b32 v1, v4
	s_waitcnt lgkmcnt(0)
	s_barrier
	buffer_gl0_inv
	ds_load_b32 v5, v3
	s_waitcnt lgkmcnt(0)
	global_store_b32 v2, v5, s[6:7]
	s_nop 0
	s_endpgm
.Lend:
	.size reverse, .Lend-reverse
	.rodata
	.p2align 6
	.amdhsa_kernel reverse
		.amdhsa_group_segment_fixed_size 512
		.amdhsa_kernarg_size 16
		.amdhsa_user_sgpr_kernarg_segment_ptr 1
		.amdhsa_user_sgpr_count 2
		.amdhsa_system_sgpr_workgroup_id_x 1
		.amdhsa_next_free_vgpr 8
		.amdhsa_next_free_sgpr 16
		.amdhsa_wavefront_size32 1
	.end_amdhsa_kernel
	.amdgpu_metadata
---
amdhsa.kernels:
  - .name: reverse
    .symbol: reverse.kd
    .kernarg_segment_size: 16
    .kernarg_segment_align: 8
    .group_segment_fixed_size: 512
    .private_segment_fixed_size: 0
    .wavefront_size: 32
    .sgpr_count: 16
    .vgpr_count: 8
    .max_flat_workgroup_size: 128
    .args:
      - {.size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global}
      - {.size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global}
amdhsa.version: [1, 2]
...
	.end_amdgpu_metadata
;@ no wait for a load = read-before-wait
;-	s_waitcnt vmcnt(0)
;+	s_nop 0
;@ a count too high = read-before-wait
;-	s_waitcnt vmcnt(0)
;+	s_waitcnt vmcnt(1)
;@ the wrong counter = read-before-wait
;-	s_waitcnt vmcnt(0)
;+	s_waitcnt lgkmcnt(0)
;@ no wait for scalars = read-before-wait
;-	v_sub_nc_u32 v3, 0x1fc, v1
;-	s_waitcnt lgkmcnt(0)
;+	v_sub_nc_u32 v3, 0x1fc, v1
;@ no barrier = lds-race
;-	s_barrier
;+	s_nop 0
;@ read before the barrier = lds-race
;-	s_barrier
;-	buffer_gl0_inv
;-	ds_load_b32 v5, v3
;+	ds_load_b32 v5, v3
;+	s_barrier
;@ store not waited for = lds-race
;-	s_waitcnt lgkmcnt(0)
;-	s_barrier
;+	s_barrier
;@ no wait for LDS = read-before-wait
;-	ds_load_b32 v5, v3
;-	s_waitcnt lgkmcnt(0)
;+	ds_load_b32 v5, v3
;@ overwritten while it comes = overwrite-before-wait
;-	ds_load_b32 v5, v3
;+	ds_load_b32 v5, v3
;+	v_mov_b32 v5, 0
;@ behind LDS = lds-out-of-range
;-	v_sub_nc_u32 v3, 0x1fc, v1
;+	v_sub_nc_u32 v3, 0x200, v1
;@ behind the buffer = memory-violation
;-	s_lshl_b32 s2, s2, 9
;+	s_lshl_b32 s2, s2, 20
;@ a register nobody wrote as an address = uninitialized-address
;-	ds_load_b32 v5, v3
;+	ds_load_b32 v5, v6
;@ a branch on a register nobody wrote = uninitialized-branch
;-	s_nop 0
;+	s_cmp_eq_u32 s9, 0
;+	s_cbranch_scc1 .Lout
;+.Lout:
;@ a trap = trap
;-	s_nop 0
;+	s_trap 2
;@ a register that the wave has not = vgpr-out-of-range
;-	v_lshlrev_b32 v1, 2, v0
;+	v_lshlrev_b32 v1, 2, v0
;+	v_mov_b32 v9, 0
;@ no such instruction = illegal-instruction
;-	s_nop 0
;+	.long 0xffffffff
;@ waves at different barriers = barrier-divergence
;-	s_nop 0
;+	v_readfirstlane_b32 s8, v0
;+	s_cmp_lt_u32 s8, 32
;+	s_cbranch_scc1 .Lone
;+	s_barrier
;+	s_endpgm
;+.Lone:
;+	s_barrier
;@ a transcendental read too early = trans-use
;-	v_add_nc_u32 v4, 1, v4
;+	v_rcp_f32 v6, v4
;+	v_add_f32 v7, v6, v6
;+	v_add_nc_u32 v4, 1, v4
