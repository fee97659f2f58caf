/*
 * hyper.c: hyper-parameters of a model file, checked against each other before anything is built
 * from them. Keys as documented with the GGUF format; the architectures are rows of a table.
 */
#include "ml/model_priv.h"

struct architecture {
    const char *name;
    bool rope_pairs;
};

static const struct architecture architectures[] = {
    {"llama", true},
};

#define KEY_MAX 96

/* "<architecture>.<name>". */
static const char *key_of(struct str architecture, const char *name, char out[KEY_MAX])
{
    struct text key = {out, 0, KEY_MAX - 1, false};

    text_fmt(&key, "%.*s.%s", (int)architecture.len, architecture.ptr, name);
    out[key.len] = 0;
    return out;
}

struct field {
    const char *name;
    u32 *value;
    u32 least, most;
    bool required;
};

static err read_fields(const struct gguf *gguf, struct str architecture, const struct field *field,
                       u32 count, struct text *why)
{
    char key[KEY_MAX];

    for (u32 i = 0; i < count; i++) {
        err e = gguf_u32(gguf, key_of(architecture, field[i].name, key), field[i].value);
        if (e == E_NOTFOUND && !field[i].required)
            continue;
        if (e != OK)
            return gguf_refuse(why, e == E_NOTFOUND ? E_FORMAT : e,
                               "model: key %s is missing or not a number", key);
        if (*field[i].value < field[i].least || *field[i].value > field[i].most)
            return gguf_refuse(why, E_RANGE, "model: %s is %u, expected %u to %u", key,
                               *field[i].value, field[i].least, field[i].most);
    }
    return OK;
}

static err read_floats(const struct gguf *gguf, struct str architecture, struct hyper *h,
                       struct text *why)
{
    char key[KEY_MAX];
    struct str scaling = STR("none");
    f32 factor = 1;

    h->norm_epsilon = 1e-5f;
    h->rope_base = 10000;
    err e = gguf_f32(gguf, key_of(architecture, "attention.layer_norm_rms_epsilon", key),
                     &h->norm_epsilon);
    if (e == OK || e == E_NOTFOUND)
        e = gguf_f32(gguf, key_of(architecture, "rope.freq_base", key), &h->rope_base);
    if (e != OK && e != E_NOTFOUND)
        return gguf_refuse(why, e, "model: %s is not a float", key);
    if (!(h->norm_epsilon > 0 && h->norm_epsilon < 1) ||
        !(h->rope_base > 1 && h->rope_base < 1e12f))
        return gguf_refuse(why, E_RANGE, "model: rms epsilon or rope base is out of range");
    if (gguf_str(gguf, key_of(architecture, "rope.scaling.type", key), &scaling) == OK &&
        !str_eq(scaling, STR("none")) && !str_eq(scaling, STR("linear")))
        return gguf_refuse(why, E_UNSUPPORTED,
                           "model: rope scaling \"%.*s\" is not supported, expected none or linear",
                           (int)min_u64(scaling.len, 32), scaling.ptr);
    if (str_eq(scaling, STR("linear")) &&
        gguf_f32(gguf, key_of(architecture, "rope.scaling.factor", key), &factor) != OK)
        factor = 1;
    if (!(factor >= 1 && factor < 1e4f))
        return gguf_refuse(why, E_RANGE, "model: rope scaling factor is out of range");
    h->rope_scale = factor;
    return OK;
}

static err check_shape(struct hyper *h, struct text *why)
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
    return OK;
}

static void choose_limits(const struct ml_config *config, u32 outputs_max, struct model_shape *s)
{
    u32 ctx = config->ctx_max ? config->ctx_max : min_u32(s->ctx_train, ML_CTX_DEFAULT_MAX);

    s->ctx_max = min_u32(ctx, s->ctx_train);
    s->slots = config->slots ? min_u32(config->slots, ML_SLOTS_MAX) : ML_SLOTS_DEFAULT;
    u64 tokens = config->kv_tokens ? config->kv_tokens : (u64)s->slots * s->ctx_max;
    tokens = max_u64(tokens, MODEL_KV_PAGE_TOKENS);
    s->kv_tokens = (u32)round_up(min_u64(tokens, 1u << 24), MODEL_KV_PAGE_TOKENS);
    s->rows_max = min_u32(MODEL_ROWS_MAX, s->ctx_max);
    s->rows_max = max_u32(s->rows_max, s->slots);
    s->outputs_max = outputs_max ? min_u32(outputs_max, s->rows_max) : s->slots;
}

err hyper_read(const struct gguf *gguf, const struct ml_config *config, u32 outputs_max,
               struct hyper *h, struct text *why)
{
    struct str name = {};
    const struct architecture *row = NULL;
    struct model_shape *s = &h->shape;

    *h = (struct hyper){};
    if (gguf_str(gguf, "general.architecture", &name) != OK)
        return gguf_refuse(why, E_FORMAT, "model: general.architecture is missing");
    for (u32 i = 0; i < ARRAY_LEN(architectures); i++)
        if (str_eq(name, str_of(architectures[i].name)))
            row = &architectures[i];
    if (!row)
        return gguf_refuse(why, E_UNSUPPORTED,
                           "model: architecture \"%.*s\" is not supported, expected llama",
                           (int)min_u64(name.len, 32), name.ptr);
    h->rope_pairs = row->rope_pairs;
    const struct field fields[] = {
        {"block_count", &s->layers, 1, MODEL_LAYERS_MAX, true},
        {"context_length", &s->ctx_train, 1, UINT32_MAX, true},
        {"embedding_length", &s->embed, 1, 65536, true},
        {"feed_forward_length", &s->ffn, 1, 1u << 20, true},
        {"attention.head_count", &s->heads, 1, 1024, true},
        {"attention.head_count_kv", &s->kv_heads, 1, 1024, false},
        {"attention.key_length", &s->head_dim, 2, 1024, false},
        {"rope.dimension_count", &h->rope_dims, 2, 1024, false},
    };
    TRY(read_fields(gguf, name, fields, ARRAY_LEN(fields), why));
    s->ctx_train = min_u32(s->ctx_train, MODEL_CTX_MAX);
    s->kv_heads = s->kv_heads ? s->kv_heads : s->heads;
    s->head_dim = s->head_dim ? s->head_dim : s->embed / s->heads;
    h->rope_dims = h->rope_dims ? h->rope_dims : s->head_dim;
    TRY(read_floats(gguf, name, h, why));
    TRY(check_shape(h, why));
    h->tied = !gguf_tensor(gguf, STR("output.weight"));
    const struct gguf_tensor *table = gguf_tensor(gguf, STR("token_embd.weight"));
    if (!table || table->dim_count != 2 || table->dim[1] > 1u << 20 || table->dim[1] < 1)
        return gguf_refuse(why, E_FORMAT,
                           "model: token_embd.weight is missing or not [embedding, vocabulary]");
    s->vocab = (u32)table->dim[1];
    choose_limits(config, outputs_max, s);
    for (u32 i = 0; i < gguf->tensor_count; i++)
        s->parameters += gguf->tensor[i].elements;
    return OK;
}
