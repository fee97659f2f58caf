/*
 * names.h: finds an entry of a caller's table by its name, which is any bytes. Open addressing with
 * a bounded number of probes, so that no file can make it slow. Knows nothing of what the entries
 * are.
 */
#ifndef NOHOST_NAMES_H
#define NOHOST_NAMES_H

#include "kernel/base.h"

#define NAMES_NONE 0xffffffffu

struct names {
    u32 *slot; /* entry + 1; 0: free */
    u32 mask;
    const void *table;
    struct str (*name)(const void *table, u32 entry);
};

/* `table` and `name` are set by the caller. E_NOMEM. */
err names_init(struct names *names, struct arena *arena, u32 count);
/* E_STATE: the name is there already; E_LIMIT: too many probes. */
err names_put(struct names *names, u32 entry);
u32 names_find(const struct names *names, struct str name); /* NAMES_NONE */

#endif
