/*
 * ml_gguf_test.c: the model file's reader against small files that are right, cut, flipped or
 * built to hurt. The packs of tests/witness/gguf_hostile.py add files that Python wrote.
 */
#include <stdlib.h>

#include "tests/ml_gguf_build.h"
#include "tests/ml_pack.h"
#include "tests/test.h"

#define ARENA_BYTES (2 * MIB)

static u8 memory[ARENA_BYTES] __attribute__((aligned(64)));
static char words[GGUF_REASON_MAX];

struct opened {
    struct gguf gguf;
    struct arena arena;
    struct text reason;
};

static err open_with(struct opened *o, struct store *store, u32 parts, usize arena_bytes)
{
    o->arena = arena_on("gguf", memory, arena_bytes);
    o->reason = TEXT_ON(words);
    return gguf_open(&o->gguf, store, parts, &o->arena, &o->reason);
}

static err open_bytes(struct opened *o, const void *bytes, usize len)
{
    static struct fake_store fake;

    fake_store_start(&fake, bytes, len);
    return open_with(o, &fake.store, 1, ARENA_BYTES);
}

/* Where the fields of the small file are that the table of faults overwrites. */
struct places {
    usize key_len, key_type, text_len, array_type, array_count, string_len, alignment, flag, real;
    usize name_len, dim_count, dim0, dim1, tensor_type, offset0, offset1, header_end;
};

static void build_small(struct build *b, struct places *at)
{
    build_start(b);
    at->key_len = b->len;
    build_key_str(b, "general.architecture", "llama");
    at->key_type = b->len - 5 - 8 - 4;
    at->text_len = b->len - 5 - 8;
    build_key_u32(b, "general.alignment", 32);
    at->alignment = b->len - 4;
    build_key_array(b, "tokens", GGUF_STRING, 3);
    at->array_type = b->len - 12;
    at->array_count = b->len - 8;
    at->string_len = b->len;
    build_text(b, STR("a"));
    build_text(b, STR(""));
    build_text(b, STR("\xff\xfe"));
    build_key(b, "flag", GGUF_BOOL);
    at->flag = b->len;
    b->bytes[b->len++] = 1;
    build_key(b, "real", GGUF_F32);
    at->real = b->len;
    build_u32(b, 0x3f800000);
    build_key_array(b, "numbers", GGUF_I16, 2);
    build_u32(b, 0xfffe0007);
    at->name_len = b->len;
    build_tensor(b, "matrix", QUANT_Q4_0, 64, 3);
    at->dim_count = b->len - 8 - 4 - 16 - 4;
    at->dim0 = at->dim_count + 4;
    at->dim1 = at->dim0 + 8;
    at->tensor_type = at->dim1 + 8;
    at->offset0 = b->len - 8;
    build_tensor(b, "vector", QUANT_F32, 5, 0);
    at->offset1 = b->len - 8;
    at->header_end = b->len;
    build_finish(b);
}

/* Every promise of gguf.h about what was accepted. */
static void check_promises(const struct gguf *g, u64 file_bytes)
{
    for (u32 i = 0; i < g->tensor_count; i++) {
        const struct gguf_tensor *t = &g->tensor[i];

        EXPECT(t->format != NULL && t->elements > 0 && t->dim_count >= 1 && t->dim_count <= 4);
        EXPECT_EQ(t->elements, t->dim[0] * t->dim[1] * t->dim[2] * t->dim[3]);
        EXPECT_EQ(t->bytes, quant_bytes(t->format, t->elements));
        EXPECT(t->offset <= file_bytes && t->bytes <= file_bytes - t->offset);
        EXPECT(t->offset % GGUF_DIMS_MAX == 0 && gguf_tensor(g, t->name) == t);
        EXPECT(i == 0 || t->offset >= g->tensor[i - 1].offset + g->tensor[i - 1].bytes);
    }
    for (u32 i = 0; i < g->key_count; i++) {
        const struct gguf_key *key = &g->key[i];

        struct str rest = key->data;

        EXPECT(utf8_valid(key->name) && key->name.len > 0);
        for (u32 k = 0; key->type == GGUF_STRING && k < key->count; k++) {
            struct str text = gguf_cut_str(&rest);

            EXPECT(text.len <= file_bytes);
            EXPECT(key->is_array || utf8_valid(text));
        }
        EXPECT(key->type != GGUF_STRING || rest.len == 0);
    }
}

TEST(ml_gguf_valid)
{
    /* Guards: a right file is read as it was written, each header byte once. */
    struct build b;
    struct places at;
    struct opened o;
    struct fake_store fake;
    const struct gguf_key *key;
    const struct gguf_tensor *t;
    struct str text, rest;
    u8 row[36];
    u32 number = 7, flag = 0;
    f32 real = 0;

    build_small(&b, &at);
    fake_store_start(&fake, b.bytes, b.len);
    EXPECT_OK(open_with(&o, &fake.store, 1, ARENA_BYTES));
    EXPECT(!fake.read_twice);
    check_promises(&o.gguf, b.len);
    EXPECT_OK(gguf_str(&o.gguf, "general.architecture", &text));
    EXPECT_STR(text, STR("llama"));
    EXPECT_OK(gguf_u32(&o.gguf, "flag", &flag));
    EXPECT_OK(gguf_f32(&o.gguf, "real", &real));
    EXPECT(flag == 1 && real == 1.0f);
    EXPECT_EQ(gguf_u32(&o.gguf, "absent", &number), E_NOTFOUND);
    EXPECT_EQ(gguf_u32(&o.gguf, "real", &number), E_FORMAT);
    EXPECT_EQ(gguf_u32(&o.gguf, "numbers", &number), E_FORMAT);
    EXPECT_EQ(number, 7);
    EXPECT_OK(gguf_array(&o.gguf, "tokens", GGUF_STRING, &key));
    rest = key->data;
    EXPECT_STR(gguf_cut_str(&rest), STR("a"));
    EXPECT_STR(gguf_cut_str(&rest), STR(""));
    EXPECT_STR(gguf_cut_str(&rest), STR("\xff\xfe"));
    EXPECT_OK(gguf_array(&o.gguf, "numbers", GGUF_I16, &key));
    EXPECT(gguf_number(key, 0) == 7 && gguf_number(key, 1) == -2);
    t = gguf_tensor(&o.gguf, STR("matrix"));
    EXPECT(t != NULL && t->format->type == QUANT_Q4_0 && t->dim[0] == 64 && t->dim[1] == 3);
    EXPECT_OK(gguf_read(&o.gguf, t, 36, row, sizeof(row)));
    EXPECT_EQ(row[0], 36);
    t = gguf_tensor(&o.gguf, STR("vector"));
    EXPECT_OK(gguf_read(&o.gguf, t, 0, row, 20));
    EXPECT_EQ(row[0], 128);
    EXPECT(gguf_tensor(&o.gguf, STR("vecto")) == NULL);
    build_free(&b);
}

TEST(ml_gguf_truncated)
{
    /* Guards: a file that ends anywhere is refused, with words. The copy makes over-reads
     * visible. */
    struct build b;
    struct places at;
    struct opened o;

    build_small(&b, &at);
    for (usize len = 0; len < b.len - 12; len++) { /* 12: padding behind the last tensor */
        u8 *cut = malloc(len + 1);

        memcpy(cut, b.bytes, len);
        EXPECT(open_bytes(&o, cut, len) != OK);
        EXPECT(o.reason.len > 0);
        free(cut);
    }
    build_free(&b);
}

TEST(ml_gguf_bit_flips)
{
    /* Guards: with any bit flipped, what is accepted still keeps every promise. */
    struct build b;
    struct places at;
    struct opened o;
    u32 refused = 0;

    build_small(&b, &at);
    for (usize bit = 0; bit < at.header_end * 8; bit++) {
        b.bytes[bit / 8] ^= (u8)(1 << bit % 8);
        if (open_bytes(&o, b.bytes, b.len) == OK)
            check_promises(&o.gguf, b.len);
        else
            refused++;
        b.bytes[bit / 8] ^= (u8)(1 << bit % 8);
    }
    EXPECT(refused > at.header_end * 4); /* most bits are lengths, types and counts */
    build_free(&b);
}

struct fault {
    usize place;
    u32 bytes;
    u64 value;
    err why;
};

static void expect_faults(const struct build *b, const struct fault *fault, usize count)
{
    struct opened o;
    u8 *copy = malloc(b->len);

    for (usize i = 0; i < count; i++) {
        err seen;

        memcpy(copy, b->bytes, b->len);
        memcpy(copy + fault[i].place, &fault[i].value, fault[i].bytes);
        seen = open_bytes(&o, copy, b->len);
        if (seen != fault[i].why)
            test_fail(__FILE__, __LINE__, "fault %zu: %s, want %s: %.*s", i, err_name(seen),
                      err_name(fault[i].why), (int)o.reason.len, o.reason.ptr);
    }
    free(copy);
}

TEST(ml_gguf_field_faults)
{
    /* Guards: each field at its bad values gives its own answer: the shapes of CVE-2024-21802,
     * -21825, -21836, -23605, -23496, CVE-2025-53630, CVE-2026-27940, -33298, -7482 and of
     * llama.cpp #24884, #25596, #26318. */
    struct build b;
    struct places at;

    build_small(&b, &at);
    // clang-format off
    const struct fault faults[] = {
        {0, 4, 0x47475546, E_FORMAT}, /* big-endian magic */
        {4, 4, 0, E_UNSUPPORTED}, {4, 4, 1, E_UNSUPPORTED}, {4, 4, 4, E_UNSUPPORTED},
        {4, 4, 0x03000000, E_UNSUPPORTED}, {4, 4, UINT32_MAX, E_UNSUPPORTED},
        {8, 8, 1u << 16, E_FORMAT}, {8, 8, 1ull << 61, E_LIMIT}, {8, 8, UINT64_MAX, E_LIMIT},
        {16, 8, GGUF_KEYS_MAX, E_FORMAT}, {16, 8, 1ull << 32, E_LIMIT},
        {16, 8, 1ull << 63, E_LIMIT},
        {at.key_len, 8, 0, E_FORMAT}, {at.key_len, 8, 1u << 16, E_LIMIT},
        {at.key_len, 8, UINT64_MAX, E_LIMIT}, {at.key_len, 8, 1ull << 63, E_LIMIT},
        {at.key_len + 8, 1, 0, E_FORMAT}, {at.key_len + 8, 1, 0xff, E_FORMAT},
        {at.key_type, 4, GGUF_TYPE_COUNT, E_FORMAT}, {at.key_type, 4, UINT32_MAX, E_FORMAT},
        {at.text_len, 8, UINT64_MAX, E_LIMIT}, {at.text_len, 8, 1u << 20, E_FORMAT},
        {at.text_len + 8, 1, 0x80, E_FORMAT}, /* a value that is not UTF-8 */
        {at.array_type, 4, GGUF_ARRAY, E_FORMAT}, {at.array_type, 4, 99, E_FORMAT},
        {at.array_count, 8, 1ull << 24, E_LIMIT}, {at.array_count, 8, 1ull << 61, E_LIMIT},
        {at.array_count, 8, UINT64_MAX, E_LIMIT},
        {at.string_len, 8, UINT64_MAX, E_LIMIT}, {at.string_len, 8, 1ull << 31, E_LIMIT},
        {at.alignment, 4, 0, E_FORMAT}, {at.alignment, 4, 1, E_FORMAT},
        {at.alignment, 4, 3, E_FORMAT}, {at.alignment, 4, 48, E_FORMAT},
        {at.alignment, 4, 1u << 31, E_FORMAT}, {at.alignment - 4, 4, GGUF_F32, E_FORMAT},
        {at.alignment - 4, 4, GGUF_I32, OK}, {at.flag, 1, 2, E_FORMAT},
        {at.real, 4, 0x7f800000, E_FORMAT}, {at.real, 4, 0x7fc00000, E_FORMAT},
        {at.name_len, 8, 0, E_FORMAT}, {at.name_len, 8, 1u << 20, E_LIMIT},
        {at.dim_count, 4, 0, E_FORMAT}, {at.dim_count, 4, 5, E_FORMAT},
        {at.dim_count, 4, UINT32_MAX, E_FORMAT},
        {at.dim0, 8, 0, E_FORMAT}, {at.dim0, 8, 63, E_FORMAT}, {at.dim0, 8, UINT64_MAX, E_LIMIT},
        {at.dim0, 8, 1ull << 62, E_LIMIT}, {at.dim1, 8, 0, E_FORMAT},
        {at.dim1, 8, 1ull << 58, E_LIMIT}, /* 64 * 2^58 = 2^64 */
        {at.dim1, 8, 1ull << 30, E_FORMAT},
        {at.tensor_type, 4, 4, E_UNSUPPORTED}, {at.tensor_type, 4, UINT32_MAX, E_UNSUPPORTED},
        {at.offset0, 8, 1, E_FORMAT}, {at.offset1, 8, 0, E_FORMAT}, /* overlaps */
        {at.offset1, 8, 96, E_FORMAT}, {at.offset1, 8, 160, E_FORMAT}, /* behind the end */
        {at.offset1, 8, 1ull << 40, E_FORMAT}, {at.offset1, 8, UINT64_MAX - 31, E_FORMAT},
    };
    // clang-format on
    expect_faults(&b, faults, ARRAY_LEN(faults));
    build_free(&b);
}

TEST(ml_gguf_twice)
{
    /* Guards: a second key or tensor of one name is refused, so no two readers see two values. */
    struct build b;
    struct opened o;

    for (u32 which = 0; which < 3; which++) {
        build_start(&b);
        build_key_str(&b, "general.architecture", "llama");
        build_key_u32(&b, which == 1 ? "general.architecture" : "a", 1);
        build_tensor(&b, "t", QUANT_F32, 8, 0);
        build_tensor(&b, which == 2 ? "t" : "u", QUANT_F32, 8, 0);
        build_finish(&b);
        EXPECT_EQ(open_bytes(&o, b.bytes, b.len), which == 0 ? OK : E_FORMAT);
        build_free(&b);
    }
}

static void build_part(struct build *b, u32 no, u32 count, u32 tensors, const char *tensor)
{
    build_start(b);
    if (no == 0)
        build_key_str(b, "general.architecture", "llama");
    build_key(b, "split.no", GGUF_U16);
    memcpy(b->bytes + b->len, &no, 2);
    b->len += 2;
    build_key_u32(b, "split.count", count);
    build_key_u32(b, "split.tensors.count", tensors);
    build_tensor(b, tensor, QUANT_F32, 8, 0);
    build_finish(b);
}

TEST(ml_gguf_split)
{
    /* Guards: parts join in their order only, complete, with the tensors that they announce. */
    static const struct {
        u32 no0, no1, count, tensors;
        const char *second;
        u32 given;
        err why;
    } rows[] = {
        {0, 1, 2, 2, "b", 2, OK},       {1, 0, 2, 2, "b", 2, E_FORMAT},
        {0, 0, 2, 2, "b", 2, E_FORMAT}, {0, 1, 3, 2, "b", 2, E_FORMAT},
        {0, 1, 2, 3, "b", 2, E_FORMAT}, {0, 1, 2, 2, "a", 2, E_FORMAT},
        {0, 1, 2, 2, "b", 1, E_FORMAT},
    };
    struct build b[2];
    struct opened o;

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        struct fake_store fake[2];
        struct store part[2];

        build_part(&b[0], rows[i].no0, rows[i].count, rows[i].tensors, "a");
        build_part(&b[1], rows[i].no1, rows[i].count, rows[i].tensors, rows[i].second);
        for (u32 k = 0; k < 2; k++) {
            fake_store_start(&fake[k], b[k].bytes, b[k].len);
            part[k] = fake[k].store;
        }
        EXPECT_EQ(open_with(&o, part, rows[i].given, ARENA_BYTES), rows[i].why);
        if (rows[i].why == OK) {
            u8 bytes[32];

            EXPECT_EQ(gguf_tensor(&o.gguf, STR("b"))->part, 1);
            EXPECT_OK(gguf_read(&o.gguf, gguf_tensor(&o.gguf, STR("b")), 0, bytes, 32));
            EXPECT_EQ(bytes[5], 5);
        }
        build_free(&b[0]);
        build_free(&b[1]);
    }
}

TEST(ml_gguf_faults_of_the_machine)
{
    /* Guards: a read error at the n-th read and too little memory are errors, for every n and
     * size. */
    struct build b;
    struct places at;
    struct opened o;
    struct fake_store fake;
    usize need;

    build_small(&b, &at);
    fake_store_start(&fake, b.bytes, b.len);
    EXPECT_OK(open_with(&o, &fake.store, 1, ARENA_BYTES));
    need = o.arena.peak;
    for (u32 n = 1, reads = fake.reads; n <= reads; n++) {
        fake_store_start(&fake, b.bytes, b.len);
        fake.fail_at = n;
        EXPECT_EQ(open_with(&o, &fake.store, 1, ARENA_BYTES), E_IO);
    }
    for (usize bytes = 0; bytes < need; bytes++) {
        fake_store_start(&fake, b.bytes, b.len);
        EXPECT_EQ(open_with(&o, &fake.store, 1, bytes), E_NOMEM);
    }
    build_free(&b);
}

TEST(ml_gguf_many_names)
{
    /* Guards: a full table of keys is found again, each by its own name, and quickly. */
    static char name[GGUF_KEYS_MAX][16];
    struct build b;
    struct opened o;
    u32 value;

    build_start(&b);
    for (u32 i = 0; i < GGUF_KEYS_MAX; i++) {
        struct text text = TEXT_ON(name[i]);

        text_fmt(&text, "key.%u", i);
        text_char(&text, 0);
        build_key_u32(&b, name[i], i * 3);
    }
    build_finish(&b);
    EXPECT_OK(open_bytes(&o, b.bytes, b.len));
    for (u32 i = 0; i < GGUF_KEYS_MAX; i++) {
        EXPECT_OK(gguf_u32(&o.gguf, name[i], &value));
        EXPECT_EQ(value, i * 3);
    }
    build_free(&b);
}

TEST(ml_gguf_pack)
{
    /* Guards: the files of tests/witness/gguf_hostile.py are refused or accepted as it says. */
    struct pack pack = pack_open("gguf_pack");
    struct pack_file file;
    struct opened o;
    u32 count = 0;

    while (pack_next(&pack, &file)) {
        err seen = open_bytes(&o, file.bytes, file.len);

        if (file.expect != PACK_EITHER && (seen == OK) != (file.expect == PACK_ACCEPT))
            test_fail(__FILE__, __LINE__, "%s: %s, %.*s", file.name, err_name(seen),
                      (int)o.reason.len, o.reason.ptr);
        if (seen == OK)
            check_promises(&o.gguf, file.len);
        count++;
    }
    EXPECT(count > 0);
    pack_close(&pack);
}
