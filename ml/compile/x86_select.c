/*
 * x86_select.c: instruction selection: LIR to rows of x86.def over virtual registers, by the rules of x86_rules.def. Loads
 * with one user become its memory operand, constants are made once at the kernel's entry. Knows no physical registers but
 * rax and rdx (division, moves into vectors) and k1.
 */
#include "ml/compile/x86.h"

#define FOLD_REACH       128u /* how far behind a load its user may stand */
#define MINSTRS_PER_LIR  12u  /* the longest expansion */
#define TEMPORARIES      8u
#define INT16_PAIRS_MAX  129  /* unsigned bytes that sum up to this, times int8, never exceed int16 in pairs */

/* ---- the rules ---- */

enum { ONE = 1, WIDE = 2, VNNI = 4, SAFE = 8, CHAIN_IN = 16, CHAIN_OUT = 32, FROM_0 = 64 };
enum { IMM = 0xf0, AUX, ROUND, ORDERED };
enum { XMM = 1, YMM = 2, MASKED = 4, SELF = 8 };
enum arg {
    NONE, D, A, B, C, INDEX, BASE, K1, RAXR, RDXR, MEM, MEM_RAX, ARG, T0, T1, T2, T3, T4, T5, T6, T7,
    C_ZERO, C_ONES, C_ONE, C_7FFF, C_40, C_FF, C_WORDS, C_LOW7, C_TOP1,
};
static const u32 constants[] = {0, UINT32_MAX, 1, 0x7fff, 0x40, 0xff, 0x00010001, 0x7f7f7f7f, 0x80808080};

#define BIT(n) (1u << (n))
#define WORDS  (BIT(DT_F32) | BIT(DT_I32))
#define BYTES  (BIT(DT_I8) | BIT(DT_U8))

/* A rule's head, or one of the instructions that follow it. */
struct step {
    u8 op; /* enum lir_op + 1; 0: an instruction */
    u8 when, which;
    u8 row;
    u8 arg[6]; /* operands, immediate, flags */
};
static const struct step rules[] = {
#define RULE(name, when_, which_) {.op = LIR_##name + 1, .when = when_, .which = which_},
#define S(row_, ...)              {.row = X_##row_, .arg = {__VA_ARGS__}},
#include "ml/compile/x86_rules.def"
    {.op = LIR_OP_COUNT + 1},
};
_Static_assert(X_END <= UINT8_MAX, "step.row");

enum { HEAD, BODY, STREAMS }; /* entry code, then the rest */

struct open_loop {
    const struct lir_instr *instr;
    u32 id;
    bool single_trip;
};

/* What is known of a LIR register. */
struct value {
    u16 uses, writes;
    u16 writer;    /* the last instruction that writes it */
    u16 name;      /* its machine register */
    u16 base;      /* a dot product in 16-bit pairs: the sum it starts from ... */
    u8 pairs_sum;  /* ... and what the unsigned bytes add up to; 0: it is no such thing */
    bool folded;   /* its writer is executed as part of its user */
};

struct select {
    const struct lir *lir;
    const struct target *target;
    bool wide;                     /* AVX-512 */
    u8 size;                       /* of the instruction at hand */
    struct minstr *stream[STREAMS];
    u32 count[STREAMS], max[STREAMS], at;
    struct mcode *out;
    struct { u64 key; u16 vreg; } *constant;
    u32 constant_count, constant_max;
    struct open_loop open[LIR_LOOP_DEPTH_MAX];
    u32 depth, loop_count;
    err status;
    struct value value[LIR_VREGS_MAX];
    bool *has_memory;              /* by instruction: a load is folded into it */
    const struct step *first[LIR_OP_COUNT];
};

/* ---- writing machine instructions ---- */

static struct minstr blank(u16 row, u8 size)
{
    return (struct minstr){.row = row, .size = size, .tied = x86_forms[x86_rows[row].form].tied,
                           .op = {LIR_NONE, LIR_NONE, LIR_NONE, LIR_NONE},
                           .mem = {.base = LIR_NONE, .index = LIR_NONE, .scale = 1}};
}

static u16 temporary(struct select *s, u8 class)
{
    if (s->out->vreg_count == MACHINE_VREGS_MAX - 1) {
        s->status = E_LIMIT;
        return 0;
    }
    s->out->class[s->out->vreg_count] = class;
    return (u16)s->out->vreg_count++;
}

static void append(struct select *s, struct minstr instr)
{
    if (s->count[s->at] == s->max[s->at])
        s->status = E_LIMIT;
    else
        s->stream[s->at][s->count[s->at]++] = instr;
}

static void put(struct select *s, u16 row, u16 dst, u16 a, i64 imm)
{
    struct minstr instr = blank(row, s->size);

    instr.op[0] = dst;
    instr.op[1] = a;
    instr.imm = imm;
    append(s, instr);
}

static u8 full_size(const struct select *s)
{
    return s->wide ? 2 : 1;
}

/* ---- constants: one register for each value, made at the entry ---- */

#define KEY_IOTA (1ull << 32)

static void make_iota(struct select *s, u16 dst)
{
    u16 bytes = temporary(s, LIR_VECTOR);
    struct minstr high = blank(X_VPINSRQ, 0);

    high.op[0] = high.op[1] = bytes;
    high.op[2] = X86_FIXED(RAX);
    high.imm = 1;
    put(s, X_MOV_I64, X86_FIXED(RAX), LIR_NONE, 0x0706050403020100);
    s->size = 0;
    put(s, X_VMOVQ, bytes, X86_FIXED(RAX), 0);
    put(s, X_MOV_I64, X86_FIXED(RAX), LIR_NONE, 0x0f0e0d0c0b0a0908);
    append(s, high);
    s->size = full_size(s);
    put(s, X_VPMOVZXBD, dst, bytes, 0);
}

static void make_constant(struct select *s, u16 dst, u32 bits)
{
    struct minstr idiom = blank(bits == 0 ? X_VPXOR : s->wide ? X_VPTERNLOGD : X_VPCMPEQD,
                                bits == 0 ? 0 : full_size(s)); /* 0: the short form clears it all */

    s->size = full_size(s);
    if (bits == 0 || bits == UINT32_MAX) {
        idiom.op[0] = dst;
        idiom.flags = MI_SELF;
        idiom.imm = 0xff;
        append(s, idiom);
        return;
    }
    put(s, X_MOV_I32, X86_FIXED(RAX), LIR_NONE, bits);
    if (s->wide) {
        put(s, X_VPBROADCASTD_G, dst, X86_FIXED(RAX), 0);
        return;
    }
    s->size = 0;
    put(s, X_VMOVD, dst, X86_FIXED(RAX), 0);
    s->size = 1;
    put(s, X_VBROADCASTSS, dst, dst, 0);
}

static u16 constant(struct select *s, u64 key)
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
    s->constant[i].vreg = temporary(s, LIR_VECTOR);
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
        value->name = constant(s, key);
    else if (key == 0)
        make_constant(s, in->dst, 0);
    else
        put(s, X_VMOVAPS, in->dst, constant(s, key), 0);
}

static void scalar_constant(struct select *s, u16 dst, i64 imm)
{
    u16 row = X_MOV_I64;

    if (imm >= 0 && imm <= UINT32_MAX)
        row = X_MOV_I32;
    else if (imm >= INT32_MIN && imm < 0)
        row = X_MOV_SX32;
    put(s, row, dst, LIR_NONE, imm);
}

/* Written once, by S_CONST, and short enough for an immediate. */
static bool is_immediate(const struct select *s, u16 v)
{
    const struct lir_instr *writer = &s->lir->instr[s->value[v].writer];

    return s->value[v].writes == 1 && writer->op == LIR_S_CONST && writer->imm >= INT32_MIN &&
           writer->imm <= INT32_MAX;
}

static i64 immediate(const struct select *s, u16 v)
{
    return s->lir->instr[s->value[v].writer].imm;
}

/* ---- loops: tested before the first trip where that is not known, then at the bottom ---- */

static void put_compare(struct select *s, u16 a, u16 b)
{
    struct minstr compare = blank(X_CMP, 0);

    compare.op[1] = a;
    compare.op[2] = b;
    append(s, compare);
}

static void compare_counter(struct select *s, const struct lir_instr *loop)
{
    if (is_immediate(s, loop->b))
        put(s, X_CMP_I, LIR_NONE, loop->dst, immediate(s, loop->b));
    else
        put_compare(s, loop->dst, loop->b);
}

static void loop_head(struct select *s, const struct lir_instr *in)
{
    bool known = is_immediate(s, in->a) && is_immediate(s, in->b);
    struct open_loop *loop = &s->open[s->depth++];

    *loop = (struct open_loop){.instr = in, .id = s->loop_count++};
    if (is_immediate(s, in->a))
        scalar_constant(s, in->dst, immediate(s, in->a));
    else
        put(s, X_MOV, in->dst, in->a, 0);
    if (!known || immediate(s, in->a) >= immediate(s, in->b)) {
        compare_counter(s, in);
        put(s, X_JGE, LIR_NONE, LIR_NONE, 2 * loop->id + 1);
    }
    loop->single_trip = known && immediate(s, in->a) + in->imm >= immediate(s, in->b);
    put(s, MACHINE_LOOP, LIR_NONE, LIR_NONE, loop->id);
}

static void loop_end(struct select *s)
{
    const struct open_loop *loop = &s->open[--s->depth];

    if (!loop->single_trip) {
        put(s, X_ADD_I, loop->instr->dst, loop->instr->dst, loop->instr->imm);
        compare_counter(s, loop->instr);
        put(s, X_JL, LIR_NONE, LIR_NONE, 2 * loop->id);
    }
    put(s, MACHINE_ENDLOOP, LIR_NONE, LIR_NONE, loop->id);
}

/* ---- chains of dot products ---- */

/* The operation that reads in's result, when it is the only one, in the same block; NULL: none. Nothing between writes
 * `kept`; when in reads memory, nothing between stores. */
static const struct lir_instr *only_user(const struct select *s, const struct lir_instr *in, u16 kept)
{
    const struct lir_instr *end = s->lir->instr + s->lir->count;
    bool loads = lir_rows[in->op].operands[4] == 'L';

    if (s->value[in->dst].writes != 1 || s->value[in->dst].uses != 1)
        return NULL;
    for (const struct lir_instr *at = in + 1; at < end && at <= in + FOLD_REACH; at++) {
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

/* Whether the next product can be added to this one while both are pairs of 16 bits. Remembers that of the result. */
static u32 chain_facts(struct select *s, const struct lir_instr *in)
{
    const struct value *start = &s->value[in->c];
    u16 base = start->pairs_sum ? start->base : in->c;
    i64 sum = start->pairs_sum + in->imm;
    const struct lir_instr *next = only_user(s, in, base);
    u32 facts = start->pairs_sum ? CHAIN_IN : 0;

    if (next && in->imm > 0 && next->op == LIR_DOT4_US && next->c == in->dst && next->lanes == in->lanes &&
        sum + next->imm <= INT16_PAIRS_MAX) {
        s->value[in->dst].pairs_sum = (u8)sum;
        s->value[in->dst].base = base;
        facts |= CHAIN_OUT;
    }
    const struct lir_instr *origin = &s->lir->instr[s->value[base].writer];
    if (s->value[base].writes == 1 && origin->op == LIR_V_CONST && origin->imm == 0)
        facts |= FROM_0;
    return facts;
}

/* ---- expansion ---- */

static const struct step *find_rule(const struct select *s, const struct lir_instr *in, u32 facts)
{
    u32 which = lir_rows[in->op].operands[4] != '-' ? BIT(in->mem_type) : BIT(in->aux);
    const struct step *at = s->first[in->op];

    facts |= (in->lanes == 1 ? ONE : 0) | (s->wide ? WIDE : 0) | (s->target->vnni ? VNNI : 0) |
             (in->imm < INT16_PAIRS_MAX ? SAFE : 0);
    while (at->op != in->op + 1u || at->when & ~facts || (at->which && !(at->which & which)))
        CHECK(++at < rules + ARRAY_LEN(rules));
    return at + 1;
}

static void set_memory(const struct select *s, struct minstr *instr, const struct lir_instr *in)
{
    instr->flags |= MI_MEMORY;
    instr->mem = in->mem;
    if (in->op == LIR_V_GATHER) {
        instr->mem.index = s->value[in->mem.index].name;
        instr->flags |= MI_INDEX_VECTOR;
    } else if (in->op == LIR_S_ARG) {
        instr->mem = (struct lir_mem){.base = LIR_ARGS, .index = LIR_NONE, .disp = (i32)in->imm * 8};
    }
}

/* The register that an argument of a step stands for; memory is set in instr. */
static u16 resolve(struct select *s, struct minstr *instr, u8 arg, const struct lir_instr *in, u16 *temp)
{
    const u16 source[] = {[A] = in->a, [B] = in->b, [C] = in->c, [INDEX] = in->mem.index};
    const struct value *value = &s->value[arg >= A && arg <= INDEX ? source[arg] : 0];

    switch (arg) {
    case NONE:
        return LIR_NONE;
    case D:
        return in->dst;
    case BASE:
        return s->value[s->value[in->c].base].name;
    case K1:
        return X86_FIXED(X86_MASK);
    case RAXR:
        return X86_FIXED(RAX);
    case RDXR:
        return X86_FIXED(RDX);
    case MEM:
    case ARG:
        set_memory(s, instr, in);
        return LIR_NONE;
    case MEM_RAX:
        set_memory(s, instr, in);
        instr->flags &= (u8)~MI_INDEX_VECTOR;
        instr->mem.index = X86_FIXED(RAX);
        return LIR_NONE;
    default:
        break;
    }
    if (arg >= C_ZERO)
        return constant(s, constants[arg - C_ZERO]);
    if (arg >= T0) {
        if (temp[arg - T0] == LIR_NONE)
            temp[arg - T0] = temporary(s, LIR_VECTOR);
        return temp[arg - T0];
    }
    if (!value->folded)
        return value->name;
    set_memory(s, instr, &s->lir->instr[value->writer]);
    instr->flags |= s->lir->instr[value->writer].op == LIR_V_BCAST ? MI_BROADCAST : 0;
    return LIR_NONE;
}

static i64 immediate_of(const struct lir_instr *in, u8 imm)
{
    static const u8 ordered[] = {[LIR_EQ] = 0, [LIR_LT] = 17, [LIR_LE] = 18}; /* of vcmpps, quiet */

    switch (imm) {
    case IMM:
        return in->imm;
    case AUX:
        return in->aux;
    case ROUND:
        return in->aux | 8; /* LIR's numbers are x86's; 8: inexact is no exception */
    case ORDERED:
        return ordered[in->aux];
    default:
        return imm;
    }
}

/* Two-operand forms write the destination before they have read the other sources: those must not be the same register,
 * and the allocator must not give them the same one. */
static void append_apart(struct select *s, struct minstr instr)
{
    bool clash = instr.flags & MI_INDEX_VECTOR && instr.mem.index == instr.op[0];
    u16 dst = instr.op[0];

    for (u32 k = 1; k < ARRAY_LEN(instr.op); k++)
        clash |= k != instr.tied && instr.op[k] == dst;
    instr.flags |= MI_APART;
    if (!clash) {
        append(s, instr);
        return;
    }
    u8 class = s->out->class[dst];
    instr.op[0] = temporary(s, class);
    append(s, instr);
    put(s, class == LIR_VECTOR ? X_VMOVAPS : X_MOV, dst, instr.op[0], 0);
}

static void put_step(struct select *s, const struct step *step, const struct lir_instr *in, u16 *temp)
{
    const u8 *arg = step->arg, flags = arg[5];
    bool commutes = x86_rows[step->row].traits & T_C;
    bool swap = commutes && arg[1] == A && s->value[in->a].folded;
    struct minstr instr = blank(step->row, flags & XMM ? 0 : flags & YMM ? 1 : s->size);

    for (u32 k = 0; k < 4; k++)
        instr.op[k] = resolve(s, &instr, swap && k && k < 3 ? arg[3 - k] : arg[k], in, temp);
    instr.imm = immediate_of(in, arg[4]);
    instr.flags |= (flags & MASKED ? MI_MASKED : 0) | (flags & SELF ? MI_SELF : 0);
    if ((instr.tied && !commutes && instr.op[0] != instr.op[instr.tied]) ||
        instr.flags & MI_INDEX_VECTOR)
        append_apart(s, instr);
    else
        append(s, instr);
}

static void expand(struct select *s, const struct lir_instr *in)
{
    u16 temp[TEMPORARIES];
    const struct step *step = find_rule(s, in, in->op == LIR_DOT4_US ? chain_facts(s, in) : 0);

    memset(temp, 0xff, sizeof(temp));
    s->size = in->lanes <= 1 ? 0 : full_size(s);
    if (in->op == LIR_SELECT && s->value[in->a].folded) { /* the comparison stays in the mask register */
        const struct lir_instr *compare = &s->lir->instr[s->value[in->a].writer];
        put_step(s, find_rule(s, compare, 0), compare, temp);
        step++;
    }
    for (; !step->op; step++)
        put_step(s, step, in, temp);
}

/* ---- what can be part of its user ---- */

static bool takes_memory(const struct select *s, const struct lir_instr *user, const struct lir_instr *load)
{
    u8 arg = user->a == load->dst ? A : user->b == load->dst ? B : C;
    u32 found = 0;

    for (const struct step *step = find_rule(s, user, 0); !step->op; step++) {
        const struct x86_row *row = &x86_rows[step->row];
        bool multiply_add = step->row == X_VFMADD231PS || step->row == X_VFNMADD231PS;
        for (u32 k = 1; k < 4; k++) {
            if (step->arg[k] != arg)
                continue;
            found++;
            if (!(x86_forms[row->form].rm == (i32)k || (k == 1 && row->traits & T_C) || multiply_add) ||
                row->traits & T_N || step->row == X_VMOVAPS ||
                !(row->memory == MEM_B || (row->memory == MEM_F && load->op == LIR_V_LOAD)))
                return false;
        }
    }
    return found == 1;
}

static void try_fold(struct select *s, const struct lir_instr *in)
{
    bool word = BIT(in->mem_type) & WORDS, compares = in->op == LIR_FCMP || in->op == LIR_ICMP;
    bool loads = word && ((in->op == LIR_V_LOAD && in->lanes > 1) || (in->op == LIR_V_BCAST && s->wide));

    if (!loads && !(compares && s->wide))
        return;
    const struct lir_instr *user = only_user(s, in, LIR_NONE);
    if (!user || user->lanes != in->lanes)
        return;
    usize at = (usize)(user - s->lir->instr);
    if (compares) {
        s->value[in->dst].folded = user->op == LIR_SELECT && user->a == in->dst;
    } else if (!s->has_memory[at] && (user->dst == LIR_NONE || !s->value[user->dst].folded)) {
        s->value[in->dst].folded = s->has_memory[at] = takes_memory(s, user, in);
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

    if (in->a != LIR_NONE && !(loop && is_immediate(s, in->a)))
        count_use(s, in->a);
    if (in->b != LIR_NONE && !(loop && is_immediate(s, in->b)))
        count_use(s, in->b);
    count_use(s, in->c);
    count_use(s, in->mem.base);
    count_use(s, in->mem.index);
    count_use(s, in->op == LIR_S_ARG ? LIR_ARGS : LIR_NONE);
    count_use(s, loop ? in->dst : LIR_NONE);
}

static void survey(struct select *s)
{
    const struct lir_instr *instr = s->lir->instr;

    for (u32 i = ARRAY_LEN(rules); i-- > 0;)
        if (rules[i].op && rules[i].op <= LIR_OP_COUNT)
            s->first[rules[i].op - 1] = &rules[i];
    for (u32 v = 0; v < LIR_VREGS_MAX; v++)
        s->value[v].name = (u16)v;
    for (u32 i = 0; i < s->lir->count; i++) {
        struct value *value = &s->value[instr[i].dst == LIR_NONE ? 0 : instr[i].dst];
        if (instr[i].dst == LIR_NONE)
            continue;
        value->writes = (u16)min_u32(value->writes + 1u, UINT16_MAX);
        value->writer = (u16)i;
    }
    for (u32 i = 0; i < s->lir->count; i++)
        count_uses(s, &instr[i]);
    for (u32 i = s->lir->count; i-- > 0;)
        try_fold(s, &instr[i]);
}

/* ---- the walk ---- */

/* SysV: rdi, rsi, rdx, rcx. rdx is needed for division, so `end` moves last, when the others have their places. */
static void put_entry(struct select *s)
{
    static const struct {
        u16 vreg, reg;
    } entry[] = {{LIR_ARGS, RDI}, {LIR_BEGIN, RSI}, {LIR_SCRATCH, RCX}, {LIR_END, RDX}};

    s->at = HEAD;
    for (u32 i = 0; i < ARRAY_LEN(entry); i++)
        if (s->value[entry[i].vreg].uses)
            put(s, X_MOV, entry[i].vreg, X86_FIXED(entry[i].reg), 0);
    s->at = BODY;
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
            expand(s, in);
    }
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
    s->constant = arena_alloc_array(arena, s->constant_max, sizeof(*s->constant), 8);
    if (!s->out->instr || !s->out->class || !s->has_memory || !s->constant)
        return E_NOMEM;
    memcpy(s->out->class, s->lir->vreg_class, s->lir->vreg_count);
    s->out->vreg_count = s->lir->vreg_count;
    return OK;
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
    s->out = out;
    TRY(prepare(s, arena));
    survey(s);
    put_entry(s);
    walk(s);
    memmove(s->stream[HEAD] + s->count[HEAD], s->stream[BODY], s->count[BODY] * sizeof(struct minstr));
    out->count = s->count[HEAD] + s->count[BODY];
    return s->status;
}
