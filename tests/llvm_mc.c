/*
 * llvm_mc.c: see llvm_mc.h. What the script said stays beside the file when it refused.
 */
#include <stdlib.h>
#include <unistd.h>

#include "tests/llvm_mc.h"
#include "tests/test.h"

void witness_open(struct witness *witness)
{
    const char *folder = getenv("TMPDIR");

    snprintf(witness->path, sizeof(witness->path), "%s/nohost_witness_%d", folder ? folder : "/tmp",
             getpid());
    witness->file = fopen(witness->path, "w");
    EXPECT(witness->file != NULL);
}

bool witness_agrees(struct witness *witness, const char *script)
{
    char command[600];

    fclose(witness->file);
    snprintf(command, sizeof(command), "python3 tests/witness/%s %s >%s.log 2>&1", script,
             witness->path, witness->path);
    int status = system(command) >> 8;
    unlink(witness->path);
    snprintf(command, sizeof(command), "%s.log", witness->path);
    if (status != 1)
        unlink(command);
    if (status == 77)
        test_skip("no llvm-mc");
    return status == 0;
}
