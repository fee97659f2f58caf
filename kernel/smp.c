/*
 * smp.c: the other cores: started once, then workers for ever. Must not know what the work is.
 * Follows: Intel SDM volume 3, 9.4 (multiple-processor initialisation).
 */
#include "kernel/kernel.h"

#define STACK_BYTES       (64 * KIB)
#define FAULT_STACK_BYTES (2 * PAGE_BYTES)
#define START_TRIES       100u
#define START_REPEAT_US   1000u /* a message to a core that is still resetting is lost */
#define INIT_SETTLE_US    100u
#define SPIN_US           200u /* the launches of one step follow each other faster */
#define TLB_WAIT_MS       100u

/* Read by the start code in entry.S. */
u8 *smp_stacks[CORES_MAX];
u32 smp_arrivals, smp_prepared;

static struct {
    bool (*work)(void *ctx, u32 worker);
    void *ctx;
    u32 calls;    /* grows with each workers_wake */
    u32 started;  /* how many have come so far */
    u32 tlb_left; /* how many have still to forget */
} workers;

extern const u8 ap_code[], ap_code_end[], ap_page_table[], ap_gdt_base[], ap_far_target[];
__attribute__((noreturn)) void smp_core_main(u32 idx);

u32 workers_count(void)
{
    return smp_prepared ? smp_prepared - 1 : 0;
}

/* ---- start ---- */

static bool prepare_core(u32 idx)
{
    struct core *core = core_at(idx);

    core->idx = idx;
    core->fault_stack_top = vm_stack(FAULT_STACK_BYTES);
    core->double_fault_stack_top = vm_stack(FAULT_STACK_BYTES);
    smp_stacks[idx] = vm_stack(STACK_BYTES);
    return core->fault_stack_top && core->double_fault_stack_top && smp_stacks[idx];
}

/* Where the original has offsets, or nothing, the copy has addresses. */
static void patch(u8 *copy, const u8 *field, u64 add)
{
    u32 *place = (u32 *)(void *)(copy + (field - ap_code));

    *place += (u32)add;
}

static void prepare_code(paddr page)
{
    u8 *copy = (u8 *)(HANDOFF_DIRECT_MAP + page.v);

    memcpy(copy, ap_code, (usize)(ap_code_end - ap_code));
    patch(copy, ap_far_target, page.v);
    patch(copy, ap_gdt_base, page.v);
    patch(copy, ap_page_table, cr3_read());
}

static void send_to_others(u32 kind)
{
    for (u32 i = 0; i < acpi()->core_count; i++)
        if (acpi()->apic_id[i] != core_self()->apic_id)
            apic_send(acpi()->apic_id[i], kind);
}

static void wait_started(u64 us)
{
    struct deadline end = deadline_us(us);

    while (__atomic_load_n(&workers.started, __ATOMIC_ACQUIRE) + 1 < smp_prepared &&
           !deadline_passed(end))
        cpu_relax();
}

static void start_others(paddr page)
{
    prepare_code(page);
    send_to_others(APIC_INIT);
    wait_started(INIT_SETTLE_US);
    for (u32 i = 0; i < START_TRIES && workers.started + 1 < smp_prepared; i++) {
        send_to_others(APIC_STARTUP | (u32)(page.v / PAGE_BYTES)); /* a running core ignores it */
        wait_started(START_REPEAT_US);
    }
}

void smp_start(paddr page)
{
    u32 wanted = max_u32(acpi()->core_count, 1);

    smp_arrivals = 1;
    for (smp_prepared = 1; smp_prepared < wanted && prepare_core(smp_prepared);)
        smp_prepared++;
    if (wanted > 1 && page.v && vm_identity(page)) {
        start_others(page);
        vm_protect((void *)page.v, PAGE_BYTES, VM_NONE);
    }
    smp_prepared = min_u32(smp_prepared, smp_arrivals); /* whoever comes later stays halted */
    if (smp_prepared < wanted)
        log_warn("smp", "want %u cores, %u have started (from page %lx)", wanted, smp_prepared,
                 page.v);
    log_info("smp", "%u cores compute", smp_prepared);
}

/* ---- the life of a worker ---- */

/* Asleep is said before the last look at `calls`, so that a waker sees it or this core sees the
 * call. */
static void sleep_unless(struct core *core, u32 calls)
{
    cpu_interrupts(false);
    __atomic_store_n(&core->asleep, true, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&workers.calls, __ATOMIC_SEQ_CST) == calls)
        __asm__ volatile("sti\n\thlt" ::: "memory");
    __atomic_store_n(&core->asleep, false, __ATOMIC_RELAXED);
    cpu_interrupts(true);
}

void smp_core_main(u32 idx)
{
    struct core *core = core_at(idx);

    cpu_core_start(core);
    apic_core_start();
    core->apic_id = apic_self();
    __atomic_fetch_add(&workers.started, 1, __ATOMIC_RELEASE);
    cpu_interrupts(true);
    for (;;) {
        u32 calls = __atomic_load_n(&workers.calls, __ATOMIC_ACQUIRE);
        bool (*work)(void *, u32) = __atomic_load_n(&workers.work, __ATOMIC_ACQUIRE);
        if (work && work(workers.ctx, idx))
            continue;
        struct deadline end = deadline_us(SPIN_US);
        while (__atomic_load_n(&workers.calls, __ATOMIC_ACQUIRE) == calls && !deadline_passed(end))
            cpu_relax();
        sleep_unless(core, calls);
    }
}

void workers_start(bool (*work)(void *ctx, u32 worker), void *ctx)
{
    workers.ctx = ctx;
    __atomic_store_n(&workers.work, work, __ATOMIC_RELEASE);
    workers_wake();
}

void workers_wake(void)
{
    __atomic_fetch_add(&workers.calls, 1, __ATOMIC_SEQ_CST);
    for (u32 i = 1; i < smp_prepared; i++)
        if (__atomic_load_n(&core_at(i)->asleep, __ATOMIC_SEQ_CST))
            apic_send(core_at(i)->apic_id, VECTOR_WAKE);
}

void smp_tlb_forget(void)
{
    cr3_write(cr3_read());
    __atomic_fetch_sub(&workers.tlb_left, 1, __ATOMIC_RELEASE);
}

void smp_tlb_flush(void)
{
    struct deadline end = deadline_ms(TLB_WAIT_MS);

    __atomic_store_n(&workers.tlb_left, max_u32(smp_prepared, 1), __ATOMIC_RELEASE);
    for (u32 i = 1; i < smp_prepared; i++)
        apic_send(core_at(i)->apic_id, VECTOR_TLB);
    smp_tlb_forget();
    while (__atomic_load_n(&workers.tlb_left, __ATOMIC_ACQUIRE)) {
        CHECK(!deadline_passed(end)); /* a core without interrupts would keep stale rights */
        cpu_relax();
    }
}
