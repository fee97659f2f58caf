/*
 * jinja_expr.c: the lexer inside of tags, and the evaluation of expressions while they are parsed,
 * by precedence. Owns operators, calls and literals; must not know of statements. Follows
 * "Expressions" of the Jinja 2 template designer documentation. Nesting is counted in vm->depth,
 * which bounds the stack.
 */
#include "ml/jinja_priv.h"

/* ---- tokens ---- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_word(char c)
{
    return is_digit(c) || c == '_' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

static char char_at(const struct vm *vm, u32 at)
{
    return at < vm->source.len ? vm->source.ptr[at] : '\0';
}

/* Behind a backslash: n, t, r, xHH, uHHHH; anything else stands for itself. Returns bytes. */
static usize unescape(struct vm *vm, u32 *at, char out[4])
{
    char c = vm->source.ptr[(*at)++];
    u32 digits = c == 'u' ? 4 : c == 'x' ? 2 : 0, code_point = 0;

    out[0] = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
    for (; digits > 0; digits--, (*at)++) {
        char digit = char_at(vm, *at) | 0x20;
        usize value = str_find_char(STR("0123456789abcdef"), digit);
        if (value > 15)
            jinja_fail(vm, E_FORMAT, "'\\%c' wants more digits", c);
        code_point = code_point * 16 + (u32)(value & 15);
    }
    return c == 'u' || c == 'x' ? utf8_encode(code_point, out) : 1;
}

static void read_string(struct vm *vm, char quote)
{
    u32 from = ++vm->lex.at, end = from, mark = vm->out_len;
    bool escaped = false;

    while (end < vm->source.len && vm->source.ptr[end] != quote) {
        bool escape = vm->source.ptr[end] == '\\';
        escaped |= escape;
        end += 1 + escape;
    }
    if (end >= vm->source.len) {
        jinja_fail(vm, E_FORMAT, "a text is not closed");
        return;
    }
    vm->lex.at = end + 1;
    vm->lex.kind = LEX_STRING;
    vm->lex.literal = value_literal(str_slice(vm->source, from, end));
    if (!escaped || vm->skip)
        return;
    for (u32 i = from; i < end;) {
        char utf8[4] = {vm->source.ptr[i++]};
        usize bytes = utf8[0] == '\\' ? unescape(vm, &i, utf8) : 1;
        jinja_emit_literal(vm, (struct str){utf8, bytes});
    }
    vm->lex.literal = jinja_take(vm, mark);
}

static void read_operator(struct vm *vm)
{
    static const char *const ends[] = {"-%}", "+%}", "%}", "-}}", "}}"};
    static const char *const pairs[] = {"==", "!=", "<=", ">=", "//"};
    struct str rest = str_slice(vm->source, vm->lex.at, vm->source.len);
    u32 len = 1;

    vm->lex.kind = LEX_OPERATOR;
    for (u32 i = 0; i < ARRAY_LEN(ends) && !vm->lex.braces; i++)
        if (str_starts(rest, str_of(ends[i]))) {
            vm->lex.kind = LEX_END;
            len = (u32)strlen(ends[i]);
            break;
        }
    for (u32 i = 0; i < ARRAY_LEN(pairs); i++)
        if (str_starts(rest, str_of(pairs[i])))
            len = 2;
    if (vm->lex.kind == LEX_OPERATOR && rest.ptr[0] == '{')
        vm->lex.braces++;
    if (vm->lex.kind == LEX_OPERATOR && rest.ptr[0] == '}' && vm->lex.braces)
        vm->lex.braces--;
    vm->lex.at += len;
}

void jinja_next(struct vm *vm)
{
    u32 at = vm->lex.at;

    while (char_at(vm, at) == ' ' || (char_at(vm, at) >= '\t' && char_at(vm, at) <= '\r'))
        at++;
    vm->lex = (struct lexer){.kind = LEX_END, .start = at, .at = at, .braces = vm->lex.braces};
    if (at >= vm->source.len)
        jinja_fail(vm, E_FORMAT, "a tag is not closed");
    if (!jinja_spend(vm, 1))
        return;
    char c = char_at(vm, at);
    if (c == '"' || c == '\'') {
        read_string(vm, c);
    } else if (is_word(c)) {
        i64 number = 0;
        while (is_digit(char_at(vm, at)) && at - vm->lex.start < 18)
            number = number * 10 + (char_at(vm, at++) - '0');
        vm->lex.kind = is_digit(c) ? LEX_INT : LEX_NAME;
        if (is_digit(c) && is_word(char_at(vm, at)))
            jinja_fail(vm, E_FORMAT, "a number that is too long");
        vm->lex.literal = value_int(number);
        while (is_word(char_at(vm, at)))
            at++;
        vm->lex.at = at;
    } else {
        read_operator(vm);
    }
    vm->lex.text = str_slice(vm->source, vm->lex.start, vm->lex.at);
}

bool jinja_at(const struct vm *vm, const char *word)
{
    bool named = vm->lex.kind == LEX_NAME || vm->lex.kind == LEX_OPERATOR;

    return named && str_eq(vm->lex.text, str_of(word));
}

bool jinja_accept(struct vm *vm, const char *word)
{
    bool found = jinja_at(vm, word);

    if (found)
        jinja_next(vm);
    return found;
}

void jinja_expect(struct vm *vm, const char *word)
{
    if (!jinja_accept(vm, word))
        jinja_fail(vm, E_FORMAT, "expected '%s', saw '%.*s'", word, SHOWN(vm->lex.text));
}

struct str jinja_name(struct vm *vm)
{
    struct str name = vm->lex.text;

    if (vm->lex.kind != LEX_NAME)
        jinja_fail(vm, E_FORMAT, "expected a name, saw '%.*s'", SHOWN(name));
    jinja_next(vm);
    return name;
}

/* ---- operators, loosest first ---- */

enum level { OR = 1, AND, NOT, COMPARE, ADD, CONCAT, MULTIPLY, UNARY };

static struct value joined_lists(struct vm *vm, const struct list *a, const struct list *b)
{
    struct value sum = jinja_list(vm, LIST);

    for (u32 i = 0; i < a->len + b->len && !vm->error; i++)
        jinja_push(vm, sum.list, i < a->len ? a->item[i] : b->item[i - a->len]);
    return sum;
}

static struct value arithmetic(struct vm *vm, struct str op, struct value a, struct value b)
{
    i64 x = a.number, y = b.number, result = 0;
    bool bad = a.kind != INT || b.kind != INT;

    if (op.ptr[0] == '~')
        return jinja_concat(vm, jinja_text_of(vm, a), jinja_text_of(vm, b));
    if (op.ptr[0] == '+' && a.kind == STRING && b.kind == STRING)
        return jinja_concat(vm, a, b);
    if (op.ptr[0] == '+' && a.kind == LIST && b.kind == LIST)
        return joined_lists(vm, a.list, b.list);
    if (op.ptr[0] == '+')
        bad |= __builtin_add_overflow(x, y, &result);
    else if (op.ptr[0] == '-')
        bad |= __builtin_sub_overflow(x, y, &result);
    else if (op.ptr[0] == '*')
        bad |= __builtin_mul_overflow(x, y, &result);
    else if (bad || y <= 0 || str_eq(op, STR("/"))) /* there are no fractions */
        bad = true;
    else /* rounds towards minus infinity; the remainder is never negative */
        result = op.ptr[0] == '%' ? (x % y + y) % y : x / y - (x % y < 0);
    if (bad)
        jinja_fail(vm, E_FORMAT, "'%.*s' cannot take these values", SHOWN(op));
    return value_int(result);
}

/* Comparisons are tests with a sign for a name. Not part of binary()'s frame, which is the one that
 * nests. */
__attribute__((noinline))
static struct value combine(struct vm *vm, struct str op, struct value a, struct value b)
{
    struct args args = {.self = a, .item = {b}, .count = 1};
    bool negated = str_eq(op, STR("not"));
    const struct function *test = jinja_function(negated ? STR("in") : op, TEST);

    if (!test)
        return arithmetic(vm, op, a, b);
    return value_bool(jinja_truthy(jinja_run(vm, test, &args)) != negated);
}

static const struct infix {
    const char *text;
    enum level level;
} infix_table[] = {
    {"or", OR},    {"and", AND},     {"==", COMPARE}, {"!=", COMPARE},
    {"<", COMPARE}, {"<=", COMPARE}, {">", COMPARE},  {">=", COMPARE},
    {"in", COMPARE}, {"not", COMPARE}, /* "not in" */
    {"+", ADD},    {"-", ADD},       {"~", CONCAT},
    {"*", MULTIPLY}, {"/", MULTIPLY}, {"//", MULTIPLY}, {"%", MULTIPLY},
};

static enum level infix_level(const struct vm *vm)
{
    for (u32 i = 0; i < ARRAY_LEN(infix_table); i++)
        if (jinja_at(vm, infix_table[i].text))
            return infix_table[i].level;
    return 0;
}

static struct value postfixed(struct vm *vm);

static struct value binary(struct vm *vm, enum level level);

static struct value prefixed(struct vm *vm)
{
    if (jinja_accept(vm, "not"))
        return value_bool(!jinja_truthy(binary(vm, NOT)));
    if (jinja_accept(vm, "-")) {
        struct value v = postfixed(vm);
        return vm->skip ? v : arithmetic(vm, STR("-"), value_int(0), v);
    }
    return postfixed(vm);
}

static struct value binary(struct vm *vm, enum level level)
{
    struct value left = {};

    if (++vm->depth > JINJA_DEPTH_MAX)
        jinja_fail(vm, E_LIMIT, "nested deeper than %u", JINJA_DEPTH_MAX);
    if (!vm->error)
        left = prefixed(vm);
    for (enum level at = infix_level(vm); at >= level && at && !vm->error; at = infix_level(vm)) {
        struct str op = vm->lex.text;
        bool decided = at <= AND && jinja_truthy(left) == (at == OR);

        jinja_next(vm);
        if (op.ptr[0] == 'n')
            jinja_expect(vm, "in");
        vm->skip += decided;
        struct value right = binary(vm, at + 1);
        vm->skip -= decided;
        if (vm->skip)
            left = (struct value){};
        else if (at <= AND)
            left = decided ? left : right;
        else if (!vm->error)
            left = combine(vm, op, left, right);
    }
    vm->depth--;
    return left;
}

struct value jinja_operand(struct vm *vm) { return binary(vm, OR); }

/* `a if condition else b`: the condition stands behind what it decides, so first `a` is skipped. */
struct value jinja_expr(struct vm *vm)
{
    struct lexer begin = vm->lex, end;
    struct value v = {};

    vm->skip++;
    binary(vm, OR);
    bool conditional = jinja_accept(vm, "if");
    vm->skip--;
    if (!conditional && vm->skip)
        return v;
    bool taken = !conditional || jinja_truthy(binary(vm, OR));
    end = vm->lex;
    if (taken && !vm->skip && !vm->error) {
        vm->lex = begin;
        v = binary(vm, OR);
    }
    if (!conditional || vm->error)
        return v;
    vm->lex = end;
    if (jinja_accept(vm, "else")) {
        vm->skip += taken;
        struct value other = jinja_expr(vm);
        vm->skip -= taken;
        v = taken ? v : other;
    }
    return v;
}

/* ---- calls ---- */

/* At the token behind "(": reads to the ")". */
static void read_args(struct vm *vm, struct args *args)
{
    while (!jinja_at(vm, ")") && !vm->error) {
        struct lexer begin = vm->lex;
        struct str name = vm->lex.kind == LEX_NAME ? vm->lex.text : (struct str){};

        jinja_next(vm);
        if (!name.len || !jinja_accept(vm, "=")) {
            vm->lex = begin;
            name = (struct str){};
        }
        struct value v = jinja_expr(vm);
        if (args->count == ARGS_MAX) {
            jinja_fail(vm, E_LIMIT, "more than %u arguments", ARGS_MAX);
            return;
        }
        args->name[args->count] = name;
        args->item[args->count++] = v;
        if (!jinja_at(vm, ")"))
            jinja_expect(vm, ",");
    }
    jinja_expect(vm, ")");
}

/* A filter, test or method by name, with arguments in brackets, or behind a test without them. */
static struct value apply(struct vm *vm, struct value self, struct str name, enum function_use use)
{
    const struct function *function = jinja_function(name, use);
    struct args args = {.self = self};

    if (jinja_accept(vm, "("))
        read_args(vm, &args);
    else if (use == TEST && function && function->use & TEST_ARGUMENT)
        args.item[args.count++] = postfixed(vm);
    if (vm->error || vm->skip)
        return (struct value){};
    if (function)
        return jinja_run(vm, function, &args);
    jinja_fail(vm, E_FORMAT, "'%.*s' is no known %s", SHOWN(name),
               use == FILTER ? "filter" : use == TEST ? "test" : "method");
    return (struct value){};
}

static struct value call(struct vm *vm, struct value callee, struct str name)
{
    struct args args = {};

    read_args(vm, &args);
    if (vm->error || vm->skip)
        return (struct value){};
    if (callee.kind == MACRO)
        return jinja_call_macro(vm, callee.macro_at, &args);
    if (callee.kind == FUNCTION)
        return jinja_run(vm, callee.function, &args);
    jinja_fail(vm, E_FORMAT, "'%.*s' is not a function", SHOWN(name));
    return (struct value){};
}

/* ---- operands ---- */

/* [a, b], (a, b) and {k: v}; one value in brackets without a comma is that value. */
static struct value collection(struct vm *vm, enum kind kind, const char *close)
{
    struct value box = jinja_list(vm, kind);
    bool tuple = close[0] != ')', more = true;

    while (more && !jinja_at(vm, close) && !vm->error) {
        jinja_push(vm, box.list, jinja_expr(vm));
        if (kind == DICT) {
            jinja_expect(vm, ":");
            jinja_push(vm, box.list, jinja_expr(vm));
        }
        more = jinja_accept(vm, ",");
        tuple |= more;
    }
    jinja_expect(vm, close);
    return tuple || vm->error || !box.list->len ? box : box.list->item[0];
}

static struct value name_value(struct vm *vm, struct str name)
{
    static const char *const constants[] = {"none", "None", "false", "False", "true", "True"};

    for (u32 i = 0; i < ARRAY_LEN(constants); i++)
        if (str_eq(name, str_of(constants[i])))
            return i < 2 ? (struct value){.kind = NONE} : value_bool(i >= 4);
    struct value v = jinja_lookup(vm, name);
    const struct function *function = jinja_function(name, GLOBAL);
    if (v.kind == UNDEFINED && function)
        v = (struct value){.kind = FUNCTION, .function = function};
    return v;
}

static struct value primary(struct vm *vm)
{
    struct lexer token = vm->lex;

    if (token.kind == LEX_END)
        jinja_fail(vm, E_FORMAT, "expected a value, saw '%.*s'", SHOWN(token.text));
    if (vm->error)
        return (struct value){};
    jinja_next(vm);
    if (token.kind == LEX_NAME) {
        struct value v = name_value(vm, token.text);
        return jinja_accept(vm, "(") ? call(vm, v, token.text) : vm->skip ? (struct value){} : v;
    }
    if (token.kind == LEX_INT)
        return token.literal;
    if (token.kind == LEX_STRING) {
        struct value v = token.literal;
        for (; vm->lex.kind == LEX_STRING; jinja_next(vm)) /* "a" "b" is "ab" */
            v = vm->skip ? v : jinja_concat(vm, v, vm->lex.literal);
        return v;
    }
    if (str_eq(token.text, STR("(")))
        return collection(vm, LIST, ")");
    if (str_eq(token.text, STR("[")))
        return collection(vm, LIST, "]");
    if (str_eq(token.text, STR("{")))
        return collection(vm, DICT, "}");
    jinja_fail(vm, E_FORMAT, "expected a value, saw '%.*s'", SHOWN(token.text));
    return (struct value){};
}

/* Behind "[": an index or a slice. */
static struct value subscript(struct vm *vm, struct value v)
{
    struct value bound[3] = {};
    u32 colons = 0;

    while (!jinja_at(vm, "]") && !vm->error) {
        if (!jinja_accept(vm, ":"))
            bound[colons] = jinja_expr(vm);
        else if (++colons > 2)
            jinja_fail(vm, E_FORMAT, "a slice has at most two colons");
    }
    jinja_expect(vm, "]");
    if (vm->skip || vm->error)
        return (struct value){};
    return colons ? jinja_slice(vm, v, bound) : jinja_subscript(vm, v, bound[0]);
}

static struct value attribute(struct vm *vm, struct value v)
{
    struct str name = jinja_name(vm);
    struct value found = {};

    if (vm->skip || vm->error)
        return jinja_accept(vm, "(") ? call(vm, found, name) : found;
    if (v.kind == DICT || v.kind == UNDEFINED || !jinja_at(vm, "("))
        found = jinja_subscript(vm, v, value_literal(name));
    return jinja_at(vm, "(") ? apply(vm, v, name, METHOD) : found;
}

static struct value test(struct vm *vm, struct value v)
{
    bool negated = jinja_accept(vm, "not");
    struct value result = apply(vm, v, jinja_name(vm), TEST);

    return vm->skip ? result : value_bool(jinja_truthy(result) != negated);
}

static struct value postfixed(struct vm *vm)
{
    struct value v = primary(vm);

    while (!vm->error) {
        if (jinja_accept(vm, "."))
            v = attribute(vm, v);
        else if (jinja_accept(vm, "["))
            v = subscript(vm, v);
        else if (jinja_accept(vm, "|"))
            v = apply(vm, v, jinja_name(vm), FILTER);
        else if (jinja_accept(vm, "is"))
            v = test(vm, v);
        else
            break;
    }
    return v;
}
