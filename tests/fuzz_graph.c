/*
 * fuzz_graph.c: any bytes as a graph in the text form. What is accepted must be legal, print to a
 * text that reads back to the same graph, stay legal through the rewriter, and be interpreted,
 * before and after, to the same values.
 */
#include "tests/oracle/listing.h"
#include "tests/oracle/oracle.h"

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes);

#define ARENA_BYTES (32 * MIB)
#define TEXT_BYTES (256 * KIB)
#define NODES 1000u
#define ELEMENTS_MAX 20000u /* of one value; larger graphs are not interpreted */

struct fuzz {
    struct arena arena;
    struct graph graph, again;
    struct binding binding[EXTERNALS_MAX];
    u32 sym_value[SYMS_MAX];
    void *output[2][64];
};

static struct fuzz *fuzz_new(void)
{
    struct arena arena = arena_on("fuzz", pages_alloc(ARENA_BYTES), ARENA_BYTES);
    struct fuzz *fuzz = arena.base ? arena_new(&arena, struct fuzz, 1) : NULL;

    CHECK(fuzz);
    fuzz->arena = arena;
    CHECK(graph_init(&fuzz->graph, &fuzz->arena, NODES) == OK);
    CHECK(graph_init(&fuzz->again, &fuzz->arena, NODES) == OK);
    return fuzz;
}

/* A source may be called like a node (n5), so reading back may be refused, but never differ. */
static void print_and_read(struct fuzz *fuzz)
{
    struct text out = {arena_new(&fuzz->arena, char, TEXT_BYTES), 0, TEXT_BYTES, false};
    struct text twice = {arena_new(&fuzz->arena, char, TEXT_BYTES), 0, TEXT_BYTES, false};
    char words[200];
    struct text why = TEXT_ON(words);

    CHECK(out.ptr && twice.ptr);
    graph_print(&fuzz->graph, &out);
    if (out.truncated || graph_parse(&fuzz->again, text_str(&out), &why) != OK)
        return;
    graph_print(&fuzz->again, &twice);
    CHECK(str_eq(text_str(&out), text_str(&twice)));
}

static bool is_small(const struct graph *graph)
{
    for (u32 i = 0; i < graph->node_count; i++)
        if (shape_elements(graph, graph->node[i].shape, graph->node[i].rank, NULL) > ELEMENTS_MAX)
            return false;
    return graph->node_count < 100;
}

/* Sources of zeros; a weight as plain floats. */
static bool bind(struct fuzz *fuzz)
{
    for (u32 i = 0; i < fuzz->graph.external_count; i++) {
        struct external *external = &fuzz->graph.external[i];
        external->packing = (struct packing){.tile = 1, .block = 1, .super = 1};
        u64 count = shape_elements(&fuzz->graph, external->shape, external->rank, NULL);
        fuzz->binding[i].data = arena_new(&fuzz->arena, u32, count);
        if (!fuzz->binding[i].data)
            return false;
    }
    for (u32 i = 0; i < fuzz->graph.sym_count; i++)
        fuzz->sym_value[i] = fuzz->graph.sym[i].bound / 2;
    return true;
}

static bool run(struct fuzz *fuzz, u32 turn)
{
    err e = interp_run(&fuzz->graph, fuzz->binding, fuzz->sym_value, &fuzz->arena,
                       fuzz->output[turn]);

    CHECK(e == OK || e == E_NOMEM);
    return e == OK;
}

/* Sources are zeros, so values are tame: both runs agree to 1e-3, but for NaN and giants. */
static void compare(const struct fuzz *fuzz)
{
    const struct graph *graph = &fuzz->graph;

    for (u32 i = 0; i < graph->output_count; i++) {
        const struct node *node = &graph->node[graph->output[i]];
        u64 count = shape_elements(graph, node->shape, node->rank, fuzz->sym_value);
        const f32 *a = fuzz->output[0][i], *b = fuzz->output[1][i];
        for (u64 k = 0; node->dtype == DT_F32 && k < count; k++) {
            f32 off = a[k] > b[k] ? a[k] - b[k] : b[k] - a[k];
            f32 size = a[k] > 0 ? a[k] : -a[k];
            CHECK(!(size < 1e6f) || b[k] != b[k] || off <= 1e-3f * (1 + size));
        }
        for (u64 k = 0; node->dtype == DT_I32 && k < count; k++)
            CHECK(((const i32 *)a)[k] == ((const i32 *)b)[k]);
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes)
{
    struct fuzz *fuzz = fuzz_new();
    struct str source = {(const char *)data, bytes};
    char words[200];
    struct text why = TEXT_ON(words);
    bool states = false;

    if (graph_parse(&fuzz->graph, source, &why) == OK) {
        CHECK(graph_check(&fuzz->graph) == OK);
        print_and_read(fuzz);
        for (u32 i = 0; i < fuzz->graph.external_count; i++)
            states |= fuzz->graph.external[i].kind == OP_STATE;
        bool small = is_small(&fuzz->graph) && bind(fuzz), ran = small && run(fuzz, 0);
        err e = graph_rewrite(&fuzz->graph, &(struct compile_options){});
        CHECK(e == OK || e == E_NOMEM || e == E_LIMIT);
        CHECK(e != OK || graph_check(&fuzz->graph) == OK);
        if (ran && e == OK && !states && run(fuzz, 1))
            compare(fuzz);
    } else {
        CHECK(why.len > 0);
    }
    pages_free(fuzz->arena.base, ARENA_BYTES);
    return 0;
}
