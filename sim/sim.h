/*
 * sim.h: the simulated Radeon: one card as a device model, without globals. Its front ends (host
 * tests in process, vfio-user for QEMU, tinygrad's REMOTE protocol over TCP) see only this header.
 * The model is strict: what silicon would not do, or a driver should not, ends in a named failure.
 * docs/SIM.md lists the failures and the exceptions.
 */
#ifndef NOHOST_SIM_H
#define NOHOST_SIM_H

#include "kernel/base.h"

struct sim;          /* one card */
struct card_profile; /* what chip and board it is: profile.c */

/* What the card asks of the machine around it. Addresses are bus addresses. */
struct sim_host {
    void *ctx;
    bool (*dma_read)(void *ctx, u64 bus, void *out, u64 bytes); /* false: nothing answers there */
    bool (*dma_write)(void *ctx, u64 bus, const void *in, u64 bytes);
    /* Host memory behind `bus`, good for *bytes; NULL when there is none or it is not to be had. */
    u8 *(*dma_map)(void *ctx, u64 bus, u64 *bytes);
    void (*irq)(void *ctx, u32 vector);       /* MSI */
    void (*log)(void *ctx, const char *line); /* findings, one line each */
};

/* The nth access (registers and config space counted together, from 0) goes wrong once. */
struct sim_fault {
    enum { SIM_FAULT_NONE, SIM_FAULT_ONES, SIM_FAULT_DROP, SIM_FAULT_LATE, SIM_FAULT_GONE } kind;
    u64 nth; /* ONES: a read gives all ones. DROP: no effect. LATE: what it starts takes 10 s more.
              * GONE: the card is off the bus from there on. */
};

struct sim_options {
    const struct card_profile *profile; /* NULL: navi31; outlives the card */
    u64 seed;
    bool fast;      /* falsification off */
    u32 threads;    /* of this machine, for the waves when fast; 0: one */
    bool lenient;   /* findings are logged and counted, the card goes on */
    u64 vram_bytes; /* 0: the profile's. Host memory is used only where touched. */
    u64 bar0_bytes; /* 0: 256 MB, as after power-on; the Resizable BAR capability changes it */
    struct sim_fault fault;
    const char *trace; /* file for the register trace, NULL: none */
    u32 refuse;        /* bit n: exception n of docs/SIM.md is not granted */
};

struct sim *sim_create(const struct sim_options *options, const struct sim_host *host);
void sim_destroy(struct sim *sim);
const struct card_profile *sim_profile(const char *name); /* NULL: no such profile */
/* The profile of the card that a driver's report is about: one report, or what /debug/gpu answers
 * (then of its nth card, around). NULL: `why` says what is wrong. For sim_profile_free, after all
 * cards that use it. */
struct card_profile *sim_profile_read(struct str report, u32 nth, struct text *why);
void sim_profile_free(struct card_profile *profile);

/* Config space of function 0 (GPU) or 1 (audio). width 1, 2 or 4; all ones when nothing answers. */
u32 sim_config_read(struct sim *sim, u32 function, u32 offset, u32 width);
void sim_config_write(struct sim *sim, u32 function, u32 offset, u32 width, u32 value);

/* BAR 0: VRAM, 2: doorbells, 5: registers. width 1, 2, 4 or 8. */
u64 sim_bar_bytes(const struct sim *sim, u32 bar); /* 0: no such BAR */
u64 sim_bar_read(struct sim *sim, u32 bar, u64 offset, u32 width);
void sim_bar_write(struct sim *sim, u32 bar, u64 offset, u32 width, u64 value);
/* Many bytes of BAR 0 at once, as a burst does. */
void sim_vram_read(struct sim *sim, u64 offset, void *out, u64 bytes);
void sim_vram_write(struct sim *sim, u64 offset, const void *in, u64 bytes);
/* The file behind VRAM, for a front end that lets its client map BAR 0: from then on the model
 * cannot see those accesses, and checks of them (HDP, fresh VRAM) are off. */
int sim_vram_fd(struct sim *sim);

void sim_reset(struct sim *sim); /* the bus: function level or hot reset */

/* Lets the card work: about `budget` wave instructions or packets. Returns whether there is more
 * to do right now. Time passes with each access (sim_now_ns) and, when the card only waits, by
 * sim_wait. A front end that runs in real time calls sim_wait with what has passed. */
bool sim_step(struct sim *sim, u64 budget);
void sim_wait(struct sim *sim, u64 ns);
u64 sim_now_ns(const struct sim *sim);

/* The first finding since power-on, NULL when there is none: "name: text". A finding stops the card
 * (all ones from there on) unless it is lenient; what silicon reports by itself (a VM fault, an
 * illegal instruction) is a finding that does not. */
const char *sim_failure(const struct sim *sim);
bool sim_stopped(const struct sim *sim);
u64 sim_findings(const struct sim *sim);
u64 sim_accesses(const struct sim *sim); /* registers and config space, for a fault plan */
/* Totals and the last dispatches as JSON; returns the bytes needed. */
usize sim_ledger(const struct sim *sim, char *json, usize bytes);

#endif
