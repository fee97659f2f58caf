/*
 * bpe.c: of all pairs of neighbours the one with the lowest rank merges first, of equals the
 * leftmost (GPT-2's scheme, with the ties of Hugging Face's `tokenizers`). A tree over the places
 * of the word holds the winner of each subtree, so a word takes n log n. Must not know text.
 */
#include "ml/tokenizer.h"

#define BPE_BACK 0x80000000u

/* The pair is the name under which a merge is found. */
static struct str pair_name(const void *table, u32 rank)
{
    const struct merge *merge = table;

    return (struct str){(const char *)&merge[rank].left, 2 * sizeof(u32)};
}

err bpe_init(struct bpe *b, struct arena *arena, const u32 *start, u32 merges_max)
{
    *b = (struct bpe){.start = start, .merge = arena_new(arena, struct merge, merges_max)};
    b->pairs = (struct names){.table = b->merge, .name = pair_name};
    return b->merge ? names_init(&b->pairs, arena, merges_max) : E_NOMEM;
}

bool bpe_add(struct bpe *b, const struct merge *merge)
{
    b->merge[b->merge_count] = *merge;
    if (names_put(&b->pairs, b->merge_count) != OK)
        return false;
    b->merge_count++;
    return true;
}

u32 bpe_next(const struct bpe *b, u32 place)
{
    u32 token = b->place[place].symbol;

    return place + b->start[token + 1] - b->start[token];
}

/* Of the symbol at a place with the next one; BPE_NONE: they do not merge. */
static u32 rank_at(const struct bpe *b, u32 place, u32 places)
{
    u32 next = bpe_next(b, place);
    u32 pair[] = {b->place[place].symbol, next < places ? b->place[next].symbol : 0};

    if (next >= places)
        return BPE_NONE;
    return names_find(&b->pairs, (struct str){(const char *)pair, sizeof(pair)});
}

/* Leaves [places, 2 places) of the tree are the places themselves. */
static u32 best_below(const struct bpe *b, u32 node, u32 places)
{
    u32 left = 2 * node, right = 2 * node + 1;

    left = left < places ? b->place[left].best : left - places;
    right = right < places ? b->place[right].best : right - places;
    u32 left_rank = b->place[left].rank, right_rank = b->place[right].rank;
    bool first = left_rank != right_rank ? left_rank < right_rank : left < right;
    return first ? left : right;
}

static void set_rank(struct bpe *b, u32 place, u32 rank, u32 places)
{
    b->place[place].rank = rank;
    for (u32 node = (place + places) / 2; node > 0; node /= 2) {
        u32 best = best_below(b, node, places);
        if (b->place[node].best == best && best != place)
            return; /* above, nothing changes either */
        b->place[node].best = best;
    }
}

/* The symbol at a place and its right neighbour become one. */
static void merge_at(struct bpe *b, u32 place, u32 places)
{
    u32 right = bpe_next(b, place), next = bpe_next(b, right);
    u32 back = place == 0 ? 0 : b->place[place - 1].symbol;

    b->place[next - 1].symbol = BPE_BACK | place;
    b->place[place].symbol = b->merge[b->place[place].rank].into;
    set_rank(b, right, BPE_NONE, places);
    set_rank(b, place, rank_at(b, place, places), places);
    if (place > 0) {
        u32 previous = back & BPE_BACK ? back & ~BPE_BACK : place - 1;
        set_rank(b, previous, rank_at(b, previous, places), places);
    }
}

void bpe_word(struct bpe *b, u32 places)
{
    for (u32 i = 0; i < places; i++)
        b->place[i].rank = rank_at(b, i, places);
    for (u32 node = places; node-- > 1;)
        b->place[node].best = best_below(b, node, places);
    while (places > 1 && b->place[b->place[1].best].rank != BPE_NONE)
        merge_at(b, b->place[1].best, places);
}
