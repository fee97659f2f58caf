/*
 * graph_build.c: compositions that every model uses, made of the ops of op.def and nothing else:
 * the compiler sees their parts and fuses them anew. Must not know which model asks.
 */
#include "ml/compile/compile.h"

static u32 with_f32(struct graph *graph, enum op op, u32 a, f32 b)
{
    return graph_binary(graph, op, a, graph_scalar_f32(graph, b));
}

u32 graph_sigmoid(struct graph *graph, u32 a)
{
    u32 e = graph_unary(graph, OP_EXP, graph_unary(graph, OP_NEG, a));

    return graph_unary(graph, OP_RECIP, with_f32(graph, OP_ADD, e, 1));
}

u32 graph_silu(struct graph *graph, u32 a)
{
    return graph_binary(graph, OP_MUL, a, graph_sigmoid(graph, a));
}

u32 graph_mean(struct graph *graph, u32 a, u32 axes)
{
    u32 one = graph_scalar_f32(graph, 1);
    const struct node *node = &graph->node[a];
    u32 ones = graph_expand(graph, one, node->shape, node->rank);

    return graph_binary(graph, OP_DIV, graph_reduce(graph, OP_REDUCE_SUM, a, axes, NO_NODE),
                        graph_reduce(graph, OP_REDUCE_SUM, ones, axes, NO_NODE));
}

u32 graph_rms_norm(struct graph *graph, u32 a, u32 weight, f32 epsilon)
{
    u32 rank = graph->node[a].rank, last = rank ? 1u << (rank - 1) : 0;
    u32 mean = graph_mean(graph, graph_binary(graph, OP_MUL, a, a), last);
    u32 scale = graph_unary(graph, OP_RSQRT, with_f32(graph, OP_ADD, mean, epsilon));
    u32 unit = graph_binary(graph, OP_MUL, a, scale);

    return weight == NO_NODE ? unit : graph_binary(graph, OP_MUL, unit, weight);
}
