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
    sim->smu = (struct smu){.power_watts = sim->profile->power_watts};
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

/* ---- messages: each gets the argument, may change it, and answers ---- */

static u32 say_version(struct sim *sim, u32 *argument)
{
    *argument = sim->profile->smu_version;
    return SMU_OK;
}

static u32 say_interface(struct sim *sim, u32 *argument)
{
    *argument = sim->profile->smu_interface;
    return SMU_OK;
}

static u32 features_on(struct sim *sim, u32 *argument)
{
    (void)argument;
    sim->smu.features = true;
    return SMU_OK;
}

static u32 table_high(struct sim *sim, u32 *argument)
{
    sim->smu.table = (u64)*argument << 32 | (u32)sim->smu.table;
    return SMU_OK;
}

static u32 table_low(struct sim *sim, u32 *argument)
{
    sim->smu.table = (sim->smu.table >> 32 << 32) | *argument;
    return SMU_OK;
}

static const struct profile_clock *clock_find(const struct sim *sim, u32 id)
{
    for (u32 i = 0; i < sim->profile->clock_count; i++)
        if (sim->profile->clock[i].id == id)
            return &sim->profile->clock[i];
    return NULL;
}

static u32 say_level(struct sim *sim, u32 *argument)
{
    const struct profile_clock *clock = clock_find(sim, *argument >> 16);
    u32 level = *argument & 0xffff;

    if (!clock || (level != SMU_DPM_COUNT && level >= clock->level_count)) {
        sim_note(sim, "smu-level", "GetDpmFreqByIndex %#x", *argument);
        return SMU_FAILED;
    }
    *argument = level == SMU_DPM_COUNT ? clock->level_count : clock->mhz[level];
    if (clock->id == SMU_GFXCLK)
        *argument |= FINE_GRAINED;
    return SMU_OK;
}

static u32 soft_limit(struct sim *sim, u32 argument, u32 *limits, u32 none)
{
    const struct profile_clock *clock = clock_find(sim, argument >> 16);
    u32 mhz = argument & 0xffff;
    bool fits = clock && mhz >= clock->mhz[0] && mhz <= clock->mhz[clock->level_count - 1];

    if (!clock || (!fits && mhz != none)) {
        sim_note(sim, "smu-clock-range", "clock %u: %u MHz", argument >> 16, mhz);
        return SMU_FAILED;
    }
    limits[clock->id] = mhz;
    return SMU_OK;
}

static u32 soft_min(struct sim *sim, u32 *argument)
{
    return soft_limit(sim, *argument, sim->smu.soft_min, 0);
}

static u32 soft_max(struct sim *sim, u32 *argument)
{
    return soft_limit(sim, *argument, sim->smu.soft_max, NO_LIMIT);
}

static u32 power_set(struct sim *sim, u32 *argument)
{
    if (*argument < sim->profile->power_watts_min || *argument > sim->profile->power_watts_max) {
        sim_note(sim, "smu-power-range", "%u W", *argument);
        return SMU_FAILED;
    }
    sim->smu.power_watts = *argument;
    return SMU_OK;
}

static u32 power_say(struct sim *sim, u32 *argument)
{
    *argument = sim->smu.power_watts;
    return SMU_OK;
}

static u32 metrics_write(struct sim *sim, u32 *argument)
{
    u8 table[METRICS_BYTES] = {0};
    struct smu_metrics metrics = {.counter = (u32)(sim->now_ns / NS_PER_MS),
                                  .socket_w = 21,
                                  .board_w = 46,
                                  .celsius = {38, 44, 38, 38, 52},
                                  .fan_intake_celsius = 27,
                                  .pcie_rate = 4,
                                  .pcie_width = 6,
                                  .fan_percent = 0};

    if (*argument != SMU_TABLE_METRICS)
        return SMU_FAILED;
    if (sim->smu.table == 0) {
        sim_fail(sim, "smu-table-address", "a table is wanted, but not where");
        return SMU_NOT_YET;
    }
    for (u32 i = 0; i < sim->profile->clock_count; i++) {
        const struct profile_clock *clock = &sim->profile->clock[i];
        metrics.clock_mhz[clock->id] = max_u32(clock->mhz[0], sim->smu.soft_min[clock->id]);
    }
    memcpy(table, &metrics, sizeof metrics);
    return mem_write(sim, smu, sim->smu.table, table, sizeof table) ? SMU_OK : SMU_FAILED;
}

static u32 mode1(struct sim *sim, u32 *argument)
{
    (void)argument;
    smu_mode1_reset(sim);
    return SMU_OK;
}

static u32 accept(struct sim *sim, u32 *argument)
{
    (void)sim, (void)argument;
    return SMU_OK;
}

static const struct {
    u32 message;
    u32 (*run)(struct sim *sim, u32 *argument);
} messages[] = {
    {SMU_GET_VERSION, say_version}, {SMU_GET_INTERFACE_VERSION, say_interface},
    {SMU_ENABLE_ALL, features_on},  {SMU_TABLE_HIGH, table_high},
    {SMU_TABLE_LOW, table_low},     {SMU_TABLE_TO_DRAM, metrics_write},
    {SMU_SOFT_MIN, soft_min},       {SMU_SOFT_MAX, soft_max},
    {SMU_GET_DPM, say_level},       {SMU_DISALLOW_GFXOFF, accept},
    {SMU_MODE1_RESET, mode1},       {SMU_SET_PPT, power_set},
    {SMU_GET_PPT, power_say},
};

/* ---- mailboxes ---- */

static void message_run(struct sim *sim, u64 message)
{
    u32 *argument = &sim->reg[R_MP1_SMN_C2PMSG_82], answer = SMU_UNKNOWN;

    for (u32 i = 0; i < ARRAY_LEN(messages); i++)
        if (messages[i].message == message)
            answer = messages[i].run(sim, argument);
    if (answer == SMU_UNKNOWN)
        sim_note(sim, "smu-unknown-message", "%#llx", (unsigned long long)message);
    sim->smu.busy = false;
    sim->reg[R_MP1_SMN_C2PMSG_90] = answer;
}

static void debug_run(struct sim *sim, u64 message)
{
    if (message == SMU_DEBUG_MODE1_RESET)
        smu_mode1_reset(sim);
    else
        sim_note(sim, "smu-unknown-message", "debug %#llx", (unsigned long long)message);
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
