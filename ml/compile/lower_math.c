/*
 * lower_math.c: exp, log, sin and cos as float32 polynomials over lanes. Coefficients and range
 * reductions are those of the Cephes library's single precision functions; errors within 2 ulp of
 * the float32 result (sin, cos: |x| < 1e5, absolute error 1e-6), checked by
 * tests/witness/eval_numpy.py.
 */
#include "ml/compile/emit.h"

static u16 mul_add(struct emit *e, u16 a, u16 b, u16 c)
{
    return emit_v(e, LIR_FMA, a, b, c);
}

/* Horner's rule, highest power first. */
static u16 polynomial(struct emit *e, u16 x, const f32 *coefficient, u32 count)
{
    u16 y = emit_const_f32(e, coefficient[0]);

    for (u32 i = 1; i < count; i++)
        y = mul_add(e, y, x, emit_const_f32(e, coefficient[i]));
    return y;
}

/* 2 to the power of an integer in -126..127. */
static u16 power_of_two(struct emit *e, u16 n)
{
    return emit_vi(e, LIR_ISHLI, emit_two(e, LIR_IADD, n, emit_const_i32(e, 127)), 23, 0);
}

u16 emit_exp(struct emit *e, u16 x)
{
    static const f32 c[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                            4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    /* Beyond these the result is 0 or infinite; a NaN passes both (the second operand wins). */
    x = emit_two(e, LIR_FMAX, emit_const_f32(e, -104.0f), x);
    x = emit_two(e, LIR_FMIN, emit_const_f32(e, 89.0f), x);
    u16 n = emit_vi(e, LIR_FROUND, emit_two(e, LIR_FMUL, x, emit_const_f32(e, 1.44269504f)), 0,
                    LIR_NEAREST);
    u16 r = emit_v(e, LIR_FNMA, n, emit_const_f32(e, 0.693359375f), x);
    r = emit_v(e, LIR_FNMA, n, emit_const_f32(e, -2.12194440e-4f), r);
    u16 y = mul_add(e, polynomial(e, r, c, ARRAY_LEN(c)), emit_two(e, LIR_FMUL, r, r), r);
    y = emit_two(e, LIR_FADD, y, emit_const_f32(e, 1.0f));
    /* Two factors, so that results near both ends of the range round once, at the last product. */
    u16 whole = emit_vi(e, LIR_CVT_F2I, n, 0, LIR_NEAREST);
    u16 half = emit_vi(e, LIR_ISARI, whole, 1, 0);
    y = emit_two(e, LIR_FMUL, y, power_of_two(e, half));
    return emit_two(e, LIR_FMUL, y, power_of_two(e, emit_two(e, LIR_ISUB, whole, half)));
}

u16 emit_log(struct emit *e, u16 x)
{
    static const f32 c[] = {7.0376836292e-2f,  -1.1514610310e-1f, 1.1676998740e-1f,
                            -1.2420140846e-1f, 1.4249322787e-1f,  -1.6668057665e-1f,
                            2.0000714765e-1f,  -2.4999993993e-1f, 3.3333331174e-1f};
    u16 tiny = emit_compare(e, LIR_FCMP, LIR_LT, x, emit_const_f32(e, 1.17549435e-38f));
    u16 scaled =
        emit_v(e, LIR_SELECT, tiny, emit_two(e, LIR_FMUL, x, emit_const_f32(e, 8388608.0f)), x);
    u16 n = emit_two(e, LIR_ISUB, emit_vi(e, LIR_ISHRI, scaled, 23, 0), emit_const_i32(e, 126));
    n = emit_two(e, LIR_ISUB, n, emit_two(e, LIR_IAND, tiny, emit_const_i32(e, 23)));
    u16 m = emit_two(e, LIR_IOR, emit_two(e, LIR_IAND, scaled, emit_const_i32(e, 0x007fffff)),
                     emit_const_i32(e, 0x3f000000));
    u16 low = emit_compare(e, LIR_FCMP, LIR_LT, m, emit_const_f32(e, 0.707106781f));
    n = emit_two(e, LIR_IADD, n, low); /* all ones is -1 */
    m = emit_two(e, LIR_FSUB, emit_two(e, LIR_FADD, m, emit_two(e, LIR_IAND, m, low)),
                 emit_const_f32(e, 1.0f));
    u16 k = emit_v(e, LIR_CVT_I2F, n, LIR_NONE, LIR_NONE), z = emit_two(e, LIR_FMUL, m, m);
    u16 y = emit_two(e, LIR_FMUL, emit_two(e, LIR_FMUL, polynomial(e, m, c, ARRAY_LEN(c)), m), z);
    y = mul_add(e, k, emit_const_f32(e, -2.12194440e-4f), y);
    y = emit_v(e, LIR_FNMA, z, emit_const_f32(e, 0.5f), y);
    y = mul_add(e, k, emit_const_f32(e, 0.693359375f), emit_two(e, LIR_FADD, m, y));
    u16 infinity = emit_const_f32(e, __builtin_inff());
    y = emit_v(e, LIR_SELECT, emit_compare(e, LIR_FCMP, LIR_EQ, x, infinity), x, y);
    u16 below = emit_v(e, LIR_SELECT, emit_compare(e, LIR_FCMP, LIR_EQ, x, emit_const_f32(e, 0)),
                       emit_const_f32(e, -__builtin_inff()), emit_const_i32(e, 0x7fc00000u));
    return emit_v(e, LIR_SELECT, emit_compare(e, LIR_FCMP, LIR_LT, emit_const_f32(e, 0), x), y,
                  below);
}

u16 emit_sin_cos(struct emit *e, u16 x, bool cosine)
{
    static const f32 s[] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};
    static const f32 c[] = {2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f};
    u16 j = emit_vi(e, LIR_FROUND, emit_two(e, LIR_FMUL, x, emit_const_f32(e, 0.636619772f)), 0,
                    LIR_NEAREST);
    u16 r = emit_v(e, LIR_FNMA, j, emit_const_f32(e, 1.5703125f), x);
    r = emit_v(e, LIR_FNMA, j, emit_const_f32(e, 4.837512969970703125e-4f), r);
    r = emit_v(e, LIR_FNMA, j, emit_const_f32(e, 7.549789948768648e-8f), r);
    u16 quadrant = emit_vi(e, LIR_CVT_F2I, j, 0, LIR_NEAREST);
    if (cosine)
        quadrant = emit_two(e, LIR_IADD, quadrant, emit_const_i32(e, 1));
    u16 z = emit_two(e, LIR_FMUL, r, r);
    u16 sine = mul_add(e, emit_two(e, LIR_FMUL, polynomial(e, z, s, ARRAY_LEN(s)), z), r, r);
    u16 cos_high =
        emit_two(e, LIR_FMUL, emit_two(e, LIR_FMUL, polynomial(e, z, c, ARRAY_LEN(c)), z), z);
    u16 cos_low = emit_v(e, LIR_FNMA, z, emit_const_f32(e, 0.5f), emit_const_f32(e, 1.0f));
    u16 odd = emit_two(e, LIR_ISUB, emit_const_i32(e, 0),
                       emit_two(e, LIR_IAND, quadrant, emit_const_i32(e, 1)));
    u16 y = emit_v(e, LIR_SELECT, odd, emit_two(e, LIR_FADD, cos_high, cos_low), sine);
    u16 sign = emit_two(e, LIR_IAND, emit_vi(e, LIR_ISHLI, quadrant, 30, 0),
                        emit_const_i32(e, 0x80000000u));
    return emit_two(e, LIR_IXOR, y, sign);
}
