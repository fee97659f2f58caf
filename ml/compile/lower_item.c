/*
 * lower_item.c: which part of each axis an item of the grid is: its number is taken apart into
 * blocks of the leading axes and a tile, the tile into the blocks of a stage's other axes (tile.c).
 * Emits scalars; knows nothing of what is computed.
 */
#include "ml/compile/emit.h"

/* The last digit of *rest in base n, which *rest loses; the outermost digit is all of it. */
static u16 take_digit(struct emit *e, u16 *rest, u16 n, bool outermost)
{
    u16 digit = *rest;

    if (outermost)
        return digit;
    digit = emit_s(e, LIR_S_MOD, *rest, n, 0);
    *rest = emit_s(e, LIR_S_DIV, *rest, n, 0);
    return digit;
}

void open_item(struct emit *e, u16 item)
{
    const struct kernel *k = e->kernel;
    const struct stage *first = &e->schedule->stage[k->stage_first];
    const struct node *space = stage_space(e->graph, first);
    u32 outermost = 0; /* axes before it are one block */

    while (outermost < k->lead &&
           dim_bound(e->graph, space->shape[outermost]) <= first->block[outermost])
        outermost++;
    e->item[k->lead] = LIR_NONE;
    if (k->tiles > 1)
        e->item[k->lead] = take_digit(e, &item, emit_s_const(e, k->tiles), k->lead == outermost);
    for (u32 a = 0; a < outermost; a++)
        e->item[a] = emit_s_const(e, 0);
    for (u32 a = k->lead; a-- > outermost;) {
        u16 n = emit_extent(e, space->shape[a]);
        if (first->block[a] > 1 && a > outermost)
            n = emit_s(e, LIR_S_DIV, emit_s_addi(e, n, first->block[a] - 1),
                       emit_s_const(e, first->block[a]), 0);
        e->item[a] = take_digit(e, &item, n, a == outermost);
    }
}

bool is_grid_fixed(const struct emit *e, u32 axis)
{
    return e->stage->block[axis] == 1;
}

void open_stage(struct emit *e)
{
    const struct stage *s = e->stage;
    const struct node *space = stage_space(e->graph, s);
    u16 rest = e->item[e->kernel->lead];
    u64 parts = e->kernel->tiles;

    for (u32 a = space->rank; a-- > 0;) {
        if (s->block[a] == 0)
            continue;
        u16 number = a < e->kernel->lead ? e->item[a] : LIR_NONE;
        if (number == LIR_NONE) {
            u32 n = (u32)div_up((u32)space->shape[a].v, s->block[a]);
            parts /= n;
            number = take_digit(e, &rest, emit_s_const(e, n), parts <= 1);
        }
        e->start[a] = emit_s_muli(e, number, s->block[a]);
    }
    for (u32 a = 0; a < space->rank; a++)
        if (s->block[a] == 1)
            axis_open(e, a, e->start[a]);
}

void close_stage(struct emit *e)
{
    for (u32 a = RANK_MAX; a-- > 0;)
        if (e->stage->block[a] == 1)
            axis_close(e, a);
}

bool length_usable(const struct emit *e)
{
    const struct node *len;

    if (e->stage->len_node == NO_NODE)
        return false;
    len = emit_node(e, e->stage->len_node);
    for (u32 d = 0; d < len->rank; d++)
        if (len->shape[d].v != 1 && !is_grid_fixed(e, d))
            return false;
    return true;
}

u32 axis_bound(const struct emit *e, u32 axis)
{
    u32 bound = dim_bound(e->graph, stage_space(e->graph, e->stage)->shape[axis]);

    return e->stage->block[axis] ? min_u32(bound, e->stage->block[axis]) : bound;
}

struct range axis_range(struct emit *e, u32 axis)
{
    dim d = stage_space(e->graph, e->stage)->shape[axis];
    struct range r = {.count = dim_is_sym(d) ? -1 : d.v};

    if (e->own && e->own[axis].count)
        return e->own[axis];
    if (is_grid_fixed(e, axis))
        return (struct range){.fixed = true, .count = 1};
    r.start = emit_s_const(e, 0);
    r.end = emit_extent(e, d);
    if (e->stage->block[axis] &&
        dim_bound(e->graph, d) > e->stage->block[axis]) { /* else one block is all */
        u32 block = e->stage->block[axis];
        bool whole = !dim_is_sym(d) && (u32)d.v % block == 0;
        u16 end = emit_s_addi(e, e->start[axis], block);
        r.start = e->start[axis];
        r.end = whole ? end : emit_s(e, LIR_S_MIN, end, r.end, 0);
        r.count = whole ? (i64)block : -1;
    }
    if (length_usable(e) && axis == e->stage->len_axis) {
        struct affine *idx = arena_new(e->arena, struct affine, RANK_MAX);
        const struct node *len = emit_node(e, e->stage->len_node);
        for (u32 i = 0; idx && i < RANK_MAX; i++)
            idx[i] = i < len->rank && len->shape[i].v != 1 ? affine_axis(i) : affine_zero();
        if (idx)
            r.end = emit_s(e, LIR_S_MIN, r.end, emit_scalar(e, e->stage->len_node, idx), 0);
        r.count = -1;
    }
    return r;
}
