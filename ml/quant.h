/*
 * quant.h: the block formats of weights as a table. Every quantised format is decomposed the same
 * way, so that the repacker and the compiler know one shape: unsigned codes, and per sub-block a
 * scale and an offset. Layouts follow ggml's ggml-common.h; type numbers are those of the GGUF
 * format.
 */
#ifndef NOHOST_QUANT_H
#define NOHOST_QUANT_H

#include "kernel/base.h"

// clang-format off
enum quant_type {
    QUANT_F32 = 0, QUANT_F16 = 1, QUANT_Q4_0 = 2, QUANT_Q4_1 = 3,
    QUANT_Q5_0 = 6, QUANT_Q5_1 = 7, QUANT_Q8_0 = 8,
    QUANT_Q4_K = 12, QUANT_Q5_K = 13, QUANT_Q6_K = 14, QUANT_BF16 = 30
};
// clang-format on

#define QUANT_BLOCK_MAX 256u /* elements */
#define QUANT_SUBS_MAX  16u

/* One block, unpacked: value[i] = scale[s] * code[i] + offset[s], s = i / sub_elements. Without a
 * stored minimum offset[s] is exactly -zero * scale[s], so that a kernel may use signed codes
 * (code - zero) and no offset. Both are exact in f32: f16 times a small integer. */
struct quant_block {
    u8 code[QUANT_BLOCK_MAX];
    f32 scale[QUANT_SUBS_MAX];
    f32 offset[QUANT_SUBS_MAX];
};

struct quant_format {
    enum quant_type type;
    const char *name;
    u32 elements, bytes; /* of one block */
    u32 sub_elements;    /* that share scale and offset; 0: a float format, no decomposition */
    u32 code_bits;       /* 4, 5, 6 or 8; 0: float */
    bool has_min;        /* the offset is stored in the file; zero is 0 */
    u32 zero;            /* code of the value 0 when !has_min */
    void (*unpack)(const struct quant_format *format, const u8 *block, struct quant_block *out);
}; /* a float format has no unpack */

/* The row of a GGUF tensor type, NULL when it is unknown or not supported. */
const struct quant_format *quant_format(u32 type);
/* Bytes of `count` elements; count is a multiple of the block (CHECKed). */
u64 quant_bytes(const struct quant_format *format, u64 count);
/* One block of a quantised format. */
void quant_unpack(const struct quant_format *format, const void *block, struct quant_block *out);
/* Elements of a float format. */
void quant_floats(const struct quant_format *format, const void *bytes, f32 *out, u64 count);

u16 f32_to_f16(f32 value); /* to nearest, ties to even; NaN stays NaN */

static inline f32 f32_of_bits(u32 bits)
{
    f32 value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}
static inline f32 bf16_to_f32(u16 value)
{
    return f32_of_bits((u32)value << 16);
}
/* By integers: every scale of a model passes here, and QEMU's translator takes 70 ns for the
 * instruction. */
static inline f32 f16_to_f32(u16 half)
{
    u32 sign = (half & 0x8000u) << 16, rest = half & 0x7fffu;

    if (rest - 0x400 < 0x7800) /* a normal number */
        return f32_of_bits(sign | ((rest << 13) + ((127u - 15) << 23)));
    if (rest < 0x400) /* rest * 2^-24, exact */
        return (sign ? -0x1p-24f : 0x1p-24f) * (f32)rest;
    return f32_of_bits(sign | 0x7f800000 | rest << 13); /* infinity, NaN */
}

#endif
