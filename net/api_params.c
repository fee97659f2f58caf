/*
 * api_params.c: the fields of a generation request, one row each: what we serve, in which range,
 * and what OpenAI's API knows and we do not. Unknown fields are ignored, null is the same as
 * absent, of two members with one name the last counts. Follows OpenAI's
 * CreateChatCompletionRequest and CreateCompletionRequest.
 */
#include "ml/mathf.h"
#include "net/priv.h"

struct param {
    const char *name;
    u32 api;
    bool (*read)(struct server *server, const struct param *param, const struct json *value);
    usize offset; /* in struct api_request */
    f64 min, max;
    const char *only; /* the value that asks for nothing, beside null, false, [], {} */
};

#define ABOVE_0 1e-9

static bool wrong_type(struct server *server, const char *name, const char *wanted)
{
    return fault_set(server, FAULT_TYPE, name, "Invalid type for '%s': expected %s.", name, wanted);
}

static void *field_of(struct server *server, const struct param *param)
{
    return (u8 *)&server->request + param->offset;
}

/* ---- readers ---- */

static bool read_bool(struct server *server, const struct param *param, const struct json *value)
{
    if (value->kind != JSON_TRUE && value->kind != JSON_FALSE)
        return wrong_type(server, param->name, "a boolean");
    *(bool *)field_of(server, param) = value->kind == JSON_TRUE;
    return true;
}

static bool in_range(struct server *server, const struct param *param, err e, f64 number)
{
    return (e == OK && number >= param->min && number <= param->max) ||
           fault_set(server, FAULT_VALUE, param->name,
                     "Invalid '%s': expected a value %s %d and at most %d.", param->name,
                     param->min == ABOVE_0 ? "above" : "of at least", (int)param->min,
                     (int)param->max);
}

static bool read_i32(struct server *server, const struct param *param, const struct json *value)
{
    i64 number = 0;
    err e = json_i64(value, &number);

    if (e == E_FORMAT)
        return wrong_type(server, param->name, "an integer");
    *(i32 *)field_of(server, param) = (i32)number;
    return in_range(server, param, e, (f64)number);
}

static bool read_f32(struct server *server, const struct param *param, const struct json *value)
{
    f64 number = 0;
    err e = value->kind == JSON_NUMBER ? str_to_f64(value->text, &number) : E_FORMAT;

    if (e == E_FORMAT)
        return wrong_type(server, param->name, "a number");
    if (!in_range(server, param, e, number))
        return false;
    *(f32 *)field_of(server, param) = (f32)number;
    return true;
}

static bool read_seed(struct server *server, const struct param *param, const struct json *value)
{
    i64 seed;

    if (json_i64(value, &seed) != OK)
        return wrong_type(server, param->name, "a 64-bit integer");
    server->request.ml.sampling.seed = (u64)seed;
    server->request.ml.sampling.has_seed = true;
    return true;
}

static bool read_stop(struct server *server, const struct param *param, const struct json *value)
{
    struct ml_request *ml = &server->request.ml;
    bool list = value->kind == JSON_ARRAY;
    const struct json *one = list ? json_first(value) : value;
    u32 count = list ? value->count : 1;

    ml->stop_count = 0;
    if (count > ML_STOPS_MAX)
        return fault_set(server, FAULT_VALUE, "stop", "Invalid 'stop': at most %u sequences.",
                         ML_STOPS_MAX);
    for (; ml->stop_count < count; one = json_next(one)) {
        if (one->kind != JSON_STRING)
            return wrong_type(server, param->name, "a string or an array of strings");
        if (!one->text.len || one->text.len > ML_STOP_BYTES_MAX)
            return fault_set(server, FAULT_VALUE, "stop",
                             "Invalid 'stop': a sequence has 1 to %u bytes.", ML_STOP_BYTES_MAX);
        ml->stop[ml->stop_count++] = one->text;
    }
    return true;
}

static bool read_options(struct server *server, const struct param *param, const struct json *value)
{
    static const struct param usage = {.name = "stream_options.include_usage",
                                       .offset = offsetof(struct api_request, include_usage)};
    const struct json *member = json_member(value, STR("include_usage"));

    if (value->kind != JSON_OBJECT)
        return wrong_type(server, param->name, "an object");
    server->request.stream_options = true;
    return !member || member->kind == JSON_NULL || read_bool(server, &usage, member);
}

/* Clients carry hub names along, so "org/name" in any case of letters finds "name"; and those that
 * must send some name, but do not care, send one of two words. */
bool api_model_known(struct server *server, struct str name)
{
    struct str id = server->on->model_info(server->ml)->id;
    usize tail = name.len > id.len ? name.len - id.len : 0;
    bool whole = tail == 0 || name.ptr[tail - 1] == '/';

    return !name.len || str_eq(name, STR("any")) || str_eq(name, STR("default")) ||
           (whole && str_eq_nocase(str_slice(name, tail, name.len), id)) ||
           fault_set(server, FAULT_NO_MODEL, "model", "The model '%.*s' does not exist.",
                     (int)min_u64(name.len, 120), name.ptr);
}

static bool read_model(struct server *server, const struct param *param, const struct json *value)
{
    return value->kind == JSON_STRING ? api_model_known(server, value->text)
                                      : wrong_type(server, param->name, "a string");
}

/* {"type":"text"}, ["text"], "text" and numbers of the same value. */
static bool asks_for_nothing(struct str only, const struct json *value)
{
    f64 number;

    if (value->kind == JSON_OBJECT && only.len)
        value = json_member(value, STR("type"));
    else if (value->kind == JSON_ARRAY && value->count == 1 && only.len)
        value = json_first(value);
    if (!value)
        return false;
    if (value->kind == JSON_NUMBER)
        return only.len && str_to_f64(value->text, &number) == OK && number == only.ptr[0] - '0';
    if (value->kind == JSON_STRING)
        return str_eq(value->text, only);
    return value->kind == JSON_FALSE || (value->count == 0 && value->kind >= JSON_ARRAY);
}

static bool read_only(struct server *server, const struct param *param, const struct json *value)
{
    return (param->only && asks_for_nothing(str_of(param->only), value)) ||
           fault_set(server, FAULT_UNSUPPORTED, param->name,
                     "'%s' is not supported with this value by this server.", param->name);
}

/* ---- the fields ---- */

enum { CHAT = 1, TEXT = 2, BOTH = 3 };

#define AT(field)       offsetof(struct api_request, field)
#define SAMPLING(field) offsetof(struct api_request, ml.sampling.field)
#define TOP_MAX         ML_TOP_LOGPROBS_MAX

// clang-format off
static const struct param params[] = {
    {"model",                 BOTH, read_model,   0,                          0, 0, NULL},
    {"messages",              CHAT, api_messages, 0,                          0, 0, NULL},
    {"prompt",                TEXT, api_prompt,   0,                          0, 0, NULL},
    {"stream",                BOTH, read_bool,    AT(stream),                 0, 0, NULL},
    {"stream_options",        BOTH, read_options, 0,                          0, 0, NULL},
    {"max_tokens",            BOTH, read_i32,     AT(max_tokens),             1, INT32_MAX, NULL},
    {"max_completion_tokens", CHAT, read_i32,     AT(max_completion_tokens),  1, INT32_MAX, NULL},
    {"temperature",           BOTH, read_f32,     SAMPLING(temperature),      0, 2, NULL},
    {"top_p",                 BOTH, read_f32,     SAMPLING(top_p),            ABOVE_0, 1, NULL},
    {"min_p",                 BOTH, read_f32,     SAMPLING(min_p),            0, 1, NULL},
    {"top_k",                 BOTH, read_i32,     AT(top_k),                  -1, INT32_MAX, NULL},
    {"seed",                  BOTH, read_seed,    0,                          0, 0, NULL},
    {"stop",                  BOTH, read_stop,    0,                          0, 0, NULL},
    {"logprobs",              CHAT, read_bool,    SAMPLING(logprobs),         0, 0, NULL},
    {"top_logprobs",          CHAT, read_i32,     AT(top_logprobs),           0, TOP_MAX, NULL},
    {"logprobs",              TEXT, read_i32,     AT(text_logprobs),          0, TOP_MAX, NULL},
    {"ignore_eos",            BOTH, read_bool,    AT(ml.ignore_eos),          0, 0, NULL},
    {"n",                     BOTH, read_only,    0,                          0, 0, "1"},
    {"best_of",               TEXT, read_only,    0,                          0, 0, "1"},
    {"echo",                  TEXT, read_only,    0,                          0, 0, ""},
    {"suffix",                TEXT, read_only,    0,                          0, 0, ""},
    {"presence_penalty",      BOTH, read_only,    0,                          0, 0, "0"},
    {"frequency_penalty",     BOTH, read_only,    0,                          0, 0, "0"},
    {"repetition_penalty",    BOTH, read_only,    0,                          0, 0, "1"},
    {"repeat_penalty",        BOTH, read_only,    0,                          0, 0, "1"},
    {"logit_bias",            BOTH, read_only,    0,                          0, 0, ""},
    {"response_format",       BOTH, read_only,    0,                          0, 0, "text"},
    {"modalities",            CHAT, read_only,    0,                          0, 0, "text"},
    {"tools",                 CHAT, read_only,    0,                          0, 0, ""},
    {"tool_choice",           CHAT, read_only,    0,                          0, 0, "none"},
    {"functions",             CHAT, read_only,    0,                          0, 0, ""},
    {"function_call",         CHAT, read_only,    0,                          0, 0, "none"},
    {"audio",                 CHAT, read_only,    0,                          0, 0, ""},
    {"prediction",            CHAT, read_only,    0,                          0, 0, ""},
    {"web_search_options",    CHAT, read_only,    0,                          0, 0, NULL},
    {"reasoning_effort",      CHAT, read_only,    0,                          0, 0, "none"},
    {"verbosity",             CHAT, read_only,    0,                          0, 0, "medium"},
    {"moderation",            CHAT, read_only,    0,                          0, 0, ""},
};
// clang-format on

static const struct param *find_param(struct str name, bool chat)
{
    for (usize i = 0; i < ARRAY_LEN(params); i++)
        if ((params[i].api & (chat ? CHAT : TEXT)) && str_eq(name, str_of(params[i].name)))
            return &params[i];
    return NULL;
}

/* What only shows when all fields are known. */
static bool settle(struct server *server)
{
    struct api_request *request = &server->request;
    struct ml_request *ml = &request->ml;
    const char *prompt = request->chat ? "messages" : "prompt";

    if (!ml->message_count && !ml->part_count && !ml->token_count)
        return fault_set(server, FAULT_MISSING, prompt, "Missing required parameter: '%s'.",
                         prompt);
    if (request->stream_options && !request->stream)
        return fault_set(server, FAULT_VALUE, "stream_options",
                         "'stream_options' is only allowed when 'stream' is true.");
    if (request->top_logprobs > 0 && !ml->sampling.logprobs)
        return fault_set(server, FAULT_VALUE, "top_logprobs",
                         "'top_logprobs' is only allowed when 'logprobs' is true.");
    i32 top = request->chat ? request->top_logprobs : request->text_logprobs;
    ml->sampling.logprobs |= request->text_logprobs >= 0;
    ml->sampling.top_logprobs = top > 0 ? (u32)top : 0;
    ml->sampling.top_k = request->top_k > 0 ? (u32)request->top_k : 0;
    ml->tokens_max = (u32)(request->max_completion_tokens ? request->max_completion_tokens
                                                          : request->max_tokens);
    return true;
}

bool api_request_read(struct server *server, bool chat)
{
    const struct json *body = server->json.node, *key = json_first(body);
    struct api_request *request = &server->request;

    *request = (struct api_request){.chat = chat, .text_logprobs = -1};
    request->ml.sampling = (struct ml_sampling){.temperature = 1, .top_p = 1};
    request->max_tokens = chat ? 0 : 16; /* OpenAI's default for completions */
    if (body->kind != JSON_OBJECT)
        return fault_set(server, FAULT_BAD_JSON, "", "The body must be a JSON object.");
    for (u32 i = 0; i < body->count; i++, key = json_next(key + 1)) {
        const struct param *param = find_param(key->text, chat);
        if (param && key[1].kind != JSON_NULL && !param->read(server, param, key + 1))
            return false;
    }
    return settle(server);
}
