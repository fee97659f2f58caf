/*
 * amdgpu.h: public face of the driver for AMD GPUs: brings a card up from cold silicon, owns its
 * memory, runs lists of launches and copies, recovers it. Knows no tensors and no model. Each card
 * is a struct of its own. Nothing here waits: the event loop turns gpu_step. docs/GPU.md says what
 * is done and where each fact comes from.
 */
#ifndef NOHOST_AMDGPU_H
#define NOHOST_AMDGPU_H

#include "kernel/base.h"
#include "pci/pci.h"

#define GPU_VENDOR    0x1002u
#define GPU_CARDS_MAX 8u

struct gpu; /* one card */

/* An address as the card's engines see it; never a CPU or a bus address. */
typedef struct {
    u64 v;
} gpuva;

enum gpu_state { GPU_STARTING, GPU_READY, GPU_RECOVERING, GPU_DEAD };

struct gpu_file {
    struct str name;  /* "gc_11_0_0_mec.bin"; folders before it do not matter */
    struct str bytes; /* stays where it is for ever */
};

struct gpu_config {
    const struct gpu_file *file;
    u32 file_count;
    u32 power_cap_w;   /* 0: as the board says */
    u32 hang_ms;       /* a queue that makes no progress for so long hangs; 0: 30 s */
    u32 scratch_bytes; /* the most that a work-item of a launch may ask for */
    bool cold;         /* start with a reset even when the card was left in order */
};

/* Takes the function: largest BAR, registers, host memory, an interrupt. The card itself is started
 * by gpu_step. E_UNSUPPORTED (not a chip that is known), E_NOTFOUND (a BAR is missing), E_NOMEM. */
err gpu_open(struct gpu **gpu, struct pci_bus *bus, struct pci_dev *dev,
             const struct gpu_config *config);
/* A bounded slice of what there is to do: bring-up, faults, hangs, recovery. Returns whether there
 * is more right now. */
bool gpu_step(struct gpu *gpu);
/* Whether gpu_step has something to see that may have come since it was called: asked with
 * interrupts off, before a halt. True while work is open on a machine without interrupts. */
bool gpu_called(const struct gpu *gpu);
/* Stops the queues, so that the next start finds the card warm. For before a reset of the machine.
 */
void gpu_close(struct gpu *gpu);

struct gpu_status {
    enum gpu_state state;
    const char *step;   /* what it is doing, in words */
    const char *reason; /* of DEAD or of the last recovery; "" */
    u32 vram_losses;    /* grows when what VRAM held is gone: its owner writes it again */
    u32 recoveries;
    u64 vram_bytes, vram_free;
    u32 cu_count, celsius, hotspot_celsius, watts, gfx_mhz, memory_mhz; /* 0: not known */
};
/* The measured values are refreshed by gpu_step about once a second while somebody asks. */
void gpu_status(struct gpu *gpu, struct gpu_status *status);
/* What a probe saw, as one JSON object; reads only. */
void gpu_report(struct gpu *gpu, struct text *json);

/* ---- memory; READY only ---- */

/* VRAM, contiguous, readable, writable and executable by the card; 2 MiB aligned from 2 MiB on.
 * Its contents are whatever was there. E_NOMEM, E_STATE. */
err gpu_alloc(struct gpu *gpu, u64 bytes, gpuva *out);
void gpu_free(struct gpu *gpu, gpuva at);

struct gpu_host { /* memory of this machine that the card may reach, coherent, for ever */
    u8 *ptr;
    gpuva va;
    u64 bytes;
};
err gpu_host_alloc(struct gpu *gpu, u64 bytes, struct gpu_host *out);

/* ---- work; READY only. Everything runs in the order in which it was asked for, but for the
 * launches of one list that do not say `wait`. ---- */

struct gpu_launch {
    const char *name; /* in reports of faults; lives as long as the list; or NULL */
    gpuva code;       /* 256 bytes aligned */
    gpuva kernarg;    /* in the first two SGPRs */
    u32 rsrc1, rsrc2,
        rsrc3; /* COMPUTE_PGM_RSRC1..3 as the compiler gives them; LDS size is added */
    u32 groups[3], group_size[3]; /* a launch of 0 groups is passed over */
    u32 lds_bytes, scratch_bytes; /* of a group; of a work-item */
    bool wait; /* all launches before it have finished and what they wrote is seen */
};

/* Launches written once as packets and submitted as often as wanted: neither work for the CPU nor
 * for the ring grows with their number. They stay good through every recovery. The list lies in
 * host memory that the caller gives and does not touch; when the fences of its submissions have
 * passed, the memory is free for anything else, and nothing more need be done. Kernarg memory may
 * be written between submissions. E_LIMIT: the memory is less than gpu_list_bytes(count), or what
 * one list may hold (26000 launches). E_RANGE: a launch that no card takes. */
struct gpu_list;
u64 gpu_list_bytes(u32 count);
err gpu_list_make(struct gpu *gpu, const struct gpu_host *memory, const struct gpu_launch *launch,
                  u32 count, struct gpu_list **list);
/* Another number of groups for a launch. Not while a submission of the list is open. */
void gpu_list_groups(struct gpu_list *list, u32 idx, const u32 groups[3]);

/* Fences count up; each call gives the one that passes when its work is done and visible. E_BUSY:
 * no room now. E_STATE: not READY. A list is done before the next one starts. */
err gpu_list_submit(struct gpu *gpu, const struct gpu_list *list, u64 *fence);
/* For what runs once: a list in the driver's memory. E_BUSY until the last of these has passed. */
err gpu_submit(struct gpu *gpu, const struct gpu_launch *launch, u32 count, u64 *fence);
err gpu_copy(struct gpu *gpu, gpuva to, gpuva from, u64 bytes, u64 *fence);
err gpu_fill(struct gpu *gpu, gpuva to, u32 word, u64 bytes, u64 *fence); /* whole words */
/* OK: passed. E_BUSY: not yet. E_DEVICE: lost in a recovery, or the card is dead. */
err gpu_fence_passed(struct gpu *gpu, u64 fence);

/* ---- selftest.c ---- */

/* Measures copies, reads and launches and logs each beside what was predicted; READY only, and for
 * nobody else's work. `turn`: one turn of what must go on meanwhile, gpu_step above all. */
err gpu_selftest(struct gpu *gpu, void (*turn)(void *ctx), void *ctx);

#endif
