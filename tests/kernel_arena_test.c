/*
 * kernel_arena_test.c: arenas and pools at their limits, and the log ring.
 */
#include "tests/test.h"

TEST(kernel_arena_fills_to_the_last_byte)
{
    static _Alignas(64) u8 memory[256];
    struct arena arena = arena_on("test", memory, sizeof(memory));

    u8 *first = arena_alloc(&arena, 1, 1);
    u8 *second = arena_alloc(&arena, 8, 64);
    EXPECT(first == memory && second == memory + 64);
    usize mark = arena_mark(&arena);
    EXPECT(arena_alloc(&arena, sizeof(memory) - 72 + 1, 1) == NULL);
    memory[100] = 0xff;
    u8 *rest = arena_alloc(&arena, sizeof(memory) - 72, 1);
    EXPECT(rest && memory[100] == 0);
    EXPECT(arena_alloc(&arena, 1, 1) == NULL);
    arena_reset(&arena, mark);
    EXPECT_EQ(arena.used, 72);
    EXPECT_EQ(arena.peak, sizeof(memory));
}

/* Sizes from files: count * size and align must not wrap to something small. */
TEST(kernel_arena_refuses_sizes_that_wrap)
{
    static _Alignas(64) u8 memory[128];
    struct arena arena = arena_on("test", memory, sizeof(memory));

    EXPECT(arena_alloc_array(&arena, SIZE_MAX / 8 + 2, 8, 8) == NULL);
    EXPECT(arena_alloc(&arena, SIZE_MAX, 1) == NULL);
    EXPECT(arena_alloc(&arena, 3, 1) && arena_alloc(&arena, SIZE_MAX - 2, 64) == NULL);
}

TEST(kernel_pool_gives_each_place_once)
{
    static _Alignas(64) u8 memory[4096];
    struct arena arena = arena_on("test", memory, sizeof(memory));
    struct pool pool;
    u64 *place[10];

    EXPECT_OK(pool_init(&pool, "places", &arena, 20, 10));
    for (u64 i = 0; i < 10; i++) {
        place[i] = pool_take(&pool);
        EXPECT(place[i] && *place[i] == 0);
        *place[i] = i;
    }
    EXPECT(pool_take(&pool) == NULL);
    for (u64 i = 0; i < 10; i++)
        EXPECT_EQ(*place[i], i);
    pool_give(&pool, place[3]);
    EXPECT(pool_take(&pool) == place[3] && *place[3] == 0);
    EXPECT_EQ(pool.used, 10);
    EXPECT_EQ(pool_init(&pool, "too many", &arena, 64, 1000), E_NOMEM);
}

static struct {
    char bytes[LOG_LINE_MAX];
    usize len;
} seen;

static void remember(struct str line)
{
    EXPECT(line.len <= sizeof(seen.bytes));
    memcpy(seen.bytes, line.ptr, line.len);
    seen.len = line.len;
}

/* Outside text in a line can neither start a line of its own nor send an escape to the terminal. */
TEST(kernel_log_lines_are_whole_and_bounded)
{
    static bool added; /* the sink stays registered after this test */
    char copy[300];

    if (!added)
        log_sink_add(remember);
    added = true;
    log_warn("test", "forged\n[0] pci: \x1b[2J%0300d", 1);
    struct str line = {seen.bytes, seen.len};
    EXPECT_EQ(line.len, LOG_LINE_MAX);
    EXPECT_EQ(str_find_char(line, '\n'), LOG_LINE_MAX - 1);
    EXPECT_EQ(str_find_char(line, 0x1b), line.len);
    EXPECT(str_find(line, STR("! test: forged?[0]")) < line.len);
    for (u32 i = 0; i < 2000; i++)
        log_info("test", "line %u", i);
    usize got = log_read(copy, sizeof(copy));
    EXPECT(got > 200 && copy[0] == '[' && copy[got - 1] == '\n');
    EXPECT(str_find((struct str){copy, got}, STR("line 1999")) < got);
}
