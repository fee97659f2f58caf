/*
 * pretok.c: cuts text into the words that byte-pair merges never cross. The models'
 * tokenizer.json files say it as regular expressions of one family; here is that family as one
 * scanner, and a row of differences for each member. Classes are Unicode's general categories L,
 * N, M and White_Space.
 */
#include "ml/tokenizer.h"

#include "build/gen/unicode.h"

// clang-format off
static const struct pretok rows[] = {
    /* names                         cl100k split  marks  max  ignore bos */
    {"gpt-2 phi-2 olmo",             false, false, false, 0,   false, false},
    {"smollm starcoder refact",      false, true,  false, 1,   false, false},
    {"llama-bpe llama3 llama-v3",    true,  false, false, 3,   true,  true },
    {"dbrx smaug-bpe",               true,  false, false, 3,   false, false},
    {"qwen2 deepseek-r1-qwen",       true,  false, false, 1,   false, false},
    {"qwen35",                       true,  false, true,  1,   false, false},
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

struct character {
    enum unicode_class class; /* U_END behind the text */
    usize bytes;
};

static struct character character_at(const struct pretok *p, struct str text, usize at)
{
    u32 code, low = 0, high = ARRAY_LEN(unicode_changes);
    struct character c = {U_END, 0};

    if (at >= text.len)
        return c;
    if ((u8)text.ptr[at] < 0x80)
        return (struct character){unicode_ascii[(u8)text.ptr[at]], 1};
    c.bytes = utf8_decode(str_slice(text, at, at + 4), &code);
    if (c.bytes == 0) /* a stray byte is a character of no class */
        return (struct character){U_OTHER, 1};
    while (high - low > 1) {
        u32 middle = (low + high) / 2;

        if (unicode_changes[middle] >> 3 <= code)
            low = middle;
        else
            high = middle;
    }
    c.class = unicode_changes[low] & 7;
    if (c.class == U_MARK)
        c.class = p->marks ? U_LETTER : U_OTHER;
    return c;
}

static bool is_class(const struct pretok *p, struct str text, usize at, enum unicode_class class)
{
    return character_at(p, text, at).class == class;
}

/* The end of a run of one class, at most `max` characters (0: any number). */
static usize run_end(const struct pretok *p, struct str text, usize at, enum unicode_class class,
                     u32 max)
{
    for (u32 n = 0; max == 0 || n < max; n++) {
        struct character c = character_at(p, text, at);

        if (c.class != class)
            break;
        at += c.bytes;
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

    if (text.ptr[0] != '\'')
        return 0;
    for (u32 i = 0; i < ARRAY_LEN(endings); i++) {
        struct str want = str_of(endings[i]), seen = str_slice(text, 1, 1 + want.len);

        if (p->cl100k ? str_eq_nocase(seen, want) : str_eq(seen, want))
            return 1 + want.len;
    }
    return p->cl100k && str_starts(text, STR("'ſ")) ? 3 : 0; /* the long s folds to s */
}

/*
 * White space: up to its last line end where line ends count; else all of it at the end of the
 * text, else all but its last character, which belongs to the next word.
 */
static usize white_space(const struct pretok *p, struct str text)
{
    struct character c = character_at(p, text, 0);
    usize at = 0, last = 0, line_end = 0;

    for (; c.class == U_SPACE; c = character_at(p, text, at)) {
        last = at;
        at += c.bytes;
        if (is_line_end(text, last))
            line_end = at;
    }
    if (p->cl100k && line_end > 0)
        return line_end;
    if (c.class == U_END || last == 0 || (p->split_numbers && c.class == U_NUMBER))
        return at;
    return last;
}

usize pretok_next(const struct pretok *p, struct str text)
{
    struct character first = character_at(p, text, 0);
    usize space = text.ptr[0] == ' ', len = contraction(p, text);
    bool wide = p->cl100k && first.class != U_NUMBER && !is_line_end(text, 0);
    usize letters = first.class == U_LETTER ? 0 : wide ? first.bytes : space;
    usize numbers = p->numbers_max == 0 ? space : 0;

    if (len > 0)
        return len;
    if (is_class(p, text, letters, U_LETTER))
        return run_end(p, text, letters, U_LETTER, 0);
    if (is_class(p, text, numbers, U_NUMBER))
        return run_end(p, text, numbers, U_NUMBER, p->numbers_max);
    if (!is_class(p, text, space, U_OTHER))
        return white_space(p, text);
    len = run_end(p, text, space, U_OTHER, 0);
    while (p->cl100k && is_line_end(text, len))
        len++;
    return len;
}
