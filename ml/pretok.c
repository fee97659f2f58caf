/*
 * pretok.c: cuts text into the words that byte-pair merges never cross. The models'
 * tokenizer.json files say it as regular expressions of one family; here is that family as one
 * scanner, and a row of differences for each member. Classes are Unicode's general categories L,
 * N, M and White_Space.
 */
#include "ml/tokenizer.h"

#include "build/gen/unicode.h"

#define CODE_LONG_S 0x17f /* folds to s, so 'ſ is a contraction where case is ignored */

// clang-format off
static const struct pretok rows[] = {
    /* names                         wide   fold   ends   split  marks  max  ignore bos */
    {"gpt-2 phi-2 olmo",             false, false, false, false, false, 0,   false, false},
    {"smollm starcoder refact",      false, false, false, true,  false, 1,   false, false},
    {"llama-bpe llama3 llama-v3",    true,  true,  true,  false, false, 3,   true,  true },
    {"dbrx smaug-bpe",               true,  true,  true,  false, false, 3,   false, false},
    {"qwen2 deepseek-r1-qwen",       true,  true,  true,  false, false, 1,   false, false},
    {"qwen35",                       true,  true,  true,  false, true,  1,   false, false},
};
// clang-format on

const struct pretok *pretok_find(struct str name)
{
    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        struct str rest = str_of(rows[i].names);

        while (rest.len > 0) {
            if (str_eq(str_cut(rest, ' ', &rest), name))
                return &rows[i];
        }
    }
    return NULL;
}

/* What stands at `at`, and its bytes. Behind the end: U_SPACE and no bytes. */
static enum unicode_class class_at(const struct pretok *p, struct str text, usize at, usize *bytes)
{
    u32 code, low = 0, high = ARRAY_LEN(unicode_changes);
    enum unicode_class class;

    *bytes = at < text.len;
    if (at >= text.len)
        return U_SPACE;
    if ((u8)text.ptr[at] < 0x80)
        return unicode_ascii[(u8)text.ptr[at]];
    *bytes = utf8_decode(str_slice(text, at, at + 4), &code);
    if (*bytes == 0) { /* a stray byte is a character of no class */
        *bytes = 1;
        return U_OTHER;
    }
    while (high - low > 1) {
        u32 middle = (low + high) / 2;

        if (unicode_changes[middle] >> 3 <= code)
            low = middle;
        else
            high = middle;
    }
    class = unicode_changes[low] & 7;
    return class != U_MARK ? class : p->marks ? U_LETTER : U_OTHER;
}

static bool is_class(const struct pretok *p, struct str text, usize at, enum unicode_class class)
{
    usize bytes;

    return class_at(p, text, at, &bytes) == class && bytes > 0;
}

/* The end of a run of one class, at most `max` characters (0: any number). */
static usize run_end(const struct pretok *p, struct str text, usize at, enum unicode_class class,
                     u32 max)
{
    usize bytes;

    for (u32 n = 0; max == 0 || n < max; n++) {
        if (class_at(p, text, at, &bytes) != class || bytes == 0)
            break;
        at += bytes;
    }
    return at;
}

static bool is_line_end(struct str text, usize at)
{
    return at < text.len && (text.ptr[at] == '\r' || text.ptr[at] == '\n');
}

/* 's 't 'm 'd 're 've 'll; 0 when there is none. */
static usize contraction(const struct pretok *p, struct str text)
{
    static const char *const endings[] = {"s", "t", "m", "d", "re", "ve", "ll"};
    u32 code;

    if (text.ptr[0] != '\'')
        return 0;
    for (u32 i = 0; i < ARRAY_LEN(endings); i++) {
        struct str want = str_of(endings[i]), seen = str_slice(text, 1, 1 + want.len);

        if (p->fold ? str_eq_nocase(seen, want) : str_eq(seen, want))
            return 1 + want.len;
    }
    if (p->fold && utf8_decode(str_slice(text, 1, 3), &code) == 2 && code == CODE_LONG_S)
        return 3;
    return 0;
}

/*
 * White space: up to its last line end where line ends count; else all of it at the end of the
 * text, else all but its last character, which belongs to the next word.
 */
static usize white_space(const struct pretok *p, struct str text)
{
    usize at = 0, last = 0, line_end = 0, bytes;

    while (class_at(p, text, at, &bytes) == U_SPACE && bytes > 0) {
        last = at;
        at += bytes;
        if (is_line_end(text, last))
            line_end = at;
    }
    if (p->line_ends && line_end > 0)
        return line_end;
    if (at == text.len || last == 0 || (p->split_numbers && is_class(p, text, at, U_NUMBER)))
        return at;
    return last;
}

usize pretok_next(const struct pretok *p, struct str text)
{
    usize space = text.ptr[0] == ' ', front, len = contraction(p, text);
    enum unicode_class first = class_at(p, text, 0, &front);

    if (len > 0)
        return len;
    if (first == U_LETTER)
        return run_end(p, text, 0, U_LETTER, 0);
    if (!p->wide_prefix || first == U_NUMBER || is_line_end(text, 0))
        front = space;
    if (front > 0 && is_class(p, text, front, U_LETTER))
        return run_end(p, text, front, U_LETTER, 0);
    if (first == U_NUMBER)
        return run_end(p, text, 0, U_NUMBER, p->numbers_max);
    if (space && p->numbers_max == 0 && is_class(p, text, 1, U_NUMBER))
        return run_end(p, text, 1, U_NUMBER, 0);
    if (!is_class(p, text, space, U_OTHER))
        return white_space(p, text);
    len = run_end(p, text, space, U_OTHER, 0);
    while (p->line_ends && is_line_end(text, len))
        len++;
    return len;
}
