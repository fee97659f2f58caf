/*
 * lower_wmma.c: products with many activation rows, by the matrix instruction of RDNA3 (AMD, "How
 * to accelerate AI applications on RDNA 3 using WMMA"). An item is 128 rows of the weight times 64
 * or 128 tokens, for four waves: each multiplies 64 rows by half of the tokens.
 *
 * Per step of 32 columns every wave makes half floats of its quarter of the weights' rows and of
 * the tokens and puts them into the group's memory, which has two sides: one is filled for the next
 * step while the other is multiplied, so a step has one barrier, and what a step loads from memory
 * has the time of all its products to arrive.
 *
 * The results go through the group's memory too, where the stage's ordinary nest finds them.
 */
#include "ml/compile/lower_tile.h"

/* From so many activation rows on: 32 rows and columns of a weight cost a SIMD 644 cycles for up to
 * 64 tokens here and 10 + 27 a token with integers (docs/COMPILER.md). */
#define TOKENS_MIN  24u
#define SIDE        16u /* rows, columns and depth of a matrix product */
#define STEP        32u /* columns per step */
#define WAVE_ROWS   64u
#define ROW_TILES   (WAVE_ROWS / SIDE)
#define TOKEN_TILES (MATRIX_TOKENS_MAX / 2 / SIDE)
/* Of one row's step: 64 bytes of half floats. 16 more put each eight rows into different banks. */
#define LINE_BYTES 80u
/* Of one token's results, so many rows at a time, to the same effect. */
#define RESULT_ROWS  32u
#define RESULT_BYTES (RESULT_ROWS * 4 + 16)

_Static_assert(MATRIX_ROWS == 2 * WAVE_ROWS && MATRIX_ROWS == MATRIX_WAVES * 32,
               "waves share an item so");

/* ---- what takes this way ---- */

bool matrix_fits(const struct graph *graph, const struct target *target, const struct node *node)
{
    const struct node *x = &graph->node[node->src[0]];

    if (!target || !target->matrix || node->op != OP_LINEAR || x->op == OP_QUANT || node->rank < 2)
        return false;
    bool plain = !op_is_source(x->op) || x->source.storage == DT_F32;
    return plain && dim_bound(graph, x->shape[x->rank - 1]) % STEP == 0 &&
           dim_bound(graph, node->shape[node->rank - 2]) >= TOKENS_MIN;
}

/* The time of all rounds of items, one per compute unit: the smaller item does its work a twelfth
 * slower. Products of the same activations run side by side. */
u32 matrix_tokens(const struct graph *graph, const struct target *target, const struct node *node)
{
    u64 tokens = dim_bound(graph, node->shape[node->rank - 2]), columns = 0;

    for (u32 i = 0; i < graph->node_count; i++) {
        const struct node *n = &graph->node[i];
        if (n->op == OP_LINEAR && n->src[0] == node->src[0])
            columns += shape_bound(graph, n->shape, 0, n->rank - 2) *
                       div_up(dim_bound(graph, n->shape[n->rank - 1]), MATRIX_ROWS);
    }
    u64 few = div_up(columns * div_up(tokens, 64), target->cores);
    u64 many = div_up(columns * div_up(tokens, 128), target->cores);

    return few * 13 <= many * 2 * 12 ? 64 : 128;
}

/* ---- the state ---- */

struct matrix {
    struct emit *e;
    const struct packing *packing;
    struct tile tile;  /* of the wave's 32 rows of the weight that it makes halves of */
    u32 tokens, tiles; /* of an item; of a wave, along the tokens, in products */
    u32 steps, units;  /* steps of a unit of the weight, which is what a loop's trip does */
    u32 unit_bytes, side_bytes;
    struct range row, token; /* of the item */
    u16 lane;
    u16 row_read, token_read, row_write, token_write; /* VECTOR offsets in a side */
    u16 x;                                            /* token 0, column 0 */
    u16 x_lane[MATRIX_TOKENS_MAX / 32]; /* bytes from there to the tokens that a lane loads */
    u16 x_now[MATRIX_TOKENS_MAX / 32];  /* tuples of eight activations on their way */
    u16 acc[ROW_TILES][TOKEN_TILES];
};

static u16 two(struct matrix *m, enum lir_op op, u16 a, u16 b)
{
    return emit_two(m->e, op, a, b);
}

static u16 from_s(struct matrix *m, u16 s)
{
    return emit_vi(m->e, LIR_V_FROM_S, s, 0, 0);
}

static u16 masked(struct matrix *m, u16 a, u32 mask)
{
    return two(m, LIR_IAND, a, emit_const_i32(m->e, mask));
}

static u16 shifted(struct matrix *m, u16 a, u32 right)
{
    return emit_vi(m->e, LIR_ISHRI, a, right, 0);
}

static u16 times(struct matrix *m, u16 a, u32 factor)
{
    return two(m, LIR_IMUL, a, emit_const_i32(m->e, factor));
}

static u16 plus(struct matrix *m, u16 a, u16 scalar)
{
    return two(m, LIR_IADD, a, from_s(m, scalar));
}

/* What has an effect, or a result that must be where it is: written as it stands. */
static void put(struct matrix *m, enum lir_op op, u16 dst, const u16 src[3])
{
    struct lir_instr i = emit_blank(m->e, op);

    i.dst = dst;
    i.a = src[0];
    i.b = src[1];
    i.c = src[2];
    *lir_emit(m->e->lir, op) = i;
}

static void pack(struct matrix *m, u16 dst, u16 low, u16 high)
{
    put(m, LIR_H_PACK, dst, (u16[]){low, high, LIR_NONE});
}

static u16 tuple(struct matrix *m, u32 count)
{
    u16 first = lir_tuple(m->e->lir, count);

    for (u32 i = 0; i < count; i++)
        m->e->defined_at[first + i] = MUTABLE;
    return first;
}

static struct lir_mem in_group(u16 index, u32 disp)
{
    return (struct lir_mem){
        .base = LIR_SCRATCH, .index = index, .scale = 1, .disp = (i32)disp, .space = LIR_GROUP};
}

/* Four words of each lane: V_GATHER4 into a tuple or V_SCATTER4 out of one. */
static void move4(struct matrix *m, enum lir_op op, u16 words, struct lir_mem mem)
{
    struct lir_instr i = emit_blank(m->e, op);

    *(op == LIR_V_GATHER4 ? &i.dst : &i.a) = words;
    i.mem_type = DT_I32;
    i.mem = mem;
    *lir_emit(m->e->lir, op) = i;
}

/* ---- activations ---- */

/* Four lanes load a token's step, eight columns each, and a wave its quarter of the tokens. Tokens
 * behind the last are the last again: their results are not stored. */
static void open_activations(struct matrix *m, u32 x, struct affine *first)
{
    struct emit *e = m->e;
    u32 rank = emit_node(e, x)->rank;
    u16 lane_index;
    i64 lane_stride;

    first[rank - 2] = first[rank - 1] = affine_zero();
    struct lir_mem mem = emit_address(e, x, first, &lane_stride, &lane_index);
    u16 index = mem.index == LIR_NONE ? LIR_NONE : emit_s_muli(e, mem.index, mem.scale);
    m->x = emit_s_addi(e, emit_s_add(e, mem.base, index), mem.disp);
    u32 bytes = (u32)node_stride(e, x, rank - 2).elements * 4;
    u16 last = from_s(m, emit_s_addi(e, m->token.end, -1));
    u16 line = plus(m, shifted(m, m->lane, 2), emit_s_muli(e, LIR_WAVE, m->tokens / MATRIX_WAVES));
    u16 part = masked(m, m->lane, 3);
    for (u32 q = 0; q < m->tokens / 32; q++) {
        u16 at = two(m, LIR_IMIN, plus(m, line, emit_s_addi(e, m->token.start, 8 * q)), last);
        m->x_lane[q] = two(m, LIR_IADD, times(m, at, bytes), times(m, part, 32));
    }
    m->token_write = two(m, LIR_IADD, times(m, line, LINE_BYTES), times(m, part, 16));
}

static void load_activations(struct matrix *m, u16 unit, u32 step)
{
    for (u32 q = 0; q < m->tokens / 32; q++) {
        m->x_now[q] = tuple(m, 8);
        for (u32 half = 0; half < 2; half++)
            move4(m, LIR_V_GATHER4, (u16)(m->x_now[q] + 4 * half),
                  (struct lir_mem){.base = unit,
                                   .index = m->x_lane[q],
                                   .scale = 1,
                                   .disp = (i32)(step * STEP * 4 + 16 * half),
                                   .fixed = true});
    }
}

/* Halves of a word in the order in which they come out of the weights' words. */
static void put_activations(struct matrix *m, u16 to)
{
    static const u8 orders[2][8] = {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 2, 1, 3, 4, 6, 5, 7}};
    const u8 *order = orders[m->packing->code_bits > 0];

    for (u32 q = 0; q < m->tokens / 32; q++) {
        u16 halves = tuple(m, 4);
        for (u32 w = 0; w < 4; w++)
            pack(m, (u16)(halves + w), (u16)(m->x_now[q] + order[2 * w]),
                 (u16)(m->x_now[q] + order[2 * w + 1]));
        move4(m, LIR_V_SCATTER4, halves, in_group(to, (MATRIX_ROWS + 8 * q) * LINE_BYTES));
    }
}

/* ---- weights ---- */

static u16 both_halves(struct matrix *m, u16 value)
{
    return value == LIR_NONE ? value : two(m, LIR_H_PACK, value, value);
}

static u16 half_pair(struct matrix *m, u32 half) /* in a register: too long for the instruction */
{
    return from_s(m, emit_s_const(m->e, half * 0x10001ll));
}

/* Two words of four codes as half floats, which `mask` cuts out of each half of `codes`: 1024 +
 * code is exact, and so is taking 1024 and the zero point off again, also from 16 times the code.
 */
static void put_group(struct matrix *m, u16 codes, u32 mask, const u16 factor[2], u16 dst)
{
    bool by16 = mask == 0xf0;

    for (u32 k = 0; k < 2; k++) {
        u16 pair = masked(m, k ? shifted(m, codes, 8) : codes, mask * 0x10001u);
        u16 exact = two(m, LIR_IOR, pair, half_pair(m, 0x6400));
        exact = by16 ? emit_v(m->e, LIR_H_FMA, exact, half_pair(m, 0x2c00),
                              half_pair(m, 0xd400u + 16u * m->packing->zero))
                     : two(m, LIR_H_ADD, exact, half_pair(m, 0xe400u + m->packing->zero));
        put(m, m->packing->has_min ? LIR_H_FMA : LIR_H_MUL, (u16)(dst + k),
            (u16[]){exact, factor[0], factor[1]});
    }
}

static void put_codes(struct matrix *m, u16 unit, u32 step, u16 to)
{
    u32 block = m->packing->block;

    for (u32 g = 0; g < STEP / 4; g += 2) {
        struct tile t = m->tile;
        t.planes = unit;
        t.block = (step * STEP + 4 * g) / block;
        struct super super = super_factors(m->e, &t);
        const u16 factor[2] = {
            both_halves(m, block_factor(m->e, &t, 0, super.scale)),
            m->packing->has_min ? both_halves(m, block_factor(m->e, &t, 1, super.min)) : LIR_NONE};
        u16 halves = tuple(m, 4);
        for (u32 k = 0; k < 2; k++) {
            bool four = m->packing->code_bits == 4;
            u16 codes = four ? unit_word(m->e, &t, 0, (step * STEP + 4 * g) / 8)
                             : group_codes(m->e, &t, (4 * g + 4 * k) % block / 4);
            put_group(m, codes, !four ? 0xff : k ? 0xf0 : 0x0f, factor, (u16)(halves + 2 * k));
        }
        move4(m, LIR_V_SCATTER4, halves, in_group(to, 8 * g));
    }
}

/* Element k of the unit's row. */
static u16 float_at(struct matrix *m, const struct tile *t, u32 k)
{
    bool wide = m->packing->float_type == DT_F32;
    u16 word = unit_word(m->e, t, 0, wide ? k : k / 2);

    if (wide)
        return word;
    return k % 2 ? masked(m, word, 0xffff0000u) : emit_vi(m->e, LIR_ISHLI, word, 16, 0);
}

/* A step is a unit of floats. */
static void put_floats(struct matrix *m, u16 trip, u32 step, u16 to)
{
    struct tile t = m->tile;

    t.planes = emit_s_addi(m->e, trip, (i64)step * m->tile.unit.bytes);
    for (u32 c = 0; c < STEP; c += 8) {
        u16 halves = m->packing->float_type == DT_F16 ? unit_word(m->e, &t, 0, c / 2) : tuple(m, 4);
        for (u32 w = 0; w < 4 && m->packing->float_type != DT_F16; w++)
            pack(m, (u16)(halves + w), float_at(m, &t, c + 2 * w), float_at(m, &t, c + 2 * w + 1));
        move4(m, LIR_V_SCATTER4, halves, in_group(to, 2 * c));
    }
}

static void open_units(struct matrix *m, u32 blocks)
{
    m->tile.blocks = blocks;
    m->tile.unit = pack_unit(m->packing, blocks);
    m->unit_bytes = m->tile.unit.bytes;
    m->steps = blocks * m->packing->block / STEP;
}

/* A trip is a unit of codes, or some units of floats. */
static void open_weights(struct matrix *m, u32 weight)
{
    struct emit *e = m->e;
    const struct node *w = emit_node(e, weight);
    const struct packing *p = m->packing = &e->graph->external[w->source.external].packing;
    u32 columns = dim_bound(e->graph, w->shape[1]), rows = dim_bound(e->graph, w->shape[0]);
    u16 row = emit_s_add(e, m->row.start, emit_s_muli(e, LIR_WAVE, p->tile));
    u16 last = emit_s_const(e, (rows - 1) / p->tile * p->tile);

    m->tile = tile_open(e, weight, emit_s(e, LIR_S_MIN, row, last, 0), true);
    open_units(m, m->tile.size.unit_blocks);
    m->units = m->tile.size.blocks / m->tile.blocks;
    if (p->code_bits == 0) {
        for (m->steps = 4; columns / STEP % m->steps; m->steps /= 2)
            ;
        m->units = columns / STEP / m->steps;
        m->unit_bytes = m->tile.size.tile_bytes / m->units;
    }
    m->row_write = times(m, plus(m, m->lane, emit_s_muli(e, LIR_WAVE, p->tile)), LINE_BYTES);
}

/* ---- products ---- */

/* 16 halves of a line per lane; lanes 16 and up have the same as those below. */
static u16 fragment(struct matrix *m, u16 from, u32 line, u32 depth)
{
    u16 words = tuple(m, 8);

    for (u32 half = 0; half < 2; half++)
        move4(m, LIR_V_GATHER4, (u16)(words + 4 * half),
              in_group(from, line * LINE_BYTES + 2 * SIDE * depth + 16 * half));
    return words;
}

static void multiply(struct matrix *m, u16 rows, u16 tokens)
{
    u16 a[ROW_TILES];

    for (u32 depth = 0; depth < STEP / SIDE; depth++) {
        for (u32 i = 0; i < ROW_TILES; i++)
            a[i] = fragment(m, rows, i * SIDE, depth);
        for (u32 j = 0; j < m->tiles; j++) {
            u16 b = fragment(m, tokens, j * SIDE, depth);
            for (u32 i = 0; i < ROW_TILES; i++)
                put(m, LIR_WMMA, m->acc[i][j], (u16[]){a[i], b, m->acc[i][j]});
        }
    }
}

/* Lane r reads line r % 2 * 8 + r / 2 of a product's 16 rows: so the eight words of a result are
 * eight rows of the weight side by side. */
static void open_products(struct matrix *m)
{
    struct emit *e = m->e;
    u16 in = masked(m, m->lane, SIDE - 1);
    u16 line = two(m, LIR_IADD, times(m, masked(m, m->lane, 1), SIDE / 2), shifted(m, in, 1));
    u16 rows = emit_s(e, LIR_S_ANDI, LIR_WAVE, LIR_NONE, 1);
    u16 tokens = emit_s_muli(e, emit_s(e, LIR_S_SHRI, LIR_WAVE, LIR_NONE, 1), m->tokens / 2);

    m->row_read = times(m, plus(m, line, emit_s_muli(e, rows, WAVE_ROWS)), LINE_BYTES);
    m->token_read = times(m, plus(m, in, emit_s_addi(e, tokens, MATRIX_ROWS)), LINE_BYTES);
    for (u32 i = 0; i < ROW_TILES; i++)
        for (u32 j = 0; j < m->tiles; j++) {
            m->acc[i][j] = tuple(m, 8);
            for (u32 w = 0; w < 8; w++)
                emit_set_const(e, (u16)(m->acc[i][j] + w), 0);
        }
}

static void fill(struct matrix *m, u16 unit, u32 step, u16 side)
{
    if (m->packing->code_bits)
        put_codes(m, unit, step, plus(m, m->row_write, side));
    else
        put_floats(m, unit, step, plus(m, m->row_write, side));
    put_activations(m, plus(m, m->token_write, side));
    emit_barrier(m->e);
}

/* All units of a length. The last trip fills the other side once more than it is needed. */
static void run_units(struct matrix *m)
{
    struct emit *e = m->e;
    u16 zero = emit_s_const(e, 0), last = emit_s_const(e, m->units - 1);
    i64 x_bytes = m->steps * STEP * 4;

    load_activations(m, m->x, 0);
    fill(m, m->tile.planes, 0, zero);
    u16 unit = emit_loop(e, zero, emit_s_const(e, m->units), 1);
    u16 next = emit_s(e, LIR_S_MIN, emit_s_addi(e, unit, 1), last, 0);
    u16 side[2] = {zero, emit_s_const(e, m->side_bytes)};
    if (m->steps % 2) {
        side[0] = emit_s_muli(e, emit_s(e, LIR_S_ANDI, unit, LIR_NONE, 1), m->side_bytes);
        side[1] = emit_s(e, LIR_S_SUB, side[1], side[0], 0);
    }
    for (u32 step = 0; step < m->steps; step++) {
        bool inside = step + 1 < m->steps;
        u32 ahead = inside ? step + 1 : 0;
        u16 from = inside ? unit : next;
        load_activations(m, emit_s_add(e, m->x, emit_s_muli(e, from, x_bytes)), ahead);
        multiply(m, plus(m, m->row_read, side[step % 2]), plus(m, m->token_read, side[step % 2]));
        fill(m, emit_s_add(e, m->tile.planes, emit_s_muli(e, from, m->unit_bytes)), ahead,
             side[(step + 1) % 2]);
    }
    emit_end(e);
}

static void run_steps(struct matrix *m)
{
    u32 rest = m->packing->code_bits ? m->tile.size.blocks % m->tile.blocks : 0;

    if (m->units)
        run_units(m);
    if (!rest)
        return;
    m->tile.planes = emit_s_addi(m->e, m->tile.planes, (i64)m->units * m->unit_bytes);
    m->x = emit_s_addi(m->e, m->x, (i64)m->units * m->steps * STEP * 4);
    open_units(m, rest);
    m->units = 1;
    run_units(m);
}

/* ---- results ---- */

/* Where a wave's results begin. */
static u16 own_results(struct emit *e)
{
    u32 tokens = matrix_tokens(e->graph, e->target, emit_node(e, e->stage->heavy)) / 2;

    return emit_s_muli(e, LIR_WAVE, tokens * RESULT_BYTES);
}

/* The wave's results of RESULT_ROWS rows. */
static void put_results(struct matrix *m, u32 first)
{
    u16 in = times(m, masked(m, m->lane, SIDE - 1), RESULT_BYTES);
    u16 half = times(m, shifted(m, m->lane, 4), SIDE / 2 * 4);
    u16 index = plus(m, two(m, LIR_IADD, in, half), own_results(m->e));

    for (u32 j = 0; j < m->tiles; j++)
        for (u32 i = 0; i < RESULT_ROWS / SIDE; i++)
            for (u32 part = 0; part < 2; part++)
                move4(m, LIR_V_SCATTER4, (u16)(m->acc[first + i][j] + 4 * part),
                      in_group(index, j * SIDE * RESULT_BYTES + i * SIDE * 4 + part * 16));
}

/* Where the nest's first instance is found. */
static u16 results_at(const struct nest *n)
{
    struct emit *e = n->e;
    u32 row = n->space->rank - 1u, token = row - 1;
    u16 down = emit_s(e, LIR_S_SUB, e->axis[token].counter, e->own[token].start, 0);
    u16 along = emit_s(e, LIR_S_SUB, e->axis[row].counter, e->own[row].start, 0);
    u16 at = emit_s_add(e, own_results(e), emit_s_muli(e, down, RESULT_BYTES));

    return emit_s_add(e, LIR_SCRATCH, emit_s_add(e, at, emit_s_muli(e, along, 4)));
}

void hold_matrix(struct nest *n, const struct affine *idx, struct held *held)
{
    struct emit *e = n->e;
    u16 base = results_at(n);

    held->idx = idx;
    for (u32 i = 0; i < n->unroll; i++) {
        struct lir_instr *load = lir_emit(e->lir, LIR_V_LOAD);
        held->res[i] = load->dst = emit_fresh(e, LIR_VECTOR);
        load->lanes = e->lanes;
        load->mem = mem_at(base, (i64)i * RESULT_BYTES);
        load->mem.space = LIR_GROUP;
    }
}

/* The part of the item's range that is the wave's. */
static struct range part_of(struct matrix *m, struct range whole, u16 number, u32 count)
{
    struct range r = {.count = -1};

    if (number != LIR_NONE)
        whole.start = emit_s_add(m->e, whole.start, emit_s_muli(m->e, number, count));
    r.start = whole.start;
    r.end = emit_s(m->e, LIR_S_MIN, emit_s_addi(m->e, r.start, count), whole.end, 0);
    return r;
}

static void store_results(struct matrix *m, struct nest *n)
{
    struct emit *e = m->e;
    u32 row = n->space->rank - 1u, token = row - 1;
    struct range own[RANK_MAX] = {};
    u16 in = emit_s(e, LIR_S_ANDI, LIR_WAVE, LIR_NONE, 1);

    own[token] = part_of(m, m->token, emit_s(e, LIR_S_SHRI, LIR_WAVE, LIR_NONE, 1), m->tokens / 2);
    for (u32 first = 0; first < ROW_TILES; first += RESULT_ROWS / SIDE) {
        struct range rows = m->row;
        e->lanes = (u8)e->target->lanes;
        put_results(m, first);
        rows.start =
            emit_s_addi(e, emit_s_add(e, rows.start, emit_s_muli(e, in, WAVE_ROWS)), first * SIDE);
        own[row] = part_of(m, rows, LIR_NONE, RESULT_ROWS);
        if (dim_bound(e->graph, n->space->shape[row]) % MATRIX_ROWS == 0)
            own[row].count = RESULT_ROWS;
        e->own = own;
        run_nest(n);
        e->own = NULL;
    }
}

/* ---- the stage ---- */

bool is_matrix(const struct emit *e)
{
    return e->stage->heavy != NO_NODE &&
           matrix_fits(e->graph, e->target, emit_node(e, e->stage->heavy));
}

void emit_matrix(struct nest *n)
{
    struct emit *e = n->e;
    const struct node *linear = emit_node(e, e->stage->heavy);
    u32 row = linear->rank - 1u, token = row - 1;
    struct matrix *m = arena_new(e->arena, struct matrix, 1);
    struct affine *x_idx = arena_new(e->arena, struct affine, RANK_MAX);

    if (!m || !x_idx) {
        e->status = E_NOMEM;
        return;
    }
    e->lanes = (u8)e->target->lanes;
    e->lane_axis = NO_AXIS;
    *m = (struct matrix){.e = e,
                         .row = axis_range(e, row),
                         .token = axis_range(e, token),
                         .tokens = matrix_tokens(e->graph, e->target, linear),
                         .lane = emit_v(e, LIR_V_IOTA, LIR_NONE, LIR_NONE, LIR_NONE)};
    m->tiles = m->tokens / 2 / SIDE;
    m->side_bytes = (MATRIX_ROWS + m->tokens) * LINE_BYTES;
    e->out->group_bytes = max_u32(2 * m->side_bytes, MATRIX_WAVES * m->tokens / 2 * RESULT_BYTES);
    CHECK(e->waves == MATRIX_WAVES);
    for (u32 i = 0; i < RANK_MAX; i++)
        x_idx[i] = i < token ? affine_axis(i) : affine_zero();
    open_weights(m, linear->src[1]);
    open_activations(m, linear->src[0], x_idx);
    open_products(m);
    run_steps(m);
    n->lane_axis = (u8)row;
    n->unroll_axis = (u8)token;
    n->unroll_max = UNROLL_MAX;
    store_results(m, n);
}
