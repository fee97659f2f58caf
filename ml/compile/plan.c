/*
 * plan.c: which nodes of a graph become memory, and up to which lengths they are ever read.
 * Everything else is recomputed inside the expression that uses it.
 */
#include "ml/compile/priv.h"

#define INLINE_COST_MAX 4u /* an expression dearer than this is computed once, not per use */

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

/* A reshape that merges source extents needs contiguous memory below it. The rows that a GATHER
 * takes are such memory. */
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
    for (u32 d = 0; d < g->node[src->src[1]].rank;
         d++) { /* its index axes are not: none may have been merged away */
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
    bool many;    /* the user computes each element of the source more than once */
    bool memory;  /* the user can only read memory */
    bool inside;  /* the source would be computed inside loops that hold a result in registers */
    bool element; /* the user is elementwise: same index */
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
    case CLASS_GATHER:
        e.memory = operand == 0;
        e.inside = e.many = operand == 1; /* an index serves a whole row */
        break;
    case CLASS_SCATTER:
        e.memory = operand == 0;
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

static bool must_realise(const struct plan *p, u32 n)
{
    const struct node *node = &p->graph->node[n];

    switch (op_row[node->op].class) {
    case CLASS_LINEAR:
        return p->evaluations[n] > 1 || p->in_heavy[n] || !p->direct[n] ||
               p->heavy[p->root[n]] != NO_NODE;
    case CLASS_REDUCE:
        return p->evaluations[n] > 1 || p->in_heavy[n] || p->heavy[p->root[n]] != NO_NODE;
    case CLASS_GATHER:
        return p->graph->node[node->src[0]].op == OP_WEIGHT ||
               (p->evaluations[n] > 1 && p->cost[node->src[1]] > INLINE_COST_MAX);
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
    bool user_real = p->real[user];
    u32 evaluations = user_real ? 1 : p->evaluations[user];

    if (e.many)
        evaluations = 2;
    if (e.memory && !op_is_source(g->node[src].op))
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
        if (!p->live[n] || op_is_source(g->node[n].op) || g->node[n].op == OP_SCALAR ||
            g->node[n].op == OP_IOTA)
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

/* Realises what is too deep or reads too much. Returns whether anything changed. */
static bool settle(struct plan *p)
{
    const struct graph *g = p->graph;
    bool changed = false;

    for (u32 n = 0; n < g->node_count; n++) {
        const struct node *node = &g->node[n];
        u32 depth = 0, leaves = 0;
        if (!p->live[n])
            continue;
        for (u32 i = 0; i < node->src_count; i++) {
            u32 src = node->src[i];
            depth = max_u32(depth, is_memory(p, src) ? 0 : p->depth[src]);
            leaves += is_memory(p, src) ? 1 : p->leaves[src];
        }
        p->depth[n] = (u16)(depth + 1);
        p->leaves[n] = (u16)leaves;
        bool too_large = p->depth[n] >= EXPR_DEPTH_MAX / 2 || leaves > LEAVES_MAX / 4;
        if (too_large && !is_memory(p, n) && node->op != OP_SCALAR) {
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
                       .depth = arena_new(arena, u16, n),
                       .leaves = arena_new(arena, u16, n),
                       .length = arena_new(arena, struct length, n)};
    return p->length && p->leaves ? OK : E_NOMEM;
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

/* ---- lengths ---- */

static void length_meet(struct length *at, struct length with)
{
    if (at->state == 0)
        *at = with;
    else if (with.state == 2 || at->node != with.node || at->axis != with.axis)
        at->state = 2;
}

static void plan_lengths(const struct plan *p)
{
    struct length *length = p->length;
    const struct graph *g = p->graph;
    const struct length full = {.state = 2};

    for (u32 i = 0; i < g->output_count; i++)
        length[g->output[i]] = full;
    for (u32 n = g->node_count; n-- > 0;) {
        const struct node *node = &g->node[n];
        if (node->op == OP_SCATTER) /* what it writes outlives the run */
            length[n] = full;
        for (u32 i = 0; p->live[n] && i < node->src_count; i++) {
            const struct node *src = &g->node[node->src[i]];
            struct length want = full;
            if (op_is_reduce(node->op) && node->reduce.has_len && i == 0)
                want = (struct length){expanded_from(g, node->src[1]),
                                       (u8)__builtin_ctz(node->reduce.axes), 1};
            else if (op_is_element(node->op))
                want = length[n];
            else if (node->op == OP_EXPAND && length[n].state == 1 &&
                     src->shape[length[n].axis].v != 1)
                want = length[n];
            length_meet(&length[node->src[i]], want);
        }
    }
}

err plan_build(struct plan *plan, const struct graph *graph, struct arena *arena)
{
    TRY(plan_init(plan, graph, arena));
    TRY(plan_realised(plan));
    plan_lengths(plan);
    return OK;
}
