/*
 * rdna_select.c: instruction selection: LIR to rows of rdna.def over virtual registers. Surveys how
 * each value is best held, walks the operations, and appends instructions whose operands their rows
 * take. Knows no physical registers but those of the entry.
 */
#include "ml/compile/rdna_select.h"

#define SCALARS_A_VALU 2u /* SGPRs and literals that a vector instruction reads at most */

/* ---- registers and constants ---- */

u16 rdna_registers(struct rselect *s, enum lir_class class, u32 count)
{
    u32 first = s->out->vreg_count;

    if (first + count > s->vregs_max) {
        s->status = E_LIMIT;
        return RDNA_VIRTUAL;
    }
    s->tuple[first] = (u8)count;
    for (u32 i = 0; i < count; i++)
        s->out->class[first + i] = (u8) class;
    s->out->vreg_count += count;
    return (u16)(RDNA_VIRTUAL + first);
}

struct rsrc rsrc_const(u32 bits)
{
    static const u32 floats[] = {0x3f000000, 0xbf000000, 0x3f800000, 0xbf800000,
                                 0x40000000, 0xc0000000, 0x40800000, 0xc0800000};
    i32 value = (i32)bits;

    if (value >= -16 && value <= 64)
        return rsrc_of(RDNA_INT(value));
    for (u32 i = 0; i < ARRAY_LEN(floats); i++)
        if (floats[i] == bits)
            return rsrc_of((u16)(240 + i));
    return (struct rsrc){RDNA_CONST, bits};
}

bool rdna_is_vgpr(const struct rselect *s, u16 code)
{
    if (code >= RDNA_VIRTUAL)
        return code != RDNA_NONE && s->out->class[code - RDNA_VIRTUAL] == LIR_VECTOR;
    return code >= RDNA_VGPR;
}

bool rdna_is_scalar(const struct rselect *s, u16 code)
{
    if (code >= RDNA_VIRTUAL)
        return code != RDNA_NONE && s->out->class[code - RDNA_VIRTUAL] == LIR_SCALAR;
    return code <= RDNA_EXEC && code != RDNA_NULL;
}

/* ---- appending ---- */

struct rinstr *rdna_append(struct rselect *s, const struct rinstr *instr)
{
    u32 n = s->count[s->at];

    if (n == s->max[s->at])
        s->status = E_LIMIT;
    else
        s->count[s->at]++;
    s->stream[s->at][n] = *instr; /* one place more than max */
    return &s->stream[s->at][n];
}

static u16 in_sgpr(struct rselect *s, struct rsrc src)
{
    struct rinstr move = rdna_blank(R_s_mov_b32);

    move.dst = rdna_sgpr(s);
    move.src[0] = src.code;
    move.literal = src.bits;
    rdna_append(s, &move);
    return move.dst;
}

u16 rdna_in_vgpr(struct rselect *s, struct rsrc src)
{
    struct rinstr move = rdna_blank(R_v_mov_b32);

    if (rdna_is_vgpr(s, src.code))
        return src.code;
    move.dst = rdna_vgpr(s);
    move.src[0] = src.code;
    move.literal = src.bits;
    rdna_append(s, &move);
    return move.dst;
}

static bool is_vector(u32 format)
{
    return format >= F_VOP1 && format <= F_VOP3P;
}

/* Puts source k where its row and the literals so far let it be. */
static void take(struct rselect *s, struct rinstr *in, u32 k, struct rsrc src, bool *literal)
{
    const struct rdna_row *row = &rdna_rows[in->row];
    u32 kind = row->operand[k + 1] >> 8;
    bool other = src.code == RDNA_CONST && *literal && in->literal != src.bits;

    if (kind == K_V || kind == K_A || (kind == K_X && other))
        src.code = rdna_in_vgpr(s, src);
    else if (other || (kind == K_S && src.code >= RDNA_ZERO && src.code < RDNA_VGPR))
        src.code = in_sgpr(s, src);
    if (src.code == RDNA_CONST) {
        *literal = true;
        in->literal = src.bits;
    }
    in->src[k] = src.code;
}

static u32 scalars_read(const struct rselect *s, const struct rinstr *in)
{
    u32 count = (rdna_rows[in->row].flags & R_RD_VCC) != 0, literal = 0;

    for (u32 k = 0; k < 3; k++) {
        bool seen = false;
        for (u32 j = 0; j < k; j++)
            seen = seen || in->src[j] == in->src[k];
        literal |= in->src[k] == RDNA_CONST;
        count += !seen && rdna_is_scalar(s, in->src[k]);
    }
    return count + literal;
}

struct rinstr *rdna_put3(struct rselect *s, u16 row, u16 dst, const struct rsrc src[3])
{
    struct rinstr in = rdna_blank(row);
    bool literal = false;

    bool turned = rdna_rows[row].flags & R_SWAP && rdna_rows[row].format == F_VOP2 &&
                  rdna_is_vgpr(s, src[0].code) && !rdna_is_vgpr(s, src[1].code);

    in.dst = dst;
    for (u32 k = 0; k < 3; k++)
        if (src[k].code != RDNA_NONE) /* the short form's second source is a VGPR */
            take(s, &in, turned && k < 2 ? !k : k, src[k], &literal);
    for (u32 k = 0; k < 3 && is_vector(rdna_rows[row].format); k++)
        if (scalars_read(s, &in) > SCALARS_A_VALU && rdna_rows[row].operand[k + 1] >> 8 == K_X)
            in.src[k] = rdna_in_vgpr(s, (struct rsrc){in.src[k], in.literal});
    return rdna_append(s, &in);
}

struct rinstr *rdna_put(struct rselect *s, u16 row, u16 dst, struct rsrc a, struct rsrc b)
{
    return rdna_put3(s, row, dst, (struct rsrc[3]){a, b, RSRC_NONE});
}

static u16 new_result(struct rselect *s, u16 row)
{
    u32 kind = rdna_rows[row].operand[0] >> 8;

    return rdna_registers(s, kind == K_V ? LIR_VECTOR : LIR_SCALAR,
                          rdna_rows[row].operand[0] & 0xffu);
}

u16 rdna_new3(struct rselect *s, u16 row, const struct rsrc src[3])
{
    return rdna_put3(s, row, new_result(s, row), src)->dst;
}

u16 rdna_new(struct rselect *s, u16 row, struct rsrc a, struct rsrc b)
{
    return rdna_put(s, row, new_result(s, row), a, b)->dst;
}

void rdna_put_imm(struct rselect *s, u16 row, i32 imm)
{
    struct rinstr in = rdna_blank(row);

    in.imm = imm;
    rdna_append(s, &in);
}

/* ---- values ---- */

struct rsrc rdna_operand(struct rselect *s, u16 vreg)
{
    const struct rvalue *value = &s->value[vreg];

    if (value->kind == RV_CONST)
        return rsrc_const((u32)value->low);
    return rsrc_of(value->kind == RV_MASK ? value->lanes : value->code);
}

u16 rdna_row_order(struct rselect *s)
{
    u32 at = s->at;

    if (s->row_order == RDNA_NONE) {
        s->at = RDNA_HEAD;
        s->row_order = in_sgpr(s, (struct rsrc){RDNA_CONST, 0xfedcba98});
        s->at = at;
    }
    return s->row_order;
}

u16 rdna_shifted_lane(struct rselect *s, u32 shift)
{
    u32 at = s->at;

    if (s->shifted_lane[shift] != RDNA_NONE)
        return s->shifted_lane[shift];
    u16 lane = shift && shift != RDNA_NO_LANE ? rdna_shifted_lane(s, 0) : RDNA_NONE;
    s->at = RDNA_HEAD;
    if (shift == RDNA_NO_LANE)
        lane = rdna_new(s, R_v_mov_b32, rsrc_const(0), RSRC_NONE);
    else if (shift)
        lane = rdna_new(s, R_v_lshlrev_b32, rsrc_const(shift), rsrc_of(lane));
    else
        lane = rdna_new(s, R_v_and_b32, rsrc_const(RDNA_LANES - 1), rsrc_of(RDNA_IN_ITEM));
    s->at = at;
    return s->shifted_lane[shift] = lane;
}

/* ---- survey: how each value is held ---- */

static void count_use(struct rselect *s, u16 vreg)
{
    if (vreg != LIR_NONE && s->value[vreg].uses < UINT16_MAX)
        s->value[vreg].uses++;
}

/* Whether somebody needs the instruction, all users behind it being known. */
static bool is_live(const struct rselect *s, const struct lir_instr *in)
{
    if (in->dst == LIR_NONE || in->op == LIR_LOOP || s->value[in->dst].writes > 1)
        return true;
    return s->value[in->dst].uses &&
           (s->value[in->dst].kind != RV_SCALAR || !scalar_constant(s, in->dst));
}

/* All of a tuple is used when any of it is. */
static void count_uses(struct rselect *s)
{
    const struct lir *lir = s->lir;

    for (u32 i = lir->count; i-- > 0;) {
        const struct lir_instr *in = &lir->instr[i];
        u16 source = in->a;
        u32 shift;
        if (!is_live(s, in))
            continue;
        if (in->op == LIR_S_SHLI || in->op == LIR_S_SHRI)
            source = scalar_shifted(s, in->dst, &shift);
        count_use(s, source == in->dst ? in->a : source);
        count_use(s, in->b);
        count_use(s, in->c);
        count_use(s, in->mem.base);
        count_use(s, in->mem.index);
        count_use(s, in->op == LIR_LOOP ? in->dst : LIR_NONE);
    }
    for (u32 v = 0; v < lir->vreg_count; v++) {
        for (u32 i = 1; i < lir->tuple[v]; i++)
            s->value[v].uses |= s->value[v + i].uses;
        for (u32 i = 1; i < lir->tuple[v]; i++)
            s->value[v + i].uses = s->value[v].uses;
    }
}

static void count_writes(struct rselect *s)
{
    for (u32 v = 0; v < s->lir->vreg_count; v++)
        s->value[v] =
            (struct rvalue){.code = RDNA_NONE,
                            .lanes = RDNA_NONE,
                            .writes = v < LIR_FIRST_FREE,
                            .kind = s->lir->vreg_class[v] == LIR_SCALAR ? RV_SCALAR : RV_LANES};
    for (u32 v = 0; v < s->lir->vreg_count; v++) /* a tuple is written as one and by its parts */
        for (u32 i = 0; i < s->lir->tuple[v]; i++)
            s->value[v + i].writes = 1;
    for (u32 i = 0; i < s->lir->count; i++) {
        if (s->lir->instr[i].dst == LIR_NONE)
            continue;
        struct rvalue *value = &s->value[s->lir->instr[i].dst];
        value->writes = (u16)min_u32(value->writes + 1u, UINT16_MAX);
        value->writer = i;
    }
    for (u32 v = 0; v < s->lir->vreg_count; v++)
        s->value[v].steady = s->value[v].writes == 1;
    for (u32 v = 0; v < s->lir->vreg_count; v++) {
        u32 writes = 0;
        for (u32 i = 0; i < s->lir->tuple[v]; i++)
            writes += s->value[v + i].writes - 1u;
        for (u32 i = 0; i < s->lir->tuple[v]; i++)
            s->value[v + i].steady = writes == 1;
    }
}

static void choose_kinds(struct rselect *s)
{
    for (u32 i = 0; i < s->lir->count; i++) {
        const struct lir_instr *in = &s->lir->instr[i];
        if (lir_rows[in->op].operands[0] != 'V' || s->value[in->dst].writes != 1)
            continue;
        s->value[in->dst].kind = (u8)lanes_kind(s, in);
        if (in->op == LIR_V_CONST)
            s->value[in->dst].low = in->imm;
    }
}

/* Masks that somebody wants as lanes get a register for these. */
static void find_mask_lanes(struct rselect *s)
{
    for (u32 i = 0; i < s->lir->count; i++) {
        const struct lir_instr *in = &s->lir->instr[i];
        const u16 use[] = {in->a, in->b, in->c, in->mem.index};
        for (u32 k = 0; k < ARRAY_LEN(use); k++) {
            struct rvalue *value = use[k] == LIR_NONE ? NULL : &s->value[use[k]];
            if (value && value->kind == RV_MASK && value->lanes == RDNA_NONE &&
                !lanes_take_mask(s, in, k))
                value->lanes = rdna_vgpr(s);
        }
    }
}

static void give_registers(struct rselect *s)
{
    const struct lir *lir = s->lir;

    for (u32 v = LIR_FIRST_FREE; v < lir->vreg_count; v++) {
        struct rvalue *value = &s->value[v];
        u32 count = lir->tuple[v] ? lir->tuple[v] : 1u + value->wide;
        if (value->code != RDNA_NONE || value->kind == RV_CONST)
            continue;
        u16 first = rdna_registers(s, value->kind == RV_LANES ? LIR_VECTOR : LIR_SCALAR, count);
        for (u32 i = 0; i < max_u32(lir->tuple[v], 1); i++)
            s->value[v + i].code = (u16)(first + i);
    }
}

/* The arguments of LIR. */
static void put_entry(struct rselect *s)
{
    s->value[LIR_ARGS].code = RDNA_IN_ARGS;
    s->value[LIR_BEGIN].code = RDNA_IN_GROUP;
    s->at = RDNA_HEAD;
    if (s->value[LIR_WAVE].uses) {
        u16 first = rdna_new(s, R_v_readfirstlane_b32, rsrc_of(RDNA_IN_ITEM), RSRC_NONE);
        s->value[LIR_WAVE].code =
            rdna_new(s, R_s_lshr_b32, rsrc_of(first), rsrc_const(RDNA_LANE_SHIFT));
    }
    s->at = RDNA_BODY;
}

/* ---- the walk ---- */

/* s_barrier waits for no counter by itself: rdna_wait sees to that. */
static void barrier(struct rselect *s)
{
    rdna_put_imm(s, R_s_barrier, 0);
    if (s->exchanges)
        rdna_put_imm(s, R_buffer_gl0_inv, 0);
}

static void expand(struct rselect *s, const struct lir_instr *in)
{
    const char *operands = lir_rows[in->op].operands;

    memory_settle(s, in);
    if (in->op == LIR_LOOP)
        loop_head(s, in);
    else if (in->op == LIR_ENDLOOP)
        loop_end(s);
    else if (in->op == LIR_BARRIER)
        barrier(s);
    else if (operands[4] != '-' || in->op == LIR_S_ARG)
        memory_expand(s, in);
    else if (operands[0] == 'S')
        scalar_expand(s, in);
    else if (!fuse_expand(s, in))
        lanes_expand(s, in);
    if (operands[0] == 'S' && s->value[in->dst].writes > 1)
        memory_forget(s, in->dst);
}

/* Whether waves of a group may read from global memory what another of them wrote. */
static bool finds_exchange(const struct lir *lir)
{
    bool loads = false, stores = false;

    for (u32 i = 0; i < lir->count; i++) {
        char kind = lir_rows[lir->instr[i].op].operands[4];
        bool global = lir->instr[i].mem.space == LIR_GLOBAL;
        stores = stores || (kind == 'T' && global);
        loads = loads || (kind == 'L' && global && !lir->instr[i].mem.fixed);
    }
    return loads && stores;
}

/* Instructions that an operation may become. */
static u32 expansion(const struct lir_instr *in)
{
    switch (in->op) {
    case LIR_FDIV:
    case LIR_FSQRT:
    case LIR_S_DIV:
    case LIR_S_MOD:
    case LIR_V_STORE:
    case LIR_HSUM_F ... LIR_HMIN_I:
        return 32;
    default:
        return 12;
    }
}

static err prepare(struct rselect *s, struct arena *arena)
{
    for (u32 i = 0; i < s->lir->count; i++)
        s->max[RDNA_BODY] += expansion(&s->lir->instr[i]);
    s->max[RDNA_HEAD] = 32;
    s->out->max = s->max[RDNA_HEAD] + s->max[RDNA_BODY] + 2;
    s->vregs_max = min_u32(s->lir->vreg_count * 2 + s->out->max, UINT16_MAX - RDNA_VIRTUAL);
    s->out->instr = arena_new(arena, struct rinstr, s->out->max);
    s->out->class = arena_new(arena, u8, s->vregs_max);
    s->tuple = arena_new(arena, u8, s->vregs_max);
    s->partner = arena_new(arena, u16, s->lir->count + 1);
    if (!s->out->instr || !s->out->class || !s->tuple || !s->partner)
        return E_NOMEM;
    s->stream[RDNA_HEAD] = s->out->instr;
    s->stream[RDNA_BODY] = s->out->instr + s->max[RDNA_HEAD] + 1;
    s->row_order = s->quotient.q = RDNA_NONE;
    for (u32 i = 0; i < ARRAY_LEN(s->shifted_lane); i++)
        s->shifted_lane[i] = RDNA_NONE;
    return OK;
}

err rdna_select(struct rselect *s, struct arena *arena)
{
    TRY(prepare(s, arena));
    count_writes(s);
    scalar_survey(s);
    count_uses(s);
    choose_kinds(s);
    find_mask_lanes(s);
    fuse_survey(s);
    put_entry(s);
    give_registers(s);
    s->exchanges = finds_exchange(s->lir);
    for (u32 i = 0; i < s->lir->count && s->status == OK; i++) {
        const struct lir_instr *in = &s->lir->instr[i];
        if (in->dst == LIR_NONE || s->value[in->dst].uses)
            expand(s, in);
    }
    memory_settle(s, NULL);
    rdna_put_imm(s, R_s_endpgm, 0);
    memmove(s->stream[RDNA_HEAD] + s->count[RDNA_HEAD], s->stream[RDNA_BODY],
            s->count[RDNA_BODY] * sizeof(struct rinstr));
    s->out->count = s->count[RDNA_HEAD] + s->count[RDNA_BODY];
    return s->status;
}
