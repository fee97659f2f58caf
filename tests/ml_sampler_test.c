/*
 * ml_sampler_test.c: the sampler against a plain reference that sorts everything, and against
 * frequencies; seeds, ties and logits that are no numbers.
 */
#include <math.h>
#include <stdlib.h>

#include "ml/priv.h"
#include "tests/test.h"

#define VOCAB 5000u

static struct {
    _Alignas(64) u8 memory[4 * MIB];
    struct arena arena;
    struct sampler sampler;
    f32 logit[VOCAB];
    u32 order[VOCAB];
    bool kept[VOCAB];
} t;

static void start(u32 vocab)
{
    t.arena = arena_on("sampler", t.memory, sizeof(t.memory));
    EXPECT_OK(sampler_init(&t.sampler, &t.arena, vocab));
    for (u32 i = 0; i < vocab; i++)
        t.logit[i] = test_random_f32(-12, 4);
}

static int by_logit(const void *a, const void *b)
{
    u32 x = *(const u32 *)a, y = *(const u32 *)b;

    if (t.logit[x] != t.logit[y])
        return t.logit[x] > t.logit[y] ? -1 : 1;
    return x < y ? -1 : 1;
}

/* Which tokens the filters leave: everything sorted, in f64. */
static f64 reference(u32 vocab, const struct ml_sampling *how)
{
    f64 total = 0, sum = 0, max, kept = 0;
    u32 count = how->top_k && how->top_k < vocab ? how->top_k : vocab;

    for (u32 i = 0; i < vocab; i++)
        t.order[i] = i, t.kept[i] = false;
    qsort(t.order, vocab, sizeof(u32), by_logit);
    max = (f64)t.logit[t.order[0]];
    for (u32 i = 0; i < count; i++)
        total += exp(((f64)t.logit[t.order[i]] - max) / (f64)how->temperature);
    for (u32 i = 0; i < count && sum < total * (f64)how->top_p; i++) {
        f64 weight = exp(((f64)t.logit[t.order[i]] - max) / (f64)how->temperature);
        sum += weight;
        if (i > 0 && weight < (f64)how->min_p)
            break;
        t.kept[t.order[i]] = true;
        kept += weight;
    }
    return kept;
}

TEST(ml_sampler_keeps_what_a_full_sort_keeps)
{
    for (u32 round = 0; round < 60; round++) {
        u32 vocab = 1 + test_random_below(VOCAB), wrong = 0;
        struct ml_sampling how = {.temperature = test_random_f32(0.2f, 2), .top_p = 1,
                                  .seed = round, .has_seed = true};
        struct rng rng;
        start(vocab);
        how.top_k = round % 2 ? 1 + test_random_below(50) : 0;
        how.top_p = round % 3 ? test_random_f32(0.05f, 1) : 1;
        how.min_p = round % 5 ? 0 : test_random_f32(0, 0.5f);
        reference(vocab, &how);
        rng_start(&rng, &how);
        for (u32 i = 0; i < 80; i++) {
            struct draw draw;
            EXPECT_OK(sampler_draw(&t.sampler, t.logit, &how, &rng, &draw));
            EXPECT(draw.token < vocab);
            wrong += !t.kept[draw.token];
        }
        EXPECT_EQ(wrong, 0);
    }
}

/* Chi-square of the draws against the exact distribution, far above what chance gives. */
TEST(ml_sampler_draws_by_probability)
{
    struct ml_sampling how = {.temperature = 0.8f, .top_p = 0.9f, .seed = 7, .has_seed = true};
    u32 vocab = 40, draws = 40000, count[40] = {}, cells = 0;
    struct rng rng;
    f64 chi = 0;

    start(vocab);
    for (u32 i = 0; i < vocab; i++)
        t.logit[i] = test_random_f32(-2, 2);
    f64 total = reference(vocab, &how), max = (f64)t.logit[t.order[0]];
    rng_start(&rng, &how);
    for (u32 i = 0; i < draws; i++) {
        struct draw draw;
        EXPECT_OK(sampler_draw(&t.sampler, t.logit, &how, &rng, &draw));
        count[draw.token]++;
    }
    for (u32 i = 0; i < vocab; i++) {
        f64 want = exp(((f64)t.logit[i] - max) / (f64)how.temperature) / total * draws;
        EXPECT(t.kept[i] || count[i] == 0);
        if (t.kept[i])
            chi += (count[i] - want) * (count[i] - want) / want, cells++;
    }
    EXPECT(cells > 5 && chi < cells + 6 * sqrt(2.0 * cells));
}

TEST(ml_sampler_same_seed_same_tokens)
{
    struct ml_sampling how = {.temperature = 1, .top_p = 1, .seed = 42, .has_seed = true};
    struct rng a, b, c;
    u32 same = 0;

    start(VOCAB);
    rng_start(&a, &how);
    rng_start(&b, &how);
    how.seed++;
    rng_start(&c, &how);
    for (u32 i = 0; i < 50; i++) {
        struct draw x, y, z;
        EXPECT_OK(sampler_draw(&t.sampler, t.logit, &how, &a, &x));
        EXPECT_OK(sampler_draw(&t.sampler, t.logit, &how, &b, &y));
        EXPECT_OK(sampler_draw(&t.sampler, t.logit, &how, &c, &z));
        EXPECT_EQ(x.token, y.token);
        same += x.token == z.token;
    }
    EXPECT(same < 25);
}

TEST(ml_sampler_is_greedy_at_zero_and_ties_go_to_the_lowest)
{
    struct ml_sampling how = {.top_p = 1};
    struct rng rng = {};
    struct draw draw;

    start(VOCAB);
    t.logit[77] = t.logit[99] = t.logit[4000] = 5;
    EXPECT_OK(sampler_draw(&t.sampler, t.logit, &how, &rng, &draw));
    EXPECT_EQ(draw.token, 77);
    how.temperature = 2;
    how.top_k = 1; /* one of the equals only */
    for (u32 i = 0; i < 20; i++) {
        EXPECT_OK(sampler_draw(&t.sampler, t.logit, &how, &rng, &draw));
        EXPECT_EQ(draw.token, 77);
    }
}

TEST(ml_sampler_reports_untempered_log_probabilities)
{
    struct ml_sampling how = {.temperature = 0.3f, .top_p = 0.5f, .logprobs = true,
                              .top_logprobs = 20, .has_seed = true};
    struct rng rng;
    struct draw draw;
    f64 sum = 0;

    start(VOCAB);
    t.logit[10] = t.logit[20] = 4.5f;
    struct ml_sampling all = {.temperature = 1, .top_p = 1};
    reference(VOCAB, &all);
    for (u32 i = 0; i < VOCAB; i++)
        sum += exp((f64)t.logit[i]);
    rng_start(&rng, &how);
    EXPECT_OK(sampler_draw(&t.sampler, t.logit, &how, &rng, &draw));
    EXPECT_EQ(draw.top_count, 20);
    EXPECT(fabs((f64)draw.logprob - ((f64)t.logit[draw.token] - log(sum))) < 2e-6);
    for (u32 i = 0; i < 20; i++) {
        f64 want = (f64)t.logit[t.order[i]] - log(sum);
        EXPECT_EQ(draw.top[i].token, t.order[i]);
        EXPECT(fabs((f64)draw.top[i].logprob - want) < 2e-6);
    }
}

TEST(ml_sampler_refuses_logits_that_are_no_numbers)
{
    struct ml_sampling how = {.temperature = 1, .top_p = 0.9f, .has_seed = true};
    const f32 bad[] = {NAN, INFINITY};
    struct rng rng;
    struct draw draw;

    rng_start(&rng, &how);
    for (u32 i = 0; i < ARRAY_LEN(bad); i++) {
        start(VOCAB);
        t.logit[4321] = bad[i];
        EXPECT_EQ(sampler_draw(&t.sampler, t.logit, &how, &rng, &draw), E_DEVICE);
    }
    for (u32 i = 0; i < VOCAB; i++)
        t.logit[i] = -INFINITY; /* masked: fine as long as one is left */
    EXPECT_EQ(sampler_draw(&t.sampler, t.logit, &how, &rng, &draw), E_DEVICE);
    t.logit[3] = 0;
    EXPECT_OK(sampler_draw(&t.sampler, t.logit, &how, &rng, &draw));
    EXPECT_EQ(draw.token, 3);
}
