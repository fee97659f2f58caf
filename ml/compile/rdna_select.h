/*
 * rdna_select.h: the state of instruction selection for RDNA3, shared by its walk (rdna_select.c),
 * scalar values (rdna_scalar.c), lane operations (rdna_lanes.c) and memory (rdna_memory.c).
 */
#ifndef NOHOST_RDNA_SELECT_H
#define NOHOST_RDNA_SELECT_H

#include "ml/compile/rdna.h"

#define RDNA_LANES       32u
#define RDNA_LANE_SHIFT  5u
#define RDNA_JOIN_MAX    16u /* words of one scalar load */
#define RDNA_PLACES_MAX  64u
#define RDNA_PENDING_MAX 8u

/* What the dispatcher gives: SGPR 0:1 the arguments, 2 the group, VGPR 0 the work-item. */
enum { RDNA_IN_ARGS = 0, RDNA_IN_GROUP = 2, RDNA_IN_ITEM = RDNA_VGPR };

enum { RDNA_HEAD, RDNA_BODY, RDNA_STREAMS }; /* entry code, then the rest */

/* A source operand: an operand's code, and the value of an RDNA_CONST. */
struct rsrc {
    u16 code;
    u32 bits;
};

/* How a LIR value is held. LANES: a VGPR. UNIFORM: a VECTOR whose lanes are all equal, in an SGPR.
 * CONST: nowhere. MASK: a comparison, one bit of an SGPR for each lane. SCALAR: an SGPR, when it is
 * wide two. */
enum rvalue_kind { RV_LANES, RV_UNIFORM, RV_CONST, RV_MASK, RV_SCALAR };

struct rvalue {
    u16 code;  /* its first register */
    u16 lanes; /* of a MASK: the VGPR with all ones or 0, RDNA_NONE: nobody wants it */
    u16 uses, writes;
    u32 writer; /* the last instruction that writes it */
    u8 kind;
    bool wide;     /* SCALAR: 64 bits, an address or part of one */
    bool wanted;   /* SCALAR: an address is made of it */
    bool loaded;   /* came with a neighbour's load */
    bool steady;   /* one instruction writes it, or all of its tuple */
    bool fused;    /* is made by the instruction that reads it */
    u32 block;     /* of straight code, where it is made */
    i64 low, high; /* SCALAR: bounds; CONST: low is the value */
};

/* base + index * scale + disp, kept in registers: an SGPR pair for global memory, else a VGPR. */
struct rplace {
    u16 base, index;
    u8 scale, space, shift; /* shift: of the lane number, GROUP */
    i64 disp;
    u16 code;
    bool fixed; /* base and index are written once */
};

/* a / d */
struct rquotient {
    u16 a, q; /* q RDNA_NONE: nothing is known */
    u32 d;
};

struct rselect {
    const struct lir *lir;
    struct rcode *out;
    u8 *tuple; /* by virtual register: how many from here on belong together */
    u32 vregs_max;
    struct rinstr *stream[RDNA_STREAMS];
    u32 count[RDNA_STREAMS], max[RDNA_STREAMS], at;
    struct rvalue value[LIR_VREGS_MAX];
    u16 *partner;        /* by operation: the source that is fused into it, LIR_NONE */
    struct rquotient quotient;
    u16 row_order;       /* SGPR with what v_permlanex16 wants to be told, RDNA_NONE */
    u16 shifted_lane[6]; /* VGPR with lane << i, [5]: 0; RDNA_NONE: not made yet */
    struct rplace place[RDNA_PLACES_MAX];
    u32 place_count, place_first[LIR_LOOP_DEPTH_MAX + 1];
    const struct lir_instr *loop[LIR_LOOP_DEPTH_MAX];
    u32 label[LIR_LOOP_DEPTH_MAX];
    u32 depth, labels;
    struct rinstr pending[RDNA_PENDING_MAX]; /* stores of one lane, to be written together */
    u32 pending_count;
    u32 join_max;   /* words of one scalar load, for this try */
    bool exchanges; /* waves may read from global memory what another wrote */
    err status;
};

/* ---- rdna_unroll.c ---- */

err rdna_unroll(const struct lir *lir, struct arena *arena, const struct lir **result);

/* ---- rdna_select.c ---- */

/* Fills *s->out from s->lir. */
err rdna_select(struct rselect *s, struct arena *arena);
/* Virtual registers from the code on that stand side by side. */
u16 rdna_registers(struct rselect *s, enum lir_class class, u32 count);
static inline u16 rdna_sgpr(struct rselect *s)
{
    return rdna_registers(s, LIR_SCALAR, 1);
}
static inline u16 rdna_vgpr(struct rselect *s)
{
    return rdna_registers(s, LIR_VECTOR, 1);
}
static inline struct rsrc rsrc_of(u16 code)
{
    return (struct rsrc){code, 0};
}
struct rsrc rsrc_const(u32 bits); /* an inline constant where there is one */
#define RSRC_NONE rsrc_of(RDNA_NONE)
bool rdna_is_scalar(const struct rselect *s, u16 code); /* an SGPR */
bool rdna_is_vgpr(const struct rselect *s, u16 code);

/* Appends an instruction as it is. */
struct rinstr *rdna_append(struct rselect *s, const struct rinstr *instr);
/* Appends an instruction; a source that its row cannot take goes through a register. Never NULL,
 * good until the next one. */
struct rinstr *rdna_put3(struct rselect *s, u16 row, u16 dst, const struct rsrc src[3]);
struct rinstr *rdna_put(struct rselect *s, u16 row, u16 dst, struct rsrc a, struct rsrc b);
/* The same with a new register as its destination, which is returned. */
u16 rdna_new(struct rselect *s, u16 row, struct rsrc a, struct rsrc b);
u16 rdna_new3(struct rselect *s, u16 row, const struct rsrc src[3]);
void rdna_put_imm(struct rselect *s, u16 row, i32 imm);
/* A VECTOR value as an operand; as a VGPR. */
struct rsrc rdna_operand(struct rselect *s, u16 vreg);
u16 rdna_in_vgpr(struct rselect *s, struct rsrc src);
u16 rdna_row_order(struct rselect *s); /* lanes 8..15 of a row in their order */
u16 rdna_shifted_lane(struct rselect *s, u32 shift);
/* Shift by which no lane's number adds anything. */
#define RDNA_NO_LANE 5u

/* ---- rdna_scalar.c ---- */

void scalar_survey(struct rselect *s); /* bounds, and which are wide */
/* The value is that of the register returned << *shift; maybe its own << 0. */
u16 scalar_shifted(const struct rselect *s, u16 vreg, u32 *shift);
bool scalar_constant(const struct rselect *s, u16 vreg); /* then its low bound is its value */
struct rsrc scalar_low(struct rselect *s, u16 vreg);
struct rsrc scalar_high(struct rselect *s, u16 vreg);
void scalar_expand(struct rselect *s, const struct lir_instr *in);
/* a + b as 64 bits, each given by its halves. */
void scalar_add_wide(struct rselect *s, u16 dst, const struct rsrc a[2], const struct rsrc b[2]);
void loop_head(struct rselect *s, const struct lir_instr *in);
void loop_end(struct rselect *s);

/* ---- rdna_lanes.c ---- */

/* How the value will be held, from what its operands are; an instruction that is written once. */
enum rvalue_kind lanes_kind(const struct rselect *s, const struct lir_instr *in);
/* Whether source k (0: a) of in may be a mask. */
bool lanes_take_mask(const struct rselect *s, const struct lir_instr *in, u32 k);
void lanes_expand(struct rselect *s, const struct lir_instr *in);

/* ---- rdna_fuse.c ---- */

void fuse_survey(struct rselect *s);
/* False: the operation is one of its own. */
bool fuse_expand(struct rselect *s, const struct lir_instr *in);

/* ---- rdna_memory.c ---- */

bool memory_is_scalar(const struct lir_instr *in); /* can be an SMEM load */
void memory_expand(struct rselect *s, const struct lir_instr *in);
/* Writes pending stores when the operation might tell the difference; NULL: at once. */
void memory_settle(struct rselect *s, const struct lir_instr *in);
void memory_forget(struct rselect *s, u16 vreg); /* it is written: places made of it are gone */
void memory_open(struct rselect *s);             /* a loop begins, ends */
void memory_close(struct rselect *s);

/* ---- rdna_alloc.c ---- */

/* Gives each virtual register a physical one. tuple: as in rselect. used: SGPRs, VGPRs. E_LIMIT:
 * short[class] says which ran out. */
struct rdna_use {
    u32 used[2];
    bool out[2];
};
err rdna_alloc(struct rcode *code, const u8 *tuple, struct arena *arena, struct rdna_use *use);

#endif
