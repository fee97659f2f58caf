/*
 * smu.c: the power controller (MP1): one mailbox for messages, one of its debug kind for resets;
 * features, clocks, power cap, measurements, and the reset of the whole card. GFXOFF is never
 * allowed. Must not know who reads the measurements. Follows: Linux 6.12 smu_cmn.c,
 * smu_v13_0_0_ppt.c, smu_v13_0_0_ppsmc.h, smu13_driver_if_v13_0_0.h.
 */
#include "amdgpu/priv.h"

#define ANSWER_MS    10000u
#define HELLO_MS     100u
#define MEASURE_MS   100u
#define MEASURE_NS   NS_PER_S
#define SOFT_MS      20u /* setting a lowest clock may go unanswered */
#define RESET_ASK_MS 200u
#define RESET_MS     1000u /* Linux 500 or 1000 */
#define LEVELS_MAX   64u

static const struct mailbox {
    u16 message, argument, answer;
} mailbox = {R_MP1_SMN_C2PMSG_66, R_MP1_SMN_C2PMSG_82, R_MP1_SMN_C2PMSG_90},
  debug_mailbox = {R_MP1_SMN_C2PMSG_75, R_MP1_SMN_C2PMSG_53, R_MP1_SMN_C2PMSG_54};

static const char *answer_text(u32 answer)
{
    static const char *const text[] = {"busy", "something must come before", "unknown message",
                                       "failed"};

    return answer >= SMU_BUSY && answer <= SMU_FAILED ? text[answer - SMU_BUSY] : "no answer";
}

/* One message, over as many turns as it takes: OK, E_BUSY, E_TIMEOUT or E_DEVICE, not logged. */
static err ask(struct gpu *gpu, const struct mailbox *box, u32 message, u32 argument, u32 wait_ms)
{
    if (!gpu->smu_sent) {
        ip_write(gpu, (enum reg)box->answer, 0);
        ip_write(gpu, (enum reg)box->argument, argument);
        ip_write(gpu, (enum reg)box->message, message);
        gpu->smu_sent = true;
    }
    gpu->smu_answer = ip_read(gpu, (enum reg)box->answer);
    bool done = gpu->smu_answer && gpu->smu_answer != UINT32_MAX;
    err e = gpu_await(gpu, done, wait_ms);
    if (e != E_BUSY)
        gpu->smu_sent = false;
    return e == OK && gpu->smu_answer != SMU_OK ? E_DEVICE : e;
}

err smu_ask(struct gpu *gpu, enum smu_message message, u32 argument, u32 *answer)
{
    err e = ask(gpu, &mailbox, message, argument, ANSWER_MS);

    if (e == OK && answer)
        *answer = ip_read(gpu, (enum reg)mailbox.argument);
    if (e != OK && e != E_BUSY)
        log_error(gpu->name, "smu: message %x (%x): want answer 1, saw %x: %s", message, argument,
                  gpu->smu_answer, answer_text(gpu->smu_answer));
    return e;
}

/* ---- features, clocks, power ---- */

err smu_enable(struct gpu *gpu)
{
    u64 table = gpu->fb_base + BOOT_SMU_TABLE;
    const struct {
        enum smu_message message;
        u32 argument;
    } rows[] = {{SMU_GET_VERSION, 0},
                {SMU_TABLE_HIGH, high32(table)},
                {SMU_TABLE_LOW, low32(table)},
                {SMU_ENABLE_ALL, 0}};
    u32 answer;

    TRY(smu_ask(gpu, rows[gpu->sub].message, rows[gpu->sub].argument, &answer));
    if (gpu->sub == 0)
        log_info(gpu->name, "smu: firmware %u.%u.%u", answer >> 16 & 255, answer >> 8 & 255,
                 answer & 255);
    return ++gpu->sub == ARRAY_LEN(rows) ? OK : E_BUSY;
}

static const u8 clocks[CLOCKS] = {SMU_UCLK, SMU_FCLK, SMU_SOCCLK, SMU_GFXCLK};

/* Four questions and settings for each clock: how many levels, the last one, lowest = highest =
 * that. Under a power cap the whole range is left to the controller. */
static err set_clock(struct gpu *gpu, u32 clock, u32 phase)
{
    u32 *top = &gpu->clock_top[clock], id = (u32)clocks[clock] << 16;
    bool capped = gpu->config.power_cap_w;

    switch (phase) {
    case 0:
        TRY(smu_ask(gpu, SMU_GET_DPM, id | SMU_DPM_COUNT, top));
        *top &= INT32_MAX;
        if (*top && *top <= LEVELS_MAX)
            return OK;
        log_error(gpu->name, "smu: clock %u: want 1 to %u levels, saw %x", clocks[clock],
                  LEVELS_MAX, *top);
        return E_DEVICE;
    case 1:
        TRY(smu_ask(gpu, SMU_GET_DPM, id | (*top - 1), &gpu->smu_answer));
        *top = gpu->smu_answer & 0xffff;
        return OK;
    case 2: {
        err e = ask(gpu, &mailbox, SMU_SOFT_MIN, id | (capped ? 0 : *top), SOFT_MS);
        return e == E_TIMEOUT ? OK : e;
    }
    default:
        return smu_ask(gpu, SMU_SOFT_MAX, id | (capped ? 0xffff : *top), NULL);
    }
}

err smu_clocks(struct gpu *gpu)
{
    u32 phases = 4 * CLOCKS;

    if (gpu->sub < phases) {
        TRY(set_clock(gpu, gpu->sub / 4, gpu->sub % 4));
    } else {
        err e =
            gpu->config.power_cap_w ? smu_ask(gpu, SMU_SET_PPT, gpu->config.power_cap_w, NULL) : OK;
        if (e == E_BUSY || e == E_TIMEOUT)
            return e;
        if (e != OK)
            log_error(gpu->name, "power_cap_w = %u: the card refuses it, its board's cap stands",
                      gpu->config.power_cap_w);
        log_info(gpu->name, "smu: up to %u MHz shaders, %u MHz memory, power cap %u W (0: none)",
                 gpu->clock_top[3], gpu->clock_top[0], gpu->config.power_cap_w);
    }
    return gpu->sub++ == phases ? OK : E_BUSY;
}

/* ---- measurements ---- */

void smu_measure(struct gpu *gpu)
{
    if (!gpu->smu_sent && (!gpu->metrics_wanted || time_ns() - gpu->metrics_ns < MEASURE_NS))
        return;
    err e = ask(gpu, &mailbox, SMU_TABLE_TO_DRAM, SMU_TABLE_METRICS, MEASURE_MS);
    if (e == E_BUSY)
        return;
    gpu->metrics_ns = time_ns();
    gpu->metrics_wanted = false;
    if (e != OK) {
        log_warn(gpu->name, "smu: no measurements: %s", answer_text(gpu->smu_answer));
        return;
    }
    gmc_flush_hdp(gpu);
    vram_read(gpu, BOOT_SMU_TABLE, &gpu->metrics, sizeof(gpu->metrics));
}

/* ---- is it there, and mode 1 reset ---- */

err smu_hello(struct gpu *gpu)
{
    return ask(gpu, &mailbox, SMU_GET_VERSION, 0, HELLO_MS);
}

/* Newer firmware takes the message only in the debug mailbox, older only in the other. All ones
 * mean that it has begun. */
err smu_mode1(struct gpu *gpu)
{
    static const u32 message[] = {SMU_DEBUG_MODE1_RESET, SMU_MODE1_RESET};

    if (!gpu->reset_wanted)
        return OK;
    if (gpu->sub < ARRAY_LEN(message)) {
        pci_enable(gpu->dev, false);
        err e = ask(gpu, gpu->sub ? &mailbox : &debug_mailbox, message[gpu->sub], 0, RESET_ASK_MS);
        if (gpu->smu_answer == SMU_OK || gpu->smu_answer == UINT32_MAX)
            gpu->sub = ARRAY_LEN(message);
        else if (e != E_BUSY)
            gpu->sub++;
        gpu->smu_sent = gpu->sub < ARRAY_LEN(message) && e == E_BUSY;
        gpu->wait_end_ns = gpu->smu_sent ? gpu->wait_end_ns : 0;
        return E_BUSY;
    }
    TRY(gpu_pause(gpu, RESET_MS));
    gpu->gone = false;
    gpu->was_reset = true;
    gpu->reset_wanted = false;
    return E_STATE;
}
