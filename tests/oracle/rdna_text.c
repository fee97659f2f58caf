/*
 * rdna_text.c: the listing: one line of assembly per RDNA3 instruction, as llvm-mc reads it.
 */
#include "tests/oracle/listing.h"

static const struct rdna_row *row_of(const struct rinstr *instr)
{
    return &rdna_rows[instr->row];
}

/* ---- operands ---- */

static void print_constant(u16 code, struct text *out)
{
    static const char *const floats[] = {"0.5",  "-0.5", "1.0",  "-1.0",      "2.0",
                                         "-2.0", "4.0",  "-4.0", "0.15915494"};

    if (code >= 240)
        text_put(out, str_of(floats[code - 240]));
    else if (code > 192)
        text_fmt(out, "-%u", code - 192u);
    else
        text_fmt(out, "%u", code - 128u);
}

static void print_register(u16 code, u32 width, struct text *out)
{
    u32 number = code >= RDNA_VGPR ? code - RDNA_VGPR : code;
    char bank = code >= RDNA_VGPR ? 'v' : 's';

    if (code == RDNA_VCC)
        text_put(out, str_of(width == 2 ? "vcc" : "vcc_lo"));
    else if (code == RDNA_EXEC)
        text_put(out, str_of(width == 2 ? "exec" : "exec_lo"));
    else if (code == RDNA_M0)
        text_put(out, str_of("m0"));
    else if (code == RDNA_NULL)
        text_put(out, str_of("null"));
    else if (width == 1)
        text_fmt(out, "%c%u", bank, number);
    else
        text_fmt(out, "%c[%u:%u]", bank, number, number + width - 1);
}

static u32 width_of(const struct rinstr *instr, u32 column)
{
    u16 operand = row_of(instr)->operand[column];

    return operand >> 8 == K_A && instr->src[2] != RDNA_NONE ? 1 : operand & 255u;
}

static bool is_mix(const struct rinstr *instr)
{
    return row_of(instr)->flags & R_PACKED && row_of(instr)->flags & R_DPP;
}

static void print_source(const struct rinstr *instr, u32 k, struct text *out)
{
    bool packed = row_of(instr)->flags & R_PACKED && !is_mix(instr);
    bool neg = !packed && instr->neg >> k & 1, abs = !packed && instr->abs >> k & 1;
    u16 code = instr->src[k];

    text_fmt(out, "%s%s", neg ? "-" : "", abs ? "|" : "");
    if (code == RDNA_NONE)
        text_put(out, str_of(row_of(instr)->operand[k + 1] >> 8 == K_B ? "off" : "null"));
    else if (code == RDNA_CONST)
        text_fmt(out, "0x%x", instr->literal);
    else if (code >= RDNA_ZERO && code < RDNA_VGPR)
        print_constant(code, out);
    else
        print_register(code, width_of(instr, k + 1), out);
    if (abs)
        text_char(out, '|');
}

/* ---- modifiers ---- */

static void print_bits(const char *name, u32 bits, u32 count, struct text *out)
{
    text_fmt(out, " %s:[", name);
    for (u32 i = 0; i < count; i++)
        text_fmt(out, "%s%u", i ? "," : "", bits >> i & 1);
    text_char(out, ']');
}

static u32 sources(const struct rinstr *instr)
{
    u32 count = 3;

    while (count && row_of(instr)->operand[count] >> 8 == K_NONE)
        count--;
    return count;
}

static void print_dpp(const struct rinstr *instr, struct text *out)
{
    static const struct {
        u16 first, last;
        const char *name;
    } kinds[] = {{DPP_ROW_SHL, 0x10f, "row_shl"},
                 {DPP_ROW_SHR, 0x11f, "row_shr"},
                 {DPP_ROW_ROR, 0x12f, "row_ror"},
                 {DPP_ROW_SHARE, 0x15f, "row_share"},
                 {DPP_ROW_XMASK, 0x16f, "row_xmask"}};
    u32 ctrl = instr->dpp;

    if (ctrl < DPP_ROW_SHL)
        text_fmt(out, " quad_perm:[%u,%u,%u,%u]", ctrl & 3, ctrl >> 2 & 3, ctrl >> 4 & 3,
                 ctrl >> 6 & 3);
    if (ctrl == DPP_ROW_MIRROR)
        text_put(out, str_of(" row_mirror"));
    if (ctrl == DPP_ROW_HALF_MIRROR)
        text_put(out, str_of(" row_half_mirror"));
    for (u32 i = 0; i < ARRAY_LEN(kinds); i++)
        if (ctrl >= kinds[i].first && ctrl <= kinds[i].last)
            text_fmt(out, " %s:%u", kinds[i].name, ctrl - kinds[i].first);
    text_fmt(out, " row_mask:0x%x bank_mask:0x%x%s", instr->row_mask, instr->bank_mask,
             instr->bound_ctrl ? " bound_ctrl:1" : "");
}

static void print_modifiers(const struct rinstr *instr, struct text *out)
{
    static const char *const factors[] = {"", " mul:2", " mul:4", " div:2"};
    u32 flags = row_of(instr)->flags, count = sources(instr);
    u32 all = (1u << count) - 1;

    if (flags & R_HALF && instr->op_sel)
        print_bits("op_sel", (instr->op_sel & all) | (instr->op_sel & 8u) >> 3 << count, count + 1,
                   out);
    if (flags & R_PACKED && instr->op_sel)
        print_bits("op_sel", instr->op_sel, count, out);
    if (flags & R_PACKED && (instr->op_sel_hi & all) != (is_mix(instr) ? 0 : all))
        print_bits("op_sel_hi", instr->op_sel_hi, count, out);
    if (flags & R_PACKED && !is_mix(instr) && instr->neg)
        print_bits("neg_lo", instr->neg, count, out);
    if (flags & R_PACKED && !is_mix(instr) && instr->abs)
        print_bits("neg_hi", instr->abs, count, out);
    text_fmt(out, "%s%s", instr->clamp ? " clamp" : "", factors[instr->omod]);
    if (instr->dpp != DPP_OFF)
        print_dpp(instr, out);
}

static void print_offset(const struct rinstr *instr, struct text *out)
{
    if (instr->imm)
        text_fmt(out, " offset:%d", instr->imm);
    text_fmt(out, "%s%s%s", instr->cache & RDNA_GLC ? " glc" : "",
             instr->cache & RDNA_SLC ? " slc" : "", instr->cache & RDNA_DLC ? " dlc" : "");
}

/* ---- instructions ---- */

static void print_smem(const struct rinstr *instr, struct text *out)
{
    if (instr->src[1] == RDNA_NONE)
        text_fmt(out, ", 0x%x", instr->imm);
    else
        print_offset(instr, out);
}

/* Sources in LLVM's order: the constant of fmamk in the middle, of fmaak at the end; no offset
 * register of scalar memory when there is none. */
static void print_operands(const struct rinstr *instr, struct text *out)
{
    const struct rdna_row *row = row_of(instr);
    const char *comma = " ";

    if (row->operand[0] >> 8 != K_NONE) {
        text_put(out, str_of(comma));
        print_register(instr->dst == RDNA_NONE ? RDNA_NULL : instr->dst, width_of(instr, 0), out);
        comma = ", ";
    }
    if (row->flags & R_SDST) {
        text_put(out, str_of(", "));
        print_register(instr->sdst == RDNA_NONE ? RDNA_NULL : instr->sdst, 1, out);
    }
    for (u32 k = 0; k < 3; k++) {
        bool absent = row->operand[k + 1] >> 8 == K_NONE;
        if (absent || (row->format == F_SMEM && k && instr->src[k] == RDNA_NONE))
            continue;
        if (instr->row == R_v_fmamk_f32 && k == 1)
            text_fmt(out, ", 0x%x", instr->literal);
        text_put(out, str_of(comma));
        comma = ", ";
        print_source(instr, k, out);
    }
    if (instr->row == R_v_fmaak_f32)
        text_fmt(out, ", 0x%x", instr->literal);
}

static bool takes_number(const struct rinstr *instr)
{
    u32 row = instr->row;

    return row_of(instr)->format == F_SOPP && row != R_s_endpgm && row != R_s_barrier;
}

static void print_one(const struct rinstr *instr, struct text *out)
{
    const struct rdna_row *row = row_of(instr);

    print_operands(instr, out);
    if (row->format == F_SMEM && row->flags & R_LOAD)
        print_smem(instr, out);
    else if (row->format == F_DS || row->format == F_GLOBAL)
        print_offset(instr, out);
    else if (row->format == F_SOPK)
        text_fmt(out, ", 0x%x", instr->imm & 0xffff);
    else if (takes_number(instr))
        text_fmt(out, " 0x%x", instr->imm & 0xffff);
    else
        print_modifiers(instr, out);
}

void rdna_print(const struct rinstr *instr, struct text *out)
{
    text_fmt(out, "    %s%s", instr->dual ? "v_dual_" : "",
             row_of(instr)->name + (instr->dual ? 2 : 0));
    print_one(instr, out);
    if (instr->dual) {
        text_fmt(out, " :: v_dual_%s", row_of(instr + 1)->name + 2);
        print_one(instr + 1, out);
    }
    text_char(out, '\n');
}

void rdna_look(const struct code_out *out, const struct rinstr *instr)
{
    const struct rdna_row *row = row_of(instr);

    if (!out->listing)
        return;
    if (instr->row == R_LABEL)
        text_fmt(out->listing, "L%d:\n", instr->imm);
    else if (row->flags & R_BRANCH && row->format == F_SOPP)
        text_fmt(out->listing, "    %s L%d\n", row->name, instr->imm);
    else if (instr->row >= RDNA_PSEUDOS)
        rdna_print(instr, out->listing);
}
