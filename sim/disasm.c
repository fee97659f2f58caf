/*
 * disasm.c: decoded instructions as text, exactly as LLVM writes them for gfx1100.
 * Must not look at code bytes: what is printed is what was decoded. Branches have their target in a
 * comment behind.
 */
#include "sim/disasm.h"

void disasm_next(struct printer *p)
{
    text_fmt(&p->out, "%s", p->separator);
    p->separator = ", ";
}

void disasm_word(struct printer *p, bool present, const char *text)
{
    if (present)
        text_fmt(&p->out, " %s", text);
}

/* ---- operands ---- */

static void put_range(struct text *out, const char *kind, u32 first, u32 regs)
{
    if (regs < 2)
        text_fmt(out, "%s%u", kind, first);
    else
        text_fmt(out, "%s[%u:%u]", kind, first, first + regs - 1);
}

static const char *special_name(u32 code, u32 regs)
{
    static const char *const floats[] = {"0.5", "-0.5", "1.0", "-1.0",
                                         "2.0", "-2.0", "4.0", "-4.0"};
    static const char *const bases[] = {"src_shared_base", "src_shared_limit", "src_private_base",
                                        "src_private_limit", "src_pops_exiting_wave_id"};

    switch (code) {
    case ISA_VCC_LO:
        return regs > 1 ? "vcc" : "vcc_lo";
    case ISA_VCC_HI:
        return "vcc_hi";
    case ISA_NULL:
        return "null";
    case ISA_M0:
        return "m0";
    case ISA_EXEC_LO:
        return regs > 1 ? "exec" : "exec_lo";
    case ISA_EXEC_HI:
        return "exec_hi";
    case ISA_FLOAT + 8:
        return regs > 1 ? "0.15915494309189532" : "0.15915494";
    case ISA_VCCZ:
        return "src_vccz";
    case ISA_EXECZ:
        return "src_execz";
    case ISA_SCC:
        return "src_scc";
    default:
        return code >= ISA_FLOAT ? floats[code - ISA_FLOAT] : bases[code - 235];
    }
}

/* The floating-point constants, as 16 bits. */
static const u16 halves[] = {0x3800, 0xb800, 0x3c00, 0xbc00, 0x4000,
                             0xc000, 0x4400, 0xc400, 0x3118};

/* What operates on 16-bit integers has its floating-point constants as numbers. */
static bool is_int16(const struct isa_inst *inst, u32 n)
{
    const struct isa_row *row = &isa_rows[inst->op];
    struct str name = str_of(row->name);

    if (inst->op == ISA_v_mad_i32_i16 || inst->op == ISA_v_mad_u32_u16)
        return n < 2;
    return row->flags & ISA_SRC16 && (str_ends(name, STR("_i16")) || str_ends(name, STR("_u16")) ||
                                      str_ends(name, STR("_b16")));
}

void disasm_put_operand(struct printer *p, u32 code, u32 regs)
{
    if (code >= ISA_VGPR)
        put_range(&p->out, "v", code - ISA_VGPR, regs);
    else if (code < ISA_VCC_LO)
        put_range(&p->out, "s", code, regs);
    else if (code >= ISA_TTMP && code < ISA_NULL)
        put_range(&p->out, "ttmp", code - ISA_TTMP, regs);
    else if (code >= ISA_INT_0 && code <= 208)
        text_fmt(&p->out, "%d", code <= 192 ? (i32)code - 128 : 192 - (i32)code);
    else if (code == ISA_LITERAL)
        text_fmt(&p->out, "0x%x", p->inst->literal);
    else
        text_fmt(&p->out, "%s", special_name(code, regs));
}

void disasm_operand(struct printer *p, u32 code, u32 regs)
{
    disasm_next(p);
    disasm_put_operand(p, code, regs);
}

static bool is_mix(u32 op)
{
    return op == ISA_v_fma_mix_f32 || op == ISA_v_fma_mixlo_f16 || op == ISA_v_fma_mixhi_f16;
}

/* The floating-point constants as source n has them: as halves, singles, or the upper half of
 * doubles. NULL when they do not count as such there. */
static const u32 *float_constants(const struct printer *p, u32 n)
{
    static const u32 half[] = {0x3800, 0xb800, 0x3c00, 0xbc00, 0x4000,
                               0xc000, 0x4400, 0xc400, 0x3118};
    static const u32 single[] = {0x3f000000, 0xbf000000, 0x3f800000, 0xbf800000, 0x40000000,
                                 0xc0000000, 0x40800000, 0xc0800000, 0x3e22f983};
    static const u32 upper[] = {0x3fe00000, 0xbfe00000, 0x3ff00000, 0xbff00000, 0x40000000,
                                0xc0000000, 0x40100000, 0xc0100000, 0};
    struct str name = str_of(p->row->name);

    if (is_mix(p->inst->op) || p->inst->op == ISA_v_dot2_f16_f16 ||
        (p->inst->op == ISA_v_dot2_f32_f16 && n < 2))
        return half;
    if (is(p, ISA_SRC16) || (str_starts(name, STR("v_pk_")) && str_ends(name, STR("_f16"))))
        return is_int16(p->inst, n) ? NULL : half;
    if (p->row->src_regs[n] == 2)
        return str_ends(name, STR("_f64")) ? upper : NULL;
    return p->inst->op == ISA_v_dot2_f32_bf16 ? NULL : single;
}

/* A literal that has an operand code of its own is written as that one is. */
static void put_literal(struct printer *p, u32 n)
{
    const u32 *floats = float_constants(p, n);
    bool narrow = isa_narrow_literal(p->inst->op, n);
    u32 literal = p->inst->literal & (narrow ? 0xffff : UINT32_MAX), regs = p->row->src_regs[n];
    i32 number = narrow ? (i32)(literal << 16) >> 16 : (i32)literal;
    i32 most = regs == 2 && floats ? 0 : 64;

    if (number >= (regs == 1 ? -16 : 0) && number <= most) {
        text_fmt(&p->out, "%d", number);
        return;
    }
    for (u32 i = 0; floats && i <= 8; i++)
        if (literal == floats[i]) {
            text_fmt(&p->out, "%s", special_name(ISA_FLOAT + i, 1));
            return;
        }
    text_fmt(&p->out, "0x%x", literal);
}

static bool is_constant_of_fma(u32 op, u32 n)
{
    return ((op == ISA_v_fmamk_f32 || op == ISA_v_fmamk_f16) && n == 1) ||
           ((op == ISA_v_fmaak_f32 || op == ISA_v_fmaak_f16) && n == 2);
}

static void put_source(struct printer *p, u32 n)
{
    u32 code = p->inst->src[n];

    if (code == ISA_LITERAL && !is_constant_of_fma(p->inst->op, n))
        put_literal(p, n);
    else if (code >= ISA_FLOAT && code <= ISA_FLOAT + 8 && is_int16(p->inst, n))
        text_fmt(&p->out, "0x%x", halves[code - ISA_FLOAT]);
    else
        disasm_put_operand(p, code, p->row->src_regs[n]);
}

/* A source with what VOP3 and DPP do to its sign. */
void disasm_source(struct printer *p, u32 n)
{
    const struct isa_inst *inst = p->inst;
    u32 code = inst->src[n];
    bool neg = inst->neg >> n & 1, abs = inst->abs >> n & 1;
    bool number = (code >= ISA_INT_0 && code <= 208) || code == ISA_LITERAL ||
                  (code >= ISA_FLOAT && code <= ISA_FLOAT + 8);

    disasm_next(p);
    if (neg)
        text_fmt(&p->out, number && !abs ? "neg(" : "-");
    if (abs)
        text_fmt(&p->out, "|");
    put_source(p, n);
    if (abs)
        text_fmt(&p->out, "|");
    if (neg && number && !abs)
        text_fmt(&p->out, ")");
}

void disasm_sources(struct printer *p)
{
    for (u32 n = 0; n < 3; n++)
        if (p->row->src_regs[n])
            disasm_source(p, n);
}

static void put_bits(struct printer *p, const char *name, u32 bits, u32 count)
{
    text_fmt(&p->out, " %s:[%u", name, bits & 1);
    for (u32 n = 1; n < count; n++)
        text_fmt(&p->out, ",%u", bits >> n & 1);
    text_fmt(&p->out, "]");
}

static u32 source_count(const struct isa_row *row)
{
    return !row->src_regs[0] ? 0 : !row->src_regs[1] ? 1 : !row->src_regs[2] ? 2 : 3;
}

/* ---- vector instructions ---- */

static void put_dpp(struct printer *p)
{
    const struct isa_inst *inst = p->inst;
    u32 ctrl = inst->dpp_ctrl, lanes = inst->dpp8;

    if (inst->dpp == ISA_DPP8) {
        text_fmt(&p->out, " dpp8:[%u", lanes & 7);
        for (u32 n = 1; n < 8; n++)
            text_fmt(&p->out, ",%u", lanes >> (3 * n) & 7);
        text_fmt(&p->out, "]");
        disasm_word(p, inst->fetch_inactive, "fi:1");
        return;
    }
    if (ctrl < 0x100)
        text_fmt(&p->out, " quad_perm:[%u,%u,%u,%u]", ctrl & 3, ctrl >> 2 & 3, ctrl >> 4 & 3,
                 ctrl >> 6);
    else if (ctrl == 0x140 || ctrl == 0x141)
        text_fmt(&p->out, ctrl == 0x140 ? " row_mirror" : " row_half_mirror");
    else
        text_fmt(&p->out, " row_%s:%u",
                 ctrl < 0x110   ? "shl"
                 : ctrl < 0x120 ? "shr"
                 : ctrl < 0x130 ? "ror"
                 : ctrl < 0x160 ? "share"
                                : "xmask",
                 ctrl & 15);
    text_fmt(&p->out, " row_mask:0x%x bank_mask:0x%x", inst->row_mask, inst->bank_mask);
    disasm_word(p, inst->bound_ctrl, "bound_ctrl:1");
    disasm_word(p, inst->fetch_inactive, "fi:1");
}

static const char *vector_suffix(const struct printer *p)
{
    const struct isa_inst *inst = p->inst;
    bool two_forms = p->row->format <= ISA_VOPC && !is(p, ISA_SHORT) && p->row->dst_regs;

    switch (inst->format) {
    case ISA_VOP1:
    case ISA_VOP2:
        return inst->dpp ? "_dpp" : two_forms ? "_e32" : "";
    case ISA_VOPC:
        return inst->dpp ? "" : "_e32";
    case ISA_VOP3:
    case ISA_VOP3SD:
    case ISA_VOP3P:
        return inst->dpp ? "_e64_dpp" : two_forms ? "_e64" : "";
    default:
        return "";
    }
}

static void put_output_modifiers(struct printer *p)
{
    static const char *const omods[] = {"", " mul:2", " mul:4", " div:2"};

    disasm_word(p, p->inst->clamp, "clamp");
    text_fmt(&p->out, "%s", omods[p->inst->omod]);
}

static void print_vector(struct printer *p)
{
    const struct isa_inst *inst = p->inst;
    u32 count = source_count(p->row) + (inst->op == ISA_v_fmac_f16); /* the one it adds to */

    text_fmt(&p->out, "%s", vector_suffix(p));
    if (p->row->dst_regs && !(p->row->format == ISA_VOPC && is(p, ISA_WR_EXEC)))
        disasm_operand(p, inst->dst, p->row->dst_regs);
    if (is(p, ISA_SDST))
        disasm_operand(p, inst->sdst, 1);
    disasm_sources(p);
    if (inst->op_sel && (inst->op == ISA_v_permlane16_b32 || inst->op == ISA_v_permlanex16_b32))
        put_bits(p, "op_sel", inst->op_sel, 2);
    else if (inst->op_sel)
        put_bits(p, "op_sel", (inst->op_sel & 7) | (u32)(inst->op_sel >> 3) << count, count + 1);
    put_output_modifiers(p);
    if (inst->dpp)
        put_dpp(p);
}

static void print_vinterp(struct printer *p)
{
    disasm_operand(p, p->inst->dst, 1);
    disasm_sources(p);
    disasm_word(p, p->inst->clamp, "clamp");
    if (p->inst->op_sel)
        put_bits(p, "op_sel", p->inst->op_sel, 4);
    text_fmt(&p->out, " wait_exp:%u", (u32)p->inst->imm);
}

static void print_vop3p(struct printer *p)
{
    struct isa_inst plain = *p->inst;
    const struct isa_inst *inst = p->inst;
    u32 count = source_count(p->row), all = (1u << count) - 1;
    bool mix = is_mix(inst->op);

    text_fmt(&p->out, "%s", vector_suffix(p));
    disasm_operand(p, inst->dst, p->row->dst_regs);
    if (!mix) {
        plain.neg = plain.abs = 0;
        p->inst = &plain;
    }
    disasm_sources(p);
    p->inst = inst;
    if (inst->op_sel)
        put_bits(p, "op_sel", inst->op_sel, count);
    if ((inst->op_sel_hi & all) != (mix ? 0 : all))
        put_bits(p, "op_sel_hi", inst->op_sel_hi, count);
    if (!mix && inst->neg)
        put_bits(p, "neg_lo", inst->neg, count);
    if (!mix && inst->abs)
        put_bits(p, "neg_hi", inst->abs, count);
    disasm_word(p, inst->clamp, "clamp");
    if (inst->dpp)
        put_dpp(p);
}

static void print_vopd(struct printer *p)
{
    const struct isa_inst *inst = p->inst;
    struct isa_inst half = *inst;

    p->inst = &half;
    for (u32 n = 0; n < 2; n++) {
        half.op = n ? inst->y.op : inst->op;
        half.dst = n ? inst->y.dst : inst->dst;
        p->row = &isa_rows[half.op];
        text_fmt(&p->out, "%sv_dual_%s", n ? " :: " : "", p->row->name + 2);
        p->separator = " ";
        disasm_operand(p, half.dst, 1);
        for (u32 s = 0; s < 3; s++) {
            half.src[s] = n ? inst->y.src[s] : inst->src[s];
            if (p->row->src_regs[s] && !(s == 2 && half.op == ISA_v_cndmask_b32))
                disasm_source(p, s);
        }
    }
    p->inst = inst;
}

/* ---- memory ---- */

static bool power_of_two(u32 value)
{
    return value && !(value & (value - 1));
}

static void put_swizzle(struct printer *p, u32 imm)
{
    u32 and = imm & 31, or = imm >> 5 & 31, xor = imm >> 10 & 31, group = 32 - and;

    if (imm & 0x8000) {
        if ((imm & 0xff00) == 0x8000)
            text_fmt(&p->out, "swizzle(QUAD_PERM,%u,%u,%u,%u)", imm & 3, imm >> 2 & 3, imm >> 4 & 3,
                     imm >> 6 & 3);
        else
            text_fmt(&p->out, "%u", imm);
    } else if (and == 31 && ! or &&power_of_two(xor)) {
        text_fmt(&p->out, "swizzle(SWAP,%u)", xor);
    } else if (and == 31 && ! or &&xor&&power_of_two(xor+1)) {
        text_fmt(&p->out, "swizzle(REVERSE,%u)", xor+1);
    } else if (group > 1 && power_of_two(group) && or < group && !xor) {
        text_fmt(&p->out, "swizzle(BROADCAST,%u,%u)", group, or);
    } else {
        text_fmt(&p->out, "swizzle(BITMASK_PERM,\"");
        for (u32 bit = 16; bit; bit >>= 1) {
            u32 zero = (or ^xor) & bit, one = ((and | or) ^ xor) & bit;

            text_char(&p->out, zero == one ? (zero ? '1' : '0') : (zero ? 'i' : 'p'));
        }
        text_fmt(&p->out, "\")");
    }
}

static void print_ds(struct printer *p)
{
    const struct isa_inst *inst = p->inst;

    if (p->row->dst_regs)
        disasm_operand(p, inst->dst, p->row->dst_regs);
    if (p->row->src_regs[0])
        disasm_operand(p, inst->addr, p->row->src_regs[0]);
    for (u32 n = 0; n < 2; n++)
        if (p->row->src_regs[n + 1])
            disasm_operand(p, inst->data[n], p->row->src_regs[n + 1]);
    if (is(p, ISA_PAIR)) {
        if (inst->imm)
            text_fmt(&p->out, " offset0:%u", (u32)inst->imm);
        if (inst->offset1)
            text_fmt(&p->out, " offset1:%u", inst->offset1);
    } else if (inst->imm) {
        text_fmt(&p->out, " offset:");
        if (inst->op == ISA_ds_swizzle_b32)
            put_swizzle(p, (u32)inst->imm);
        else
            text_fmt(&p->out, "%u", (u32)inst->imm);
    }
    disasm_word(p, inst->gds, "gds");
}

static void put_cache_bits(struct printer *p)
{
    disasm_word(p, p->inst->glc, "glc");
    disasm_word(p, p->inst->slc, "slc");
    disasm_word(p, p->inst->dlc, "dlc");
}

static void operand_or_off(struct printer *p, u32 code, u32 regs)
{
    if (code != ISA_NULL) {
        disasm_operand(p, code, regs);
        return;
    }
    disasm_next(p);
    text_fmt(&p->out, "off");
}

static void print_flat(struct printer *p)
{
    const struct isa_inst *inst = p->inst;

    if (inst->dst != ISA_NULL)
        disasm_operand(p, inst->dst, p->row->dst_regs);
    if (inst->format == ISA_SCRATCH)
        operand_or_off(p, inst->addr, 1);
    else if (inst->addr != ISA_NULL)
        disasm_operand(p, inst->addr, inst->saddr == ISA_NULL ? 2 : 1);
    if (inst->data[0] != ISA_NULL)
        disasm_operand(p, inst->data[0], p->row->src_regs[1]);
    if (inst->format != ISA_FLAT)
        operand_or_off(p, inst->saddr, inst->format == ISA_GLOBAL ? 2 : 1);
    if (inst->imm)
        text_fmt(&p->out, " offset:%d", inst->imm);
    put_cache_bits(p);
}

static void print_mubuf(struct printer *p)
{
    const struct isa_inst *inst = p->inst;
    u32 data_regs = max_u32(p->row->dst_regs, p->row->src_regs[1]);

    if (!p->row->src_regs[0])
        return;
    if (is(p, ISA_LOAD))
        disasm_operand(p, inst->dst, data_regs + inst->tfe);
    else
        disasm_operand(p, inst->data[0], p->row->src_regs[1]);
    operand_or_off(p, inst->addr, (u32)inst->idxen + inst->offen);
    disasm_operand(p, inst->saddr, 4);
    disasm_operand(p, inst->src[0], 1);
    disasm_word(p, inst->idxen, "idxen");
    disasm_word(p, inst->offen, "offen");
    if (inst->imm)
        text_fmt(&p->out, " offset:%u", (u32)inst->imm);
    put_cache_bits(p);
    disasm_word(p, inst->tfe, "tfe");
}

/* ---- the entrance ---- */

static void (*const printers[ISA_FORMATS])(struct printer *) = {
    [ISA_SOP1] = disasm_scalar, [ISA_SOP2] = disasm_scalar,    [ISA_SOPC] = disasm_scalar,
    [ISA_SOPK] = disasm_sopk,   [ISA_SOPP] = disasm_sopp,      [ISA_SMEM] = disasm_smem,
    [ISA_VOP1] = print_vector,  [ISA_VOP2] = print_vector,     [ISA_VOPC] = print_vector,
    [ISA_VOP3] = print_vector,  [ISA_VOP3SD] = print_vector,   [ISA_VOP3P] = print_vop3p,
    [ISA_VOPD] = print_vopd,    [ISA_VINTERP] = print_vinterp, [ISA_DS] = print_ds,
    [ISA_FLAT] = print_flat,    [ISA_GLOBAL] = print_flat,     [ISA_SCRATCH] = print_flat,
    [ISA_MUBUF] = print_mubuf};

void isa_print(const struct isa_inst *inst, u64 pc, char *text, usize text_bytes)
{
    struct printer p = {.out = {text, 0, text_bytes - 1, false},
                        .inst = inst,
                        .row = &isa_rows[inst->op],
                        .separator = " "};

    CHECK(text_bytes > 0);
    if (inst->op == ISA_NONE) {
        text_fmt(&p.out, "<no instruction>");
    } else {
        if (inst->format != ISA_VOPD)
            text_fmt(&p.out, "%s", p.row->name);
        printers[inst->format](&p);
        if (disasm_relative(&p))
            text_fmt(&p.out, " // 0x%llx", (unsigned long long)(pc + 4 + 4 * (u64)(i64)inst->imm));
    }
    text[p.out.len] = 0;
}
