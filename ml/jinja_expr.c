/*
 * jinja_expr.c: the evaluation of expressions while they are parsed, by precedence. Owns operators,
 * calls and literals; must not know of statements. Follows "Expressions" of the Jinja 2 template
 * designer documentation.
 */
#include "ml/jinja_priv.h"

/* ---- tokens ---- */

struct token jinja_next(struct vm *vm)
{
    struct token token = vm->token[vm->at];

    vm->source_at = token.source_at;
    if (!jinja_spend(vm, 1) || token.kind == END)
        return (struct token){.kind = END};
    vm->at++;
    return token;
}

bool jinja_at(const struct vm *vm, const char *words)
{
    const struct token *token = &vm->token[vm->at];
    bool named = token->kind == NAME || token->kind == SIGN;

    return !vm->error && named && jinja_among(token->text, words);
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
    struct token token = jinja_next(vm);

    if ((token.kind != NAME && token.kind != SIGN) || !str_eq(token.text, str_of(word)))
        jinja_fail(vm, E_FORMAT, "expected '%s', saw '%.*s'", word, SHOWN(token.text));
}

struct str jinja_name(struct vm *vm)
{
    struct token token = jinja_next(vm);

    if (token.kind != NAME)
        jinja_fail(vm, E_FORMAT, "expected a name, saw '%.*s'", SHOWN(token.text));
    return token.text;
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
        for (u32 i = 0; i < b.list->len && !vm->error; i++)
            jinja_push(vm, sum, b.list->item[i]);
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
        struct str op = jinja_next(vm).text;
        bool decided = at <= AND && jinja_truthy(left) == (at == OR);
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
    u32 begin = vm->at;
    struct value v = {};

    vm->skip++;
    jinja_operand(vm, OR);
    vm->skip--;
    bool conditional = jinja_accept(vm, "if");
    bool taken = !conditional || jinja_truthy(jinja_operand(vm, OR));
    u32 end = vm->at;
    if (taken && !vm->skip) {
        vm->at = begin;
        v = jinja_operand(vm, OR);
        vm->at = end;
    }
    if (!conditional || !jinja_accept(vm, "else") || !jinja_enter(vm))
        return v;
    vm->skip += taken;
    struct value other = jinja_expr(vm);
    vm->skip -= taken;
    vm->depth--;
    return taken ? v : other;
}

/* ---- calls ---- */

/* Behind "(": reads to the ")". */
static void read_args(struct vm *vm, struct args *args)
{
    while (!jinja_at(vm, ")") && !vm->error) {
        const struct token *token = &vm->token[vm->at];
        bool named = token->kind == NAME && str_eq(token[1].text, STR("="));
        if (args->count == ARGS_MAX) {
            jinja_fail(vm, E_LIMIT, "more than %u arguments", ARGS_MAX);
            return;
        }
        vm->at += named ? 2 : 0;
        args->name[args->count] = named ? token->text : (struct str){};
        args->item[args->count++] = jinja_expr(vm);
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
        jinja_push(vm, box, jinja_expr(vm));
        if (box.kind == DICT) {
            jinja_expect(vm, ":");
            jinja_push(vm, box, jinja_expr(vm));
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
    struct token token = jinja_next(vm);
    u64 number = 0;

    if (token.kind == NAME)
        return name_value(vm, token.text);
    if (token.kind == LITERAL)
        return vm->skip ? (struct value){} : jinja_literal(vm, token.text);
    if (token.kind == SIGN && jinja_among(token.text, "( [ {"))
        return collection(vm, token.text.ptr[0]);
    if (token.kind != INTEGER)
        return jinja_fail(vm, E_FORMAT, "expected a value, saw '%.*s'", SHOWN(token.text));
    if (token.text.len > 18 || str_to_u64(token.text, &number) != OK)
        return jinja_fail(vm, E_FORMAT, "no number, or one that is too long");
    return value_int((i64)number);
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
