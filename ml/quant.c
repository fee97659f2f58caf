/*
 * quant.c: the table of block formats and how each block falls apart into codes, scales and
 * offsets. Must not know tensors or kernels. Layouts follow ggml's ggml-common.h, arithmetic its
 * ggml-quants.c.
 */
#include "ml/quant.h"

static u16 get_u16(const u8 *bytes)
{
    return (u16)(bytes[0] | bytes[1] << 8);
}

static f32 get_f16(const u8 *bytes)
{
    return f16_to_f32(get_u16(bytes));
}

/* Some bits of 32 bytes go into 32 codes: nibbles as the low one, fewer bits above it. */
static void add_bits(u8 *restrict code, const u8 *restrict from, u32 shift, u32 width)
{
    u32 mask = (1u << width) - 1, up = width == 4 ? 0 : 4;

    for (u32 i = 0; i < 32; i++)
        code[i] |= (u8)((from[i] >> shift & mask) << up);
}

/* Blocks of 32: scale, minimum if there is one, fifth bits if there are some, then the codes:
 * signed bytes, or the low halves of 16 bytes and then the high halves. */
static void unpack_32(const struct quant_format *format, const u8 *restrict b,
                      struct quant_block *restrict out)
{
    const u8 *packed = b + format->bytes - 16, *high = packed - 4;

    out->scale[0] = get_f16(b);
    if (format->has_min)
        out->offset[0] = get_f16(b + 2);
    for (u32 i = 0; format->code_bits == 8 && i < 32; i++)
        out->code[i] = b[2 + i] ^ 0x80; /* signed to unsigned: plus 128 */
    for (u32 i = 0; format->code_bits < 8 && i < 16; i++) {
        out->code[i] = packed[i] & 15;
        out->code[i + 16] = packed[i] >> 4;
    }
    for (u32 i = 0; format->code_bits == 5 && i < 32; i++)
        out->code[i] |= (u8)((high[i / 8] >> (i % 8) & 1) << 4);
}

/* Eight pairs of 6-bit scale and minimum in 12 bytes; the last four keep their top bits apart. Each
 * run of 32 bytes holds 64 codes, low halves first; a byte of `high` the fifth bits of eight. */
static void unpack_k(const struct quant_format *format, const u8 *b, struct quant_block *out)
{
    const u8 *packed = b + format->bytes - 128, *high = packed - 32, *s = b + 4;
    f32 scale = get_f16(b), min = get_f16(b + 2);

    for (u32 i = 0; i < 4; i++) {
        out->scale[i] = scale * (f32)(s[i] & 63);
        out->offset[i] = -(min * (f32)(s[i + 4] & 63));
        out->scale[i + 4] = scale * (f32)((s[i + 8] & 15) | (s[i] >> 6) << 4);
        out->offset[i + 4] = -(min * (f32)((s[i + 8] >> 4) | (s[i + 4] >> 6) << 4));
    }
    memset(out->code, 0, sizeof(out->code));
    for (u32 i = 0; i < 8; i++) {
        add_bits(out->code + i * 32, packed + i / 2 * 32, i % 2 * 4, 4);
        if (format->code_bits == 5)
            add_bits(out->code + i * 32, high, i, 1);
    }
}

/* Halves of 128 codes: 64 bytes of low nibbles, 32 bytes of high pairs. */
static void unpack_q6_k(const struct quant_format *format, const u8 *b, struct quant_block *out)
{
    f32 unit = get_f16(b + format->bytes - 2);

    memset(out->code, 0, sizeof(out->code));
    for (u32 i = 0; i < 8; i++) {
        add_bits(out->code + i * 32, b + i / 4 * 64 + i % 2 * 32, i % 4 / 2 * 4, 4);
        add_bits(out->code + i * 32, b + 128 + i / 4 * 32, i % 4 * 2, 2);
    }
    for (u32 i = 0; i < 16; i++)
        out->scale[i] = unit * (f32)(i8)b[192 + i];
}

// clang-format off
static const struct quant_format formats[] = {
    /* type        name    elements bytes sub bits  min   zero  unpack */
    {QUANT_F32,    "F32",    1,   4,   0,  0, false,   0, NULL},
    {QUANT_F16,    "F16",    1,   2,   0,  0, false,   0, NULL},
    {QUANT_BF16,   "BF16",   1,   2,   0,  0, false,   0, NULL},
    {QUANT_Q4_0,   "Q4_0",  32,  18,  32,  4, false,   8, unpack_32},
    {QUANT_Q4_1,   "Q4_1",  32,  20,  32,  4, true,    0, unpack_32},
    {QUANT_Q5_0,   "Q5_0",  32,  22,  32,  5, false,  16, unpack_32},
    {QUANT_Q5_1,   "Q5_1",  32,  24,  32,  5, true,    0, unpack_32},
    {QUANT_Q8_0,   "Q8_0",  32,  34,  32,  8, false, 128, unpack_32},
    {QUANT_Q4_K,   "Q4_K", 256, 144,  32,  4, true,    0, unpack_k},
    {QUANT_Q5_K,   "Q5_K", 256, 176,  32,  5, true,    0, unpack_k},
    {QUANT_Q6_K,   "Q6_K", 256, 210,  16,  6, false,  32, unpack_q6_k},
};
// clang-format on

const struct quant_format *quant_format(u32 type)
{
    for (u32 i = 0; i < ARRAY_LEN(formats); i++) {
        if (formats[i].type == type)
            return &formats[i];
    }
    return NULL;
}

u64 quant_bytes(const struct quant_format *format, u64 count)
{
    CHECK(count % format->elements == 0);
    return count / format->elements * format->bytes;
}

void quant_unpack(const struct quant_format *format, const void *block, struct quant_block *out)
{
    CHECK(format->unpack != NULL);
    format->unpack(format, block, out);
    for (u32 i = 0; !format->has_min && i < format->elements / format->sub_elements; i++)
        out->offset[i] = -(out->scale[i] * (f32)format->zero);
}

void quant_floats(const struct quant_format *format, const void *bytes, f32 *out, u64 count)
{
    CHECK(format->unpack == NULL);
    for (u64 i = 0; i < count; i++) {
        const u8 *from = (const u8 *)bytes + i * format->bytes;
        u16 half = get_u16(from);
        if (format->type == QUANT_F32)
            memcpy(&out[i], from, sizeof(f32));
        else
            out[i] = format->type == QUANT_F16 ? f16_to_f32(half) : bf16_to_f32(half);
    }
}

u16 f32_to_f16(f32 value)
{
    typedef f32 lanes __attribute__((vector_size(16)));

    return (u16)__builtin_ia32_vcvtps2ph((lanes){value}, 0)[0];
}
