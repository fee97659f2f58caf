#!/usr/bin/env python3
"""radeon_run.py: the command line of `radeon run` and `radeon disasm`: what a kernel does wrong
ends with exit code 1 and is named with wave, place and instruction; what the caller does wrong ends
with 2; code objects of versions 4 to 6 and clang's bundles run; listings agree with llvm-objdump.
"""
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np

RADEON = os.environ.get("RADEON", "build/host/radeon")
CLANG = shutil.which("clang-19") or shutil.which("clang")
OBJDUMP = shutil.which("llvm-objdump-19") or shutil.which("llvm-objdump")
SOURCE = """
#define ITEM (__builtin_amdgcn_workgroup_id_x() * 64 + __builtin_amdgcn_workitem_id_x())
#define KERNEL __attribute__((reqd_work_group_size(64, 1, 1))) __kernel void
KERNEL add(__global const uint *a, __global uint *b, uint n) { if (ITEM < n) b[ITEM] += a[ITEM]; }
KERNEL copy(__global const uint *a, __global uint *b) { b[ITEM] = a[ITEM]; }
KERNEL spoil(__global uint *a, __global uint *b) { a[ITEM] = b[ITEM]; }
KERNEL choose(__global const uint *a, __global uint *b)
{
    if (b[ITEM + a[ITEM]] == 7)
        b[ITEM] = 1;
}
KERNEL wild(ulong where, __global uint *b) { b[ITEM] = *(__global uint *)where; }
KERNEL spin(__global volatile uint *a, __global uint *b) { while (a[0] == 0) {} b[ITEM] = 1; }
KERNEL race(__global const uint *a, __global uint *b)
{
    __local uint t[64];
    t[__builtin_amdgcn_workitem_id_x()] = a[ITEM];
    b[ITEM] = t[63 - __builtin_amdgcn_workitem_id_x()];
}
"""


class Bench:
    def __init__(self, folder):
        self.folder, self.passed, self.failed = folder, 0, 0
        np.arange(64, dtype=np.uint32).tofile(self.path("a"))
        np.ones(64, np.uint32).tofile(self.path("b"))
        with open(self.path("k.cl"), "w") as file:
            file.write(SOURCE)
        self.object = self.compile(5)

    def path(self, name):
        return f"{self.folder}/{name}"

    def compile(self, version):
        out = self.path(f"v{version}.hsaco")
        subprocess.run([CLANG, "-x", "cl", "-cl-std=CL2.0", "-target", "amdgcn-amd-amdhsa",
                        "-mcpu=gfx1100", f"-mcode-object-version={version}", "-O2", "-nogpulib",
                        "-w", self.path("k.cl"), "-o", out], check=True)
        return out

    def run(self, *args, kernel="add", file=None, grid="64"):
        return subprocess.run([RADEON, "run", file or self.object, "--kernel", kernel, "--grid",
                               grid, "--block", "64", *args], capture_output=True, text=True)

    def args(self, *values):
        return [word for value in values for word in ("--arg", value)]

    def a_b(self, b="inout", more=()):
        b = f"out:256:{self.path('out')}" if b == "out" else f"{b}:{self.path('b')}"
        return self.args("in:" + self.path("a"), b, *more)

    def expect(self, what, good, seen=""):
        self.passed += bool(good)
        self.failed += not good
        if not good:
            print(f"{what}: {seen}")

    def fails(self, what, code, words, done):
        text = done.stderr + done.stdout
        self.expect(what, done.returncode == code and all(word in text for word in words),
                    f"exit code {done.returncode}, want {code} and {words}: {text}")


def versions(t):
    for version in (4, 5, 6):
        t.expect(f"version {version}", t.run(*t.a_b(more=["u32:64"]), file=t.compile(version))
                 .returncode == 0)
    t.expect("added three times", (np.fromfile(t.path("b"), np.uint32) ==
                                   1 + 3 * np.arange(64)).all())
    with open(t.object, "rb") as file:
        code = file.read()
    names = [b"host-x86_64-unknown-linux--", b"hipv4-amdgcn-amd-amdhsa--gfx1100"]
    header = b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", 2)
    at = 4096
    for name, size in zip(names, (0, len(code))):
        header += struct.pack("<QQQ", at, size, len(name)) + name
    with open(t.path("bundle"), "wb") as file:
        file.write(header.ljust(at, b"\0") + code)
    t.expect("bundle", t.run(*t.a_b(more=["u32:64"]), file=t.path("bundle")).returncode == 0)


def kernels_at_fault(t):
    done = t.run(*t.a_b(more=["u32:65"]), grid="128")
    t.fails("load beyond a buffer", 1, ["memory-violation", "of argument", "wave", "add+0x"], done)
    done = t.run(*t.args("in:" + t.path("a"), f"out:128:{t.path('out')}"), kernel="copy")
    t.fails("store beyond a buffer", 1, ["store", "of argument 1, which has 128"], done)
    done = t.run(*t.a_b(), kernel="spoil")
    t.fails("store to a read-only buffer", 1, ["argument 0", "read-only"], done)
    done = t.run(*t.args("u64:0xdead0000"), *t.args(f"out:256:{t.path('out')}"), kernel="wild")
    t.fails("load from nowhere", 1, ["where nothing is"], done)
    done = t.run("--limit", "100000", kernel="spin", *t.args("inout:" + t.path("zero"),
                                                             f"out:256:{t.path('out')}"))
    t.fails("no end", 1, ["time-limit"], done)
    t.fails("LDS read before the barrier", 1, ["lds-race", "wave"], t.run(*t.a_b(), kernel="race"))
    done = t.run(*t.args("in:" + t.path("zero"), f"out:512:{t.path('out')}"), kernel="choose")
    t.fails("bytes that nobody wrote", 1, ["uninitialized-branch", "exec"], done)


def callers_at_fault(t):
    t.fails("no such kernel", 2, ["no kernel nothing"], t.run(kernel="nothing"))
    t.fails("too few arguments", 2, ["argument 1 is missing"], t.run("--arg", "in:" + t.path("a")))
    t.fails("too many arguments", 2, ["takes 3 arguments, 4"], t.run(
        *t.a_b(more=["u32:64", "u32:1"])))
    t.fails("a value for a buffer", 2, ["argument 0 has 8 bytes, 4 are given"], t.run(
        *t.args("f32:1", "in:" + t.path("a"), "u32:1")))
    t.fails("a buffer for a value", 2, ["argument 2: is not a buffer"], t.run(
        *t.a_b(more=["in:" + t.path("a")])))
    t.fails("no file", 2, ["cannot open"], t.run("--arg", "in:/nonexistent"))
    t.fails("no number", 2, ["want a number"], t.run("--seed", "many"))
    t.fails("groups too large", 2, ["a group may have 1024"], t.run("--block", "64,64"))
    t.fails("no code object", 2, ["64-bit little-endian ELF"], t.run(file=t.path("k.cl")))
    with open(t.object, "rb") as file:
        code = bytearray(file.read())
    with open(t.path("cut"), "wb") as file:
        file.write(code[:700])
    t.fails("a file that was cut", 2, ["cannot be run"], t.run(file=t.path("cut")))
    code[48] = 0x36  # EF_AMDGPU_MACH of gfx1030
    with open(t.path("other"), "wb") as file:
        file.write(code)
    t.fails("another chip", 2, ["another chip"], t.run(file=t.path("other")))


def listing(t):
    """Instruction for instruction what llvm-objdump says."""
    theirs = subprocess.run([OBJDUMP, "-d", t.object], capture_output=True, text=True).stdout
    ours = subprocess.run([RADEON, "disasm", t.object], capture_output=True, text=True).stdout
    theirs = [line.split("//")[0] for line in theirs.split("\n") if line.startswith("\t")]
    theirs = [re.sub(r"\s+", " ", line).strip() for line in theirs if "s_code_end" not in line]
    ours = [re.split(r" //|  +|(?: [0-9a-f]{8})+$", line[15:])[0] for line in ours.split("\n")
            if re.match("[0-9a-f]{12}:", line)]
    different = [pair for pair in zip(theirs, ours) if pair[0] != pair[1]]
    t.expect("listing", len(ours) == len(theirs) and not different, different[:3])


def main():
    if not CLANG or not OBJDUMP or not os.path.exists(RADEON):
        print("no clang, no llvm-objdump, or no", RADEON)
        return 77
    with tempfile.TemporaryDirectory() as folder:
        t = Bench(folder)
        np.zeros(64, np.uint32).tofile(t.path("zero"))
        for part in (versions, kernels_at_fault, callers_at_fault, listing):
            part(t)
        done = t.run(*t.a_b(more=["u32:64"]))
        t.expect("ledger", json.loads(done.stdout)["waves"] == 2, done.stdout)
        again = t.run(*t.a_b(more=["u32:64"]))
        t.expect("same seed, same run", done.stdout == again.stdout)
    print(f"{t.passed} passed, {t.failed} failed")
    return int(t.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
