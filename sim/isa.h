/*
 * isa.h: RDNA3 instructions as data: the opcode table `isa.def`, the decoder, the disassembler.
 * Knows no execution. Follows AMD's "RDNA3 Instruction Set Architecture" reference, chapter 15
 * (encodings); `llvm-mc -mcpu=gfx1100` judges both directions.
 */
#ifndef NOHOST_SIM_ISA_H
#define NOHOST_SIM_ISA_H

#include "kernel/base.h"

/* The encoding an instruction was found in. A VOP2 row may also be found as VOP3, and each VALU
 * encoding but VOPD with a DPP word behind it (`dpp`). */
enum isa_format {
    ISA_SOP1,
    ISA_SOP2,
    ISA_SOPC,
    ISA_SOPK,
    ISA_SOPP,
    ISA_SMEM,
    ISA_VOP1,
    ISA_VOP2,
    ISA_VOPC,
    ISA_VOP3,
    ISA_VOP3SD,
    ISA_VOP3P,
    ISA_VOPD,
    ISA_VINTERP,
    ISA_DS,
    ISA_FLAT,
    ISA_GLOBAL,
    ISA_SCRATCH,
    ISA_MUBUF,
    ISA_FORMATS,
};

/* One row per opcode: ISA_v_add_f32, ISA_s_load_b128 ... named as LLVM names the mnemonic, without
 * the suffix of an encoding. ISA_NONE: no instruction. */
enum isa_op {
    ISA_NONE,
#define ISA(format, opcode, name, ...) ISA_##name,
#include "sim/isa.def"
#undef ISA
    ISA_OPS,
};

/* Operand codes, the ISA's own 9 bits: 0..105 SGPR, then what is named here, 256.. VGPR. */
enum isa_operand {
    ISA_VCC_LO = 106,
    ISA_VCC_HI = 107,
    ISA_TTMP = 108,
    ISA_NULL = 124,
    ISA_M0 = 125,
    ISA_EXEC_LO = 126,
    ISA_EXEC_HI = 127,
    ISA_INT_0 = 128,
    ISA_FLOAT = 240,
    ISA_VCCZ = 251,
    ISA_EXECZ = 252,
    ISA_SCC = 253,
    ISA_LITERAL = 255,
    ISA_VGPR = 256,
};

enum isa_dpp { ISA_DPP_NONE, ISA_DPP16, ISA_DPP8 };

struct isa_inst {
    u16 op;        /* enum isa_op */
    u8 format;     /* enum isa_format */
    u8 bytes;      /* 4..20, with literal or DPP word */
    u16 dst, sdst; /* operand codes; VGPRs from ISA_VGPR; ISA_NULL when there is none */
    u16 src[3];    /* in the order of the ISA's SRC0..2; SMEM: base, offset register */
    u32 literal;   /* when a source is ISA_LITERAL (VOPD: of both halves), FMAMK and FMAAK too */
    i32 imm;       /* SIMM16, sign extended; or the byte offset of a memory instruction */
    u8 offset1;    /* DS: the second of two offsets (imm holds the first) */
    u8 neg, abs;   /* bit n: source n. VOP3P: neg_lo in `neg`, neg_hi in `abs` */
    u8 op_sel, op_sel_hi; /* bit n: source n; bit 3 of op_sel: destination */
    u8 omod;              /* 0, 1: x2, 2: x4, 3: /2 */
    bool clamp;
    u8 dpp; /* enum isa_dpp; then src[0] is the VGPR that is read across lanes */
    u16 dpp_ctrl;
    u8 row_mask, bank_mask;
    bool bound_ctrl, fetch_inactive;
    u32 dpp8;                     /* 8 x 3 bits */
    u16 addr, data[2];            /* DS, FLAT, GLOBAL, SCRATCH, MUBUF: VGPRs (ISA_NULL: none) */
    u16 saddr;                    /* GLOBAL, SCRATCH: SGPR pair or ISA_NULL; MUBUF: the resource,
                                     the offset register is src[0] */
    bool glc, slc, dlc, gds, sve; /* sve: SCRATCH takes its VGPR address */
    bool offen, idxen, tfe;       /* MUBUF */
    struct {                      /* VOPD: the second operation; the first is op, dst, src */
        u16 op, dst, src[3];
    } y;
};

/* Of a row. What encodings allow: */
enum isa_flag {
    ISA_NEG0 = 1 << 0, /* source n takes neg and abs (VOP3P: neg_lo and neg_hi) */
    ISA_NEG1 = 1 << 1,
    ISA_NEG2 = 1 << 2,
    ISA_NEG01 = ISA_NEG0 | ISA_NEG1,
    ISA_NEG012 = ISA_NEG01 | ISA_NEG2,
    ISA_CLAMP = 1 << 3,
    ISA_OUT = 1 << 4 | ISA_CLAMP, /* clamp and omod */
    ISA_HALF = 1 << 5,            /* VOP3: op_sel chooses 16-bit halves */
    ISA_DPP = 1 << 6,             /* may have a DPP word */
    ISA_SHORT = 1 << 7,           /* VOP1, VOP2: no VOP3 form */
    /* What is read and written besides dst and src: */
    ISA_SDST = 1 << 8,    /* VALU with a scalar result more: `sdst`, VCC when not in VOP3 */
    ISA_TO_SGPR = 1 << 9, /* VALU whose `dst` is scalar */
    ISA_RD_DST = 1 << 10, /* `dst` is a source too, or keeps some of its bits */
    ISA_RD_SCC = 1 << 11,
    ISA_WR_SCC = 1 << 12,
    ISA_RD_VCC = 1 << 13,
    ISA_RD_EXEC = 1 << 14, /* besides the lane mask of vector instructions */
    ISA_WR_EXEC = 1 << 15,
    ISA_RD_M0 = 1 << 16,
    /* Kinds: */
    ISA_TRANS = 1 << 17, /* runs in the transcendental unit */
    ISA_BRANCH = 1 << 18,
    ISA_LOAD = 1 << 19,
    ISA_STORE = 1 << 20,
    ISA_ATOMIC = 1 << 21,
    ISA_PAIR = 1 << 22, /* DS: two addresses, by imm and offset1 */
    /* Widths below a register; 16-bit operands outside VOP3 are v0..v127 only. */
    ISA_DST16 = 1 << 23, /* writes 16 bits of `dst` and keeps the others */
    ISA_SRC16 = 1 << 24, /* every vector source */
    ISA_16 = ISA_DST16 | ISA_SRC16,
    ISA_HALVES = ISA_HALF | ISA_16,
    ISA_HALF_SRC = ISA_HALF | ISA_SRC16,
};

/* What a row says of its operands, for disassembly and for hazard checks. */
struct isa_row {
    const char *name;
    u8 format;                /* the shortest encoding */
    u16 opcode;               /* there */
    u8 dst_regs, src_regs[3]; /* registers read and written, in dwords; 0: none */
    u32 flags;                /* enum isa_flag */
};
extern const struct isa_row isa_rows[ISA_OPS];

/* ---- isa.c ---- */

/* Decodes the instruction at `code`, of which `bytes` may be read. E_FORMAT when no row fits (then
 * out->bytes is 4) or the code ends too early. Decoding never reads further than the instruction.
 */
err isa_decode(const u8 *code, usize bytes, struct isa_inst *out);
/* The same for what isa_decode refuses: 16-bit operands in upper halves of registers (v0.h). */
err isa_decode_halves(const u8 *code, usize bytes, struct isa_inst *out);
/* Whether a SOPP operation has a number behind its name. */
bool isa_sopp_takes_number(u32 op);
/* Whether source n is 16 bits wide: of a literal it takes the lower half. */
bool isa_narrow_literal(u32 op, u32 n);

/* ---- disasm.c ---- */

/* LLVM's syntax for gfx1100, NUL-terminated in `text`. `pc` is where the instruction stands, for
 * the targets of branches. */
void isa_print(const struct isa_inst *inst, u64 pc, char *text, usize text_bytes);

#endif
