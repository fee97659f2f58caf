/*
 * pci_walk_test.c: the walk, BAR sizes, capabilities and reset, on devices that behave and that
 * lie.
 */
#include "tests/pci_fake.h"
#include "tests/test.h"

TEST(pci_walk_finds_functions_behind_bridges_and_other_roots)
{
    struct fake_bus *fake = fake_bus_new();

    fake_put(fake_add(fake, 0, 3, 0, 0x00018086), 14, 1, 0x80); /* says: more functions */
    (void)fake_add(fake, 0, 3, 5, 0x00058086);
    (void)fake_add(fake, 0, 4, 0, 0x00028086);
    (void)fake_add(fake, 0, 4, 1, 0x00ff8086); /* function 0 has not said that it is there */
    fake_bridge(fake_add(fake, 0, 5, 0, 0x000c1b36), 9, 9, 0x8000, 0x8000);
    (void)fake_add(fake, 9, 31, 0, 0x10411af4);
    (void)fake_add(fake, 64, 0, 0, 0x00031022); /* a root of its own */
    (void)fake_add(fake, 64, 7, 0, 0x00041022);
    EXPECT_OK(fake_start(fake));
    EXPECT_EQ(fake->bus.dev_count, 7);
    EXPECT_STR(str_of(fake->bus.dev[1].name), STR("00:03.5"));
    EXPECT(pci_find(&fake->bus, NULL, 0x1af4, 0x1041)->bus == 9);
    EXPECT(pci_find(&fake->bus, NULL, 0x1022, 0xffff)->device == 0);
    EXPECT(
        pci_find(&fake->bus, pci_find(&fake->bus, NULL, 0x1022, 0xffff), 0x1022, 0xffff)->device ==
        7);
    EXPECT(pci_find(&fake->bus, NULL, 0x8086, 0x00ff) == NULL);
    const struct pci_dev *bridge = pci_find(&fake->bus, NULL, 0x1b36, 0x000c);
    EXPECT(bridge->secondary == 9 && bridge->class_code == 6 && bridge->subclass == 4);
}

/* No device but a bridge may reach memory before its driver says so; sizing leaves BARs as they
 * were. */
TEST(pci_walk_sizes_bars_and_turns_bus_masters_off)
{
    struct fake_bus *fake = fake_bus_new();
    struct fake_function *f = fake_add(fake, 0, 1, 0, 0x00011234);

    fake_bar(f, 0, 0x4000, 0x80000000);
    f->bar_mask[1] = 0xfff00000; /* 64 bits: 16 GiB and prefetchable */
    fake_put(f, 20, 4, 0x0000000c);
    f->bar_mask[1] = 0;
    f->bar_mask[2] = 0xfffffffc;
    fake_put(f, 24, 4, 0x000000c0);
    f->bar_mask[3] = 0xffe0; /* I/O with 16 address bits */
    fake_put(f, 28, 4, 0x00006001);
    EXPECT_OK(fake_start(fake));
    const struct pci_dev *dev = &fake->bus.dev[0];
    EXPECT(dev->bar[0].base == 0x80000000 && dev->bar[0].bytes == 0x4000 && !dev->bar[0].is_64);
    EXPECT(dev->bar[1].base == 0xc000000000 && dev->bar[1].bytes == 16 * GIB);
    EXPECT(dev->bar[1].is_64 && dev->bar[1].prefetchable && dev->bar[2].bytes == 0);
    EXPECT(dev->bar[3].is_io && dev->bar[3].base == 0x6000 && dev->bar[3].bytes == 32);
    EXPECT(dev->bar[4].bytes == 0 && dev->bar[5].bytes == 0);
    EXPECT_EQ(fake_get(f, 16, 4), 0x80000000);
    EXPECT_EQ(fake_get(f, 4, 2), 0x403);
    pci_enable(&fake->bus.dev[0], true);
    EXPECT_EQ(fake_get(f, 4, 2), 0x407);
}

TEST(pci_walk_refuses_lying_bars)
{
    struct fake_bus *fake = fake_bus_new();
    struct fake_function *f = fake_add(fake, 0, 1, 0, 0x00011234);

    f->bar_mask[0] = 0xf0f0f000; /* no power of two */
    f->bar_mask[5] = 0xfffff000;
    fake_put(f, 36, 4, 4); /* 64 bits, and no register left for the upper half */
    EXPECT_OK(fake_start(fake));
    struct mmio mmio;
    for (u32 i = 0; i < 7; i++)
        EXPECT(pci_map_bar(&fake->bus.dev[0], i, &mmio) != OK);
}

TEST(pci_walk_survives_all_ones_and_unknown_headers)
{
    struct fake_bus *fake = fake_bus_new();

    fake_add(fake, 0, 1, 0, 0x00011234)->gone = true;
    fake_put(fake_add(fake, 0, 2, 0, 0x00021234), 14, 1, 0x7e);
    (void)fake_add(fake, 0, 3, 0, 0x00000000);
    (void)fake_add(fake, 0, 4, 0, 0x00041234);
    EXPECT_OK(fake_start(fake));
    EXPECT_EQ(fake->bus.dev_count, 1);
    EXPECT_EQ(fake->bus.dev[0].id, 4);
}

static void cap(struct fake_function *f, u8 at, u8 id, u8 next)
{
    fake_put(f, 6, 2, 0x10);
    fake_put(f, at, 1, id);
    fake_put(f, at + 1u, 1, next);
}

/* A list that runs in a circle, or off into nowhere, ends. */
TEST(pci_walk_bounds_capability_lists)
{
    struct fake_bus *fake = fake_bus_new();
    struct fake_function *f = fake_add(fake, 0, 1, 0, 0x00011234);

    fake_put(f, 52, 1, 0x40);
    cap(f, 0x40, 9, 0x50);
    cap(f, 0x50, 9, 0x60);
    cap(f, 0x60, 5, 0x40);
    for (u32 at = 256; at < 4096;
         at += 4) /* every extended one points at the next, the last at the first */
        fake_put(f, at, 4, (at + 4 < 4096 ? at + 4 : 256) << 20 | 0x10007);
    EXPECT_OK(fake_start(fake));
    const struct pci_dev *dev = &fake->bus.dev[0];
    EXPECT_EQ(pci_find_cap(dev, 9, 0), 0x40);
    EXPECT_EQ(pci_find_cap(dev, 9, 0x40), 0x50);
    EXPECT_EQ(pci_find_cap(dev, 5, 0), 0x60);
    EXPECT_EQ(pci_find_cap(dev, 0x11, 0), 0);
    EXPECT_EQ(pci_find_ext_cap(dev, 7), 256);
    EXPECT_EQ(pci_find_ext_cap(dev, 8), 0);
    fake_put(f, 52, 1, 0x10); /* into the header */
    EXPECT_EQ(pci_find_cap(dev, 9, 0), 0);
}

/* A reset loses BARs and command; both come back, bus mastering does not. */
TEST(pci_reset_restores_what_it_lost)
{
    struct fake_bus *fake = fake_bus_new();
    struct fake_function *f = fake_add(fake, 0, 1, 0, 0x00011234);

    fake_bar(f, 0, 0x1000, 0x80000000);
    fake_put(f, 52, 1, 0x40);
    cap(f, 0x40, 0x10, 0);
    EXPECT_OK(fake_start(fake));
    EXPECT_EQ(pci_reset_function(&fake->bus.dev[0]), E_UNSUPPORTED);
    fake_put(f, 0x44, 4, 1u << 28);
    EXPECT_OK(pci_reset_function(&fake->bus.dev[0]));
    EXPECT_EQ(f->resets, 1);
    EXPECT_EQ(fake_get(f, 16, 4), 0x80000000);
    EXPECT_EQ(fake_get(f, 4, 2), 0x402);
}

/* What firmware left without an address gets one that touches nothing else. */
TEST(pci_assign_fills_gaps_only)
{
    struct fake_bus *fake = fake_bus_new();
    struct fake_function *placed = fake_add(fake, 0, 1, 0, 0x00011234);
    struct fake_function *root = fake_add(fake, 0, 2, 0, 0x00021234);
    struct fake_function *shut = fake_add(fake, 0, 3, 0, 0x000c1b36);
    struct fake_function *open = fake_add(fake, 0, 4, 0, 0x000c1b36);
    struct fake_function *behind_shut = fake_add(fake, 1, 0, 0, 0x00031234);
    struct fake_function *behind_open = fake_add(fake, 2, 0, 0, 0x00041234);

    fake_bar(placed, 0, 0x100000, 0x80000000);
    fake_bar(root, 0, 0x2000, 0);
    fake_bridge(shut, 1, 1, 0xfff0, 0);
    fake_bridge(open, 2, 2, 0x8010, 0x8010);
    fake_bar(behind_shut, 0, 0x200000, 0);
    fake_bar(behind_open, 0, 0x80000, 0x80100000);
    fake_bar(behind_open, 1, 0x40000, 0);
    fake_bar(behind_open, 2, 0x200000, 0); /* more than the window has */
    EXPECT_OK(fake_start(fake));
    u32 at_root = fake_get(root, 16, 4), window = fake_get(shut, 32, 2) & 0xfff0;
    EXPECT(window << 16 >= 0x80200000 && (window << 16) % 0x200000 == 0);
    EXPECT_EQ(fake_get(shut, 34, 2) & 0xfff0, window + 0x10);
    EXPECT_EQ(fake_get(behind_shut, 16, 4), window << 16);
    EXPECT(at_root >= 0x80200000 &&
           (at_root < window << 16 || at_root >= (window << 16) + 0x200000));
    EXPECT_EQ(fake_get(behind_open, 20, 4), 0x80180000);
    EXPECT_EQ(fake->bus.dev[5].bar[2].bytes, 0);
    EXPECT_EQ(fake_get(placed, 16, 4), 0x80000000);
}
