/*
 * bpe.c: of all pairs of neighbours the one with the lowest rank merges first, of equals the
 * leftmost (GPT-2's scheme, with the ties of Hugging Face's `tokenizers`). Takes time in
 * proportion to the word: candidates wait in one list per rank, in the order of the text, and a
 * bit map of two levels finds the lowest rank. Must not know text.
 */
#include "ml/bpe.h"

#define BPE_LIST   0x80000000u
#define PROBES_MAX 512u /* a hash table that is half full needs some dozens at worst */

err bpe_init(struct bpe *b, struct arena *arena, const u32 *start, u32 merges_max)
{
    u32 slots = 2;

    while (slots / 2 < merges_max)
        slots *= 2;
    *b = (struct bpe){.start = start, .pair_mask = slots - 1};
    b->merge = arena_new(arena, struct merge, merges_max);
    b->pair = arena_new(arena, u32, slots);
    b->list = arena_new(arena, struct bpe_link, merges_max);
    b->waiting = arena_new(arena, u64, merges_max / 64 + 1);
    b->words = arena_new(arena, u64, merges_max / 64 / 64 + 1);
    return b->merge && b->pair && b->list && b->waiting && b->words ? OK : E_NOMEM;
}

/* The slot of the pair, or the free one where it would go; NULL: too many probes. */
static u32 *slot_of(const struct bpe *b, u32 left, u32 right)
{
    u64 hash = ((u64)left << 32 | right) * 0x9e3779b97f4a7c15ull >> 32;

    for (u32 probe = 0; probe < PROBES_MAX; probe++) {
        u32 *slot = &b->pair[(hash + probe) & b->pair_mask];

        if (*slot == 0 || (b->merge[*slot - 1].left == left && b->merge[*slot - 1].right == right))
            return slot;
    }
    return NULL;
}

bool bpe_add(struct bpe *b, const struct merge *merge)
{
    u32 *slot = slot_of(b, merge->left, merge->right), rank = b->merge_count;

    if (slot == NULL || *slot != 0)
        return false;
    b->merge[rank] = *merge;
    b->list[rank] = (struct bpe_link){BPE_LIST | rank, BPE_LIST | rank};
    *slot = ++b->merge_count;
    return true;
}

static struct bpe_link *link_of(struct bpe *b, u32 member)
{
    return member & BPE_LIST ? &b->list[member & ~BPE_LIST] : &b->place[member].link;
}

/* Lets a place wait if its symbol may merge with the next one. A list is in the order of the text
 * by itself: what can overlap its neighbour is one token twice, and all of one token come about
 * during one pass from left to right (tests/ml_bpe_test.c). */
static void consider(struct bpe *b, u32 place, u32 next)
{
    u32 *slot = slot_of(b, b->place[place].symbol, b->place[next].symbol), rank, last;

    b->place[place].link.before = BPE_NONE;
    if (slot == NULL || *slot == 0)
        return;
    rank = *slot - 1;
    last = b->list[rank].before;
    b->place[place].link = (struct bpe_link){last, BPE_LIST | rank};
    link_of(b, last)->after = b->list[rank].before = place;
    b->waiting[rank / 64] |= 1ull << rank % 64;
    b->words[rank / 64 / 64] |= 1ull << rank / 64 % 64;
}

static void forget(struct bpe *b, u32 place)
{
    struct bpe_link *link = &b->place[place].link;
    u32 rank = link->after & ~BPE_LIST;

    if (link->before == BPE_NONE)
        return;
    link_of(b, link->before)->after = link->after;
    link_of(b, link->after)->before = link->before;
    if (link->before == link->after) { /* only its list was beside it */
        b->waiting[rank / 64] &= ~(1ull << rank % 64);
        if (b->waiting[rank / 64] == 0)
            b->words[rank / 64 / 64] &= ~(1ull << rank / 64 % 64);
    }
    link->before = BPE_NONE;
}

/* The lowest rank that waits, or BPE_NONE. */
static u32 first_waiting(const struct bpe *b)
{
    for (u32 i = 0; i <= b->merge_count / 64 / 64; i++) {
        if (b->words[i] != 0) {
            u32 word = i * 64 + (u32)__builtin_ctzll(b->words[i]);

            return word * 64 + (u32)__builtin_ctzll(b->waiting[word]);
        }
    }
    return BPE_NONE;
}

u32 bpe_next(const struct bpe *b, u32 place)
{
    u32 token = b->place[place].symbol;

    return place + b->start[token + 1] - b->start[token];
}

/* The first candidate of a rank and its right neighbour become one symbol. */
static void merge_first(struct bpe *b, u32 rank, u32 places)
{
    u32 place = b->list[rank].after, right = bpe_next(b, place), next = bpe_next(b, right);
    u32 back = place == 0 ? 0 : b->place[place - 1].symbol, previous = place - 1;

    if (back & BPE_BACK)
        previous = back & ~BPE_BACK;
    forget(b, place);
    forget(b, right);
    if (place > 0)
        forget(b, previous);
    b->place[next - 1].symbol = BPE_BACK | place;
    b->place[place].symbol = b->merge[rank].into;
    if (next < places)
        consider(b, place, next);
    if (place > 0)
        consider(b, previous, place);
}

void bpe_word(struct bpe *b, u32 places)
{
    u32 rank;

    for (u32 i = 0; i < places; i++) {
        b->place[i].link.before = BPE_NONE;
        if (i + 1 < places)
            consider(b, i, i + 1);
    }
    while ((rank = first_waiting(b)) != BPE_NONE)
        merge_first(b, rank, places);
}
