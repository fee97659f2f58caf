/*
 * rdna_fuse.c: two operations on lanes in one instruction, where only the second reads what the
 * first makes and both stand in the same block. The first is then no instruction of its own.
 */
#include "ml/compile/rdna_select.h"

/* row(first.a, first.b or its imm, the second's other operand or imm). */
static const struct fusion {
    u8 second, first;
    u16 row;
} fusions[] = {
    {LIR_IOR, LIR_IAND, R_v_and_or_b32},     {LIR_IOR, LIR_ISHLI, R_v_lshl_or_b32},
    {LIR_IOR, LIR_IOR, R_v_or3_b32},         {LIR_IADD, LIR_ISHLI, R_v_lshl_add_u32},
    {LIR_IADD, LIR_IADD, R_v_add3_u32},      {LIR_IADD, LIR_IXOR, R_v_xad_u32},
    {LIR_ISHLI, LIR_IADD, R_v_add_lshl_u32}, {LIR_IXOR, LIR_IXOR, R_v_xor3_b32},
    {LIR_IAND, LIR_ISHRI, R_v_bfe_u32},      {LIR_ISARI, LIR_ISHLI, R_v_bfe_i32},
};

static const struct lir_instr *writer_of(const struct rselect *s, u16 v)
{
    return &s->lir->instr[s->value[v].writer];
}

static bool is_shift(u8 op)
{
    return op == LIR_ISHLI || op == LIR_ISHRI;
}

/* Number of low bits that a constant keeps, 0: it is no such mask. */
static u32 mask_bits(const struct rselect *s, u16 v)
{
    u32 mask = (u32)s->value[v].low;

    if (s->value[v].kind != RV_CONST || (mask & (mask + 1)) || mask == UINT32_MAX)
        return 0;
    return (u32)__builtin_popcount(mask);
}

static bool is_literal(const struct rselect *s, u16 v)
{
    return v != LIR_NONE && s->value[v].kind == RV_CONST &&
           rsrc_const((u32)s->value[v].low).code == RDNA_CONST;
}

static bool is_plain(const struct rselect *s, u16 v)
{
    return v == LIR_NONE || (s->value[v].steady && s->value[v].kind != RV_MASK);
}

/* Whether v is made in the block for one reader, by an instruction that can be part of that. */
static bool can_join(const struct rselect *s, u16 v, u32 block)
{
    const struct rvalue *value = &s->value[v];

    return value->writes == 1 && value->uses == 1 && value->kind == RV_LANES &&
           value->block == block && is_plain(s, writer_of(s, v)->a) &&
           is_plain(s, writer_of(s, v)->b);
}

/* The byte of *word that v is, maybe by a shift that is part of it; -1: it is none. */
static i32 byte_of(const struct rselect *s, u16 v, u16 *word)
{
    const struct lir_instr *in = writer_of(s, v), *shift = in;
    u16 partner = s->partner[s->value[v].writer];

    *word = in->a;
    if (in->op == LIR_ISHRI && partner == LIR_NONE)
        return in->imm == 24 ? 3 : -1;
    if (in->op != LIR_IAND || mask_bits(s, in->b) != 8)
        return -1;
    if (partner == LIR_NONE)
        return 0;
    shift = writer_of(s, partner);
    *word = shift->a;
    return shift->imm % 8 ? -1 : (i32)shift->imm / 8;
}

static const struct fusion *fusion_of(const struct rselect *s, const struct lir_instr *in, u16 v)
{
    const struct lir_instr *first = writer_of(s, v);
    u16 other = in->a == v ? in->b : in->a;

    if ((other != LIR_NONE && s->value[other].kind == RV_MASK) ||
        s->partner[s->value[v].writer] != LIR_NONE ||
        (in->op == LIR_ISARI && (in->imm < first->imm || in->imm == 0)))
        return NULL;
    for (u32 i = 0; i < ARRAY_LEN(fusions); i++) {
        if (fusions[i].second != in->op || fusions[i].first != first->op)
            continue;
        if (in->op == LIR_IAND)
            return mask_bits(s, other) ? &fusions[i] : NULL;
        if (is_literal(s, other) && (is_literal(s, first->a) || is_literal(s, first->b)))
            return NULL;
        return &fusions[i];
    }
    return NULL;
}

void fuse_survey(struct rselect *s)
{
    u32 block = 0;
    u16 word;

    for (u32 i = 0; i < s->lir->count; i++) {
        const struct lir_instr *in = &s->lir->instr[i];
        const u16 source[] = {in->a, in->b};
        block += in->op == LIR_LOOP || in->op == LIR_ENDLOOP || in->op == LIR_BARRIER;
        s->partner[i] = LIR_NONE;
        if (in->dst == LIR_NONE || s->value[in->dst].kind != RV_LANES || in->a == in->b ||
            !s->value[in->dst].uses)
            continue;
        s->value[in->dst].block = block;
        for (u32 k = 0; k < 2 && s->partner[i] == LIR_NONE; k++) {
            if (source[k] == LIR_NONE || lir_rows[in->op].operands[1 + k] != 'V' ||
                !can_join(s, source[k], block))
                continue;
            bool byte = in->op == LIR_CVT_I2F && byte_of(s, source[k], &word) >= 0;
            if (byte || fusion_of(s, in, source[k]))
                s->partner[i] = source[k];
        }
        if (s->partner[i] != LIR_NONE)
            s->value[s->partner[i]].fused = true;
    }
}

bool fuse_expand(struct rselect *s, const struct lir_instr *in)
{
    u16 v = s->partner[in - s->lir->instr];

    if (s->value[in->dst].fused || v == LIR_NONE)
        return s->value[in->dst].fused;
    const struct lir_instr *first = writer_of(s, v);
    u16 other = in->a == v ? in->b : in->a, word;
    if (in->op == LIR_CVT_I2F) {
        u16 row = (u16)(R_v_cvt_f32_ubyte0 + byte_of(s, v, &word));
        rdna_put(s, row, s->value[in->dst].code, rdna_operand(s, word), RSRC_NONE);
        return true;
    }
    struct rsrc src[3] = {rdna_operand(s, first->a), rsrc_const((u32)first->imm),
                          rsrc_const((u32)in->imm)};
    if (!is_shift(first->op))
        src[1] = rdna_operand(s, first->b);
    if (in->op == LIR_ISARI) { /* a field that ends where the first shift puts it on top */
        src[1] = rsrc_const((u32)(in->imm - first->imm));
        src[2] = rsrc_const((u32)(32 - in->imm));
    } else if (in->op == LIR_IAND)
        src[2] = rsrc_const(mask_bits(s, other));
    else if (!is_shift(in->op))
        src[2] = rdna_operand(s, other);
    rdna_put3(s, fusion_of(s, in, v)->row, s->value[in->dst].code, src);
    return true;
}
