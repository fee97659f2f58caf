/*
 * pci_fake.h: a bus of make-believe functions for the tests of pci/: config spaces that answer
 * sizing and can lie, and the few services of the kernel that the room uses.
 */
#ifndef NOHOST_TESTS_PCI_FAKE_H
#define NOHOST_TESTS_PCI_FAKE_H

#include "kernel/kernel.h"
#include "pci/pci.h"

#define FAKE_FUNCTIONS_MAX 16u
#define FAKE_PHYSICAL_MASK ((1ull << 44) - 1)

struct fake_function {
    u8 bus, device, function;
    u8 config[4096];
    u32 bar_mask[6]; /* bits that stick when written */
    bool gone;       /* answers all ones */
    u32 resets;
    u64 reset_ns; /* when the last reset began: no answer for 50 ms */
};

struct fake_bus {
    struct fake_function at[FAKE_FUNCTIONS_MAX];
    u32 count;
    struct pci_bus bus;
    struct pci_ecam ecam;
};

/* An empty bus of its own; what the kernel's fakes remember is forgotten. */
struct fake_bus *fake_bus_new(void);
struct fake_function *fake_add(struct fake_bus *fake, u8 bus, u8 device, u8 function, u32 ids);
void fake_put(struct fake_function *f, u32 at, u32 width, u32 value);
u32 fake_get(const struct fake_function *f, u32 at, u32 width);
/* A 32-bit memory BAR of a power of two, placed at `base`. */
void fake_bar(struct fake_function *f, u32 idx, u32 bytes, u32 base);
void fake_bridge(struct fake_function *f, u8 secondary, u8 subordinate, u16 base, u16 limit);
err fake_start(struct fake_bus *fake);

/* What vm_map_device hands out: the same bytes for every BAR. */
extern u8 fake_bar_bytes[65536];
extern u32 fake_vectors_taken;

#endif
