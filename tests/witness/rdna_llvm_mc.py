#!/usr/bin/env python3
"""rdna_llvm_mc.py FILE [CPU]: llvm-mc as the judge of our RDNA3 encoder and listing.

Each line is "words in hex <tab> text". llvm-mc assembles the text for CPU (gfx1100); its bytes must
be ours, one for one.

Exit codes: 0 same, 1 different (each difference is printed), 77 there is no llvm-mc that knows it.
"""
import os
import re
import shutil
import subprocess
import sys

NAMES = [os.environ.get("LLVM_MC", "")] + [f"llvm-mc-{n}" for n in range(24, 15, -1)] + ["llvm-mc"]


def assemble(lines, cpu):
    """Bytes by line; None where llvm-mc refuses."""
    tool = next((path for path in map(shutil.which, NAMES) if path), None)
    if not tool:
        print("no llvm-mc")
        sys.exit(77)
    result = subprocess.run([tool, "-triple=amdgcn", f"-mcpu={cpu}", "-show-encoding"],
                            input="\n".join(lines) + "\n", capture_output=True, text=True)
    if "not a recognized processor" in result.stderr:
        print(f"llvm-mc does not know {cpu}")
        sys.exit(77)
    refused = {int(line): why for line, why in
               re.findall(r"<stdin>:(\d+):\d+: error: (.*)", result.stderr)}
    codes = iter(re.findall(r"encoding: \[([^]]*)\]", result.stdout))
    return [refused[i] if i in refused else
            bytes(int(byte, 16) for byte in next(codes, "").split(",") if byte)
            for i in range(1, len(lines) + 1)]


def main(path, cpu="gfx1100"):
    with open(path, encoding="ascii") as file:
        pairs = [line.rstrip("\n").split("\t") for line in file]
    theirs = assemble([text for _, text in pairs], cpu)
    wrong = 0
    for (code, text), other in zip(pairs, theirs):
        ours = b"".join(int(word, 16).to_bytes(4, "little") for word in code.split())
        if ours != other:
            wrong += 1
            print(f"{text.strip()}: ours {ours.hex(' ', 4)}, llvm-mc "
                  f"{other if isinstance(other, str) else other.hex(' ', 4)}")
    print(f"{len(pairs)} instructions, {wrong} wrong")
    return bool(wrong or not pairs)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
