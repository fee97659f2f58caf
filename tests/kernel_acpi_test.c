/*
 * kernel_acpi_test.c: what a firmware says, and what is done with half of it.
 */
#include "tests/kernel_acpi_fake.h"
#include "tests/test.h"

#define HEAD ((u32)sizeof(struct table))

static void put(u8 *body, u32 at, u64 value, u32 bytes)
{
    memcpy(body + at - HEAD, &value, bytes);
}

static u64 fadt_with(u64 dsdt)
{
    u8 body[244 - 36] = {};

    put(body, FADT_DSDT, dsdt, 4);
    put(body, FADT_PM1A, 0x604, 4);
    put(body, FADT_PM_TIMER, 0x608, 4);
    put(body, FADT_FLAGS, RESET_SUPPORTED, 4);
    put(body, FADT_RESET, 1, 1);
    put(body, FADT_RESET + 4, 0xcf9, 8);
    put(body, FADT_RESET_VALUE, 6, 1);
    return put_table("FACP", body, sizeof(body));
}

TEST(kernel_acpi_reads_what_it_needs)
{
    static const u8 dsdt[] = "\x10\x08_S5_\x12\x06\x04\x0a\x05\x01\x00\x00";
    static const u8 madt[] = {
        0, 0,  0xe0, 0xfe, 1,    0, 0, 0, /* then: core 0, core 7 that is off, */
        0, 8,  0,    0,    1,    0, 0, 0, 0, 8, 1, 7, 0,  0, 0, 0,
        1, 12, 0,    0,    0,    0, 0, 0, 0, 0, 0, 0, /* an I/O APIC, core 300, core 0 */
        9, 16, 0,    0,    0x2c, 1, 0, 0, 1, 0, 0, 0, 44, 1, 0, 0,
        9, 16, 0,    0,    0,    0, 0, 0, 1, 0, 0, 0, 0,  0, 0, 0};
    static const u8 mcfg[24] = {[11] = 0xe0, [18] = 2, [19] = 255};
    u64 entries[3];

    memory_clear();
    entries[0] = fadt_with(put_table("DSDT", dsdt, sizeof(dsdt)));
    entries[1] = put_table("APIC", madt, sizeof(madt));
    entries[2] = put_table("MCFG", mcfg, sizeof(mcfg));
    read_tables(entries, 3);
    EXPECT(found.core_count == 2 && found.apic_id[0] == 0 && found.apic_id[1] == 300);
    EXPECT(found.ecam_count == 1 && found.ecam[0].base == 0xe0000000);
    EXPECT(found.ecam[0].bus_first == 2 && found.ecam[0].bus_last == 255);
    EXPECT(found.pm_timer_port == 0x608 && found.reset_port == 0xcf9 && found.reset_value == 6);
    EXPECT(found.can_sleep && found.sleep_a == 5 && found.sleep_b == 1 && found.pm1a_port == 0x604);
}

/* Without \_S5 the machine cannot be switched off, and must not try with a made-up type. */
TEST(kernel_acpi_refuses_half_of_it)
{
    static const u8 other[] = "\x08_S4_\x12\x06\x04\x0a\x05\x01\x00\x00";
    u64 entries[2];

    memory_clear();
    entries[0] = fadt_with(put_table("DSDT", other, sizeof(other)));
    entries[1] = put_table("APIC", other, 3); /* ends in its first field */
    read_tables(entries, 2);
    EXPECT(!found.can_sleep && found.core_count == 0 && found.pm_timer_port == 0x608);

    memory_clear();
    entries[0] = fadt_with(0);
    memory.bytes[entries[0] + 100]++; /* its checksum is wrong now */
    entries[1] = 0x1000000;           /* beyond all memory */
    read_tables(entries, 2);
    EXPECT(found.pm_timer_port == 0 && found.reset_port == 0);
}
