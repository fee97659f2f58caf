/*
 * describe.c: one line of the boot log per function, as lspci would say it. Knows class names, no
 * ids. Follows: PCI Code and ID Assignment 1.11, chapter 1.
 */
#include "pci/pci.h"

#define ANY 0xffu

static const struct {
    u8 class_code, subclass;
    const char *name;
} classes[] = {
    // clang-format off
    {0x01, 0x06, "SATA controller"},   {0x01, 0x08, "NVMe controller"},
    {0x01, ANY, "storage controller"}, {0x02, 0x00, "Ethernet"},
    {0x02, ANY, "network controller"}, {0x03, 0x00, "VGA display"},
    {0x03, ANY, "display"},            {0x04, ANY, "multimedia"},
    {0x05, ANY, "memory controller"},  {0x06, 0x00, "host bridge"},
    {0x06, 0x01, "ISA bridge"},        {0x06, 0x04, "PCI bridge"},
    {0x06, ANY, "bridge"},             {0x07, ANY, "communication"},
    {0x08, 0x06, "IOMMU"},             {0x08, ANY, "system peripheral"},
    {0x0c, 0x03, "USB controller"},    {0x0c, 0x05, "SMBus"},
    {0x0c, ANY, "serial bus"},         {0x0d, ANY, "wireless"},
    {0x10, ANY, "encryption"},         {0x11, ANY, "signal processing"},
    {0x12, ANY, "accelerator"},        {0xff, ANY, "unassigned class"},
    // clang-format on
};

static const char *class_name(const struct pci_dev *dev)
{
    for (u32 i = 0; i < ARRAY_LEN(classes); i++)
        if (classes[i].class_code == dev->class_code &&
            (classes[i].subclass == dev->subclass || classes[i].subclass == ANY))
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
