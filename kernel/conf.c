/*
 * conf.c: nohost.conf: lines of `key = value`, '#' starts a comment. Portable. A bad line is logged
 * with its number and skipped, so that a typing mistake never keeps a machine from the network.
 * Must not know what a value is used for.
 */
#include "kernel/kernel.h"

#define COMPLAINTS_MAX    20u
#define ADDRESS_BYTES_MAX 45u
#define KEY_BYTES_MAX     128u

/* One row is all that is known about a key. `most` is a length for texts; LOADER: for boot/. */
static const struct row {
    struct str key;
    enum { LOADER, TEXT, NUMBER } kind;
    u32 at; /* offset in struct config */
    u64 least, most, normal;
} rows[] = {
#define AT(field) (u32) offsetof(struct config, field)
    // clang-format off
    {STR("hostname"),    TEXT,    AT(hostname),    1, 32, 0},
    {STR("ip"),          TEXT,    AT(ip),          0, ADDRESS_BYTES_MAX, 0},
    {STR("netmask"),     TEXT,    AT(netmask),     0, ADDRESS_BYTES_MAX, 0},
    {STR("gateway"),     TEXT,    AT(gateway),     0, ADDRESS_BYTES_MAX, 0},
    {STR("dns"),         TEXT,    AT(dns),         0, ADDRESS_BYTES_MAX, 0},
    {STR("fallback_ip"), TEXT,    AT(fallback_ip), 0, ADDRESS_BYTES_MAX, 0},
    {STR("ntp"),         TEXT,    AT(ntp),         0, 64, 0},
    {STR("api_key"),     TEXT,    AT(api_key),     8, KEY_BYTES_MAX, 0},
    {STR("port"),        NUMBER,  AT(port),        1, 65535, 80},
    {STR("model"),       TEXT,    AT(model),       0, HANDOFF_NAME_MAX - 1, 0},
    {STR("model_id"),    TEXT,    AT(model_id),    1, 64, 0},
    {STR("ctx"),         NUMBER,  AT(ctx),         0, 1u << 20, 0},
    {STR("slots"),       NUMBER,  AT(slots),       0, 64, 0},
    {STR("kv_tokens"),   NUMBER,  AT(kv_tokens),   0, 1u << 24, 0},
    {STR("threads"),     NUMBER,  AT(threads),     0, CORES_MAX, 0},
    {STR("device"),      TEXT,    AT(device),      0, 4, 0},
    {STR("cards"),       TEXT,    AT(cards),       0, 6, 0},
    {STR("watchdog_s"),  NUMBER,  AT(watchdog_s),  0, 600, 60},
    {STR("power_cap_w"), NUMBER,  AT(power_cap_w), 0, 1000, 0},
    {STR("selftest"),    TEXT,    AT(selftest),    0, 16, 0},
    {STR("kernel"),      LOADER,  0,               0, 0, 0},
    {STR("file"),        LOADER,  0,               0, 0, 0},
// clang-format on
#undef AT
};

/* ---- values: each returns what is wrong, or NULL ---- */

static const char *set_text(struct str *field, const struct row *row, struct str value)
{
    if (value.len < row->least)
        return "is too short";
    if (value.len > row->most)
        return "is too long";
    for (usize i = 0; i < value.len; i++)
        if ((u8)value.ptr[i] <= ' ' || (u8)value.ptr[i] >= 0x7f)
            return "may hold visible ASCII characters only";
    *field = value;
    return NULL;
}

static const char *set_number(u64 *field, const struct row *row, struct str value)
{
    u64 number;

    if (str_to_u64(value, &number) != OK)
        return "is not a whole number";
    if (number < row->least || number > row->most)
        return "is out of range";
    *field = number;
    return NULL;
}

static const char *set(struct config *config, const struct row *row, struct str value)
{
    void *field = (u8 *)config + row->at;

    if (row->kind == LOADER)
        return NULL;
    if (row->kind == NUMBER)
        return set_number(field, row, value);
    if (field != config->api_key)
        return set_text(field, row, value);
    if (config->api_key_count == CONF_KEYS_MAX)
        return "is one too many";
    const char *wrong = set_text(&config->api_key[config->api_key_count], row, value);
    config->api_key_count += wrong == NULL;
    return wrong;
}

/* ---- lines ---- */

/* What is wrong with a line, or NULL. */
static const char *read_line(struct config *config, struct str text, struct str *key)
{
    struct str value;

    *key = str_trim(str_cut(text, '=', &value));
    if (text.len == 0)
        return NULL;
    if (str_find_char(text, '=') == text.len)
        return "has no '='";
    for (u32 i = 0; i < ARRAY_LEN(rows); i++)
        if (str_eq_nocase(rows[i].key, *key))
            return set(config, &rows[i], str_trim(value));
    return "is no key that I know";
}

void conf_read(struct config *config, struct str file)
{
    *config = (struct config){.hostname = STR("nohost")};
    for (u32 i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].kind == NUMBER)
            *(u64 *)(void *)((u8 *)config + rows[i].at) = rows[i].normal;
    if (str_starts(file, STR("\xef\xbb\xbf"))) /* some editors begin a file with this mark */
        file = str_slice(file, 3, file.len);
    for (u32 number = 1; file.len; number++) {
        struct str key, comment, line = str_cut(file, '\n', &file);
        const char *wrong = read_line(config, str_trim(str_cut(line, '#', &comment)), &key);
        /* Values are not repeated in the log: a mistyped line may hold a key. */
        if (wrong && config->mistakes++ < COMPLAINTS_MAX)
            log_warn("conf", "nohost.conf line %u: %.*s %s: line ignored", number,
                     (int)min_u64(key.len, 32), key.ptr, wrong);
    }
    if (str_eq_nocase(config->ip, STR("dhcp")))
        config->ip = (struct str){"", 0};
}
