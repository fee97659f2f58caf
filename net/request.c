/*
 * request.c: the body of a generation request, one row per field: what we serve, in which range,
 * and what OpenAI's API knows and we do not. Unknown fields are ignored, null is the same as
 * absent, of two members with one name the last counts. Text stays where the JSON reader has
 * decoded it. Must not know templates or tokens. Follows OpenAI's CreateChatCompletionRequest and
 * CreateCompletionRequest.
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

/* ---- readers of sampling and limits ---- */

static bool read_bool(struct server *server, const struct param *param, const struct json *value)
{
    if (value->kind != JSON_TRUE && value->kind != JSON_FALSE)
        return wrong_type(server, param->name, "a boolean");
    *(bool *)field_of(server, param) = value->kind == JSON_TRUE;
    return true;
}

static bool in_range(struct server *server, const struct param *param, err e, f64 number)
{
    if (e == E_FORMAT)
        return wrong_type(server, param->name, "a number, whole where it counts something");
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

    *(i32 *)field_of(server, param) = (i32)number;
    return in_range(server, param, e, (f64)number);
}

static bool read_f32(struct server *server, const struct param *param, const struct json *value)
{
    f64 number = 0;
    err e = value->kind == JSON_NUMBER ? str_to_f64(value->text, &number) : E_FORMAT;

    *(f32 *)field_of(server, param) = e == OK ? (f32)number : 0;
    return in_range(server, param, e, number);
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
    const struct json *one = value->kind == JSON_ARRAY ? json_first(value) : value;
    u32 count = value->kind == JSON_ARRAY ? value->count : 1;

    for (ml->stop_count = 0; ml->stop_count < count; one = json_next(one)) {
        if (one->kind != JSON_STRING)
            return wrong_type(server, param->name, "a string or an array of strings");
        if (count > ML_STOPS_MAX || !one->text.len || one->text.len > ML_STOP_BYTES_MAX)
            return fault_set(server, FAULT_VALUE, "stop",
                             "Invalid 'stop': at most %u sequences of 1 to %u bytes.", ML_STOPS_MAX,
                             ML_STOP_BYTES_MAX);
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
bool request_model_known(struct server *server, struct str name)
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
    return value->kind == JSON_STRING ? request_model_known(server, value->text)
                                      : wrong_type(server, param->name, "a string");
}

/* {"type":"text"}, ["text"], "text", and numbers of the same value, ask for nothing. */
static bool read_only(struct server *server, const struct param *param, const struct json *value)
{
    const char *name = param->name;
    struct str only = str_of(param->only);
    f64 number;

    if (value->kind == JSON_OBJECT && only.len && json_member(value, STR("type")))
        value = json_member(value, STR("type"));
    else if (value->kind == JSON_ARRAY && value->count == 1 && only.len)
        value = json_first(value);
    bool nothing = value->kind == JSON_FALSE || (value->kind >= JSON_ARRAY && !value->count);
    if (value->kind == JSON_NUMBER && only.len)
        nothing = str_to_f64(value->text, &number) == OK && number == only.ptr[0] - '0';
    if (value->kind == JSON_STRING)
        nothing = str_eq(value->text, only);
    return (param->only && nothing) || fault_set(server, FAULT_UNSUPPORTED, name,
                                                 "'%s' is not supported with this value.", name);
}

/* ---- messages: each knows its member, the caller its place ---- */

static bool read_role(struct server *server, const struct json *role, struct str *out)
{
    static const struct str known[] = {STR("system"), STR("user"), STR("assistant")};

    if (!role || role->kind != JSON_STRING)
        return fault_set(server, role ? FAULT_TYPE : FAULT_MISSING, ".role", "Expected a string.");
    for (usize i = 0; i < ARRAY_LEN(known); i++)
        if (str_eq(role->text, known[i]))
            *out = known[i];
    if (str_eq(role->text, STR("developer"))) /* OpenAI's newer name of the same */
        *out = known[0];
    if (str_eq(role->text, STR("tool")) || str_eq(role->text, STR("function")))
        return fault_set(server, FAULT_UNSUPPORTED, ".role", "Tools are not supported.");
    return out->len || fault_set(server, FAULT_VALUE, ".role",
                                 "Expected system, developer, user or assistant.");
}

/* Text parts follow each other in one buffer: moved together, they are one string. */
static bool join_parts(struct server *server, const struct json *parts, struct str *out)
{
    const struct json *part = json_first(parts);

    for (u32 i = 0; i < parts->count; i++, part = json_next(part)) {
        const struct json *type = json_member(part, STR("type"));
        const struct json *text = json_member(part, STR("text"));
        bool other = type && type->kind == JSON_STRING && !str_eq(type->text, STR("text"));
        if (other)
            return fault_set(server, FAULT_UNSUPPORTED, ".content",
                             "Part %u is of type '%.*s', only text is supported.", i,
                             (int)min_u64(type->text.len, 40), type->text.ptr);
        if (!type || type->kind != JSON_STRING || !text || text->kind != JSON_STRING)
            return fault_set(server, FAULT_TYPE, ".content", "Part %u has no type or text.", i);
        char *from = (char *)(uintptr_t)text->text.ptr; /* the connection's own body */
        char *to = i ? (char *)(uintptr_t)out->ptr + out->len : from;
        memmove(to, from, text->text.len);
        *out = (struct str){i ? out->ptr : to, out->len + text->text.len};
    }
    return parts->count || fault_set(server, FAULT_VALUE, ".content", "The array is empty.");
}

static bool read_message(struct server *server, const struct json *value,
                         struct ml_message *message)
{
    const struct json *content = json_member(value, STR("content"));
    const struct json *calls = json_member(value, STR("tool_calls"));

    *message = (struct ml_message){};
    if (value->kind != JSON_OBJECT)
        return fault_set(server, FAULT_TYPE, "", "Expected an object.");
    if (!read_role(server, json_member(value, STR("role")), &message->role))
        return false;
    if (calls && calls->kind != JSON_NULL && calls->count)
        return fault_set(server, FAULT_UNSUPPORTED, ".tool_calls", "Tools are not supported.");
    if (content && content->kind == JSON_ARRAY)
        return join_parts(server, content, &message->content);
    if (!content || content->kind != JSON_STRING)
        return fault_set(server, content ? FAULT_TYPE : FAULT_MISSING, ".content",
                         "Expected a string or an array of text parts.");
    message->content = content->text;
    return true;
}

static bool read_messages(struct server *server, const struct param *param,
                          const struct json *value)
{
    const struct json *one = json_first(value);

    if (value->kind != JSON_ARRAY)
        return wrong_type(server, param->name, "an array");
    if (!value->count || value->count > MESSAGES_MAX)
        return fault_set(server, FAULT_VALUE, "messages", "Expected 1 to %u messages.",
                         MESSAGES_MAX);
    for (u32 i = 0; i < value->count; i++, one = json_next(one)) {
        if (!read_message(server, one, &server->message[i])) {
            struct fault *fault = &server->fault, member = *fault;
            struct text place = {fault->param, 0, sizeof(fault->param) - 1, false};
            text_fmt(&place, "messages[%u]%s", i, member.param);
            return false;
        }
    }
    server->request.ml.message = server->message;
    server->request.ml.message_count = value->count;
    return true;
}

/* ---- prompt: a string, an array of token ids, or an array of exactly one of these ---- */

static bool read_tokens(struct server *server, const struct json *value)
{
    const struct json *one = json_first(value);
    u32 vocab = server->on->model_info(server->ml)->vocab;

    for (u32 i = 0; i < value->count; i++, one = json_next(one)) {
        i64 token;
        if (json_i64(one, &token) != OK || token < 0 || token >= vocab)
            return fault_set(server, FAULT_VALUE, "prompt", "Item %u is no token id below %u.", i,
                             vocab);
        server->token[i] = (u32)token;
    }
    server->request.ml.token = server->token;
    server->request.ml.token_count = value->count;
    return true;
}

static bool read_prompt(struct server *server, const struct param *param, const struct json *value)
{
    struct ml_request *request = &server->request.ml;

    if (value->kind == JSON_ARRAY && value->count && json_first(value)->kind != JSON_NUMBER) {
        if (value->count > 1)
            return fault_set(server, FAULT_UNSUPPORTED, "prompt", "Only one prompt at a time.");
        value = json_first(value);
    }
    request->token_count = request->part_count = 0;
    if (value->kind == JSON_ARRAY && value->count)
        return read_tokens(server, value);
    if (value->kind != JSON_STRING)
        return wrong_type(server, param->name, "a string or an array of token ids");
    server->part = (struct ml_part){ML_PART_USER, value->text};
    request->part = &server->part;
    request->part_count = 1;
    return value->text.len || fault_set(server, FAULT_VALUE, "prompt", "The prompt is empty.");
}

/* ---- the fields ---- */

enum { CHAT = 1, TEXT = 2, BOTH = 3 };

#define AT(field)       offsetof(struct api_request, field)
#define SAMPLING(field) offsetof(struct api_request, ml.sampling.field)
#define TOP_MAX         ML_TOP_LOGPROBS_MAX

// clang-format off
static const struct param params[] = {
    {"model",                 BOTH, read_model,    0,                         0, 0, NULL},
    {"messages",              CHAT, read_messages, 0,                         0, 0, NULL},
    {"prompt",                TEXT, read_prompt,   0,                         0, 0, NULL},
    {"stream",                BOTH, read_bool,     AT(stream),                0, 0, NULL},
    {"stream_options",        BOTH, read_options,  0,                         0, 0, NULL},
    {"max_tokens",            BOTH, read_i32,      AT(max_tokens),            1, INT32_MAX, NULL},
    {"max_completion_tokens", CHAT, read_i32,      AT(max_completion_tokens), 1, INT32_MAX, NULL},
    {"temperature",           BOTH, read_f32,      SAMPLING(temperature),     0, 2, NULL},
    {"top_p",                 BOTH, read_f32,      SAMPLING(top_p),           ABOVE_0, 1, NULL},
    {"min_p",                 BOTH, read_f32,      SAMPLING(min_p),           0, 1, NULL},
    {"top_k",                 BOTH, read_i32,      AT(top_k),                 -1, INT32_MAX, NULL},
    {"seed",                  BOTH, read_seed,     0,                         0, 0, NULL},
    {"stop",                  BOTH, read_stop,     0,                         0, 0, NULL},
    {"logprobs",              CHAT, read_bool,     SAMPLING(logprobs),        0, 0, NULL},
    {"top_logprobs",          CHAT, read_i32,      AT(top_logprobs),          0, TOP_MAX, NULL},
    {"logprobs",              TEXT, read_i32,      AT(text_logprobs),         0, TOP_MAX, NULL},
    {"ignore_eos",            BOTH, read_bool,     AT(ml.ignore_eos),         0, 0, NULL},
    {"n",                     BOTH, read_only,     0,                         0, 0, "1"},
    {"best_of",               TEXT, read_only,     0,                         0, 0, "1"},
    {"echo",                  TEXT, read_only,     0,                         0, 0, ""},
    {"suffix",                TEXT, read_only,     0,                         0, 0, ""},
    {"presence_penalty",      BOTH, read_only,     0,                         0, 0, "0"},
    {"frequency_penalty",     BOTH, read_only,     0,                         0, 0, "0"},
    {"repetition_penalty",    BOTH, read_only,     0,                         0, 0, "1"},
    {"repeat_penalty",        BOTH, read_only,     0,                         0, 0, "1"},
    {"logit_bias",            BOTH, read_only,     0,                         0, 0, ""},
    {"response_format",       BOTH, read_only,     0,                         0, 0, "text"},
    {"modalities",            CHAT, read_only,     0,                         0, 0, "text"},
    {"tools",                 CHAT, read_only,     0,                         0, 0, ""},
    {"tool_choice",           CHAT, read_only,     0,                         0, 0, "none"},
    {"functions",             CHAT, read_only,     0,                         0, 0, ""},
    {"function_call",         CHAT, read_only,     0,                         0, 0, "none"},
    {"audio",                 CHAT, read_only,     0,                         0, 0, ""},
    {"prediction",            CHAT, read_only,     0,                         0, 0, ""},
    {"web_search_options",    CHAT, read_only,     0,                         0, 0, NULL},
    {"reasoning_effort",      CHAT, read_only,     0,                         0, 0, "none"},
    {"verbosity",             CHAT, read_only,     0,                         0, 0, "medium"},
    {"moderation",            CHAT, read_only,     0,                         0, 0, ""},
};
// clang-format on

/* What only shows when all fields are known. */
static bool settle(struct server *server)
{
    struct api_request *request = &server->request;
    struct ml_request *ml = &request->ml;
    const char *prompt = request->chat ? "messages" : "prompt";
    i32 top = request->chat ? request->top_logprobs : request->text_logprobs;

    if (!ml->message_count && !ml->part_count && !ml->token_count)
        return fault_set(server, FAULT_MISSING, prompt, "Missing required parameter: '%s'.",
                         prompt);
    if (request->stream_options && !request->stream)
        return fault_set(server, FAULT_VALUE, "stream_options",
                         "'stream_options' is only allowed when 'stream' is true.");
    if (request->top_logprobs > 0 && !ml->sampling.logprobs)
        return fault_set(server, FAULT_VALUE, "top_logprobs",
                         "'top_logprobs' is only allowed when 'logprobs' is true.");
    ml->sampling.logprobs |= request->text_logprobs >= 0;
    ml->sampling.top_logprobs = top > 0 ? (u32)top : 0;
    ml->sampling.top_k = request->top_k > 0 ? (u32)request->top_k : 0;
    ml->tokens_max = (u32)(request->max_completion_tokens ? request->max_completion_tokens
                                                          : request->max_tokens);
    return true;
}

bool request_read(struct server *server, bool chat)
{
    const struct json *body = server->json.node, *key = json_first(body);
    struct api_request *request = &server->request;

    *request = (struct api_request){.chat = chat, .text_logprobs = -1};
    request->ml.sampling = (struct ml_sampling){.temperature = 1, .top_p = 1};
    request->max_tokens = chat ? 0 : 16; /* OpenAI's default for completions */
    if (body->kind != JSON_OBJECT)
        return fault_set(server, FAULT_BAD_JSON, "", "The body must be a JSON object.");
    for (u32 i = 0; i < body->count; i++, key = json_next(key + 1)) {
        const struct param *param = params, *end = params + ARRAY_LEN(params);
        while (param < end &&
               (!(param->api & (chat ? CHAT : TEXT)) || !str_eq(key->text, str_of(param->name))))
            param++;
        if (param < end && key[1].kind != JSON_NULL && !param->read(server, param, key + 1))
            return false;
    }
    return settle(server);
}
