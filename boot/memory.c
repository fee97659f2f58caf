/*
 * memory.c: the firmware's memory map as the kernel's range list, and the way out of the firmware.
 * Must not know what the ranges are used for. Follows: UEFI 2.10, 7.2 (memory map), 7.4
 * (ExitBootServices).
 */
#include "boot/boot.h"

#define MAP_BYTES       (256 * KIB)
#define LEAVE_TRIES_MAX 8u

/* Types beyond the table, and those not named in it, are no RAM of ours. */
static const u32 kinds[EfiMaxMemoryType] = {
    [EfiLoaderCode] = HANDOFF_FREE,
    [EfiLoaderData] = HANDOFF_KEPT, /* all that this loader hands on; files are cut out of it */
    [EfiBootServicesCode] = HANDOFF_FREE,
    [EfiBootServicesData] = HANDOFF_FREE,
    [EfiConventionalMemory] = HANDOFF_FREE,
    [EfiRuntimeServicesCode] = HANDOFF_RUNTIME,
    [EfiRuntimeServicesData] = HANDOFF_RUNTIME,
    [EfiACPIReclaimMemory] = HANDOFF_ACPI,
    [EfiACPIMemoryNVS] = HANDOFF_ACPI,
};

static bool same_owner(const struct handoff_range *a, const struct handoff_range *b)
{
    return a->kind == b->kind && a->file == b->file && a->base + a->bytes == b->base;
}

/* Inserts in order and joins neighbours; false when the table is full. */
static bool add_range(struct handoff *handoff, struct handoff_range range)
{
    struct handoff_range *at = handoff->ranges, *end = at + handoff->range_count;

    while (at < end && at->base < range.base)
        at++;
    if (at > handoff->ranges && same_owner(at - 1, &range)) {
        at[-1].bytes += range.bytes;
        return true;
    }
    if (handoff->range_count == HANDOFF_RANGES_MAX)
        return false;
    memmove(at + 1, at, (usize)(end - at) * sizeof(*at));
    *at = range;
    handoff->range_count++;
    return true;
}

/* Adds what of [base, end) is no file; files lie whole inside kept memory. */
static bool add_around_files(struct handoff *handoff, u64 base, u64 end, u32 kind)
{
    while (base < end) {
        u64 stop_at = end;
        const struct handoff_file *inside = NULL;
        for (u32 i = 0; i < handoff->file_count && kind == HANDOFF_KEPT; i++) {
            const struct handoff_file *f = &handoff->files[i];
            if (f->base >= base && f->base < stop_at) {
                stop_at = f->base;
                inside = f;
            }
        }
        if (stop_at > base &&
            !add_range(handoff, (struct handoff_range){base, stop_at - base, kind, 0}))
            return false;
        base = stop_at;
        if (!inside)
            continue;
        u64 bytes = round_up(max_u64(inside->bytes, 1), PAGE_BYTES);
        u32 idx = (u32)(inside - handoff->files);
        if (!add_range(handoff, (struct handoff_range){base, bytes, HANDOFF_FILE, idx}))
            return false;
        base += bytes;
    }
    return true;
}

static err translate(struct handoff *handoff, const u8 *map, UINTN bytes, UINTN stride)
{
    handoff->range_count = 0;
    for (UINTN at = 0; at + stride <= bytes; at += stride) {
        const EFI_MEMORY_DESCRIPTOR *d = (const void *)(map + at);
        u32 kind = d->Type < EfiMaxMemoryType ? kinds[d->Type] : 0;
        u64 end = d->PhysicalStart + d->NumberOfPages * PAGE_BYTES;
        if (!add_around_files(handoff, d->PhysicalStart, end, kind ? kind : HANDOFF_DEVICE))
            return E_LIMIT;
    }
    return OK;
}

/* A room for the map that the firmware takes back by itself. */
static void *map_room(const struct loader *loader)
{
    void *room = loader_pages(loader, EfiBootServicesData, MAP_BYTES, 0);

    if (!room)
        stop(loader, "no memory for the memory map");
    return room;
}

static err read_into(const struct loader *loader, void *room, UINTN *key)
{
    UINTN bytes = MAP_BYTES, stride;
    UINT32 version;

    if (EFI_ERROR(loader->services->GetMemoryMap(&bytes, room, key, &stride, &version)))
        return E_DEVICE;
    return translate(loader->handoff, room, bytes, stride);
}

err memory_map_read(const struct loader *loader, UINTN *key)
{
    return read_into(loader, map_room(loader), key);
}

err memory_map_leave(const struct loader *loader)
{
    void *room = map_room(loader);
    UINTN key;

    /* The map may change between reading it and leaving: then the key is stale, and it is read
     * anew. */
    for (u32 tries = 0; tries < LEAVE_TRIES_MAX; tries++) {
        TRY(read_into(loader, room, &key));
        if (!EFI_ERROR(loader->services->ExitBootServices(loader->image, key)))
            return OK;
    }
    return E_DEVICE;
}
