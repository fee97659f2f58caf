/*
 * jinja_priv.h: values and the state of one rendering, for the files of the evaluator: jinja.c
 * (statements), jinja_expr.c (expressions), jinja_value.c (strings, lists), jinja_lib.c (filters,
 * tests, methods, functions), jinja_date.c.
 *
 * There is no syntax tree: the source is evaluated while it is parsed. With `skip` > 0 it is only
 * parsed (branches not taken, operands not needed); loops and macro calls move the reading
 * position. An error is sticky: it is noted once in vm->error, after which the lexer delivers
 * nothing but ends and every function returns UNDEFINED.
 */
#ifndef NOHOST_JINJA_PRIV_H
#define NOHOST_JINJA_PRIV_H

#include "ml/jinja.h"

/* One byte of UTF-8 and, in GLYPH_USER, whether a message wrote it. */
typedef u16 glyph;
#define GLYPH_USER 0x100u

enum string_form { TEMPLATE_BYTES, USER_BYTES, GLYPHS };
struct string {
    const void *ptr; /* bytes of one origin need no copy; GLYPHS where origins are mixed */
    u32 len;
    enum string_form form;
};

struct vm;
struct list;
enum kind { UNDEFINED, NONE, BOOL, INT, STRING, LIST, DICT, MACRO, FUNCTION };
struct value {
    enum kind kind;
    union {
        i64 number; /* INT, and BOOL as 0 or 1 */
        struct string string;
        struct list *list; /* a DICT is a list of key, value, key, value... */
        u32 macro_at;      /* position of the parameter list */
        const struct function *function;
    };
};
struct list {
    struct value *item;
    u32 len, cap;
};

#define ARGS_MAX 8u
struct args {
    struct value self; /* what a filter, test or method applies to */
    struct value item[ARGS_MAX];
    struct str name[ARGS_MAX]; /* empty: positional */
    u32 count, variant;
};

/* TEST_ARGUMENT: a test that takes an argument, with or without brackets. */
enum function_use { FILTER = 1, TEST = 2, METHOD = 4, GLOBAL = 8, TEST_ARGUMENT = 16 };
struct function {
    const char *name;
    u32 use, variant; /* what tells rows with the same function apart */
    struct value (*run)(struct vm *vm, const struct args *args);
};

enum lex_kind { LEX_END, LEX_NAME, LEX_OPERATOR, LEX_INT, LEX_STRING };
struct lexer {
    enum lex_kind kind; /* of the token just read; END: %} or }} */
    struct str text;
    struct value literal;
    u32 start, at; /* where it starts; where the next one does */
    u32 braces;    /* open {, so that }} in a dict is not the end of the tag */
};

enum block_kind { BLOCK_IF, BLOCK_FOR, BLOCK_SET, BLOCK_MACRO };
#define TARGETS_MAX 4u
struct block {
    enum block_kind kind;
    u32 outer_skip, outer_scope, bindings, body_at, out_mark, idx;
    bool taken;         /* IF: a branch was; FOR: the body ran at least once */
    bool in_else;       /* FOR */
    struct list *items; /* FOR */
    struct list *loop;  /* FOR: the dict behind loop.index and the like */
    struct str target[TARGETS_MAX];
    u32 target_count;
};

struct binding {
    struct str name;
    struct value value;
};

#define BLOCKS_MAX 48u
#define BINDINGS_MAX 256u
struct vm {
    const struct jinja_env *env;
    struct arena *arena;
    struct text *reason;
    struct str source;
    struct lexer lex;
    err error;
    u32 skip, depth, steps;
    glyph *out; /* the rendering; macros and filters write behind it and take it back as a value */
    u32 out_len, out_cap;
    struct block block[BLOCKS_MAX];
    u32 block_count;
    struct binding binding[BINDINGS_MAX]; /* globals, then (from `frame`) those of a macro */
    u32 binding_count, globals, frame, scope;
    struct list none; /* handed out when there is no memory; error is set then */
};

/* ---- jinja.c ---- */

#define SHOWN(str) (int)min_u64((str).len, 40), (str).ptr /* for %.*s */
/* Notes the first error, with the line; E_FORMAT or E_LIMIT. */
__attribute__((format(printf, 3, 4)))
void jinja_fail(struct vm *vm, err why, const char *format, ...);
bool jinja_spend(struct vm *vm, u32 steps); /* false: out of steps */
struct value jinja_call_macro(struct vm *vm, u32 macro_at, const struct args *args);
struct value jinja_lookup(const struct vm *vm, struct str name); /* or UNDEFINED */

/* ---- jinja_expr.c ---- */

void jinja_next(struct vm *vm); /* reads a token into vm->lex */
bool jinja_at(const struct vm *vm, const char *word);
bool jinja_accept(struct vm *vm, const char *word);
void jinja_expect(struct vm *vm, const char *word);
struct str jinja_name(struct vm *vm);
struct value jinja_expr(struct vm *vm);    /* with inline if */
struct value jinja_operand(struct vm *vm); /* without, as in `for x in OPERAND if ...` */

/* ---- jinja_value.c ---- */

static inline glyph glyph_at(struct string s, u32 idx)
{
    if (s.form == GLYPHS)
        return ((const glyph *)s.ptr)[idx];
    return (glyph)(((const u8 *)s.ptr)[idx] | (s.form == USER_BYTES ? GLYPH_USER : 0));
}
struct value value_int(i64 number);
struct value value_bool(bool flag);
struct value value_string(struct string s);
struct value value_literal(struct str text); /* written by the template */

void jinja_emit(struct vm *vm, struct string s);
void jinja_emit_literal(struct vm *vm, struct str text);
struct value jinja_take(struct vm *vm, u32 out_mark); /* what was emitted since, as a value */
struct value jinja_text_of(struct vm *vm, struct value v); /* as {{ v }} prints it */
struct value jinja_concat(struct vm *vm, struct value a, struct value b); /* strings */
struct string jinja_sub(struct string s, u32 from, u32 to);
u32 jinja_find(struct vm *vm, struct string s, struct string needle, u32 from); /* or s.len */
struct str jinja_bytes(struct value v, char *out, usize cap); /* of a STRING, cut */

bool jinja_truthy(struct value v);
bool jinja_equal(struct vm *vm, struct value a, struct value b);
i32 jinja_compare(struct vm *vm, struct value a, struct value b); /* by number or by bytes */
bool jinja_contains(struct vm *vm, struct value box, struct value v);

struct value jinja_list(struct vm *vm, enum kind kind);
void jinja_push(struct vm *vm, struct list *list, struct value v);
void jinja_set(struct vm *vm, struct list *dict, struct value key, struct value v);
struct list *jinja_items(struct vm *vm, struct value v); /* what a loop visits; never NULL */
u32 jinja_len(struct value v); /* items, pairs or characters */
struct value jinja_subscript(struct vm *vm, struct value v, struct value idx);
struct value jinja_slice(struct vm *vm, struct value v, const struct value bound[3]);

/* ---- jinja_lib.c ---- */

/* NULL when there is none of that name and use. */
const struct function *jinja_function(struct str name, enum function_use use);
struct value jinja_run(struct vm *vm, const struct function *function, struct args *args);
/* By position or by keyword, or UNDEFINED. */
struct value jinja_arg(const struct args *args, u32 position, struct str name);

/* ---- jinja_date.c ---- */

struct value jinja_strftime(struct vm *vm, const struct args *args);

#endif
