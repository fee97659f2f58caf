/*
 * arena.c: arenas (memory given back all at once) and pools (equal places, given back one by one).
 * Portable. Must not know where the memory comes from. Sizes often stem from files: every sum and
 * product is checked.
 */
#include "kernel/base.h"

struct arena arena_on(const char *name, void *base, usize bytes)
{
    return (struct arena){.name = name, .base = base, .cap = bytes};
}

void *arena_take(struct arena *arena, usize bytes, usize align)
{
    CHECK(align && (align & (align - 1)) == 0);
    usize skip = (0 - (usize)(arena->base + arena->used)) & (align - 1);
    usize room = arena->cap - arena->used;

    if (skip > room || bytes > room - skip)
        return NULL;
    void *place = arena->base + arena->used + skip;
    arena->used += skip + bytes;
    arena->peak = arena->used > arena->peak ? arena->used : arena->peak;
    return place;
}

void *arena_alloc(struct arena *arena, usize bytes, usize align)
{
    void *place = arena_take(arena, bytes, align);

    return place ? memset(place, 0, bytes) : NULL;
}

void *arena_alloc_array(struct arena *arena, usize count, usize size, usize align)
{
    usize bytes;

    return __builtin_mul_overflow(count, size, &bytes) ? NULL : arena_alloc(arena, bytes, align);
}

struct str arena_str(struct arena *arena, struct str text)
{
    char *copy = arena_alloc(arena, text.len, 1);

    if (copy && text.len)
        memcpy(copy, text.ptr, text.len);
    return (struct str){copy, copy ? text.len : 0};
}

void arena_reset(struct arena *arena, usize mark)
{
    CHECK(mark <= arena->used);
    arena->used = mark;
}

/* ---- pools: a free place holds the address of the next free one ---- */

err pool_init(struct pool *pool, const char *name, struct arena *arena, usize place_bytes,
              u32 count)
{
    usize stride = round_up(max_u64(place_bytes, sizeof(void *)), 16);
    u8 *places = arena_alloc_array(arena, count, stride, 64);

    if (!places)
        return E_NOMEM;
    *pool = (struct pool){.name = name, .count = count, .place_bytes = stride};
    for (u32 i = count; i-- > 0;) {
        void *place = places + i * stride;
        memcpy(place, &pool->free, sizeof(void *));
        pool->free = place;
    }
    return OK;
}

void *pool_take(struct pool *pool)
{
    void *place = pool->free;

    if (!place)
        return NULL;
    CHECK(pool->used < pool->count);
    memcpy(&pool->free, place, sizeof(void *));
    pool->used++;
    pool->peak = max_u32(pool->used, pool->peak);
    return memset(place, 0, pool->place_bytes);
}

void pool_give(struct pool *pool, void *place)
{
    CHECK(pool->used > 0);
    memcpy(place, &pool->free, sizeof(void *));
    pool->free = place;
    pool->used--;
}
