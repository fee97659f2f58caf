/*
 * graph_check.c: what every pass over a graph must keep true. Node by node it asks the builders'
 * own rules again; that states are read in their newest version is known only of whole graphs.
 */
#include "tests/oracle/oracle.h"

static err state_check(struct graph *graph, u8 *replaced);
static err complain(struct graph *graph, u32 idx, const char *what);

err graph_check(struct graph *graph)
{
    usize mark = arena_mark(graph->arena);

    TRY(graph->status);
    for (u32 i = 0; i < graph->node_count; i++) {
        const char *fault = node_fault(graph, &graph->node[i], i);
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
