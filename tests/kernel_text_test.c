/*
 * kernel_text_test.c: slices, UTF-8 and formatter; the C library is the formatter's witness.
 */
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

TEST(kernel_text_slices_clamp)
{
    struct str rest, text = STR("key = value");

    EXPECT_STR(str_slice(text, 6, 99), STR("value"));
    EXPECT_STR(str_slice(text, 99, 3), STR(""));
    EXPECT_STR(str_trim(STR(" \t a b \r\n")), STR("a b"));
    EXPECT_STR(str_cut(text, '=', &rest), STR("key "));
    EXPECT_STR(rest, STR(" value"));
    EXPECT_STR(str_cut(text, '#', &rest), text);
    EXPECT_EQ(rest.len, 0);
    EXPECT_EQ(str_find(text, STR("value")), 6);
    EXPECT_EQ(str_find(text, STR("values")), text.len);
    EXPECT(str_eq_nocase(STR("Content-Length"), STR("content-lengtH")));
    EXPECT(!str_starts(STR("ab"), STR("abc")) && str_ends(STR("abc"), STR("bc")));
}

TEST(kernel_text_numbers_reject_what_is_not_a_number)
{
    u64 value = 7;

    EXPECT_EQ(str_to_u64(STR(""), &value), E_FORMAT);
    EXPECT_EQ(str_to_u64(STR("-1"), &value), E_FORMAT);
    EXPECT_EQ(str_to_u64(STR("1 "), &value), E_FORMAT);
    EXPECT_EQ(str_to_u64(STR("18446744073709551616"), &value), E_RANGE);
    EXPECT_EQ(value, 7);
    EXPECT_OK(str_to_u64(STR("18446744073709551615"), &value));
    EXPECT(value == UINT64_MAX);
}

/* Every code point survives the round trip; every surrogate and every cut sequence is refused. */
TEST(kernel_text_utf8_all_code_points)
{
    for (u32 point = 0; point <= 0x10ffff; point++) {
        char bytes[4];
        u32 seen = 0;
        usize len = utf8_encode(point, bytes);
        bool surrogate = point >= 0xd800 && point <= 0xdfff;
        EXPECT_EQ(utf8_decode((struct str){bytes, len}, &seen), surrogate ? 0 : len);
        EXPECT(surrogate || seen == point);
        EXPECT_EQ(utf8_decode((struct str){bytes, len - 1}, &seen), 0);
    }
}

TEST(kernel_text_utf8_refuses_bad_forms)
{
    EXPECT(!utf8_valid(STR("\xc0\x80")) && !utf8_valid(STR("\xe0\x80\x80")));
    EXPECT(!utf8_valid(STR("\xf4\x90\x80\x80")) && !utf8_valid(STR("\xf8\x88\x80\x80\x80")));
    EXPECT(!utf8_valid(STR("\x80")) && !utf8_valid(STR("a\xc3(")));
    EXPECT(utf8_valid(STR("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80")) && utf8_valid(STR("")));
}

static void same_as_libc(const char *format, int width, u64 value, const char *word)
{
    char ours[200], theirs[200];
    struct text out = TEXT_ON(ours);

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
    text_fmt(&out, format, width, value, width % 7, word);
    text_char(&out, 0);
    snprintf(theirs, sizeof(theirs), format, width, value, width % 7, word);
#pragma GCC diagnostic pop
    EXPECT_STR(str_of(ours), str_of(theirs));
}

TEST(kernel_text_formatter_matches_libc)
{
    static const char *const formats[] = {
        "%*lu|%.*s", "%0*lx|%.*s", "%-*ld|%.*s", "%*ld.%.*s%%", "%0*ld %-.*s", "%*lx[%.*s]",
    };
    for (u32 i = 0; i < 2000; i++)
        same_as_libc(formats[test_random_below(ARRAY_LEN(formats))], (int)test_random_below(30),
                     test_random() >> test_random_below(64), "a word of text");
    same_as_libc("%*ld|%.*s", 3, (u64)INT64_MIN, "x");
}

TEST(kernel_text_formatter_cuts_and_tells)
{
    char room[8];
    struct text out = TEXT_ON(room);

    text_fmt(&out, "%s", "12345678");
    EXPECT(!out.truncated && out.len == 8);
    text_fmt(&out, "%u", 9u);
    EXPECT(out.truncated && out.len == 8);
    EXPECT_STR(text_str(&out), STR("12345678"));
}

TEST(kernel_text_errors_have_names)
{
    EXPECT(strcmp(err_name(E_TIMEOUT), "E_TIMEOUT") == 0 && strcmp(err_text(OK), "ok") == 0);
    EXPECT(strcmp(err_name((err)999), "E_UNKNOWN") == 0);
}
