/*
 * list.c: lists of launches as packets: written once into memory that the card reads, submitted as
 * often as wanted by one small packet in the ring. Must not know what a kernel computes. Follows:
 * Linux 6.12 gfx_v11_0.c (gfx_v11_0_ring_emit_ib_compute), nvd.h, amdgpu_kms.c (IBs begin and end
 * at 32 bytes); the values of fields that Linux leaves to Mesa were seen in a register trace of
 * tinygrad's driver (docs/GPU.md).
 */
#include "amdgpu/priv.h"

#define LANES           32u
#define LDS_STEP        512u
#define LDS_BYTES_MAX   65536u
#define GROUP_ITEMS_MAX 1024u
#define SCRATCH_STEP    256u
#define IB_ALIGN        32u /* bytes, of its start and of its size */
#define IB_WORDS_MAX    0xfffffu
#define RING_WORDS      36u     /* of prologue, list and epilogue */
#define ONCE_WORDS      16u     /* what only the first launch writes, and the end's padding */
#define LAUNCH_WORDS    39u     /* when everything is another than before */
#define GCR_ALL         0xc3f1u /* write back and invalidate every cache, as GCR_* says */
#define GCR_INNER       0x3f0u  /* all but the GL2, which every shader shares, and instructions */
#define POLL_EVERY      4u
#define SH_WORDS        64u

struct gpu_list { /* at the start of its memory; the packets at its end */
    u32 *words, word_count, count;
    gpuva va; /* of the packets */
    struct entry {
        const char *name;
        gpuva code;
        u32 dispatch; /* word */
    } entry[];
};

/* Packets, and what the shader's registers hold at that place of a list. */
struct writer {
    struct gpu *gpu;
    u32 *words, count;
    u32 value[SH_WORDS]; /* from COMPUTE_START_X on */
    u64 known, dirty;    /* a bit each */
};

static void put(struct writer *w, u32 word)
{
    w->words[w->count++] = word;
}

static void put64(struct writer *w, u64 value)
{
    put(w, low32(value));
    put(w, high32(value));
}

static void put_acquire(struct writer *w, u32 caches)
{
    put(w, PM4(PM4_ACQUIRE_MEM, 7));
    put(w, 0);
    put64(w, UINT64_MAX); /* all of memory */
    put64(w, 0);
    put(w, 0);
    put(w, caches);
}

static void put_wait_shaders(struct writer *w)
{
    put(w, PM4(PM4_EVENT_WRITE, 1));
    put(w, PM4_CS_PARTIAL_FLUSH);
}

/* ---- registers: what a list has written already is not written again ---- */

static void set(struct writer *w, enum reg reg, u32 nth, u32 value)
{
    u32 at = ip_row(reg)->offset - ip_row(R_COMPUTE_START_X)->offset + nth;
    u64 bit = 1ull << at;

    if (w->known & bit && w->value[at] == value)
        return;
    w->value[at] = value;
    w->known |= bit;
    w->dirty |= bit;
}

static void set_pair(struct writer *w, enum reg reg, u64 value)
{
    set(w, reg, 0, low32(value));
    set(w, reg, 1, high32(value));
}

static void set_three(struct writer *w, enum reg reg, const u32 value[3])
{
    for (u32 i = 0; i < 3; i++)
        set(w, reg, i, value[i]);
}

/* One packet for each row of neighbours. */
static void put_registers(struct writer *w)
{
    u32 first = ip_index(w->gpu, R_COMPUTE_START_X) - PM4_SH_START;

    while (w->dirty) {
        u32 at = (u32)__builtin_ctzll(w->dirty), count = (u32)__builtin_ctzll(~(w->dirty >> at));
        put(w, PM4(PM4_SET_SH_REG, count + 1));
        put(w, first + at);
        for (u32 i = at; i < at + count; i++)
            put(w, w->value[i]);
        w->dirty &= ~(((1ull << count) - 1) << at);
    }
}

/* ---- launches ---- */

static u32 scratch_wave_bytes(u32 bytes)
{
    return (u32)round_up(bytes * LANES, SCRATCH_STEP);
}

/* Waves that may be in flight, of each shader engine. */
static u32 scratch_waves(const struct gpu *gpu)
{
    return min_u32(gpu->cu_count * gpu->waves_per_cu / gpu->se_count, COMPUTE_TMPRING_SIZE__WAVES);
}

err list_scratch_start(struct gpu *gpu)
{
    u64 wave = scratch_wave_bytes(gpu->config.scratch_bytes);

    if (!wave || gpu->scratch.v)
        return OK;
    return memory_alloc(gpu, wave * scratch_waves(gpu) * gpu->se_count, &gpu->scratch);
}

/* A dispatch of nothing becomes a packet of nothing: what the card does with 0 groups is not
 * written anywhere. */
static void write_dispatch(u32 word[4], const u32 groups[3])
{
    bool any = groups[0] && groups[1] && groups[2];

    word[0] = any ? PM4(PM4_DISPATCH_DIRECT, 4) : PM4(PM4_NOP, 4);
    memcpy(word + 1, groups, 3 * sizeof(u32));
}

/* Returns at which word the dispatch stands. */
static u32 put_launch(struct writer *w, const struct gpu_launch *launch)
{
    u32 wave = scratch_wave_bytes(launch->scratch_bytes);

    if (launch->wait && w->count) { /* a list begins with it */
        put_wait_shaders(w);
        put_acquire(w, GCR_INNER);
    }
    set_three(w, R_COMPUTE_START_X, (u32[3]){});
    set_three(w, R_COMPUTE_NUM_THREAD_X, launch->group_size);
    set_pair(w, R_COMPUTE_PGM_LO, launch->code.v >> 8);
    set_pair(w, R_COMPUTE_DISPATCH_SCRATCH_BASE_LO, w->gpu->scratch.v >> 8);
    set(w, R_COMPUTE_PGM_RSRC1, 0, launch->rsrc1 | COMPUTE_PGM_RSRC1__PRIV);
    set(w, R_COMPUTE_PGM_RSRC2, 0,
        launch->rsrc2 | FIELD(COMPUTE_PGM_RSRC2__LDS_SIZE, div_up(launch->lds_bytes, LDS_STEP)));
    set(w, R_COMPUTE_PGM_RSRC3, 0, launch->rsrc3);
    set(w, R_COMPUTE_RESOURCE_LIMITS, 0, 0);
    set(w, R_COMPUTE_TMPRING_SIZE, 0,
        FIELD(COMPUTE_TMPRING_SIZE__WAVES, wave ? scratch_waves(w->gpu) : 0) |
            FIELD(COMPUTE_TMPRING_SIZE__WAVESIZE, wave / SCRATCH_STEP));
    set_three(w, R_COMPUTE_RESTART_X, (u32[3]){});
    set_pair(w, R_COMPUTE_USER_DATA_0, launch->kernarg.v);
    put_registers(w);
    u32 at = w->count;
    w->count += 4;
    write_dispatch(w->words + at, launch->groups);
    put(w, PM4_DISPATCH_INITIATOR);
    return at;
}

static err check_launch(const struct gpu *gpu, const struct gpu_launch *launch)
{
    const u32 *size = launch->group_size;
    u64 items = (u64)size[0] * size[1] * size[2];

    if (items && items <= GROUP_ITEMS_MAX && size[0] <= GROUP_ITEMS_MAX &&
        size[1] <= GROUP_ITEMS_MAX && launch->code.v % 256 == 0 &&
        launch->lds_bytes <= LDS_BYTES_MAX && launch->scratch_bytes <= gpu->config.scratch_bytes)
        return OK;
    log_error(gpu->name,
              "launch of %s: want 1 to %u work-items, %u bytes of LDS, %u of scratch, "
              "saw %lu, %u, %u at %lx",
              launch->name ? launch->name : "?", GROUP_ITEMS_MAX, LDS_BYTES_MAX,
              gpu->config.scratch_bytes, items, launch->lds_bytes, launch->scratch_bytes,
              launch->code.v);
    return E_RANGE;
}

/* ---- lists ---- */

static u64 packets_at(u32 count)
{
    return round_up(sizeof(struct gpu_list) + count * sizeof(struct entry), IB_ALIGN);
}

u64 gpu_list_bytes(u32 count)
{
    return packets_at(count) + (ONCE_WORDS + (u64)count * LAUNCH_WORDS) * sizeof(u32);
}

err gpu_list_make(struct gpu *gpu, const struct gpu_host *memory, const struct gpu_launch *launch,
                  u32 count, struct gpu_list **out)
{
    struct gpu_list *list = (struct gpu_list *)memory->ptr;
    u64 at = packets_at(count);
    struct writer w = {.gpu = gpu, .words = (u32 *)(memory->ptr + at)};

    if (memory->bytes < gpu_list_bytes(count) || memory->va.v % IB_ALIGN ||
        ONCE_WORDS + (u64)count * LAUNCH_WORDS > IB_WORDS_MAX)
        return E_LIMIT;
    for (u32 i = 0; i < count; i++)
        TRY(check_launch(gpu, &launch[i]));
    for (u32 i = 0; i < count; i++)
        list->entry[i] = (struct entry){launch[i].name, launch[i].code, put_launch(&w, &launch[i])};
    while (w.count * sizeof(u32) % IB_ALIGN)
        put(&w, PM4_NOP_WORD);
    CHECK(at + w.count * sizeof(u32) <= gpu_list_bytes(count));
    list->words = w.words;
    list->word_count = w.count;
    list->count = count;
    list->va.v = memory->va.v + at;
    *out = list;
    return OK;
}

void gpu_list_groups(struct gpu_list *list, u32 idx, const u32 groups[3])
{
    CHECK(idx < list->count);
    write_dispatch(list->words + list->entry[idx].dispatch, groups);
}

/* ---- submitting ---- */

static void put_wait(struct writer *w, u32 how, u64 where, u32 value)
{
    put(w, PM4(PM4_WAIT_REG_MEM, 6));
    put(w, how);
    put64(w, where);
    put(w, value);
    put(w, UINT32_MAX);
    put(w, POLL_EVERY);
}

/* What the CPU and the copy engine wrote before is what shaders see. */
static void put_prologue(struct writer *w)
{
    struct gpu *gpu = w->gpu;
    u64 flush = (u64)ip_index(gpu, R_BIF_BX_PF0_GPU_HDP_FLUSH_DONE) << 32 |
                ip_index(gpu, R_BIF_BX_PF0_GPU_HDP_FLUSH_REQ);
    u32 other = ring_other(gpu, RING_COMPUTE);

    if (other)
        put_wait(w, PM4_WAIT_EQUAL | PM4_WAIT_MEMORY, ring_fence_va(gpu, RING_SDMA).v, other);
    put_wait(w, PM4_WAIT_AT_LEAST | PM4_WAIT_WRITE_THEN, flush, UINT32_MAX);
    put_acquire(w, GCR_ALL);
}

static void put_list(struct writer *w, const struct gpu_list *list)
{
    put(w, PM4(PM4_INDIRECT_BUFFER, 3));
    put64(w, list->va.v);
    put(w, PM4_IB_VALID | list->word_count);
}

static void put_epilogue(struct writer *w, u64 fence)
{
    put_wait_shaders(w);
    put(w, PM4(PM4_RELEASE_MEM, 7));
    put(w, PM4_RELEASE_ALL);
    put(w, PM4_RELEASE_DATA64 | (w->gpu->irq_on ? PM4_RELEASE_IRQ : 0));
    put64(w, ring_fence_va(w->gpu, RING_COMPUTE).v);
    put64(w, (u32)(fence >> 1));
    put(w, 0);
}

/* In any state: the last step of the bring-up sends no list (NULL). */
err list_send(struct gpu *gpu, const struct gpu_list *list, u64 *fence)
{
    struct ring *ring = &gpu->ring[RING_COMPUTE];

    TRY(ring_room(gpu, RING_COMPUTE, RING_WORDS));
    struct writer w = {.gpu = gpu, .words = ring->words + ring->put % ring->count};
    put_prologue(&w);
    if (list && list->word_count)
        put_list(&w, list);
    *fence = ring_fence(gpu, RING_COMPUTE);
    put_epilogue(&w, *fence);
    CHECK(w.count <= RING_WORDS);
    ring->put += w.count;
    ring_kick(gpu, RING_COMPUTE, list);
    return OK;
}

err gpu_list_submit(struct gpu *gpu, const struct gpu_list *list, u64 *fence)
{
    return gpu->state == GPU_READY ? list_send(gpu, list, fence) : E_STATE;
}

/* A list of its own, in memory that is free again once it has run. */
err gpu_submit(struct gpu *gpu, const struct gpu_launch *launch, u32 count, u64 *fence)
{
    const struct gpu_host memory = {gpu->shared->once,
                                    {gpu->shared_va.v + offsetof(struct shared, once)},
                                    sizeof(gpu->shared->once)};
    struct gpu_list *list;

    if (gpu->state != GPU_READY)
        return E_STATE;
    if (gpu->once_fence && gpu_fence_passed(gpu, gpu->once_fence) == E_BUSY)
        return E_BUSY;
    TRY(gpu_list_make(gpu, &memory, launch, count, &list));
    TRY(list_send(gpu, list, &gpu->once_fence));
    *fence = gpu->once_fence;
    return OK;
}

/* ---- which launch ---- */

/* Launches of one kernel look alike: `alike` counts them. */
static const struct entry *find_entry(const struct ring *ring, u64 pc, u32 *alike)
{
    const struct entry *found = NULL;

    for (u32 n = 0; n < ring->pending_count; n++) {
        const struct gpu_list *list = ring->pending[(ring->first + n) % PENDING_MAX].list;
        for (u32 i = 0; list && i < list->count; i++) {
            const struct entry *entry = &list->entry[i];
            if (entry->code.v > pc || (found && entry->code.v < found->code.v))
                continue;
            *alike = found && entry->code.v == found->code.v ? *alike + 1 : 1;
            found = *alike == 1 ? entry : found;
        }
    }
    return found;
}

void list_describe(const struct gpu *gpu, u64 pc, struct text *out)
{
    const struct ring *ring = &gpu->ring[RING_COMPUTE];
    u32 alike = 0;
    const struct entry *entry = find_entry(ring, pc, &alike);

    if (ring_idle(ring) || !ring->pending[ring->first].list)
        return;
    if (!entry)
        text_fmt(out, "no wave of the list: ");
    else if (alike > 1)
        text_fmt(out, "%s (or one of %u like it) at %lx + %lx: ", entry->name ? entry->name : "?",
                 alike - 1, entry->code.v, pc - entry->code.v);
    else
        text_fmt(out, "%s at %lx + %lx: ", entry->name ? entry->name : "?", entry->code.v,
                 pc - entry->code.v);
}
