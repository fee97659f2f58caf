/*
 * gmc.c: the way to memory: VRAM as seen from here, the two memory hubs (MMHUB for the blocks
 * around, GCHUB for shaders and copy engines), flushes, and the faults that a hub latches. Must not
 * know what is mapped where. Follows: Linux 6.12 mmhub_v3_0.c, gfxhub_v3_0.c, gmc_v11_0.c,
 * hdp_v6_0.c, nbio_v4_3.c.
 */
#include "amdgpu/priv.h"

enum hub { MM, GC, HUBS };

#define HUB(name)                                                                                  \
    {                                                                                              \
        R_MM##name, R_GC##name                                                                     \
    }

#define FLUSH_US      10000u
#define ENGINES       18u
#define ALL_ADDRESSES 0x1fffffffffull /* 4 KiB pages */
#define HDP_HOLE      0x7f000u        /* where Linux puts the flush register: behind the others */

#define FAULT_REGS(hub)                                                                            \
    {                                                                                              \
        R_##hub##VM_L2_PROTECTION_FAULT_STATUS, R_##hub##VM_L2_PROTECTION_FAULT_ADDR_LO32,         \
            R_##hub##VM_L2_PROTECTION_FAULT_ADDR_HI32, R_##hub##VM_L2_PROTECTION_FAULT_CNTL        \
    }

/* ---- VRAM from here ---- */

/* Beyond BAR 0 a pair of registers shows one word at a time. */
static enum reg window(struct gpu *gpu, u64 at)
{
    if (gpu->window_high != at >> 31)
        ip_write(gpu, R_BIF_BX_PF0_MM_INDEX_HI, (u32)(at >> 31));
    gpu->window_high = (u32)(at >> 31);
    ip_write(gpu, R_BIF_BX_PF0_MM_INDEX, (u32)at | 1u << 31);
    return R_BIF_BX_PF0_MM_DATA;
}

void vram_read(struct gpu *gpu, u64 at, void *out, u64 bytes)
{
    bool direct = at + bytes <= gpu->vram.bytes;

    for (u64 i = 0; i < bytes; i += 4) {
        u32 word = direct ? mmio_read32(&gpu->vram, at + i) : ip_read(gpu, window(gpu, at + i));
        memcpy((u8 *)out + i, &word, 4);
    }
}

void vram_write(struct gpu *gpu, u64 at, const void *in, u64 bytes)
{
    bool direct = at + bytes <= gpu->vram.bytes;
    u64 i = 0, word;

    for (; direct && i + 8 <= bytes && at % 8 == 0; i += 8) {
        memcpy(&word, (const u8 *)in + i, 8);
        mmio_write64(&gpu->vram, at + i, word);
    }
    for (; i < bytes; i += 4) {
        word = 0;
        memcpy(&word, (const u8 *)in + i, min_u64(bytes - i, 4));
        if (direct && at + i + 4 <= gpu->vram.bytes)
            mmio_write32(&gpu->vram, at + i, (u32)word);
        else
            ip_write(gpu, window(gpu, at + i), (u32)word);
    }
}

void vram_zero(struct gpu *gpu, u64 at, u64 bytes)
{
    static const u8 zeros[256];

    for (u64 i = 0; i < bytes; i += sizeof(zeros))
        vram_write(gpu, at + i, zeros, min_u64(bytes - i, sizeof(zeros)));
}

/* The read posts the write; Linux reads this register because others upset some machines. */
void gmc_flush_hdp(struct gpu *gpu)
{
    mmio_write32(&gpu->regs, gpu->hdp_flush_at, 0);
    (void)ip_read(gpu, R_RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE);
}

/* ---- hubs ---- */

static void start_hub(struct gpu *gpu, enum hub hub)
{
    enum { PAIR = UINT32_MAX };
    const struct {
        u16 reg[HUBS];
        u32 mask; /* 0: a plain write; PAIR: this register and the next */
        u64 value;
    } rows[] = {
        {HUB(MC_VM_AGP_BASE), 0, 0},
        {HUB(MC_VM_AGP_BOT), 0, 0xffffff}, /* above the top: shut */
        {HUB(MC_VM_AGP_TOP), 0, 0},
        {HUB(MC_VM_SYSTEM_APERTURE_LOW_ADDR), 0, gpu->fb_base >> 18},
        {HUB(MC_VM_SYSTEM_APERTURE_HIGH_ADDR), 0, gpu->fb_end >> 18},
        {HUB(MC_VM_SYSTEM_APERTURE_DEFAULT_ADDR_LSB), PAIR, BOOT_SCRATCH_PAGE >> 12},
        {HUB(VM_L2_PROTECTION_FAULT_DEFAULT_ADDR_LO32), PAIR, BOOT_FAULT_PAGE >> 12},
        {HUB(VM_L2_PROTECTION_FAULT_CNTL2), 0x40000, 0x40000}, /* a moving page is read again */
        {HUB(MC_VM_MX_L1_TLB_CNTL), 0x3879, 0x1859},           /* on, advanced model, uncached */
        {HUB(VM_L2_CNTL), 0x3fc0903, 0x80801}, /* on, default page in system memory */
        {HUB(VM_L2_CNTL2), 3, 3},              /* forget all */
        {HUB(VM_L2_CNTL3), 0, 0x80130009},     /* bank select 9, fragment 6 */
        {HUB(VM_L2_CNTL4), 0, 1},              /* one partition for 4 KiB pages */
        {HUB(VM_L2_CNTL5), 0, 0x3fe0},         /* no client first */
        {HUB(VM_CONTEXT0_PAGE_TABLE_START_ADDR_LO32), PAIR, VA_START >> 12},
        {HUB(VM_CONTEXT0_PAGE_TABLE_END_ADDR_LO32), PAIR, VA_LAST >> 12},
        {HUB(VM_CONTEXT0_PAGE_TABLE_BASE_ADDR_LO32), PAIR, BOOT_ROOT_TABLE | PTE_VALID},
        /* on, four levels, for each kind of fault an interrupt and the default page */
        {HUB(VM_CONTEXT0_CNTL), 0, 0x1fffe07},
        {HUB(VM_L2_CONTEXT1_IDENTITY_APERTURE_LOW_ADDR_LO32), PAIR, 0xfffffffff},
        {HUB(VM_L2_CONTEXT1_IDENTITY_APERTURE_HIGH_ADDR_LO32), PAIR, 0},
        {HUB(VM_L2_CONTEXT_IDENTITY_PHYSICAL_OFFSET_LO32), PAIR, 0},
    };
    static const u16 engine[HUBS] = HUB(VM_INVALIDATE_ENG0_ADDR_RANGE_LO32);

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        bool pair = rows[i].mask == PAIR;
        const struct setting row = {rows[i].reg[hub], pair ? 0 : rows[i].mask,
                                    low32(rows[i].value)};
        ip_run(gpu, &row, 1);
        if (pair)
            ip_write_nth(gpu, (enum reg)row.reg, 1, high32(rows[i].value));
    }
    for (u32 i = 0; i < 2 * ENGINES; i++)
        ip_write_nth(gpu, (enum reg)engine[hub], i,
                     i % 2 ? high32(ALL_ADDRESSES) : low32(ALL_ADDRESSES));
    gpu->hub_on[hub] = true;
}

/* Where VRAM is, how to flush writes to it, doorbells on. */
err gmc_soc_start(struct gpu *gpu)
{
    u32 base = ip_read(gpu, R_MMMC_VM_FB_LOCATION_BASE) & 0xffffff;
    u32 top = ip_read(gpu, R_MMMC_VM_FB_LOCATION_TOP) & 0xffffff;

    gpu->hub_on[MM] = gpu->partial;
    gpu->hub_on[GC] = false;
    gpu->fb_base = (u64)base << 24;
    gpu->fb_end = (u64)top << 24;
    if (top < base || base == 0xffffff || top == 0xffffff) {
        log_error(gpu->name, "want VRAM's place in the hub, saw %06x to %06x", base, top);
        return E_DEVICE;
    }
    gpu->hdp_flush_at = ip_read(gpu, R_BIF_BX0_REMAP_HDP_MEM_FLUSH_CNTL);
    if (!gpu->hdp_flush_at || gpu->hdp_flush_at % 4 || gpu->hdp_flush_at + 4ull > gpu->regs.bytes) {
        gpu->hdp_flush_at = HDP_HOLE;
        ip_write(gpu, R_BIF_BX0_REMAP_HDP_MEM_FLUSH_CNTL, HDP_HOLE);
    }
    if (gpu->partial)
        return OK;
    ip_update(gpu, R_RCC_DEV0_EPF2_STRAP2, RCC_DEV0_EPF2_STRAP2__STRAP_NO_SOFT_RESET_DEV0_F2, 0);
    ip_write(gpu, R_RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN, 1);
    return OK;
}

err gmc_mmhub_start(struct gpu *gpu)
{
    start_hub(gpu, MM);
    return OK;
}

static err flush_hub(struct gpu *gpu, enum hub hub)
{
    static const u16 request[] = HUB(VM_INVALIDATE_ENG17_REQ);
    static const u16 answer[] = HUB(VM_INVALIDATE_ENG17_ACK);
    const u32 what = MMVM_INVALIDATE_ENG17_REQ__INVALIDATE_L2_PTES |
                     MMVM_INVALIDATE_ENG17_REQ__INVALIDATE_L2_PDE0 |
                     MMVM_INVALIDATE_ENG17_REQ__INVALIDATE_L2_PDE1 |
                     MMVM_INVALIDATE_ENG17_REQ__INVALIDATE_L2_PDE2 |
                     MMVM_INVALIDATE_ENG17_REQ__INVALIDATE_L1_PTES;

    if (!gpu->hub_on[hub])
        return OK;
    if (hub == MM && ip_wait(gpu, R_MMVM_INVALIDATE_ENG17_SEM, 1, 1, FLUSH_US) != OK) {
        ip_write(gpu, R_MMVM_INVALIDATE_ENG17_SEM, 0); /* the answer was lost: we have it */
        TRY(ip_wait(gpu, R_MMVM_INVALIDATE_ENG17_SEM, 1, 1, FLUSH_US));
    }
    ip_write(gpu, (enum reg)request[hub], what | 1); /* VMID 0 */
    err e = ip_wait(gpu, (enum reg)answer[hub], 1, 1, FLUSH_US);
    if (hub == GC)
        return e;
    ip_write(gpu, R_MMVM_INVALIDATE_ENG17_SEM, 0);
    u32 private = MMVM_L2_BANK_SELECT_RESERVED_CID2__RESERVED_CACHE_PRIVATE_INVALIDATION;
    ip_update(gpu, R_MMVM_L2_BANK_SELECT_RESERVED_CID2, private, private);
    (void)ip_read(gpu, R_MMVM_L2_BANK_SELECT_RESERVED_CID2); /* done once this returns */
    return e;
}

err gmc_flush_tables(struct gpu *gpu)
{
    gmc_flush_hdp(gpu);
    TRY(flush_hub(gpu, GC));
    return flush_hub(gpu, MM);
}

err gmc_gchub_start(struct gpu *gpu)
{
    start_hub(gpu, GC);
    return gmc_flush_tables(gpu);
}

/* ---- faults in words ---- */

/* Reads and clears what a hub has latched; false when there is nothing. */
bool gmc_take_fault(struct gpu *gpu, bool mmhub, struct text *out)
{
    static const char *const client_name[] = {
        "CB/DB", "?",   "GE1",         "GE2", "CPF", "CPC",   "CPG",   "RLC",
        "TCP",   "SQC", "SQC scalars", "SQG", "?",   "SDMA0", "SDMA1", "GCR"};
    static const struct {
        u16 status, low, high, control;
    } hubs[HUBS] = {FAULT_REGS(MM), FAULT_REGS(GC)};
    const u32 walk = MMVM_L2_PROTECTION_FAULT_STATUS__WALKER_ERROR;
    const u32 permission = MMVM_L2_PROTECTION_FAULT_STATUS__PERMISSION_FAULTS;
    enum hub hub = mmhub ? MM : GC;
    u32 status = ip_read(gpu, (enum reg)hubs[hub].status);
    u32 client = field_of(status, MMVM_L2_PROTECTION_FAULT_STATUS__CID);

    if (!status || gpu->gone)
        return false;
    u64 va = (u64)ip_read(gpu, (enum reg)hubs[hub].high) << 44 |
             (u64)ip_read(gpu, (enum reg)hubs[hub].low) << 12;
    text_fmt(out, "VM fault: %s of %lx by client %u%s%s%s, walk error %u, permissions %x",
             status & MMVM_L2_PROTECTION_FAULT_STATUS__RW ? "write" : "read", va, client,
             mmhub ? " of the memory hub" : " (",
             !mmhub && client < ARRAY_LEN(client_name) ? client_name[client] : "", mmhub ? "" : ")",
             field_of(status, walk), field_of(status, permission));
    memory_describe(gpu, va, out);
    ip_set(gpu, (enum reg)hubs[hub].control,
           MMVM_L2_PROTECTION_FAULT_CNTL__CLEAR_PROTECTION_FAULT_STATUS_ADDR);
    return true;
}
