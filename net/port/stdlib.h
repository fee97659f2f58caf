/*
 * stdlib.h: the part of libc's header that lwIP uses: atoi() of netif_find(), which nothing calls.
 */
#ifndef NOHOST_LWIP_STDLIB_H
#define NOHOST_LWIP_STDLIB_H

static inline int atoi(const char *text)
{
    int value = 0;

    while (*text >= '0' && *text <= '9')
        value = value * 10 + (*text++ - '0');
    return value;
}

#endif
