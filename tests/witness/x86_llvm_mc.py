#!/usr/bin/env python3
"""x86_llvm_mc.py rows FILE | kernel FILE: llvm-mc as the judge of our encoder and listing.

rows: each line is "bytes in hex <tab> Intel-syntax text". llvm-mc assembles the text; its bytes
must be ours, or disassemble to the same text in no fewer bytes (it knows some shorter twins).
kernel: the first line is the bytes of a whole kernel, the rest its listing. Both are disassembled;
instruction for instruction they must say the same.

Exit codes: 0 same, 1 different (each difference is printed), 77 there is no llvm-mc.
"""
import os
import re
import shutil
import subprocess
import sys

ARGS = ["-triple=x86_64", "-mcpu=sapphirerapids", "-output-asm-variant=1"]


def tool():
    names = ["llvm-mc"] + [f"llvm-mc-{version}" for version in range(24, 13, -1)]
    found = next((path for path in map(shutil.which, [os.environ.get("LLVM_MC", "")] + names)
                  if path), None)
    if not found:
        print("no llvm-mc")
        sys.exit(77)
    return found


def run(args, text):
    result = subprocess.run([tool()] + ARGS + args, input=text, capture_output=True, text=True)
    if result.returncode or "warning:" in result.stderr:
        print(result.stderr[:2000])
        sys.exit(1)
    return result.stdout


def assemble(lines):
    """Texts to bytes; one encoding comment per instruction."""
    text = run(["-x86-asm-syntax=intel", "-show-encoding"], "\n".join(lines) + "\n")
    codes = re.findall(r"encoding: \[([^]]*)\]", text)
    return [bytes(int(byte, 16) if byte.startswith("0x") else 0 for byte in code.split(","))
            for code in codes]


def disassemble(codes):
    text = run(["-disassemble"], "\n".join(" ".join(f"0x{b:02x}" for b in code) for code in codes))
    lines = [re.sub(r"\s+", " ", line.split("#")[0]).strip() for line in text.split("\n")]
    return [line for line in lines if line and not line.startswith(".")]


def rows(path):
    with open(path, encoding="ascii") as file:
        pairs = [line.rstrip("\n").split("\t") for line in file]
    ours = [bytes.fromhex(code) for code, _ in pairs]
    theirs = assemble([text for _, text in pairs])
    if len(theirs) != len(ours):
        print(f"{len(ours)} instructions, llvm-mc saw {len(theirs)}")
        return 1
    odd = [i for i in range(len(ours)) if ours[i] != theirs[i]]
    odd_ours, odd_theirs = (disassemble([side[i] for i in odd]) if odd else []
                            for side in (ours, theirs))
    wrong = [i for i, mine, other in zip(odd, odd_ours, odd_theirs)
             if mine != other or len(ours[i]) < len(theirs[i])]
    if len(odd_ours) != len(odd) or len(odd_theirs) != len(odd):
        wrong = odd
    for i in wrong[:40]:
        print(f"{pairs[i][1].strip()}: ours {ours[i].hex()}, llvm-mc {theirs[i].hex()}")
    print(f"{len(ours)} instructions, {len(odd)} in another encoding, {len(wrong)} wrong")
    return bool(wrong)


def kernel(path):
    with open(path, encoding="ascii") as file:
        code, *listing = file.read().split("\n")
    # A jump's distance depends on the encodings between; everything else must match.
    ours, theirs = ([re.sub(r"^(j\w+) .*", r"\1", line) for line in disassemble(codes)]
                    for codes in ([bytes.fromhex(code)], assemble(listing)))
    data = [line for line in listing if ".byte" in line]
    ours = [line for line in ours if not line.startswith("nop") and line != "xchg ax, ax"]
    theirs = [line for line in theirs if not line.startswith("nop")]
    for i, (mine, other) in enumerate(zip(ours, theirs)):
        if mine != other:
            print(f"instruction {i}: ours {mine}, listing {other}")
            return 1
    print(f"{len(ours)} instructions, {len(data)} paddings")
    return len(ours) != len(theirs)


if __name__ == "__main__":
    sys.exit({"rows": rows, "kernel": kernel}[sys.argv[1]](sys.argv[2]))
