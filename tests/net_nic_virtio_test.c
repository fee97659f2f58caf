/*
 * net_nic_virtio_test.c: the virtio-net driver against a device made of plain memory that follows
 * virtio 1.2, or breaks it on purpose.
 */
#include "tests/net_nic_fake.h"

#define nic_virtio_start nic_virtio_under_test
struct nic *nic_virtio_under_test(struct pci_bus *bus);
#include "net/nic_virtio.c"

enum { BAR_COMMON = 0, BAR_NOTIFY = 2, BAR_DEVICE = 4 };

static struct {
    u8 common[COMMON_BYTES], device[CONFIG_BYTES];
    u64 offered, accepted;
    u32 select, driver_select;
    u16 queue;
    struct fake_queue {
        u16 size_max, size, enabled, avail_seen, used_idx;
        u64 desc, driver, device;
        u32 notified;
    } q[2];
    bool reset_hangs, refuses_features;
    u32 resets;
} device;

static void queue_rings_set(struct fake_queue *q, u64 offset, u32 value)
{
    u64 *at = offset < QUEUE_DRIVER ? &q->desc : offset < QUEUE_DEVICE ? &q->driver : &q->device;
    u32 shift = offset % 8 ? 32 : 0;

    *at = (*at & ~(0xffffffffull << shift)) | (u64)value << shift;
}

static u64 common_read(void *ctx, u64 offset, u32 width)
{
    (void)ctx;
    switch (offset) {
    case DEVICE_FEATURE:
        return (u32)(device.offered >> (device.select ? 32 : 0));
    case DEVICE_STATUS:
        EXPECT_EQ(width, 1);
        return device.common[DEVICE_STATUS];
    case QUEUE_SIZE:
        return device.q[device.queue].size_max;
    case QUEUE_NOTIFY_OFF:
        return device.queue;
    default:
        return 0;
    }
}

static void common_write(void *ctx, u64 offset, u32 width, u64 value)
{
    struct fake_queue *q = &device.q[device.queue];

    (void)ctx, (void)width;
    if (offset == DEVICE_FEATURE_SELECT) {
        device.select = (u32)value;
    } else if (offset == DRIVER_FEATURE_SELECT) {
        device.driver_select = (u32)value;
    } else if (offset == DRIVER_FEATURE) {
        device.accepted |= value << (device.driver_select ? 32 : 0);
    } else if (offset == DEVICE_STATUS && value == 0) {
        device.resets++;
        device.accepted = 0;
        device.common[DEVICE_STATUS] = device.reset_hangs ? 7 : 0;
        for (u32 i = 0; i < 2; i++)
            device.q[i] = (struct fake_queue){.size_max = device.q[i].size_max};
    } else if (offset == DEVICE_STATUS) {
        device.common[DEVICE_STATUS] = (u8)value;
        if (device.refuses_features)
            device.common[DEVICE_STATUS] &= (u8)~FEATURES_OK;
    } else if (offset == QUEUE_SELECT) {
        device.queue = (u16)value;
    } else if (offset == QUEUE_SIZE) {
        q->size = (u16)value;
    } else if (offset >= QUEUE_DESC) {
        queue_rings_set(q, offset, (u32)value);
    } else if (offset == QUEUE_ENABLE) {
        q->enabled = (u16)value;
    }
}

static void notify_write(void *ctx, u64 offset, u32 width, u64 value)
{
    (void)ctx;
    EXPECT_EQ(width, 2);
    EXPECT_EQ(offset, value * 4);
    device.q[value].notified++;
}

static u64 device_read(void *ctx, u64 offset, u32 width)
{
    u64 value = 0;

    (void)ctx;
    memcpy(&value, device.device + offset, width);
    return value;
}

static const struct mmio_ops common_ops = {common_read, common_write};
static const struct mmio_ops notify_ops = {NULL, notify_write};
static const struct mmio_ops device_ops = {device_read, NULL};

static void capability(u8 at, u8 next, u8 kind, u8 bar, u32 bytes)
{
    u8 *cap = bus_fake.config + at;

    memcpy(cap, (u8[]){CAP_VENDOR, next, 20, kind, bar}, 5);
    memcpy(cap + CAP_LENGTH, &bytes, 4);
    memcpy(cap + CAP_MULTIPLIER, (u8[]){4}, 1);
    bus_fake.dev.bar[bar].bytes = bytes;
}

static void device_new(void)
{
    memset(&device, 0, sizeof device);
    bus_fake_reset(VIRTIO_VENDOR, VIRTIO_NET);
    bus_fake.config[0x34] = 0x40;
    capability(0x40, 0x60, COMMON, BAR_COMMON, COMMON_BYTES);
    capability(0x60, 0x80, NOTIFY, BAR_NOTIFY, 8);
    capability(0x80, 0, DEVICE, BAR_DEVICE, CONFIG_BYTES);
    bus_fake.bar[BAR_COMMON] = (struct mmio){.bytes = COMMON_BYTES, .ops = &common_ops};
    bus_fake.bar[BAR_NOTIFY] = (struct mmio){.bytes = 8, .ops = &notify_ops};
    bus_fake.bar[BAR_DEVICE] = (struct mmio){.bytes = CONFIG_BYTES, .ops = &device_ops};
    device.offered = F_WANTED | 1ull << 28; /* and something that we do not know */
    device.q[0].size_max = device.q[1].size_max = 64;
    memcpy(device.device, "\x52\x54\0\1\2\3\1\0", 8);
}

static struct nic *started(void)
{
    device_new();
    struct nic *nic = nic_virtio_under_test(NULL);
    EXPECT(nic != NULL);
    return nic;
}

/* The device takes the next buffer that the driver offers; false when there is none. */
static bool device_pop(struct fake_queue *q, u16 *id)
{
    const struct avail *avail = (const struct avail *)(uintptr_t)q->driver;

    if (q->avail_seen == avail->idx)
        return false;
    *id = avail->ring[q->avail_seen++ % q->size];
    return true;
}

static u8 *device_buffer(struct fake_queue *q, u16 id)
{
    return (u8 *)(uintptr_t)((const struct desc *)(uintptr_t)q->desc)[id].address;
}

static void device_push(struct fake_queue *q, u32 id, u32 len)
{
    struct used *used = (struct used *)(uintptr_t)q->device;

    used->ring[q->used_idx++ % q->size] = (struct used_entry){id, len};
    used->idx = q->used_idx;
}

/* A frame of `parts` buffers, `bytes` in each; all bytes are `fill`. */
static void device_receives(u8 flags, u16 parts, u32 bytes, u8 fill)
{
    struct fake_queue *q = &device.q[0];
    struct header header = {.flags = flags, .buffer_count = parts};

    for (u16 i = 0; i < parts; i++) {
        u16 id;
        EXPECT(device_pop(q, &id));
        u32 skip = i ? 0 : (u32)sizeof header;
        memcpy(device_buffer(q, id), &header, skip);
        memset(device_buffer(q, id) + skip, fill, bytes);
        device_push(q, id, skip + bytes);
    }
}

static void expect_frame(struct nic *nic, u32 len, u8 fill, bool good)
{
    struct nic_frame frame;

    EXPECT(nic->ops->rx(nic, &frame));
    EXPECT_EQ(frame.len, len);
    for (u32 i = 0; i < len; i++)
        EXPECT_EQ(frame.data[i], fill);
    EXPECT_EQ(frame.checksum_good, good);
}

/* Guards: the start of virtio 1.2, 3.1.1: what is agreed, which address, both queues on, interrupts
 * off. */
TEST(net_nic_virtio_starts)
{
    struct nic *nic = started();

    EXPECT_EQ(device.accepted, F_WANTED);
    EXPECT_EQ(device.common[DEVICE_STATUS], ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    EXPECT(memcmp(nic->mac, "\x52\x54\0\1\2\3", 6) == 0);
    EXPECT(nic->tx_checksum && nic->has_irq && nic->ops->link_up(nic));
    EXPECT(device.q[0].enabled && device.q[1].enabled);
    EXPECT_EQ(device.q[0].size, 64);
    EXPECT_EQ(device.q[0].notified, 1);
    EXPECT_EQ(((struct avail *)(uintptr_t)device.q[0].driver)->flags, AVAIL_NO_INTERRUPT);
    nic->ops->irq(nic, true);
    EXPECT_EQ(((struct avail *)(uintptr_t)device.q[0].driver)->flags, 0);
    device.device[CONFIG_STATUS] = 0;
    EXPECT(!nic->ops->link_up(nic));
    EXPECT(bus_fake.handler == nic_interrupted);
}

/* Guards: a device that cannot be used gives no card, and no hang. */
TEST(net_nic_virtio_refuses_unusable_devices)
{
    device_new();
    device.offered &= ~F_VERSION_1;
    EXPECT(!nic_virtio_under_test(NULL));
    device_new();
    device.offered &= ~F_MAC;
    EXPECT(!nic_virtio_under_test(NULL));
    device_new();
    device.refuses_features = true;
    EXPECT(!nic_virtio_under_test(NULL));
    device_new();
    device.reset_hangs = true;
    EXPECT(!nic_virtio_under_test(NULL));
    device_new();
    device.q[1].size_max = 0;
    EXPECT(!nic_virtio_under_test(NULL));
    device_new();
    capability(0x60, 0x80, NOTIFY, BAR_NOTIFY, 5); /* queue 1 notifies at 4 */
    bus_fake.bar[BAR_NOTIFY].bytes = 5;
    EXPECT(!nic_virtio_under_test(NULL));
    device_new();
    bus_fake.dev.bar[BAR_COMMON].bytes = COMMON_BYTES - 1; /* a window beyond its BAR */
    EXPECT(!nic_virtio_under_test(NULL));
    device_new();
    bus_fake.config[0x81] = 0x40; /* capabilities in a circle */
    EXPECT(nic_virtio_under_test(NULL) != NULL);
    for (u32 n = 0; n < 2; n++) {
        device_new();
        bus_fake.dma_left = n;
        EXPECT(!nic_virtio_under_test(NULL));
    }
    device_new();
    bus_fake.dev.id = 0x1042; /* a disk */
    EXPECT(!nic_virtio_under_test(NULL));
}

/* Guards: frames of one and of several buffers, their checksum marks, and that buffers go back for
 * ever. */
TEST(net_nic_virtio_receives)
{
    struct nic *nic = started();
    struct nic_frame frame;

    EXPECT(!nic->ops->rx(nic, &frame));
    for (u32 round = 0; round < 1000; round++) {
        device_receives(round % 2 ? HEADER_DATA_VALID : 0, 1, 60, (u8)round);
        device_receives(HEADER_NEEDS_CSUM, 2, 700, 7);
        device_receives(0, 3, 700, 8); /* longer than Ethernet allows */
        device_receives(0, 1, NIC_FRAME_MAX, 9);
        expect_frame(nic, 60, (u8)round, round % 2);
        expect_frame(nic, 1400, 7, true);
        expect_frame(nic, 0, 0, false);
        expect_frame(nic, NIC_FRAME_MAX, 9, false);
        EXPECT(!nic->ops->rx(nic, &frame));
    }
    EXPECT(!nic->failed);
    EXPECT_EQ(device.q[0].notified, 4001);
}

/* Guards: a device that asks for no doorbells gets none. */
TEST(net_nic_virtio_spares_doorbells)
{
    struct nic *nic = started();

    ((struct used *)(uintptr_t)device.q[1].device)->flags = USED_NO_NOTIFY;
    EXPECT_OK(nic->ops->tx(nic, STR("frame"), 0));
    EXPECT_EQ(device.q[1].notified, 0);
    ((struct used *)(uintptr_t)device.q[1].device)->flags = 0;
    EXPECT_OK(nic->ops->tx(nic, STR("frame"), 0));
    EXPECT_EQ(device.q[1].notified, 1);
}

/* Guards: what is sent, the checksum request in its header, a full ring, and that sent buffers come
 * back. */
TEST(net_nic_virtio_sends)
{
    struct nic *nic = started();
    struct header header;
    u16 id;

    EXPECT_OK(nic->ops->tx(nic, STR("hello"), 34));
    EXPECT(device_pop(&device.q[1], &id));
    memcpy(&header, device_buffer(&device.q[1], id), sizeof header);
    EXPECT(header.flags == HEADER_NEEDS_CSUM && header.csum_start == 34 &&
           header.csum_offset == 16);
    EXPECT(memcmp(device_buffer(&device.q[1], id) + sizeof header, "hello", 5) == 0);
    EXPECT_EQ(((struct desc *)(uintptr_t)device.q[1].desc)[id].len, 17);
    device_push(&device.q[1], id, 0);
    for (u32 i = 0; i < 64; i++)
        EXPECT_OK(nic->ops->tx(nic, STR("more"), 0));
    EXPECT_EQ(nic->ops->tx(nic, STR("too much"), 0), E_BUSY);
    EXPECT(device_pop(&device.q[1], &id));
    device_push(&device.q[1], id, 0);
    EXPECT_OK(nic->ops->tx(nic, STR("room again"), 0));
    EXPECT_EQ(device.resets, 1);
}

/* Every way to lie in the used ring of the receive queue. */
static void lie(u32 kind)
{
    struct fake_queue *q = &device.q[0];
    struct used *used = (struct used *)(uintptr_t)q->device;
    struct header header = {.buffer_count = 1};
    u16 id;

    EXPECT(device_pop(q, &id));
    if (kind == 4)
        header.buffer_count = 0;
    if (kind == 5)
        header.buffer_count = 65;
    if (kind == 7)
        header.buffer_count = 2; /* and there is one */
    memcpy(device_buffer(q, id), &header, sizeof header);
    if (kind == 0)
        used->idx = 65; /* more than it was given */
    else if (kind == 1)
        device_push(q, 64, 60); /* no such buffer */
    else if (kind == 2)
        device_push(q, id, BUFFER_BYTES + 1); /* wrote behind the end */
    else if (kind == 3)
        device_push(q, id, 11); /* less than a header */
    else if (kind == 6)
        used->idx = 0xffff; /* backwards */
    else
        device_push(q, id, 60);
}

/* Guards: each lie is a fault, and after a restart frames arrive again. */
TEST(net_nic_virtio_notices_every_lie)
{
    struct nic *nic = started();
    struct nic_frame frame;

    for (u32 kind = 0; kind < 8; kind++) {
        lie(kind);
        EXPECT(!nic->ops->rx(nic, &frame) && nic->failed);
        EXPECT(!nic->ops->rx(nic, &frame)); /* nothing more until the restart */
        nic->failed = false;
        EXPECT_OK(nic->ops->start(nic));
        EXPECT_EQ(device.resets, 2 + kind);
        device_receives(0, 1, 60, 5);
        expect_frame(nic, 60, 5, false);
    }
    u16 id; /* the ninth: a buffer given back twice */
    EXPECT_OK(nic->ops->tx(nic, STR("frame"), 0));
    EXPECT_OK(nic->ops->tx(nic, STR("frame"), 0));
    EXPECT(device_pop(&device.q[1], &id));
    device_push(&device.q[1], id, 0);
    device_push(&device.q[1], id, 0);
    (void)nic->ops->tx(nic, STR("frame"), 0);
    EXPECT(nic->failed);
}

/* Guards: NEEDS_RESET (2.1.2) and an unplugged device (all ones) are faults; reset leaves it
 * silent.
 */
TEST(net_nic_virtio_heeds_the_status)
{
    struct nic *nic = started();

    device.common[DEVICE_STATUS] |= 64;
    EXPECT(!nic->ops->link_up(nic) && nic->failed);
    nic->failed = false;
    EXPECT_OK(nic->ops->start(nic));
    EXPECT(nic->ops->link_up(nic));
    device.common[DEVICE_STATUS] = 0xff;
    device.reset_hangs = true;
    EXPECT(!nic->ops->link_up(nic) && nic->failed);
    EXPECT_EQ(nic->ops->start(nic), E_DEVICE);
    device.reset_hangs = false;
    EXPECT_OK(nic->ops->reset(nic));
    EXPECT_EQ(device.common[DEVICE_STATUS], 0);
}
