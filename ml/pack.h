/*
 * pack.h: from the block formats of a model file to the layout that compiled code reads (`struct
 * packing`, compile.h). One row tile at a time, so that loading streams. packing.c reads the result
 * back, slowly, as the check.
 */
#ifndef NOHOST_PACK_H
#define NOHOST_PACK_H

#include "ml/compile/compile.h"
#include "ml/quant.h"

#define PACK_TILE_MAX 16u

/* The layout for weights of this format on that target. */
struct packing packing_for(const struct quant_format *format, const struct target *target);
/* Bytes of one row tile. */
u64 packing_tile_bytes(const struct packing *packing, u32 columns);
/* row[i]: bytes of row i of the tile in the file's format; NULL: a row of zeros. Writes one row
 * tile to out. */
void pack_tile_rows(const struct packing *packing, const struct quant_format *format,
                    const u8 *const row[PACK_TILE_MAX], u32 columns, u8 *out);

#endif
