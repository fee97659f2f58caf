/*
 * sim_sdma_test.c: guards the simulated card's copy engine: each packet, indirect buffers, what is
 * refused and by which name.
 */
#include "tests/sim_queues.h"

TEST(sim_sdma_packets)
{
    /* every packet does what it says, in order, and the read pointer follows in bytes */
    struct card c;

    card_start(&c, NULL);
    for (u32 i = 0; i < 64; i++)
        ram_set(&c, DATA_AT + 4 * i, i * 3);
    SDMA_EMIT(&c, SDMA_COPY, 255, 0, lo(va(DATA_AT)), hi(va(DATA_AT)), lo(va(DATA_AT + 0x1ffc)),
              hi(va(DATA_AT + 0x1ffc)));
    SDMA_EMIT(&c, SDMA_FILL, lo(va(DATA_AT + 0x400)), hi(va(DATA_AT + 0x400)), 0xabcd, 7);
    SDMA_EMIT(&c, SDMA_WRITE, lo(va(DATA_AT + 0x500)), hi(va(DATA_AT + 0x500)), 1, 5, 6);
    SDMA_EMIT(&c, SDMA_TIMESTAMP | 2 << 8, lo(va(DATA_AT + 0x600)), hi(va(DATA_AT + 0x600)));
    SDMA_EMIT(&c, SDMA_POLL_REGMEM | 5 << 28 | 1u << 31, lo(va(DATA_AT + 0x700)),
              hi(va(DATA_AT + 0x700)), 3, ~0u, 0xfff0004);
    SDMA_EMIT(&c, SDMA_FENCE | SDMA_FENCE_UNCACHED, lo(va(DATA_AT + 0x800)),
              hi(va(DATA_AT + 0x800)), 77);
    SDMA_EMIT(&c, SDMA_TRAP, 9);
    sdma_bell(&c);
    EXPECT_EQ(memcmp(c.m.ram + DATA_AT, c.m.ram + DATA_AT + 0x1ffc, 256), 0);
    EXPECT_EQ(ram(&c, DATA_AT + 0x404), 0xabcd);
    EXPECT_EQ(ram(&c, DATA_AT + 0x408), 0);
    EXPECT_EQ(ram(&c, DATA_AT + 0x504), 6);
    EXPECT(ram(&c, DATA_AT + 0x600) != 0);
    EXPECT_EQ(ram(&c, DATA_AT + 0x800), 0);
    ram_set(&c, DATA_AT + 0x700, 3);
    settle(&c);
    EXPECT_EQ(ram(&c, DATA_AT + 0x800), 77);
    EXPECT_EQ(ram(&c, POINTERS + 0x80), c.sdma_wptr * 4);
    u32 entry[8];
    sim_vram_read(c.m.sim, IH_AT, entry, sizeof(entry));
    EXPECT_EQ(IH_SOURCE(entry[0]), IH_SDMA_TRAP);
    EXPECT_EQ(entry[IH_CONTEXT], 9);
    EXPECT(!sim_failure(c.m.sim));
    machine_end(&c.m);
}

TEST(sim_sdma_indirect)
{
    /* a buffer whose packet ends on eight words runs; one that does not is refused */
    static const u32 nops[8] = {0};
    struct card c;

    for (u32 padding = 2; padding <= 3; padding++) {
        card_start(&c, NULL);
        const u32 ib[8] = {SDMA_FENCE, lo(va(DATA_AT)), hi(va(DATA_AT)), 5};
        memcpy(c.m.ram + IB_AT, ib, sizeof(ib));
        sdma_emit(&c, nops, padding);
        SDMA_EMIT(&c, SDMA_INDIRECT, lo(va(IB_AT)), hi(va(IB_AT)), 8, 0, 0);
        sdma_bell(&c);
        EXPECT_EQ(ram(&c, DATA_AT), padding == 2 ? 5 : 0);
        EXPECT(padding == 2 ? !sim_failure(c.m.sim) : machine_found(&c.m, "sdma-ib"));
        machine_end(&c.m);
    }
}

TEST(sim_sdma_refused)
{
    /* each mistake in a packet has its name; what the engine does not know stops it */
    static const struct refusal rows[] = {
        {"sdma-bad-opcode", 1, {99}},
        {"sdma-past-end", 3, {SDMA_COPY, 3, 0}},
        {"sdma-copy", 7, {SDMA_COPY | 1 << 8, 3, 0, 0, 0x2000, 0, 0x2000}},
        {"sdma-align", 4, {SDMA_FENCE, 1, 0x2000, 0}},
        {"sdma-align", 5, {SDMA_WRITE, 2, 0x2000, 0, 0}},
        {"sdma-align", 5, {SDMA_FILL, 0, 0x2000, 0, 6}},
        {"sdma-align", 3, {SDMA_TIMESTAMP | 2 << 8, 4, 0x2000}},
        {"sdma-poll", 6, {SDMA_POLL_REGMEM | 7 << 28 | 1u << 31, 0, 0x2000, 0, 0, 0}},
        {"vm-fault", 4, {SDMA_FENCE, 0, 0x2345, 0}},
    };
    struct card c;

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        card_start(&c, NULL);
        sdma_emit(&c, rows[i].words, rows[i].count);
        sdma_bell(&c);
        EXPECT(machine_found(&c.m, rows[i].name));
        machine_end(&c.m);
    }
}
