/*
 * ml_engine_drive.h: requests to the made-up engine of ml_engine_fake.h, and what came of each.
 */
#ifndef NOHOST_TESTS_ML_ENGINE_DRIVE_H
#define NOHOST_TESTS_ML_ENGINE_DRIVE_H

#include "tests/ml_engine_fake.h"

/* ---- a request and what came of it ---- */

#define TICKETS_MAX 512u

struct outcome {
    char text[512];
    usize len;
    u32 starts, tokens, ends;
    enum ml_finish finish;
    struct ml_event last;
};

static struct {
    struct ml *ml;
    struct outcome outcome[TICKETS_MAX]; /* by ticket */
    u64 started[TICKETS_MAX];
    u32 started_count;
} t;

static struct store no_file = {.name = "/models/made-up.gguf"};

[[maybe_unused]] static void open_with(u32 slots, u32 kv_tokens)
{
    struct ml_config config = {.part = &no_file, .part_count = 1, .slots = slots,
                               .kv_tokens = kv_tokens};

    memset(fakes, 0, sizeof(fakes));
    memset(&t, 0, sizeof(t));
    platform_clock_fake(fake.now = 1000);
    EXPECT_OK(ml_open(&t.ml, &config));
    while (t.ml->state == ML_LOADING)
        ml_step(t.ml, 1000);
    EXPECT_EQ(t.ml->state, ML_READY);
}

[[maybe_unused]] static void drain(void)
{
    struct ml_event event;

    while (ml_event_next(t.ml, &event)) {
        struct outcome *outcome = &t.outcome[event.ticket];
        EXPECT(event.ticket && event.ticket < TICKETS_MAX && outcome->ends == 0);
        EXPECT(utf8_valid(event.text) && outcome->len + event.text.len < sizeof(outcome->text));
        memcpy(outcome->text + outcome->len, event.text.ptr, event.text.len);
        outcome->len += event.text.len;
        outcome->starts += event.kind == ML_EVENT_START;
        outcome->tokens += event.kind == ML_EVENT_TOKEN;
        outcome->ends += event.kind == ML_EVENT_END;
        EXPECT_EQ(outcome->starts, 1);
        if (event.kind == ML_EVENT_START)
            t.started[t.started_count++] = event.ticket;
        outcome->finish = event.finish;
        outcome->last = event;
    }
}

[[maybe_unused]] static void run(void)
{
    while (ml_step(t.ml, 1000) || t.ml->event_count)
        drain();
}

[[maybe_unused]] static void close_clean(void)
{
    struct ml_stats stats;

    ml_stats(t.ml, &stats);
    EXPECT_EQ(stats.slots_busy, 0);
    EXPECT_EQ(stats.queue_waiting, 0);
    EXPECT_EQ(stats.kv_pages_used, 0);
    for (u32 i = 0; i < t.ml->sequence_count; i++)
        EXPECT_EQ(t.ml->sequence[i].state, SEQUENCE_FREE);
    for (u32 i = 0; i < 2 * POOL_MAX; i++)
        (void)ml_step(t.ml, 1000);
    for (u32 i = 0; i < POOL_MAX; i++) /* nothing is left but on a dead card */
        for (u32 n = 0; n < ARRAY_LEN(fakes); n++)
            EXPECT(fakes[n].pool[i] == 0 || fakes[n].health == E_DEVICE);
}

[[maybe_unused]] static struct ml_request ask_for(const char *prompt)
{
    static struct ml_part part[64];
    static u32 next;
    u32 i = next++ % 64;

    part[i] = (struct ml_part){ML_PART_USER, str_of(prompt)};
    return (struct ml_request){.part = &part[i], .part_count = 1, .sampling = {.top_p = 1}};
}

[[maybe_unused]] static u64 submit(struct ml_request request)
{
    struct ml_refusal refusal;
    u64 ticket = 0;
    err why = ml_submit(t.ml, &request, &ticket, &refusal);

    if (why != OK)
        test_fail(__FILE__, __LINE__, "%s: %s", err_name(why), refusal.text);
    return ticket;
}

[[maybe_unused]] static void expect_outcome(u64 ticket, const char *text, enum ml_finish finish)
{
    const struct outcome *outcome = &t.outcome[ticket];

    EXPECT_STR(((struct str){outcome->text, outcome->len}), str_of(text));
    EXPECT_EQ(outcome->ends, 1);
    EXPECT_EQ(outcome->finish, finish);
}

#endif
