/*
 * fuzz_acpi.c: any bytes as the bodies of the ACPI tables; headers are valid, as broken ones are
 * refused at once.
 */
#include "tests/kernel_acpi_fake.h"

#define TABLES   4u
#define BODY_MAX 600u

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes);

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes)
{
    static const char *const signatures[TABLES] = {"DSDT", "FACP", "APIC", "MCFG"};
    u64 entries[TABLES];

    memory_clear();
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
    read_tables(entries, TABLES);
    CHECK(found.core_count <= CORES_MAX && found.ecam_count <= ACPI_ECAM_MAX);
    return 0;
}
