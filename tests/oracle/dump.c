/*
 * dump.c: the listing of `nohost eval --dump`: what the passes made, as text.
 */
#include "tests/oracle/listing.h"

void dump_look(const struct compile_options *options, char pass, const struct graph *graph,
               void *made)
{
    const char *c = options->dump_passes;

    while (*c && *c != pass)
        c++;
    if (!*c)
        return;
    switch (pass) {
    case 'S':
        schedule_print(graph, made, options->dump);
        break;
    case 'L':
        text_fmt(options->dump, "kernel code\n");
        lir_print(made, options->dump);
        break;
    case 'A': {
        struct code_out *out = made;
        text_fmt(options->dump, "kernel_%zx:\n", out->len);
        out->listing = options->dump;
        out->look = x86_look;
        break;
    }
    default:
        graph_print(graph, options->dump);
    }
}
