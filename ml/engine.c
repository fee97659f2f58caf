/*
 * engine.c: requests in, events out. Owns the way of a request: prompt -> queue -> slot -> steps on
 * the device -> tokens -> text -> end; must not know of HTTP or of tensors. ml_step never waits: it
 * starts a step, or advances the one that runs until its slice is over.
 */
#include "ml/priv.h"

/* Text of a request three times over (the rendering, its parts) or once with the tokenizer's. */
#define SCRATCH_BYTES (TOKEN_SCRATCH_BYTES(ML_REQUEST_BYTES_MAX) + 4 * MIB)

static struct arena pages_arena(const char *name, usize bytes)
{
    void *memory = pages_alloc(bytes);

    return memory ? arena_on(name, memory, bytes) : (struct arena){.name = name};
}

/* For as many lanes as there are, all of the same shape. */
err engine_start(struct ml *ml)
{
    const struct model_shape *shape = model_shape(ml->lane[0].model);
    usize pages = shape->kv_tokens / MODEL_KV_PAGE_TOKENS + (usize)shape->slots * shape->ctx_max;
    usize token_bytes = shape->ctx_max * sizeof(u32);
    u32 slots = ml->lane_count * shape->slots;

    ml->sequence_count = slots + ML_QUEUE_MAX;
    ml->event_max = 2 * EVENTS_PER_SLOT * slots;
    ml->work = pages_arena("engine", ml->sequence_count * (sizeof(struct sequence) + token_bytes) +
                                         ml->event_max * sizeof(struct event_place) +
                                         ml->lane_count * pages * (sizeof(u32) + sizeof(bool)) +
                                         shape->vocab * 8ull + 64 * KIB);
    ml->scratch = pages_arena("prompt", SCRATCH_BYTES);
    ml->sequence = arena_new(&ml->work, struct sequence, ml->sequence_count);
    ml->event = arena_new(&ml->work, struct event_place, ml->event_max);
    if (!ml->scratch.base || !ml->sequence || !ml->event)
        return E_NOMEM;
    for (u32 i = 0; i < ml->sequence_count; i++)
        if (!(ml->sequence[i].token = arena_new(&ml->work, u32, shape->ctx_max)))
            return E_NOMEM;
    return sampler_init(&ml->sampler, &ml->work, shape->vocab);
}

/* ---- a request comes ---- */

static err refuse(struct ml_refusal *refusal, err why, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static err refuse(struct ml_refusal *refusal, err why, const char *format, ...)
{
    struct text text = {refusal->text, 0, sizeof(refusal->text) - 1, false};
    va_list args;

    va_start(args, format);
    text_vfmt(&text, format, args);
    va_end(args);
    refusal->text[text.len] = '\0';
    return refusal->why = why;
}

static err read_tokens(struct ml *ml, const struct ml_request *request, struct sequence *sequence,
                       struct ml_refusal *refusal)
{
    sequence->prompt = request->token_count;
    for (u32 i = 0; i < request->token_count; i++) {
        if (request->token[i] >= ml->info.vocab)
            return refuse(refusal, E_RANGE, "token %u is not in the vocabulary of %u",
                          request->token[i], ml->info.vocab);
        if (i < ml->info.ctx_max)
            sequence->token[i] = request->token[i];
    }
    return OK;
}

static err render(struct ml *ml, const struct ml_request *request, struct ml_part **part,
                  u32 *part_count, struct ml_refusal *refusal)
{
    struct jinja_env env = ml->chat;
    struct text reason = {refusal->text, 0, sizeof(refusal->text) - 1, false};

    if (!env.source.len)
        return refuse(refusal, E_FORMAT, "this model has no chat template");
    env.message = request->message;
    env.message_count = request->message_count;
    env.add_generation_prompt = true;
    env.now_unix_s = time_unix_s();
    err why = jinja_render(&env, &ml->scratch, part, part_count, &reason);
    refusal->text[reason.len] = '\0';
    return refusal->why = why == OK ? OK : E_FORMAT;
}

static err read_text(struct ml *ml, const struct ml_request *request, struct sequence *sequence,
                     struct ml_refusal *refusal)
{
    struct token_list list = {sequence->token, ml->info.ctx_max, 0};
    const struct ml_part *part = request->part;
    u32 count = request->part_count, bos = tokenizer_facts(ml->tok)->bos;
    usize bytes = 0;

    for (u32 i = 0; i < request->message_count; i++)
        bytes += request->message[i].content.len + request->message[i].role.len;
    for (u32 i = 0; i < count; i++)
        bytes += part[i].text.len;
    if (bytes > ML_REQUEST_BYTES_MAX)
        return refuse(refusal, E_RANGE, "the text is longer than %u bytes",
                      (u32)ML_REQUEST_BYTES_MAX);
    if (request->message_count) {
        struct ml_part *rendered;
        TRY(render(ml, request, &rendered, &count, refusal));
        part = rendered;
    } else if (tokenizer_facts(ml->tok)->adds_bos && bos != TOKEN_NONE)
        list.token[list.count++] = bos;
    err why = tokenizer_encode(ml->tok, &ml->scratch, part, count, &list);
    sequence->prompt = list.count;
    return why == OK || why == E_LIMIT ? OK : refuse(refusal, why, "%s", err_text(why));
}

static err read_prompt(struct ml *ml, const struct ml_request *request, struct sequence *sequence,
                       struct ml_refusal *refusal)
{
    usize mark = arena_mark(&ml->scratch);
    err why = (request->token_count ? read_tokens : read_text)(ml, request, sequence, refusal);

    arena_reset(&ml->scratch, mark);
    if (why != OK)
        return why;
    if (!sequence->prompt && tokenizer_facts(ml->tok)->bos != TOKEN_NONE)
        sequence->token[sequence->prompt++] = tokenizer_facts(ml->tok)->bos;
    if (!sequence->prompt)
        return refuse(refusal, E_RANGE, "the prompt is empty");
    if (sequence->prompt < ml->info.ctx_max)
        return OK;
    refusal->prompt_tokens = sequence->prompt;
    refusal->ctx_max = ml->info.ctx_max;
    return refuse(refusal, E_LIMIT, "the prompt has %u tokens, the context %u with the answer",
                  sequence->prompt, ml->info.ctx_max);
}

static u32 waiting(const struct ml *ml)
{
    u32 count = 0;

    for (u32 i = 0; i < ml->lane_count; i++)
        count += ml->lane[i].batch.waiting_count;
    return count;
}

err ml_submit(struct ml *ml, const struct ml_request *request, u64 *ticket,
              struct ml_refusal *refusal)
{
    struct sequence *sequence = ml->sequence;

    *refusal = (struct ml_refusal){};
    if (ml->state != ML_READY)
        return refuse(refusal, E_STATE, "the model is not ready");
    if (waiting(ml) == ML_QUEUE_MAX)
        return refuse(refusal, E_BUSY, "%u requests wait already", ML_QUEUE_MAX);
    while (sequence->state != SEQUENCE_FREE) /* there are as many as slots and waiting places */
        CHECK(++sequence < ml->sequence + ml->sequence_count);
    *sequence = (struct sequence){.token = sequence->token,
                                  .sampling = request->sampling,
                                  .ignore_eos = request->ignore_eos,
                                  .output = BATCH_NONE};
    if (stream_start(&sequence->stream, request->stop, request->stop_count) != OK)
        return refuse(refusal, E_RANGE, "a stop sequence is too long, or no UTF-8");
    TRY(read_prompt(ml, request, sequence, refusal));
    u64 end = request->tokens_max ? (u64)sequence->prompt + request->tokens_max : UINT_MAX;
    sequence->count = sequence->prompt;
    sequence->count_max = (u32)min_u64(end, ml->info.ctx_max);
    sequence->ticket = *ticket = ++ml->ticket_last;
    rng_start(&sequence->rng, &sequence->sampling);
    ml->stats.requests_total++;
    lane_wait(ml, sequence);
    return OK;
}

/* ---- events ---- */

struct event_place *engine_event(struct ml *ml, const struct sequence *sequence,
                                 enum ml_event_kind kind)
{
    u32 place = (ml->event_first + ml->event_count) % ml->event_max;

    CHECK(ml->event_count < ml->event_max);
    ml->event_count++;
    ml->event[place].event = (struct ml_event){
        .ticket = sequence->ticket,
        .kind = kind,
        .prompt_tokens = sequence->prompt,
        .completion_tokens = sequence->count - sequence->prompt,
    };
    return &ml->event[place];
}

bool ml_event_next(struct ml *ml, struct ml_event *event)
{
    while (ml->event_count) {
        *event = ml->event[ml->event_first].event;
        ml->event_first = (ml->event_first + 1) % ml->event_max;
        ml->event_count--;
        if (event->ticket)
            return true;
    }
    return false;
}

void ml_cancel(struct ml *ml, u64 ticket)
{
    for (u32 i = 0; i < ml->event_count; i++) {
        struct ml_event *event = &ml->event[(ml->event_first + i) % ml->event_max].event;
        if (event->ticket == ticket)
            event->ticket = 0;
    }
    for (u32 i = 0; i < ml->sequence_count; i++) {
        struct sequence *sequence = &ml->sequence[i];
        if (sequence->state == SEQUENCE_FREE || sequence->ticket != ticket)
            continue;
        batch_leave(&sequence->lane->batch, sequence);
        ml->stats.cancelled_total++;
    }
}

/* The last event; slot and pages are free for the next one in the queue. */
void engine_finish(struct ml *ml, struct sequence *sequence, enum ml_finish finish, err why)
{
    struct event_place *place = engine_event(ml, sequence, ML_EVENT_END);
    struct text text = TEXT_ON(place->text);
    u64 now = time_ns(), first_ns = sequence->first_ns ? sequence->first_ns : now;

    stream_end(&sequence->stream, &text);
    place->event.text = text_str(&text);
    place->event.finish = finish;
    place->event.why = why;
    place->event.prompt_ns = first_ns - sequence->start_ns;
    place->event.decode_ns = now - first_ns;
    ml->stats.prompt_ns_total += place->event.prompt_ns;
    ml->stats.decode_ns_total += place->event.decode_ns;
    ml->stats.failed_total += finish == ML_FINISH_ERROR;
    batch_leave(&sequence->lane->batch, sequence);
}

/* ---- turns ---- */

bool ml_step(struct ml *ml, u32 slice_us)
{
    u64 deadline_ns = time_ns() + slice_us * NS_PER_US;
    bool more = false, ready = false, loading = false;

    if (!ml->loaded)
        return ml->state == ML_LOADING && load_advance(ml, deadline_ns);
    for (u32 i = 0; i < ml->lane_count; i++) {
        more |= lane_step(ml, &ml->lane[i], deadline_ns);
        ready |= ml->lane[i].state == LANE_READY;
        loading |= ml->lane[i].state == LANE_LOADING;
    }
    ml->state = ready ? ML_READY : loading ? ML_LOADING : ML_FAILED;
    return more;
}

void ml_stats(const struct ml *ml, struct ml_stats *stats)
{
    *stats = ml->stats;
    stats->kv_page_tokens = MODEL_KV_PAGE_TOKENS;
    for (u32 i = 0; i < ml->lane_count && ml->loaded; i++) {
        const struct batch *batch = &ml->lane[i].batch;
        const struct model_shape *shape = model_shape(ml->lane[i].model);
        stats->slots += batch->slots;
        for (u32 s = 0; s < batch->slots; s++)
            stats->slots_busy += batch->running[s] != NULL;
        stats->queue_waiting += batch->waiting_count;
        stats->kv_pages += batch->page_count;
        stats->kv_pages_used += batch->page_count - batch->page_free_count;
        stats->weights_bytes += shape->weights_bytes;
        stats->kv_bytes += shape->kv_bytes;
        stats->program_bytes += shape->program_bytes;
    }
}
