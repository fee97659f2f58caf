#!/usr/bin/env python3
"""sim_names.py: docs/SIM.md names every finding that the simulated card's sources can raise, and no
other, and every exception by its bit.
"""
import glob
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# The engine of waves has its own list (compute_failure.name), its own part of the page.
ENGINE = ("wave", "valu", "salu", "flow", "code", "isa", "disasm", "lane", "dot", "serve")
WORD = r'"([a-z0-9]+(?:-[a-z0-9]+)+)"'
CALL = re.compile(r'(?:sim_fail|sim_note|refuse|bad|none)\(\s*[^;"]*?' + WORD)
NAME = re.compile(r'const char \*name =([^;]*);')


def raised():
    for path in glob.glob(os.path.join(ROOT, "sim/*.c")):
        if os.path.basename(path).startswith(ENGINE):
            continue
        with open(path) as source:
            text = source.read()
        yield from CALL.findall(text)
        for value in NAME.findall(text):
            yield from re.findall(WORD, value)


def main():
    with open(os.path.join(ROOT, "docs/SIM.md")) as page:
        text = page.read()
    findings = text.split("## Findings")[1].split("## Known differences")[0]
    told = re.findall(r"^\| `([a-z0-9-]+)` \|", findings, re.M)
    with open(os.path.join(ROOT, "sim/card.c")) as source:
        excepted = re.findall(r'\[EXCEPT_\w+\] = "([a-z-]+)"', source.read())
    rows = re.findall(r"^\| (\d+) \| `([a-z-]+)` \|", text, re.M)
    wrong = [f"docs/SIM.md has no {name}" for name in set(raised()) - set(told)]
    wrong += [f"nothing raises {name}" for name in set(told) - set(raised())]
    wrong += [f"{name} stands twice" for name in set(told) if told.count(name) > 1]
    if [(str(bit), name) for bit, name in enumerate(excepted)] != rows:
        wrong.append(f"exceptions: {rows} in docs/SIM.md, {excepted} in sim/card.c")
    print("\n".join(wrong) or f"{len(told)} findings, {len(rows)} exceptions")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
