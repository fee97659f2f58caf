/*
 * tool.h: what the subcommands of build/host/nohost share: options, files, a model file as a store,
 * errors. A command's answer is JSON (or a listing) on stdout; what went wrong is one line on
 * stderr.
 */
#ifndef NOHOST_TOOL_H
#define NOHOST_TOOL_H

#include "ml/ml.h"

/* The value behind --name, or NULL. */
const char *tool_option(int argc, char **argv, const char *name);
/* Decimal; `standard` when it is absent, exits with a message when it is no number. */
u64 tool_number(int argc, char **argv, const char *name, u64 standard);
bool tool_flag(int argc, char **argv, const char *name);
/* As tool_option, but exits with a message when it is absent. */
const char *tool_required(int argc, char **argv, const char *name);
/* Exits when an argument is none of the listed options; "--name=" takes a value, "--name" does not.
 * Prints `help` and exits for --help. */
void tool_check(int argc, char **argv, const char *const *known, const char *help);

/* The whole file, zero-terminated, from malloc; exits when it cannot be read. "-" is stdin. */
char *tool_file(const char *path, usize *len);
/* Stores of a GGUF or of all parts of a split one (name-00001-of-0000N.gguf); returns how many.
 * Exits on failure. */
u32 tool_model(const char *path, struct store part[ML_PARTS_MAX]);
/* One line on stderr, then exit(1). */
__attribute__((noreturn, format(printf, 1, 2))) void tool_fail(const char *format, ...);
/* Memory for so many bytes; exits when there is none. */
struct arena tool_arena(usize bytes);
/* Writes all of it to stdout. */
void tool_print(struct str text);

#endif
