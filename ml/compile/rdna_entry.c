/*
 * rdna_entry.c: several kernels as one dispatch: a few scalar instructions at its entry that find
 * out whose group this is. A group that its kernel has too many waves in lets them end. Follows
 * AMD's "RDNA3 Instruction Set Architecture" reference.
 */
#include "ml/compile/rdna_select.h"

enum {
    CODE = 4,
    WAVE = 6,
    ENDS = 8
}; /* SGPRs: the entry's own address, 2; the ends of the kernels */
#define GETPC_BYTES 4u
#define PIECES_MAX  12u /* instructions per kernel */

_Static_assert(ENDS + DISPATCH_LAUNCHES_MAX <= RDNA_SGPRS, "ends lie in registers");

struct entry {
    struct rcode code;
    u32 waves; /* of a group */
};

static struct rinstr *put(struct entry *s, u16 row, u16 dst, u16 a, u16 b)
{
    struct rinstr *i = &s->code.instr[s->code.count++];

    CHECK(s->code.count <= s->code.max);
    *i = rdna_blank(row);
    i->dst = dst;
    i->src[0] = a;
    i->src[1] = b;
    return i;
}

static void put_imm(struct entry *s, u16 row, u32 imm)
{
    put(s, row, RDNA_NONE, RDNA_NONE, RDNA_NONE)->imm = (i32)imm;
}

static void put_literal(struct entry *s, u16 row, u16 dst, u16 a, u32 literal)
{
    put(s, row, dst, a, RDNA_CONST)->literal = literal;
}

/* Loads the ends and branches to label i for the first kernel whose end lies behind the group. */
static void choose_kernel(struct entry *s, u32 count)
{
    put(s, R_s_getpc_b64, CODE, RDNA_NONE, RDNA_NONE);
    for (u32 i = 0; i + 1 < count; i++)
        put(s, R_s_load_b32, (u16)(ENDS + i), RDNA_IN_ARGS, RDNA_NULL)->imm = (i32)(8 * i);
    put(s, R_v_readfirstlane_b32, WAVE, RDNA_IN_ITEM, RDNA_NONE);
    put_literal(s, R_s_lshr_b32, WAVE, WAVE, RDNA_LANE_SHIFT);
    for (u32 i = 0; i + 1 < count; i++) {
        put(s, R_s_cmp_lt_u32, RDNA_NONE, RDNA_IN_GROUP, (u16)(ENDS + i));
        put_imm(s, R_s_cbranch_scc1, i);
    }
}

/* s_getpc gave the address behind itself, the entry's first instruction. */
static void enter_kernel(struct entry *s, const struct entry_kernel *kernel, u32 idx, u32 entry_at)
{
    u32 away = kernel->code_offset - (entry_at + GETPC_BYTES);
    bool back = kernel->code_offset < entry_at;

    if (idx > 0)
        put(s, R_s_sub_u32, RDNA_IN_GROUP, RDNA_IN_GROUP, (u16)(ENDS + idx - 1));
    put_literal(s, R_s_add_u32, RDNA_IN_ARGS, RDNA_IN_ARGS, kernel->args_at);
    put_literal(s, R_s_addc_u32, RDNA_IN_ARGS + 1, RDNA_IN_ARGS + 1, 0);
    put_literal(s, R_s_add_u32, CODE, CODE, away);
    put_literal(s, R_s_addc_u32, CODE + 1, CODE + 1, back ? UINT32_MAX : 0);
    if (kernel->waves < s->waves) {
        put_literal(s, R_s_cmp_ge_u32, RDNA_NONE, WAVE, kernel->waves);
        put_imm(s, R_s_cbranch_scc1, DISPATCH_LAUNCHES_MAX);
    }
    put(s, R_s_setpc_b64, RDNA_NONE, CODE, RDNA_NONE);
}

err rdna_entry(const struct entry_kernel *kernel, u32 count, struct arena *scratch,
               struct code_out *out)
{
    usize mark = arena_mark(scratch);
    struct entry s = {.code = {.max = (count + 1) * PIECES_MAX}};
    struct rcode ready;

    CHECK(count > 1 && count <= DISPATCH_LAUNCHES_MAX);
    s.code.instr = arena_new(scratch, struct rinstr, s.code.max);
    if (!s.code.instr)
        return E_NOMEM;
    for (u32 i = 0; i < count; i++)
        s.waves = max_u32(s.waves, kernel[i].waves);
    choose_kernel(&s, count);
    for (u32 i = count; i-- > 0;) { /* the last follows the comparisons */
        put_imm(&s, R_LABEL, i);
        enter_kernel(&s, &kernel[i], i, (u32)out->len);
    }
    put_imm(&s, R_LABEL, DISPATCH_LAUNCHES_MAX);
    put(&s, R_s_endpgm, RDNA_NONE, RDNA_NONE, RDNA_NONE);
    TRY(rdna_wait(&s.code, scratch, &ready));
    CHECK(ready.count > 0 && ready.instr[0].row == R_s_getpc_b64);
    TRY(rdna_assemble(&ready, scratch, out));
    arena_reset(scratch, mark);
    return OK;
}
