/*
 * ih.c: the interrupt handler block: two rings of 32-byte entries, the write pointer's copy in
 * memory, overflow, MSI. Follows Linux 6.12 ih_v6_0.c. Everything here raises into ring 0; ring 1
 * keeps its registers.
 */
#include "sim/priv.h"

#define MC_SPACE_MC   4u /* the ring is at an address of the card's own */
#define WPTR_OVERFLOW 1u
#define CLOCK_NS      10u /* timestamps count at 100 MHz */
#define RESET_CNTL    0x00010000u

static const struct client ih = {.unit = UNIT_IH};

void ih_reset(struct sim *sim)
{
    memset(sim->ih, 0, sizeof sim->ih);
    sim->reg[R_IH_RB_CNTL] = RESET_CNTL;
}

static u32 ring_bytes(const struct sim *sim)
{
    return 4u << reg_field(sim->reg[R_IH_RB_CNTL], IH_RB_CNTL__RB_SIZE);
}

/* The pointer where the driver has read to, in bytes. */
static u32 ring_rptr(struct sim *sim)
{
    u32 rptr = sim->reg[R_IH_RB_RPTR];

    if (rptr % IH_ENTRY_BYTES != 0 && sim_excepted(sim, EXCEPT_IH_RPTR_WORDS))
        rptr *= sizeof(u32);
    return rptr % ring_bytes(sim);
}

bool ih_read(struct sim *sim, enum reg reg, u32 *value)
{
    if (reg != R_IH_RB_WPTR)
        return false;
    *value = sim->ih[0].wptr | (sim->ih[0].overflow ? WPTR_OVERFLOW : 0);
    return true;
}

static void rptr_check(struct sim *sim, u32 value)
{
    if (value >= ring_bytes(sim))
        sim_fail(sim, "ih-rptr-beyond", "IH_RB_RPTR is %#x, the ring has %#x bytes", value,
                 ring_bytes(sim));
    else if (value % IH_ENTRY_BYTES != 0 && !sim_excepted(sim, EXCEPT_IH_RPTR_WORDS))
        sim_fail(sim, "ih-rptr-words", "IH_RB_RPTR is %#x: entries have 32 bytes", value);
}

bool ih_write(struct sim *sim, enum reg reg, u32 value)
{
    bool enabled = sim->reg[R_IH_RB_CNTL] & IH_RB_CNTL__RB_ENABLE;

    switch (reg) {
    case R_IH_RB_BASE:
    case R_IH_RB_BASE_HI:
    case R_IH_RB_WPTR_ADDR_LO:
    case R_IH_RB_WPTR_ADDR_HI:
        if (enabled)
            sim_fail(sim, "ih-ring-moved", "%s written while the ring is on", reg_name(reg));
        return false;
    case R_IH_RB_CNTL:
        if (value & IH_RB_CNTL__WPTR_OVERFLOW_CLEAR)
            sim->ih[0].overflow = false;
        if (value & IH_RB_CNTL__RB_ENABLE && reg_field(value, IH_RB_CNTL__MC_SPACE) != MC_SPACE_MC)
            sim_fail(sim, "ih-space", "IH_RB_CNTL is %#x: not at the card's addresses", value);
        if (value & IH_RB_CNTL__RB_ENABLE &&
            !(sim->reg[R_MMMC_VM_MX_L1_TLB_CNTL] & MMMC_VM_MX_L1_TLB_CNTL__ENABLE_L1_TLB))
            sim_fail(sim, "hub-l1-tlb", "the interrupt ring is on before the MMHUB it writes by");
        return false;
    case R_IH_RB_WPTR:
        if (!(value & WPTR_OVERFLOW))
            sim->ih[0].overflow = false;
        if (!enabled)
            sim->ih[0].wptr = value & IH_RB_WPTR__OFFSET;
        return true;
    case R_IH_RB_RPTR:
        rptr_check(sim, value);
        return false;
    default:
        return false;
    }
}

static void entry_make(const struct sim *sim, const struct ih_event *event, u32 entry[8])
{
    u64 clock = sim->now_ns / CLOCK_NS;

    entry[0] =
        event->client | (u32)event->source << 8 | (u32)event->ring << 16 | (u32)event->vmid << 24;
    entry[1] = (u32)clock;
    entry[2] = (u32)(clock >> 32) & 0xffff;
    entry[3] = 0; /* PASID, node */
    memcpy(entry + IH_CONTEXT, event->ctx, sizeof event->ctx);
}

static void wptr_report(struct sim *sim)
{
    u64 to = (u64)sim->reg[R_IH_RB_WPTR_ADDR_HI] << 32 | sim->reg[R_IH_RB_WPTR_ADDR_LO];
    u32 value = sim->ih[0].wptr | (sim->ih[0].overflow ? WPTR_OVERFLOW : 0);

    if (sim->reg[R_IH_RB_CNTL] & IH_RB_CNTL__WPTR_WRITEBACK_ENABLE)
        mem_write(sim, ih, to, &value, sizeof value);
}

void ih_raise(struct sim *sim, const struct ih_event *event)
{
    struct ih_ring *ring = &sim->ih[0];
    u32 control = sim->reg[R_IH_RB_CNTL], bytes = ring_bytes(sim), entry[8];

    if (!(control & IH_RB_CNTL__RB_ENABLE) || sim->stopped)
        return;
    u64 base = ((u64)sim->reg[R_IH_RB_BASE_HI] << 32 | sim->reg[R_IH_RB_BASE]) << 8;
    u32 next = (ring->wptr + IH_ENTRY_BYTES) % bytes;
    if (next == ring_rptr(sim)) /* the oldest entry is lost: the driver finds the bit */
        ring->overflow |= (control & IH_RB_CNTL__WPTR_OVERFLOW_ENABLE) != 0;
    entry_make(sim, event, entry);
    if (!mem_write(sim, ih, base + ring->wptr, entry, sizeof entry))
        return;
    ring->wptr = next;
    wptr_report(sim);
    if (control & IH_RB_CNTL__ENABLE_INTR)
        pci_msi(sim);
}
