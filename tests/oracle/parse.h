/*
 * parse.h: between parse.c (lines, words, names) and parse_ops.c (operations). Nobody else needs
 * it.
 */
#ifndef NOHOST_PARSE_H
#define NOHOST_PARSE_H

#include "tests/oracle/oracle.h"

#define OPERANDS_MAX 64u
#define ATTRS_MAX 6u

struct parse {
    struct graph *graph;
    struct name { struct str text; u32 node; } *name; /* open addressing */
    u32 name_count, name_mask;
};

/* One operation as it stands in the text. */
struct call {
    struct parse *parse;
    struct graph *graph;
    struct str op, word[OPERANDS_MAX];
    u32 src[OPERANDS_MAX], count;
    struct attr { struct str key, value; bool used; } attr[ATTRS_MAX];
    u32 attr_count;
};

/* ---- parse.c; mistakes stick in graph->status, and 0 is returned ---- */
__attribute__((format(printf, 2, 3)))
u32 parse_fail(struct graph *graph, const char *format, ...);
u32 parse_name(struct parse *parse, struct str text); /* the node of that name */
bool parse_number(struct str text, f64 *value);       /* also inf and nan */
bool parse_whole(struct str text, i32 *value);
bool parse_item(struct str *list, struct str *item);  /* next of "[a, b]" or "a"; false at the end */
u32 parse_dims(struct parse *parse, struct str list, dim *out); /* returns the rank */

/* ---- parse_ops.c ---- */
u32 call_build(struct call *call);

#endif
