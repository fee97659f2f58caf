/*
 * lir.h: the low-level IR between lowering and a machine: straight-line code and counted loops over
 * virtual registers. lower.c writes it, x86.c (later rdna.c) makes machine code of it. A virtual
 * register may be written more than once (accumulators, addresses); its value at a loop's head is
 * whatever the last write left.
 *
 * A kernel is void f(const u64 *args, u64 begin, u64 end, u8 *scratch); virtual registers 0..3 of
 * class SCALAR hold these. On a target with groups (target.waves > 0) the waves of a group run it
 * together for the one item `begin`; each has its number in register 4, scratch is the group's own
 * memory (LIR_GROUP) and shared by them.
 */
#ifndef NOHOST_LIR_H
#define NOHOST_LIR_H

#include "ml/compile/compile.h"

#define LIR_VREGS_MAX 16384u
#define LIR_INSTRS_MAX 32768u
#define LIR_LOOP_DEPTH_MAX 16u
#define LIR_NONE 0xffffu

enum {
    LIR_ARGS = 0,
    LIR_BEGIN = 1,
    LIR_END = 2,
    LIR_SCRATCH = 3,
    LIR_WAVE = 4,
    LIR_FIRST_FREE = 5
};

/* SCALAR: a 64-bit integer. VECTOR: 32-bit lanes, float or integer by the instruction. */
enum lir_class { LIR_SCALAR, LIR_VECTOR };

/* GROUP: the scratch memory of the item, which a target may keep apart from all other memory. */
enum lir_space { LIR_GLOBAL, LIR_GROUP };

/* base + index * scale + disp, in bytes. base SCALAR; index SCALAR or LIR_NONE (GATHER: VECTOR of
 * 32-bit signed). */
struct lir_mem {
    u16 base, index;
    u8 scale; /* 1, 2, 4, 8 */
    i32 disp;
    u8 space;   /* enum lir_space */
    bool fixed; /* nobody writes it while the kernel runs */
};

enum lir_op {
#define LIR(name, ...) LIR_##name,
#include "ml/compile/lir.def"
#undef LIR
    LIR_OP_COUNT
};

struct lir_instr {
    u8 op;           /* enum lir_op */
    u8 lanes;        /* VECTOR ops: 1 or the target's lanes */
    u8 mem_type;     /* enum dtype of the memory element for loads and stores */
    u8 aux;          /* predicate, rounding mode */
    u16 dst, a, b, c;
    i64 imm;
    struct lir_mem mem;
};

/* Comparison predicates (aux of FCMP and ICMP). Unordered compares are false. */
enum { LIR_EQ, LIR_LT, LIR_LE };
/* Rounding (aux of FROUND and CVT_F2I). */
enum { LIR_NEAREST, LIR_DOWN, LIR_UP, LIR_TRUNC };

/* One row of lir.def. operands: the classes of dst, a, b, c ('S', 'V', '-') and the memory operand
 * ('L', 'T', '-'). */
struct lir_row { const char *name, *operands; };
extern const struct lir_row lir_rows[LIR_OP_COUNT];

struct lir {
    struct lir_instr *instr;
    u32 count, max;
    u8 vreg_class[LIR_VREGS_MAX];
    u8 tuple[LIR_VREGS_MAX]; /* by the first of a tuple: its registers; else 0 */
    u32 vreg_count;
    err status;      /* E_LIMIT when something did not fit; sticky */
    struct arena *arena; /* instr grows in it */
};

/* ---- lir.c ---- */
err lir_init(struct lir *lir, struct arena *arena); /* makes vregs 0..3 */
u16 lir_vreg(struct lir *lir, enum lir_class class);
/* `count` VECTOR registers with numbers in a row that a machine keeps side by side; the first. */
u16 lir_tuple(struct lir *lir, u32 count);
/* Fill the fields; never NULL (a spare place when full), valid until the next lir_emit. */
struct lir_instr *lir_emit(struct lir *lir, enum lir_op op);

/* ---- x86.c ---- */

/* Appends machine code to bytes[len..cap), aligned as len is. E_LIMIT when it does not fit. look
 * (NULL in the firmware; tests/oracle/x86_text.c, rdna_text.c) sees each instruction and marker. */
struct minstr;
struct rinstr;
struct code_out {
    u8 *bytes;
    usize len, cap;
    void (*look)(const struct code_out *out, const struct minstr *instr, bool evex);
    void (*look_rdna)(const struct code_out *out, const struct rinstr *instr);
    struct text *listing; /* of those that look */
};
err x86_emit(const struct lir *lir, const struct target *target, struct arena *scratch,
             struct code_out *out);

/* ---- rdna.c ---- */

/* What a launch must say of a kernel's code; the rest of it is the scheduler's. */
struct launch_resources {
    u32 rsrc[3]; /* COMPUTE_PGM_RSRC1..3 */
    u32 vgprs;
};
/* As x86_emit, for the waves of ISA_GFX11. Loads of `fixed` words must be word-aligned; SCALAR
 * values that are no addresses must lie in i32, byte offsets of V_GATHER too. E_LIMIT: too many
 * values live at once. */
err rdna_emit(const struct lir *lir, struct arena *scratch, struct code_out *out,
              struct launch_resources *launch);

/* ---- rdna_entry.c ---- */

/* One of several kernels in a dispatch: where its code is in `out`, how many waves of a group it
 * wants, where its arguments are, in bytes from those of the dispatch. */
struct entry_kernel {
    u32 code_offset, waves, args_at;
};
/* Code that sends a group to its kernel. The dispatch's arguments begin with the end of each
 * kernel's groups; the kernel finds its own arguments and the number that its group has among its
 * own. */
err rdna_entry(const struct entry_kernel *kernel, u32 count, struct arena *scratch,
              struct code_out *out);

#endif
