/* traffic.h: a set of lines of memory. */
#ifndef NOHOST_SIM_TRAFFIC_H
#define NOHOST_SIM_TRAFFIC_H

#include "kernel/base.h"

struct traffic {
    u64 *place, mask, count, last; /* a hash table: line + 1, 0 where nothing is */
};
/* A line that there is no memory for is forgotten. */
void traffic_touch(struct traffic *traffic, u64 line);
void traffic_clear(struct traffic *traffic);

#endif
