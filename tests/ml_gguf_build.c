/*
 * ml_gguf_build.c: the writer and the store behind ml_gguf_build.h. Shares nothing with ml/gguf.c
 * but the numbers of the format.
 */
#include <stdlib.h>

#include "tests/ml_gguf_build.h"
#include "tests/test.h"

static void put(struct build *b, const void *bytes, usize len)
{
    CHECK(len <= BUILD_BYTES_MAX - b->len);
    if (len > 0)
        memcpy(b->bytes + b->len, bytes, len);
    b->len += len;
}

void build_start(struct build *b)
{
    *b = (struct build){.bytes = malloc(BUILD_BYTES_MAX)};
    CHECK(b->bytes != NULL);
    put(b, "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
}

void build_u32(struct build *b, u32 value)
{
    put(b, &value, sizeof(value));
}

void build_u64(struct build *b, u64 value)
{
    put(b, &value, sizeof(value));
}

void build_text(struct build *b, struct str text)
{
    build_u64(b, text.len);
    put(b, text.ptr, text.len);
}

void build_key(struct build *b, const char *name, enum gguf_type type)
{
    build_text(b, str_of(name));
    build_u32(b, type);
    b->keys++;
}

void build_key_u32(struct build *b, const char *name, u32 value)
{
    build_key(b, name, GGUF_U32);
    build_u32(b, value);
}

void build_key_str(struct build *b, const char *name, const char *value)
{
    build_key(b, name, GGUF_STRING);
    build_text(b, str_of(value));
}

void build_key_array(struct build *b, const char *name, enum gguf_type type, u64 count)
{
    build_key(b, name, GGUF_ARRAY);
    build_u32(b, type);
    build_u64(b, count);
}

void build_tensor(struct build *b, const char *name, u32 type, u64 dim0, u64 dim1)
{
    build_text(b, str_of(name));
    build_u32(b, dim1 ? 2 : 1);
    build_u64(b, dim0);
    if (dim1)
        build_u64(b, dim1);
    build_u32(b, type);
    build_u64(b, b->data_bytes);
    b->tensors++;
    b->data_bytes += round_up(quant_bytes(quant_format(type), dim0 * (dim1 ? dim1 : 1)), 32);
}

void build_finish(struct build *b)
{
    u64 tensors = b->tensors, keys = b->keys;

    memcpy(b->bytes + 8, &tensors, 8);
    memcpy(b->bytes + 16, &keys, 8);
    while (b->tensors > 0 && b->len % 32 != 0)
        put(b, "", 1);
    for (u64 i = 0; i < b->data_bytes; i++)
        put(b, &(u8){(u8)i}, 1);
}

void build_free(struct build *b)
{
    free(b->bytes);
}

static err fake_read(struct store *store, u64 offset, void *out, usize bytes)
{
    struct fake_store *fake = store->ctx;

    CHECK(offset <= store->bytes && bytes <= store->bytes - offset);
    fake->reads++;
    if (fake->fail_at != 0 && fake->reads >= fake->fail_at)
        return E_IO;
    fake->read_twice |= bytes > 0 && offset < fake->read_to;
    fake->read_to = max_u64(fake->read_to, offset + bytes);
    if (bytes > 0)
        memcpy(out, fake->bytes + offset, bytes);
    return OK;
}

void fake_store_start(struct fake_store *fake, const void *bytes, usize len)
{
    *fake = (struct fake_store){.bytes = bytes};
    fake->store = (struct store){.name = "fake", .bytes = len, .ctx = fake, .read = fake_read};
}
