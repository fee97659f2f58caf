/*
 * cmd_tokenize.c: `nohost tokenize`, text to token ids as JSON. Opens the model file's header and
 * nothing more. The witness of the tokenizer drives it in batches.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ml/tokenizer.h"

int cmd_tokenize(int argc, char **argv);

#define SCRATCH_TEXT_BYTES (2 * MIB)
#define TOKENS_MAX (2u << 20)
#define ARENA_BYTES (512 * MIB) /* touched only as far as the model's metadata reach */

static const char usage[] =
    "nohost tokenize --model FILE (--text TEXT | --file FILE | --batch) [--special] [--bos]\n"
    "  prints {\"tokens\":[...]}; --batch reads texts that end in a NUL byte from standard input and\n"
    "  prints a line for each; --special recognises control tokens in the text, as in a template\n";

struct options {
    const char *model, *text, *file;
    bool batch, special, bos, help;
};

static bool read_options(int argc, char **argv, struct options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        const char **to = !strcmp(argv[i], "--model")  ? &o->model
                          : !strcmp(argv[i], "--text") ? &o->text
                          : !strcmp(argv[i], "--file") ? &o->file
                                                       : NULL;
        bool *flag = !strcmp(argv[i], "--batch")     ? &o->batch
                     : !strcmp(argv[i], "--special") ? &o->special
                     : !strcmp(argv[i], "--bos")     ? &o->bos
                     : !strcmp(argv[i], "--help")    ? &o->help
                                                     : NULL;

        if (flag != NULL)
            *flag = true;
        else if (to == NULL || value == NULL)
            return false;
        else
            *to = argv[++i];
    }
    return o->help || (o->model && (o->text != NULL) + (o->file != NULL) + o->batch == 1);
}

static err read_file(struct store *store, u64 offset, void *out, usize bytes)
{
    FILE *file = store->ctx;

    if (fseek(file, (long)offset, SEEK_SET) != 0 || fread(out, 1, bytes, file) != bytes)
        return E_IO;
    return OK;
}

static bool open_store(const char *path, struct store *store)
{
    FILE *file = fopen(path, "rb");

    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        return false;
    *store = (struct store){.name = path, .bytes = (u64)ftell(file), .ctx = file, .read = read_file};
    return true;
}

static struct tokenizer *open_tokenizer(const char *path)
{
    static char words[GGUF_REASON_MAX];
    static struct store store;
    static struct gguf gguf;
    struct text reason = TEXT_ON(words);
    struct tokenizer *tok = NULL;
    struct arena arena = arena_on("tokenizer", malloc(ARENA_BYTES), ARENA_BYTES);

    if (!open_store(path, &store))
        fprintf(stderr, "cannot read %s\n", path);
    else if (gguf_open(&gguf, &store, 1, &arena, &reason) != OK ||
             tokenizer_open(&tok, &gguf, &arena, &reason) != OK)
        fprintf(stderr, "%.*s\n", (int)reason.len, reason.ptr);
    return tok;
}

/* A whole file or standard input, with a NUL behind it. */
static char *read_all(FILE *file, usize *len)
{
    usize cap = 1 << 20, got;
    char *all = malloc(cap);

    *len = 0;
    while (all && file && (got = fread(all + *len, 1, cap - *len - 1, file)) > 0) {
        *len += got;
        if (cap - *len < cap / 2)
            all = realloc(all, cap *= 2);
    }
    if (all)
        all[*len] = 0;
    return file ? all : NULL;
}

static int print_tokens(struct tokenizer *tok, const struct options *o, struct str text)
{
    usize scratch_bytes = TOKEN_SCRATCH_BYTES(text.len);
    struct arena scratch = arena_on("scratch", malloc(scratch_bytes), scratch_bytes);
    struct ml_part part = {o->special ? ML_PART_TEMPLATE : ML_PART_USER, text};
    u32 max = (u32)text.len + 1, count = 0;
    u32 *token = malloc(max * sizeof(*token));
    err e = tokenizer_encode(tok, &scratch, &part, 1, token, max, &count);

    if (e != OK)
        fprintf(stderr, "%s\n", err_text(e));
    printf("{\"tokens\":[");
    if (o->bos && tokenizer_bos(tok) != TOKEN_NONE)
        printf("%u%s", tokenizer_bos(tok), count ? "," : "");
    for (u32 i = 0; e == OK && i < count; i++)
        printf("%s%u", i ? "," : "", token[i]);
    printf("]}\n");
    free(token);
    free(scratch.base);
    return e != OK;
}

int cmd_tokenize(int argc, char **argv)
{
    struct options o = {};
    struct tokenizer *tok;
    char *input = NULL;
    usize len = 0, at = 0;
    int failed = 0;

    if (!read_options(argc, argv, &o) || o.help) {
        fputs(usage, o.help ? stdout : stderr);
        return o.help ? 0 : 2;
    }
    tok = open_tokenizer(o.model);
    if (tok == NULL)
        return 1;
    if (o.text != NULL)
        return print_tokens(tok, &o, str_of(o.text));
    input = read_all(o.batch ? stdin : fopen(o.file, "rb"), &len);
    if (input == NULL) {
        fprintf(stderr, "cannot read the text\n");
        return 1;
    }
    if (!o.batch)
        return print_tokens(tok, &o, (struct str){input, len});
    for (; at < len; at += strlen(input + at) + 1)
        failed |= print_tokens(tok, &o, str_of(input + at));
    return failed;
}
