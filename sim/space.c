/*
 * space.c: regions of virtual memory, their bounds and known bytes.
 * Must not know what lies in a region.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/radeon.h"
#include "sim/space.h"

#define FIRST_VA   (1ull << 44)
#define REGION_GAP (1ull << 40)
#define PAGE       4096u

struct space_region *space_add(struct space *space, const char *name, u64 bytes, bool write,
                               bool known)
{
    struct space_region *region = &space->region[space->count];
    u64 spread = (space->seed + space->count) * 0x9e3779b97f4a7c15ull >> 48;

    if (space->count == SPACE_REGIONS_MAX || bytes > REGION_GAP / 4)
        radeon_fail("no room for %s of %llu bytes", name, (unsigned long long)bytes);
    *region = (struct space_region){.va = FIRST_VA + space->count * REGION_GAP + spread * PAGE,
                                    .bytes = bytes,
                                    .host = calloc(1, bytes + 1),
                                    .known = known ? NULL : calloc(bytes / 64 + 2, 8),
                                    .write = write};
    if (!region->host || (!known && !region->known))
        radeon_fail("no memory for %s of %llu bytes", name, (unsigned long long)bytes);
    snprintf(region->name, sizeof(region->name), "%s", name);
    space->count++;
    return region;
}

static struct space_region *region_near(const struct space *space, u64 va)
{
    u64 n = (va - FIRST_VA) / REGION_GAP;

    if (va < FIRST_VA || n >= space->count)
        return NULL;
    return (struct space_region *)&space->region[n];
}

/* The region that holds all of these bytes, or NULL, and the fault is noted. */
static struct space_region *region_of(struct space *space, u64 va, u32 bytes, bool write)
{
    struct space_region *region = region_near(space, va);

    if (region && va >= region->va && va - region->va <= region->bytes &&
        bytes <= region->bytes - (va - region->va) && (region->write || !write))
        return region;
    space->fault_va = va;
    space->fault_bytes = bytes;
    space->fault_write = write;
    return NULL;
}

void space_explain(const struct space *space, char *text, usize text_bytes)
{
    const struct space_region *region = region_near(space, space->fault_va);
    const char *what = space->fault_write ? "store" : "load";
    u64 va = space->fault_va;

    text[0] = 0;
    if (!va)
        return;
    if (!region)
        snprintf(text, text_bytes, "%s of %u bytes at %#llx, where nothing is", what,
                 space->fault_bytes, (unsigned long long)va);
    else if (va < region->va)
        snprintf(text, text_bytes, "%s of %u bytes at %#llx, %llu before %s", what,
                 space->fault_bytes, (unsigned long long)va, (unsigned long long)(region->va - va),
                 region->name);
    else
        snprintf(text, text_bytes, "%s of %u bytes at byte %llu of %s, which has %llu%s", what,
                 space->fault_bytes, (unsigned long long)(va - region->va), region->name,
                 (unsigned long long)region->bytes, region->write ? "" : " and is read-only");
}

/* ---- bits of known bytes ---- */

/* Of the 32 bytes from `at` on. */
static u32 known_word(const struct space_region *region, u64 at)
{
    const u64 *words = region->known ? region->known + at / 64 : NULL;

    if (!words)
        return ~0u;
    return (u32)(words[0] >> at % 64 | (at % 64 ? words[1] << (64 - at % 64) : 0));
}

static void set_known(struct space_region *region, u64 at, u32 bytes)
{
    for (u64 i = at; region->known && i < at + bytes; i++)
        region->known[i / 64] |= 1ull << (i % 64);
}

/* ---- what the engine calls ---- */

static u8 *space_page(void *ctx, u64 va, bool write, u64 *bytes)
{
    struct space *space = ctx;
    struct space_region *region;

    if (!space->direct)
        return NULL;
    region = region_of(space, va, 1, write);
    if (!region)
        return NULL;
    *bytes = region->bytes - (va - region->va);
    return region->host + (va - region->va);
}

static bool space_load(void *ctx, const struct compute_access *access, void *out, u32 *known)
{
    struct space_region *region = region_of(ctx, access->va, access->bytes, false);
    u64 at;

    if (!region)
        return false;
    at = access->va - region->va;
    memcpy(out, region->host + at, access->bytes);
    for (u32 i = 0; known && i < access->bytes; i += 32)
        known[i / 32] = known_word(region, at + i);
    return true;
}

static bool space_store(void *ctx, const struct compute_access *access, const void *in)
{
    struct space_region *region = region_of(ctx, access->va, access->bytes, true);

    if (!region)
        return false;
    memcpy(region->host + (access->va - region->va), in, access->bytes);
    set_known(region, access->va - region->va, access->bytes);
    return true;
}

/* Several threads may be here at once. */
static bool space_atomic(void *ctx, const struct compute_access *access,
                         u64 (*fn)(void *arg, u64 old), void *arg, u64 *old)
{
    struct space_region *region = region_of(ctx, access->va, access->bytes, true);
    void *at;
    u32 old32;

    if (!region || access->va % access->bytes)
        return false;
    at = region->host + (access->va - region->va);
    if (access->bytes == 8) {
        *old = __atomic_load_n((u64 *)at, __ATOMIC_SEQ_CST);
        while (!__atomic_compare_exchange_n((u64 *)at, old, fn(arg, *old), false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST))
            ;
    } else {
        old32 = __atomic_load_n((u32 *)at, __ATOMIC_SEQ_CST);
        while (!__atomic_compare_exchange_n((u32 *)at, &old32, (u32)fn(arg, old32), false,
                                            __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            ;
        *old = old32;
    }
    /* What an exchange leaves is known; what is computed from unknown bytes is not. */
    if (region->known && fn(arg, 0) == fn(arg, ~0ull))
        set_known(region, access->va - region->va, access->bytes);
    return true;
}

static void space_invalidate(void *ctx, u32 wgp, u32 what)
{
    (void)ctx; /* there are no caches */
    (void)wgp;
    (void)what;
}

struct compute_memory space_memory(struct space *space)
{
    return (struct compute_memory){.ctx = space,
                                   .page = space_page,
                                   .load = space_load,
                                   .store = space_store,
                                   .atomic = space_atomic,
                                   .invalidate = space_invalidate};
}
