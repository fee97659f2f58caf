/*
 * kernel_files_test.c: which pages of a file are given back, and when. The file under test is
 * included, so that the pages it frees come here.
 */
#include "tests/test.h"

static void note_free(void *ptr, usize bytes);
#define pages_free note_free
#include "kernel/files.c"
#undef pages_free

#define PAGES 40u

static u8 *memory;
static u32 freed[PAGES];

static void note_free(void *ptr, usize bytes)
{
    usize first = (usize)((u8 *)ptr - memory) / PAGE_BYTES;

    EXPECT(!bytes || ((u8 *)ptr - memory) % (i64)PAGE_BYTES == 0);
    for (usize i = 0; i < div_up(bytes, PAGE_BYTES); i++)
        freed[first + i]++;
}

static struct store *file_of(struct handoff *handoff, u64 bytes)
{
    static _Alignas(4096) u8 room[PAGES * PAGE_BYTES];

    memory = room;
    memset(freed, 0, sizeof(freed));
    memset(handoff, 0, sizeof(*handoff));
    handoff->file_count = 2;
    handoff->files[0].status = 14;
    handoff->files[1].base = (usize)room - HANDOFF_DIRECT_MAP;
    handoff->files[1].bytes = bytes;
    EXPECT(file_store(handoff, 0) == NULL && file_store(handoff, 2) == NULL);
    struct store *store = file_store(handoff, 1);
    EXPECT(store && store->bytes == bytes && store->release);
    return store;
}

/* Pieces of any size, in any order: a page goes exactly once, with the last of its bytes. */
TEST(kernel_files_free_each_page_with_its_last_byte)
{
    static struct handoff handoff;
    static bool released[PAGES * PAGE_BYTES];
    struct {
        u64 at, bytes;
    } piece[PAGES * PAGE_BYTES / 500];
    u64 bytes = PAGES * PAGE_BYTES - 1234;
    struct store *store = file_of(&handoff, bytes);
    u32 count = 0;

    memset(released, 0, sizeof(released));
    for (u64 at = 0; at < bytes; at += piece[count++].bytes) {
        piece[count].at = at;
        piece[count].bytes = min_u64(500 + test_random_below(9000), bytes - at);
    }
    while (count) {
        u32 which = test_random_below(count);
        store->release(store, piece[which].at, piece[which].bytes);
        memset(released + piece[which].at, 1, piece[which].bytes);
        piece[which] = piece[--count];
        for (u32 page = 0; page < PAGES; page++) {
            u64 end = min_u64((page + 1) * PAGE_BYTES, bytes), left = 0;
            for (u64 at = page * PAGE_BYTES; at < end; at++)
                left += !released[at];
            EXPECT_EQ(freed[page], left == 0);
        }
    }
}

TEST(kernel_files_refuse_reads_past_the_end)
{
    static struct handoff handoff;
    u8 out[16];
    struct store *store = file_of(&handoff, 100);

    memory[99] = 7;
    EXPECT_OK(store->read(store, 99, out, 1));
    EXPECT_EQ(out[0], 7);
    EXPECT_EQ(store->read(store, 99, out, 2), E_RANGE);
    EXPECT_EQ(store->read(store, 101, out, 0), E_RANGE);
    EXPECT_EQ(store->read(store, UINT64_MAX, out, 2), E_RANGE);
}
