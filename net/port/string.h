/*
 * string.h: the part of libc's header that lwIP uses; kernel/rt.c and netif.c implement it.
 */
#ifndef NOHOST_LWIP_STRING_H
#define NOHOST_LWIP_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
size_t strlen(const char *text);

static inline int strncmp(const char *a, const char *b, size_t max)
{
    size_t i = 0;

    while (i < max && a[i] && a[i] == b[i])
        i++;
    return i == max ? 0 : (unsigned char)a[i] - (unsigned char)b[i];
}

static inline int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, (size_t)-1);
}

#endif
