/*
 * x86_select.h: the state of instruction selection, shared by its walk (x86_select.c) and its rules
 * (x86_rules.c).
 */
#ifndef NOHOST_X86_SELECT_H
#define NOHOST_X86_SELECT_H

#include "ml/compile/x86.h"

#define X86_FOLD_REACH 128u /* how far behind a load its user may stand */

enum { HEAD, BODY, STREAMS }; /* entry code, then the rest */

struct open_loop {
    const struct lir_instr *instr;
    u32 id;
    bool single_trip;
};

/* One register for each constant value. */
struct constant {
    u64 key;
    u16 vreg;
};

/* What is known of a LIR register. */
struct value {
    u16 uses, writes;
    u16 writer;   /* the last instruction that writes it */
    u16 name;     /* its machine register */
    u16 base;     /* a dot product in 16-bit pairs: the sum it starts from ... */
    u8 pairs_sum; /* ... and what the unsigned bytes add up to; 0: it is no such thing */
    bool folded;  /* its writer is executed as part of its user */
};

struct select {
    const struct lir *lir;
    const struct target *target;
    bool wide; /* AVX-512 */
    u8 size;   /* of the instruction at hand, as minstr.size ... */
    u8 full;   /* ... and of full vectors */
    struct minstr *stream[STREAMS];
    u32 count[STREAMS], max[STREAMS], at;
    struct mcode *out;
    struct constant *constant;
    u32 constant_count, constant_max;
    struct open_loop open[LIR_LOOP_DEPTH_MAX];
    u32 depth, loop_count;
    err status;
    struct value value[LIR_VREGS_MAX];
    bool *has_memory; /* by instruction: a load is folded into it */
    u16 first_rule[LIR_OP_COUNT];
};

/* ---- x86_select.c ---- */

/* Puts it at the end of the code. */
void select_append(struct select *s, struct minstr instr);
void select_put(struct select *s, u16 row, u16 dst, u16 a, i64 imm);
u16 select_temporary(struct select *s, u8 class);
/* The register whose lanes all hold the low 32 bits of key, or the numbers of the lanes. */
#define KEY_IOTA (1ull << 32)
u16 select_constant(struct select *s, u64 key);
/* The operation that reads in's result, when it is the only one, in the same block; NULL: none.
 * Nothing between writes `kept`; when in reads memory, nothing between stores. */
const struct lir_instr *select_only_user(const struct select *s, const struct lir_instr *in,
                                         u16 kept);

/* ---- x86_rules.c ---- */

void rules_init(struct select *s);
/* Appends the instructions for one operation. */
void rules_expand(struct select *s, const struct lir_instr *in);
/* Whether the only use of load's result in user can be a memory operand. */
bool rules_take_memory(const struct select *s, const struct lir_instr *user,
                       const struct lir_instr *load);

#endif
