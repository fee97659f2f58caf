/*
 * sse.c: events of the runtime become an answer: chunks of a stream as they come, or one whole
 * body at the end. On both ways text and logprobs of an event are kept first and then written as
 * a choice, at once or when all are there. Follows OpenAI's CreateChatCompletionStreamResponse and
 * CreateCompletionResponse, and the event stream of the HTML standard, section 9.2.
 */
#include "ml/mathf.h"
#include "net/priv.h"

/* What the parts of an answer are called: completions, chat, a chunk of chat. */
static const struct words {
    const char *id, *object;
    const char *first, *last; /* what a choice of a stream holds before and after the text */
    u32 parts;
    const char *before[ANSWER_PARTS]; /* the text, then each list of logprobs */
    const char *end, *end_of_lists;   /* after the text without logprobs; after the last list */
} words[] = {
    {.id = "cmpl-",
     .object = "text_completion",
     .last = "\"text\":\"\",\"logprobs\":null",
     .parts = 5,
     .before = {"\"text\":\"", "\",\"logprobs\":{\"tokens\":[", "],\"token_logprobs\":[",
                "],\"top_logprobs\":[", "],\"text_offset\":["},
     .end = "\",\"logprobs\":null",
     .end_of_lists = "]}"},
    {.id = "chatcmpl-",
     .object = "chat.completion",
     .parts = 2,
     .before = {"\"message\":{\"role\":\"assistant\",\"content\":\"",
                "\",\"refusal\":null},\"logprobs\":{\"content\":["},
     .end = "\",\"refusal\":null},\"logprobs\":null",
     .end_of_lists = "],\"refusal\":null}"},
    {.id = "chatcmpl-",
     .object = "chat.completion.chunk",
     .first = "\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
              "\"logprobs\":null",
     .last = "\"delta\":{},\"logprobs\":null",
     .parts = 2,
     .before = {"\"delta\":{\"content\":\"", "\"},\"logprobs\":{\"content\":["},
     .end = "\"},\"logprobs\":null",
     .end_of_lists = "],\"refusal\":null}"},
};

/* ---- what is kept of an event ---- */

static void put_logprob(struct text *out, f32 logprob)
{
    const f32 least = -9999; /* JSON has no infinity; OpenAI writes this */

    text_f64(out, logprob > least ? logprob : least, 6, STR("null"));
}

/* {"token":..,"logprob":..,"bytes":[..] and what follows it */
static void put_token(struct text *out, struct str token, f32 logprob)
{
    text_put(out, STR("{\"token\":"));
    json_put_str(out, token);
    text_put(out, STR(",\"logprob\":"));
    put_logprob(out, logprob);
    text_put(out, STR(",\"bytes\":["));
    for (usize i = 0; i < token.len; i++)
        text_fmt(out, i ? ",%u" : "%u", (u8)token.ptr[i]);
    text_char(out, ']');
}

/* A token with its alternatives, in chat. */
static void put_chat_item(struct text *out, const struct ml_event *event)
{
    put_token(out, event->token_text, event->logprob);
    text_put(out, STR(",\"top_logprobs\":["));
    for (u32 i = 0; i < event->top_count; i++) {
        text_put(out, i ? STR(",") : STR(""));
        put_token(out, event->top[i].text, event->top[i].logprob);
        text_char(out, '}');
    }
    text_put(out, STR("]}"));
}

/* The token's item in one of the four lists of /v1/completions. */
static void put_text_item(struct text *out, const struct ml_event *event, u32 part, u64 offset)
{
    if (part == 1) {
        json_put_str(out, event->token_text);
    } else if (part == 2) {
        put_logprob(out, event->logprob);
    } else if (part == 3) {
        for (u32 i = 0; i < event->top_count; i++) {
            text_char(out, i ? ',' : '{');
            json_put_str(out, event->top[i].text);
            text_char(out, ':');
            put_logprob(out, event->top[i].logprob);
        }
        text_put(out, event->top_count ? STR("}") : STR("{}"));
    } else {
        text_fmt(out, "%lu", offset);
    }
}

static usize kept_bytes(const struct answer *answer)
{
    usize bytes = 0;

    for (u32 i = 0; i < ANSWER_PARTS; i++)
        bytes += answer->part[i].len;
    return bytes;
}

/* server->line at the end of a part. */
static bool keep_line(struct conn *conn, u32 part)
{
    struct answer *answer = &conn->answer;
    struct text *line = &conn->server->line;
    bool small = kept_bytes(answer) + line->len <= SMALL_BYTES;

    return !line->truncated && fifo_put(&answer->part[part], &conn->server->out_pool,
                                        text_str(line), small ? 0 : OUT_SPARE_BLOCKS);
}

static bool keep(struct conn *conn, const struct ml_event *event)
{
    struct answer *answer = &conn->answer;
    bool lists = answer->logprobs && event->kind == ML_EVENT_TOKEN;

    json_put_chars(reply_line(conn->server), event->text);
    bool kept = keep_line(conn, 0);
    for (u32 i = 1; lists && i < answer->words->parts; i++) {
        struct text *out = reply_line(conn->server);
        text_put(out, answer->part[i].len ? STR(",") : STR(""));
        if (answer->words == words)
            put_text_item(out, event, i, answer->text_offset);
        else
            put_chat_item(out, event);
        kept = kept && keep_line(conn, i);
    }
    for (usize i = 0; i < event->token_text.len; i++)
        answer->text_offset += ((u8)event->token_text.ptr[i] & 0xc0) != 0x80;
    return kept;
}

/* ---- pieces of the answer ---- */

static void put_head(struct conn *conn)
{
    struct server *server = conn->server;
    struct text *out = &server->line;

    text_fmt(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%ld,\"model\":", conn->answer.id,
             conn->answer.words->object, conn->answer.created_unix_s);
    json_put_str(out, server->on->model_info(server->ml)->id);
    text_put(out, STR(",\"system_fingerprint\":\"nohost-"));
    json_put_chars(out, server->config->version);
    text_put(out, STR("\",\"choices\":["));
}

/* A choice that holds `fixed` or, when that is NULL, all that was kept. */
static void put_choice(struct conn *conn, const char *fixed, enum ml_finish finish)
{
    static const char *const finishes[] = {"null", "\"stop\"", "\"length\"", "\"error\""};
    struct answer *answer = &conn->answer;
    struct text *out = &conn->server->line;
    bool lists = answer->part[1].len != 0;

    put_head(conn);
    text_fmt(out, "{\"index\":0,%s", fixed ? fixed : "");
    for (u32 i = 0; !fixed && i < (lists ? answer->words->parts : 1); i++) {
        text_put(out, str_of(answer->words->before[i]));
        fifo_take(&answer->part[i], &conn->server->out_pool, out);
    }
    if (!fixed)
        text_put(out, str_of(lists ? answer->words->end_of_lists : answer->words->end));
    text_fmt(out, ",\"finish_reason\":%s}]", finishes[finish]);
}

static void put_usage(struct text *out, const struct ml_event *event)
{
    text_fmt(out,
             ",\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,"
             "\"prompt_tokens_details\":{\"cached_tokens\":%u}}}",
             event->prompt_tokens, event->completion_tokens,
             event->prompt_tokens + event->completion_tokens, event->cached_tokens);
}

/* ---- streaming ---- */

/* server->line as an event: a chunk of the body, unless the connection's end ends it (HTTP/1.0). */
static bool send_line(struct conn *conn)
{
    struct text *line = &conn->server->line;
    bool chunked = conn->request.minor;
    char size[16];
    struct text text = TEXT_ON(size);

    text_put(line, STR("\n\n"));
    text_fmt(&text, "%zx\r\n", line->len);
    if (line->truncated) { /* a vocabulary of monstrous tokens */
        conn_drop(conn);
        return false;
    }
    return (!chunked || conn_put(conn, text_str(&text))) && conn_put(conn, text_str(line)) &&
           (!chunked || conn_put(conn, STR("\r\n")));
}

static bool send_text(struct conn *conn, struct str text)
{
    text_put(reply_line(conn->server), text);
    return send_line(conn);
}

static bool send_choice(struct conn *conn, const char *fixed, enum ml_finish finish)
{
    struct text *out = reply_line(conn->server);

    text_put(out, STR("data: "));
    put_choice(conn, fixed, finish);
    text_put(out, conn->answer.include_usage ? STR(",\"usage\":null}") : STR("}"));
    return send_line(conn);
}

static bool send_usage(struct conn *conn, const struct ml_event *event)
{
    struct text *out = reply_line(conn->server);

    text_put(out, STR("data: "));
    put_head(conn);
    text_char(out, ']');
    put_usage(out, event);
    return send_line(conn);
}

/* After a failure there is no [DONE]: nobody takes it for a complete answer. */
static bool send_end(struct conn *conn, const struct ml_event *event)
{
    const struct answer *answer = &conn->answer;

    if (event->finish != ML_FINISH_ERROR)
        return send_choice(conn, answer->words->last, event->finish) &&
               (!answer->include_usage || send_usage(conn, event)) &&
               send_text(conn, STR("data: [DONE]"));
    text_put(reply_line(conn->server), STR("data: "));
    fault_json(&conn->server->line, &conn->server->fault);
    conn->close_after = true;
    return send_line(conn);
}

/* False: the connection was dropped. */
static bool stream_event(struct conn *conn, const struct ml_event *event)
{
    const char *first = conn->answer.words->first;

    if (event->kind == ML_EVENT_START && first && !send_choice(conn, first, ML_FINISH_NONE))
        return false;
    if (kept_bytes(&conn->answer) && !send_choice(conn, NULL, ML_FINISH_NONE))
        return false;
    if (event->kind != ML_EVENT_END)
        return true;
    if (!send_end(conn, event) || (conn->request.minor && !conn_put(conn, STR("0\r\n\r\n"))))
        return false;
    conn_phase(conn, CONN_SEND);
    return true;
}

void answer_ping(struct conn *conn)
{
    (void)send_text(conn, STR(": ping"));
}

/* ---- one whole body ---- */

static void whole_event(struct conn *conn, const struct ml_event *event, bool kept)
{
    struct server *server = conn->server;
    bool end = event->kind == ML_EVENT_END;

    if (!end && kept && kept_bytes(&conn->answer) <= OUT_BYTES_MAX)
        return;
    if (!end) /* more would not fit: the answer ends here */
        server->on->cancel(server->ml, conn->answer.ticket);
    reply_line(server);
    put_choice(conn, NULL, end ? event->finish : ML_FINISH_LENGTH);
    put_usage(&server->line, event);
    if (!server->line.truncated && (kept || !end)) {
        reply_ok(conn, "application/json");
        return;
    }
    fault_set(server, FAULT_OVERLOADED, "", "Too many large answers at once.");
    reply_fault(conn);
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
        .words = &words[request->chat ? 1 + request->stream : 0],
        .stream = request->stream,
        .include_usage = request->include_usage,
        .logprobs = request->ml.sampling.logprobs,
        .created_unix_s = time_unix_s(),
    };
    random_bytes(number, sizeof(number));
    text_fmt(&id, "%s%016lx%08x", answer->words->id, number[0], (u32)number[1]);
    conn_phase(conn, CONN_RUN);
    if (answer->stream)
        (void)reply_head(conn, stream, REPLY_STREAM);
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
    if (failed && !conn->answer.stream)
        reply_fault(conn);
    else if (!conn->answer.stream)
        whole_event(conn, event, kept);
    else if (kept)
        (void)stream_event(conn, event);
    else
        conn_drop(conn);
}
