/*
 * wave.h: what the files behind compute.h share: waves, workgroups, decoded instructions, memory in
 * flight. Follows AMD's "RDNA3 Instruction Set Architecture" reference for state (chapter 3) and
 * initial values. wave32 only.
 */
#ifndef NOHOST_SIM_WAVE_H
#define NOHOST_SIM_WAVE_H

#include <pthread.h>
#include <semaphore.h>

#include "sim/compute.h"
#include "sim/isa.h"
#include "sim/traffic.h"

#define LANES             32u
#define LANES_ALL         0xffffffffu
#define VGPRS_MAX         256u
#define SCALARS           128u /* operand codes of what lives in registers */
#define SGPRS_MAX         106u
#define GROUP_WAVES_MAX   32u
#define LDS_BYTES_MAX     65536u
#define RESIDENT_MAX      2048u
#define SLOTS_MAX         4096u
#define HOST_PAGES        256u
#define HELPERS_MAX       63u
#define APERTURE_SHARED   0x0001000000000000ull /* SH_MEM_BASES = 0x10002... */
#define APERTURE_PRIVATE  0x0002000000000000ull
#define APERTURE_OF(addr) ((addr)&0xffffffff00000000ull)

/* Lanes do not depend on each other, whatever rows overlap. */
#ifdef __clang__
#define VECTOR_PRAGMA _Pragma("clang loop vectorize(assume_safety)")
#else
#define VECTOR_PRAGMA _Pragma("GCC ivdep")
#endif
#define VECTOR_LOOP VECTOR_PRAGMA for (u32 i = 0; i < LANES; i++)

struct wave;
struct uop;
typedef u32 lanes[LANES];

/* ---- decoded instructions ---- */

/* One vector operation: rows of 32 lanes, 64-bit values as two rows. Any two rows may be the same.
 */
struct lane_args {
    u32 *d;
    const u32 *s[3];
    u32 in, out; /* a bit each lane: carry or condition */
    bool ieee;
    const struct uop *uop;
};
typedef void lane_fn(struct lane_args *args);

enum lane_type {
    TYPE_none,
    TYPE_u32,
    TYPE_i32,
    TYPE_f32,
    TYPE_b32,
    TYPE_u64,
    TYPE_i64,
    TYPE_f64,
    TYPE_b64,
    TYPE_u16,
    TYPE_i16,
    TYPE_f16,
    TYPE_b16,
    TYPE_pk,    /* two halves, integers */
    TYPE_pkf,   /* two halves, floats */
    TYPE_mask,  /* scalar, a bit each lane */
    TYPE_mix,   /* f32 or f16, by op_sel_hi */
    TYPE_bytes, /* u32 whose neg bit means something else */
};

struct valu_op {
    lane_fn *run, *saturate;
    u8 result, type[3];
};
extern const struct valu_op valu_ops[ISA_OPS];

/* Operations that dot.c computes: X(name, types as in valu.def). */
#define CHOOSERS(X)                                                                                \
    X(v_dot4_i32_iu8, i32, bytes, bytes, u32)                                                      \
    X(v_dot8_i32_iu4, i32, bytes, bytes, u32)                                                      \
    X(v_dot2_f32_f16, f32, pkf, pkf, f32)                                                          \
    X(v_dot2acc_f32_f16, f32, pkf, pkf, f32)                                                       \
    X(v_fma_mix_f32, f32, mix, mix, mix)                                                           \
    X(v_fma_mixlo_f16, f16, mix, mix, mix)                                                         \
    X(v_fma_mixhi_f16, f16, mix, mix, mix)                                                         \
    X(v_mqsad_u32_u8, u32, u64, u32, u64)
#define CHOOSER_PROTOTYPE(name, R, A, B, C) void lanes_##name(struct lane_args *args);
CHOOSERS(CHOOSER_PROTOTYPE)
#undef CHOOSER_PROTOTYPE
/* What does the same with instructions that not every host has; `usual` if there is no such. */
lane_fn *lanes_on_this_host(const struct isa_inst *inst, lane_fn *usual);

enum source { SOURCE_NONE, SOURCE_VGPR, SOURCE_SGPR, SOURCE_CONST, SOURCE_SPECIAL };

struct operand {
    u8 source, type; /* enum source, enum lane_type */
    u8 rows;         /* 1 or 2 */
    bool prepare;    /* modifiers or a choice of halves */
    u16 reg;         /* VGPR or scalar */
    u64 value;       /* SOURCE_CONST */
};

struct span { /* registers: operand codes, VGPRs from ISA_VGPR */
    u16 first, count;
};

enum uop_class {
    CLASS_SALU,
    CLASS_VALU,
    CLASS_VOPD,
    CLASS_DOT,
    CLASS_WMMA,
    CLASS_TRANS,
    CLASS_SMEM,
    CLASS_LDS,
    CLASS_VMEM_LOAD,
    CLASS_VMEM_STORE,
    CLASS_ATOMIC,
    CLASS_BRANCH,
    CLASS_WAIT,
    CLASS_OTHER,
    CLASSES,
};

typedef void uop_run(struct wave *wave, const struct uop *uop);

/* What a wave touches each time comes first, in two lines of the host's cache. */
struct uop {
    _Alignas(64) uop_run *run;
    struct uop *follower; /* what ran after it last time */
    u64 at;               /* its address */
    lane_fn *lanes;
    struct operand src[3];
    u8 class, sources; /* sources: VALU: operands in use */
    bool idle;         /* nothing to do but to be counted when nothing is falsified */
    bool direct;       /* VALU: the result needs no more than a place; VMEM: a plain load */
    bool simple;       /* VALU: its operands too */
    bool rounds;       /* VALU: depends on the modes of rounding and denormals */
    struct isa_inst inst;
    const struct isa_row *row;
    const struct valu_op *valu;
    const struct memory_op *memory;
    struct uop *y; /* VOPD: the second half */
    u8 reads, writes;
    struct span read[8], write[3];
};

/* ---- memory ---- */

enum memory_kind { MEMORY_NONE, MEMORY_LOAD, MEMORY_STORE, MEMORY_ATOMIC };
enum memory_half { HALF_NONE, HALF_LOW, HALF_HIGH }; /* of the register, the rest stays */

typedef u64 atomic_fn(u64 old, u64 data, u64 compare);

struct memory_op {
    u8 kind, bytes; /* of one lane and address */
    u8 half;
    bool sign;
    u16 stride; /* DS: two addresses, their offsets count in this; 0: one address */
    atomic_fn *atomic;
};
extern const struct memory_op memory_ops[ISA_OPS];

/* What an instruction asks of memory. In strict mode it waits in a flight until performed. */
struct access {
    const struct uop *uop;
    u32 exec;
    u32 epoch;          /* barriers passed when it was issued */
    u64 address[LANES]; /* FLAT: as computed, apertures included; SCRATCH, DS: offsets */
    const u32 *out[6];  /* rows of data on their way to memory; DS: 4 and 5 are the second data */
    u32 *in;            /* rows of what comes back; SMEM: SGPRs */
    u32 unknown[16];    /* lanes of each row that hold memory nobody has written; SMEM: all or 0 */
};

struct flight {
    struct flight *next;
    struct access access;
    u64 at; /* the instruction's address */
    u8 unit;
    bool vm, lgkm, vs; /* the counters that hold it */
    bool performed;
    lanes out[6], in[4];
};

/* ---- waves and workgroups ---- */

struct lds_word { /* who touched it last, and after how many barriers */
    u16 write_epoch, read_epoch;
    u8 writer, reader; /* wave + 1; 0: nobody */
    u8 write_bytes : 4, read_bytes : 4, flags;
};

struct group {
    struct group *next;
    u32 id[3], wgp, wave_count, live, waiting;
    u32 size[3];
    u32 lds_bytes;
    u64 first_wait_pc;
    struct wave *wave[GROUP_WAVES_MAX];
    u8 *lds;
    struct lds_word *words; /* strict */
    u8 *written;            /* strict: a bit each byte */
};

enum wave_state { WAVE_RUNNING, WAVE_BARRIER, WAVE_ENDED };

struct strict; /* strict.c */

struct wave {
    _Alignas(64) lanes v[VGPRS_MAX];
    lanes buffer[3][2], result[4]; /* operands and results on their way */
    u32 s[SCALARS];
    u64 at, pc; /* of the instruction that runs, of the next */
    u32 scc, mode, trap_status;
    bool plain_mode, privileged; /* plain: round to nearest, keep denormals */
    struct compute *compute;
    struct group *group;
    u32 index, slot; /* in the group; of scratch memory */
    enum wave_state state;
    u32 vgprs;         /* allocated */
    u64 scratch;       /* address of this wave's part */
    u32 scratch_bytes; /* of one lane; 0: none */
    u64 issued;
    u32 epoch; /* barriers passed */
    struct code_page *code;
    struct strict *strict; /* NULL: falsification off */
    struct wave *next;     /* free ones */
    const struct uop *running;
};

#define VCC  s[ISA_VCC_LO]
#define EXEC s[ISA_EXEC_LO]
#define M0   s[ISA_M0]

/* MODE register fields (ISA 3.3.1). */
#define MODE_ROUND_F32(mode)  ((mode)&3)
#define MODE_ROUND_F64(mode)  ((mode) >> 2 & 3)
#define MODE_DENORM_F32(mode) ((mode) >> 4 & 3)
#define MODE_DENORM_F64(mode) ((mode) >> 6 & 3)
#define MODE_DX10_CLAMP       0x100u
#define MODE_IEEE             0x200u
#define MODE_PLAIN            0x0f0u /* the low 8 bits */
enum { DENORM_KEEP_IN = 1, DENORM_KEEP_OUT = 2 };

/* ---- dispatch.c ---- */

struct host_page {
    u64 va, end; /* end 0: free */
    u8 *host;
    bool write;
};

/* The engine of one host thread. */
struct compute {
    struct compute_memory memory;
    struct compute_options options;
    struct compute_dispatch dispatch;
    enum compute_state state;
    struct compute_failure failure;
    struct compute_ledger ledger;
    u64 count[CLASSES]; /* instructions issued */
    struct traffic traffic;
    u64 random;

    u64 group_count, *next_group, own_next_group; /* *next_group is shared between threads */
    u64 order_mask, order_factor, order_start;
    struct group *group[RESIDENT_MAX];
    u32 resident, resident_max, resident_wish, turn;
    u32 waves_per_group, vgprs, lds_bytes, groups_per_wgp;
    u32 slot_first, slot_count; /* of scratch memory */
    u8 wgp_groups[COMPUTE_WGPS_MAX];
    u64 slots_used[SLOTS_MAX / 64];
    u64 since_progress; /* instructions since a group has ended */
    struct wave *free_waves;
    struct group *free_groups;
    struct flight *free_flights;
    struct code_cache *code;
    struct host_page pages[HOST_PAGES];  /* fast mode: translations */
    struct compute *helper[HELPERS_MAX]; /* the other threads' */
    u32 helper_count;
    /* of a helper */
    pthread_t thread;
    sem_t go, done;
    u64 budget;
    bool asked, leaves;
};

/* Stops the dispatch; the first failure is kept. */
__attribute__((format(printf, 4, 5))) void wave_fail(struct wave *wave, int kind, const char *name,
                                                     const char *format, ...);
/* A finding of strict mode: stops, or is reported when lenient. */
__attribute__((format(printf, 3, 4))) void wave_find(struct wave *wave, const char *name,
                                                     const char *format, ...);
u64 compute_random(struct compute *compute);
/* Host memory of `bytes` from va on; NULL: not in one piece, or a fault, or strict mode. */
u8 *wave_host(struct wave *wave, u64 va, u64 bytes, bool write);

/* ---- groups.c ---- */

static inline u32 bit_field(u32 value, u32 low, u32 bits)
{
    return value >> low & ((1u << bits) - 1);
}
/* Takes the next groups in order until as many are resident as wished; false: none is left. */
bool compute_admit(struct compute *compute);
void compute_group_free(struct compute *compute, struct group *group);
void wave_mode_set(struct wave *wave, u32 mode);
/* The wave waits; when it was the last of its group, all go on. */
void wave_barrier(struct wave *wave);
void wave_end(struct wave *wave);

/* ---- code.c: fetch and decode ---- */

struct code_cache *code_create(void);
void code_forget(struct code_cache *cache);
void code_destroy(struct code_cache *cache);
/* NULL: the wave has failed. */
struct uop *code_at(struct wave *wave, u64 pc);

/* ---- salu.c, flow.c ---- */

bool salu_decode(struct uop *uop);
bool flow_decode(struct uop *uop);

/* ---- valu.c, cross.c, wmma.c ---- */

bool valu_decode(struct uop *uop);
bool cross_decode(struct uop *uop);
bool wmma_decode(struct uop *uop);
u64 operand_scalar(const struct wave *wave, const struct operand *operand);
/* Rows of the operand as it is, without modifiers. */
const u32 *operand_lanes(struct wave *wave, const struct uop *uop, u32 n);
void operand_decode(struct uop *uop, u32 n, enum lane_type type);
void lanes_store(u32 *to, const u32 *from, u32 exec);
/* DPP: lane i of *to is the lane that src0 reads for it; returns the lanes that take part. */
u32 dpp_lanes(const struct isa_inst *inst, u32 exec, u8 from[LANES]);

/* ---- vmem.c, smem.c, lds.c ---- */

bool vmem_decode(struct uop *uop);
bool smem_decode(struct uop *uop);
bool lds_decode(struct uop *uop);
/* Does what the instruction asks of memory. */
void vmem_perform(struct wave *wave, struct access *access);
void smem_perform(struct wave *wave, struct access *access);
void lds_perform(struct wave *wave, struct access *access);
/* Lanes of `exec` whose address is an offset into LDS: FLAT's part that lies there. */
void lds_access(struct wave *wave, struct access *access, u32 exec);
/* Performs and delivers at once, or launches a flight. */
void access_start(struct wave *wave, struct access *access);
bool access_returns(const struct uop *uop);
/* What has come back, into registers; also after a flight. */
void access_deliver(struct wave *wave, const struct access *access);
/* Host bytes on one side, memory on the other. `known` has a bit for each byte of `raw`, set
 * before, cleared where nobody has written; it may be NULL. */
struct move {
    struct wave *wave;
    u8 *raw;
    u32 *known;
    u32 flags; /* struct compute_access */
    bool write;
};
bool memory_read(const struct move *move, u64 va, u32 bytes);

/* ---- strict.c ---- */

struct strict *strict_create(struct wave *wave, u32 scalars);
void strict_destroy(struct strict *strict);
void strict_end(struct wave *wave);
void strict_decode(struct uop *uop); /* which registers it reads and writes */
void strict_before(struct wave *wave, const struct uop *uop);
void strict_after(struct wave *wave, const struct uop *uop);
/* Takes the access over. */
void strict_launch(struct wave *wave, const struct access *access);
void strict_wait(struct wave *wave, u32 vm, u32 lgkm, u32 vs);
void strict_valu_done(struct wave *wave); /* s_waitcnt_depctr va_vdst(0) */

/* A result that begins in the addend's upper half: the bug loses the result's upper half, and LLVM
 * does it where only the lower one is wanted. */
static inline bool mad64_loses_high(const struct uop *uop)
{
    return (uop->inst.op == ISA_v_mad_u64_u32 || uop->inst.op == ISA_v_mad_i64_i32) &&
           uop->inst.src[2] >= ISA_VGPR && uop->inst.dst == uop->inst.src[2] + 1u;
}

/* ---- fresh.c: what nobody has written (strict) ---- */

struct fresh *fresh_create(struct wave *wave, struct fresh *reuse, u32 scalars);
void fresh_before(struct wave *wave, struct fresh *fresh, const struct uop *uop);
/* Remembers what `uop` reads before it runs; sets what it has written after. */
void fresh_after(struct wave *wave, struct fresh *fresh, const struct uop *uop);
void fresh_deliver(struct fresh *fresh, const struct access *access);

#endif
