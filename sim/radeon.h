/*
 * radeon.h: the subcommands of build/host/radeon, and what they share. Host only, with libc.
 * Each command takes argv[0] as its own name and returns the exit code; errors are one line on
 * stderr.
 */
#ifndef NOHOST_SIM_RADEON_H
#define NOHOST_SIM_RADEON_H

#include "kernel/base.h"

/* ---- radeon.c ---- */

/* The whole file from malloc, "-" is stdin; exits with a message when it cannot be read. */
u8 *radeon_file(const char *path, usize *bytes);
/* One line on stderr, then exit(2). */
__attribute__((noreturn, format(printf, 1, 2))) void radeon_fail(const char *format, ...);

/* From here on the log's lines appear on stderr. */
void radeon_show_log(void);

/* ---- run_options.c ---- */

int run_main(int argc, char **argv);

/* ---- list.c ---- */

int list_main(int argc, char **argv);

#endif
