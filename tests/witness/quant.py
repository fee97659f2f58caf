#!/usr/bin/env python3
"""Lets Python's gguf package decode random blocks of every format; the runner's ml_quant_pack must
get the same bits."""

import os
import struct
import subprocess
import sys
import tempfile

import numpy
from gguf import GGMLQuantizationType as Type
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

RUNNER = os.environ.get("RUNNER", "build/test/runner")
BLOCKS = 400
HALVES = {  # where a block keeps its half floats
    Type.Q4_0: [0],
    Type.Q4_1: [0, 2],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 2],
    Type.Q8_0: [0],
    Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2],
    Type.Q6_K: [208],
}


def blocks(kind, rng):
    """Random bytes, the scales finite: normal, denormal, negative and zero."""
    data = rng.integers(0, 256, (BLOCKS, GGML_QUANT_SIZES[kind][1]), dtype=numpy.uint8)
    for at in HALVES.get(kind, []):
        half = data[:, at : at + 2].copy().view(numpy.uint16)
        half[(half & 0x7C00) == 0x7C00] ^= 0x4000
        half[::17] &= 0x83FF
        data[:, at : at + 2] = half.view(numpy.uint8)
    return data


def main():
    rng = numpy.random.default_rng(1)
    with tempfile.NamedTemporaryFile(suffix=".pack") as pack:
        for kind in (Type.F32, Type.F16, Type.BF16, *HALVES):
            data = blocks(kind, rng)
            with numpy.errstate(all="ignore"):
                values = dequantize(data.reshape(-1), kind).astype(numpy.float32)
            content, name = data.tobytes() + values.tobytes(), kind.name.encode()
            pack.write(struct.pack("<BII", kind, len(name), len(content)) + name + content)
        pack.flush()
        return subprocess.run(
            [RUNNER, "--filter", "ml_quant_pack", "--data", f"quant_pack={pack.name}"]
        ).returncode


sys.exit(main())
