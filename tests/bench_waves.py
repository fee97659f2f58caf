#!/usr/bin/env python3
"""bench_waves.py: how fast the simulated Radeon executes the inner loops of two matrix-vector
products that clang-19 compiles, in CPU time of one core: every wave instruction counts 32 lanes.
"""
import json
import os
import resource
import subprocess
import tempfile

RADEON = os.environ.get("RADEON", "build/host/radeon")
ROWS, K, LANES = 1024, 4096, 32
KERNELS = r"""
#define ROW __builtin_amdgcn_workgroup_id_x() * 32u
#define LANE __builtin_amdgcn_workitem_id_x()
#define DOT(a, b, s) __builtin_amdgcn_sudot4(true, a, true, b, s, false)
typedef unsigned uint4v __attribute__((ext_vector_type(4)));
typedef float float4v __attribute__((ext_vector_type(4)));
__kernel void q8(__global const uint4v *w, __global const uint4v *x, __global const float *scale,
                 __global float *y, unsigned times) {
    float sum = 0;
    for (unsigned t = 0; t < times; t++) {
        __global const uint4v *p = w + ROW * (4096 / 16) + LANE;
        #pragma unroll 4
        for (unsigned k = 0; k < 4096 / 16; k += 2) {
            uint4v a = p[k * 32], b = p[k * 32 + 32], u = x[k], v = x[k + 1];
            int dot = DOT(a.w, u.w, DOT(a.z, u.z, DOT(a.y, u.y, DOT(a.x, u.x, 0))));
            dot = DOT(b.w, v.w, DOT(b.z, v.z, DOT(b.y, v.y, DOT(b.x, v.x, dot))));
            sum += scale[k / 2] * dot;
        }
    }
    y[ROW + LANE] = sum;
}
__kernel void f32(__global const float4v *w, __global const float4v *x, __global const float *scale,
                  __global float *y, unsigned times) {
    float sum = 0;
    for (unsigned t = 0; t < times; t++) {
        __global const float4v *p = w + ROW * (1024 / 4) + LANE;
        #pragma unroll 8
        for (unsigned k = 0; k < 1024 / 4; k++) {
            float4v a = p[k * 32], u = x[k];
            sum = __builtin_fmaf(a.w, u.w, __builtin_fmaf(a.z, u.z, __builtin_fmaf(a.y, u.y,
                                                          __builtin_fmaf(a.x, u.x, sum))));
        }
    }
    y[ROW + LANE] = sum;
}
"""


def cpu_s():
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime


def run(folder, kernel, mode, times):
    """(wave instructions, CPU seconds)"""
    path = {name: os.path.join(folder, name) for name in ("k.hsaco", "w", "x", "s", "y")}
    start = cpu_s()
    done = subprocess.run(
        [RADEON, "run", path["k.hsaco"], "--kernel", kernel, "--grid", str(ROWS), "--block", "32",
         mode, *(word for arg in (f"in:{path['w']}", f"in:{path['x']}", f"in:{path['s']}",
                                  f"out:{ROWS * 4}:{path['y']}", f"u32:{times}")
                 for word in ("--arg", arg))], capture_output=True, text=True, check=True)
    ledger = json.loads(done.stdout[done.stdout.index("{"):])
    classes = ("salu", "valu", "vopd", "dot", "wmma", "trans", "smem", "lds", "vmem_loads",
               "vmem_stores", "atomics", "branches", "waits", "other")
    flat = json.dumps(ledger)
    count = sum(int(flat.split(f'"{name}": ')[1].split(",")[0].split("}")[0]) for name in classes
                if f'"{name}": ' in flat)
    return count, cpu_s() - start


def measure():
    """Yields (kernel, mode, ns a wave instruction)."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "k.cl"), "w") as file:
            file.write(KERNELS)
        subprocess.run(["clang-19", "-x", "cl", "-cl-std=CL2.0", "-target", "amdgcn-amd-amdhsa",
                        "-mcpu=gfx1100", "-nogpulib", "-O3", "-cl-fast-relaxed-math", "-o",
                        os.path.join(folder, "k.hsaco"), os.path.join(folder, "k.cl")], check=True)
        for name, size in (("w", ROWS * K), ("x", K), ("s", 4 * K)):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(os.urandom(size) if name != "s" else bytes(size))
        for kernel in ("q8", "f32"):
            for mode, times in (("fast", 64), ("strict", 8)):
                few, start_s = run(folder, kernel, "--" + mode, 1)
                many, all_s = run(folder, kernel, "--" + mode, times)
                yield kernel, mode, (all_s - start_s) / (many - few) * 1e9


def main():
    for kernel, mode, each_ns in measure():
        print(f"{kernel} {mode}: {each_ns:.1f} ns a wave instruction, "
              f"{LANES / each_ns:.2f} G lane-instructions a second and core")


if __name__ == "__main__":
    main()
