/*
 * image.c: the kernel's ELF file into memory, and the first page tables: segments W^X, RAM mapped
 * once for reading and writing. Every header is checked before anything of it is used. Follows:
 * ELF-64 object file format 1.5.
 */
#include "boot/boot.h"

#define IMAGE_BYTES_MAX (64 * MIB)
#define PT_LOAD         1u
#define SEGMENT_EXECUTE 1u
#define SEGMENT_WRITE   2u
#define SEGMENT_BOTH    3u

struct elf_header {
    u8 ident[16];
    u16 type, machine;
    u32 version;
    u64 entry, segments_at, sections_at;
    u32 flags;
    u16 header_bytes, segment_bytes, segment_count, section_bytes, section_count, names_idx;
};

struct elf_segment {
    u32 type, flags;
    u64 file_at, virtual, physical, file_bytes, bytes, align;
};

_Static_assert(sizeof(struct elf_header) == 64 && sizeof(struct elf_segment) == 56, "ELF-64");

/* ---- the file ---- */

static bool header_good(const struct elf_header *h, usize bytes)
{
    static const u8 kind[20] = {0x7f,
                                'E',
                                'L',
                                'F',
                                2 /* 64 bit */,
                                1 /* little endian */,
                                1,
                                [16] = 2 /* executable */,
                                [18] = 62 /* x86-64 */};

    return bytes >= sizeof(*h) && memcmp(h, kind, sizeof(kind)) == 0 &&
           h->segment_bytes == sizeof(struct elf_segment) && h->segments_at % 8 == 0 &&
           h->segments_at <= bytes &&
           h->segment_count * sizeof(struct elf_segment) <= bytes - h->segments_at;
}

/* `end` is where the segment before ended: segments ascend and share no page. */
static bool segment_good(const struct elf_segment *s, u64 end, usize file_bytes)
{
    return s->virtual % PAGE_BYTES == 0 && s->virtual >= end && s->bytes > 0 &&
           s->bytes <= IMAGE_BYTES_MAX && s->virtual - HANDOFF_KERNEL_LOW <= IMAGE_BYTES_MAX &&
           s->file_bytes <= s->bytes && s->file_at <= file_bytes &&
           s->file_bytes <= file_bytes - s->file_at && (s->flags & SEGMENT_BOTH) != SEGMENT_BOTH;
}

/* Where the checked segments end in memory; 0 when the file is no kernel. */
static u64 check(struct str elf)
{
    const struct elf_header *h = (const void *)elf.ptr;
    u64 end = HANDOFF_KERNEL_LOW;
    bool entry_good = false;

    if (!header_good(h, elf.len))
        return 0;
    const struct elf_segment *s = (const void *)(elf.ptr + h->segments_at);
    for (u32 i = 0; i < h->segment_count; i++, s++) {
        if (s->type != PT_LOAD)
            continue;
        if (!segment_good(s, end, elf.len))
            return 0;
        end = round_up(s->virtual + s->bytes, PAGE_BYTES);
        entry_good |= s->flags & SEGMENT_EXECUTE && h->entry - s->virtual < s->file_bytes;
    }
    return entry_good ? end : 0;
}

/* ---- page tables ---- */

static void *table_page(void)
{
    return loader_pages(EfiLoaderData, PAGE_BYTES, 4 * GIB); /* cores start in 32 bits */
}

static void map(const struct paging *paging, u64 virtual, u64 physical, u64 bytes, u64 flags)
{
    CHECK(paging_map(paging, virtual, physical, bytes, flags));
}

/* Whole large pages, which may overlap: what two ranges share is mapped the same way twice. The
 * code that jumps stays where it is for its last instruction. */
static void map_memory(const struct paging *paging)
{
    u64 here = (usize)kernel_jump / PAGE_BYTES * PAGE_BYTES;

    map(paging, here, here, 2 * PAGE_BYTES, 0);
    const struct handoff_range *r = boot.handoff->ranges;

    for (; r < boot.handoff->ranges + boot.handoff->range_count; r++) {
        u64 from = r->base / LARGE_BYTES * LARGE_BYTES;
        map(paging, HANDOFF_DIRECT_MAP + from, from,
            round_up(r->base + r->bytes - from, LARGE_BYTES), PAGE_WRITE | PAGE_NO_EXECUTE);
    }
}

static void map_kernel(const struct paging *paging, struct str elf, u64 physical)
{
    const struct elf_header *h = (const void *)elf.ptr;
    const struct elf_segment *s = (const void *)(elf.ptr + h->segments_at), *end;

    for (end = s + h->segment_count; s < end; s++) {
        u64 at = physical + s->virtual - HANDOFF_KERNEL_LOW;
        u64 flags = (s->flags & SEGMENT_WRITE ? PAGE_WRITE : 0) |
                    (s->flags & SEGMENT_EXECUTE ? 0 : PAGE_NO_EXECUTE);
        if (s->type != PT_LOAD)
            continue;
        memcpy((void *)(usize)at, elf.ptr + s->file_at, s->file_bytes);
        map(paging, s->virtual, at, round_up(s->bytes, PAGE_BYTES), flags);
    }
}

u64 image_load(struct str elf)
{
    struct handoff *handoff = boot.handoff;
    u64 end = check(elf);

    if (!end)
        stop("the kernel file is damaged");
    handoff->kernel_bytes = end - HANDOFF_KERNEL_LOW;
    handoff->kernel_base = (usize)loader_pages(EfiLoaderData, handoff->kernel_bytes, UINT64_MAX);
    const struct paging paging = {table_page(), 0, table_page};
    handoff->page_table = (usize)paging.root;
    map_kernel(&paging, elf, handoff->kernel_base);
    (void)memory_map_read();
    map_memory(&paging);
    return ((const struct elf_header *)(const void *)elf.ptr)->entry;
}
