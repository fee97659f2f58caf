/*
 * run.h: what `radeon run` was told. run_options.c reads the command line, run.c does it.
 */
#ifndef NOHOST_SIM_RUN_H
#define NOHOST_SIM_RUN_H

#include "kernel/base.h"

#define RUN_ARGS_MAX       64u
#define RUN_ARG_BYTES_MAX  256u
#define RUN_GROUP_MAX      1024u
#define RUN_LIMIT_STANDARD (1ull << 36) /* instructions of waves */

struct run_options {
    const char *path, *kernel;
    u32 grid[3], block[3]; /* in work-items */
    u32 dims;
    u32 lds_bytes;     /* dynamic, besides lds: arguments */
    u32 scratch_bytes; /* of a work-item, at least; for stacks whose size nobody knows */
    bool fast, lenient;
    u64 seed, limit;
    struct run_arg {
        enum { RUN_IN, RUN_INOUT, RUN_OUT, RUN_VALUE, RUN_BYTES, RUN_LDS } kind;
        const char *path;
        u64 bytes; /* of a buffer, a value, a part of LDS */
        u64 value;
        u8 data[RUN_ARG_BYTES_MAX];
        const u8 *host; /* the buffer, once it is there */
    } arg[RUN_ARGS_MAX];
    u32 arg_count;
};

/* ---- run.c ---- */

/* Runs and prints; the exit code. */
int run_kernel(const struct run_options *options);

#endif
