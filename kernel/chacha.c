/*
 * chacha.c: the ChaCha20 block function, nothing else. Portable. Follows: RFC 8439, 2.1 to 2.3.
 */
#include "kernel/kernel.h"

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

void chacha20_block(const u32 key[8], const u32 tail[4], u8 out[64])
{
    u32 start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, s[16];

    memcpy(start + 4, key, 32);
    memcpy(start + 12, tail, 16);
    memcpy(s, start, sizeof(s));
    for (u32 round = 0; round < 20; round++) /* columns, diagonals, columns... */
        for (u32 i = 0, d = round & 1; i < 4; i++)
            quarter_round(s, i, 4 + (i + d) % 4, 8 + (i + 2 * d) % 4, 12 + (i + 3 * d) % 4);
    for (u32 i = 0; i < 16; i++)
        s[i] += start[i];
    memcpy(out, s, sizeof(s));
}
