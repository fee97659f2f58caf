/*
 * pci_irq_test.c: MSI-X and MSI as a device sees them, and tables that do not fit.
 */
#include "tests/pci_fake.h"
#include "tests/test.h"

static void nothing(void *ctx)
{
    (void)ctx;
}

static u32 table_word(u32 entry, u32 word)
{
    u32 value;
    memcpy(&value, fake_bar_bytes + 0x800 + entry * 16 + word * 4, 4);
    return value;
}

static struct pci_dev *device_with(struct fake_function **f, u8 cap)
{
    struct fake_bus *fake = fake_bus_new();

    *f = fake_add(fake, 0, 1, 0, 0x00011234);
    fake_bar(*f, 0, 0x1000, 0x80000000);
    fake_put(*f, 6, 2, 0x10);
    fake_put(*f, 52, 1, 0x40);
    fake_put(*f, 0x40, 1, cap);
    EXPECT_OK(fake_start(fake));
    return &fake->bus.dev[0];
}

/* Only what was asked for is unmasked. */
TEST(pci_msix_entries_are_masked_until_asked_for)
{
    struct fake_function *f;
    struct pci_dev *dev = device_with(&f, 0x11);

    fake_put(f, 0x42, 2, 3); /* four entries */
    fake_put(f, 0x44, 4, 0x800);
    EXPECT_EQ(pci_vectors(dev), 4);
    EXPECT_OK(pci_vector_on(dev, 2, nothing, NULL));
    EXPECT(table_word(0, 3) == 1 && table_word(1, 3) == 1 && table_word(3, 3) == 1);
    EXPECT(table_word(2, 3) == 0 && table_word(2, 0) == 0xfee01000 && table_word(2, 1) == 0);
    EXPECT_EQ(table_word(2, 2), 0x30);
    EXPECT_EQ(fake_get(f, 0x42, 2) & 0xc000, 0x8000);
    EXPECT_OK(pci_vector_on(dev, 0, nothing, NULL));
    EXPECT_EQ(table_word(0, 2), 0x31);
    EXPECT_EQ(fake_vectors_taken, 2);
    EXPECT_EQ(pci_vector_on(dev, 4, nothing, NULL), E_UNSUPPORTED);
}

TEST(pci_msix_tables_outside_the_bar_are_refused)
{
    static const struct {
        u16 entries;
        u32 where;
    } bad[] = {{0x7ff, 0x800}, {3, 0xff8}, {3, 0xfffffff8}, {3, 1}, {3, 6}, {3, 7}};

    for (u32 i = 0; i < ARRAY_LEN(bad); i++) {
        struct fake_function *f;
        struct pci_dev *dev = device_with(&f, 0x11);
        fake_put(f, 0x42, 2, bad[i].entries);
        fake_put(f, 0x44, 4, bad[i].where);
        EXPECT(pci_vector_on(dev, 0, nothing, NULL) != OK);
        EXPECT_EQ(fake_vectors_taken, 0);
    }
}

TEST(pci_msi_32_and_64_bits)
{
    for (u32 wide = 0; wide < 2; wide++) {
        struct fake_function *f;
        struct pci_dev *dev = device_with(&f, 0x05);
        fake_put(f, 0x42, 2, wide ? 0x80 | 0x70 : 0x70);
        EXPECT_EQ(pci_vectors(dev), 1);
        EXPECT_OK(pci_vector_on(dev, 0, nothing, NULL));
        EXPECT_EQ(fake_get(f, 0x44, 4), 0xfee01000);
        EXPECT_EQ(fake_get(f, wide ? 0x4c : 0x48, 2), 0x30);
        EXPECT_EQ(fake_get(f, 0x42, 2) & 0x71,
                  1);                      /* on, and one message of the many it was set to */
        fake_put(f, 0x42, 2, 0x80 * wide); /* a reset has taken it: again, by the same vector */
        fake_put(f, wide ? 0x4c : 0x48, 2, 0);
        EXPECT_OK(pci_vector_on(dev, 0, nothing, NULL));
        EXPECT_EQ(fake_get(f, wide ? 0x4c : 0x48, 2), 0x30);
        EXPECT_EQ(fake_get(f, 0x42, 2) & 1, 1);
        EXPECT_EQ(fake_vectors_taken, 1);
    }
}

/* The watchdog's registers open only after the two words that unlock them, in this order. */
TEST(pci_watchdog_is_started_and_fed)
{
    struct fake_bus *fake = fake_bus_new();
    struct fake_function *f = fake_add(fake, 0, 1, 0, 0x25ab8086);
    struct watchdog watchdog;

    fake_bar(f, 0, 0x10, 0x80000000);
    EXPECT_OK(fake_start(fake));
    EXPECT_EQ(watchdog_start(&fake->bus, 0, &watchdog), E_NOTFOUND);
    watchdog_feed(&watchdog);
    EXPECT_EQ(fake_bar_bytes[0x0d], 0);
    EXPECT_OK(watchdog_start(&fake->bus, 60, &watchdog));
    EXPECT(fake_get(f, 0x60, 2) == 3 && fake_get(f, 0x68, 1) == 2);
    u32 half;
    memcpy(&half, fake_bar_bytes, 4);
    EXPECT_EQ(half, 30000);
    EXPECT_EQ(fake_bar_bytes[0x0d], 1);
}
