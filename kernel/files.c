/*
 * files.c: files that the loader has left in memory, as stores. A part that is never read again
 * goes back to the pages, so that a model and its repacked form are never both there in full.
 */
#include "kernel/kernel.h"

static struct {
    struct file {
        struct store store;
        const struct handoff_file *from;
    } at[HANDOFF_FILES_MAX];
} files;

static u8 *bytes_of(const struct handoff_file *from)
{
    return (u8 *)(HANDOFF_DIRECT_MAP + from->base);
}

static err file_read(struct store *store, u64 offset, void *out, usize bytes)
{
    const struct file *file = store->ctx;

    if (offset > store->bytes || bytes > store->bytes - offset)
        return E_RANGE;
    memcpy(out, bytes_of(file->from) + offset, bytes);
    return OK;
}

/* Only whole pages go; of the last page of the file nobody else has a part. */
static void file_release(struct store *store, u64 offset, u64 bytes)
{
    const struct file *file = store->ctx;
    u64 end = offset + bytes, low = round_up(offset, PAGE_BYTES);

    CHECK(bytes <= store->bytes && offset <= store->bytes - bytes);
    u64 high = end == store->bytes ? round_up(end, PAGE_BYTES) : end / PAGE_BYTES * PAGE_BYTES;
    if (low < high)
        pages_free(bytes_of(file->from) + low, high - low);
}

struct store *file_store(const struct handoff *handoff, u32 idx)
{
    CHECK(idx < HANDOFF_FILES_MAX);
    const struct handoff_file *from = &handoff->files[idx];
    struct file *file = &files.at[idx];

    if (idx >= handoff->file_count || from->status || !from->base)
        return NULL;
    file->from = from;
    file->store = (struct store){from->name, from->bytes, file, file_read, file_release};
    return &file->store;
}
