/*
 * log.c: one ring of whole lines that every sink reads. Portable; must not know a device. Lines
 * look like "[   1.234567] room: text"; a '!' before the room marks a warning, '!!' an error.
 */
#include "kernel/base.h"

#define RING_BYTES ((usize)1 << 16)
#define SINKS_MAX  4
/* A core that died inside the log must not silence the crash report. */
#define LOCK_SPINS_MAX 1000000

/* One of the few mutable file-scope objects: a crash must be able to read it from anywhere. */
static struct {
    bool busy;
    u64 head; /* bytes ever written */
    char ring[RING_BYTES];
    void (*sink[SINKS_MAX])(struct str line);
    u32 sink_count;
} book;

void log_sink_add(void (*put)(struct str line))
{
    CHECK(book.sink_count < SINKS_MAX);
    book.sink[book.sink_count++] = put;
}

void log_line(enum log_level level, const char *who, const char *format, ...)
{
    static const char *const marks[] = {"", "! ", "!! "};
    char buffer[LOG_LINE_MAX];
    struct text line = TEXT_ON(buffer);
    u64 now_us = time_ns() / NS_PER_US;
    va_list args;

    line.cap--; /* the line end always fits */
    text_fmt(&line, "[%4u.%06u] %s%s: ", (u32)(now_us / 1000000), (u32)(now_us % 1000000),
             marks[level], who);
    va_start(args, format);
    text_vfmt(&line, format, args);
    va_end(args);
    /* Text from outside must not forge lines or drive a terminal. */
    for (usize i = 0; i < line.len; i++)
        if ((u8)buffer[i] < ' ' || buffer[i] == 0x7f)
            buffer[i] = '?';
    line.cap++;
    text_char(&line, '\n');

    for (u32 spins = 0; spins < LOCK_SPINS_MAX; spins++)
        if (!__atomic_exchange_n(&book.busy, true, __ATOMIC_ACQUIRE))
            break;
    for (usize i = 0; i < line.len; i++)
        book.ring[book.head++ % RING_BYTES] = buffer[i];
    for (u32 i = 0; i < book.sink_count; i++)
        book.sink[i](text_str(&line));
    __atomic_store_n(&book.busy, false, __ATOMIC_RELEASE);
}

usize log_read(char *out, usize cap)
{
    u64 head = book.head;
    usize kept = min_u64(min_u64(head, RING_BYTES), cap);
    u64 from = head - kept;

    /* The oldest line is whole only when a line end stands before it. */
    while (from > 0 && from < head &&
           (head - from == RING_BYTES || book.ring[(from - 1) % RING_BYTES] != '\n'))
        from++;
    for (u64 i = from; i < head; i++)
        out[i - from] = book.ring[i % RING_BYTES];
    return (usize)(head - from);
}
