/*
 * names.c: the hash table behind keys, tensors, the vocabulary and its merges.
 */
#include "ml/names.h"

#define PROBES_MAX 512u /* a table that is half full needs some dozens at worst */

err names_init(struct names *names, struct arena *arena, u32 count)
{
    u32 slots = 2;

    while (slots / 2 < count)
        slots *= 2;
    names->slot = arena_new(arena, u32, slots);
    names->mask = slots - 1;
    return names->slot == NULL ? E_NOMEM : OK;
}

/* The slot that holds the name, or the free one where it would go; NULL: too many probes. */
static u32 *slot_of(const struct names *names, struct str name)
{
    u64 hash = 0xcbf29ce484222325ull; /* FNV-1a, then its high half folded in */

    for (usize i = 0; i < name.len; i++)
        hash = (hash ^ (u8)name.ptr[i]) * 0x100000001b3ull;
    hash ^= hash >> 32;
    for (u32 probe = 0; probe < PROBES_MAX; probe++) {
        u32 *slot = &names->slot[(hash + probe) & names->mask];

        if (*slot == 0 || str_eq(names->name(names->table, *slot - 1), name))
            return slot;
    }
    return NULL;
}

err names_put(struct names *names, u32 entry)
{
    u32 *slot = slot_of(names, names->name(names->table, entry));

    if (slot == NULL || *slot != 0)
        return slot == NULL ? E_LIMIT : E_STATE;
    *slot = entry + 1;
    return OK;
}

u32 names_find(const struct names *names, struct str name)
{
    u32 *slot = names->slot == NULL ? NULL : slot_of(names, name); /* of zeroes: empty */

    return slot == NULL ? NAMES_NONE : *slot - 1; /* a free slot gives NAMES_NONE too */
}
