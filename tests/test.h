/*
 * test.h: one assertion style, tests register themselves in a linker section; the runner is test.c.
 * A test's first line says what it guards. Random tests draw from test_random, whose seed the
 * runner prints.
 */
#ifndef NOHOST_TEST_H
#define NOHOST_TEST_H

#include "kernel/base.h"

struct test {
    const char *name; /* "room_what" */
    const char *file;
    void (*run)(void);
    const char *pad; /* 32 bytes: the section's stride on every compiler */
};
_Static_assert(sizeof(struct test) == 32, "section stride");

#define TEST(id)                                                                               \
    static void id(void);                                                                      \
    __attribute__((used, section("nohost_tests"), aligned(32)))                                \
    static const struct test test_##id = {#id, __FILE__, id, 0};                               \
    static void id(void)

/* A failed EXPECT ends the test (the runner jumps out) and prints file, line and both values. */
__attribute__((noreturn, format(printf, 3, 4)))
void test_fail(const char *file, int line, const char *format, ...);
#define EXPECT(cond) ((cond) ? (void)0 : test_fail(__FILE__, __LINE__, "expected %s", #cond))
#define EXPECT_EQ(a, b)                                                                        \
    do {                                                                                       \
        i64 a_ = (i64)(a), b_ = (i64)(b);                                                      \
        if (a_ != b_)                                                                          \
            test_fail(__FILE__, __LINE__, "%s is %lld, expected %lld", #a, (long long)a_,      \
                      (long long)b_);                                                          \
    } while (0)
#define EXPECT_STR(a, b)                                                                       \
    do {                                                                                       \
        struct str a_ = (a), b_ = (b);                                                         \
        if (!str_eq(a_, b_))                                                                   \
            test_fail(__FILE__, __LINE__, "%s is \"%.*s\", expected \"%.*s\"", #a, (int)a_.len, \
                      a_.ptr, (int)b_.len, b_.ptr);                                            \
    } while (0)
#define EXPECT_OK(e)                                                                           \
    do {                                                                                       \
        err e_ = (e);                                                                          \
        if (e_ != OK)                                                                          \
            test_fail(__FILE__, __LINE__, "%s: %s", #e, err_text(e_));                         \
    } while (0)

/* Seeded per test: the same seed gives the same test. */
u64 test_random(void);
u32 test_random_below(u32 limit);
f32 test_random_f32(f32 low, f32 high);
/* A file given to the runner with --data NAME=PATH (the model, a witness's output); NULL when
 * absent: then test_skip. */
const char *test_data(const char *name);
__attribute__((noreturn)) void test_skip(const char *why);

#endif
