/*
 * x86.h: shared by the files of the x86-64 back end: selection (x86_select.c: LIR -> machine
 * instructions), placing (x86.c), encoding (x86_encode.c). The instructions are the rows of
 * x86.def.
 */
#ifndef NOHOST_X86_H
#define NOHOST_X86_H

#include "ml/compile/machine.h"

enum x86_id {
    X_FIRST = MACHINE_ROWS - 1,
#define X86(id, ...) X_##id,
#include "ml/compile/x86.def"
#undef X86
    X_END
};
#define X86_ROWS ((u32)X_END - MACHINE_ROWS)

/* Which operand of minstr.op each field of the encoding takes, which source is tied to the
 * destination, and the operands in the order of Intel's syntax; 'i': the immediate, 'm': memory.
 * F(name, ModRM.reg, VEX.vvvv, ModRM.rm, imm8[7:4], tied, text) */
#define X86_FORMS(F) \
    F(RM,     0, -1, 1, -1, 0, "01") \
    F(MR,     1, -1, 0, -1, 0, "01") \
    F(RMT,    0, -1, 2, -1, 1, "02") \
    F(CR,     1, -1, 2, -1, 0, "12") \
    F(RMI,    0, -1, 1, -1, 0, "01i") \
    F(MI,    -1, -1, 0, -1, 1, "0i") \
    F(MIM,   -1, -1, 0, -1, 0, "0i") \
    F(CI,    -1, -1, 1, -1, 0, "1i") \
    F(M,     -1, -1, 1, -1, 0, "1") \
    F(O,     -1, -1, 0, -1, 0, "0") \
    F(OI,    -1, -1, 0, -1, 0, "0i") \
    F(Z,     -1, -1, -1, -1, 0, "") \
    F(J,     -1, -1, -1, -1, 0, "") \
    F(RVM,    0, 1, 2, -1, 0, "012") \
    F(RVMR,   0, 1, 2, 3, 0, "0123") \
    F(RVMT,   0, 1, 2, -1, 3, "012") \
    F(VMI,   -1, 0, 1, -1, 0, "01") \
    F(KKK,    0, 1, 2, -1, 0, "012") \
    F(GATHER, 0, 1, -1, -1, 0, "0m1")
#define X86_FORM_ENUM(name, ...) FORM_##name,
enum x86_form_id { X86_FORMS(X86_FORM_ENUM) };
#undef X86_FORM_ENUM

struct x86_form {
    i8 reg, vvvv, rm, is4; /* -1: the encoding does not use the field */
    u8 tied;
    const char *text;
};

enum { ENC_L = 1, ENC_V = 2, ENC_E = 4, ENC_VE = 6, ENC_D = 12, ENC_VD = 14 };
enum { T_I = 1, T_N = 2, T_G = 4, T_K = 8, T_M = 16, T_O = 32, T_C = 64 };
enum { MEM_1 = 1, MEM_2 = 2, MEM_4 = 4, MEM_8 = 8, MEM_16 = 16, MEM_F, MEM_B, MEM_H, MEM_Q };

struct x86_row {
    const char *name;
    u8 form, encodings, map, prefix, w, opcode, extension, memory, traits;
};
extern const struct x86_row x86_rows[]; /* by enum x86_id */
extern const struct x86_form x86_forms[];

enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
#define X86_FIXED(reg) ((u16)(MACHINE_FIXED + (reg)))
#define X86_MASK 1u /* k1, the only mask register in use */

/* ---- x86_select.c ---- */

/* Loops are bounded by the markers of machine.h and X_JL, X_JGE, whose imm is a label: 2n the
 * head, 2n + 1 the end of loop n; a marker's imm is n. */
err x86_select(const struct lir *lir, const struct target *target, struct arena *arena,
               struct mcode *out);

/* ---- x86_encode.c ---- */

/* An instruction of no operands. */
struct minstr x86_blank(u16 row, u8 size);
/* Operands are physical registers, LIR_NONE where memory stands. Returns bytes written to out, at
 * most X86_BYTES_MAX. evex: the machine has AVX-512; VEX is taken where it can say the same. A
 * jump's imm is the distance from its first byte. */
#define X86_BYTES_MAX 15u
u32 x86_encode(const struct minstr *instr, bool evex, u8 out[X86_BYTES_MAX]);
bool x86_needs_evex(const struct minstr *instr, bool evex);
/* Bytes of the r/m operand. */
u32 x86_rm_bytes(const struct minstr *instr);

#endif
