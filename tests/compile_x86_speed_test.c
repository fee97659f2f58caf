/*
 * compile_x86_speed_test.c: the inner loop that decides decoding speed, written by hand in LIR: a
 * 4-bit matrix with scale and minimum per block, rows interleaved as `struct packing` says, times a
 * vector of 8-bit codes. Checked against plain C, then timed from DRAM and from the L2 cache. The
 * numbers are printed, not judged: the machine is shared.
 */
#include <stdio.h>

#include "tests/oracle/lir_eval.h"
#include "tests/oracle/listing.h"
#include "tests/test.h"

#define BLOCK       32u
#define BLOCKS      32u         /* columns / BLOCK */
#define PLANES      4u          /* BLOCK codes in 8 nibbles per dword */
#define ACT_BYTES   (BLOCK + 8) /* codes, f32 scale, f32 sum */
#define BIG_BYTES   (64 * MIB)
#define SMALL_BYTES (512 * KIB)
#define CODE_BYTES  (64 * KIB)

struct matvec {
    struct lir lir;
    u32 lanes;
    u16 weights, act, zero, nibble, sum;
};

static u32 block_bytes(u32 lanes)
{
    return PLANES * 4 * lanes + 2 * 2 * lanes;
}

/* ---- the kernel ---- */

static u16 lanes_op(struct matvec *m, enum lir_op op, u16 a, u16 b, u16 c)
{
    struct lir_instr *in = lir_emit(&m->lir, op);

    in->lanes = (u8)m->lanes;
    in->a = a;
    in->b = b;
    in->c = c;
    in->imm = op == LIR_DOT4 ? 15 : op == LIR_ISHRI ? 4 : 0;
    return in->dst = lir_vreg(&m->lir, LIR_VECTOR);
}

static u16 from_memory(struct matvec *m, enum lir_op op, enum dtype type, u16 base, u32 disp)
{
    struct lir_instr *in = lir_emit(&m->lir, op);

    in->lanes = (u8)m->lanes;
    in->mem_type = (u8)type;
    in->mem = (struct lir_mem){.base = base, .index = LIR_NONE, .scale = 1, .disp = (i32)disp};
    return in->dst = lir_vreg(&m->lir, LIR_VECTOR);
}

static u16 constant(struct matvec *m, i64 imm)
{
    u16 v = lanes_op(m, LIR_V_CONST, LIR_NONE, LIR_NONE, LIR_NONE);

    m->lir.instr[m->lir.count - 1].imm = imm;
    return v;
}

static u16 scalar_op(struct matvec *m, enum lir_op op, u16 a, u16 b, i64 imm)
{
    struct lir_instr *in = lir_emit(&m->lir, op);

    in->a = a;
    in->b = b;
    in->imm = imm;
    return in->dst = lir_vreg(&m->lir, LIR_SCALAR);
}

static void advance(struct matvec *m, u16 pointer, i64 bytes)
{
    scalar_op(m, LIR_S_ADDI, pointer, LIR_NONE, bytes);
    m->lir.instr[m->lir.count - 1].dst = pointer;
}

static void accumulate(struct matvec *m, u16 a, u16 b)
{
    lanes_op(m, LIR_FMA, a, b, m->sum);
    m->lir.instr[m->lir.count - 1].dst = m->sum;
}

static void one_block(struct matvec *m)
{
    u16 dot = m->zero;

    for (u32 i = 0; i < PLANES; i++) {
        u16 codes = from_memory(m, LIR_V_LOAD, DT_I32, m->weights, i * 4 * m->lanes);
        u16 low = lanes_op(m, LIR_IAND, codes, m->nibble, LIR_NONE);
        u16 high = lanes_op(m, LIR_IAND, lanes_op(m, LIR_ISHRI, codes, LIR_NONE, LIR_NONE),
                            m->nibble, LIR_NONE);
        dot = lanes_op(m, LIR_DOT4, low, from_memory(m, LIR_V_BCAST, DT_I32, m->act, 8 * i), dot);
        dot = lanes_op(m, LIR_DOT4, high, from_memory(m, LIR_V_BCAST, DT_I32, m->act, 8 * i + 4),
                       dot);
    }
    u16 scale = from_memory(m, LIR_V_LOAD, DT_F16, m->weights, PLANES * 4 * m->lanes);
    u16 min = from_memory(m, LIR_V_LOAD, DT_F16, m->weights, PLANES * 4 * m->lanes + 2 * m->lanes);
    u16 product = lanes_op(m, LIR_FMUL, lanes_op(m, LIR_CVT_I2F, dot, LIR_NONE, LIR_NONE),
                           from_memory(m, LIR_V_BCAST, DT_F32, m->act, BLOCK), LIR_NONE);
    accumulate(m, product, scale);
    accumulate(m, min, from_memory(m, LIR_V_BCAST, DT_F32, m->act, BLOCK + 4));
}

/* args: weights, activations, result. Items are row tiles. */
static void make_matvec(struct matvec *m, u32 lanes, struct arena *arena)
{
    EXPECT_OK(lir_init(&m->lir, arena));
    m->lanes = lanes;
    m->nibble = constant(m, 0x0f0f0f0f);
    m->zero = constant(m, 0);
    m->sum = lir_vreg(&m->lir, LIR_VECTOR);
    u16 all = scalar_op(m, LIR_S_ARG, LIR_NONE, LIR_NONE, 0),
        act = scalar_op(m, LIR_S_ARG, LIR_NONE, LIR_NONE, 1);
    u16 out = scalar_op(m, LIR_S_ARG, LIR_NONE, LIR_NONE, 2);
    u16 item = scalar_op(m, LIR_LOOP, LIR_BEGIN, LIR_END, 1);
    u16 offset = scalar_op(m, LIR_S_MULI, item, LIR_NONE, BLOCKS * block_bytes(lanes));
    m->weights = scalar_op(m, LIR_S_ADD, all, offset, 0);
    m->act = scalar_op(m, LIR_S_MOV, act, LIR_NONE, 0);
    constant(m, 0);
    m->lir.instr[m->lir.count - 1].dst = m->sum;
    u16 none = scalar_op(m, LIR_S_CONST, LIR_NONE, LIR_NONE, 0);
    u16 blocks = scalar_op(m, LIR_S_CONST, LIR_NONE, LIR_NONE, BLOCKS);
    scalar_op(m, LIR_LOOP, none, blocks, 1);
    one_block(m);
    advance(m, m->weights, block_bytes(lanes));
    advance(m, m->act, ACT_BYTES);
    (void)lir_emit(&m->lir, LIR_ENDLOOP);
    struct lir_instr *store = lir_emit(&m->lir, LIR_V_STORE);
    store->lanes = (u8)lanes;
    store->a = m->sum;
    store->mem_type = DT_F32;
    u16 row = scalar_op(m, LIR_S_MULI, item, LIR_NONE, 4 * lanes);
    store = &m->lir.instr[m->lir.count - 2]; /* the address is computed before */
    struct lir_instr moved = *store;
    m->lir.instr[m->lir.count - 2] = m->lir.instr[m->lir.count - 1];
    moved.mem = (struct lir_mem){.base = out, .index = row, .scale = 1};
    m->lir.instr[m->lir.count - 1] = moved;
    (void)lir_emit(&m->lir, LIR_ENDLOOP);
    EXPECT_OK(lir_check(&m->lir, NULL));
}

/* ---- plain C ---- */

static f32 plain_row(const u8 *weights, const u8 *act, u32 lanes, u32 row)
{
    f64 sum = 0;
    const u8 *tile = weights + (usize)(row / lanes) * BLOCKS * block_bytes(lanes);

    for (u32 b = 0; b < BLOCKS; b++, tile += block_bytes(lanes), act += ACT_BYTES) {
        const u8 *factors = tile + PLANES * 4 * lanes + 2 * (row % lanes);
        union {
            u32 u;
            f32 f;
        } scale = {.u = lir_eval_load(DT_F16, factors)};
        union {
            u32 u;
            f32 f;
        } min = {.u = lir_eval_load(DT_F16, factors + 2 * lanes)};
        f32 of_act[2];
        i32 dot = 0;
        memcpy(of_act, act + BLOCK, 8);
        for (u32 k = 0; k < BLOCK; k++) { /* column k: dword k/8, byte k%4, nibble k/4%2 */
            u8 byte = tile[(k / 8) * 4 * lanes + (row % lanes) * 4 + k % 4];
            dot += (byte >> (k / 4 % 2 * 4) & 15) * (i8)act[k];
        }
        sum += (f64)scale.f * (f64)of_act[0] * dot + (f64)min.f * (f64)of_act[1];
    }
    return (f32)sum;
}

static void fill(u8 *weights, u8 *act, u32 lanes)
{
    usize blocks = BIG_BYTES / block_bytes(lanes);

    for (usize i = 0; i < BIG_BYTES / 8; i++)
        ((u64 *)weights)[i] = i * 0x9e3779b97f4a7c15ull ^ i >> 7;
    for (usize b = 0; b < blocks; b++)
        for (u32 i = 0; i < 2 * lanes; i++) {
            u16 f16 = (u16)(0x2000 + (i * 37 + b * 11) % 0x800); /* 2^-7 .. 2^-5 */
            memcpy(weights + b * block_bytes(lanes) + PLANES * 4 * lanes + 2 * i, &f16, 2);
        }
    for (u32 b = 0; b < BLOCKS; b++) {
        f32 factors[2] = {0.01f + 0.001f * (f32)b, 1.0f / (f32)(b + 1)};
        for (u32 i = 0; i < BLOCK; i++)
            act[b * ACT_BYTES + i] = (u8)((i32)test_random_below(255) - 127);
        memcpy(act + b * ACT_BYTES + BLOCK, factors, 8);
    }
}

/* ---- measuring ---- */

static u64 time_best(kernel_entry code, const u64 *args, u64 items, u32 passes)
{
    u64 best = UINT64_MAX;

    for (u32 round = 0; round < 5; round++) {
        u64 start = time_ns();
        for (u32 i = 0; i < passes; i++)
            code(args, 0, items, NULL);
        best = min_u64(best, (time_ns() - start) / passes);
    }
    return best;
}

static void report(const char *what, usize bytes, u32 lanes, u64 ns)
{
    f64 weights = (f64)bytes / block_bytes(lanes) * lanes * BLOCK;

    printf("    %-24s %6.1f GB/s %7.1f GMAC/s\n", what, (f64)bytes / (f64)ns, weights / (f64)ns);
}

static void measure(const char *name, struct target target, struct arena arena, u8 *weights)
{
    struct matvec *m = arena_new(&arena, struct matvec, 1);
    u8 *bytes = arena_alloc(&arena, CODE_BYTES, 64),
       *act = arena_alloc(&arena, BLOCKS * ACT_BYTES, 64);
    usize tile_bytes = BLOCKS * block_bytes(target.lanes), items = BIG_BYTES / tile_bytes;
    f32 *result = arena_alloc(&arena, items * target.lanes * 4, 64);
    struct code_out out = {.bytes = bytes, .cap = CODE_BYTES};
    void *code = code_alloc(CODE_BYTES);
    u64 args[] = {(u64)weights, (u64)act, (u64)result};
    char label[40];

    EXPECT(m && bytes && act && result && code);
    fill(weights, act, target.lanes);
    make_matvec(m, target.lanes, &arena);
    u64 start = time_ns();
    EXPECT_OK(x86_emit(&m->lir, &target, &arena, &out));
    u64 emit_ns = time_ns() - start;
    memcpy(code, out.bytes, out.len);
    EXPECT_OK(code_seal(code, CODE_BYTES));
    u64 big_ns = time_best((kernel_entry)code, args, items, 1);
    for (u32 row = 0; row < 200; row++) {
        f32 want = plain_row(weights, act, target.lanes, row), off = result[row] - want;
        EXPECT((off < 0 ? -off : off) <= 1e-4f * (want < 0 ? 1 - want : 1 + want));
    }
    printf("  %s: %zu bytes of code in %llu us\n", name, out.len,
           (unsigned long long)emit_ns / 1000);
    snprintf(label, sizeof(label), "%s 64 MiB", name);
    report(label, items * tile_bytes, target.lanes, big_ns);
    snprintf(label, sizeof(label), "%s 512 KiB", name);
    items = SMALL_BYTES / tile_bytes;
    report(label, items * tile_bytes, target.lanes,
           time_best((kernel_entry)code, args, items, 100));
}

/* Guards the quality of the code in the loop that matters most: the numbers go to docs/BENCH.md. */
TEST(compile_x86_matvec_speed)
{
    const struct cpu_features *cpu = cpu_features();
    usize bytes = 16 * MIB;
    u8 *weights = pages_alloc(BIG_BYTES), *rest = pages_alloc(bytes);
    struct arena arena = arena_on("speed", rest, bytes);

    EXPECT(weights && rest);
    if (cpu->avx2)
        measure("AVX2", (struct target){.isa = ISA_AVX2, .lanes = 8, .vector_regs = 16, .cores = 1},
                arena, weights);
    if (cpu->avx512)
        measure("AVX-512",
                (struct target){.isa = ISA_AVX512, .lanes = 16, .vector_regs = 32, .cores = 1},
                arena, weights);
    if (cpu->avx512_vnni)
        measure("AVX-512 VNNI",
                (struct target){
                    .isa = ISA_AVX512, .lanes = 16, .vector_regs = 32, .vnni = true, .cores = 1},
                arena, weights);
    pages_free(weights, BIG_BYTES);
    pages_free(rest, bytes);
}
