#!/usr/bin/env python3
"""regs_linux.py: Linux's register headers as the judge of amdgpu/regs.txt: segment and offset of
every row, mask of every named field, which header a row's block stands for. Then each kind of
mistake is made in one row, and must be found.

Exit codes: 0 all agree, 1 a difference (printed), 77 the headers are not there.
"""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HEADERS = os.path.join(ROOT, "build/linux/drivers/gpu/drm/amd/include/asic_reg")
FILES = {"GC": "gc/gc_11_0_0", "MMHUB": "mmhub/mmhub_3_0_0", "MP": "mp/mp_13_0_0",
         "OSSSYS": "oss/osssys_6_0_0", "NBIO": "nbio/nbio_4_3_0", "HDP": "hdp/hdp_6_0_0"}
DEFINE = re.compile(r"#define\s+(\w+)\s+(0x[0-9a-fA-F]+|\d+)U?L*\s")
ROWS_MAX = 450


def defines(path):
    with open(path) as text:
        return {name: int(value, 0) for name, value in DEFINE.findall(text.read())}


def read(path):
    with open(path) as text:
        return [line.split() for line in text if line.strip() and not line.startswith("#")]


def differences(row, offsets, masks):
    """What Linux's headers say against one row."""
    block, segment, offset, name, *fields = row
    seen, base = offsets[block].get("reg" + name), offsets[block].get(f"reg{name}_BASE_IDX")
    if seen is None:
        yield f"{name}: Linux has no such register in {FILES[block]}"
        return
    if int(offset, 16) != seen:
        yield f"{name}: offset {offset}, Linux has {seen:#x}"
    if int(segment) != base:
        yield f"{name}: segment {segment}, Linux has {base}"
    for field in fields:
        field, mask = field.split(":")
        want = masks[block].get(f"{name}__{field}_MASK")
        if want != int(mask, 16):
            yield f"{name}.{field}: mask {mask}, Linux has {want if want is None else hex(want)}"


def mutants(rows):
    """One row with one mistake each, of every kind."""
    plain = next(row for row in rows if len(row) > 5)
    block, segment, offset, name, field, *rest = plain
    other = "HDP" if block != "HDP" else "GC"
    shifted = f"{field.split(':')[0]}:{int(field.split(':')[1], 16) << 1:#x}"
    yield "offset", [block, segment, f"{int(offset, 16) + 1:#x}", name, field]
    yield "segment", [block, str(int(segment) + 1), offset, name, field]
    yield "block", [other, segment, offset, name, field]
    yield "name", [block, segment, offset, name + "X", field]
    yield "mask", [block, segment, offset, name, shifted]
    yield "field", [block, segment, offset, name, "X" + field]


def main():
    if not os.path.isdir(HEADERS):
        print("no register headers in build/linux")
        return 77
    offsets = {block: defines(f"{HEADERS}/{name}_offset.h") for block, name in FILES.items()}
    masks = {block: defines(f"{HEADERS}/{name}_sh_mask.h") for block, name in FILES.items()}
    rows, passed, failed = read(os.path.join(ROOT, "amdgpu/regs.txt")), 0, 0
    for row in rows:
        found = list(differences(row, offsets, masks))
        passed, failed = passed + (not found), failed + bool(found)
        for line in found:
            print(line)
    for kind, row in mutants(rows):
        found = list(differences(row, offsets, masks))
        passed, failed = passed + bool(found), failed + (not found)
        if not found:
            print(f"a wrong {kind} was not found: {row}")
    if len(rows) >= ROWS_MAX:
        print(f"{len(rows)} registers, under {ROWS_MAX} are wanted")
        failed += 1
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
