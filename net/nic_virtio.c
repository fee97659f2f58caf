/*
 * nic_virtio.c: the network card of virtual machines. Trusts nothing that the device writes: an
 * index that jumps, a foreign id or an impossible length resets it. Knows no protocol above
 * Ethernet. Follows: OASIS virtio 1.2, sections 2.7 (split queues), 3.1.1 (start), 4.1 (PCI), 5.1
 * (network).
 */
#include "net/net.h"
#include "pci/pci.h"

#define VIRTIO_VENDOR  0x1af4u
#define VIRTIO_NET     0x1041u
#define VIRTIO_NET_OLD 0x1000u /* transitional: also speaks the modern way, 4.1.2.1 */
#define QUEUE_SIZE_MAX 256u
#define BUFFER_BYTES   2048u
#define MTU            1500u
#define RESET_WAIT_MS  100u
#define TX_STALL_NS    (5 * NS_PER_S)
#define FAULTS_MAX     8u /* then the card stays off */
#define NO_VECTOR      0xffffu

// clang-format off
/* 4.1.4: capabilities; 4.1.4.3: common configuration */
enum { CAP_VENDOR = 9, CAPS_MAX = 32, CAP_TYPE = 3, CAP_BAR = 4, CAP_OFFSET = 8, CAP_LENGTH = 12,
       CAP_MULTIPLIER = 16 };
enum window_kind { WINDOW_COMMON = 1, WINDOW_NOTIFY, WINDOW_ISR, WINDOW_DEVICE, WINDOW_KINDS };
enum common_reg {
    DEVICE_FEATURE_SELECT = 0, DEVICE_FEATURE = 4, DRIVER_FEATURE_SELECT = 8, DRIVER_FEATURE = 12,
    CONFIG_VECTOR = 16, DEVICE_STATUS = 20, QUEUE_SELECT = 22, QUEUE_SIZE = 24, QUEUE_VECTOR = 26,
    QUEUE_ENABLE = 28, QUEUE_NOTIFY_OFF = 30, QUEUE_DESC = 32, QUEUE_DRIVER = 40, QUEUE_DEVICE = 48,
    COMMON_BYTES = 56,
};
enum { CONFIG_MAC = 0, CONFIG_STATUS = 6, CONFIG_BYTES = 8, CONFIG_LINK_UP = 1 }; /* 5.1.4 */
enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEEDS_RESET = 64, /* 2.1 */
       RUNNING = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK, GONE = 0xff };

#define F_CSUM       (1ull << 0)
#define F_GUEST_CSUM (1ull << 1)
#define F_MAC        (1ull << 5)
#define F_MRG_RXBUF  (1ull << 15)
#define F_STATUS     (1ull << 16)
#define F_VERSION_1  (1ull << 32)
#define F_PLATFORM   (1ull << 33) /* addresses are bus addresses: ours always are */
#define F_WANTED     (F_CSUM | F_GUEST_CSUM | F_MAC | F_MRG_RXBUF | F_STATUS | F_VERSION_1 | \
                      F_PLATFORM)

/* 2.7: what both sides read and write; 5.1.6: what stands before every frame */
enum { DESC_DEVICE_WRITES = 2, AVAIL_NO_INTERRUPT = 1, USED_NO_NOTIFY = 1 };
struct desc { u64 address; u32 len; u16 flags, next; };
struct avail { u16 flags, idx, ring[QUEUE_SIZE_MAX]; };
struct used_entry { u32 id, len; };
struct used { u16 flags, idx; struct used_entry ring[QUEUE_SIZE_MAX]; };
struct rings {
    struct desc desc[QUEUE_SIZE_MAX];
    struct avail avail;
    _Alignas(4) struct used used;
};
enum { HEADER_NEEDS_CSUM = 1, HEADER_DATA_VALID = 2 };
struct header {
    u8 flags, gso_type;
    u16 header_len, gso_size, csum_start, csum_offset, buffer_count;
};
_Static_assert(sizeof(struct header) == 12 && sizeof(struct desc) == 16, "virtio 1.2");
// clang-format on

struct queue {
    u16 number, size;
    u16 avail_idx, used_idx; /* ours: what was given, what was taken back */
    u16 given;               /* buffers that the device has */
    bool with_device[QUEUE_SIZE_MAX];
    u16 free[QUEUE_SIZE_MAX], free_count;
    struct rings *ring;
    u8 *buffers;
    u64 notify_offset;
    struct dma ring_dma, buffer_dma;
};

struct virtio {
    struct nic nic; /* first: the card is its nic */
    struct pci_dev *dev;
    struct mmio window[WINDOW_KINDS];
    u32 notify_multiplier;
    u64 features;
    struct queue rx, tx;
    u32 parts_left; /* buffers of the current frame that are still to come, this one included */
    bool in_frame;  /* its first buffer has been released */
    u16 rx_id;      /* what rx_next has shown */
    u32 rx_len;
    bool rx_unnotified;
    u64 tx_progress_ns;
    u32 faults;
    bool dead;
};

static const struct mmio *common(const struct virtio *v)
{
    return &v->window[WINDOW_COMMON];
}

static const struct nic_ops virtio_ops;
static err windows_find(struct virtio *v);
static err start(struct virtio *v);
static void interrupted(void *ctx);

struct nic *nic_virtio_start(struct pci_bus *bus)
{
    struct pci_dev *dev = pci_find(bus, NULL, VIRTIO_VENDOR, VIRTIO_NET);
    if (!dev)
        dev = pci_find(bus, NULL, VIRTIO_VENDOR, VIRTIO_NET_OLD);
    struct virtio *v = dev ? pages_alloc(sizeof *v) : NULL;
    if (!v)
        return NULL;
    *v = (struct virtio){.nic = {.name = dev->name, .mtu = MTU, .ops = &virtio_ops}, .dev = dev};
    v->tx.number = 1;
    pci_enable(dev, true);
    if (windows_find(v) != OK)
        return NULL;
    v->nic.has_irq = pci_vectors(dev) > 0 && pci_vector_on(dev, 0, interrupted, v) == OK;
    if (start(v) != OK)
        return NULL;
    const u8 *mac = v->nic.mac;
    log_info(dev->name, "virtio-net %02x:%02x:%02x:%02x:%02x:%02x, features %llx, %s", mac[0],
             mac[1], mac[2], mac[3], mac[4], mac[5], (unsigned long long)v->features,
             v->nic.has_irq ? "MSI-X" : "polled");
    return &v->nic;
}

static void interrupted(void *ctx)
{
    ((struct virtio *)ctx)->nic.irq_pending = true;
}

/* 4.1.4: each capability says in which BAR a window lies. */
static err windows_find(struct virtio *v)
{
    static const u64 bytes_min[WINDOW_KINDS] = {
        [WINDOW_COMMON] = COMMON_BYTES, [WINDOW_NOTIFY] = 2, [WINDOW_DEVICE] = CONFIG_BYTES};
    const struct mmio *config = &v->dev->config;
    u16 cap = pci_find_cap(v->dev, CAP_VENDOR, 0);

    for (u32 n = 0; cap && n < CAPS_MAX; n++, cap = pci_find_cap(v->dev, CAP_VENDOR, cap)) {
        u8 kind = mmio_read8(config, cap + CAP_TYPE), bar = mmio_read8(config, cap + CAP_BAR);
        u64 offset = mmio_read32(config, cap + CAP_OFFSET),
            bytes = mmio_read32(config, cap + CAP_LENGTH);
        if (kind == 0 || kind >= WINDOW_KINDS || bytes < bytes_min[kind] || v->window[kind].bytes ||
            bar >= PCI_BARS_MAX || offset + bytes > v->dev->bar[bar].bytes)
            continue;
        if (kind == WINDOW_NOTIFY)
            v->notify_multiplier = mmio_read32(config, cap + CAP_MULTIPLIER);
        struct mmio whole;
        TRY(pci_map_bar(v->dev, bar, &whole));
        v->window[kind] = mmio_part(&whole, offset, bytes);
    }
    if (common(v)->bytes && v->window[WINDOW_NOTIFY].bytes && v->window[WINDOW_DEVICE].bytes)
        return OK;
    log_error(
        v->dev->name, "virtio: want common, notify and device windows, saw %llu, %llu, %llu bytes",
        (unsigned long long)common(v)->bytes, (unsigned long long)v->window[WINDOW_NOTIFY].bytes,
        (unsigned long long)v->window[WINDOW_DEVICE].bytes);
    return E_UNSUPPORTED;
}

/* ---- start: 3.1.1, step by step; also how a device that broke the rules gets another chance ----
 */

static err device_reset(struct virtio *v);
static err features_agree(struct virtio *v);
static err queue_start(struct virtio *v, struct queue *q, u16 vector);
static void mac_read(struct virtio *v);
static void rx_fill(struct virtio *v);
static void queue_notify(struct virtio *v, struct queue *q);

/* 4.1.3.1: 64-bit fields are written as two halves. */
static void common_write64(const struct virtio *v, u32 reg, u64 value)
{
    mmio_write32(common(v), reg, (u32)value);
    mmio_write32(common(v), reg + 4, (u32)(value >> 32));
}

static void status_add(struct virtio *v, u8 bit)
{
    mmio_write8(common(v), DEVICE_STATUS, mmio_read8(common(v), DEVICE_STATUS) | bit);
}

static err start(struct virtio *v)
{
    TRY(device_reset(v));
    status_add(v, ACKNOWLEDGE);
    status_add(v, DRIVER);
    TRY(features_agree(v));
    mmio_write16(common(v), CONFIG_VECTOR, v->nic.has_irq ? 0 : NO_VECTOR);
    TRY(queue_start(v, &v->rx, v->nic.has_irq ? 0 : NO_VECTOR));
    TRY(queue_start(v, &v->tx, NO_VECTOR)); /* finished frames are collected when room is needed */
    mac_read(v);
    v->nic.tx_checksum = v->features & F_CSUM;
    v->in_frame = v->rx_unnotified = false;
    v->tx_progress_ns = time_ns();
    v->tx.ring->avail.flags = v->rx.ring->avail.flags = AVAIL_NO_INTERRUPT;
    status_add(v, DRIVER_OK);
    rx_fill(v);
    queue_notify(v, &v->rx);
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
    if ((v->features & F_VERSION_1) && (mmio_read8(common(v), DEVICE_STATUS) & FEATURES_OK))
        return OK;
    log_error(v->dev->name, "virtio: want VERSION_1 and FEATURES_OK, was offered %llx",
              (unsigned long long)offered);
    return E_UNSUPPORTED;
}

/* 4.1.5.1.3 */
static err queue_start(struct virtio *v, struct queue *q, u16 vector)
{
    mmio_write16(common(v), QUEUE_SELECT, q->number);
    u16 size_max = mmio_read16(common(v), QUEUE_SIZE);
    q->size = QUEUE_SIZE_MAX;
    while (q->size > size_max)
        q->size /= 2;
    q->notify_offset = (u64)mmio_read16(common(v), QUEUE_NOTIFY_OFF) * v->notify_multiplier;
    if (q->size < 2 || q->notify_offset + 2 > v->window[WINDOW_NOTIFY].bytes) {
        log_error(v->dev->name,
                  "virtio: want a queue %u of 2 or more inside the notify window, saw %u at %llx",
                  q->number, size_max, (unsigned long long)q->notify_offset);
        return E_DEVICE;
    }
    if (!q->ring) { /* kept over a restart */
        TRY(dma_alloc(v->dev, sizeof(struct rings), 4096, &q->ring_dma));
        TRY(dma_alloc(v->dev, QUEUE_SIZE_MAX * BUFFER_BYTES, 4096, &q->buffer_dma));
        q->ring = q->ring_dma.ptr;
        q->buffers = q->buffer_dma.ptr;
    }
    memset(q->ring, 0, sizeof *q->ring);
    memset(q->with_device, 0, sizeof q->with_device);
    q->avail_idx = q->used_idx = q->given = q->free_count = 0;
    for (u16 id = q->size; id-- > 0;) {
        q->ring->desc[id].address = q->buffer_dma.bus.v + (u64)id * BUFFER_BYTES;
        q->free[q->free_count++] = id;
    }
    mmio_write16(common(v), QUEUE_SIZE, q->size);
    common_write64(v, QUEUE_DESC, q->ring_dma.bus.v + offsetof(struct rings, desc));
    common_write64(v, QUEUE_DRIVER, q->ring_dma.bus.v + offsetof(struct rings, avail));
    common_write64(v, QUEUE_DEVICE, q->ring_dma.bus.v + offsetof(struct rings, used));
    mmio_write16(common(v), QUEUE_VECTOR, vector);
    if (vector != NO_VECTOR && mmio_read16(common(v), QUEUE_VECTOR) == NO_VECTOR)
        v->nic.has_irq = false; /* 4.1.5.1.2: the device has no room for the vector */
    mmio_write16(common(v), QUEUE_ENABLE, 1);
    return OK;
}

static void mac_read(struct virtio *v)
{
    if (!(v->features & F_MAC)) {
        random_bytes(v->nic.mac, sizeof v->nic.mac);
        v->nic.mac[0] = (u8)((v->nic.mac[0] & ~1u) | 2); /* one machine, locally given */
        return;
    }
    for (u32 i = 0; i < sizeof v->nic.mac; i++)
        v->nic.mac[i] = mmio_read8(&v->window[WINDOW_DEVICE], CONFIG_MAC + i);
}

/* The detector has logged. A device that keeps on is left off. */
static void restart(struct virtio *v)
{
    v->nic.stats.rx_errors++;
    v->dead = ++v->faults > FAULTS_MAX || start(v) != OK;
    if (v->dead && device_reset(v) == OK)
        log_error(v->dev->name, "virtio: switched off after %u faults", v->faults);
}

/* ---- split queues, 2.7. The device may write at any moment: every field is read once. ---- */

static u16 load16(const u16 *from)
{
    return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static void queue_give(struct queue *q, u16 id, u32 len, u16 flags)
{
    q->ring->desc[id].len = len;
    q->ring->desc[id].flags = flags;
    q->ring->avail.ring[q->avail_idx++ % q->size] = id;
    q->with_device[id] = true;
    q->given++;
    dma_wmb();
    __atomic_store_n(&q->ring->avail.idx, q->avail_idx, __ATOMIC_RELEASE);
}

static void queue_notify(struct virtio *v, struct queue *q)
{
    dma_mb(); /* 2.7.13.4.1: our index before their flag */
    if (!(load16(&q->ring->used.flags) & USED_NO_NOTIFY))
        mmio_write16(&v->window[WINDOW_NOTIFY], q->notify_offset, q->number);
}

/* The next buffer that the device gave back, not yet taken. E_NOTFOUND: none. E_DEVICE: it broke
 * the rules. */
static err queue_peek(const struct virtio *v, const struct queue *q, struct used_entry *out)
{
    u16 ahead = (u16)(load16(&q->ring->used.idx) - q->used_idx);
    const struct used_entry *entry = &q->ring->used.ring[q->used_idx % q->size];

    if (ahead == 0)
        return E_NOTFOUND;
    dma_rmb();
    out->id = __atomic_load_n(&entry->id, __ATOMIC_RELAXED);
    out->len = __atomic_load_n(&entry->len, __ATOMIC_RELAXED);
    if (ahead <= q->given && out->id < q->size && q->with_device[out->id])
        return OK;
    log_error(v->dev->name,
              "virtio queue %u: want at most %u buffers back and an id below %u, saw %u and id %u",
              q->number, q->given, q->size, ahead, out->id);
    return E_DEVICE;
}

static void queue_take(struct queue *q, u16 id)
{
    q->with_device[id] = false;
    q->given--;
    q->used_idx++;
}

/* ---- the nic face ---- */

static struct virtio *virtio_of(struct nic *nic)
{
    CHECK(nic->ops == &virtio_ops);
    return (struct virtio *)nic;
}

static bool link_up(struct nic *nic)
{
    struct virtio *v = virtio_of(nic);

    if (v->dead)
        return false;
    u8 status = mmio_read8(common(v), DEVICE_STATUS);
    if (status == GONE || status & NEEDS_RESET) {
        log_error(v->dev->name, "virtio: want status %02x, saw %02x", RUNNING, status);
        restart(v);
    }
    return !v->dead && (!(v->features & F_STATUS) ||
                        mmio_read16(&v->window[WINDOW_DEVICE], CONFIG_STATUS) & CONFIG_LINK_UP);
}

static void rx_fill(struct virtio *v)
{
    while (v->rx.free_count)
        queue_give(&v->rx, v->rx.free[--v->rx.free_count], BUFFER_BYTES, DESC_DEVICE_WRITES);
}

/* What stands before a frame in its first buffer: how many buffers it has (5.1.6.4), what was
 * verified. */
static err header_read(struct virtio *v, struct nic_frame *frame)
{
    struct header header;

    memcpy(&header, frame->data, sizeof header);
    dma_rmb();
    v->parts_left = v->features & F_MRG_RXBUF ? header.buffer_count : 1;
    frame->checksum_good = header.flags & (HEADER_NEEDS_CSUM | HEADER_DATA_VALID);
    frame->data += sizeof header;
    frame->len -= (u32)sizeof header; /* wraps when there was none: then it is too long */
    if (frame->len < BUFFER_BYTES && v->parts_left && v->parts_left <= v->rx.given)
        return OK;
    log_error(v->dev->name, "virtio: want a header, then 1..%u buffers, saw %u bytes and %u",
              v->rx.given, frame->len, v->parts_left);
    return E_DEVICE;
}

static bool rx_next(struct nic *nic, struct nic_frame *frame)
{
    struct virtio *v = virtio_of(nic);
    struct used_entry entry;
    err got = v->dead ? E_NOTFOUND : queue_peek(v, &v->rx, &entry);

    if (got == OK && entry.len > BUFFER_BYTES) {
        log_error(v->dev->name, "virtio: want at most %u bytes in a buffer, saw %u", BUFFER_BYTES,
                  entry.len);
        got = E_DEVICE;
    }
    if (got == OK) {
        *frame = (struct nic_frame){.data = v->rx.buffers + (usize)entry.id * BUFFER_BYTES,
                                    .len = entry.len};
        if (!v->in_frame)
            got = header_read(v, frame);
        frame->more = v->parts_left > 1;
        v->rx_id = (u16)entry.id;
        v->rx_len = frame->len;
    }
    if (got == E_NOTFOUND && v->rx_unnotified) {
        queue_notify(v, &v->rx);
        v->rx_unnotified = false;
    }
    if (got == E_DEVICE)
        restart(v);
    return got == OK;
}

/* The buffer goes back at once; the doorbell waits for the end of the batch. */
static void rx_release(struct nic *nic)
{
    struct virtio *v = virtio_of(nic);

    queue_take(&v->rx, v->rx_id);
    queue_give(&v->rx, v->rx_id, BUFFER_BYTES, DESC_DEVICE_WRITES);
    v->rx_unnotified = true;
    v->in_frame = --v->parts_left > 0;
    nic->stats.rx_bytes += v->rx_len;
    nic->stats.rx_frames += !v->in_frame;
}

/* Takes back what was sent; a device that sends nothing for long with a full queue is restarted. */
static void tx_collect(struct virtio *v)
{
    struct used_entry entry;
    err got;

    while ((got = queue_peek(v, &v->tx, &entry)) == OK) {
        queue_take(&v->tx, (u16)entry.id);
        v->tx.free[v->tx.free_count++] = (u16)entry.id;
        v->tx_progress_ns = time_ns();
    }
    if (got == E_NOTFOUND && !v->tx.free_count && time_ns() - v->tx_progress_ns > TX_STALL_NS) {
        log_error(v->dev->name, "virtio: want frames sent within 5 s, saw none of %u", v->tx.given);
        got = E_DEVICE;
    }
    if (got == E_DEVICE)
        restart(v);
}

static err tx(struct nic *nic, struct str frame, u16 csum_start, u16 csum_offset)
{
    struct virtio *v = virtio_of(nic);

    if (frame.len > BUFFER_BYTES - sizeof(struct header))
        return E_LIMIT;
    if (!v->dead)
        tx_collect(v);
    if (v->dead || !v->tx.free_count)
        return v->dead ? E_DEVICE : E_BUSY;
    if (v->tx.given == 0)
        v->tx_progress_ns = time_ns();
    u16 id = v->tx.free[--v->tx.free_count];
    u8 *buffer = v->tx.buffers + (usize)id * BUFFER_BYTES;
    struct header header = {0};
    if (csum_start)
        header = (struct header){
            .flags = HEADER_NEEDS_CSUM, .csum_start = csum_start, .csum_offset = csum_offset};
    memcpy(buffer, &header, sizeof header);
    memcpy(buffer + sizeof header, frame.ptr, frame.len);
    queue_give(&v->tx, id, (u32)(sizeof header + frame.len), 0);
    nic->stats.tx_frames++;
    nic->stats.tx_bytes += frame.len;
    return OK;
}

static void tx_kick(struct nic *nic)
{
    struct virtio *v = virtio_of(nic);

    if (!v->dead)
        queue_notify(v, &v->tx);
}

static void irq(struct nic *nic, bool on)
{
    struct virtio *v = virtio_of(nic);

    v->rx.ring->avail.flags = on ? 0 : AVAIL_NO_INTERRUPT;
    dma_mb(); /* 2.7.7: the flag before the caller's last look at the ring */
}

static void stop(struct nic *nic)
{
    struct virtio *v = virtio_of(nic);

    v->dead = true;
    (void)device_reset(v);
    pci_vector_off(v->dev, 0);
    pci_enable(v->dev, false);
}

static const struct nic_ops virtio_ops = {
    .link_up = link_up,
    .rx_next = rx_next,
    .rx_release = rx_release,
    .tx = tx,
    .tx_kick = tx_kick,
    .irq = irq,
    .stop = stop,
};
