/*
 * compile_interp_test.c: the oracle against values worked out by hand: every op once, its edges
 * (empty symbols, NaN, infinities, wrap-around, clamped and dropped indexes), states across runs,
 * storage types and packed weights. Random graphs are judged by witness/eval_numpy.py.
 */
#include "tests/oracle/oracle.h"
#include "ml/quant.h"
#include "tests/test.h"

#define ARENA_BYTES (4 * MIB)
#define VALUES_MAX 16u
#define INF __builtin_inff()
#define NAN __builtin_nanf("")

struct bench {
    struct graph graph;
    struct arena arena;
    struct binding binding[8];
    void *output[64];
    char why[200];
};

static struct bench *bench_new(const char *source)
{
    struct bench *b = pages_alloc(sizeof *b);
    struct text why = TEXT_ON(b->why);

    b->arena = arena_on("test", pages_alloc(ARENA_BYTES), ARENA_BYTES);
    EXPECT_OK(graph_init(&b->graph, &b->arena, 200));
    if (graph_parse(&b->graph, str_of(source), &why) != OK)
        test_fail(__FILE__, __LINE__, "%s: %.*s", source, (int)why.len, why.ptr);
    return b;
}

static void bench_free(struct bench *b)
{
    pages_free(b->arena.base, ARENA_BYTES);
    pages_free(b, sizeof *b);
}

static void bench_run(struct bench *b, const u32 *sym_value)
{
    EXPECT_OK(interp_run(&b->graph, b->binding, sym_value, &b->arena, b->output));
}

static void expect_values(struct bench *b, u32 output, const f32 *want, u32 count, f32 within)
{
    bool floats = b->graph.node[b->graph.output[output]].dtype == DT_F32;

    for (u32 i = 0; i < count; i++) {
        f32 have = floats ? ((f32 *)b->output[output])[i] : (f32)((i32 *)b->output[output])[i];
        bool same = have == want[i] || (have != have && want[i] != want[i]) ||
                    (have - want[i] <= within && want[i] - have <= within);
        if (!same)
            test_fail(__FILE__, __LINE__, "element %u of %.*s is %d.%06d..., expected about %d", i,
                      (int)b->graph.output_name[output].len, b->graph.output_name[output].ptr,
                      (i32)have, (i32)((have - (f32)(i32)have) * 1e6f), (i32)want[i]);
    }
}

/* Values that follow from the definition of each op. */
TEST(compile_interp_by_hand)
{
    static const struct row {
        const char *lines;
        u32 count;
        f32 want[VALUES_MAX];
    } rows[] = {
        {"i = iota axis=0 shape=[4]\ny = cast i to=f32", 4, {0, 1, 2, 3}},
        {"y = iota axis=1 shape=[2,3]", 6, {0, 1, 2, 0, 1, 2}},
        {"i = iota axis=0 shape=[4]\ny = mul i i", 4, {0, 1, 4, 9}},
        {"a = fill 2147483647 shape=[1]\nb = add a 2\ny = add b -2147483648", 1, {1}},
        {"i = iota axis=0 shape=[3]\na = sub i 1\ny = abs a", 3, {1, 0, 1}},
        {"i = iota axis=0 shape=[3]\na = sub i 1\ny = max a 0", 3, {0, 0, 1}},
        {"i = iota axis=0 shape=[4]\na = and i 2\nb = or i 4\nc = add a b\ny = xor c 1", 4,
         {5, 4, 9, 8}},
        {"x = fill 2.5 shape=[1]\ny = round x", 1, {2}},
        {"x = fill -3.5 shape=[1]\ny = round x", 1, {-4}},
        {"x = fill -2.5 shape=[1]\ny = floor x", 1, {-3}},
        {"x = fill -2.9 shape=[1]\ny = cast x to=i32", 1, {-2}},
        {"x = fill 3e9 shape=[1]\ny = cast x to=i32", 1, {-2147483648.0f}},
        {"x = fill nan shape=[1]\ny = cast x to=i32", 1, {-2147483648.0f}},
        {"x = fill 1e30 shape=[1]\ny = round x", 1, {1e30f}},
        {"x = fill 1.0 shape=[1]\ny = exp x", 1, {2.7182817f}},
        {"x = fill -200.0 shape=[1]\ny = exp x", 1, {0}},
        {"x = fill 200.0 shape=[1]\ny = exp x", 1, {INF}},
        {"x = fill 0.0 shape=[1]\ny = log x", 1, {-INF}},
        {"x = fill -1.0 shape=[1]\ny = sqrt x", 1, {NAN}},
        {"x = fill 4.0 shape=[1]\ny = rsqrt x", 1, {0.5f}},
        {"x = fill 0.0 shape=[1]\ny = recip x", 1, {INF}},
        {"x = fill nan shape=[1]\na = lt x x\nb = le x x\nc = eq x x\nd = ne x x\n"
         "y = concat a b c d axis=0", 4, {0, 0, 0, 1}},
        {"x = fill nan shape=[1]\na = max x 1.0\nb = max 1.0 x\ny = concat a b axis=0", 2,
         {1, NAN}},
        {"i = iota axis=0 shape=[4]\nc = lt i 2\ny = where c i 9", 4, {0, 1, 9, 9}},
        {"i = iota axis=0 shape=[6]\na = reshape i shape=[2,3]\ny = transpose a", 6,
         {0, 3, 1, 4, 2, 5}},
        {"i = iota axis=0 shape=[6]\na = reshape i shape=[2,3]\nb = transpose a\n"
         "y = reshape b shape=[2,3]", 6, {0, 3, 1, 4, 2, 5}},
        {"i = iota axis=0 shape=[4]\ny = flip i axis=0", 4, {3, 2, 1, 0}},
        {"i = iota axis=0 shape=[4]\na = flip i axis=0\ny = slice a begin=[1] shape=[2]", 2,
         {2, 1}},
        {"i = fill 7 shape=[2]\ny = pad i before=[1] shape=[5]", 5, {0, 7, 7, 0, 0}},
        {"i = iota axis=0 shape=[6]\na = reshape i shape=[2,3]\ny = sum a axis=0", 3, {3, 5, 7}},
        {"i = iota axis=0 shape=[6]\na = reshape i shape=[2,3]\ny = max a axis=1", 2, {2, 5}},
        {"i = iota axis=0 shape=[6]\na = reshape i shape=[2,3]\ny = min a", 1, {0}},
        {"i = iota axis=0 shape=[6]\na = reshape i shape=[2,3]\nn = iota axis=0 shape=[2,1]\n"
         "y = sum a axis=1 len=n", 2, {0, 3}},
        {"i = fill 5.0 shape=[2,3]\nn = fill -1 shape=[]\ny = max i axis=1 len=n", 2,
         {-INF, -INF}},
        {"i = fill 5 shape=[2,3]\nn = fill 0 shape=[]\ny = min i axis=1 len=n", 2,
         {2147483647.0f, 2147483647.0f}},
        {"t = iota axis=0 shape=[3,2]\ni = iota axis=0 shape=[5]\nj = sub i 1\ny = gather t j", 10,
         {0, 0, 0, 0, 1, 1, 2, 2, 2, 2}},
        {"i = iota axis=0 shape=[4]\na = reshape i shape=[2,2]\nb = cast a to=f32\n"
         "y = matmul b b", 4, {2, 3, 6, 11}},
        {"i = iota axis=0 shape=[3]\nb = cast i to=f32\ny = matmul b b", 1, {5}},
        {"x = fill 3.0 shape=[1,4]\ny = softmax x axis=1", 4, {.25f, .25f, .25f, .25f}},
        {"x = fill 1000.0 shape=[2]\ny = softmax x", 2, {.5f, .5f}},
        {"x = fill 2.0 shape=[4]\ny = rms_norm x eps=0", 4, {1, 1, 1, 1}},
        {"i = iota axis=0 shape=[2]\nx = cast i to=f32\ny = layer_norm x eps=0", 2, {-1, 1}},
        {"i = iota axis=0 shape=[4]\nx = cast i to=f32\ny = mean x", 1, {1.5f}},
        {"x = fill 0.5 shape=[1]\ny = tanh x", 1, {0.46211716f}},
        {"x = fill -50.0 shape=[1]\ny = tanh x", 1, {-1}},
        {"x = fill 1.0 shape=[1]\ny = gelu x", 1, {0.8411920f}},
        {"x = fill 1.0 shape=[1]\ny = silu x", 1, {0.7310586f}},
        {"x = fill 3.0 shape=[1]\na = fill 32512.0 shape=[1]\nb = concat x a axis=0\n"
         "y = quant b block=2", 2, {4, 32512}}, /* 1.5 rounds to the even code 2 */
        {"x = fill 0.0 shape=[4]\ny = quant x block=4", 4, {0, 0, 0, 0}},
    };

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        char source[400];
        struct text text = TEXT_ON(source);
        text_fmt(&text, "%s\noutput y\n%c", rows[i].lines, 0);
        struct bench *b = bench_new(source);
        bench_run(b, NULL);
        const struct node *node = &b->graph.node[b->graph.output[0]];
        EXPECT_EQ(shape_elements(&b->graph, node->shape, node->rank, NULL), rows[i].count);
        expect_values(b, 0, rows[i].want, rows[i].count, 2e-7f);
        bench_free(b);
    }
}

/* Each storage type is widened as it says, and the sign of small integers survives. */
TEST(compile_interp_storage)
{
    struct bench *b = bench_new("input a f16 [2]\ninput c bf16 [2]\ninput d i8 [2]\n"
                                "input e u8 [2]\nf = neg a\ng = neg c\nh = neg d\ni = neg e\n"
                                "output f g h i\n");
    const u16 halves[] = {0x3c00, 0xc000}, brains[] = {0x3f80, 0xc000};

    b->binding[0].data = (void *)halves;
    b->binding[1].data = (void *)brains;
    b->binding[2].data = (i8[]){-128, 5};
    b->binding[3].data = (u8[]){200, 5};
    bench_run(b, NULL);
    expect_values(b, 0, (f32[]){-1, 2}, 2, 0);
    expect_values(b, 1, (f32[]){-1, 2}, 2, 0);
    expect_values(b, 2, (f32[]){128, -5}, 2, 0);
    expect_values(b, 3, (f32[]){-200, -5}, 2, 0);
    bench_free(b);
}

/* A state keeps what earlier runs wrote; indexes outside write nothing. */
TEST(compile_interp_state)
{
    for (u32 half = 0; half < 2; half++) {
        struct bench *b = bench_new(half ? "state s f16 [3]\ninput i i32 [2]\ninput v f32 [2]\n"
                                           "a = scatter s i v\ny = sum a\noutput a y\n"
                                         : "state s f32 [3]\ninput i i32 [2]\ninput v f32 [2]\n"
                                           "a = scatter s i v\ny = sum a\noutput a y\n");
        u32 memory[4] = {};
        b->binding[0].data = memory;
        b->binding[1].data = (i32[]){2, -1};
        b->binding[2].data = (f32[]){1.5f, 9};
        bench_run(b, NULL);
        expect_values(b, 0, (f32[]){0, 0, 1.5f}, 3, 0);
        b->binding[1].data = (i32[]){0, 3};
        bench_run(b, NULL);
        expect_values(b, 0, (f32[]){1.5f, 0, 1.5f}, 3, 0);
        expect_values(b, 1, (f32[]){3}, 1, 0);
        EXPECT_EQ(memory[half ? 2 : 3], 0);
        bench_free(b);
    }
}

/* A symbol may be 0: sums are empty, nothing is read. */
TEST(compile_interp_symbols)
{
    struct bench *b = bench_new("sym T 4\ninput x f32 [T, 2]\ny = sum x axis=0\nz = flip x axis=1\n"
                                "m = max x axis=0\ni = iota axis=0 shape=[T]\ng = gather x i\n"
                                "s = softmax x axis=0\noutput y z m g s\n");

    b->binding[0].data = (f32[]){1, 2, 3, 4, 5, 6};
    bench_run(b, (u32[]){3});
    expect_values(b, 0, (f32[]){9, 12}, 2, 0);
    expect_values(b, 1, (f32[]){2, 1, 4, 3, 6, 5}, 6, 0);
    expect_values(b, 3, (f32[]){1, 2, 3, 4, 5, 6}, 6, 0);
    b->binding[0].data = NULL;
    bench_run(b, (u32[]){0});
    expect_values(b, 0, (f32[]){0, 0}, 2, 0);
    expect_values(b, 2, (f32[]){-INF, -INF}, 2, 0);
    bench_free(b);
}

/* A full arena is an answer, not a crash, wherever it happens. */
TEST(compile_interp_full)
{
    struct bench *b = bench_new("a = iota axis=0 shape=[64,8]\nb = cast a to=f32\nc = exp b\n"
                                "d = sum c axis=1 keep=1\ne = div c d\nf = transpose e\n"
                                "g = reshape f shape=[64,8]\nh = matmul g f\ni = gather h a\n"
                                "j = quant i block=8\nk = pad j before=[0,0,1] shape=[64,8,66]\n"
                                "output k\n");
    usize start = arena_mark(&b->arena), refused = 0;

    for (usize room = 0; room < 2 * MIB; room += 4 * KIB + 64) {
        arena_reset(&b->arena, start);
        b->arena.cap = start + room;
        err e = interp_run(&b->graph, b->binding, NULL, &b->arena, b->output);
        EXPECT(e == OK || e == E_NOMEM);
        refused += e != OK;
    }
    EXPECT(refused > 50 && refused < 500);
    b->arena.cap = ARENA_BYTES;
    bench_free(b);
}

/* ---- packed weights ---- */

static void put_bits(u8 *dword, u32 at, u32 bits, u32 value)
{
    u32 word;

    memcpy(&word, dword, 4);
    word |= (value & ((1u << bits) - 1)) << at;
    memcpy(dword, &word, 4);
}

struct bits {
    u32 count, shift; /* which bits of a code the plane holds */
};

/* Writes one row of codes into a code plane as compile.h words it: "dword w of lane r holds codes
 * of columns 4*g+j in bits 8*j + b*(g mod 8/b), w = g / (8/b)". Returns the plane's bytes. */
static u32 put_plane(u8 *plane, const struct packing *p, struct bits part, const u8 *codes,
                     u32 lane)
{
    u32 bits = part.count, per_dword = 8 / bits, dwords = 0;

    for (u32 column = 0; column < p->block; column++) {
        u32 g = column / 4, j = column % 4, w = g / per_dword;
        put_bits(plane + 4 * (w * p->tile + lane), 8 * j + bits * (g % per_dword), bits,
                 (u32)codes[column] >> part.shift);
        dwords = w + 1;
    }
    return 4 * dwords * p->tile;
}

/* Codes of each width, super blocks, minima and floats come back as scale * (code - zero) + min. */
TEST(compile_packing_layouts)
{
    static const struct packing layouts[] = {
        {.code_bits = 4, .zero = 8, .scale_type = DT_F16, .block = 32, .super = 1, .tile = 16},
        {.code_bits = 4, .has_min = true, .scale_type = DT_F16, .block = 32, .super = 1, .tile = 8},
        {.code_bits = 5, .zero = 16, .scale_type = DT_F32, .block = 32, .super = 1, .tile = 8},
        {.code_bits = 8, .zero = 128, .scale_type = DT_F16, .block = 32, .super = 1, .tile = 16},
        {.code_bits = 8, .zero = 128, .scale_type = DT_F16, .block = 32, .super = 1, .tile = 8},
        {.code_bits = 5, .has_min = true, .scale_type = DT_U8, .block = 32, .super = 8, .tile = 8},
        {.code_bits = 6, .zero = 32, .scale_type = DT_I8, .block = 16, .super = 16, .tile = 16},
    };
    static u8 bytes[1 * MIB];

    for (u32 i = 0; i < ARRAY_LEN(layouts); i++) {
        const struct packing *p = &layouts[i];
        u32 low = p->code_bits == 8 ? 8 : 4, high = p->code_bits - low, rows = p->tile + 3u;
        u32 columns = 2u * p->block * p->super, at = 0;
        f32 want[19][512], got[512];
        u8 code[32];
        memset(bytes, 0, sizeof bytes);
        for (u32 tile = 0; tile < 2; tile++)
            for (u32 block = 0, super = 0; block < columns / p->block; block++) {
                if (p->super > 1 && block % p->super == 0) {
                    super = at;
                    at += 4u * p->tile;
                }
                u32 start = at, planes = 0, step = dtype_bytes((enum dtype)p->scale_type);
                for (u32 lane = 0; lane < p->tile; lane++) {
                    u32 row = tile * p->tile + lane;
                    u16 scale = f32_to_f16(0.25f * (f32)(1 + test_random_below(7)));
                    u16 min = f32_to_f16(-0.5f * (f32)test_random_below(7));
                    u8 scale_code = (u8)(1 + test_random_below(63)), min_code = (u8)(lane + 3);
                    f32 step_value = f16_to_f32(scale), min_value = f16_to_f32(min);
                    for (u32 k = 0; k < p->block; k++)
                        code[k] = (u8)test_random_below(1u << p->code_bits);
                    planes = put_plane(bytes + start, p, (struct bits){low, 0}, code, lane);
                    if (high)
                        planes += put_plane(bytes + start + planes, p, (struct bits){high, low},
                                            code, lane);
                    u8 *to = bytes + start + planes + lane * step, *then = to + p->tile * step;
                    if (p->super > 1) {
                        if (block % p->super == 0) {
                            memcpy(bytes + super + 2 * lane, &scale, 2);
                            memcpy(bytes + super + 2 * (p->tile + lane), &min, 2);
                        }
                        memcpy(&scale, bytes + super + 2 * lane, 2);
                        memcpy(&min, bytes + super + 2 * (p->tile + lane), 2);
                        *to = scale_code;
                        step_value = f16_to_f32(scale) * (f32)scale_code;
                        if (p->has_min)
                            *then = min_code;
                        min_value = f16_to_f32(min) * (f32)min_code;
                    } else if (p->scale_type == DT_F16) {
                        memcpy(to, &scale, 2);
                        if (p->has_min)
                            memcpy(then, &min, 2);
                    } else {
                        memcpy(to, &step_value, 4);
                    }
                    for (u32 k = 0; row < rows && k < p->block; k++) {
                        i32 c = code[k] - p->zero;
                        want[row][block * p->block + k] =
                            step_value * (f32)c + (p->has_min ? min_value : 0);
                    }
                }
                at = start + planes + p->tile * step * (p->has_min ? 2 : 1);
            }
        EXPECT_EQ(packing_bytes(p, rows, columns), at);
        for (u32 row = 0; row < rows; row++) {
            packing_row(p, bytes, columns, row, got);
            for (u32 k = 0; k < columns; k++)
                if (got[k] != want[row][k])
                    test_fail(__FILE__, __LINE__, "layout %u row %u column %u", i, row, k);
        }
    }
}
