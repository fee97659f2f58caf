/*
 * text.c: slices of text, UTF-8, the bounded formatter, the texts of errors. Portable, allocates
 * nothing, must not know who reads the text. UTF-8 follows RFC 3629: no overlong form, no
 * surrogate, nothing above U+10FFFF.
 */
#include "kernel/base.h"

/* ---- errors ---- */

#define ERR_TEXT(name, text) text,
#define ERR_NAME(name, text) #name,
static const char *const err_texts[] = {ERR_TABLE(ERR_TEXT)};
static const char *const err_names[] = {ERR_TABLE(ERR_NAME)};

const char *err_text(err e)
{
    return (u32)e < ERR_COUNT ? err_texts[e] : "unknown error";
}
const char *err_name(err e)
{
    return (u32)e < ERR_COUNT ? err_names[e] : "E_UNKNOWN";
}

/* ---- slices ---- */

struct str str_of(const char *zero_terminated)
{
    return (struct str){zero_terminated, zero_terminated ? strlen(zero_terminated) : 0};
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

bool str_eq(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool str_eq_nocase(struct str a, struct str b)
{
    if (a.len != b.len)
        return false;
    for (usize i = 0; i < a.len; i++)
        if (lower(a.ptr[i]) != lower(b.ptr[i]))
            return false;
    return true;
}

bool str_starts(struct str text, struct str prefix)
{
    return text.len >= prefix.len && str_eq(str_slice(text, 0, prefix.len), prefix);
}

bool str_ends(struct str text, struct str suffix)
{
    return text.len >= suffix.len &&
           str_eq(str_slice(text, text.len - suffix.len, text.len), suffix);
}

usize str_find(struct str text, struct str needle)
{
    for (usize i = 0; i + needle.len <= text.len; i++)
        if (str_eq((struct str){text.ptr + i, needle.len}, needle))
            return i;
    return text.len;
}

usize str_find_char(struct str text, char c)
{
    usize i = 0;
    while (i < text.len && text.ptr[i] != c)
        i++;
    return i;
}

struct str str_slice(struct str text, usize from, usize to)
{
    to = to < text.len ? to : text.len;
    from = from < to ? from : to;
    return (struct str){from ? text.ptr + from : text.ptr, to - from};
}

struct str str_trim(struct str text)
{
    const struct str blanks = STR(" \t\r\n");

    while (text.len && str_find_char(blanks, text.ptr[text.len - 1]) < blanks.len)
        text.len--;
    while (text.len && str_find_char(blanks, text.ptr[0]) < blanks.len)
        text = str_slice(text, 1, text.len);
    return text;
}

struct str str_cut(struct str text, char c, struct str *rest)
{
    usize at = str_find_char(text, c);

    *rest = str_slice(text, at + 1, text.len);
    return str_slice(text, 0, at);
}

err str_to_u64(struct str text, u64 *value)
{
    u64 sum = 0;
    bool over = false;

    if (text.len == 0)
        return E_FORMAT;
    for (usize i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return E_FORMAT;
        over |= __builtin_mul_overflow(sum, 10, &sum);
        over |= __builtin_add_overflow(sum, (u64)(text.ptr[i] - '0'), &sum);
    }
    if (over)
        return E_RANGE;
    *value = sum;
    return OK;
}

/* ---- UTF-8 ---- */

/* Lead byte of each length: the bits that mark it, and the smallest code point that needs it. */
static const struct utf8_form {
    u8 mask, mark;
    u32 smallest;
} utf8_forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};

usize utf8_decode(struct str text, u32 *code_point)
{
    u8 lead = text.len ? (u8)text.ptr[0] : 0;
    usize len = 0;

    while (len < ARRAY_LEN(utf8_forms) && (lead & utf8_forms[len].mask) != utf8_forms[len].mark)
        len++;
    if (len == ARRAY_LEN(utf8_forms) || text.len < len + 1)
        return 0;
    u32 point = lead & (u8)~utf8_forms[len].mask;
    for (usize i = 1; i <= len; i++) {
        u8 next = (u8)text.ptr[i];
        if ((next & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (next & 0x3f);
    }
    if (point < utf8_forms[len].smallest || point > 0x10ffff ||
        (point >= 0xd800 && point <= 0xdfff))
        return 0;
    *code_point = point;
    return len + 1;
}

usize utf8_encode(u32 code_point, char out[4])
{
    usize len = code_point < 0x80 ? 1 : code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;

    CHECK(code_point <= 0x10ffff);
    for (usize i = len; i-- > 1; code_point >>= 6)
        out[i] = (char)(0x80 | (code_point & 0x3f));
    out[0] = (char)(utf8_forms[len - 1].mark | code_point);
    return len;
}

bool utf8_valid(struct str text)
{
    usize used = 1;
    u32 point;

    for (; text.len && used; text = str_slice(text, used, text.len))
        used = utf8_decode(text, &point);
    return used;
}

/* ---- the bounded formatter ---- */

void text_put(struct text *out, struct str text)
{
    usize room = out->cap - out->len;
    usize take = text.len < room ? text.len : room;

    if (take)
        memcpy(out->ptr + out->len, text.ptr, take);
    out->len += take;
    out->truncated |= take < text.len;
}

void text_char(struct text *out, char c)
{
    text_put(out, (struct str){&c, 1});
}

struct str text_str(const struct text *out)
{
    return (struct str){out->ptr, out->len};
}

void text_fmt(struct text *out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    text_vfmt(out, format, args);
    va_end(args);
}

/* One conversion, as written between '%' and its letter. */
struct spec {
    bool left, zeros, wide; /* wide: 64 bits */
    u32 width;
    u32 precision; /* of strings: bytes at most */
};

/* Leaves *at on the letter. */
static struct spec read_spec(const char **at, va_list *args)
{
    struct spec spec = {.precision = UINT32_MAX};

    for (u32 *count = &spec.width;;) {
        char c = *++*at;
        if (c == '-') {
            spec.left = true;
        } else if (c == 'l' || c == 'z') {
            spec.wide = true;
        } else if (c == '.') {
            count = &spec.precision;
            *count = 0;
        } else if (c == '*') {
            *count = (u32)va_arg(*args, int);
        } else if (c >= '0' && c <= '9') {
            spec.zeros |= c == '0' && count == &spec.width && *count == 0;
            *count = *count * 10 + (u32)(c - '0');
        } else {
            return spec;
        }
    }
}

static void put_padded(struct text *out, const struct spec *spec, struct str body)
{
    text_put(out, spec->left ? body : (struct str){});
    for (usize i = body.len; i < spec->width; i++)
        text_char(out, ' ');
    text_put(out, spec->left ? (struct str){} : body);
}

static void put_number(struct text *out, const struct spec *spec, u64 value, char letter)
{
    bool negative = letter == 'd' && (i64)value < 0;
    u32 base = letter == 'x' ? 16 : 10;
    usize least = spec->zeros && !spec->left ? min_u32(max_u32(spec->width, 1), 64) : 1;
    char body[72];
    usize at = sizeof(body);

    value = negative ? 0 - value : value;
    for (; value || sizeof(body) - at + negative < least; value /= base)
        body[--at] = "0123456789abcdef"[value % base];
    if (negative)
        body[--at] = '-';
    put_padded(out, spec, (struct str){body + at, sizeof(body) - at});
}

static void put_conversion(struct text *out, char letter, const struct spec *spec, va_list *args)
{
    struct str body = {&letter, 1};

    switch (letter) {
    case 's':
        body = (struct str){va_arg(*args, const char *), 0};
        body.ptr = body.ptr ? body.ptr : "(null)";
        while (body.len < spec->precision && body.ptr[body.len])
            body.len++;
        put_padded(out, spec, body);
        break;
    case 'c':
        letter = (char)va_arg(*args, int);
        put_padded(out, spec, body);
        break;
    case 'd':
        put_number(out, spec, (u64)(spec->wide ? va_arg(*args, i64) : va_arg(*args, int)), letter);
        break;
    case 'u':
    case 'x':
        put_number(out, spec, spec->wide ? va_arg(*args, u64) : va_arg(*args, u32), letter);
        break;
    default: /* a letter that the compiler's format check lets pass and we do not know */
        CHECK(letter == '%');
        text_char(out, '%');
    }
}

void text_vfmt(struct text *out, const char *format, va_list args)
{
    va_list rest;

    va_copy(rest, args);
    for (; *format; format++) {
        if (*format == '%') {
            struct spec spec = read_spec(&format, &rest);
            put_conversion(out, *format, &spec, &rest);
        } else {
            text_char(out, *format);
        }
    }
    va_end(rest);
}
