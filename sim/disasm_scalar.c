/*
 * disasm_scalar.c: scalar instructions as text, with the named fields of SOPP and SOPK.
 * Follows AMD's "RDNA3 Instruction Set Architecture" reference, chapters 5, 6 and 16.
 */
#include "sim/disasm.h"

/* ---- fields of SOPP and SOPK ---- */

/* Small numbers are decimal, as inline constants are. */
static void put_small(struct printer *p, u32 value)
{
    text_fmt(&p->out, value <= 64 ? " %u" : " 0x%x", value);
}

static void put_waitcnt(struct printer *p, u32 imm)
{
    u32 exp = imm & 7, lgkm = imm >> 4 & 63, vm = imm >> 10;
    bool all = exp == 7 && lgkm == 63 && vm == 63;

    if (all || vm != 63)
        text_fmt(&p->out, " vmcnt(%u)", vm);
    if (all || exp != 7)
        text_fmt(&p->out, " expcnt(%u)", exp);
    if (all || lgkm != 63)
        text_fmt(&p->out, " lgkmcnt(%u)", lgkm);
}

static void put_depctr(struct printer *p, u32 imm)
{
    static const struct {
        const char *name;
        u8 shift, max;
    } fields[] = {{"hold_cnt", 7, 1}, {"sa_sdst", 0, 1}, {"va_vdst", 12, 15}, {"va_sdst", 9, 7},
                  {"va_ssrc", 8, 1},  {"va_vcc", 1, 1},  {"vm_vsrc", 2, 7}};

    if (imm & 0x60) {
        text_fmt(&p->out, " 0x%x", imm);
        return;
    }
    for (u32 n = 0; n < ARRAY_LEN(fields); n++) {
        u32 value = imm >> fields[n].shift & fields[n].max;

        if (imm == 0xff9f || value != fields[n].max)
            text_fmt(&p->out, " depctr_%s(%u)", fields[n].name, value);
    }
}

static void put_delay(struct printer *p, u32 imm)
{
    static const char *const ids[16] = {"NO_DEP",        "VALU_DEP_1",    "VALU_DEP_2",
                                        "VALU_DEP_3",    "VALU_DEP_4",    "TRANS32_DEP_1",
                                        "TRANS32_DEP_2", "TRANS32_DEP_3", "FMA_ACCUM_CYCLE_1",
                                        "SALU_CYCLE_1",  "SALU_CYCLE_2",  "SALU_CYCLE_3"};
    static const char *const skips[8] = {"SAME", "NEXT", "SKIP_1", "SKIP_2", "SKIP_3", "SKIP_4"};
    u32 id0 = imm & 15, skip = imm >> 4 & 7, id1 = imm >> 7 & 15;
    const char *bar = " ";

    if (id0) {
        text_fmt(&p->out, " instid0(%s)", ids[id0] ? ids[id0] : "/* invalid instid value */");
        bar = " | ";
    }
    if (skip) {
        text_fmt(&p->out, "%sinstskip(%s)", bar,
                 skips[skip] ? skips[skip] : "/* invalid instskip value */");
        bar = " | ";
    }
    if (id1)
        text_fmt(&p->out, "%sinstid1(%s)", bar, ids[id1] ? ids[id1] : "/* invalid instid value */");
    if (!id0 && !skip && !id1)
        text_fmt(&p->out, " 0");
}

static const char *message_name(u32 id)
{
    switch (id) {
    case 1:
        return "MSG_INTERRUPT";
    case 2:
        return "MSG_HS_TESSFACTOR";
    case 3:
        return "MSG_DEALLOC_VGPRS";
    case 5:
        return "MSG_STALL_WAVE_GEN";
    case 6:
        return "MSG_HALT_WAVES";
    case 9:
        return "MSG_GS_ALLOC_REQ";
    case 128:
        return "MSG_RTN_GET_DOORBELL";
    case 129:
        return "MSG_RTN_GET_DDID";
    case 130:
        return "MSG_RTN_GET_TMA";
    case 131:
        return "MSG_RTN_GET_REALTIME";
    case 132:
        return "MSG_RTN_SAVE_WAVE";
    case 133:
        return "MSG_RTN_GET_TBA";
    case 134:
        return "MSG_RTN_GET_TBA_TO_PC";
    default:
        return NULL;
    }
}

static void put_message(struct printer *p, u32 imm)
{
    const char *name = message_name(imm);

    text_fmt(&p->out, p->separator[0] == ',' ? "," : "");
    if (name)
        text_fmt(&p->out, " sendmsg(%s)", name);
    else
        text_fmt(&p->out, imm <= 0xff ? " sendmsg(%u, 0, 0)" : " %u", imm);
}

static void put_hwreg(struct printer *p, u32 imm)
{
    static const char *const names[] = {[1] = "MODE",
                                        [2] = "STATUS",
                                        [3] = "TRAPSTS",
                                        [5] = "GPR_ALLOC",
                                        [6] = "LDS_ALLOC",
                                        [7] = "IB_STS",
                                        [15] = "SH_MEM_BASES",
                                        [18] = "PERF_SNAPSHOT_PC_LO",
                                        [19] = "PERF_SNAPSHOT_PC_HI",
                                        [20] = "FLAT_SCR_LO",
                                        [21] = "FLAT_SCR_HI",
                                        [23] = "HW_ID1",
                                        [24] = "HW_ID2",
                                        [27] = "PERF_SNAPSHOT_DATA",
                                        [29] = "SHADER_CYCLES"};
    u32 id = imm & 63, offset = imm >> 6 & 31, size = (imm >> 11 & 31) + 1;

    disasm_next(p);
    if (id < ARRAY_LEN(names) && names[id])
        text_fmt(&p->out, "hwreg(HW_REG_%s", names[id]);
    else
        text_fmt(&p->out, "hwreg(%u", id);
    if (offset || size != 32)
        text_fmt(&p->out, ", %u, %u", offset, size);
    text_fmt(&p->out, ")");
}

/* ---- scalar instructions ---- */

bool disasm_relative(const struct printer *p)
{
    return is(p, ISA_BRANCH) && (p->inst->format == ISA_SOPP || p->inst->format == ISA_SOPK);
}

void disasm_sopp(struct printer *p)
{
    u32 imm = (u16)p->inst->imm;

    if (!isa_sopp_takes_number(p->inst->op))
        return;
    switch (p->inst->op) {
    case ISA_s_endpgm:
        if (imm)
            text_fmt(&p->out, " %u", imm);
        return;
    case ISA_s_waitcnt:
        put_waitcnt(p, imm);
        return;
    case ISA_s_waitcnt_depctr:
        put_depctr(p, imm);
        return;
    case ISA_s_delay_alu:
        put_delay(p, imm);
        return;
    case ISA_s_sendmsg:
    case ISA_s_sendmsghalt:
        put_message(p, imm);
        return;
    case ISA_s_set_inst_prefetch_distance:
    case ISA_s_clause:
    case ISA_s_wait_event:
    case ISA_s_round_mode:
    case ISA_s_ttracedata_imm:
        text_fmt(&p->out, " 0x%x", imm);
        return;
    default:
        if (disasm_relative(p))
            text_fmt(&p->out, " %u", imm);
        else
            put_small(p, imm);
    }
}

void disasm_sopk(struct printer *p)
{
    const struct isa_inst *inst = p->inst;
    u32 imm = (u16)inst->imm;

    if (inst->op == ISA_s_setreg_b32 || inst->op == ISA_s_setreg_imm32_b32) {
        put_hwreg(p, imm);
        disasm_source(p, 0);
        return;
    }
    if (p->row->dst_regs)
        disasm_operand(p, inst->dst, p->row->dst_regs);
    else
        disasm_operand(p, inst->src[0], 1);
    if (inst->op == ISA_s_getreg_b32)
        put_hwreg(p, imm);
    else
        text_fmt(&p->out, disasm_relative(p) ? ", %u" : ", 0x%x", imm);
}

void disasm_scalar(struct printer *p)
{
    if (p->row->dst_regs)
        disasm_operand(p, p->inst->dst, p->row->dst_regs);
    disasm_sources(p);
    if (p->inst->op == ISA_s_sendmsg_rtn_b32 || p->inst->op == ISA_s_sendmsg_rtn_b64)
        put_message(p, (u32)p->inst->imm);
}

static void put_signed_hex(struct text *out, i32 value)
{
    text_fmt(out, value < 0 ? "-0x%x" : "0x%x", value < 0 ? -(u32)value : (u32)value);
}

void disasm_smem(struct printer *p)
{
    const struct isa_inst *inst = p->inst;

    if (p->row->dst_regs) {
        disasm_operand(p, inst->dst, p->row->dst_regs);
        disasm_operand(p, inst->src[0], p->row->src_regs[0]);
        disasm_next(p);
        if (inst->src[1] == ISA_NULL && inst->imm) {
            put_signed_hex(&p->out, inst->imm);
        } else {
            disasm_put_operand(p, inst->src[1], 1);
            if (inst->imm) {
                text_fmt(&p->out, " offset:");
                put_signed_hex(&p->out, inst->imm);
            }
        }
    }
    disasm_word(p, inst->glc, "glc");
    disasm_word(p, inst->dlc, "dlc");
}
