/*
 * fifo.c: bytes that wait between a parser and a wire, in chains of equal blocks. Every
 * connection draws from one pool, so that memory is bounded as a whole and still goes where it is
 * needed. Must not know what the bytes mean.
 */
#include "net/priv.h"

#define BLOCK_DATA (BLOCK_BYTES - 16)

struct block {
    struct block *next;
    u32 from, to; /* data[from..to) is still to be read */
    char data[BLOCK_DATA];
};
_Static_assert(sizeof(struct block) == BLOCK_BYTES, "blocks are carved without gaps");

bool fifo_put(struct fifo *fifo, struct pool *pool, struct str bytes, u32 spare)
{
    usize room = fifo->tail ? BLOCK_DATA - fifo->tail->to : 0;
    usize blocks = bytes.len > room ? div_up(bytes.len - room, BLOCK_DATA) : 0;

    if (pool->used + blocks + spare > pool->count && blocks)
        return false;
    fifo->len += bytes.len;
    while (bytes.len) {
        if (!fifo->tail || fifo->tail->to == BLOCK_DATA) {
            struct block *block = pool_take(pool);
            CHECK(block);
            *(fifo->tail ? &fifo->tail->next : &fifo->head) = block;
            fifo->tail = block;
        }
        usize take = min_u64(bytes.len, BLOCK_DATA - fifo->tail->to);
        memcpy(fifo->tail->data + fifo->tail->to, bytes.ptr, take);
        fifo->tail->to += (u32)take;
        bytes = str_slice(bytes, take, bytes.len);
    }
    return true;
}

struct str fifo_peek(const struct fifo *fifo)
{
    const struct block *head = fifo->head;

    return head ? (struct str){head->data + head->from, head->to - head->from} : (struct str){};
}

void fifo_drop(struct fifo *fifo, struct pool *pool, usize bytes)
{
    CHECK(bytes <= fifo->len);
    fifo->len -= bytes;
    while (fifo->head && bytes >= fifo->head->to - fifo->head->from) {
        struct block *head = fifo->head;
        bytes -= head->to - head->from;
        fifo->head = head->next;
        pool_give(pool, head);
    }
    if (fifo->head)
        fifo->head->from += (u32)bytes;
    else
        fifo->tail = NULL;
}

void fifo_take(struct fifo *fifo, struct pool *pool, struct text *out)
{
    while (fifo->len) {
        struct str bytes = fifo_peek(fifo);
        text_put(out, bytes);
        fifo_drop(fifo, pool, bytes.len);
    }
}
