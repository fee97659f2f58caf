/*
 * amdgpu_cards_test.c: several cards in one machine: they come up side by side, each with its own
 * memory, queues and interrupts, and what happens to one is nothing to the others.
 */
#include <string.h>

#include "tests/amdgpu_rig.h"
#include "tests/test.h"

#define CARDS    3u
#define START_MS 60000u
#define WORK_MS  20000u
#define BYTES    4096u

struct machine {
    struct rig card[CARDS];
    struct gpu_host host[CARDS];
    gpuva vram[CARDS];
};

/* A turn of the event loop. */
static void turn(struct machine *m)
{
    for (u32 i = 0; i < CARDS; i++)
        rig_turn(&m->card[i]);
}

static bool all_ended(struct machine *m)
{
    for (u32 i = 0; i < CARDS; i++) {
        enum gpu_state state = rig_status(&m->card[i]).state;
        if (state != GPU_READY && state != GPU_DEAD)
            return false;
    }
    return true;
}

/* `fault`: of the second card. */
static struct machine *start(const struct sim_options *fault)
{
    static struct machine m;

    memset(&m, 0, sizeof m);
    for (u32 i = 0; i < CARDS; i++) {
        struct rig *card = &m.card[i];
        rig_firmware(card);
        card->options.seed = 7 + i;
        if (i == 1)
            card->options.fault = fault->fault;
        rig_power_on(card);
        EXPECT_OK(gpu_open(&card->gpu, &card->bus, card->dev, &card->config));
    }
    u64 end = time_ns() + START_MS * NS_PER_MS;
    while (!all_ended(&m) && time_ns() < end)
        turn(&m);
    return &m;
}

static void finish(struct machine *m)
{
    for (u32 i = 0; i < CARDS; i++) {
        if (i != 1 && sim_failure(m->card[i].sim))
            test_fail(__FILE__, __LINE__, "card %u: %s", i, sim_failure(m->card[i].sim));
        rig_close(&m->card[i]);
    }
}

static void buffers(struct machine *m, u32 i)
{
    EXPECT_OK(gpu_host_alloc(m->card[i].gpu, 2 * BYTES, &m->host[i]));
    EXPECT_OK(gpu_alloc(m->card[i].gpu, BYTES, &m->vram[i]));
}

/* A value of its own into VRAM and back; the fence of the last copy. */
static err ask(struct machine *m, u32 i, u8 value, u64 *fence)
{
    struct gpu *gpu = m->card[i].gpu;
    gpuva back = {m->host[i].va.v + BYTES};

    memset(m->host[i].ptr, value, BYTES);
    memset(m->host[i].ptr + BYTES, 0, BYTES);
    TRY(gpu_copy(gpu, m->vram[i], m->host[i].va, BYTES, fence));
    return gpu_copy(gpu, back, m->vram[i], BYTES, fence);
}

static err answer(struct machine *m, u32 i, u64 fence)
{
    u64 end = time_ns() + WORK_MS * NS_PER_MS;
    err e;

    while ((e = gpu_fence_passed(m->card[i].gpu, fence)) == E_BUSY && time_ns() < end)
        turn(m);
    return e;
}

static void all_work(struct machine *m, u32 but)
{
    u64 fence[CARDS];

    for (u32 i = 0; i < CARDS; i++)
        if (i != but)
            EXPECT_OK(ask(m, i, (u8)(17 + i), &fence[i]));
    for (u32 i = 0; i < CARDS; i++) {
        if (i == but)
            continue;
        EXPECT_OK(answer(m, i, fence[i]));
        for (u32 n = 0; n < BYTES; n++)
            EXPECT_EQ(m->host[i].ptr[BYTES + n], 17 + i);
    }
}

TEST(amdgpu_three_cards_side_by_side)
{
    struct machine *m = start(&(struct sim_options){});

    for (u32 i = 0; i < CARDS; i++) {
        EXPECT_EQ(rig_status(&m->card[i]).state, GPU_READY);
        buffers(m, i);
    }
    all_work(m, CARDS);
    EXPECT(!sim_failure(m->card[1].sim));
    finish(m);
}

/* A fault of one card is its own: it recovers, the others have not noticed. */
TEST(amdgpu_a_fault_of_one_card_of_three)
{
    struct machine *m = start(&(struct sim_options){});
    u64 fence;

    for (u32 i = 0; i < CARDS; i++)
        buffers(m, i);
    EXPECT_OK(gpu_fill(m->card[1].gpu, (gpuva){m->vram[1].v + 5 * GIB}, 0, 4096, &fence));
    all_work(m, 1);
    EXPECT_EQ(answer(m, 1, fence), E_DEVICE);
    while (!all_ended(m))
        turn(m);
    for (u32 i = 0; i < CARDS; i++)
        EXPECT_EQ(rig_status(&m->card[i]).recoveries, i == 1 ? 1 : 0);
    all_work(m, CARDS);
    finish(m);
}

/* A card that falls off the bus at its work dies with a reason; the others work on. */
TEST(amdgpu_a_dead_card_leaves_the_others_alone)
{
    struct machine *m = start(&(struct sim_options){});
    struct sim_options gone = {.fault = {.kind = SIM_FAULT_GONE}};
    u64 fence;

    gone.fault.nth = sim_accesses(m->card[1].sim) + 40;
    finish(m);
    m = start(&gone);
    for (u32 i = 0; i < CARDS; i++)
        buffers(m, i);
    while (rig_status(&m->card[1]).state == GPU_READY)
        if (ask(m, 1, 1, &fence) != OK || answer(m, 1, fence) != OK)
            turn(m);
    EXPECT_EQ(rig_status(&m->card[1]).state, GPU_DEAD);
    struct str reason = str_of(rig_status(&m->card[1]).reason);
    EXPECT(str_find(reason, STR("off the bus")) < reason.len);
    all_work(m, 1);
    finish(m);
}
