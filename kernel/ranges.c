/*
 * ranges.c: a set of address ranges as a sorted table, neighbours joined. Portable: numbers only.
 */
#include "kernel/kernel.h"

/* Index of the first range that does not lie below `base`. */
static u32 place_of(const struct ranges *set, u64 base)
{
    u32 low = 0, high = set->count;

    while (low < high) {
        u32 middle = (low + high) / 2;
        if (set->at[middle].base < base)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void remove_at(struct ranges *set, u32 idx)
{
    set->count--;
    memmove(&set->at[idx], &set->at[idx + 1], (set->count - idx) * sizeof(set->at[0]));
}

bool ranges_add(struct ranges *set, u64 base, u64 bytes)
{
    u32 idx = place_of(set, base);
    struct range *below = idx > 0 ? &set->at[idx - 1] : NULL;
    struct range *above = idx < set->count ? &set->at[idx] : NULL;

    CHECK(bytes > 0 && base + bytes > base);
    CHECK(!below || below->base + below->bytes <= base);
    CHECK(!above || base + bytes <= above->base);
    bool joins_below = below && below->base + below->bytes == base;
    bool joins_above = above && above->base == base + bytes;
    if (!joins_below && !joins_above && set->count == RANGES_MAX)
        return false;
    set->bytes += bytes;
    if (joins_below) {
        below->bytes += bytes + (joins_above ? above->bytes : 0);
        if (joins_above)
            remove_at(set, idx);
    } else if (joins_above) {
        *above = (struct range){base, above->bytes + bytes};
    } else {
        memmove(&set->at[idx + 1], &set->at[idx], (set->count - idx) * sizeof(set->at[0]));
        set->at[idx] = (struct range){base, bytes};
        set->count++;
    }
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
