/*
 * json.c: a strict reader of JSON and a writer of its pieces. The reader is one pass over bytes
 * that it may change: strings are decoded where they stand, nothing is allocated, nesting is a
 * small array instead of recursion. Follows RFC 8259, and RFC 3629 for UTF-8; no comment, no
 * trailing comma, no byte order mark, no lone surrogate, no control character inside a string.
 */
#include "net/json.h"

struct reader {
    struct json_doc *doc;
    char *start, *at, *end;
    u32 open[JSON_DEPTH_MAX]; /* indices of the containers around `at` */
    u32 depth;
};

static err fail(struct reader *r, err e, const char *why)
{
    r->doc->why = why;
    r->doc->at = (usize)(r->at - r->start);
    return e;
}

static err node_add(struct reader *r, u32 kind, char *from, char *to)
{
    struct json_doc *doc = r->doc;

    if (doc->count == doc->node_max)
        return fail(r, E_LIMIT, "too many values");
    doc->node[doc->count++] = (struct json){{from, (usize)(to - from)}, kind, 1, 0};
    return OK;
}

static bool skip(struct reader *r, char c)
{
    bool there = r->at < r->end && *r->at == c;

    r->at += there;
    return there;
}

/* The next byte that is not white space, 0 at the end (a NUL byte is not valid anywhere either). */
static char peek(struct reader *r)
{
    while (skip(r, ' ') || skip(r, '\t') || skip(r, '\n') || skip(r, '\r'))
        ;
    return r->at < r->end ? *r->at : 0;
}

/* ---- numbers ---- */

static bool skip_digits(struct reader *r)
{
    char *first = r->at;

    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
    return r->at > first;
}

static err read_number(struct reader *r)
{
    char *first = r->at;

    skip(r, '-');
    if (!skip(r, '0') && !skip_digits(r))
        return fail(r, E_FORMAT, "expected a value");
    bool good = !skip(r, '.') || skip_digits(r);
    if (good && (skip(r, 'e') || skip(r, 'E'))) {
        if (!skip(r, '+'))
            skip(r, '-');
        good = skip_digits(r);
    }
    return good ? node_add(r, JSON_NUMBER, first, r->at) : fail(r, E_FORMAT, "expected a digit");
}

/* ---- strings ---- */

bool json_hex(char c, u32 *value)
{
    static const struct str digits = STR("0123456789abcdef");
    usize at = str_find_char(digits, (char)(c >= 'A' && c <= 'F' ? c | 0x20 : c));

    *value = (u32)at;
    return at < digits.len;
}

static bool read_hex4(struct reader *r, u32 *value)
{
    u32 digit = 0, i = 0;

    for (*value = 0; i < 4 && r->at < r->end && json_hex(*r->at, &digit); i++, r->at++)
        *value = *value << 4 | digit;
    return i == 4;
}

/* Behind "\u": one code point, from two escapes when the first is a high surrogate. */
static bool read_code_point(struct reader *r, u32 *point)
{
    u32 low;

    if (!read_hex4(r, point) || (*point & 0xfc00) == 0xdc00)
        return false;
    if ((*point & 0xfc00) != 0xd800)
        return true;
    if (!skip(r, '\\') || !skip(r, 'u') || !read_hex4(r, &low) || (low & 0xfc00) != 0xdc00)
        return false;
    *point = 0x10000 + ((*point & 0x3ff) << 10) + (low & 0x3ff);
    return true;
}

/* Behind the backslash; what is decoded goes to `to`, which never overtakes what is unread. */
static char *read_escape(struct reader *r, char *to)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    u32 point;

    if (skip(r, 'u'))
        return read_code_point(r, &point) ? to + utf8_encode(point, to) : NULL;
    for (usize i = 0; i < sizeof(from) - 1; i++) {
        if (skip(r, from[i])) {
            *to = into[i];
            return to + 1;
        }
    }
    return NULL;
}

static err read_string(struct reader *r)
{
    char *first = ++r->at, *to = first;

    while (to && r->at < r->end && *r->at != '"') {
        if ((u8)*r->at < 0x20)
            return fail(r, E_FORMAT, "control character in a string");
        if (skip(r, '\\'))
            to = read_escape(r, to);
        else
            *to++ = *r->at++;
    }
    if (!to || !skip(r, '"'))
        return fail(r, E_FORMAT, to ? "string without an end" : "invalid escape");
    return node_add(r, JSON_STRING, first, to);
}

/* ---- the document ---- */

static err read_value(struct reader *r)
{
    static const struct str words[] = {STR("null"), STR("false"), STR("true")};
    char c = peek(r), *first = r->at;

    if (c == '"')
        return read_string(r);
    if (c == '{' || c == '[') {
        if (r->depth == JSON_DEPTH_MAX)
            return fail(r, E_LIMIT, "nested too deeply");
        r->open[r->depth++] = r->doc->count;
        r->at++;
        return node_add(r, c == '{' ? JSON_OBJECT : JSON_ARRAY, first, first);
    }
    for (u32 kind = JSON_NULL; kind <= JSON_TRUE; kind++) {
        if (str_starts((struct str){r->at, (usize)(r->end - r->at)}, words[kind])) {
            r->at += words[kind].len;
            return node_add(r, kind, first, first);
        }
    }
    return read_number(r);
}

/* After a value: closes every container that ends here, or goes on to the next element. */
static err read_close(struct reader *r)
{
    while (r->depth) {
        struct json *of = &r->doc->node[r->open[r->depth - 1]];
        bool object = of->kind == JSON_OBJECT;
        bool empty = of == &r->doc->node[r->doc->count - 1];
        peek(r);
        if (skip(r, object ? '}' : ']')) {
            of->span = r->doc->count - r->open[--r->depth];
            continue;
        }
        if (!empty && !skip(r, ','))
            return fail(r, E_FORMAT, object ? "expected ',' or '}'" : "expected ',' or ']'");
        of->count++;
        if (!object)
            return OK;
        if (peek(r) != '"')
            return fail(r, E_FORMAT, "expected a member's name");
        TRY(read_string(r));
        return peek(r) == ':' && skip(r, ':') ? OK : fail(r, E_FORMAT, "expected ':'");
    }
    return OK;
}

err json_read(struct json_doc *doc, char *text, usize len)
{
    struct reader r = {.doc = doc, .start = text, .at = text, .end = text + len};

    doc->count = 0;
    doc->why = "";
    if (!utf8_valid((struct str){text, len}))
        return fail(&r, E_FORMAT, "invalid UTF-8");
    do {
        TRY(read_value(&r));
        TRY(read_close(&r));
    } while (r.depth);
    peek(&r);
    return r.at == r.end ? OK : fail(&r, E_FORMAT, "text after the document");
}

/* ---- looking into a document ---- */

const struct json *json_member(const struct json *object, struct str name)
{
    const struct json *key = json_first(object), *found = NULL;

    for (u32 i = 0; object->kind == JSON_OBJECT && i < object->count; i++) {
        if (str_eq(key->text, name))
            found = key + 1;
        key = json_next(key + 1);
    }
    return found;
}

err json_i64(const struct json *node, i64 *value)
{
    bool negative = node->text.len && node->text.ptr[0] == '-';
    u64 size;

    if (node->kind != JSON_NUMBER)
        return E_FORMAT;
    TRY(str_to_u64(str_slice(node->text, negative, node->text.len), &size));
    if (size > (u64)INT64_MAX + negative)
        return E_RANGE;
    *value = (i64)(negative ? 0 - size : size);
    return OK;
}

/* ---- writing ---- */

void json_put_chars(struct text *out, struct str text)
{
    while (text.len) {
        u32 point = 0;
        usize len = utf8_decode(text, &point);
        if (len == 0)
            text_put(out, STR("\xef\xbf\xbd")); /* U+FFFD */
        else if (point == '"' || point == '\\')
            text_fmt(out, "\\%c", (char)point);
        else if (point == '\n')
            text_put(out, STR("\\n"));
        else if (point < 0x20 || point == 0x7f)
            text_fmt(out, "\\u%04x", point);
        else
            text_put(out, str_slice(text, 0, len));
        text = str_slice(text, len ? len : 1, text.len);
    }
}

void json_put_member(struct text *out, const char *before, struct str text)
{
    text_fmt(out, "%s\"", before);
    json_put_chars(out, text);
    text_char(out, '"');
}

void json_put_str(struct text *out, struct str text)
{
    json_put_member(out, "", text);
}
