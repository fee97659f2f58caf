/*
 * bpe.c: of all pairs of neighbours the one with the lowest rank merges first, of equals the
 * leftmost (GPT-2's scheme, with the ties of Hugging Face's `tokenizers`). Takes time in
 * proportion to the word: candidates wait in one list per rank, in the order of the text, and a
 * bit map of three levels finds the lowest rank. Must not know text.
 */
#include "ml/bpe.h"

#define PROBES_MAX 512u /* a hash table that is half full needs some dozens at worst */

static u32 rank_of(const struct bpe *b, u32 left, u32 right);
static u32 pair_slot(const struct bpe *b, u32 left, u32 right);
static u32 first_waiting(const struct bpe *b);
static void merge_first(struct bpe *b, u32 rank, u32 places);
static void consider(struct bpe *b, u32 left, u32 right);

err bpe_init(struct bpe *b, struct arena *arena, const u32 *start, u32 merges_max)
{
    usize words = merges_max;
    u32 slots = 2;

    while (slots / 2 < merges_max)
        slots *= 2;
    *b = (struct bpe){.start = start, .pair_mask = slots - 1};
    b->merge = arena_new(arena, struct merge, merges_max);
    b->pair = arena_new(arena, u32, slots);
    b->head = arena_new(arena, u32, merges_max);
    b->tail = arena_new(arena, u32, merges_max);
    if (!b->merge || !b->pair || !b->head || !b->tail)
        return E_NOMEM;
    for (u32 level = 0; level < BPE_BIT_LEVELS; level++) {
        words = words / 64 + 1;
        b->bits[level] = arena_new(arena, u64, words);
        if (b->bits[level] == NULL)
            return E_NOMEM;
    }
    return OK;
}

bool bpe_add(struct bpe *b, const struct merge *merge)
{
    u32 slot = pair_slot(b, merge->left, merge->right);

    if (slot == BPE_NONE || b->pair[slot] != 0)
        return false;
    b->merge[b->merge_count] = *merge;
    b->pair[slot] = ++b->merge_count;
    return true;
}

void bpe_word(struct bpe *b, u32 places)
{
    u32 rank;

    for (u32 i = 0; i + 1 < places; i++)
        consider(b, i, i + 1);
    while ((rank = first_waiting(b)) != BPE_NONE)
        merge_first(b, rank, places);
}

/* ---- pairs that have a rank ---- */

static u32 pair_slot(const struct bpe *b, u32 left, u32 right)
{
    u64 hash = ((u64)left << 32 | right) * 0x9e3779b97f4a7c15ull;

    for (u32 at = (u32)(hash >> 32), probe = 0; probe < PROBES_MAX; probe++, at++) {
        u32 rank = b->pair[at & b->pair_mask];

        if (rank == 0 || (b->merge[rank - 1].left == left && b->merge[rank - 1].right == right))
            return at & b->pair_mask;
    }
    return BPE_NONE;
}

static u32 rank_of(const struct bpe *b, u32 left, u32 right)
{
    u32 slot = pair_slot(b, left, right);

    return slot == BPE_NONE || b->pair[slot] == 0 ? BPE_NONE : b->pair[slot] - 1;
}

/* ---- candidates: per rank a list of places in the order of the text ---- */

static void set_waiting(struct bpe *b, u32 rank)
{
    for (u32 level = 0; level < BPE_BIT_LEVELS; level++, rank /= 64)
        b->bits[level][rank / 64] |= 1ull << rank % 64;
}

static void clear_waiting(struct bpe *b, u32 rank)
{
    for (u32 level = 0; level < BPE_BIT_LEVELS; level++, rank /= 64) {
        b->bits[level][rank / 64] &= ~(1ull << rank % 64);
        if (b->bits[level][rank / 64] != 0)
            break;
    }
}

/* The lowest rank that waits, or BPE_NONE. */
static u32 first_waiting(const struct bpe *b)
{
    u32 words = b->merge_count / (64 * 64 * 64) + 1, at = 0;

    while (at < words && b->bits[BPE_BIT_LEVELS - 1][at] == 0)
        at++;
    if (at == words)
        return BPE_NONE;
    for (u32 level = BPE_BIT_LEVELS; level-- > 0;)
        at = at * 64 + (u32)__builtin_ctzll(b->bits[level][at]);
    return at;
}

/* A list is in the order of the text by itself: what can overlap its neighbour is one token twice,
 * and all of one token come about during one pass from left to right (tests/ml_bpe_test.c). */
static void wait_at(struct bpe *b, u32 rank, u32 place)
{
    bool first = !(b->bits[0][rank / 64] >> rank % 64 & 1);

    b->before[place] = first ? BPE_NONE : b->tail[rank];
    b->after[place] = BPE_NONE;
    if (first) {
        b->head[rank] = place;
        set_waiting(b, rank);
    } else {
        b->after[b->tail[rank]] = place;
    }
    b->tail[rank] = place;
}

static void wait_no_more(struct bpe *b, u32 rank, u32 place)
{
    u32 left = b->before[place], right = b->after[place];

    if (left != BPE_NONE)
        b->after[left] = right;
    else
        b->head[rank] = right;
    if (right != BPE_NONE)
        b->before[right] = left;
    else
        b->tail[rank] = left;
    if (left == BPE_NONE && right == BPE_NONE)
        clear_waiting(b, rank);
}

/* ---- one word: a symbol starts at a place and covers as many as its token has bytes ---- */

u32 bpe_next(const struct bpe *b, u32 place)
{
    u32 token = b->symbol[place];

    return place + b->start[token + 1] - b->start[token];
}

static u32 previous_symbol(const struct bpe *b, u32 place)
{
    u32 last = b->symbol[place - 1];

    return last & BPE_BACK ? last & ~BPE_BACK : place - 1;
}

static void consider(struct bpe *b, u32 left, u32 right)
{
    u32 rank = rank_of(b, b->symbol[left], b->symbol[right]);

    if (rank != BPE_NONE)
        wait_at(b, rank, left);
}

static void forget(struct bpe *b, u32 left, u32 right)
{
    u32 rank = rank_of(b, b->symbol[left], b->symbol[right]);

    if (rank != BPE_NONE)
        wait_no_more(b, rank, left);
}

/* The first candidate of a rank and its right neighbour become one symbol. */
static void merge_first(struct bpe *b, u32 rank, u32 places)
{
    u32 place = b->head[rank], right = bpe_next(b, place), next = bpe_next(b, right);

    wait_no_more(b, rank, place);
    if (next < places)
        forget(b, right, next);
    if (place > 0)
        forget(b, previous_symbol(b, place), place);
    b->symbol[next - 1] = BPE_BACK | place;
    b->symbol[place] = b->merge[rank].into;
    if (next < places)
        consider(b, place, next);
    if (place > 0)
        consider(b, previous_symbol(b, place), place);
}
