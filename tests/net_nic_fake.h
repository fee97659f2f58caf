/*
 * net_nic_fake.h: a bus of one device for driver tests. A test includes this, then the driver's .c
 * file, so that the driver meets these functions instead of the real pci room.
 */
#ifndef NOHOST_TESTS_NET_NIC_FAKE_H
#define NOHOST_TESTS_NET_NIC_FAKE_H

#include "net/net.h"
#include "pci/pci.h"
#include "tests/host/platform.h"
#include "tests/test.h"

#define pci_find       fake_find
#define pci_map_bar    fake_map_bar
#define pci_find_cap   fake_find_cap
#define pci_enable     fake_enable
#define pci_vectors    fake_vectors
#define pci_vector_on  fake_vector_on
#define pci_vector_off fake_vector_off
#define dma_alloc      fake_dma_alloc

static struct {
    struct pci_dev dev;
    struct mmio bar[PCI_BARS_MAX];
    u8 config[256];
    u32 vectors;
    void (*handler)(void *ctx);
    void *handler_ctx;
    u32 dma_left; /* allocations that still succeed */
} bus_fake;

static u64 config_read(void *ctx, u64 offset, u32 width)
{
    u64 value = 0;

    (void)ctx;
    memcpy(&value, bus_fake.config + offset, width);
    return value;
}

static const struct mmio_ops config_ops = {.read = config_read};

static inline void bus_fake_reset(u16 vendor, u16 id)
{
    memset(&bus_fake, 0, sizeof bus_fake);
    bus_fake.dev = (struct pci_dev){.name = "00:01.0", .vendor = vendor, .id = id};
    bus_fake.dev.config = (struct mmio){.bytes = sizeof bus_fake.config, .ops = &config_ops};
    bus_fake.vectors = 1;
    bus_fake.dma_left = 100;
}

static inline struct pci_dev *fake_find(struct pci_bus *bus, const struct pci_dev *after,
                                        u16 vendor, u16 id)
{
    (void)bus;
    return !after && vendor == bus_fake.dev.vendor && id == bus_fake.dev.id ? &bus_fake.dev : NULL;
}

static inline err fake_map_bar(struct pci_dev *dev, u32 bar, struct mmio *out)
{
    (void)dev;
    *out = bus_fake.bar[bar];
    return out->bytes ? OK : E_NOTFOUND;
}

static inline u16 fake_find_cap(const struct pci_dev *dev, u8 cap, u16 after)
{
    u16 at = after ? bus_fake.config[after + 1] : bus_fake.config[0x34];

    (void)dev;
    while (at && bus_fake.config[at] != cap)
        at = bus_fake.config[at + 1];
    return at;
}

static inline void fake_enable(struct pci_dev *dev, bool bus_master)
{
    (void)dev, (void)bus_master;
}

static inline u32 fake_vectors(const struct pci_dev *dev)
{
    (void)dev;
    return bus_fake.vectors;
}

static inline err fake_vector_on(struct pci_dev *dev, u32 idx, void (*handler)(void *ctx),
                                 void *ctx)
{
    (void)dev, (void)idx;
    bus_fake.handler = handler;
    bus_fake.handler_ctx = ctx;
    return OK;
}

static inline void fake_vector_off(struct pci_dev *dev, u32 idx)
{
    (void)dev, (void)idx;
    bus_fake.handler = NULL;
}

static inline err fake_dma_alloc(struct pci_dev *dev, usize bytes, usize align, struct dma *out)
{
    (void)dev;
    if (!bus_fake.dma_left)
        return E_NOMEM;
    bus_fake.dma_left--;
    out->ptr = pages_alloc(round_up(bytes, align)); /* the tests end with the process */
    out->bytes = bytes;
    out->bus.v = (u64)(uintptr_t)out->ptr;
    memset(out->ptr, 0, bytes);
    return OK;
}

#endif
