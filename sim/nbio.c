/*
 * nbio.c: the card's bus interface behind BAR 5 and BAR 2: memory size, the windows by index and
 * data, where a store flushes the HDP, and the way of doorbells. Follows Linux 6.12 nbio_v4_3.c.
 */
#include "sim/priv.h"

#define HDP_REMAP_RESET 0x385cu /* REMAP_HDP_MEM_FLUSH_CNTL after a reset, bytes in BAR 5 */
#define MM_VRAM         0x80000000u
#define AWID_CP         3u
#define AWID_SDMA       0xeu

void nbio_reset(struct sim *sim)
{
    sim->nbio = (struct nbio){};
    sim->reg[R_BIF_BX0_REMAP_HDP_MEM_FLUSH_CNTL] = HDP_REMAP_RESET;
}

/* What MM_INDEX and MM_INDEX_HI point at, in VRAM. */
static u64 mm_offset(const struct sim *sim)
{
    return (u64)sim->nbio.mm_index_hi << 31 | (sim->nbio.mm_index & ~MM_VRAM);
}

static bool mm_in_vram(struct sim *sim)
{
    if (mm_offset(sim) + 4 <= vram_bytes(sim))
        return true;
    return sim_fail(sim, "mm-beyond-vram", "MM_INDEX points at %#lx", mm_offset(sim));
}

bool nbio_read(struct sim *sim, enum reg reg, u32 *value)
{
    switch (reg) {
    case R_RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE: /* the card's own firmware sets it */
        *value = sim->psp.state == PSP_IS_BOOTING ? 0 : (u32)(vram_bytes(sim) / MIB);
        return true;
    case R_BIF_BX_PF0_MM_INDEX:
        *value = sim->nbio.mm_index;
        return true;
    case R_BIF_BX_PF0_MM_DATA:
        *value = ~0u;
        if (!(sim->nbio.mm_index & MM_VRAM))
            *value = reg_read(sim, sim->nbio.mm_index / 4);
        else if (mm_in_vram(sim))
            mem_cpu_read(sim, mm_offset(sim), value, sizeof *value);
        return true;
    case R_BIF_BX_PF0_RSMU_DATA:
        *value = reg_read(sim, sim->nbio.rsmu_index / 4);
        return true;
    default:
        return false;
    }
}

bool nbio_write(struct sim *sim, enum reg reg, u32 value)
{
    switch (reg) {
    case R_RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE:
        return true; /* read only */
    case R_BIF_BX_PF0_MM_INDEX:
        sim->nbio.mm_index = value;
        return true;
    case R_BIF_BX_PF0_MM_INDEX_HI:
        sim->nbio.mm_index_hi = value;
        return false;
    case R_BIF_BX_PF0_MM_DATA:
        if (!(sim->nbio.mm_index & MM_VRAM))
            reg_write(sim, sim->nbio.mm_index / 4, value);
        else if (mm_in_vram(sim))
            mem_cpu_write(sim, mm_offset(sim), &value, sizeof value);
        return true;
    case R_BIF_BX_PF0_RSMU_INDEX:
        sim->nbio.rsmu_index = value;
        return false;
    case R_BIF_BX_PF0_RSMU_DATA:
        reg_write(sim, sim->nbio.rsmu_index / 4, value);
        return true;
    case R_BIF_BX_PF0_GPU_HDP_FLUSH_REQ: /* by the CP: write this, wait for the other */
        mem_hdp_flush(sim);
        sim->reg[R_BIF_BX_PF0_GPU_HDP_FLUSH_DONE] = value;
        return false;
    default:
        return false;
    }
}

bool nbio_sink(struct sim *sim, u64 offset)
{
    if (offset != sim->reg[R_BIF_BX0_REMAP_HDP_MEM_FLUSH_CNTL])
        return false;
    mem_hdp_flush(sim);
    return true;
}

/* ---- doorbells ---- */

/* Which entry takes the doorbell at this word: one whose range holds it, else one without a range.
 * Returns its AWID, 0 when none does. */
static u32 doorbell_route(const struct sim *sim, u64 word)
{
    static const enum reg entries[] = {R_S2A_DOORBELL_ENTRY_0_CTRL, R_S2A_DOORBELL_ENTRY_2_CTRL,
                                       R_S2A_DOORBELL_ENTRY_3_CTRL};
    u32 open = 0;

    for (u32 i = 0; i < ARRAY_LEN(entries); i++) {
        u32 entry = sim->reg[entries[i]];
        if (!(entry & S2A_DOORBELL_ENTRY_0_CTRL__S2A_DOORBELL_PORT0_ENABLE))
            continue;
        u32 awid = reg_field(entry, S2A_DOORBELL_ENTRY_0_CTRL__S2A_DOORBELL_PORT0_AWID);
        u32 first = reg_field(entry, S2A_DOORBELL_ENTRY_0_CTRL__S2A_DOORBELL_PORT0_RANGE_OFFSET);
        u32 count = reg_field(entry, S2A_DOORBELL_ENTRY_0_CTRL__S2A_DOORBELL_PORT0_RANGE_SIZE);
        if (count == 0 && open == 0)
            open = awid;
        if (word >= first && word < first + count)
            return awid;
    }
    return open;
}

void nbio_doorbell(struct sim *sim, u64 offset, u64 value, u32 width)
{
    if (!(sim->reg[R_RCC_DEV0_EPF0_RCC_DOORBELL_APER_EN] & 1)) {
        sim_fail(sim, "doorbell-aperture-off", "store at %#lx of BAR 2", offset);
        return;
    }
    u32 awid = doorbell_route(sim, offset / 4);
    if (awid == AWID_SDMA)
        sdma_doorbell(sim, offset, value, width);
    else if (awid == AWID_CP)
        gfx_doorbell(sim, offset, value, width);
    else
        sim_fail(sim, "doorbell-not-routed", "store at %#lx of BAR 2: no S2A entry takes it",
                 offset);
}
