/*
 * compile_rdna_test.c: random LIR programs, compiled for gfx1100 and executed by the simulated
 * shader engines in strict mode, against the direct interpreter, bit for bit; and that a wrong
 * opcode would be noticed.
 */
#include <stdio.h>
#include <stdlib.h>

#include "sim/space.h"
#include "tests/compile_lir_random.h"
#include "tests/oracle/lir_eval.h"
#include "tests/oracle/listing.h"
#include "tests/test.h"

#define CODE_BYTES  (512 * KIB)
#define ARENA_BYTES (128 * MIB)
#define GROUP_BYTES (16 * KIB)
#define LDS_GRANULE 512u
#define ITEM        7u
#define STEPS       (1ull << 24)

struct bench {
    struct space space;
    struct program_maker *maker;
    struct space_region *code, *input[ARGS], *args;
    u8 *expected; /* of the last argument */
    struct arena arena;
    struct launch_resources launch;
    usize len;
};

/* ---- memory ---- */

static void fill(struct bench *b)
{
    for (u32 i = 0; i < INPUT_BYTES / 4; i++) {
        f32 value = i % 8 ? test_random_f32(-4, 4) : (f32)(i / 8 % 9) - 4;
        memcpy(b->input[ARG_F32]->host + i * 4, &value, 4);
        u32 word = (u32)test_random() >> i % 32;
        memcpy(b->input[ARG_I32]->host + i * 4, &word, 4);
    }
    for (u32 i = 0; i < INPUT_BYTES / 2; i++) {
        union {
            f32 f;
            u32 u;
        } bits = {.f = test_random_f32(-4, 4) * (i % 8 ? 1.0f : 1e-5f)};
        lir_eval_store(DT_F16, b->input[ARG_F16]->host + i * 2, bits.u);
        lir_eval_store(DT_BF16, b->input[ARG_BF16]->host + i * 2, bits.u);
    }
    for (u32 i = 0; i < INPUT_BYTES; i++)
        b->input[ARG_BYTES]->host[i] = (u8)(test_random_below(255) - 127);
}

static struct bench *bench_new(u64 seed)
{
    static const char *const names[ARGS] = {"f32", "i32", "f16", "bf16", "bytes", "out"};
    struct bench *b = pages_alloc(sizeof(*b));

    EXPECT(b);
    *b = (struct bench){.space = {.seed = seed}};
    b->maker = pages_alloc(sizeof(*b->maker));
    b->expected = pages_alloc(OUTPUT_BYTES);
    b->arena = arena_on("test", pages_alloc(ARENA_BYTES), ARENA_BYTES);
    EXPECT(b->maker && b->expected && b->arena.base);
    b->code = space_add(&b->space, "code", CODE_BYTES, false, true);
    b->args = space_add(&b->space, "args", ARGS * 8, false, true);
    for (u32 i = 0; i < ARGS; i++) {
        b->input[i] = space_add(&b->space, names[i], i == ARG_OUT ? OUTPUT_BYTES : INPUT_BYTES,
                                i == ARG_OUT, true);
        memcpy(b->args->host + i * 8, &b->input[i]->va, 8);
    }
    fill(b);
    return b;
}

static void bench_free(struct bench *b)
{
    for (u32 i = 0; i < b->space.count; i++) {
        free(b->space.region[i].host);
        free(b->space.region[i].known);
    }
    pages_free(b->maker, sizeof(*b->maker));
    pages_free(b->expected, OUTPUT_BYTES);
    pages_free(b->arena.base, ARENA_BYTES);
    pages_free(b, sizeof(*b));
}

/* ---- one program ---- */

static void make_program(struct bench *b, u32 length)
{
    char why[160];
    struct text reason = TEXT_ON(why);

    arena_reset(&b->arena, 0);
    random_program(b->maker, 32, length, &b->arena);
    EXPECT(b->maker->out_bytes <= OUTPUT_BYTES);
    if (lir_check(&b->maker->lir, &reason) != OK)
        test_fail(__FILE__, __LINE__, "%.*s", (int)reason.len, reason.ptr);
}

static err compile_program(struct bench *b)
{
    struct code_out out = {.bytes = b->code->host, .cap = CODE_BYTES};
    err e = rdna_emit(&b->maker->lir, &b->arena, &out, &b->launch);

    b->len = out.len;
    return e;
}

static void interpret(struct bench *b)
{
    u64 args[ARGS];
    char why[160];
    struct text reason = TEXT_ON(why);
    struct lir_group group = {.lir = &b->maker->lir,
                              .args = args,
                              .item = ITEM,
                              .waves = 1,
                              .group_bytes = GROUP_BYTES,
                              .shadow = lir_shadow_open()};

    for (u32 i = 0; i < ARGS; i++)
        args[i] = (u64)(i == ARG_OUT ? b->expected : b->input[i]->host);
    memset(b->expected, 0, OUTPUT_BYTES);
    if (lir_eval_group(&group, &reason) != OK)
        test_fail(__FILE__, __LINE__, "%.*s", (int)reason.len, reason.ptr);
    lir_shadow_close(group.shadow);
}

/* The finding's name, NULL: none. */
static const char *execute(struct bench *b, u64 seed, char text[512])
{
    struct compute_memory memory = space_memory(&b->space);
    struct compute *compute =
        compute_create(&memory, &(struct compute_options){.seed = seed, .wgps = 4, .threads = 1});
    struct compute_dispatch dispatch = {.code = b->code->va,
                                        .rsrc1 = b->launch.rsrc[0],
                                        .rsrc2 = b->launch.rsrc[1] | GROUP_BYTES / LDS_GRANULE
                                                                         << 15,
                                        .rsrc3 = b->launch.rsrc[2],
                                        .groups = {1, 1, 1},
                                        .first = {ITEM, 0, 0},
                                        .group_size = {32, 1, 1},
                                        .user_data = {(u32)b->args->va, (u32)(b->args->va >> 32)}};
    const char *name = NULL;

    memset(b->input[ARG_OUT]->host, 0, OUTPUT_BYTES);
    EXPECT(compute && compute_start(compute, &dispatch) == OK);
    enum compute_state state = compute_step(compute, STEPS);
    if (state == COMPUTE_FAILED) {
        name = compute_failure(compute)->name;
        snprintf(text, 512, "%s at %llx", compute_failure(compute)->text,
                 (unsigned long long)(compute_failure(compute)->pc - b->code->va));
    } else if (state != COMPUTE_DONE) {
        name = "time";
    }
    compute_destroy(compute);
    return name;
}

/* Offset of the first byte that differs from the interpreter's, OUTPUT_BYTES when none does. */
static u32 first_difference(struct bench *b)
{
    u32 at = 0;

    program_settle_nans(b->maker, b->expected);
    program_settle_nans(b->maker, b->input[ARG_OUT]->host);
    while (at < OUTPUT_BYTES && b->expected[at] == b->input[ARG_OUT]->host[at])
        at++;
    return at;
}

/* Guards selection, register allocation, waits and encoding together. */
TEST(compile_rdna_random_programs)
{
    struct bench *b = bench_new(1);
    char text[512] = "";
    u32 compiled = 0;

    for (u32 i = 0; i < 150; i++) {
        make_program(b, i % 8 ? 4 + test_random_below(60) : 300);
        err e = compile_program(b);
        EXPECT(e == OK || e == E_LIMIT); /* more values than registers */
        if (e != OK)
            continue;
        compiled++;
        interpret(b);
        const char *found = execute(b, i, text);
        if (found)
            test_fail(__FILE__, __LINE__, "program %u: %s: %s", i, found, text);
        if (first_difference(b) != OUTPUT_BYTES)
            test_fail(__FILE__, __LINE__, "program %u differs at byte %u", i, first_difference(b));
    }
    EXPECT(compiled > 120);
    bench_free(b);
}

/* Guards the guard: an addition that subtracts must be seen. */
TEST(compile_rdna_wrong_opcode_is_noticed)
{
    struct bench *b = bench_new(2);
    char text[512];
    u32 flipped = 0;

    for (u32 i = 0; i < 400 && flipped < 3; i++) {
        make_program(b, 60);
        if (compile_program(b) != OK)
            continue;
        interpret(b);
        EXPECT(!execute(b, i, text) && first_difference(b) == OUTPUT_BYTES);
        for (usize at = 0; at + 4 <= b->len; at += 4) {
            u32 word, other;
            memcpy(&word, b->code->host + at, 4);
            if (word >> 25 != 3) /* v_add_f32, if it is no literal */
                continue;
            other = word + (1u << 25);
            memcpy(b->code->host + at, &other, 4);
            flipped += execute(b, i, text) || first_difference(b) != OUTPUT_BYTES;
            memcpy(b->code->host + at, &word, 4);
        }
    }
    EXPECT(flipped >= 3);
    bench_free(b);
}
