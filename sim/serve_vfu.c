/*
 * serve_vfu.c: the server's half of vfio-user, with which QEMU (10.1 or later, vfio-user-pci) has a
 * card whose process is another one. Follows: QEMU's docs/interop/vfio-user.rst, and linux/vfio.h
 * for what the messages carry. BAR 0 is mapped by the client, BAR 2 and 5 and config space are
 * asked for; memory for DMA comes with descriptors. Maps without one (ROM, the card's own BAR 0)
 * are accepted and left out: nothing answers there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim/serve.h"

#define DATA_MAX    MIB
#define MESSAGE_MAX (DATA_MAX + 4096)
#define VERSION_JSON                                                                               \
    "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576,"                         \
    "\"pgsizes\":4096,\"max_dma_maps\":65535,\"write_multiple\":true}}"

struct header {
    u16 id, command;
    u32 bytes, flags, error;
};
enum { FLAG_TYPE = 0xf, FLAG_REPLY = 1, FLAG_NO_REPLY = 0x10, FLAG_ERROR = 0x20 };

enum command {
    VERSION = 1,
    DMA_MAP,
    DMA_UNMAP,
    GET_INFO,
    GET_REGION_INFO,
    GET_REGION_IO_FDS,
    GET_IRQ_INFO,
    SET_IRQS,
    REGION_READ,
    REGION_WRITE,
    DMA_READ,
    DMA_WRITE,
    DEVICE_RESET,
    WRITE_MULTI = 15
};

struct access {
    u64 offset;
    u32 region, count;
};
struct multi_write {
    struct access access;
    u8 data[8];
};
struct dma_map {
    u32 argsz, flags;
    u64 offset, iova, bytes;
};
struct dma_unmap {
    u32 argsz, flags;
    u64 iova, bytes;
};
enum { DMA_READABLE = 1, DMA_WRITABLE = 2, UNMAP_ALL = 2 };

/* One message being answered. */
struct call {
    struct serve_client *client;
    struct header header;
    const void *body; /* aligned, at least as long as the command's row says */
    usize bytes;
};

static usize vfu_message_bytes(const u8 *header)
{
    struct header seen;

    memcpy(&seen, header, sizeof(seen));
    return seen.bytes < sizeof(seen) || seen.bytes > MESSAGE_MAX ? MESSAGE_BAD : seen.bytes;
}

static bool reply_with(const struct call *call, const void *body, usize bytes, int fd)
{
    u8 *out;
    struct header header = {call->header.id, call->header.command, (u32)(sizeof(header) + bytes),
                            FLAG_REPLY, 0};

    if (call->header.flags & FLAG_NO_REPLY)
        return true;
    out = malloc(header.bytes);
    if (!out)
        return false;
    memcpy(out, &header, sizeof(header));
    if (bytes)
        memcpy(out + sizeof(header), body, bytes);
    bool good = client_send(call->client, out, header.bytes, fd);
    free(out);
    return good;
}

static bool reply(const struct call *call, const void *body, usize bytes)
{
    return reply_with(call, body, bytes, -1);
}

static bool fail(const struct call *call, int error, const char *why)
{
    struct header header = {call->header.id, call->header.command, sizeof(header),
                            FLAG_REPLY | FLAG_ERROR, (u32)error};

    client_log(call->client, "vfio-user command %u: %s", call->header.command, why);
    return call->header.flags & FLAG_NO_REPLY ||
           client_send(call->client, &header, sizeof(header), -1);
}

/* ---- what the device is ---- */

static bool do_version(const struct call *call)
{
    u8 out[4 + sizeof(VERSION_JSON)];
    const u16 *asked = call->body; /* major, minor */
    u16 version[2] = {0, (u16)min_u32(asked[1], 1)};

    if (asked[0] != 0)
        return fail(call, EINVAL, "only version 0 is spoken");
    memcpy(out, version, sizeof(version));
    memcpy(out + sizeof(version), VERSION_JSON, sizeof(VERSION_JSON));
    return reply(call, out, sizeof(out));
}

static bool do_info(const struct call *call)
{
    u32 info[4] = {sizeof(info), VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
                   VFIO_PCI_NUM_REGIONS, VFIO_PCI_NUM_IRQS};

    return reply(call, info, sizeof(info));
}

static bool do_region_info(const struct call *call)
{
    const struct vfio_region_info *asked = call->body;
    struct vfio_region_info info = {.argsz = sizeof(info), .index = asked->index};

    if (info.index >= VFIO_PCI_NUM_REGIONS)
        return fail(call, EINVAL, "no such region");
    info.size = region_size(call->client->card->sim, info.index);
    if (info.size)
        info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    int fd = info.index == 0 ? sim_vram_fd(call->client->card->sim) : -1;
    if (fd < 0)
        return reply(call, &info, sizeof(info));
    /* The BAR is a power of two, the memory behind it need not be: what is more is trapped. */
    struct {
        struct vfio_region_info info;
        struct vfio_info_cap_header sparse;
        u32 area_count, reserved;
        struct vfio_region_sparse_mmap_area area;
    } with = {info, {VFIO_REGION_INFO_CAP_SPARSE_MMAP, 1, 0}, 1, 0, {}};
    with.area.size = min_u64(info.size, (u64)lseek(fd, 0, SEEK_END));
    with.info.flags |= VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
    with.info.argsz = sizeof(with);
    with.info.cap_offset = sizeof(info);
    /* The first question has no room for capabilities: the client asks again. */
    return asked->argsz < sizeof(with) ? reply(call, &with, sizeof(info))
                                       : reply_with(call, &with, sizeof(with), fd);
}

static bool do_irq_info(const struct call *call)
{
    struct vfio_irq_info info = *(const struct vfio_irq_info *)call->body;

    if (info.index >= VFIO_PCI_NUM_IRQS)
        return fail(call, EINVAL, "no such interrupt");
    info.argsz = sizeof(info);
    info.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
    info.count = info.index == VFIO_PCI_MSI_IRQ_INDEX || info.index == VFIO_PCI_REQ_IRQ_INDEX ||
                 info.index == VFIO_PCI_ERR_IRQ_INDEX;
    return reply(call, &info, sizeof(info));
}

/* Only the descriptor of the one MSI vector matters; the others are closed. */
static bool do_set_irqs(const struct call *call)
{
    struct serve_card *card = call->client->card;
    const struct vfio_irq_set *set = call->body;
    u32 trigger = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_EVENTFD;
    bool msi = set->index == VFIO_PCI_MSI_IRQ_INDEX;
    bool none = set->flags & VFIO_IRQ_SET_DATA_NONE && set->count == 0;

    if (set->index >= VFIO_PCI_NUM_IRQS || set->count > 1)
        return fail(call, EINVAL, "no such interrupt");
    int fd = (set->flags & trigger) == trigger ? client_take_fd(call->client) : -1;
    if (msi && (fd >= 0 || none)) {
        if (card->irq_fd >= 0)
            close(card->irq_fd);
        card->irq_fd = fd;
    } else if (fd >= 0)
        close(fd);
    return reply(call, NULL, 0);
}

/* ---- regions ---- */

static bool access_read(const struct call *call, struct region *region)
{
    const struct access *access = call->body;

    *region = (struct region){access->region, access->offset, access->count};
    return region->bytes <= DATA_MAX && region_fits(call->client->card->sim, region);
}

static bool do_region_read(const struct call *call)
{
    struct region region;

    if (!access_read(call, &region))
        return fail(call, EINVAL, "read outside the region");
    u8 *out = calloc(1, sizeof(struct access) + region.bytes);
    if (!out)
        return fail(call, ENOMEM, "no memory");
    memcpy(out, call->body, sizeof(struct access));
    region_access(call->client->card->sim, &region, out + sizeof(struct access), false);
    bool good = reply(call, out, sizeof(struct access) + region.bytes);
    free(out);
    return good;
}

static bool do_region_write(const struct call *call)
{
    struct region region;
    u8 *data = (u8 *)(uintptr_t)call->body + sizeof(struct access); /* is only read */

    if (!access_read(call, &region) || call->bytes - sizeof(struct access) < region.bytes)
        return fail(call, EINVAL, "write outside the region");
    region_access(call->client->card->sim, &region, data, true);
    return reply(call, call->body, sizeof(struct access));
}

static bool do_write_multi(const struct call *call)
{
    const u64 *count = call->body;
    const struct multi_write *one = (const void *)(count + 1);
    struct sim *sim = call->client->card->sim;

    if (*count > (call->bytes - sizeof(*count)) / sizeof(*one))
        return fail(call, EINVAL, "more writes than bytes");
    for (u64 i = 0; i < *count; i++) {
        struct region region = {one[i].access.region, one[i].access.offset, one[i].access.count};
        if (region.bytes > sizeof(one[i].data) || !region_fits(sim, &region))
            return fail(call, EINVAL, "write outside the region");
        region_access(sim, &region, (u8 *)(uintptr_t)one[i].data, true);
    }
    return reply(call, count, sizeof(*count));
}

/* ---- memory ---- */

static bool do_dma_map(const struct call *call)
{
    const struct dma_map *map = call->body;
    int fd = client_take_fd(call->client);
    struct memory_range range = {map->iova, map->bytes, MAP_FAILED, call->client->owner, false};

    if (fd < 0 || !(map->flags & DMA_WRITABLE)) { /* ROM, a BAR: no memory for DMA */
        if (fd >= 0)
            close(fd);
        return reply(call, NULL, 0);
    }
    if (map->bytes && (map->bytes | map->offset | map->iova) % SERVE_PAGE == 0)
        range.host =
            mmap(NULL, map->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)map->offset);
    close(fd);
    if (range.host == MAP_FAILED)
        return fail(call, EINVAL, "cannot map that memory");
    if (!memory_add(call->client->card->memory, range)) {
        munmap(range.host, map->bytes);
        return fail(call, ENOSPC, "overlapping or too many maps");
    }
    return reply(call, NULL, 0);
}

static bool do_dma_unmap(const struct call *call)
{
    const struct dma_unmap *unmap = call->body;
    bool all = unmap->flags & UNMAP_ALL;

    memory_remove(call->client->card->memory, call->client->owner, all ? 0 : unmap->iova,
                  all ? UINT64_MAX : unmap->bytes);
    return reply(call, unmap, sizeof(*unmap));
}

static bool do_reset(const struct call *call)
{
    sim_reset(call->client->card->sim);
    sim_wait(call->client->card->sim, RESET_WAIT_NS);
    return reply(call, NULL, 0);
}

/* ---- which is which ---- */

static const struct row {
    bool (*run)(const struct call *call);
    usize bytes; /* of the body, at least */
} rows[] = {
    [VERSION] = {do_version, 4},
    [DMA_MAP] = {do_dma_map, sizeof(struct dma_map)},
    [DMA_UNMAP] = {do_dma_unmap, sizeof(struct dma_unmap)},
    [GET_INFO] = {do_info, 0},
    [GET_REGION_INFO] = {do_region_info, sizeof(struct vfio_region_info)},
    [GET_IRQ_INFO] = {do_irq_info, sizeof(struct vfio_irq_info)},
    [SET_IRQS] = {do_set_irqs, sizeof(struct vfio_irq_set)},
    [REGION_READ] = {do_region_read, sizeof(struct access)},
    [REGION_WRITE] = {do_region_write, sizeof(struct access)},
    [DEVICE_RESET] = {do_reset, 0},
    [WRITE_MULTI] = {do_write_multi, sizeof(u64)},
};

static bool vfu_handle(struct serve_client *client, const u8 *message, usize bytes)
{
    struct call call = {client, *(const struct header *)message, message + sizeof(struct header),
                        bytes - sizeof(struct header)};
    u32 command = call.header.command;
    bool good;

    if ((call.header.flags & FLAG_TYPE) == FLAG_REPLY)
        return true; /* nothing is asked of the client, so nothing is waited for */
    if (command >= ARRAY_LEN(rows) || !rows[command].run)
        good = fail(&call, ENOTSUP, "not known");
    else if (call.bytes < rows[command].bytes)
        good = fail(&call, EINVAL, "too short");
    else
        good = rows[command].run(&call);
    while (client->fd_count)
        close(client_take_fd(client)); /* what came and was not wanted */
    return good;
}

static void vfu_gone(struct serve_client *client)
{
    if (client->card->irq_fd >= 0)
        close(client->card->irq_fd);
    client->card->irq_fd = -1;
    memory_remove(client->card->memory, client->owner, 0, UINT64_MAX);
}

const struct serve_protocol vfu_protocol = {sizeof(struct header), vfu_message_bytes, vfu_handle,
                                            vfu_gone};
