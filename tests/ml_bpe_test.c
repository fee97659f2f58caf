/*
 * ml_bpe_test.c: the queue of candidates against the definition of byte-pair merging, taken
 * literally.
 */
#include <stdlib.h>

#include "ml/tokenizer.h"
#include "tests/test.h"

#define LETTERS    3u
#define TOKENS_MAX 40u
#define WORD_MAX   60u

/* A vocabulary of strings over three letters; equal strings are one token, so that one token
 * may come of several pairs, at ranks in any order. */
struct language {
    char text[TOKENS_MAX][WORD_MAX];
    u32 len[TOKENS_MAX], start[TOKENS_MAX + 1], tokens;
    struct merge merge[2 * TOKENS_MAX];
    u32 merges;
};

static u32 token_of(struct language *l, const char *text, u32 len)
{
    for (u32 i = 0; i < l->tokens; i++) {
        if (l->len[i] == len && memcmp(l->text[i], text, len) == 0)
            return i;
    }
    if (l->tokens == TOKENS_MAX)
        return BPE_NONE;
    memcpy(l->text[l->tokens], text, len);
    l->len[l->tokens] = len;
    l->start[l->tokens + 1] = l->start[l->tokens] + len;
    return l->tokens++;
}

static void make_language(struct language *l)
{
    *l = (struct language){};
    for (u32 i = 0; i < LETTERS; i++)
        token_of(l, &"abc"[i], 1);
    for (u32 i = 0; i < 60; i++) {
        u32 left = test_random_below(l->tokens), right = test_random_below(l->tokens), into;
        char text[WORD_MAX];

        if (l->len[left] + l->len[right] > 8)
            continue;
        memcpy(text, l->text[left], l->len[left]);
        memcpy(text + l->len[left], l->text[right], l->len[right]);
        into = token_of(l, text, l->len[left] + l->len[right]);
        if (into != BPE_NONE)
            l->merge[l->merges++] = (struct merge){left, right, into};
    }
    for (u32 i = l->merges; i > 1; i--) { /* ranks in any order: no training would do that */
        u32 other = test_random_below(i);
        struct merge kept = l->merge[other];

        l->merge[other] = l->merge[i - 1];
        l->merge[i - 1] = kept;
    }
}

/* The definition: the lowest rank of all neighbours, of these the leftmost, until there is none. */
static u32 merge_literally(const struct language *l, u32 *symbol, u32 count)
{
    for (;;) {
        u32 best = l->merges, place = 0;

        for (u32 i = 0; i + 1 < count; i++) {
            for (u32 rank = 0; rank < best; rank++) {
                if (l->merge[rank].left == symbol[i] && l->merge[rank].right == symbol[i + 1]) {
                    best = rank;
                    place = i;
                }
            }
        }
        if (best == l->merges)
            return count;
        symbol[place] = l->merge[best].into;
        memmove(symbol + place + 1, symbol + place + 2, (count - place - 2) * sizeof(u32));
        count--;
    }
}

TEST(ml_bpe_is_the_definition)
{
    /* Guards: order of merges with overlaps, several ways to one token, ranks that fall while
     * merging. */
    static u8 memory[64 * KIB];
    static struct language language;
    struct bpe_place place[WORD_MAX];
    u32 want[WORD_MAX];

    for (u32 round = 0; round < 20000; round++) {
        struct arena arena = arena_on("bpe", memory, sizeof(memory));
        u32 letters = 1 + test_random_below(LETTERS), len = 1 + test_random_below(WORD_MAX - 1);
        struct bpe bpe;
        u32 count, at = 0;

        if (round % 20 == 0)
            make_language(&language);
        EXPECT_OK(bpe_init(&bpe, &arena, language.start, language.merges));
        for (u32 i = 0; i < language.merges; i++)
            bpe_add(&bpe, &language.merge[i]); /* a pair that is there keeps its rank */
        bpe.place = place;
        for (u32 i = 0; i < len; i++)
            want[i] = place[i].symbol = test_random_below(letters);
        count = merge_literally(&language, want, len);
        bpe_word(&bpe, len);
        for (u32 i = 0; i < count; i++, at = bpe_next(&bpe, at)) {
            EXPECT(at < len);
            EXPECT_EQ(place[at].symbol, want[i]);
        }
        EXPECT_EQ(at, len);
    }
}

TEST(ml_bpe_reuse)
{
    /* Guards: a word leaves nothing behind for the next one. */
    static u8 memory[64 * KIB];
    static const u32 start[] = {0, 1, 2, 4};
    struct arena arena = arena_on("bpe", memory, sizeof(memory));
    struct bpe_place place[4];
    struct bpe bpe;

    EXPECT_OK(bpe_init(&bpe, &arena, start, 1));
    EXPECT(bpe_add(&bpe, &(struct merge){0, 1, 2}));
    EXPECT(!bpe_add(&bpe, &(struct merge){0, 1, 2}));
    bpe.place = place;
    for (u32 round = 0; round < 3; round++) {
        place[0].symbol = place[2].symbol = 0;
        place[1].symbol = place[3].symbol = 1;
        bpe_word(&bpe, 4);
        EXPECT(place[0].symbol == 2 && place[2].symbol == 2 && bpe_next(&bpe, 2) == 4);
    }
}
