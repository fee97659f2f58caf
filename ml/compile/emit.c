/*
 * emit.c: writing LIR: value numbers, loops and their scopes. An instruction is written where it is
 * needed first and moves in front of the loops in which it does not change.
 */
#include "ml/compile/emit.h"

u64 number_mix(u64 h, u64 v)
{
    h ^= v + 0x9e3779b97f4a7c15ull + (h << 6) + (h >> 2);
    h *= 0xff51afd7ed558ccdull;
    return h ^ (h >> 33);
}

/* 64 bits of hash stand for the key: with at most 2^14 live entries an accidental match has odds
 * below 2^-36. */
u16 *number_find(struct emit *e, u64 key)
{
    for (u16 i = e->head[key % VALUE_HEADS]; i != LIR_NONE; i = e->number[i].next)
        if (e->number[i].key == key)
            return &e->number[i].vreg;
    return NULL;
}

void number_add(struct emit *e, u64 key, u16 vreg)
{
    u32 depth = min_u32(e->defined_at[vreg], e->scope_depth);

    if (e->number_count == VALUE_NUMBERS_MAX) {
        e->status = E_LIMIT;
        return;
    }
    e->number[e->number_count] =
        (struct value_number){key, vreg, e->head[key % VALUE_HEADS], (u8)depth};
    e->head[key % VALUE_HEADS] = (u16)e->number_count++;
}

/* Forgets the values of the scope that ends; those that moved out of it stay. */
static void numbers_close(struct emit *e, u32 first)
{
    u32 count = e->number_count;

    for (u32 i = count; i-- > first;)
        e->head[e->number[i].key % VALUE_HEADS] = e->number[i].next;
    e->number_count = first;
    for (u32 i = first; i < count; i++)
        if (e->number[i].depth <= e->scope_depth)
            number_add(e, e->number[i].key, e->number[i].vreg);
}

static u64 instr_key(const struct lir_instr *i)
{
    u64 h = number_mix(i->op, (u64)i->lanes << 24 | (u64)i->mem_type << 16 | i->aux);
    h = number_mix(h, (u64)i->a << 32 | (u64)i->b << 16 | i->c);
    h = number_mix(h, (u64)i->imm);
    h = number_mix(h, (u64)i->mem.base << 32 | (u64)i->mem.index << 16 | i->mem.scale);
    return number_mix(h, (u64)i->mem.space << 32 | (u32)i->mem.disp);
}

/* The outermost scope in which the instruction's operands, and for a load the memory, are what they
 * are here. A division stays: in front of a loop without trips its divisor may be 0. */
static u32 depth_of(const struct emit *e, const struct lir_instr *i)
{
    const u16 use[] = {i->a, i->b, i->c, i->mem.base, i->mem.index};
    u32 depth = i->mem.base == LIR_NONE ? 0 : e->scope[e->scope_depth].load_depth;

    if (i->op == LIR_S_DIV || i->op == LIR_S_MOD)
        return e->scope_depth;
    for (u32 k = 0; k < ARRAY_LEN(use); k++)
        if (use[k] != LIR_NONE)
            depth = max_u32(depth, e->defined_at[use[k]]);
    return min_u32(depth, e->scope_depth);
}

u16 emit_pure(struct emit *e, struct lir_instr instr)
{
    bool scalar = instr.op < LIR_V_CONST;

    instr.lanes = scalar ? 1 : instr.lanes;
    u64 key = instr_key(&instr);
    u16 *known = number_find(e, key);
    if (known)
        return *known;
    u32 depth = depth_of(e, &instr);
    if (depth < e->scope_depth)
        e->place[e->lir->count] = e->scope[depth + 1].head + 1;
    u32 words = instr.op == LIR_V_LOAD4 || instr.op == LIR_V_GATHER4 ? 4 : 1;
    instr.dst =
        words > 1 ? lir_tuple(e->lir, words) : lir_vreg(e->lir, scalar ? LIR_SCALAR : LIR_VECTOR);
    memset(&e->defined_at[instr.dst], (int)depth, words);
    e->writer[instr.dst] = e->lir->count + 1;
    *lir_emit(e->lir, (enum lir_op)instr.op) = instr;
    number_add(e, key, instr.dst);
    return instr.dst;
}

u16 emit_s(struct emit *e, enum lir_op op, u16 a, u16 b, i64 imm)
{
    struct lir_instr i = emit_blank(e, op);
    i.a = a;
    i.b = b;
    i.imm = imm;
    return emit_pure(e, i);
}

u16 emit_s_const(struct emit *e, i64 value)
{
    return emit_s(e, LIR_S_CONST, LIR_NONE, LIR_NONE, value);
}

u16 emit_s_add(struct emit *e, u16 a, u16 b)
{
    if (a == LIR_NONE || b == LIR_NONE)
        return a == LIR_NONE ? b : a;
    return emit_s(e, LIR_S_ADD, a, b, 0);
}

u16 emit_s_addi(struct emit *e, u16 a, i64 value)
{
    if (value == 0)
        return a;
    if (value != (i32)value)
        return emit_s_add(e, a, emit_s_const(e, value));
    return emit_s(e, LIR_S_ADDI, a, LIR_NONE, value);
}

u16 emit_s_muli(struct emit *e, u16 a, i64 factor)
{
    if (factor == 1)
        return a;
    if (factor > 0 && (factor & (factor - 1)) == 0)
        return emit_s(e, LIR_S_SHLI, a, LIR_NONE, __builtin_ctzll((u64)factor));
    if (factor != (i32)factor)
        return emit_s(e, LIR_S_MUL, a, emit_s_const(e, factor), 0);
    return emit_s(e, LIR_S_MULI, a, LIR_NONE, factor);
}

u16 emit_arg(struct emit *e, u32 place)
{
    u32 i = 0;

    while (i < e->out->arg_count && e->out->arg[i] != place)
        i++;
    if (i == KERNEL_ARGS_MAX) {
        e->status = E_LIMIT;
        return LIR_ARGS;
    }
    if (i == e->out->arg_count)
        e->out->arg[e->out->arg_count++] = place;
    return emit_s(e, LIR_S_ARG, LIR_NONE, LIR_NONE, i);
}

u16 emit_sym(struct emit *e, u32 sym)
{
    return emit_arg(e, e->graph->external_count + e->schedule->buffer_count + sym);
}

u16 emit_extent(struct emit *e, dim d)
{
    return dim_is_sym(d) ? emit_sym(e, dim_sym_idx(d)) : emit_s_const(e, d.v);
}

u16 emit_v(struct emit *e, enum lir_op op, u16 a, u16 b, u16 c)
{
    struct lir_instr i = emit_blank(e, op);
    i.a = a;
    i.b = b;
    i.c = c;
    return emit_pure(e, i);
}

u16 emit_vi(struct emit *e, enum lir_op op, u16 a, i64 imm, u8 aux)
{
    struct lir_instr i = emit_blank(e, op);
    i.a = a;
    i.imm = imm;
    i.aux = aux;
    return emit_pure(e, i);
}

u16 emit_two(struct emit *e, enum lir_op op, u16 a, u16 b)
{
    return emit_v(e, op, a, b, LIR_NONE);
}

u16 emit_compare(struct emit *e, enum lir_op op, u8 predicate, u16 a, u16 b)
{
    struct lir_instr i = emit_blank(e, op);
    i.a = a;
    i.b = b;
    i.aux = predicate;
    return emit_pure(e, i);
}

u16 emit_const_i32(struct emit *e, u32 bits)
{
    return emit_vi(e, LIR_V_CONST, LIR_NONE, (i64)bits, 0);
}

u16 emit_const_f32(struct emit *e, f32 value)
{
    u32 bits;
    memcpy(&bits, &value, sizeof bits);
    return emit_const_i32(e, bits);
}

u16 emit_var(struct emit *e, enum lir_class class)
{
    u16 v = lir_vreg(e->lir, class);

    e->defined_at[v] = MUTABLE;
    return v;
}

u16 emit_fresh(struct emit *e, enum lir_class class)
{
    u16 v = lir_vreg(e->lir, class);

    e->defined_at[v] = (u8)e->scope_depth;
    return v;
}

static struct lir_instr *emit_into(struct emit *e, u16 dst, enum lir_op op)
{
    struct lir_instr *i = lir_emit(e->lir, op);

    i->lanes = e->lanes;
    i->dst = dst;
    return i;
}

/* The instruction that takes a float out of a word of halves, NULL: v is no such float. */
static const struct lir_instr *half_of(const struct emit *e, u16 v)
{
    const struct lir_instr *i = e->writer[v] ? &e->lir->instr[e->writer[v] - 1] : NULL;

    return i && i->op == LIR_FMAH && i->dst == v ? i : NULL;
}

void emit_fma(struct emit *e, u16 acc, u16 a, u16 b)
{
    const struct lir_instr *half = half_of(e, a);

    if (!half && half_of(e, b)) {
        half = half_of(e, b);
        b = a;
    }
    u16 word = half ? half->a : a;
    i64 imm = half ? half->imm : 0;
    struct lir_instr *i = emit_into(e, acc, half ? LIR_FMAH : LIR_FMA);
    i->a = word;
    i->b = b;
    i->c = acc;
    i->imm = imm;
}

void emit_combine(struct emit *e, u16 acc, enum lir_op op, u16 value)
{
    struct lir_instr *i = emit_into(e, acc, op);

    i->a = acc;
    i->b = value;
}

void emit_move(struct emit *e, u16 dst, u16 a)
{
    emit_into(e, dst, LIR_S_MOV)->a = a;
}

void emit_set_const(struct emit *e, u16 dst, u32 bits)
{
    emit_into(e, dst, LIR_V_CONST)->imm = (i64)bits;
}

/* ---- scopes ---- */

u16 emit_loop(struct emit *e, u16 start, u16 end, i64 step)
{
    struct lir_instr i = emit_blank(e, LIR_LOOP);
    u32 depth = e->scope_depth + 1;

    i.dst = lir_vreg(e->lir, LIR_SCALAR);
    i.a = start;
    i.b = end;
    i.imm = step;
    if (depth > LIR_LOOP_DEPTH_MAX) {
        e->status = E_LIMIT;
        return i.dst;
    }
    e->scope[depth] = (struct scope){e->lir->count, e->number_count,
                                     e->quiet ? e->scope[depth - 1].load_depth : (u8)depth};
    e->scope_depth = depth;
    e->defined_at[i.dst] = (u8)depth;
    *lir_emit(e->lir, LIR_LOOP) = i;
    return i.dst;
}

u16 emit_shared_loop(struct emit *e, u16 start, u16 end, i64 step)
{
    if (e->waves == 1)
        return emit_loop(e, start, end, step);
    start = emit_s_add(e, start, emit_s_muli(e, LIR_WAVE, step));
    return emit_loop(e, start, end, step * e->waves);
}

void emit_barrier(struct emit *e)
{
    *lir_emit(e->lir, LIR_BARRIER) = emit_blank(e, LIR_BARRIER);
    e->joined = false;
}

void emit_end(struct emit *e)
{
    *lir_emit(e->lir, LIR_ENDLOOP) = emit_blank(e, LIR_ENDLOOP);
    if (e->status == OK && e->scope_depth > 0)
        numbers_close(e, e->scope[e->scope_depth--].number_first);
}

/* A stable counting sort by place; what moved comes before the instruction that stands there. */
err emit_settle(struct emit *e, struct arena *arena)
{
    struct lir *lir = e->lir;
    usize mark = arena_mark(arena);
    u32 *next = arena_new(arena, u32, lir->count + 2);
    struct lir_instr *sorted = arena_new(arena, struct lir_instr, lir->count + 1);

    if (!next || !sorted)
        return E_NOMEM;
    for (u32 n = 0; n < lir->count; n++)
        next[1 + (e->place[n] ? e->place[n] - 1 : n)]++;
    for (u32 n = 0; n < lir->count; n++)
        next[n + 1] += next[n];
    for (u32 pass = 0; pass < 2; pass++)
        for (u32 n = 0; n < lir->count; n++)
            if ((e->place[n] == 0) == pass)
                sorted[next[pass ? n : e->place[n] - 1]++] = lir->instr[n];
    memcpy(lir->instr, sorted, lir->count * sizeof *sorted);
    arena_reset(arena, mark);
    return OK;
}

void axis_open(struct emit *e, u32 axis, u16 counter)
{
    e->axis[axis] = (struct axis){.counter = counter};
    e->order[e->open_count++] = (u8)axis;
}

void axis_close(struct emit *e, u32 axis)
{
    CHECK(e->open_count > 0 && e->order[e->open_count - 1] == axis);
    e->open_count--;
    e->axis[axis] = (struct axis){.counter = LIR_NONE};
}
