/*
 * device_gpu.c: an AMD card as a device. Weights, states, workspace and code lie in VRAM, filled by
 * the copy engine from windows of host memory. A run is one copy (arguments and small inputs, which
 * the CPU writes into host memory) and one list of launches; outputs are written into host memory.
 * Knows programs and the driver's face, no graph. Nothing here waits: the event loop turns the
 * card.
 */
#include "amdgpu/amdgpu.h"
#include "ml/device_priv.h"

#define LANES        32u
#define CODE_ALIGN   256u
#define ALIGN        (4 * KIB)
#define SLACK        256u        /* vector loads may read a little beyond the last element */
#define CHUNK_BYTES  (256 * MIB) /* of VRAM at a time: the driver maps a bounded number */
#define WINDOW_BYTES (8 * MIB)
#define WINDOWS      2u
#define NAME_BYTES   40u
#define INPUT_BYTES  (1 * MIB) /* of all small inputs; a larger one is read where it is */

struct window {
    struct gpu_host host;
    u64 fence; /* 0: free */
    u32 external;
    u64 offset, bytes;
};

struct card {
    struct device base;
    struct gpu *gpu;
    gpuva chunk;
    u64 chunk_left;
    struct window window[WINDOWS];
    u32 window_at;
    u64 window_bytes, sent_fence;
    struct card_loaded *run; /* NULL: none */
    bool submitted;
    u64 fence; /* of the run */
    u32 vram_losses;
};

struct card_loaded {
    struct loaded base;
    struct gpu_host code_host, shared; /* shared: arguments, then inputs; copied before each run */
    gpuva code, mirror, wipe;          /* in VRAM: code, the copy of `shared`, wipe_code */
    u64 shared_used;
    struct gpu_list *list;
    u64 *bytes;    /* of externals in VRAM */
    char *name;    /* of each launch, for reports of faults */
    gpuva *shadow; /* where those that are outputs go after a run */
};

/* Zeroes 64 KiB of LDS with 1024 work-items; assembled with llvm-mc. */
static const u32 wipe_code[] = {
    0x360000ff, 0x000003ff, /* v_and_b32 v0, 0x3ff, v0 */
    0x30000084,             /* v_lshlrev_b32 v0, 4, v0 */
    0x7e020280,             /* v_mov_b32 v1, 0 */
    0x7e040280,             /* v_mov_b32 v2, 0 */
    0x7e060280,             /* v_mov_b32 v3, 0 */
    0x7e080280,             /* v_mov_b32 v4, 0 */
    0xdb7c0000, 0x00000100, /* ds_store_b128 v0, v[1:4] */
    0xdb7c4000, 0x00000100, /* ds_store_b128 v0, v[1:4] offset:16384 */
    0xdb7c8000, 0x00000100, /* ds_store_b128 v0, v[1:4] offset:32768 */
    0xdb7cc000, 0x00000100, /* ds_store_b128 v0, v[1:4] offset:49152 */
    0xbf89fc07,             /* s_waitcnt lgkmcnt(0) */
    0xbfb00000,             /* s_endpgm */
};
#define WIPE_ITEMS 1024u
#define WIPE_BYTES (64 * KIB)
#define WIPE_RSRC1 0x40af0000u /* 8 VGPRs, denormals, memory in order */
#define WIPE_RSRC2 0x84u       /* 2 user SGPRs, then the group */

static const struct device_ops card_ops;

static struct card *card_of(const struct loaded *r)
{
    return (struct card *)r->device;
}

/* ---- opening ---- */

err device_open_gpu(struct device **out, struct gpu *gpu)
{
    struct card *c = pages_alloc(sizeof *c);
    struct gpu_status status;

    gpu_status(gpu, &status);
    if (!c || status.state != GPU_READY)
        return c ? E_STATE : E_NOMEM;
    c->base.ops = &card_ops;
    c->gpu = gpu;
    c->vram_losses = status.vram_losses;
    *out = &c->base;
    return OK;
}

static struct target card_target(struct device *device)
{
    struct gpu_status status;

    gpu_status(((struct card *)device)->gpu, &status);
    return target_gfx11(status.cu_count);
}

static u64 card_bytes_free(struct device *device)
{
    struct gpu_status status;

    gpu_status(((struct card *)device)->gpu, &status);
    return status.vram_free + ((struct card *)device)->chunk_left;
}

/* ---- memory ---- */

/* Given out for ever; the rest of a chunk is left when the next wish does not fit. */
static err vram_take(struct card *c, u64 bytes, gpuva *out)
{
    u64 want = round_up(bytes + SLACK, ALIGN);

    if (want > c->chunk_left) {
        u64 chunk = round_up(max_u64(want, CHUNK_BYTES), 2 * MIB);
        err e = gpu_alloc(c->gpu, chunk, &c->chunk);
        if (e != OK)
            e = gpu_alloc(c->gpu, chunk = want, &c->chunk);
        c->chunk_left = e == OK ? chunk : 0;
        TRY(e);
    }
    *out = c->chunk;
    c->chunk.v += want;
    c->chunk_left -= want;
    return OK;
}

static err host_memory(struct card_loaded *r, u32 entry, u64 bytes, gpuva *va)
{
    struct gpu_host host;

    TRY(gpu_host_alloc(card_of(&r->base)->gpu, bytes + SLACK, &host));
    r->base.cpu[entry] = host.ptr;
    *va = host.va;
    return OK;
}

static err alloc_input(struct card_loaded *r, u32 external, u64 bytes)
{
    u64 at = round_up(r->shared_used, 64);
    gpuva va = {r->mirror.v + at};

    if (at + bytes + SLACK <= r->shared.bytes) {
        r->base.cpu[external] = r->shared.ptr + at;
        r->shared_used = at + bytes;
    } else {
        TRY(host_memory(r, external, bytes, &va));
    }
    r->base.table[external] = va.v;
    return OK;
}

static bool is_output(const struct program *p, u32 entry)
{
    for (u32 i = 0; i < p->output_count; i++)
        if (p->output_arg[i] == entry)
            return true;
    return false;
}

static err card_alloc(struct loaded *loaded, u32 external, u64 bytes, bool input)
{
    struct card_loaded *r = (struct card_loaded *)loaded;
    gpuva va;

    if (input)
        return alloc_input(r, external, bytes);
    TRY(vram_take(card_of(loaded), bytes, &va));
    loaded->table[external] = va.v;
    r->bytes[external] = bytes;
    if (is_output(&loaded->program, external))
        TRY(host_memory(r, external, bytes, &r->shadow[external]));
    return OK;
}

/* ---- windows ---- */

static u64 card_window_bytes(struct device *device, u64 least)
{
    struct card *c = (struct card *)device;

    c->window_bytes = max_u64(WINDOW_BYTES, round_up(least, ALIGN));
    for (u32 i = 0; i < WINDOWS; i++)
        if (c->window[i].host.bytes < c->window_bytes &&
            gpu_host_alloc(c->gpu, c->window_bytes, &c->window[i].host) != OK)
            return 0;
    return c->window_bytes;
}

static u8 *card_window(struct loaded *r, u32 external, u64 offset, u64 bytes)
{
    struct card *c = card_of(r);
    struct window *w = &c->window[c->window_at];

    CHECK(bytes <= c->window_bytes);
    if (w->fence && gpu_fence_passed(c->gpu, w->fence) == E_BUSY)
        return NULL;
    w->external = external;
    w->offset = offset;
    w->bytes = bytes;
    return w->host.ptr;
}

static err card_send(struct loaded *r)
{
    struct card *c = card_of(r);
    struct window *w = &c->window[c->window_at];
    gpuva to = {r->table[w->external] + w->offset};

    TRY(gpu_copy(c->gpu, to, w->host.va, w->bytes, &w->fence));
    c->sent_fence = w->fence;
    c->window_at = (c->window_at + 1) % WINDOWS;
    return OK;
}

static err card_sent(struct loaded *r)
{
    struct card *c = card_of(r);

    return c->sent_fence ? gpu_fence_passed(c->gpu, c->sent_fence) : OK;
}

static err card_zero(struct loaded *r, u32 external, u64 offset, u64 bytes)
{
    u64 fence;

    return gpu_fill(card_of(r)->gpu, (gpuva){r->table[external] + offset}, 0, bytes, &fence);
}

/* As many groups as compute units, each with all the LDS of one: they fill the card. */
static err card_zero_scratch(struct loaded *loaded)
{
    struct card *c = card_of(loaded);
    struct card_loaded *r = (struct card_loaded *)loaded;
    struct gpu_launch launch = {.name = "zeroes of LDS",
                                .code = r->wipe,
                                .kernarg = r->mirror,
                                .rsrc1 = WIPE_RSRC1,
                                .rsrc2 = WIPE_RSRC2,
                                .groups = {card_target(loaded->device).cores, 1, 1},
                                .group_size = {WIPE_ITEMS, 1, 1},
                                .lds_bytes = WIPE_BYTES};
    u64 fence;

    return gpu_submit(c->gpu, &launch, 1, &fence);
}

/* ---- loading ---- */

/* Launches come later in the same order of work: nobody waits for it. */
static err send_code(struct card_loaded *r)
{
    struct card *c = card_of(&r->base);

    return gpu_copy(c->gpu, r->code, r->code_host.va, r->code_host.bytes, &c->sent_fence);
}

static struct gpu_launch launch_of(const struct card_loaded *r, const struct dispatch *l)
{
    return (struct gpu_launch){
        .name = r->name + (l - r->base.program.dispatch) * NAME_BYTES,
        .code = {r->code.v + l->code_offset},
        .kernarg = {r->mirror.v + l->arg_first * sizeof(u64)},
        .rsrc1 = l->rsrc[0],
        .rsrc2 = l->rsrc[1],
        .rsrc3 = l->rsrc[2],
        .groups = {0, 1, 1},
        .group_size = {l->waves * LANES, 1, 1},
        .lds_bytes = l->group_bytes,
        .wait = l->barrier,
    };
}

/* Before each run it is told how many groups each launch has. */
static err make_list(struct card *c, struct card_loaded *r, const struct program *p)
{
    u64 bytes = round_up(p->dispatch_count * sizeof(struct gpu_launch), 4 * KIB);
    struct gpu_launch *launch = pages_take(bytes);
    struct gpu_host memory;

    if (!launch)
        return E_NOMEM;
    for (u32 i = 0; i < p->dispatch_count; i++) {
        const struct dispatch *d = &r->base.program.dispatch[i];
        struct text name = {r->name + i * NAME_BYTES, 0, NAME_BYTES - 1, false};
        text_fmt(&name, "launch %u, node %u", d->launch_first, p->launch[d->launch_first].node);
        CHECK(d->code_offset % CODE_ALIGN == 0);
        launch[i] = launch_of(r, d);
    }
    err e = gpu_host_alloc(c->gpu, gpu_list_bytes(p->dispatch_count), &memory);
    if (e == OK)
        e = gpu_list_make(c->gpu, &memory, launch, p->dispatch_count, &r->list);
    pages_free(launch, bytes);
    return e;
}

static err load_memory(struct card *c, struct card_loaded *r, const struct program *p)
{
    u64 wipe_at = round_up(p->code_bytes, CODE_ALIGN);
    u64 code_bytes = round_up(wipe_at + sizeof wipe_code, ALIGN);
    u64 args_bytes = round_up(p->arg_count * sizeof(u64) + SLACK, ALIGN);
    gpuva workspace;

    TRY(gpu_host_alloc(c->gpu, code_bytes, &r->code_host));
    TRY(gpu_host_alloc(c->gpu, args_bytes + INPUT_BYTES, &r->shared));
    TRY(vram_take(c, code_bytes, &r->code));
    TRY(vram_take(c, r->shared.bytes, &r->mirror));
    TRY(vram_take(c, p->workspace_bytes, &workspace));
    memcpy(r->code_host.ptr, p->code, p->code_bytes);
    memcpy(r->code_host.ptr + wipe_at, wipe_code, sizeof wipe_code);
    r->wipe.v = r->code.v + wipe_at;
    r->base.args = (u64 *)(uintptr_t)r->shared.ptr;
    r->shared_used = args_bytes;
    for (u32 i = 0; i < p->buffer_count; i++) {
        u32 entry = p->external_count + i;
        gpuva va = {workspace.v + p->buffer[i].offset};
        if (is_output(p, entry))
            TRY(host_memory(r, entry, p->buffer[i].bytes, &va));
        r->base.table[entry] = va.v;
    }
    TRY(make_list(c, r, p));
    return send_code(r);
}

static err card_load(struct device *device, const struct program *p, struct loaded **out)
{
    struct card *c = (struct card *)device;
    usize bytes = round_up(sizeof(struct card_loaded) + loaded_bytes(p) +
                               p->external_count * 16ull + p->dispatch_count * NAME_BYTES + 4 * KIB,
                           4 * KIB);
    void *pages = pages_alloc(bytes);
    struct arena arena = arena_on("program", pages, bytes);

    if (!pages)
        return E_NOMEM;
    struct card_loaded *r = arena_new(&arena, struct card_loaded, 1);
    loaded_init(&r->base, device, p, &arena);
    r->name = arena_new(&arena, char, p->dispatch_count *NAME_BYTES);
    r->bytes = arena_new(&arena, u64, p->external_count);
    r->shadow = arena_new(&arena, gpuva, p->external_count);
    CHECK(r->shadow);
    *out = &r->base;
    return load_memory(c, r, p);
}

/* ---- running ---- */

static void card_start(struct device *device, struct loaded *r)
{
    struct card *c = (struct card *)device;

    CHECK(!c->run);
    c->run = (struct card_loaded *)r;
    c->submitted = false;
}

/* E_BUSY: no room in a queue; what was sent already may be sent again. */
static err submit(struct card *c, struct card_loaded *r)
{
    const struct program *p = &r->base.program;
    struct card_loaded *in = (struct card_loaded *)r->base.inputs; /* whose inputs it reads */

    TRY(gpu_copy(c->gpu, r->mirror, r->shared.va, r->shared_used, &c->fence));
    if (in)
        TRY(gpu_copy(c->gpu, in->mirror, in->shared.va, in->shared_used, &c->fence));
    for (u32 i = 0; i < p->dispatch_count; i++) {
        u64 groups = loaded_groups(&r->base, &p->dispatch[i]);
        CHECK(groups <= UINT32_MAX);
        gpu_list_groups(r->list, i, (u32[]){(u32)groups, 1, 1});
    }
    TRY(gpu_list_submit(c->gpu, r->list, &c->fence));
    for (u32 i = 0; i < p->output_count; i++) {
        u32 entry = p->output_arg[i];
        gpuva from = {r->base.table[entry]};
        if (entry < p->external_count && r->bytes[entry])
            TRY(gpu_copy(c->gpu, r->shadow[entry], from, r->bytes[entry], &c->fence));
    }
    return OK;
}

/* Done with it, one way or another. */
static err ended(struct card *c, err e)
{
    c->run = NULL;
    return e == OK ? OK : E_DEVICE;
}

static err card_advance(struct device *device, u64 deadline_ns)
{
    struct card *c = (struct card *)device;

    (void)deadline_ns;
    if (!c->run)
        return OK;
    err e = c->submitted ? gpu_fence_passed(c->gpu, c->fence) : submit(c, c->run);
    if (e == E_BUSY)
        return E_BUSY;
    if (e != OK || c->submitted)
        return ended(c, e);
    c->submitted = true;
    return E_BUSY;
}

/* ---- life ---- */

err device_gpu_state(struct gpu *gpu, struct text *why)
{
    struct gpu_status status;

    gpu_status(gpu, &status);
    if (status.state == GPU_DEAD) {
        text_fmt(why, "the graphics card is dead: %s", status.reason);
        return E_DEVICE;
    }
    return status.state == GPU_READY ? OK : E_BUSY;
}

static err card_health(struct device *device, struct text *why)
{
    struct card *c = (struct card *)device;
    struct gpu_status status;

    gpu_status(c->gpu, &status);
    TRY(device_gpu_state(c->gpu, why));
    return status.vram_losses == c->vram_losses ? OK : E_STATE;
}

static err card_revive(struct loaded *r)
{
    struct card *c = card_of(r);
    struct gpu_status status;

    gpu_status(c->gpu, &status);
    c->vram_losses = status.vram_losses;
    for (u32 i = 0; i < WINDOWS; i++)
        c->window[i].fence = 0;
    return send_code((struct card_loaded *)r);
}

static const struct device_ops card_ops = {
    .target = card_target,
    .bytes_free = card_bytes_free,
    .load = card_load,
    .alloc = card_alloc,
    .window_bytes = card_window_bytes,
    .window = card_window,
    .send = card_send,
    .sent = card_sent,
    .zero = card_zero,
    .zero_scratch = card_zero_scratch,
    .start = card_start,
    .advance = card_advance,
    .health = card_health,
    .revive = card_revive,
};
