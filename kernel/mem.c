/*
 * mem.c: physical pages: free ranges of the handoff, given out zeroed through the direct map.
 * Must not know what the pages are for. One thread of control allocates (core 0).
 */
#include "kernel/kernel.h"

#define FIRST_MIB (1 * MIB) /* old habits live there: only for the start of cores */
#define LOW_PAGE  0x8000u   /* at least: what lies below is the oldest */
#define LOW_END   0xa0000u

static struct {
    struct ranges free;
    paddr low_page;
    u32 lost; /* ranges that found no place in the table */
    bool sealed;
} mem;

void mem_start(const struct handoff *handoff)
{
    for (const struct handoff_range *r = handoff->ranges;
         r < handoff->ranges + handoff->range_count; r++) {
        u64 end = r->base + r->bytes, base = max_u64(r->base, FIRST_MIB);
        if (r->kind != HANDOFF_FREE)
            continue;
        if (r->base < LOW_END && end > LOW_PAGE && !mem.low_page.v)
            mem.low_page.v = max_u64(r->base, LOW_PAGE);
        if (base < end)
            (void)ranges_add(&mem.free, base, end - base);
    }
}

paddr mem_low_page(void)
{
    return mem.low_page;
}

static void *take(usize bytes, usize align)
{
    CHECK(!mem.sealed);
    if (bytes == 0 || bytes > mem.free.bytes)
        return NULL;
    u64 base = ranges_take(&mem.free, round_up(bytes, PAGE_BYTES), align);
    return base == UINT64_MAX ? NULL : (void *)(HANDOFF_DIRECT_MAP + base);
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
    if (!ptr || !bytes)
        return;
    CHECK((usize)ptr % PAGE_BYTES == 0);
    if (!ranges_add(&mem.free, vm_physical(ptr).v, round_up(bytes, PAGE_BYTES)) && !mem.lost++)
        log_warn("memory", "more than %u free ranges: %lu bytes are lost, more may be", RANGES_MAX,
                 bytes);
}

usize pages_available(void)
{
    return mem.free.bytes;
}

void mem_seal(void)
{
    mem.sealed = true;
}
