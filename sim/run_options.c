/*
 * run_options.c: the command line of `radeon run`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/radeon.h"
#include "sim/run.h"

static const char usage[] =
    "usage: radeon run FILE --kernel NAME --grid X[,Y[,Z]] --block X[,Y[,Z]] [--arg ARGUMENT]...\n"
    "\n"
    "Runs a kernel of a gfx1100 code object (as clang and hipcc make them) and prints the ledger "
    "as\n"
    "JSON. The grid is in work-items. Exit code 0: ran, buffers are written; 1: the kernel "
    "failed,\n"
    "stderr says why and where; 2: it could not be started.\n"
    "\n"
    "arguments, in the kernel's order:\n"
    "  in:PATH           a buffer with the file's bytes, read-only\n"
    "  inout:PATH        the same, written back\n"
    "  out:BYTES:PATH    a buffer of unknown bytes, written to the file\n"
    "  u32:N u64:N f32:X a value\n"
    "  hex:BYTES         a value in memory order, such as hex:0100ff7f\n"
    "  lds:BYTES         a __local pointer\n"
    "\n"
    "options:\n"
    "  --strict          out-of-order memory, hazards, unknown bytes: each a failure (standard)\n"
    "  --fast            none of it, on every core\n"
    "  --lenient         findings are printed and the kernel goes on; for experiments\n"
    "  --seed N          of every random choice; the same seed runs the same way\n"
    "  --lds BYTES       LDS besides what the kernel has, as a HIP launch gives\n"
    "  --scratch BYTES   stack of a work-item, at least\n"
    "  --limit N         fail after so many instructions of waves\n"
    "\n"
    "example: radeon run add.hsaco --kernel add --grid 1000 --block 64 \\\n"
    "             --arg in:a.bin --arg inout:b.bin --arg u32:1000 --arg f32:0.5\n";

static u64 number(const char *text, const char *what)
{
    char *end;
    u64 value = strtoull(text, &end, 0);

    if (!*text || *end || *text == '-')
        radeon_fail("%s: want a number, see '%s'", what, text);
    return value;
}

static u32 number32(const char *text, const char *what)
{
    u64 value = number(text, what);

    if (value > UINT32_MAX)
        radeon_fail("%s: %s is too large", what, text);
    return (u32)value;
}

static u32 axes(const char *text, const char *what, u32 out[3])
{
    char part[32];
    u32 count = 0;

    out[0] = out[1] = out[2] = 1;
    for (const char *at = text; *at && count < 3; count++) {
        usize len = strcspn(at, ",");

        snprintf(part, sizeof(part), "%.*s", (int)len, at);
        out[count] = number32(part, what);
        if (!out[count])
            radeon_fail("%s: no axis may be 0", what);
        at += len + (at[len] == ',');
    }
    if (!count)
        radeon_fail("%s: want X,Y,Z, see '%s'", what, text);
    return count;
}

static void read_hex(const char *text, struct run_arg *arg)
{
    u32 byte;

    arg->kind = RUN_BYTES;
    for (; *text; text += 2) {
        if (arg->bytes == RUN_ARG_BYTES_MAX || sscanf(text, "%2x", &byte) != 1 || !text[1])
            radeon_fail("--arg hex: want up to %u bytes in hexadecimal", RUN_ARG_BYTES_MAX);
        arg->data[arg->bytes++] = (u8)byte;
    }
}

static void read_out(const char *text, struct run_arg *arg)
{
    const char *colon = strchr(text, ':');
    char bytes[32];

    if (!colon)
        radeon_fail("--arg out: want out:BYTES:PATH");
    snprintf(bytes, sizeof(bytes), "%.*s", (int)(colon - text), text);
    arg->kind = RUN_OUT;
    arg->bytes = number(bytes, "--arg out");
    arg->path = colon + 1;
}

static void read_float(const char *text, struct run_arg *arg)
{
    char *end;
    f32 value = strtof(text, &end);
    u32 bits;

    if (!*text || *end)
        radeon_fail("--arg f32: want a number, see '%s'", text);
    memcpy(&bits, &value, 4);
    *arg = (struct run_arg){.kind = RUN_VALUE, .bytes = 4, .value = bits};
}

static void read_arg(const char *text, struct run_options *options)
{
    struct run_arg *arg = &options->arg[options->arg_count];
    const char *value = strchr(text, ':');
    usize len = value ? (usize)(value++ - text) : 0;
    struct str kind = {text, len};

    if (options->arg_count++ == RUN_ARGS_MAX)
        radeon_fail("over %u arguments", RUN_ARGS_MAX);
    if (str_eq(kind, STR("in")) || str_eq(kind, STR("inout")))
        *arg = (struct run_arg){.kind = len == 2 ? RUN_IN : RUN_INOUT, .path = value};
    else if (str_eq(kind, STR("out")))
        read_out(value, arg);
    else if (str_eq(kind, STR("u32")))
        *arg = (struct run_arg){.kind = RUN_VALUE, .bytes = 4, .value = number32(value, "u32")};
    else if (str_eq(kind, STR("u64")))
        *arg = (struct run_arg){.kind = RUN_VALUE, .bytes = 8, .value = number(value, "u64")};
    else if (str_eq(kind, STR("f32")))
        read_float(value, arg);
    else if (str_eq(kind, STR("hex")))
        read_hex(value, arg);
    else if (str_eq(kind, STR("lds")))
        *arg = (struct run_arg){.kind = RUN_LDS, .bytes = number32(value, "lds")};
    else
        radeon_fail("--arg: no such kind in '%s'", text);
}

/* An option with a value; false when it is none. */
static bool read_option(const char *name, const char *value, struct run_options *options)
{
    if (!strcmp(name, "--kernel"))
        options->kernel = value;
    else if (!strcmp(name, "--grid"))
        options->dims = axes(value, name, options->grid);
    else if (!strcmp(name, "--block"))
        axes(value, name, options->block);
    else if (!strcmp(name, "--arg"))
        read_arg(value, options);
    else if (!strcmp(name, "--seed"))
        options->seed = number(value, name);
    else if (!strcmp(name, "--lds"))
        options->lds_bytes = number32(value, name);
    else if (!strcmp(name, "--scratch"))
        options->scratch_bytes = number32(value, name);
    else if (!strcmp(name, "--limit"))
        options->limit = number(value, name);
    else
        return false;
    return true;
}

static bool read_flag(const char *name, struct run_options *options)
{
    bool strict = !strcmp(name, "--strict"), fast = !strcmp(name, "--fast");

    if (!strict && !fast && strcmp(name, "--lenient"))
        return false;
    options->fast = fast;
    options->lenient = !strict && !fast;
    return true;
}

int run_main(int argc, char **argv)
{
    struct run_options options = {.seed = 1, .limit = RUN_LIMIT_STANDARD};
    u64 items;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            printf("%s", usage);
            return 0;
        }
        if (read_flag(argv[i], &options))
            continue;
        if (argv[i][0] == '-') {
            if (i + 1 == argc || !read_option(argv[i], argv[i + 1], &options))
                radeon_fail("run: bad option %s, see radeon run --help", argv[i]);
            i++;
        } else if (!options.path) {
            options.path = argv[i];
        } else {
            radeon_fail("run: one file, see '%s' too", argv[i]);
        }
    }
    if (!options.path || !options.kernel || !options.grid[0] || !options.block[0])
        radeon_fail("run: want FILE, --kernel, --grid and --block, see radeon run --help");
    items = (u64)options.block[0] * options.block[1] * options.block[2];
    if (options.block[0] > RUN_GROUP_MAX || options.block[1] > RUN_GROUP_MAX ||
        items > RUN_GROUP_MAX)
        radeon_fail("--block: %llu work-items, a group may have %u", (unsigned long long)items,
                    RUN_GROUP_MAX);
    radeon_show_log();
    return run_kernel(&options);
}
