/*
 * compile_lir_eval.h: executes LIR directly, lane by lane: the oracle of the machine encoders. It
 * follows lir.def's words and shares nothing with a back end.
 */
#ifndef NOHOST_COMPILE_LIR_EVAL_H
#define NOHOST_COMPILE_LIR_EVAL_H

#include "ml/compile/lir.h"

/* What the compiled kernel would do. Lanes that lir.h leaves undefined get a pattern that spoils
 * any result that depends on them. */
void lir_eval(const struct lir *lir, const u64 *args, u64 begin, u64 end, void *scratch);

/* One element of memory as a lane's 32 bits, and back. */
u32 lir_eval_load(enum dtype type, const void *from);
void lir_eval_store(enum dtype type, void *to, u32 bits);

#endif
