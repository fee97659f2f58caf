/*
 * amdgpu_work_test.c: launches on the simulated card: kernels in RDNA3 machine code (assembled with
 * llvm-mc, its text beside), their order, and what becomes of those that do wrong.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/amdgpu_rig.h"
#include "tests/test.h"

#define START_MS 60000u
#define GROUPS   20u
#define ITEMS    32u
#define CODE     4096u

/* to[group * 32 + item] = base + 4 * (group * 32 + item); kernarg {to, base} */
static const u32 store_code[] = {
    0xf4040100, 0xf8000000, /* s_load_b64 s[4:5], s[0:1], 0 */
    0xf4000180, 0xf8000008, /* s_load_b32 s6, s[0:1], 8 */
    0x360000ff, 0x000003ff, /* v_and_b32 v0, 0x3ff, v0 */
    0x84078702,             /* s_lshl_b32 s7, s2, 7 */
    0xd6460001, 0x001d0500, /* v_lshl_add_u32 v1, v0, 2, s7 */
    0xbf89fc07,             /* s_waitcnt lgkmcnt(0) */
    0x4a040206,             /* v_add_nc_u32 v2, s6, v1 */
    0xdc6a0000, 0x00040201, /* global_store_b32 v1, v2, s[4:5] */
    0xbfb00000,             /* s_endpgm */
};

/* As rig_increment_code, but to[i] = 4 * i + 1 by way of the scratch memory of each item. */
static const u32 scratch_code[] = {
    0xf4040100, 0xf8000000, 0x360000ff, 0x000003ff, 0x84078702,
    0xd6460001, 0x001d0500, 0xdc69003c, 0x007c0100, /* scratch_store_b32 off, v1, off offset:60 */
    0xbc7c0000,                                     /* s_waitcnt_vscnt null, 0 */
    0xdc51003c, 0x027c0000,                         /* scratch_load_b32 v2, off, off offset:60 */
    0xbf890007,                                     /* s_waitcnt vmcnt(0) lgkmcnt(0) */
    0x4a040481,                                     /* v_add_nc_u32 v2, 1, v2 */
    0xdc6a0000, 0x00040201,                         /* global_store_b32 v1, v2, s[4:5] */
    0xbfb00000,                                     /* s_endpgm */
};

static const u32 illegal_code[] = {0xffffffff, 0xbfb00000};
static const u32 spin_code[] = {0xbfa0ffff}; /* s_branch to itself */

struct bench { /* code in VRAM, arguments and results in host memory */
    struct rig *rig;
    gpuva code;
    struct gpu_host staging, kernarg, result;
    u32 code_bytes;
};

static void copy_in(struct bench *b)
{
    u64 fence;

    EXPECT_OK(gpu_copy(b->rig->gpu, b->code, b->staging.va, CODE, &fence));
    EXPECT_OK(rig_wait(b->rig, fence, 1000));
}

static struct bench *setup_with(u32 scratch_bytes, u32 threads)
{
    static struct rig rig;
    static struct bench b;

    memset(&rig, 0, sizeof rig);
    rig.config.scratch_bytes = scratch_bytes;
    rig.options.fast = threads > 0;
    rig.options.threads = threads;
    b = (struct bench){.rig = &rig};
    rig_firmware(&rig);
    rig.config.hang_ms = 1000;
    rig_power_on(&rig);
    rig_start(&rig, START_MS);
    EXPECT_EQ(rig_status(&rig).state, GPU_READY);
    EXPECT_OK(gpu_alloc(rig.gpu, CODE, &b.code));
    EXPECT_OK(gpu_host_alloc(rig.gpu, CODE, &b.staging));
    EXPECT_OK(gpu_host_alloc(rig.gpu, 4096, &b.kernarg));
    EXPECT_OK(gpu_host_alloc(rig.gpu, 4096, &b.result));
    return &b;
}

static struct bench *setup(void)
{
    return setup_with(0, 0);
}

static struct gpu_launch launch_of(struct bench *b, const u32 *code, usize bytes)
{
    struct gpu_launch launch = {.code = {b->code.v + b->code_bytes},
                                .kernarg = b->kernarg.va,
                                .rsrc1 = 0x40af0000, /* 8 VGPRs, denormals, memory in order */
                                .rsrc2 = 0x84,       /* 2 user SGPRs, then the group */
                                .groups = {GROUPS, 1, 1},
                                .group_size = {ITEMS, 1, 1}};

    memcpy(b->staging.ptr + b->code_bytes, code, bytes);
    b->code_bytes += 256;
    copy_in(b);
    return launch;
}

static void set_arguments(struct bench *b, gpuva to, u32 base)
{
    memcpy(b->kernarg.ptr, &to, 8);
    memcpy(b->kernarg.ptr + 8, &base, 4);
}

/* A list whose second launch waits for the first, results read back by the copy engine. */
TEST(amdgpu_kernels_run_in_order_and_are_seen)
{
    struct bench *b = setup();
    struct gpu *gpu = b->rig->gpu;
    struct gpu_launch list[3] = {launch_of(b, store_code, sizeof store_code),
                                 launch_of(b, rig_increment_code, sizeof rig_increment_code)};
    gpuva vram;
    u64 fence;

    EXPECT_OK(gpu_alloc(gpu, 4096, &vram));
    set_arguments(b, vram, 1000);
    list[1].wait = true;
    list[2] = list[1];
    EXPECT_OK(gpu_submit(gpu, list, 3, &fence));
    EXPECT_OK(gpu_copy(gpu, b->result.va, vram, GROUPS * ITEMS * 4, &fence));
    EXPECT_OK(rig_wait(b->rig, fence, 5000));
    for (u32 i = 0; i < GROUPS * ITEMS; i++) {
        u32 seen;
        memcpy(&seen, b->result.ptr + 4 * i, 4);
        EXPECT_EQ(seen, 1002 + 4 * i);
    }
    if (sim_failure(b->rig->sim))
        test_fail(__FILE__, __LINE__, "%s", sim_failure(b->rig->sim));
    rig_close(b->rig);
}

/* ---- lists ---- */

static u32 word_of(const struct gpu_host *host, u32 idx)
{
    u32 word;

    memcpy(&word, host->ptr + 4 * idx, 4);
    return word;
}

static struct gpu_list *list_of(struct bench *b, const struct gpu_launch *launch, u32 count)
{
    struct gpu_host memory;
    struct gpu_list *list;

    EXPECT_OK(gpu_host_alloc(b->rig->gpu, gpu_list_bytes(count), &memory));
    EXPECT_OK(gpu_list_make(b->rig->gpu, &memory, launch, count, &list));
    return list;
}

/* More submissions than the ring and the fence table hold at once: full is E_BUSY, nothing is lost.
 * Then the same list with other groups: none, more, as before. */
TEST(amdgpu_a_list_runs_again_and_again)
{
    struct bench *b = setup();
    struct gpu_launch one = launch_of(b, rig_increment_code, sizeof rig_increment_code);
    struct gpu_launch launch[3];
    const u32 groups[][3] = {{0, 1, 1}, {1, 0, 1}, {1, 1, 0}, {4, 1, 1}, {1, 1, 1}};
    u32 busy = 0, sum = 0;
    u64 fence = 0;

    one.groups[0] = 1;
    one.wait = true;
    for (u32 i = 0; i < ARRAY_LEN(launch); i++)
        launch[i] = one;
    struct gpu_list *list = list_of(b, launch, ARRAY_LEN(launch));
    set_arguments(b, b->result.va, 0);
    memset(b->result.ptr, 0, 4096);
    for (u32 sent = 0; sent < 1000;) {
        err e = gpu_list_submit(b->rig->gpu, list, &fence);
        sent += e == OK;
        busy += e == E_BUSY;
        if (e == E_BUSY)
            rig_turn(b->rig);
    }
    EXPECT_OK(rig_wait(b->rig, fence, 60000));
    EXPECT_EQ(word_of(&b->result, 0), sum = 3000);
    EXPECT(busy > 0);
    for (u32 i = 0; i < ARRAY_LEN(groups); i++) {
        gpu_list_groups(list, 1, groups[i]);
        EXPECT_OK(gpu_list_submit(b->rig->gpu, list, &fence));
        EXPECT_OK(rig_wait(b->rig, fence, 5000));
        sum += i < 3 ? 2 : 3;
        EXPECT_EQ(word_of(&b->result, 31), sum);
        EXPECT_EQ(word_of(&b->result, 127), i < 3 ? 0 : 1);
    }
    if (sim_failure(b->rig->sim))
        test_fail(__FILE__, __LINE__, "%s", sim_failure(b->rig->sim));
    rig_close(b->rig);
}

/* What one launch leaves in the shader's registers is not what the next one runs with: programs,
 * arguments, groups and their sizes alternate. Two lists follow each other and know nothing of
 * what the other has left. */
TEST(amdgpu_launches_of_a_list_differ)
{
    struct bench *b = setup();
    struct gpu_launch store = launch_of(b, store_code, sizeof store_code), launch[9];
    struct gpu_launch add = launch_of(b, rig_increment_code, sizeof rig_increment_code);
    u64 fence;

    set_arguments(b, b->result.va, 5);
    gpuva upper = {b->result.va.v + 2048};
    memcpy(b->kernarg.ptr + 64, &upper, 8);
    memset(b->result.ptr, 0, 4096);
    add.wait = store.wait = true;
    for (u32 i = 0; i < ARRAY_LEN(launch); i++) {
        launch[i] = i % 3 == 0 ? store : add; /* store, add to the lower, add to the upper half */
        launch[i].groups[0] = i % 3 == 2 ? 3 : 2;
        launch[i].group_size[0] = i % 3 == 1 ? 16 : 32;
        launch[i].kernarg.v += i % 3 == 2 ? 64 : 0;
        launch[i].lds_bytes = 1024 * (i % 3);
    }
    struct gpu_list *first = list_of(b, launch, ARRAY_LEN(launch)), *last = list_of(b, launch, 2);
    EXPECT_OK(gpu_list_submit(b->rig->gpu, first, &fence));
    EXPECT_OK(gpu_list_submit(b->rig->gpu, last, &fence));
    EXPECT_OK(rig_wait(b->rig, fence, 5000));
    for (u32 i = 0; i < 1024; i++) {
        u32 lower = i < 64 ? 5 + 4 * i + (i % 32 < 16) : 0;
        EXPECT_EQ(word_of(&b->result, i), i < 512 ? lower : (i < 512 + 96) * 3);
    }
    rig_close(b->rig);
}

static u64 words_read(struct bench *b)
{
    static char json[128 * 1024];

    EXPECT(sim_ledger(b->rig->sim, json, sizeof json) <= sizeof json);
    const char *at = strstr(json, "\"packet_words\":");
    return at ? strtoull(at + strlen("\"packet_words\":"), NULL, 10) : 0;
}

/* What the packet processor reads for a launch with barrier, another kernel, other arguments. */
TEST(amdgpu_a_launch_is_few_words)
{
    struct bench *b = setup();
    struct gpu_launch launch[8];
    u64 words[2], fence;

    set_arguments(b, b->result.va, 5);
    for (u32 i = 0; i < ARRAY_LEN(launch); i++) {
        launch[i] = launch_of(b, store_code, sizeof store_code);
        launch[i].kernarg.v += 64 * i;
        memcpy(b->kernarg.ptr + 64 * i, b->kernarg.ptr, 64);
        launch[i].wait = true;
    }
    for (u32 i = 0; i < 2; i++) {
        u64 before = words_read(b);
        EXPECT_OK(gpu_list_submit(b->rig->gpu, list_of(b, launch, i ? 8 : 1), &fence));
        EXPECT_OK(rig_wait(b->rig, fence, 5000));
        words[i] = words_read(b) - before;
    }
    log_info("test", "%lu words for one launch, then %lu each", words[0],
             (words[1] - words[0]) / 7);
    EXPECT(words[0] <= 80 && words[1] - words[0] <= 7 * 21 + 8);
    rig_close(b->rig);
}

TEST(amdgpu_a_list_that_does_not_fit)
{
    struct bench *b = setup();
    struct gpu_launch one = launch_of(b, store_code, sizeof store_code);
    struct gpu_host memory = b->staging;
    struct gpu_list *list;
    u64 fence;

    memory.bytes = gpu_list_bytes(1) - 4;
    EXPECT_EQ(gpu_list_make(b->rig->gpu, &memory, &one, 1, &list), E_LIMIT);
    EXPECT_EQ(gpu_submit(b->rig->gpu, &one, 1u << 20, &fence), E_LIMIT);
    EXPECT_OK(gpu_submit(b->rig->gpu, &one, 0, &fence));
    EXPECT_EQ(gpu_submit(b->rig->gpu, &one, 0, &fence), E_BUSY);
    rig_close(b->rig);
}

/* More waves than a shader engine has, each with its own; 64 of the 128 bytes that may be asked
 * for. The launch before it has no scratch. */
TEST(amdgpu_scratch_memory)
{
    struct bench *b = setup_with(128, 0);
    struct gpu_launch launch[2] = {launch_of(b, store_code, sizeof store_code),
                                   launch_of(b, scratch_code, sizeof scratch_code)};
    u64 fence;

    set_arguments(b, b->result.va, 0);
    launch[1].scratch_bytes = 64;
    launch[1].rsrc2 |= 1;
    launch[1].wait = true;
    launch[0].groups[0] = launch[1].groups[0] = 4096 / 4 / ITEMS;
    EXPECT_OK(gpu_submit(b->rig->gpu, launch, 2, &fence));
    EXPECT_OK(rig_wait(b->rig, fence, 5000));
    for (u32 i = 0; i < 1024; i++)
        EXPECT_EQ(word_of(&b->result, i), 4 * i + 1);
    launch[1].scratch_bytes = 132;
    EXPECT_EQ(gpu_submit(b->rig->gpu, launch, 2, &fence), E_RANGE);
    if (sim_failure(b->rig->sim))
        test_fail(__FILE__, __LINE__, "%s", sim_failure(b->rig->sim));
    rig_close(b->rig);
}

TEST(amdgpu_launches_that_no_card_takes)
{
    struct bench *b = setup();
    struct gpu_launch good = launch_of(b, store_code, sizeof store_code), bad[5];
    u64 fence;

    for (u32 i = 0; i < ARRAY_LEN(bad); i++)
        bad[i] = good;
    bad[0].group_size[0] = 0;
    bad[1].group_size[1] = 1025;
    bad[2].lds_bytes = 65537;
    bad[3].scratch_bytes = 4;
    bad[4].code.v += 4;
    for (u32 i = 0; i < ARRAY_LEN(bad); i++)
        EXPECT_EQ(gpu_submit(b->rig->gpu, &bad[i], 1, &fence), E_RANGE);
    rig_close(b->rig);
}

/* ---- what a kernel does wrong ---- */

static bool reason_has(struct bench *b, const char *words)
{
    struct str reason = str_of(rig_status(b->rig).reason);

    return str_find(reason, str_of(words)) != reason.len;
}

static void recovered(struct bench *b, u64 fence)
{
    u64 end = time_ns() + 30 * NS_PER_S;

    EXPECT_EQ(rig_wait(b->rig, fence, 30000), E_DEVICE);
    while (rig_status(b->rig).state == GPU_RECOVERING && time_ns() < end)
        rig_turn(b->rig);
    log_info("test", "%s", rig_status(b->rig).reason);
}

/* A fast card's waves in several threads: each item is written once by each launch, whoever took
 * its group; what a wave does wrong is found whichever thread it ran in. */
TEST(amdgpu_waves_in_several_threads)
{
    struct bench *b = setup_with(0, 3);
    struct gpu_launch launch[9];
    struct gpu_host large;
    u64 fence;

    EXPECT_OK(gpu_host_alloc(b->rig->gpu, MIB, &large));
    set_arguments(b, large.va, 3);
    launch[0] = launch_of(b, store_code, sizeof store_code);
    launch[1] = launch_of(b, rig_increment_code, sizeof rig_increment_code);
    for (u32 i = 1; i < ARRAY_LEN(launch); i++)
        launch[i] = launch[1];
    for (u32 i = 0; i < ARRAY_LEN(launch); i++) {
        launch[i].groups[0] = MIB / 4 / ITEMS;
        launch[i].wait = true;
    }
    EXPECT_OK(gpu_submit(b->rig->gpu, launch, ARRAY_LEN(launch), &fence));
    EXPECT_OK(rig_wait(b->rig, fence, 60000));
    for (u32 i = 0; i < MIB / 4; i++)
        EXPECT_EQ(word_of(&large, i), 3 + 4 * i + 8);
    launch[2] = launch_of(b, illegal_code, sizeof illegal_code);
    launch[2].name = "bad";
    launch[2].groups[0] = 100;
    EXPECT_OK(gpu_submit(b->rig->gpu, &launch[2], 1, &fence));
    recovered(b, fence);
    EXPECT(reason_has(b, "bad at ") && reason_has(b, " + 0: shader: illegal instruction"));
    rig_close(b->rig);
}

/* It is told in words, which say the kernel by its name and where in it, and survived: the list
 * runs again without that launch. */
static void expect_fault(const u32 *code, usize bytes, gpuva to, const char *where,
                         const char *words)
{
    struct bench *b = setup();
    struct gpu_launch launch[3] = {launch_of(b, store_code, sizeof store_code),
                                   launch_of(b, code, bytes),
                                   launch_of(b, store_code, sizeof store_code)};
    gpuva other = {b->result.va.v + 2048}; /* where the good ones store */
    u64 fence;

    set_arguments(b, to, 0);
    memcpy(b->kernarg.ptr + 64, &other, 8);
    memcpy(b->kernarg.ptr + 72, &(u32){7}, 4);
    for (u32 i = 0; i < ARRAY_LEN(launch); i++) {
        launch[i].name = i == 1 ? "kernel 17 (softmax)" : "another";
        launch[i].groups[0] = 4;
        launch[i].kernarg.v += i == 1 ? 0 : 64;
        launch[i].wait = true;
    }
    struct gpu_list *list = list_of(b, launch, ARRAY_LEN(launch));
    EXPECT_OK(gpu_list_submit(b->rig->gpu, list, &fence));
    recovered(b, fence);
    EXPECT(reason_has(b, "kernel 17 (softmax) at "));
    EXPECT(reason_has(b, where));
    EXPECT(reason_has(b, words));
    memset(b->result.ptr, 0, 4096);
    gpu_list_groups(list, 1, (u32[3]){});
    EXPECT_OK(gpu_list_submit(b->rig->gpu, list, &fence));
    EXPECT_OK(rig_wait(b->rig, fence, 5000));
    EXPECT_EQ(word_of(&b->result, 512), 7);
    EXPECT_EQ(rig_status(b->rig).vram_losses, 0);
    rig_close(b->rig);
}

TEST(amdgpu_illegal_instruction_is_decoded)
{
    expect_fault(illegal_code, sizeof illegal_code, (gpuva){0}, " + 0: ", "illegal instruction");
}

/* A store is under way when its wave goes on, or ends: where that one was is not known. */
TEST(amdgpu_stray_store_is_decoded)
{
    expect_fault(store_code, sizeof store_code, (gpuva){0x200123400000}, " + ",
                 "VM fault: write of");
}

TEST(amdgpu_endless_kernel_is_a_hang)
{
    expect_fault(spin_code, sizeof spin_code, (gpuva){0}, " + 0: ", "compute queue hangs");
}

/* Launches of one kernel cannot be told apart by where a wave stands: the words say so. */
TEST(amdgpu_a_fault_of_many_alike)
{
    struct bench *b = setup();
    struct gpu_launch launch[3];
    u64 fence;

    launch[0] = launch_of(b, illegal_code, sizeof illegal_code);
    launch[0].name = "q";
    for (u32 i = 1; i < 3; i++)
        launch[i] = launch[0];
    EXPECT_OK(gpu_submit(b->rig->gpu, launch, 3, &fence));
    recovered(b, fence);
    EXPECT(reason_has(b, "q (or one of 2 like it) at "));
    rig_close(b->rig);
}
