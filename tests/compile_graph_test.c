/*
 * compile_graph_test.c: graphs are built, refused, printed, read and rewritten as the contracts in
 * compile.h and docs/GRAPH.md say. Values are judged elsewhere (compile_interp_test.c and
 * witness/eval_numpy.py); here it is shapes, reasons and what the rules leave.
 */
#include "tests/oracle/listing.h"
#include "tests/oracle/oracle.h"
#include "tests/test.h"

#define ARENA_BYTES (16 * MIB)
#define TEXT_BYTES (64 * KIB)

struct bench {
    struct graph graph;
    struct arena arena;
    char why[200];
};

static struct bench *bench_new(u32 nodes)
{
    struct bench *b = pages_alloc(sizeof *b);

    EXPECT(b != NULL);
    b->arena = arena_on("test", pages_alloc(ARENA_BYTES), ARENA_BYTES);
    EXPECT(b->arena.base != NULL);
    EXPECT_OK(graph_init(&b->graph, &b->arena, nodes));
    return b;
}

static void bench_free(struct bench *b)
{
    pages_free(b->arena.base, ARENA_BYTES);
    pages_free(b, sizeof *b);
}

static err bench_parse(struct bench *b, struct str source)
{
    struct text why = {b->why, 0, sizeof b->why - 1, false};
    err e = graph_parse(&b->graph, source, &why);

    b->why[why.len] = 0;
    return e;
}

static struct str bench_print(struct bench *b)
{
    struct text out = {arena_new(&b->arena, char, TEXT_BYTES), 0, TEXT_BYTES, false};

    graph_print(&b->graph, &out);
    EXPECT(!out.truncated);
    return text_str(&out);
}

static u32 source_f32(struct graph *graph, const char *name, u32 a, u32 b)
{
    return graph_source(graph, &(struct external){.kind = OP_INPUT, .name = str_of(name), .rank = 2,
                                                  .shape = {dim_of(a), dim_of(b)}});
}

/* Equal subexpressions are one node, and a constant of another shape costs none. */
TEST(compile_graph_hash)
{
    struct bench *b = bench_new(100);
    struct graph *g = &b->graph;
    u32 x = source_f32(g, "x", 3, 4), y = source_f32(g, "y", 3, 4);
    u32 sum = graph_binary(g, OP_ADD, x, y), count = g->node_count;

    EXPECT_EQ(graph_binary(g, OP_ADD, x, y), sum);
    EXPECT_EQ(g->node_count, count);
    EXPECT(graph_binary(g, OP_ADD, y, x) != sum);
    count = g->node_count;
    u32 half = graph_binary(g, OP_MUL, x, graph_scalar_f32(g, 0.5f));
    EXPECT_EQ(g->node_count, count + 3); /* the scalar, the scalar as [3, 4], the product */
    EXPECT_EQ(graph_binary(g, OP_MUL, x, graph_scalar_f32(g, 0.5f)), half);
    EXPECT_EQ(g->node_count, count + 3);
    EXPECT_OK(graph_check(g));
    bench_free(b);
}

/* Broadcasting puts explicit moves in front: the checker never sees two shapes under one op. */
TEST(compile_graph_broadcast)
{
    struct bench *b = bench_new(100);
    struct graph *g = &b->graph;
    u32 t = graph_sym(g, STR("T"), 9);
    u32 x = graph_source(g, &(struct external){.kind = OP_INPUT, .name = STR("x"), .rank = 2,
                                               .shape = {dim_sym(t), dim_of(1)}});
    u32 y = graph_source(g, &(struct external){.kind = OP_INPUT, .name = STR("y"), .rank = 1,
                                               .shape = {dim_of(5)}});
    const struct node *sum = &g->node[graph_binary(g, OP_ADD, x, y)];

    EXPECT_EQ(sum->rank, 2);
    EXPECT(dim_same(sum->shape[0], dim_sym(t)) && dim_same(sum->shape[1], dim_of(5)));
    EXPECT_EQ(g->node[sum->src[0]].op, OP_EXPAND);
    EXPECT_EQ(g->node[sum->src[1]].op, OP_EXPAND);
    EXPECT_EQ(g->node[g->node[sum->src[1]].src[0]].op, OP_RESHAPE);
    EXPECT_EQ(shape_elements(g, sum->shape, 2, NULL), 45);
    EXPECT_EQ(shape_elements(g, sum->shape, 2, (u32[]){3}), 15);
    EXPECT_OK(graph_check(g));
    bench_free(b);
}

/* After each kind of damage the checker must say no. */
TEST(compile_graph_check_notices)
{
    struct str source =
        STR("sym T 7\ninput x f32 [T, 6]\ninput i i32 [T]\ninput q i32 [T, 1]\n"
            "state s f32 [9, 6]\nweight w q8_0 [5, 6]\na = scatter s i x\nb = gather a i\n"
            "c = add b x\nd = sum c axis=1 keep=1 len=q\ne = linear x w\n"
            "f = reshape x shape=[T,2,3]\ng = permute f order=[2,0,1]\n"
            "h = slice g begin=[1,0,0] shape=[2,T,2]\nj = flip h axis=0\n"
            "k = quant x block=3\nl = pad x before=[0,1] shape=[T,8]\n"
            "m = lt x 0.5\nn = where m x c\no = iota axis=0 shape=[T]\n"
            "output d e j k l n o\n");
    struct bench *b = bench_new(100);
    struct graph *g = &b->graph;

    if (bench_parse(b, source) != OK)
        test_fail(__FILE__, __LINE__, "%s", b->why);
    for (u32 i = 0; i < g->node_count; i++) {
        struct node kept = g->node[i];
        for (u32 damage = 0; damage < 6; damage++) {
            bool source_op = op_row[kept.op].class == CLASS_SOURCE;
            struct node *node = &g->node[i];
            if (damage == 0)
                node->shape[0] = dim_of(11);
            else if (damage == 1)
                node->rank++, node->shape[kept.rank] = dim_of(2);
            else if (damage == 2)
                node->src_count ^= 1;
            else if (damage == 3)
                node->src[0] = i;
            else if (damage == 4)
                node->dtype = DT_F16;
            else
                node->shape[0] = (dim){0};
            bool harmless = (source_op && (damage < 2 || damage == 3)) ||
                            (kept.op == OP_SCALAR && damage != 2 && damage != 4) ||
                            (kept.rank == 0 && damage == 5);
            if (!harmless && graph_check(g) == OK)
                test_fail(__FILE__, __LINE__, "damage %u to %s", damage, op_row[kept.op].name);
            g->status = OK;
            g->node[i] = kept;
        }
    }
    EXPECT_OK(graph_check(g));
    bench_free(b);
}

/* Memory holds one version of a state: nothing may ask for another. */
TEST(compile_graph_states)
{
    static const char *const bad[] = {
        "a = scatter s i v\nb = gather s i\noutput a b\n",
        "a = scatter s i v\nb = scatter s j v\noutput a b\n",
        "a = scatter s i v\noutput a s\n",
        "b = add s 1.0\na = scatter s i v\noutput a b\n",
    };

    for (u32 i = 0; i < ARRAY_LEN(bad); i++) {
        struct bench *b = bench_new(100);
        struct text text = {arena_new(&b->arena, char, 1000), 0, 1000, false};
        text_fmt(&text, "state s f32 [4, 2]\ninput i i32 [3]\ninput j i32 [3]\n"
                        "input v f32 [3, 2]\n%s", bad[i]);
        EXPECT_EQ(bench_parse(b, text_str(&text)), E_FORMAT);
        EXPECT(str_find(str_of(b->why), STR("scattered into")) < strlen(b->why));
        bench_free(b);
    }
}

/* ---- text ---- */

/* Every operation of the text form, printed and read back, is the same graph. */
TEST(compile_parse_round_trip)
{
    static const char source[] =
        "# everything once\nsym T 7\nsym U 3\ninput x f32 [T, 6] # rows\ninput i i32 [T]\n"
        "input n i32 [T,1]\nconst c f16 [6]\nstate s bf16 [9, 6]\nweight w q4_1 [5, 6]\n"
        "input u u8 [U]\ninput one i8 []\n"
        "a1 = scatter s i x\na2 = gather a1 i\na3 = gather w i\na4 = linear x w\n"
        "a5 = linear x w c1\nc1 = slice c begin=[1] shape=[5]\n";
    static const char ops[] =
        "sym T 7\nsym U 3\ninput x f32 [T, 6]\ninput i i32 [T]\ninput n i32 [T,1]\n"
        "const c f16 [6]\n"
        "state s bf16 [9, 6]\nweight w q4_1 [5, 6]\ninput u u8 [U]\ninput one i8 []\n"
        "a1 = scatter s i x\na2 = gather a1 i\na3 = gather w i\na4 = linear x w\n"
        "c1 = slice c begin=[1] shape=[5]\na5 = linear x w c1\nb1 = add x c\nb2 = mul 2 x\n"
        "b3 = sub 1e-3 x\nb4 = div x -inf\nb5 = max x c\nb6 = min x nan\nb7 = neg x\nb8 = abs i\n"
        "b9 = exp x\nb10 = log x\nb11 = sqrt x\nb12 = rsqrt x\nb13 = recip x\nb14 = sin x\n"
        "b15 = cos x\nb16 = floor x\nb17 = round x\nb18 = cast x to=i32\nb19 = cast i to=f32\n"
        "c2 = lt x c\nc3 = le i 3\nc4 = eq i 3\nc5 = gt i 3\nc6 = ge x 0.5\nc7 = ne i 3\n"
        "c8 = and c5 c7\nc9 = or c5 c7\nc10 = xor c5 -1\nc11 = not c5\nc12 = where c2 x 0.0\n"
        "c13 = where c5 1 i\nd1 = sigmoid x\nd2 = silu x\nd3 = tanh x\nd4 = gelu x\nd5 = relu x\n"
        "d6 = square x\nd7 = clamp x -1.0 1.0\nd8 = sum x\nd9 = max x axis=-1\n"
        "d10 = min x axis=[0,1] keep=1\nd11 = mean x axis=1\nd12 = sum x axis=1 keep=1 len=n\n"
        "d13 = softmax x axis=1 len=n\nd14 = softmax x\nd15 = rms_norm x c eps=0.01\n"
        "d16 = layer_norm x\ne1 = reshape x shape=[T, 2, -1]\ne2 = permute e1 order=[2,0,1]\n"
        "e3 = transpose x\ne4 = transpose e1 axis=[0,-1]\ne5 = expand c shape=[T,U,6]\n"
        "e6 = unsqueeze x axis=1\ne7 = squeeze e6 axis=1\ne8 = pad x before=[0,2] shape=[T,9]\n"
        "e9 = flip x axis=[1]\ne10 = concat c c1 c axis=0\ne11 = fill 3 shape=[T,2]\n"
        "e12 = iota axis=1 shape=[T,U]\ne13 = matmul x e3\ne14 = matmul c c\n"
        "e15 = quant x block=3\n"
        "e16 = fill 0.1 shape=[]\nf1 = add u one\noutput a2 a3 d12 e13 last=f1\n";
    struct bench *b = bench_new(400), *again = bench_new(400);

    EXPECT_EQ(bench_parse(b, str_of(source)), E_FORMAT); /* c1 is used before its line */
    EXPECT(str_starts(str_of(b->why), STR("line 16: ")));
    bench_free(b);
    b = bench_new(400);
    if (bench_parse(b, str_of(ops)) != OK)
        test_fail(__FILE__, __LINE__, "%s", b->why);
    struct str printed = bench_print(b);
    if (bench_parse(again, printed) != OK)
        test_fail(__FILE__, __LINE__, "%s", again->why);
    EXPECT_EQ(again->graph.node_count, b->graph.node_count);
    EXPECT_STR(bench_print(again), printed);
    bench_free(b);
    bench_free(again);
}

/* What is wrong is refused with a line number and words that help. */
TEST(compile_parse_refuses)
{
    static const struct refusal {
        const char *line, *words;
    } refusals[] = {
        {"y = add x", "no operation \"add\" with 1"},
        {"y = frobnicate x", "no operation \"frobnicate\""},
        {"y = add x z", "no value \"z\""},
        {"y = add i 0.5", "ADD i32[T] f32[T] - wrong type"},
        {"y = add x v", "f32[T,6] f32[4] - shapes do not broadcast"},
        {"y = exp i", "EXP i32[T] - wrong type"},
        {"y = reshape x shape=[6,T]", "symbols as whole axes"},
        {"y = reshape x shape=[T,5]", "keep the number of elements"},
        {"y = reshape x shape=[T,-1,-1]", "-1 twice"},
        {"y = reshape x", "wants a correct shape="},
        {"y = permute x order=[0,0]", "every axis once"},
        {"y = permute x order=[0]", "wants a correct order="},
        {"y = slice x begin=[1,0] shape=[T,6]", "does not lie inside"},
        {"y = slice x begin=[0,3] shape=[T,4]", "does not lie inside"},
        {"y = pad x before=[0,-1] shape=[T,9]", "does not lie inside"},
        {"y = flip x axis=0", "can not be flipped"},
        {"y = sum x axis=2", "wants a correct axis="},
        {"y = sum x axis=-3", "wants a correct axis="},
        {"y = sum x axes=1", "does not know \"axes=\""},
        {"y = sum x axis=1 axis=0", "does not know \"axis=\""},
        {"y = softmax x axis=[0,1]", "wants a correct axis="},
        {"y = matmul x x", "needs [..., m, k] and [..., k, n]"},
        {"y = matmul x w", "matmul: needs"},
        {"y = add x w", "shapes do not broadcast"},
        {"y = neg w", "only be used by linear"},
        {"y = linear x x", "must be a weight"},
        {"y = linear v w", "needs x [..., columns]"},
        {"y = concat x v axis=1", "the other axes must be equal"},
        {"y = concat x x axis=0", "PAD f32[T,6] - an extent must"},
        {"y = gather x v", "GATHER f32[T,6] f32[4] - wrong type"},
        {"y = scatter x i x", "only a state"},
        {"y = quant x block=4", "a multiple of the block"},
        {"y = expand v shape=[5]", "only an axis of extent 1"},
        {"y = fill 1", "wants a correct shape="},
        {"y = iota axis=3 shape=[2,2]", "wants a correct axis="},
        {"y = where x x x", "wrong type"},
        {"x = neg x", "\"x\" is taken"},
        {"2x = neg x", "\"2x\" is taken or no name"},
        {"nan = neg x", "\"nan\" is taken or no name"},
        {"y = ", "no operation \"\""},
        {"y", "\"y\" is no statement"},
        {"input x f32 [4]", "exists already"},
        {"input y f64 [4]", "a source wants"},
        {"input y f32 4", "a source wants"},
        {"input y f32 [0]", "\"0\" is no extent"},
        {"input y f32 [U]", "\"U\" is no extent"},
        {"input y f32 [1,1,1,1,1,1,1]", "more than 6 axes"},
        {"input y f32 [4] extra", "unexpected \"extra\""},
        {"input y f32 [100000,100000,100000,100000]", "too many elements"},
        {"weight y q8_0 [T, 32]", "a weight is [rows, columns]"},
        {"sym T 5", "exists already"},
        {"sym Y 0", "largest value"},
        {"output z", "no value \"z\""},
        {"output x x", "a name of its own"},
        {"output w", "a name of its own"},
    };

    for (u32 i = 0; i < ARRAY_LEN(refusals); i++) {
        struct bench *b = bench_new(100);
        struct text text = {arena_new(&b->arena, char, 1000), 0, 1000, false};
        text_fmt(&text, "sym T 7\ninput x f32 [T, 6]\ninput i i32 [T]\ninput v f32 [4]\n"
                        "weight w q8_0 [5, 6]\n%s\noutput q=x\n", refusals[i].line);
        err e = bench_parse(b, text_str(&text));
        bool said = str_find(str_of(b->why), str_of(refusals[i].words)) < strlen(b->why);
        if (e == OK || !said || !str_starts(str_of(b->why), STR("line 6: ")))
            test_fail(__FILE__, __LINE__, "\"%s\" gave %s: %s", refusals[i].line, err_text(e),
                      b->why);
        bench_free(b);
    }
}

/* Tables that are full say so; nothing is written behind them. */
TEST(compile_graph_limits)
{
    struct bench *b = bench_new(20);
    struct graph *g = &b->graph;
    u32 x = source_f32(g, "x", 2, 2);
    char name[8][4];

    for (u32 i = 0; i < 40; i++)
        x = graph_unary(g, OP_EXP, x);
    EXPECT_EQ(g->status, E_LIMIT);
    EXPECT_EQ(g->node_count, 20);
    bench_free(b);
    b = bench_new(20);
    for (u32 i = 0; i < SYMS_MAX; i++) {
        struct text text = TEXT_ON(name[i]);
        text_fmt(&text, "S%u", i);
        graph_sym(&b->graph, text_str(&text), 4);
    }
    EXPECT_OK(b->graph.status);
    graph_sym(&b->graph, STR("more"), 4);
    EXPECT_EQ(b->graph.status, E_LIMIT);
    bench_free(b);
}

/* ---- rules ---- */

/* What each rule leaves of a small graph: the number of nodes, and an op that must be gone. */
TEST(compile_rewrite_rules)
{
    static const struct row {
        const char *lines;
        u32 nodes;
        const char *gone;
    } rows[] = {
        {"y = mul x 1.0", 1, "MUL"},
        {"y = add 0.0 x", 1, "ADD"},
        {"y = sub x 0.0", 1, "SUB"},
        {"y = div x 1.0", 1, "DIV"},
        {"y = sub 0.0 x", 3, NULL},
        {"y = or i 0", 1, "OR"},
        {"y = div x 8.0", 3, "DIV"},
        {"y = div x 3.0", 3, "MUL"},
        {"y = div 1.0 x", 2, "DIV"},
        {"a = mul 2.0 3.0\nb = sub a 6\ny = add x b", 1, "SUB"},
        {"a = fill 1 shape=[]\ny = where a x v", 1, "WHERE"},
        {"a = lt x 0.5\ny = where a x x", 1, "LT"},
        {"a = neg x\ny = neg a", 1, "NEG"},
        {"a = neg x\ny = abs a", 2, "NEG"},
        {"a = add x v\nb = add v x\ny = mul a b", 6, NULL}, /* one sum, squared */
        {"a = reshape x shape=[24]\ny = reshape a shape=[4,6]", 1, "RESHAPE"},
        {"a = reshape x shape=[24]\ny = reshape a shape=[2,12]", 2, NULL},
        {"a = transpose x\ny = transpose a", 1, "PERMUTE"},
        {"a = flip x axis=0\nb = flip a axis=1\ny = flip b axis=[0,1]", 1, "FLIP"},
        {"a = slice x begin=[1,1] shape=[3,4]\ny = slice a begin=[1,0] shape=[2,2]", 2, NULL},
        {"a = expand u shape=[1,6]\ny = expand a shape=[4,6]", 2, NULL},
        {"a = fill 2 shape=[4]\nb = sum a\ny = add i b", 3, "REDUCE_SUM"},
        {"a = sum u axis=1\ny = squeeze u axis=1", 2, "REDUCE_SUM"},
        {"a = sum x axis=0\ny = sum a", 5, NULL},
        {"a = sum x axis=0 keep=1\ny = sum a axis=1 keep=1", 2, NULL},
        {"a = expand u shape=[4,6]\ny = exp a", 3, NULL},
        {"a = expand u shape=[4,6]\nb = mul a 2.0\ny = exp b", 5, NULL},
        {"a = exp x\nb = log x\ny = neg x", 2, "EXP"},
    };

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench *b = bench_new(100);
        struct text text = {arena_new(&b->arena, char, 1000), 0, 1000, false};
        text_fmt(&text, "input x f32 [4, 6]\ninput v f32 [6]\ninput u f32 [1,1]\ninput i i32 [4]\n"
                        "%s\noutput y\n", rows[i].lines);
        if (bench_parse(b, text_str(&text)) != OK)
            test_fail(__FILE__, __LINE__, "%s: %s", rows[i].lines, b->why);
        EXPECT_OK(graph_rewrite(&b->graph, &(struct compile_options){}));
        EXPECT_OK(graph_check(&b->graph));
        bool gone = true;
        for (u32 k = 0; k < b->graph.node_count; k++)
            gone &= !rows[i].gone || !str_eq(str_of(op_row[b->graph.node[k].op].name),
                                             str_of(rows[i].gone));
        if (b->graph.node_count != rows[i].nodes || !gone)
            test_fail(__FILE__, __LINE__, "%s leaves %u nodes:\n%.*s", rows[i].lines,
                      b->graph.node_count, 2000, bench_print(b).ptr);
        bench_free(b);
    }
}

/* Rules for kernels cut in tiles: a row's factor leaves a product, a long sum is made of tiles. */
TEST(compile_rewrite_tiles)
{
    static const struct row {
        const char *lines;
        u32 nodes;
        enum op root, below;
    } rows[] = {
        {"a = mul x u\ny = linear a w", 6, OP_MUL, OP_LINEAR},
        {"a = mul u x\nb = mul a v\ny = linear b w", 10, OP_MUL, OP_LINEAR},
        {"a = mul v u\nb = mul a x\ny = linear b w", 10, OP_MUL, OP_LINEAR},
        {"a = mul x u\nb = mul a u\ny = linear b w", 7, OP_MUL, OP_MUL},
        {"a = mul x v\ny = linear a w", 7, OP_LINEAR, OP_MUL},
        {"a = add x u\ny = linear a w", 6, OP_LINEAR, OP_ADD},
        {"y = sum r axis=1 keep=1", 5, OP_REDUCE_SUM, OP_RESHAPE},
        {"y = max r axis=1 keep=1", 5, OP_REDUCE_MAX, OP_RESHAPE},
        {"y = sum r axis=0 keep=1", 2, OP_REDUCE_SUM, OP_INPUT},
        {"n = fill 9 shape=[4,1]\ny = sum r axis=1 keep=1 len=n", 3, OP_REDUCE_SUM, OP_INPUT},
        {"y = sum h axis=2 keep=1", 2, OP_REDUCE_SUM, OP_INPUT}, /* a head, not a row */
        {"y = sum x axis=1 keep=1", 2, OP_REDUCE_SUM, OP_INPUT}, /* too short */
    };
    const struct target target = {.tile = 8};

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench *b = bench_new(100);
        struct text text = {arena_new(&b->arena, char, 1000), 0, 1000, false};
        text_fmt(&text, "input x f32 [4, 24]\ninput u f32 [4, 1]\ninput v f32 [24]\n"
                        "weight w f32 [5, 24]\ninput r f32 [4, 64]\ninput h f32 [4, 2, 64]\n"
                        "%s\noutput y\n", rows[i].lines);
        if (bench_parse(b, text_str(&text)) != OK)
            test_fail(__FILE__, __LINE__, "%s: %s", rows[i].lines, b->why);
        EXPECT_OK(graph_rewrite(&b->graph, &(struct compile_options){.target = &target}));
        EXPECT_OK(graph_check(&b->graph));
        const struct node *root = &b->graph.node[b->graph.output[0]];
        enum op below[2] = {b->graph.node[root->src[0]].op, b->graph.node[root->src[1]].op};
        if (b->graph.node_count != rows[i].nodes || root->op != rows[i].root ||
            (below[0] != rows[i].below && below[1] != rows[i].below))
            test_fail(__FILE__, __LINE__, "%s leaves %u nodes:\n%.*s", rows[i].lines,
                      b->graph.node_count, 2000, bench_print(b).ptr);
        bench_free(b);
    }
}

static u32 weight(struct graph *graph, const char *name, u32 rows, struct packing packing)
{
    return graph_source(graph, &(struct external){.kind = OP_WEIGHT, .name = str_of(name),
                                                  .rank = 2, .shape = {dim_of(rows), dim_of(32)},
                                                  .packing = packing});
}

/* A linear on quantised weights gets 8-bit activations only when asked, and only where they fit. */
TEST(compile_rewrite_quantises)
{
    for (u32 mode = 0; mode < 4; mode++) {
        struct bench *b = bench_new(100);
        struct graph *g = &b->graph;
        u32 block = mode == 2 ? 64 : 16;
        struct packing packing = {.code_bits = mode == 3 ? 0 : 4, .block = (u8)block, .super = 1,
                                  .scale_type = DT_F16, .tile = 8};
        u32 x = source_f32(g, "x", 2, 32);
        u32 w = weight(g, "w", 5, packing), v = weight(g, "v", 7, packing);
        graph_output(g, STR("y"), graph_linear(g, x, w));
        graph_output(g, STR("z"), graph_linear(g, x, v));
        EXPECT_OK(graph_rewrite(g, &(struct compile_options){.int8_activations = mode != 1}));
        u32 quants = 0;
        for (u32 i = 0; i < g->node_count; i++)
            quants += g->node[i].op == OP_QUANT;
        EXPECT_EQ(quants, mode == 0 ? 1 : 0); /* both linears share it */
        EXPECT_EQ(g->node[g->node[g->output[0]].src[0]].op, mode == 0 ? OP_QUANT : OP_INPUT);
        bench_free(b);
    }
}
