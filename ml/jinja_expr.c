/*
 * jinja_expr.c: the lexer inside of tags, and the evaluation of expressions while they are parsed,
 * by precedence. Owns operators, calls and literals; must not know of statements. Follows
 * "Expressions" of the Jinja 2 template designer documentation.
 */
#include "ml/jinja_priv.h"

/* ---- tokens ---- */

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || c == '_' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* \n, \t, \r, \xHH, \uHHHH; anything else behind a backslash stands for itself. */
static struct value unescape(struct vm *vm, struct str raw)
{
    u32 mark = vm->out_len;

    for (usize i = 0; i < raw.len; i++) {
        bool escape = raw.ptr[i] == '\\';
        char c = raw.ptr[i += escape];
        char utf8[4] = {!escape ? c : c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c};
        u32 digits = !escape ? 0 : c == 'u' ? 4 : c == 'x' ? 2 : 0, code_point = 0;
        usize bytes = 1;
        for (u32 n = 0; n < digits; n++) {
            char digit = ++i < raw.len ? raw.ptr[i] | 0x20 : ' ';
            usize value = str_find_char(STR("0123456789abcdef"), digit);
            if (value > 15)
                jinja_fail(vm, E_FORMAT, "'\\%c' wants more digits", c);
            code_point = code_point * 16 + (u32)(value & 15);
            bytes = utf8_encode(code_point, utf8);
        }
        jinja_emit(vm, (struct str){utf8, bytes});
    }
    return jinja_take(vm, mark);
}

static void read_string(struct vm *vm, char quote)
{
    u32 from = vm->lex.at + 1, end = from;

    while (end < vm->source.len && vm->source.ptr[end] != quote)
        end += vm->source.ptr[end] == '\\' ? 2 : 1;
    if (end >= vm->source.len)
        jinja_fail(vm, E_FORMAT, "a text is not closed");
    struct str raw = str_slice(vm->source, from, end);
    bool plain = vm->skip || vm->error || str_find_char(raw, '\\') == raw.len;
    vm->lex.literal = plain ? value_text(raw) : unescape(vm, raw);
    vm->lex.kind = vm->error ? LEX_NOTHING : LEX_STRING;
    vm->lex.at = end + 1;
}

static void read_operator(struct vm *vm, struct str rest)
{
    const char *longer = vm->lex.braces ? "== != <= >= //" : "== != <= >= // -%} +%} %} -}} +}} }}";
    u32 len = (u32)min_u64(3, rest.len);

    while (len > 1 && !jinja_among(str_slice(rest, 0, len), longer))
        len--;
    vm->lex.kind = LEX_OPERATOR;
    vm->lex.at += len;
    vm->lex.braces += rest.ptr[0] == '{' ? 1 : 0;
    vm->lex.braces -= rest.ptr[0] == '}' && vm->lex.braces ? 1 : 0;
}

void jinja_next(struct vm *vm)
{
    struct str rest = str_trim(str_slice(vm->source, vm->lex.at, vm->source.len));
    u32 at = (u32)(rest.ptr - vm->source.ptr);
    usize len = 0;
    u64 number;

    vm->lex = (struct lexer){.start = at, .at = at, .braces = vm->lex.braces};
    if (!rest.len)
        jinja_fail(vm, E_FORMAT, "a tag is not closed");
    if (!jinja_spend(vm, 1))
        return;
    while (len < rest.len && is_word(rest.ptr[len]))
        len++;
    vm->lex.at += (u32)len;
    if (rest.ptr[0] == '"' || rest.ptr[0] == '\'') {
        read_string(vm, rest.ptr[0]);
    } else if (!len) {
        read_operator(vm, rest);
    } else if (rest.ptr[0] > '9') {
        vm->lex.kind = LEX_NAME;
    } else if (len > 18 || str_to_u64(str_slice(rest, 0, len), &number) != OK) {
        jinja_fail(vm, E_FORMAT, "no number, or one that is too long");
    } else {
        vm->lex.kind = LEX_INT;
        vm->lex.literal = value_int((i64)number);
    }
    vm->lex.text = str_slice(vm->source, at, vm->lex.at);
}

bool jinja_at(const struct vm *vm, const char *words)
{
    bool named = vm->lex.kind == LEX_NAME || vm->lex.kind == LEX_OPERATOR;

    return named && jinja_among(vm->lex.text, words);
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

enum level { OR, AND, NOT, COMPARE };
static const char *const infix_table[] = {"or",  "and", "",        "== != < <= > >= in not",
                                          "+ -", "~",   "* / // %"};

static struct value arithmetic(struct vm *vm, struct str op, struct value a, struct value b)
{
    i64 x = a.number, y = b.number, result = 0;
    bool bad = a.kind != INT || b.kind != INT;

    if (op.ptr[0] == '~')
        return value_text(jinja_concat(vm, jinja_text(vm, a), jinja_text(vm, b)));
    if (op.ptr[0] == '+' && a.kind == STRING && b.kind == STRING)
        return value_text(jinja_concat(vm, a.text, b.text));
    if (op.ptr[0] == '+' && a.kind == LIST && b.kind == LIST) {
        struct value sum = jinja_slice(vm, a, 0, INT_MAX);
        for (u32 i = 0; i < b.list->len; i++)
            jinja_push(vm, sum.list, b.list->item[i]);
        return sum;
    }
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
        return jinja_fail(vm, E_FORMAT, "'%.*s' cannot take these values", SHOWN(op));
    return value_int(result);
}

/* Comparisons are tests with a sign for a name. Not part of jinja_operand's frame, which is the one
 * that nests. */
__attribute__((noinline)) static struct value combine(struct vm *vm, struct str op, struct value a,
                                                      struct value b)
{
    struct args args = {.self = a, .item = {b}, .count = 1};
    bool negated = str_eq(op, STR("not"));
    const struct function *test = jinja_function(negated ? STR("in") : op, TEST);

    if (!test)
        return arithmetic(vm, op, a, b);
    args.variant = test->variant;
    return value_bool(jinja_truthy(test->run(vm, &args)) != negated);
}

static struct value postfixed(struct vm *vm);

static struct value prefixed(struct vm *vm)
{
    if (jinja_accept(vm, "not"))
        return value_bool(!jinja_truthy(jinja_operand(vm, NOT)));
    if (!jinja_accept(vm, "-"))
        return postfixed(vm);
    struct value v = postfixed(vm);
    return vm->skip ? v : arithmetic(vm, STR("-"), value_int(0), v);
}

/* Operators of this level and of those that bind tighter. */
struct value jinja_operand(struct vm *vm, u32 level)
{
    struct value left = jinja_enter(vm) ? prefixed(vm) : (struct value){};

    for (u32 at = ARRAY_LEN(infix_table); at-- > level && !vm->error;) {
        if (!jinja_at(vm, infix_table[at]))
            continue;
        struct str op = vm->lex.text;
        bool decided = at <= AND && jinja_truthy(left) == (at == OR);
        jinja_next(vm);
        if (str_eq(op, STR("not")))
            jinja_expect(vm, "in");
        vm->skip += decided;
        struct value right = jinja_operand(vm, at + 1);
        vm->skip -= decided;
        if (vm->skip || vm->error)
            left = (struct value){};
        else if (at > AND)
            left = combine(vm, op, left, right);
        else
            left = decided ? left : right;
        at = ARRAY_LEN(infix_table);
    }
    vm->depth--;
    return left;
}

/* `a if condition else b`: the condition stands behind what it decides, so first `a` is skipped. */
struct value jinja_expr(struct vm *vm)
{
    struct lexer begin = vm->lex, end;
    struct value v = {};

    vm->skip++;
    jinja_operand(vm, OR);
    vm->skip--;
    bool conditional = jinja_accept(vm, "if");
    bool taken = !conditional || jinja_truthy(jinja_operand(vm, OR));
    end = vm->lex;
    if (taken && !vm->skip && !vm->error) {
        vm->lex = begin;
        v = jinja_operand(vm, OR);
    }
    vm->lex = end;
    if (!conditional || !jinja_accept(vm, "else") || !jinja_enter(vm))
        return v;
    vm->skip += taken;
    struct value other = jinja_expr(vm);
    vm->skip -= taken;
    vm->depth--;
    return taken ? v : other;
}

/* ---- calls ---- */

/* At the token behind "(": reads to the ")". */
static void read_args(struct vm *vm, struct args *args)
{
    while (!jinja_at(vm, ")") && !vm->error) {
        struct lexer begin = vm->lex;
        jinja_next(vm);
        bool named = begin.kind == LEX_NAME && jinja_accept(vm, "=");
        if (!named)
            vm->lex = begin;
        struct value v = jinja_expr(vm);
        if (args->count == ARGS_MAX) {
            jinja_fail(vm, E_LIMIT, "more than %u arguments", ARGS_MAX);
            return;
        }
        args->name[args->count] = named ? begin.text : (struct str){};
        args->item[args->count++] = v;
        if (!jinja_at(vm, ")"))
            jinja_expect(vm, ",");
    }
    jinja_expect(vm, ")");
}

/* A filter, test, method or function by name, with arguments in brackets, or behind a test without
 * them. `self` is what a function's name stands for: maybe a macro. */
static struct value apply(struct vm *vm, struct value self, struct str name, enum function_use use)
{
    const struct function *function = jinja_function(name, use);
    struct args args = {.self = self};

    if (jinja_accept(vm, "("))
        read_args(vm, &args);
    else if (use == TEST && function && function->use & TEST_ARGUMENT)
        args.item[args.count++] = jinja_operand(vm, ARRAY_LEN(infix_table));
    if (vm->error || vm->skip)
        return (struct value){};
    if (use == GLOBAL && self.kind == MACRO)
        return jinja_call_macro(vm, self.macro_at, &args);
    if (!function || (use == METHOD && self.kind == UNDEFINED))
        return jinja_fail(vm, E_FORMAT, "'%.*s' is %s", SHOWN(name),
                          use == FILTER   ? "no known filter"
                          : use == TEST   ? "no known test"
                          : use == METHOD ? "no method of this value"
                                          : "not a function");
    args.variant = function->variant;
    return function->run(vm, &args);
}

/* ---- operands ---- */

/* [a, b], (a, b) and {k: v}; one value in brackets without a comma is that value. */
static struct value collection(struct vm *vm, char open)
{
    struct value box = jinja_list(vm, open == '{' ? DICT : LIST);
    const char *close = open == '{' ? "}" : open == '[' ? "]" : ")";
    bool single = open == '(';

    while (!jinja_at(vm, close) && !vm->error) {
        jinja_push(vm, box.list, jinja_expr(vm));
        if (box.kind == DICT) {
            jinja_expect(vm, ":");
            jinja_push(vm, box.list, jinja_expr(vm));
        }
        single &= !jinja_at(vm, ",");
        if (!jinja_at(vm, close))
            jinja_expect(vm, ",");
    }
    jinja_expect(vm, close);
    return single && box.list->len ? box.list->item[0] : box;
}

static struct value name_value(struct vm *vm, struct str name)
{
    if (jinja_among(name, "none None"))
        return (struct value){.kind = NONE};
    if (jinja_among(name, "true True false False"))
        return value_bool(name.ptr[0] == 't' || name.ptr[0] == 'T');
    struct value v = jinja_lookup(vm, name);
    if (jinja_at(vm, "("))
        return apply(vm, v, name, GLOBAL);
    if (v.kind == UNDEFINED && jinja_function(name, GLOBAL))
        v.kind = FUNCTION; /* it is defined, and can only be called by its name */
    return v;
}

static struct value primary(struct vm *vm)
{
    struct lexer token = vm->lex;

    if (token.kind == LEX_OPERATOR && !jinja_at(vm, "( [ {"))
        return jinja_fail(vm, E_FORMAT, "expected a value, saw '%.*s'", SHOWN(token.text));
    if (vm->error)
        return (struct value){};
    jinja_next(vm);
    if (token.kind == LEX_NAME)
        return name_value(vm, token.text);
    if (token.kind == LEX_OPERATOR)
        return collection(vm, token.text.ptr[0]);
    for (; token.kind == LEX_STRING && vm->lex.kind == LEX_STRING; jinja_next(vm)) /* "a" "b" */
        token.literal.text = jinja_concat(vm, token.literal.text, vm->lex.literal.text);
    return token.literal;
}

/* Behind "[": an index or a slice, whose only step is -1 of all. */
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
    if (!colons)
        return jinja_subscript(vm, v, bound[0]);
    if (bound[2].kind == INT && bound[2].number == -1 && !bound[0].kind && !bound[1].kind)
        return jinja_reversed(vm, v);
    if (bound[2].kind == INT && bound[2].number != 1)
        return jinja_fail(vm, E_FORMAT, "this value cannot be sliced so");
    return jinja_slice(vm, v, bound[0].kind == INT ? bound[0].number : 0,
                       bound[1].kind == INT ? bound[1].number : INT_MAX);
}

static struct value postfixed(struct vm *vm)
{
    struct value v = primary(vm);

    while (!vm->error) {
        if (jinja_accept(vm, "[")) {
            v = subscript(vm, v);
        } else if (jinja_accept(vm, "|")) {
            v = apply(vm, v, jinja_name(vm), FILTER);
        } else if (jinja_accept(vm, "is")) {
            bool negated = jinja_accept(vm, "not");
            v = apply(vm, v, jinja_name(vm), TEST);
            v = vm->skip ? v : value_bool(jinja_truthy(v) != negated);
        } else if (jinja_accept(vm, ".")) {
            struct str name = jinja_name(vm);
            if (jinja_at(vm, "("))
                v = apply(vm, v, name, METHOD);
            else
                v = vm->skip ? v : jinja_subscript(vm, v, value_text(name));
        } else {
            break;
        }
    }
    return v;
}
