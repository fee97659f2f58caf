#!/usr/bin/env python3
"""rdna_strict.py: each finding of the wave engine is raised by its name on a small program that has
the mistake, and not on the same program without it. Programs are assembled by clang-19 and run by
`radeon run`, strict, with several seeds.

Exit codes: 0 all, 1 a finding is missing or wrong, 77 no clang-19 or no radeon.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RADEON = os.path.join(ROOT, "build/host/radeon")
ASSEMBLER = ["clang-19", "-x", "assembler", "-target", "amdgcn-amd-amdhsa", "-mcpu=gfx1100"]
SEEDS = 8

# ---- (finding, the mistake, what sets it right) ----
# {X|Y} in a program: X makes the mistake, Y does not. s[4:5]: a buffer with known words, s[6:7]:
# one to write; v0: the work-item; v1: 4 v0.

CASES = {
    "read-before-wait": [
        """
        global_load_b32 v2, v1, s[4:5]
        {|s_waitcnt vmcnt(0)}
        v_add_nc_u32 v3, v2, v0
        """, """
        global_load_b32 v2, v1, s[4:5]
        global_load_b32 v3, v1, s[4:5] offset:128
        global_load_b32 v4, v1, s[4:5] offset:256
        s_waitcnt vmcnt({2|1})
        v_add_nc_u32 v3, v3, v0
        """, """
        s_load_b32 s8, s[4:5], 0x0
        s_load_b32 s9, s[4:5], 0x40
        s_waitcnt lgkmcnt({1|0})
        s_add_u32 s8, s8, 1
        """, """
        ds_store_b32 v1, v0
        s_waitcnt lgkmcnt(0)
        ds_load_b32 v2, v1
        ds_load_b32 v3, v1
        s_waitcnt lgkmcnt({2|1})
        v_mov_b32 v4, v2
        """, """
        ds_store_b32 v1, v0
        ds_load_b32 v2, v1
        s_load_b32 s8, s[4:5], 0x0
        s_waitcnt lgkmcnt({1|0})
        v_mov_b32 v4, v2
        """, """
        global_load_b32 v2, v1, s[4:5]
        s_waitcnt {lgkmcnt(0)|vmcnt(0)}
        global_store_b32 v1, v2, s[6:7]
        """, """
        v_mov_b32 v2, 1
        v_mov_b32 v3, 0
        global_atomic_add_u32 v4, v3, v2, s[6:7] glc
        {s_waitcnt_vscnt null, 0x0|s_waitcnt vmcnt(0)}
        v_mov_b32 v5, v4
        """],
    "overwrite-before-wait": [
        """
        global_load_b32 v2, v1, s[4:5]
        {|s_waitcnt vmcnt(0)}
        v_mov_b32 v2, 0
        """, """
        s_load_b32 s8, s[4:5], 0x0
        {|s_waitcnt lgkmcnt(0)}
        s_mov_b32 s8, 0
        """, """
        global_load_b32 v2, v1, s[4:5]
        {|s_waitcnt vmcnt(0)}
        ds_load_b32 v2, v1
        """],
    "trans-use": [
        """
        v_rcp_f32 v2, 2.0
        {s_delay_alu instid0(TRANS32_DEP_1)|s_waitcnt_depctr 0xfff}
        v_mul_f32 v3, v2, v2
        """, """
        v_exp_f32 v2, 1.0
        v_mov_b32 v10, 0
        v_mov_b32 v10, 0
        v_mov_b32 v10, 0
        v_mov_b32 v10, 0
        v_mov_b32 v10, 0
        {|v_mov_b32 v10, 0}
        v_mov_b32 v3, v2
        """],
    "vcmpx-permlane": [
        """
        v_mov_b32 v2, v0
        v_cmpx_eq_u32 v0, v0
        {|v_mov_b32 v3, v0}
        v_permlane16_b32 v2, v0, s4, s5
        """],
    "mad64-overlap": [
        """
        v_mov_b32 v2, v0
        v_mov_b32 v3, 0
        v_mad_u64_u32 v[{2|4}:{3|5}], null, v0, v1, v[2:3]
        """],
    "wmma-overlap": [
        "{zero:16:47}" + """
        v_wmma_f32_16x16x16_f16 v[16:23], v[24:31], v[32:39], v[16:23]
        {|v_nop}
        v_wmma_f32_16x16x16_f16 v[40:47], v[16:23], v[32:39], v[40:47]
        """],
    "wmma-exec": [
        "{zero:16:47}" + """
        s_mov_b32 exec_lo, {0xffff|-1}
        v_wmma_f32_16x16x16_f16 v[16:23], v[24:31], v[32:39], v[16:23]
        """],
    "wmma-halves": [
        "{zero:16:47}" + """
        {v_mov_b32 v24, v0|v_nop}
        v_wmma_f32_16x16x16_f16 v[16:23], v[24:31], v[32:39], v[16:23]
        """],
    "lds-race": [
        """
        v_xor_b32 v2, 0x80, v1
        ds_store_b32 v1, v0
        s_waitcnt lgkmcnt(0)
        {|s_barrier}
        ds_load_b32 v3, v2
        s_waitcnt lgkmcnt(0)
        """, """
        v_xor_b32 v2, 0x80, v1
        ds_store_b32 v1, v0
        {|s_waitcnt lgkmcnt(0)}
        s_barrier
        ds_load_b32 v3, v2
        s_waitcnt lgkmcnt(0)
        """, """
        v_and_b32 v2, 31, v0
        v_lshlrev_b32 v2, 2, v2
        {ds_store_b32|ds_add_u32} v2, v0
        """],
    "lds-out-of-range": ["ds_store_b32 v1, v0 offset:{2048|1024}"],
    "lds-misaligned": ["""
        v_lshlrev_b32 v2, 3, v0
        ds_add_u32 v2, v0 offset:{2|4}
        """],
    "uninitialized-address": [
        "global_load_b32 v2, {v9|v1}, s[4:5]",
        "v_add_nc_u32 v9, {v9|v1}, v1\nds_store_b32 v9, v0",
        "s_load_b32 s8, s[{40:41|4:5}], 0x0",
        """
        ds_load_b32 v2, v1
        s_waitcnt lgkmcnt(0)
        {|v_mov_b32 v2, 0}
        global_load_b32 v3, v2, s[4:5]
        """],
    "uninitialized-branch": [
        "s_cmp_eq_u32 {s40|s4}, 0\ns_cbranch_scc1 1f\ns_nop 0\n1:",
        "v_cmp_eq_u32 vcc_lo, {v9|v0}, v1\ns_cbranch_vccz 1f\ns_nop 0\n1:",
        """
        v_cmp_eq_u32 s8, v9, v1
        {|s_and_b32 s8, s8, 0}
        s_and_saveexec_b32 s9, s8
        s_mov_b32 exec_lo, s9
        """],
    "scratch-out-of-range": ["""
        v_mov_b32 v2, 0
        scratch_store_b32 v2, v0, off offset:{128|60}
        """],
    "memory-violation": [
        "v_mov_b32 v2, {1|s6}\nv_mov_b32 v3, {77|s7}\nglobal_store_b32 v[2:3], v0, off",
        "v_mov_b32 v2, {2|4}\nglobal_atomic_add_u32 v2, v0, s[6:7]",
        "v_mov_b32 v2, {3|s4}\nv_mov_b32 v3, {55|s5}\nflat_load_b32 v4, v[2:3]"],
    "illegal-instruction": [".long {0xffffffff|0xbf800000}", "{s_code_end|s_nop 0}"],
    "fetch-fault": ["{s_mov_b64 s[8:9], 8\ns_setpc_b64 s[8:9]|s_nop 0}"],
    "vgpr-out-of-range": [
        "v_mov_b32 v{200|50}, v0",
        "s_sendmsg sendmsg({MSG_DEALLOC_VGPRS|MSG_INTERRUPT})\nv_mov_b32 v2, v0",
        "s_mov_b32 m0, {220|2}\nv_movreld_b32 v2, v0"],
    "sgpr-out-of-range": ["s_mov_b32 m0, {220|2}\ns_movrels_b32 s8, s4"],
    "barrier-divergence": ["""
        v_readfirstlane_b32 s8, v0
        s_cmp_eq_u32 s8, 0
        s_cbranch_scc1 1f
        {s_barrier|s_nop 0}
        s_branch 2f
        1:
        {s_barrier|s_nop 0}
        2:
        """],
    "trap": ["{s_trap 2|s_nop 0}"],
    "halted": ["{s_sethalt 1|s_nop 0}"],
}

HEAD = """
.amdgcn_target "amdgcn-amd-amdhsa--gfx1100"
.text
.globl test
.p2align 8
.type test,@function
test:
  s_load_b128 s[4:7], s[0:1], 0x0
  v_lshlrev_b32 v1, 2, v0
  s_waitcnt lgkmcnt(0)
"""
TAIL = """
  s_endpgm
.rodata
.p2align 6
.amdhsa_kernel test
  .amdhsa_user_sgpr_kernarg_segment_ptr 1
  .amdhsa_kernarg_size 16
  .amdhsa_group_segment_fixed_size 2048
  .amdhsa_private_segment_fixed_size 64
  .amdhsa_enable_private_segment 1
  .amdhsa_next_free_vgpr 64
  .amdhsa_next_free_sgpr 64
  .amdhsa_float_denorm_mode_32 3
  .amdhsa_wavefront_size32 1
.end_amdhsa_kernel
.amdgpu_metadata
---
amdhsa.version: [1, 2]
amdhsa.kernels:
  - .name: test
    .symbol: test.kd
    .kernarg_segment_size: 16
    .group_segment_fixed_size: 2048
    .private_segment_fixed_size: 64
    .kernarg_segment_align: 8
    .wavefront_size: 32
    .sgpr_count: 64
    .vgpr_count: 64
    .max_flat_workgroup_size: 1024
    .args:
      - {.size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global}
      - {.size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global}
...
.end_amdgpu_metadata
"""


def variant(text, wrong):
    text = re.sub(r"\{zero:(\d+):(\d+)\}", lambda m: "\n".join(
        f"v_mov_b32 v{n}, 0" for n in range(int(m.group(1)), int(m.group(2)) + 1)), text)
    return re.sub(r"\{([^{}|]*)\|([^{}]*)\}", lambda m: m.group(1 if wrong else 2), text)


def run(folder, text, seed):
    """(exit code, what was said)."""
    path = {name: os.path.join(folder, name) for name in ("k.hsaco", "in", "out")}
    done = subprocess.run([*ASSEMBLER, "-o", path["k.hsaco"], "-"], input=HEAD + text + TAIL,
                          capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr
    with open(path["in"], "wb") as file:
        file.write(bytes(range(256)) * 16)
    done = subprocess.run(
        [RADEON, "run", path["k.hsaco"], "--kernel", "test", "--grid", "64,1,1", "--block",
         "64,1,1", "--arg", f"in:{path['in']}", "--arg", f"out:4096:{path['out']}", "--strict",
         "--seed", str(seed)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def problems(name, text):
    with tempfile.TemporaryDirectory() as folder:
        found = 0
        for seed in range(1, SEEDS + 1):
            code, said = run(folder, variant(text, True), seed)
            if code is None:
                yield f"does not assemble: {said}"
                return
            if code and name not in said:
                yield f"seed {seed}: another finding: {said[-300:]}"
                return
            found += bool(code)
            if found:
                break
        if not found:
            yield "not found"
        for seed in range(1, SEEDS + 1):
            code, said = run(folder, variant(text, False), seed)
            if code is None or code:
                yield f"seed {seed}: found where nothing is wrong: {said[-300:]}"
                return


def main():
    if not shutil.which("clang-19") or not os.path.exists(RADEON):
        print("no clang-19 or no radeon")
        return 77
    passed = failed = 0
    with open(os.path.join(ROOT, "docs/SIM.md")) as page:
        told = page.read()
    for name, programs in CASES.items():
        if f"`{name}`" not in told:
            failed += 1
            print(f"docs/SIM.md has no {name}")
        for number, text in enumerate(programs, 1):
            said = list(problems(name, text))
            passed, failed = passed + (not said), failed + bool(said)
            for line in said:
                print(f"{name} {number}: {line}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
