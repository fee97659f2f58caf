/*
 * platform.h: what tests and host tools may ask of the Linux platform beyond kernel/base.h: a fake
 * clock, repeatable "random" bytes, a narrower CPU, and a say in what a panic does.
 */
#ifndef NOHOST_PLATFORM_H
#define NOHOST_PLATFORM_H

#include "kernel/base.h"

/* Everything below back to the machine's own: the runner calls it before each test. */
void platform_reset(void);

/* time_ns() stands at `now_ns` until it is set again. */
void platform_clock_fake(u64 now_ns);
/* The real clock is ahead by so much more from now on. */
void platform_clock_skip(u64 ns);
/* random_bytes() repeats itself from this seed. */
void platform_random_seed(u64 seed);

/* "avx2", "avx512", "avx512_vnni", "avx_vnni", "amx_int8": nothing above it is reported. The
 * environment variable NOHOST_CPU does the same from outside. E_NOTFOUND for another name. */
err platform_cpu_limit(struct str name);

/* Called before the process aborts; may leave by longjmp. NULL: print and abort. */
void platform_panic_hook(void (*hook)(const char *file, int line, const char *what));
/* From now on the log appears on stderr; without this call only the ring has it. */
void platform_log_stderr(void);

#endif
