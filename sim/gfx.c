/*
 * gfx.c: the graphics block as the driver programs it: RLC, GRBM with its banks by queue and VMID,
 * the MEC's start, queue descriptors in registers, resets. What a queue does is in cp.c. Follows:
 * Linux 6.12 gfx_v11_0.c (gfx_v11_0_cp_compute_load_microcode_rs64, gfx_v11_0_kiq_init_register,
 * gfx_v11_0_soft_reset), v11_structs.h.
 */
#include <stdlib.h>
#include <string.h>

#include "sim/cp.h"

#define RLC_BOOT_NS     (2 * NS_PER_MS)
#define RLC_SAFE_NS     (20 * NS_PER_US)
#define MEC_START_NS    (40 * NS_PER_US)
#define DEQUEUE_NS      (50 * NS_PER_US)
#define CP_STAT_BOOTING 0x80000000u
#define PIPE_RESET_BIT  16u
#define PIPE_ACTIVE_BIT 26u
#define ME_MEC1         1u
#define ALIGN_UNALIGNED 0xcu /* SH_MEM_CONFIG: accesses need no alignment */

static u32 field(u32 value, u32 mask)
{
    return (value & mask) >> __builtin_ctz(mask);
}

err gfx_create(struct sim *sim)
{
    sim->gfx = calloc(1, sizeof(*sim->gfx));
    return sim->gfx ? OK : E_NOMEM;
}

static void gfx_clear(struct sim *sim)
{
    for (u32 i = 0; i < CP_QUEUES; i++)
        if (sim->gfx->queue[i].compute)
            compute_destroy(sim->gfx->queue[i].compute);
}

void gfx_destroy(struct sim *sim)
{
    if (sim->gfx)
        gfx_clear(sim);
    free(sim->gfx);
    sim->gfx = NULL;
}

void gfx_reset(struct sim *sim)
{
    struct ledger ledger = sim->gfx->ledger;

    gfx_clear(sim);
    *sim->gfx = (struct gfx){.ledger = ledger};
    for (u32 i = 0; i < CP_QUEUES; i++)
        sim->gfx->queue[i].number = i;
    sim->reg[R_CP_MEC_RS64_CNTL] = CP_MEC_RS64_CNTL__MEC_HALT;
}

/* ---- RLC ---- */

static void rlc_up(struct sim *sim, u64 argument)
{
    (void)argument;
    sim->gfx->rlc = RLC_UP;
}

void gfx_autoload(struct sim *sim)
{
    sim->gfx->rlc = RLC_BOOTING;
    sim_at(sim, sim_after(sim, RLC_BOOT_NS), rlc_up, 0);
}

static void safe_mode_done(struct sim *sim, u64 argument)
{
    (void)argument;
    sim->reg[R_RLC_SAFE_MODE] &= ~RLC_SAFE_MODE__CMD;
}

/* ---- the MEC's firmware ---- */

bool pipe_running(const struct sim *sim, u32 pipe)
{
    const struct pipe *p = &sim->gfx->pipe[pipe];

    return p->up_ns && sim->now_ns >= p->up_ns && !p->wedged;
}

static bool pipe_start(struct sim *sim, u32 number)
{
    struct pipe *pipe = &sim->gfx->pipe[number];
    u64 start = ((u64)pipe->start_hi << 32 | pipe->start_lo) << 2;

    if (!psp_has(sim, PSP_FW_MEC) || !psp_has(sim, PSP_FW_MEC_STACK))
        return sim_fail(sim, "mec-without-firmware", "pipe %u activated, MEC not loaded", number);
    if (start != sim->profile->mec_start)
        return sim_fail(sim, "mec-start", "pipe %u: PRGRM_CNTR_START is %llx, the firmware's %llx",
                        number, (unsigned long long)start,
                        (unsigned long long)sim->profile->mec_start);
    if (!pipe->reset_seen)
        return sim_fail(sim, "mec-not-reset",
                        "pipe %u activated, not reset since its start was set", number);
    pipe->up_ns = sim_after(sim, MEC_START_NS);
    return true;
}

static void mec_control(struct sim *sim, u32 value)
{
    u32 old = sim->reg[R_CP_MEC_RS64_CNTL];

    sim->reg[R_CP_MEC_RS64_CNTL] = value;
    for (u32 i = 0; i < CP_PIPES; i++) {
        struct pipe *pipe = &sim->gfx->pipe[i];
        u32 reset = 1u << (PIPE_RESET_BIT + i);
        bool on = value & 1u << (PIPE_ACTIVE_BIT + i) && !(value & reset) &&
                  !(value & CP_MEC_RS64_CNTL__MEC_HALT);
        if (value & reset)
            pipe->up_ns = 0;
        pipe->reset_seen |= old & reset && !(value & reset);
        if (on && !pipe->up_ns && !pipe_start(sim, i))
            return;
        if (!on)
            pipe->up_ns = 0;
    }
}

/* ---- queues by GRBM_GFX_CNTL ---- */

static u32 hqd_index(const struct sim *sim, enum reg reg)
{
    return reg_address(sim, reg) - reg_address(sim, R_CP_MQD_BASE_ADDR);
}

static u32 sh_index(const struct sim *sim, enum reg reg)
{
    return reg_address(sim, reg) - reg_address(sim, R_COMPUTE_DISPATCH_INITIATOR);
}

u32 hqd_word(const struct sim *sim, const struct queue *queue, enum reg reg)
{
    return queue->hqd[hqd_index(sim, reg)];
}

u32 sh_word(const struct sim *sim, const struct queue *queue, enum reg reg)
{
    return queue->sh[sh_index(sim, reg)];
}

struct client queue_client(const struct sim *sim, const struct queue *queue)
{
    return (struct client){UNIT_CP, (u8)(hqd_word(sim, queue, R_CP_HQD_VMID) % SIM_VMIDS), 0,
                           false};
}

/* NULL: none is selected, a finding. */
static struct queue *queue_selected(struct sim *sim, enum reg reg)
{
    u32 select = sim->reg[R_GRBM_GFX_CNTL];
    u32 pipe = field(select, GRBM_GFX_CNTL__PIPEID);
    u32 queue = field(select, GRBM_GFX_CNTL__QUEUEID);

    if (field(select, GRBM_GFX_CNTL__MEID) == ME_MEC1 && queue < CP_PIPE_QUEUES)
        return &sim->gfx->queue[pipe * CP_PIPE_QUEUES + queue];
    sim_fail(sim, "grbm-no-queue", "%s with GRBM_GFX_CNTL %x: no compute queue", reg_name(reg),
             select);
    return NULL;
}

static void dequeued(struct sim *sim, u64 argument)
{
    struct queue *queue = &sim->gfx->queue[argument];
    u32 *request = &queue->hqd[hqd_index(sim, R_CP_HQD_DEQUEUE_REQUEST)];

    if (queue->active && *request) /* no reset came between */
        queue_stop(sim, queue);
    *request = 0;
}

/* 1 waits for its waves, 2 resets them. A queue that died leaves, its pipe stays as it is. */
static void dequeue(struct sim *sim, struct queue *queue, u32 request)
{
    if (queue->active && (request != 1 || !queue->stuck))
        sim_at(sim, sim_after(sim, DEQUEUE_NS), dequeued, queue->number);
}

static bool hqd_write(struct sim *sim, struct queue *queue, enum reg reg, u32 value)
{
    u32 index = hqd_index(sim, reg);

    if (reg == R_CP_HQD_ACTIVE && value & CP_HQD_ACTIVE__ACTIVE)
        return queue_start(sim, queue);
    if (queue->active && reg != R_CP_HQD_DEQUEUE_REQUEST)
        return sim_fail(sim, "hqd-live", "queue %u is active, %s written", queue->number,
                        reg_name(reg));
    queue->hqd[index] = value;
    if (reg == R_CP_HQD_DEQUEUE_REQUEST && value)
        dequeue(sim, queue, value);
    return true;
}

static u32 hqd_read(const struct sim *sim, const struct queue *queue, enum reg reg)
{
    u32 ring = queue->active ? queue_ring_words(sim, queue) : 0;

    if (reg == R_CP_HQD_ACTIVE)
        return queue->active;
    if (queue->active && reg == R_CP_HQD_PQ_RPTR)
        return (u32)(queue->rptr % ring);
    if (queue->active && reg == R_CP_HQD_PQ_WPTR_LO)
        return (u32)queue->wptr;
    if (queue->active && reg == R_CP_HQD_PQ_WPTR_HI)
        return (u32)(queue->wptr >> 32);
    return hqd_word(sim, queue, reg);
}

/* ---- waves, by GRBM_GFX_INDEX and SQ_IND_INDEX ---- */

static u32 wave_word(const struct compute_wave *wave, u32 violation, u32 what)
{
    switch (what) {
    case SQ_WAVE_STATUS:
        return SQ_STATUS_VALID | (wave->halted ? SQ_STATUS_FATAL_HALT : 0);
    case SQ_WAVE_TRAPSTS:
        return wave->halted ? violation : 0;
    case SQ_WAVE_PC_LO:
        return (u32)wave->pc;
    case SQ_WAVE_PC_HI:
        return (u32)(wave->pc >> 32);
    default:
        return 0;
    }
}

/* INSTANCE is the SIMD of a WGP of the shader array; waves take the SIMDs in turn. */
static u32 wave_read(struct sim *sim)
{
    u32 unit = sim->reg[R_GRBM_GFX_INDEX], index = sim->reg[R_SQ_IND_INDEX];
    u32 broadcast = GRBM_GFX_INDEX__SE_BROADCAST_WRITES | GRBM_GFX_INDEX__SA_BROADCAST_WRITES |
                    GRBM_GFX_INDEX__INSTANCE_BROADCAST_WRITES;
    u32 sa = field(unit, GRBM_GFX_INDEX__SE_INDEX) * sim->profile->sa_per_se +
             field(unit, GRBM_GFX_INDEX__SA_INDEX);
    u32 instance = field(unit, GRBM_GFX_INDEX__INSTANCE_INDEX);
    u32 wgp = sa * sim->profile->wgp_per_sa + instance / WGP_SIMDS;
    u32 nth = field(index, SQ_IND_INDEX__WAVE_ID) * WGP_SIMDS + instance % WGP_SIMDS;
    struct compute_wave wave;

    if (unit & broadcast || field(unit, GRBM_GFX_INDEX__SA_INDEX) >= sim->profile->sa_per_se ||
        instance / WGP_SIMDS >= sim->profile->wgp_per_sa || wgp >= profile_wgps(sim->profile))
        sim_fail(sim, "sq-no-simd", "SQ_IND_DATA with GRBM_GFX_INDEX %x: no SIMD", unit);
    for (u32 i = 0; i < CP_QUEUES; i++) {
        const struct compute *compute = sim->gfx->queue[i].compute;
        if (!compute || !compute_wave(compute, wgp, nth, &wave))
            continue;
        bool illegal = compute_failure(compute)->kind == COMPUTE_ILLEGAL;
        return wave_word(&wave, illegal ? SQ_TRAP_ILLEGAL : SQ_TRAP_VIOLATION,
                         field(index, SQ_IND_INDEX__INDEX));
    }
    return 0;
}

/* ---- GRBM_SOFT_RESET ---- */

static void soft_reset(struct sim *sim, u32 value)
{
    u32 old = sim->reg[R_GRBM_SOFT_RESET], rising = value & ~old;
    u32 cp = GRBM_SOFT_RESET__SOFT_RESET_CP | GRBM_SOFT_RESET__SOFT_RESET_CPC;

    sim->reg[R_GRBM_SOFT_RESET] = value;
    if (rising & GRBM_SOFT_RESET__SOFT_RESET_SDMA0)
        sdma_reset(sim);
    if ((value & cp) != cp || !(rising & cp))
        return;
    for (u32 i = 0; i < CP_QUEUES; i++) {
        queue_stop(sim, &sim->gfx->queue[i]);
        memset(sim->gfx->queue[i].hqd, 0, sizeof(sim->gfx->queue[i].hqd));
    }
    memset(sim->gfx->pipe, 0, sizeof(sim->gfx->pipe));
    sim->reg[R_CP_MEC_RS64_CNTL] = CP_MEC_RS64_CNTL__MEC_HALT;
}

/* ---- registers ---- */

static bool busy(const struct sim *sim)
{
    for (u32 i = 0; i < CP_QUEUES; i++) {
        const struct queue *queue = &sim->gfx->queue[i];
        if (queue->active &&
            (queue->stuck || queue->rptr != queue->wptr || queue->depth || !queue_drained(queue)))
            return true;
    }
    return false;
}

static bool is_hqd(const struct sim *sim, enum reg reg)
{
    return hqd_index(sim, reg) < HQD_WORDS;
}

bool gfx_read(struct sim *sim, enum reg reg, u32 *value)
{
    struct gfx *gfx = sim->gfx;
    u32 vmid = field(sim->reg[R_GRBM_GFX_CNTL], GRBM_GFX_CNTL__VMID);

    if (is_hqd(sim, reg)) {
        const struct queue *queue = queue_selected(sim, reg);
        *value = queue ? hqd_read(sim, queue, reg) : 0;
        return true;
    }
    if (sh_index(sim, reg) < SH_WORDS) {
        const struct queue *queue = queue_selected(sim, reg);
        *value = queue ? sh_word(sim, queue, reg) : 0;
        return true;
    }
    switch (reg) {
    case R_CP_STAT:
        *value = gfx->rlc != RLC_UP || busy(sim) ? CP_STAT_BOOTING : 0;
        return true;
    case R_GRBM_STATUS:
        *value = busy(sim) ? GRBM_STATUS__GUI_ACTIVE : 0;
        return true;
    case R_RLC_RLCS_BOOTLOAD_STATUS:
        *value = gfx->rlc == RLC_UP ? RLC_RLCS_BOOTLOAD_STATUS__BOOTLOAD_COMPLETE : 0;
        return true;
    case R_SQ_IND_DATA:
        *value = wave_read(sim);
        return true;
    case R_SH_MEM_CONFIG:
        *value = gfx->sh_mem_config[vmid];
        return true;
    case R_SH_MEM_BASES:
        *value = gfx->sh_mem_bases[vmid];
        return true;
    default:
        return false;
    }
}

/* What only works once the RLC is up; the scratch registers are the exception. */
static bool too_early(struct sim *sim, enum reg reg)
{
    if (sim->gfx->rlc == RLC_UP || reg == R_SCRATCH_REG6 || reg == R_SCRATCH_REG7)
        return false;
    if (sim->gfx->rlc == RLC_BOOTING && sim_excepted(sim, EXCEPT_EARLY_GC))
        return false;
    sim_fail(sim, "gc-before-rlc", "%s written before the RLC's autoload is complete",
             reg_name(reg));
    return true;
}

static bool pipe_write(struct sim *sim, enum reg reg, u32 value)
{
    u32 select = sim->reg[R_GRBM_GFX_CNTL];
    struct pipe *pipe = &sim->gfx->pipe[field(select, GRBM_GFX_CNTL__PIPEID)];

    if (field(select, GRBM_GFX_CNTL__MEID) != ME_MEC1)
        return sim_fail(sim, "grbm-no-pipe", "%s with GRBM_GFX_CNTL %x: no pipe of the MEC",
                        reg_name(reg), select);
    *(reg == R_CP_MEC_RS64_PRGRM_CNTR_START ? &pipe->start_lo : &pipe->start_hi) = value;
    pipe->reset_seen = false;
    return true;
}

bool gfx_write(struct sim *sim, enum reg reg, u32 value)
{
    struct gfx *gfx = sim->gfx;
    u32 vmid = field(sim->reg[R_GRBM_GFX_CNTL], GRBM_GFX_CNTL__VMID);

    if (too_early(sim, reg))
        return true;
    if (is_hqd(sim, reg) || sh_index(sim, reg) < SH_WORDS) {
        struct queue *queue = queue_selected(sim, reg);
        if (queue && is_hqd(sim, reg))
            hqd_write(sim, queue, reg, value);
        else if (queue)
            queue->sh[sh_index(sim, reg)] = value;
        return true;
    }
    switch (reg) {
    case R_SH_MEM_CONFIG:
        gfx->sh_mem_config[vmid] = value;
        return true;
    case R_SH_MEM_BASES:
        gfx->sh_mem_bases[vmid] = value;
        return true;
    case R_CP_MEC_RS64_PRGRM_CNTR_START:
    case R_CP_MEC_RS64_PRGRM_CNTR_START_HI:
        pipe_write(sim, reg, value);
        return true;
    case R_CP_MEC_RS64_CNTL:
        mec_control(sim, value);
        return true;
    case R_GRBM_SOFT_RESET:
        soft_reset(sim, value);
        return true;
    case R_RLC_SAFE_MODE:
        sim->reg[reg] = value;
        if (value & RLC_SAFE_MODE__CMD && sim->reg[R_RLC_CNTL] & 1)
            sim_at(sim, sim_after(sim, RLC_SAFE_NS), safe_mode_done, 0);
        return true;
    default:
        return false;
    }
}

bool gfx_write_unnamed(struct sim *sim, u32 dword_address, u32 value)
{
    u32 hqd = dword_address - reg_address(sim, R_CP_MQD_BASE_ADDR);
    u32 sh = dword_address - reg_address(sim, R_COMPUTE_DISPATCH_INITIATOR);
    struct queue *queue;

    if (sh < SH_WORDS) {
        queue = queue_selected(sim, R_COMPUTE_USER_DATA_0);
        if (queue)
            queue->sh[sh] = value;
        return true;
    }
    /* One word between DOORBELL_CONTROL and PQ_CONTROL has no name, and is written in a row. */
    return hqd == hqd_index(sim, R_CP_HQD_PQ_CONTROL) - 1 && sim_excepted(sim, EXCEPT_MQD_HOLE);
}

/* ---- doorbells, and the turn of each queue ---- */

void gfx_doorbell(struct sim *sim, u64 offset, u64 value, u32 width)
{
    u32 mask = CP_HQD_PQ_DOORBELL_CONTROL__DOORBELL_OFFSET;
    u32 lower = sim->reg[R_CP_MEC_DOORBELL_RANGE_LOWER];
    u32 upper = sim->reg[R_CP_MEC_DOORBELL_RANGE_UPPER];

    if (width != 8 || offset < lower || offset > upper) {
        sim_fail(sim, "doorbell-range", "%u bytes at %llx, the MEC takes 8 from %x to %x", width,
                 (unsigned long long)offset, lower, upper);
        return;
    }
    for (u32 i = 0; i < CP_QUEUES; i++) {
        struct queue *queue = &sim->gfx->queue[i];
        u32 *control = &queue->hqd[hqd_index(sim, R_CP_HQD_PQ_DOORBELL_CONTROL)];
        if (!queue->active || (*control & mask) != offset)
            continue;
        *control |= CP_HQD_PQ_DOORBELL_CONTROL__DOORBELL_HIT;
        if (value < queue->wptr || value - queue->rptr > queue_ring_words(sim, queue))
            sim_fail(sim, "ring-overrun", "queue %u: doorbell %llx, wptr %llx, rptr %llx, ring %x",
                     i, (unsigned long long)value, (unsigned long long)queue->wptr,
                     (unsigned long long)queue->rptr, queue_ring_words(sim, queue));
        queue->wptr = value;
        return;
    }
    sim_fail(sim, "doorbell-unclaimed", "%llx: no active queue has that doorbell",
             (unsigned long long)offset);
}

bool gfx_step(struct sim *sim, u64 budget)
{
    bool more = false;

    for (u32 i = 0; i < CP_QUEUES && !sim->stopped; i++) {
        struct queue *queue = &sim->gfx->queue[i];
        if (queue->active && !queue->stuck && pipe_running(sim, i / CP_PIPE_QUEUES))
            more |= queue_step(sim, queue, budget);
    }
    return more;
}
