/*
 * sse.c: events of the runtime become an answer: chunks of a stream as they come, or one whole body
 * at the end. Both are cut from the same pieces, a table of words per API. Follows OpenAI's
 * CreateChatCompletionStreamResponse and CreateCompletionResponse, and the event stream format of the
 * HTML standard, section 9.2.
 */
#include "ml/mathf.h"
#include "net/priv.h"

/* What differs between /v1/completions [0] and /v1/chat/completions [1]. */
static const struct words {
    const char *id, *object, *chunk;
    const char *delta, *delta_end, *whole, *whole_end; /* around the text */
    u32 lists;
    const char *list[ANSWER_LISTS], *lists_end; /* before each list of logprobs, after the last */
} words[] = {
    {"cmpl-", "text_completion", "text_completion", "\"text\":\"", "\"", "\"text\":\"", "\"", 4,
     {"{\"tokens\":[", "],\"token_logprobs\":[", "],\"top_logprobs\":[", "],\"text_offset\":["},
     "]}"},
    {"chatcmpl-", "chat.completion", "chat.completion.chunk", "\"delta\":{\"content\":\"", "\"}",
     "\"message\":{\"role\":\"assistant\",\"content\":\"", "\",\"refusal\":null}", 1,
     {"{\"content\":["}, "],\"refusal\":null}"},
};

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

/* ---- logprobs ---- */

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

static void put_top_map(struct text *out, const struct ml_event *event)
{
    text_char(out, '{');
    for (u32 i = 0; i < event->top_count; i++) {
        text_put(out, i ? STR(",") : STR(""));
        json_put_str(out, event->top[i].text);
        text_char(out, ':');
        put_logprob(out, event->top[i].logprob);
    }
    text_char(out, '}');
}

static void put_item(struct text *out, const struct answer *answer, const struct ml_event *event,
                     u32 list)
{
    if (answer->chat)
        put_chat_item(out, event);
    else if (list == 0)
        json_put_str(out, event->token_text);
    else if (list == 1)
        put_logprob(out, event->logprob);
    else if (list == 2)
        put_top_map(out, event);
    else
        text_fmt(out, "%lu", answer->text_offset);
}

static u64 characters(struct str text)
{
    u64 count = 0;

    for (usize i = 0; i < text.len; i++)
        count += ((u8)text.ptr[i] & 0xc0) != 0x80;
    return count;
}

/* ---- the end of a choice, usage ---- */

static void put_finish(struct text *out, enum ml_finish finish)
{
    text_fmt(out, ",\"finish_reason\":%s",
             finish == ML_FINISH_NONE ? "null" : finish == ML_FINISH_STOP ? "\"stop\"" : "\"length\"");
}

static void put_usage(struct text *out, const struct ml_event *event)
{
    text_fmt(out,
             ",\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,"
             "\"prompt_tokens_details\":{\"cached_tokens\":%u}}",
             event->prompt_tokens, event->completion_tokens,
             event->prompt_tokens + event->completion_tokens, event->cached_tokens);
}

/* ---- streaming ---- */

/* One piece of the body, as a chunk unless the connection's end is the body's end (HTTP/1.0). */
static bool send_piece(struct server *server, struct conn *conn, struct str piece)
{
    char size[16];
    struct text text = TEXT_ON(size);

    if (!conn->head.minor)
        return conn_put(server, conn, piece);
    text_fmt(&text, "%zx\r\n", piece.len);
    return conn_put(server, conn, text_str(&text)) && conn_put(server, conn, piece) &&
           conn_put(server, conn, STR("\r\n"));
}

static bool send_line(struct server *server, struct conn *conn)
{
    text_put(&server->line, STR("\n\n"));
    CHECK(!server->line.truncated);
    return send_piece(server, conn, text_str(&server->line));
}

static struct text *event_start(struct server *server, const struct answer *answer)
{
    struct text *out = reply_line(server);

    text_put(out, STR("data: "));
    put_head(server, answer, words[answer->chat].chunk);
    return out;
}

static bool stream_role(struct server *server, struct conn *conn)
{
    struct text *out = event_start(server, &conn->answer);

    text_put(out, STR("{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\","
                      "\"refusal\":null},\"logprobs\":null"));
    put_finish(out, ML_FINISH_NONE);
    text_fmt(out, "}]%s}", conn->answer.include_usage ? ",\"usage\":null" : "");
    return send_line(server, conn);
}

static bool stream_text(struct server *server, struct conn *conn, const struct ml_event *event)
{
    const struct answer *answer = &conn->answer;
    const struct words *w = &words[answer->chat];
    struct text *out = event_start(server, answer);

    text_fmt(out, "{\"index\":0,%s", w->delta);
    json_put_chars(out, event->text);
    text_fmt(out, "%s,\"logprobs\":", w->delta_end);
    for (u32 i = 0; answer->logprobs && event->kind == ML_EVENT_TOKEN && i < w->lists; i++) {
        text_put(out, str_of(w->list[i]));
        put_item(out, answer, event, i);
    }
    text_put(out, answer->logprobs && event->kind == ML_EVENT_TOKEN ? str_of(w->lists_end)
                                                                    : STR("null"));
    put_finish(out, ML_FINISH_NONE);
    text_fmt(out, "}]%s}", answer->include_usage ? ",\"usage\":null" : "");
    return send_line(server, conn);
}

static bool stream_finish(struct server *server, struct conn *conn, const struct ml_event *event)
{
    struct text *out = event_start(server, &conn->answer);

    text_fmt(out, "{\"index\":0,%s,\"logprobs\":null",
             conn->answer.chat ? "\"delta\":{}" : "\"text\":\"\"");
    put_finish(out, event->finish);
    text_fmt(out, "}]%s}", conn->answer.include_usage ? ",\"usage\":null" : "");
    return send_line(server, conn);
}

static void stream_end(struct server *server, struct conn *conn, const struct ml_event *event)
{
    if (event->text.len && !stream_text(server, conn, event))
        return;
    if (event->finish == ML_FINISH_ERROR) {
        struct fault fault;
        fault_from_ml(&fault, event->why, "", &(struct ml_refusal){});
        text_put(reply_line(server), STR("data: "));
        fault_json(&server->line, &fault);
        conn->close_after = true; /* and no [DONE]: nobody takes this for a complete answer */
        if (!send_line(server, conn))
            return;
    } else {
        if (!stream_finish(server, conn, event))
            return;
        if (conn->answer.include_usage) {
            text_char(event_start(server, &conn->answer), ']');
            put_usage(&server->line, event);
            text_char(&server->line, '}');
            if (!send_line(server, conn))
                return;
        }
        if (!send_piece(server, conn, STR("data: [DONE]\n\n")))
            return;
    }
    if (conn->head.minor && !conn_put(server, conn, STR("0\r\n\r\n")))
        return;
    conn_phase(conn, CONN_SEND);
}

static void stream_event(struct server *server, struct conn *conn, const struct ml_event *event)
{
    if (event->kind == ML_EVENT_END)
        stream_end(server, conn, event);
    else if (event->kind == ML_EVENT_START)
        (void)(!conn->answer.chat || stream_role(server, conn));
    else if (event->text.len || conn->answer.logprobs)
        (void)stream_text(server, conn, event);
}

void answer_ping(struct server *server, struct conn *conn)
{
    (void)send_piece(server, conn, STR(": ping\n\n"));
}

/* ---- one whole body ---- */

static bool keep(struct server *server, struct rope *rope)
{
    CHECK(!server->line.truncated);
    return rope_put(rope, &server->out_pool, text_str(&server->line), 0);
}

static bool keep_token(struct server *server, struct answer *answer, const struct ml_event *event)
{
    for (u32 i = 0; answer->logprobs && i < words[answer->chat].lists; i++) {
        struct text *out = reply_line(server);
        text_put(out, answer->list[i].len ? STR(",") : STR(""));
        put_item(out, answer, event, i);
        if (!keep(server, &answer->list[i]))
            return false;
    }
    return true;
}

static bool keep_text(struct server *server, struct answer *answer, struct str text)
{
    json_put_chars(reply_line(server), text);
    return keep(server, &answer->text);
}

static usize kept_bytes(const struct answer *answer)
{
    usize bytes = answer->text.len;

    for (u32 i = 0; i < ANSWER_LISTS; i++)
        bytes += answer->list[i].len;
    return bytes;
}

/* The words around what was kept go into answer->text, in the order of the body. */
static void whole_end(struct server *server, struct conn *conn, const struct ml_event *event)
{
    struct answer *answer = &conn->answer;
    const struct words *w = &words[answer->chat];
    struct rope body = {};
    struct text *out = reply_line(server);
    bool ok = true;

    put_head(server, answer, w->object);
    text_fmt(out, "{\"index\":0,%s", w->whole);
    ok = keep(server, &body);
    rope_append(&body, &answer->text);
    text_fmt(reply_line(server), "%s,\"logprobs\":%s", w->whole_end, answer->logprobs ? "" : "null");
    ok = ok && keep(server, &body);
    for (u32 i = 0; answer->logprobs && i < w->lists; i++) {
        text_put(reply_line(server), str_of(w->list[i]));
        ok = ok && keep(server, &body);
        rope_append(&body, &answer->list[i]);
    }
    text_put(reply_line(server), answer->logprobs ? str_of(w->lists_end) : STR(""));
    put_finish(out, event->finish);
    text_put(out, STR("}]"));
    put_usage(out, event);
    text_char(out, '}');
    ok = ok && keep(server, &body);
    rope_append(&answer->text, &body);
    if (!ok || !reply_head(server, conn, 200, "application/json", "", answer->text.len)) {
        conn_drop(server, conn);
        return;
    }
    rope_append(&conn->out, &answer->text);
    conn_phase(conn, CONN_SEND);
}

static void whole_event(struct server *server, struct conn *conn, const struct ml_event *event)
{
    struct answer *answer = &conn->answer;
    struct fault fault;

    if (event->kind == ML_EVENT_START)
        return;
    if (event->finish == ML_FINISH_ERROR) {
        fault_from_ml(&fault, event->why, "", &(struct ml_refusal){});
        reply_fault(server, conn, &fault);
        return;
    }
    if (!keep_text(server, answer, event->text) ||
        (event->kind == ML_EVENT_TOKEN && !keep_token(server, answer, event))) {
        fault_set(&fault, FAULT_OVERLOADED, "", "Too many large answers at once.");
        server->on->cancel(server->ml, answer->ticket);
        reply_fault(server, conn, &fault);
        return;
    }
    bool full = kept_bytes(answer) > OUT_BYTES_MAX;
    if (event->kind != ML_EVENT_END && !full)
        return;
    struct ml_event end = *event;
    if (full && event->kind != ML_EVENT_END) { /* more would not fit: the answer ends here */
        server->on->cancel(server->ml, answer->ticket);
        end.finish = ML_FINISH_LENGTH;
        end.completion_tokens = answer->completion_tokens;
    }
    whole_end(server, conn, &end);
}

/* ---- both ---- */

void answer_start(struct server *server, struct conn *conn, const struct api_request *request,
                  u64 ticket)
{
    struct answer *answer = &conn->answer;
    struct text id = TEXT_ON(answer->id);
    u64 number[2];

    *answer = (struct answer){
        .ticket = ticket,
        .chat = request->chat,
        .stream = request->stream,
        .include_usage = request->include_usage,
        .logprobs = request->ml.sampling.logprobs,
        .created_unix_s = time_unix_s(),
    };
    random_bytes(number, sizeof(number));
    text_fmt(&id, "%s%016lx%08x", words[answer->chat].id, number[0], (u32)number[1]);
    conn_phase(conn, CONN_RUN);
    if (answer->stream)
        (void)reply_head(server, conn, 200, "text/event-stream; charset=utf-8",
                         "X-Accel-Buffering: no\r\n",
                         conn->head.minor ? HTTP_LENGTH_CHUNKED : HTTP_LENGTH_UNTIL_CLOSE);
}

void answer_event(struct server *server, struct conn *conn, const struct ml_event *event)
{
    struct answer *answer = &conn->answer;

    answer->completion_tokens += event->kind == ML_EVENT_TOKEN;
    if (answer->stream)
        stream_event(server, conn, event);
    else
        whole_event(server, conn, event);
    answer->text_offset += characters(event->token_text);
}
