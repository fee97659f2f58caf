/*
 * cmd_disasm.c: `nohost disasm`: what the compiler made of a model, pass by pass.
 */
#include <stdlib.h>

#include "tests/host/session.h"
#include "tests/oracle/listing.h"

#define LISTING_BYTES (64 * MIB)

int cmd_disasm(int argc, char **argv);

static const char usage[] =
    "nohost disasm --model FILE [--passes A] [--threads N] [--f32]\n"
    "  prints the program of one step of the model. --passes is a word of the letters G graph,\n"
    "  R rewritten graph, S schedule, L low-level IR, A assembly (in Intel's syntax, as llvm-mc\n"
    "  takes it); kernels that differ only in the memory they use are printed once.\n";

int cmd_disasm(int argc, char **argv)
{
    static const char *const known[] = {"--model=", "--passes=", "--threads=",
                                        "--f32",    "--help",    NULL};
    static struct session session;

    tool_check(argc, argv, known, usage);
    const char *passes = tool_option(argc, argv, "--passes");
    struct ml_config config = {.threads = (u32)tool_number(argc, argv, "--threads", 0),
                               .f32_activations = tool_flag(argc, argv, "--f32")};
    session_open(&session, tool_required(argc, argv, "--model"), &config, 0);
    struct text listing = {malloc(LISTING_BYTES), 0, LISTING_BYTES, false};
    struct compile_options dump = {
        .look = dump_look, .dump = &listing, .dump_passes = passes ? passes : "SA"};
    err e = listing.ptr ? model_dump(session.model, &dump) : E_NOMEM;
    if (e != OK)
        tool_fail("disasm: %s", err_text(e));
    tool_print(text_str(&listing));
    free(listing.ptr);
    session_close(&session);
    return listing.truncated;
}
