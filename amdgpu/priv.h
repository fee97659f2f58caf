/*
 * priv.h: one card, and what the files of this room share, grouped by file in bring-up order. A
 * step of the bring-up returns OK (done), E_BUSY (turn me again), or what ended it; who detects
 * something logs once what was expected and what was seen.
 */
#ifndef NOHOST_AMDGPU_PRIV_H
#define NOHOST_AMDGPU_PRIV_H

#include "amdgpu/amdgpu.h"
#include "amdgpu/formats.h"
#include "build/gen/regs.h"

/* `value` at its place in the field `mask`. */
#define FIELD(mask, value) ((u32)(value) << __builtin_ctz(mask))

static inline u32 field_of(u32 value, u32 mask)
{
    return (value & mask) >> __builtin_ctz(mask);
}
static inline u32 low32(u64 v)
{
    return (u32)v;
}
static inline u32 high32(u64 v)
{
    return (u32)(v >> 32);
}

/* Where things lie in VRAM. The first 64 MiB are the driver's and at the same place in every life
 * of the card, so that a warm start finds them; the last 64 MiB belong to the card's firmware. */
enum boot_vram {
    BOOT_ROOT_TABLE = 0x0,
    BOOT_SCRATCH_PAGE = 0x1000, /* where stray system accesses end */
    BOOT_FAULT_PAGE = 0x2000,   /* where faulting accesses end */
    BOOT_IH_WPTR = 0x3000,
    BOOT_MQD = 0x4000,
    BOOT_PSP_COMMAND = 0x6000,
    BOOT_PSP_FENCE = 0x7000,
    BOOT_SMU_TABLE = 0x8000,
    BOOT_PSP_RING = 0x10000,
    BOOT_IH_RING = 0x40000, /* two of them */
    BOOT_PSP_BLOB = 0x100000,
    BOOT_TABLES = 0x200000, /* page tables */
    BOOT_TMR = 0x800000,
    BOOT_END = 0x4000000,
};
#define VRAM_TOP_BYTES (64 * MIB)
#define BLOB_BYTES     (1 * MIB)
#define PSP_RING_BYTES 0x10000u
#define IH_RING_BYTES  0x40000u

/* GPU virtual addresses: VRAM and system memory each at their own address plus a constant. */
#define VA_START 0x200000000000ull
#define VA_LAST  0x7fffffffffffull
#define VA_VRAM  (VA_START)
#define VA_HOST  (VA_START + (1ull << 46))

#define SEGMENTS_MAX 8u
#define PIECES_MAX   24u
#define MAPS_MAX     512u
#define TRIES_MAX    3u
#define TRIES_NS     (600 * NS_PER_S)
#define REASON_BYTES 240u
#define CLOCKS       4u
#define PENDING_MAX  64u

/* A part of a firmware file. */
struct piece {
    enum psp_firmware kind; /* of the secure processor's own: enum psp_piece */
    u32 version;
    struct str bytes;
};

enum ring_kind { RING_COMPUTE, RING_SDMA, RINGS };

struct map { /* sorted by address; what is VRAM and is not here is free */
    u64 va, physical, bytes, flags;
};

/* What card and driver share in system memory. */
struct shared {
    u32 compute[0x4000];
    u32 sdma[0x4000];
    u8 once[0x100000]; /* the list of gpu_submit */
    u8 eop[4096];
    struct shared_queue {
        u64 wptr, rptr, fence, pad[5];
    } queue[RINGS];
};

/* A queue. Positions count words and never wrap; the card gets them in its unit. */
struct ring {
    const char *name;
    u32 *words, count;
    struct shared_queue *queue;
    gpuva va, queue_va;
    u32 doorbell, unit; /* byte in BAR 2; bytes that a position counts for */
    u64 put, tail;      /* next word to write; words before this one are the driver's again */
    struct {
        u64 fence, end;
        const struct gpu_list *list; /* or NULL */
    } pending[PENDING_MAX];
    u32 first, pending_count;
    u64 sent, done;         /* fence numbers: last given out, last seen to have passed */
    u64 lost_from, lost_to; /* from < fence <= to: never passes */
    u64 progress_ns;        /* when `done` last moved, or the queue got its first work */
};

struct gpu {
    const char *name;
    struct pci_dev *dev;
    struct gpu_config config;
    const struct chip *chip;
    struct mmio regs, vram, doorbell; /* vram: as much as BAR 0 shows */
    bool gone;                        /* off the bus */

    /* device.c */
    enum gpu_state state;
    u32 step, sub;         /* row of the table; a counter of the step's own */
    u64 wait_end_ns;       /* 0: nothing is waited for */
    u64 start_ns, step_ns; /* of this try, of this step */
    u32 start_ms;          /* that the last one took; with a reset in it */
    bool start_reset;
    u64 try_ns[TRIES_MAX];
    bool partial;                 /* the card keeps what it was given: queues only */
    bool reset_wanted, was_reset; /* mode 1 */
    u32 faults;                   /* decoded since the queues were started */
    u32 recoveries, vram_losses;
    char reason[REASON_BYTES];
    bool irq_on;
    bool irq; /* set by the handler */

    /* ip.c */
    u32 base[REG_BLOCKS][SEGMENTS_MAX], segments[REG_BLOCKS];
    u32 version[REG_BLOCKS]; /* major << 16 | minor << 8 | revision */
    u64 vram_bytes;
    u32 cu_count, se_count, sa_per_se, waves_per_cu;
    u8 discovery[DISCOVERY_BYTES_MAX];
    u32 discovery_bytes;

    /* firmware.c */
    struct piece boot[PSP_PIECES]; /* of the secure processor, by kind */
    struct piece piece[PIECES_MAX];
    u32 piece_count;
    u64 mec_start;

    /* gmc.c */
    u64 fb_base, fb_end; /* VRAM as the memory hubs see it */
    u32 hdp_flush_at;    /* bytes into the registers */
    u32 window_high;     /* what MM_INDEX_HI holds */
    bool hub_on[2];
    u64 tables_used; /* bytes */
    bool tables_on;  /* else they are written later from what is mapped */
    struct map map[MAPS_MAX];
    u32 map_count;

    /* psp.c, smu.c */
    u32 tmr_bytes, psp_fence; /* fence 0: no command is under way */
    bool smu_sent;
    u32 smu_answer;
    u32 clock_top[CLOCKS]; /* MHz */
    bool metrics_wanted;
    u64 metrics_ns;
    struct smu_metrics metrics;

    /* ring.c */
    struct dma dma;
    struct shared *shared;
    struct ring ring[RINGS];
    gpuva shared_va;
    u64 sequence;

    /* ih.c, list.c */
    u32 ih_rptr;
    u64 ih_look_ns;
    gpuva scratch;
    u64 once_fence; /* of gpu_submit's last list */
};

/* ---- device.c ---- */

/* OK when done; else E_BUSY until timeout_ms after the first such call, then E_TIMEOUT (not
 * logged). One wait at a time. */
err gpu_await(struct gpu *gpu, bool done, u32 timeout_ms);
err gpu_pause(struct gpu *gpu, u32 ms); /* E_BUSY until that has passed */
/* Remembers the first fault in words; gpu_step recovers. Also logs it. */
__attribute__((format(printf, 2, 3))) void gpu_fault(struct gpu *gpu, const char *format, ...);

/* ---- ip.c: registers by name, discovery ---- */

/* All ones are read twice before they are believed: links under stress give them now and then. */
u32 ip_read(struct gpu *gpu, enum reg reg);
void ip_write(struct gpu *gpu, enum reg reg, u32 value);
void ip_write_nth(struct gpu *gpu, enum reg reg, u32 nth, u32 value); /* nth dword after it */
void ip_write_pair(struct gpu *gpu, enum reg low, enum reg high, u64 value);
void ip_update(struct gpu *gpu, enum reg reg, u32 mask, u32 value); /* value: at its place */
void ip_set(struct gpu *gpu, enum reg reg, u32 bits);
struct setting {
    u16 reg;
    u32 mask, value; /* mask 0: a plain write */
};
void ip_run(struct gpu *gpu, const struct setting *row, u32 count);
/* A wait over many turns, as gpu_await, logged. All ones never count as reached. */
err ip_poll(struct gpu *gpu, enum reg reg, u32 mask, u32 want, u32 timeout_ms);
/* A wait of microseconds, here and now; E_TIMEOUT is logged. */
err ip_wait(struct gpu *gpu, enum reg reg, u32 mask, u32 want, u32 timeout_us);
const struct reg_row *ip_row(enum reg reg);
u32 ip_index(const struct gpu *gpu, enum reg reg); /* dwords, as packets name registers */

void ip_start(struct gpu *gpu); /* the bases that are good until the table has been read */
err ip_wake(struct gpu *gpu);
err ip_discover(struct gpu *gpu);

/* ---- firmware.c ---- */

struct chip {
    const char *name;
    u32 gc_version;
    struct firmware_row {
        const char *file;
        u16 major, minor, ip_major, head_bytes;
        err (*split)(struct gpu *gpu, struct str file);
    } firmware[8];
};

const struct chip *firmware_chip(u32 gc_version); /* NULL: not known */
err firmware_split(struct gpu *gpu);

/* ---- gmc.c: memory ---- */

/* Bytes of VRAM, through BAR 0 or, beyond it, the index window; multiples of 4. */
void vram_read(struct gpu *gpu, u64 at, void *out, u64 bytes);
void vram_write(struct gpu *gpu, u64 at, const void *in, u64 bytes);
void vram_zero(struct gpu *gpu, u64 at, u64 bytes);
/* What was written through BAR 0 is seen by the card. */
void gmc_flush_hdp(struct gpu *gpu);
err gmc_soc_start(struct gpu *gpu);
err gmc_mmhub_start(struct gpu *gpu);
err gmc_gchub_start(struct gpu *gpu);
/* Translations that changed are forgotten by every hub that is on. */
err gmc_flush_tables(struct gpu *gpu);
/* Reads, puts into words and clears what a hub has latched; false when there is nothing. */
bool gmc_take_fault(struct gpu *gpu, bool mmhub, struct text *out);

/* ---- memory.c ---- */

err memory_start(struct gpu *gpu); /* empties the tables, maps again what is mapped */
err memory_alloc(struct gpu *gpu, u64 bytes, gpuva *out); /* gpu_alloc in any state */
err memory_map_host(struct gpu *gpu, const struct dma *dma, gpuva *out);
u64 memory_free(const struct gpu *gpu);
/* Which buffer an address is near, and the page walk. */
void memory_describe(struct gpu *gpu, u64 va, struct text *out);

/* ---- psp.c, smu.c ---- */

bool psp_alive(struct gpu *gpu);
err psp_load_system(struct gpu *gpu);
err psp_ring_start(struct gpu *gpu);
err psp_load_toc(struct gpu *gpu);
err psp_load_first(struct gpu *gpu); /* the power controller's firmware */
err psp_setup_tmr(struct gpu *gpu);
err psp_load_all(struct gpu *gpu);
err psp_autoload(struct gpu *gpu);

/* One message, over as many turns as it takes. `answer` may be NULL. */
err smu_ask(struct gpu *gpu, enum smu_message message, u32 argument, u32 *answer);
err smu_hello(struct gpu *gpu); /* OK when it answers within 100 ms */
err smu_enable(struct gpu *gpu);
err smu_clocks(struct gpu *gpu);
/* Resets the whole card when that is wanted. E_STATE: done, start from the beginning. */
err smu_mode1(struct gpu *gpu);
void smu_measure(struct gpu *gpu);

/* ---- ring.c: queues ---- */

err ring_open(struct gpu *gpu);
void ring_drop(struct gpu *gpu);  /* fences that have not passed are lost */
void ring_reset(struct gpu *gpu); /* the same, and the queues are as new */
/* Room for so many words and a fence, or E_BUSY. E_STATE unless READY or on the way. */
err ring_room(struct gpu *gpu, enum ring_kind kind, u32 words);
void ring_put(struct ring *ring, u32 word);
void ring_put64(struct ring *ring, u64 value);
/* The words that the last fence of the other queue will write, 0 when it has passed. */
u32 ring_other(struct gpu *gpu, enum ring_kind kind);
/* The next fence number; then ring_kick tells the card of all that was put. */
u64 ring_fence(struct gpu *gpu, enum ring_kind kind);
void ring_kick(struct gpu *gpu, enum ring_kind kind, const struct gpu_list *list);
static inline gpuva ring_fence_va(const struct gpu *gpu, enum ring_kind kind)
{
    return (gpuva){gpu->ring[kind].queue_va.v + offsetof(struct shared_queue, fence)};
}
void ring_look(struct gpu *gpu); /* notes which fences have passed */
static inline bool ring_idle(const struct ring *ring)
{
    return ring->pending_count == 0;
}

/* ---- ih.c: interrupts ---- */

err ih_start(struct gpu *gpu);
void ih_drain(struct gpu *gpu); /* a bounded number of entries */

/* ---- gfx.c, list.c, sdma.c: *_send: gpu_list_submit, gpu_copy in any state ---- */

err gfx_wait_rlc(struct gpu *gpu);
void gfx_dequeue(struct gpu *gpu); /* takes the queues off the engine */
err gfx_stop(struct gpu *gpu);     /* and resets it */
err gfx_start(struct gpu *gpu);
err gfx_enable(struct gpu *gpu);
err gfx_queue_start(struct gpu *gpu);
err gfx_clock_gating(struct gpu *gpu);
err sdma_send(struct gpu *gpu, gpuva to, gpuva from, u64 bytes, u64 *fence);
/* Where a wave stands, one that has died if there is one; 0: there is none. */
u64 gfx_wave_pc(struct gpu *gpu);
void gfx_describe(struct gpu *gpu, struct text *out); /* what the engine is at */
err list_scratch_start(struct gpu *gpu);
err list_send(struct gpu *gpu, const struct gpu_list *list, u64 *fence);
/* The launch of an open list that has this instruction, and ": "; nothing when none is open. */
void list_describe(const struct gpu *gpu, u64 pc, struct text *out);
void sdma_dequeue(struct gpu *gpu);
err sdma_stop(struct gpu *gpu);
err sdma_start(struct gpu *gpu);
err sdma_queue_start(struct gpu *gpu);

#endif
