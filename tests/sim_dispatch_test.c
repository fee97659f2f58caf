/*
 * sim_dispatch_test.c: guards the order of dispatches and of the caches between them: what flushes
 * and acquires promise holds for every seed, and what is left out is found. The kernel computes
 * x = x * s2 + s3 for the 32 words at s[0:1]; two launches in the wrong order give another result.
 */
#include "tests/sim_queues.h"

#define RWX     (PTE_VALID | PTE_READ | PTE_WRITE | PTE_EXECUTE)
#define CODE_VA (VA_START + 0x40000000ull)
#define DATA_VA (CODE_VA + 0x1000)
#define CODE_AT (48 * MIB) /* in VRAM */
#define WORDS   32u
#define SEEDS   12u
#define RSRC1   0x40000000u /* MEM_ORDERED; 8 VGPRs */

static const u32 kernel[] = {
    0x30020082,             /* v_lshlrev_b32 v1, 2, v0 */
    0xdc520000, 0x02000001, /* global_load_b32 v2, v1, s[0:1] */
    0xbf8903f7,             /* s_waitcnt vmcnt(0) */
    0xd72c0002, 0x00000502, /* v_mul_lo_u32 v2, v2, s2 */
    0x4a040403,             /* v_add_nc_u32 v2, s3, v2 */
    0xdc6a0000, 0x00000201, /* global_store_b32 v1, v2, s[0:1] */
    0xbfb00000,             /* s_endpgm */
};

static void start(struct card *card, u64 seed)
{
    struct sim_options options = {.seed = seed, .bar0_bytes = 32 * GIB};
    u32 code[1024], data[1024];

    card_start(card, &options);
    map(&card->m, CODE_VA, 12, CODE_AT | RWX);
    map(&card->m, DATA_VA, 12, (CODE_AT + 4096) | RWX);
    for (u32 i = 0; i < ARRAY_LEN(code); i++) {
        code[i] = i < ARRAY_LEN(kernel) ? kernel[i] : 0xbf9f0000; /* s_code_end */
        data[i] = i;
    }
    vram_put(&card->m, CODE_AT, code, sizeof(code));
    vram_put(&card->m, CODE_AT + 4096, data, sizeof(data));
    hdp(&card->m);
}

static void acquire(struct card *card, u32 gcr)
{
    EMIT(card, PM4(PM4_ACQUIRE_MEM, 7), 0, ~0u, ~0u, 0, 0, 0, gcr);
}

#define GCR_ALL (GCR_GLI_INV | GCR_GLK_INV | GCR_GLV_INV | GCR_GL1_INV | GCR_GL2_INV | GCR_GL2_WB)

static void launch(struct card *card, u32 groups, u32 factor, u32 summand)
{
    EMIT(card, PM4(PM4_SET_SH_REG, 3), 0x20c, lo(CODE_VA >> 8), hi(CODE_VA >> 8));
    EMIT(card, PM4(PM4_SET_SH_REG, 3), 0x212, RSRC1, 4 << 1); /* four user SGPRs */
    EMIT(card, PM4(PM4_SET_SH_REG, 5), 0x240, lo(DATA_VA), hi(DATA_VA), factor, summand);
    EMIT(card, PM4(PM4_SET_SH_REG, 9), 0x204, 0, 0, 0, WORDS, 1, 1, 0, 0);
    EMIT(card, PM4(PM4_DISPATCH_DIRECT, 4), groups, 1, 1, PM4_DISPATCH_INITIATOR);
}

static void flush(struct card *card)
{
    EMIT(card, PM4(PM4_EVENT_WRITE, 1), PM4_CS_PARTIAL_FLUSH);
}

/* The word 5 of the data, once the card is done. */
static u32 result(struct card *card)
{
    u32 value = 0;

    emit_release(card, DATA_AT, 1, PM4_RELEASE_DATA32);
    ring_bell(card);
    if (ram(card, DATA_AT) == 1)
        sim_vram_read(card->m.sim, CODE_AT + 4096 + 5 * 4, &value, sizeof(value));
    return value;
}

TEST(sim_dispatch_in_order)
{
    /* flush and acquire between two launches: every seed, the same result */
    struct card c;

    for (u64 seed = 1; seed <= SEEDS; seed++) {
        start(&c, seed);
        acquire(&c, GCR_ALL);
        launch(&c, 1, 2, 0);
        flush(&c);
        acquire(&c, GCR_GLV_INV | GCR_GL1_INV | GCR_GLK_INV);
        launch(&c, 1, 1, 3);
        flush(&c);
        EXPECT_EQ(result(&c), 5 * 2 + 3);
        EXPECT(!sim_failure(c.m.sim));
        machine_end(&c.m);
    }
}

TEST(sim_dispatch_without_flush)
{
    /* the flush left out: some seed runs the launches the other way round, or finds it stale */
    struct card c;
    u32 wrong = 0;

    for (u64 seed = 1; seed <= SEEDS; seed++) {
        start(&c, seed);
        acquire(&c, GCR_ALL);
        launch(&c, 1, 2, 0);
        acquire(&c, GCR_GLV_INV | GCR_GL1_INV | GCR_GLK_INV);
        launch(&c, 1, 1, 3);
        flush(&c);
        wrong += result(&c) != 5 * 2 + 3;
        machine_end(&c.m);
    }
    EXPECT(wrong > 0);
}

TEST(sim_dispatch_without_acquire)
{
    /* the acquire left out: a group that lands where the line is cached is found out */
    struct card c;

    start(&c, 1);
    acquire(&c, GCR_ALL);
    for (u32 i = 0; i < 200 && !sim_failure(c.m.sim); i++) {
        launch(&c, 1, 1, 1);
        flush(&c);
        ring_bell(&c);
    }
    EXPECT(machine_found(&c.m, "gl0-stale-read"));
    machine_end(&c.m);
}

TEST(sim_dispatch_refused)
{
    /* registers that no dispatch may find */
    struct card c;

    start(&c, 1);
    launch(&c, 1, 1, 1);
    for (u32 i = 0; i < 2; i++) /* both groups of units: none enabled */
        EMIT(&c, PM4(PM4_SET_SH_REG, 3), 0x216 + 3 * i, 0, 0);
    EMIT(&c, PM4(PM4_SET_SH_REG, 5), 0x22b, 0, 0, 0, 0);
    launch(&c, 1, 1, 1);
    ring_bell(&c);
    EXPECT(machine_found(&c.m, "dispatch-no-units"));
    machine_end(&c.m);
    start(&c, 1);
    put(&c.m, R_GRBM_GFX_CNTL, 0);
    put(&c.m, R_SH_MEM_CONFIG, 0xc000);
    launch(&c, 1, 1, 1);
    ring_bell(&c);
    EXPECT(machine_found(&c.m, "sh-mem-config"));
    machine_end(&c.m);
}

TEST(sim_dispatch_fault_and_recovery)
{
    /* a store to nowhere: told twice (UTCL2, SQ), the queue stands, a reset brings it back */
    struct card c;
    u32 entry[16];

    start(&c, 1);
    acquire(&c, GCR_ALL);
    EMIT(&c, PM4(PM4_SET_SH_REG, 3), 0x20c, lo(CODE_VA >> 8), hi(CODE_VA >> 8));
    launch(&c, 1, 1, 1);
    EMIT(&c, PM4(PM4_SET_SH_REG, 5), 0x240, 0, 0xdead, 1, 1);
    EMIT(&c, PM4(PM4_DISPATCH_DIRECT, 4), 1, 1, 1, PM4_DISPATCH_INITIATOR);
    EXPECT_EQ(result(&c), 0);
    sim_vram_read(c.m.sim, IH_AT, entry, sizeof(entry));
    EXPECT_EQ(IH_CLIENT(entry[0]), IH_CLIENT_GFX);
    EXPECT_EQ(IH_SOURCE(entry[0]), IH_UTCL2_FAULT);
    EXPECT_EQ(IH_SOURCE(entry[8]), IH_SQ);
    EXPECT_EQ(entry[8 + IH_CONTEXT + 1] >> 6 & 3, IH_SQ_ERROR);
    EXPECT_EQ(entry[8 + IH_CONTEXT] >> 21 & 15, IH_SQ_VIOLATION);
    recover(&c);
    ram_set(&c, DATA_AT, 0);
    acquire(&c, GCR_ALL);
    launch(&c, 1, 0, 9);
    flush(&c);
    EXPECT_EQ(result(&c), 9);
    machine_end(&c.m);
}
