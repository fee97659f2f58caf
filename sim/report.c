/*
 * report.c: a card profile out of what a driver has reported of a card: gpu_report's JSON, as GET
 * /debug/gpu answers it. What the report does not say comes from navi31; what it says wrong ends
 * the reading with a sentence. The discovery table goes to the card byte for byte, after bounds,
 * sums and bases were looked at. Must not know how the driver reads that table. Follows:
 * docs/GPU.md, "Report"; Linux 6.12 include/discovery.h.
 */
#include "net/json.h"
#include "sim/priv.h"

#include <stdlib.h>

#define TEXT_BYTES_MAX (4 * MIB)
#define NODES_MAX      32768u
#define BASE_MAX       (1u << 28) /* dwords: the index pairs have 32 bits for bytes */
#define AT(field)      offsetof(struct card_profile, field), sizeof(profile_navi31.field)

static const struct reg_row rows[REG_COUNT] = REG_ROWS;

struct report {
    struct card_profile profile; /* first: who has it has all */
    struct profile_ip ip[REG_BLOCKS];
    u8 discovery[DISCOVERY_BYTES_MAX];
};

struct reader {
    struct report *out;
    const struct json *card;
    struct text *why;
};

/* What is a number and goes where it is. `min` above 0: a 0 says nothing. */
// clang-format off
static const struct field {
    const char *of, *name; /* a member of the member `of`; or an element, by its digit */
    u64 min, max, unit;
    u32 at, bytes;
    bool power_of_two;
} fields[] = {
    {"",     "revision",   0,         255,       1,   AT(revision),       false},
    {"",     "vram_bytes", 256 * MIB, 256 * GIB, MIB, AT(vram_mb),        false},
    {"",     "bar0_sizes", 1,         0xfffff,   1,   AT(bar0_sizes),     false},
    {"bars", "2",          2 * MIB,   256 * MIB, MIB, AT(bar2_mb),        true},
    {"bars", "5",          512 * KIB, 16 * MIB,  1,   AT(bar5_bytes),     true},
    {"link", "speed",      1,         15,        1,   AT(link_speed),     false},
    {"link", "width",      1,         63,        1,   AT(link_width),     false},
    {"link", "speed_max",  1,         15,        1,   AT(link_speed_max), false},
    {"link", "width_max",  1,         63,        1,   AT(link_width_max), false},
};
// clang-format on

__attribute__((format(printf, 3, 4))) static err wrong(struct reader *r, const char *what,
                                                       const char *want, ...);

static err wrong(struct reader *r, const char *what, const char *want, ...)
{
    va_list args;

    text_fmt(r->why, "report: %s: want ", what);
    va_start(args, want);
    text_vfmt(r->why, want, args);
    va_end(args);
    return E_FORMAT;
}

/* ---- values ---- */

static const struct json *member(const struct json *of, const char *name)
{
    if (!of || of->kind != JSON_ARRAY)
        return of ? json_member(of, str_of(name)) : NULL;
    const struct json *node = json_first(of);
    u32 idx = (u32)(name[0] - '0');
    for (u32 i = 0; i < idx && i < of->count; i++)
        node = json_next(node);
    return idx < of->count ? node : NULL;
}

/* *value is 0 when nothing is said. */
static err number(struct reader *r, const struct json *node, const struct field *field, u64 *value)
{
    i64 seen = 0;
    err e = node ? json_i64(node, &seen) : OK;

    *value = (u64)seen;
    if (e == OK && !seen && field->min)
        return OK;
    if (e != OK || seen < 0 || *value < field->min || *value > field->max || *value % field->unit ||
        (field->power_of_two && *value & (*value - 1)))
        return wrong(r, field->name, "a number from %lu to %lu, saw %.*s", field->min, field->max,
                     (int)min_u64(node->text.len, 20), node->text.ptr);
    return OK;
}

static bool hex(const struct json *node, struct str text, u64 max, u64 *value)
{
    u32 digit = 0;

    *value = 0;
    for (usize i = 0; i < text.len; i++) {
        if (!json_hex(text.ptr[i], &digit) || *value > max >> 4)
            return false;
        *value = *value << 4 | digit;
    }
    return node && node->kind == JSON_STRING && text.len;
}

/* ---- all but the discovery table ---- */

static err read_ids(struct reader *r)
{
    struct card_profile *profile = &r->out->profile;
    const struct json *ids = member(r->card, "device"), *board = member(r->card, "subsystem");
    struct str device = {}, vendor = str_cut(ids ? ids->text : (struct str){}, ':', &device);
    u64 vendor_id, device_id, subsystem;

    if (!hex(ids, vendor, UINT16_MAX, &vendor_id) || !hex(ids, device, UINT16_MAX, &device_id))
        return wrong(r, "device", "vendor and device as in 1002:744c");
    profile->vendor = (u16)vendor_id;
    profile->device = (u16)device_id;
    if (!board)
        return OK;
    if (!hex(board, board->text, UINT32_MAX, &subsystem))
        return wrong(r, "subsystem", "eight hexadecimal digits");
    profile->subsystem = (u16)(subsystem >> 16);
    profile->subsystem_vendor = (u16)subsystem;
    return OK;
}

static err read_fields(struct reader *r)
{
    for (u32 i = 0; i < ARRAY_LEN(fields); i++) {
        const struct field *field = &fields[i];
        const struct json *of = field->of[0] ? member(r->card, field->of) : r->card;
        const struct json *node = member(of, field->name);
        u64 value;
        TRY(number(r, node, field, &value));
        value /= field->unit;
        if (node && (value || !field->min))
            memcpy((u8 *)&r->out->profile + field->at, &value, field->bytes);
    }
    return OK;
}

/* The power controller says its file's version. No other piece can be asked for one. */
static err read_firmware(struct reader *r)
{
    static const struct field type = {"firmware", "type", 1, 255, 1, 0, 0, false};
    const struct json *list = member(r->card, "firmware"), *piece = list ? json_first(list) : NULL;
    u64 kind, version;

    for (u32 i = 0; list && list->kind == JSON_ARRAY && i < list->count; i++) {
        const struct json *said = member(piece, "version");
        TRY(number(r, member(piece, type.name), &type, &kind));
        if (kind == PSP_FW_SMU) {
            if (!hex(said, said ? said->text : (struct str){}, UINT32_MAX, &version))
                return wrong(r, "firmware version", "hexadecimal digits");
            r->out->profile.smu_version = (u32)version;
        }
        piece = json_next(piece);
    }
    return OK;
}

/* ---- the discovery table ---- */

/* Copies them when they are all inside. */
static bool get(const struct reader *r, u64 offset, void *out, u64 bytes)
{
    u64 all = r->out->profile.discovery_bytes;

    if (offset > all || bytes > all - offset)
        return false;
    memcpy(out, r->out->discovery + offset, bytes);
    return true;
}

/* One block of a die; *at moves behind it. */
static err read_ip(struct reader *r, u64 *at, u32 base_bytes)
{
    struct discovery_ip ip;

    if (!get(r, *at, &ip, sizeof ip))
        return wrong(r, "discovery", "blocks inside the table");
    struct profile_ip block = {.hw_id = ip.hw_id, .major = ip.major};
    *at += sizeof ip;
    for (u32 n = 0; n < ip.base_count; n++, *at += base_bytes) {
        u64 base = 0;
        if (!get(r, *at, &base, base_bytes))
            return wrong(r, "discovery", "bases inside the table");
        if (n < PROFILE_SEGMENTS_MAX)
            block.segment[block.segment_count++] = (u32)min_u64(base, BASE_MAX);
    }
    for (u32 i = 0; i < REG_BLOCKS && !ip.instance; i++) {
        const struct profile_ip *like = &profile_navi31.ip[profile_navi31.block_ip[i]];
        if (like->hw_id == ip.hw_id && like->major != ip.major)
            return wrong(r, "discovery", "block %u of version %u, as navi31 has it, saw %u",
                         ip.hw_id, like->major, ip.major);
        if (like->hw_id == ip.hw_id)
            r->out->ip[i] = block;
    }
    return OK;
}

static err read_ips(struct reader *r, u64 offset)
{
    struct discovery_ips ips;
    struct discovery_die die;

    if (!get(r, offset, &ips, sizeof ips) || ips.signature != DISCOVERY_IPS ||
        ips.die_count > ARRAY_LEN(ips.die))
        return wrong(r, "discovery", "a list of blocks");
    for (u32 d = 0; d < ips.die_count; d++) {
        u64 at = ips.die[d].offset;
        if (!get(r, at, &die, sizeof die))
            return wrong(r, "discovery", "dies inside the table");
        at += sizeof die;
        for (u32 i = 0; i < die.ip_count; i++)
            TRY(read_ip(r, &at, ips.version >= 4 && ips.flags & 1 ? 8 : 4));
    }
    for (u32 i = 0; i < REG_COUNT; i++) {
        const struct profile_ip *ip = &r->out->ip[rows[i].block];
        if (rows[i].segment >= ip->segment_count || ip->segment[rows[i].segment] >= BASE_MAX)
            return wrong(r, "discovery", "a base for %s", rows[i].name);
    }
    return OK;
}

static err read_shaders(struct reader *r, u64 offset)
{
    struct card_profile *profile = &r->out->profile;
    struct discovery_gc gc;

    if (!get(r, offset, &gc, sizeof gc) || gc.signature != DISCOVERY_GC || gc.major != 1)
        return wrong(r, "discovery", "shader counts of version 1");
    profile->se_count = min_u32(gc.se_count, COMPUTE_WGPS_MAX + 1);
    profile->sa_per_se = min_u32(gc.sa_per_se, COMPUTE_WGPS_MAX + 1);
    profile->wgp_per_sa = (u32)min_u64((u64)gc.wgp0_per_sa + gc.wgp1_per_sa, COMPUTE_WGPS_MAX + 1);
    u32 wgps = profile_wgps(profile);
    return wgps && wgps <= COMPUTE_WGPS_MAX
               ? OK
               : wrong(r, "discovery", "1 to %u pairs of compute units", COMPUTE_WGPS_MAX);
}

static bool is_sealed(const struct reader *r, const struct discovery_header *head)
{
    u16 sum = 0;

    for (u32 i = offsetof(struct discovery_header, bytes); i < head->bytes; i++)
        sum = (u16)(sum + r->out->discovery[i]);
    return head->signature == DISCOVERY_SIGNATURE && sum == head->checksum;
}

static err read_discovery(struct reader *r)
{
    struct report *out = r->out;
    const struct json *node = member(r->card, "discovery");
    struct discovery_header head;
    u64 byte;

    if (!node || !node->text.len)
        return OK; /* a card that never woke up */
    if (node->text.len % 2 || node->text.len / 2 > DISCOVERY_BYTES_MAX)
        return wrong(r, "discovery", "at most %u bytes", DISCOVERY_BYTES_MAX);
    for (usize i = 0; i < node->text.len; i += 2) {
        if (!hex(node, str_slice(node->text, i, i + 2), UINT8_MAX, &byte))
            return wrong(r, "discovery", "hexadecimal digits");
        out->discovery[i / 2] = (u8)byte;
    }
    out->profile.discovery = out->discovery;
    out->profile.discovery_bytes = (u32)node->text.len / 2;
    if (!get(r, 0, &head, sizeof head) || head.bytes > out->profile.discovery_bytes ||
        !is_sealed(r, &head))
        return wrong(r, "discovery", "a whole table with its signature and its checksum");
    out->profile.ip = out->ip;
    out->profile.ip_count = REG_BLOCKS;
    for (u32 i = 0; i < REG_BLOCKS; i++)
        out->profile.block_ip[i] = (u8)i;
    TRY(read_ips(r, head.list[DISCOVERY_LIST_IPS].offset));
    return read_shaders(r, head.list[DISCOVERY_LIST_GC].offset);
}

/* ---- the whole ---- */

static err read_report(struct reader *r, struct json_doc *doc, struct str text, u32 nth)
{
    if (json_read(doc, (char *)(usize)text.ptr, text.len) != OK)
        return wrong(r, "text", "JSON; byte %lu: %s", doc->at, doc->why);
    const struct json *gpus = member(doc->node, "gpus");
    r->card = gpus ? json_first(gpus) : doc->node;
    if (gpus && (gpus->kind != JSON_ARRAY || !gpus->count))
        return wrong(r, "gpus", "one card or more");
    for (u32 i = gpus ? nth % gpus->count : 0; i; i--)
        r->card = json_next(r->card);
    r->out->profile = profile_navi31;
    r->out->profile.name = "report";
    TRY(read_ids(r));
    TRY(read_fields(r));
    TRY(read_firmware(r));
    return read_discovery(r);
}

struct card_profile *sim_profile_read(struct str report, u32 nth, struct text *why)
{
    struct reader r = {.out = calloc(1, sizeof(struct report)), .why = why};
    struct json_doc doc = {.node = calloc(NODES_MAX, sizeof(struct json)), .node_max = NODES_MAX};
    usize len = min_u64(report.len, TEXT_BYTES_MAX); /* a longer one ends early */
    char *copy = malloc(len + 1);

    CHECK(r.out && doc.node && copy);
    memcpy(copy, report.ptr, len);
    bool good = read_report(&r, &doc, (struct str){copy, len}, nth) == OK;
    free(copy);
    free(doc.node);
    if (good)
        return &r.out->profile;
    free(r.out);
    return NULL;
}

void sim_profile_free(struct card_profile *profile)
{
    free(profile);
}
