/*
 * model.c: one model from file to logits: builds and compiles the graph of each part, binds its
 * inputs, runs steps from part to part. The architecture's own facts are in hyper.c and
 * model_graph.c, what comes from the file in model_load.c.
 */
#include "ml/model_priv.h"

#define COMPILE_BYTES (48 * MIB) /* graph, schedule and code; given back afterwards */
/* A step of so few tokens has a program of its own where many go to a matrix instruction, which
 * works on 64 at least. */
#define ROWS_FEW 16u

static err model_compile(struct model *m, struct text *why);
static err bind_inputs(struct model *m);

/* ---- opening ---- */

/* A file's memory becomes the CPU's as it is packed; a card has to hold all at once. */
static u64 bytes_wanted(const struct model *m, const struct program *program)
{
    u64 bytes = model_kv_layer_bytes(m) * (m->hyper.layer_end - m->hyper.layer_first);

    if (m->device == m->cores)
        return bytes;
    for (u32 i = 0; i < m->gguf->tensor_count; i++)
        if (m->io.weight[i].used)
            bytes += model_tensor_bytes(m, i);
    return bytes + program->workspace_bytes + program->code_bytes;
}

static err check_memory(const struct model *m, const struct program *program, struct text *why)
{
    const struct model_shape *s = &m->hyper.shape;
    u64 have = device_bytes_free(m->device), want = bytes_wanted(m, program);

    if (want <= have)
        return OK;
    if (m->device == m->cores)
        return gguf_refuse(why, E_NOMEM,
                           "model: %u tokens of KV cache need %lu MiB, %lu MiB are free: set "
                           "kv_tokens or ctx lower",
                           s->kv_tokens, want / MIB, have / MIB);
    return gguf_refuse(why, E_NOMEM,
                       "model: needs %lu MiB of VRAM, %lu of them for %u tokens of KV cache; %lu "
                       "MiB are free, %lu are missing",
                       div_up(want, MIB), s->kv_bytes / MIB, s->kv_tokens, have / MIB,
                       div_up(want, MIB) - have / MIB);
}

/* Part `idx` of `count`. */
static err open_part(struct model *m, const struct model_config *config, u32 idx, u32 count,
                     struct text *why)
{
    m->f32_activations = config->limits->f32_activations;
    TRY(hyper_read(m->gguf, &m->hyper, why));
    m->cores = m->device = config->cores;
    if (config->gpu_count)
        TRY(device_open_gpu(&m->device, config->gpu[idx]));
    hyper_limit(&m->hyper, config->limits, config->outputs_max, device_target(m->device));
    m->hyper.layer_first = m->hyper.shape.layers * idx / count;
    m->hyper.layer_end = m->hyper.shape.layers * (idx + 1) / count;
    m->io.weight = pages_alloc(round_up(m->gguf->tensor_count * sizeof(struct weight), 4 * KIB));
    if (!m->io.weight)
        return E_NOMEM;
    TRY(model_compile(m, why));
    TRY(model_staging(m));
    return bind_inputs(m);
}

err model_open(struct model **out, struct gguf *gguf, const struct model_config *config,
               struct text *why)
{
    u32 count = max_u32(config->gpu_count, 1);
    struct model **link = out;

    for (u32 i = 0; i < count; i++) {
        struct model *m = *link = pages_alloc(sizeof *m);
        if (!m)
            return E_NOMEM;
        m->gguf = gguf;
        m->first = *out;
        TRY(open_part(m, config, i, count, why));
        (*out)->batch.out_row = m->batch.out_row; /* the last one's */
        link = &m->next;
    }
    return OK;
}

const struct model_shape *model_shape(const struct model *m)
{
    return &m->hyper.shape;
}

static err build(struct model *m, const struct hyper *hyper, struct arena *arena,
                 struct program *program, struct text *why)
{
    struct compile_options options = {
        .target = &hyper->target, .why = why, .int8_activations = !m->f32_activations};
    struct graph *graph = arena_new(arena, struct graph, 1);

    if (!graph)
        return E_NOMEM;
    TRY(graph_init(graph, arena, NODES_MAX));
    TRY(model_graph(m->gguf, hyper, graph, &m->io, why));
    TRY(compile(graph, &options, arena, program));
    for (u32 i = 0; i < graph->external_count; i++) {
        m->memory[i].packing = graph->external[i].packing;
        m->memory[i].is_matrix = graph->external[i].kind == OP_WEIGHT;
    }
    return check_memory(m, program, why);
}

/* For steps of up to `rows` tokens. */
static err compile_rows(struct model *m, u32 rows, struct loaded **loaded, struct text *why)
{
    struct hyper hyper = m->hyper;
    void *pages = pages_take(COMPILE_BYTES);
    struct arena arena = arena_on("compile", pages, COMPILE_BYTES);
    struct program program = {};
    u64 start_ns = time_ns();

    hyper.shape.rows_max = rows;
    hyper.shape.outputs_max = min_u32(hyper.shape.outputs_max, rows);
    err e = pages ? build(m, &hyper, &arena, &program, why) : E_NOMEM;
    if (e == OK)
        e = device_load(m->device, &program, loaded);
    m->first->hyper.shape.program_bytes += program.code_bytes;
    if (pages)
        pages_free(pages, COMPILE_BYTES);
    if (e == OK)
        log_info("model",
                 "compiled %u launches, %u kernels, %zu KiB of code, %lu KiB workspace in %llu ms",
                 program.launch_count, program.kernel_count, program.code_bytes / KIB,
                 program.workspace_bytes / KIB, (time_ns() - start_ns) / NS_PER_MS);
    return e;
}

static err model_compile(struct model *m, struct text *why)
{
    u32 rows = m->hyper.shape.rows_max;

    TRY(compile_rows(m, rows, &m->loaded, why));
    if (!m->hyper.target.matrix || rows <= ROWS_FEW)
        return OK;
    return compile_rows(m, ROWS_FEW, &m->few, why);
}

/* ---- memory of the externals ---- */

static err bind_inputs(struct model *m)
{
    const struct model_shape *s = &m->hyper.shape;
    const struct graph_io *io = &m->io;
    struct model_batch *batch = &m->batch;
    bool first = m->first == m, last = m->hyper.layer_end == s->layers;
    const struct {
        bool there;
        u32 external, count;
        void *place; /* of a pointer to i32 or f32 */
    } rows[] = {
        {first, io->token, s->rows_max, &batch->token},
        {!first, io->hidden, s->rows_max * s->embed, &m->hidden},
        {true, io->position, s->rows_max, &batch->position},
        {true, io->slot, s->rows_max, &batch->slot},
        {true, io->kv_write, s->rows_max, &batch->kv_write},
        {true, io->kv_index, s->slots * s->ctx_max, &batch->kv_index},
        {last, io->out_row, s->outputs_max, &batch->out_row},
    };

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        if (!rows[i].there)
            continue;
        TRY(device_alloc(m->loaded, rows[i].external, rows[i].count * 4ull, true));
        void *input = device_input(m->loaded, rows[i].external);
        memcpy(rows[i].place, &input, sizeof(void *));
    }
    return OK;
}

struct model_batch *model_batch(struct model *m)
{
    return &m->batch;
}

/* ---- a card's accidents ---- */

bool model_keeps_file(const struct model *m)
{
    return m->device != m->cores;
}

/* The worst of all parts. */
err model_health(const struct model *m, struct text *why)
{
    err worst = OK;

    for (; m; m = m->next) {
        err e = device_health(m->device, why);
        if (e == E_DEVICE)
            return e;
        worst = e == E_BUSY || worst == OK ? e : worst;
    }
    return worst;
}

err model_reload(struct model *m)
{
    for (; m; m = m->next) {
        m->tensor_at = m->row_at = 0;
        m->weights_done = 0;
        m->group_count = 0;
        m->rope_done = false;
        for (u32 i = 0; i < ROPE_TABLES; i++)
            m->table[i].done = 0;
        TRY(m->few ? device_revive(m->few) : OK);
        TRY(device_revive(m->loaded));
    }
    return OK;
}

/* ---- steps ---- */

static err forget_part(struct model *m, u32 kv_row, u32 kv_rows)
{
    u64 row_bytes = model_kv_layer_bytes(m) / 2 / m->hyper.shape.kv_tokens;

    for (u32 end = 2 * m->hyper.layer_end; m->forget_at <= end; m->forget_at++)
        TRY(m->forget_at < end ? device_zero(m->loaded, m->io.kv[m->forget_at], kv_row * row_bytes,
                                             kv_rows * row_bytes)
                               : device_zero_scratch(m->loaded));
    return OK;
}

err model_forget(struct model *m, u32 kv_row, u32 kv_rows)
{
    for (struct model *part = m; part; part = part->next) {
        part->forget_at = max_u32(part->forget_at, 2 * part->hyper.layer_first);
        TRY(forget_part(part, kv_row, kv_rows));
    }
    for (struct model *part = m; part; part = part->next)
        part->forget_at = 0;
    return OK;
}

static void start_part(struct model *m, u32 rows, u32 outputs)
{
    const u32 sym_value[] = {[SYM_ROWS] = rows, [SYM_OUTPUTS] = outputs};

    m->run = m->few && rows <= ROWS_FEW ? m->few : m->loaded;
    device_start(m->device, m->run, sym_value);
}

void model_start(struct model *m, u32 rows, u32 outputs)
{
    CHECK(rows >= 1 && outputs <= rows);
    m->at = m;
    m->rows = rows;
    m->outputs = outputs;
    start_part(m, rows, outputs);
}

/* The next part begins with what this one has computed. */
static void hand_over(struct model *m)
{
    const struct model_shape *s = &m->hyper.shape;
    const struct model *from = m->at;
    struct model *to = m->at = m->at->next;
    usize bytes = m->rows * sizeof(i32);

    memcpy(to->hidden, device_output(from->run, 0), bytes * s->embed);
    memcpy(to->batch.position, m->batch.position, bytes);
    memcpy(to->batch.slot, m->batch.slot, bytes);
    memcpy(to->batch.kv_write, m->batch.kv_write, bytes);
    memcpy(to->batch.kv_index, m->batch.kv_index, s->slots * (usize)s->ctx_max * sizeof(i32));
    start_part(to, m->rows, m->outputs);
}

err model_advance(struct model *m, u64 deadline_ns)
{
    for (;; hand_over(m)) {
        err e = device_advance(m->at->device, deadline_ns);
        if (e != OK || !m->at->next)
            return e;
    }
}

const f32 *model_logits(const struct model *m, u32 output)
{
    const f32 *logits = device_output(m->at->run, 0);
    return logits + (usize)output * m->hyper.shape.vocab;
}
