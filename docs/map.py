#!/usr/bin/env python3
"""docs/map.py: writes today's line counts into docs/MAP.md and says which files it lacks or has too
many. Sentences and their order are kept by hand.
"""
import re
import subprocess
import sys

APART = ("docs/", "tests/data/", "README.md", ".clang-format", ".gitignore")


def main():
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True).stdout.split()
    missing = {name for name in tracked if not name.startswith(APART)}
    room, heading, total, wrong = "", 0, 0, []
    lines = open("docs/MAP.md").read().split("\n")
    for at, line in enumerate(lines):
        title = re.match(r"## (\S+) \([\d,]+ lines\)", line)
        row = re.match(r"\| `([^`]+)` \| [\d,]+ \| (.*)", line)
        if title:
            room, heading, total = title[1], at, 0
        if not row:
            continue
        path = row[1] if row[1] in missing else f"{room}/{row[1]}"
        if path not in missing:
            wrong.append(f"{path} is not there, or stands twice")
            continue
        missing.remove(path)
        count = open(path, "rb").read().count(b"\n")
        total += count
        lines[at] = f"| `{row[1]}` | {count} | {row[2]}"
        lines[heading] = f"## {room} ({total:,} lines)"
    open("docs/MAP.md", "w").write("\n".join(lines))
    print("\n".join(wrong + [f"no row for {path}" for path in sorted(missing)]) or "ok")
    return bool(wrong or missing)


sys.exit(main())
