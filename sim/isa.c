/*
 * isa.c: decodes RDNA3 instructions by the rows of isa.def.
 * Must not know what an instruction does. Follows AMD's "RDNA3 Instruction Set Architecture"
 * reference, chapter 15. Reserved bits must be zero: what no assembler emits is refused.
 */
#include "sim/isa_decode.h"

// clang-format off
const struct isa_row isa_rows[ISA_OPS] = {
#define ISA(format, opcode, name, dst, src0, src1, src2, flags) \
    [ISA_##name] = {#name, ISA_##format, opcode, dst, {src0, src1, src2}, flags},
#include "sim/isa.def"
#undef ISA
};

#define OPCODES 1024u
static const u16 op_of[ISA_FORMATS * OPCODES] = {
#define ISA(format, opcode, name, ...) [ISA_##format * OPCODES + (opcode)] = ISA_##name,
#include "sim/isa.def"
#undef ISA
};
// clang-format on

u32 decode_take(struct decoder *d)
{
    if (d->used < d->have)
        return d->word[d->used++];
    d->bad = true;
    return 0;
}

void decode_op(struct decoder *d, u32 format, u32 opcode)
{
    d->out->op = op_of[format * OPCODES + opcode];
    d->out->format = (u8)format;
    d->row = &isa_rows[d->out->op];
    d->bad |= d->out->op == ISA_NONE;
}

/* ---- operands ---- */

bool decode_operand_exists(u32 code, u32 regs)
{
    u32 align = regs > 2 ? 4 : max_u32(regs, 1);

    if (code >= ISA_VGPR)
        return code + regs <= 2 * ISA_VGPR;
    if (code < ISA_VCC_LO)
        return code % align == 0 && code + regs <= ISA_VCC_LO;
    if (code >= ISA_TTMP && code < ISA_NULL)
        return code % align == 0 && code + regs <= ISA_NULL;
    if (code == ISA_NULL)
        return true;
    if (code < ISA_INT_0)
        return regs == 1 || (regs == 2 && (code == ISA_VCC_LO || code == ISA_EXEC_LO));
    if (code <= 208 || code == ISA_LITERAL)
        return true;
    return (code >= 235 && code <= 248) || (code >= ISA_VCCZ && code <= ISA_SCC);
}

/* Not every source takes every operand: lane numbers and lane masks are scalar, what is read across
 * lanes and matrices are not. */
static bool operand_fits(u32 op, u32 n, u32 code)
{
    bool is_vector = code >= ISA_VGPR;

    switch (op) {
    case ISA_s_setpc_b64:
    case ISA_s_rfe_b64:
    case ISA_s_movrels_b32:
    case ISA_s_movrels_b64:
        return code < ISA_INT_0;
    case ISA_v_readfirstlane_b32:
    case ISA_v_movrels_b32:
    case ISA_v_movrelsd_b32:
    case ISA_v_movrelsd_2_b32:
    case ISA_v_swap_b32:
    case ISA_v_swaprel_b32:
    case ISA_v_permlane64_b32:
        return is_vector;
    case ISA_v_readlane_b32:
        return is_vector == (n == 0) && code != ISA_LITERAL;
    case ISA_v_permlane16_b32:
    case ISA_v_permlanex16_b32:
        return is_vector == (n == 0);
    case ISA_v_writelane_b32:
        return !is_vector && (n == 0 || code != ISA_LITERAL);
    case ISA_v_cndmask_b32:
    case ISA_v_cndmask_b16:
    case ISA_v_add_co_ci_u32:
    case ISA_v_sub_co_ci_u32:
    case ISA_v_subrev_co_ci_u32:
        return n < 2 || code < ISA_EXEC_LO;
    case ISA_v_mqsad_u32_u8:
        return n < 2 || is_vector;
    case ISA_v_wmma_f32_16x16x16_f16:
    case ISA_v_wmma_f32_16x16x16_bf16:
    case ISA_v_wmma_f16_16x16x16_f16:
    case ISA_v_wmma_bf16_16x16x16_bf16:
    case ISA_v_wmma_i32_16x16x16_iu8:
    case ISA_v_wmma_i32_16x16x16_iu4:
        return is_vector || (n == 2 && ((code >= ISA_INT_0 && code <= 208) ||
                                        (code >= ISA_FLOAT && code <= ISA_FLOAT + 8)));
    default:
        return true;
    }
}

bool isa_narrow_literal(u32 op, u32 n)
{
    switch (op) {
    case ISA_v_mad_i32_i16:
    case ISA_v_mad_u32_u16:
        return n < 2;
    case ISA_v_dot2_f16_f16:
        return n == 2;
    case ISA_v_fmamk_f16:
    case ISA_v_fmaak_f16:
    case ISA_v_cmp_class_f16:
    case ISA_v_cmpx_class_f16:
        return n == 0;
    case ISA_v_fma_mix_f32:
    case ISA_v_fma_mixlo_f16:
    case ISA_v_fma_mixhi_f16:
        return true;
    default:
        return isa_rows[op].flags & ISA_SRC16;
    }
}

/* Above 16 bits a literal has its sign or zeros. */
static bool literal_fits(const struct decoder *d, u32 n)
{
    u32 upper = d->out->literal >> 16;

    return !isa_narrow_literal(d->out->op, n) || upper == 0 || upper == 0xffff;
}

void decode_source(struct decoder *d, u32 n, u32 code)
{
    u32 regs = d->row->src_regs[n];

    if (!regs) {
        demand(d, code == 0);
        return;
    }
    d->out->src[n] = (u16)code;
    if (code == ISA_LITERAL && !d->literal) {
        d->out->literal = decode_take(d);
        d->literal = true;
    }
    demand(d, decode_operand_exists(code, regs) && operand_fits(d->out->op, n, code));
    demand(d, code != ISA_LITERAL || literal_fits(d, n));
    demand(d, !d->out->dpp || (n == 1 ? code >= ISA_VGPR : code != ISA_LITERAL));
}

u16 decode_scalar_dst(struct decoder *d, u32 code, u32 regs)
{
    demand(d, code < ISA_INT_0 && decode_operand_exists(code, regs));
    return (u16)code;
}

u16 decode_vector(struct decoder *d, u32 number, u32 regs)
{
    demand(d, number + regs <= 256);
    return (u16)(ISA_VGPR + number);
}

u16 decode_vector_or_none(struct decoder *d, u32 number, u32 regs)
{
    if (regs)
        return decode_vector(d, number, regs);
    demand(d, number == 0);
    return ISA_NULL;
}

/* ---- scalar encodings ---- */

static void decode_sop2(struct decoder *d, u32 w)
{
    decode_op(d, ISA_SOP2, bits(w, 29, 23));
    d->out->dst = decode_scalar_dst(d, bits(w, 22, 16), d->row->dst_regs);
    decode_source(d, 0, bits(w, 7, 0));
    decode_source(d, 1, bits(w, 15, 8));
}

static void decode_sop1(struct decoder *d, u32 w)
{
    decode_op(d, ISA_SOP1, bits(w, 15, 8));
    if (d->row->dst_regs)
        d->out->dst = decode_scalar_dst(d, bits(w, 22, 16), d->row->dst_regs);
    else
        demand(d, bits(w, 22, 16) == 0);
    if (d->out->op == ISA_s_sendmsg_rtn_b32 || d->out->op == ISA_s_sendmsg_rtn_b64)
        d->out->imm = (i32)bits(w, 7, 0);
    else
        decode_source(d, 0, bits(w, 7, 0));
}

static void decode_sopc(struct decoder *d, u32 w)
{
    decode_op(d, ISA_SOPC, bits(w, 22, 16));
    decode_source(d, 0, bits(w, 7, 0));
    decode_source(d, 1, bits(w, 15, 8));
}

static void decode_sopk(struct decoder *d, u32 w)
{
    u32 reg = bits(w, 22, 16);

    decode_op(d, ISA_SOPK, bits(w, 27, 23));
    d->out->imm = sign_extend(w, 16);
    if (d->row->dst_regs)
        d->out->dst = decode_scalar_dst(d, reg, d->row->dst_regs);
    else if (d->out->op == ISA_s_setreg_imm32_b32)
        decode_source(d, 0, ISA_LITERAL);
    else
        d->out->src[0] = decode_scalar_dst(d, reg, 1);
    demand(d, d->out->op != ISA_s_setreg_imm32_b32 || !reg);
}

bool isa_sopp_takes_number(u32 op)
{
    switch (op) {
    case ISA_s_wait_idle:
    case ISA_s_code_end:
    case ISA_s_endpgm_saved:
    case ISA_s_wakeup:
    case ISA_s_ttracedata:
    case ISA_s_icache_inv:
    case ISA_s_barrier:
        return false;
    default:
        return true;
    }
}

static void decode_sopp(struct decoder *d, u32 w)
{
    decode_op(d, ISA_SOPP, bits(w, 22, 16));
    d->out->imm = sign_extend(w, 16);
    demand(d, !d->out->imm || isa_sopp_takes_number(d->out->op));
    if (d->out->op == ISA_s_delay_alu)
        demand(d, bits(w, 3, 0) <= 11 && bits(w, 6, 4) <= 5 && bits(w, 15, 7) <= 11);
}

/* ---- which encoding ---- */

// clang-format off
static const struct encoding {
    u32 mask, value;
    void (*decode)(struct decoder *d, u32 word);
} encodings[] = { /* the first that fits */
    {0xfe000000, 0x7e000000, decode_vop1},
    {0xfe000000, 0x7c000000, decode_vopc},
    {0x80000000, 0x00000000, decode_vop2},
    {0xff800000, 0xbe800000, decode_sop1},
    {0xff800000, 0xbf000000, decode_sopc},
    {0xff800000, 0xbf800000, decode_sopp},
    {0xf0000000, 0xb0000000, decode_sopk},
    {0xc0000000, 0x80000000, decode_sop2},
    {0xfc000000, 0xc8000000, decode_vopd},
    {0xff000000, 0xcc000000, decode_vop3p},
    {0xff000000, 0xcd000000, decode_vinterp},
    {0xfc000000, 0xd4000000, decode_vop3},
    {0xfc000000, 0xd8000000, decode_ds},
    {0xfc000000, 0xdc000000, decode_flat},
    {0xfc000000, 0xe0000000, decode_mubuf},
    {0xfc000000, 0xf4000000, decode_smem},
};
// clang-format on

err isa_decode(const u8 *code, usize bytes, struct isa_inst *out)
{
    struct decoder d = {.out = out, .row = &isa_rows[ISA_NONE]};
    u32 n = 0;

    *out = (struct isa_inst){.dst = ISA_NULL,
                             .sdst = ISA_NULL,
                             .src = {ISA_NULL, ISA_NULL, ISA_NULL},
                             .addr = ISA_NULL,
                             .data = {ISA_NULL, ISA_NULL},
                             .saddr = ISA_NULL,
                             .y = {.dst = ISA_NULL, .src = {ISA_NULL, ISA_NULL, ISA_NULL}}};
    for (; d.have < ISA_WORDS_MAX && bytes >= 4 * (d.have + 1); d.have++) {
        const u8 *at = code + 4 * d.have;

        d.word[d.have] = at[0] | (u32)at[1] << 8 | (u32)at[2] << 16 | (u32)at[3] << 24;
    }
    d.used = 1;
    d.bad = !d.have;
    while (n < ARRAY_LEN(encodings) && (d.word[0] & encodings[n].mask) != encodings[n].value)
        n++;
    if (n < ARRAY_LEN(encodings))
        encodings[n].decode(&d, d.word[0]);
    out->bytes = (u8)(4 * d.used);
    if (n < ARRAY_LEN(encodings) && !d.bad)
        return OK;
    out->op = ISA_NONE;
    out->bytes = 4;
    return E_FORMAT;
}
