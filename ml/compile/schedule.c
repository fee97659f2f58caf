/*
 * schedule.c: decides which nodes become memory (are "realised"), what is fused into each stage, which stages share a
 * kernel, and where results live. Everything else is recomputed inside the expression that uses it.
 * Knows no instruction set; the target only says how many rows a vector holds and how many cores share a launch.
 */
#include "ml/compile/priv.h"

#define INLINE_COST_MAX 4u     /* an expression dearer than this is computed once, not per use */
#define FUSED_WORK_MAX 65536u  /* operations per item up to which fusing may leave fewer items than cores */
#define FUSED_ITEMS 8u         /* items that are enough for any number of cores */
#define ITEM_WORK 16384u       /* operations that an item should have at least */
#define NOTES_BYTES MIB
#define LINEAR_ROWS 64u        /* activation rows per item of a linear product */

/* ---- which nodes are realised ---- */

struct plan {
    const struct graph *graph;
    bool *live, *real;
    u8 *evaluations;  /* how often each element is computed when not realised: 0, 1, 2 = many */
    bool *in_heavy;   /* reached through a reduction, product or special stage without memory between */
    bool *direct;     /* only ELEMENT nodes between this node and its stage's root */
    u32 *root;        /* the stage that would hold it */
    u32 *heavy;       /* per root: the reduction or product it holds */
    u16 *cost, *depth;
};

static bool is_memory(const struct plan *p, u32 n)
{
    return op_is_source(p->graph->node[n].op) || p->real[n];
}

static void mark_live(struct plan *p)
{
    const struct graph *g = p->graph;

    for (u32 i = 0; i < g->output_count; i++)
        p->live[g->output[i]] = true;
    for (u32 n = g->node_count; n-- > 0;) {
        p->live[n] |= g->node[n].op == OP_SCATTER;
        for (u32 i = 0; p->live[n] && i < g->node[n].src_count; i++)
            p->live[g->node[n].src[i]] = true;
    }
}

/* Cost of computing one element with nothing realised below, for nodes in topological order. */
static void measure_cost(struct plan *p)
{
    const struct graph *g = p->graph;

    for (u32 n = 0; n < g->node_count; n++) {
        u32 cost = op_is_source(g->node[n].op) ? 1 : op_cost(g->node[n].op);
        for (u32 i = 0; i < g->node[n].src_count; i++)
            cost += p->cost[g->node[n].src[i]];
        p->cost[n] = (u16)min_u32(cost, UINT16_MAX);
    }
}

/* A reshape that merges source extents needs contiguous memory below it. The rows that a GATHER takes are such memory. */
static bool reshape_needs_memory(const struct graph *g, const struct node *node)
{
    struct affine in[RANK_MAX], out[RANK_MAX];
    const struct node *src = &g->node[node->src[0]];

    for (u32 i = 0; i < RANK_MAX; i++)
        in[i] = i < node->rank ? affine_axis(i) : affine_zero();
    if (index_through(g, node, in, out))
        return false;
    if (src->op != OP_GATHER)
        return true;
    for (u32 d = 0; d < g->node[src->src[1]].rank; d++) { /* its index axes are not: none may have been merged away */
        bool used = src->shape[d].v == 1;
        for (u32 a = 0; a < AXES_MAX; a++)
            used |= out[d].coef[a] != 0;
        if (!used)
            return true;
        for (u32 o = 0; o < node->rank; o++)
            if (out[d].coef[o] > 1)
                return true; /* the last of merged axes */
    }
    return false;
}

/* How the edge user -> source looks to the source. */
struct edge {
    bool many;     /* the user computes each element of the source more than once */
    bool memory;   /* the user can only read memory */
    bool inside;   /* the source would be computed inside loops that hold a result in registers */
    bool element;  /* the user is elementwise: same index */
};

static struct edge edge_of(const struct plan *p, const struct node *user, u32 operand)
{
    const struct graph *g = p->graph;
    const struct node *src = &g->node[user->src[operand]];
    struct edge e = {};

    switch (op_row[user->op].class) {
    case CLASS_ELEMENT:
        e.element = true;
        break;
    case CLASS_MOVE:
        e.many = user->op == OP_EXPAND && shape_bound(g, src->shape, 0, src->rank) <
                                              shape_bound(g, user->shape, 0, user->rank);
        e.memory = user->op == OP_RESHAPE && reshape_needs_memory(g, user);
        for (u32 i = 0; user->op == OP_FLIP && i < user->rank; i++)
            e.memory |= (user->flip.axes >> i & 1) && dim_is_sym(user->shape[i]);
        e.inside = user->op == OP_PAD;
        break;
    case CLASS_REDUCE:
        e.inside = true;
        e.memory = operand == 1; /* the length is read as a scalar */
        break;
    case CLASS_GATHER:
        e.memory = true;
        break;
    case CLASS_SCATTER:
        e.memory = operand != 2;
        e.inside = true;
        break;
    case CLASS_LINEAR:
        e.memory = true;
        e.inside = true;
        break;
    default:
        e.inside = true;
        break;
    }
    return e;
}

/* Indexes and lengths are read as scalars: through moves and gathers of memory. Returns the node that must become memory
 * for that, or NO_NODE when all is well. */
static u32 chain_fault(const struct plan *p, u32 n)
{
    for (u32 steps = 0; steps < EXPR_DEPTH_MAX; steps++) {
        const struct node *node = &p->graph->node[n];
        if (is_memory(p, n) || node->op == OP_SCALAR)
            return NO_NODE;
        if (node->op == OP_GATHER) {
            u32 fault = chain_fault(p, node->src[1]);
            if (fault != NO_NODE)
                return fault;
        } else if (!op_is_move(node->op)) {
            return n;
        } else if (node->op == OP_RESHAPE && reshape_needs_memory(p->graph, node) && !is_memory(p, node->src[0])) {
            return node->src[0];
        }
        n = node->src[0];
    }
    return n;
}

static bool must_realise(const struct plan *p, u32 n)
{
    const struct node *node = &p->graph->node[n];

    switch (op_row[node->op].class) {
    case CLASS_LINEAR:
        return p->evaluations[n] > 1 || p->in_heavy[n] || !p->direct[n] || p->heavy[p->root[n]] != NO_NODE;
    case CLASS_REDUCE:
        return p->evaluations[n] > 1 || p->in_heavy[n] || p->heavy[p->root[n]] != NO_NODE;
    case CLASS_GATHER:
        return p->graph->node[node->src[0]].op == OP_WEIGHT || (p->evaluations[n] > 1 && chain_fault(p, n) != NO_NODE);
    case CLASS_ELEMENT:
        return p->evaluations[n] > 1 && p->cost[n] > INLINE_COST_MAX;
    default:
        return false;
    }
}

static void visit_users_edge(struct plan *p, u32 user, u32 operand)
{
    const struct graph *g = p->graph;
    u32 src = g->node[user].src[operand];
    struct edge e = edge_of(p, &g->node[user], operand);
    bool scalar_ok = (op_row[g->node[user].op].class == CLASS_GATHER && operand == 1) ||
                     (op_row[g->node[user].op].class == CLASS_REDUCE && operand == 1) ||
                     (op_row[g->node[user].op].class == CLASS_SCATTER && operand == 1);
    bool user_real = p->real[user];
    u32 evaluations = user_real ? 1 : p->evaluations[user];

    if (e.many)
        evaluations = 2;
    if (e.memory && !scalar_ok && !op_is_source(g->node[src].op))
        p->real[src] = true;
    p->evaluations[src] = (u8)min_u32(2, p->evaluations[src] + evaluations);
    p->in_heavy[src] |= e.inside || (!user_real && p->in_heavy[user]);
    p->direct[src] &= e.element && (user_real || p->direct[user]);
    p->root[src] = user_real ? user : p->root[user];
}

static void decide(struct plan *p)
{
    const struct graph *g = p->graph;

    for (u32 n = g->node_count; n-- > 0;) {
        if (!p->live[n] || op_is_source(g->node[n].op) || g->node[n].op == OP_SCALAR || g->node[n].op == OP_IOTA)
            continue;
        p->real[n] |= must_realise(p, n);
        if (p->real[n])
            p->root[n] = n;
        bool heavy = op_is_reduce(g->node[n].op) || g->node[n].op == OP_LINEAR;
        if (heavy)
            p->heavy[p->root[n]] = n;
        for (u32 i = 0; i < g->node[n].src_count; i++)
            visit_users_edge(p, n, i);
    }
}

/* Realises what is too deep, and indexes that are not chains of loads. Returns whether anything changed. */
static bool settle(struct plan *p)
{
    const struct graph *g = p->graph;
    bool changed = false;

    for (u32 n = 0; n < g->node_count; n++) {
        const struct node *node = &g->node[n];
        u32 depth = 0;
        if (!p->live[n])
            continue;
        for (u32 i = 0; i < node->src_count; i++) {
            u32 src = node->src[i];
            bool index = i == 1 && (node->op == OP_GATHER || node->op == OP_SCATTER || op_is_reduce(node->op));
            u32 fault = index ? chain_fault(p, src) : NO_NODE;
            if (fault != NO_NODE) {
                p->real[fault] = true;
                changed = true;
            }
            depth = max_u32(depth, is_memory(p, src) ? 0 : p->depth[src]);
        }
        p->depth[n] = (u16)(depth + 1);
        if (p->depth[n] >= EXPR_DEPTH_MAX / 2 && !is_memory(p, n) && node->op != OP_SCALAR) {
            p->real[n] = true;
            changed = true;
        }
    }
    return changed;
}

static err plan_init(struct plan *p, const struct graph *graph, struct arena *arena)
{
    u32 n = graph->node_count;

    *p = (struct plan){.graph = graph,
                       .live = arena_new(arena, bool, n),
                       .real = arena_new(arena, bool, n),
                       .evaluations = arena_new(arena, u8, n),
                       .in_heavy = arena_new(arena, bool, n),
                       .direct = arena_new(arena, bool, n),
                       .root = arena_new(arena, u32, n),
                       .heavy = arena_new(arena, u32, n),
                       .cost = arena_new(arena, u16, n),
                       .depth = arena_new(arena, u16, n)};
    return p->depth ? OK : E_NOMEM;
}

static err plan_realised(struct plan *p)
{
    const struct graph *g = p->graph;

    mark_live(p);
    measure_cost(p);
    for (u32 n = 0; n < g->node_count; n++) {
        enum op op = g->node[n].op;
        p->real[n] = p->live[n] && (op == OP_SCATTER || op == OP_QUANT || op == OP_PAD);
    }
    for (u32 round = 0; round < 32; round++) {
        for (u32 n = 0; n < g->node_count; n++) {
            p->evaluations[n] = 0;
            p->in_heavy[n] = false;
            p->direct[n] = true;
            p->root[n] = p->heavy[n] = NO_NODE;
        }
        for (u32 i = 0; i < g->output_count; i++)
            p->real[g->output[i]] |= !op_is_source(g->node[g->output[i]].op);
        for (u32 n = 0; n < g->node_count; n++)
            p->root[n] = n;
        decide(p);
        if (!settle(p))
            return OK;
    }
    return E_LIMIT;
}

/* ---- lengths: a node whose every reader stops at the same length along the same axis is computed only so far ---- */

struct length { u32 node; u8 axis; u8 state; /* 0 no reader seen, 1 bounded, 2 full */ };

static void length_meet(struct length *at, struct length with)
{
    if (at->state == 0)
        *at = with;
    else if (with.state == 2 || at->node != with.node || at->axis != with.axis)
        at->state = 2;
}

static void plan_lengths(const struct plan *p, struct length *length)
{
    const struct graph *g = p->graph;
    const struct length full = {.state = 2};

    for (u32 i = 0; i < g->output_count; i++)
        length[g->output[i]] = full;
    for (u32 n = g->node_count; n-- > 0;) {
        const struct node *node = &g->node[n];
        for (u32 i = 0; p->live[n] && i < node->src_count; i++) {
            const struct node *src = &g->node[node->src[i]];
            struct length want = full;
            if (op_is_reduce(node->op) && node->reduce.has_len && i == 0)
                want = (struct length){expanded_from(g, node->src[1]), (u8)__builtin_ctz(node->reduce.axes), 1};
            else if (op_is_element(node->op))
                want = length[n];
            else if (node->op == OP_EXPAND && length[n].state == 1 && src->shape[length[n].axis].v != 1)
                want = length[n];
            length_meet(&length[node->src[i]], want);
        }
    }
}

/* ---- stages and kernels ---- */

static enum stage_kind kind_of(const struct graph *g, const struct node *node)
{
    switch (node->op) {
    case OP_QUANT: return STAGE_QUANT;
    case OP_SCATTER: return STAGE_SCATTER;
    case OP_PAD: return STAGE_PAD;
    case OP_GATHER: return g->node[node->src[0]].op == OP_WEIGHT ? STAGE_UNPACK : STAGE_MAP;
    default: return STAGE_MAP;
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
    return shape_bound(g, node->shape, from, node->rank - 1) * quant_row(columns, node->quant.block).bytes;
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

/* Elements that the reduction of a stage reads per result; 4 stands for the cost of a plain element. */
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

/* May the stage join the last kernel? Returns the number of grid axes they would share, 0 for no. */
static u32 joins(const struct graph *g, const struct schedule *s, const struct stage *stage, u32 cores)
{
    const struct kernel *k = &s->kernel[s->kernel_count - 1];
    const struct node *space = stage_space(g, stage);
    const struct node *first = stage_space(g, &s->stage[k->stage_first]);
    bool reads = false;
    u32 grid = min_u32(k->grid_rank, space->rank);

    if (k->stage_count == KERNEL_STAGES_MAX || stage->kind == STAGE_PAD)
        return 0;
    if (stage->heavy != NO_NODE && g->node[stage->heavy].op == OP_LINEAR)
        return 0;
    for (u32 i = 0; i < stage->leaf_count; i++) {
        u32 writer = s->stage_of[stage->leaf[i].node];
        if (writer == NO_NODE || writer < k->stage_first)
            continue;
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

/* Grid of a kernel of one stage: leading axes whole while items stay large enough, then one axis cut into blocks. */
static void single_grid(const struct graph *g, const struct stage *stage, struct kernel *k, const struct target *target)
{
    const struct node *space = stage_space(g, stage);
    u64 per_element;

    if (stage->heavy != NO_NODE && g->node[stage->heavy].op == OP_LINEAR) {
        k->grid_rank = space->rank;
        for (u32 i = 0; i < space->rank; i++)
            k->divisor[i] = i + 1 == space->rank ? target->lanes : i + 2 == space->rank ? LINEAR_ROWS : 1;
        return;
    }
    per_element = min_u64(work_per_element(g, stage), ITEM_WORK);
    u32 axis = 0, rank = stage->kind == STAGE_PAD ? 0 : space->rank;
    u32 whole = stage->kind == STAGE_MAP ? 0 : 1; /* rows, not parts of rows */
    for (; axis < rank; axis++) {
        u64 inner = shape_bound(g, space->shape, axis + 1, rank) * per_element;
        bool symbolic = dim_is_sym(space->shape[axis]);
        k->divisor[axis] = 1;
        if (inner >= ITEM_WORK || (symbolic && axis + 1 < rank) || (whole && axis + 1 < rank && axis == 0))
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

static void make_local(const struct graph *g, struct schedule *s, struct kernel *k, const bool *read_outside)
{
    for (u32 i = k->stage_first; i < k->stage_first + k->stage_count; i++) {
        struct stage *stage = &s->stage[i];
        u64 bytes = round_up(stage_bytes(g, &g->node[stage->node], k->grid_rank), 64);
        if (k->stage_count == 1 || stage->output || stage->kind == STAGE_SCATTER || read_outside[i] ||
            bytes > LOCAL_BYTES_MAX || k->scratch_bytes + bytes > 4 * LOCAL_BYTES_MAX)
            continue;
        stage->local = true;
        stage->place = k->scratch_bytes;
        k->scratch_bytes += (u32)bytes;
    }
}

static err make_stages(const struct plan *p, struct schedule *s, const struct length *length)
{
    const struct graph *g = p->graph;

    for (u32 n = 0; n < g->node_count; n++) {
        s->stage_of[n] = NO_NODE;
        if (!p->live[n] || !p->real[n])
            continue;
        const struct node *node = &g->node[n];
        s->stage_of[n] = s->stage_count;
        s->stage[s->stage_count++] = (struct stage){
            .node = n, .kind = kind_of(g, node), .heavy = p->heavy[n], .output = is_output(g, n),
            .bytes = stage_bytes(g, node, 0),
            .len_node = length[n].state == 1 ? length[n].node : NO_NODE, .len_axis = length[n].axis};
    }
    return OK;
}

/* Who reads what between kernels: results read outside their kernel, and each kernel's level in the order of need. */
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

static err make_kernels(const struct graph *g, const struct target *target, struct schedule *s, struct arena *arena)
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

err schedule_build(const struct graph *graph, const struct target *target, struct arena *arena, struct schedule *out)
{
    struct plan plan;
    struct length *length = arena_new(arena, struct length, graph->node_count);

    *out = (struct schedule){.stage_of = arena_new(arena, u32, graph->node_count)};
    if (!length || !out->stage_of)
        return E_NOMEM;
    TRY(plan_init(&plan, graph, arena));
    TRY(plan_realised(&plan));
    plan_lengths(&plan, length);
    u32 count = 0;
    for (u32 n = 0; n < graph->node_count; n++)
        count += plan.live[n] && plan.real[n];
    out->live = plan.live;
    out->stage = arena_new(arena, struct stage, count + 1);
    out->kernel = arena_new(arena, struct kernel, count + 1);
    out->buffer = arena_new(arena, struct program_buffer, count + 1);
    if (!out->stage || !out->kernel || !out->buffer)
        return E_NOMEM;
    TRY(make_stages(&plan, out, length));
    void *notes = arena_take(arena, NOTES_BYTES, 64);
    struct arena scratch = arena_on("schedule", notes, notes ? NOTES_BYTES : 0);
    for (u32 i = 0; i < out->stage_count; i++)
        TRY(stage_leaves(graph, out, &out->stage[i], arena, &scratch));
    TRY(make_kernels(graph, target, out, arena));
    return schedule_place(graph, arena, out);
}
