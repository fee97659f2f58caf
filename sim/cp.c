/*
 * cp.c: a compute queue of the MEC: its ring and indirect buffers as one stream of words, and the
 * dispatches that packets have started. Dispatches between two flushes have no order: in strict
 * mode chance picks which runs first, so that a missing flush is seen. Knows nothing of packets
 * (pm4.c) nor of how registers are reached (gfx.c).
 */
#include <stdlib.h>

#include "sim/cp.h"

#define PACKETS_A_TURN 64u
#define PACKET_NS      50u
#define MQD_CHECKED    (1 + SH_WORDS)

static u64 pair(const struct sim *sim, const struct queue *queue, enum reg lo, enum reg hi)
{
    return (u64)hqd_word(sim, queue, hi) << 32 | hqd_word(sim, queue, lo);
}

u32 queue_ring_words(const struct sim *sim, const struct queue *queue)
{
    u32 size = hqd_word(sim, queue, R_CP_HQD_PQ_CONTROL) & CP_HQD_PQ_CONTROL__QUEUE_SIZE;

    return size < 31 ? 2u << size : 0;
}

u8 queue_ring_id(const struct queue *queue)
{
    return (u8)(1u << 2 | queue->number / CP_PIPE_QUEUES | queue->number % CP_PIPE_QUEUES << 4);
}

/* ---- start and end ---- */

/* What the descriptor says besides the HQD's own registers: the shader state. The MEC reads it when
 * it connects the queue, not when the registers are written. */
static bool mqd_load(struct sim *sim, struct queue *queue)
{
    u64 mqd = pair(sim, queue, R_CP_MQD_BASE_ADDR, R_CP_MQD_BASE_ADDR_HI);
    u32 words[MQD_CHECKED];

    if (!mqd || mqd % 256)
        return sim_fail(sim, "mqd-address", "queue %u: CP_MQD_BASE_ADDR is %llx", queue->number,
                        (unsigned long long)mqd);
    if (!mem_read(sim, (struct client){UNIT_CP, 0, 0, false}, mqd, words, sizeof(words)))
        return sim_fail(sim, "mqd-fault", "queue %u: no descriptor at %llx", queue->number,
                        (unsigned long long)mqd);
    if (words[0] != MQD_HEADER)
        return sim_fail(sim, "mqd-header", "queue %u: %08x at %llx (HDP not flushed?)",
                        queue->number, words[0], (unsigned long long)mqd);
    for (u32 i = 0; i < SH_WORDS; i++)
        queue->sh[i] = words[1 + i];
    return true;
}

static bool hqd_check(struct sim *sim, const struct queue *queue)
{
    u32 control = hqd_word(sim, queue, R_CP_HQD_PQ_CONTROL);
    u32 doorbell = hqd_word(sim, queue, R_CP_HQD_PQ_DOORBELL_CONTROL);
    u32 offset = doorbell & CP_HQD_PQ_DOORBELL_CONTROL__DOORBELL_OFFSET;

    if (!pair(sim, queue, R_CP_HQD_PQ_BASE, R_CP_HQD_PQ_BASE_HI) ||
        queue_ring_words(sim, queue) < 64)
        return sim_fail(sim, "hqd-ring", "queue %u: no ring", queue->number);
    if (!hqd_word(sim, queue, R_CP_HQD_PQ_RPTR_REPORT_ADDR) ||
        hqd_word(sim, queue, R_CP_HQD_PQ_RPTR_REPORT_ADDR) % 4)
        return sim_fail(sim, "hqd-report", "queue %u: no place for the read pointer",
                        queue->number);
    if (!pair(sim, queue, R_CP_HQD_EOP_BASE_ADDR, R_CP_HQD_EOP_BASE_ADDR_HI) ||
        !(hqd_word(sim, queue, R_CP_HQD_EOP_CONTROL) & CP_HQD_EOP_CONTROL__EOP_SIZE))
        return sim_fail(sim, "hqd-eop", "queue %u: no EOP buffer", queue->number);
    if (hqd_word(sim, queue, R_CP_HQD_AQL_CONTROL))
        return sim_fail(sim, "hqd-aql", "queue %u: AQL packets are not modelled", queue->number);
    if (control & CP_HQD_PQ_CONTROL__UNORD_DISPATCH)
        return sim_fail(sim, "hqd-unordered", "queue %u: UNORD_DISPATCH is set", queue->number);
    if (!(doorbell & CP_HQD_PQ_DOORBELL_CONTROL__DOORBELL_EN) ||
        offset < sim->reg[R_CP_MEC_DOORBELL_RANGE_LOWER] ||
        offset > sim->reg[R_CP_MEC_DOORBELL_RANGE_UPPER])
        return sim_fail(sim, "hqd-doorbell",
                        "queue %u: doorbell control %08x, the MEC's range %x "
                        "to %x",
                        queue->number, doorbell, sim->reg[R_CP_MEC_DOORBELL_RANGE_LOWER],
                        sim->reg[R_CP_MEC_DOORBELL_RANGE_UPPER]);
    return true;
}

bool queue_start(struct sim *sim, struct queue *queue)
{
    if (queue->active)
        return sim_fail(sim, "hqd-live", "queue %u is active already", queue->number);
    if (sim->gfx->pipe[queue->number / CP_PIPE_QUEUES].wedged)
        return sim_fail(sim, "pipe-wedged", "queue %u: its pipe needs a reset of the CP",
                        queue->number);
    if (!pipe_running(sim, queue->number / CP_PIPE_QUEUES))
        return sim_fail(sim, "hqd-without-mec", "queue %u: its pipe does not run yet",
                        queue->number);
    if (!hqd_check(sim, queue))
        return false;
    queue->active = true;
    queue->stuck = queue->connected = false;
    queue->depth = queue->ring_skip = queue->pending_count = 0;
    queue->rptr = queue->reported = hqd_word(sim, queue, R_CP_HQD_PQ_RPTR);
    queue->wptr = pair(sim, queue, R_CP_HQD_PQ_WPTR_LO, R_CP_HQD_PQ_WPTR_HI);
    return true;
}

void queue_stop(struct sim *sim, struct queue *queue)
{
    (void)sim;
    if (queue->compute)
        compute_kill(queue->compute);
    queue->active = queue->stuck = queue->running = false;
    queue->depth = queue->pending_count = 0;
}

bool queue_wedge(struct sim *sim, struct queue *queue, const struct ih_event *ih)
{
    queue->stuck = true;
    sim->gfx->pipe[queue->number / CP_PIPE_QUEUES].wedged = true;
    if (ih)
        ih_raise(sim, ih);
    return false;
}

/* ---- the stream ---- */

u64 queue_left(const struct queue *queue)
{
    const struct stream *ib = queue->depth ? &queue->ib[queue->depth - 1] : NULL;

    return ib ? ib->words - ib->at : queue->wptr - queue->rptr;
}

bool queue_fetch(struct sim *sim, struct queue *queue, u32 ahead, u32 *out, u32 words)
{
    struct client who = queue_client(sim, queue);
    u64 base = pair(sim, queue, R_CP_HQD_PQ_BASE, R_CP_HQD_PQ_BASE_HI) << 8;
    u32 ring = queue_ring_words(sim, queue);

    if (queue->depth) {
        const struct stream *ib = &queue->ib[queue->depth - 1];
        return mem_read(sim, who, ib->va + 4ull * (ib->at + ahead), out, 4ull * words);
    }
    u32 at = (u32)((queue->rptr + ahead) % ring), first = min_u32(words, ring - at);
    return mem_read(sim, who, base + 4ull * at, out, 4ull * first) &&
           (first == words || mem_read(sim, who, base, out + first, 4ull * (words - first)));
}

static u32 *stream_skip(struct queue *queue)
{
    return queue->depth ? &queue->ib[queue->depth - 1].skip : &queue->ring_skip;
}

/* `level`: where the packet stood (an indirect buffer may have been opened by it). */
static void stream_advance(struct queue *queue, u32 level, u64 words)
{
    if (level)
        queue->ib[level - 1].at += (u32)words;
    else
        queue->rptr += words;
}

static bool report_rptr(struct sim *sim, struct queue *queue)
{
    u64 where = pair(sim, queue, R_CP_HQD_PQ_RPTR_REPORT_ADDR, R_CP_HQD_PQ_RPTR_REPORT_ADDR_HI);
    u32 value = (u32)(queue->rptr % queue_ring_words(sim, queue));

    if (queue->rptr == queue->reported ||
        hqd_word(sim, queue, R_CP_HQD_PQ_CONTROL) & CP_HQD_PQ_CONTROL__NO_UPDATE_RPTR)
        return true;
    queue->reported = queue->rptr;
    return mem_write(sim, queue_client(sim, queue), where, &value, sizeof(value)) ||
           queue_wedge(sim, queue, NULL);
}

/* ---- dispatches ---- */

static bool compute_ready(struct sim *sim, struct queue *queue)
{
    u8 vmid = queue_client(sim, queue).vmid;
    struct compute_options options = {
        .seed = sim_random(sim),
        .fast = sim->options.fast,
        .lenient = sim->options.lenient,
        .wgps = min_u32(profile_wgps(sim->profile), COMPUTE_WGPS_MAX),
        .threads = max_u32(1, sim->options.threads),
    };
    struct compute_memory memory;

    if (queue->compute && queue->compute_vmid != vmid) {
        compute_destroy(queue->compute);
        queue->compute = NULL;
    }
    if (queue->compute)
        return true;
    mem_for_waves(sim, vmid, &memory);
    queue->compute = compute_create(&memory, &options);
    queue->compute_vmid = vmid;
    return queue->compute != NULL;
}

static bool dispatch_start(struct sim *sim, struct queue *queue)
{
    u32 pick = sim->options.fast ? 0 : (u32)(sim_random(sim) % queue->pending_count);
    const struct compute_dispatch *dispatch = &queue->current;

    if (!compute_ready(sim, queue))
        return sim_fail(sim, "host-memory", "no memory for the shader engines");
    queue->current = queue->pending[pick];
    for (u32 i = pick; i + 1 < queue->pending_count; i++)
        queue->pending[i] = queue->pending[i + 1];
    queue->pending_count--;
    compute_forget(queue->compute); /* what the caches hold they give again */
    if (compute_start(queue->compute, dispatch) != OK)
        return sim_fail(
            sim, "dispatch-refused", "code %llx, groups of %u x %u x %u, rsrc %08x %08x",
            (unsigned long long)dispatch->code, dispatch->group_size[0], dispatch->group_size[1],
            dispatch->group_size[2], dispatch->rsrc1, dispatch->rsrc2);
    queue->running = true;
    return true;
}

/* A wave died: the SQ tells, its dispatch never ends. */
static void dispatch_failed(struct sim *sim, struct queue *queue)
{
    const struct compute_failure *why = compute_failure(queue->compute);
    u32 error = why->kind == COMPUTE_ILLEGAL ? IH_SQ_ILLEGAL : IH_SQ_VIOLATION;
    struct ih_event event = {IH_CLIENT_GFX,
                             IH_SQ,
                             0,
                             queue->compute_vmid,
                             {error << 21 | 1u << 26, IH_SQ_ERROR << 6, 0, 0}};

    queue->running = false;
    if (why->kind == COMPUTE_FALSIFIED) {
        sim_fail(sim, why->name, "%s", why->text);
        queue_wedge(sim, queue, NULL);
        return;
    }
    sim_note(sim, why->name, "%s", why->text);
    queue_wedge(sim, queue, why->kind == COMPUTE_TRAP ? NULL : &event);
}

static bool dispatch_step(struct sim *sim, struct queue *queue, u64 budget)
{
    if (!queue->running && !dispatch_start(sim, queue))
        return queue_wedge(sim, queue, NULL);
    enum compute_state state = compute_step(queue->compute, budget);
    sim->now_ns += budget / profile_wgps(sim->profile);
    if (state == COMPUTE_RUNNING)
        return true;
    if (state == COMPUTE_FAILED) {
        dispatch_failed(sim, queue);
        return false;
    }
    queue->running = false;
    ledger_dispatched(sim, &queue->current, compute_ledger(queue->compute));
    return true;
}

/* ---- the turn ---- */

/* Ends buffers that are read, passes over what is to be skipped; false: nothing to run. */
static bool stream_ready(struct queue *queue)
{
    for (;;) {
        u64 left = queue_left(queue);
        u32 *skip = stream_skip(queue);
        if (*skip && left) {
            u32 words = (u32)min_u64(*skip, left);
            *skip -= words;
            stream_advance(queue, queue->depth, words);
        } else if (left || !queue->depth)
            return left != 0;
        else
            queue->depth--;
    }
}

bool queue_step(struct sim *sim, struct queue *queue, u64 budget)
{
    bool more = false;

    if (!queue->connected && queue_left(queue)) {
        if (!mqd_load(sim, queue))
            return queue_wedge(sim, queue, NULL);
        queue->connected = true;
    }
    for (u32 i = 0; i < PACKETS_A_TURN && stream_ready(queue); i++) {
        u32 words = 0, level = queue->depth;
        enum progress progress = pm4_run(sim, queue, &words);
        if (progress == PM4_BAD) {
            queue_wedge(sim, queue, NULL);
            return false;
        }
        if (progress == PM4_AGAIN)
            break;
        stream_advance(queue, level, words);
        sim->now_ns += PACKET_NS;
        sim->gfx->ledger.packets++;
        sim->gfx->ledger.words += words;
        more = true;
    }
    if (!report_rptr(sim, queue))
        return false;
    if (!more && !queue_drained(queue))
        more = dispatch_step(sim, queue, budget);
    return more;
}
