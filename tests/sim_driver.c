/*
 * sim_driver.c: see sim_driver.h. Orders and numbers: the fact sheet on AMD GPUs, section 1.
 */
#include "tests/sim_driver.h"

#include <stdio.h>
#include <stdlib.h>

#define FB        0x8000000000ull
#define FILES_MAX 8u

static bool ram_at(const struct machine *machine, u64 bus, u64 bytes, u8 **at)
{
    *at = machine->ram + (bus - MACHINE_RAM_BASE);
    return bus >= MACHINE_RAM_BASE && bus + bytes <= MACHINE_RAM_BASE + MACHINE_RAM;
}

static bool ram_read(void *ctx, u64 bus, void *out, u64 bytes)
{
    u8 *at;
    bool there = ram_at(ctx, bus, bytes, &at);

    if (there)
        memcpy(out, at, bytes);
    return there;
}

static bool ram_write(void *ctx, u64 bus, const void *in, u64 bytes)
{
    u8 *at;
    bool there = ram_at(ctx, bus, bytes, &at);

    if (there)
        memcpy(at, in, bytes);
    return there;
}

static void irq(void *ctx, u32 vector)
{
    struct machine *machine = ctx;

    machine->irqs += vector == 0;
}

static void log_keep(void *ctx, const char *line)
{
    struct machine *machine = ctx;

    snprintf(machine->log, sizeof machine->log, "%s", line);
}

void machine_start(struct machine *machine, const struct sim_options *options)
{
    struct sim_options strict = {.seed = 1, .bar0_bytes = 32 * GIB};
    struct sim_host host = {machine, ram_read, ram_write, NULL, irq, log_keep};

    *machine = (struct machine){.ram = calloc(1, MACHINE_RAM), .table_next = ROOT + 4096};
    EXPECT(machine->ram);
    machine->sim = sim_create(options ? options : &strict, &host);
    EXPECT(machine->sim);
    sim_config_write(machine->sim, 0, 4, 2, 6);
    sim_wait(machine->sim, 200 * NS_PER_MS);
}

void machine_end(struct machine *machine)
{
    sim_destroy(machine->sim);
    free(machine->ram);
}

bool machine_found(const struct machine *machine, const char *name)
{
    const char *failure = sim_failure(machine->sim);
    struct str rest, found = failure ? str_cut(str_of(failure), ':', &rest) : STR("");

    if (!str_eq(found, str_of(name)))
        printf("found \"%s\", expected %s\n", failure ? failure : "nothing", name);
    return str_eq(found, str_of(name));
}

u32 get(struct machine *machine, enum reg reg)
{
    return (u32)sim_bar_read(machine->sim, 5, reg_address(machine->sim, reg) * 4ull, 4);
}

void put(struct machine *machine, enum reg reg, u32 value)
{
    sim_bar_write(machine->sim, 5, reg_address(machine->sim, reg) * 4ull, 4, value);
}

bool reaches(struct machine *machine, enum reg reg, u32 mask, u32 value, u32 ms)
{
    u64 end = sim_now_ns(machine->sim) + ms * NS_PER_MS;

    while (sim_now_ns(machine->sim) < end) {
        if ((get(machine, reg) & mask) == value)
            return true;
        sim_wait(machine->sim, 20 * NS_PER_US);
    }
    return false;
}

void vram_put(struct machine *machine, u64 at, const void *in, u64 bytes)
{
    sim_vram_write(machine->sim, at, in, bytes);
}

void hdp(struct machine *machine)
{
    u32 at = get(machine, R_BIF_BX0_REMAP_HDP_MEM_FLUSH_CNTL);

    sim_bar_write(machine->sim, 5, at, 4, 0);
}

/* ---- firmware files ---- */

static const u8 *file(const char *name)
{
    static struct {
        char name[32];
        u8 *data;
    } files[FILES_MAX];
    char path[64];
    u32 i = 0;

    while (files[i].data && !str_eq(str_of(files[i].name), str_of(name)))
        i++;
    if (files[i].data)
        return files[i].data;
    snprintf(path, sizeof path, "build/firmware/%s.bin", name);
    FILE *in = fopen(path, "rb");
    if (!in)
        return NULL;
    u8 *data = calloc(1, MIB);
    EXPECT(data && fread(data, 1, MIB, in) > 0);
    fclose(in);
    snprintf(files[i].name, sizeof files[i].name, "%s", name);
    files[i].data = data;
    return data;
}

static const u8 *psp_piece(u32 kind, u32 *bytes)
{
    const u8 *data = file("psp_13_0_0_sos");
    const struct firmware_psp *head = (const void *)data;

    for (u32 i = 0; data && i < head->piece_count; i++) {
        *bytes = head->piece[i].bytes;
        if (head->piece[i].kind == kind)
            return data + head->header.ucode_offset + head->piece[i].offset;
    }
    return NULL;
}

const u8 *firmware_boot(u32 command, u32 *bytes)
{
    return psp_piece(command == PSP_BOOT_SYS   ? PSP_SYS
                     : command == PSP_BOOT_SOS ? PSP_SOS
                                               : PSP_KDB,
                     bytes);
}

const u8 *firmware_toc(u32 *bytes)
{
    return psp_piece(PSP_TOC, bytes);
}

/* Where offset and size of the piece stand in the header, as byte offsets; 0: no such word. */
static const struct {
    u32 type;
    const char *name;
    u32 offset_at, bytes_at, after_at; /* after: another size to add to the offset */
} pieces[] = {
    {PSP_FW_SMU, "smu_13_0_0", 24, 20, 0},
    {PSP_FW_SDMA_TH1, "sdma_6_0_0", 48, 52, 0},
    {PSP_FW_SDMA_TH0, "sdma_6_0_0", 24, 36, 0},
    {PSP_FW_MEC, "gc_11_0_0_mec", 24, 36, 0},
    {PSP_FW_MEC_STACK, "gc_11_0_0_mec", 48, 44, 0},
    {PSP_FW_IMU_I, "gc_11_0_0_imu", 24, 32, 0},
    {PSP_FW_IMU_D, "gc_11_0_0_imu", 24, 40, 32},
    {PSP_FW_RLC_IRAM, "gc_11_0_0_rlc", 160, 156, 0},
    {PSP_FW_RLC_DRAM, "gc_11_0_0_rlc", 168, 164, 0},
    {PSP_FW_RLC_P, "gc_11_0_0_rlc", 184, 180, 0},
    {PSP_FW_RLC_V, "gc_11_0_0_rlc", 200, 196, 0},
    {PSP_FW_RLC_G, "gc_11_0_0_rlc", 24, 20, 0},
};

const u8 *firmware_ip(u32 type, u32 *bytes)
{
    u32 i = 0, offset, after = 0;

    while (pieces[i].type != type)
        i++;
    const u8 *data = file(pieces[i].name);
    if (!data)
        return NULL;
    memcpy(bytes, data + pieces[i].bytes_at, 4);
    memcpy(&offset, data + pieces[i].offset_at, 4);
    if (pieces[i].after_at)
        memcpy(&after, data + pieces[i].after_at, 4);
    return data + offset + after;
}

/* ---- secure processor ---- */

u32 psp_boot(struct machine *machine, u32 command, const u8 *blob, u32 bytes)
{
    vram_put(machine, MSG1, blob, bytes);
    hdp(machine);
    put(machine, R_MP0_SMN_C2PMSG_36, (u32)((FB + MSG1) >> 20));
    put(machine, R_MP0_SMN_C2PMSG_35, command);
    if (!reaches(machine, R_MP0_SMN_C2PMSG_35, 0x80000000, 0x80000000, 100))
        return ~0u;
    return get(machine, R_MP0_SMN_C2PMSG_35) & 0xff;
}

bool psp_os(struct machine *machine)
{
    static const u32 order[] = {PSP_BOOT_KDB, PSP_BOOT_SPL, PSP_BOOT_SYS, PSP_BOOT_SOS};
    u32 bytes;

    for (u32 i = 0; i < ARRAY_LEN(order); i++) {
        const u8 *blob = firmware_boot(order[i], &bytes);
        if (!blob)
            test_skip("no firmware files in build/firmware");
        if (psp_boot(machine, order[i], blob, bytes) != 0)
            return false;
    }
    return reaches(machine, R_MP0_SMN_C2PMSG_64, 0x80000000, 0x80000000, 100) &&
           get(machine, R_MP0_SMN_C2PMSG_81) != 0;
}

bool psp_ring(struct machine *machine)
{
    put(machine, R_MP0_SMN_C2PMSG_69, (u32)(FB + RING));
    put(machine, R_MP0_SMN_C2PMSG_70, (u32)((FB + RING) >> 32));
    put(machine, R_MP0_SMN_C2PMSG_71, 0x10000);
    put(machine, R_MP0_SMN_C2PMSG_64, PSP_RING_CREATE);
    return reaches(machine, R_MP0_SMN_C2PMSG_64, 0x8000ffff, 0x80000000, 100);
}

u32 psp_run(struct machine *machine, struct psp_command *command)
{
    u32 wptr = get(machine, R_MP0_SMN_C2PMSG_67), fence = 0, want = ++machine->fence;
    struct psp_frame frame = {.command_lo = (u32)(FB + COMMAND),
                              .command_hi = (u32)((FB + COMMAND) >> 32),
                              .fence_lo = (u32)(FB + FENCE),
                              .fence_hi = (u32)((FB + FENCE) >> 32),
                              .fence = want};

    vram_put(machine, COMMAND, command, sizeof *command);
    vram_put(machine, RING + wptr * 4, &frame, sizeof frame);
    hdp(machine);
    put(machine, R_MP0_SMN_C2PMSG_67, (wptr + 16) % 0x4000);
    for (u32 i = 0; i < 1000 && fence != want; i++) {
        sim_wait(machine->sim, 20 * NS_PER_US);
        sim_vram_read(machine->sim, FENCE, &fence, sizeof fence);
    }
    sim_vram_read(machine->sim, COMMAND, command, sizeof *command);
    return fence == want ? command->response.status : ~0u;
}

u32 psp_load(struct machine *machine, u32 id, u32 type, const u8 *blob, u32 bytes)
{
    struct psp_command command = {
        .id = id, .argument = {(u32)(FB + MSG1), (u32)((FB + MSG1) >> 32), bytes, type}};

    vram_put(machine, MSG1, blob, bytes);
    hdp(machine);
    return psp_run(machine, &command);
}

u32 psp_tmr(struct machine *machine, u64 at, u32 bytes)
{
    struct psp_command command = {.id = PSP_CMD_SETUP_TMR,
                                  .argument = {(u32)(FB + at), (u32)((FB + at) >> 32), bytes,
                                               PSP_TMR_VIRT_PHYS, (u32)at, (u32)(at >> 32)}};

    return psp_run(machine, &command);
}

u32 smu_say(struct machine *machine, u32 message, u32 *argument)
{
    put(machine, R_MP1_SMN_C2PMSG_90, 0);
    put(machine, R_MP1_SMN_C2PMSG_82, *argument);
    put(machine, R_MP1_SMN_C2PMSG_66, message);
    for (u32 i = 0; i < 1000; i++) {
        u32 answer = get(machine, R_MP1_SMN_C2PMSG_90);
        *argument = get(machine, R_MP1_SMN_C2PMSG_82);
        if (answer != 0)
            return answer;
        sim_wait(machine->sim, 20 * NS_PER_US);
    }
    return 0;
}

/* ---- hubs and page tables ---- */

#define HUB(hub, name) ((hub) == HUB_GC ? R_GC##name : R_MM##name)

void hub_setup(struct machine *machine, enum hub_kind hub)
{
    put(machine, HUB(hub, MC_VM_SYSTEM_APERTURE_LOW_ADDR), (u32)(FB >> 18));
    put(machine, HUB(hub, MC_VM_SYSTEM_APERTURE_HIGH_ADDR), (u32)((FB + 24 * GIB) >> 18));
    put(machine, HUB(hub, MC_VM_MX_L1_TLB_CNTL), 0x1859);
    put(machine, HUB(hub, VM_L2_CNTL), 0x80801);
    put(machine, HUB(hub, VM_CONTEXT0_PAGE_TABLE_START_ADDR_LO32), (u32)(VA_START >> 12));
    put(machine, HUB(hub, VM_CONTEXT0_PAGE_TABLE_START_ADDR_HI32), (u32)(VA_START >> 44));
    put(machine, HUB(hub, VM_CONTEXT0_PAGE_TABLE_END_ADDR_LO32), 0xffffffff);
    put(machine, HUB(hub, VM_CONTEXT0_PAGE_TABLE_END_ADDR_HI32), 7);
    put(machine, HUB(hub, VM_CONTEXT0_PAGE_TABLE_BASE_ADDR_LO32), ROOT | 1);
    put(machine, HUB(hub, VM_CONTEXT0_PAGE_TABLE_BASE_ADDR_HI32), 0);
    put(machine, HUB(hub, VM_CONTEXT0_CNTL), 0x1fffe07);
    static const u8 empty[4096];
    vram_put(machine, ROOT, empty, sizeof empty);
}

void map(struct machine *machine, u64 va, u32 shift, u64 entry)
{
    static const u8 empty[4096];
    u64 table = ROOT, page = (va - VA_START) >> 12;

    for (u32 level = 3; 12 + level * 9 > shift; level--) {
        u64 at = table + (page >> level * 9 & 511) * 8, next;
        sim_vram_read(machine->sim, at, &next, 8);
        if (!(next & PTE_VALID)) {
            next = machine->table_next | PTE_VALID;
            vram_put(machine, machine->table_next, empty, sizeof empty);
            vram_put(machine, at, &next, 8);
            machine->table_next += 4096;
        }
        table = next & PTE_ADDRESS;
    }
    vram_put(machine, table + (page >> (shift - 12) & 511) * 8, &entry, 8);
    hdp(machine);
}

bool invalidate(struct machine *machine, enum hub_kind hub, u32 request)
{
    if (hub == HUB_MM && !reaches(machine, R_MMVM_INVALIDATE_ENG17_SEM, 1, 1, 1))
        return false;
    put(machine, HUB(hub, VM_INVALIDATE_ENG17_REQ), request);
    bool done = reaches(machine, HUB(hub, VM_INVALIDATE_ENG17_ACK), 1, 1, 1);
    if (hub == HUB_MM)
        put(machine, R_MMVM_INVALIDATE_ENG17_SEM, 0);
    return done;
}
