/*
 * ih.c: the interrupt handler block: a ring in VRAM that every block of the card reports to, read
 * when an MSI has come or when work takes long, and its entries in words. Must not know what is
 * done about a fault. Follows: Linux 6.12 ih_v6_0.c, soc15_ih_clientid.h, irqsrcs_gfx_11_0_0.h,
 * gfx_v11_0.c, gmc_v11_0.c.
 */
#include "amdgpu/priv.h"

#define ENTRIES_A_TURN 32u

/* Ring 0 alone: the second one is for what no driver of ours asks. On a warm card it goes on where
 * the last life stopped reading. */
err ih_start(struct gpu *gpu)
{
    const u32 words_log2 = 16; /* of IH_RING_BYTES */
    const u32 control = FIELD(IH_RB_CNTL__MC_SPACE, 4) | IH_RB_CNTL__MC_SNOOP |
                        IH_RB_CNTL__WPTR_OVERFLOW_ENABLE | IH_RB_CNTL__RPTR_REARM |
                        FIELD(IH_RB_CNTL__RB_SIZE, words_log2);

    _Static_assert(IH_RING_BYTES == 4u << 16, "words_log2");
    if (gpu->partial) {
        gpu->ih_rptr = ip_read(gpu, R_IH_RB_RPTR) % IH_RING_BYTES / IH_ENTRY_BYTES * IH_ENTRY_BYTES;
        return OK;
    }
    ip_write(gpu, R_IH_RB_CNTL, 0); /* a try before this one may have left it on */
    ip_write_pair(gpu, R_IH_RB_BASE, R_IH_RB_BASE_HI, (gpu->fb_base + BOOT_IH_RING) >> 8);
    ip_write(gpu, R_IH_RB_CNTL, control | IH_RB_CNTL__WPTR_OVERFLOW_CLEAR);
    ip_write_pair(gpu, R_IH_RB_WPTR_ADDR_LO, R_IH_RB_WPTR_ADDR_HI, gpu->fb_base + BOOT_IH_WPTR);
    ip_write(gpu, R_IH_RB_WPTR, 0);
    ip_write(gpu, R_IH_RB_RPTR, 0);
    ip_write(gpu, R_IH_DOORBELL_RPTR, 0);
    ip_set(gpu, R_IH_STORM_CLIENT_LIST_CNTL, IH_STORM_CLIENT_LIST_CNTL__CLIENT18_IS_STORM_CLIENT);
    ip_set(gpu, R_IH_INT_FLOOD_CNTL, IH_INT_FLOOD_CNTL__FLOOD_CNTL_ENABLE);
    ip_update(gpu, R_IH_MSI_STORM_CTRL, IH_MSI_STORM_CTRL__DELAY, 3);
    ip_write(gpu, R_IH_RB_CNTL, control | IH_RB_CNTL__RB_ENABLE | IH_RB_CNTL__ENABLE_INTR);
    gpu->ih_rptr = 0;
    return OK;
}

/* ---- entries in words ---- */

static void shader_event(struct gpu *gpu, const u32 *entry)
{
    static const char *const error[] = {"uncorrectable error in a register file",
                                        "illegal instruction", "memory violation", "poisoned data"};
    u32 kind = entry[IH_CONTEXT + 1] >> 6 & 3, which = entry[IH_CONTEXT] >> 21 & 15;

    if (kind == IH_SQ_ERROR)
        gpu_fault(gpu, "shader: %s (context %08x %08x)",
                  which < ARRAY_LEN(error) ? error[which] : "unknown error", entry[IH_CONTEXT],
                  entry[IH_CONTEXT + 1]);
}

static void memory_event(struct gpu *gpu, const u32 *entry)
{
    char bytes[LOG_LINE_MAX];
    struct text what = TEXT_ON(bytes);

    if (gmc_take_fault(gpu, IH_CLIENT(entry[0]) == IH_CLIENT_VMC, &what))
        gpu_fault(gpu, "%.*s", (int)what.len, what.ptr);
    else
        gpu_fault(gpu, "VM fault of page %lx, nothing latched",
                  entry[IH_CONTEXT] | (u64)(entry[IH_CONTEXT + 1] & 15) << 32);
}

static void event(struct gpu *gpu, const u32 *entry)
{
    switch (IH_SOURCE(entry[0])) {
    case IH_CP_EOP:
    case IH_SDMA_TRAP:
        return;
    case IH_UTCL2_FAULT:
        memory_event(gpu, entry);
        return;
    case IH_SQ:
        shader_event(gpu, entry);
        return;
    case IH_CP_BAD_OPCODE:
    case IH_CP_PRIV_REG:
    case IH_CP_PRIV_INSTR:
        gpu_fault(gpu, "packet processor: %s (context %08x)",
                  IH_SOURCE(entry[0]) == IH_CP_BAD_OPCODE ? "bad opcode" : "not allowed",
                  entry[IH_CONTEXT]);
        return;
    default:
        log_warn(gpu->name, "interrupt: client %02x source %u, context %08x %08x",
                 IH_CLIENT(entry[0]), IH_SOURCE(entry[0]), entry[IH_CONTEXT],
                 entry[IH_CONTEXT + 1]);
    }
}

/* ---- the ring ---- */

static u32 overflowed(struct gpu *gpu, u32 wptr)
{
    log_warn(gpu->name, "interrupt ring: overflow at %x, read up to %x: the oldest are lost",
             wptr & IH_RB_WPTR__OFFSET, gpu->ih_rptr);
    wptr &= IH_RB_WPTR__OFFSET;
    gpu->ih_rptr = (wptr + IH_ENTRY_BYTES) % IH_RING_BYTES;
    ip_set(gpu, R_IH_RB_CNTL, IH_RB_CNTL__WPTR_OVERFLOW_CLEAR);
    ip_update(gpu, R_IH_RB_CNTL, IH_RB_CNTL__WPTR_OVERFLOW_CLEAR, 0);
    return wptr;
}

/* Pointers are bytes. */
void ih_drain(struct gpu *gpu)
{
    u32 wptr = ip_read(gpu, R_IH_RB_WPTR), entry[IH_ENTRY_BYTES / 4];

    if (wptr == UINT32_MAX)
        return;
    if (wptr & IH_RB_WPTR__RB_OVERFLOW)
        wptr = overflowed(gpu, wptr);
    wptr = (wptr & IH_RB_WPTR__OFFSET) % IH_RING_BYTES;
    u32 before = gpu->ih_rptr;
    for (u32 i = 0; i < ENTRIES_A_TURN && gpu->ih_rptr != wptr; i++) {
        vram_read(gpu, BOOT_IH_RING + gpu->ih_rptr, entry, sizeof(entry));
        gpu->ih_rptr = (gpu->ih_rptr + IH_ENTRY_BYTES) % IH_RING_BYTES;
        event(gpu, entry);
    }
    if (gpu->ih_rptr != before)
        ip_write(gpu, R_IH_RB_RPTR, gpu->ih_rptr);
    gpu->irq |= gpu->ih_rptr != wptr;
    gpu->ih_look_ns = time_ns();
}
