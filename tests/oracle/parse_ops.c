/*
 * parse_ops.c: what each operation of the text form builds: a table of names, and the attributes
 * they take. Elementwise operations and reductions come straight from op.def. Must not know how
 * lines are cut into words.
 */
#include "tests/oracle/parse.h"

struct form {
    const char *name;
    u8 least, most; /* operands */
    u32 (*build)(struct call *call);
    u32 (*unary)(struct graph *graph, u32 a); /* instead of build */
};

static u32 build_element(struct call *call, enum op op);
static u32 build_reduce(struct call *call, enum op op);

/* Every other name is looked up in op.def: elementwise operations and reductions. */
static const struct form *form_find(const struct call *call);

u32 call_build(struct call *call)
{
    const struct form *form = form_find(call);

    if (form)
        return form->unary ? form->unary(call->graph, call->src[0]) : form->build(call);
    for (enum op op = 0; op < OP_COUNT; op++) {
        bool named = str_eq_nocase(call->op, str_of(op_row[op].name));
        if (named && op_row[op].class == CLASS_ELEMENT && op_row[op].sources == call->count)
            return build_element(call, op);
        if (named && op_row[op].class == CLASS_REDUCE && call->count == 1)
            return build_reduce(call, op);
    }
    return parse_fail(call->graph, "no operation \"%.*s\" with %u operands", (int)call->op.len,
                      call->op.ptr, call->count);
}

static u32 build_element(struct call *call, enum op op)
{
    const u32 *src = call->src;

    if (call->count == 3)
        return graph_where(call->graph, src[0], src[1], src[2]);
    return call->count == 2 ? graph_binary(call->graph, op, src[0], src[1])
                            : graph_unary(call->graph, op, src[0]);
}

/* ---- attributes ---- */

static bool attr_take(struct call *call, const char *key, struct str *value)
{
    for (u32 i = 0; i < call->attr_count; i++)
        if (str_eq(call->attr[i].key, str_of(key)) && !call->attr[i].used) {
            call->attr[i].used = true;
            *value = call->attr[i].value;
            return true;
        }
    return false;
}

static u32 attr_missing(struct call *call, const char *key)
{
    return parse_fail(call->graph, "%.*s wants a correct %s=", (int)call->op.len, call->op.ptr,
                      key);
}

/* A list of whole numbers, exactly `count` of them. */
static bool attr_numbers(struct call *call, const char *key, i32 *out, u32 count)
{
    struct str list, item;
    u32 have = 0;
    bool good = attr_take(call, key, &list);

    while (good && parse_item(&list, &item))
        good = have < count && parse_whole(item, &out[have++]);
    if (!good || have != count)
        attr_missing(call, key);
    return good && have == count;
}

static f32 attr_number(struct call *call, const char *key, f32 otherwise)
{
    struct str text;
    f64 value = (f64)otherwise;

    if (attr_take(call, key, &text) && !parse_number(text, &value))
        attr_missing(call, key);
    return (f32)value;
}

/* Axes as a bit mask; negative ones count from the end. */
static u32 attr_axes(struct call *call, u32 rank, u32 otherwise)
{
    struct str list, item;
    u32 axes = 0;

    if (!attr_take(call, "axis", &list))
        return otherwise;
    while (parse_item(&list, &item)) {
        i32 axis = 0;
        bool good = parse_whole(item, &axis) && axis >= -(i32)rank && axis < (i32)rank;
        if (!good)
            return attr_missing(call, "axis");
        axes |= 1u << (axis < 0 ? axis + (i32)rank : axis);
    }
    return axes;
}

static u32 attr_axis(struct call *call, u32 rank, u32 otherwise)
{
    u32 axes = attr_axes(call, rank, otherwise < rank ? 1u << otherwise : 0);

    if (axes == 0 || (axes & (axes - 1)))
        attr_missing(call, "axis");
    return axes ? (u32)__builtin_ctz(axes) : 0;
}

static u32 attr_node(struct call *call, const char *key)
{
    struct str name;

    return attr_take(call, key, &name) ? parse_name(call->parse, name) : NO_NODE;
}

static u32 attr_dims(struct call *call, dim *shape)
{
    struct str list;

    return attr_take(call, "shape", &list) ? parse_dims(call->parse, list, shape)
                                           : attr_missing(call, "shape");
}

/* ---- operations ---- */

static u32 rank_of(const struct call *call) { return call->graph->node[call->src[0]].rank; }

/* axis= all by default, keep=1 leaves them with extent 1, len= counts only the leading elements. */
static u32 drop_axes(struct call *call, u32 reduced, u32 axes)
{
    if (attr_number(call, "keep", 0) != 0)
        return reduced;
    return compose_squeeze(call->graph, reduced, axes);
}

static u32 build_reduce(struct call *call, enum op op)
{
    u32 axes = attr_axes(call, rank_of(call), (1u << rank_of(call)) - 1);
    u32 len = attr_node(call, "len");

    return drop_axes(call, graph_reduce(call->graph, op, call->src[0], axes, len), axes);
}

static u32 build_sum(struct call *call) { return build_reduce(call, OP_REDUCE_SUM); }
static u32 build_max(struct call *call) { return build_reduce(call, OP_REDUCE_MAX); }
static u32 build_min(struct call *call) { return build_reduce(call, OP_REDUCE_MIN); }

static u32 build_mean(struct call *call)
{
    u32 axes = attr_axes(call, rank_of(call), (1u << rank_of(call)) - 1);

    return drop_axes(call, graph_mean(call->graph, call->src[0], axes), axes);
}

static u32 build_softmax(struct call *call)
{
    u32 axis = attr_axis(call, rank_of(call), rank_of(call) - 1);

    return compose_softmax(call->graph, call->src[0], axis, attr_node(call, "len"));
}

static u32 build_rms_norm(struct call *call)
{
    return graph_rms_norm(call->graph, call->src[0], call->count > 1 ? call->src[1] : NO_NODE,
                          attr_number(call, "eps", 1e-5f));
}

static u32 build_layer_norm(struct call *call)
{
    return compose_layer_norm(call->graph, call->src[0], call->count > 1 ? call->src[1] : NO_NODE,
                            call->count > 2 ? call->src[2] : NO_NODE,
                            attr_number(call, "eps", 1e-5f));
}

static u32 build_gt(struct call *call)
{
    return graph_binary(call->graph, OP_LT, call->src[1], call->src[0]);
}

static u32 build_ge(struct call *call)
{
    return graph_binary(call->graph, OP_LE, call->src[1], call->src[0]);
}

static u32 not_of(struct graph *graph, u32 a)
{
    return graph_binary(graph, OP_XOR, a, graph_scalar_i32(graph, 1));
}

static u32 build_ne(struct call *call)
{
    return not_of(call->graph, graph_binary(call->graph, OP_EQ, call->src[0], call->src[1]));
}

static u32 relu_of(struct graph *graph, u32 a)
{
    return graph_binary(graph, OP_MAX, a, graph_scalar_f32(graph, 0));
}

static u32 square_of(struct graph *graph, u32 a) { return graph_binary(graph, OP_MUL, a, a); }

static u32 build_clamp(struct call *call)
{
    u32 floored = graph_binary(call->graph, OP_MAX, call->src[0], call->src[1]);

    return graph_binary(call->graph, OP_MIN, floored, call->src[2]);
}

static u32 build_cast(struct call *call)
{
    struct str to = {};

    if (!attr_take(call, "to", &to) || !(str_eq(to, STR("f32")) || str_eq(to, STR("i32"))))
        return attr_missing(call, "to");
    return graph_cast(call->graph, call->src[0], to.ptr[0] == 'f' ? DT_F32 : DT_I32);
}

/* A constant in every element. The printed form of a scalar gives its bits and type. */
static u32 build_fill(struct call *call)
{
    dim shape[RANK_MAX];
    u32 rank = attr_dims(call, shape);

    return graph_expand(call->graph, call->src[0], shape, rank);
}

static u32 build_scalar(struct call *call)
{
    struct str type = {};
    dim shape[RANK_MAX];
    i32 bits;
    f32 value;

    if (!attr_numbers(call, "bits", &bits, 1) || !attr_take(call, "type", &type))
        return attr_missing(call, "type");
    memcpy(&value, &bits, sizeof value);
    u32 node = str_eq(type, STR("f32")) ? graph_scalar_f32(call->graph, value)
                                        : graph_scalar_i32(call->graph, bits);
    return graph_expand(call->graph, node, shape, attr_dims(call, shape));
}

static u32 build_iota(struct call *call)
{
    dim shape[RANK_MAX];
    u32 rank = attr_dims(call, shape);

    return graph_iota(call->graph, attr_axis(call, rank, 0), shape, rank);
}

/* -1 stands for what is left of the constant extents. */
static u32 build_reshape(struct call *call)
{
    const struct node *src = &call->graph->node[call->src[0]];
    struct str list = {}, item;
    dim shape[RANK_MAX];
    u64 have = 1, given = 1;
    u32 rank = 0, open = RANK_MAX;

    if (!attr_take(call, "shape", &list))
        return attr_missing(call, "shape");
    for (u32 i = 0; i < src->rank; i++)
        have *= dim_is_sym(src->shape[i]) ? 1 : (u64)src->shape[i].v;
    for (; parse_item(&list, &item); rank++) {
        if (rank == RANK_MAX || (str_eq(item, STR("-1")) && open < RANK_MAX))
            return parse_fail(call->graph, "reshape: too many axes, or -1 twice");
        shape[rank] = dim_of(1);
        if (str_eq(item, STR("-1")))
            open = rank;
        else
            parse_dims(call->parse, item, &shape[rank]);
        u64 extent = dim_is_sym(shape[rank]) ? 1 : (u64)shape[rank].v;
        given *= given <= SHAPE_ELEMENTS_MAX / extent ? extent : 1;
    }
    if (open < RANK_MAX && have / given <= INT32_MAX && have >= given)
        shape[open] = dim_of((u32)(have / given));
    return graph_reshape(call->graph, call->src[0], shape, rank);
}

static u32 build_expand(struct call *call)
{
    dim shape[RANK_MAX];

    return graph_expand(call->graph, call->src[0], shape, attr_dims(call, shape));
}

static u32 build_permute(struct call *call)
{
    i32 order[RANK_MAX];
    u8 small[RANK_MAX];

    if (!attr_numbers(call, "order", order, rank_of(call)))
        return 0;
    for (u32 i = 0; i < rank_of(call); i++)
        small[i] = (u8)(order[i] >= 0 && order[i] < (i32)RANK_MAX ? order[i] : (i32)RANK_MAX);
    return graph_permute(call->graph, call->src[0], small);
}

/* Swaps two axes, the last two by default. */
static u32 build_transpose(struct call *call)
{
    u32 rank = rank_of(call), axes = attr_axes(call, rank, rank >= 2 ? 3u << (rank - 2) : 0);
    u8 order[RANK_MAX] = {0, 1, 2, 3, 4, 5};

    if (__builtin_popcount(axes) != 2)
        return attr_missing(call, "axis");
    u8 low = (u8)__builtin_ctz(axes), high = (u8)__builtin_ctz(axes & (axes - 1));
    order[low] = high;
    order[high] = low;
    return graph_permute(call->graph, call->src[0], order);
}

static u32 build_squeeze(struct call *call)
{
    return compose_squeeze(call->graph, call->src[0], attr_axes(call, rank_of(call), 0));
}

/* The new axis stands at axis= of the result. */
static u32 build_unsqueeze(struct call *call)
{
    u32 rank = rank_of(call) + 1, at = attr_axis(call, rank, 0);
    const dim *old = call->graph->node[call->src[0]].shape;
    dim shape[RANK_MAX + 1];

    for (u32 i = 0; i < rank; i++)
        shape[i] = i == at ? dim_of(1) : old[i - (i > at ? 1 : 0)];
    return graph_reshape(call->graph, call->src[0], shape, rank);
}

static u32 build_slice(struct call *call)
{
    i32 begin[RANK_MAX];
    dim shape[RANK_MAX];
    u32 rank = attr_dims(call, shape);

    if (!attr_numbers(call, "begin", begin, rank_of(call)) || rank != rank_of(call))
        return attr_missing(call, "shape");
    return graph_slice(call->graph, call->src[0], begin, shape);
}

static u32 build_pad(struct call *call)
{
    i32 before[RANK_MAX];
    dim shape[RANK_MAX];
    u32 rank = attr_dims(call, shape);

    if (!attr_numbers(call, "before", before, rank_of(call)) || rank != rank_of(call))
        return attr_missing(call, "shape");
    return graph_pad(call->graph, call->src[0], before, shape);
}

static u32 build_flip(struct call *call)
{
    return graph_flip(call->graph, call->src[0], attr_axes(call, rank_of(call), 0));
}

static u32 build_concat(struct call *call)
{
    u32 axis = attr_axis(call, rank_of(call), 0);

    return compose_concat(call->graph, call->src, call->count, axis);
}

static u32 build_gather(struct call *call)
{
    return graph_gather(call->graph, call->src[0], call->src[1]);
}

static u32 build_scatter(struct call *call)
{
    return graph_scatter(call->graph, call->src[0], call->src[1], call->src[2]);
}

static u32 build_matmul(struct call *call)
{
    return compose_matmul(call->graph, call->src[0], call->src[1]);
}

static u32 build_linear(struct call *call)
{
    u32 y = graph_linear(call->graph, call->src[0], call->src[1]);

    return call->count == 2 ? y : graph_binary(call->graph, OP_ADD, y, call->src[2]);
}

static u32 build_quant(struct call *call)
{
    i32 block = 0;

    if (!attr_numbers(call, "block", &block, 1))
        return 0;
    return graph_quant(call->graph, call->src[0], block > 0 ? (u32)block : 0);
}

// clang-format off
static const struct form forms[] = {
    {"sum",        1, 1, build_sum, NULL},
    {"max",        1, 1, build_max, NULL}, /* with two operands: elementwise */
    {"min",        1, 1, build_min, NULL},
    {"mean",       1, 1, build_mean, NULL},
    {"softmax",    1, 1, build_softmax, NULL},
    {"rms_norm",   1, 2, build_rms_norm, NULL},
    {"layer_norm", 1, 3, build_layer_norm, NULL},
    {"gt",         2, 2, build_gt, NULL},
    {"ge",         2, 2, build_ge, NULL},
    {"ne",         2, 2, build_ne, NULL},
    {"not",        1, 1, NULL, not_of},
    {"relu",       1, 1, NULL, relu_of},
    {"square",     1, 1, NULL, square_of},
    {"sigmoid",    1, 1, NULL, graph_sigmoid},
    {"silu",       1, 1, NULL, graph_silu},
    {"tanh",       1, 1, NULL, compose_tanh},
    {"gelu",       1, 1, NULL, compose_gelu},
    {"clamp",      3, 3, build_clamp, NULL},
    {"cast",       1, 1, build_cast, NULL},
    {"fill",       1, 1, build_fill, NULL},
    {"scalar",     0, 0, build_scalar, NULL},
    {"iota",       0, 0, build_iota, NULL},
    {"reshape",    1, 1, build_reshape, NULL},
    {"expand",     1, 1, build_expand, NULL},
    {"permute",    1, 1, build_permute, NULL},
    {"transpose",  1, 1, build_transpose, NULL},
    {"squeeze",    1, 1, build_squeeze, NULL},
    {"unsqueeze",  1, 1, build_unsqueeze, NULL},
    {"slice",      1, 1, build_slice, NULL},
    {"pad",        1, 1, build_pad, NULL},
    {"flip",       1, 1, build_flip, NULL},
    {"concat",     1, OPERANDS_MAX, build_concat, NULL},
    {"gather",     2, 2, build_gather, NULL},
    {"scatter",    3, 3, build_scatter, NULL},
    {"matmul",     2, 2, build_matmul, NULL},
    {"linear",     2, 3, build_linear, NULL},
    {"quant",      1, 1, build_quant, NULL},
};
// clang-format on

static const struct form *form_find(const struct call *call)
{
    for (u32 i = 0; i < ARRAY_LEN(forms); i++)
        if (str_eq(call->op, str_of(forms[i].name)) && call->count >= forms[i].least &&
            call->count <= forms[i].most)
            return &forms[i];
    return NULL;
}
