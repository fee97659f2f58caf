/*
 * vm.c: the page tables after the loader: rights of pages, device memory, generated code, guards.
 * W^X holds for every address: code is written while its pages are not executable. Must not know
 * who owns a page. Follows: AMD64 volume 2, 5.3 (paging), 7.8 (page attribute table).
 */
#include "kernel/kernel.h"

#define PRESENT       (1ull << 0)
#define WRITE         (1ull << 1)
#define WRITE_THROUGH (1ull << 3)
#define CACHE_DISABLE (1ull << 4)
#define LARGE         (1ull << 7)
#define PAT_SMALL     (1ull << 7) /* the PAT bit of a 4 KiB page, where a large one has LARGE */
#define PAT_LARGE     (1ull << 12)
#define NO_EXECUTE    (1ull << 63)
#define ADDRESS       0x000ffffffffff000ull
#define DEVICE_LOW    0xffffc00000000000ull
#define KERNEL_HALF   256u /* first entry of the root table above 2^47 */
#define LARGE_BYTES   (2 * MIB)

static struct {
    u64 *root;
    u64 device_next;
} vm;

static const u64 access_flags[] = {
    [VM_NONE] = 0,
    [VM_WRITE] = PRESENT | WRITE | NO_EXECUTE,
    [VM_EXECUTE] = PRESENT,
};

static const u64 cache_flags[] = {
    [VM_CACHED] = 0,
    [VM_UNCACHED] = CACHE_DISABLE | WRITE_THROUGH,
    [VM_WRITE_COMBINING] = PAT_SMALL,
};

extern u8 boot_stack_guard[];

/* ---- walking ---- */

static u64 *table_at(u64 entry)
{
    return (u64 *)(HANDOFF_DIRECT_MAP + (entry & ADDRESS));
}

static void forget(u64 virtual)
{
    __asm__ volatile("invlpg (%0)" : : "r"(virtual) : "memory");
}

/* A new table below `entry`; a large page there becomes 512 small ones with the same rights. */
static bool add_table(u64 *entry)
{
    u64 *table = pages_alloc(PAGE_BYTES);

    if (!table)
        return false;
    for (u64 i = 0; *entry && i < 512; i++)
        table[i] = (*entry & ~LARGE) + i * PAGE_BYTES;
    *entry = vm_physical(table).v | PRESENT | WRITE;
    return true;
}

/* The entry of `level` for an address, tables made and large pages split on the way. NULL: no
 * memory. */
static u64 *entry_at(u64 virtual, u32 level)
{
    u64 *table = vm.root;

    for (u32 at = 4; at > level; at--) {
        u64 *entry = &table[virtual >> (3 + 9 * at) & 511];
        if ((!*entry || (at < 4 && *entry & LARGE)) && !add_table(entry))
            return NULL;
        table = table_at(*entry);
    }
    return &table[virtual >> (3 + 9 * level) & 511];
}

/* Flags are those of a small page. */
static bool map_page(u64 virtual, u64 physical, u64 flags, u32 level)
{
    u64 *entry = entry_at(virtual, level);

    if (!entry)
        return false;
    if (level > 1)
        flags = (flags & ~PAT_SMALL) | LARGE | (flags & PAT_SMALL ? PAT_LARGE : 0);
    *entry = flags & PRESENT ? physical | flags : 0;
    forget(virtual);
    return true;
}

/* ---- rights ---- */

void vm_protect(void *from, usize bytes, enum vm_access access)
{
    u64 at = (usize)from, end = at + round_up(bytes, PAGE_BYTES);

    CHECK(at % PAGE_BYTES == 0);
    for (; at < end; at += PAGE_BYTES) {
        u64 *entry = entry_at(at, 1);
        CHECK(entry);
        *entry = access == VM_NONE ? 0 : (*entry & ADDRESS) | access_flags[access];
        forget(at);
    }
}

void vm_start(const struct handoff *handoff)
{
    vm.root = table_at(handoff->page_table);
    vm.device_next = DEVICE_LOW;
    memset(vm.root, 0, KERNEL_HALF * sizeof(u64)); /* also makes address 0 fault */
    vm_protect((void *)(HANDOFF_DIRECT_MAP + handoff->kernel_base), handoff->kernel_bytes, VM_NONE);
    vm_protect(boot_stack_guard, PAGE_BYTES, VM_NONE);
    cr4_write(cr4_read() & ~(1ull << 7)); /* without global pages a load of CR3 forgets all */
    cr3_write(cr3_read());
}

paddr vm_physical(const void *ptr)
{
    CHECK((usize)ptr >= HANDOFF_DIRECT_MAP && (usize)ptr < DEVICE_LOW);
    return (paddr){(usize)ptr - HANDOFF_DIRECT_MAP};
}

/* ---- devices, stacks ---- */

void *vm_map_device(paddr from, u64 bytes, enum vm_cache cache)
{
    u64 flags = access_flags[VM_WRITE] | cache_flags[cache];
    u64 physical = from.v & ~(PAGE_BYTES - 1), end = round_up(from.v + bytes, PAGE_BYTES);
    u64 at = vm.device_next;
    if (end - physical >= LARGE_BYTES) /* the same place in a large page as in physical memory */
        at = round_up(at, LARGE_BYTES) + physical % LARGE_BYTES;
    void *window = (void *)(at + from.v % PAGE_BYTES);

    while (physical < end) {
        bool large = physical % LARGE_BYTES == 0 && end - physical >= LARGE_BYTES;
        u64 step = large ? LARGE_BYTES : PAGE_BYTES;
        if (!map_page(at, physical, flags, large ? 2 : 1))
            return NULL;
        physical += step;
        at += step;
    }
    vm.device_next = at + PAGE_BYTES; /* a gap: running over the end faults */
    return window;
}

err vm_identity(paddr page, bool on)
{
    return map_page(page.v, page.v, on ? access_flags[VM_EXECUTE] : 0, 1) ? OK : E_NOMEM;
}

u8 *vm_stack(usize bytes)
{
    u8 *low = pages_alloc(bytes + PAGE_BYTES);

    if (!low)
        return NULL;
    vm_protect(low, PAGE_BYTES, VM_NONE);
    return low + PAGE_BYTES + bytes;
}

/* ---- generated code ---- */

void *code_alloc(usize bytes)
{
    return pages_alloc(bytes);
}

err code_seal(void *code, usize bytes)
{
    vm_protect(code, bytes, VM_EXECUTE);
    smp_tlb_flush(); /* the other cores may still know the pages as not executable */
    return OK;
}
