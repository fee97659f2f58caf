/*
 * rope.c: bytes that wait between a parser and a wire, in chains of equal blocks. Every connection
 * draws from one pool, so that memory is bounded as a whole and still goes where it is needed. Must
 * not know what the bytes mean.
 */
#include "net/priv.h"

#define BLOCK_BYTES (4 * KIB)
#define BLOCK_DATA  (BLOCK_BYTES - 16)

struct block {
    struct block *next;
    u32 from, to; /* data[from..to) is still to be read */
    char data[BLOCK_DATA];
};
_Static_assert(sizeof(struct block) == BLOCK_BYTES, "blocks are carved without gaps");

err rope_pool_init(struct pool *pool, const char *name, struct arena *arena, usize bytes)
{
    return pool_init(pool, name, arena, BLOCK_BYTES, (u32)(bytes / BLOCK_BYTES));
}

bool rope_put(struct rope *rope, struct pool *pool, struct str bytes, u32 spare)
{
    usize room = rope->tail ? BLOCK_DATA - rope->tail->to : 0;
    usize blocks = bytes.len > room ? div_up(bytes.len - room, BLOCK_DATA) : 0;

    if (pool->used + blocks + spare > pool->count && blocks)
        return false;
    rope->len += bytes.len;
    while (bytes.len) {
        if (!rope->tail || rope->tail->to == BLOCK_DATA) {
            struct block *block = pool_take(pool);
            CHECK(block);
            *(rope->tail ? &rope->tail->next : &rope->head) = block;
            rope->tail = block;
        }
        usize take = min_u64(bytes.len, BLOCK_DATA - rope->tail->to);
        memcpy(rope->tail->data + rope->tail->to, bytes.ptr, take);
        rope->tail->to += (u32)take;
        bytes = str_slice(bytes, take, bytes.len);
    }
    return true;
}

struct str rope_peek(const struct rope *rope)
{
    const struct block *head = rope->head;

    return head ? (struct str){head->data + head->from, head->to - head->from} : (struct str){};
}

void rope_drop(struct rope *rope, struct pool *pool, usize bytes)
{
    CHECK(bytes <= rope->len);
    rope->len -= bytes;
    while (rope->head && bytes >= rope->head->to - rope->head->from) {
        struct block *head = rope->head;
        bytes -= head->to - head->from;
        rope->head = head->next;
        pool_give(pool, head);
    }
    if (rope->head)
        rope->head->from += (u32)bytes;
    else
        rope->tail = NULL;
}

void rope_copy(const struct rope *rope, char *out)
{
    for (const struct block *block = rope->head; block; block = block->next) {
        memcpy(out, block->data + block->from, block->to - block->from);
        out += block->to - block->from;
    }
}

void rope_append(struct rope *rope, struct rope *from)
{
    if (!from->head)
        return;
    *(rope->tail ? &rope->tail->next : &rope->head) = from->head;
    rope->tail = from->tail;
    rope->len += from->len;
    *from = (struct rope){};
}

void rope_clear(struct rope *rope, struct pool *pool)
{
    rope_drop(rope, pool, rope->len);
}
