/*
 * sim_memory_test.c: guards the simulated card's memory: page walks with every bit, the TLB, faults
 * and their interrupt entries, what HDP and caches hide, what only a bus master reaches.
 */
#include "tests/sim_driver.h"

#define FB  0x8000000000ull
#define RWX (PTE_VALID | PTE_READ | PTE_WRITE | PTE_EXECUTE)
#define SYS (RWX | PTE_SYSTEM | PTE_SNOOPED | PTE_UNCACHED)
#define ALL 0xf80001u /* VMID 0, every cache */

static const struct client cp = {.unit = UNIT_CP};
static const struct client copy = {.unit = UNIT_SDMA};

static void start_with(struct machine *m, const struct sim_options *options)
{
    machine_start(m, options);
    hub_setup(m, HUB_MM);
    hub_setup(m, HUB_GC);
}

static void start(struct machine *m)
{
    start_with(m, NULL);
}

static void fill(struct machine *m, u64 vram, u64 value)
{
    vram_put(m, vram, &value, sizeof value);
    hdp(m);
}

static u64 look(struct machine *m, u64 va)
{
    u64 value = 0;

    EXPECT(mem_read(m->sim, cp, va, &value, sizeof value));
    return value;
}

/* ---- walks ---- */

TEST(sim_hub_page_sizes)
{
    struct machine m;

    start(&m);
    map(&m, VA_START + 0x3000, 12, 0x6001000 | RWX);
    map(&m, VA_START + (6 * MIB), 21, 64 * MIB | RWX | PTE_LEAF | PTE_FRAGMENT(9));
    map(&m, VA_START + (5 * GIB), 30, 4 * GIB | RWX | PTE_LEAF);
    fill(&m, 0x6001ff8, 1);
    fill(&m, 64 * MIB + 0x123450, 2);
    fill(&m, 4 * GIB + 0x23456780, 3);
    EXPECT_EQ(look(&m, VA_START + 0x3ff8), 1);
    EXPECT_EQ(look(&m, VA_START + 6 * MIB + 0x123450), 2);
    EXPECT_EQ(look(&m, VA_START + 5 * GIB + 0x23456780), 3);
    EXPECT_EQ(look(&m, FB + 64 * MIB + 0x123450), 2); /* by the card's own address */
    EXPECT(!sim_failure(m.sim));
    machine_end(&m);
}

TEST(sim_hub_leaf_place)
{
    /* tinygrad's large pages, by the exception: the offset is added */
    struct machine m;

    start(&m);
    map(&m, VA_START, 21, 0x6034000 | RWX | PTE_LEAF);
    fill(&m, 0x6034000 + 0x1ffff8, 9);
    EXPECT_EQ(look(&m, VA_START + 0x1ffff8), 9);
    EXPECT(!sim_failure(m.sim));
    machine_end(&m);
}

TEST(sim_hub_system_pages)
{
    /* host memory, through a page; without mastering it is out of reach */
    u64 value = 0x1122334455667788;
    struct machine m;

    start(&m);
    map(&m, VA_START, 12, (MACHINE_RAM_BASE + 0x5000) | SYS);
    EXPECT(mem_write(m.sim, cp, VA_START + 8, &value, sizeof value));
    EXPECT(memcmp(m.ram + 0x5008, &value, sizeof value) == 0);
    EXPECT_EQ(look(&m, VA_START + 8), value);
    sim_config_write(m.sim, 0, 4, 2, 2);
    EXPECT(!mem_read(m.sim, cp, VA_START, &value, sizeof value));
    EXPECT(machine_found(&m, "dma-without-bus-master"));
    machine_end(&m);
    start(&m);
    map(&m, VA_START, 12, (MACHINE_RAM_BASE + 0x5000) | (SYS & ~PTE_SNOOPED));
    EXPECT(!mem_read(m.sim, cp, VA_START, &value, sizeof value));
    EXPECT(machine_found(&m, "system-page-cached"));
    machine_end(&m);
}

static void ih_on(struct machine *m)
{
    put(m, R_IH_RB_BASE, (u32)((FB + 16 * MIB) >> 8));
    put(m, R_IH_RB_BASE_HI, (u32)((FB + 16 * MIB) >> 40));
    put(m, R_IH_RB_CNTL, 0xc0310120 & ~1u);
    put(m, R_IH_RB_WPTR_ADDR_LO, (u32)(FB + 17 * MIB));
    put(m, R_IH_RB_WPTR_ADDR_HI, (u32)((FB + 17 * MIB) >> 32));
    put(m, R_IH_RB_WPTR, 0);
    put(m, R_IH_RB_RPTR, 0);
    put(m, R_IH_RB_CNTL, 0xc0330121);
    sim_config_write(m->sim, 0, 0xa2, 2, 1); /* MSI */
}

TEST(sim_hub_faults)
{
    /* unmapped, read-only, not executable: latched once, told by an interrupt entry each */
    struct client wave = {.unit = UNIT_WAVE};
    struct page page;
    u32 entry[8], wptr;
    u64 value = 0;
    struct machine m;

    start(&m);
    ih_on(&m);
    map(&m, VA_START, 12, 0x6000000 | PTE_VALID | PTE_READ);
    EXPECT(!mem_read(m.sim, cp, VA_START + 0x123456000, &value, 8));
    EXPECT(machine_found(&m, "vm-fault"));
    EXPECT(!sim_stopped(m.sim));
    u32 status = get(&m, R_GCVM_L2_PROTECTION_FAULT_STATUS);
    EXPECT_EQ(reg_field(status, GCVM_L2_PROTECTION_FAULT_STATUS__PERMISSION_FAULTS), 3);
    EXPECT_EQ(reg_field(status, GCVM_L2_PROTECTION_FAULT_STATUS__RW), 0);
    EXPECT_EQ(get(&m, R_GCVM_L2_PROTECTION_FAULT_ADDR_LO32), 0x123456);
    EXPECT_EQ(get(&m, R_GCVM_L2_PROTECTION_FAULT_ADDR_HI32), 2);
    EXPECT_EQ(m.irqs, 1);
    sim_vram_read(m.sim, 16 * MIB, entry, sizeof entry);
    EXPECT_EQ(IH_CLIENT(entry[0]), IH_CLIENT_GFX);
    EXPECT_EQ(IH_SOURCE(entry[0]), IH_UTCL2_FAULT);
    EXPECT_EQ(entry[4], 0x123456);
    EXPECT_EQ(entry[5], 2);
    sim_vram_read(m.sim, 17 * MIB, &wptr, sizeof wptr);
    EXPECT_EQ(wptr, 32);
    EXPECT(!mem_write(m.sim, wave, VA_START, &value, 8));
    EXPECT(!hub_translate(m.sim, wave, VA_START, USE_EXECUTE, &page));
    EXPECT(get(&m, R_GCVM_L2_PROTECTION_FAULT_STATUS) & 1); /* more of them */
    EXPECT_EQ(get(&m, R_GCVM_L2_PROTECTION_FAULT_ADDR_LO32), 0x123456);
    put(&m, R_GCVM_L2_PROTECTION_FAULT_CNTL, 1);
    EXPECT_EQ(get(&m, R_GCVM_L2_PROTECTION_FAULT_STATUS), 0);
    EXPECT(!mem_write(m.sim, wave, VA_START, &value, 8));
    status = get(&m, R_GCVM_L2_PROTECTION_FAULT_STATUS);
    EXPECT_EQ(reg_field(status, GCVM_L2_PROTECTION_FAULT_STATUS__PERMISSION_FAULTS), 4);
    EXPECT_EQ(reg_field(status, GCVM_L2_PROTECTION_FAULT_STATUS__CID), 8);
    EXPECT(!mem_read(m.sim, cp, VA_START - 4096, &value, 8));
    EXPECT_EQ(get(&m, R_IH_RB_WPTR), 5 * 32);
    machine_end(&m);
}

TEST(sim_hub_tlb_is_stale)
{
    struct machine m;
    u64 value;

    start(&m);
    map(&m, VA_START, 12, 0x6000000 | RWX);
    fill(&m, 0x6000000, 1);
    fill(&m, 0x7000000, 2);
    EXPECT_EQ(look(&m, VA_START), 1);
    map(&m, VA_START, 12, 0x7000000 | RWX);
    EXPECT(invalidate(&m, HUB_GC, ALL));
    EXPECT_EQ(look(&m, VA_START), 2);
    map(&m, VA_START, 12, 0x6000000 | RWX);
    EXPECT(!mem_read(m.sim, cp, VA_START, &value, sizeof value));
    EXPECT(machine_found(&m, "tlb-stale"));
    machine_end(&m);
}

TEST(sim_hub_invalidate_rules)
{
    struct machine m;

    start(&m);
    EXPECT(invalidate(&m, HUB_MM, ALL));
    EXPECT(invalidate(&m, HUB_MM, ALL));
    EXPECT_EQ(get(&m, R_MMVM_INVALIDATE_ENG17_SEM), 1);
    EXPECT_EQ(get(&m, R_MMVM_INVALIDATE_ENG17_SEM), 0); /* taken */
    EXPECT(!sim_failure(m.sim));
    machine_end(&m);
    start(&m);
    put(&m, R_MMVM_INVALIDATE_ENG17_REQ, ALL);
    EXPECT(machine_found(&m, "invalidate-without-semaphore"));
    machine_end(&m);
    start(&m);
    put(&m, R_GCVM_INVALIDATE_ENG17_REQ, 0x80001);
    EXPECT(machine_found(&m, "invalidate-partial"));
    machine_end(&m);
}

TEST(sim_hub_refuses_bad_entries)
{
    static const struct {
        u64 entry;
        u32 shift;
        const char *name;
    } cases[] = {
        {(FB + 0x6000000) | RWX, 12, "pte-beyond-vram"},
        {0x6001000 | RWX | PTE_LEAF, 21, "pte-not-aligned"},
        {0x6000000 | RWX | PTE_FRAGMENT(1), 12, "fragment-not-contiguous"},
        {(MACHINE_RAM_BASE | SYS) & ~PTE_UNCACHED, 12, "system-page-cached"},
    };

    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        struct sim_options refusing = {.seed = 1, .bar0_bytes = 32 * GIB, .refuse = ~0u};
        u64 value;
        struct machine m;
        start_with(&m, &refusing);
        map(&m, VA_START, cases[i].shift, cases[i].entry);
        EXPECT(!mem_read(m.sim, cp, VA_START, &value, sizeof value));
        EXPECT(machine_found(&m, cases[i].name));
        machine_end(&m);
    }
}

TEST(sim_hub_needs_set_up)
{
    static const struct {
        enum reg reg;
        u32 value;
        const char *name;
    } cases[] = {{R_GCVM_CONTEXT0_CNTL, 0x1fffe06, "context-off"},
                 {R_GCMC_VM_MX_L1_TLB_CNTL, 0x1858, "hub-l1-tlb"},
                 {R_GCVM_L2_CNTL, 0x80800, "hub-l2-cache"}};

    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        u64 value;
        struct machine m;
        start(&m);
        map(&m, VA_START, 12, 0x6000000 | RWX);
        put(&m, cases[i].reg, cases[i].value);
        EXPECT(!mem_read(m.sim, cp, VA_START, &value, sizeof value));
        EXPECT(machine_found(&m, cases[i].name));
        machine_end(&m);
    }
}

/* ---- interrupts ---- */

TEST(sim_ih_overflow)
{
    struct ih_event event = {.client = IH_CLIENT_GFX, .source = IH_CP_EOP};
    struct machine m;

    start(&m);
    ih_on(&m);
    u32 places = 256 * 1024 / 32;
    for (u32 i = 0; i + 1 < places; i++)
        ih_raise(m.sim, &event);
    EXPECT_EQ(get(&m, R_IH_RB_WPTR), (places - 1) * 32);
    ih_raise(m.sim, &event);
    EXPECT_EQ(get(&m, R_IH_RB_WPTR), 1); /* around, and the bit */
    put(&m, R_IH_RB_RPTR, 32);
    put(&m, R_IH_RB_WPTR, 0);
    EXPECT_EQ(get(&m, R_IH_RB_WPTR), 0);
    EXPECT_EQ(m.irqs, places);
    EXPECT(!sim_failure(m.sim));
    machine_end(&m);
}

/* ---- who sees what when ---- */

TEST(sim_memory_hdp)
{
    struct machine m;
    u64 value = 5;

    start(&m);
    vram_put(&m, 0x6000000, &value, sizeof value);
    vram_put(&m, 0x6000010, &value, sizeof value);
    hdp(&m);
    vram_put(&m, 0x6000010, &value, sizeof value);
    EXPECT_EQ(look(&m, FB + 0x6000000), 5); /* its neighbour is waiting, not this */
    EXPECT(!mem_read(m.sim, cp, FB + 0x6000010, &value, sizeof value));
    EXPECT(machine_found(&m, "hdp-not-flushed"));
    machine_end(&m);
}

TEST(sim_memory_fresh)
{
    /* what nobody wrote is a finding for an engine, and anything for the CPU */
    struct machine m;
    u64 value, first, second;

    start(&m);
    sim_vram_read(m.sim, 0x6000000, &first, sizeof first);
    sim_vram_read(m.sim, 0x6000008, &second, sizeof second);
    EXPECT(first != 0 && first != second);
    EXPECT(!mem_read(m.sim, cp, FB + 0x6000000, &value, sizeof value));
    EXPECT(machine_found(&m, "uninitialised-vram"));
    machine_end(&m);
}

/* A dispatch's accesses, in caches of two WGPs. */
struct waves {
    struct compute_memory memory;
};

static u64 wave_read(const struct waves *waves, u32 wgp, u64 va, u32 flags)
{
    struct compute_access access = {va, wgp, 8, flags};
    u64 value = 0;

    EXPECT(waves->memory.load(waves->memory.ctx, &access, &value, NULL));
    return value;
}

static bool wave_reads(const struct waves *waves, u32 wgp, u64 va, u32 flags)
{
    struct compute_access access = {va, wgp, 8, flags};
    u64 value;

    return waves->memory.load(waves->memory.ctx, &access, &value, NULL);
}

static void wave_write(const struct waves *waves, u32 wgp, u64 va, u64 value)
{
    struct compute_access access = {va, wgp, 8, 0};

    EXPECT(waves->memory.store(waves->memory.ctx, &access, &value));
}

static void waves_start(struct machine *m, struct waves *waves)
{
    start(m);
    map(m, VA_START, 21, 128 * MIB | RWX | PTE_LEAF);
    for (u64 at = 0; at < 4096; at += 8)
        fill(m, 128 * MIB + at, at);
    mem_for_waves(m->sim, 0, &waves->memory);
}

TEST(sim_memory_gl2_write_back)
{
    /* the CPU sees a wave's bytes once the GL2 was written back, and only those matter */
    struct waves waves;
    struct machine m;
    u64 value;

    waves_start(&m, &waves);
    wave_write(&waves, 0, VA_START + 64, 99);
    sim_vram_read(m.sim, 128 * MIB + 72, &value, sizeof value);
    EXPECT_EQ(value, 72);
    EXPECT(!sim_failure(m.sim));
    mem_cache(m.sim, CACHE_GL2_WB);
    sim_vram_read(m.sim, 128 * MIB + 64, &value, sizeof value);
    EXPECT_EQ(value, 99);
    wave_write(&waves, 0, VA_START + 64, 100);
    sim_vram_read(m.sim, 128 * MIB + 64, &value, sizeof value);
    EXPECT(machine_found(&m, "gl2-not-written-back"));
    machine_end(&m);
}

TEST(sim_memory_gl2_stale)
{
    /* the CPU changes a line that the GL2 holds: to be invalidated, even after an HDP flush */
    struct waves waves;
    struct machine m;

    waves_start(&m, &waves);
    EXPECT_EQ(wave_read(&waves, 0, VA_START, COMPUTE_GLC), 0);
    fill(&m, 128 * MIB + 8, 77);
    EXPECT_EQ(wave_read(&waves, 0, VA_START, COMPUTE_GLC), 0);
    mem_cache(m.sim, CACHE_GL2_WB | CACHE_GL2_INV);
    EXPECT_EQ(wave_read(&waves, 0, VA_START + 8, COMPUTE_GLC), 77);
    fill(&m, 128 * MIB + 8, 78);
    EXPECT(!wave_reads(&waves, 0, VA_START + 8, COMPUTE_GLC));
    EXPECT(machine_found(&m, "gl2-stale-read"));
    machine_end(&m);
}

TEST(sim_memory_gl0_stale)
{
    /* another WGP's store is seen past the first levels, or after they were dropped */
    struct waves waves;
    struct machine m;

    waves_start(&m, &waves);
    EXPECT_EQ(wave_read(&waves, 0, VA_START + 8, 0), 8);
    wave_write(&waves, 9, VA_START + 8, 50);
    EXPECT_EQ(wave_read(&waves, 9, VA_START + 8, 0), 50);
    EXPECT_EQ(wave_read(&waves, 0, VA_START + 16, 0), 16); /* same line, other bytes */
    EXPECT_EQ(wave_read(&waves, 0, VA_START + 8, COMPUTE_GLC), 50);
    waves.memory.invalidate(waves.memory.ctx, 0, COMPUTE_GL0 | COMPUTE_GL1);
    EXPECT_EQ(wave_read(&waves, 0, VA_START + 8, 0), 50);
    wave_write(&waves, 9, VA_START + 8, 51);
    waves.memory.invalidate(waves.memory.ctx, 0, COMPUTE_GL0); /* the GL1 still has it */
    EXPECT(!wave_reads(&waves, 0, VA_START + 8, 0));
    EXPECT(machine_found(&m, "gl0-stale-read"));
    machine_end(&m);
}

static u64 add_one(void *argument, u64 old)
{
    (void)argument;
    return old + 1;
}

TEST(sim_memory_atomic)
{
    struct waves waves;
    struct machine m;
    struct compute_access access = {VA_START + 8, 0, 8, 0};
    u64 old;

    waves_start(&m, &waves);
    EXPECT_EQ(wave_read(&waves, 0, VA_START + 8, 0), 8);
    EXPECT(waves.memory.atomic(waves.memory.ctx, &access, add_one, NULL, &old));
    EXPECT_EQ(old, 8);
    EXPECT_EQ(wave_read(&waves, 0, VA_START + 8, 0), 9);
    EXPECT(!sim_failure(m.sim));
    machine_end(&m);
}

TEST(sim_memory_copy_engine)
{
    /* its writes stay in the GL2 unless they pass by; its reads see what waves left there */
    struct client past = {.unit = UNIT_SDMA, .bypass = true};
    struct waves waves;
    struct machine m;
    u64 value = 1, seen;

    waves_start(&m, &waves);
    wave_write(&waves, 0, VA_START + 64, 99);
    EXPECT(mem_read(m.sim, copy, VA_START + 64, &seen, sizeof seen));
    EXPECT_EQ(seen, 99);
    EXPECT(mem_write(m.sim, past, VA_START + 256, &value, sizeof value));
    sim_vram_read(m.sim, 128 * MIB + 256, &seen, sizeof seen);
    EXPECT_EQ(seen, 1);
    EXPECT(!sim_failure(m.sim));
    EXPECT(mem_write(m.sim, copy, VA_START + 256, &value, sizeof value));
    sim_vram_read(m.sim, 128 * MIB + 256, &seen, sizeof seen);
    EXPECT(machine_found(&m, "gl2-not-written-back"));
    machine_end(&m);
}

TEST(sim_memory_mapped_bar)
{
    /* once a client has BAR 0 mapped, what it does there is out of sight: no false findings */
    struct machine m;
    u64 value;

    start(&m);
    EXPECT(sim_vram_fd(m.sim) >= 0);
    EXPECT(mem_read(m.sim, cp, FB + 0x6000000, &value, sizeof value));
    EXPECT(!sim_failure(m.sim));
    machine_end(&m);
}
