/*
 * vm.c: the kernel's address space: rights of pages, device memory, generated code, guards. W^X
 * holds for every address: code is written while its pages are not executable. Must not know who
 * owns a page.
 */
#include "kernel/kernel.h"

#define DEVICE_LOW  0xffffc00000000000ull
#define KERNEL_HALF 256u /* first entry of the root table above 2^47 */

static void *table_page(void)
{
    return pages_alloc(PAGE_BYTES);
}

static struct {
    struct paging paging;
    u64 device_next;
} vm = {{NULL, HANDOFF_DIRECT_MAP, table_page}, DEVICE_LOW};

static const u64 access_flags[] = {
    [VM_NONE] = 0,
    [VM_WRITE] = PAGE_PRESENT | PAGE_WRITE | PAGE_NO_EXECUTE,
    [VM_EXECUTE] = PAGE_PRESENT,
};

extern u8 boot_stack_guard[];

void vm_protect(void *from, usize bytes, enum vm_access access)
{
    u64 at = (usize)from, end = at + round_up(bytes, PAGE_BYTES);

    CHECK(at % PAGE_BYTES == 0);
    for (; at < end; at += PAGE_BYTES) {
        u64 *entry = paging_entry(&vm.paging, at, 1);
        CHECK(entry);
        *entry = access == VM_NONE ? 0 : (*entry & PAGE_ADDRESS) | access_flags[access];
        __asm__ volatile("invlpg (%0)" : : "r"(at) : "memory");
    }
}

void vm_start(const struct handoff *handoff)
{
    vm.paging.root = (u64 *)(HANDOFF_DIRECT_MAP + handoff->page_table);
    memset(vm.paging.root, 0, KERNEL_HALF * sizeof(u64)); /* also makes address 0 fault */
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

void *vm_map_device(paddr from, u64 bytes, enum vm_cache cache)
{
    static const u64 cache_flags[] = {
        [VM_UNCACHED] = PAGE_UNCACHED,
        [VM_WRITE_COMBINING] = PAGE_WRITE_COMBINING,
    };
    u64 physical = from.v & ~(PAGE_BYTES - 1);
    u64 mapped = round_up(from.v + bytes, PAGE_BYTES) - physical;
    u64 at = vm.device_next;
    if (mapped >= LARGE_BYTES) /* the same place in a large page as in physical memory */
        at = round_up(at, LARGE_BYTES) + physical % LARGE_BYTES;

    vm.device_next = at + mapped + PAGE_BYTES; /* a gap: running over the end faults */
    u64 flags = access_flags[VM_WRITE] | cache_flags[cache];
    return paging_map(&vm.paging, at, physical, mapped, flags) ? (void *)(at + from.v - physical)
                                                               : NULL;
}

bool vm_identity(paddr page)
{
    return paging_map(&vm.paging, page.v, page.v, PAGE_BYTES, access_flags[VM_EXECUTE]);
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
