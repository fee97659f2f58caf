/*
 * isa_vector.c: decodes the vector ALU encodings: VOP1, VOP2, VOPC, VOP3, VOP3P, VINTERP, VOPD.
 * Must not know what an instruction does. Follows AMD's "RDNA3 Instruction Set Architecture"
 * reference, section 15.3.
 */
#include "sim/isa_decode.h"

#define CODE_DPP8    233u
#define CODE_DPP8_FI 234u
#define CODE_DPP16   250u

/* ---- one word ---- */

static void decode_dpp(struct decoder *d, u32 code)
{
    u32 w = decode_take(d);
    struct isa_inst *out = d->out;

    demand(d, flag(d, ISA_DPP));
    out->src[0] = (u16)(ISA_VGPR + bits(w, 7, 0));
    if (code != CODE_DPP16) {
        out->dpp = ISA_DPP8;
        out->dpp8 = bits(w, 31, 8);
        out->fetch_inactive = code == CODE_DPP8_FI;
        return;
    }
    out->dpp = ISA_DPP16;
    out->dpp_ctrl = (u16)bits(w, 16, 8);
    out->fetch_inactive = bits(w, 18, 18);
    out->bound_ctrl = bits(w, 19, 19);
    out->bank_mask = (u8)bits(w, 27, 24);
    out->row_mask = (u8)bits(w, 31, 28);
    demand(d, !bits(w, 17, 17));
    demand(d, out->dpp_ctrl < 0x100 || (out->dpp_ctrl & 15 && bits(out->dpp_ctrl, 8, 4) < 0x13) ||
                  out->dpp_ctrl == 0x140 || out->dpp_ctrl == 0x141 ||
                  (out->dpp_ctrl >= 0x150 && out->dpp_ctrl <= 0x16f));
    demand(d, out->dpp_ctrl != 0x100);
    if (out->format == ISA_VOP3 || out->format == ISA_VOP3P || out->format == ISA_VOP3SD) {
        demand(d, !bits(w, 23, 20));
        return;
    }
    for (u32 n = 0; n < 2; n++) {
        out->neg |= (u8)(bits(w, 20 + 2 * n, 20 + 2 * n) << n);
        out->abs |= (u8)(bits(w, 21 + 2 * n, 21 + 2 * n) << n);
    }
}

static bool is_dpp(u32 code)
{
    return code == CODE_DPP8 || code == CODE_DPP8_FI || code == CODE_DPP16;
}

static void first_source(struct decoder *d, u32 code)
{
    if (is_dpp(code) && d->row->src_regs[0])
        decode_dpp(d, code);
    else
        decode_source(d, 0, code);
}

/* What the encodings of one word leave unsaid, and what they cannot say. */
static void finish_short(struct decoder *d)
{
    struct isa_inst *out = d->out;

    if (flag(d, ISA_SDST))
        out->sdst = ISA_VCC_LO;
    if (out->op == ISA_v_cndmask_b32 || flag(d, ISA_SDST))
        out->src[2] = ISA_VCC_LO;
    for (u32 n = 0; n < 3 && flag(d, ISA_SRC16); n++)
        demand(d, out->src[n] < ISA_VGPR + 128);
    if (flag(d, ISA_DST16))
        demand(d, out->dst < ISA_VGPR + 128);
    demand(d, !((out->neg | out->abs) & ~(d->row->flags & ISA_NEG012)));
}

void decode_vop1(struct decoder *d, u32 w)
{
    decode_op(d, ISA_VOP1, bits(w, 16, 9));
    if (flag(d, ISA_TO_SGPR))
        d->out->dst = decode_scalar_dst(d, bits(w, 24, 17), 1);
    else
        d->out->dst = decode_vector_or_none(d, bits(w, 24, 17), d->row->dst_regs);
    first_source(d, bits(w, 8, 0));
    finish_short(d);
}

void decode_vop2(struct decoder *d, u32 w)
{
    struct isa_inst *out = d->out;

    decode_op(d, ISA_VOP2, bits(w, 30, 25));
    out->dst = decode_vector(d, bits(w, 24, 17), d->row->dst_regs);
    first_source(d, bits(w, 8, 0));
    out->src[1] = decode_vector(d, bits(w, 16, 9), d->row->src_regs[1]);
    if (out->op == ISA_v_fmamk_f32 || out->op == ISA_v_fmamk_f16) {
        out->src[2] = out->src[1];
        decode_source(d, 1, ISA_LITERAL);
    } else if (out->op == ISA_v_fmaak_f32 || out->op == ISA_v_fmaak_f16) {
        decode_source(d, 2, ISA_LITERAL);
    }
    finish_short(d);
}

void decode_vopc(struct decoder *d, u32 w)
{
    decode_op(d, ISA_VOPC, bits(w, 24, 17));
    d->out->dst = flag(d, ISA_WR_EXEC) ? ISA_EXEC_LO : ISA_VCC_LO;
    first_source(d, bits(w, 8, 0));
    d->out->src[1] = decode_vector(d, bits(w, 16, 9), d->row->src_regs[1]);
    finish_short(d);
}

/* ---- two words ---- */

/* VOP3 numbers VOPC, VOP2 and VOP1 too. */
static void set_vop3_op(struct decoder *d, u32 opcode)
{
    if (opcode >= 512)
        decode_op(d, ISA_VOP3, opcode);
    else if (opcode >= 384)
        decode_op(d, ISA_VOP1, opcode - 384);
    else if (opcode >= 256)
        decode_op(d, ISA_VOP2, opcode - 256);
    else
        decode_op(d, ISA_VOPC, opcode);
    demand(d, !flag(d, ISA_SHORT));
    d->out->format = flag(d, ISA_SDST) ? ISA_VOP3SD : ISA_VOP3;
}

static void vop3_dst(struct decoder *d, u32 code)
{
    if (d->row->format == ISA_VOPC && flag(d, ISA_WR_EXEC)) {
        d->out->dst = ISA_EXEC_LO;
        demand(d, code == ISA_EXEC_LO);
    } else if (flag(d, ISA_TO_SGPR)) {
        d->out->dst = decode_scalar_dst(d, code, 1);
    } else {
        d->out->dst = decode_vector_or_none(d, code, d->row->dst_regs);
    }
}

/* Which bits of op_sel an instruction has. */
static u32 halves_mask(const struct decoder *d)
{
    u32 op = d->out->op;

    if (op == ISA_v_dot2_f16_f16 || op == ISA_v_dot2_bf16_bf16)
        return 12;
    if (op == ISA_v_permlane16_b32 || op == ISA_v_permlanex16_b32)
        return 3;
    if (!flag(d, ISA_HALF))
        return 0;
    return d->row->src_regs[2] ? 15 : 11;
}

void decode_vop3(struct decoder *d, u32 w)
{
    struct isa_inst *out = d->out;
    u32 w1 = decode_take(d), mods;

    set_vop3_op(d, bits(w, 25, 16));
    mods = d->row->flags & ISA_NEG012;
    vop3_dst(d, bits(w, 7, 0));
    if (out->format == ISA_VOP3SD) {
        out->sdst = decode_scalar_dst(d, bits(w, 14, 8), 1);
    } else {
        out->abs = (u8)bits(w, 10, 8);
        out->op_sel = (u8)bits(w, 14, 11);
    }
    out->clamp = bits(w, 15, 15);
    out->omod = (u8)bits(w1, 28, 27);
    out->neg = (u8)bits(w1, 31, 29);
    demand(d, !((out->neg | out->abs) & ~mods) && (!out->clamp || flag(d, ISA_CLAMP)));
    demand(d, !out->omod || (d->row->flags & ISA_OUT) == ISA_OUT);
    demand(d, !(out->op_sel & ~halves_mask(d)));
    first_source(d, bits(w1, 8, 0));
    decode_source(d, 1, bits(w1, 17, 9));
    decode_source(d, 2, bits(w1, 26, 18));
}

void decode_vop3p(struct decoder *d, u32 w)
{
    struct isa_inst *out = d->out;
    u32 w1 = decode_take(d);

    decode_op(d, ISA_VOP3P, bits(w, 22, 16));
    demand(d, !bits(w, 23, 23));
    out->dst = decode_vector(d, bits(w, 7, 0), d->row->dst_regs);
    out->abs = (u8)bits(w, 10, 8);
    out->op_sel = (u8)bits(w, 13, 11);
    out->op_sel_hi = (u8)(bits(w1, 28, 27) | bits(w, 14, 14) << 2);
    out->clamp = bits(w, 15, 15);
    out->neg = (u8)bits(w1, 31, 29);
    demand(d, !((out->neg | out->abs) & ~(d->row->flags & ISA_NEG012)));
    demand(d, !out->clamp || flag(d, ISA_CLAMP));
    demand(d, !out->op_sel || d->row->dst_regs < 8 || flag(d, ISA_HALF));
    demand(d, !bits(out->op_sel, 2, 2) || d->row->src_regs[2]);
    first_source(d, bits(w1, 8, 0));
    decode_source(d, 1, bits(w1, 17, 9));
    decode_source(d, 2, bits(w1, 26, 18));
}

void decode_vinterp(struct decoder *d, u32 w)
{
    struct isa_inst *out = d->out;
    u32 w1 = decode_take(d);

    decode_op(d, ISA_VINTERP, bits(w, 22, 16));
    demand(d, !bits(w, 23, 23) && !bits(w1, 28, 27));
    out->dst = decode_vector(d, bits(w, 7, 0), 1);
    out->imm = (i32)bits(w, 10, 8); /* wait_exp */
    out->op_sel = (u8)bits(w, 14, 11);
    out->clamp = bits(w, 15, 15);
    out->neg = (u8)bits(w1, 31, 29);
    demand(d, !out->op_sel || flag(d, ISA_HALF));
    for (u32 n = 0; n < 3; n++) {
        decode_source(d, n, bits(w1, 9 * n + 8, 9 * n));
        demand(d, out->src[n] >= ISA_VGPR);
    }
}

/* ---- VOPD: two operations, whose literal is one ---- */

// clang-format off
/* VOPD has opcodes of its own for rows of VOP1 and VOP2; 16 and up only for the second half. */
static const u16 vopd_ops[] = {
    ISA_v_fmac_f32, ISA_v_fmaak_f32, ISA_v_fmamk_f32, ISA_v_mul_f32, ISA_v_add_f32, ISA_v_sub_f32,
    ISA_v_subrev_f32, ISA_v_mul_dx9_zero_f32, ISA_v_mov_b32, ISA_v_cndmask_b32, ISA_v_max_f32,
    ISA_v_min_f32, ISA_v_dot2acc_f32_f16, ISA_NONE, ISA_NONE, ISA_NONE,
    ISA_v_add_nc_u32, ISA_v_lshlrev_b32, ISA_v_and_b32,
};
#define VOPD_X_MAX 16u
// clang-format on

static void vopd_half(struct decoder *d, u32 op, u32 src0, u32 vsrc1)
{
    u16 *src = d->out->src;

    d->out->op = (u16)op;
    d->row = &isa_rows[op];
    demand(d, op != ISA_NONE);
    src[0] = src[1] = src[2] = ISA_NULL;
    decode_source(d, 0, src0);
    src[1] = decode_vector_or_none(d, vsrc1, d->row->src_regs[1]);
    if (op == ISA_v_fmamk_f32) {
        src[2] = src[1];
        decode_source(d, 1, ISA_LITERAL);
    } else if (op == ISA_v_fmaak_f32) {
        decode_source(d, 2, ISA_LITERAL);
    } else if (op == ISA_v_cndmask_b32) {
        src[2] = ISA_VCC_LO;
    }
}

void decode_vopd(struct decoder *d, u32 w)
{
    struct isa_inst *out = d->out;
    u32 w1 = decode_take(d), x = bits(w, 25, 22), y = bits(w, 21, 17);

    out->format = ISA_VOPD;
    vopd_half(d, y < ARRAY_LEN(vopd_ops) ? vopd_ops[y] : ISA_NONE, bits(w1, 8, 0), bits(w1, 16, 9));
    out->y.op = out->op;
    for (u32 n = 0; n < 3; n++)
        out->y.src[n] = out->src[n];
    vopd_half(d, x < VOPD_X_MAX ? vopd_ops[x] : ISA_NONE, bits(w, 8, 0), bits(w, 16, 9));
    out->dst = (u16)(ISA_VGPR + bits(w1, 31, 24));
    /* One of the two results goes to an even register, the other to an odd one. */
    out->y.dst = (u16)(ISA_VGPR + (bits(w1, 23, 17) << 1 | (~out->dst & 1)));
}
