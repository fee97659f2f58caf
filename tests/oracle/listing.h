/*
 * listing.h: what the passes of ml/compile make, checked and as text. No part of the firmware.
 */
#ifndef NOHOST_LISTING_H
#define NOHOST_LISTING_H

#include "ml/compile/priv.h"
#include "ml/compile/rdna.h"
#include "ml/compile/x86.h"

/* ---- graph_print.c ---- */

/* In the text form of docs/GRAPH.md: parse.c reads it back to the same nodes. */
void graph_print(const struct graph *graph, struct text *out);

/* ---- lir_check.c ---- */

/* Classes, lanes, loops closed, and every read after a write in the order of the listing. A value
 * written only inside a loop and read behind it is undefined when the loop makes no trip. */
err lir_check(const struct lir *lir, struct text *why);
void lir_print(const struct lir *lir, struct text *out);

/* ---- x86_text.c ---- */

/* One line of Intel-syntax assembly, as llvm-mc accepts it. */
void x86_print(const struct minstr *instr, bool evex, struct text *out);
/* code_out.look: prints into code_out.listing, when there is one. */
void x86_look(const struct code_out *out, const struct minstr *instr, bool evex);

/* ---- rdna_text.c ---- */

/* One line of assembly, as llvm-mc accepts it, registers physical. Of a dual instruction instr[1]
 * is the second half. */
void rdna_print(const struct rinstr *instr, struct text *out);
/* code_out.look_rdna: prints into code_out.listing, when there is one. */
void rdna_look(const struct code_out *out, const struct rinstr *instr);

/* ---- dump.c ---- */

/* compile_options.look: prints the passes named in dump_passes. */
void dump_look(const struct compile_options *options, char pass, const struct graph *graph,
               void *made);

#endif
