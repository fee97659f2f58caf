/*
 * random.c: unpredictable bytes: ChaCha20 over the boot entropy, the key replaced after every
 * request, so that what was given out cannot be worked out later. Core 0 alone asks. Follows: D. J.
 * Bernstein, "Fast-key-erasure random-number generators" (2017).
 */
#include "kernel/kernel.h"

#define KEY_WORDS 8u

static u32 key[KEY_WORDS];

void random_start(const struct handoff *handoff)
{
    u32 words[HANDOFF_ENTROPY_BYTES / 4];

    memcpy(words, handoff->entropy, sizeof(words));
    for (u32 i = 0; i < ARRAY_LEN(words); i++) {
        key[i % KEY_WORDS] ^= words[i];
        if (i % KEY_WORDS == KEY_WORDS - 1)
            random_bytes(NULL, 0); /* the next key depends on all words so far */
    }
    if (handoff->entropy_bytes < sizeof(key))
        log_warn("random", "want %lu bytes of entropy, saw %lu: numbers may be guessed",
                 sizeof(key), handoff->entropy_bytes);
}

void random_bytes(void *out, usize bytes)
{
    u8 *to = out, block[64];
    u32 counter[4] = {0, 0, (u32)cpu_tsc(), 0};

    for (usize take; bytes; bytes -= take, to += take) {
        counter[0]++;
        chacha20_block(key, counter, block);
        take = min_u64(bytes, sizeof(block));
        memcpy(to, block, take);
    }
    counter[0] = 0; /* block 0 is never given out: it is the next key */
    chacha20_block(key, counter, block);
    memcpy(key, block, sizeof(key));
}
