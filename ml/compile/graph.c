/*
 * graph.c: builds graphs. A graph is a flat array of nodes in topological order in which equal
 * nodes exist once (hash-consing), so that common subexpressions never arise. Builders work out
 * shapes and types, graph_check.c alone decides whether a node is legal. Moves that change nothing
 * are never made, and a scalar takes any shape at no cost. Broadcasting follows numpy's published
 * rules. Knows no device, no model, no text.
 */
#include "ml/compile/compile.h"

#define OP(name, sources, class, rule, cost) {#name, sources, CLASS_##class, RULE_##rule, cost},
const struct op_row op_row[OP_COUNT] = {
#include "ml/compile/op.def"
};
#undef OP

// clang-format off
static const struct {
    const char *name;
    u32 bytes;
} dtype_row[DT_COUNT] = {
    [DT_F32]  = {"f32",  4}, [DT_I32] = {"i32", 4}, [DT_F16] = {"f16", 2},
    [DT_BF16] = {"bf16", 2}, [DT_I8]  = {"i8",  1}, [DT_U8]  = {"u8",  1},
};
u32 dtype_bytes(enum dtype dtype) { return dtype_row[dtype].bytes; }
const char *dtype_name(enum dtype dtype) { return dtype_row[dtype].name; }
// clang-format on

/* After a failure indexes mean nothing: a wrong one reads as node 0. graph_add knows better. */
static const struct node *node_at(const struct graph *graph, u32 idx)
{
    return &graph->node[idx < graph->node_count ? idx : 0];
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

/* The first mistake sticks: operation, sources and reason make the sentence a person will read. */
static u32 refuse(struct graph *graph, err why, const struct node *node, const char *what)
{
    struct text text = TEXT_ON(graph->why);

    if (graph->status != OK)
        return 0;
    graph->status = why;
    if (node)
        text_fmt(&text, "%s ", op_row[node->op].name);
    for (u32 i = 0; node && i < node->src_count; i++) {
        const struct node *src = node_at(graph, node->src[i]);
        text_fmt(&text, "%s", dtype_name(src->dtype));
        shape_print(graph, src->shape, src->rank, &text);
        text_char(&text, ' ');
    }
    text_fmt(&text, "%s%s", node ? "- " : "", what);
    graph->why[min_u64(text.len, sizeof graph->why - 1)] = 0;
    return 0;
}

static u32 hash_of(const struct node *node)
{
    u32 words[4 + NODE_SRCS_MAX + 2 * RANK_MAX] = {(u32)node->op, (u32)node->dtype, node->rank,
                                                   node->src_count};
    u32 hash = 0x811c9dc5;

    memcpy(words + 4, node->src, sizeof node->src);
    memcpy(words + 4 + NODE_SRCS_MAX, node->shape, sizeof node->shape);
    memcpy(words + 4 + NODE_SRCS_MAX + RANK_MAX, node->raw, sizeof node->raw);
    for (u32 i = 0; i < ARRAY_LEN(words); i++) {
        hash = (hash ^ words[i]) * 0x9e3779b1u;
        hash ^= hash >> 15;
    }
    return hash;
}

static bool node_same(const struct node *a, const struct node *b)
{
    return a->op == b->op && a->dtype == b->dtype && a->rank == b->rank &&
           a->src_count == b->src_count && memcmp(a->src, b->src, sizeof a->src) == 0 &&
           memcmp(a->shape, b->shape, sizeof a->shape) == 0 &&
           memcmp(a->raw, b->raw, sizeof a->raw) == 0;
}

/* Replaces the shape; what lies behind the rank stays zero, because whole nodes are compared. */
static void node_reshape(struct node *node, const dim *shape, u32 rank)
{
    memset(node->shape, 0, sizeof node->shape);
    node->rank = (u8)min_u32(rank, RANK_MAX + 1);
    if (rank && rank <= RANK_MAX)
        memcpy(node->shape, shape, rank * sizeof *shape);
}

static struct node node_new(enum op op, enum dtype dtype, const dim *shape, u32 rank)
{
    struct node node;

    memset(&node, 0, sizeof node);
    node.op = op;
    node.dtype = dtype;
    node_reshape(&node, shape, rank);
    return node;
}

/* A node with one source and that source's type and shape: what most builders change a little. */
static struct node node_like(const struct graph *graph, enum op op, u32 like)
{
    const struct node *src = node_at(graph, like);
    struct node node = node_new(op, src->dtype, src->shape, src->rank);

    node.src_count = 1;
    node.src[0] = like;
    return node;
}

err graph_init(struct graph *graph, struct arena *arena, u32 node_max)
{
    u32 places = 16;

    CHECK(node_max > 0 && node_max <= NODES_MAX);
    while (places < 2 * node_max)
        places *= 2;
    *graph = (struct graph){.arena = arena, .node_max = node_max, .hash_mask = places - 1};
    graph->node = arena_new(arena, struct node, node_max);
    graph->hash = arena_new(arena, u32, places);
    return graph->node && graph->hash ? OK : E_NOMEM;
}

/* The hash table holds index + 1, so that zeroed memory is an empty table. */
u32 graph_add(struct graph *graph, const struct node *node)
{
    u32 place = hash_of(node) & graph->hash_mask;

    if (graph->status != OK)
        return 0;
    for (u32 i = 0; i < node->src_count; i++)
        CHECK(node->src[i] < graph->node_count);
    const char *fault = node->rank > RANK_MAX ? "too many axes" : node_fault(graph, node);
    if (fault)
        return refuse(graph, E_FORMAT, node, fault);
    for (; graph->hash[place]; place = (place + 1) & graph->hash_mask)
        if (node_same(&graph->node[graph->hash[place] - 1], node))
            return graph->hash[place] - 1;
    if (graph->node_count == graph->node_max)
        return refuse(graph, E_LIMIT, node, "too many nodes");
    graph->node[graph->node_count] = *node;
    graph->hash[place] = ++graph->node_count;
    return graph->node_count - 1;
}

/* ---- sources ---- */

u32 graph_sym(struct graph *graph, struct str name, u32 bound)
{
    if (bound == 0 || bound > INT32_MAX)
        return refuse(graph, E_RANGE, NULL, "a symbol's bound must be 1 or more");
    for (u32 i = 0; i < graph->sym_count; i++)
        if (str_eq(graph->sym[i].name, name))
            return refuse(graph, E_FORMAT, NULL, "this symbol exists already");
    if (graph->sym_count == SYMS_MAX)
        return refuse(graph, E_LIMIT, NULL, "too many symbols");
    graph->sym[graph->sym_count] = (struct sym){name, bound};
    return graph->sym_count++;
}

u32 graph_source(struct graph *graph, const struct external *external)
{
    enum dtype storage = external->storage;
    bool whole = storage == DT_I32 || storage == DT_I8 || storage == DT_U8;
    struct node node =
        node_new(external->kind, whole ? DT_I32 : DT_F32, external->shape, external->rank);

    CHECK(external->kind <= OP_WEIGHT);
    node.source.external = graph->external_count;
    node.source.storage = storage;
    for (u32 i = 0; i < graph->external_count; i++)
        if (str_eq(graph->external[i].name, external->name))
            return refuse(graph, E_FORMAT, &node, "a source of this name exists already");
    if (graph->external_count == EXTERNALS_MAX)
        return refuse(graph, E_LIMIT, &node, "too many sources");
    graph->external[graph->external_count++] = *external;
    return graph_add(graph, &node);
}

u32 graph_scalar_f32(struct graph *graph, f32 value)
{
    struct node node = node_new(OP_SCALAR, DT_F32, NULL, 0);

    memcpy(&node.scalar.bits, &value, sizeof value);
    return graph_add(graph, &node);
}

u32 graph_scalar_i32(struct graph *graph, i32 value)
{
    struct node node = node_new(OP_SCALAR, DT_I32, NULL, 0);

    node.scalar.bits = (u32)value;
    return graph_add(graph, &node);
}

u32 graph_iota(struct graph *graph, u32 axis, const dim *shape, u32 rank)
{
    struct node node = node_new(OP_IOTA, DT_I32, shape, rank);

    node.iota.axis = (u8)min_u32(axis, RANK_MAX);
    return graph_add(graph, &node);
}

/* ---- elementwise ---- */

/* Widens `into` by `shape`, aligned at the last axis; false when two extents disagree. */
static bool broadcast_into(dim *into, u32 *rank, const struct node *src)
{
    dim wide[RANK_MAX];
    u32 count = max_u32(*rank, src->rank);

    for (u32 i = 0; i < count; i++) {
        dim a = i < count - *rank ? dim_of(1) : into[i - (count - *rank)];
        dim b = i < count - src->rank ? dim_of(1) : src->shape[i - (count - src->rank)];
        if (!dim_same(a, b) && a.v != 1 && b.v != 1)
            return false;
        wide[i] = a.v == 1 ? b : a;
    }
    *rank = count;
    memcpy(into, wide, count * sizeof *into);
    return true;
}

u32 graph_element(struct graph *graph, enum op op, const u32 *src)
{
    struct node node = node_new(op, DT_F32, NULL, 0);
    dim shape[RANK_MAX] = {};
    u32 rank = 0;

    CHECK(op_row[op].class == CLASS_ELEMENT);
    node.src_count = op_row[op].sources;
    memcpy(node.src, src, node.src_count * sizeof *src);
    for (u32 i = 0; i < node.src_count; i++)
        if (!broadcast_into(shape, &rank, node_at(graph, src[i])))
            return refuse(graph, E_FORMAT, &node, "shapes do not broadcast");
    node_reshape(&node, shape, rank);
    for (u32 i = 0; i < node.src_count; i++)
        node.src[i] = graph_expand(graph, src[i], shape, rank);
    node.dtype = node_dtype(graph, &node);
    return graph_add(graph, &node);
}

u32 graph_unary(struct graph *graph, enum op op, u32 a)
{
    CHECK(op_row[op].sources == 1);
    return graph_element(graph, op, &a);
}

u32 graph_binary(struct graph *graph, enum op op, u32 a, u32 b)
{
    CHECK(op_row[op].sources == 2);
    return graph_element(graph, op, (u32[]){a, b});
}

u32 graph_where(struct graph *graph, u32 condition, u32 a, u32 b)
{
    return graph_element(graph, OP_WHERE, (u32[]){condition, a, b});
}

u32 graph_cast(struct graph *graph, u32 a, enum dtype to)
{
    CHECK(to == DT_F32 || to == DT_I32);
    if (node_at(graph, a)->dtype == to)
        return a;
    return graph_unary(graph, to == DT_F32 ? OP_CAST_F32 : OP_CAST_I32, a);
}

/* ---- moves ---- */

/* A move that keeps the shape is no move. A scalar of another shape is still that scalar, unless
 * zeros come in. */
static u32 move_add(struct graph *graph, struct node *node, bool same_place)
{
    const struct node *src = node_at(graph, node->src[0]);
    struct node filled = *src;

    if (node->rank > RANK_MAX)
        return refuse(graph, E_LIMIT, node, "too many axes");
    if (same_place && shape_same(node->shape, node->rank, src->shape, src->rank))
        return node->src[0];
    if (src->op != OP_SCALAR || node->op == OP_PAD || node_fault(graph, node))
        return graph_add(graph, node);
    node_reshape(&filled, node->shape, node->rank);
    return graph_add(graph, &filled);
}

u32 graph_reshape(struct graph *graph, u32 a, const dim *shape, u32 rank)
{
    struct node node = node_like(graph, OP_RESHAPE, a);

    node_reshape(&node, shape, rank);
    return move_add(graph, &node, true);
}

u32 graph_expand(struct graph *graph, u32 a, const dim *shape, u32 rank)
{
    dim widened[RANK_MAX];
    u32 have = node_at(graph, a)->rank;

    if (rank > RANK_MAX || rank < have) {
        struct node node = node_like(graph, OP_EXPAND, a);
        return refuse(graph, E_FORMAT, &node, "expand needs as many axes or more");
    }
    for (u32 i = 0; i < rank; i++)
        widened[i] = i < rank - have ? dim_of(1) : node_at(graph, a)->shape[i - (rank - have)];
    struct node node = *node_at(graph, a);
    if (node.op != OP_SCALAR || have)
        node = node_like(graph, OP_EXPAND, graph_reshape(graph, a, widened, rank));
    node_reshape(&node, shape, rank);
    if (node.op == OP_SCALAR)
        return graph_add(graph, &node);
    return move_add(graph, &node, true);
}

u32 graph_permute(struct graph *graph, u32 a, const u8 *order)
{
    struct node node = node_like(graph, OP_PERMUTE, a);
    const struct node *src = node_at(graph, a);
    bool same_place = true;

    for (u32 i = 0; i < src->rank; i++) {
        node.permute.order[i] = order[i];
        node.shape[i] = src->shape[order[i] < src->rank ? order[i] : 0];
        same_place &= order[i] == i;
    }
    return move_add(graph, &node, same_place);
}

/* SLICE and PAD: a part of one shape lies in another. */
static u32 part_add(struct graph *graph, enum op op, u32 a, const i32 *begin, const dim *shape)
{
    struct node node = node_like(graph, op, a);
    bool same_place = true;

    node_reshape(&node, shape, node.rank);
    for (u32 i = 0; i < node.rank; i++) {
        node.slice.begin[i] = begin[i];
        same_place &= begin[i] == 0;
    }
    return move_add(graph, &node, same_place);
}

u32 graph_slice(struct graph *graph, u32 a, const i32 *begin, const dim *shape)
{
    return part_add(graph, OP_SLICE, a, begin, shape);
}

u32 graph_pad(struct graph *graph, u32 a, const i32 *before, const dim *shape)
{
    return part_add(graph, OP_PAD, a, before, shape);
}

u32 graph_flip(struct graph *graph, u32 a, u32 axes)
{
    struct node node = node_like(graph, OP_FLIP, a);

    node.flip.axes = (u8)min_u32(axes, UINT8_MAX);
    return move_add(graph, &node, axes == 0);
}

/* ---- reductions and the rest ---- */

u32 graph_reduce(struct graph *graph, enum op op, u32 a, u32 axes, u32 len)
{
    struct node node = node_like(graph, op, a);

    CHECK(op_row[op].class == CLASS_REDUCE);
    if (axes == 0 && len == NO_NODE)
        return a;
    for (u32 i = 0; i < node.rank; i++)
        if (axes >> i & 1)
            node.shape[i] = dim_of(1);
    node.reduce.axes = (u8)min_u32(axes, UINT8_MAX);
    node.reduce.has_len = len != NO_NODE;
    if (node.reduce.has_len) {
        node.src[1] = graph_expand(graph, len, node.shape, node.rank);
        node.src_count = 2;
    }
    return graph_add(graph, &node);
}

u32 graph_gather(struct graph *graph, u32 table, u32 index)
{
    struct node node = node_like(graph, OP_GATHER, table);
    const struct node *from = node_at(graph, table), *at = node_at(graph, index);
    dim shape[2 * RANK_MAX];
    u32 rank = 0;

    for (u32 i = 0; i < at->rank; i++)
        shape[rank++] = at->shape[i];
    for (u32 i = 1; i < from->rank; i++)
        shape[rank++] = from->shape[i];
    node.src[1] = index;
    node.src_count = 2;
    if (rank > RANK_MAX || from->rank == 0)
        return refuse(graph, E_LIMIT, &node, "the result has too many axes, or the table none");
    node_reshape(&node, shape, rank);
    return graph_add(graph, &node);
}

u32 graph_scatter(struct graph *graph, u32 state, u32 index, u32 value)
{
    struct node node = node_like(graph, OP_SCATTER, state);

    node.src[1] = index;
    node.src[2] = value;
    node.src_count = 3;
    return graph_add(graph, &node);
}

u32 graph_linear(struct graph *graph, u32 x, u32 weight)
{
    struct node node = node_like(graph, OP_LINEAR, x);

    node.src[1] = weight;
    node.src_count = 2;
    if (node.rank)
        node.shape[node.rank - 1] = node_at(graph, weight)->shape[0];
    return graph_add(graph, &node);
}

u32 graph_quant(struct graph *graph, u32 a, u32 block)
{
    struct node node = node_like(graph, OP_QUANT, a);

    node.quant.block = (u8)min_u32(block, UINT8_MAX);
    return graph_add(graph, &node);
}

void graph_output(struct graph *graph, struct str name, u32 node)
{
    bool taken = graph->output_count == ARRAY_LEN(graph->output);

    for (u32 i = 0; i < graph->output_count; i++)
        taken |= str_eq(graph->output_name[i], name);
    if (taken || node >= graph->node_count || node_at(graph, node)->op == OP_WEIGHT) {
        refuse(graph, E_FORMAT, NULL, "an output needs a name of its own and a value; 64 at most");
        return;
    }
    graph->output[graph->output_count] = node;
    graph->output_name[graph->output_count++] = name;
}
