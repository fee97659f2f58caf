/*
 * amdgpu_selftest_test.c: what `selftest = gpu` prints, of the simulated card: each row is measured,
 * the kernel that reads reads all of what it says, and what was borrowed is given back.
 */
#include <string.h>

#include "tests/amdgpu_rig.h"
#include "tests/test.h"

#define START_MS 60000u

static void turn(void *ctx)
{
    rig_turn(ctx);
}

TEST(amdgpu_selftest_measures)
{
    static struct rig rig;
    static char json[256 * 1024];
    /* 16 and 64 MiB, 16 bytes of arguments for each of 2560 waves; the two, and 100 each */
    static const char *const counts[] = {"\"load_bytes\":83927040,", "\"dispatches\":202,"};

    memset(&rig, 0, sizeof rig);
    rig_firmware(&rig);
    rig_power_on(&rig);
    rig_start(&rig, START_MS);
    u64 free_before = rig_status(&rig).vram_free;
    EXPECT_OK(gpu_selftest(rig.gpu, turn, &rig));
    EXPECT_EQ(rig_status(&rig).vram_free, free_before);
    EXPECT(!sim_failure(rig.sim));
    EXPECT(sim_ledger(rig.sim, json, sizeof json) <= sizeof json);
    for (u32 i = 0; i < ARRAY_LEN(counts); i++)
        EXPECT(strstr(json, counts[i]));
    rig_close(&rig);
}
