/*
 * api_input.c: the prompt of a request: "messages" of chat, "prompt" of completions. Text stays where
 * the JSON reader has decoded it. Must not know templates or tokens.
 */
#include "net/priv.h"

struct place {
    u32 message;
    struct fault *fault;
};

static bool read_message(struct server *server, const struct json *value, struct place at);

bool api_messages_read(struct server *server, const struct json *value, struct ml_request *request,
                       struct fault *fault)
{
    const struct json *one = json_first(value);

    if (value->kind != JSON_ARRAY)
        return fault_set(fault, FAULT_TYPE, "messages",
                         "Invalid type for 'messages': expected an array of objects.");
    if (!value->count || value->count > MESSAGES_MAX)
        return fault_set(fault, FAULT_VALUE, "messages", "Invalid 'messages': 1 to %u messages.",
                         MESSAGES_MAX);
    for (u32 i = 0; i < value->count; i++, one = json_next(one))
        if (!read_message(server, one, (struct place){i, fault}))
            return false;
    request->message = server->message;
    request->message_count = value->count;
    return true;
}

__attribute__((format(printf, 4, 5))) static bool
wrong(struct place at, enum fault_kind kind, const char *member, const char *format, ...)
{
    char param[sizeof(at.fault->param)], why[sizeof(at.fault->text)];
    struct text where = {param, 0, sizeof(param) - 1, false}, text = {why, 0, sizeof(why) - 1, false};
    va_list args;

    va_start(args, format);
    text_vfmt(&text, format, args);
    va_end(args);
    text_fmt(&where, "messages[%u]%s", at.message, member);
    param[where.len] = why[text.len] = 0;
    return fault_set(at.fault, kind, param, "Invalid '%s': %s.", param, why);
}

/* ---- one message ---- */

static bool read_role(const struct json *role, struct str *out, struct place at)
{
    static const struct {
        struct str role, as;
    } roles[] = {
        {STR("system"), STR("system")},
        {STR("developer"), STR("system")}, /* OpenAI's newer name of the same */
        {STR("user"), STR("user")},
        {STR("assistant"), STR("assistant")},
    };

    if (!role || role->kind != JSON_STRING)
        return wrong(at, role ? FAULT_TYPE : FAULT_MISSING, ".role", "expected a string");
    for (usize i = 0; i < ARRAY_LEN(roles); i++) {
        if (str_eq(role->text, roles[i].role)) {
            *out = roles[i].as;
            return true;
        }
    }
    bool tool = str_eq(role->text, STR("tool")) || str_eq(role->text, STR("function"));
    return wrong(at, tool ? FAULT_UNSUPPORTED : FAULT_VALUE, ".role", "'%.*s' is not %s",
                 (int)min_u64(role->text.len, 40), role->text.ptr,
                 tool ? "supported by this server" : "system, developer, user or assistant");
}

/* Text parts follow each other in one buffer: moved together, they are one string. */
static bool join_parts(const struct json *parts, struct str *out, struct place at)
{
    const struct json *part = json_first(parts);
    char *to = NULL;

    for (u32 i = 0; i < parts->count; i++, part = json_next(part)) {
        const struct json *type = json_member(part, STR("type"));
        const struct json *text = json_member(part, STR("text"));
        if (!type || type->kind != JSON_STRING)
            return wrong(at, FAULT_TYPE, ".content", "part %u has no type", i);
        if (!str_eq(type->text, STR("text")))
            return wrong(at, FAULT_UNSUPPORTED, ".content",
                         "part %u of type '%.*s' is not supported, only text is", i,
                         (int)min_u64(type->text.len, 40), type->text.ptr);
        if (!text || text->kind != JSON_STRING)
            return wrong(at, FAULT_TYPE, ".content", "part %u has no text", i);
        char *from = (char *)(uintptr_t)text->text.ptr; /* the server's own scratch */
        to = to ? to : from;
        memmove(to, from, text->text.len);
        *out = (struct str){out->ptr ? out->ptr : to, out->len + text->text.len};
        to += text->text.len;
    }
    return parts->count || wrong(at, FAULT_VALUE, ".content", "an empty array");
}

static bool read_message(struct server *server, const struct json *value, struct place at)
{
    struct ml_message *message = &server->message[at.message];
    const struct json *content = json_member(value, STR("content"));
    const struct json *calls = json_member(value, STR("tool_calls"));

    *message = (struct ml_message){};
    if (value->kind != JSON_OBJECT)
        return wrong(at, FAULT_TYPE, "", "expected an object");
    if (!read_role(json_member(value, STR("role")), &message->role, at))
        return false;
    if (calls && (calls->kind != JSON_NULL && calls->count))
        return wrong(at, FAULT_UNSUPPORTED, ".tool_calls", "tools are not supported");
    if (!content || (content->kind != JSON_STRING && content->kind != JSON_ARRAY))
        return wrong(at, content ? FAULT_TYPE : FAULT_MISSING, ".content",
                     "expected a string or an array of text parts");
    if (content->kind == JSON_ARRAY)
        return join_parts(content, &message->content, at);
    message->content = content->text;
    return true;
}

/* ---- prompt ---- */

static bool read_tokens(struct server *server, const struct json *value, struct ml_request *request,
                        struct fault *fault)
{
    const struct json *one = json_first(value);
    u32 vocab = server->on->model_info(server->ml)->vocab;

    for (u32 i = 0; i < value->count; i++, one = json_next(one)) {
        i64 token;
        if (json_i64(one, &token) != OK || token < 0 || token >= vocab)
            return fault_set(fault, FAULT_VALUE, "prompt",
                             "Invalid 'prompt': item %u is not a token id below %u.", i, vocab);
        server->token[i] = (u32)token;
    }
    request->token = server->token;
    request->token_count = value->count;
    return true;
}

/* A string, an array of token ids, or an array of exactly one of these. */
bool api_prompt_read(struct server *server, const struct json *value, struct ml_request *request,
                     struct fault *fault)
{
    if (value->kind == JSON_ARRAY && value->count && json_first(value)->kind != JSON_NUMBER) {
        if (value->count > 1)
            return fault_set(fault, FAULT_UNSUPPORTED, "prompt",
                             "'prompt' with more than one prompt is not supported.");
        value = json_first(value);
    }
    request->token_count = request->part_count = 0;
    if (value->kind == JSON_ARRAY && value->count)
        return read_tokens(server, value, request, fault);
    if (value->kind != JSON_STRING || !value->text.len)
        return fault_set(fault, value->kind == JSON_STRING ? FAULT_VALUE : FAULT_TYPE, "prompt",
                         "Invalid 'prompt': expected a non-empty string or array of token ids.");
    server->part = (struct ml_part){ML_PART_USER, value->text};
    request->part = &server->part;
    request->part_count = 1;
    return true;
}
