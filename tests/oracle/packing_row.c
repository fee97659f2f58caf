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

/* ---- granules: a lane's bytes are read as if they stood together ---- */

/* Byte `at` of what one lane has in a part of a unit. */
static u8 lane_byte(const struct packing *packing, const u8 *part, u32 lane, u32 at)
{
    u32 granule = packing->granule;

    return part[(at / granule * packing->tile + lane) * granule + at % granule];
}

static u32 lane_bytes(const struct packing *packing, u32 bytes)
{
    return (u32)div_up(bytes, packing->granule) * packing->granule * packing->tile;
}

struct unit {
    u32 blocks, low, high, factors, bytes;
};

static struct unit unit_of(const struct packing *packing, u32 blocks)
{
    struct unit unit = {.blocks = blocks};
    u32 columns = blocks * packing->block, step = dtype_bytes((enum dtype)packing->scale_type);

    unit.low = lane_bytes(packing, columns * low_bits(packing) / 8);
    unit.high = lane_bytes(packing, columns * (packing->code_bits - low_bits(packing)) / 8);
    unit.factors = lane_bytes(packing, blocks * step * (packing->has_min ? 2 : 1));
    unit.bytes = unit.low + unit.high + unit.factors + super_bytes(packing);
    return unit;
}

static u32 units_bytes(const struct packing *packing, u32 blocks, u32 per)
{
    return blocks / per * unit_of(packing, per).bytes +
           (blocks % per ? unit_of(packing, blocks % per).bytes : 0);
}

/* Blocks of a unit: a super block, or the number up to 8 with the fewest bytes; of these one that
 * leaves no rest, else the largest. */
static u32 blocks_per_unit(const struct packing *packing, u32 blocks)
{
    u32 best = blocks < 8 ? blocks : 8;

    if (packing->super > 1)
        return packing->super;
    for (u32 per = best; per >= 5; per--) {
        u64 bytes = units_bytes(packing, blocks, per), least = units_bytes(packing, blocks, best);
        if (bytes < least || (bytes == least && blocks % per == 0 && blocks % best))
            best = per;
    }
    return best;
}

static f32 factor_read(const struct packing *packing, const u8 *part, u32 lane, u32 number)
{
    u32 step = dtype_bytes((enum dtype)packing->scale_type);
    u8 bytes[4];

    for (u32 i = 0; i < step; i++)
        bytes[i] = lane_byte(packing, part, lane, number * step + i);
    return number_at((enum dtype)packing->scale_type, bytes);
}

/* `bits` bits of a plane's code: four bytes hold the groups of columns from bit 0 upwards. */
static u32 granule_code(const struct packing *packing, const u8 *plane, u32 bits, u32 column,
                        u32 lane)
{
    u32 per_dword = 8 / bits, group = column / 4;
    u8 byte = lane_byte(packing, plane, lane, group / per_dword * 4 + column % 4);

    return (u32)byte >> bits * (group % per_dword) & ((1u << bits) - 1);
}

static void unit_read(const struct packing *packing, const u8 *at, struct unit unit, u32 lane,
                      f32 *out)
{
    u32 low = low_bits(packing), high = packing->code_bits - low;
    const u8 *factors = at + unit.low + unit.high, *head = factors + unit.factors + lane * 4;

    for (u32 k = 0; k < unit.blocks * packing->block; k++) {
        u32 block = k / packing->block, code = granule_code(packing, at, low, k, lane);
        f32 scale = factor_read(packing, factors, lane, block), min = 0;
        if (high)
            code |= granule_code(packing, at + unit.low, high, k, lane) << low;
        if (packing->has_min)
            min = factor_read(packing, factors, lane, unit.blocks + block);
        if (packing->super > 1) {
            scale *= number_at(DT_F16, head);
            min *= number_at(DT_F16, head + 2);
        }
        out[k] = scale * (f32)((i32)code - (i32)packing->zero) + min;
    }
}

static void granules_row(const struct packing *packing, const u8 *bytes, u32 columns, u32 row,
                         f32 *out)
{
    u32 lane = row % packing->tile, step = dtype_bytes(packing->float_type);
    u32 blocks = columns / packing->block, per = blocks_per_unit(packing, blocks);

    if (packing->code_bits == 0) {
        bytes += (u64)(row / packing->tile) * lane_bytes(packing, columns * step);
        for (u32 k = 0; k < columns; k++) {
            u8 element[4];
            for (u32 i = 0; i < step; i++)
                element[i] = lane_byte(packing, bytes, lane, k * step + i);
            out[k] = number_at(packing->float_type, element);
        }
        return;
    }
    bytes += (u64)(row / packing->tile) * units_bytes(packing, blocks, per);
    for (u32 block = 0; block < blocks; block += per) {
        struct unit unit = unit_of(packing, min_u32(per, blocks - block));
        unit_read(packing, bytes, unit, lane, out + block * packing->block);
        bytes += unit.bytes;
    }
}

void packing_row(const struct packing *packing, const void *bytes, u32 columns, u32 row, f32 *out)
{
    if (packing->granule) {
        granules_row(packing, bytes, columns, row, out);
        return;
    }
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
