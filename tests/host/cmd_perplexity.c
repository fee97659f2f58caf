/*
 * cmd_perplexity.c: `nohost perplexity`: how well a model predicts a text, as llama.cpp's tool
 * defines it: the text is cut into consecutive chunks of ctx tokens, each is a sequence of its own,
 * and of each the tokens of its second half are scored. If the model wants a BOS token, it stands
 * in place of each chunk's first.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/host/card.h"
#include "tests/host/session.h"

#define OUTPUTS_MAX 64u

int cmd_perplexity(int argc, char **argv);

static const char usage[] =
    "nohost perplexity --model FILE --file TEXT [--ctx 512] [--chunks N] [--f32] [--threads N]\n"
    "                  [--device cpu|sim [--fast]]\n"
    "  prints {\"ppl\":...,\"chunks\":[...]}: the perplexity so far after each chunk. --f32\n"
    "  multiplies in plain float32 instead of with 8-bit activations.\n" CARD_USAGE;

struct score {
    const u32 *token; /* of the chunk */
    u32 vocab, ctx;
    f64 nll;
    u64 count;
};

/* -log softmax(logits)[next] */
static void score_row(void *ctx, u32 position, const f32 *logits)
{
    struct score *score = ctx;
    f32 peak = logits[0];
    f64 sum = 0;

    if (position + 1 >= score->ctx)
        return; /* nothing follows the chunk's last token */
    for (u32 i = 1; i < score->vocab; i++)
        peak = logits[i] > peak ? logits[i] : peak;
    for (u32 i = 0; i < score->vocab; i++)
        sum += exp((f64)logits[i] - (f64)peak);
    score->nll += log(sum) - ((f64)logits[score->token[position + 1]] - (f64)peak);
    score->count++;
}

int cmd_perplexity(int argc, char **argv)
{
    static const char *const known[] = {"--model=", "--file=", "--ctx=", "--chunks=", "--threads=",
                                        "--f32", CARD_OPTIONS, "--help", NULL};
    static struct session session;

    tool_check(argc, argv, known, usage);
    u32 ctx = (u32)tool_number(argc, argv, "--ctx", 512), count;
    u64 chunks = tool_number(argc, argv, "--chunks", UINT32_MAX);
    usize len;
    char *text = tool_file(tool_required(argc, argv, "--file"), &len);
    struct ml_config config = {.threads = (u32)tool_number(argc, argv, "--threads", 0),
                               .f32_activations = tool_flag(argc, argv, "--f32"),
                               .ctx_max = ctx};
    card_use(argc, argv, &config);
    session_open(&session, tool_required(argc, argv, "--model"), &config, OUTPUTS_MAX);
    u32 *token = session_tokens(&session, (struct str){text, len}, &count);
    if (ctx < 4 || ctx > session.ctx_max || count < ctx)
        tool_fail("perplexity: the text has %u tokens, a chunk %u, the model's context %u", count,
                  ctx, session.ctx_max);
    struct score score = {.vocab = session.vocab, .ctx = ctx};
    printf("{\"tokens\":%u,\"chunks\":[", count);
    for (u32 i = 0; i < min_u64(chunks, count / ctx); i++) {
        score.token = token + (usize)i * ctx;
        const struct tokenizer_facts *facts = tokenizer_facts(session.tok);
        if (facts->adds_bos && facts->bos != TOKEN_NONE)
            token[(usize)i * ctx] = facts->bos;
        session_run(&session, &(struct stretch){score.token, ctx, 0, ctx / 2}, score_row,
                    &score);
        printf("%s%.6f", i ? "," : "", exp(score.nll / (f64)score.count));
        fflush(stdout);
    }
    printf("],\"ppl\":%.6f", exp(score.nll / (f64)score.count));
    card_print();
    printf("}\n");
    free(token);
    free(text);
    return 0;
}
