/*
 * fuzz_gguf.c: any bytes as a model file; what is accepted is then used to its ends. Seeds:
 * tests/data/fuzz_gguf.
 */
#include "ml/gguf.h"

#define ARENA_BYTES (4 * MIB)

int LLVMFuzzerTestOneInput(const u8 *data, usize size);

static err read_input(struct store *store, u64 offset, void *out, usize bytes)
{
    CHECK(offset <= store->bytes && bytes <= store->bytes - offset);
    if (bytes > 0)
        memcpy(out, (const u8 *)store->ctx + offset, bytes);
    return OK;
}

/* Reads every element by the getter of its type. */
static u64 use_key(const struct gguf_key *key)
{
    struct str rest = key->data;
    u64 sum = 0;

    for (u32 i = 0; i < key->count; i++) {
        if (key->type == GGUF_STRING) {
            struct str text = gguf_cut_str(&rest);

            sum += text.len ? (u8)text.ptr[text.len - 1] : 0;
        } else {
            sum += gguf_number(key, i) > 0;
        }
    }
    CHECK(key->type != GGUF_STRING || rest.len == 0);
    return sum;
}

static void use(struct gguf *gguf)
{
    volatile u64 sink = 0;
    u8 last;

    for (u32 i = 0; i < gguf->key_count; i++)
        sink = sink + use_key(&gguf->key[i]);
    for (u32 i = 0; i < gguf->tensor_count; i++) {
        const struct gguf_tensor *t = &gguf->tensor[i];

        CHECK(gguf_tensor(gguf, t->name) == t);
        CHECK(gguf_read(gguf, t, t->bytes - 1, &last, 1) == OK);
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, usize size)
{
    static u8 memory[ARENA_BYTES] __attribute__((aligned(64)));
    char words[GGUF_REASON_MAX];
    struct text reason = TEXT_ON(words);
    struct arena arena = arena_on("fuzz", memory, sizeof(memory));
    struct store part[2] = {{.bytes = size, .ctx = (void *)(uintptr_t)data, .read = read_input}};
    struct gguf gguf;
    u32 count = 1;

    if (size > 0 && data[size - 1] == 0xfe) { /* the same bytes as a file in two parts */
        part[0].bytes = size / 2;
        part[1] = part[0];
        part[1].bytes = size - size / 2;
        part[1].ctx = (void *)(uintptr_t)(data + size / 2);
        count = 2;
    }
    if (gguf_open(&gguf, part, count, &arena, &reason) == OK)
        use(&gguf);
    else
        CHECK(reason.len > 0);
    return 0;
}
