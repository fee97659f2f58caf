/*
 * jinja_lib.c: the filters, tests, methods and functions that templates call, in the table at the
 * end. Owns their meaning, which is Python's where the name is Python's; letters change case in
 * ASCII only. Follows the lists of the Jinja 2 template designer documentation and what chat
 * templates are given besides: a tojson that escapes no HTML, raise_exception, strftime_now.
 */
#include "ml/jinja_priv.h"

struct value jinja_arg(const struct args *args, u32 position, struct str name)
{
    for (u32 i = 0; i < args->count; i++)
        if (args->name[i].len ? str_eq(args->name[i], name) : i == position)
            return args->item[i];
    return (struct value){};
}

static i64 int_arg(const struct args *args, u32 position, struct str name, i64 standard)
{
    struct value v = jinja_arg(args, position, name);

    return v.kind == INT || v.kind == BOOL ? v.number : standard;
}

/* ---- text ---- */

enum letter_case { LOWER, UPPER, TITLE, CAPITALIZE };

static struct value run_case(struct vm *vm, const struct args *args)
{
    u32 mark = vm->out_len;
    bool first = true;

    jinja_emit(vm, jinja_text(vm, args->self));
    for (u32 i = mark; i < vm->out_len; i++) {
        char c = vm->out[i] | 0x20;
        bool letter = c >= 'a' && c <= 'z';
        bool upper = args->variant == UPPER || (args->variant >= TITLE && first);
        if (letter)
            vm->out[i] = upper ? c ^ 0x20 : c;
        first = args->variant == TITLE && !letter;
    }
    return jinja_take(vm, mark);
}

/* Bytes at `at` that are white space, by Python's list, or one of the characters in `set`; or 0. */
static usize strippable(struct str s, usize at, struct value set)
{
    static const u16 others[] = {0x20, 0x85, 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000};
    u32 c = 0;
    usize bytes = utf8_decode(str_slice(s, at, at + 4), &c);
    bool found =
        (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f) || (c >= 0x2000 && c <= 0x200a);

    if (set.kind == STRING)
        found = bytes && str_find(set.text, str_slice(s, at, at + bytes)) < set.text.len;
    for (u32 i = 0; i < ARRAY_LEN(others) && set.kind != STRING; i++)
        found |= c == others[i];
    return found ? bytes : 0;
}

enum side { LEFT = 1, RIGHT = 2 };

static struct value run_strip(struct vm *vm, const struct args *args)
{
    struct str s = jinja_text(vm, args->self);
    struct value set = jinja_arg(args, 0, STR("chars"));
    usize from = s.len, to = 0, cost = 1 + (set.kind == STRING ? set.text.len : 0), len;

    for (usize at = 0; at < s.len && jinja_spend(vm, cost); at += max_u64(len, 1)) {
        len = strippable(s, at, set);
        from = len ? from : min_u64(from, at);
        to = len ? to : at + 1;
    }
    return value_text(
        str_slice(s, args->variant & LEFT ? from : 0, args->variant & RIGHT ? to : s.len));
}

/* The pieces between separators; without one, between runs of white space, is not supported. */
static struct value split(struct vm *vm, struct str s, struct value by, i64 left)
{
    struct value parts = jinja_list(vm, LIST);

    if (by.kind != STRING || !by.text.len)
        return jinja_fail(vm, E_FORMAT, "split and replace want a text that is not empty");
    for (usize at = 0; at < s.len; s = str_slice(s, at + by.text.len, s.len)) {
        at = left-- == 0 ? s.len : jinja_find(vm, s, by.text);
        jinja_push(vm, parts, value_text(str_slice(s, 0, at)));
        if (at == s.len || vm->error)
            return parts;
    }
    jinja_push(vm, parts, value_text(s));
    return parts;
}

static struct value join(struct vm *vm, struct str by, struct value v)
{
    const struct list *items = jinja_items(vm, v).list;
    u32 mark = vm->out_len;

    for (u32 i = 0; i < items->len && !vm->error; i++) {
        jinja_emit(vm, i ? by : STR(""));
        jinja_emit(vm, jinja_text(vm, items->item[i]));
    }
    return jinja_take(vm, mark);
}

enum pieces { SPLIT, REPLACE, JOIN_LIST, JOIN_WITH };

static struct value run_pieces(struct vm *vm, const struct args *args)
{
    struct value a = jinja_arg(args, 0, STR("d")), b = jinja_arg(args, 1, STR("new"));

    switch ((enum pieces)args->variant) {
    case SPLIT:
        return split(vm, jinja_text(vm, args->self), a, int_arg(args, 1, STR("maxsplit"), -1));
    case REPLACE:
        a = split(vm, jinja_text(vm, args->self), a, int_arg(args, 2, STR("count"), -1));
        return join(vm, jinja_text(vm, b), a);
    case JOIN_LIST:
        return join(vm, jinja_text(vm, a), args->self);
    case JOIN_WITH:
        return join(vm, jinja_text(vm, args->self), a);
    }
    return (struct value){};
}

/* ---- JSON, as Python's json.dumps(ensure_ascii=False) writes it ---- */

static void json_string(struct vm *vm, struct str s)
{
    static const char escapes[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";

    jinja_emit(vm, STR("\""));
    for (usize i = 0; i < s.len && !vm->error; i++) {
        char buffer[8];
        struct text code = TEXT_ON(buffer);
        usize which = str_find_char(str_of(escapes), s.ptr[i]);
        if (which < sizeof(escapes) - 1)
            text_fmt(&code, "\\%c", letters[which]);
        else if ((u8)s.ptr[i] < 0x20)
            text_fmt(&code, "\\u%04x", (u32)(u8)s.ptr[i]);
        jinja_emit(vm, code.len ? text_str(&code) : str_slice(s, i, i + 1));
    }
    jinja_emit(vm, STR("\""));
}

/* Numbers, true, false and none are lower case there. */
static struct value run_tojson(struct vm *vm, const struct args *args)
{
    struct value v = args->self;
    u32 mark = vm->out_len;

    if (args->count || v.kind == UNDEFINED || v.kind > STRING)
        return jinja_fail(vm, E_FORMAT, "tojson of a list or mapping, or with arguments");
    if (v.kind == STRING)
        json_string(vm, v.text);
    else
        jinja_emit(vm, v.kind == NONE ? STR("null") : jinja_text(vm, v));
    for (u32 i = mark; i < vm->out_len && v.kind == BOOL; i++)
        vm->out[i] |= 0x20;
    return jinja_take(vm, mark);
}

/* ---- lists and mappings ---- */

/* map(attribute=name), selectattr(name, test, argument), rejectattr: MAP keeps an item's attribute,
 * KEEP the items for which the test is true, REJECT the others. */
enum each { REJECT, KEEP, MAP };

static struct value run_each(struct vm *vm, const struct args *args)
{
    struct value fresh = jinja_list(vm, LIST), name = jinja_arg(args, 0, STR("attribute"));
    const struct list *items = jinja_items(vm, args->self).list;
    struct str word = args->count > 1 ? jinja_text(vm, args->item[1]) : STR("defined");
    const struct function *test = jinja_function(word, TEST);
    struct args inner = {.item = {args->item[2]}, .count = args->count > 2};

    if (!test || name.kind != STRING || (args->variant == MAP && !args->name[0].len))
        return jinja_fail(vm, E_FORMAT, "'%.*s' cannot be applied to items", SHOWN(word));
    inner.variant = test->variant;
    for (u32 i = 0; i < items->len && !vm->error; i++) {
        inner.self = jinja_subscript(vm, items->item[i], name);
        if (args->variant == MAP)
            jinja_push(vm, fresh, inner.self);
        else if (jinja_truthy(test->run(vm, &inner)) == (args->variant == KEEP))
            jinja_push(vm, fresh, items->item[i]);
    }
    return fresh;
}

/* namespace(a=1) and dict(a=1) */
static struct value run_namespace(struct vm *vm, const struct args *args)
{
    struct value dict = jinja_list(vm, DICT);

    for (u32 i = 0; i < args->count; i++)
        jinja_set(vm, dict, args->name[i], args->item[i]);
    return dict;
}

/* range(stop) and range(first, stop) */
static struct value run_range(struct vm *vm, const struct args *args)
{
    i64 first = int_arg(args, 0, STR(""), 0), stop = int_arg(args, 1, STR(""), first);
    struct value all = jinja_list(vm, LIST);

    if (args->count > 2)
        return jinja_fail(vm, E_FORMAT, "range has no step here");
    for (i64 i = args->count > 1 ? first : 0; !vm->error && i < stop; i++)
        jinja_push(vm, all, value_int(i));
    return all;
}

/* C's strftime in the "C" locale, %Y %m %d %B %b, with years that begin in March, in eras
 * of 400: the leap day is then the last day of its year. */
static struct value run_strftime(struct vm *vm, const struct args *args)
{
    static const char months[] = "January  February March    April    May      June     "
                                 "July     August   SeptemberOctober  November December ";
    u64 since = (u64)vm->env->now_unix_s / 86400 + 719468;
    u32 day = (u32)(since % 146097);
    u32 year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    u32 rest = day - (365 * year + year / 4 - year / 100), march = (5 * rest + 2) / 153;
    u32 month = march < 10 ? march + 3 : march - 9;
    const u32 value[] = {(u32)(since / 146097) * 400 + year + (march >= 10), month,
                         rest - (153 * march + 2) / 5 + 1};
    struct str format = jinja_text(vm, jinja_arg(args, 0, STR("")));
    u32 mark = vm->out_len;

    for (usize i = 0; i < format.len && !vm->error; i++) {
        char buffer[16];
        struct text field = TEXT_ON(buffer);
        struct str name = {months + 9 * (month - 1), 9};
        char code = format.ptr[i] == '%' && i + 1 < format.len ? format.ptr[++i] : '\0';
        usize which = str_find_char(STR("Ymd"), code);
        if (which < ARRAY_LEN(value))
            text_fmt(&field, "%02u", value[which]);
        else if (code == 'B' || code == 'b')
            text_put(&field, str_trim(str_slice(name, 0, code == 'b' ? 3 : 9)));
        jinja_emit(vm, field.len ? text_str(&field) : str_slice(format, i, i + 1));
    }
    return jinja_take(vm, mark);
}

/* ---- what takes a line each; the comparison operators are tests ---- */

// clang-format off
enum simple {
    STRING_OF, INT_OF, LENGTH, ALL, REVERSED, FIRST, LAST, GET, DEFAULT, RAISE, STARTS, ENDS,
    IS_TRUE, IS_FALSE, EVEN, ODD, IN
};
// clang-format on

static struct value run_simple(struct vm *vm, const struct args *args)
{
    struct value self = args->self, a = jinja_arg(args, 0, STR("default_value")), b, v;
    u64 number = self.kind == BOOL && self.number;
    struct str text;

    switch ((enum simple)args->variant) {
    case STRING_OF:
        return value_text(jinja_text(vm, self));
    case INT_OF: /* a text that is no number is 0 */
        (void)str_to_u64(str_trim(jinja_text(vm, self)), &number);
        return self.kind == INT ? self : value_int((i64)min_u64(number, INT64_MAX));
    case LENGTH:
        return value_int(jinja_len(vm, self));
    case ALL:
        return jinja_slice(vm, jinja_items(vm, self), 0, INT_MAX);
    case REVERSED:
        return jinja_reversed(vm, jinja_items(vm, self));
    case FIRST:
        return jinja_subscript(vm, jinja_items(vm, self), value_int(0));
    case LAST:
        return jinja_subscript(vm, jinja_items(vm, self), value_int(-1));
    case GET:
        b = jinja_arg(args, 1, STR("default"));
        v = jinja_subscript(vm, self, a);
        return v.kind ? v : b.kind ? b : (struct value){.kind = NONE};
    case DEFAULT: /* safe is this without an argument */
        b = jinja_arg(args, 1, STR("boolean"));
        v = a.kind ? a : value_text(STR(""));
        return self.kind == UNDEFINED || (jinja_truthy(b) && !jinja_truthy(self)) ? v : self;
    case RAISE:
        text = jinja_text(vm, a);
        return jinja_fail(vm, E_FORMAT, "%.*s", SHOWN(text));
    case STARTS:
        return value_bool(a.kind == STRING && str_starts(jinja_text(vm, self), a.text));
    case ENDS:
        return value_bool(a.kind == STRING && str_ends(jinja_text(vm, self), a.text));
    case IS_TRUE:
    case IS_FALSE:
        return value_bool(self.kind == BOOL && self.number == (args->variant == IS_TRUE));
    case EVEN:
    case ODD:
        return value_bool(self.kind == INT && (self.number % 2 == 0) == (args->variant == EVEN));
    case IN:
        return value_bool(jinja_contains(vm, a, self));
    }
    return (struct value){};
}

enum outcome { LESS = 1, EQUAL = 2, GREATER = 4, UNEQUAL = LESS | GREATER };

/* variant: the outcomes that are true */
static struct value run_compare(struct vm *vm, const struct args *args)
{
    struct value a = args->self, b = args->item[0];

    if (args->variant == EQUAL || args->variant == UNEQUAL)
        return value_bool(jinja_equal(vm, a, b) == (args->variant == EQUAL));
    if (a.kind != INT || b.kind != INT)
        return jinja_fail(vm, E_FORMAT, "only numbers have an order here");
    enum outcome outcome = a.number < b.number ? LESS : a.number > b.number ? GREATER : EQUAL;
    return value_bool(args->variant & outcome);
}

/* variant: the kinds, a bit each */
static struct value is_kind(struct vm *vm, const struct args *args)
{
    (void)vm;
    return value_bool(args->variant >> args->self.kind & 1);
}

/* ---- the table ---- */

#define TEST_1 (TEST | TEST_ARGUMENT)

// clang-format off
static const struct function function_table[] = {
    {"trim", FILTER, LEFT | RIGHT, run_strip},     {"strip", METHOD, LEFT | RIGHT, run_strip},
    {"lstrip", METHOD, LEFT, run_strip},           {"rstrip", METHOD, RIGHT, run_strip},
    {"lower", FILTER | METHOD, LOWER, run_case},   {"upper", FILTER | METHOD, UPPER, run_case},
    {"title", FILTER | METHOD, TITLE, run_case},   {"split", METHOD, SPLIT, run_pieces},
    {"capitalize", FILTER | METHOD, CAPITALIZE, run_case},
    {"replace", FILTER | METHOD, REPLACE, run_pieces},
    {"join", FILTER, JOIN_LIST, run_pieces},       {"join", METHOD, JOIN_WITH, run_pieces},
    {"startswith", METHOD, STARTS, run_simple},    {"endswith", METHOD, ENDS, run_simple},
    {"string", FILTER, STRING_OF, run_simple},     {"int", FILTER, INT_OF, run_simple},
    {"tojson", FILTER, 0, run_tojson},             {"length count", FILTER, LENGTH, run_simple},
    {"list", FILTER, ALL, run_simple},             {"keys", METHOD, ALL, run_simple},
    {"first", FILTER, FIRST, run_simple},          {"last", FILTER, LAST, run_simple},
    {"map", FILTER, MAP, run_each},                {"selectattr", FILTER, KEEP, run_each},
    {"rejectattr", FILTER, REJECT, run_each},      {"reverse", FILTER, REVERSED, run_simple},
    {"default d safe", FILTER, DEFAULT, run_simple}, {"get", METHOD, GET, run_simple},
    {"namespace dict", GLOBAL, 0, run_namespace},  {"range", GLOBAL, 0, run_range},
    {"strftime_now", GLOBAL, 0, run_strftime},     {"raise_exception", GLOBAL, RAISE, run_simple},
    {"undefined", TEST, 1u << UNDEFINED, is_kind}, {"defined", TEST, ~(1u << UNDEFINED), is_kind},
    {"none", TEST, 1u << NONE, is_kind},           {"string", TEST, 1u << STRING, is_kind},
    {"number", TEST, 1u << INT | 1u << BOOL, is_kind}, {"integer", TEST, 1u << INT, is_kind},
    {"boolean", TEST, 1u << BOOL, is_kind},        {"mapping", TEST, 1u << DICT, is_kind},
    {"iterable sequence", TEST, 1u << STRING | 1u << LIST | 1u << DICT, is_kind},
    {"true", TEST, IS_TRUE, run_simple},           {"false", TEST, IS_FALSE, run_simple},
    {"odd", TEST, ODD, run_simple},                {"even", TEST, EVEN, run_simple},
    {"in", TEST_1, IN, run_simple},                {"== eq equalto", TEST_1, EQUAL, run_compare},
    {"!= ne", TEST_1, UNEQUAL, run_compare},       {"< lt", TEST_1, LESS, run_compare},
    {"<= le", TEST_1, LESS | EQUAL, run_compare},  {"> gt", TEST_1, GREATER, run_compare},
    {">= ge", TEST_1, GREATER | EQUAL, run_compare},
};
// clang-format on

const struct function *jinja_function(struct str name, enum function_use use)
{
    for (u32 i = 0; i < ARRAY_LEN(function_table); i++)
        if (function_table[i].use & (u32)use && jinja_among(name, function_table[i].names))
            return &function_table[i];
    return NULL;
}
