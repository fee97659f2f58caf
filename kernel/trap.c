/*
 * trap.c: the vector table: faults end in a crash report, interrupts in the handler that took the
 * vector. Must not know a device. Follows: AMD64 volume 2, chapter 8; Intel SDM volume 3, 6.15.
 */
#include "kernel/kernel.h"

#define FAULTS            32u
#define VECTOR_PAGE_FAULT 14u
#define VECTORS           256u
#define CALLERS_BYTES     200u
#define BOOT_STACK_BYTES  (256 * KIB) /* linker.ld */
#define CRASH_SHOW_MS     3000u
#define CRASH_LOG_BYTES   1200u

struct trap_frame { /* as entry.S pushes it, after what the CPU has pushed */
    u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, error, rip, cs, rflags, rsp, ss;
};

struct gate {
    u16 low, segment;
    u8 stack, type;
    u16 middle;
    u32 high, reserved;
};

_Static_assert(sizeof(struct gate) == 16, "AMD64 volume 2, figure 4-24");

static struct {
    _Alignas(16) struct gate gate[VECTORS];
    struct taken {
        void (*handler)(void *ctx);
        void *ctx;
    } taken[VECTORS];
    struct mistake {
        const char *file, *what;
        int line;
    } mistake;
    bool crashing;
} table;

extern const char trap_stubs[], trap_try_resume[], text_start[], text_end[];
extern u8 boot_stack_top[], *smp_stacks[];
void trap_handle(struct trap_frame *frame);
__attribute__((noreturn)) void __stack_chk_fail(void);

/* ---- set-up ---- */

/* Faults run on a stack of their own, so that an overflown stack is a page fault like any other; a
 * double fault, NMI and machine check, which may come in the middle of that, have a second one. */
static u8 stack_for(u32 vector)
{
    bool severe = vector == 2 || vector == 8 || vector == 18;

    return vector >= FAULTS ? 0 : severe ? 2 : 1;
}

void trap_start(void)
{
    for (u32 i = 0; i < VECTORS; i++) {
        u64 stub = (usize)trap_stubs + (usize)i * 16;
        table.gate[i] = (struct gate){(u16)stub,         8, stack_for(i), 0x8e, (u16)(stub >> 16),
                                      (u32)(stub >> 32), 0};
    }
}

void trap_core_start(void)
{
    const struct descriptor_table pointer = {sizeof(table.gate) - 1, (usize)table.gate};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

err irq_take(void (*handler)(void *ctx), void *ctx, u8 *vector)
{
    for (u32 i = VECTOR_DEVICE; i < VECTOR_SPURIOUS; i++)
        if (!table.taken[i].handler) {
            table.taken[i] = (struct taken){handler, ctx};
            *vector = (u8)i;
            return OK;
        }
    return E_LIMIT;
}

u64 irq_message_address(void)
{
    return 0xfee00000u | (u64)core_at(0)->apic_id << 12;
}

/* ---- the crash report ---- */

// clang-format off
static const char *const fault_names[FAULTS] = {
    "divide error", "debug", "NMI", "breakpoint", "overflow", "bound range", "invalid opcode",
    "no vector state", "double fault", NULL, "invalid TSS", "no segment", "stack segment",
    "protection", "page fault", NULL, "x87 error", "alignment check", "machine check",
    "vector float error", NULL, "control flow",
};
// clang-format on

static void report_cause(const struct trap_frame *frame)
{
    u64 at = cr2_read(), error = frame->error;
    const char *name = frame->vector < FAULTS ? fault_names[frame->vector] : NULL;
    const char *how = error & 16 ? "execution" : error & 2 ? "write" : "read";
    const char *why = error & 1 ? "not allowed" : "nothing is there";

    if (table.mistake.what)
        log_error("crash", "%s:%d: CHECK failed: %s", table.mistake.file, table.mistake.line,
                  table.mistake.what);
    log_error("crash", "%s (vector %lu, error %lx) on core %u at %016lx",
              name ? name : "unknown trap", frame->vector, error, core_self()->idx, frame->rip);
    if (frame->vector == VECTOR_PAGE_FAULT)
        log_error("crash", "%s of %016lx: %s", how, at, why);
    if (frame->vector == VECTOR_PAGE_FAULT && at - (frame->rsp - PAGE_BYTES) < 2 * PAGE_BYTES &&
        !(error & 1))
        log_error("crash", "that is beside the stack pointer: the stack has overflown");
}

static void report_registers(const struct trap_frame *frame)
{
    const struct trap_frame *f = frame;

    log_error("crash", "rax %016lx rcx %016lx rdx %016lx rbx %016lx rbp %016lx", f->rax, f->rcx,
              f->rdx, f->rbx, f->rbp);
    log_error("crash", "rsi %016lx rdi %016lx r8 %016lx r9 %016lx r10 %016lx", f->rsi, f->rdi,
              f->r8, f->r9, f->r10);
    log_error("crash", "r11 %016lx r12 %016lx r13 %016lx r14 %016lx r15 %016lx", f->r11, f->r12,
              f->r13, f->r14, f->r15);
    log_error("crash", "rsp %lx rflags %lx cr0 %lx cr2 %lx cr3 %lx cr4 %lx", frame->rsp,
              frame->rflags, cr0_read(), cr2_read(), cr3_read(), cr4_read());
}

/* Return addresses by their look: what on the stack points into the code. Some are left over from
 * calls that have ended; but no chain of frames has to be whole, and generated code keeps none. */
static void report_callers(const struct trap_frame *frame)
{
    char buffer[LOG_LINE_MAX];
    struct text line = TEXT_ON(buffer);
    u32 idx = core_self()->idx;
    u64 top = idx ? (usize)smp_stacks[idx] : (usize)boot_stack_top, low = top - BOOT_STACK_BYTES;

    for (u64 at = frame->rsp; at > low && at < top && line.len < CALLERS_BYTES; at += 8) {
        u64 value = *(const u64 *)at;
        if (value >= (usize)text_start && value < (usize)text_end)
            text_fmt(&line, " %lx", value);
    }
    log_error("crash", "called from%.*s", (int)line.len, line.ptr);
}

__attribute__((noreturn)) static void crash(const struct trap_frame *frame)
{
    char lines[CRASH_LOG_BYTES];

    if (table.crashing) /* the report itself failed: nothing more can be said safely */
        machine_reset();
    table.crashing = true;
    usize len = log_read(lines, sizeof(lines));
    report_cause(frame);
    report_registers(frame);
    report_callers(frame);
    log_error("crash", "the last lines before it:");
    for (struct str rest = {lines, len}, line; rest.len;) {
        line = str_cut(rest, '\n', &rest);
        log_error("crash", "| %.*s", (int)line.len, line.ptr);
    }
    log_error("crash", "this machine resets in %u s", CRASH_SHOW_MS / 1000);
    for (struct deadline end = deadline_ms(CRASH_SHOW_MS); !deadline_passed(end);)
        cpu_relax();
    machine_reset();
}

void panic(const char *file, int line, const char *what)
{
    cpu_interrupts(false);
    table.mistake = (struct mistake){file, what, line};
    __builtin_trap(); /* the trap has the registers */
}

/* The compiler calls it when a function's canary has changed. */
void __stack_chk_fail(void)
{
    panic(__FILE__, __LINE__, "stack canary intact");
}

/* ---- what entry.S calls ---- */

static void handle_interrupt(u64 vector)
{
    if (vector == VECTOR_TLB)
        smp_tlb_forget();
    else if (table.taken[vector].handler)
        table.taken[vector].handler(table.taken[vector].ctx);
    if (vector != VECTOR_SPURIOUS)
        apic_end_of_interrupt();
}

void trap_handle(struct trap_frame *frame)
{
    struct core *core = core_self();

    if (frame->vector >= FAULTS) {
        handle_interrupt(frame->vector);
    } else if (core->recover_rsp) {
        frame->rip = (usize)trap_try_resume;
        frame->rsp = core->recover_rsp;
        frame->rax = frame->vector;
    } else {
        crash(frame);
    }
}
