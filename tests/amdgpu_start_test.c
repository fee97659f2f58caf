/*
 * amdgpu_start_test.c: the driver and the simulated card: from cold silicon to READY.
 */
#include "tests/amdgpu_rig.h"
#include "tests/test.h"

/* The whole way, and what it may cost. */
TEST(amdgpu_cold_start_reaches_ready)
{
    static struct rig rig;

    memset(&rig, 0, sizeof rig);
    rig_firmware(&rig);
    rig_power_on(&rig);
    rig_start(&rig, 30000);
    struct gpu_status status = rig_status(&rig);
    if (status.state != GPU_READY)
        test_fail(__FILE__, __LINE__, "%s: %s; %s", status.step, status.reason,
                  sim_failure(rig.sim) ? sim_failure(rig.sim) : "no finding");
    EXPECT(sim_failure(rig.sim) == NULL);
    rig_close(&rig);
}
