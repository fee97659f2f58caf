/*
 * random.c: unpredictable bytes: ChaCha20 over the boot entropy, the key replaced after every
 * request, so that what was given out cannot be worked out later. Core 0 alone asks. Follows: D. J.
 * Bernstein, "Fast-key-erasure random-number generators" (2017); SP 800-90A for RDRAND.
 */
#include "kernel/kernel.h"

#define RDRAND_TRIES 10u

static struct {
    u32 key[8];
} random;

/* The new key depends on the old one and on every word mixed in. */
static void stir(const void *bytes, usize count)
{
    u8 block[64];
    const u32 nothing[4] = {};

    for (usize at = 0; at < count; at += sizeof(random.key)) {
        u32 part[8] = {};
        memcpy(part, (const u8 *)bytes + at, min_u64(count - at, sizeof(part)));
        for (u32 i = 0; i < 8; i++)
            random.key[i] ^= part[i];
        chacha20_block(random.key, nothing, block);
        memcpy(random.key, block, sizeof(random.key));
    }
}

static bool rdrand(u64 *word)
{
    bool good = false;

    for (u32 i = 0; i < RDRAND_TRIES && !good; i++)
        __asm__ volatile("rdrand %0" : "=r"(*word), "=@ccc"(good));
    return good;
}

/* A few words of the processor's own source, and the time, which differs from boot to boot. */
static bool stir_from_cpu(void)
{
    u64 words[5] = {};
    bool good = cpu_id(1, 0).ecx & 1u << 30;

    for (u32 i = 0; i < 4 && good; i++)
        good = rdrand(&words[i]);
    words[4] = cpu_tsc();
    stir(words, sizeof(words));
    return good;
}

void random_start(const u8 *entropy, u32 bytes)
{
    stir(entropy, bytes);
    bool from_cpu = stir_from_cpu();
    if (bytes < 32 && !from_cpu)
        log_warn("random", "want 32 bytes of entropy, saw %u and no RDRAND: numbers may be guessed",
                 bytes);
    log_info("random", "%u bytes from the firmware, RDRAND %s", bytes, from_cpu ? "yes" : "no");
}

void random_bytes(void *out, usize bytes)
{
    u8 *to = out, block[64];
    u32 counter[4] = {0, 0, (u32)cpu_tsc(), 0};

    for (usize take; bytes; bytes -= take, to += take) {
        counter[0]++;
        chacha20_block(random.key, counter, block);
        take = min_u64(bytes, sizeof(block));
        memcpy(to, block, take);
    }
    counter[0] = 0; /* block 0 is never given out: it is the next key */
    chacha20_block(random.key, counter, block);
    memcpy(random.key, block, sizeof(random.key));
}
