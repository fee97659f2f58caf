/*
 * api_params.c: the fields of a generation request, one row each: what we serve, in which range,
 * and what OpenAI's API knows and we do not. Unknown fields are ignored, null is the same as
 * absent, of two members with one name the last counts. Follows OpenAI's
 * CreateChatCompletionRequest and CreateCompletionRequest.
 */
#include "ml/mathf.h"
#include "net/priv.h"

enum param_type { BOOL, I32, F32, SEED, STOP, MODEL, PROMPT, OPTIONS, ONLY };
enum { CHAT = 1, TEXT = 2, BOTH = 3 };

struct param {
    const char *name;
    u8 api, type;
    u16 offset; /* in struct api_request */
    f64 min, max;
    const char *only; /* ONLY: the value that asks for nothing, beside null, false, [], {} */
};

#define AT(field)       offsetof(struct api_request, field)
#define SAMPLING(field) offsetof(struct api_request, ml.sampling.field)
#define ABOVE_0         1e-9
#define TOP_MAX         ML_TOP_LOGPROBS_MAX
#define TOP_MAX         ML_TOP_LOGPROBS_MAX

// clang-format off
static const struct param params[] = {
    {"model",                 BOTH, MODEL,   0,                         0, 0, NULL},
    {"messages",              CHAT, PROMPT,  0,                         0, 0, NULL},
    {"prompt",                TEXT, PROMPT,  0,                         0, 0, NULL},
    {"stream",                BOTH, BOOL,    AT(stream),                0, 0, NULL},
    {"stream_options",        BOTH, OPTIONS, 0,                         0, 0, NULL},
    {"max_tokens",            BOTH, I32,     AT(max_tokens),            1, INT32_MAX, NULL},
    {"max_completion_tokens", CHAT, I32,     AT(max_completion_tokens), 1, INT32_MAX, NULL},
    {"temperature",           BOTH, F32,     SAMPLING(temperature),     0, 2, NULL},
    {"top_p",                 BOTH, F32,     SAMPLING(top_p),           ABOVE_0, 1, NULL},
    {"min_p",                 BOTH, F32,     SAMPLING(min_p),           0, 1, NULL},
    {"top_k",                 BOTH, I32,     AT(top_k),                -1, INT32_MAX, NULL},
    {"seed",                  BOTH, SEED,    0,                         0, 0, NULL},
    {"stop",                  BOTH, STOP,    0,                         0, 0, NULL},
    {"logprobs",              CHAT, BOOL,    SAMPLING(logprobs),        0, 0, NULL},
    {"top_logprobs",          CHAT, I32,     AT(top_logprobs),          0, TOP_MAX, NULL},
    {"logprobs",              TEXT, I32,     AT(text_logprobs),         0, TOP_MAX, NULL},
    {"ignore_eos",            BOTH, BOOL,    AT(ml.ignore_eos),         0, 0, NULL},
    {"n",                     BOTH, ONLY,    0, 0, 0, "1"},
    {"best_of",               TEXT, ONLY,    0, 0, 0, "1"},
    {"echo",                  TEXT, ONLY,    0, 0, 0, ""},
    {"suffix",                TEXT, ONLY,    0, 0, 0, ""},
    {"presence_penalty",      BOTH, ONLY,    0, 0, 0, "0"},
    {"frequency_penalty",     BOTH, ONLY,    0, 0, 0, "0"},
    {"repetition_penalty",    BOTH, ONLY,    0, 0, 0, "1"},
    {"repeat_penalty",        BOTH, ONLY,    0, 0, 0, "1"},
    {"logit_bias",            BOTH, ONLY,    0, 0, 0, ""},
    {"response_format",       BOTH, ONLY,    0, 0, 0, "text"},
    {"modalities",            CHAT, ONLY,    0, 0, 0, "text"},
    {"tools",                 CHAT, ONLY,    0, 0, 0, ""},
    {"tool_choice",           CHAT, ONLY,    0, 0, 0, "none"},
    {"functions",             CHAT, ONLY,    0, 0, 0, ""},
    {"function_call",         CHAT, ONLY,    0, 0, 0, "none"},
    {"audio",                 CHAT, ONLY,    0, 0, 0, ""},
    {"prediction",            CHAT, ONLY,    0, 0, 0, ""},
    {"web_search_options",    CHAT, ONLY,    0, 0, 0, NULL},
    {"reasoning_effort",      CHAT, ONLY,    0, 0, 0, "none"},
    {"verbosity",             CHAT, ONLY,    0, 0, 0, "medium"},
    {"moderation",            CHAT, ONLY,    0, 0, 0, ""},
};
// clang-format on

struct read {
    struct server *server;
    struct api_request *request;
    struct fault *fault;
};

static const struct param *find_param(struct str name, bool chat);
static bool read_param(struct read *r, const struct param *param, const struct json *value);
static bool settle(struct read *r);

bool api_request_read(struct server *server, bool chat, struct api_request *request,
                      struct fault *fault)
{
    const struct json *body = server->json.node, *key = json_first(body);
    struct read r = {server, request, fault};

    *request = (struct api_request){.chat = chat, .top_logprobs = -1, .text_logprobs = -1};
    request->ml.sampling = (struct ml_sampling){.temperature = 1, .top_p = 1};
    request->max_tokens = chat ? 0 : 16; /* OpenAI's default for completions */
    if (body->kind != JSON_OBJECT)
        return fault_set(fault, FAULT_BAD_JSON, "", "The body must be a JSON object.");
    for (u32 i = 0; i < body->count; i++, key = json_next(key + 1)) {
        const struct param *param = find_param(key->text, chat);
        if (param && key[1].kind != JSON_NULL && !read_param(&r, param, key + 1))
            return false;
    }
    return settle(&r);
}

static const struct param *find_param(struct str name, bool chat)
{
    for (usize i = 0; i < ARRAY_LEN(params); i++)
        if ((params[i].api & (chat ? CHAT : TEXT)) && str_eq(name, str_of(params[i].name)))
            return &params[i];
    return NULL;
}

/* What only shows when all fields are known. */
static bool settle(struct read *r)
{
    struct api_request *request = r->request;
    struct ml_request *ml = &request->ml;

    if (!ml->message_count && !ml->part_count && !ml->token_count)
        return fault_set(r->fault, FAULT_MISSING, request->chat ? "messages" : "prompt",
                         "Missing required parameter: '%s'.",
                         request->chat ? "messages" : "prompt");
    if (request->stream_options && !request->stream)
        return fault_set(r->fault, FAULT_VALUE, "stream_options",
                         "'stream_options' is only allowed when 'stream' is true.");
    if (request->top_logprobs > 0 && !ml->sampling.logprobs)
        return fault_set(r->fault, FAULT_VALUE, "top_logprobs",
                         "'top_logprobs' is only allowed when 'logprobs' is true.");
    i32 top = request->chat ? request->top_logprobs : request->text_logprobs;
    ml->sampling.logprobs |= request->text_logprobs >= 0;
    ml->sampling.top_logprobs = top > 0 ? (u32)top : 0;
    ml->sampling.top_k = request->top_k > 0 ? (u32)request->top_k : 0;
    ml->tokens_max = (u32)(request->max_completion_tokens ? request->max_completion_tokens
                                                          : request->max_tokens);
    return true;
}

/* ---- one parameter ---- */

static bool wrong_type(struct read *r, const char *name, const char *wanted)
{
    return fault_set(r->fault, FAULT_TYPE, name, "Invalid type for '%s': expected %s.", name,
                     wanted);
}

static bool read_number(struct read *r, const struct param *param, const struct json *value)
{
    void *field = (u8 *)r->request + param->offset;
    i64 whole = 0;
    f64 real = 0;
    err e = value->kind != JSON_NUMBER ? E_FORMAT
            : param->type == F32       ? str_to_f64(value->text, &real)
                                       : json_i64(value, &whole);

    if (e == E_FORMAT)
        return wrong_type(r, param->name, param->type == F32 ? "a number" : "an integer");
    real = param->type == F32 ? real : (f64)whole;
    if (e != OK || real < param->min || real > param->max)
        return fault_set(r->fault, FAULT_VALUE, param->name,
                         "Invalid '%s': expected a value %s %d and at most %d.", param->name,
                         param->min == ABOVE_0 ? "above" : "of at least", (int)param->min,
                         (int)param->max);
    if (param->type == F32)
        *(f32 *)field = (f32)real;
    else
        *(i32 *)field = (i32)whole;
    return true;
}

static bool read_bool(struct read *r, const char *name, const struct json *value, bool *field)
{
    if (value->kind != JSON_TRUE && value->kind != JSON_FALSE)
        return wrong_type(r, name, "a boolean");
    *field = value->kind == JSON_TRUE;
    return true;
}

static bool read_seed(struct read *r, const struct json *value)
{
    i64 seed;

    if (json_i64(value, &seed) != OK)
        return wrong_type(r, "seed", "a 64-bit integer");
    r->request->ml.sampling.seed = (u64)seed;
    r->request->ml.sampling.has_seed = true;
    return true;
}

static bool read_stop(struct read *r, const struct json *value)
{
    struct ml_request *ml = &r->request->ml;
    bool list = value->kind == JSON_ARRAY;
    const struct json *one = list ? json_first(value) : value;
    u32 count = list ? value->count : 1;

    ml->stop_count = 0;
    if (count > ML_STOPS_MAX)
        return fault_set(r->fault, FAULT_VALUE, "stop", "Invalid 'stop': at most %u sequences.",
                         ML_STOPS_MAX);
    for (; ml->stop_count < count; one = json_next(one)) {
        if (one->kind != JSON_STRING)
            return wrong_type(r, "stop", "a string or an array of strings");
        if (!one->text.len || one->text.len > ML_STOP_BYTES_MAX)
            return fault_set(r->fault, FAULT_VALUE, "stop",
                             "Invalid 'stop': a sequence has 1 to %u bytes.", ML_STOP_BYTES_MAX);
        ml->stop[ml->stop_count++] = one->text;
    }
    return true;
}

static bool read_options(struct read *r, const struct json *value)
{
    const struct json *usage = json_member(value, STR("include_usage"));

    if (value->kind != JSON_OBJECT)
        return wrong_type(r, "stream_options", "an object");
    r->request->stream_options = true;
    return !usage || usage->kind == JSON_NULL ||
           read_bool(r, "stream_options.include_usage", usage, &r->request->include_usage);
}

/* Clients carry hub names along, so "org/name" in any case of letters finds "name"; and those that
 * must send some name, but do not care, send one of two words. */
bool api_model_known(struct server *server, struct str name, struct fault *fault)
{
    struct str id = server->on->model_info(server->ml)->id;
    usize tail = name.len > id.len ? name.len - id.len : 0;
    bool whole = tail == 0 || name.ptr[tail - 1] == '/';

    if (!name.len || str_eq(name, STR("any")) || str_eq(name, STR("default")) ||
        (whole && str_eq_nocase(str_slice(name, tail, name.len), id)))
        return true;
    return fault_set(fault, FAULT_NO_MODEL, "model", "The model '%.*s' does not exist.",
                     (int)min_u64(name.len, 120), name.ptr);
}

/* {"type":"text"}, ["text"], "text" and numbers of the same value. */
static bool is_only(const struct param *param, const struct json *value)
{
    struct str only = str_of(param->only);
    f64 number;

    if (value->kind == JSON_OBJECT && only.len)
        value = json_member(value, STR("type"));
    else if (value->kind == JSON_ARRAY && value->count == 1 && only.len)
        value = json_first(value);
    if (!value || !param->only)
        return false;
    if (value->kind == JSON_NUMBER)
        return only.len && str_to_f64(value->text, &number) == OK && number == only.ptr[0] - '0';
    if (value->kind == JSON_STRING)
        return str_eq(value->text, only);
    return value->kind == JSON_FALSE || (value->count == 0 && value->kind >= JSON_ARRAY);
}

static bool read_param(struct read *r, const struct param *param, const struct json *value)
{
    switch ((enum param_type)param->type) {
    case BOOL:
        return read_bool(r, param->name, value, (bool *)((u8 *)r->request + param->offset));
    case I32:
    case F32:
        return read_number(r, param, value);
    case SEED:
        return read_seed(r, value);
    case STOP:
        return read_stop(r, value);
    case MODEL:
        return value->kind == JSON_STRING ? api_model_known(r->server, value->text, r->fault)
                                          : wrong_type(r, "model", "a string");
    case OPTIONS:
        return read_options(r, value);
    case PROMPT:
        return r->request->chat ? api_messages_read(r->server, value, &r->request->ml, r->fault)
                                : api_prompt_read(r->server, value, &r->request->ml, r->fault);
    case ONLY:
        return is_only(param, value) ||
               fault_set(r->fault, FAULT_UNSUPPORTED, param->name,
                         "'%s' is not supported with this value by this server.", param->name);
    }
    return true;
}
