/*
 * kernel_mem_test.c: free memory against a plain map of pages, and ChaCha20 against the RFC. The
 * files under test are included: on the host, others have their names.
 */
#include "tests/test.h"

#define pages_alloc         mem_pages_alloc
#define pages_alloc_aligned mem_pages_alloc_aligned
#define pages_take          mem_pages_take
#define pages_free          mem_pages_free
#define pages_available     mem_pages_available
#define mem_seal            mem_mem_seal
#define random_bytes        mem_random_bytes
void *mem_pages_alloc(usize bytes), *mem_pages_take(usize bytes);
void *mem_pages_alloc_aligned(usize bytes, usize align);
void mem_pages_free(void *ptr, usize bytes), mem_mem_seal(void);
void mem_random_bytes(void *out, usize bytes);
usize mem_pages_available(void);
#include "kernel/mem.c"
#include "kernel/random.c"

#define PAGES 512u

static _Alignas(64 * 1024) u8 room[PAGES * PAGE_BYTES];

static u32 count_free(const bool *taken)
{
    u32 free = 0;
    for (u32 i = 0; i < PAGES; i++)
        free += !taken[i];
    return free;
}

/* The direct map of a machine whose second MiB and later lie in `room`. */
static void start(void)
{
    static struct handoff handoff;

    mem.first = NULL;
    mem.free_bytes = 0;
    mem.sealed = false;
    handoff.ranges[0] =
        (struct handoff_range){(usize)room - HANDOFF_DIRECT_MAP, sizeof(room) / 2, HANDOFF_FREE};
    handoff.ranges[1] = (struct handoff_range){(usize)room - HANDOFF_DIRECT_MAP + sizeof(room) / 2,
                                               sizeof(room) / 2, HANDOFF_FREE};
    handoff.ranges[2] = (struct handoff_range){0, 512 * KIB, HANDOFF_FREE};
    handoff.ranges[3] = (struct handoff_range){4 * MIB, 1 * MIB, HANDOFF_KEPT};
    handoff.range_count = 4;
    mem_start(&handoff);
    EXPECT_EQ(pages_available(), sizeof(room));
}

/* Random takes and gives: no page is ever out twice, the total is right, neighbours are joined. */
TEST(kernel_mem_against_a_page_map)
{
    bool taken[PAGES] = {};
    struct {
        u64 page, pages;
    } held[64];
    u32 held_count = 0;

    start();
    for (u32 turn = 0; turn < 20000; turn++) {
        u64 pages = 1 + test_random_below(24), align = PAGE_BYTES << test_random_below(5);
        if (held_count < 64 && test_random_below(2)) {
            u8 *at = pages_alloc_aligned(pages * PAGE_BYTES - test_random_below(PAGE_BYTES), align);
            if (!at)
                continue;
            EXPECT((usize)at % align == 0 && at >= room);
            u64 first = (usize)(at - room) / PAGE_BYTES;
            for (u64 i = 0; i < pages; i++) {
                EXPECT(!taken[first + i]);
                taken[first + i] = true;
            }
            for (u64 i = 0; i < pages * PAGE_BYTES; i += 8)
                EXPECT(*(u64 *)(void *)(at + i) == 0);
            memset(at, 0xa5, pages * PAGE_BYTES);
            held[held_count].page = first;
            held[held_count++].pages = pages;
        } else if (held_count) {
            u32 which = test_random_below(held_count);
            pages_free(room + held[which].page * PAGE_BYTES, held[which].pages * PAGE_BYTES);
            for (u64 i = 0; i < held[which].pages; i++)
                taken[held[which].page + i] = false;
            held[which] = held[--held_count];
        }
        EXPECT_EQ(pages_available(), count_free(taken) * PAGE_BYTES);
        for (struct run *r = mem.first; r && r->next; r = r->next)
            EXPECT((u8 *)r + r->bytes < (u8 *)r->next);
    }
}

TEST(kernel_mem_ends_are_exact)
{
    start();
    EXPECT(pages_take(sizeof(room) + 1) == NULL && pages_take(0) == NULL);
    EXPECT(pages_take(SIZE_MAX) == NULL);
    u8 *all = pages_take(sizeof(room));
    EXPECT(all == room && pages_available() == 0 && pages_alloc(1) == NULL);
    pages_free(all + PAGE_BYTES, PAGE_BYTES);
    pages_free(all + 3 * PAGE_BYTES, PAGE_BYTES);
    EXPECT(pages_take(2 * PAGE_BYTES) == NULL);
    pages_free(all + 2 * PAGE_BYTES, 1); /* joins the two */
    EXPECT(pages_take(3 * PAGE_BYTES) == all + PAGE_BYTES);
    pages_free(NULL, 0);
    EXPECT_EQ(pages_available(), 0);
}

/* The test vector of RFC 8439, 2.3.2. */
TEST(kernel_chacha20_matches_the_rfc)
{
    static const u8 expected[64] = {
        0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15, 0x50, 0x0f, 0xdd, 0x1f, 0xa3,
        0x20, 0x71, 0xc4, 0xc7, 0xd1, 0xf4, 0xc7, 0x33, 0xc0, 0x68, 0x03, 0x04, 0x22,
        0xaa, 0x9a, 0xc3, 0xd4, 0x6c, 0x4e, 0xd2, 0x82, 0x64, 0x46, 0x07, 0x9f, 0xaa,
        0x09, 0x14, 0xc2, 0xd7, 0x05, 0xd9, 0x8b, 0x02, 0xa2, 0xb5, 0x12, 0x9c, 0xd1,
        0xde, 0x16, 0x4e, 0xb9, 0xcb, 0xd0, 0x83, 0xe8, 0xa2, 0x50, 0x3c, 0x4e,
    };
    u8 bytes[32], out[64];
    u32 words[8];
    const u32 tail[4] = {1, 0x09000000, 0x4a000000, 0};

    for (u32 i = 0; i < 32; i++)
        bytes[i] = (u8)i;
    memcpy(words, bytes, 32);
    chacha20_block(words, tail, out);
    EXPECT(memcmp(out, expected, 64) == 0);
}
