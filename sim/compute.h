/*
 * compute.h: the shader engines: workgroups of waves that execute RDNA3 machine code out of GPU
 * virtual memory. One `struct compute` runs one dispatch at a time, with its own seed. Knows
 * nothing of packets, queues or registers of the card; it sees memory through ops, so the same
 * engine runs inside the card and under `radeon run`.
 */
#ifndef NOHOST_SIM_COMPUTE_H
#define NOHOST_SIM_COMPUTE_H

#include "kernel/base.h"

#define COMPUTE_WGPS_MAX 64u

#define COMPUTE_LINE 128u
enum { COMPUTE_GLC = 1, COMPUTE_SLC = 2, COMPUTE_DLC = 4, COMPUTE_SCALAR = 8, COMPUTE_FETCH = 16 };
struct compute_access {
    u64 va;
    u32 wgp;
    u32 bytes; /* at most COMPUTE_LINE, never over the end of such a line */
    u32 flags; /* COMPUTE_GLC | COMPUTE_SLC | COMPUTE_DLC; of a load SCALAR or FETCH too */
};

/* What waves see of memory. Addresses are GPU virtual, of one VMID. Each call may fault: then it
 * returns false (NULL), and the engine raises a memory violation of the wave (`compute_fault`). */
struct compute_memory {
    void *ctx;
    /* Fast path: host memory behind the page at `va`, good for *bytes from va on until
     * compute_forget(); NULL when it faults or must not be bypassed (caches are modelled). */
    u8 *(*page)(void *ctx, u64 va, bool write, u64 *bytes);
    /* Through the caches of one WGP. `known` (may be NULL): one bit for each byte, bit 0 of
     * known[0] the first, clear when it was never written. */
    bool (*load)(void *ctx, const struct compute_access *access, void *out, u32 *known);
    bool (*store)(void *ctx, const struct compute_access *access, const void *in);
    /* 4 or 8 bytes, at the GL2: gives the old value, stores fn(old). */
    bool (*atomic)(void *ctx, const struct compute_access *access, u64 (*fn)(void *arg, u64 old),
                   void *arg, u64 *old);
    /* buffer_gl0_inv, buffer_gl1_inv, s_dcache_inv, s_icache_inv. */
    void (*invalidate)(void *ctx, u32 wgp, u32 what);
};
enum { COMPUTE_GL0 = 1, COMPUTE_GL1 = 2, COMPUTE_KCACHE = 4, COMPUTE_ICACHE = 8 };

struct compute_options {
    u64 seed;     /* order of workgroups and waves, latencies, contents of fresh registers */
    bool fast;    /* falsification off */
    bool lenient; /* falsification reports but does not stop: for experiments only */
    u32 wgps;     /* workgroup processors in use, 1..COMPUTE_WGPS_MAX */
    u32 threads;  /* host threads, >= 1; strict mode uses one */
    void (*report)(void *ctx, const char *line); /* lenient findings, s_ttracedata, ... */
    void *report_ctx;
};

/* A launch as the dispatcher sees it: COMPUTE_* registers by meaning. */
struct compute_dispatch {
    u64 code;                      /* of the first instruction */
    u32 rsrc1, rsrc2, rsrc3;       /* COMPUTE_PGM_RSRC1..3 as written, LDS size in rsrc2 */
    u32 groups[3], first[3];       /* workgroups, and where they start */
    u32 group_size[3];             /* work-items a group */
    u32 last_size[3];              /* of the last group of a dimension; 0: full */
    u32 user_data[16];             /* SGPRs 0.. */
    u64 scratch;                   /* base of scratch memory */
    u32 tmpring;                   /* COMPUTE_TMPRING_SIZE */
    bool wave64;                   /* refused: E_UNSUPPORTED */
    u64 trap_handler, trap_memory; /* 0: none */
};

/* Why a dispatch stopped. `name` is stable, kebab-case, documented in docs/SIM.md; `text` is for
 * people: wave, PC, disassembly, register or address. */
struct compute_failure {
    const char *name;
    char text[512];
    u32 group[3], wave;
    u64 pc, address;
    enum { COMPUTE_FALSIFIED, COMPUTE_ILLEGAL, COMPUTE_VIOLATION, COMPUTE_TRAP } kind;
};

/* Counted over one dispatch. */
struct compute_ledger {
    u64 waves, groups, barriers;
    u64 salu, valu, vopd, dot, wmma, trans, smem, lds, vmem_loads, vmem_stores, atomics, branches,
        waits, other;                   /* instructions issued by waves, by class */
    u64 lanes;                          /* active lanes of VALU instructions */
    u64 load_bytes, store_bytes;        /* asked for by active lanes */
    u64 sectors_loaded, sectors_stored; /* 32-byte pieces touched, per instruction */
    u64 requests;                       /* vector memory instructions with an active lane */
    u64 lds_bytes, lds_conflicts;
    u64 lines_loaded;     /* lines of COMPUTE_LINE bytes that loads touch, each once; strict mode */
    u64 flight_bytes_max; /* most loads in flight of one wave; strict mode */
    u64 wgp_groups;       /* groups that find room on a WGP at a time */
};

struct compute;
struct compute *compute_create(const struct compute_memory *memory,
                               const struct compute_options *options);
void compute_destroy(struct compute *compute);
/* E_UNSUPPORTED, E_RANGE (sizes that no such card takes), logged with what was wrong. */
err compute_start(struct compute *compute, const struct compute_dispatch *dispatch);

enum compute_state { COMPUTE_IDLE, COMPUTE_RUNNING, COMPUTE_DONE, COMPUTE_FAILED };
/* Runs about `budget` wave instructions. After FAILED see compute_failure; a new start clears. */
enum compute_state compute_step(struct compute *compute, u64 budget);
const struct compute_failure *compute_failure(const struct compute *compute);
/* The nth wave that a WGP holds now, or false; `halted`: it is the one that failed. */
struct compute_wave {
    u64 pc;
    bool halted;
};
bool compute_wave(const struct compute *compute, u32 wgp, u32 nth, struct compute_wave *out);
const struct compute_ledger *compute_ledger(const struct compute *compute);
/* Ends what runs (a reset of the queue). */
void compute_kill(struct compute *compute);
/* Translations or code may have changed: drops host pointers and decoded instructions. */
void compute_forget(struct compute *compute);

#endif
