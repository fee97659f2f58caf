/*
 * image.c: the kernel's ELF file into memory, and the first page tables: segments W^X, RAM mapped
 * once for reading and writing, the firmware's lower half until the kernel drops it.
 * Every header is checked before anything of it is used. Follows: ELF-64 object file format 1.5;
 * AMD64 volume 2, 5.3 (long-mode paging).
 */
#include "boot/boot.h"

#include <cpuid.h>

#define SEGMENTS_MAX    16u
#define IMAGE_BYTES_MAX (64 * MIB)
#define PT_LOAD         1u
#define SEGMENT_EXECUTE 1u
#define SEGMENT_WRITE   2u

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

static const struct elf_header *header_of(struct str elf)
{
    return (const void *)elf.ptr;
}

static const struct elf_segment *segment_of(struct str elf, u32 idx)
{
    return (const void *)(elf.ptr + header_of(elf)->segments_at + idx * sizeof(struct elf_segment));
}

static bool header_good(struct str elf)
{
    static const u8 ident[7] = {0x7f, 'E', 'L', 'F', 2 /* 64 bit */, 1 /* little endian */, 1};
    const struct elf_header *h = header_of(elf);

    return elf.len >= sizeof(*h) && memcmp(h->ident, ident, sizeof(ident)) == 0 &&
           h->type == 2 /* executable */ && h->machine == 62 /* x86-64 */ &&
           h->segment_bytes == sizeof(struct elf_segment) && h->segment_count > 0 &&
           h->segment_count <= SEGMENTS_MAX && h->segments_at % 8 == 0 &&
           h->segments_at <= elf.len &&
           h->segment_count * sizeof(struct elf_segment) <= elf.len - h->segments_at;
}

/* `end` is where the segment before ended: segments ascend and share no page. */
static bool segment_good(struct str elf, const struct elf_segment *s, u64 end)
{
    u32 both = SEGMENT_EXECUTE | SEGMENT_WRITE;

    return s->virtual % PAGE_BYTES == 0 && s->virtual >= end && s->bytes > 0 &&
           s->bytes <= IMAGE_BYTES_MAX && s->virtual - HANDOFF_KERNEL_LOW <= IMAGE_BYTES_MAX &&
           s->file_bytes <= s->bytes && s->file_at <= elf.len &&
           s->file_bytes <= elf.len - s->file_at && (s->flags & both) != both;
}

static bool holds_entry(const struct elf_segment *s, u64 entry)
{
    return (s->flags & SEGMENT_EXECUTE) && entry >= s->virtual &&
           entry - s->virtual < s->file_bytes;
}

/* First and last virtual address of all segments; false when the file is not a kernel. */
static bool image_check(struct str elf, u64 *low, u64 *high)
{
    bool entry_good = false;

    *low = 0;
    *high = HANDOFF_KERNEL_LOW;
    if (!header_good(elf))
        return false;
    for (u32 i = 0; i < header_of(elf)->segment_count; i++) {
        const struct elf_segment *s = segment_of(elf, i);
        if (s->type != PT_LOAD)
            continue;
        if (!segment_good(elf, s, *high))
            return false;
        *low = *low ? *low : s->virtual;
        *high = round_up(s->virtual + s->bytes, PAGE_BYTES);
        entry_good |= holds_entry(s, header_of(elf)->entry);
    }
    return entry_good;
}

err image_place(const struct loader *loader, struct str elf, struct image *image)
{
    u64 low, high;

    if (!image_check(elf, &low, &high))
        return E_FORMAT;
    u8 *place = loader_pages(loader, EfiLoaderData, high - low, 0);
    if (!place)
        return E_NOMEM;
    memset(place, 0, high - low);
    for (u32 i = 0; i < header_of(elf)->segment_count; i++) {
        const struct elf_segment *s = segment_of(elf, i);
        if (s->type == PT_LOAD)
            memcpy(place + (s->virtual - low), elf.ptr + s->file_at, s->file_bytes);
    }
    *image = (struct image){(usize)place, high - low, header_of(elf)->entry, 0};
    return OK;
}

/* ---- page tables ---- */

#define PRESENT    (1ull << 0)
#define WRITE      (1ull << 1)
#define LARGE      (1ull << 7)
#define NO_EXECUTE (1ull << 63)
#define ADDRESS    0x000ffffffffff000ull

/* Tables come from one block, so that none is asked for while the memory map is being read. */
struct tables {
    u8 *next, *end;
    u64 *root;
};

static u64 *table_take(struct tables *tables)
{
    CHECK(tables->next < tables->end);
    u64 *table = (u64 *)(void *)tables->next;
    tables->next += PAGE_BYTES;
    return memset(table, 0, PAGE_BYTES);
}

/* Maps one page of level 1 (4 KiB), 2 (2 MiB) or 3 (1 GiB). What is mapped already stays. */
static void map(struct tables *tables, u64 virtual, u64 physical, u64 flags, u32 level)
{
    u64 *table = tables->root;

    for (u32 at = 4; at > level; at--) {
        u64 *entry = &table[virtual >> (3 + 9 * at) & 511];
        if (!*entry)
            *entry = (usize)table_take(tables) | PRESENT | WRITE;
        if (*entry & LARGE)
            return;
        table = (u64 *)(usize)(*entry & ADDRESS);
    }
    u64 *leaf = &table[virtual >> (3 + 9 * level) & 511];
    if (!*leaf)
        *leaf = physical | flags | PRESENT | (level > 1 ? LARGE : 0);
}

static bool has_1g_pages(void)
{
    u32 eax, ebx, ecx, edx = 0;

    return __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) && (edx & 1u << 26);
}

static void map_ram(struct tables *tables, const struct handoff_range *range)
{
    u64 end = range->base + range->bytes, at = range->base / (2 * MIB) * (2 * MIB);
    bool huge = has_1g_pages();

    while (at < end) {
        bool whole = huge && at % GIB == 0 && at >= range->base && end - at >= GIB;
        map(tables, HANDOFF_DIRECT_MAP + at, at, WRITE | NO_EXECUTE, whole ? 3 : 2);
        at += whole ? GIB : 2 * MIB;
    }
}

static void map_kernel(struct tables *tables, struct str elf, const struct image *image)
{
    u64 low = 0;

    for (u32 i = 0; i < header_of(elf)->segment_count; i++) {
        const struct elf_segment *s = segment_of(elf, i);
        if (s->type != PT_LOAD)
            continue;
        low = low ? low : s->virtual;
        u64 flags =
            (s->flags & SEGMENT_WRITE ? WRITE : 0) | (s->flags & SEGMENT_EXECUTE ? 0 : NO_EXECUTE);
        for (u64 at = 0; at < s->bytes; at += PAGE_BYTES)
            map(tables, s->virtual + at, image->physical + (s->virtual - low) + at, flags, 1);
    }
}

static u64 cr3_read(void)
{
    u64 value;

    __asm__ volatile("mov %%cr3, %0" : "=r"(value));
    return value;
}

err image_map(const struct loader *loader, struct str elf, struct image *image)
{
    const struct handoff *handoff = loader->handoff;
    struct tables tables;
    UINTN key;
    u64 top = 0;

    if (cpu_cr4() & 1u << 12)
        stop(loader, "the firmware uses five-level paging, this loader knows four");
    TRY(memory_map_read(loader, &key));
    for (u32 i = 0; i < handoff->range_count; i++)
        if (handoff->ranges[i].kind != HANDOFF_DEVICE)
            top = handoff->ranges[i].base + handoff->ranges[i].bytes;
    u64 bytes = (16 + image->bytes / (2 * MIB) + 2 * (top / GIB + 1)) * PAGE_BYTES;
    tables.next = loader_pages(loader, EfiLoaderData, bytes, 4 * GIB); /* cores start in 32 bits */
    if (!tables.next)
        return E_NOMEM;
    tables.end = tables.next + bytes;
    tables.root = table_take(&tables);
    memcpy(tables.root, (const void *)(usize)(cr3_read() & ADDRESS), PAGE_BYTES / 2);
    for (u32 i = 0; i < handoff->range_count; i++)
        if (handoff->ranges[i].kind != HANDOFF_DEVICE)
            map_ram(&tables, &handoff->ranges[i]);
    map_kernel(&tables, elf, image);
    image->page_table = (usize)tables.root;
    return OK;
}
