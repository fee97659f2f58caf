/*
 * pci_fake.c: config spaces as PCI Express Base 5.0, 7.5, describes them, with switches to
 * misbehave.
 */
#include "tests/pci_fake.h"

#include <string.h>

#define RESET_SILENCE_NS (50 * NS_PER_MS)

u8 fake_bar_bytes[65536];
u32 fake_vectors_taken;

/* ---- the kernel's services ---- */

void *vm_map_device(paddr from, u64 bytes, enum vm_cache cache)
{
    (void)from;
    (void)cache;
    return bytes <= sizeof(fake_bar_bytes) ? fake_bar_bytes : NULL;
}

void *pages_alloc_aligned(usize bytes, usize align)
{
    u8 *ptr = pages_alloc(bytes + (align > PAGE_BYTES ? align : 0)); /* the tests end soon */

    return ptr ? ptr + (-(usize)ptr & (align - 1)) : NULL;
}

/* As few bits as a real machine's memory has. */
paddr vm_physical(const void *ptr)
{
    return (paddr){(usize)ptr & FAKE_PHYSICAL_MASK};
}


struct cpuid cpu_id(u32 leaf, u32 subleaf)
{
    (void)subleaf;
    return (struct cpuid){.eax = leaf == 0x80000008 ? 48 : 0}; /* physical address bits */
}

u64 irq_message_address(void)
{
    return 0xfee01000;
}

err irq_take(void (*handler)(void *ctx), void *ctx, u8 *vector)
{
    (void)handler;
    (void)ctx;
    if (fake_vectors_taken == 40)
        return E_LIMIT;
    *vector = (u8)(0x30 + fake_vectors_taken++);
    return OK;
}

/* ---- config space ---- */

u32 fake_get(const struct fake_function *f, u32 at, u32 width)
{
    u32 value = 0;
    memcpy(&value, f->config + at, width);
    return value;
}

void fake_put(struct fake_function *f, u32 at, u32 width, u32 value)
{
    memcpy(f->config + at, &value, width);
}

static u64 config_read(void *ctx, u64 offset, u32 width)
{
    struct fake_function *f = ctx;
    bool silent = f->gone || (f->reset_ns && time_ns() - f->reset_ns < RESET_SILENCE_NS);

    CHECK(offset + width <= sizeof(f->config));
    return silent ? UINT32_MAX >> (32 - 8 * width) : fake_get(f, (u32)offset, width);
}

static void config_write(void *ctx, u64 offset, u32 width, u64 value)
{
    struct fake_function *f = ctx;
    u32 express = fake_get(f, 52, 1);
    u32 bars = (f->config[14] & 0x7f) == 1 ? 2 : 6;

    CHECK(offset + width <= sizeof(f->config));
    if (offset >= 16 && offset < 16 + 4 * bars && width == 4) {
        u32 idx = (u32)(offset - 16) / 4, fixed = fake_get(f, (u32)offset, 4) & ~f->bar_mask[idx];
        fake_put(f, (u32)offset, 4, ((u32)value & f->bar_mask[idx]) | fixed);
        return;
    }
    if (f->config[express] == 0x10 && offset == express + 8u && value & 0x8000) {
        f->resets++;
        f->reset_ns = time_ns();
        fake_put(f, 4, 2, 0);
        for (u32 i = 0; i < bars; i++)
            fake_put(f, 16 + 4 * i, 4, fake_get(f, 16 + 4 * i, 4) & ~f->bar_mask[i]);
        return;
    }
    fake_put(f, (u32)offset, width, (u32)value);
}

static bool find_function(void *ctx, u8 bus, u8 device, u8 function, struct mmio *config)
{
    static const struct mmio_ops ops = {config_read, config_write};
    struct fake_bus *fake = ctx;

    for (u32 i = 0; i < fake->count; i++) {
        struct fake_function *f = &fake->at[i];
        if (f->bus != bus || f->device != device || f->function != function)
            continue;
        *config = (struct mmio){.bytes = sizeof(f->config), .ops = &ops, .ctx = f};
        return true;
    }
    return false;
}

/* ---- building ---- */

struct fake_bus *fake_bus_new(void)
{
    static struct fake_bus fake;

    memset(&fake, 0, sizeof(fake));
    memset(fake_bar_bytes, 0, sizeof(fake_bar_bytes));
    fake_vectors_taken = 0;
    fake.ecam = (struct pci_ecam){
        .base = 0xe0000000, .bus_last = 255, .function = find_function, .ctx = &fake};
    return &fake;
}

struct fake_function *fake_add(struct fake_bus *fake, u8 bus, u8 device, u8 function, u32 ids)
{
    CHECK(fake->count < FAKE_FUNCTIONS_MAX);
    struct fake_function *f = &fake->at[fake->count++];

    f->bus = bus;
    f->device = device;
    f->function = function;
    fake_put(f, 0, 4, ids);
    fake_put(f, 4, 2,
             7); /* as firmware leaves a device that it has used: decoding, bus mastering */
    return f;
}

void fake_bar(struct fake_function *f, u32 idx, u32 bytes, u32 base)
{
    f->bar_mask[idx] = ~(bytes - 1);
    fake_put(f, 16 + 4 * idx, 4, base);
}

void fake_bridge(struct fake_function *f, u8 secondary, u8 subordinate, u16 base, u16 limit)
{
    fake_put(f, 8, 4, 0x06040000);
    fake_put(f, 14, 1, 1);
    fake_put(f, 24, 4, (u32)subordinate << 16 | (u32)secondary << 8 | f->bus);
    fake_put(f, 32, 2, base);
    fake_put(f, 34, 2, limit);
    fake_put(f, 36, 2, 0xfff1); /* prefetchable window: shut */
    fake_put(f, 38, 2, 1);
}

err fake_start(struct fake_bus *fake)
{
    return pci_start(&fake->bus, &fake->ecam, 1);
}
