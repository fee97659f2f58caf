/*
 * apic.c: the local APIC of each core: its timer, interrupts between cores. Two ways to the same
 * registers: memory (xAPIC), or MSRs (x2APIC) where the firmware left it on or ids need it.
 * Follows: Intel SDM volume 3, chapter 11 (APIC), 11.12 (x2APIC), 11.5.4 (timer).
 */
#include "kernel/kernel.h"

#define MSR_APIC_BASE   0x1bu
#define MSR_X2APIC      0x800u
#define PIC_FIRST_MASK  0x21u /* the interrupt controllers of 1981 */
#define PIC_SECOND_MASK 0xa1u
#define BASE_ENABLED    (1u << 11)
#define BASE_X2         (1u << 10)
#define X2APIC_IDS_FROM 255u

#define APIC_ID        0x20u
#define APIC_EOI       0xb0u
#define APIC_SPURIOUS  0xf0u
#define APIC_ICR       0x300u
#define APIC_ICR_HIGH  0x310u
#define APIC_LVT_TIMER 0x320u
#define APIC_INITIAL   0x380u
#define APIC_CURRENT   0x390u
#define APIC_DIVIDE    0x3e0u

#define SPURIOUS_ENABLE 0x100u
#define ICR_PENDING     (1u << 12)
#define ICR_ASSERT      (1u << 14)
#define TIMER_MASKED    (1u << 16)
#define DIVIDE_BY_16    3u
#define MEASURE_NS      NS_PER_MS

static struct {
    u8 *base; /* NULL: x2APIC */
    u64 timer_hz;
} apic;

static u32 apic_read(u32 reg)
{
    u32 value;

    if (!apic.base)
        return (u32)msr_read(MSR_X2APIC + reg / 16);
    __asm__ volatile("movl (%1), %0" : "=r"(value) : "r"(apic.base + reg) : "memory");
    return value;
}

static void apic_write(u32 reg, u32 value)
{
    if (apic.base)
        __asm__ volatile("movl %0, (%1)" : : "r"(value), "r"(apic.base + reg) : "memory");
    else
        msr_write(MSR_X2APIC + reg / 16, value);
}

void apic_start(void)
{
    u64 base = msr_read(MSR_APIC_BASE);
    bool x2 = base & BASE_X2;

    for (u32 i = 0; i < acpi()->core_count; i++)
        x2 |= acpi()->apic_id[i] >= X2APIC_IDS_FROM;
    apic.base =
        x2 ? NULL : vm_map_device((paddr){base & 0x000ffffffffff000ull}, PAGE_BYTES, VM_UNCACHED);
    CHECK(x2 || apic.base);
    port_write8(PIC_FIRST_MASK, 0xff); /* its vectors would look like faults */
    port_write8(PIC_SECOND_MASK, 0xff);
    apic_core_start();
    core_self()->apic_id = apic_self();
}

void apic_core_start(void)
{
    msr_write(MSR_APIC_BASE, msr_read(MSR_APIC_BASE) | BASE_ENABLED | (apic.base ? 0 : BASE_X2));
    apic_write(APIC_SPURIOUS, SPURIOUS_ENABLE | VECTOR_SPURIOUS);
    apic_write(APIC_DIVIDE, DIVIDE_BY_16);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
}

u32 apic_self(void)
{
    return apic.base ? apic_read(APIC_ID) >> 24 : apic_read(APIC_ID);
}

void apic_end_of_interrupt(void)
{
    apic_write(APIC_EOI, 0);
}

void apic_send(u32 apic_id, u32 kind)
{
    if (!apic.base) {
        msr_write(MSR_X2APIC + APIC_ICR / 16, (u64)apic_id << 32 | ICR_ASSERT | kind);
        return;
    }
    apic_write(APIC_ICR_HIGH, apic_id << 24);
    apic_write(APIC_ICR, ICR_ASSERT | kind);
    for (struct deadline end = deadline_ms(1);
         apic_read(APIC_ICR) & ICR_PENDING && !deadline_passed(end);)
        cpu_relax();
}

/* ---- the timer ---- */

void apic_timer_start(void)
{
    u64 start_ns = time_ns(), took_ns;

    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | TIMER_MASKED);
    apic_write(APIC_INITIAL, UINT32_MAX);
    while ((took_ns = time_ns() - start_ns) < MEASURE_NS)
        cpu_relax();
    apic.timer_hz = (UINT32_MAX - (u64)apic_read(APIC_CURRENT)) * NS_PER_S / took_ns;
    apic_write(APIC_INITIAL, 0);
    apic_core_start();
}

void apic_timer_arm(u64 after_ns)
{
    u64 ticks = min_u64(after_ns, NS_PER_S) * apic.timer_hz / NS_PER_S + 1;

    apic_write(APIC_INITIAL, (u32)min_u64(ticks, UINT32_MAX));
}
