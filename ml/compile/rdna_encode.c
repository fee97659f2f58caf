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

/* ---- operands ---- */

/* A constant of 32 bits as the ISA's inline one, or RDNA_CONST. */
static u16 inline_constant(u32 value, bool is_float_too)
{
    static const u32 floats[] = {0x3f000000, 0xbf000000, 0x3f800000, 0xbf800000, 0x40000000,
                                 0xc0000000, 0x40800000, 0xc0800000, 0x3e22f983};

    if (value <= 64)
        return (u16)(RDNA_ZERO + value);
    if (is_float_too && value >= (u32)-16)
        return RDNA_INT((i32)value);
    for (u16 i = 0; is_float_too && i < ARRAY_LEN(floats); i++)
        if (value == floats[i])
            return 240u + i;
    return RDNA_CONST;
}

/* Of 16-bit operands, and of 64-bit ones that are not small, an inline constant says another thing
 * than its 32 bits: those stay literal. */
static u32 source(const struct rinstr *instr, u32 k)
{
    const struct rdna_row *row = &rdna_rows[instr->row];
    bool mix = row->flags & R_PACKED && row->flags & R_DPP;
    bool narrow = row->flags & R_HALF || (mix && instr->op_sel_hi >> k & 1);
    u16 code = instr->src[k];

    CHECK(code < RDNA_VIRTUAL || code == RDNA_NONE);
    if (code == RDNA_CONST && !narrow && row->operand[k + 1] >> 8 != K_NONE)
        return inline_constant(instr->literal, (u8)row->operand[k + 1] == 1);
    return code == RDNA_NONE ? 0 : code;
}

static bool has_literal(const struct rinstr *instr)
{
    bool literal = rdna_rows[instr->row].flags & R_LITERAL;

    for (u32 k = 0; k < 3; k++)
        literal |= source(instr, k) == RDNA_CONST;
    return literal;
}

static u32 vgpr(u16 code)
{
    CHECK(code == RDNA_NONE || (code >= RDNA_VGPR && code < RDNA_VIRTUAL));
    return code == RDNA_NONE ? 0 : code - RDNA_VGPR;
}

/* Of a vector instruction's result, which may be scalar. */
static u32 result(u16 code)
{
    return code == RDNA_NONE ? 0 : code & 255u;
}

/* ---- formats ---- */

static bool is_high(u16 code)
{
    return code >= RDNA_VGPR + 128 && code < RDNA_VIRTUAL;
}

/* 16-bit registers of the short forms are v0..v127: the next bit chooses the half. */
static bool reaches_high(const struct rinstr *instr)
{
    bool high_dst = instr->row != R_v_cvt_f32_f16 && is_high(instr->dst);
    bool high_src =
        instr->row != R_v_cvt_f16_f32 && (is_high(instr->src[0]) || is_high(instr->src[1]));

    return rdna_rows[instr->row].flags & R_HALF && (high_dst || high_src);
}

static bool needs_vop3(const struct rinstr *instr)
{
    const struct rdna_row *row = &rdna_rows[instr->row];
    bool by_vcc = row->operand[0] >> 8 != K_M || instr->dst == RDNA_VCC;

    by_vcc &= row->operand[3] >> 8 != K_M || instr->src[2] == RDNA_VCC;
    by_vcc &= !(row->flags & R_SDST) || instr->sdst == RDNA_VCC;
    if (row->flags & R_SHORT)
        return false;
    return !by_vcc || instr->omod || instr->clamp || instr->op_sel || reaches_high(instr) ||
           ((instr->neg || instr->abs) && instr->dpp == DPP_OFF) ||
           (row->operand[2] && source(instr, 1) < RDNA_VGPR);
}

static u32 dpp_word(const struct rinstr *instr, bool vop3)
{
    u32 neg = vop3 ? 0 : instr->neg, abs = vop3 ? 0 : instr->abs;

    return vgpr(instr->src[0]) | (u32)instr->dpp << 8 | (u32)instr->bound_ctrl << 19 |
           (neg & 1) << 20 | (abs & 1) << 21 | (neg & 2) << 21 | (abs & 2) << 22 |
           (u32)instr->bank_mask << 24 | (u32)instr->row_mask << 28;
}

#define DPP16_MARK 250u

static u32 encode_vop3(const struct rinstr *instr, u32 opcode, u32 out[RDNA_WORDS_MAX])
{
    const struct rdna_row *row = &rdna_rows[instr->row];
    bool packed = row->format == F_VOP3P, dpp = instr->dpp != DPP_OFF;
    u32 src0 = dpp ? DPP16_MARK : source(instr, 0), hi = packed ? instr->op_sel_hi : 0;
    u32 middle = row->flags & R_SDST ? instr->sdst : instr->abs | (u32)instr->op_sel << 3;

    out[0] = (packed ? 0xcc000000 : 0xd4000000) | opcode << 16 | (u32)instr->clamp << 15 |
             (hi >> 2 & 1) << 14 | middle << 8 | result(instr->dst);
    out[1] = src0 | source(instr, 1) << 9 | source(instr, 2) << 18 | (hi & 3) << 27 |
             (u32)instr->neg << 29;
    if (!packed)
        out[1] |= (u32)instr->omod << 27;
    if (dpp)
        out[2] = dpp_word(instr, true);
    return dpp ? 3 : 2;
}

static u32 encode_vector(const struct rinstr *instr, u32 out[RDNA_WORDS_MAX])
{
    const struct rdna_row *row = &rdna_rows[instr->row];
    bool dpp = instr->dpp != DPP_OFF;
    u32 opcode = row->opcode[0], src0 = dpp ? DPP16_MARK : source(instr, 0);
    u32 to_vop3 = row->format == F_VOP1 ? 384 : row->format == F_VOP2 ? 256 : 0;
    u32 src1 = vgpr(row->operand[2] && !needs_vop3(instr) ? instr->src[1] : RDNA_NONE);

    if (row->format == F_VOP3 || row->format == F_VOP3P)
        return encode_vop3(instr, opcode, out);
    if (needs_vop3(instr)) {
        struct rinstr to_exec = *instr;
        if (row->flags & R_WR_EXEC)
            to_exec.dst = RDNA_EXEC;
        return encode_vop3(&to_exec, opcode + to_vop3, out);
    }
    if (row->format == F_VOP1)
        out[0] = 0x7e000000 | result(instr->dst) << 17 | opcode << 9 | src0;
    else if (row->format == F_VOP2)
        out[0] = opcode << 25 | result(instr->dst) << 17 | src1 << 9 | src0;
    else
        out[0] = 0x7c000000 | opcode << 17 | src1 << 9 | src0;
    if (dpp)
        out[1] = dpp_word(instr, false);
    return dpp ? 2 : 1;
}

static u32 encode_memory(const struct rinstr *instr, u32 out[RDNA_WORDS_MAX])
{
    const struct rdna_row *row = &rdna_rows[instr->row];
    u32 head = (u32)row->opcode[0] << 18, glc = instr->cache & RDNA_GLC;
    u32 slc = instr->cache >> 1 & 1, dlc = instr->cache >> 2 & 1, offset = (u32)instr->imm;

    switch (row->format) {
    case F_SMEM:
        out[0] = 0xf4000000 | head | glc << 14 | dlc << 13 | result(instr->dst) << 6 |
                 (instr->src[0] == RDNA_NONE ? 0 : instr->src[0] >> 1);
        out[1] = (offset & 0x1fffff) | (instr->src[1] == RDNA_NONE ? RDNA_NULL : source(instr, 1))
                                           << 25;
        return 2;
    case F_DS:
        out[0] = 0xd8000000 | head | (offset & 0xffff);
        out[1] = vgpr(instr->src[0]) | vgpr(instr->src[1]) << 8 | vgpr(instr->src[2]) << 16 |
                 result(instr->dst) << 24;
        return 2;
    case F_GLOBAL:
        out[0] = 0xdc020000 | head | slc << 15 | glc << 14 | dlc << 13 | (offset & 0x1fff);
        out[1] = vgpr(instr->src[0]) | vgpr(instr->src[1]) << 8 |
                 (instr->src[2] == RDNA_NONE ? RDNA_NULL : instr->src[2] & 127u) << 16 |
                 result(instr->dst) << 24;
        return 2;
    default: /* the MUBUF that invalidate caches */
        out[0] = 0xe0000000 | head;
        out[1] = 0;
        return 2;
    }
}

static u32 encode_scalar(const struct rinstr *instr, u32 out[RDNA_WORDS_MAX])
{
    const struct rdna_row *row = &rdna_rows[instr->row];
    u32 opcode = row->opcode[0], dst = result(instr->dst);

    switch (row->format) {
    case F_SOP1:
        out[0] = 0xbe800000 | dst << 16 | opcode << 8 | source(instr, 0);
        return 1;
    case F_SOP2:
        out[0] = 0x80000000 | opcode << 23 | dst << 16 | source(instr, 1) << 8 | source(instr, 0);
        return 1;
    case F_SOPK:
        out[0] = 0xb0000000 | opcode << 23 | dst << 16 | (u16)instr->imm;
        return 1;
    case F_SOPC:
        out[0] = 0xbf000000 | opcode << 16 | source(instr, 1) << 8 | source(instr, 0);
        return 1;
    default:
        out[0] = 0xbf800000 | opcode << 16 | (u16)instr->imm;
        return 1;
    }
}

/* ---- VOPD ---- */

/* The opcodes of a half, by their number; from 16 on only of the second. */
static const u16 halves[] = {
    [0] = R_v_fmac_f32,    [1] = R_v_fmaak_f32,    [2] = R_v_fmamk_f32,  [3] = R_v_mul_f32,
    [4] = R_v_add_f32,     [5] = R_v_sub_f32,      [6] = R_v_subrev_f32, [8] = R_v_mov_b32,
    [9] = R_v_cndmask_b32, [10] = R_v_max_f32,     [11] = R_v_min_f32,   [12] = R_v_dot2acc_f32_f16,
    [16] = R_v_add_nc_u32, [17] = R_v_lshlrev_b32, [18] = R_v_and_b32,
};

u32 rdna_half_opcode(u16 row)
{
    u32 opcode = 0;

    while (opcode < ARRAY_LEN(halves) && halves[opcode] != row)
        opcode++;
    return opcode < ARRAY_LEN(halves) ? opcode : RDNA_NONE;
}

static u32 encode_dual(const struct rinstr *x, const struct rinstr *y, u32 out[RDNA_WORDS_MAX])
{
    CHECK(((x->dst ^ y->dst) & 1) && rdna_half_opcode(y->row) != RDNA_NONE);
    out[0] = 0xc8000000 | rdna_half_opcode(x->row) << 22 | rdna_half_opcode(y->row) << 17 |
             vgpr(x->src[1]) << 9 | source(x, 0);
    out[1] = source(y, 0) | vgpr(y->src[1]) << 9 | vgpr(y->dst) >> 1 << 17 | vgpr(x->dst) << 24;
    return 2;
}

/* ---- an instruction, a list ---- */

u32 rdna_encode(const struct rinstr *instr, u32 out[RDNA_WORDS_MAX])
{
    const struct rdna_row *row = &rdna_rows[instr->row];
    bool second = instr->dual && !has_literal(instr);
    u32 len;

    CHECK(row->opcode[0] != RDNA_NONE);
    if (instr->dual)
        len = encode_dual(instr, instr + 1, out);
    else if (row->format <= F_SOPP)
        len = encode_scalar(instr, out);
    else if (row->format == F_SMEM || row->format >= F_DS)
        len = encode_memory(instr, out);
    else
        len = encode_vector(instr, out);
    if (has_literal(&instr[second]))
        out[len++] = instr[second].literal;
    return len;
}

static bool is_jump(const struct rinstr *instr)
{
    return rdna_rows[instr->row].flags & R_BRANCH && rdna_rows[instr->row].format == F_SOPP;
}

/* Where each label is, in words. */
static u32 place_labels(const struct rcode *code, u32 *label_at)
{
    u32 words[RDNA_WORDS_MAX], at = 0;

    for (u32 i = 0; i < code->count; i++) {
        const struct rinstr *instr = &code->instr[i];
        if (instr->row == R_LABEL)
            label_at[instr->imm] = at;
        if (instr->row >= RDNA_PSEUDOS)
            at += rdna_encode(instr, words);
        i += instr->dual;
    }
    return at;
}

err rdna_assemble(const struct rcode *code, struct arena *arena, struct code_out *out)
{
    u32 words[RDNA_WORDS_MAX], at = 0, labels = 1;

    for (u32 i = 0; i < code->count; i++)
        if (code->instr[i].row == R_LABEL)
            labels = (u32)max_u64(labels, (u64)code->instr[i].imm + 1);
    u32 *label_at = arena_new(arena, u32, labels);
    if (!label_at || place_labels(code, label_at) * 4 > out->cap - out->len)
        return E_LIMIT;
    for (u32 i = 0; i < code->count; i++) {
        struct rinstr pair[2] = {code->instr[i]};
        if (out->look_rdna)
            out->look_rdna(out, &code->instr[i]);
        if (pair[0].row < RDNA_PSEUDOS)
            continue;
        if (pair[0].dual)
            pair[1] = code->instr[++i];
        if (is_jump(pair))
            pair[0].imm = (i32)(label_at[pair[0].imm] - at - 1);
        if (is_jump(pair) && (pair[0].imm < INT16_MIN || pair[0].imm > INT16_MAX))
            return E_LIMIT;
        u32 len = rdna_encode(pair, words);
        memcpy(out->bytes + out->len + at * 4, words, len * 4);
        at += len;
    }
    out->len += at * 4;
    return OK;
}
