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

struct loader {
    EFI_HANDLE image;
    EFI_SYSTEM_TABLE *table;
    EFI_BOOT_SERVICES *services;
    EFI_FILE_HANDLE root; /* of the boot partition; NULL: there is no file system */
    struct handoff *handoff;
    u64 tsc_start, tsc_per_ms;
};

/* One line on the firmware's console, which firmware mirrors to serial where it has one. */
__attribute__((format(printf, 2, 3))) void say(const struct loader *loader, const char *format,
                                               ...);
/* The end of the road: says why, waits so that it can be read, resets. */
__attribute__((noreturn, format(printf, 2, 3))) void stop(const struct loader *loader,
                                                          const char *format, ...);
/* Pages below `below` (0: anywhere); NULL when there are none. */
void *loader_pages(const struct loader *loader, EFI_MEMORY_TYPE type, u64 bytes, u64 below);

/* ---- file.c ---- */

void file_volume_open(struct loader *loader);
/* Reads a whole file into pages of `type`, with a progress bar. file->status tells how it went. */
void file_load(const struct loader *loader, struct str path, EFI_MEMORY_TYPE type,
               struct handoff_file *file);
/* First name in the root folder, in alphabetical order, that ends in ".gguf"; E_NOTFOUND. */
err file_find_model(const struct loader *loader, struct text *name);

/* ---- image.c ---- */

struct image {
    u64 physical, bytes; /* as placed */
    u64 entry;           /* virtual */
    u64 page_table;
};

/* Checks every header of the ELF file before anything of it is used; places the segments. */
err image_place(const struct loader *loader, struct str elf, struct image *image);
/* Builds the page tables: segments W^X, direct map of the RAM, the firmware's own map below. */
err image_map(const struct loader *loader, struct str elf, struct image *image);

/* ---- memory.c ---- */

/* Page tables above need to know where RAM ends. */
err memory_map_read(const struct loader *loader, UINTN *key);
/* Leaves the firmware for good, with handoff->ranges describing the memory as it is then. */
err memory_map_leave(const struct loader *loader);

/* ---- enter.S ---- */

u64 cpu_cr4(void);
__attribute__((noreturn)) void kernel_jump(u64 handoff, u64 page_table, u64 entry);

#endif
