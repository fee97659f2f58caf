/*
 * random.c: unpredictable bytes: ChaCha20 over the boot entropy, the key replaced after every
 * request, so that what was given out cannot be worked out later. Core 0 alone asks. Follows: RFC
 * 8439, 2.1 to 2.3; D. J. Bernstein, "Fast-key-erasure random-number generators" (2017).
 */
#include "kernel/kernel.h"

static u32 key[8];

static u32 rotate(u32 value, u32 bits)
{
    return value << bits | value >> (32 - bits);
}

static void quarter_round(u32 s[16], u32 a, u32 b, u32 c, u32 d)
{
    for (u32 half = 0; half < 2; half++) {
        s[a] += s[b];
        s[d] = rotate(s[d] ^ s[a], half ? 8 : 16);
        s[c] += s[d];
        s[b] = rotate(s[b] ^ s[c], half ? 7 : 12);
    }
}

void chacha20_block(const u32 secret[8], const u32 tail[4], u8 out[64])
{
    u32 start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, s[16];

    memcpy(start + 4, secret, 32);
    memcpy(start + 12, tail, 16);
    memcpy(s, start, sizeof(s));
    for (u32 round = 0; round < 20; round++) /* columns, diagonals, columns... */
        for (u32 i = 0, d = round & 1; i < 4; i++)
            quarter_round(s, i, 4 + (i + d) % 4, 8 + (i + 2 * d) % 4, 12 + (i + 3 * d) % 4);
    for (u32 i = 0; i < 16; i++)
        s[i] += start[i];
    memcpy(out, s, sizeof(s));
}

void random_bytes(void *out, usize bytes)
{
    u32 counter[4] = {0, 0, (u32)cpu_tsc(), 0};
    u8 *to = out, block[64];

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

void random_start(const struct handoff *handoff)
{
    for (u32 i = 0; i < HANDOFF_ENTROPY_BYTES / sizeof(u32); i++) {
        u32 word;
        memcpy(&word, handoff->entropy + i * sizeof(word), sizeof(word));
        key[i % ARRAY_LEN(key)] ^= word;
        if ((i + 1) % ARRAY_LEN(key) == 0)
            random_bytes(NULL, 0); /* the next key depends on all words so far */
    }
    if (handoff->entropy_bytes < sizeof(key))
        log_warn("random", "want %lu bytes of entropy, saw %lu: numbers may be guessed",
                 sizeof(key), handoff->entropy_bytes);
}
