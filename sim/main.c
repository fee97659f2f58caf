/*
 * main.c: build/host/radeon, the simulated Radeon for people who write kernels and drivers. Knows
 * the names of its subcommands; each is in a file of its own.
 */
#include <stdio.h>
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
