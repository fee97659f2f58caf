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
    bool whole;
    f64 min, max;
};

#define ABOVE_0 1e-9

static bool wrong(struct server *server, enum fault_kind kind, const char *name, const char *want)
{
    return fault_set(server, kind, name, "Invalid '%s': expected %s.", name, want);
}

static void *field_of(struct server *server, const struct param *param)
{
    return (u8 *)&server->request + param->offset;
}

/* ---- readers of sampling and limits ---- */

static bool read_bool(struct server *server, const struct param *param, const struct json *value)
{
    *(bool *)field_of(server, param) = value->kind == JSON_TRUE;
    return value->kind == JSON_TRUE || value->kind == JSON_FALSE ||
           wrong(server, FAULT_TYPE, param->name, "a boolean");
}

static bool read_number(struct server *server, const struct param *param, const struct json *value)
{
    f64 number = 0;
    err e = value->kind == JSON_NUMBER ? str_to_f64(value->text, &number) : E_FORMAT;
    bool fits = e == OK && number >= param->min && number <= param->max;

    if (e == E_FORMAT || (fits && param->whole && number != (i32)number))
        return wrong(server, FAULT_TYPE, param->name, param->whole ? "a whole number" : "a number");
    if (fits && param->whole)
        *(i32 *)field_of(server, param) = (i32)number;
    else if (fits)
        *(f32 *)field_of(server, param) = (f32)number;
    return fits || fault_set(server, FAULT_VALUE, param->name, "Invalid '%s': expected %s%d to %d.",
                             param->name, param->min == ABOVE_0 ? "above " : "", (int)param->min,
                             (int)param->max);
}

static bool read_seed(struct server *server, const struct param *param, const struct json *value)
{
    struct ml_sampling *sampling = &server->request.ml.sampling;
    i64 seed;

    if (json_i64(value, &seed) != OK)
        return wrong(server, FAULT_TYPE, param->name, "a 64-bit integer");
    sampling->seed = (u64)seed;
    return sampling->has_seed = true;
}

static bool read_stop(struct server *server, const struct param *param, const struct json *value)
{
    struct ml_request *ml = &server->request.ml;
    const struct json *one = value->kind == JSON_ARRAY ? json_first(value) : value;
    u32 count = value->kind == JSON_ARRAY ? value->count : 1;

    for (ml->stop_count = 0; ml->stop_count < count; one = json_next(one)) {
        if (one->kind != JSON_STRING)
            return wrong(server, FAULT_TYPE, param->name, "a string or an array of strings");
        if (count > ML_STOPS_MAX || !one->text.len || one->text.len > ML_STOP_BYTES_MAX)
            return fault_set(server, FAULT_VALUE, param->name,
                             "Invalid 'stop': expected at most %u sequences of 1 to %u bytes.",
                             ML_STOPS_MAX, ML_STOP_BYTES_MAX);
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
        return wrong(server, FAULT_TYPE, param->name, "an object");
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
                                      : wrong(server, FAULT_TYPE, param->name, "a string");
}

/* ---- messages: each knows its member, the caller its place ---- */

static bool is_string(const struct json *value)
{
    return value && value->kind == JSON_STRING;
}

static bool read_role(struct server *server, const struct json *role, struct str *out)
{
    static const struct {
        struct str name, role; /* no role: tools are not supported */
    } roles[] = {{STR("system"), STR("system")}, {STR("developer"), STR("system")},
                 {STR("user"), STR("user")},     {STR("assistant"), STR("assistant")},
                 {STR("tool"), STR("")},         {STR("function"), STR("")}};

    if (!is_string(role))
        return wrong(server, role ? FAULT_TYPE : FAULT_MISSING, ".role", "a string");
    for (usize i = 0; i < ARRAY_LEN(roles); i++) {
        *out = roles[i].role;
        if (str_eq(role->text, roles[i].name))
            return out->len || wrong(server, FAULT_UNSUPPORTED, ".role", "no tools");
    }
    return wrong(server, FAULT_VALUE, ".role", "system, developer, user or assistant");
}

/* Text parts follow each other in one buffer: moved together, they are one string. */
static bool join_parts(struct server *server, const struct json *parts, struct str *out)
{
    const struct json *part = json_first(parts);

    for (u32 i = 0; i < parts->count; i++, part = json_next(part)) {
        const struct json *type = json_member(part, STR("type"));
        const struct json *text = json_member(part, STR("text"));
        if (is_string(type) && !str_eq(type->text, STR("text")))
            return wrong(server, FAULT_UNSUPPORTED, ".content", "parts of type text");
        if (!is_string(type) || !is_string(text))
            return wrong(server, FAULT_TYPE, ".content", "a type and a text in every part");
        char *from = (char *)(uintptr_t)text->text.ptr; /* the connection's own body */
        char *to = i ? (char *)(uintptr_t)out->ptr + out->len : from;
        memmove(to, from, text->text.len);
        *out = (struct str){i ? out->ptr : to, out->len + text->text.len};
    }
    return parts->count || wrong(server, FAULT_VALUE, ".content", "at least one part");
}

static bool read_message(struct server *server, const struct json *value,
                         struct ml_message *message)
{
    const struct json *content = json_member(value, STR("content"));
    const struct json *calls = json_member(value, STR("tool_calls"));

    *message = (struct ml_message){};
    if (value->kind != JSON_OBJECT)
        return wrong(server, FAULT_TYPE, "", "an object");
    if (!read_role(server, json_member(value, STR("role")), &message->role))
        return false;
    if (calls && calls->kind != JSON_NULL && calls->count)
        return wrong(server, FAULT_UNSUPPORTED, ".tool_calls", "no tools");
    if (content && content->kind == JSON_ARRAY)
        return join_parts(server, content, &message->content);
    if (!is_string(content))
        return wrong(server, content ? FAULT_TYPE : FAULT_MISSING, ".content",
                     "a string or an array of text parts");
    message->content = content->text;
    return true;
}

static bool read_messages(struct server *server, const struct param *param,
                          const struct json *value)
{
    const struct json *one = json_first(value);

    if (value->kind != JSON_ARRAY)
        return wrong(server, FAULT_TYPE, param->name, "an array");
    if (!value->count || value->count > MESSAGES_MAX)
        return wrong(server, FAULT_VALUE, param->name, "one message or more, but not thousands");
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

static bool read_tokens(struct server *server, const struct param *param, const struct json *value)
{
    const struct json *one = json_first(value);
    u32 vocab = server->on->model_info(server->ml)->vocab;

    for (u32 i = 0; i < value->count; i++, one = json_next(one)) {
        i64 token;
        if (json_i64(one, &token) != OK || token < 0 || token >= vocab)
            return wrong(server, FAULT_VALUE, param->name, "ids of the model's tokens");
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
            return wrong(server, FAULT_UNSUPPORTED, param->name, "one prompt at a time");
        value = json_first(value);
    }
    request->token_count = request->part_count = 0;
    if (value->kind == JSON_ARRAY && value->count)
        return read_tokens(server, param, value);
    if (!is_string(value))
        return wrong(server, FAULT_TYPE, param->name, "a string or an array of token ids");
    server->part = (struct ml_part){ML_PART_USER, value->text};
    request->part = &server->part;
    request->part_count = 1;
    return value->text.len || wrong(server, FAULT_VALUE, param->name, "some text");
}

/* ---- the fields ---- */

enum { CHAT = 1, TEXT = 2, BOTH = 3 };

#define AT(field)       offsetof(struct api_request, field)
#define SAMPLING(field) offsetof(struct api_request, ml.sampling.field)
#define TOP_MAX         ML_TOP_LOGPROBS_MAX

// clang-format off
static const struct param params[] = {
    {"model",                 BOTH, .read = read_model},
    {"messages",              CHAT, .read = read_messages},
    {"prompt",                TEXT, .read = read_prompt},
    {"stream",                BOTH, read_bool,   .offset = AT(stream)},
    {"stream_options",        BOTH, .read = read_options},
    {"max_tokens",            BOTH, read_number, AT(max_tokens),            true,  1, INT32_MAX},
    {"max_completion_tokens", CHAT, read_number, AT(max_completion_tokens), true,  1, INT32_MAX},
    {"temperature",           BOTH, read_number, SAMPLING(temperature),     false, 0, 2},
    {"top_p",                 BOTH, read_number, SAMPLING(top_p),           false, ABOVE_0, 1},
    {"min_p",                 BOTH, read_number, SAMPLING(min_p),           false, 0, 1},
    {"top_k",                 BOTH, read_number, AT(top_k),                 true,  -1, INT32_MAX},
    {"seed",                  BOTH, .read = read_seed},
    {"stop",                  BOTH, .read = read_stop},
    {"logprobs",              CHAT, read_bool,   .offset = SAMPLING(logprobs)},
    {"top_logprobs",          CHAT, read_number, AT(top_logprobs),          true,  0, TOP_MAX},
    {"logprobs",              TEXT, read_number, AT(text_logprobs),         true,  0, TOP_MAX},
    {"ignore_eos",            BOTH, read_bool,   .offset = AT(ml.ignore_eos)},
};
/* Known, but served with one value only; beside it null, false, [] and {} ask for nothing. */
static const struct {
    u32 api;
    const char *only; /* NULL: not even these */
    const char *names[5];
} unserved[] = {
    {BOTH, "1",      {"n", "repetition_penalty", "repeat_penalty"}},
    {BOTH, "0",      {"presence_penalty", "frequency_penalty"}},
    {BOTH, "text",   {"response_format"}},
    {BOTH, "",       {"logit_bias"}},
    {TEXT, "1",      {"best_of"}},
    {TEXT, "",       {"echo", "suffix"}},
    {CHAT, "text",   {"modalities"}},
    {CHAT, "",       {"tools", "functions", "audio", "prediction", "moderation"}},
    {CHAT, "none",   {"tool_choice", "function_call", "reasoning_effort"}},
    {CHAT, "medium", {"verbosity"}},
    {CHAT, NULL,     {"web_search_options"}},
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
        return wrong(server, FAULT_VALUE, "stream_options", "it only with 'stream': true");
    if (request->top_logprobs > 0 && !ml->sampling.logprobs)
        return wrong(server, FAULT_VALUE, "top_logprobs", "it only with 'logprobs': true");
    ml->sampling.logprobs |= request->text_logprobs >= 0;
    ml->sampling.top_logprobs = top > 0 ? (u32)top : 0;
    ml->sampling.top_k = request->top_k > 0 ? (u32)request->top_k : 0;
    ml->tokens_max = (u32)(request->max_completion_tokens ? request->max_completion_tokens
                                                          : request->max_tokens);
    return true;
}

/* {"type":"text"}, ["text"], "text", and numbers of the same value. */
static bool asks_for_nothing(const struct json *value, struct str only)
{
    f64 number;

    if (value->kind == JSON_OBJECT && only.len && json_member(value, STR("type")))
        value = json_member(value, STR("type"));
    else if (value->kind == JSON_ARRAY && value->count == 1 && only.len)
        value = json_first(value);
    if (value->kind == JSON_NUMBER)
        return only.len && str_to_f64(value->text, &number) == OK && number == only.ptr[0] - '0';
    if (value->kind == JSON_STRING)
        return str_eq(value->text, only);
    return value->kind == JSON_FALSE || (value->kind >= JSON_ARRAY && !value->count);
}

static bool check_unserved(struct server *server, const struct json *key, usize row)
{
    const char *const *name = unserved[row].names, *only = unserved[row].only;

    for (u32 i = 0; i < ARRAY_LEN(unserved[row].names) && name[i]; i++)
        if (str_eq(key->text, str_of(name[i])) &&
            !(only && asks_for_nothing(key + 1, str_of(only))))
            return fault_set(server, FAULT_UNSUPPORTED, name[i],
                             "'%s' is not supported with this value.", name[i]);
    return true;
}

static bool read_member(struct server *server, u32 api, const struct json *key)
{
    for (usize i = 0; i < ARRAY_LEN(params); i++)
        if (params[i].api & api && str_eq(key->text, str_of(params[i].name)))
            return params[i].read(server, &params[i], key + 1);
    for (usize i = 0; i < ARRAY_LEN(unserved); i++)
        if (unserved[i].api & api && !check_unserved(server, key, i))
            return false;
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
    for (u32 i = 0; i < body->count; i++, key = json_next(key + 1))
        if (key[1].kind != JSON_NULL && !read_member(server, chat ? CHAT : TEXT, key))
            return false;
    return settle(server);
}
