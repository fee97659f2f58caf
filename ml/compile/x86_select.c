/*
 * x86_select.c: instruction selection: LIR to rows of x86.def over virtual registers. Walks the
 * operations; loops, constants and what becomes part of its user (loads, comparisons) are settled
 * here, the rest by rules. Constants are made once, at the kernel's entry. Knows no physical
 * registers but those of the entry and rax, which constants pass through.
 */
#include "ml/compile/x86_select.h"

#define MINSTRS_PER_LIR 12u /* the longest expansion */

/* SysV: rdi, rsi, rdx, rcx. rdx is needed for division, so `end` moves last, when the others have
 * their places. */
static void put_entry(struct select *s)
{
    static const struct {
        u16 vreg, reg;
    } entry[] = {{LIR_ARGS, RDI}, {LIR_BEGIN, RSI}, {LIR_SCRATCH, RCX}, {LIR_END, RDX}};

    s->at = HEAD;
    for (u32 i = 0; i < ARRAY_LEN(entry); i++)
        if (s->value[entry[i].vreg].uses)
            select_put(s, X_MOV, entry[i].vreg, X86_FIXED(entry[i].reg), 0);
    s->at = BODY;
}

/* ---- writing machine instructions ---- */

u16 select_temporary(struct select *s, u8 class)
{
    if (s->out->vreg_count == MACHINE_VREGS_MAX - 1) {
        s->status = E_LIMIT;
        return 0;
    }
    s->out->class[s->out->vreg_count] = class;
    return (u16)s->out->vreg_count++;
}

void select_append(struct select *s, struct minstr instr)
{
    if (s->count[s->at] == s->max[s->at])
        s->status = E_LIMIT;
    else
        s->stream[s->at][s->count[s->at]++] = instr;
}

void select_put(struct select *s, u16 row, u16 dst, u16 a, i64 imm)
{
    struct minstr instr = x86_blank(row, s->size);

    instr.op[0] = dst;
    instr.op[1] = a;
    instr.imm = imm;
    select_append(s, instr);
}

/* ---- constants: one register for each value, made at the entry ---- */

static void make_iota(struct select *s, u16 dst)
{
    u16 bytes = select_temporary(s, LIR_VECTOR);
    struct minstr high = x86_blank(X_VPINSRQ, 0);

    high.op[0] = high.op[1] = bytes;
    high.op[2] = X86_FIXED(RAX);
    high.imm = 1;
    select_put(s, X_MOV_I64, X86_FIXED(RAX), LIR_NONE, 0x0706050403020100);
    s->size = 0;
    select_put(s, X_VMOVQ, bytes, X86_FIXED(RAX), 0);
    select_put(s, X_MOV_I64, X86_FIXED(RAX), LIR_NONE, 0x0f0e0d0c0b0a0908);
    select_append(s, high);
    s->size = s->full;
    select_put(s, X_VPMOVZXBD, dst, bytes, 0);
}

static void make_constant(struct select *s, u16 dst, u32 bits)
{
    s->size = s->full;
    if (bits == 0 || bits == UINT32_MAX) {
        struct minstr idiom = x86_blank(s->wide ? X_VPTERNLOGD : X_VPCMPEQD, s->full);
        if (bits == 0)
            idiom = x86_blank(X_VPXOR, 0); /* the short form clears all of the register */
        idiom.op[0] = dst;
        idiom.flags = MI_SELF;
        idiom.imm = 0xff;
        select_append(s, idiom);
        return;
    }
    select_put(s, X_MOV_I32, X86_FIXED(RAX), LIR_NONE, bits);
    if (s->wide) {
        select_put(s, X_VPBROADCASTD_G, dst, X86_FIXED(RAX), 0);
        return;
    }
    s->size = 0;
    select_put(s, X_VMOVD, dst, X86_FIXED(RAX), 0);
    s->size = 1;
    select_put(s, X_VBROADCASTSS, dst, dst, 0);
}

u16 select_constant(struct select *s, u64 key)
{
    u8 size = s->size;
    u32 at = s->at, i = 0;

    while (i < s->constant_count && s->constant[i].key != key)
        i++;
    if (i < s->constant_count)
        return s->constant[i].vreg;
    if (i == s->constant_max) {
        s->status = E_LIMIT;
        return s->constant[0].vreg;
    }
    s->constant[i].key = key;
    s->constant[i].vreg = select_temporary(s, LIR_VECTOR);
    s->constant_count++;
    s->at = HEAD;
    if (key == KEY_IOTA)
        make_iota(s, s->constant[i].vreg);
    else
        make_constant(s, s->constant[i].vreg, (u32)key);
    s->at = at;
    s->size = size;
    return s->constant[i].vreg;
}

static void vector_constant(struct select *s, const struct lir_instr *in)
{
    u64 key = in->op == LIR_V_IOTA ? KEY_IOTA : (u32)in->imm;
    struct value *value = &s->value[in->dst];

    if (value->writes == 1)
        value->name = select_constant(s, key);
    else if (key == 0)
        make_constant(s, in->dst, 0);
    else
        select_put(s, X_VMOVAPS, in->dst, select_constant(s, key), 0);
}

static void scalar_constant(struct select *s, u16 dst, i64 imm)
{
    u16 row = X_MOV_I64;

    if (imm >= 0 && imm <= UINT32_MAX)
        row = X_MOV_I32;
    else if (imm >= INT32_MIN && imm < 0)
        row = X_MOV_SX32;
    select_put(s, row, dst, LIR_NONE, imm);
}

/* Written once, by S_CONST, and short enough for an immediate. */
static bool is_immediate(const struct select *s, u16 v)
{
    const struct lir_instr *writer = &s->lir->instr[s->value[v].writer];

    return v >= LIR_FIRST_FREE && s->value[v].writes == 1 && writer->op == LIR_S_CONST &&
           writer->imm >= INT32_MIN && writer->imm <= INT32_MAX;
}

static i64 immediate(const struct select *s, u16 v)
{
    return s->lir->instr[s->value[v].writer].imm;
}

/* ---- loops: tested before the first trip where that is not known, then at the bottom ---- */

static void compare_counter(struct select *s, const struct lir_instr *loop)
{
    struct minstr compare = x86_blank(X_CMP, 0);

    if (is_immediate(s, loop->b)) {
        select_put(s, X_CMP_I, LIR_NONE, loop->dst, immediate(s, loop->b));
        return;
    }
    compare.op[1] = loop->dst;
    compare.op[2] = loop->b;
    select_append(s, compare);
}

static void loop_head(struct select *s, const struct lir_instr *in)
{
    bool known = is_immediate(s, in->a) && is_immediate(s, in->b);
    struct open_loop *loop = &s->open[s->depth++];

    *loop = (struct open_loop){.instr = in, .id = s->loop_count++};
    if (is_immediate(s, in->a))
        scalar_constant(s, in->dst, immediate(s, in->a));
    else
        select_put(s, X_MOV, in->dst, in->a, 0);
    if (!known || immediate(s, in->a) >= immediate(s, in->b)) {
        compare_counter(s, in);
        select_put(s, X_JGE, LIR_NONE, LIR_NONE, 2 * loop->id + 1);
    }
    loop->single_trip = known && immediate(s, in->a) + in->imm >= immediate(s, in->b);
    select_put(s, MACHINE_LOOP, LIR_NONE, LIR_NONE, loop->id);
}

static void loop_end(struct select *s)
{
    const struct open_loop *loop = &s->open[--s->depth];

    if (!loop->single_trip) {
        select_put(s, X_ADD_I, loop->instr->dst, loop->instr->dst, loop->instr->imm);
        compare_counter(s, loop->instr);
        select_put(s, X_JL, LIR_NONE, LIR_NONE, 2 * loop->id);
    }
    select_put(s, MACHINE_ENDLOOP, LIR_NONE, LIR_NONE, loop->id);
}

/* ---- what can be part of its user ---- */

const struct lir_instr *select_only_user(const struct select *s, const struct lir_instr *in,
                                         u16 kept)
{
    const struct lir_instr *end = s->lir->instr + s->lir->count;
    bool loads = lir_rows[in->op].operands[4] == 'L';

    if (s->value[in->dst].writes != 1 || s->value[in->dst].uses != 1)
        return NULL;
    for (const struct lir_instr *at = in + 1; at < end && at <= in + X86_FOLD_REACH; at++) {
        u16 to = at->dst;
        if (at->op == LIR_LOOP || at->op == LIR_ENDLOOP)
            return NULL;
        if (at->a == in->dst || at->b == in->dst || at->c == in->dst || at->mem.index == in->dst)
            return at;
        if ((loads && lir_rows[at->op].operands[4] == 'T') ||
            (to != LIR_NONE && (to == kept || to == in->a || to == in->b || to == in->mem.base ||
                                to == in->mem.index)))
            return NULL;
    }
    return NULL;
}

static void try_fold(struct select *s, const struct lir_instr *in)
{
    bool word = in->mem_type == DT_F32 || in->mem_type == DT_I32;
    bool loads = (in->op == LIR_V_LOAD && in->lanes > 1) || (in->op == LIR_V_BCAST && s->wide);
    bool compares = in->op == LIR_FCMP || in->op == LIR_ICMP;
    bool index = in->op == LIR_V_LOAD && in->lanes == 1 && in->mem_type == DT_I32;

    if (!(loads && word) && !(compares && s->wide) && !index)
        return;
    const struct lir_instr *user = select_only_user(s, in, LIR_NONE);
    if (user && index)
        s->value[in->dst].folded = user->op == LIR_S_FROM_V;
    if (!user || index || user->lanes != in->lanes)
        return;
    usize at = (usize)(user - s->lir->instr);
    if (compares) {
        s->value[in->dst].folded = user->op == LIR_SELECT && user->a == in->dst;
    } else if (!s->has_memory[at] && (user->dst == LIR_NONE || !s->value[user->dst].folded)) {
        s->value[in->dst].folded = s->has_memory[at] = rules_take_memory(s, user, in);
    }
}

static void count_use(struct select *s, u16 v)
{
    if (v != LIR_NONE && s->value[v].uses < UINT16_MAX)
        s->value[v].uses++;
}

static void count_uses(struct select *s, const struct lir_instr *in)
{
    bool loop = in->op == LIR_LOOP;

    count_use(s, loop && is_immediate(s, in->a) ? LIR_NONE : in->a);
    count_use(s, loop && is_immediate(s, in->b) ? LIR_NONE : in->b);
    count_use(s, in->c);
    count_use(s, in->mem.base);
    count_use(s, in->mem.index);
    count_use(s, in->op == LIR_S_ARG ? LIR_ARGS : LIR_NONE);
    count_use(s, loop ? in->dst : LIR_NONE);
}

static void survey(struct select *s)
{
    const struct lir_instr *instr = s->lir->instr;

    rules_init(s);
    for (u32 v = 0; v < LIR_VREGS_MAX; v++) {
        s->value[v].name = (u16)v;
        s->value[v].writes = v < LIR_FIRST_FREE; /* the arguments: by the caller */
    }
    for (u32 i = 0; i < s->lir->count; i++) {
        if (instr[i].dst == LIR_NONE)
            continue;
        struct value *value = &s->value[instr[i].dst];
        value->writes = (u16)min_u32(value->writes + 1u, UINT16_MAX);
        value->writer = (u16)i;
    }
    for (u32 i = 0; i < s->lir->count; i++)
        count_uses(s, &instr[i]);
    for (u32 i = s->lir->count; i-- > 0;)
        try_fold(s, &instr[i]);
}

static err prepare(struct select *s, struct arena *arena)
{
    u32 count = s->lir->count;

    s->max[BODY] = count * MINSTRS_PER_LIR;
    s->constant_max = count + 16;
    s->max[HEAD] = s->constant_max * 3 + 16;
    s->out->max = s->max[HEAD] + s->max[BODY];
    s->out->instr = arena_new(arena, struct minstr, s->out->max + 1);
    s->stream[HEAD] = s->out->instr;
    s->stream[BODY] = s->out->instr + s->max[HEAD];
    s->out->class = arena_new(arena, u8, s->lir->vreg_count + s->out->max + 1);
    s->has_memory = arena_new(arena, bool, count + 1);
    s->constant = arena_new(arena, struct constant, s->constant_max);
    if (!s->out->instr || !s->out->class || !s->has_memory || !s->constant)
        return E_NOMEM;
    memcpy(s->out->class, s->lir->vreg_class, s->lir->vreg_count);
    s->out->vreg_count = s->lir->vreg_count;
    return OK;
}

static void walk(struct select *s)
{
    for (u32 i = 0; i < s->lir->count && s->status == OK; i++) {
        const struct lir_instr *in = &s->lir->instr[i];
        if (in->dst != LIR_NONE && (!s->value[in->dst].uses || s->value[in->dst].folded))
            continue;
        s->size = 0;
        if (in->op == LIR_LOOP)
            loop_head(s, in);
        else if (in->op == LIR_ENDLOOP)
            loop_end(s);
        else if (in->op == LIR_S_CONST)
            scalar_constant(s, in->dst, in->imm);
        else if (in->op == LIR_V_CONST || in->op == LIR_V_IOTA)
            vector_constant(s, in);
        else
            rules_expand(s, in);
    }
}

err x86_select(const struct lir *lir, const struct target *target, struct arena *arena,
               struct mcode *out)
{
    struct select *s = arena_new(arena, struct select, 1);

    *out = (struct mcode){};
    if (!s)
        return E_NOMEM;
    s->lir = lir;
    s->target = target;
    s->wide = target->isa == ISA_AVX512;
    s->full = s->wide ? 2 : 1;
    s->out = out;
    TRY(prepare(s, arena));
    survey(s);
    put_entry(s);
    walk(s);
    memmove(s->stream[HEAD] + s->count[HEAD], s->stream[BODY],
            s->count[BODY] * sizeof(struct minstr));
    out->count = s->count[HEAD] + s->count[BODY];
    return s->status;
}
