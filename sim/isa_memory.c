/*
 * isa_memory.c: decodes SMEM, DS, FLAT, GLOBAL, SCRATCH and MUBUF.
 * Must not know what an instruction does. Follows AMD's "RDNA3 Instruction Set Architecture"
 * reference, sections 15.2 and 15.4 to 15.8.
 */
#include "sim/isa_decode.h"

void decode_smem(struct decoder *d, u32 w)
{
    u32 w1 = decode_take(d), offset_reg = bits(w1, 31, 25);

    decode_op(d, ISA_SMEM, bits(w, 25, 18));
    demand(d, !(w & (1u << 17 | 1u << 16 | 1u << 15)) && !bits(w1, 24, 21));
    d->out->dlc = bits(w, 13, 13);
    d->out->glc = bits(w, 14, 14);
    if (!d->row->dst_regs) {
        demand(d, !bits(w, 14, 0) && !w1);
        return;
    }
    d->out->dst = decode_scalar_dst(d, bits(w, 12, 6), d->row->dst_regs);
    demand(d, d->out->dst < ISA_M0);
    decode_source(d, 0, bits(w, 5, 0) << 1);
    d->out->src[1] = decode_scalar_dst(d, offset_reg, 1);
    d->out->imm = sign_extend(bits(w1, 20, 0), 21);
}

void decode_ds(struct decoder *d, u32 w)
{
    struct isa_inst *out = d->out;
    u32 w1 = decode_take(d);

    decode_op(d, ISA_DS, bits(w, 25, 18));
    demand(d, !bits(w, 16, 16));
    out->gds = bits(w, 17, 17);
    demand(d, !out->gds || flag(d, ISA_LOAD | ISA_STORE | ISA_ATOMIC) ||
                  out->op == ISA_ds_swizzle_b32);
    out->imm = (i32)bits(w, 15, 0);
    if (flag(d, ISA_PAIR)) {
        out->imm = (i32)bits(w, 7, 0);
        out->offset1 = (u8)bits(w, 15, 8);
    }
    demand(d, !out->imm || out->op != ISA_ds_nop);
    out->addr = decode_vector_or_none(d, bits(w1, 7, 0), d->row->src_regs[0]);
    out->data[0] = decode_vector_or_none(d, bits(w1, 15, 8), d->row->src_regs[1]);
    out->data[1] = decode_vector_or_none(d, bits(w1, 23, 16), d->row->src_regs[2]);
    out->dst = decode_vector_or_none(d, bits(w1, 31, 24), d->row->dst_regs);
}

/* An atomic returns the old value only with GLC. */
static u32 returned_regs(const struct decoder *d)
{
    return flag(d, ISA_ATOMIC) && !d->out->glc ? 0 : d->row->dst_regs;
}

void decode_flat(struct decoder *d, u32 w)
{
    static const u8 formats[4] = {ISA_FLAT, ISA_SCRATCH, ISA_GLOBAL, ISA_FLAT};
    struct isa_inst *out = d->out;
    u32 w1 = decode_take(d), addr_regs = 0;

    decode_op(d, formats[bits(w, 17, 16)], bits(w, 24, 18));
    demand(d, bits(w, 17, 16) != 3 && !bits(w, 25, 25));
    out->imm = sign_extend(bits(w, 12, 0), 13);
    out->dlc = bits(w, 13, 13);
    out->glc = bits(w, 14, 14);
    out->slc = bits(w, 15, 15);
    out->sve = bits(w1, 23, 23);
    out->saddr = (u16)bits(w1, 22, 16);
    addr_regs = d->row->src_regs[0];
    if (out->format == ISA_FLAT) {
        demand(d, out->saddr == ISA_NULL && !out->sve && out->imm >= 0);
    } else if (out->format == ISA_GLOBAL) {
        demand(d, !out->sve && decode_operand_exists(out->saddr, 2));
        addr_regs = out->saddr == ISA_NULL ? addr_regs : min_u32(addr_regs, 1);
    } else {
        demand(d, out->saddr < ISA_EXEC_HI);
        addr_regs = out->sve ? 1 : 0;
    }
    out->addr = decode_vector_or_none(d, bits(w1, 7, 0), addr_regs);
    out->data[0] = decode_vector_or_none(d, bits(w1, 15, 8), d->row->src_regs[1]);
    out->dst = decode_vector_or_none(d, bits(w1, 31, 24), returned_regs(d));
}

void decode_mubuf(struct decoder *d, u32 w)
{
    struct isa_inst *out = d->out;
    u32 w1 = decode_take(d), data_regs = 0;

    decode_op(d, ISA_MUBUF, bits(w, 25, 18));
    demand(d, !bits(w, 17, 15));
    out->imm = (i32)bits(w, 11, 0);
    out->slc = bits(w, 12, 12);
    out->dlc = bits(w, 13, 13);
    out->glc = bits(w, 14, 14);
    out->tfe = bits(w1, 21, 21);
    out->offen = bits(w1, 22, 22);
    out->idxen = bits(w1, 23, 23);
    if (!d->row->src_regs[0]) { /* buffer_gl0_inv, buffer_gl1_inv */
        demand(d, !w1 && !bits(w, 17, 0));
        return;
    }
    out->saddr = decode_scalar_dst(d, bits(w1, 20, 16) << 2, 4);
    out->src[0] = (u16)bits(w1, 31, 24);
    demand(d, decode_operand_exists(out->src[0], 1) && out->src[0] != ISA_LITERAL);
    out->addr = decode_vector_or_none(d, bits(w1, 7, 0), (u32)out->offen + out->idxen);
    data_regs = max_u32(d->row->dst_regs, d->row->src_regs[1]) + out->tfe;
    out->data[0] = decode_vector(d, bits(w1, 15, 8), data_regs);
    demand(d, !out->tfe || flag(d, ISA_LOAD));
    out->dst = returned_regs(d) ? out->data[0] : ISA_NULL;
    if (flag(d, ISA_LOAD))
        out->data[0] = ISA_NULL;
}
