/*
 * cpu.c: what the processor can do, and the state every core needs before it runs our code: control
 * registers, vector state, segments, stacks for faults. Follows: Intel SDM volume 3, chapters 2
 * (control registers), 13.5 (XCR0), 8.7 (TSS); volume 2, CPUID.
 */
#include "kernel/kernel.h"

#define MSR_PAT     0x277u
#define MSR_GS_BASE 0xc0000101u
/* Entry 0 WB, 1 WT, 2 UC-, 3 UC, 4 WC: entry 4 is chosen by the PAT bit of a page alone. */
#define PAT_VALUE 0x0007040100070406ull

#define CR0_SET   0x00010022u /* write-protect, numeric error, monitor coprocessor */
#define CR0_CLEAR 0x0000000cu /* emulation, task switched */
#define CR4_SSE   0x600u
#define CR4_XSAVE (1u << 18)

#define XCR0_BASE   0x7u     /* x87, SSE, AVX */
#define XCR0_AVX512 0xe0u    /* mask registers, upper halves, upper registers */
#define XCR0_AMX    0x60000u /* tile configuration and data */

static struct {
    struct cpu_features features;
    u64 xcr0, cr4;
    struct core core[CORES_MAX];
    _Alignas(16) u8 boot_fault_stacks[4 * PAGE_BYTES]; /* of core 0, before there are pages */
} cpu;

struct core *core_at(u32 idx)
{
    CHECK(idx < CORES_MAX);
    return &cpu.core[idx];
}

struct cpuid cpu_id(u32 leaf, u32 subleaf)
{
    struct cpuid id = {leaf & 0xc0000000u, 0, 0, 0};

    __asm__ volatile("cpuid" : "+a"(id.eax), "=b"(id.ebx), "+c"(id.ecx), "=d"(id.edx));
    if (id.eax < leaf || id.eax - (leaf & 0xc0000000u) > 0xffff)
        return (struct cpuid){};
    id.eax = leaf;
    id.ecx = subleaf;
    __asm__ volatile("cpuid" : "+a"(id.eax), "=b"(id.ebx), "+c"(id.ecx), "=d"(id.edx));
    return id;
}

/* ---- features ---- */

static bool has(u32 word, u32 bits)
{
    return (word & bits) == bits;
}

/* Bits are Intel SDM volume 2, table 3-8 (leaf 1) and the tables of leaf 7. */
void cpu_start(void)
{
    struct cpuid one = cpu_id(1, 0), seven = cpu_id(7, 0), seven1 = cpu_id(7, 1);
    struct cpuid state = cpu_id(13, 0);
    struct cpu_features *f = &cpu.features;

    cpu.core[0].fault_stack_top = cpu.boot_fault_stacks + 2 * PAGE_BYTES;
    cpu.core[0].double_fault_stack_top = cpu.boot_fault_stacks + 4 * PAGE_BYTES;
    cpu.cr4 = CR4_SSE | (has(one.ecx, 1u << 26) ? CR4_XSAVE : 0) |
              (seven.ebx & 1u << 7 ? 1u << 20 : 0)                    /* SMEP */
              | (seven.ebx & 1u << 20 ? 1u << 21 : 0)                 /* SMAP */
              | (seven.ecx & 1u << 2 ? 1u << 11 : 0);                 /* UMIP */
    f->avx2 = has(one.ecx, 1u << 12 | 1u << 26 | 1u << 28 | 1u << 29) /* FMA XSAVE AVX F16C */
              && has(seven.ebx, 1u << 3 | 1u << 5 | 1u << 8);         /* BMI1 AVX2 BMI2 */
    f->avx512 = has(seven.ebx, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) && /* F DQ BW VL */
                has(state.eax, XCR0_AVX512);
    struct cpuid hypervisor = cpu_id(0x40000000u, 0); /* "TCGTCGTCGTCG" */
    f->translated = has(one.ecx, 1u << 31) && hypervisor.ebx == 0x54474354u;
    f->avx512_vnni = f->avx512 && has(seven.ecx, 1u << 11);
    f->avx_vnni = has(seven1.eax, 1u << 4);
    f->amx_int8 = has(seven.edx, 1u << 24 | 1u << 25) && has(state.eax, XCR0_AMX);
    cpu.xcr0 = XCR0_BASE | (f->avx512 ? XCR0_AVX512 : 0) | (f->amx_int8 ? XCR0_AMX : 0);
}

const struct cpu_features *cpu_features(void)
{
    return &cpu.features;
}

void cpu_name(struct text *out)
{
    for (u32 leaf = 0x80000002; leaf <= 0x80000004; leaf++) {
        struct cpuid part = cpu_id(leaf, 0);
        struct str letters = {(const char *)&part, sizeof(part)};
        text_put(out, str_slice(letters, 0, str_find_char(letters, 0)));
    }
}

/* ---- a core's state ---- */

/* One for code, one for data, and the task state with its stacks. */
static void load_segments(struct core *core)
{
    const struct descriptor_table pointer = {sizeof(core->gdt) - 1, (usize)core->gdt};
    u64 tss = (usize)&core->tss;

    core->gdt[1] = 0x00209a0000000000ull;
    core->gdt[2] = 0x0000920000000000ull;
    core->gdt[3] = (sizeof(struct tss) - 1) | (tss & 0xffffff) << 16 | 0x89ull << 40 |
                   (tss >> 24 & 0xff) << 56;
    core->gdt[4] = tss >> 32;
    core->tss.io_map = sizeof(struct tss);
    core->tss.ist[0] = (usize)core->fault_stack_top;
    core->tss.ist[1] = (usize)core->double_fault_stack_top;
    __asm__ volatile(
        "lgdt %0\n\t"
        "mov %1, %%ds\n\tmov %1, %%es\n\tmov %1, %%ss\n\tmov %1, %%fs\n\tmov %1, %%gs\n\t"
        "pushq $8\n\tlea 1f(%%rip), %%rax\n\tpushq %%rax\n\tlretq\n1:\n\t"
        "ltr %2\n\tlldt %3"
        :
        : "m"(pointer), "r"(0x10), "r"((u16)0x18), "r"((u16)0)
        : "rax", "memory");
}

void cpu_core_start(struct core *core)
{
    u32 mxcsr = 0x1f80; /* every exception masked, round to nearest */

    core->self = core;
    load_segments(core);
    msr_write(MSR_GS_BASE, (usize)core);
    trap_core_start();
    cr0_write((cr0_read() | CR0_SET) & ~(u64)CR0_CLEAR);
    cr4_write(cr4_read() | cpu.cr4);
    msr_write(MSR_PAT, PAT_VALUE);
    if (cpu.features.avx2)
        __asm__ volatile("xsetbv" : : "c"(0), "a"((u32)cpu.xcr0), "d"((u32)(cpu.xcr0 >> 32)));
    __asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr));
}
