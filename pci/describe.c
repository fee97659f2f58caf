/*
 * describe.c: one line of the boot log per function, as lspci would say it. Knows class names, no
 * ids. Follows: PCI Code and ID Assignment 1.11, chapter 1.
 */
#include "pci/pci.h"

#define ANY 0xffu

static const struct {
    u16 kind; /* class, subclass */
    const char *name;
} classes[] = {
    // clang-format off
    {0x0106, "SATA controller"},   {0x0108, "NVMe controller"}, {0x01ff, "storage controller"},
    {0x0200, "Ethernet"},          {0x02ff, "network"},         {0x0300, "VGA display"},
    {0x03ff, "display"},           {0x04ff, "multimedia"},      {0x05ff, "memory controller"},
    {0x0600, "host bridge"},       {0x0601, "ISA bridge"},      {0x0604, "PCI bridge"},
    {0x06ff, "bridge"},            {0x07ff, "communication"},   {0x0806, "IOMMU"},
    {0x08ff, "system peripheral"}, {0x0c03, "USB controller"},  {0x0c05, "SMBus"},
    {0x0cff, "serial bus"},        {0x10ff, "encryption"},      {0x12ff, "accelerator"},
    // clang-format on
};

static const char *class_name(const struct pci_dev *dev)
{
    for (u32 i = 0; i < ARRAY_LEN(classes); i++)
        if (classes[i].kind >> 8 == dev->class_code &&
            ((classes[i].kind & ANY) == dev->subclass || (classes[i].kind & ANY) == ANY))
            return classes[i].name;
    return "device";
}

static void put_size(struct text *out, u64 bytes)
{
    static const char units[] = "BKMGTPE";
    u32 unit = 0;

    for (; bytes >= KIB && bytes % KIB == 0 && unit + 2 < sizeof(units); unit++)
        bytes /= KIB;
    text_fmt(out, "%lu%c", bytes, units[unit]);
}

/* Speed and width of the link as negotiated, and as both ends could do. */
static void put_link(struct text *out, const struct pci_dev *dev)
{
    u16 at = pci_find_cap(dev, PCI_CAP_EXPRESS, 0);

    if (!at || at > 256 - 20)
        return;
    u32 can = mmio_read32(&dev->config, at + 12u), is = mmio_read16(&dev->config, at + 18u);
    if (is & 0x3f0)
        text_fmt(out, ", link gen%u x%u of gen%u x%u", is & 15, is >> 4 & 63, can & 15,
                 can >> 4 & 63);
}

void pci_describe(const struct pci_dev *dev)
{
    char bytes[LOG_LINE_MAX];
    struct text line = TEXT_ON(bytes);

    text_fmt(&line, "%s %04x:%04x rev %02x", class_name(dev), dev->vendor, dev->id, dev->revision);
    if (dev->is_bridge)
        text_fmt(&line, ", buses %02x-%02x", dev->secondary, dev->subordinate);
    for (u32 i = 0; i < PCI_BARS_MAX; i++)
        if (dev->bar[i].bytes) {
            text_fmt(&line, ", BAR%u %s", i, dev->bar[i].is_io ? "io " : "");
            put_size(&line, dev->bar[i].bytes);
            text_fmt(&line, " at %lx", dev->bar[i].base);
        }
    if (pci_vectors(dev))
        text_fmt(&line, ", %u vectors", pci_vectors(dev));
    put_link(&line, dev);
    log_info(dev->name, "%.*s", (int)line.len, line.ptr);
}
