/*
 * kernel_acpi_fake.h: ACPI tables in a buffer that passes for physical memory. The file under test
 * is included, so that what it maps comes from here.
 */
#ifndef NOHOST_TESTS_KERNEL_ACPI_FAKE_H
#define NOHOST_TESTS_KERNEL_ACPI_FAKE_H

#include "kernel/kernel.h"

static void *fake_map(paddr from, u64 bytes, enum vm_cache cache);
#define vm_map_device fake_map
#include "kernel/acpi.c"
#undef vm_map_device

#define MEMORY_BYTES 8192u
#define RSDP_AT      64u

static struct {
    u8 bytes[MEMORY_BYTES];
    u32 used;
} memory;

static void *fake_map(paddr from, u64 bytes, enum vm_cache cache)
{
    (void)cache;
    return from.v < MEMORY_BYTES && bytes <= MEMORY_BYTES - from.v ? memory.bytes + from.v : NULL;
}

static u8 missing_sum(const u8 *from, u32 bytes)
{
    u8 sum = 0;
    for (u32 i = 0; i < bytes; i++)
        sum = (u8)(sum + from[i]);
    return (u8)-sum;
}

/* Returns where the table begins. */
static u32 put_table(const char *signature, const u8 *body, u32 bytes)
{
    u32 at = memory.used, length = bytes + (u32)sizeof(struct table);
    u8 *table = memory.bytes + at;

    memcpy(table, signature, 4);
    memcpy(table + 4, &length, 4);
    memcpy(table + sizeof(struct table), body, bytes);
    table[9] = missing_sum(table, length);
    memory.used = (u32)round_up(at + length, 64);
    return at;
}

static void memory_clear(void)
{
    memset(&memory, 0, sizeof(memory));
    memset(&found, 0, sizeof(found));
    memory.used = RSDP_AT + 64;
}

/* The root of it all, with these tables; then the tables are read. */
static void read_tables(const u64 *entries, u32 count)
{
    u64 xsdt = put_table("XSDT", (const u8 *)entries, count * 8);

    memcpy(memory.bytes + RSDP_AT, "RSD PTR ", 8);
    memcpy(memory.bytes + RSDP_AT + 24, &xsdt, 8);
    memory.bytes[RSDP_AT + 8] = missing_sum(memory.bytes + RSDP_AT, 36);
    acpi_start(RSDP_AT);
}

#endif
