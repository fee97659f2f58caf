/*
 * kernel.h: public face of the kernel room beyond base.h, grouped by file in boot order. Only
 * kernel/, pci/ and network drivers include it; portable code knows base.h alone.
 */
#ifndef NOHOST_KERNEL_H
#define NOHOST_KERNEL_H

#include "boot/handoff.h"
#include "kernel/paging.h"

/* A physical address as the CPU sees it; never what a device is told (pci.h: busaddr). */
typedef struct {
    u64 v;
} paddr;

#define CORES_MAX 256u

/* ---- console.c ---- */

/* Adds the serial port as a sink of the log. */
void serial_start(void);
/* Adds the framebuffer as a sink, mapped write-combining; needs vm_start. */
void screen_start(const struct handoff_framebuffer *framebuffer);

/* ---- cpu.c ---- */

struct descriptor_table { /* as lgdt and lidt read it */
    u16 limit;
    u64 base;
} __attribute__((packed));

struct tss {
    u32 reserved0;
    u64 rsp[3], reserved1, ist[7], reserved2;
    u16 reserved3, io_map;
} __attribute__((packed));

/* What a core has of its own; its GS base points here. entry.S knows the first fields. */
struct core {
    struct core *self;
    u64 recover_rsp;     /* not 0: trap_try waits here for a trap */
    u8 *fault_stack_top; /* two pages each: ordinary faults, and faults on top of those */
    u8 *double_fault_stack_top;
    u32 idx, apic_id;
    bool asleep; /* halted or about to: an IPI is needed to wake it */
    u64 gdt[5];
    struct tss tss;
};

/* Core 0 is the one that booted. */
struct core *core_at(u32 idx);
static inline struct core *core_self(void)
{
    struct core *self;
    __asm__ volatile("mov %%gs:0, %0" : "=r"(self));
    return self;
}

/* Control registers, vector state, descriptor tables of the calling core. */
void cpu_core_start(struct core *core);
/* Finds out what the CPU can do. */
void cpu_start(void);
void cpu_name(struct text *out);
struct cpuid {
    u32 eax, ebx, ecx, edx;
};
struct cpuid cpu_id(u32 leaf, u32 subleaf); /* zeros for a leaf that the CPU does not have */

static inline u64 cpu_tsc(void)
{
    return __builtin_ia32_rdtsc();
}
static inline void cpu_interrupts(bool on)
{
    if (on)
        __asm__ volatile("sti" ::: "memory");
    else
        __asm__ volatile("cli" ::: "memory");
}
static inline u64 msr_read(u32 msr)
{
    u32 low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (u64)high << 32 | low;
}
static inline void msr_write(u32 msr, u64 value)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

/* One function for each form of an instruction that C has no word for. */
#define CONTROL_REGISTER(number)                                                                   \
    static inline u64 cr##number##_read(void)                                                      \
    {                                                                                              \
        u64 value;                                                                                 \
        __asm__ volatile("mov %%cr" #number ", %0" : "=r"(value));                                 \
        return value;                                                                              \
    }                                                                                              \
    static inline void cr##number##_write(u64 value)                                               \
    {                                                                                              \
        __asm__ volatile("mov %0, %%cr" #number : : "r"(value) : "memory");                        \
    }
#define PORT(bits)                                                                                 \
    static inline u##bits port_read##bits(u16 port)                                                \
    {                                                                                              \
        u##bits value;                                                                             \
        __asm__ volatile("in %1, %0" : "=a"(value) : "Nd"(port));                                  \
        return value;                                                                              \
    }                                                                                              \
    static inline void port_write##bits(u16 port, u##bits value)                                   \
    {                                                                                              \
        __asm__ volatile("out %0, %1" : : "a"(value), "Nd"(port));                                 \
    }
CONTROL_REGISTER(0)
CONTROL_REGISTER(2)
CONTROL_REGISTER(3)
CONTROL_REGISTER(4)
PORT(8)
PORT(16)
PORT(32)
#undef CONTROL_REGISTER
#undef PORT

/* ---- trap.c ---- */

#define VECTOR_TIMER    0x20u
#define VECTOR_WAKE     0x21u
#define VECTOR_TLB      0x22u
#define VECTOR_DEVICE   0x30u /* first of those that irq_take hands out */
#define VECTOR_SPURIOUS 0xffu

void trap_start(void);
void trap_core_start(void); /* loads the vector table into the calling core */
/* A free interrupt vector for handler(ctx), which runs on core 0 with interrupts off. E_LIMIT. */
err irq_take(void (*handler)(void *ctx), void *ctx, u8 *vector);
u64 irq_message_address(void); /* where a device writes a vector's number to interrupt core 0 */
/* Runs fn(ctx); returns the vector of the trap that ended it, or TRAP_NONE (entry.S). */
#define TRAP_NONE 256u
u32 trap_try(void (*fn)(u64 ctx), u64 ctx);

/* ---- selftest.c ---- */

/* "traps", "crash" or "hang"; anything else is nothing. */
void selftest(struct str which);

/* ---- mem.c ---- */

void mem_start(const struct handoff *handoff); /* its free ranges become pages */
/* Like pages_alloc, with an alignment above 4 KiB. */
[[nodiscard]] void *pages_alloc_aligned(usize bytes, usize align);

/* ---- vm.c ---- */

enum vm_access { VM_NONE, VM_WRITE, VM_EXECUTE };
enum vm_cache { VM_CACHED, VM_UNCACHED, VM_WRITE_COMBINING };

/* Takes over the loader's page tables; nothing below 2^47 stays, the image has one address. */
void vm_start(const struct handoff *handoff);
/* Changes what is allowed in whole mapped pages. Other cores see it after smp_tlb_flush. */
void vm_protect(void *from, usize bytes, enum vm_access access);
/* Maps physical memory for reading and writing. NULL: no memory for page tables. */
[[nodiscard]] void *vm_map_device(paddr from, u64 bytes, enum vm_cache cache);
/* One page at its own physical address, executable: only for the start of cores. */
[[nodiscard]] bool vm_identity(paddr page);
paddr vm_physical(const void *ptr); /* of pages_alloc memory */
/* A stack with an unmapped page below it; returns its top, NULL without memory. */
[[nodiscard]] u8 *vm_stack(usize bytes);

/* ---- acpi.c ---- */

#define ACPI_ECAM_MAX 16u

struct acpi {
    u32 apic_id[CORES_MAX];
    u32 core_count;
    struct acpi_window {
        u64 base;
        u16 segment;
        u8 bus_first, bus_last;
    } ecam[ACPI_ECAM_MAX];
    u32 ecam_count;
    u16 pm_timer_port, pm1a_port, pm1b_port, reset_port; /* 0: none */
    u8 reset_value;
    u8 sleep_a, sleep_b; /* SLP_TYP of \_S5 */
    bool can_sleep;
};

/* Reads the tables. What is missing or broken is logged and left empty. */
void acpi_start(u64 rsdp);
const struct acpi *acpi(void);
__attribute__((noreturn)) void machine_reset(void);
/* Returns only when the machine does not let itself be switched off. */
void machine_power_off(void);

/* ---- apic.c ---- */

void apic_start(void);
void apic_core_start(void);
u32 apic_self(void);
void apic_end_of_interrupt(void);
/* kind: vector, or APIC_INIT, or APIC_STARTUP | page number. */
#define APIC_INIT    0x500u
#define APIC_STARTUP 0x600u
void apic_send(u32 apic_id, u32 kind);
void apic_timer_start(void); /* finds its speed by the clock */
/* One interrupt on this core after so many nanoseconds. */
void apic_timer_arm(u64 after_ns);

/* ---- clock.c ---- */

void clock_start(i64 unix_s);
u64 clock_hz(void);
struct deadline {
    u64 at_ns;
};
static inline struct deadline deadline_us(u64 us)
{
    return (struct deadline){time_ns() + us * NS_PER_US};
}
static inline struct deadline deadline_ms(u64 ms)
{
    return deadline_us(ms * 1000);
}
static inline bool deadline_passed(struct deadline end)
{
    return time_ns() >= end.at_ns;
}
/* Interrupts are off when called, on when it returns: halts until one comes or the time is up. */
void clock_idle(u64 at_most_ns);

/* ---- smp.c ---- */

void smp_start(paddr page); /* below 1 MiB, for their first instructions; v 0: none */
/* Every core forgets what it knows of the page tables; waits until each has said so. */
void smp_tlb_flush(void);
void smp_tlb_forget(void); /* what VECTOR_TLB asks of a core */

/* ---- random.c ---- */

/* RFC 8439, 2.3: words 12 to 15 of the state are `tail` (block counter, nonce). */
void chacha20_block(const u32 secret[8], const u32 tail[4], u8 out[64]);
void random_start(const struct handoff *handoff);

/* ---- files.c ---- */

/* A file of the handoff as a store whose release gives pages back. NULL: no such file. */
struct store *file_store(const struct handoff *handoff, u32 idx);

/* ---- conf.c: portable ---- */

#define CONF_KEYS_MAX 16u

/* nohost.conf. Texts point into the file; what is absent has its default of conf.c's table. */
struct config {
    struct str hostname, ip, netmask, gateway, dns, fallback_ip, ntp, model, model_id;
    struct str selftest, device, cards;
    struct str api_key[CONF_KEYS_MAX];
    u32 api_key_count;
    u64 port, ctx, slots, kv_tokens, threads, watchdog_s, power_cap_w;
    u32 mistakes; /* lines that were not understood; each was logged with its number */
};

void conf_read(struct config *config, struct str file);

#endif
