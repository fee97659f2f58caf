/*
 * hub.c: GCHUB and MMHUB, one code: apertures, the page walk, a TLB that keeps what it has until it
 * is told, the latched fault. Follows Linux 6.12 gfxhub_v3_0.c, mmhub_v3_0.c, gmc_v11_0.c; entry
 * bits: amdgpu_vm.h. Only context 0 exists: drivers here use VMID 0 for everything.
 */
#include "sim/priv.h"

#include <stdlib.h>

#define TLB_PLACES   16384u
#define LEVELS_MAX   5u
#define LEVEL_BITS   9u
#define PAGE_SHIFT   12u
#define FLUSH_NS     (3 * NS_PER_US)
#define PTE_FRAG(p)  ((u32)((p) >> 7) & 31)
#define PTE_MTYPE(p) ((u32)((p) >> 48) & 7)
#define PDE_LOOK     0x0000ffffffffffc0ull /* a table's address */
#define MTYPE_UC     3u

#define HUB_REG(hub, name) ((hub) == HUB_GC ? R_GC##name : R_MM##name)

struct tlb_entry {
    u64 page, pte;   /* page: va >> shift */
    u32 tables_seen; /* when it was last compared with the tables */
    u32 drops;       /* of its VMID when it was filled: good as long as this stays */
    u8 shift, vmid;
};
struct hub_tlb {
    struct tlb_entry place[TLB_PLACES];
    u32 drops[SIM_VMIDS]; /* how often it was emptied, and 1 */
    u64 shifts;           /* bit n: an entry of 2^n bytes may be there */
};

enum fault_kind {
    FAULT_VALID = 1,
    FAULT_READ = 2,
    FAULT_WRITE = 4,
    FAULT_EXECUTE = 8,
    FAULT_RANGE
};

struct access { /* what is being translated */
    struct client who;
    enum hub_kind hub;
    u64 va;
    enum page_use use;
};

/* ---- registers ---- */

static void tlb_drop(struct hub_tlb *tlb, u32 vmids)
{
    for (u32 vmid = 0; vmid < SIM_VMIDS; vmid++)
        tlb->drops[vmid] += vmids >> vmid & 1;
}

void hub_reset(struct sim *sim)
{
    u64 base = sim->profile->fb_base >> 24;
    u64 top = base + (vram_bytes(sim) >> 24) - 1;

    for (u32 hub = 0; hub < HUBS; hub++) {
        if (!sim->hub[hub].tlb)
            sim->hub[hub].tlb = calloc(1, sizeof *sim->hub[hub].tlb);
        CHECK(sim->hub[hub].tlb);
        tlb_drop(sim->hub[hub].tlb, ~0u);
        sim->hub[hub].semaphore = false;
        sim->hub[hub].acked = 0;
        sim->reg[HUB_REG(hub, MC_VM_FB_LOCATION_BASE)] = (u32)base;
        sim->reg[HUB_REG(hub, MC_VM_FB_LOCATION_TOP)] = (u32)top;
    }
}

void hub_destroy(struct sim *sim)
{
    for (u32 hub = 0; hub < HUBS; hub++)
        free(sim->hub[hub].tlb);
}

bool hub_read(struct sim *sim, enum reg reg, u32 *value)
{
    for (u32 k = 0; k < HUBS; k++) {
        struct hub *hub = &sim->hub[k];
        if (reg == HUB_REG(k, VM_INVALIDATE_ENG17_SEM)) { /* 1: it is yours now */
            *value = !hub->semaphore;
            hub->semaphore = true;
            return true;
        }
        if (reg == HUB_REG(k, VM_INVALIDATE_ENG17_ACK)) {
            *value = sim->now_ns >= hub->ack_ns ? hub->acked : 0;
            return true;
        }
    }
    return false;
}

static void invalidate(struct sim *sim, enum hub_kind k, u32 request)
{
    struct hub *hub = &sim->hub[k];
    u32 all = MMVM_INVALIDATE_ENG17_REQ__INVALIDATE_L2_PTES |
              MMVM_INVALIDATE_ENG17_REQ__INVALIDATE_L2_PDE0 |
              MMVM_INVALIDATE_ENG17_REQ__INVALIDATE_L2_PDE1 |
              MMVM_INVALIDATE_ENG17_REQ__INVALIDATE_L2_PDE2 |
              MMVM_INVALIDATE_ENG17_REQ__INVALIDATE_L1_PTES;
    u32 vmids = reg_field(request, MMVM_INVALIDATE_ENG17_REQ__PER_VMID_INVALIDATE_REQ);

    if (k == HUB_MM && !hub->semaphore)
        sim_fail(sim, "invalidate-without-semaphore", "MMHUB engine 17, request %#x", request);
    else if ((request & all) != all || vmids == 0)
        sim_fail(sim, "invalidate-partial", "request %#x leaves entries in the caches", request);
    tlb_drop(hub->tlb, vmids);
    hub->acked = vmids;
    hub->ack_ns = sim_after(sim, FLUSH_NS);
}

bool hub_write(struct sim *sim, enum reg reg, u32 value)
{
    u32 clear = MMVM_L2_PROTECTION_FAULT_CNTL__CLEAR_PROTECTION_FAULT_STATUS_ADDR;

    for (u32 k = 0; k < HUBS; k++) {
        if (reg == HUB_REG(k, VM_INVALIDATE_ENG17_SEM)) {
            sim->hub[k].semaphore = value & 1;
            return true;
        }
        if (reg == HUB_REG(k, VM_INVALIDATE_ENG17_REQ))
            invalidate(sim, k, value);
        if (reg == HUB_REG(k, VM_L2_PROTECTION_FAULT_CNTL) && value & clear) {
            sim->reg[HUB_REG(k, VM_L2_PROTECTION_FAULT_STATUS)] = 0;
            sim->reg[HUB_REG(k, VM_L2_PROTECTION_FAULT_ADDR_LO32)] = 0;
            sim->reg[HUB_REG(k, VM_L2_PROTECTION_FAULT_ADDR_HI32)] = 0;
            sim->reg[reg] = value & ~clear;
            return true;
        }
        if (reg == HUB_REG(k, VM_L2_PROTECTION_FAULT_STATUS))
            return true; /* read only */
    }
    return false;
}

/* ---- faults ---- */

static u64 pair(const struct sim *sim, enum reg low)
{
    return (u64)sim->reg[low + 1] << 32 | sim->reg[low];
}

static u32 client_id(const struct access *access)
{
    static const u8 ids[UNITS] = {
        [UNIT_CP] = 5, [UNIT_SDMA] = 13, [UNIT_WAVE] = 8, [UNIT_RLC] = 7}; /* gfxhub_client_ids */

    return access->use == USE_EXECUTE ? 9 : ids[access->who.unit];
}

static void fault_raise(struct sim *sim, const struct access *access, u32 kinds)
{
    u32 control = sim->reg[HUB_REG(access->hub, VM_CONTEXT0_CNTL)];
    u32 asked = (kinds & FAULT_RANGE ? 1u << 9 : 0) | (kinds & FAULT_VALID ? 1u << 15 : 0) |
                (kinds & FAULT_READ ? 1u << 17 : 0) | (kinds & FAULT_WRITE ? 1u << 19 : 0) |
                (kinds & FAULT_EXECUTE ? 1u << 21 : 0);

    if (!(control & asked))
        return;
    struct ih_event event = {.client = access->hub == HUB_GC ? IH_CLIENT_GFX : IH_CLIENT_VMC,
                             .source = IH_UTCL2_FAULT,
                             .vmid = access->who.vmid};
    event.ctx[0] = (u32)(access->va >> PAGE_SHIFT);
    event.ctx[1] = (u32)(access->va >> 44) & 0xf;
    ih_raise(sim, &event);
}

/* Latches the first, notes each; always false. */
static bool fault(struct sim *sim, const struct access *access, u32 kinds, const char *why)
{
    enum reg status = HUB_REG(access->hub, VM_L2_PROTECTION_FAULT_STATUS);
    static const char *const uses[] = {"read", "write", "fetch"};
    static const char *const units[UNITS] = {"CP", "SDMA", "wave", "PSP", "SMU", "IH", "RLC"};

    sim_note(sim, "vm-fault", "%s by %s at %#lx, VMID %u: %s", uses[access->use],
             units[access->who.unit], access->va, access->who.vmid, why);
    if (sim->reg[status]) {
        sim->reg[status] |= MMVM_L2_PROTECTION_FAULT_STATUS__MORE_FAULTS;
    } else {
        sim->reg[status] = (kinds & 15) << 4 | client_id(access) << 9 |
                           (access->use == USE_WRITE ? 1u << 18 : 0) | (u32)access->who.vmid << 20;
        sim->reg[status + 1] = (u32)(access->va >> PAGE_SHIFT);
        sim->reg[status + 2] = (u32)(access->va >> 44);
    }
    if (access->who.unit != UNIT_IH) /* its own fault cannot be told through its ring */
        fault_raise(sim, access, kinds);
    return false;
}

/* ---- the walk ---- */

struct leaf {
    u64 pte;
    u32 shift; /* of the page */
    u64 table; /* where the entry stands: base of its table, and its number */
    u32 number;
    bool table_system; /* the table is in the host's memory */
};

static bool entry_read(struct sim *sim, const struct leaf *at, u32 number, u64 *entry)
{
    u64 address = at->table + number * sizeof *entry;

    if (at->table_system)
        return dma_read(sim, address, entry, sizeof *entry);
    return mem_table_read(sim, address, entry);
}

/* The pages around, which the entry's fragment says are one run, must be one. */
static bool fragment_holds(struct sim *sim, const struct leaf *leaf)
{
    u32 fragment = PTE_FRAG(leaf->pte) + PAGE_SHIFT;
    u32 bits = fragment <= leaf->shift ? 0 : min_u32(fragment - leaf->shift, LEVEL_BITS);
    u32 first = leaf->number & ~((1u << bits) - 1), last = first + (1u << bits) - 1;
    u64 size = 1ull << leaf->shift;

    for (u32 i = first; bits > 0 && i <= last; i += last - first) {
        u64 other, want = leaf->pte + (u64)((i64)i - leaf->number) * size;
        if (!entry_read(sim, leaf, i, &other))
            return false;
        if (other != want)
            return sim_fail(sim, "fragment-not-contiguous",
                            "entry %u is %#lx, entry %u of the same fragment %#lx", leaf->number,
                            leaf->pte, i, other);
    }
    return true;
}

static bool hub_is_set_up(struct sim *sim, const struct access *access)
{
    u32 control = sim->reg[HUB_REG(access->hub, VM_CONTEXT0_CNTL)];
    u32 l1 = sim->reg[HUB_REG(access->hub, MC_VM_MX_L1_TLB_CNTL)];
    u32 l2 = sim->reg[HUB_REG(access->hub, VM_L2_CNTL)];
    u32 l1_needs =
        MMMC_VM_MX_L1_TLB_CNTL__ENABLE_L1_TLB | MMMC_VM_MX_L1_TLB_CNTL__SYSTEM_ACCESS_MODE;
    const char *name = access->hub == HUB_GC ? "GCHUB" : "MMHUB";

    if (access->who.vmid != 0)
        return sim_fail(sim, "vmid-without-context", "VMID %u on %s", access->who.vmid, name);
    if (!(control & MMVM_CONTEXT0_CNTL__ENABLE_CONTEXT))
        return sim_fail(sim, "context-off", "%s translates %#lx, CONTEXT0_CNTL is %#x", name,
                        access->va, control);
    if ((l1 & l1_needs) != l1_needs)
        return sim_fail(sim, "hub-l1-tlb", "%s: MX_L1_TLB_CNTL is %#x", name, l1);
    if (!(l2 & MMVM_L2_CNTL__ENABLE_L2_CACHE))
        return sim_fail(sim, "hub-l2-cache", "%s: VM_L2_CNTL is %#x", name, l2);
    if (control & MMVM_CONTEXT0_CNTL__PAGE_TABLE_BLOCK_SIZE)
        return sim_fail(sim, "page-table-block", "%s: CONTEXT0_CNTL is %#x", name, control);
    return true;
}

static bool walk(struct sim *sim, const struct access *access, struct leaf *leaf)
{
    u32 control = sim->reg[HUB_REG(access->hub, VM_CONTEXT0_CNTL)];
    u32 depth = reg_field(control, MMVM_CONTEXT0_CNTL__PAGE_TABLE_DEPTH);
    u64 start = pair(sim, HUB_REG(access->hub, VM_CONTEXT0_PAGE_TABLE_START_ADDR_LO32));
    u64 end = pair(sim, HUB_REG(access->hub, VM_CONTEXT0_PAGE_TABLE_END_ADDR_LO32));
    u64 entry = pair(sim, HUB_REG(access->hub, VM_CONTEXT0_PAGE_TABLE_BASE_ADDR_LO32));
    u64 page = access->va >> PAGE_SHIFT;

    if (page < start || page > end)
        return fault(sim, access, FAULT_RANGE | FAULT_VALID, "outside of START and END");
    page -= start;
    for (u32 level = depth + 1; level-- > 0;) {
        if (!(entry & PTE_VALID))
            return fault(sim, access, FAULT_VALID | 2u << access->use, "no table there");
        *leaf = (struct leaf){.shift = PAGE_SHIFT + level * LEVEL_BITS,
                              .table = entry & PDE_LOOK,
                              .table_system = entry & PTE_SYSTEM};
        u64 number = page >> level * LEVEL_BITS;
        if (level < depth)
            number &= (1u << LEVEL_BITS) - 1;
        leaf->number = (u32)number;
        if (number >> LEVEL_BITS)
            return fault(sim, access, FAULT_RANGE | FAULT_VALID, "beyond the root table");
        if (!entry_read(sim, leaf, leaf->number, &entry))
            return false;
        leaf->pte = entry;
        if (level > 0 && entry & PTE_LEAF && entry & PTE_VALID)
            return fragment_holds(sim, leaf);
    }
    if (!(entry & PTE_VALID))
        return fault(sim, access, FAULT_VALID | 2u << access->use, "no page there");
    return fragment_holds(sim, leaf);
}

/* ---- translation, through the TLB ---- */

static struct tlb_entry *tlb_place(struct hub_tlb *tlb, u64 va, u32 shift, u32 vmid)
{
    u64 key = (va >> shift) * 64 + shift + ((u64)vmid << 58);

    return &tlb->place[(key * 0x9e3779b97f4a7c15) >> 50 & (TLB_PLACES - 1)];
}

static struct tlb_entry *tlb_find(struct hub_tlb *tlb, const struct access *access)
{
    for (u64 left = tlb->shifts; left; left &= left - 1) {
        u32 shift = (u32)__builtin_ctzll(left);
        struct tlb_entry *entry = tlb_place(tlb, access->va, shift, access->who.vmid);
        if (entry->drops == tlb->drops[access->who.vmid] && entry->vmid == access->who.vmid &&
            entry->page == access->va >> shift && entry->shift == shift)
            return entry;
    }
    return NULL;
}

/* An entry that the tables no longer say is what silicon would use: but no driver wants it. */
static bool tlb_is_current(struct sim *sim, const struct access *access, struct tlb_entry *entry)
{
    struct leaf leaf;

    if (entry->tables_seen == mem_tables_changed(sim) || sim->options.fast)
        return true;
    if (!walk(sim, access, &leaf))
        return sim_fail(sim, "tlb-stale", "%#lx is no longer mapped, and was not invalidated",
                        access->va);
    if (leaf.pte != entry->pte || leaf.shift != entry->shift)
        return sim_fail(sim, "tlb-stale", "%#lx: %#lx cached, %#lx in the table now", access->va,
                        entry->pte, leaf.pte);
    entry->tables_seen = mem_tables_changed(sim);
    return true;
}

static struct tlb_entry *tlb_fill(struct sim *sim, const struct access *access)
{
    struct hub_tlb *tlb = sim->hub[access->hub].tlb;
    struct leaf leaf;

    if (!hub_is_set_up(sim, access) || !walk(sim, access, &leaf))
        return NULL;
    struct tlb_entry *entry = tlb_place(tlb, access->va, leaf.shift, access->who.vmid);
    tlb->shifts |= 1ull << leaf.shift;
    *entry = (struct tlb_entry){.page = access->va >> leaf.shift,
                                .drops = tlb->drops[access->who.vmid],
                                .pte = leaf.pte,
                                .tables_seen = mem_tables_changed(sim),
                                .shift = (u8)leaf.shift,
                                .vmid = access->who.vmid};
    return entry;
}

/* VRAM by the card's own addresses: the system aperture, which only VMID 0 has. */
static bool aperture(const struct sim *sim, const struct access *access, struct page *page)
{
    u64 base = (u64)sim->reg[HUB_REG(access->hub, MC_VM_FB_LOCATION_BASE)] << 24;
    u64 low = (u64)sim->reg[HUB_REG(access->hub, MC_VM_SYSTEM_APERTURE_LOW_ADDR)] << 18;
    u64 high = (u64)sim->reg[HUB_REG(access->hub, MC_VM_SYSTEM_APERTURE_HIGH_ADDR)] << 18;
    u64 offset = access->va - base;

    if (access->who.vmid != 0 || access->va < base || offset >= vram_bytes(sim))
        return false;
    if (access->hub == HUB_GC && (access->va < low || access->va >> 18 > high >> 18))
        return false;
    *page = (struct page){.address = offset,
                          .bytes = vram_bytes(sim) - offset,
                          .readable = true,
                          .writable = true,
                          .executable = true};
    return true;
}

static bool page_from(struct sim *sim, const struct access *access, const struct tlb_entry *entry,
                      struct page *page)
{
    u64 size = 1ull << entry->shift, inside = access->va & (size - 1);

    *page = (struct page){.address = (entry->pte & PTE_ADDRESS) + inside,
                          .bytes = size - inside,
                          .system = entry->pte & PTE_SYSTEM,
                          .snooped = entry->pte & PTE_SNOOPED,
                          .readable = entry->pte & PTE_READ,
                          .writable = entry->pte & PTE_WRITE,
                          .executable = entry->pte & PTE_EXECUTE,
                          .cached = PTE_MTYPE(entry->pte) != MTYPE_UC};
    if (access->use == USE_READ && !page->readable)
        return fault(sim, access, FAULT_READ, "the page may not be read");
    if (access->use == USE_WRITE && !page->writable)
        return fault(sim, access, FAULT_WRITE, "the page may not be written");
    if (access->use == USE_EXECUTE && !page->executable)
        return fault(sim, access, FAULT_EXECUTE, "the page may not be executed");
    if (entry->pte & PTE_ADDRESS & (size - 1) && !sim_excepted(sim, EXCEPT_PTE_UNALIGNED))
        return sim_fail(sim, "pte-not-aligned", "entry %#lx for a page of %#lx bytes", entry->pte,
                        size);
    if (!page->system && page->address + page->bytes > vram_bytes(sim))
        return sim_fail(sim, "pte-beyond-vram", "entry %#lx at %#lx", entry->pte, access->va);
    if (page->system && page->cached && page->snooped)
        page->cached = !sim_excepted(sim, EXCEPT_PEER_CACHED);
    if (page->system && (page->cached || !page->snooped))
        return sim_fail(sim, "system-page-cached", "entry %#lx: not snooped or not uncached",
                        entry->pte);
    return true;
}

bool hub_translate(struct sim *sim, struct client who, u64 va, enum page_use use, struct page *page)
{
    bool mm = who.unit == UNIT_PSP || who.unit == UNIT_SMU || who.unit == UNIT_IH;
    struct access access = {who, mm ? HUB_MM : HUB_GC, va, use};

    if (aperture(sim, &access, page))
        return true;
    struct tlb_entry *entry = tlb_find(sim->hub[access.hub].tlb, &access);
    if (!entry)
        entry = tlb_fill(sim, &access);
    else if (!tlb_is_current(sim, &access, entry))
        return false;
    return entry && page_from(sim, &access, entry, page);
}
