/*
 * jinja_lib.c: the filters, tests, methods and functions that templates call, in the table at the
 * end. Owns their meaning, which is Python's where the name is Python's; letters change case in
 * ASCII only. Follows the lists of the Jinja 2 template designer documentation and what chat
 * templates are given besides: a tojson that escapes no HTML, raise_exception, strftime_now.
 */
#include "ml/jinja_priv.h"

struct value jinja_arg(const struct args *args, u32 position, struct str name)
{
    if (position < args->count && !args->name[position].len)
        return args->item[position];
    for (u32 i = 0; i < args->count; i++)
        if (args->name[i].len && str_eq(args->name[i], name))
            return args->item[i];
    return (struct value){};
}

static struct value first_arg(const struct args *args) { return jinja_arg(args, 0, STR("")); }

static i64 int_arg(const struct args *args, u32 position, struct str name, i64 standard)
{
    struct value v = jinja_arg(args, position, name);

    return v.kind == INT || v.kind == BOOL ? v.number : standard;
}

/* ---- text ---- */

static struct string self_text(struct vm *vm, const struct args *args)
{
    struct value v = jinja_text_of(vm, args->self);

    (void)jinja_spend(vm, v.string.len);
    return v.string;
}

static struct value run_string(struct vm *vm, const struct args *args)
{
    return jinja_text_of(vm, args->self);
}

enum letter_case { LOWER, UPPER, TITLE, CAPITALIZE };

static struct value run_case(struct vm *vm, const struct args *args)
{
    u32 mark = vm->out_len;
    bool first = true;

    jinja_emit(vm, self_text(vm, args));
    for (u32 i = mark; i < vm->out_len; i++) {
        char c = (char)(vm->out[i] | 0x20);
        bool letter = c >= 'a' && c <= 'z' && vm->out[i] % GLYPH_USER < 0x80;
        bool upper = args->variant == UPPER || (args->variant >= TITLE && first);
        if (letter)
            vm->out[i] = (glyph)((vm->out[i] | 0x20) ^ (upper ? 0x20 : 0));
        first = args->variant == TITLE && !letter;
    }
    return jinja_take(vm, mark);
}

/* What Python strips: the white space of Unicode and four control characters. */
static bool is_space(u32 c)
{
    static const u16 others[] = {0x20,   0x85,   0xa0,   0x1680, 0x2028,
                                 0x2029, 0x202f, 0x205f, 0x3000};
    bool found = (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f) ||
                 (c >= 0x2000 && c <= 0x200a);

    for (u32 i = 0; i < ARRAY_LEN(others); i++)
        found |= c == others[i];
    return found;
}

/* Bytes of the character at idx when it is white space, or one of the bytes in `set`; else 0. */
static u32 strippable(struct string s, u32 idx, struct value set)
{
    u32 len = min_u32(4, s.len - idx), code_point = 0;
    char utf8[4], one[64];

    struct str chars = jinja_bytes(set, one, sizeof(one));
    for (u32 i = 0; i < len; i++)
        utf8[i] = (char)glyph_at(s, idx + i);
    if (set.kind == STRING)
        return str_find_char(chars, utf8[0]) < chars.len;
    usize used = utf8_decode((struct str){utf8, len}, &code_point);
    return used && is_space(code_point) ? (u32)used : 0;
}

enum side { LEFT = 1, RIGHT = 2 };

static struct value run_strip(struct vm *vm, const struct args *args)
{
    struct string s = self_text(vm, args);
    struct value set = first_arg(args);
    u32 from = 0, to = s.len, len = 1;

    while (args->variant & LEFT && from < to && (len = strippable(s, from, set)) > 0)
        from += len;
    for (len = 1; args->variant & RIGHT && to > from && len > 0; to -= len) {
        u32 begin = to - 1;
        while (begin > from && set.kind != STRING && (glyph_at(s, begin) & 0xc0) == 0x80)
            begin--;
        len = strippable(s, begin, set);
    }
    return value_string(jinja_sub(s, from, to));
}

/* The pieces between separators; without one, between runs of white space. */
static struct value run_split(struct vm *vm, const struct args *args)
{
    struct string s = self_text(vm, args);
    struct value by = jinja_arg(args, 0, STR("sep")), parts = jinja_list(vm, LIST);
    i64 left = int_arg(args, 1, STR("maxsplit"), -1);
    bool white = by.kind != STRING;
    u32 at = 0, end, len;

    if (!white && !by.string.len)
        jinja_fail(vm, E_FORMAT, "split by an empty text");
    while (at <= s.len && !vm->error) {
        while (white && at < s.len && (len = strippable(s, at, by)) > 0)
            at += len;
        for (end = at; white && end < s.len && !strippable(s, end, by);)
            end++;
        if (!white)
            end = jinja_find(vm, s, by.string, at);
        if (left-- == 0)
            end = s.len;
        if (!white || end > at)
            jinja_push(vm, parts.list, value_string(jinja_sub(s, at, end)));
        at = end == s.len ? s.len + 1 : end + (white ? 0 : by.string.len);
    }
    return parts;
}

static struct value run_affix(struct vm *vm, const struct args *args)
{
    struct string s = self_text(vm, args);
    struct value affix = first_arg(args);
    u32 len = affix.kind == STRING ? affix.string.len : UINT_MAX;
    u32 from = args->variant == RIGHT && len <= s.len ? s.len - len : 0;

    return value_bool(len <= s.len &&
                      jinja_equal(vm, value_string(jinja_sub(s, from, from + len)), affix));
}

static struct value run_replace(struct vm *vm, const struct args *args)
{
    struct string s = self_text(vm, args);
    struct value old = first_arg(args), fresh = jinja_text_of(vm, jinja_arg(args, 1, STR("new")));
    i64 left = int_arg(args, 2, STR("count"), -1);
    u32 at = 0, mark = vm->out_len;

    if (old.kind != STRING || !old.string.len)
        jinja_fail(vm, E_FORMAT, "replace wants a text that is not empty");
    while (!vm->error) {
        u32 end = left-- == 0 ? s.len : jinja_find(vm, s, old.string, at);
        jinja_emit(vm, jinja_sub(s, at, end));
        if (end == s.len)
            break;
        jinja_emit(vm, fresh.string);
        at = end + old.string.len;
    }
    return jinja_take(vm, mark);
}

static struct value run_int(struct vm *vm, const struct args *args)
{
    struct args all = {.self = args->self, .variant = LEFT | RIGHT};
    char digits[20];
    struct str text = jinja_bytes(run_strip(vm, &all), digits, sizeof(digits));
    bool negative = str_starts(text, STR("-"));
    u64 number = 0;

    if (args->self.kind == INT || args->self.kind == BOOL)
        return value_int(args->self.number);
    if (str_to_u64(str_slice(text, negative, text.len), &number) != OK || number > INT64_MAX)
        return value_int(int_arg(args, 0, STR("default"), 0));
    return value_int(negative ? -(i64)number : (i64)number);
}

/* ---- JSON, as Python's json.dumps(ensure_ascii=False) writes it ---- */

static void json_string(struct vm *vm, struct string s)
{
    static const char escapes[] = "\"\"\\\\\nn\rr\tt\bb\ff";

    jinja_emit_literal(vm, STR("\""));
    for (u32 i = 0; i < s.len && !vm->error; i++) {
        char c = (char)glyph_at(s, i), buffer[8];
        struct text code = TEXT_ON(buffer);
        usize e = 0;
        while (e + 1 < sizeof(escapes) && escapes[e] != c)
            e += 2;
        if (e + 1 < sizeof(escapes))
            text_fmt(&code, "\\%c", escapes[e + 1]);
        else if ((u8)c < 0x20)
            text_fmt(&code, "\\u%04x", (u32)(u8)c);
        else
            jinja_emit(vm, jinja_sub(s, i, i + 1));
        jinja_emit_literal(vm, text_str(&code));
    }
    jinja_emit_literal(vm, STR("\""));
}

static void json_scalar(struct vm *vm, struct value v)
{
    if (v.kind == STRING)
        json_string(vm, v.string);
    else if (v.kind == INT)
        jinja_emit(vm, jinja_text_of(vm, v).string);
    else if (v.kind == BOOL)
        jinja_emit_literal(vm, v.number ? STR("true") : STR("false"));
    else if (v.kind == NONE)
        jinja_emit_literal(vm, STR("null"));
    else
        jinja_fail(vm, E_FORMAT, "tojson of an undefined value or a function");
}

static void json_line(struct vm *vm, i64 indent, u32 depth)
{
    if (indent >= 0)
        jinja_emit_literal(vm, STR("\n"));
    for (i64 i = 0; i < indent * depth && !vm->error; i++)
        jinja_emit_literal(vm, STR(" "));
}

#define JSON_DEPTH_MAX 16u

/* A stack of open lists and mappings; `next` counts what each has written. */
static struct value run_tojson(struct vm *vm, const struct args *args)
{
    struct value box[JSON_DEPTH_MAX], v = args->self;
    u32 next[JSON_DEPTH_MAX], depth = 0, mark = vm->out_len;
    i64 indent = int_arg(args, 0, STR("indent"), -1);

    do {
        if (v.kind != LIST && v.kind != DICT)
            json_scalar(vm, v);
        else if (depth < JSON_DEPTH_MAX) {
            jinja_emit_literal(vm, v.kind == LIST ? STR("[") : STR("{"));
            box[depth] = v;
            next[depth++] = 0;
        } else
            jinja_fail(vm, E_LIMIT, "tojson of more than %u lists in each other", depth);
        while (depth && next[depth - 1] == box[depth - 1].list->len) {
            if (next[--depth])
                json_line(vm, indent, depth);
            jinja_emit_literal(vm, box[depth].kind == LIST ? STR("]") : STR("}"));
        }
        if (!depth)
            break;
        u32 idx = next[depth - 1]++;
        v = box[depth - 1].list->item[idx];
        if (box[depth - 1].kind == DICT && idx % 2)
            jinja_emit_literal(vm, STR(": "));
        else {
            if (idx)
                jinja_emit_literal(vm, indent >= 0 ? STR(",") : STR(", "));
            json_line(vm, indent, depth);
        }
    } while (!vm->error);
    return jinja_take(vm, mark);
}

/* ---- lists ---- */

static struct value run_length(struct vm *vm, const struct args *args)
{
    if (args->self.kind > UNDEFINED && args->self.kind < STRING)
        jinja_fail(vm, E_FORMAT, "this value has no length");
    return value_int(jinja_len(args->self));
}

/* list; variant -1: reverse */
static struct value run_list(struct vm *vm, const struct args *args)
{
    struct value all = {.kind = LIST, .list = jinja_items(vm, args->self)};

    return jinja_slice(vm, all, (struct value[3]){{}, {}, value_int((i32)args->variant)});
}

static struct value run_at(struct vm *vm, const struct args *args)
{
    return jinja_subscript(vm, args->self, value_int((i32)args->variant));
}

/* The item, or its attribute when one is named. */
static struct value of_item(struct vm *vm, struct value item, struct value name)
{
    return name.kind == STRING || name.kind == INT ? jinja_subscript(vm, item, name) : item;
}

/* list|join(text) and text.join(list) */
enum join_form { JOIN_FILTER, JOIN_METHOD };

static struct value run_join(struct vm *vm, const struct args *args)
{
    bool method = args->variant == JOIN_METHOD;
    struct value by = jinja_text_of(vm, method ? args->self : jinja_arg(args, 0, STR("d")));
    struct value name = jinja_arg(args, 1, STR("attribute"));
    const struct list *items = jinja_items(vm, method ? first_arg(args) : args->self);
    u32 mark = vm->out_len;

    for (u32 i = 0; i < items->len && !vm->error; i++) {
        struct value text = jinja_text_of(vm, of_item(vm, items->item[i], name));
        if (i)
            jinja_emit(vm, by.string);
        jinja_emit(vm, text.string);
    }
    return jinja_take(vm, mark);
}

/* Applies the filter or test that args->item[at] names to `item`, with the arguments behind it. A
 * filter that names a filter leaves fewer arguments each time, which bounds the depth. */
static struct value apply_named(struct vm *vm, struct value item, const struct args *args, u32 at,
                                enum function_use use)
{
    struct args inner = {.self = item};
    char text[24];
    struct str name = STR("");

    if (at < args->count)
        name = jinja_bytes(args->item[at], text, sizeof(text));
    for (u32 i = at + 1; i < args->count; i++) {
        inner.name[inner.count] = args->name[i];
        inner.item[inner.count++] = args->item[i];
    }
    const struct function *function = jinja_function(name, use);
    if (function)
        return jinja_run(vm, function, &inner);
    jinja_fail(vm, E_FORMAT, "'%.*s' cannot be applied to items", (int)name.len, name.ptr);
    return (struct value){};
}

static struct value run_map(struct vm *vm, const struct args *args)
{
    struct value fresh = jinja_list(vm, LIST), name = jinja_arg(args, ARGS_MAX, STR("attribute"));
    struct value standard = jinja_arg(args, ARGS_MAX, STR("default"));
    const struct list *items = jinja_items(vm, args->self);

    for (u32 i = 0; i < items->len && !vm->error; i++) {
        struct value v = name.kind == UNDEFINED ? apply_named(vm, items->item[i], args, 0, FILTER)
                                                : of_item(vm, items->item[i], name);
        jinja_push(vm, fresh.list, v.kind == UNDEFINED ? standard : v);
    }
    return fresh;
}

/* select(test, arguments), selectattr(name, test, arguments); without a test: what is true. */
enum pick { BY_ATTRIBUTE = 1, KEEP = 2 };

static struct value run_pick(struct vm *vm, const struct args *args)
{
    u32 at = args->variant & BY_ATTRIBUTE;
    struct value fresh = jinja_list(vm, LIST), name = at ? first_arg(args) : (struct value){};
    const struct list *items = jinja_items(vm, args->self);

    for (u32 i = 0; i < items->len && !vm->error; i++) {
        struct value v = of_item(vm, items->item[i], name);
        if (args->count > at)
            v = apply_named(vm, v, args, at, TEST);
        if (jinja_truthy(v) == ((args->variant & KEEP) != 0))
            jinja_push(vm, fresh.list, items->item[i]);
    }
    return fresh;
}

/* ---- mappings ---- */

enum dict_view { KEYS, VALUES, PAIRS };

static struct value run_dict(struct vm *vm, const struct args *args)
{
    struct value fresh = jinja_list(vm, LIST);

    if (args->self.kind != DICT)
        jinja_fail(vm, E_FORMAT, "this value is not a mapping");
    for (u32 i = 0; !vm->error && i < args->self.list->len; i += 2) {
        const struct value *key = &args->self.list->item[i];
        struct value pair = jinja_list(vm, LIST);
        jinja_push(vm, pair.list, key[0]);
        jinja_push(vm, pair.list, key[1]);
        jinja_push(vm, fresh.list, args->variant == PAIRS ? pair : key[args->variant]);
    }
    return fresh;
}

static struct value run_get(struct vm *vm, const struct args *args)
{
    struct value v = jinja_subscript(vm, args->self, first_arg(args));
    struct value standard = jinja_arg(args, 1, STR("default"));

    standard.kind = standard.kind == UNDEFINED ? NONE : standard.kind;
    return v.kind == UNDEFINED ? standard : v;
}

/* namespace(a=1) and dict(a=1) */
static struct value run_namespace(struct vm *vm, const struct args *args)
{
    struct value dict = jinja_list(vm, DICT);

    for (u32 i = 0; i < args->count; i++)
        jinja_set(vm, dict.list, value_literal(args->name[i]), args->item[i]);
    return dict;
}

/* ---- anything ---- */

/* safe is this without an argument. */
static struct value run_default(struct vm *vm, const struct args *args)
{
    struct value v = jinja_arg(args, 0, STR("default_value"));
    bool falsy_too = int_arg(args, 1, STR("boolean"), 0) != 0;

    (void)vm;
    if (args->self.kind != UNDEFINED && !(falsy_too && !jinja_truthy(args->self)))
        return args->self;
    return v.kind == UNDEFINED ? value_literal(STR("")) : v;
}

static struct value run_range(struct vm *vm, const struct args *args)
{
    i64 first = int_arg(args, 0, STR(""), 0), stop = int_arg(args, 1, STR(""), first);
    i64 step = int_arg(args, 2, STR(""), 1), from = args->count > 1 ? first : 0;
    struct value all = jinja_list(vm, LIST);

    if (step == 0 || step > INT_MAX || step < INT_MIN)
        jinja_fail(vm, E_FORMAT, "range wants a small step that is not zero");
    for (i64 i = from; !vm->error && (step > 0 ? i < stop : i > stop); i += step)
        jinja_push(vm, all.list, value_int(i));
    return all;
}

static struct value run_raise(struct vm *vm, const struct args *args)
{
    char text[120];
    struct str words = jinja_bytes(first_arg(args), text, sizeof(text));

    jinja_fail(vm, E_FORMAT, "%.*s", (int)words.len, words.ptr);
    return (struct value){};
}

/* ---- tests; the comparison operators are tests too ---- */

static struct value is_kind(struct vm *vm, const struct args *args)
{
    (void)vm;
    return value_bool(args->variant >> args->self.kind & 1);
}

static struct value is_bool(struct vm *vm, const struct args *args)
{
    (void)vm;
    return value_bool(args->self.kind == BOOL && args->self.number == args->variant);
}

enum divisibility { EVEN, ODD, DIVISIBLE };

static struct value is_divisible(struct vm *vm, const struct args *args)
{
    i64 by = args->variant == DIVISIBLE ? int_arg(args, 0, STR("num"), 0) : 2;

    if (args->self.kind != INT || by <= 0)
        jinja_fail(vm, E_FORMAT, "odd, even and divisibleby want integers");
    return value_bool(!vm->error && (args->self.number % by == 0) != (args->variant == ODD));
}

static struct value is_in(struct vm *vm, const struct args *args)
{
    return value_bool(jinja_contains(vm, first_arg(args), args->self));
}

enum order { LESS = 1, EQUAL = 2, GREATER = 4, SAME = 8 };

static struct value is_order(struct vm *vm, const struct args *args)
{
    struct value a = args->self, b = first_arg(args);
    bool equal = jinja_equal(vm, a, b) && (args->variant != SAME || a.kind == b.kind);
    bool wants_less = args->variant & LESS, wants_greater = args->variant & GREATER;

    if (equal || wants_less == wants_greater) /* only whether they are equal matters */
        return value_bool(equal ? args->variant & (EQUAL | SAME) : wants_less);
    return value_bool(jinja_compare(vm, a, b) < 0 ? wants_less : wants_greater);
}

/* ---- the table ---- */

#define TEST_1 (TEST | TEST_ARGUMENT)
#define BOX (1u << STRING | 1u << LIST | 1u << DICT)

// clang-format off
static const struct function function_table[] = {
    {"trim", FILTER, LEFT | RIGHT, run_strip},       {"strip", METHOD, LEFT | RIGHT, run_strip},
    {"lstrip", METHOD, LEFT, run_strip},             {"rstrip", METHOD, RIGHT, run_strip},
    {"lower", FILTER | METHOD, LOWER, run_case},     {"upper", FILTER | METHOD, UPPER, run_case},
    {"title", FILTER | METHOD, TITLE, run_case},
    {"capitalize", FILTER | METHOD, CAPITALIZE, run_case},
    {"replace", FILTER | METHOD, 0, run_replace},    {"split", METHOD, 0, run_split},
    {"startswith", METHOD, LEFT, run_affix},         {"endswith", METHOD, RIGHT, run_affix},
    {"string", FILTER, 0, run_string},               {"int", FILTER, 0, run_int},
    {"tojson", FILTER, 0, run_tojson},               {"length", FILTER, 0, run_length},
    {"count", FILTER, 0, run_length},                {"list", FILTER, 1, run_list},
    {"reverse", FILTER, (u32)-1, run_list},          {"first", FILTER, 0, run_at},
    {"last", FILTER, (u32)-1, run_at},               {"join", FILTER, JOIN_FILTER, run_join},
    {"join", METHOD, JOIN_METHOD, run_join},         {"map", FILTER, 0, run_map},
    {"select", FILTER, KEEP, run_pick},              {"reject", FILTER, 0, run_pick},
    {"selectattr", FILTER, KEEP | BY_ATTRIBUTE, run_pick},
    {"rejectattr", FILTER, BY_ATTRIBUTE, run_pick},  {"items", FILTER | METHOD, PAIRS, run_dict},
    {"keys", METHOD, KEYS, run_dict},                {"values", METHOD, VALUES, run_dict},
    {"get", METHOD, 0, run_get},                     {"default", FILTER, 0, run_default},
    {"d", FILTER, 0, run_default},                   {"safe", FILTER, 0, run_default},
    {"namespace", GLOBAL, 0, run_namespace},         {"dict", GLOBAL, 0, run_namespace},
    {"range", GLOBAL, 0, run_range},                 {"raise_exception", GLOBAL, 0, run_raise},
    {"strftime_now", GLOBAL, 0, jinja_strftime},     {"undefined", TEST, 1u << UNDEFINED, is_kind},
    {"defined", TEST, ~(1u << UNDEFINED), is_kind},  {"none", TEST, 1u << NONE, is_kind},
    {"string", TEST, 1u << STRING, is_kind},
    {"number", TEST, 1u << INT | 1u << BOOL, is_kind},
    {"integer", TEST, 1u << INT, is_kind},           {"float", TEST, 0, is_kind},
    {"boolean", TEST, 1u << BOOL, is_kind},          {"mapping", TEST, 1u << DICT, is_kind},
    {"sequence", TEST, BOX, is_kind},                {"iterable", TEST, BOX, is_kind},
    {"callable", TEST, 1u << MACRO | 1u << FUNCTION, is_kind},
    {"true", TEST, 1, is_bool},                      {"false", TEST, 0, is_bool},
    {"odd", TEST, ODD, is_divisible},                {"even", TEST, EVEN, is_divisible},
    {"divisibleby", TEST_1, DIVISIBLE, is_divisible},
    {"in", TEST_1, 0, is_in},                        {"sameas", TEST_1, SAME, is_order},
    {"eq", TEST_1, EQUAL, is_order},                 {"equalto", TEST_1, EQUAL, is_order},
    {"==", TEST_1, EQUAL, is_order},                 {"ne", TEST_1, LESS | GREATER, is_order},
    {"!=", TEST_1, LESS | GREATER, is_order},        {"lt", TEST_1, LESS, is_order},
    {"<", TEST_1, LESS, is_order},                   {"le", TEST_1, LESS | EQUAL, is_order},
    {"<=", TEST_1, LESS | EQUAL, is_order},          {"gt", TEST_1, GREATER, is_order},
    {">", TEST_1, GREATER, is_order},                {"ge", TEST_1, GREATER | EQUAL, is_order},
    {">=", TEST_1, GREATER | EQUAL, is_order},
};
// clang-format on

const struct function *jinja_function(struct str name, enum function_use use)
{
    for (u32 i = 0; i < ARRAY_LEN(function_table); i++)
        if (function_table[i].use & (u32)use && str_eq(name, str_of(function_table[i].name)))
            return &function_table[i];
    return NULL;
}

struct value jinja_run(struct vm *vm, const struct function *function, struct args *args)
{
    args->variant = function->variant;
    return function->run(vm, args);
}
