/*
 * sim_queues.c: see sim_queues.h. Orders and numbers: the fact sheet on AMD GPUs, 1.5 to 1.10.
 */
#include "tests/sim_queues.h"

#define FB 0x8000000000ull
#define SYS                                                                                        \
    (PTE_VALID | PTE_READ | PTE_WRITE | PTE_EXECUTE | PTE_SYSTEM | PTE_SNOOPED | PTE_UNCACHED)
#define RING_AT 0x0u
#define SDMA_AT 0x10000u
#define EOP_AT  0x21000u
#define MQD_AT  (44 * MIB) /* in VRAM */

u64 va(u32 offset)
{
    return VA_START + offset;
}

u32 lo(u64 value)
{
    return (u32)value;
}

u32 hi(u64 value)
{
    return (u32)(value >> 32);
}

/* ---- bring-up, in the order of the fact sheet ---- */

static void firmware(struct machine *m)
{
    static const u32 types[] = {PSP_FW_SDMA_TH1, PSP_FW_SDMA_TH0, PSP_FW_MEC,      PSP_FW_MEC_STACK,
                                PSP_FW_IMU_I,    PSP_FW_IMU_D,    PSP_FW_RLC_IRAM, PSP_FW_RLC_DRAM,
                                PSP_FW_RLC_P,    PSP_FW_RLC_V,    PSP_FW_RLC_G};
    struct psp_command autoload = {.id = PSP_CMD_AUTOLOAD_RLC};
    u32 bytes;
    const u8 *blob;

    EXPECT(psp_os(m) && psp_ring(m));
    blob = firmware_toc(&bytes);
    EXPECT_EQ(psp_load(m, PSP_CMD_LOAD_TOC, 0, blob, bytes), 0);
    blob = firmware_ip(PSP_FW_SMU, &bytes);
    EXPECT_EQ(psp_load(m, PSP_CMD_LOAD_IP_FW, PSP_FW_SMU, blob, bytes), 0);
    EXPECT_EQ(psp_tmr(m, TMR, 0x1300000), 0);
    for (u32 i = 0; i < ARRAY_LEN(types); i++) {
        blob = firmware_ip(types[i], &bytes);
        EXPECT_EQ(psp_load(m, PSP_CMD_LOAD_IP_FW, types[i], blob, bytes), 0);
    }
    EXPECT_EQ(psp_run(m, &autoload), 0);
    EXPECT(reaches(m, R_RLC_RLCS_BOOTLOAD_STATUS, 0x80000000, 0x80000000, 100));
    EXPECT_EQ(get(m, R_CP_STAT), 0);
}

void mec(struct machine *m)
{
    put(m, R_GRBM_GFX_CNTL, 4);
    put(m, R_CP_MEC_RS64_PRGRM_CNTR_START, 0xc00);
    put(m, R_CP_MEC_RS64_PRGRM_CNTR_START_HI, 0x1c000);
    put(m, R_CP_MEC_RS64_CNTL, CP_MEC_RS64_CNTL__MEC_PIPE0_RESET);
    put(m, R_CP_MEC_RS64_CNTL, 0);
    for (u32 vmid = 0; vmid < 16; vmid++) {
        put(m, R_GRBM_GFX_CNTL, vmid << 4);
        put(m, R_SH_MEM_CONFIG, 0xc00c);
        put(m, R_SH_MEM_BASES, 0x10002);
    }
    put(m, R_CP_MEC_DOORBELL_RANGE_LOWER, 0);
    put(m, R_CP_MEC_DOORBELL_RANGE_UPPER, 0xf8);
    put(m, R_CP_MEC_RS64_CNTL, CP_MEC_RS64_CNTL__MEC_PIPE0_ACTIVE);
    sim_wait(m->sim, NS_PER_MS);
}

static void doorbells(struct machine *m)
{
    static const struct {
        enum reg reg;
        u32 value;
    } entries[] = {{R_S2A_DOORBELL_ENTRY_0_CTRL, 0x30000007},
                   {R_S2A_DOORBELL_ENTRY_3_CTRL, 0x3000000d},
                   {R_S2A_DOORBELL_ENTRY_2_CTRL, 0x3009001d}};

    put(m, R_RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN, 1);
    for (u32 i = 0; i < ARRAY_LEN(entries); i++) { /* beyond BAR 5: by index and data */
        put(m, R_BIF_BX_PF0_RSMU_INDEX, reg_address(m->sim, entries[i].reg) * 4);
        put(m, R_BIF_BX_PF0_RSMU_DATA, entries[i].value);
    }
}

static void interrupts(struct machine *m)
{
    put(m, R_IH_RB_BASE, lo((FB + IH_AT) >> 8));
    put(m, R_IH_RB_BASE_HI, hi((FB + IH_AT) >> 8));
    put(m, R_IH_RB_WPTR_ADDR_LO, lo(FB + IH_AT + 0x40000));
    put(m, R_IH_RB_WPTR_ADDR_HI, hi(FB + IH_AT + 0x40000));
    put(m, R_IH_RB_CNTL, 0xc0310020);
    put(m, R_IH_RB_CNTL, 0xc0330021);
}

/* The registers of a queue descriptor, ACTIVE apart. */
void hqd(struct machine *m)
{
    static const u32 wide[][2] = {{R_CP_MQD_BASE_ADDR, R_CP_MQD_BASE_ADDR_HI},
                                  {R_CP_HQD_PQ_BASE, R_CP_HQD_PQ_BASE_HI},
                                  {R_CP_HQD_PQ_RPTR_REPORT_ADDR, R_CP_HQD_PQ_RPTR_REPORT_ADDR_HI},
                                  {R_CP_HQD_EOP_BASE_ADDR, R_CP_HQD_EOP_BASE_ADDR_HI}};
    const u64 values[] = {FB + MQD_AT, va(RING_AT) >> 8, va(POINTERS), va(EOP_AT) >> 8};

    put(m, R_GRBM_GFX_CNTL, 4);
    for (u32 i = 0; i < ARRAY_LEN(values); i++) {
        put(m, wide[i][0], lo(values[i]));
        put(m, wide[i][1], hi(values[i]));
    }
    put(m, R_CP_HQD_VMID, 0);
    put(m, R_CP_HQD_PERSISTENT_STATE, 0x5501);
    put(m, R_CP_HQD_PQ_RPTR, 0);
    put(m, R_CP_HQD_PQ_WPTR_LO, 0);
    put(m, R_CP_HQD_PQ_WPTR_HI, 0);
    put(m, R_CP_HQD_PQ_DOORBELL_CONTROL, 0x40000000 | DOORBELL);
    put(m, R_CP_HQD_PQ_CONTROL, 0x500 | (RING_LOG2 - 1));
    put(m, R_CP_HQD_EOP_CONTROL, 9);
    put(m, R_CP_HQD_DEQUEUE_REQUEST, 0);
}

void queue(struct card *card)
{
    u32 mqd[MQD_WORDS] = {MQD_HEADER};

    for (u32 i = 0; i < 8; i++)
        mqd[i < 2   ? MQD_STATIC_SE0 + i
            : i < 4 ? MQD_STATIC_SE2 + i - 2
                    : MQD_STATIC_SE4 + i - 4] = ~0u;
    vram_put(&card->m, MQD_AT, mqd, sizeof(mqd));
    hdp(&card->m);
    hqd(&card->m);
    put(&card->m, R_CP_HQD_ACTIVE, 1);
    card->wptr = 0;
}

static void sdma_queue(struct machine *m)
{
    put(m, R_SDMA0_UTCL1_PAGE, 0x100e000);
    put(m, R_SDMA0_F32_CNTL, 0);
    put(m, R_SDMA0_CNTL, 1);
    put(m, R_SDMA0_QUEUE0_RB_BASE, lo(va(SDMA_AT) >> 8));
    put(m, R_SDMA0_QUEUE0_RB_BASE_HI, hi(va(SDMA_AT) >> 8));
    put(m, R_SDMA0_QUEUE0_RB_RPTR_ADDR_LO, lo(va(POINTERS + 0x80)));
    put(m, R_SDMA0_QUEUE0_RB_RPTR_ADDR_HI, hi(va(POINTERS + 0x80)));
    put(m, R_SDMA0_QUEUE0_DOORBELL_OFFSET, SDMA_BELL);
    put(m, R_SDMA0_QUEUE0_DOORBELL, 0x10000000);
    put(m, R_SDMA0_QUEUE0_RB_CNTL, 0x841001 | RING_LOG2 << 1);
    put(m, R_SDMA0_QUEUE0_IB_CNTL, 1);
}

void card_start(struct card *card, const struct sim_options *options)
{
    struct machine *m = &card->m;

    *card = (struct card){};
    machine_start(m, options);
    hub_setup(m, HUB_MM);
    interrupts(m);
    firmware(m);
    hub_setup(m, HUB_GC);
    for (u32 i = 0; i < RAM_PAGES; i++)
        map(m, VA_START + i * 4096ull, 12, (MACHINE_RAM_BASE + i * 4096ull) | SYS);
    doorbells(m);
    mec(m);
    queue(card);
    sdma_queue(m);
    EXPECT(!sim_failure(m->sim));
}

void recover(struct card *card)
{
    put(&card->m, R_GRBM_GFX_CNTL, 4);
    put(&card->m, R_CP_HQD_DEQUEUE_REQUEST, 2);
    put(&card->m, R_SPI_COMPUTE_QUEUE_RESET, 1);
    put(&card->m, R_GRBM_SOFT_RESET,
        GRBM_SOFT_RESET__SOFT_RESET_CP | GRBM_SOFT_RESET__SOFT_RESET_CPC);
    sim_wait(card->m.sim, 50 * NS_PER_MS);
    put(&card->m, R_GRBM_SOFT_RESET, 0);
    mec(&card->m);
    queue(card);
}

/* ---- submission ---- */

u32 ram(const struct card *card, u32 offset)
{
    u32 value;

    memcpy(&value, card->m.ram + offset, sizeof(value));
    return value;
}

void ram_set(struct card *card, u32 offset, u32 value)
{
    memcpy(card->m.ram + offset, &value, sizeof(value));
}

void settle(struct card *card)
{
    for (u32 i = 0; i < 1000 && sim_step(card->m.sim, 1000); i++)
        ;
}

void emit(struct card *card, const u32 *words, u32 count)
{
    for (u32 i = 0; i < count; i++)
        ram_set(card, RING_AT + (card->wptr++ % (1u << RING_LOG2)) * 4, words[i]);
}

void ring_bell(struct card *card)
{
    hdp(&card->m);
    sim_bar_write(card->m.sim, 2, DOORBELL, 8, card->wptr);
    settle(card);
}

void sdma_emit(struct card *card, const u32 *words, u32 count)
{
    for (u32 i = 0; i < count; i++)
        ram_set(card, SDMA_AT + (card->sdma_wptr++ % (1u << RING_LOG2)) * 4, words[i]);
}

void sdma_bell(struct card *card)
{
    hdp(&card->m);
    sim_bar_write(card->m.sim, 2, SDMA_BELL, 8, card->sdma_wptr * 4);
    settle(card);
}

void emit_write(struct card *card, u32 offset, u32 value)
{
    EMIT(card, PM4(PM4_WRITE_DATA, 4), 5 << 8 | 1 << 20, lo(va(offset)), hi(va(offset)), value);
}

void emit_release(struct card *card, u32 offset, u32 value, u32 how)
{
    EMIT(card, PM4(PM4_RELEASE_MEM, 7), PM4_RELEASE_ALL, how, lo(va(offset)), hi(va(offset)), value,
         0, 0x5a);
}
