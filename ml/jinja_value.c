/*
 * jinja_value.c: the values of the template language: lists, dicts, and strings whose every byte
 * knows its origin. Owns their memory (the rendering's arena) and their comparison; must not know
 * of syntax.
 */
#include "ml/jinja_priv.h"

/* ---- strings ---- */

bool jinja_is_user(const struct vm *vm, const char *byte)
{
    usize at = (usize)byte - (usize)vm->arena->base;

    return at < vm->arena->cap && (vm->user[at / 8] >> at % 8 & 1);
}

static void set_user(struct vm *vm, const char *byte, bool user)
{
    usize at = (usize)byte - (usize)vm->arena->base;

    vm->user[at / 8] = (u8)((vm->user[at / 8] & ~(1u << at % 8)) | (u32)user << at % 8);
}

static void copy(struct vm *vm, char *to, struct str from)
{
    bool spent = jinja_spend(vm, from.len);

    for (usize i = 0; i < from.len && spent; i++) {
        to[i] = from.ptr[i];
        set_user(vm, to + i, jinja_is_user(vm, from.ptr + i));
    }
}

/* A left side at the end of the arena grows in place: a chain of + copies each byte once. */
struct str jinja_concat(struct vm *vm, struct str a, struct str b)
{
    bool grows = a.ptr + a.len == (char *)vm->arena->base + vm->arena->used;
    char *to = arena_take(vm->arena, b.len + (grows ? 0 : a.len), 1);

    if (!to) {
        jinja_fail(vm, E_LIMIT, "out of memory");
        return STR("");
    }
    if (grows)
        to -= a.len;
    else
        copy(vm, to, a);
    copy(vm, to + a.len, b);
    return (struct str){to, a.len + b.len};
}

struct value jinja_from_user(struct vm *vm, struct str text)
{
    struct str s = jinja_concat(vm, STR(""), text);

    for (usize i = 0; i < s.len; i++)
        set_user(vm, s.ptr + i, true);
    return value_text(s);
}

void jinja_emit(struct vm *vm, struct str s)
{
    if (s.len > vm->out_cap - vm->out_len)
        jinja_fail(vm, E_LIMIT, "the text is longer than %u bytes", vm->out_cap);
    if (vm->error)
        return;
    copy(vm, vm->out + vm->out_len, s);
    vm->out_len += (u32)s.len;
}

struct value jinja_take(struct vm *vm, u32 out_mark)
{
    struct str s = {vm->out + out_mark, vm->out_len - out_mark};

    vm->out_len = out_mark;
    return value_text(jinja_concat(vm, STR(""), s));
}

struct str jinja_text(struct vm *vm, struct value v)
{
    static const char *const words[] = {"", "None", "False", "True"};
    char digits[24];
    struct text number = TEXT_ON(digits);

    if (v.kind == STRING)
        return v.text;
    if (v.kind <= BOOL)
        return str_of(words[v.kind + (v.kind == BOOL && v.number)]);
    if (v.kind > STRING) {
        jinja_fail(vm, E_FORMAT, "a list, mapping or function is no text: use tojson or join");
        return STR("");
    }
    text_fmt(&number, "%lld", (long long)v.number);
    return jinja_concat(vm, STR(""), text_str(&number));
}

usize jinja_find(struct vm *vm, struct str s, struct str needle)
{
    usize at = 0;

    while (at + needle.len <= s.len && jinja_spend(vm, 1 + needle.len / 8) &&
           !str_eq((struct str){s.ptr + at, needle.len}, needle))
        at++;
    return at + needle.len <= s.len ? at : s.len;
}

/* ---- comparison ---- */

static bool is_number(struct value v)
{
    return v.kind == INT || v.kind == BOOL;
}
static bool is_box(struct value v)
{
    return v.kind == LIST || v.kind == DICT;
}

bool jinja_truthy(struct value v)
{
    if (v.kind == STRING)
        return v.text.len > 0;
    return is_box(v) ? v.list->len > 0 : v.kind > DICT || (is_number(v) && v.number);
}

/* A list or mapping equals itself and, when empty, every other empty one. */
bool jinja_equal(struct vm *vm, struct value a, struct value b)
{
    if (is_number(a) && is_number(b))
        return a.number == b.number;
    if (a.kind == STRING && b.kind == STRING)
        return jinja_spend(vm, min_u64(a.text.len, b.text.len)) && str_eq(a.text, b.text);
    return a.kind == b.kind &&
           (a.kind <= NONE || (is_box(a) && (a.list == b.list || a.list->len + b.list->len == 0)));
}

/* The item, or the value of the key; or NULL. */
static struct value *find_item(struct vm *vm, struct value box, struct value v)
{
    u32 step = box.kind == DICT ? 2 : 1;

    for (u32 i = 0; i < box.list->len && jinja_spend(vm, 1); i += step)
        if (jinja_equal(vm, box.list->item[i], v))
            return &box.list->item[i + step - 1];
    return NULL;
}

bool jinja_contains(struct vm *vm, struct value box, struct value v)
{
    if (box.kind == STRING && v.kind == STRING)
        return !v.text.len || jinja_find(vm, box.text, v.text) < box.text.len;
    if (!is_box(box))
        jinja_fail(vm, E_FORMAT, "'in' wants a text, a list or a mapping on its right");
    return is_box(box) && find_item(vm, box, v);
}

/* ---- lists and dicts ---- */

struct value jinja_list(struct vm *vm, enum kind kind)
{
    struct list *list = arena_new(vm->arena, struct list, 1);

    if (!list)
        jinja_fail(vm, E_LIMIT, "out of memory");
    return (struct value){.kind = kind, .list = list ? list : &vm->none};
}

void jinja_push(struct vm *vm, struct value box, struct value v)
{
    struct list *list = box.list;

    if (list->len == list->cap) {
        u32 cap = max_u32(4, list->cap * 2);
        struct value *more = arena_new(vm->arena, struct value, cap);
        if (!more) {
            jinja_fail(vm, E_LIMIT, "out of memory");
            return;
        }
        memcpy(more, list->len ? list->item : more, list->len * sizeof(struct value));
        *list = (struct list){more, list->len, cap};
    }
    if (jinja_spend(vm, 1))
        list->item[list->len++] = v;
}

void jinja_set(struct vm *vm, struct value dict, struct str key, struct value v)
{
    struct value *place = find_item(vm, dict, value_text(key));

    if (place) {
        *place = v;
        return;
    }
    jinja_push(vm, dict, value_text(key));
    jinja_push(vm, dict, v);
}

/* Python counts and indexes by code points; a list by items, a mapping by keys. Cuts the item at
 * *at off, and moves on. */
static struct value next_item(struct value v, u32 *at)
{
    u32 from = *at;

    *at += v.kind == DICT ? 2 : 1;
    if (v.kind != STRING)
        return v.list->item[from];
    while (*at < v.text.len && (v.text.ptr[*at] & 0xc0) == 0x80)
        ++*at;
    return value_text(str_slice(v.text, from, *at));
}

static u32 end_of(struct value v)
{
    return is_box(v) ? v.list->len : v.kind == STRING ? (u32)v.text.len : 0;
}

u32 jinja_len(struct vm *vm, struct value v)
{
    u32 count = 0;

    for (u32 at = 0; at < end_of(v) && jinja_spend(vm, 1); count++)
        (void)next_item(v, &at);
    return count;
}

/* The bytes or items from number `from` to `to` of a text or list. */
static struct value between(struct vm *vm, struct value v, i64 from, i64 to)
{
    struct value cut = v.kind == STRING ? value_text(STR("")) : jinja_list(vm, LIST);
    u32 at = 0;

    for (i64 n = 0; at < end_of(v) && n < to && jinja_spend(vm, 1); n++) {
        struct value item = next_item(v, &at);
        if (n < from)
            continue;
        if (v.kind != STRING)
            jinja_push(vm, cut, item);
        else
            cut.text = (struct str){n == from ? item.text.ptr : cut.text.ptr,
                                    cut.text.len + item.text.len};
    }
    return cut;
}

struct value jinja_items(struct vm *vm, struct value v)
{
    struct value items = jinja_list(vm, LIST);

    if (v.kind == LIST)
        return v;
    if (v.kind != UNDEFINED && v.kind != DICT && v.kind != STRING)
        jinja_fail(vm, E_FORMAT, "this value has no items to go through");
    for (u32 at = 0; at < end_of(v) && !vm->error;)
        jinja_push(vm, items, next_item(v, &at));
    return items;
}

struct value jinja_subscript(struct vm *vm, struct value v, struct value idx)
{
    i64 at = idx.kind == INT && idx.number < 0 ? idx.number + jinja_len(vm, v) : idx.number;

    if (v.kind == UNDEFINED)
        return jinja_fail(vm, E_FORMAT, "an undefined value has no attributes");
    if (v.kind == DICT) {
        const struct value *place = find_item(vm, v, idx);
        return place ? *place : (struct value){};
    }
    if ((v.kind != LIST && v.kind != STRING) || idx.kind != INT || at < 0)
        return (struct value){};
    if (v.kind == LIST)
        return at < v.list->len ? v.list->item[at] : (struct value){};
    v = between(vm, v, at, at + 1);
    return v.text.len ? v : (struct value){};
}

/* Negative ends count from the end, as in Python. */
struct value jinja_slice(struct vm *vm, struct value v, i64 from, i64 to)
{
    i64 len = jinja_len(vm, v);

    if (v.kind != LIST && v.kind != STRING)
        return jinja_fail(vm, E_FORMAT, "this value cannot be sliced so");
    from += from < 0 ? len : 0;
    return between(vm, v, from < 0 ? 0 : from, to < 0 ? to + len : to);
}

struct value jinja_reversed(struct vm *vm, struct value v)
{
    struct value turned = jinja_list(vm, LIST);

    if (v.kind != LIST)
        return jinja_fail(vm, E_FORMAT, "only a list can be reversed");
    for (u32 i = v.list->len; i-- > 0;)
        jinja_push(vm, turned, v.list->item[i]);
    return turned;
}
