/*
 * amdgpu_selftest_test.c: what `selftest = gpu` does, with the simulated card: the kernel that
 * reads reads all of what it says, and what was borrowed is given back.
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
    static const char *const part = "\"load_bytes\":16785408,"; /* 16 MiB, arguments of 512 waves */

    memset(&rig, 0, sizeof rig);
    rig_firmware(&rig);
    rig_power_on(&rig);
    rig_start(&rig, START_MS);
    u64 free_before = rig_status(&rig).vram_free;
    EXPECT_OK(gpu_selftest(rig.gpu, turn, &rig));
    EXPECT_EQ(rig_status(&rig).vram_free, free_before);
    EXPECT(!sim_failure(rig.sim));
    EXPECT(sim_ledger(rig.sim, json, sizeof json) <= sizeof json);
    EXPECT(strstr(json, part));
    rig_close(&rig);
}
