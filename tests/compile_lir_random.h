/*
 * compile_lir_random.h: random LIR programs: nested loops, all operations and element types, values
 * that are written again, more of them than any machine has registers.
 */
#ifndef NOHOST_COMPILE_LIR_RANDOM_H
#define NOHOST_COMPILE_LIR_RANDOM_H

#include "ml/compile/lir.h"

/* What a program reads and writes: the kernel's args point to these, in this order. */
enum { ARG_F32, ARG_I32, ARG_F16, ARG_BF16, ARG_BYTES, ARG_OUT, ARGS };
#define INPUT_BYTES  (32 * KIB)  /* of each of the five inputs; no f32, f16, bf16 is a NaN */
#define OUTPUT_BYTES (128 * KIB) /* of out, and of the kernel's scratch */

/* Floats in out, where a NaN may be any NaN. */
struct stored {
    u32 offset, lanes;
    enum dtype type;
};

#define POOL_MAX 512u
enum pool_kind {
    SCALAR,
    BOUNDED, /* 1..255, never written again: indexes and divisors */
    FLOATS,
    INTS,
    MASKS,
    FLOAT_1, /* one lane */
    INT_1,
    MASK_1,
    COUNTERS, /* of open loops */
    POOLS
};

struct program_maker {
    struct lir lir;
    u32 lanes;
    u16 pool[POOLS][POOL_MAX]; /* values that may be read where the program stands */
    u32 count[POOLS];
    u16 base[ARGS];
    u16 address[3][ARGS]; /* the same or a bit behind; the last are written again */
    u32 out_bytes;
    u32 depth;
    struct stored stored[1024];
    u32 stored_count;
};

/* About `length` operations. Draws from test_random. */
void random_program(struct program_maker *maker, u32 lanes, u32 length, struct arena *arena);

/* Every NaN that the program stored in out becomes the same one. */
void program_settle_nans(const struct program_maker *maker, u8 *out);

/* ---- for compile_lir_group.c ---- */

/* An instruction at the program's end, of the pool's lanes. */
struct lir_instr *maker_emit(struct program_maker *maker, enum lir_op op, enum pool_kind kind);
u16 maker_pick(struct program_maker *maker, enum pool_kind kind);
/* A new register of the pool, or now and then one that is written again. */
u16 maker_target(struct program_maker *maker, enum pool_kind kind);
/* An operation that is no program's choice. */
u16 maker_operation(struct program_maker *maker, enum lir_op op, enum pool_kind kind,
                    const u16 src[3]);
u16 maker_constant(struct program_maker *maker, enum pool_kind kind, i64 bits);

/* ---- compile_lir_group.c ---- */

void group_begin(struct program_maker *maker);
void group_end(struct program_maker *maker);
void group_scalar(struct program_maker *maker);
void group_operation(struct program_maker *maker, bool one);
/* A value that is no NaN, within +-2^bits. */
u16 group_limited_float(struct program_maker *maker, enum pool_kind kind, u32 bits);

#endif
