/*
 * rope.c: tables of cosines and sines for rotary positions (Su et al. 2021), with the file's base,
 * linear scaling and per-frequency factors (tensor rope_freqs.weight, as llama.cpp applies it: the
 * angle is divided by the factor).
 */
#include "ml/model_priv.h"

#define RESTART 64u /* positions computed by rotation before the angle is computed afresh */

static err frequency_factors(const struct gguf *gguf, const struct hyper *h, f32 *factor,
                             struct text *why)
{
    const struct gguf_tensor *t = gguf_tensor(gguf, STR("rope_freqs.weight"));
    u8 bytes[4 * 512];

    for (u32 i = 0; i < h->rope_dims / 2; i++)
        factor[i] = 1;
    if (!t)
        return OK;
    if (t->elements != h->rope_dims / 2 || t->format->type != QUANT_F32 || t->bytes > sizeof bytes)
        return gguf_refuse(why, E_FORMAT,
                           "model: rope_freqs.weight has %llu elements, expected %u of F32",
                           (unsigned long long)t->elements, h->rope_dims / 2);
    TRY(gguf_read(gguf, t, 0, bytes, t->bytes));
    memcpy(factor, bytes, t->bytes);
    for (u32 i = 0; i < t->elements; i++)
        if (!(factor[i] > 0 && factor[i] < 1e6f))
            return gguf_refuse(why, E_RANGE, "model: rope_freqs.weight[%u] is out of range", i);
    return OK;
}

err rope_tables(const struct gguf *gguf, const struct hyper *h, f32 *cosines, f32 *sines,
                struct text *why)
{
    u32 half = h->shape.head_dim / 2;
    f32 factor[512];

    CHECK(half <= ARRAY_LEN(factor));
    TRY(frequency_factors(gguf, h, factor, why));
    for (u32 i = 0; i < half; i++) {
        bool turns = i < h->rope_dims / 2;
        f64 step = 0, c = 1, s = 0;
        if (turns)
            step = math_pow((f64)h->rope_base, -2.0 * i / h->rope_dims) /
                   ((f64)factor[i] * (f64)h->rope_scale);
        f64 step_cos = math_cos(step), step_sin = math_sin(step);
        for (u32 p = 0; p < h->shape.ctx_max; p++) {
            if (p % RESTART == 0) {
                c = math_cos(step * p);
                s = math_sin(step * p);
            }
            cosines[(usize)p * half + i] = (f32)c;
            sines[(usize)p * half + i] = (f32)s;
            f64 turned = c * step_cos - s * step_sin;
            s = s * step_cos + c * step_sin;
            c = turned;
        }
    }
    return OK;
}
