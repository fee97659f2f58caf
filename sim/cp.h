/*
 * cp.h: what the files of the graphics block share: the MEC's queues (gfx.c: registers and resets,
 * cp.c: the stream of a queue and its dispatches, pm4.c: packets, ledger.c: what was done).
 */
#ifndef NOHOST_SIM_CP_H
#define NOHOST_SIM_CP_H

#include "sim/priv.h"

#define CP_PIPES       4u
#define CP_PIPE_QUEUES 4u
#define CP_QUEUES      (CP_PIPES * CP_PIPE_QUEUES)
#define HQD_WORDS      MQD_HQD_COUNT
#define SH_WORDS       80u /* COMPUTE_DISPATCH_INITIATOR to COMPUTE_USER_DATA_15 */
#define PENDING_MAX    8u
#define PACKET_MAX     128u /* words that a packet with a meaning may have */
#define LEDGER_LAST    256u

struct stream { /* the ring, or an indirect buffer */
    u64 va;
    u32 at, words;
    u32 skip; /* words to pass over */
};

struct queue {
    u32 number; /* pipe * CP_PIPE_QUEUES + queue */
    u32 hqd[HQD_WORDS], sh[SH_WORDS];
    bool active, connected;   /* connected: its descriptor was read, at the first work */
    bool stuck;               /* only a reset gets it going */
    u64 rptr, wptr, reported; /* words since the start */
    struct stream ib[2];
    u32 depth; /* indirect buffers that are open */
    u32 ring_skip;
    struct compute *compute;
    u8 compute_vmid;
    bool running;
    struct compute_dispatch current, pending[PENDING_MAX];
    u32 pending_count;
};

struct ledger_dispatch {
    u64 code, at_ns;
    u32 groups[3], group_size[3];
    struct compute_ledger done;
};

struct ledger {
    u64 packets, words, dispatches, events, releases, acquires, waits, ibs, written_bytes;
    struct compute_ledger total;
    struct ledger_dispatch last[LEDGER_LAST]; /* dispatches % LEDGER_LAST comes next */
};

struct gfx {
    enum { RLC_DOWN, RLC_BOOTING, RLC_UP } rlc;
    u32 sh_mem_config[SIM_VMIDS], sh_mem_bases[SIM_VMIDS];
    struct pipe {
        u32 start_lo, start_hi;
        bool reset_seen; /* since the start address was set */
        u64 up_ns;       /* 0: not running */
        bool wedged;     /* a queue of it died: needs a reset of the CP */
    } pipe[CP_PIPES];
    struct queue queue[CP_QUEUES];
    struct ledger ledger;
};

/* ---- gfx.c ---- */

bool pipe_running(const struct sim *sim, u32 pipe);
/* By the register's place behind CP_MQD_BASE_ADDR. */
u32 hqd_word(const struct sim *sim, const struct queue *queue, enum reg reg);
u32 sh_word(const struct sim *sim, const struct queue *queue, enum reg reg);
struct client queue_client(const struct sim *sim, const struct queue *queue);

/* ---- cp.c ---- */

/* The queue's registers were loaded and say that it is to run. False: a finding. */
bool queue_start(struct sim *sim, struct queue *queue);
void queue_stop(struct sim *sim, struct queue *queue); /* kills its waves too */
bool queue_step(struct sim *sim, struct queue *queue, u64 budget);
/* From here on nothing happens on it; `ih` (may be NULL) tells the driver. Returns false. */
bool queue_wedge(struct sim *sim, struct queue *queue, const struct ih_event *ih);
u32 queue_ring_words(const struct sim *sim, const struct queue *queue);
/* Words at a position of what is being read now, which has that many left. False: it faulted. */
bool queue_fetch(struct sim *sim, struct queue *queue, u32 ahead, u32 *out, u32 words);
u64 queue_left(const struct queue *queue);
u8 queue_ring_id(const struct queue *queue); /* as interrupts name it: me, pipe, queue */
/* Nothing is running nor waiting to. */
static inline bool queue_drained(const struct queue *queue)
{
    return !queue->running && queue->pending_count == 0;
}

/* ---- pm4.c ---- */

enum progress { PM4_DONE, PM4_AGAIN, PM4_BAD }; /* AGAIN: not yet; BAD: queue is wedged */

struct packet {
    struct sim *sim;
    struct queue *queue; /* NULL: the copy engine's */
    struct client who;
    u64 left, read_bytes, written_bytes; /* left: of its stream (copy engine) */
    u32 words;                           /* after the header; the copy engine counts it too */
    u32 w[PACKET_MAX];
};

/* Runs the packet at the read position; *words: its length. */
enum progress pm4_run(struct sim *sim, struct queue *queue, u32 *words);
/* For the copy engine, whose packets mean the same. */
u64 packet_u64(const struct packet *p, u32 at);
bool packet_get(struct packet *p, u64 va, void *out, u64 bytes);
enum progress packet_put(struct packet *p, u64 va, const void *in, u64 bytes);
/* Says what is wrong with it; PM4_BAD. */
enum progress packet_bad(const struct packet *p, const char *name, const char *what, u32 seen);
u64 clock_ticks(const struct sim *sim);
u32 gcr_meaning(u32 gcr); /* ACQUIRE_MEM's GCR_CNTL as CACHE_* */
bool compare_holds(u32 function, u32 seen, u32 want);

/* ---- ledger.c ---- */

void ledger_dispatched(struct sim *sim, const struct compute_dispatch *dispatch,
                       const struct compute_ledger *done);
void ledger_sdma(const struct sim *sim, struct text *out); /* sdma.c */

#endif
