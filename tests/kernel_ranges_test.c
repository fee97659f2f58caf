/*
 * kernel_ranges_test.c: free memory against a plain map of pages, and ChaCha20 against the RFC.
 */
#include "tests/test.h"

#include "kernel/kernel.h"

#define PAGES 512u

static struct ranges set;

static u32 count_free(const bool *taken)
{
    u32 free = 0;
    for (u32 i = 0; i < PAGES; i++)
        free += !taken[i];
    return free;
}

/* Random takes and gives: no page is ever out twice, the total is right, neighbours are joined. */
TEST(kernel_ranges_against_a_page_map)
{
    bool taken[PAGES] = {};
    struct {
        u64 page, pages;
    } held[64];
    u32 held_count = 0;

    set = (struct ranges){};
    EXPECT(ranges_add(&set, 0, PAGES * PAGE_BYTES));
    for (u32 turn = 0; turn < 20000; turn++) {
        u64 pages = 1 + test_random_below(24), align = 1ull << test_random_below(5);
        if (held_count < 64 && test_random_below(2)) {
            u64 base = ranges_take(&set, pages * PAGE_BYTES, align * PAGE_BYTES);
            if (base == UINT64_MAX)
                continue;
            EXPECT(base % (align * PAGE_BYTES) == 0);
            for (u64 i = 0; i < pages; i++) {
                EXPECT(!taken[base / PAGE_BYTES + i]);
                taken[base / PAGE_BYTES + i] = true;
            }
            held[held_count].page = base / PAGE_BYTES;
            held[held_count++].pages = pages;
        } else if (held_count) {
            u32 which = test_random_below(held_count);
            EXPECT(ranges_add(&set, held[which].page * PAGE_BYTES, held[which].pages * PAGE_BYTES));
            for (u64 i = 0; i < held[which].pages; i++)
                taken[held[which].page + i] = false;
            held[which] = held[--held_count];
        }
        EXPECT_EQ(set.bytes, count_free(taken) * PAGE_BYTES);
        for (u32 i = 1; i < set.count; i++)
            EXPECT(set.at[i - 1].base + set.at[i - 1].bytes < set.at[i].base);
    }
}

TEST(kernel_ranges_full_table_loses_nothing_else)
{
    set = (struct ranges){};
    for (u64 i = 0; i < RANGES_MAX; i++)
        EXPECT(ranges_add(&set, (2 * i + 2) * PAGE_BYTES, PAGE_BYTES));
    EXPECT(!ranges_add(&set, (2 * RANGES_MAX + 9) * PAGE_BYTES, PAGE_BYTES));
    EXPECT(ranges_add(&set, 3 * PAGE_BYTES, PAGE_BYTES)); /* joins two: makes a place */
    EXPECT_EQ(set.count, RANGES_MAX - 1);
    EXPECT(ranges_take(&set, 4 * PAGE_BYTES, PAGE_BYTES) == UINT64_MAX);
    EXPECT_EQ(ranges_take(&set, 3 * PAGE_BYTES, PAGE_BYTES), 2 * PAGE_BYTES);
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
    u8 key[32], out[64];
    u32 words[8];
    const u32 tail[4] = {1, 0x09000000, 0x4a000000, 0};

    for (u32 i = 0; i < 32; i++)
        key[i] = (u8)i;
    memcpy(words, key, 32);
    chacha20_block(words, tail, out);
    EXPECT(memcmp(out, expected, 64) == 0);
}
