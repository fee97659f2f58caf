/*
 * net_json_read_test.c: the JSON reader takes what RFC 8259 allows and nothing else, whatever is
 * cut off, and the writer's output is always valid UTF-8.
 */
#include <stdlib.h>

#include "net/json.h"
#include "tests/test.h"

#define NODES 4096u

/* Reads a copy that ends where its memory ends, so that the sanitizer sees one byte more. */
static err read_copy(struct str text, struct json_doc *doc, char **copy)
{
    static struct json nodes[NODES];

    *copy = malloc(text.len ? text.len : 1);
    memcpy(*copy, text.ptr, text.len);
    *doc = (struct json_doc){.node = nodes, .node_max = NODES};
    return json_read(doc, *copy, text.len);
}

static void expect_read(const char *text, usize len, bool good)
{
    struct json_doc doc;
    char *copy;
    err e = read_copy((struct str){text, len}, &doc, &copy);

    if ((e == OK) != good)
        test_fail(__FILE__, __LINE__, "%s for %.*s (%s)", err_text(e), (int)len, text, doc.why);
    free(copy);
}

TEST(net_json_grammar) /* accepts and refuses as RFC 8259 says */
{
    static const char *const good[] = {
        "null",
        " true ",
        "false",
        "0",
        "-0",
        "10.5",
        "1e5",
        "1E+400",
        "-1.25e-3",
        "\"\"",
        "\"a\"",
        "[]",
        "[ ]",
        "{}",
        "{ }",
        "[1,2]",
        "[[],{}]",
        "{\"a\":1}",
        "{\"a\":{\"b\":[]},\"a\":2}",
        "\"\\u0000\"",
        "\"\\ud83d\\ude00\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\t\r\n [1 , 2 ] ",
        "\"\xf0\x9f\x98\x80\"",
        "\"\x7f\"",
    };
    static const char *const bad[] = {
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "NaN",
        "Infinity",
        "-",
        "+1",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "1 2",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,}",
        "{a:1}",
        "{1:1}",
        "{\"a\" 1}",
        "{\"a\":1]",
        "[1}",
        "\"",
        "\"a",
        "\"\\",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u123g\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800x\"",
        "\"\n\"",
        "\"\x01\"",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"",
        "\"\xe2\x82\"",
        "\xef\xbb\xbf{}",
        "// c\n1",
        "/**/1",
        "'a'",
        "[1]x",
        "\"\xf4\x90\x80\x80\"",
        "{\"a\":1,,\"b\":2}",
        "{,}",
        "[]]",
        "{}}",
    };

    for (usize i = 0; i < ARRAY_LEN(good); i++)
        expect_read(good[i], strlen(good[i]), true);
    for (usize i = 0; i < ARRAY_LEN(bad); i++)
        expect_read(bad[i], strlen(bad[i]), false);
    expect_read("1\0", 2, false);
}

TEST(net_json_every_prefix) /* a document cut anywhere is refused, never read past its end */
{
    static const char text[] =
        "{\"m\":[{\"r\":\"u\\u00e9\\ud83d\\ude00\",\"c\":\"h\xc3\xa9\"},-1.5e+3,"
        "true,false,null,[[]],{}],\"x\":\"\\\\\"}";

    for (usize len = 0; len < sizeof(text) - 1; len++)
        expect_read(text, len, false);
    expect_read(text, sizeof(text) - 1, true);
}

TEST(net_json_values) /* decoded text, numbers, the last of two members */
{
    static const char text[] = "{\"s\":\"a\\n\\u00e9\\ud83d\\ude00\\u0000b\",\"i\":-42,\"big\":"
                               "9223372036854775808,\"d\":1,\"d\":[2,3],\"f\":1.0}";
    struct json_doc doc;
    char *copy;
    i64 value;

    EXPECT_OK(read_copy((struct str){text, sizeof(text) - 1}, &doc, &copy));
    const struct json *root = doc.node;
    EXPECT_STR(json_member(root, STR("s"))->text, STR("a\n\xc3\xa9\xf0\x9f\x98\x80\0b"));
    EXPECT_OK(json_i64(json_member(root, STR("i")), &value));
    EXPECT_EQ(value, -42);
    EXPECT_EQ(json_i64(json_member(root, STR("big")), &value), E_RANGE);
    EXPECT_EQ(json_i64(json_member(root, STR("f")), &value), E_FORMAT);
    EXPECT_EQ(json_i64(json_member(root, STR("s")), &value), E_FORMAT);
    EXPECT_EQ(json_member(root, STR("d"))->count, 2);
    EXPECT_EQ(json_next(json_first(json_member(root, STR("d"))))->text.ptr[0], '3');
    EXPECT(!json_member(root, STR("nope")));
    EXPECT_EQ(root->count, 6);
    EXPECT_EQ(root->span, doc.count);
    free(copy);
}

TEST(net_json_error_place) /* the message says where */
{
    struct json_doc doc;
    char *copy;

    EXPECT_EQ(read_copy(STR("{\"a\": tru}"), &doc, &copy), E_FORMAT);
    EXPECT_EQ(doc.at, 6);
    EXPECT_STR(str_of(doc.why), STR("expected a value"));
    free(copy);
}

TEST(net_json_limits) /* depth and number of values end in E_LIMIT, not in memory */
{
    struct json_doc doc;
    static char deep[100000];
    char *copy;

    for (u32 depth = JSON_DEPTH_MAX - 1; depth <= JSON_DEPTH_MAX + 1; depth++) {
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        err e = read_copy((struct str){deep, 2 * (usize)depth}, &doc, &copy);
        EXPECT_EQ(e, depth <= JSON_DEPTH_MAX ? OK : E_LIMIT);
        free(copy);
    }
    memset(deep, '[', sizeof(deep));
    EXPECT_EQ(read_copy((struct str){deep, sizeof(deep)}, &doc, &copy), E_LIMIT);
    free(copy);
    deep[0] = '[';
    for (usize i = 1; i < 2 * NODES + 1; i += 2)
        memcpy(deep + i, "1,", 2);
    EXPECT_EQ(read_copy((struct str){deep, 2 * NODES + 1}, &doc, &copy), E_LIMIT);
    free(copy);
}

TEST(net_json_put) /* any bytes become one valid string that reads back */
{
    for (u32 round = 0; round < 2000; round++) {
        char raw[16], written[sizeof(raw) * 6 + 2];
        struct text out = TEXT_ON(written);
        struct json_doc doc;
        char *copy;
        usize len = test_random_below(sizeof(raw) + 1);
        for (usize i = 0; i < len; i++)
            raw[i] = (char)(test_random_below(2) ? test_random_below(256) : test_random_below(128));
        json_put_str(&out, (struct str){raw, len});
        EXPECT(!out.truncated && utf8_valid(text_str(&out)));
        EXPECT_OK(read_copy(text_str(&out), &doc, &copy));
        if (utf8_valid((struct str){raw, len}))
            EXPECT_STR(doc.node->text, ((struct str){raw, len}));
        free(copy);
    }
}
