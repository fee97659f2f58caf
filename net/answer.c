/*
 * answer.c: events of the runtime become an answer: chunks of a stream as they come, or one whole
 * body at the end. Either way text and logprobs of an event are kept first, behind what leaves, and
 * then written as a choice: at once, or when all are there. Follows OpenAI's
 * CreateChatCompletionStreamResponse and CreateCompletionResponse, and the event stream of the
 * HTML standard, section 9.2.
 */
#include "ml/mathf.h"
#include "net/priv.h"

/* What the parts of an answer are called: completions, chat, a chunk of chat. */
#define LISTS_MAX 4u
static const struct form {
    const char *id, *object;
    const char *open, *close; /* around the text */
    const char *first, *last; /* instead of it, before and after all text of a stream */
    const char *list[LISTS_MAX], *lists_close; /* of logprobs */
} forms[] = {
    {"cmpl-",
     "text_completion",
     "\"text\":\"",
     "\"",
     NULL,
     "\"text\":\"\"",
     {"tokens", "token_logprobs", "top_logprobs", "text_offset"},
     "]}"},
    {"chatcmpl-",
     "chat.completion",
     "\"message\":{\"role\":\"assistant\",\"content\":\"",
     "\",\"refusal\":null}",
     NULL,
     NULL,
     {"content"},
     "],\"refusal\":null}"},
    {"chatcmpl-",
     "chat.completion.chunk",
     "\"delta\":{\"content\":\"",
     "\"}",
     "\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}",
     "\"delta\":{}",
     {"content"},
     "],\"refusal\":null}"},
};

/* ---- what is kept of an event ---- */

struct kept {
    u32 list; /* 0: the text, else one of the form's lists */
    u32 len;  /* bytes that follow, escaped */
};

static void put_logprob(struct text *out, f32 logprob)
{
    const f32 least = -9999; /* JSON has no infinity; OpenAI writes this */

    text_f64(out, logprob > least ? logprob : least, 6, STR("null"));
}

/* {"token":..,"logprob":..,"bytes":[..] and what follows it */
static void put_token(struct text *out, struct str token, f32 logprob)
{
    text_fmt(out, "{\"token\":");
    json_put_str(out, token);
    text_fmt(out, ",\"logprob\":");
    put_logprob(out, logprob);
    text_fmt(out, ",\"bytes\":[");
    for (usize i = 0; i < token.len; i++)
        text_fmt(out, i ? ",%u" : "%u", (u8)token.ptr[i]);
    text_char(out, ']');
}

/* A token with its alternatives, in chat. */
static void put_chat_item(struct text *out, const struct ml_event *event)
{
    put_token(out, event->token_text, event->logprob);
    text_fmt(out, ",\"top_logprobs\":[");
    for (u32 i = 0; i < event->top_count; i++) {
        text_fmt(out, "%s", i ? "," : "");
        put_token(out, event->top[i].text, event->top[i].logprob);
        text_char(out, '}');
    }
    text_fmt(out, "]}");
}

/* The token's item in one of the four lists of /v1/completions. */
static void put_text_item(struct text *out, const struct ml_event *event, u32 list, u64 offset)
{
    if (list == 1) {
        json_put_str(out, event->token_text);
    } else if (list == 2) {
        put_logprob(out, event->logprob);
    } else if (list == 3) {
        text_char(out, '{');
        for (u32 i = 0; i < event->top_count; i++) {
            text_fmt(out, "%s", i ? "," : "");
            json_put_str(out, event->top[i].text);
            text_char(out, ':');
            put_logprob(out, event->top[i].logprob);
        }
        text_char(out, '}');
    } else {
        text_fmt(out, "%lu", offset);
    }
}

/* server->line, behind what leaves. */
static bool keep_line(struct conn *conn, u32 list)
{
    struct text *line = &conn->server->line;
    struct kept head = {list, (u32)line->len};

    return !line->len || (!line->truncated &&
                          buffer_put(&conn->out, (struct str){(const char *)&head, sizeof(head)}) &&
                          buffer_put(&conn->out, text_str(line)));
}

static bool keep(struct conn *conn, const struct ml_event *event)
{
    struct answer *answer = &conn->answer;
    bool lists = answer->logprobs && event->kind == ML_EVENT_TOKEN;

    json_put_chars(reply_line(conn->server), event->text);
    bool kept = keep_line(conn, 0);
    for (u32 i = 1; lists && i <= LISTS_MAX && answer->form->list[i - 1]; i++) {
        struct text *out = reply_line(conn->server);
        if (answer->form == forms)
            put_text_item(out, event, i, answer->text_offset);
        else
            put_chat_item(out, event);
        kept = kept && keep_line(conn, i);
    }
    for (usize i = 0; i < event->token_text.len; i++)
        answer->text_offset += ((u8)event->token_text.ptr[i] & 0xc0) != 0x80;
    return kept;
}

/* All that is kept of a list; its items have commas between them. */
static void put_kept(struct conn *conn, u32 list)
{
    struct text *out = &conn->server->line;
    const struct buffer *from = &conn->out;
    usize count = 0;
    struct kept head;

    for (usize at = conn->ready; at < from->len; at += sizeof(head) + head.len) {
        memcpy(&head, from->ptr + at, sizeof(head));
        if (head.list != list)
            continue;
        text_fmt(out, "%s", list && count++ ? "," : "");
        text_put(out, (struct str){from->ptr + at + sizeof(head), head.len});
    }
}

/* ---- pieces of the answer ---- */

static void put_head(struct conn *conn)
{
    struct server *server = conn->server;
    struct text *out = &server->line;

    text_fmt(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%ld,\"model\":", conn->answer.id,
             conn->answer.form->object, conn->answer.created_unix_s);
    json_put_str(out, server->on->model_info(server->ml)->id);
    text_fmt(out, ",\"system_fingerprint\":\"nohost-");
    json_put_chars(out, server->config->version);
    text_fmt(out, "\",\"choices\":[");
}

/* A choice that holds `fixed` or, when that is NULL, all that was kept. */
static void put_choice(struct conn *conn, const char *fixed, enum ml_finish finish)
{
    static const char *const finishes[] = {"null", "\"stop\"", "\"length\"", "\"error\""};
    const struct form *form = conn->answer.form;
    struct text *out = &conn->server->line;

    put_head(conn);
    text_fmt(out, "{\"index\":0,%s", fixed ? fixed : form->open);
    if (!fixed) {
        put_kept(conn, 0);
        text_fmt(out, "%s", form->close);
    }
    text_fmt(out, ",\"logprobs\":");
    bool lists = !fixed && conn->answer.logprobs;
    for (u32 i = 0; lists && i < LISTS_MAX && form->list[i]; i++) {
        text_fmt(out, "%s\"%s\":[", i ? "]," : "{", form->list[i]);
        put_kept(conn, i + 1);
    }
    text_fmt(out, "%s,\"finish_reason\":%s}]", lists ? form->lists_close : "null",
             finishes[finish]);
    conn->out.len = conn->ready;
}

static void put_usage(struct text *out, const struct ml_event *event)
{
    text_fmt(out,
             ",\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,"
             "\"prompt_tokens_details\":{\"cached_tokens\":%u}}}",
             event->prompt_tokens, event->completion_tokens,
             event->prompt_tokens + event->completion_tokens, event->cached_tokens);
}

/* ---- streaming: each of these is false when the connection was dropped ---- */

/* server->line as an event: a chunk of the body, unless the connection's end ends it (HTTP/1.0). */
static bool send_line(struct conn *conn)
{
    struct text *line = &conn->server->line;
    char size[16];
    struct text text = TEXT_ON(size);

    text_fmt(line, "\n\n");
    text_fmt(&text, "%zx\r\n", line->len);
    if (!conn->request.minor)
        return conn_put(conn, text_str(line));
    return conn_put(conn, text_str(&text)) && conn_put(conn, text_str(line)) &&
           conn_put(conn, STR("\r\n"));
}

static bool send_choice(struct conn *conn, const char *fixed, enum ml_finish finish)
{
    struct text *out = reply_line(conn->server);

    text_fmt(out, "data: ");
    put_choice(conn, fixed, finish);
    text_fmt(out, conn->answer.include_usage ? ",\"usage\":null}" : "}");
    return send_line(conn);
}

/* After a failure there is no [DONE]: nobody takes it for a complete answer. */
static bool send_end(struct conn *conn, const struct ml_event *event)
{
    struct text *out = &conn->server->line;
    bool failed = event->finish == ML_FINISH_ERROR, usage = conn->answer.include_usage;

    if (!failed && !send_choice(conn, conn->answer.form->last, event->finish))
        return false;
    text_fmt(reply_line(conn->server), "data: ");
    if (!failed && usage) {
        put_head(conn);
        text_char(out, ']');
        put_usage(out, event);
        if (!send_line(conn))
            return false;
        text_fmt(reply_line(conn->server), "data: ");
    }
    if (failed)
        fault_json(conn->server, out);
    else
        text_fmt(out, "[DONE]");
    conn->close_after |= failed;
    return send_line(conn) && (!conn->request.minor || conn_put(conn, STR("0\r\n\r\n")));
}

static void stream_event(struct conn *conn, const struct ml_event *event)
{
    const char *first = conn->answer.form->first;

    if (event->kind == ML_EVENT_START && first && !send_choice(conn, first, ML_FINISH_NONE))
        return;
    if (conn->out.len > conn->ready && !send_choice(conn, NULL, ML_FINISH_NONE))
        return;
    if (event->kind == ML_EVENT_END && send_end(conn, event))
        conn_phase(conn, CONN_SEND);
}

void answer_ping(struct conn *conn)
{
    text_fmt(reply_line(conn->server), ": ping");
    (void)send_line(conn);
}

/* ---- one whole body ---- */

#define KEPT_BYTES_MAX (OUT_BYTES_MAX - 16 * KIB) /* room for one more token, and the rest */

static void whole_event(struct conn *conn, const struct ml_event *event)
{
    struct server *server = conn->server;
    bool end = event->kind == ML_EVENT_END;

    if (!end && conn->out.len <= KEPT_BYTES_MAX)
        return;
    if (!end) /* more would not fit: the answer ends here */
        server->on->cancel(server->ml, conn->answer.ticket);
    reply_line(server);
    put_choice(conn, NULL, end ? event->finish : ML_FINISH_LENGTH);
    put_usage(&server->line, event);
    reply_ok(conn, "application/json");
}

/* ---- both ---- */

void answer_start(struct conn *conn, u64 ticket)
{
    const struct reply stream = {"200 OK", "text/event-stream; charset=utf-8",
                                 "X-Accel-Buffering: no\r\n"};
    const struct api_request *request = &conn->server->request;
    struct answer *answer = &conn->answer;
    struct text id = TEXT_ON(answer->id);
    u64 number[2];

    *answer = (struct answer){
        .ticket = ticket,
        .form = &forms[request->chat ? 1 + request->stream : 0],
        .stream = request->stream,
        .include_usage = request->include_usage,
        .logprobs = request->ml.sampling.logprobs,
        .created_unix_s = time_unix_s(),
    };
    random_bytes(number, sizeof(number));
    text_fmt(&id, "%s%016lx%08x", answer->form->id, number[0], (u32)number[1]);
    conn_phase(conn, CONN_RUN);
    if (answer->stream)
        (void)reply_head(conn, stream, REPLY_STREAM);
}

void answer_event(struct conn *conn, const struct ml_event *event)
{
    struct server *server = conn->server;
    bool failed = event->finish == ML_FINISH_ERROR, kept = keep(conn, event);

    if (event->kind == ML_EVENT_END)
        log_info("api", "%s %s: %u + %u tokens in %llu + %llu ms", conn->stream->peer,
                 conn->request_id, event->prompt_tokens, event->completion_tokens,
                 event->prompt_ns / NS_PER_MS, event->decode_ns / NS_PER_MS);
    if (failed)
        fault_from_ml(server, event->why, "", &(struct ml_refusal){});
    else if (!kept)
        fault_set(server, FAULT_OVERLOADED, "", "Too many large answers at once.");
    if (conn->answer.stream && kept) {
        stream_event(conn, event);
    } else if (conn->answer.stream) {
        conn_drop(conn);
    } else if (failed || !kept) {
        if (event->kind != ML_EVENT_END)
            server->on->cancel(server->ml, conn->answer.ticket);
        conn->out.len = conn->ready;
        reply_fault(conn);
    } else {
        whole_event(conn, event);
    }
}
