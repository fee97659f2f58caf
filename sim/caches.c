/*
 * caches.c: memory as waves see it: the GL0, the scalar and the instruction cache of each WGP, the
 * GL1 of each shader array, all with real contents, so that what is stale stays stale until it is
 * dropped; below them the GL2 (memory.c's marks). A hit whose bytes are not those of memory any
 * more is a finding. Uncached pages and accesses with GLC or DLC pass by.
 */
#include "sim/priv.h"

#include <pthread.h>
#include <stdlib.h>

#define LINE         128u
#define LINES        1024u /* of each cache: more than silicon has, so that more stays stale */
#define WGPS_PER_GL1 4u
#define DROPS_SHIFT  40u /* VRAM is smaller than 1 TiB */
#define DROPS_MAX    (1u << 24)

enum level { GL0, GL1, SCALAR, CODE, LEVELS }; /* bit n of COMPUTE_GL0... and of CACHE_GLV_INV... */
_Static_assert(COMPUTE_GL0 == 1 << GL0 && CACHE_GLV_INV == 1 << GL0 && COMPUTE_GL1 == 1 << GL1 &&
                   CACHE_GL1_INV == 1 << GL1 && COMPUTE_KCACHE == 1 << SCALAR &&
                   CACHE_GLK_INV == 1 << SCALAR && COMPUTE_ICACHE == 1 << CODE &&
                   CACHE_GLI_INV == 1 << CODE,
               "one order of levels");

struct cache {
    u32 drops; /* how often it was emptied */
    struct line {
        u64 tag; /* VRAM offset, drops, and 1: see tag_of */
        u8 data[LINE];
    } line[LINES];
};
struct caches {
    struct wave_view {
        struct sim *sim;
        u32 vmid;
    } view[SIM_VMIDS];
    struct cache cache[LEVELS][COMPUTE_WGPS_MAX]; /* pages come when touched */
    pthread_mutex_t lock; /* the card has one state, its waves may run in several threads */
};

err caches_create(struct sim *sim)
{
    sim->caches = calloc(1, sizeof *sim->caches);
    for (u32 i = 0; sim->caches && i < SIM_VMIDS; i++)
        sim->caches->view[i] = (struct wave_view){sim, i};
    return sim->caches && !pthread_mutex_init(&sim->caches->lock, NULL) ? OK : E_NOMEM;
}

void caches_destroy(struct sim *sim)
{
    free(sim->caches);
}

static struct cache *cache_of(const struct sim *sim, enum level level, u32 wgp)
{
    return &sim->caches->cache[level][level == GL1 ? wgp / WGPS_PER_GL1 : wgp];
}

/* Emptied by counting on; once the count has gone around, for real. */
static void drop(const struct sim *sim, u32 wgp, u32 levels)
{
    for (enum level level = GL0; level < LEVELS; level++) {
        struct cache *cache = cache_of(sim, level, wgp);
        if (levels >> level & 1)
            cache->drops = (cache->drops + 1) % DROPS_MAX;
        if (levels >> level & 1 && cache->drops == 0)
            memset(cache->line, 0, sizeof cache->line);
    }
}

void caches_drop(struct sim *sim, u32 what)
{
    for (u32 wgp = 0; wgp < profile_wgps(sim->profile); wgp++)
        drop(sim, wgp, what);
}

static void wave_invalidate(void *ctx, u32 wgp, u32 what)
{
    drop(((const struct wave_view *)ctx)->sim, wgp, what);
}

/* ---- loads ---- */

static u64 tag_of(const struct cache *cache, u64 at)
{
    return (at & ~(u64)(LINE - 1)) | (u64)cache->drops << DROPS_SHIFT | 1;
}

/* NULL: the cache has not got it. */
static struct line *line_find(struct cache *cache, u64 at)
{
    struct line *line = &cache->line[at / LINE % LINES];

    return line->tag == tag_of(cache, at) ? line : NULL;
}

static struct line *line_fill(struct cache *cache, u64 at, const u8 *data)
{
    struct line *line = &cache->line[at / LINE % LINES];

    line->tag = tag_of(cache, at);
    memcpy(line->data, data, LINE);
    return line;
}

/* The line as the first level has it; when it is not there, as the GL1 has it, which is between
 * GL0 and GL2 only; when it is not there either, as memory has it. */
static struct line *line_get(struct sim *sim, u32 wgp, u64 at, u32 flags)
{
    enum level level = flags & COMPUTE_FETCH ? CODE : flags & COMPUTE_SCALAR ? SCALAR : GL0;
    struct cache *first = cache_of(sim, level, wgp), *second = cache_of(sim, GL1, wgp);
    const u8 *memory = vram_pointer(sim, at & ~(u64)(LINE - 1));
    struct line *line = line_find(first, at);

    if (line)
        return line;
    if (level != GL0)
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
    return sim_fail(sim, name, "WGP %u reads %u bytes at VRAM %#lx, which have changed",
                    access->wgp, access->bytes, at);
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
    struct line *line = line_find(cache_of(sim, GL0, access->wgp), at);
    struct line *second = line_find(cache_of(sim, GL1, access->wgp), at);

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
    for (u32 wgp = 0; wgp < profile_wgps(sim->profile); wgp++)
        for (enum level level = GL0; level <= GL1; level++) {
            struct line *line = line_find(cache_of(sim, level, wgp), at);
            if (line)
                line->tag = 0;
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

/* ---- for several threads ---- */

static pthread_mutex_t *lock_of(void *ctx)
{
    return &((const struct wave_view *)ctx)->sim->caches->lock;
}

static u8 *locked_page(void *ctx, u64 va, bool write, u64 *bytes)
{
    pthread_mutex_lock(lock_of(ctx));
    u8 *page = wave_page(ctx, va, write, bytes);
    pthread_mutex_unlock(lock_of(ctx));
    return page;
}

static bool locked_load(void *ctx, const struct compute_access *access, void *out, u32 *known)
{
    pthread_mutex_lock(lock_of(ctx));
    bool done = wave_load(ctx, access, out, known);
    pthread_mutex_unlock(lock_of(ctx));
    return done;
}

static bool locked_store(void *ctx, const struct compute_access *access, const void *in)
{
    pthread_mutex_lock(lock_of(ctx));
    bool done = wave_store(ctx, access, in);
    pthread_mutex_unlock(lock_of(ctx));
    return done;
}

static bool locked_atomic(void *ctx, const struct compute_access *access,
                          u64 (*fn)(void *arg, u64 old), void *arg, u64 *old)
{
    pthread_mutex_lock(lock_of(ctx));
    bool done = wave_atomic(ctx, access, fn, arg, old);
    pthread_mutex_unlock(lock_of(ctx));
    return done;
}

static void locked_invalidate(void *ctx, u32 wgp, u32 what)
{
    pthread_mutex_lock(lock_of(ctx));
    wave_invalidate(ctx, wgp, what);
    pthread_mutex_unlock(lock_of(ctx));
}

void mem_for_waves(struct sim *sim, u32 vmid, struct compute_memory *out)
{
    *out = (struct compute_memory){.ctx = &sim->caches->view[vmid],
                                   .page = locked_page,
                                   .load = locked_load,
                                   .store = locked_store,
                                   .atomic = locked_atomic,
                                   .invalidate = locked_invalidate};
}
