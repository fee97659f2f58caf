/*
 * resize.c: Resizable BAR: one BAR of a function as large as it can be, with the bridges above it
 * and its other prefetchable BARs moved along. Where the root decodes is known only to ACPI byte
 * code, so a new place is tried, and left again when nothing answers there. Follows: PCI Express
 * Base 5.0, 7.8.6 (Resizable BAR); PCI-to-PCI Bridge 1.2, 3.2.5.9.
 */
#include "pci/pci.h"

#include "kernel/kernel.h"

#define CAP_RESIZABLE 0x15u
#define ENTRIES_MAX   6u
#define DEPTH_MAX     8u /* bridges above a function */
#define PROBE         0x5aa5c33cu

enum { RB_CAPS = 4, RB_CONTROL = 8, RB_STEP = 8, B_PREFETCH = 36, B_HIGH = 40 };
enum { C_COMMAND = 4, COMMAND_MEMORY = 2 };

struct prefetch { /* a bridge's window, as its registers hold it */
    u32 low, base_high, limit_high;
};

struct move {
    struct pci_dev *dev, *up[DEPTH_MAX]; /* nearest bridge first */
    u32 up_count, idx;
    u64 at, bytes, size; /* all that moves; of the one BAR */
};

/* Offset of this BAR's capability registers; 0: it is not resizable. */
static u32 entry_of(const struct pci_dev *dev, u32 idx)
{
    u32 at = pci_find_ext_cap(dev, CAP_RESIZABLE);
    u32 count = at ? mmio_read32(&dev->config, at + RB_CONTROL) >> 5 & 7 : 0;

    for (u32 i = 0; i < min_u32(count, ENTRIES_MAX); i++, at += RB_STEP)
        if ((mmio_read32(&dev->config, at + RB_CONTROL) & 7) == idx)
            return at;
    return 0;
}

static void write_size(const struct pci_dev *dev, u32 idx)
{
    u32 at = entry_of(dev, idx), step = 63 - (u32)__builtin_clzll(dev->bar[idx].bytes / MIB);

    if (at)
        mmio_write32(&dev->config, at + RB_CONTROL,
                     (mmio_read32(&dev->config, at + RB_CONTROL) & ~0x3f00u) | step << 8);
}

void pci_restore(const struct pci_dev *dev)
{
    for (u32 i = 0; i < PCI_BARS_MAX; i++)
        if (dev->bar[i].bytes >= MIB && !dev->bar[i].is_io)
            write_size(dev, i);
    for (u32 i = 0; i < PCI_BARS_MAX; i++)
        if (dev->bar[i].bytes)
            pci_write_bar(dev, i);
}

static bool moves(const struct pci_bar *bar)
{
    return bar->bytes && bar->is_64 && bar->prefetchable;
}

/* Finds the bridges above; false when something else behind the outermost one would have to move.
 */
static bool find_bridges(const struct pci_bus *bus, struct move *move)
{
    u8 below = move->dev->bus;

    for (u32 i = bus->dev_count; i-- > 0 && move->up_count < DEPTH_MAX;) {
        const struct pci_dev *up = &bus->dev[i];
        if (!up->is_bridge || up->secondary != below || up->bus == below ||
            up->segment != move->dev->segment)
            continue;
        move->up[move->up_count++] = (struct pci_dev *)up;
        below = up->bus;
        i = bus->dev_count;
    }
    for (u32 i = 0; i < bus->dev_count * PCI_BARS_MAX && move->up_count; i++) {
        const struct pci_dev *other = &bus->dev[i / PCI_BARS_MAX];
        const struct pci_dev *top = move->up[move->up_count - 1];
        if (other != move->dev && other->segment == top->segment && other->bus >= top->secondary &&
            other->bus <= top->subordinate && moves(&other->bar[i % PCI_BARS_MAX]))
            return false;
    }
    return true;
}

/* Behind everything that has a place above 4 GiB, and as far as this CPU can address. */
static u64 find_place(const struct pci_bus *bus, const struct move *move)
{
    u64 end = 4 * GIB;

    for (u32 i = 0; i < bus->dev_count; i++) {
        const struct pci_dev *dev = &bus->dev[i];
        for (u32 b = 0; b < PCI_BARS_MAX; b++)
            if (!dev->bar[b].is_io)
                end = max_u64(end, dev->bar[b].base + dev->bar[b].bytes);
        if (dev->is_bridge && (mmio_read16(&dev->config, B_PREFETCH) & 15) == 1)
            end =
                max_u64(end, (u64)mmio_read32(&dev->config, B_HIGH + 4) << 32 |
                                 ((mmio_read32(&dev->config, B_PREFETCH) >> 4 & 0xfff0000) + MIB));
    }
    u64 at = round_up(end, move->size), limit = 1ull << (cpu_id(0x80000008, 0).eax & 63);
    return at + move->bytes <= limit ? at : 0;
}

static struct prefetch read_window(const struct pci_dev *bridge)
{
    return (struct prefetch){mmio_read32(&bridge->config, B_PREFETCH),
                             mmio_read32(&bridge->config, B_HIGH),
                             mmio_read32(&bridge->config, B_HIGH + 4)};
}

static void write_window(const struct pci_dev *bridge, struct prefetch window)
{
    mmio_write32(&bridge->config, B_PREFETCH, window.low);
    mmio_write32(&bridge->config, B_HIGH, window.base_high);
    mmio_write32(&bridge->config, B_HIGH + 4, window.limit_high);
}

/* The one BAR first, the others behind it; every bridge gets the same window. */
static void apply(struct move *move)
{
    u64 next = move->at + move->size, last = move->at + move->bytes - MIB;
    struct prefetch window = {(u32)(last >> 16 & 0xfff0) << 16 | (u32)(move->at >> 16 & 0xfff0),
                              (u32)(move->at >> 32), (u32)(last >> 32)};

    for (u32 i = 0; i < PCI_BARS_MAX; i++) {
        struct pci_bar *bar = &move->dev->bar[i];
        if (!moves(bar))
            continue;
        bar->base = i == move->idx ? move->at : round_up(next, bar->bytes);
        if (i == move->idx)
            bar->bytes = move->size;
        else
            next = bar->base + bar->bytes;
    }
    for (u32 i = 0; i < move->up_count; i++)
        write_window(move->up[i], window);
}

/* Whether memory answers at the new place. */
static bool answers(const struct pci_dev *dev, u32 idx)
{
    struct mmio page = {.base = vm_map_device((paddr){dev->bar[idx].base}, PAGE_BYTES, VM_UNCACHED),
                        .bytes = PAGE_BYTES};

    if (!page.base)
        return false;
    mmio_write32(&page, 0, PROBE);
    bool same = mmio_read32(&page, 0) == PROBE;
    mmio_write32(&page, 0, ~PROBE);
    return same && mmio_read32(&page, 0) == ~PROBE;
}

err pci_resize_bar(struct pci_bus *bus, struct pci_dev *dev, u32 idx)
{
    struct move move = {.dev = dev, .idx = idx};
    struct prefetch before[DEPTH_MAX];
    struct pci_bar bars[PCI_BARS_MAX];
    u32 at = entry_of(dev, idx), sizes = at ? mmio_read32(&dev->config, at + RB_CAPS) >> 4 : 0;

    if (!sizes || !moves(&dev->bar[idx]))
        return E_UNSUPPORTED;
    move.size = MIB << (31 - __builtin_clz(sizes));
    if (dev->bar[idx].bytes >= move.size)
        return OK;
    for (u32 i = 0; i < PCI_BARS_MAX; i++)
        if (moves(&dev->bar[i]))
            move.bytes += 2 * (i == idx ? move.size / 2 : dev->bar[i].bytes);
    move.bytes = round_up(move.bytes, MIB);
    if (!find_bridges(bus, &move) || !(move.at = find_place(bus, &move)))
        return E_NOMEM;
    memcpy(bars, dev->bar, sizeof(bars));
    for (u32 i = 0; i < move.up_count; i++)
        before[i] = read_window(move.up[i]);
    u16 command = mmio_read16(&dev->config, C_COMMAND);
    mmio_write16(&dev->config, C_COMMAND, command & (u16)~COMMAND_MEMORY);
    apply(&move);
    pci_restore(dev);
    mmio_write16(&dev->config, C_COMMAND, command | COMMAND_MEMORY);
    bool good = answers(dev, idx);
    if (!good) {
        mmio_write16(&dev->config, C_COMMAND, command & (u16)~COMMAND_MEMORY);
        memcpy(dev->bar, bars, sizeof(bars));
        for (u32 i = 0; i < move.up_count; i++)
            write_window(move.up[i], before[i]);
        pci_restore(dev);
    }
    mmio_write16(&dev->config, C_COMMAND, command);
    log_info(dev->name, "BAR %u: %lu MiB at %lx%s", idx, move.size / MIB, move.at,
             good ? "" : " does not answer: stays where it was");
    return good ? OK : E_IO;
}
