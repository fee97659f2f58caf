/*
 * gfx.c: the graphics core as a computer: its run list controller, the compute microengine (MEC),
 * one compute queue, and the packets of a launch. Must not know what a kernel computes. Follows:
 * Linux 6.12 gfx_v11_0.c, v11_structs.h, nvd.h; the values of fields that Linux takes from tables
 * of its own were seen in a register trace of tinygrad's driver (docs/GPU.md).
 */
#include "amdgpu/priv.h"

#define RLC_MS       10000u
#define DEQUEUE_US   20000u
#define RESET_MS     50u
#define ENABLE_MS    50u
#define SAFE_MODE_US 10000u
#define VMIDS        16u
#define QUEUES       2u

#define SELECT_QUEUE(n) (FIELD(GRBM_GFX_CNTL__MEID, 1) | FIELD(GRBM_GFX_CNTL__QUEUEID, n))

err gfx_wait_rlc(struct gpu *gpu)
{
    u32 loaded = RLC_RLCS_BOOTLOAD_STATUS__BOOTLOAD_COMPLETE;

    if (gpu->sub == 0) {
        TRY(ip_poll(gpu, R_RLC_RLCS_BOOTLOAD_STATUS, loaded, loaded, RLC_MS));
        gpu->sub++;
    }
    return ip_poll(gpu, R_CP_STAT, UINT32_MAX, 0, RLC_MS);
}

/* ---- off and on ---- */

void gfx_dequeue(struct gpu *gpu)
{
    for (u32 q = 0; q < QUEUES; q++) {
        ip_write(gpu, R_GRBM_GFX_CNTL, SELECT_QUEUE(q));
        if (!(ip_read(gpu, R_CP_HQD_ACTIVE) & CP_HQD_ACTIVE__ACTIVE))
            continue;
        ip_write(gpu, R_CP_HQD_DEQUEUE_REQUEST, 2); /* reset its waves */
        ip_write(gpu, R_SPI_COMPUTE_QUEUE_RESET, 1);
        if (ip_wait(gpu, R_CP_HQD_ACTIVE, CP_HQD_ACTIVE__ACTIVE, 0, DEQUEUE_US) != OK)
            log_warn(gpu->name, "queue %u does not let go: reset with the engine", q);
    }
    ip_write(gpu, R_GRBM_GFX_CNTL, 0);
}

/* Queues of an earlier life, or ones that hang, off the engine; then the engine is reset. */
err gfx_stop(struct gpu *gpu)
{
    if (gpu->sub == 0) {
        gfx_dequeue(gpu);
        ip_write(gpu, R_GRBM_SOFT_RESET,
                 GRBM_SOFT_RESET__SOFT_RESET_CP | GRBM_SOFT_RESET__SOFT_RESET_CPC);
        gpu->sub++;
    }
    TRY(gpu_pause(gpu, RESET_MS));
    ip_write(gpu, R_GRBM_SOFT_RESET, 0);
    return OK;
}

static const struct setting start_rows[] = {
    {R_TCP_CNTL, 0x20000000, 0x20000000}, /* from Linux's golden registers */
    {R_RLC_CNTL, 0, 1},
    {R_RLC_SRM_CNTL, 3, 3}, /* save and restore, counting up */
    {R_RLC_SPM_MC_CNTL, 0, 0xf},
    {R_S2A_DOORBELL_ENTRY_0_CTRL, 0, 0x30000007}, /* doorbells to block 3 */
    {R_S2A_DOORBELL_ENTRY_3_CTRL, 0, 0x3000000d}, /* and 6 */
    {R_GRBM_CNTL, 0xff, 0xff},                    /* a read times out late */
};

static const struct setting enable_rows[] = {
    {R_CP_MEC_DOORBELL_RANGE_LOWER, 0, 0},
    {R_CP_MEC_DOORBELL_RANGE_UPPER, 0, 0xf8},
    {R_CP_MEC_RS64_CNTL,
     CP_MEC_RS64_CNTL__MEC_PIPE0_RESET | CP_MEC_RS64_CNTL__MEC_HALT |
         CP_MEC_RS64_CNTL__MEC_PIPE0_ACTIVE,
     CP_MEC_RS64_CNTL__MEC_PIPE0_ACTIVE},
};

/* The microengine at its firmware's entry; every address space with 64 bits, unaligned access, and
 * apertures for LDS and scratch far above all buffers. */
err gfx_start(struct gpu *gpu)
{
    ip_write(gpu, R_GRBM_GFX_CNTL, SELECT_QUEUE(0));
    ip_write_pair(gpu, R_CP_MEC_RS64_PRGRM_CNTR_START, R_CP_MEC_RS64_PRGRM_CNTR_START_HI,
                  gpu->mec_start >> 2);
    ip_write(gpu, R_GRBM_GFX_CNTL, 0);
    ip_set(gpu, R_CP_MEC_RS64_CNTL, CP_MEC_RS64_CNTL__MEC_PIPE0_RESET);
    ip_update(gpu, R_CP_MEC_RS64_CNTL, CP_MEC_RS64_CNTL__MEC_PIPE0_RESET, 0);
    ip_run(gpu, start_rows, ARRAY_LEN(start_rows));
    for (u32 i = 0; i < VMIDS; i++) {
        ip_write(gpu, R_GRBM_GFX_CNTL, FIELD(GRBM_GFX_CNTL__VMID, i));
        ip_write(gpu, R_SH_MEM_CONFIG, 0xc00c);
        ip_write(gpu, R_SH_MEM_BASES, 0x10002);
    }
    ip_write(gpu, R_GRBM_GFX_CNTL, 0);
    ip_run(gpu, enable_rows, ARRAY_LEN(enable_rows));
    return OK;
}

err gfx_enable(struct gpu *gpu)
{
    return gpu_pause(gpu, ENABLE_MS);
}

/* ---- the queue ---- */

static void fill_descriptor(const struct gpu *gpu, u32 mqd[MQD_WORDS])
{
    const struct ring *ring = &gpu->ring[RING_COMPUTE];
    u64 eop = gpu->shared_va.v + offsetof(struct shared, eop);
    u64 rptr = ring->queue_va.v + offsetof(struct shared_queue, rptr);
    u64 wptr = ring->queue_va.v + offsetof(struct shared_queue, wptr);
    u64 self = gpu->fb_base + BOOT_MQD;
    u32 size = (u32)__builtin_ctz(ring->count) - 1, eop_size = (u32)__builtin_ctz(4096 / 4) - 1;
    const struct {
        u16 reg;
        u64 value; /* of two registers when it needs them */
    } row[] = {
        {R_CP_MQD_BASE_ADDR, self},
        {R_CP_HQD_PERSISTENT_STATE,
         CP_HQD_PERSISTENT_STATE__PRELOAD_REQ | FIELD(CP_HQD_PERSISTENT_STATE__PRELOAD_SIZE, 0x55)},
        {R_CP_HQD_PIPE_PRIORITY, 2},
        {R_CP_HQD_QUEUE_PRIORITY, 15},
        {R_CP_HQD_QUANTUM, 0x111},
        {R_CP_HQD_PQ_BASE, ring->va.v >> 8},
        {R_CP_HQD_PQ_RPTR_REPORT_ADDR, rptr},
        {R_CP_HQD_PQ_WPTR_POLL_ADDR, wptr},
        {R_CP_HQD_PQ_DOORBELL_CONTROL, CP_HQD_PQ_DOORBELL_CONTROL__DOORBELL_EN | ring->doorbell},
        {R_CP_HQD_PQ_CONTROL,
         FIELD(CP_HQD_PQ_CONTROL__QUEUE_SIZE, size) | FIELD(CP_HQD_PQ_CONTROL__RPTR_BLOCK_SIZE, 5)},
        {R_CP_HQD_IB_CONTROL, FIELD(CP_HQD_IB_CONTROL__MIN_IB_AVAIL_SIZE, 3)},
        {R_CP_HQD_HQ_STATUS0, 0x20004000},
        {R_CP_MQD_CONTROL, CP_MQD_CONTROL__PRIV_STATE},
        {R_CP_HQD_EOP_BASE_ADDR, eop >> 8},
        {R_CP_HQD_EOP_CONTROL, FIELD(CP_HQD_EOP_CONTROL__EOP_SIZE, eop_size)},
    };

    memset(mqd, 0, MQD_WORDS * sizeof(u32));
    mqd[0] = MQD_HEADER;
    for (u32 i = 0; i < ARRAY_LEN(row); i++) {
        u32 at = MQD_HQD_FIRST + ip_row((enum reg)row[i].reg)->offset -
                 ip_row(R_CP_MQD_BASE_ADDR)->offset;
        mqd[at] = low32(row[i].value);
        if (high32(row[i].value))
            mqd[at + 1] = high32(row[i].value);
    }
    for (u32 se = 0; se < 8; se++) {
        static const u8 at[] = {MQD_STATIC_SE0, MQD_STATIC_SE2, MQD_STATIC_SE4, MQD_STATIC_SE4 + 2};
        mqd[at[se / 2] + se % 2] = UINT32_MAX;
    }
}

err gfx_queue_start(struct gpu *gpu)
{
    const u32 hole = ip_row(R_CP_HQD_PQ_CONTROL)->offset - 1 - ip_row(R_CP_MQD_BASE_ADDR)->offset;
    u32 mqd[MQD_WORDS];

    fill_descriptor(gpu, mqd);
    vram_write(gpu, BOOT_MQD, mqd, sizeof(mqd));
    gmc_flush_hdp(gpu);
    ip_write(gpu, R_GRBM_GFX_CNTL, SELECT_QUEUE(0));
    for (u32 i = 0; i < MQD_HQD_COUNT; i++)
        if (i != hole) /* no register there */
            ip_write_nth(gpu, R_CP_MQD_BASE_ADDR, i, mqd[MQD_HQD_FIRST + i]);
    ip_write(gpu, R_CP_HQD_ACTIVE, 1);
    ip_write(gpu, R_GRBM_GFX_CNTL, 0);
    return OK;
}

/* An idle core draws little only with its clock gates on; they move in safe mode. */
err gfx_clock_gating(struct gpu *gpu)
{
    static const struct setting rows[] = {
        {R_RLC_CGCG_CGLS_CTRL, 0x7ffffff, 0x363f}, /* coarse gates and sleep on, idle after 0x36 */
        {R_CP_RB_WPTR_POLL_CNTL, 0, 0x900100},
        {R_CP_INT_CNTL, 0x1c0000, 0x1c0000}, /* busy and empty tell the RLC */
        {R_SDMA0_RLC_CGCG_CTRL, 2, 2},
        {R_SDMA1_RLC_CGCG_CTRL, 2, 2},
        {R_RLC_CGTT_MGCG_OVERRIDE, 0x73e, 0x400}, /* no gate held open but the counters' */
    };

    ip_set(gpu, R_HDP_MEM_POWER_CTRL,
           HDP_MEM_POWER_CTRL__ATOMIC_MEM_POWER_CTRL_EN |
               HDP_MEM_POWER_CTRL__ATOMIC_MEM_POWER_DS_EN);
    ip_write(gpu, R_MM_ATC_L2_MISC_CG,
             MM_ATC_L2_MISC_CG__ENABLE | MM_ATC_L2_MISC_CG__MEM_LS_ENABLE);
    ip_write(gpu, R_RLC_SAFE_MODE, RLC_SAFE_MODE__CMD | FIELD(RLC_SAFE_MODE__MESSAGE, 1));
    TRY(ip_wait(gpu, R_RLC_SAFE_MODE, RLC_SAFE_MODE__CMD, 0, SAFE_MODE_US));
    ip_run(gpu, rows, ARRAY_LEN(rows));
    ip_write(gpu, R_RLC_SAFE_MODE, RLC_SAFE_MODE__CMD);
    return OK;
}

/* ---- packets ---- */

#define LANES           32u
#define LDS_STEP        512u
#define LDS_BYTES_MAX   65536u
#define GROUP_ITEMS_MAX 1024u
#define SCRATCH_STEP    256u
#define LIST_WORDS      48u /* of prologue and epilogue */
#define LAUNCH_WORDS    41u
#define LAUNCHES_MAX    3000u   /* half a ring */
#define GCR_ALL         0xc3f1u /* write back and invalidate every cache, as GCR_* says */
#define GCR_INNER       0x3f0u  /* all but the GL2, which every shader shares, and instructions */
#define POLL_EVERY      4u

static void put_registers(struct gpu *gpu, enum reg first, const u32 *value, u32 count)
{
    struct ring *ring = &gpu->ring[RING_COMPUTE];

    ring_put(ring, PM4(PM4_SET_SH_REG, count + 1));
    ring_put(ring, ip_index(gpu, first) - PM4_SH_START);
    for (u32 i = 0; i < count; i++)
        ring_put(ring, value[i]);
}

static void put_acquire(struct ring *ring, u32 caches)
{
    ring_put(ring, PM4(PM4_ACQUIRE_MEM, 7));
    ring_put(ring, 0);
    ring_put64(ring, UINT64_MAX); /* all of memory */
    ring_put64(ring, 0);
    ring_put(ring, 0);
    ring_put(ring, caches);
}

static void put_wait_shaders(struct ring *ring)
{
    ring_put(ring, PM4(PM4_EVENT_WRITE, 1));
    ring_put(ring, PM4_CS_PARTIAL_FLUSH);
}

static void put_wait(struct ring *ring, u32 how, u64 where, u32 value)
{
    ring_put(ring, PM4(PM4_WAIT_REG_MEM, 6));
    ring_put(ring, how);
    ring_put64(ring, where);
    ring_put(ring, value);
    ring_put(ring, UINT32_MAX);
    ring_put(ring, POLL_EVERY);
}

/* What the CPU and the copy engine wrote before is what shaders see. */
static void put_prologue(struct gpu *gpu)
{
    struct ring *ring = &gpu->ring[RING_COMPUTE];
    const u32 zeros[3] = {}, scratch[2] = {low32(gpu->scratch.v >> 8), high32(gpu->scratch.v >> 8)};
    u64 flush = (u64)ip_index(gpu, R_BIF_BX_PF0_GPU_HDP_FLUSH_DONE) << 32 |
                ip_index(gpu, R_BIF_BX_PF0_GPU_HDP_FLUSH_REQ);
    u32 other = ring_other(gpu, RING_COMPUTE);

    if (other)
        put_wait(ring, PM4_WAIT_EQUAL | PM4_WAIT_MEMORY, ring_fence_va(gpu, RING_SDMA).v, other);
    put_wait(ring, PM4_WAIT_AT_LEAST | PM4_WAIT_WRITE_THEN, flush, UINT32_MAX);
    put_acquire(ring, GCR_ALL);
    put_registers(gpu, R_COMPUTE_RESTART_X, zeros, 3);
    put_registers(gpu, R_COMPUTE_RESOURCE_LIMITS, zeros, 1);
    put_registers(gpu, R_COMPUTE_DISPATCH_SCRATCH_BASE_LO, scratch, 2);
}

static void put_epilogue(struct gpu *gpu, u64 fence)
{
    struct ring *ring = &gpu->ring[RING_COMPUTE];

    put_wait_shaders(ring);
    ring_put(ring, PM4(PM4_RELEASE_MEM, 7));
    ring_put(ring, PM4_RELEASE_ALL);
    ring_put(ring, PM4_RELEASE_DATA64 | (gpu->irq_on ? PM4_RELEASE_IRQ : 0));
    ring_put64(ring, ring_fence_va(gpu, RING_COMPUTE).v);
    ring_put64(ring, (u32)(fence >> 1));
    ring_put(ring, 0);
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

err gfx_scratch_start(struct gpu *gpu)
{
    u64 wave = scratch_wave_bytes(gpu->config.scratch_bytes);

    if (!wave || gpu->scratch.v)
        return OK;
    return memory_alloc(gpu, wave * scratch_waves(gpu) * gpu->se_count, &gpu->scratch);
}

static void put_launch(struct gpu *gpu, const struct gpu_launch *launch)
{
    struct ring *ring = &gpu->ring[RING_COMPUTE];
    const u32 *size = launch->group_size;
    u32 wave = scratch_wave_bytes(launch->scratch_bytes);
    const u32 code[] = {low32(launch->code.v >> 8), high32(launch->code.v >> 8)};
    const u32 kernarg[] = {low32(launch->kernarg.v), high32(launch->kernarg.v)};
    const u32 resources[] = {
        launch->rsrc1 | COMPUTE_PGM_RSRC1__PRIV,
        launch->rsrc2 | FIELD(COMPUTE_PGM_RSRC2__LDS_SIZE, div_up(launch->lds_bytes, LDS_STEP))};
    const u32 tmpring = FIELD(COMPUTE_TMPRING_SIZE__WAVES, wave ? scratch_waves(gpu) : 0) |
                        FIELD(COMPUTE_TMPRING_SIZE__WAVESIZE, wave / SCRATCH_STEP);
    const u32 shape[] = {0, 0, 0, size[0], size[1], size[2]};

    if (launch->wait) {
        put_wait_shaders(ring);
        put_acquire(ring, GCR_INNER);
    }
    put_registers(gpu, R_COMPUTE_PGM_LO, code, 2);
    put_registers(gpu, R_COMPUTE_PGM_RSRC1, resources, 2);
    put_registers(gpu, R_COMPUTE_PGM_RSRC3, &launch->rsrc3, 1);
    put_registers(gpu, R_COMPUTE_TMPRING_SIZE, &tmpring, 1);
    put_registers(gpu, R_COMPUTE_USER_DATA_0, kernarg, 2);
    put_registers(gpu, R_COMPUTE_START_X, shape, 6);
    ring_put(ring, PM4(PM4_DISPATCH_DIRECT, 4));
    for (u32 i = 0; i < 3; i++)
        ring_put(ring, launch->groups[i]);
    ring_put(ring, PM4_DISPATCH_INITIATOR);
}

static err check_launch(const struct gpu *gpu, const struct gpu_launch *launch)
{
    const u32 *size = launch->group_size, *groups = launch->groups;
    u64 items = (u64)size[0] * size[1] * size[2];

    if (items && items <= GROUP_ITEMS_MAX && size[0] <= GROUP_ITEMS_MAX &&
        size[1] <= GROUP_ITEMS_MAX && groups[0] && groups[1] && groups[2] &&
        launch->code.v % 256 == 0 && launch->lds_bytes <= LDS_BYTES_MAX &&
        launch->scratch_bytes <= gpu->config.scratch_bytes)
        return OK;
    log_error(gpu->name,
              "launch of %lx: want 1 to %u work-items, %u bytes of LDS, %u of scratch, "
              "saw %lu, %u, %u",
              launch->code.v, GROUP_ITEMS_MAX, LDS_BYTES_MAX, gpu->config.scratch_bytes, items,
              launch->lds_bytes, launch->scratch_bytes);
    return E_RANGE;
}

/* In any state: the last step of the bring-up sends an empty list. */
err gfx_send(struct gpu *gpu, const struct gpu_launch *launch, u32 count, u64 *fence)
{
    if (count > LAUNCHES_MAX)
        return E_LIMIT;
    for (u32 i = 0; i < count; i++)
        TRY(check_launch(gpu, &launch[i]));
    TRY(ring_room(gpu, RING_COMPUTE, LIST_WORDS + count * LAUNCH_WORDS));
    put_prologue(gpu);
    for (u32 i = 0; i < count; i++)
        put_launch(gpu, &launch[i]);
    *fence = ring_fence(gpu, RING_COMPUTE);
    put_epilogue(gpu, *fence);
    ring_kick(gpu, RING_COMPUTE);
    return OK;
}

err gpu_submit(struct gpu *gpu, const struct gpu_launch *launch, u32 count, u64 *fence)
{
    return gpu->state == GPU_READY ? gfx_send(gpu, launch, count, fence) : E_STATE;
}

/* ---- what a hang looks like ---- */

/* The last kernel whose address the packet processor has read. */
static u64 last_kernel(const struct gpu *gpu, u64 read)
{
    const struct ring *ring = &gpu->ring[RING_COMPUTE];
    u32 program = ip_index(gpu, R_COMPUTE_PGM_LO) - PM4_SH_START;
    u64 code = 0;

    for (u64 at = ring->tail; at < read;) {
        u32 head = ring->words[at % ring->count];
        if (head >> 8 == PM4(PM4_SET_SH_REG, 3) >> 8 &&
            ring->words[(at + 1) % ring->count] == program)
            code = (u64)ring->words[(at + 3) % ring->count] << 40 |
                   (u64)ring->words[(at + 2) % ring->count] << 8;
        at += head == PM4_NOP_WORD ? 1 : (head >> 16 & 0x3fff) + 2;
    }
    return code;
}

void gfx_describe(struct gpu *gpu, struct text *out)
{
    const struct ring *ring = &gpu->ring[RING_COMPUTE];

    ip_write(gpu, R_GRBM_GFX_CNTL, SELECT_QUEUE(0));
    u32 rptr = ip_read(gpu, R_CP_HQD_PQ_RPTR), active = ip_read(gpu, R_CP_HQD_ACTIVE);
    ip_write(gpu, R_GRBM_GFX_CNTL, 0);
    u64 read = ring->tail + (rptr - (u32)ring->tail) % ring->count;
    text_fmt(out, "kernel %lx; ring read to %x of %lx, queue %s; GRBM %08x CP %08x CPC %08x",
             last_kernel(gpu, min_u64(read, ring->put)), rptr, ring->put % ring->count,
             active & 1 ? "active" : "inactive", ip_read(gpu, R_GRBM_STATUS),
             ip_read(gpu, R_CP_STAT), ip_read(gpu, R_CP_CPC_STATUS));
}
