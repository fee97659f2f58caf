/*
 * fuzz_acpi.c: any bytes as the bodies of the ACPI tables. The file under test is included, so that
 * "physical memory" is a buffer here; headers are made valid, as broken ones are refused at once.
 */
#include "kernel/kernel.h"

static void *fake_map(paddr from, u64 bytes, enum vm_cache cache);
#define vm_map_device fake_map
#include "kernel/acpi.c"
#undef vm_map_device

#define MEMORY_BYTES 8192u
#define RSDP_AT      64u
#define TABLES       4u
#define BODY_MAX     600u

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes);

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

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes)
{
    static const char *const signatures[TABLES] = {"DSDT", "FACP", "APIC", "MCFG"};
    u64 entries[TABLES];

    log_level_set(LOG_ERROR);
    memory.used = RSDP_AT + 64;
    memset(&memory.bytes, 0, sizeof(memory.bytes));
    memset(&found, 0, sizeof(found));
    for (u32 i = 0; i < TABLES; i++) {
        u32 take = bytes ? min_u32(data[0] * 4u, min_u32((u32)bytes - 1, BODY_MAX)) : 0;
        entries[i] = put_table(signatures[i], data + (bytes > 0), take);
        data += take + (bytes > 0);
        bytes -= take + (bytes > 0);
    }
    if (entries[1] + 48 < MEMORY_BYTES && number_at((void *)(memory.bytes + entries[1]), 40, 4)) {
        u8 *facp = memory.bytes + entries[1]; /* mostly lead to the DSDT that is there */
        memcpy(facp + FADT_DSDT, entries, 4);
        facp[9] = 0;
        facp[9] = missing_sum(facp, (u32)number_at((void *)facp, 4, 4));
    }
    u64 xsdt = put_table("XSDT", (const u8 *)entries, sizeof(entries));
    memcpy(memory.bytes + RSDP_AT, "RSD PTR ", 8);
    memcpy(memory.bytes + RSDP_AT + 24, &xsdt, 8);
    memory.bytes[RSDP_AT + 8] = missing_sum(memory.bytes + RSDP_AT, 36);
    acpi_start(RSDP_AT);
    CHECK(found.core_count <= CORES_MAX && found.ecam_count <= ACPI_ECAM_MAX);
    return 0;
}
