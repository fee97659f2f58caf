/*
 * compile_schedule_test.c: what a layer of a model becomes: a chain of five phases where kernels
 * are cut in tiles, whatever the model's shapes, and rows that stay whole where they are not.
 * Values are judged by witness/eval_numpy.py --device lir.
 */
#include "ml/model_priv.h"
#include "tests/oracle/listing.h"
#include "tests/test.h"

#define ARENA_BYTES (128 * MIB)
#define TENSORS_MAX 512u
#define NAME_BYTES  40u

struct bench {
    struct arena arena;
    struct gguf gguf;
    struct hyper hyper;
    struct graph graph;
    struct graph_io io;
    struct schedule schedule;
    u32 phases;
    enum quant_type few,
        many; /* formats of most matrices; of those that a mixed file keeps better */
};

/* ---- a model file that has only its names and shapes ---- */

static struct str tensor_name(const void *table, u32 entry)
{
    return ((const struct gguf_tensor *)table)[entry].name;
}

static void add_tensor(struct bench *b, u32 layer, const char *part, u32 rows, u32 columns)
{
    bool better = str_eq(str_of(part), STR("attn_v")) || str_eq(str_of(part), STR("ffn_down"));
    const struct quant_format *matrix = quant_format(better ? b->many : b->few),
                              *vector = quant_format(QUANT_F32);
    struct text name = {arena_new(&b->arena, char, NAME_BYTES), 0, NAME_BYTES, false};
    u32 entry = b->gguf.tensor_count++;

    EXPECT(entry < TENSORS_MAX);
    if (layer < b->hyper.shape.layers)
        text_fmt(&name, "blk.%u.", layer);
    text_fmt(&name, "%s.weight", part);
    b->gguf.tensor[entry] = (struct gguf_tensor){.name = text_str(&name),
                                                 .format = rows ? matrix : vector,
                                                 .dim_count = rows ? 2 : 1,
                                                 .dim = {columns, rows ? rows : 1, 1, 1}};
    EXPECT_OK(names_put(&b->gguf.tensor_names, entry));
}

static void add_tensors(struct bench *b)
{
    const struct model_shape *s = &b->hyper.shape;
    u32 rows = s->heads * s->head_dim, kv_rows = s->kv_heads * s->head_dim;

    b->gguf.tensor = arena_new(&b->arena, struct gguf_tensor, TENSORS_MAX);
    b->gguf.tensor_names.table = b->gguf.tensor;
    b->gguf.tensor_names.name = tensor_name;
    EXPECT_OK(names_init(&b->gguf.tensor_names, &b->arena, TENSORS_MAX));
    for (u32 l = 0; l < s->layers; l++) {
        add_tensor(b, l, "attn_norm", 0, s->embed);
        add_tensor(b, l, "attn_q", rows, s->embed);
        add_tensor(b, l, "attn_k", kv_rows, s->embed);
        add_tensor(b, l, "attn_v", kv_rows, s->embed);
        add_tensor(b, l, "attn_output", s->embed, rows);
        add_tensor(b, l, "ffn_norm", 0, s->embed);
        add_tensor(b, l, "ffn_up", s->ffn, s->embed);
        add_tensor(b, l, "ffn_gate", s->ffn, s->embed);
        add_tensor(b, l, "ffn_down", s->embed, s->ffn);
    }
    add_tensor(b, s->layers, "token_embd", s->vocab, s->embed);
    add_tensor(b, s->layers, "output_norm", 0, s->embed);
}

/* ---- its schedule ---- */

static struct bench *bench_mixed(struct model_shape shape, struct target target,
                                 enum quant_type few, enum quant_type many)
{
    struct bench *b = pages_alloc(sizeof *b);
    char words[200];
    struct text why = TEXT_ON(words);
    struct compile_options options = {.int8_activations = true};

    EXPECT(b != NULL);
    b->few = few;
    b->many = many;
    b->arena = arena_on("test", pages_alloc(ARENA_BYTES), ARENA_BYTES);
    EXPECT(b->arena.base != NULL);
    shape.vocab = 32000;
    shape.ctx_max = shape.ctx_max ? shape.ctx_max : 2048;
    shape.kv_tokens = shape.ctx_max;
    shape.slots = shape.outputs_max = 1;
    shape.rows_max = 256;
    b->hyper = (struct hyper){.shape = shape,
                              .norm_epsilon = 1e-5f,
                              .kv_type = DT_F16,
                              .target = target,
                              .layer_end = shape.layers};
    add_tensors(b);
    b->io.weight = arena_new(&b->arena, struct weight, TENSORS_MAX);
    EXPECT_OK(graph_init(&b->graph, &b->arena, NODES_MAX));
    EXPECT_OK(model_graph(&b->gguf, &b->hyper, &b->graph, &b->io, &why));
    options.target = &b->hyper.target;
    EXPECT_OK(graph_rewrite(&b->graph, &options));
    EXPECT_OK(schedule_build(&b->graph, &b->hyper.target, &b->arena, &b->schedule));
    b->phases = 1;
    for (u32 i = 0; i < b->schedule.kernel_count; i++)
        b->phases += b->schedule.kernel[i].barrier;
    return b;
}

static struct bench *bench_new(struct model_shape shape, struct target target)
{
    return bench_mixed(shape, target, QUANT_Q4_0, QUANT_Q4_0);
}

static void bench_free(struct bench *b)
{
    pages_free(b->arena.base, ARENA_BYTES);
    pages_free(b, sizeof *b);
}

static struct bench *small_model(u32 layers, struct target target)
{
    return bench_new(
        (struct model_shape){
            .layers = layers, .embed = 576, .heads = 9, .kv_heads = 3, .head_dim = 64, .ffn = 1536},
        target);
}

/* A layer is five phases: products with what follows them in the same tile, attention as one. */
TEST(compile_schedule_five_phases)
{
    static const struct model_shape shapes[] = {
        {.embed = 576, .heads = 9, .kv_heads = 3, .head_dim = 64, .ffn = 1536},
        {.embed = 4096, .heads = 32, .kv_heads = 32, .head_dim = 128, .ffn = 11008},
        {.embed = 4096, .heads = 32, .kv_heads = 8, .head_dim = 128, .ffn = 14336},
        {.embed = 1536, .heads = 12, .kv_heads = 2, .head_dim = 128, .ffn = 8960},
        {.embed = 2048, .heads = 8, .kv_heads = 1, .head_dim = 256, .ffn = 16384},
        {.embed = 2560, .heads = 32, .kv_heads = 32, .head_dim = 80, .ffn = 6912},
    };

    for (u32 i = 0; i < ARRAY_LEN(shapes); i++) {
        u32 phases[2];
        for (u32 layers = 2; layers < 4; layers++) {
            struct model_shape shape = shapes[i];
            shape.layers = layers;
            struct bench *b = bench_new(shape, target_gfx11(96));
            phases[layers - 2] = b->phases;
            bench_free(b);
        }
        if (phases[1] - phases[0] != 5 || phases[0] > 15)
            test_fail(__FILE__, __LINE__, "shape %u: %u phases in two layers, %u in three", i,
                      phases[0], phases[1]);
    }
}

/* Codes in blocks of two lengths of the same activations do not come between. */
TEST(compile_schedule_mixed_formats)
{
    struct model_shape shape = {
        .layers = 2, .embed = 4096, .heads = 32, .kv_heads = 8, .head_dim = 128, .ffn = 14336};
    struct bench *two = bench_mixed(shape, target_gfx11(96), QUANT_Q4_K, QUANT_Q6_K);

    shape.layers = 3;
    struct bench *three = bench_mixed(shape, target_gfx11(96), QUANT_Q4_K, QUANT_Q6_K);
    EXPECT_EQ(three->phases - two->phases, 5);
    bench_free(two);
    bench_free(three);
}

/* What the whole of a small model costs, and what stays with an item. */
TEST(compile_schedule_thirty_layers)
{
    struct bench *b = small_model(30, target_gfx11(96));
    const struct schedule *s = &b->schedule;

    EXPECT(b->phases <= 155);
    EXPECT(s->workspace_bytes <= 8 * MIB);
    for (u32 i = 0; i < s->kernel_count; i++)
        EXPECT(s->kernel[i].scratch_bytes <= b->hyper.target.scratch_bytes);
    bench_free(b);
}

/* A long context is read in parts by more items than there are heads, for one phase more. */
TEST(compile_schedule_long_context)
{
    struct model_shape shape = {.layers = 3,
                                .embed = 4096,
                                .heads = 32,
                                .kv_heads = 8,
                                .head_dim = 128,
                                .ffn = 14336,
                                .ctx_max = 16384};
    struct bench *b = bench_new(shape, target_gfx11(96));
    u32 in_parts = 0;

    EXPECT(b->phases <= 3 * 6 + 4);
    for (u32 i = 0; i < b->schedule.kernel_count; i++)
        in_parts += b->schedule.kernel[i].tiles == 32 * 16;
    EXPECT_EQ(in_parts, 3);
    EXPECT(b->schedule.workspace_bytes <= 128 * MIB);
    bench_free(b);
}

/* Where rows stay whole no product has company and no sum is cut. */
TEST(compile_schedule_whole_rows)
{
    const struct target target = {
        .isa = ISA_AVX2, .lanes = 8, .vector_regs = 16, .cores = 8, .scratch_bytes = MIB};
    struct bench *b = small_model(4, target), *more = small_model(5, target);

    EXPECT_EQ(more->schedule.kernel_count - b->schedule.kernel_count, 15);
    EXPECT_EQ(more->phases - b->phases, 10);
    for (u32 i = 0; i < b->schedule.stage_count; i++)
        EXPECT(!b->schedule.stage[i].again);
    bench_free(b);
    bench_free(more);
}
