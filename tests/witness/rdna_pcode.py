#!/usr/bin/env python3
"""rdna_pcode.py [--radeon PROGRAM]: every VALU, SALU and LDS instruction on corner values, run by
`radeon run` in strict mode from code that clang-19 assembles, against AMD's own pseudo-code as
tinygrad carries it, evaluated by tests/pcode.py. What the text leaves open is computed by hand.

Exit codes: 0 same, 1 different (the first cases of each instruction are printed), 77 no clang-19 or
no radeon.
"""
import collections
import math
import multiprocessing
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from fractions import Fraction

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from pcode import FLOATS, Open, Pcode, Val, decode_float, encode_float, width_of  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RADEON = sys.argv[sys.argv.index("--radeon") + 1] if "--radeon" in sys.argv else \
    os.path.join(ROOT, "build/host/radeon")
LANES, WAVES, PER_KERNEL, SHOWN = 32, 4, 60, 3
VECTORS = LANES * WAVES
VCC, LEFT_OUT = 0x5A5AC3F1, []
NAN = {"f16": 0x7C00, "bf16": 0x7F80, "f32": 0x7F800000, "f64": 0x7FF << 52}
ASSEMBLER = ["clang-19", "-x", "assembler", "-target", "amdgcn-amd-amdhsa", "-mcpu=gfx1100"]

# ---- corner values ----

INT = [0, 1, 2, 3, 5, 7, 8, 15, 16, 31, 32, 33, 63, 64, 127, 128, 255, 256, 32767, 32768, 65535,
       65536]
CORNERS = {
    "f16": [0, 0x8000, 0x3C00, 0xBC00, 0x3800, 0x3E00, 0x4100, 0x4248, 0x7BFF, 0xFBFF, 0x7C00,
            0xFC00, 0x7E00, 0x7D01, 0xFE00, 1, 0x8001, 0x3FF, 0x400, 0x8400, 0x6400, 0x77FF,
            0x5BFF, 0xD800],
    "f32": [0, 1 << 31, 0x3F800000, 0xBF800000, 0x3F000000, 0x3FC00000, 0x40200000, 0x40490FDB,
            0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFC12345, 1,
            0x80000001, 0x7FFFFF, 0x800000, 0x80800000, 0x4F000000, 0xCF000000, 0x4F800000,
            0x4B800000, 0x33800000, 0x477FE000, 0x38800000, 0x5F000000, 0x1F800000, 0x42F60000],
    "f64": [0, 1 << 63, 0x3FF << 52, 0xBFF << 52, 0x3FE << 52, 0x3FF8 << 48, 0x400921FB54442D18,
            0x7FEFFFFFFFFFFFFF, 0xFFEFFFFFFFFFFFFF, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48,
            0x7FF0000000000001, 1, 0x8000000000000001, (1 << 52) - 1, 1 << 52, 0x41E << 52,
            0x41F << 52, 0xC1E << 52, 0x47EFFFFFE0000000, 0x36A << 52, 0x434 << 52, 0x380 << 52],
    "i32": INT + [(1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 32) - 2, 0x12345678, 0xFFFF8000,
                  0x800000, 0x7FFFFF, 0xFF000000, 0x80808080, 0x7F7F7F7F, 0xFFFF0001, 0x30005],
    "i64": INT + [(1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
                  0x123456789ABCDEF0],
    "i16": INT + [0x7FFF, 0x8000, 0xFFFF, 0xFFFE, 0x1234, 0xFF00, 0x80FF],
}


def value_of(kind, rng):
    """Low bits a corner value in three of four cases; halves come in pairs."""
    if kind in ("f16", "i16"):
        return pick(kind, 16, rng) | pick(kind, 16, rng) << 16
    return pick(kind, 64 if kind.endswith("64") else 32, rng)


def pick(kind, width, rng):
    return rng.choice(CORNERS[kind]) if rng.random() < 0.75 else rng.getrandbits(width)


# ---- what the text says of an instruction's operands ----

def kinds_of(text):
    """{"S0": "f32", ...}: corner values for each source; "D0": its width in bits."""
    if "v_sad_u8(S0[55" in text or "v_msad_u8(S0[55" in text:
        return {"S0": "i64", "S1": "i32", "S2": "i64", "D0": 64}
    if "tmp += S0.u64[i]" in text:
        return {"S0": "i64", "D0": 32}
    found = {}
    for name in ("S0", "S1", "S2", "D0"):
        types = re.findall(rf"\b{name}(?:\[[^]]*\])?\.(\w+)", text)
        slices = [int(n) for n in re.findall(rf"\b{name}(?:\.\w+)?\[(\d+)\s*:", text)]
        if not types and not slices and not re.search(rf"\b{name}\b", text):
            continue
        types = [t for t in types if re.match(r"(bf16|[uifb]\d+)$", t)]
        width = max([int(re.sub(r"\D", "", t)) for t in types] + [n + 1 for n in slices] + [0])
        first = next((t for t in types), "u32")
        base = first if first in FLOATS else "i"
        if base == "bf16" or width in (4, 8, 24, 1, 0, 128):
            base, width = "i", max(width, 32)
        width = 16 if width == 16 else 32 if width <= 32 else 64
        found[name] = base if base != "i" else f"i{width}"
        if base == "i" and re.search(rf"\b{name}\[(31 : 16|15 : 0)\]", text):
            half = re.search(rf"\b{name}\[(?:31 : 16|15 : 0)\]\.(f16|i16|u16)", text)
            found[name] = "f16" if half and half.group(1) == "f16" else "i16"
        if name == "D0":
            found[name] = 128 if "128" in "".join(types) else max(width, 32)
    return found


class Case:
    """One instruction as it is assembled, and how to know its result."""

    def __init__(self, name, line, text, **how):
        self.name, self.line, self.text = name, line, text
        self.kinds = how.get("kinds") or kinds_of(text)
        self.hand, self.prepare, self.finish = (how.get(k) for k in ("hand", "prepare", "finish"))
        self.ulp, self.result = how.get("ulp", 0), how.get("result")
        self.before, self.after = how.get("before", ""), how.get("after", "")
        self.in_memory, self.lanes = how.get("memory"), how.get("lanes")
        self.mode, self.ieee = how.get("mode", "even"), how.get("ieee", 1)
        self.mask = how.get("mask")  # the SGPR whose bits are the result: v_cmp, carry
        self.clean = "exec_lo" if how.get("to_exec") else None


# ---- expected results ----

def flush(x):
    return math.copysign(0.0, x) if abs(x) < 2.0 ** -126 else x


def turns(function):
    def compute(x):
        if not math.isfinite(x):
            return math.nan
        part = x - round(x) if abs(x) < 2 ** 60 else 0.0
        return function(2 * math.pi * part)
    return compute


def guarded(function):
    def compute(x):
        try:
            return function(x)
        except (ValueError, ZeroDivisionError):
            return math.nan
        except OverflowError:
            return math.inf
    return compute


TRANSCENDENTAL = {
    "exp": lambda x: 2.0 ** x if math.isfinite(x) else (math.nan if x != x else max(x, 0.0)),
    "log": lambda x: -math.inf if x == 0 else math.log2(x),
    "rcp": lambda x: math.copysign(math.inf, x) if x == 0 else 1 / x,
    "rcp_iflag": lambda x: math.copysign(math.inf, x) if x == 0 else 1 / x,
    "rsq": lambda x: math.copysign(math.inf, x) if x == 0 else 1 / math.sqrt(x),
    "sqrt": lambda x: x if x == 0 else math.sqrt(x),
    "sin": turns(math.sin), "cos": turns(math.cos),
}


def by_hand(operation, kind):
    """f32's unit flushes denormals, whatever the mode."""
    function = guarded(TRANSCENDENTAL[operation])

    def compute(s0, *_):
        x = decode_float(s0 & ((1 << int(kind[1:])) - 1), kind)
        y = function(flush(x) if kind == "f32" else x)
        return keep_high(encode_float(flush(y) if kind == "f32" else y, kind), kind)
    return compute


def keep_high(bits, kind):
    """16-bit results leave the other half of D as it was."""
    return OLD & 0xFFFF0000 | bits if kind.endswith("16") else bits


def below_one(kind):
    """v_fract: a tiny negative number gives the largest value below 1, as LLVM relies on."""
    def finish(bits, _):
        low, one = (1 << int(kind[1:])) - 1, encode_float(1.0, kind)
        return bits - 1 if bits & low == one else bits
    return finish


def frexp_by_hand(kind, integer):
    """The text takes the exponent field; with denormals and 0 the pair must make the number."""
    def compute(s0, *_):
        x = decode_float(s0 & ((1 << int(kind[1:])) - 1), kind)
        bits = math.frexp(x)[1] if x and math.isfinite(x) else 0
        return keep_high(bits & (0xFFFF if integer == "i16" else 0xFFFFFFFF), integer)
    return compute


def round_even(kind):
    """The text loses the sign of a result of 0."""
    def compute(s0, *_):
        x = decode_float(s0 & ((1 << int(kind[1:])) - 1), kind)
        y = math.copysign(float(round(x)), x) if math.isfinite(x) and abs(x) < 2 ** 53 else x
        return keep_high(encode_float(y, kind), kind)
    return compute


def estimate_lost(kind):
    """v_div_fixup: an estimate that is NaN is an overflow, as tinygrad saw on a card."""
    def finish(bits, sources):
        low = (1 << int(kind[1:])) - 1
        if not is_nan(sources[0] & low, kind) or any(is_nan(s & low, kind) for s in sources[1:]) \
                or (bits ^ sources[0]) & (low >> 1):
            return bits
        sign = (sources[1] ^ sources[2]) & (low >> 1) + 1
        return bits & ~low | NAN[kind] | sign
    return finish


def ldexp_f16(s0, s1, *_):
    """The text's power of two would overflow in f16 before the product does not."""
    x, n = decode_float(s0 & 0xFFFF, "f16"), Val(s1, "i16").num()
    finite = math.isfinite(x) and x != 0
    return keep_high(encode_float(Fraction(x) * Fraction(2) ** n if finite else x, "f16"), "f16")


def is_nan(bits, kind):
    return bits & ((1 << (width_of(kind) - 1)) - 1) > NAN[kind]


def close(seen, want, case):
    """Bits equal, both NaN, or within the instruction's accuracy."""
    kind = case.result
    if seen == want:
        return True
    if kind not in NAN and kind != "pk":
        return False
    if kind == "pk":
        return all(a == b or (is_nan(a, "f16") and is_nan(b, "f16")) for a, b in (
            (seen & 0xFFFF, want & 0xFFFF), (seen >> 16, want >> 16)))
    low = (1 << width_of(kind)) - 1
    if seen & ~low != want & ~low:
        return False
    seen, want = seen & low, want & low
    if is_nan(seen, kind) and is_nan(want, kind):
        return True
    if not case.ulp or is_nan(seen, kind) or is_nan(want, kind):
        return False
    if case.name.startswith(("v_sin", "v_cos")):
        return abs(decode_float(seen, kind) - decode_float(want, kind)) <= 2.0 ** -20 or \
            kind == "f16" and abs(seen - want) <= 1
    return abs(seen - want) <= case.ulp


def expected(case, lane, sources, old):
    """Bits of D0 and of the scalar result; None where there is none."""
    if case.hand:
        result = case.hand(*sources)
        return result if isinstance(result, tuple) else (result, None)
    if case.prepare:
        sources = case.prepare(sources)
    env = {f"S{n}": Val(bits, "u64" if case.kinds.get(f"S{n}", "").endswith("64") else "u32")
           for n, bits in enumerate(sources)}
    env["S"] = [env["S0"], env["S1"], env["S2"]]
    Pcode.mode = case.mode
    end = PROGRAMS[case.text].run(
        D0=Val(old, f"u{case.kinds.get('D0', 32)}"), VCC=Val(VCC, "u64"), EXEC=Val(~0, "u64"),
        laneId=Val(lane, "i32"), WAVE_MODE=Val(case.ieee, "u1"), SCC=Val(0, "u1"), **env,
        **case_env(case))
    mask = None
    if case.mask:
        where = "EXEC" if "EXEC" in case.text else "D0" if "D0.u64[laneId]" in case.text else "VCC"
        mask = end["D1"].bits & 1 if "D1" in end else end[where].bits >> lane & 1
        if where != "VCC":
            return None, mask
    bits = end["D0"].bits
    return (case.finish(bits, sources) if case.finish else bits), mask


def case_env(case):
    env = {"NEG": Val(0, "u3"), "OPSEL": Val(0, "u3"), "OPSEL_HI": Val(7, "u3"), "SIMM32": Val(
        0x3FC03E00, "u32")}
    env.update(getattr(case, "env", {}))
    return env


def lookup(name):
    return TEXTS.get(name)


# ---- the list of cases ----

def texts():
    from tinygrad.runtime.autogen.amd.rdna3.str_pcode import PCODE
    found = {}
    for op, text in PCODE.items():
        kind = type(op).__name__
        name = re.sub(r"_E(32|64)$", "", op.name).lower()
        found.setdefault(name, text)
        found.setdefault((kind, name), text)
    return found


TEXTS = texts()
PROGRAMS = collections.defaultdict(lambda: None)
CROSS = ("readfirstlane", "readlane", "writelane", "permlane", "movrel", "swap", "nop", "pipeflush",
         "wmma", "mov_b16", "div_scale", "cvt_off", "trig_preop", "div_fmas", "mqsad_u32")


def registers(prefix, first, width):
    return f"v{first}" if width <= 32 else f"v[{first}:{first + (3 if width > 64 else 1)}]"


def source_width(kind):
    return 64 if str(kind).endswith("64") else 32


def vector_cases():
    names = sorted({name[1] for name in TEXTS if isinstance(name, tuple) and name[0] in (
        "VOP1Op", "VOP2Op", "VOP3Op", "VOP3POp", "VOP3SDOp", "VOPCOp")})
    for name in names:
        if any(part in name for part in CROSS):
            continue
        text = TEXTS[name]
        case = vector_case(name, text)
        if case:
            yield case


def result_kind(name, text):
    if name.startswith("v_pk") and name.endswith("f16") or name == "v_cvt_pk_rtz_f16_f32":
        return "pk"
    if name == "v_pack_b32_f16":
        return "u32"
    types = re.findall(r"\bD0(?:\[\d+ : \d+\])?\.(\w+)", text)
    if name == "v_frexp_exp_i16_f16":
        return "u32"
    return next((t for t in types if t in NAN), "u32")


def vector_case(name, text):
    kinds = kinds_of(text)
    constant = re.match(r"v_cmpx?_[ft]_([fiu])(\d+)$", name)
    if constant:
        kind = ("f" if constant.group(1) == "f" else "i") + constant.group(2)
        kinds.update(S0=kind, S1=kind)
    sources = [registers("v", 2 + 2 * n, source_width(kinds[f"S{n}"])) for n in range(3)
               if f"S{n}" in kinds]
    how = {"kinds": kinds, "result": result_kind(name, text)}
    operation = re.match(r"v_(\w+)_(f16|f32|f64)$", name)
    if operation and operation.group(1) in TRANSCENDENTAL:
        kind = operation.group(2)
        how.update(hand=by_hand(operation.group(1), kind), ulp=0 if "sqrt" in name and kind != "f64"
                   else 1)
    special = re.match(r"v_(fract|rndne|div_fixup|frexp_exp_i\d+|ldexp)_(f\d+)$", name)
    if special:
        what, kind = special.groups()
        how.update({"fract": {"finish": below_one(kind)}, "rndne": {"hand": round_even(kind)},
                    "div_fixup": {"finish": estimate_lost(kind)},
                    "ldexp": {"hand": ldexp_f16} if kind == "f16" else {}}.get(
                        what, {"hand": frexp_by_hand(kind, what[10:])}))
    to = registers("v", 12, kinds.get("D0", 32))
    if name.startswith("v_cmpx"):
        return Case(name, f"{name} {', '.join(sources)}", text, mask="exec_lo", to_exec=True, **how)
    if name.startswith("v_cmp"):
        return Case(name, f"{name} s20, {', '.join(sources)}", text, mask="s20", **how)
    if "_co_" in name or name.startswith("v_mad_u64") or name.startswith("v_mad_i64"):
        carry = ", vcc_lo" if "_ci_" in name else ""
        return Case(name, f"{name} {to}, s20, {', '.join(sources)}{carry}", text, mask="s20", **how)
    if "cndmask" in name:
        return Case(name, f"{name} {to}, {', '.join(sources[:2])}, vcc_lo", text, **how)
    if "fmamk" in name or "fmaak" in name:
        literal = "0x3fc03e00" if name.endswith("f32") else "0x3e00"
        sources = [sources[0], literal, sources[1]] if "mk" in name else sources[:2] + [literal]
    if name.startswith("v_fma_mix"):
        case = Case(name, f"{name} {to}, v2, v4, v6 op_sel_hi:[1,1,1]", text, **how)
        case.kinds.update(S0="f16", S1="f16", S2="f16", D0=32)
        case.result = "f32" if name.endswith("f32") else "f16"
        if name == "v_fma_mixhi_f16":
            case.result = "pk"
        return case
    if name in ("v_dot4_i32_iu8", "v_dot8_i32_iu4"):
        case = Case(name, f"{name} {to}, v2, v4, v6 neg_lo:[1,0,0]", text, **how)
        case.env = {"NEG": Val(1, "u3")}
        return case
    return Case(name, f"{name} {to}, {', '.join(sources)}" if sources else f"{name}", text, **how)


def sign_flip(kind, negative, absolute):
    width = int(kind[1:])

    def apply(bits):
        if absolute:
            bits &= ~(1 << (width - 1))
        return bits ^ (1 << (width - 1) if negative else 0)
    return apply


def clamp_float(kind):
    def finish(bits, _):
        low = (1 << int(kind[1:])) - 1
        x = decode_float(bits & low, kind)
        return bits & ~low | encode_float(0.0 if x != x else min(max(x, 0.0), 1.0), kind)
    return finish


def modifier_cases():
    """neg, abs and clamp of float operations; halves by op_sel; packed signs and halves."""
    for name in ("v_add_f32", "v_fma_f32", "v_mul_f64", "v_max_f32", "v_fma_f16", "v_add_f64",
                 "v_min_f16", "v_add_f16", "v_cvt_f32_f16", "v_cvt_i32_f32", "v_med3_f32"):
        kinds, text = kinds_of(TEXTS[name]), TEXTS[name]
        kind = kinds["S0"]
        shape = ["-{}", "|{}|", "-|{}|"]
        used = [n for n in range(3) if f"S{n}" in kinds]
        words = [shape[n].format(registers("v", 2 + 2 * n, source_width(kinds[f"S{n}"])))
                 for n in used]
        change = [sign_flip(kind, n != 1, n != 0) for n in range(3)]
        to = registers("v", 12, kinds.get("D0", 32))
        clamp = result_kind(name, TEXTS[name]) in NAN
        line = f"{name}_e64 {to}, {', '.join(words)}" + " clamp" * clamp
        yield Case(name + " neg abs", line, text, kinds=kinds, result=result_kind(name, text),
                   prepare=lambda s, c=change: [f(x) for f, x in zip(c, s)],
                   finish=clamp_float(result_kind(name, text)) if clamp else None)
    for name in ("v_fma_f16", "v_mad_u16", "v_add_nc_u16", "v_max3_i16", "v_sub_nc_i16"):
        kinds, text = kinds_of(TEXTS[name]), TEXTS[name]
        used = [n for n in range(3) if f"S{n}" in kinds]
        words = ", ".join(f"v{2 + 2 * n}" for n in used)
        select = "1,0,1,1" if len(used) == 3 else "1,0,1"
        yield Case(name + " op_sel", f"{name} v12, {words} op_sel:[{select}]", text, kinds=kinds,
                   result="pk" if "f16" in name else "u32",
                   prepare=lambda s: [s[0] >> 16, s[1], s[2] >> 16],
                   finish=high_half)
    for name in ("v_pk_add_f16", "v_pk_fma_f16", "v_pk_mul_f16", "v_pk_max_f16"):
        kinds, text = kinds_of(TEXTS[name]), TEXTS[name]
        three = "S2" in kinds
        words, more = "v2, v4" + ", v6" * three, ",0" * three
        yield Case(name + " halves", f"{name} v12, {words} op_sel:[1,0{more}] op_sel_hi:[0,1"
                   + ",1" * three + f"] neg_lo:[1,0{more}] neg_hi:[0,1{more}]", text, kinds=kinds,
                   result="pk", prepare=lambda s: [(s[0] >> 16 | s[0] << 16) & 0xFFFFFFFF ^ 0x8000,
                                                   s[1] ^ 1 << 31, s[2]])


def high_half(bits, _):
    """The result went to the high half; the low one is the old D."""
    return (bits & 0xFFFF) << 16 | OLD & 0xFFFF


OLD = 0xC0DEBEEF


def flushed(kind):
    def apply(bits):
        low = (1 << int(kind[1:])) - 1
        return bits if is_nan(bits & low, kind) or abs(decode_float(bits & low, kind)) >= \
            2.0 ** (2 - (1 << (FLOATS[kind][0] - 1))) else bits & ~(low >> 1)
    return apply


def mode_cases():
    """MODE: rounding (f32 and the others apart), flushed denormals, min and max without IEEE."""
    for number, mode in enumerate(("up", "down", "zero"), 1):
        for name in ("v_add_f32", "v_mul_f32", "v_fma_f32", "v_sub_f32", "v_cvt_f32_f64",
                     "v_add_f64", "v_fma_f64", "v_add_f16", "v_mul_f16", "v_cvt_f16_f32",
                     "v_cvt_f32_i32"):
            case = vector_case(name, TEXTS[name])
            case.name += f" round {mode}"
            wide = case.result != "f32"
            case.before = f"s_round_mode {number << 2 if wide else number:#x}"
            case.after, case.mode = "s_round_mode 0x0", mode
            yield case
    for name in ("v_add_f32", "v_mul_f32", "v_fma_f32", "v_max_f32", "v_add_f64", "v_mul_f16"):
        case = vector_case(name, TEXTS[name])
        kind = case.result
        case.name += " flush"
        case.before, case.after = "s_denorm_mode 0x0", "s_denorm_mode 0xf"
        case.prepare = lambda sources, f=flushed(kind): [f(x) for x in sources]
        case.finish = lambda bits, _, f=flushed(kind): f(bits)
        yield case
    for name in ("v_min_f32", "v_max_f32", "v_min_f16", "v_max_f64", "v_med3_f32", "v_max3_f32"):
        case = vector_case(name, TEXTS[name])
        case.name += " without IEEE"
        case.before = "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 9, 1), 0"
        case.after = "s_setreg_imm32_b32 hwreg(HW_REG_MODE, 9, 1), 1"
        case.ieee = 0
        yield case


def saturating_cases():
    plus, minus = (lambda a, b: a + b), (lambda a, b: a - b)
    rows = [(f"v_{word}_nc_{kind}{width}", function, width, kind == "i")
            for word, function in (("add", plus), ("sub", minus))
            for kind in "ui" for width in (32, 16)]
    for name, function, width, signed in rows:
        def compute(s0, s1, *_, function=function, width=width, signed=signed):
            low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (
                0, (1 << width) - 1)
            kind = f"{'i' if signed else 'u'}{width}"
            value = function(Val(s0, kind).num(), Val(s1, kind).num())
            bits = min(max(value, low), high) & ((1 << width) - 1)
            return bits if width == 32 else OLD & 0xFFFF0000 | bits
        yield Case(name + " clamp", f"{name}_e64 v12, v2, v4 clamp", TEXTS[name], hand=compute)


# ---- assembling and running ----

HEAD = """
.amdgcn_target "amdgcn-amd-amdhsa--gfx1100"
.text
.globl test
.p2align 8
.type test,@function
test:
  s_load_b128 s[4:7], s[0:1], 0x0
  v_lshl_add_u32 v0, s2, 5, v0
  v_mul_u32_u24 v1, 48, v0
  v_lshlrev_b32 v20, 5, v0
  s_waitcnt lgkmcnt(0)
  global_load_b128 v[2:5], v1, s[4:5]
  global_load_b64 v[6:7], v1, s[4:5] offset:16
  global_load_b128 v[8:11], v1, s[4:5] offset:32
  s_waitcnt vmcnt(0)
"""
ONE = """
  v_dual_mov_b32 v12, v8 :: v_dual_mov_b32 v13, v9
  v_dual_mov_b32 v14, v10 :: v_dual_mov_b32 v15, v11
  s_mov_b32 vcc_lo, {vcc}
  s_mov_b32 s20, 0
  {before}
  {line}
  {after}
  s_mov_b32 s21, {mask}
  s_mov_b32 exec_lo, -1
  s_waitcnt_depctr 0xfff
  v_mov_b32 v16, s21
  global_store_b128 v20, v[12:15], s[6:7]
  global_store_b32 v20, v16, s[6:7] offset:16
  s_add_u32 s6, s6, {step}
  s_addc_u32 s7, s7, 0
"""
TAIL = """
  s_endpgm
.rodata
.p2align 6
.amdhsa_kernel test
  .amdhsa_user_sgpr_kernarg_segment_ptr 1
  .amdhsa_kernarg_size {kernarg}
  .amdhsa_group_segment_fixed_size {lds}
  .amdhsa_system_sgpr_workgroup_id_x 1
  .amdhsa_next_free_vgpr 32
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
    .kernarg_segment_size: {kernarg}
    .group_segment_fixed_size: {lds}
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: 32
    .sgpr_count: 64
    .vgpr_count: 32
    .max_flat_workgroup_size: 1024
    .args:
      - {{.size: 8, .offset: 0, .value_kind: global_buffer, .address_space: global}}
      - {{.size: 8, .offset: 8, .value_kind: global_buffer, .address_space: global}}
...
.end_amdgpu_metadata
"""


def assemble(text, path):
    done = subprocess.run([*ASSEMBLER, "-o", path, "-"], input=text, capture_output=True, text=True)
    return done.returncode == 0, done.stderr


def accepted(cases):
    """The cases that the assembler takes; what it refuses gfx1100 does not have."""
    text = "\n".join(case.line for case in cases)
    with tempfile.TemporaryDirectory() as folder:
        errors = assemble(text, os.path.join(folder, "x.o"))[1] if cases else ""
        bad = {int(n) for n in re.findall(r"^<stdin>:(\d+):", errors, re.M)}
    for number in sorted(bad):
        LEFT_OUT.append(cases[number - 1].line)
    return [case for number, case in enumerate(cases, 1) if number not in bad]


def run(text, inputs, out_bytes, waves):
    """The output of one kernel `test`, or what radeon said."""
    with tempfile.TemporaryDirectory() as folder:
        path = {name: os.path.join(folder, name) for name in ("k.hsaco", "in", "out")}
        ok, errors = assemble(text, path["k.hsaco"])
        if not ok:
            return None, errors
        with open(path["in"], "wb") as file:
            file.write(inputs)
        done = subprocess.run(
            [RADEON, "run", path["k.hsaco"], "--kernel", "test", "--grid", f"{32 * waves},1,1",
             "--block", "32,1,1", "--arg", f"in:{path['in']}", "--arg",
             f"out:{out_bytes}:{path['out']}"], capture_output=True, text=True)
        if done.returncode:
            return None, done.stdout + done.stderr
        with open(path["out"], "rb") as file:
            return file.read(), ""


def run_vector(cases):
    """[(case, failures)] of cases whose sources are of the same kinds."""
    rng = random.Random(repr([case.line for case in cases]))
    kinds = [cases[0].kinds.get(f"S{n}", "i32") for n in range(3)]
    vectors = [[value_of(kind, rng) for kind in kinds] for _ in range(VECTORS)]
    data = b"".join(struct.pack("<QQQQ4I", *(x & (1 << 64) - 1 for x in v), 0, OLD, 0x11111111,
                                0x22222222, 0x33333333) for v in vectors)
    step = VECTORS * 32
    text = HEAD + "".join(ONE.format(vcc=VCC, line=case.line, mask=case.mask or "s20", step=step,
                                     before=case.before, after=case.after)
                          for case in cases) + TAIL.format(kernarg=16, lds=0)
    out, errors = run(text, data, step * len(cases), WAVES)
    if out is None:
        return [(case, [errors.strip()[-300:]]) for case in cases[:1]], 0
    return judged(cases, vectors, out, lambda case, at, seen: compare(
        case, at % LANES, vectors[at], struct.unpack("<4II", seen[:20])))


def judged(cases, vectors, out, compared):
    """(each case with what is wrong, how many ran): 32 bytes for each vector of each case."""
    results = []
    for number, case in enumerate(cases):
        places = (32 * (number * len(vectors) + at) for at in range(len(vectors)))
        said = [compared(case, at, out[place:place + 32]) for at, place in enumerate(places)]
        results.append((case, [say for say in said if say]))
    return results, len(cases)


def compare(case, lane, vector, seen):
    width = 0 if case.kinds.get("D0") is None else case.kinds["D0"]
    old = OLD | 0x11111111 << 32 | 0x22222222 << 64 | 0x33333333 << 96
    try:
        want, mask = expected(case, lane, vector, old & ((1 << max(width, 32)) - 1))
    except Open as open_text:
        return f"open: {open_text}"
    got = sum(word << 32 * n for n, word in enumerate(seen[:4])) & ((1 << max(width, 32)) - 1)
    text = " ".join(f"{x:x}" for x in vector)
    if want is not None and not close(got, want & ((1 << max(width, 32)) - 1), case):
        return f"{text} lane {lane}: want {want:x}, seen {got:x}"
    if mask is not None and (seen[4] >> lane & 1) != mask:
        return f"{text} lane {lane}: want bit {mask}, seen mask {seen[4]:08x}"
    return None


# ---- scalar instructions: one wave a vector ----

SCALAR_HEAD = """
.amdgcn_target "amdgcn-amd-amdhsa--gfx1100"
.text
.globl test
.p2align 8
.type test,@function
test:
  s_load_b128 s[4:7], s[0:1], 0x0
  s_mul_i32 s3, s2, 48
  s_lshl_b32 s8, s2, 5
  v_mov_b32 v20, 0
  s_waitcnt lgkmcnt(0)
  s_add_u32 s4, s4, s3
  s_addc_u32 s5, s5, 0
  s_add_u32 s6, s6, s8
  s_addc_u32 s7, s7, 0
  s_load_b128 s[12:15], s[4:5], 0x0
  s_load_b128 s[16:19], s[4:5], 0x20
  s_waitcnt lgkmcnt(0)
  s_mov_b32 exec_lo, 1
"""
SCALAR_ONE = """
  s_mov_b64 s[20:21], s[16:17]
  s_mov_b64 s[30:31], s[18:19]
  s_cmp_lg_u32 s18, s18
  {scc}
  {line}
  s_cselect_b32 s24, 1, 0
  s_mov_b64 s[26:27], exec
  s_mov_b32 exec_lo, 1
  v_dual_mov_b32 v8, s20 :: v_dual_mov_b32 v9, s21
  v_dual_mov_b32 v10, s24 :: v_dual_mov_b32 v11, s26
  global_store_b128 v20, v[8:11], s[6:7]
  s_add_u32 s6, s6, {step}
  s_addc_u32 s7, s7, 0
"""
SCALAR_SKIP = ("movrel", "getreg", "setreg", "waitcnt", "version", "getpc", "setpc", "swappc",
               "rfe", "sendmsg", "call", "subvector", "_f32", "_f16", "wrexec_b64", "saveexec_b64")


def scalar_cases():
    names = sorted(name[1] for name in TEXTS if isinstance(name, tuple) and name[0] in (
        "SOP1Op", "SOP2Op", "SOPCOp", "SOPKOp"))
    for name in names:
        if any(part in name for part in SCALAR_SKIP):
            continue
        text, kinds = TEXTS[name], kinds_of(TEXTS[name])
        pair = {n: "s[{}:{}]".format(first, first + 1) if source_width(kinds.get(n)) == 64 or
                kinds.get(n) == 64 else f"s{first}" for n, first in (("S0", 12), ("S1", 14),
                                                                     ("D0", 20))}
        words = [pair["D0"]] if re.search(r"\bD0\b", text) and not name.startswith("s_cmp") else []
        if name.startswith("s_cmpk"):
            kinds.setdefault("S0", "i32")
            words = ["s12", "0x8005"]
        elif name in ("s_movk_i32", "s_cmovk_i32", "s_addk_i32", "s_mulk_i32"):
            words = ["s20", "0x8005"]
        else:
            words += [pair[n] for n in ("S0", "S1") if n in kinds]
        for scc in (0, 1) if "SCC" in text else (0,):
            case = Case(f"{name} scc={scc}", f"{name} {', '.join(words)}", text, kinds=kinds)
            case.scc = scc
            yield case


def run_scalar(cases):
    rng = random.Random(repr([case.line for case in cases]))
    kinds = [cases[0].kinds.get(f"S{n}", "i32") for n in range(2)]
    count = 96
    vectors = [[value_of(kind, rng) for kind in kinds] + [rng.getrandbits(64)]
               for _ in range(count)]
    data = b"".join(struct.pack("<QQQQQQ", v[0], v[1], 0, 0, v[2], 0) for v in vectors)
    step = count * 32
    text = SCALAR_HEAD + "".join(SCALAR_ONE.format(
        line=case.line, step=step, scc="s_cmp_eq_u32 s18, s18" if case.scc else "")
        for case in cases) + TAIL.format(kernarg=16, lds=0)
    out, errors = run(text, data, step * len(cases), count)
    if out is None:
        return [(case, [errors.strip()[-300:]]) for case in cases[:1]], 0
    return judged(cases, vectors, out, lambda case, at, seen: compare_scalar(
        case, vectors[at], struct.unpack("<4I", seen[:16])))


def compare_scalar(case, vector, seen):
    width = 64 if case.kinds.get("D0") == 64 else 32
    env = {"S0": Val(vector[0], "u64"), "S1": Val(vector[1], "u64")}
    try:
        end = PROGRAMS[case.text].run(
            D0=Val(vector[2], f"u{width}"), SCC=Val(case.scc, "u1"), EXEC=Val(1, "u64"),
            SIMM16=Val(0x8005, "u16"), SIMM32=Val(0, "u32"), **env)
    except Open as open_text:
        return f"open: {open_text}"
    low = (1 << width) - 1
    got = (seen[0] | seen[1] << 32) & low
    want = (end["D0"].bits & low, end["SCC"].bits & 1, end["EXEC"].bits & 0xFFFFFFFF)
    if (got, seen[2], seen[3]) != want:
        return "{:x} {:x} d {:x}: want {:x} scc {} exec {:x}, seen {:x} scc {} exec {:x}".format(
            *vector, *want, got, seen[2], seen[3])
    return None


# ---- LDS atomics, loads and stores: each lane its own 32 bytes ----

LDS_ONE = """
  v_dual_mov_b32 v12, v8 :: v_dual_mov_b32 v13, v9
  v_dual_mov_b32 v14, v10 :: v_dual_mov_b32 v15, v11
  ds_store_b64 v21, v[2:3]
  ds_store_b64 v21, v[8:9] offset:8
  ds_store_b64 v21, v[6:7] offset:16
  ds_store_b64 v21, v[8:9] offset:24
  {line}
  s_waitcnt lgkmcnt(0)
  ds_load_b128 v[24:27], v21
  global_store_b128 v20, v[12:15], s[6:7]
  s_waitcnt lgkmcnt(0)
  global_store_b128 v20, v[24:27], s[6:7] offset:16
  s_add_u32 s6, s6, {step}
  s_addc_u32 s7, s7, 0
"""
LDS_SKIP = ("gs_reg", "condxchg", "bvh", "addtid", "permute", "swizzle", "append", "consume", "gws",
            "ordered", "stride64", "nop")


def lds_cases():
    for name in sorted(name[1] for name in TEXTS if isinstance(name, tuple) and name[0] == "DSOp"):
        if any(part in name for part in LDS_SKIP):
            continue
        text = TEXTS[name]
        wide = 64 if re.search(r"(64)$", name) else 32
        regs = {"32": 1, "64": 2, "96": 3, "128": 4}.get(re.search(r"(\d+)", name.split("_")[-1] if
                "d16" not in name else "b32").group(1), 1)
        def reg(first, count):
            return f"v{first}" if count == 1 else f"v[{first}:{first + count - 1}]"
        two = "2addr" in name
        back = regs * (2 if two else 1)
        words = []
        if "load" in name or "_rtn_" in name:
            words.append(reg(12, back))
        words.append("v21")
        if "load" not in name:
            words.append(reg(4, regs) if regs <= 2 else reg(4, regs))
        if re.search(r"DATA2", text):
            words.append(reg(6, regs))
        tail = " offset0:0 offset1:1" if two else ""
        kind = "f32" if name.endswith("f32") else "i64" if wide == 64 else "i32"
        case = Case(name, f"{name} {', '.join(words)}{tail}", text,
                    kinds={"S0": kind, "S1": kind, "S2": kind, "D0": 128})
        yield case


MEMORY_ONE = """
  v_dual_mov_b32 v12, v8 :: v_dual_mov_b32 v13, v9
  v_dual_mov_b32 v14, v10 :: v_dual_mov_b32 v15, v11
  global_store_b64 v20, v[2:3], s[6:7]
  global_store_b64 v20, v[8:9], s[6:7] offset:8
  v_add_co_u32 v22, vcc_lo, s6, v20
  v_add_co_ci_u32 v23, vcc_lo, s7, 0, vcc_lo
  s_waitcnt_vscnt null, 0x0
  {line}
  s_waitcnt vmcnt(0) lgkmcnt(0)
  global_store_b128 v20, v[12:15], s[6:7] offset:16
  s_add_u32 s6, s6, {step}
  s_addc_u32 s7, s7, 0
"""


def memory_cases():
    """Atomics of GLOBAL and FLAT, with and without the old value."""
    for name in sorted(name[1] for name in TEXTS if isinstance(name, tuple) and name[0] in (
            "GLOBALOp", "FLATOp") and "atomic" in name[1]):
        regs = (2 if name.endswith("64") else 1)
        data = regs * (2 if "cmpswap" in name else 1)
        kind = "f32" if name.endswith("f32") else "i64" if regs == 2 else "i32"
        source = f"v[4:{3 + data}]" if data > 1 else "v4"
        back = "v[12:13]" if regs == 2 else "v12"
        flat = name.startswith("flat")
        where = ("v[22:23]", "") if flat else ("v20", ", s[6:7]")
        for glc in (False, True):
            to = f"{back}, " if glc else ""
            line = f"{name} {to}{where[0]}, {source}{where[1]}" + " glc" * glc
            yield Case(f"{name}{' glc' * glc}", line, TEXTS[name],
                       kinds={"S0": kind, "S1": kind, "S2": kind, "D0": 128}, memory=True)


def run_memory(cases):
    return run_lds(cases, MEMORY_ONE)


def run_lds(cases, template=None):
    rng = random.Random(repr([case.line for case in cases]))
    kind = cases[0].kinds["S0"]
    vectors = [[value_of(kind, rng) for _ in range(3)] for _ in range(VECTORS)]
    for n in range(0, VECTORS, 3):
        vectors[n][0] = vectors[n][2] = vectors[n][1]  # something to compare equal
    data = b"".join(struct.pack("<QQQQ4I", *v, 0, OLD, 0x11111111, 0x22222222, 0x33333333)
                    for v in vectors)
    step = VECTORS * 32
    head = HEAD + "  v_and_b32 v21, 31, v0\n  v_lshlrev_b32 v21, 5, v21\n"
    template = template or LDS_ONE
    text = head + "".join(template.format(line=case.line, step=step) for case in cases) + \
        TAIL.format(kernarg=16, lds=1024)
    out, errors = run(text, data, step * len(cases), WAVES)
    if out is None:
        return [(case, [errors.strip()[-300:]]) for case in cases[:1]], 0
    results = []
    for number, case in enumerate(cases):
        failures = []
        for at, vector in enumerate(vectors):
            seen = out[number * step + at * 32:number * step + at * 32 + 32]
            say = compare_lds(case, vector, seen)
            if say:
                failures.append(say)
        results.append((case, failures))
    return results, len(cases)


def compare_lds(case, vector, seen):
    old = struct.pack("<4I", OLD, 0x11111111, 0x22222222, 0x33333333)
    memory = bytearray(struct.pack("<QQQQ", vector[0], OLD | 0x11111111 << 32, vector[2], 0))
    data = int.from_bytes(struct.pack("<QQ", vector[1], vector[2]), "little")
    if case.in_memory:
        seen = seen[16:] + seen[:16]
    zero = Val(0, "u32")
    back = Val(int.from_bytes(old, "little"), "u128")
    try:
        end = PROGRAMS[case.text].run(
            MEMORY=memory, ADDR=zero, ADDR_BASE=zero, OFFSET=zero, OFFSET0=zero,
            OFFSET1=Val(1, "u32"),
            DATA=Val(data, "u128"), DATA2=Val(vector[2], "u64"), RETURN_DATA=back)
    except Open as open_text:
        return f"open: {open_text}"
    gives = any(word in case.name for word in ("rtn", "load", "glc"))
    returned = end["RETURN_DATA"].bits if gives else back.bits
    want = returned.to_bytes(16, "little") + bytes(memory[:16])
    same = seen == want
    if not same and case.kinds["S0"] == "f32":
        same = seen[:16] == want[:16] and all(is_nan(int.from_bytes(x[16:20], "little"), "f32")
                                              for x in (seen, want))
    if not same:
        return f"{vector[0]:x} {vector[1]:x} {vector[2]:x}: want {want.hex()}, seen {seen.hex()}"
    return None


# ---- instructions that move data between lanes: by hand, a whole wave at a time ----

PARTIAL = 0x0F0FF0F1


def picked(choose, active=0xFFFFFFFF, write=0xFFFFFFFF, fetch_inactive=False, zero=False):
    """D = v2 of lane choose(i), where that lane exists and is active; else 0 or the old D."""
    def compute(waves):
        result = []
        for i in range(LANES):
            lane = choose(i)
            fetched = lane is not None and (fetch_inactive or active >> lane & 1)
            writes = (active & write) >> i & 1 and (fetched or zero)
            result.append((waves[0][lane] if fetched else 0) & 0xFFFFFFFF if writes else OLD)
        return result
    return compute


def in_row(step):
    def choose(i):
        lane = step(i & 15)
        return (i & 16) + lane if 0 <= lane < 16 else None
    return choose


DPP = {
    "quad_perm:[3,0,1,2]": lambda i: (i & ~3) + [3, 0, 1, 2][i & 3],
    "row_shl:3": in_row(lambda at: at + 3), "row_shr:5": in_row(lambda at: at - 5),
    "row_ror:7": in_row(lambda at: (at - 7) % 16), "row_mirror": in_row(lambda at: 15 - at),
    "row_half_mirror": in_row(lambda at: at ^ 7), "row_share:4": in_row(lambda at: 4),
    "row_xmask:6": in_row(lambda at: at ^ 6),
}
SWIZZLE = {
    "swizzle(QUAD_PERM,2,3,0,1)": lambda i: (i & ~3) + [2, 3, 0, 1][i & 3],
    "swizzle(BITMASK_PERM,\"01pi0\")": lambda i: (i & 4 | 8 | (i & 2 ^ 2)),
    "swizzle(BROADCAST,8,3)": lambda i: (i & ~7) + 3,
    "swizzle(SWAP,4)": lambda i: i ^ 4, "swizzle(REVERSE,16)": lambda i: i ^ 15,
    "0xc040": lambda i: (i + 2) % 32, "0xc440": lambda i: (i - 2) % 32,
    "0xe003": lambda i: int(format(i, "05b")[::-1], 2) >> 2 | i & 3,
    "0xe01f": lambda i: i,
}
LOW, HIGH = 0x3210FEDC, 0x1B2A9876
SELECT = HIGH << 32 | LOW


def lane_cases():
    def case(name, line, compute, **how):
        return Case(name, line, "", kinds={"S0": "i32", "S1": "i32", "S2": "i32", "D0": 32},
                    lanes=compute, **how)

    for control, choose in DPP.items():
        for zero in (False, True):
            yield case(f"dpp {control} {zero}", f"v_mov_b32_dpp v12, v2 {control} row_mask:0xf "
                       f"bank_mask:0xf{' bound_ctrl:1' * zero}", picked(choose, zero=zero))
        for inactive in (False, True):
            yield case(f"dpp {control} exec {inactive}", f"v_mov_b32_dpp v12, v2 {control} "
                       f"row_mask:0xf bank_mask:0xf{' fi:1' * inactive}",
                       picked(choose, PARTIAL, fetch_inactive=inactive),
                       before=f"s_mov_b32 exec_lo, {PARTIAL:#x}")
        yield case(f"dpp {control} masks", f"v_mov_b32_dpp v12, v2 {control} row_mask:0x2 "
                   "bank_mask:0x5", picked(choose, write=0x0F0F0000))
    yield case("dpp8", "v_mov_b32_dpp v12, v2 dpp8:[7,5,3,1,6,4,2,0]",
               picked(lambda i: (i & ~7) + [7, 5, 3, 1, 6, 4, 2, 0][i & 7], zero=True))
    for name, flip in (("v_permlane16_b32", 0), ("v_permlanex16_b32", 16)):
        for options, bits in (("", 0), (" op_sel:[1,0]", 1), (" op_sel:[0,1]", 2)):
            for exec_mask in (0xFFFFFFFF, PARTIAL):
                yield case(f"{name}{options} {exec_mask:x}", f"{name} v12, v2, s22, s23{options}",
                           picked(lambda i, f=flip: (i & 16 ^ f) + (SELECT >> 4 * (i & 15) & 15),
                                  exec_mask, fetch_inactive=bits & 1, zero=bits & 2),
                           before=f"s_mov_b32 s22, {LOW:#x}\n  s_mov_b32 s23, {HIGH:#x}\n"
                                  f"  s_mov_b32 exec_lo, {exec_mask:#x}")
    for control, choose in SWIZZLE.items():
        for exec_mask in (0xFFFFFFFF, PARTIAL):
            yield case(f"swizzle {control} {exec_mask:x}",
                       f"ds_swizzle_b32 v12, v2 offset:{control}",
                       picked(choose, exec_mask, zero=True),
                       before=f"s_mov_b32 exec_lo, {exec_mask:#x}",
                       after="s_waitcnt lgkmcnt(0)")
    yield from register_cases(case)


def register_cases(case):
    def word(n):
        return lambda waves: [waves[n // 2][i] >> 32 * (n % 2) & 0xFFFFFFFF for i in range(LANES)]

    def permuted(waves):
        result = [0] * LANES
        for i in range(LANES):
            result[(waves[1][i] & 0xFFFFFFFF) // 4 % LANES] = waves[0][i] & 0xFFFFFFFF
        return result

    wait = {"after": "s_waitcnt lgkmcnt(0)"}
    yield case("ds_permute_b32", "ds_permute_b32 v12, v4, v2", permuted, **wait)
    yield case("ds_bpermute_b32", "ds_bpermute_b32 v12, v4, v2", lambda waves: [
        waves[0][(waves[1][i] & 0xFFFFFFFF) // 4 % LANES] & 0xFFFFFFFF for i in range(LANES)],
        **wait)
    yield case("v_readlane_b32", "v_readlane_b32 s20, v2, 37", lambda waves: [
        OLD] * LANES + [waves[0][5] & 0xFFFFFFFF])
    yield case("v_readfirstlane_b32", "v_readfirstlane_b32 s20, v2", lambda waves: [
        OLD] * LANES + [waves[0][9] & 0xFFFFFFFF], before="s_mov_b32 exec_lo, 0xfe00")
    yield case("v_readfirstlane_b32 of none", "v_readfirstlane_b32 s20, v2", lambda waves: [
        OLD] * LANES + [waves[0][0] & 0xFFFFFFFF], before="s_mov_b32 exec_lo, 0")
    yield case("v_writelane_b32", "v_writelane_b32 v12, 42, 7", lambda waves: [
        42 if i == 7 else OLD for i in range(LANES)], before="s_mov_b32 exec_lo, 1")
    yield case("v_swap_b32", "v_swap_b32 v12, v24", word(0), before="v_mov_b32 v24, v2")
    yield case("v_swap_b32 back", "v_swap_b32 v24, v12", word(0), before="v_mov_b32 v24, v2")
    yield case("v_movrels_b32", "v_movrels_b32 v12, v2", word(3), before="s_mov_b32 m0, 3")
    yield case("v_movreld_b32", "v_movreld_b32 v8, v2", word(0), before="s_mov_b32 m0, 4",
               after="v_mov_b32 v8, v24")
    yield case("v_movrelsd_b32", "v_movrelsd_b32 v11, v2", word(1), before="s_mov_b32 m0, 1")
    yield case("v_movrelsd_2_b32", "v_movrelsd_2_b32 v10, v2", word(3),
               before="s_mov_b32 m0, 0x20003")
    yield case("v_swaprel_b32", "v_swaprel_b32 v10, v22", word(0),
               before="v_mov_b32 v24, v2\n  s_mov_b32 m0, 0x20002")
    yield case("v_cvt_off_f32_i4", "v_cvt_off_f32_i4 v12, v2", lambda waves: [
        encode_float(((x & 15 ^ 8) - 8) / 16, "f32") for x in waves[0]])
    yield case("v_permlane64_b32", "v_permlane64_b32 v12, v2", lambda waves: [OLD] * LANES)
    yield case("ds_append", "ds_append v12 offset:64", lambda waves: [0x1234] * LANES,
               before="v_mov_b32 v24, 0x1234\n  v_mov_b32 v25, 64\n  s_mov_b32 m0, 0\n"
                      "  ds_store_b32 v25, v24\n  s_waitcnt lgkmcnt(0)", **wait)
    yield case("ds_consume", "ds_consume v12 offset:64", lambda waves: [0x1274] * LANES,
               before="ds_append v12 offset:64\n  s_waitcnt lgkmcnt(0)", **wait)


def run_lanes(cases):
    rng = random.Random(repr([case.line for case in cases]))
    vectors = [[rng.getrandbits(64) for _ in range(3)] for _ in range(VECTORS)]
    data = b"".join(struct.pack("<QQQQ4I", *v, 0, OLD, 0x11111111, 0x22222222, 0x33333333)
                    for v in vectors)
    step = VECTORS * 32
    text = HEAD + "  v_mov_b32 v24, v8\n  v_mov_b32 v25, 64\n" + "".join(ONE.format(
        vcc=VCC, line=case.line, mask="s20", step=step, before=case.before, after=case.after)
        for case in cases) + TAIL.format(kernarg=16, lds=1024)
    out, errors = run(text, data, step * len(cases), WAVES)
    if out is None:
        return [(case, [errors.strip()[-300:]]) for case in cases[:1]], 0
    results = []
    for number, case in enumerate(cases):
        failures = []
        for first in range(0, VECTORS, LANES):
            waves = [[vectors[first + i][n] for i in range(LANES)] for n in range(3)]
            want = case.lanes(waves)
            seen = [struct.unpack_from("<4II", out, number * step + (first + i) * 32)
                    for i in range(LANES)]
            got = [row[0] for row in seen] + [seen[0][4]] * (len(want) - LANES)
            if got != want:
                failures.append(" ".join(f"{i}: want {w:x} seen {g:x}" for i, (w, g) in enumerate(
                    zip(want, got)) if w != g)[:300])
        results.append((case, failures))
    return results, len(cases)


# ---- all together ----

def groups(cases, key):
    sorted_cases = collections.defaultdict(list)
    for case in cases:
        sorted_cases[key(case)].append(case)
    for some in sorted_cases.values():
        for at in range(0, len(some), PER_KERNEL):
            yield some[at:at + PER_KERNEL]


def work(job):
    runner, indices = job
    cases = [ALL[runner][n] for n in indices]
    for case in cases:
        if case.text and PROGRAMS[case.text] is None:
            PROGRAMS[case.text] = Pcode(case.text, lookup)
    results, ran = RUNNERS[runner](cases)
    return [(case.name, failures[:SHOWN], len(failures)) for case, failures in results], ran


RUNNERS = {"vector": run_vector, "scalar": run_scalar, "lds": run_lds, "memory": run_memory,
           "lanes": run_lanes}
ALL = {}


def main():
    if not shutil.which("clang-19") or not os.path.exists(RADEON):
        print("no clang-19 or no radeon")
        return 77
    ALL["vector"] = accepted([*vector_cases(), *modifier_cases(), *saturating_cases(),
                              *mode_cases()])
    ALL["scalar"] = accepted(list(scalar_cases()))
    ALL["lds"] = accepted(list(lds_cases()))
    ALL["memory"] = accepted(list(memory_cases()))
    ALL["lanes"] = accepted(list(lane_cases()))
    jobs = []
    for runner, cases in ALL.items():
        number = {id(case): n for n, case in enumerate(cases)}
        for some in groups(cases, lambda case: tuple(case.kinds.get(f"S{n}", "i32")
                                                     for n in range(3))):
            jobs.append((runner, [number[id(case)] for case in some]))
    passed, failed = 0, 0
    with multiprocessing.Pool(2) as pool:
        for results, ran in pool.imap(work, jobs):
            for name, failures, count in results:
                if count:
                    failed += 1
                    print(f"{name}: {count} wrong\n    " + "\n    ".join(failures))
            passed += ran - sum(1 for r in results if r[2]) if ran else 0
    if "-v" in sys.argv:
        print("not gfx1100:", "; ".join(LEFT_OUT))
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
