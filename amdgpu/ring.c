/*
 * ring.c: queues in system memory: words, write pointer, doorbell, and fences that tell which of
 * them the card is done with. One numbering for both queues; each waits for the other, so work runs
 * in the order in which it was asked for. Must not know a packet. Follows: Linux 6.12
 * amdgpu_ring.c, gfx_v11_0.c, sdma_v6_0.c.
 */
#include "amdgpu/priv.h"

#define COMPUTE_DOORBELL 0x18u  /* AMDGPU_NAVI10_DOORBELL_MEC_RING0, of 8 bytes */
#define SDMA_DOORBELL    0x800u /* AMDGPU_NAVI10_DOORBELL_sDMA_ENGINE0 */
#define SLACK_WORDS      64u    /* a full ring must not look empty */

static void open_ring(struct gpu *gpu, enum ring_kind kind, u32 *words, u32 count)
{
    struct ring *ring = &gpu->ring[kind];
    u64 at = (u64)((u8 *)words - (u8 *)gpu->shared);

    ring->words = words;
    ring->count = count;
    ring->queue = &gpu->shared->queue[kind];
    ring->va.v = gpu->shared_va.v + at;
    ring->queue_va.v =
        gpu->shared_va.v + offsetof(struct shared, queue) + kind * sizeof(struct shared_queue);
}

err ring_open(struct gpu *gpu)
{
    struct dma dma;

    TRY(dma_alloc(gpu->dev, round_up(sizeof(struct shared), 4096), 4096, &dma));
    gpu->shared = dma.ptr;
    TRY(memory_map_host(gpu, &dma, &gpu->shared_va));
    open_ring(gpu, RING_COMPUTE, gpu->shared->compute, ARRAY_LEN(gpu->shared->compute));
    open_ring(gpu, RING_SDMA, gpu->shared->sdma, ARRAY_LEN(gpu->shared->sdma));
    gpu->ring[RING_COMPUTE].name = "compute";
    gpu->ring[RING_COMPUTE].doorbell = COMPUTE_DOORBELL;
    gpu->ring[RING_COMPUTE].unit = 1;
    gpu->ring[RING_SDMA].name = "copy";
    gpu->ring[RING_SDMA].doorbell = SDMA_DOORBELL;
    gpu->ring[RING_SDMA].unit = sizeof(u32);
    return OK;
}

void ring_drop(struct gpu *gpu)
{
    ring_look(gpu);
    for (u32 i = 0; i < RINGS; i++) {
        struct ring *ring = &gpu->ring[i];
        ring->pending_count = 0;
        if (ring->sent == ring->done)
            continue;
        if (ring->done != ring->lost_to) /* else the last loss goes on */
            ring->lost_from = ring->done;
        ring->lost_to = ring->done = ring->sent;
    }
}

void ring_reset(struct gpu *gpu)
{
    ring_drop(gpu);
    for (u32 i = 0; i < RINGS; i++) {
        struct ring *ring = &gpu->ring[i];
        ring->put = ring->tail = 0;
        memset(ring->words, 0, ring->count * sizeof(u32));
        *ring->queue = (struct shared_queue){.fence = (u32)(ring->sent >> 1)};
    }
    dma_wmb();
}

/* ---- filling ---- */

err ring_room(struct gpu *gpu, enum ring_kind kind, u32 words)
{
    struct ring *ring = &gpu->ring[kind];

    ring_look(gpu);
    u32 to_end = ring->count - (u32)(ring->put % ring->count);
    u32 skip = words > to_end ? to_end : 0; /* no list of packets wraps */
    if (words + SLACK_WORDS > ring->count / 2)
        return E_LIMIT;
    if (ring->pending_count == PENDING_MAX ||
        ring->put + skip + words + SLACK_WORDS > ring->tail + ring->count)
        return E_BUSY;
    while (skip--)
        ring_put(ring, kind == RING_SDMA ? SDMA_NOP : PM4_NOP_WORD);
    return OK;
}

void ring_put(struct ring *ring, u32 word)
{
    ring->words[ring->put++ % ring->count] = word;
}

void ring_put64(struct ring *ring, u64 value)
{
    ring_put(ring, low32(value));
    ring_put(ring, high32(value));
}

u32 ring_other(struct gpu *gpu, enum ring_kind kind)
{
    const struct ring *other = &gpu->ring[!kind];

    return ring_idle(other) ? 0 : (u32)(other->sent >> 1);
}

u64 ring_fence(struct gpu *gpu, enum ring_kind kind)
{
    struct ring *ring = &gpu->ring[kind];

    if ((u32)++gpu->sequence == 0) /* 0 says that there is nothing to wait for */
        gpu->sequence++;
    ring->sent = gpu->sequence << 1 | kind;
    return ring->sent;
}

void ring_kick(struct gpu *gpu, enum ring_kind kind, const struct gpu_list *list)
{
    struct ring *ring = &gpu->ring[kind];
    u32 slot = (ring->first + ring->pending_count) % PENDING_MAX;

    CHECK(ring->pending_count < PENDING_MAX);
    if (ring_idle(ring))
        ring->progress_ns = time_ns();
    ring->pending[slot].fence = ring->sent;
    ring->pending[slot].end = ring->put;
    ring->pending[slot].list = list;
    ring->pending_count++;
    dma_wmb();
    __atomic_store_n(&ring->queue->wptr, ring->put * ring->unit, __ATOMIC_RELEASE);
    dma_mb();
    gmc_flush_hdp(gpu);
    mmio_write64(&gpu->doorbell, ring->doorbell, ring->put * ring->unit);
}

/* ---- fences ---- */

static void look(struct ring *ring)
{
    u32 seen = (u32)__atomic_load_n(&ring->queue->fence, __ATOMIC_ACQUIRE);

    while (ring->pending_count) {
        u64 fence = ring->pending[ring->first].fence;
        if ((i32)(seen - (u32)(fence >> 1)) < 0)
            return;
        ring->done = fence;
        ring->tail = ring->pending[ring->first].end;
        ring->first = (ring->first + 1) % PENDING_MAX;
        ring->pending_count--;
        ring->progress_ns = time_ns();
    }
}

void ring_look(struct gpu *gpu)
{
    for (u32 i = 0; i < RINGS; i++)
        look(&gpu->ring[i]);
}

err gpu_fence_passed(struct gpu *gpu, u64 fence)
{
    const struct ring *ring = &gpu->ring[fence & 1];

    CHECK(fence <= ring->sent);
    ring_look(gpu);
    if (fence > ring->lost_from && fence <= ring->lost_to)
        return E_DEVICE;
    if (fence <= ring->done)
        return OK;
    return gpu->state == GPU_DEAD ? E_DEVICE : E_BUSY;
}
