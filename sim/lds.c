/*
 * lds.c: the local data share: loads, stores and atomics of a workgroup's bytes, and the exchanges
 * between lanes that go through it. In strict mode it keeps, for each dword, who touched it since
 * which barrier, to find races, and, for each byte, whether it was ever written.
 */
#include <string.h>

#include "sim/wave.h"

#define ATOMIC_ACCESS 1u /* lds_word.flags: the last write was an atomic */
#define MANY_READERS  255u

enum touch { TOUCH_READ, TOUCH_WRITE, TOUCH_ATOMIC };

/* ---- races and fresh bytes (strict) ---- */

static void race(struct wave *wave, u32 address, const char *what, u32 other)
{
    wave_find(wave, "lds-race", "LDS byte %x: %s wave %u, without a barrier between", address, what,
              other - 1);
}

/* A word's last write and last read count until a barrier lies between: until the epoch (barriers
 * passed) of who comes now is later. A load may be performed at any time from its issue on. */
static void touch_word(struct wave *wave, u32 since, u32 address, u32 bytes_mask, enum touch touch)
{
    struct lds_word *word = &wave->group->words[address / 4];
    u8 me = (u8)(wave->index + 1);
    u16 epoch = (u16)wave->epoch;
    bool both_atomic = touch == TOUCH_ATOMIC && word->flags & ATOMIC_ACCESS;

    if (word->writer && word->writer != me &&
        word->write_epoch >= (touch == TOUCH_READ ? (u16)since : epoch) &&
        word->write_bytes & bytes_mask && !both_atomic)
        race(wave, address, touch == TOUCH_READ ? "read, was written by" : "written, also by",
             word->writer);
    if (touch == TOUCH_READ) {
        word->reader =
            word->reader && word->reader != me && word->read_epoch >= epoch ? MANY_READERS : me;
        word->read_bytes =
            15 & (word->read_epoch >= epoch ? word->read_bytes | bytes_mask : bytes_mask);
        word->read_epoch = epoch;
        return;
    }
    if (word->reader && word->reader != me && word->read_epoch >= epoch &&
        word->read_bytes & bytes_mask && touch == TOUCH_WRITE)
        race(wave, address, "written, was read by", word->reader);
    word->write_bytes =
        15 & (word->write_epoch >= epoch && word->writer == me ? word->write_bytes | bytes_mask
                                                               : bytes_mask);
    word->writer = me;
    word->write_epoch = epoch;
    word->flags = touch == TOUCH_ATOMIC ? ATOMIC_ACCESS : 0;
}

static void touch_bytes(struct wave *wave, u32 since, u32 address, u32 bytes, enum touch touch)
{
    struct group *group = wave->group;

    for (u32 at = address; at < address + bytes;) {
        u32 part = min_u32(address + bytes - at, 4 - at % 4);
        touch_word(wave, since, at, ((1u << part) - 1) << at % 4, touch);
        at += part;
    }
    if (touch != TOUCH_READ)
        for (u32 at = address; at < address + bytes; at++)
            group->written[at / 8] |= (u8)(1u << at % 8);
}

static bool any_written(const struct group *group, u32 address, u32 bytes)
{
    for (u32 at = address; at < address + bytes; at++)
        if (group->written[at / 8] >> at % 8 & 1)
            return true;
    return false;
}

/* Lies outside: silicon reads 0 and drops what is written. */
static bool in_range(struct wave *wave, u32 lane, u64 address, u32 bytes)
{
    if (address + bytes <= wave->group->lds_bytes)
        return true;
    wave_find(wave, "lds-out-of-range", "lane %u: bytes %lx to %lx of %x", lane, address,
              address + bytes - 1, wave->group->lds_bytes);
    return false;
}

/* ---- moves of one lane ---- */

static u32 widened(const struct memory_op *op, const u8 *from)
{
    u32 value = 0;

    memcpy(&value, from, min_u32(op->bytes, 4));
    if (op->sign)
        value = op->bytes == 1 ? (u32)(int8_t)value : (u32)(int16_t)value;
    return value;
}

static void lane_load(struct wave *wave, struct access *access, u32 lane, u32 address)
{
    const struct memory_op *op = access->uop->memory;

    if (wave->strict)
        touch_bytes(wave, access->epoch, address, op->bytes, TOUCH_READ);
    for (u32 row = 0; row < max_u32(op->bytes / 4u, 1); row++) {
        u32 at = address + 4 * row;
        access->in[row * LANES + lane] = widened(op, wave->group->lds + at);
        if (wave->strict && !any_written(wave->group, at, min_u32(op->bytes, 4)))
            access->unknown[row] |= 1u << lane;
    }
}

static void lane_store(struct wave *wave, const struct access *access, u32 lane, u32 address)
{
    const struct memory_op *op = access->uop->memory;
    u32 shift = op->half == HALF_HIGH ? 16 : 0;

    if (wave->strict)
        touch_bytes(wave, access->epoch, address, op->bytes, TOUCH_WRITE);
    for (u32 row = 0; row < max_u32(op->bytes / 4u, 1); row++) {
        u32 value = access->out[row][lane] >> shift;
        memcpy(wave->group->lds + address + 4 * row, &value, min_u32(op->bytes, 4));
    }
}

static void lane_atomic(struct wave *wave, struct access *access, u32 lane, u32 address)
{
    const struct memory_op *op = access->uop->memory;
    bool flat = access->uop->inst.format != ISA_DS, wide = op->bytes == 8;
    const u32 *const *out = access->out;
    u32 second = flat ? op->bytes / 4u : 4;
    u64 data = out[0][lane] | (wide ? (u64)out[1][lane] << 32 : 0), compare = 0, old = 0;

    if (access->uop->row->src_regs[2] || (flat && access->uop->row->src_regs[1] > op->bytes / 4u))
        compare = out[second][lane] | (wide ? (u64)out[second + 1][lane] << 32 : 0);
    if (address % op->bytes)
        wave_find(wave, "lds-misaligned", "lane %u: atomic at %x", lane, address);
    if (wave->strict)
        touch_bytes(wave, access->epoch, address, op->bytes, TOUCH_ATOMIC);
    memcpy(&old, wave->group->lds + address, op->bytes);
    access->in[lane] = (u32)old;
    if (wide)
        access->in[LANES + lane] = (u32)(old >> 32);
    old = op->atomic(old, data, compare);
    memcpy(wave->group->lds + address, &old, op->bytes);
}

/* Whole words of all lanes, nothing looked at: the way of most accesses when fast. False: not so.
 */
static bool move_words(struct wave *wave, struct access *access)
{
    const struct memory_op *op = access->uop->memory;
    u8 *lds = wave->group->lds;
    u64 last = 0;

    if (wave->strict || op->bytes % 4 || (op->kind != MEMORY_LOAD && op->kind != MEMORY_STORE))
        return false;
    VECTOR_LOOP last = max_u64(last, (u32)access->address[i]);
    if (last + op->bytes > wave->group->lds_bytes)
        return false;
    for (u32 row = 0; row < op->bytes / 4u; row++)
        for (u32 i = 0; i < LANES; i++) {
            u8 *at = lds + (u32)access->address[i] + 4 * row;
            if (op->kind == MEMORY_LOAD)
                memcpy(&access->in[row * LANES + i], at, 4);
            else
                memcpy(at, &access->out[row][i], 4);
        }
    return true;
}

void lds_access(struct wave *wave, struct access *access, u32 exec)
{
    const struct memory_op *op = access->uop->memory;

    if (exec == LANES_ALL && move_words(wave, access))
        return;
    for (u32 i = 0; i < LANES; i++) {
        u32 address = (u32)access->address[i];

        if (!(exec >> i & 1))
            continue;
        if (!in_range(wave, i, address, op->bytes)) {
            for (u32 row = 0; row < max_u32(op->bytes / 4u, 1) && op->kind != MEMORY_STORE; row++)
                access->in[row * LANES + i] = 0;
            continue;
        }
        /* What comes in may be on top of what goes out: nothing before the lane's turn. */
        if (op->kind == MEMORY_LOAD)
            lane_load(wave, access, i, address);
        else if (op->kind == MEMORY_STORE)
            lane_store(wave, access, i, address);
        else
            lane_atomic(wave, access, i, address);
    }
}

/* ---- exchanges between lanes ---- */

/* Which lane lane i reads: ds_swizzle_b32's three forms. */
static u32 swizzle_lane(u32 control, u32 i)
{
    u32 and_mask = control & 31, or_mask = control >> 5 & 31, xor_mask = control >> 10 & 31, j = 0;

    if (control >= 0xe000) { /* bits reversed, then shifted by how many of the mask are set */
        for (u32 bit = 0; bit < 5; bit++)
            j |= (i >> bit & 1) << (4 - bit);
        return j >> __builtin_popcount(and_mask) | (i & and_mask);
    }
    if (control >= 0xc000) { /* rotate within what and_mask leaves */
        u32 keep = control & 31, by = control >> 5 & 31;
        by = control >> 10 & 1 ? 32 - by : by;
        return (i & keep) | ((i + by) & 31 & ~keep);
    }
    if (control & 0x8000) /* quad */
        return (i & ~3u) | (control >> 2 * (i & 3) & 3);
    return ((i & and_mask) | or_mask) ^ xor_mask;
}

static void exchange(struct access *access)
{
    u32 op = access->uop->inst.op, exec = access->exec;
    const u32 *data = access->out[0];

    memset(access->in, 0, sizeof(lanes));
    for (u32 i = 0; i < LANES; i++) {
        u32 lane = op == ISA_ds_swizzle_b32 ? swizzle_lane((u32)access->uop->inst.imm & 0xffff, i)
                                            : (u32)access->address[i] / 4 % LANES;
        if (op == ISA_ds_permute_b32 && exec >> i & 1)
            access->in[lane] = data[i];
        if (op != ISA_ds_permute_b32 && exec >> lane & 1)
            access->in[i] = data[lane];
    }
}

/* ds_append, ds_consume: one counter moves by the number of active lanes. */
static void append(struct wave *wave, struct access *access)
{
    u32 address = (u32)access->address[0], old = 0, next;
    u32 lanes_active = (u32)__builtin_popcount(access->exec);

    if (!in_range(wave, 0, address, 4))
        return;
    if (wave->strict)
        touch_bytes(wave, access->epoch, address, 4, TOUCH_ATOMIC);
    memcpy(&old, wave->group->lds + address, 4);
    next = access->uop->inst.op == ISA_ds_append ? old + lanes_active : old - lanes_active;
    memcpy(wave->group->lds + address, &next, 4);
    VECTOR_LOOP access->in[i] = old;
}

/* Two addresses: the second one's data and results follow the first one's. */
static void perform_pair(struct wave *wave, struct access *access)
{
    const struct memory_op *op = access->uop->memory;
    const struct isa_inst *inst = &access->uop->inst;
    struct access second = *access;

    for (u32 i = 0; i < LANES; i++) {
        access->address[i] += (u32)inst->imm * op->stride;
        second.address[i] += (u32)inst->offset1 * op->stride;
    }
    second.out[0] = access->out[4];
    second.out[1] = access->out[5];
    lanes rows[4];
    second.in = rows[0];
    lds_access(wave, access, access->exec);
    lds_access(wave, &second, access->exec);
    for (u32 row = 0; row < op->bytes / 4u && op->kind != MEMORY_STORE; row++) {
        memcpy(access->in + (op->bytes / 4u + row) * LANES, rows[row], sizeof(lanes));
        access->unknown[op->bytes / 4 + row] = second.unknown[row];
    }
}

void lds_perform(struct wave *wave, struct access *access)
{
    u32 op = access->uop->inst.op;

    if (op == ISA_ds_append || op == ISA_ds_consume)
        append(wave, access);
    else if (access->uop->memory->kind == MEMORY_NONE)
        exchange(access);
    else if (access->uop->memory->stride)
        perform_pair(wave, access);
    else
        lds_access(wave, access, access->exec);
}

/* ---- running ---- */

static void addresses(const struct wave *wave, const struct uop *uop, u64 *address)
{
    const struct isa_inst *inst = &uop->inst;
    const u32 *low = inst->addr >= ISA_VGPR ? wave->v[inst->addr - ISA_VGPR] : NULL;
    u32 offset = uop->memory->stride ? 0 : (u32)inst->imm & 0xffff;

    if (!uop->row->src_regs[0]) /* by M0: one address, or dwords by lane */
        VECTOR_LOOP address[i] =
            (wave->M0 & 0xffff) + offset +
            (uop->row->flags & ISA_LOAD || uop->row->flags & ISA_STORE ? 4 * i : 0);
    else if (uop->inst.op != ISA_ds_swizzle_b32)
        VECTOR_LOOP address[i] = (u32)(low[i] + offset);
}

/* Most accesses of one dword bank, more than one: each further one is a conflict. */
static u32 conflicts(const struct access *access)
{
    u8 used[LANES] = {0};
    u32 most = 1;

    for (u32 i = 0; i < LANES; i++)
        if (access->exec >> i & 1) {
            u32 bank = (u32)access->address[i] / 4 % LANES;
            bool same = i && access->exec >> (i - 1) & 1 &&
                        access->address[i] / 4 == access->address[i - 1] / 4;
            used[bank] = (u8)(used[bank] + !same);
            most = max_u32(most, used[bank]);
        }
    return most - 1;
}

static void run_lds(struct wave *wave, const struct uop *uop)
{
    struct access access;
    const struct isa_inst *inst = &uop->inst;

    access.uop = uop;
    access.exec = wave->EXEC;
    access.epoch = wave->epoch;
    addresses(wave, uop, access.address);
    if (inst->op == ISA_ds_swizzle_b32) {
        access.out[0] = wave->v[inst->addr - ISA_VGPR];
    } else {
        for (u32 row = 0; row < uop->row->src_regs[1]; row++)
            access.out[row] = wave->v[(inst->data[0] - ISA_VGPR + row) % VGPRS_MAX];
        for (u32 row = 0; row < uop->row->src_regs[2]; row++)
            access.out[4 + row] = wave->v[(inst->data[1] - ISA_VGPR + row) % VGPRS_MAX];
    }
    if (uop->memory->kind != MEMORY_NONE) {
        wave->compute->ledger.lds_bytes += (u64)__builtin_popcount(access.exec) *
                                           uop->memory->bytes * (uop->memory->stride ? 2 : 1);
        if (wave->strict)
            wave->compute->ledger.lds_conflicts += conflicts(&access);
    }
    access_start(wave, &access);
}

static void run_nothing(struct wave *wave, const struct uop *uop)
{
    (void)wave, (void)uop;
}

bool lds_decode(struct uop *uop)
{
    u32 op = uop->inst.op;

    uop->memory = &memory_ops[op];
    uop->class = CLASS_LDS;
    uop->run = op == ISA_ds_nop ? run_nothing : run_lds;
    return !uop->inst.gds &&
           (uop->memory->kind != MEMORY_NONE || op == ISA_ds_nop || op == ISA_ds_append ||
            op == ISA_ds_consume || op == ISA_ds_swizzle_b32 || op == ISA_ds_permute_b32 ||
            op == ISA_ds_bpermute_b32);
}
