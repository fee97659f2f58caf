/*
 * memory.c: VRAM (sparse host memory behind a descriptor) and who sees which bytes of it when. The
 * caches are modelled by marks, one bit a byte, so that nothing is refused that silicon would get
 * right: written through BAR 0 but not flushed out of the HDP; dirty in the GL2; changed beside a
 * GL2 that still holds the old line; never written at all. Reading a byte with such a mark is a
 * finding. The caches of waves are in caches.c. Fast mode has no marks.
 */
#define _GNU_SOURCE
#include "sim/priv.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK      4096u /* bytes: marks are cleared by such pieces */
#define LINE_SHIFT 7u
#define PAGE_SHIFT 12u

enum mark {
    KNOWN,  /* was written */
    POSTED, /* by the CPU, and may still be in the HDP */
    DIRTY,  /* in the GL2, not in memory */
    STALE,  /* changed in memory while the GL2 holds the line */
    HELD,   /* a line that the GL2 has */
    TABLE,  /* a page that a hub's walker has read */
    MARKS
};
static const u8 mark_shift[MARKS] = {[HELD] = LINE_SHIFT, [TABLE] = PAGE_SHIFT};

struct marks {
    u8 *bits;   /* one for 2^shift bytes */
    u8 *listed; /* chunk -> whether it stands in `chunk` */
    u32 *chunk; /* those with a mark */
    u32 count, shift;
    u64 chunks;
};

struct vram {
    int fd;
    u8 *base;
    u64 bytes;
    bool in_sight; /* the CPU's accesses are; not once BAR 0 is mapped */
    bool marked;   /* not in fast mode */
    struct marks marks[MARKS];
    u32 tables_changed;
};

/* ---- marks ---- */

static void *sparse(u64 bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return at == MAP_FAILED ? NULL : at;
}

static bool marks_create(struct marks *marks, u64 vram, u32 shift)
{
    u64 chunks = ((vram >> shift) / 8 + 16) / CHUNK + 1;

    *marks = (struct marks){.bits = sparse(chunks * CHUNK),
                            .listed = sparse(chunks),
                            .chunk = sparse(chunks * sizeof(u32)),
                            .shift = shift,
                            .chunks = chunks};
    return marks->bits && marks->listed && marks->chunk;
}

static void marks_destroy(struct marks *marks)
{
    if (!marks->bits)
        return;
    munmap(marks->bits, marks->chunks * CHUNK);
    munmap(marks->listed, marks->chunks);
    munmap(marks->chunk, marks->chunks * sizeof(u32));
}

static void marks_list(struct marks *marks, u64 first, u64 last)
{
    for (u64 i = first / CHUNK; i <= last / CHUNK; i++) {
        if (marks->listed[i])
            continue;
        marks->listed[i] = 1;
        marks->chunk[marks->count++] = (u32)i;
    }
}

static void marks_put(struct marks *marks, u64 from, u64 bytes, bool on)
{
    u64 at = from >> marks->shift, end = ((from + bytes - 1) >> marks->shift) + 1;

    if (bytes == 0 || (!on && marks->count == 0))
        return;
    if (on)
        marks_list(marks, at / 8, (end - 1) / 8);
    while (at < end) {
        u64 n = at % 8 || end - at < 8 ? min_u64(8 - at % 8, end - at) : (end - at) & ~7ull;
        u8 mask = (u8)(n >= 8 ? 0xff : ((1u << n) - 1) << at % 8);
        if (n >= 8)
            memset(marks->bits + at / 8, on ? 0xff : 0, n / 8);
        else if (on)
            marks->bits[at / 8] = (u8)(marks->bits[at / 8] | mask);
        else
            marks->bits[at / 8] = (u8)(marks->bits[at / 8] & ~mask);
        at += n;
    }
}

/* The first place in from..from+bytes whose mark is `on`; from + bytes when there is none. */
static u64 marks_find(const struct marks *marks, u64 from, u64 bytes, bool on)
{
    u64 at = from >> marks->shift, end = ((from + bytes - 1) >> marks->shift) + 1;

    if (bytes == 0 || (on && marks->count == 0))
        return from + bytes;
    while (at < end) {
        u64 word;
        memcpy(&word, marks->bits + at / 8, sizeof word);
        word = (on ? word : ~word) >> at % 8;
        u64 n = min_u64(64 - at % 8, end - at);
        if (n < 64)
            word &= (1ull << n) - 1;
        if (word)
            return max_u64(from, (at + (u32)__builtin_ctzll(word)) << marks->shift);
        at += n;
    }
    return from + bytes;
}

static void marks_clear(struct marks *marks)
{
    for (u32 i = 0; i < marks->count; i++) {
        memset(marks->bits + (u64)marks->chunk[i] * CHUNK, 0, CHUNK);
        marks->listed[marks->chunk[i]] = 0;
    }
    marks->count = 0;
}

/* ---- life ---- */

err memory_create(struct sim *sim, u64 bytes)
{
    struct vram *vram = sim->vram = calloc(1, sizeof *vram);

    if (!vram)
        return E_NOMEM;
    vram->bytes = bytes;
    vram->marked = !sim->options.fast;
    vram->in_sight = true;
    vram->fd = memfd_create("vram", MFD_CLOEXEC);
    if (vram->fd < 0 || ftruncate(vram->fd, (off_t)bytes) != 0)
        return E_NOMEM;
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, vram->fd, 0);
    if (base == MAP_FAILED)
        return E_NOMEM;
    vram->base = base;
    bool ok = true;
    for (u32 i = 0; i < MARKS; i++)
        ok &= marks_create(&vram->marks[i], bytes, mark_shift[i]);
    return ok ? caches_create(sim) : E_NOMEM;
}

void memory_destroy(struct sim *sim)
{
    struct vram *vram = sim->vram;

    caches_destroy(sim);
    if (!vram)
        return;
    for (u32 i = 0; i < MARKS; i++)
        marks_destroy(&vram->marks[i]);
    if (vram->base)
        munmap(vram->base, vram->bytes);
    if (vram->fd >= 0)
        close(vram->fd);
    free(vram);
}

void memory_reset(struct sim *sim, enum reset_kind kind)
{
    struct vram *vram = sim->vram;
    u8 table[DISCOVERY_BYTES_MAX];

    bool kept = kind != RESET_POWER_ON && (kind != RESET_MODE1 || sim->options.seed & 1);
    for (u32 i = kept ? POSTED : KNOWN; i < MARKS; i++) /* after mode 1 it may be kept or not */
        marks_clear(&vram->marks[i]);
    caches_drop(sim, CACHE_ALL);
    profile_discovery(sim->profile, table); /* the card's own firmware does it */
    u64 at = vram->bytes - DISCOVERY_FROM_END;
    memcpy(vram->base + at, table, sizeof table);
    marks_put(&vram->marks[KNOWN], at, sizeof table, true);
}

u64 vram_bytes(const struct sim *sim)
{
    return sim->vram->bytes;
}

int sim_vram_fd(struct sim *sim)
{
    sim->vram->in_sight = false;
    return sim->vram->fd;
}

/* ---- the rules: what a read must not meet, what a write leaves behind ---- */

static bool none(struct sim *sim, const struct marks *marks, u64 at, u64 bytes, const char *name)
{
    u64 found = marks_find(marks, at, bytes, true);

    if (found >= at + bytes)
        return true;
    return sim_fail(sim, name, "VRAM %#lx, in an access of %lu bytes at %#lx", found, bytes, at);
}

static bool reachable(struct sim *sim, enum unit unit, u64 at, u64 bytes)
{
    if (unit == UNIT_PSP || !psp_owns(sim, at, bytes))
        return true;
    return sim_fail(sim, "tmr-touched", "%lu bytes at VRAM %#lx are the PSP's", bytes, at);
}

static bool beside_gl2(enum unit unit)
{
    return unit == UNIT_PSP || unit == UNIT_SMU || unit == UNIT_IH;
}

bool vram_read_allowed(struct sim *sim, struct client who, u64 at, u64 bytes, bool cached)
{
    struct vram *vram = sim->vram;
    enum unit unit = who.unit;

    if (!vram->marked)
        return true;
    if (!reachable(sim, unit, at, bytes) ||
        !none(sim, &vram->marks[POSTED], at, bytes, "hdp-not-flushed"))
        return false;
    if (beside_gl2(unit) && !none(sim, &vram->marks[DIRTY], at, bytes, "gl2-not-written-back"))
        return false;
    if (unit == UNIT_WAVE && !cached &&
        !none(sim, &vram->marks[DIRTY], at, bytes, "gl2-uncached-read"))
        return false;
    if (unit == UNIT_SDMA || (unit == UNIT_WAVE && cached)) {
        if (!none(sim, &vram->marks[STALE], at, bytes, "gl2-stale-read"))
            return false;
        marks_put(&vram->marks[HELD], at, bytes, true);
    }
    if (unit == UNIT_WAVE || !vram->in_sight)
        return true; /* the wave's engine judges what it does not know */
    u64 unknown = marks_find(&vram->marks[KNOWN], at, bytes, false);
    return unknown >= at + bytes ||
           sim_fail(sim, "uninitialised-vram", "VRAM %#lx was never written", unknown);
}

/* Memory changed without the GL2 knowing. */
static bool changed_beside_gl2(struct sim *sim, u64 at, u64 bytes)
{
    struct vram *vram = sim->vram;
    u64 line = 1ull << LINE_SHIFT;

    if (!none(sim, &vram->marks[DIRTY], at, bytes, "written-under-dirty-gl2"))
        return false;
    for (u64 from = at; vram->marks[HELD].count && from < at + bytes;) {
        u64 next = min_u64((from | (line - 1)) + 1, at + bytes);
        if (marks_find(&vram->marks[HELD], from, next - from, true) < next)
            marks_put(&vram->marks[STALE], from, next - from, true);
        from = next;
    }
    return true;
}

bool vram_written(struct sim *sim, struct client who, u64 at, u64 bytes, bool cached)
{
    struct vram *vram = sim->vram;

    if (!vram->marked)
        return true;
    if (!reachable(sim, who.unit, at, bytes))
        return false;
    if (marks_find(&vram->marks[TABLE], at, bytes, true) < at + bytes)
        vram->tables_changed++;
    marks_put(&vram->marks[KNOWN], at, bytes, true);
    marks_put(&vram->marks[POSTED], at, bytes, false);
    if (beside_gl2(who.unit))
        return changed_beside_gl2(sim, at, bytes);
    bool keeps = (who.unit == UNIT_WAVE && cached) || (who.unit == UNIT_SDMA && !who.bypass);
    marks_put(&vram->marks[DIRTY], at, bytes, keeps);
    marks_put(&vram->marks[STALE], at, bytes, false);
    if (keeps)
        marks_put(&vram->marks[HELD], at, bytes, true);
    return true;
}

u8 *vram_pointer(struct sim *sim, u64 at)
{
    return sim->vram->base + at;
}

void vram_known(const struct sim *sim, u64 at, u32 bytes, u32 *known)
{
    const struct marks *marks = &sim->vram->marks[KNOWN];

    for (u32 i = 0; i < bytes; i += 32) {
        u64 word;
        memcpy(&word, marks->bits + (at + i) / 8, sizeof word);
        known[i / 32] = (u32)(word >> (at + i) % 8);
        if (!sim->vram->marked || !sim->vram->in_sight)
            known[i / 32] = ~0u;
    }
}

/* ---- engines ---- */

struct move {
    struct client who;
    u64 va, bytes;
    u8 *data;
    enum page_use use;
};

static bool page_move(struct sim *sim, const struct move *move, const struct page *page, u64 bytes)
{
    u64 at = page->address;
    bool write = move->use == USE_WRITE;

    if (page->system)
        return write ? dma_write(sim, at, move->data, bytes) : dma_read(sim, at, move->data, bytes);
    if (!(write ? vram_written : vram_read_allowed)(sim, move->who, at, bytes, page->cached))
        return false;
    memcpy(write ? sim->vram->base + at : move->data, write ? move->data : sim->vram->base + at,
           bytes);
    return true;
}

static bool memory_move(struct sim *sim, struct move move)
{
    struct page page;

    while (move.bytes > 0) {
        if (!hub_translate(sim, move.who, move.va, move.use, &page))
            return false;
        u64 n = min_u64(move.bytes, page.bytes);
        if (!page_move(sim, &move, &page, n))
            return false;
        move.va += n;
        move.data += n;
        move.bytes -= n;
    }
    return true;
}

bool mem_read(struct sim *sim, struct client who, u64 va, void *out, u64 bytes)
{
    return memory_move(sim, (struct move){who, va, bytes, out, USE_READ});
}

bool mem_write(struct sim *sim, struct client who, u64 va, const void *in, u64 bytes)
{
    return memory_move(sim, (struct move){who, va, bytes, (u8 *)in, USE_WRITE});
}

u8 *mem_page(struct sim *sim, struct client who, u64 va, bool write, u64 *bytes)
{
    struct page page;

    if (!sim->options.fast || !hub_translate(sim, who, va, write ? USE_WRITE : USE_READ, &page))
        return NULL;
    *bytes = page.bytes;
    if (!page.system)
        return sim->vram->base + page.address;
    u8 *at = dma_map(sim, page.address, bytes);
    *bytes = min_u64(*bytes, page.bytes);
    return at;
}

bool mem_table_read(struct sim *sim, u64 offset, u64 *entry)
{
    struct vram *vram = sim->vram;

    if (offset + sizeof *entry > vram->bytes)
        return sim_fail(sim, "table-beyond-vram", "an entry at %#lx", offset);
    struct client walker = {.unit = UNIT_RLC};
    if (!vram_read_allowed(sim, walker, offset, sizeof *entry, false))
        return false;
    if (vram->marked)
        marks_put(&vram->marks[TABLE], offset, sizeof *entry, true);
    memcpy(entry, vram->base + offset, sizeof *entry);
    return true;
}

u32 mem_tables_changed(const struct sim *sim)
{
    return sim->vram->tables_changed;
}

void mem_cache(struct sim *sim, u32 what)
{
    struct vram *vram = sim->vram;

    caches_drop(sim, what);
    if (what & CACHE_GL2_WB)
        marks_clear(&vram->marks[DIRTY]);
    if (!(what & CACHE_GL2_INV))
        return;
    if (vram->marks[DIRTY].count && !(what & CACHE_GL2_WB))
        sim_fail(sim, "gl2-dirty-dropped", "invalidated without a write-back");
    marks_clear(&vram->marks[HELD]);
    marks_clear(&vram->marks[STALE]);
}

/* ---- the CPU, through BAR 0 ---- */

void mem_cpu_read(struct sim *sim, u64 at, void *out, u64 bytes)
{
    struct vram *vram = sim->vram;

    if (at >= vram->bytes || bytes > vram->bytes - at) {
        memset(out, 0xff, bytes); /* BAR 0 may be larger than VRAM */
        return;
    }
    memcpy(out, vram->base + at, bytes);
    if (!vram->marked)
        return;
    if (!reachable(sim, UNIT_WAVE, at, bytes) ||
        !none(sim, &vram->marks[DIRTY], at, bytes, "gl2-not-written-back"))
        return;
    u8 *to = out; /* what was never written holds anything */
    u64 end = vram->in_sight ? at + bytes : at;
    for (u64 from = at, known; from < end; from = known) {
        from = marks_find(&vram->marks[KNOWN], from, end - from, false);
        known = marks_find(&vram->marks[KNOWN], from, end - from, true);
        for (u64 i = from; i < known; i++)
            to[i - at] = (u8)((i ^ sim->options.seed) * 0x9e3779b97f4a7c15 >> 56);
    }
}

void mem_cpu_write(struct sim *sim, u64 at, const void *in, u64 bytes)
{
    struct vram *vram = sim->vram;

    if (at >= vram->bytes || bytes > vram->bytes - at) {
        sim_fail(sim, "beyond-vram", "a write of %lu bytes at %#lx of BAR 0", bytes, at);
        return;
    }
    if (vram->marked) {
        if (!reachable(sim, UNIT_WAVE, at, bytes) || !changed_beside_gl2(sim, at, bytes))
            return;
        if (marks_find(&vram->marks[TABLE], at, bytes, true) < at + bytes)
            vram->tables_changed++;
        marks_put(&vram->marks[KNOWN], at, bytes, true);
        marks_put(&vram->marks[POSTED], at, bytes, true);
    }
    memcpy(vram->base + at, in, bytes);
}

bool mem_in_hdp(const struct sim *sim, u64 offset, u64 bytes)
{
    return marks_find(&sim->vram->marks[POSTED], offset, bytes, true) < offset + bytes;
}

void mem_hdp_flush(struct sim *sim)
{
    marks_clear(&sim->vram->marks[POSTED]);
}
