/*
 * radeon.c: what the subcommands of build/host/radeon share (radeon.h). Host only, with libc.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/radeon.h"

void radeon_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "radeon: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(2);
}

u8 *radeon_file(const char *path, usize *bytes)
{
    FILE *file = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    usize cap = 1 << 16, got = 1;
    u8 *data = malloc(cap);

    if (!file)
        radeon_fail("cannot open %s", path);
    for (*bytes = 0; data && got; *bytes += got) {
        if (*bytes == cap)
            data = realloc(data, cap *= 2);
        got = data ? fread(data + *bytes, 1, cap - *bytes, file) : 0;
    }
    if (!data || ferror(file))
        radeon_fail("cannot read %s", path);
    if (file != stdin)
        fclose(file);
    return data;
}

static void put_line(struct str line)
{
    fwrite(line.ptr, 1, line.len, stderr);
}

void radeon_show_log(void)
{
    log_sink_add(put_line);
}
