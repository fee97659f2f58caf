/*
 * batch.c: which sequences run, where their keys and values lie, and which tokens a step computes.
 * Owns slots, KV pages and the queue; must not know of text, sampling or events. A sequence is
 * admitted only with all the pages that it may ever need, so a stream that runs is never aborted
 * for lack of room.
 */
#include "ml/priv.h"

static u32 pages_of(u32 tokens)
{
    return (u32)div_up(tokens, MODEL_KV_PAGE_TOKENS);
}

err batch_init(struct batch *batch, struct arena *arena, const struct model_shape *shape)
{
    *batch = (struct batch){
        .slots = shape->slots,
        .ctx_max = shape->ctx_max,
        .page_count = shape->kv_tokens / MODEL_KV_PAGE_TOKENS,
    };
    batch->page_free = arena_new(arena, u32, batch->page_count);
    batch->page_dirty = arena_new(arena, bool, batch->page_count);
    batch->page = arena_new(arena, u32, (usize)batch->slots * pages_of(batch->ctx_max));
    batch->running = arena_new(arena, struct sequence *, batch->slots);
    if (!batch->page_free || !batch->page_dirty || !batch->page || !batch->running)
        return E_NOMEM;
    while (batch->page_free_count < batch->page_count) { /* page 0 is taken first */
        batch->page_free[batch->page_free_count] = batch->page_count - 1 - batch->page_free_count;
        batch->page_free_count++;
    }
    return OK;
}

void batch_wait(struct batch *batch, struct sequence *sequence)
{
    CHECK(sequence->count_max <= batch->ctx_max);
    CHECK(batch->waiting_count < ML_QUEUE_MAX);
    batch->waiting[batch->waiting_count++] = sequence;
    sequence->state = SEQUENCE_WAITING;
}

static void take_from_queue(struct batch *batch, u32 idx)
{
    batch->waiting_count--;
    for (u32 i = idx; i < batch->waiting_count; i++)
        batch->waiting[i] = batch->waiting[i + 1];
}

struct sequence *batch_admit(struct batch *batch, struct model_batch *rows)
{
    struct sequence *sequence = batch->waiting_count ? batch->waiting[0] : NULL;
    u32 slot = 0, *page = batch->page;

    while (slot < batch->slots && batch->running[slot])
        slot++;
    if (!sequence || slot == batch->slots || pages_of(sequence->count_max) > batch->page_free_count)
        return NULL;
    take_from_queue(batch, 0);
    page += (usize)slot * pages_of(batch->ctx_max);
    for (u32 i = 0; i < pages_of(sequence->count_max); i++)
        page[i] = batch->page_free[--batch->page_free_count];
    for (u32 at = 0; at < sequence->count_max; at++)
        rows->kv_index[(usize)slot * batch->ctx_max + at] =
            (i32)(page[at / MODEL_KV_PAGE_TOKENS] * MODEL_KV_PAGE_TOKENS +
                  at % MODEL_KV_PAGE_TOKENS);
    batch->running[slot] = sequence;
    sequence->slot = slot;
    sequence->state = SEQUENCE_RUNNING;
    return sequence;
}

void batch_leave(struct batch *batch, struct sequence *sequence)
{
    const u32 *page = batch->page + (usize)sequence->slot * pages_of(batch->ctx_max);

    for (u32 i = 0; i < batch->waiting_count; i++)
        if (batch->waiting[i] == sequence)
            take_from_queue(batch, i);
    if (sequence->state == SEQUENCE_RUNNING) {
        CHECK(batch->running[sequence->slot] == sequence);
        for (u32 i = pages_of(sequence->count_max); i > 0; i--)
            batch->page_free[batch->page_free_count++] = page[i - 1];
        CHECK(batch->page_free_count <= batch->page_count);
        /* A step that runs may have gone further than `computed`. */
        for (u32 i = 0; i < pages_of(sequence->computed + sequence->rows); i++)
            batch->page_dirty[page[i]] = true;
        batch->running[sequence->slot] = NULL;
    }
    sequence->state = SEQUENCE_FREE;
}

u32 batch_dirty(const struct batch *batch, u32 *first)
{
    u32 count = 0;

    for (*first = 0; *first < batch->page_count && !batch->page_dirty[*first];)
        (*first)++;
    while (*first + count < batch->page_count && batch->page_dirty[*first + count])
        count++;
    return count;
}

void batch_cleaned(struct batch *batch, u32 first, u32 count)
{
    memset(batch->page_dirty + first, false, count);
}

/* The next `rows` tokens of a sequence, from row `first` on. */
static void put_rows(const struct batch *batch, struct model_batch *out, struct sequence *sequence,
                     u32 first, u32 rows)
{
    for (u32 i = 0; i < rows; i++) {
        u32 position = sequence->computed + i;
        usize index = (usize)sequence->slot * batch->ctx_max + position;
        out->token[first + i] = (i32)sequence->token[position];
        out->position[first + i] = (i32)position;
        out->slot[first + i] = (i32)sequence->slot;
        out->kv_write[first + i] = out->kv_index[index];
    }
    sequence->rows = rows;
}

u32 batch_plan(struct batch *batch, struct model_batch *out, u32 rows_max, u32 prefill_max,
               u32 *outputs)
{
    u32 rows = 0;

    *outputs = 0;
    for (u32 turn = 0; turn < 2 * batch->slots; turn++) {
        struct sequence *sequence = batch->running[turn % batch->slots];
        bool decodes = sequence && sequence->count - sequence->computed == 1;
        if (!sequence || decodes != (turn < batch->slots))
            continue;
        u32 room = decodes ? rows_max - rows : min_u32(prefill_max, rows_max - rows);
        u32 count = min_u32(room, sequence->count - sequence->computed);
        put_rows(batch, out, sequence, rows, count);
        rows += count;
        prefill_max -= decodes ? 0 : count;
        sequence->output = BATCH_NONE;
        if (count && sequence->computed + count == sequence->count) {
            out->out_row[*outputs] = (i32)rows - 1;
            sequence->output = (*outputs)++;
        }
    }
    return rows;
}
