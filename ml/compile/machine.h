/*
 * machine.h: machine instructions over virtual registers, between instruction selection and
 * encoding. What the register allocator knows: which operands an instruction writes and reads,
 * where loops begin and end. What a row means is the back end's own.
 */
#ifndef NOHOST_MACHINE_H
#define NOHOST_MACHINE_H

#include "ml/compile/lir.h"

/* Ids from here on name a physical register, which is never allocated. */
#define MACHINE_FIXED     0xff00u
#define MACHINE_VREGS_MAX 0x8000u

/* Rows that emit nothing and bound the body of a loop; a back end's rows follow. */
enum { MACHINE_LOOP, MACHINE_ENDLOOP, MACHINE_ROWS };

enum {
    MI_MEMORY = 1,    /* one operand is memory */
    MI_BROADCAST = 2, /* that memory is one element for all lanes */
    MI_MASKED = 4,    /* only lanes of the mask register are written */
    MI_APART = 8, /* the sources except the tied one must not share the destination's register */
    MI_SELF = 16, /* sources are the destination's own register: idioms for 0 and -1 */
    MI_INDEX_VECTOR = 32, /* mem.index is a vector */
};

struct minstr {
    u16 row;
    u8 size; /* of the vector: 16 << size bytes */
    u8 flags;
    u8 tied;   /* operand that must be in the destination's register; 0: none */
    u16 op[4]; /* destination, then sources; LIR_NONE: absent or memory */
    struct lir_mem mem;
    i64 imm;
};

struct mcode {
    struct minstr *instr;
    u32 count, max;
    u8 *class; /* by virtual register: enum lir_class */
    u32 vreg_count;
};

/* The registers of a class in the order of preference. The last `scratch` of them are kept free for
 * reloads, when anything of the class must be spilled. */
struct reg_file {
    u8 order[32];
    u8 count, scratch, slot_bytes;
};

/* Where a virtual register lives, from its first write to its last use. */
enum place_kind { PLACE_NONE, PLACE_REG, PLACE_SLOT };
struct place {
    u8 kind, reg;
    u32 offset; /* in the frame */
};

struct allocation {
    struct place *place; /* by virtual register */
    u32 used[2];         /* by class: bit mask of registers written */
    u32 frame_bytes;     /* a multiple of the vector's slot */
};

/* ---- regalloc.c ---- */

err regalloc(const struct mcode *code, const struct reg_file file[2], struct arena *arena,
             struct allocation *out);

#endif
