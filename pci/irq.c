/*
 * irq.c: message-signalled interrupts: MSI-X entries, or one MSI message. Every entry is masked
 * until a driver asks for it. Follows: PCI Express Base 5.0, 7.7.1 (MSI), 7.7.2 (MSI-X); Intel SDM
 * volume 3, 11.11 (message address and data).
 */
#include "pci/pci.h"

#include "kernel/kernel.h"

#define CAP_MSI         0x05u
#define CAP_MSIX        0x11u
#define CONFIG_CAPS_END 256u

#define MSI_64          0x80u
#define MSI_MASKS       0x100u
#define MSI_ON          1u
#define MSI_MANY        0x70u
#define MSIX_ON         0x8000u
#define MSIX_ALL_MASKED 0x4000u
#define MSIX_COUNT      0x7ffu

enum msix_entry { ENTRY_ADDRESS = 0, ENTRY_DATA = 8, ENTRY_CONTROL = 12, ENTRY_BYTES = 16 };

/* A capability that fits into the first 256 bytes in whole; 0 otherwise. */
static u16 cap_at(const struct pci_dev *dev, u8 cap, u32 bytes)
{
    u16 at = pci_find_cap(dev, cap, 0);

    return at && at + bytes <= CONFIG_CAPS_END ? at : 0;
}

static u32 msix_entries(const struct pci_dev *dev, u16 at)
{
    return (mmio_read16(&dev->config, at + 2u) & MSIX_COUNT) + 1u;
}

u32 pci_vectors(const struct pci_dev *dev)
{
    u16 at = cap_at(dev, CAP_MSIX, 12);

    return at ? min_u32(msix_entries(dev, at), PCI_VECTORS_MAX) : cap_at(dev, CAP_MSI, 14) ? 1 : 0;
}

/* Maps the table and masks every entry before the first is used. */
static err open_table(struct pci_dev *dev, u16 at)
{
    u32 where = mmio_read32(&dev->config, at + 4u), entries = msix_entries(dev, at);
    u64 offset = where & ~7u, bytes = (u64)entries * ENTRY_BYTES;
    struct mmio bar;

    TRY(pci_map_bar(dev, where & 7, &bar));
    if (offset > bar.bytes || bytes > bar.bytes - offset) {
        log_error(dev->name, "MSI-X: want a table inside BAR %u of %lu bytes, saw %u at %lx",
                  where & 7, bar.bytes, entries, offset);
        return E_FORMAT;
    }
    dev->msix = mmio_part(&bar, offset, bytes);
    mmio_write16(&dev->config, at + 2u, MSIX_ON | MSIX_ALL_MASKED);
    for (u32 i = 0; i < entries; i++)
        mmio_write32(&dev->msix, (u64)i * ENTRY_BYTES + ENTRY_CONTROL, 1);
    mmio_write16(&dev->config, at + 2u, MSIX_ON);
    return OK;
}

static void msix_on(const struct pci_dev *dev, u32 idx, u8 vector)
{
    u64 entry = (u64)idx * ENTRY_BYTES;

    mmio_write32(&dev->msix, entry + ENTRY_ADDRESS, (u32)irq_message_address());
    mmio_write32(&dev->msix, entry + ENTRY_ADDRESS + 4, 0);
    mmio_write32(&dev->msix, entry + ENTRY_DATA, vector);
    mmio_write32(&dev->msix, entry + ENTRY_CONTROL, 0);
}

static void msi_on(const struct pci_dev *dev, u16 at, u8 vector)
{
    u16 control = mmio_read16(&dev->config, at + 2u);
    u32 data_at = at + (control & MSI_64 ? 12u : 8u);

    mmio_write32(&dev->config, at + 4u, (u32)irq_message_address());
    if (control & MSI_64)
        mmio_write32(&dev->config, at + 8u, 0);
    mmio_write16(&dev->config, data_at, vector);
    if (control & MSI_MASKS && data_at + 8 <= CONFIG_CAPS_END)
        mmio_write32(&dev->config, data_at + 4, 0);
    mmio_write16(&dev->config, at + 2u, (u16)((control & ~MSI_MANY) | MSI_ON));
}

err pci_vector_on(struct pci_dev *dev, u32 idx, void (*handler)(void *ctx), void *ctx)
{
    u16 msix = cap_at(dev, CAP_MSIX, 12);

    if (idx >= pci_vectors(dev))
        return E_UNSUPPORTED;
    if (msix && !dev->msix.bytes)
        TRY(open_table(dev, msix));
    if (!dev->vector[idx])
        TRY(irq_take(handler, ctx, &dev->vector[idx]));
    if (msix)
        msix_on(dev, idx, dev->vector[idx]);
    else
        msi_on(dev, cap_at(dev, CAP_MSI, 14), dev->vector[idx]);
    return OK;
}
