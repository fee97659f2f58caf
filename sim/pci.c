/*
 * pci.c: the card's config space: header, BARs and their sizes, the capability chain, and what it
 * gates: memory decoding, bus mastering, MSI. Follows the PCI Express Base Specification 5.0,
 * chapter 7; the chain is that of a real RX 7900 XTX (lspci of the CM4 test, geerlingguy #503).
 * That the card offers a function level reset is not known from there.
 */
#include "sim/priv.h"

#define COMMAND     0x04u
#define BAR0        0x10u
#define BAR2        0x18u
#define BAR4        0x20u
#define BAR5        0x24u
#define ROM         0x30u
#define PMCSR       0x54u
#define DEVCTL      0x6cu
#define LINK_CAPS   0x70u
#define LINK_STATUS 0x74u
#define MSI         0xa0u
#define REBAR       0x200u
#define REBAR_CTL   0x208u /* of BAR 0; BAR 2's follows 8 bytes later */

#define COMMAND_MEMORY     2u
#define COMMAND_BUS_MASTER 4u
#define PMCSR_STATE        3u
#define DEVCTL_FLR         0x8000u
#define MSI_ENABLE         0x10000u
#define REBAR_SIZE_SHIFT   8u
#define REBAR_SIZE         0x1f00u
#define BAR_64_PREFETCH    0xcu
#define FLR_NS             (100 * NS_PER_MS)

struct pci_word {
    u16 offset;
    u32 value, writable;
};

#define EXT_CAP(id, version, next) ((id) | (version) << 16 | (u32)(next) << 20)

// clang-format off
static const struct pci_word common_words[] = { /* of both functions */
    {0x04, 0x00100000, 0x00000547}, {0x0c, 0x00800000, 0x000000ff}, {0x34, 0x48, 0},
    {0x48, 0x00085009, 0},                                /* vendor specific, 8 bytes */
    {0x50, 0xf0036401, 0}, {PMCSR, 0x00000008, 0x8103},   /* power management 3, NoSoftRst */
    {0x64, 0x0012a010, 0},                                /* PCIe 2, legacy endpoint */
    {0x68, 0x10008fa1, 0},         /* 256 bytes, extended tag, role based errors, FLR */
    {DEVCTL, 0x00002810, 0xffff},  /* relaxed order, no snoop; 512-byte reads */
    {LINK_CAPS, 0x00400c00, 0}, {LINK_STATUS, 0x10000000, 0x0fff}, /* ASPM L1; slot clock */
    {0x88, 0x70739817, 0}, {0x8c, 0, 0xffff}, {0x90, 0x0180001e, 0}, {0x94, 0x00000004, 0xffff},
    {MSI, 0x00800005, 0x00010000}, {0xa4, 0, 0xfffffffc}, {0xa8, 0, 0xffffffff}, {0xac, 0, 0xffff},
    {0x3c, 0x00000100, 0xff},
    {0x100, EXT_CAP(0x0b, 1, 0x150), 0}, {0x104, 0x01010001, 0},
    {0x150, EXT_CAP(0x01, 2, 0x2a0), 0}, {0x158, 0, 0x7ff030}, {0x15c, 0x00462030, 0x7ff030},
    {0x164, 0x00002000, 0xf1c1}, {0x168, 0xa0, 0x540},    /* advanced error reporting */
    {0x2a0, EXT_CAP(0x0d, 1, 0), 0}, {0x2a4, 0, 0},       /* access control: nothing offered */
};
static const struct pci_word gpu_words[] = {
    {0x150, EXT_CAP(0x01, 2, REBAR), 0},
    {REBAR, EXT_CAP(0x15, 1, 0x240), 0}, {0x20c, 0x1fe0, 0},
    {0x240, EXT_CAP(0x04, 1, 0x270), 0}, {0x244, 0, 0xff},
    {0x270, EXT_CAP(0x19, 1, 0x2a0), 0}, {0x274, 0, 3},
    {0x2a0, EXT_CAP(0x0d, 1, 0x2d0), 0},
    {0x2d0, EXT_CAP(0x1b, 1, 0x320), 0}, {0x2d4, 0x1006, 0x00070000},
    {0x320, EXT_CAP(0x18, 1, 0x410), 0}, {0x324, 0, 0x1fff1fff},
    {0x410, EXT_CAP(0x26, 1, 0x450), 0}, {0x41c, 0x1f, 0},
    {0x450, EXT_CAP(0x27, 1, 0), 0},
};
// clang-format on

static u32 word_get(const struct pci_function *function, u32 offset)
{
    u32 value;

    memcpy(&value, function->space + offset, sizeof value);
    return value;
}

static void word_put(struct pci_function *function, const struct pci_word word)
{
    memcpy(function->space + word.offset, &word.value, sizeof word.value);
    memcpy(function->writable + word.offset, &word.writable, sizeof word.writable);
}

/* The address bits that a BAR of this size has; what is below reads as `flags`. */
static void bar_shape(struct pci_function *function, u16 offset, u64 bytes, u32 flags)
{
    u64 mask = ~(bytes - 1);
    u32 low = word_get(function, offset) & (u32)mask;

    word_put(function, (struct pci_word){offset, low | flags, (u32)mask});
    if (flags == BAR_64_PREFETCH) {
        u16 high = (u16)(offset + 4);
        u32 value = word_get(function, high) & (u32)(mask >> 32);
        word_put(function, (struct pci_word){high, value, (u32)(mask >> 32)});
    }
}

static u64 rebar_bytes(const struct pci_function *gpu, u32 control)
{
    return MIB << ((word_get(gpu, control) & REBAR_SIZE) >> REBAR_SIZE_SHIFT);
}

u64 pci_bar0_bytes(const struct sim *sim)
{
    return rebar_bytes(&sim->function[0], REBAR_CTL);
}

u64 pci_bar2_bytes(const struct sim *sim)
{
    return rebar_bytes(&sim->function[0], REBAR_CTL + 8);
}

static void bars_shape(struct sim *sim)
{
    struct pci_function *gpu = &sim->function[0];

    bar_shape(gpu, BAR0, pci_bar0_bytes(sim), BAR_64_PREFETCH);
    bar_shape(gpu, BAR2, pci_bar2_bytes(sim), BAR_64_PREFETCH);
    bar_shape(gpu, BAR4, 256, 1);
    bar_shape(gpu, BAR5, sim->profile->bar5_bytes, 0);
    bar_shape(gpu, ROM, 128 * KIB, 0);
    gpu->writable[ROM] |= 1;
    bar_shape(&sim->function[1], BAR0, 16 * KIB, 0);
}

static void words_put(struct pci_function *function, const struct pci_word *words, usize count)
{
    for (usize i = 0; i < count; i++)
        word_put(function, words[i]);
}

static u32 log2_mb(u64 mb)
{
    return 63u - (u32)__builtin_clzll(mb);
}

static void link_put(struct pci_function *function, const struct card_profile *profile)
{
    u32 caps = word_get(function, LINK_CAPS), status = word_get(function, LINK_STATUS);

    caps |= profile->link_speed_max | profile->link_width_max << 4;
    status |= (profile->link_speed | profile->link_width << 4) << 16;
    word_put(function, (struct pci_word){LINK_CAPS, caps, 0});
    word_put(function, (struct pci_word){LINK_STATUS, status, 0x0fff});
}

void pci_reset(struct sim *sim, enum reset_kind kind)
{
    const struct card_profile *profile = sim->profile;
    struct pci_function *gpu = &sim->function[0], *audio = &sim->function[1];

    if (kind == RESET_MODE1) { /* the link stays, the card forgets that it may be a master */
        gpu->space[COMMAND] &= (u8)~COMMAND_BUS_MASTER;
        return;
    }
    u64 offered = profile->bar0_sizes * MIB, least = offered & -offered;
    u64 asked = sim->options.bar0_bytes ? sim->options.bar0_bytes : least;
    u64 bar0 = kind == RESET_FUNCTION ? pci_bar0_bytes(sim)
               : asked <= offered     ? asked
                                      : MIB << log2_mb(profile->bar0_sizes);
    memset(sim->function, 0, sizeof sim->function);
    words_put(gpu, common_words, ARRAY_LEN(common_words));
    words_put(gpu, gpu_words, ARRAY_LEN(gpu_words));
    words_put(audio, common_words, ARRAY_LEN(common_words));
    u32 revision = profile->revision, vendor = profile->vendor;
    word_put(gpu, (struct pci_word){0, (u32)profile->device << 16 | vendor, 0});
    word_put(gpu, (struct pci_word){8, 0x03000000 | revision, 0});
    u32 subsystem = (u32)profile->subsystem << 16 | profile->subsystem_vendor;
    word_put(gpu, (struct pci_word){0x2c, subsystem, 0});
    word_put(gpu, (struct pci_word){REBAR + 4, profile->bar0_sizes << 4, 0});
    u32 control = 2u << 5 | log2_mb(bar0 / MIB) << REBAR_SIZE_SHIFT;
    word_put(gpu, (struct pci_word){REBAR_CTL, control, REBAR_SIZE});
    control = 2 | log2_mb(profile->bar2_mb) << REBAR_SIZE_SHIFT;
    word_put(gpu, (struct pci_word){REBAR_CTL + 8, control, REBAR_SIZE});
    u32 audio_id = (u32)profile->audio_device << 16 | vendor;
    word_put(audio, (struct pci_word){0, audio_id, 0});
    word_put(audio, (struct pci_word){8, 0x04030000, 0});
    word_put(audio, (struct pci_word){0x2c, audio_id, 0});
    word_put(audio, (struct pci_word){0x3c, 0x00000200, 0xff}); /* pin B */
    link_put(gpu, profile);
    link_put(audio, profile);
    bars_shape(sim);
}

/* ---- accesses ---- */

u32 pci_read(struct sim *sim, u32 function, u32 offset, u32 width)
{
    u32 value = ~0u;

    if (function >= ARRAY_LEN(sim->function))
        return value;
    if (offset % width != 0 || offset + width > sizeof sim->function[0].space) {
        sim_fail(sim, "config-shape", "read of %u bytes at %#x", width, offset);
        return value;
    }
    value = 0;
    memcpy(&value, sim->function[function].space + offset, width);
    return value;
}

static void rebar_write(struct sim *sim, u32 control, u32 before)
{
    struct pci_function *gpu = &sim->function[0];
    u32 size = (word_get(gpu, control) & REBAR_SIZE) >> REBAR_SIZE_SHIFT;

    if (!(word_get(gpu, control - 4) >> (size + 4) & 1)) {
        word_put(gpu, (struct pci_word){(u16)control, before, REBAR_SIZE});
        sim_fail(sim, "rebar-size", "2^%u MB is not offered", size);
    } else if (word_get(gpu, control) != before) {
        if (gpu->space[COMMAND] & COMMAND_MEMORY)
            sim_fail(sim, "rebar-while-decoding", "a BAR was resized with memory decoding on");
        bars_shape(sim);
    }
}

/* What a write starts, besides changing bits. `before` is the word's old value. */
static void word_written(struct sim *sim, u32 function, u32 word, u32 before)
{
    u32 value = word_get(&sim->function[function], word);

    if (word == DEVCTL && value & DEVCTL_FLR) {
        sim->function[function].space[DEVCTL + 1] &= (u8) ~(DEVCTL_FLR >> 8);
        if (function == 0)
            card_reset(sim, RESET_FUNCTION, FLR_NS);
    } else if (function == 0 && (word == REBAR_CTL || word == REBAR_CTL + 8)) {
        rebar_write(sim, word, before);
    }
}

void pci_write(struct sim *sim, u32 function, u32 offset, u32 width, u32 value)
{
    if (function >= ARRAY_LEN(sim->function))
        return;
    struct pci_function *f = &sim->function[function];
    if (offset % width != 0 || offset + width > sizeof f->space) {
        sim_fail(sim, "config-shape", "write of %u bytes at %#x", width, offset);
        return;
    }
    u32 before = word_get(f, offset & ~3u);
    for (u32 i = 0; i < width; i++) {
        u8 mask = f->writable[offset + i], byte = (u8)(value >> 8 * i);
        f->space[offset + i] = (u8)((f->space[offset + i] & ~mask) | (byte & mask));
    }
    word_written(sim, function, offset & ~3u, before);
}

/* ---- what it gates ---- */

bool pci_bus_master(const struct sim *sim)
{
    return sim->function[0].space[COMMAND] & COMMAND_BUS_MASTER;
}

bool pci_memory_space(const struct sim *sim)
{
    const struct pci_function *gpu = &sim->function[0];

    return gpu->space[COMMAND] & COMMAND_MEMORY && !(gpu->space[PMCSR] & PMCSR_STATE);
}

static bool dma_allowed(struct sim *sim, u64 bus)
{
    if (sim->stopped || sim->gone)
        return false;
    return pci_bus_master(sim) ||
           sim_fail(sim, "dma-without-bus-master", "to bus address %#lx", bus);
}

bool dma_read(struct sim *sim, u64 bus, void *out, u64 bytes)
{
    if (!dma_allowed(sim, bus))
        return false;
    return sim->host.dma_read(sim->host.ctx, bus, out, bytes) ||
           sim_fail(sim, "dma-unmapped", "read of %lu bytes at bus address %#lx", bytes, bus);
}

bool dma_write(struct sim *sim, u64 bus, const void *in, u64 bytes)
{
    if (!dma_allowed(sim, bus))
        return false;
    return sim->host.dma_write(sim->host.ctx, bus, in, bytes) ||
           sim_fail(sim, "dma-unmapped", "write of %lu bytes at bus address %#lx", bytes, bus);
}

u8 *dma_map(struct sim *sim, u64 bus, u64 *bytes)
{
    if (!dma_allowed(sim, bus) || !sim->host.dma_map)
        return NULL;
    return sim->host.dma_map(sim->host.ctx, bus, bytes);
}

void pci_msi(struct sim *sim)
{
    bool on = word_get(&sim->function[0], MSI) & MSI_ENABLE;

    if (on && pci_bus_master(sim) && sim->host.irq)
        sim->host.irq(sim->host.ctx, 0);
}
