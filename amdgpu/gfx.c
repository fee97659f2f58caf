/*
 * gfx.c: the graphics core as a computer: its run list controller, the compute microengine (MEC)
 * and one compute queue. Must not know what is put into it. Follows:
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

/* ---- what a fault or a hang looks like ---- */

static u32 wave_word(struct gpu *gpu, u32 wave, enum sq_wave word)
{
    ip_write(gpu, R_SQ_IND_INDEX,
             FIELD(SQ_IND_INDEX__WAVE_ID, wave) | FIELD(SQ_IND_INDEX__INDEX, word));
    return ip_read(gpu, R_SQ_IND_DATA);
}

/* True: one that has died. */
static bool look_at_simd(struct gpu *gpu, u64 *pc)
{
    for (u32 wave = 0; wave < SIMD_WAVES && !gpu->gone; wave++) {
        u32 status = wave_word(gpu, wave, SQ_WAVE_STATUS);
        if (status == UINT32_MAX || !(status & SQ_STATUS_VALID))
            continue;
        *pc = (u64)wave_word(gpu, wave, SQ_WAVE_PC_HI) << 32 | wave_word(gpu, wave, SQ_WAVE_PC_LO);
        if (status & SQ_STATUS_FATAL_HALT)
            return true;
    }
    return false;
}

/* The SIMDs of a shader array, but for WGPs that are fused off. */
static bool look_at_array(struct gpu *gpu, u32 array, u64 *pc)
{
    u32 simds = gpu->cu_count / 2 / gpu->se_count / gpu->sa_per_se * WGP_SIMDS;
    u32 select = FIELD(GRBM_GFX_INDEX__SE_INDEX, array / gpu->sa_per_se) |
                 FIELD(GRBM_GFX_INDEX__SA_INDEX, array % gpu->sa_per_se);
    bool dead = false;

    ip_write(gpu, R_GRBM_GFX_INDEX, select);
    u32 off = field_of(ip_read(gpu, R_CC_GC_SHADER_ARRAY_CONFIG),
                       CC_GC_SHADER_ARRAY_CONFIG__INACTIVE_WGPS);
    for (u32 i = 0; i < simds && !dead; i++) {
        if (off >> i / WGP_SIMDS & 1)
            continue;
        ip_write(gpu, R_GRBM_GFX_INDEX, select | FIELD(GRBM_GFX_INDEX__INSTANCE_INDEX, i));
        dead = look_at_simd(gpu, pc);
    }
    return dead;
}

u64 gfx_wave_pc(struct gpu *gpu)
{
    u64 pc = 0;

    for (u32 i = 0; i < gpu->se_count * gpu->sa_per_se && !gpu->gone; i++)
        if (look_at_array(gpu, i, &pc))
            break;
    ip_write(gpu, R_GRBM_GFX_INDEX,
             GRBM_GFX_INDEX__SE_BROADCAST_WRITES | GRBM_GFX_INDEX__SA_BROADCAST_WRITES |
                 GRBM_GFX_INDEX__INSTANCE_BROADCAST_WRITES);
    return pc;
}

void gfx_describe(struct gpu *gpu, struct text *out)
{
    const struct ring *ring = &gpu->ring[RING_COMPUTE];

    ip_write(gpu, R_GRBM_GFX_CNTL, SELECT_QUEUE(0));
    u32 rptr = ip_read(gpu, R_CP_HQD_PQ_RPTR), active = ip_read(gpu, R_CP_HQD_ACTIVE);
    ip_write(gpu, R_GRBM_GFX_CNTL, 0);
    text_fmt(out, "ring read to %x of %lx, queue %s; GRBM %08x CP %08x CPC %08x", rptr,
             ring->put % ring->count, active & 1 ? "active" : "inactive",
             ip_read(gpu, R_GRBM_STATUS), ip_read(gpu, R_CP_STAT), ip_read(gpu, R_CP_CPC_STATUS));
}
