/*
 * jinja.c: renders a template: the statements and the scopes of names. Owns the state of one
 * rendering; must not know what an expression looks like. Follows the Jinja 2 template designer
 * documentation. A block renders its body by a call of body(), whose nesting is counted.
 */
#include "ml/jinja_priv.h"

static bool start(struct vm *vm);
static struct str body(struct vm *vm, const char *ends);
static err split_parts(struct vm *vm, struct ml_part **part, u32 *part_count);

err jinja_render(const struct jinja_env *env, struct arena *arena, struct ml_part **part,
                 u32 *part_count, struct text *reason)
{
    u32 out_cap = (u32)min_u64((arena->cap - arena->used) / 4, 64 * MIB);
    char *out = arena_take(arena, out_cap, _Alignof(struct ml_part));
    u8 *user = arena_new(arena, u8, arena->cap / 8 + 1);
    struct vm *vm = arena_new(arena, struct vm, 1);
    if (!out || !user || !vm || env->source.len > JINJA_SOURCE_MAX) {
        text_fmt(reason, "chat template: no room, or longer than %u bytes", (u32)JINJA_SOURCE_MAX);
        return E_LIMIT;
    }
    *vm = (struct vm){
        .env = env, .arena = arena, .reason = reason, .user = user, .out = out, .out_cap = out_cap};
    if (start(vm))
        (void)body(vm, "");
    return vm->error ? vm->error : split_parts(vm, part, part_count);
}

/* The parts are moved behind the text, and the arena ends behind them. */
static err split_parts(struct vm *vm, struct ml_part **part, u32 *part_count)
{
    struct ml_part *first = arena_new(vm->arena, struct ml_part, 0), *last = first;
    char *end = vm->out + round_up(vm->out_len, _Alignof(struct ml_part));

    *part_count = 0;
    for (u32 i = 0; i < vm->out_len; i++) {
        bool user = jinja_is_user(vm, vm->out + i);
        if (i == 0 || last->kind != (user ? ML_PART_USER : ML_PART_TEMPLATE)) {
            last = arena_new(vm->arena, struct ml_part, 1); /* next to the one before */
            if (!last)
                return jinja_fail(vm, E_LIMIT, "out of memory"), vm->error;
            *last = (struct ml_part){user ? ML_PART_USER : ML_PART_TEMPLATE, {vm->out + i, 0}};
            ++*part_count;
        }
        last->text.len++;
    }
    *part = memmove(end, first, *part_count * sizeof(struct ml_part));
    arena_reset(vm->arena, (usize)((u8 *)(*part + *part_count) - vm->arena->base));
    return OK;
}

struct value jinja_fail(struct vm *vm, err why, const char *format, ...)
{
    u32 line = 1;
    va_list args;

    if (vm->error)
        return (struct value){};
    vm->error = why;
    for (u32 i = 0; i < vm->source_at && i < vm->source.len; i++)
        line += vm->source.ptr[i] == '\n';
    text_fmt(vm->reason, "chat template, line %u: ", line);
    va_start(args, format);
    text_vfmt(vm->reason, format, args);
    va_end(args);
    return (struct value){};
}

bool jinja_spend(struct vm *vm, usize steps)
{
    vm->steps = (u32)min_u64(vm->steps + steps, JINJA_STEPS_MAX);
    if (vm->steps == JINJA_STEPS_MAX)
        jinja_fail(vm, E_LIMIT, "it runs too long");
    return !vm->error;
}

bool jinja_enter(struct vm *vm)
{
    if (++vm->depth > JINJA_DEPTH_MAX)
        jinja_fail(vm, E_LIMIT, "nested deeper than %u", JINJA_DEPTH_MAX);
    return !vm->error;
}

/* ---- names ---- */

static void bind(struct vm *vm, struct str name, struct value v)
{
    u32 i = vm->names.scope;

    while (i < vm->names.count && !str_eq(vm->binding[i].name, name))
        i++;
    if (i == BINDINGS_MAX) {
        jinja_fail(vm, E_LIMIT, "more than %u names", BINDINGS_MAX);
        return;
    }
    vm->binding[i] = (struct binding){name, v};
    vm->names.count = max_u32(vm->names.count, i + 1);
    if (!vm->names.scope)
        vm->names.globals = vm->names.count;
}

struct value jinja_lookup(const struct vm *vm, struct str name)
{
    for (u32 i = vm->names.count; i-- > 0;)
        if ((i >= vm->names.frame || i < vm->names.globals) && str_eq(vm->binding[i].name, name))
            return vm->binding[i].value;
    return (struct value){};
}

static bool start(struct vm *vm)
{
    const struct jinja_env *env = vm->env;

    vm->source = str_slice(env->source, 0, env->source.len - str_ends(env->source, STR("\n")));
    jinja_lex(vm);
    struct value messages = jinja_list(vm, LIST);
    for (u32 i = 0; i < env->message_count && !vm->error; i++) {
        struct value message = jinja_list(vm, DICT);
        jinja_set(vm, message, STR("role"), jinja_from_user(vm, env->message[i].role));
        jinja_set(vm, message, STR("content"), jinja_from_user(vm, env->message[i].content));
        jinja_push(vm, messages, message);
    }
    bind(vm, STR("messages"), messages);
    bind(vm, STR("add_generation_prompt"), value_bool(env->add_generation_prompt));
    bind(vm, STR("bos_token"), value_text(env->bos));
    bind(vm, STR("eos_token"), value_text(env->eos));
    bind(vm, STR("tools"), (struct value){.kind = NONE});
    bind(vm, STR("documents"), (struct value){.kind = NONE});
    return !vm->error;
}

/* ---- statements: each ends before its last %} ---- */

/* Each branch is rendered or only parsed; of the conditions those up to the first true one count.
 */
static void tag_if(struct vm *vm)
{
    struct str word = STR("if");
    bool taken = false;

    while (!str_eq(word, STR("endif")) && !vm->error) {
        vm->skip += taken;
        bool now = str_eq(word, STR("else")) || jinja_truthy(jinja_expr(vm));
        vm->skip -= taken;
        now &= !taken;
        taken |= now;
        vm->skip += !now;
        word = body(vm, "elif else endif");
        vm->skip -= !now;
    }
}

struct loop {
    struct str target;
    struct value items, words; /* words: the mapping behind loop.index and the like */
};

static void bind_loop(struct vm *vm, const struct loop *loop, u32 idx)
{
    const struct list *items = loop->items.list;
    u32 left = items->len - idx;
    const struct binding words[] = {
        {STR("index0"), value_int(idx)},
        {STR("index"), value_int(idx + 1)},
        {STR("first"), value_bool(idx == 0)},
        {STR("last"), value_bool(left == 1)},
        {STR("length"), value_int(items->len)},
        {STR("previtem"), idx ? items->item[idx - 1] : (struct value){}},
        {STR("nextitem"), left > 1 ? items->item[idx + 1] : (struct value){}},
    };

    for (u32 i = 0; i < ARRAY_LEN(words); i++)
        jinja_set(vm, loop->words, words[i].name, words[i].value);
    bind(vm, STR("loop"), loop->words);
}

/* `for x in items if condition`: evaluated for each item; when there is none, only parsed. */
static struct value filter_items(struct vm *vm, const struct loop *loop)
{
    struct value kept = jinja_list(vm, LIST);
    const struct list *items = loop->items.list;
    u32 condition = vm->at, idx = 0, empty = !items->len;

    vm->skip += empty;
    do {
        vm->at = condition;
        if (!empty)
            bind(vm, loop->target, items->item[idx]);
        if (jinja_truthy(jinja_expr(vm)))
            jinja_push(vm, kept, items->item[idx]);
    } while (++idx < items->len && !vm->error);
    vm->skip -= empty;
    return kept;
}

/* Renders the body for each item, or parses it once when there is none; returns the end's name. */
static struct str turns(struct vm *vm, const struct loop *loop)
{
    u32 body_at = vm->at, skip = vm->skip, bindings = vm->names.scope, idx = 0;
    const struct list *items = loop->items.list;
    struct str word;

    vm->loops++;
    do {
        vm->at = body_at;
        vm->names.count = bindings;
        if (items->len) {
            bind(vm, loop->target, items->item[idx]);
            bind_loop(vm, loop, idx);
        }
        vm->skip += !items->len;
        word = body(vm, "else endfor");
        vm->skip = skip; /* break and continue have raised it */
    } while (++idx < items->len && !vm->broke && !vm->error);
    vm->loops--;
    vm->broke = false;
    return word;
}

static void tag_for(struct vm *vm)
{
    struct visible names = vm->names;
    struct loop loop = {jinja_name(vm), {}, jinja_list(vm, DICT)};

    while (jinja_accept(vm, ",")) {
        (void)jinja_name(vm);
        if (!vm->skip)
            jinja_fail(vm, E_FORMAT, "a loop has one name here");
    }
    jinja_expect(vm, "in");
    struct value over = jinja_operand(vm, 0);
    loop.items = jinja_items(vm, vm->skip ? (struct value){} : over);
    vm->names.scope = names.count;
    if (jinja_accept(vm, "if"))
        loop.items = filter_items(vm, &loop);
    if (str_eq(turns(vm, &loop), STR("else"))) {
        vm->skip += loop.items.list->len > 0;
        (void)body(vm, "endfor");
        vm->skip -= loop.items.list->len > 0;
    }
    vm->names = names;
}

/* The rest of the turn is only parsed. */
static void tag_continue(struct vm *vm)
{
    if (!vm->loops && !vm->skip)
        jinja_fail(vm, E_FORMAT, "break or continue without for");
    vm->skip += !vm->skip;
}

static void tag_break(struct vm *vm)
{
    vm->broke |= !vm->skip;
    tag_continue(vm);
}

/* A name or an attribute of a namespace; to a value, or to what a whole block renders. */
static void tag_set(struct vm *vm)
{
    struct str name = jinja_name(vm), attribute = {};
    u32 mark = vm->out_len;
    struct value v;

    if (jinja_accept(vm, "."))
        attribute = jinja_name(vm);
    if (jinja_accept(vm, "=")) {
        v = jinja_expr(vm);
    } else {
        (void)body(vm, "endset");
        v = jinja_take(vm, mark);
    }
    if (vm->skip || vm->error)
        return;
    struct value space = jinja_lookup(vm, name);
    if (!attribute.len)
        bind(vm, name, v);
    else if (space.kind == DICT)
        jinja_set(vm, space, attribute, v);
    else
        jinja_fail(vm, E_FORMAT, "'%.*s' is not a namespace", SHOWN(name));
}

/* ---- macros: a position to come back to ---- */

static void bind_params(struct vm *vm, const struct args *args)
{
    jinja_expect(vm, "(");
    for (u32 n = 0; !jinja_at(vm, ")") && !vm->error; n++) {
        struct str name = jinja_name(vm);
        struct value v = jinja_arg(args, n, name);
        bool given = v.kind != UNDEFINED;

        if (jinja_accept(vm, "=")) {
            vm->skip += given;
            struct value standard = jinja_expr(vm);
            vm->skip -= given;
            v = given ? v : standard;
        }
        bind(vm, name, v);
        if (!jinja_at(vm, ")"))
            jinja_expect(vm, ",");
    }
    jinja_expect(vm, ")");
}

static void tag_macro(struct vm *vm)
{
    struct str name = jinja_name(vm);

    if (!vm->skip)
        bind(vm, name, (struct value){.kind = MACRO, .macro_at = vm->at});
    vm->skip++;
    while (!jinja_at(vm, "%}") && !vm->error)
        jinja_next(vm);
    (void)body(vm, "endmacro");
    vm->skip--;
}

struct value jinja_call_macro(struct vm *vm, u32 macro_at, const struct args *args)
{
    struct visible names = vm->names;
    u32 mark = vm->out_len, loops = vm->loops, at = vm->at;

    vm->names.frame = vm->names.scope = names.count;
    vm->loops = 0;
    vm->at = macro_at;
    bind_params(vm, args);
    (void)body(vm, "endmacro");
    vm->at = at;
    vm->names = names;
    vm->loops = loops;
    return jinja_take(vm, mark);
}

/* ---- the loop over text and tags ---- */

/* {% generation %} marks what a trainer looks at. */
// clang-format off
static const struct tag {
    const char *name;
    void (*run)(struct vm *vm);
} tag_table[] = {
    {"if", tag_if},       {"for", tag_for},     {"break", tag_break},  {"continue", tag_continue},
    {"set", tag_set},     {"macro", tag_macro}, {"generation", NULL},  {"endgeneration", NULL},
};
// clang-format on

/* Runs the statement; one that is none must end the block, and is returned. */
static struct str statement(struct vm *vm, const char *ends)
{
    struct str name = jinja_name(vm);

    for (u32 i = 0; i < ARRAY_LEN(tag_table); i++) {
        if (!str_eq(name, str_of(tag_table[i].name)))
            continue;
        if (tag_table[i].run)
            tag_table[i].run(vm);
        jinja_expect(vm, "%}");
        return (struct str){};
    }
    if (!jinja_among(name, ends))
        jinja_fail(vm, E_FORMAT, "'%.*s' is no known statement, or an end without its begin",
                   SHOWN(name));
    return name;
}

/* From the %} before it: renders up to a statement that is one of `ends`, whose name it returns;
 * "": from the start to the end. */
static struct str body(struct vm *vm, const char *ends)
{
    struct str word = {};
    struct token token = {.kind = TEXT};

    if (ends[0])
        jinja_expect(vm, "%}");
    (void)jinja_enter(vm);
    while (!word.len && token.kind != END) {
        token = jinja_next(vm);
        if (token.kind == TEXT && !vm->skip) {
            jinja_emit(vm, token.text);
        } else if (token.kind == SIGN && token.text.ptr[1] == '%') {
            word = statement(vm, ends);
        } else if (token.kind == SIGN) {
            struct value v = jinja_expr(vm);
            jinja_expect(vm, "}}");
            if (!vm->skip)
                jinja_emit(vm, jinja_text(vm, v));
        }
    }
    if (!word.len && ends[0])
        jinja_fail(vm, E_FORMAT, "a block is not closed");
    vm->depth--;
    return word;
}
