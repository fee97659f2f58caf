/*
 * fuzz_conf.c: any bytes as nohost.conf: no value may leave its limits, no text may leave the file.
 */
#include "kernel/kernel.h"

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes);

static void inside(struct str text, struct str file)
{
    CHECK(text.len <= 128);
    CHECK(text.len == 0 || (text.ptr >= file.ptr && text.ptr + text.len <= file.ptr + file.len) ||
          str_eq(text, STR("nohost")));
}

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes)
{
    struct str file = {(const char *)data, bytes};
    struct config config;

    conf_read(&config, file);
    CHECK(config.port >= 1 && config.port <= 65535);
    CHECK(config.slots <= 64 && config.watchdog_s <= 600 && config.api_key_count <= CONF_KEYS_MAX);
    inside(config.hostname, file);
    inside(config.model, file);
    inside(config.ntp, file);
    for (u32 i = 0; i < config.api_key_count; i++)
        inside(config.api_key[i], file);
    return 0;
}
