/*
 * paging.h: four-level page tables, as the loader and the kernel both build them. Must not know
 * what is mapped. Follows: AMD64 volume 2, 5.3 (long-mode paging), 7.8 (page attribute table).
 */
#ifndef NOHOST_PAGING_H
#define NOHOST_PAGING_H

#include "kernel/base.h"

#define PAGE_BYTES  4096ull
#define LARGE_BYTES (2 * MIB)

#define PAGE_PRESENT         (1ull << 0)
#define PAGE_WRITE           (1ull << 1)
#define PAGE_UNCACHED        (3ull << 3)
#define PAGE_LARGE           (1ull << 7)
#define PAGE_WRITE_COMBINING (1ull << 7) /* the PAT bit, where a large page has PAGE_LARGE */
#define PAGE_NO_EXECUTE      (1ull << 63)
#define PAGE_ADDRESS         0x000ffffffffff000ull

struct paging {
    u64 *root;
    u64 offset;           /* where physical address 0 is seen: so the tables are reached */
    void *(*table)(void); /* a zeroed page, NULL when there is none */
};

/* The entry of level 1 (4 KiB) or 2 (2 MiB) for an address; tables are made and large pages split
 * on the way. NULL: no memory. */
u64 *paging_entry(const struct paging *paging, u64 virtual, u32 level);
/* Maps whole pages, by large ones where they fit; `flags` are those of small ones. False: no
 * memory. */
bool paging_map(const struct paging *paging, u64 virtual, u64 physical, u64 bytes, u64 flags);

#endif
