/*
 * llvm_mc.h: a file of instructions that llvm-mc judges by way of a script in tests/witness.
 */
#ifndef NOHOST_TESTS_LLVM_MC_H
#define NOHOST_TESTS_LLVM_MC_H

#include <stdio.h>

#include "kernel/base.h"

struct witness {
    char path[200];
    FILE *file; /* bytes or words in hex, a tab, the listing's text; a line each */
};

void witness_open(struct witness *witness);
/* Whether llvm-mc agrees with what was written; script: its name and options before the file's.
 * Skips the test where there is no llvm-mc. */
bool witness_agrees(struct witness *witness, const char *script);

#endif
