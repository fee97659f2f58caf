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

enum bridge { B_MEMORY = 32, B_PREFETCH = 36, B_HIGH = 40, B_HIGH_LIMIT = 44 };

struct window { /* shut when end <= base */
    u64 base, end;
};

struct assign {
    struct pci_bus *bus;
    struct window root;
};

/* One of a bridge's two windows. A window of 64 bits says so in its low bits. */
static struct window bridge_window(const struct pci_dev *bridge, enum bridge at)
{
    u64 base = mmio_read16(&bridge->config, at), limit = mmio_read16(&bridge->config, at + 2u);
    bool is_64 = at == B_PREFETCH && (base & 15) == 1;
    u64 high = is_64 ? mmio_read32(&bridge->config, B_HIGH) : 0;
    u64 high_limit = is_64 ? mmio_read32(&bridge->config, B_HIGH_LIMIT) : 0;

    return (struct window){high << 32 | (base & 0xfff0) << 16,
                           (high_limit << 32 | (limit & 0xfff0) << 16) + WINDOW_STEP};
}

/* What of the address space a function takes: its BARs, then the windows of a bridge. */
#define AREAS (PCI_BARS_MAX + 2)
static struct window area(const struct pci_dev *dev, u32 idx)
{
    if (idx >= PCI_BARS_MAX)
        return dev->is_bridge ? bridge_window(dev, idx == PCI_BARS_MAX ? B_MEMORY : B_PREFETCH)
                              : (struct window){};
    const struct pci_bar *bar = &dev->bar[idx];
    return bar->is_io ? (struct window){} : (struct window){bar->base, bar->base + bar->bytes};
}

static bool is_open(struct window w)
{
    return w.base && w.end > w.base;
}

static bool is_waiting(const struct pci_bar *bar)
{
    return bar->bytes && !bar->base && !bar->is_io;
}

/* The end of something that `want` would run into, 0 when it is free. Windows around `within` are
 * its own ancestors. */
static u64 in_the_way(const struct pci_bus *bus, struct window want, struct window within)
{
    for (u32 i = 0; i < bus->dev_count * AREAS; i++) {
        struct window a = area(&bus->dev[i / AREAS], i % AREAS);
        bool around = a.base <= within.base && within.end <= a.end;
        if (is_open(a) && a.base < want.end && want.base < a.end && !around)
            return a.end;
    }
    return 0;
}

/* A place for `bytes` where this function may have one; 0: none. */
static u64 find_gap(const struct assign *all, const struct pci_dev *dev, const struct pci_bar *want)
{
    struct window within = all->root;

    for (u32 i = 0; i < all->bus->dev_count; i++) {
        const struct pci_dev *up = &all->bus->dev[i];
        if (!up->is_bridge || up->segment != dev->segment || up->secondary != dev->bus ||
            up->bus == dev->bus)
            continue;
        struct window prefetch = bridge_window(up, B_PREFETCH);
        bool may = want->prefetchable && want->is_64 && is_open(prefetch);
        within = may ? prefetch : bridge_window(up, B_MEMORY);
        break;
    }
    u64 end = want->is_64 ? within.end : min_u64(within.end, UINT32_MAX);
    u64 align = max_u64(want->bytes & -want->bytes, 4 * KIB), at = round_up(within.base, align);
    for (u32 pass = 0; pass < PASSES_MAX && at + want->bytes <= end; pass++) {
        u64 blocked = in_the_way(all->bus, (struct window){at, at + want->bytes}, within);
        if (!blocked)
            return at;
        at = round_up(blocked, align);
    }
    log_warn(dev->name, "no place for %lu KiB", want->bytes / KIB);
    return 0;
}

/* From the lowest address below 4 GiB that the firmware has given, up to the config window or
 * ROOT_END. */
static struct window root_window(const struct pci_bus *bus, const struct pci_ecam *ecam,
                                 u32 ecam_count)
{
    struct window w = {ROOT_END, ROOT_END};

    for (u32 i = 0; i < bus->dev_count * PCI_BARS_MAX; i++) {
        struct window a = area(&bus->dev[i / PCI_BARS_MAX], i % PCI_BARS_MAX);
        if (is_open(a))
            w.base = min_u64(w.base, a.base);
    }
    for (u32 i = 0; i < ecam_count; i++)
        if (ecam[i].base > w.base)
            w.end = min_u64(w.end, ecam[i].base);
    return w;
}

/* A bridge whose window is shut while something behind it waits for an address. */
static void open_bridge(const struct assign *all, const struct pci_dev *bridge)
{
    struct pci_bar need = {};
    u64 align = WINDOW_STEP;

    for (u32 i = 0; i < all->bus->dev_count * PCI_BARS_MAX; i++) {
        const struct pci_dev *dev = &all->bus->dev[i / PCI_BARS_MAX];
        const struct pci_bar *bar = &dev->bar[i % PCI_BARS_MAX];
        if (!is_waiting(bar) || !bridge->secondary || dev->segment != bridge->segment ||
            dev->bus < bridge->secondary || dev->bus > bridge->subordinate)
            continue;
        need.bytes += bar->bytes;
        align = max_u64(align, bar->bytes);
    }
    if (!need.bytes || is_open(bridge_window(bridge, B_MEMORY)))
        return;
    need.bytes = round_up(need.bytes, align);
    u64 at = find_gap(all, bridge, &need);
    if (!at)
        return;
    mmio_write16(&bridge->config, B_MEMORY, (u16)(at >> 16));
    mmio_write16(&bridge->config, B_MEMORY + 2, (u16)((at + need.bytes - WINDOW_STEP) >> 16));
    log_info(bridge->name, "window of %lu KiB opened at %lx", need.bytes / KIB, at);
}

static void assign_bar(const struct assign *all, struct pci_dev *dev, u32 idx)
{
    struct pci_bar *bar = &dev->bar[idx];

    bar->base = find_gap(all, dev, bar);
    if (bar->base) {
        pci_write_bar(dev, idx);
        log_info(dev->name, "BAR %u: %lu KiB assigned at %lx", idx, bar->bytes / KIB, bar->base);
    } else {
        bar->bytes = 0;
    }
}

void pci_assign(struct pci_bus *bus, const struct pci_ecam *ecam, u32 ecam_count)
{
    const struct assign all = {bus, root_window(bus, ecam, ecam_count)};

    for (u32 i = 0; i < bus->dev_count; i++) /* a parent comes before what is behind it */
        if (bus->dev[i].is_bridge)
            open_bridge(&all, &bus->dev[i]);
    for (u32 i = 0; i < bus->dev_count * PCI_BARS_MAX; i++)
        if (is_waiting(&bus->dev[i / PCI_BARS_MAX].bar[i % PCI_BARS_MAX]))
            assign_bar(&all, &bus->dev[i / PCI_BARS_MAX], i % PCI_BARS_MAX);
}
