/*
 * rdna.c: rdna_emit: LIR to the code of one kernel for gfx1100, and what its launch must say.
 * Follows AMD's "RDNA3 Instruction Set Architecture" reference and LLVM's "User Guide for AMDGPU
 * Backend" for the registers a wave starts with.
 */
#include "ml/compile/rdna_select.h"

#define VGPR_GRANULE 8u
/* Denormals kept, IEEE rules, DX10 clamp, memory in order; two user SGPRs, the group's number. */
#define RSRC1 0x40af0000u
#define RSRC2 0x00000084u

/* One try; scalar loads join at most join_max words, loads go ahead or keep their place. */
struct attempt {
    u32 join_max;
    u32 sgprs; /* 0: keep their place */
};
static const struct attempt attempts[] = {{RDNA_JOIN_MAX, 88},
                                          {RDNA_JOIN_MAX, 76},
                                          {RDNA_JOIN_MAX, 60},
                                          {8, 80},
                                          {8, 60},
                                          {4, 60},
                                          {RDNA_JOIN_MAX, 0},
                                          {4, 0},
                                          {1, 0}};

static err select_and_place(const struct lir *lir, struct attempt how, struct arena *arena,
                            struct rcode *code, struct rdna_use *use)
{
    struct rselect *s = arena_new(arena, struct rselect, 1);

    *code = (struct rcode){};
    *use = (struct rdna_use){};
    if (!s)
        return E_NOMEM;
    s->lir = lir;
    s->out = code;
    s->join_max = how.join_max;
    TRY(rdna_select(s, arena));
    if (how.sgprs)
        TRY(rdna_schedule(code, s->tuple, how.sgprs, arena));
    return rdna_alloc(code, s->tuple, arena, use);
}

err rdna_emit(const struct lir *lir, struct arena *arena, struct code_out *out,
              struct launch_resources *launch)
{
    usize start = arena_mark(arena), mark;
    const struct lir *unrolled;
    struct rcode code, ready;
    struct rdna_use use;
    err e = E_LIMIT;

    TRY(rdna_unroll(lir, arena, &unrolled));
    mark = arena_mark(arena);
    for (u32 tries = 0; e != OK && tries < ARRAY_LEN(attempts); tries++) {
        arena_reset(arena, mark);
        e = select_and_place(unrolled, attempts[tries], arena, &code, &use);
        if (e != OK && !use.out[LIR_SCALAR] && !use.out[LIR_VECTOR])
            break;
    }
    if (e != OK && (use.out[LIR_SCALAR] || use.out[LIR_VECTOR]))
        log_error("rdna", "want at most %u scalar and %u vector registers for a kernel", RDNA_SGPRS,
                  RDNA_VGPRS);
    TRY(e);
    TRY(rdna_pair(&code, arena));
    TRY(rdna_wait(&code, arena, &ready));
    TRY(rdna_assemble(&ready, arena, out));
    arena_reset(arena, start);
    launch->vgprs = use.used[LIR_VECTOR];
    launch->rsrc[0] = RSRC1 | ((u32)div_up(max_u32(launch->vgprs, 1), VGPR_GRANULE) - 1);
    launch->rsrc[1] = RSRC2;
    launch->rsrc[2] = 0;
    return OK;
}
