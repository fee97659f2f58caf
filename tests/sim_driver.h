/*
 * sim_driver.h: a machine around a simulated card, and the few steps of a driver that tests of the
 * card's base need. It follows the fact sheet, not amdgpu/: two readings of the same facts.
 */
#ifndef NOHOST_TESTS_SIM_DRIVER_H
#define NOHOST_TESTS_SIM_DRIVER_H

#include "sim/priv.h"
#include "tests/test.h"

#define MACHINE_RAM      (8 * MIB)
#define MACHINE_RAM_BASE 0x40000000ull
#define VA_START         0x200000000000ull
#define MSG1             (2 * MIB) /* places in VRAM */
#define RING             (4 * MIB)
#define COMMAND          (RING + 0x10000)
#define FENCE            (COMMAND + 0x1000)
#define TMR              (8 * MIB)
#define ROOT             (40 * MIB)

struct machine {
    struct sim *sim;
    u8 *ram; /* at bus address MACHINE_RAM_BASE */
    u32 irqs;
    char log[640]; /* the last line */
    u32 fence;
    u64 table_next; /* VRAM of the next page table */
};

/* A card with memory and mastering on, BAR 0 of 32 GiB, its own firmware up. `options` NULL: strict
 * navi31. The test calls machine_end. */
void machine_start(struct machine *machine, const struct sim_options *options);
void machine_end(struct machine *machine);
/* Whether the first finding has this name. */
bool machine_found(const struct machine *machine, const char *name);

u32 get(struct machine *machine, enum reg reg);
void put(struct machine *machine, enum reg reg, u32 value);
/* Polls; false after `ms` of the card's time. */
bool reaches(struct machine *machine, enum reg reg, u32 mask, u32 value, u32 ms);
void vram_put(struct machine *machine, u64 at, const void *in, u64 bytes);
void hdp(struct machine *machine);

/* A piece of a firmware file of navi31, NULL: the files are not there. */
const u8 *firmware_boot(u32 command, u32 *bytes);
const u8 *firmware_ip(u32 type, u32 *bytes);
const u8 *firmware_toc(u32 *bytes);

/* The blob into msg1 and to the boot loader; the answer in C2PMSG_35 (0 for the OS, once up). */
u32 psp_boot(struct machine *machine, u32 command, const u8 *blob, u32 bytes);
bool psp_os(struct machine *machine);   /* all of the boot loader's order */
bool psp_ring(struct machine *machine); /* creates it */
/* Runs a command; returns its status. */
u32 psp_run(struct machine *machine, struct psp_command *command);
u32 psp_load(struct machine *machine, u32 id, u32 type, const u8 *blob, u32 bytes);
u32 psp_tmr(struct machine *machine, u64 at, u32 bytes);
/* The answer; *argument goes and comes. */
u32 smu_say(struct machine *machine, u32 message, u32 *argument);

void hub_setup(struct machine *machine, enum hub_kind hub);
/* One leaf of 2^shift bytes at `va` with this entry. */
void map(struct machine *machine, u64 va, u32 shift, u64 entry);
bool invalidate(struct machine *machine, enum hub_kind hub, u32 request);

#endif
