/*
 * amdgpu_fault_test.c: what goes wrong while a card works: faults decoded and survived, and every
 * access of a start going wrong once. The only ends: READY with the right bytes, or dead with a
 * reason.
 */
#include <stdlib.h>

#include "tests/amdgpu_rig.h"
#include "tests/test.h"

#define START_MS   60000u
#define RECOVER_MS 20000u
#define BYTES      8192u

static struct rig *start(void)
{
    static struct rig rig;

    memset(&rig, 0, sizeof rig);
    rig_firmware(&rig);
    rig_power_on(&rig);
    rig_start(&rig, START_MS);
    EXPECT_EQ(rig_status(&rig).state, GPU_READY);
    return &rig;
}

static void settle(struct rig *rig)
{
    u64 end = time_ns() + RECOVER_MS * NS_PER_MS;

    do
        rig_turn(rig);
    while (rig_status(rig).state != GPU_READY && rig_status(rig).state != GPU_DEAD &&
           time_ns() < end);
}

/* The copy is lost and says so; what VRAM held is still there; the fault is told in words. */
TEST(amdgpu_vm_fault_is_decoded_and_survived)
{
    struct rig *rig = start();
    struct gpu_host host;
    gpuva vram;
    u64 fence;

    EXPECT_OK(gpu_host_alloc(rig->gpu, BYTES, &host));
    EXPECT_OK(gpu_alloc(rig->gpu, BYTES, &vram));
    memset(host.ptr, 0x5a, BYTES);
    EXPECT_OK(gpu_copy(rig->gpu, vram, host.va, BYTES, &fence));
    EXPECT_OK(rig_wait(rig, fence, 1000));
    EXPECT_OK(gpu_copy(rig->gpu, (gpuva){vram.v + 64 * MIB}, vram, BYTES, &fence));
    EXPECT_EQ(rig_wait(rig, fence, RECOVER_MS), E_DEVICE);
    settle(rig);
    struct gpu_status status = rig_status(rig);
    log_info("test", "reason: %s", status.reason);
    EXPECT_EQ(status.state, GPU_READY);
    EXPECT_EQ(status.recoveries, 1);
    EXPECT_EQ(status.vram_losses, 0);
    struct str reason = str_of(status.reason);
    EXPECT(str_find(reason, STR("VM fault: write of")) < reason.len);
    EXPECT(str_find(reason, STR("behind the buffer at")) < reason.len);
    memset(host.ptr, 0, BYTES);
    EXPECT_OK(gpu_copy(rig->gpu, host.va, vram, BYTES, &fence));
    EXPECT_OK(rig_wait(rig, fence, 1000));
    for (u32 i = 0; i < BYTES; i++)
        EXPECT_EQ(host.ptr[i], 0x5a);
    rig_close(rig);
}

/* The fourth in ten minutes is one too many. */
TEST(amdgpu_three_recoveries_then_dead)
{
    struct rig *rig = start();
    u64 fence;

    for (u32 i = 0; i < 4; i++) {
        EXPECT_EQ(rig_status(rig).state, GPU_READY);
        EXPECT_OK(gpu_fill(rig->gpu, (gpuva){0x200000000000 + 5 * GIB}, 0, 4096, &fence));
        EXPECT_EQ(rig_wait(rig, fence, RECOVER_MS), E_DEVICE);
        settle(rig);
    }
    EXPECT_EQ(rig_status(rig).state, GPU_DEAD);
    EXPECT_EQ(gpu_fill(rig->gpu, (gpuva){0x200000000000}, 0, 4096, &fence), E_STATE);
    EXPECT(!gpu_step(rig->gpu));
    rig_close(rig);
}

/* ---- every access goes wrong once ---- */

/* Copies code and numbers to VRAM, has a kernel add 1, copies them back; the fence of the last. */
static err ask(struct rig *rig, const struct gpu_host host[3], const gpuva vram[2], u64 *fence)
{
    const struct gpu_launch launch = {.code = vram[0],
                                      .kernarg = {host[0].va.v + BYTES / 2},
                                      .rsrc1 = 0xc0000u | 1u << 30,
                                      .rsrc2 = 2u << 1 | 1u << 7,
                                      .groups = {BYTES / 4 / 32, 1, 1},
                                      .group_size = {32, 1, 1}};

    memcpy(host[0].ptr, rig_increment_code, sizeof rig_increment_code);
    memcpy(host[0].ptr + BYTES / 2, &vram[1].v, 8);
    TRY(gpu_copy(rig->gpu, vram[0], host[0].va, BYTES / 2, fence));
    TRY(gpu_copy(rig->gpu, vram[1], host[1].va, BYTES, fence));
    TRY(gpu_submit(rig->gpu, &launch, 1, fence));
    return gpu_copy(rig->gpu, host[2].va, vram[1], BYTES, fence);
}

static bool buffers(struct rig *rig, struct gpu_host host[3], gpuva vram[2])
{
    for (u32 i = 0; i < 3; i++)
        if (gpu_host_alloc(rig->gpu, BYTES, &host[i]) != OK ||
            (i < 2 && gpu_alloc(rig->gpu, BYTES, &vram[i]) != OK))
            return false;
    return true;
}

/* A kernel between copies; all of it is asked for again when it was lost in a recovery. */
static bool works(struct rig *rig)
{
    struct gpu_host host[3];
    gpuva vram[2];
    u64 fence;
    bool ready = false;

    for (u32 tries = 0; tries < 5 && !ready; tries++) {
        settle(rig);
        ready = buffers(rig, host, vram);
    }
    settle(rig);
    for (u32 i = 0; ready && i < BYTES / 4; i++)
        memcpy(host[1].ptr + 4 * i, &(u32){i * 0x9e3779b1u}, 4);
    for (u32 tries = 0; ready && tries < 5; tries++) {
        settle(rig);
        if (ask(rig, host, vram, &fence) != OK || rig_wait(rig, fence, START_MS) != OK)
            continue;
        bool right = true;
        for (u32 i = 0; i < BYTES / 4; i++)
            right &= memcmp(host[2].ptr + 4 * i, &(u32){i * 0x9e3779b1u + 1}, 4) == 0;
        return right;
    }
    return false;
}

/* Ends READY with the right bytes or dead with a reason; a finding of the model stops the card, and
 * is as good as a card that died of it. */
static void run_with(u32 kind, u64 nth, u32 ends[3])
{
    static struct rig rig;

    memset(&rig, 0, sizeof rig);
    rig_firmware(&rig);
    rig.config.hang_ms = 500;
    rig.options.fault.kind = kind;
    rig.options.fault.nth = nth;
    rig_power_on(&rig);
    if (!rig.dev || gpu_open(&rig.gpu, &rig.bus, rig.dev, &rig.config) != OK) {
        ends[2]++;
        rig_close(&rig);
        return;
    }
    u64 end = time_ns() + 4ull * START_MS * NS_PER_MS;
    while (rig_status(&rig).state != GPU_READY && rig_status(&rig).state != GPU_DEAD) {
        rig_turn(&rig);
        if (time_ns() > end)
            test_fail(__FILE__, __LINE__, "fault %u at %lu: neither READY nor dead at \"%s\"", kind,
                      nth, rig_status(&rig).step);
    }
    bool ready = rig_status(&rig).state == GPU_READY && works(&rig);
    struct gpu_status status = rig_status(&rig);
    if (!ready && (status.state != GPU_DEAD || !status.reason[0]))
        test_fail(__FILE__, __LINE__, "fault %u at %lu: state %u, \"%s\"; the card: %s", kind, nth,
                  status.state, status.reason,
                  sim_failure(rig.sim) ? sim_failure(rig.sim) : "no finding");
    ends[ready ? 0 : 1]++;
    if (!ready)
        log_warn("test", "fault %u at %lu: dead: %s; the card: %s", kind, nth, status.reason,
                 sim_failure(rig.sim) ? sim_failure(rig.sim) : "no finding");
    rig_close(&rig);
}

/* A sample; SWEEP_STEP=1 runs all, SWEEP_KIND and SWEEP_NTH one. */
TEST(amdgpu_any_access_may_go_wrong)
{
    const char *wanted = getenv("SWEEP_STEP"), *kind_text = getenv("SWEEP_KIND");
    u64 step = wanted ? strtoull(wanted, NULL, 10) : 97, accesses;
    struct rig *rig = start();
    u32 ends[3] = {};

    EXPECT(works(rig));
    accesses = sim_accesses(rig->sim);
    rig_close(rig);
    if (kind_text) {
        run_with((u32)strtoul(kind_text, NULL, 10), strtoull(getenv("SWEEP_NTH"), NULL, 10), ends);
        return;
    }
    for (u32 kind = SIM_FAULT_ONES; kind <= SIM_FAULT_GONE; kind++)
        for (u64 nth = test_random_below((u32)step); nth < accesses; nth += step)
            run_with(kind, nth, ends);
    log_info("test", "%lu accesses: %u ready, %u dead, %u not taken", accesses, ends[0], ends[1],
             ends[2]);
    EXPECT(ends[0] > 0);
}
