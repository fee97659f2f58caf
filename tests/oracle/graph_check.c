/*
 * graph_check.c: what every pass over a graph must keep true. Node by node it asks the builders'
 * own rules again; that states are read in their newest version is known only of whole graphs.
 */
#include "tests/oracle/oracle.h"

static err state_check(struct graph *graph, u8 *replaced);
static err complain(struct graph *graph, u32 idx, const char *what);

static const char *element_fault(const struct graph *graph, const struct node *node)
{
    for (u32 i = 0; i < node->src_count; i++) {
        const struct node *src = &graph->node[node->src[i]];
        if (!shape_same(src->shape, src->rank, node->shape, node->rank))
            return "a source has another shape";
    }
    return NULL;
}

static const char *reduce_fault(const struct node *node, const struct node *src,
                                const struct node *len)
{
    if (node->rank != src->rank)
        return "a reduced axis stays";
    for (u32 i = 0; i < node->rank; i++)
        if (!dim_same(node->shape[i], node->reduce.axes >> i & 1 ? dim_of(1) : src->shape[i]))
            return "a reduced axis keeps extent 1, the others their own";
    if (node->reduce.has_len && !shape_same(len->shape, len->rank, node->shape, node->rank))
        return "a length needs the result's shape";
    return NULL;
}

static const char *move_fault(const struct node *node, const struct node *src)
{
    if (node->op != OP_RESHAPE && node->rank != src->rank)
        return "the number of axes must stay";
    for (u32 i = 0; node->op == OP_PERMUTE && i < node->rank; i++)
        if (!dim_same(node->shape[i], src->shape[node->permute.order[i] % RANK_MAX]))
            return "a permuted axis keeps its extent";
    if (node->op == OP_FLIP && !shape_same(node->shape, node->rank, src->shape, src->rank))
        return "a flip keeps the shape";
    return NULL;
}

/* The result of x [..., columns] and weight [rows, columns], of table and index. */
static const char *product_fault(const struct node *node, const struct node *a,
                                 const struct node *b)
{
    u32 lead = node->op == OP_LINEAR ? a->rank - 1u : b->rank;
    const struct node *first = node->op == OP_LINEAR ? a : b;

    if (a->rank == 0 || node->rank != lead + (node->op == OP_LINEAR ? 1u : a->rank - 1u) ||
        !shape_same(node->shape, lead, first->shape, lead))
        return "wrong leading axes";
    if (node->op == OP_LINEAR && !dim_same(node->shape[lead], b->shape[0]))
        return "the last axis has the weight's rows";
    if (node->op == OP_GATHER &&
        !shape_same(node->shape + lead, a->rank - 1u, a->shape + 1, a->rank - 1u))
        return "the last axes are the table's without its first";
    return NULL;
}

/* What builders make right by themselves. */
static const char *built_fault(const struct graph *graph, const struct node *node, u32 limit)
{
    const struct op_row *row = &op_row[node->op];
    bool has_len = row->class == CLASS_REDUCE && node->reduce.has_len;
    const struct node *src[NODE_SRCS_MAX];

    if (node->rank > RANK_MAX)
        return "too many axes";
    if (node->src_count != row->sources + (has_len ? 1 : 0))
        return "wrong number of sources";
    for (u32 i = 0; i < node->src_count; i++) {
        if (node->src[i] >= limit)
            return "a source does not come before its user";
        src[i] = &graph->node[node->src[i]];
    }
    if (node->dtype > DT_I32 || node->dtype != node_dtype(graph, node))
        return "wrong type";
    switch (row->class) {
    case CLASS_ELEMENT:
    case CLASS_QUANT:
        return element_fault(graph, node);
    case CLASS_MOVE:
        return move_fault(node, src[0]);
    case CLASS_REDUCE:
        return reduce_fault(node, src[0], src[has_len]);
    case CLASS_SCATTER:
        return shape_same(node->shape, node->rank, src[0]->shape, src[0]->rank)
                   ? NULL
                   : "the result has the state's shape";
    case CLASS_GATHER:
    case CLASS_LINEAR:
        return product_fault(node, src[0], src[1]);
    default:
        return NULL;
    }
}

err graph_check(struct graph *graph)
{
    usize mark = arena_mark(graph->arena);

    TRY(graph->status);
    for (u32 i = 0; i < graph->node_count; i++) {
        const char *fault = built_fault(graph, &graph->node[i], i);
        fault = fault ? fault : node_fault(graph, &graph->node[i]);
        if (fault)
            return complain(graph, i, fault);
    }
    for (u32 i = 0; i < graph->output_count; i++)
        if (graph->output[i] >= graph->node_count)
            return complain(graph, 0, "an output names no node");

    u8 *replaced = arena_new(graph->arena, u8, graph->node_count + 1);
    err result = replaced ? state_check(graph, replaced) : E_NOMEM;
    arena_reset(graph->arena, mark);
    return result;
}

static err complain(struct graph *graph, u32 idx, const char *what)
{
    struct text text = TEXT_ON(graph->why);

    text_fmt(&text, "n%u %s: %s", idx, op_row[graph->node[idx].op].name, what);
    graph->why[min_u64(text.len, sizeof graph->why - 1)] = 0;
    return graph->status = E_FORMAT;
}

/* Memory holds only the newest version of a state, so nothing may look at one that was replaced. */
static err state_check(struct graph *graph, u8 *replaced)
{
    const struct node *node = graph->node;

    for (u32 i = 0; i < graph->node_count; i++)
        if (node[i].op == OP_SCATTER && replaced[node[i].src[0]]++)
            return complain(graph, i, "the state is scattered into twice: chain the scatters");
    for (u32 i = 0; i < graph->node_count; i++)
        for (u32 s = 0; s < node[i].src_count; s++)
            if (replaced[node[i].src[s]] && !(node[i].op == OP_SCATTER && s == 0))
                return complain(graph, i, "reads a state that is scattered into: read the result");
    for (u32 i = 0; i < graph->output_count; i++)
        if (replaced[graph->output[i]])
            return complain(graph, graph->output[i], "outputs a state that is scattered into");
    return OK;
}
