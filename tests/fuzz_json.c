/*
 * fuzz_json.c: any bytes as a document: every node lies inside its parent, every string is valid
 * UTF-8 inside the text, and what is written from the nodes reads back as the same nodes.
 */
#include <stdlib.h>

#include "net/json.h"

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes);

#define NODES 4096u

/* Nodes in order as text again: each opens, and closes when its span ends. */
static void write_back(struct text *out, const struct json_doc *doc)
{
    u32 end[JSON_DEPTH_MAX + 1], kind[JSON_DEPTH_MAX + 1], seen[JSON_DEPTH_MAX + 1], depth = 0;

    for (u32 i = 0; i < doc->count; i++) {
        const struct json *node = &doc->node[i];
        CHECK(node->span >= 1 && i + node->span <= (depth ? end[depth - 1] : doc->count));
        if (depth && seen[depth - 1])
            text_char(out, kind[depth - 1] == JSON_OBJECT && seen[depth - 1] % 2 ? ':' : ',');
        if (depth)
            seen[depth - 1]++;
        if (node->kind == JSON_STRING) {
            CHECK(utf8_valid(node->text));
            json_put_str(out, node->text);
        } else if (node->kind == JSON_NUMBER) {
            text_put(out, node->text);
        } else if (node->kind < JSON_NUMBER) {
            text_put(out, str_of(((const char *[]){"null", "false", "true"})[node->kind]));
        } else {
            text_char(out, node->kind == JSON_ARRAY ? '[' : '{');
            CHECK(depth < JSON_DEPTH_MAX);
            end[depth] = i + node->span;
            seen[depth] = 0;
            kind[depth++] = node->kind;
        }
        for (; depth && i + 1 == end[depth - 1]; depth--)
            text_char(out, kind[depth - 1] == JSON_ARRAY ? ']' : '}');
    }
    CHECK(depth == 0);
}

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes)
{
    static struct json nodes[NODES], again[NODES];
    struct json_doc doc = {.node = nodes, .node_max = NODES};
    struct json_doc second = {.node = again, .node_max = NODES};
    char *copy = malloc(bytes ? bytes : 1);
    struct text out = {malloc(bytes * 6 + 16), 0, bytes * 6 + 16, false};

    memcpy(copy, data, bytes);
    if (json_read(&doc, copy, bytes) == OK) {
        write_back(&out, &doc);
        CHECK(!out.truncated);
        CHECK(json_read(&second, out.ptr, out.len) == OK && second.count == doc.count);
        for (u32 i = 0; i < doc.count; i++)
            CHECK(nodes[i].kind == again[i].kind && nodes[i].span == again[i].span &&
                  nodes[i].count == again[i].count && str_eq(nodes[i].text, again[i].text));
        json_member(doc.node, STR("messages"));
    } else {
        CHECK(doc.at <= bytes && doc.why[0]);
    }
    free(copy);
    free(out.ptr);
    return 0;
}
