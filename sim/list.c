/*
 * list.c: `radeon disasm`: code as text, one instruction a line with its address and words.
 * Knows files and lines; what an instruction is, isa.c knows.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/elf.h"
#include "sim/isa.h"
#include "sim/radeon.h"

#define TEXT_MAX 256u

static const char usage[] =
    "usage: radeon disasm FILE    the functions of a code object, or raw machine code\n"
    "       radeon disasm --hex   lines of hexadecimal bytes on stdin, an instruction each; "
    "prints\n"
    "                             its bytes and text, or - when it is none\n"
    "       radeon disasm --rows  the names of all instructions\n";

/* The name of the function that begins here, if one does. */
static struct str label_at(const struct code_object *code, u64 address)
{
    struct object_function function;

    for (u32 n = 0; object_function(code, n, &function); n++)
        if (function.address == address)
            return function.name;
    return (struct str){};
}

static void list_code(const u8 *code, usize bytes, u64 address, const struct code_object *object)
{
    struct isa_inst inst;
    char text[TEXT_MAX];

    for (usize at = 0; at < bytes; at += inst.bytes) {
        struct str label = object ? label_at(object, address + at) : (struct str){};

        if (label.len)
            printf("%s%.*s:\n", at ? "\n" : "", (int)label.len, label.ptr);
        if (isa_decode(code + at, bytes - at, &inst) != OK)
            snprintf(text, sizeof(text), ".long");
        else
            isa_print(&inst, address + at, text, sizeof(text));
        if (inst.op == ISA_s_code_end)
            continue; /* padding behind a function */
        printf("%012llx:  %-64s", (unsigned long long)(address + at), text);
        for (usize i = 0; i < inst.bytes && at + i + 4 <= bytes; i += 4) {
            u32 word;

            memcpy(&word, code + at + i, 4);
            printf(" %08x", word);
        }
        printf("\n");
    }
}

static int list_object(const u8 *file, usize bytes)
{
    struct code_object code;

    radeon_show_log();
    if (object_open(file, bytes, &code) != OK)
        return 1;
    for (u32 n = 0; n < code.segment_count; n++) {
        const struct code_segment *segment = &code.segment[n];

        if (segment->execute)
            list_code(code.file + segment->offset, segment->file_bytes, segment->address, &code);
    }
    return 0;
}

static bool is_object(const u8 *file, usize bytes)
{
    struct str all = {(const char *)file, bytes};

    return str_starts(all, STR("\x7f"
                               "ELF")) ||
           str_starts(all, STR("__CLANG_OFFLOAD_BUNDLE__"));
}

static void list_rows(void)
{
    for (u32 op = ISA_NONE + 1; op < ISA_OPS; op++)
        printf("%s\n", isa_rows[op].name);
}

static void list_hex(void)
{
    char line[TEXT_MAX], text[TEXT_MAX];
    u8 code[TEXT_MAX / 2];
    struct isa_inst inst;

    while (fgets(line, sizeof(line), stdin)) {
        usize bytes = 0;

        while (bytes < sizeof(code) && sscanf(line + 2 * bytes, "%2hhx", &code[bytes]) == 1)
            bytes++;
        if (isa_decode(code, bytes, &inst) != OK) {
            printf("-\n");
            continue;
        }
        isa_print(&inst, 0, text, sizeof(text));
        printf("%u\t%s\n", inst.bytes, text);
    }
}

int list_main(int argc, char **argv)
{
    usize bytes;
    u8 *code;
    int result = 0;

    if (argc != 2 || !strcmp(argv[1], "--help")) {
        printf("%s", usage);
        return argc == 2 ? 0 : 2;
    }
    if (!strcmp(argv[1], "--hex")) {
        list_hex();
        return 0;
    }
    if (!strcmp(argv[1], "--rows")) {
        list_rows();
        return 0;
    }
    code = radeon_file(argv[1], &bytes);
    if (is_object(code, bytes))
        result = list_object(code, bytes);
    else
        list_code(code, bytes, 0, NULL);
    free(code);
    return result;
}
