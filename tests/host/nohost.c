/*
 * nohost.c: build/host/nohost SUBCOMMAND: the portable rooms as a Linux program, an instrument for
 * tests and measurements, not a product. Each subcommand is `int cmd_NAME(int argc, char **argv)`
 * in a file of this folder; argv[0] is its name.
 */
#include <stdio.h>
#include <string.h>

#include "tests/host/tool.h"

/* Weak: a subcommand that is not linked is not offered. */
#define COMMAND(name) int cmd_##name(int argc, char **argv) __attribute__((weak));
COMMAND(tokenize)
COMMAND(chat_template)
COMMAND(logits)
COMMAND(perplexity)
COMMAND(bench)
COMMAND(eval)
COMMAND(disasm)
COMMAND(serve)

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    {"tokenize", cmd_tokenize, "text -> tokens as JSON"},
    {"chat-template", cmd_chat_template, "messages -> typed prompt text as JSON"},
    {"logits", cmd_logits, "tokens -> float32 logits of every position"},
    {"perplexity", cmd_perplexity, "how well a model predicts a text, in chunks"},
    {"bench", cmd_bench, "tokens per second of prompt and generation"},
    {"eval", cmd_eval, "any graph in the text form, on the interpreter or as compiled code"},
    {"disasm", cmd_disasm, "what the compiler made of a model"},
    {"serve", cmd_serve, "the HTTP API on a host socket"},
};

int main(int argc, char **argv)
{
    const char *wanted = argc > 1 ? argv[1] : "--help";

    for (u32 i = 0; i < ARRAY_LEN(commands); i++)
        if (commands[i].run && !strcmp(wanted, commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    if (strcmp(wanted, "--help"))
        fprintf(stderr, "nohost: no subcommand '%s'\n", wanted);
    printf("usage: nohost SUBCOMMAND [options], nohost SUBCOMMAND --help\n");
    for (u32 i = 0; i < ARRAY_LEN(commands); i++)
        if (commands[i].run)
            printf("  %-14s %s\n", commands[i].name, commands[i].what);
    return strcmp(wanted, "--help") != 0;
}
