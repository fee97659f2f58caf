/*
 * nic_virtio.c: the network card of virtual machines. Trusts nothing that the device writes: an
 * index that jumps, a foreign id or an impossible length is a fault. Knows no protocol above
 * Ethernet. Follows: OASIS virtio 1.2: 2.7 (split queues), 3.1.1 (start), 4.1 (PCI), 5.1 (network).
 */
#include "net/net.h"
#include "pci/pci.h"

#define QUEUE_SIZE_MAX 256u
#define BUFFER_BYTES   2048u
#define RESET_WAIT_MS  100u
#define NO_VECTOR      0xffffu

// clang-format off
enum { VIRTIO_VENDOR = 0x1af4, VIRTIO_NET = 0x1041,
       VIRTIO_NET_OLD = 0x1000 }; /* transitional: also speaks the modern way, 4.1.2.1 */
/* 4.1.4: capabilities; 4.1.4.3: common configuration; 5.1.4: network configuration; 2.1: status */
enum { CAP_VENDOR = 9, CAPS_MAX = 32, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12,
       CAP_MULTIPLIER = 16 };
enum { COMMON = 1, NOTIFY, ISR, DEVICE, WINDOWS };
enum { DEVICE_FEATURE_SELECT = 0, DEVICE_FEATURE = 4, DRIVER_FEATURE_SELECT = 8,
       DRIVER_FEATURE = 12, CONFIG_VECTOR = 16, DEVICE_STATUS = 20, QUEUE_SELECT = 22,
       QUEUE_SIZE = 24, QUEUE_VECTOR = 26, QUEUE_ENABLE = 28, QUEUE_NOTIFY_OFF = 30,
       QUEUE_DESC = 32, QUEUE_DRIVER = 40, QUEUE_DEVICE = 48, COMMON_BYTES = 56 };
enum { CONFIG_MAC = 0, CONFIG_STATUS = 6, CONFIG_BYTES = 8, CONFIG_LINK_UP = 1 };
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, RUNNING = 15 };

#define F_CSUM       (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_MAC        (1ull << 5)
#define F_MRG_RXBUF  (1ull << 15)
#define F_STATUS     (1ull << 16)
#define F_VERSION_1  (1ull << 32)
#define F_PLATFORM   (1ull << 33) /* addresses are bus addresses: ours always are */
#define F_NEEDED     (F_VERSION_1 | F_MAC)
#define F_WANTED     (F_NEEDED | F_CSUM | F_GUEST_CSUM | F_MRG_RXBUF | F_STATUS | F_PLATFORM)

/* 2.7: what both sides read and write; 5.1.6: what stands before every frame */
enum { DESC_DEVICE_WRITES = 2, AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };
struct desc { u64 address; u32 len; u16 flags, next; };
struct avail { u16 flags, idx, ring[QUEUE_SIZE_MAX]; };
struct used_entry { u32 id, len; };
struct used { u16 flags, idx; struct used_entry ring[QUEUE_SIZE_MAX]; };
enum { HEADER_NEEDS_CSUM = 1, HEADER_DATA_VALID = 2 };
struct header { u8 flags, gso_type; u16 len, gso_size, csum_start, csum_offset, buffer_count; };
_Static_assert(sizeof(struct header) == 12 && sizeof(struct desc) == 16, "virtio 1.2");
// clang-format on

/* What the device reaches of one queue. */
struct shared {
    struct desc desc[QUEUE_SIZE_MAX];
    struct avail avail;
    _Alignas(4) struct used used;
    u8 buffer[QUEUE_SIZE_MAX][BUFFER_BYTES];
};

struct queue {
    u16 number, size;
    u16 avail_idx, used_idx; /* ours: what was given, what was taken back */
    u16 given;               /* buffers that the device has */
    bool with_device[QUEUE_SIZE_MAX];
    u16 free[QUEUE_SIZE_MAX], free_count;
    u64 notify_offset;
    struct dma dma;
    struct shared *shared;
};

struct virtio {
    struct nic nic; /* first: the card is its nic */
    struct pci_dev *dev;
    struct mmio window[WINDOWS];
    u32 notify_multiplier;
    u64 features;
    struct queue rx, tx;
    u16 rx_id;      /* what rx_next has shown */
    u32 parts_left; /* buffers of its frame that are still to come, this one included */
    bool in_frame;  /* the first of them has been released */
    bool rx_unnotified;
};

static const struct nic_ops virtio_ops;
static err windows_find(struct virtio *v);
static err start(struct nic *nic);

struct nic *nic_virtio_start(struct pci_bus *bus)
{
    struct pci_dev *dev = pci_find(bus, NULL, VIRTIO_VENDOR, VIRTIO_NET);
    if (!dev)
        dev = pci_find(bus, NULL, VIRTIO_VENDOR, VIRTIO_NET_OLD);
    struct virtio *v = dev ? pages_alloc(sizeof *v) : NULL;
    if (!v)
        return NULL;
    *v = (struct virtio){.nic = {.name = dev->name, .ops = &virtio_ops}, .dev = dev};
    v->tx.number = 1;
    pci_enable(dev, true);
    if (windows_find(v) != OK || dma_alloc(dev, sizeof *v->rx.shared, 4096, &v->rx.dma) != OK ||
        dma_alloc(dev, sizeof *v->tx.shared, 4096, &v->tx.dma) != OK)
        return NULL;
    v->rx.shared = v->rx.dma.ptr;
    v->tx.shared = v->tx.dma.ptr;
    v->nic.has_irq = pci_vectors(dev) > 0 && pci_vector_on(dev, 0, nic_interrupted, NULL) == OK;
    return start(&v->nic) == OK ? &v->nic : NULL;
}

static struct virtio *virtio_of(struct nic *nic)
{
    CHECK(nic->ops == &virtio_ops);
    return (struct virtio *)nic;
}

static const struct mmio *common(const struct virtio *v)
{
    return &v->window[COMMON];
}

/* 4.1.4: each capability says in which BAR a window lies. */
static err windows_find(struct virtio *v)
{
    static const u64 bytes_min[WINDOWS] = {
        [COMMON] = COMMON_BYTES, [NOTIFY] = 2, [DEVICE] = CONFIG_BYTES};
    const struct mmio *config = &v->dev->config, *w = v->window;
    u16 cap = pci_find_cap(v->dev, CAP_VENDOR, 0);

    for (u32 n = 0; cap && n < CAPS_MAX; n++, cap = pci_find_cap(v->dev, CAP_VENDOR, cap)) {
        u8 kind = mmio_read8(config, cap + CAP_TYPE), bar = mmio_read8(config, cap + CAP_BAR);
        u64 offset = mmio_read32(config, cap + CAP_OFFSET);
        u64 bytes = mmio_read32(config, cap + CAP_LENGTH);
        struct mmio whole;
        if (kind == 0 || kind >= WINDOWS || bytes < bytes_min[kind] || w[kind].bytes ||
            bar >= PCI_BARS_MAX || offset + bytes > v->dev->bar[bar].bytes)
            continue;
        if (kind == NOTIFY)
            v->notify_multiplier = mmio_read32(config, cap + CAP_MULTIPLIER);
        TRY(pci_map_bar(v->dev, bar, &whole));
        v->window[kind] = mmio_part(&whole, offset, bytes);
    }
    if (w[COMMON].bytes && w[NOTIFY].bytes && w[DEVICE].bytes)
        return OK;
    log_error(v->dev->name, "virtio: want three windows, saw %lu, %lu and %lu bytes",
              w[COMMON].bytes, w[NOTIFY].bytes, w[DEVICE].bytes);
    return E_UNSUPPORTED;
}

/* ---- start: 3.1.1, step by step ---- */

static err device_reset(struct virtio *v);
static err features_agree(struct virtio *v);
static err queue_start(struct virtio *v, struct queue *q, u16 vector);
static void queue_give(struct queue *q, u16 id, u32 len, u16 flags);
static void queue_notify(struct virtio *v, struct queue *q);

static void status_add(struct virtio *v, u8 bit)
{
    mmio_write8(common(v), DEVICE_STATUS, mmio_read8(common(v), DEVICE_STATUS) | bit);
}

static err start(struct nic *nic)
{
    struct virtio *v = virtio_of(nic);
    u16 vector = nic->has_irq ? 0 : NO_VECTOR;

    TRY(device_reset(v));
    status_add(v, ACKNOWLEDGE);
    status_add(v, DRIVER);
    TRY(features_agree(v));
    mmio_write16(common(v), CONFIG_VECTOR, vector);
    TRY(queue_start(v, &v->rx, vector));
    TRY(queue_start(v, &v->tx, NO_VECTOR)); /* what was sent is collected when room is needed */
    for (u32 i = 0; i < sizeof nic->mac; i++)
        nic->mac[i] = mmio_read8(&v->window[DEVICE], CONFIG_MAC + i);
    nic->tx_checksum = v->features & F_CSUM;
    status_add(v, DRIVER_OK);
    while (v->rx.free_count)
        queue_give(&v->rx, v->rx.free[--v->rx.free_count], BUFFER_BYTES, DESC_DEVICE_WRITES);
    queue_notify(v, &v->rx);
    v->in_frame = v->rx_unnotified = false;
    return OK;
}

/* 2.4.2: the reset is over when the status reads zero. */
static err device_reset(struct virtio *v)
{
    u64 end = time_ns() + RESET_WAIT_MS * NS_PER_MS;
    u8 seen;

    mmio_write8(common(v), DEVICE_STATUS, 0);
    while ((seen = mmio_read8(common(v), DEVICE_STATUS)) != 0 && time_ns() < end)
        cpu_relax();
    if (seen == 0)
        return OK;
    log_error(v->dev->name, "virtio: want status 0 after reset, saw %02x", seen);
    return E_TIMEOUT;
}

static err features_agree(struct virtio *v)
{
    u64 offered = 0;

    for (u32 half = 0; half < 2; half++) {
        mmio_write32(common(v), DEVICE_FEATURE_SELECT, half);
        offered |= (u64)mmio_read32(common(v), DEVICE_FEATURE) << 32 * half;
    }
    v->features = offered & F_WANTED;
    for (u32 half = 0; half < 2; half++) {
        mmio_write32(common(v), DRIVER_FEATURE_SELECT, half);
        mmio_write32(common(v), DRIVER_FEATURE, (u32)(v->features >> 32 * half));
    }
    status_add(v, FEATURES_OK);
    u8 status = mmio_read8(common(v), DEVICE_STATUS);
    if ((v->features & F_NEEDED) == F_NEEDED && status & FEATURES_OK)
        return OK;
    log_error(v->dev->name, "virtio: want features %llx and status %02x, saw %lx and %02x",
              F_NEEDED, ACKNOWLEDGE | DRIVER | FEATURES_OK, offered, status);
    return E_UNSUPPORTED;
}

/* 4.1.3.1: 64-bit fields are written as two halves. */
static void address_write(const struct virtio *v, u32 reg, const struct queue *q, const void *at)
{
    u64 bus = q->dma.bus.v + (u64)((const u8 *)at - (const u8 *)q->dma.ptr);

    mmio_write32(common(v), reg, (u32)bus);
    mmio_write32(common(v), reg + 4, (u32)(bus >> 32));
}

/* 4.1.5.1.3 */
static err queue_start(struct virtio *v, struct queue *q, u16 vector)
{
    mmio_write16(common(v), QUEUE_SELECT, q->number);
    u16 size_max = mmio_read16(common(v), QUEUE_SIZE);
    q->notify_offset = (u64)mmio_read16(common(v), QUEUE_NOTIFY_OFF) * v->notify_multiplier;
    for (q->size = QUEUE_SIZE_MAX; q->size > size_max;)
        q->size /= 2;
    if (q->size < 2 || q->notify_offset + 2 > v->window[NOTIFY].bytes) {
        log_error(v->dev->name, "virtio: want queue %u of 2 or more in the window, saw %u at %lx",
                  q->number, size_max, q->notify_offset);
        return E_DEVICE;
    }
    memset(q->shared, 0, offsetof(struct shared, buffer));
    memset(q->with_device, 0, sizeof q->with_device);
    q->avail_idx = q->used_idx = q->given = q->free_count = 0;
    while (q->free_count < q->size) {
        q->free[q->free_count] = q->free_count;
        q->free_count++;
    }
    q->shared->avail.flags = AVAIL_NO_INTERRUPT;
    mmio_write16(common(v), QUEUE_SIZE, q->size);
    address_write(v, QUEUE_DESC, q, q->shared->desc);
    address_write(v, QUEUE_DRIVER, q, &q->shared->avail);
    address_write(v, QUEUE_DEVICE, q, &q->shared->used);
    mmio_write16(common(v), QUEUE_VECTOR, vector);
    if (vector != NO_VECTOR && mmio_read16(common(v), QUEUE_VECTOR) == NO_VECTOR)
        v->nic.has_irq = false; /* 4.1.5.1.2: the device has no room for the vector */
    mmio_write16(common(v), QUEUE_ENABLE, 1);
    return OK;
}

/* ---- split queues, 2.7. The device may write at any moment: every field is read once. ---- */

static u16 load16(const u16 *from)
{
    return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static void queue_give(struct queue *q, u16 id, u32 len, u16 flags)
{
    u64 bus = q->dma.bus.v + offsetof(struct shared, buffer) + (u64)id * BUFFER_BYTES;

    q->shared->desc[id] = (struct desc){.address = bus, .len = len, .flags = flags};
    q->shared->avail.ring[q->avail_idx++ % q->size] = id;
    q->with_device[id] = true;
    q->given++;
    dma_wmb();
    __atomic_store_n(&q->shared->avail.idx, q->avail_idx, __ATOMIC_RELEASE);
}

static void queue_notify(struct virtio *v, struct queue *q)
{
    dma_mb(); /* 2.7.13.4.1: our index before their flag */
    if (!(load16(&q->shared->used.flags) & USED_NO_NOTIFY))
        mmio_write16(&v->window[NOTIFY], q->notify_offset, q->number);
}

/* The next buffer that the device gave back, not yet taken. False: none, or it broke the rules. */
static bool queue_peek(struct virtio *v, const struct queue *q, struct used_entry *out)
{
    u16 ahead = (u16)(load16(&q->shared->used.idx) - q->used_idx);
    const struct used_entry *entry = &q->shared->used.ring[q->used_idx % q->size];

    if (ahead == 0 || v->nic.failed)
        return false;
    dma_rmb();
    out->id = __atomic_load_n(&entry->id, __ATOMIC_RELAXED);
    out->len = __atomic_load_n(&entry->len, __ATOMIC_RELAXED);
    bool sound = ahead <= q->given && out->id < q->size && q->with_device[out->id] &&
                 (q == &v->tx || out->len <= BUFFER_BYTES);
    if (!sound)
        log_error(
            v->dev->name,
            "virtio queue %u: want 1..%u buffers back, id below %u, len to %u, saw %u, %u, %u",
            q->number, q->given, q->size, BUFFER_BYTES, ahead, out->id, out->len);
    v->nic.failed = !sound;
    return sound;
}

static void queue_take(struct queue *q, u32 id)
{
    q->with_device[id] = false;
    q->given--;
    q->used_idx++;
}

/* ---- the nic face ---- */

static bool link_up(struct nic *nic)
{
    struct virtio *v = virtio_of(nic);
    u8 status = mmio_read8(common(v), DEVICE_STATUS);

    if (status != RUNNING) { /* 2.1.2: it needs a reset; or all ones: it is gone */
        log_error(v->dev->name, "virtio: want status %02x, saw %02x", RUNNING, status);
        nic->failed = true;
        return false;
    }
    return !(v->features & F_STATUS) ||
           mmio_read16(&v->window[DEVICE], CONFIG_STATUS) & CONFIG_LINK_UP;
}

/* Stands before a frame in its first buffer: how many buffers it has (5.1.6.4), what was verified.
 */
static bool header_read(struct virtio *v, struct nic_frame *frame)
{
    struct header header;

    memcpy(&header, frame->data, sizeof header);
    dma_rmb();
    v->parts_left = v->features & F_MRG_RXBUF ? header.buffer_count : 1;
    frame->checksum_good = header.flags & (HEADER_NEEDS_CSUM | HEADER_DATA_VALID);
    if (frame->len >= sizeof header && v->parts_left && v->parts_left <= v->rx.given) {
        frame->data += sizeof header;
        frame->len -= (u32)sizeof header;
        return true;
    }
    log_error(v->dev->name, "virtio: want 12 or more bytes and 1..%u buffers, saw %u and %u",
              v->rx.given, frame->len, v->parts_left);
    v->nic.failed = true;
    return false;
}

static bool rx_next(struct nic *nic, struct nic_frame *frame)
{
    struct virtio *v = virtio_of(nic);
    struct used_entry entry;

    if (!queue_peek(v, &v->rx, &entry)) {
        if (v->rx_unnotified && !nic->failed)
            queue_notify(v, &v->rx);
        v->rx_unnotified = false;
        return false;
    }
    *frame = (struct nic_frame){.data = v->rx.shared->buffer[entry.id], .len = entry.len};
    v->rx_id = (u16)entry.id;
    if (!v->in_frame && !header_read(v, frame))
        return false;
    frame->more = v->parts_left > 1;
    return true;
}

/* The buffer goes back at once; the doorbell waits for the end of the batch. */
static void rx_release(struct nic *nic)
{
    struct virtio *v = virtio_of(nic);

    queue_take(&v->rx, v->rx_id);
    queue_give(&v->rx, v->rx_id, BUFFER_BYTES, DESC_DEVICE_WRITES);
    v->rx_unnotified = true;
    v->in_frame = --v->parts_left > 0;
}

static err tx(struct nic *nic, struct str frame, u16 csum_start, u16 csum_offset)
{
    struct virtio *v = virtio_of(nic);
    struct queue *q = &v->tx;
    struct header header = {.flags = csum_start ? HEADER_NEEDS_CSUM : 0,
                            .csum_start = csum_start,
                            .csum_offset = csum_start ? csum_offset : 0};
    struct used_entry sent;

    CHECK(frame.len <= NIC_FRAME_MAX);
    while (queue_peek(v, q, &sent)) {
        queue_take(q, sent.id);
        q->free[q->free_count++] = (u16)sent.id;
    }
    if (!q->free_count)
        return E_BUSY;
    u16 id = q->free[--q->free_count];
    memcpy(q->shared->buffer[id], &header, sizeof header);
    memcpy(q->shared->buffer[id] + sizeof header, frame.ptr, frame.len);
    queue_give(q, id, (u32)(sizeof header + frame.len), 0);
    return OK;
}

static void tx_kick(struct nic *nic)
{
    queue_notify(virtio_of(nic), &virtio_of(nic)->tx);
}

static void irq(struct nic *nic, bool on)
{
    virtio_of(nic)->rx.shared->avail.flags = on ? 0 : AVAIL_NO_INTERRUPT;
    dma_mb(); /* 2.7.7: the flag before the caller's last look at the ring */
}

static void stop(struct nic *nic)
{
    struct virtio *v = virtio_of(nic);

    (void)device_reset(v);
    pci_vector_off(v->dev, 0);
    pci_enable(v->dev, false);
}

static const struct nic_ops virtio_ops = {
    .start = start,
    .link_up = link_up,
    .rx_next = rx_next,
    .rx_release = rx_release,
    .tx = tx,
    .tx_kick = tx_kick,
    .irq = irq,
    .stop = stop,
};
