/*
 * memory.c: the firmware's memory map as the kernel's range list, and the way out of the firmware.
 * Must not know what the ranges are used for. Follows: UEFI 2.10, 7.2 (memory map), 7.4
 * (ExitBootServices).
 */
#include "boot/boot.h"

#define LEAVE_TRIES_MAX 8u

/* Types beyond the table, and those not named in it, are no RAM of ours. */
static const u8 kinds[EfiMaxMemoryType] = {
    [EfiLoaderCode] = HANDOFF_FREE,         [EfiLoaderData] = HANDOFF_KEPT,
    [EfiBootServicesCode] = HANDOFF_FREE,   [EfiBootServicesData] = HANDOFF_FREE,
    [EfiConventionalMemory] = HANDOFF_FREE, [EfiRuntimeServicesCode] = HANDOFF_KEPT,
    [EfiACPIMemoryNVS] = HANDOFF_KEPT,      [EfiRuntimeServicesData] = HANDOFF_KEPT,
    [EfiACPIReclaimMemory] = HANDOFF_KEPT,
};

/* Joined with the one before where that is its neighbour: most firmware sorts its map. */
static void add_range(struct handoff_range range)
{
    struct handoff *handoff = boot.handoff;
    struct handoff_range *last = handoff->ranges + handoff->range_count - 1;

    if (handoff->range_count && last->kind == range.kind && last->base + last->bytes == range.base)
        last->bytes += range.bytes;
    else if (handoff->range_count < HANDOFF_RANGES_MAX)
        handoff->ranges[handoff->range_count++] = range;
    else
        stop("more than %u ranges of memory", HANDOFF_RANGES_MAX);
}

UINTN memory_map_read(void)
{
    UINTN bytes = MAP_BYTES, key, stride;
    UINT32 version;

    if (EFI_ERROR(boot.services->GetMemoryMap(&bytes, (EFI_MEMORY_DESCRIPTOR *)(void *)boot.map,
                                              &key, &stride, &version)))
        stop("the firmware tells no memory map of up to %u KiB", (u32)(MAP_BYTES / KIB));
    boot.handoff->range_count = 0;
    for (UINTN at = 0; at + stride <= bytes; at += stride) {
        const EFI_MEMORY_DESCRIPTOR *d = (const void *)(boot.map + at);
        if (d->Type < EfiMaxMemoryType && kinds[d->Type] && d->NumberOfPages)
            add_range((struct handoff_range){d->PhysicalStart, d->NumberOfPages * PAGE_BYTES,
                                             kinds[d->Type]});
    }
    return key;
}

void memory_map_leave(void)
{
    /* Leaving may itself change the map: then the key is stale, and the map is read anew. */
    for (u32 tries = 0; tries < LEAVE_TRIES_MAX; tries++)
        if (!EFI_ERROR(boot.services->ExitBootServices(boot.image, memory_map_read())))
            return;
    stop("the firmware does not let go (ExitBootServices)");
}
