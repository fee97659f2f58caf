/*
 * x86_rules.c: applies the rules of x86_rules.def: which one fits an operation, what its steps
 * become. Chains of small dot products are kept in 16-bit pairs here. Knows no loops and no
 * physical registers but rax and rdx (division, gathers) and k1.
 */
#include "ml/compile/x86_select.h"

#define TEMPORARIES     8u
#define INT16_PAIRS_MAX 129 /* unsigned bytes of this sum, times int8, stay in int16 in pairs */

/* ---- the table ---- */

enum { ONE = 1, WIDE = 2, VNNI = 4, SAFE = 8 }; /* what is known of an operation */
enum { CHAIN_IN = 16, CHAIN_OUT = 32, FROM_0 = 64, BY_WORDS = 128 };
enum { IMM = 0xf0, AUX, ROUND, ORDERED };
enum { XMM = 1, YMM = 2, MASKED = 4, SELF = 8 };
// clang-format off
enum arg {
    NONE, D, A, B, C, INDEX, BASE, K1, RAXR, RDXR, MEM, MEM_RAX, ARG,
    T0, T1, T2, T3, T4, T5, T6, T7,
    C_ZERO, C_ONES, C_ONE, C_7FFF, C_40, C_FF, C_WORDS, C_LOW7, C_TOP1, C_EVEN,
};
static const u32 constants[] = {
    0, UINT32_MAX, 1, 0x7fff, 0x40, 0xff, 0x00010001, 0x7f7f7f7f, 0x80808080, 0x00ff00ff,
};
// clang-format on

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

void rules_init(struct select *s)
{
    for (u16 i = ARRAY_LEN(rules) - 1; i-- > 0;)
        if (rules[i].op)
            s->first_rule[rules[i].op - 1] = i;
}

/* ---- which rule ---- */

/* Whether the next product can be added to this one while both are pairs of 16 bits. Remembers that
 * of the result. */
static u32 chain_facts(struct select *s, const struct lir_instr *in)
{
    const struct value *start = &s->value[in->c];
    u16 base = start->pairs_sum ? start->base : in->c;
    i64 sum = start->pairs_sum + in->imm;
    const struct lir_instr *next = select_only_user(s, in, base);
    u32 facts = start->pairs_sum ? CHAIN_IN : 0;

    if (next && in->imm > 0 && next->op == LIR_DOT4 && next->c == in->dst &&
        next->lanes == in->lanes && sum + next->imm <= INT16_PAIRS_MAX) {
        s->value[in->dst].pairs_sum = (u8)sum;
        s->value[in->dst].base = base;
        facts |= CHAIN_OUT;
    }
    const struct lir_instr *origin = &s->lir->instr[s->value[base].writer];
    if (s->value[base].writes == 1 && origin->op == LIR_V_CONST && origin->imm == 0)
        facts |= FROM_0;
    return facts;
}

static const struct step *find_rule(const struct select *s, const struct lir_instr *in, u32 facts)
{
    u32 which = lir_rows[in->op].operands[4] != '-' ? BIT(in->mem_type) : BIT(in->aux);
    const struct step *at = &rules[s->first_rule[in->op]];

    facts |= (in->lanes == 1 ? ONE : 0) | (s->wide ? WIDE : 0) | (s->target->vnni ? VNNI : 0) |
             (in->imm < INT16_PAIRS_MAX ? SAFE : 0) |
             (s->target->isa == ISA_AVX2_WORDS ? BY_WORDS : 0);
    while (at->op != in->op + 1u || at->when & ~facts || (at->which && !(at->which & which)))
        CHECK(++at < rules + ARRAY_LEN(rules));
    return at + 1;
}

/* ---- what its steps become ---- */

static void set_memory(const struct select *s, struct minstr *instr, const struct lir_instr *in)
{
    instr->flags |= MI_MEMORY;
    instr->mem = in->mem;
    if (in->op == LIR_V_GATHER) {
        instr->mem.index = s->value[in->mem.index].name;
        instr->flags |= MI_INDEX_VECTOR;
    } else if (in->op == LIR_S_ARG) {
        instr->mem =
            (struct lir_mem){.base = LIR_ARGS, .index = LIR_NONE, .disp = (i32)in->imm * 8};
    }
}

/* The register that an argument of a step stands for; memory is set in instr. */
static u16 resolve(struct select *s, struct minstr *instr, u8 arg, const struct lir_instr *in,
                   u16 *temp)
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
        return select_constant(s, constants[arg - C_ZERO]);
    if (arg >= T0) {
        if (temp[arg - T0] == LIR_NONE)
            temp[arg - T0] = select_temporary(s, LIR_VECTOR);
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

/* Two-operand forms write the destination before they have read the other sources: those must not
 * be the same register, and the allocator must not give them the same one. */
static void append_apart(struct select *s, struct minstr instr)
{
    bool clash = instr.flags & MI_INDEX_VECTOR && instr.mem.index == instr.op[0];
    u16 dst = instr.op[0];

    for (u32 k = 1; k < ARRAY_LEN(instr.op); k++)
        clash |= k != instr.tied && instr.op[k] == dst;
    instr.flags |= MI_APART;
    if (!clash) {
        select_append(s, instr);
        return;
    }
    u8 class = s->out->class[dst];
    instr.op[0] = select_temporary(s, class);
    select_append(s, instr);
    select_put(s, class == LIR_VECTOR ? X_VMOVAPS : X_MOV, dst, instr.op[0], 0);
}

static void put_step(struct select *s, const struct step *step, const struct lir_instr *in,
                     u16 *temp)
{
    const u8 *arg = step->arg, flags = arg[5];
    bool commutes = x86_rows[step->row].traits & T_C;
    bool swap = commutes && arg[1] == A && s->value[in->a].folded;
    struct minstr instr = x86_blank(step->row, flags & XMM ? 0 : flags & YMM ? 1 : s->size);

    for (u32 k = 0; k < 4; k++)
        instr.op[k] = resolve(s, &instr, swap && k && k < 3 ? arg[3 - k] : arg[k], in, temp);
    instr.imm = immediate_of(in, arg[4]);
    instr.flags |= (flags & MASKED ? MI_MASKED : 0) | (flags & SELF ? MI_SELF : 0);
    bool free = commutes && instr.tied == 1; /* either source may be the destination */
    if ((instr.tied && !free && instr.op[0] != instr.op[instr.tied]) ||
        instr.flags & MI_INDEX_VECTOR)
        append_apart(s, instr);
    else
        select_append(s, instr);
}

void rules_expand(struct select *s, const struct lir_instr *in)
{
    u16 temp[TEMPORARIES];
    const struct step *step = find_rule(s, in, in->op == LIR_DOT4 ? chain_facts(s, in) : 0);

    memset(temp, 0xff, sizeof(temp));
    s->size = in->lanes <= 1 ? 0 : s->full;
    if (in->op == LIR_SELECT && s->value[in->a].folded) { /* the mask stays in k1 */
        const struct lir_instr *compare = &s->lir->instr[s->value[in->a].writer];
        put_step(s, find_rule(s, compare, 0), compare, temp);
        step++;
    }
    if (in->op == LIR_S_FROM_V && s->value[in->a].folded) {
        static const struct step from_memory = {.row = X_MOVSXD, .arg = {D, A}};
        put_step(s, &from_memory, in, temp);
        return;
    }
    for (; !step->op; step++)
        put_step(s, step, in, temp);
}

/* ---- what a step can take from memory ---- */

bool rules_take_memory(const struct select *s, const struct lir_instr *user,
                       const struct lir_instr *load)
{
    u8 arg = user->a == load->dst ? A : user->b == load->dst ? B : C;
    u32 found = 0;

    for (const struct step *step = find_rule(s, user, 0); !step->op; step++) {
        const struct x86_row *row = &x86_rows[step->row];
        for (u32 k = 1; k < 4; k++) {
            if (step->arg[k] != arg)
                continue;
            found++;
            /* C of a byte product may be read by another one, at the end of their chain. */
            bool place = (x86_forms[row->form].rm == (i32)k && arg != C) ||
                         (k == 1 && arg == A && row->traits & T_C);
            bool width = row->memory == MEM_B || (row->memory == MEM_F && load->op == LIR_V_LOAD);
            if (!place || !width || row->traits & T_N || step->row == X_VMOVAPS)
                return false;
        }
    }
    return found == 1;
}
