/*
 * interp.c: the oracle: evaluates a graph node by node, each element in f32 (or wrapping 32-bit
 * integers), sums and dot products in f64. A move is a view of its source where strides can say it.
 * A reduction reads a one-user elementwise source row by row, so that a product that is only summed
 * never takes memory. Knows nothing of schedules or machines: simpler than what it judges.
 */
#include "tests/oracle/oracle.h"
#include "tests/oracle/element.h"
#include "ml/mathf.h"
#include "ml/quant.h"

/* Elements of 4 bytes: element idx is at base[offset + sum of idx[axis] * stride[axis]]. */
struct value {
    union cell *base;
    i64 offset, stride[RANK_MAX];
};

struct interp {
    const struct graph *graph;
    const struct binding *binding;
    const u32 *sym_value;
    struct arena *arena;
    struct value *value;
    u32 (*extent)[RANK_MAX]; /* of each node, symbols resolved */
    u8 *waits; /* elementwise, and only a reduction reads it: evaluated there, row by row */
    bool full; /* the arena is */
};

#define ROW_CELLS_MAX 256u

static void node_run(struct interp *in, u32 idx);
static void source_run(struct interp *in, u32 idx);
static void element_run(struct interp *in, u32 idx);
static void move_run(struct interp *in, u32 idx);
static void reduce_run(struct interp *in, u32 idx);
static void gather_run(struct interp *in, u32 idx);
static void scatter_run(struct interp *in, u32 idx);
static void quant_run(struct interp *in, u32 idx);
static void linear_run(struct interp *in, u32 idx);
static bool waits_mark(struct interp *in);
static union cell *dense(struct interp *in, u32 idx);

err interp_run(const struct graph *graph, const struct binding *binding, const u32 *sym_value,
               struct arena *arena, void **output)
{
    struct interp in = {.graph = graph, .binding = binding, .sym_value = sym_value, .arena = arena};
    u32 count = graph->node_count;

    in.value = arena_new(arena, struct value, count + 1);
    in.extent = arena_alloc_array(arena, count + 1, sizeof *in.extent, 4);
    in.waits = arena_new(arena, u8, count + 1);
    if (!in.value || !in.extent || !in.waits || !waits_mark(&in))
        return E_NOMEM;
    for (u32 i = 0; i < count; i++)
        for (u32 axis = 0; axis < graph->node[i].rank; axis++)
            in.extent[i][axis] = dim_value(graph, graph->node[i].shape[axis], sym_value);
    for (u32 i = 0; i < count && !in.full; i++)
        node_run(&in, i);
    for (u32 i = 0; i < graph->output_count && !in.full; i++)
        output[i] = dense(&in, graph->output[i]);
    return in.full ? E_NOMEM : OK;
}

static bool waits_mark(struct interp *in)
{
    const struct graph *graph = in->graph;
    u32 *uses = arena_new(in->arena, u32, graph->node_count + 1);

    for (u32 i = 0; uses && i < graph->output_count; i++)
        uses[graph->output[i]]++;
    for (u32 i = 0; uses && i < graph->node_count; i++)
        for (u32 s = 0; s < graph->node[i].src_count; s++)
            uses[graph->node[i].src[s]]++;
    for (u32 i = 0; uses && i < graph->node_count; i++) {
        const struct node *node = &graph->node[i], *src = &graph->node[node->src[0]];
        if (op_row[node->op].class == CLASS_REDUCE && op_row[src->op].class == CLASS_ELEMENT)
            in->waits[node->src[0]] = uses[node->src[0]] == 1;
    }
    return uses;
}

static void node_run(struct interp *in, u32 idx)
{
    static void (*const run[])(struct interp *, u32) = {
        [CLASS_SOURCE] = source_run,   [CLASS_ELEMENT] = element_run, [CLASS_MOVE] = move_run,
        [CLASS_REDUCE] = reduce_run,   [CLASS_GATHER] = gather_run,   [CLASS_SCATTER] = scatter_run,
        [CLASS_QUANT] = quant_run,     [CLASS_LINEAR] = linear_run,
    };

    if (!in->waits[idx])
        run[op_row[in->graph->node[idx].op].class](in, idx);
}

/* ---- values ---- */

static u64 count_of(const struct interp *in, u32 idx)
{
    const struct node *node = &in->graph->node[idx];

    return shape_elements(in->graph, node->shape, node->rank, in->sym_value);
}

static union cell *cells_new(struct interp *in, u64 count)
{
    union cell *cells = arena_alloc_array(in->arena, count + 1, sizeof *cells, 64);

    in->full |= !cells;
    return cells;
}

/* The strides of row-major order. */
static void value_dense(struct interp *in, u32 idx, union cell *base)
{
    i64 stride = 1;

    in->value[idx] = (struct value){.base = base};
    for (u32 axis = in->graph->node[idx].rank; axis-- > 0; stride *= in->extent[idx][axis])
        in->value[idx].stride[axis] = stride;
}

/* New memory for a node's result; NULL when there is none, then nothing may be written. */
static union cell *value_new(struct interp *in, u32 idx)
{
    union cell *base = cells_new(in, count_of(in, idx));

    value_dense(in, idx, base);
    return base;
}

/* A part of a row of elements: `at` is the index on all axes but the last; on that one it starts at
 * `first` and is `span` long. */
struct row {
    u64 left;  /* elements from here to the end */
    u64 done;  /* elements before this part, in row-major order */
    u32 cells; /* in a whole row */
    u32 first, span;
    u32 at[RANK_MAX];
};

static struct row rows_of(const struct interp *in, u32 idx)
{
    u32 rank = in->graph->node[idx].rank, cells = rank ? in->extent[idx][rank - 1] : 1;

    return (struct row){.left = count_of(in, idx), .cells = cells,
                        .span = min_u32(cells, ROW_CELLS_MAX)};
}

static void row_next(const struct interp *in, u32 idx, struct row *row)
{
    row->left -= row->span;
    row->done += row->span;
    row->first += row->span;
    if (row->first == row->cells) {
        row->first = 0;
        for (u32 axis = in->graph->node[idx].rank; axis-- > 1;) {
            if (++row->at[axis - 1] < in->extent[idx][axis - 1])
                break;
            row->at[axis - 1] = 0;
        }
    }
    row->span = min_u32(row->cells - row->first, ROW_CELLS_MAX);
}

static i64 row_stride(const struct value *value, u32 rank)
{
    return rank ? value->stride[rank - 1] : 0;
}

/* Where this part starts in a value that has the rows' axes. */
static union cell *row_base(const struct value *value, const struct row *row, u32 rank)
{
    i64 offset = value->offset + row->first * row_stride(value, rank);

    for (u32 axis = 0; axis + 1 < rank; axis++)
        offset += (i64)row->at[axis] * value->stride[axis];
    return value->base + offset;
}

/* Copies src, which has the axes of node `idx`, into `to`. */
static void value_copy(const struct interp *in, u32 idx, const struct value *src,
                       const struct value *to)
{
    u32 rank = in->graph->node[idx].rank;

    for (struct row row = rows_of(in, idx); row.left; row_next(in, idx, &row)) {
        const union cell *from = row_base(src, &row, rank);
        union cell *into = row_base(to, &row, rank);
        i64 from_step = row_stride(src, rank), into_step = row_stride(to, rank);
        for (i64 i = 0; i < row.span; i++)
            into[i * into_step] = from[i * from_step];
    }
}

static bool is_dense(const struct interp *in, u32 idx)
{
    i64 stride = 1;

    for (u32 axis = in->graph->node[idx].rank; axis-- > 0; stride *= in->extent[idx][axis])
        if (in->value[idx].stride[axis] != stride && in->extent[idx][axis] != 1)
            return false;
    return true;
}

/* The node's elements in row-major order; copied when its value is a view. */
static union cell *dense(struct interp *in, u32 idx)
{
    struct value view = in->value[idx];

    if (is_dense(in, idx))
        return view.base + view.offset;
    if (value_new(in, idx))
        value_copy(in, idx, &view, &in->value[idx]);
    return in->value[idx].base;
}

/* ---- sources ---- */

static union cell stored_read(enum dtype storage, const void *data, u64 idx)
{
    const u16 *half = data;

    switch (storage) {
    case DT_F16:
        return (union cell){.f = f16_to_f32(half[idx])};
    case DT_BF16:
        return (union cell){.f = bf16_to_f32(half[idx])};
    case DT_I8:
        return (union cell){.i = ((const i8 *)data)[idx]};
    case DT_U8:
        return (union cell){.i = ((const u8 *)data)[idx]};
    default:
        return ((const union cell *)data)[idx];
    }
}

static void stored_write(enum dtype storage, void *data, u64 idx, union cell value)
{
    u16 *half = data;

    switch (storage) {
    case DT_F16:
        half[idx] = f32_to_f16(value.f);
        return;
    case DT_BF16:
        half[idx] = f32_to_bf16(value.f);
        return;
    case DT_I8:
    case DT_U8:
        ((u8 *)data)[idx] = (u8)value.u;
        return;
    default:
        ((union cell *)data)[idx] = value;
    }
}

/* Memory of 4-byte elements is the value itself, any other is converted. */
static void stored_load(struct interp *in, u32 idx, enum dtype storage, void *data)
{
    if (dtype_bytes(storage) == 4) {
        value_dense(in, idx, data);
        return;
    }
    union cell *out = value_new(in, idx);
    for (u64 i = 0; out && i < count_of(in, idx); i++)
        out[i] = stored_read(storage, data, i);
}

static void source_run(struct interp *in, u32 idx)
{
    const struct node *node = &in->graph->node[idx];
    u32 axis = node->op == OP_IOTA ? node->iota.axis : 0;
    u32 count = node->op == OP_IOTA ? in->extent[idx][axis] : 1;

    if (node->op == OP_INPUT || node->op == OP_CONST || node->op == OP_STATE)
        stored_load(in, idx, node->source.storage, in->binding[node->source.external].data);
    if (node->op != OP_IOTA && node->op != OP_SCALAR)
        return; /* weights are read where they are used */
    union cell *out = cells_new(in, count);
    in->value[idx] = (struct value){.base = out};
    for (u32 i = 0; out && i < count; i++)
        out[i].u = node->op == OP_IOTA ? i : node->scalar.bits;
    if (node->op == OP_IOTA)
        in->value[idx].stride[axis] = 1;
}

/* ---- elementwise ---- */

/* This part of a row of node `idx`: computed from its sources, or copied where it exists. */
static void row_run(const struct interp *in, u32 idx, const struct row *row, union cell *out)
{
    const struct node *node = &in->graph->node[idx];
    bool exists = in->value[idx].base;
    struct operands src = {.floats = !exists && in->graph->node[node->src[0]].dtype == DT_F32};

    for (u32 s = 0; s < NODE_SRCS_MAX; s++) {
        u32 from = exists ? idx : node->src[s < node->src_count ? s : 0];
        src.step[s] = row_stride(&in->value[from], node->rank);
        src.base[s] = row_base(&in->value[from], row, node->rank);
    }
    element_row(exists ? OP_RESHAPE : node->op, &src, out, row->span);
}

static void element_run(struct interp *in, u32 idx)
{
    union cell *out = cells_new(in, count_of(in, idx));

    for (struct row row = rows_of(in, idx); out && row.left; row_next(in, idx, &row))
        row_run(in, idx, &row, out + row.done);
    value_dense(in, idx, out);
}

/* ---- moves ---- */

/* A reshape that only adds or drops axes of extent 1 keeps the strides; false: it does more. */
static bool reshape_view(struct interp *in, u32 idx, u32 src)
{
    u32 rank = in->graph->node[idx].rank, src_rank = in->graph->node[src].rank, from = 0;

    for (u32 axis = 0; axis < rank; axis++) {
        if (in->extent[idx][axis] == 1)
            continue;
        while (from < src_rank && in->extent[src][from] == 1)
            from++;
        if (from == src_rank || in->extent[src][from] != in->extent[idx][axis])
            return false;
        in->value[idx].stride[axis] = in->value[src].stride[from++];
    }
    in->value[idx].base = in->value[src].base;
    in->value[idx].offset = in->value[src].offset;
    return true;
}

static void pad_run(struct interp *in, u32 idx, u32 src)
{
    const struct node *node = &in->graph->node[idx];

    if (!value_new(in, idx))
        return;
    struct value inside = in->value[idx];
    for (u32 axis = 0; axis < node->rank; axis++)
        inside.offset += node->slice.begin[axis] * inside.stride[axis];
    value_copy(in, src, &in->value[src], &inside);
}

static void move_run(struct interp *in, u32 idx)
{
    const struct node *node = &in->graph->node[idx];
    u32 src = node->src[0];
    struct value *to = &in->value[idx];

    if (node->op == OP_PAD)
        pad_run(in, idx, src);
    else if (node->op == OP_RESHAPE && !reshape_view(in, idx, src))
        value_dense(in, idx, dense(in, src));
    if (node->op == OP_PAD || node->op == OP_RESHAPE)
        return;
    *to = in->value[src];
    for (u32 axis = 0; axis < node->rank; axis++) {
        i64 stride = to->stride[axis], last = (i64)in->extent[idx][axis] - 1;
        if (node->op == OP_PERMUTE)
            to->stride[axis] = in->value[src].stride[node->permute.order[axis]];
        if (node->op == OP_EXPAND && in->extent[src][axis] == 1)
            to->stride[axis] = 0;
        if (node->op == OP_SLICE)
            to->offset += node->slice.begin[axis] * stride;
        if (node->op == OP_FLIP && node->flip.axes >> axis & 1) {
            to->offset += last * stride;
            to->stride[axis] = -stride;
        }
    }
}

/* ---- reductions ---- */

/* What a part of a row is added to: sums and lengths beside it, with their steps along the row. */
struct sums {
    f64 *sum;
    const union cell *len; /* NULL: everything counts */
    i64 sum_step, len_step;
};

static f64 reduce_step(enum op op, f64 sum, f64 x)
{
    if (op == OP_REDUCE_SUM)
        return sum + x;
    if (op == OP_REDUCE_MAX)
        return x > sum ? x : sum;
    return x < sum ? x : sum;
}

static union cell reduce_end(enum dtype dtype, f64 sum)
{
    if (dtype == DT_F32)
        return (union cell){.f = (f32)sum};
    if (sum == MATH_INF || sum == -MATH_INF)
        return (union cell){.i = sum > 0 ? INT32_MAX : INT32_MIN};
    return (union cell){.u = (u32)(i64)sum};
}

static void reduce_row(const struct node *node, const struct row *row, const union cell *cells,
                       const struct sums *to)
{
    u32 axis = (u32)__builtin_ctz(node->reduce.axes);
    bool along = axis + 1 == node->rank;

    for (i64 i = 0; i < row->span; i++) {
        i64 place = along ? row->first + i : row->at[axis];
        f64 *sum = &to->sum[i * to->sum_step];
        f64 x = node->dtype == DT_F32 ? (f64)cells[i].f : cells[i].i;
        if (!to->len || place < to->len[i * to->len_step].i)
            *sum = reduce_step(node->op, *sum, x);
    }
}

static void reduce_run(struct interp *in, u32 idx)
{
    const struct node *node = &in->graph->node[idx];
    f64 start = node->op == OP_REDUCE_SUM ? 0 : node->op == OP_REDUCE_MAX ? -MATH_INF : MATH_INF;
    u32 src = node->src[0], rank = node->rank;
    u64 count = count_of(in, idx);
    union cell *out = value_new(in, idx), cells[ROW_CELLS_MAX];
    f64 *sum = arena_new(in->arena, f64, count + 1);
    struct value to = in->value[idx], len = in->value[node->src[node->reduce.has_len]];

    in->full |= !sum;
    for (u64 i = 0; sum && i < count; i++)
        sum[i] = start;
    for (u32 i = 0; i < rank; i++)
        if (node->reduce.axes >> i & 1)
            to.stride[i] = len.stride[i] = 0;
    for (struct row row = rows_of(in, src); !in->full && row.left; row_next(in, src, &row)) {
        struct sums sums = {.sum = sum + (row_base(&to, &row, rank) - to.base),
                            .len = node->reduce.has_len ? row_base(&len, &row, rank) : NULL,
                            .sum_step = row_stride(&to, rank), .len_step = row_stride(&len, rank)};
        row_run(in, src, &row, cells);
        reduce_row(node, &row, cells, &sums);
    }
    for (u64 i = 0; !in->full && i < count; i++)
        out[i] = reduce_end(node->dtype, sum[i]);
}

/* ---- rows by index ---- */

static const struct external *external_of(const struct interp *in, u32 idx, void **data)
{
    u32 external = in->graph->node[idx].source.external;

    *data = in->binding[external].data;
    return &in->graph->external[external];
}

static void gather_run(struct interp *in, u32 idx)
{
    const struct node *node = &in->graph->node[idx];
    u32 table = node->src[0], rows = in->extent[table][0];
    bool weight = in->graph->node[table].op == OP_WEIGHT;
    const union cell *at = dense(in, node->src[1]), *from = weight ? NULL : dense(in, table);
    u64 count = count_of(in, node->src[1]), cells = count ? count_of(in, idx) / count : 0;
    union cell *out = value_new(in, idx);
    void *data = NULL;
    const struct external *external = weight ? external_of(in, table, &data) : NULL;

    for (u64 i = 0; !in->full && rows && i < count; i++) {
        u32 row = at[i].i < 0 ? 0 : min_u32(at[i].u, rows - 1);
        if (weight)
            packing_row(&external->packing, data, (u32)cells, row, &out[i * cells].f);
        else
            memcpy(out + i * cells, from + row * cells, cells * sizeof *out);
    }
}

static void scatter_run(struct interp *in, u32 idx)
{
    const struct node *node = &in->graph->node[idx];
    u32 state = idx, rows = in->extent[idx][0], count = in->extent[node->src[1]][0];
    const union cell *at = dense(in, node->src[1]), *from = dense(in, node->src[2]);
    u64 cells = rows ? count_of(in, idx) / rows : 0;
    void *data;

    while (in->graph->node[state].op == OP_SCATTER)
        state = in->graph->node[state].src[0];
    enum dtype storage = external_of(in, state, &data)->storage;
    for (u32 i = 0; !in->full && i < count; i++)
        for (u64 k = 0; at[i].u < rows && k < cells; k++)
            stored_write(storage, data, at[i].u * cells + k, from[i * cells + k]);
    stored_load(in, idx, storage, data);
}

/* ---- weights ---- */

static void quant_run(struct interp *in, u32 idx)
{
    const struct node *node = &in->graph->node[idx];
    const union cell *x = dense(in, node->src[0]);
    union cell *out = value_new(in, idx);
    u32 block = node->quant.block;

    for (u64 first = 0; !in->full && first < count_of(in, idx); first += block) {
        f32 peak = 0;
        for (u32 i = 0; i < block; i++)
            peak = __builtin_fabsf(x[first + i].f) > peak ? __builtin_fabsf(x[first + i].f) : peak;
        f32 scale = peak / 16256, inverse = peak > 1e-30f ? 16256 / peak : 0;
        for (u32 i = 0; i < block; i++)
            out[first + i].f = f32_round_even(x[first + i].f * inverse) * scale;
    }
}

static void linear_run(struct interp *in, u32 idx)
{
    const struct node *node = &in->graph->node[idx];
    u32 rows = in->extent[node->src[1]][0], columns = in->extent[node->src[1]][1];
    u64 count = count_of(in, idx) / rows;
    const union cell *x = dense(in, node->src[0]);
    union cell *out = value_new(in, idx), *weight = cells_new(in, columns);
    void *data;
    const struct external *external = external_of(in, node->src[1], &data);

    for (u32 row = 0; !in->full && row < rows; row++) {
        packing_row(&external->packing, data, columns, row, &weight->f);
        for (u64 i = 0; i < count; i++) {
            f64 sum = 0;
            for (u32 k = 0; k < columns; k++)
                sum += (f64)x[i * columns + k].f * (f64)weight[k].f;
            out[i * rows + row].f = (f32)sum;
        }
    }
}
