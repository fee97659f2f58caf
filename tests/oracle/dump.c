/*
 * dump.c: the listing of `nohost eval --dump`: what the passes made, as text.
 */
#include "ml/compile/priv.h"
#include "tests/oracle/listing.h"

static void schedule_print(const struct graph *graph, const struct schedule *s, struct text *out)
{
    for (u32 i = 0; i < s->kernel_count; i++) {
        const struct kernel *k = &s->kernel[i];
        text_fmt(out, "%s kernel %u grid", k->barrier ? "--\n" : "", i);
        for (u32 a = 0; a < k->lead; a++) {
            dim d = stage_space(graph, &s->stage[k->stage_first])->shape[a];
            if (dim_is_sym(d))
                text_fmt(out, " %.*s", (int)graph->sym[dim_sym_idx(d)].name.len,
                         graph->sym[dim_sym_idx(d)].name.ptr);
            else
                text_fmt(out, " %d", d.v);
            text_fmt(out, "/%u", s->stage[k->stage_first].block[a]);
        }
        text_fmt(out, " tiles %u", k->tiles);
        text_fmt(out, "\n");
        for (u32 j = k->stage_first; j < k->stage_first + k->stage_count; j++) {
            const struct stage *stage = &s->stage[j];
            text_fmt(out, "   node %u %s -> %s %u", stage->node,
                     op_row[graph->node[stage->node].op].name, stage->local ? "scratch" : "place",
                     stage->place);
            if (stage->heavy != NO_NODE)
                text_fmt(out, " holding node %u %s", stage->heavy,
                         op_row[graph->node[stage->heavy].op].name);
            for (u32 a = k->lead; a < stage_space(graph, stage)->rank; a++)
                text_fmt(out, a == k->lead ? " blocks %u" : ",%u", stage->block[a]);
            if (stage->again)
                text_fmt(out, " again");
            if (stage->len_node != NO_NODE)
                text_fmt(out, " axis %u up to node %u", stage->len_axis, stage->len_node);
            text_fmt(out, "\n");
        }
    }
    text_fmt(out, "workspace %llu bytes, %u buffers\n", (unsigned long long)s->workspace_bytes,
             s->buffer_count);
}

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
        out->look_rdna = rdna_look;
        break;
    }
    default:
        graph_print(graph, options->dump);
    }
}
