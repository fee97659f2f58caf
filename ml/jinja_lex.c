/*
 * jinja_lex.c: a template's source as tokens: the text between tags, cut by the rules of white
 * space, and the words and signs inside of them. Must not know what they mean. Follows "Whitespace
 * Control" of the Jinja 2 template designer documentation with trim_blocks and lstrip_blocks.
 */
#include "ml/jinja_priv.h"

static char lex_text(struct vm *vm);
static void lex_comment(struct vm *vm);
static void lex_tag(struct vm *vm);

/* The next `len` bytes are a token. */
static void add(struct vm *vm, enum lex_kind kind, usize len)
{
    struct token *token = arena_new(vm->arena, struct token, 1); /* next to the one before */

    if (!token)
        jinja_fail(vm, E_LIMIT, "out of memory");
    else
        *token = (struct token){kind, vm->source_at,
                                str_slice(vm->source, vm->source_at, vm->source_at + len)};
    vm->source_at += (u32)len;
}

void jinja_lex(struct vm *vm)
{
    vm->token = arena_new(vm->arena, struct token, 0);
    for (char kind; (kind = lex_text(vm)) != '\0' && !vm->error;)
        (kind == '#' ? lex_comment : lex_tag)(vm);
    add(vm, END, 0);
}

bool jinja_among(struct str word, const char *words)
{
    for (struct str rest = str_of(words); rest.len;)
        if (str_eq(str_cut(rest, ' ', &rest), word))
            return true;
    return false;
}

/* ---- between tags ---- */

static struct str rest_of(const struct vm *vm)
{
    return str_slice(vm->source, vm->source_at, vm->source.len);
}

static bool is_white(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Up to the next tag; returns what stands behind its brace, or 0 at the end. {%- eats all white
 * space before it, {% and {# only the indentation of their line. */
static char lex_text(struct vm *vm)
{
    const char *source = vm->source.ptr;
    usize from = vm->source_at, end = from, len = vm->source.len;

    while (end + 1 < len && !(source[end] == '{' && str_find_char(STR("{%#"), source[end + 1]) < 3))
        end++;
    bool found = end + 1 < len;
    char kind = found ? source[end + 1] : '\0', sign = end + 2 < len ? source[end + 2] : ' ';
    usize cut = end = found ? end : len;
    if (found && (sign == '-' || (sign != '+' && kind != '{')))
        while (cut > from && is_white(source[cut - 1]) && (sign == '-' || source[cut - 1] != '\n'))
            cut--;
    if (sign != '-' && cut > 0 && source[cut - 1] != '\n')
        cut = end;
    if (cut > from)
        add(vm, TEXT, cut - from);
    vm->source_at = (u32)end;
    return kind;
}

/* Behind the end of a tag: -%} eats all white space, %} and #} one line end. */
static void skip_after(struct vm *vm, char sign, bool one_line)
{
    struct str rest = rest_of(vm);
    u32 len = one_line && sign != '+' && str_starts(rest, STR("\n"));

    while (sign == '-' && len < rest.len && is_white(rest.ptr[len]))
        len++;
    vm->source_at += len;
}

static void lex_comment(struct vm *vm)
{
    struct str rest = str_slice(rest_of(vm), 2, vm->source.len);
    usize len = str_find(rest, STR("#}"));

    if (len == rest.len)
        jinja_fail(vm, E_FORMAT, "a comment is not closed");
    vm->source_at += (u32)len + 4;
    skip_after(vm, len ? rest.ptr[len - 1] : ' ', true);
}

/* ---- inside ---- */

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || c == '_' || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* A sign; false: it ends the tag. `braces`: open {, so that }} in a mapping is no end. */
static bool lex_sign(struct vm *vm, struct str rest, u32 *braces)
{
    char c = rest.ptr[0];
    u32 sign = c == '-' || c == '+';
    struct str edge = str_slice(rest, sign, sign + 2);

    if (!*braces && jinja_among(edge, "%} }}")) {
        vm->source_at += sign;
        add(vm, SIGN, 2);
        skip_after(vm, c, edge.ptr[0] == '%');
        return false;
    }
    *braces += c == '{';
    *braces -= c == '}' && *braces;
    add(vm, SIGN, jinja_among(str_slice(rest, 0, 2), "== != <= >= //") ? 2 : 1);
    return true;
}

static void lex_literal(struct vm *vm, struct str rest)
{
    usize len = 1;

    while (len < rest.len && rest.ptr[len] != rest.ptr[0])
        len += rest.ptr[len] == '\\' ? 2 : 1;
    if (len >= rest.len)
        jinja_fail(vm, E_FORMAT, "a text is not closed");
    add(vm, LITERAL, len + 1);
}

static void lex_tag(struct vm *vm)
{
    struct str rest;
    u32 braces = 0;
    bool more = true;

    add(vm, SIGN, 2);
    vm->source_at += jinja_among(str_slice(rest_of(vm), 0, 1), "- +");
    while (more && !vm->error) {
        for (rest = rest_of(vm); rest.len && is_white(rest.ptr[0]); rest = rest_of(vm))
            vm->source_at++;
        usize len = 0;
        while (len < rest.len && is_word(rest.ptr[len]))
            len++;
        if (!rest.len)
            jinja_fail(vm, E_FORMAT, "a tag is not closed");
        else if (len)
            add(vm, rest.ptr[0] > '9' ? NAME : INTEGER, len);
        else if (rest.ptr[0] == '"' || rest.ptr[0] == '\'')
            lex_literal(vm, rest);
        else
            more = lex_sign(vm, rest, &braces);
    }
}

/* Python's escapes but for those by number, which no template was seen to use. */
struct value jinja_literal(struct vm *vm, struct str raw)
{
    static const char letters[] = "ntr\\'\"", meaning[] = "\n\t\r\\'\"";
    u32 mark = vm->out_len;

    raw = str_slice(raw, 1, raw.len - 1);
    if (str_find_char(raw, '\\') == raw.len)
        return value_text(raw);
    for (usize i = 0; i < raw.len; i++) {
        bool escape = raw.ptr[i] == '\\';
        usize which = str_find_char(str_of(letters), raw.ptr[i += escape]);
        if (escape && which == sizeof(letters) - 1)
            jinja_fail(vm, E_FORMAT, "no escape '\\%c' is known", raw.ptr[i]);
        jinja_emit(vm, (struct str){escape ? meaning + which : raw.ptr + i, 1});
    }
    return jinja_take(vm, mark);
}
