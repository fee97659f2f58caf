/*
 * vmem.c: FLAT, GLOBAL, SCRATCH and the cache controls among MUBUF: addresses of 32 lanes, moves
 * between memory and rows of registers, atomics. Knows counters and poison only as strict_launch.
 * Scratch is swizzled: dword n of lane l lies at 128 n + 4 l of the wave's part.
 */
#include <immintrin.h>
#include <string.h>

#include "sim/wave.h"

#define RAW_BYTES (LANES * 16u)
#define SECTOR    32u

/* ---- pieces of memory ---- */

static bool violation(struct wave *wave, u64 va, const char *what)
{
    bool first = wave->compute->state == COMPUTE_RUNNING;

    wave_fail(wave, COMPUTE_VIOLATION, "memory-violation", "%s at %lx faults", what, va);
    if (first)
        wave->compute->failure.address = va;
    return false;
}

/* Clears bits from..from+bytes-1 of `to` where those of `known` are clear. */
static void known_copy(u32 *to, u32 from, const u32 *known, u32 bytes)
{
    for (u32 n = 0; n < bytes; n++)
        if (!(known[n / 32] >> n % 32 & 1))
            to[(from + n) / 32] &= ~(1u << (from + n) % 32);
}

static bool all_known(const u32 *known, u32 bytes)
{
    for (u32 n = 0; n < bytes; n += 32) {
        u32 want = bytes - n >= 32 ? ~0u : (1u << (bytes - n)) - 1;
        if ((known[n / 32] & want) != want)
            return false;
    }
    return true;
}

static bool move_piece(const struct move *move, u64 va, u32 at, u32 bytes)
{
    const struct compute_memory *memory = &move->wave->compute->memory;
    u32 known[COMPUTE_LINE / 32];
    u8 *host = move->wave->strict ? NULL : wave_host(move->wave, va, bytes, move->write);

    if (host) {
        memcpy(move->write ? host : move->raw + at, move->write ? move->raw + at : host, bytes);
        return true;
    }
    while (bytes) {
        u32 part = (u32)min_u64(bytes, COMPUTE_LINE - va % COMPUTE_LINE);
        struct compute_access access = {va, move->wave->group->wgp, part, move->flags};
        if (move->write) {
            if (!memory->store(memory->ctx, &access, move->raw + at))
                return violation(move->wave, va, "a store");
        } else {
            if (!memory->load(memory->ctx, &access, move->raw + at, move->known ? known : NULL))
                return violation(move->wave, va, "a load");
            traffic_touch(&move->wave->compute->traffic, va / COMPUTE_LINE);
            if (move->known && !all_known(known, part))
                known_copy(move->known, at, known, part);
        }
        va += part;
        at += part;
        bytes -= part;
    }
    return true;
}

bool memory_read(const struct move *move, u64 va, u32 bytes)
{
    return move_piece(move, va, 0, bytes);
}

/* Lane i's `bytes` at raw + i * bytes. Lanes whose addresses follow each other go together. */
static bool move_lanes(const struct move *move, const u64 *va, u32 exec, u32 bytes)
{
    for (u32 i = 0; i < LANES; i++) {
        u32 last = i;

        if (!(exec >> i & 1))
            continue;
        while (last + 1 < LANES && (exec >> (last + 1) & 1) && va[last + 1] == va[last] + bytes)
            last++;
        if (!move_piece(move, va[i], i * bytes, (last - i + 1) * bytes))
            return false;
        i = last;
    }
    return true;
}

/* ---- rows of registers <-> bytes ---- */

static inline __m256i two_lanes(const u8 *from, const u32 *offset)
{
    return _mm256_loadu2_m128i((const __m128i *)(from + offset[4]),
                               (const __m128i *)(from + offset[0]));
}

/* 16 bytes a lane: eight lanes at once, four rows out of four pairs of lanes. */
static void rows_from_quads(const u8 *from, const u32 *offset, u32 *rows)
{
    for (u32 i = 0; i < LANES; i += 8) {
        __m256i a = two_lanes(from, offset + i), b = two_lanes(from, offset + i + 1);
        __m256i c = two_lanes(from, offset + i + 2), d = two_lanes(from, offset + i + 3);
        __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
        __m256i *to = (__m256i *)(rows + i);

        _mm256_storeu_si256(to, _mm256_unpacklo_epi64(ab, cd));
        _mm256_storeu_si256(to + 4, _mm256_unpackhi_epi64(ab, cd));
        ab = _mm256_unpackhi_epi32(a, b);
        cd = _mm256_unpackhi_epi32(c, d);
        _mm256_storeu_si256(to + 8, _mm256_unpacklo_epi64(ab, cd));
        _mm256_storeu_si256(to + 12, _mm256_unpackhi_epi64(ab, cd));
    }
}

static void rows_from_bytes(const struct memory_op *op, const u8 *from, const u32 *offset,
                            u32 *rows)
{
    if (op->bytes == 16) {
        rows_from_quads(from, offset, rows);
        return;
    }
    if (op->bytes >= 4) {
        for (u32 row = 0; row < op->bytes / 4u; row++)
            for (u32 i = 0; i < LANES; i++)
                memcpy(&rows[row * LANES + i], from + offset[i] + 4 * row, 4);
        return;
    }
    for (u32 i = 0; i < LANES; i++) {
        u16 value = from[offset[i]];
        if (op->bytes == 2)
            memcpy(&value, from + offset[i], 2);
        if (op->sign)
            rows[i] = op->bytes == 1 ? (u32)(int8_t)value : (u32)(int16_t)value;
        else
            rows[i] = value;
    }
}

static void bytes_from_rows(const struct access *access, u8 *to, const u32 *offset, u32 exec)
{
    const struct memory_op *op = access->uop->memory;
    u32 shift = op->half == HALF_HIGH ? 16 : 0;

    for (u32 i = 0; i < LANES; i++) {
        if (!(exec >> i & 1))
            continue;
        for (u32 row = 0; row < max_u32(op->bytes / 4u, 1); row++) {
            u32 value = access->out[row][i] >> shift;
            memcpy(to + offset[i] + 4 * row, &value, min_u32(op->bytes, 4));
        }
    }
}

static void packed_offsets(u32 *offset, u32 bytes)
{
    VECTOR_LOOP offset[i] = i * bytes;
}

static void unknown_note(struct access *access, const u32 *known, u32 bytes)
{
    for (u32 i = 0; i < LANES; i++)
        for (u32 row = 0; row < max_u32(bytes / 4, 1); row++) {
            u32 at = i * bytes + 4 * row, mask = (1u << min_u32(bytes, 4)) - 1;
            u64 pair = known[at / 32] | (u64)known[min_u32(at / 32 + 1, RAW_BYTES / 32 - 1)] << 32;
            if ((access->exec >> i & 1) && !(pair >> at % 32 & mask))
                access->unknown[row] |= 1u << i;
        }
}

/* ---- global memory ---- */

static u32 cache_flags(const struct isa_inst *inst)
{
    return (inst->glc ? COMPUTE_GLC : 0u) | (inst->slc ? COMPUTE_SLC : 0u) |
           (inst->dlc ? COMPUTE_DLC : 0u);
}

/* Fast mode: all lanes in one piece of host memory. Offsets of idle lanes are set to 0. */
static u8 *host_of_lanes(struct wave *wave, const struct access *access, u32 *offset, bool write)
{
    u64 low = ~0ull, high = 0;
    u32 exec = access->exec;
    u8 *host;

    if (wave->strict)
        return NULL;
    VECTOR_LOOP
    {
        u64 va = access->address[i];
        low = exec >> i & 1 && va < low ? va : low;
        high = exec >> i & 1 && va > high ? va : high;
    }
    if (high - low > UINT32_MAX / 2)
        return NULL;
    host = wave_host(wave, low, high - low + access->uop->memory->bytes, write);
    VECTOR_LOOP offset[i] = exec >> i & 1 ? (u32)(access->address[i] - low) : 0;
    return host;
}

static void global_load(struct wave *wave, struct access *access, u32 exec)
{
    const struct memory_op *op = access->uop->memory;
    u32 known[RAW_BYTES / 32], offset[LANES];
    u8 raw[RAW_BYTES];
    struct move move = {wave, raw, wave->strict ? known : NULL, cache_flags(&access->uop->inst),
                        false};
    const u8 *host = exec == access->exec ? host_of_lanes(wave, access, offset, false) : NULL;

    if (host) {
        rows_from_bytes(op, host, offset, access->in);
        return;
    }
    memset(known, 255, sizeof known);
    memset(raw, 0, sizeof raw);
    if (!move_lanes(&move, access->address, exec, op->bytes))
        return;
    packed_offsets(offset, op->bytes);
    rows_from_bytes(op, raw, offset, access->in);
    if (wave->strict && !all_known(known, LANES * op->bytes))
        unknown_note(access, known, op->bytes);
}

static void global_store(struct wave *wave, struct access *access, u32 exec)
{
    const struct memory_op *op = access->uop->memory;
    u32 offset[LANES];
    u8 raw[RAW_BYTES];
    struct move move = {wave, raw, NULL, cache_flags(&access->uop->inst), true};
    u8 *host = exec == access->exec ? host_of_lanes(wave, access, offset, true) : NULL;

    if (host) {
        bytes_from_rows(access, host, offset, exec);
        return;
    }
    packed_offsets(offset, op->bytes);
    bytes_from_rows(access, raw, offset, exec);
    move_lanes(&move, access->address, exec, op->bytes);
}

struct atomic_step {
    atomic_fn *fn;
    u64 data, compare;
};
static u64 atomic_run(void *argument, u64 old)
{
    const struct atomic_step *step = argument;

    return step->fn(old, step->data, step->compare);
}

static u64 two_rows(const u32 *const *rows, u32 first, u32 lane, u32 bytes)
{
    return bytes == 8 ? rows[first][lane] | (u64)rows[first + 1][lane] << 32 : rows[first][lane];
}

static void global_atomic(struct wave *wave, struct access *access, u32 exec)
{
    const struct memory_op *op = access->uop->memory;
    const struct compute_memory *memory = &wave->compute->memory;
    u32 rows = op->bytes / 4u;

    for (u32 i = 0; i < LANES; i++) {
        struct compute_access at = {access->address[i], wave->group->wgp, op->bytes,
                                    cache_flags(&access->uop->inst)};
        struct atomic_step step = {.fn = op->atomic};
        u64 old = 0;

        if (!(exec >> i & 1))
            continue;
        step.data = two_rows(access->out, 0, i, op->bytes);
        if (access->uop->row->src_regs[1] > rows)
            step.compare = two_rows(access->out, rows, i, op->bytes);
        if (at.va % op->bytes) {
            violation(wave, at.va, "a misaligned atomic");
            return;
        }
        if (!memory->atomic(memory->ctx, &at, atomic_run, &step, &old)) {
            violation(wave, at.va, "an atomic");
            return;
        }
        access->in[i] = (u32)old;
        if (rows == 2)
            access->in[LANES + i] = (u32)(old >> 32);
    }
}

/* ---- scratch ---- */

static bool scratch_check(struct wave *wave, const struct access *access, u32 exec)
{
    for (u32 i = 0; i < LANES; i++) {
        u64 end = (access->address[i] & 0xffffffff) + access->uop->memory->bytes;
        if (!(exec >> i & 1) || end <= wave->scratch_bytes)
            continue;
        wave_fail(wave, COMPUTE_VIOLATION, "scratch-out-of-range", "lane %u, bytes up to %lx of %x",
                  i, end, wave->scratch_bytes);
        return false;
    }
    return true;
}

static u64 scratch_va(const struct wave *wave, u32 lane, u64 offset)
{
    offset &= 0xffffffff;
    return wave->scratch + offset / 4 * 4 * LANES + lane * 4 + offset % 4;
}

/* Dwords of neighbouring lanes lie together: each row goes at once. What is not on a dword goes
 * byte by byte. */
static void scratch_move(struct wave *wave, struct access *access, u32 exec)
{
    const struct memory_op *op = access->uop->memory;
    u32 known[RAW_BYTES / 32], offset[LANES], step = 1;
    u8 raw[RAW_BYTES], part[RAW_BYTES];
    struct move move = {wave, part, wave->strict ? known : NULL, 0, op->kind == MEMORY_STORE};
    u64 va[LANES], low_bits = op->bytes % 4;

    if (!scratch_check(wave, access, exec))
        return;
    for (u32 i = 0; i < LANES; i++)
        low_bits |= exec >> i & 1 ? access->address[i] % 4 : 0;
    if (!low_bits)
        step = 4;
    packed_offsets(offset, op->bytes);
    if (move.write)
        bytes_from_rows(access, raw, offset, exec);
    memset(known, 255, sizeof known);
    for (u32 at = 0; at < op->bytes; at += step) {
        for (u32 i = 0; i < LANES; i++) {
            va[i] = scratch_va(wave, i, access->address[i] + at);
            memcpy(part + i * step, raw + i * op->bytes + at, step);
        }
        if (!move_lanes(&move, va, exec, step))
            return;
        for (u32 i = 0; i < LANES && !move.write; i++)
            memcpy(raw + i * op->bytes + at, part + i * step, step);
        if (step == 4 && !all_known(known, LANES * 4))
            for (u32 i = 0; i < LANES; i++)
                if ((exec >> i & 1) && !(known[i / 8] >> i % 8 * 4 & 15))
                    access->unknown[at / 4] |= 1u << i;
        memset(known, 255, sizeof known);
    }
    if (!move.write)
        rows_from_bytes(op, raw, offset, access->in);
}

/* ---- one instruction ---- */

static void global_perform(struct wave *wave, struct access *access, u32 exec)
{
    if (access->uop->memory->kind == MEMORY_LOAD)
        global_load(wave, access, exec);
    else if (access->uop->memory->kind == MEMORY_STORE)
        global_store(wave, access, exec);
    else
        global_atomic(wave, access, exec);
}

/* FLAT: each lane goes where its aperture is. What one part brings back is merged with the rest. */
static void flat_perform(struct wave *wave, struct access *access)
{
    u32 shared = 0, private = 0, others;
    lanes rows[4];

    for (u32 i = 0; i < LANES; i++) {
        shared |= (u32)(APERTURE_OF(access->address[i]) == APERTURE_SHARED) << i;
        private |= (u32)(APERTURE_OF(access->address[i]) == APERTURE_PRIVATE) << i;
    }
    shared &= access->exec;
    private &= access->exec;
    others = access->exec & ~shared & ~private;
    if (others == access->exec) {
        global_perform(wave, access, others);
        return;
    }
    if (private && access->uop->memory->kind == MEMORY_ATOMIC)
        violation(wave, access->address[__builtin_ctz(private)], "an atomic of scratch");
    u32 *in = access->in;
    if (others)
        global_perform(wave, access, others);
    access->in = rows[0];
    if (shared)
        lds_access(wave, access, shared);
    for (u32 row = 0; row < 4 && shared && in; row++)
        lanes_store(in + row * LANES, rows[row], shared);
    if (private)
        scratch_move(wave, access, private);
    for (u32 row = 0; row < 4 && private && in; row++)
        lanes_store(in + row * LANES, rows[row], private);
    access->in = in;
}

void vmem_perform(struct wave *wave, struct access *access)
{
    if (!access->exec)
        return;
    if (access->uop->inst.format == ISA_SCRATCH)
        scratch_move(wave, access, access->exec);
    else if (access->uop->inst.format == ISA_FLAT)
        flat_perform(wave, access);
    else
        global_perform(wave, access, access->exec);
}

bool access_returns(const struct uop *uop)
{
    if (!uop->memory || uop->memory->kind != MEMORY_ATOMIC || uop->inst.format == ISA_DS)
        return uop->row->dst_regs > 0;
    return uop->inst.glc;
}

void access_deliver(struct wave *wave, const struct access *access)
{
    const struct uop *uop = access->uop;
    u32 exec = access->exec, half = uop->memory ? uop->memory->half : HALF_NONE;
    u32 *to;

    if (!access_returns(uop))
        return;
    if (uop->inst.format == ISA_SMEM) {
        memcpy(&wave->s[uop->inst.dst], access->in, uop->row->dst_regs * 4u);
        wave->s[ISA_NULL] = 0;
        return;
    }
    to = wave->v[uop->inst.dst - ISA_VGPR];
    if (half == HALF_LOW)
        VECTOR_LOOP to[i] = exec >> i & 1 ? (to[i] & 0xffff0000) | (access->in[i] & 0xffff) : to[i];
    else if (half == HALF_HIGH)
        VECTOR_LOOP to[i] = exec >> i & 1 ? (to[i] & 0xffff) | access->in[i] << 16 : to[i];
    else
        for (u32 row = 0; row < uop->row->dst_regs && to != access->in; row++)
            lanes_store(to + row * LANES, access->in + row * LANES, exec);
}

void access_start(struct wave *wave, struct access *access)
{
    const struct uop *uop = access->uop;
    bool direct = access->exec == LANES_ALL && uop->inst.format != ISA_SMEM &&
                  access_returns(uop) && uop->memory && !uop->memory->half;
    u32 scalars[LANES];

    if (wave->strict) {
        strict_launch(wave, access);
        return;
    }
    access->in = direct ? wave->v[uop->inst.dst - ISA_VGPR] : wave->result[0];
    if (uop->inst.format == ISA_SMEM) {
        access->in = scalars;
        smem_perform(wave, access);
    } else if (uop->inst.format == ISA_DS) {
        lds_perform(wave, access);
    } else {
        vmem_perform(wave, access);
    }
    access_deliver(wave, access);
}

/* ---- the ledger ---- */

/* 32-byte pieces that an access touches; exact where addresses rise with the lanes. */
static u64 sectors(const struct access *access)
{
    u64 count = 0, last = ~0ull;

    for (u32 i = 0; i < LANES; i++) {
        u64 first = access->address[i] / SECTOR;
        u64 end = (access->address[i] + access->uop->memory->bytes - 1) / SECTOR;
        if (!(access->exec >> i & 1))
            continue;
        count += end - first + 1 - (first == last || end == last);
        last = end;
    }
    return count;
}

static void count(struct wave *wave, const struct access *access)
{
    struct compute_ledger *ledger = &wave->compute->ledger;
    u64 bytes = (u32)__builtin_popcount(access->exec) * access->uop->memory->bytes;

    if (!access->exec)
        return;
    ledger->requests++;
    if (access->uop->memory->kind != MEMORY_STORE) {
        ledger->load_bytes += bytes;
        ledger->sectors_loaded += sectors(access);
    }
    if (access->uop->memory->kind != MEMORY_LOAD) {
        ledger->store_bytes += bytes;
        ledger->sectors_stored += sectors(access);
    }
}

/* ---- running ---- */

static u64 scalar_pair(const struct wave *wave, u32 reg)
{
    return wave->s[reg] | (u64)wave->s[reg + 1] << 32;
}

static void addresses(const struct wave *wave, const struct uop *uop, u64 *address)
{
    const struct isa_inst *inst = &uop->inst;
    const u32 *low = inst->addr >= ISA_VGPR ? wave->v[inst->addr - ISA_VGPR] : NULL;
    bool has_scalar = inst->saddr != ISA_NULL;
    u64 base = (u64)(i64)inst->imm;

    if (inst->format == ISA_SCRATCH) {
        u32 start = (u32)base + (has_scalar ? wave->s[inst->saddr] : 0);
        VECTOR_LOOP address[i] = (u32)(start + (inst->sve ? low[i] : 0));
    } else if (inst->op == ISA_global_load_addtid_b32 || inst->op == ISA_global_store_addtid_b32) {
        base += scalar_pair(wave, inst->saddr);
        VECTOR_LOOP address[i] = base + 4 * i;
    } else if (has_scalar && inst->format == ISA_GLOBAL) {
        base += scalar_pair(wave, inst->saddr);
        VECTOR_LOOP address[i] = base + low[i];
    } else {
        VECTOR_LOOP address[i] = base + (low[i] | (u64)low[LANES + i] << 32);
    }
}

/* Fast mode, the common case: all lanes load side by side from one piece of host memory. */
static bool load_packed(struct wave *wave, const struct uop *uop)
{
    const struct isa_inst *inst = &uop->inst;
    const u32 *low = wave->v[inst->addr - ISA_VGPR], *high = low + LANES;
    bool has_scalar = inst->saddr != ISA_NULL;
    u32 bytes = uop->memory->bytes, differs = low[0] > UINT32_MAX - LANES * bytes, offset[LANES];
    u64 va = (u64)(i64)inst->imm + low[0];
    struct compute_ledger *ledger = &wave->compute->ledger;
    const u8 *host;

    packed_offsets(offset, bytes);
    VECTOR_LOOP differs |= low[i] - low[0] - offset[i];
    if (!has_scalar)
        VECTOR_LOOP differs |= high[i] - high[0];
    va += has_scalar ? scalar_pair(wave, inst->saddr) : (u64)high[0] << 32;
    host = differs ? NULL : wave_host(wave, va, LANES * bytes, false);
    if (!host)
        return false;
    ledger->requests++;
    ledger->load_bytes += LANES * bytes;
    ledger->sectors_loaded += (va + LANES * bytes - 1) / SECTOR - va / SECTOR + 1;
    rows_from_bytes(uop->memory, host, offset, wave->v[inst->dst - ISA_VGPR]);
    return true;
}

static void run_vmem(struct wave *wave, const struct uop *uop)
{
    struct access access;
    u32 rows = uop->memory->kind == MEMORY_LOAD ? 0 : uop->row->src_regs[1];

    if (uop->direct && !wave->strict && wave->EXEC == LANES_ALL && load_packed(wave, uop))
        return;
    access.uop = uop;
    access.exec = wave->EXEC;
    access.epoch = wave->epoch;
    addresses(wave, uop, access.address);
    for (u32 row = 0; row < rows; row++)
        access.out[row] = wave->v[(uop->inst.data[0] - ISA_VGPR + row) % VGPRS_MAX];
    count(wave, &access);
    access_start(wave, &access);
}

static void run_invalidate(struct wave *wave, const struct uop *uop)
{
    const struct compute_memory *memory = &wave->compute->memory;
    u32 what = uop->inst.op == ISA_buffer_gl0_inv ? COMPUTE_GL0 : COMPUTE_GL1;

    memory->invalidate(memory->ctx, wave->group->wgp, what);
}

bool vmem_decode(struct uop *uop)
{
    uop->memory = &memory_ops[uop->inst.op];
    uop->class = uop->memory->kind == MEMORY_LOAD    ? CLASS_VMEM_LOAD
                 : uop->memory->kind == MEMORY_STORE ? CLASS_VMEM_STORE
                                                     : CLASS_ATOMIC;
    uop->run = run_vmem;
    uop->direct = uop->inst.format == ISA_GLOBAL && uop->inst.addr >= ISA_VGPR &&
                  uop->class == CLASS_VMEM_LOAD && !uop->memory->half;
    if (uop->inst.op == ISA_buffer_gl0_inv || uop->inst.op == ISA_buffer_gl1_inv) {
        uop->memory = NULL;
        uop->class = CLASS_OTHER;
        uop->run = run_invalidate;
        return true;
    }
    return uop->memory->kind != MEMORY_NONE && uop->inst.format != ISA_MUBUF;
}
