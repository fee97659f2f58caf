#!/usr/bin/env python3
"""timing_hip.py [--record]: how far the timing model may be trusted. The kernels that llama.cpp
launches on HIP for one token of Llama 2 7B in Q4_0, from Debian's libggml0-backend-hip (tools/fetch
hip), run in the simulated card; the model's time for them against the speed that was published.

The launch list is what ggml-cuda.cu does with that graph, its fusions included: 19 launches a
layer. --record writes the ledgers to tests/data/timing_hip.json; without it and without the
package the recorded ones are judged.
"""
import concurrent.futures
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, "tests")
import timing  # noqa: E402

RADEON = os.environ.get("RADEON", "build/host/radeon")
FOLDER, RECORD = os.environ.get("HIP", "build/hip"), "tests/data/timing_hip.json"
PUBLISHED = (129.0, 144.0)  # tokens a second, ROCm, RX 7900 XTX
WIDTH, HIDDEN, HEADS, HEAD, LAYERS, VOCABULARY, CONTEXT = 4096, 11008, 32, 128, 32, 32000, 256
TRUST = 0.15
rng = np.random.default_rng(7)


# ---- arguments as ggml packs them ----

def fast_divide(d):
    """init_fastdiv_values: a multiplier, a shift and the divisor"""
    shift = (d - 1).bit_length()
    return words(((1 << 32) * ((1 << shift) - d) // d + 1) & 0xffffffff, shift, d)


def words(*values):
    return "hex:" + struct.pack(f"<{len(values)}I", *values).hex()


def longs(*values):
    return [f"u64:{value}" for value in values]


def ints(*values):
    return [f"u32:{value}" for value in values]


NOTHING, NONE3 = "u64:0", words(0, 0, 0)
ONE = fast_divide(1)


class Buffers:
    """Contents by name; each a file."""

    def __init__(self, folder):
        self.folder, self.made, self.outs = folder, {}, 0

    def read(self, name, make):
        if name not in self.made:
            self.made[name] = f"{self.folder}/{name}"
            make().tofile(self.made[name])
        return "in:" + self.made[name]

    def out(self, count):
        self.outs += 1
        return f"out:{count * 4}:{self.folder}/out-{self.outs}"

    def floats(self, count):
        return self.read(f"f32-{count}", lambda: rng.normal(0, 1, count).astype(np.float32))

    def halves(self, count):
        return self.read(f"f16-{count}", lambda: rng.normal(0, 1, count).astype(np.float16))

    def blocks(self, rows, columns, kind):
        """Rows of a quantised matrix: the bytes at random, the scales not."""
        step, bytes_each, places = {"q4_0": (32, 18, (0,)), "q6_k": (256, 210, (208,)),
                                    "q8_1": (32, 36, (0, 2))}[kind]

        def make():
            data = rng.integers(0, 256, (rows * columns // step, bytes_each), dtype=np.uint8)
            for place in places:
                data[:, place:place + 2] = np.full(len(data), 0.01, np.float16).view(
                    np.uint8).reshape(-1, 2)
            return data
        return self.read(f"{kind}-{rows}-{columns}", make)


# ---- the launches: (file, kernel, groups, block, arguments, more options) ----

def product(b, rows, columns, kind="q4_0", gated=False):
    matrix = b.blocks(rows * (2 if gated else 1), columns, kind)
    size, step = ((18, 32) if kind == "q4_0" else (210, 256))
    fusion = [0] * 20
    if gated:  # the gate's matrix lies behind the other one; 2: SwiGLU
        gate = buffer_address(0) + rows * columns // step * size
        fusion[2:4], fusion[10] = [gate & 0xffffffff, gate >> 32], 2
    padded = -(-columns // 512) * 512
    ggml_type, warps = (2, 8) if kind == "q4_0" else (14, 2)
    name = f"_ZL13mul_mat_vec_qIL9ggml_type{ggml_type}ELi1ELb{int(gated)}ELb0ELb0EE" \
        "vPKvS2_PKi31ggml_cuda_mm_fusion_args_devicePfj15HIP_vector_typeIjLj3EEjjjS8_jjjS8_jjjj"
    strides = ints(rows * columns // step, padded // 32, rows)
    return ("mul_mat_vec_q", name, (rows, 1, 1), (32, warps, 1), [
        matrix, b.blocks(1, padded, "q8_1"), NOTHING, words(*fusion), b.out(rows),
        *ints(columns), NONE3, *ints(columns // step, padded // 32, rows), ONE, *strides, ONE,
        *strides, "u32:0"], [])


def quantize(b, columns):
    padded = -(-columns // 512) * 512
    return ("quantize_q8_1", "_ZL13quantize_q8_1PKfPvlllllj15HIP_vector_typeIjLj3EE",
            (padded // 256, 1, 1), (256, 1, 1), [
                b.floats(columns), b.out(padded // 32 * 9),
                *longs(columns, columns, columns, columns, padded), "u32:1", ONE], [])


def norm(b):
    name = "_ZL12rms_norm_f32ILi1024ELb1ELb0ELb0EEvPKfPfiiilllfS1_lll15HIP_vector_typeIjLj3EE" \
        "S4_S4_S4_S1_lllS4_S4_S4_S4_f"
    return ("rms_norm_f32", name, (1, 1, 1), (1024, 1, 1), [
        b.floats(WIDTH), b.out(WIDTH), *ints(WIDTH, 1, 1), *longs(*[WIDTH] * 3), "f32:1e-5",
        b.floats(WIDTH), *longs(*[WIDTH] * 3), fast_divide(WIDTH), ONE, ONE, ONE, NOTHING,
        *longs(0, 0, 0), NONE3, NONE3, NONE3, NONE3, "f32:1"], ["--lds", "128"])


def rope(b, to_cache):
    kind = "f6__half" if to_cache else "ff"
    name = f"_ZL9rope_normILb1ELb0E{kind}EvPKT1_PT2_iiiiiiiiiiiPKifff14rope_corr_dimsfPKfPKlib"
    row = b.read("row", lambda: np.array([CONTEXT // 2], np.int64))
    return ("rope_norm", name, (HEADS, 1, 1), (1, 256, 1), [
        b.floats(WIDTH), b.out(CONTEXT * WIDTH // 2 if to_cache else WIDTH),
        *ints(HEAD, HEADS, 1, HEAD, WIDTH, WIDTH, HEAD, WIDTH, WIDTH, HEAD, 0),
        b.read("place", lambda: np.array([CONTEXT // 2], np.int32)), "f32:1", "f32:0", "f32:1",
        words(0, 0), f"f32:{10000 ** (-2 / HEAD)}", NOTHING, row if to_cache else NOTHING,
        f"u32:{WIDTH if to_cache else 0}", "hex:00"], [])


def store_values(b):
    name = "_ZL10k_set_rowsIfl6__halfEvPKT_PKT0_PT1_llllllllllllll15HIP_vector_typeIjLj3EE" \
        "SA_SA_SA_SA_"
    return ("k_set_rows", name, (WIDTH // 256, 1, 1), (256, 1, 1), [
        b.floats(WIDTH), b.read("row", lambda: np.array([CONTEXT // 2], np.int64)),
        b.out(CONTEXT * WIDTH // 2),
        *longs(WIDTH, 1, 1, 1, 1, WIDTH, WIDTH, WIDTH, 1, 1, 1, WIDTH, 0, 0),
        fast_divide(WIDTH), ONE, ONE, ONE, ONE], [])


def attention(b):
    name = "_ZL18flash_attn_ext_vecILi128ELi1EL9ggml_type1ELS0_1ELb0EEvPKcS2_S2_S2_S2_PKiPf" \
        "P15HIP_vector_typeIfLj2EEffffjfiS6_IjLj3EEiiiiiiiiiiiliiliiiiil"
    cells, parts = b.halves(CONTEXT * WIDTH), CONTEXT // HEAD
    row = (WIDTH * 2, HEAD * 2, CONTEXT * WIDTH * 2)
    return ("flash_attn_ext_vec", name, (1, parts, HEADS), (32, 4, 1), [
        b.floats(WIDTH), cells, cells, b.halves(CONTEXT), NOTHING, NOTHING,
        b.out(WIDTH * parts), b.out(HEADS * parts * 2), f"f32:{HEAD ** -0.5}", "f32:0", "f32:1",
        "f32:1", f"u32:{HEADS}", "f32:0", f"u32:{HEAD}", ONE,
        *ints(HEADS, 1, WIDTH * 4, HEAD * 4, WIDTH * 4, HEAD, CONTEXT, HEADS, 1, *row[:2]),
        *longs(row[2]), *ints(*row[:2]), *longs(row[2]), *ints(1, 1, 1, CONTEXT * 2, CONTEXT * 2),
        *longs(CONTEXT * 2)], [])


def combine(b):
    parts = CONTEXT // HEAD
    return ("flash_attn_combine_results",
            "_ZL26flash_attn_combine_resultsILi128EEvPKfPK15HIP_vector_typeIfLj2EEPfi",
            (1, HEADS, 1), (HEAD, 1, 1), [
                b.floats(WIDTH * parts), b.floats(HEADS * parts * 2), b.out(WIDTH),
                *ints(parts)], ["--lds", str(parts * 8)])


def embed(b):
    name = "_ZL10k_get_rowsILi32ELi2EXadL_ZL15dequantize_q4_0PKvliR15HIP_vector_typeIfLj2EEEEfE" \
        "vS1_PKiPT2_llS2_IjLj3EEmmmmmmmmm"
    row = WIDTH // 32 * 18
    return ("k_get_rows", name, (1, WIDTH // 512, 1), (256, 1, 1), [
        b.blocks(64, WIDTH, "q4_0"), b.read("token", lambda: np.array([7], np.int32)),
        b.out(WIDTH), *longs(WIDTH, 1), ONE, *longs(WIDTH, WIDTH, WIDTH, row, row, row, 1, 1, 1)],
        [])


def token(b):
    """(how often, launch)"""
    yield 1, embed(b)
    yield LAYERS * 2 + 1, norm(b)
    # before q, k, v, o and the gated pair; before the way down; before the vocabulary
    yield LAYERS * 5 + 1, quantize(b, WIDTH)
    yield LAYERS, quantize(b, HIDDEN)
    yield LAYERS * 4, product(b, WIDTH, WIDTH)
    yield LAYERS, rope(b, False)
    yield LAYERS, rope(b, True)
    yield LAYERS, store_values(b)
    yield LAYERS, attention(b)
    yield LAYERS, combine(b)
    yield LAYERS, product(b, HIDDEN, WIDTH, gated=True)
    yield LAYERS, product(b, WIDTH, HIDDEN)
    yield 1, product(b, VOCABULARY, WIDTH, "q6_k")


# ---- running them ----

def buffer_address(nth):
    """Where `radeon run --seed 0` puts the nth buffer: sim/space.c"""
    place = nth + REGIONS_BEFORE
    spread = (place * 0x9e3779b97f4a7c15 & (1 << 64) - 1) >> 48
    return (1 << 44) + (place << 40) + spread * 4096


REGIONS_BEFORE = 2  # the code and the arguments
# This one reads one half of a register while the other half is still being loaded, which the model
# refuses: it keeps whole registers.
MODES = {"flash_attn_ext_vec": ["--lenient"]}


def run(launch):
    file, kernel, groups, block, arguments, options = launch
    command = [RADEON, "run", f"{FOLDER}/{file}.co", "--kernel", kernel, "--grid",
               ",".join(str(g * n) for g, n in zip(groups, block)), "--block",
               ",".join(map(str, block)), *MODES.get(file, ["--strict"]), "--seed", "0", *options]
    for argument in arguments:
        command += ["--arg", argument]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{file}: {done.stderr.strip()}")
    return json.loads(done.stdout) | {"kernel": file}


def check(b):
    """The gated product, where clang's newest encodings are met, against numpy."""
    launch = product(b, 256, WIDTH, gated=True)
    matrix, x, out = (launch[4][n].split(":")[-1] for n in (0, 1, 4))
    run(launch)
    blocks = np.fromfile(matrix, np.uint8).reshape(512, -1, 18)[:, :, 2:]
    codes = np.concatenate([blocks & 15, blocks >> 4], -1).astype(np.float64)
    q8 = np.fromfile(x, np.uint8).reshape(-1, 36)
    scale, total = (q8[:, n:n + 2].copy().view(np.float16)[:, 0].astype(float) for n in (0, 2))
    dots = np.einsum("rbk,bk->rb", codes, q8[:, 4:].view(np.int8).astype(float))
    rows = float(np.float16(0.01)) * (dots * scale - 8 * total).sum(1)
    want = rows[:256] * rows[256:] / (1 + np.exp(-rows[256:]))
    if not np.allclose(np.fromfile(out, np.float32), want, rtol=1e-4, atol=1e-4):
        raise RuntimeError("mul_mat_vec_q: not what numpy says")


def measured():
    with tempfile.TemporaryDirectory() as folder:
        check(Buffers(folder))
        launches = list(token(Buffers(folder)))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            ledgers = list(pool.map(run, (launch for _, launch in launches)))
    return [{"count": count} | ledger for (count, _), ledger in zip(launches, ledgers)]


def report(ledgers):
    """Prints the prediction; returns how far its middle is from that of what was published."""
    for entry in ledgers:
        print(f"{entry['count']:4} x {entry['kernel']:27} {entry['groups']:6} groups, modelled "
              f"{timing.dispatch_ns(entry, 1, 0) / 1e3:6.2f} us without gap, by "
              f"{timing.bound_by(entry)}")
    launches = sum(entry["count"] for entry in ledgers)
    moved = sum(entry["count"] * entry["lines_loaded"] * timing.LINE for entry in ledgers)
    speeds = sorted(1e9 / ns for ns in timing.total_ns(ledgers, timing.HIP_GAP_US))
    middle = sum(PUBLISHED) / 2
    off = speeds[1] / middle - 1
    print(f"{launches} launches, {moved / 1e9:.3f} GB; modelled {speeds[0]:.0f} to "
          f"{speeds[2]:.0f}, middle {speeds[1]:.1f} tok/s; published {PUBLISHED[0]:.0f} to "
          f"{PUBLISHED[1]:.0f}: {off:+.1%} of their middle")
    return off


def main():
    there = os.path.exists(f"{FOLDER}/mul_mat_vec_q.co")
    if "--record" in sys.argv and not there:
        print("no", FOLDER, "(tools/fetch hip)")
        return 77
    if "--record" in sys.argv:
        with open(RECORD, "w") as file:
            json.dump(measured(), file, indent=1)
    with open(RECORD) as file:
        off = report(json.load(file))
    good = abs(off) <= TRUST
    print(f"{int(good)} passed, {int(not good)} failed")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
