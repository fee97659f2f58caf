/*
 * amdgpu_scenario_test.c: a card's working day, without any exception granted: start, kernels that
 * depend on copies and on each other, code and arguments that change at their place, buffers that
 * come and go, a fault, measurements, a warm second life, a third after a reset.
 * tests/witness/mutants.py breaks the driver line by line and wants this to notice.
 */
#include "tests/amdgpu_rig.h"
#include "tests/test.h"

#define START_MS    60000u
#define WORK_MS     5000u
#define ITEMS       4096u
#define GROUP       64u
#define BYTES       (4u * ITEMS)
#define LAUNCHES    4u
#define LARGE_BYTES (4 * MIB)

/* out[i] = in[i] * factor + 1, i = group * 64 + item; s[0:1] points to {in, out}:
 *   s_load_b128 s[4:7], s[0:1], 0x0        v_and_b32 v0, 0x3ff, v0
 *   s_lshl_b32 s2, s2, 6                   v_add_nc_u32 v0, s2, v0
 *   v_lshlrev_b32 v0, 2, v0                s_waitcnt lgkmcnt(0)
 *   global_load_b32 v1, v0, s[4:5]         s_waitcnt vmcnt(0)
 *   v_mad_u32_u24 v1, v1, factor, 1        global_store_b32 v0, v1, s[6:7]
 *   s_endpgm */
#define FACTOR_AT 13u
#define FACTOR(n) (0x02050101u | (0x80u + (n)) << 9)
static const u32 code[] = {
    0xf4080100, 0xf8000000, 0x360000ff, 0x000003ff, 0x84028602, 0x4a000002, 0x30000082, 0xbf89fc07,
    0xdc520000, 0x01040000, 0xbf8903f7, 0xd60b0001, FACTOR(3),  0xdc6a0000, 0x00060100, 0xbfb00000,
};

struct day {
    struct rig *rig;
    struct gpu_host from, to, program, arguments[LAUNCHES];
    gpuva code, in, middle, out;
};

static void wait_for(struct day *day, u64 fence)
{
    err e = rig_wait(day->rig, fence, WORK_MS);

    if (e != OK)
        test_fail(__FILE__, __LINE__, "%s; the card: %s", err_text(e),
                  sim_failure(day->rig->sim) ? sim_failure(day->rig->sim) : "no finding");
}

static void start(struct day *day)
{
    struct gpu *gpu;

    rig_start(day->rig, START_MS);
    if (rig_status(day->rig).state != GPU_READY)
        test_fail(__FILE__, __LINE__, "not ready: %s; the card: %s", rig_status(day->rig).reason,
                  sim_failure(day->rig->sim) ? sim_failure(day->rig->sim) : "no finding");
    gpu = day->rig->gpu;
    struct gpu_host *host[] = {&day->from, &day->to, &day->program};
    gpuva *vram[] = {&day->code, &day->in, &day->middle, &day->out};
    for (u32 i = 0; i < ARRAY_LEN(host); i++)
        EXPECT_OK(gpu_host_alloc(gpu, BYTES, host[i]));
    for (u32 i = 0; i < LAUNCHES; i++)
        EXPECT_OK(gpu_host_alloc(gpu, 16, &day->arguments[i]));
    for (u32 i = 0; i < ARRAY_LEN(vram); i++)
        EXPECT_OK(gpu_alloc(gpu, BYTES, vram[i]));
}

static struct gpu_launch launch(struct day *day, u32 which, gpuva in, gpuva out)
{
    memcpy(day->arguments[which].ptr, (u64[]){in.v, out.v}, 16);
    return (struct gpu_launch){.code = day->code,
                               .kernarg = day->arguments[which].va,
                               .rsrc1 = 0xc0000u | 1u << 30, /* denormals; loads in order */
                               .rsrc2 = 2u << 1 | 1u << 7,   /* two user SGPRs, group id x */
                               .groups = {ITEMS / GROUP, 1, 1},
                               .group_size = {GROUP, 1, 1},
                               .wait = which > 0};
}

static u32 result_of(u32 value, u32 factor)
{
    for (u32 i = 0; i < LAUNCHES; i++)
        value = (value & 0xffffff) * factor + 1;
    return value;
}

/* in -> middle -> out -> middle -> out, each a kernel, between two copies, with this factor in the
 * code; and a buffer of large pages. */
static void work(struct day *day, u32 factor)
{
    struct gpu *gpu = day->rig->gpu;
    u32 *from = (u32 *)day->from.ptr, *to = (u32 *)day->to.ptr;
    gpuva large;
    u64 fence;

    memcpy(day->program.ptr, code, sizeof(code));
    memcpy(day->program.ptr + 4 * (FACTOR_AT - 1), &(u32){FACTOR(factor)}, 4);
    for (u32 i = 0; i < ITEMS; i++)
        from[i] = test_random_below(1u << 20);
    memset(to, 0, BYTES);
    EXPECT_OK(gpu_copy(gpu, day->code, day->program.va, sizeof(code), &fence));
    EXPECT_OK(gpu_fill(gpu, day->out, 0x55555555, BYTES, &fence));
    EXPECT_OK(gpu_copy(gpu, day->in, day->from.va, BYTES, &fence));
    struct gpu_launch list[LAUNCHES] = {
        launch(day, 0, day->in, day->middle), launch(day, 1, day->middle, day->out),
        launch(day, 2, day->out, day->middle), launch(day, 3, day->middle, day->out)};
    EXPECT_OK(gpu_submit(gpu, list, LAUNCHES, &fence));
    EXPECT_OK(gpu_copy(gpu, day->to.va, day->out, BYTES, &fence));
    EXPECT_OK(gpu_alloc(gpu, LARGE_BYTES, &large));
    EXPECT_OK(gpu_fill(gpu, large, factor, LARGE_BYTES, &fence));
    wait_for(day, fence);
    gpu_free(gpu, large);
    for (u32 i = 0; i < ITEMS; i++) {
        if (to[i] != result_of(from[i], factor))
            test_fail(__FILE__, __LINE__, "item %u of factor %u is wrong", i, factor);
    }
}

/* What was freed is out of reach at once; the queues recover and VRAM is as it was. */
static void fault(struct day *day)
{
    struct gpu *gpu = day->rig->gpu;
    gpuva gone;
    u64 fence;

    EXPECT_OK(gpu_alloc(gpu, BYTES, &gone));
    EXPECT_OK(gpu_fill(gpu, gone, 1, BYTES, &fence));
    wait_for(day, fence);
    gpu_free(gpu, gone);
    EXPECT_OK(gpu_fill(gpu, gone, 2, BYTES, &fence));
    EXPECT_EQ(rig_wait(day->rig, fence, WORK_MS), E_DEVICE);
    for (u32 i = 0; i < 100000 && rig_status(day->rig).state != GPU_READY; i++)
        rig_turn(day->rig);
    EXPECT_EQ(rig_status(day->rig).state, GPU_READY);
    EXPECT_EQ(rig_status(day->rig).vram_losses, 0);
}

TEST(amdgpu_scenario)
{
    static struct rig rig;
    static struct day day;

    memset(&rig, 0, sizeof(rig));
    rig_firmware(&rig);
    rig.options.refuse = UINT32_MAX;
    rig_power_on(&rig);
    day = (struct day){.rig = &rig};
    start(&day);
    work(&day, 3);
    work(&day, 5);
    (void)rig_status(&rig);
    for (u32 i = 0; i < 3000; i++)
        rig_turn(&rig);
    EXPECT(rig_status(&rig).celsius > 0 && rig_status(&rig).gfx_mhz > 0);
    EXPECT(rig.interrupts > 0);
    if (sim_failure(rig.sim))
        test_fail(__FILE__, __LINE__, "finding: %s", sim_failure(rig.sim));
    fault(&day);
    work(&day, 7);
    for (u32 life = 0; life < 2; life++) { /* closed well: warm; not closed: reset, then cold */
        if (life == 0)
            gpu_close(rig.gpu);
        rig_walk(&rig);
        start(&day);
        work(&day, 9 + 2 * life);
    }
    EXPECT(!sim_stopped(rig.sim));
    rig_close(&rig);
}
