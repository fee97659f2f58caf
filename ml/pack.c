/*
 * pack.c: repacks weights. Four-bit and eight-bit formats with plain blocks, which is most of a
 * small model's bytes, move a dword at a time; the others go through quant.c's codes.
 */
#include "ml/model_priv.h"

struct packing packing_for(const struct quant_format *format, const struct target *target)
{
    struct packing p = {.tile = (u8)target->lanes, .super = 1, .block = 1};

    if (format->code_bits == 0) {
        p.float_type = format->type == QUANT_F32   ? DT_F32
                       : format->type == QUANT_F16 ? DT_F16
                                                   : DT_BF16;
        return p;
    }
    p.code_bits = (u8)format->code_bits;
    p.zero = (u8)format->zero;
    p.has_min = format->has_min;
    p.block = (u8)format->sub_elements;
    p.scale_type = DT_F16;
    if (format->elements > format->sub_elements) {
        p.super = (u8)(format->elements / format->sub_elements);
        p.scale_type = format->has_min ? DT_U8 : DT_I8;
    }
    if (target->isa == ISA_AVX2_WORDS) { /* conversions cost more there than bytes */
        p.super = 1;
        p.scale_type = DT_F32;
    }
    return p;
}

/* ---- one block into its lane ---- */

static void put32(u8 *at, u32 value)
{
    memcpy(at, &value, 4);
}
static void put16(u8 *at, u16 value)
{
    memcpy(at, &value, 2);
}
static void put_f32(u8 *at, f32 value)
{
    memcpy(at, &value, 4);
}
static u32 get32(const u8 *at)
{
    u32 value;
    memcpy(&value, at, 4);
    return value;
}

/* ggml's Q4_0 and Q4_1: byte i holds code i and code i + 16. */
static void low_plane_4(const u8 *qs, u8 *out, u32 row_bytes)
{
    for (u32 w = 0; w < 2; w++) {
        u32 a = get32(qs + 8 * w), b = get32(qs + 8 * w + 4);
        put32(out + w * row_bytes, (a & 0x0f0f0f0fu) | (b & 0x0f0f0f0fu) << 4);
        put32(out + (w + 2) * row_bytes, (a >> 4 & 0x0f0f0f0fu) | (b & 0xf0f0f0f0u));
    }
}

/* Codes of `count` columns as one plane of `bits`, taken from bit `shift` of each code. */
struct plane {
    u32 count, bits, shift;
};

static void put_plane(const u8 *code, struct plane p, u8 *out, u32 row_bytes)
{
    u32 per = 8 / p.bits, mask = (1u << p.bits) - 1;

    for (u32 g = 0; g < p.count / 4; g += per) {
        u32 dword = 0;
        for (u32 k = 0; k < per; k++)
            for (u32 j = 0; j < 4; j++)
                dword |= (code[4 * (g + k) + j] >> p.shift & mask) << (8 * j + p.bits * k);
        put32(out + g / per * row_bytes, dword);
    }
}

/* The bytes of one block or super block of a row tile and where its parts lie. */
struct parts {
    u32 planes, low, scale, block, head;
};

static struct parts parts_of(const struct packing *p)
{
    u32 low_bits = p->code_bits == 8 ? 8 : 4, high_bits = p->code_bits - low_bits;
    struct parts s = {.low = p->block * p->tile * low_bits / 8u};

    s.planes = s.low + p->block * p->tile * high_bits / 8u;
    s.scale = p->tile * dtype_bytes((enum dtype)p->scale_type);
    s.block = s.planes + s.scale * (p->has_min ? 2u : 1u);
    s.head = p->super > 1 ? p->tile * 4u : 0;
    return s;
}

/* Small whole factors and the super scale they multiply: exact, since scale = super * factor was.
 */
static u8 factor_of(f32 value, f32 super)
{
    if (super == 0)
        return 0;
    f32 q = value / super;
    return (u8)(i32)(q < 0 ? q - 0.5f : q + 0.5f);
}

static u16 get_f16(const u8 *at)
{
    u16 half;
    memcpy(&half, at, 2);
    return half;
}

/* One row on its way into its lane of a tile. */
struct lane {
    const struct packing *packing;
    const struct quant_format *format;
    struct parts parts;
    u32 columns, lane;
};

/* Low plane and, for more than four bits, the high plane of one block. */
static void put_codes(const struct lane *l, const u8 *code, u8 *out)
{
    const struct packing *p = l->packing;
    u32 row_bytes = 4u * p->tile;

    put_plane(code, (struct plane){p->block, 4, 0}, out + l->lane * 4, row_bytes);
    if (p->code_bits > 4)
        put_plane(code, (struct plane){p->block, p->code_bits - 4u, 4},
                  out + l->parts.low + l->lane * 4, row_bytes);
}

/* Scale (or, one row of scales further, minimum) of a block. */
static void put_factor(const struct lane *l, u32 which, f32 value, u8 *out)
{
    u8 *at = out + l->parts.planes + which * l->parts.scale;

    if (l->packing->scale_type == DT_F32)
        put_f32(at + l->lane * 4, value);
    else
        put16(at + l->lane * 2, f32_to_f16(value));
}

/* Any block or super block by way of its codes, with a float scale per block. */
static void put_row_floats(const struct lane *l, const u8 *in, u8 *out)
{
    const struct packing *p = l->packing;
    struct quant_block block;

    for (u32 k = 0; k < l->columns; k += l->format->elements, in += l->format->bytes) {
        quant_unpack(l->format, in, &block);
        for (u32 b = 0; b < l->format->elements / p->block; b++, out += l->parts.block) {
            put_codes(l, block.code + b * p->block, out);
            put_factor(l, 0, block.scale[b], out);
            if (p->has_min)
                put_factor(l, 1, block.offset[b], out);
        }
    }
}

/* K formats keep d (and dmin) in the file: at the front with a minimum, at the end without. */
static void put_super(const struct lane *l, const u8 *in, u8 *out)
{
    const struct packing *p = l->packing;
    u16 d = get_f16(p->has_min ? in : in + l->format->bytes - 2);
    u16 dmin = p->has_min ? get_f16(in + 2) ^ 0x8000u : 0; /* the minimum is taken off */
    f32 scale = f16_to_f32(d), min = f16_to_f32(dmin);
    struct quant_block block;

    quant_unpack(l->format, in, &block);
    put16(out + l->lane * 2, d);
    put16(out + (p->tile + l->lane) * 2, dmin);
    out += l->parts.head;
    for (u32 b = 0; b < p->super; b++, out += l->parts.block) {
        put_codes(l, block.code + b * p->block, out);
        out[l->parts.planes + l->lane] = factor_of(block.scale[b], scale);
        if (p->has_min)
            out[l->parts.planes + l->parts.scale + l->lane] = factor_of(block.offset[b], min);
    }
}

static void put_row_super(const struct lane *l, const u8 *in, u8 *out)
{
    u32 step = l->parts.head + l->packing->super * l->parts.block;

    for (u32 k = 0; k < l->columns; k += l->format->elements, in += l->format->bytes, out += step)
        put_super(l, in, out);
}

/* Plain blocks of 32: f16 scale, f16 minimum if any, codes. A loop per kind of code: these are most
 * bytes. */
static const u8 *put_factors(const struct lane *l, const u8 *in, u8 *out)
{
    u32 count = l->packing->has_min ? 2 : 1;

    for (u32 which = 0; which < count; which++) {
        u8 *at = out + l->parts.planes + which * l->parts.scale;
        u16 half = get_f16(in + 2 * which);
        if (l->packing->scale_type == DT_F32)
            put_f32(at + l->lane * 4, f16_to_f32(half));
        else
            put16(at + l->lane * 2, half);
    }
    return in + 2 * count;
}

static void put_row_4(const struct lane *l, const u8 *in, u8 *out)
{
    u32 row_bytes = 4u * l->packing->tile, at = l->lane * 4;

    for (u32 k = 0; k < l->columns; k += 32, in += l->format->bytes, out += l->parts.block)
        low_plane_4(put_factors(l, in, out), out + at, row_bytes);
}

static void put_row_8(const struct lane *l, const u8 *in, u8 *out)
{
    u32 row_bytes = 4u * l->packing->tile, at = l->lane * 4;

    for (u32 k = 0; k < l->columns; k += 32, in += l->format->bytes, out += l->parts.block) {
        const u8 *codes = put_factors(l, in, out);
        for (u32 w = 0; w < 8; w++)
            put32(out + at + w * row_bytes, get32(codes + 4 * w) ^ 0x80808080u);
    }
}

static void put_row_float(const struct lane *l, const u8 *in, u8 *out)
{
    u32 bytes = dtype_bytes(l->packing->float_type);

    for (u32 k = 0; k < l->columns; k++)
        memcpy(out + ((usize)k * l->packing->tile + l->lane) * bytes, in + (usize)k * bytes, bytes);
}

void pack_tile_rows(const struct packing *packing, const struct quant_format *format,
                    const u8 *const row[PACK_TILE_MAX], u32 columns, u8 *out)
{
    struct lane l = {packing, format, parts_of(packing), columns, 0};
    void (*put)(const struct lane *l, const u8 *in, u8 *out) =
        packing->code_bits == 0                             ? put_row_float
        : packing->super > 1                                ? put_row_super
        : packing->code_bits == 4 && format->elements == 32 ? put_row_4
        : packing->code_bits == 8                           ? put_row_8
                                                            : put_row_floats;
    for (u32 lane = 0; lane < packing->tile; lane++)
        if (!row[lane]) {
            memset(out, 0, packing_bytes(packing, packing->tile, columns));
            break;
        }
    for (l.lane = 0; l.lane < packing->tile; l.lane++)
        if (row[l.lane])
            put(&l, row[l.lane], out);
}
