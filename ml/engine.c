/*
 * engine.c: requests in, events out. Owns the way of a request: prompt -> queue -> slot -> steps on
 * the device -> tokens -> text -> end; must not know of HTTP or of tensors. ml_step never waits: it
 * starts a step, or advances the one that runs until its slice is over.
 */
#include "ml/priv.h"

/* Text of a request three times over (the rendering, its parts) or once with the tokenizer's. */
#define SCRATCH_BYTES (TOKEN_SCRATCH_BYTES(ML_REQUEST_BYTES_MAX) + 4 * MIB)
/* While others stream, prompts take this much of a step, and a page's worth of tokens at least. */
#define PREFILL_NS      (100 * NS_PER_MS)
#define EVENTS_PER_SLOT 3u /* of one step: START, TOKEN, END */

static struct arena pages_arena(const char *name, usize bytes)
{
    void *memory = pages_alloc(bytes);

    return memory ? arena_on(name, memory, bytes) : (struct arena){.name = name};
}

err engine_start(struct ml *ml)
{
    const struct model_shape *shape = model_shape(ml->model);
    usize pages = shape->kv_tokens / MODEL_KV_PAGE_TOKENS + (usize)shape->slots * shape->ctx_max;
    usize token_bytes = shape->ctx_max * sizeof(u32);

    ml->sequence_count = shape->slots + ML_QUEUE_MAX;
    ml->event_max = 2 * EVENTS_PER_SLOT * shape->slots;
    ml->work = pages_arena("engine", ml->sequence_count * (sizeof(struct sequence) + token_bytes) +
                                         ml->event_max * sizeof(struct event_place) +
                                         pages * (sizeof(u32) + sizeof(bool)) +
                                         shape->vocab * 8ull + 64 * KIB);
    ml->scratch = pages_arena("prompt", SCRATCH_BYTES);
    ml->sequence = arena_new(&ml->work, struct sequence, ml->sequence_count);
    ml->event = arena_new(&ml->work, struct event_place, ml->event_max);
    if (!ml->scratch.base || !ml->sequence || !ml->event)
        return E_NOMEM;
    for (u32 i = 0; i < ml->sequence_count; i++)
        if (!(ml->sequence[i].token = arena_new(&ml->work, u32, shape->ctx_max)))
            return E_NOMEM;
    TRY(sampler_init(&ml->sampler, &ml->work, shape->vocab));
    return batch_init(&ml->batch, &ml->work, shape);
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

err ml_submit(struct ml *ml, const struct ml_request *request, u64 *ticket,
              struct ml_refusal *refusal)
{
    struct sequence *sequence = ml->sequence;

    *refusal = (struct ml_refusal){};
    if (ml->state != ML_READY)
        return refuse(refusal, E_STATE, "the model is not ready");
    if (ml->batch.waiting_count == ML_QUEUE_MAX)
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
    batch_wait(&ml->batch, sequence);
    return OK;
}

/* ---- events ---- */

static struct event_place *push_event(struct ml *ml, const struct sequence *sequence,
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
        batch_leave(&ml->batch, sequence);
        ml->stats.cancelled_total++;
    }
}

/* The last event; slot and pages are free for the next one in the queue. */
static void finish(struct ml *ml, struct sequence *sequence, enum ml_finish finish, err why)
{
    struct event_place *place = push_event(ml, sequence, ML_EVENT_END);
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
    batch_leave(&ml->batch, sequence);
}

/* ---- steps ---- */

/* Control tokens are marks for the model; nobody wants to read them. */
static struct str shown_text(const struct ml *ml, u32 token)
{
    bool control = tokenizer_kind(ml->tok, token) == TOKEN_CONTROL;

    return control ? (struct str){} : tokenizer_text(ml->tok, token);
}

static void take_token(struct ml *ml, struct sequence *sequence)
{
    struct draw draw;
    err why = sampler_draw(&ml->sampler, model_logits(ml->model, sequence->output),
                           &sequence->sampling, &sequence->rng, &draw);

    if (why != OK) {
        finish(ml, sequence, ML_FINISH_ERROR, why);
        return;
    }
    CHECK(sequence->count < sequence->count_max);
    sequence->first_ns = sequence->first_ns ? sequence->first_ns : time_ns();
    sequence->token[sequence->count++] = draw.token;
    ml->stats.generated_tokens_total++;
    if (tokenizer_is_end(ml->tok, draw.token) && !sequence->ignore_eos) {
        finish(ml, sequence, ML_FINISH_STOP, OK);
        return;
    }
    struct event_place *place = push_event(ml, sequence, ML_EVENT_TOKEN);
    struct text text = TEXT_ON(place->text);
    bool stop = stream_put(&sequence->stream, shown_text(ml, draw.token), &text);
    place->event.text = text_str(&text);
    place->event.token = draw.token;
    place->event.token_text = tokenizer_text(ml->tok, draw.token);
    place->event.logprob = draw.logprob;
    place->event.top = place->top;
    place->event.top_count = draw.top_count;
    memcpy(place->top, draw.top, sizeof(draw.top));
    for (u32 i = 0; i < draw.top_count; i++)
        place->top[i].text = tokenizer_text(ml->tok, draw.top[i].token);
    if (stop || sequence->count == sequence->count_max)
        finish(ml, sequence, stop ? ML_FINISH_STOP : ML_FINISH_LENGTH, OK);
}

/* While others stream, a prompt must not hold them up for long. */
static u32 prefill_max(const struct ml *ml)
{
    u32 max = model_shape(ml->model)->rows_max;

    for (u32 i = 0; i < ml->batch.slots; i++) {
        const struct sequence *sequence = ml->batch.running[i];
        if (sequence && sequence->first_ns && ml->row_ns)
            max = (u32)max_u64(MODEL_KV_PAGE_TOKENS, min_u64(max, PREFILL_NS / ml->row_ns));
    }
    return max;
}

static bool admit(struct ml *ml)
{
    struct sequence *next = batch_admit(&ml->batch, model_batch(ml->model));

    if (!next)
        return false;
    next->start_ns = time_ns();
    push_event(ml, next, ML_EVENT_START);
    return true;
}

/* What a request has left in the pool is gone before the next step. */
static bool forget(struct ml *ml)
{
    while (ml->forget_count || (ml->forget_count = batch_dirty(&ml->batch, &ml->forget_first))) {
        if (model_forget(ml->model, ml->forget_first * MODEL_KV_PAGE_TOKENS,
                         ml->forget_count * MODEL_KV_PAGE_TOKENS) == E_BUSY)
            return false;
        batch_cleaned(&ml->batch, ml->forget_first, ml->forget_count);
        ml->forget_count = 0;
    }
    return true;
}

/* False: there is nothing to compute, or no room for the events of a step until some are read. */
static bool start_step(struct ml *ml)
{
    struct model_batch *rows = model_batch(ml->model);
    u32 outputs;

    if (ml->event_count + EVENTS_PER_SLOT * ml->batch.slots > ml->event_max || !forget(ml))
        return false;
    while (admit(ml))
        ;
    ml->step_rows =
        batch_plan(&ml->batch, rows, model_shape(ml->model)->rows_max, prefill_max(ml), &outputs);
    if (!ml->step_rows)
        return false;
    ml->step_start_ns = time_ns();
    model_start(ml->model, ml->step_rows, outputs);
    return true;
}

static void finish_step(struct ml *ml)
{
    if (ml->step_rows >= MODEL_KV_PAGE_TOKENS)
        ml->row_ns = (time_ns() - ml->step_start_ns) / ml->step_rows;
    ml->stats.steps_total++;
    for (u32 i = 0; i < ml->batch.slots; i++) {
        struct sequence *sequence = ml->batch.running[i];
        if (!sequence || !sequence->rows)
            continue;
        if (sequence->computed < sequence->prompt)
            ml->stats.prompt_tokens_total += sequence->rows;
        sequence->computed += sequence->rows;
        if (sequence->output != BATCH_NONE)
            take_token(ml, sequence);
    }
}

/* ---- a device that fails ---- */

/* What runs has lost its keys and values, or will never end. */
static void lose_running(struct ml *ml)
{
    for (u32 i = 0; i < ml->batch.slots; i++)
        if (ml->batch.running[i])
            finish(ml, ml->batch.running[i], ML_FINISH_ERROR, E_DEVICE);
}

/* Slots are free one by one, so there is room for the events of all who wait. */
static void lose_waiting(struct ml *ml)
{
    while (ml->event_count + EVENTS_PER_SLOT * ml->batch.slots <= ml->event_max && admit(ml))
        lose_running(ml);
}

/* Whether a step may be started. */
static bool check_device(struct ml *ml)
{
    err e = model_health(ml->model, &ml->reason);

    if (e == OK || e == E_BUSY)
        return e == OK;
    lose_running(ml);
    if (e == E_STATE)
        e = model_reload(ml->model);
    if (e == OK) {
        load_again(ml);
    } else {
        ml->state = ML_FAILED;
        log_error("ml", "%s", ml->reason_text);
    }
    return false;
}

bool ml_step(struct ml *ml, u32 slice_us)
{
    u64 deadline_ns = time_ns() + slice_us * NS_PER_US;

    if (ml->state == ML_LOADING)
        return load_advance(ml, deadline_ns);
    if (ml->state == ML_FAILED) {
        if (ml->batch.waiting_count)
            lose_waiting(ml);
        return false;
    }
    if (!ml->running && (!check_device(ml) || !start_step(ml)))
        return ml->state == ML_LOADING || ml->forget_count;
    err e = model_advance(ml->model, deadline_ns);
    ml->running = e == E_BUSY;
    if (e == OK)
        finish_step(ml);
    else if (e != E_BUSY)
        lose_running(ml);
    return e != E_BUSY || !ml->gpu; /* a card computes by itself, and calls */
}

void ml_stats(const struct ml *ml, struct ml_stats *stats)
{
    const struct batch *batch = &ml->batch;

    *stats = ml->stats;
    stats->slots = batch->slots;
    for (u32 i = 0; i < batch->slots; i++)
        stats->slots_busy += batch->running[i] != NULL;
    stats->queue_waiting = batch->waiting_count;
    stats->kv_pages = batch->page_count;
    stats->kv_pages_used = batch->page_count - batch->page_free_count;
    stats->kv_page_tokens = MODEL_KV_PAGE_TOKENS;
    if (ml->state != ML_READY)
        return;
    stats->weights_bytes = model_shape(ml->model)->weights_bytes;
    stats->kv_bytes = model_shape(ml->model)->kv_bytes;
    stats->program_bytes = model_shape(ml->model)->program_bytes;
}
