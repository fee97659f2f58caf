/*
 * elf.h: AMD GPU code objects (ELF, versions 4 to 6, alone or in clang's bundle): where kernels
 * are, what their descriptors and metadata say, the image that is loaded. Follows LLVM's "User
 * Guide for AMDGPU Backend", sections "Code Object" and "Kernel Descriptor".
 */
#ifndef NOHOST_SIM_ELF_H
#define NOHOST_SIM_ELF_H

#include "kernel/base.h"

#define KERNEL_ARGS_MAX   128u
#define CODE_IMAGE_MAX    (256 * MIB)
#define CODE_SEGMENTS_MAX 16u

/* A checked file. Its bytes are the caller's and must stay. */
struct code_object {
    const u8 *file;
    usize bytes;
    u64 span; /* bytes of the loaded image, from address 0 of the file's own addresses */
    struct code_segment {
        u64 address, offset, file_bytes, bytes;
        bool write, execute;
    } segment[CODE_SEGMENTS_MAX];
    u32 segment_count;
    struct code_table {
        u64 offset, count;
    } symbols, relocations; /* .dynsym, .rela.dyn; in the file */
    struct str strings, metadata;
};

/* What fills an argument's place. */
enum kernel_arg_kind {
    KERNEL_ARG_VALUE,
    KERNEL_ARG_BUFFER,
    KERNEL_ARG_LDS,     /* the offset of a dynamic part of LDS */
    KERNEL_ARG_OTHER,   /* images, samplers, pipes, queues */
    KERNEL_ARG_COUNT_X, /* hidden ones from here on; _X, _Y, _Z follow each other */
    KERNEL_ARG_COUNT_Y,
    KERNEL_ARG_COUNT_Z,
    KERNEL_ARG_GROUP_X,
    KERNEL_ARG_GROUP_Y,
    KERNEL_ARG_GROUP_Z,
    KERNEL_ARG_REST_X,
    KERNEL_ARG_REST_Y,
    KERNEL_ARG_REST_Z,
    KERNEL_ARG_OFFSET_X,
    KERNEL_ARG_OFFSET_Y,
    KERNEL_ARG_OFFSET_Z,
    KERNEL_ARG_DIMS,
    KERNEL_ARG_DYNAMIC_LDS,
    KERNEL_ARG_PRIVATE_BASE,
    KERNEL_ARG_SHARED_BASE,
    KERNEL_ARG_QUEUE,
    KERNEL_ARG_ZERO, /* printf buffer, hostcall, heap ...: there is none */
};

struct kernel {
    u64 descriptor, entry; /* addresses in the image */
    u32 lds_bytes, scratch_bytes, kernarg_bytes;
    u32 rsrc1, rsrc2, rsrc3, properties;
    bool wave32, dynamic_stack;
    struct kernel_arg {
        u32 offset, bytes;
        enum kernel_arg_kind kind;
    } arg[KERNEL_ARGS_MAX];
    u32 arg_count;
};

/* Of kernel.properties: which user SGPRs are set up, in this order. */
enum {
    KERNEL_PRIVATE_BUFFER = 1 << 0, /* 4 SGPRs */
    KERNEL_DISPATCH_PTR = 1 << 1,   /* 2 each */
    KERNEL_QUEUE_PTR = 1 << 2,
    KERNEL_KERNARG_PTR = 1 << 3,
    KERNEL_DISPATCH_ID = 1 << 4,
    KERNEL_FLAT_SCRATCH = 1 << 5,
    KERNEL_PRIVATE_SIZE = 1 << 6, /* 1 */
    KERNEL_WAVE32 = 1 << 10,
    KERNEL_DYNAMIC_STACK = 1 << 11,
};

/* ---- elf.c: each logs what was wrong with the file ---- */

/* E_FORMAT, E_UNSUPPORTED (another chip, another version), E_LIMIT. */
err object_open(const u8 *file, usize bytes, struct code_object *code);
/* Fills `image` (code->span bytes) as it is to be at address `base`. */
err object_load(const struct code_object *code, u64 base, u8 *image);
/* E_NOTFOUND when there is no kernel of this name. */
err object_kernel(const struct code_object *code, struct str name, struct kernel *kernel);
/* The n-th function, to walk them; false behind the last. */
struct object_function {
    struct str name;
    u64 address, bytes;
};
bool object_function(const struct code_object *code, u32 n, struct object_function *function);
/* Bytes of the file at an address of the image; NULL when not all of them are in it. */
const u8 *object_at(const struct code_object *code, u64 address, u64 bytes);

/* ---- metadata.c ---- */

/* The arguments of `name` from the note's MessagePack. E_FORMAT, E_NOTFOUND, E_LIMIT. */
err metadata_kernel(struct str metadata, struct str name, struct kernel *kernel);

#endif
