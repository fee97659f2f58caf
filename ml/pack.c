/*
 * pack.c: repacks weights. Four-bit and eight-bit formats with plain blocks, which is most of a
 * small model's bytes, move a dword at a time; the others go through quant.c's codes.
 */
#include "ml/model_priv.h"

#define PACK_GRANULE_BYTES 16

struct packing packing_for(const struct quant_format *format, const struct target *target)
{
    struct packing p = {.tile = (u8)target->lanes,
                        .super = 1,
                        .block = 1,
                        .granule = target->waves ? PACK_GRANULE_BYTES : 0};

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

/* One row on its way into its lane of a tile. */
struct lane {
    const struct packing *packing;
    const struct quant_format *format;
    struct pack_tile size;
    struct pack_unit unit, last; /* with granules: whole units and the last one */
    u32 columns, lane, scale_bytes;
    u32 step; /* bytes from a dword of the lane to the next, four in a row */
};

/* Where a block's parts lie: planes with the number of its first dword, factors with that of its
 * first scale; the head of its super block. */
struct place {
    u8 *low, *high, *factors, *head;
    u32 low_word, high_word, factor, min_step; /* in factors from a scale to its minimum */
};

static inline struct place block_place(const struct lane *l, u8 *out, u32 block)
{
    const struct packing *p = l->packing;
    const struct pack_tile *t = &l->size;
    u32 super = p->super == 1 ? block : block / p->super;

    if (p->granule) {
        u32 unit = block / t->unit_blocks, first = unit * t->unit_blocks, in = block - first;
        u32 blocks = min_u32(t->unit_blocks, t->blocks - first);
        const struct pack_unit *u = blocks == t->unit_blocks ? &l->unit : &l->last;
        out += (usize)unit * l->unit.bytes;
        return (struct place){out,
                              out + u->high_at,
                              out + u->factors_at,
                              out + u->head_at,
                              in * p->block * t->low_bits / 32,
                              in * p->block * t->high_bits / 32,
                              in,
                              blocks};
    }
    u8 *head = out + (usize)super * t->super_bytes;
    out = head + t->super_head_bytes + (usize)(block - super * p->super) * t->block_bytes;
    u8 *high = out + t->low_bytes;
    return (struct place){
        .low = out, .high = high, .factors = high + t->high_bytes, .head = head, .min_step = 1};
}

/* Dword `word` of the lane in a plane, the first of four. */
static inline u8 *word_at(const struct lane *l, u8 *plane, u32 word)
{
    return plane + (usize)word * l->packing->tile * 4 + l->lane * (l->packing->granule ? 16u : 4u);
}

static inline void put_word(const struct lane *l, u8 *plane, u32 word, u32 value)
{
    put32(word_at(l, plane, word & ~3u) + (word & 3) * l->step, value);
}

/* The block's scale or, which = 1, minimum. */
static inline u8 *factor_at(const struct lane *l, const struct place *p, u32 which)
{
    u32 bytes = l->scale_bytes, tile = l->packing->tile;
    u32 at = (p->factor + which * p->min_step) * bytes;

    if (l->packing->granule)
        return p->factors + (at / 16 * tile + l->lane) * 16 + at % 16;
    return p->factors + at * tile + l->lane * bytes;
}

/* ggml's Q4_0 and Q4_1: byte i holds code i and code i + 16. */
static inline void low_plane_4(const struct lane *l, const u8 *qs, const struct place *p)
{
    u8 *at = word_at(l, p->low, p->low_word);

    for (u32 w = 0; w < 2; w++, at += l->step) {
        u32 a = get32(qs + 8 * w), b = get32(qs + 8 * w + 4);
        put32(at, (a & 0x0f0f0f0fu) | (b & 0x0f0f0f0fu) << 4);
        put32(at + 2 * l->step, (a >> 4 & 0x0f0f0f0fu) | (b & 0xf0f0f0f0u));
    }
}

/* A block's codes as one plane of `bits`, taken from bit `shift` of each code. */
struct plane {
    u8 *at;
    u32 word, bits, shift;
};

static void put_plane(const struct lane *l, const u8 *code, struct plane p)
{
    u32 per = 8 / p.bits, mask = (1u << p.bits) - 1;

    for (u32 g = 0; g < l->packing->block / 4u; g += per) {
        u32 dword = 0;
        for (u32 k = 0; k < per; k++)
            for (u32 j = 0; j < 4; j++)
                dword |= (code[4 * (g + k) + j] >> p.shift & mask) << (8 * j + p.bits * k);
        put_word(l, p.at, p.word + g / per, dword);
    }
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

/* Low plane and, for more than four bits, the high plane of one block. */
static void put_codes(const struct lane *l, const u8 *code, const struct place *p)
{
    u32 high = l->packing->code_bits - 4u;

    put_plane(l, code, (struct plane){p->low, p->low_word, 4, 0});
    if (high)
        put_plane(l, code, (struct plane){p->high, p->high_word, high, 4});
}

/* Any block or super block by way of its codes, with a float scale per block. */
static void put_row_floats(const struct lane *l, const u8 *in, u8 *out)
{
    const struct packing *p = l->packing;
    struct quant_block block;
    u32 per = l->format->elements / p->block;

    for (u32 i = 0; i < l->size.blocks; i++) {
        struct place to = block_place(l, out, i);
        if (i % per == 0)
            quant_unpack(l->format, in + i / per * l->format->bytes, &block);
        put_codes(l, block.code + i % per * p->block, &to);
        for (u32 which = 0; which < (p->has_min ? 2 : 1); which++) {
            f32 value = (which ? block.offset : block.scale)[i % per];
            if (p->scale_type == DT_F32)
                put_f32(factor_at(l, &to, which), value);
            else
                put16(factor_at(l, &to, which), f32_to_f16(value));
        }
    }
}

/* K formats keep d (and dmin) in the file: at the front with a minimum, at the end without. */
static void put_super(const struct lane *l, const u8 *in, u8 *out, u32 first)
{
    const struct packing *p = l->packing;
    u16 d = get_f16(p->has_min ? in : in + l->format->bytes - 2);
    u16 dmin = p->has_min ? get_f16(in + 2) ^ 0x8000u : 0; /* the minimum is taken off */
    f32 scale = f16_to_f32(d), min = f16_to_f32(dmin);
    struct place to = block_place(l, out, first);
    struct quant_block block;

    quant_unpack(l->format, in, &block);
    put16(to.head + l->lane * (p->granule ? 4 : 2), d);
    put16(to.head + (p->granule ? l->lane * 4 + 2 : (p->tile + l->lane) * 2), dmin);
    for (u32 b = 0; b < p->super; b++) {
        to = block_place(l, out, first + b);
        put_codes(l, block.code + b * p->block, &to);
        *factor_at(l, &to, 0) = factor_of(block.scale[b], scale);
        if (p->has_min)
            *factor_at(l, &to, 1) = factor_of(block.offset[b], min);
    }
}

static void put_row_super(const struct lane *l, const u8 *in, u8 *out)
{
    for (u32 i = 0; i < l->size.blocks; i += l->packing->super, in += l->format->bytes)
        put_super(l, in, out, i);
}

/* Plain blocks of 32: f16 scale, f16 minimum if any, codes. A loop per kind of code: these are most
 * bytes. */
static inline const u8 *put_factors(const struct lane *l, const u8 *in, const struct place *to)
{
    u32 count = l->packing->has_min ? 2 : 1;

    for (u32 which = 0; which < count; which++) {
        u16 half = get_f16(in + 2 * which);
        if (l->packing->scale_type == DT_F32)
            put_f32(factor_at(l, to, which), f16_to_f32(half));
        else
            put16(factor_at(l, to, which), half);
    }
    return in + 2 * count;
}

static void put_row_4(const struct lane *l, const u8 *in, u8 *out)
{
    for (u32 i = 0; i < l->size.blocks; i++, in += l->format->bytes) {
        struct place to = block_place(l, out, i);
        low_plane_4(l, put_factors(l, in, &to), &to);
    }
}

static void put_row_8(const struct lane *l, const u8 *in, u8 *out)
{
    for (u32 i = 0; i < l->size.blocks; i++, in += l->format->bytes) {
        struct place to = block_place(l, out, i);
        const u8 *codes = put_factors(l, in, &to);
        for (u32 w = 0; w < 8; w += 4) {
            u8 *at = word_at(l, to.low, to.low_word + w);
            for (u32 k = 0; k < 4; k++)
                put32(at + k * l->step, get32(codes + 4 * (w + k)) ^ 0x80808080u);
        }
    }
}

static void put_row_float(const struct lane *l, const u8 *in, u8 *out)
{
    u32 bytes = dtype_bytes(l->packing->float_type), tile = l->packing->tile;
    u32 run = l->packing->granule ? l->packing->granule / bytes : 1; /* elements side by side */

    for (u32 k = 0; k < l->columns; k++)
        memcpy(out + ((usize)(k / run * tile + l->lane) * run + k % run) * bytes,
               in + (usize)k * bytes, bytes);
}

void pack_tile_rows(const struct packing *packing, const struct quant_format *format,
                    const u8 *const row[PACK_TILE_MAX], u32 columns, u8 *out)
{
    struct lane l = {.packing = packing,
                     .format = format,
                     .size = pack_tile(packing, columns),
                     .columns = columns,
                     .step = packing->granule ? 4 : packing->tile * 4u,
                     .scale_bytes = dtype_bytes((enum dtype)packing->scale_type)};
    void (*put)(const struct lane *l, const u8 *in, u8 *out) =
        packing->code_bits == 0                             ? put_row_float
        : packing->super > 1                                ? put_row_super
        : packing->code_bits == 4 && format->elements == 32 ? put_row_4
        : packing->code_bits == 8                           ? put_row_8
                                                            : put_row_floats;
    bool full = packing->granule == 0; /* else there may be padding */

    if (packing->granule && packing->code_bits) {
        l.unit = pack_unit(packing, l.size.unit_blocks);
        l.last = pack_unit(packing, l.size.blocks % l.size.unit_blocks);
    }

    for (u32 lane = 0; lane < packing->tile; lane++)
        full &= row[lane] != NULL;
    if (!full)
        memset(out, 0, packing_bytes(packing, packing->tile, columns));
    for (l.lane = 0; l.lane < packing->tile; l.lane++)
        if (row[l.lane])
            put(&l, row[l.lane], out);
}
