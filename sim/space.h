/*
 * space.h: the memory of `radeon run`: a few regions far apart in a GPU's virtual addresses, with
 * nothing between them; an access may not leave its region by a byte. Remembers which bytes were
 * ever written, and where an access went astray. No caches: what is stored is seen at once.
 */
#ifndef NOHOST_SIM_SPACE_H
#define NOHOST_SIM_SPACE_H

#include "sim/compute.h"

#define SPACE_REGIONS_MAX 80u

struct space {
    struct space_region {
        char name[32];
        u64 va, bytes;
        u8 *host;
        u64 *known; /* a bit for each byte; NULL: all were written */
        bool write;
    } region[SPACE_REGIONS_MAX];
    u32 count;
    u64 seed;
    bool direct;  /* gives host memory away: fast mode, nothing is watched */
    u64 fault_va; /* of the last access that was refused; 0: none */
    u32 fault_bytes;
    bool fault_write;
};

/* Adds a zeroed region; exits when there is no memory for it. `known`: its bytes count as
 * written. */
struct space_region *space_add(struct space *space, const char *name, u64 bytes, bool write,
                               bool known);
struct compute_memory space_memory(struct space *space);
/* Where the refused access lies, in words; empty without one. */
void space_explain(const struct space *space, char *text, usize text_bytes);

#endif
