#!/usr/bin/env python3
"""Prints unicode.h: the classes of code points that pre-tokenizers ask for, as Python's
unicodedata knows them.

A class change is one number, (first code point << 3) | class, in rising order; ASCII has a table
of its own.
"""
import sys
import unicodedata

OTHER, LETTER, NUMBER, SPACE, MARK = range(5)
WHITE_SPACE = {*b"\t\n\v\f\r \x85\xa0", 0x1680, *range(0x2000, 0x200B)}
WHITE_SPACE |= {0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def class_of(code):
    if code in WHITE_SPACE:
        return SPACE
    return {"L": LETTER, "N": NUMBER, "M": MARK}.get(unicodedata.category(chr(code))[0], OTHER)


def array(ctype, name, values):
    lines = [", ".join(values[i:i + 8]) for i in range(0, len(values), 8)]
    body = ",\n    ".join(lines)
    return f"static const {ctype} {name}[{len(values)}] = {{\n    {body}\n}};\n"


def main():
    classes = [class_of(code) for code in range(sys.maxunicode + 1)]
    changes = [c for c in range(len(classes)) if c == 0 or classes[c] != classes[c - 1]]
    version = unicodedata.unidata_version
    print(f"/* unicode.h: made by tools/gen_unicode.py from Unicode {version}. */")
    print("enum unicode_class { U_OTHER, U_LETTER, U_NUMBER, U_SPACE, U_MARK, U_END };\n")
    print(array("u8", "unicode_ascii", [str(c) for c in classes[:128]]))
    print(array("u32", "unicode_changes", [f"{code << 3 | classes[code]:#x}" for code in changes]))


main()
