/*
 * compose.c: operations of the text form that are made of those in op.def. The compiler sees only
 * their parts.
 */
#include "tests/oracle/parse.h"

static u32 with_f32(struct graph *graph, enum op op, u32 a, f32 b)
{
    return graph_binary(graph, op, a, graph_scalar_f32(graph, b));
}

/* (1 - e) / (1 + e) with e = exp(-2|a|) can not overflow; the sign comes back at the end. */
u32 compose_tanh(struct graph *graph, u32 a)
{
    u32 zero = graph_scalar_f32(graph, 0), one = graph_scalar_f32(graph, 1);
    u32 e = graph_unary(graph, OP_EXP, with_f32(graph, OP_MUL, graph_unary(graph, OP_ABS, a), -2));
    u32 size = graph_binary(graph, OP_DIV, graph_binary(graph, OP_SUB, one, e),
                            graph_binary(graph, OP_ADD, one, e));

    return graph_where(graph, graph_binary(graph, OP_LT, a, zero),
                       graph_unary(graph, OP_NEG, size), size);
}

/* The tanh form: 0.5 a (1 + tanh(sqrt(2/pi) (a + 0.044715 a^3))), that is a sigmoid of twice it. */
u32 compose_gelu(struct graph *graph, u32 a)
{
    u32 cube = graph_binary(graph, OP_MUL, a, graph_binary(graph, OP_MUL, a, a));
    u32 inner = graph_binary(graph, OP_ADD, a, with_f32(graph, OP_MUL, cube, 0.044715f));

    inner = with_f32(graph, OP_MUL, inner, 1.5957691216057308f);
    return graph_binary(graph, OP_MUL, a, graph_sigmoid(graph, inner));
}

u32 compose_softmax(struct graph *graph, u32 a, u32 axis, u32 len)
{
    u32 axes = 1u << min_u32(axis, 31);
    u32 peak = graph_reduce(graph, OP_REDUCE_MAX, a, axes, len);
    u32 e = graph_unary(graph, OP_EXP, graph_binary(graph, OP_SUB, a, peak));
    u32 sum = graph_reduce(graph, OP_REDUCE_SUM, e, axes, len);

    return graph_binary(graph, OP_MUL, e, graph_unary(graph, OP_RECIP, sum));
}

u32 compose_layer_norm(struct graph *graph, u32 a, u32 weight, u32 bias, f32 epsilon)
{
    u32 rank = graph->node[a].rank, last = rank ? 1u << (rank - 1) : 0;
    u32 centred = graph_binary(graph, OP_SUB, a, graph_mean(graph, a, last));
    u32 unit = graph_rms_norm(graph, centred, weight, epsilon);

    return bias == NO_NODE ? unit : graph_binary(graph, OP_ADD, unit, bias);
}

/* ---- shapes ---- */

u32 compose_squeeze(struct graph *graph, u32 a, u32 axes)
{
    dim shape[RANK_MAX];
    u32 rank = 0;

    for (u32 i = 0; i < graph->node[a].rank; i++)
        if (!(axes >> i & 1))
            shape[rank++] = graph->node[a].shape[i];
    return graph_reshape(graph, a, shape, rank);
}

/* Inserts an axis of extent 1 before axis `at` of a. */
static u32 unsqueeze(struct graph *graph, u32 a, u32 at)
{
    const struct node *node = &graph->node[a];
    dim shape[RANK_MAX + 1];

    for (u32 i = 0; i <= node->rank; i++)
        shape[i] = i == at ? dim_of(1) : node->shape[i - (i > at ? 1 : 0)];
    return graph_reshape(graph, a, shape, node->rank + 1u);
}

/* Each part is padded with zeros to the whole's length, then the parts are added. */
u32 compose_concat(struct graph *graph, const u32 *part, u32 count, u32 axis)
{
    u32 sum = part[0], total = 0;

    for (u32 i = 0; i < count; i++)
        total += axis < graph->node[part[i]].rank ? (u32)graph->node[part[i]].shape[axis].v : 0;
    for (u32 i = 0, at = 0; i < count && graph->status == OK; i++) {
        const struct node *node = &graph->node[part[i]];
        i32 before[RANK_MAX] = {};
        dim shape[RANK_MAX];

        memcpy(shape, node->shape, sizeof shape);
        if (axis < node->rank) {
            shape[axis] = dim_of(total);
            before[axis] = (i32)at;
            at += (u32)node->shape[axis].v;
        }
        u32 padded = graph_pad(graph, part[i], before, shape);
        if (!shape_same(shape, node->rank, graph->node[sum].shape, graph->node[sum].rank) && i)
            return parse_fail(graph, "concat: the other axes must be equal");
        sum = i ? graph_binary(graph, OP_ADD, sum, padded) : padded;
    }
    return sum;
}

/* [..., m, k, 1] * [..., 1, k, n] summed over k: no axis moves, so nothing is copied. A vector on
 * the left is one row, on the right one column, as in numpy. */
u32 compose_matmul(struct graph *graph, u32 a, u32 b)
{
    const struct node *left = &graph->node[a], *right = &graph->node[b];
    bool row = left->rank == 1, column = right->rank == 1;

    if (!left->rank || !right->rank ||
        !dim_same(left->shape[left->rank - 1], right->shape[column ? 0 : right->rank - 2]))
        return parse_fail(graph, "matmul: needs [..., m, k] and [..., k, n]");
    a = unsqueeze(graph, row ? unsqueeze(graph, a, 0) : a, left->rank + (row ? 1u : 0));
    b = column ? unsqueeze(graph, b, 1) : b;
    b = unsqueeze(graph, b, column ? 0 : right->rank - 2u);
    u32 product = graph_binary(graph, OP_MUL, a, b);
    if (graph->status != OK)
        return 0;
    u32 rank = graph->node[product].rank, k = 1u << (rank - 2);
    u32 sum = graph_reduce(graph, OP_REDUCE_SUM, product, k, NO_NODE);
    return compose_squeeze(graph, sum, k | (row ? k >> 1 : 0) | (column ? k << 1 : 0));
}
