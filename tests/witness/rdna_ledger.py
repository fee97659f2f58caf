#!/usr/bin/env python3
"""rdna_ledger.py [--record]: what a token costs on the simulated card must not grow: launches,
barriers, VRAM bytes, instructions, modelled time; bytes in flight must not shrink; and how many
instructions our products with quantised matrices execute for each of clang's. The limits are what
was last recorded in tests/data/rdna_ledger.json, and 2 %. 77: no clang-19 or no firmware.
"""
import json
import os
import shutil
import sys
import tempfile

sys.path.insert(0, "tests")
sys.path.insert(0, "tests/witness")
import ledger  # noqa: E402
import rdna_clang  # noqa: E402

MODEL = "build/model/SmolLM2-135M-Instruct.Q4_1.gguf"
LIMITS, SLACK, POSITION = "tests/data/rdna_ledger.json", 0.02, 8
FALLING = ("launches", "barriers", "vram_ratio", "instructions", "waits", "requests", "modelled_us")
RISING = ("flight_per_simd",)


def token():
    row = ledger.measure(MODEL, POSITION)
    row["modelled_us"] = row["ns_2.2"][1] / 1e3
    return {name: round(row[name], 4) for name in FALLING + RISING}


def against_clang():
    with tempfile.TemporaryDirectory() as folder:
        return {name: round(ours["per_weight"] / theirs["per_weight"], 4)
                for name, theirs, ours in rdna_clang.compared(folder, 1024, 4096)}


def main():
    if not shutil.which("clang-19") or not os.path.exists("build/firmware"):
        print("no clang-19, or no build/firmware")
        return 77
    seen = {"token": token(), "instructions_of_clang": against_clang()}
    if "--record" in sys.argv:
        with open(LIMITS, "w") as file:
            json.dump(seen, file, indent=1)
            file.write("\n")
    with open(LIMITS) as file:
        limits = json.load(file)
    failed = tried = 0
    for part, row in limits.items():
        for name, limit in row.items():
            value, sign = seen[part][name], -1 if name in RISING else 1
            good = sign * value <= sign * limit * (1 + sign * SLACK)
            print(f"{part} {name}: {value}, limit {limit}{'' if good else ': WORSE'}")
            tried, failed = tried + 1, failed + (not good)
    print(f"{tried - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
