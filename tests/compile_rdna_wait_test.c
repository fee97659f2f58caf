/*
 * compile_rdna_wait_test.c: guards waits and hazards: random programs with loops, branches and
 * every kind of memory run on the strict card without a finding; and where the path is known, each
 * wait that was put in is needed: without it the card finds the mistake.
 */
#include <stdlib.h>

#include "ml/compile/rdna.h"
#include "sim/space.h"
#include "tests/test.h"

#define CODE_BYTES 0x4000u
#define DATA_BYTES 4096u
#define RSRC1      (0x40000000u | 15)   /* MEM_ORDERED; 128 VGPRs */
#define RSRC2      (4u << 1 | 8u << 15) /* user SGPRs, 4 KB of LDS */
#define BODY_MAX   40u
#define LIST_MAX   512u
#define PROGRAMS   60u
#define SEEDS      4u

/* v0: lane, v1: 4 lanes, v2: 16 lanes, s[0:1]: data that is only read, s[2:3]: written. Values in
 * v16..v47 and s16..s31, zeros for matrices in v64..v103. */
enum { V_LANE4 = RDNA_VGPR + 1, V_LANE16, V_FREE = RDNA_VGPR + 16, V_ZERO = RDNA_VGPR + 64 };
enum { S_READ = 0, S_WRITTEN = 2, S_COUNT = 8, S_FREE = 16 };

static u32 below(u32 end)
{
    return (u32)test_random_below(end);
}

/* ---- programs ---- */

static struct rinstr *add(struct rcode *code, u16 row, u16 dst, u16 src0, u16 src1)
{
    struct rinstr *instr = &code->instr[code->count++];

    CHECK(code->count <= code->max);
    *instr = rdna_blank(row);
    instr->dst = dst;
    instr->src[0] = src0;
    instr->src[1] = src1;
    return instr;
}

static u16 some_v(u32 width)
{
    return (u16)(V_FREE + below(33 - width));
}

static u16 some_s(u32 width)
{
    return (u16)(S_FREE + below(16 / width) * width);
}

static void add_memory(struct rcode *code)
{
    struct rinstr *instr;

    switch (below(8)) {
    case 0:
        instr = add(code, R_global_load_b32, some_v(1), V_LANE4, RDNA_NONE);
        instr->src[2] = S_READ;
        break;
    case 1:
        instr = add(code, R_global_load_b128, some_v(4), V_LANE16, RDNA_NONE);
        instr->src[2] = S_READ;
        break;
    case 2:
        instr = add(code, R_global_store_b32, RDNA_NONE, V_LANE4, some_v(1));
        instr->src[2] = S_WRITTEN;
        break;
    case 3:
        instr = add(code, R_ds_load_b128, some_v(4), V_LANE16, RDNA_NONE);
        break;
    case 4:
        instr = add(code, R_ds_store_b64, RDNA_NONE, V_LANE16, some_v(2));
        break;
    case 5:
        instr = add(code, R_s_load_b32, some_s(1), S_READ, RDNA_NONE);
        break;
    default:
        instr = add(code, R_s_load_b128, some_s(4), S_READ, RDNA_NONE);
    }
    instr->imm = (i32)below(16) * 16;
    instr->fixed = instr->src[2] == S_READ;
}

static void add_valu(struct rcode *code)
{
    struct rinstr *instr;

    switch (below(8)) {
    case 0:
        add(code, R_v_rcp_f32, some_v(1), some_v(1), RDNA_NONE);
        break;
    case 1:
        instr = add(code, R_v_wmma_f32_16x16x16_f16, V_ZERO + 32, V_ZERO, V_ZERO + 8);
        instr->src[0] = (u16)(V_ZERO + below(2) * 32); /* the last result, at times */
        instr->dst = (u16)(V_ZERO + 16 + below(2) * 16);
        instr->src[2] = instr->dst;
        break;
    case 2:
        add(code, R_v_cmpx_lt_i32, RDNA_NONE, RDNA_INT(-1), RDNA_VGPR);
        break;
    case 3:
        instr = add(code, R_v_permlanex16_b32, some_v(1), some_v(1), RDNA_ZERO);
        instr->src[2] = some_s(1);
        break;
    case 4:
        instr = add(code, R_v_add_f32, some_v(1), some_v(1), some_v(1));
        instr->dpp = DPP_ROW_XMASK + 1;
        break;
    case 5:
        add(code, R_s_add_u32, some_s(1), some_s(1), some_s(1));
        break;
    case 6:
        add(code, R_v_readfirstlane_b32, some_s(1), some_v(1), RDNA_NONE);
        break;
    default:
        add(code, R_v_add_nc_u32, some_v(1), some_s(1), some_v(1));
    }
}

static void add_branch(struct rcode *code, u16 row, i32 label)
{
    add(code, row, RDNA_NONE, RDNA_NONE, RDNA_NONE)->imm = label;
}

static void add_some(struct rcode *code)
{
    for (u32 i = below(BODY_MAX); i > 0; i--)
        if (below(3))
            add_valu(code);
        else
            add_memory(code);
}

/* Three trips; forks: a way around half of it, which chance takes. */
static void add_loop(struct rcode *code, i32 label, bool forks)
{
    add(code, R_s_mov_b32, S_COUNT, RDNA_INT(3), RDNA_NONE);
    add_branch(code, R_LABEL, label);
    add_some(code);
    if (forks) {
        add(code, R_s_bitcmp1_b32, RDNA_NONE, some_s(1), RDNA_INT(4));
        add_branch(code, R_s_cbranch_scc1, label + 1);
        add_some(code);
        add_branch(code, R_LABEL, label + 1);
    }
    add(code, R_s_sub_u32, S_COUNT, S_COUNT, RDNA_INT(1));
    add(code, R_s_cmp_lg_u32, RDNA_NONE, S_COUNT, RDNA_ZERO);
    add_branch(code, R_s_cbranch_scc1, label);
}

static void add_start(struct rcode *code)
{
    add(code, R_v_lshlrev_b32, V_LANE4, RDNA_INT(2), RDNA_VGPR);
    add(code, R_v_lshlrev_b32, V_LANE16, RDNA_INT(4), RDNA_VGPR);
    for (u16 v = 0; v < 32; v++)
        add(code, R_v_mov_b32, V_FREE + v, RDNA_INT(1), RDNA_NONE);
    for (u16 v = 0; v < 40; v++)
        add(code, R_v_mov_b32, V_ZERO + v, RDNA_ZERO, RDNA_NONE);
    for (u16 s = 0; s < 16; s++)
        add(code, R_s_mov_b32, S_FREE + s, RDNA_INT(s), RDNA_NONE);
    for (i32 half = 0; half < 2; half++) /* no byte of LDS is unknown */
        add(code, R_ds_store_b128, RDNA_NONE, V_LANE16, V_FREE)->imm = half * 512;
}

enum shape { STRAIGHT, LOOPS, FORKS };

static void random_program(struct rcode *code, enum shape shape)
{
    code->count = 0;
    add_start(code);
    add_some(code);
    add_some(code);
    for (i32 loop = 0; loop < 2 && shape != STRAIGHT; loop++)
        add_loop(code, 2 * loop, shape == FORKS);
    for (u16 v = 0; v < 32; v++)
        add(code, R_global_store_b32, RDNA_NONE, V_LANE4, V_FREE + v)->src[2] = S_WRITTEN;
    add(code, R_s_endpgm, RDNA_NONE, RDNA_NONE, RDNA_NONE);
}

/* ---- the wave ---- */

static bool has_barrier(const struct rcode *code)
{
    for (u32 i = 0; i < code->count; i++)
        if (code->instr[i].row == R_s_barrier)
            return true;
    return false;
}

/* What the strict engine finds when the list runs as a wave; NULL: nothing. */
static const char *finding_of(const struct rcode *code, struct arena arena, u64 seed)
{
    struct space space = {.seed = seed};
    struct compute_memory memory = space_memory(&space);
    struct compute_options options = {.seed = seed, .wgps = 1, .threads = 1};
    struct compute *compute = compute_create(&memory, &options);
    struct space_region *text = space_add(&space, "code", CODE_BYTES, false, true);
    struct space_region *in = space_add(&space, "in", DATA_BYTES, false, true);
    struct space_region *out = space_add(&space, "out", DATA_BYTES, true, true);
    struct code_out bytes = {.bytes = text->host, .cap = CODE_BYTES};
    struct compute_dispatch dispatch = {
        .code = text->va,
        .rsrc1 = RSRC1,
        .rsrc2 = RSRC2,
        .groups = {1, 1, 1},
        .group_size = {has_barrier(code) ? 64 : 32, 1, 1},
        .user_data = {(u32)in->va, (u32)(in->va >> 32), (u32)out->va, (u32)(out->va >> 32)}};
    enum compute_state state = COMPUTE_RUNNING;

    EXPECT_OK(rdna_assemble(code, &arena, &bytes));
    EXPECT_OK(compute_start(compute, &dispatch));
    while (state == COMPUTE_RUNNING)
        state = compute_step(compute, 1000);
    const char *name = state == COMPUTE_FAILED ? compute_failure(compute)->name : NULL;
    compute_destroy(compute);
    for (u32 i = 0; i < space.count; i++)
        free(space.region[i].host);
    return name;
}

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
        needless += finding_of(code, arena, 1) == NULL;
        code->instr[i] = kept;
    }
    return needless;
}

static struct rcode list_on(struct arena *arena)
{
    struct rcode code = {.instr = arena_new(arena, struct rinstr, LIST_MAX), .max = LIST_MAX};

    EXPECT(code.instr != NULL);
    return code;
}

TEST(compile_rdna_waits_suffice)
{
    u8 *memory = pages_alloc(8 * MIB);

    for (u32 i = 0; i < PROGRAMS; i++) {
        struct arena arena = arena_on("waits", memory, 8 * MIB);
        struct rcode code = list_on(&arena), waited;
        random_program(&code, i % 3);
        EXPECT_OK(rdna_wait(&code, &arena, &waited));
        for (u64 seed = 1; seed <= SEEDS; seed++)
            if (finding_of(&waited, arena, seed))
                test_fail(__FILE__, __LINE__, "program %u: %s", i,
                          finding_of(&waited, arena, seed));
    }
    pages_free(memory, 8 * MIB);
}

TEST(compile_rdna_waits_are_needed)
{
    u8 *memory = pages_alloc(8 * MIB);

    for (u32 i = 0; i < PROGRAMS / 6; i++) {
        struct arena arena = arena_on("waits", memory, 8 * MIB);
        struct rcode code = list_on(&arena), waited;
        random_program(&code, STRAIGHT);
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
    add(code, R_v_lshlrev_b32, V_LANE4, RDNA_INT(2), RDNA_VGPR);
    add(code, R_v_xor_b32, v_other, RDNA_CONST, V_LANE4)->literal = 128;
    add(code, R_ds_store_b32, RDNA_NONE, V_LANE4, RDNA_VGPR);
    add(code, R_s_barrier, RDNA_NONE, RDNA_NONE, RDNA_NONE);
    add(code, R_ds_load_b32, V_FREE + 1, v_other, RDNA_NONE);
    add(code, R_global_store_b32, RDNA_NONE, V_LANE4, V_FREE + 1)->src[2] = S_WRITTEN;
    add(code, R_s_barrier, RDNA_NONE, RDNA_NONE, RDNA_NONE);
    add(code, R_ds_store_b32, RDNA_NONE, V_LANE4, V_FREE + 1);
    add(code, R_global_load_b32, V_FREE + 2, v_other, RDNA_NONE)->src[2] = S_WRITTEN;
    add(code, R_ds_store_b32, RDNA_NONE, V_LANE4, V_FREE + 2);
    add(code, R_s_endpgm, RDNA_NONE, RDNA_NONE, RDNA_NONE);
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
    struct rcode code = list_on(&arena), waited;

    exchange(&code);
    EXPECT(finding_of(&code, arena, 1) != NULL);
    EXPECT_OK(rdna_wait(&code, &arena, &waited));
    for (u64 seed = 1; seed <= SEEDS; seed++)
        EXPECT(finding_of(&waited, arena, seed) == NULL);
    EXPECT_EQ(count_of(&waited, R_s_waitcnt_vscnt), 1);
    EXPECT_EQ(count_of(&waited, R_s_waitcnt), 3);
    pages_free(memory, 8 * MIB);
}
