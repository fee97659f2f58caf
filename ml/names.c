/*
 * names.c: the hash table behind gguf_key, gguf_tensor and the tokenizer's vocabulary.
 */
#include "ml/names.h"

static u32 name_hash(struct str name)
{
    u64 hash = 0xcbf29ce484222325ull; /* FNV-1a, then its high half folded in */

    for (usize i = 0; i < name.len; i++)
        hash = (hash ^ (u8)name.ptr[i]) * 0x100000001b3ull;
    return (u32)(hash ^ (hash >> 32));
}

err names_init(struct names *names, struct arena *arena, u32 count)
{
    u32 slots = 2;

    while (slots / 2 < count)
        slots *= 2;
    names->slot = arena_new(arena, u32, slots);
    names->mask = slots - 1;
    return names->slot == NULL ? E_NOMEM : OK;
}

/* The slot that holds the name, or the free one where it would go; NAMES_NONE: too many probes. */
static u32 names_slot(const struct names *names, struct str name)
{
    u32 at = name_hash(name);

    for (u32 probe = 0; probe < NAMES_PROBES_MAX; probe++, at++) {
        u32 entry = names->slot[at & names->mask];

        if (entry == 0 || str_eq(names->name(names->table, entry - 1), name))
            return at & names->mask;
    }
    return NAMES_NONE;
}

err names_put(struct names *names, u32 entry)
{
    u32 slot = names_slot(names, names->name(names->table, entry));

    if (slot == NAMES_NONE)
        return E_LIMIT;
    if (names->slot[slot] != 0)
        return E_STATE;
    names->slot[slot] = entry + 1;
    return OK;
}

u32 names_find(const struct names *names, struct str name)
{
    u32 slot = names->slot == NULL ? NAMES_NONE : names_slot(names, name);

    return slot == NAMES_NONE || names->slot[slot] == 0 ? NAMES_NONE : names->slot[slot] - 1;
}
