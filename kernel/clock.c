/*
 * clock.c: time from the TSC, calibrated once; wall time from the firmware's clock until SNTP
 * answers. Must not know who waits. Follows: Intel SDM volume 3, 19.7.3 (TSC frequency);
 * ACPI 6.5, 4.8.3.3 (PM timer); CPUID leaf 4000_0010h as hypervisors define it.
 */
#include "kernel/kernel.h"

#define PM_TIMER_HZ     3579545ull
#define PM_TIMER_MASK   0xffffffu /* 24 bits count on every machine */
#define CALIBRATE_TICKS 10000u    /* 2.8 ms: 0.02 % with reads that take under a microsecond */
/* A high guess: lines before calibration are stamped too early, not too late. */
#define GUESS_HZ 4000000000ull

static struct {
    u64 hz;
    u64 ns_per_tick_32; /* fixed point, 32 bits of fraction */
    i64 unix_base_s;    /* wall time when the TSC was 0 */
} clock = {.hz = GUESS_HZ, .ns_per_tick_32 = (NS_PER_S << 32) / GUESS_HZ};

u64 clock_hz(void)
{
    return clock.hz;
}

u64 time_ns(void)
{
    return (u64)((unsigned __int128)cpu_tsc() * clock.ns_per_tick_32 >> 32);
}

i64 time_unix_s(void)
{
    return clock.unix_base_s + (i64)(time_ns() / NS_PER_S);
}

void time_unix_set(i64 seconds)
{
    clock.unix_base_s = seconds - (i64)(time_ns() / NS_PER_S);
}

/* ---- calibration ---- */

struct sample {
    u64 tsc, width;
    u32 pm;
};

/* The read with the least time around it: a pause of the virtual machine spoils only some. */
static struct sample take_sample(u16 port)
{
    struct sample best = {.width = UINT64_MAX};

    for (u32 i = 0; i < 8; i++) {
        u64 before = cpu_tsc();
        u32 pm = port_read32(port);
        u64 width = cpu_tsc() - before;
        if (width < best.width)
            best = (struct sample){before + width / 2, width, pm};
    }
    return best;
}

static u64 hz_by_pm_timer(u16 port)
{
    struct sample from = take_sample(port), to = from;
    u64 ticks = 0;

    for (u64 reads = 0; ticks < CALIBRATE_TICKS && reads < CALIBRATE_TICKS; reads++) {
        to = take_sample(port);
        ticks = (to.pm - from.pm) & PM_TIMER_MASK;
    }
    return ticks ? (to.tsc - from.tsc) * PM_TIMER_HZ / ticks : 0;
}

/* What the processor or the hypervisor states exactly; 0 when neither does. */
static u64 hz_by_cpuid(void)
{
    struct cpuid crystal = cpu_id(0x15, 0), guest = cpu_id(0x40000010, 0);

    if (guest.eax)
        return (u64)guest.eax * 1000;
    return crystal.eax ? (u64)crystal.ecx * crystal.ebx / crystal.eax : 0;
}

void clock_start(i64 unix_s)
{
    u64 hz = hz_by_cpuid();

    if (!hz && acpi()->pm_timer_port)
        hz = hz_by_pm_timer(acpi()->pm_timer_port);
    if (!hz)
        log_warn("clock", "no exact source of the TSC's frequency: times may drift");
    clock.hz = hz ? hz : GUESS_HZ;
    clock.ns_per_tick_32 = (NS_PER_S << 32) / clock.hz;
    time_unix_set(unix_s);
    log_info("clock", "TSC %lu kHz, wall time %s", clock.hz / 1000,
             unix_s ? "from the firmware" : "unknown");
}

void clock_idle(u64 at_most_ns)
{
    apic_timer_arm(at_most_ns);
    __asm__ volatile("sti\n\thlt" ::: "memory"); /* nothing can come between the two */
}
