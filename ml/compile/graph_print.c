/*
 * graph_print.c: a graph as text, in the form that parse.c reads (docs/GRAPH.md), with the shape of
 * every value as a comment. Must not know what the graph is for.
 */
#include "ml/compile/compile.h"

static const struct dtype_row {
    const char *name;
    u32 bytes;
} dtype_row[DT_COUNT] = {
    [DT_F32] = {"f32", 4}, [DT_I32] = {"i32", 4}, [DT_F16] = {"f16", 2},
    [DT_BF16] = {"bf16", 2}, [DT_I8] = {"i8", 1}, [DT_U8] = {"u8", 1},
};

static void source_print(const struct graph *graph, const struct node *node, struct text *out);
static void node_print(const struct graph *graph, const struct node *node, struct text *out);

u32 dtype_bytes(enum dtype dtype) { return dtype_row[dtype].bytes; }
const char *dtype_name(enum dtype dtype) { return dtype_row[dtype].name; }

void graph_print(const struct graph *graph, struct text *out)
{
    for (u32 i = 0; i < graph->sym_count; i++)
        text_fmt(out, "sym %.*s %u\n", (int)graph->sym[i].name.len, graph->sym[i].name.ptr,
                 graph->sym[i].bound);
    for (u32 i = 0; i < graph->node_count; i++) {
        const struct node *node = &graph->node[i];
        if (node->op <= OP_WEIGHT) {
            source_print(graph, node, out);
            continue;
        }
        text_fmt(out, "n%u = ", i);
        node_print(graph, node, out);
        text_fmt(out, "  # %s ", dtype_name(node->dtype));
        shape_print(graph, node->shape, node->rank, out);
        text_char(out, '\n');
    }
    for (u32 i = 0; i < graph->output_count; i++) {
        text_fmt(out, "output %.*s=", (int)graph->output_name[i].len, graph->output_name[i].ptr);
        node_name_print(graph, graph->output[i], out);
        text_char(out, '\n');
    }
}

void shape_print(const struct graph *graph, const dim *shape, u32 rank, struct text *out)
{
    for (u32 i = 0; i < rank; i++) {
        text_put(out, i ? STR(",") : STR("["));
        if (dim_is_sym(shape[i]))
            text_put(out, graph->sym[dim_sym_idx(shape[i])].name);
        else
            text_fmt(out, "%d", shape[i].v);
    }
    text_put(out, rank ? STR("]") : STR("[]"));
}

/* Sources go by their own names, all others by number. */
void node_name_print(const struct graph *graph, u32 idx, struct text *out)
{
    const struct node *node = &graph->node[idx];

    if (node->op <= OP_WEIGHT)
        text_put(out, graph->external[node->source.external].name);
    else
        text_fmt(out, "n%u", idx);
}

static void name_print_lower(const char *name, struct text *out)
{
    for (; *name; name++)
        text_char(out, *name >= 'A' && *name <= 'Z' ? (char)(*name - 'A' + 'a') : *name);
}

static void source_print(const struct graph *graph, const struct node *node, struct text *out)
{
    const struct external *external = &graph->external[node->source.external];

    name_print_lower(op_row[node->op].name, out);
    text_fmt(out, " %.*s ", (int)external->name.len, external->name.ptr);
    if (node->op == OP_WEIGHT && external->format.len)
        text_put(out, external->format);
    else
        text_fmt(out, "%s", dtype_name(external->storage));
    text_char(out, ' ');
    shape_print(graph, external->shape, external->rank, out);
    text_char(out, '\n');
}

static void axes_print(const char *key, u32 axes, struct text *out)
{
    bool first = true;

    text_fmt(out, " %s=[", key);
    for (u32 i = 0; i < RANK_MAX; i++)
        if (axes >> i & 1) {
            text_fmt(out, first ? "%u" : ",%u", i);
            first = false;
        }
    text_char(out, ']');
}

static void numbers_print(const char *key, const struct node *node, struct text *out)
{
    text_fmt(out, " %s=[", key);
    for (u32 i = 0; i < node->rank; i++)
        text_fmt(out, i ? ",%d" : "%d",
                 node->op == OP_PERMUTE ? node->permute.order[i] : node->slice.begin[i]);
    text_char(out, ']');
}

static void node_print(const struct graph *graph, const struct node *node, struct text *out)
{
    u32 srcs = op_row[node->op].sources;
    bool shaped = node->op == OP_RESHAPE || node->op == OP_EXPAND || node->op == OP_SLICE ||
                  node->op == OP_PAD || node->op == OP_SCALAR || node->op == OP_IOTA;

    name_print_lower(op_row[node->op].name, out);
    for (u32 i = 0; i < srcs; i++) {
        text_char(out, ' ');
        node_name_print(graph, node->src[i], out);
    }
    if (node->op == OP_SCALAR)
        text_fmt(out, " bits=%d type=%s", (i32)node->scalar.bits, dtype_name(node->dtype));
    if (node->op == OP_IOTA)
        text_fmt(out, " axis=%u", node->iota.axis);
    if (node->op == OP_QUANT)
        text_fmt(out, " block=%u", node->quant.block);
    if (node->op == OP_FLIP)
        axes_print("axis", node->flip.axes, out);
    if (node->op == OP_PERMUTE)
        numbers_print("order", node, out);
    if (node->op == OP_SLICE || node->op == OP_PAD)
        numbers_print(node->op == OP_SLICE ? "begin" : "before", node, out);
    if (op_row[node->op].class == CLASS_REDUCE)
        axes_print("keep=1 axis", node->reduce.axes, out);
    if (node->src_count > srcs) {
        text_put(out, STR(" len="));
        node_name_print(graph, node->src[1], out);
    }
    if (shaped) {
        text_put(out, STR(" shape="));
        shape_print(graph, node->shape, node->rank, out);
    }
}
