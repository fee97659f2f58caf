/*
 * caches.c: memory as waves see it: the GL0, the scalar and the instruction cache of each WGP, the
 * GL1 of each shader array, all with real contents, so that what is stale stays stale until it is
 * dropped; below them the GL2 (memory.c's marks). A hit whose bytes are not those of memory any
 * more is a finding. Uncached pages and accesses with GLC or DLC pass by. Sizes: RDNA3 whitepaper.
 */
#include "sim/priv.h"

#include <stdlib.h>

#define LINE         128u
#define GL0_LINES    256u /* 32 KiB */
#define SCALAR_LINES 128u
#define CODE_LINES   256u
#define GL1_LINES    2048u
#define WGPS_PER_GL1 4u
#define DROPS_SHIFT  40u /* VRAM is smaller than 1 TiB */
#define DROPS_MAX    (1u << 24)

struct line {
    u64 tag; /* VRAM offset, how often its cache had been emptied, and 1: see tag_of */
    u8 data[LINE];
};
struct cache {
    struct line *lines;
    u32 count, drops;
};
struct wgp_caches {
    struct cache gl0, scalar, code;
};
struct wave_view {
    struct sim *sim;
    u32 vmid;
};
struct caches {
    struct wgp_caches wgp[COMPUTE_WGPS_MAX];
    struct cache gl1[COMPUTE_WGPS_MAX / WGPS_PER_GL1];
    struct line *lines; /* of all */
    struct wave_view view[SIM_VMIDS];
};

static struct cache cache_of(struct line **next, u32 count)
{
    struct cache cache = {*next, count, 0};

    *next += count;
    return cache;
}

err caches_create(struct sim *sim)
{
    struct caches *caches = sim->caches = calloc(1, sizeof *caches);
    u32 wgps = profile_wgps(sim->profile), wgp_lines = GL0_LINES + SCALAR_LINES + CODE_LINES;
    usize count = wgps * wgp_lines + div_up(wgps, WGPS_PER_GL1) * GL1_LINES;

    if (!caches || !(caches->lines = calloc(count, sizeof *caches->lines)))
        return E_NOMEM;
    struct line *next = caches->lines;
    for (u32 i = 0; i < wgps; i++) {
        caches->wgp[i].gl0 = cache_of(&next, GL0_LINES);
        caches->wgp[i].scalar = cache_of(&next, SCALAR_LINES);
        caches->wgp[i].code = cache_of(&next, CODE_LINES);
        if (i % WGPS_PER_GL1 == 0)
            caches->gl1[i / WGPS_PER_GL1] = cache_of(&next, GL1_LINES);
    }
    for (u32 i = 0; i < SIM_VMIDS; i++)
        caches->view[i] = (struct wave_view){sim, i};
    return OK;
}

void caches_destroy(struct sim *sim)
{
    if (sim->caches)
        free(sim->caches->lines);
    free(sim->caches);
}

/* Emptied by counting on; once the count has gone around, for real. */
static void cache_drop(struct cache *cache)
{
    cache->drops = (cache->drops + 1) % DROPS_MAX;
    for (u32 i = 0; cache->drops == 0 && i < cache->count; i++)
        cache->lines[i].tag = 0;
}

static u64 tag_of(const struct cache *cache, u64 at)
{
    return (at & ~(u64)(LINE - 1)) | (u64)cache->drops << DROPS_SHIFT | 1;
}

void caches_drop(struct sim *sim, u32 what)
{
    u32 wgps = profile_wgps(sim->profile);

    for (u32 i = 0; i < wgps; i++) {
        struct wgp_caches *wgp = &sim->caches->wgp[i];
        if (what & CACHE_GLV_INV)
            cache_drop(&wgp->gl0);
        if (what & CACHE_GLK_INV)
            cache_drop(&wgp->scalar);
        if (what & CACHE_GLI_INV)
            cache_drop(&wgp->code);
        if (what & CACHE_GL1_INV && i % WGPS_PER_GL1 == 0)
            cache_drop(&sim->caches->gl1[i / WGPS_PER_GL1]);
    }
}

static void wave_invalidate(void *ctx, u32 wgp, u32 what)
{
    const struct wave_view *view = ctx;
    struct caches *caches = view->sim->caches;

    if (what & COMPUTE_GL0)
        cache_drop(&caches->wgp[wgp].gl0);
    if (what & COMPUTE_KCACHE)
        cache_drop(&caches->wgp[wgp].scalar);
    if (what & COMPUTE_ICACHE)
        cache_drop(&caches->wgp[wgp].code);
    if (what & COMPUTE_GL1)
        cache_drop(&caches->gl1[wgp / WGPS_PER_GL1]);
}

/* ---- loads ---- */

static struct line *line_of(const struct cache *cache, u64 at)
{
    return &cache->lines[at / LINE % cache->count];
}

/* NULL: the cache has not got it. */
static struct line *line_find(const struct cache *cache, u64 at)
{
    struct line *line = line_of(cache, at);

    return line->tag == tag_of(cache, at) ? line : NULL;
}

static struct line *line_fill(const struct cache *cache, u64 at, const u8 *data)
{
    struct line *line = line_of(cache, at);

    line->tag = tag_of(cache, at);
    memcpy(line->data, data, LINE);
    return line;
}

/* The line as the first level has it; when it is not there, as the GL1 has it, which is between
 * GL0 and GL2 only; when it is not there either, as memory has it. */
static struct line *line_get(struct sim *sim, u32 wgp, u64 at, u32 flags)
{
    struct wgp_caches *own = &sim->caches->wgp[wgp];
    const struct cache *first = flags & COMPUTE_FETCH    ? &own->code
                                : flags & COMPUTE_SCALAR ? &own->scalar
                                                         : &own->gl0;
    const struct cache *second = &sim->caches->gl1[wgp / WGPS_PER_GL1];
    const u8 *memory = vram_pointer(sim, at & ~(u64)(LINE - 1));
    struct line *line = line_find(first, at);

    if (line)
        return line;
    if (first != &own->gl0)
        return line_fill(first, at, memory);
    line = line_find(second, at);
    if (!line)
        line = line_fill(second, at, memory);
    return line_fill(first, at, line->data);
}

static bool line_holds(struct sim *sim, const struct compute_access *access, u64 at)
{
    const struct line *line = line_get(sim, access->wgp, at, access->flags);
    u32 flags = access->flags;

    if (memcmp(line->data + at % LINE, vram_pointer(sim, at), access->bytes) == 0)
        return true;
    const char *name = flags & COMPUTE_FETCH    ? "code-stale-read"
                       : flags & COMPUTE_SCALAR ? "scalar-stale-read"
                                                : "gl0-stale-read";
    return sim_fail(sim, name, "WGP %u reads %u bytes at VRAM %#llx, which have changed",
                    access->wgp, access->bytes, (unsigned long long)at);
}

static struct client wave_client(const struct wave_view *view, const struct compute_access *access)
{
    return (struct client){UNIT_WAVE, (u8)view->vmid, (u8)access->wgp, false};
}

static bool wave_load(void *ctx, const struct compute_access *access, void *out, u32 *known)
{
    const struct wave_view *view = ctx;
    struct sim *sim = view->sim;
    struct client who = wave_client(view, access);
    enum page_use use = access->flags & COMPUTE_FETCH ? USE_EXECUTE : USE_READ;
    u32 bytes = access->bytes;
    struct page page;

    if (!hub_translate(sim, who, access->va, use, &page))
        return false;
    if (page.system) {
        if (known)
            memset(known, 0xff, div_up(bytes, 32) * sizeof *known);
        return dma_read(sim, page.address, out, bytes);
    }
    if (known)
        vram_known(sim, page.address, bytes, known);
    if (!vram_read_allowed(sim, who, page.address, bytes, page.cached))
        return false;
    bool by = !page.cached || access->flags & (COMPUTE_GLC | COMPUTE_DLC) || sim->options.fast;
    if (!by && !line_holds(sim, access, page.address) && !sim->options.lenient)
        return false;
    memcpy(out, vram_pointer(sim, page.address), bytes);
    return true;
}

/* ---- stores and atomics ---- */

/* The own GL0 takes a store along, the GL1 above drops the line; all others keep what they have. */
static void store_seen(struct sim *sim, const struct compute_access *access, u64 at, const void *in)
{
    struct line *line = line_find(&sim->caches->wgp[access->wgp].gl0, at);
    struct line *second = line_find(&sim->caches->gl1[access->wgp / WGPS_PER_GL1], at);

    if (line)
        memcpy(line->data + at % LINE, in, access->bytes);
    if (second)
        second->tag = 0;
}

static bool wave_store(void *ctx, const struct compute_access *access, const void *in)
{
    const struct wave_view *view = ctx;
    struct sim *sim = view->sim;
    struct client who = wave_client(view, access);
    struct page page;

    if (!hub_translate(sim, who, access->va, USE_WRITE, &page))
        return false;
    if (page.system)
        return dma_write(sim, page.address, in, access->bytes);
    if (!vram_written(sim, who, page.address, access->bytes, page.cached))
        return false;
    memcpy(vram_pointer(sim, page.address), in, access->bytes);
    if (!sim->options.fast)
        store_seen(sim, access, page.address, in);
    return true;
}

/* Atomics are done in the GL2 and take the line out of the first levels on their way. */
static void atomic_seen(struct sim *sim, u64 at)
{
    u32 wgps = profile_wgps(sim->profile);

    for (u32 i = 0; i < wgps; i++) {
        struct line *line = line_find(&sim->caches->wgp[i].gl0, at);
        struct line *second = line_find(&sim->caches->gl1[i / WGPS_PER_GL1], at);
        if (line)
            line->tag = 0;
        if (second)
            second->tag = 0;
    }
}

static bool wave_atomic(void *ctx, const struct compute_access *access,
                        u64 (*fn)(void *arg, u64 old), void *arg, u64 *old)
{
    const struct wave_view *view = ctx;
    struct sim *sim = view->sim;
    struct client who = wave_client(view, access);
    u32 bytes = access->bytes;
    struct page page;
    u64 value;

    *old = 0;
    if (!hub_translate(sim, who, access->va, USE_WRITE, &page))
        return false;
    if (page.system) {
        if (!dma_read(sim, page.address, old, bytes))
            return false;
        value = fn(arg, *old);
        return dma_write(sim, page.address, &value, bytes);
    }
    if (!vram_read_allowed(sim, who, page.address, bytes, page.cached))
        return false;
    memcpy(old, vram_pointer(sim, page.address), bytes);
    value = fn(arg, *old);
    if (!vram_written(sim, who, page.address, bytes, page.cached))
        return false;
    memcpy(vram_pointer(sim, page.address), &value, bytes);
    if (!sim->options.fast)
        atomic_seen(sim, page.address);
    return true;
}

static u8 *wave_page(void *ctx, u64 va, bool write, u64 *bytes)
{
    const struct wave_view *view = ctx;
    struct client who = {.unit = UNIT_WAVE, .vmid = (u8)view->vmid};

    return mem_page(view->sim, who, va, write, bytes);
}

void mem_for_waves(struct sim *sim, u32 vmid, struct compute_memory *out)
{
    *out = (struct compute_memory){.ctx = &sim->caches->view[vmid],
                                   .page = wave_page,
                                   .load = wave_load,
                                   .store = wave_store,
                                   .atomic = wave_atomic,
                                   .invalidate = wave_invalidate};
}
