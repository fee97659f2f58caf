/*
 * profile.c: chips and boards as data, and the IP discovery table that such a card keeps below the
 * end of VRAM. Sources: Linux 6.12 discovery.h and soc15_hw_ip.h; ids, sizes and clocks of boards
 * as lspci and pp_dpm_* print them; component ids from the headers of the signed firmware files.
 */
#include "sim/priv.h"

// clang-format off
static const struct profile_ip navi31_ip[] = {
    {HW_MP1,    0, 13, 0, 0, 5, {0x16000, 0xdc0000, 0xe00000, 0xe40000, 0x243fc00}},
    {HW_GC,     0, 11, 0, 0, 4, {0x1260, 0xa000, 0x1c000, 0x2402c00}},
    {HW_MMHUB,  0,  3, 0, 0, 2, {0x1a000, 0x2408800}},
    {HW_OSSSYS, 0,  6, 0, 0, 2, {0x10a0, 0x240a000}},
    {HW_HDP,    0,  6, 0, 0, 2, {0xf20, 0x240a400}},
    {HW_SDMA0,  0,  6, 0, 0, 4, {0x1260, 0xa000, 0x1c000, 0x2402c00}},
    {HW_SDMA1,  0,  6, 0, 0, 4, {0x1260, 0xa000, 0x1c000, 0x2402c00}},
    {HW_NBIF,   0,  4, 3, 0, 6, {0, 0x14, 0xd20, 0x10400, 0x241b000, 0x4040000}},
    {HW_MP0,    0, 13, 0, 0, 5, {0x16000, 0xdc0000, 0xe00000, 0xe40000, 0x243fc00}},
    {3,         0, 13, 0, 0, 2, {0x16600, 0x2400c00}}, /* THM: thermal, not driven by us */
    {4,         0, 13, 0, 0, 2, {0x16800, 0x2401000}}, /* SMUIO */
};
static const struct profile_blob navi31_boot[] = {
    {"key database",      PSP_BOOT_KDB, 0x004f, true},
    {"key database, SPL", PSP_BOOT_SPL, 0x004f, true}, /* the same again, as psp_v13_0.c does */
    {"system driver",     PSP_BOOT_SYS, 0x000a, false},
    {"secure OS",         PSP_BOOT_SOS, 0x0009, false},
};
static const struct profile_blob navi31_firmware[] = {
    {"SMU",           PSP_FW_SMU,       0x1001, false},
    {"SDMA thread 1", PSP_FW_SDMA_TH1,  0x203f, false},
    {"SDMA thread 0", PSP_FW_SDMA_TH0,  0x203e, false},
    {"MEC",           PSP_FW_MEC,       0x2048, false},
    {"MEC stack",     PSP_FW_MEC_STACK, 0x2049, false},
    {"IMU code",      PSP_FW_IMU_I,     0x203b, false},
    {"IMU data",      PSP_FW_IMU_D,     0x203c, false},
    {"RLC IRAM",      PSP_FW_RLC_IRAM,  0x2016, false},
    {"RLC DRAM",      PSP_FW_RLC_DRAM,  0x2017, false},
    {"RLC P",         PSP_FW_RLC_P,     0x200f, false},
    {"RLC V",         PSP_FW_RLC_V,     0x200a, false},
    {"RLC G",         PSP_FW_RLC_G,     0x2009, false},
};
static const struct profile_clock navi31_clock[] = {
    {SMU_GFXCLK, 2, {500, 2526}},
    {SMU_SOCCLK, 3, {500, 800, 1333}},
    {SMU_UCLK,   4, {96, 456, 772, 1249}},
    {SMU_FCLK,   3, {1200, 1600, 2449}},
};
// clang-format on

const struct card_profile profile_navi31 = {
    .name = "navi31",
    .vendor = 0x1002,
    .device = 0x744c,
    .subsystem_vendor = 0x1002,
    .subsystem = 0x0e3b,
    .audio_device = 0xab30,
    .revision = 0xc8,
    .vram_mb = 24560,
    .bar0_sizes = 0xff00, /* 256 MB to 32 GB */
    .bar2_mb = 2,
    .bar5_bytes = 1 * MIB,
    .link_speed = 4,
    .link_width = 16,
    .link_speed_max = 4,
    .link_width_max = 16,
    .fb_base = 0x8000000000,
    .se_count = 6,
    .sa_per_se = 2,
    .wgp_per_sa = 4,
    .lds_kb = 64,
    .waves_per_simd = 16,
    .scratch_slots = 32,
    .ip = navi31_ip,
    .ip_count = ARRAY_LEN(navi31_ip),
    .block_ip = {[REG_GC] = 1,
                 [REG_MMHUB] = 2,
                 [REG_MP] = 8,
                 [REG_OSSSYS] = 3,
                 [REG_NBIO] = 7,
                 [REG_HDP] = 4},
    .boot = navi31_boot,
    .boot_count = ARRAY_LEN(navi31_boot),
    .firmware = navi31_firmware,
    .firmware_count = ARRAY_LEN(navi31_firmware),
    .toc_id = 0x200e,
    .tmr_bytes = 0x1300000,
    .mec_start = 0x7000000003000,
    .clock = navi31_clock,
    .clock_count = ARRAY_LEN(navi31_clock),
    .smu_version = 0x004e8000,
    .smu_interface = 0x3d,
    .power_watts_min = 1,
    .power_watts_max = 402,
    .power_watts = 339,
};

const struct card_profile *sim_profile(const char *name)
{
    static const struct card_profile *const all[] = {&profile_navi31};

    for (u32 i = 0; i < ARRAY_LEN(all); i++)
        if (str_eq(str_of(name), str_of(all[i]->name)))
            return all[i];
    return NULL;
}

/* ---- the IP discovery table ---- */

static u16 byte_sum(const u8 *data, usize bytes)
{
    u16 sum = 0;

    for (usize i = 0; i < bytes; i++)
        sum = (u16)(sum + data[i]);
    return sum;
}

static usize ips_write(const struct card_profile *profile, u8 *out, usize at)
{
    struct discovery_ips ips = {.signature = DISCOVERY_IPS, .version = 3, .die_count = 1};
    struct discovery_die die = {0, (u16)profile->ip_count};
    usize end = at + sizeof ips + sizeof die;

    for (u32 i = 0; i < profile->ip_count; i++) {
        const struct profile_ip *ip = &profile->ip[i];
        struct discovery_ip entry = {.hw_id = ip->hw_id,
                                     .instance = ip->instance,
                                     .base_count = ip->segment_count,
                                     .major = ip->major,
                                     .minor = ip->minor,
                                     .revision = ip->revision};
        memcpy(out + end, &entry, sizeof entry);
        memcpy(out + end + sizeof entry, ip->segment, ip->segment_count * sizeof(u32));
        end += sizeof entry + ip->segment_count * sizeof(u32);
    }
    ips.bytes = (u16)(end - at);
    ips.die[0].offset = (u16)(at + sizeof ips);
    memcpy(out + at, &ips, sizeof ips);
    memcpy(out + at + sizeof ips, &die, sizeof die);
    return end;
}

static usize gc_write(const struct card_profile *profile, u8 *out, usize at)
{
    usize bytes = sizeof(struct discovery_gc) + 2 * sizeof(u32); /* two fields nobody asks for */
    struct discovery_gc gc = {.signature = DISCOVERY_GC,
                              .major = 1,
                              .bytes = (u32)bytes,
                              .se_count = profile->se_count,
                              .wgp0_per_sa = profile->wgp_per_sa,
                              .rb_per_se = 4,
                              .gl2c_count = 24,
                              .gprs = 1536,
                              .wave_size = 32,
                              .waves_per_simd_max = profile->waves_per_simd,
                              .scratch_slots_per_cu_max = profile->scratch_slots,
                              .lds_size = profile->lds_kb,
                              .sc_per_se = 2,
                              .sa_per_se = profile->sa_per_se};

    memcpy(out + at, &gc, sizeof gc);
    return at + bytes;
}

void profile_discovery(const struct card_profile *profile, u8 out[DISCOVERY_BYTES_MAX])
{
    struct discovery_header header = {.signature = DISCOVERY_SIGNATURE, .major = 1, .minor = 3};
    struct discovery_harvest harvest = {.signature = DISCOVERY_HARVEST};
    usize at[4] = {sizeof header};

    memset(out, 0, DISCOVERY_BYTES_MAX);
    if (profile->discovery) {
        memcpy(out, profile->discovery, profile->discovery_bytes);
        return;
    }
    at[1] = ips_write(profile, out, at[DISCOVERY_LIST_IPS]);
    at[2] = gc_write(profile, out, at[DISCOVERY_LIST_GC]);
    memcpy(out + at[DISCOVERY_LIST_HARVEST], &harvest, sizeof harvest);
    at[3] = at[2] + sizeof harvest;
    for (u32 i = 0; i < 3; i++) {
        u16 bytes = (u16)(at[i + 1] - at[i]);
        header.list[i] =
            (struct discovery_list_entry){(u16)at[i], byte_sum(out + at[i], bytes), bytes, 0};
    }
    header.bytes = (u16)at[3];
    memcpy(out, &header, sizeof header);
    usize summed = offsetof(struct discovery_header, bytes);
    header.checksum = byte_sum(out + summed, header.bytes - summed);
    memcpy(out, &header, sizeof header);
}
