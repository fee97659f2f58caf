/*
 * handoff.h: THE contract loader -> kernel. One versioned struct, fixed widths, physical addresses
 * only. The loader owns nothing after the jump. Facts: UEFI 2.10 section 7.2 (memory types), 12.9
 * (graphics output).
 */
#ifndef NOHOST_HANDOFF_H
#define NOHOST_HANDOFF_H

#include <stdint.h>

#define HANDOFF_MAGIC   0x54534f484f4e3031ull /* "10NOHOST" */
#define HANDOFF_VERSION 3u
/* All RAM of the ranges is readable and writable here, never executable. */
#define HANDOFF_DIRECT_MAP 0xffff800000000000ull
/* Kernel segments lie between this and the top of memory. */
#define HANDOFF_KERNEL_LOW    0xffffffff80000000ull
#define HANDOFF_RANGES_MAX    1024u
#define HANDOFF_FILES_MAX     64u
#define HANDOFF_NAME_MAX      96u
#define HANDOFF_ENTROPY_BYTES 64u

enum handoff_range_kind {
    HANDOFF_FREE = 1, /* ordinary RAM, nobody's */
    HANDOFF_KEPT,     /* kernel, page tables, this struct, files, tables and code of the firmware */
};

struct handoff {
    uint64_t magic;
    uint32_t version;
    uint32_t bytes; /* sizeof(struct handoff) of the writer */
    uint64_t rsdp;
    uint64_t kernel_base, kernel_bytes; /* physical image, as placed */
    uint64_t page_table;                /* CR3 that the loader built */
    uint64_t low_page;           /* a kept one below 1 MiB, for the start of cores; 0: none */
    int64_t unix_s;              /* GetTime() at boot; 0: not known */
    struct handoff_framebuffer { /* 32 bits a pixel */
        uint64_t base;           /* 0: none */
        uint64_t bytes;
        uint32_t width, height; /* pixels */
        uint64_t stride;        /* pixels per line */
    } framebuffer;
    uint8_t entropy[HANDOFF_ENTROPY_BYTES];
    uint64_t entropy_bytes; /* how many of them are real (0: the machine offered none) */
    uint32_t range_count, file_count;
    struct handoff_range { /* of RAM, in no order, no overlap */
        uint64_t base;     /* page aligned */
        uint64_t bytes;    /* page multiple */
        uint64_t kind;
    } ranges[HANDOFF_RANGES_MAX];
    struct handoff_file { /* the first is nohost.conf */
        char
            name[HANDOFF_NAME_MAX]; /* path on the boot partition, '/' between folders, ends in 0 */
        uint64_t base;              /* page aligned; one run of kept pages that may become free */
        uint64_t bytes;
        uint64_t
            status; /* low 31 bits of the EFI_STATUS that reading ended with; 0: all is there */
    } files[HANDOFF_FILES_MAX];
};

#endif
