/*
 * cmd_logits.c: `nohost logits`: the logits of every position of a list of tokens.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/host/card.h"
#include "tests/host/session.h"

#define OUTPUTS_MAX 32u
#define TOKENS_MAX 65536u

int cmd_logits(int argc, char **argv);

static const char usage[] =
    "nohost logits --model FILE --tokens 1,2,3 --out FILE [--f32] [--threads N] [--rows N]\n"
    "              [--device cpu|sim [--fast]]\n"
    "  writes raw little-endian float32 [tokens, vocabulary]; --tokens @FILE reads them from a\n"
    "  file. --f32 multiplies in plain float32 instead of with 8-bit activations.\n"
    "  --rows 1 computes token after token, as an answer is; else a step has as many as fit.\n"
    CARD_USAGE;

struct sink {
    FILE *file;
    u32 vocab;
    bool failed;
};

static void write_row(void *ctx, u32 position, const f32 *logits)
{
    struct sink *sink = ctx;

    (void)position;
    sink->failed |= fwrite(logits, sizeof *logits, sink->vocab, sink->file) != sink->vocab;
}

static u32 read_tokens(struct str list, u32 *token)
{
    u32 count = 0;

    while (str_trim(list).len) {
        u64 number;
        struct str word = str_trim(str_cut(list, ',', &list));
        if (count == TOKENS_MAX || str_to_u64(word, &number) != OK || number > UINT32_MAX)
            tool_fail("logits: --tokens wants numbers with commas between them");
        token[count++] = (u32)number;
    }
    return count;
}

int cmd_logits(int argc, char **argv)
{
    static const char *const known[] = {"--model=", "--tokens=", "--out=", "--threads=",
                                        "--f32", CARD_OPTIONS, "--rows=", "--help", NULL};
    static u32 token[TOKENS_MAX];
    static struct session session;

    tool_check(argc, argv, known, usage);
    const char *list = tool_required(argc, argv, "--tokens");
    const char *out = tool_required(argc, argv, "--out");
    usize len;
    char *text = list[0] == '@' ? tool_file(list + 1, &len) : NULL;
    u32 count = read_tokens(str_of(text ? text : list), token);
    free(text);
    struct ml_config config = {.threads = (u32)tool_number(argc, argv, "--threads", 0),
                               .f32_activations = tool_flag(argc, argv, "--f32"),
                               .ctx_max = max_u32(count, 1)};
    card_use(argc, argv, &config);
    session_open(&session, tool_required(argc, argv, "--model"), &config, OUTPUTS_MAX);
    session.rows_max = min_u32(session.rows_max, (u32)tool_number(argc, argv, "--rows", UINT_MAX));
    for (u32 i = 0; i < count; i++)
        if (token[i] >= session.vocab)
            tool_fail("logits: there is no token %u, the vocabulary has %u", token[i],
                      session.vocab);
    struct sink sink = {.file = fopen(out, "wb"), .vocab = session.vocab};
    if (!sink.file)
        tool_fail("logits: cannot write %s", out);
    session_run(&session, &(struct stretch){token, count, 0, 0}, write_row, &sink);
    if (fclose(sink.file) || sink.failed)
        tool_fail("logits: cannot write %s", out);
    printf("{\"tokens\":%u,\"vocab\":%u,\"file\":\"%s\"", count, session.vocab, out);
    card_print();
    printf("}\n");
    return 0;
}
