/*
 * salu.c: scalar arithmetic: the rows of salu.def over SGPRs, SCC and EXEC, and moves relative to
 * M0. Branches, waits, messages are flow.c's.
 */
#include "sim/lane_math.h"
#include "sim/wave.h"

struct scalar_args {
    u64 a, b, d, result;
    u32 scc;
    i32 k;
};
typedef void scalar_fn(struct scalar_args *args);

static inline u64 low_mask(u32 bits)
{
    return bits >= 64 ? ~0ull : (1ull << bits) - 1;
}
static inline u64 extend(u64 value, u32 bits)
{
    u32 unused = 64 - MIN(bits, 64u);

    return bits ? (u64)((i64)(value << unused) >> unused) : 0;
}

/* Bit n of a word to bit 2 n. */
static inline u64 spread_bits(u32 value)
{
    u64 result = 0;

    for (u32 n = 0; n < 32; n++)
        result |= (u64)(value >> n & 1) << 2 * n;
    return result;
}

static inline u64 quad_mask(u64 value)
{
    u64 result = 0;

    for (u32 n = 0; n < 16; n++)
        result |= (u64)((value >> 4 * n & 15) != 0) << n;
    return result;
}

static inline u64 whole_quads(u64 value)
{
    u64 result = 0;

    for (u32 n = 0; n < 16; n++)
        result |= value >> 4 * n & 15 ? 15ull << 4 * n : 0;
    return result;
}

/* ---- the rows as functions ---- */

#define C_none u32
#define C_u32  u32
#define C_i32  i32
#define C_u64  u64
#define C_i64  i64
#define UNUSED __attribute__((unused))
#define OPERANDS(A, B)                                                                             \
    UNUSED const C_##A a = (C_##A)args->a;                                                         \
    UNUSED const C_##B b = (C_##B)args->b;                                                         \
    UNUSED const u64 d = args->d;                                                                  \
    UNUSED const u32 scc = args->scc;                                                              \
    UNUSED const i32 k = args->k;

#define P(name, R, A, B, expression, scc_after)                                                    \
    static void scalar_##name(struct scalar_args *args)                                            \
    {                                                                                              \
        OPERANDS(A, B)                                                                             \
        const C_##R result = (C_##R)(expression);                                                  \
                                                                                                   \
        args->scc = (scc_after) ? 1u : 0u;                                                         \
        args->result = (u64)result;                                                                \
    }
#define N(name, R, A, B, expression) P(name, R, A, B, expression, result != 0)
#define K(name, R, A, B, expression) P(name, R, A, B, expression, scc)
#define C(name, A, B, scc_after)     P(name, u32, A, B, 0, scc_after)
/* args->b is EXEC there, args->d the new one. */
#define E(name, T, expression)                                                                     \
    static void scalar_##name(struct scalar_args *args)                                            \
    {                                                                                              \
        const T a = (T)args->a, e = (T)args->b;                                                    \
                                                                                                   \
        args->d = (T)(expression);                                                                 \
        args->result = e;                                                                          \
        args->scc = args->d != 0;                                                                  \
    }
#define W(name, T, expression)                                                                     \
    static void scalar_##name(struct scalar_args *args)                                            \
    {                                                                                              \
        const T a = (T)args->a, e = (T)args->b;                                                    \
                                                                                                   \
        args->d = args->result = (T)(expression);                                                  \
        args->scc = args->d != 0;                                                                  \
    }
#include "sim/salu.def"
#undef P
#undef N
#undef K
#undef C
#undef E
#undef W

struct scalar_op {
    scalar_fn *run;
    u8 type[2];
    bool to_exec;
};

#define P(name, R, A, B, ...) [ISA_##name] = {scalar_##name, {TYPE_##A, TYPE_##B}, false},
#define N                     P
#define K                     P
#define C(name, A, B, ...)    [ISA_##name] = {scalar_##name, {TYPE_##A, TYPE_##B}, false},
#define E(name, T, ...)       [ISA_##name] = {scalar_##name, {TYPE_##T, TYPE_none}, true},
#define W                     E
static const struct scalar_op scalar_ops[ISA_OPS] = {
#include "sim/salu.def"
};

/* ---- running ---- */

static u64 register_read(const struct wave *wave, u32 reg, u32 regs)
{
    return regs == 2 ? pair(wave->s[reg], wave->s[reg + 1]) : wave->s[reg];
}

static void register_write(struct wave *wave, u32 reg, u32 regs, u64 value)
{
    wave->s[reg] = (u32)value;
    if (regs == 2)
        wave->s[reg + 1] = (u32)(value >> 32);
    wave->s[ISA_NULL] = 0;
}

static void run_scalar(struct wave *wave, const struct uop *uop)
{
    struct scalar_args args;
    u32 regs = uop->row->dst_regs, dst = uop->inst.dst;

    args.scc = wave->scc;
    args.k = uop->inst.imm;
    args.a = operand_scalar(wave, &uop->src[0]);
    args.b = operand_scalar(wave, &uop->src[1]);
    args.d = regs ? register_read(wave, dst, regs) : 0;
    scalar_ops[uop->inst.op].run(&args);
    if (regs)
        register_write(wave, dst, regs, args.result);
    wave->scc = args.scc;
}

static void run_exec(struct wave *wave, const struct uop *uop)
{
    struct scalar_args args;
    u32 regs = uop->row->dst_regs;

    args.a = operand_scalar(wave, &uop->src[0]);
    args.b = register_read(wave, ISA_EXEC_LO, regs);
    scalar_ops[uop->inst.op].run(&args);
    register_write(wave, ISA_EXEC_LO, regs, args.d);
    register_write(wave, uop->inst.dst, regs, args.result);
    wave->scc = args.scc;
}

/* Relative moves: M0 is added to the number of a register. Outside of the SGPRs: no effect. */
static void run_relative(struct wave *wave, const struct uop *uop)
{
    u32 op = uop->inst.op, regs = uop->row->dst_regs, m0 = wave->M0;
    bool both = op == ISA_s_movrelsd_2_b32;
    bool from_moves = both || op == ISA_s_movrels_b32 || op == ISA_s_movrels_b64;
    bool to_moves = both || !from_moves;
    u32 from = uop->inst.src[0] + (from_moves ? (both ? m0 & 0x3ff : m0) : 0);
    u32 to = uop->inst.dst + (to_moves ? (both ? m0 >> 16 & 0x3ff : m0) : 0);
    u64 value;

    if ((from_moves && from + regs > SGPRS_MAX) || (to_moves && to + regs > SGPRS_MAX)) {
        wave_find(wave, "sgpr-out-of-range", "relative move with M0 = %x", m0);
        return;
    }
    value = from_moves ? register_read(wave, from, regs) : operand_scalar(wave, &uop->src[0]);
    register_write(wave, to, regs, value);
}

bool salu_decode(struct uop *uop)
{
    const struct scalar_op *op = &scalar_ops[uop->inst.op];

    uop->class = CLASS_SALU;
    if (uop->inst.op >= ISA_s_movrels_b32 && uop->inst.op <= ISA_s_movrelsd_2_b32) {
        operand_decode(uop, 0, uop->row->src_regs[0] == 2 ? TYPE_u64 : TYPE_u32);
        uop->run = run_relative;
        return true;
    }
    if (!op->run)
        return false;
    operand_decode(uop, 0, op->type[0]);
    operand_decode(uop, 1, op->type[1]);
    uop->run = op->to_exec ? run_exec : run_scalar;
    return true;
}
