/*
 * ip.c: which blocks the card has and where their registers lie, and access to them by name. Owns
 * the discovery table, which the card's own firmware leaves near the end of VRAM, and believes
 * nothing in it before bounds, checksums and bases have been looked at. Must not know what a
 * register does. Follows: Linux 6.12 amdgpu_discovery.c, include/discovery.h.
 */
#include "amdgpu/priv.h"

#define WAKE_MS   5000u /* Linux: 2 s; a cold card in a slow machine may take more */
#define DIES_MAX  16u
#define IPS_MAX   256u
#define INDEX_MAX (1u << 28) /* of a register; the index pair has 32 bits for bytes */

static const struct reg_row rows[REG_COUNT] = REG_ROWS;

const struct reg_row *ip_row(enum reg reg)
{
    return &rows[reg];
}

/* ---- registers ---- */

u32 ip_index(const struct gpu *gpu, enum reg reg)
{
    return gpu->base[rows[reg].block][rows[reg].segment] + rows[reg].offset;
}

static u64 address_of(const struct gpu *gpu, enum reg reg)
{
    return 4ull * ip_index(gpu, reg);
}

/* What lies beyond BAR 5 is reached by the index pair at its start. */
static bool is_direct(const struct gpu *gpu, u64 address)
{
    return address + 4 <= gpu->regs.bytes;
}

static u32 read_once(struct gpu *gpu, enum reg reg)
{
    u64 address = address_of(gpu, reg);

    if (is_direct(gpu, address))
        return mmio_read32(&gpu->regs, address);
    mmio_write32(&gpu->regs, address_of(gpu, R_BIF_BX_PF0_RSMU_INDEX), (u32)address);
    return mmio_read32(&gpu->regs, address_of(gpu, R_BIF_BX_PF0_RSMU_DATA));
}

u32 ip_read(struct gpu *gpu, enum reg reg)
{
    u32 value = read_once(gpu, reg);

    if (value == UINT32_MAX)
        value = read_once(gpu, reg);
    if (value == UINT32_MAX && mmio_read16(&gpu->dev->config, 0) == UINT16_MAX)
        gpu->gone = true;
    return value;
}

void ip_write_nth(struct gpu *gpu, enum reg reg, u32 nth, u32 value)
{
    u64 address = address_of(gpu, reg) + 4ull * nth;

    if (is_direct(gpu, address)) {
        mmio_write32(&gpu->regs, address, value);
        return;
    }
    mmio_write32(&gpu->regs, address_of(gpu, R_BIF_BX_PF0_RSMU_INDEX), (u32)address);
    mmio_write32(&gpu->regs, address_of(gpu, R_BIF_BX_PF0_RSMU_DATA), value);
}

void ip_write(struct gpu *gpu, enum reg reg, u32 value)
{
    ip_write_nth(gpu, reg, 0, value);
}

void ip_write_pair(struct gpu *gpu, enum reg low, enum reg high, u64 value)
{
    ip_write(gpu, low, low32(value));
    ip_write(gpu, high, high32(value));
}

void ip_update(struct gpu *gpu, enum reg reg, u32 mask, u32 value)
{
    ip_write(gpu, reg, (ip_read(gpu, reg) & ~mask) | value);
}

void ip_set(struct gpu *gpu, enum reg reg, u32 bits)
{
    ip_write(gpu, reg, ip_read(gpu, reg) | bits);
}

void ip_run(struct gpu *gpu, const struct setting *row, u32 count)
{
    for (u32 i = 0; i < count; i++)
        if (row[i].mask)
            ip_update(gpu, (enum reg)row[i].reg, row[i].mask, row[i].value);
        else
            ip_write(gpu, (enum reg)row[i].reg, row[i].value);
}

static err reached(struct gpu *gpu, enum reg reg, u32 mask, u32 want, u32 seen)
{
    if (gpu->gone)
        log_error(gpu->name, "the card is off the bus: %s reads %08x", rows[reg].name, seen);
    else
        log_error(gpu->name, "%s: want %08x under %08x, saw %08x", rows[reg].name, want, mask,
                  seen);
    return gpu->gone ? E_DEVICE : E_TIMEOUT;
}

err ip_poll(struct gpu *gpu, enum reg reg, u32 mask, u32 want, u32 timeout_ms)
{
    u32 seen = ip_read(gpu, reg);
    bool done = (seen & mask) == want && seen != UINT32_MAX;
    err e = gpu_await(gpu, done, timeout_ms);

    return e == E_TIMEOUT ? reached(gpu, reg, mask, want, seen) : e;
}

err ip_wait(struct gpu *gpu, enum reg reg, u32 mask, u32 want, u32 timeout_us)
{
    u64 end_ns = time_ns() + timeout_us * NS_PER_US;
    u32 seen;

    do {
        seen = ip_read(gpu, reg);
        if ((seen & mask) == want && seen != UINT32_MAX)
            return OK;
        cpu_relax();
    } while (time_ns() < end_ns && !gpu->gone);
    return reached(gpu, reg, mask, want, seen);
}

/* ---- waking up ---- */

/* Every card of this family has these blocks here; the table confirms or corrects it. */
void ip_start(struct gpu *gpu)
{
    static const u32 nbio[] = {0, 0x14, 0xd20, 0x10400, 0x241b000, 0x4040000};

    memset(gpu->base, 0, sizeof(gpu->base));
    memcpy(gpu->base[REG_NBIO], nbio, sizeof(nbio));
    gpu->base[REG_MP][0] = 0x16000;
}

/* After power-on the card trains its memory by itself; until it says so nothing else is true. */
err ip_wake(struct gpu *gpu)
{
    TRY(ip_poll(gpu, R_MP0_SMN_C2PMSG_33, 1u << 31, 1u << 31, WAKE_MS));
    u32 mib = ip_read(gpu, R_RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE);
    gpu->vram_bytes = mib * MIB;
    if (mib != UINT32_MAX && gpu->vram_bytes >= BOOT_END + 2 * VRAM_TOP_BYTES)
        return OK;
    log_error(gpu->name, "want the size of VRAM in MiB, saw %08x", mib);
    return E_DEVICE;
}

/* ---- the discovery table ---- */

/* Copies `bytes` of the table; false when they are not all inside. */
static bool get(const struct gpu *gpu, u64 offset, void *out, u64 bytes)
{
    if (offset > gpu->discovery_bytes || bytes > gpu->discovery_bytes - offset)
        return false;
    memcpy(out, gpu->discovery + offset, bytes);
    return true;
}

static u16 sum_of(const struct gpu *gpu, u64 offset, u64 bytes)
{
    u16 sum = 0;

    for (u64 i = offset; i < offset + bytes; i++)
        sum = (u16)(sum + gpu->discovery[i]);
    return sum;
}

static err malformed(const struct gpu *gpu, const char *what, u64 want, u64 saw)
{
    log_error(gpu->name, "discovery table: want %s %lx, saw %lx", what, want, saw);
    return E_FORMAT;
}

static err read_table(struct gpu *gpu, struct discovery_header *head)
{
    u64 at = gpu->vram_bytes - DISCOVERY_FROM_END;
    const u32 after_sum = offsetof(struct discovery_header, bytes);

    vram_read(gpu, at, gpu->discovery, sizeof(*head));
    memcpy(head, gpu->discovery, sizeof(*head));
    if (head->signature != DISCOVERY_SIGNATURE)
        return malformed(gpu, "signature", DISCOVERY_SIGNATURE, head->signature);
    if (head->bytes < sizeof(*head) || head->bytes > DISCOVERY_BYTES_MAX)
        return malformed(gpu, "at most so many bytes:", DISCOVERY_BYTES_MAX, head->bytes);
    vram_read(gpu, at, gpu->discovery, round_up(head->bytes, 4));
    gpu->discovery_bytes = head->bytes;
    u16 sum = sum_of(gpu, after_sum, head->bytes - after_sum);
    return sum == head->checksum ? OK : malformed(gpu, "checksum", head->checksum, sum);
}

/* One list of the table: present, whole and with the right sum. */
static err check_list(const struct gpu *gpu, const struct discovery_list_entry *list, u32 magic,
                      u32 bytes)
{
    u32 signature = 0;

    if (!get(gpu, list->offset, &signature, sizeof(signature)) || signature != magic)
        return malformed(gpu, "list signature", magic, signature);
    if (!bytes || bytes > gpu->discovery_bytes - list->offset)
        return malformed(gpu, "a list that ends before", gpu->discovery_bytes,
                         list->offset + (u64)bytes);
    u16 sum = sum_of(gpu, list->offset, bytes);
    return sum == list->checksum ? OK : malformed(gpu, "list checksum", list->checksum, sum);
}

static const struct {
    u16 hw_id;
    u8 block;
} blocks[] = {{HW_GC, REG_GC},         {HW_MMHUB, REG_MMHUB}, {HW_MP0, REG_MP},
              {HW_OSSSYS, REG_OSSSYS}, {HW_NBIF, REG_NBIO},   {HW_HDP, REG_HDP}};

static void note_ip(struct gpu *gpu, const struct discovery_ip *ip, const u64 *base)
{
    for (u32 i = 0; i < ARRAY_LEN(blocks); i++) {
        u32 block = blocks[i].block;
        if (blocks[i].hw_id != ip->hw_id || ip->instance)
            continue;
        gpu->version[block] = (u32)ip->major << 16 | (u32)ip->minor << 8 | ip->revision;
        gpu->segments[block] = min_u32(ip->base_count, SEGMENTS_MAX);
        for (u32 n = 0; n < gpu->segments[block]; n++)
            gpu->base[block][n] = (u32)min_u64(base[n], INDEX_MAX);
    }
}

/* One block of a die; moves *at behind it. */
static err read_ip(struct gpu *gpu, u64 *at, bool wide)
{
    struct discovery_ip ip;
    u64 base[256] = {};

    if (!get(gpu, *at, &ip, sizeof(ip)))
        return malformed(gpu, "blocks that end before", gpu->discovery_bytes, *at);
    *at += sizeof(ip);
    for (u32 n = 0; n < ip.base_count; n++, *at += wide ? 8 : 4)
        if (!get(gpu, *at, &base[n], wide ? 8 : 4))
            return malformed(gpu, "bases that end before", gpu->discovery_bytes, *at);
    note_ip(gpu, &ip, base);
    return OK;
}

static err read_ips(struct gpu *gpu, const struct discovery_list_entry *list)
{
    struct discovery_ips ips;
    struct discovery_die die;

    if (!get(gpu, list->offset, &ips, sizeof(ips)))
        return malformed(gpu, "the list of blocks before", gpu->discovery_bytes, list->offset);
    TRY(check_list(gpu, list, DISCOVERY_IPS, ips.bytes));
    if (ips.die_count > DIES_MAX)
        return malformed(gpu, "at most so many dies:", DIES_MAX, ips.die_count);
    for (u32 d = 0; d < ips.die_count; d++) {
        u64 at = ips.die[d].offset;
        if (!get(gpu, at, &die, sizeof(die)) || die.ip_count > IPS_MAX)
            return malformed(gpu, "a die before", gpu->discovery_bytes, at);
        at += sizeof(die);
        for (u32 i = 0; i < die.ip_count; i++)
            TRY(read_ip(gpu, &at, ips.version >= 4 && ips.flags & 1));
    }
    return OK;
}

static err read_gc(struct gpu *gpu, const struct discovery_list_entry *list)
{
    struct discovery_gc gc;

    if (!get(gpu, list->offset, &gc, sizeof(gc)) || gc.major != 1)
        return malformed(gpu, "shader counts of version", 1, list->offset);
    TRY(check_list(gpu, list, DISCOVERY_GC, gc.bytes));
    u64 cu = (u64)gc.se_count * gc.sa_per_se * ((u64)gc.wgp0_per_sa + gc.wgp1_per_sa) * 2;
    if (!cu || cu > 1024 || gc.se_count > 64 || gc.scratch_slots_per_cu_max > 64)
        return malformed(gpu, "at most 1024 compute units (decimal), not", 1024, cu);
    gpu->cu_count = (u32)cu;
    gpu->se_count = gc.se_count;
    gpu->sa_per_se = gc.sa_per_se;
    gpu->waves_per_cu = gc.scratch_slots_per_cu_max;
    return OK;
}

/* What was fused off is as good as not there. */
static err read_harvest(struct gpu *gpu, const struct discovery_list_entry *list)
{
    struct discovery_harvest harvest;

    if (!list->offset)
        return OK;
    if (!get(gpu, list->offset, &harvest, sizeof(harvest)))
        return malformed(gpu, "the harvest list before", gpu->discovery_bytes, list->offset);
    TRY(check_list(gpu, list, DISCOVERY_HARVEST, sizeof(harvest)));
    for (u32 i = 0; i < ARRAY_LEN(harvest.list); i++)
        for (u32 b = 0; b < ARRAY_LEN(blocks); b++)
            if (harvest.list[i].hw_id == blocks[b].hw_id && !harvest.list[i].instance)
                gpu->segments[blocks[b].block] = 0;
    return OK;
}

/* Every register that is ever named has a base that can be true. */
static err check_rows(const struct gpu *gpu)
{
    for (u32 i = 0; i < REG_COUNT; i++) {
        u32 base = gpu->base[rows[i].block][rows[i].segment];
        if (rows[i].segment >= gpu->segments[rows[i].block] || base >= INDEX_MAX) {
            log_error(gpu->name, "discovery table: want a base of segment %u for %s, saw %x",
                      rows[i].segment, rows[i].name, base);
            return E_FORMAT;
        }
    }
    return OK;
}

static err parse_table(struct gpu *gpu)
{
    struct discovery_header head;

    TRY(read_table(gpu, &head));
    memset(gpu->base, 0, sizeof(gpu->base));
    memset(gpu->segments, 0, sizeof(gpu->segments));
    TRY(read_ips(gpu, &head.list[DISCOVERY_LIST_IPS]));
    TRY(read_gc(gpu, &head.list[DISCOVERY_LIST_GC]));
    TRY(read_harvest(gpu, &head.list[DISCOVERY_LIST_HARVEST]));
    return check_rows(gpu);
}

err ip_discover(struct gpu *gpu)
{
    err e = parse_table(gpu);

    if (e != OK) {
        ip_start(gpu);
        return e;
    }
    u32 gc = gpu->version[REG_GC];
    gpu->chip = firmware_chip(gc);
    if (!gpu->chip) {
        log_error(gpu->name, "want a graphics core that I know (11.0.0), saw %u.%u.%u", gc >> 16,
                  gc >> 8 & 255, gc & 255);
        return E_UNSUPPORTED;
    }
    log_info(gpu->name, "%s, %lu MiB, %u compute units in %u engines, BAR 0 of %lu MiB",
             gpu->chip->name, gpu->vram_bytes / MIB, gpu->cu_count, gpu->se_count,
             gpu->vram.bytes / MIB);
    return OK;
}
