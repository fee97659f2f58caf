/*
 * compile.h: public face of the tensor compiler. Types first (graph, program), then one prototype
 * per pass in pass order:
 *
 *   graph_* builders -> graph_rewrite -> schedule -> lower -> (lir.h) regalloc -> x86 -> program
 *
 * Pure: bytes in, bytes out. Knows no device, no file format, no model. tests/oracle/ judges it: an
 * interpreter, and graphs as text.
 */
#ifndef NOHOST_COMPILE_H
#define NOHOST_COMPILE_H

#include "kernel/base.h"

/* ======== graph: a flat, hash-consed array of nodes in topological order ======== */

#define RANK_MAX      6u
#define NODE_SRCS_MAX 3u
#define SYMS_MAX      8u
#define NODES_MAX     16384u
#define EXTERNALS_MAX 2048u

/* Values are F32 or I32 (I32 is also the truth value: 0 or 1). The other types are storage of
 * sources: a load converts. */
enum dtype { DT_F32, DT_I32, DT_F16, DT_BF16, DT_I8, DT_U8, DT_COUNT };
u32 dtype_bytes(enum dtype dtype);
const char *dtype_name(enum dtype dtype);

/* An extent: a constant >= 1, or a symbol whose value is known when the program runs (0 <= value <=
 * bound). */
typedef struct {
    i32 v;
} dim;
static inline dim dim_of(u32 extent)
{
    return (dim){(i32)extent};
}
static inline dim dim_sym(u32 sym)
{
    return (dim){-1 - (i32)sym};
}
static inline bool dim_is_sym(dim d)
{
    return d.v < 0;
}
static inline u32 dim_sym_idx(dim d)
{
    return (u32)(-1 - d.v);
}
static inline bool dim_same(dim a, dim b)
{
    return a.v == b.v;
}

/* How a weight matrix [rows, columns] is laid out after repacking (pack.c writes it, gather and
 * linear read it). Rows are interleaved by `tile` (the lanes of the target), so a vector load holds
 * one position of `tile` rows: row tile -> super block -> { super scale[tile] f16, super min[tile]
 * f16 } if super > 1
 *               -> block -> code planes -> scale[tile] -> min[tile] if has_min
 * Code plane of b bits: dword `w` of lane r holds codes of columns 4*g+j in bits 8*j + b*(g mod
 * 8/b) .. , w = g / (8/b). value = scale * (code - zero) + min. Float formats (code_bits 0):
 * element (k, r) at (k * tile + r), no blocks.
 *
 * With granules a vector load brings each lane 16 bytes of its own row: row tile -> unit of some
 * blocks (pack_tile; a super block is a unit) -> low plane, high plane, factors, each [granule]
 * [lane][16 bytes], then the super scale and super min [lane][2] if super > 1. A plane is the
 * dwords of the unit's blocks one after the other; the factors are its scales, then its minima.
 * Float formats: a row's elements one after the other. */
struct packing {
    enum dtype float_type; /* code_bits == 0: F32, F16 or BF16 elements */
    u8 code_bits; /* 0, 4, 5, 6 or 8; low plane 4 bits (8 for 8), the rest a high plane of 1 or 2
                     bits */
    u8 zero;      /* what is taken off each code: 0, 8, 16, 32, 128 */
    bool has_min;
    u8 scale_type; /* enum dtype: F16 or F32 when super == 1; U8 or I8 times the super scale when
                      super > 1 */
    u8 block;      /* columns per scale: 16 or 32 */
    u8 super;      /* blocks per super block: 1, 8 or 16 */
    u8 tile;       /* rows interleaved */
    u8 granule;    /* 16, or 0: none */
};

enum op {
#define OP(name, ...) OP_##name,
#include "ml/compile/op.def"
#undef OP
    OP_COUNT
};

/* The rows of op.def. */
enum op_class {
    CLASS_SOURCE,
    CLASS_ELEMENT,
    CLASS_MOVE,
    CLASS_REDUCE,
    CLASS_GATHER,
    CLASS_SCATTER,
    CLASS_QUANT,
    CLASS_LINEAR
};
enum dtype_rule { RULE_SAME, RULE_BOOL, RULE_F32, RULE_I32, RULE_ANY };
struct op_row {
    const char *name; /* upper case */
    u8 sources, class, rule, cost;
};
extern const struct op_row op_row[OP_COUNT];

struct node {
    enum op op;
    enum dtype dtype; /* F32 or I32 */
    u8 rank;
    u8 src_count;
    u32 src[NODE_SRCS_MAX];
    dim shape[RANK_MAX];
    union {
        struct {
            u32 external;
            enum dtype storage;
        } source; /* INPUT, CONST, STATE, WEIGHT: index into externals */
        struct {
            u32 bits;
        } scalar; /* SCALAR: raw 32 bits; any shape: all its elements */
        struct {
            u8 order[RANK_MAX];
        } permute;
        struct {
            i32 begin[RANK_MAX];
        } slice; /* SLICE: first element per axis; PAD: zeros before */
        struct {
            u8 axes;
        } flip; /* bit mask of axes */
        struct {
            u8 axes;
            u8 kind;
            bool has_len;
        } reduce; /* REDUCE_*: bit mask; src[1] is len when has_len */
        struct {
            u8 axis;
        } iota;
        struct {
            u8 block;
        } quant;
        u32 raw[RANK_MAX];
    };
};

struct external {
    struct str name;
    enum op kind; /* OP_INPUT, OP_CONST, OP_STATE, OP_WEIGHT */
    enum dtype storage;
    u8 rank;
    dim shape[RANK_MAX];
    struct packing packing; /* WEIGHT */
    struct str format; /* WEIGHT of the text form: its storage format's name; who reads the bytes
                          fills packing */
};

struct sym {
    struct str name;
    u32 bound; /* largest value; buffers are sized by it */
};

struct graph {
    struct node *node;
    u32 node_count, node_max;
    struct external external[EXTERNALS_MAX];
    u32 external_count;
    struct sym sym[SYMS_MAX];
    u32 sym_count;
    u32 output[64];
    struct str output_name[64];
    u32 output_count;
    u32 *hash; /* open addressing over node indexes, power of two */
    u32 hash_mask;
    struct arena *arena;
    err status; /* first builder error; later calls return node 0 and keep it */
    char why[160];
};

/* ---- graph.c: builders. Each checks shapes; the first mistake sticks in graph->status with its
 * reason. ---- */

err graph_init(struct graph *graph, struct arena *arena, u32 node_max);
u32 graph_sym(struct graph *graph, struct str name, u32 bound);
/* kind INPUT (new bytes each run), CONST (dense, fixed), STATE (lives across runs, written by
 * SCATTER), WEIGHT ([rows, columns], fixed, read as packing says). */
u32 graph_source(struct graph *graph, const struct external *external);
u32 graph_scalar_f32(struct graph *graph, f32 value);
u32 graph_scalar_i32(struct graph *graph, i32 value);
/* Elementwise: operands are broadcast against each other by numpy's rules (missing leading axes,
 * extent 1). */
u32 graph_element(struct graph *graph, enum op op, const u32 *src);
u32 graph_unary(struct graph *graph, enum op op, u32 a);
u32 graph_binary(struct graph *graph, enum op op, u32 a, u32 b);
u32 graph_where(struct graph *graph, u32 condition, u32 a, u32 b);
u32 graph_cast(struct graph *graph, u32 a, enum dtype to); /* F32 <-> I32, truncating */
u32 graph_reshape(struct graph *graph, u32 a, const dim *shape, u32 rank);
u32 graph_permute(struct graph *graph, u32 a, const u8 *order);
u32 graph_expand(struct graph *graph, u32 a, const dim *shape, u32 rank);
u32 graph_slice(struct graph *graph, u32 a, const i32 *begin, const dim *shape);
u32 graph_pad(struct graph *graph, u32 a, const i32 *before, const dim *shape);
u32 graph_flip(struct graph *graph, u32 a, u32 axes);
/* Reduced axes stay with extent 1. len: node of I32 that broadcasts to the result, how many leading
 * elements of the (one) reduced axis count; NO_NODE: all. The sum of nothing is 0, the max -inf,
 * the min +inf. */
#define NO_NODE UINT32_MAX
u32 graph_reduce(struct graph *graph, enum op op, u32 a, u32 axes, u32 len);
/* index I32 [i...], table [rows, rest...] -> [i..., rest...]. An index outside the table is clamped
 * into it. */
u32 graph_gather(struct graph *graph, u32 table, u32 index);
/* state[index[t], ...] = value[t, ...]; the result is the state afterwards. An index outside the
 * state writes nothing; equal indices leave it open which value stays. state is a STATE or an
 * earlier SCATTER. */
u32 graph_scatter(struct graph *graph, u32 state, u32 index, u32 value);
/* x [..., columns] times weight [rows, columns] transposed -> [..., rows]. */
u32 graph_linear(struct graph *graph, u32 x, u32 weight);
u32 graph_iota(struct graph *graph, u32 axis, const dim *shape, u32 rank);
/* a rounded to 14 bits and a sign, and back: per `block` elements of the last axis scale = amax /
 * 16256, code = a * (16256 / amax) to nearest even, value = code * scale. Compiled code keeps the
 * codes. */
u32 graph_quant(struct graph *graph, u32 a, u32 block);
/* Checks a node that was filled in by hand and adds it, or finds the equal one. Zero it first: all
 * bytes are compared. */
u32 graph_add(struct graph *graph, const struct node *node);
void graph_output(struct graph *graph, struct str name, u32 node);

/* ---- graph_build.c: compositions that models use ---- */
u32 graph_sigmoid(struct graph *graph, u32 a);
u32 graph_silu(struct graph *graph, u32 a);
u32 graph_mean(struct graph *graph, u32 a, u32 axes); /* reduced axes stay with extent 1 */
/* Over the last axis; weight NO_NODE: none. */
u32 graph_rms_norm(struct graph *graph, u32 a, u32 weight, f32 epsilon);

/* ---- graph.c again ---- */

/* Number of elements with these values of the symbols (sym_value NULL: their bounds). Never over
 * SHAPE_ELEMENTS_MAX. */
#define SHAPE_ELEMENTS_MAX ((u64)1 << 48)
u64 shape_elements(const struct graph *graph, const dim *shape, u32 rank, const u32 *sym_value);
bool shape_same(const dim *a, u32 a_rank, const dim *b, u32 b_rank);
u32 dim_value(const struct graph *graph, dim extent, const u32 *sym_value);
/* The type a node's rule gives it; what is wrong with a node, NULL: nothing. */
enum dtype node_dtype(const struct graph *graph, const struct node *node);
const char *node_fault(const struct graph *graph, const struct node *node);
void shape_print(const struct graph *graph, const dim *shape, u32 rank, struct text *out);

/* ---- index.c ---- */
/* Bytes of a packed matrix, whole row tiles. */
u64 packing_bytes(const struct packing *packing, u32 rows, u32 columns);
/* Bytes of one row tile of a packed weight, and of its parts. */
struct pack_tile {
    u32 low_bits, high_bits;   /* planes */
    u32 low_bytes, high_bytes; /* per block */
    u32 scale_bytes;           /* per block, also of the minima */
    u32 block_bytes;           /* planes, scales, minima */
    u32 super_head_bytes;      /* per super block, before its blocks */
    u32 super_bytes, tile_bytes;
    u32 blocks;      /* per row */
    u32 unit_blocks; /* with granules; a last unit holds what is left */
};
struct pack_tile pack_tile(const struct packing *packing, u32 columns);
/* Where the parts of a unit of `blocks` blocks lie. */
struct pack_unit {
    u32 high_at, factors_at, head_at, bytes;
};
struct pack_unit pack_unit(const struct packing *packing, u32 blocks);

/* ======== targets ======== */

/* AVX2_WORDS: AVX2 on a CPU that multiplies 16-bit lanes much faster than bytes: QEMU's own
 * translator. */
enum isa { ISA_AVX2, ISA_AVX512, ISA_AVX2_WORDS, ISA_GFX11 };
struct target {
    enum isa isa;
    u32 lanes;       /* 32-bit lanes of a full vector: 8, 16 or 32 */
    u32 vector_regs; /* 16, 32 or 256 */
    bool vnni;       /* unsigned 8-bit x signed 8-bit dot in one instruction */
    u32 cores;       /* how many share a launch: grid sizes are chosen with it in mind */
    u32 waves;       /* 0: an item has one thread; else at most so many waves compute it together */
    u32 tile;        /* elements of a row that an item has at least; 0: rows stay whole */
    u32 scratch_bytes; /* that an item may keep to itself; results that find no room there go to the
                          workspace */
    bool matrix; /* products with many activation rows may round these to half floats for the matrix
                    instruction; only gfx11 has it */
};
/* An AMD card with so many compute units. */
struct target target_gfx11(u32 cu_count);
struct target target_of(const struct cpu_features *cpu, u32 cores);

/* ======== program: what a device runs ======== */

/* Entries of the global table, u64 each: externals first, then buffers (addresses in the
 * workspace), then symbols, then per launch the items of its dispatch up to its own end. A launch
 * names the entries that its kernel reads as args[0..]; so equal kernels of different layers share
 * their code. */
struct program_buffer {
    u64 offset, bytes;
}; /* inside the program's workspace, 64-byte aligned */

#define LAUNCH_GRID_MAX 7u
struct launch {
    u32 code_offset; /* entry in program.code */
    u32 arg_first, arg_count;
    dim grid[LAUNCH_GRID_MAX]; /* items = product over axes of ceil(grid / divisor); items are
                                  independent */
    u32 grid_divisor[LAUNCH_GRID_MAX];
    u8 grid_rank;
    bool barrier;                    /* all earlier launches must have finished */
    u32 node;                        /* the graph node it realises, for reports */
    u32 waves, group_bytes, rsrc[3]; /* of its code; see struct dispatch */
};

/* Targets with groups run launches that wait for nothing between them as one dispatch: an item is a
 * workgroup, its number is SGPR 2, the arguments from arg_first on (u64 each) are at SGPR 0:1, the
 * registers are COMPUTE_PGM_RSRC1..3. With more than one launch the arguments begin with the ends
 * of each one's items, and the code sends each group to its own. */
#define DISPATCH_LAUNCHES_MAX 16u
struct dispatch {
    u32 code_offset, arg_first;
    u32 launch_first, launch_count;
    u32 waves, group_bytes, rsrc[3];
    bool barrier; /* all earlier dispatches must have finished */
};

struct program {
    u8 *code;
    usize code_bytes;
    struct launch *launch;
    u32 launch_count;
    struct dispatch *dispatch; /* targets with groups */
    u32 dispatch_count;
    u32 *arg;
    u32 arg_count; /* indexes into the global table */
    struct program_buffer *buffer;
    u32 buffer_count;
    u64 workspace_bytes;
    u32 scratch_bytes; /* per worker, the largest of all launches */
    u32 external_count, sym_count;
    u32 output_arg[64];
    u32 output_count; /* global table index of each output */
    struct sym sym[SYMS_MAX];
    u32 kernel_count; /* distinct pieces of code */
};
/* Computes items begin <= i < end. scratch is the worker's own, 64-byte aligned. */
typedef void (*kernel_entry)(const u64 *args, u64 begin, u64 end, void *scratch);

struct compile_options {
    const struct target *target;
    struct text *why;      /* the reason of a failure, as a sentence */
    bool int8_activations; /* LINEAR on quantised weights multiplies whole numbers; else plain
                              float32 */
    /* Sees what each pass made; NULL in the firmware (tests/oracle/dump.c). pass: G graph, R
     * rewritten graph, S struct schedule, L struct lir, A struct code_out before it is filled. */
    void (*look)(const struct compile_options *options, char pass, const struct graph *graph,
                 void *made);
    struct text *dump; /* look's own */
    const char *dump_passes;
};

/* ---- rewrite.c: rules as a table; a rule never adds work. QUANT is put before LINEAR here. ----
 */
err graph_rewrite(struct graph *graph, const struct compile_options *options);

/* ---- compile.c: all passes; code must later be copied into memory from code_alloc and sealed ----
 */
err compile(struct graph *graph, const struct compile_options *options, struct arena *arena,
            struct program *program);

#endif
