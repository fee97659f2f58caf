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
    const u8 *body;
    usize bytes; /* of the body */
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

/* Copies the fixed part of a request; false when it is shorter. */
static bool body_read(const struct call *call, void *out, usize bytes)
{
    if (call->bytes < bytes)
        return false;
    memcpy(out, call->body, bytes);
    return true;
}

/* ---- what the device is ---- */

static bool do_version(const struct call *call)
{
    u8 out[4 + sizeof(VERSION_JSON)];
    u16 version[2]; /* major, minor */

    if (!body_read(call, version, sizeof(version)) || version[0] != 0)
        return fail(call, EINVAL, "only version 0 is spoken");
    version[1] = (u16)min_u32(version[1], 1);
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
    struct vfio_region_info info;

    if (!body_read(call, &info, sizeof(info)) || info.index >= VFIO_PCI_NUM_REGIONS)
        return fail(call, EINVAL, "no such region");
    info = (struct vfio_region_info){.argsz = sizeof(info),
                                     .index = info.index,
                                     .size = region_size(call->client->card->sim, info.index)};
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
    u32 room;
    memcpy(&room, call->body, sizeof(room));
    /* The first question has no room for capabilities: the client asks again. */
    return room < sizeof(with) ? reply(call, &with, sizeof(info))
                               : reply_with(call, &with, sizeof(with), fd);
}

static bool do_irq_info(const struct call *call)
{
    struct vfio_irq_info info;

    if (!body_read(call, &info, sizeof(info)) || info.index >= VFIO_PCI_NUM_IRQS)
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
    struct vfio_irq_set set;
    u32 trigger = VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_EVENTFD;

    if (!body_read(call, &set, sizeof(set)) || set.index >= VFIO_PCI_NUM_IRQS || set.count > 1)
        return fail(call, EINVAL, "no such interrupt");
    bool msi = set.index == VFIO_PCI_MSI_IRQ_INDEX;
    bool none = set.flags & VFIO_IRQ_SET_DATA_NONE && set.count == 0;
    int fd = (set.flags & trigger) == trigger ? client_take_fd(call->client) : -1;
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
    struct access access;

    if (!body_read(call, &access, sizeof(access)))
        return false;
    *region = (struct region){access.region, access.offset, access.count};
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
    struct sim *sim = call->client->card->sim;
    struct multi_write one;
    u64 count;

    if (!body_read(call, &count, sizeof(count)) ||
        count > (call->bytes - sizeof(count)) / sizeof(one))
        return fail(call, EINVAL, "more writes than bytes");
    for (u64 i = 0; i < count; i++) {
        memcpy(&one, call->body + sizeof(count) + i * sizeof(one), sizeof(one));
        struct region region = {one.access.region, one.access.offset, one.access.count};
        if (region.bytes > sizeof(one.data) || !region_fits(sim, &region))
            return fail(call, EINVAL, "write outside the region");
        region_access(sim, &region, one.data, true);
    }
    return reply(call, &count, sizeof(count));
}

/* ---- memory ---- */

static bool do_dma_map(const struct call *call)
{
    struct dma_map map;
    int fd = client_take_fd(call->client);
    u8 *host = MAP_FAILED;

    if (!body_read(call, &map, sizeof(map)) || !map.bytes || map.bytes % SERVE_PAGE ||
        map.offset % SERVE_PAGE || map.bytes > (u64)1 << 46) {
        if (fd >= 0)
            close(fd);
        return fail(call, EINVAL, "bad map");
    }
    if (fd < 0 || !(map.flags & DMA_WRITABLE)) { /* ROM, a BAR: no memory for DMA */
        if (fd >= 0)
            close(fd);
        return reply(call, NULL, 0);
    }
    host = mmap(NULL, map.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)map.offset);
    close(fd);
    if (host == MAP_FAILED)
        return fail(call, errno, "cannot map that memory");
    struct memory_range range = {map.iova, map.bytes, host, call->client->owner, false};
    if (!memory_add(call->client->card->memory, range)) {
        munmap(host, map.bytes);
        return fail(call, ENOSPC, "overlapping or too many maps");
    }
    return reply(call, NULL, 0);
}

static bool do_dma_unmap(const struct call *call)
{
    struct dma_unmap unmap;

    if (!body_read(call, &unmap, sizeof(unmap)))
        return fail(call, EINVAL, "bad unmap");
    if (unmap.flags & UNMAP_ALL)
        memory_remove(call->client->card->memory, call->client->owner, 0, UINT64_MAX);
    else
        memory_remove(call->client->card->memory, call->client->owner, unmap.iova, unmap.bytes);
    return reply(call, &unmap, sizeof(unmap));
}

static bool do_reset(const struct call *call)
{
    sim_reset(call->client->card->sim);
    sim_wait(call->client->card->sim, RESET_WAIT_NS);
    return reply(call, NULL, 0);
}

/* ---- which is which ---- */

static bool vfu_handle(struct serve_client *client, const u8 *message, usize bytes)
{
    static bool (*const commands[])(const struct call *call) = {
        [VERSION] = do_version,           [DMA_MAP] = do_dma_map,
        [DMA_UNMAP] = do_dma_unmap,       [GET_INFO] = do_info,
        [GET_IRQ_INFO] = do_irq_info,     [GET_REGION_INFO] = do_region_info,
        [SET_IRQS] = do_set_irqs,         [REGION_READ] = do_region_read,
        [REGION_WRITE] = do_region_write, [DEVICE_RESET] = do_reset,
        [WRITE_MULTI] = do_write_multi,
    };
    struct call call = {client, {}, message + sizeof(struct header), bytes - sizeof(struct header)};

    memcpy(&call.header, message, sizeof(call.header));
    if ((call.header.flags & FLAG_TYPE) == FLAG_REPLY)
        return true; /* nothing is asked of the client, so nothing is waited for */
    bool known = call.header.command < ARRAY_LEN(commands) && commands[call.header.command];
    bool good = known ? commands[call.header.command](&call) : fail(&call, ENOTSUP, "not known");
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
