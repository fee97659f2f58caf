/*
 * index.c: index arithmetic of the compiler: how a move changes an index, what memory a stage reads
 * and with which strides. Knows graphs and schedules; emits nothing.
 */
#include "ml/compile/priv.h"

#define UNIT_BLOCKS_MAX 8u
#define FLOAT_UNIT      32u /* columns */

bool op_is_move(enum op op)
{
    return op_row[op].class == CLASS_MOVE;
}
bool op_is_element(enum op op)
{
    return op_row[op].class == CLASS_ELEMENT;
}
bool op_is_reduce(enum op op)
{
    return op_row[op].class == CLASS_REDUCE;
}
u32 op_cost(enum op op)
{
    return op_row[op].cost;
}

/* Sources that are memory; SCALAR and IOTA are computed. */
bool op_is_source(enum op op)
{
    return op == OP_INPUT || op == OP_CONST || op == OP_STATE || op == OP_WEIGHT;
}

u32 expanded_from(const struct graph *g, u32 n)
{
    while (g->node[n].op == OP_EXPAND)
        n = g->node[n].src[0];
    return n;
}

u32 dim_bound(const struct graph *graph, dim d)
{
    return dim_is_sym(d) ? graph->sym[dim_sym_idx(d)].bound : (u32)d.v;
}

u64 shape_bound(const struct graph *graph, const dim *shape, u32 from, u32 rank)
{
    u64 product = 1;
    for (u32 i = from; i < rank; i++)
        product *= dim_bound(graph, shape[i]);
    return product;
}

static u32 quant_forms(const struct graph *graph, u32 node)
{
    u32 forms = 0;

    for (u32 n = node + 1; n < graph->node_count; n++) {
        const struct node *reader = &graph->node[n];
        if (reader->op != OP_LINEAR || reader->src[0] != node)
            continue;
        const struct node *weight = &graph->node[reader->src[1]];
        forms |= quant_form(&graph->external[weight->source.external].packing);
    }
    return forms ? forms : QUANT_BYTES;
}

struct quant_row quant_row(const struct graph *graph, u32 node)
{
    const struct node *quant = &graph->node[node];
    u32 columns = dim_bound(graph, quant->shape[quant->rank - 1]);
    u32 blocks = columns / quant->quant.block, plane = (u32)round_up(columns, 64);
    struct quant_row row = {.columns = columns,
                            .block = quant->quant.block,
                            .plane = plane,
                            .forms = quant_forms(graph, node)};

    row.half_at = row.forms & QUANT_BYTES ? 2 * plane : 0;
    row.scale_at = row.half_at + (row.forms & QUANT_HALF_BYTES ? 2 * plane : 0);
    row.nsum_at = row.scale_at + 4 * blocks;
    row.ssum_at = row.nsum_at + 4 * blocks;
    row.bytes = (u32)round_up(row.ssum_at + 4 * blocks, 64);
    return row;
}

struct pack_unit pack_unit(const struct packing *packing, u32 blocks)
{
    u32 low = packing->code_bits == 8 ? 8 : 4, high = packing->code_bits - low;
    u32 codes = blocks * packing->block, tile = packing->tile, granule = packing->granule;

    if (packing->code_bits == 0) {
        u32 bytes = blocks * dtype_bytes(packing->float_type);
        return (struct pack_unit){.bytes = (u32)round_up(bytes, granule) * tile};
    }
    u32 factors = blocks * dtype_bytes(packing->scale_type) * (packing->has_min ? 2 : 1);
    struct pack_unit u = {.high_at = (u32)round_up(codes * low / 8, granule) * tile};

    u.factors_at = u.high_at + (u32)round_up(codes * high / 8, granule) * tile;
    u.head_at = u.factors_at + (u32)round_up(factors, granule) * tile;
    u.bytes = u.head_at + (packing->super > 1 ? 4 * tile : 0);
    return u;
}

/* Units of 5 to 8 blocks: scales of 2 bytes fill a granule well. The fewest bytes, of equals one
 * that leaves no rest. */
static void choose_units(const struct packing *packing, struct pack_tile *t)
{
    u64 least = UINT64_MAX;

    for (u32 g = UNIT_BLOCKS_MAX; g >= UNIT_BLOCKS_MAX / 2 + 1; g--) {
        u32 blocks = packing->super > 1 ? packing->super : min_u32(g, t->blocks);
        u32 rest = t->blocks % blocks;
        u32 bytes = t->blocks / blocks * pack_unit(packing, blocks).bytes +
                    (rest ? pack_unit(packing, rest).bytes : 0);
        u64 cost = 2 * (u64)bytes + (rest != 0);
        if (cost >= least)
            continue;
        least = cost;
        t->tile_bytes = bytes;
        t->unit_blocks = blocks;
    }
}

struct pack_tile pack_tile(const struct packing *packing, u32 columns)
{
    struct pack_tile t = {};
    u32 tile = packing->tile;
    if (packing->code_bits == 0) {
        u32 bytes = columns * dtype_bytes(packing->float_type);
        t.blocks = columns;
        t.unit_blocks = FLOAT_UNIT;
        t.tile_bytes = (u32)round_up(bytes, max_u32(packing->granule, 1)) * tile;
        return t;
    }
    t.low_bits = packing->code_bits == 8 ? 8 : 4;
    t.high_bits = packing->code_bits - t.low_bits;
    t.low_bytes = packing->block * tile * t.low_bits / 8;
    t.high_bytes = packing->block * tile * t.high_bits / 8;
    t.scale_bytes = tile * dtype_bytes(packing->scale_type);
    t.block_bytes = t.low_bytes + t.high_bytes + t.scale_bytes * (packing->has_min ? 2 : 1);
    t.blocks = columns / packing->block;
    if (packing->super > 1)
        t.super_head_bytes = tile * 4;
    t.super_bytes = t.super_head_bytes + packing->super * t.block_bytes;
    t.tile_bytes = t.blocks / packing->super * t.super_bytes;
    if (packing->granule)
        choose_units(packing, &t);
    return t;
}

u64 packing_bytes(const struct packing *packing, u32 rows, u32 columns)
{
    return div_up(rows, packing->tile) * (u64)pack_tile(packing, columns).tile_bytes;
}

/* ---- moves ---- */

struct affine affine_zero(void)
{
    struct affine a = {.dynamic = LIR_NONE, .dynamic_lanes = LIR_NONE};
    return a;
}

struct affine affine_axis(u32 axis)
{
    struct affine a = affine_zero();
    a.coef[axis] = 1;
    return a;
}

static bool extent_is_one(dim d)
{
    return d.v == 1;
}

/* a + factor * b. Both may not carry run-time parts when factor != 1. */
static struct affine affine_sum(struct affine a, const struct affine *b, i64 factor)
{
    for (u32 i = 0; i < AXES_MAX; i++)
        a.coef[i] += (i32)(b->coef[i] * factor);
    a.constant += b->constant * factor;
    a.dynamic_axes |= b->dynamic_axes;
    return a;
}

/*
 * Reshape: result extents and source extents are cut into groups of equal product. A group with one
 * source extent gets the flat index of its result extents. A group with several source extents puts
 * the flat index on the last of them: the source is then contiguous memory (schedule.c sees to it),
 * where only the sum of index * stride matters.
 */
static bool index_reshape(const struct graph *graph, const struct node *src,
                          const struct node *node, const struct affine *in, struct affine *out)
{
    u32 s = 0, d = 0;
    bool affine = true;

    while (s < src->rank || d < node->rank) {
        u32 s_first = s, d_first = d;
        u64 s_product = 1, d_product = 1;
        if (s < src->rank && d < node->rank && dim_is_sym(src->shape[s]) &&
            dim_same(src->shape[s], node->shape[d])) {
            out[s++] = in[d++];
            continue;
        }
        do {
            bool take_src =
                s < src->rank && !dim_is_sym(src->shape[s]) &&
                (s_product <= d_product || d >= node->rank || dim_is_sym(node->shape[d]));
            if (take_src)
                s_product *= dim_bound(graph, src->shape[s++]);
            else if (d < node->rank && !dim_is_sym(node->shape[d]))
                d_product *= dim_bound(graph, node->shape[d++]);
            else
                return false;
        } while (s_product != d_product || (s == s_first && d == d_first));
        u32 wide = 0; /* source extents of the group that are not 1 */
        u32 last = s_first;
        for (u32 i = s_first; i < s; i++) {
            out[i] = affine_zero();
            if (!extent_is_one(src->shape[i])) {
                wide++;
                last = i;
            }
        }
        struct affine flat = affine_zero();
        i64 stride = 1;
        for (u32 i = d; i-- > d_first;) {
            bool moving = !extent_is_one(node->shape[i]);
            if (moving && in[i].dynamic != LIR_NONE) {
                if (stride != 1)
                    return false;
                flat.dynamic = in[i].dynamic;
            }
            if (moving && in[i].dynamic_lanes != LIR_NONE) {
                if (stride != 1)
                    return false;
                flat.dynamic_lanes = in[i].dynamic_lanes;
            }
            if (moving)
                flat = affine_sum(flat, &in[i], stride);
            stride *= (i64)dim_bound(graph, node->shape[i]);
        }
        if (wide >= 1)
            out[last] = flat;
        affine &= wide <= 1;
    }
    return affine;
}

bool index_through(const struct graph *graph, const struct node *node, const struct affine *in,
                   struct affine *out)
{
    const struct node *src = &graph->node[node->src[0]];

    switch (node->op) {
    case OP_RESHAPE:
        return index_reshape(graph, src, node, in, out);
    case OP_PERMUTE:
        for (u32 i = 0; i < node->rank; i++)
            out[node->permute.order[i]] = in[i];
        return true;
    case OP_EXPAND:
        for (u32 i = 0; i < node->rank; i++)
            out[i] = dim_same(src->shape[i], node->shape[i]) ? in[i] : affine_zero();
        return true;
    case OP_SLICE:
        for (u32 i = 0; i < node->rank; i++) {
            out[i] = in[i];
            out[i].constant += node->slice.begin[i];
        }
        return true;
    case OP_FLIP: /* constant extents: the scheduler realises others */
        for (u32 i = 0; i < node->rank; i++) {
            out[i] = in[i];
            if (!(node->flip.axes >> i & 1))
                continue;
            struct affine flipped = affine_sum(affine_zero(), &in[i], -1);
            flipped.constant += (i64)dim_bound(graph, node->shape[i]) - 1;
            out[i] = flipped;
        }
        return true;
    default:
        panic(__FILE__, __LINE__, "not a move that index_through knows");
    }
}

/* ---- leaves ---- */

const struct node *stage_space(const struct graph *graph, const struct stage *stage)
{
    const struct node *n = &graph->node[stage->node];
    if (stage->kind == STAGE_SCATTER)
        return &graph->node[n->src[2]];
    return stage->kind == STAGE_PAD ? &graph->node[n->src[0]] : n;
}

#define WALK_MAX 512u

struct walk {
    u32 node;
    bool in_heavy;
    const struct affine *idx;
};

static u16 axes_of(const struct affine *idx, u32 rank)
{
    u16 axes = 0;
    for (u32 d = 0; d < rank; d++) {
        axes |= idx[d].dynamic_axes;
        for (u32 a = 0; a < AXES_MAX; a++)
            if (idx[d].coef[a])
                axes |= (u16)(1u << a);
    }
    return axes;
}

struct leaves {
    const struct graph *graph;
    const struct schedule *schedule;
    const struct stage *stage;
    struct arena *scratch;
    struct walk stack[WALK_MAX];
    u32 depth;
    struct leaf leaf[LEAVES_MAX];
    u32 count;
    err status;
};

static void push(struct leaves *l, u32 node, bool in_heavy, const struct affine *idx)
{
    if (l->depth == WALK_MAX)
        l->status = E_LIMIT;
    else
        l->stack[l->depth++] = (struct walk){node, in_heavy, idx};
}

static struct affine *new_index(struct leaves *l)
{
    struct affine *idx = arena_take(l->scratch, RANK_MAX * sizeof *idx, _Alignof(struct affine));

    if (!idx)
        l->status = E_NOMEM;
    return idx;
}

static void walk_indexed(struct leaves *l, const struct walk *at, struct affine *idx)
{
    const struct node *n = &l->graph->node[at->node];
    u32 index_rank = l->graph->node[n->src[1]].rank,
        table = n->op == OP_GATHER ? n->src[0] : n->src[2];

    push(l, n->src[1], at->in_heavy, at->idx);
    memcpy(idx, at->idx, RANK_MAX * sizeof *idx);
    if (n->op == OP_GATHER) {
        idx[0] = affine_zero();
        idx[0].dynamic_axes = axes_of(at->idx, index_rank);
        for (u32 i = 1; i < l->graph->node[table].rank; i++)
            idx[i] = at->idx[index_rank + i - 1];
    }
    push(l, table, at->in_heavy, idx);
}

static void walk_node(struct leaves *l, const struct walk *at)
{
    const struct node *n = &l->graph->node[at->node];
    struct affine *idx = n->src_count ? new_index(l) : NULL;

    if (l->status != OK)
        return;
    if (op_is_move(n->op)) {
        index_through(l->graph, n, at->idx, idx);
        push(l, n->src[0], at->in_heavy, idx);
    } else if (op_is_reduce(n->op)) {
        for (u32 i = 0; i < n->rank; i++)
            idx[i] = n->reduce.axes >> i & 1 ? affine_axis(RANK_MAX + i) : at->idx[i];
        push(l, n->src[0], true, idx);
        if (n->reduce.has_len)
            push(l, n->src[1], at->in_heavy, at->idx);
    } else if (n->op == OP_LINEAR) {
        memcpy(idx, at->idx, RANK_MAX * sizeof *idx);
        idx[n->rank - 1] = affine_axis(RANK_MAX);
        push(l, n->src[0], true, idx);
    } else if (n->op == OP_GATHER || n->op == OP_SCATTER) {
        walk_indexed(l, at, idx);
    } else {
        for (u32 i = 0; i < n->src_count; i++)
            push(l, n->src[i], at->in_heavy, at->idx);
    }
}

static void walk_all(struct leaves *l)
{
    for (u32 steps = 0; l->depth > 0 && l->status == OK; steps++) {
        struct walk at = l->stack[--l->depth];
        enum op op = l->graph->node[at.node].op;
        bool memory = op_is_source(op) || l->schedule->stage_of[at.node] != NO_NODE;
        memory &= at.node != l->stage->node;
        if (op == OP_SCALAR || (op == OP_IOTA && !memory))
            continue;
        if (!memory) {
            walk_node(l, &at);
        } else if (l->count == LEAVES_MAX || steps > 16 * WALK_MAX) {
            l->status = E_LIMIT;
        } else {
            l->leaf[l->count] = (struct leaf){.node = at.node, .in_heavy = at.in_heavy};
            memcpy(l->leaf[l->count++].idx, at.idx, RANK_MAX * sizeof *at.idx);
        }
    }
}

err stage_leaves(const struct graph *graph, const struct schedule *schedule, struct stage *stage,
                 struct arena *arena, struct arena *scratch)
{
    usize mark = arena_mark(scratch);
    struct leaves *l = arena_take(scratch, sizeof *l, _Alignof(struct leaves));
    u32 first = stage->kind == STAGE_PAD ? graph->node[stage->node].src[0] : stage->node;
    u32 rank = stage_space(graph, stage)->rank;

    if (!l)
        return E_NOMEM;
    l->graph = graph;
    l->schedule = schedule;
    l->stage = stage;
    l->scratch = scratch;
    l->depth = l->count = 0;
    l->status = OK;
    struct affine *start = new_index(l);
    for (u32 i = 0; start && i < RANK_MAX; i++)
        start[i] = i < rank ? affine_axis(i) : affine_zero();
    push(l, first, false, start);
    walk_all(l);
    stage->leaf_count = l->count;
    stage->leaf = arena_take(arena, l->count * sizeof *l->leaf, _Alignof(struct leaf));
    if (!stage->leaf && l->status == OK)
        l->status = E_NOMEM;
    if (l->status == OK)
        memcpy(stage->leaf, l->leaf, l->count * sizeof *l->leaf);
    err e = l->status;
    arena_reset(scratch, mark);
    return e;
}
