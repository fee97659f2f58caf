/*
 * psp.c: the secure processor: the card's own firmware after power-on, the boot loader that takes
 * its components in order, the secure OS with its ring of commands. It reads the genuine firmware
 * and refuses what is not whole: magic, sizes, which component it is, SHA-256 of the body. Follows
 * Linux 6.12 psp_v13_0.c, amdgpu_psp.c, psp_gfx_if.h; the header of a blob as the files have it.
 * The signature itself cannot be checked here. A bad blob is answered with an error; a driver that
 * does things in the wrong order is a finding.
 */
#include "sim/priv.h"

#include <stdlib.h>

#define READY        0x80000000u
#define BOOT_NS      (80 * NS_PER_MS)
#define LOAD_NS      (2 * NS_PER_MS)
#define START_NS     (15 * NS_PER_MS)
#define RING_NS      (1 * NS_PER_MS)
#define COMMAND_NS   (100 * NS_PER_US)
#define FRAME_WORDS  16u
#define LOADER_ERROR 6u       /* in the low byte of C2PMSG_35 */
#define MODE1_RESET  0x70000u /* GFX_CTRL_CMD_ID_MODE1_RST */

#define BLOB_HEADER    0x100u
#define BLOB_SIGNATURE 0x100u
#define BLOB_BYTES_MAX (16 * MIB)

#define TEE_BAD_PARAMETERS 0xffff0006u

struct blob_header { /* as the signed files have it */
    u8 pad[16];
    u32 magic, signed_bytes;
    u8 pad2[64];
    u16 id, kind;
    u8 pad3[16];
    u32 bytes;
    u8 pad4[96];
    u8 digest[32];
    u8 pad5[16];
};
_Static_assert(sizeof(struct blob_header) == BLOB_HEADER, "layout");
_Static_assert(offsetof(struct blob_header, id) == 0x58 &&
                   offsetof(struct blob_header, bytes) == 0x6c &&
                   offsetof(struct blob_header, digest) == 0xd0,
               "layout");

static const struct client psp = {.unit = UNIT_PSP};

static void loader_ready(struct sim *sim, u64 ignored)
{
    (void)ignored;
    sim->psp.state = PSP_IS_READY;
    sim->reg[R_MP0_SMN_C2PMSG_33] = READY;
    sim->reg[R_MP0_SMN_C2PMSG_35] = READY;
}

void psp_reset(struct sim *sim)
{
    sim->psp = (struct psp){.state = PSP_IS_BOOTING};
    sim_at(sim, sim_after(sim, BOOT_NS + sim->dead_until_ns - sim->now_ns), loader_ready, 0);
}

bool psp_has(const struct sim *sim, u32 firmware_type)
{
    for (u32 i = 0; i < sim->profile->firmware_count; i++)
        if (sim->profile->firmware[i].type == firmware_type)
            return sim->psp.loaded >> i & 1;
    return false;
}

bool psp_owns(const struct sim *sim, u64 offset, u64 bytes)
{
    const struct psp *state = &sim->psp;

    return state->tmr_set && offset < state->tmr + state->tmr_bytes && offset + bytes > state->tmr;
}

/* ---- blobs ---- */

static bool refuse(struct sim *sim, const char *name, const struct profile_blob *want, u32 seen)
{
    sim_note(sim, name, "as %s: saw %#x", want->what, seen);
    return false;
}

static bool body_is_whole(struct sim *sim, u64 mc, const struct blob_header *head)
{
    u8 digest[32], *body = malloc(head->signed_bytes);
    CHECK(body);
    bool read = mem_read(sim, psp, mc + BLOB_HEADER, body, head->signed_bytes);

    sha256(body, read ? head->signed_bytes : 0, digest);
    free(body);
    return memcmp(digest, head->digest, sizeof digest) == 0;
}

/* `given`: what the driver says it has put there; 0: it did not say. */
static bool blob_check(struct sim *sim, u64 mc, u32 given, const struct profile_blob *want)
{
    struct blob_header head;

    if (!mem_read(sim, psp, mc, &head, sizeof head))
        return false;
    if (head.magic != (want->plain ? 0 : PSP_BLOB_MAGIC))
        return refuse(sim, "psp-blob-magic", want, head.magic);
    if (head.bytes != head.signed_bytes + BLOB_HEADER + BLOB_SIGNATURE ||
        head.bytes > BLOB_BYTES_MAX)
        return refuse(sim, "psp-blob-header", want, head.bytes);
    if (head.id != want->id)
        return refuse(sim, "psp-blob-id", want, head.id);
    if (given != 0 && given < head.bytes)
        return refuse(sim, "psp-blob-truncated", want, given);
    return body_is_whole(sim, mc, &head) || refuse(sim, "psp-blob-digest", want, head.signed_bytes);
}

/* ---- boot loader ---- */

static void os_up(struct sim *sim, u64 ignored)
{
    (void)ignored;
    sim->psp.state = PSP_IS_UP;
    sim->reg[R_MP0_SMN_C2PMSG_81] = 1;
    sim->reg[R_MP0_SMN_C2PMSG_64] = READY;
}

static void component_loaded(struct sim *sim, u64 number)
{
    const struct profile_blob *want = &sim->profile->boot[number];
    bool good = blob_check(sim, (u64)sim->reg[R_MP0_SMN_C2PMSG_36] << 20, 0, want);

    sim->psp.state = PSP_IS_READY;
    sim->reg[R_MP0_SMN_C2PMSG_35] = READY | (good ? 0 : LOADER_ERROR);
    sim->psp.component += good;
    if (good && want->type == PSP_BOOT_SOS) {
        sim->psp.state = PSP_IS_STARTING;
        sim_at(sim, sim_after(sim, START_NS), os_up, 0);
    }
}

static bool component_load(struct sim *sim, u32 command)
{
    const struct card_profile *profile = sim->profile;
    u32 next = sim->psp.component, want = next < profile->boot_count ? profile->boot[next].type : 0;

    if (sim->psp.state != PSP_IS_READY)
        return sim_fail(sim, "psp-loader-busy", "command %#x while it is not ready", command);
    if (command != want || command == 0)
        return sim_fail(sim, "psp-order", "command %#x, the next is %#x", command, want);
    sim->psp.state = PSP_IS_LOADING;
    sim->reg[R_MP0_SMN_C2PMSG_35] = 0;
    sim_at(sim, sim_after(sim, LOAD_NS), component_loaded, next);
    return true;
}

/* ---- ring commands: false is answered with an error ---- */

static u64 argument_address(const struct psp_command *command, u32 at)
{
    return (u64)command->argument[at + 1] << 32 | command->argument[at];
}

static bool load_toc(struct sim *sim, struct psp_command *command)
{
    const struct profile_blob toc = {"TOC", 0, (u16)sim->profile->toc_id, false};

    if (!blob_check(sim, argument_address(command, 0), command->argument[2], &toc))
        return false;
    sim->psp.toc_loaded = true;
    command->response.tmr_bytes = sim->profile->tmr_bytes;
    return true;
}

static bool setup_tmr(struct sim *sim, struct psp_command *command)
{
    u64 mc = argument_address(command, 0), system = argument_address(command, 4);
    u64 offset = mc - sim->profile->fb_base, vram = vram_bytes(sim);
    u32 bytes = command->argument[2], flags = command->argument[3];

    if (!sim->psp.toc_loaded || sim->psp.tmr_set || sim->profile->boot_tmr)
        return sim_fail(sim, "psp-tmr-order", "SETUP_TMR before LOAD_TOC, or a second time");
    if (mc % PSP_TMR_ALIGN != 0 || offset >= vram || bytes > vram - offset)
        return sim_fail(sim, "psp-tmr-place", "%#x bytes at %#lx", bytes, mc);
    if (flags & PSP_TMR_VIRT_PHYS && system != offset)
        return sim_fail(sim, "psp-tmr-address", "system address %#lx, but it is VRAM %#lx", system,
                        offset);
    if (bytes < sim->profile->tmr_bytes) {
        sim_note(sim, "psp-tmr-small", "%#x bytes, LOAD_TOC said %#x", bytes,
                 sim->profile->tmr_bytes);
        return false;
    }
    sim->psp.tmr = offset;
    sim->psp.tmr_bytes = bytes;
    sim->psp.tmr_set = true;
    return true;
}

static bool load_ip_firmware(struct sim *sim, struct psp_command *command)
{
    const struct profile_blob *firmware = sim->profile->firmware;
    u32 type = command->argument[3], count = sim->profile->firmware_count, i = 0;

    while (i < count && firmware[i].type != type)
        i++;
    if (i == count)
        return sim_fail(sim, "psp-firmware-type", "type %u is not of this chip", type);
    if (type != PSP_FW_SMU && !sim->psp.tmr_set && !sim->profile->boot_tmr)
        return sim_fail(sim, "psp-no-tmr", "%s before SETUP_TMR", firmware[i].what);
    if (!blob_check(sim, argument_address(command, 0), command->argument[2], &firmware[i]))
        return false;
    sim->psp.loaded |= 1ull << i;
    if (type == PSP_FW_SMU)
        smu_start(sim);
    return true;
}

static bool autoload(struct sim *sim)
{
    u64 all = (1ull << sim->profile->firmware_count) - 1, missing = all & ~sim->psp.loaded;

    if (missing)
        return sim_fail(sim, "psp-autoload-incomplete", "%s is not loaded",
                        sim->profile->firmware[__builtin_ctzll(missing)].what);
    gfx_autoload(sim);
    return true;
}

static bool command_run(struct sim *sim, struct psp_command *command)
{
    switch (command->id) {
    case PSP_CMD_LOAD_TOC:
        return load_toc(sim, command);
    case PSP_CMD_SETUP_TMR:
        return setup_tmr(sim, command);
    case PSP_CMD_LOAD_IP_FW:
        return load_ip_firmware(sim, command);
    case PSP_CMD_AUTOLOAD_RLC:
        return autoload(sim);
    default:
        sim_note(sim, "psp-unknown-command", "%#x", command->id);
        return false;
    }
}

/* ---- the ring ---- */

static bool frame_run(struct sim *sim)
{
    struct psp_frame frame;
    struct psp_command command;

    if (!mem_read(sim, psp, sim->psp.ring + sim->psp.rptr * sizeof(u32), &frame, sizeof frame))
        return false;
    u64 at = (u64)frame.command_hi << 32 | frame.command_lo;
    u64 fence = (u64)frame.fence_hi << 32 | frame.fence_lo;
    if (at % 4096 != 0 || fence % sizeof(u32) != 0)
        return sim_fail(sim, "psp-frame-address", "command at %#lx, fence at %#lx", at, fence);
    if (!mem_read(sim, psp, at, &command, sizeof command))
        return false;
    memset(&command.response, 0, sizeof command.response);
    command.response.status = command_run(sim, &command) ? 0 : TEE_BAD_PARAMETERS;
    return mem_write(sim, psp, at + offsetof(struct psp_command, response), &command.response,
                     sizeof command.response) &&
           mem_write(sim, psp, fence, &frame.fence, sizeof frame.fence);
}

static void ring_run(struct sim *sim, u64 ignored)
{
    (void)ignored;
    u32 words = sim->psp.ring_bytes / 4, wptr = sim->reg[R_MP0_SMN_C2PMSG_67];

    sim->psp.busy = false;
    if (sim->psp.ring == 0 || sim->psp.rptr == wptr || !frame_run(sim))
        return;
    sim->psp.rptr = (sim->psp.rptr + FRAME_WORDS) % words;
    if (sim->psp.rptr != wptr) {
        sim->psp.busy = true;
        sim_at(sim, sim_after(sim, COMMAND_NS), ring_run, 0);
    }
}

static void ring_written(struct sim *sim, u32 wptr)
{
    if (sim->psp.ring == 0) {
        sim_fail(sim, "psp-no-ring", "C2PMSG_67 is %#x", wptr);
    } else if (wptr % FRAME_WORDS != 0 || wptr * 4 >= sim->psp.ring_bytes) {
        sim_fail(sim, "psp-wptr", "%#x words: a frame has 16, the ring %#x bytes", wptr,
                 sim->psp.ring_bytes);
    } else if (!sim->psp.busy) {
        u64 offset = sim->psp.ring - sim->profile->fb_base;
        if (mem_in_hdp(sim, offset, sim->psp.ring_bytes) && sim_excepted(sim, EXCEPT_PSP_HDP))
            mem_hdp_flush(sim);
        sim->psp.busy = true;
        sim_at(sim, sim_after(sim, COMMAND_NS), ring_run, 0);
    }
}

static void ring_ready(struct sim *sim, u64 ignored)
{
    (void)ignored;
    sim->reg[R_MP0_SMN_C2PMSG_64] = READY;
}

static void ring_create(struct sim *sim)
{
    u64 mc = (u64)sim->reg[R_MP0_SMN_C2PMSG_70] << 32 | sim->reg[R_MP0_SMN_C2PMSG_69];
    u32 bytes = sim->reg[R_MP0_SMN_C2PMSG_71];

    if (sim->psp.ring != 0)
        sim_fail(sim, "psp-ring-exists", "a second ring at %#lx", mc);
    if (mc == 0 || mc % 4096 != 0 || bytes == 0 || bytes % 4096 != 0)
        sim_fail(sim, "psp-ring-shape", "%#x bytes at %#lx", bytes, mc);
    sim->psp.ring = mc;
    sim->psp.ring_bytes = bytes;
    sim->psp.rptr = 0;
    sim->reg[R_MP0_SMN_C2PMSG_67] = 0;
}

static bool ring_command(struct sim *sim, u32 command)
{
    u32 ready = sim->reg[R_MP0_SMN_C2PMSG_64];

    if (sim->psp.state != PSP_IS_UP || !(ready & READY))
        return sim_fail(sim, "psp-os-not-ready", "C2PMSG_64 is %#x, command %#x", ready, command);
    if (command == PSP_RING_CREATE)
        ring_create(sim);
    else if (command == PSP_RING_DESTROY)
        sim->psp.ring = 0;
    else if (command == MODE1_RESET)
        smu_mode1_reset(sim);
    else
        return sim_fail(sim, "psp-ring-command", "%#x", command);
    sim->reg[R_MP0_SMN_C2PMSG_64] = command;
    sim_at(sim, sim_after(sim, RING_NS), ring_ready, 0);
    return true;
}

bool psp_write(struct sim *sim, enum reg reg, u32 value)
{
    switch (reg) {
    case R_MP0_SMN_C2PMSG_33:
    case R_MP0_SMN_C2PMSG_81:
        return true; /* read only */
    case R_MP0_SMN_C2PMSG_35:
        component_load(sim, value);
        return true;
    case R_MP0_SMN_C2PMSG_64:
        ring_command(sim, value);
        return true;
    case R_MP0_SMN_C2PMSG_67:
        sim->reg[reg] = value;
        ring_written(sim, value);
        return true;
    default:
        return false;
    }
}
