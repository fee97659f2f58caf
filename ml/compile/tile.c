/*
 * tile.c: how a kernel's stages are cut into items. An item is a block of each leading axis that
 * all stages have in common, times one tile: the rest of a stage's axes is one flat row, and every
 * stage's row is cut into the same number of equal runs. Stages of other shapes share an item as
 * long as each reads, of what the kernel itself makes, only its own item's runs. Knows no machine.
 */
#include "ml/compile/priv.h"

#define ROWS_PER_ITEM 64u /* of a product: they share its weights */
#define TILES_MAX     (1u << 20)
#define RUNS_TRIED    1024u /* shortest and longest runs that are looked at */

bool stage_is_linear(const struct graph *g, const struct stage *stage)
{
    return stage->heavy != NO_NODE && g->node[stage->heavy].op == OP_LINEAR;
}

/* Leading axes that can not be part of a flat row: up to the last symbol, and all but the last axis
 * of a product. */
static u32 least_lead(const struct graph *g, const struct stage *stage)
{
    const struct node *space = stage_space(g, stage);
    u32 lead = 0;

    if (stage_is_linear(g, stage))
        return space->rank - 1u;
    for (u32 a = 0; a < space->rank; a++)
        if (dim_is_sym(space->shape[a]))
            lead = a + 1;
    return lead;
}

/* ---- one stage and a number of tiles ---- */

/* A run of each stage's row is this part of it. */
struct part {
    u64 run, of;
};

/* Cuts the row into runs: inner axes whole, one axis in blocks, single elements of those outside of
 * it. Only the outermost axis may end in a block that is not full. The last axis holds the vector
 * lanes: it is cut only where `least` elements and multiples of it are enough for them. */
static bool cut_row(const struct graph *g, struct stage *stage, u32 lead, struct part part,
                    u32 least)
{
    const struct node *space = stage_space(g, stage);
    u64 left, row = shape_bound(g, space->shape, lead, space->rank);

    if (row > UINT32_MAX || (!stage->again && row * part.run % part.of))
        return false;
    left = stage->row = stage->again ? row : row * part.run / part.of;
    for (u32 a = space->rank; a-- > lead;) {
        u32 extent = dim_bound(g, space->shape[a]);
        row /= extent;
        stage->block[a] = left >= extent ? 0 : (u32)left;
        bool ragged = left < extent && extent % left;
        if (left >= extent ? left % extent : ragged && (row > 1 || stage->kind == STAGE_QUANT))
            return false;
        left = left >= extent ? left / extent : 1;
    }
    u32 block = space->rank > lead ? stage->block[space->rank - 1] : 0;
    return block == 0 || (least && block % least == 0 && stage->kind != STAGE_UNPACK);
}

/* ---- what a stage reads of its own kernel ---- */

/* Elements from one element of axis d of a row to the next. */
static i64 row_stride(const struct graph *g, const struct node *n, u32 d)
{
    return (i64)shape_bound(g, n->shape, d + 1, n->rank);
}

/* The leading axes are indexed unchanged. */
static bool same_lead(const struct node *n, const struct leaf *leaf, u32 lead)
{
    for (u32 d = 0; d < lead; d++) {
        const struct affine *idx = &leaf->idx[d];
        bool same = !idx->constant && !idx->dynamic_axes;
        for (u32 a = 0; a < AXES_MAX; a++)
            same &= n->shape[d].v == 1 || idx->coef[a] == (a == d);
        if (!same)
            return false;
    }
    return true;
}

/* Elements of the reader's axis that one item goes through, behind those of the lead. */
static u64 inner_extent(const struct graph *g, const struct stage *reader, u32 lead, u32 axis)
{
    const struct node *space = stage_space(g, reader);

    if (axis < lead || (axis >= space->rank && axis < RANK_MAX))
        return 1;
    if (axis < RANK_MAX)
        return reader->block[axis] ? reader->block[axis] : dim_bound(g, space->shape[axis]);
    if (reader->heavy == NO_NODE)
        return 1;
    const struct node *src = &g->node[g->node[reader->heavy].src[0]];
    axis = stage_is_linear(g, reader) ? src->rank - 1u : axis - RANK_MAX;
    return axis >= src->rank ? 1 : dim_bound(g, src->shape[axis]);
}

/* Does the item find all it reads in the writer's run? The flat index must be the start of the run
 * plus less than its length, whatever tile it is: the tile's number is made of the reader's cut
 * axes as digits. */
static bool reads_own_run(const struct graph *g, const struct kernel *k, const struct stage *reader,
                          const struct leaf *leaf, const struct stage *writer)
{
    const struct node *n = &g->node[leaf->node], *space = stage_space(g, reader);
    i64 low = 0, high = 0, weight = 1;

    if (!same_lead(n, leaf, k->lead))
        return false;
    if (k->tiles == 1 || writer->again)
        return true;
    for (u32 d = k->lead; d < n->rank; d++) {
        if (leaf->idx[d].dynamic_axes)
            return false;
        low += leaf->idx[d].constant * row_stride(g, n, d);
    }
    high = low;
    for (u32 a = AXES_MAX; a-- > 0;) {
        i64 coef = 0, extent = (i64)inner_extent(g, reader, k->lead, a);
        bool cut = a >= k->lead && a < space->rank && reader->block[a];
        for (u32 d = k->lead; d < n->rank; d++)
            coef += n->shape[d].v == 1 ? 0 : leaf->idx[d].coef[a] * row_stride(g, n, d);
        if (a < k->lead && coef && space->shape[a].v != 1)
            return false;
        if (cut && coef * reader->block[a] != (i64)writer->row * weight)
            return false;
        weight *= cut ? (i64)div_up(dim_bound(g, space->shape[a]), reader->block[a]) : 1;
        *(coef < 0 ? &low : &high) += coef * (extent - 1);
    }
    return weight == (i64)k->tiles && low >= 0 && high < (i64)writer->row;
}

/* ---- all stages of a kernel ---- */

struct cut {
    const struct graph *graph;
    const struct schedule *schedule;
    struct stage *stage[KERNEL_STAGES_MAX];
    u32 count;
    struct kernel *kernel;
};

/* Which of the stages before `reader` makes the node; NULL: none. */
static const struct stage *writer_of(const struct cut *c, u32 reader, u32 node)
{
    for (u32 i = 0; i < reader; i++)
        if (c->stage[i]->node == node)
            return c->stage[i];
    return NULL;
}

static bool is_matrix(const struct cut *c, const struct stage *stage)
{
    return stage_is_linear(c->graph, stage) &&
           matrix_fits(c->graph, c->schedule->target, &c->graph->node[stage->heavy]);
}

/* A product shares its rows with nobody where rows stay whole or the matrix instruction makes it,
 * and reads what is finished. */
static bool may_share(const struct cut *c)
{
    u32 places = 0;

    for (u32 i = 0; i < c->count; i++) {
        const struct stage *stage = c->stage[i];
        bool linear = stage_is_linear(c->graph, stage);
        places += stage->leaf_count + 1; /* each may need an argument */
        bool alone = linear && (!c->schedule->target->tile || is_matrix(c, stage));
        if (c->count > 1 && (stage->kind == STAGE_PAD || alone))
            return false;
        for (u32 l = 0; l < stage->leaf_count; l++) {
            const struct stage *writer = writer_of(c, i, stage->leaf[l].node);
            if (writer && (writer->kind == STAGE_SCATTER || (linear && stage->leaf[l].in_heavy)))
                return false; /* rows of other items */
        }
    }
    return places <= KERNEL_ARGS_MAX - SYMS_MAX;
}

/* The lead that the stages need, when all have it. */
static bool find_lead(const struct cut *c)
{
    const struct node *first = stage_space(c->graph, c->stage[0]);
    u32 lead = 0;

    for (u32 i = 0; i < c->count; i++)
        lead = max_u32(lead, least_lead(c->graph, c->stage[i]));
    for (u32 i = 0; i < c->count; i++) {
        const struct node *space = stage_space(c->graph, c->stage[i]);
        if (space->rank < lead || !shape_same(space->shape, lead, first->shape, lead))
            return false;
    }
    c->kernel->lead = (u8)lead;
    return true;
}

static void cut_lead(const struct cut *c)
{
    bool linear = false;

    for (u32 i = 0; i < c->count; i++)
        linear |= stage_is_linear(c->graph, c->stage[i]);
    for (u32 i = 0; i < c->count; i++)
        for (u32 a = 0; a < c->kernel->lead; a++)
            c->stage[i]->block[a] = linear && a + 1u == c->kernel->lead ? ROWS_PER_ITEM : 1;
}

static bool cut_rows(const struct cut *c, struct part part)
{
    const struct target *target = c->schedule->target;
    u32 least = c->count == 1 ? target->lanes : target->tile;

    c->kernel->tiles = (u32)div_up(part.of, part.run);
    for (u32 i = 0; i < c->count; i++)
        if (!cut_row(c->graph, c->stage[i], c->kernel->lead, part, least))
            return false;
    for (u32 i = 0; i < c->count; i++)
        for (u32 l = 0; l < c->stage[i]->leaf_count; l++) {
            const struct leaf *leaf = &c->stage[i]->leaf[l];
            const struct stage *writer = writer_of(c, i, leaf->node);
            if (writer && !reads_own_run(c->graph, c->kernel, c->stage[i], leaf, writer))
                return false;
        }
    return true;
}

/* The shortest row of all, which is one element or more. */
static u64 shortest_row(const struct cut *c)
{
    u64 row = UINT64_MAX;

    for (u32 i = 0; i < c->count; i++) {
        const struct node *space = stage_space(c->graph, c->stage[i]);
        if (!c->stage[i]->again)
            row = min_u64(row, shape_bound(c->graph, space->shape, c->kernel->lead, space->rank));
    }
    return row;
}

/* A product by the matrix instruction is cut as that wants it. */
static void cut_matrix(const struct cut *c)
{
    struct stage *stage = c->stage[0];
    const struct node *linear = &c->graph->node[stage->heavy];
    u32 lead = c->kernel->lead = (u8)(linear->rank - 1);

    for (u32 a = 0; a < lead; a++)
        stage->block[a] = 1;
    stage->block[lead - 1] = matrix_tokens(c->graph, c->schedule->target, linear);
    c->kernel->tiles = (u32)div_up(dim_bound(c->graph, linear->shape[lead]), MATRIX_ROWS);
    stage->block[lead] = c->kernel->tiles > 1 ? MATRIX_ROWS : 0;
    stage->row = MATRIX_ROWS;
}

bool tile_kernel(const struct graph *graph, struct schedule *schedule, const u32 *list, u32 count,
                 struct kernel *kernel)
{
    struct cut c = {.graph = graph, .schedule = schedule, .count = count, .kernel = kernel};

    CHECK(count <= KERNEL_STAGES_MAX);
    for (u32 i = 0; i < count; i++)
        c.stage[i] = &schedule->stage[list[i]];
    if (!may_share(&c) || !find_lead(&c))
        return false;
    if (is_matrix(&c, c.stage[0])) {
        cut_matrix(&c);
        return true;
    }
    u64 row = shortest_row(&c);
    for (u64 i = 1; i <= 2 * RUNS_TRIED && row <= UINT32_MAX; i++) { /* the shortest that will do */
        u64 run = i <= RUNS_TRIED ? i : row / (2 * RUNS_TRIED + 1 - i);
        if (run && run <= row && row / run <= TILES_MAX && cut_rows(&c, (struct part){run, row})) {
            cut_lead(&c);
            return true;
        }
    }
    return false;
}
