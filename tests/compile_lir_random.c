/*
 * compile_lir_random.c: makes random LIR programs. Values stand in pools by type; what was made in
 * a loop goes out of sight behind it, for the loop may make no trip.
 */
#include "tests/compile_lir_random.h"
#include "tests/oracle/lir_eval.h"
#include "tests/test.h"

#define INDEX_MAX 255 /* bounded scalars and gather indexes */

static u32 below(u32 limit)
{
    return test_random_below(limit);
}

static bool has_groups(const struct program_maker *m)
{
    return m->lanes == 32;
}

static enum lir_class class_of(enum pool_kind kind)
{
    return kind <= BOUNDED || kind == COUNTERS ? LIR_SCALAR : LIR_VECTOR;
}

u16 maker_pick(struct program_maker *m, enum pool_kind kind)
{
    return m->pool[kind][below(m->count[kind])];
}

/* A new register of the pool, or now and then one that is written again. */
u16 maker_target(struct program_maker *m, enum pool_kind kind)
{
    if (below(4) == 0 || m->count[kind] == POOL_MAX)
        return maker_pick(m, kind);
    u16 v = lir_vreg(&m->lir, class_of(kind));
    m->pool[kind][m->count[kind]++] = v;
    return v;
}

struct lir_instr *maker_emit(struct program_maker *m, enum lir_op op, enum pool_kind kind)
{
    struct lir_instr *in = lir_emit(&m->lir, op);

    in->lanes = (u8)(kind >= FLOAT_1 ? 1 : m->lanes);
    return in;
}

/* Sources are picked before the destination exists. */
static void operation(struct program_maker *m, enum lir_op op, enum pool_kind to,
                      const enum pool_kind *from)
{
    struct lir_instr *in = maker_emit(m, op, to);
    u16 *source[] = {&in->a, &in->b, &in->c};

    for (u32 i = 0; i < 3 && lir_rows[op].operands[1 + i] != '-'; i++)
        *source[i] = maker_pick(m, from[i]);
    in->aux = (u8)below(3);
    in->imm = op >= LIR_HSUM_F ? 0 : below(32); /* joins all lanes: x86 knows no parts */
    if (has_groups(m) && op >= LIR_HSUM_F && in->lanes > 1)
        in->imm = (i64[]){0, 2, 4, 8, 16, 32}[below(6)];
    in->dst = maker_target(m, to);
}

/* An operation that is no program's choice. */
u16 maker_operation(struct program_maker *m, enum lir_op op, enum pool_kind kind, const u16 src[3])
{
    struct lir_instr *in = maker_emit(m, op, kind);

    in->a = src[0];
    in->b = src[1];
    in->c = src[2];
    return in->dst = lir_vreg(&m->lir, LIR_VECTOR);
}

u16 maker_constant(struct program_maker *m, enum pool_kind kind, i64 bits)
{
    struct lir_instr *in = maker_emit(m, LIR_V_CONST, kind);

    in->imm = bits;
    return in->dst = lir_vreg(&m->lir, LIR_VECTOR);
}

static void memory(struct program_maker *m, struct lir_instr *in, u32 arg)
{
    static const u8 scales[] = {1, 2, 4, 8};

    in->mem = (struct lir_mem){
        .base = m->address[below(3)][arg], .index = LIR_NONE, .scale = 1, .disp = (i32)below(2048)};
    if (m->count[BOUNDED] && below(2)) {
        in->mem.index = maker_pick(m, m->depth && below(2) ? COUNTERS : BOUNDED);
        in->mem.scale = scales[below(4)];
    }
    if (below(2))
        in->mem.disp = (in->mem.disp & ~63);
}

/* Where stores to a computed address go too: a load must not pass one of them. */
static void scratch_memory(struct program_maker *m, struct lir_instr *in)
{
    memory(m, in, ARG_OUT);
    in->mem.base = LIR_SCRATCH;
    in->mem.space = has_groups(m) ? LIR_GROUP : LIR_GLOBAL;
    if (below(2)) {
        in->mem.index = LIR_NONE;
        in->mem.disp = (i32)below(32) * 4;
    }
}

static void load_scratch(struct program_maker *m, bool one)
{
    struct lir_instr *in = maker_emit(m, below(3) ? LIR_V_LOAD : LIR_V_BCAST, one ? INT_1 : INTS);

    in->mem_type = DT_I32;
    scratch_memory(m, in);
    in->dst = maker_target(m, one ? INT_1 : INTS);
}

static void load(struct program_maker *m, bool one)
{
    static const struct {
        u8 arg, type, kind;
    } kinds[] = {{ARG_F32, DT_F32, 0},   {ARG_F32, DT_F32, 0}, {ARG_F16, DT_F16, 0},
                 {ARG_BF16, DT_BF16, 0}, {ARG_I32, DT_I32, 1}, {ARG_BYTES, DT_I8, 1},
                 {ARG_BYTES, DT_U8, 1}};
    u32 which = below(ARRAY_LEN(kinds));
    enum pool_kind kind = kinds[which].kind ? (one ? INT_1 : INTS) : (one ? FLOAT_1 : FLOATS);
    struct lir_instr *in = maker_emit(m, below(3) ? LIR_V_LOAD : LIR_V_BCAST, kind);

    in->mem_type = kinds[which].type;
    memory(m, in, kinds[which].arg);
    if (in->mem_type ==
        DT_F32) /* keep elements whole: a shifted float may be anything, also a NaN */
        in->mem.disp &= ~3;
    if (in->mem_type == DT_F32 && in->mem.scale < 4)
        in->mem.scale = 4;
    in->mem.disp &= in->mem_type == DT_F16 || in->mem_type == DT_BF16 ? ~1 : -1;
    if ((in->mem_type == DT_F16 || in->mem_type == DT_BF16) && in->mem.scale < 2)
        in->mem.scale = 2;
    in->mem.fixed = has_groups(m) && below(2);
    if (in->mem.fixed && (in->mem_type == DT_F32 || in->mem_type == DT_I32)) { /* is aligned */
        in->mem.disp &= ~3;
        in->mem.scale = in->mem.scale < 4 ? 4 : in->mem.scale;
    }
    in->dst = maker_target(m, kind);
}

static void gather(struct program_maker *m, bool one)
{
    enum pool_kind ints = one ? INT_1 : INTS, floats = one ? FLOAT_1 : FLOATS;
    struct lir_instr *mask = maker_emit(m, LIR_V_CONST, ints), *in;
    u16 range = lir_vreg(&m->lir, LIR_VECTOR), index = lir_vreg(&m->lir, LIR_VECTOR);

    mask->imm = INDEX_MAX;
    mask->dst = range;
    in = maker_emit(m, LIR_IAND, ints);
    in->a = maker_pick(m, ints);
    in->b = range;
    in->dst = index;
    range = maker_constant(m, ints, below(2) * 100); /* an index may be negative */
    index = maker_operation(m, LIR_ISUB, ints, (u16[]){index, range, LIR_NONE});
    in = maker_emit(m, LIR_V_GATHER, floats);
    in->mem_type = DT_F32;
    in->mem =
        (struct lir_mem){m->base[ARG_F32], index, 4, 400 + (i32)below(2048) * 4, LIR_GLOBAL, false};
    in->dst = maker_target(m, floats);
}

static u16 bytes_of(struct program_maker *m, enum pool_kind ints, i64 byte)
{
    struct lir_instr *in = maker_emit(m, LIR_V_CONST, ints);

    in->imm = byte * 0x01010101;
    return in->dst = lir_vreg(&m->lir, LIR_VECTOR);
}

/* a's bytes are at most the limit. b comes from memory that has no -128, or is as large as it can
 * be: then sums overflow first. */
static u16 dot(struct program_maker *m, enum pool_kind ints, i64 limit, u16 sum)
{
    bool extreme = below(4);
    u16 most = bytes_of(m, ints, limit), b = bytes_of(m, ints, 0x7f), a = most;
    struct lir_instr *in;

    if (!extreme) {
        in = maker_emit(m, LIR_IAND, ints);
        in->a = maker_pick(m, ints);
        in->b = most;
        a = in->dst = lir_vreg(&m->lir, LIR_VECTOR);
        in = maker_emit(m, below(2) ? LIR_V_LOAD : LIR_V_BCAST, ints);
        in->mem_type = DT_I32;
        memory(m, in, ARG_BYTES);
        b = in->dst = lir_vreg(&m->lir, LIR_VECTOR);
    }
    in = maker_emit(m, LIR_DOT4, ints);
    in->imm = limit;
    in->a = a;
    in->b = b;
    in->c = sum;
    return in->dst = lir_vreg(&m->lir, LIR_VECTOR);
}

/* Chains are where a machine without the instruction may keep narrower sums. */
static void dots(struct program_maker *m, bool one)
{
    static const i64 largest[] = {1, 15, 15, 15, 63, 127, 128, 255};
    enum pool_kind ints = one ? INT_1 : INTS;
    u16 sum = maker_pick(m, ints);

    for (u32 i = below(12) + 1, which = below(8); i; i--)
        sum = dot(m, ints, largest[below(8) ? which : below(8)], sum);
    if (below(2))
        m->lir.instr[m->lir.count - 1].dst = maker_target(m, ints);
    else if (m->count[ints] < POOL_MAX)
        m->pool[ints][m->count[ints]++] = sum;
}

/* Each value to its own place, so that the comparison knows which bytes are floats. */
static void store(struct program_maker *m, u16 value, enum pool_kind kind)
{
    static const u8 float_types[] = {DT_F32, DT_F16, DT_BF16}, int_types[] = {DT_I32, DT_I8, DT_U8};
    bool is_scalar = class_of(kind) == LIR_SCALAR, is_float = kind == FLOATS || kind == FLOAT_1;
    struct lir_instr *in = NULL;

    if (is_scalar) {
        in = maker_emit(m, LIR_V_FROM_S, INT_1);
        in->a = value;
        value = in->dst = lir_vreg(&m->lir, LIR_VECTOR);
    }
    in = maker_emit(m, LIR_V_STORE, is_scalar ? INT_1 : kind);
    in->a = value;
    in->mem_type = is_float ? float_types[below(3)] : int_types[is_scalar ? 0 : below(3)];
    in->mem = (struct lir_mem){m->base[ARG_OUT], LIR_NONE, 1, (i32)m->out_bytes, LIR_GLOBAL, false};
    if (is_float && m->stored_count < ARRAY_LEN(m->stored))
        m->stored[m->stored_count++] = (struct stored){m->out_bytes, in->lanes, in->mem_type};
    m->out_bytes += max_u32(64, m->lanes * 4);
}

/* To a computed address; integers, whose bits are all compared. */
static void store_indexed(struct program_maker *m)
{
    enum pool_kind kind = (enum pool_kind[]){INTS, INT_1, MASKS}[below(3)];
    struct lir_instr *in = maker_emit(m, LIR_V_STORE, kind);

    in->a = maker_pick(m, kind);
    in->mem_type = (u8[]){DT_I32, DT_I8, DT_U8}[below(3)];
    scratch_memory(m, in);
}

static void scalar(struct program_maker *m)
{
    static const u8 ops[] = {LIR_S_MOV,  LIR_S_ADD,   LIR_S_ADDI, LIR_S_SUB,  LIR_S_MUL,
                             LIR_S_MULI, LIR_S_MIN,   LIR_S_MAX,  LIR_S_SHLI, LIR_S_SHRI,
                             LIR_S_ANDI, LIR_S_CONST, LIR_S_DIV,  LIR_S_MOD};
    static const i64 constants[] = {
        0, 1, -1, 127, 128, -128, -129, 0x7fffffff, -0x80000000ll, 0xffffffff, 0x123456789abcdefll};
    enum pool_kind either = below(3) ? SCALAR : BOUNDED;
    enum lir_op op = ops[below(ARRAY_LEN(ops))];
    bool divides = op == LIR_S_DIV || op == LIR_S_MOD;
    struct lir_instr *in = lir_emit(&m->lir, op);

    in->a = lir_rows[op].operands[1] == 'S' ? maker_pick(m, either) : LIR_NONE;
    in->b = lir_rows[op].operands[2] == 'S' ? maker_pick(m, divides ? BOUNDED : SCALAR) : LIR_NONE;
    in->imm = op == LIR_S_SHLI || op == LIR_S_SHRI ? below(64)
              : op == LIR_S_CONST                  ? constants[below(ARRAY_LEN(constants))]
                                                   : (i32)test_random() >> below(31);
    in->dst = maker_target(m, SCALAR);
}

static void bounded(struct program_maker *m)
{
    bool lane = below(2);
    struct lir_instr *in = maker_emit(m, lane ? LIR_V_LOAD : LIR_S_ANDI, INT_1);
    u16 wide = lir_vreg(&m->lir, LIR_SCALAR);

    if (lane) {
        in->mem_type = (u8[]){DT_I32, DT_I8, DT_U8}[below(3)];
        memory(m, in, ARG_I32);
        u16 loaded = in->dst = lir_vreg(&m->lir, LIR_VECTOR);
        in = lir_emit(&m->lir, LIR_S_FROM_V);
        in->a = loaded;
        in->dst = wide;
        if (!has_groups(m))
            m->pool[SCALAR][m->count[SCALAR]++] = wide;
        in = lir_emit(&m->lir, LIR_S_ANDI);
        in->a = wide;
    } else {
        in->a = maker_pick(m, SCALAR);
    }
    in->imm = INDEX_MAX - 1;
    u16 even = lir_vreg(&m->lir, LIR_SCALAR);
    in->dst = even;
    in = lir_emit(&m->lir, LIR_S_ADDI); /* never 0: also a divisor */
    in->a = even;
    in->imm = 1;
    in->dst = lir_vreg(&m->lir, LIR_SCALAR);
    m->pool[BOUNDED][m->count[BOUNDED]++] = in->dst;
}

static void lanes_operation(struct program_maker *m, bool one)
{
    const enum pool_kind f = one ? FLOAT_1 : FLOATS, i = one ? INT_1 : INTS,
                         k = one ? MASK_1 : MASKS;
    static const u8 floats[] = {LIR_FADD,  LIR_FSUB,   LIR_FMUL,   LIR_FDIV,   LIR_FMAX,  LIR_FMIN,
                                LIR_FSQRT, LIR_FROUND, LIR_FMA,    LIR_FMA,    LIR_FMA,   LIR_FNMA,
                                LIR_FNMA,  LIR_V_MOV,  LIR_HSUM_F, LIR_HMAX_F, LIR_HMIN_F};
    u32 float_ops = ARRAY_LEN(floats) - (has_groups(m) ? 2 : 0); /* not on any float */
    static const u8 ints[] = {LIR_IADD,   LIR_ISUB,   LIR_IMUL,   LIR_IAND,   LIR_IOR,    LIR_IXOR,
                              LIR_ISHLI,  LIR_ISHRI,  LIR_ISARI,  LIR_IMAX,   LIR_IMIN,   LIR_V_MOV,
                              LIR_HSUM_I, LIR_HMAX_I, LIR_HMIN_I, LIR_V_IOTA, LIR_V_CONST};

    switch (below(10)) {
    case 0:
    case 1:
    case 2:
    case 3:
        operation(m, floats[below(float_ops)], f, (enum pool_kind[]){f, f, f});
        break;
    case 4:
    case 5:
        operation(m, ints[below(ARRAY_LEN(ints))], i, (enum pool_kind[]){i, i, i});
        break;
    case 6:
        if (below(2))
            operation(m, LIR_FCMP, k, (enum pool_kind[]){f, f});
        else
            operation(m, LIR_ICMP, k, (enum pool_kind[]){i, i});
        break;
    case 7:
        operation(m, LIR_SELECT, f, (enum pool_kind[]){k, f, f});
        break;
    case 8:
        operation(m, LIR_SELECT, i, (enum pool_kind[]){k, i, i});
        break;
    default:
        if (below(2))
            operation(m, LIR_CVT_I2F, f, (enum pool_kind[]){i, i, i});
        else
            operation(m, LIR_V_FROM_S, i, (enum pool_kind[]){SCALAR, i, i});
    }
}

static void to_int(struct program_maker *m, bool one)
{
    enum pool_kind kind = one ? FLOAT_1 : FLOATS;
    u16 a = has_groups(m) ? group_limited_float(m, kind, 30) : maker_pick(m, kind);
    struct lir_instr *in = maker_emit(m, LIR_CVT_F2I, one ? INT_1 : INTS);

    in->a = a;
    in->aux = below(2) ? LIR_NEAREST : LIR_TRUNC;
    in->dst = maker_target(m, one ? INT_1 : INTS);
}

static void any(struct program_maker *m)
{
    bool one = below(4) == 0;

    switch (below(has_groups(m) ? 14 : 12)) {
    case 0:
    case 1:
        if (has_groups(m))
            group_scalar(m);
        else
            scalar(m);
        break;
    case 2:
        bounded(m);
        break;
    case 3:
    case 4:
        if (below(3))
            load(m, one);
        else
            load_scratch(m, one);
        break;
    case 5:
        gather(m, one);
        break;
    case 6:
        dots(m, one);
        break;
    case 7:
        to_int(m, one);
        break;
    case 8:
        store_indexed(m);
        break;
    case 12:
    case 13:
        group_operation(m, one);
        break;
    default:
        lanes_operation(m, one);
    }
}

/* ---- whole programs ---- */

static u16 loop_bound(struct program_maker *m, u32 most)
{
    struct lir_instr *in = lir_emit(&m->lir, below(2) ? LIR_S_CONST : LIR_S_ANDI);

    in->imm = in->op == LIR_S_CONST ? below(most + 1) : most;
    in->a = in->op == LIR_S_CONST ? LIR_NONE : maker_pick(m, SCALAR);
    return in->dst = lir_vreg(&m->lir, LIR_SCALAR);
}

struct open_loop {
    u32 until;
    u32 count[POOLS];
};

static void open_loop(struct program_maker *m, struct open_loop *loop, u32 until)
{
    u16 from = loop_bound(m, 1), to = loop_bound(m, 3);
    struct lir_instr *in = lir_emit(&m->lir, LIR_LOOP);

    in->a = from;
    in->b = to;
    in->imm = 1 + below(2);
    in->dst = lir_vreg(&m->lir, LIR_SCALAR);
    loop->until = until;
    memcpy(loop->count, m->count, sizeof(loop->count));
    m->pool[COUNTERS][m->count[COUNTERS]++] = in->dst;
    m->depth++;
}

/* What was made inside goes out of sight: the loop may have made no trip. */
static void close_loop(struct program_maker *m, const struct open_loop *loop)
{
    (void)lir_emit(&m->lir, LIR_ENDLOOP);
    memcpy(m->count, loop->count, sizeof(m->count));
    m->depth--;
}

static void begin_program(struct program_maker *m)
{
    for (u32 i = 0; i < ARGS; i++) {
        struct lir_instr *in = lir_emit(&m->lir, LIR_S_ARG);
        in->imm = i;
        in->dst = m->base[i] = lir_vreg(&m->lir, LIR_SCALAR);
        for (u32 k = 0; k < ARRAY_LEN(m->address); k++)
            m->address[k][i] = m->base[i];
    }
    m->pool[SCALAR][m->count[SCALAR]++] = LIR_BEGIN;
    if (!has_groups(m)) /* where it means nothing */
        m->pool[SCALAR][m->count[SCALAR]++] = LIR_END;
    bounded(m);
    for (enum pool_kind kind = FLOATS; kind <= MASK_1; kind++) {
        struct lir_instr *in = maker_emit(m, LIR_V_CONST, kind);
        in->imm = kind == MASKS || kind == MASK_1 ? -(i64)below(2) : 0x3f800000;
        in->dst = lir_vreg(&m->lir, LIR_VECTOR);
        m->pool[kind][m->count[kind]++] = in->dst;
    }
    if (has_groups(m))
        group_begin(m);
}

void random_program(struct program_maker *m, u32 lanes, u32 length, struct arena *arena)
{
    struct open_loop loop[4];

    memset(m, 0, sizeof(*m));
    EXPECT_OK(lir_init(&m->lir, arena));
    m->lanes = lanes;
    begin_program(m);
    for (u32 i = 0; i < length; i++) {
        while (m->depth && loop[m->depth - 1].until == i)
            close_loop(m, &loop[m->depth - 1]);
        if (m->depth < ARRAY_LEN(loop) && below(12) == 0)
            open_loop(m, &loop[m->depth], i + 1 + below(length - i));
        any(m);
    }
    while (m->depth)
        close_loop(m, &loop[m->depth - 1]);
    for (enum pool_kind kind = SCALAR; kind <= MASK_1; kind++)
        for (u32 i = 0; i < m->count[kind]; i++)
            store(m, m->pool[kind][i], kind);
    if (has_groups(m))
        group_end(m);
}

void program_settle_nans(const struct program_maker *m, u8 *out)
{
    for (u32 i = 0; i < m->stored_count; i++) {
        const struct stored *stored = &m->stored[i];
        u32 bytes = stored->type == DT_F32 ? 4 : 2;
        for (u32 k = 0; k < stored->lanes; k++) {
            u8 *at = out + stored->offset + k * bytes;
            union {
                u32 u;
                f32 f;
            } lane = {.u = lir_eval_load(stored->type, at)};
            if (lane.f != lane.f)
                memset(at, 0xff, bytes);
        }
    }
}
