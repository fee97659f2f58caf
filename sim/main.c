/*
 * main.c: `radeon SUBCOMMAND`: the simulated card as a program.
 */
#include <stdio.h>
#include <string.h>

#include "sim/serve.h"

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "serve"))
        return serve_main(argc - 1, argv + 1);
    fputs("usage: radeon serve [options], radeon serve --help\n", stderr);
    return 2;
}
