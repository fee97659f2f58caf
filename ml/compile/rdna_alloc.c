/*
 * rdna_alloc.c: gives virtual registers physical ones: linear scan over live intervals (Poletto and
 * Sarkar, 1999), extended for loops and for tuples that lie side by side. Nothing is ever spilled:
 * running out is E_LIMIT.
 *
 * An instruction i reads at position 2i and writes at 2i + 1, so a source that dies in it may share
 * with the destination.
 */
#include "ml/compile/rdna_select.h"

#define NEVER UINT32_MAX

struct live {
    u32 start, end; /* positions; start NEVER: not used */
    u16 place;      /* the first register */
};

struct scan {
    struct rcode *code;
    const u8 *tuple;
    struct live *live; /* by the first of a tuple */
    u16 *first;        /* of the tuple, by virtual register */
    u16 *order;        /* tuples by start */
    u32 order_count;
    u32 *loop_end; /* by index of a loop's first marker */
    u32 open[LIR_LOOP_DEPTH_MAX], depth;
    u32 busy[2][RDNA_VGPRS]; /* by class and register: until when */
    struct rdna_use *use;
};

static const u32 register_count[2] = {[LIR_SCALAR] = RDNA_SGPRS, [LIR_VECTOR] = RDNA_VGPRS};

/* ---- live intervals ---- */

static void find_loops(struct scan *scan)
{
    u32 depth = 0;

    for (u32 i = 0; i < scan->code->count; i++) {
        if (scan->code->instr[i].row == R_LOOP) {
            CHECK(depth < LIR_LOOP_DEPTH_MAX);
            scan->open[depth++] = i;
        } else if (scan->code->instr[i].row == R_ENDLOOP) {
            CHECK(depth > 0);
            scan->loop_end[scan->open[--depth]] = i;
        }
    }
    CHECK(depth == 0);
}

/* What was written before a loop and is touched in it lives to the loop's end: the next trip may
 * read it. */
static u32 until(const struct scan *scan, u32 start, u32 position)
{
    for (u32 i = 0; i < scan->depth; i++)
        if (2 * scan->open[i] > start)
            return 2 * scan->loop_end[scan->open[i]];
    return position;
}

static void touch_fixed(struct scan *scan, const struct rdna_ref *ref, u32 position)
{
    u32 class = ref->code >= RDNA_VGPR ? LIR_VECTOR : LIR_SCALAR;
    u32 first = class == LIR_VECTOR ? ref->code - RDNA_VGPR : ref->code;

    for (u32 r = first; r < first + ref->width && r < register_count[class]; r++)
        scan->busy[class][r] = max_u32(scan->busy[class][r], until(scan, 0, position));
}

static void touch(struct scan *scan, const struct rdna_ref *ref, u32 position)
{
    if (ref->code < RDNA_VIRTUAL) {
        touch_fixed(scan, ref, position);
        return;
    }
    u16 first = scan->first[ref->code - RDNA_VIRTUAL];
    struct live *live = &scan->live[first];
    if (live->start == NEVER) {
        live->start = position;
        scan->order[scan->order_count++] = first;
    }
    live->end = max_u32(live->end, max_u32(live->start + 1, until(scan, live->start, position)));
}

static void touch_instr(struct scan *scan, const struct rinstr *instr, u32 i)
{
    struct rdna_ref refs[RDNA_REFS_MAX];
    u32 count = rdna_refs(instr, refs);
    bool apart = rdna_rows[instr->row].flags & R_WMMA;

    for (u32 pass = 0; pass < 2; pass++) /* reads first */
        for (u32 k = 0; k < count; k++)
            if (refs[k].write == pass)
                touch(scan, &refs[k],
                      2 * i + (pass                                  ? 1
                               : apart && refs[k].code != instr->dst ? 2
                                                                     : 0));
}

static void find_intervals(struct scan *scan)
{
    for (u32 v = 0; v < scan->code->vreg_count; v++) {
        scan->live[v].start = NEVER;
        scan->first[v] = (u16)v;
        for (u32 i = 1; i < scan->tuple[v]; i++)
            scan->first[v + i] = (u16)v;
        v += scan->tuple[v] ? scan->tuple[v] - 1u : 0;
    }
    for (u32 i = 0; i < scan->code->count; i++) {
        const struct rinstr *instr = &scan->code->instr[i];
        if (instr->row == R_LOOP)
            scan->open[scan->depth++] = i;
        else if (instr->row == R_ENDLOOP)
            scan->depth--;
        else if (instr->row >= RDNA_PSEUDOS)
            touch_instr(scan, instr, i);
    }
}

/* ---- the scan ---- */

static bool is_free(const struct scan *scan, u32 class, u32 reg, u32 count, u32 position)
{
    for (u32 i = 0; i < count; i++)
        if (scan->busy[class][reg + i] > position)
            return false;
    return true;
}

/* The register of a source that dies where the tuple is first written; -1: none. */
static i32 hinted(const struct scan *scan, u32 class, u32 position)
{
    const struct rinstr *instr = &scan->code->instr[position / 2];
    const u8 source[] = {2, 0, 1}; /* the addend of a multiply-add first */

    for (u32 k = 0; k < ARRAY_LEN(source); k++) {
        u16 code = instr->src[source[k]];
        if (code < RDNA_VIRTUAL || code == RDNA_NONE ||
            scan->code->class[code - RDNA_VIRTUAL] != class)
            continue;
        u16 first = scan->first[code - RDNA_VIRTUAL];
        u32 reg = scan->live[first].place + ((u32)code - RDNA_VIRTUAL - first);
        if (scan->live[first].start < position && is_free(scan, class, reg, 1, position))
            return (i32)reg;
    }
    return -1;
}

static bool place(struct scan *scan, u16 v)
{
    u32 class = scan->code->class[v], count = max_u32(scan->tuple[v], 1), limit;
    u32 step = class == LIR_VECTOR ? 1 : count > 2 ? 4 : count;
    struct live *live = &scan->live[v];
    i32 hint = count == 1 ? hinted(scan, class, live->start) : -1;
    u32 reg = hint < 0 ? 0 : (u32)hint;

    limit = register_count[class] - count;
    while (hint < 0 && reg <= limit && !is_free(scan, class, reg, count, live->start))
        reg += step;
    if (reg > limit) {
        scan->use->out[class] = true;
        return false;
    }
    live->place = (u16)reg;
    for (u32 i = 0; i < count; i++)
        scan->busy[class][reg + i] = live->end;
    scan->use->used[class] = max_u32(scan->use->used[class], reg + count);
    return true;
}

/* ---- the result ---- */

static u16 physical(const struct scan *scan, u16 code)
{
    if (code < RDNA_VIRTUAL || code == RDNA_NONE)
        return code;
    u32 v = (u32)code - RDNA_VIRTUAL, first = scan->first[v];
    u32 base = scan->code->class[v] == LIR_VECTOR ? RDNA_VGPR : 0;
    return (u16)(base + scan->live[first].place + (v - first));
}

err rdna_alloc(struct rcode *code, const u8 *tuple, struct arena *arena, struct rdna_use *use)
{
    struct scan *scan = arena_new(arena, struct scan, 1);

    *use = (struct rdna_use){};
    if (!scan)
        return E_NOMEM;
    scan->code = code;
    scan->tuple = tuple;
    scan->use = use;
    scan->live = arena_new(arena, struct live, code->vreg_count + 1);
    scan->first = arena_new(arena, u16, code->vreg_count + 1);
    scan->order = arena_new(arena, u16, code->vreg_count + 1);
    scan->loop_end = arena_new(arena, u32, code->count + 1);
    if (!scan->live || !scan->first || !scan->order || !scan->loop_end)
        return E_NOMEM;
    find_loops(scan);
    find_intervals(scan);
    for (u32 i = 0; i < scan->order_count; i++)
        if (!place(scan, scan->order[i]))
            return E_LIMIT;
    for (u32 i = 0; i < code->count; i++) {
        struct rinstr *instr = &code->instr[i];
        instr->dst = physical(scan, instr->dst);
        instr->sdst = physical(scan, instr->sdst);
        for (u32 k = 0; k < 3; k++)
            instr->src[k] = physical(scan, instr->src[k]);
    }
    return OK;
}
