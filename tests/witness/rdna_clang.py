#!/usr/bin/env python3
"""rdna_clang.py [--json | --ours]: products with quantised matrices in OpenCL C, matvec_*.cl in
tests/data/opencl, as clang compiles them for gfx1100: run in strict mode against numpy, and the
instructions of their inner loops counted. --ours runs the same products as our own compiler makes
them, and compares what both executed, hints apart: docs/BENCH.md.

clang-19 is needed; clang-22 is counted too where it is (CLANG22=path, or in PATH).
77: no clang for amdgcn, or no radeon.
"""
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np

RADEON = os.environ.get("RADEON", "build/host/radeon")
NOHOST = os.environ.get("NOHOST", "build/host/nohost")
FOLDER = "tests/data/opencl"
FLAGS = ["-x", "cl", "-cl-std=CL2.0", "-target", "amdgcn-amd-amdhsa", "-mcpu=gfx1100", "-O3",
         "-cl-fast-relaxed-math", "-nogpulib"]
ROWS, UNIT, WAVES = 64, 256, 8
rng = np.random.default_rng(19)
f32, f16, u32 = np.float32, np.float16, np.uint32


# ---- weights: (codes, what else) -> granules [tile][unit][granule][lane][16], and as numbers ----

def plane(codes, bits):
    """[..., columns] -> [..., columns * bits / 128, 16]: as matvec.h says."""
    per = 8 // bits
    group = codes.astype(np.uint8).reshape(*codes.shape[:-1], -1, per, 4)
    packed = np.zeros(group.shape[:-2] + (4,), np.uint8)
    for g in range(per):
        packed |= group[..., g, :] << (bits * g)
    return packed.reshape(*codes.shape[:-1], -1, 16)


def pieces(array, dtype):
    """[rows, units, n] of a type -> granules [rows, units, n, 16], the last filled up by zeros"""
    raw = np.ascontiguousarray(array.astype(dtype)).view(np.uint8)
    short = -raw.shape[-1] % 16
    raw = np.concatenate([raw, np.zeros(raw.shape[:-1] + (short,), np.uint8)], -1)
    return raw.reshape(*raw.shape[:-1], -1, 16)


def tiles(*parts):
    """Granules of rows -> [tile][unit][granule][lane][16]"""
    whole = np.concatenate(parts, 2)
    rows, units, granules, _ = whole.shape
    return np.ascontiguousarray(whole.reshape(rows // 32, 32, units, granules, 16).transpose(
        0, 2, 3, 1, 4))


def each(factors, count):
    return np.repeat(factors.astype(np.float64), count, -1)


def scales_of(units, n, low=0.01, high=0.1):
    return rng.uniform(low, high, (ROWS, units, n)).astype(f16)


def q4_0(units):
    codes, scale = rng.integers(0, 16, (ROWS, units, UNIT)), scales_of(units, 8)
    return tiles(plane(codes, 4), pieces(scale, f16)), each(scale, 32) * (codes - 8)


def q4_1(units):
    codes, scale, least = (rng.integers(0, 16, (ROWS, units, UNIT)), scales_of(units, 8),
                           scales_of(units, 8, -1, 0))
    return (tiles(plane(codes, 4), pieces(scale, f16), pieces(least, f16)),
            each(scale, 32) * codes + each(least, 32))


def q8_0(units):
    codes, scale = rng.integers(-128, 128, (ROWS, units, UNIT)), scales_of(units, 8)
    return tiles(plane(codes & 255, 8), pieces(scale, f16)), each(scale, 32) * codes


def q4_k(units):
    codes, factors = (rng.integers(0, 16, (ROWS, units, UNIT)),
                      rng.integers(0, 64, (ROWS, units, 16)))
    both = scales_of(units, 2, 0.001, 0.01)
    return (tiles(plane(codes, 4), pieces(factors, np.uint8), pieces(both, f16)),
            each(both[..., :1], UNIT) * each(factors[..., :8], 32) * codes
            - each(both[..., 1:], UNIT) * each(factors[..., 8:], 32))


def q6_k(units):
    codes, factors = (rng.integers(0, 64, (ROWS, units, UNIT)),
                      rng.integers(-128, 128, (ROWS, units, 16)))
    scale = scales_of(units, 1, 0.0001, 0.001)
    return (tiles(plane(codes & 15, 4), plane(codes >> 4, 2), pieces(factors, np.int8),
                  pieces(scale, f16)),
            each(scale, UNIT) * each(factors, 16) * (codes - 32))


# file: (weights, columns to a fold, what fold.y multiplies the sum of codes by)
FORMATS = {"q4_0": (q4_0, 32, 8), "q4_1": (q4_1, 32, 1), "q8_0": (q8_0, 32, 0),
           "q4_k": (q4_k, 32, 1), "q6_k": (q6_k, 16, 32), "q4_0_dot8": (q4_0, 32, 8)}


def kernels_of(name):
    """Its kernels by how they hold activations: planes of bytes, or of nibbles."""
    return {4: f"matvec_{name}"} if name.endswith("_dot8") else {
        2: f"matvec_{name}", 1: f"matvec_{name}_int8"}


# ---- activations ----

def activations(columns, fold, zero, planes):
    """(high, low, folds, what they stand for)"""
    x = rng.normal(0, 1, (columns // 32, 32))
    top = 127 if planes == 1 else 127 * 128
    scale = (np.abs(x).max(1, keepdims=True) / top).astype(f32)
    codes = np.rint(x / scale).astype(np.int64)
    high = codes if planes == 1 else (codes + 64) >> 7
    low = codes - high * 128
    folds = np.stack([np.repeat(scale, 32 // fold), np.repeat(scale, 32 // fold) * zero * codes
                      .reshape(-1, fold).sum(1)], 1)
    if planes == 4:
        high = np.stack([plane(codes >> shift & 15, 4) for shift in (12, 8, 4, 0)], 1)
    return high.astype(np.int8), low.astype(np.int8), folds.astype(f32), codes * scale


def check(folder, name, units):
    """Runs a format's kernels; yields what is wrong."""
    make, fold, zero = FORMATS[name]
    weights, matrix = make(units)
    for planes, kernel in kernels_of(name).items():
        high, low, folds, x = activations(units * UNIT, fold, zero, planes)
        words = []
        for n, array in enumerate((weights, high, low, folds)):
            array.tofile(f"{folder}/{name}-{n}")
            words += ["--arg", f"in:{folder}/{name}-{n}"]
        done = subprocess.run(
            [RADEON, "run", f"{folder}/{name}.hsaco", "--kernel", kernel, "--grid",
             str(ROWS // 32 * WAVES * 32), "--block", str(WAVES * 32), *words, "--arg",
             f"out:{ROWS * 4}:{folder}/{name}-y", "--arg", f"u32:{units}", "--strict"],
            capture_output=True, text=True)
        if done.returncode:
            yield f"{kernel}: {done.stderr.strip()}"
            continue
        used = (weights, high, low, folds) if planes == 2 else (weights, high, folds)
        lines = 1 + sum(-(-array.nbytes // 128) for array in used)  # and its arguments
        seen = json.loads(done.stdout)["lines_loaded"]
        if seen != lines:
            yield f"{kernel}: {seen} lines loaded, {lines} hold what it needs"
        want = matrix.reshape(ROWS, -1) @ x.reshape(-1)
        off = np.abs(np.fromfile(f"{folder}/{name}-y", f32) - want).max()
        bound = 1e-5 * np.abs(matrix.reshape(ROWS, -1)).dot(np.abs(x.reshape(-1))).max()
        if not off <= bound:
            yield f"{kernel}: {units} units: off by {off}, bound {bound}"


# ---- the inner loop ----

HINTS = ("s_delay_alu", "s_clause", "s_nop", "s_set_inst_prefetch")


def loop_of(text, kernel):
    """The instructions of the kernel's largest loop that holds no other."""
    return largest_loop(text[text.index(f"\n{kernel}:"):])


def largest_loop(body):
    lines = [line.split(";")[0].strip() for line in body[:body.index("s_endpgm")].split("\n")]
    lines = [line for line in lines if line and not (line[0] == "." and line[-1] != ":")]
    at, best = {}, []
    for n, line in enumerate(lines):
        if line.endswith(":"):
            at[line[:-1]] = n
        jump = re.match(r"s_c?branch\w*\s+(\S+)", line)  # ours and clang's alike
        if jump and jump[1] in at:
            inside = [text for text in lines[at[jump[1]]:n + 1] if not text.endswith(":")]
            best = max(best, inside, key=len)
    return best


def registers(operand):
    found = set()
    for kind, low, high in re.findall(r"\b([vs])\[(\d+):(\d+)\]", operand):
        found |= {f"{kind}{n}" for n in range(int(low), int(high) + 1)}
    return found | set(re.findall(r"\b[vs]\d+\b", operand)) | set(re.findall(r"\bvcc_lo", operand))


def address_instructions(loop):
    """Vector instructions whose results end in addresses: followed back twice around the loop."""
    wanted, chosen = set(), set()
    for n, line in reversed(list(enumerate(loop)) * 2):
        name, _, rest = line.partition(" ")
        operands = rest.split(",")
        if name.startswith("global_"):
            store = name.startswith("global_store")
            wanted -= set() if store else registers(operands[0])
            wanted |= {r for r in registers(operands[0 if store else 1]) if r[0] == "v"}
        elif name.startswith("v_"):
            carry = "_co_" in name
            results = registers(",".join(operands[:2 if carry else 1]))
            if results & wanted:
                chosen.add(n)
                wanted = wanted - results | {r for r in registers(",".join(operands[1:]))
                                             if r[0] == "v" and r != "vcc_lo"}
                if carry and "_ci_" in name:
                    wanted.add("vcc_lo")
    return len(chosen)


def count(loop):
    """Instructions by kind; a unit of 256 columns a lane is one trip."""
    names = collections.Counter(line.split()[0] for line in loop)

    def having(*starts):
        return sum(n for name, n in names.items() if name.startswith(starts))
    hints = having(*HINTS)
    return {"instructions": len(loop) - hints, "hints": hints, "valu": having("v_"),
            "address": address_instructions(loop), "dot": having("v_dot"),
            "vmem": having("global_", "buffer_"), "smem": having("s_load"),
            "waits": having("s_waitcnt"), "per_weight": (len(loop) - hints) / UNIT}


def vgprs(text, kernel):
    return int(re.search(rf"\.amdhsa_kernel {kernel}\n.*?\.amdhsa_next_free_vgpr (\d+)", text,
                         re.S)[1])


def compilers():
    found = {"clang-19": shutil.which("clang-19"),
             "clang-22": os.environ.get("CLANG22") or shutil.which("clang-22")}
    return {name: path for name, path in found.items() if path}


def static_rows(clang):
    """Counts of each kernel by one compiler."""
    for name in FORMATS:
        made = subprocess.run([clang, *FLAGS, "-S", f"{FOLDER}/matvec_{name}.cl", "-o", "-"],
                              capture_output=True, text=True, check=True).stdout
        for kernel in kernels_of(name).values():
            yield kernel, count(loop_of(made, kernel)) | {"vgprs": vgprs(made, kernel)}


def table():
    return {version: dict(static_rows(path)) for version, path in compilers().items()}


# ---- ours beside them ----

# What ours should need of clang's instructions.
TARGETS = {"q4_0": 0.75, "q4_1": 0.75, "q8_0": 0.6, "q4_k": 0.75, "q6_k": None}
CLASSES = ("valu", "vopd", "dot", "trans", "wmma", "salu", "smem", "lds", "vmem_loads",
           "vmem_stores", "atomics", "branches", "waits")
WIDE = 4096


def executed(entry, weights):
    """Instructions of waves, hints apart, for a weight and lane."""
    return {"per_weight": sum(entry[name] for name in CLASSES) * 32 / weights} | {
        name: entry[name] * 32 / weights for name in CLASSES if entry[name]}


def clang_runs(folder, name, rows, columns):
    units = columns // UNIT
    granules = {"q4_0": 9, "q4_0_dot8": 9, "q4_1": 10, "q8_0": 17, "q4_k": 10, "q6_k": 14}[name]
    sizes = (rows * units * granules * 16, columns * 2, columns, columns // FORMATS[name][1] * 8)
    words = []
    for n, size in enumerate(sizes):
        np.zeros(size, np.uint8).tofile(f"{folder}/{name}-{n}")
        words += ["--arg", f"in:{folder}/{name}-{n}"]
    done = subprocess.run(
        [RADEON, "run", f"{folder}/{name}.hsaco", "--kernel", f"matvec_{name}", "--grid",
         str(rows // 32 * WAVES * 32), "--block", str(WAVES * 32), *words, "--arg",
         f"out:{rows * 4}:{folder}/{name}-y", "--arg", f"u32:{units}", "--strict"],
        capture_output=True, text=True, check=True)
    return executed(json.loads(done.stdout), rows * columns)


def ours_static(listing):
    """Our inner loop, counted as clang's are."""
    body = next(kernel for kernel in listing.split("\nkernel_") if "v_dot" in kernel)
    used = [int(r[1:]) for r in registers(body) if r[0] == "v" and r != "vcc_lo"]
    return count(largest_loop(body)) | {"vgprs": max(used) + 1}


def ours_runs(folder, name, rows, columns):
    """Of y = W x, the dispatches that multiply; and their inner loop."""
    sys.path.insert(0, "tests")
    import synthetic
    with open(f"{folder}/{name}.txt", "w") as file:
        file.write(f"input x f32 [1, {columns}]\nweight w {name} [{rows}, {columns}]\n"
                   "y = linear x w\noutput y\n")
    synthetic.blocks(name, rows, columns).tofile(f"{folder}/w.bin")
    rng.normal(0, 1, columns).astype(f32).tofile(f"{folder}/x.bin")
    done = subprocess.run(
        [NOHOST, "eval", "--graph", f"{folder}/{name}.txt", "--inputs", folder, "--out", folder,
         "--device", "sim", "--int8", "--dump", "A"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()}")
    last = json.loads(done.stdout)["card"]["last"]
    total = {key: sum(entry[key] for entry in last if entry["dot"]) for key in CLASSES}
    return executed(total, rows * columns) | {"static": ours_static(done.stderr)}


def compared(folder, rows=WIDE, columns=WIDE):
    """(format, clang's, ours). Last what is for information: the source with nibble planes, which
    is how ours holds activations for 4-bit codes."""
    for source in (*TARGETS, "q4_0_dot8"):
        name = source.removesuffix("_dot8")
        subprocess.run(["clang-19", *FLAGS, f"{FOLDER}/matvec_{source}.cl", "-o",
                        f"{folder}/{source}.hsaco"], check=True)
        theirs = clang_runs(folder, source, rows, columns)
        yield source, theirs, ours_runs(folder, name, rows, columns)


def print_compared():
    def words(row):
        return ", ".join(f"{kind} {value:.3f}" for kind, value in row.items() if kind != "static")
    with tempfile.TemporaryDirectory() as folder:
        for name, theirs, ours in compared(folder):
            print(f"{name}: {ours['per_weight'] / theirs['per_weight']:.2f} of clang's, wanted "
                  f"{TARGETS.get(name)}\n  clang {words(theirs)}\n  ours  {words(ours)}\n"
                  "  our inner loop: " + ", ".join(
                      f"{kind} {value}" for kind, value in ours["static"].items()))


def main():
    if not shutil.which("clang-19") or not os.path.exists(RADEON):
        print("no clang-19, or no", RADEON)
        return 77
    if "--ours" in sys.argv:
        print_compared()
        return 0
    rows = table()
    if "--json" in sys.argv:
        print(json.dumps(rows, indent=1))
        return 0
    for version, kernels in rows.items():
        for kernel, row in kernels.items():
            print(f"{version} {kernel:18}", " ".join(f"{key} {value:.3f}" if key == "per_weight"
                                                     else f"{key} {value}"
                                                     for key, value in row.items()))
    wrong, tried = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for name in FORMATS:
            subprocess.run(["clang-19", *FLAGS, f"{FOLDER}/matvec_{name}.cl", "-o",
                            f"{folder}/{name}.hsaco"], check=True)
            for units in (3, 16):
                wrong += check(folder, name, units)
                tried += len(kernels_of(name))
    for line in wrong:
        print(line)
    print(f"{tried - len(wrong)} passed, {len(wrong)} failed")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
