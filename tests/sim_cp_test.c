/*
 * sim_cp_test.c: guards the simulated card's compute queues: the MEC's start, descriptors,
 * doorbells, PM4 packets, what is refused and by which name, what a fault leaves and what clears
 * it.
 */
#include "tests/sim_queues.h"

/* ---- packets ---- */

TEST(sim_cp_data_packets)
{
    /* writes, copies, releases, clocks and interrupts arrive; the read pointer is reported */
    struct card c;

    card_start(&c, NULL);
    emit_write(&c, DATA_AT, 0x11);
    EMIT(&c, PM4(PM4_COPY_DATA, 5), 1 | 5 << 8, lo(va(DATA_AT)), hi(va(DATA_AT)),
         lo(va(DATA_AT + 4)), hi(va(DATA_AT + 4)));
    EMIT(&c, PM4(PM4_COPY_DATA, 5), 5 | 5 << 8 | 1 << 16, 0x22, 0x33, lo(va(DATA_AT + 8)),
         hi(va(DATA_AT + 8)));
    EMIT(&c, PM4(0x50, 6), 2u << 29, 0x44, 0, lo(va(DATA_AT + 0x100)), hi(va(DATA_AT + 0x100)), 64);
    emit_release(&c, DATA_AT + 0x18, 0, PM4_RELEASE_CLOCK);
    emit_release(&c, DATA_AT + 0x20, 7, PM4_RELEASE_DATA32 | PM4_RELEASE_IRQ);
    ring_bell(&c);
    EXPECT_EQ(ram(&c, DATA_AT), 0x11);
    EXPECT_EQ(ram(&c, DATA_AT + 4), 0x11);
    EXPECT_EQ(ram(&c, DATA_AT + 8), 0x22);
    EXPECT_EQ(ram(&c, DATA_AT + 12), 0x33);
    EXPECT_EQ(ram(&c, DATA_AT + 0x13c), 0x44);
    EXPECT_EQ(ram(&c, DATA_AT + 0x140), 0);
    EXPECT(ram(&c, DATA_AT + 0x18) != 0);
    EXPECT_EQ(ram(&c, DATA_AT + 0x20), 7);
    EXPECT_EQ(ram(&c, POINTERS), c.wptr);
    u32 entry[8];
    sim_vram_read(c.m.sim, IH_AT, entry, sizeof(entry));
    EXPECT_EQ(IH_CLIENT(entry[0]), IH_CLIENT_GRBM_CP);
    EXPECT_EQ(IH_SOURCE(entry[0]), IH_CP_EOP);
    EXPECT_EQ(IH_RING(entry[0]), 4); /* me 1, pipe 0, queue 0 */
    EXPECT_EQ(entry[IH_CONTEXT], 0x5a);
    EXPECT(!sim_failure(c.m.sim));
    machine_end(&c.m);
}

TEST(sim_cp_waits)
{
    /* a wait holds what follows until memory or a register says so; the ring wraps meanwhile */
    struct card c;

    card_start(&c, NULL);
    for (u32 round = 1; round <= 300; round++) {
        EMIT(&c, PM4(PM4_WAIT_REG_MEM, 6), PM4_WAIT_MEMORY | PM4_WAIT_AT_LEAST, lo(va(DATA_AT)),
             hi(va(DATA_AT)), round, ~0u, 4);
        EMIT(&c, PM4(PM4_WAIT_REG_MEM, 6), PM4_WAIT_WRITE_THEN | PM4_WAIT_AT_LEAST,
             reg_address(c.m.sim, R_BIF_BX_PF0_GPU_HDP_FLUSH_REQ),
             reg_address(c.m.sim, R_BIF_BX_PF0_GPU_HDP_FLUSH_DONE), ~0u, ~0u, 4);
        emit_release(&c, DATA_AT + 8, round, PM4_RELEASE_DATA32);
        ring_bell(&c);
        EXPECT_EQ(ram(&c, DATA_AT + 8), round - 1);
        ram_set(&c, DATA_AT, round);
        settle(&c);
        EXPECT_EQ(ram(&c, DATA_AT + 8), round);
    }
    EXPECT_EQ(ram(&c, POINTERS), c.wptr % (1u << RING_LOG2));
    EXPECT(!sim_failure(c.m.sim));
    machine_end(&c.m);
}

TEST(sim_cp_indirect_buffers)
{
    /* buffers run in their place; skips count words of the stream they stand in */
    static const u32 skipped[] = {PM4(PM4_PRED_EXEC, 1), 2 << 24 | 5};
    struct card c;
    u32 at = IB_AT;

    card_start(&c, NULL);
    const u32 ib[] = {PM4(PM4_WRITE_DATA, 4),
                      5 << 8,
                      lo(va(DATA_AT)),
                      hi(va(DATA_AT)),
                      1,
                      skipped[0],
                      skipped[1],
                      PM4(PM4_WRITE_DATA, 4),
                      5 << 8,
                      lo(va(DATA_AT)),
                      hi(va(DATA_AT)),
                      2,
                      PM4(0x22, 4),
                      lo(va(DATA_AT + 64)),
                      hi(va(DATA_AT + 64)),
                      0,
                      5,
                      PM4(PM4_WRITE_DATA, 4),
                      5 << 8,
                      lo(va(DATA_AT)),
                      hi(va(DATA_AT)),
                      3,
                      PM4(PM4_COPY_DATA, 5),
                      1 | 5 << 8,
                      lo(va(DATA_AT)),
                      hi(va(DATA_AT)),
                      lo(va(DATA_AT + 4)),
                      hi(va(DATA_AT + 4))};
    for (u32 i = 0; i < ARRAY_LEN(ib); i++, at += 4)
        ram_set(&c, at, ib[i]);
    EMIT(&c, PM4(PM4_INDIRECT_BUFFER, 3), lo(va(IB_AT)), hi(va(IB_AT)),
         PM4_IB_VALID | ARRAY_LEN(ib));
    EMIT(&c, 0xffff1000); /* a NOP of one word */
    emit_write(&c, DATA_AT + 8, 9);
    ring_bell(&c);
    EXPECT_EQ(ram(&c, DATA_AT + 4), 1);
    EXPECT_EQ(ram(&c, DATA_AT + 8), 9);
    EXPECT(!sim_failure(c.m.sim));
    machine_end(&c.m);
}

/* ---- what is refused ---- */

TEST(sim_cp_refused_packets)
{
    /* each mistake in a packet has its name */
    static const struct refusal rows[] = {
        {"pm4-length", 3, {PM4(PM4_WAIT_REG_MEM, 2), 0, 0}},
        {"pm4-past-end", 3, {PM4(PM4_WRITE_DATA, 4), 0, 0}},
        {"pm4-event", 2, {PM4(PM4_EVENT_WRITE, 1), 0x2c}},
        {"pm4-glm", 8, {PM4(PM4_ACQUIRE_MEM, 7), 0, ~0u, ~0u, 0, 0, 0, GCR_GLM_INV}},
        {"pm4-gcr", 8, {PM4(PM4_ACQUIRE_MEM, 7), 0, ~0u, ~0u, 0, 0, 0, 1 << 18}},
        {"pm4-release", 8, {PM4(PM4_RELEASE_MEM, 7), 0x14, 0, 0, 0, 0, 0, 0}},
        {"pm4-align", 8, {PM4(PM4_RELEASE_MEM, 7), 0x514, 2u << 29, 4, 0x2000, 0, 0, 0}},
        {"pm4-align", 5, {PM4(PM4_WRITE_DATA, 4), 5 << 8, 2, 0x2000, 0}},
        {"pm4-wait", 7, {PM4(PM4_WAIT_REG_MEM, 6), 7, 0, 0, 0, 0, 0}},
        {"pm4-ib", 4, {PM4(PM4_INDIRECT_BUFFER, 3), 0, 0x2000, 8}},
        {"pm4-ib-depth", 4, {PM4(PM4_INDIRECT_BUFFER, 3), 0, 0x2000, 8 | PM4_IB_VALID | 1 << 20}},
        {"pm4-ib-vmid", 4, {PM4(PM4_INDIRECT_BUFFER, 3), 0, 0x2000, 8 | PM4_IB_VALID | 3 << 24}},
        {"pm4-sh-register", 3, {PM4(PM4_SET_SH_REG, 2), 0x100, 0}},
        {"unknown-register", 3, {PM4(PM4_SET_UCONFIG_REG, 2), 0x3f0, 0}},
        {"dispatch-no-threads", 5, {PM4(PM4_DISPATCH_DIRECT, 4), 1, 1, 1, PM4_DISPATCH_INITIATOR}},
        {"dispatch-initiator", 5, {PM4(PM4_DISPATCH_DIRECT, 4), 1, 1, 1, 0x8000}},
        {"pm4-dma", 7, {PM4(0x50, 6), 1u << 29, 0, 0, 0, 0x2000, 4}},
        {"pm4-copy", 6, {PM4(PM4_COPY_DATA, 5), 7, 0, 0, 0, 0}},
    };
    struct card c;

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        card_start(&c, NULL);
        emit(&c, rows[i].words, rows[i].count);
        ring_bell(&c);
        EXPECT(machine_found(&c.m, rows[i].name));
        machine_end(&c.m);
    }
}

TEST(sim_cp_refused_registers)
{
    /* each mistake in starting MEC and queue has its name */
    struct rows {
        const char *name;
        enum reg reg;
        u32 value;
    };
    static const struct rows rows[] = {
        {"hqd-ring", R_CP_HQD_PQ_CONTROL, 0x502},
        {"hqd-report", R_CP_HQD_PQ_RPTR_REPORT_ADDR, 0},
        {"hqd-eop", R_CP_HQD_EOP_CONTROL, 0},
        {"hqd-unordered", R_CP_HQD_PQ_CONTROL, 0x10000500 | (RING_LOG2 - 1)},
        {"hqd-doorbell", R_CP_HQD_PQ_DOORBELL_CONTROL, 0x40000100},
        {"hqd-doorbell", R_CP_HQD_PQ_DOORBELL_CONTROL, DOORBELL},
        {"hqd-without-mec", R_CP_MEC_RS64_CNTL, CP_MEC_RS64_CNTL__MEC_HALT},
        {"mqd-address", R_CP_MQD_BASE_ADDR, 0x44},
        {"mqd-header", R_CP_MQD_BASE_ADDR, (u32)ROOT},
        {"grbm-no-queue", R_GRBM_GFX_CNTL, 0},
        {"mec-start", R_CP_MEC_RS64_PRGRM_CNTR_START, 0xc01},
        {"mec-not-reset", R_CP_MEC_RS64_PRGRM_CNTR_START, 0xc00},
    };
    struct card c;

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        card_start(&c, NULL);
        put(&c.m, R_CP_HQD_DEQUEUE_REQUEST, 2);
        EXPECT(reaches(&c.m, R_CP_HQD_ACTIVE, 1, 0, 10));
        hqd(&c.m);
        put(&c.m, rows[i].reg, rows[i].value);
        put(&c.m, R_CP_MEC_RS64_CNTL, get(&c.m, R_CP_MEC_RS64_CNTL));
        if (rows[i].reg == R_CP_MEC_RS64_PRGRM_CNTR_START) {
            put(&c.m, R_CP_MEC_RS64_CNTL, 0);
            if (rows[i].value != 0xc00)
                put(&c.m, R_CP_MEC_RS64_CNTL, CP_MEC_RS64_CNTL__MEC_PIPE0_RESET);
            put(&c.m, R_CP_MEC_RS64_CNTL, CP_MEC_RS64_CNTL__MEC_PIPE0_ACTIVE);
        }
        put(&c.m, R_CP_HQD_ACTIVE, 1);
        c.wptr = 0;
        emit_write(&c, DATA_AT, 1);
        ring_bell(&c);
        EXPECT(machine_found(&c.m, rows[i].name));
        machine_end(&c.m);
    }
}

TEST(sim_cp_wave_state)
{
    /* nothing runs: no wave on any SIMD of the card; a SIMD that there is not has no state */
    static const struct {
        u32 unit;
        bool refused;
    } rows[] = {{0, false},         {0x5010f, false},   {0xe0000000, true}, {0x40000000, true},
                {0x00060000, true}, {0x00000200, true}, {0x00000010, true}};
    struct card c;

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        card_start(&c, NULL);
        put(&c.m, R_GRBM_GFX_INDEX, rows[i].unit);
        put(&c.m, R_SQ_IND_INDEX, SQ_WAVE_STATUS << 16 | 15);
        u32 status = get(&c.m, R_SQ_IND_DATA);
        EXPECT(rows[i].refused ? machine_found(&c.m, "sq-no-simd") : status == 0);
        machine_end(&c.m);
    }
}

TEST(sim_cp_doorbells)
{
    /* a write pointer that runs over, a doorbell of nobody */
    struct card c;

    card_start(&c, NULL);
    sim_bar_write(c.m.sim, 2, DOORBELL, 8, (1u << RING_LOG2) + 1);
    EXPECT(machine_found(&c.m, "ring-overrun"));
    machine_end(&c.m);
    card_start(&c, NULL);
    sim_bar_write(c.m.sim, 2, DOORBELL + 8, 8, 1);
    EXPECT(machine_found(&c.m, "doorbell-unclaimed"));
    machine_end(&c.m);
}

/* ---- faults and what clears them ---- */

static void works(struct card *c, u32 value)
{
    emit_release(c, DATA_AT + 0x200, value, PM4_RELEASE_DATA32);
    ring_bell(c);
    EXPECT_EQ(ram(c, DATA_AT + 0x200), value);
}

TEST(sim_cp_bad_opcode)
{
    /* silicon's own answer: an interrupt, a queue that stands, and only a reset clears it */
    struct card c;

    card_start(&c, NULL);
    works(&c, 1);
    EMIT(&c, PM4(0x77, 1), 0);
    emit_release(&c, DATA_AT, 5, PM4_RELEASE_DATA32);
    ring_bell(&c);
    u32 entry[8];
    sim_vram_read(c.m.sim, IH_AT, entry, sizeof(entry));
    EXPECT_EQ(IH_SOURCE(entry[0]), IH_CP_BAD_OPCODE);
    EXPECT_EQ(ram(&c, DATA_AT), 0);
    EXPECT_EQ(get(&c.m, R_CP_HQD_ACTIVE), 1);
    recover(&c);
    works(&c, 2);
    machine_end(&c.m);
}

TEST(sim_cp_wedged_pipe)
{
    /* after a fault, dequeuing alone does not bring the pipe back */
    struct card c;

    card_start(&c, NULL);
    EMIT(&c, PM4(PM4_WRITE_DATA, 4), 5 << 8, 0, 0x2345, 1); /* unmapped */
    ring_bell(&c);
    EXPECT(machine_found(&c.m, "vm-fault"));
    put(&c.m, R_GRBM_GFX_CNTL, 4);
    put(&c.m, R_CP_HQD_DEQUEUE_REQUEST, 2);
    EXPECT(reaches(&c.m, R_CP_HQD_ACTIVE, 1, 0, 10));
    recover(&c);
    works(&c, 3);
    machine_end(&c.m);
}
