/*
 * rt.c: what a freestanding compiler calls. Owns nothing. Large moves are string instructions of
 * eight bytes a turn: cores run them at full width, and QEMU's translator, which runs them turn by
 * turn, moves eight times as much with each.
 */
#include "kernel/base.h"

void *memcpy(void *restrict to, const void *restrict from, usize bytes)
{
    void *at = to;
    usize words = bytes / 8, tail = bytes % 8;

    __asm__ volatile("rep movsq\n\tmov %3, %2\n\trep movsb"
                     : "+D"(at), "+S"(from), "+c"(words)
                     : "r"(tail)
                     : "memory");
    return to;
}

void *memmove(void *to, const void *from, usize bytes)
{
    if ((usize)to - (usize)from >= bytes) /* also true when `to` lies before `from` */
        return memcpy(to, from, bytes);

    void *to_at = (u8 *)to + bytes - 1;
    from = (const u8 *)from + bytes - 1;
    __asm__ volatile("std\n\trep movsb\n\tcld" : "+D"(to_at), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void *memset(void *to, int byte, usize bytes)
{
    void *at = to;
    u64 word = (u64)(u8)byte * 0x0101010101010101ull;
    usize words = bytes / 8, tail = bytes % 8;

    __asm__ volatile("rep stosq\n\tmov %3, %1\n\trep stosb"
                     : "+D"(at), "+c"(words)
                     : "a"(word), "r"(tail)
                     : "memory");
    return to;
}

int memcmp(const void *a, const void *b, usize bytes)
{
    const u8 *left = a, *right = b;

    for (usize i = 0; i < bytes; i++)
        if (left[i] != right[i])
            return left[i] < right[i] ? -1 : 1;
    return 0;
}

usize strlen(const char *text)
{
    const char *end = text;

    while (*end)
        end++;
    return (usize)(end - text);
}
