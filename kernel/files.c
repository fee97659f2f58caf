/*
 * files.c: files that the loader has left in memory, as stores. A part that is never read again
 * goes back to the pages, so that a model and its repacked form are never both there in full.
 */
#include "kernel/kernel.h"

static struct {
    struct file {
        struct store store;
        u8 *bytes;
        u16 *released; /* bytes per page that will not be read again */
    } at[HANDOFF_FILES_MAX];
} files;

static err file_read(struct store *store, u64 offset, void *out, usize bytes)
{
    const struct file *file = store->ctx;

    if (offset > store->bytes || bytes > store->bytes - offset)
        return E_RANGE;
    memcpy(out, file->bytes + offset, bytes);
    return OK;
}

/* A page goes when all its bytes have been released, in whatever order and pieces. */
static void file_release(struct store *store, u64 offset, u64 bytes)
{
    const struct file *file = store->ctx;
    u64 page = offset / PAGE_BYTES, end = offset + bytes, run = 0; /* pages that go together */

    CHECK(bytes <= store->bytes && offset <= store->bytes - bytes);
    for (; bytes && page * PAGE_BYTES < end; page++) {
        u64 low = max_u64(offset, page * PAGE_BYTES), high = min_u64(end, (page + 1) * PAGE_BYTES);
        u64 whole = min_u64(store->bytes - page * PAGE_BYTES, PAGE_BYTES);
        file->released[page] = (u16)(file->released[page] + (high - low));
        CHECK(file->released[page] <= whole);
        if (file->released[page] == whole) {
            run++;
            continue;
        }
        pages_free(file->bytes + (page - run) * PAGE_BYTES, run * PAGE_BYTES);
        run = 0;
    }
    pages_free(file->bytes + (page - run) * PAGE_BYTES, run * PAGE_BYTES);
}

struct store *file_store(const struct handoff *handoff, u32 idx)
{
    CHECK(idx < HANDOFF_FILES_MAX);
    const struct handoff_file *from = &handoff->files[idx];
    struct file *file = &files.at[idx];

    if (idx >= handoff->file_count || from->status || !from->base)
        return NULL;
    file->bytes = (u8 *)(HANDOFF_DIRECT_MAP + from->base);
    file->released = pages_alloc(div_up(from->bytes, PAGE_BYTES) * sizeof(u16));
    file->store = (struct store){from->name, from->bytes, file, file_read,
                                 file->released ? file_release : NULL};
    return &file->store;
}
