/*
 * main.c: build/host/radeon, the simulated Radeon for people who write kernels and drivers. Knows
 * the names of its subcommands; each is in a file of its own.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/radeon.h"
#include "sim/serve.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    {"run", run_main, "a kernel out of a code object, with buffers from files"},
    {"disasm", list_main, "machine code as text: a code object, raw code, or words in hexadecimal"},
    {"serve", serve_main, "cards for QEMU (vfio-user) or tinygrad (TCP)"},
};

static const char examples[] = "examples:\n"
                               "  radeon disasm add.hsaco\n"
                               "  echo 02000a7e | radeon disasm --hex\n";

int main(int argc, char **argv)
{
    const char *wanted = argc > 1 ? argv[1] : "--help";

    for (u32 i = 0; i < ARRAY_LEN(commands); i++)
        if (!strcmp(wanted, commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    if (strcmp(wanted, "--help"))
        fprintf(stderr, "radeon: no subcommand '%s'\n", wanted);
    printf("usage: radeon SUBCOMMAND [options], radeon SUBCOMMAND --help\n");
    for (u32 i = 0; i < ARRAY_LEN(commands); i++)
        printf("  %-8s %s\n", commands[i].name, commands[i].what);
    printf("%s", examples);
    return strcmp(wanted, "--help") ? 2 : 0;
}

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
