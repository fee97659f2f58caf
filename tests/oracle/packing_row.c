/*
 * packing_row.c: reads packed weights one value at a time, exactly as `struct packing` in compile.h
 * describes their place. Slow on purpose: it is what the packer and the compiled loads are held
 * against. Must not know the formats that weights came from.
 */
#include "tests/oracle/oracle.h"
#include "ml/quant.h"

static f32 number_at(enum dtype type, const u8 *at);
static void block_read(const struct packing *packing, const u8 *at, u32 block, u32 lane, f32 *out);
static f32 code_at(const struct packing *packing, const u8 *block, u32 column, u32 lane);

/* Dwords per lane of a code plane of `bits`. */
static u32 plane_dwords(const struct packing *packing, u32 bits)
{
    return bits ? (u32)div_up(packing->block / 4u, 8 / bits) : 0;
}

static u32 low_bits(const struct packing *packing)
{
    return packing->code_bits == 8 ? 8 : 4;
}

static u32 planes_bytes(const struct packing *packing)
{
    u32 high = packing->code_bits - low_bits(packing);

    return 4u * packing->tile *
           (plane_dwords(packing, low_bits(packing)) + plane_dwords(packing, high));
}

static u32 scales_bytes(const struct packing *packing)
{
    return packing->tile * dtype_bytes((enum dtype)packing->scale_type);
}

static u32 block_bytes(const struct packing *packing)
{
    return planes_bytes(packing) + scales_bytes(packing) * (packing->has_min ? 2u : 1u);
}

/* Two f16 per lane in front of each super block. */
static u32 super_bytes(const struct packing *packing)
{
    return packing->super > 1 ? packing->tile * 4u : 0;
}

static u64 tile_bytes(const struct packing *packing, u32 columns)
{
    if (packing->code_bits == 0)
        return (u64)columns * packing->tile * dtype_bytes(packing->float_type);
    u64 blocks = columns / packing->block;
    return blocks * block_bytes(packing) + blocks / packing->super * super_bytes(packing);
}

void packing_row(const struct packing *packing, const void *bytes, u32 columns, u32 row, f32 *out)
{
    u32 tile = packing->tile, lane = row % tile, float_bytes = dtype_bytes(packing->float_type);
    const u8 *at = (const u8 *)bytes + row / tile * tile_bytes(packing, columns);

    if (packing->code_bits == 0)
        for (u32 k = 0; k < columns; k++)
            out[k] = number_at(packing->float_type, at + ((u64)k * tile + lane) * float_bytes);
    else
        for (u32 block = 0; block < columns / packing->block; block++)
            block_read(packing, at, block, lane, out + block * packing->block);
}

static void block_read(const struct packing *packing, const u8 *at, u32 block, u32 lane, f32 *out)
{
    u32 tile = packing->tile, inner = block % packing->super;
    enum dtype type = (enum dtype)packing->scale_type;
    const u8 *super = at + (u64)(block - inner) * block_bytes(packing) +
                      (u64)(block / packing->super) * super_bytes(packing);
    const u8 *codes = super + super_bytes(packing) + inner * block_bytes(packing);
    const u8 *scales = codes + planes_bytes(packing) + lane * dtype_bytes(type);
    f32 scale = number_at(type, scales), min = 0;

    if (packing->has_min)
        min = number_at(type, scales + scales_bytes(packing));
    if (packing->super > 1) {
        scale *= number_at(DT_F16, super + lane * 2);
        min *= number_at(DT_F16, super + (tile + lane) * 2);
    }
    for (u32 k = 0; k < packing->block; k++)
        out[k] = scale * code_at(packing, codes, k, lane) + min;
}

static f32 number_at(enum dtype type, const u8 *at)
{
    u16 half;
    f32 whole;

    switch (type) {
    case DT_F32:
        memcpy(&whole, at, sizeof whole);
        return whole;
    case DT_F16:
    case DT_BF16:
        memcpy(&half, at, sizeof half);
        return type == DT_F16 ? f16_to_f32(half) : bf16_to_f32(half);
    case DT_I8:
        return (f32)(i8)*at;
    default:
        return (f32)*at;
    }
}

/* Dword w of a lane holds columns 4g+j at bits 8j + bits * (g mod 8/bits), w = g / (8/bits). */
static u32 plane_code(const u8 *plane, u32 bits, u32 tile, u32 column, u32 lane)
{
    u32 group = column / 4, per_dword = 8 / bits, dword;

    memcpy(&dword, plane + (group / per_dword * tile + lane) * 4, sizeof dword);
    return dword >> (8 * (column % 4) + bits * (group % per_dword)) & ((1u << bits) - 1);
}

static f32 code_at(const struct packing *packing, const u8 *block, u32 column, u32 lane)
{
    u32 low = low_bits(packing), high = packing->code_bits - low, tile = packing->tile;
    u32 code = plane_code(block, low, tile, column, lane);

    if (high)
        code |= plane_code(block + 4u * tile * plane_dwords(packing, low), high, tile, column, lane)
                << low;
    return (f32)((i32)code - (i32)packing->zero);
}

/* ---- weights as a model file has them ---- */

void quant_decode(const struct quant_format *format, const void *bytes, f32 *out, u64 count)
{
    struct quant_block block;
    const u8 *from = bytes;

    CHECK(count % format->elements == 0);
    for (u64 i = 0; i < count; i++) {
        u32 in = (u32)(i % format->elements), sub;

        if (format->unpack == NULL) {
            quant_floats(format, from + i * format->bytes, &out[i], 1);
            continue;
        }
        if (in == 0)
            quant_unpack(format, from + i / format->elements * format->bytes, &block);
        sub = in / format->sub_elements;
        /* Two statements, because a compiler may fuse one and ggml's reference does not. */
        out[i] = block.scale[sub] * (f32)((i32)block.code[in] - (i32)format->zero);
        if (format->has_min)
            out[i] += block.offset[sub];
    }
}
