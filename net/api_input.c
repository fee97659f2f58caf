/*
 * api_input.c: the prompt of a request: "messages" of chat, "prompt" of completions. Text stays
 * where the JSON reader has decoded it. Must not know templates or tokens. Follows OpenAI's
 * ChatCompletionRequestMessage.
 */
#include "net/priv.h"

/* ---- one message ---- */

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
        if (!type || type->kind != JSON_STRING)
            return fault_set(server, FAULT_TYPE, ".content", "Part %u has no type.", i);
        if (!str_eq(type->text, STR("text")))
            return fault_set(server, FAULT_UNSUPPORTED, ".content",
                             "Part %u is of type '%.*s', only text is supported.", i,
                             (int)min_u64(type->text.len, 40), type->text.ptr);
        if (!text || text->kind != JSON_STRING)
            return fault_set(server, FAULT_TYPE, ".content", "Part %u has no text.", i);
        char *from = (char *)(uintptr_t)text->text.ptr; /* the server's own scratch */
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

/* ---- messages ---- */

bool api_messages(struct server *server, const struct param *, const struct json *value)
{
    const struct json *one = json_first(value);

    if (value->kind != JSON_ARRAY)
        return fault_set(server, FAULT_TYPE, "messages", "Expected an array of messages.");
    if (!value->count || value->count > MESSAGES_MAX)
        return fault_set(server, FAULT_VALUE, "messages", "Expected 1 to %u messages.",
                         MESSAGES_MAX);
    for (u32 i = 0; i < value->count; i++, one = json_next(one)) {
        if (!read_message(server, one, &server->message[i])) {
            struct fault fault = server->fault; /* the message knows its member, we its place */
            struct text param = {server->fault.param, 0, sizeof(fault.param) - 1, false};
            text_fmt(&param, "messages[%u]%s", i, fault.param);
            return false;
        }
    }
    server->request.ml.message = server->message;
    server->request.ml.message_count = value->count;
    return true;
}

/* ---- prompt ---- */

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

/* A string, an array of token ids, or an array of exactly one of these. */
bool api_prompt(struct server *server, const struct param *, const struct json *value)
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
    if (value->kind != JSON_STRING || !value->text.len)
        return fault_set(server, value->kind == JSON_STRING ? FAULT_VALUE : FAULT_TYPE, "prompt",
                         "Expected a non-empty string or array of token ids.");
    server->part = (struct ml_part){ML_PART_USER, value->text};
    request->part = &server->part;
    request->part_count = 1;
    return true;
}
