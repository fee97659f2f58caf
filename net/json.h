/*
 * json.h: strict JSON of a request in place, and pieces of JSON for an answer. No HTTP here.
 */
#ifndef NOHOST_NET_JSON_H
#define NOHOST_NET_JSON_H

#include "kernel/base.h"

#define JSON_DEPTH_MAX 32u

enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* A value stands before its children: elements of an array; key, value, key, value of an object. */
struct json {
    struct str text; /* of a string, decoded; of a number, as written */
    u32 kind;
    u32 span;  /* nodes of this value with all below: the next sibling is node + span */
    u32 count; /* elements, or members */
};

struct json_doc {
    struct json *node; /* the caller's, node_max of them; node[0] is the document */
    u32 node_max, count;
    const char *why; /* after an error: what is wrong, and the byte at which it was seen */
    usize at;
};

/* Decodes strings inside `text` itself, which must live as long as the nodes. E_FORMAT, or E_LIMIT
 * for too many values or too deep nesting. */
err json_read(struct json_doc *doc, char *text, usize len);
static inline const struct json *json_first(const struct json *of) { return of + 1; }
static inline const struct json *json_next(const struct json *node) { return node + node->span; }
/* The last member of that name (as JavaScript and Python do), or NULL. */
const struct json *json_member(const struct json *object, struct str name);
/* Exact; E_FORMAT when it is no number or has a fraction or an exponent, E_RANGE. */
err json_i64(const struct json *node, i64 *value);
/* The value of a hexadecimal digit; false: it is none. */
bool json_hex(char c, u32 *value);
/* With quotes and escapes, always valid UTF-8: what is not becomes U+FFFD. A member has `before`
 * in front of it, chars have no quotes. */
void json_put_str(struct text *out, struct str text);
void json_put_member(struct text *out, const char *before, struct str text);
void json_put_chars(struct text *out, struct str text);

#endif
