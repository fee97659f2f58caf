/*
 * tool.c: options, files and stores of the host instrument. Linux only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/host/tool.h"

void tool_fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("nohost: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

/* ---- options ---- */

const char *tool_option(int argc, char **argv, const char *name)
{
    for (int i = 1; i + 1 < argc; i++)
        if (!strcmp(argv[i], name))
            return argv[i + 1];
    return NULL;
}

const char *tool_required(int argc, char **argv, const char *name)
{
    const char *value = tool_option(argc, argv, name);

    if (!value)
        tool_fail("%s: %s is missing (--help says more)", argv[0], name);
    return value;
}

u64 tool_number(int argc, char **argv, const char *name, u64 standard)
{
    const char *value = tool_option(argc, argv, name);
    u64 number = standard;

    if (value && str_to_u64(str_of(value), &number) != OK)
        tool_fail("%s: %s wants a number, not '%s'", argv[0], name, value);
    return number;
}

bool tool_flag(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], name))
            return true;
    return false;
}

void tool_check(int argc, char **argv, const char *const *known, const char *help)
{
    if (tool_flag(argc, argv, "--help")) {
        printf("%s", help);
        exit(0);
    }
    for (int i = 1; i < argc; i++) {
        usize len = strlen(argv[i]);
        const char *const *name = known;
        while (*name && (strncmp(*name, argv[i], len) || ((*name)[len] && (*name)[len] != '=')))
            name++;
        if (!*name)
            tool_fail("%s: unknown argument '%s' (--help says more)", argv[0], argv[i]);
        if ((*name)[len] == '=' && ++i == argc)
            tool_fail("%s: %s wants a value", argv[0], argv[i - 1]);
    }
}

/* ---- files ---- */

char *tool_file(const char *path, usize *len)
{
    FILE *file = strcmp(path, "-") ? fopen(path, "rb") : stdin;
    usize cap = 1 << 16, got;
    char *text = malloc(cap + 1);

    if (!file || !text)
        tool_fail("%s: %s", path, strerror(errno));
    for (*len = 0; (got = fread(text + *len, 1, cap - *len, file)) > 0;) {
        *len += got;
        if (*len == cap && !(text = realloc(text, (cap *= 2) + 1)))
            tool_fail("%s: out of memory", path);
    }
    if (ferror(file))
        tool_fail("%s: %s", path, strerror(errno));
    if (file != stdin)
        fclose(file);
    text[*len] = 0;
    return text;
}

static err store_pread(struct store *store, u64 offset, void *out, usize bytes)
{
    int file = (int)(intptr_t)store->ctx;

    for (usize done = 0; done < bytes;) {
        ssize_t got = pread(file, (char *)out + done, bytes - done, (off_t)(offset + done));
        if (got <= 0)
            return E_IO;
        done += (usize)got;
    }
    return OK;
}

static struct store open_store(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;

    if (file < 0 || fstat(file, &info))
        tool_fail("%s: %s", path, strerror(errno));
    return (struct store){.name = strdup(path), .bytes = (u64)info.st_size,
                          .ctx = (void *)(intptr_t)file, .read = store_pread};
}

u32 tool_model(const char *path, struct store part[ML_PARTS_MAX])
{
    const char *mark = strstr(path, "-00001-of-");
    unsigned count = 1;

    if (mark && (sscanf(mark, "-00001-of-%5u", &count) != 1 || count < 1 || count > ML_PARTS_MAX))
        tool_fail("%s: more than %u parts", path, ML_PARTS_MAX);
    for (unsigned i = 0; i < count; i++) {
        char *name = strdup(path);
        if (mark) {
            char digits[8];
            snprintf(digits, sizeof(digits), "%05u", i + 1);
            memcpy(name + (mark - path) + 1, digits, 5);
        }
        part[i] = open_store(name);
        free(name);
    }
    return count;
}

/* ---- memory and output ---- */

struct arena tool_arena(usize bytes)
{
    void *memory = calloc(1, bytes);

    if (!memory)
        tool_fail("out of memory");
    return arena_on("tool", memory, bytes);
}

void tool_print(struct str text)
{
    fwrite(text.ptr, 1, text.len, stdout);
    fflush(stdout);
}
