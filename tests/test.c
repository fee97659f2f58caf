/*
 * test.c: the runner of tests/test.h on the host. Every TEST of the program is in one linker
 * section; each runs with a fresh platform and its own seed, a failure jumps out of it. The last
 * line is "N passed, N failed, N skipped".
 *
 *     build/test/runner [--filter SUBSTR] [--seed N] [--data NAME=PATH]... [--list] [--verbose]
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/host/platform.h"
#include "tests/test.h"

#define DATA_MAX      32u
#define SLOWEST_SHOWN 5u
#define SLOW_MS       200u

extern const struct test __start_nohost_tests[], __stop_nohost_tests[];

enum verdict { PASSED, FAILED, SKIPPED };

static struct {
    jmp_buf out;
    u64 seed, random;
    const struct test *running;
    const char *data[DATA_MAX];
    u32 data_count;
    u32 count[3];
    struct slow {
        const char *name;
        u64 ms;
    } slow[SLOWEST_SHOWN];
} run;

static const char *option_filter = "";
static bool option_list, option_verbose;

static void read_options(int argc, char **argv);
static enum verdict run_one(const struct test *test);
static void note_time(const char *name, u64 ms);

static void panic_in_test(const char *file, int line, const char *what)
{
    test_fail(file, line, "panic: %s", what);
}

int main(int argc, char **argv)
{
    run.seed = time_ns();
    read_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    platform_panic_hook(panic_in_test);
    if (option_verbose)
        platform_log_stderr();
    if (!option_list)
        printf("seed %llu\n", (unsigned long long)run.seed);
    for (const struct test *test = __start_nohost_tests; test < __stop_nohost_tests; test++) {
        if (!strstr(test->name, option_filter) && !strstr(test->file, option_filter))
            continue;
        if (option_list) {
            printf("%s %s\n", test->name, test->file);
            continue;
        }
        u64 start = time_ns();
        run.count[run_one(test)]++;
        platform_reset();
        note_time(test->name, (time_ns() - start) / NS_PER_MS);
    }
    for (u32 i = 0; i < SLOWEST_SHOWN && run.slow[i].ms >= SLOW_MS; i++)
        printf("slow: %s %llu ms\n", run.slow[i].name, (unsigned long long)run.slow[i].ms);
    if (!option_list)
        printf("%u passed, %u failed, %u skipped\n", run.count[PASSED], run.count[FAILED],
               run.count[SKIPPED]);
    return run.count[FAILED] != 0;
}

static void read_options(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(argv[i], "--list")) {
            option_list = true;
        } else if (!strcmp(argv[i], "--verbose")) {
            option_verbose = true;
        } else if (!strcmp(argv[i], "--filter") && value) {
            option_filter = argv[++i];
        } else if (!strcmp(argv[i], "--seed") && value) {
            run.seed = strtoull(argv[++i], NULL, 0);
        } else if (!strcmp(argv[i], "--data") && value && strchr(value, '=') &&
                   run.data_count < DATA_MAX) {
            run.data[run.data_count++] = argv[++i];
        } else {
            fprintf(stderr,
                    "usage: %s [--filter SUBSTR] [--seed N] [--data NAME=PATH]... [--list] "
                    "[--verbose]\n",
                    argv[0]);
            exit(2);
        }
    }
}

static enum verdict run_one(const struct test *test)
{
    platform_reset();
    run.running = test;
    run.random = run.seed;
    for (const char *c = test->name; *c; c++) /* each test its own sequence, whichever others run */
        run.random = (run.random ^ (u8)*c) * 0x100000001b3ull;
    int verdict = setjmp(run.out);
    if (!verdict)
        test->run();
    return verdict ? (enum verdict)verdict : PASSED;
}

static void note_time(const char *name, u64 ms)
{
    for (u32 i = 0; i < SLOWEST_SHOWN; i++) {
        if (ms > run.slow[i].ms) {
            memmove(run.slow + i + 1, run.slow + i, (SLOWEST_SHOWN - 1 - i) * sizeof run.slow[0]);
            run.slow[i] = (struct slow){name, ms};
            return;
        }
    }
}

/* ---- what tests call ---- */

void test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    printf("FAILED %s at %s:%d: ", run.running->name, file, line);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf(" (--seed %llu --filter %s)\n", (unsigned long long)run.seed, run.running->name);
    longjmp(run.out, FAILED);
}

void test_skip(const char *why)
{
    printf("skipped %s: %s\n", run.running->name, why);
    longjmp(run.out, SKIPPED);
}

u64 test_random(void) /* splitmix64 */
{
    u64 z = run.random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

u32 test_random_below(u32 limit)
{
    return (u32)(test_random() % limit);
}

f32 test_random_f32(f32 low, f32 high)
{
    return low + (high - low) * ((f32)(test_random() >> 40) / (f32)(1 << 24));
}

const char *test_data(const char *name)
{
    usize len = strlen(name);

    for (u32 i = 0; i < run.data_count; i++) {
        if (!strncmp(run.data[i], name, len) && run.data[i][len] == '=')
            return run.data[i] + len + 1;
    }
    return NULL;
}
