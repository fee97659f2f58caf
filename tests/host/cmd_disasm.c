/*
 * cmd_disasm.c: `nohost disasm`: what the compiler made of a model, pass by pass.
 */
#include <stdlib.h>
#include <string.h>

#include "ml/model_priv.h"
#include "tests/host/tool.h"
#include "tests/oracle/listing.h"

#define LISTING_BYTES (64 * MIB)
#define NAVI31_CUS    96u

int cmd_disasm(int argc, char **argv);

static const char usage[] =
    "nohost disasm --model FILE [--passes A] [--threads N] [--f32] [--device cpu|gfx11]\n"
    "  prints the program of one step of the model. --passes is a word of the letters G graph,\n"
    "  R rewritten graph, S schedule, L low-level IR, A assembly (in Intel's syntax, as llvm-mc\n"
    "  takes it); kernels that differ only in the memory they use are printed once.\n";

/* Compiles the model's graph while dump_look looks on. */
static err list(const char *path, const struct ml_config *config, struct target target,
                struct compile_options *options)
{
    struct store part[ML_PARTS_MAX];
    struct arena arena = tool_arena(GIB);
    struct graph_io io;
    struct gguf gguf;
    struct hyper hyper;
    struct program program;

    TRY(gguf_open(&gguf, part, tool_model(path, part), &arena, options->why));
    TRY(hyper_read(&gguf, &hyper, options->why));
    hyper_limit(&hyper, config, 0, target);
    struct graph *graph = arena_new(&arena, struct graph, 1);
    io.weight = arena_new(&arena, struct weight, gguf.tensor_count);
    CHECK(graph && io.weight);
    TRY(graph_init(graph, &arena, NODES_MAX));
    TRY(model_graph(&gguf, &hyper, graph, &io, options->why));
    options->target = &hyper.target;
    options->int8_activations = !config->f32_activations;
    return compile(graph, options, &arena, &program);
}

int cmd_disasm(int argc, char **argv)
{
    static const char *const known[] = {
        "--model=", "--passes=", "--threads=", "--f32", "--device=", "--help", NULL};
    char words[400];
    struct text why = TEXT_ON(words);

    tool_check(argc, argv, known, usage);
    const char *passes = tool_option(argc, argv, "--passes");
    struct ml_config config = {.slots = 1,
                               .threads = (u32)tool_number(argc, argv, "--threads", 0),
                               .f32_activations = tool_flag(argc, argv, "--f32")};
    struct text listing = {malloc(LISTING_BYTES), 0, LISTING_BYTES, false};
    struct compile_options options = {
        .why = &why, .look = dump_look, .dump = &listing, .dump_passes = passes ? passes : "SA"};
    const char *device = tool_option(argc, argv, "--device");
    u32 threads = min_u32(config.threads ? config.threads : UINT_MAX, workers_count() + 1);
    struct target target = device && !strcmp(device, "gfx11")
                               ? target_gfx11(NAVI31_CUS)
                               : target_of(cpu_features(), threads);
    CHECK(listing.ptr);
    if (list(tool_required(argc, argv, "--model"), &config, target, &options) != OK)
        tool_fail("disasm: %.*s", (int)why.len, why.ptr);
    tool_print(text_str(&listing));
    free(listing.ptr);
    return listing.truncated;
}
