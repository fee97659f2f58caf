/*
 * cmd_bench.c: `nohost bench`: tokens per second, measured as llama-bench does: a prompt of random
 * tokens in one go with one row of logits, then token after token from an empty context. One run
 * warms up and is not counted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "tests/host/card.h"
#include "tests/host/session.h"

#define REPS_MAX 100u

int cmd_bench(int argc, char **argv);

static const char usage[] =
    "nohost bench --model FILE [--threads N] [--prompt 512] [--gen 128] [--reps 3] [--f32]\n"
    "             [--device cpu|sim [--fast]]\n"
    "  prints {\"pp_tok_s\":[...],\"tg_tok_s\":[...],\"rss_bytes\":...}, a value per repetition.\n"
    CARD_USAGE;

static void take_first(void *ctx, u32 position, const f32 *logits)
{
    (void)position;
    *(f32 *)ctx += logits[0]; /* the row is read, so it must have been computed */
}

static f64 run_prompt(struct session *session, const u32 *token, u32 count)
{
    f32 sum = 0;
    u64 start = time_ns();

    session_run(session, &(struct stretch){token, count, 0, count - 1}, take_first, &sum);
    return count * 1e9 / (f64)(time_ns() - start);
}

static f64 run_generation(struct session *session, const u32 *token, u32 count)
{
    f32 sum = 0;
    u64 start = time_ns();

    for (u32 i = 0; i < count; i++)
        session_run(session, &(struct stretch){token + i, 1, i, i}, take_first, &sum);
    return count * 1e9 / (f64)(time_ns() - start);
}

static void print_rates(const char *name, const f64 *rate, u32 count)
{
    printf("\"%s\":[", name);
    for (u32 i = 0; i < count; i++)
        printf("%s%.2f", i ? "," : "", rate[i]);
    printf("],");
}

int cmd_bench(int argc, char **argv)
{
    static const char *const known[] = {"--model=", "--threads=", "--prompt=", "--gen=", "--reps=",
                                        "--f32", CARD_OPTIONS, "--help", NULL};
    static struct session session;
    f64 prompt_rate[REPS_MAX], gen_rate[REPS_MAX];

    tool_check(argc, argv, known, usage);
    u32 prompt = (u32)tool_number(argc, argv, "--prompt", 512);
    u32 gen = (u32)tool_number(argc, argv, "--gen", 128), most = max_u32(max_u32(prompt, gen), 1);
    u32 reps = (u32)min_u64(tool_number(argc, argv, "--reps", 3), REPS_MAX), random = 1;
    struct ml_config config = {.threads = (u32)tool_number(argc, argv, "--threads", 0),
                               .f32_activations = tool_flag(argc, argv, "--f32"),
                               .ctx_max = most};
    card_use(argc, argv, &config);
    session_open(&session, tool_required(argc, argv, "--model"), &config, 1);
    u32 *token = malloc(most * sizeof *token);
    for (u32 i = 0; token && i < most; i++) {
        random = random * 1664525u + 1013904223u;
        token[i] = (random >> 8) % session.vocab;
    }
    for (u32 i = 0; token && i <= reps; i++) { /* run 0 warms up */
        u32 place = i ? i - 1 : 0;
        prompt_rate[place] = prompt ? run_prompt(&session, token, prompt) : 0;
        gen_rate[place] = gen ? run_generation(&session, token, gen) : 0;
    }
    struct rusage usage_now;
    getrusage(RUSAGE_SELF, &usage_now);
    printf("{");
    print_rates("pp_tok_s", prompt_rate, reps);
    print_rates("tg_tok_s", gen_rate, reps);
    printf("\"rss_bytes\":%llu", (unsigned long long)usage_now.ru_maxrss * 1024);
    card_print();
    printf("}\n");
    free(token);
    return 0;
}
