#!/usr/bin/env python3
"""radeon_random.py [--count N] [--seed N] [--keep FOLDER]: random C programs, compiled by clang
once for x86 and once for gfx1100, must give the same bits: integers of every width, floats (half,
single, double) without contraction, loops, branches, arrays, calls.

A unit holds UNIT programs; each is run on ITEMS inputs, in turn by the CPU, at once by `radeon
run` (every fourth unit in fast mode). What differs is printed with the seed of its unit; --keep
leaves the sources. 77: no clang for amdgcn, or no radeon.
"""
import argparse
import concurrent.futures
import ctypes
import os
import random
import shutil
import subprocess
import sys
import tempfile

import numpy as np

RADEON = os.environ.get("RADEON", "build/host/radeon")
UNIT, ITEMS, WORDS = 50, 64, 8
CLANG = next((path for path in map(shutil.which, ("clang-19", "clang")) if path), None)
COMMON = ["-O2", "-fwrapv", "-ffp-contract=off", "-w"]
X86 = ["-march=x86-64-v3", "-shared", "-fPIC", "-fno-math-errno", "-fno-vectorize",
       "-fno-slp-vectorize", "-Xclang", "-ffloat16-excess-precision=none"]
GPU = ["-x", "cl", "-cl-std=CL2.0", "-cl-fp32-correctly-rounded-divide-sqrt", "-target",
       "amdgcn-amd-amdhsa", "-mcpu=gfx1100", "-nogpulib"]

INTS = {"i8": 8, "u8": 8, "i16": 16, "u16": 16, "i32": 32, "u32": 32, "i64": 64, "u64": 64}
FLOATS = ("f16", "f32", "f64")
SUFFIX = {"f16": "f", "f32": "f", "f64": ""}  # of the builtin; halves are computed as floats

# clang up to 22 divides unsigned numbers that were sign-extended in too few bits (LLVM issue
# 194829): HIDE keeps from it where they come from.
PRELUDE = """
#ifdef __OPENCL_C_VERSION__
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#pragma OPENCL EXTENSION cl_khr_fp64 : enable
#define IN __global const unsigned *
#define OUT __global unsigned *
#define HIDE(x) __asm__("" : "+v"(x))
typedef half f16;
#else
#define HIDE(x)
#define IN const unsigned *
#define OUT unsigned *
typedef _Float16 f16;
#endif
typedef signed char i8; typedef unsigned char u8; typedef short i16; typedef unsigned short u16;
typedef int i32; typedef unsigned u32; typedef long i64; typedef unsigned long u64;
typedef float f32; typedef double f64;
"""


def helpers():
    """Division for every divisor; floats to integers where C says what comes out. A NaN is a NaN
    and a zero a zero: clang lets their signs go (a product in v_fma_mix adds +0)."""
    lines = []
    for t, bits in INTS.items():
        hide = "HIDE(a); HIDE(b);" if t in ("u32", "u64") else ""
        odd = "b == 0 || b == -1" if t[0] == "i" else "b == 0"
        for name, op, other in (("div", "/", "-a"), ("mod", "%", "a")):
            lines.append(f"static inline {t} {name}_{t}({t} a, {t} b) "
                         f"{{ {hide} return {odd} ? {other} : a {op} b; }}")
        low = -(2.0 ** (bits - 1)) if t[0] == "i" else -1.0
        high = 2.0 ** (bits - (t[0] == "i"))
        for f in FLOATS:
            cast = "f32" if f == "f16" else f
            lines.append(f"static inline {t} {t}_of_{f}({f} x) {{ {cast} y = x; "
                         f"return y > {low!r} && y < {high!r} ? ({t})y : ({t})9; }}")
    lines += [f"static inline {f} div_{f}({f} a, {f} b) {{ return b == 0 ? a : a / b; }}"
              for f in FLOATS]
    lines += ["static inline u32 bits_f32(f32 x) { union { f32 f; u32 u; } v; v.f = x; "
              "return x != x ? 0x7fc00000u : x == 0 ? 0 : v.u; }",
              "static inline u64 bits_f64(f64 x) { union { f64 f; u64 u; } v; v.f = x; "
              "return x != x ? 0x7ff8000000000000ul : x == 0 ? 0 : v.u; }",
              "static inline u32 bits_f16(f16 x) { return bits_f32((f32)x); }",
              "static inline f32 f32_from(u32 x) { union { u32 u; f32 f; } v; v.u = x; "
              "return v.f; }",
              "static inline f64 f64_from(u32 a, u32 b) { union { u64 u; f64 f; } v; "
              "v.u = (u64)a << 32 | b; return v.f; }"]
    return "\n".join(lines) + "\n"


class Program:
    def __init__(self, rng, number):
        self.rng, self.number, self.names, self.lines = rng, number, 0, []
        self.vars = {t: [] for t in (*INTS, *FLOATS)}
        self.types = list(INTS) if rng.random() < 0.55 else [
            "i32", "u32", "i64", rng.choice(FLOATS), *FLOATS]
        self.indent, self.loops = 1, 0

    def add(self, line):
        self.lines.append("    " * self.indent + line)

    # -- expressions: always of exactly the type that is asked for --

    def literal(self, t):
        if t in FLOATS:
            value = self.rng.choice([0.0, 1.0, -1.0, 0.5, 3.0, -2.75, 1e-3, 100.25, 6e4, -1e-5])
            return f"({t}){float(value).hex()}"
        value = self.rng.choice([0, 1, 2, 3, 5, 7, 10, 31, 63, 255, 0x7fff, 0x8000, 0xffff,
                                 0x7fffffff, 0x80000000, 0xdeadbeef, 0x123456789abcdef,
                                 self.rng.getrandbits(INTS[t])])
        return f"({t}){value}ul"

    def leaf(self, t):
        if self.vars[t] and self.rng.random() < 0.8:
            return self.rng.choice(self.vars[t])
        others = [(name, o) for o, names in self.vars.items() for name in names]
        if others and self.rng.random() < 0.6:
            return self.convert(t, *self.rng.choice(others))
        return self.literal(t)

    def convert(self, t, text, o):
        return f"{t}_of_{o}({text})" if o in FLOATS and t in INTS else f"({t})({text})"

    def condition(self, depth):
        t = self.rng.choice(self.types)
        op = self.rng.choice(["<", "<=", ">", ">=", "==", "!="])
        text = f"{self.expr(t, depth - 1)} {op} {self.expr(t, depth - 1)}"
        return f"({text}) {self.rng.choice(['&&', '||'])} ({self.condition(depth - 1)})" \
            if depth > 1 and self.rng.random() < 0.2 else text

    def expr(self, t, depth):
        if depth <= 0 or self.rng.random() < 0.1:
            return self.leaf(t)
        kind = self.rng.random()
        if kind < 0.1:
            return f"({self.condition(depth)} ? {self.expr(t, depth - 1)} : " \
                   f"{self.expr(t, depth - 1)})"
        if kind < 0.2:
            o = self.rng.choice(self.types)
            return self.convert(t, self.expr(o, depth - 1), o)
        a, b = self.expr(t, depth - 1), self.expr(t, depth - 1)
        return self.float_op(t, a, b, depth) if t in FLOATS else self.int_op(t, a, b)

    def int_op(self, t, a, b):
        width = INTS[t]
        op = self.rng.choice(["+", "-", "*", "&", "|", "^", "<<", ">>", "/", "%", "~", "rot",
                              "bits", "mulhi", "field", "+", "-", "*", "max"])
        if op in "<<>>":
            return f"({t})({a} {op} ({b} & {width - 1}))"
        if op in "/%":
            return f"{'div' if op == '/' else 'mod'}_{t}({a}, {b})"
        if op == "~":
            return f"({t})(~{a} + {b})"
        if op == "rot" and t in ("u32", "u64"):
            n = self.rng.randrange(1, width)
            return f"({a} << {n} | {a} >> {width - n})"
        if op == "bits":
            return f"({t})" + self.rng.choice([
                f"__builtin_popcount((u32){a})", f"__builtin_popcountl((u64){a})",
                f"__builtin_clz((u32){a} | 1)", f"__builtin_ctz((u32){a} | 0x80000000u)",
                f"__builtin_clzl((u64){a} | 1)", f"__builtin_bitreverse32((u32){a})",
                f"__builtin_bswap32((u32){a})", f"__builtin_bitreverse64((u64){a})"])
        if op == "mulhi":
            wide = "i64" if t[0] == "i" else "u64"
            return f"({t})(({wide}){a} * ({wide}){b} >> {min(width, 32)})"
        if op == "field":
            n = self.rng.randrange(width)
            return f"({t})({a} >> {n} & {(1 << self.rng.randrange(1, width + 1 - n)) - 1}ul)"
        if op == "max":
            return f"({a} {self.rng.choice('<>')} {b} ? {a} : {b})"
        return f"({t})({a} {op if op in '+-*&|^' else '+'} {b})"

    def float_op(self, t, a, b, depth):
        s = SUFFIX[t]
        op = self.rng.choice(["+", "-", "*", "+", "-", "*", "/", "fma", "round", "sqrt", "sign",
                              "neg"])
        if op == "fma":
            if t == "f16":
                return f"(f16)((f32){a} * (f32){b})"
            return f"__builtin_fma{s}({a}, {b}, {self.expr(t, depth - 1)})"
        if op == "round":
            name = self.rng.choice(["floor", "ceil", "trunc", "rint"])
            return f"({t})__builtin_{name}{s}({a})"
        if op == "sqrt":
            return f"({t})__builtin_sqrt{s}(__builtin_fabs{s}({a}))"
        if op == "sign":
            return f"({t})__builtin_copysign{s}({a}, {b} < 0 ? -1 : 1)"
        if op == "neg":
            return f"({t})(-{a})"
        if op == "/":
            return f"div_{t}({a}, {b})"
        return f"({t})({a} {op} {b})"

    # -- statements --

    def declare(self, t, text):
        name = f"v{self.names}"
        self.names += 1
        self.add(f"{t} {name} = {text};")
        return name

    def assign(self):
        t = self.rng.choice(self.types)
        text = self.expr(t, self.rng.randrange(1, 4))
        if not self.vars[t] or self.rng.random() < 0.3 and self.indent == 1:
            if self.indent == 1:
                self.vars[t].append(self.declare(t, text))
                return
            t = next(k for k in self.vars if self.vars[k])
            text = self.expr(t, 2)
        self.add(f"{self.rng.choice(self.vars[t])} = {text};")

    def block(self, head, count):
        self.add(head + " {")
        self.indent += 1
        for _ in range(count):
            self.statement()
        self.indent -= 1
        self.add("}")

    def statement(self):
        kind = self.rng.random()
        if kind < 0.6 or self.indent > 3:
            self.assign()
        elif kind < 0.75:
            self.block(f"if ({self.condition(2)})", self.rng.randrange(1, 4))
            if self.rng.random() < 0.5:
                self.block("else", self.rng.randrange(1, 3))
        elif kind < 0.85 and self.loops < 2:
            name = f"n{self.names}"
            self.names += 1
            self.loops += 1
            bound = self.rng.choice([str(self.rng.randrange(1, 9)),
                                     f"(in[{self.rng.randrange(8)}] & 7)"])
            self.add(f"u32 {name} = 0;")
            self.block(f"for (; {name} < {bound}; {name}++)", self.rng.randrange(1, 4))
            self.vars["u32"].append(self.declare("u32", name)) if self.indent == 1 else None
            self.loops -= 1
        else:
            at = self.expr("u32", 1)
            if self.rng.random() < 0.5:
                op = self.rng.choice(["=", "+=", "^="])
                self.add(f"a[({at}) & 7] {op} {self.expr('u32', 2)};")
            else:
                t = self.rng.choice([k for k in INTS if self.vars[k]])
                self.add(f"{self.rng.choice(self.vars[t])} ^= ({t})a[({at}) & 7];")

    def text(self):
        self.vars["u32"] = [self.declare("u32", f"in[{n}]") for n in range(2)]
        self.vars["i32"] = [self.declare("i32", f"(i32)in[{n}]") for n in range(2, 4)]
        self.vars["i64"] = [self.declare("i64", "(i64)((u64)in[4] << 32 | in[5])")]
        if "f32" in self.types:
            self.vars["f32"] = [self.declare("f32", f"f32_from(in[{n}])") for n in (1, 6)]
            self.vars["f64"] = [self.declare("f64", "f64_from(in[6], in[7])")]
            self.vars["f16"] = [self.declare("f16", "(f16)f32_from(in[7])")]
        self.add("u32 a[8] = {in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7]};")
        for _ in range(self.rng.randrange(4, 14)):
            self.statement()
        self.add("u64 sum[4] = {0, 0, 0, 0};")
        for n, (t, name) in enumerate((t, name) for t in self.vars for name in self.vars[t]):
            bits = f"bits_{t}({name})" if t in FLOATS else f"(u64){name}"
            self.add(f"sum[{n % 4}] = sum[{n % 4}] * 31 + {bits};")
        self.add("for (u32 i = 0; i < 4; i++) {")
        self.add("    out[2 * i] = (u32)sum[i] + a[i];")
        self.add("    out[2 * i + 1] = (u32)(sum[i] >> 32) ^ a[i + 4];")
        self.add("}")
        kind = "__attribute__((noinline)) " if self.rng.random() < 0.15 else ""
        return f"{kind}static void prog_{self.number}(IN in, OUT out)\n{{\n" + "\n".join(
            self.lines) + "\n}\n"


def unit_text(seed):
    programs = [Program(random.Random(f"{seed}/{n}"), n).text() for n in range(UNIT)]
    cases = "\n".join(f"    case {n}: prog_{n}(in, out); break;" for n in range(UNIT))
    return PRELUDE + helpers() + "\n".join(programs) + f"""
#ifdef __OPENCL_C_VERSION__
__attribute__((reqd_work_group_size({ITEMS}, 1, 1))) __kernel void programs(IN in, OUT out)
{{
    u32 group = __builtin_amdgcn_workgroup_id_x();
    u32 item = group * {ITEMS} + __builtin_amdgcn_workitem_id_x();
#else
void one(u32 item, IN in, OUT out)
{{
    u32 group = item / {ITEMS};
#endif
    in += item * {WORDS};
    out += item * {WORDS};
    switch (group) {{
{cases}
    }}
}}
"""


def inputs(seed):
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**32, (UNIT * ITEMS, WORDS), np.uint32)
    small = rng.integers(0, 100, words.shape).astype(np.uint32)
    singles = rng.uniform(-1000, 1000, words.shape).astype(np.float32).view(np.uint32)
    corner = rng.choice(np.array([0, 1, 0xffffffff, 0x80000000, 0x7fffffff, 0x7f800000, 0xff800000,
                                  0x7fc00000, 0x00000001, 0x00800000, 0x3f800000, 0x477fe000],
                                 np.uint32), words.shape)
    pick = rng.random(words.shape)
    return np.select([pick < 0.25, pick < 0.45, pick < 0.75], [words, small, singles], corner)


def run_unit(folder, seed, strict):
    """How many programs differ, and lines that say how."""
    base = f"{folder}/unit{seed}"
    with open(base + ".c", "w") as file:
        file.write(unit_text(seed))
    subprocess.run([CLANG, *COMMON, *X86, base + ".c", "-o", base + ".so", "-lm"], check=True)
    subprocess.run([CLANG, *COMMON, *GPU, base + ".c", "-o", base + ".hsaco"], check=True)
    data = np.ascontiguousarray(inputs(seed), np.uint32)
    want = np.zeros_like(data)
    one = ctypes.CDLL(base + ".so").one
    for item in range(len(data)):
        one(ctypes.c_uint32(item), data.ctypes.data_as(ctypes.c_void_p),
            want.ctypes.data_as(ctypes.c_void_p))
    data.tofile(base + ".in")
    done = subprocess.run([RADEON, "run", base + ".hsaco", "--kernel", "programs", "--grid",
                           str(len(data)), "--block", str(ITEMS), "--seed", str(seed),
                           "--strict" if strict else "--fast", "--arg", f"in:{base}.in", "--arg",
                           f"out:{want.nbytes}:{base}.out"], capture_output=True, text=True)
    if done.returncode:
        return UNIT, [f"unit {seed}: {done.stderr.strip()}"]
    seen = np.fromfile(base + ".out", np.uint32).reshape(want.shape)
    lines = []
    for program in range(UNIT):
        part = slice(program * ITEMS, (program + 1) * ITEMS)
        wrong = np.argwhere(seen[part] != want[part])
        if len(wrong):
            item, word = wrong[0]
            lines.append(f"unit {seed} prog_{program}: {len(wrong)} words differ, first item "
                         f"{item} word {word}: radeon {seen[part][item, word]:08x}, "
                         f"x86 {want[part][item, word]:08x}")
    return len(lines), lines


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep")
    args = parser.parse_args()
    if not CLANG or not os.path.exists(RADEON):
        print("no clang, or no", RADEON)
        return 77
    folder = args.keep or tempfile.mkdtemp()
    os.makedirs(folder, exist_ok=True)
    units = range(args.seed, args.seed + -(-args.count // UNIT))
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for bad, lines in pool.map(lambda seed: run_unit(folder, seed, seed % 4 != 0), units):
            failed += bad
            print("".join(line + "\n" for line in lines), end="", flush=True)
    if not args.keep:
        shutil.rmtree(folder)
    print(f"{len(units) * UNIT} programs")
    print(f"{len(units) * UNIT - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
