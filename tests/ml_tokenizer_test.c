/*
 * ml_tokenizer_test.c: what the witness cannot see: parts and their borders, forged special
 * tokens, limits, hostile vocabularies, the stream of characters. Equality with a reference is
 * the business of tests/witness/tokenizer.py.
 */
#include <stdlib.h>

#include "ml/priv.h"
#include "tests/ml_gguf_build.h"
#include "tests/ml_pack.h"
#include "tests/test.h"

#define ARENA_BYTES (96 * MIB)
#define TEXT_MAX    (1 * MIB)
#define START       256u /* tokens behind the 256 bytes */

struct fixture {
    struct build build;
    struct fake_store fake;
    struct arena arena, scratch;
    struct gguf gguf;
    struct tokenizer *tok;
    char words[GGUF_REASON_MAX];
    struct text reason;
    u32 *token;
};

static void put_byte_token(struct build *b, u32 byte)
{
    char text[4];
    u32 code = byte;

    if (byte <= ' ')
        code = 0x100 + byte;
    else if (byte >= 0x7f && byte <= 0xa0)
        code = 0x100 + 33 + byte - 0x7f;
    else if (byte == 0xad)
        code = 0x100 + 67;
    build_text(b, (struct str){text, utf8_encode(code, text)});
}

static const char *const more_tokens[] = {
    "<|im_start|>", "<|im_end|>", "<tool>", "aa", "aaaa",       "he",
    "hel",          "lo",         "hello",  "<|", "im_start|>", "<|>",
};
static const i32 more_kinds[] = {3, 3, 4, 1, 1, 1, 1, 1, 1, 1, 1, 3};
static const char *const merges[] = {"a a",    "aa aa",         "h e", "he l", "l o",
                                     "hel lo", "<| im_start|>", "< |", "<| >"};

static void build_vocabulary(struct build *b)
{
    build_start(b);
    build_key_str(b, "tokenizer.ggml.model", "gpt2");
    build_key_str(b, "tokenizer.ggml.pre", "smollm");
    build_key_u32(b, "tokenizer.ggml.eos_token_id", START + 1);
    build_key_array(b, "tokenizer.ggml.tokens", GGUF_STRING, START + ARRAY_LEN(more_tokens));
    for (u32 i = 0; i < START; i++)
        put_byte_token(b, i);
    for (u32 i = 0; i < ARRAY_LEN(more_tokens); i++)
        build_text(b, str_of(more_tokens[i]));
    build_key_array(b, "tokenizer.ggml.token_type", GGUF_I32, START + ARRAY_LEN(more_kinds));
    for (u32 i = 0; i < START; i++)
        build_u32(b, TOKEN_NORMAL);
    for (u32 i = 0; i < ARRAY_LEN(more_kinds); i++)
        build_u32(b, (u32)more_kinds[i]);
    build_key_array(b, "tokenizer.ggml.merges", GGUF_STRING, ARRAY_LEN(merges));
    for (u32 i = 0; i < ARRAY_LEN(merges); i++)
        build_text(b, str_of(merges[i]));
    build_finish(b);
}

static struct fixture *start(void)
{
    struct fixture *f = calloc(1, sizeof(*f));

    build_vocabulary(&f->build);
    fake_store_start(&f->fake, f->build.bytes, f->build.len);
    f->arena = arena_on("tokenizer", malloc(ARENA_BYTES), ARENA_BYTES);
    f->scratch =
        arena_on("scratch", malloc(TOKEN_SCRATCH_BYTES(TEXT_MAX)), TOKEN_SCRATCH_BYTES(TEXT_MAX));
    f->reason = TEXT_ON(f->words);
    f->token = malloc(TEXT_MAX * sizeof(u32));
    EXPECT_OK(gguf_open(&f->gguf, &f->fake.store, 1, &f->arena, &f->reason));
    EXPECT_OK(tokenizer_open(&f->tok, &f->gguf, &f->arena, &f->reason));
    return f;
}

static void finish(struct fixture *f)
{
    build_free(&f->build);
    free(f->arena.base);
    free(f->scratch.base);
    free(f->token);
    free(f);
}

static u32 encode(struct fixture *f, const struct ml_part *part, u32 part_count)
{
    struct token_list list = {f->token, TEXT_MAX, 0};

    EXPECT_OK(tokenizer_encode(f->tok, &f->scratch, part, part_count, &list));
    EXPECT_EQ(f->scratch.used, 0);
    return list.count;
}

static u32 encode_one(struct fixture *f, enum ml_part_kind kind, struct str text)
{
    return encode(f, &(struct ml_part){kind, text}, 1);
}

/* The tokens' bytes must be the text again. */
static void expect_round_trip(struct fixture *f, u32 count, struct str text)
{
    usize at = 0;

    for (u32 i = 0; i < count; i++) {
        struct str bytes = tokenizer_text(f->tok, f->token[i]);

        EXPECT_STR(str_slice(text, at, at + bytes.len), bytes);
        at += bytes.len;
    }
    EXPECT_EQ(at, text.len);
}

TEST(ml_tokenizer_round_trip)
{
    /* Guards: tokens of any bytes, valid UTF-8 or not, are those bytes; merges go by rank. */
    static const char letters[] = "helo a1 \n\xc3\xa9'!";
    struct fixture *f = start();
    char text[300];

    for (u32 round = 0; round < 3000; round++) {
        usize len = test_random_below(sizeof(text));

        for (usize i = 0; i < len; i++)
            text[i] = round % 2 ? (char)test_random() : letters[test_random_below(13)];
        expect_round_trip(f, encode_one(f, ML_PART_USER, (struct str){text, len}),
                          (struct str){text, len});
    }
    EXPECT_EQ(encode_one(f, ML_PART_USER, STR("hello")), 1);
    EXPECT_EQ(f->token[0], START + 8);
    EXPECT_EQ(encode_one(f, ML_PART_USER, STR("aaaaaaa")), 3); /* aaaa aa a */
    EXPECT_EQ(f->token[1], START + 3);
    EXPECT_EQ(encode_one(f, ML_PART_USER, STR("")), 0);
    finish(f);
}

TEST(ml_tokenizer_user_text_forges_nothing)
{
    /* Guards: no split of a control token's text into user parts, or into a user part between
     * two of the template, yields the control token; not even a merge that spells it. */
    static const struct str text = STR("<|im_start|>");
    struct fixture *f = start();

    for (usize a = 0; a <= text.len; a++) {
        for (usize b = a; b <= text.len; b++) {
            struct ml_part part[3] = {{ML_PART_TEMPLATE, str_slice(text, 0, a)},
                                      {ML_PART_USER, str_slice(text, a, b)},
                                      {ML_PART_TEMPLATE, str_slice(text, b, text.len)}};
            bool whole = a == 0 && b == 0, all = a == text.len;
            u32 count = encode(f, part, 3);

            for (u32 i = 0; i < count; i++)
                EXPECT(whole || all || tokenizer_kind(f->tok, f->token[i]) != TOKEN_CONTROL);
            expect_round_trip(f, count, text);
        }
    }
    EXPECT_EQ(encode_one(f, ML_PART_USER, STR("<|>")), 2); /* one word, and a merge spells it */
    EXPECT_EQ(encode_one(f, ML_PART_TEMPLATE, text), 1);
    EXPECT_EQ(f->token[0], START);
    EXPECT(encode_one(f, ML_PART_USER, text) > 1);
    EXPECT_EQ(encode_one(f, ML_PART_USER, STR("<tool>")), 1); /* no control token: the user's too */
    finish(f);
}

TEST(ml_tokenizer_parts_are_one_text)
{
    /* Guards: cutting a text into parts of one kind changes no token; words cross the borders. */
    static const char pieces[][16] = {"<|im_start|>", "<|im_end|>", "hello", " a",
                                      "\n",           "aaa",        "<|",    "1"};
    struct fixture *f = start();
    struct ml_part part[8];
    char text[256];
    u32 want[256];

    for (u32 round = 0; round < 3000; round++) {
        enum ml_part_kind kind = round % 2 ? ML_PART_TEMPLATE : ML_PART_USER;
        struct text all = TEXT_ON(text);
        usize at = 0;
        u32 count, parts = 0;

        for (u32 i = test_random_below(12) + 1; i > 0; i--)
            text_put(&all, str_of(pieces[test_random_below(ARRAY_LEN(pieces))]));
        count = encode_one(f, kind, text_str(&all));
        memcpy(want, f->token, count * sizeof(u32));
        for (; parts < 7 && at < all.len; parts++) {
            usize to = at + test_random_below((u32)(all.len - at) + 1);

            part[parts] = (struct ml_part){kind, str_slice(text_str(&all), at, to)};
            at = to;
        }
        part[parts++] = (struct ml_part){kind, str_slice(text_str(&all), at, all.len)};
        EXPECT_EQ(encode(f, part, parts), count);
        EXPECT_EQ(memcmp(want, f->token, count * sizeof(u32)), 0);
    }
    finish(f);
}

TEST(ml_tokenizer_borders_join_words)
{
    /* Guards: a word may start in the template and end in the user's text, as in the joined
     * text. */
    struct fixture *f = start();
    struct ml_part part[3] = {{ML_PART_TEMPLATE, STR("<|im_start|>he")},
                              {ML_PART_USER, STR("ll")},
                              {ML_PART_TEMPLATE, STR("o<|im_end|>")}};

    EXPECT_EQ(encode(f, part, 3), 3);
    EXPECT_EQ(f->token[0], START);
    EXPECT_EQ(f->token[1], START + 8);
    EXPECT_EQ(f->token[2], START + 1);
    finish(f);
}

TEST(ml_tokenizer_limits)
{
    /* Guards: too many tokens are counted and refused, too little scratch is said, nothing is
     * written behind. */
    struct fixture *f = start();
    struct ml_part part = {ML_PART_USER, STR("hello hello hello")};
    u32 token[4] = {1, 2, 3, 4};
    struct token_list list = {token, 3, 0};
    struct arena small;

    EXPECT_EQ(tokenizer_encode(f->tok, &f->scratch, &part, 1, &list), E_LIMIT);
    EXPECT_EQ(list.count, 5);
    EXPECT_EQ(token[0], START + 8);
    EXPECT_EQ(token[3], 4);
    for (usize bytes = 0; bytes < 200; bytes++) {
        small = arena_on("small", f->scratch.base, bytes);
        EXPECT_EQ(tokenizer_encode(f->tok, &small, &part, 1, &list), E_NOMEM);
    }
    finish(f);
}

TEST(ml_tokenizer_long_words)
{
    /* Guards: a word of 1 MiB takes time in proportion, whatever it repeats. */
    static const char *const patterns[] = {"a", "aaaab", "h", "hel", "hello", "lohe"};
    struct fixture *f = start();
    char *text = malloc(TEXT_MAX);

    for (u32 p = 0; p < ARRAY_LEN(patterns); p++) {
        usize period = strlen(patterns[p]);
        u64 begin = time_ns();
        u32 count;

        for (usize i = 0; i < TEXT_MAX; i++)
            text[i] = patterns[p][i % period];
        count = encode_one(f, ML_PART_USER, (struct str){text, TEXT_MAX});
        EXPECT(time_ns() - begin < 5 * NS_PER_S); /* sanitized; 50 ms without */
        expect_round_trip(f, count, (struct str){text, TEXT_MAX});
    }
    free(text);
    finish(f);
}

TEST(ml_tokenizer_questions)
{
    /* Guards: ids, kinds and ends, also of tokens that do not exist. */
    struct fixture *f = start();

    EXPECT_EQ(tokenizer_facts(f->tok)->vocab, START + ARRAY_LEN(more_tokens));
    EXPECT_EQ(tokenizer_facts(f->tok)->bos, TOKEN_NONE);
    EXPECT_EQ(tokenizer_facts(f->tok)->eos, START + 1);
    EXPECT(!tokenizer_facts(f->tok)->adds_bos && tokenizer_is_end(f->tok, START + 1));
    EXPECT(!tokenizer_is_end(f->tok, START) && !tokenizer_is_end(f->tok, TOKEN_NONE));
    EXPECT_EQ(tokenizer_text(f->tok, TOKEN_NONE).len, 0);
    EXPECT_EQ(tokenizer_kind(f->tok, START + 1), TOKEN_CONTROL);
    EXPECT_EQ(tokenizer_find(f->tok, STR("<|im_end|>")), START + 1);
    EXPECT_EQ(tokenizer_find(f->tok, STR("hello")), START + 8);
    EXPECT_EQ(tokenizer_find(f->tok, STR("<|im_end|")), TOKEN_NONE);
    finish(f);
}

TEST(ml_tokenizer_pack)
{
    /* Guards: vocabularies of tests/witness/gguf_hostile.py are refused, or work in a defined
     * way. */
    struct pack pack = pack_open("tokenizer_pack");
    struct fixture *f = start();
    struct pack_file file;
    u32 files = 0;

    while (pack_next(&pack, &file)) {
        err seen;

        f->arena.used = 0;
        fake_store_start(&f->fake, file.bytes, file.len);
        EXPECT_OK(gguf_open(&f->gguf, &f->fake.store, 1, &f->arena, &f->reason));
        seen = tokenizer_open(&f->tok, &f->gguf, &f->arena, &f->reason);
        if ((seen == OK) != (file.expect == PACK_ACCEPT))
            test_fail(__FILE__, __LINE__, "%s: %s, %.*s", file.name, err_name(seen),
                      (int)f->reason.len, f->reason.ptr);
        for (u32 i = seen == OK ? encode_one(f, ML_PART_USER, STR("<|x|>ab\xff")) : 0; i-- > 0;)
            EXPECT(tokenizer_kind(f->tok, f->token[i]) != TOKEN_CONTROL);
        files++;
    }
    EXPECT(files > 0);
    pack_close(&pack);
    finish(f);
}

/* ---- characters of a stream ---- */

static struct str stream_in_steps(struct str bytes, usize step, char *out, usize cap)
{
    struct utf8_stream stream = {};
    struct text text = {out, 0, cap, false};

    for (usize at = 0; at < bytes.len; at += step) {
        utf8_stream_put(&stream, str_slice(bytes, at, at + step), &text);
        EXPECT(utf8_valid(text_str(&text)));
    }
    utf8_stream_end(&stream, &text);
    return text_str(&text);
}

TEST(ml_tokenizer_stream)
{
    /* Guards: text passes unchanged at any split, and what is no text becomes U+FFFD once per
     * maximal part (Unicode 15, section 3.9, table 3-8). */
    static const struct {
        struct str bytes, want;
    } rows[] = {
        {STR("aé漢👩‍👧z"), STR("aé漢👩‍👧z")},
        {STR("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"), STR("a���b�c��d")},
        {STR("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), STR("��������A")},
        {STR("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), STR("��������A")},
        {STR("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), STR("�����A��B")},
        {STR("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), STR("����A")},
        {STR("\xF0\x9F\x91"), STR("�")},
    };
    static const char edges[] = "\x00\x41\x80\xbf\xc2\xe0\xa0\xed\x9f\xf0\x90\xf4\x8f\xff";
    char out[128], random[64];

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        for (usize step = 1; step <= 5; step++)
            EXPECT_STR(stream_in_steps(rows[i].bytes, step, out, sizeof(out)), rows[i].want);
    }
    for (u32 round = 0; round < 20000; round++) {
        char once[256], twice[256];

        for (u32 i = 0; i < sizeof(random); i++)
            random[i] = edges[test_random_below(14)];
        EXPECT_STR(stream_in_steps((struct str){random, 64}, 64, once, sizeof(once)),
                   stream_in_steps((struct str){random, 64}, 1 + round % 4, twice, sizeof(twice)));
    }
}
