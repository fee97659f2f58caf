/*
 * lir.c: builds the low-level IR of lir.h. Knows neither graphs nor machines.
 */
#include "ml/compile/lir.h"

#define INSTRS_AT_FIRST 1024u

const struct lir_row lir_rows[LIR_OP_COUNT] = {
#define LIR(name, dst, a, b, c, mem, meaning) {#name, #dst #a #b #c #mem},
#include "ml/compile/lir.def"
#undef LIR
};

static err grow(struct lir *lir, u32 max)
{
    /* One place more than max: what is written after the limit goes there. */
    struct lir_instr *wider = arena_new(lir->arena, struct lir_instr, max + 1);

    if (!wider)
        return E_NOMEM;
    if (lir->count)
        memcpy(wider, lir->instr, lir->count * sizeof(*wider));
    lir->instr = wider;
    lir->max = max;
    return OK;
}

err lir_init(struct lir *lir, struct arena *arena)
{
    memset(lir, 0, sizeof(*lir));
    lir->arena = arena;
    for (u32 i = 0; i < LIR_FIRST_FREE; i++)
        (void)lir_vreg(lir, LIR_SCALAR);
    return lir->status = grow(lir, INSTRS_AT_FIRST);
}

u16 lir_vreg(struct lir *lir, enum lir_class class)
{
    if (lir->vreg_count == LIR_VREGS_MAX) {
        lir->status = lir->status == OK ? E_LIMIT : lir->status;
        return LIR_FIRST_FREE;
    }
    lir->vreg_class[lir->vreg_count] = (u8) class;
    return (u16)lir->vreg_count++;
}

u16 lir_tuple(struct lir *lir, u32 count)
{
    u16 first = lir_vreg(lir, LIR_VECTOR);

    for (u32 i = 1; i < count; i++)
        (void)lir_vreg(lir, LIR_VECTOR);
    lir->tuple[first] = (u8)count;
    return first;
}

struct lir_instr *lir_emit(struct lir *lir, enum lir_op op)
{
    if (lir->count == lir->max && lir->status == OK)
        lir->status = lir->max < LIR_INSTRS_MAX ? grow(lir, lir->max * 2) : E_LIMIT;

    struct lir_instr *instr = &lir->instr[lir->count];
    *instr = (struct lir_instr){
        .op = (u8)op, .lanes = 1, .dst = LIR_NONE, .a = LIR_NONE, .b = LIR_NONE, .c = LIR_NONE};
    instr->mem = (struct lir_mem){.base = LIR_NONE, .index = LIR_NONE, .scale = 1};
    if (lir->count < lir->max)
        lir->count++;
    return instr;
}
