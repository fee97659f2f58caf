/*
 * sim_card_test.c: guards the base of the simulated card: what it grants, when, and by which name
 * it refuses: bus, discovery, registers, secure processor, power controller, interrupts.
 */
#define _GNU_SOURCE
#include "tests/sim_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define FB 0x8000000000ull

/* ---- config space ---- */

TEST(sim_card_capabilities)
{
    /* the chain of a real RX 7900 XTX, in its order */
    static const u16 caps[][2] = {{0x48, 0x09}, {0x50, 0x01}, {0x64, 0x10}, {0xa0, 0x05}};
    static const u16 ext[][2] = {{0x100, 0x0b}, {0x150, 0x01}, {0x200, 0x15}, {0x240, 0x04},
                                 {0x270, 0x19}, {0x2a0, 0x0d}, {0x2d0, 0x1b}, {0x320, 0x18},
                                 {0x410, 0x26}, {0x450, 0x27}};
    struct machine m;

    machine_start(&m, NULL);
    EXPECT_EQ(sim_config_read(m.sim, 0, 0, 4), 0x744c1002);
    EXPECT_EQ(sim_config_read(m.sim, 1, 0, 4), 0xab301002);
    EXPECT_EQ(sim_config_read(m.sim, 0, 0x0e, 1), 0x80);
    u32 at = sim_config_read(m.sim, 0, 0x34, 1);
    for (u32 i = 0; i < ARRAY_LEN(caps); i++) {
        EXPECT_EQ(at, caps[i][0]);
        EXPECT_EQ(sim_config_read(m.sim, 0, at, 1), caps[i][1]);
        at = sim_config_read(m.sim, 0, at + 1, 1);
    }
    EXPECT_EQ(at, 0);
    at = 0x100;
    for (u32 i = 0; i < ARRAY_LEN(ext); i++) {
        EXPECT_EQ(at, ext[i][0]);
        EXPECT_EQ(sim_config_read(m.sim, 0, at, 2), ext[i][1]);
        at = sim_config_read(m.sim, 0, at + 2, 2) >> 4;
    }
    EXPECT_EQ(at, 0);
    EXPECT(!sim_failure(m.sim));
    machine_end(&m);
}

static u64 bar_size(struct machine *m, u32 offset)
{
    sim_config_write(m->sim, 0, offset, 4, ~0u);
    sim_config_write(m->sim, 0, offset + 4, 4, ~0u);
    u64 low = sim_config_read(m->sim, 0, offset, 4),
        high = sim_config_read(m->sim, 0, offset + 4, 4);

    return ~((high << 32 | low) & ~15ull) + 1;
}

TEST(sim_card_resizable_bar)
{
    /* sizes really change; a size that is not offered, or decoding left on, is refused by name */
    struct sim_options options = {.seed = 1};
    struct machine m;

    machine_start(&m, &options);
    EXPECT_EQ(sim_bar_bytes(m.sim, 0), 256 * MIB);
    EXPECT_EQ(bar_size(&m, 0x10), 256 * MIB);
    EXPECT_EQ(bar_size(&m, 0x18), 2 * MIB);
    EXPECT_EQ(sim_config_read(m.sim, 0, 0x204, 4), 0xff000); /* 256 MB to 32 GB */
    sim_config_write(m.sim, 0, 4, 2, 0);
    u32 control = sim_config_read(m.sim, 0, 0x208, 4);
    sim_config_write(m.sim, 0, 0x208, 4, (control & ~0x1f00u) | 15 << 8);
    EXPECT_EQ(sim_bar_bytes(m.sim, 0), 32 * GIB);
    EXPECT_EQ(bar_size(&m, 0x10), 32 * GIB);
    EXPECT(!sim_failure(m.sim));
    sim_config_write(m.sim, 0, 0x208, 4, 16 << 8);
    EXPECT(machine_found(&m, "rebar-size"));
    EXPECT_EQ(sim_config_read(m.sim, 0, 0x208, 4), ~0u); /* stopped */
    machine_end(&m);

    machine_start(&m, &options);
    sim_config_write(m.sim, 0, 0x208, 4, 9 << 8);
    EXPECT(machine_found(&m, "rebar-while-decoding"));
    machine_end(&m);
}

TEST(sim_card_function_reset)
{
    /* a function level reset takes the card away, then it is as after power-on */
    struct machine m;

    machine_start(&m, NULL);
    put(&m, R_SCRATCH_REG7, 42);
    u32 control = sim_config_read(m.sim, 0, 0x6c, 2);
    sim_config_write(m.sim, 0, 0x6c, 2, control | 0x8000);
    EXPECT_EQ(sim_config_read(m.sim, 0, 0, 4), ~0u);
    sim_wait(m.sim, 300 * NS_PER_MS);
    EXPECT_EQ(sim_config_read(m.sim, 0, 0, 4), 0x744c1002);
    EXPECT_EQ(sim_config_read(m.sim, 0, 4, 2), 0);
    EXPECT_EQ(get(&m, R_SCRATCH_REG7), ~0u); /* memory decoding is off */
    sim_config_write(m.sim, 0, 4, 2, 2);
    EXPECT_EQ(get(&m, R_SCRATCH_REG7), 0);
    EXPECT(!sim_failure(m.sim));
    machine_end(&m);
}

/* ---- registers, faults ---- */

TEST(sim_card_unknown_register)
{
    struct machine m;

    machine_start(&m, NULL);
    EXPECT_EQ(sim_bar_read(m.sim, 5, 0x3fff0, 4), ~0u);
    EXPECT(machine_found(&m, "unknown-register"));
    EXPECT(sim_stopped(m.sim));
    machine_end(&m);
}

static u32 nth(u32 kind, u64 n, struct machine *m)
{
    struct sim_options options = {.seed = 1, .bar0_bytes = 32 * GIB, .fault = {kind, n}};

    machine_start(m, &options); /* access 0 is its config write */
    put(m, R_SCRATCH_REG7, 1);  /* 1 */
    put(m, R_SCRATCH_REG7, 2);  /* 2 */
    return get(m, R_SCRATCH_REG7);
}

TEST(sim_card_fault_plan)
{
    /* the nth access only, counted over registers and config space */
    struct machine m;

    EXPECT_EQ(nth(SIM_FAULT_NONE, 3, &m), 2);
    machine_end(&m);
    EXPECT_EQ(nth(SIM_FAULT_ONES, 3, &m), ~0u);
    EXPECT_EQ(get(&m, R_SCRATCH_REG7), 2);
    machine_end(&m);
    EXPECT_EQ(nth(SIM_FAULT_DROP, 2, &m), 1);
    machine_end(&m);
    EXPECT_EQ(nth(SIM_FAULT_GONE, 2, &m), ~0u);
    EXPECT_EQ(sim_config_read(m.sim, 0, 0, 4), ~0u);
    machine_end(&m);
}

TEST(sim_card_late)
{
    /* what a late access starts takes 10 s more */
    struct sim_options options = {.seed = 1, .bar0_bytes = 32 * GIB, .fault = {SIM_FAULT_LATE, 1}};
    struct machine m;

    machine_start(&m, &options);
    put(&m, R_GCVM_INVALIDATE_ENG17_REQ, 0xf80001);
    EXPECT(!reaches(&m, R_GCVM_INVALIDATE_ENG17_ACK, 1, 1, 9000));
    EXPECT(reaches(&m, R_GCVM_INVALIDATE_ENG17_ACK, 1, 1, 2000));
    machine_end(&m);
}

TEST(sim_card_doorbell_gate)
{
    struct machine m;

    machine_start(&m, NULL);
    sim_bar_write(m.sim, 2, 0x18, 8, 1);
    EXPECT(machine_found(&m, "doorbell-aperture-off"));
    machine_end(&m);
    machine_start(&m, NULL);
    put(&m, R_RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN, 1);
    sim_bar_write(m.sim, 2, 0x18, 8, 1);
    EXPECT(machine_found(&m, "doorbell-not-routed"));
    machine_end(&m);
}

TEST(sim_card_trace)
{
    /* lines as tinygrad's trace has them, but for the caller */
    static const char want[] =
        "W 0x0000014 regBIF_BX_PF0_RSMU_INDEX                                     0x10134408\n"
        "R 0x0000015 regBIF_BX_PF0_RSMU_DATA                                      0x0\n"
        "R 0x404d102 regRCC_DEV0_EPF2_STRAP2                                      0x0\n"
        "W 0x404d102 regRCC_DEV0_EPF2_STRAP2                                      0x0\n"
        "W 0x0000014 regBIF_BX_PF0_RSMU_INDEX                                     0x10134408\n"
        "W 0x0000015 regBIF_BX_PF0_RSMU_DATA                                      0x0\n"
        "R 0x0016063 mmMP0_SMN_C2PMSG_35|regMP0_SMN_C2PMSG_35                     0x80000000   x2\n"
        "W 0x001a7a9 regMMVM_INVALIDATE_ENG17_ADDR_RANGE_LO32                     0xffffffff\n";
    char path[32], seen[2048] = "";
    int fd = memfd_create("trace", 0);
    struct sim_options options = {.seed = 1, .bar0_bytes = 32 * GIB, .trace = path};
    struct machine m;

    EXPECT(fd >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    machine_start(&m, &options);
    put(&m, R_BIF_BX_PF0_RSMU_INDEX, 0x10134408);
    get(&m, R_BIF_BX_PF0_RSMU_DATA);
    put(&m, R_BIF_BX_PF0_RSMU_INDEX, 0x10134408);
    put(&m, R_BIF_BX_PF0_RSMU_DATA, 0);
    get(&m, R_MP0_SMN_C2PMSG_35);
    get(&m, R_MP0_SMN_C2PMSG_35);
    sim_bar_write(m.sim, 5, 0x1a7a9 * 4, 4, 0xffffffff);
    machine_end(&m);
    EXPECT(read(fd, seen, sizeof seen - 1) > 0);
    close(fd);
    EXPECT_STR(str_of(seen), str_of(want));
}

/* ---- discovery ---- */

static u16 sum(const u8 *data, u32 bytes)
{
    u16 total = 0;

    for (u32 i = 0; i < bytes; i++)
        total = (u16)(total + data[i]);
    return total;
}

static void discovery_check(const u8 *table)
{
    const struct discovery_header *head = (const void *)table;

    EXPECT_EQ(head->signature, 0x28211407);
    EXPECT_EQ(sum(table + 10, head->bytes - 10u), head->checksum);
    for (u32 i = 0; i < 3; i++)
        EXPECT_EQ(sum(table + head->list[i].offset, head->list[i].bytes), head->list[i].checksum);
    const struct discovery_ips *ips = (const void *)(table + head->list[0].offset);
    EXPECT_EQ(ips->signature, 0x53445049);
    EXPECT_EQ(ips->die_count, 1);
    const struct discovery_die *die = (const void *)(table + ips->die[0].offset);
    const u8 *at = (const u8 *)(die + 1);
    u32 found = 0;
    for (u32 i = 0; i < die->ip_count; i++) {
        const struct discovery_ip *ip = (const void *)at;
        u32 first;
        memcpy(&first, at + 8, 4);
        if (ip->hw_id == HW_GC && ip->major == 11 && ip->minor == 0 && ip->revision == 0)
            found += first == 0x1260;
        if (ip->hw_id == HW_MP0 && ip->major == 13)
            found += first == 0x16000;
        at += 8 + 4 * ip->base_count;
    }
    EXPECT_EQ(found, 2);
    const struct discovery_gc *gc = (const void *)(table + head->list[1].offset);
    EXPECT_EQ(gc->se_count * gc->sa_per_se * 2 * (gc->wgp0_per_sa + gc->wgp1_per_sa), 96);
}

TEST(sim_card_discovery)
{
    /* the same table through BAR 0 and through a small BAR's index and data */
    u8 table[DISCOVERY_BYTES_MAX], again[DISCOVERY_BYTES_MAX];
    struct sim_options small = {.seed = 1};
    struct machine m;

    machine_start(&m, NULL);
    u64 vram = (u64)get(&m, R_RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE) << 20;
    EXPECT_EQ(vram, 24560 * MIB);
    sim_vram_read(m.sim, vram - 0x10000, table, sizeof table);
    discovery_check(table);
    machine_end(&m);
    machine_start(&m, &small);
    for (u32 i = 0; i < sizeof again; i += 4) {
        u64 at = vram - 0x10000 + i;
        put(&m, R_BIF_BX_PF0_MM_INDEX_HI, (u32)(at >> 31));
        put(&m, R_BIF_BX_PF0_MM_INDEX, (u32)(at & 0x7fffffff) | 0x80000000);
        u32 word = get(&m, R_BIF_BX_PF0_MM_DATA);
        memcpy(again + i, &word, 4);
    }
    EXPECT(memcmp(table, again, sizeof table) == 0);
    machine_end(&m);
}

TEST(sim_card_wakes_late)
{
    /* memory size is unknown until C2PMSG_33 says that the card's own firmware is up */
    struct sim_options options = {.seed = 1};
    struct sim_host host = {0};
    struct machine m = {.sim = sim_create(&options, &host)};

    EXPECT(m.sim);
    sim_config_write(m.sim, 0, 4, 2, 2);
    EXPECT_EQ(get(&m, R_RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE), 0);
    EXPECT_EQ(get(&m, R_MP0_SMN_C2PMSG_33), 0);
    EXPECT(reaches(&m, R_MP0_SMN_C2PMSG_33, 0x80000000, 0x80000000, 200));
    EXPECT_EQ(get(&m, R_RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE), 24560);
    sim_destroy(m.sim);
}

/* ---- secure processor ---- */

TEST(sim_psp_boot_order)
{
    u32 bytes;
    struct machine m;

    machine_start(&m, NULL);
    EXPECT_EQ(get(&m, R_MP0_SMN_C2PMSG_81), 0);
    EXPECT(psp_os(&m));
    EXPECT(!sim_failure(m.sim));
    machine_end(&m);
    machine_start(&m, NULL);
    const u8 *blob = firmware_boot(PSP_BOOT_SYS, &bytes);
    psp_boot(&m, PSP_BOOT_SYS, blob, bytes);
    EXPECT(machine_found(&m, "psp-order"));
    machine_end(&m);
}

static u8 scratch[512 * 1024];

/* The key database as `change` leaves it, to the boot loader: its answer. */
static u32 boot_changed(struct machine *m, u32 at, u8 flip)
{
    u32 bytes;
    const u8 *blob = firmware_boot(PSP_BOOT_KDB, &bytes);

    if (!blob)
        test_skip("no firmware files in build/firmware");
    memcpy(scratch, blob, bytes);
    scratch[at] ^= flip;
    return psp_boot(m, PSP_BOOT_KDB, scratch, bytes);
}

TEST(sim_psp_refuses_bad_blobs)
{
    /* one flipped bit anywhere in the body, a wrong component, wrong sizes: answered, by name */
    static const struct {
        u32 at;
        u8 flip;
        const char *name;
    } cases[] = {{0, 0, ""},
                 {0x100, 1, "psp-blob-digest"},
                 {0x15ff, 0x80, "psp-blob-digest"},
                 {0xd5, 4, "psp-blob-digest"},
                 {0x10, 1, "psp-blob-magic"},
                 {0x15, 1, "psp-blob-header"},
                 {0x58, 1, "psp-blob-id"}};

    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        struct machine m;
        machine_start(&m, NULL);
        u32 answer = boot_changed(&m, cases[i].at, cases[i].flip);
        EXPECT_EQ(answer != 0, i != 0);
        EXPECT(machine_found(&m, cases[i].name));
        EXPECT(!sim_stopped(m.sim));
        machine_end(&m);
    }
}

TEST(sim_psp_needs_hdp_flush)
{
    u32 bytes;
    const u8 *blob = firmware_boot(PSP_BOOT_KDB, &bytes);
    struct machine m;

    if (!blob)
        test_skip("no firmware files in build/firmware");
    machine_start(&m, NULL);
    vram_put(&m, MSG1, blob, bytes);
    put(&m, R_MP0_SMN_C2PMSG_36, (u32)((FB + MSG1) >> 20));
    put(&m, R_MP0_SMN_C2PMSG_35, PSP_BOOT_KDB);
    sim_wait(m.sim, 10 * NS_PER_MS);
    EXPECT(machine_found(&m, "hdp-not-flushed"));
    machine_end(&m);
}

/* Up to and with the TMR. */
static void ring_and_tmr(struct machine *m)
{
    u32 bytes;

    machine_start(m, NULL);
    EXPECT(psp_os(m) && psp_ring(m));
    const u8 *toc = firmware_toc(&bytes);
    EXPECT_EQ(psp_load(m, PSP_CMD_LOAD_TOC, 0, toc, bytes), 0);
    const u8 *smu = firmware_ip(PSP_FW_SMU, &bytes);
    EXPECT_EQ(psp_load(m, PSP_CMD_LOAD_IP_FW, PSP_FW_SMU, smu, bytes), 0);
    EXPECT_EQ(psp_tmr(m, TMR, 0x1300000), 0);
}

TEST(sim_psp_loads_all)
{
    /* every genuine file, in order; then the autoload is accepted, and not before */
    static const u32 order[] = {PSP_FW_SDMA_TH1, PSP_FW_SDMA_TH0, PSP_FW_MEC,      PSP_FW_MEC_STACK,
                                PSP_FW_IMU_I,    PSP_FW_IMU_D,    PSP_FW_RLC_IRAM, PSP_FW_RLC_DRAM,
                                PSP_FW_RLC_P,    PSP_FW_RLC_V,    PSP_FW_RLC_G};

    for (u32 left_out = 0; left_out <= ARRAY_LEN(order); left_out += 5) {
        struct psp_command autoload = {.id = PSP_CMD_AUTOLOAD_RLC};
        struct machine m;
        u32 bytes;
        ring_and_tmr(&m);
        for (u32 i = 0; i < ARRAY_LEN(order) - (left_out ? 1 : 0); i++) {
            u32 type = order[(i + left_out) % ARRAY_LEN(order)];
            const u8 *blob = firmware_ip(type, &bytes);
            EXPECT_EQ(psp_load(&m, PSP_CMD_LOAD_IP_FW, type, blob, bytes), 0);
            EXPECT(psp_has(m.sim, type));
        }
        EXPECT(!sim_failure(m.sim));
        u32 status = psp_run(&m, &autoload);
        EXPECT_EQ(status != 0, left_out != 0);
        EXPECT(machine_found(&m, left_out ? "psp-autoload-incomplete" : ""));
        machine_end(&m);
    }
}

TEST(sim_psp_refuses_wrong_commands)
{
    struct machine m;
    u32 bytes;

    machine_start(&m, NULL); /* no TMR yet */
    EXPECT(psp_os(&m) && psp_ring(&m));
    const u8 *mec = firmware_ip(PSP_FW_MEC, &bytes);
    psp_load(&m, PSP_CMD_LOAD_IP_FW, PSP_FW_MEC, mec, bytes);
    EXPECT(machine_found(&m, "psp-no-tmr"));
    machine_end(&m);

    ring_and_tmr(&m); /* truncated; then as another type */
    EXPECT(psp_load(&m, PSP_CMD_LOAD_IP_FW, PSP_FW_MEC, mec, bytes - 4) != 0);
    EXPECT(machine_found(&m, "psp-blob-truncated"));
    EXPECT(psp_load(&m, PSP_CMD_LOAD_IP_FW, PSP_FW_MEC_STACK, mec, bytes) != 0);
    EXPECT(str_starts(str_of(m.log), STR("psp-blob-id")));
    EXPECT(!sim_stopped(m.sim));
    vram_put(&m, TMR + 64, "x", 1);
    EXPECT(str_starts(str_of(m.log), STR("tmr-touched")));
    EXPECT(sim_stopped(m.sim));
    machine_end(&m);

    machine_start(&m, NULL); /* too small a TMR */
    EXPECT(psp_os(&m) && psp_ring(&m));
    const u8 *toc = firmware_toc(&bytes);
    EXPECT_EQ(psp_load(&m, PSP_CMD_LOAD_TOC, 0, toc, bytes), 0);
    EXPECT(psp_tmr(&m, TMR, 0x1200000) != 0);
    EXPECT(machine_found(&m, "psp-tmr-small"));
    machine_end(&m);
}

/* ---- power controller ---- */

TEST(sim_smu_messages)
{
    struct smu_metrics metrics;
    struct machine m;
    u32 argument = 0;

    machine_start(&m, NULL);
    EXPECT_EQ(smu_say(&m, SMU_GET_VERSION, &argument), 0); /* nobody there yet */
    EXPECT(!sim_failure(m.sim));
    machine_end(&m);
    ring_and_tmr(&m);
    sim_wait(m.sim, 20 * NS_PER_MS);
    EXPECT_EQ(smu_say(&m, SMU_GET_VERSION, &argument), SMU_OK);
    EXPECT_EQ(argument, 0x4e8000);
    argument = SMU_UCLK << 16 | 0xff;
    EXPECT_EQ(smu_say(&m, SMU_GET_DPM, &argument), SMU_OK);
    EXPECT_EQ(argument, 4);
    argument = SMU_UCLK << 16 | 3;
    EXPECT_EQ(smu_say(&m, SMU_GET_DPM, &argument), SMU_OK);
    EXPECT_EQ(argument, 1249);
    argument = SMU_UCLK << 16 | 1249;
    EXPECT_EQ(smu_say(&m, SMU_SOFT_MIN, &argument), SMU_OK);
    argument = (u32)((FB + 6 * MIB) >> 32);
    EXPECT_EQ(smu_say(&m, SMU_TABLE_HIGH, &argument), SMU_OK);
    argument = (u32)(FB + 6 * MIB);
    EXPECT_EQ(smu_say(&m, SMU_TABLE_LOW, &argument), SMU_OK);
    argument = SMU_TABLE_METRICS;
    EXPECT_EQ(smu_say(&m, SMU_TABLE_TO_DRAM, &argument), SMU_OK);
    sim_vram_read(m.sim, 6 * MIB, &metrics, sizeof metrics);
    EXPECT_EQ(metrics.clock_mhz[SMU_UCLK], 1249);
    EXPECT(!sim_failure(m.sim));
    argument = SMU_UCLK << 16 | 2000;
    EXPECT_EQ(smu_say(&m, SMU_SOFT_MAX, &argument), SMU_FAILED);
    EXPECT(machine_found(&m, "smu-clock-range"));
    argument = 9999;
    EXPECT_EQ(smu_say(&m, SMU_SET_PPT, &argument), SMU_FAILED);
    argument = 0;
    EXPECT_EQ(smu_say(&m, 0x7e, &argument), SMU_UNKNOWN);
    EXPECT(!sim_stopped(m.sim));
    put(&m, R_MP1_SMN_C2PMSG_66, SMU_GET_VERSION); /* the last answer still stands */
    EXPECT(str_starts(str_of(m.log), STR("smu-answer-not-cleared")));
    machine_end(&m);
}

/* Three ways to ask for it. */
static void ask_debug(struct machine *m)
{
    put(m, R_MP1_SMN_C2PMSG_54, 0);
    put(m, R_MP1_SMN_C2PMSG_53, 0);
    put(m, R_MP1_SMN_C2PMSG_75, SMU_DEBUG_MODE1_RESET);
    EXPECT(reaches(m, R_MP1_SMN_C2PMSG_54, ~0u, 1, 50));
}

static void ask_message(struct machine *m)
{
    u32 argument = 0;

    EXPECT_EQ(smu_say(m, SMU_MODE1_RESET, &argument), SMU_OK);
}

static void ask_psp(struct machine *m)
{
    put(m, R_MP0_SMN_C2PMSG_64, 0x70000);
}

/* Through a reset; whether VRAM is still what it was. */
static bool vram_survives(u64 seed, void (*ask)(struct machine *m))
{
    struct sim_options options = {.seed = seed, .bar0_bytes = 32 * GIB};
    u32 word = 0x12345678, seen = 0, bytes;
    struct machine m;

    machine_start(&m, &options);
    EXPECT(psp_os(&m) && psp_ring(&m));
    const u8 *smu = firmware_ip(PSP_FW_SMU, &bytes);
    EXPECT_EQ(psp_load(&m, PSP_CMD_LOAD_IP_FW, PSP_FW_SMU, smu, bytes), 0);
    sim_wait(m.sim, 20 * NS_PER_MS);
    vram_put(&m, 1 * MIB, &word, sizeof word);
    put(&m, R_SCRATCH_REG7, 7);
    sim_config_write(m.sim, 0, 4, 2, 2);
    ask(&m);
    sim_wait(m.sim, 100 * NS_PER_MS);
    EXPECT_EQ(get(&m, R_SCRATCH_REG7), ~0u);
    EXPECT_EQ(sim_config_read(m.sim, 0, 0, 4), ~0u);
    sim_wait(m.sim, 400 * NS_PER_MS);
    EXPECT_EQ(get(&m, R_SCRATCH_REG7), 0);
    EXPECT_EQ(get(&m, R_MP0_SMN_C2PMSG_81), 0);
    EXPECT_EQ(sim_config_read(m.sim, 0, 4, 2), 2);
    sim_vram_read(m.sim, 1 * MIB, &seen, sizeof seen);
    EXPECT(psp_os(&m));
    EXPECT(!sim_failure(m.sim));
    machine_end(&m);
    return seen == word;
}

TEST(sim_smu_mode1_reset)
{
    /* the card dies, comes back without state or mastering; whether VRAM survives is chance */
    void (*const ways[])(struct machine * m) = {ask_debug, ask_message, ask_psp};
    u32 survived = 0, runs = 9;

    for (u32 i = 0; i < runs; i++)
        survived += vram_survives(i, ways[i % 3]);
    EXPECT(survived > 0 && survived < runs);
}

TEST(sim_smu_reset_needs_mastering_off)
{
    struct machine m;

    ring_and_tmr(&m);
    sim_wait(m.sim, 20 * NS_PER_MS);
    put(&m, R_MP1_SMN_C2PMSG_75, SMU_DEBUG_MODE1_RESET);
    sim_wait(m.sim, NS_PER_MS);
    EXPECT(machine_found(&m, "reset-with-bus-master"));
    machine_end(&m);
}

TEST(sim_card_survives_faults)
{
    /* whatever access goes wrong, the card stays a card: no crash, an answer or all ones */
    for (u64 n = 1; n < 130; n += 2) {
        struct sim_options options = {
            .seed = n, .bar0_bytes = 32 * GIB, .fault = {SIM_FAULT_ONES + n / 2 % 4, n}};
        struct machine m;
        u32 bytes;
        const u8 *smu = firmware_ip(PSP_FW_SMU, &bytes);
        if (!smu)
            test_skip("no firmware files in build/firmware");
        machine_start(&m, &options);
        if (psp_os(&m) && psp_ring(&m))
            psp_load(&m, PSP_CMD_LOAD_IP_FW, PSP_FW_SMU, smu, bytes);
        u32 id = sim_config_read(m.sim, 0, 0, 4);
        EXPECT(id == 0x744c1002 || (id == ~0u && sim_stopped(m.sim)));
        machine_end(&m);
    }
}
