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
#define TCP_CHECKSUM   16u /* where it stands in the header, RFC 9293, 3.1 */

// clang-format off
enum { VIRTIO_VENDOR = 0x1af4, VIRTIO_NET = 0x1041,
       VIRTIO_NET_OLD = 0x1000 }; /* transitional: also speaks the modern way, 4.1.2.1 */
/* 4.1.4: capabilities; 4.1.4.3: common configuration; 5.1.4: network configuration; 2.1: status */
enum { CAP_VENDOR = 9, CAPS_MAX = 32, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12,
       CAP_MULTIPLIER = 16 };
enum { COMMON = 1, NOTIFY = 2, DEVICE = 4, WINDOWS };
enum { DEVICE_FEATURE_SELECT = 0, DEVICE_FEATURE = 4, DRIVER_FEATURE_SELECT = 8,
       DRIVER_FEATURE = 12, DEVICE_STATUS = 20, QUEUE_SELECT = 22,
       QUEUE_SIZE = 24, QUEUE_VECTOR = 26, QUEUE_ENABLE = 28, QUEUE_NOTIFY_OFF = 30,
       QUEUE_DESC = 32, QUEUE_DRIVER = 40, QUEUE_DEVICE = 48, COMMON_BYTES = 56 };
enum { CONFIG_MAC = 0, CONFIG_STATUS = 6, CONFIG_BYTES = 8, CONFIG_LINK_UP = 1 };
enum { ACKNOWLEDGE = 1, DRIVER = 3, FEATURES_OK = 11, DRIVER_OK = 15 }; /* each with the former */

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

/* Buffer `id` belongs to descriptor `id`; both are used in turn. */
struct queue {
    u16 size, given, taken; /* running counts: buffers to the device, buffers back */
    bool with_device[QUEUE_SIZE_MAX];
    u64 notify_offset;
    struct dma dma;
    struct shared *shared;
};

enum { RX, TX, QUEUES }; /* 5.1.2: their numbers */
struct virtio {
    struct nic nic; /* first: the card is its nic */
    struct mmio window[WINDOWS];
    u32 notify_multiplier;
    u64 features;
    struct queue queue[QUEUES];
};

static const struct mmio *common(const struct virtio *v)
{
    return &v->window[COMMON];
}

/* ---- split queues, 2.7. The device may write at any moment: every field is read once. ---- */

static void queue_give(struct queue *q, u32 id, u32 len, u16 flags)
{
    u64 bus = q->dma.bus.v + offsetof(struct shared, buffer) + (u64)id * BUFFER_BYTES;

    q->shared->desc[id] = (struct desc){.address = bus, .len = len, .flags = flags};
    q->shared->avail.ring[q->given++ % q->size] = (u16)id;
    q->with_device[id] = true;
    dma_wmb();
    __atomic_store_n(&q->shared->avail.idx, q->given, __ATOMIC_RELEASE);
}

static void queue_notify(struct virtio *v, u16 number)
{
    struct queue *q = &v->queue[number];

    dma_mb(); /* 2.7.13.4.1: our index before their flag */
    if (!(__atomic_load_n(&q->shared->used.flags, __ATOMIC_ACQUIRE) & USED_NO_NOTIFY))
        mmio_write16(&v->window[NOTIFY], q->notify_offset, number);
}

/* The next buffer that the device gave back. False: none, or it broke the rules. */
static bool queue_take(struct virtio *v, struct queue *q, struct used_entry *out)
{
    u16 ahead = (u16)(__atomic_load_n(&q->shared->used.idx, __ATOMIC_ACQUIRE) - q->taken);
    const struct used_entry *entry = &q->shared->used.ring[q->taken % q->size];

    if (ahead == 0 || v->nic.failed)
        return false;
    dma_rmb();
    out->id = __atomic_load_n(&entry->id, __ATOMIC_RELAXED);
    out->len = __atomic_load_n(&entry->len, __ATOMIC_RELAXED);
    if (ahead > (u16)(q->given - q->taken) || out->id >= q->size || !q->with_device[out->id]) {
        (void)nic_fault(&v->nic, "a buffer that the device has, and no more than those", out->id);
        return false;
    }
    q->with_device[out->id] = false;
    q->taken++;
    return true;
}

/* ---- start: 3.1.1, step by step ---- */

/* 4.1.4: each capability says in which BAR a window lies. */
static err windows_find(struct virtio *v, struct pci_dev *dev)
{
    static const u64 bytes_min[WINDOWS] = {
        [COMMON] = COMMON_BYTES, [NOTIFY] = 2, [DEVICE] = CONFIG_BYTES};
    const struct mmio *config = &dev->config, *w = v->window;
    u16 cap = pci_find_cap(dev, CAP_VENDOR, 0);

    for (u32 n = 0; cap && n < CAPS_MAX; n++, cap = pci_find_cap(dev, CAP_VENDOR, cap)) {
        u8 kind = mmio_read8(config, cap + CAP_TYPE), bar = mmio_read8(config, cap + CAP_BAR);
        u64 offset = mmio_read32(config, cap + CAP_OFFSET);
        u64 bytes = mmio_read32(config, cap + CAP_LENGTH);
        struct mmio whole;
        if (kind >= WINDOWS || !bytes_min[kind] || bytes < bytes_min[kind] || w[kind].bytes ||
            bar >= PCI_BARS_MAX || offset + bytes > dev->bar[bar].bytes)
            continue;
        if (kind == NOTIFY)
            v->notify_multiplier = mmio_read32(config, cap + CAP_MULTIPLIER);
        TRY(pci_map_bar(dev, bar, &whole));
        v->window[kind] = mmio_part(&whole, offset, bytes);
    }
    if (w[COMMON].bytes && w[NOTIFY].bytes && w[DEVICE].bytes)
        return OK;
    return nic_fault(&v->nic, "virtio's three windows, the first", w[COMMON].bytes);
}

/* 2.4.2: the reset is over when the status reads zero. */
static err reset(struct nic *nic)
{
    const struct virtio *v = (struct virtio *)nic;
    u64 end = time_ns() + RESET_WAIT_MS * NS_PER_MS;
    u8 seen;

    mmio_write8(common(v), DEVICE_STATUS, 0);
    while ((seen = mmio_read8(common(v), DEVICE_STATUS)) != 0 && time_ns() < end)
        cpu_relax();
    return seen == 0 ? OK : nic_fault(nic, "status 0 after reset", seen);
}

static err features_agree(struct virtio *v)
{
    v->features = 0;
    for (u32 half = 0; half < 2; half++) {
        mmio_write32(common(v), DEVICE_FEATURE_SELECT, half);
        v->features |= (u64)mmio_read32(common(v), DEVICE_FEATURE) << 32 * half & F_WANTED;
        mmio_write32(common(v), DRIVER_FEATURE_SELECT, half);
        mmio_write32(common(v), DRIVER_FEATURE, (u32)(v->features >> 32 * half));
    }
    if ((v->features & F_NEEDED) != F_NEEDED)
        return nic_fault(&v->nic, "virtio 1 and a MAC address among its features", v->features);
    mmio_write8(common(v), DEVICE_STATUS, FEATURES_OK);
    u8 status = mmio_read8(common(v), DEVICE_STATUS);
    return status == FEATURES_OK ? OK : nic_fault(&v->nic, "status FEATURES_OK", status);
}

/* 4.1.5.1.3 */
static err queue_start(struct virtio *v, u16 number)
{
    static const usize part[] = {offsetof(struct shared, desc), offsetof(struct shared, avail),
                                 offsetof(struct shared, used)};
    struct queue *q = &v->queue[number];

    mmio_write16(common(v), QUEUE_SELECT, number);
    u16 size_max = mmio_read16(common(v), QUEUE_SIZE);
    q->notify_offset = (u64)mmio_read16(common(v), QUEUE_NOTIFY_OFF) * v->notify_multiplier;
    for (q->size = QUEUE_SIZE_MAX; q->size > size_max;)
        q->size /= 2;
    if (q->size < 2 || q->notify_offset + 2 > v->window[NOTIFY].bytes)
        return nic_fault(&v->nic, "queues of 2 or more that notify inside the window", size_max);
    memset(q->shared, 0, offsetof(struct shared, buffer));
    memset(q->with_device, 0, sizeof q->with_device);
    q->given = q->taken = 0;
    q->shared->avail.flags = AVAIL_NO_INTERRUPT;
    mmio_write16(common(v), QUEUE_SIZE, q->size);
    for (u32 i = 0; i < ARRAY_LEN(part); i++) { /* 4.1.3.1: 64-bit fields as two halves */
        mmio_write32(common(v), QUEUE_DESC + 8 * i, (u32)(q->dma.bus.v + part[i]));
        mmio_write32(common(v), QUEUE_DESC + 8 * i + 4, (u32)((q->dma.bus.v + part[i]) >> 32));
    }
    if (number == RX && v->nic.has_irq) { /* what was sent is collected when room is needed */
        mmio_write16(common(v), QUEUE_VECTOR, 0);
        v->nic.has_irq = mmio_read16(common(v), QUEUE_VECTOR) == 0; /* 4.1.5.1.2: or it cannot */
    }
    mmio_write16(common(v), QUEUE_ENABLE, 1);
    return OK;
}

static err start(struct nic *nic)
{
    struct virtio *v = (struct virtio *)nic;

    TRY(reset(nic));
    mmio_write8(common(v), DEVICE_STATUS, ACKNOWLEDGE);
    mmio_write8(common(v), DEVICE_STATUS, DRIVER);
    TRY(features_agree(v));
    TRY(queue_start(v, RX));
    TRY(queue_start(v, TX));
    for (u32 i = 0; i < sizeof nic->mac; i++)
        nic->mac[i] = mmio_read8(&v->window[DEVICE], CONFIG_MAC + i);
    nic->tx_checksum = v->features & F_CSUM;
    mmio_write8(common(v), DEVICE_STATUS, DRIVER_OK);
    for (u32 id = 0; id < v->queue[RX].size; id++)
        queue_give(&v->queue[RX], id, BUFFER_BYTES, DESC_DEVICE_WRITES);
    queue_notify(v, RX);
    return OK;
}

/* ---- the nic face ---- */

static bool link_up(struct nic *nic)
{
    struct virtio *v = (struct virtio *)nic;
    u8 status = mmio_read8(common(v), DEVICE_STATUS);

    if (status != DRIVER_OK) { /* 2.1.2: it needs a reset; or all ones: it is gone */
        (void)nic_fault(nic, "status DRIVER_OK", status);
        return false;
    }
    return !(v->features & F_STATUS) ||
           mmio_read16(&v->window[DEVICE], CONFIG_STATUS) & CONFIG_LINK_UP;
}

/* 5.1.6.4: the first buffer says of how many a frame is made, and they come back together. */
static bool rx(struct nic *nic, struct nic_frame *frame)
{
    struct virtio *v = (struct virtio *)nic;
    struct queue *q = &v->queue[RX];
    struct header header = {};
    struct used_entry part = {};
    u32 parts = 1, len = 0;

    for (u32 i = 0; i < parts; i++) {
        u32 skip = i ? 0 : sizeof header;
        bool any = queue_take(v, q, &part);
        if (!any && i == 0)
            return false;
        if (i == 0) {
            memcpy(&header, q->shared->buffer[part.id], sizeof header);
            parts = v->features & F_MRG_RXBUF ? header.buffer_count : 1;
        }
        if (!any || part.len < skip || part.len > BUFFER_BYTES || !parts || parts > q->size) {
            (void)nic_fault(nic, "every part of a frame, each in its buffer", part.len);
            return false;
        }
        u32 bytes = part.len - skip;
        if (len + bytes <= sizeof frame->data)
            memcpy(frame->data + len, q->shared->buffer[part.id] + skip, bytes);
        len += bytes;
        queue_give(q, part.id, BUFFER_BYTES, DESC_DEVICE_WRITES);
    }
    queue_notify(v, RX);
    frame->len = len <= sizeof frame->data ? len : 0;
    frame->checksum_good = header.flags & (HEADER_NEEDS_CSUM | HEADER_DATA_VALID);
    return true;
}

static err tx(struct nic *nic, struct str frame, u16 tcp_start)
{
    struct virtio *v = (struct virtio *)nic;
    struct queue *q = &v->queue[TX];
    struct header header = {.flags = tcp_start ? HEADER_NEEDS_CSUM : 0,
                            .csum_start = tcp_start,
                            .csum_offset = tcp_start ? TCP_CHECKSUM : 0};
    struct used_entry sent;
    u32 id = q->given % q->size;

    CHECK(frame.len <= NIC_FRAME_MAX);
    while (queue_take(v, q, &sent))
        ;
    if (q->with_device[id])
        return E_BUSY;
    memcpy(q->shared->buffer[id], &header, sizeof header);
    memcpy(q->shared->buffer[id] + sizeof header, frame.ptr, frame.len);
    queue_give(q, id, (u32)(sizeof header + frame.len), 0);
    queue_notify(v, TX);
    return OK;
}

static void irq(struct nic *nic, bool on)
{
    ((struct virtio *)nic)->queue[RX].shared->avail.flags = on ? 0 : AVAIL_NO_INTERRUPT;
    dma_mb(); /* 2.7.7: the flag before the caller's last look at the ring */
}

struct nic *nic_virtio_start(struct pci_bus *bus)
{
    static const struct nic_ops ops = {reset, start, link_up, rx, tx, irq};
    struct pci_dev *dev = pci_find(bus, NULL, VIRTIO_VENDOR, VIRTIO_NET);
    if (!dev)
        dev = pci_find(bus, NULL, VIRTIO_VENDOR, VIRTIO_NET_OLD);
    struct virtio *v = dev ? pages_alloc(sizeof *v) : NULL;
    if (!v)
        return NULL;
    v->nic = (struct nic){.name = dev->name, .ops = &ops};
    pci_enable(dev, true);
    for (u32 i = 0; i < QUEUES; i++) {
        if (dma_alloc(dev, sizeof(struct shared), 4096, &v->queue[i].dma) != OK)
            return NULL;
        v->queue[i].shared = v->queue[i].dma.ptr;
    }
    if (windows_find(v, dev) != OK)
        return NULL;
    v->nic.has_irq = pci_vector_on(dev, 0, nic_interrupted, NULL) == OK;
    return start(&v->nic) == OK ? &v->nic : NULL;
}
