/*
 * pm4.c: the packets that a compute queue may hold. One row a packet: how long it may be and what
 * it does. Follows: Linux 6.12 nvd.h and soc21_enum.h, gfx_v11_0.c for use. What the MEC's firmware
 * would not take is a bad opcode, as on silicon; what it would take and a driver should not give is
 * a finding.
 */
#include <string.h>

#include "sim/cp.h"

enum { /* besides enum pm4 */
       PM4_DISPATCH_INDIRECT = 0x16,
       PM4_COND_EXEC = 0x22,
       PM4_DMA_DATA = 0x50
};
enum { REG_SPACE_SH_END = 0x3000, REG_SPACE_UCONFIG_END = 0xffff };
#define SINGLE_NOP  0x3fffu
#define DMA_PIECE   4096u
#define CLOCK_NS    10u /* the reference clock: 100 MHz */
#define EVENT_EOP   0x14u
#define EVENT_EOP2  0x28u /* bottom of pipe */
#define INDEX_EOP   5u
#define GCR_KNOWN   0xc3f1u
#define PARTIAL_BIT 16u

/* ---- what packets of both engines do ---- */

u64 packet_u64(const struct packet *p, u32 at)
{
    return (u64)p->w[at + 1] << 32 | p->w[at];
}

enum progress packet_bad(const struct packet *p, const char *name, const char *what, u32 seen)
{
    if (p->queue)
        sim_fail(p->sim, name, "queue %u: %s %08x", p->queue->number, what, seen);
    else
        sim_fail(p->sim, name, "SDMA: %s %08x", what, seen);
    return PM4_BAD;
}

bool packet_get(struct packet *p, u64 va, void *out, u64 bytes)
{
    p->read_bytes += bytes;
    return mem_read(p->sim, p->who, va, out, bytes);
}

enum progress packet_put(struct packet *p, u64 va, const void *in, u64 bytes)
{
    p->written_bytes += bytes;
    return mem_write(p->sim, p->who, va, in, bytes) ? PM4_DONE : PM4_BAD;
}

u64 clock_ticks(const struct sim *sim)
{
    return sim->now_ns / CLOCK_NS;
}

/* ---- state ---- */

static enum progress do_set_sh(struct packet *p)
{
    u32 first = PM4_SH_START + (p->w[0] & 0xffff);
    u32 base = reg_address(p->sim, R_COMPUTE_DISPATCH_INITIATOR);

    if (first < base || first + p->words - 1 > base + SH_WORDS)
        return packet_bad(p, "pm4-sh-register", "SET_SH_REG outside the compute registers:", first);
    memcpy(&p->queue->sh[first - base], &p->w[1], 4ull * (p->words - 1));
    return PM4_DONE;
}

static enum progress do_set_uconfig(struct packet *p)
{
    for (u32 i = 1; i < p->words; i++)
        reg_write(p->sim, PM4_UCONFIG_START + (p->w[0] & 0xffff) + i - 1, p->w[i]);
    return PM4_DONE;
}

/* ---- dispatches ---- */

static enum progress dispatch(struct packet *p, const u32 dim[3], u32 initiator)
{
    const struct queue *q = p->queue;
    struct sim *sim = p->sim;
    struct compute_dispatch d = {
        .code = ((u64)sh_word(sim, q, R_COMPUTE_PGM_HI) << 32 | sh_word(sim, q, R_COMPUTE_PGM_LO))
                << 8,
        .rsrc1 = sh_word(sim, q, R_COMPUTE_PGM_RSRC1),
        .rsrc2 = sh_word(sim, q, R_COMPUTE_PGM_RSRC2),
        .rsrc3 = sh_word(sim, q, R_COMPUTE_PGM_RSRC3),
        .scratch = ((u64)sh_word(sim, q, R_COMPUTE_DISPATCH_SCRATCH_BASE_HI) << 32 |
                    sh_word(sim, q, R_COMPUTE_DISPATCH_SCRATCH_BASE_LO))
                   << 8,
        .tmpring = sh_word(sim, q, R_COMPUTE_TMPRING_SIZE),
        .wave64 = !(initiator & COMPUTE_DISPATCH_INITIATOR__CS_W32_EN),
    };

    for (u32 i = 0; i < 3; i++) {
        u32 threads = sh_word(sim, q, (enum reg)(R_COMPUTE_NUM_THREAD_X + i));
        u32 start = sh_word(sim, q, (enum reg)(R_COMPUTE_START_X + i)), end = dim[i];
        d.group_size[i] = threads & 0xffff;
        if (!d.group_size[i])
            return packet_bad(p, "dispatch-no-threads", "COMPUTE_NUM_THREAD is", threads);
        if (initiator & COMPUTE_DISPATCH_INITIATOR__USE_THREAD_DIMENSIONS) {
            d.last_size[i] = end % d.group_size[i];
            end = (u32)div_up(end, d.group_size[i]);
        } else if (initiator & COMPUTE_DISPATCH_INITIATOR__PARTIAL_TG_EN)
            d.last_size[i] = threads >> PARTIAL_BIT;
        d.first[i] = initiator & COMPUTE_DISPATCH_INITIATOR__FORCE_START_AT_000 ? 0 : start;
        if (end <= d.first[i])
            return PM4_DONE; /* nothing to do */
        d.groups[i] = end - d.first[i];
    }
    memcpy(d.user_data, &q->sh[SH_WORDS - ARRAY_LEN(d.user_data)], sizeof(d.user_data));
    p->queue->pending[p->queue->pending_count++] = d;
    return PM4_DONE;
}

/* What the shader engines need of the registers before a dispatch goes to them. */
static enum progress dispatch_check(struct packet *p, const u32 dim[3], u32 initiator)
{
    enum { MODE_64 = 0, UNALIGNED = 0xc };
    struct sim *sim = p->sim;
    u32 config = sim->gfx->sh_mem_config[queue_client(sim, p->queue).vmid];
    u32 units = 0;

    if (p->queue->pending_count == PENDING_MAX)
        return PM4_AGAIN;
    for (u32 se = 0; se < 8; se++) {
        u32 at = se < 2   ? MQD_STATIC_SE0 + se
                 : se < 4 ? MQD_STATIC_SE2 + se - 2
                          : MQD_STATIC_SE4 + se - 4;
        units |= p->queue->sh[at - 1];
    }
    if (!(initiator & COMPUTE_DISPATCH_INITIATOR__COMPUTE_SHADER_EN))
        return packet_bad(p, "dispatch-initiator", "COMPUTE_SHADER_EN is clear in", initiator);
    if (!units)
        return packet_bad(p, "dispatch-no-units",
                          "no unit is enabled in COMPUTE_STATIC_THREAD_MGMT:", 0);
    if (config & SH_MEM_CONFIG__ADDRESS_MODE || (config & UNALIGNED) != UNALIGNED)
        return packet_bad(p, "sh-mem-config", "SH_MEM_CONFIG of this VMID is", config);
    return dispatch(p, dim, initiator);
}

static enum progress do_dispatch(struct packet *p)
{
    return dispatch_check(p, p->w, p->w[3]);
}

static enum progress do_dispatch_indirect(struct packet *p)
{
    u32 dim[3];

    if (!packet_get(p, packet_u64(p, 0), dim, sizeof(dim)))
        return PM4_BAD;
    return dispatch_check(p, dim, p->w[2]);
}

/* ---- order ---- */

static enum progress do_event(struct packet *p)
{
    if (p->words != 1 || p->w[0] != PM4_CS_PARTIAL_FLUSH)
        return packet_bad(p, "pm4-event", "EVENT_WRITE of", p->w[0]);
    p->sim->gfx->ledger.events += queue_drained(p->queue);
    return queue_drained(p->queue) ? PM4_DONE : PM4_AGAIN;
}

u32 gcr_meaning(u32 gcr)
{
    static const struct {
        u32 bit, what;
    } rows[] = {{GCR_GL2_WB, CACHE_GL2_WB},   {GCR_GL2_INV, CACHE_GL2_INV},
                {GCR_GL1_INV, CACHE_GL1_INV}, {GCR_GLV_INV, CACHE_GLV_INV},
                {GCR_GLK_INV, CACHE_GLK_INV}, {GCR_GLI_INV, CACHE_GLI_INV}};
    u32 what = 0;

    for (u32 i = 0; i < ARRAY_LEN(rows); i++)
        what |= gcr & rows[i].bit ? rows[i].what : 0;
    return what;
}

static enum progress do_acquire(struct packet *p)
{
    u32 gcr = p->w[6];

    if (gcr & ~GCR_KNOWN)
        return packet_bad(p, "pm4-gcr", "ACQUIRE_MEM by ranges or sequences is not modelled:", gcr);
    if (!(gcr & GCR_GLM_WB) != !(gcr & GCR_GLM_INV))
        return packet_bad(p, "pm4-glm", "GLM_WB and GLM_INV go together:", gcr);
    mem_cache(p->sim, gcr_meaning(gcr));
    p->sim->gfx->ledger.acquires++;
    return PM4_DONE;
}

/* RELEASE_MEM has the same bits at other places. */
static u32 release_caches(u32 word)
{
    enum { GLV_INV = 1 << 14, GL1_INV = 1 << 15, GL2_INV = 1 << 20, GL2_WB = 1 << 21 };

    return (word & GLV_INV ? CACHE_GLV_INV : 0) | (word & GL1_INV ? CACHE_GL1_INV : 0) |
           (word & GL2_INV ? CACHE_GL2_INV : 0) | (word & GL2_WB ? CACHE_GL2_WB : 0);
}

static enum progress do_release(struct packet *p)
{
    enum { NONE, LOW, BOTH, CLOCK, SYSTEM_CLOCK };
    u32 event = p->w[0] & 0x3f, index = p->w[0] >> 8 & 0xf, data_sel = p->w[1] >> 29;
    u32 int_sel = p->w[1] >> 24 & 7, bytes = data_sel == NONE ? 0 : data_sel == LOW ? 4 : 8;
    u64 va = packet_u64(p, 2), value = packet_u64(p, 4);

    if (!queue_drained(p->queue))
        return PM4_AGAIN;
    if ((event != EVENT_EOP && event != EVENT_EOP2) || index != INDEX_EOP)
        return packet_bad(p, "pm4-release", "not an end of pipe event:", p->w[0]);
    if (data_sel > SYSTEM_CLOCK || int_sel > 2)
        return packet_bad(p, "pm4-release", "data or interrupt selection of", p->w[1]);
    if (bytes && va % bytes)
        return packet_bad(p, "pm4-align", "RELEASE_MEM to", (u32)va);
    mem_cache(p->sim, release_caches(p->w[0]));
    if (data_sel >= CLOCK)
        value = clock_ticks(p->sim);
    if (bytes && packet_put(p, va, &value, bytes) != PM4_DONE)
        return PM4_BAD;
    if (int_sel)
        ih_raise(p->sim, &(struct ih_event){IH_CLIENT_GRBM_CP,
                                            IH_CP_EOP,
                                            queue_ring_id(p->queue),
                                            p->who.vmid,
                                            {p->w[6], 0, 0, 0}});
    p->sim->gfx->ledger.releases++;
    return PM4_DONE;
}

bool compare_holds(u32 function, u32 seen, u32 want)
{
    switch (function) {
    case 0:
        return true;
    case 1:
        return seen < want;
    case 2:
        return seen <= want;
    case PM4_WAIT_EQUAL:
        return seen == want;
    case 4:
        return seen != want;
    case PM4_WAIT_AT_LEAST:
        return seen >= want;
    default:
        return seen > want;
    }
}

static enum progress do_wait(struct packet *p)
{
    enum { SPACE = 0x30, OPERATION = 0xc0, FUNCTION = 7 };
    u32 control = p->w[0], want = p->w[3], mask = p->w[4], seen;

    if ((control & FUNCTION) == FUNCTION || (control & SPACE) > PM4_WAIT_MEMORY ||
        (control & OPERATION) > PM4_WAIT_WRITE_THEN)
        return packet_bad(p, "pm4-wait", "WAIT_REG_MEM with", control);
    if (control & PM4_WAIT_MEMORY) {
        if (p->w[1] % 4)
            return packet_bad(p, "pm4-align", "WAIT_REG_MEM at", p->w[1]);
        if (!packet_get(p, packet_u64(p, 1), &seen, sizeof(seen)))
            return PM4_BAD;
    } else if (control & PM4_WAIT_WRITE_THEN) {
        reg_write(p->sim, p->w[1], want & mask);
        seen = reg_read(p->sim, p->w[2]);
    } else
        seen = reg_read(p->sim, p->w[1]);
    if (!compare_holds(control & FUNCTION, seen & mask, want))
        return PM4_AGAIN;
    p->sim->gfx->ledger.waits++;
    return PM4_DONE;
}

/* ---- data ---- */

static enum progress do_write_data(struct packet *p)
{
    enum { REGISTER = 0, SYNC = 1, GL2 = 2, MEMORY = 5, ONE_ADDRESS = 1 << 16 };
    u32 to = p->w[0] >> 8 & 0xf, count = p->words - 3;
    u64 va = packet_u64(p, 1);

    if (to != REGISTER && to != SYNC && to != GL2 && to != MEMORY)
        return packet_bad(p, "pm4-write", "WRITE_DATA with", p->w[0]);
    if (to != REGISTER && va % 4)
        return packet_bad(p, "pm4-align", "WRITE_DATA to", (u32)va);
    if (to != REGISTER && !(p->w[0] & ONE_ADDRESS))
        return packet_put(p, va, &p->w[3], 4ull * count);
    for (u32 i = 0; i < count; i++) {
        u64 at = p->w[0] & ONE_ADDRESS ? 0 : i;
        if (to == REGISTER)
            reg_write(p->sim, (u32)(p->w[1] + at), p->w[3 + i]);
        else if (packet_put(p, va + 4 * at, &p->w[3 + i], 4) != PM4_DONE)
            return PM4_BAD;
    }
    return PM4_DONE;
}

static enum progress do_copy_data(struct packet *p)
{
    enum { REGISTER = 0, MEMORY = 1, GL2 = 2, COUNTER = 4, VALUE = 5, CLOCK = 9, TO_MEMORY = 5 };
    u32 from = p->w[0] & 0xf, to = p->w[0] >> 8 & 0xf, bytes = p->w[0] & 1 << 16 ? 8 : 4;
    u64 value = 0;

    if (from == REGISTER || from == COUNTER)
        value =
            reg_read(p->sim, p->w[1]) | (bytes == 8 ? (u64)reg_read(p->sim, p->w[1] + 1) << 32 : 0);
    else if (from == VALUE)
        value = packet_u64(p, 1);
    else if (from == CLOCK)
        value = clock_ticks(p->sim);
    else if (from != MEMORY && from != GL2)
        return packet_bad(p, "pm4-copy", "COPY_DATA with", p->w[0]);
    else if (packet_u64(p, 1) % bytes)
        return packet_bad(p, "pm4-align", "COPY_DATA from", p->w[1]);
    else if (!packet_get(p, packet_u64(p, 1), &value, bytes))
        return PM4_BAD;
    if (to == REGISTER) {
        reg_write(p->sim, p->w[3], (u32)value);
        return PM4_DONE;
    }
    if ((to != GL2 && to != TO_MEMORY) || packet_u64(p, 3) % bytes)
        return packet_bad(p, "pm4-copy", "COPY_DATA with", p->w[0]);
    return packet_put(p, packet_u64(p, 3), &value, bytes);
}

static enum progress do_dma(struct packet *p)
{
    enum { ADDRESS = 0, DATA = 2, GL2 = 3 };
    const u32 count_bits = 0x3ffffff;
    u32 from = p->w[0] >> 29 & 3, to = p->w[0] >> 20 & 3, left = p->w[5] & count_bits, piece;
    u64 source = packet_u64(p, 1), target = packet_u64(p, 3);
    u32 buffer[DMA_PIECE / 4];

    if ((from != ADDRESS && from != DATA && from != GL2) || (to != ADDRESS && to != GL2) ||
        p->w[5] & ~count_bits || (from == DATA && left % 4))
        return packet_bad(p, "pm4-dma", "DMA_DATA with", p->w[0]);
    for (u32 i = 0; from == DATA && i < ARRAY_LEN(buffer); i++)
        buffer[i] = p->w[1];
    for (; left; left -= piece, source += piece, target += piece) {
        piece = min_u32(left, DMA_PIECE);
        if ((from != DATA && !packet_get(p, source, buffer, piece)) ||
            packet_put(p, target, buffer, piece) != PM4_DONE)
            return PM4_BAD;
    }
    return PM4_DONE;
}

/* ---- the stream ---- */

static enum progress do_nop(struct packet *p)
{
    (void)p;
    return PM4_DONE;
}

static enum progress do_ib(struct packet *p)
{
    enum { SIZE = 0xfffff, CHAIN = 1 << 20, VMID = 0xf << 24 };
    struct queue *queue = p->queue;
    u32 control = p->w[2];

    if (!(control & PM4_IB_VALID) || !(control & SIZE) || p->w[0] % 4)
        return packet_bad(p, "pm4-ib",
                          "INDIRECT_BUFFER without valid, size or alignment:", control);
    if (control & CHAIN || queue->depth == ARRAY_LEN(queue->ib))
        return packet_bad(p, "pm4-ib-depth",
                          "chains and deeper buffers are not modelled:", control);
    if (control & VMID && (control & VMID) >> 24 != p->who.vmid)
        return packet_bad(p, "pm4-ib-vmid", "another VMID than the queue's:", control);
    queue->ib[queue->depth++] = (struct stream){packet_u64(p, 0), 0, control & SIZE, 0};
    p->sim->gfx->ledger.ibs++;
    return PM4_DONE;
}

static void skip_words(struct queue *queue, u32 words)
{
    *(queue->depth ? &queue->ib[queue->depth - 1].skip : &queue->ring_skip) = words;
}

static enum progress do_pred_exec(struct packet *p)
{
    enum { COUNT = 0x3fff, FIRST_XCC = 1 << 24 };

    if (!(p->w[0] & FIRST_XCC))
        skip_words(p->queue, p->w[0] & COUNT);
    return PM4_DONE;
}

static enum progress do_cond_exec(struct packet *p)
{
    u32 seen;

    if (!packet_get(p, packet_u64(p, 0), &seen, sizeof(seen)))
        return PM4_BAD;
    if (!seen)
        skip_words(p->queue, p->w[3] & 0x3fff);
    return PM4_DONE;
}

static const struct row {
    enum progress (*run)(struct packet *p);
    u16 words_min, words_max;
} rows[256] = {
    [PM4_NOP] = {do_nop, 1, SINGLE_NOP + 1},
    [PM4_DISPATCH_DIRECT] = {do_dispatch, 4, 4},
    [PM4_DISPATCH_INDIRECT] = {do_dispatch_indirect, 3, 3},
    [PM4_COND_EXEC] = {do_cond_exec, 4, 4},
    [PM4_PRED_EXEC] = {do_pred_exec, 1, 1},
    [PM4_WRITE_DATA] = {do_write_data, 4, PACKET_MAX},
    [PM4_WAIT_REG_MEM] = {do_wait, 6, 6},
    [PM4_INDIRECT_BUFFER] = {do_ib, 3, 3},
    [PM4_COPY_DATA] = {do_copy_data, 5, 5},
    [PM4_EVENT_WRITE] = {do_event, 1, 3},
    [PM4_RELEASE_MEM] = {do_release, 7, 7},
    [PM4_DMA_DATA] = {do_dma, 6, 6},
    [PM4_ACQUIRE_MEM] = {do_acquire, 7, 7},
    [PM4_SET_SH_REG] = {do_set_sh, 2, SH_WORDS + 1},
    [PM4_SET_UCONFIG_REG] = {do_set_uconfig, 2, PACKET_MAX},
};

/* The MEC's own answer to what it does not know: an interrupt, and the queue stands. */
static enum progress bad_opcode(struct packet *p, u32 header)
{
    struct ih_event event = {IH_CLIENT_GRBM_CP,
                             IH_CP_BAD_OPCODE,
                             queue_ring_id(p->queue),
                             p->who.vmid,
                             {header, 0, 0, 0}};

    sim_note(p->sim, "pm4-bad-opcode", "queue %u: header %08x", p->queue->number, header);
    queue_wedge(p->sim, p->queue, &event);
    return PM4_BAD;
}

enum progress pm4_run(struct sim *sim, struct queue *queue, u32 *words)
{
    struct packet p = {.sim = sim, .queue = queue, .who = queue_client(sim, queue)};
    u32 header;

    if (!queue_fetch(sim, queue, 0, &header, 1))
        return PM4_BAD;
    const struct row *row = &rows[header >> 8 & 0xff];
    p.words = (header >> 16 & 0x3fff) + 1;
    if (header >> 30 != 3 || !row->run)
        return bad_opcode(&p, header);
    if (row->run == do_nop && p.words == SINGLE_NOP + 1)
        p.words = 0;
    else if (p.words < row->words_min || p.words > row->words_max)
        return packet_bad(&p, "pm4-length", "no such length:", header);
    if (p.words + 1 > queue_left(queue))
        return packet_bad(&p, "pm4-past-end",
                          "the packet ends behind the write pointer or buffer:", header);
    if (row->run != do_nop && !queue_fetch(sim, queue, 1, p.w, p.words))
        return PM4_BAD;
    *words = 1 + p.words;
    enum progress progress = row->run(&p);
    sim->gfx->ledger.written_bytes += p.written_bytes;
    return progress;
}
