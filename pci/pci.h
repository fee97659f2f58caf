/*
 * pci.h: the bus as drivers see it: found devices, BARs as bounded `struct mmio`, capabilities,
 * vectors, DMA memory. Knows no driver. All device access goes through one ops table, so a driver
 * runs unchanged on silicon, in QEMU and in a host test linked with a device model. Facts: PCI
 * Express Base 5.0 chapter 7, PCI Firmware 3.3 section 4.1 (MCFG).
 */
#ifndef NOHOST_PCI_H
#define NOHOST_PCI_H

#include "kernel/base.h"

/* What a device is told: never a CPU address. */
typedef struct {
    u64 v;
} busaddr;

/* How registers are reached. `ctx` is the implementation's. Offsets are in bytes, naturally
 * aligned, width 1, 2, 4 or 8. */
struct mmio_ops {
    u64 (*read)(void *ctx, u64 offset, u32 width);
    void (*write)(void *ctx, u64 offset, u32 width, u64 value);
};

/* A bounded window of registers. `base` is set when plain volatile access will do (silicon, QEMU),
 * else ops are used. */
struct mmio {
    volatile u8 *base;
    u64 bytes;
    const struct mmio_ops *ops;
    void *ctx;
};

/* CHECKs the bounds. The only volatile device access of the project stands here. */
#define MMIO_ACCESS(bits)                                                                          \
    static inline u##bits mmio_read##bits(const struct mmio *m, u64 offset)                        \
    {                                                                                              \
        CHECK(offset + bits / 8 <= m->bytes);                                                      \
        if (m->base)                                                                               \
            return *(volatile u##bits *)(m->base + offset);                                        \
        return (u##bits)m->ops->read(m->ctx, offset, bits / 8);                                    \
    }                                                                                              \
    static inline void mmio_write##bits(const struct mmio *m, u64 offset, u##bits value)           \
    {                                                                                              \
        CHECK(offset + bits / 8 <= m->bytes);                                                      \
        if (m->base)                                                                               \
            *(volatile u##bits *)(m->base + offset) = value;                                       \
        else                                                                                       \
            m->ops->write(m->ctx, offset, bits / 8, value);                                        \
    }

MMIO_ACCESS(8)
MMIO_ACCESS(16)
MMIO_ACCESS(32)
MMIO_ACCESS(64)
#undef MMIO_ACCESS

/* A part of a window. CHECKs that it lies inside. */
static inline struct mmio mmio_part(const struct mmio *m, u64 offset, u64 bytes)
{
    CHECK(offset <= m->bytes && bytes <= m->bytes - offset);
    struct mmio part = *m;
    part.bytes = bytes;
    if (m->base)
        part.base = m->base + offset;
    else
        CHECK(offset == 0 || bytes == 0); /* a model exposes whole windows */
    return part;
}

#define PCI_BARS_MAX    6u
#define PCI_DEVICES_MAX 256u
#define PCI_VECTORS_MAX 32u /* that one device may use */

struct pci_bar {
    u64 base, bytes; /* bytes 0: no such BAR */
    bool is_io, is_64, prefetchable;
};

struct pci_dev {
    char name[16]; /* "00:02.0" */
    u16 segment;
    u8 bus, device, function;
    u16 vendor, id;
    u8 class_code, subclass, revision;
    bool is_bridge;
    u8 secondary, subordinate; /* bridges */
    struct pci_bar bar[PCI_BARS_MAX];
    struct mmio config;         /* 4096 bytes of ECAM */
    struct mmio msix;           /* the vector table, once a vector is on */
    u8 vector[PCI_VECTORS_MAX]; /* of the processor, taken once; 0: not yet */
};

/* All that was found, in bus order. */
struct pci_bus {
    struct pci_dev dev[PCI_DEVICES_MAX];
    u32 dev_count;
};

/* ---- pci.c ---- */

struct pci_ecam {
    u64 base; /* physical */
    u16 segment;
    u8 bus_first, bus_last;
    /* A device model's config space of one function (false: none); NULL on silicon, where `base` is
     * mapped. */
    bool (*function)(void *ctx, u8 bus, u8 device, u8 function, struct mmio *config);
    void *ctx;
};

/* Walks every window, sizes BARs, assigns bridge windows and BARs that firmware left empty, logs
 * lspci-like lines. */
err pci_start(struct pci_bus *bus, const struct pci_ecam *ecam, u32 ecam_count);
/* Next device with these ids after `after` (NULL: first); NULL when there is none. id 0xffff: any
 * of the vendor. */
struct pci_dev *pci_find(struct pci_bus *bus, const struct pci_dev *after, u16 vendor, u16 id);
/* Maps a memory BAR uncached. E_NOTFOUND, E_RANGE. */
err pci_map_bar(struct pci_dev *dev, u32 bar, struct mmio *out);
/* Offset of a capability in config space, 0 when absent. `after` 0: first. */
u16 pci_find_cap(const struct pci_dev *dev, u8 cap, u16 after);
u16 pci_find_ext_cap(const struct pci_dev *dev, u16 cap);
/* Memory decoding and bus mastering on or off. */
void pci_enable(struct pci_dev *dev, bool bus_master);
/* Function level reset, waits its 100 ms; E_UNSUPPORTED without the capability. */
err pci_reset_function(struct pci_dev *dev);

/* Memory that a device may reach: one contiguous run, zeroed, coherent on x86. */
struct dma {
    void *ptr;
    busaddr bus;
    usize bytes;
};

err dma_alloc(struct pci_dev *dev, usize bytes, usize align, struct dma *out);
/* All earlier writes are seen before all later ones, by devices too. */
static inline void dma_wmb(void)
{
    __asm__ volatile("sfence" ::: "memory");
}
static inline void dma_rmb(void)
{
    __asm__ volatile("lfence" ::: "memory");
}
static inline void dma_mb(void)
{
    __asm__ volatile("mfence" ::: "memory");
}

/* ---- irq.c: MSI and MSI-X. A handler runs with interrupts off and only sets a flag. ---- */

/* Vectors available: MSI-X entries (at most PCI_VECTORS_MAX), else 1 with MSI, else 0. */
u32 pci_vectors(const struct pci_dev *dev);
/* Routes vector `idx` to handler(ctx) and unmasks it. E_UNSUPPORTED, E_LIMIT (none left). */
err pci_vector_on(struct pci_dev *dev, u32 idx, void (*handler)(void *ctx), void *ctx);

/* ---- watchdog.c: resets a machine whose event loop has stopped turning ---- */

struct watchdog {
    const char *name;
    struct mmio registers;
};

/* Finds one (i6300ESB) and starts it; E_NOTFOUND. */
err watchdog_start(struct pci_bus *bus, u32 timeout_s, struct watchdog *watchdog);
void watchdog_feed(struct watchdog *watchdog); /* nothing when none was started */

/* ---- resize.c ---- */

/* Makes a BAR as large as the function offers, if there is room and it answers there. OK also when
 * it was. E_UNSUPPORTED, E_NOMEM, E_IO: it stays as it was. */
err pci_resize_bar(struct pci_bus *bus, struct pci_dev *dev, u32 idx);
/* Sizes and places of BARs again after the function has lost them. */
void pci_restore(const struct pci_dev *dev);

/* ---- what the files of this room share ---- */

#define PCI_CAP_EXPRESS 0x10u
void pci_write_bar(const struct pci_dev *dev, u32 idx);
void pci_assign(struct pci_bus *bus, const struct pci_ecam *ecam, u32 ecam_count);
void pci_describe(const struct pci_dev *dev);

#endif
