/*
 * jinja.c: renders a template: the text between tags, the statements, the scopes of names. Owns the
 * state of one rendering; must not know what an expression looks like. Follows the Jinja 2 template
 * designer documentation.
 */
#include "ml/jinja_priv.h"

static bool start(struct vm *vm, const struct jinja_env *env);
static u32 out_max(const struct jinja_env *env, const struct arena *arena);
static void run(struct vm *vm, u32 blocks_min);
static err split_parts(struct vm *vm, struct ml_part **part, u32 *part_count);

err jinja_render(const struct jinja_env *env, struct arena *arena, struct ml_part **part,
                 u32 *part_count, struct text *reason)
{
    u32 out_cap = out_max(env, arena);
    glyph *out = arena_new(arena, glyph, out_cap);
    usize mark = arena_mark(arena);
    struct vm *vm = arena_new(arena, struct vm, 1);

    if (!out || !vm || env->source.len > JINJA_SOURCE_MAX) {
        text_fmt(reason, "chat template: no room, or longer than %u bytes",
                 (u32)JINJA_SOURCE_MAX);
        return E_LIMIT;
    }
    *vm = (struct vm){.env = env, .arena = arena, .reason = reason, .out = out, .out_cap = out_cap};
    if (start(vm, env))
        run(vm, 0);
    if (!vm->error && vm->block_count)
        jinja_fail(vm, E_FORMAT, "a block is not closed");
    if (vm->error)
        return vm->error;
    struct vm end = {.arena = arena, .out = out, .out_len = vm->out_len};
    arena_reset(arena, mark);
    return split_parts(&end, part, part_count);
}

/* A few times what goes in, and at most a quarter of the space there is. */
static u32 out_max(const struct jinja_env *env, const struct arena *arena)
{
    u64 bytes = env->source.len + 16 * KIB;

    for (u32 i = 0; i < env->message_count; i++)
        bytes += env->message[i].role.len + env->message[i].content.len;
    return (u32)min_u64(4 * bytes, (arena->cap - arena->used) / 4 / sizeof(glyph));
}

/* Narrows the glyphs to bytes in their own place and notes where the origin changes. */
static err split_parts(struct vm *vm, struct ml_part **part, u32 *part_count)
{
    const glyph *out = vm->out;
    char *text = (char *)vm->out;
    u32 count = 0;

    for (u32 i = 0; i < vm->out_len; i++)
        count += i == 0 || ((out[i] ^ out[i - 1]) & GLYPH_USER);
    *part = arena_new(vm->arena, struct ml_part, count + 1);
    if (!*part)
        return E_LIMIT;
    *part_count = 0;
    for (u32 i = 0; i < vm->out_len; i++) {
        glyph g = out[i];
        enum ml_part_kind kind = g & GLYPH_USER ? ML_PART_USER : ML_PART_TEMPLATE;

        if (i == 0 || (*part)[*part_count - 1].kind != kind)
            (*part)[(*part_count)++] = (struct ml_part){kind, {text + i, 0}};
        text[i] = (char)(g & 0xff);
        (*part)[*part_count - 1].text.len++;
    }
    /* The parts follow the text, and the arena ends behind them. */
    usize end = round_up((usize)(text + vm->out_len), _Alignof(struct ml_part));
    *part = memmove((void *)end, *part, count * sizeof(struct ml_part));
    arena_reset(vm->arena, (usize)((u8 *)(*part + count) - vm->arena->base));
    return OK;
}

void jinja_fail(struct vm *vm, err why, const char *format, ...)
{
    u32 line = 1;
    va_list args;

    if (vm->error)
        return;
    vm->error = why;
    for (u32 i = 0; i < vm->lex.at && i < vm->source.len; i++)
        line += vm->source.ptr[i] == '\n';
    text_fmt(vm->reason, "chat template, line %u: ", line);
    va_start(args, format);
    text_vfmt(vm->reason, format, args);
    va_end(args);
}

bool jinja_spend(struct vm *vm, u32 steps)
{
    vm->steps = steps > JINJA_STEPS_MAX ? JINJA_STEPS_MAX : vm->steps + steps;
    if (vm->steps >= JINJA_STEPS_MAX)
        jinja_fail(vm, E_LIMIT, "it runs too long");
    return !vm->error;
}

/* ---- names: the innermost scope is written, all that are visible are read ---- */

static void bind(struct vm *vm, struct str name, struct value v)
{
    u32 i = vm->scope;

    while (i < vm->binding_count && !str_eq(vm->binding[i].name, name))
        i++;
    if (i == BINDINGS_MAX) {
        jinja_fail(vm, E_LIMIT, "more than %u names", BINDINGS_MAX);
        return;
    }
    vm->binding[i] = (struct binding){name, v};
    vm->binding_count = max_u32(vm->binding_count, i + 1);
}

struct value jinja_lookup(const struct vm *vm, struct str name)
{
    for (u32 i = vm->binding_count; i > vm->frame; i--)
        if (str_eq(vm->binding[i - 1].name, name))
            return vm->binding[i - 1].value;
    for (u32 i = vm->frame ? vm->globals : 0; i > 0; i--)
        if (str_eq(vm->binding[i - 1].name, name))
            return vm->binding[i - 1].value;
    return (struct value){};
}

static struct value key(const char *name) { return value_literal(str_of(name)); }

static struct value from_message(struct str text)
{
    return value_string((struct string){text.ptr, (u32)text.len, USER_BYTES});
}

static bool start(struct vm *vm, const struct jinja_env *env)
{
    struct value messages = jinja_list(vm, LIST);

    for (u32 i = 0; i < env->message_count && !vm->error; i++) {
        struct value message = jinja_list(vm, DICT);
        jinja_set(vm, message.list, key("role"), from_message(env->message[i].role));
        jinja_set(vm, message.list, key("content"), from_message(env->message[i].content));
        jinja_push(vm, messages.list, message);
    }
    vm->source = str_slice(env->source, 0, env->source.len - str_ends(env->source, STR("\n")));
    bind(vm, STR("messages"), messages);
    bind(vm, STR("add_generation_prompt"), value_bool(env->add_generation_prompt));
    bind(vm, STR("bos_token"), value_literal(env->bos));
    bind(vm, STR("eos_token"), value_literal(env->eos));
    bind(vm, STR("tools"), (struct value){.kind = NONE});
    bind(vm, STR("documents"), (struct value){.kind = NONE});
    return !vm->error;
}

/* ---- the text between tags ---- */

static bool is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Where the text before the tag at `end` ends: {%- eats all white space before it, {% and {# only
 * the indentation of their line. */
static u32 strip_before(struct str source, u32 from, u32 end)
{
    char sign = end + 2 < source.len ? source.ptr[end + 2] : ' ';
    u32 cut = end;

    if (sign == '+' || (sign != '-' && source.ptr[end + 1] == '{'))
        return end;
    while (cut > from && is_white(source.ptr[cut - 1]) &&
           (sign == '-' || source.ptr[cut - 1] != '\n'))
        cut--;
    return sign == '-' || cut == 0 || source.ptr[cut - 1] == '\n' ? cut : end;
}

static void text_until_tag(struct vm *vm)
{
    struct str source = vm->source;
    u32 from = vm->lex.at, end = from, cut;

    while (end + 1 < source.len &&
           !(source.ptr[end] == '{' && str_find_char(STR("{%#"), source.ptr[end + 1]) < 3))
        end++;
    cut = end + 1 < source.len ? strip_before(source, from, end) : (u32)source.len;
    vm->lex.at = end + 1 < source.len ? end : (u32)source.len;
    if (jinja_spend(vm, end - from) && !vm->skip)
        jinja_emit_literal(vm, str_slice(source, from, cut));
}

/* Moves behind the end of a tag; -%} eats all white space, %} and #} one line end. */
static void skip_after(struct vm *vm, char sign, bool one_line)
{
    u32 at = vm->lex.at, stop = (u32)vm->source.len;

    if (sign == '-')
        while (at < stop && is_white(vm->source.ptr[at]))
            at++;
    else if (one_line && sign != '+' && at < stop && vm->source.ptr[at] == '\n')
        at++;
    vm->lex.at = at;
}

static void close_tag(struct vm *vm, char kind)
{
    struct str end = vm->lex.text;

    if (vm->lex.kind != LEX_END || end.len < 2 || end.ptr[end.len - 2] != kind)
        jinja_fail(vm, E_FORMAT, "'%.*s' is unexpected", SHOWN(end));
    else
        skip_after(vm, end.ptr[0], kind == '%');
}

static void comment(struct vm *vm)
{
    struct str rest = str_slice(vm->source, vm->lex.at, vm->source.len);
    usize len = str_find(rest, STR("#}"));

    if (len == rest.len) {
        jinja_fail(vm, E_FORMAT, "a comment is not closed");
        return;
    }
    vm->lex.at += (u32)len + 2;
    skip_after(vm, len ? rest.ptr[len - 1] : ' ', true);
}

static void output(struct vm *vm)
{
    jinja_next(vm);
    struct value v = jinja_expr(vm);
    close_tag(vm, '}');
    if (!vm->skip && !vm->error)
        jinja_emit(vm, jinja_text_of(vm, v).string);
}

/* ---- blocks ---- */

static struct block *push(struct vm *vm, enum block_kind kind)
{
    if (vm->block_count == BLOCKS_MAX)
        jinja_fail(vm, E_LIMIT, "more than %u open blocks", BLOCKS_MAX);
    else
        vm->block_count++;
    struct block *block = &vm->block[vm->block_count - 1];
    *block = (struct block){.kind = kind, .outer_skip = vm->skip, .outer_scope = vm->scope,
                            .bindings = vm->binding_count, .out_mark = vm->out_len};
    return block;
}

/* The innermost block, which must be of this kind; else NULL and the error is noted. */
static struct block *top(struct vm *vm, enum block_kind kind)
{
    struct block *block = vm->block_count ? &vm->block[vm->block_count - 1] : NULL;

    if (block && block->kind == kind)
        return block;
    jinja_fail(vm, E_FORMAT, "an end without its begin");
    return NULL;
}

static void pop(struct vm *vm)
{
    struct block *block = &vm->block[--vm->block_count];

    vm->skip = block->outer_skip;
    vm->scope = block->outer_scope;
}

static void tag_if(struct vm *vm)
{
    bool taken = jinja_truthy(jinja_expr(vm));
    struct block *block = push(vm, BLOCK_IF);

    block->taken = taken;
    vm->skip += !taken;
    close_tag(vm, '%');
}

static void tag_elif(struct vm *vm)
{
    struct block *block = top(vm, BLOCK_IF);

    if (!block)
        return;
    vm->skip = block->outer_skip + block->taken;
    bool taken = jinja_truthy(jinja_expr(vm));
    vm->skip = block->outer_skip + !taken;
    block->taken |= taken;
    close_tag(vm, '%');
}

static void tag_endif(struct vm *vm)
{
    close_tag(vm, '%');
    if (top(vm, BLOCK_IF))
        pop(vm);
}

/* ---- loops ---- */

static void bind_targets(struct vm *vm, const struct block *block, struct value item)
{
    struct list *parts = block->target_count > 1 ? jinja_items(vm, item) : NULL;

    if (parts && parts->len != block->target_count)
        jinja_fail(vm, E_FORMAT, "%u names for %u values", block->target_count, parts->len);
    for (u32 i = 0; i < block->target_count && !vm->error; i++)
        bind(vm, block->target[i], parts ? parts->item[i] : item);
}

static void bind_loop(struct vm *vm, struct block *block)
{
    const struct list *items = block->items;
    u32 idx = block->idx, left = items->len - idx;
    struct list *loop = block->loop;

    jinja_set(vm, loop, key("index0"), value_int(idx));
    jinja_set(vm, loop, key("index"), value_int(idx + 1));
    jinja_set(vm, loop, key("revindex0"), value_int(left - 1));
    jinja_set(vm, loop, key("revindex"), value_int(left));
    jinja_set(vm, loop, key("first"), value_bool(idx == 0));
    jinja_set(vm, loop, key("last"), value_bool(left == 1));
    jinja_set(vm, loop, key("length"), value_int(items->len));
    jinja_set(vm, loop, key("previtem"), idx ? items->item[idx - 1] : (struct value){});
    jinja_set(vm, loop, key("nextitem"), left > 1 ? items->item[idx + 1] : (struct value){});
    bind(vm, STR("loop"), (struct value){.kind = DICT, .list = loop});
}

/* Starts the next turn of the loop; false when there is none. */
static bool next_turn(struct vm *vm, struct block *block)
{
    vm->binding_count = block->bindings;
    if (block->in_else || !block->items || block->idx >= block->items->len || vm->error)
        return false;
    bind_targets(vm, block, block->items->item[block->idx]);
    bind_loop(vm, block);
    block->idx++;
    block->taken = true;
    vm->skip = block->outer_skip;
    vm->lex.at = block->body_at;
    return true;
}

/* `for x in items if condition`: evaluated for each item; when there is none, only parsed. */
static void filter_items(struct vm *vm, struct block *block)
{
    struct lexer condition = vm->lex;
    struct list *kept = jinja_list(vm, LIST).list;
    u32 idx = 0, count = block->items ? block->items->len : 0;

    vm->skip += !count;
    do {
        vm->lex = condition;
        if (count)
            bind_targets(vm, block, block->items->item[idx]);
        if (jinja_truthy(jinja_expr(vm)))
            jinja_push(vm, kept, block->items->item[idx]);
        vm->binding_count = block->bindings;
    } while (++idx < count && !vm->error);
    vm->skip -= !count;
    block->items = kept;
}

static void tag_for(struct vm *vm)
{
    struct block *block = push(vm, BLOCK_FOR);

    do
        block->target[block->target_count++] = jinja_name(vm);
    while (jinja_accept(vm, ",") && block->target_count < TARGETS_MAX);
    jinja_expect(vm, "in");
    struct value over = jinja_operand(vm);
    vm->scope = vm->binding_count;
    if (!vm->skip && !vm->error) {
        block->items = jinja_items(vm, over);
        block->loop = jinja_list(vm, DICT).list;
    }
    if (jinja_accept(vm, "if"))
        filter_items(vm, block);
    close_tag(vm, '%');
    block->body_at = vm->lex.at;
    if (!next_turn(vm, block))
        vm->skip++;
}

static void tag_else(struct vm *vm)
{
    struct block *block = vm->block_count ? &vm->block[vm->block_count - 1] : NULL;

    close_tag(vm, '%');
    if (!block || block->kind > BLOCK_FOR)
        jinja_fail(vm, E_FORMAT, "else without if or for");
    else if (block->kind == BLOCK_IF || !next_turn(vm, block)) {
        vm->skip = block->outer_skip + block->taken;
        block->taken = block->in_else = true;
    }
}

static void tag_endfor(struct vm *vm)
{
    struct block *block = top(vm, BLOCK_FOR);

    close_tag(vm, '%');
    if (block && !next_turn(vm, block))
        pop(vm);
}

/* Skips to the end of the loop: every block on the way comes back to a skipped state. */
static void leave_turn(struct vm *vm, bool last)
{
    u32 i = vm->block_count;

    close_tag(vm, '%');
    if (vm->skip)
        return;
    while (i > 0 && vm->block[i - 1].kind != BLOCK_FOR && vm->block[i - 1].kind != BLOCK_MACRO)
        vm->block[--i].outer_skip++;
    if (i == 0 || vm->block[i - 1].kind != BLOCK_FOR) {
        jinja_fail(vm, E_FORMAT, "break or continue without for");
        return;
    }
    vm->skip++;
    if (last)
        vm->block[i - 1].idx = UINT_MAX;
}

static void tag_break(struct vm *vm) { leave_turn(vm, true); }
static void tag_continue(struct vm *vm) { leave_turn(vm, false); }

/* ---- set: a name, an attribute of a namespace, or a whole block ---- */

static void tag_set(struct vm *vm)
{
    struct str name = jinja_name(vm), attribute = {};

    if (jinja_accept(vm, "."))
        attribute = jinja_name(vm);
    if (!attribute.len && !jinja_at(vm, "=")) {
        struct block *block = push(vm, BLOCK_SET);
        block->target[0] = name;
        close_tag(vm, '%');
        return;
    }
    jinja_expect(vm, "=");
    struct value v = jinja_expr(vm);
    close_tag(vm, '%');
    if (vm->skip || vm->error)
        return;
    if (!attribute.len) {
        bind(vm, name, v);
        return;
    }
    struct value space = jinja_lookup(vm, name);
    if (space.kind != DICT)
        jinja_fail(vm, E_FORMAT, "'%.*s' is not a namespace", SHOWN(name));
    else
        jinja_set(vm, space.list, value_literal(attribute), v);
}

static void tag_endset(struct vm *vm)
{
    struct block *block = top(vm, BLOCK_SET);

    close_tag(vm, '%');
    if (!block)
        return;
    pop(vm);
    struct value v = jinja_take(vm, block->out_mark);
    if (!vm->skip)
        bind(vm, block->target[0], v);
}

/* ---- macros: a position in the source to come back to ---- */

static void bind_params(struct vm *vm, const struct args *args)
{
    jinja_expect(vm, "(");
    for (u32 n = 0; !jinja_at(vm, ")") && !vm->error; n++) {
        struct str name = jinja_name(vm);
        struct value v = args ? jinja_arg(args, n, name) : (struct value){};

        if (jinja_accept(vm, "=")) {
            bool given = v.kind != UNDEFINED;
            vm->skip += given;
            struct value standard = jinja_expr(vm);
            vm->skip -= given;
            v = given ? v : standard;
        }
        if (args)
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
        bind(vm, name, (struct value){.kind = MACRO, .macro_at = vm->lex.start});
    push(vm, BLOCK_MACRO);
    vm->skip++;
    bind_params(vm, NULL);
    close_tag(vm, '%');
}

static void tag_endmacro(struct vm *vm)
{
    close_tag(vm, '%');
    if (top(vm, BLOCK_MACRO))
        pop(vm);
}

struct value jinja_call_macro(struct vm *vm, u32 macro_at, const struct args *args)
{
    struct lexer lex = vm->lex;
    u32 frame = vm->frame, globals = vm->globals, bindings = vm->binding_count;
    struct block *block = push(vm, BLOCK_MACRO);

    if (frame == 0) { /* a macro sees the names of the top level, not of loops around the call */
        vm->globals = bindings;
        for (u32 i = vm->block_count; i > 0; i--)
            if (vm->block[i - 1].kind == BLOCK_FOR)
                vm->globals = vm->block[i - 1].bindings;
    }
    vm->frame = vm->scope = bindings;
    vm->lex = (struct lexer){.at = macro_at};
    jinja_next(vm);
    bind_params(vm, args);
    close_tag(vm, '%');
    run(vm, vm->block_count);
    struct value result = jinja_take(vm, block->out_mark);
    vm->lex = lex;
    vm->frame = frame;
    vm->globals = globals;
    vm->binding_count = bindings;
    return result;
}

/* ---- the loop over text and tags ---- */

/* {% generation %} marks what a trainer looks at. */
static void tag_nothing(struct vm *vm) { close_tag(vm, '%'); }

static const struct tag {
    const char *name;
    void (*run)(struct vm *vm);
} tag_table[] = {
    {"if", tag_if},           {"elif", tag_elif},           {"else", tag_else},
    {"endif", tag_endif},     {"for", tag_for},             {"endfor", tag_endfor},
    {"break", tag_break},     {"continue", tag_continue},   {"set", tag_set},
    {"endset", tag_endset},   {"macro", tag_macro},         {"endmacro", tag_endmacro},
    {"generation", tag_nothing}, {"endgeneration", tag_nothing},
};

static void statement(struct vm *vm)
{
    jinja_next(vm);
    struct str name = jinja_name(vm);

    for (u32 i = 0; i < ARRAY_LEN(tag_table); i++) {
        if (!str_eq(name, str_of(tag_table[i].name)))
            continue;
        tag_table[i].run(vm);
        return;
    }
    jinja_fail(vm, E_FORMAT, "'%.*s' is no known statement", SHOWN(name));
}

/* To the end of the source, or until fewer than so many blocks are open. */
static void run(struct vm *vm, u32 blocks_min)
{
    while (!vm->error && vm->block_count >= blocks_min && vm->lex.at < vm->source.len) {
        text_until_tag(vm);
        if (vm->lex.at >= vm->source.len)
            return;
        char kind = vm->source.ptr[vm->lex.at + 1], sign;
        vm->lex.at += 2;
        sign = vm->lex.at < vm->source.len ? vm->source.ptr[vm->lex.at] : ' ';
        if (kind != '#' && (sign == '-' || sign == '+'))
            vm->lex.at++;
        (kind == '{' ? output : kind == '%' ? statement : comment)(vm);
    }
}
