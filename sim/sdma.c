/*
 * sdma.c: the copy engine: one queue, ring and indirect buffers, pointers in bytes. One row a
 * packet. Follows: Linux 6.12 sdma_v6_0.c (sdma_v6_0_gfx_resume, the emit functions) and
 * sdma_v6_0_0_pkt_open.h.
 */
#include <stdlib.h>
#include <string.h>

#include "sim/cp.h"

enum { SDMA_GCR_REQ = 17 }; /* besides enum sdma */

#define PIECE          4096u
#define PIECES_A_TURN  1024u
#define PACKETS_A_TURN 64u
#define PACKET_NS      200u
#define BYTES_PER_NS   100u
#define SRBM_WRITE     50u /* interrupt source: what the engine does not know */
#define IB_ALIGN       32u

struct sdma_engine {
    bool active, stuck;
    u64 rptr, wptr, reported; /* bytes since the start */
    u64 ib_va, ib_left;       /* bytes; 0 left: none is open */
    u64 done;                 /* bytes of the packet that is being worked on */
    u64 packets, copies, read_bytes, written_bytes;
};

err sdma_create(struct sim *sim)
{
    sim->sdma = calloc(1, sizeof(*sim->sdma));
    return sim->sdma ? OK : E_NOMEM;
}

void sdma_destroy(struct sim *sim)
{
    free(sim->sdma);
    sim->sdma = NULL;
}

void sdma_reset(struct sim *sim)
{
    struct sdma_engine *sdma = sim->sdma;

    *sdma = (struct sdma_engine){.packets = sdma->packets,
                                 .copies = sdma->copies,
                                 .read_bytes = sdma->read_bytes,
                                 .written_bytes = sdma->written_bytes};
    for (u32 reg = R_SDMA0_CNTL; reg <= R_SDMA0_QUEUE0_MINOR_PTR_UPDATE; reg++)
        sim->reg[reg] = 0;
    sim->reg[R_SDMA0_F32_CNTL] = SDMA0_F32_CNTL__HALT;
}

/* ---- registers ---- */

static u64 pair(const struct sim *sim, enum reg lo, enum reg hi)
{
    return (u64)sim->reg[hi] << 32 | sim->reg[lo];
}

static u64 ring_bytes(const struct sim *sim)
{
    u32 control = sim->reg[R_SDMA0_QUEUE0_RB_CNTL];

    return 4ull << ((control & SDMA0_QUEUE0_RB_CNTL__RB_SIZE) >> 1);
}

static bool queue_enable(struct sim *sim)
{
    u32 control = sim->reg[R_SDMA0_QUEUE0_RB_CNTL];
    u64 report = pair(sim, R_SDMA0_QUEUE0_RB_RPTR_ADDR_LO, R_SDMA0_QUEUE0_RB_RPTR_ADDR_HI);

    if (!psp_has(sim, PSP_FW_SDMA_TH0) || !psp_has(sim, PSP_FW_SDMA_TH1))
        return sim_fail(sim, "sdma-without-firmware", "queue enabled, firmware not loaded");
    if (sim->sdma->stuck)
        return sim_fail(sim, "sdma-wedged", "queue enabled, the engine needs a reset");
    if (sim->reg[R_SDMA0_QUEUE0_MINOR_PTR_UPDATE])
        return sim_fail(sim, "sdma-minor-update", "queue enabled with MINOR_PTR_UPDATE set");
    if (!pair(sim, R_SDMA0_QUEUE0_RB_BASE, R_SDMA0_QUEUE0_RB_BASE_HI) || ring_bytes(sim) < 256)
        return sim_fail(sim, "sdma-ring", "queue enabled without a ring, RB_CNTL %08x", control);
    if (control & SDMA0_QUEUE0_RB_CNTL__RPTR_WRITEBACK_ENABLE && (!report || report % 4))
        return sim_fail(sim, "sdma-report", "no place for the read pointer: %llx",
                        (unsigned long long)report);
    sim->sdma->active = true;
    sim->sdma->rptr = pair(sim, R_SDMA0_QUEUE0_RB_RPTR, R_SDMA0_QUEUE0_RB_RPTR_HI);
    sim->sdma->wptr = pair(sim, R_SDMA0_QUEUE0_RB_WPTR, R_SDMA0_QUEUE0_RB_WPTR_HI);
    sim->sdma->reported = sim->sdma->rptr;
    return true;
}

bool sdma_read(struct sim *sim, enum reg reg, u32 *value)
{
    const struct sdma_engine *sdma = sim->sdma;

    if (!sdma->active || (reg != R_SDMA0_QUEUE0_RB_RPTR && reg != R_SDMA0_QUEUE0_RB_RPTR_HI))
        return false;
    *value = (u32)(reg == R_SDMA0_QUEUE0_RB_RPTR ? sdma->rptr : sdma->rptr >> 32);
    return true;
}

bool sdma_write(struct sim *sim, enum reg reg, u32 value)
{
    bool enable = value & SDMA0_QUEUE0_RB_CNTL__RB_ENABLE;

    if (sim->sdma->active && (reg == R_SDMA0_QUEUE0_RB_BASE || reg == R_SDMA0_QUEUE0_RB_BASE_HI ||
                              reg == R_SDMA0_QUEUE0_RB_RPTR || reg == R_SDMA0_QUEUE0_RB_RPTR_HI))
        return sim_fail(sim, "sdma-live", "%s written while the queue is enabled", reg_name(reg));
    sim->reg[reg] = value;
    if (reg == R_SDMA0_QUEUE0_RB_CNTL && enable && !sim->sdma->active)
        queue_enable(sim);
    else if (reg == R_SDMA0_QUEUE0_RB_CNTL && !enable)
        sim->sdma->active = false;
    return true;
}

void sdma_doorbell(struct sim *sim, u64 offset, u64 value, u32 width)
{
    struct sdma_engine *sdma = sim->sdma;
    u32 own = sim->reg[R_SDMA0_QUEUE0_DOORBELL_OFFSET] & SDMA0_QUEUE0_DOORBELL_OFFSET__OFFSET;

    if (width != 8 || !sdma->active || own != offset ||
        !(sim->reg[R_SDMA0_QUEUE0_DOORBELL] & SDMA0_QUEUE0_DOORBELL__ENABLE))
        sim_fail(sim, "doorbell-unclaimed", "SDMA: %u bytes at %llx, the queue's is %x", width,
                 (unsigned long long)offset, own);
    else if (value % 4 || value < sdma->wptr || value - sdma->rptr > ring_bytes(sim))
        sim_fail(sim, "ring-overrun", "SDMA: doorbell %llx, wptr %llx, rptr %llx, ring %llx",
                 (unsigned long long)value, (unsigned long long)sdma->wptr,
                 (unsigned long long)sdma->rptr, (unsigned long long)ring_bytes(sim));
    else
        sdma->wptr = value;
}

static struct client client(const struct sim *sim)
{
    u32 vmid = sim->reg[R_SDMA0_QUEUE0_RB_CNTL] & SDMA0_QUEUE0_RB_CNTL__RB_VMID;
    u32 policy = sim->reg[R_SDMA0_UTCL1_PAGE] & SDMA0_UTCL1_PAGE__WR_L2_POLICY;

    return (struct client){UNIT_SDMA, (u8)(vmid >> 24), 0,
                           policy == SDMA0_UTCL1_PAGE__WR_L2_POLICY};
}

/* ---- packets ---- */

static u32 sub(const struct packet *p)
{
    return p->w[0] >> 8 & 0xff;
}

/* `source` (NULL: w[3] is the pattern) to `target`, as much as one turn may. */
static enum progress move(struct packet *p, const u64 *source, u64 target, u64 bytes)
{
    struct sim *sim = p->sim;
    u64 *done = &sim->sdma->done, piece;
    u32 buffer[PIECE / 4];

    for (u32 i = 0; i < ARRAY_LEN(buffer) && !source; i++)
        buffer[i] = p->w[3];
    for (u32 i = 0; i < PIECES_A_TURN && *done < bytes; i++, *done += piece) {
        piece = min_u64(bytes - *done, PIECE);
        if ((source && !packet_get(p, *source + *done, buffer, piece)) ||
            packet_put(p, target + *done, buffer, piece) != PM4_DONE)
            return PM4_BAD;
        sim->now_ns += piece / BYTES_PER_NS;
    }
    if (*done < bytes)
        return PM4_AGAIN;
    *done = 0;
    return PM4_DONE;
}

static enum progress do_copy(struct packet *p)
{
    u64 source = packet_u64(p, 3);

    if (sub(p))
        return packet_bad(p, "sdma-copy", "only linear copies are modelled:", p->w[0]);
    enum progress progress = move(p, &source, packet_u64(p, 5), (p->w[1] & 0x3fffffffu) + 1ull);
    p->sim->sdma->copies += progress == PM4_DONE;
    return progress;
}

static enum progress do_fill(struct packet *p)
{
    u64 bytes = (p->w[4] & 0x3fffffffu) + 1ull, target = packet_u64(p, 1);

    if (bytes % 4 || target % 4)
        return packet_bad(p, "sdma-align", "CONST_FILL of words at", p->w[1]);
    return move(p, NULL, target, bytes);
}

static enum progress do_write(struct packet *p)
{
    u64 count = (p->w[3] & 0xfffff) + 1ull, target = packet_u64(p, 1);

    if (sub(p) || target % 4)
        return packet_bad(p, "sdma-align", "WRITE of words at", p->w[1]);
    return packet_put(p, target, &p->w[4], 4 * count);
}

static enum progress do_fence(struct packet *p)
{
    u64 target = packet_u64(p, 1);

    if (target % 4)
        return packet_bad(p, "sdma-align", "FENCE at", p->w[1]);
    return packet_put(p, target, &p->w[3], 4);
}

static enum progress do_trap(struct packet *p)
{
    if (p->sim->reg[R_SDMA0_CNTL] & SDMA0_CNTL__TRAP_ENABLE)
        ih_raise(p->sim, &(struct ih_event){
                             IH_CLIENT_GFX, IH_SDMA_TRAP, 0, p->who.vmid, {p->w[1], 0, 0, 0}});
    return PM4_DONE;
}

static enum progress do_poll(struct packet *p)
{
    enum { HDP_FLUSH = 1 << 26, FUNCTION_SHIFT = 28 };
    u32 seen, function = p->w[0] >> FUNCTION_SHIFT & 7;
    bool memory = p->w[0] >> 31;

    if (sub(p) || function == 7)
        return packet_bad(p, "sdma-poll", "POLL_REGMEM with", p->w[0]);
    if (p->w[0] & HDP_FLUSH) {
        mem_hdp_flush(p->sim);
        return PM4_DONE;
    }
    if (memory && p->w[1] % 4)
        return packet_bad(p, "sdma-align", "POLL_REGMEM at", p->w[1]);
    if (!memory)
        seen = reg_read(p->sim, p->w[1] / 4);
    else if (!mem_read(p->sim, p->who, packet_u64(p, 1), &seen, sizeof(seen)))
        return PM4_BAD;
    return compare_holds(function, seen & p->w[4], p->w[3]) ? PM4_DONE : PM4_AGAIN;
}

static enum progress do_timestamp(struct packet *p)
{
    enum { GET = 1, GET_GLOBAL = 2 };
    u64 target = packet_u64(p, 1), ticks = clock_ticks(p->sim);

    if ((sub(p) != GET && sub(p) != GET_GLOBAL) || target % 8)
        return packet_bad(p, "sdma-align", "TIMESTAMP at", p->w[1]);
    return packet_put(p, target, &ticks, sizeof(ticks));
}

static enum progress do_indirect(struct packet *p)
{
    struct sdma_engine *sdma = p->sim->sdma;
    u64 words = p->w[3] & 0xfffff;

    if (!(p->sim->reg[R_SDMA0_QUEUE0_IB_CNTL] & SDMA0_QUEUE0_IB_CNTL__IB_ENABLE))
        return packet_bad(p, "sdma-ib", "INDIRECT while IB_CNTL is", 0);
    if (sdma->ib_left || p->w[1] % IB_ALIGN || !words || words % 8 ||
        (sdma->rptr + 4 * p->words) % IB_ALIGN)
        return packet_bad(p, "sdma-ib", "nested, or not on 8 words, before or after:", p->w[1]);
    sdma->ib_va = packet_u64(p, 1);
    sdma->ib_left = 4 * words;
    return PM4_DONE;
}

/* The bits of ACQUIRE_MEM's GCR_CNTL, spread over the packet. */
static enum progress do_gcr(struct packet *p)
{
    u32 gcr = p->w[2] >> 16 | (p->w[3] & 7) << 16;

    mem_cache(p->sim, gcr_meaning(gcr));
    return PM4_DONE;
}

static enum progress do_nop(struct packet *p)
{
    (void)p;
    return PM4_DONE;
}

static const struct row {
    enum progress (*run)(struct packet *p);
    u32 words;
} rows[] = {
    [SDMA_NOP] = {do_nop, 1},
    [SDMA_COPY] = {do_copy, 7},
    [SDMA_WRITE] = {do_write, 4},
    [SDMA_INDIRECT] = {do_indirect, 6},
    [SDMA_FENCE] = {do_fence, 4},
    [SDMA_TRAP] = {do_trap, 2},
    [SDMA_POLL_REGMEM] = {do_poll, 6},
    [SDMA_FILL] = {do_fill, 5},
    [SDMA_TIMESTAMP] = {do_timestamp, 3},
    [SDMA_GCR_REQ] = {do_gcr, 5},
};

/* ---- the stream ---- */

static bool fetch(const struct packet *p, u32 at, u32 *out, u32 words)
{
    struct sim *sim = p->sim;
    u64 base = pair(sim, R_SDMA0_QUEUE0_RB_BASE, R_SDMA0_QUEUE0_RB_BASE_HI) << 8;
    u64 ring = ring_bytes(sim), from = (sim->sdma->rptr + 4ull * at) % ring;
    u64 first = min_u64(4ull * words, ring - from), rest = 4ull * words - first;

    if (sim->sdma->ib_left)
        return mem_read(sim, p->who, sim->sdma->ib_va + 4ull * at, out, 4ull * words);
    return mem_read(sim, p->who, base + from, out, first) &&
           (!rest || mem_read(sim, p->who, base, out + first / 4, rest));
}

static enum progress packet_run(struct packet *p)
{
    struct sim *sim = p->sim;
    struct ih_event event = {IH_CLIENT_GFX, SRBM_WRITE, 0, p->who.vmid, {}};

    if (!fetch(p, 0, p->w, 1))
        return PM4_BAD;
    u32 op = p->w[0] & 0xff;
    if (op >= ARRAY_LEN(rows) || !rows[op].run) {
        sim_note(sim, "sdma-bad-opcode", "header %08x", p->w[0]);
        ih_raise(sim, &event);
        return PM4_BAD;
    }
    p->words = rows[op].words;
    if (op == SDMA_NOP)
        p->words += p->w[0] >> 16 & 0x3fff;
    if (4ull * p->words > p->left || (op != SDMA_NOP && !fetch(p, 1, p->w + 1, p->words - 1)))
        return packet_bad(p, "sdma-past-end",
                          "the packet ends behind the write pointer or buffer:", p->w[0]);
    if (op == SDMA_WRITE) {
        u32 data = (p->w[3] & 0xfffff) + 1;
        if (data > PACKET_MAX - 4 || 4ull * (4 + data) > p->left || !fetch(p, 4, p->w + 4, data))
            return packet_bad(p, "sdma-write", "WRITE of so many words, less one:", p->w[3]);
        p->words += data;
    }
    return rows[op].run(p);
}

static void advance(struct sdma_engine *sdma, bool in_ib, u64 bytes)
{
    if (!in_ib) {
        sdma->rptr += bytes;
        return;
    }
    sdma->ib_va += bytes;
    sdma->ib_left -= bytes;
}

static bool report_rptr(struct sim *sim)
{
    struct sdma_engine *sdma = sim->sdma;
    u64 where = pair(sim, R_SDMA0_QUEUE0_RB_RPTR_ADDR_LO, R_SDMA0_QUEUE0_RB_RPTR_ADDR_HI);

    if (sdma->rptr == sdma->reported ||
        !(sim->reg[R_SDMA0_QUEUE0_RB_CNTL] & SDMA0_QUEUE0_RB_CNTL__RPTR_WRITEBACK_ENABLE))
        return true;
    sdma->reported = sdma->rptr;
    return mem_write(sim, client(sim), where, &sdma->rptr, sizeof(sdma->rptr));
}

bool sdma_step(struct sim *sim, u64 budget)
{
    struct sdma_engine *sdma = sim->sdma;
    u32 control = sim->reg[R_SDMA0_F32_CNTL];
    bool more = false;

    (void)budget;
    if (!sdma->active || sdma->stuck ||
        control & (SDMA0_F32_CNTL__HALT | SDMA0_F32_CNTL__TH1_RESET))
        return false;
    for (u32 i = 0; i < PACKETS_A_TURN && (sdma->ib_left || sdma->rptr < sdma->wptr); i++) {
        bool in_ib = sdma->ib_left != 0;
        struct packet p = {.sim = sim,
                           .who = client(sim),
                           .left = in_ib ? sdma->ib_left : sdma->wptr - sdma->rptr};
        enum progress progress = packet_run(&p);
        sdma->read_bytes += p.read_bytes;
        sdma->written_bytes += p.written_bytes;
        if (progress == PM4_BAD)
            sdma->stuck = true;
        if (progress != PM4_DONE) {
            more |= progress == PM4_AGAIN && sdma->done;
            break;
        }
        advance(sdma, in_ib, 4ull * p.words);
        sim->now_ns += PACKET_NS;
        sdma->packets++;
        more = true;
    }
    if (!report_rptr(sim))
        sdma->stuck = true;
    return more && !sdma->stuck;
}

void ledger_sdma(const struct sim *sim, struct text *out)
{
    const struct sdma_engine *sdma = sim->sdma;

    text_fmt(out,
             "\"sdma\":{\"packets\":%llu,\"copies\":%llu,\"read_bytes\":%llu,"
             "\"written_bytes\":%llu}",
             (unsigned long long)sdma->packets, (unsigned long long)sdma->copies,
             (unsigned long long)sdma->read_bytes, (unsigned long long)sdma->written_bytes);
}
