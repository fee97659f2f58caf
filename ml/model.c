/*
 * model.c: one model from file to logits: builds and compiles the graph, repacks weights as they
 * stream in, binds memory, runs steps. The architecture's own facts are in hyper.c and
 * model_graph.c.
 */
#include "ml/model_priv.h"

#define COMPILE_BYTES                                                                              \
    (48 * MIB) /* graph, schedule and code while compiling; given back afterwards */
#define GRAPH_NODES 16384u
#define LOAD_GROUPS 64u /* groups of rows handed to the cores at a time */

struct model {
    struct hyper hyper;
    struct gguf *gguf;
    struct device *device;
    struct loaded *loaded;
    struct graph_io io;
    struct weight *order;        /* weights in the order of their bytes in the file */
    u32 weight_at;               /* the one being loaded */
    u32 row_at;                  /* first row of it that is still to do */
    u32 group_rows, group_count; /* rows of a group; groups in flight on the device */
    err load_status;
    u64 weights_done, weights_all; /* bytes of the file */
    u8 *packed;                    /* of the weight being loaded */
    u8 *staging;
    usize staging_bytes, staging_stride; /* a group of rows as the file has them, per worker */
    struct external *external;           /* copies of the graph's: shapes and packings */
    void **data;
    usize *data_bytes;
    u32 external_count; /* memory of each external */
    u8 *tables;
    usize tables_bytes;
    struct arena arena;
    struct model_batch batch;
    struct target target;
    bool f32_activations;
};

static err model_compile(struct model *m, const struct compile_options *dump, struct text *why);
static err model_bind_inputs(struct model *m, struct text *why);
static int by_place(const struct weight *a, const struct weight *b);

/* ---- opening ---- */

static void sort_weights(struct weight *w, u32 count)
{
    for (u32 gap = count / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (u32 i = gap; i < count; i++) {
            struct weight moving = w[i];
            u32 j = i;
            for (; j >= gap && by_place(&w[j - gap], &moving) > 0; j -= gap)
                w[j] = w[j - gap];
            w[j] = moving;
        }
}

static int by_place(const struct weight *a, const struct weight *b)
{
    if (a->tensor->part != b->tensor->part)
        return a->tensor->part < b->tensor->part ? -1 : 1;
    return a->tensor->offset < b->tensor->offset ? -1 : a->tensor->offset > b->tensor->offset;
}

static err check_memory(const struct model *m, struct text *why)
{
    const struct model_shape *s = &m->hyper.shape;
    u64 need = s->kv_bytes, have = pages_available();

    if (need <= have)
        return OK;
    return gguf_refuse(
        why, E_NOMEM,
        "model: %u tokens of KV cache need %llu MiB, %llu MiB are free: set kv_tokens or ctx lower",
        s->kv_tokens, (unsigned long long)(need / MIB), (unsigned long long)(have / MIB));
}

err model_open(struct model **out, struct gguf *gguf, const struct ml_config *config,
               u32 outputs_max, struct text *why)
{
    struct model *m = pages_alloc(sizeof *m);

    if (!m)
        return E_NOMEM;
    *m = (struct model){.gguf = gguf, .f32_activations = config->f32_activations};
    *out = m;
    TRY(hyper_read(gguf, config, outputs_max, &m->hyper, why));
    m->hyper.target = &m->target;
    struct model_shape *s = &m->hyper.shape;
    TRY(device_open(&m->device, config->threads));
    m->target = target_of(config->cpu ? config->cpu : cpu_features(), device_threads(m->device));
    m->hyper.kv_type = m->f32_activations || m->target.isa == ISA_AVX2_WORDS ? DT_F32 : DT_F16;
    s->kv_bytes = (u64)s->layers * 2 * s->kv_tokens * s->kv_heads * s->head_dim *
                  dtype_bytes(m->hyper.kv_type);
    TRY(check_memory(m, why));
    m->io.weight_max = 16 * s->layers + 16;
    m->tables_bytes = round_up(
        m->io.weight_max * (sizeof(struct weight) + sizeof(struct external) + 32ull) + 64 * KIB,
        4 * KIB);
    m->tables = pages_alloc(m->tables_bytes);
    if (!m->tables)
        return E_NOMEM;
    m->arena = arena_on("model", m->tables, m->tables_bytes);
    m->io.weight = arena_new(&m->arena, struct weight, m->io.weight_max);
    TRY(model_compile(m, NULL, why));
    sort_weights(m->io.weight, m->io.weight_count);
    for (u32 i = 0; i < m->io.weight_count; i++) {
        m->weights_all += m->io.weight[i].tensor->bytes;
        const struct gguf_tensor *t = m->io.weight[i].tensor;
        u64 rows = max_u64(m->target.lanes, s->head_dim);
        m->staging_stride = (usize)max_u64(
            m->staging_stride, t->dim_count == 1 ? t->bytes : rows * (t->bytes / t->dim[1]));
    }
    m->staging_stride = round_up(m->staging_stride, 4 * KIB);
    m->staging_bytes = m->staging_stride * device_threads(m->device);
    m->staging = pages_alloc(m->staging_bytes);
    return m->staging ? model_bind_inputs(m, why) : E_NOMEM;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    if (m->loaded)
        device_unload(m->device, m->loaded);
    if (m->device)
        device_close(m->device);
    for (u32 i = 0; i < m->external_count; i++)
        if (m->data[i])
            pages_free(m->data[i], m->data_bytes[i]);
    if (m->staging)
        pages_free(m->staging, m->staging_bytes);
    if (m->tables)
        pages_free(m->tables, m->tables_bytes);
    pages_free(m, sizeof *m);
}

const struct model_shape *model_shape(const struct model *m)
{
    return &m->hyper.shape;
}

/* Keeps what outlives the graph: shapes and packings of the externals. */
static err keep_externals(struct model *m, const struct graph *graph)
{
    m->external_count = graph->external_count;
    m->external = arena_new(&m->arena, struct external, graph->external_count);
    m->data = arena_new(&m->arena, void *, graph->external_count);
    m->data_bytes = arena_new(&m->arena, usize, graph->external_count);
    if (!m->external || !m->data || !m->data_bytes)
        return E_NOMEM;
    memcpy(m->external, graph->external, graph->external_count * sizeof *m->external);
    return OK;
}

static err model_compile(struct model *m, const struct compile_options *dump, struct text *why)
{
    void *pages = pages_take(COMPILE_BYTES);
    struct arena arena = arena_on("compile", pages, COMPILE_BYTES);
    struct graph *graph = pages ? arena_new(&arena, struct graph, 1) : NULL;
    struct compile_options options = dump ? *dump : (struct compile_options){};
    struct program program;
    u64 start_ns = time_ns();
    err e = graph ? graph_init(graph, &arena, GRAPH_NODES) : E_NOMEM;

    options.target = &m->target;
    options.why = why;
    options.int8_activations = !m->f32_activations;
    if (e == OK)
        e = model_graph(m->gguf, &m->hyper, graph, &m->io, why);
    if (e == OK)
        e = compile(graph, &options, &arena, &program);
    if (e == OK && !dump)
        e = keep_externals(m, graph);
    if (e == OK && !dump)
        e = device_load(m->device, &program, &m->loaded);
    if (e == OK && !dump) {
        m->hyper.shape.program_bytes = program.code_bytes;
        log_info("model",
                 "compiled %u launches, %u kernels, %zu KiB of code, %llu KiB workspace in %llu ms",
                 program.launch_count, program.kernel_count, program.code_bytes / KIB,
                 (unsigned long long)(program.workspace_bytes / KIB),
                 (unsigned long long)((time_ns() - start_ns) / NS_PER_MS));
    }
    if (pages)
        pages_free(pages, COMPILE_BYTES);
    return e;
}

err model_dump(struct model *m, const struct compile_options *dump)
{
    char words[160];
    struct text why = TEXT_ON(words);
    struct graph_io kept = m->io;
    err e;

    m->io.weight_count = 0;
    e = model_compile(m, dump, &why);
    m->io = kept;
    return e;
}

/* ---- memory of the externals ---- */

/* Weights, KV rows and inputs are all written before they are read. */
static err external_alloc(struct model *m, u32 external, u64 bytes)
{
    bytes =
        round_up(bytes + 64, 4 * KIB); /* vector loads may read a little beyond the last element */
    m->data[external] = pages_take(bytes);
    m->data_bytes[external] = bytes;
    if (!m->data[external])
        return E_NOMEM;
    device_bind(m->loaded, external, m->data[external]);
    return OK;
}

static err input_alloc(struct model *m, u32 external, u32 count, i32 **place)
{
    TRY(external_alloc(m, external, count * 4ull));
    *place = m->data[external];
    return OK;
}

static err model_bind_inputs(struct model *m, struct text *why)
{
    const struct model_shape *s = &m->hyper.shape;
    const struct graph_io *io = &m->io;
    u64 table_bytes = (u64)s->ctx_max * (s->head_dim / 2) * 4;
    f32 *sign;

    TRY(input_alloc(m, io->token, s->rows_max, &m->batch.token));
    TRY(input_alloc(m, io->position, s->rows_max, &m->batch.position));
    TRY(input_alloc(m, io->slot, s->rows_max, &m->batch.slot));
    TRY(input_alloc(m, io->kv_write, s->rows_max, &m->batch.kv_write));
    TRY(input_alloc(m, io->kv_index, s->slots * s->ctx_max, &m->batch.kv_index));
    TRY(input_alloc(m, io->out_row, s->outputs_max, &m->batch.out_row));
    TRY(external_alloc(m, io->rope_cos, table_bytes));
    TRY(external_alloc(m, io->rope_sin, table_bytes));
    TRY(external_alloc(m, io->rope_sign, 8));
    sign = m->data[io->rope_sign];
    sign[0] = -1;
    sign[1] = 1;
    return rope_tables(m->gguf, &m->hyper, m->data[io->rope_cos], m->data[io->rope_sin], why);
}

struct model_batch *model_batch(struct model *m)
{
    return &m->batch;
}

static err alloc_kv(struct model *m, struct text *why)
{
    const struct model_shape *s = &m->hyper.shape;

    for (u32 i = 0; i < 2 * s->layers; i++)
        if (external_alloc(m, m->io.kv[i], s->kv_bytes / (2 * s->layers)) != OK)
            return gguf_refuse(
                why, E_NOMEM,
                "model: no memory for %u tokens of KV cache: set kv_tokens or ctx lower",
                s->kv_tokens);
    return OK;
}

/* ---- weights ---- */

/* Row of the file that stands at row `row` of the graph's matrix. */
static u32 file_row(const struct model *m, const struct weight *w, u32 row)
{
    u32 dims = m->hyper.shape.head_dim, half = dims / 2, in = row % dims;

    if (!w->pairs_to_halves)
        return row;
    return row - in + (in < half ? 2 * in : 2 * (in - half) + 1);
}

/* Packs one group of rows: a head when rows are reordered, else a tile. Any core. */
static void pack_group(void *ctx, u32 item, u32 worker)
{
    struct model *m = ctx;
    const struct weight *w = &m->io.weight[m->weight_at];
    const struct external *x = &m->external[w->external];
    const struct gguf_tensor *t = w->tensor;
    u32 rows = (u32)t->dim[1], columns = (u32)t->dim[0], tile = x->packing.tile;
    u64 row_bytes = quant_bytes(t->format, columns),
        tile_bytes = packing_tile_bytes(&x->packing, columns);
    u32 first = m->row_at + item * m->group_rows, count = min_u32(m->group_rows, rows - first);
    u8 *staging = m->staging + worker * m->staging_stride;

    err e = gguf_read(m->gguf, t, first * row_bytes, staging, count * row_bytes);
    if (e != OK) {
        __atomic_store_n(&m->load_status, e, __ATOMIC_RELAXED);
        return;
    }
    for (u32 r = first; r < first + count; r += tile) {
        const u8 *row[PACK_TILE_MAX] = {};
        for (u32 lane = 0; lane < tile && r + lane < rows; lane++)
            row[lane] = staging + (file_row(m, w, r + lane) - first) * row_bytes;
        pack_tile_rows(&x->packing, t->format, row, columns, m->packed + r / tile * tile_bytes);
    }
}

static void start_groups(struct model *m, const struct weight *w)
{
    const struct gguf_tensor *t = w->tensor;
    u32 left = (u32)t->dim[1] - m->row_at;

    m->group_rows =
        w->pairs_to_halves ? m->hyper.shape.head_dim : m->external[w->external].packing.tile;
    m->group_count = min_u32(LOAD_GROUPS, (u32)div_up(left, m->group_rows));
    device_start_work(m->device, pack_group, m, m->group_count);
}

/* The groups are packed: their bytes of the file are not needed any more. */
static void finish_groups(struct model *m, const struct weight *w)
{
    const struct gguf_tensor *t = w->tensor;
    u64 row_bytes = quant_bytes(t->format, t->dim[0]);
    u32 rows = min_u32(m->group_count * m->group_rows, (u32)t->dim[1] - m->row_at);
    struct store *part = &m->gguf->part[t->part];

    if (part->release)
        part->release(part, t->offset + m->row_at * row_bytes, rows * row_bytes);
    m->row_at += rows;
    m->weights_done += rows * row_bytes;
    m->group_count = 0;
}

static err load_vector(struct model *m, const struct weight *w)
{
    const struct gguf_tensor *t = w->tensor;

    TRY(gguf_read(m->gguf, t, 0, m->staging, t->bytes));
    quant_decode(t->format, m->staging, (f32 *)(void *)m->packed, t->elements);
    m->weights_done += t->bytes;
    return OK;
}

static err begin_weight(struct model *m, const struct weight *w, struct text *why)
{
    const struct external *x = &m->external[w->external];
    u64 bytes = w->tensor->elements * 4;

    if (x->kind == OP_WEIGHT)
        bytes = packing_bytes(&x->packing, (u32)w->tensor->dim[1], (u32)w->tensor->dim[0]);
    m->row_at = 0;
    m->hyper.shape.weights_bytes += bytes;
    if (external_alloc(m, w->external, bytes) != OK)
        return gguf_refuse(
            why, E_NOMEM, "model: no memory for tensor %.*s (%llu MiB, %llu MiB are free)",
            (int)w->tensor->name.len, w->tensor->name.ptr, (unsigned long long)(bytes / MIB),
            (unsigned long long)(pages_available() / MIB));
    m->packed = m->data[w->external];
    return OK;
}

static err load_matrix(struct model *m, const struct weight *w, u64 deadline_ns)
{
    if (m->group_count == 0)
        start_groups(m, w);
    if (!device_advance(m->device, deadline_ns))
        return OK;
    finish_groups(m, w);
    return m->load_status;
}

err model_load(struct model *m, u64 deadline_ns, bool *done, u32 *percent, struct text *why)
{
    *done = false;
    while (m->weight_at < m->io.weight_count) {
        const struct weight *w = &m->io.weight[m->weight_at];
        *percent = (u32)(m->weights_done * 100 / max_u64(m->weights_all, 1));
        if (time_ns() >= deadline_ns)
            return OK;
        if (!m->packed)
            TRY(begin_weight(m, w, why));
        bool is_matrix = m->external[w->external].kind == OP_WEIGHT;
        err e = is_matrix ? load_matrix(m, w, deadline_ns) : load_vector(m, w);
        if (e != OK)
            return gguf_refuse(why, e, "model: reading tensor %.*s: %s", (int)w->tensor->name.len,
                               w->tensor->name.ptr, err_text(e));
        if (!is_matrix || m->row_at == w->tensor->dim[1]) {
            m->packed = NULL;
            m->weight_at++;
        }
    }
    *percent = 100;
    *done = true;
    return m->data[m->io.kv[0]] ? OK : alloc_kv(m, why);
}

/* ---- steps ---- */

void model_start(struct model *m, u32 rows, u32 outputs)
{
    const u32 sym_value[] = {[SYM_ROWS] = rows, [SYM_OUTPUTS] = outputs};

    CHECK(rows >= 1 && outputs <= rows);
    device_start(m->device, m->loaded, sym_value);
}

bool model_advance(struct model *m, u64 deadline_ns)
{
    return device_advance(m->device, deadline_ns);
}

const f32 *model_logits(const struct model *m, u32 output)
{
    const f32 *logits = device_output(m->loaded, 0);
    return logits + (usize)output * m->hyper.shape.vocab;
}
