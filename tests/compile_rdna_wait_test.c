/*
 * compile_rdna_wait_test.c: guards waits and hazards: random programs with loops, branches and
 * every kind of memory run on the strict card without a finding; and where the path is known, each
 * wait that was put in is needed: without it the card finds the mistake.
 */
#include "tests/rdna_wave.h"

#define PROGRAMS 60u
#define SEEDS    4u

static bool is_wait(u16 row)
{
    return row == R_s_waitcnt || row == R_s_waitcnt_vscnt || row == R_v_nop;
}

/* Each wait left out by itself: how many the engine does not miss. */
static u32 needless_waits(const struct rcode *code, struct arena arena)
{
    u32 needless = 0;

    for (u32 i = 0; i < code->count; i++) {
        struct rinstr kept = code->instr[i];
        if (!is_wait(kept.row))
            continue;
        code->instr[i] = rdna_blank(R_s_nop);
        needless += wave_run(code, arena, 1, NULL) == NULL;
        code->instr[i] = kept;
    }
    return needless;
}

TEST(compile_rdna_waits_suffice)
{
    u8 *memory = pages_alloc(8 * MIB);

    for (u32 i = 0; i < PROGRAMS; i++) {
        struct arena arena = arena_on("waits", memory, 8 * MIB);
        struct rcode code = wave_list(&arena), waited;
        wave_random(&code, i % 3);
        EXPECT_OK(rdna_wait(&code, &arena, &waited));
        for (u64 seed = 1; seed <= SEEDS; seed++)
            if (wave_run(&waited, arena, seed, NULL))
                test_fail(__FILE__, __LINE__, "program %u: %s", i,
                          wave_run(&waited, arena, seed, NULL));
    }
    pages_free(memory, 8 * MIB);
}

TEST(compile_rdna_waits_are_needed)
{
    u8 *memory = pages_alloc(8 * MIB);

    for (u32 i = 0; i < PROGRAMS / 6; i++) {
        struct arena arena = arena_on("waits", memory, 8 * MIB);
        struct rcode code = wave_list(&arena), waited;
        wave_random(&code, STRAIGHT);
        EXPECT_OK(rdna_wait(&code, &arena, &waited));
        EXPECT_EQ(needless_waits(&waited, arena), 0);
    }
    pages_free(memory, 8 * MIB);
}

/* Two waves, each reads what the other wrote: to LDS, then to memory. */
static void exchange(struct rcode *code)
{
    u16 v_other = V_FREE;

    code->count = 0;
    wave_add(code, R_v_lshlrev_b32, V_LANE4, RDNA_INT(2), RDNA_VGPR);
    wave_add(code, R_v_xor_b32, v_other, RDNA_CONST, V_LANE4)->literal = 128;
    wave_add(code, R_ds_store_b32, RDNA_NONE, V_LANE4, RDNA_VGPR);
    wave_add(code, R_s_barrier, RDNA_NONE, RDNA_NONE, RDNA_NONE);
    wave_add(code, R_ds_load_b32, V_FREE + 1, v_other, RDNA_NONE);
    wave_add(code, R_global_store_b32, RDNA_NONE, V_LANE4, V_FREE + 1)->src[2] = S_WRITTEN;
    wave_add(code, R_s_barrier, RDNA_NONE, RDNA_NONE, RDNA_NONE);
    wave_add(code, R_ds_store_b32, RDNA_NONE, V_LANE4, V_FREE + 1);
    wave_add(code, R_global_load_b32, V_FREE + 2, v_other, RDNA_NONE)->src[2] = S_WRITTEN;
    wave_add(code, R_ds_store_b32, RDNA_NONE, V_LANE4, V_FREE + 2);
    wave_add(code, R_s_endpgm, RDNA_NONE, RDNA_NONE, RDNA_NONE);
}

static u32 count_of(const struct rcode *code, u16 row)
{
    u32 count = 0;

    for (u32 i = 0; i < code->count; i++)
        count += code->instr[i].row == row;
    return count;
}

/* Guards what a barrier waits for. That memory is not read too early the engine cannot see here
 * (it keeps no caches); then the wait must at least be there. */
TEST(compile_rdna_waits_before_barriers)
{
    u8 *memory = pages_alloc(8 * MIB);
    struct arena arena = arena_on("waits", memory, 8 * MIB);
    struct rcode code = wave_list(&arena), waited;

    exchange(&code);
    EXPECT(wave_run(&code, arena, 1, NULL) != NULL);
    EXPECT_OK(rdna_wait(&code, &arena, &waited));
    for (u64 seed = 1; seed <= SEEDS; seed++)
        EXPECT(wave_run(&waited, arena, seed, NULL) == NULL);
    EXPECT_EQ(count_of(&waited, R_s_waitcnt_vscnt), 1);
    EXPECT_EQ(count_of(&waited, R_s_waitcnt), 3);
    pages_free(memory, 8 * MIB);
}
