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
#define MASK(name) MMVM_##name /* both hubs have the same fields at the same place */

#define FLUSH_US      10000u
#define ENGINES       18u
#define ALL_ADDRESSES 0x1fffffffffull /* 4 KiB pages */
#define HDP_HOLE      0x7f000u        /* where Linux puts the flush register: behind the others */

/* ---- VRAM from here ---- */

static u32 window_read(struct gpu *gpu, u64 at)
{
    if (gpu->window_high != at >> 31)
        ip_write(gpu, R_BIF_BX_PF0_MM_INDEX_HI, (u32)(at >> 31));
    gpu->window_high = (u32)(at >> 31);
    ip_write(gpu, R_BIF_BX_PF0_MM_INDEX, (u32)at | 1u << 31);
    return ip_read(gpu, R_BIF_BX_PF0_MM_DATA);
}

static void window_write(struct gpu *gpu, u64 at, u32 value)
{
    if (gpu->window_high != at >> 31)
        ip_write(gpu, R_BIF_BX_PF0_MM_INDEX_HI, (u32)(at >> 31));
    gpu->window_high = (u32)(at >> 31);
    ip_write(gpu, R_BIF_BX_PF0_MM_INDEX, (u32)at | 1u << 31);
    ip_write(gpu, R_BIF_BX_PF0_MM_DATA, value);
}

void vram_read(struct gpu *gpu, u64 at, void *out, u64 bytes)
{
    bool direct = at + bytes <= gpu->vram.bytes;

    for (u64 i = 0; i < bytes; i += 4) {
        u32 word = direct ? mmio_read32(&gpu->vram, at + i) : window_read(gpu, at + i);
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
            window_write(gpu, at + i, (u32)word);
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

struct hub_row {
    u16 reg[HUBS];
    u32 mask, value; /* mask 0: a plain write */
};

// clang-format off
static const struct hub_row aperture_rows[] = {
    {HUB(MC_VM_AGP_BASE), 0, 0},
    {HUB(MC_VM_AGP_BOT), 0, 0xffffff}, /* above the top: shut */
    {HUB(MC_VM_AGP_TOP), 0, 0},
};

static const struct hub_row cache_rows[] = {
    {HUB(VM_L2_PROTECTION_FAULT_CNTL2),
     MASK(L2_PROTECTION_FAULT_CNTL2__ACTIVE_PAGE_MIGRATION_PTE_READ_RETRY),
     MASK(L2_PROTECTION_FAULT_CNTL2__ACTIVE_PAGE_MIGRATION_PTE_READ_RETRY)},
    {HUB(MC_VM_MX_L1_TLB_CNTL),
     MMMC_VM_MX_L1_TLB_CNTL__ENABLE_L1_TLB | MMMC_VM_MX_L1_TLB_CNTL__SYSTEM_ACCESS_MODE |
         MMMC_VM_MX_L1_TLB_CNTL__ENABLE_ADVANCED_DRIVER_MODEL |
         MMMC_VM_MX_L1_TLB_CNTL__SYSTEM_APERTURE_UNMAPPED_ACCESS |
         MMMC_VM_MX_L1_TLB_CNTL__MTYPE,
     FIELD(MMMC_VM_MX_L1_TLB_CNTL__ENABLE_L1_TLB, 1) |
         FIELD(MMMC_VM_MX_L1_TLB_CNTL__SYSTEM_ACCESS_MODE, 3) |
         FIELD(MMMC_VM_MX_L1_TLB_CNTL__ENABLE_ADVANCED_DRIVER_MODEL, 1) |
         FIELD(MMMC_VM_MX_L1_TLB_CNTL__MTYPE, 3)}, /* uncached */
    {HUB(VM_L2_CNTL),
     MASK(L2_CNTL__ENABLE_L2_CACHE) | MASK(L2_CNTL__ENABLE_L2_FRAGMENT_PROCESSING) |
         MASK(L2_CNTL__ENABLE_DEFAULT_PAGE_OUT_TO_SYSTEM_MEMORY) |
         MASK(L2_CNTL__L2_PDE0_CACHE_TAG_GENERATION_MODE) |
         MASK(L2_CNTL__PDE_FAULT_CLASSIFICATION) | MASK(L2_CNTL__CONTEXT1_IDENTITY_ACCESS_MODE) |
         MASK(L2_CNTL__IDENTITY_MODE_FRAGMENT_SIZE),
     FIELD(MASK(L2_CNTL__ENABLE_L2_CACHE), 1) |
         FIELD(MASK(L2_CNTL__ENABLE_DEFAULT_PAGE_OUT_TO_SYSTEM_MEMORY), 1) |
         FIELD(MASK(L2_CNTL__CONTEXT1_IDENTITY_ACCESS_MODE), 1)},
    {HUB(VM_L2_CNTL2), MASK(L2_CNTL2__INVALIDATE_ALL_L1_TLBS) | MASK(L2_CNTL2__INVALIDATE_L2_CACHE),
     MASK(L2_CNTL2__INVALIDATE_ALL_L1_TLBS) | MASK(L2_CNTL2__INVALIDATE_L2_CACHE)},
    {HUB(VM_L2_CNTL3), 0, 0x80130009}, /* both associativities, bank select 9, fragment 6 */
    {HUB(VM_L2_CNTL4), 0, 1},          /* one partition for 4 KiB pages */
    {HUB(VM_L2_CNTL5), 0, 0x3fe0},     /* the walker's priority client: none */
};
// clang-format on

/* For each kind of fault an interrupt and the default page; four levels; on. */
#define CONTEXT_CNTL 0x1fffe07u

static void run_rows(struct gpu *gpu, enum hub hub, const struct hub_row *row, u32 count)
{
    for (u32 i = 0; i < count; i++)
        if (row[i].mask)
            ip_update(gpu, (enum reg)row[i].reg[hub], row[i].mask, row[i].value);
        else
            ip_write(gpu, (enum reg)row[i].reg[hub], row[i].value);
}

static void write_pair(struct gpu *gpu, enum hub hub, const u16 low[HUBS], u64 value)
{
    /* In regs.txt the high half follows the low one. */
    ip_write(gpu, (enum reg)low[hub], low32(value));
    ip_write_nth(gpu, (enum reg)low[hub], 1, high32(value));
}

static void start_hub(struct gpu *gpu, enum hub hub)
{
    static const u16 low[] = HUB(MC_VM_SYSTEM_APERTURE_LOW_ADDR);
    static const u16 high[] = HUB(MC_VM_SYSTEM_APERTURE_HIGH_ADDR);
    static const u16 context[] = HUB(VM_CONTEXT0_CNTL);
    static const u16 engine[] = HUB(VM_INVALIDATE_ENG0_ADDR_RANGE_LO32);
    static const struct {
        u16 reg[HUBS];
        u64 value;
    } before[] = {{HUB(MC_VM_SYSTEM_APERTURE_DEFAULT_ADDR_LSB), BOOT_SCRATCH_PAGE >> 12},
                  {HUB(VM_L2_PROTECTION_FAULT_DEFAULT_ADDR_LO32), BOOT_FAULT_PAGE >> 12}},
      tables[] = {{HUB(VM_CONTEXT0_PAGE_TABLE_START_ADDR_LO32), VA_START >> 12},
                  {HUB(VM_CONTEXT0_PAGE_TABLE_END_ADDR_LO32), 0x7fffffffffffull >> 12},
                  {HUB(VM_CONTEXT0_PAGE_TABLE_BASE_ADDR_LO32), BOOT_ROOT_TABLE | PTE_VALID}},
      after[] = {{HUB(VM_L2_CONTEXT1_IDENTITY_APERTURE_LOW_ADDR_LO32), 0xfffffffffull},
                 {HUB(VM_L2_CONTEXT1_IDENTITY_APERTURE_HIGH_ADDR_LO32), 0},
                 {HUB(VM_L2_CONTEXT_IDENTITY_PHYSICAL_OFFSET_LO32), 0}};

    run_rows(gpu, hub, aperture_rows, ARRAY_LEN(aperture_rows));
    ip_write(gpu, (enum reg)low[hub], (u32)(gpu->fb_base >> 18));
    ip_write(gpu, (enum reg)high[hub], (u32)(gpu->fb_end >> 18));
    for (u32 i = 0; i < ARRAY_LEN(before); i++)
        write_pair(gpu, hub, before[i].reg, before[i].value);
    run_rows(gpu, hub, cache_rows, ARRAY_LEN(cache_rows));
    for (u32 i = 0; i < ARRAY_LEN(tables); i++)
        write_pair(gpu, hub, tables[i].reg, tables[i].value);
    ip_write(gpu, (enum reg)context[hub], CONTEXT_CNTL);
    for (u32 i = 0; i < ARRAY_LEN(after); i++)
        write_pair(gpu, hub, after[i].reg, after[i].value);
    for (u32 i = 0; i < ENGINES; i++) {
        ip_write_nth(gpu, (enum reg)engine[hub], 2 * i, low32(ALL_ADDRESSES));
        ip_write_nth(gpu, (enum reg)engine[hub], 2 * i + 1, high32(ALL_ADDRESSES));
    }
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
    if (hub == MM)
        TRY(ip_wait(gpu, R_MMVM_INVALIDATE_ENG17_SEM, 1, 1, FLUSH_US));
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
    static const char *const gc_client[] = {
        "CB/DB",      "?",   "GE1", "GE2",   "CPF",
        "CPC",        "CPG", "RLC", "TCP",   "SQC (instructions)",
        "SQC (data)", "SQG", "?",   "SDMA0", "SDMA1",
        "GCR"};
    static const u16 status_reg[] = HUB(VM_L2_PROTECTION_FAULT_STATUS);
    static const u16 address_reg[] = HUB(VM_L2_PROTECTION_FAULT_ADDR_LO32);
    static const u16 address_high[] = HUB(VM_L2_PROTECTION_FAULT_ADDR_HI32);
    static const u16 control[] = HUB(VM_L2_PROTECTION_FAULT_CNTL);
    enum hub hub = mmhub ? MM : GC;
    u32 status = ip_read(gpu, (enum reg)status_reg[hub]);
    u32 client = field_of(status, MMVM_L2_PROTECTION_FAULT_STATUS__CID);
    u64 page = ip_read(gpu, (enum reg)address_reg[hub]);

    if (!status || gpu->gone)
        return false;
    page |= (u64)ip_read(gpu, (enum reg)address_high[hub]) << 32;
    text_fmt(out, "VM fault: %s of %lx by %s client %u (%s)",
             status & MMVM_L2_PROTECTION_FAULT_STATUS__RW ? "write" : "read", page << 12,
             mmhub ? "memory hub" : "graphics hub", client,
             !mmhub && client < ARRAY_LEN(gc_client) ? gc_client[client] : "see docs/GPU.md");
    if (field_of(status, MMVM_L2_PROTECTION_FAULT_STATUS__WALKER_ERROR))
        text_fmt(out, ", not mapped at level %u",
                 field_of(status, MMVM_L2_PROTECTION_FAULT_STATUS__WALKER_ERROR));
    if (field_of(status, MMVM_L2_PROTECTION_FAULT_STATUS__PERMISSION_FAULTS))
        text_fmt(out, ", not allowed (%x)",
                 field_of(status, MMVM_L2_PROTECTION_FAULT_STATUS__PERMISSION_FAULTS));
    memory_describe(gpu, page << 12, out);
    ip_update(gpu, (enum reg)control[hub],
              MMVM_L2_PROTECTION_FAULT_CNTL__CLEAR_PROTECTION_FAULT_STATUS_ADDR, 1);
    return true;
}
