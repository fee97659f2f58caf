/*
 * mem.c: free physical memory as a list of runs in rising order, kept in the first bytes of the
 * runs themselves and reached through the direct map. Must not know what the pages are for. One
 * thread of control allocates (core 0).
 */
#include "kernel/kernel.h"

#define FIRST_MIB (1 * MIB) /* old habits live there */

struct run {
    struct run *next;
    u64 bytes;
};

static struct {
    struct run *first;
    u64 free_bytes;
    bool sealed;
} mem;

static void join(struct run *low)
{
    struct run *high = low->next;

    if ((u8 *)low + low->bytes == (u8 *)high)
        *low = (struct run){high->next, low->bytes + high->bytes};
}

static void give(u8 *at, u64 bytes)
{
    struct run **link = &mem.first, *below = NULL, *run = (struct run *)(void *)at;

    for (; *link && *link < run; link = &below->next)
        below = *link;
    CHECK(!below || (u8 *)below + below->bytes <= at);
    CHECK(!*link || at + bytes <= (u8 *)*link);
    *run = (struct run){*link, bytes};
    *link = run;
    join(run);
    if (below)
        join(below);
    mem.free_bytes += bytes;
}

static u64 skip_of(const struct run *run, usize align)
{
    return -(usize)run & (align - 1);
}

/* From the smallest run that fits. */
static void *take(usize bytes, usize align)
{
    struct run **best = NULL;

    CHECK(!mem.sealed);
    if (bytes == 0 || bytes > mem.free_bytes)
        return NULL;
    bytes = round_up(bytes, PAGE_BYTES);
    for (struct run **link = &mem.first; *link; link = &(*link)->next)
        if (skip_of(*link, align) + bytes <= (*link)->bytes &&
            (!best || (*link)->bytes < (*best)->bytes))
            best = link;
    if (!best)
        return NULL;
    struct run *run = *best, whole = *run;
    u64 skip = skip_of(run, align);
    u8 *at = (u8 *)run + skip;
    *best = whole.next;
    mem.free_bytes -= whole.bytes;
    if (skip)
        give((u8 *)run, skip);
    if (skip + bytes < whole.bytes)
        give(at + bytes, whole.bytes - skip - bytes);
    return at;
}

void mem_start(const struct handoff *handoff)
{
    const struct handoff_range *r = handoff->ranges;

    for (; r < handoff->ranges + handoff->range_count; r++) {
        u64 end = r->base + r->bytes, base = max_u64(r->base, FIRST_MIB);
        if (r->kind == HANDOFF_FREE && base < end)
            give((u8 *)(HANDOFF_DIRECT_MAP + base), end - base);
    }
}

void *pages_alloc_aligned(usize bytes, usize align)
{
    void *pages = take(bytes, align);

    return pages ? memset(pages, 0, round_up(bytes, PAGE_BYTES)) : NULL;
}

void *pages_alloc(usize bytes)
{
    return pages_alloc_aligned(bytes, PAGE_BYTES);
}

void *pages_take(usize bytes)
{
    return take(bytes, PAGE_BYTES);
}

void pages_free(void *ptr, usize bytes)
{
    CHECK((usize)ptr % PAGE_BYTES == 0);
    if (ptr && bytes)
        give(ptr, round_up(bytes, PAGE_BYTES));
}

usize pages_available(void)
{
    return mem.free_bytes;
}

void mem_seal(void)
{
    mem.sealed = true;
}
