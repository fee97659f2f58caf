/*
 * assign.c: memory addresses for BARs and bridge windows that the firmware has left without.
 * Nothing that has an address is moved. Places are taken inside the parent bridge's window; at a
 * root, below 4 GiB among what the firmware has placed there, for the root's own windows are known
 * only to ACPI byte code. Follows: PCI-to-PCI Bridge 1.2, 3.2.5.8 to 3.2.5.10; PCI Local
 * Bus 3.0, 6.2.5.
 */
#include "pci/pci.h"

#define ROOT_END    0xfec00000ull /* interrupt controllers and firmware lie above */
#define WINDOW_STEP (1 * MIB)
#define PASSES_MAX  1024u

enum bridge {
    B_MEMORY = 32,
    B_LIMIT = 34,
    B_PREFETCH = 36,
    B_PREFETCH_LIMIT = 38,
    B_HIGH = 40,
    B_HIGH_LIMIT = 44
};

struct window {
    u64 base, end;
}; /* closed when end <= base */

static struct window memory_window(const struct pci_dev *bridge)
{
    u64 base = mmio_read16(&bridge->config, B_MEMORY) & 0xfff0;
    u64 limit = mmio_read16(&bridge->config, B_LIMIT) & 0xfff0;

    return (struct window){base << 16, (limit << 16) + WINDOW_STEP};
}

static struct window prefetch_window(const struct pci_dev *bridge)
{
    u64 base = mmio_read16(&bridge->config, B_PREFETCH),
        limit = mmio_read16(&bridge->config, B_PREFETCH_LIMIT);
    bool is_64 = (base & 15) == 1;
    u64 high = is_64 ? (u64)mmio_read32(&bridge->config, B_HIGH) << 32 : 0;
    u64 high_limit = is_64 ? (u64)mmio_read32(&bridge->config, B_HIGH_LIMIT) << 32 : 0;

    return (struct window){high | (base & 0xfff0) << 16,
                           (high_limit | (limit & 0xfff0) << 16) + WINDOW_STEP};
}

static bool is_open(struct window w)
{
    return w.base && w.end > w.base;
}
static bool overlap(struct window a, struct window b)
{
    return is_open(b) && a.base < b.end && b.base < a.end;
}
static bool holds(struct window a, struct window b)
{
    return a.base <= b.base && b.end <= a.end;
}

static const struct pci_dev *parent_of(const struct pci_bus *bus, const struct pci_dev *dev)
{
    for (u32 i = 0; i < bus->dev_count; i++)
        if (bus->dev[i].is_bridge && bus->dev[i].segment == dev->segment &&
            bus->dev[i].secondary == dev->bus && bus->dev[i].bus != dev->bus)
            return &bus->dev[i];
    return NULL;
}

/* The end of something that `want` would run into, 0 when it is free. Windows around `within` are
 * its own ancestors. */
static u64 in_the_way(const struct pci_bus *bus, struct window want, struct window within)
{
    for (u32 i = 0; i < bus->dev_count; i++) {
        const struct pci_dev *dev = &bus->dev[i];
        for (u32 k = 0; k < PCI_BARS_MAX; k++) {
            struct window bar = {dev->bar[k].base, dev->bar[k].base + dev->bar[k].bytes};
            if (!dev->bar[k].is_io && overlap(want, bar))
                return bar.end;
        }
        struct window windows[2] = {};
        if (dev->is_bridge) {
            windows[0] = memory_window(dev);
            windows[1] = prefetch_window(dev);
        }
        for (u32 k = 0; k < 2; k++)
            if (overlap(want, windows[k]) && !holds(windows[k], within))
                return windows[k].end;
    }
    return 0;
}

static u64 find_gap(const struct pci_bus *bus, struct window within, u64 bytes, u64 align)
{
    u64 at = round_up(within.base, align), blocked;

    for (u32 pass = 0; pass < PASSES_MAX && at + bytes <= within.end; pass++) {
        blocked = in_the_way(bus, (struct window){at, at + bytes}, within);
        if (!blocked)
            return at;
        at = round_up(blocked, align);
    }
    return 0;
}

/* From the lowest address below 4 GiB that the firmware has given, up to the config window or
 * ROOT_END. */
static struct window root_window(const struct pci_bus *bus, const struct pci_ecam *ecam,
                                 u32 ecam_count)
{
    struct window w = {ROOT_END, ROOT_END};

    for (u32 i = 0; i < bus->dev_count; i++)
        for (u32 k = 0; k < PCI_BARS_MAX; k++)
            if (bus->dev[i].bar[k].base && !bus->dev[i].bar[k].is_io)
                w.base = min_u64(w.base, bus->dev[i].bar[k].base);
    for (u32 i = 0; i < ecam_count; i++)
        if (ecam[i].base > w.base)
            w.end = min_u64(w.end, ecam[i].base);
    return w;
}

static struct window window_for(const struct pci_bus *bus, const struct pci_dev *dev,
                                bool prefetchable, struct window root)
{
    const struct pci_dev *parent = parent_of(bus, dev);

    if (!parent)
        return root;
    struct window prefetch = prefetch_window(parent);
    return prefetchable && is_open(prefetch) ? prefetch : memory_window(parent);
}

/* A bridge whose window is shut while something behind it waits for an address. */
static void open_bridge(struct pci_bus *bus, struct pci_dev *bridge, struct window root)
{
    u64 bytes = 0, align = WINDOW_STEP;

    for (u32 i = 0; i < bus->dev_count; i++)
        for (u32 k = 0; k < PCI_BARS_MAX; k++) {
            const struct pci_bar *bar = &bus->dev[i].bar[k];
            bool behind = bus->dev[i].segment == bridge->segment &&
                          bus->dev[i].bus >= bridge->secondary &&
                          bus->dev[i].bus <= bridge->subordinate && bridge->secondary;
            if (!behind || !bar->bytes || bar->base || bar->is_io)
                continue;
            bytes += bar->bytes;
            align = max_u64(align, bar->bytes);
        }
    if (!bytes || is_open(memory_window(bridge)))
        return;
    bytes = round_up(bytes, align);
    u64 at = find_gap(bus, window_for(bus, bridge, false, root), bytes, align);
    if (!at || at + bytes > UINT32_MAX) {
        log_warn(bridge->name, "no place for a window of %lu KiB", bytes / KIB);
        return;
    }
    mmio_write16(&bridge->config, B_MEMORY, (u16)(at >> 16));
    mmio_write16(&bridge->config, B_LIMIT, (u16)((at + bytes - WINDOW_STEP) >> 16));
    log_info(bridge->name, "window of %lu KiB opened at %lx", bytes / KIB, at);
}

static void assign_bar(struct pci_bus *bus, struct pci_dev *dev, u32 idx, struct window root)
{
    struct pci_bar *bar = &dev->bar[idx];
    u64 align = max_u64(bar->bytes, 4 * KIB);
    u64 at = find_gap(bus, window_for(bus, dev, bar->prefetchable && bar->is_64, root), bar->bytes,
                      align);

    if (!at || (!bar->is_64 && at + bar->bytes > UINT32_MAX)) {
        log_warn(dev->name, "BAR %u: no place for %lu KiB", idx, bar->bytes / KIB);
        bar->bytes = 0;
        return;
    }
    bar->base = at;
    pci_write_bar(dev, idx);
    log_info(dev->name, "BAR %u: %lu KiB assigned at %lx", idx, bar->bytes / KIB, at);
}

void pci_assign(struct pci_bus *bus, const struct pci_ecam *ecam, u32 ecam_count)
{
    struct window root = root_window(bus, ecam, ecam_count);

    for (u32 i = 0; i < bus->dev_count;
         i++) /* bus order: a parent comes before what is behind it */
        if (bus->dev[i].is_bridge)
            open_bridge(bus, &bus->dev[i], root);
    for (u32 i = 0; i < bus->dev_count; i++)
        for (u32 k = 0; k < PCI_BARS_MAX; k++)
            if (bus->dev[i].bar[k].bytes && !bus->dev[i].bar[k].base && !bus->dev[i].bar[k].is_io)
                assign_bar(bus, &bus->dev[i], k, root);
}
