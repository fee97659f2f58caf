/*
 * nic_e1000e.c: Intel 82574L and what imitates it. One receive and one transmit ring of legacy
 * descriptors, one interrupt for everything. Trusts no length that the device writes. Knows no
 * protocol above Ethernet.
 * Follows: Intel 82574 GbE Controller Family Datasheet, revision 3.4: 4.6 (software start), 7.1
 * (receive), 7.2 (transmit), 7.4 (interrupts), 10.2 (registers).
 */
#include "net/net.h"
#include "pci/pci.h"

#define REGISTERS_BYTES 0x8000u
#define RING_SIZE       256u
#define BUFFER_BYTES    2048u
#define RESET_WAIT_MS   100u
#define RESET_QUIET_NS  NS_PER_MS /* no access while the reset runs */
#define ALL_ONES        0xffffffffu

// clang-format off
enum { INTEL = 0x8086, E1000E_82574 = 0x10d3 };
enum reg {
    CTRL = 0x0000, STATUS = 0x0008, EECD = 0x0010, CTRL_EXT = 0x0018,       /* 10.2.2 general */
    ICR = 0x00c0, IMS = 0x00d0, IMC = 0x00d8, EIAC = 0x00dc, IVAR = 0x00e4, /* 10.2.4 interrupts */
    RCTL = 0x0100, RDBAL = 0x2800, RDBAH = 0x2804, RDLEN = 0x2808,          /* 10.2.5 receive */
    RDT = 0x2818, RXCSUM = 0x5000, RAL = 0x5400, RAH = 0x5404,
    TCTL = 0x0400, TIPG = 0x0410, TDBAL = 0x3800, TDT = 0x3818, TXDCTL = 0x3828, /* 10.2.6 */
};
enum field {
    CTRL_MASTER_DISABLE = 1 << 2, CTRL_LINK_UP = 1 << 6, CTRL_FORCE_SPEED_DUPLEX = 3 << 11,
    CTRL_RESET = 1 << 26, STATUS_LINK_UP = 1 << 1, STATUS_MASTER = 1 << 19,
    EECD_AUTO_READ_DONE = 1 << 9, CTRL_EXT_DRIVER_LOADED = 1 << 28,
    IVAR_RXQ0_TO_0 = 8, IVAR_OTHER_TO_0 = 8 << 16,
    /* link, few buffers, overrun, frame; with MSI-X: queue 0, other */
    CAUSES = 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 20 | 1 << 24,
    RCTL_ON = 1 << 1, RCTL_ALL_MULTICAST = 1 << 4, RCTL_BROADCAST = 1 << 15,
    RCTL_STRIP_CRC = 1 << 26, RXCSUM_IP_TCP_UDP = 3 << 8,
    TCTL_ON = 1 << 1, TCTL_PAD_SHORT = 1 << 3, TCTL_COLLISIONS = 0xf << 4 | 0x3f << 12,
    TIPG_COPPER = 8 | 8 << 10 | 6 << 20, TXDCTL_WRITE_BACK_EACH = 1 << 16 | 1 << 22 | 1 << 24,
};
/* 7.1.4 and 7.2.10: legacy descriptors */
enum { RX_DONE = 1, RX_END = 2, RX_NOT_CHECKED = 4, RX_CHECKED = 3 << 4, RX_CHECKSUM_BAD = 1 << 5,
       RX_FRAME_BAD = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 7 };
enum { TX_END = 1, TX_ADD_CRC = 2, TX_REPORT = 8, TX_DONE = 1 };
struct rx_desc { u64 address; u16 len, checksum; u8 status, errors; u16 special; };
struct tx_desc { u64 address; u16 len; u8 csum_offset, command, status, csum_start; u16 special; };
_Static_assert(sizeof(struct rx_desc) == 16 && sizeof(struct tx_desc) == 16, "82574, 7.1.4");
// clang-format on

struct rings {
    struct rx_desc rx[RING_SIZE];
    struct tx_desc tx[RING_SIZE];
    struct {
        u8 rx[BUFFER_BYTES], tx[BUFFER_BYTES];
    } buffer[RING_SIZE];
};

struct e1000e {
    struct nic nic; /* first: the card is its nic */
    struct mmio regs;
    struct dma dma;
    struct rings *ring;
    u32 rx_next, tx_next; /* the descriptors whose turn it is */
};

static u32 reg_read(const struct e1000e *e, enum reg reg)
{
    return mmio_read32(&e->regs, reg);
}

static void reg_write(const struct e1000e *e, enum reg reg, u32 value)
{
    mmio_write32(&e->regs, reg, value);
}

/* ---- start, 4.6, step by step ---- */

static err reg_wait(struct e1000e *e, enum reg reg, u32 mask, u32 want)
{
    u64 end = time_ns() + RESET_WAIT_MS * NS_PER_MS;
    u32 seen;

    while (((seen = reg_read(e, reg)) & mask) != want && time_ns() < end)
        cpu_relax();
    if ((seen & mask) == want && seen != ALL_ONES)
        return OK;
    return nic_fault(&e->nic, reg == STATUS ? "no transfer under way" : "the end of reset", seen);
}

/* 4.6.2: no transfer may be under way when the reset comes; then the card reads its settings. */
static err reset(struct nic *nic)
{
    struct e1000e *e = (struct e1000e *)nic;

    reg_write(e, IMC, ALL_ONES);
    reg_write(e, RCTL, 0);
    reg_write(e, TCTL, 0);
    reg_write(e, CTRL, reg_read(e, CTRL) | CTRL_MASTER_DISABLE);
    TRY(reg_wait(e, STATUS, STATUS_MASTER, 0));
    reg_write(e, CTRL, reg_read(e, CTRL) | CTRL_RESET);
    for (u64 end = time_ns() + RESET_QUIET_NS; time_ns() < end;)
        cpu_relax();
    TRY(reg_wait(e, CTRL, CTRL_RESET, 0));
    TRY(reg_wait(e, EECD, EECD_AUTO_READ_DONE, EECD_AUTO_READ_DONE));
    reg_write(e, IMC, ALL_ONES);
    reg_write(e, ICR, ALL_ONES);
    return OK;
}

/* After a reset, head and tail are 0 and descriptors are the legacy ones. */
static void ring_write(const struct e1000e *e, enum reg base_low, usize offset)
{
    u64 bus = e->dma.bus.v + offset;

    reg_write(e, base_low, (u32)bus);
    reg_write(e, base_low + (RDBAH - RDBAL), (u32)(bus >> 32));
    reg_write(e, base_low + (RDLEN - RDBAL), RING_SIZE * (u32)sizeof(struct rx_desc));
}

/* 4.6.5 and 4.6.6. All multicast: mDNS and neighbour discovery live on it, lwIP sorts it out. */
static void rings_start(struct e1000e *e)
{
    for (u32 i = 0; i < RING_SIZE; i++) {
        u64 buffer = e->dma.bus.v + offsetof(struct rings, buffer) + (u64)i * 2 * BUFFER_BYTES;
        e->ring->rx[i] = (struct rx_desc){.address = buffer};
        e->ring->tx[i] = (struct tx_desc){.address = buffer + BUFFER_BYTES, .status = TX_DONE};
    }
    e->rx_next = e->tx_next = 0;
    dma_wmb();
    reg_write(e, RXCSUM, RXCSUM_IP_TCP_UDP);
    ring_write(e, RDBAL, offsetof(struct rings, rx));
    reg_write(e, RCTL, RCTL_ON | RCTL_ALL_MULTICAST | RCTL_BROADCAST | RCTL_STRIP_CRC);
    reg_write(e, RDT, RING_SIZE - 1); /* one less than all: equal indices mean empty */
    ring_write(e, TDBAL, offsetof(struct rings, tx));
    reg_write(e, TIPG, TIPG_COPPER);
    reg_write(e, TXDCTL, TXDCTL_WRITE_BACK_EACH);
    reg_write(e, TCTL, TCTL_ON | TCTL_PAD_SHORT | TCTL_COLLISIONS);
}

static err start(struct nic *nic)
{
    struct e1000e *e = (struct e1000e *)nic;

    TRY(reset(nic));
    u64 address = (u64)reg_read(e, RAH) << 32 | reg_read(e, RAL);
    if (address << 16 == 0 || address & 1)
        return nic_fault(nic, "an address of one machine", address);
    memcpy(nic->mac, &address, sizeof nic->mac);
    reg_write(e, CTRL_EXT, reg_read(e, CTRL_EXT) | CTRL_EXT_DRIVER_LOADED);
    reg_write(e, CTRL, (reg_read(e, CTRL) | CTRL_LINK_UP) & ~(u32)CTRL_FORCE_SPEED_DUPLEX);
    reg_write(e, IVAR, IVAR_RXQ0_TO_0 | IVAR_OTHER_TO_0);
    reg_write(e, EIAC, 0); /* causes are cleared when interrupts are armed, never by the card */
    rings_start(e);
    return OK;
}

/* ---- the nic face ---- */

static bool link_up(struct nic *nic)
{
    u32 status = reg_read((struct e1000e *)nic, STATUS);

    if (status == ALL_ONES)
        (void)nic_fault(nic, "a status: the card is gone", status);
    return !nic->failed && status & STATUS_LINK_UP;
}

static bool rx(struct nic *nic, struct nic_frame *frame)
{
    struct e1000e *e = (struct e1000e *)nic;
    struct rx_desc *at = &e->ring->rx[e->rx_next];
    u8 status = __atomic_load_n(&at->status, __ATOMIC_ACQUIRE);

    dma_rmb();
    u8 errors = __atomic_load_n(&at->errors, __ATOMIC_RELAXED);
    u16 len = __atomic_load_n(&at->len, __ATOMIC_RELAXED);
    if (!(status & RX_DONE) || nic->failed)
        return false;
    if (len > BUFFER_BYTES) {
        (void)nic_fault(nic, "a length within the buffer", len);
        return false;
    }
    bool sound = status & RX_END && !(errors & RX_FRAME_BAD) && len <= sizeof frame->data;
    frame->len = sound ? len : 0;
    frame->checksum_good =
        status & RX_CHECKED && !(status & RX_NOT_CHECKED) && !(errors & RX_CHECKSUM_BAD);
    memcpy(frame->data, e->ring->buffer[e->rx_next].rx, frame->len);
    at->status = 0;
    dma_wmb();
    reg_write(e, RDT, e->rx_next);
    e->rx_next = (e->rx_next + 1) % RING_SIZE;
    return true;
}

/* tx_checksum is false: imitations of the card ignore the legacy descriptor's request. */
static err tx(struct nic *nic, struct str frame, u16 tcp_start)
{
    struct e1000e *e = (struct e1000e *)nic;
    struct tx_desc *at = &e->ring->tx[e->tx_next];
    u32 next = (e->tx_next + 1) % RING_SIZE;

    CHECK(tcp_start == 0 && frame.len <= NIC_FRAME_MAX);
    if (!(__atomic_load_n(&e->ring->tx[next].status, __ATOMIC_ACQUIRE) & TX_DONE))
        return E_BUSY; /* the last free one stays so: equal indices mean empty */
    memcpy(e->ring->buffer[e->tx_next].tx, frame.ptr, frame.len);
    at->len = (u16)frame.len;
    at->status = 0;
    at->command = TX_END | TX_ADD_CRC | TX_REPORT;
    dma_wmb();
    reg_write(e, TDT, next);
    e->tx_next = next;
    return OK;
}

/* 7.4: causes that came up before do not interrupt again, so they are cleared first; the caller
 * looks at the ring afterwards. */
static void irq(struct nic *nic, bool on)
{
    struct e1000e *e = (struct e1000e *)nic;

    if (on)
        reg_write(e, ICR, ALL_ONES);
    reg_write(e, on ? IMS : IMC, CAUSES);
}

struct nic *nic_e1000e_start(struct pci_bus *bus)
{
    static const struct nic_ops ops = {reset, start, link_up, rx, tx, irq};
    struct pci_dev *dev = pci_find(bus, NULL, INTEL, E1000E_82574);
    struct e1000e *e = dev ? pages_alloc(sizeof *e) : NULL;

    if (!e)
        return NULL;
    e->nic = (struct nic){.name = dev->name, .ops = &ops};
    pci_enable(dev, true);
    if (pci_map_bar(dev, 0, &e->regs) != OK || e->regs.bytes < REGISTERS_BYTES ||
        dma_alloc(dev, sizeof *e->ring, 4096, &e->dma) != OK) {
        (void)nic_fault(&e->nic, "registers, and memory for rings", e->regs.bytes);
        return NULL;
    }
    e->ring = e->dma.ptr;
    e->nic.has_irq = pci_vector_on(dev, 0, nic_interrupted, NULL) == OK;
    return start(&e->nic) == OK ? &e->nic : NULL;
}
