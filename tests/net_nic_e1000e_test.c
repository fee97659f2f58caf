/*
 * net_nic_e1000e_test.c: the 82574 driver against a card made of plain memory that does what the
 * datasheet says, or refuses to.
 */
#include "tests/net_nic_fake.h"

#define nic_e1000e_start nic_e1000e_under_test
struct nic *nic_e1000e_under_test(struct pci_bus *bus);
#include "net/nic_e1000e.c"

static struct {
    u32 reg[REGISTERS_BYTES / 4];
    u32 rx_head, tx_head;
    u32 resets, sent;
    char last_sent[BUFFER_BYTES];
    bool keeps_mastering, reset_hangs, gone, sends_nothing;
} card;

#define REG(name) card.reg[(name) / 4]

static u64 regs_read(void *ctx, u64 offset, u32 width)
{
    (void)ctx;
    EXPECT_EQ(width, 4);
    if (card.gone)
        return ALL_ONES;
    if (offset == STATUS && (!(REG(CTRL) & CTRL_MASTER_DISABLE) || card.keeps_mastering))
        return REG(STATUS) | STATUS_MASTER;
    return card.reg[offset / 4];
}

static void card_sends(void);

static void regs_write(void *ctx, u64 offset, u32 width, u64 value)
{
    (void)ctx;
    EXPECT_EQ(width, 4);
    card.reg[offset / 4] = (u32)value;
    if (offset == CTRL && value & CTRL_RESET) {
        card.resets++;
        REG(CTRL) = card.reset_hangs ? CTRL_RESET : 0;
        REG(RCTL) = REG(TCTL) = REG(IMS) = 0;
        REG(RDT) = REG(TDT) = card.rx_head = card.tx_head = 0;
    }
    if (offset == IMC)
        REG(IMS) &= ~(u32)value;
    if (offset == TDT)
        card_sends();
}

static const struct mmio_ops regs_ops = {regs_read, regs_write};

static void card_new(void)
{
    memset(&card, 0, sizeof card);
    bus_fake_reset(INTEL, E1000E_82574);
    bus_fake.bar[0] = (struct mmio){.bytes = REGISTERS_BYTES, .ops = &regs_ops};
    REG(RAL) = 0x12005452;
    REG(RAH) = 0x80005634;
    REG(STATUS) = STATUS_LINK_UP;
    REG(EECD) = EECD_AUTO_READ_DONE;
}

static struct nic *started(void)
{
    card_new();
    struct nic *nic = nic_e1000e_under_test(NULL);
    EXPECT(nic != NULL);
    return nic;
}

static void *ring_at(u32 base, u32 index, u32 bytes)
{
    u64 bus = (u64)card.reg[base / 4 + 1] << 32 | card.reg[base / 4];

    return (u8 *)(uintptr_t)bus + index * bytes;
}

static void card_sends(void)
{
    while (!card.sends_nothing && card.tx_head != REG(TDT)) {
        struct tx_desc *at = ring_at(TDBAL, card.tx_head, sizeof *at);
        EXPECT(at->command == (TX_END | TX_ADD_CRC | TX_REPORT) && REG(TCTL) & TCTL_ON);
        memcpy(card.last_sent, (void *)(uintptr_t)at->address, at->len);
        at->status = TX_DONE;
        card.tx_head = (card.tx_head + 1) % RING_SIZE;
        card.sent++;
    }
}

/* False when the driver has left no descriptor. */
static bool card_receives(u16 len, u8 fill, u8 status, u8 errors)
{
    struct rx_desc *at = ring_at(RDBAL, card.rx_head, sizeof *at);

    if (card.rx_head == REG(RDT) || !(REG(RCTL) & RCTL_ON))
        return false;
    memset((void *)(uintptr_t)at->address, fill, min_u32(len, BUFFER_BYTES));
    at->len = len;
    at->errors = errors;
    at->status = status;
    card.rx_head = (card.rx_head + 1) % RING_SIZE;
    return true;
}

/* Guards: the start of section 4.6: reset, address, rings, link, no interrupt until it is asked
 * for. */
TEST(net_nic_e1000e_starts)
{
    struct nic *nic = started();

    EXPECT(memcmp(nic->mac, "\x52\x54\0\x12\x34\x56", 6) == 0);
    EXPECT_EQ(card.resets, 1);
    EXPECT(REG(CTRL) & CTRL_LINK_UP);
    EXPECT(REG(RCTL) & RCTL_ON && REG(TCTL) & TCTL_ON);
    EXPECT_EQ(REG(RDT), RING_SIZE - 1);
    EXPECT_EQ(REG(IMS), 0);
    nic->ops->irq(nic, true);
    EXPECT_EQ(REG(IMS), CAUSES);
    EXPECT_EQ(REG(ICR), ALL_ONES);
    nic->ops->irq(nic, false);
    EXPECT_EQ(REG(IMS), 0);
    EXPECT(nic->ops->link_up(nic));
    REG(STATUS) = 0;
    EXPECT(!nic->ops->link_up(nic));
}

/* Guards: a card that cannot be used gives no nic, and no hang. */
TEST(net_nic_e1000e_refuses_unusable_cards)
{
    card_new();
    card.keeps_mastering = true;
    EXPECT(!nic_e1000e_under_test(NULL));
    card_new();
    card.reset_hangs = true;
    EXPECT(!nic_e1000e_under_test(NULL));
    card_new();
    REG(EECD) = 0;
    EXPECT(!nic_e1000e_under_test(NULL));
    card_new();
    card.gone = true;
    EXPECT(!nic_e1000e_under_test(NULL));
    card_new();
    REG(RAL) = 0x12005453; /* an address of many */
    EXPECT(!nic_e1000e_under_test(NULL));
    card_new();
    REG(RAL) = 0, REG(RAH) = 0x80000000;
    EXPECT(!nic_e1000e_under_test(NULL));
    card_new();
    bus_fake.bar[0].bytes = 0x1000;
    EXPECT(!nic_e1000e_under_test(NULL));
    card_new();
    bus_fake.dma_left = 0;
    EXPECT(!nic_e1000e_under_test(NULL));
}

/* Guards: frames, checksum marks, damaged frames that are marked, and a ring that never runs dry.
 */
TEST(net_nic_e1000e_receives)
{
    struct nic *nic = started();
    struct nic_frame frame;

    for (u32 i = 0; i < 3000; i++) {
        u8 errors = i % 5 == 0 ? 1 : i % 7 == 0 ? RX_CHECKSUM_BAD : 0;
        u8 status = RX_DONE | RX_END | (i % 3 ? 1 << 5 : RX_NOT_CHECKED);
        EXPECT(card_receives(60, (u8)i, status, errors));
        EXPECT(nic->ops->rx(nic, &frame));
        EXPECT_EQ(frame.len, i % 5 ? 60 : 0);
        if (i % 5 == 0)
            continue;
        EXPECT(frame.data[0] == (u8)i && frame.data[59] == (u8)i);
        EXPECT_EQ(frame.checksum_good, i % 3 && i % 7);
    }
    EXPECT(!nic->ops->rx(nic, &frame));
    for (u32 i = 0; i < RING_SIZE - 1; i++)
        EXPECT(card_receives(60, 1, RX_DONE | RX_END, 0));
    EXPECT(!card_receives(60, 1, RX_DONE | RX_END, 0)); /* full, never overrun */
    for (u32 i = 0; i < RING_SIZE - 1; i++)
        EXPECT(nic->ops->rx(nic, &frame));
    EXPECT(!nic->failed);
    EXPECT_EQ(card.resets, 1);
}

/* Guards: what is sent, a full ring, and that descriptors come back. */
TEST(net_nic_e1000e_sends)
{
    struct nic *nic = started();

    for (u32 i = 0; i < 1000; i++)
        EXPECT_OK(nic->ops->tx(nic, STR("hello"), 0));
    EXPECT_EQ(card.sent, 1000);
    EXPECT(memcmp(card.last_sent, "hello", 5) == 0);
    u32 count = 0;
    card.sends_nothing = true;
    while (nic->ops->tx(nic, STR("more"), 0) == OK)
        count++;
    EXPECT_EQ(count, RING_SIZE - 1);
    card.sends_nothing = false;
    card_sends();
    EXPECT_OK(nic->ops->tx(nic, STR("room again"), 0));
}

/* Guards: a length beyond the buffer is a fault; after a restart frames arrive again. */
TEST(net_nic_e1000e_notices_a_lie)
{
    struct nic *nic = started();
    struct nic_frame frame;

    for (u32 n = 0; n < 3; n++) {
        EXPECT(card_receives(60, 9, RX_DONE | RX_END, 0));
        EXPECT(nic->ops->rx(nic, &frame));
        EXPECT(card_receives(BUFFER_BYTES + 1, 9, RX_DONE | RX_END, 0));
        EXPECT(!nic->ops->rx(nic, &frame) && nic->failed);
        nic->failed = false;
        EXPECT_OK(nic->ops->start(nic));
    }
}

/* Guards: a card that is pulled out (all ones) is a fault that no restart cures; stop turns it off.
 */
TEST(net_nic_e1000e_notices_that_it_is_gone)
{
    struct nic *nic = started();

    EXPECT_OK(nic->ops->reset(nic));
    EXPECT_EQ(REG(RCTL), 0);
    EXPECT_OK(nic->ops->start(nic));
    card.gone = true;
    EXPECT(!nic->ops->link_up(nic) && nic->failed);
    EXPECT_EQ(nic->ops->start(nic), E_DEVICE);
}
