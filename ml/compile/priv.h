/*
 * priv.h: what schedule.c and the lowering files share.
 *
 * A *stage* computes all elements of one realised node: a loop nest over its axes around an
 * expression, maybe with one reduction or linear product held in registers. A *kernel* is a list of
 * stages that run for one item of a common grid.
 */
#ifndef NOHOST_COMPILE_PRIV_H
#define NOHOST_COMPILE_PRIV_H

#include "ml/compile/compile.h"
#include "ml/compile/lir.h"

#define EXPR_DEPTH_MAX    48u /* deeper expressions are cut by realising a node */
#define KERNEL_STAGES_MAX 16u

/* What an axis is for; x86 maps GRID to items, LANE to vector lanes; a GPU maps them to workgroups
 * and lanes. */
enum axis_kind { AXIS_GRID, AXIS_LOOP, AXIS_UNROLL, AXIS_LANE, AXIS_REDUCE };

enum stage_kind { STAGE_MAP, STAGE_QUANT, STAGE_SCATTER, STAGE_UNPACK, STAGE_PAD };

/* The affine index of one dimension of a node: constant + sum of coef * axis (+ a run-time scalar
 * or per-lane part). Axes 0..5 are the stage's output axes, 6..11 the axes of the heavy node's
 * source. */
#define AXES_MAX (2 * RANK_MAX)
struct affine {
    i32 coef[AXES_MAX];
    i64 constant;
    u16 dynamic;       /* SCALAR vreg to add, or LIR_NONE */
    u16 dynamic_lanes; /* VECTOR vreg of I32 to add, or LIR_NONE */
    u16 dynamic_axes;  /* analysis only: axes that the dynamic part depends on */
};

/* One memory operand that a stage reads: a source or a realised node. */
struct leaf {
    u32 node;
    struct affine idx[RANK_MAX];
    bool in_heavy; /* read inside the heavy node's loops */
};
#define LEAVES_MAX 64u

struct stage {
    u32 node;
    enum stage_kind kind;
    u32 heavy;   /* the one REDUCE or LINEAR held in registers, or NO_NODE */
    bool local;  /* result in the kernel's scratch, its grid axes dropped */
    bool again;  /* short: every tile computes the whole of it for itself */
    bool output; /* compact layout: strides by the symbols' values, not their bounds */
    u32 place;   /* local: byte offset in scratch; else global table index (external or buffer) */
    u64 bytes;
    struct leaf *leaf;
    u32 leaf_count; /* what it reads */
    u32 len_node;   /* only elements below this length along len_axis are ever read, or NO_NODE */
    u8 len_axis;
    u32 kernel;
    u32 block[RANK_MAX]; /* elements of each axis of its space per item, 0: all; what an item has is
                            one run of the flat row, `row` elements of it */
    u64 row;
};

struct kernel {
    u32 stage_first, stage_count;
    u8 lead; /* leading axes that its stages have in common: each an axis of the grid, in blocks */
    u32 tiles; /* the grid's last axis: the rest of each stage is one flat row, in so many parts */
    u32 scratch_bytes;
    u32 level; /* length of the longest chain of kernels that it waits for */
    bool barrier;
};

struct schedule {
    const struct target *target;
    struct stage *stage;
    u32 stage_count;
    struct kernel *kernel;
    u32 kernel_count;
    u32 *stage_of; /* node -> stage, or NO_NODE when it is not realised */
    bool *live;
    struct program_buffer *buffer;
    u32 buffer_count;
    u64 workspace_bytes;
};

/* ---- rewrite_tile.c: rules; what stands for the node, or NO_NODE ---- */

/* (x * s) times weight -> (x times weight) * s, where s is the same along the row: what quantises x
 * need not wait for s, which may be known when the whole row is. */
u32 tile_factor(struct graph *graph, const struct node *node, u32 tile);
/* reduce(row) -> reduce(reduce(each tile of the row)): who makes a tile reduces it as well. */
u32 tile_reduction(struct graph *graph, const struct node *node, u32 tile);
/* A sum over a long context of exp(score - most) -> a sum of sums over parts of the context, which
 * need only know the largest score of their own. */
u32 tile_softmax(struct graph *graph, const struct node *node, u32 tile);

/* ---- plan.c ---- */

/* A node whose every reader stops at the same length along the same axis is computed only so far.
 */
struct length {
    u32 node;
    u8 axis, state; /* state: 0 no reader seen, 1 bounded, 2 full */
};

struct plan {
    const struct graph *graph;
    bool *live, *real;
    u8 *evaluations; /* how often each element is computed when not realised: 0, 1, 2 = many */
    bool *
        in_heavy; /* reached through a reduction, product or special stage without memory between */
    bool *direct; /* only ELEMENT nodes between this node and its stage's root */
    u32 *root;    /* the stage that would hold it */
    u32 *heavy;   /* per root: the reduction or product it holds */
    u16 *cost, *depth, *leaves;
    struct length *length;
};

err plan_build(struct plan *plan, const struct graph *graph, struct arena *arena);

/* ---- schedule.c ---- */
err schedule_build(const struct graph *graph, const struct target *target, struct arena *arena,
                   struct schedule *out);
/* stage_of names the kernel's own copies of what others compute again as well. */
void schedule_open(struct schedule *schedule, const struct kernel *kernel);

/* ---- tile.c ---- */
bool stage_is_linear(const struct graph *graph, const struct stage *stage);
/* Cuts the stages, in the order of their nodes, for one kernel: its lead and tiles, their blocks.
 * False when they can not be one. */
bool tile_kernel(const struct graph *graph, struct schedule *schedule, const u32 *list, u32 count,
                 struct kernel *kernel);

/* ---- place.c ---- */
/* Global table index of a source or a realised node that is not local. */
u32 node_place(const struct graph *graph, const struct schedule *schedule, u32 node);
/* Buffers, barriers and workspace offsets once kernels stand. */
err schedule_place(const struct graph *graph, struct arena *arena, struct schedule *schedule);

/* ---- index.c: how moves change indexes; the walk over what a stage reads ---- */

/* Index of the source of a MOVE node from the index of its result. `extent_of_sym` parts are left
 * to dynamic. */
bool index_through(const struct graph *graph, const struct node *node, const struct affine *in,
                   struct affine *out);
struct affine affine_zero(void);
struct affine affine_axis(u32 axis);

/* The node whose shape a stage loops over: SCATTER its value, PAD its source, all others their own.
 */
const struct node *stage_space(const struct graph *graph, const struct stage *stage);

/* Finds all leaves of a stage. E_LIMIT when there are more than LEAVES_MAX. */
err stage_leaves(const struct graph *graph, const struct schedule *schedule, struct stage *stage,
                 struct arena *arena, struct arena *scratch);
/* The node before it was broadcast: lengths broadcast to different shapes are the same lengths. */
u32 expanded_from(const struct graph *g, u32 n);
/* Largest value of an extent. */
u32 dim_bound(const struct graph *graph, dim d);
u64 shape_bound(const struct graph *graph, const dim *shape, u32 from, u32 rank);
bool op_is_move(enum op op);
bool op_is_element(enum op op);
bool op_is_reduce(enum op op);
bool op_is_source(enum op op);
u32 op_cost(enum op op);

/* QUANT result, per row of K elements: codes of QUANT_BITS bits and a sign, in one or both forms:
 * bytes, as high i8[K] and low i8[K] with code = high << 7 | low, low in -64..63; half bytes, for
 * products with 4-bit codes in granules: four planes of words, of which word w of a plane holds in
 * half bytes 2 j and 2 j + 1 those of columns 8 w + j and 8 w + 4 + j; words of planes 0 and 2 in
 * turn, K bytes, then of 1 and 3. Then scale f32[K/block], -sum of codes << QUANT_ZERO_BITS
 * i32[K/block], scale * sum f32[K/block]. */
#define QUANT_ZERO_BITS 3u /* the least zero point is 1 << that */
#define QUANT_LOW_BITS 7u
#define QUANT_MOST     16256.0f /* largest code: 127 << QUANT_LOW_BITS */
struct quant_row {
    u32 columns, block, plane, half_at, scale_at, nsum_at, ssum_at, bytes;
    u32 forms; /* that its readers want */
};
enum { QUANT_BYTES = 1, QUANT_HALF_BYTES = 2 };
struct quant_row quant_row(const struct graph *graph, u32 node);
static inline u32 quant_form(const struct packing *packing)
{
    return packing->granule && packing->code_bits == 4 ? QUANT_HALF_BYTES : QUANT_BYTES;
}
/* ---- lower_wmma.c ---- */

/* Does the matrix instruction compute the LINEAR, and an item of it MATRIX_ROWS of the weight's
 * rows times so many activation rows? */
#define MATRIX_ROWS       128u
#define MATRIX_TOKENS_MAX 128u
bool matrix_fits(const struct graph *graph, const struct target *target, const struct node *node);
u32 matrix_tokens(const struct graph *graph, const struct target *target, const struct node *node);

/* ---- lower.c, lower_value.c, lower_linear.c ---- */

#define KERNEL_ARGS_MAX 64u
struct lowered {
    struct lir lir;
    u32 arg[KERNEL_ARGS_MAX]; /* global table index of args[i] */
    u32 arg_count;
    u32 waves, group_bytes; /* targets with groups: of an item, and their common memory */
};
struct emit; /* the state of lowering, made once for all kernels of a schedule */
err lower_open(const struct graph *graph, const struct schedule *schedule,
               const struct target *target, struct arena *arena, struct emit **out);
err lower_kernel(struct emit *emit, const struct kernel *kernel, struct arena *arena,
                 struct lowered *out);

/* ---- signature.c ---- */

/* Kernels with equal hashes have equal code; place[i] of one stands where place[i] of the other
 * does. */
struct signature {
    u64 hash[2];
    u32 place[KERNEL_ARGS_MAX];
    u32 place_count;
    bool complete; /* false: too large to tell */
};
/* One u32 per node, zeroed once, and how many kernels were looked at: at most 2^22. */
struct signature_notes {
    u32 *seen;
    u32 stamp;
};
void kernel_signature(const struct graph *graph, const struct schedule *schedule,
                      const struct kernel *kernel, struct signature_notes *notes,
                      struct signature *out);

/* ---- dispatch.c ---- */

/* How many kernels from `first` on can be one dispatch. */
u32 dispatch_launches(const struct schedule *schedule, u32 first);
/* Around the launches of the dispatch: its argument block comes before theirs, its code behind. */
void dispatch_open(struct program *program, u32 first, u32 count);
err dispatch_close(struct program *program, struct arena *arena, struct code_out *out);

#endif
