/*
 * model.c: one model from file to logits: builds and compiles the graph, repacks weights as they
 * stream in, binds memory, runs steps. The architecture's own facts are in hyper.c and
 * model_graph.c.
 */
#include "ml/model_priv.h"

#define COMPILE_BYTES (48 * MIB) /* graph, schedule and code; given back afterwards */
#define LOAD_GROUPS   64u        /* groups of rows handed to the cores at a time */

struct memory { /* of an external */
    void *data;
    struct packing packing; /* of a matrix */
    bool is_matrix;
};

struct model {
    struct hyper hyper;
    struct gguf *gguf;
    struct device *device;
    struct loaded *loaded;
    struct graph_io io;
    struct memory memory[EXTERNALS_MAX];
    struct model_batch batch;
    bool f32_activations;
    u32 tensor_at, row_at;         /* what is being loaded; its first row that is still to do */
    u32 group_rows, group_count;   /* rows of a group; groups in flight on the device */
    err load_status;               /* of a group that failed */
    u64 weights_done, weights_all; /* bytes of the file */
    u8 *staging;                   /* a group's rows as in the file, for each worker */
    usize staging_stride;
};

static err model_compile(struct model *m, struct text *why);
static err alloc_staging(struct model *m);
static err bind_inputs(struct model *m, struct text *why);

/* ---- opening ---- */

static err check_memory(const struct model *m, struct text *why)
{
    const struct model_shape *s = &m->hyper.shape;
    usize have = pages_available();

    if (s->kv_bytes <= have)
        return OK;
    return gguf_refuse(
        why, E_NOMEM,
        "model: %u tokens of KV cache need %lu MiB, %lu MiB are free: set kv_tokens or ctx lower",
        s->kv_tokens, s->kv_bytes / MIB, have / MIB);
}

err model_open(struct model **out, struct gguf *gguf, const struct ml_config *config,
               u32 outputs_max, struct text *why)
{
    struct model *m = *out = pages_alloc(sizeof *m);

    if (!m)
        return E_NOMEM;
    m->gguf = gguf;
    m->f32_activations = config->f32_activations;
    TRY(hyper_read(gguf, config, outputs_max, &m->hyper, why));
    TRY(check_memory(m, why));
    TRY(device_open(&m->device, m->hyper.target.cores));
    m->io.weight = pages_alloc(round_up(gguf->tensor_count * sizeof(struct weight), 4 * KIB));
    if (!m->io.weight)
        return E_NOMEM;
    TRY(model_compile(m, why));
    TRY(alloc_staging(m));
    return bind_inputs(m, why);
}

const struct model_shape *model_shape(const struct model *m)
{
    return &m->hyper.shape;
}

static err build(struct model *m, struct arena *arena, struct program *program, struct text *why)
{
    struct compile_options options = {
        .target = &m->hyper.target, .why = why, .int8_activations = !m->f32_activations};
    struct graph *graph = arena_new(arena, struct graph, 1);

    if (!graph)
        return E_NOMEM;
    TRY(graph_init(graph, arena, NODES_MAX));
    TRY(model_graph(m->gguf, &m->hyper, graph, &m->io, why));
    TRY(compile(graph, &options, arena, program));
    for (u32 i = 0; i < graph->external_count; i++) {
        m->memory[i].packing = graph->external[i].packing;
        m->memory[i].is_matrix = graph->external[i].kind == OP_WEIGHT;
    }
    return device_load(m->device, program, &m->loaded);
}

static err model_compile(struct model *m, struct text *why)
{
    void *pages = pages_take(COMPILE_BYTES);
    struct arena arena = arena_on("compile", pages, COMPILE_BYTES);
    struct program program = {};
    u64 start_ns = time_ns();
    err e = pages ? build(m, &arena, &program, why) : E_NOMEM;

    m->hyper.shape.program_bytes = program.code_bytes;
    if (pages)
        pages_free(pages, COMPILE_BYTES);
    if (e == OK)
        log_info("model",
                 "compiled %u launches, %u kernels, %zu KiB of code, %lu KiB workspace in %llu ms",
                 program.launch_count, program.kernel_count, program.code_bytes / KIB,
                 program.workspace_bytes / KIB, (time_ns() - start_ns) / NS_PER_MS);
    return e;
}

/* ---- memory of the externals ---- */

/* Weights, KV rows and inputs are all written before they are read. Vector loads may read a little
 * beyond the last element. */
static err external_alloc(struct model *m, u32 external, u64 bytes)
{
    struct memory *memory = &m->memory[external];

    memory->data = pages_take(round_up(bytes + 64, 4 * KIB));
    if (!memory->data)
        return E_NOMEM;
    device_bind(m->loaded, external, memory->data);
    return OK;
}

static err bind_inputs(struct model *m, struct text *why)
{
    const struct model_shape *s = &m->hyper.shape;
    const struct graph_io *io = &m->io;
    struct model_batch *batch = &m->batch;
    f32 *cosines = NULL, *sines = NULL, *sign = NULL;
    const u32 angles = s->ctx_max * (s->head_dim / 2);
    const struct {
        u32 external, count;
        void *place; /* of a pointer to i32 or f32 */
    } rows[] = {
        {io->token, s->rows_max, &batch->token},
        {io->position, s->rows_max, &batch->position},
        {io->slot, s->rows_max, &batch->slot},
        {io->kv_write, s->rows_max, &batch->kv_write},
        {io->kv_index, s->slots * s->ctx_max, &batch->kv_index},
        {io->out_row, s->outputs_max, &batch->out_row},
        {io->rope_cos, angles, &cosines},
        {io->rope_sin, angles, &sines},
        {io->rope_sign, 2, &sign},
    };

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        TRY(external_alloc(m, rows[i].external, rows[i].count * 4ull));
        memcpy(rows[i].place, &m->memory[rows[i].external].data, sizeof(void *));
    }
    sign[0] = -1;
    sign[1] = 1;
    return rope_tables(m->gguf, &m->hyper, cosines, sines, why);
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

/* A group: the rows of whole tiles and, when they are reordered, of whole heads. */
static u32 rows_of_group(const struct model *m, const struct weight *w)
{
    u32 tile = m->memory[w->external].packing.tile, rows = 0;

    do
        rows += w->pairs_to_halves ? m->hyper.shape.head_dim : tile;
    while (rows % tile);
    return rows;
}

static err alloc_staging(struct model *m)
{
    for (u32 i = 0; i < m->gguf->tensor_count; i++) {
        const struct gguf_tensor *t = &m->gguf->tensor[i];
        const struct weight *w = &m->io.weight[i];
        u64 bytes = m->memory[w->external].is_matrix ? rows_of_group(m, w) * (t->bytes / t->dim[1])
                                                     : t->bytes;
        if (!w->used)
            continue;
        m->weights_all += t->bytes;
        m->staging_stride = max_u64(m->staging_stride, round_up(bytes, 4 * KIB));
    }
    m->staging = pages_alloc(m->staging_stride * m->hyper.target.cores);
    return m->staging ? OK : E_NOMEM;
}

/* Row of the file that stands at row `row` of the graph's matrix. */
static u32 file_row(const struct model *m, const struct weight *w, u32 row)
{
    u32 dims = m->hyper.shape.head_dim, half = dims / 2, in = row % dims;

    if (!w->pairs_to_halves)
        return row;
    return row - in + (in < half ? 2 * in : 2 * (in - half) + 1);
}

/* Packs one group of rows. Any core. */
static void pack_group(void *ctx, u32 item, u32 worker)
{
    struct model *m = ctx;
    const struct gguf_tensor *t = &m->gguf->tensor[m->tensor_at];
    const struct weight *w = &m->io.weight[m->tensor_at];
    const struct memory *to = &m->memory[w->external];
    u32 rows = (u32)t->dim[1], columns = (u32)t->dim[0], tile = to->packing.tile;
    u64 row_bytes = t->bytes / rows, tile_bytes = packing_bytes(&to->packing, tile, columns);
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
        pack_tile_rows(&to->packing, t->format, row, columns,
                       (u8 *)to->data + r / tile * tile_bytes);
    }
}

/* Some groups more, unless the deadline passes; their bytes of the file are not needed again. */
static err load_matrix(struct model *m, const struct weight *w, u64 deadline_ns)
{
    const struct gguf_tensor *t = &m->gguf->tensor[m->tensor_at];
    struct store *part = &m->gguf->part[t->part];
    u32 left = (u32)t->dim[1] - m->row_at;
    u64 row_bytes = t->bytes / t->dim[1];

    if (m->group_count == 0) {
        m->group_rows = rows_of_group(m, w);
        m->group_count = min_u32(LOAD_GROUPS, (u32)div_up(left, m->group_rows));
        device_start_work(m->device, pack_group, m, m->group_count);
    }
    if (!device_advance(m->device, deadline_ns))
        return OK;
    u32 rows = min_u32(m->group_count * m->group_rows, left);
    if (part->release)
        part->release(part, t->offset + m->row_at * row_bytes, rows * row_bytes);
    m->row_at += rows;
    m->weights_done += rows * row_bytes;
    m->group_count = 0;
    return m->load_status;
}

static err load_vector(struct model *m, const struct weight *w)
{
    const struct gguf_tensor *t = &m->gguf->tensor[m->tensor_at];

    TRY(gguf_read(m->gguf, t, 0, m->staging, t->bytes));
    quant_floats(t->format, m->staging, m->memory[w->external].data, t->elements);
    m->row_at = (u32)t->dim[1];
    m->weights_done += t->bytes;
    return OK;
}

static err load_some(struct model *m, const struct weight *w, u64 deadline_ns)
{
    const struct gguf_tensor *t = &m->gguf->tensor[m->tensor_at];
    const struct memory *to = &m->memory[w->external];
    u64 bytes = to->is_matrix ? packing_bytes(&to->packing, (u32)t->dim[1], (u32)t->dim[0])
                              : t->elements * 4;

    if (!to->data) {
        TRY(external_alloc(m, w->external, bytes));
        m->hyper.shape.weights_bytes += bytes;
    }
    return to->is_matrix ? load_matrix(m, w, deadline_ns) : load_vector(m, w);
}

err model_load(struct model *m, u64 deadline_ns, bool *done, u32 *percent, struct text *why)
{
    *done = false;
    while (m->tensor_at < m->gguf->tensor_count) {
        const struct gguf_tensor *t = &m->gguf->tensor[m->tensor_at];
        const struct weight *w = &m->io.weight[m->tensor_at];
        *percent = (u32)(m->weights_done * 100 / max_u64(m->weights_all, 1));
        if (time_ns() >= deadline_ns)
            return OK;
        err e = w->used ? load_some(m, w, deadline_ns) : OK;
        if (e != OK)
            return gguf_refuse(why, e, "model: tensor %.*s, %lu MiB with %lu MiB free: %s",
                               (int)t->name.len, t->name.ptr, t->bytes / MIB,
                               pages_available() / MIB, err_text(e));
        if (!w->used || m->row_at == t->dim[1]) {
            m->tensor_at++;
            m->row_at = 0;
        }
    }
    *percent = 100;
    *done = true;
    return m->memory[m->io.kv[0]].data ? OK : alloc_kv(m, why);
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
