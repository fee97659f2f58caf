/*
 * image.c: the kernel's ELF file into memory, and the first page tables: segments W^X, RAM mapped
 * once for reading and writing, the firmware's lower half until the kernel drops it.
 * Every header is checked before anything of it is used. Follows: ELF-64 object file format 1.5;
 * AMD64 volume 2, 5.3 (long-mode paging).
 */
#include "boot/boot.h"

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

static bool header_good(struct str elf)
{
    static const u8 ident[7] = {0x7f, 'E', 'L', 'F', 2 /* 64 bit */, 1 /* little endian */, 1};
    const struct elf_header *h = (const void *)elf.ptr;

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

/* The kernel as checked and placed. */
struct image {
    struct str elf;
    struct elf_header header;
    struct elf_segment segment[SEGMENTS_MAX];
    u32 count; /* of segments to load */
    u64 low, high, physical;
};

/* False when the file is not a kernel. */
static bool image_read(struct image *image)
{
    struct elf_segment *s = image->segment;
    bool entry_good = false;

    if (!header_good(image->elf))
        return false;
    memcpy(&image->header, image->elf.ptr, sizeof(image->header));
    image->high = HANDOFF_KERNEL_LOW;
    for (u32 i = 0; i < image->header.segment_count; i++) {
        memcpy(s, image->elf.ptr + image->header.segments_at + i * sizeof(*s), sizeof(*s));
        if (s->type != PT_LOAD)
            continue;
        if (!segment_good(image->elf, s, image->high))
            return false;
        image->high = round_up(s->virtual + s->bytes, PAGE_BYTES);
        entry_good |= holds_entry(s, image->header.entry);
        s = &image->segment[++image->count];
    }
    image->low = image->segment[0].virtual;
    return entry_good;
}

/* ---- page tables ---- */

#define PRESENT     (1ull << 0)
#define WRITE       (1ull << 1)
#define LARGE       (1ull << 7)
#define NO_EXECUTE  (1ull << 63)
#define ADDRESS     0x000ffffffffff000ull
#define LARGE_BYTES (2 * MIB)

/* Tables come from one block, so that none is asked for while the memory map is being read. */
struct tables {
    u8 *next, *end;
    u64 *root;
};

static u64 *table_take(struct tables *tables)
{
    CHECK(tables->next < tables->end);
    tables->next += PAGE_BYTES;
    return (u64 *)(void *)(tables->next - PAGE_BYTES);
}

/* Maps one page of level 1 (4 KiB) or 2 (2 MiB). What is mapped already stays. */
static void map(struct tables *tables, u64 virtual, u64 physical, u64 flags, u32 level)
{
    u64 *table = tables->root;

    for (u32 at = 4; at > level; at--) {
        u64 *entry = &table[virtual >> (3 + 9 * at) & 511];
        if (!*entry)
            *entry = (usize)table_take(tables) | PRESENT | WRITE;
        table = (u64 *)(usize)(*entry & ADDRESS);
    }
    table[virtual >> (3 + 9 * level) & 511] = physical | flags | PRESENT;
}

static void map_kernel(struct tables *tables, const struct image *image)
{
    for (const struct elf_segment *s = image->segment; s < image->segment + image->count; s++) {
        u64 flags =
            (s->flags & SEGMENT_WRITE ? WRITE : 0) | (s->flags & SEGMENT_EXECUTE ? 0 : NO_EXECUTE);
        for (u64 at = 0; at < s->bytes; at += PAGE_BYTES)
            map(tables, s->virtual + at, image->physical + s->virtual - image->low + at, flags, 1);
    }
}

static void build_tables(const struct image *image)
{
    const struct handoff *handoff = boot.handoff;
    const struct handoff_range *end = handoff->ranges + handoff->range_count;
    struct tables tables;
    u64 top = 0;

    for (const struct handoff_range *r = handoff->ranges; r < end; r++)
        top = max_u64(top, r->base + r->bytes);
    u64 bytes = (16 + (image->high - image->low) / LARGE_BYTES + top / GIB + 1) * PAGE_BYTES;
    tables.next = loader_pages(EfiLoaderData, bytes, 4 * GIB); /* cores start in 32 bits */
    tables.end = tables.next + bytes;
    tables.root = table_take(&tables);
    memcpy(tables.root, (const void *)(usize)(cpu_cr3() & ADDRESS), PAGE_BYTES / 2);
    for (const struct handoff_range *r = handoff->ranges; r < end; r++)
        for (u64 at = r->base / LARGE_BYTES * LARGE_BYTES; at < r->base + r->bytes;
             at += LARGE_BYTES)
            map(&tables, HANDOFF_DIRECT_MAP + at, at, LARGE | WRITE | NO_EXECUTE, 2);
    map_kernel(&tables, image);
    boot.handoff->page_table = (usize)tables.root;
}

u64 image_load(struct str elf)
{
    struct image image = {.elf = elf};

    if (!image_read(&image))
        stop("the kernel file is damaged");
    if (cpu_cr4() & 1u << 12)
        stop("the firmware uses five-level paging, this loader knows four");
    u64 bytes = image.high - image.low;
    u8 *place = loader_pages(EfiLoaderData, bytes, UINT64_MAX);
    for (u32 i = 0; i < image.count; i++)
        memcpy(place + image.segment[i].virtual - image.low, elf.ptr + image.segment[i].file_at,
               image.segment[i].file_bytes);
    image.physical = (usize)place;
    boot.handoff->kernel_base = image.physical;
    boot.handoff->kernel_bytes = bytes;
    (void)memory_map_read();
    build_tables(&image);
    return image.header.entry;
}
