/*
 * rdna_unroll.c: loops of few known trips around little are written out: their counters become
 * constants, which addresses take in, and their loads are under way together. LIR to LIR; knows no
 * machine.
 */
#include "ml/compile/rdna_select.h"

#define TRIPS_MAX    8u
#define WRITTEN_MAX  96u /* operations that a loop may become */
#define VREGS_SPARED 64u

struct unroll {
    const struct lir *in;
    struct lir *out;
    u16 *writes;   /* by register */
    u16 *constant; /* by register: 1 + the S_CONST that alone writes it, 0 */
    u16 name[LIR_VREGS_MAX];
};

static bool constant_of(const struct unroll *u, u16 v, i64 *value)
{
    *value = u->constant[v] ? u->in->instr[u->constant[v] - 1].imm : 0;
    return u->constant[v] != 0;
}

/* Index of the loop's end when nothing is nested in it, 0. */
static u32 innermost_end(const struct lir *lir, u32 head)
{
    u32 at = head + 1;

    while (lir->instr[at].op != LIR_LOOP && lir->instr[at].op != LIR_ENDLOOP)
        at++;
    return lir->instr[at].op == LIR_ENDLOOP ? at : 0;
}

/* Trips of the loop at head, 0: it stays one. */
static u32 trips_of(const struct unroll *u, u32 head, u32 end)
{
    const struct lir_instr *loop = &u->in->instr[head];
    i64 from, to;

    if (!end || !constant_of(u, loop->a, &from) || !constant_of(u, loop->b, &to) || to <= from)
        return 0;
    u64 trips = ((u64)(to - from) + (u64)loop->imm - 1) / (u64)loop->imm;
    if (trips > TRIPS_MAX || trips * (end - head) > WRITTEN_MAX ||
        u->out->vreg_count + trips * (end - head) + VREGS_SPARED > LIR_VREGS_MAX)
        return 0;
    return (u32)trips;
}

/* Another register for what only the body writes. */
static void rename_written(struct unroll *u, const struct lir_instr *in)
{
    if (u->writes[in->dst] == 1)
        u->name[in->dst] = lir_vreg(u->out, (enum lir_class)u->in->vreg_class[in->dst]);
}

static u16 renamed(const struct unroll *u, u16 v)
{
    return v == LIR_NONE ? v : u->name[v];
}

static void copy(struct unroll *u, const struct lir_instr *in)
{
    struct lir_instr *to = lir_emit(u->out, (enum lir_op)in->op);

    *to = *in;
    to->dst = renamed(u, in->dst);
    to->a = renamed(u, in->a);
    to->b = renamed(u, in->b);
    to->c = renamed(u, in->c);
    to->mem.base = renamed(u, in->mem.base);
    to->mem.index = renamed(u, in->mem.index);
}

static void write_trips(struct unroll *u, u32 head, u32 end, u32 trips)
{
    const struct lir_instr *loop = &u->in->instr[head];
    i64 from;

    (void)constant_of(u, loop->a, &from);
    for (u32 trip = 0; trip < trips; trip++) {
        for (u32 i = head; i < end && trip; i++)
            if (u->in->instr[i].dst != LIR_NONE)
                rename_written(u, &u->in->instr[i]);
        struct lir_instr *counter = lir_emit(u->out, LIR_S_CONST);
        counter->dst = renamed(u, loop->dst);
        counter->imm = from + trip * loop->imm;
        for (u32 i = head + 1; i < end; i++)
            copy(u, &u->in->instr[i]);
    }
}

/* Tuples keep their registers: they would have to move as one. */
static void count_writes(struct unroll *u)
{
    for (u32 v = 0; v < LIR_FIRST_FREE; v++) /* by the caller */
        u->writes[v] = 1;
    for (u32 i = 0; i < u->in->count; i++) {
        u16 dst = u->in->instr[i].dst;
        if (dst == LIR_NONE)
            continue;
        u->writes[dst]++;
        u->constant[dst] = u->in->instr[i].op == LIR_S_CONST ? (u16)(i + 1) : 0;
    }
    for (u32 v = 0; v < u->in->vreg_count; v++) {
        u->name[v] = (u16)v;
        if (u->writes[v] != 1)
            u->constant[v] = 0;
        for (u32 i = 0; i < u->in->tuple[v]; i++)
            u->writes[v + i] = UINT16_MAX;
    }
}

err rdna_unroll(const struct lir *in, struct arena *arena, const struct lir **result)
{
    struct unroll *u = arena_new(arena, struct unroll, 1);
    struct lir *out = arena_new(arena, struct lir, 1);

    if (!u || !out)
        return E_NOMEM;
    TRY(lir_init(out, arena));
    memcpy(out->vreg_class, in->vreg_class, in->vreg_count);
    memcpy(out->tuple, in->tuple, in->vreg_count);
    out->vreg_count = in->vreg_count;
    u->in = in;
    u->out = out;
    u->writes = arena_new(arena, u16, in->vreg_count + 1);
    u->constant = arena_new(arena, u16, in->vreg_count + 1);
    if (!u->writes || !u->constant)
        return E_NOMEM;
    count_writes(u);
    for (u32 i = 0; i < in->count; i++) {
        bool loop = in->instr[i].op == LIR_LOOP;
        u32 end = loop ? innermost_end(in, i) : 0, trips = loop ? trips_of(u, i, end) : 0;
        if (trips) {
            write_trips(u, i, end, trips);
            i = end;
        } else {
            copy(u, &in->instr[i]);
        }
    }
    *result = out->status == OK ? out : in;
    return OK;
}
