/*
 * lane.c: one copy of the model on one device, and the steps it takes: sequences are admitted to
 * its slots, their rows are computed, tokens drawn. With several cards there are as many lanes; a
 * request stays in one. Owns what becomes of requests when a device fails; must not know of
 * prompts.
 */
#include "ml/priv.h"

/* While others stream, prompts take this much of a step, and a page's worth of tokens at least. */
#define PREFILL_NS (100 * NS_PER_MS)

/* ---- steps ---- */

/* Control tokens are marks for the model; nobody wants to read them. */
static struct str shown_text(const struct ml *ml, u32 token)
{
    bool control = tokenizer_kind(ml->tok, token) == TOKEN_CONTROL;

    return control ? (struct str){} : tokenizer_text(ml->tok, token);
}

static void take_token(struct ml *ml, struct lane *lane, struct sequence *sequence)
{
    struct draw draw;
    err why = sampler_draw(&ml->sampler, model_logits(lane->model, sequence->output),
                           &sequence->sampling, &sequence->rng, &draw);

    if (why != OK) {
        engine_finish(ml, sequence, ML_FINISH_ERROR, why);
        return;
    }
    CHECK(sequence->count < sequence->count_max);
    sequence->first_ns = sequence->first_ns ? sequence->first_ns : time_ns();
    sequence->token[sequence->count++] = draw.token;
    ml->stats.generated_tokens_total++;
    if (tokenizer_is_end(ml->tok, draw.token) && !sequence->ignore_eos) {
        engine_finish(ml, sequence, ML_FINISH_STOP, OK);
        return;
    }
    struct event_place *place = engine_event(ml, sequence, ML_EVENT_TOKEN);
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
        engine_finish(ml, sequence, stop ? ML_FINISH_STOP : ML_FINISH_LENGTH, OK);
}

/* While others stream, a prompt must not hold them up for long. */
static u32 prefill_max(const struct lane *lane)
{
    u32 max = model_shape(lane->model)->rows_max;

    for (u32 i = 0; i < lane->batch.slots; i++) {
        const struct sequence *sequence = lane->batch.running[i];
        if (sequence && sequence->first_ns && lane->row_ns)
            max = (u32)max_u64(MODEL_KV_PAGE_TOKENS, min_u64(max, PREFILL_NS / lane->row_ns));
    }
    return max;
}

/* For those of a step of every lane. */
static bool room_for_events(const struct ml *ml)
{
    return ml->event_count <= ml->event_max / 2;
}

static bool admit(struct ml *ml, struct lane *lane)
{
    struct sequence *next = batch_admit(&lane->batch, model_batch(lane->model));

    if (!next)
        return false;
    next->start_ns = time_ns();
    engine_event(ml, next, ML_EVENT_START);
    return true;
}

/* What a request has left in the pool is gone before the next step. */
static bool forget(struct lane *lane)
{
    while (lane->forget_count ||
           (lane->forget_count = batch_dirty(&lane->batch, &lane->forget_first))) {
        if (model_forget(lane->model, lane->forget_first * MODEL_KV_PAGE_TOKENS,
                         lane->forget_count * MODEL_KV_PAGE_TOKENS) == E_BUSY)
            return false;
        batch_cleaned(&lane->batch, lane->forget_first, lane->forget_count);
        lane->forget_count = 0;
    }
    return true;
}

/* False: there is nothing to compute. */
static bool start_step(struct ml *ml, struct lane *lane)
{
    struct model_batch *rows = model_batch(lane->model);
    u32 outputs;

    if (!forget(lane))
        return false;
    while (admit(ml, lane))
        ;
    lane->step_rows = batch_plan(&lane->batch, rows, model_shape(lane->model)->rows_max,
                                 prefill_max(lane), &outputs);
    if (!lane->step_rows)
        return false;
    lane->step_start_ns = time_ns();
    model_start(lane->model, lane->step_rows, outputs);
    return true;
}

static void finish_step(struct ml *ml, struct lane *lane)
{
    if (lane->step_rows >= MODEL_KV_PAGE_TOKENS)
        lane->row_ns = (time_ns() - lane->step_start_ns) / lane->step_rows;
    ml->stats.steps_total++;
    for (u32 i = 0; i < lane->batch.slots; i++) {
        struct sequence *sequence = lane->batch.running[i];
        if (!sequence || !sequence->rows)
            continue;
        if (sequence->computed < sequence->prompt)
            ml->stats.prompt_tokens_total += sequence->rows;
        sequence->computed += sequence->rows;
        if (sequence->output != BATCH_NONE)
            take_token(ml, lane, sequence);
    }
}

/* ---- a device that fails ---- */

/* What runs has lost its keys and values, or will never end. */
static void lose_running(struct ml *ml, struct lane *lane)
{
    for (u32 i = 0; i < lane->batch.slots; i++)
        if (lane->batch.running[i])
            engine_finish(ml, lane->batch.running[i], ML_FINISH_ERROR, E_DEVICE);
}

/* Slots are free one by one, so there is room for the events of all who wait. */
static void lose_waiting(struct ml *ml, struct lane *lane)
{
    while (room_for_events(ml) && admit(ml, lane))
        lose_running(ml, lane);
}

/* To other lanes, if there are any; in the order in which they came. */
static void move_waiting(struct ml *ml, struct lane *lane)
{
    struct sequence *waiting[ML_QUEUE_MAX];
    u32 count = lane->batch.waiting_count;

    memcpy(waiting, lane->batch.waiting, count * sizeof(waiting[0]));
    for (u32 i = 0; i < count && lane_least(ml); i++) {
        batch_leave(&lane->batch, waiting[i]);
        lane_wait(ml, waiting[i]);
    }
}

/* Whether a step may be started. */
static bool check_device(struct ml *ml, struct lane *lane)
{
    memset(ml->reason_text, 0, sizeof(ml->reason_text));
    ml->reason.len = 0;
    err e = model_health(lane->model, &ml->reason);
    if (e == OK || e == E_BUSY)
        return e == OK;
    lose_running(ml, lane);
    lane->state = e == E_STATE && model_reload(lane->model) == OK ? LANE_LOADING : LANE_OFF;
    if (lane->state == LANE_LOADING)
        log_warn("ml", "the card has lost the weights: they are sent again");
    else
        log_error("ml", "%s", ml->reason_text);
    move_waiting(ml, lane);
    return false;
}

/* ---- turns ---- */

/* The weights alone: a card has lost them. */
static bool load_again(struct ml *ml, struct lane *lane, u64 deadline_ns)
{
    bool done;
    err e = model_load(lane->model, deadline_ns, &done, &ml->percent, &ml->reason);

    if (e != OK) {
        log_error("ml", "%s", ml->reason_text);
        lane->state = LANE_OFF;
        move_waiting(ml, lane);
    } else if (done) {
        log_info("ml", "the weights are on the card again");
        lane->state = LANE_READY;
    }
    return true;
}

bool lane_step(struct ml *ml, struct lane *lane, u64 deadline_ns)
{
    if (lane->state == LANE_LOADING)
        return load_again(ml, lane, deadline_ns);
    if (lane->state == LANE_OFF) {
        lose_waiting(ml, lane);
        return false;
    }
    if (!lane->running && !room_for_events(ml))
        return false;
    if (!lane->running && (!check_device(ml, lane) || !start_step(ml, lane)))
        return lane->state == LANE_LOADING || lane->forget_count;
    err e = model_advance(lane->model, deadline_ns);
    lane->running = e == E_BUSY;
    if (e == OK)
        finish_step(ml, lane);
    else if (e != E_BUSY)
        lose_running(ml, lane);
    return e != E_BUSY || !lane->gpu_count; /* a card computes by itself, and calls */
}

/* ---- whose turn a request is ---- */

struct lane *lane_least(struct ml *ml)
{
    struct lane *best = NULL;
    u32 least = UINT_MAX;

    for (struct lane *lane = ml->lane; lane < ml->lane + ml->lane_count; lane++) {
        u32 load = lane->batch.waiting_count;
        for (u32 i = 0; i < lane->batch.slots; i++)
            load += lane->batch.running[i] != NULL;
        if (lane->state == LANE_READY && load < least) {
            best = lane;
            least = load;
        }
    }
    return best;
}

void lane_wait(struct ml *ml, struct sequence *sequence)
{
    sequence->lane = lane_least(ml);
    CHECK(sequence->lane);
    batch_wait(&sequence->lane->batch, sequence);
}
