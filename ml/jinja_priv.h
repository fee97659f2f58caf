/*
 * jinja_priv.h: tokens, values and the state of one rendering, for the files of the evaluator:
 * jinja_lex.c (tokens), jinja.c (statements), jinja_expr.c (expressions), jinja_value.c (strings,
 * lists), jinja_lib.c (filters, tests, methods, functions).
 *
 * There is no syntax tree: tokens are evaluated while they are parsed. With `skip` > 0 they are
 * only parsed (branches not taken, operands not needed); loops and macro calls move the reading
 * position. An error is sticky: it is noted once in vm->error, after which every token is END and
 * every function returns UNDEFINED.
 *
 * A string is a plain slice. Who wrote a byte is asked of its address: vm->user has a bit for each
 * byte of the arena, which holds all that is copied; what lies elsewhere the template wrote.
 */
#ifndef NOHOST_JINJA_PRIV_H
#define NOHOST_JINJA_PRIV_H

#include "ml/jinja.h"

struct vm;
struct list;
enum kind { UNDEFINED, NONE, BOOL, INT, STRING, LIST, DICT, MACRO, FUNCTION };
struct value {
    enum kind kind;
    union {
        i64 number; /* INT, and BOOL as 0 or 1 */
        struct str text;
        struct list *list; /* a DICT is a list of key, value, key, value... */
        u32 macro_at;      /* the token of the parameter list */
    };
};
struct list {
    struct value *item;
    u32 len, cap;
};

/* SIGN: an operator, a bracket or the edge of a tag ({{ {% %} }}, without their - or +). */
enum lex_kind { END, TEXT, NAME, INTEGER, LITERAL, SIGN };
struct token {
    enum lex_kind kind;
    u32 source_at;
    struct str text; /* a LITERAL's has its quotes and escapes */
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
    const char *names;
    u32 use, variant; /* what tells rows with the same function apart */
    struct value (*run)(struct vm *vm, const struct args *args);
};

/* Which bindings are visible: globals, then those from `frame` on, which a macro call sets; names
 * are written from `scope` on. */
struct visible {
    u32 count, globals, frame, scope;
};
#define BINDINGS_MAX 256u
struct binding {
    struct str name;
    struct value value;
};

struct vm {
    const struct jinja_env *env;
    struct arena *arena;
    struct text *reason;
    struct str source;
    struct token *token;
    u32 at, source_at; /* the token to read next; where it, or the lexer, is in the source */
    err error;
    u32 skip, depth, steps, loops;
    bool broke; /* the innermost loop was left */
    u8 *user;   /* for each byte of the arena a bit: a message wrote it */
    char *out;  /* the rendering; macros and filters write behind it and take it back as a value */
    u32 out_len, out_cap;
    struct binding binding[BINDINGS_MAX];
    struct visible names;
    struct list none; /* handed out when there is no memory; error is set then */
};

/* ---- jinja_lex.c ---- */

void jinja_lex(struct vm *vm);                             /* vm->source -> vm->token */
bool jinja_among(struct str word, const char *words);      /* separated by one space */
struct value jinja_literal(struct vm *vm, struct str raw); /* without quotes and escapes */

/* ---- jinja.c ---- */

#define SHOWN(str) (int)min_u64((str).len, 100), (str).ptr /* for %.*s */
/* Notes the first error, with the line; E_FORMAT or E_LIMIT. Returns UNDEFINED. */
__attribute__((format(printf, 3, 4))) struct value jinja_fail(struct vm *vm, err why,
                                                              const char *format, ...);
bool jinja_spend(struct vm *vm, usize steps); /* false: out of steps, or another error */
bool jinja_enter(struct vm *vm);              /* one level deeper; false: too deep */
struct value jinja_call_macro(struct vm *vm, u32 macro_at, const struct args *args);
struct value jinja_lookup(const struct vm *vm, struct str name); /* or UNDEFINED */

/* ---- jinja_expr.c ---- */

struct token jinja_next(struct vm *vm);                /* takes it; END for ever at the end */
bool jinja_at(const struct vm *vm, const char *words); /* is the next one of them? */
bool jinja_accept(struct vm *vm, const char *word);
void jinja_expect(struct vm *vm, const char *word);
struct str jinja_name(struct vm *vm);
struct value jinja_expr(struct vm *vm); /* with inline if */
/* Without it, as in `for x in OPERAND if ...`: operators from level 0 (`or`) on. */
struct value jinja_operand(struct vm *vm, u32 level);

/* ---- jinja_value.c ---- */

static inline struct value value_int(i64 n)
{
    return (struct value){INT, {.number = n}};
}
static inline struct value value_bool(bool flag)
{
    return (struct value){BOOL, {.number = flag}};
}
static inline struct value value_text(struct str s)
{
    return (struct value){STRING, {.text = s}};
}

bool jinja_is_user(const struct vm *vm, const char *byte);
struct str jinja_concat(struct vm *vm, struct str a, struct str b);
struct value jinja_from_user(struct vm *vm, struct str text); /* a copy that a message wrote */
void jinja_emit(struct vm *vm, struct str s);
struct value jinja_take(struct vm *vm, u32 out_mark); /* what was emitted since, as a value */
struct str jinja_text(struct vm *vm, struct value v); /* as {{ v }} prints it */
usize jinja_find(struct vm *vm, struct str s, struct str needle); /* or s.len */

bool jinja_truthy(struct value v);
bool jinja_equal(struct vm *vm, struct value a, struct value b);
bool jinja_contains(struct vm *vm, struct value box, struct value v);

struct value jinja_list(struct vm *vm, enum kind kind);
void jinja_push(struct vm *vm, struct value list, struct value v);
void jinja_set(struct vm *vm, struct value dict, struct str key, struct value v);
struct value jinja_items(struct vm *vm, struct value v); /* the LIST that a loop visits */
u32 jinja_len(struct vm *vm, struct value v);            /* items, pairs or characters */
struct value jinja_subscript(struct vm *vm, struct value v, struct value idx);
struct value jinja_slice(struct vm *vm, struct value v, i64 from, i64 to);
struct value jinja_reversed(struct vm *vm, struct value list);

/* ---- jinja_lib.c ---- */

/* NULL when there is none of that name and use. */
const struct function *jinja_function(struct str name, enum function_use use);
/* By position or by keyword, or UNDEFINED. */
struct value jinja_arg(const struct args *args, u32 position, struct str name);

#endif
