/*
 * oracle.h: what the compiler is judged with: graphs as text (docs/GRAPH.md), a plain interpreter,
 * a plain reader of packed weights. Portable like ml/compile, but no part of the firmware.
 */
#ifndef NOHOST_ORACLE_H
#define NOHOST_ORACLE_H

#include "ml/compile/compile.h"
#include "ml/quant.h"

/* ---- parse.c, parse_ops.c ---- */

/* Names are slices of the source. On failure `why` says the line and what is wrong there. */
err graph_parse(struct graph *graph, struct str source, struct text *why);

/* ---- graph_check.c ---- */

/* The reason goes to graph->why. A state that is scattered into is read only through that SCATTER:
 * its older version has no other user. */
err graph_check(struct graph *graph);

/* ---- interp.c ---- */

struct binding {
    void *data;
}; /* one per external, in order; states are written */
/* Node by node in f32, sums and dot products in f64. output[i]: elements of output i, row-major, in
 * the arena or the memory of a source. E_NOMEM. */
err interp_run(const struct graph *graph, const struct binding *binding, const u32 *sym_value,
               struct arena *arena, void **output);

/* ---- packing_row.c ---- */

/* One row of a packed weight as floats. */
void packing_row(const struct packing *packing, const void *bytes, u32 columns, u32 row, f32 *out);
/* Exactly what ggml's scalar code makes of a file's bytes. count is a multiple of the block. */
void quant_decode(const struct quant_format *format, const void *bytes, f32 *out, u64 count);

#endif
