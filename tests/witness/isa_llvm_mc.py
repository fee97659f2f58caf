#!/usr/bin/env python3
"""isa_llvm_mc.py [--seed N] [--rounds N]: llvm-mc as the judge of `radeon disasm`.

For every encoding and every opcode it has room for, words with random fields; each combination of
fields being zero comes up, so that no knowledge of ours says which operands an opcode has. Then:
 - what llvm-mc refuses to disassemble, we refuse;
 - what llvm-mc disassembles and assembles again to the same bytes, we print in the same words and
   the same length (but for the opcodes in LEFT_OUT, which isa.def leaves out by name);
 - every row of isa.def was met.
A word that llvm-mc reads but would write otherwise (a reserved bit is set) may be refused.

ODD are readings of llvm-mc that no assembler writes, and sources of graphics.

Exit codes: 0 same, 1 different (differences are printed), 77 there is no llvm-mc, or no radeon.
"""
import argparse
import os
import random
import re
import shutil
import subprocess
import sys

RADEON = os.environ.get("RADEON", "build/host/radeon")
LEFT_OUT = re.compile(
    r"s_version|v_mov_b16|v_swap_b16|ds_gws_|ds_ordered_count|ds_bvh_|ds_(add|sub)_gs_reg"
    r"|s_atc_probe"
    r"|buffer_\w*format|buffer_load_lds|tbuffer_|image_|exp |lds_|v_dual_dot2acc_f32_bf16")
ODD = re.compile(
    r"v_dual_dot2acc.*, (0x|-?\d)|src_lds_direct|(wmma|cndmask).*(null|src_)"
    r"|sext\(|v_illegal|_e64(_dpp)? src_|s_sendmsg")


def tool():
    found = next((path for path in map(shutil.which, ("llvm-mc-19", "llvm-mc")) if path), None)
    if not found:
        print("no llvm-mc")
        sys.exit(77)
    return [found, "-arch=amdgcn", "-mcpu=gfx1100"]


def mark(index):
    return 0x1000 + index % 0x8000


def disassemble(codes):
    """Each code on its own: its text, or None. s_nop with a number marks where each one ends."""
    lines = []
    for index, code in enumerate(codes):
        for part in (code, (0xbf800000 | mark(index)).to_bytes(4, "little")):
            lines.append("[" + " ".join(f"0x{byte:02x}" for byte in part) + "]")
    result = subprocess.run(tool() + ["-disassemble"], input="\n".join(lines), text=True,
                            capture_output=True)
    refused = {(int(line) - 1) // 2 for line in re.findall(r"<stdin>:(\d+):2: warning",
                                                          result.stderr)}
    texts, current = [], None
    for line in result.stdout.split("\n")[1:]:
        line = re.sub(r"\s+", " ", line).strip()
        index = len(texts)
        if line == f"s_nop 0x{mark(index):x}":
            bad = index in refused or current is None or "/*" in current
            texts.append(None if bad else current)
            current = None
        elif line and current is None:
            current = line
    assert len(texts) == len(codes), (len(texts), len(codes))
    return texts


def assemble(texts):
    """Texts to bytes; None where llvm-mc has an error. Never a line without an answer."""
    marked = "\n".join(f"{text}\ns_nop {mark(i)}" for i, text in enumerate(texts))
    result = subprocess.run(tool() + ["-show-encoding"], input=marked, text=True,
                            capture_output=True)
    codes, current = [], None
    for code in re.findall(r"encoding: \[([^]]*)\]", result.stdout):
        code = bytes(int(byte, 16) for byte in code.split(","))
        if code == (0xbf800000 | mark(len(codes))).to_bytes(4, "little"):
            codes.append(current)
            current = None
        else:
            current = code
    assert len(codes) == len(texts), (len(codes), len(texts))
    return codes


def ours(codes):
    result = subprocess.run([RADEON, "disasm", "--hex"], text=True, capture_output=True, check=True,
                            input="".join(code.hex() + "\n" for code in codes))
    lines = [line.split("\t") for line in result.stdout.split("\n")[:-1]]
    assert len(lines) == len(codes)
    return [(0, None) if line[0] == "-" else (int(line[0]), line[1].split(" //")[0])
            for line in lines]


# ---- words: fields are (shift, kind); a kind draws a value, 0 is tried for each of them ----

class Words:
    def __init__(self, rng):
        self.rng = rng

    def scalar(self):
        return self.rng.choice([self.rng.randrange(0, 106), self.rng.randrange(0, 106) & ~3,
                                self.rng.randrange(106, 128), 106, 124, 126])

    def constant(self):
        return self.rng.choice([self.rng.randrange(128, 256), self.rng.randrange(128, 209),
                                self.rng.randrange(240, 249), 255])

    def ssrc(self):
        return self.rng.choice([self.scalar, self.scalar, self.constant])()

    def vgpr(self):
        return self.rng.choice([self.rng.randrange(0, 256), self.rng.randrange(0, 128)])

    def src(self):
        return self.rng.choice([lambda: 256 + self.vgpr(), lambda: 256 + self.vgpr(), self.scalar,
                                self.constant, lambda: self.rng.choice([233, 234, 250])])()

    def vsrc(self):
        return 256 + self.vgpr()

    def any(self, width):
        return self.rng.choice([self.rng.getrandbits(width), 1 << self.rng.randrange(width),
                                (1 << width) - 1])

    def field(self, kind):
        return self.any(kind) if isinstance(kind, int) else getattr(self, kind)()

    def literal(self):
        """Now and then a number that has an operand code of its own."""
        return self.rng.choice([self.rng.getrandbits(32), self.rng.getrandbits(16),
                                self.rng.randrange(-20, 70) & 0xffffffff,
                                self.rng.randrange(-2**15, 0) & 0xffffffff,
                                self.rng.choice([0x3f000000, 0xbf800000, 0x40000000, 0xc0800000,
                                                 0x3e22f983, 0x3c00, 0x3118, 0xc400, 0xffff,
                                                 0x3ff00000, 0x3fe00000])])

    def dpp(self):
        """What follows an instruction: a literal, a DPP word, or anything."""
        ctrl = self.rng.choice([self.rng.getrandbits(8), self.rng.randrange(0x100, 0x180), 0x140])
        return (self.vgpr() | ctrl << 8 | self.rng.getrandbits(2) << 18 |
                self.rng.choice([0, 0, self.rng.getrandbits(4)]) << 20 |
                self.rng.getrandbits(8) << 24)


OUT = [(15, 1), (59, 2)]
# name: words, fixed bits, opcode's shift and width, fields
ENCODINGS = {
    "sop2": (1, 2 << 30, 23, 7, [(16, "scalar"), (0, "ssrc"), (8, "ssrc")]),
    "sopk": (1, 0xb << 28, 23, 5, [(16, "scalar"), (0, 16)]),
    "sop1": (1, 0x17d << 23, 8, 8, [(16, "scalar"), (0, "ssrc")]),
    "sopc": (1, 0x17e << 23, 16, 7, [(0, "ssrc"), (8, "ssrc")]),
    "sopp": (1, 0x17f << 23, 16, 7, [(0, 16)]),
    "smem": (2, 0x3d << 26 | 0x7c << 57, 18, 8, [(6, "scalar"), (0, 6), (32, 21), (57, 7),
                                                 (13, 2)]),
    "vop2": (1, 0, 25, 6, [(17, "vgpr"), (0, "src"), (9, "vgpr")]),
    "vop1": (1, 0x3f << 25, 9, 8, [(17, "vgpr"), (0, "src")]),
    "vopc": (1, 0x3e << 25, 17, 8, [(0, "src"), (9, "vgpr")]),
    "vop3": (2, 0x35 << 26, 16, 10, [(0, "vgpr"), (32, "src"), (41, "src"), (50, "src"), (8, 3),
                                     (61, 3), (11, 4), (15, 1), (59, 2)]),
    "vop3s": (2, 0x35 << 26, 16, 10, [(0, "vgpr"), (8, "scalar"), (32, "src"), (41, "src"),
                                      (50, "scalar"), (61, 3), (15, 1), (59, 2)]),
    "vop3p": (2, 0xcc << 24 | 3 << 59 | 1 << 14, 16, 7,
              [(0, "vgpr"), (32, "src"), (41, "src"), (50, "src"), (8, 3), (61, 3), (11, 3),
               (14, 1), (59, 2), (15, 1)]),
    "wmma": (2, 0xcc << 24 | 3 << 59 | 1 << 14, 16, 7,
             [(0, "vgpr"), (32, "vsrc"), (41, "vsrc"), (50, "src"), (8, 3), (61, 3), (11, 3),
              (15, 1)]),
    "vinterp": (2, 0xcd << 24, 16, 7, [(0, "vgpr"), (32, "vsrc"), (41, "vsrc"), (50, "vsrc"),
                                       (61, 3), (8, 3), (11, 4), (15, 1)]),
    "vopd": (2, 0x32 << 26, 17, 9, [(0, "src"), (9, "vgpr"), (32, "src"), (41, "vgpr"), (49, 7),
                                    (56, "vgpr")]),
    "ds": (2, 0x36 << 26, 18, 8, [(56, "vgpr"), (32, "vgpr"), (40, "vgpr"), (48, "vgpr"), (0, 16),
                                  (17, 1)]),
    "flat": (2, 0x37 << 26 | 0x7c << 48, 18, 7, [(56, "vgpr"), (32, "vgpr"), (40, "vgpr"), (0, 13),
                                                 (13, 3), (14, 1)]),
    "scratch": (2, 0x37 << 26 | 1 << 16 | 0x7c << 48, 18, 7,
                [(56, "vgpr"), (32, "vgpr"), (40, "vgpr"), (55, 1), (48, "saddr"), (0, 13),
                 (13, 3)]),
    "global": (2, 0x37 << 26 | 2 << 16 | 0x7c << 48, 18, 7,
               [(56, "vgpr"), (32, "vgpr"), (40, "vgpr"), (48, "saddr"), (0, 13), (13, 3),
                (14, 1)]),
    "mubuf": (2, 0x38 << 26 | 0x80 << 56, 18, 8,
              [(32, "vgpr"), (40, "vgpr"), (48, 5), (53, 1), (54, 2), (56, "ssrc"), (0, 12),
               (12, 3)]),
}
TRIES = {"wmma": 512, "vinterp": 128, "vop3s": 12, "vop3": 48}  # instead of 16 to 32
OPCODES = {"sop2": 0x60, "sopk": 0x1c, "vop2": 0x3e, "wmma": 80}
FIRST_OPCODE = {"wmma": 64}


def words(rng, name, opcode, mask):
    draw = Words(rng)
    count, fixed, shift, _, fields = ENCODINGS[name]
    if mask is None:  # no operand at all: not even the code of "none"
        fixed, mask = fixed & 0xffffffff, 0
    value = fixed | opcode << shift
    for bit, (at, kind) in enumerate(fields):
        if not mask >> bit & 1:
            continue
        if kind == "saddr":  # replaces what "none" is
            value = value & ~(0x7f << at) | (draw.scalar() & 0x7f) << at
        else:
            value |= draw.field(kind) << at
    last = draw.dpp() if rng.random() < 0.6 else draw.literal()
    return (value & ((1 << 32 * count) - 1)).to_bytes(4 * count, "little") + last.to_bytes(
        4, "little")


def sparse(rng):
    """Which fields may be set at all: mostly those of operands, which come first."""
    return rng.choice([0, 7, 15, 15, 31, -1, -1])


def cases(rng, rounds):
    for name, (_, _, _, width, fields) in ENCODINGS.items():
        opcodes = min(1 << width, OPCODES.get(name, 1 << 16))
        masks = 1 << len(fields)
        tries = TRIES.get(name, max(16, min(masks, 32))) * rounds
        for opcode in range(FIRST_OPCODE.get(name, 0), opcodes):
            yield words(rng, name, opcode, None)
            for n in range(tries):
                mask = n % masks if masks <= 32 else rng.getrandbits(len(fields)) & sparse(rng)
                yield words(rng, name, opcode, mask)
    for _ in range(4000 * rounds):
        yield rng.getrandbits(96).to_bytes(12, "little")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    if not os.path.exists(RADEON):
        print("no", RADEON)
        return 77
    codes = list(cases(random.Random(args.seed), args.rounds))
    theirs, mine = disassemble(codes), ours(codes)
    back = iter(assemble([text for text in theirs if text]))
    back = [next(back) if text else None for text in theirs]
    wrong, met, agreed = [], set(), 0
    for i, (code, text, (size, own)) in enumerate(zip(codes, theirs, mine)):
        canonical = back[i] is not None and code.startswith(back[i])
        if own and own == text:
            met.add(re.sub(r"_(e32|e64|dpp|e64_dpp)$", "", own.split()[0]))
        if text is None:
            bad = own is not None
        elif own is None:
            bad = canonical and not (LEFT_OUT.match(text) or ODD.search(text))
        else:
            bad = not (own == text or ODD.search(text)) or (
                canonical and len(back[i]) != size)
            agreed += not bad
        if bad:
            wrong.append(f"{code.hex()}: llvm-mc {text!r} ({back[i].hex() if back[i] else None}), "
                         f"ours {own!r} {size}")
    rows = subprocess.run([RADEON, "disasm", "--rows"], capture_output=True, text=True,
                          check=True).stdout.split()
    missed = sorted(set(rows) - met)
    for line in wrong[:60]:
        print(line)
    print(f"{len(codes)} words, {agreed} instructions agree, {len(wrong)} differ; "
          f"{len(rows)} rows, not met: {missed[:20]}")
    return int(bool(wrong or missed))


if __name__ == "__main__":
    sys.exit(main())
