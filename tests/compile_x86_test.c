/*
 * compile_x86_test.c: random LIR programs, compiled and executed on this machine's CPU for every
 * target that it supports, against the direct interpreter, bit for bit; what must happen when
 * memory is short; and that a wrong opcode would be noticed.
 */
#include "tests/oracle/lir_eval.h"
#include "tests/compile_lir_random.h"
#include "tests/oracle/listing.h"
#include "tests/test.h"

#define CODE_BYTES  (256 * KIB)
#define ARENA_BYTES (32 * MIB)

static const struct target targets[] = {
    {.isa = ISA_AVX2, .lanes = 8, .vector_regs = 16, .cores = 1},
    {.isa = ISA_AVX2, .lanes = 8, .vector_regs = 16, .vnni = true, .cores = 1},
    {.isa = ISA_AVX2_WORDS, .lanes = 8, .vector_regs = 16, .cores = 1},
    {.isa = ISA_AVX512, .lanes = 16, .vector_regs = 32, .cores = 1},
    {.isa = ISA_AVX512, .lanes = 16, .vector_regs = 32, .vnni = true, .cores = 1},
};

/* ---- a place to compile and run: freed by the runner's end of the process when a test fails ----
 */

struct memory_image {
    f32 f32s[INPUT_BYTES / 4];
    u32 i32s[INPUT_BYTES / 4];
    u16 f16s[INPUT_BYTES / 2], bf16s[INPUT_BYTES / 2];
    i8 bytes[INPUT_BYTES];
    u8 out[2][2 * OUTPUT_BYTES]; /* the interpreter's and the machine's; out, then scratch */
};

struct bench {
    struct target target;
    struct program_maker *maker;
    struct memory_image *image;
    struct arena arena;
    u8 *bytes;
    usize len;
};

static bool machine_runs(struct target target)
{
    const struct cpu_features *cpu = cpu_features();

    return target.isa != ISA_AVX512 ? cpu->avx2 && (!target.vnni || cpu->avx_vnni)
                                    : cpu->avx512 && (!target.vnni || cpu->avx512_vnni);
}

static struct bench bench_new(struct target target)
{
    struct bench bench = {.target = target};

    bench.maker = pages_alloc(sizeof(*bench.maker));
    bench.image = pages_alloc(sizeof(*bench.image));
    bench.bytes = pages_alloc(CODE_BYTES);
    bench.arena = arena_on("test", pages_alloc(ARENA_BYTES), ARENA_BYTES);
    EXPECT(bench.maker && bench.image && bench.bytes && bench.arena.base);
    return bench;
}

static void bench_free(struct bench *bench)
{
    pages_free(bench->maker, sizeof(*bench->maker));
    pages_free(bench->image, sizeof(*bench->image));
    pages_free(bench->bytes, CODE_BYTES);
    pages_free(bench->arena.base, ARENA_BYTES);
}

static void fill(struct memory_image *image)
{
    for (u32 i = 0; i < INPUT_BYTES / 4; i++) {
        image->f32s[i] = i % 8 ? test_random_f32(-4, 4) : (f32)(i / 8 % 9) - 4;
        image->i32s[i] = (u32)test_random() >> i % 32;
    }
    for (u32 i = 0; i < INPUT_BYTES / 2; i++) {
        union {
            f32 f;
            u32 u;
        } bits = {.f = test_random_f32(-4, 4) * (i % 8 ? 1.0f : 1e-5f)};
        lir_eval_store(DT_F16, &image->f16s[i], bits.u);
        lir_eval_store(DT_BF16, &image->bf16s[i], bits.u);
    }
    for (u32 i = 0; i < INPUT_BYTES; i++)
        image->bytes[i] = (i8)((i32)test_random_below(255) - 127);
}

static void make_program(struct bench *bench, u32 length)
{
    char why[160];
    struct text reason = TEXT_ON(why);

    arena_reset(&bench->arena, 0);
    random_program(bench->maker, bench->target.lanes, length, &bench->arena);
    EXPECT(bench->maker->out_bytes <= OUTPUT_BYTES);
    if (lir_check(&bench->maker->lir, &reason) != OK)
        test_fail(__FILE__, __LINE__, "%.*s", (int)reason.len, reason.ptr);
}

static void compile_program(struct bench *bench, struct text *listing)
{
    struct code_out out = {
        .bytes = bench->bytes, .cap = CODE_BYTES, .look = x86_look, .listing = listing};

    EXPECT_OK(x86_emit(&bench->maker->lir, &bench->target, &bench->arena, &out));
    bench->len = out.len;
}

/* ---- running ---- */

static void run_code(const struct bench *bench, u64 *args, u8 *scratch)
{
    void *code = code_alloc(bench->len);

    EXPECT(code != NULL);
    memcpy(code, bench->bytes, bench->len);
    EXPECT_OK(code_seal(code, bench->len));
    ((kernel_entry)code)(args, 7, 1000, scratch);
    pages_free(code, bench->len);
}

/* Offset of the first byte that differs from the interpreter's, the size when none does. */
static u32 first_difference(struct bench *bench)
{
    struct memory_image *image = bench->image;
    u32 at = 0, bytes = sizeof(image->out[0]);

    memset(image->out, 0, sizeof(image->out));
    for (u32 side = 0; side < 2; side++) {
        u64 args[ARGS] = {(u64)image->f32s,  (u64)image->i32s,  (u64)image->f16s,
                          (u64)image->bf16s, (u64)image->bytes, (u64)image->out[side]};
        if (side)
            run_code(bench, args, image->out[side] + OUTPUT_BYTES);
        else
            lir_eval(&bench->maker->lir, args, 7, 1000, image->out[side] + OUTPUT_BYTES);
        program_settle_nans(bench->maker, image->out[side]);
    }
    while (at < bytes && image->out[0][at] == image->out[1][at])
        at++;
    return at;
}

static bool same(struct bench *bench)
{
    return first_difference(bench) == sizeof(bench->image->out[0]);
}

static void run_random(struct target target, u32 programs)
{
    if (!machine_runs(target))
        return;
    struct bench bench = bench_new(target);

    fill(bench.image);
    for (u32 i = 0; i < programs; i++) {
        make_program(&bench, i % 8 ? 4 + test_random_below(60) : 700);
        compile_program(&bench, NULL);
        if (!same(&bench))
            test_fail(__FILE__, __LINE__, "program %u for isa %u, vnni %u, differs at byte %u", i,
                      target.isa, target.vnni, first_difference(&bench));
    }
    bench_free(&bench);
}

/* Guards selection, register allocation, spilling and encoding together. */
TEST(compile_x86_random_programs)
{
    for (u32 i = 0; i < ARRAY_LEN(targets); i++)
        run_random(targets[i], 150);
}

/* ---- one wrong bit ---- */

/* Guards the guard: the execution test must see an addition that subtracts. */
TEST(compile_x86_wrong_opcode_is_noticed)
{
    struct bench bench = bench_new(targets[0]);
    const u8 addition[] = {0xc5, 0xfc, 0x58}; /* vaddps ymm, ymm0, .. */
    u32 flipped = 0;

    fill(bench.image);
    for (u32 i = 0; i < 2000 && flipped < 3; i++) { /* additions that matter are rare */
        make_program(&bench, 60);
        compile_program(&bench, NULL);
        EXPECT(same(&bench));
        for (usize at = 0; at + 3 < bench.len; at++) {
            if ((bench.bytes[at] & 0xff) != addition[0] || bench.bytes[at + 2] != addition[2])
                continue;
            bench.bytes[at + 2] = 0x5c; /* vsubps */
            flipped += !same(&bench);
            bench.bytes[at + 2] = 0x58;
        }
    }
    EXPECT(flipped >= 3);
    bench_free(&bench);
}

/* ---- more values than registers ---- */

/* Guards spilling: that it happens at all, and that the frame is given back. */
TEST(compile_x86_spills)
{
    struct bench bench = bench_new(targets[0]);
    struct text listing = {.ptr = pages_alloc(MIB), .cap = MIB};

    fill(bench.image);
    make_program(&bench, 600);
    compile_program(&bench, &listing);
    EXPECT(!listing.truncated);
    struct str text = text_str(&listing);
    EXPECT(str_find(text, STR("ymmword ptr [rsp + 64]")) < text.len);
    EXPECT(str_find(text, STR("and rsp, -64")) < text.len);
    EXPECT(str_find(text, STR("qword ptr [rsp")) < text.len);
    EXPECT(same(&bench));
    pages_free(listing.ptr, MIB);
    bench_free(&bench);
}

/* ---- short memory ---- */

/* Guards the bounds of the code buffer: every size that is too small is refused, none overrun. */
TEST(compile_x86_code_buffer_too_small)
{
    struct bench bench = bench_new(targets[3]);

    make_program(&bench, 30);
    compile_program(&bench, NULL);
    usize len = bench.len, mark = arena_mark(&bench.arena);
    for (usize cap = 0; cap < len; cap += 7) {
        struct code_out out = {.bytes = bench.bytes, .cap = cap};
        memset(bench.bytes, 0xa5, len + 1);
        arena_reset(&bench.arena, mark);
        EXPECT_EQ(x86_emit(&bench.maker->lir, &bench.target, &bench.arena, &out), E_LIMIT);
        EXPECT(out.len <= cap && bench.bytes[cap] == 0xa5);
    }
    bench_free(&bench);
}

/* Guards against a crash when the arena runs out anywhere. */
TEST(compile_x86_arena_too_small)
{
    struct bench bench = bench_new(targets[3]);
    struct code_out out = {.bytes = bench.bytes, .cap = CODE_BYTES};

    make_program(&bench, 30);
    compile_program(&bench, NULL);
    usize used = bench.arena.used;
    for (usize cap = 0; cap < used; cap += used / 97) {
        struct arena small = arena_on("small", bench.arena.base + used, cap);
        err e = x86_emit(&bench.maker->lir, &bench.target, &small, &out);
        EXPECT(e == OK || e == E_NOMEM || e == E_LIMIT);
    }
    bench_free(&bench);
}
