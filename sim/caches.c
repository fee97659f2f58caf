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

struct line {
    u64 tag; /* VRAM offset | 1 */
    u8 data[LINE];
};
struct wgp_caches {
    struct line gl0[GL0_LINES], scalar[SCALAR_LINES], code[CODE_LINES];
};
struct wave_view {
    struct sim *sim;
    u32 vmid;
};
struct caches {
    struct wgp_caches wgp[COMPUTE_WGPS_MAX];
    struct line gl1[COMPUTE_WGPS_MAX / WGPS_PER_GL1][GL1_LINES];
    struct wave_view view[SIM_VMIDS];
};

err caches_create(struct sim *sim)
{
    sim->caches = calloc(1, sizeof *sim->caches); /* pages come when touched */
    for (u32 i = 0; sim->caches && i < SIM_VMIDS; i++)
        sim->caches->view[i] = (struct wave_view){sim, i};
    return sim->caches ? OK : E_NOMEM;
}

void caches_destroy(struct sim *sim)
{
    free(sim->caches);
}

static void lines_drop(struct line *lines, u32 count)
{
    for (u32 i = 0; i < count; i++)
        lines[i].tag = 0;
}

void caches_drop(struct sim *sim, u32 what)
{
    struct caches *caches = sim->caches;

    if (sim->options.fast)
        return;
    u32 wgps = profile_wgps(sim->profile);
    for (u32 i = 0; i < wgps; i++) {
        if (what & CACHE_GLV_INV)
            lines_drop(caches->wgp[i].gl0, GL0_LINES);
        if (what & CACHE_GLK_INV)
            lines_drop(caches->wgp[i].scalar, SCALAR_LINES);
        if (what & CACHE_GLI_INV)
            lines_drop(caches->wgp[i].code, CODE_LINES);
        if (what & CACHE_GL1_INV && i % WGPS_PER_GL1 == 0)
            lines_drop(caches->gl1[i / WGPS_PER_GL1], GL1_LINES);
    }
}

static void wave_invalidate(void *ctx, u32 wgp, u32 what)
{
    const struct wave_view *view = ctx;
    struct caches *caches = view->sim->caches;

    if (what & COMPUTE_GL0)
        lines_drop(caches->wgp[wgp].gl0, GL0_LINES);
    if (what & COMPUTE_KCACHE)
        lines_drop(caches->wgp[wgp].scalar, SCALAR_LINES);
    if (what & COMPUTE_ICACHE)
        lines_drop(caches->wgp[wgp].code, CODE_LINES);
    if (what & COMPUTE_GL1)
        lines_drop(caches->gl1[wgp / WGPS_PER_GL1], GL1_LINES);
}

/* ---- loads ---- */

static struct line *line_of(struct line *lines, u32 count, u64 at)
{
    return &lines[at / LINE % count];
}

/* The line as the first level has it; when it is not there, as the GL1 has it, which is between
 * GL0 and GL2 only; when it is not there either, as memory has it. */
static struct line *line_get(struct sim *sim, u32 wgp, u64 at, u32 flags)
{
    struct wgp_caches *own = &sim->caches->wgp[wgp];
    u64 base = at & ~(u64)(LINE - 1), tag = base | 1;
    struct line *line = flags & COMPUTE_FETCH    ? line_of(own->code, CODE_LINES, at)
                        : flags & COMPUTE_SCALAR ? line_of(own->scalar, SCALAR_LINES, at)
                                                 : line_of(own->gl0, GL0_LINES, at);
    struct line *second = line_of(sim->caches->gl1[wgp / WGPS_PER_GL1], GL1_LINES, at);

    if (line->tag == tag)
        return line;
    if (flags & (COMPUTE_FETCH | COMPUTE_SCALAR)) {
        line->tag = tag;
        memcpy(line->data, vram_pointer(sim, base), LINE);
        return line;
    }
    if (second->tag != tag) {
        second->tag = tag;
        memcpy(second->data, vram_pointer(sim, base), LINE);
    }
    *line = *second;
    return line;
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
    struct line *gl1 = sim->caches->gl1[access->wgp / WGPS_PER_GL1];
    struct line *line = line_of(sim->caches->wgp[access->wgp].gl0, GL0_LINES, at);
    struct line *second = line_of(gl1, GL1_LINES, at);
    u64 tag = (at & ~(u64)(LINE - 1)) | 1;

    if (line->tag == tag)
        memcpy(line->data + at % LINE, in, access->bytes);
    if (second->tag == tag)
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
    u64 tag = (at & ~(u64)(LINE - 1)) | 1;
    u32 wgps = profile_wgps(sim->profile);

    for (u32 i = 0; i < wgps; i++) {
        struct line *line = line_of(sim->caches->wgp[i].gl0, GL0_LINES, at);
        struct line *second = line_of(sim->caches->gl1[i / WGPS_PER_GL1], GL1_LINES, at);
        line->tag = line->tag == tag ? 0 : line->tag;
        second->tag = second->tag == tag ? 0 : second->tag;
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
