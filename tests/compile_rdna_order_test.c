/*
 * compile_rdna_order_test.c: guards the order of instructions and the pairs of them: random
 * programs write the same bytes whether or not they were reordered and joined; loads go ahead as
 * far as registers allow.
 */
#include "tests/rdna_wave.h"

#define PROGRAMS 90u
#define MEMORY   (8 * MIB)

enum { FIRST = RDNA_VIRTUAL, VECTORS = 128, SCALARS = 32 };

/* ---- physical registers as virtual ones, and back ---- */

static u16 to_virtual(u16 code)
{
    if (code >= V_FREE && code < RDNA_VGPR + VECTORS)
        return (u16)(FIRST + code - RDNA_VGPR);
    if (code >= S_FREE && code < SCALARS)
        return (u16)(FIRST + VECTORS + code);
    return code;
}

static u16 to_physical(u16 code)
{
    if (code < FIRST || code == RDNA_NONE)
        return code;
    return (u16)(code < FIRST + VECTORS ? code - FIRST + RDNA_VGPR : code - FIRST - VECTORS);
}

static void rename_all(struct rcode *code, u16 (*to)(u16 code))
{
    for (u32 i = 0; i < code->count; i++) {
        struct rinstr *instr = &code->instr[i];
        instr->dst = to(instr->dst);
        for (u32 k = 0; k < 3; k++)
            instr->src[k] = to(instr->src[k]);
    }
}

static void schedule(struct rcode *code, struct arena *arena)
{
    u8 *class = arena_new(arena, u8, VECTORS + SCALARS);
    u8 *tuple = arena_new(arena, u8, VECTORS + SCALARS);

    EXPECT(class != NULL && tuple != NULL);
    for (u32 v = 0; v < VECTORS + SCALARS; v++)
        class[v] = v < VECTORS ? LIR_VECTOR : LIR_SCALAR;
    code->class = class;
    code->vreg_count = VECTORS + SCALARS;
    EXPECT_OK(rdna_schedule(code, tuple, 20 + (u32)test_random_below(70), arena));
}

/* ---- the same bytes ---- */

struct result {
    u8 bytes[WAVE_OUT_BYTES];
};

static void run(const struct rcode *code, struct arena *arena, struct result *result)
{
    struct rcode waited;

    EXPECT_OK(rdna_wait(code, arena, &waited));
    const char *finding = wave_run(&waited, *arena, 1, result->bytes);
    if (finding)
        test_fail(__FILE__, __LINE__, "%s", finding);
}

static struct rcode copy_of(const struct rcode *code, struct arena *arena)
{
    struct rcode copy = wave_list(arena);

    copy.count = code->count;
    memcpy(copy.instr, code->instr, code->count * sizeof(*code->instr));
    return copy;
}

static bool same_order(const struct rcode *a, const struct rcode *b)
{
    return a->count == b->count && !memcmp(a->instr, b->instr, a->count * sizeof(*a->instr));
}

/* Guards every dependence: registers, EXEC, the condition bit, memory. */
TEST(compile_rdna_order_keeps_results)
{
    u8 *memory = pages_alloc(MEMORY);
    struct result expected, seen;
    u32 moved = 0;

    for (u32 i = 0; i < PROGRAMS; i++) {
        struct arena arena = arena_on("order", memory, MEMORY);
        struct rcode code = wave_list(&arena), ordered;
        wave_random(&code, i % 3);
        ordered = copy_of(&code, &arena);
        rename_all(&ordered, to_virtual);
        schedule(&ordered, &arena);
        rename_all(&ordered, to_physical);
        moved += !same_order(&code, &ordered);
        run(&code, &arena, &expected);
        run(&ordered, &arena, &seen);
        EXPECT(!memcmp(&expected, &seen, sizeof(seen)));
    }
    EXPECT(moved > PROGRAMS / 2);
    pages_free(memory, MEMORY);
}

/* ---- pairs ---- */

static u32 count_pairs(const struct rcode *code)
{
    u32 pairs = 0;

    for (u32 i = 0; i < code->count; i++)
        pairs += code->instr[i].dual;
    return pairs;
}

/* Guards what may be joined: no half reads what the other writes, the rules of banks (the
 * simulator refuses an encoding that breaks them), sources exchanged only where that is the same.
 */
TEST(compile_rdna_pairs_keep_results)
{
    u8 *memory = pages_alloc(MEMORY);
    struct result expected, seen;
    u32 pairs = 0;

    for (u32 i = 0; i < PROGRAMS; i++) {
        struct arena arena = arena_on("pairs", memory, MEMORY);
        struct rcode code = wave_list(&arena), paired;
        wave_add_start(&code);
        for (u32 n = 0; n < 100; n++)
            wave_add_pairable(&code);
        wave_add_end(&code);
        paired = copy_of(&code, &arena);
        EXPECT_OK(rdna_pair(&paired, &arena));
        pairs += count_pairs(&paired);
        run(&code, &arena, &expected);
        run(&paired, &arena, &seen);
        EXPECT(!memcmp(&expected, &seen, sizeof(seen)));
    }
    EXPECT(pairs > PROGRAMS * 10);
    pages_free(memory, MEMORY);
}

/* ---- loads ---- */

static u32 leading_loads(const struct rcode *code)
{
    u32 count = 0;

    while (count < code->count && rdna_rows[code->instr[count].row].flags & R_LOAD)
        count++;
    return count;
}

/* Loads of four registers, each with its reader behind it. */
static void load_and_use(struct rcode *code, u32 loads)
{
    code->count = 0;
    for (u16 n = 0; n < loads; n++) {
        u16 first = (u16)(FIRST + 4 * n);
        struct rinstr *load = wave_add(code, R_global_load_b128, first, V_LANE16, RDNA_NONE);
        load->src[2] = S_READ;
        load->fixed = true;
        for (u16 k = 1; k < 4; k++)
            wave_add(code, R_v_add_f32, first, first, (u16)(first + k));
    }
    wave_add(code, R_s_endpgm, RDNA_NONE, RDNA_NONE, RDNA_NONE);
}

/* Guards the budget: 8 loads go together, of many no more than 16 waves a SIMD have room for. */
TEST(compile_rdna_loads_go_first)
{
    u8 *memory = pages_alloc(MEMORY);
    struct arena arena = arena_on("loads", memory, MEMORY);
    struct rcode code = wave_list(&arena);
    u8 class[256], tuple[256];

    for (u32 v = 0; v < 256; v++) {
        class[v] = LIR_VECTOR;
        tuple[v] = v % 4 ? 0 : 4;
    }
    code.class = class;
    code.vreg_count = 256;
    load_and_use(&code, 8);
    EXPECT_OK(rdna_schedule(&code, tuple, 80, &arena));
    EXPECT_EQ(leading_loads(&code), 8);
    load_and_use(&code, 60);
    EXPECT_OK(rdna_schedule(&code, tuple, 80, &arena));
    EXPECT_EQ(leading_loads(&code), 96 / 4);
    pages_free(memory, MEMORY);
}
