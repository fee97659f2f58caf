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

static struct rig machine[GPU_CARDS_MAX];
static struct gpu *cards[GPU_CARDS_MAX];
static u32 card_count;

static struct gpu *start(struct rig *rig, int argc, char **argv)
{
    if (!rig_read_firmware(rig))
        tool_fail("there are no firmware files in build/firmware: tools/fetch firmware");
    rig->real_time = true;
    rig->config.hang_ms = HANG_MS;
    rig->options.fast = tool_flag(argc, argv, "--fast");
    rig->options.vram_bytes = tool_number(argc, argv, "--vram", 0) * MIB;
    rig->options.trace = tool_option(argc, argv, "--trace");
    rig_power_on(rig);
    rig_start(rig, START_MS);
    struct gpu_status status = rig_status(rig);
    if (status.state != GPU_READY)
        tool_fail("the simulated card: %s: %s", status.step, status.reason);
    return rig->gpu;
}

struct gpu *card_open(int argc, char **argv)
{
    const char *device = tool_option(argc, argv, "--device");
    u64 wanted = tool_number(argc, argv, "--cards", 1);

    if (!device || !strcmp(device, "cpu"))
        return NULL;
    if (strcmp(device, "sim"))
        tool_fail("there is no device '%s'", device);
    if (wanted < 1 || wanted > GPU_CARDS_MAX)
        tool_fail("--cards wants 1 to %u", GPU_CARDS_MAX);
    for (; card_count < wanted; card_count++)
        cards[card_count] = start(&machine[card_count], argc, argv);
    return cards[0];
}

void card_use(int argc, char **argv, struct ml_config *config)
{
    (void)card_open(argc, argv);
    config->gpu = cards;
    config->gpu_count = card_count;
}

bool card_turn(void)
{
    bool more = false;

    for (u32 i = 0; i < card_count; i++) {
        more |= rig_turn(&machine[i]);
        if (sim_failure(machine[i].sim))
            tool_fail("simulated card %u: %s", i, sim_failure(machine[i].sim));
    }
    return more;
}

void card_print(void)
{
    char *json = malloc(LEDGER_BYTES);
    const struct sim *sim = machine[0].sim;

    if (card_count && json && sim_ledger(sim, json, LEDGER_BYTES) <= LEDGER_BYTES)
        printf(",\"card\":%s", json);
    free(json);
}
