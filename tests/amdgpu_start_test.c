/*
 * amdgpu_start_test.c: the driver and the simulated card, in process, on the card's own clock: from
 * cold silicon to READY and to bytes moved, with a small BAR, after an earlier life, and in
 * whatever way a machine or a file can be wrong.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <time.h>

#include "sim/priv.h"
#include "tests/amdgpu_rig.h"
#include "tests/test.h"

#define START_MS     60000u
#define ACCESSES_MAX 1500u
#define HOST_MS_MAX  50u
#define COPY_BYTES   (5 * MIB + 12)

static struct rig *new_rig(void)
{
    static struct rig rig;

    memset(&rig, 0, sizeof rig);
    rig_firmware(&rig);
    return &rig;
}

static void expect_state(struct rig *rig, enum gpu_state want)
{
    struct gpu_status status = rig_status(rig);

    if (status.state != want)
        test_fail(__FILE__, __LINE__, "state %u at \"%s\": %s; the card: %s", status.state,
                  status.step, status.reason,
                  sim_failure(rig->sim) ? sim_failure(rig->sim) : "no finding");
}

static void expect_ready(struct rig *rig)
{
    expect_state(rig, GPU_READY);
    if (sim_failure(rig->sim))
        test_fail(__FILE__, __LINE__, "READY, but %s", sim_failure(rig->sim));
}

/* Through VRAM and back, more than a packet's worth, odd at the end. */
static void expect_copies(struct rig *rig)
{
    struct gpu_host from, to;
    gpuva vram;
    u64 fence;

    EXPECT_OK(gpu_host_alloc(rig->gpu, COPY_BYTES, &from));
    EXPECT_OK(gpu_host_alloc(rig->gpu, COPY_BYTES, &to));
    EXPECT_OK(gpu_alloc(rig->gpu, COPY_BYTES, &vram));
    for (u32 i = 0; i + 8 <= from.bytes; i += 8) {
        u64 word = test_random();
        memcpy(from.ptr + i, &word, 8);
    }
    EXPECT_OK(gpu_copy(rig->gpu, vram, from.va, COPY_BYTES, &fence));
    EXPECT_OK(gpu_copy(rig->gpu, to.va, vram, COPY_BYTES, &fence));
    EXPECT_OK(rig_wait(rig, fence, 5000));
    EXPECT(memcmp(from.ptr, to.ptr, COPY_BYTES) == 0);
    gpu_free(rig->gpu, vram);
}

static u64 host_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (u64)now.tv_sec * 1000 + (u64)now.tv_nsec / NS_PER_MS;
}

/* The whole way, and what it may cost. The sanitizers make the time here ten times what it is. */
TEST(amdgpu_cold_start_reaches_ready)
{
    struct rig *rig = new_rig();
    u64 start_ms = host_ms();

    rig_power_on(rig);
    rig_start(rig, START_MS);
    u64 took_ms = host_ms() - start_ms;
    expect_ready(rig);
    log_info("test", "%lu accesses, %lu turns, %lu ms of host time", rig->register_accesses,
             rig->turns, took_ms);
    EXPECT(rig->register_accesses <= ACCESSES_MAX);
    EXPECT(took_ms <= 10 * HOST_MS_MAX);
    expect_copies(rig);
    EXPECT(rig->interrupts > 0);
    rig_close(rig);
}

/* 256 MB is what a card shows before anybody asks for more. */
TEST(amdgpu_small_bar_reaches_the_rest_of_vram)
{
    struct rig *rig = new_rig();
    gpuva low, high;
    struct gpu_host bytes;
    u64 fence;

    rig->small_bar = rig->no_msi = true;
    rig_power_on(rig);
    rig_start(rig, START_MS);
    expect_ready(rig);
    expect_copies(rig);
    EXPECT_OK(gpu_alloc(rig->gpu, 20 * GIB, &low));
    EXPECT_OK(gpu_alloc(rig->gpu, 4096, &high)); /* far above the BAR */
    EXPECT_OK(gpu_host_alloc(rig->gpu, 4096, &bytes));
    EXPECT_OK(gpu_fill(rig->gpu, high, 0x12345678, 4096, &fence));
    EXPECT_OK(gpu_copy(rig->gpu, bytes.va, high, 4096, &fence));
    EXPECT_OK(rig_wait(rig, fence, 5000));
    u32 last;
    memcpy(&last, bytes.ptr + 4092, 4);
    EXPECT_EQ(last, 0x12345678);
    EXPECT_EQ(rig->interrupts, 0);
    rig_close(rig);
}

/* Closed in order: the next life finds it warm. Not closed: it is reset first. */
TEST(amdgpu_second_life_is_warm_or_reset)
{
    for (u32 crash = 0; crash < 2; crash++) {
        struct rig *rig = new_rig();
        rig_power_on(rig);
        rig_start(rig, START_MS);
        expect_ready(rig);
        u64 cold_accesses = rig->register_accesses;
        if (!crash)
            gpu_close(rig->gpu);
        rig_walk(rig);
        rig_start(rig, START_MS);
        expect_ready(rig);
        EXPECT(crash == (rig->register_accesses > cold_accesses));
        expect_copies(rig);
        rig_close(rig);
    }
}

TEST(amdgpu_two_cards_have_each_its_own_state)
{
    static struct rig other;
    struct rig *rig = new_rig();

    memset(&other, 0, sizeof other);
    rig_firmware(&other);
    other.file[2].bytes.len--; /* one of them gets a bad file */
    rig_power_on(rig);
    rig_power_on(&other);
    rig_start(&other, START_MS);
    rig_start(rig, START_MS);
    expect_ready(rig);
    expect_state(&other, GPU_DEAD);
    expect_copies(rig);
    rig_close(rig);
    rig_close(&other);
}

/* ---- files that are not what they should be ---- */

static void expect_dead(struct rig *rig, const char *step)
{
    rig_power_on(rig);
    rig_start(rig, START_MS);
    expect_state(rig, GPU_DEAD);
    if (!str_starts(str_of(rig_status(rig).reason), str_of(step)))
        test_fail(__FILE__, __LINE__, "dead at \"%s\", expected \"%s\"", rig_status(rig).reason,
                  step);
    EXPECT_EQ(gpu_fence_passed(rig->gpu, 0), OK);
    EXPECT_EQ(gpu_alloc(rig->gpu, 4096, &(gpuva){}), E_STATE);
    rig_close(rig);
}

TEST(amdgpu_firmware_truncated_missing_swapped)
{
    for (u32 file = 0; file < 6; file++) {
        struct rig *rig = new_rig();
        const usize cut[] = {0, 1, 31, 60, 255, rig->file[file].bytes.len - 1};
        for (u32 i = 0; i < ARRAY_LEN(cut); i++) {
            rig = new_rig();
            rig->file[file].bytes.len = cut[i];
            expect_dead(rig, "firmware files");
        }
        rig = new_rig();
        rig->file[file].name = STR("something-else.bin");
        expect_dead(rig, "firmware files");
        rig = new_rig();
        rig->file[file].bytes = rig->file[(file + 1) % 6].bytes;
        expect_dead(rig, "firmware files");
    }
}

/* What is inside a piece is the secure processor's to judge; its answer must be understood. */
TEST(amdgpu_firmware_damaged_inside)
{
    for (u32 file = 0; file < 6; file++) {
        struct rig *rig = new_rig();
        struct str whole = rig->file[file].bytes;
        char *copy = malloc(whole.len);
        memcpy(copy, whole.ptr, whole.len);
        memset(copy + 256, 0, 64);
        rig->file[file].bytes.ptr = copy;
        expect_dead(rig, "secure processor");
        free(copy);
    }
}

/* The card has been told; what its board does not allow is said, and the card comes up all the
 * same. */
TEST(amdgpu_power_cap)
{
    static const struct {
        u32 wanted, set;
    } cases[] = {{250, 250}, {5000, 0}};

    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        struct rig *rig = new_rig();
        rig->config.power_cap_w = cases[i].wanted;
        rig_power_on(rig);
        u32 board = rig->sim->profile->power_watts;
        rig_start(rig, START_MS);
        expect_state(rig, GPU_READY);
        EXPECT_EQ(rig->sim->smu.power_watts, cases[i].set ? cases[i].set : board);
        EXPECT_EQ(rig->sim->smu.soft_min[0], 0);
        EXPECT_EQ(!sim_failure(rig->sim), cases[i].set != 0);
        EXPECT_EQ(rig_status(rig).recoveries, 0);
        rig_close(rig);
    }
}

/* Read-only, and as good on a card that is dead. */
TEST(amdgpu_report_reads_only)
{
    static char bytes[256 * KIB];
    struct rig *rig = new_rig();
    struct text json = TEXT_ON(bytes);

    rig_power_on(rig);
    rig_start(rig, START_MS);
    expect_ready(rig);
    gpu_report(rig->gpu, &json);
    EXPECT(!json.truncated);
    expect_ready(rig);
    struct str text = text_str(&json);
    EXPECT(str_find(text, STR("\"SCRATCH_REG6\":1")) < text.len);
    EXPECT(str_find(text, STR("\"discovery\":\"07142128")) < text.len);
    expect_copies(rig);
    rig_close(rig);
}
