/*
 * selftest.c: what `selftest =` in nohost.conf asks for: `traps` provokes every fault that protects
 * us and says whether each was caught (the machine goes on afterwards), `crash` shows a crash
 * report, `hang` stops for ever, which only a watchdog ends.
 */
#include "kernel/kernel.h"

extern u8 boot_stack_guard[];

static void divide(void *ctx)
{
    __asm__ volatile("div %0" : : "r"((u64)(usize)ctx), "a"(1ull), "d"(0ull) : "cc");
}

static void bad_opcode(void *ctx)
{
    (void)ctx;
    __asm__ volatile("ud2");
}

static void store_to(void *ctx)
{
    __asm__ volatile("movb $0, (%0)" : : "r"(ctx) : "memory");
}

static void jump_to(void *ctx)
{
    __asm__ volatile("call *%0" : : "r"(ctx) : "memory");
}

static void bad_selector(void *ctx)
{
    (void)ctx;
    __asm__ volatile("mov %0, %%fs" : : "r"(0x1234));
}

/* As deep as it takes: each turn costs a page of stack. */
static void overflow(void *ctx)
{
    (void)ctx;
    __asm__ volatile("1:\n\tsub $4096, %rsp\n\tpush $0\n\tjmp 1b");
}

static void test_traps(void)
{
    static const u8 constant = 0xc3; /* a `ret`, in pages that may not run */
    u8 *data = pages_alloc(PAGE_BYTES);
    const struct {
        const char *what;
        void (*provoke)(void *ctx);
        void *ctx;
        u32 vector;
    } cases[] = {
        {"division by zero", divide, NULL, 0},
        {"invalid opcode", bad_opcode, NULL, 6},
        {"read-only data written", store_to, (void *)(usize)&constant, 14},
        {"code written", store_to, (void *)(usize)divide, 14},
        {"data executed", jump_to, data, 14},
        {"constant executed", jump_to, (void *)(usize)&constant, 14},
        {"address 0 written", store_to, NULL, 14},
        {"stack guard written", store_to, boot_stack_guard, 14},
        {"bad selector loaded", bad_selector, NULL, 13},
        {"stack overflow", overflow, NULL, 14},
    };
    u32 caught = 0;

    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        u32 vector = trap_try(cases[i].provoke, cases[i].ctx);
        bool good = vector == cases[i].vector;
        log_info("selftest", "%s: vector %u, %s", cases[i].what, vector, good ? "caught" : "WRONG");
        caught += good;
    }
    pages_free(data, PAGE_BYTES);
    log_info("selftest", "%u of %u traps caught", caught, (u32)ARRAY_LEN(cases));
}

static void test_crash(void)
{
    store_to(NULL);
}

static void test_hang(void)
{
    log_warn("selftest", "this machine hangs now");
    cpu_interrupts(false);
    for (;;)
        cpu_relax();
}

void selftest(struct str which)
{
    static const struct {
        struct str word;
        void (*run)(void);
    } tests[] = {{STR("traps"), test_traps}, {STR("crash"), test_crash}, {STR("hang"), test_hang}};

    for (u32 i = 0; i < ARRAY_LEN(tests); i++)
        if (str_eq_nocase(tests[i].word, which))
            tests[i].run();
}
