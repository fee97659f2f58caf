/*
 * net_fake.c: see net_fake.h.
 */
#include <stdlib.h>

#include "tests/host/platform.h"
#include "tests/net_fake.h"

/* ---- the wire ---- */

/* Large buffers are kept for the next wire: mapping them costs more than a whole request. */
static struct {
    char *buffer[4];
    u32 count;
} spare;

static struct wire *wire_of(struct stream *stream)
{
    return (struct wire *)stream;
}

static usize wire_recv(struct stream *stream, void *out, usize cap)
{
    struct wire *wire = wire_of(stream);
    usize take = min_u64(cap, wire->in_len - wire->in_at);

    EXPECT(!wire->closed && !wire->aborted);
    take = wire->recv_max ? min_u64(take, wire->recv_max) : take;
    memcpy(out, wire->in + wire->in_at, take);
    wire->in_at += take;
    return take;
}

static usize wire_send(struct stream *stream, const void *data, usize len)
{
    struct wire *wire = wire_of(stream);
    usize take = wire->state == STREAM_GONE ? 0 : min_u64(len, wire->send_room);

    EXPECT(!wire->closed && !wire->aborted);
    EXPECT(wire->out_len + take <= WIRE_BYTES);
    memcpy(wire->out + wire->out_len, data, take);
    wire->out_len += take;
    wire->send_room -= take;
    return take;
}

static usize wire_unsent(struct stream *stream)
{
    return wire_of(stream)->unacked;
}
static enum stream_state wire_state(struct stream *stream)
{
    return wire_of(stream)->state;
}

static void wire_shut(struct stream *stream)
{
    EXPECT(!wire_of(stream)->closed && !wire_of(stream)->aborted);
    wire_of(stream)->closed = true;
}

static void wire_abort(struct stream *stream)
{
    EXPECT(!wire_of(stream)->closed && !wire_of(stream)->aborted);
    wire_of(stream)->aborted = true;
}

static const struct stream_ops wire_ops = {
    wire_recv, wire_send, wire_unsent, wire_state, wire_shut, wire_abort,
};

void wire_open(struct fake *fake, struct wire *wire)
{
    *wire = (struct wire){.stream = {.ops = &wire_ops, .peer = "test"},
                          .send_room = WIRE_BYTES,
                          .server = fake->server};
    wire->in = spare.count ? spare.buffer[--spare.count] : malloc(2 * WIRE_BYTES);
    wire->out = wire->in + WIRE_BYTES;
    EXPECT(server_accept(fake->server, &wire->stream));
}

void wire_close(struct wire *wire)
{
    for (u32 i = 0; i < NET_CONNECTIONS_MAX; i++)
        if (wire->server->conn[i].stream == &wire->stream)
            conn_drop(&wire->server->conn[i]);
    if (spare.count < ARRAY_LEN(spare.buffer))
        spare.buffer[spare.count++] = wire->in;
    else
        free(wire->in);
}

void wire_feed(struct wire *wire, struct str bytes)
{
    EXPECT(wire->in_len + bytes.len <= WIRE_BYTES);
    memcpy(wire->in + wire->in_len, bytes.ptr, bytes.len);
    wire->in_len += bytes.len;
}

struct str wire_out(const struct wire *wire)
{
    return (struct str){wire->out, wire->out_len};
}

u32 wire_status(const struct wire *wire)
{
    u64 status;

    if (!str_starts(wire_out(wire), STR("HTTP/1.1 ")))
        return 0;
    return str_to_u64(str_slice(wire_out(wire), 9, 12), &status) == OK ? (u32)status : 0;
}

struct str wire_body(const struct wire *wire)
{
    struct str out = wire_out(wire);

    return str_slice(out, str_find(out, STR("\r\n\r\n")) + 4, out.len);
}

bool wire_has(const struct wire *wire, const char *text)
{
    return str_find(wire_out(wire), str_of(text)) < wire->out_len;
}

void expect_json(struct str text)
{
    static struct json nodes[65536];
    struct json_doc doc = {.node = nodes, .node_max = ARRAY_LEN(nodes)};
    char *copy = malloc(text.len);

    memcpy(copy, text.ptr, text.len);
    err e = json_read(&doc, copy, text.len);
    if (e != OK)
        test_fail(__FILE__, __LINE__, "%s at %zu of %.*s", doc.why, doc.at, (int)text.len,
                  text.ptr);
    free(copy);
}

/* ---- the runtime ---- */

static struct fake *fake_of(const struct ml *ml)
{
    return (struct fake *)(uintptr_t)ml;
}

static void fake_status(const struct ml *ml, struct ml_status *status)
{
    *status = fake_of(ml)->status;
}

static const struct ml_model_info *fake_info(const struct ml *ml)
{
    return &fake_of(ml)->info;
}

static void note_prompt(struct fake *fake, const struct ml_request *request)
{
    struct text out = {fake->prompt, 0, sizeof(fake->prompt) - 1, false};

    for (u32 i = 0; i < request->message_count; i++) {
        const struct ml_message *m = &request->message[i];
        text_fmt(&out, "%.*s:", (int)m->role.len, m->role.ptr);
        text_put(&out, m->content);
        text_char(&out, '|');
    }
    for (u32 i = 0; i < request->part_count; i++)
        text_put(&out, request->part[i].text);
    for (u32 i = 0; i < request->token_count; i++)
        text_fmt(&out, "%u,", request->token[i]);
    fake->prompt[out.len] = 0;
}

static err fake_submit(struct ml *ml, const struct ml_request *request, u64 *ticket,
                       struct ml_refusal *refusal)
{
    struct fake *fake = fake_of(ml);

    *refusal = fake->refusal;
    if (fake->submit_error != OK)
        return fake->submit_error;
    fake->request = *request;
    note_prompt(fake, request);
    for (u32 i = 0; i < FAKE_RUNS; i++) {
        if (!fake->run[i].ticket) {
            fake->run[i] = (struct fake_run){++fake->tickets, 0};
            *ticket = fake->tickets;
            return OK;
        }
    }
    return E_BUSY;
}

static void fake_cancel(struct ml *ml, u64 ticket)
{
    struct fake *fake = fake_of(ml);

    for (u32 i = 0; i < FAKE_RUNS; i++) {
        if (fake->run[i].ticket == ticket) {
            fake->run[i].ticket = 0;
            fake->cancelled++;
        }
    }
}

static void fake_next(struct fake *fake, struct fake_run *run, struct ml_event *event)
{
    u32 at = run->at++;

    *event = (struct ml_event){.ticket = run->ticket, .prompt_tokens = 7};
    if (at == 0) {
        event->kind = ML_EVENT_START;
    } else if (at <= fake->token_count) {
        event->kind = ML_EVENT_TOKEN;
        event->text = event->token_text = str_of(fake->token[at - 1]);
        event->token = at;
        event->logprob = -0.25f * (f32)at;
        event->top = fake->top;
        event->top_count = fake->request.sampling.top_logprobs;
        event->completion_tokens = at;
    } else {
        event->kind = ML_EVENT_END;
        event->completion_tokens = fake->token_count;
        event->finish = fake->fail != OK ? ML_FINISH_ERROR : ML_FINISH_STOP;
        event->why = fake->fail;
        run->ticket = 0;
    }
}

static bool fake_event_next(struct ml *ml, struct ml_event *event)
{
    struct fake *fake = fake_of(ml);

    for (u32 i = 0; i < FAKE_RUNS && !fake->hold; i++) {
        if (fake->run[i].ticket) {
            fake_next(fake, &fake->run[i], event);
            return true;
        }
    }
    return false;
}

static void fake_stats(const struct ml *ml, struct ml_stats *stats)
{
    *stats = (struct ml_stats){.slots = 4,
                               .slots_busy = fake_running(fake_of(ml)),
                               .kv_pages = 8,
                               .kv_pages_used = 2,
                               .kv_page_tokens = 16};
}

static const struct server_ml fake_runtime = {
    fake_status, fake_info, fake_submit, fake_cancel, fake_event_next, fake_stats,
};

void fake_open(struct fake *fake)
{
    static const char *const hello[] = {"Hel", "lo", " \"w\"", "\n\xc3\xa9"};

    *fake = (struct fake){
        .config = {.version = STR("0.1-test")},
        .status = {.state = ML_READY, .step = "ready", .percent = 100},
        .info = {.id = STR("SmolLM2-135M-Instruct"),
                 .architecture = STR("llama"),
                 .quantisation = STR("Q4_1"),
                 .vocab = 49152,
                 .ctx_max = 2048},
        .token = hello,
        .token_count = ARRAY_LEN(hello),
    };
    for (u32 i = 0; i < ML_TOP_LOGPROBS_MAX; i++)
        fake->top[i] = (struct ml_top){i, -1.5f - (f32)i, STR("\xe2\x82")}; /* half a character */
    platform_clock_fake(1000 * NS_PER_S);
    EXPECT_OK(server_open(&fake->server, &fake->config, (struct ml *)fake));
    fake->server->on = &fake_runtime;
}

void fake_close(struct fake *fake)
{
    server_close(fake->server);
}

u32 fake_running(const struct fake *fake)
{
    u32 count = 0;

    for (u32 i = 0; i < FAKE_RUNS; i++)
        count += fake->run[i].ticket != 0;
    return count;
}

void fake_settle(struct fake *fake)
{
    for (u32 i = 0; i < 100000 && server_poll(fake->server); i++)
        ;
}

void fake_ask(struct fake *fake, struct wire *wire, struct str request)
{
    wire_open(fake, wire);
    wire_feed(wire, request);
    fake_settle(fake);
}

void fake_post(struct fake *fake, struct wire *wire, const char *path, struct str body)
{
    char head[256];
    struct text text = TEXT_ON(head);

    text_fmt(&text,
             "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n",
             path, body.len);
    wire_open(fake, wire);
    wire_feed(wire, text_str(&text));
    wire_feed(wire, body);
    fake_settle(fake);
}
