/*
 * fuzz_code_object.c: any bytes as a code object; what is accepted is then loaded, and every kernel
 * and function of it looked up. Seeds: tests/data/fuzz_code_object.
 */
#include <stdlib.h>

#include "sim/elf.h"
#include "sim/isa.h"

#define NAMES_MAX  64u
#define SPAN_MAX   MIB
#define BASE       0x123400000000ull
#define TEXT_BYTES 256u

int LLVMFuzzerTestOneInput(const u8 *data, usize size);

static void load(const struct code_object *code)
{
    u8 *image = malloc(code->span + 1);
    err loaded;

    CHECK(image);
    loaded = object_load(code, BASE, image);
    CHECK(loaded == OK || loaded == E_FORMAT || loaded == E_UNSUPPORTED || loaded == E_NOTFOUND);
    free(image);
}

/* What is decoded is never longer than what was given, and can be printed. */
static void read_code(const u8 *code, u64 bytes)
{
    char text[TEXT_BYTES];
    struct isa_inst inst;

    for (u64 at = 0; at < bytes; at += inst.bytes) {
        if (isa_decode(code + at, bytes - at, &inst) == OK) {
            CHECK(inst.bytes <= bytes - at);
            isa_print(&inst, at, text, sizeof(text));
        }
        CHECK(inst.bytes >= 4);
    }
}

static void use(const struct code_object *code)
{
    struct object_function function;
    struct kernel kernel;

    for (u32 n = 0; n < NAMES_MAX && object_function(code, n, &function); n++) {
        read_code(object_at(code, function.address, function.bytes), function.bytes);
        if (object_kernel(code, function.name, &kernel) != OK)
            continue;
        CHECK(object_at(code, kernel.entry, 4));
        for (u32 a = 0; a < kernel.arg_count; a++)
            CHECK(kernel.arg[a].offset + (u64)kernel.arg[a].bytes <= kernel.kernarg_bytes);
    }
    if (code->span <= SPAN_MAX)
        load(code);
}

int LLVMFuzzerTestOneInput(const u8 *data, usize size)
{
    struct code_object code;

    if (object_open(data, size, &code) == OK)
        use(&code);
    else
        read_code(data, size);
    return 0;
}
