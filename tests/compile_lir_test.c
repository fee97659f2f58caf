/*
 * compile_lir_test.c: what lir_check must refuse, one broken rule per program, and that building
 * never writes outside its memory.
 */
#include "tests/oracle/listing.h"
#include "tests/test.h"

struct maker {
    struct lir lir;
    struct arena arena;
    u16 s, v; /* a scalar and a vector that were written */
};

static struct lir_instr *emit(struct maker *m, enum lir_op op, u16 dst)
{
    struct lir_instr *in = lir_emit(&m->lir, op);

    in->dst = dst;
    in->lanes = 8;
    return in;
}

static void begin(struct maker *m)
{
    arena_reset(&m->arena, 0);
    EXPECT_OK(lir_init(&m->lir, &m->arena));
    m->s = lir_vreg(&m->lir, LIR_SCALAR);
    m->v = lir_vreg(&m->lir, LIR_VECTOR);
    (void)emit(m, LIR_S_CONST, m->s);
    (void)emit(m, LIR_V_CONST, m->v);
}

static void loop(struct maker *m, u16 counter, i64 step)
{
    struct lir_instr *in = emit(m, LIR_LOOP, counter);

    in->a = in->b = m->s;
    in->imm = step;
}

static void read_unwritten(struct maker *m)
{
    emit(m, LIR_S_MOV, m->s)->a = lir_vreg(&m->lir, LIR_SCALAR);
}

static void wrong_class(struct maker *m)
{
    emit(m, LIR_S_MOV, m->s)->a = m->v;
}

static void wrong_result_class(struct maker *m)
{
    emit(m, LIR_S_MOV, m->v)->a = m->s;
}

static void operand_too_many(struct maker *m)
{
    emit(m, LIR_V_CONST, m->v)->b = m->v;
}

static void odd_lanes(struct maker *m)
{
    struct lir_instr *in = emit(m, LIR_V_MOV, m->v);

    in->a = m->v;
    in->lanes = 3;
}

static void odd_scale(struct maker *m)
{
    emit(m, LIR_V_LOAD, m->v)->mem = (struct lir_mem){.base = m->s, .index = LIR_NONE, .scale = 3};
}

static void no_base(struct maker *m)
{
    (void)emit(m, LIR_V_LOAD, m->v);
}

static void scalar_gather_index(struct maker *m)
{
    emit(m, LIR_V_GATHER, m->v)->mem = (struct lir_mem){.base = m->s, .index = m->s, .scale = 4};
}

static void shift_too_far(struct maker *m)
{
    struct lir_instr *in = emit(m, LIR_ISHLI, m->v);

    in->a = m->v;
    in->imm = 32;
}

static void immediate_too_long(struct maker *m)
{
    struct lir_instr *in = emit(m, LIR_S_ADDI, m->s);

    in->a = m->s;
    in->imm = 1ll << 31;
}

static void open_loop(struct maker *m)
{
    loop(m, lir_vreg(&m->lir, LIR_SCALAR), 1);
}

static void stray_end(struct maker *m)
{
    (void)lir_emit(&m->lir, LIR_ENDLOOP);
}

static void no_step(struct maker *m)
{
    loop(m, lir_vreg(&m->lir, LIR_SCALAR), 0);
    (void)lir_emit(&m->lir, LIR_ENDLOOP);
}

static void counter_written(struct maker *m)
{
    u16 counter = lir_vreg(&m->lir, LIR_SCALAR);

    loop(m, counter, 1);
    emit(m, LIR_S_MOV, counter)->a = m->s;
    (void)lir_emit(&m->lir, LIR_ENDLOOP);
}

/* Guards the encoder against what it takes for granted. */
TEST(compile_lir_check_refuses)
{
    void (*const broken[])(struct maker *) = {
        read_unwritten,   wrong_class,        wrong_result_class,
        operand_too_many, odd_lanes,          odd_scale,
        no_base,          immediate_too_long, scalar_gather_index,
        shift_too_far,    open_loop,          stray_end,
        no_step,          counter_written,
    };
    struct maker m = {.arena = arena_on("lir", pages_alloc(MIB), MIB)};
    char why[160];

    begin(&m);
    EXPECT_OK(lir_check(&m.lir, NULL));
    for (u32 i = 0; i < ARRAY_LEN(broken); i++) {
        struct text reason = TEXT_ON(why);
        begin(&m);
        broken[i](&m);
        if (lir_check(&m.lir, &reason) != E_FORMAT || reason.len == 0)
            test_fail(__FILE__, __LINE__, "broken program %u was taken", i);
    }
    pages_free(m.arena.base, MIB);
}

/* Guards the growing array: too many instructions or registers are an error that sticks. */
TEST(compile_lir_limits)
{
    usize bytes = 16 * MIB;
    struct maker m = {.arena = arena_on("lir", pages_alloc(bytes), bytes)};

    begin(&m);
    for (u32 i = m.lir.count; i < LIR_INSTRS_MAX; i++)
        (void)emit(&m, LIR_S_CONST, m.s);
    EXPECT_OK(lir_check(&m.lir, NULL));
    (void)emit(&m, LIR_S_CONST, m.s);
    EXPECT_EQ(lir_check(&m.lir, NULL), E_LIMIT);
    begin(&m);
    while (m.lir.vreg_count < LIR_VREGS_MAX)
        (void)lir_vreg(&m.lir, LIR_VECTOR);
    EXPECT_OK(m.lir.status);
    (void)lir_vreg(&m.lir, LIR_VECTOR);
    EXPECT_EQ(m.lir.status, E_LIMIT);
    struct arena small = arena_on("small", m.arena.base, 4096);
    EXPECT_EQ(lir_init(&m.lir, &small), E_NOMEM);
    pages_free(m.arena.base, bytes);
}
