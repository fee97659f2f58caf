/*
 * disasm.h: what the printers of the encodings share; for disasm*.c alone.
 */
#ifndef NOHOST_SIM_DISASM_H
#define NOHOST_SIM_DISASM_H

#include "sim/isa.h"

struct printer {
    struct text out;
    const struct isa_inst *inst;
    const struct isa_row *row;
    const char *separator; /* before the next operand */
};

static inline bool is(const struct printer *p, u32 flags)
{
    return p->row->flags & flags;
}

/* ---- disasm.c ---- */

void disasm_next(struct printer *p);
void disasm_word(struct printer *p, bool present, const char *text);
void disasm_put_operand(struct printer *p, u32 code, u32 regs);
void disasm_operand(struct printer *p, u32 code, u32 regs);
void disasm_source(struct printer *p, u32 n);
void disasm_sources(struct printer *p);

/* ---- disasm_scalar.c ---- */

/* A branch by an offset: the target is in the instruction. */
bool disasm_relative(const struct printer *p);
void disasm_scalar(struct printer *p);
void disasm_sopk(struct printer *p);
void disasm_sopp(struct printer *p);
void disasm_smem(struct printer *p);

#endif
