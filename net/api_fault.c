/*
 * api_fault.c: every way in which a request can fail, in the client's words: status, OpenAI's error
 * type and code, text. FAULT_TABLE in priv.h is the list. Follows the Error schema of OpenAI's API
 * description: message, type, param and code are always there.
 */
#include "net/priv.h"

static const struct {
    u32 status, retry_s;
    const char *type, *code;
} faults[FAULT_COUNT] = {
#define FAULT_ROW(name, status, type, code, retry) [FAULT_##name] = {status, retry, type, code},
    FAULT_TABLE(FAULT_ROW)
#undef FAULT_ROW
};

bool fault_set(struct fault *fault, enum fault_kind kind, const char *param, const char *format,
               ...)
{
    struct text where = {fault->param, 0, sizeof(fault->param) - 1, false};
    struct text what = {fault->text, 0, sizeof(fault->text) - 1, false};
    va_list args;

    *fault = (struct fault){.kind = kind};
    text_put(&where, str_of(param));
    va_start(args, format);
    text_vfmt(&what, format, args);
    va_end(args);
    return false;
}

bool fault_from_ml(struct fault *fault, err why, const char *param,
                   const struct ml_refusal *refusal)
{
    switch (why) {
    case E_LIMIT:
        fault_set(fault, FAULT_CONTEXT, param,
                  "This model's maximum context length is %u tokens, but the prompt has %u.",
                  refusal->ctx_max, refusal->prompt_tokens);
        fault->prompt_tokens = refusal->prompt_tokens;
        fault->ctx_max = refusal->ctx_max;
        return false;
    case E_BUSY:
        return fault_set(fault, FAULT_QUEUE_FULL, "",
                         "Every slot is taken and the queue is full. Please try again.");
    case E_STATE:
        return fault_set(fault, FAULT_LOADING, "", "The model is not ready: %s", refusal->text);
    case E_FORMAT:
        return fault_set(fault, FAULT_TEMPLATE, param, "The chat template refused: %s",
                         refusal->text);
    case E_RANGE:
        return fault_set(fault, FAULT_VALUE, param, "%s", refusal->text);
    case E_DEVICE:
        return fault_set(fault, FAULT_DEVICE, "", "The device that computes has failed.");
    default:
        return fault_set(fault, FAULT_INTERNAL, "", "The server failed: %s.", err_text(why));
    }
}

enum fault_kind fault_of_status(u32 status)
{
    enum fault_kind kind = 0;

    while (kind < FAULT_COUNT && faults[kind].status != status)
        kind++;
    return kind < FAULT_COUNT ? kind : FAULT_INTERNAL;
}

u32 fault_status(enum fault_kind kind) { return faults[kind].status; }
u32 fault_retry_s(enum fault_kind kind) { return faults[kind].retry_s; }

void fault_json(struct text *out, const struct fault *fault)
{
    text_put(out, STR("{\"error\":{\"message\":"));
    json_put_str(out, str_of(fault->text));
    text_fmt(out, ",\"type\":\"%s\",\"param\":", faults[fault->kind].type);
    if (fault->param[0])
        json_put_str(out, str_of(fault->param));
    else
        text_put(out, STR("null"));
    text_fmt(out, ",\"code\":\"%s\"", faults[fault->kind].code);
    if (fault->kind == FAULT_CONTEXT)
        text_fmt(out, ",\"n_prompt_tokens\":%u,\"n_ctx\":%u", fault->prompt_tokens, fault->ctx_max);
    text_put(out, STR("}}"));
}
