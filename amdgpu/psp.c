/*
 * psp.c: the secure processor (MP0), which alone may load firmware: its boot loader takes its own
 * operating system piece by piece, then a ring takes commands, each with a status. Must not know
 * what the firmware does. Follows: Linux 6.12 psp_v13_0.c, amdgpu_psp.c, psp_gfx_if.h.
 */
#include "amdgpu/priv.h"

#define BOOT_MS    10000u /* a piece; Linux: 10 waits of 100 ms */
#define SOS_MS     10000u
#define RING_MS    5000u
#define COMMAND_MS 10000u
#define SETTLE_MS  20u /* Linux: "handshake issue with hardware" */
#define READY      (1u << 31)
#define TMR_MAX    (BOOT_END - BOOT_TMR)

bool psp_alive(struct gpu *gpu)
{
    u32 sign = ip_read(gpu, R_MP0_SMN_C2PMSG_81);

    return sign && sign != UINT32_MAX;
}

/* A blob where the secure processor reads it. */
static void place(struct gpu *gpu, struct str bytes)
{
    vram_write(gpu, BOOT_PSP_BLOB, bytes.ptr, bytes.len);
    gmc_flush_hdp(gpu);
}

/* ---- the boot loader ---- */

/* Navi31 wants the key database twice, the second time as the table of security levels. */
static const struct {
    enum psp_piece piece;
    enum psp_boot_command command;
} boot_rows[] = {{PSP_KDB, PSP_BOOT_KDB}, {PSP_KDB, PSP_BOOT_SPL},   {PSP_SYS, PSP_BOOT_SYS},
                 {PSP_SOC, PSP_BOOT_SOC}, {PSP_INTF, PSP_BOOT_INTF}, {PSP_DBG, PSP_BOOT_DBG},
                 {PSP_RAS, PSP_BOOT_RAS}, {PSP_SOS, PSP_BOOT_SOS}};

/* One piece a turn; gpu->sub counts them. Exactly READY: the low byte would be an error. */
err psp_load_system(struct gpu *gpu)
{
    bool alive = (gpu->sub == 0 || gpu->sub == ARRAY_LEN(boot_rows)) && psp_alive(gpu);

    if (alive || gpu->sub == ARRAY_LEN(boot_rows)) {
        err e = gpu_await(gpu, alive, SOS_MS);
        if (e == E_TIMEOUT)
            log_error(gpu->name, "psp: want its system alive, saw %08x of the boot loader",
                      ip_read(gpu, R_MP0_SMN_C2PMSG_35));
        return e;
    }
    const struct piece *piece = &gpu->boot[boot_rows[gpu->sub].piece];
    if (piece->bytes.len) {
        TRY(ip_poll(gpu, R_MP0_SMN_C2PMSG_35, UINT32_MAX, READY, BOOT_MS));
        place(gpu, piece->bytes);
        ip_write(gpu, R_MP0_SMN_C2PMSG_36, (u32)((gpu->fb_base + BOOT_PSP_BLOB) >> 20));
        ip_write(gpu, R_MP0_SMN_C2PMSG_35, boot_rows[gpu->sub].command);
    }
    gpu->sub++;
    return E_BUSY;
}

/* ---- the ring ---- */

err psp_ring_start(struct gpu *gpu)
{
    u64 ring = gpu->fb_base + BOOT_PSP_RING;

    switch (gpu->sub) {
    case 0:
        gpu->sub = 2;
        if (ip_read(gpu, R_MP0_SMN_C2PMSG_71)) {
            ip_write(gpu, R_MP0_SMN_C2PMSG_64, PSP_RING_DESTROY);
            gpu->sub = 1;
        }
        return E_BUSY;
    case 2:
        TRY(ip_poll(gpu, R_MP0_SMN_C2PMSG_64, READY, READY, RING_MS));
        vram_zero(gpu, BOOT_PSP_FENCE, 8); /* whatever it held might look like an answer */
        ip_write_pair(gpu, R_MP0_SMN_C2PMSG_69, R_MP0_SMN_C2PMSG_70, ring);
        ip_write(gpu, R_MP0_SMN_C2PMSG_71, PSP_RING_BYTES);
        ip_write(gpu, R_MP0_SMN_C2PMSG_64, PSP_RING_CREATE);
        break;
    case 4:
        return ip_poll(gpu, R_MP0_SMN_C2PMSG_64, PSP_RING_STATUS, READY, RING_MS);
    default:
        TRY(gpu_pause(gpu, SETTLE_MS));
    }
    gpu->sub++;
    return E_BUSY;
}

static void send(struct gpu *gpu, const struct psp_command *command)
{
    u64 at = gpu->fb_base + BOOT_PSP_COMMAND, fence = gpu->fb_base + BOOT_PSP_FENCE;
    u32 words = PSP_RING_BYTES / 4, put = ip_read(gpu, R_MP0_SMN_C2PMSG_67) % words;
    struct psp_frame frame = {low32(at),    high32(at),    sizeof(*command),
                              low32(fence), high32(fence), .fence = put + 1};

    vram_write(gpu, BOOT_PSP_COMMAND, command, sizeof(*command));
    vram_write(gpu, BOOT_PSP_RING + put / 16 * sizeof(frame), &frame, sizeof(frame));
    gmc_flush_hdp(gpu);
    gpu->psp_fence = frame.fence;
    ip_write(gpu, R_MP0_SMN_C2PMSG_67, (put + (u32)sizeof(frame) / 4) % words);
}

/* Over as many turns as it takes. `tmr_bytes` may be NULL. */
static err command(struct gpu *gpu, enum psp_command_id id, const u32 argument[6], u32 *tmr_bytes)
{
    struct psp_command seen = {.bytes = sizeof(seen), .version = 1, .id = id};
    u32 fence;

    memcpy(seen.argument, argument, sizeof(seen.argument));
    if (!gpu->psp_fence)
        send(gpu, &seen);
    vram_read(gpu, BOOT_PSP_FENCE, &fence, sizeof(fence));
    err e = gpu_await(gpu, fence == gpu->psp_fence, COMMAND_MS);
    if (e == E_BUSY)
        return e;
    if (e != OK)
        log_error(gpu->name, "psp: command %x: want fence %x, saw %x", id, gpu->psp_fence, fence);
    gpu->psp_fence = 0;
    TRY(e);
    vram_read(gpu, BOOT_PSP_COMMAND, &seen, sizeof(seen));
    if (seen.response.status) {
        log_error(gpu->name, "psp: command %x of type %u, %u bytes: want status 0, saw %x", id,
                  argument[3], argument[2], seen.response.status);
        return E_DEVICE;
    }
    if (tmr_bytes)
        *tmr_bytes = seen.response.tmr_bytes;
    return OK;
}

/* ---- loading ---- */

static err load(struct gpu *gpu, enum psp_command_id id, const struct piece *piece, u32 *tmr_bytes)
{
    u64 at = gpu->fb_base + BOOT_PSP_BLOB;
    const u32 argument[6] = {low32(at), high32(at), (u32)piece->bytes.len, piece->kind};

    if (!gpu->psp_fence)
        place(gpu, piece->bytes);
    return command(gpu, id, argument, tmr_bytes);
}

err psp_load_toc(struct gpu *gpu)
{
    struct piece toc = gpu->boot[PSP_TOC];

    toc.kind = 0; /* this command has no type */
    TRY(load(gpu, PSP_CMD_LOAD_TOC, &toc, &gpu->tmr_bytes));
    if (gpu->tmr_bytes && gpu->tmr_bytes <= TMR_MAX)
        return OK;
    log_error(gpu->name, "psp: want a trusted region of at most %lu KiB, saw %u KiB", TMR_MAX / KIB,
              gpu->tmr_bytes / 1024);
    return E_LIMIT;
}

/* Next piece that is, or is not, the power controller's. Nothing else may be loaded before that
 * one, and it goes before the trusted region is set up. */
static err load_next(struct gpu *gpu, bool smu)
{
    const struct piece *piece = &gpu->piece[gpu->sub];

    if (gpu->sub == gpu->piece_count)
        return OK;
    if ((piece->kind == PSP_FW_SMU) == smu)
        TRY(load(gpu, PSP_CMD_LOAD_IP_FW, piece, NULL));
    gpu->sub++;
    return E_BUSY;
}

err psp_load_first(struct gpu *gpu)
{
    return load_next(gpu, true);
}

err psp_load_all(struct gpu *gpu)
{
    return load_next(gpu, false);
}

err psp_setup_tmr(struct gpu *gpu)
{
    u64 at = gpu->fb_base + BOOT_TMR;
    const u32 argument[6] = {low32(at), high32(at), gpu->tmr_bytes, PSP_TMR_VIRT_PHYS, BOOT_TMR};

    return command(gpu, PSP_CMD_SETUP_TMR, argument, NULL);
}

err psp_autoload(struct gpu *gpu)
{
    return command(gpu, PSP_CMD_AUTOLOAD_RLC, (const u32[6]){}, NULL);
}
