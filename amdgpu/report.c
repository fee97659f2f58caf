/*
 * report.c: what a card says of itself, as one JSON object for people and for the simulated card's
 * profiles. Reads only: what a register does when it is read is known before it is on the list.
 * Must not know the driver's state beyond what it has found. Follows: docs/GPU.md, "report".
 */
#include "amdgpu/priv.h"

#define CAP_EXPRESS    0x10u
#define LINK_CAPS      12u
#define LINK_STATUS    18u
#define CAP_VENDOR_END 0x100u
#define CAP_RESIZABLE  0x15u

/* Reading these does something, needs a write first, or needs a queue to be selected. */
static bool is_safe(const struct gpu *gpu, enum reg reg)
{
    static const char *const unsafe[] = {"BIF_BX_PF0_MM_",  "BIF_BX_PF0_RSMU_", "MMVM_INVALIDATE",
                                         "GCVM_INVALIDATE", "COMPUTE_",         "CP_HQD_",
                                         "CP_MQD_",         "SQ_IND_"};

    for (u32 i = 0; i < ARRAY_LEN(unsafe); i++)
        if (str_starts(str_of(ip_row(reg)->name), str_of(unsafe[i])))
            return false;
    return (ip_index(gpu, reg) + 1ull) * 4 <= gpu->regs.bytes;
}

static void put_bus(const struct gpu *gpu, struct text *json)
{
    const struct pci_dev *dev = gpu->dev;
    u16 express = pci_find_cap(dev, CAP_EXPRESS, 0);

    text_fmt(json, "\"device\":\"%04x:%04x\",\"revision\":%u,\"subsystem\":\"%08x\",\"bars\":[",
             dev->vendor, dev->id, dev->revision, mmio_read32(&dev->config, 44));
    for (u32 i = 0; i < PCI_BARS_MAX; i++)
        text_fmt(json, "%s%lu", i ? "," : "", dev->bar[i].bytes);
    text_fmt(json, "]");
    u16 resizable = pci_find_ext_cap(dev, CAP_RESIZABLE); /* its first entry is BAR 0's */
    if (resizable)
        text_fmt(json, ",\"bar0_sizes\":%u", mmio_read32(&dev->config, resizable + 4u) >> 4);
    if (!express || express + LINK_STATUS + 2 > CAP_VENDOR_END)
        return;
    u32 caps = mmio_read32(&dev->config, express + LINK_CAPS);
    u32 link = mmio_read16(&dev->config, express + LINK_STATUS);
    text_fmt(json, ",\"link\":{\"speed\":%u,\"width\":%u,\"speed_max\":%u,\"width_max\":%u}",
             link & 15, link >> 4 & 63, caps & 15, caps >> 4 & 63);
}

static void put_blocks(const struct gpu *gpu, struct text *json)
{
    static const char *const name[REG_BLOCKS] = {"gc", "mmhub", "mp", "osssys", "nbio", "hdp"};

    text_fmt(json, ",\"vram_bytes\":%lu,\"compute_units\":%u,\"blocks\":{", gpu->vram_bytes,
             gpu->cu_count);
    for (u32 i = 0; i < REG_BLOCKS; i++) {
        u32 v = gpu->version[i];
        text_fmt(json, "%s\"%s\":{\"version\":\"%u.%u.%u\",\"bases\":[", i ? "," : "", name[i],
                 v >> 16, v >> 8 & 255, v & 255);
        for (u32 n = 0; n < gpu->segments[i]; n++)
            text_fmt(json, "%s%u", n ? "," : "", gpu->base[i][n]);
        text_fmt(json, "]}");
    }
    text_fmt(json, "},\"discovery\":\"");
    for (u32 i = 0; i < gpu->discovery_bytes; i++)
        text_fmt(json, "%02x", gpu->discovery[i]);
    text_fmt(json, "\"");
}

static void put_firmware(const struct gpu *gpu, struct text *json)
{
    bool more = false;

    text_fmt(json, ",\"firmware\":[");
    for (u32 i = 0; i < PSP_PIECES + gpu->piece_count; i++) {
        const struct piece *p = i < PSP_PIECES ? &gpu->boot[i] : &gpu->piece[i - PSP_PIECES];
        if (!p->bytes.len)
            continue;
        text_fmt(json, "%s{\"%s\":%u,\"version\":\"%x\",\"bytes\":%lu}", more ? "," : "",
                 i < PSP_PIECES ? "psp" : "type", p->kind, p->version, p->bytes.len);
        more = true;
    }
    text_fmt(json, "]");
}

void gpu_report(struct gpu *gpu, struct text *json)
{
    struct gpu_status status;
    bool more = false;

    gpu_status(gpu, &status);
    text_fmt(json, "{\"name\":\"%s\",\"chip\":\"%s\",\"step\":\"%s\",\"reason\":\"", gpu->name,
             gpu->chip ? gpu->chip->name : "", status.step);
    for (const char *c = status.reason; *c; c++)
        text_char(json, *c == '"' || *c == '\\' || *c < ' ' ? '\'' : *c);
    text_fmt(json,
             "\",\"recoveries\":%u,\"vram_free\":%lu,\"celsius\":%u,\"watts\":%u,"
             "\"gfx_mhz\":%u,\"memory_mhz\":%u,",
             status.recoveries, status.vram_free, status.celsius, status.watts, status.gfx_mhz,
             status.memory_mhz);
    put_bus(gpu, json);
    put_blocks(gpu, json);
    put_firmware(gpu, json);
    text_fmt(json, ",\"registers\":{");
    for (u32 i = 0; i < REG_COUNT && gpu->discovery_bytes && !gpu->gone; i++) {
        if (!is_safe(gpu, (enum reg)i))
            continue;
        text_fmt(json, "%s\"%s\":%u", more ? "," : "", ip_row((enum reg)i)->name,
                 ip_read(gpu, (enum reg)i));
        more = true;
    }
    text_fmt(json, "}}");
}
