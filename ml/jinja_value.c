/*
 * jinja_value.c: the values of the template language: lists, dicts, and strings whose every byte
 * knows its origin. Owns their memory (the rendering's arena) and their comparison; must not know
 * of syntax.
 */
#include "ml/jinja_priv.h"

struct value value_int(i64 number) { return (struct value){.kind = INT, .number = number}; }
struct value value_bool(bool flag) { return (struct value){.kind = BOOL, .number = flag}; }
struct value value_string(struct string s) { return (struct value){.kind = STRING, .string = s}; }
struct value value_literal(struct str text)
{
    return value_string((struct string){text.ptr, (u32)text.len, TEMPLATE_BYTES});
}

/* ---- strings ---- */

void jinja_emit(struct vm *vm, struct string s)
{
    if (!jinja_spend(vm, s.len))
        return;
    if (s.len > vm->out_cap - vm->out_len) {
        jinja_fail(vm, E_LIMIT, "the text is longer than %u bytes", vm->out_cap);
        return;
    }
    for (u32 i = 0; i < s.len; i++)
        vm->out[vm->out_len++] = glyph_at(s, i);
}

void jinja_emit_literal(struct vm *vm, struct str text)
{
    jinja_emit(vm, value_literal(text).string);
}

static glyph *new_glyphs(struct vm *vm, u32 count)
{
    glyph *fresh = arena_new(vm->arena, glyph, count);

    if (!fresh)
        jinja_fail(vm, E_LIMIT, "out of memory");
    return fresh;
}

struct value jinja_take(struct vm *vm, u32 out_mark)
{
    u32 len = vm->out_len - out_mark;
    glyph *copy = vm->error ? NULL : new_glyphs(vm, len);

    vm->out_len = out_mark;
    if (!copy)
        return value_literal(STR(""));
    memcpy(copy, vm->out + out_mark, len * sizeof(glyph));
    return value_string((struct string){copy, len, GLYPHS});
}

/* A left side at the end of the arena grows in place: a chain of + copies each byte once. */
struct value jinja_concat(struct vm *vm, struct value a, struct value b)
{
    struct string left = a.string, right = b.string;
    const glyph *end = left.form == GLYPHS ? (const glyph *)left.ptr + left.len : NULL;
    u32 kept = (const u8 *)end == vm->arena->base + vm->arena->used ? left.len : 0;
    u32 len = left.len + right.len;

    if (a.kind != STRING || b.kind != STRING || !jinja_spend(vm, len - kept))
        return (struct value){};
    glyph *fresh = new_glyphs(vm, len - kept);
    if (!fresh)
        return (struct value){};
    for (u32 i = kept; i < left.len; i++)
        *fresh++ = glyph_at(left, i);
    for (u32 i = 0; i < right.len; i++)
        *fresh++ = glyph_at(right, i);
    return value_string((struct string){fresh - len, len, GLYPHS});
}

struct string jinja_sub(struct string s, u32 from, u32 to)
{
    u32 unit = s.form == GLYPHS ? sizeof(glyph) : 1;

    CHECK(from <= to && to <= s.len);
    return (struct string){(const u8 *)s.ptr + (usize)from * unit, to - from, s.form};
}

u32 jinja_find(struct vm *vm, struct string s, struct string needle, u32 from)
{
    for (u32 at = from; at + needle.len <= s.len; at++) {
        u32 same = 0;
        while (same < needle.len && (u8)glyph_at(s, at + same) == (u8)glyph_at(needle, same))
            same++;
        if (same == needle.len || !jinja_spend(vm, same + 1))
            return at;
    }
    return s.len;
}

struct str jinja_bytes(struct value v, char *out, usize cap)
{
    struct text copy = {out, 0, cap, false};

    for (u32 i = 0; v.kind == STRING && i < v.string.len && !copy.truncated; i++)
        text_char(&copy, (char)glyph_at(v.string, i));
    return text_str(&copy);
}

struct value jinja_text_of(struct vm *vm, struct value v)
{
    char digits[24];
    struct text number = TEXT_ON(digits);
    u32 mark = vm->out_len;

    if (v.kind == STRING)
        return v;
    if (v.kind == NONE || v.kind == UNDEFINED)
        return value_literal(v.kind == NONE ? STR("None") : STR(""));
    if (v.kind == BOOL)
        return value_literal(v.number ? STR("True") : STR("False"));
    if (v.kind != INT)
        jinja_fail(vm, E_FORMAT, "a list, mapping or function is no text: use tojson or join");
    text_fmt(&number, "%lld", (long long)v.number);
    jinja_emit_literal(vm, text_str(&number));
    return jinja_take(vm, mark);
}

/* ---- comparison ---- */

bool jinja_truthy(struct value v)
{
    if (v.kind == BOOL || v.kind == INT)
        return v.number != 0;
    if (v.kind == STRING)
        return v.string.len > 0;
    return v.kind == LIST || v.kind == DICT ? v.list->len > 0 : v.kind > DICT;
}

static bool is_number(struct value v) { return v.kind == INT || v.kind == BOOL; }

i32 jinja_compare(struct vm *vm, struct value a, struct value b)
{
    if (is_number(a) && is_number(b))
        return (a.number > b.number) - (a.number < b.number);
    if (a.kind != STRING || b.kind != STRING) {
        jinja_fail(vm, E_FORMAT, "these values have no order");
        return 0;
    }
    u32 len = min_u32(a.string.len, b.string.len), i = 0;
    while (i < len && (u8)glyph_at(a.string, i) == (u8)glyph_at(b.string, i))
        i++;
    if (!jinja_spend(vm, i) || i == len)
        return (a.string.len > b.string.len) - (a.string.len < b.string.len);
    return (u8)glyph_at(a.string, i) < (u8)glyph_at(b.string, i) ? -1 : 1;
}

/* A list or mapping equals itself and, when empty, every other empty one. */
bool jinja_equal(struct vm *vm, struct value a, struct value b)
{
    if ((is_number(a) && is_number(b)) || (a.kind == STRING && b.kind == STRING))
        return (a.kind != STRING || a.string.len == b.string.len) && !jinja_compare(vm, a, b);
    if (a.kind != b.kind || a.kind > DICT)
        return false;
    return a.kind < BOOL || a.list == b.list || a.list->len + b.list->len == 0;
}

bool jinja_contains(struct vm *vm, struct value box, struct value v)
{
    u32 step = box.kind == DICT ? 2 : 1;

    if (box.kind == STRING && v.kind == STRING)
        return !v.string.len || jinja_find(vm, box.string, v.string, 0) < box.string.len;
    if (box.kind != LIST && box.kind != DICT) {
        jinja_fail(vm, E_FORMAT, "'in' wants a text, a list or a mapping on its right");
        return false;
    }
    for (u32 i = 0; i < box.list->len && jinja_spend(vm, 1); i += step)
        if (jinja_equal(vm, box.list->item[i], v))
            return true;
    return false;
}

/* ---- lists and dicts ---- */

struct value jinja_list(struct vm *vm, enum kind kind)
{
    struct list *list = arena_new(vm->arena, struct list, 1);

    if (!list)
        jinja_fail(vm, E_LIMIT, "out of memory");
    return (struct value){.kind = kind, .list = list ? list : &vm->none};
}

void jinja_push(struct vm *vm, struct list *list, struct value v)
{
    if (!jinja_spend(vm, 1))
        return;
    if (list->len == list->cap) {
        u32 cap = max_u32(4, list->cap * 2);
        struct value *more = arena_new(vm->arena, struct value, cap);
        if (!more) {
            jinja_fail(vm, E_LIMIT, "out of memory");
            return;
        }
        memcpy(more, list->len ? list->item : more, list->len * sizeof(struct value));
        list->item = more;
        list->cap = cap;
    }
    list->item[list->len++] = v;
}

static struct value *find_key(struct vm *vm, const struct list *dict, struct value key)
{
    for (u32 i = 0; i + 1 < dict->len && jinja_spend(vm, 1); i += 2)
        if (jinja_equal(vm, dict->item[i], key))
            return &dict->item[i + 1];
    return NULL;
}

void jinja_set(struct vm *vm, struct list *dict, struct value key, struct value v)
{
    struct value *place = find_key(vm, dict, key);

    if (place) {
        *place = v;
        return;
    }
    jinja_push(vm, dict, key);
    jinja_push(vm, dict, v);
}

struct list *jinja_items(struct vm *vm, struct value v)
{
    struct list *items = v.kind == LIST ? v.list : jinja_list(vm, LIST).list;

    if (v.kind == DICT)
        for (u32 i = 0; i < v.list->len && !vm->error; i += 2)
            jinja_push(vm, items, v.list->item[i]);
    if (v.kind == STRING)
        for (u32 i = 0, len = jinja_len(v); i < len && jinja_spend(vm, v.string.len); i++)
            jinja_push(vm, items, jinja_subscript(vm, v, value_int(i)));
    if (v.kind != UNDEFINED && (v.kind < STRING || v.kind > DICT))
        jinja_fail(vm, E_FORMAT, "this value has no items to go through");
    return items;
}

/* The byte where the n-th code point starts: Python counts and indexes by code points. */
static u32 char_start(struct string s, i64 n)
{
    u32 at = 0;

    for (; at < s.len; at++)
        if ((glyph_at(s, at) & 0xc0) != 0x80 && n-- == 0)
            break;
    return at;
}

static struct value characters(struct vm *vm, struct string s, i64 from, i64 to)
{
    (void)jinja_spend(vm, s.len);
    return value_string(jinja_sub(s, char_start(s, from), char_start(s, to < from ? from : to)));
}

u32 jinja_len(struct value v)
{
    u32 count = 0;

    if (v.kind == LIST || v.kind == DICT)
        return v.list->len / (v.kind == DICT ? 2 : 1);
    for (u32 i = 0; v.kind == STRING && i < v.string.len; i++)
        count += (glyph_at(v.string, i) & 0xc0) != 0x80;
    return count;
}

struct value jinja_subscript(struct vm *vm, struct value v, struct value idx)
{
    i64 len = jinja_len(v), at = idx.kind == INT && idx.number < 0 ? idx.number + len : idx.number;

    if (v.kind == UNDEFINED)
        jinja_fail(vm, E_FORMAT, "an undefined value has no attributes");
    if (v.kind == DICT) {
        const struct value *place = find_key(vm, v.list, idx);
        return place ? *place : (struct value){};
    }
    if ((v.kind != LIST && v.kind != STRING) || idx.kind != INT || at < 0 || at >= len)
        return (struct value){};
    return v.kind == LIST ? v.list->item[at] : characters(vm, v.string, at, at + 1);
}

/* A bound as Python clamps it: negative ones count from the end. */
static i64 clamp_bound(struct value bound, i64 standard, i64 low, i64 len)
{
    i64 at = bound.number < 0 ? bound.number + len : bound.number;

    if (bound.kind != INT)
        return standard;
    return at < low ? low : at > len + low ? len + low : at;
}

struct value jinja_slice(struct vm *vm, struct value v, const struct value bound[3])
{
    i64 step = bound[2].kind == INT ? bound[2].number : 1, len = jinja_len(v);
    i64 low = step < 0 ? -1 : 0;
    i64 from = clamp_bound(bound[0], step < 0 ? len - 1 : 0, low, len);
    i64 to = clamp_bound(bound[1], step < 0 ? -1 : len, low, len);
    struct value cut = jinja_list(vm, LIST);

    if ((v.kind != LIST && v.kind != STRING) || (step != 1 && step != -1) ||
        (v.kind == STRING && step != 1))
        jinja_fail(vm, E_FORMAT, "this value cannot be sliced so");
    else if (v.kind == STRING)
        return characters(vm, v.string, from, to);
    for (i64 i = from; !vm->error && (step > 0 ? i < to : i > to); i += step)
        jinja_push(vm, cut.list, v.list->item[i]);
    return cut;
}
