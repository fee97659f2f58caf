/*
 * bpe.h: merges the symbols of one word by rank. Knows tokens as numbers that have a length in
 * bytes.
 */
#ifndef NOHOST_BPE_H
#define NOHOST_BPE_H

#include "kernel/base.h"

#define BPE_NONE       0xffffffffu
#define BPE_BACK       0x80000000u /* a symbol's last place holds where it starts */
#define BPE_PLACES_MAX (BPE_BACK - 1)
#define BPE_BIT_LEVELS 3u

struct merge {
    u32 left, right, into; /* tokens; the length of `into` is the sum of the others' */
};

struct bpe {
    const u32 *start;    /* token t has start[t + 1] - start[t] bytes */
    struct merge *merge; /* by rank */
    u32 merge_count;
    u32 *pair; /* hash of (left, right) -> rank + 1 */
    u32 pair_mask;
    /* By rank: the places whose symbol may merge with the next one. Between words all are empty. */
    u32 *head, *tail;          /* first and last place of the list */
    u64 *bits[BPE_BIT_LEVELS]; /* which ranks have a list; above: which words below are not 0 */
    /* By place; the caller's, as long as the word. */
    u32 *symbol;         /* the token that starts here, or BPE_BACK */
    u32 *before, *after; /* neighbours in the list */
};

/* E_NOMEM. */
err bpe_init(struct bpe *bpe, struct arena *arena, const u32 *start, u32 merges_max);
/* The merge of the next rank. False: its pair has a rank already, or the hash table is too
 * crowded. */
bool bpe_add(struct bpe *bpe, const struct merge *merge);
/* symbol[0 .. places) are tokens of one byte each; what is left starts at 0 and bpe_next of
 * that. */
void bpe_word(struct bpe *bpe, u32 places);
u32 bpe_next(const struct bpe *bpe, u32 place);

#endif
