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

enum config_offset {
    C_VENDOR = 0,
    C_COMMAND = 4,
    C_CLASS = 8,
    C_HEADER = 14,
    C_BAR = 16,
    C_BUSES = 24,
    C_SUBSYSTEM = 44,
    C_CAPS = 52,
    C_EXT_CAPS = 256,
};

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

/* One window while it is walked. */
struct walk {
    struct pci_bus *bus;
    const struct pci_ecam *ecam;
    u8 *window; /* mapped; NULL with a device model */
};

static bool function_config(const struct walk *walk, struct pci_dev *dev)
{
    const struct pci_ecam *ecam = walk->ecam;
    u64 at =
        (u64)(dev->bus - ecam->bus_first) << 20 | (u64)dev->device << 15 | (u64)dev->function << 12;

    if (ecam->function)
        return ecam->function(ecam->ctx, dev->bus, dev->device, dev->function, &dev->config);
    dev->config = (struct mmio){.base = walk->window + at, .bytes = CONFIG_BYTES};
    return true;
}

static void read_ids(struct pci_dev *dev)
{
    u32 ids = mmio_read32(&dev->config, C_VENDOR), class_word = mmio_read32(&dev->config, C_CLASS);
    u32 subsystem = mmio_read32(&dev->config, C_SUBSYSTEM);

    dev->vendor = (u16)ids;
    dev->id = (u16)(ids >> 16);
    dev->revision = (u8)class_word;
    dev->prog_if = (u8)(class_word >> 8);
    dev->subclass = (u8)(class_word >> 16);
    dev->class_code = (u8)(class_word >> 24);
    dev->is_bridge = (mmio_read8(&dev->config, C_HEADER) & 0x7f) == 1;
    dev->subsystem_vendor = dev->is_bridge ? 0 : (u16)subsystem;
    dev->subsystem_id = dev->is_bridge ? 0 : (u16)(subsystem >> 16);
    if (dev->is_bridge) {
        dev->secondary = mmio_read8(&dev->config, C_BUSES + 1);
        dev->subordinate = mmio_read8(&dev->config, C_BUSES + 2);
    }
}

/* Adds a function to the list; false when nothing answers. */
static bool add_function(struct pci_bus *bus, struct pci_dev *place)
{
    u8 type = mmio_read8(&place->config, C_HEADER);
    u16 vendor = mmio_read16(&place->config, C_VENDOR);

    if (vendor == 0xffff || vendor == 0)
        return false;
    struct text name = TEXT_ON(place->name);
    text_fmt(&name, "%02x:%02x.%x", place->bus, place->device, place->function);
    if ((type & 0x7f) > 1) {
        log_warn(place->name, "header type %02x is unknown: left alone", type);
        return true;
    }
    read_ids(place);
    read_bars(place);
    place->home = bus;
    bus->dev_count++;
    return true;
}

static void walk_device(const struct walk *walk, u8 number, u8 device)
{
    struct pci_bus *bus = walk->bus;
    u32 functions = 1;

    for (u8 f = 0; f < functions && bus->dev_count < PCI_DEVICES_MAX; f++) {
        struct pci_dev *place = &bus->dev[bus->dev_count];
        *place = (struct pci_dev){
            .segment = walk->ecam->segment, .bus = number, .device = device, .function = f};
        if (function_config(walk, place) && add_function(bus, place) && f == 0 &&
            mmio_read8(&place->config, C_HEADER) & 0x80)
            functions = FUNCTIONS_MAX;
    }
}

static bool is_linked(const struct pci_bus *bus, u32 number)
{
    for (u32 i = 0; i < bus->dev_count; i++)
        if (bus->dev[i].is_bridge && bus->dev[i].secondary == number)
            return true;
    return false;
}

/* Machines with several roots do not link them by bridges, so every bus number is tried; but one
 * that nothing leads to counts as empty when there is no device 0 (8,000 reads take 20 ms in QEMU).
 */
static err walk_window(struct pci_bus *bus, const struct pci_ecam *ecam)
{
    u64 bytes = (u64)(ecam->bus_last - ecam->bus_first + 1) << 20;
    struct walk walk = {bus, ecam, NULL};

    if (!ecam->function)
        walk.window = vm_map_device((paddr){ecam->base}, bytes, VM_UNCACHED);
    if (!walk.window && !ecam->function)
        return E_NOMEM;
    for (u32 number = ecam->bus_first; number <= ecam->bus_last; number++) {
        u32 before = bus->dev_count;
        bool known = number == ecam->bus_first || is_linked(bus, number);
        walk_device(&walk, (u8)number, 0);
        for (u8 device = 1; device < DEVICES_PER_BUS && (known || bus->dev_count > before);
             device++)
            walk_device(&walk, (u8)number, device);
    }
    if (bus->dev_count == PCI_DEVICES_MAX)
        log_warn("pci", "more than %u functions: the rest is left out", PCI_DEVICES_MAX);
    return OK;
}

err pci_start(struct pci_bus *bus, const struct pci_ecam *ecam, u32 ecam_count)
{
    for (u32 i = 0; i < ecam_count; i++) {
        if (ecam[i].bus_last < ecam[i].bus_first) {
            log_warn("pci", "window %u: buses %u to %u make no sense", i, ecam[i].bus_first,
                     ecam[i].bus_last);
            continue;
        }
        TRY(walk_window(bus, &ecam[i]));
    }
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

struct pci_dev *pci_find_class(struct pci_bus *bus, const struct pci_dev *after, u8 class_code,
                               u8 subclass)
{
    for (u32 i = after ? (u32)(after - bus->dev) + 1 : 0; i < bus->dev_count; i++)
        if (bus->dev[i].class_code == class_code && bus->dev[i].subclass == subclass)
            return &bus->dev[i];
    return NULL;
}

err pci_map_bar(struct pci_dev *dev, u32 idx, struct mmio *out)
{
    const struct pci_bar *bar = idx < PCI_BARS_MAX ? &dev->bar[idx] : NULL;

    if (!bar)
        return E_RANGE;
    if (!bar->bytes || !bar->base || bar->is_io)
        return E_NOTFOUND;
    *out = (struct mmio){.base = vm_map_device((paddr){bar->base}, bar->bytes, VM_UNCACHED),
                         .bytes = bar->bytes};
    return out->base ? OK : E_NOMEM;
}

void pci_enable(struct pci_dev *dev, bool bus_master)
{
    u16 command = mmio_read16(&dev->config, C_COMMAND);

    command =
        (u16)((command & ~COMMAND_MASTER) | COMMAND_MEMORY | (bus_master ? COMMAND_MASTER : 0));
    mmio_write16(&dev->config, C_COMMAND, command);
}

err pci_reset_function(struct pci_dev *dev)
{
    u16 at = pci_find_cap(dev, PCI_CAP_EXPRESS, 0);

    if (!at || at > C_EXT_CAPS - 12 ||
        !(mmio_read32(&dev->config, at + EXPRESS_DEVICE_CAPS) & EXPRESS_CAN_RESET))
        return E_UNSUPPORTED;
    mmio_write16(&dev->config, C_COMMAND, COMMAND_NO_INTX);
    u16 control = mmio_read16(&dev->config, at + EXPRESS_DEVICE_CONTROL);
    mmio_write16(&dev->config, at + EXPRESS_DEVICE_CONTROL, control | EXPRESS_RESET);
    for (struct deadline end = deadline_ms(RESET_WAIT_MS); !deadline_passed(end);)
        cpu_relax();
    struct deadline end = deadline_ms(RESET_ANSWER_MS);
    while (mmio_read16(&dev->config, C_VENDOR) != dev->vendor && !deadline_passed(end))
        cpu_relax();
    if (mmio_read16(&dev->config, C_VENDOR) != dev->vendor) {
        log_error(dev->name, "after a reset: want vendor %04x, saw %04x", dev->vendor,
                  mmio_read16(&dev->config, C_VENDOR));
        return E_TIMEOUT;
    }
    for (u32 i = 0; i < PCI_BARS_MAX && !dev->is_bridge; i++)
        if (dev->bar[i].bytes)
            pci_write_bar(dev, i);
    mmio_write16(&dev->config, C_COMMAND, COMMAND_MEMORY | COMMAND_NO_INTX);
    return OK;
}
