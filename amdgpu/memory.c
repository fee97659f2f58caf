/*
 * memory.c: page tables of four levels, buffers in VRAM and system memory, and what an address
 * means. VRAM and system memory are mapped at their own address plus a constant, so a buffer's
 * place is all there is to know; what is not allocated is not mapped. Must not know a register.
 * Follows: Linux 6.12 amdgpu_vm.h (entry bits), gmc_v11_0.c.
 */
#include "amdgpu/priv.h"

#define TABLE_ENTRIES  512u
#define TABLE_BYTES    4096u
#define LEVELS         4u
#define BIG_ALIGN      (2 * MIB)
#define FRAGMENT_SMALL 4u  /* 64 KiB */
#define BUS_BITS       44u /* of an address that an entry of this family may hold */

/* ---- page tables ---- */

static u32 shift_of(u32 level)
{
    return 12 + 9 * (LEVELS - 1 - level);
}

static u64 slot(u64 table, u64 va, u32 level)
{
    return table + ((va - VA_START) >> shift_of(level) & (TABLE_ENTRIES - 1)) * sizeof(u64);
}

static u64 entry_read(struct gpu *gpu, u64 at)
{
    u64 entry;

    vram_read(gpu, at, &entry, sizeof(entry));
    return entry;
}

/* Where in VRAM the entry of `level` for an address lies; tables are made on the way. */
static err entry_at(struct gpu *gpu, u64 va, u32 level, u64 *at)
{
    u64 table = BOOT_ROOT_TABLE;

    for (u32 up = 0; up < level; up++) {
        u64 place = slot(table, va, up);
        u64 entry = entry_read(gpu, place);
        if (!(entry & PTE_VALID)) {
            if (gpu->tables_used + TABLE_BYTES > BOOT_TMR - BOOT_TABLES) {
                log_error(gpu->name, "no room for page tables: want less than %u KiB mapped",
                          (u32)(gpu->tables_used / KIB * TABLE_ENTRIES));
                return E_NOMEM;
            }
            entry = (BOOT_TABLES + gpu->tables_used) | PTE_VALID;
            vram_zero(gpu, BOOT_TABLES + gpu->tables_used, TABLE_BYTES);
            gpu->tables_used += TABLE_BYTES;
            vram_write(gpu, place, &entry, sizeof(entry));
        }
        table = entry & PTE_ADDRESS;
        if (entry & PTE_LEAF || table < BOOT_TABLES || table >= BOOT_TMR) {
            log_error(gpu->name, "want a page table for %lx, saw entry %lx", va, entry);
            return E_DEVICE;
        }
    }
    *at = slot(table, va, level);
    return OK;
}

/* The largest page that fits at `done` bytes into the mapping: level of its entry. */
static u32 level_for(const struct map *map, u64 done)
{
    u64 align = (map->va + done - VA_START) | (map->physical + done);
    u32 level = 1;

    while (level < LEVELS - 1 &&
           (align & ((1ull << shift_of(level)) - 1) || map->bytes - done < 1ull << shift_of(level)))
        level++;
    return level;
}

/* How far a page's neighbours continue it, as a power of two of 4 KiB. */
static u32 fragment_of(const struct map *map, u64 done, u32 level)
{
    u64 block = 1ull << (12 + FRAGMENT_SMALL), at = map->va + done, first = at & ~(block - 1);

    if (level < LEVELS - 1)
        return shift_of(level) - 12;
    bool whole = first >= map->va && first + block <= map->va + map->bytes &&
                 ((map->va ^ map->physical) & (block - 1)) == 0;
    return whole ? FRAGMENT_SMALL : 0;
}

/* Writes the entries of a mapping; flags 0 clears them. */
static err write_entries(struct gpu *gpu, const struct map *map)
{
    for (u64 done = 0; done < map->bytes;) {
        u32 level = level_for(map, done);
        u64 at, entry = 0;
        TRY(entry_at(gpu, map->va + done, level, &at));
        if (map->flags)
            entry = (map->physical + done) | map->flags |
                    PTE_FRAGMENT(fragment_of(map, done, level)) |
                    (level < LEVELS - 1 ? PTE_LEAF : 0);
        vram_write(gpu, at, &entry, sizeof(entry));
        done += 1ull << shift_of(level);
    }
    return OK;
}

err memory_start(struct gpu *gpu)
{
    vram_zero(gpu, BOOT_ROOT_TABLE, TABLE_BYTES);
    vram_zero(gpu, BOOT_SCRATCH_PAGE, TABLE_BYTES);
    vram_zero(gpu, BOOT_FAULT_PAGE, TABLE_BYTES);
    gpu->tables_used = 0;
    gpu->tables_on = true;
    for (u32 i = 0; i < gpu->map_count; i++)
        TRY(write_entries(gpu, &gpu->map[i]));
    return gmc_flush_tables(gpu);
}

/* ---- what is mapped ---- */

static u32 find_map(const struct gpu *gpu, u64 va)
{
    u32 i = 0;

    while (i < gpu->map_count && gpu->map[i].va < va)
        i++;
    return i;
}

static void remove_map(struct gpu *gpu, u32 idx)
{
    gpu->map_count--;
    memmove(&gpu->map[idx], &gpu->map[idx + 1], (gpu->map_count - idx) * sizeof(struct map));
}

static err memory_map(struct gpu *gpu, const struct map *map)
{
    u32 idx = find_map(gpu, map->va);

    if (gpu->map_count == MAPS_MAX) {
        log_error(gpu->name, "want at most %u buffers", MAPS_MAX);
        return E_LIMIT;
    }
    memmove(&gpu->map[idx + 1], &gpu->map[idx], (gpu->map_count - idx) * sizeof(struct map));
    gpu->map[idx] = *map;
    gpu->map_count++;
    err e = gpu->tables_on ? write_entries(gpu, map) : OK;
    if (e == OK && gpu->tables_on)
        e = gmc_flush_tables(gpu);
    if (e != OK)
        remove_map(gpu, idx);
    if (e == E_TIMEOUT || e == E_DEVICE)
        gpu_fault(gpu, "a buffer could not be mapped");
    return e;
}

/* The first gap between what is taken that is big enough. */
static err find_gap(const struct gpu *gpu, u64 bytes, u64 align, u64 *at)
{
    u64 end = gpu->vram_bytes - VRAM_TOP_BYTES;

    *at = BOOT_END;
    for (u32 i = 0; i <= gpu->map_count; i++) {
        bool last = i == gpu->map_count || gpu->map[i].va >= VA_HOST;
        u64 until = last ? end : gpu->map[i].physical;
        if (until >= *at && until - *at >= bytes)
            return OK;
        if (last)
            break;
        *at = round_up(gpu->map[i].physical + gpu->map[i].bytes, align);
    }
    return E_NOMEM;
}

err memory_alloc(struct gpu *gpu, u64 bytes, gpuva *out)
{
    u64 align = bytes >= BIG_ALIGN ? BIG_ALIGN : TABLE_BYTES, at;

    if (!bytes || bytes > gpu->vram_bytes)
        return E_RANGE;
    bytes = round_up(bytes, align);
    if (find_gap(gpu, bytes, align, &at) != OK) {
        log_error(gpu->name, "want %lu MiB of VRAM in one piece, saw none", bytes / MIB);
        return E_NOMEM;
    }
    out->v = VA_VRAM + at;
    return memory_map(gpu, &(struct map){VA_VRAM + at, at, bytes,
                                         PTE_VALID | PTE_READ | PTE_WRITE | PTE_EXECUTE});
}

err gpu_alloc(struct gpu *gpu, u64 bytes, gpuva *out)
{
    return gpu->state == GPU_READY ? memory_alloc(gpu, bytes, out) : E_STATE;
}

void gpu_free(struct gpu *gpu, gpuva at)
{
    u32 idx = find_map(gpu, at.v);

    CHECK(idx < gpu->map_count && gpu->map[idx].va == at.v && at.v < VA_HOST);
    struct map map = gpu->map[idx];
    map.flags = 0;
    remove_map(gpu, idx);
    if (gpu->tables_on && (write_entries(gpu, &map) != OK || gmc_flush_tables(gpu) != OK))
        gpu_fault(gpu, "a buffer could not be unmapped");
}

err memory_map_host(struct gpu *gpu, const struct dma *dma, gpuva *out)
{
    out->v = VA_HOST + dma->bus.v;
    if ((dma->bus.v + dma->bytes) >> BUS_BITS) {
        log_error(gpu->name, "want host memory below 2^%u, saw %lx", BUS_BITS, dma->bus.v);
        return E_RANGE;
    }
    return memory_map(gpu, &(struct map){out->v, dma->bus.v, round_up(dma->bytes, TABLE_BYTES),
                                         PTE_VALID | PTE_SYSTEM | PTE_SNOOPED | PTE_UNCACHED |
                                             PTE_READ | PTE_WRITE | PTE_EXECUTE});
}

err gpu_host_alloc(struct gpu *gpu, u64 bytes, struct gpu_host *out)
{
    struct dma dma;

    if (gpu->state != GPU_READY)
        return E_STATE;
    TRY(dma_alloc(gpu->dev, round_up(bytes, TABLE_BYTES),
                  bytes >= BIG_ALIGN ? BIG_ALIGN : TABLE_BYTES, &dma));
    *out = (struct gpu_host){.ptr = dma.ptr, .bytes = dma.bytes};
    return memory_map_host(gpu, &dma, &out->va);
}

u64 memory_free(const struct gpu *gpu)
{
    u64 bytes = gpu->vram_bytes ? gpu->vram_bytes - VRAM_TOP_BYTES - BOOT_END : 0;

    for (u32 i = 0; i < gpu->map_count && gpu->map[i].va < VA_HOST; i++)
        bytes -= gpu->map[i].bytes;
    return bytes;
}

/* ---- an address in words ---- */

/* The walk as the card did it, entry by entry. */
static void describe_walk(struct gpu *gpu, u64 va, struct text *out)
{
    u64 table = BOOT_ROOT_TABLE, entry;

    for (u32 level = 0; level < LEVELS; level++) {
        entry = entry_read(gpu, slot(table, va, level));
        text_fmt(out, "%s%lx", level ? " > " : "; walk ", entry);
        if (!(entry & PTE_VALID) || entry & PTE_LEAF)
            return;
        table = entry & PTE_ADDRESS;
        if (table >= BOOT_END)
            return;
    }
}

void memory_describe(struct gpu *gpu, u64 va, struct text *out)
{
    u32 next = find_map(gpu, va + 1);

    if (va < VA_START)
        text_fmt(out, "; below all buffers");
    else if (!next)
        text_fmt(out, "; before the first buffer");
    else if (va < gpu->map[next - 1].va + gpu->map[next - 1].bytes)
        text_fmt(out, "; inside the buffer at %lx", gpu->map[next - 1].va);
    else
        text_fmt(out, "; %lu bytes behind the buffer at %lx",
                 va - gpu->map[next - 1].va - gpu->map[next - 1].bytes, gpu->map[next - 1].va);
    describe_walk(gpu, va, out);
}
