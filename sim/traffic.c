/*
 * traffic.c: which lines of memory the loads of one dispatch touch, each counted once: what has to
 * come from VRAM at least when nothing is left in a cache. Strict mode only. Knows no wave.
 */
#include "sim/traffic.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_PLACES 1024u

static u64 *place_of(const struct traffic *traffic, u64 key)
{
    u64 at = key * 0x9e3779b97f4a7c15ull >> 20;

    while (traffic->place[at & traffic->mask] && traffic->place[at & traffic->mask] != key)
        at++;
    return &traffic->place[at & traffic->mask];
}

static bool grow(struct traffic *traffic)
{
    struct traffic old = *traffic;
    u64 places = old.place ? (old.mask + 1) * 4 : FIRST_PLACES;

    traffic->place = calloc(places, sizeof *traffic->place);
    if (!traffic->place) {
        *traffic = old;
        return false;
    }
    traffic->mask = places - 1;
    for (u64 n = 0; old.place && n <= old.mask; n++)
        if (old.place[n])
            *place_of(traffic, old.place[n]) = old.place[n];
    free(old.place);
    return true;
}

void traffic_touch(struct traffic *traffic, u64 line)
{
    u64 key = line + 1, *place; /* 0 is an empty place */

    if (traffic->last == key)
        return;
    traffic->last = key;
    if (traffic->count * 2 >= (traffic->place ? traffic->mask : 0) && !grow(traffic))
        return;
    place = place_of(traffic, key);
    traffic->count += !*place;
    *place = key;
}

void traffic_clear(struct traffic *traffic)
{
    free(traffic->place);
    *traffic = (struct traffic){};
}
