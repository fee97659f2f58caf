/*
 * hyper.c: what a model file says of its shape and its rotary positions (Su et al. 2021), checked
 * before anything is built from it, and the limits that the configuration sets. Keys as documented
 * with the GGUF format; the one architecture is llama.
 */
#include "ml/model_priv.h"

#define KEY_MAX 96
#define RESTART 64u /* positions computed by rotation before the angle is computed afresh */

struct field { /* llama.<name> */
    const char *name;
    u32 *number; /* or */
    f32 *real;
    f64 least, most;
    bool required;
};

static err read_field(const struct gguf *gguf, const struct field *field, struct text *why)
{
    char key[KEY_MAX];
    struct text text = TEXT_ON(key);

    text_fmt(&text, "llama.%s%c", field->name, '\0');
    err e = field->real ? gguf_f32(gguf, key, field->real) : gguf_u32(gguf, key, field->number);
    if (e == E_NOTFOUND && !field->required)
        return OK;
    if (e != OK)
        return gguf_refuse(why, e == E_NOTFOUND ? E_FORMAT : e,
                           "model: key %s is missing or not a number", key);
    f64 value = field->real ? (f64)*field->real : *field->number;
    if (!(value >= field->least && value <= field->most))
        return gguf_refuse(why, E_RANGE, "model: %s is out of range, expected %ld to %ld", key,
                           (long)field->least, (long)field->most);
    return OK;
}

static err read_fields(const struct gguf *gguf, struct hyper *h, struct text *why)
{
    struct model_shape *s = &h->shape;
    struct str scaling = STR("none");
    const struct field fields[] = {
        {"block_count", &s->layers, NULL, 1, MODEL_LAYERS_MAX, true},
        {"context_length", &s->ctx_train, NULL, 1, UINT32_MAX, true},
        {"embedding_length", &s->embed, NULL, 1, 65536, true},
        {"feed_forward_length", &s->ffn, NULL, 1, 1u << 20, true},
        {"attention.head_count", &s->heads, NULL, 1, 1024, true},
        {"attention.head_count_kv", &s->kv_heads, NULL, 1, 1024, false},
        {"attention.key_length", &s->head_dim, NULL, 2, 1024, false},
        {"rope.dimension_count", &h->rope_dims, NULL, 2, 1024, false},
        {"attention.layer_norm_rms_epsilon", NULL, &h->norm_epsilon, 1e-30, 1, false},
        {"rope.freq_base", NULL, &h->rope_base, 1.000001, 1e12, false},
        {"rope.scaling.factor", NULL, &h->rope_scale, 1, 1e4, false},
    };

    for (u32 i = 0; i < ARRAY_LEN(fields); i++)
        TRY(read_field(gguf, &fields[i], why));
    (void)gguf_str(gguf, "llama.rope.scaling.type", &scaling);
    if (str_eq(scaling, STR("none")))
        h->rope_scale = 1;
    else if (!str_eq(scaling, STR("linear")))
        return gguf_refuse(why, E_UNSUPPORTED,
                           "model: rope scaling \"%.*s\" is not supported, expected none or linear",
                           (int)min_u64(scaling.len, 32), scaling.ptr);
    return OK;
}

static err check_shape(const struct hyper *h, const struct gguf_tensor *table, struct text *why)
{
    const struct model_shape *s = &h->shape;

    if (s->heads % s->kv_heads)
        return gguf_refuse(why, E_FORMAT, "model: %u heads cannot share %u key heads", s->heads,
                           s->kv_heads);
    if (s->head_dim % 2 || s->head_dim == 0)
        return gguf_refuse(why, E_FORMAT,
                           "model: a head of %u dimensions cannot be turned in pairs", s->head_dim);
    if (h->rope_dims == 0 || h->rope_dims > s->head_dim || h->rope_dims % 2)
        return gguf_refuse(why, E_FORMAT, "model: rope turns %u of %u dimensions", h->rope_dims,
                           s->head_dim);
    if (!table || table->dim_count != 2 || table->dim[1] > 1u << 20)
        return gguf_refuse(why, E_FORMAT,
                           "model: token_embd.weight is missing or not [embedding, vocabulary]");
    return OK;
}

err hyper_read(const struct gguf *gguf, struct hyper *h, struct text *why)
{
    const struct gguf_tensor *table = gguf_tensor(gguf, STR("token_embd.weight"));
    struct str architecture = STR("");
    struct model_shape *s = &h->shape;

    *h = (struct hyper){.norm_epsilon = 1e-5f, .rope_base = 10000, .rope_scale = 1};
    (void)gguf_str(gguf, "general.architecture", &architecture);
    if (!str_eq(architecture, STR("llama")))
        return gguf_refuse(why, architecture.len ? E_UNSUPPORTED : E_FORMAT,
                           "model: architecture \"%.*s\" is not supported, expected llama",
                           (int)min_u64(architecture.len, 32), architecture.ptr);
    TRY(read_fields(gguf, h, why));
    s->ctx_train = min_u32(s->ctx_train, MODEL_CTX_MAX);
    s->kv_heads = s->kv_heads ? s->kv_heads : s->heads;
    s->head_dim = s->head_dim ? s->head_dim : s->embed / s->heads;
    h->rope_dims = h->rope_dims ? h->rope_dims : s->head_dim;
    TRY(check_shape(h, table, why));
    s->vocab = (u32)table->dim[1];
    for (u32 i = 0; i < gguf->tensor_count; i++)
        s->parameters += gguf->tensor[i].elements;
    return OK;
}

void hyper_limit(struct hyper *h, const struct ml_config *config, u32 outputs_max,
                 struct target target)
{
    struct model_shape *s = &h->shape;
    u32 ctx = config->ctx_max ? config->ctx_max : min_u32(s->ctx_train, ML_CTX_DEFAULT_MAX);

    h->layer_end = s->layers;
    s->ctx_max = min_u32(ctx, s->ctx_train);
    s->slots = config->slots ? min_u32(config->slots, ML_SLOTS_MAX) : ML_SLOTS_DEFAULT;
    u64 tokens = config->kv_tokens ? config->kv_tokens : (u64)s->slots * s->ctx_max;
    s->kv_tokens = (u32)round_up(min_u64(tokens, 1u << 24), MODEL_KV_PAGE_TOKENS);
    h->target = target;
    h->target.matrix = target.isa == ISA_GFX11 && !config->f32_activations;
    u32 rows = h->target.matrix ? MODEL_MATRIX_ROWS_MAX : MODEL_ROWS_MAX;
    s->rows_max = max_u32(min_u32(rows, s->ctx_max), s->slots);
    s->outputs_max = outputs_max ? min_u32(outputs_max, s->rows_max) : s->slots;
    h->kv_type = config->f32_activations || h->target.isa == ISA_AVX2_WORDS ? DT_F32 : DT_F16;
    s->kv_bytes =
        (u64)s->layers * 2 * s->kv_tokens * s->kv_heads * s->head_dim * dtype_bytes(h->kv_type);
}

/* ---- rotary positions ---- */

/* As llama.cpp applies rope_freqs.weight: the angle is divided by the factor. */
static err frequency_factors(const struct gguf *gguf, const struct hyper *h, f32 *factor,
                             struct text *why)
{
    const struct gguf_tensor *t = gguf_tensor(gguf, STR("rope_freqs.weight"));
    u32 count = h->rope_dims / 2;

    for (u32 i = 0; i < count; i++)
        factor[i] = 1;
    if (!t)
        return OK;
    if (t->elements != count || t->format->type != QUANT_F32)
        return gguf_refuse(why, E_FORMAT, "model: rope_freqs.weight has %lu %s, expected %u F32",
                           t->elements, t->format->name, count);
    TRY(gguf_read(gguf, t, 0, factor, t->bytes));
    for (u32 i = 0; i < count; i++)
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
        f64 step = 0, c = 1, s = 0;
        if (i < h->rope_dims / 2)
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
