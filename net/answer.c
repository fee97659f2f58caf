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
enum list { LIST_TEXT, LIST_CHAT, LIST_TOKENS, LIST_LOGPROBS, LIST_TOPS, LIST_OFFSETS, LISTS };
// clang-format off
static const char *const list_names[LISTS] = {
    NULL, "{\"content\":[", "{\"tokens\":[", "],\"token_logprobs\":[", "],\"top_logprobs\":[",
    "],\"text_offset\":["};
static const struct form {
    const char *id, *object;
    const char *open, *close; /* around the text */
    const char *first, *last; /* instead of it, before and after all text of a stream */
    enum list lists_begin, lists_end;
    const char *lists_close;
} forms[] = {
    {"cmpl-", "text_completion", "\"text\":\"", "\"", NULL, "\"text\":\"\"",
     LIST_TOKENS, LISTS, "]}"},
    {"chatcmpl-", "chat.completion",
     "\"message\":{\"role\":\"assistant\",\"content\":\"", "\",\"refusal\":null}", NULL, NULL,
     LIST_CHAT, LIST_CHAT + 1, "],\"refusal\":null}"},
    {"chatcmpl-", "chat.completion.chunk", "\"delta\":{\"content\":\"", "\"}",
     "\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}", "\"delta\":{}",
     LIST_CHAT, LIST_CHAT + 1, "],\"refusal\":null}"},
};
// clang-format on

/* ---- what is kept of an event ---- */

#define EVENT_BYTES_MAX (32 * KIB)
#define KEPT_BYTES_MAX  (OUT_BYTES_MAX - EVENT_BYTES_MAX - 8 * KIB) /* it all fits into one line */

struct kept {
    enum list list;
    u32 len; /* bytes that follow, escaped */
};

static void put_logprob(struct text *out, const char *before, f32 logprob)
{
    const f32 least = -9999; /* JSON has no infinity; OpenAI writes this */

    text_fmt(out, "%s", before);
    text_f64(out, logprob > least ? logprob : least, 6, STR("null"));
}

/* {"token":..,"logprob":..,"bytes":[..] and what follows it */
static void put_token(struct text *out, struct str token, f32 logprob)
{
    json_put_member(out, "{\"token\":", token);
    put_logprob(out, ",\"logprob\":", logprob);
    text_fmt(out, ",\"bytes\":[");
    for (usize i = 0; i < token.len; i++)
        text_fmt(out, i ? ",%u" : "%u", (u8)token.ptr[i]);
    text_fmt(out, "]");
}

/* A token with its alternatives: in chat one item; in completions these are members of an object
 * in a list of their own. */
static void put_alternatives(struct text *out, const struct ml_event *event, bool chat)
{
    if (chat)
        put_token(out, event->token_text, event->logprob);
    text_fmt(out, chat ? ",\"top_logprobs\":[" : "{");
    for (u32 i = 0; i < event->top_count; i++) {
        const struct ml_top *top = &event->top[i];
        text_fmt(out, "%s", i ? "," : "");
        if (chat) {
            put_token(out, top->text, top->logprob);
            text_fmt(out, "}");
        } else {
            json_put_str(out, top->text);
            put_logprob(out, ":", top->logprob);
        }
    }
    text_fmt(out, chat ? "]}" : "}");
}

static void put_item(struct text *out, enum list list, const struct ml_event *event, u64 offset)
{
    if (list == LIST_TEXT)
        json_put_chars(out, event->text);
    else if (list == LIST_TOKENS)
        json_put_str(out, event->token_text);
    else if (list == LIST_LOGPROBS)
        put_logprob(out, "", event->logprob);
    else if (list == LIST_OFFSETS)
        text_fmt(out, "%lu", offset);
    else
        put_alternatives(out, event, list == LIST_CHAT);
}

/* An item goes behind what leaves; false: there is no room. */
static bool keep_item(struct conn *conn, enum list list, const struct ml_event *event)
{
    struct text *out = reply_line(conn->server);

    put_item(out, list, event, conn->answer.text_offset);
    struct kept head = {list, (u32)out->len};
    struct str head_bytes = {(const char *)&head, sizeof(head)};
    return !out->len || (!out->truncated && buffer_put(&conn->out, head_bytes) &&
                         buffer_put(&conn->out, text_str(out)));
}

static bool keep(struct conn *conn, const struct ml_event *event)
{
    struct answer *answer = &conn->answer;
    const struct form *form = answer->form;
    bool lists = answer->logprobs && event->kind == ML_EVENT_TOKEN;
    usize before = conn->out.len;
    bool kept = keep_item(conn, LIST_TEXT, event);

    for (enum list list = form->lists_begin; lists && kept && list < form->lists_end; list++)
        kept = keep_item(conn, list, event);
    for (usize i = 0; i < event->token_text.len; i++)
        answer->text_offset += ((u8)event->token_text.ptr[i] & 0xc0) != 0x80;
    return kept && conn->out.len - before <= EVENT_BYTES_MAX;
}

/* All that is kept of a list; its items have commas between them. */
static void put_kept(struct conn *conn, enum list list)
{
    const struct buffer *from = &conn->out;
    struct text *out = &conn->server->line;
    const char *between = "";
    struct kept head;

    for (usize at = conn->ready; at < from->len; at += head.len) {
        memcpy(&head, from->ptr + at, sizeof(head));
        at += sizeof(head);
        if (head.list != list)
            continue;
        text_fmt(out, "%s", between);
        text_put(out, (struct str){from->ptr + at, head.len});
        between = list == LIST_TEXT ? "" : ",";
    }
}

/* ---- pieces of the answer, into server->line ---- */

static void put_head(struct conn *conn)
{
    struct server *server = conn->server;
    struct text *out = reply_line(server);

    text_fmt(out, "%s{\"id\":\"%s\",\"object\":\"%s\",\"created\":%ld",
             conn->answer.stream ? "data: " : "", conn->answer.id, conn->answer.form->object,
             conn->answer.created_unix_s);
    json_put_member(out, ",\"model\":", server->on->model_info(server->ml)->id);
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
    bool lists = !fixed && conn->answer.logprobs;

    put_head(conn);
    text_fmt(out, "{\"index\":0,%s", fixed ? fixed : form->open);
    if (!fixed) {
        put_kept(conn, LIST_TEXT);
        text_fmt(out, "%s", form->close);
    }
    text_fmt(out, ",\"logprobs\":");
    for (enum list list = form->lists_begin; lists && list < form->lists_end; list++) {
        text_fmt(out, "%s", list_names[list]);
        put_kept(conn, list);
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
    bool chunked = conn->request.minor;
    char size[16];
    struct text text = TEXT_ON(size);

    text_fmt(line, "\n\n");
    text_fmt(&text, "%zx\r\n", line->len);
    return (!chunked || conn_put(conn, text_str(&text))) && conn_put(conn, text_str(line)) &&
           (!chunked || conn_put(conn, STR("\r\n")));
}

static bool send_choice(struct conn *conn, const char *fixed, enum ml_finish finish)
{
    put_choice(conn, fixed, finish);
    text_fmt(&conn->server->line, conn->answer.include_usage ? ",\"usage\":null}" : "}");
    return send_line(conn);
}

static bool send_usage(struct conn *conn, const struct ml_event *event)
{
    put_head(conn);
    text_fmt(&conn->server->line, "]");
    put_usage(&conn->server->line, event);
    return send_line(conn);
}

/* After a failure there is no [DONE]: nobody takes it for a complete answer. */
static bool send_end(struct conn *conn, const struct ml_event *event)
{
    bool failed = event->finish == ML_FINISH_ERROR;

    if (!failed && (!send_choice(conn, conn->answer.form->last, event->finish) ||
                    (conn->answer.include_usage && !send_usage(conn, event))))
        return false;
    text_fmt(reply_line(conn->server), failed ? "data: " : "data: [DONE]");
    if (failed)
        fault_json(conn->server, &conn->server->line);
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

/* ---- the whole of it ---- */

void answer_start(struct conn *conn, u64 ticket)
{
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
        (void)reply_head(conn, "200 OK\r\nX-Accel-Buffering: no",
                         "text/event-stream; charset=utf-8", REPLY_STREAM);
}

/* A whole answer that would outgrow its room ends there. */
static void whole_event(struct conn *conn, const struct ml_event *event, bool good)
{
    struct server *server = conn->server;
    bool end = event->kind == ML_EVENT_END;

    if (good && !end && conn->out.len <= KEPT_BYTES_MAX)
        return;
    if (!end)
        server->on->cancel(server->ml, conn->answer.ticket);
    put_choice(conn, NULL, end ? event->finish : ML_FINISH_LENGTH);
    put_usage(&server->line, event);
    if (good)
        reply_ok(conn, "application/json");
    else
        reply_fault(conn);
}

void answer_event(struct conn *conn, const struct ml_event *event)
{
    bool failed = event->finish == ML_FINISH_ERROR, kept = keep(conn, event);

    if (event->kind == ML_EVENT_END)
        log_info("api", "%s %s: %u + %u tokens in %llu + %llu ms", conn->stream->peer,
                 conn->request_id, event->prompt_tokens, event->completion_tokens,
                 event->prompt_ns / NS_PER_MS, event->decode_ns / NS_PER_MS);
    if (failed)
        fault_from_ml(conn->server, event->why, "", &(struct ml_refusal){});
    else if (!kept)
        fault_set(conn->server, FAULT_OVERLOADED, "", "Too many large answers at once.");
    if (!conn->answer.stream)
        whole_event(conn, event, kept && !failed);
    else if (kept)
        stream_event(conn, event);
    else
        conn_drop(conn);
}
