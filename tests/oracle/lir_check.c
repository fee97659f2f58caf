/*
 * lir_check.c: the rules that every pass over LIR must keep, and LIR as text. Knows no machine.
 */
#include "tests/oracle/listing.h"

/* Indexes into lir_row.operands. */
enum { DST, SRC_A, SRC_B, SRC_C, MEMORY };

/* ---- checking ---- */

struct check {
    const struct lir *lir;
    u8 written[LIR_VREGS_MAX / 8];
    u16 counter[LIR_LOOP_DEPTH_MAX]; /* of the open loops */
    u32 depth;
    const char *fault;
};

static void expect(struct check *check, bool good, const char *fault)
{
    if (!good && !check->fault)
        check->fault = fault;
}

static bool has_class(const struct check *check, u16 vreg, char class)
{
    return vreg < check->lir->vreg_count &&
           check->lir->vreg_class[vreg] == (class == 'V' ? LIR_VECTOR : LIR_SCALAR);
}

static void check_read(struct check *check, u16 vreg, char class)
{
    if (class == '-') {
        expect(check, vreg == LIR_NONE, "operand that the row does not have");
        return;
    }
    expect(check, has_class(check, vreg, class), "source of the wrong class");
    if (!check->fault)
        expect(check, check->written[vreg / 8] >> vreg % 8 & 1, "read before any write");
}

/* Registers in a row from dst. */
static u32 writes_words(u8 op)
{
    return op == LIR_V_LOAD4 || op == LIR_V_GATHER4 ? 4 : op == LIR_WMMA ? 8 : 1;
}

static void check_write(struct check *check, const struct lir_instr *instr, char class)
{
    if (class == '-' || instr->op == LIR_ENDLOOP) {
        expect(check, instr->dst == LIR_NONE, "destination that the row does not have");
        return;
    }
    expect(check, has_class(check, instr->dst, class), "destination of the wrong class");
    for (u32 i = 0; i < check->depth; i++)
        expect(check, check->counter[i] != instr->dst, "write to an open loop's counter");
    u32 words = writes_words(instr->op);
    for (u32 i = instr->dst; i < instr->dst + words && !check->fault; i++) {
        expect(check, has_class(check, (u16)i, class), "tuple that ends too early");
        check->written[i / 8] |= (u8)(1u << i % 8);
    }
}

static void check_memory(struct check *check, const struct lir_instr *instr, char kind)
{
    const struct lir_mem *mem = &instr->mem;

    if (kind == '-')
        return;
    expect(check, mem->scale && mem->scale <= 8 && !(mem->scale & (mem->scale - 1)), "bad scale");
    expect(check, instr->mem_type < DT_COUNT, "bad memory type");
    check_read(check, mem->base, 'S');
    bool gather =
        instr->op == LIR_V_GATHER || instr->op == LIR_V_GATHER4 || instr->op == LIR_V_SCATTER4;
    if (mem->index != LIR_NONE || gather)
        check_read(check, mem->index, gather ? 'V' : 'S');
}

static void check_loops(struct check *check, const struct lir_instr *instr)
{
    if (instr->op == LIR_LOOP) {
        expect(check, check->depth < LIR_LOOP_DEPTH_MAX, "loops nested too deep");
        if (!check->fault)
            check->counter[check->depth++] = instr->dst;
    } else if (instr->op == LIR_ENDLOOP) {
        expect(check, check->depth > 0, "loop end without a loop");
        check->depth -= check->depth > 0;
    }
}

static void check_immediate(struct check *check, const struct lir_instr *instr)
{
    i64 low = INT64_MIN, high = INT64_MAX;

    switch (instr->op) {
    case LIR_ISHLI:
    case LIR_ISHRI:
    case LIR_ISARI:
        low = 0;
        high = 31;
        break;
    case LIR_S_SHLI:
    case LIR_S_SHRI:
        low = 0;
        high = 63;
        break;
    case LIR_LOOP:
        low = 1;
        high = INT32_MAX;
        break;
    case LIR_S_ADDI:
    case LIR_S_MULI:
    case LIR_S_ANDI:
        low = INT32_MIN;
        high = INT32_MAX;
    }
    expect(check, instr->imm >= low && instr->imm <= high, "immediate out of range");
}

static bool lanes_good(const struct lir_instr *instr)
{
    return instr->lanes == 1 || instr->lanes == 8 || instr->lanes == 16 || instr->lanes == 32;
}

static void check_instr(struct check *check, const struct lir_instr *instr)
{
    expect(check, instr->op < LIR_OP_COUNT, "no such operation");
    if (check->fault)
        return;
    const char *operands = lir_rows[instr->op].operands;

    check_read(check, instr->a, operands[SRC_A]);
    check_read(check, instr->b, operands[SRC_B]);
    check_read(check, instr->c, operands[SRC_C]);
    check_memory(check, instr, operands[MEMORY]);
    check_write(check, instr, operands[DST]);
    check_loops(check, instr);
    if (operands[DST] == 'V' || operands[SRC_A] == 'V')
        expect(check, lanes_good(instr), "lanes are 1, 8, 16 or 32");
    check_immediate(check, instr);
}

err lir_check(const struct lir *lir, struct text *why)
{
    struct check check = {.lir = lir, .written = {0x1f}}; /* the arguments */
    u32 at = 0;

    if (lir->status != OK)
        return lir->status;
    while (at < lir->count && !check.fault)
        check_instr(&check, &lir->instr[at++]);
    if (!check.fault)
        expect(&check, check.depth == 0, "loop left open");
    if (!check.fault)
        return OK;
    if (why)
        text_fmt(why, "lir %u: %s", at - 1, check.fault);
    return E_FORMAT;
}

/* ---- printing: "12: v9 = FMA.16 v3, v4, v9" ---- */

static void print_memory(const struct lir_mem *mem, u8 mem_type, struct text *out)
{
    text_fmt(out, " %s%s%s[s%u", mem->fixed ? "fixed " : "",
             mem->space == LIR_GROUP ? "group " : "", dtype_name(mem_type), mem->base);
    if (mem->index != LIR_NONE)
        text_fmt(out, " + r%u*%u", mem->index, mem->scale);
    text_fmt(out, " + %d]", mem->disp);
}

static void print_instr(const struct lir_instr *instr, struct text *out)
{
    const struct lir_row *row = &lir_rows[instr->op];
    const u16 source[] = {instr->a, instr->b, instr->c};

    if (instr->dst != LIR_NONE)
        text_fmt(out, "%c%u = ", row->operands[DST] == 'V' ? 'v' : 's', instr->dst);
    text_fmt(out, "%s", row->name);
    if (row->operands[DST] == 'V' || row->operands[SRC_A] == 'V')
        text_fmt(out, ".%u", instr->lanes);
    for (u32 i = 0; i < ARRAY_LEN(source); i++)
        if (source[i] != LIR_NONE)
            text_fmt(out, " %c%u", row->operands[SRC_A + i] == 'V' ? 'v' : 's', source[i]);
    if (row->operands[MEMORY] != '-')
        print_memory(&instr->mem, instr->mem_type, out);
    text_fmt(out, " #%lld aux %u\n", (long long)instr->imm, instr->aux);
}

void lir_print(const struct lir *lir, struct text *out)
{
    u32 depth = 0;

    for (u32 i = 0; i < lir->count; i++) {
        depth -= lir->instr[i].op == LIR_ENDLOOP && depth;
        text_fmt(out, "%4u: ", i);
        for (u32 level = 0; level < depth; level++)
            text_put(out, STR("  "));
        print_instr(&lir->instr[i], out);
        depth += lir->instr[i].op == LIR_LOOP;
    }
}
