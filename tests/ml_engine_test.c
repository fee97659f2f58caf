/*
 * ml_engine_test.c: the engine over a model, a tokenizer and a file that are made up, on a fake
 * clock: slots, queue, cancel in every state, stop sequences, characters, ends, KV pages, failures.
 */
#include "tests/ml_engine_drive.h"

/* ---- tests ---- */

TEST(ml_engine_says_what_loading_does)
{
    struct ml_config config = {.part = &no_file, .part_count = 1, .slots = 2, .kv_tokens = 128};
    struct ml_request request = ask_for("a|");
    struct ml_refusal refusal;
    struct ml_status status;
    u64 ticket;

    memset(fakes, 0, sizeof(fakes));
    EXPECT_OK(ml_open(&t.ml, &config));
    static const char *const steps[] = {"reading model", "reading vocabulary",
                                        "waiting for the graphics card", "compiling"};
    for (u32 i = 0; i < ARRAY_LEN(steps); i++) {
        ml_status(t.ml, &status);
        EXPECT_STR(str_of(status.step), str_of(steps[i]));
        EXPECT_EQ(ml_submit(t.ml, &request, &ticket, &refusal), E_STATE);
        EXPECT(ml_step(t.ml, 1000));
    }
    EXPECT(ml_step(t.ml, 1000));
    ml_status(t.ml, &status);
    EXPECT_STR(str_of(status.step), STR("repacking weights"));
    EXPECT_EQ(status.percent, 25);
    while (ml_step(t.ml, 1000))
        ;
    ml_status(t.ml, &status);
    EXPECT(status.state == ML_READY && !status.reason);
    EXPECT_STR(ml_model_info(t.ml)->id, STR("made-up"));
}

TEST(ml_engine_fails_with_a_reason)
{
    struct ml_config none = {}, config = {.part = &no_file, .part_count = 1};
    struct ml_request request = ask_for("a|");
    struct ml_refusal refusal;
    struct ml_status status;
    u64 ticket;

    EXPECT_OK(ml_open(&t.ml, &none));
    EXPECT(!ml_step(t.ml, 1000));
    ml_status(t.ml, &status);
    EXPECT(status.state == ML_FAILED && str_eq(str_of(status.reason), STR("no model file")));
    EXPECT_EQ(ml_submit(t.ml, &request, &ticket, &refusal), E_STATE);
    memset(fakes, 0, sizeof(fakes));
    fake.fails_to_open = true;
    EXPECT_OK(ml_open(&t.ml, &config));
    while (ml_step(t.ml, 1000))
        ;
    ml_status(t.ml, &status);
    EXPECT(status.state == ML_FAILED && str_eq(str_of(status.reason), STR("no such architecture")));
    EXPECT_STR(str_of(status.step), STR("compiling"));
}

TEST(ml_engine_four_slots_share_steps)
{
    static const char *const prompts[] = {"abc|", "defgh|", "i|", "jklmnop|"};
    u64 ticket[4];

    open_with(4, 4 * CTX);
    for (u32 i = 0; i < 4; i++)
        ticket[i] = submit(ask_for(prompts[i]));
    run();
    for (u32 i = 0; i < 4; i++) {
        char want[16] = {};
        memcpy(want, prompts[i], strlen(prompts[i]) - 1);
        expect_outcome(ticket[i], want, ML_FINISH_STOP);
        EXPECT_EQ(t.outcome[ticket[i]].tokens, strlen(want));
        EXPECT_EQ(t.outcome[ticket[i]].last.prompt_tokens, strlen(want) + 1);
        EXPECT_EQ(t.outcome[ticket[i]].last.completion_tokens, strlen(want) + 1); /* the end too */
    }
    EXPECT_EQ(fake.rows_most, 4 + 6 + 2 + 8);
    EXPECT_EQ(fake.starts, 8); /* as many as the longest alone */
    close_clean();
}

TEST(ml_engine_queue_is_first_come_and_bounded)
{
    struct ml_request request = ask_for("ab|");
    struct ml_refusal refusal;
    u64 ticket, last = 0;

    open_with(2, 2 * CTX);
    for (u32 i = 0; i < ML_QUEUE_MAX; i++)
        last = submit(request);
    EXPECT_EQ(ml_submit(t.ml, &request, &ticket, &refusal), E_BUSY);
    ml_step(t.ml, 1000); /* two are admitted */
    EXPECT(submit(request) > last && submit(request) > last);
    EXPECT_EQ(ml_submit(t.ml, &request, &ticket, &refusal), E_BUSY);
    run();
    EXPECT_EQ(t.started_count, ML_QUEUE_MAX + 2);
    for (u32 i = 0; i < t.started_count; i++) {
        EXPECT_EQ(t.started[i], i + 1);
        expect_outcome(i + 1, "ab", ML_FINISH_STOP);
    }
    close_clean();
}

/* After a cancel nothing is said of the ticket, and its pages serve the next one. */
TEST(ml_engine_cancel_in_every_state)
{
    for (u32 steps = 0; steps < 24; steps++) {
        open_with(1, CTX);
        fake.advances = 2;
        u64 first = submit(ask_for("a|")), waits = submit(ask_for("efg|"));
        u64 third = submit(ask_for("hi|"));
        for (u32 i = 0; i < steps; i++)
            ml_step(t.ml, 1000); /* events stay unread */
        ml_cancel(t.ml, first);
        ml_cancel(t.ml, waits);
        ml_cancel(t.ml, 999);
        run();
        EXPECT_EQ(t.outcome[first].starts + t.outcome[waits].starts, 0);
        EXPECT_EQ(t.outcome[first].tokens + t.outcome[first].ends, 0);
        expect_outcome(third, "hi", ML_FINISH_STOP);
        close_clean();
    }
}

static const struct stop_case {
    u32 token[12];
    const char *stop[3];
    const char *text;
    enum ml_finish finish;
} stop_cases[] = {
    {{HELLO, WORLD, 'x', BAR}, {" wor"}, "hello", ML_FINISH_STOP},
    {{HELLO, WORLD, 'x', BAR}, {"lo wo"}, "hel", ML_FINISH_STOP},
    {{HELLO, WORLD, 'x', BAR}, {"hello world!"}, "hello worldx", ML_FINISH_STOP},
    {{HELLO, WORLD, BAR}, {"worlds"}, "hello world", ML_FINISH_STOP}, /* held back to the end */
    {{'a', 'a', 'a', 'b', BAR}, {"aab"}, "a", ML_FINISH_STOP},
    {{'a', 'b', 'c', 'd', 'e', BAR}, {"cde", "bcd", "e"}, "a", ML_FINISH_STOP},
    {{HELLO, WORLD, BAR}, {"hello w", "lo"}, "hel", ML_FINISH_STOP}, /* the first to be complete */
    {{HELLO, BAR}, {"h"}, "", ML_FINISH_STOP},
    {{HELLO, BAR}, {""}, "hello", ML_FINISH_STOP},
    {{'x', 0xe2, 0x82, 0xac, 'y', BAR}, {"\xe2\x82\xac"}, "x", ML_FINISH_STOP},
    {{'x', 0xe2, 0x82, 'y', BAR}, {}, "x\xef\xbf\xbdy", ML_FINISH_STOP},
    {{0xf0, 0x9f, 0x98, 0x80, 0xe2, BAR}, {}, "\xf0\x9f\x98\x80\xef\xbf\xbd", ML_FINISH_STOP},
};

TEST(ml_engine_stop_sequences_and_characters_over_token_borders)
{
    open_with(4, 4 * CTX);
    for (u32 i = 0; i < ARRAY_LEN(stop_cases); i++) {
        struct ml_request request = {.token = stop_cases[i].token, .sampling = {.top_p = 1}};
        while (stop_cases[i].token[request.token_count] != BAR)
            request.token_count++;
        request.token_count++;
        for (u32 n = 0; n < 3 && stop_cases[i].stop[n]; n++)
            request.stop[request.stop_count++] = str_of(stop_cases[i].stop[n]);
        u64 ticket = submit(request);
        run();
        expect_outcome(ticket, stop_cases[i].text, stop_cases[i].finish);
    }
    close_clean();
}

/* What is shown must not depend on where the text was cut. */
TEST(ml_engine_stops_where_any_cut_stops)
{
    static const char *const letters[] = {"a", "b", "\xc3\xa9", "\xe2\x82\xac"};
    static struct stream whole, cut;

    for (u32 round = 0; round < 3000; round++) {
        char text[64], stops[3][16], whole_text[64], cut_text[64];
        struct text made = TEXT_ON(text), a = TEXT_ON(whole_text), b = TEXT_ON(cut_text);
        struct str stop[3];
        for (u32 i = 0; i < 12; i++)
            text_put(&made, str_of(letters[test_random_below(4)]));
        for (u32 i = 0; i < 3; i++) {
            struct text one = TEXT_ON(stops[i]);
            for (u32 n = 1 + test_random_below(4); n > 0; n--)
                text_put(&one, str_of(letters[test_random_below(4)]));
            stop[i] = text_str(&one);
        }
        EXPECT_OK(stream_start(&whole, stop, 3));
        EXPECT_OK(stream_start(&cut, stop, 3));
        bool found = stream_put(&whole, text_str(&made), &a), cut_found = false;
        for (usize at = 0, end; at < made.len && !cut_found; at = end) {
            end = min_u64(made.len, at + 1 + test_random_below(5));
            cut_found = stream_put(&cut, str_slice(text_str(&made), at, end), &b);
        }
        stream_end(&whole, &a);
        stream_end(&cut, &b);
        EXPECT_EQ(found, cut_found);
        EXPECT_STR(text_str(&b), text_str(&a));
    }
}

TEST(ml_engine_ends_by_length)
{
    struct ml_refusal refusal;
    u64 ticket;

    open_with(2, 2 * CTX);
    for (u32 max = 1; max <= 5; max++) {
        struct ml_request request = ask_for("abcd|");
        request.tokens_max = max;
        ticket = submit(request);
        run();
        char want[8] = {};
        memcpy(want, "abcd", min_u32(max, 4));
        expect_outcome(ticket, want, max < 5 ? ML_FINISH_LENGTH : ML_FINISH_STOP);
        EXPECT_EQ(t.outcome[ticket].last.completion_tokens, max);
    }
    const u32 endless[] = {AGAIN, 'x', BAR};
    struct ml_request request = {.token = endless, .token_count = 3, .sampling = {.top_p = 1}};
    ticket = submit(request);
    run();
    EXPECT_EQ(t.outcome[ticket].last.completion_tokens, CTX - 3);
    EXPECT_EQ(t.outcome[ticket].finish, ML_FINISH_LENGTH);
    request = ask_for("0123456789012345678901234567890123456789012345678901234567890123456789|");
    EXPECT_EQ(ml_submit(t.ml, &request, &ticket, &refusal), E_LIMIT);
    EXPECT_EQ(refusal.prompt_tokens, 71);
    EXPECT_EQ(refusal.ctx_max, CTX);
    close_clean();
}

TEST(ml_engine_refuses_what_it_cannot_read)
{
    const u32 unknown[] = {'a', VOCAB};
    struct ml_request request = {.token = unknown, .token_count = 2};
    struct ml_refusal refusal;
    char long_stop[ML_STOP_BYTES_MAX + 2] = {};
    u64 ticket;

    open_with(1, CTX);
    EXPECT_EQ(ml_submit(t.ml, &request, &ticket, &refusal), E_RANGE);
    request = ask_for("a|");
    memset(long_stop, 'x', sizeof(long_stop) - 1);
    request.stop[request.stop_count++] = str_of(long_stop);
    EXPECT_EQ(ml_submit(t.ml, &request, &ticket, &refusal), E_RANGE);
    request.stop[0] = STR("\xacy");
    EXPECT_EQ(ml_submit(t.ml, &request, &ticket, &refusal), E_RANGE);
    ticket = submit(ask_for("")); /* an empty prompt is the token of the beginning */
    run();
    EXPECT_EQ(t.outcome[ticket].last.prompt_tokens, 1);
    struct ml_message message[] = {{STR("user"), STR("ab")}, {STR("user"), STR("cd")}};
    ticket = submit((struct ml_request){.message = message, .message_count = 2});
    run();
    expect_outcome(ticket, "abcd", ML_FINISH_STOP);
    close_clean();
}

/* Only what fits with its whole future is admitted, so nothing that runs is ever stopped. */
TEST(ml_engine_kv_pages_run_out)
{
    open_with(4, CTX); /* the pages of one sequence that may fill its context */
    u64 small[3], endless = submit(ask_for("long|"));
    for (u32 i = 0; i < 3; i++) {
        struct ml_request request = ask_for("abc|");
        request.tokens_max = 4; /* one page each */
        small[i] = submit(request);
    }
    ml_step(t.ml, 1000);
    drain();
    EXPECT_EQ(t.started_count, 1);
    run();
    expect_outcome(endless, "long", ML_FINISH_STOP);
    for (u32 i = 0; i < 3; i++)
        expect_outcome(small[i], "abc", ML_FINISH_STOP);
    close_clean();
}

TEST(ml_engine_broken_logits_end_one_stream)
{
    const u32 broken[] = {'a', 'b', BROKEN, BAR};
    struct ml_stats stats;

    open_with(4, 4 * CTX);
    u64 bad = submit((struct ml_request){.token = broken, .token_count = 4});
    u64 good = submit(ask_for("abcdefgh|"));
    run();
    expect_outcome(bad, "ab", ML_FINISH_ERROR);
    EXPECT_EQ(t.outcome[bad].last.why, E_DEVICE);
    expect_outcome(good, "abcdefgh", ML_FINISH_STOP);
    ml_stats(t.ml, &stats);
    EXPECT_EQ(stats.failed_total, 1);
    close_clean();
}

/* A reader that does not read stops the engine, and loses nothing. */
TEST(ml_engine_waits_for_its_reader)
{
    open_with(2, 2 * CTX);
    u64 a = submit(ask_for("abcdefghijklmnopqrstuvwxyz|")), b = submit(ask_for("0123456789|"));
    for (u32 i = 0; i < 1000; i++)
        ml_step(t.ml, 1000);
    EXPECT(!ml_step(t.ml, 1000) && t.ml->event_count <= t.ml->event_max);
    run();
    expect_outcome(a, "abcdefghijklmnopqrstuvwxyz", ML_FINISH_STOP);
    expect_outcome(b, "0123456789", ML_FINISH_STOP);
    close_clean();
}

/* A long prompt goes in beside a stream in small pieces when rows are slow. */
TEST(ml_engine_long_prompts_do_not_stop_streams)
{
    const u32 endless[] = {AGAIN, 'x', BAR};

    open_with(2, 2 * CTX);
    u64 stream = submit((struct ml_request){.token = endless, .token_count = 3});
    for (u32 i = 0; i < 4; i++)
        ml_step(t.ml, 1000);
    drain();
    t.ml->lane[0].row_ns = NS_PER_S; /* as slow as can be: a page's worth of the prompt each step */
    u32 tokens = t.outcome[stream].tokens;
    u64 prompt = submit(ask_for("012345678901234567890123456789012345678901234567|"));
    fake.rows_most = 0;
    while (t.outcome[prompt].tokens == 0) {
        u32 before = t.outcome[stream].tokens;
        EXPECT(ml_step(t.ml, 1000));
        t.ml->lane[0].row_ns = NS_PER_S;
        drain();
        EXPECT_EQ(t.outcome[stream].tokens, before + 1);
    }
    EXPECT_EQ(fake.rows_most, 1 + MODEL_KV_PAGE_TOKENS);
    EXPECT_EQ(t.outcome[stream].tokens - tokens, 4); /* 49 tokens in 16 + 16 + 16 + 1 */
    ml_cancel(t.ml, stream);
    ml_cancel(t.ml, prompt);
    close_clean();
}

TEST(ml_engine_reports_log_probabilities)
{
    open_with(1, CTX);
    struct ml_request request = ask_for("a|");
    request.tokens_max = 1;
    request.sampling.logprobs = true;
    request.sampling.top_logprobs = 3;
    u64 ticket = submit(request);
    struct ml_event event = {};
    while (event.kind != ML_EVENT_TOKEN) {
        ml_step(t.ml, 1000);
        if (ml_event_next(t.ml, &event))
            t.outcome[ticket].starts = 1;
    }
    EXPECT(event.ticket == ticket && event.token == 'a' && event.top_count == 3);
    EXPECT_STR(event.token_text, STR("a"));
    EXPECT_STR(event.top[0].text, STR("a"));
    EXPECT(event.top[0].logprob == event.logprob && event.logprob < 0 && event.logprob > -0.1f);
    run();
    close_clean();
}

static void check_soak(const char *const *prompts, const u64 *which)
{
    for (u64 ticket = 1; ticket <= t.ml->ticket_last; ticket++) {
        char want[64] = {};
        const char *prompt = prompts[which[ticket]];
        memcpy(want, prompt, strlen(prompt) - 1);
        if (t.outcome[ticket].ends)
            expect_outcome(ticket, want, ML_FINISH_STOP);
    }
}

/* Anything in any order: every answer that comes is right, and nothing is left behind. */
TEST(ml_engine_survives_a_random_hour)
{
    static const char *const prompts[] = {"a|", "bcde|", "fghijklmnopqrst|",
                                          "uvwxyzABCDEFGHIJKLMNOP|"};
    static u64 which[TICKETS_MAX];
    struct ml_refusal refusal;
    u64 ticket;

    open_with(3, 2 * CTX);
    for (u32 i = 0; i < 4000 && t.ml->ticket_last < TICKETS_MAX - 2; i++) {
        u32 dice = test_random_below(100), prompt = test_random_below(ARRAY_LEN(prompts));
        struct ml_request request = ask_for(prompts[prompt]);
        request.tokens_max = test_random_below(2) ? 0 : 30;
        fake.advances = test_random_below(3);
        if (dice < 14 && ml_submit(t.ml, &request, &ticket, &refusal) == OK)
            which[ticket] = prompt;
        else if (dice < 18 && t.ml->ticket_last)
            ml_cancel(t.ml, 1 + test_random_below((u32)t.ml->ticket_last));
        else if (dice < 80)
            ml_step(t.ml, 1000);
        else
            drain();
    }
    run();
    check_soak(prompts, which);
    close_clean();
}
