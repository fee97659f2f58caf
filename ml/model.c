/*
 * model.c: one model from file to logits: builds and compiles the graph, repacks weights as they
 * stream in, binds memory, runs steps. The architecture's own facts are in hyper.c and
 * model_graph.c.
 */
#include "ml/model_priv.h"

#define COMPILE_BYTES (48 * MIB) /* graph, schedule and code; given back afterwards */
#define LOAD_GROUPS   64u        /* groups of rows handed to the cores at a time */
#define ROPE_TABLES   3u
/* A step of so few tokens has a program of its own where many go to a matrix instruction: that
 * works on 64 rows at least, so up to about 22 whole numbers times four bytes take less time. */
#define ROWS_FEW 16u

struct memory { /* of an external */
    bool placed;
    struct packing packing; /* of a matrix */
    bool is_matrix;
};

struct table { /* of rotary positions, on its way to the device */
    u32 external;
    const f32 *from;
    u64 bytes, done;
};

struct model {
    struct hyper hyper;
    struct gguf *gguf;
    struct device *cores, *device; /* who packs weights, who runs steps; may be the same */
    struct loaded *loaded, *few;   /* few: for ROWS_FEW, or NULL; it shares all memory */
    struct loaded *run;            /* the last that was started */
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
    u32 forgotten; /* of keys and values of all layers, in a model_forget that goes on */
    u64 window_bytes;
    u8 *window; /* where what is packed goes */
    f32 *rope;  /* NULL: the tables are not made */
    struct table table[ROPE_TABLES];
    bool rope_done;
};

static err model_compile(struct model *m, struct text *why);
static err alloc_staging(struct model *m);
static err bind_inputs(struct model *m);
static u64 tensor_bytes(const struct model *m, u32 idx);

/* ---- opening ---- */

/* A file's memory becomes the CPU's as it is packed; a card has to hold all at once. */
static u64 bytes_wanted(const struct model *m, const struct program *program)
{
    u64 bytes = m->hyper.shape.kv_bytes;

    if (m->device == m->cores)
        return bytes;
    for (u32 i = 0; i < m->gguf->tensor_count; i++)
        if (m->io.weight[i].used)
            bytes += tensor_bytes(m, i);
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
                       want / MIB, s->kv_bytes / MIB, s->kv_tokens, have / MIB,
                       div_up(want - have, MIB));
}

err model_open(struct model **out, struct gguf *gguf, const struct model_config *config,
               struct text *why)
{
    struct model *m = *out = pages_alloc(sizeof *m);

    if (!m)
        return E_NOMEM;
    m->gguf = gguf;
    m->f32_activations = config->limits->f32_activations;
    TRY(hyper_read(gguf, &m->hyper, why));
    m->cores = m->device = config->cores;
    if (config->gpu)
        TRY(device_open_gpu(&m->device, config->gpu));
    hyper_limit(&m->hyper, config->limits, config->outputs_max, device_target(m->device));
    m->io.weight = pages_alloc(round_up(gguf->tensor_count * sizeof(struct weight), 4 * KIB));
    if (!m->io.weight)
        return E_NOMEM;
    TRY(model_compile(m, why));
    TRY(alloc_staging(m));
    return bind_inputs(m);
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
    m->hyper.shape.program_bytes += program.code_bytes;
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

static err place(struct model *m, u32 external, u64 bytes)
{
    if (m->memory[external].placed)
        return OK;
    m->memory[external].placed = true;
    return device_alloc(m->loaded, external, bytes, false);
}

static err bind_inputs(struct model *m)
{
    const struct model_shape *s = &m->hyper.shape;
    const struct graph_io *io = &m->io;
    struct model_batch *batch = &m->batch;
    const struct {
        u32 external, count;
        i32 **place;
    } rows[] = {
        {io->token, s->rows_max, &batch->token},
        {io->position, s->rows_max, &batch->position},
        {io->slot, s->rows_max, &batch->slot},
        {io->kv_write, s->rows_max, &batch->kv_write},
        {io->kv_index, s->slots * s->ctx_max, &batch->kv_index},
        {io->out_row, s->outputs_max, &batch->out_row},
    };

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        TRY(device_alloc(m->loaded, rows[i].external, rows[i].count * 4ull, true));
        *rows[i].place = device_input(m->loaded, rows[i].external);
    }
    return OK;
}

struct model_batch *model_batch(struct model *m)
{
    return &m->batch;
}

static err alloc_kv(struct model *m, struct text *why)
{
    const struct model_shape *s = &m->hyper.shape;

    for (u32 i = 0; i < 2 * s->layers; i++)
        if (place(m, m->io.kv[i], s->kv_bytes / (2 * s->layers)) != OK)
            return gguf_refuse(
                why, E_NOMEM,
                "model: no memory for %u tokens of KV cache: set kv_tokens or ctx lower",
                s->kv_tokens);
    return OK;
}

/* ---- tables of rotary positions ---- */

static err make_tables(struct model *m, struct text *why)
{
    const struct graph_io *io = &m->io;
    u64 angles = m->hyper.shape.ctx_max * (m->hyper.shape.head_dim / 2ull);
    u32 external[ROPE_TABLES] = {io->rope_cos, io->rope_sin, io->rope_sign};
    f32 *to = m->rope = pages_take((2 * angles + 2) * sizeof(f32));

    if (!m->rope)
        return E_NOMEM;
    for (u32 i = 0; i < ROPE_TABLES; i++) {
        u64 count = i < 2 ? angles : 2;
        m->table[i] = (struct table){external[i], to, count * sizeof(f32), 0};
        TRY(place(m, external[i], count * sizeof(f32)));
        to += count;
    }
    to[-2] = -1;
    to[-1] = 1;
    return rope_tables(m->gguf, &m->hyper, m->rope, m->rope + angles, why);
}

static err load_tables(struct model *m, struct text *why)
{
    u64 angles = m->hyper.shape.ctx_max * (m->hyper.shape.head_dim / 2ull);

    if (!m->rope)
        TRY(make_tables(m, why));
    for (struct table *t = m->table; t < m->table + ROPE_TABLES; t++) {
        while (t->done < t->bytes) {
            u64 bytes = min_u64(t->bytes - t->done, m->window_bytes);
            u8 *to = device_window(m->loaded, t->external, t->done, bytes);
            if (!to)
                return E_BUSY;
            memcpy(to, (const u8 *)t->from + t->done, bytes);
            TRY(device_send(m->loaded));
            t->done += bytes;
        }
    }
    m->rope_done = true;
    if (m->device == m->cores) /* a card might lose them */
        pages_free(m->rope, (2 * angles + 2) * sizeof(f32));
    return OK;
}

/* ---- weights ---- */

/* On the device. */
static u64 tensor_bytes(const struct model *m, u32 idx)
{
    const struct gguf_tensor *t = &m->gguf->tensor[idx];
    const struct memory *to = &m->memory[m->io.weight[idx].external];

    return to->is_matrix ? packing_bytes(&to->packing, (u32)t->dim[1], (u32)t->dim[0])
                         : t->elements * sizeof(f32);
}

/* A group: the rows of whole tiles and, when they are reordered, of whole heads. */
static u32 rows_of_group(const struct model *m, const struct weight *w)
{
    u32 tile = m->memory[w->external].packing.tile, rows = 0;

    do
        rows += w->pairs_to_halves ? m->hyper.shape.head_dim : tile;
    while (rows % tile);
    return rows;
}

static u64 group_bytes(const struct model *m, u32 idx)
{
    const struct weight *w = &m->io.weight[idx];
    const struct memory *to = &m->memory[w->external];

    if (!to->is_matrix)
        return tensor_bytes(m, idx);
    return packing_bytes(&to->packing, rows_of_group(m, w), (u32)m->gguf->tensor[idx].dim[0]);
}

static err alloc_staging(struct model *m)
{
    u64 most = 0;

    for (u32 i = 0; i < m->gguf->tensor_count; i++) {
        const struct gguf_tensor *t = &m->gguf->tensor[i];
        const struct weight *w = &m->io.weight[i];
        u64 bytes = m->memory[w->external].is_matrix ? rows_of_group(m, w) * (t->bytes / t->dim[1])
                                                     : t->bytes;
        if (!w->used)
            continue;
        m->weights_all += t->bytes;
        m->staging_stride = max_u64(m->staging_stride, round_up(bytes, 4 * KIB));
        most = max_u64(most, group_bytes(m, i));
    }
    m->staging = pages_alloc(m->staging_stride * device_target(m->cores).cores);
    m->window_bytes = device_window_bytes(m->device, most);
    return m->staging && m->window_bytes ? OK : E_NOMEM;
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
                       m->window + (r - m->row_at) / tile * tile_bytes);
    }
}

/* A window for the next groups; false: none is free yet. */
static bool start_groups(struct model *m, const struct weight *w)
{
    const struct gguf_tensor *t = &m->gguf->tensor[m->tensor_at];
    const struct packing *packing = &m->memory[w->external].packing;
    u32 left = (u32)t->dim[1] - m->row_at, columns = (u32)t->dim[0];
    u64 fit = m->window_bytes / group_bytes(m, m->tensor_at);

    m->group_rows = rows_of_group(m, w);
    u32 count = (u32)min_u64(min_u64(LOAD_GROUPS, fit), div_up(left, m->group_rows));
    u32 rows = min_u32(count * m->group_rows, left);
    m->window = device_window(m->loaded, w->external, packing_bytes(packing, m->row_at, columns),
                              packing_bytes(packing, rows, columns));
    if (!m->window)
        return false;
    m->group_count = count;
    device_start_work(m->cores, pack_group, m, count);
    return true;
}

/* Some groups more, unless the deadline passes. Their bytes of the file are not needed again, but
 * when a card might lose them. */
static err load_matrix(struct model *m, const struct weight *w, u64 deadline_ns)
{
    const struct gguf_tensor *t = &m->gguf->tensor[m->tensor_at];
    struct store *part = &m->gguf->part[t->part];
    u64 row_bytes = t->bytes / t->dim[1];

    if (m->group_count == 0 && !start_groups(m, w))
        return E_BUSY;
    if (device_advance(m->cores, deadline_ns) != OK)
        return E_BUSY;
    u32 rows = min_u32(m->group_count * m->group_rows, (u32)t->dim[1] - m->row_at);
    TRY(m->load_status);
    TRY(device_send(m->loaded));
    if (part->release && m->device == m->cores)
        part->release(part, t->offset + m->row_at * row_bytes, rows * row_bytes);
    m->row_at += rows;
    m->weights_done += rows * row_bytes;
    m->group_count = 0;
    return OK;
}

static err load_vector(struct model *m, const struct weight *w)
{
    const struct gguf_tensor *t = &m->gguf->tensor[m->tensor_at];
    u8 *to = device_window(m->loaded, w->external, 0, t->elements * sizeof(f32));

    if (!to)
        return E_BUSY;
    TRY(gguf_read(m->gguf, t, 0, m->staging, t->bytes));
    quant_floats(t->format, m->staging, (f32 *)(void *)to, t->elements);
    TRY(device_send(m->loaded));
    m->row_at = (u32)t->dim[1];
    m->weights_done += t->bytes;
    return OK;
}

static err load_some(struct model *m, const struct weight *w, u64 deadline_ns)
{
    const struct memory *to = &m->memory[w->external];

    if (!to->placed) {
        TRY(place(m, w->external, tensor_bytes(m, m->tensor_at)));
        m->hyper.shape.weights_bytes += tensor_bytes(m, m->tensor_at);
    }
    return to->is_matrix ? load_matrix(m, w, deadline_ns) : load_vector(m, w);
}

/* E_BUSY: again. */
static err load_weights(struct model *m, u64 deadline_ns, u32 *percent, struct text *why)
{
    while (m->tensor_at < m->gguf->tensor_count) {
        const struct gguf_tensor *t = &m->gguf->tensor[m->tensor_at];
        const struct weight *w = &m->io.weight[m->tensor_at];
        *percent = (u32)(m->weights_done * 100 / max_u64(m->weights_all, 1));
        if (time_ns() >= deadline_ns)
            return E_BUSY;
        err e = w->used ? load_some(m, w, deadline_ns) : OK;
        if (e == E_BUSY)
            return e;
        if (e != OK)
            return gguf_refuse(why, e, "model: tensor %.*s, %lu MiB with %lu MiB free: %s",
                               (int)t->name.len, t->name.ptr, t->bytes / MIB,
                               device_bytes_free(m->device) / MIB, err_text(e));
        if (!w->used || m->row_at == t->dim[1]) {
            m->tensor_at++;
            m->row_at = 0;
        }
    }
    return OK;
}

err model_load(struct model *m, u64 deadline_ns, bool *done, u32 *percent, struct text *why)
{
    err e = m->rope_done ? OK : load_tables(m, why);

    *done = false;
    if (e == OK)
        e = load_weights(m, deadline_ns, percent, why);
    if (e == OK)
        e = alloc_kv(m, why);
    if (e == OK)
        e = device_sent(m->loaded);
    if (e == OK && m->few)
        device_share(m->few, m->loaded);
    *done = e == OK;
    return e == E_BUSY ? OK : e;
}

/* ---- a card's accidents ---- */

bool model_keeps_file(const struct model *m)
{
    return m->device != m->cores;
}

err model_health(const struct model *m, struct text *why)
{
    return device_health(m->device, why);
}

err model_reload(struct model *m)
{
    m->tensor_at = m->row_at = 0;
    m->weights_done = 0;
    m->group_count = 0;
    m->rope_done = false;
    for (u32 i = 0; i < ROPE_TABLES; i++)
        m->table[i].done = 0;
    TRY(m->few ? device_revive(m->few) : OK);
    return device_revive(m->loaded);
}

/* ---- steps ---- */

err model_forget(struct model *m, u32 kv_row, u32 kv_rows)
{
    const struct model_shape *s = &m->hyper.shape;
    u64 row_bytes = s->kv_bytes / (2 * s->layers) / s->kv_tokens;

    for (; m->forgotten < 2 * s->layers; m->forgotten++)
        TRY(device_zero(m->loaded, m->io.kv[m->forgotten], kv_row * row_bytes,
                        kv_rows * row_bytes));
    TRY(device_zero_scratch(m->loaded));
    m->forgotten = 0;
    return OK;
}

void model_start(struct model *m, u32 rows, u32 outputs)
{
    const u32 sym_value[] = {[SYM_ROWS] = rows, [SYM_OUTPUTS] = outputs};

    CHECK(rows >= 1 && outputs <= rows);
    m->run = m->few && rows <= ROWS_FEW ? m->few : m->loaded;
    device_start(m->device, m->run, sym_value);
}

err model_advance(struct model *m, u64 deadline_ns)
{
    return device_advance(m->device, deadline_ns);
}

const f32 *model_logits(const struct model *m, u32 output)
{
    const f32 *logits = device_output(m->run, 0);
    return logits + (usize)output * m->hyper.shape.vocab;
}
