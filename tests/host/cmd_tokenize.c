/*
 * cmd_tokenize.c: nohost tokenize: text to token ids. Opens the model file's header and nothing
 * more. The witness of the tokenizer drives it in batches.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ml/tokenizer.h"
#include "tests/host/tool.h"

int cmd_tokenize(int argc, char **argv);

#define ARENA_BYTES (512 * MIB) /* touched only as far as the model's metadata reach */

static const char help[] =
    "nohost tokenize --model M (--text T | --file FILE | --batch) [--special] [--bos]\n"
    "  file     - reads stdin\n"
    "  batch    texts from stdin, each ended by a NUL byte; one line of JSON for each\n"
    "  special  recognises control tokens in the text, as in a chat template\n"
    "  bos      puts the model's first token in front, if it has one\n"
    "-> {\"tokens\": [...]}\n";

static const char *const options[] = {
    "--model=", "--text=", "--file=", "--batch", "--special", "--bos", NULL,
};

static struct tokenizer *open_tokenizer(const char *path)
{
    static struct store part[ML_PARTS_MAX];
    static struct gguf gguf;
    char words[GGUF_REASON_MAX];
    struct text reason = TEXT_ON(words);
    struct arena arena = tool_arena(ARENA_BYTES);
    u32 parts = tool_model(path, part);
    struct tokenizer *tok = NULL;

    if (gguf_open(&gguf, part, parts, &arena, &reason) != OK ||
        tokenizer_open(&tok, &gguf, &arena, &reason) != OK)
        tool_fail("%.*s", (int)reason.len, reason.ptr);
    return tok;
}

static void print_tokens(struct tokenizer *tok, struct str text, bool special, bool bos)
{
    struct arena scratch = tool_arena(TOKEN_SCRATCH_BYTES(text.len));
    struct ml_part part = {special ? ML_PART_TEMPLATE : ML_PART_USER, text};
    struct token_list list = {.max = (u32)text.len + 1};

    list.token = calloc(list.max, sizeof(u32));
    if (bos && tokenizer_facts(tok)->bos != TOKEN_NONE)
        list.token[list.count++] = tokenizer_facts(tok)->bos;
    if (tokenizer_encode(tok, &scratch, &part, 1, &list) != OK)
        tool_fail("a text of %zu bytes is too long", text.len);
    printf("{\"tokens\":[");
    for (u32 i = 0; i < list.count; i++)
        printf("%s%u", i ? "," : "", list.token[i]);
    printf("]}\n");
    free(list.token);
    free(scratch.base);
}

int cmd_tokenize(int argc, char **argv)
{
    bool special = tool_flag(argc, argv, "--special"), bos = tool_flag(argc, argv, "--bos");
    bool batch = tool_flag(argc, argv, "--batch");
    const char *text = tool_option(argc, argv, "--text"), *file;
    struct tokenizer *tok;
    char *input;
    usize len;

    tool_check(argc, argv, options, help);
    file = batch ? "-" : tool_option(argc, argv, "--file");
    if ((text != NULL) == (file != NULL))
        tool_fail("want one of --text, --file and --batch");
    tok = open_tokenizer(tool_required(argc, argv, "--model"));
    if (text != NULL) {
        print_tokens(tok, str_of(text), special, bos);
        return 0;
    }
    input = tool_file(file, &len);
    for (usize at = 0; batch && at < len; at += strlen(input + at) + 1)
        print_tokens(tok, str_of(input + at), special, bos);
    if (!batch)
        print_tokens(tok, (struct str){input, len}, special, bos);
    return 0;
}
