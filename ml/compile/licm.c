/*
 * licm.c: moves loop-invariant arithmetic in front of loops, then drops what is computed twice.
 * Lowering emits addresses and constants where they are used; this pass puts them where they
 * belong. Loads leave only loops without a store.
 */
#include "ml/compile/priv.h"

struct hoist {
    struct lir *lir;
    u32 *defs;     /* per vreg: instructions that write it */
    u32 *depth_of; /* per vreg: deepest loop that writes it, after moving; 0 outside */
    u16 *rename;
    bool *stores; /* per instruction: a loop's head with a store inside */
    struct lir_instr *out;
};

/* Writes its dst from its operands alone. */
static bool is_arithmetic(const struct lir_instr *i)
{
    if (i->op == LIR_LOOP || i->op == LIR_ENDLOOP || i->op == LIR_S_MOV || i->op == LIR_V_MOV ||
        i->op == LIR_S_DIV || i->op == LIR_S_MOD)
        return false;
    return i->mem.base == LIR_NONE && i->dst != LIR_NONE;
}

static bool is_load(const struct lir_instr *i)
{
    return i->mem.base != LIR_NONE && i->dst != LIR_NONE;
}

/* Per instruction: whether it is the head of a loop with a store inside. */
static void find_stores(const struct lir *lir, bool *stores)
{
    u32 open[LIR_LOOP_DEPTH_MAX + 1], depth = 0;

    for (u32 n = 0; n < lir->count; n++) {
        const struct lir_instr *i = &lir->instr[n];
        if (i->op == LIR_LOOP)
            open[depth++] = n;
        depth -= i->op == LIR_ENDLOOP;
        for (u32 d = 0; d < depth && (i->op == LIR_V_STORE || i->op == LIR_S_STORE); d++)
            stores[open[d]] = true;
    }
}

/* The loop depth at which the instruction can stand: that of its operands, for a load also of the
 * stores around it. */
static u32 needed_depth(const struct hoist *h, const struct lir_instr *i, u32 depth,
                        const u32 *head)
{
    const u16 use[] = {i->a, i->b, i->c, i->mem.base, i->mem.index};
    u32 need = 0;

    if (h->defs[i->dst] != 1 || !(is_arithmetic(i) || is_load(i)))
        return depth;
    for (u32 k = 0; k < ARRAY_LEN(use); k++)
        if (use[k] != LIR_NONE)
            need = max_u32(need, h->depth_of[use[k]]);
    for (u32 level = depth; is_load(i) && level > need; level--)
        if (h->stores[head[level]])
            return level;
    return min_u32(need, depth);
}

/*
 * One forward sweep: an instruction whose operands are all defined at a smaller loop depth, and
 * whose own register has this one definition, goes in front of the outermost loop for which that
 * holds. The target position is kept per depth.
 */
static err sweep(struct hoist *h, struct arena *arena)
{
    struct lir *lir = h->lir;
    u32 depth = 0, *place = arena_new(arena, u32, lir->count + 1);
    u32 head[LIR_LOOP_DEPTH_MAX + 1] = {};

    if (!place)
        return E_NOMEM;
    for (u32 n = 0; n < lir->count; n++) {
        struct lir_instr *i = &lir->instr[n];
        if (i->op == LIR_LOOP)
            head[++depth] = n;
        u32 need = i->dst == LIR_NONE ? depth : needed_depth(h, i, depth, head);
        place[n] = need < depth ? head[need + 1] : n; /* in front of that loop's head */
        if (i->dst != LIR_NONE && h->defs[i->dst] == 1)
            h->depth_of[i->dst] = need;
        if (i->op == LIR_ENDLOOP)
            depth--;
    }
    /* Stable counting sort by place; what moved comes before the instruction that stands there. */
    u32 *count = arena_new(arena, u32, lir->count + 2);
    if (!count)
        return E_NOMEM;
    for (u32 n = 0; n < lir->count; n++)
        count[place[n] + 1]++;
    for (u32 n = 0; n < lir->count; n++)
        count[n + 1] += count[n];
    for (u32 n = 0; n < lir->count; n++)
        if (place[n] != n)
            h->out[count[place[n]]++] = lir->instr[n];
    for (u32 n = 0; n < lir->count; n++)
        if (place[n] == n)
            h->out[count[n]++] = lir->instr[n];
    memcpy(lir->instr, h->out, lir->count * sizeof *h->out);
    return OK;
}

static u64 key_of(const struct lir_instr *i)
{
    u64 h = (u64)i->op << 32 | (u64)i->lanes << 16 | i->aux;
    const u64 part[] = {(u64)i->a << 32 | (u64)i->b << 16 | i->c, (u64)i->imm};
    for (u32 k = 0; k < 2; k++)
        h = (h ^ part[k]) * 0x9e3779b97f4a7c15ull, h ^= h >> 29;
    return h;
}

static bool same(const struct lir_instr *a, const struct lir_instr *b)
{
    return a->op == b->op && a->lanes == b->lanes && a->aux == b->aux && a->a == b->a &&
           a->b == b->b && a->c == b->c && a->imm == b->imm;
}

/* Scoped common subexpressions: what stands in an open scope and has one definition serves again.
 */
static err merge(struct hoist *h, struct arena *arena)
{
    enum { HEADS = 4096 };
    struct lir *lir = h->lir;
    struct seen {
        u32 instr, next;
    } *seen = arena_new(arena, struct seen, lir->count + 1);
    u32 *head = arena_new(arena, u32, HEADS), count = 0, scope[LIR_LOOP_DEPTH_MAX + 1], depth = 0,
        kept = 0;

    if (!seen || !head)
        return E_NOMEM;
    memset(head, 0xff, HEADS * sizeof *head);
    for (u32 n = 0; n < lir->count; n++) {
        struct lir_instr i = lir->instr[n];
        u16 *use[] = {&i.a, &i.b, &i.c, &i.mem.base, &i.mem.index};
        for (u32 k = 0; k < ARRAY_LEN(use); k++)
            if (*use[k] != LIR_NONE)
                *use[k] = h->rename[*use[k]];
        bool stable = is_arithmetic(&i) && h->defs[i.dst] == 1;
        const u16 operand[] = {i.a, i.b, i.c};
        for (u32 k = 0; k < 3; k++)
            stable &= operand[k] == LIR_NONE || h->defs[operand[k]] <= 1;
        u32 bucket = (u32)(key_of(&i) % HEADS), found = UINT32_MAX;
        for (u32 s = stable ? head[bucket] : UINT32_MAX; s != UINT32_MAX && found == UINT32_MAX;
             s = seen[s].next)
            if (same(&lir->instr[seen[s].instr], &i))
                found = seen[s].instr;
        if (found != UINT32_MAX) {
            h->rename[i.dst] = lir->instr[found].dst;
            continue;
        }
        if (i.op == LIR_LOOP)
            scope[depth++] = count;
        if (i.op == LIR_ENDLOOP)
            for (u32 keep = scope[--depth]; count > keep;) {
                count--;
                head[key_of(&lir->instr[seen[count].instr]) % HEADS] = seen[count].next;
            }
        if (stable) {
            seen[count] = (struct seen){kept, head[bucket]};
            head[bucket] = count++;
        }
        lir->instr[kept++] = i;
    }
    lir->count = kept;
    return OK;
}

err lir_hoist(struct lir *lir, struct arena *scratch)
{
    usize mark = arena_mark(scratch);
    struct hoist h = {.lir = lir,
                      .defs = arena_new(scratch, u32, lir->vreg_count),
                      .depth_of = arena_new(scratch, u32, lir->vreg_count),
                      .rename = arena_new(scratch, u16, lir->vreg_count),
                      .stores = arena_new(scratch, bool, lir->count),
                      .out = arena_new(scratch, struct lir_instr, lir->count)};

    if (!h.out || !h.rename || !h.stores || !h.depth_of || !h.defs)
        return E_NOMEM;
    for (u32 i = 0; i < lir->vreg_count; i++)
        h.rename[i] = (u16)i;
    u32 depth = 0;
    for (u32 n = 0; n < lir->count; n++) {
        const struct lir_instr *i = &lir->instr[n];
        depth += i->op == LIR_LOOP;
        depth -= i->op == LIR_ENDLOOP;
        if (i->dst != LIR_NONE) {
            h.defs[i->dst]++;
            h.depth_of[i->dst] = max_u32(h.depth_of[i->dst], depth);
        }
    }
    find_stores(lir, h.stores);
    err e = sweep(&h, scratch);
    if (e == OK)
        e = merge(&h, scratch);
    arena_reset(scratch, mark);
    return e;
}
