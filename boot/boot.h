/*
 * boot.h: what the files of the loader share, grouped by file. Everything here lives until
 * ExitBootServices; only what boot/handoff.h describes lives on.
 */
#ifndef NOHOST_BOOT_H
#define NOHOST_BOOT_H

#include <efi.h>

#include "boot/handoff.h"
#include "kernel/paging.h"

/* ---- loader.c ---- */

/* One for the whole program: CHECK has no other way to the console. */
extern struct loader {
    EFI_HANDLE image;
    EFI_SYSTEM_TABLE *table;
    EFI_BOOT_SERVICES *services;
    struct handoff *handoff;
    u8 *map; /* room for the firmware's memory map */
} boot;

/* Text on the firmware's console, which firmware mirrors to serial where it has one. */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);
/* The end of the road: says why, waits so that it can be read, resets. */
__attribute__((noreturn, format(printf, 1, 2))) void stop(const char *format, ...);
/* The last instructions of the loader: the kernel runs, in its own page tables. */
__attribute__((noreturn)) void kernel_jump(u64 handoff, u64 page_table, u64 entry);
/* Zeroed pages below `below`; stops when there are none. */
void *loader_pages(EFI_MEMORY_TYPE type, u64 bytes, u64 below);
/* Fills handoff->ranges; returns the key that ExitBootServices wants. */
UINTN memory_map_read(void);

/* ---- file.c ---- */

/* Reads all files with progress bars; returns where the kernel is entered. */
u64 files_load(void);

/* ---- image.c ---- */

/* Places the kernel's ELF file and builds its page tables; stops when it is damaged. Returns the
 * entry. */
u64 image_load(struct str elf);

#endif
