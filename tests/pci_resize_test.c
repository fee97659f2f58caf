/*
 * pci_resize_test.c: a BAR made as large as it can be behind a card's own switch: every bridge
 * above gets a window, the other prefetchable BAR moves along; nothing is touched where it may not
 * be.
 */
#include "tests/pci_fake.h"
#include "tests/test.h"

#define REBAR 0x200u

/* Root port 0:1 -> upstream 1:0 -> downstream 2:0 -> the card 3:0 with BARs 0 (256 MB) and 2 (2
 * MB). */
static struct fake_function *build(struct fake_bus **out)
{
    struct fake_bus *fake = *out = fake_bus_new();

    fake_bridge(fake_add(fake, 0, 1, 0, 0x00011022), 1, 3, 0xfe00, 0xfe00);
    fake_bridge(fake_add(fake, 1, 0, 0, 0x14781002), 2, 3, 0xfe00, 0xfe00);
    fake_bridge(fake_add(fake, 2, 0, 0, 0x14791002), 3, 3, 0xfe00, 0xfe00);
    struct fake_function *card = fake_add(fake, 3, 0, 0, 0x744c1002);
    fake_bar(card, 0, 256 * MIB, 0x0000000c);
    fake_bar(card, 2, 2 * MIB, 0x1000000c);
    card->bar_mask[1] = card->bar_mask[3] = UINT32_MAX;
    fake_put(card, 20, 4, 0x10); /* at 0x10_00000000, 0x10_10000000 */
    fake_put(card, 28, 4, 0x10);
    fake_put(card, 0x100, 4, 0x20010001); /* another capability, then this one */
    fake_put(card, REBAR, 4, 0x00010015);
    fake_put(card, REBAR + 4, 4, 0xff << 12);          /* 256 MB to 32 GB */
    fake_put(card, REBAR + 8, 4, 8 << 8 | 1 << 5 | 0); /* 256 MB, one entry, BAR 0 */
    return card;
}

static struct pci_dev *card_of(struct fake_bus *fake)
{
    return pci_find(&fake->bus, NULL, 0x1002, 0x744c);
}

TEST(pci_resize_moves_bars_and_windows)
{
    struct fake_bus *fake;
    struct fake_function *card = build(&fake);

    EXPECT_OK(fake_start(fake));
    struct pci_dev *dev = card_of(fake);
    EXPECT_EQ(dev->bar[0].bytes, 256 * MIB);
    EXPECT_OK(pci_resize_bar(&fake->bus, dev, 0));
    EXPECT_EQ(dev->bar[0].bytes, 32 * GIB);
    EXPECT_EQ(dev->bar[0].base % (32 * GIB), 0);
    EXPECT_EQ(dev->bar[2].base, dev->bar[0].base + 32 * GIB);
    EXPECT_EQ(fake_get(card, REBAR + 8, 4) >> 8 & 0x3f, 15);
    EXPECT_EQ(fake_get(card, 20, 4), dev->bar[0].base >> 32);
    EXPECT_EQ(fake_get(card, 28, 4), dev->bar[2].base >> 32);
    EXPECT_EQ(fake_get(card, 4, 2) & 2, 2); /* decoding again */
    for (u32 i = 0; i < 3; i++) {
        const struct fake_function *bridge = &fake->at[i];
        u64 base = (u64)fake_get(bridge, 40, 4) << 32 | (fake_get(bridge, 36, 2) & 0xfff0) << 16;
        u64 last = (u64)fake_get(bridge, 44, 4) << 32 | (fake_get(bridge, 38, 2) & 0xfff0) << 16;
        EXPECT_EQ(base, dev->bar[0].base);
        EXPECT(last + MIB >= dev->bar[2].base + dev->bar[2].bytes);
    }
    EXPECT_OK(pci_resize_bar(&fake->bus, dev, 0)); /* it is so already */
}

TEST(pci_resize_leaves_alone_what_it_must)
{
    struct fake_bus *fake;
    struct fake_function *card = build(&fake);

    fake_put(card, REBAR + 8, 4, 8 << 8 | 1 << 5 | 2); /* not this BAR */
    EXPECT_OK(fake_start(fake));
    EXPECT_EQ(pci_resize_bar(&fake->bus, card_of(fake), 0), E_UNSUPPORTED);

    build(&fake);
    struct fake_function *neighbour = fake_add(fake, 3, 1, 0, 0x00021002);
    fake_bar(neighbour, 0, MIB, 0x2000000c);
    neighbour->bar_mask[1] = UINT32_MAX;
    fake_put(neighbour, 20, 4, 0x10);
    EXPECT_OK(fake_start(fake));
    u64 before = card_of(fake)->bar[0].base;
    EXPECT_EQ(pci_resize_bar(&fake->bus, card_of(fake), 0), E_NOMEM);
    EXPECT_EQ(card_of(fake)->bar[0].base, before);
    EXPECT_EQ(card_of(fake)->bar[0].bytes, 256 * MIB);
}
