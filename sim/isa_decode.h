/*
 * isa_decode.h: what the decoders of the encodings share; for isa*.c alone.
 */
#ifndef NOHOST_SIM_ISA_DECODE_H
#define NOHOST_SIM_ISA_DECODE_H

#include "sim/isa.h"

#define ISA_WORDS_MAX 5u /* more than any instruction has: two, and a literal or a DPP word */

struct decoder {
    u32 word[ISA_WORDS_MAX];
    u32 have, used; /* words: readable, taken so far */
    struct isa_inst *out;
    const struct isa_row *row;
    bool literal, bad; /* literal: its word is taken */
};

static inline u32 bits(u32 word, u32 high, u32 low)
{
    return word >> low & (u32)((1ull << (high - low + 1)) - 1);
}

static inline i32 sign_extend(u32 value, u32 width)
{
    return (i32)(value << (32 - width)) >> (32 - width);
}

static inline bool flag(const struct decoder *d, u32 flags)
{
    return d->row->flags & flags;
}

static inline void demand(struct decoder *d, bool condition)
{
    d->bad |= !condition;
}

/* ---- isa.c ---- */

/* The next word, which must be there. */
u32 decode_take(struct decoder *d);
/* Sets row and op, and the format as that of the row. */
void decode_op(struct decoder *d, u32 format, u32 opcode);
/* Whether `regs` registers can be read from operand `code`: tuples are aligned and end in time. */
bool decode_operand_exists(u32 code, u32 regs);
/* Source n, with its literal; a row that has no source n wants zero. */
void decode_source(struct decoder *d, u32 n, u32 code);
u16 decode_scalar_dst(struct decoder *d, u32 code, u32 regs);
u16 decode_vector(struct decoder *d, u32 number, u32 regs);
/* A field of a VGPR that not every row uses; zero where not. */
u16 decode_vector_or_none(struct decoder *d, u32 number, u32 regs);

/* ---- isa_vector.c ---- */

void decode_vop1(struct decoder *d, u32 w);
void decode_vop2(struct decoder *d, u32 w);
void decode_vopc(struct decoder *d, u32 w);
void decode_vop3(struct decoder *d, u32 w);
void decode_vop3p(struct decoder *d, u32 w);
void decode_vinterp(struct decoder *d, u32 w);
void decode_vopd(struct decoder *d, u32 w);

/* ---- isa_memory.c ---- */

void decode_smem(struct decoder *d, u32 w);
void decode_ds(struct decoder *d, u32 w);
void decode_flat(struct decoder *d, u32 w);
void decode_mubuf(struct decoder *d, u32 w);

#endif
