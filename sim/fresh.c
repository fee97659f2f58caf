/*
 * fresh.c: which lanes of which registers hold what nobody has written (strict mode). Copying such
 * values is fine, and so is arithmetic whose result nobody needs: compilers do both. Findings are
 * only an address and a condition that are made of nothing else. A value counts as fresh when all
 * of its bits come from fresh ones; what picks or mixes bits gives a known value.
 */
#include <stdlib.h>
#include <string.h>

#include "sim/wave.h"

struct fresh {
    u32 v[VGPRS_MAX]; /* a bit each lane */
    u32 s[SCALARS];   /* a bit each bit */
    bool scc;
    /* Of the instruction that runs: what it read. */
    u32 in[3], in_y[3], scalar[2][2], selector;
    u32 exec; /* before the instruction, which may change it */
};

struct fresh *fresh_create(struct wave *wave, struct fresh *reuse, u32 scalars)
{
    struct fresh *fresh = reuse ? reuse : malloc(sizeof *fresh);
    u32 dims = wave->compute->dispatch.rsrc2 >> 11 & 3;

    CHECK(fresh);
    (void)dims;
    memset(fresh, 255, sizeof *fresh);
    fresh->v[0] = 0;
    memset(fresh->s, 0, scalars * sizeof(u32));
    memset(fresh->s + ISA_TTMP, 0, (SCALARS - ISA_TTMP) * sizeof(u32));
    fresh->scc = false;
    return fresh;
}

/* ---- what is read ---- */

/* Lanes of a vector operand; of a scalar one all lanes or none. */
static u32 operand_fresh(const struct fresh *fresh, const struct operand *operand)
{
    if (operand->source == SOURCE_VGPR)
        return fresh->v[operand->reg] & (operand->rows == 2 ? fresh->v[operand->reg + 1] : ~0u);
    if (operand->source == SOURCE_SGPR && operand->type != TYPE_mask)
        return fresh->s[operand->reg] == ~0u ? ~0u : 0;
    return 0;
}

static void condition(struct wave *wave, u32 bits, const char *what)
{
    if (bits)
        wave_find(wave, "uninitialized-branch", "%s depends on what was never written", what);
}

static void check_address(struct wave *wave, const struct fresh *fresh, const struct uop *uop)
{
    const struct isa_inst *inst = &uop->inst;
    u32 exec = wave->EXEC, lanes_bad = 0;

    if (inst->format == ISA_SMEM) {
        if (fresh->s[inst->src[0]] == ~0u)
            wave_find(wave, "uninitialized-address", "s%u was never written", inst->src[0]);
        return;
    }
    if (inst->addr >= ISA_VGPR && inst->addr < ISA_VGPR + VGPRS_MAX &&
        inst->op != ISA_ds_swizzle_b32 && (inst->format != ISA_SCRATCH || inst->sve))
        lanes_bad = exec & fresh->v[inst->addr - ISA_VGPR];
    if (lanes_bad)
        wave_find(wave, "uninitialized-address", "lane %u of v%u was never written",
                  (u32)__builtin_ctz(lanes_bad), inst->addr - ISA_VGPR);
    if (inst->format == ISA_GLOBAL && inst->saddr != ISA_NULL && fresh->s[inst->saddr] == ~0u)
        wave_find(wave, "uninitialized-address", "s%u was never written", inst->saddr);
}

static void check_branch(struct wave *wave, const struct fresh *fresh, u32 op)
{
    u32 vcc = fresh->s[ISA_VCC_LO];

    if (op == ISA_s_cbranch_scc0 || op == ISA_s_cbranch_scc1)
        condition(wave, fresh->scc, "scc");
    if ((op == ISA_s_cbranch_vccz || op == ISA_s_cbranch_vccnz) && !(wave->VCC & ~vcc))
        condition(wave, vcc, "vcc");
}

static bool is_valu(const struct uop *uop)
{
    return uop->class >= CLASS_VALU && uop->class <= CLASS_TRANS;
}

void fresh_before(struct wave *wave, struct fresh *fresh, const struct uop *uop)
{
    fresh->exec = wave->EXEC;
    if (uop->class == CLASS_BRANCH)
        check_branch(wave, fresh, uop->inst.op);
    else if (uop->memory || uop->class == CLASS_SMEM)
        check_address(wave, fresh, uop);
    if (is_valu(uop))
        fresh->selector =
            uop->src[2].type == TYPE_mask ? (u32)operand_scalar(wave, &uop->src[2]) : 0;
    if (uop->class == CLASS_SALU)
        for (u32 n = 0; n < 2; n++) {
            fresh->scalar[n][0] = (u32)operand_scalar(wave, &uop->src[n]);
            fresh->scalar[n][1] = uop->src[n].source == SOURCE_SGPR ? fresh->s[uop->src[n].reg] : 0;
        }
    for (u32 n = 0; n < 3 && is_valu(uop); n++) {
        fresh->in[n] = operand_fresh(fresh, &uop->src[n]);
        fresh->in_y[n] = uop->y ? operand_fresh(fresh, &uop->y->src[n]) : 0;
    }
}

/* ---- what is written ---- */

/* Integer operations whose result has no known bit when an operand has none. */
static bool spreads(const struct uop *uop)
{
    switch (uop->inst.op) {
    case ISA_v_mov_b32:
    case ISA_v_add_nc_u32:
    case ISA_v_sub_nc_u32:
    case ISA_v_subrev_nc_u32:
    case ISA_v_add_co_u32:
    case ISA_v_sub_co_u32:
    case ISA_v_add_co_ci_u32:
    case ISA_v_lshlrev_b32:
    case ISA_v_lshrrev_b32:
    case ISA_v_ashrrev_i32:
    case ISA_v_add3_u32:
    case ISA_v_lshl_add_u32:
    case ISA_v_add_lshl_u32:
    case ISA_v_xor_b32:
    case ISA_v_not_b32:
    case ISA_v_lshlrev_b64:
    case ISA_v_mad_u64_u32:
        return true;
    default:
        return uop->valu && (uop->valu->result == TYPE_f32 || uop->valu->result == TYPE_f64 ||
                             uop->valu->result == TYPE_b32);
    }
}

static u32 result_fresh(const struct fresh *fresh, const struct uop *uop, const u32 in[3])
{
    if (uop->inst.dpp)
        return 0;
    if (uop->inst.op == ISA_v_cndmask_b32)
        return (in[1] & fresh->selector) | (in[0] & ~fresh->selector);
    return spreads(uop) ? in[0] | in[1] | in[2] : 0;
}

static void vector_written(struct fresh *fresh, const struct uop *uop, u32 exec, u32 bits)
{
    for (u32 row = 0; row < uop->row->dst_regs; row++) {
        u32 *to = &fresh->v[(uop->inst.dst - ISA_VGPR + row) % VGPRS_MAX];
        *to = (*to & ~exec) | (bits & exec);
    }
}

static void compare_written(struct wave *wave, struct fresh *fresh, const struct uop *uop)
{
    u32 bits = (fresh->in[0] | fresh->in[1]) & fresh->exec;

    if (uop->row->flags & ISA_WR_EXEC)
        condition(wave, bits, "exec");
    else if (uop->inst.dst < SCALARS)
        fresh->s[uop->inst.dst] = bits;
}

/* readlane and readfirstlane carry a lane's state over; writelane sets one; swaps swap. */
static void cross_written(struct wave *wave, struct fresh *fresh, const struct uop *uop)
{
    u32 op = uop->inst.op, lane = wave->EXEC ? (u32)__builtin_ctz(wave->EXEC) : 0;
    u32 dst = uop->inst.dst, src = uop->inst.src[0];

    if (op == ISA_v_readlane_b32)
        lane = (u32)operand_scalar(wave, &uop->src[1]) % LANES;
    if (uop->row->flags & ISA_TO_SGPR && dst < SCALARS)
        fresh->s[dst] = src >= ISA_VGPR && fresh->v[src - ISA_VGPR] >> lane & 1 ? ~0u : 0;
    else if (op == ISA_v_writelane_b32)
        fresh->v[dst - ISA_VGPR] &= ~(1u << operand_scalar(wave, &uop->src[1]) % LANES);
    else if (op == ISA_v_swap_b32) {
        u32 kept = fresh->v[dst - ISA_VGPR];
        fresh->v[dst - ISA_VGPR] = fresh->v[src - ISA_VGPR];
        fresh->v[src - ISA_VGPR] = kept;
    } else if (uop->row->dst_regs) {
        vector_written(fresh, uop, wave->EXEC, 0);
    }
}

/* Bits that stay open: AND with a known 0 and OR with a known 1 settle a bit. */
static u32 logic_fresh(u32 op, const u32 a[2], const u32 b[2], bool *is_logic)
{
    u32 both = a[1] | b[1];

    *is_logic = true;
    switch (op) {
    case ISA_s_and_b32:
    case ISA_s_and_b64:
        return both & (a[1] | a[0]) & (b[1] | b[0]);
    case ISA_s_and_not1_b32:
    case ISA_s_and_not1_b64:
        return both & (a[1] | a[0]) & (b[1] | ~b[0]);
    case ISA_s_or_b32:
    case ISA_s_or_b64:
        return both & (a[1] | ~a[0]) & (b[1] | ~b[0]);
    case ISA_s_or_not1_b32:
    case ISA_s_or_not1_b64:
        return both & (a[1] | ~a[0]) & (b[1] | b[0]);
    case ISA_s_xor_b32:
    case ISA_s_xor_b64:
    case ISA_s_xnor_b32:
    case ISA_s_not_b32:
    case ISA_s_mov_b32:
        return both;
    default:
        *is_logic = false;
        return a[1] == ~0u || b[1] == ~0u ? ~0u : 0;
    }
}

static void scalar_written(struct wave *wave, struct fresh *fresh, const struct uop *uop)
{
    u32 op = uop->inst.op, bits, dst = uop->inst.dst;
    bool logic, selects = op == ISA_s_cselect_b32 || op == ISA_s_cmov_b32;

    bits = logic_fresh(op, fresh->scalar[0], fresh->scalar[1], &logic);
    if (uop->row->flags & ISA_WR_EXEC) { /* saveexec */
        if (op == ISA_s_and_saveexec_b32)
            condition(wave, fresh->scalar[0][1] & wave->s[dst], "exec");
        bits = 0;
    }
    if (selects || uop->row->dst_regs == 2)
        bits = 0;
    for (u32 reg = 0; reg < uop->row->dst_regs && dst + reg < SCALARS; reg++)
        fresh->s[dst + reg] = bits;
    if (op == ISA_s_mov_b64 && uop->src[0].source == SOURCE_SGPR)
        memmove(&fresh->s[dst], &fresh->s[uop->src[0].reg], 8);
    fresh->s[ISA_NULL] = 0;
    if (uop->row->flags & ISA_WR_SCC)
        fresh->scc = bits == ~0u;
    if (dst == ISA_EXEC_LO && uop->row->dst_regs)
        condition(wave, bits, "exec");
    fresh->s[ISA_EXEC_LO] = 0;
}

void fresh_after(struct wave *wave, struct fresh *fresh, const struct uop *uop)
{
    if (uop->class == CLASS_SALU) {
        scalar_written(wave, fresh, uop);
    } else if (!is_valu(uop)) {
        if (uop->row->dst_regs && uop->inst.dst < SCALARS && uop->class != CLASS_SMEM)
            memset(&fresh->s[uop->inst.dst], 0, uop->row->dst_regs * sizeof(u32));
    } else if (!uop->valu) {
        cross_written(wave, fresh, uop);
    } else if (uop->valu->result == TYPE_mask) {
        compare_written(wave, fresh, uop);
    } else {
        vector_written(fresh, uop, wave->EXEC, result_fresh(fresh, uop, fresh->in));
        if (mad64_loses_high(uop))
            fresh->v[uop->inst.dst + 1 - ISA_VGPR] |= wave->EXEC;
        if (uop->row->flags & ISA_SDST && uop->inst.sdst < SCALARS)
            fresh->s[uop->inst.sdst] = 0;
        if (uop->y)
            vector_written(fresh, uop->y, wave->EXEC, result_fresh(fresh, uop->y, fresh->in_y));
    }
}

void fresh_deliver(struct fresh *fresh, const struct access *access)
{
    const struct uop *uop = access->uop;

    if (!access_returns(uop))
        return;
    for (u32 row = 0; row < uop->row->dst_regs; row++) {
        u32 unknown = access->unknown[row];
        if (uop->inst.format == ISA_SMEM)
            fresh->s[uop->inst.dst + row] = unknown;
        else if (uop->memory->half != HALF_NONE)
            fresh->v[uop->inst.dst - ISA_VGPR + row] &= ~access->exec;
        else
            fresh->v[uop->inst.dst - ISA_VGPR + row] =
                (fresh->v[uop->inst.dst - ISA_VGPR + row] & ~access->exec) |
                (unknown & access->exec);
    }
}
