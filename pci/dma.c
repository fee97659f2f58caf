/*
 * dma.c: memory that devices reach: whole pages of RAM at their physical address. An IOMMU would
 * stand here, and nowhere else.
 */
#include "pci/pci.h"

#include "kernel/kernel.h"

err dma_alloc(struct pci_dev *dev, usize bytes, usize align, struct dma *out)
{
    void *ptr = pages_alloc_aligned(bytes, max_u64(align, PAGE_BYTES));

    if (!ptr) {
        log_error(dev->name, "no memory for %lu bytes that the device can reach", bytes);
        return E_NOMEM;
    }
    *out = (struct dma){ptr, {vm_physical(ptr).v}, bytes};
    return OK;
}

void dma_free(struct pci_dev *dev, struct dma *dma)
{
    (void)dev;
    pages_free(dma->ptr, dma->bytes);
    *dma = (struct dma){};
}
