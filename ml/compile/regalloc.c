/*
 * regalloc.c: gives virtual registers a physical one or a place in the frame. Linear scan over live
 * intervals (Poletto and Sarkar, 1999), extended for loops, with hints that let a destination take
 * over the register of a source that dies there, and with the spill choice by use counts weighted
 * by loop depth. Knows no machine: rows are opaque.
 *
 * An instruction i reads at position 2i and writes at 2i + 1, so a source that dies in it may share
 * with the destination.
 */
#include "ml/compile/machine.h"

#define NEVER             UINT32_MAX
#define DEPTH_SHIFT       3u /* a loop is taken to run 8 times */
#define DEPTH_COUNTED_MAX 6u
#define SPAN_TOO_SHORT    4u /* temporaries between neighbours: spilling them gains nothing */

struct interval {
    u32 start, end; /* positions; start NEVER: not used */
    u32 weight;     /* uses, each by its loop depth */
};

struct scan {
    const struct mcode *code;
    const struct reg_file *file;
    struct allocation *out;
    struct interval *interval;
    u32 *loop_end; /* by index of a loop's first marker */
    u16 *order;    /* virtual registers by first position */
    u32 order_count;
    u32 open[LIR_LOOP_DEPTH_MAX], depth;
    u16 holder[2][32]; /* by class and register: who has it, LIR_NONE */
    bool spilled[2];
};

/* ---- live intervals ---- */

static void find_loop_ends(struct scan *scan)
{
    u32 open[LIR_LOOP_DEPTH_MAX], depth = 0;

    for (u32 i = 0; i < scan->code->count; i++) {
        if (scan->code->instr[i].row == MACHINE_LOOP) {
            CHECK(depth < LIR_LOOP_DEPTH_MAX);
            open[depth++] = i;
        } else if (scan->code->instr[i].row == MACHINE_ENDLOOP) {
            CHECK(depth > 0);
            scan->loop_end[open[--depth]] = i;
        }
    }
    CHECK(depth == 0);
}

/* A register that was written before a loop and is touched in it lives to the loop's end: the next
 * trip may read it. */
static void touch(struct scan *scan, u16 vreg, u32 position)
{
    if (vreg >= MACHINE_VREGS_MAX)
        return;
    struct interval *live = &scan->interval[vreg];

    if (live->start == NEVER) {
        live->start = position;
        scan->order[scan->order_count++] = vreg;
    }
    for (u32 i = 0; i < scan->depth; i++) {
        if (2 * scan->open[i] > live->start) {
            position = 2 * scan->loop_end[scan->open[i]];
            break;
        }
    }
    live->end = (u32)max_u64(live->end, position);
    live->weight += 1u << DEPTH_SHIFT * min_u32(scan->depth, DEPTH_COUNTED_MAX);
}

static void touch_instr(struct scan *scan, const struct minstr *instr, u32 i)
{
    u32 apart = instr->flags & MI_APART ? 2 : 0;

    for (u32 k = 1; k < ARRAY_LEN(instr->op); k++)
        touch(scan, instr->op[k], 2 * i + (k == instr->tied ? 0 : apart));
    if (instr->flags & MI_MEMORY) {
        touch(scan, instr->mem.base, 2 * i);
        touch(scan, instr->mem.index, 2 * i + (instr->flags & MI_INDEX_VECTOR ? apart : 0));
    }
    touch(scan, instr->op[0], 2 * i + 1);
}

static void find_intervals(struct scan *scan)
{
    for (u32 v = 0; v < scan->code->vreg_count; v++)
        scan->interval[v].start = NEVER;
    for (u32 i = 0; i < scan->code->count; i++) {
        const struct minstr *instr = &scan->code->instr[i];
        if (instr->row == MACHINE_LOOP)
            scan->open[scan->depth++] = i;
        else if (instr->row == MACHINE_ENDLOOP)
            scan->depth--;
        else
            touch_instr(scan, instr, i);
    }
}

/* ---- the scan ---- */

static bool is_free(const struct scan *scan, u32 class, u32 reg, u32 position)
{
    u16 holder = scan->holder[class][reg];

    return holder == LIR_NONE || scan->interval[holder].end <= position;
}

/* The register of a source of the instruction that first writes vreg, when it is free from there
 * on; -1: none. */
static i32 hinted(const struct scan *scan, u16 vreg, u32 class, u32 usable)
{
    const struct interval *live = &scan->interval[vreg];
    const struct minstr *instr = &scan->code->instr[live->start / 2];
    const u8 source[] = {3, 1, 2}; /* the addend of a multiply-add, else the first source */

    for (u32 i = 0; i < ARRAY_LEN(source); i++) {
        u16 from = instr->op[source[i]];
        i32 reg = -1;
        if (from == LIR_NONE)
            continue;
        if (from >= MACHINE_FIXED)
            reg = from - (i32)MACHINE_FIXED;
        else if (scan->code->class[from] == class && scan->out->place[from].kind == PLACE_REG)
            reg = scan->out->place[from].reg;
        if (reg >= 0 && usable >> reg & 1 && is_free(scan, class, (u32)reg, live->start))
            return reg;
    }
    return -1;
}

/* What it costs to keep vreg in memory, per position that its register would be free for others. */
static u64 spill_cost(const struct scan *scan, u16 vreg)
{
    const struct interval *live = &scan->interval[vreg];
    u32 span = live->end - live->start;

    return span <= SPAN_TOO_SHORT ? UINT64_MAX : ((u64)live->weight << 16) / span;
}

static void spill(struct scan *scan, u16 vreg)
{
    scan->spilled[scan->code->class[vreg]] = true;
    scan->out->place[vreg].kind = PLACE_SLOT;
}

static void take(struct scan *scan, u16 vreg, u32 class, u32 reg)
{
    scan->holder[class][reg] = vreg;
    scan->out->place[vreg] = (struct place){.kind = PLACE_REG, .reg = (u8)reg};
    scan->out->used[class] |= 1u << reg;
}

static void place_one(struct scan *scan, u16 vreg, u32 class, u32 count)
{
    const u8 *order = scan->file[class].order;
    u32 usable = 0;
    u16 cheapest = vreg;

    for (u32 i = 0; i < count; i++)
        usable |= 1u << order[i];
    i32 hint = hinted(scan, vreg, class, usable);
    if (hint >= 0) {
        take(scan, vreg, class, (u32)hint);
        return;
    }
    for (u32 i = 0; i < count; i++) {
        if (is_free(scan, class, order[i], scan->interval[vreg].start)) {
            take(scan, vreg, class, order[i]);
            return;
        }
        u16 holder = scan->holder[class][order[i]];
        if (spill_cost(scan, holder) < spill_cost(scan, cheapest))
            cheapest = holder;
    }
    u32 freed = scan->out->place[cheapest].reg;
    spill(scan, cheapest);
    if (cheapest != vreg)
        take(scan, vreg, class, freed);
}

static void scan_class(struct scan *scan, u32 class, u32 count)
{
    memset(scan->holder[class], 0xff, sizeof(scan->holder[class]));
    scan->out->used[class] = 0;
    scan->spilled[class] = false;
    for (u32 i = 0; i < scan->order_count; i++)
        if (scan->code->class[scan->order[i]] == class)
            place_one(scan, scan->order[i], class, count);
}

/* ---- the frame: spilled registers whose intervals do not meet share a slot ---- */

static err place_slots(struct scan *scan, u32 class, struct arena *arena)
{
    u32 bytes = scan->file[class].slot_bytes, slots = 0;
    u32 *busy_until = arena_new(arena, u32, scan->order_count + 1);

    if (!busy_until)
        return E_NOMEM;
    for (u32 i = 0; i < scan->order_count; i++) {
        u16 vreg = scan->order[i];
        u32 slot = 0;
        if (scan->code->class[vreg] != class || scan->out->place[vreg].kind != PLACE_SLOT)
            continue;
        while (slot < slots && busy_until[slot] > scan->interval[vreg].start)
            slot++;
        slots = (u32)max_u64(slots, slot + 1);
        busy_until[slot] = scan->interval[vreg].end + 1;
        scan->out->place[vreg].offset = scan->out->frame_bytes + slot * bytes;
    }
    scan->out->frame_bytes += slots * bytes;
    return OK;
}

err regalloc(const struct mcode *code, const struct reg_file file[2], struct arena *arena,
             struct allocation *out)
{
    struct scan scan = {.code = code, .file = file, .out = out};

    *out = (struct allocation){.place = arena_new(arena, struct place, code->vreg_count)};
    scan.interval = arena_new(arena, struct interval, code->vreg_count);
    scan.loop_end = arena_new(arena, u32, code->count + 1);
    scan.order = arena_new(arena, u16, code->vreg_count + 1);
    if (!out->place || !scan.interval || !scan.loop_end || !scan.order)
        return E_NOMEM;
    find_loop_ends(&scan);
    find_intervals(&scan);
    for (u32 i = 0; i < 2; i++) {
        u32 class = i ? LIR_SCALAR : LIR_VECTOR; /* vectors first: their slots want alignment */
        scan_class(&scan, class, file[class].count);
        if (scan.spilled[class] && file[class].scratch)
            scan_class(&scan, class, (u32)(file[class].count - file[class].scratch));
        TRY(place_slots(&scan, class, arena));
    }
    out->frame_bytes = (u32)round_up(out->frame_bytes, file[LIR_VECTOR].slot_bytes);
    return OK;
}
