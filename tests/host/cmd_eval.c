/*
 * cmd_eval.c: `nohost eval`: any graph in the text form of docs/GRAPH.md on inputs from files: the
 * judge of the compiler. Symbols without --sym follow from the sizes of the input files.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ml/device.h"
#include "ml/model_priv.h"
#include "tests/host/card.h"
#include "tests/host/tool.h"
#include "tests/oracle/lir_eval.h"
#include "tests/oracle/listing.h"
#include "tests/oracle/oracle.h"

int cmd_eval(int argc, char **argv);

#define ARENA_BYTES (64ull * GIB) /* address space; pages are touched as they are used */
#define TEXT_BYTES  (64 * MIB)
#define LIR_CUS     96u
#define SLACK_BYTES 256u /* behind every source: vector loads may read, never use, what follows */

static const char usage[] =
    "nohost eval --graph FILE --inputs DIR --out DIR [--threads N]\n"
    "            [--device interp|cpu|lir|sim [--fast]] [--sym NAME=VALUE]... [--int8]\n"
    "            [--rewrite] [--dump GRSLA]\n"
    "  reads DIR/NAME.bin for every input, const and weight (and state: zeros without it), writes\n"
    "  OUT/NAME.bin for every output and prints their types and shapes as JSON. --int8 multiplies\n"
    "  quantised weights with 8-bit activations, as the server does; without it all is float32.\n"
    "  --device lir runs what a GPU would be given, before its registers and "
    "instructions.\n" CARD_USAGE "  --rewrite interprets the graph that the rewriter made of it.\n"
    "  --dump lists passes on stderr: graph, rewritten, schedule, LIR, assembly.\n";

struct eval {
    struct graph graph;
    struct arena arena;
    struct binding binding[EXTERNALS_MAX];
    usize bytes[EXTERNALS_MAX];
    u32 sym_value[SYMS_MAX];
    bool sym_known[SYMS_MAX];
    void *output[64];
    const char *inputs, *out;
    char *source;
    bool rewrite, lir;
    struct target target;
    struct device *device; /* NULL: the interpreter or the LIR's */
    const struct program *program;
    struct compile_options options;
};

static void read_options(struct eval *eval, int argc, char **argv);
static void read_graph(struct eval *eval, const char *path);
static void read_syms(struct eval *eval, int argc, char **argv);
static void read_source(struct eval *eval, u32 idx);
static void solve_syms(struct eval *eval);
static void check_source(struct eval *eval, u32 idx);
static void run_interp(struct eval *eval);
static void run_device(struct eval *eval);
static void run_lir(struct eval *eval);
static void write_outputs(struct eval *eval);

int cmd_eval(int argc, char **argv)
{
    struct eval *eval = calloc(1, sizeof *eval);

    read_options(eval, argc, argv);
    read_graph(eval, tool_required(argc, argv, "--graph"));
    read_syms(eval, argc, argv);
    for (u32 i = 0; i < eval->graph.external_count; i++)
        read_source(eval, i);
    solve_syms(eval);
    for (u32 i = 0; i < eval->graph.external_count; i++)
        check_source(eval, i);
    if (eval->lir)
        run_lir(eval);
    else if (eval->device)
        run_device(eval);
    else
        run_interp(eval);
    write_outputs(eval);
    free(eval->source);
    free(eval);
    return 0;
}

static void read_options(struct eval *eval, int argc, char **argv)
{
    static const char *const known[] = {"--graph=",  "--inputs=",  "--out=",  CARD_OPTIONS,
                                        "--sym=",    "--threads=", "--dump=", "--int8",
                                        "--rewrite", "--help",     NULL};
    const char *device = tool_option(argc, argv, "--device");

    tool_check(argc, argv, known, usage);
    eval->lir = device && !strcmp(device, "lir");
    eval->rewrite = tool_flag(argc, argv, "--rewrite");
    eval->inputs = tool_required(argc, argv, "--inputs");
    eval->out = tool_required(argc, argv, "--out");
    eval->arena = arena_on("eval",
                           mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
                           ARENA_BYTES);
    if (eval->arena.base == MAP_FAILED)
        tool_fail("eval: out of memory");
    eval->options.int8_activations = tool_flag(argc, argv, "--int8");
    eval->options.dump_passes = tool_option(argc, argv, "--dump");
    eval->target = target_gfx11(LIR_CUS);
    eval->target.matrix = eval->lir && eval->options.int8_activations;
    if (eval->lir || !device || !strcmp(device, "interp"))
        return;
    struct gpu *gpu = card_open(argc, argv);
    u32 threads = (u32)tool_number(argc, argv, "--threads", 0);
    err e = gpu ? device_open_gpu(&eval->device, gpu) : device_open(&eval->device, threads);
    if (e != OK)
        tool_fail("eval: the device does not start");
    eval->target = device_target(eval->device);
    eval->target.matrix = gpu && eval->options.int8_activations;
}

static void read_graph(struct eval *eval, const char *path)
{
    char words[256];
    struct text why = TEXT_ON(words);
    usize len;

    eval->source = tool_file(path, &len);

    if (graph_init(&eval->graph, &eval->arena, NODES_MAX) != OK)
        tool_fail("eval: out of memory");
    if (graph_parse(&eval->graph, (struct str){eval->source, len}, &why) != OK)
        tool_fail("%s: %.*s", path, (int)why.len, why.ptr);
}

static void read_syms(struct eval *eval, int argc, char **argv)
{
    const struct graph *graph = &eval->graph;

    for (int i = 1; i + 1 < argc; i++) {
        struct str value, name = str_cut(str_of(argv[i + 1]), '=', &value);
        u32 sym = 0;
        u64 number;
        if (strcmp(argv[i], "--sym"))
            continue;
        while (sym < graph->sym_count && !str_eq(graph->sym[sym].name, name))
            sym++;
        if (sym == graph->sym_count || str_to_u64(value, &number) != OK ||
            number > graph->sym[sym].bound)
            tool_fail("eval: --sym wants a symbol and a value within its bound, not %s",
                      argv[i + 1]);
        eval->sym_value[sym] = (u32)number;
        eval->sym_known[sym] = true;
    }
}

/* ---- sources ---- */

static FILE *open_in(const char *folder, struct str name, const char *mode, char path[4096])
{
    snprintf(path, 4096, "%s/%.*s.bin", folder, (int)name.len, name.ptr);
    return fopen(path, mode);
}

static void read_source(struct eval *eval, u32 idx)
{
    const struct external *external = &eval->graph.external[idx];
    char path[4096];
    FILE *file = open_in(eval->inputs, external->name, "rb", path);

    if (file) {
        fclose(file);
        char *data = tool_file(path, &eval->bytes[idx]);
        char *roomy = arena_alloc(&eval->arena, eval->bytes[idx] + SLACK_BYTES, 64);
        eval->binding[idx].data = memcpy(roomy, data, eval->bytes[idx]);
        free(data);
    } else if (external->kind != OP_STATE) {
        tool_fail("eval: cannot read %s", path);
    }
}

/* A file with one unknown symbol in its shape says what that symbol is. */
static void solve_syms(struct eval *eval)
{
    const struct graph *graph = &eval->graph;

    for (u32 idx = 0; idx < graph->external_count; idx++) {
        const struct external *external = &graph->external[idx];
        u64 rest = eval->bytes[idx] / dtype_bytes(external->storage), unknown = SYMS_MAX;
        for (u32 axis = 0; axis < external->rank; axis++) {
            dim extent = external->shape[axis];
            if (dim_is_sym(extent) && !eval->sym_known[dim_sym_idx(extent)])
                unknown = unknown == SYMS_MAX ? dim_sym_idx(extent) : SYMS_MAX + 1;
            else
                rest /= max_u64(1, dim_value(graph, extent, eval->sym_value));
        }
        if (unknown >= SYMS_MAX || external->kind == OP_STATE)
            continue;
        if (rest > graph->sym[unknown].bound)
            tool_fail("eval: %.*s.bin makes %.*s %llu, its bound is %u", (int)external->name.len,
                      external->name.ptr, (int)graph->sym[unknown].name.len,
                      graph->sym[unknown].name.ptr, (unsigned long long)rest,
                      graph->sym[unknown].bound);
        eval->sym_value[unknown] = (u32)rest;
        eval->sym_known[unknown] = true;
    }
    for (u32 i = 0; i < graph->sym_count; i++)
        if (!eval->sym_known[i])
            tool_fail("eval: what is %.*s? say --sym %.*s=VALUE", (int)graph->sym[i].name.len,
                      graph->sym[i].name.ptr, (int)graph->sym[i].name.len, graph->sym[i].name.ptr);
}

static const struct quant_format *format_of(const struct external *external)
{
    for (u32 type = 0; type < 64; type++)
        if (quant_format(type) && str_eq_nocase(external->format, str_of(quant_format(type)->name)))
            return quant_format(type);
    tool_fail("eval: weight %.*s has the unknown format %.*s", (int)external->name.len,
              external->name.ptr, (int)external->format.len, external->format.ptr);
}

/* Compiled code reads the packed form, chosen and written as for a model. */
static void pack_weight(struct eval *eval, u32 idx, const struct quant_format *format)
{
    struct external *external = &eval->graph.external[idx];
    struct packing packing = packing_for(format, &eval->target);
    u32 rows = (u32)external->shape[0].v, columns = (u32)external->shape[1].v;
    u64 tile_bytes = packing_bytes(&packing, packing.tile, columns);
    u64 row_bytes = quant_bytes(format, columns), tiles = div_up(rows, packing.tile);
    u8 *packed = arena_alloc(&eval->arena, tiles * tile_bytes + SLACK_BYTES, 64);

    for (u32 tile = 0; tile < tiles; tile++) {
        const u8 *row[PACK_TILE_MAX] = {};
        for (u32 i = 0; i < packing.tile && tile * packing.tile + i < rows; i++)
            row[i] = (u8 *)eval->binding[idx].data + (tile * packing.tile + i) * row_bytes;
        pack_tile_rows(&packing, format, row, columns, packed + tile * tile_bytes);
    }
    external->packing = packing;
    eval->binding[idx].data = packed;
}

/* The interpreter reads weights as plain floats, so that it shares nothing with the packer. */
static void unpack_weight(struct eval *eval, u32 idx, const struct quant_format *format, u64 count)
{
    f32 *plain = arena_new(&eval->arena, f32, count);

    quant_decode(format, eval->binding[idx].data, plain, count);
    eval->graph.external[idx].packing =
        (struct packing){.float_type = DT_F32, .tile = 1, .block = 1, .super = 1};
    eval->binding[idx].data = plain;
}

static void check_source(struct eval *eval, u32 idx)
{
    const struct external *external = &eval->graph.external[idx];
    u64 count = shape_elements(&eval->graph, external->shape, external->rank, eval->sym_value);
    const struct quant_format *format = external->kind == OP_WEIGHT ? format_of(external) : NULL;
    u64 want = count * dtype_bytes(external->storage);

    if (format && (u32)external->shape[1].v % format->elements)
        tool_fail("eval: weight %.*s: rows must be a multiple of %u long", (int)external->name.len,
                  external->name.ptr, format->elements);
    want = format ? quant_bytes(format, count) : want;
    if (!eval->binding[idx].data) {
        eval->binding[idx].data = arena_alloc(&eval->arena, want + SLACK_BYTES, 64);
        eval->bytes[idx] = want;
    }
    if (eval->bytes[idx] != want || !eval->binding[idx].data)
        tool_fail("eval: %.*s.bin has %zu bytes, its shape needs %llu", (int)external->name.len,
                  external->name.ptr, eval->bytes[idx], (unsigned long long)want);
    if (format && (eval->device || eval->lir))
        pack_weight(eval, idx, format);
    else if (format)
        unpack_weight(eval, idx, format, count);
}

/* ---- running ---- */

static void run_interp(struct eval *eval)
{
    err e = eval->rewrite ? graph_rewrite(&eval->graph, &eval->options) : OK;

    if (e == OK && graph_check(&eval->graph) == OK)
        e = interp_run(&eval->graph, eval->binding, eval->sym_value, &eval->arena, eval->output);
    if (e != OK)
        tool_fail("eval: %s %s", err_text(e), eval->graph.why);
}

static void compile_graph(struct eval *eval, struct program *program)
{
    struct text dump = {arena_new(&eval->arena, char, TEXT_BYTES), 0, TEXT_BYTES, false};
    char words[400];
    struct text why = TEXT_ON(words);

    eval->options.look = eval->options.dump_passes ? dump_look : NULL;
    eval->options.dump = &dump;
    eval->options.target = &eval->target;
    eval->options.why = &why;
    err e = compile(&eval->graph, &eval->options, &eval->arena, program);
    fwrite(dump.ptr, 1, dump.len, stderr);
    if (e != OK)
        tool_fail("eval: %.*s", (int)why.len, why.ptr);
}

/* The source's bytes into the device's memory. */
static void send_source(struct eval *eval, struct loaded *loaded, u32 idx)
{
    const struct external *external = &eval->graph.external[idx];
    const struct packing *packing = &external->packing;
    bool input = external->kind == OP_INPUT;
    u64 bytes = eval->bytes[idx], window = device_window_bytes(eval->device, 0);
    u8 *data = eval->binding[idx].data;

    if (external->kind == OP_WEIGHT)
        bytes = packing_bytes(packing, (u32)external->shape[0].v, (u32)external->shape[1].v);
    if (device_alloc(loaded, idx, max_u64(bytes, 4), input) != OK)
        tool_fail("eval: no memory for %.*s", (int)external->name.len, external->name.ptr);
    if (input)
        memcpy(device_input(loaded, idx), data, bytes);
    for (u64 at = 0, part; !input && at < bytes; at += part) {
        u8 *to;
        part = min_u64(bytes - at, window);
        while (!(to = device_window(loaded, idx, at, part)))
            card_turn();
        memcpy(to, data + at, part);
        if (device_send(loaded) != OK)
            tool_fail("eval: the device takes no data");
    }
}

static void run_device(struct eval *eval)
{
    struct program *program = arena_new(&eval->arena, struct program, 1);
    struct loaded *loaded;
    err e;

    compile_graph(eval, program);
    if (device_load(eval->device, program, &loaded) != OK)
        tool_fail("eval: no memory for the program");
    for (u32 i = 0; i < eval->graph.external_count; i++)
        send_source(eval, loaded, i);
    device_start(eval->device, loaded, eval->sym_value);
    while ((e = device_advance(eval->device, time_ns() + NS_PER_S)) == E_BUSY)
        card_turn();
    if (e != OK)
        tool_fail("eval: %s", err_text(e));
    for (u32 i = 0; i < eval->graph.output_count; i++)
        eval->output[i] = device_output(loaded, i);
    eval->program = program;
}

static void run_lir(struct eval *eval)
{
    struct text dump = {arena_new(&eval->arena, char, TEXT_BYTES), 0, TEXT_BYTES, false};
    char words[400];
    struct text why = TEXT_ON(words);
    void *data[EXTERNALS_MAX];

    for (u32 i = 0; i < eval->graph.external_count; i++)
        data[i] = eval->binding[i].data;
    eval->options.look = eval->options.dump_passes ? dump_look : NULL;
    eval->options.dump = &dump;
    eval->options.target = &eval->target;
    eval->options.why = &why;
    err e = lir_run(&(struct lir_run){.graph = &eval->graph,
                                      .options = &eval->options,
                                      .data = data,
                                      .sym_value = eval->sym_value,
                                      .arena = &eval->arena,
                                      .output = eval->output});
    fwrite(dump.ptr, 1, dump.len, stderr);
    if (e != OK)
        tool_fail("eval: %s %.*s", err_text(e), (int)why.len, why.ptr);
}

static void write_outputs(struct eval *eval)
{
    const struct graph *graph = &eval->graph;

    printf("{\"outputs\":[");
    for (u32 i = 0; i < graph->output_count; i++) {
        const struct node *node = &graph->node[graph->output[i]];
        struct str name = graph->output_name[i];
        u64 count = shape_elements(graph, node->shape, node->rank, eval->sym_value);
        char path[4096];
        FILE *file = open_in(eval->out, name, "wb", path);
        bool written = file && fwrite(eval->output[i], 4, count, file) == count;
        if (!file || fclose(file) || !written)
            tool_fail("eval: cannot write %s", path);
        printf("%s{\"name\":\"%.*s\",\"dtype\":\"%s\",\"shape\":[", i ? "," : "", (int)name.len,
               name.ptr, dtype_name(node->dtype));
        for (u32 axis = 0; axis < node->rank; axis++)
            printf(axis ? ",%u" : "%u", dim_value(graph, node->shape[axis], eval->sym_value));
        printf("],\"file\":\"%s\"}", path);
    }
    printf("]");
    if (eval->program)
        printf(",\"launches\":%u,\"kernels\":%u,\"code_bytes\":%zu", eval->program->launch_count,
               eval->program->kernel_count, eval->program->code_bytes);
    card_print();
    printf("}\n");
}
