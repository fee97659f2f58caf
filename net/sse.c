/*
 * sse.c: events of the runtime become an answer: chunks of a stream as they come, or one whole
 * body at the end. Both are cut from the same pieces; a table holds the words in which the two
 * APIs differ. Follows OpenAI's CreateChatCompletionStreamResponse and CreateCompletionResponse,
 * and the event stream of the HTML standard, section 9.2.
 */
#include "ml/mathf.h"
#include "net/priv.h"

/* /v1/completions [0] and /v1/chat/completions [1]. */
static const struct words {
    const char *id, *object, *chunk;
    const char *first, *last;      /* what a choice holds in the chunks around the text */
    const char *delta, *delta_end; /* around the text of a chunk */
    const char *whole, *whole_end; /* around all of it */
    u32 lists;
    const char *list[ANSWER_LISTS], *lists_end; /* before each list of logprobs, after the last */
} words[] = {
    {.id = "cmpl-",
     .object = "text_completion",
     .chunk = "text_completion",
     .last = "\"text\":\"\"",
     .delta = "\"text\":\"",
     .delta_end = "\"",
     .whole = "\"text\":\"",
     .whole_end = "\"",
     .lists = 4,
     .list = {"{\"tokens\":[", "],\"token_logprobs\":[", "],\"top_logprobs\":[",
              "],\"text_offset\":["},
     .lists_end = "]}"},
    {.id = "chatcmpl-",
     .object = "chat.completion",
     .chunk = "chat.completion.chunk",
     .first = "\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}",
     .last = "\"delta\":{}",
     .delta = "\"delta\":{\"content\":\"",
     .delta_end = "\"}",
     .whole = "\"message\":{\"role\":\"assistant\",\"content\":\"",
     .whole_end = "\",\"refusal\":null}",
     .lists = 1,
     .list = {"{\"content\":["},
     .lists_end = "],\"refusal\":null}"},
};

/* ---- pieces of JSON ---- */

static void put_head(struct server *server, const struct answer *answer, const char *object)
{
    struct text *out = &server->line;

    text_fmt(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%ld,\"model\":", answer->id, object,
             answer->created_unix_s);
    json_put_str(out, server->on->model_info(server->ml)->id);
    text_put(out, STR(",\"system_fingerprint\":\"nohost-"));
    json_put_chars(out, server->config->version);
    text_put(out, STR("\",\"choices\":["));
}

static void put_logprob(struct text *out, f32 logprob)
{
    const f32 least = -9999; /* JSON has no infinity; OpenAI writes this */

    text_f64(out, logprob > least ? logprob : least, 6, STR("null"));
}

/* {"token":..,"logprob":..,"bytes":[..] without the closing brace */
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

/* The alternatives: a list of tokens in chat, text -> logprob in completions. */
static void put_tops(struct text *out, const struct ml_event *event, bool chat)
{
    for (u32 i = 0; i < event->top_count; i++) {
        const struct ml_top *top = &event->top[i];
        text_put(out, i ? STR(",") : STR(""));
        if (chat) {
            put_token(out, top->text, top->logprob);
            text_char(out, '}');
        } else {
            json_put_str(out, top->text);
            text_char(out, ':');
            put_logprob(out, top->logprob);
        }
    }
}

/* One token's item in each of the lists of logprobs. */
static void put_item(struct text *out, const struct answer *answer, const struct ml_event *event,
                     u32 list)
{
    if (answer->chat) {
        put_token(out, event->token_text, event->logprob);
        text_put(out, STR(",\"top_logprobs\":["));
        put_tops(out, event, true);
        text_put(out, STR("]}"));
    } else if (list == 0) {
        json_put_str(out, event->token_text);
    } else if (list == 1) {
        put_logprob(out, event->logprob);
    } else if (list == 2) {
        text_char(out, '{');
        put_tops(out, event, false);
        text_char(out, '}');
    } else {
        text_fmt(out, "%lu", answer->text_offset);
    }
}

static void put_finish(struct text *out, enum ml_finish finish)
{
    static const char *const words_[] = {"null", "\"stop\"", "\"length\"", "\"error\""};

    text_fmt(out, ",\"finish_reason\":%s}]", words_[finish]);
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

/* One event of the stream: a chunk of the body, unless the connection's end ends it (HTTP/1.0). */
static bool send_event(struct server *server, struct conn *conn, struct str event)
{
    char size[16];
    struct text text = TEXT_ON(size);

    text_fmt(&text, "%zx\r\n", event.len);
    return (!conn->head.minor || conn_put(server, conn, text_str(&text))) &&
           conn_put(server, conn, event) &&
           (!conn->head.minor || conn_put(server, conn, STR("\r\n")));
}

static bool send_line(struct server *server, struct conn *conn)
{
    text_put(&server->line, STR("\n\n"));
    if (!server->line.truncated)
        return send_event(server, conn, text_str(&server->line));
    conn_drop(server, conn); /* a vocabulary of monstrous tokens */
    return false;
}

/* A choice that holds `fixed` or, when that is NULL, the event's text and logprobs. */
static bool stream_choice(struct server *server, struct conn *conn, const struct ml_event *event,
                          const char *fixed)
{
    const struct answer *answer = &conn->answer;
    const struct words *w = &words[answer->chat];
    bool logprobs = answer->logprobs && event->kind == ML_EVENT_TOKEN;
    struct text *out = reply_line(server);

    text_put(out, STR("data: "));
    put_head(server, answer, w->chunk);
    text_fmt(out, "{\"index\":0,%s", fixed ? fixed : w->delta);
    if (!fixed) {
        json_put_chars(out, event->text);
        text_put(out, str_of(w->delta_end));
    }
    text_put(out, STR(",\"logprobs\":"));
    for (u32 i = 0; logprobs && i < w->lists; i++) {
        text_put(out, str_of(w->list[i]));
        put_item(out, answer, event, i);
    }
    text_put(out, logprobs ? str_of(w->lists_end) : STR("null"));
    put_finish(out, fixed ? event->finish : ML_FINISH_NONE);
    text_put(out, answer->include_usage ? STR(",\"usage\":null}") : STR("}"));
    return send_line(server, conn);
}

static bool stream_usage(struct server *server, struct conn *conn, const struct ml_event *event)
{
    struct text *out = reply_line(server);

    text_put(out, STR("data: "));
    put_head(server, &conn->answer, words[conn->answer.chat].chunk);
    text_char(out, ']');
    put_usage(out, event);
    return send_line(server, conn);
}

/* Nobody takes it for a complete answer: there is no [DONE] behind it. */
static bool stream_fault(struct server *server, struct conn *conn, const struct ml_event *event)
{
    struct fault fault;

    fault_from_ml(&fault, event->why, "", &(struct ml_refusal){});
    text_put(reply_line(server), STR("data: "));
    fault_json(&server->line, &fault);
    conn->close_after = true;
    return send_line(server, conn);
}

static bool stream_end(struct server *server, struct conn *conn, const struct ml_event *event)
{
    const struct answer *answer = &conn->answer;

    if (event->text.len && !stream_choice(server, conn, event, NULL))
        return false;
    if (event->finish == ML_FINISH_ERROR)
        return stream_fault(server, conn, event);
    return stream_choice(server, conn, event, words[answer->chat].last) &&
           (!answer->include_usage || stream_usage(server, conn, event)) &&
           send_event(server, conn, STR("data: [DONE]\n\n"));
}

static void stream_event(struct server *server, struct conn *conn, const struct ml_event *event)
{
    if (event->kind == ML_EVENT_START && words[conn->answer.chat].first)
        (void)stream_choice(server, conn, event, words[conn->answer.chat].first);
    if (event->kind == ML_EVENT_TOKEN && (event->text.len || conn->answer.logprobs))
        (void)stream_choice(server, conn, event, NULL);
    if (event->kind == ML_EVENT_END && stream_end(server, conn, event) &&
        (!conn->head.minor || conn_put(server, conn, STR("0\r\n\r\n"))))
        conn_phase(conn, CONN_SEND);
}

void answer_ping(struct server *server, struct conn *conn)
{
    (void)send_event(server, conn, STR(": ping\n\n"));
}

/* ---- one whole body: start and text grow in one fifo, each list of logprobs in its own ---- */

static usize kept_bytes(const struct answer *answer)
{
    usize bytes = answer->text.len;

    for (u32 i = 0; i < ANSWER_LISTS; i++)
        bytes += answer->list[i].len;
    return bytes;
}

static bool keep(struct server *server, struct answer *answer, struct fifo *fifo)
{
    bool small = kept_bytes(answer) + server->line.len <= SMALL_BYTES;

    return !server->line.truncated &&
           fifo_put(fifo, &server->out_pool, text_str(&server->line), small ? 0 : OUT_SPARE_BLOCKS);
}

static bool keep_token(struct server *server, struct answer *answer, const struct ml_event *event)
{
    bool kept = true;

    for (u32 i = 0; answer->logprobs && i < words[answer->chat].lists; i++) {
        text_put(reply_line(server), answer->list[i].len ? STR(",") : STR(""));
        put_item(&server->line, answer, event, i);
        kept = kept && keep(server, answer, &answer->list[i]);
    }
    return kept;
}

/* Joins what was kept and writes what follows it. */
static bool keep_end(struct server *server, struct answer *answer, const struct ml_event *event)
{
    const struct words *w = &words[answer->chat];
    bool kept = true;

    text_fmt(reply_line(server), "%s,\"logprobs\":", w->whole_end);
    for (u32 i = 0; answer->logprobs && i < w->lists; i++) {
        text_put(&server->line, str_of(w->list[i]));
        kept = kept && keep(server, answer, &answer->text);
        fifo_append(&answer->text, &answer->list[i]);
        reply_line(server);
    }
    text_put(&server->line, answer->logprobs ? str_of(w->lists_end) : STR("null"));
    put_finish(&server->line, event->finish);
    put_usage(&server->line, event);
    return kept && keep(server, answer, &answer->text);
}

static void whole_event(struct server *server, struct conn *conn, const struct ml_event *event)
{
    struct answer *answer = &conn->answer;
    struct ml_event end = *event;
    struct fault fault;

    if (event->finish == ML_FINISH_ERROR) {
        fault_from_ml(&fault, event->why, "", &(struct ml_refusal){});
        reply_fault(server, conn, &fault);
        return;
    }
    json_put_chars(reply_line(server), event->text);
    bool kept = keep(server, answer, &answer->text) &&
                (event->kind != ML_EVENT_TOKEN || keep_token(server, answer, event));
    bool full = event->kind == ML_EVENT_TOKEN && (kept_bytes(answer) > OUT_BYTES_MAX || !kept);
    if (event->kind != ML_EVENT_END && !full)
        return;
    if (full) { /* more would not fit: the answer ends here */
        server->on->cancel(server->ml, answer->ticket);
        end.finish = ML_FINISH_LENGTH;
        end.completion_tokens = answer->completion_tokens;
    }
    if (!keep_end(server, answer, &end)) {
        fault_set(&fault, FAULT_OVERLOADED, "", "Too many large answers at once.");
        reply_fault(server, conn, &fault);
    } else if (reply_head(server, conn, (struct http_reply){200, "application/json", ""},
                          answer->text.len)) {
        fifo_append(&conn->out, &answer->text);
        conn_phase(conn, CONN_SEND);
    }
}

/* ---- both ---- */

void answer_start(struct server *server, struct conn *conn, const struct api_request *request,
                  u64 ticket)
{
    struct answer *answer = &conn->answer;
    const struct words *w = &words[request->chat];
    u64 number[2];

    *answer = (struct answer){
        .ticket = ticket,
        .chat = request->chat,
        .stream = request->stream,
        .include_usage = request->include_usage,
        .logprobs = request->ml.sampling.logprobs,
        .created_unix_s = time_unix_s(),
    };
    struct text id = TEXT_ON(answer->id);
    random_bytes(number, sizeof(number));
    text_fmt(&id, "%s%016lx%08x", w->id, number[0], (u32)number[1]);
    conn_phase(conn, CONN_RUN);
    if (answer->stream) {
        const struct http_reply reply = {200, "text/event-stream; charset=utf-8",
                                         "X-Accel-Buffering: no\r\n"};
        (void)reply_head(server, conn, reply,
                         conn->head.minor ? HTTP_LENGTH_CHUNKED : HTTP_LENGTH_UNTIL_CLOSE);
    } else {
        reply_line(server);
        put_head(server, answer, w->object);
        text_fmt(&server->line, "{\"index\":0,%s", w->whole);
        if (!keep(server, answer, &answer->text))
            conn_drop(server, conn);
    }
}

static u64 characters(struct str text)
{
    u64 count = 0;

    for (usize i = 0; i < text.len; i++)
        count += ((u8)text.ptr[i] & 0xc0) != 0x80;
    return count;
}

static void log_end(const struct conn *conn, const struct ml_event *event)
{
    u32 gaps = event->completion_tokens ? event->completion_tokens - 1 : 0; /* between tokens */
    unsigned long long tenths = gaps * 10 * NS_PER_S / max_u64(event->decode_ns, 1);

    log_info("api", "%s %.*s: %u + %u tokens, prompt %llu ms, %llu.%llu tok/s", conn->stream->peer,
             (int)conn->request_id_len, conn->request_id, event->prompt_tokens,
             event->completion_tokens, event->prompt_ns / NS_PER_MS, tenths / 10, tenths % 10);
}

void answer_event(struct server *server, struct conn *conn, const struct ml_event *event)
{
    struct answer *answer = &conn->answer;

    if (event->kind == ML_EVENT_END)
        log_end(conn, event);
    answer->completion_tokens += event->kind == ML_EVENT_TOKEN;
    if (answer->stream)
        stream_event(server, conn, event);
    else
        whole_event(server, conn, event);
    answer->text_offset += characters(event->token_text);
}
