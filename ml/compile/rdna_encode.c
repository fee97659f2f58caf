/*
 * rdna_encode.c: one machine instruction over physical registers to words, a list of them to code.
 * Follows AMD's "RDNA3 Instruction Set Architecture" reference, chapter 15. The table of rows is
 * made here.
 */
#include "ml/compile/rdna.h"

/* ---- tables ---- */

#define KIND(kind, n) ((u16)(K_##kind << 8 | (n)))
enum {
    __ = 0,
    NONE = RDNA_NONE,
    S1 = KIND(S, 1),
    S2 = KIND(S, 2),
    S4 = KIND(S, 4),
    S8 = KIND(S, 8),
    S16 = KIND(S, 16),
    C1 = KIND(C, 1),
    C2 = KIND(C, 2),
    X1 = KIND(X, 1),
    X2 = KIND(X, 2),
    M1 = KIND(M, 1),
    V1 = KIND(V, 1),
    V2 = KIND(V, 2),
    V3 = KIND(V, 3),
    V4 = KIND(V, 4),
    V8 = KIND(V, 8),
    W8 = KIND(W, 8),
    A2 = KIND(A, 2),
    B2 = KIND(B, 2)
};

const struct rdna_row rdna_rows[] = {
#define RDNA(format, op11, op12, name, dst, src0, src1, src2, flags)                               \
    [R_##name] = {#name, {op11, op12}, {dst, src0, src1, src2}, flags, F_##format},
#include "ml/compile/rdna.def"
#undef RDNA
};

struct rinstr rdna_blank(u16 row)
{
    bool packed = rdna_rows[row].flags & R_PACKED && !(rdna_rows[row].flags & R_DPP);

    return (struct rinstr){.row = row,
                           .dst = RDNA_NONE,
                           .sdst = RDNA_NONE,
                           .src = {RDNA_NONE, RDNA_NONE, RDNA_NONE},
                           .dpp = DPP_OFF,
                           .op_sel_hi = packed ? 7 : 0, /* mix: f32 sources */
                           .row_mask = 15,
                           .bank_mask = 15};
}

/* ---- what is read and written ---- */

static bool is_register(u16 code)
{
    return code != RDNA_NONE &&
           (code < RDNA_NULL || code == RDNA_M0 || code == RDNA_EXEC || code >= RDNA_VGPR);
}

/* Without a base in scalar registers the address of global memory is 64 bits. */
static u8 width_of(const struct rinstr *instr, u32 k)
{
    u16 column = rdna_rows[instr->row].operand[k];

    return column >> 8 == K_A && is_register(instr->src[2]) ? 1 : (u8)column;
}

u32 rdna_refs(const struct rinstr *instr, struct rdna_ref refs[RDNA_REFS_MAX])
{
    const struct rdna_row *row = &rdna_rows[instr->row];
    u32 count = 0;

    if (is_register(instr->sdst))
        refs[count++] = (struct rdna_ref){instr->sdst, 1, true, -2};
    if (is_register(instr->dst))
        refs[count++] = (struct rdna_ref){instr->dst, width_of(instr, 0), true, -1};
    if (is_register(instr->dst) && row->flags & R_RD_DST)
        refs[count++] = (struct rdna_ref){instr->dst, width_of(instr, 0), false, -1};
    for (u32 k = 0; k < 3; k++)
        if (is_register(instr->src[k]))
            refs[count++] = (struct rdna_ref){instr->src[k], width_of(instr, k + 1), false, (i8)k};
    return count;
}
