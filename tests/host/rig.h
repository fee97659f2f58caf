/*
 * rig.h: a machine with a simulated card in this process: the bus walk, config space and registers
 * of the model, host memory, interrupts. Tests of the driver have one virtual clock that every
 * access moves; for the instrument the machine's clock goes on, and jumps where a start only waits.
 */
#ifndef NOHOST_TESTS_RIG_H
#define NOHOST_TESTS_RIG_H

#include "amdgpu/amdgpu.h"
#include "sim/sim.h"

#define RIG_FILES_MAX 8u

struct rig {
    struct sim *sim;
    struct pci_bus bus;
    struct pci_dev *dev;
    struct gpu *gpu;
    struct gpu_config config;
    struct gpu_file file[RIG_FILES_MAX];
    struct sim_host host;
    struct sim_options options;
    struct rig_bar {
        struct rig *rig;
        u32 bar;
    } bar[6];
    void (*handler)(void *ctx);
    void *handler_ctx;
    u32 interrupts;
    bool no_msi, small_bar;
    bool real_time;        /* the machine's clock, not the card's */
    u64 turned_ns;         /* when, by it */
    u64 register_accesses; /* BAR 5 and config space, but for polls */
    u64 last_read;
    u64 turns;
};

/* Firmware files of build/firmware; false: one cannot be read. */
bool rig_read_firmware(struct rig *rig);
/* Power on; walks the bus. Set what is to be different before. */
void rig_power_on(struct rig *rig);
void rig_walk(struct rig *rig); /* again: the machine was reset, the card kept its power */
/* gpu_open, then gpu_step until READY or DEAD; virtual milliseconds at most. */
void rig_start(struct rig *rig, u64 at_most_ms);
/* One turn of the loop: gpu_step, then the card works; whether either has more to do. */
bool rig_turn(struct rig *rig);
/* Turns until the fence has an answer. */
err rig_wait(struct rig *rig, u64 fence, u64 at_most_ms);
void rig_close(struct rig *rig); /* the driver's memory stays; the card is gone */
struct gpu_status rig_status(struct rig *rig);

#endif
