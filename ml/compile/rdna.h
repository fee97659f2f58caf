/*
 * rdna.h: shared by the files of the RDNA3 back end: selection and registers (rdna*.c), encoding
 * (rdna_encode.c), waits and hazards (rdna_wait.c). The instructions are the rows of rdna.def,
 * operands the ISA's own codes. Follows AMD's "RDNA3 Instruction Set Architecture" reference.
 */
#ifndef NOHOST_RDNA_H
#define NOHOST_RDNA_H

#include "ml/compile/lir.h"

/* Rows that are no instructions: a label (imm), and a loop's bounds as the selector marks them. */
enum rdna_id {
    R_LABEL,
    R_LOOP,
    R_ENDLOOP,
    RDNA_PSEUDOS,
    R_FIRST = RDNA_PSEUDOS - 1,
#define RDNA(format, op11, op12, name, ...) R_##name,
#include "ml/compile/rdna.def"
#undef RDNA
    RDNA_ROWS_END
};

enum rdna_format {
    F_NONE,
    F_SOP1,
    F_SOP2,
    F_SOPK,
    F_SOPC,
    F_SOPP,
    F_SMEM,
    F_VOP1,
    F_VOP2,
    F_VOPC,
    F_VOP3,
    F_VOP3P,
    F_DS,
    F_GLOBAL,
    F_MUBUF
};

/* Codes of operands. From RDNA_VIRTUAL on: virtual registers of one dword each. An operand of n
 * registers is named by its first; the others follow it, virtual ones too. */
enum rdna_operand {
    RDNA_VCC = 106,
    RDNA_NULL = 124,
    RDNA_M0 = 125,
    RDNA_EXEC = 126,
    RDNA_ZERO = 128,
    RDNA_CONST = 255, /* the value is rinstr.literal; the encoder chooses the form */
    RDNA_VGPR = 256,
    RDNA_VIRTUAL = 512,
    RDNA_NONE = 0xffff
};
#define RDNA_SGPRS 106u
#define RDNA_VGPRS 256u
/* The inline constant of -16..64. */
static inline u16 RDNA_INT(i32 n)
{
    return (u16)(n >= 0 ? 128 + n : 192 - n);
}

/* cache: bits of a memory instruction. */
enum { RDNA_GLC = 1, RDNA_SLC = 2, RDNA_DLC = 4 };

/* dpp: DPP16's control. Lanes are of a row of 16; the constants are the first of a kind. */
enum {
    DPP_QUAD_PERM = 0x000, /* + 4 x 2 bits */
    DPP_ROW_SHL = 0x100,   /* + 1..15 */
    DPP_ROW_SHR = 0x110,
    DPP_ROW_ROR = 0x120,
    DPP_ROW_MIRROR = 0x140,
    DPP_ROW_HALF_MIRROR = 0x141,
    DPP_ROW_SHARE = 0x150, /* + 0..15: the lane all read */
    DPP_ROW_XMASK = 0x160, /* + 1..15: lane i reads lane i ^ n */
    DPP_OFF = 0xffff
};

struct rinstr {
    u16 row;       /* enum rdna_id */
    u16 dst, sdst; /* sdst: mask result of the rows with R_SDST; RDNA_NONE when absent */
    u16 src[3];
    u32 literal;            /* of the source that is RDNA_CONST (one value an instruction) */
    i32 imm;                /* number of SOPP, SOPK; a label; byte offset of memory */
    u16 dpp;                /* src[0] is read across lanes; DPP_OFF */
    u8 row_mask, bank_mask; /* 15, 15: all lanes */
    u8 neg, abs;            /* bit n: source n; of VOP3P neg_lo, neg_hi */
    u8 op_sel, op_sel_hi;   /* bit n: source n takes its high half; bit 3: so does dst */
    u8 omod;                /* 1: x2, 2: x4, 3: /2 */
    u8 cache;
    bool clamp, bound_ctrl; /* bound_ctrl: lanes out of bounds read 0 */
    bool fixed;             /* a load of what nobody writes while the kernel runs */
    bool dual;              /* VOPD: this and the next one are one instruction */
};

enum rdna_flag {
    R_RD_SCC = 1 << 0,
    R_WR_SCC = 1 << 1,
    R_RD_VCC = 1 << 2,
    R_RD_EXEC = 1 << 3, /* as a value; every vector instruction has it as its mask */
    R_WR_EXEC = 1 << 4,
    R_RD_DST = 1 << 5, /* dst is a source too, or keeps some of its bits */
    R_SDST = 1 << 6,
    R_SWAP = 1 << 7,    /* src0 and src1 may be exchanged */
    R_NEG = 1 << 8,     /* takes neg, abs, omod, clamp */
    R_HALF = 1 << 9,    /* takes op_sel */
    R_PACKED = 1 << 10, /* VOP3P: neg_lo, neg_hi, op_sel, op_sel_hi, clamp */
    R_DPP = 1 << 11,
    R_SHORT = 1 << 12,
    R_LITERAL = 1 << 13, /* always has a literal (the K of fmamk, fmaak), not among src */
    R_TRANS = 1 << 14,
    R_WMMA = 1 << 15,
    R_LOAD = 1 << 16,
    R_STORE = 1 << 17,
    R_BRANCH = 1 << 19,
    R_END = 1 << 20, /* ends the wave */
    R_FENCE = 1 << 21,
    R_WAIT = 1 << 22
};

/* Of an operand column: kind << 8 | registers. */
enum rdna_kind { K_NONE, K_S, K_C, K_V, K_X, K_W, K_M, K_A, K_B };

struct rdna_row {
    const char *name;
    u16 opcode[2];  /* gfx11, gfx12; RDNA_NONE: it has none */
    u16 operand[4]; /* dst, src0, src1, src2 */
    u32 flags;
    u8 format;
};
extern const struct rdna_row rdna_rows[]; /* by enum rdna_id */

/* A list of instructions. class: by virtual register, enum lir_class. */
struct rcode {
    struct rinstr *instr;
    u32 count, max;
    u8 *class;
    u32 vreg_count;
};

/* ---- rdna_encode.c ---- */

/* An instruction with no operands, all lanes, no modifiers. */
struct rinstr rdna_blank(u16 row);
/* Registers that an instruction names, explicit ones only: code of the first, how many, written or
 * read. Constants and null are left out; a dst that is read too is there twice. */
struct rdna_ref {
    u16 code;
    u8 width;
    bool write;
    i8 field; /* -2: sdst, -1: dst, 0..2: src */
};
#define RDNA_REFS_MAX 6u
u32 rdna_refs(const struct rinstr *instr, struct rdna_ref refs[RDNA_REFS_MAX]);
/* Words written to out. Of a dual instruction instr[1] is the second half. A branch's imm is its
 * SIMM16. */
#define RDNA_WORDS_MAX 5u
/* Of a half of VOPD: 0..15, the second one's up to 31; RDNA_NONE: the row cannot be one. */
u32 rdna_half_opcode(u16 row);
u32 rdna_encode(const struct rinstr *instr, u32 out[RDNA_WORDS_MAX]);
/* The whole list, appended to out; branches are patched. E_LIMIT when something is full. */
err rdna_assemble(const struct rcode *code, struct arena *arena, struct code_out *out);

/* ---- rdna_schedule.c ---- */

/* Before register allocation: orders what stands between labels, branches and barriers. tuple: by
 * virtual register, how many from it on lie side by side. Loads fill no more than `sgprs` scalar
 * registers. */
err rdna_schedule(struct rcode *code, const u8 *tuple, u32 sgprs, struct arena *arena);

/* ---- rdna_pair.c ---- */

/* After register allocation: drops idle moves, joins two vector instructions to one. In place. */
err rdna_pair(struct rcode *code, struct arena *arena);

/* ---- rdna_wait.c ---- */

/* After register allocation: out gets the list with waits, hazards resolved, clauses and hints,
 * ready for rdna_assemble. */
err rdna_wait(const struct rcode *code, struct arena *arena, struct rcode *out);

#endif
