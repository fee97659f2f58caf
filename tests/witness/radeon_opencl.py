#!/usr/bin/env python3
"""radeon_opencl.py [NAME...]: kernels in OpenCL C (tests/data/opencl), compiled by clang for
gfx1100 and run by `radeon run`, against numpy. Strict mode with two seeds, and fast mode.

A case names its kernel, the launch and the arguments; those that are written have what numpy
expects. Prints what differs; the last line counts. 77: no clang for amdgcn, or no radeon.
"""
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib

import numpy as np

RADEON = os.environ.get("RADEON", "build/host/radeon")
FOLDER = "tests/data/opencl"
MODES = (["--strict", "--seed", "1"], ["--strict", "--seed", "2"], ["--fast"])
rng = np.random.default_rng(11)
f32, f16, i32, u32 = np.float32, np.float16, np.int32, np.uint32


class Out:
    """What a buffer holds afterwards; `before` is None where the kernel must write all of it."""

    def __init__(self, after, before=None, close=0.0, check=None):
        self.after, self.before, self.close = np.ascontiguousarray(after), before, close
        self.check = check

    def wrong(self, data):
        seen = np.frombuffer(data, self.after.dtype).reshape(self.after.shape)
        if self.check:
            return self.check(seen)
        if self.close:
            good = np.isclose(seen.astype(np.float64), self.after.astype(np.float64),
                              rtol=self.close, atol=self.close, equal_nan=True)
        else:
            good = seen.view(f"u{seen.itemsize}") == self.after.view(f"u{seen.itemsize}")
        if good.all():
            return ""
        at = np.argwhere(~good)[0]
        return f"{(~good).sum()} of {good.size} wrong, first at {at}: " \
               f"{seen[tuple(at)]}, want {self.after[tuple(at)]}"


def hexadecimal(array):
    return "hex:" + np.asarray(array).tobytes().hex()


# ---- the cases: kernel -> (file, grid, block, arguments) ----

CASES = {}


def case(file, kernel, items, *args, block=64):
    grid = items if isinstance(items, tuple) else (items,)
    block = block if isinstance(block, tuple) else (block,)
    CASES[kernel] = (file, grid, block, args)


def floats(*shape, low=-4.0, high=4.0):
    return rng.uniform(low, high, shape).astype(f32)


def ints(n, low=-2**31, high=2**31, dtype=i32):
    return rng.integers(low, high, n, dtype=dtype)


def wide(function, *arrays):
    """In Python's integers, then back to 64 bits."""
    return np.array([function(*map(int, row)) & (1 << 64) - 1 for row in zip(*arrays)],
                    np.uint64).view(np.int64)


def trunc_div(a, b):
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def signed(value, bits=64):
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def elementwise():
    n = 1000
    x, y = floats(n), floats(n)
    case("elementwise", "saxpy", 1000, x, Out((f32(1.7) * x + y), y, close=1e-6), ("f32", 1.7),
         ("u32", n))
    n = 512
    a, b = ints(n), ints(n)
    with np.errstate(over="ignore"):
        third = np.trunc(b / 3.0).astype(i32)
        case("elementwise", "int_mix", n, a, b,
             Out((a * b) ^ ((a >> (b & 31)) + np.where(a < b, a - b, third) - (a & ~b))))
    b = np.where(rng.random(n) < 0.5, ints(n, 1, 200), ints(n, 1, 2**31))
    b = np.where(rng.random(n) < 0.5, b, -b).astype(i32)
    case("elementwise", "divide", n, a, b,
         Out(np.array([trunc_div(int(p), int(q)) for p, q in zip(a, b)], i32)),
         Out(a.view(u32) % b.view(u32)))
    p, q = ints(n, -2**63, 2**63 - 1, np.int64), ints(n, -2**63, 2**63 - 1, np.int64)
    case("elementwise", "long_mix", n, p, q, Out(wide(
        lambda x, y: x * y + (x >> (y & 63)) - (y << (x & 63)) + (x if x < y else ~y), p, q)))
    q = np.where(rng.random(n) < 0.5, ints(n, 1, 300, np.int64), q >> ints(n, 0, 50, np.int64))
    q[q == 0] = 3
    case("elementwise", "long_divide", n, p, q, Out(wide(
        lambda x, y: trunc_div(x, y) + x % (1 << 64) % (y % (1 << 64)), p, q)))
    a = np.where(rng.random(n) < 0.1, 0, ints(n, 0, 2**32, u32) >> ints(n, 0, 32, u32)).astype(u32)

    def bits(x):
        s = bin(x).count("1") + (32 - x.bit_length()) * 64 + (
            (x & -x).bit_length() - 1 if x else 32) * 4096
        return s + int(f"{x:032b}"[::-1], 2) + (x << 7 | x >> 25) + (x >> 5 & 0x3ff)
    case("elementwise", "bits", n, a,
         Out(np.array([bits(int(x)) & 0xffffffff for x in a], u32)))
    p, q = rng.uniform(-9, 9, n), rng.uniform(1, 9, n)
    case("elementwise", "doubles", n, p, q,
         Out(p * q + 1.5 - p / q + np.floor(p) * np.where(p < q, 2.0, -0.5), close=1e-12))
    x = floats(n, low=-300, high=40000)
    whole = x.astype(i32)
    case("elementwise", "convert", n, x, Out(whole), Out(np.clip(whole, 0, 255).astype(np.uint8)),
         Out(whole.astype(np.int16).astype(f32) + whole.astype(np.int8).astype(f32)))
    h, k = floats(n).astype(f16), floats(n).astype(f16)
    case("elementwise", "halves", n, h, k, Out(
        h * k + h - np.where(h > k, k, f16(0.25)), close=0.02))
    h, k = floats(n, 2).astype(f16), floats(n, 2).astype(f16)
    case("elementwise", "half_pairs", n, h, k, Out(h * k + h - k[:, ::-1], close=0.02))
    s, t = ints(2 * n, -2**15, 2**15, np.int16), ints(2 * n, -2**15, 2**15, np.int16)
    s, t = s.reshape(n, 2), t.reshape(n, 2)
    case("elementwise", "shorts", n, s, t, Out(s * t + (s >> (t & 15)) - t[:, ::-1]))
    x = floats(n, low=0.01, high=20)
    case("elementwise", "roots", n, x, Out(
        np.stack([1 / x, np.sqrt(x), np.exp2(-x), np.log2(x)], 1).astype(f32), close=1e-5))
    x, y, z = floats(n), floats(n), floats(n)
    case("elementwise", "float_divide", n, x, y, Out(x / y, close=1e-6))
    case("elementwise", "median", n, x, y, z, Out(
        np.median([x, y, z], 0) + np.abs(x) - np.minimum(y, z), close=1e-6))


def bytes_of(words, signed_bytes):
    return words.view(np.int8 if signed_bytes else np.uint8).reshape(len(words), 4).astype(np.int64)


def nibbles(words, signed_nibbles):
    raw = (words[:, None] >> np.arange(0, 32, 4, dtype=u32)) & 15
    return np.where(signed_nibbles & (raw > 7), raw.astype(np.int64) - 16, raw)


def reduce():
    n = 1024
    x = ints(n, -9, 9).astype(f32)
    case("reduce", "sum_tree", n, x, Out(x.reshape(-1, 64).sum(1)))
    a = ints(n, -1000, 1000)
    case("reduce", "sum_dpp", n, a, Out(np.cumsum(a.reshape(-1, 16), 1, dtype=i32).ravel()))
    waves = a.reshape(-1, 32)
    case("reduce", "max_cross", n, a, Out(np.repeat(waves.max(1), 32)))
    case("reduce", "sum_permute", n, a, Out(np.repeat(waves.sum(1, dtype=i32), 32)))
    order = [0x53977 >> 3 * lane & 7 for lane in range(8)]
    swapped = a.reshape(-1, 2)[:, ::-1].ravel()
    one = a + 3 * swapped
    two = one + 5 * one.reshape(-1, 8)[:, order].ravel()
    lanes = [0x89abcdef01234567 >> 4 * lane & 15 for lane in range(16)]
    case("reduce", "swizzle", n, a, Out(two + 7 * two.reshape(-1, 16)[:, lanes].ravel()))
    p, q = floats(n, 4), floats(n, 4)
    case("reduce", "dot_product", n, p, q, Out(
        (p * q).reshape(-1, 8, 4).sum((1, 2)), close=1e-4))
    x = rng.permutation(n).astype(f32)
    case("reduce", "arg_max", n, x, Out(
        (x.reshape(-1, 64).argmax(1) + np.arange(0, n, 64)).astype(u32)))
    positive = waves > 0
    before = np.cumsum(positive, 1) - positive
    case("reduce", "vote", n, a, Out((positive.sum(1)[:, None] * 1000 + before +
                                      waves[:, :1].astype(np.int64) * 7 +
                                      waves[:, 9:10] * 13).astype(u32).ravel()))
    a, b = ints(n, 0, 2**32, u32), ints(n, 0, 2**32, u32)
    first = (bytes_of(a, True) * bytes_of(b, True)).sum(1) + 5
    second = (bytes_of(a, False) * bytes_of(b, False)).sum(1) + 7 + (
        nibbles(a, True) * nibbles(b, False)).sum(1)
    case("reduce", "dot4", n, a, b, Out(np.stack([first, second], 1).astype(i32)))
    h, k = floats(n, 2).astype(f16), floats(n, 2).astype(f16)
    case("reduce", "dot2", n, h, k, Out((h.astype(f32) * k.astype(f32)).sum(1) + f32(0.5),
                                        close=1e-4))


def atomics():
    n = 512
    b = rng.integers(0, 256, n * 16).astype(np.uint8)
    case("atomics", "histogram", n, b, Out(np.bincount(b, minlength=256).astype(u32),
                                           np.zeros(256, u32)))
    a = ints(n, -100, 100)
    kept = np.sort(a[a > 0])
    case("atomics", "compact", n, a, Out(
        a, np.zeros(n, i32), check=lambda seen: "" if (np.sort(seen[:len(kept)]) == kept).all()
        and not seen[len(kept):].any() else "not the positive ones"),
        Out(np.array([len(kept)], u32), np.zeros(1, u32)))
    case("atomics", "extremes", n, a, Out(
        np.array([a.min(), a.max(), -a.sum()], i32), np.array([0, 0, 0], i32)),
        Out(np.array([np.bitwise_or.reduce(a), np.bitwise_and.reduce(a), np.bitwise_xor.reduce(a)],
                     i32).view(u32), np.array([0, 2**32 - 1, 0], u32)))
    one = np.ones(64, i32)
    last = 2
    for _ in range(64):
        last = signed(last * 3 + 1, 32)
    case("atomics", "locked", 64, one, Out(np.array([last], i32), np.array([2], i32)))
    x = ints(n, -50, 50).astype(f32)
    case("atomics", "add_floats", n, x, Out(x.reshape(-1, 4).sum(0) + 1, np.ones(4, f32)))
    p = ints(n, 0, 2**63, np.uint64)
    case("atomics", "add_longs", n, p, Out(np.array([p.sum(dtype=np.uint64), p.max()]),
                                           np.zeros(2, np.uint64)))
    case("atomics", "ticket", n, Out(np.arange(n, dtype=u32), check=lambda seen: "" if (
        np.sort(seen) == np.arange(n)).all() else "not each once"),
        Out(np.array([n], u32), np.zeros(1, u32)))
    seen10 = np.bincount(np.arange(n) % 10)
    case("atomics", "wrap", n, Out(np.array([n % 10], u32), np.zeros(1, u32)), Out(
        np.zeros(n, u32), check=lambda seen: "" if (np.bincount(seen) == seen10).all()
        else "does not count to 9 and around"))


def local():
    m = floats(64, 64)
    case("local", "transpose", (64, 64), m, Out(m.T), ("u32", 64), block=(16, 16))
    a = ints(1024)
    case("local", "bitonic", 512, a, Out(np.sort(a.reshape(-1, 128), 1)))
    b = ints(512, 0, 1000, u32)
    case("local", "prefix_sum", 512, b, Out(np.cumsum(b.reshape(-1, 64), 1).astype(u32)))
    x = ints(512, -20, 20).astype(f32)
    case("local", "rank_sort", 512, x, Out(np.sort(x.reshape(-1, 64), 1)))
    b = ints(512, 0, 2**32, u32)
    tiles = b.reshape(-1, 64)
    order = np.argsort(tiles >> 8 & 15, 1, kind="stable")
    case("local", "radix_pass", 512, b, Out(np.take_along_axis(tiles, order, 1)), ("u32", 8))
    case("local", "given", 512, b, ("lds", 256), ("lds", 64), Out(
        tiles[:, ::-1] * u32(3) + (tiles >> 8 & 255)[:, np.arange(64) ^ 5]))
    w = ints(4 * 512, 0, 2**32, u32).reshape(-1, 64, 4)
    other = w[:, np.arange(64) ^ 3]
    plus = np.stack([other[..., 3], other[..., 0], np.full_like(other[..., 0], 1),
                     np.full_like(other[..., 0], 2)], -1)
    case("local", "wide", 512, w, Out(w[:, np.arange(64) ^ 1] + plus))
    cells = (rng.random((64, 64)) < 0.4).astype(np.uint8)
    pad = np.pad(cells, 1)
    near = sum(pad[1 + y:65 + y, 1 + x:65 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)) - cells
    case("local", "life", 64, cells, Out(((near == 3) | ((near == 2) & (cells > 0))).astype(
        np.uint8)))


def to_bf16(x):
    return (x.view(u32) >> 16).astype(np.uint16)


def matrix():
    a, b = floats(48, 48), floats(48, 48)
    case("matrix", "gemm_tiled", (48, 48), a, b, Out(a @ b, close=1e-4), ("u32", 48),
         block=(16, 16))
    a, x = floats(128, 96), floats(96)
    case("matrix", "matvec", 128, a, x, Out(a @ x, close=1e-4), ("u32", 96))
    h, k, c = floats(16, 16).astype(f16), floats(16, 16).astype(f16), floats(16, 16)
    case("matrix", "wmma_f16", 32, h, k, Out(h.astype(f32) @ k.astype(f32) + c, c, close=1e-4),
         block=32)
    a, b = ints(16 * 64, -8, 8).astype(f32).reshape(16, 64), ints(16 * 64, -8, 8).astype(f32)
    b = b.reshape(64, 16)
    case("matrix", "wmma_bf16", 32, to_bf16(a), to_bf16(b), Out(a @ b), ("u32", 64), block=32)
    a, b = ints(256, -128, 128, np.int8).reshape(16, 16), rng.integers(0, 256, (16, 16))
    b = b.astype(np.uint8)
    case("matrix", "wmma_iu8", 32, a, np.ascontiguousarray(b.T),
         Out((a.astype(i32) @ b.astype(i32) + 100).astype(i32)), block=32)
    a, b = ints(32, 0, 2**32, u32), ints(32, 0, 2**32, u32)
    left = nibbles(a, False).reshape(16, 16)
    right = nibbles(b, True).reshape(16, 16)
    case("matrix", "wmma_iu4", 32, a, b, Out((left @ right.T).astype(i32)), block=32)


def network():
    x = floats(6, 200, low=-9, high=9)
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    case("network", "softmax", 6 * 32, x,
         Out((e / e.sum(1, keepdims=True)).astype(f32), close=1e-5), ("u32", 200), block=32)
    w = floats(200)
    norm = x / np.sqrt((x.astype(np.float64)**2).mean(1, keepdims=True) + 1e-5) * w
    case("network", "rms_norm", 6 * 32, x, w, Out(norm.astype(f32), close=1e-4), ("u32", 200),
         block=32)
    x, y = floats(512), floats(512)
    case("network", "silu", 512, x, y, Out((x / (1 + np.exp(-x)) * y).astype(f32), close=1e-5))
    v = floats(512, 2)
    turn = 2 * np.pi * 0.0123 * np.arange(512)
    s, c = np.sin(turn), np.cos(turn)
    case("network", "rope", 512, Out(np.stack(
        [v[:, 0] * c - v[:, 1] * s, v[:, 0] * s + v[:, 1] * c], 1).astype(f32), v, close=1e-4),
        ("f32", 0.0123))
    scale, pair = floats(128).astype(f16), rng.integers(0, 256, (128, 16)).astype(np.uint8)
    blocks = np.concatenate([scale.view(np.uint8).reshape(128, 2), pair], 1)
    both = np.concatenate([pair & 15, pair >> 4], 1).astype(f32) - 8
    case("network", "dequantize", 128, blocks, Out(both * scale.astype(f32)[:, None]))
    h, k, z = floats(512).astype(f16), floats(512).astype(f16), floats(512)
    case("network", "mixed", 512, h, k, z, Out(h.astype(f32) * k.astype(f32) + z, close=1e-6))
    image, taps = floats(4, 14, 26), floats(3, 3)
    out = sum(image[:, j:j + 12, i:i + 24] * taps[j, i] for j in range(3) for i in range(3))
    case("network", "convolve", (24, 12, 4), image, taps, Out(out, close=1e-5),
         hexadecimal(np.array([24, 12, 4, 0], u32)), block=(8, 4, 2))


def private():
    n = 256
    a = ints(1024, 0, 2**32, u32)

    def array(g):
        v = [int(a[g]) * (i + 1) for i in range(32)]
        for i in range(32):
            v[int(a[(g + i) & 1023]) & 31] += i
        total = 0
        for i in v:
            total = total * 31 + i
        return total & 0xffffffff
    case("private", "array", n, a, Out(np.array([array(g) for g in range(n)], u32)))
    b = ints(n * 16).reshape(n, 16)
    case("private", "insertion_sort", n, b, Out(np.sort(b, 1)))
    a = ints(n, 0, 2**32, u32)

    def call(x):
        return sum((x >> i + (x & 1)) * (i + 3) for i in range(x & 7)) & 0xffffffff
    a = np.where((a & 7) == 7, a - 1, a).astype(u32)  # stay inside the array
    case("private", "call", n, a, Out(np.array([call(int(x)) for x in a], u32)))
    lds = np.concatenate([a.reshape(-1, 64), np.tile(np.arange(4, dtype=u32), (n // 64, 1))], 1)

    def total(v):
        s = 0
        for x in v:
            s = s * 5 + int(x)
        return s

    def any_memory(g):
        own = [a[g], g, 7, a[g] ^ 9] if g & 1 else lds[g // 64][g % 64:g % 64 + 4]
        return (total(own) + total(a[:4])) & 0xffffffff
    case("private", "any_memory", n, a, Out(np.array([any_memory(g) for g in range(n)], u32)))

    def collatz(x):
        steps = 0
        while x != 1:
            x = 3 * x + 1 if x & 1 else x // 2
            steps += 1
        return steps
    case("private", "collatz", n, np.arange(1, n + 1, dtype=u32),
         Out(np.array([collatz(x) for x in range(1, n + 1)], u32)))

    def mandelbrot(g):
        cx, cy = (g % 64) * 0.05 - 2, (g // 64) * 0.05 - 1
        x = y = 0.0
        for n in range(100):
            if x * x + y * y >= 4:
                return n
            x, y = x * x - y * y + cx, 2 * x * y + cy
        return 100
    want = np.array([mandelbrot(g) for g in range(1024)], u32)
    case("private", "mandelbrot", 1024, Out(want, check=lambda seen: "" if (
        np.abs(seen.astype(int) - want) > 0).mean() < 0.02 else "another set"), ("u32", 64),
        ("f32", 0.05))
    data = rng.integers(0, 256, (n, 16)).astype(np.uint8)
    case("private", "crc", n, data, Out(np.array([zlib.crc32(row.tobytes()) for row in data], u32)))

    def branches(x):
        return {0: x * 3, 1: x ^ 0x55, 2: (x >> 3) + 11, 3: 11, 5: sum(
            i * x for i in range(x & 15)), 6: bin(x).count("1")}.get(x & 7, ~x) & 0xffffffff
    case("private", "branches", n, a, Out(np.array([branches(int(x)) for x in a], u32)))
    primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53]
    case("private", "tables", n, a, Out(np.array(
        [primes[x & 15] * (10 + 10 * (x >> 4 & 3)) for x in map(int, a)], u32)))
    nx, ny, nz, block = 37, 10, 5, (16, 4, 2)
    grid = np.zeros((nz, ny, nx), u32)
    for z, y, x in np.ndindex(nz, ny, nx):
        grid[z, y, x] = (16 + 4 * 100 + 2 * 10000 + 5 * 1000000 + nx * 10000000 + 3 * 7) % 2**32
    case("private", "launch", (nx, ny, nz), Out(grid), ("u32", nx), ("u32", ny), block=block)


# ---- running them ----

def compile_files(folder):
    clang = next((path for path in map(shutil.which, ("clang-19", "clang")) if path), None)
    if not clang or not os.path.exists(RADEON):
        print("no clang, or no", RADEON)
        sys.exit(77)
    for name in sorted({entry[0] for entry in CASES.values()}):
        subprocess.run([clang, "-x", "cl", "-cl-std=CL2.0", "-target", "amdgcn-amd-amdhsa",
                        "-mcpu=gfx1100", "-O2", "-nogpulib", "-include", f"{FOLDER}/prelude.h",
                        f"{FOLDER}/{name}.cl", "-o", f"{folder}/{name}.hsaco"], check=True)


def run(folder, kernel, mode):
    """What went wrong, or nothing."""
    file, grid, block, args = CASES[kernel]
    command = [RADEON, "run", f"{folder}/{file}.hsaco", "--kernel", kernel, "--grid",
               ",".join(map(str, grid)), "--block", ",".join(map(str, block)), *mode]
    outs = []
    for n, arg in enumerate(args):
        path = f"{folder}/{kernel}-{'-'.join(mode)}-{n}"
        if isinstance(arg, Out):
            outs.append((n, path, arg))
            if arg.before is None:
                command += ["--arg", f"out:{arg.after.nbytes}:{path}"]
                continue
            np.ascontiguousarray(arg.before).tofile(path)
            command += ["--arg", f"inout:{path}"]
        elif isinstance(arg, np.ndarray):
            arg.tofile(path)
            command += ["--arg", f"in:{path}"]
        else:
            command += ["--arg", arg if isinstance(arg, str) else f"{arg[0]}:{arg[1]}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()
    if json.loads(done.stdout)["kernel"] != kernel:
        return "no ledger"
    for n, path, out in outs:
        with open(path, "rb") as written:
            wrong = out.wrong(written.read())
        if wrong:
            return f"argument {n}: {wrong}"
    return ""


def main():
    for group in (elementwise, reduce, atomics, local, matrix, network, private):
        with np.errstate(all="ignore"):
            group()
    wanted = sys.argv[1:] or list(CASES)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        compile_files(folder)
        jobs = [(kernel, mode) for kernel in wanted for mode in MODES]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda job: run(folder, *job), jobs))
    for (kernel, mode), wrong in zip(jobs, results):
        if wrong:
            failed += 1
            print(f"{kernel} {' '.join(mode)}: {wrong}")
    print(f"{len(wanted)} kernels")
    print(f"{len(jobs) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
