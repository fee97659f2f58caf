/*
 * ranges.c: a set of address ranges as a sorted table, neighbours joined. Portable: numbers only.
 */
#include "kernel/kernel.h"

static void remove_at(struct ranges *set, u32 idx)
{
    set->count--;
    memmove(&set->at[idx], &set->at[idx + 1], (set->count - idx) * sizeof(set->at[0]));
}

/* A range and the one above it become one where they touch. */
static void join(struct ranges *set, u32 idx)
{
    struct range *low = &set->at[idx], *high = low + 1;

    if (idx + 1 >= set->count || low->base + low->bytes != high->base)
        return;
    low->bytes += high->bytes;
    remove_at(set, idx + 1);
}

bool ranges_add(struct ranges *set, u64 base, u64 bytes)
{
    u32 idx = 0, high = set->count;

    while (idx < high) { /* the first that does not lie below */
        u32 middle = (idx + high) / 2;
        bool below = set->at[middle].base < base;
        idx = below ? middle + 1 : idx;
        high = below ? high : middle;
    }
    CHECK(bytes > 0 && base + bytes > base);
    CHECK(idx == 0 || set->at[idx - 1].base + set->at[idx - 1].bytes <= base);
    CHECK(idx == set->count || base + bytes <= set->at[idx].base);
    memmove(&set->at[idx + 1], &set->at[idx], (set->count - idx) * sizeof(set->at[0]));
    set->at[idx] = (struct range){base, bytes};
    set->count++;
    join(set, idx);
    if (idx > 0)
        join(set, idx - 1);
    if (set->count > RANGES_MAX) {
        remove_at(set, idx);
        return false;
    }
    set->bytes += bytes;
    return true;
}

u64 ranges_take(struct ranges *set, u64 bytes, u64 align)
{
    u32 best = set->count;

    for (u32 i = 0; i < set->count; i++) {
        u64 skip = round_up(set->at[i].base, align) - set->at[i].base;
        bool fits = skip <= set->at[i].bytes && set->at[i].bytes - skip >= bytes;
        if (fits && (best == set->count || set->at[i].bytes < set->at[best].bytes))
            best = i;
    }
    if (best == set->count)
        return UINT64_MAX;
    struct range whole = set->at[best];
    u64 base = round_up(whole.base, align);
    remove_at(set, best);
    set->bytes -= whole.bytes;
    /* A cut in the middle needs one place more than there was: when the table is full, the tail is
     * lost. */
    if (base > whole.base)
        (void)ranges_add(set, whole.base, base - whole.base);
    if (base + bytes < whole.base + whole.bytes)
        (void)ranges_add(set, base + bytes, whole.base + whole.bytes - base - bytes);
    return base;
}
