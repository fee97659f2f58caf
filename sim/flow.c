/*
 * flow.c: scalar instructions that steer a wave: branches, waits, barriers, hardware registers,
 * messages, traps, the end. Follows chapters 3 to 5 and 16 of AMD's "RDNA3 Instruction Set
 * Architecture" reference; encodings of s_waitcnt and of hardware registers as in LLVM.
 */
#include "sim/wave.h"

#define COUNT_ANY 63u /* no wait */

enum hardware_register {
    HWREG_MODE = 1,
    HWREG_STATUS = 2,
    HWREG_TRAPSTS = 3,
    HWREG_GPR_ALLOC = 5,
    HWREG_LDS_ALLOC = 6,
    HWREG_SH_MEM_BASES = 15,
    HWREG_FLAT_SCRATCH_LO = 20,
    HWREG_FLAT_SCRATCH_HI = 21,
    HWREG_HW_ID1 = 23,
    HWREG_SHADER_CYCLES = 29,
};

enum message { /* s_sendmsg, s_sendmsg_rtn */
               MESSAGE_INTERRUPT = 1,
               MESSAGE_DEALLOC_VGPRS = 3,
               MESSAGE_GET_TMA = 130,
               MESSAGE_GET_REALTIME = 131,
               MESSAGE_GET_TBA = 133,
};

/* ---- branches ---- */

static bool taken(const struct wave *wave, u32 op)
{
    switch (op) {
    case ISA_s_cbranch_scc0:
        return !wave->scc;
    case ISA_s_cbranch_scc1:
        return wave->scc;
    case ISA_s_cbranch_vccz:
        return !wave->VCC;
    case ISA_s_cbranch_vccnz:
        return wave->VCC;
    case ISA_s_cbranch_execz:
        return !wave->EXEC;
    case ISA_s_cbranch_execnz:
        return wave->EXEC;
    default: /* of the debugger's: its conditions are never set */
        return op == ISA_s_branch;
    }
}

static void run_branch(struct wave *wave, const struct uop *uop)
{
    if (taken(wave, uop->inst.op))
        wave->pc += (u64)(i64)uop->inst.imm * 4;
}

static void write_pair(struct wave *wave, u32 reg, u64 value)
{
    wave->s[reg] = (u32)value;
    wave->s[reg + 1] = (u32)(value >> 32);
    wave->s[ISA_NULL] = 0;
}

static void run_pc(struct wave *wave, const struct uop *uop)
{
    u64 next = wave->pc, target = 0;

    if (uop->src[0].source != SOURCE_NONE)
        target = operand_scalar(wave, &uop->src[0]) & 0xfffffffffffcull;
    if (uop->row->dst_regs)
        write_pair(wave, uop->inst.dst, next);
    if (uop->inst.op == ISA_s_call_b64)
        wave->pc = next + (u64)(i64)uop->inst.imm * 4;
    else if (uop->inst.op != ISA_s_getpc_b64)
        wave->pc = target;
    if (uop->inst.op == ISA_s_rfe_b64)
        wave->privileged = false;
}

/* ---- waits ---- */

/* Strict mode only: idle otherwise. */
static void run_wait(struct wave *wave, const struct uop *uop)
{
    u32 imm = (u32)uop->inst.imm & 0xffff, vm = COUNT_ANY, lgkm = COUNT_ANY, vs = COUNT_ANY;
    u32 count = imm;

    if (uop->src[0].source != SOURCE_NONE)
        count = (count + (u32)operand_scalar(wave, &uop->src[0])) & COUNT_ANY;
    switch (uop->inst.op) {
    case ISA_s_waitcnt:
        lgkm = imm >> 4 & 63;
        vm = imm >> 10 & 63;
        break;
    case ISA_s_waitcnt_vmcnt:
        vm = count;
        break;
    case ISA_s_waitcnt_lgkmcnt:
        lgkm = count;
        break;
    case ISA_s_waitcnt_vscnt:
        vs = count;
        break;
    case ISA_s_wait_idle:
        vm = lgkm = vs = 0;
        break;
    case ISA_s_waitcnt_depctr:
        if (!(imm >> 12)) /* va_vdst */
            strict_valu_done(wave);
        break;
    default:
        break;
    }
    strict_wait(wave, vm, lgkm, vs);
}

/* ---- hardware registers ---- */

static u32 hardware_read(struct wave *wave, u32 id)
{
    switch (id) {
    case HWREG_MODE:
        return wave->mode;
    case HWREG_STATUS:
        return wave->scc | (u32)wave->privileged << 5 | (u32)!wave->EXEC << 9 |
               (u32)!wave->VCC << 10 | 1u << 16;
    case HWREG_TRAPSTS:
        return wave->trap_status;
    case HWREG_GPR_ALLOC:
        return wave->vgprs / 8 << 12;
    case HWREG_LDS_ALLOC:
        return wave->group->lds_bytes / 512 << 12;
    case HWREG_SH_MEM_BASES:
        return 0x00010002;
    case HWREG_FLAT_SCRATCH_LO:
        return (u32)wave->scratch;
    case HWREG_FLAT_SCRATCH_HI:
        return (u32)(wave->scratch >> 32);
    case HWREG_HW_ID1:
        return (wave->index & 31) | (wave->group->wgp & 15) << 10;
    case HWREG_SHADER_CYCLES:
        return (u32)wave->issued & 0xfffff;
    default:
        return 0;
    }
}

static void run_hardware(struct wave *wave, const struct uop *uop)
{
    u32 imm = (u32)uop->inst.imm, id = imm & 63, offset = imm >> 6 & 31;
    u32 bits = (imm >> 11 & 31) + 1, mask = bits == 32 ? ~0u : (1u << bits) - 1;
    u32 value;

    if (uop->inst.op == ISA_s_getreg_b32) {
        wave->s[uop->inst.dst] = hardware_read(wave, id) >> offset & mask;
        wave->s[ISA_NULL] = 0;
        return;
    }
    value = uop->inst.op == ISA_s_setreg_b32 ? (u32)operand_scalar(wave, &uop->src[0])
                                             : uop->inst.literal;
    mask <<= offset;
    value = value << offset & mask;
    if (id == HWREG_MODE)
        wave_mode_set(wave, (wave->mode & ~mask) | value);
    if (id == HWREG_TRAPSTS)
        wave->trap_status = (wave->trap_status & ~mask) | value;
}

static void run_mode(struct wave *wave, const struct uop *uop)
{
    u32 shift = uop->inst.op == ISA_s_denorm_mode ? 4 : 0;

    wave_mode_set(wave, (wave->mode & ~(15u << shift)) | ((u32)uop->inst.imm & 15) << shift);
}

/* ---- messages, traps, the end ---- */

static void run_message(struct wave *wave, const struct uop *uop)
{
    u32 message = (u32)uop->inst.imm & 255;

    if (uop->inst.op == ISA_s_sendmsghalt)
        wave_fail(wave, COMPUTE_TRAP, "halted", "the wave has halted itself");
    else if (message == MESSAGE_DEALLOC_VGPRS)
        wave->vgprs = 0;
    else if (message == MESSAGE_INTERRUPT && wave->compute->options.report)
        wave->compute->options.report(wave->compute->options.report_ctx, "s_sendmsg: interrupt");
}

static void run_message_return(struct wave *wave, const struct uop *uop)
{
    const struct compute_dispatch *dispatch = &wave->compute->dispatch;
    u64 value = uop->inst.src[0] == MESSAGE_GET_TMA        ? dispatch->trap_memory
                : uop->inst.src[0] == MESSAGE_GET_TBA      ? dispatch->trap_handler
                : uop->inst.src[0] == MESSAGE_GET_REALTIME ? wave->issued / 8
                                                           : 0;

    wave->s[uop->inst.dst] = (u32)value;
    if (uop->row->dst_regs == 2)
        wave->s[uop->inst.dst + 1] = (u32)(value >> 32);
}

static void run_trap(struct wave *wave, const struct uop *uop)
{
    u64 handler = wave->compute->dispatch.trap_handler;
    u32 id = (u32)uop->inst.imm & 255;

    if (!handler) {
        wave_fail(wave, COMPUTE_TRAP, "trap", "s_trap %u", id);
        return;
    }
    wave->s[ISA_TTMP] = (u32)wave->at;
    wave->s[ISA_TTMP + 1] = (u32)(wave->at >> 32 & 0xffff) | id << 16;
    wave->privileged = true;
    wave->pc = handler;
}

static void run_end(struct wave *wave, const struct uop *uop)
{
    (void)uop;
    wave_end(wave);
}

static void run_barrier(struct wave *wave, const struct uop *uop)
{
    (void)uop;
    wave_barrier(wave);
}

static void run_halt(struct wave *wave, const struct uop *uop)
{
    if (uop->inst.op == ISA_s_code_end)
        wave_fail(wave, COMPUTE_ILLEGAL, "illegal-instruction", "ran into s_code_end");
    else if (uop->inst.imm & 1)
        wave_fail(wave, COMPUTE_TRAP, "halted", "the wave has halted itself");
}

static void run_instruction_cache(struct wave *wave, const struct uop *uop)
{
    const struct compute_memory *memory = &wave->compute->memory;

    (void)uop;
    memory->invalidate(memory->ctx, wave->group->wgp, COMPUTE_ICACHE);
}

static void run_nothing(struct wave *wave, const struct uop *uop)
{
    (void)wave, (void)uop;
}

static uop_run *runner(u32 op, u8 *class)
{
    *class = CLASS_OTHER;
    switch (op) {
    case ISA_s_getpc_b64:
        *class = CLASS_SALU;
        return run_pc;
    case ISA_s_setpc_b64:
    case ISA_s_swappc_b64:
    case ISA_s_call_b64:
    case ISA_s_rfe_b64:
        *class = CLASS_BRANCH;
        return run_pc;
    case ISA_s_waitcnt:
    case ISA_s_waitcnt_depctr:
    case ISA_s_wait_idle:
    case ISA_s_waitcnt_vmcnt:
    case ISA_s_waitcnt_vscnt:
    case ISA_s_waitcnt_expcnt:
    case ISA_s_waitcnt_lgkmcnt:
        *class = CLASS_WAIT;
        return run_wait;
    case ISA_s_getreg_b32:
    case ISA_s_setreg_b32:
    case ISA_s_setreg_imm32_b32:
        return run_hardware;
    case ISA_s_round_mode:
    case ISA_s_denorm_mode:
        return run_mode;
    case ISA_s_sendmsg:
    case ISA_s_sendmsghalt:
        return run_message;
    case ISA_s_sendmsg_rtn_b32:
    case ISA_s_sendmsg_rtn_b64:
        return run_message_return;
    case ISA_s_trap:
        return run_trap;
    case ISA_s_barrier:
        return run_barrier;
    case ISA_s_endpgm:
    case ISA_s_endpgm_saved:
        return run_end;
    case ISA_s_code_end:
    case ISA_s_sethalt:
        return run_halt;
    case ISA_s_icache_inv:
        return run_instruction_cache;
    case ISA_s_subvector_loop_begin: /* for wave64 */
    case ISA_s_subvector_loop_end:
        return NULL;
    default:
        return run_nothing;
    }
}

bool flow_decode(struct uop *uop)
{
    u32 op = uop->inst.op;

    uop->run = runner(op, &uop->class);
    if (op >= ISA_s_branch && op <= ISA_s_cbranch_cdbgsys_and_user) {
        uop->class = CLASS_BRANCH;
        uop->run = run_branch;
    }
    uop->idle = uop->run == run_wait || uop->run == run_nothing;
    if (uop->row->src_regs[0])
        operand_decode(uop, 0, uop->row->src_regs[0] == 2 ? TYPE_u64 : TYPE_u32);
    return uop->run != NULL;
}
