/*
 * handoff.h: THE contract loader -> kernel. One versioned struct, fixed widths, physical addresses
 * only. The loader owns nothing after the jump: every page it used is listed in the memory map as
 * what it is. Facts: UEFI 2.10 section 7.2 (memory types), 12.9 (graphics output).
 */
#ifndef NOHOST_HANDOFF_H
#define NOHOST_HANDOFF_H

#include <stdint.h>

#define HANDOFF_MAGIC   0x54534f484f4e3031ull /* "10NOHOST" */
#define HANDOFF_VERSION 1u
/* All RAM of the map (free, kept, file, ACPI, runtime) is readable and writable here, never
 * executable. */
#define HANDOFF_DIRECT_MAP 0xffff800000000000ull
#define HANDOFF_KERNEL_LOW                                                                         \
    0xffffffff80000000ull /* kernel segments lie between this and the top of memory */
#define HANDOFF_RANGES_MAX    512u
#define HANDOFF_FILES_MAX     64u
#define HANDOFF_NAME_MAX      96u
#define HANDOFF_ENTROPY_BYTES 64u

enum handoff_range_kind {
    HANDOFF_FREE = 1, /* ordinary RAM, nobody's */
    HANDOFF_KEPT,     /* kernel image, page tables, this struct: never given out */
    HANDOFF_FILE,     /* bytes of a file of the table: becomes free page by page when released */
    HANDOFF_ACPI,     /* ACPI tables: read, then kept */
    HANDOFF_RUNTIME,  /* UEFI runtime services */
    HANDOFF_DEVICE,   /* memory-mapped I/O or reserved: not RAM */
};

struct handoff_range {
    uint64_t base;  /* page aligned */
    uint64_t bytes; /* page multiple */
    uint32_t kind;
    uint32_t file; /* index into files when kind is HANDOFF_FILE */
};

struct handoff_file {
    char name[HANDOFF_NAME_MAX]; /* path on the boot partition, '/' between folders, ends in 0 */
    uint64_t base;               /* physical, page aligned; one contiguous run */
    uint64_t bytes;
    uint32_t status; /* 0: whole file is there; otherwise the loader could not read it (low 31 bits
                        of EFI_STATUS) */
    uint32_t reserved;
};

struct handoff_framebuffer {
    uint64_t base; /* 0: none */
    uint64_t bytes;
    uint32_t width, height; /* pixels */
    uint32_t stride;        /* pixels per line */
    uint32_t format;        /* 0: RGBX, 1: BGRX, 8 bits each */
};

struct handoff {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes; /* sizeof(struct handoff) of the writer */
    uint64_t rsdp;
    uint64_t efi_system_table;          /* for ResetSystem at run time */
    uint64_t kernel_base, kernel_bytes; /* physical image, as placed */
    uint64_t page_table;                /* CR3 that the loader built */
    uint64_t boot_ns;                   /* loader's TSC estimate: time spent in the loader */
    int64_t unix_s;                     /* GetTime() at boot; 0: not known */
    struct handoff_framebuffer framebuffer;
    uint8_t entropy[HANDOFF_ENTROPY_BYTES];
    uint32_t entropy_bytes; /* how many of them are real (0: the machine offered none) */
    uint32_t range_count;
    uint32_t file_count;
    uint32_t reserved;
    struct handoff_range ranges[HANDOFF_RANGES_MAX]; /* sorted by base, no overlap */
    struct handoff_file files[HANDOFF_FILES_MAX];
};

_Static_assert(sizeof(struct handoff_range) == 24, "handoff_range is a contract");
_Static_assert(sizeof(struct handoff_file) == HANDOFF_NAME_MAX + 24, "handoff_file is a contract");

#endif
