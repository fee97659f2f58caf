/*
 * rdna_memory.c: loads and stores. Global memory is an SGPR pair, the lane's offset in a VGPR made
 * once in a kernel, and a constant; the group's memory a VGPR and a constant. Sums that several
 * accesses need are kept while their parts stay what they are. What nobody writes and is the same
 * for all lanes comes by the scalar unit, neighbours together; such words must be aligned.
 */
#include "ml/compile/rdna_select.h"

#define GLOBAL_OFFSET 4096 /* a vector access reaches -4096..4095 behind its address */
#define SCALAR_OFFSET (1 << 20)
#define GROUP_OFFSET  65535 /* 0.. */
#define JOIN_REACH    512u  /* operations ahead in which neighbours are looked for */
#define ARG_BYTES     8
#define GATHER_BIAS   0x80000000u
/* Spaces of places that are no memory: a scaled index of lanes, the low half of a scalar one. */
enum { OF_LANES = LIR_GROUP + 1, OF_SCALAR };

/* Makes a signed byte offset unsigned. */
static const struct rsrc gather_bias = {RDNA_CONST, GATHER_BIAS};

/* ---- element types ---- */

struct type_rows {
    u16 load, store;
};
// clang-format off
static const struct type_rows type_rows[2][DT_COUNT] = {
    [LIR_GLOBAL] = {
        [DT_F32]  = {R_global_load_b32, R_global_store_b32},
        [DT_I32]  = {R_global_load_b32, R_global_store_b32},
        [DT_F16]  = {R_global_load_u16, R_global_store_b16},
        [DT_BF16] = {R_global_load_u16, R_global_store_d16_hi_b16},
        [DT_I8]   = {R_global_load_i8,  R_global_store_b8},
        [DT_U8]   = {R_global_load_u8,  R_global_store_b8},
    },
    [LIR_GROUP] = {
        [DT_F32]  = {R_ds_load_b32, R_ds_store_b32},
        [DT_I32]  = {R_ds_load_b32, R_ds_store_b32},
        [DT_F16]  = {R_ds_load_u16, R_ds_store_b16},
        [DT_BF16] = {R_ds_load_u16, R_ds_store_b16_d16_hi},
        [DT_I8]   = {R_ds_load_i8,  R_ds_store_b8},
        [DT_U8]   = {R_ds_load_u8,  R_ds_store_b8},
    },
};
// clang-format on

static u32 shift_of(u8 type)
{
    return type == DT_F32 || type == DT_I32 ? 2 : type == DT_F16 || type == DT_BF16 ? 1 : 0;
}

/* ---- places ---- */

static u16 place_code(struct rselect *s, struct rplace want);

/* base + index * scale + disp in a pair of SGPRs. */
static u16 global_pair(struct rselect *s, const struct rplace *p)
{
    struct rsrc base[2] = {scalar_low(s, p->base), scalar_high(s, p->base)};
    u16 pair = s->value[p->base].code;

    if (p->index == LIR_NONE && !p->disp && (s->value[p->base].wide || p->base == LIR_ARGS))
        return pair;
    pair = rdna_registers(s, LIR_SCALAR, 2);
    if (p->index != LIR_NONE) {
        u32 shift = (u32)__builtin_ctz(p->scale);
        struct rsrc low = scalar_low(s, p->index), more[2] = {low, rsrc_const(0)};
        if (shift)
            more[0] = rsrc_of(place_code(s, (struct rplace){.base = p->index,
                                                            .index = LIR_NONE,
                                                            .scale = p->scale,
                                                            .space = OF_SCALAR}));
        if (s->value[p->index].low < 0 || s->value[p->index].high > UINT32_MAX >> shift)
            more[1] = rsrc_of(rdna_new(s, R_s_ashr_i32, low, rsrc_const(shift ? 32 - shift : 31)));
        scalar_add_wide(s, pair, base, more);
        base[0] = rsrc_of(pair);
        base[1] = rsrc_of((u16)(pair + 1));
    }
    if (p->disp || p->index == LIR_NONE)
        scalar_add_wide(
            s, pair, base,
            (struct rsrc[2]){rsrc_const((u32)p->disp), rsrc_const((u32)((u64)p->disp >> 32))});
    return pair;
}

/* index * scale + add, of lanes with an index each. */
static u16 lane_offset(struct rselect *s, struct rsrc index, u32 scale, struct rsrc add)
{
    struct rsrc shift = rsrc_const((u32)__builtin_ctz(scale));

    return rdna_new3(s, R_v_lshl_add_u32, (struct rsrc[3]){index, shift, add});
}

/* base + index * scale + disp + lane << shift in a VGPR. */
static u16 group_address(struct rselect *s, const struct rplace *p)
{
    static const u16 shift_add[] = {R_s_add_i32, R_s_lshl1_add_u32, R_s_lshl2_add_u32,
                                    R_s_lshl3_add_u32};
    struct rsrc at = scalar_low(s, p->base), lane = rsrc_of(rdna_shifted_lane(s, p->shift));

    if (at.code == RDNA_ZERO)
        at = rsrc_const((u32)p->disp);
    else if (p->disp)
        at = rsrc_of(rdna_new(s, R_s_add_i32, at, rsrc_const((u32)p->disp)));
    if (p->index != LIR_NONE && at.code == RDNA_ZERO)
        return lane_offset(s, scalar_low(s, p->index), p->scale, lane);
    if (p->index != LIR_NONE)
        at = rsrc_of(rdna_new(s, shift_add[__builtin_ctz(p->scale)], scalar_low(s, p->index), at));
    if (at.code == RDNA_ZERO)
        return lane.code;
    if (p->shift == RDNA_NO_LANE)
        return rdna_in_vgpr(s, at);
    return rdna_new(s, R_v_add_nc_u32, at, lane);
}

static bool same_place(const struct rplace *a, const struct rplace *b)
{
    return a->base == b->base && a->index == b->index && a->scale == b->scale &&
           a->space == b->space && a->shift == b->shift && a->disp == b->disp;
}

static u16 make_place(struct rselect *s, const struct rplace *want)
{
    switch (want->space) {
    case OF_LANES:
        return lane_offset(s, rdna_operand(s, want->base), want->scale, gather_bias);
    case OF_SCALAR:
        return rdna_new(s, R_s_lshl_b32, scalar_low(s, want->base),
                        rsrc_const((u32)__builtin_ctz(want->scale)));
    case LIR_GROUP:
        return group_address(s, want);
    default:
        return global_pair(s, want);
    }
}

static u16 place_code(struct rselect *s, struct rplace want)
{
    for (u32 i = 0; i < s->place_count; i++)
        if (same_place(&s->place[i], &want))
            return s->place[i].code;
    want.code = make_place(s, &want);
    want.fixed = s->value[want.base].writes == 1 &&
                 (want.index == LIR_NONE || s->value[want.index].writes == 1);
    if (s->place_count < RDNA_PLACES_MAX)
        s->place[s->place_count++] = want;
    return want.code;
}

static void keep_places(struct rselect *s, u16 gone, bool fixed_only)
{
    u32 kept = s->depth ? s->place_first[s->depth] : 0;

    for (u32 i = kept; i < s->place_count; i++) {
        const struct rplace *p = &s->place[i];
        if (p->base != gone && p->index != gone && (p->fixed || !fixed_only))
            s->place[kept++] = *p;
    }
    s->place_count = kept;
}

void memory_forget(struct rselect *s, u16 vreg)
{
    keep_places(s, vreg, false);
}

/* The loop is open already: what it may write is not known yet. */
void memory_open(struct rselect *s)
{
    s->depth--;
    keep_places(s, LIR_NONE - 1, true);
    s->depth++;
    s->place_first[s->depth] = s->place_count;
}

/* The loop is closed already. */
void memory_close(struct rselect *s)
{
    s->place_count = s->place_first[s->depth + 1];
}

/* ---- addresses ---- */

struct address {
    u16 vector, pair;
    i32 imm;
    bool fixed;
};

/* All of the address; a constant index is part of the displacement. */
static struct rplace place_of(const struct rselect *s, const struct lir_instr *in, u32 shift)
{
    struct rplace p = {.base = in->mem.base,
                       .index = in->mem.index,
                       .scale = in->mem.scale,
                       .space = in->mem.space,
                       .shift = (u8)(in->mem.space == LIR_GROUP ? shift : 0),
                       .disp = in->mem.disp};

    if (p.index != LIR_NONE && scalar_constant(s, p.index)) {
        p.disp += s->value[p.index].low * p.scale;
        p.index = LIR_NONE;
    }
    if (p.index == LIR_NONE)
        p.scale = 1;
    if (p.space == LIR_GROUP && scalar_constant(s, p.base)) {
        p.disp += s->value[p.base].low;
        p.base = LIR_SCRATCH;
    }
    return p;
}

/* Leaves the place what the access's own offset cannot say, and returns that. */
static i32 split_offset(struct rplace *p)
{
    i64 all = p->disp;

    if (p->space == LIR_GROUP)
        p->disp = all < 0 || all > GROUP_OFFSET ? all : 0;
    else
        p->disp = (all + GLOBAL_OFFSET) & -2 * GLOBAL_OFFSET;
    return (i32)(all - p->disp);
}

/* Of lanes whose elements are 1 << shift bytes apart, or all the same. */
static struct address address_of(struct rselect *s, const struct lir_instr *in, u32 shift)
{
    struct rplace place = place_of(s, in, shift);
    struct address a = {RDNA_NONE, RDNA_NONE, split_offset(&place), in->mem.fixed};

    if (in->mem.space == LIR_GROUP) {
        a.vector = place_code(s, place);
    } else {
        a.pair = place_code(s, place);
        a.vector = rdna_shifted_lane(s, shift);
    }
    return a;
}

/* Of lanes with an index each. */
static struct address gather_address(struct rselect *s, const struct lir_instr *in)
{
    struct lir_instr plain = *in;
    struct rsrc index = rdna_operand(s, in->mem.index);
    bool group = in->mem.space == LIR_GROUP;

    plain.mem.index = LIR_NONE;
    if (in->lanes == 1 && rdna_is_vgpr(s, index.code)) /* other lanes' may be anything */
        index = rsrc_of(rdna_new(s, R_v_readfirstlane_b32, index, RSRC_NONE));
    struct rplace place = place_of(s, &plain, RDNA_NO_LANE), lanes = {.base = in->mem.index,
                                                                      .index = LIR_NONE,
                                                                      .scale = in->mem.scale,
                                                                      .space = OF_LANES};
    struct address a = {RDNA_NONE, RDNA_NONE, split_offset(&place), in->mem.fixed};
    if (!group) {
        place.disp -= (i64)GATHER_BIAS;
        a.pair = place_code(s, place);
    }
    if (group && !place.disp && place.base == LIR_SCRATCH && in->mem.scale == 1)
        a.vector = rdna_in_vgpr(s, index);
    else if (!group && in->lanes > 1 && s->value[in->mem.index].writes == 1)
        a.vector = place_code(s, lanes);
    else
        a.vector = lane_offset(s, index, in->mem.scale,
                               group ? rsrc_of(place_code(s, place)) : gather_bias);
    return a;
}

static struct rinstr *put_access(struct rselect *s, u16 row, u16 dst, struct rsrc data,
                                 struct address a)
{
    struct rinstr *access =
        rdna_put3(s, row, dst, (struct rsrc[3]){rsrc_of(a.vector), data, rsrc_of(a.pair)});

    access->imm = a.imm;
    access->fixed = a.fixed;
    return access;
}

/* ---- scalar loads ---- */

bool memory_is_scalar(const struct lir_instr *in)
{
    bool word = in->mem_type == DT_F32 || in->mem_type == DT_I32;
    bool one = in->op == LIR_V_BCAST || (in->op == LIR_V_LOAD && in->lanes == 1);

    return one && word && in->mem.fixed && in->mem.space == LIR_GLOBAL && in->mem.disp % 4 == 0 &&
           (in->mem.index == LIR_NONE || in->mem.scale >= 4);
}

/* Words that it reads by a scalar load, 0: none. An argument is one too. */
static u32 scalar_words(const struct rselect *s, const struct lir_instr *in)
{
    if (in->op == LIR_S_ARG)
        return s->value[in->dst].writes == 1 ? 2 : 0;
    return memory_is_scalar(in) && s->value[in->dst].kind == RV_UNIFORM ? 1 : 0;
}

/* Bytes from the lead's word to that of another operation, which lies at the same base; -1: none
 * that one load could bring. */
static i64 distance(const struct rselect *s, const struct lir_instr *lead,
                    const struct lir_instr *at)
{
    i64 bytes = at->op == LIR_S_ARG ? (at->imm - lead->imm) * ARG_BYTES
                                    : (i64)at->mem.disp - lead->mem.disp;
    u32 words;

    if (at->mem.base != lead->mem.base || bytes < 0 || bytes % 4 || bytes >= 4 * RDNA_JOIN_MAX ||
        at->mem.index != lead->mem.index || at->mem.scale != lead->mem.scale ||
        (at->op == LIR_S_ARG) != (lead->op == LIR_S_ARG) || at->dst == LIR_NONE)
        return -1;
    words = scalar_words(s, at);
    if (!words || s->value[at->dst].loaded || !s->value[at->dst].uses ||
        bytes / 4 + words > RDNA_JOIN_MAX)
        return -1;
    return bytes;
}

/* Behind the last operation that may join; arguments are always there, always the same. */
static const struct lir_instr *join_end(const struct rselect *s, const struct lir_instr *lead)
{
    const struct lir_instr *end = s->lir->instr + s->lir->count, *at = lead + 1;

    if (lead->op == LIR_S_ARG)
        return end;
    while (at < end && at < lead + JOIN_REACH && at->op != LIR_LOOP && at->op != LIR_ENDLOOP &&
           at->op != LIR_BARRIER &&
           (at->dst == LIR_NONE || (at->dst != lead->mem.base && at->dst != lead->mem.index)))
        at++;
    return at;
}

/* The most words, a power of two, of which the last and three quarters are wanted. */
static u32 join_size(const struct rselect *s, u32 wanted, u32 least)
{
    for (u32 n = s->join_max; n > least; n /= 2)
        if (wanted >> (n - 1) & 1 && (u32)__builtin_popcount(wanted & ((1u << n) - 1)) * 4 >= n * 3)
            return n;
    return least;
}

static void scalar_load(struct rselect *s, const struct lir_instr *in)
{
    static const u16 rows[] = {R_s_load_b32, R_s_load_b64, R_s_load_b128, R_s_load_b256,
                               R_s_load_b512};
    const struct lir_instr *end = join_end(s, in);
    struct rplace place = {.base = LIR_ARGS, .index = LIR_NONE, .scale = 1};
    i64 disp = in->imm * ARG_BYTES, bytes;
    u32 wanted = 0;

    if (s->value[in->dst].loaded)
        return;
    for (const struct lir_instr *at = in; at < end; at++)
        if ((bytes = distance(s, in, at)) >= 0)
            wanted |= ((1u << scalar_words(s, at)) - 1) << bytes / 4;
    u32 size = join_size(s, wanted, scalar_words(s, in));
    u16 first = rdna_registers(s, LIR_SCALAR, size);
    for (const struct lir_instr *at = in; at < end; at++) {
        bytes = distance(s, in, at);
        if (bytes < 0 || bytes / 4 + scalar_words(s, at) > size)
            continue;
        s->value[at->dst].code = (u16)(first + bytes / 4);
        s->value[at->dst].loaded = true;
    }
    if (in->op != LIR_S_ARG) {
        place = place_of(s, in, 0);
        disp = place.disp;
        place.disp = disp >= -SCALAR_OFFSET && disp < SCALAR_OFFSET ? 0 : disp;
        disp -= place.disp;
    }
    struct rinstr *load =
        rdna_put3(s, rows[__builtin_ctz(size)], first,
                  (struct rsrc[3]){rsrc_of(place_code(s, place)), rsrc_of(RDNA_NULL), RSRC_NONE});
    load->imm = (i32)disp;
}

/* An argument that is written again. */
static void load_argument(struct rselect *s, const struct lir_instr *in)
{
    const struct rvalue *value = &s->value[in->dst];

    rdna_put3(s, value->wide ? R_s_load_b64 : R_s_load_b32, value->code,
              (struct rsrc[3]){rsrc_of(RDNA_IN_ARGS), rsrc_of(RDNA_NULL), RSRC_NONE})
        ->imm = (i32)in->imm * ARG_BYTES;
}

/* ---- vector loads ---- */

static void load(struct rselect *s, const struct lir_instr *in)
{
    bool half = in->mem_type == DT_F16 || in->mem_type == DT_BF16;
    bool one = in->lanes == 1 || in->op == LIR_V_BCAST;
    struct address a = address_of(s, in, one ? RDNA_NO_LANE : shift_of(in->mem_type));
    u16 dst = s->value[in->dst].code, to = half ? rdna_vgpr(s) : dst;

    put_access(s, type_rows[in->mem.space][in->mem_type].load, to, RSRC_NONE, a);
    if (in->mem_type == DT_F16)
        rdna_put(s, R_v_cvt_f32_f16, dst, rsrc_of(to), RSRC_NONE);
    else if (half)
        rdna_put(s, R_v_lshlrev_b32, dst, rsrc_const(16), rsrc_of(to));
}

static void load_four(struct rselect *s, const struct lir_instr *in)
{
    struct address a = in->op == LIR_V_LOAD4 ? address_of(s, in, 4) : gather_address(s, in);

    put_access(s, in->mem.space == LIR_GROUP ? R_ds_load_b128 : R_global_load_b128,
               s->value[in->dst].code, RSRC_NONE, a);
}

static void gather(struct rselect *s, const struct lir_instr *in)
{
    struct address a = gather_address(s, in);

    put_access(s, type_rows[in->mem.space][DT_I32].load, s->value[in->dst].code, RSRC_NONE, a);
}

/* ---- stores ---- */

/* Nearest even, in the high half; a NaN stays one. */
static u16 to_bfloat(struct rselect *s, u16 a)
{
    u16 last =
        rdna_new3(s, R_v_bfe_u32, (struct rsrc[3]){rsrc_of(a), rsrc_const(16), rsrc_const(1)});
    u16 sum =
        rdna_new3(s, R_v_add3_u32,
                  (struct rsrc[3]){rsrc_of(a), rsrc_of(last), (struct rsrc){RDNA_CONST, 0x7fff}});
    u16 quiet = rdna_new(s, R_v_or_b32, (struct rsrc){RDNA_CONST, 0x400000}, rsrc_of(a));
    u16 nan = rdna_new(s, R_v_cmp_u_f32, rsrc_of(a), rsrc_of(a));

    return rdna_new3(s, R_v_cndmask_b32,
                     (struct rsrc[3]){rsrc_of(sum), rsrc_of(quiet), rsrc_of(nan)});
}

static void store(struct rselect *s, const struct lir_instr *in)
{
    bool one = in->lanes == 1;
    struct address a = address_of(s, in, one ? RDNA_NO_LANE : shift_of(in->mem_type));
    u16 data = rdna_in_vgpr(s, rdna_operand(s, in->a));

    if (in->mem_type == DT_F16)
        data = rdna_new(s, R_v_cvt_f16_f32, rsrc_of(data), RSRC_NONE);
    else if (in->mem_type == DT_BF16)
        data = to_bfloat(s, data);
    struct rinstr *access =
        put_access(s, type_rows[in->mem.space][in->mem_type].store, RDNA_NONE, rsrc_of(data), a);
    if (one) {
        s->pending[s->pending_count++] = *access;
        s->count[s->at]--;
    }
}

/* EXEC is set for several at a time. */
void memory_settle(struct rselect *s, const struct lir_instr *in)
{
    bool memory = in && lir_rows[in->op].operands[4] != '-' && !in->mem.fixed;
    bool stores_one = in && in->op == LIR_V_STORE && in->lanes == 1;
    bool flow = !in || in->op == LIR_LOOP || in->op == LIR_ENDLOOP || in->op == LIR_BARRIER;
    bool rewrites = in && in->dst != LIR_NONE && s->value[in->dst].writes > 1;

    if (!s->pending_count ||
        (!flow && !rewrites && (!memory || stores_one) && s->pending_count < RDNA_PENDING_MAX))
        return;
    rdna_put(s, R_s_mov_b32, RDNA_EXEC, rsrc_const(1), RSRC_NONE);
    for (u32 i = 0; i < s->pending_count; i++)
        rdna_append(s, &s->pending[i]);
    rdna_put(s, R_s_mov_b32, RDNA_EXEC, rsrc_const(UINT32_MAX), RSRC_NONE);
    s->pending_count = 0;
}

static void scatter_four(struct rselect *s, const struct lir_instr *in)
{
    struct address a = gather_address(s, in);

    put_access(s, in->mem.space == LIR_GROUP ? R_ds_store_b128 : R_global_store_b128, RDNA_NONE,
               rsrc_of(s->value[in->a].code), a);
}

void memory_expand(struct rselect *s, const struct lir_instr *in)
{
    if (in->op == LIR_S_ARG && s->value[in->dst].writes > 1)
        load_argument(s, in);
    else if (in->op == LIR_S_ARG || s->value[in->dst == LIR_NONE ? 0 : in->dst].kind == RV_UNIFORM)
        scalar_load(s, in);
    else if (in->op == LIR_V_STORE)
        store(s, in);
    else if (in->op == LIR_V_SCATTER4)
        scatter_four(s, in);
    else if (in->op == LIR_V_GATHER)
        gather(s, in);
    else if (in->op == LIR_V_LOAD4 || in->op == LIR_V_GATHER4)
        load_four(s, in);
    else
        load(s, in);
}
