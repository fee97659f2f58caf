#!/usr/bin/env python3
"""Writes model files that are valid, broken or built to hurt, and lets the sanitized runner judge
them.

Valid ones come from PyPI's gguf package; the hostile shapes are those of the public advisories
against other loaders.
"""

import os
import struct
import subprocess
import sys
import tempfile

import numpy
from gguf import GGUFReader, GGUFWriter
from gguf import GGMLQuantizationType as Type
from gguf.constants import GGML_QUANT_SIZES

RUNNER = os.environ.get("RUNNER", "build/test/runner")
REFUSE, ACCEPT, EITHER = range(3)
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
EDGES = [0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


def text(value):
    raw = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def array(name, kind, values, count=None):
    count = len(values) if count is None else count
    return key(name, ARRAY, struct.pack("<IQ", kind, count) + b"".join(values))


def strings(name, values):
    return array(name, STRING, [text(v) for v in values])


def tensor(name, dims, kind, offset):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def file(keys=(), tensors=(), data=b"", version=3, magic=b"GGUF", counts=None):
    counts = counts or (len(tensors), len(keys))
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


ARCH = key("general.architecture", STRING, text("llama"))


def containers():
    """(name, expectation, bytes) for gguf_open."""
    f32 = tensor("t", [8], Type.F32, 0)
    data = bytes(64)
    yield "plain", ACCEPT, file([ARCH], [f32], data)
    yield "version 2", ACCEPT, file([ARCH], [f32], data, version=2)
    yield "no tensors", ACCEPT, file([ARCH])
    yield "nothing at all", ACCEPT, file()
    yield "empty", REFUSE, b""
    yield "four bytes", REFUSE, b"GGUF"  # CVE-2024-39720
    yield "empty key", REFUSE, b"GGUF" + struct.pack("<IQQQIB", 3, 0, 1, 0, 0, 0)  # llama.cpp 24884
    for version in (0, 1, 4, 0x03000000, 2**32 - 1):
        yield f"version {version}", REFUSE, file([ARCH], [f32], data, version=version)
    for magic in (b"FUGG", b"GGML", b"GGJT", b"gguf"):
        yield f"magic {magic}", REFUSE, file([ARCH], [f32], data, magic=magic)
    for count in EDGES:
        if count > 1:
            yield f"{count} tensors", REFUSE, file([ARCH], [f32], data, counts=(count, 1))
            yield f"{count} keys", REFUSE, file([ARCH], [f32], data, counts=(1, count))
        yield f"key length {count}", EITHER, file(
            [struct.pack("<Q", count) + b"abcdefgh", ARCH], [f32], data
        )
        yield f"text length {count}", EITHER, file(
            [text("k") + struct.pack("<IQ", STRING, count) + b"xy"], [f32], data
        )
        yield f"array of {count}", EITHER, file([array("k", U32, [b"1234"], count)], [f32], data)
        yield f"array of {count} strings", EITHER, file(
            [array("k", STRING, [text("a")], count)], [f32], data
        )
        if count not in (1,):
            yield f"{count} dims", REFUSE, file(
                [ARCH], [text("t") + struct.pack("<IQIQ", count % 2**32 or 5, 8, 0, 0)], data
            )
        if count > 16:
            yield f"dim {count}", REFUSE, file([ARCH], [tensor("t", [count], Type.F32, 0)], data)
            yield f"second dim {count}", REFUSE, file(
                [ARCH], [tensor("t", [8, count], Type.F32, 0)], data
            )
            yield f"offset {count}", REFUSE, file([ARCH], [tensor("t", [8], Type.F32, count)], data)
    yield "dim 0", REFUSE, file([ARCH], [tensor("t", [0], Type.F32, 0)], data)
    yield "dims wrap to 8", REFUSE, file(
        [ARCH], [tensor("t", [2**32 + 1, 2**32, 2, 4], Type.F32, 0)], data
    )
    yield "exabytes", REFUSE, file(
        [ARCH], [tensor("t", [2**31, 2**31, 2], Type.F32, 0)], data
    )  # CVE-2026-33298
    yield "part of a block", REFUSE, file([ARCH], [tensor("t", [33], Type.Q4_0, 0)], data)
    yield "offset at the end", REFUSE, file([ARCH], [tensor("t", [8], Type.F32, 64)], data)
    yield "one byte short", REFUSE, file(
        [ARCH], [tensor("t", [8], Type.F32, 32)], data[:63]
    )  # CVE-2026-7482
    yield "not aligned", REFUSE, file([ARCH], [tensor("t", [8], Type.F32, 4)], data)
    yield "overlap", REFUSE, file(
        [ARCH], [tensor("t", [16], Type.F32, 0), tensor("u", [8], Type.F32, 32)], bytes(128)
    )
    yield "same name", REFUSE, file([ARCH], [f32, tensor("t", [8], Type.F32, 32)], data)
    yield "same key", REFUSE, file([ARCH, ARCH], [f32], data)
    yield "no name", REFUSE, file([ARCH], [tensor("", [8], Type.F32, 0)], data)
    for name in (b"\xff", b"\xc0\x80", b"a\0b", b"x" * 70000):
        yield f"key {name[:4]}", REFUSE, file([text(name) + struct.pack("<IB", U8, 1)], [f32], data)
        yield f"tensor {name[:4]}", REFUSE, file(
            [ARCH], [text(name) + struct.pack("<IQIQ", 1, 8, 0, 0)], data
        )
    for kind in (4, 5, 31, 36, 38, 99, 2**31, 2**32 - 1):
        yield f"tensor type {kind}", REFUSE, file([ARCH], [tensor("t", [8], kind, 0)], data)
    for kind in (13, 99, 2**31, 2**32 - 1):
        yield f"value type {kind}", REFUSE, file([key("k", kind, bytes(8))], [f32], data)
        yield f"element type {kind}", REFUSE, file([array("k", kind, [bytes(8)])], [f32], data)
    for depth in (1, 10, 10000):
        nested = struct.pack("<IQ", ARRAY, 1) * depth + struct.pack("<IQ", U8, 1) + b"\1"
        yield f"arrays nested {depth}", REFUSE, file([key("k", ARRAY, nested)], [f32], data)
    yield "bool of 2", REFUSE, file([key("k", BOOL, b"\2")], [f32], data)
    yield "bools of 2", REFUSE, file([array("k", BOOL, [b"\1", b"\2"])], [f32], data)
    for name, value in ("NaN", float("nan")), ("infinity", float("inf")):
        yield name, REFUSE, file([key("k", F32, struct.pack("<f", value))], [f32], data)
        yield name + " in 64 bits", REFUSE, file(
            [key("k", F64, struct.pack("<d", value))], [f32], data
        )
    for value in (0, 1, 3, 31, 33, 2**31, 2**32 - 1):
        yield f"alignment {value}", REFUSE, file(
            [key("general.alignment", U32, struct.pack("<I", value))], [f32], data
        )
    yield "alignment 48", REFUSE, file(
        [key("general.alignment", U32, struct.pack("<I", 48))], [f32], bytes(999)
    )
    for kind, value in (
        (I32, struct.pack("<i", -32)),
        (STRING, text("32")),
        (F32, struct.pack("<f", 32)),
    ):
        yield f"alignment of type {kind}", REFUSE, file(
            [key("general.alignment", kind, value)], [f32], data
        )
    yield "alignment in an array", REFUSE, file(
        [array("general.alignment", U32, [struct.pack("<I", 32)])], [f32], data
    )
    yield "part of three", REFUSE, file(
        [ARCH, key("split.count", U16, struct.pack("<H", 3))], [f32], data
    )
    yield "split.count a text", REFUSE, file(
        [ARCH, key("split.count", STRING, text("1"))], [f32], data
    )
    yield "a million keys", REFUSE, file(
        [key(f"k{i}", U8, b"\0") for i in range(5000)], [f32], data
    )


def written(folder):
    """A file of the gguf package with every type of value and tensor."""
    path = os.path.join(folder, "valid.gguf")
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_bool("flag", True)
    writer.add_float64("real", 1.5)
    writer.add_int64("long", -(2**62))
    writer.add_array("names", ["a", "bc", ""])
    writer.add_array("numbers", [1, 2, 3])
    rng = numpy.random.default_rng(1)
    for kind in (
        Type.F16,
        Type.Q4_0,
        Type.Q4_1,
        Type.Q5_0,
        Type.Q5_1,
        Type.Q8_0,
        Type.Q4_K,
        Type.Q5_K,
        Type.Q6_K,
    ):
        size, width = GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 255, (3, width * max(1, 64 // size)), dtype=numpy.uint8)
        writer.add_tensor(kind.name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    start = min(int(t.data_offset) for t in GGUFReader(path).tensors)
    return open(path, "rb").read(), start


def mutated(valid, header_bytes):
    """Every place of the header overwritten by numbers that hurt."""
    for at in range(8, header_bytes - 8):
        for number in EDGES[2:]:
            yield f"{number} at {at}", EITHER, valid[:at] + struct.pack("<Q", number) + valid[
                at + 8 :
            ]
    for at in range(0, len(valid) - 32, 7):
        yield f"cut at {at}", REFUSE, valid[:at]


def vocabulary(tokens=None, kinds=None, merges=("a b",), pre="gpt-2", model="gpt2", more=()):
    tokens = ["a", "b", "ab", "<|x|>"] if tokens is None else tokens
    kinds = [1] * (len(tokens) - 1) + [3] if kinds is None else kinds
    return file(
        [
            ARCH,
            key("tokenizer.ggml.model", STRING, text(model)),
            key("tokenizer.ggml.pre", STRING, text(pre)),
            strings("tokenizer.ggml.tokens", tokens),
            array("tokenizer.ggml.token_type", I32, [struct.pack("<i", k) for k in kinds]),
            strings("tokenizer.ggml.merges", merges),
            *more,
        ]
    )


def tokenizers():
    """(name, expectation, bytes) for tokenizer_open; an accepted one also encodes a text."""

    def ident(name, value, kind=U32):
        return key(
            f"tokenizer.ggml.{name}",
            kind,
            struct.pack({U32: "<I", I32: "<i", BOOL: "<B"}[kind], value),
        )

    yield "plain", ACCEPT, vocabulary()
    for name in ("llama", "bert", "", "gpt3"):
        yield f"model {name}", REFUSE, vocabulary(model=name)
    for name in ("", "default", "smollm ", "qwen2 deepseek-r1-qwen", "llama", "\u0000"):
        yield f"pre {name!r}", REFUSE, vocabulary(pre=name)
    yield "fewer kinds", REFUSE, vocabulary(kinds=[1, 1, 1])
    yield "more kinds", REFUSE, vocabulary(kinds=[1, 1, 1, 3, 3])
    yield "no tokens", REFUSE, vocabulary(tokens=[], kinds=[])
    for kind in (0, 7, -1, 2**31 - 1, -(2**31), 128):
        yield f"kind {kind}", REFUSE, vocabulary(kinds=[1, 1, kind, 3])
    yield "kinds as bytes", REFUSE, file(
        [  # llama.cpp 24888
            ARCH,
            key("tokenizer.ggml.model", STRING, text("gpt2")),
            key("tokenizer.ggml.pre", STRING, text("gpt-2")),
            strings("tokenizer.ggml.tokens", ["a", "b"]),
            array("tokenizer.ggml.token_type", U8, [b"\1", b"\1"]),
            strings("tokenizer.ggml.merges", []),
        ]
    )
    yield "token twice", REFUSE, vocabulary(tokens=["a", "b", "a", "<|x|>"])  # llama.cpp 24885
    yield "special twice", ACCEPT, vocabulary(
        tokens=["a", "b", "<|x|>", "<|x|>"], kinds=[1, 1, 3, 3]
    )
    yield "empty tokens", ACCEPT, vocabulary(tokens=["a", "b", "", "", "ab"], kinds=[1, 1, 1, 3, 1])
    yield "byte tokens", ACCEPT, vocabulary(
        tokens=["a", "b", "<0x-1>", "<0xZZ>"], kinds=[1, 1, 6, 6]
    )  # 25969
    yield "not bytes", ACCEPT, vocabulary(
        tokens=["a", "b", "中", b"\xff\xfe", "<|x|>"], kinds=[1, 1, 1, 1, 3]
    )
    yield "long token", REFUSE, vocabulary(tokens=["a", "b", "x" * 5000, "<|x|>"])
    yield "merge without a space", REFUSE, vocabulary(merges=["ab"])
    yield "empty merge", REFUSE, vocabulary(merges=[""])
    for merge in (
        " ",
        "a ",
        " b",
        "a b ",
        "a  b",
        "a c",
        "x y",
        "中 b",
        "a " + "b" * 5000,
        b"\xff \xff",
    ):
        yield f"merge {merge[:8]}", ACCEPT, vocabulary(merges=[merge])
    yield "a million merges", ACCEPT, vocabulary(merges=["a b"] * 10**6)
    yield "two million merges", REFUSE, vocabulary(merges=["a b"] * (2**20 + 1))
    yield "merge into a special", ACCEPT, vocabulary(
        tokens=["<|", "x|>", "<|x|>"], kinds=[1, 1, 3], merges=["<| x|>"]
    )
    for name in ("bos", "eos", "eot", "eom"):
        for value in (4, 2**31, 2**32 - 1):
            yield f"{name} {value}", REFUSE, vocabulary(more=[ident(f"{name}_token_id", value)])
        yield f"{name} -1", REFUSE, vocabulary(more=[ident(f"{name}_token_id", -1, I32)])
        yield f"{name} 3", ACCEPT, vocabulary(more=[ident(f"{name}_token_id", 3)])
    yield "bos wanted, none named", REFUSE, vocabulary(more=[ident("add_bos_token", 1, BOOL)])
    yield "bos named, not said to be wanted", ACCEPT, vocabulary(more=[ident("bos_token_id", 3)])


def judge(name, cases):
    with tempfile.NamedTemporaryFile(suffix=".pack") as pack:
        count = 0
        for title, expect, content in cases:
            title = title.encode()[:100]
            pack.write(struct.pack("<BII", expect, len(title), len(content)) + title + content)
            count += 1
        pack.flush()
        print(f"{name}: {count} files", flush=True)
        return subprocess.run(
            [RUNNER, "--filter", f"ml_{name}_pack", "--data", f"{name}_pack={pack.name}"]
        ).returncode


def main():
    with tempfile.TemporaryDirectory() as folder:
        valid, start = written(folder)
    cases = [("written by the gguf package", ACCEPT, valid), *containers(), *mutated(valid, start)]
    return judge("gguf", cases) | judge("tokenizer", tokenizers())


sys.exit(main())
