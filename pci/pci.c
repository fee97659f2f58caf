/*
 * pci.c: the walk over the bus: functions, sizes of their BARs, capabilities, and addresses for
 * what the firmware has left without. Everything a device says is checked: it may be broken or
 * hostile. Must not know a driver. Follows: PCI Express Base 5.0, 7.5 (config space), 6.6.2
 * (function reset); PCI Local Bus 3.0, 6.2.5.1 (sizing); PCI-to-PCI Bridge 1.2, 3.2.5 (windows).
 */
#include "pci/pci.h"

#include "kernel/kernel.h"

#define DEVICES_PER_BUS 32u
#define FUNCTIONS_MAX   8u
#define CONFIG_BYTES    4096u
#define CAPS_MAX        48u  /* (256 - 64) / 4: more steps are a loop */
#define EXT_CAPS_MAX    480u /* (4096 - 256) / 8 */
#define RESET_WAIT_MS   100u
#define RESET_ANSWER_MS 1000u

enum head { C_VENDOR = 0, C_COMMAND = 4, C_CLASS = 8, C_HEADER = 14, C_BAR = 16, C_BUSES = 24 };
enum head_caps { C_CAPS = 52, C_EXT_CAPS = 256 };

#define COMMAND_IO             1u
#define COMMAND_MEMORY         2u
#define COMMAND_MASTER         4u
#define COMMAND_NO_INTX        0x400u
#define STATUS_HAS_CAPS        0x10u
#define EXPRESS_DEVICE_CAPS    4u
#define EXPRESS_DEVICE_CONTROL 8u
#define EXPRESS_CAN_RESET      (1u << 28)
#define EXPRESS_RESET          (1u << 15)

/* ---- capabilities ---- */

u16 pci_find_cap(const struct pci_dev *dev, u8 cap, u16 after)
{
    bool found = after == 0;
    u8 at;

    if (!(mmio_read16(&dev->config, C_COMMAND + 2) & STATUS_HAS_CAPS))
        return 0;
    at = mmio_read8(&dev->config, C_CAPS) & 0xfc;
    for (u32 steps = 0; at >= 0x40 && steps < CAPS_MAX; steps++) {
        u16 head = mmio_read16(&dev->config, at);
        if (found && (head & 0xff) == cap)
            return at;
        found |= at == after;
        at = (u8)(head >> 8) & 0xfc;
    }
    return 0;
}

u16 pci_find_ext_cap(const struct pci_dev *dev, u16 cap)
{
    u32 at = C_EXT_CAPS;

    for (u32 steps = 0; at >= C_EXT_CAPS && steps < EXT_CAPS_MAX; steps++) {
        u32 head = mmio_read32(&dev->config, at);
        if (head == 0 || head == UINT32_MAX)
            return 0;
        if ((head & 0xffff) == cap)
            return (u16)at;
        at = head >> 20 & 0xffc;
    }
    return 0;
}

/* ---- BARs ---- */

static u64 bar_at(u32 idx)
{
    return C_BAR + 4 * idx;
}

/* What the writable bits of a BAR say about its size; decoding is off meanwhile. */
static u32 probe(const struct pci_dev *dev, u32 idx, u32 value)
{
    mmio_write32(&dev->config, bar_at(idx), UINT32_MAX);
    u32 bits = mmio_read32(&dev->config, bar_at(idx));
    mmio_write32(&dev->config, bar_at(idx), value);
    return bits;
}

/* Returns how many registers this BAR takes. A size that is no power of two is a lie: no BAR. */
static u32 read_bar(struct pci_dev *dev, u32 idx, u32 bars)
{
    struct pci_bar *bar = &dev->bar[idx];
    u32 low = mmio_read32(&dev->config, bar_at(idx)), high = 0;
    u64 mask = probe(dev, idx, low), flags = low & 1 ? 3 : 15;

    bar->is_io = low & 1;
    bar->is_64 = !bar->is_io && (low & 6) == 4;
    bar->prefetchable = !bar->is_io && low & 8;
    if (bar->is_64 && idx + 1 < bars) {
        high = mmio_read32(&dev->config, bar_at(idx + 1));
        mask |= (u64)probe(dev, idx + 1, high) << 32;
    } else if (bar->is_64) {
        log_warn(dev->name, "BAR %u says 64 bits and is the last one: ignored", idx);
        return 1;
    } else {
        mask |= bar->is_io && !(mask >> 16) ? 0xffffffffffff0000ull : 0xffffffff00000000ull;
    }
    bar->base = ((u64)high << 32 | low) & ~flags;
    bar->bytes = ~(mask & ~flags) + 1;
    if (!(u32)(mask & ~flags) && !bar->is_64)
        bar->bytes = 0;
    if (bar->bytes & (bar->bytes - 1)) {
        log_warn(dev->name, "BAR %u: want a power of two, saw mask %lx: ignored", idx, mask);
        bar->bytes = 0;
    }
    return bar->is_64 ? 2 : 1;
}

static void read_bars(struct pci_dev *dev)
{
    u32 bars = dev->is_bridge ? 2 : PCI_BARS_MAX;
    u16 command = mmio_read16(&dev->config, C_COMMAND);
    u16 quiet = command & (u16) ~(COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);

    mmio_write16(&dev->config, C_COMMAND, quiet | COMMAND_NO_INTX);
    for (u32 i = 0; i < bars;)
        i += read_bar(dev, i, bars);
    /* From here on no device but a bridge reaches memory until its driver asks for it. */
    u16 keep = (u16)(dev->is_bridge ? command | COMMAND_MASTER : command & (u16)~COMMAND_MASTER);
    mmio_write16(&dev->config, C_COMMAND, keep | COMMAND_NO_INTX);
}

void pci_write_bar(const struct pci_dev *dev, u32 idx)
{
    mmio_write32(&dev->config, bar_at(idx), (u32)dev->bar[idx].base);
    if (dev->bar[idx].is_64)
        mmio_write32(&dev->config, bar_at(idx + 1), (u32)(dev->bar[idx].base >> 32));
}

/* ---- the walk ---- */

/* On silicon: 4 KiB for each function, in order; `ctx` is where those of bus 0 would be. */
static bool mapped_function(void *ctx, u8 bus, u8 device, u8 function, struct mmio *config)
{
    u64 at = (u64)bus << 20 | (u64)device << 15 | (u64)function << 12;

    *config = (struct mmio){.base = (u8 *)ctx + at, .bytes = CONFIG_BYTES};
    return true;
}

/* Adds a function to the list; false when nothing answers. */
static bool add_function(struct pci_bus *bus, const struct pci_dev *found)
{
    struct pci_dev *dev = &bus->dev[bus->dev_count];
    u32 ids = mmio_read32(&found->config, C_VENDOR), kind = mmio_read32(&found->config, C_CLASS);
    u8 type = mmio_read8(&found->config, C_HEADER) & 0x7f;

    if ((u16)ids == 0xffff || (u16)ids == 0)
        return false;
    *dev = *found;
    struct text name = TEXT_ON(dev->name);
    text_fmt(&name, "%02x:%02x.%x", dev->bus, dev->device, dev->function);
    if (type > 1) {
        log_warn(dev->name, "header type %02x is unknown: left alone", type);
        return true;
    }
    dev->vendor = (u16)ids;
    dev->id = (u16)(ids >> 16);
    dev->revision = (u8)kind;
    dev->subclass = (u8)(kind >> 16);
    dev->class_code = (u8)(kind >> 24);
    dev->is_bridge = type == 1;
    if (dev->is_bridge) {
        dev->secondary = mmio_read8(&dev->config, C_BUSES + 1);
        dev->subordinate = mmio_read8(&dev->config, C_BUSES + 2);
    }
    read_bars(dev);
    bus->dev_count++;
    return true;
}

static void walk_device(struct pci_bus *bus, const struct pci_ecam *ecam, u8 number, u8 device)
{
    u8 functions = 1;

    for (u8 f = 0; f < functions && bus->dev_count < PCI_DEVICES_MAX; f++) {
        struct pci_dev dev = {
            .segment = ecam->segment, .bus = number, .device = device, .function = f};
        if (ecam->function(ecam->ctx, number, device, f, &dev.config) && add_function(bus, &dev) &&
            mmio_read8(&dev.config, C_HEADER) & 0x80)
            functions = FUNCTIONS_MAX;
    }
}

/* Machines with several roots do not link them by bridges, so every bus number is tried; but one
 * that nothing leads to counts as empty when there is no device 0 (8,000 reads take 20 ms in QEMU).
 */
static err walk_window(struct pci_bus *bus, struct pci_ecam ecam)
{
    if (!ecam.function) {
        u64 bytes = (u64)(ecam.bus_last - ecam.bus_first + 1) << 20;
        u8 *window = vm_map_device((paddr){ecam.base}, bytes, VM_UNCACHED);
        if (!window)
            return E_NOMEM;
        ecam.function = mapped_function;
        ecam.ctx = window - ((u64)ecam.bus_first << 20);
    }
    for (u32 number = ecam.bus_first; number <= ecam.bus_last; number++) {
        u32 before = bus->dev_count;
        bool known = number == ecam.bus_first;
        for (u32 i = 0; i < before; i++)
            known |= bus->dev[i].is_bridge && bus->dev[i].secondary == number;
        for (u8 d = 0; d < DEVICES_PER_BUS && (d == 0 || known || bus->dev_count > before); d++)
            walk_device(bus, &ecam, (u8)number, d);
    }
    if (bus->dev_count == PCI_DEVICES_MAX)
        log_warn("pci", "more than %u functions: the rest is left out", PCI_DEVICES_MAX);
    return OK;
}

err pci_start(struct pci_bus *bus, const struct pci_ecam *ecam, u32 ecam_count)
{
    for (u32 i = 0; i < ecam_count; i++)
        TRY(walk_window(bus, ecam[i]));
    pci_assign(bus, ecam, ecam_count);
    for (u32 i = 0; i < bus->dev_count; i++)
        pci_describe(&bus->dev[i]);
    return OK;
}

/* ---- for drivers ---- */

struct pci_dev *pci_find(struct pci_bus *bus, const struct pci_dev *after, u16 vendor, u16 id)
{
    for (u32 i = after ? (u32)(after - bus->dev) + 1 : 0; i < bus->dev_count; i++)
        if (bus->dev[i].vendor == vendor && (id == 0xffff || bus->dev[i].id == id))
            return &bus->dev[i];
    return NULL;
}

err pci_map_bar(struct pci_dev *dev, u32 idx, struct mmio *out)
{
    if (idx >= PCI_BARS_MAX)
        return E_RANGE;
    const struct pci_bar *bar = &dev->bar[idx];
    if (!bar->bytes || !bar->base || bar->is_io)
        return E_NOTFOUND;
    *out = (struct mmio){.base = vm_map_device((paddr){bar->base}, bar->bytes, VM_UNCACHED),
                         .bytes = bar->bytes};
    return out->base ? OK : E_NOMEM;
}

void pci_enable(struct pci_dev *dev, bool bus_master)
{
    u16 command = mmio_read16(&dev->config, C_COMMAND) & (u16)~COMMAND_MASTER;

    mmio_write16(&dev->config, C_COMMAND,
                 command | COMMAND_MEMORY | (bus_master ? COMMAND_MASTER : 0));
}

err dma_alloc(struct pci_dev *dev, usize bytes, usize align, struct dma *out)
{
    void *ptr = pages_alloc_aligned(bytes, max_u64(align, PAGE_BYTES));

    if (!ptr) {
        log_error(dev->name, "no memory for %lu bytes that the device can reach", bytes);
        return E_NOMEM;
    }
    *out = (struct dma){ptr, {vm_physical(ptr).v}, bytes}; /* an IOMMU would stand here */
    return OK;
}

/* Function level reset. What it loses comes back from what was found: BARs, not bus mastering. */
err pci_reset_function(struct pci_dev *dev)
{
    u16 at = pci_find_cap(dev, PCI_CAP_EXPRESS, 0);

    if (!at || at > C_EXT_CAPS - 12 ||
        !(mmio_read32(&dev->config, at + EXPRESS_DEVICE_CAPS) & EXPRESS_CAN_RESET))
        return E_UNSUPPORTED;
    mmio_write16(&dev->config, C_COMMAND, COMMAND_NO_INTX);
    u16 control = mmio_read16(&dev->config, at + EXPRESS_DEVICE_CONTROL);
    mmio_write16(&dev->config, at + EXPRESS_DEVICE_CONTROL, control | EXPRESS_RESET);
    struct deadline quiet = deadline_ms(RESET_WAIT_MS), end = deadline_ms(RESET_ANSWER_MS);
    while (!deadline_passed(quiet) ||
           (mmio_read16(&dev->config, C_VENDOR) != dev->vendor && !deadline_passed(end)))
        cpu_relax();
    u16 seen = mmio_read16(&dev->config, C_VENDOR);
    if (seen != dev->vendor) {
        log_error(dev->name, "after a reset: want vendor %04x, saw %04x", dev->vendor, seen);
        return E_TIMEOUT;
    }
    for (u32 i = 0; i < PCI_BARS_MAX && !dev->is_bridge; i++)
        if (dev->bar[i].bytes)
            pci_write_bar(dev, i);
    mmio_write16(&dev->config, C_COMMAND, COMMAND_MEMORY | COMMAND_NO_INTX);
    return OK;
}
