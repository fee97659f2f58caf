/*
 * rdna_wave.c: see rdna_wave.h.
 */
#include <stdlib.h>

#include "sim/space.h"
#include "tests/rdna_wave.h"

#define CODE_BYTES 0x4000u
#define RSRC1      (0x40000000u | 15)   /* MEM_ORDERED; 128 VGPRs */
#define RSRC2      (4u << 1 | 8u << 15) /* user SGPRs, 4 KB of LDS */
#define BODY_MAX   40u

#define LIST_MAX 512u

static u32 below(u32 end)
{
    return (u32)test_random_below(end);
}

/* ---- programs ---- */

struct rcode wave_list(struct arena *arena)
{
    struct rcode code = {.instr = arena_new(arena, struct rinstr, LIST_MAX), .max = LIST_MAX};

    EXPECT(code.instr != NULL);
    return code;
}

struct rinstr *wave_add(struct rcode *code, u16 row, u16 dst, u16 src0, u16 src1)
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
        instr = wave_add(code, R_global_load_b32, some_v(1), V_LANE4, RDNA_NONE);
        instr->src[2] = S_READ;
        break;
    case 1:
        instr = wave_add(code, R_global_load_b128, some_v(4), V_LANE16, RDNA_NONE);
        instr->src[2] = S_READ;
        break;
    case 2:
        instr = wave_add(code, R_global_store_b32, RDNA_NONE, V_LANE4, some_v(1));
        instr->src[2] = S_WRITTEN;
        break;
    case 3:
        instr = wave_add(code, R_ds_load_b128, some_v(4), V_LANE16, RDNA_NONE);
        break;
    case 4:
        instr = wave_add(code, R_ds_store_b64, RDNA_NONE, V_LANE16, some_v(2));
        break;
    case 5:
        instr = wave_add(code, R_s_load_b32, some_s(1), S_READ, RDNA_NONE);
        break;
    default:
        instr = wave_add(code, R_s_load_b128, some_s(4), S_READ, RDNA_NONE);
    }
    instr->imm = (i32)below(16) * 16;
    instr->fixed = instr->src[2] == S_READ;
}

static void add_valu(struct rcode *code)
{
    struct rinstr *instr;

    switch (below(8)) {
    case 0:
        wave_add(code, R_v_rcp_f32, some_v(1), some_v(1), RDNA_NONE);
        break;
    case 1:
        instr = wave_add(code, R_v_wmma_f32_16x16x16_f16, V_ZERO + 32, V_ZERO, V_ZERO + 8);
        instr->src[0] = (u16)(V_ZERO + below(2) * 32); /* the last result, at times */
        instr->dst = (u16)(V_ZERO + 16 + below(2) * 16);
        instr->src[2] = instr->dst;
        break;
    case 2:
        wave_add(code, R_v_cmpx_lt_i32, RDNA_NONE, RDNA_INT(-1), RDNA_VGPR);
        break;
    case 3:
        instr = wave_add(code, R_v_permlanex16_b32, some_v(1), some_v(1), RDNA_ZERO);
        instr->src[2] = some_s(1);
        break;
    case 4:
        instr = wave_add(code, R_v_add_f32, some_v(1), some_v(1), some_v(1));
        instr->dpp = DPP_ROW_XMASK + 1;
        break;
    case 5:
        wave_add(code, R_s_add_u32, some_s(1), some_s(1), some_s(1));
        break;
    case 6:
        wave_add(code, R_v_readfirstlane_b32, some_s(1), some_v(1), RDNA_NONE);
        break;
    default:
        wave_add(code, R_v_add_nc_u32, some_v(1), some_s(1), some_v(1));
    }
}

static void add_branch(struct rcode *code, u16 row, i32 label)
{
    wave_add(code, row, RDNA_NONE, RDNA_NONE, RDNA_NONE)->imm = label;
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
    wave_add(code, R_s_mov_b32, S_COUNT, RDNA_INT(3), RDNA_NONE);
    add_branch(code, R_LABEL, label);
    add_some(code);
    if (forks) {
        wave_add(code, R_s_bitcmp1_b32, RDNA_NONE, some_s(1), RDNA_INT(4));
        add_branch(code, R_s_cbranch_scc1, label + 1);
        add_some(code);
        add_branch(code, R_LABEL, label + 1);
    }
    wave_add(code, R_s_sub_u32, S_COUNT, S_COUNT, RDNA_INT(1));
    wave_add(code, R_s_cmp_lg_u32, RDNA_NONE, S_COUNT, RDNA_ZERO);
    add_branch(code, R_s_cbranch_scc1, label);
}

void wave_add_start(struct rcode *code)
{
    wave_add(code, R_v_lshlrev_b32, V_LANE4, RDNA_INT(2), RDNA_VGPR);
    wave_add(code, R_v_lshlrev_b32, V_LANE16, RDNA_INT(4), RDNA_VGPR);
    for (u16 v = 0; v < 32; v++)
        wave_add(code, R_v_mov_b32, V_FREE + v, RDNA_INT(1), RDNA_NONE);
    for (u16 v = 0; v < 40; v++)
        wave_add(code, R_v_mov_b32, V_ZERO + v, RDNA_ZERO, RDNA_NONE);
    for (u16 s = 0; s < 16; s++)
        wave_add(code, R_s_mov_b32, S_FREE + s, RDNA_INT(s), RDNA_NONE);
    for (i32 half = 0; half < 2; half++) /* no byte of LDS is unknown */
        wave_add(code, R_ds_store_b128, RDNA_NONE, V_LANE16, V_FREE)->imm = half * 512;
}

void wave_add_pairable(struct rcode *code)
{
    static const u16 rows[] = {R_v_fma_f32,     R_v_mul_f32,          R_v_add_f32, R_v_sub_f32,
                               R_v_mov_b32,     R_v_max_f32,          R_v_and_b32, R_v_add_nc_u32,
                               R_v_lshlrev_b32, R_v_readfirstlane_b32};
    u16 row = rows[test_random_below(ARRAY_LEN(rows))];
    bool scalar = rdna_rows[row].operand[0] >> 8 == K_S, one = rdna_rows[row].operand[2] == 0;
    u16 dst = (u16)(scalar ? S_FREE + test_random_below(16) : V_FREE + test_random_below(32));
    struct rinstr *instr = wave_add(code, row, dst, (u16)(V_FREE + test_random_below(32)),
                                    (u16)(one ? RDNA_NONE : V_FREE + test_random_below(32)));

    if (row == R_v_fma_f32)
        instr->src[2] = instr->dst;
    else if (!scalar && !test_random_below(4))
        instr->src[0] = (u16)(S_FREE + test_random_below(16));
    else if (!scalar && !test_random_below(6)) {
        instr->src[0] = RDNA_CONST;
        instr->literal = (u32)test_random_below(200);
    }
}

void wave_add_end(struct rcode *code)
{
    for (u16 v = 0; v < 32; v++) {
        struct rinstr *store = wave_add(code, R_global_store_b32, RDNA_NONE, V_LANE4, V_FREE + v);
        store->src[2] = S_WRITTEN;
        store->imm = v % 24 * 128;
    }
    wave_add(code, R_s_endpgm, RDNA_NONE, RDNA_NONE, RDNA_NONE);
}

void wave_random(struct rcode *code, enum shape shape)
{
    code->count = 0;
    wave_add_start(code);
    add_some(code);
    add_some(code);
    for (i32 loop = 0; loop < 2 && shape != STRAIGHT; loop++)
        add_loop(code, 2 * loop, shape == FORKS);
    wave_add_end(code);
}

/* ---- the wave ---- */

static bool has_barrier(const struct rcode *code)
{
    for (u32 i = 0; i < code->count; i++)
        if (code->instr[i].row == R_s_barrier)
            return true;
    return false;
}

const char *wave_run(const struct rcode *code, struct arena arena, u64 seed, u8 out[WAVE_OUT_BYTES])
{
    struct space space = {.seed = seed};
    struct compute_memory memory = space_memory(&space);
    struct compute_options options = {.seed = seed, .wgps = 1, .threads = 1};
    struct compute *compute = compute_create(&memory, &options);
    struct space_region *text = space_add(&space, "code", CODE_BYTES, false, true);
    struct space_region *in = space_add(&space, "in", WAVE_OUT_BYTES, false, true);
    struct space_region *to = space_add(&space, "out", WAVE_OUT_BYTES, true, true);
    struct code_out bytes = {.bytes = text->host, .cap = CODE_BYTES};
    struct compute_dispatch dispatch = {
        .code = text->va,
        .rsrc1 = RSRC1,
        .rsrc2 = RSRC2,
        .groups = {1, 1, 1},
        .group_size = {has_barrier(code) ? 64 : 32, 1, 1},
        .user_data = {(u32)in->va, (u32)(in->va >> 32), (u32)to->va, (u32)(to->va >> 32)}};
    enum compute_state state = COMPUTE_RUNNING;

    EXPECT_OK(rdna_assemble(code, &arena, &bytes));
    EXPECT_OK(compute_start(compute, &dispatch));
    while (state == COMPUTE_RUNNING)
        state = compute_step(compute, 1000);
    const char *name = state == COMPUTE_FAILED ? compute_failure(compute)->name : NULL;
    compute_destroy(compute);
    if (out)
        memcpy(out, to->host, WAVE_OUT_BYTES);
    for (u32 i = 0; i < space.count; i++)
        free(space.region[i].host);
    return name;
}
