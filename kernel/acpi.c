/*
 * acpi.c: from the RSDP to what this firmware needs: cores, PCIe config windows, timer, reset and
 * power-off registers; nothing else of ACPI, no interpreter. Tables are outside bytes: lengths and
 * checksums are verified before anything else of them is read.
 * Follows: ACPI 6.5, 5.2 (tables), 4.8.3 (PM registers), 7.4.2 (\_Sx); PCI Firmware 3.3, 4.1.2
 * (MCFG).
 */
#include "kernel/kernel.h"

#define TABLE_BYTES_MAX (16 * MIB)
#define TABLES_MAX      256u
#define RESET_SUPPORTED (1u << 10)
#define SLEEP_TYPE      (7u << 10)
#define SLEEP_ENABLE    (1u << 13)

struct table {
    char signature[4];
    u32 bytes;
    u8 revision, checksum;
    char oem[18];
    u32 creator, creator_revision;
} __attribute__((packed));

_Static_assert(sizeof(struct table) == 36, "ACPI 6.5, 5.2.6");

/* What of the FADT is used, by offset: ACPI 6.5, table 5.9. */
#define FADT_DSDT        40u
#define FADT_PM1A        64u
#define FADT_PM1B        68u
#define FADT_PM_TIMER    76u
#define FADT_FLAGS       112u
#define FADT_RESET       116u
#define FADT_RESET_VALUE 128u
#define FADT_X_DSDT      140u
#define FADT_X_PM_TIMER  208u

static struct acpi found;

const struct acpi *acpi(void)
{
    return &found;
}

/* ---- outside bytes ---- */

/* A little-endian number at an offset; 0 beyond the table's end, as for an old revision. */
static u64 number_at(const struct table *table, u64 offset, u32 bytes)
{
    u64 value = 0;

    if (offset + bytes <= table->bytes)
        memcpy(&value, (const u8 *)table + offset, bytes);
    return value;
}

/* A "generic address" (ACPI 6.5, 5.2.3.2) when it is a port; 0 otherwise. */
static u16 port_at(const struct table *table, u64 offset)
{
    return number_at(table, offset, 1) == 1 ? (u16)number_at(table, offset + 4, 8) : 0;
}

static bool sum_is_zero(const void *from, u32 bytes)
{
    u8 sum = 0;

    for (u32 i = 0; i < bytes; i++)
        sum = (u8)(sum + ((const u8 *)from)[i]);
    return sum == 0;
}

/* Mapped and checked; NULL when it is no table. Firmware may keep tables outside of RAM as it
 * reports it. */
static const struct table *table_at(u64 physical)
{
    const struct table *table =
        physical ? vm_map_device((paddr){physical}, sizeof(*table), VM_CACHED) : NULL;

    if (!table || table->bytes < sizeof(*table) || table->bytes > TABLE_BYTES_MAX)
        return NULL;
    table = vm_map_device((paddr){physical}, table->bytes, VM_CACHED);
    if (!table || sum_is_zero(table, table->bytes))
        return table;
    log_warn("acpi", "table %.4s at %lx: checksum is wrong, ignored", table->signature, physical);
    return NULL;
}

/* ---- the tables ---- */

static void add_core(u64 apic_id, u64 flags)
{
    bool usable = flags & 1; /* enabled; "online capable" alone means that it is not plugged in */

    for (u32 i = 0; i < found.core_count; i++) /* some firmware lists a core in both forms */
        usable &= found.apic_id[i] != apic_id;
    if (!usable || apic_id == UINT32_MAX)
        return;
    if (found.core_count < CORES_MAX)
        found.apic_id[found.core_count++] = (u32)apic_id;
    else
        log_warn("acpi", "core %lx is left out: more than %u", apic_id, CORES_MAX);
}

static void read_madt(const struct table *madt)
{
    u64 entry_bytes;

    for (u64 at = 44; at + 2 <= madt->bytes; at += entry_bytes) {
        entry_bytes = number_at(madt, at + 1, 1);
        if (entry_bytes < 2)
            return;
        if (number_at(madt, at, 1) == 0 && entry_bytes >= 8) /* local APIC */
            add_core(number_at(madt, at + 3, 1), number_at(madt, at + 4, 4));
        if (number_at(madt, at, 1) == 9 && entry_bytes >= 16) /* local x2APIC */
            add_core(number_at(madt, at + 4, 4), number_at(madt, at + 8, 4));
    }
}

static void read_mcfg(const struct table *mcfg)
{
    for (u64 at = 44; at + 16 <= mcfg->bytes && found.ecam_count < ACPI_ECAM_MAX; at += 16)
        found.ecam[found.ecam_count++] =
            (struct acpi_window){number_at(mcfg, at, 8), (u16)number_at(mcfg, at + 8, 2),
                                 (u8)number_at(mcfg, at + 10, 1), (u8)number_at(mcfg, at + 11, 1)};
}

/* A small constant of AML: ZeroOp, OneOp or BytePrefix. Returns its bytes, 0: none of them. */
static u32 aml_constant(const struct table *dsdt, u64 at, u8 *value)
{
    u64 op = number_at(dsdt, at, 1);

    *value = (u8)(op == 0x0a ? number_at(dsdt, at + 1, 1) : op);
    return op == 0x0a ? 2 : op <= 1 ? 1 : 0;
}

/* Name (_S5_, Package () { SLP_TYPa, SLP_TYPb, ... }): found by its bytes, for want of an
 * interpreter. */
static void read_sleep_types(const struct table *dsdt)
{
    struct str bytes = {(const char *)dsdt, dsdt->bytes};
    u64 at = str_find(bytes, STR("\x08_S5_\x12"));

    if (at == bytes.len)
        at = str_find(bytes, STR("\x08\\_S5_\x12")) + 1;
    if (at >= bytes.len)
        return;
    at += 6;
    at += (number_at(dsdt, at, 1) >> 6) + 2; /* package length: 1 to 4 bytes; count of elements */
    u32 first = aml_constant(dsdt, at, &found.sleep_a);
    u32 second = first ? aml_constant(dsdt, at + first, &found.sleep_b) : 0;
    found.can_sleep = second && found.pm1a_port;
}

static void read_fadt(const struct table *fadt)
{
    u16 timer = port_at(fadt, FADT_X_PM_TIMER);
    u64 dsdt_at = number_at(fadt, FADT_X_DSDT, 8);

    found.pm1a_port = (u16)number_at(fadt, FADT_PM1A, 2);
    found.pm1b_port = (u16)number_at(fadt, FADT_PM1B, 2);
    found.pm_timer_port = timer ? timer : (u16)number_at(fadt, FADT_PM_TIMER, 2);
    if (number_at(fadt, FADT_FLAGS, 4) & RESET_SUPPORTED)
        found.reset_port = port_at(fadt, FADT_RESET);
    found.reset_value = (u8)number_at(fadt, FADT_RESET_VALUE, 1);
    const struct table *dsdt = table_at(dsdt_at ? dsdt_at : number_at(fadt, FADT_DSDT, 4));
    if (dsdt)
        read_sleep_types(dsdt);
}

static void read_root(const struct table *xsdt)
{
    for (u64 i = 0, at = sizeof(*xsdt); i < TABLES_MAX && at + 8 <= xsdt->bytes; i++, at += 8) {
        const struct table *table = table_at(number_at(xsdt, at, 8));
        if (!table)
            continue;
        if (memcmp(table->signature, "APIC", 4) == 0)
            read_madt(table);
        if (memcmp(table->signature, "MCFG", 4) == 0)
            read_mcfg(table);
        if (memcmp(table->signature, "FACP", 4) == 0)
            read_fadt(table);
    }
}

void acpi_start(u64 rsdp_at)
{
    const u8 *rsdp = rsdp_at ? vm_map_device((paddr){rsdp_at}, 36, VM_CACHED) : NULL;
    u64 xsdt_at = 0;

    if (rsdp && memcmp(rsdp, "RSD PTR ", 8) == 0 && sum_is_zero(rsdp, 36))
        memcpy(&xsdt_at, rsdp + 24, 8);
    const struct table *xsdt = table_at(xsdt_at);
    if (xsdt)
        read_root(xsdt);
    else
        log_error("acpi", "want an RSDP of revision 2 with an XSDT, saw none at %lx", rsdp_at);
    log_info("acpi", "%u cores, %u PCIe windows, timer port %x, reset %x = %02x, power-off %s",
             found.core_count, found.ecam_count, found.pm_timer_port, found.reset_port,
             found.reset_value, found.can_sleep ? "yes" : "no");
}

/* ---- the way out ---- */

void machine_reset(void)
{
    const struct descriptor_table nothing = {};

    cpu_interrupts(false);
    if (found.reset_port)
        port_write8(found.reset_port, found.reset_value);
    port_write8(0xcf9, 0x06); /* the chipset's own, when ACPI has named no other */
    __asm__ volatile("lidt %0\n\tint3" : : "m"(nothing)); /* a triple fault resets what is left */
    for (;;)
        cpu_relax();
}

static void sleep_port(u16 port, u8 type)
{
    u32 keep = port_read16(port) & ~SLEEP_TYPE;

    port_write16(port, (u16)(keep | (type & 7u) << 10 | SLEEP_ENABLE));
}

void machine_power_off(void)
{
    if (found.can_sleep)
        sleep_port(found.pm1a_port, found.sleep_a);
    if (found.can_sleep && found.pm1b_port)
        sleep_port(found.pm1b_port, found.sleep_b);
    log_error("acpi", "power-off: this machine did not switch off");
}
