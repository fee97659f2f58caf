/*
 * card.c: one card as the bus sees it (sim.h): creation, BARs, the register file and who owns which
 * register, virtual time, findings, the fault plan, resets. Knows no block from inside.
 */
#include "sim/priv.h"

#include <stdio.h>
#include <stdlib.h>

#define ACCESS_NS    1000u /* a register access over PCIe, with its round trip */
#define LATE_FAULT   (10 * NS_PER_S)
#define ALL_ONES     (~0ull)
#define ENGINE_WORDS 36u /* ENG0..17_ADDR_RANGE_LO32/HI32: one row in regs.txt */

static const struct reg_row rows[REG_COUNT] = REG_ROWS;

/* What is granted although the model would refuse it: by name, for docs/SIM.md and the log. */
static const char *const exceptions[EXCEPTIONS] = {
    [EXCEPT_EARLY_GC] = "early-gc",           [EXCEPT_MQD_HOLE] = "mqd-hole",
    [EXCEPT_IH_RPTR_WORDS] = "ih-rptr-words", [EXCEPT_PSP_HDP] = "psp-hdp",
    [EXCEPT_PTE_UNALIGNED] = "pte-unaligned",
    [EXCEPT_PEER_CACHED] = "peer-cached",
};

enum owner { OWNER_GFX, OWNER_SDMA, OWNER_HUB, OWNER_PSP, OWNER_SMU, OWNER_IH, OWNER_NBIO };
static const struct { /* read NULL: plain contents */
    bool (*read)(struct sim *sim, enum reg reg, u32 *value);
    bool (*write)(struct sim *sim, enum reg reg, u32 value);
} owners[] = {
    [OWNER_GFX] = {gfx_read, gfx_write},    [OWNER_SDMA] = {sdma_read, sdma_write},
    [OWNER_HUB] = {hub_read, hub_write},    [OWNER_PSP] = {NULL, psp_write},
    [OWNER_SMU] = {NULL, smu_write},        [OWNER_IH] = {ih_read, ih_write},
    [OWNER_NBIO] = {nbio_read, nbio_write},
};
/* First match decides. */
static const struct {
    const char *prefix;
    enum owner owner;
} owner_prefixes[] = {
    {"SDMA", OWNER_SDMA}, {"GCVM_", OWNER_HUB}, {"GCMC_", OWNER_HUB}, {"MM", OWNER_HUB},
    {"MP0", OWNER_PSP},   {"MP1", OWNER_SMU},   {"IH_", OWNER_IH},    {"BIF", OWNER_NBIO},
    {"RCC", OWNER_NBIO},  {"S2A", OWNER_NBIO},  {"HDP", OWNER_NBIO},  {"", OWNER_GFX},
};

/* ---- creation ---- */

static int by_address(const void *a, const void *b)
{
    const struct reg_address *left = a, *right = b;

    return left->at == right->at ? 0 : left->at < right->at ? -1 : 1;
}

static void registers_place(struct sim *sim)
{
    const struct card_profile *profile = sim->profile;

    for (u32 i = 0; i < REG_COUNT; i++) {
        const struct profile_ip *ip = &profile->ip[profile->block_ip[rows[i].block]];
        CHECK(rows[i].segment < ip->segment_count);
        sim->address[i] =
            (struct reg_address){ip->segment[rows[i].segment] + rows[i].offset, (enum reg)i};
        u32 k = 0;
        while (!str_starts(str_of(rows[i].name), str_of(owner_prefixes[k].prefix)))
            k++;
        sim->owner[i] = (u8)owner_prefixes[k].owner;
    }
    qsort(sim->address, REG_COUNT, sizeof sim->address[0], by_address);
}

static err blocks_create(struct sim *sim)
{
    u64 vram = sim->options.vram_bytes;

    TRY(memory_create(sim, vram ? vram : sim->profile->vram_mb * MIB));
    TRY(gfx_create(sim));
    TRY(sdma_create(sim));
    if (sim->options.trace && !(sim->trace = trace_open(sim->options.trace)))
        return E_IO;
    return OK;
}

struct sim *sim_create(const struct sim_options *options, const struct sim_host *host)
{
    struct sim *sim = calloc(1, sizeof *sim);

    if (!sim)
        return NULL;
    sim->options = *options;
    sim->host = *host;
    sim->profile = options->profile ? options->profile : &profile_navi31;
    sim->random = options->seed;
    registers_place(sim);
    if (blocks_create(sim) != OK) {
        sim_destroy(sim);
        return NULL;
    }
    card_reset(sim, RESET_POWER_ON, 0);
    return sim;
}

void sim_destroy(struct sim *sim)
{
    if (!sim)
        return;
    sdma_destroy(sim);
    gfx_destroy(sim);
    hub_destroy(sim);
    memory_destroy(sim);
    trace_close(sim->trace);
    free(sim);
}

void sim_reset(struct sim *sim)
{
    card_reset(sim, RESET_BUS, 100 * NS_PER_MS);
}

void card_reset(struct sim *sim, enum reset_kind kind, u64 ns)
{
    sim->dead_until_ns = sim->now_ns + ns;
    sim->next_timer_ns = ALL_ONES;
    memset(sim->timer, 0, sizeof sim->timer);
    memset(sim->reg, 0, sizeof sim->reg);
    pci_reset(sim, kind);
    memory_reset(sim, kind);
    hub_reset(sim);
    nbio_reset(sim);
    ih_reset(sim);
    psp_reset(sim);
    smu_reset(sim);
    gfx_reset(sim);
    sdma_reset(sim);
}

/* ---- findings ---- */

static void finding(struct sim *sim, const char *name, const char *format, va_list args)
{
    char line[sizeof sim->failure];
    int used = snprintf(line, sizeof line, "%s: ", name);

    vsnprintf(line + used, sizeof line - (usize)used, format, args);
    sim->findings++;
    if (!sim->failure[0])
        memcpy(sim->failure, line, sizeof line);
    if (sim->host.log)
        sim->host.log(sim->host.ctx, line);
}

bool sim_fail(struct sim *sim, const char *name, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (!sim->stopped)
        finding(sim, name, format, args);
    va_end(args);
    sim->stopped |= !sim->options.lenient;
    return false;
}

void sim_note(struct sim *sim, const char *name, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    if (!sim->stopped)
        finding(sim, name, format, args);
    va_end(args);
}

bool sim_excepted(struct sim *sim, enum exception which)
{
    if (sim->options.refuse >> which & 1)
        return false;
    if (sim->excepted[which]++ == 0 && sim->host.log) {
        char line[64];
        snprintf(line, sizeof line, "exception %s", exceptions[which]);
        sim->host.log(sim->host.ctx, line);
    }
    return true;
}

const char *sim_failure(const struct sim *sim)
{
    return sim->failure[0] ? sim->failure : NULL;
}

bool sim_stopped(const struct sim *sim)
{
    return sim->stopped || sim->gone;
}

u64 sim_findings(const struct sim *sim)
{
    return sim->findings;
}

u64 sim_accesses(const struct sim *sim)
{
    return sim->accesses;
}

usize sim_ledger(const struct sim *sim, char *json, usize bytes)
{
    return gfx_ledger(sim, json, bytes);
}

/* ---- time ---- */

u64 sim_now_ns(const struct sim *sim)
{
    return sim->now_ns;
}

u64 sim_random(struct sim *sim)
{
    u64 z = sim->random += 0x9e3779b97f4a7c15; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

u64 sim_after(struct sim *sim, u64 ns)
{
    u64 spread = ns / 2;

    return sim->now_ns + ns - ns / 4 + (spread ? sim_random(sim) % spread : 0) + sim->late_ns;
}

void sim_at(struct sim *sim, u64 ns, void (*run)(struct sim *sim, u64 argument), u64 argument)
{
    u32 i = 0;

    while (i < SIM_TIMERS_MAX && sim->timer[i].run)
        i++;
    CHECK(i < SIM_TIMERS_MAX);
    sim->timer[i] = (struct sim_timer){ns, run, argument};
    sim->next_timer_ns = min_u64(sim->next_timer_ns, ns);
}

static void timers_run(struct sim *sim)
{
    u64 next = ALL_ONES;

    for (u32 i = 0; i < SIM_TIMERS_MAX; i++) {
        struct sim_timer timer = sim->timer[i];
        if (timer.run && timer.at_ns <= sim->now_ns) {
            sim->timer[i].run = NULL;
            timer.run(sim, timer.argument);
        }
    }
    for (u32 i = 0; i < SIM_TIMERS_MAX; i++)
        if (sim->timer[i].run)
            next = min_u64(next, sim->timer[i].at_ns);
    sim->next_timer_ns = next;
}

void sim_wait(struct sim *sim, u64 ns)
{
    u64 end = sim->now_ns + ns;

    while (sim->next_timer_ns <= end) {
        sim->now_ns = max_u64(sim->now_ns, sim->next_timer_ns);
        timers_run(sim);
    }
    sim->now_ns = end;
}

bool sim_step(struct sim *sim, u64 budget)
{
    if (sim_stopped(sim) || sim->now_ns < sim->dead_until_ns)
        return false;
    bool more = gfx_step(sim, budget);

    return sdma_step(sim, budget) || more;
}

/* ---- the register file ---- */

const char *reg_name(enum reg reg)
{
    return rows[reg].name;
}

u32 reg_address(const struct sim *sim, enum reg reg)
{
    const struct card_profile *profile = sim->profile;

    return profile->ip[profile->block_ip[rows[reg].block]].segment[rows[reg].segment] +
           rows[reg].offset;
}

enum reg reg_at(const struct sim *sim, u32 dword_address)
{
    u32 low = 0, high = REG_COUNT;

    while (low < high) {
        u32 middle = (low + high) / 2;
        if (sim->address[middle].at < dword_address)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < REG_COUNT && sim->address[low].at == dword_address)
        return sim->address[low].reg;
    for (u32 hub = 0; hub < HUBS; hub++) {
        enum reg first = hub == HUB_GC ? R_GCVM_INVALIDATE_ENG0_ADDR_RANGE_LO32
                                       : R_MMVM_INVALIDATE_ENG0_ADDR_RANGE_LO32;
        u32 words = dword_address - reg_address(sim, first);
        if (words < ENGINE_WORDS)
            return first + (words & 1);
    }
    return NO_REG;
}

u32 reg_read(struct sim *sim, u32 dword_address)
{
    enum reg reg = reg_at(sim, dword_address);
    u32 value = 0;

    if (reg == NO_REG) {
        sim_fail(sim, "unknown-register", "read of word %#x", dword_address);
        return ~0u;
    }
    bool taken = owners[sim->owner[reg]].read && owners[sim->owner[reg]].read(sim, reg, &value);
    return taken ? value : sim->reg[reg];
}

void reg_write(struct sim *sim, u32 dword_address, u32 value)
{
    enum reg reg = reg_at(sim, dword_address);

    if (reg == NO_REG) {
        if (!gfx_write_unnamed(sim, dword_address, value))
            sim_fail(sim, "unknown-register", "%#x written to word %#x", value, dword_address);
        return;
    }
    if (!owners[sim->owner[reg]].write(sim, reg, value))
        sim->reg[reg] = value;
}

/* ---- accesses from the bus ---- */

/* What the fault plan does to this access: counts it and lets its time pass. */
static bool access_passes(struct sim *sim, bool counted)
{
    const struct sim_fault *fault = &sim->options.fault;
    bool hit = counted && fault->kind != SIM_FAULT_NONE && sim->accesses == fault->nth;

    sim->late_ns = hit && fault->kind == SIM_FAULT_LATE ? LATE_FAULT : 0;
    sim->gone |= hit && fault->kind == SIM_FAULT_GONE;
    sim->accesses += counted;
    sim_wait(sim, ACCESS_NS);
    return !(hit && fault->kind != SIM_FAULT_LATE) && !sim_stopped(sim) &&
           sim->now_ns >= sim->dead_until_ns;
}

u32 sim_config_read(struct sim *sim, u32 function, u32 offset, u32 width)
{
    u32 value = access_passes(sim, true) ? pci_read(sim, function, offset, width) : ~0u;

    sim->late_ns = 0;
    return width < 4 ? value & ((1u << width * 8) - 1) : value;
}

void sim_config_write(struct sim *sim, u32 function, u32 offset, u32 width, u32 value)
{
    if (access_passes(sim, true))
        pci_write(sim, function, offset, width, value);
    sim->late_ns = 0;
}

u64 sim_bar_bytes(const struct sim *sim, u32 bar)
{
    return bar == 0   ? pci_bar0_bytes(sim)
           : bar == 2 ? pci_bar2_bytes(sim)
           : bar == 5 ? sim->profile->bar5_bytes
                      : 0;
}

static bool bar_reaches(struct sim *sim, u32 bar, u64 offset, u64 bytes)
{
    u64 size = sim_bar_bytes(sim, bar);

    if (offset <= size && bytes <= size - offset)
        return pci_memory_space(sim);
    return sim_fail(sim, "beyond-bar", "BAR %u has %#lx bytes, access at %#lx", bar, size, offset);
}

static bool register_shape(struct sim *sim, u64 offset, u32 width)
{
    if (width == 4 && offset % 4 == 0)
        return true;
    return sim_fail(sim, "register-width", "%u bytes at %#lx of BAR 5", width, offset);
}

u64 sim_bar_read(struct sim *sim, u32 bar, u64 offset, u32 width)
{
    u64 value = ALL_ONES;

    if (access_passes(sim, bar == 5) && bar_reaches(sim, bar, offset, width)) {
        if (bar == 0)
            mem_cpu_read(sim, offset, &value, width);
        else if (bar == 5 && register_shape(sim, offset, width))
            value = reg_read(sim, (u32)(offset / 4));
        else if (bar == 2)
            value = 0; /* doorbells are not to be read */
    }
    sim->late_ns = 0;
    value = sim_stopped(sim) ? ALL_ONES : value;
    if (bar == 5)
        trace_register(sim, false, (u32)(offset / 4), (u32)value);
    return width < 8 ? value & ((1ull << width * 8) - 1) : value;
}

void sim_bar_write(struct sim *sim, u32 bar, u64 offset, u32 width, u64 value)
{
    if (bar == 5)
        trace_register(sim, true, (u32)(offset / 4), (u32)value);
    if (access_passes(sim, bar == 5) && bar_reaches(sim, bar, offset, width)) {
        if (bar == 0)
            mem_cpu_write(sim, offset, &value, width);
        else if (bar == 2)
            nbio_doorbell(sim, offset, value, width);
        else if (register_shape(sim, offset, width) && !nbio_sink(sim, offset))
            reg_write(sim, (u32)(offset / 4), (u32)value);
    }
    sim->late_ns = 0;
}

void sim_vram_read(struct sim *sim, u64 offset, void *out, u64 bytes)
{
    if (access_passes(sim, false) && bar_reaches(sim, 0, offset, bytes))
        mem_cpu_read(sim, offset, out, bytes);
    else
        memset(out, 0xff, bytes);
}

void sim_vram_write(struct sim *sim, u64 offset, const void *in, u64 bytes)
{
    if (access_passes(sim, false) && bar_reaches(sim, 0, offset, bytes))
        mem_cpu_write(sim, offset, in, bytes);
}
