/*
 * emit.h: the state of lowering one kernel, shared by lower*.c: open axes, value numbers, the LIR
 * being written.
 *
 * Every value is emitted for one *instance*: the axes' loop counters plus a constant bias per axis.
 * Unrolling emits the same expression under several biases; value numbering then shares the loads
 * that do not depend on the bias. That is all of register tiling.
 */
#ifndef NOHOST_EMIT_H
#define NOHOST_EMIT_H

#include "ml/compile/priv.h"

#define NO_AXIS           0xffu
#define MUTABLE           0xffu
#define VALUE_NUMBERS_MAX 16384u
#define VALUE_HEADS       1024u /* power of two */
#define UNROLL_MAX        8u
#define VECTORS_MAX       4u
#define QUANT_VECTORS_MAX 8u

struct value_number {
    u64 key;
    u16 vreg;
    u16 next;
    u8 depth; /* of the scope it belongs to: it is forgotten when that ends */
};

/* A loop that is being written. What does not change in it goes in front of its head. */
struct scope {
    u32 head;         /* instruction; what moves in front of it has this place */
    u32 number_first; /* value numbers made since it was opened */
    u8 load_depth;    /* loads may move out to here: no store on the way */
};

struct axis {
    u16 counter; /* SCALAR vreg, LIR_NONE while closed */
    i32 bias;    /* added to the counter for the instance being emitted */
    u32 factor;  /* the counter is a multiple of it; 0: of 1 */
};

/* Start and end of an output axis for the current item. */
struct range {
    u16 start, end;
    i64 count;  /* known number of elements, -1: not known */
    bool fixed; /* one element: the counter is open */
};

struct emit {
    const struct graph *graph;
    const struct schedule *schedule;
    const struct kernel *kernel;
    const struct target *target;
    const struct stage *stage;
    struct lowered *out;
    struct lir *lir;
    struct arena
        notes; /* indexes and lists of the stage being lowered, apart from where the LIR grows */
    struct arena *arena; /* = &notes */
    struct axis axis[AXES_MAX];
    u16 item[RANK_MAX + 1]; /* the block of each lead axis, and the tile, that this item is */
    u16 start[RANK_MAX];    /* of the stage's axes that are cut */
    const struct range
        *own; /* NULL, or by output axis what the wave does of the item, count 0: all */
    u8 order[AXES_MAX];
    u32 open_count; /* axes, outermost first */
    u8 lane_axis;   /* axis that the lanes run along, NO_AXIS: every lane is the same element */
    u8 lanes;       /* 1 or the target's */
    u32 depth;      /* of expression recursion, bounded by the scheduler */
    struct value_number *number;
    u32 number_count;
    u16 head[VALUE_HEADS];
    struct scope scope[LIR_LOOP_DEPTH_MAX + 1]; /* [0]: the kernel itself */
    u32 scope_depth;
    bool quiet;                    /* the loops opened now hold no store */
    u32 waves;                     /* that run the kernel together; 1 on a CPU */
    bool joined;                   /* partial results may still be read by other waves */
    u8 defined_at[LIR_VREGS_MAX];  /* scope whose end is the end of this value; MUTABLE */
    u32 writer[LIR_VREGS_MAX];     /* by value: the instruction that made it, 1 +; 0: several */
    u32 place[LIR_INSTRS_MAX + 1]; /* by instruction: 1 + head of the loop it moves in front of */
    err status;
};

static inline const struct node *emit_node(const struct emit *e, u32 n)
{
    return &e->graph->node[n];
}

/* An instruction without operands; fill what it has. */
static inline struct lir_instr emit_blank(const struct emit *e, enum lir_op op)
{
    struct lir_instr i = {.op = (u8)op, .lanes = e->lanes, .dst = LIR_NONE, .a = LIR_NONE};
    i.b = i.c = i.mem.base = i.mem.index = LIR_NONE;
    return i;
}

/* ---- emit.c ---- */

u64 number_mix(u64 hash, u64 value);
u16 *number_find(struct emit *e, u64 key);
void number_add(struct emit *e, u64 key, u16 vreg);

/* Emits a pure instruction in front of all loops in which it does not change, or finds the register
 * that already holds its value. */
u16 emit_pure(struct emit *e, struct lir_instr instr);
u16 emit_s(struct emit *e, enum lir_op op, u16 a, u16 b, i64 imm);
u16 emit_s_const(struct emit *e, i64 value);
u16 emit_s_add(struct emit *e, u16 a, u16 b); /* LIR_NONE stands for 0 */
u16 emit_s_addi(struct emit *e, u16 a, i64 value);
u16 emit_s_muli(struct emit *e, u16 a, i64 factor);
u16 emit_arg(struct emit *e, u32 place); /* pointer or value of a global table entry */
u16 emit_extent(struct emit *e, dim d);  /* as SCALAR */
u16 emit_v(struct emit *e, enum lir_op op, u16 a, u16 b, u16 c);
u16 emit_two(struct emit *e, enum lir_op op, u16 a, u16 b);
u16 emit_vi(struct emit *e, enum lir_op op, u16 a, i64 imm, u8 aux);
/* FCMP or ICMP: all ones where a predicate b. */
u16 emit_compare(struct emit *e, enum lir_op op, u8 predicate, u16 a, u16 b);
u16 emit_const_i32(struct emit *e, u32 bits);
u16 emit_const_f32(struct emit *e, f32 value);
/* Mutable registers (accumulators): written by their own instructions, never value-numbered. */
u16 emit_var(struct emit *e, enum lir_class class);
/* A register that one instruction writes here and now. */
u16 emit_fresh(struct emit *e, enum lir_class class);
/* acc = a * b + acc, of a half float as it is; acc = acc op value; dst = a. */
void emit_fma(struct emit *e, u16 acc, u16 a, u16 b);
void emit_combine(struct emit *e, u16 acc, enum lir_op op, u16 value);
void emit_move(struct emit *e, u16 dst, u16 a);
void emit_set_const(struct emit *e, u16 dst, u32 bits);
u16 emit_loop(struct emit *e, u16 start, u16 end, i64 step); /* returns the counter */
/* A loop whose trips the waves take in turn. */
u16 emit_shared_loop(struct emit *e, u16 start, u16 end, i64 step);
void emit_barrier(struct emit *e);
void emit_end(struct emit *e);
err emit_settle(struct emit *e, struct arena *arena); /* puts what was to move where it belongs */
void axis_open(struct emit *e, u32 axis, u16 counter);
void axis_close(struct emit *e, u32 axis);

u16 emit_sym(struct emit *e, u32 sym);

/* ---- address.c ---- */

/* Whether nobody writes the node's memory while the kernel runs. */
bool is_fixed(const struct emit *e, u32 node);
/* Bytes of one element, and the address of element idx of a source or realised node. *lane_stride:
 * elements per lane. */
struct lir_mem emit_address(struct emit *e, u32 node, const struct affine *idx, i64 *lane_stride,
                            u16 *lane_index);
enum dtype node_storage(const struct emit *e, u32 node);
/* Stride in elements of dimension d; *sym_count symbols multiply it. False: memory is not laid out
 * by strides (QUANT, WEIGHT). */
struct stride {
    i64 elements;
    u8 syms[SYMS_MAX];
    bool symbolic;
};
struct stride node_stride(const struct emit *e, u32 node, u32 d);

/* The index as SCALAR, without its lanes; LIR_NONE for 0. */
u16 emit_index(struct emit *e, const struct affine *idx);
u16 emit_load(struct emit *e, u32 node, const struct affine *idx);
u16 emit_half(struct emit *e, u16 word, u32 half); /* half of a word as float */
struct lir_mem mem_at(u16 base, i64 disp);
/* LIR_V_LOAD or LIR_V_BCAST; a store. */
u16 emit_get(struct emit *e, enum lir_op op, enum dtype type, struct lir_mem mem);
void emit_put(struct emit *e, u16 value, enum dtype type, struct lir_mem mem);
void emit_store(struct emit *e, u16 value, u32 node, const struct affine *idx);

/* ---- lower_value.c ---- */

/* The value of element idx of a node, in e->lanes lanes along e->lane_axis. */
u16 emit_value(struct emit *e, u32 node, const struct affine *idx);
/* The same as SCALAR: an index or a length. */
u16 emit_scalar(struct emit *e, u32 node, const struct affine *idx);
/* Gives the heavy node's result, so that emit_value finds it. */
void emit_remember(struct emit *e, u32 node, const struct affine *idx, u16 vreg);
/* Index of the heavy node in terms of the stage's axes. False: not reachable by moves and
 * elementwise nodes. */
bool find_index(struct emit *e, u32 from, const struct affine *idx, u32 target, struct affine *out);

/* ---- lower_math.c ---- */
u16 emit_exp(struct emit *e, u16 x);
u16 emit_log(struct emit *e, u16 x);
u16 emit_sin_cos(struct emit *e, u16 x, bool cosine);

/* ---- lower_linear.c ---- */

void emit_quant_stage(struct emit *e);
void emit_unpack_stage(struct emit *e);
/* Pieces of a row of the stage's product, or of a QUANT or UNPACK stage, that waves can share. */
u32 row_parts(const struct emit *e);
bool quant_shares_rows(const struct emit *e);

/* A stage's nest: output axes outermost first, each with its role. */
struct nest {
    struct emit *e;
    const struct node *space;
    u8 axis[RANK_MAX];
    u32 count;
    u8 unroll_axis, lane_axis; /* output axes, or NO_AXIS */
    u8 reduce_lane; /* axis of the heavy node's source that the lanes run along instead, or NO_AXIS
                     */
    u8 spread_axis; /* output axis whose elements are shared out to the waves, or NO_AXIS */
    u8 split_axis;  /* axis of the heavy node's source that is shared out instead, or NO_AXIS */
    u32 unroll_max, vectors_max;
    u32 unroll, vectors; /* of the variant being emitted */
    bool wide;           /* a reduced axis is unrolled for the sake of wide loads */
    bool zero;           /* PAD: fill instead of copy */
    bool partial;        /* the row tile of the product has rows only up to `end` */
    u16 end;
};

/* What the heavy node came to for every instance of a nest, or this wave's part of it. */
struct held {
    u16 res[UNROLL_MAX * VECTORS_MAX]; /* [unroll][vectors] */
    const struct affine *idx;          /* of the heavy node */
    enum lir_op op;                    /* joins the parts */
};
/* lower_linear.c: rows u of the stage's product for the row tile at the lane axis. */
bool hold_linear(struct nest *n, const struct affine *idx, struct held *held);
u32 linear_rows(const struct emit *e); /* activation rows at a time */

/* ---- lower_item.c ---- */
/* Which block of each lead axis and which tile this item is; the tile runs fastest. */
void open_item(struct emit *e, u16 item);
/* Where the stage's axes start for this item; opens those of which it has one element. */
void open_stage(struct emit *e);
void close_stage(struct emit *e);
struct range axis_range(struct emit *e, u32 axis);
bool is_grid_fixed(const struct emit *e, u32 axis);
/* Does the length bound an axis here? It may depend on grid axes only, which are open before all
 * others. */
bool length_usable(const struct emit *e);
/* Largest number of elements of an output axis in one item. */
u32 axis_bound(const struct emit *e, u32 axis);

/* ---- lower.c ---- */
/* Emits for instance (u, v) of the unrolled axes from here on. */
void set_bias(struct nest *n, u32 u, u32 v);
void run_nest(struct nest *n);

/* ---- lower_join.c ---- */
/* Joins the waves' parts of what the nest holds, and stores what comes of them. */
void store_joined(struct nest *n, const struct affine *idx, const struct held *held);

/* ---- lower_wmma.c ---- */
#define MATRIX_WAVES 4u
/* A stage that is_matrix, by MATRIX_WAVES. */
bool is_matrix(const struct emit *e);
void emit_matrix(struct nest *n);
/* The nest's part of the product, made before it. */
void hold_matrix(struct nest *n, const struct affine *idx, struct held *held);

/* ---- roles.c ---- */
void choose_roles(struct nest *n);
/* A product with granules is one of whole row tiles, even where the last has fewer rows. */
bool whole_tiles(const struct nest *n);
/* Which axis the waves share; returns how many of them have something to do. */
u32 choose_shares(struct nest *n);
/* The last axis that is longer than 1, or NO_AXIS: stores along it are contiguous when
 * store_contiguous says so. */
u8 store_axis(const struct node *space);
bool store_contiguous(const struct emit *e, u32 axis);

/* ---- lower_reduce.c ---- */
bool hold_reduction(struct nest *n, const struct affine *idx, struct held *held);

#endif
