/*
 * device.c: one card from cold silicon to READY as a table of named steps, turned by the event
 * loop; then its life: faults, hangs, recovery (the queues alone, the whole card, dead), at most
 * three tries in ten minutes. Must not know how a block is driven. The order of the steps follows
 * Linux 6.12 soc21.c, amdgpu_device.c and a register trace of tinygrad's driver (docs/GPU.md).
 */
#include "amdgpu/priv.h"

#define HANG_MS_DEFAULT 30000u
#define LOOK_NS         (200 * NS_PER_MS) /* at the interrupt ring while work takes long */
#define FIRST_WORK_MS   2000u
#define FAULT_LINES     8u
#define REGISTERS_MIN   0x80000u /* bytes of BAR 5 that name all but the indexed ones */
/* The card's scratch registers say who drove it last, and whether it still does. */
#define MARK_OURS    0x4e4f4831u
#define MARK_RUNNING 1u

static err find_state(struct gpu *gpu);
static err start_queues(struct gpu *gpu);
static err first_work(struct gpu *gpu);

enum { FULL = 1, PART = 2, FINAL = 4 }; /* only from cold; only with queues; no second try */

static const struct step {
    const char *name;
    err (*run)(struct gpu *gpu);
    u32 when;
} steps[] = {
    {"waiting for the card's own firmware", ip_wake, 0},
    {"discovery table", ip_discover, 0},
    {"firmware files", firmware_split, FINAL},
    {"state of the card", find_state, 0},
    {"mode 1 reset", smu_mode1, 0},
    {"bus interface", gmc_soc_start, 0},
    {"page tables", memory_start, 0},
    {"memory hub", gmc_mmhub_start, FULL},
    {"interrupt ring", ih_start, 0},
    {"secure processor: boot", psp_load_system, FULL},
    {"secure processor: ring", psp_ring_start, FULL},
    {"secure processor: table of contents", psp_load_toc, FULL},
    {"secure processor: power controller's firmware", psp_load_first, FULL},
    {"secure processor: trusted memory", psp_setup_tmr, FULL},
    {"secure processor: firmware", psp_load_all, FULL},
    {"secure processor: autoload", psp_autoload, FULL},
    {"power controller", smu_enable, FULL},
#define STEP_QUEUES 17u
    {"compute: stop", gfx_stop, PART},
    {"copy: stop", sdma_stop, PART},
    {"run list controller", gfx_wait_rlc, 0},
    {"graphics hub", gmc_gchub_start, 0},
    {"compute: start", gfx_start, 0},
    {"compute: settle", gfx_enable, 0},
    {"copy: start", sdma_start, 0},
    {"clocks", smu_clocks, FULL},
    {"clock gates", gfx_clock_gating, 0},
    {"scratch memory", list_scratch_start, 0},
    {"queues", start_queues, 0},
    {"first work", first_work, 0},
};

/* ---- waits ---- */

err gpu_await(struct gpu *gpu, bool done, u32 timeout_ms)
{
    if (!done && !gpu->wait_end_ns)
        gpu->wait_end_ns = time_ns() + timeout_ms * NS_PER_MS;
    if (!done && time_ns() < gpu->wait_end_ns && !gpu->gone)
        return E_BUSY;
    gpu->wait_end_ns = 0;
    return done ? OK : E_TIMEOUT;
}

err gpu_pause(struct gpu *gpu, u32 ms)
{
    err e = gpu_await(gpu, false, ms);

    return e == E_TIMEOUT ? OK : e;
}

/* ---- steps of this file ---- */

/* Registers of the graphics core are only there once firmware runs, so the first question is
 * whether the secure processor lives. Cold: full start. Ours and closed well: the queues alone.
 * Anything else: a reset first, if the power controller answers. */
static err find_state(struct gpu *gpu)
{
    gpu->partial = false;
    if (gpu->sub == 0 && !psp_alive(gpu)) {
        log_info(gpu->name, "the card is cold");
        return OK;
    }
    if (gpu->was_reset) {
        log_error(gpu->name, "mode 1 reset: want the secure processor silent, saw it alive");
        return E_DEVICE;
    }
    if (gpu->sub == 0) {
        gpu->partial = gpu->state == GPU_STARTING && !gpu->config.cold &&
                       ip_read(gpu, R_SCRATCH_REG7) == MARK_OURS &&
                       ip_read(gpu, R_SCRATCH_REG6) != MARK_RUNNING &&
                       !ip_read(gpu, R_GCVM_L2_PROTECTION_FAULT_STATUS);
        if (gpu->partial) {
            log_info(gpu->name, "the card is warm: the queues alone are started");
            return OK;
        }
        gpu->sub++;
    }
    err e = smu_hello(gpu);
    if (e == E_BUSY)
        return e;
    gpu->reset_wanted = e == OK;
    log_info(gpu->name, "the card was in use; its power controller is %s",
             e == OK ? "asked for a reset" : "silent, so it is started as if cold");
    return OK;
}

static err start_queues(struct gpu *gpu)
{
    ring_reset(gpu);
    gpu->faults = 0;
    TRY(gfx_queue_start(gpu));
    return sdma_queue_start(gpu);
}

/* READY means that both queues have answered. */
static err first_work(struct gpu *gpu)
{
    u64 fence;

    if (gpu->sub == 0) {
        TRY(list_send(gpu, NULL, &fence));
        TRY(sdma_send(gpu, (gpuva){0}, (gpuva){0}, 0, &fence));
        gpu->sub++;
    }
    ring_look(gpu);
    bool done = ring_idle(&gpu->ring[RING_COMPUTE]) && ring_idle(&gpu->ring[RING_SDMA]);
    err e = gpu_await(gpu, done, FIRST_WORK_MS);
    if (e == E_TIMEOUT) {
        ih_drain(gpu);
        log_error(gpu->name, "first work: want both fences, saw compute %s, copy %s",
                  ring_idle(&gpu->ring[RING_COMPUTE]) ? "passed" : "missing",
                  ring_idle(&gpu->ring[RING_SDMA]) ? "passed" : "missing");
    }
    return e;
}

/* ---- where the table goes on ---- */

static void interrupted(void *ctx)
{
    struct gpu *gpu = ctx;

    __atomic_store_n(&gpu->irq, true, __ATOMIC_RELEASE);
}

/* What the function needs of the bus; a reset takes it away. */
static void take_bus(struct gpu *gpu)
{
    pci_restore(gpu->dev);
    pci_enable(gpu->dev, true);
    gpu->irq_on = pci_vector_on(gpu->dev, 0, interrupted, gpu) == OK;
}

static void go_to(struct gpu *gpu, u32 step)
{
    gpu->step = step;
    gpu->step_ns = time_ns();
    gpu->sub = 0;
    gpu->wait_end_ns = 0;
    gpu->psp_fence = 0;
    gpu->smu_sent = false;
}

static void die(struct gpu *gpu)
{
    log_error(gpu->name, "dead: %s", gpu->reason);
    ring_drop(gpu);
    gpu->state = GPU_DEAD;
    pci_enable(gpu->dev, false);
}

static bool tries_left(struct gpu *gpu)
{
    u64 oldest = gpu->try_ns[0];

    if (oldest && time_ns() - oldest < TRIES_NS)
        return false;
    memmove(gpu->try_ns, gpu->try_ns + 1, sizeof(gpu->try_ns) - sizeof(gpu->try_ns[0]));
    gpu->try_ns[TRIES_MAX - 1] = time_ns();
    return true;
}

/* The queues alone keep VRAM; when that has just failed, everything again. */
static void recover(struct gpu *gpu, bool whole)
{
    bool was_ready = gpu->state == GPU_READY;

    if (gpu->gone || !tries_left(gpu)) {
        die(gpu);
        return;
    }
    if (whole && gpu->state != GPU_STARTING)
        gpu->vram_losses++;
    if (gpu->state != GPU_STARTING)
        gpu->state = GPU_RECOVERING;
    gpu->recoveries++;
    gpu->partial = !whole;
    gpu->reset_wanted = gpu->was_reset = false;
    gpu->start_ns = time_ns();
    go_to(gpu, whole ? 0 : STEP_QUEUES);
    if (whole) {
        gpu->tables_on = false;
        ip_start(gpu);
    }
    ring_drop(gpu);
    log_warn(gpu->name, "%s%s", was_ready ? "recovery of " : "another try with ",
             whole ? "the whole card" : "the queues");
}

static void step_failed(struct gpu *gpu, const struct step *step, err e)
{
    struct text reason = TEXT_ON(gpu->reason);

    if (gpu->gone)
        text_fmt(&reason, "%s: the card is off the bus%c", step->name, 0);
    else
        text_fmt(&reason, "%s: %s%c", step->name, err_text(e), 0);
    gpu->reason[REASON_BYTES - 1] = 0;
    log_error(gpu->name, "%s", gpu->reason);
    if (step->when & FINAL || e == E_UNSUPPORTED)
        die(gpu);
    else
        recover(gpu, true);
}

static void ready(struct gpu *gpu)
{
    ip_write(gpu, R_SCRATCH_REG7, MARK_OURS);
    ip_write(gpu, R_SCRATCH_REG6, MARK_RUNNING);
    gpu->state = GPU_READY;
    gpu->start_reset = gpu->was_reset;
    gpu->start_ms = (u32)((time_ns() - gpu->start_ns) / NS_PER_MS);
    gpu->was_reset = false;
    log_info(gpu->name, "ready after %u ms, %lu MiB of VRAM free", gpu->start_ms,
             memory_free(gpu) / MIB);
}

static void turn_step(struct gpu *gpu)
{
    const struct step *step = &steps[gpu->step];

    if (step->when & (gpu->partial ? FULL : PART)) {
        go_to(gpu, gpu->step + 1);
        return;
    }
    err e = step->run(gpu);
    if (e == E_BUSY)
        return;
    if (e == E_STATE) { /* a reset: from the beginning */
        take_bus(gpu);
        go_to(gpu, 0);
    } else if (e != OK) {
        step_failed(gpu, step, e);
    } else {
        log_info(gpu->name, "%s: %llu us", step->name, (time_ns() - gpu->step_ns) / NS_PER_US);
        if (gpu->step + 1 == ARRAY_LEN(steps))
            ready(gpu);
        else
            go_to(gpu, gpu->step + 1);
    }
}

/* ---- life ---- */

void gpu_fault(struct gpu *gpu, const char *format, ...)
{
    char bytes[LOG_LINE_MAX];
    struct text line = TEXT_ON(bytes);
    va_list args;

    if (!gpu->faults && gpu->state == GPU_READY && !ring_idle(&gpu->ring[RING_COMPUTE]))
        list_describe(gpu, gfx_wave_pc(gpu), &line);
    va_start(args, format);
    text_vfmt(&line, format, args);
    va_end(args);
    if (gpu->faults++ < FAULT_LINES)
        log_error(gpu->name, "%.*s", (int)line.len, line.ptr);
    if (gpu->faults > 1)
        return;
    usize len = min_u64(line.len, REASON_BYTES - 1);
    memcpy(gpu->reason, line.ptr, len);
    gpu->reason[len] = 0;
}

static void look_for_hang(struct gpu *gpu)
{
    u64 limit_ns = (gpu->config.hang_ms ? gpu->config.hang_ms : HANG_MS_DEFAULT) * NS_PER_MS;

    for (u32 i = 0; i < RINGS; i++) {
        const struct ring *ring = &gpu->ring[i];
        if (!ring_idle(ring) && time_ns() - ring->progress_ns >= limit_ns)
            gpu_fault(gpu, "%s queue hangs: want fence %lx, saw %lx", ring->name,
                      ring->pending[ring->first].fence >> 1, ring->queue->fence);
    }
}

static void live(struct gpu *gpu)
{
    ring_look(gpu);
    bool busy = !ring_idle(&gpu->ring[RING_COMPUTE]) || !ring_idle(&gpu->ring[RING_SDMA]);
    if (__atomic_exchange_n(&gpu->irq, false, __ATOMIC_ACQUIRE) ||
        (busy && time_ns() - gpu->ih_look_ns > LOOK_NS))
        ih_drain(gpu);
    smu_measure(gpu);
    look_for_hang(gpu);
    if (gpu->gone)
        gpu_fault(gpu, "the card is off the bus");
    if (!gpu->faults)
        return;
    char bytes[LOG_LINE_MAX];
    struct text state = TEXT_ON(bytes);
    gfx_describe(gpu, &state);
    log_error(gpu->name, "in %.*s", (int)state.len, state.ptr);
    recover(gpu, false);
}

bool gpu_step(struct gpu *gpu)
{
    if (gpu->state == GPU_READY)
        live(gpu);
    else if (gpu->state != GPU_DEAD)
        turn_step(gpu);
    return gpu->state != GPU_DEAD && (gpu->state != GPU_READY || gpu->irq || gpu->smu_sent);
}

bool gpu_called(const struct gpu *gpu)
{
    bool busy = !ring_idle(&gpu->ring[RING_COMPUTE]) || !ring_idle(&gpu->ring[RING_SDMA]);

    return __atomic_load_n(&gpu->irq, __ATOMIC_ACQUIRE) || (busy && !gpu->irq_on);
}

void gpu_status(struct gpu *gpu, struct gpu_status *status)
{
    const struct smu_metrics *m = &gpu->metrics;

    gpu->metrics_wanted = gpu->state == GPU_READY;
    *status = (struct gpu_status){
        .state = gpu->state,
        .step = gpu->state == GPU_READY  ? "ready"
                : gpu->state == GPU_DEAD ? "dead"
                                         : steps[gpu->step].name,
        .reason = gpu->reason,
        .vram_losses = gpu->vram_losses,
        .recoveries = gpu->recoveries,
        .vram_bytes = gpu->vram_bytes,
        .vram_free = memory_free(gpu),
        .cu_count = gpu->cu_count,
        .celsius = m->celsius[0],
        .hotspot_celsius = m->celsius[1],
        .watts = m->board_w ? m->board_w : m->socket_w,
        .gfx_mhz = m->clock_mhz[SMU_GFXCLK],
        .memory_mhz = m->clock_mhz[SMU_UCLK],
    };
}

/* ---- taking and leaving ---- */

err gpu_open(struct gpu **out, struct pci_bus *bus, struct pci_dev *dev,
             const struct gpu_config *config)
{
    struct gpu *gpu = pages_alloc(sizeof(*gpu));

    if (!gpu)
        return E_NOMEM;
    gpu->name = dev->name;
    gpu->dev = dev;
    gpu->config = *config;
    if (pci_resize_bar(bus, dev, 0) != OK)
        log_warn(gpu->name, "BAR 0 stays at %lu MiB: uploads take a detour",
                 dev->bar[0].bytes / MIB);
    TRY(pci_map_bar(dev, 0, &gpu->vram));
    TRY(pci_map_bar(dev, 2, &gpu->doorbell));
    TRY(pci_map_bar(dev, 5, &gpu->regs));
    if (gpu->regs.bytes < REGISTERS_MIN || gpu->doorbell.bytes < 4096) {
        log_error(gpu->name, "want %u bytes of registers and 4096 of doorbells, saw %lu and %lu",
                  REGISTERS_MIN, gpu->regs.bytes, gpu->doorbell.bytes);
        return E_NOTFOUND;
    }
    take_bus(gpu);
    ip_start(gpu);
    gpu->start_ns = gpu->step_ns = time_ns();
    TRY(ring_open(gpu));
    *out = gpu;
    return OK;
}

void gpu_close(struct gpu *gpu)
{
    if (gpu->state != GPU_READY)
        return;
    gfx_dequeue(gpu);
    sdma_dequeue(gpu);
    ip_write(gpu, R_SCRATCH_REG6, 0);
    gpu->state = GPU_DEAD;
    pci_enable(gpu->dev, false);
}
