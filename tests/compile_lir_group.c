/*
 * compile_lir_group.c: what random LIR programs do on a target with groups only, and otherwise
 * there: what is no address lies in i32; maxima across lanes, conversions and halves leave open
 * what nobody needs.
 */
#include "tests/compile_lir_random.h"
#include "tests/test.h"

#define SCRATCH_BYTES 8192u
#define SCALAR_MAX    0x7fff

static u32 below(u32 limit)
{
    return test_random_below(limit);
}

/* The same for groups: what lies in i32, taken to a lane, then small enough for the next. */
void group_scalar(struct program_maker *m)
{
    static const u8 ops[] = {LIR_S_MOV,  LIR_S_ADD,   LIR_S_ADDI, LIR_S_SUB,  LIR_S_MUL,
                             LIR_S_MULI, LIR_S_MIN,   LIR_S_MAX,  LIR_S_SHLI, LIR_S_SHRI,
                             LIR_S_ANDI, LIR_S_CONST, LIR_S_DIV,  LIR_S_MOD};
    enum lir_op op = ops[below(ARRAY_LEN(ops))];
    bool divides = op == LIR_S_DIV || op == LIR_S_MOD;
    u16 a = maker_pick(m, SCALAR), b = maker_pick(m, divides ? BOUNDED : SCALAR), result;
    struct lir_instr *in;

    if (divides && below(2)) {
        in = lir_emit(&m->lir, LIR_S_CONST);
        in->imm = below(2) ? 1 + below(SCALAR_MAX) : (i64)1 << below(15);
        b = in->dst = lir_vreg(&m->lir, LIR_SCALAR);
    }
    in = lir_emit(&m->lir, op);
    in->a = lir_rows[op].operands[1] == 'S' ? a : LIR_NONE;
    in->b = lir_rows[op].operands[2] == 'S' ? b : LIR_NONE;
    in->imm = op == LIR_S_SHLI   ? (i64)below(16)
              : op == LIR_S_SHRI ? (i64)below(64)
                                 : (i64)below(0x10000) - 0x8000;
    result = in->dst = lir_vreg(&m->lir, LIR_SCALAR);
    if (below(3) == 0) {
        in = maker_emit(m, LIR_V_FROM_S, INTS);
        in->a = result;
        in->dst = maker_target(m, INTS);
    }
    in = lir_emit(&m->lir, LIR_S_ANDI);
    in->a = result;
    in->imm = SCALAR_MAX;
    in->dst = maker_target(m, SCALAR);
}

/* The pointers that are written again move to another place near their base. */
static void move_address(struct program_maker *m)
{
    u32 arg = below(ARG_OUT);
    struct lir_instr *in = lir_emit(&m->lir, LIR_S_MOV);

    in->a = m->base[arg];
    in->dst = m->address[2][arg];
    in = lir_emit(&m->lir, LIR_S_ADDI);
    in->a = in->dst = m->address[2][arg];
    in->imm = below(128) * 4;
}

/* A value without NaN or a zero's sign. */
static u16 plain_float(struct program_maker *m, enum pool_kind kind)
{
    u16 zero = maker_constant(m, kind, 0);
    u16 v = maker_operation(m, LIR_FADD, kind, (u16[]){maker_pick(m, kind), zero, LIR_NONE});
    u16 number = maker_operation(m, LIR_FCMP, kind, (u16[]){v, v, LIR_NONE});

    return maker_operation(m, LIR_SELECT, kind, (u16[]){number, v, zero});
}

/* One that lies within +-2^bits. */
u16 group_limited_float(struct program_maker *m, enum pool_kind kind, u32 bits)
{
    i64 most = (i64)(127 + bits) << 23;
    u16 high = maker_constant(m, kind, most), low = maker_constant(m, kind, most | 0x80000000), v;

    v = maker_operation(m, LIR_FMAX, kind, (u16[]){plain_float(m, kind), low, LIR_NONE});
    return maker_operation(m, LIR_FMIN, kind, (u16[]){v, high, LIR_NONE});
}

static void across_floats(struct program_maker *m, bool one)
{
    enum pool_kind kind = one ? FLOAT_1 : FLOATS;
    u16 v = plain_float(m, kind);
    struct lir_instr *in = maker_emit(m, below(2) ? LIR_HMAX_F : LIR_HMIN_F, kind);

    in->a = v;
    in->dst = maker_target(m, kind);
}

static u16 halves(struct program_maker *m, bool one)
{
    enum pool_kind kind = one ? FLOAT_1 : FLOATS;
    u16 low = group_limited_float(m, kind, 6), high = group_limited_float(m, kind, 6);

    if (below(8) == 0)
        return maker_constant(m, kind, 0x00810103); /* denormals */
    return maker_operation(m, LIR_H_PACK, kind, (u16[]){low, high, LIR_NONE});
}

static void half_floats(struct program_maker *m, bool one)
{
    static const u8 ops[] = {LIR_H_ADD, LIR_H_MUL, LIR_H_FMA, LIR_FMAH};
    enum lir_op op = ops[below(ARRAY_LEN(ops))];
    bool to_float = op == LIR_FMAH;
    u16 a = halves(m, one), b = to_float ? maker_pick(m, one ? FLOAT_1 : FLOATS) : halves(m, one);
    u16 c = to_float ? maker_pick(m, one ? FLOAT_1 : FLOATS) : halves(m, one);
    enum pool_kind kind = to_float ? (one ? FLOAT_1 : FLOATS) : (one ? INT_1 : INTS);
    struct lir_instr *in = maker_emit(m, op, kind);

    in->a = a;
    in->b = b;
    in->c = lir_rows[op].operands[3] == '-' ? LIR_NONE : c;
    in->imm = to_float ? below(2) : 0;
    in->dst = maker_target(m, kind);
}

/* Four words from aligned memory, one of them to the pool, one from it, all to the scratch. */
static void four_words(struct program_maker *m)
{
    bool gathers = below(2);
    u16 lane = maker_operation(m, LIR_V_IOTA, INTS, (u16[]){LIR_NONE, LIR_NONE, LIR_NONE});
    u16 step = maker_constant(m, INTS, 16), place;
    u16 mask = maker_constant(m, INTS, 0x3f0);
    u16 index = maker_operation(m, LIR_IAND, INTS, (u16[]){maker_pick(m, INTS), mask, LIR_NONE});
    place = maker_operation(m, LIR_IMUL, INTS, (u16[]){lane, step, LIR_NONE});
    u16 tuple = lir_tuple(&m->lir, 4);
    struct lir_instr *in = maker_emit(m, gathers ? LIR_V_GATHER4 : LIR_V_LOAD4, INTS);

    in->dst = tuple;
    in->mem_type = DT_I32;
    in->mem = (struct lir_mem){.base = m->base[ARG_BYTES],
                               .index = gathers ? index : LIR_NONE,
                               .scale = gathers ? 4 : 1,
                               .disp = (i32)below(512) * 16};
    in = maker_emit(m, LIR_V_MOV, INTS);
    in->a = (u16)(tuple + below(4));
    in->dst = maker_target(m, INTS);
    in = maker_emit(m, LIR_V_MOV, INTS);
    in->a = maker_pick(m, INTS);
    in->dst = (u16)(tuple + below(4));
    in = maker_emit(m, LIR_V_SCATTER4, INTS);
    in->a = tuple;
    in->mem_type = DT_I32;
    in->mem = (struct lir_mem){LIR_SCRATCH, place, 1, (i32)below(64) * 16, LIR_GROUP, false};
}

/* Whole numbers below 8 in halves, the same in both halves of the wave. */
static u16 matrix(struct program_maker *m)
{
    u16 tuple = lir_tuple(&m->lir, 8), row = maker_constant(m, INTS, 15),
        seven = maker_constant(m, INTS, 7);
    u16 lane = maker_operation(m, LIR_V_IOTA, INTS, (u16[]){LIR_NONE, LIR_NONE, LIR_NONE});

    row = maker_operation(m, LIR_IAND, INTS, (u16[]){lane, row, LIR_NONE});
    for (u32 i = 0; i < 8; i++) {
        struct lir_instr *in = maker_emit(m, LIR_V_GATHER, INTS);
        in->mem_type = DT_I32;
        in->mem =
            (struct lir_mem){m->base[ARG_I32], row, 4, (i32)below(4096) * 4, LIR_GLOBAL, true};
        u16 v = in->dst = lir_vreg(&m->lir, LIR_VECTOR);
        v = maker_operation(m, LIR_IAND, INTS, (u16[]){v, seven, LIR_NONE});
        v = maker_operation(m, LIR_CVT_I2F, INTS, (u16[]){v, LIR_NONE, LIR_NONE});
        in = maker_emit(m, LIR_H_PACK, INTS);
        in->a = in->b = v;
        in->dst = (u16)(tuple + i);
    }
    return tuple;
}

static void matrix_product(struct program_maker *m)
{
    u16 a = matrix(m), b = matrix(m), sum = lir_tuple(&m->lir, 8);
    struct lir_instr *in;

    for (u32 i = 0; i < 8; i++) {
        in = maker_emit(m, LIR_V_CONST, FLOATS);
        in->dst = (u16)(sum + i);
    }
    for (u32 i = 1 + below(2); i; i--) {
        in = maker_emit(m, LIR_WMMA, FLOATS);
        in->a = a;
        in->b = b;
        in->c = in->dst = sum;
    }
    for (u32 i = 0; i < 8; i++) {
        in = maker_emit(m, LIR_V_MOV, FLOATS);
        in->a = (u16)(sum + i);
        in->dst = maker_target(m, FLOATS);
    }
}

/* A byte of a word as a float, a field of one with its sign. */
static void fields(struct program_maker *m)
{
    u16 a = maker_pick(m, INTS), mask = maker_constant(m, INTS, 255), v;
    struct lir_instr *in = maker_emit(m, LIR_ISHRI, INTS);

    in->a = a;
    in->imm = below(4) * 8;
    v = in->dst = lir_vreg(&m->lir, LIR_VECTOR);
    v = maker_operation(m, LIR_IAND, INTS, (u16[]){v, mask, LIR_NONE});
    in = maker_emit(m, LIR_CVT_I2F, INTS);
    in->a = v;
    in->dst = maker_target(m, FLOATS);
    in = maker_emit(m, LIR_ISHLI, INTS);
    in->a = a;
    in->imm = below(32);
    v = in->dst = lir_vreg(&m->lir, LIR_VECTOR);
    in = maker_emit(m, LIR_ISARI, INTS);
    in->a = v;
    in->imm = below(32);
    in->dst = maker_target(m, INTS);
}

/* Products of half bytes, and lanes that change places. */
static void half_bytes(struct program_maker *m)
{
    u16 a = maker_pick(m, INTS), b = maker_pick(m, INTS), c = maker_pick(m, INTS);
    struct lir_instr *in = maker_emit(m, LIR_DOT8, INTS);

    in->a = a;
    in->b = b;
    in->c = c;
    in->imm = below(2);
    in->dst = maker_target(m, INTS);
    a = maker_pick(m, INTS);
    in = maker_emit(m, LIR_V_SWAP, INTS);
    in->a = a;
    in->imm = 1 + below(15);
    in->dst = maker_target(m, INTS);
}

void group_operation(struct program_maker *m, bool one)
{
    switch (below(7)) {
    case 6:
        fields(m);
        break;
    case 5:
        half_bytes(m);
        break;
    case 4:
        matrix_product(m);
        break;
    case 0:
        across_floats(m, one);
        break;
    case 1:
        half_floats(m, one);
        break;
    case 2:
        four_words(m);
        break;
    default:
        move_address(m);
    }
}

/* dst = base of memory + index, of all words up to the scratch's end. */
static struct lir_instr *open_sweep(struct program_maker *m)
{
    struct lir_instr *from = lir_emit(&m->lir, LIR_S_CONST), *to;
    u16 start = from->dst = lir_vreg(&m->lir, LIR_SCALAR);

    to = lir_emit(&m->lir, LIR_S_CONST);
    to->imm = SCRATCH_BYTES;
    u16 end = to->dst = lir_vreg(&m->lir, LIR_SCALAR);
    to = lir_emit(&m->lir, LIR_LOOP);
    to->a = start;
    to->b = end;
    to->imm = 4 * m->lanes;
    to->dst = lir_vreg(&m->lir, LIR_SCALAR);
    return to;
}

/* More places to read from, and zeros in the group's memory. */
void group_begin(struct program_maker *m)
{
    u16 zero = maker_constant(m, INTS, 0), counter;

    for (u32 arg = 0; arg < ARGS; arg++) {
        struct lir_instr *in = lir_emit(&m->lir, LIR_S_MULI);
        in->a = maker_pick(m, BOUNDED);
        in->imm = 8;
        u16 offset = in->dst = lir_vreg(&m->lir, LIR_SCALAR);
        in = lir_emit(&m->lir, LIR_S_ADD);
        in->a = below(2) ? offset : m->base[arg];
        in->b = in->a == offset ? m->base[arg] : offset;
        m->address[1][arg] = in->dst = lir_vreg(&m->lir, LIR_SCALAR);
        in = lir_emit(&m->lir, LIR_S_MOV);
        in->a = m->base[arg];
        m->address[2][arg] = in->dst = lir_vreg(&m->lir, LIR_SCALAR);
    }
    counter = open_sweep(m)->dst;
    struct lir_instr *in = maker_emit(m, LIR_V_STORE, INTS);
    in->a = zero;
    in->mem_type = DT_I32;
    in->mem = (struct lir_mem){LIR_SCRATCH, counter, 1, 0, LIR_GROUP, false};
    (void)lir_emit(&m->lir, LIR_ENDLOOP);
}

/* The group's memory, to be compared. */
void group_end(struct program_maker *m)
{
    u16 counter = open_sweep(m)->dst;
    struct lir_instr *in = maker_emit(m, LIR_V_LOAD, INTS);

    in->mem_type = DT_I32;
    in->mem = (struct lir_mem){LIR_SCRATCH, counter, 1, 0, LIR_GROUP, false};
    u16 v = in->dst = lir_vreg(&m->lir, LIR_VECTOR);
    in = maker_emit(m, LIR_V_STORE, INTS);
    in->a = v;
    in->mem_type = DT_I32;
    in->mem = (struct lir_mem){m->base[ARG_OUT], counter, 1, (i32)m->out_bytes, LIR_GLOBAL, false};
    (void)lir_emit(&m->lir, LIR_ENDLOOP);
    m->out_bytes += SCRATCH_BYTES;
}
