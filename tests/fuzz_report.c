/*
 * fuzz_report.c: any bytes as a saved report (first byte even), or as the discovery table in one,
 * with sums that a fuzzer would never find: a sentence, or a card that can be powered on, looked at
 * and switched off.
 */
#include <stdlib.h>

#include "sim/priv.h"

int LLVMFuzzerTestOneInput(const u8 *data, usize size);

#define TABLE_AT sizeof(struct discovery_header)

/* Its three lists begin where the first bytes of `data` say. */
static void put_table(struct text *out, const u8 *data, usize size)
{
    u8 table[DISCOVERY_BYTES_MAX] = {};
    struct discovery_header head = {.signature = DISCOVERY_SIGNATURE};
    u32 bytes = (u32)min_u64(size, sizeof table - TABLE_AT);

    memcpy(table + TABLE_AT, data, bytes);
    for (u32 i = 0; i < 3 && i < bytes; i++)
        head.list[i].offset = (u16)(TABLE_AT + data[i] * 4u);
    head.bytes = (u16)(TABLE_AT + bytes);
    memcpy(table, &head, TABLE_AT);
    for (u32 i = offsetof(struct discovery_header, bytes); i < head.bytes; i++)
        head.checksum = (u16)(head.checksum + table[i]);
    memcpy(table, &head, TABLE_AT);
    text_fmt(out, "{\"device\":\"1002:744c\",\"discovery\":\"");
    for (u32 i = 0; i < head.bytes; i++)
        text_fmt(out, "%02x", table[i]);
    text_fmt(out, "\"}");
}

static void power_on(const struct card_profile *profile)
{
    struct sim_options options = {.profile = profile, .seed = 1, .fast = true};
    struct sim_host host = {};
    struct sim *sim = sim_create(&options, &host);

    CHECK(sim);
    sim_config_write(sim, 0, 4, 4, 7);
    for (u32 bar = 0; bar < 6; bar++)
        CHECK(!(sim_bar_bytes(sim, bar) & (sim_bar_bytes(sim, bar) - 1)));
    for (u32 i = 0; i < REG_COUNT; i++)
        (void)sim_bar_read(sim, 5, 4ull * reg_address(sim, (enum reg)i), 4);
    sim_destroy(sim);
}

int LLVMFuzzerTestOneInput(const u8 *data, usize size)
{
    static char json[3 * DISCOVERY_BYTES_MAX];
    char said[200];
    struct text why = TEXT_ON(said), table = TEXT_ON(json);

    if (!size)
        return 0;
    struct str report = {(const char *)data + 1, size - 1};
    if (data[0] & 1) {
        put_table(&table, data + 1, size - 1);
        report = text_str(&table);
    }
    struct card_profile *profile = sim_profile_read(report, data[0] >> 1, &why);
    CHECK(profile ? !why.len : why.len);
    if (profile)
        power_on(profile);
    sim_profile_free(profile);
    return 0;
}
