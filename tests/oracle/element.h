/*
 * element.h: between interp.c (which elements) and element.c (what an op does with them).
 */
#ifndef NOHOST_ELEMENT_H
#define NOHOST_ELEMENT_H

#include "ml/compile/compile.h"

union cell {
    f32 f;
    i32 i;
    u32 u;
};

struct operands {
    const union cell *base[NODE_SRCS_MAX]; /* unused ones repeat the first */
    i64 step[NODE_SRCS_MAX];
    bool floats; /* the first source's type */
};

/* out[i] = op of the i-th elements; an op that is not elementwise copies the first source. */
void element_row(enum op op, const struct operands *src, union cell *out, u64 count);
f32 f32_round_even(f32 x);
u16 f32_to_bf16(f32 value); /* to nearest, ties to even; NaN stays NaN */

#endif
