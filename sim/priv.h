/*
 * priv.h: what the blocks of the simulated card share: the card itself, its register file, virtual
 * time, memory as engines see it, interrupts. Grouped by file, from the bus inwards. One struct sim
 * is one card; nothing here is global.
 */
#ifndef NOHOST_SIM_PRIV_H
#define NOHOST_SIM_PRIV_H

#include "amdgpu/formats.h"
#include "build/gen/regs.h"
#include "sim/compute.h"
#include "sim/sim.h"

#define SIM_VMIDS      16u
#define SIM_TIMERS_MAX 64u
#define NO_REG         ((enum reg)REG_COUNT)

/* Who touches memory: decides caches, the hub and what a fault report says. */
enum unit { UNIT_CP, UNIT_SDMA, UNIT_WAVE, UNIT_PSP, UNIT_SMU, UNIT_IH, UNIT_RLC, UNITS };

/* One accessor. `wgp` for waves. `bypass`: writes go past the GL2 (an SDMA write policy). */
struct client {
    u8 unit, vmid, wgp;
    bool bypass;
};

enum hub_kind { HUB_GC, HUB_MM, HUBS };

/* What a known driver does and silicon tolerates: the table is in card.c, docs/SIM.md lists it. */
enum exception {
    EXCEPT_EARLY_GC,      /* GC registers before the RLC's autoload is complete */
    EXCEPT_MQD_HOLE,      /* the unnamed word between CP_HQD_PQ_DOORBELL_CONTROL and PQ_CONTROL */
    EXCEPT_IH_RPTR_WORDS, /* IH_RB_RPTR as a number of words instead of bytes */
    EXCEPT_PSP_HDP,       /* a frame of the PSP's ring, not flushed from the HDP */
    EXCEPT_PTE_UNALIGNED, /* a large page at a physical address that is no multiple of its size */
    EXCEPT_PEER_CACHED,   /* a host page that is snooped but not uncached: another card's BAR 0 */
    EXCEPTIONS,
};

/* ---- profile.c: chip and board as data ---- */

#define PROFILE_SEGMENTS_MAX 6u

struct profile_ip { /* an entry of the IP discovery table */
    u16 hw_id;
    u8 instance, major, minor, revision;
    u8 segment_count;
    u32 segment[PROFILE_SEGMENTS_MAX]; /* dword addresses */
};

struct profile_blob { /* a firmware component that the card's own loaders accept */
    const char *what;
    u32 type;   /* command of the boot loader, or type of LOAD_IP_FW */
    u16 id;     /* in the header of the signed blob */
    bool plain; /* a header without "$PS1" */
};

struct profile_clock { /* one DPM domain of the SMU */
    u32 id, level_count;
    u16 mhz[8];
};

struct card_profile {
    const char *name;
    u16 vendor, device, subsystem_vendor, subsystem, audio_device;
    u8 revision;
    u64 vram_mb;    /* as RCC_CONFIG_MEMSIZE says it */
    u32 bar0_sizes; /* what Resizable BAR offers; bit n: 2^n MB */
    u64 bar2_mb, bar5_bytes;
    u32 link_speed, link_width, link_speed_max, link_width_max; /* as PCIe encodes them */
    u64 fb_base;                         /* of VRAM in the card's own address space */
    u32 se_count, sa_per_se, wgp_per_sa; /* shader arrays */
    u32 lds_kb, waves_per_simd, scratch_slots;
    const u8 *discovery; /* a real card's table; NULL: made of what stands here */
    u32 discovery_bytes;
    const struct profile_ip *ip;
    u32 ip_count;
    u8 block_ip[REG_BLOCKS];         /* block of regs.txt -> index into ip */
    const struct profile_blob *boot; /* the boot loader's components, in order */
    u32 boot_count;
    const struct profile_blob *firmware; /* LOAD_IP_FW */
    u32 firmware_count;
    u32 toc_id;    /* as profile_blob.id */
    bool boot_tmr; /* the boot loader has made the TMR itself */
    u32 tmr_bytes; /* what LOAD_TOC answers */
    u64 mec_start; /* entry of the MEC's firmware, bytes */
    const struct profile_clock *clock;
    u32 clock_count;
    u32 smu_version, smu_interface, power_watts_min, power_watts_max, power_watts;
};

extern const struct card_profile profile_navi31;
/* The IP discovery blob as it lies in the last 64 KiB of VRAM; returns its bytes. */
void profile_discovery(const struct card_profile *profile, u8 out[DISCOVERY_BYTES_MAX]);
static inline u32 profile_wgps(const struct card_profile *profile)
{
    return profile->se_count * profile->sa_per_se * profile->wgp_per_sa;
}

/* ---- state of the blocks ---- */

struct pci_function {
    u8 space[4096], writable[4096]; /* bits that a write changes */
};

struct nbio {
    u32 mm_index, mm_index_hi, rsmu_index;
};

struct psp {
    enum { PSP_IS_BOOTING, PSP_IS_READY, PSP_IS_LOADING, PSP_IS_STARTING, PSP_IS_UP } state;
    u32 component;        /* next in the profile's order */
    u64 tmr, tmr_bytes;   /* VRAM offset */
    u64 ring;             /* MC address; 0: none */
    u32 ring_bytes, rptr; /* dwords */
    bool busy, toc_loaded, tmr_set;
    u64 loaded; /* bit n: row n of profile->firmware */
};

struct smu {
    bool alive, busy;
    u64 table; /* where the driver wants tables: MC address */
    u32 soft_min[16], soft_max[16], power_watts;
};

struct hub_tlb;
struct hub {
    struct hub_tlb *tlb;
    bool semaphore;
    u32 acked; /* VMIDs */
    u64 ack_ns;
};

struct ih_ring {
    u32 wptr; /* bytes, counting on */
    bool overflow;
};

struct sim_timer {
    u64 at_ns;
    void (*run)(struct sim *sim, u64 argument); /* NULL: free */
    u64 argument;
};

struct vram;        /* memory.c */
struct gfx;         /* gfx.c, cp.c */
struct sdma_engine; /* sdma.c */

struct sim {
    struct sim_options options;
    struct sim_host host;
    const struct card_profile *profile;

    /* Stopped: a finding, off the bus. Dead until: a reset runs. */
    bool stopped, gone;
    u64 dead_until_ns;
    char failure[640];
    u64 findings;

    u64 now_ns, next_timer_ns, accesses, random;
    u32 excepted[EXCEPTIONS];
    u64 late_ns; /* what the access now running starts takes this much longer */
    struct sim_timer timer[SIM_TIMERS_MAX];

    u32 reg[REG_COUNT]; /* the plain contents; blocks override reads and writes */
    u8 owner[REG_COUNT];
    struct reg_address { /* sorted */
        u32 at;          /* dword address */
        enum reg reg;
    } address[REG_COUNT];
    struct trace *trace;

    struct pci_function function[2];
    struct nbio nbio;
    struct psp psp;
    struct smu smu;
    struct hub hub[HUBS];
    struct ih_ring ih[2];
    struct vram *vram;
    struct caches *caches;
    struct gfx *gfx;
    struct sdma_engine *sdma;
};

/* ---- card.c: registers, time, findings, resets ---- */

/* The one way to say that silicon would not take this, or that a driver should not do it. `name` is
 * kebab-case and listed in docs/SIM.md. Stops the card (all ones from here on) unless it is
 * lenient. Always returns false, for `return sim_fail(...)`. */
__attribute__((format(printf, 3, 4))) bool sim_fail(struct sim *sim, const char *name,
                                                    const char *format, ...);
/* The same record and log line for what silicon reports by itself and goes on: VM faults, illegal
 * instructions, bad packets. */
__attribute__((format(printf, 3, 4))) void sim_note(struct sim *sim, const char *name,
                                                    const char *format, ...);
/* Whether this leniency is granted: counts its use, false when the card shall refuse it. */
bool sim_excepted(struct sim *sim, enum exception which);

const char *reg_name(enum reg reg);
enum reg reg_at(const struct sim *sim, u32 dword_address); /* NO_REG */
u32 reg_address(const struct sim *sim, enum reg reg);
static inline u32 reg_field(u32 value, u32 mask)
{
    return (value & mask) / (mask & -mask);
}
/* Access by address, as BAR 5, the index pairs and PM4 do it: dispatches to the owner, counts
 * nothing, traces nothing. An unknown register is a finding. */
u32 reg_read(struct sim *sim, u32 dword_address);
void reg_write(struct sim *sim, u32 dword_address, u32 value);

/* now + ns (a quarter more or less by chance) + what a LATE fault adds. */
u64 sim_after(struct sim *sim, u64 ns);
/* Runs `run` then; a reset forgets it. */
void sim_at(struct sim *sim, u64 ns, void (*run)(struct sim *sim, u64 argument), u64 argument);
u64 sim_random(struct sim *sim);

enum reset_kind { RESET_POWER_ON, RESET_MODE1, RESET_FUNCTION, RESET_BUS };
/* All state of all blocks is lost, VRAM is kept (mode 1, function, bus) or fresh; the card answers
 * all ones for `ns`. */
void card_reset(struct sim *sim, enum reset_kind kind, u64 ns);

/* ---- trace.c: registers as the driver reaches them, in the format of tinygrad's trace ---- */

struct trace *trace_open(const char *path); /* NULL: cannot */
void trace_register(struct sim *sim, bool write, u32 dword_address, u32 value);
void trace_close(struct trace *trace);

/* ---- pci.c ---- */

void pci_reset(struct sim *sim, enum reset_kind kind);
u32 pci_read(struct sim *sim, u32 function, u32 offset, u32 width);
void pci_write(struct sim *sim, u32 function, u32 offset, u32 width, u32 value);
u64 pci_bar0_bytes(const struct sim *sim);
u64 pci_bar2_bytes(const struct sim *sim);
bool pci_bus_master(const struct sim *sim);
bool pci_memory_space(const struct sim *sim);
/* Host memory by bus address. False: nobody there, or no bus master (a finding). */
bool dma_read(struct sim *sim, u64 bus, void *out, u64 bytes);
bool dma_write(struct sim *sim, u64 bus, const void *in, u64 bytes);
u8 *dma_map(struct sim *sim, u64 bus, u64 *bytes);
void pci_msi(struct sim *sim); /* vector 0, when enabled */

/* ---- nbio.c ---- */

void nbio_reset(struct sim *sim);
bool nbio_read(struct sim *sim, enum reg reg, u32 *value);
bool nbio_write(struct sim *sim, enum reg reg, u32 value);
/* A store into BAR 5 at byte `offset`: whether it hit the place that flushes the HDP. */
bool nbio_sink(struct sim *sim, u64 offset);
/* A store into BAR 2 at byte `offset`: aperture, S2A routing, then gfx_doorbell/sdma_doorbell. */
void nbio_doorbell(struct sim *sim, u64 offset, u64 value, u32 width);

/* ---- hub.c: GCHUB and MMHUB ---- */

struct page {    /* one translation */
    u64 address; /* physical VRAM offset, or bus address, of what was asked for */
    u64 bytes;   /* good from there on */
    bool system, snooped, readable, writable, executable, cached;
};
enum page_use { USE_READ, USE_WRITE, USE_EXECUTE };

void hub_reset(struct sim *sim);
void hub_destroy(struct sim *sim);
bool hub_read(struct sim *sim, enum reg reg, u32 *value);
bool hub_write(struct sim *sim, enum reg reg, u32 value);
/* The hub follows from the unit (CP, SDMA, waves, RLC: GCHUB). False: fault, already latched,
 * raised and noted. */
bool hub_translate(struct sim *sim, struct client who, u64 va, enum page_use use,
                   struct page *page);

/* ---- memory.c: VRAM, caches, HDP, known bytes ---- */

err memory_create(struct sim *sim, u64 vram_bytes);
void memory_destroy(struct sim *sim);
void memory_reset(struct sim *sim, enum reset_kind kind);
u64 vram_bytes(const struct sim *sim);
/* Through the hub (CP, SDMA, PSP, SMU, IH, RLC; MC addresses of VMID 0 too). Any size. False: the
 * access faulted, nothing more is to be done but to stop the queue. */
bool mem_read(struct sim *sim, struct client who, u64 va, void *out, u64 bytes);
bool mem_write(struct sim *sim, struct client who, u64 va, const void *in, u64 bytes);
/* Host memory behind va, good for *bytes; NULL when it faults or caches are modelled (strict). */
u8 *mem_page(struct sim *sim, struct client who, u64 va, bool write, u64 *bytes);
/* ACQUIRE_MEM's and RELEASE_MEM's work, with the bits of GCR_CNTL by meaning. */
enum {
    CACHE_GLV_INV = 1, /* GL0 */
    CACHE_GL1_INV = 2,
    CACHE_GLK_INV = 4, /* scalar */
    CACHE_GLI_INV = 8, /* instructions */
    CACHE_GL2_WB = 16,
    CACHE_GL2_INV = 32,
    CACHE_ALL = 63,
};
void mem_cache(struct sim *sim, u32 what);
/* The CPU's side, through BAR 0. */
void mem_cpu_read(struct sim *sim, u64 offset, void *out, u64 bytes);
void mem_cpu_write(struct sim *sim, u64 offset, const void *in, u64 bytes);
void mem_hdp_flush(struct sim *sim);
bool mem_in_hdp(const struct sim *sim, u64 offset, u64 bytes); /* written, not flushed yet */
/* For the hubs' walkers: an entry of a page table in VRAM; how often such memory was written. */
bool mem_table_read(struct sim *sim, u64 offset, u64 *entry);
u32 mem_tables_changed(const struct sim *sim);

/* Whether the access is one that silicon gets right (else a finding), with what it changes in the
 * marks. */
bool vram_read_allowed(struct sim *sim, struct client who, u64 at, u64 bytes, bool cached);
bool vram_written(struct sim *sim, struct client who, u64 at, u64 bytes, bool cached);
u8 *vram_pointer(struct sim *sim, u64 at);
/* One bit for each byte, clear when it was never written. */
void vram_known(const struct sim *sim, u64 at, u32 bytes, u32 *known);

/* ---- caches.c: GL0, GL1, scalar and instruction caches, and memory as waves see it ---- */

err caches_create(struct sim *sim);
void caches_destroy(struct sim *sim);
void caches_drop(struct sim *sim, u32 what); /* CACHE_*, of all WGPs */
/* For compute_create: COMPUTE_* semantics, one view a VMID. */
void mem_for_waves(struct sim *sim, u32 vmid, struct compute_memory *out);

/* ---- ih.c ---- */

struct ih_event {
    u8 client, source, ring, vmid;
    u32 ctx[4];
};
void ih_reset(struct sim *sim);
bool ih_read(struct sim *sim, enum reg reg, u32 *value);
bool ih_write(struct sim *sim, enum reg reg, u32 value);
/* Into ring 0 when it is enabled; lost otherwise, as on silicon. */
void ih_raise(struct sim *sim, const struct ih_event *event);

/* ---- sha256.c, psp.c, smu.c ---- */

void sha256(const u8 *data, usize bytes, u8 digest[32]);

void psp_reset(struct sim *sim);
bool psp_write(struct sim *sim, enum reg reg, u32 value);
/* The PSP's own memory, which nobody else may touch: whether the range meets it. */
bool psp_owns(const struct sim *sim, u64 offset, u64 bytes);
bool psp_has(const struct sim *sim, u32 firmware_type); /* loaded by LOAD_IP_FW */
void smu_reset(struct sim *sim);
bool smu_write(struct sim *sim, enum reg reg, u32 value);
void smu_mode1_reset(struct sim *sim); /* asks for it: the card dies a little later */
void smu_start(struct sim *sim);       /* the PSP has loaded its firmware */

/* ---- gfx.c, cp.c, sdma.c: GC's registers but GCVM_* and GCMC_* (hub.c) ---- */

/* read and write: true when the block has dealt with it entirely; false: plain contents, sim->reg.
 */
err gfx_create(struct sim *sim);
void gfx_destroy(struct sim *sim);
void gfx_reset(struct sim *sim);
bool gfx_read(struct sim *sim, enum reg reg, u32 *value);
bool gfx_write(struct sim *sim, enum reg reg, u32 value);
/* GC addresses without a row in regs.txt (COMPUTE_USER_DATA_1 ...): true when taken. */
bool gfx_write_unnamed(struct sim *sim, u32 dword_address, u32 value);
/* The PSP has run AUTOLOAD_RLC: the RLC boots, CP_STAT and BOOTLOAD_STATUS follow. */
void gfx_autoload(struct sim *sim);
void gfx_doorbell(struct sim *sim, u64 offset, u64 value, u32 width); /* bytes in BAR 2 */
bool gfx_step(struct sim *sim, u64 budget); /* whether there is more to do right now */
usize gfx_ledger(const struct sim *sim, char *json, usize bytes);

err sdma_create(struct sim *sim);
void sdma_destroy(struct sim *sim);
void sdma_reset(struct sim *sim);
bool sdma_read(struct sim *sim, enum reg reg, u32 *value);
bool sdma_write(struct sim *sim, enum reg reg, u32 value);
void sdma_doorbell(struct sim *sim, u64 offset, u64 value, u32 width);
bool sdma_step(struct sim *sim, u64 budget);

#endif
