/*
 * lir_eval.h: executes LIR directly, lane by lane: the oracle of the machine encoders. It follows
 * lir.def's words and shares nothing with a back end.
 */
#ifndef NOHOST_LIR_EVAL_H
#define NOHOST_LIR_EVAL_H

#include "ml/compile/lir.h"

/* ---- lir_eval.c ---- */

/* What the compiled kernel would do. Lanes that lir.h leaves undefined get a pattern that spoils
 * any result that depends on them. */
void lir_eval(const struct lir *lir, const u64 *args, u64 begin, u64 end, void *scratch);

/* One item on a target with groups: its waves run in turn from barrier to barrier. Registers and
 * the group's memory start as rubbish. */
struct lir_shadow;
struct lir_group {
    const struct lir *lir;
    const u64 *args;
    u64 item;
    u32 waves, group_bytes;
    struct lir_shadow *shadow;
};
/* E_FORMAT with the reason: waves in each other's way, memory outside of the group's own. */
err lir_eval_group(const struct lir_group *group, struct text *why);

/* One element of memory as a lane's 32 bits, and back. */
u32 lir_eval_load(enum dtype type, const void *from);
void lir_eval_store(enum dtype type, void *to, u32 bits);

/* ---- lir_shadow.c ---- */

struct lir_touch {
    u64 at;
    u32 bytes, wave;
    bool write, fixed;
    bool shared; /* memory of all groups, not the group's own */
};
struct lir_shadow *lir_shadow_open(void);
void lir_shadow_close(struct lir_shadow *shadow);
void lir_shadow_phase(struct lir_shadow *shadow);   /* all groups before have finished */
void lir_shadow_group(struct lir_shadow *shadow);   /* the next group begins */
void lir_shadow_barrier(struct lir_shadow *shadow); /* of the waves of the group */
/* What is wrong with the access, NULL: nothing. */
const char *lir_shadow_touch(struct lir_shadow *shadow, const struct lir_touch *touch);

/* ---- lir_run.c ---- */

/* The LIR of a graph for a target with groups, run by lir_eval_group. data: per external; output[i]
 * is in the arena or an external. */
struct lir_run {
    struct graph *graph; /* is rewritten */
    const struct compile_options *options;
    void *const *data;
    const u32 *sym_value;
    struct arena *arena;
    void **output;
};
err lir_run(const struct lir_run *run);

#endif
