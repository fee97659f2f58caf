/*
 * mathf.h: the elementary functions for freestanding code, and numbers as decimal text. Bounds
 * against exact values are tested in tests/ml_quant_test.c.
 */
#ifndef NOHOST_MATHF_H
#define NOHOST_MATHF_H

#include "kernel/base.h"

#define MATH_INF      (__builtin_inf())
#define MATH_NAN      (__builtin_nan(""))
#define MATH_TRIG_MAX 1.6e6 /* radians; sin and cos of more are NaN, never a wrong number */

/* Within 1 ulp (exp, log, sin, cos); sqrt and floor are exact. */
f64 math_exp(f64 x);
f64 math_log(f64 x); /* -inf at 0, NaN below */
f64 math_sin(f64 x);
f64 math_cos(f64 x);
f64 math_sqrt(f64 x);
f64 math_floor(f64 x);
/* x >= 0 (NaN below): relative error about 1e-16 * (1 + |y * log x|). */
f64 math_pow(f64 x, f64 y);

static inline f32 mathf_sqrt(f32 x)
{
    return (f32)math_sqrt((f64)x);
}

/* Appends value with at most `decimals` (<= 15) digits behind the point, rounded to nearest,
 * trailing zeros dropped; from 1e15 on in the form 1.25e+20. Valid JSON. NaN and infinities
 * append `otherwise` ("null", "NaN"). */
void text_f64(struct text *out, f64 value, u32 decimals, struct str otherwise);
/* [-+]digits[.digits][e[-+]digits] and nothing else; exact up to 15 digits and 10^22, else
 * within 8 ulp. E_FORMAT; E_RANGE when it overflows. */
err str_to_f64(struct str text, f64 *value);

#endif
