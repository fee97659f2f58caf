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
    usize from = s.len, to = 0, len;

    for (usize at = 0; at < s.len && jinja_spend(vm, 1 + set.kind); at += max_u64(len, 1)) {
        len = strippable(s, at, set);
        from = len ? from : min_u64(from, at);
        to = len ? to : at + 1;
    }
    return value_text(
        str_slice(s, args->variant & LEFT ? from : 0, args->variant & RIGHT ? to : s.len));
}

/* The pieces between separators; without one, between runs of white space. */
static struct value run_split(struct vm *vm, const struct args *args)
{
    struct str s = jinja_text(vm, args->self);
    struct value by = jinja_arg(args, 0, STR("sep")), parts = jinja_list(vm, LIST);
    i64 left = int_arg(args, 1, STR("maxsplit"), -1);
    bool white = by.kind != STRING;
    usize begin = 0, at = 0, step = white ? 1 : 1 + by.text.len / 8;

    while (at < s.len && jinja_spend(vm, step)) {
        usize len = white                                          ? strippable(s, at, by)
                    : str_starts(str_slice(s, at, s.len), by.text) ? by.text.len
                                                                   : 0;
        if (!len || (!left && !(white && at == begin))) {
            at++;
            continue;
        }
        if (!white || at > begin) {
            jinja_push(vm, parts.list, value_text(str_slice(s, begin, at)));
            left--;
        }
        begin = at += len;
    }
    if (!white || begin < s.len)
        jinja_push(vm, parts.list, value_text(str_slice(s, begin, s.len)));
    return parts;
}

static struct value run_replace(struct vm *vm, const struct args *args)
{
    struct str s = jinja_text(vm, args->self), old = jinja_text(vm, jinja_arg(args, 0, STR("old")));
    struct str fresh = jinja_text(vm, jinja_arg(args, 1, STR("new")));
    i64 left = int_arg(args, 2, STR("count"), -1);
    u32 mark = vm->out_len;

    if (!old.len)
        jinja_fail(vm, E_FORMAT, "replace wants a text that is not empty");
    while (!vm->error) {
        usize end = left-- == 0 ? s.len : jinja_find(vm, s, old);
        jinja_emit(vm, str_slice(s, 0, end));
        if (end == s.len)
            break;
        jinja_emit(vm, fresh);
        s = str_slice(s, end + old.len, s.len);
    }
    return jinja_take(vm, mark);
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

static void json_line(struct vm *vm, i64 spaces)
{
    if (spaces >= 0)
        jinja_emit(vm, STR("\n"));
    for (i64 i = 0; i < spaces && !vm->error; i++)
        jinja_emit(vm, STR(" "));
}

/* indent < 0: all in one line; spaces: how far in this value stands. */
static void json(struct vm *vm, struct value v, i64 indent, i64 spaces)
{
    bool dict = v.kind == DICT;

    if (v.kind == STRING) {
        json_string(vm, v.text);
    } else if (v.kind == INT) {
        jinja_emit(vm, jinja_text(vm, v));
    } else if (v.kind == BOOL || v.kind == NONE) {
        jinja_emit(vm, v.kind == NONE ? STR("null") : v.number ? STR("true") : STR("false"));
    } else if (v.kind != LIST && !dict) {
        jinja_fail(vm, E_FORMAT, "tojson of an undefined value or a function");
    } else if (jinja_enter(vm)) {
        jinja_emit(vm, dict ? STR("{") : STR("["));
        for (u32 i = 0; i < v.list->len && !vm->error; i++) {
            bool is_value = dict && i % 2;
            if (i)
                jinja_emit(vm, is_value ? STR(": ") : indent < 0 ? STR(", ") : STR(","));
            if (!is_value)
                json_line(vm, indent + spaces);
            json(vm, v.list->item[i], indent, indent < 0 ? 0 : indent + spaces);
        }
        if (v.list->len)
            json_line(vm, indent < 0 ? -1 : spaces);
        jinja_emit(vm, dict ? STR("}") : STR("]"));
        vm->depth--;
    }
}

static struct value run_tojson(struct vm *vm, const struct args *args)
{
    i64 indent = int_arg(args, 0, STR("indent"), -1);
    u32 mark = vm->out_len;

    json(vm, args->self, indent > 16 ? 16 : indent, 0);
    return jinja_take(vm, mark);
}

/* ---- lists and mappings ---- */

static struct value items_of(struct vm *vm, struct value v)
{
    return (struct value){.kind = LIST, .list = jinja_items(vm, v)};
}

/* list|join(text) and text.join(list) */
static struct value run_join(struct vm *vm, const struct args *args)
{
    struct value self = args->self, other = jinja_arg(args, 0, STR("d"));
    struct str by = jinja_text(vm, args->variant == METHOD ? self : other);
    const struct list *items = jinja_items(vm, args->variant == METHOD ? other : self);
    u32 mark = vm->out_len;

    for (u32 i = 0; i < items->len && !vm->error; i++) {
        jinja_emit(vm, i ? by : STR(""));
        jinja_emit(vm, jinja_text(vm, items->item[i]));
    }
    return jinja_take(vm, mark);
}

/* Applies the filter or test that args->item[at] names to `item`, with the arguments behind it. A
 * filter that names a filter leaves fewer arguments each time, which bounds the depth. */
static struct value apply_named(struct vm *vm, struct value item, const struct args *args, u32 at,
                                enum function_use use)
{
    struct args inner = {.self = item};
    struct str name = jinja_text(vm, args->item[at]);
    const struct function *function = jinja_function(name, use);

    for (u32 i = at + 1; i < args->count; i++) {
        inner.name[inner.count] = args->name[i];
        inner.item[inner.count++] = args->item[i];
    }
    if (!function)
        return jinja_fail(vm, E_FORMAT, "'%.*s' cannot be applied to items", SHOWN(name));
    inner.variant = function->variant;
    return function->run(vm, &inner);
}

/* map(filter, arguments), map(attribute=name), select(test, arguments), selectattr(name, test,
 * arguments): MAP keeps what comes of an item, KEEP the items for which it is true, 0 the others.
 */
enum each { BY_ATTRIBUTE = 1, KEEP = 2, MAP = 4 };

static struct value run_each(struct vm *vm, const struct args *args)
{
    u32 how = args->variant, at = how & BY_ATTRIBUTE;
    struct value fresh = jinja_list(vm, LIST);
    struct value name = jinja_arg(args, at ? 0 : ARGS_MAX, STR("attribute"));
    const struct list *items = jinja_items(vm, args->self);

    for (u32 i = 0; i < items->len && !vm->error; i++) {
        struct value item = items->item[i], v = item;
        if (name.kind != UNDEFINED)
            v = jinja_subscript(vm, item, name);
        if (args->count > at && !args->name[at].len)
            v = apply_named(vm, v, args, at, how & MAP ? FILTER : TEST);
        if (how & MAP || jinja_truthy(v) == ((how & KEEP) != 0))
            jinja_push(vm, fresh.list, how & MAP ? v : item);
    }
    return fresh;
}

/* items and values; the keys are what a list of the mapping holds. */
enum dict_view { PAIRS, VALUES };

static struct value run_dict(struct vm *vm, const struct args *args)
{
    struct value fresh = jinja_list(vm, LIST), all = args->self;

    if (all.kind != DICT)
        return jinja_fail(vm, E_FORMAT, "this value is not a mapping");
    all.kind = LIST;
    for (u32 i = 0; !vm->error && i < all.list->len; i += 2)
        jinja_push(vm, fresh.list,
                   args->variant == PAIRS ? jinja_slice(vm, all, i, i + 2) : all.list->item[i + 1]);
    return fresh;
}

/* namespace(a=1) and dict(a=1) */
static struct value run_namespace(struct vm *vm, const struct args *args)
{
    struct value dict = jinja_list(vm, DICT);

    for (u32 i = 0; i < args->count; i++)
        jinja_set(vm, dict.list, value_text(args->name[i]), args->item[i]);
    return dict;
}

static struct value run_range(struct vm *vm, const struct args *args)
{
    i64 first = int_arg(args, 0, STR(""), 0), stop = int_arg(args, 1, STR(""), first);
    i64 step = int_arg(args, 2, STR(""), 1);
    struct value all = jinja_list(vm, LIST);

    if (step == 0 || step > INT_MAX || step < INT_MIN)
        return jinja_fail(vm, E_FORMAT, "range wants a small step that is not zero");
    for (i64 i = args->count > 1 ? first : 0; !vm->error && (step > 0 ? i < stop : i > stop);
         i += step)
        jinja_push(vm, all.list, value_int(i));
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
    IS_TRUE, IS_FALSE, EVEN, ODD, DIVISIBLE, IN, EQUAL, UNEQUAL, LESS, LESS_EQUAL, GREATER,
    GREATER_EQUAL
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
        return value_int(jinja_len(self));
    case ALL:
        return jinja_slice(vm, items_of(vm, self), 0, INT_MAX);
    case REVERSED:
        return jinja_reversed(vm, items_of(vm, self));
    case FIRST:
        return jinja_subscript(vm, items_of(vm, self), value_int(0));
    case LAST:
        return jinja_subscript(vm, items_of(vm, self), value_int(-1));
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
    case DIVISIBLE:
        return value_bool(self.kind == INT && a.kind == INT && a.number > 0 &&
                          self.number % a.number == 0);
    case IN:
        return value_bool(jinja_contains(vm, a, self));
    case EQUAL:
    case UNEQUAL:
        return value_bool(jinja_equal(vm, self, a) == (args->variant == EQUAL));
    case LESS:
        return value_bool(jinja_less(vm, self, a));
    case LESS_EQUAL:
        return value_bool(!jinja_less(vm, a, self));
    case GREATER:
        return value_bool(jinja_less(vm, a, self));
    case GREATER_EQUAL:
        return value_bool(!jinja_less(vm, self, a));
    }
    return (struct value){};
}

/* variant: the kinds, a bit each */
static struct value is_kind(struct vm *vm, const struct args *args)
{
    (void)vm;
    return value_bool(args->variant >> args->self.kind & 1);
}

/* ---- the table ---- */

#define TEST_1 (TEST | TEST_ARGUMENT)
#define BOX    (1u << STRING | 1u << LIST | 1u << DICT)

// clang-format off
static const struct function function_table[] = {
    {"trim", FILTER, LEFT | RIGHT, run_strip},     {"strip", METHOD, LEFT | RIGHT, run_strip},
    {"lstrip", METHOD, LEFT, run_strip},           {"rstrip", METHOD, RIGHT, run_strip},
    {"lower", FILTER | METHOD, LOWER, run_case},   {"upper", FILTER | METHOD, UPPER, run_case},
    {"title", FILTER | METHOD, TITLE, run_case},
    {"capitalize", FILTER | METHOD, CAPITALIZE, run_case},
    {"replace", FILTER | METHOD, 0, run_replace},  {"split", METHOD, 0, run_split},
    {"startswith", METHOD, STARTS, run_simple},    {"endswith", METHOD, ENDS, run_simple},
    {"string", FILTER, STRING_OF, run_simple},     {"int", FILTER, INT_OF, run_simple},
    {"tojson", FILTER, 0, run_tojson},             {"length", FILTER, LENGTH, run_simple},
    {"count", FILTER, LENGTH, run_simple},         {"list", FILTER, ALL, run_simple},
    {"reverse", FILTER, REVERSED, run_simple},     {"first", FILTER, FIRST, run_simple},
    {"last", FILTER, LAST, run_simple},            {"join", FILTER, FILTER, run_join},
    {"join", METHOD, METHOD, run_join},            {"map", FILTER, MAP, run_each},
    {"select", FILTER, KEEP, run_each},            {"reject", FILTER, 0, run_each},
    {"selectattr", FILTER, KEEP | BY_ATTRIBUTE, run_each},
    {"rejectattr", FILTER, BY_ATTRIBUTE, run_each},
    {"items", FILTER | METHOD, PAIRS, run_dict},   {"values", METHOD, VALUES, run_dict},
    {"keys", METHOD, ALL, run_simple},             {"get", METHOD, GET, run_simple},
    {"default", FILTER, DEFAULT, run_simple},      {"d", FILTER, DEFAULT, run_simple},
    {"safe", FILTER, DEFAULT, run_simple},         {"namespace", GLOBAL, 0, run_namespace},
    {"dict", GLOBAL, 0, run_namespace},            {"range", GLOBAL, 0, run_range},
    {"strftime_now", GLOBAL, 0, run_strftime},     {"raise_exception", GLOBAL, RAISE, run_simple},
    {"undefined", TEST, 1u << UNDEFINED, is_kind}, {"defined", TEST, ~(1u << UNDEFINED), is_kind},
    {"none", TEST, 1u << NONE, is_kind},           {"string", TEST, 1u << STRING, is_kind},
    {"number", TEST, 1u << INT | 1u << BOOL, is_kind},
    {"integer", TEST, 1u << INT, is_kind},         {"float", TEST, 0, is_kind},
    {"boolean", TEST, 1u << BOOL, is_kind},        {"mapping", TEST, 1u << DICT, is_kind},
    {"sequence", TEST, BOX, is_kind},              {"iterable", TEST, BOX, is_kind},
    {"true", TEST, IS_TRUE, run_simple},           {"false", TEST, IS_FALSE, run_simple},
    {"odd", TEST, ODD, run_simple},                {"even", TEST, EVEN, run_simple},
    {"divisibleby", TEST_1, DIVISIBLE, run_simple},
    {"in", TEST_1, IN, run_simple},                {"equalto", TEST_1, EQUAL, run_simple},
    {"eq", TEST_1, EQUAL, run_simple},             {"==", TEST_1, EQUAL, run_simple},
    {"ne", TEST_1, UNEQUAL, run_simple},           {"!=", TEST_1, UNEQUAL, run_simple},
    {"lt", TEST_1, LESS, run_simple},              {"<", TEST_1, LESS, run_simple},
    {"le", TEST_1, LESS_EQUAL, run_simple},        {"<=", TEST_1, LESS_EQUAL, run_simple},
    {"gt", TEST_1, GREATER, run_simple},           {">", TEST_1, GREATER, run_simple},
    {"ge", TEST_1, GREATER_EQUAL, run_simple},     {">=", TEST_1, GREATER_EQUAL, run_simple},
};
// clang-format on

const struct function *jinja_function(struct str name, enum function_use use)
{
    for (u32 i = 0; i < ARRAY_LEN(function_table); i++)
        if (function_table[i].use & (u32)use && str_eq(name, str_of(function_table[i].name)))
            return &function_table[i];
    return NULL;
}
