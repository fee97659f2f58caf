/*
 * model_load.c: what a model has in memory: tables of rotary positions, weights that are repacked
 * as they stream in from the file, the KV pool. Fills the windows of the device. Must not know what
 * is computed with it.
 */
#include "ml/model_priv.h"

#define LOAD_GROUPS 64u /* groups of rows handed to the cores at a time */

/* ---- memory of the externals ---- */

u64 model_kv_layer_bytes(const struct model *m)
{
    return m->hyper.shape.kv_bytes / m->hyper.shape.layers;
}

static err place(struct model *m, u32 external, u64 bytes)
{
    if (m->memory[external].placed)
        return OK;
    m->memory[external].placed = true;
    return device_alloc(m->loaded, external, bytes, false);
}

static err alloc_kv(struct model *m, struct text *why)
{
    const struct model_shape *s = &m->hyper.shape;

    for (u32 i = 2 * m->hyper.layer_first; i < 2 * m->hyper.layer_end; i++)
        if (place(m, m->io.kv[i], model_kv_layer_bytes(m) / 2) != OK)
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
u64 model_tensor_bytes(const struct model *m, u32 idx)
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
        return model_tensor_bytes(m, idx);
    return packing_bytes(&to->packing, rows_of_group(m, w), (u32)m->gguf->tensor[idx].dim[0]);
}

err model_staging(struct model *m)
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
        TRY(place(m, w->external, model_tensor_bytes(m, m->tensor_at)));
        m->first->hyper.shape.weights_bytes += model_tensor_bytes(m, m->tensor_at);
    }
    return to->is_matrix ? load_matrix(m, w, deadline_ns) : load_vector(m, w);
}

/* E_BUSY: again. */
static err load_weights(struct model *m, u64 deadline_ns, struct text *why)
{
    while (m->tensor_at < m->gguf->tensor_count) {
        const struct gguf_tensor *t = &m->gguf->tensor[m->tensor_at];
        const struct weight *w = &m->io.weight[m->tensor_at];
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

static err load_part(struct model *m, u64 deadline_ns, struct text *why)
{
    if (!m->rope_done)
        TRY(load_tables(m, why));
    TRY(load_weights(m, deadline_ns, why));
    TRY(alloc_kv(m, why));
    TRY(device_sent(m->loaded));
    if (m->few)
        device_share(m->few, m->loaded);
    return OK;
}

err model_load(struct model *m, u64 deadline_ns, bool *done, u32 *percent, struct text *why)
{
    u64 have = 0, all = 1;
    err e = OK;

    for (struct model *part = m; part && e == OK; part = part->next)
        e = load_part(part, deadline_ns, why);
    for (struct model *part = m; part; part = part->next) {
        have += part->weights_done;
        all += part->weights_all;
    }
    *done = e == OK;
    *percent = *done ? 100 : (u32)(have * 100 / all);
    return e == E_BUSY ? OK : e;
}
