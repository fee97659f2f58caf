/*
 * ml_lane_test.c: the engine with made-up cards: which device a model gets, requests spread over
 * copies of it, and what becomes of them when a step is lost, weights are lost, a card dies.
 */
#define FAKE(name) lane_##name
#include "tests/ml_engine_drive.h"

/* Which device a configuration and its card lead to: 'g' card, 'c' cores, 0: none, with a reason.
 */
static const struct device_case {
    enum ml_device device;
    u32 cards;
    err card;
    bool small;
    char want;
    const char *reason;
} device_cases[] = {
    {ML_DEVICE_AUTO, 0, OK, false, 'c', NULL},
    {ML_DEVICE_AUTO, 1, OK, false, 'g', NULL},
    {ML_DEVICE_AUTO, 1, E_DEVICE, false, 'c', NULL},
    {ML_DEVICE_AUTO, 1, OK, true, 'c', NULL},
    {ML_DEVICE_CPU, 1, OK, false, 'c', NULL},
    {ML_DEVICE_GPU, 1, OK, false, 'g', NULL},
    {ML_DEVICE_GPU, 0, OK, false, 0, "nohost.conf wants a graphics card, there is none"},
    {ML_DEVICE_GPU, 1, E_DEVICE, false, 0, "the card is dead"},
    {ML_DEVICE_GPU, 1, OK, true, 0, "17 MiB are missing"},
};

TEST(ml_lane_chooses_a_device)
{
    struct gpu *card = (struct gpu *)&no_file; /* never looked at */
    struct ml_status status;

    for (const struct device_case *c = device_cases; c < device_cases + ARRAY_LEN(device_cases);
         c++) {
        struct ml_config config = {.part = &no_file,
                                   .part_count = 1,
                                   .slots = 1,
                                   .gpu = &card,
                                   .kv_tokens = CTX,
                                   .gpu_count = c->cards,
                                   .device = c->device};
        memset(fakes, 0, sizeof(fakes));
        fake.card = E_BUSY;
        fake.card_is_small = c->small;
        EXPECT_OK(ml_open(&t.ml, &config));
        for (u32 i = 0; i < 10; i++)
            (void)ml_step(t.ml, 1000);
        ml_status(t.ml, &status);
        if (c->cards && c->device != ML_DEVICE_CPU)
            EXPECT_STR(str_of(status.step), STR("waiting for the graphics card"));
        fake.card = c->card;
        while (ml_step(t.ml, 1000))
            ;
        ml_status(t.ml, &status);
        EXPECT_EQ(status.state, c->want ? ML_READY : ML_FAILED);
        EXPECT(!c->want || fake.on_card == (c->want == 'g'));
        if (c->reason)
            EXPECT_STR(str_of(status.reason), str_of(c->reason));
    }
}

/* Nobody looks at the cards themselves. */
static struct ml_config on_cards(u32 cards, u32 slots)
{
    static struct gpu *card[2];

    card[0] = (struct gpu *)&no_file;
    card[1] = fake_second_card;
    return (struct ml_config){.part = &no_file,
                              .part_count = 1,
                              .slots = slots,
                              .gpu = card,
                              .kv_tokens = slots * CTX,
                              .gpu_count = cards};
}

static void open_on_cards(u32 cards, u32 slots)
{
    struct ml_config config = on_cards(cards, slots);

    memset(&t, 0, sizeof(t));
    memset(fakes, 0, sizeof(fakes));
    EXPECT_OK(ml_open(&t.ml, &config));
    while (ml_step(t.ml, 1000))
        ;
    EXPECT(fake.on_card);
}

/* Who runs gets an error, who waits does not, and is answered with the weights sent again when VRAM
 * was lost too. */
TEST(ml_lane_step_lost_on_a_card)
{
    for (u32 lost = 0; lost < 2; lost++) {
        open_on_cards(1, 2);
        fake.loses_step = true;
        u64 first = submit(ask_for("ab|")), second = submit(ask_for("cd|"));
        u64 waits = submit(ask_for("ef|"));
        (void)ml_step(t.ml, 1000);
        drain();
        expect_outcome(first, "", ML_FINISH_ERROR);
        expect_outcome(second, "", ML_FINISH_ERROR);
        EXPECT_EQ(t.outcome[first].last.why, E_DEVICE);
        fake.health = E_BUSY;
        for (u32 i = 0; i < 5; i++)
            EXPECT(!ml_step(t.ml, 1000));
        fake.health = lost ? E_STATE : OK;
        fake.load_slices = 0;
        (void)ml_step(t.ml, 1000);
        EXPECT_EQ(fake.reloads, lost);
        run();
        expect_outcome(waits, "ef", ML_FINISH_STOP);
        EXPECT_EQ(fake.opens, 1);
        close_clean();
    }
}

/* Nobody is left without an answer, and the next one is refused with the reason at hand. */
TEST(ml_lane_card_dies)
{
    struct ml_request request = ask_for("gh|");
    struct ml_refusal refusal;
    struct ml_status status;
    u64 ticket[5], refused;

    open_on_cards(1, 2);
    for (u32 i = 0; i < ARRAY_LEN(ticket); i++)
        ticket[i] = submit(ask_for("abcdef|"));
    (void)ml_step(t.ml, 1000);
    fake.health = E_DEVICE;
    fake.loses_step = true;
    for (u32 i = 0; i < 10; i++) {
        (void)ml_step(t.ml, 1000);
        drain();
    }
    ml_status(t.ml, &status);
    EXPECT(status.state == ML_FAILED && str_eq(str_of(status.reason), STR("the card is dead")));
    for (u32 i = 0; i < ARRAY_LEN(ticket); i++) {
        EXPECT_EQ(t.outcome[ticket[i]].ends, 1);
        EXPECT_EQ(t.outcome[ticket[i]].finish, ML_FINISH_ERROR);
    }
    EXPECT_EQ(ml_submit(t.ml, &request, &refused, &refusal), E_STATE);
    close_clean();
}

TEST(ml_lane_two_cards_share_requests)
{
    u64 ticket[6];

    open_on_cards(2, 1);
    EXPECT(t.ml->lane_count == 2 && t.ml->sequence_count == 2 + ML_QUEUE_MAX);
    for (u32 i = 0; i < ARRAY_LEN(ticket); i++)
        ticket[i] = submit(ask_for("abc|"));
    run();
    for (u32 i = 0; i < ARRAY_LEN(ticket); i++)
        expect_outcome(ticket[i], "abc", ML_FINISH_STOP);
    EXPECT_EQ(fakes[0].starts, 12);
    EXPECT_EQ(fakes[1].starts, 12);
    close_clean();
}

/* Its request ends with an error, those that wait for it move, the other card goes on. */
TEST(ml_lane_one_of_two_cards_dies)
{
    struct ml_status status;
    u64 ticket[6], failed = 0;

    open_on_cards(2, 1);
    for (u32 i = 0; i < ARRAY_LEN(ticket); i++)
        ticket[i] = submit(ask_for("abc|"));
    fakes[1].advances = 3;
    (void)ml_step(t.ml, 1000);
    drain();
    fakes[1].health = E_DEVICE;
    fakes[1].loses_step = true;
    for (u32 i = 0; i < 8; i++) {
        (void)ml_step(t.ml, 1000);
        drain();
    }
    run();
    for (u32 i = 0; i < ARRAY_LEN(ticket); i++) {
        failed += t.outcome[ticket[i]].finish == ML_FINISH_ERROR;
        EXPECT(t.outcome[ticket[i]].finish == ML_FINISH_ERROR || t.outcome[ticket[i]].len == 3);
        EXPECT_EQ(t.outcome[ticket[i]].ends, 1);
    }
    EXPECT_EQ(failed, 1);
    ml_status(t.ml, &status);
    EXPECT_EQ(status.state, ML_READY);
    u64 next = submit(ask_for("de|"));
    run();
    expect_outcome(next, "de", ML_FINISH_STOP);
    close_clean();
}

/* While one gets its weights again the other serves all. */
TEST(ml_lane_one_of_two_cards_loses_its_weights)
{
    u64 ticket[4];

    open_on_cards(2, 1);
    fakes[0].health = E_STATE;
    fakes[0].load_slices = 0;
    (void)ml_step(t.ml, 1000);
    EXPECT_EQ(fakes[0].reloads, 1);
    for (u32 i = 0; i < ARRAY_LEN(ticket); i++)
        ticket[i] = submit(ask_for("fg|"));
    run();
    for (u32 i = 0; i < ARRAY_LEN(ticket); i++)
        expect_outcome(ticket[i], "fg", ML_FINISH_STOP);
    EXPECT_EQ(fakes[0].starts, 0);
    EXPECT_EQ(t.ml->lane[0].state, LANE_READY);
    u64 next = submit(ask_for("hi|"));
    run();
    expect_outcome(next, "hi", ML_FINISH_STOP);
    EXPECT(fakes[0].starts > 0);
    close_clean();
}

TEST(ml_lane_second_card_is_too_small)
{
    struct ml_config config = on_cards(2, 1);

    memset(fakes, 0, sizeof(fakes));
    fakes[1].card_is_small = true;
    EXPECT_OK(ml_open(&t.ml, &config));
    while (ml_step(t.ml, 1000))
        ;
    EXPECT(t.ml->state == ML_READY && t.ml->lane_count == 1 &&
           t.ml->lane[0].gpu[0] == config.gpu[0]);
}

/* Asked for, or because a copy has no room on the first card: each gets a part of the layers. */
TEST(ml_lane_layers_are_split)
{
    struct ml_config config = on_cards(2, 1);

    for (u32 asked = 0; asked < 2; asked++) {
        memset(fakes, 0, sizeof(fakes));
        memset(&t, 0, sizeof(t));
        fake.card_is_small = !asked;
        config.split_layers = asked;
        EXPECT_OK(ml_open(&t.ml, &config));
        while (ml_step(t.ml, 1000))
            ;
        EXPECT(t.ml->state == ML_READY && t.ml->lane_count == 1 && fake.parts == 2);
        u64 ticket = submit(ask_for("kl|"));
        run();
        expect_outcome(ticket, "kl", ML_FINISH_STOP);
    }
}
