/*
 * graph_print.c: a graph as text, in the form that parse.c reads (docs/GRAPH.md), with the shape of
 * every value as a comment. Must not know what the graph is for.
 */
#include "tests/oracle/listing.h"

static void node_print(const struct graph *graph, u32 idx, struct text *out);
static void details_print(const struct graph *graph, const struct node *node, struct text *out);

/* Sources go by their own names, all others by number. */
static void name_print(const struct graph *graph, u32 idx, struct text *out)
{
    const struct node *node = &graph->node[idx];

    if (node->op <= OP_WEIGHT)
        text_put(out, graph->external[node->source.external].name);
    else
        text_fmt(out, "n%u", idx);
}

void graph_print(const struct graph *graph, struct text *out)
{
    for (u32 i = 0; i < graph->sym_count; i++)
        text_fmt(out, "sym %.*s %u\n", (int)graph->sym[i].name.len, graph->sym[i].name.ptr,
                 graph->sym[i].bound);
    for (u32 i = 0; i < graph->node_count; i++)
        node_print(graph, i, out);
    for (u32 i = 0; i < graph->output_count; i++) {
        text_fmt(out, "output %.*s=", (int)graph->output_name[i].len, graph->output_name[i].ptr);
        name_print(graph, graph->output[i], out);
        text_char(out, '\n');
    }
}

/* Sources are statements of their own; all others are operations on named values. */
static void node_print(const struct graph *graph, u32 idx, struct text *out)
{
    const struct node *node = &graph->node[idx];
    u32 shown = op_row[node->op].sources;
    bool source = node->op <= OP_WEIGHT;
    const struct external *external = &graph->external[source ? node->source.external : 0];

    if (!source)
        text_fmt(out, "n%u = ", idx);
    for (const char *name = op_row[node->op].name; *name; name++)
        text_char(out, *name >= 'A' && *name <= 'Z' ? (char)(*name - 'A' + 'a') : *name);
    for (u32 i = 0; i < shown; i++) {
        text_char(out, ' ');
        name_print(graph, node->src[i], out);
    }
    if (source)
        text_fmt(out, " %.*s %.*s ", (int)external->name.len, external->name.ptr,
                 (int)external->format.len, external->format.ptr);
    if (source && !external->format.len)
        text_fmt(out, "%s ", dtype_name(external->storage));
    if (!source) {
        details_print(graph, node, out);
        text_fmt(out, "  # %s ", dtype_name(node->dtype));
    }
    shape_print(graph, node->shape, node->rank, out);
    text_char(out, '\n');
}

static void list_print(const char *key, const i32 *item, u32 count, struct text *out)
{
    text_fmt(out, " %s=[", key);
    for (u32 i = 0; i < count; i++)
        text_fmt(out, i ? ",%d" : "%d", item[i]);
    text_char(out, ']');
}

/* Everything that is neither an operand nor follows from the operands. */
static void details_print(const struct graph *graph, const struct node *node, struct text *out)
{
    bool reduces = op_row[node->op].class == CLASS_REDUCE;
    u32 axes = reduces ? node->reduce.axes : node->flip.axes, count = 0;
    i32 axis[RANK_MAX], order[RANK_MAX];

    for (u32 i = 0; i < RANK_MAX; i++) {
        order[i] = node->permute.order[i];
        if (axes >> i & 1)
            axis[count++] = (i32)i;
    }
    if (reduces || node->op == OP_FLIP)
        list_print(reduces ? "keep=1 axis" : "axis", axis, count, out);
    if (reduces && node->reduce.has_len) {
        text_put(out, STR(" len="));
        name_print(graph, node->src[1], out);
    }
    if (node->op == OP_PERMUTE)
        list_print("order", order, node->rank, out);
    if (node->op == OP_SLICE || node->op == OP_PAD)
        list_print(node->op == OP_SLICE ? "begin" : "before", node->slice.begin, node->rank, out);
    if (node->op == OP_SCALAR)
        text_fmt(out, " bits=%d type=%s", (i32)node->scalar.bits, dtype_name(node->dtype));
    if (node->op == OP_IOTA)
        text_fmt(out, " axis=%u", node->iota.axis);
    if (node->op == OP_QUANT)
        text_fmt(out, " block=%u", node->quant.block);
    if (node->op == OP_SCALAR || node->op == OP_IOTA || node->op == OP_RESHAPE ||
        node->op == OP_EXPAND || node->op == OP_SLICE || node->op == OP_PAD) {
        text_put(out, STR(" shape="));
        shape_print(graph, node->shape, node->rank, out);
    }
}
