/*
 * describe.c: one line of the boot log per function, as lspci would say it. Knows class names, no
 * ids. Follows: PCI Code and ID Assignment 1.11, chapter 1.
 */
#include "pci/pci.h"

static const struct {
    u8 class_code, subclass; /* 0xff: any */
    const char *name;
} classes[] = {
    // clang-format off
    {1, 6, "SATA controller"},      {1, 8, "NVMe controller"},   {1, 0xff, "storage controller"},
    {2, 0, "Ethernet"},             {2, 0xff, "network"},        {3, 0, "VGA display"},
    {3, 0xff, "display"},           {4, 0xff, "multimedia"},     {5, 0xff, "memory controller"},
    {6, 0, "host bridge"},          {6, 1, "ISA bridge"},        {6, 4, "PCI bridge"},
    {6, 0xff, "bridge"},            {7, 0xff, "communication"},  {8, 6, "IOMMU"},
    {8, 0xff, "system peripheral"}, {12, 3, "USB controller"},   {12, 5, "SMBus"},
    {12, 0xff, "serial bus"},       {16, 0xff, "encryption"},    {18, 0xff, "accelerator"},
    // clang-format on
};

static const char *class_name(const struct pci_dev *dev)
{
    for (u32 i = 0; i < ARRAY_LEN(classes); i++)
        if (classes[i].class_code == dev->class_code &&
            (classes[i].subclass == dev->subclass || classes[i].subclass == 0xff))
            return classes[i].name;
    return "device";
}

static void put_bar(struct text *out, const struct pci_dev *dev, u32 idx)
{
    const char *unit = "BKMGTPE";
    u64 size = dev->bar[idx].bytes;

    for (; size >= KIB && size % KIB == 0; unit++)
        size /= KIB;
    if (size)
        text_fmt(out, ", BAR%u %s%lu%c at %lx", idx, dev->bar[idx].is_io ? "io " : "", size, *unit,
                 dev->bar[idx].base);
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
        put_bar(&line, dev, i);
    if (pci_vectors(dev))
        text_fmt(&line, ", %u vectors", pci_vectors(dev));
    put_link(&line, dev);
    log_info(dev->name, "%.*s", (int)line.len, line.ptr);
}
