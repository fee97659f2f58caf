/*
 * fuzz_tokenizer.c: a byte says which pre-tokenizer and how the rest is cut into parts; the text
 * must come back out of its tokens, and control tokens only from the template. The vocabulary is
 * small and built here: 256 bytes, some merges, two control tokens. A file that starts with GGUF
 * is a vocabulary to open instead.
 */
#include "ml/priv.h"

#define MODEL_BYTES_MAX (32 * KIB)
#define ARENA_BYTES     (2 * MIB)
#define PARTS_MAX       8u
#define PRE_COUNT       5u
#define TEXT_MAX        (16 * KIB)

int LLVMFuzzerTestOneInput(const u8 *data, usize size);

struct model {
    u8 bytes[MODEL_BYTES_MAX];
    usize len;
};

static void put(struct model *m, const void *bytes, usize len)
{
    CHECK(len <= sizeof(m->bytes) - m->len);
    memcpy(m->bytes + m->len, bytes, len);
    m->len += len;
}

static void put_number(struct model *m, u64 value, usize bytes)
{
    put(m, &value, bytes);
}

static void put_text(struct model *m, const char *text)
{
    put_number(m, strlen(text), 8);
    put(m, text, strlen(text));
}

static void put_array(struct model *m, const char *name, u32 type, u64 count)
{
    put_text(m, name);
    put_number(m, GGUF_ARRAY, 4);
    put_number(m, type, 4);
    put_number(m, count, 8);
}

static void put_byte_token(struct model *m, u32 byte)
{
    u32 code = byte <= ' '    ? 0x100 + byte
               : byte < 0x7f  ? byte
               : byte <= 0xa0 ? 0x121 + byte - 0x7f
               : byte == 0xad ? 0x143
                              : byte;
    char text[5] = {};

    utf8_encode(code, text);
    put_text(m, text);
}

static void build(struct model *m, const char *pre)
{
    static const char *const more[] = {"<|a|>", "<|b|>", "th",   "the", "<|",
                                       "|>",    "aa",    "aaaa", "ab"};
    static const char *const merges[] = {"t h", "th e", "< |", "| >", "a a", "aa aa", "a b"};

    m->len = 0;
    put(m, "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\5\0\0\0\0\0\0\0", 24);
    put_text(m, "tokenizer.ggml.model");
    put_number(m, GGUF_STRING, 4);
    put_text(m, "gpt2");
    put_text(m, "tokenizer.ggml.pre");
    put_number(m, GGUF_STRING, 4);
    put_text(m, pre);
    put_array(m, "tokenizer.ggml.tokens", GGUF_STRING, 256 + ARRAY_LEN(more));
    for (u32 i = 0; i < 256; i++)
        put_byte_token(m, i);
    for (u32 i = 0; i < ARRAY_LEN(more); i++)
        put_text(m, more[i]);
    put_array(m, "tokenizer.ggml.token_type", GGUF_I32, 256 + ARRAY_LEN(more));
    for (u32 i = 0; i < 256 + ARRAY_LEN(more); i++)
        put_number(m, i == 256 || i == 257 ? TOKEN_CONTROL : TOKEN_NORMAL, 4);
    put_array(m, "tokenizer.ggml.merges", GGUF_STRING, ARRAY_LEN(merges));
    for (u32 i = 0; i < ARRAY_LEN(merges); i++)
        put_text(m, merges[i]);
}

static err read_model(struct store *store, u64 offset, void *out, usize bytes)
{
    CHECK(offset <= store->bytes && bytes <= store->bytes - offset);
    if (bytes > 0)
        memcpy(out, (const u8 *)store->ctx + offset, bytes);
    return OK;
}

static struct tokenizer *open_model(const void *bytes, usize len, struct arena *arena)
{
    static struct gguf gguf;
    char words[GGUF_REASON_MAX];
    struct text reason = TEXT_ON(words);
    struct store store = {.bytes = len, .ctx = (void *)(uintptr_t)bytes, .read = read_model};
    struct tokenizer *tok = NULL;

    if (gguf_open(&gguf, &store, 1, arena, &reason) != OK ||
        tokenizer_open(&tok, &gguf, arena, &reason) != OK)
        return NULL;
    return tok;
}

/* Encodes; every control token must lie in a template's part. With all bytes in the vocabulary the
 * tokens' bytes must be the text's. */
static void check_text(struct tokenizer *tok, const struct ml_part *part, u32 count, bool complete)
{
    static u8 memory[TOKEN_SCRATCH_BYTES(TEXT_MAX)];
    static u32 token[TEXT_MAX + 1];
    struct arena scratch = arena_on("scratch", memory, sizeof(memory));
    struct token_list list = {token, TEXT_MAX + 1, 0};
    struct utf8_stream stream = {};
    static char out[3 * TEXT_MAX + 8];
    struct text text = TEXT_ON(out);
    u32 at_part = 0;
    usize at = 0;

    CHECK(tokenizer_encode(tok, &scratch, part, count, &list) == OK);
    for (u32 i = 0; i < list.count; i++) {
        struct str bytes = tokenizer_text(tok, token[i]);

        for (usize k = 0; complete && k < bytes.len; k++, at++) {
            while (at == part[at_part].text.len) {
                at = 0;
                at_part++;
            }
            CHECK(part[at_part].text.ptr[at] == bytes.ptr[k]);
            CHECK(tokenizer_kind(tok, token[i]) != TOKEN_CONTROL ||
                  part[at_part].kind == ML_PART_TEMPLATE);
        }
        utf8_stream_put(&stream, bytes, &text);
    }
    utf8_stream_end(&stream, &text);
    CHECK(utf8_valid(text_str(&text)) && !text.truncated);
}

/* Opened once each: a text must leave nothing behind for the next. */
static struct tokenizer *tokenizer_of(u32 which)
{
    static const char *const pre[PRE_COUNT] = {"smollm", "gpt-2", "llama-bpe", "qwen2", "qwen35"};
    static u8 memory[PRE_COUNT][ARENA_BYTES] __attribute__((aligned(64)));
    static struct tokenizer *opened[PRE_COUNT];
    static struct model model;

    if (opened[which] == NULL) {
        struct arena arena = arena_on("fuzz", memory[which], ARENA_BYTES);

        build(&model, pre[which]);
        opened[which] = open_model(model.bytes, model.len, &arena);
        CHECK(opened[which] != NULL);
    }
    return opened[which];
}

static void fuzz_vocabulary(struct str file)
{
    static u8 memory[ARENA_BYTES] __attribute__((aligned(64)));
    struct arena arena = arena_on("fuzz", memory, sizeof(memory));
    struct tokenizer *tok = open_model(file.ptr, file.len, &arena);

    if (tok != NULL)
        check_text(tok, &(struct ml_part){ML_PART_TEMPLATE, file}, 1, false);
}

int LLVMFuzzerTestOneInput(const u8 *data, usize size)
{
    struct ml_part part[PARTS_MAX];
    struct str text = {(const char *)data, size};
    u32 count = 0, cuts;
    usize at = 1;

    if (size < 2 || size > TEXT_MAX)
        return 0;
    if (str_starts(text, STR("GGUF"))) {
        fuzz_vocabulary(text);
        return 0;
    }
    cuts = data[0] / PRE_COUNT;
    for (; count < PARTS_MAX - 1 && at < size; count++, cuts /= 2) {
        usize to = min_u64(size, at + 1 + data[at] % 32);

        part[count] =
            (struct ml_part){cuts & 1 ? ML_PART_USER : ML_PART_TEMPLATE, str_slice(text, at, to)};
        at = to;
    }
    part[count++] = (struct ml_part){ML_PART_USER, str_slice(text, at, size)};
    check_text(tokenizer_of(data[0] % PRE_COUNT), part, count, true);
    return 0;
}
