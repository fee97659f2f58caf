/*
 * sdma.c: the copy engine: its one queue, copies and fills. Must not know why bytes move. Follows:
 * Linux 6.12 sdma_v6_0.c, sdma_v6_0_0_pkt_open.h.
 */
#include "amdgpu/priv.h"

#define RESET_MS       10u
#define COPY_WORDS     7u
#define FILL_WORDS     5u
#define LIST_WORDS     12u         /* the wait before and the fence after */
#define POLL_MEMORY_EQ 0xb0000008u /* POLL_REGMEM, memory, equal */
#define POLL_PACE      0x0fff0004u /* 4095 tries, 4 apart */

void sdma_dequeue(struct gpu *gpu)
{
    ip_update(gpu, R_SDMA0_QUEUE0_RB_CNTL, SDMA0_QUEUE0_RB_CNTL__RB_ENABLE, 0);
    ip_update(gpu, R_SDMA0_QUEUE0_IB_CNTL, SDMA0_QUEUE0_IB_CNTL__IB_ENABLE, 0);
    ip_update(gpu, R_SDMA0_QUEUE0_DOORBELL, SDMA0_QUEUE0_DOORBELL__ENABLE, 0);
}

/* Through a reset it starts from 0 again. */
err sdma_stop(struct gpu *gpu)
{
    if (gpu->sub == 0) {
        sdma_dequeue(gpu);
        ip_write(gpu, R_GRBM_SOFT_RESET, GRBM_SOFT_RESET__SOFT_RESET_SDMA0);
        gpu->sub++;
    }
    TRY(gpu_pause(gpu, RESET_MS));
    ip_write(gpu, R_GRBM_SOFT_RESET, 0);
    return OK;
}

err sdma_start(struct gpu *gpu)
{
    static const struct setting rows[] = {
        {R_SDMA0_WATCHDOG_CNTL, 0xff, 100},         /* of 100 ms each: a queue hangs */
        {R_SDMA0_UTCL1_CNTL, 0x61f, 0x609},         /* translations: mode 3, again after 9 */
        {R_SDMA0_UTCL1_PAGE, 0x100f000, 0x100e000}, /* reads take no GL2 line, writes pass it */
        {R_SDMA0_F32_CNTL, SDMA0_F32_CNTL__HALT | SDMA0_F32_CNTL__TH1_RESET, 0},
        {R_SDMA0_CNTL, SDMA0_CNTL__TRAP_ENABLE, SDMA0_CNTL__TRAP_ENABLE},
        {R_S2A_DOORBELL_ENTRY_2_CTRL, 0, 0x3009001d}, /* 4 doorbells from 0x800 on to block 14 */
    };

    ip_run(gpu, rows, ARRAY_LEN(rows));
    return OK;
}

err sdma_queue_start(struct gpu *gpu)
{
    const struct ring *ring = &gpu->ring[RING_SDMA];
    u64 rptr = ring->queue_va.v + offsetof(struct shared_queue, rptr);
    u64 wptr = ring->queue_va.v + offsetof(struct shared_queue, wptr);

    ip_write(gpu, R_SDMA0_QUEUE0_MINOR_PTR_UPDATE, 1);
    ip_write_pair(gpu, R_SDMA0_QUEUE0_RB_RPTR, R_SDMA0_QUEUE0_RB_RPTR_HI, 0);
    ip_write_pair(gpu, R_SDMA0_QUEUE0_RB_WPTR, R_SDMA0_QUEUE0_RB_WPTR_HI, 0);
    ip_write_pair(gpu, R_SDMA0_QUEUE0_RB_BASE, R_SDMA0_QUEUE0_RB_BASE_HI, ring->va.v >> 8);
    ip_write_pair(gpu, R_SDMA0_QUEUE0_RB_RPTR_ADDR_LO, R_SDMA0_QUEUE0_RB_RPTR_ADDR_HI, rptr);
    ip_write_pair(gpu, R_SDMA0_QUEUE0_RB_WPTR_POLL_ADDR_LO, R_SDMA0_QUEUE0_RB_WPTR_POLL_ADDR_HI,
                  wptr);
    ip_update(gpu, R_SDMA0_QUEUE0_DOORBELL_OFFSET, SDMA0_QUEUE0_DOORBELL_OFFSET__OFFSET,
              ring->doorbell);
    ip_set(gpu, R_SDMA0_QUEUE0_DOORBELL, SDMA0_QUEUE0_DOORBELL__ENABLE);
    ip_write(gpu, R_SDMA0_QUEUE0_MINOR_PTR_UPDATE, 0);
    ip_write(gpu, R_SDMA0_QUEUE0_RB_CNTL,
             SDMA0_QUEUE0_RB_CNTL__F32_WPTR_POLL_ENABLE |
                 SDMA0_QUEUE0_RB_CNTL__RPTR_WRITEBACK_ENABLE |
                 FIELD(SDMA0_QUEUE0_RB_CNTL__RPTR_WRITEBACK_TIMER, 4) |
                 SDMA0_QUEUE0_RB_CNTL__RB_ENABLE | SDMA0_QUEUE0_RB_CNTL__RB_PRIV |
                 FIELD(SDMA0_QUEUE0_RB_CNTL__RB_SIZE, __builtin_ctz(ring->count)));
    ip_set(gpu, R_SDMA0_QUEUE0_IB_CNTL, SDMA0_QUEUE0_IB_CNTL__IB_ENABLE);
    return OK;
}

/* ---- work ---- */

/* Room, and the wait for what the compute queue was given before. */
static err begin(struct gpu *gpu, u64 packets, u32 packet_words)
{
    struct ring *ring = &gpu->ring[RING_SDMA];

    if (packets > ring->count / (2 * packet_words))
        return E_LIMIT;
    TRY(ring_room(gpu, RING_SDMA, LIST_WORDS + (u32)packets * packet_words));
    u32 other = ring_other(gpu, RING_SDMA);
    if (!other)
        return OK;
    ring_put(ring, POLL_MEMORY_EQ);
    ring_put64(ring, ring_fence_va(gpu, RING_COMPUTE).v);
    ring_put(ring, other);
    ring_put(ring, UINT32_MAX);
    ring_put(ring, POLL_PACE);
    return OK;
}

static void end(struct gpu *gpu, u64 *fence)
{
    struct ring *ring = &gpu->ring[RING_SDMA];

    *fence = ring_fence(gpu, RING_SDMA);
    ring_put(ring, SDMA_FENCE | SDMA_FENCE_UNCACHED);
    ring_put64(ring, ring_fence_va(gpu, RING_SDMA).v);
    ring_put(ring, (u32)(*fence >> 1));
    if (gpu->irq_on) {
        ring_put(ring, SDMA_TRAP);
        ring_put(ring, 0);
    }
    ring_kick(gpu, RING_SDMA, NULL);
}

err sdma_send(struct gpu *gpu, gpuva to, gpuva from, u64 bytes, u64 *fence)
{
    struct ring *ring = &gpu->ring[RING_SDMA];

    TRY(begin(gpu, div_up(bytes, SDMA_COPY_BYTES_MAX), COPY_WORDS));
    for (u64 done = 0; done < bytes; done += SDMA_COPY_BYTES_MAX) {
        ring_put(ring, SDMA_COPY);
        ring_put(ring, (u32)min_u64(bytes - done, SDMA_COPY_BYTES_MAX) - 1);
        ring_put(ring, 0);
        ring_put64(ring, from.v + done);
        ring_put64(ring, to.v + done);
    }
    end(gpu, fence);
    return OK;
}

err gpu_copy(struct gpu *gpu, gpuva to, gpuva from, u64 bytes, u64 *fence)
{
    return gpu->state == GPU_READY ? sdma_send(gpu, to, from, bytes, fence) : E_STATE;
}

err gpu_fill(struct gpu *gpu, gpuva to, u32 word, u64 bytes, u64 *fence)
{
    struct ring *ring = &gpu->ring[RING_SDMA];

    if (gpu->state != GPU_READY)
        return E_STATE;
    if (bytes % 4 || to.v % 4)
        return E_RANGE;
    TRY(begin(gpu, div_up(bytes, SDMA_COPY_BYTES_MAX), FILL_WORDS));
    for (u64 done = 0; done < bytes; done += SDMA_COPY_BYTES_MAX) {
        ring_put(ring, SDMA_FILL | SDMA_FILL_WORDS);
        ring_put64(ring, to.v + done);
        ring_put(ring, word);
        ring_put(ring, (u32)min_u64(bytes - done, SDMA_COPY_BYTES_MAX) - 1);
    }
    end(gpu, fence);
    return OK;
}
