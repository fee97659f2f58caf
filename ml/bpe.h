/*
 * bpe.h: merges the symbols of one word by rank. Knows tokens as numbers that have a length in
 * bytes.
 */
#ifndef NOHOST_BPE_H
#define NOHOST_BPE_H

#include "kernel/base.h"

#define BPE_NONE       0xffffffffu
#define BPE_BACK       0x80000000u
#define BPE_PLACES_MAX (BPE_BACK - 1)

struct merge {
    u32 left, right, into; /* tokens; the length of `into` is the sum of the others' */
};

/* Of a ring: the list of a rank is the one member that is no place but BPE_LIST | rank. */
struct bpe_link {
    u32 before, after;
};

/* One byte of the word. */
struct bpe_place {
    u32 symbol;           /* the token that starts here; at its last byte BPE_BACK | its first */
    struct bpe_link link; /* before is BPE_NONE: it does not wait for a merge with the next one */
};

struct bpe {
    const u32 *start;    /* token t has start[t + 1] - start[t] bytes */
    struct merge *merge; /* by rank */
    u32 merge_count;
    u32 *pair; /* hash of (left, right) -> rank + 1 */
    u32 pair_mask;
    struct bpe_link *list;   /* by rank; between words all are empty */
    u64 *waiting, *words;    /* which ranks have a list; which 64 of them are not all empty */
    struct bpe_place *place; /* the caller's, as long as the word */
};

/* E_NOMEM. */
err bpe_init(struct bpe *bpe, struct arena *arena, const u32 *start, u32 merges_max);
/* The merge of the next rank. False: its pair has a rank already, or the table is too crowded. */
bool bpe_add(struct bpe *bpe, const struct merge *merge);
/* place[0 .. places) hold tokens of one byte; what is left starts at 0 and bpe_next of that. */
void bpe_word(struct bpe *bpe, u32 places);
u32 bpe_next(const struct bpe *bpe, u32 place);

#endif
