/*
 * cross.c: vector instructions that move data between lanes or choose registers by M0: readlane,
 * writelane, permlane, swap, movrel, and those that do nothing.
 */
#include <string.h>

#include "sim/wave.h"

static u32 *vgpr(struct wave *wave, u32 reg)
{
    if (reg < wave->vgprs)
        return wave->v[reg];
    wave_find(wave, "vgpr-out-of-range", "v%u of %u", reg, wave->vgprs);
    return wave->result[3];
}

static void run_read_lane(struct wave *wave, const struct uop *uop)
{
    u32 lane = wave->EXEC ? (u32)__builtin_ctz(wave->EXEC) : 0;

    if (uop->inst.op == ISA_v_readlane_b32)
        lane = (u32)operand_scalar(wave, &uop->src[1]) % LANES;
    wave->s[uop->inst.dst] = operand_lanes(wave, uop, 0)[lane];
    wave->s[ISA_NULL] = 0;
}

static void run_write_lane(struct wave *wave, const struct uop *uop)
{
    u32 lane = (u32)operand_scalar(wave, &uop->src[1]) % LANES;

    wave->v[uop->inst.dst - ISA_VGPR][lane] = (u32)operand_scalar(wave, &uop->src[0]);
}

/* Any lane of the row, or of the other row, by 4 bits for each lane in two scalars. op_sel bit 0:
 * fetch from inactive lanes too; bit 1: what is not fetched is 0, else the lane keeps its value. */
static void run_permlane(struct wave *wave, const struct uop *uop)
{
    const u32 *from = operand_lanes(wave, uop, 0);
    u64 select = operand_scalar(wave, &uop->src[1]) | operand_scalar(wave, &uop->src[2]) << 32;
    u32 across = uop->inst.op == ISA_v_permlanex16_b32 ? 16 : 0, exec = wave->EXEC;
    lanes result;

    for (u32 i = 0; i < LANES; i++) {
        u32 lane = ((i & 16) ^ across) + (u32)(select >> 4 * (i & 15) & 15);
        bool fetched = uop->inst.op_sel & 1 || wave->EXEC >> lane & 1;
        result[i] = fetched ? from[lane] : 0;
        if (!fetched && !(uop->inst.op_sel & 2))
            exec &= ~(1u << i);
    }
    lanes_store(wave->v[uop->inst.dst - ISA_VGPR], result, exec);
}

static void swap(struct wave *wave, u32 a, u32 b)
{
    u32 *first = vgpr(wave, a), *second = vgpr(wave, b);
    lanes kept;

    memcpy(kept, first, sizeof kept);
    lanes_store(first, second, wave->EXEC);
    lanes_store(second, kept, wave->EXEC);
}

static void run_swap(struct wave *wave, const struct uop *uop)
{
    bool relative = uop->inst.op == ISA_v_swaprel_b32;
    u32 from = relative ? wave->M0 & 0x3ff : 0, to = relative ? wave->M0 >> 16 & 0x3ff : 0;

    swap(wave, uop->inst.dst - ISA_VGPR + to, uop->inst.src[0] - ISA_VGPR + from);
}

static void run_relative(struct wave *wave, const struct uop *uop)
{
    u32 op = uop->inst.op, m0 = wave->M0, from_by = 0, to_by = 0;
    const u32 *from = NULL;

    if (op == ISA_v_movrels_b32 || op == ISA_v_movrelsd_b32)
        from_by = m0;
    if (op == ISA_v_movreld_b32 || op == ISA_v_movrelsd_b32)
        to_by = m0;
    if (op == ISA_v_movrelsd_2_b32) {
        from_by = m0 & 0x3ff;
        to_by = m0 >> 16 & 0x3ff;
    }
    from = uop->inst.src[0] >= ISA_VGPR ? vgpr(wave, uop->inst.src[0] - ISA_VGPR + from_by)
                                        : operand_lanes(wave, uop, 0);
    lanes_store(vgpr(wave, uop->inst.dst - ISA_VGPR + to_by), from, wave->EXEC);
}

static void run_nothing(struct wave *wave, const struct uop *uop)
{
    (void)wave, (void)uop;
}

static uop_run *runner(u32 op)
{
    switch (op) {
    case ISA_v_readfirstlane_b32:
    case ISA_v_readlane_b32:
        return run_read_lane;
    case ISA_v_writelane_b32:
        return run_write_lane;
    case ISA_v_permlane16_b32:
    case ISA_v_permlanex16_b32:
        return run_permlane;
    case ISA_v_swap_b32:
    case ISA_v_swaprel_b32:
        return run_swap;
    case ISA_v_movreld_b32:
    case ISA_v_movrels_b32:
    case ISA_v_movrelsd_b32:
    case ISA_v_movrelsd_2_b32:
        return run_relative;
    case ISA_v_nop:
    case ISA_v_pipeflush:
    case ISA_v_permlane64_b32: /* of wave64 */
        return run_nothing;
    default:
        return NULL;
    }
}

bool cross_decode(struct uop *uop)
{
    uop->run = runner(uop->inst.op);
    uop->class = CLASS_VALU;
    for (u32 n = 0; n < 3; n++)
        operand_decode(uop, n, uop->row->src_regs[n] ? TYPE_u32 : TYPE_none);
    return uop->run && !uop->inst.dpp;
}
