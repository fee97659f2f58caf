/*
 * schedule.c: from a plan to stages, and from stages to kernels: which stages share one, and how
 * its grid is cut into items. Knows no instruction set; the target only says how many rows a vector
 * holds and how many cores share a launch.
 */
#include "ml/compile/priv.h"

#define FUSED_WORK_MAX                                                                             \
    65536u             /* operations per item up to which fusing may leave fewer items than cores */
#define FUSED_ITEMS 8u /* items that are enough for any number of cores */
#define ITEM_WORK   16384u /* operations that an item should have at least */
#define NOTES_BYTES MIB
#define LINEAR_ROWS 64u /* activation rows per item of a linear product */

static enum stage_kind kind_of(const struct graph *g, const struct node *node)
{
    switch (node->op) {
    case OP_QUANT:
        return STAGE_QUANT;
    case OP_SCATTER:
        return STAGE_SCATTER;
    case OP_PAD:
        return STAGE_PAD;
    case OP_GATHER:
        return g->node[node->src[0]].op == OP_WEIGHT ? STAGE_UNPACK : STAGE_MAP;
    default:
        return STAGE_MAP;
    }
}

static bool is_output(const struct graph *g, u32 node)
{
    for (u32 i = 0; i < g->output_count; i++)
        if (g->output[i] == node)
            return true;
    return false;
}

static u64 stage_bytes(const struct graph *g, const struct node *node, u32 from)
{
    if (node->op != OP_QUANT)
        return shape_bound(g, node->shape, from, node->rank) * 4;
    u32 columns = dim_bound(g, node->shape[node->rank - 1]);
    return shape_bound(g, node->shape, from, node->rank - 1) *
           quant_row(columns, node->quant.block).bytes;
}

/* How many leading axes of the stage the leaf is indexed by unchanged. */
static u32 shared_prefix(const struct graph *g, const struct node *space, const struct leaf *leaf)
{
    const struct node *n = &g->node[leaf->node];
    u32 prefix = 0;

    for (; prefix < n->rank && prefix < space->rank; prefix++) {
        const struct affine *idx = &leaf->idx[prefix];
        if (!dim_same(n->shape[prefix], space->shape[prefix]) || idx->constant || idx->dynamic_axes)
            break;
        bool plain = true;
        for (u32 a = 0; a < AXES_MAX; a++)
            plain &= idx->coef[a] == (a == prefix && n->shape[prefix].v != 1) ||
                     (n->shape[prefix].v == 1 && idx->coef[a] == (a == prefix));
        if (!plain)
            break;
    }
    return prefix;
}

/* Elements that the reduction of a stage reads per result; 4 stands for the cost of a plain
 * element. */
static u64 work_per_element(const struct graph *g, const struct stage *stage)
{
    u64 work = 1;

    if (stage->heavy == NO_NODE)
        return 4;
    const struct node *heavy = &g->node[stage->heavy], *src = &g->node[heavy->src[0]];
    if (heavy->op == OP_LINEAR)
        return dim_bound(g, src->shape[src->rank - 1]);
    for (u32 i = 0; i < src->rank; i++)
        work *= heavy->reduce.axes >> i & 1 ? dim_bound(g, src->shape[i]) : 1;
    return work;
}

/* Operations of a stage per item of a grid over its leading axes. */
static u64 stage_work(const struct graph *g, const struct stage *stage, u32 grid)
{
    const struct node *space = stage_space(g, stage);
    return shape_bound(g, space->shape, grid, space->rank) * work_per_element(g, stage);
}

/* May the stage join the last kernel? Returns the number of grid axes they would share, 0 for no.
 */
static u32 joins(const struct graph *g, const struct schedule *s, const struct stage *stage,
                 u32 cores)
{
    const struct kernel *k = &s->kernel[s->kernel_count - 1];
    const struct node *space = stage_space(g, stage);
    const struct node *first = stage_space(g, &s->stage[k->stage_first]);
    bool reads = false;
    u32 grid = min_u32(k->grid_rank, space->rank);

    u32 places = stage->leaf_count + 1; /* each may need an argument */
    for (u32 i = 0; i < k->stage_count; i++)
        places += s->stage[k->stage_first + i].leaf_count + 1;
    if (k->stage_count == KERNEL_STAGES_MAX || places > KERNEL_ARGS_MAX - SYMS_MAX ||
        stage->kind == STAGE_PAD)
        return 0;
    if (stage->heavy != NO_NODE && g->node[stage->heavy].op == OP_LINEAR)
        return 0;
    for (u32 i = 0; i < stage->leaf_count; i++) {
        u32 writer = s->stage_of[stage->leaf[i].node];
        if (writer == NO_NODE || writer < k->stage_first)
            continue;
        if (s->stage[writer].kind == STAGE_SCATTER)
            return 0; /* it writes rows of other items */
        reads = true;
        grid = min_u32(grid, shared_prefix(g, space, &stage->leaf[i]));
    }
    for (u32 i = 0; i < grid; i++)
        if (!dim_same(space->shape[i], first->shape[i]))
            grid = i;
    /* The last axis holds the vector lanes; a grid over it would leave single elements. */
    grid = min_u32(grid, space->rank ? space->rank - 1 : 0);
    if (!reads || grid == 0)
        return 0;
    u64 items = 1, work = stage_work(g, stage, grid);
    for (u32 i = 0; i < grid; i++)
        items *= dim_is_sym(space->shape[i]) ? 1 : (u32)space->shape[i].v;
    for (u32 i = k->stage_first; i < k->stage_first + k->stage_count; i++)
        work += stage_work(g, &s->stage[i], grid);
    return items >= min_u32(cores, FUSED_ITEMS) || work <= FUSED_WORK_MAX ? grid : 0;
}

/* Grid of a kernel of one stage: leading axes whole while items stay large enough, then one axis
 * cut into blocks. */
static void single_grid(const struct graph *g, const struct stage *stage, struct kernel *k,
                        const struct target *target)
{
    const struct node *space = stage_space(g, stage);
    u64 per_element;

    if (stage->heavy != NO_NODE && g->node[stage->heavy].op == OP_LINEAR) {
        k->grid_rank = space->rank;
        for (u32 i = 0; i < space->rank; i++)
            k->divisor[i] = i + 1 == space->rank   ? target->lanes
                            : i + 2 == space->rank ? LINEAR_ROWS
                                                   : 1;
        return;
    }
    per_element = min_u64(work_per_element(g, stage), ITEM_WORK);
    u32 axis = 0, rank = stage->kind == STAGE_PAD ? 0 : space->rank;
    u32 whole = stage->kind == STAGE_MAP ? 0 : 1; /* rows, not parts of rows */
    for (; axis < rank; axis++) {
        u64 inner = shape_bound(g, space->shape, axis + 1, rank) * per_element;
        bool symbolic = dim_is_sym(space->shape[axis]);
        k->divisor[axis] = 1;
        if (inner >= ITEM_WORK || (symbolic && axis + 1 < rank) ||
            (whole && axis + 1 < rank && axis == 0))
            continue;
        u64 block = round_up(div_up(ITEM_WORK, max_u64(inner, 1)), axis + 1 == rank ? 64 : 8);
        if (whole || block >= dim_bound(g, space->shape[axis]))
            break;
        k->divisor[axis] = (u32)block;
        axis++;
        break;
    }
    k->grid_rank = (u8)axis;
}

static void make_local(const struct graph *g, struct schedule *s, struct kernel *k,
                       const bool *read_outside)
{
    for (u32 i = k->stage_first; i < k->stage_first + k->stage_count; i++) {
        struct stage *stage = &s->stage[i];
        u64 bytes = round_up(stage_bytes(g, &g->node[stage->node], k->grid_rank), 64);
        if (k->stage_count == 1 || stage->output || stage->kind == STAGE_SCATTER ||
            read_outside[i] || bytes > LOCAL_BYTES_MAX ||
            k->scratch_bytes + bytes > 4 * LOCAL_BYTES_MAX)
            continue;
        stage->local = true;
        stage->place = k->scratch_bytes;
        k->scratch_bytes += (u32)bytes;
    }
}

static err make_stages(const struct plan *p, struct schedule *s)
{
    const struct length *length = p->length;
    const struct graph *g = p->graph;

    for (u32 n = 0; n < g->node_count; n++) {
        s->stage_of[n] = NO_NODE;
        if (!p->live[n] || !p->real[n])
            continue;
        const struct node *node = &g->node[n];
        s->stage_of[n] = s->stage_count;
        s->stage[s->stage_count++] =
            (struct stage){.node = n,
                           .kind = kind_of(g, node),
                           .heavy = p->heavy[n],
                           .output = is_output(g, n),
                           .bytes = stage_bytes(g, node, 0),
                           .len_node = length[n].state == 1 ? length[n].node : NO_NODE,
                           .len_axis = length[n].axis};
    }
    return OK;
}

/* Who reads what between kernels: results read outside their kernel, and each kernel's level in the
 * order of need. */
static void read_across(struct schedule *s, bool *read_outside)
{
    for (u32 i = 0; i < s->stage_count; i++) {
        struct kernel *k = &s->kernel[s->stage[i].kernel];
        for (u32 l = 0; l < s->stage[i].leaf_count; l++) {
            u32 writer = s->stage_of[s->stage[i].leaf[l].node];
            if (writer == NO_NODE || s->stage[writer].kernel == s->stage[i].kernel)
                continue;
            read_outside[writer] = true;
            k->level = max_u32(k->level, s->kernel[s->stage[writer].kernel].level + 1);
        }
    }
}

/* Kernels in order of their level: what does not wait for each other runs side by side. */
static err order_kernels(struct schedule *s, struct arena *arena)
{
    usize mark = arena_mark(arena);
    u32 *first = arena_new(arena, u32, s->kernel_count + 2);
    struct kernel *sorted = arena_new(arena, struct kernel, s->kernel_count + 1);

    if (!first || !sorted)
        return E_NOMEM;
    for (u32 i = 0; i < s->kernel_count; i++)
        first[s->kernel[i].level + 1]++;
    for (u32 i = 0; i < s->kernel_count; i++)
        first[i + 1] += first[i];
    for (u32 i = 0; i < s->kernel_count; i++)
        sorted[first[s->kernel[i].level]++] = s->kernel[i];
    memcpy(s->kernel, sorted, s->kernel_count * sizeof *sorted);
    for (u32 i = 0; i < s->kernel_count; i++)
        for (u32 j = 0; j < s->kernel[i].stage_count; j++)
            s->stage[s->kernel[i].stage_first + j].kernel = i;
    arena_reset(arena, mark);
    return OK;
}

static err make_kernels(const struct graph *g, const struct target *target, struct schedule *s,
                        struct arena *arena)
{
    bool *read_outside = arena_new(arena, bool, s->stage_count + 1);

    if (!read_outside)
        return E_NOMEM;
    for (u32 i = 0; i < s->stage_count; i++) {
        struct kernel *last = s->kernel_count ? &s->kernel[s->kernel_count - 1] : NULL;
        u32 grid = last ? joins(g, s, &s->stage[i], target->cores) : 0;
        if (grid) {
            last->stage_count++;
            last->grid_rank = (u8)grid;
            for (u32 a = 0; a < grid; a++)
                last->divisor[a] = 1;
        } else {
            struct kernel *k = &s->kernel[s->kernel_count++];
            const struct node *space = stage_space(g, &s->stage[i]);
            *k = (struct kernel){.stage_first = i, .stage_count = 1, .grid_rank = space->rank};
            if (s->stage[i].kind == STAGE_PAD ||
                (s->stage[i].heavy != NO_NODE && g->node[s->stage[i].heavy].op == OP_LINEAR))
                k->grid_rank = 0; /* nothing joins it */
        }
        s->stage[i].kernel = s->kernel_count - 1;
    }
    read_across(s, read_outside);
    for (u32 i = 0; i < s->kernel_count; i++) {
        struct kernel *k = &s->kernel[i];
        if (k->stage_count == 1)
            single_grid(g, &s->stage[k->stage_first], k, target);
        make_local(g, s, k, read_outside);
    }
    return order_kernels(s, arena);
}

err schedule_build(const struct graph *graph, const struct target *target, struct arena *arena,
                   struct schedule *out)
{
    struct plan plan;

    *out = (struct schedule){.stage_of = arena_new(arena, u32, graph->node_count)};
    if (!out->stage_of)
        return E_NOMEM;
    TRY(plan_build(&plan, graph, arena));
    u32 count = 0;
    for (u32 n = 0; n < graph->node_count; n++)
        count += plan.live[n] && plan.real[n];
    out->live = plan.live;
    out->stage = arena_new(arena, struct stage, count + 1);
    out->kernel = arena_new(arena, struct kernel, count + 1);
    out->buffer = arena_new(arena, struct program_buffer, count + 1);
    if (!out->stage || !out->kernel || !out->buffer)
        return E_NOMEM;
    TRY(make_stages(&plan, out));
    void *notes = arena_take(arena, NOTES_BYTES, 64);
    struct arena scratch = arena_on("schedule", notes, notes ? NOTES_BYTES : 0);
    for (u32 i = 0; i < out->stage_count; i++)
        TRY(stage_leaves(graph, out, &out->stage[i], arena, &scratch));
    TRY(make_kernels(graph, target, out, arena));
    return schedule_place(graph, arena, out);
}
