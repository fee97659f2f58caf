/*
 * selftest.c: what `selftest =` in nohost.conf asks for: `traps` provokes every fault that protects
 * us and says whether each was caught (the machine goes on afterwards), `crash` shows a crash
 * report, `hang` stops for ever, which only a watchdog ends.
 */
#include "kernel/kernel.h"

/* entry.S: each faults in its own way; `ctx` is the address that some of them touch. */
void provoke_divide(u64 ctx), provoke_opcode(u64 ctx), provoke_selector(u64 ctx);
void provoke_store(u64 ctx), provoke_jump(u64 ctx), provoke_overflow(u64 ctx);
extern u8 boot_stack_guard[];

static void test_traps(void)
{
    static const u8 constant = 0xc3; /* a `ret`, in pages that may not run */
    u8 *data = pages_alloc(PAGE_BYTES);
    const struct {
        const char *what;
        void (*provoke)(u64 ctx);
        const void *ctx;
        u32 vector;
    } cases[] = {
        {"division by zero", provoke_divide, NULL, 0},
        {"invalid opcode", provoke_opcode, NULL, 6},
        {"read-only data written", provoke_store, &constant, 14},
        {"code written", provoke_store, provoke_store, 14},
        {"data executed", provoke_jump, data, 14},
        {"constant executed", provoke_jump, &constant, 14},
        {"address 0 written", provoke_store, NULL, 14},
        {"stack guard written", provoke_store, boot_stack_guard, 14},
        {"bad selector loaded", provoke_selector, NULL, 13},
        {"stack overflow", provoke_overflow, NULL, 14},
    };
    u32 caught = 0;

    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        u32 vector = trap_try(cases[i].provoke, (usize)cases[i].ctx);
        bool good = vector == cases[i].vector;
        log_info("selftest", "%s: vector %u, %s", cases[i].what, vector, good ? "caught" : "WRONG");
        caught += good;
    }
    pages_free(data, PAGE_BYTES);
    log_info("selftest", "%u of %u traps caught", caught, (u32)ARRAY_LEN(cases));
}

void selftest(struct str which)
{
    if (str_eq_nocase(which, STR("traps")))
        test_traps();
    if (str_eq_nocase(which, STR("crash")))
        provoke_store(0);
    if (!str_eq_nocase(which, STR("hang")))
        return;
    log_warn("selftest", "this machine hangs now");
    cpu_interrupts(false);
    for (;;)
        cpu_relax();
}
