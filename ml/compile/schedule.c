/*
 * schedule.c: from a plan to stages, and from stages to kernels: which stages share one, and how
 * its grid is cut into items. Knows no instruction set; the target only says how many rows a vector
 * holds and how many cores share a launch.
 */
#include "ml/compile/priv.h"

/* Operations per item up to which fusing may leave fewer items than cores; of a group: what it does
 * in the time that a launch costs. */
#define FUSED_WORK_MAX  65536u
#define FUSED_GROUP_MAX (1u << 20)
#define FUSED_ITEMS     8u     /* items that are enough for any number of cores */
#define ITEM_WORK       16384u /* operations that an item should have at least */
#define SHORT_WORK_MAX  1024u  /* operations that are rather done again than waited for */
#define NOTES_BYTES     MIB

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

static u64 stage_bytes(const struct graph *g, const struct node *node)
{
    if (node->op != OP_QUANT)
        return shape_bound(g, node->shape, 0, node->rank) * 4;
    u64 rows = shape_bound(g, node->shape, 0, node->rank - 1);
    return rows * quant_row(g, (u32)(node - g->node)).bytes;
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
        return dim_bound(g, src->shape[src->rank - 1]) / 4; /* of bytes, by fours */
    for (u32 i = 0; i < src->rank; i++)
        work *= heavy->reduce.axes >> i & 1 ? dim_bound(g, src->shape[i]) : 1;
    return work;
}

/* Grid of a kernel of one stage: leading axes whole while items stay large enough, then one axis
 * cut into blocks. */
static void single_grid(const struct graph *g, struct stage *stage, struct kernel *k)
{
    const struct node *space = stage_space(g, stage);
    u64 per_element = min_u64(work_per_element(g, stage), ITEM_WORK);
    u32 axis = 0, rank = stage->kind == STAGE_PAD ? 0 : space->rank;
    u32 whole = stage->kind == STAGE_MAP ? 0 : 1; /* rows, not parts of rows */

    memset(stage->block, 0, sizeof stage->block);
    k->tiles = 1;
    for (; axis < rank; axis++) {
        u64 inner = shape_bound(g, space->shape, axis + 1, rank) * per_element;
        bool symbolic = dim_is_sym(space->shape[axis]);
        stage->block[axis] = 1;
        if (inner >= ITEM_WORK || (symbolic && axis + 1 < rank) ||
            (whole && axis + 1 < rank && axis == 0))
            continue;
        u64 block = round_up(div_up(ITEM_WORK, max_u64(inner, 1)), axis + 1 == rank ? 64 : 8);
        stage->block[axis] = 0;
        if (whole || block >= dim_bound(g, space->shape[axis]))
            break;
        stage->block[axis] = (u32)block;
        axis++;
        break;
    }
    k->lead = (u8)axis;
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
                           .bytes = stage_bytes(g, node),
                           .len_node = length[n].state == 1 ? length[n].node : NO_NODE,
                           .len_axis = length[n].axis};
    }
    return OK;
}

/* ---- which stages share a kernel ---- */

/* A kernel while stages are still given to kernels. */
struct draft {
    u32 stage[KERNEL_STAGES_MAX]; /* in order of their nodes */
    u32 count;
    u32 level; /* length of the longest chain of drafts that it waits for */
    u64 items; /* in a run with one row; 0: one stage, not cut yet */
    bool gone; /* into another */
};

struct drafts {
    const struct graph *graph;
    struct schedule *schedule;
    struct draft *draft;
    u32 count;
    u32 *of; /* stage -> draft */
};

/* In order, once each; false when there is no more room. */
static bool draft_add(struct draft *d, u32 stage)
{
    u32 at = d->count;

    for (u32 i = 0; i < d->count; i++)
        if (d->stage[i] == stage)
            return true;
    if (d->count == KERNEL_STAGES_MAX)
        return false;
    for (; at > 0 && d->stage[at - 1] > stage; at--)
        d->stage[at] = d->stage[at - 1];
    d->stage[at] = stage;
    d->count++;
    return true;
}

/* Adds the stage and copies of the short ones that it reads, each in front of it. */
static bool draft_add_with_short(const struct schedule *s, struct draft *d, u32 stage)
{
    for (u32 l = 0; l < s->stage[stage].leaf_count; l++) {
        u32 writer = s->stage_of[s->stage[stage].leaf[l].node];
        if (writer != NO_NODE && s->stage[writer].again && !draft_add(d, writer))
            return false;
    }
    return draft_add(d, stage);
}

static u32 draft_of(const struct drafts *b, u32 node)
{
    u32 writer = b->schedule->stage_of[node];

    return writer == NO_NODE ? NO_NODE : b->of[writer];
}

/* One level above all drafts that its stages read from. */
static u32 highest_read(const struct drafts *b, const struct draft *d)
{
    const struct schedule *s = b->schedule;
    u32 above = 0;

    for (u32 i = 0; i < d->count; i++)
        for (u32 l = 0; l < s->stage[d->stage[i]].leaf_count; l++) {
            u32 from = draft_of(b, s->stage[d->stage[i]].leaf[l].node);
            if (from != NO_NODE)
                above = max_u32(above, b->draft[from].level + 1);
        }
    return above;
}

/* May these stages be one kernel as far as the cores care? Parts that would leave cores idle as
 * wholes stay parts. */
static bool worth(const struct drafts *b, struct draft *d, const struct kernel *k)
{
    const struct schedule *s = b->schedule;
    const struct node *space = stage_space(b->graph, &s->stage[d->stage[0]]);
    u64 items = k->tiles, work = 0, most = s->target->waves ? FUSED_GROUP_MAX : FUSED_WORK_MAX;

    for (u32 a = 0; a < k->lead; a++)
        items *= dim_is_sym(space->shape[a]) ? 1 : (u32)space->shape[a].v;
    for (u32 i = 0; i < d->count; i++)
        work += s->stage[d->stage[i]].row * work_per_element(b->graph, &s->stage[d->stage[i]]);
    bool fewer = 2 * items < d->items && s->target->waves && items < s->target->cores;
    d->items = items;
    return work <= (fewer ? most / 4 : most) ||
           (k->lead + k->tiles > 1 && items >= min_u32(s->target->cores, FUSED_ITEMS) && !fewer);
}

/* All drafts of the highest level that the stage reads from, and the stage, as one: then it waits
 * for nothing longer than they did. What it reads below that level can not wait for them. */
static bool join(struct drafts *b, const struct draft *own)
{
    struct schedule *s = b->schedule;
    struct draft all = *own;
    struct kernel k;

    all.level--;
    for (u32 i = 0; i < own->count; i++)
        for (u32 l = 0; l < s->stage[own->stage[i]].leaf_count; l++) {
            u32 from = draft_of(b, s->stage[own->stage[i]].leaf[l].node);
            if (from == NO_NODE || b->draft[from].level != all.level)
                continue;
            all.items = max_u64(all.items, b->draft[from].items);
            for (u32 j = 0; j < b->draft[from].count; j++)
                if (!draft_add(&all, b->draft[from].stage[j]))
                    return false;
        }
    if (!tile_kernel(b->graph, s, all.stage, all.count, &k) || !worth(b, &all, &k))
        return false;
    for (u32 i = 0; i < all.count; i++) {
        u32 *of = &b->of[all.stage[i]];
        if (*of != NO_NODE)
            b->draft[*of].gone = true;
        *of = s->stage[all.stage[i]].again ? NO_NODE : b->count;
    }
    b->draft[b->count++] = all;
    return true;
}

static void make_drafts(struct drafts *b)
{
    struct schedule *s = b->schedule;

    for (u32 i = 0; i < s->stage_count; i++)
        b->of[i] = NO_NODE;
    for (u32 i = 0; i < s->stage_count; i++) {
        struct draft own = {};
        if (s->stage[i].again)
            continue;
        CHECK(draft_add_with_short(s, &own, i));
        own.level = highest_read(b, &own);
        if (own.level && join(b, &own))
            continue;
        b->of[i] = b->count;
        b->draft[b->count++] = own;
    }
}

/* A result of one element per row that costs little is computed by every item that needs it, when
 * all who read it can: none of them waits for it then. */
static void find_short(struct drafts *b)
{
    const struct graph *g = b->graph;
    struct schedule *s = b->schedule;
    struct kernel k;

    for (u32 i = 0; i < s->stage_count && s->target->tile; i++) {
        struct stage *stage = &s->stage[i];
        const struct node *n = &g->node[stage->node];
        stage->again = stage->kind == STAGE_MAP && !stage->output && stage->heavy != NO_NODE &&
                       n->rank > 0 && shape_bound(g, n->shape, 1, n->rank) == 1 &&
                       !stage_is_linear(g, stage) && work_per_element(g, stage) <= SHORT_WORK_MAX;
        for (u32 l = 0; l < stage->leaf_count; l++) {
            u32 writer = s->stage_of[stage->leaf[l].node];
            stage->again &= writer == NO_NODE || !s->stage[writer].again;
        }
    }
    for (u32 i = 0; i < s->stage_count && s->target->tile; i++)
        for (u32 l = 0; l < s->stage[i].leaf_count; l++) {
            u32 writer = s->stage_of[s->stage[i].leaf[l].node];
            if (writer != NO_NODE && s->stage[writer].again)
                s->stage[writer].again =
                    tile_kernel(g, s, (u32[]){writer, i}, 2, &k) && s->stage[writer].row == 1;
        }
}

/* ---- from drafts to kernels ---- */

void schedule_open(struct schedule *s, const struct kernel *k)
{
    for (u32 i = 0; i < k->stage_count; i++)
        s->stage_of[s->stage[k->stage_first + i].node] = k->stage_first + i;
}

/* Kernels in order of their level: what does not wait for each other runs side by side. Each gets
 * stages of its own. */
static err make_kernels(struct drafts *b, struct arena *arena)
{
    struct schedule *s = b->schedule;
    u32 deepest = 0, stages = 0;

    for (u32 i = 0; i < b->count; i++) {
        deepest = max_u32(deepest, b->draft[i].level);
        stages += b->draft[i].gone ? 0 : b->draft[i].count;
    }
    struct stage *stage = arena_new(arena, struct stage, stages + 1);
    s->kernel = arena_new(arena, struct kernel, b->count + 1);
    if (!stage || !s->kernel)
        return E_NOMEM;
    stages = 0;
    for (u32 level = 0; level <= deepest; level++)
        for (u32 i = 0; i < b->count; i++) {
            const struct draft *d = &b->draft[i];
            if (d->gone || d->level != level)
                continue;
            struct kernel *k = &s->kernel[s->kernel_count++];
            *k = (struct kernel){.stage_first = stages, .stage_count = d->count, .level = level};
            for (u32 j = 0; j < d->count; j++)
                stage[stages++] = s->stage[d->stage[j]];
        }
    s->stage = stage;
    s->stage_count = stages;
    return OK;
}

static void make_grid(const struct graph *g, struct schedule *s, struct kernel *k)
{
    u32 list[KERNEL_STAGES_MAX];

    for (u32 i = 0; i < k->stage_count; i++) {
        list[i] = k->stage_first + i;
        s->stage[list[i]].kernel = (u32)(k - s->kernel);
    }
    if (k->stage_count == 1 && !stage_is_linear(g, &s->stage[k->stage_first]))
        single_grid(g, &s->stage[k->stage_first], k);
    else
        CHECK(tile_kernel(g, s, list, k->stage_count, k));
}

/* Results read outside of their kernel. */
static void read_across(struct schedule *s, bool *outside)
{
    for (u32 i = 0; i < s->kernel_count; i++) {
        const struct kernel *k = &s->kernel[i];
        schedule_open(s, k);
        for (u32 j = k->stage_first; j < k->stage_first + k->stage_count; j++)
            for (u32 l = 0; l < s->stage[j].leaf_count; l++) {
                u32 writer = s->stage_of[s->stage[j].leaf[l].node];
                if (writer != NO_NODE)
                    outside[writer] |= s->stage[writer].kernel != i;
            }
    }
}

/* What nobody else reads stays with the item as far as there is room. */
static void make_local(const struct graph *g, struct schedule *s, struct kernel *k,
                       const bool *outside)
{
    for (u32 i = k->stage_first; i < k->stage_first + k->stage_count; i++) {
        struct stage *stage = &s->stage[i];
        u64 bytes = 4 * stage->row;
        for (u32 a = 0; a < k->lead; a++)
            bytes *= min_u32(stage->block[a], dim_bound(g, g->node[stage->node].shape[a]));
        if (k->stage_count == 1 || stage->output || stage->kind == STAGE_SCATTER ||
            stage->kind == STAGE_QUANT || outside[i] ||
            k->scratch_bytes + bytes > s->target->scratch_bytes)
            continue;
        stage->local = true;
        stage->place = k->scratch_bytes;
        k->scratch_bytes += (u32)round_up(bytes, 64);
    }
}

static err share_kernels(const struct graph *g, struct schedule *s, struct arena *arena)
{
    struct drafts b = {.graph = g,
                       .schedule = s,
                       .draft = arena_new(arena, struct draft, s->stage_count + 1),
                       .of = arena_new(arena, u32, s->stage_count + 1)};

    if (!b.draft || !b.of)
        return E_NOMEM;
    find_short(&b);
    make_drafts(&b);
    TRY(make_kernels(&b, arena));
    bool *outside = arena_new(arena, bool, s->stage_count + 1);
    if (!outside)
        return E_NOMEM;
    for (u32 i = 0; i < s->kernel_count; i++)
        make_grid(g, s, &s->kernel[i]);
    read_across(s, outside);
    for (u32 i = 0; i < s->kernel_count; i++)
        make_local(g, s, &s->kernel[i], outside);
    return OK;
}

err schedule_build(const struct graph *graph, const struct target *target, struct arena *arena,
                   struct schedule *out)
{
    struct plan plan;

    *out =
        (struct schedule){.target = target, .stage_of = arena_new(arena, u32, graph->node_count)};
    if (!out->stage_of)
        return E_NOMEM;
    TRY(plan_build(&plan, graph, arena));
    u32 count = 0;
    for (u32 n = 0; n < graph->node_count; n++)
        count += plan.live[n] && plan.real[n];
    out->live = plan.live;
    out->stage = arena_new(arena, struct stage, count + 1);
    out->buffer = arena_new(arena, struct program_buffer, count + 1);
    if (!out->stage || !out->buffer)
        return E_NOMEM;
    TRY(make_stages(&plan, out));
    void *notes = arena_take(arena, NOTES_BYTES, 64);
    struct arena scratch = arena_on("schedule", notes, notes ? NOTES_BYTES : 0);
    for (u32 i = 0; i < out->stage_count; i++)
        TRY(stage_leaves(graph, out, &out->stage[i], arena, &scratch));
    TRY(share_kernels(graph, out, arena));
    return schedule_place(graph, arena, out);
}
