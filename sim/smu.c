/*
 * smu.c: the power controller: the driver's mailbox and the debug mailbox, clocks, power limit,
 * metrics by DMA, mode 1 reset. Follows Linux 6.12 smu_v13_0.c, smu_v13_0_0_ppt.c,
 * smu_v13_0_0_ppsmc.h; levels and limits are the profile's.
 */
#include "sim/priv.h"

#define START_NS        (5 * NS_PER_MS)
#define ANSWER_NS       (30 * NS_PER_US)
#define RESET_BEGINS_NS (60 * NS_PER_MS)
#define RESET_NS        (250 * NS_PER_MS)
#define NO_LIMIT        0xffffu
#define FINE_GRAINED    0x80000000u
#define METRICS_BYTES   392u

static const struct client smu = {.unit = UNIT_SMU};

void smu_reset(struct sim *sim)
{
    sim->smu = (struct smu){.power_watts = sim->profile->power_watts, .table = UINT64_MAX};
}

static void started(struct sim *sim, u64 ignored)
{
    (void)ignored;
    sim->smu.alive = true;
}

void smu_start(struct sim *sim)
{
    sim_at(sim, sim_after(sim, START_NS), started, 0);
}

/* ---- mode 1 reset ---- */

static void reset_begins(struct sim *sim, u64 ignored)
{
    (void)ignored;
    card_reset(sim, RESET_MODE1, RESET_NS);
}

void smu_mode1_reset(struct sim *sim)
{
    if (pci_bus_master(sim))
        sim_fail(sim, "reset-with-bus-master", "mode 1 reset while the card may write to memory");
    sim_at(sim, sim->now_ns + RESET_BEGINS_NS, reset_begins, 0);
}

/* ---- messages ---- */

static const struct profile_clock *clock_find(const struct sim *sim, u32 id)
{
    for (u32 i = 0; i < sim->profile->clock_count; i++)
        if (sim->profile->clock[i].id == id)
            return &sim->profile->clock[i];
    return NULL;
}

static u32 refuse(struct sim *sim, const char *name, u32 argument)
{
    sim_note(sim, name, "argument %#x", argument);
    return SMU_FAILED;
}

static u32 level_say(struct sim *sim, u32 *argument)
{
    const struct profile_clock *clock = clock_find(sim, *argument >> 16);
    u32 level = *argument & 0xffff;

    if (!clock || (level != SMU_DPM_COUNT && level >= clock->level_count))
        return refuse(sim, "smu-level", *argument);
    *argument = level == SMU_DPM_COUNT ? clock->level_count : clock->mhz[level];
    if (clock->id == SMU_GFXCLK)
        *argument |= FINE_GRAINED;
    return SMU_OK;
}

static u32 limit_set(struct sim *sim, u32 argument, u32 *limits, u32 none)
{
    const struct profile_clock *clock = clock_find(sim, argument >> 16);
    u32 mhz = argument & 0xffff;
    bool fits = clock && mhz >= clock->mhz[0] && mhz <= clock->mhz[clock->level_count - 1];

    if (!clock || (!fits && mhz != none))
        return refuse(sim, "smu-clock-range", argument);
    limits[clock->id] = mhz;
    return SMU_OK;
}

static u32 power_set(struct sim *sim, u32 watts)
{
    if (watts < sim->profile->power_watts_min || watts > sim->profile->power_watts_max)
        return refuse(sim, "smu-power-range", watts);
    sim->smu.power_watts = watts;
    return SMU_OK;
}

static u32 metrics_write(struct sim *sim, u32 table)
{
    u8 bytes[METRICS_BYTES] = {0};
    struct smu_metrics metrics = {.counter = (u32)(sim->now_ns / NS_PER_MS),
                                  .socket_w = 21,
                                  .board_w = 46,
                                  .celsius = {38, 44, 38, 38, 52},
                                  .fan_intake_celsius = 27,
                                  .pcie_rate = 4,
                                  .pcie_width = 6};

    if (table != SMU_TABLE_METRICS)
        return SMU_FAILED;
    if ((u32)sim->smu.table == UINT32_MAX || sim->smu.table >> 32 == UINT32_MAX) {
        sim_fail(sim, "smu-table-address", "a table is wanted, but not where");
        return SMU_NOT_YET;
    }
    for (u32 i = 0; i < sim->profile->clock_count; i++) {
        const struct profile_clock *clock = &sim->profile->clock[i];
        metrics.clock_mhz[clock->id] = max_u32(clock->mhz[0], sim->smu.soft_min[clock->id]);
    }
    memcpy(bytes, &metrics, sizeof metrics);
    return mem_write(sim, smu, sim->smu.table, bytes, sizeof bytes) ? SMU_OK : SMU_FAILED;
}

static u32 answer_to(struct sim *sim, u32 message, u32 *argument)
{
    switch (message) {
    case SMU_GET_VERSION:
        *argument = sim->profile->smu_version;
        return SMU_OK;
    case SMU_GET_INTERFACE_VERSION:
        *argument = sim->profile->smu_interface;
        return SMU_OK;
    case SMU_ENABLE_ALL:
    case SMU_DISALLOW_GFXOFF:
        return SMU_OK;
    case SMU_TABLE_HIGH:
        sim->smu.table = (u64)*argument << 32 | (u32)sim->smu.table;
        return SMU_OK;
    case SMU_TABLE_LOW:
        sim->smu.table = (sim->smu.table >> 32 << 32) | *argument;
        return SMU_OK;
    case SMU_TABLE_TO_DRAM:
        return metrics_write(sim, *argument);
    case SMU_SOFT_MIN:
        return limit_set(sim, *argument, sim->smu.soft_min, 0);
    case SMU_SOFT_MAX:
        return limit_set(sim, *argument, sim->smu.soft_max, NO_LIMIT);
    case SMU_GET_DPM:
        return level_say(sim, argument);
    case SMU_MODE1_RESET:
        smu_mode1_reset(sim);
        return SMU_OK;
    case SMU_SET_PPT:
        return power_set(sim, *argument);
    case SMU_GET_PPT:
        *argument = sim->smu.power_watts;
        return SMU_OK;
    default:
        sim_note(sim, "smu-unknown-message", "%#x", message);
        return SMU_UNKNOWN;
    }
}

/* ---- mailboxes ---- */

static void message_run(struct sim *sim, u64 message)
{
    u32 *argument = &sim->reg[R_MP1_SMN_C2PMSG_82];

    sim->smu.busy = false;
    sim->reg[R_MP1_SMN_C2PMSG_90] = answer_to(sim, (u32)message, argument);
}

static void debug_run(struct sim *sim, u64 message)
{
    if (message == SMU_DEBUG_MODE1_RESET)
        smu_mode1_reset(sim);
    else
        sim_note(sim, "smu-unknown-message", "debug %#lx", message);
    sim->reg[R_MP1_SMN_C2PMSG_54] = message == SMU_DEBUG_MODE1_RESET ? SMU_OK : SMU_UNKNOWN;
}

static void message_take(struct sim *sim, u32 message)
{
    if (sim->smu.busy)
        sim_fail(sim, "smu-busy", "message %#x before the last one was answered", message);
    else if (sim->reg[R_MP1_SMN_C2PMSG_90] != 0)
        sim_fail(sim, "smu-answer-not-cleared", "message %#x, C2PMSG_90 is %#x", message,
                 sim->reg[R_MP1_SMN_C2PMSG_90]);
    else if (sim->smu.alive) { /* nobody hears it before its firmware runs */
        sim->smu.busy = true;
        sim_at(sim, sim_after(sim, ANSWER_NS), message_run, message);
    }
}

bool smu_write(struct sim *sim, enum reg reg, u32 value)
{
    if (reg == R_MP1_SMN_C2PMSG_66)
        message_take(sim, value);
    if (reg == R_MP1_SMN_C2PMSG_75 && sim->smu.alive)
        sim_at(sim, sim_after(sim, ANSWER_NS), debug_run, value);
    return false;
}
