/*
 * smem.c: scalar loads and the scalar cache's controls. Constant buffers are checked against their
 * resource: beyond its records zeros are read.
 */
#include <string.h>

#include "sim/wave.h"

#define DWORDS_MAX 16u

static u64 constant_buffer(const struct wave *wave, u32 reg, u64 offset, u32 bytes, bool *inside)
{
    u64 base = wave->s[reg] | (u64)(wave->s[reg + 1] & 0xffff) << 32;
    u32 stride = wave->s[reg + 1] >> 16 & 0x3fff, records = wave->s[reg + 2];
    u64 limit = stride ? (u64)records * stride : records;

    *inside = offset + bytes <= limit;
    return base + offset;
}

static void run_load(struct wave *wave, const struct uop *uop)
{
    const struct isa_inst *inst = &uop->inst;
    u32 bytes = uop->row->dst_regs * 4u, base = inst->src[0];
    u64 offset = (u64)(i64)inst->imm + (inst->src[1] == ISA_NULL ? 0 : wave->s[inst->src[1]]);
    struct access access;
    bool inside = true;

    access.uop = uop;
    access.exec = 1;
    if (uop->row->src_regs[0] == 4)
        access.address[0] = constant_buffer(wave, base, offset & ~3ull, bytes, &inside);
    else
        access.address[0] = (wave->s[base] | (u64)wave->s[base + 1] << 32) + offset;
    access.address[0] &= ~3ull;
    access.address[1] = inside;
    wave->compute->ledger.load_bytes += bytes;
    access_start(wave, &access);
}

void smem_perform(struct wave *wave, struct access *access)
{
    u32 bytes = access->uop->row->dst_regs * 4u;
    u32 flags = COMPUTE_SCALAR | (access->uop->inst.glc ? COMPUTE_GLC : 0u);

    u32 known[DWORDS_MAX * 4 / 32] = {~0u, ~0u};

    memset(access->in, 0, bytes);
    if (access->address[1])
        memory_read(&(struct move){wave, (u8 *)access->in, known, flags, false}, access->address[0],
                    bytes);
    for (u32 n = 0; wave->strict && n < bytes / 4; n++)
        access->unknown[n] = known[n / 8] >> n % 8 * 4 & 15 ? 0 : ~0u;
}

static void run_invalidate(struct wave *wave, const struct uop *uop)
{
    const struct compute_memory *memory = &wave->compute->memory;
    u32 what = uop->inst.op == ISA_s_gl1_inv ? COMPUTE_GL1 : COMPUTE_KCACHE;

    memory->invalidate(memory->ctx, wave->group->wgp, what);
}

bool smem_decode(struct uop *uop)
{
    uop->class = CLASS_SMEM;
    uop->run = uop->row->flags & ISA_LOAD ? run_load : run_invalidate;
    return true;
}
