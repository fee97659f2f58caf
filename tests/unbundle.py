#!/usr/bin/env python3
"""unbundle.py LIBRARY FOLDER: of the code objects for gfx1100 in a HIP library, those whose kernels
timing_hip.py launches, each as FOLDER/NAME.co. The bundles' format is clang-offload-bundler's.
"""
import mmap
import os
import struct
import sys

MAGIC, TARGET = b"__CLANG_OFFLOAD_BUNDLE__", "hipv4-amdgcn-amd-amdhsa--gfx1100"
# name: what only the wanted kernel's symbol begins with
WANTED = {
    "mul_mat_vec_q": b"_ZL13mul_mat_vec_qIL9ggml_type2ELi1E",
    "quantize_q8_1": b"_ZL13quantize_q8_1PKf", "rms_norm_f32": b"_ZL12rms_norm_f32ILi1024E",
    "rope_norm": b"_ZL9rope_normILb1ELb0E", "k_set_rows": b"_ZL10k_set_rowsIfl6__half",
    "flash_attn_ext_vec": b"_ZL18flash_attn_ext_vecILi128ELi1EL9ggml_type1ELS0_1ELb0E",
    "flash_attn_combine_results": b"_ZL18flash_attn_ext_vecILi128ELi1EL9ggml_type1ELS0_1ELb0E",
    "k_get_rows": b"_ZL10k_get_rowsILi32ELi2EXadL_ZL15dequantize_q4_0"}


def objects(data):
    """The code objects for TARGET."""
    at = data.find(MAGIC)
    while at >= 0:
        count, entry = struct.unpack_from("<Q", data, at + 24)[0], at + 32
        for _ in range(count):
            offset, size, length = struct.unpack_from("<QQQ", data, entry)
            if data[entry + 24:entry + 24 + length].decode() == TARGET:
                yield data[at + offset:at + offset + size]
            entry += 24 + length
        at = data.find(MAGIC, at + 24)


def main():
    library, folder = sys.argv[1:]
    left = dict(WANTED)
    with open(library, "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for code in objects(data):
                for name in [name for name, symbol in left.items() if symbol in code]:
                    del left[name]
                    with open(os.path.join(folder, name + ".co"), "wb") as out:
                        out.write(code)
    if left:
        sys.exit(f"unbundle: no kernel for {', '.join(left)} in {library}")


main()
