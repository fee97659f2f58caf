/*
 * sim_report_test.c: a saved report is a card: what the driver reports of one simulated card makes
 * another, on which the driver comes up and reports the same again. And a report that is not what
 * it should be ends in a sentence, never in a card.
 */
#include "tests/amdgpu_rig.h"

#include "net/json.h"
#include "sim/priv.h"
#include "tests/test.h"

#define START_MS     60000u
#define REPORT_BYTES (256 * KIB)
#define NODES_MAX    4096u

/* For texts of one test. */
static struct arena new_arena(void)
{
    static u8 bytes[4 * MIB];

    return arena_on("report", bytes, sizeof bytes);
}

static struct text new_text(struct arena *arena, usize bytes)
{
    struct text text = {arena_take(arena, bytes, 1), 0, bytes, false};

    CHECK(text.ptr);
    return text;
}

/* A fresh card of this profile, brought up; what its driver reports. */
static struct str report_of(struct arena *arena, const struct card_profile *profile)
{
    static struct rig rig;
    struct text json = new_text(arena, REPORT_BYTES);

    memset(&rig, 0, sizeof rig);
    rig.options = (struct sim_options){.profile = profile, .seed = 1};
    rig_firmware(&rig);
    rig_power_on(&rig);
    rig_start(&rig, START_MS);
    struct gpu_status status = rig_status(&rig);
    if (status.state != GPU_READY || sim_failure(rig.sim))
        test_fail(__FILE__, __LINE__, "state %u at \"%s\": %s; the card: %s", status.state,
                  status.step, status.reason, sim_failure(rig.sim));
    gpu_report(rig.gpu, &json);
    EXPECT(!json.truncated);
    rig_close(&rig);
    return text_str(&json);
}

/* The text with `from`, which must be there, replaced. */
static struct str changed(struct arena *arena, struct str text, struct str from, struct str to)
{
    usize at = str_find(text, from);
    struct text out = new_text(arena, text.len + to.len);

    if (at == text.len)
        test_fail(__FILE__, __LINE__, "the report has no %.*s", (int)from.len, from.ptr);
    text_put(&out, str_slice(text, 0, at));
    text_put(&out, to);
    text_put(&out, str_slice(text, at + from.len, text.len));
    return text_str(&out);
}

static struct card_profile *profile_of(struct str report, u32 nth)
{
    char said[200];
    struct text why = TEXT_ON(said);
    struct card_profile *profile = sim_profile_read(report, nth, &why);

    if (!profile)
        test_fail(__FILE__, __LINE__, "%.*s", (int)why.len, why.ptr);
    return profile;
}

static void expect_refused(struct str report, const char *want)
{
    char said[200];
    struct text why = TEXT_ON(said);
    struct card_profile *profile = sim_profile_read(report, 0, &why);

    if (profile || str_find(text_str(&why), str_of(want)) == why.len)
        test_fail(__FILE__, __LINE__, "want \"%s\", saw \"%.*s\"", want, (int)why.len, why.ptr);
}

/* ---- two reports ---- */

/* Whether all that is below reads the same; both were written by the same hand. */
static bool is_same(const struct json *a, const struct json *b)
{
    bool same = a->span == b->span;

    for (u32 i = 0; same && i < a->span; i++)
        same = a[i].kind == b[i].kind && str_eq(a[i].text, b[i].text);
    return same;
}

/* Every member of `before` is in `after`, in the same place; those of other values go to `out`. */
static void put_changes(const struct json *before, const struct json *after, struct text *out)
{
    static const struct str elsewhere = STR("SDMA0_QUEUE0_RB_"); /* a ring in host memory */
    const struct json *key = json_first(before), *other = json_first(after);

    EXPECT_EQ(before->count, after->count);
    for (u32 i = 0; i < before->count; i++) {
        EXPECT_STR(key->text, other->text);
        if (!is_same(key + 1, other + 1) && !str_starts(key->text, elsewhere))
            text_fmt(out, " %.*s", (int)key->text.len, key->text.ptr);
        key = json_next(key + 1);
        other = json_next(other + 1);
    }
}

/* Which members, and which registers of the survey, are not what they were. */
static struct str changes_of(struct arena *arena, struct str before, struct str after)
{
    static struct json old[NODES_MAX], new[NODES_MAX];
    struct json_doc docs[] = {{.node = old, .node_max = NODES_MAX},
                              {.node = new, .node_max = NODES_MAX}};
    struct str texts[] = {arena_str(arena, before), arena_str(arena, after)};
    struct text out = new_text(arena, 4096);

    for (u32 i = 0; i < 2; i++)
        EXPECT_OK(json_read(&docs[i], (char *)(usize)texts[i].ptr, texts[i].len));
    put_changes(old, new, &out);
    put_changes(json_member(old, STR("registers")), json_member(new, STR("registers")), &out);
    return text_str(&out);
}

/* Another size of VRAM, revision, board, BAR and link in the text: all of it comes back. */
TEST(sim_report_boots_as_card)
{
    static const struct {
        struct str from, to;
    } edits[] = {
        {STR("\"vram_bytes\":25753026560"), STR("\"vram_bytes\":17095983104")},
        {STR("\"revision\":200"), STR("\"revision\":204")},
        {STR("\"subsystem\":\"0e3b1002\""), STR("\"subsystem\":\"79011eae\"")},
        {STR("\"bars\":[34359738368,0,2097152,"), STR("\"bars\":[17179869184,0,268435456,")},
        {STR("\"bar0_sizes\":65280"), STR("\"bar0_sizes\":32512")},
        {STR("{\"speed\":4,\"width\":16,"), STR("{\"speed\":3,\"width\":8,")},
    };
    struct arena arena = new_arena();
    struct str saved = report_of(&arena, NULL);

    for (u32 i = 0; i < ARRAY_LEN(edits); i++)
        saved = changed(&arena, saved, edits[i].from, edits[i].to);
    struct card_profile *profile = profile_of(saved, 0);
    EXPECT_EQ(profile->vram_mb, 16304);
    struct str again = report_of(&arena, profile);
    EXPECT_STR(changes_of(&arena, saved, again),
               STR(" vram_free registers GCMC_VM_FB_LOCATION_TOP GCMC_VM_SYSTEM_APERTURE_HIGH_ADDR"
                   " MMMC_VM_FB_LOCATION_TOP MMMC_VM_SYSTEM_APERTURE_HIGH_ADDR"
                   " RCC_DEV0_EPF0_RCC_CONFIG_MEMSIZE"));
    sim_profile_free(profile);

    /* Nothing of navi31's is left but what both have: a report of the second boots a third. */
    profile = profile_of(again, 0);
    EXPECT_STR(changes_of(&arena, again, report_of(&arena, profile)), STR(" registers"));
    sim_profile_free(profile);
}

/* ---- the discovery table ---- */

static u16 sum_of(const u8 *bytes, u32 from, u32 to)
{
    u16 sum = 0;

    for (u32 i = from; i < to; i++)
        sum = (u16)(sum + bytes[i]);
    return sum;
}

/* Five shader engines instead of six, HDP and OSSSYS elsewhere; the sums are right again. */
static void table_change(u8 table[DISCOVERY_BYTES_MAX])
{
    static const struct {
        u32 from, to;
    } bases[] = {{0xf20, 0xf00}, {0x10a0, 0x1080}};
    struct discovery_header *head = (struct discovery_header *)table;

    for (u32 i = head->list[0].offset; i < head->list[0].offset + head->list[0].bytes; i += 4)
        for (u32 k = 0; k < ARRAY_LEN(bases); k++)
            if (memcmp(table + i, &bases[k].from, 4) == 0)
                memcpy(table + i, &bases[k].to, 4);
    table[head->list[DISCOVERY_LIST_GC].offset + offsetof(struct discovery_gc, se_count)] = 5;
    for (u32 i = 0; i < 3; i++)
        head->list[i].checksum =
            sum_of(table, head->list[i].offset, head->list[i].offset + head->list[i].bytes);
    head->checksum = sum_of(table, offsetof(struct discovery_header, bytes), head->bytes);
}

static struct str table_text(struct arena *arena, const u8 *table, u32 bytes)
{
    struct text out = new_text(arena, 2 * bytes);

    for (u32 i = 0; i < bytes; i++)
        text_fmt(&out, "%02x", table[i]);
    return text_str(&out);
}

/* The table is not made anew of what navi31 has: other bases and counts are the card's, and a
 * driver that believes them comes up. */
TEST(sim_report_table_is_the_cards)
{
    static u8 table[DISCOVERY_BYTES_MAX];
    struct arena arena = new_arena();
    struct str saved = report_of(&arena, NULL);

    profile_discovery(&profile_navi31, table);
    u32 bytes = ((struct discovery_header *)table)->bytes;
    struct str before = table_text(&arena, table, bytes);
    table_change(table);
    saved = changed(&arena, saved, before, table_text(&arena, table, bytes));
    struct card_profile *profile = profile_of(saved, 0);
    EXPECT_EQ(profile->se_count, 5);
    struct str again = report_of(&arena, profile);
    EXPECT_STR(changes_of(&arena, saved, again), STR(" compute_units blocks registers"));
    EXPECT(str_find(again, STR("\"compute_units\":80")) < again.len);
    EXPECT(str_find(again, STR("\"bases\":[3840,37790720]")) < again.len); /* 0xf00, 0x240a400 */
    sim_profile_free(profile);
}

/* ---- what is no report ---- */

/* What /debug/gpu answers: the nth card of it, around. */
TEST(sim_report_of_several_cards)
{
    static const struct str two =
        STR("{\"gpus\":[{\"device\":\"1002:744c\",\"revision\":1},{\"device\":\"1002:7448\"}]}");

    for (u32 i = 0; i < 4; i++) {
        struct card_profile *profile = profile_of(two, i);
        EXPECT_EQ(profile->device, i % 2 ? 0x7448 : 0x744c);
        EXPECT_EQ(profile->revision, i % 2 ? profile_navi31.revision : 1);
        EXPECT_EQ(profile->vram_mb, profile_navi31.vram_mb);
        sim_profile_free(profile);
    }
}

TEST(sim_report_refuses_in_words)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"", "JSON; byte 0"},
        {"{\"device\":\"1002:744c\"", "JSON; byte 21"},
        {"{}", "device: want"},
        {"[]", "device: want"},
        {"{\"error\":{\"message\":\"no key\"}}", "device: want"},
        {"{\"gpus\":[]}", "gpus: want one card"},
        {"{\"gpus\":{\"device\":\"1002:744c\"}}", "gpus: want one card"},
        {"{\"device\":\"11002:744c\"}", "device: want"},
        {"{\"device\":\"1002:744c\",\"subsystem\":\"0x12\"}", "subsystem: want"},
        {"{\"device\":\"1002:744c\",\"revision\":256}", "revision: want a number from 0 to 255"},
        {"{\"device\":\"1002:744c\",\"vram_bytes\":-1}", "vram_bytes: want"},
        {"{\"device\":\"1002:744c\",\"vram_bytes\":268435457}", "vram_bytes: want"},
        {"{\"device\":\"1002:744c\",\"bar0_sizes\":4294967295}", "bar0_sizes: want"},
        {"{\"device\":\"1002:744c\",\"bars\":[0,0,0,0,0,786432]}", "5: want"},
        {"{\"device\":\"1002:744c\",\"link\":{\"width\":64}}", "width: want"},
        {"{\"device\":\"1002:744c\",\"firmware\":[{\"type\":18,\"version\":\"4g\"}]}", "version"},
        {"{\"device\":\"1002:744c\",\"discovery\":\"0\"}", "discovery: want"},
        {"{\"device\":\"1002:744c\",\"discovery\":\"0x\"}", "discovery: want hexadecimal"},
        {"{\"device\":\"1002:744c\",\"discovery\":\"00\"}", "discovery: want a whole table"},
    };

    for (u32 i = 0; i < ARRAY_LEN(cases); i++)
        expect_refused(str_of(cases[i].text), cases[i].want);
}

/* Cut anywhere, or with a digit of the discovery table changed, it is no report. */
TEST(sim_report_refuses_damage)
{
    struct arena arena = new_arena();
    struct str saved = report_of(&arena, NULL), key = STR("\"discovery\":\"");
    struct str copy = arena_str(&arena, saved);
    usize table = str_find(saved, key) + key.len;
    usize summed = table + 2 * offsetof(struct discovery_header, checksum);

    for (usize len = 0; len < saved.len; len += 97)
        expect_refused(str_slice(saved, 0, len), "JSON");
    for (usize at = summed; saved.ptr[at] != '"'; at += 5) {
        ((char *)(usize)copy.ptr)[at] = saved.ptr[at] == '0' ? '1' : '0';
        expect_refused(copy, "discovery: want a whole table");
        ((char *)(usize)copy.ptr)[at] = saved.ptr[at];
    }
    sim_profile_free(profile_of(copy, 0));
}
