/*
 * lower_tile.h: what products with packed weights and reads of packed tables share: the way through
 * a row tile of `struct packing`, and rows of QUANT results.
 */
#ifndef NOHOST_LOWER_TILE_H
#define NOHOST_LOWER_TILE_H

#include "ml/compile/emit.h"

/* Memory of a stage's result; memory of a weight. */
struct lir_mem in_stage(const struct emit *e, const struct stage *s, u16 base, i64 disp);
struct lir_mem fixed_at(u16 base, i64 disp);
/* A pointer that the loop advances: its own register, written twice. */
u16 emit_pointer(struct emit *e, u16 start);
void emit_advance(struct emit *e, u16 p, i64 bytes);
/* Address of a row of a QUANT result; *step: bytes from one element of `axis` to the next. */
u16 quant_address(struct emit *e, u32 node, const struct affine *idx, u8 axis, i64 *step);
/* Loops over the leading axes of the stage's space that the grid has not fixed; share: the waves
 * share the last one. */
u32 open_rows(struct emit *e, u32 axes, bool share);
void close_rows(struct emit *e, u32 opened);

struct tile {
    const struct packing *packing;
    struct pack_tile size;
    u16 planes, scales, head; /* pointers to this lane's place in the block's planes, its scales,
                                 the super block's head; with granules planes: the unit */
    struct pack_unit unit;    /* with granules: the unit's parts, */
    u32 blocks, block;        /* its blocks, and the one that is read */
};
struct super {
    u16 scale, min;
};

/* row: SCALAR, the first row of the lanes. With one lane the row may stand anywhere in its tile. */
struct tile tile_open(struct emit *e, u32 weight, u16 row, bool whole);
void tile_walk(struct emit *e, struct tile *t);
void tile_advance(struct emit *e, const struct tile *t, i64 bytes);
/* Loops over super blocks and blocks; body emits one block. Closed by end_blocks. */
struct super begin_blocks(struct emit *e, struct tile *t);
void end_blocks(struct emit *e, const struct tile *t);
struct super super_factors(struct emit *e, const struct tile *t);
/* Scale or minimum (which = 1) of the block, as floats. */
u16 block_factor(struct emit *e, const struct tile *t, u32 which, u16 super_factor);
/* What is added to scale * code: the block's minimum, or minus the zero point times the scale. */
u16 code_offset(struct emit *e, const struct tile *t, u16 scale, struct super super);
/* Four codes per lane, columns 4*group .. 4*group+3 of the block, one per byte. */
u16 group_codes(struct emit *e, const struct tile *t, u32 group);
/* Dword `word` of the block in its low (0) or high (1) plane. */
u16 plane_word(struct emit *e, const struct tile *t, u32 plane, u32 word);
u16 code_value(struct emit *e, u16 codes, u32 j); /* code byte j of a group as float */

/* ---- granules ---- */

/* Units of a row of the weight, the last maybe smaller; shared: the waves take them in turn. body
 * emits one at tile->planes, whose first column is the SCALAR `column`. */
struct units {
    struct tile *tile;
    bool shared;
    void (*body)(struct emit *e, void *ctx, u16 column);
    void *ctx;
};
void each_unit(struct emit *e, const struct units *units);
u32 unit_count(const struct pack_tile *size);
/* Word `word` of what each lane has at `at` in the unit. */
u16 unit_word(struct emit *e, const struct tile *t, u32 at, u32 word);
/* The word that holds the block's scale or minimum; *part: which of its halves or bytes. */
u16 factor_word(struct emit *e, const struct tile *t, u32 which, u32 *part);

#endif
