/*
 * boot.h: what the files of the loader share, grouped by file. Everything here lives until
 * ExitBootServices; only what boot/handoff.h describes lives on.
 */
#ifndef NOHOST_BOOT_H
#define NOHOST_BOOT_H

#include <efi.h>

#include "boot/handoff.h"
#include "kernel/base.h"

#define PAGE_BYTES 4096ull

/* ---- loader.c ---- */

/* One for the whole program: CHECK has no other way to the console. */
extern struct loader {
    EFI_HANDLE image;
    EFI_SYSTEM_TABLE *table;
    EFI_BOOT_SERVICES *services;
    EFI_FILE_HANDLE root; /* of the boot partition */
    struct handoff *handoff;
    u8 *map; /* room for the firmware's memory map */
} boot;

/* Text on the firmware's console, which firmware mirrors to serial where it has one. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
/* The end of the road: says why, waits so that it can be read, resets. */
__attribute__((noreturn, format(printf, 1, 2))) void stop(const char *format, ...);
/* Zeroed pages below `below`; stops when there are none. */
void *loader_pages(EFI_MEMORY_TYPE type, u64 bytes, u64 below);

/* ---- file.c ---- */

void file_volume_open(void);
/* Reads a whole file into pages of `type`, with a progress bar. file->status tells how it went. */
void file_load(struct str path, EFI_MEMORY_TYPE type, struct handoff_file *file);
/* First name in the root folder, in alphabetical order, that ends in ".gguf"; empty: none. */
void file_find_model(struct text *name);

/* ---- image.c ---- */

/* Checks every header of the kernel's ELF file, places its segments, builds the page tables:
 * segments W^X, direct map of the RAM, the firmware's own map below. Returns the entry. */
u64 image_load(struct str elf);

/* ---- memory.c ---- */

#define MAP_BYTES (256 * KIB)
/* Fills handoff->ranges; returns the key that ExitBootServices wants. */
UINTN memory_map_read(void);
/* Leaves the firmware for good, with handoff->ranges describing the memory as it is then. */
void memory_map_leave(void);

/* ---- enter.S ---- */

u64 cpu_cr3(void);
u64 cpu_cr4(void);
__attribute__((noreturn)) void kernel_jump(u64 handoff, u64 page_table, u64 entry);

#endif
