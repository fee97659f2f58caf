/*
 * chacha.c: the ChaCha20 block function, nothing else. Portable. Follows: RFC 8439, 2.1 to 2.3.
 */
#include "kernel/kernel.h"

static u32 rotate(u32 value, u32 bits)
{
    return value << bits | value >> (32 - bits);
}

static void quarter_round(u32 *a, u32 *b, u32 *c, u32 *d)
{
    *a += *b;
    *d = rotate(*d ^ *a, 16);
    *c += *d;
    *b = rotate(*b ^ *c, 12);
    *a += *b;
    *d = rotate(*d ^ *a, 8);
    *c += *d;
    *b = rotate(*b ^ *c, 7);
}

void chacha20_block(const u32 key[8], const u32 tail[4], u8 out[64])
{
    u32 start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, s[16];

    memcpy(start + 4, key, 32);
    memcpy(start + 12, tail, 16);
    memcpy(s, start, sizeof(s));
    for (u32 round = 0; round < 20; round += 2) {
        for (u32 i = 0; i < 4; i++)
            quarter_round(&s[i], &s[4 + i], &s[8 + i], &s[12 + i]);
        for (u32 i = 0; i < 4; i++)
            quarter_round(&s[i], &s[4 + (i + 1) % 4], &s[8 + (i + 2) % 4], &s[12 + (i + 3) % 4]);
    }
    for (u32 i = 0; i < 16; i++)
        s[i] += start[i];
    memcpy(out, s, sizeof(s));
}
