/*
 * strict.c: falsification of one wave: memory instructions take effect late and out of order as far
 * as the ISA lets them, their registers must not be touched before the counters permit it, and
 * hazards that gfx11 leaves to software are findings. docs/SIM.md lists the names. Follows AMD's
 * "RDNA3 Instruction Set Architecture" reference (5.3 to 5.7) and LLVM's GCNHazardRecognizer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/wave.h"

#define COUNT_MAX          63u
#define CODES              512u /* operand codes of registers */
#define TRANS_VALU_BETWEEN 5u   /* that many or fewer do not cover a TRANS result */
#define TRANS_RECENT       2u
#define PERFORM_ODDS       4u

/* What keeps its instructions in order. SMEM does not. */
enum unit { UNIT_VECTOR, UNIT_LDS, UNIT_SCALAR, UNITS };

struct trans {
    struct span written;
    u32 valu_since, trans_since;
    bool live;
};

struct strict {
    struct flight *flights, **tail; /* in order of issue */
    u64 pending[CODES / 64];        /* registers that a flight will write */
    u32 vm, lgkm, vs;               /* at most so many are under way */
    struct trans trans[TRANS_RECENT];
    const struct uop *last_valu;
    u64 flight_bytes;
    struct fresh *fresh;
};

/* ---- registers of an instruction ---- */

static void add_read(struct uop *uop, u32 code, u32 count)
{
    if (count && (code < SCALARS || code >= ISA_VGPR) && code != ISA_NULL)
        uop->read[uop->reads++] = (struct span){(u16)code, (u16)count};
}

static void add_write(struct uop *uop, u32 code, u32 count)
{
    if (count && code != ISA_NULL)
        uop->write[uop->writes++] = (struct span){(u16)code, (u16)count};
}

static void decode_memory(struct uop *uop)
{
    const struct isa_inst *inst = &uop->inst;
    const u8 *regs = uop->row->src_regs;
    bool scalar = inst->saddr != ISA_NULL && inst->format != ISA_DS && inst->format != ISA_FLAT;

    if (inst->format == ISA_SCRATCH) {
        add_read(uop, inst->addr, inst->sve);
        add_read(uop, inst->saddr, 1);
    } else {
        add_read(uop, inst->addr, scalar ? min_u32(regs[0], 1) : regs[0]);
        add_read(uop, inst->saddr, scalar ? 2 : 0);
    }
    add_read(uop, inst->data[0], regs[1]);
    add_read(uop, inst->data[1], regs[2]);
    add_write(uop, inst->dst, access_returns(uop) ? uop->row->dst_regs : 0);
}

static void decode_operands(struct uop *uop, const struct isa_inst *inst, const struct isa_row *row)
{
    for (u32 n = 0; n < 3; n++)
        add_read(uop, inst->src[n], row->src_regs[n]);
    if (row->flags & ISA_RD_DST)
        add_read(uop, inst->dst, row->dst_regs);
    if (row->flags & ISA_RD_VCC)
        add_read(uop, ISA_VCC_LO, 1);
    add_write(uop, inst->dst,
              row->flags & ISA_WR_EXEC && inst->dst >= ISA_EXEC_LO ? 0 : row->dst_regs);
    if (row->flags & ISA_SDST)
        add_write(uop, inst->sdst, 1);
}

void strict_decode(struct uop *uop)
{
    switch (uop->inst.format) {
    case ISA_DS:
    case ISA_FLAT:
    case ISA_GLOBAL:
    case ISA_SCRATCH:
    case ISA_MUBUF:
        decode_memory(uop);
        break;
    default:
        decode_operands(uop, &uop->inst, uop->row);
        if (uop->y)
            decode_operands(uop, &uop->y->inst, uop->y->row);
    }
}

static const char *register_name(u32 code, char text[16])
{
    if (code == ISA_VCC_LO || code == ISA_VCC_HI)
        return code == ISA_VCC_LO ? "vcc_lo" : "vcc_hi";
    if (code == ISA_M0 || code == ISA_EXEC_LO)
        return code == ISA_M0 ? "m0" : "exec_lo";
    snprintf(text, 16, code >= ISA_VGPR ? "v%u" : "s%u", code >= ISA_VGPR ? code - ISA_VGPR : code);
    return text;
}

/* The first register of the span with its bit set; CODES: none. */
static u32 first_pending(const struct strict *strict, struct span span)
{
    for (u32 code = span.first; code < span.first + (u32)span.count; code++)
        if (strict->pending[code / 64 % (CODES / 64)] >> code % 64 & 1)
            return code;
    return CODES;
}

/* ---- flights ---- */

static struct span written_by(const struct flight *flight)
{
    return flight->access.uop->writes ? flight->access.uop->write[0] : (struct span){0, 0};
}

static void pending_rebuild(struct strict *strict)
{
    memset(strict->pending, 0, sizeof strict->pending);
    for (const struct flight *flight = strict->flights; flight; flight = flight->next) {
        struct span span = written_by(flight);
        for (u32 code = span.first; code < span.first + (u32)span.count; code++)
            strict->pending[code / 64] |= 1ull << code % 64;
    }
}

static void perform(struct wave *wave, struct flight *flight)
{
    if (flight->performed)
        return;
    flight->performed = true;
    if (flight->access.uop->inst.format == ISA_SMEM)
        smem_perform(wave, &flight->access);
    else if (flight->access.uop->inst.format == ISA_DS)
        lds_perform(wave, &flight->access);
    else
        vmem_perform(wave, &flight->access);
}

/* All of its unit that came before too: they do not overtake each other. */
static void perform_up_to(struct wave *wave, struct flight *last)
{
    for (struct flight *flight = wave->strict->flights; flight != last; flight = flight->next)
        if (flight->unit == last->unit && last->unit != UNIT_SCALAR)
            perform(wave, flight);
    perform(wave, last);
}

/* One flight that nothing holds back, by chance. */
static void perform_some(struct wave *wave)
{
    struct strict *strict = wave->strict;
    u64 random;

    if (!strict->flights)
        return;
    random = compute_random(wave->compute);
    if (random % PERFORM_ODDS)
        return;
    for (struct flight *flight = strict->flights; flight; flight = flight->next) {
        random >>= 1;
        if (!flight->performed && random & 1) {
            perform_up_to(wave, flight);
            return;
        }
    }
}

/* Whether the counters prove it: were it still under way, so would be all that its unit holds
 * since, which is more than there can be. Of SMEM, in no order, only zero proves anything. */
static bool proven(const struct strict *strict, const struct flight *flight)
{
    u32 vm = 0, lgkm = 0, vs = 0;

    for (const struct flight *later = flight; later; later = later->next) {
        vm += later->vm;
        vs += later->vs;
        lgkm += later->lgkm && later->unit != UNIT_SCALAR;
    }
    if (flight->lgkm && flight->unit == UNIT_SCALAR)
        lgkm = 1;
    return (!flight->vm || vm > strict->vm) && (!flight->vs || vs > strict->vs) &&
           (!flight->lgkm || lgkm > strict->lgkm);
}

static void land(struct wave *wave, struct flight *flight)
{
    struct strict *strict = wave->strict;

    perform_up_to(wave, flight);
    access_deliver(wave, &flight->access);
    fresh_deliver(strict->fresh, &flight->access);
}

void strict_wait(struct wave *wave, u32 vm, u32 lgkm, u32 vs)
{
    struct strict *strict = wave->strict;
    bool landed = false;

    strict->vm = min_u32(strict->vm, vm);
    strict->lgkm = min_u32(strict->lgkm, lgkm);
    strict->vs = min_u32(strict->vs, vs);
    for (struct flight **place = &strict->flights, *flight; (flight = *place);) {
        if (!proven(strict, flight)) {
            place = &flight->next;
            continue;
        }
        land(wave, flight);
        landed = true;
        *place = flight->next;
        flight->next = wave->compute->free_flights;
        wave->compute->free_flights = flight;
    }
    strict->tail = &strict->flights;
    strict->flight_bytes = 0;
    for (struct flight *flight = strict->flights; flight; flight = flight->next) {
        strict->tail = &flight->next;
        strict->flight_bytes +=
            written_by(flight).count * 4ull * (u32)__builtin_popcount(flight->access.exec);
    }
    if (landed)
        pending_rebuild(strict);
}

static void counters_take(struct strict *strict, struct flight *flight)
{
    const struct uop *uop = flight->access.uop;
    u32 format = uop->inst.format;
    bool returns = access_returns(uop), vector = format != ISA_DS && format != ISA_SMEM;

    flight->unit = format == ISA_SMEM ? UNIT_SCALAR : format == ISA_DS ? UNIT_LDS : UNIT_VECTOR;
    flight->vm = vector && returns;
    flight->vs = vector && !returns;
    flight->lgkm = !vector || format == ISA_FLAT;
    strict->vm = min_u32(strict->vm + flight->vm, COUNT_MAX);
    strict->vs = min_u32(strict->vs + flight->vs, COUNT_MAX);
    strict->lgkm = min_u32(strict->lgkm + flight->lgkm, COUNT_MAX);
}

void strict_launch(struct wave *wave, const struct access *access)
{
    struct compute *compute = wave->compute;
    struct strict *strict = wave->strict;
    struct flight *flight = compute->free_flights;
    const u8 *regs = access->uop->row->src_regs;
    bool swizzle = access->uop->inst.op == ISA_ds_swizzle_b32;

    if (flight)
        compute->free_flights = flight->next;
    else
        flight = malloc(sizeof *flight);
    CHECK(flight);
    flight->next = NULL;
    flight->access = *access;
    flight->access.in = flight->in[0];
    memset(flight->access.unknown, 0, sizeof flight->access.unknown);
    flight->at = wave->at;
    flight->performed = false;
    for (u32 row = 0; row < 6; row++) {
        u32 used = row < 4 ? row < regs[1] || (swizzle && !row) : row < 4u + regs[2];
        if (!used || access->uop->inst.format == ISA_SMEM)
            continue;
        memcpy(flight->out[row], access->out[row], sizeof(lanes));
        flight->access.out[row] = flight->out[row];
    }
    counters_take(strict, flight);
    *strict->tail = flight;
    strict->tail = &flight->next;
    pending_rebuild(strict);
    strict->flight_bytes += written_by(flight).count * 4ull * (u32)__builtin_popcount(access->exec);
    compute->ledger.flight_bytes_max =
        max_u64(compute->ledger.flight_bytes_max, strict->flight_bytes);
}

/* ---- findings before an instruction ---- */

/* A load may follow another of its unit into the same register: they come back in order. */
static bool may_overwrite(const struct strict *strict, const struct uop *uop, u32 code)
{
    u32 format = uop->inst.format;
    u32 unit = format == ISA_DS ? UNIT_LDS : UNIT_VECTOR;

    if (!uop->memory || format == ISA_FLAT)
        return false;
    for (const struct flight *flight = strict->flights; flight; flight = flight->next) {
        struct span span = written_by(flight);
        if (code >= span.first && code < span.first + (u32)span.count &&
            (flight->unit != unit || flight->access.uop->inst.format == ISA_FLAT))
            return false;
    }
    return true;
}

static void check_pending(struct wave *wave, const struct uop *uop)
{
    const struct strict *strict = wave->strict;
    char name[16];

    for (u32 n = 0; n < uop->reads; n++) {
        u32 code = first_pending(strict, uop->read[n]);
        if (code < CODES)
            wave_find(wave, "read-before-wait", "%s is still being loaded",
                      register_name(code, name));
    }
    for (u32 n = 0; n < uop->writes; n++) {
        u32 code = first_pending(strict, uop->write[n]);
        if (code < CODES && !may_overwrite(strict, uop, code))
            wave_find(wave, "overwrite-before-wait", "%s is still being loaded",
                      register_name(code, name));
    }
}

static void check_range(struct wave *wave, struct span span)
{
    u32 end = span.first + (u32)span.count;

    if (span.first >= ISA_VGPR && end - ISA_VGPR > wave->vgprs)
        wave_find(wave, "vgpr-out-of-range", "v%u of %u", end - 1 - ISA_VGPR, wave->vgprs);
}

static bool overlap(struct span a, struct span b)
{
    return a.first < b.first + b.count && b.first < a.first + a.count;
}

static void check_trans(struct wave *wave, const struct uop *uop)
{
    const struct strict *strict = wave->strict;

    for (u32 n = 0; n < TRANS_RECENT; n++) {
        const struct trans *trans = &strict->trans[n];
        if (!trans->live)
            continue;
        for (u32 r = 0; r < uop->reads; r++)
            if (overlap(uop->read[r], trans->written))
                wave_find(wave, "trans-use",
                          "v%u comes from the transcendental unit, too few instructions ago",
                          trans->written.first - ISA_VGPR);
    }
}

static void check_hazards(struct wave *wave, const struct uop *uop)
{
    const struct uop *last = wave->strict->last_valu;
    u32 op = uop->inst.op;

    check_trans(wave, uop);
    if (last && last->class == CLASS_WMMA && uop->class == CLASS_WMMA)
        for (u32 n = 0; n < 2; n++) /* A and B */
            if (overlap(uop->read[n], last->write[0]))
                wave_find(wave, "wmma-overlap", "reads what the last WMMA writes as %c", "AB"[n]);
    if (last && last->row->flags & ISA_WR_EXEC &&
        (op == ISA_v_permlane16_b32 || op == ISA_v_permlanex16_b32))
        wave_find(wave, "vcmpx-permlane", "no vector instruction between it and v_cmpx");
    if (op == ISA_v_mad_u64_u32 || op == ISA_v_mad_i64_i32)
        for (u32 n = 0; n < uop->reads; n++)
            if (overlap(uop->read[n], uop->write[0]) &&
                !(mad64_loses_high(uop) && uop->read[n].first == uop->inst.src[2]))
                wave_find(wave, "mad64-overlap", "result and a source share a register");
}

static bool is_valu(const struct uop *uop)
{
    return uop->class >= CLASS_VALU && uop->class <= CLASS_TRANS;
}

void strict_before(struct wave *wave, const struct uop *uop)
{
    struct strict *strict = wave->strict;

    if (strict->flights)
        check_pending(wave, uop);
    for (u32 n = 0; n < uop->reads; n++)
        check_range(wave, uop->read[n]);
    for (u32 n = 0; n < uop->writes; n++)
        check_range(wave, uop->write[n]);
    if (is_valu(uop))
        check_hazards(wave, uop);
    fresh_before(wave, strict->fresh, uop);
}

/* ---- after it ---- */

void strict_valu_done(struct wave *wave)
{
    for (u32 n = 0; n < TRANS_RECENT; n++)
        wave->strict->trans[n].live = false;
}

static void trans_count(struct strict *strict, const struct uop *uop)
{
    bool is_trans = uop->class == CLASS_TRANS;

    for (u32 n = 0; n < TRANS_RECENT; n++) {
        struct trans *trans = &strict->trans[n];
        trans->valu_since++;
        trans->trans_since += is_trans;
        if (trans->valu_since > TRANS_VALU_BETWEEN || trans->trans_since >= TRANS_RECENT)
            trans->live = false;
    }
    if (!is_trans)
        return;
    strict->trans[1] = strict->trans[0];
    strict->trans[0] = (struct trans){.written = uop->write[0], .live = true};
}

void strict_after(struct wave *wave, const struct uop *uop)
{
    struct strict *strict = wave->strict;

    fresh_after(wave, strict->fresh, uop);
    if (is_valu(uop)) {
        trans_count(strict, uop);
        strict->last_valu = uop;
    } else if (uop->memory) {
        strict_valu_done(wave);
    }
    perform_some(wave);
}

/* ---- life ---- */

struct strict *strict_create(struct wave *wave, u32 scalars)
{
    struct strict *strict = wave->strict;
    struct fresh *fresh = strict ? strict->fresh : NULL;

    if (!strict)
        strict = malloc(sizeof *strict);
    CHECK(strict);
    *strict = (struct strict){.tail = &strict->flights};
    strict->fresh = fresh_create(wave, fresh, scalars);
    return strict;
}

void strict_end(struct wave *wave)
{
    struct strict *strict = wave->strict;

    if (!strict)
        return;
    for (struct flight *flight = strict->flights, *next; flight; flight = next) {
        next = flight->next;
        flight->next = wave->compute->free_flights;
        wave->compute->free_flights = flight;
    }
    strict->flights = NULL;
    strict->tail = &strict->flights;
}

void strict_destroy(struct strict *strict)
{
    if (strict)
        free(strict->fresh);
    free(strict);
}
