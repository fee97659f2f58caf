/*
 * card.c: see card.h. Knows the machine of rig.c; must not know programs or models.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/host/card.h"
#include "tests/host/rig.h"
#include "tests/host/tool.h"

#define START_MS     60000u
#define HANG_MS      3600000u /* a strict card computes a long prompt for minutes */
#define LEDGER_BYTES (4 * MIB)

static struct rig machine;

struct gpu *card_open(int argc, char **argv)
{
    const char *device = tool_option(argc, argv, "--device");

    if (!device || !strcmp(device, "cpu"))
        return NULL;
    if (strcmp(device, "sim"))
        tool_fail("there is no device '%s'", device);
    if (!rig_read_firmware(&machine))
        tool_fail("there are no firmware files in build/firmware: tools/fetch firmware");
    machine.real_time = true;
    machine.config.hang_ms = HANG_MS;
    machine.options.fast = tool_flag(argc, argv, "--fast");
    machine.options.threads = (u32)sysconf(_SC_NPROCESSORS_ONLN);
    machine.options.vram_bytes = tool_number(argc, argv, "--vram", 0) * MIB;
    machine.options.trace = tool_option(argc, argv, "--trace");
    rig_power_on(&machine);
    rig_start(&machine, START_MS);
    struct gpu_status status = rig_status(&machine);
    if (status.state != GPU_READY)
        tool_fail("the simulated card: %s: %s", status.step, status.reason);
    return machine.gpu;
}

void card_use(int argc, char **argv, struct ml_config *config)
{
    static struct gpu *cards[1];

    cards[0] = card_open(argc, argv);
    config->gpu = cards;
    config->gpu_count = cards[0] != NULL;
}

bool card_turn(void)
{
    bool more = machine.sim && rig_turn(&machine);

    if (machine.sim && sim_failure(machine.sim))
        tool_fail("the simulated card: %s", sim_failure(machine.sim));
    return more;
}

void card_print(void)
{
    char *json = malloc(LEDGER_BYTES);

    if (machine.sim && json && sim_ledger(machine.sim, json, LEDGER_BYTES) <= LEDGER_BYTES)
        printf(",\"card\":%s", json);
    free(json);
}
