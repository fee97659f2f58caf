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
/* The next of "[a, b]" or of a bare "a"; false at the end. */
bool parse_item(struct str *list, struct str *item);
u32 parse_dims(struct parse *parse, struct str list, dim *out); /* returns the rank */

/* ---- compose.c ---- */
u32 compose_tanh(struct graph *graph, u32 a);
u32 compose_gelu(struct graph *graph, u32 a); /* tanh form */
u32 compose_softmax(struct graph *graph, u32 a, u32 axis, u32 len);
u32 compose_layer_norm(struct graph *graph, u32 a, u32 weight, u32 bias, f32 epsilon);
u32 compose_squeeze(struct graph *graph, u32 a, u32 axes);
u32 compose_concat(struct graph *graph, const u32 *part, u32 count, u32 axis);
/* [..., m, k] times [..., k, n] -> [..., m, n], leading axes broadcast. */
u32 compose_matmul(struct graph *graph, u32 a, u32 b);

/* ---- parse_ops.c ---- */
u32 call_build(struct call *call);

#endif
