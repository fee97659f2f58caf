/*
 * ml_engine_fake.h: the engine on a made-up model, tokenizer and file, for ml_engine_test.c.
 *
 * The model answers from its KV pool, through the page tables it was given: a prompt "abc|" is
 * continued by "abc" and the end token. So a wrong row of the pool is a wrong answer.
 */
#ifndef NOHOST_TESTS_ML_ENGINE_FAKE_H
#define NOHOST_TESTS_ML_ENGINE_FAKE_H

#include <math.h>

/* The engine is compiled into the including file under other names, beside the real one. */
#ifndef FAKE
#define FAKE(name) fake_##name
#endif
#define ml_open FAKE(ml_open)
#define ml_status FAKE(ml_status)
#define ml_model_info FAKE(ml_model_info)
#define ml_submit FAKE(ml_submit)
#define ml_cancel FAKE(ml_cancel)
#define ml_step FAKE(ml_step)
#define ml_event_next FAKE(ml_event_next)
#define ml_stats FAKE(ml_stats)
#define load_advance FAKE(load_advance)
#define engine_start FAKE(engine_start)
#define model_open FAKE(model_open)
#define model_shape FAKE(model_shape)
#define model_load FAKE(model_load)
#define model_batch FAKE(model_batch)
#define model_start FAKE(model_start)
#define model_advance FAKE(model_advance)
#define model_logits FAKE(model_logits)
#define model_forget FAKE(model_forget)
#define model_health FAKE(model_health)
#define model_reload FAKE(model_reload)
#define model_keeps_file FAKE(model_keeps_file)
#define engine_event FAKE(engine_event)
#define engine_finish FAKE(engine_finish)
#define lane_step FAKE(lane_step)
#define lane_least FAKE(lane_least)
#define lane_wait FAKE(lane_wait)
#define device_open FAKE(device_open)
#define device_gpu_state FAKE(device_gpu_state)
#define chat_open FAKE(chat_open)
#define gguf_open FAKE(gguf_open)
#define gguf_key FAKE(gguf_key)
#define tokenizer_open FAKE(tokenizer_open)
#define tokenizer_facts FAKE(tokenizer_facts)
#define tokenizer_is_end FAKE(tokenizer_is_end)
#define tokenizer_kind FAKE(tokenizer_kind)
#define tokenizer_text FAKE(tokenizer_text)
#define tokenizer_find FAKE(tokenizer_find)
#define tokenizer_encode FAKE(tokenizer_encode)

#include "ml/engine.c"
#include "ml/lane.c"
#include "ml/load.c"
#include "tests/host/platform.h"
#include "tests/test.h"

/* ---- the fakes ---- */

enum { BAR = '|', BOS = 256, EOS, HELLO, WORLD, BROKEN, AGAIN, VOCAB };
static const char *const words[] = {"<s>", "</s>", "hello", " world", "BROKEN", "AGAIN"};

#define CTX 64u
#define ROWS 24u
#define POOL_MAX 512u

static struct model {
    struct model_shape shape;
    struct model_batch batch;
    i32 token[ROWS], position[ROWS], slot[ROWS], kv_write[ROWS], kv_index[8 * CTX], out_row[8];
    i32 pool[POOL_MAX];
    f32 logits[8][VOCAB];
    u32 rows, outputs, rows_most, load_slices, advances, advances_left, starts, decode_rows_least;
    u32 reloads, opens, forgets, parts;
    bool running, fails_to_open, loses_step, on_card, card_is_small;
    err health, card;
    u64 now;
} fakes[2];
#define fake fakes[0] /* of the cores and of the first card */
static struct gpu *const fake_second_card = (struct gpu *)&fakes[1];

err device_open(struct device **device, u32 threads)
{
    (void)device, (void)threads;
    return OK;
}

/* Cards of the configuration are made up too: any pointer. */
err device_gpu_state(struct gpu *gpu, struct text *why)
{
    EXPECT(gpu);
    if (fake.card == E_DEVICE)
        text_fmt(why, "the card is dead");
    return fake.card;
}

err model_open(struct model **model, struct gguf *gguf, const struct model_config *wanted,
               struct text *why)
{
    const struct ml_config *config = wanted->limits;
    struct model *m = &fakes[wanted->gpu_count && wanted->gpu[0] == fake_second_card];

    (void)gguf;
    m->opens++;
    if (fake.fails_to_open) {
        text_fmt(why, "no such architecture");
        return E_UNSUPPORTED;
    }
    m->on_card = wanted->gpu_count > 0;
    m->parts = wanted->gpu_count;
    if (m->card_is_small && wanted->gpu_count == 1) {
        text_fmt(why, "17 MiB are missing");
        return E_NOMEM;
    }
    m->shape = (struct model_shape){.vocab = VOCAB, .ctx_max = CTX, .slots = config->slots,
                                      .kv_tokens = config->kv_tokens, .rows_max = ROWS,
                                      .outputs_max = config->slots, .layers = 1, .embed = 2};
    m->batch = (struct model_batch){m->token, m->position, m->slot, m->kv_write,
                                      m->kv_index, m->out_row};
    *model = m;
    return OK;
}

const struct model_shape *model_shape(const struct model *model) { return &model->shape; }
struct model_batch *model_batch(struct model *model) { return &model->batch; }

err model_load(struct model *model, u64 deadline_ns, bool *done, u32 *percent, struct text *why)
{
    (void)deadline_ns, (void)why;
    *percent = 25 * ++model->load_slices;
    *done = model->load_slices == 4;
    return OK;
}

void model_start(struct model *model, u32 rows, u32 outputs)
{
    EXPECT(!model->running && rows >= 1 && rows <= ROWS && outputs <= model->shape.outputs_max);
    model->running = true;
    model->rows = rows;
    model->outputs = outputs;
    model->advances_left = model->advances;
    model->rows_most = max_u32(model->rows_most, rows);
    model->starts++;
}

/* What follows the tokens of a slot up to a position. */
static u32 answer(const struct model *model, i32 slot, i32 position)
{
    const i32 *index = model->kv_index + slot * (i32)CTX;
    i32 bar = 0;

    while (bar <= position && model->pool[index[bar]] != BAR)
        bar++;
    i32 at = position - bar;
    if (bar > 0 && model->pool[index[0]] == AGAIN)
        return bar > 1 ? (u32)model->pool[index[1 + at % (bar - 1)]] : 'x';
    return at < 0 || at >= bar ? EOS : (u32)model->pool[index[at]];
}

err model_forget(struct model *model, u32 kv_row, u32 kv_rows)
{
    EXPECT(!model->running && kv_row + kv_rows <= model->shape.kv_tokens);
    if (model->forgets++ % 2)
        return E_BUSY;
    memset(model->pool + kv_row, 0, kv_rows * sizeof(model->pool[0]));
    return OK;
}

err model_health(const struct model *model, struct text *why)
{
    if (model->health == E_DEVICE)
        text_fmt(why, "the card is dead");
    return model->health;
}

err model_reload(struct model *model)
{
    EXPECT_EQ(model->health, E_STATE);
    model->health = OK;
    model->reloads++;
    return OK;
}

bool model_keeps_file(const struct model *model)
{
    return model->on_card;
}

err model_advance(struct model *model, u64 deadline_ns)
{
    (void)deadline_ns;
    EXPECT(model->running);
    platform_clock_fake(model->now += 1000 * model->rows);
    if (model->advances_left && model->advances_left--)
        return E_BUSY;
    if (model->loses_step) {
        model->running = model->loses_step = false;
        return E_DEVICE;
    }
    for (u32 i = 0; i < model->rows; i++) {
        EXPECT(model->kv_write[i] >= 0 && (u32)model->kv_write[i] < model->shape.kv_tokens);
        i32 place = model->slot[i] * (i32)CTX + model->position[i];
        EXPECT_EQ(model->kv_write[i], model->kv_index[place]);
        model->pool[model->kv_write[i]] = model->token[i];
    }
    for (u32 i = 0; i < model->outputs; i++) {
        i32 row = model->out_row[i];
        u32 next = answer(model, model->slot[row], model->position[row]);
        for (u32 t = 0; t < VOCAB; t++)
            model->logits[i][t] = next == BROKEN ? NAN : t == next ? 9 : -(f32)t / 100;
    }
    model->running = false;
    return OK;
}

const f32 *model_logits(const struct model *model, u32 output)
{
    EXPECT(!model->running && output < model->outputs);
    return model->logits[output];
}

struct tokenizer {
    bool unused;
};

err gguf_open(struct gguf *gguf, struct store *part, u32 part_count, struct arena *arena,
              struct text *reason)
{
    *gguf = (struct gguf){.part = part, .part_count = part_count};
    if (arena->cap > 8 * MIB) /* the second try */
        return OK;
    text_fmt(reason, "not enough memory");
    return E_NOMEM;
}

const struct gguf_key *gguf_key(const struct gguf *gguf, const char *name)
{
    (void)gguf, (void)name;
    return NULL;
}

err tokenizer_open(struct tokenizer **tok, const struct gguf *gguf, struct arena *arena,
                   struct text *reason)
{
    (void)gguf, (void)reason;
    *tok = arena_new(arena, struct tokenizer, 1);
    return OK;
}

err chat_open(struct jinja_env *chat, const struct gguf *gguf, const struct tokenizer *tok,
              struct arena *arena)
{
    (void)gguf, (void)tok, (void)arena;
    *chat = (struct jinja_env){
        .source = STR("{% for m in messages %}{{ m.content }}{% endfor %}|")};
    return OK;
}

const struct tokenizer_facts *tokenizer_facts(const struct tokenizer *tok)
{
    static const struct tokenizer_facts facts = {VOCAB, BOS, EOS, false};

    return (void)tok, &facts;
}

bool tokenizer_is_end(const struct tokenizer *tok, u32 token) { return (void)tok, token == EOS; }

enum token_kind tokenizer_kind(const struct tokenizer *tok, u32 token)
{
    (void)tok;
    return token == BOS || token == EOS ? TOKEN_CONTROL : TOKEN_NORMAL;
}

struct str tokenizer_text(const struct tokenizer *tok, u32 token)
{
    static char bytes[256];

    (void)tok;
    if (token >= 256)
        return str_of(words[token - 256]);
    bytes[token] = (char)token;
    return (struct str){&bytes[token], 1};
}

err tokenizer_encode(struct tokenizer *tok, struct arena *scratch, const struct ml_part *part,
                     u32 part_count, struct token_list *out)
{
    (void)tok, (void)scratch;
    for (u32 i = 0; i < part_count; i++)
        for (usize n = 0; n < part[i].text.len; n++, out->count++)
            if (out->count < out->max)
                out->token[out->count] = (u8)part[i].text.ptr[n];
    return out->count > out->max ? E_LIMIT : OK;
}

#endif
