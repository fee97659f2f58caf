/* paging.c: the one walk through page tables, see paging.h. */
#include "kernel/paging.h"

#define PAT_LARGE (1ull << 12)

/* A new table below `entry`; a large page there becomes 512 small ones with the same rights. */
static bool add_table(const struct paging *paging, u64 *entry)
{
    u64 *table = paging->table();

    for (u64 i = 0; table && *entry && i < 512; i++)
        table[i] = (*entry & ~PAGE_LARGE) + i * PAGE_BYTES;
    if (table)
        *entry = ((usize)table - paging->offset) | PAGE_PRESENT | PAGE_WRITE;
    return table;
}

u64 *paging_entry(const struct paging *paging, u64 virtual, u32 level)
{
    u64 *table = paging->root;

    for (u32 at = 4; at > level; at--) {
        u64 *entry = &table[virtual >> (3 + 9 * at) & 511];
        if ((!*entry || (at < 4 && *entry & PAGE_LARGE)) && !add_table(paging, entry))
            return NULL;
        table = (u64 *)((*entry & PAGE_ADDRESS) + paging->offset);
    }
    return &table[virtual >> (3 + 9 * level) & 511];
}

bool paging_map(const struct paging *paging, u64 virtual, u64 physical, u64 bytes, u64 flags)
{
    u64 pat = flags & PAGE_WRITE_COMBINING ? PAT_LARGE : 0;

    for (u64 done = 0, step; done < bytes; done += step) {
        bool large = (virtual + done) % LARGE_BYTES == 0 && (physical + done) % LARGE_BYTES == 0 &&
                     bytes - done >= LARGE_BYTES;
        u64 *entry = paging_entry(paging, virtual + done, large ? 2 : 1);
        if (!entry)
            return false;
        *entry = (physical + done) | flags | PAGE_PRESENT | (large ? PAGE_LARGE | pat : 0);
        step = large ? LARGE_BYTES : PAGE_BYTES;
    }
    return true;
}
