/*
 * rdna_pair.c: after registers are known: moves to the same register go, multiply-adds into their
 * addend take the short form, and two vector instructions that do not depend on each other become
 * one (VOPD) where the banks of their registers allow it. The second comes up from a few places
 * below, but never ahead of the wait for a load. A barrier that only the end follows goes too.
 * Follows AMD's "RDNA3 Instruction Set Architecture" reference, 7.6.
 */
#include "ml/compile/rdna.h"

#define WINDOW  10u
#define SCALARS 2u /* registers and literals that both halves read */

struct pairing {
    struct rcode *code;
    u32 kept;                   /* instructions of the result; it is never ahead of the list */
    bool loading[RDNA_VIRTUAL]; /* by register: a load's result that nobody has read yet */
};

static const struct rdna_row *row_of(const struct rinstr *instr)
{
    return &rdna_rows[instr->row];
}

static bool is_boundary(const struct rinstr *instr)
{
    return instr->row < RDNA_PSEUDOS || row_of(instr)->flags & (R_BRANCH | R_END | R_FENCE);
}

static bool is_vgpr(u16 code)
{
    return code >= RDNA_VGPR && code < RDNA_VIRTUAL;
}

static bool is_plain(const struct rinstr *instr)
{
    return instr->dpp == DPP_OFF && !instr->neg && !instr->abs && !instr->omod && !instr->clamp;
}

static void swap_sources(struct rinstr *instr)
{
    u16 first = instr->src[0];

    instr->src[0] = instr->src[1];
    instr->src[1] = first;
}

/* ---- one instruction ---- */

static bool is_idle(const struct rinstr *instr)
{
    return (instr->row == R_s_mov_b32 || instr->row == R_v_mov_b32) && is_plain(instr) &&
           instr->dst == instr->src[0];
}

static void shorten(struct rinstr *instr)
{
    if (instr->row != R_v_fma_f32 || instr->src[2] != instr->dst || !is_plain(instr))
        return;
    if (!is_vgpr(instr->src[1]))
        swap_sources(instr);
    if (!is_vgpr(instr->src[1])) {
        swap_sources(instr);
        return;
    }
    instr->row = R_v_fmac_f32;
    instr->src[2] = RDNA_NONE;
}

/* ---- two ---- */

/* Whether it has a half's encoding; first: the one that knows fewer operations. */
static bool fits_half(const struct rinstr *instr, bool first)
{
    bool one = instr->row == R_v_mov_b32;

    return rdna_half_opcode(instr->row) < (first ? 16u : 32u) && is_plain(instr) &&
           (one || is_vgpr(instr->src[1])) &&
           (instr->row != R_v_cndmask_b32 || instr->src[2] == RDNA_VCC);
}

static bool same_bank(u16 a, u16 b, u32 banks)
{
    return is_vgpr(a) && is_vgpr(b) && a % banks == b % banks;
}

static bool banks_differ(const struct rinstr *x, const struct rinstr *y)
{
    return !same_bank(x->dst, y->dst, 2) && !same_bank(x->src[0], y->src[0], 4) &&
           !same_bank(x->src[1], y->src[1], 4);
}

/* Registers of the scalar unit and literals; VCC of a choice by it too. */
static bool scalars_fit(const struct rinstr *x, const struct rinstr *y)
{
    const struct rinstr *half[] = {x, y};
    u16 seen[4];
    u32 count = 0, literals = 0, literal = 0;

    for (u32 h = 0; h < 2; h++) {
        const u16 use[] = {half[h]->src[0], half[h]->row == R_v_cndmask_b32 ? RDNA_VCC : RDNA_NONE};
        for (u32 k = 0; k < 2; k++) {
            bool known = use[k] >= RDNA_ZERO && use[k] != RDNA_CONST;
            for (u32 i = 0; i < count; i++)
                known |= seen[i] == use[k];
            if (use[k] != RDNA_CONST && !known)
                seen[count++] = use[k];
        }
        if (half[h]->src[0] == RDNA_CONST || row_of(half[h])->flags & R_LITERAL) {
            if (literals && literal != half[h]->literal)
                return false;
            literals = 1;
            literal = half[h]->literal;
        }
    }
    return count + literals <= SCALARS;
}

/* Makes x and y the two halves in some order, with sources exchanged where that helps. */
static bool match(struct rinstr *x, struct rinstr *y)
{
    for (u32 way = 0; way < 8; way++) {
        struct rinstr a = way & 4 ? *y : *x, b = way & 4 ? *x : *y;
        bool may = true;
        if (way & 1) {
            may &= row_of(&a)->flags & R_SWAP && is_vgpr(a.src[0]);
            swap_sources(&a);
        }
        if (way & 2) {
            may &= row_of(&b)->flags & R_SWAP && is_vgpr(b.src[0]);
            swap_sources(&b);
        }
        if (may && fits_half(&a, true) && fits_half(&b, false) && banks_differ(&a, &b)) {
            *x = a;
            *y = b;
            x->dual = true;
            return true;
        }
    }
    return false;
}

/* Whether what the later one reads or writes keeps it behind the earlier; together: they are read
 * at the same time, so it may write what the other reads. */
static bool is_kept_behind(const struct rinstr *later, const struct rinstr *earlier, bool together)
{
    struct rdna_ref a[RDNA_REFS_MAX], b[RDNA_REFS_MAX];
    u32 a_count = rdna_refs(earlier, a), b_count = rdna_refs(later, b);
    u32 flags = row_of(earlier)->flags;

    if (flags & R_WR_EXEC || earlier->dst == RDNA_EXEC)
        return true;
    for (u32 i = 0; i < a_count; i++)
        for (u32 k = 0; k < b_count; k++)
            if ((a[i].write || b[k].write) && !(together && !a[i].write) &&
                a[i].code < b[k].code + b[k].width && b[k].code < a[i].code + a[i].width)
                return true;
    return false;
}

static bool is_loading(const struct pairing *p, const struct rinstr *instr)
{
    struct rdna_ref refs[RDNA_REFS_MAX];
    u32 count = rdna_refs(instr, refs);
    bool loading = false;

    for (u32 k = 0; k < count; k++)
        loading |= p->loading[refs[k].code];
    return loading;
}

/* The place of a partner for instruction i; 0: there is none. Both are then the halves. */
static u32 find_partner(struct pairing *p, u32 i)
{
    struct rinstr *list = p->code->instr;

    for (u32 j = i + 1; j < p->code->count && j <= i + WINDOW && !is_boundary(&list[j]); j++) {
        bool kept = list[j].dual || !fits_half(&list[j], false) || is_loading(p, &list[j]) ||
                    !scalars_fit(&list[i], &list[j]);
        for (u32 k = i; k < j && !kept; k++)
            kept = is_kept_behind(&list[j], &list[k], k == i);
        if (!kept && match(&list[i], &list[j]))
            return j;
    }
    return 0;
}

/* ---- the list ---- */

static void note_loads(struct pairing *p, const struct rinstr *instr)
{
    struct rdna_ref refs[RDNA_REFS_MAX];
    u32 count = rdna_refs(instr, refs);
    bool load = row_of(instr)->flags & R_LOAD;

    for (u32 k = 0; k < count; k++)
        for (u32 n = 0; n < refs[k].width; n++)
            p->loading[refs[k].code + n] = load && refs[k].write;
}

static void keep(struct pairing *p, const struct rinstr *instr)
{
    p->code->instr[p->kept++] = *instr;
}

/* At the end nobody waits for anybody. */
static void drop_last_fences(struct pairing *p)
{
    struct rinstr *list = p->code->instr;

    for (u32 i = p->kept;
         i-- > 0 && (list[i].row < RDNA_PSEUDOS || row_of(&list[i])->flags & R_FENCE);)
        if (list[i].row >= RDNA_PSEUDOS) {
            memmove(list + i, list + i + 1, (p->kept - i - 1) * sizeof(*list));
            p->kept--;
        }
}

static void bring_up(struct rinstr *list, u32 from, u32 to)
{
    struct rinstr moved = list[from];

    memmove(list + to + 1, list + to, (from - to) * sizeof(*list));
    list[to] = moved;
}

err rdna_pair(struct rcode *code, struct arena *arena)
{
    struct pairing *p = arena_new(arena, struct pairing, 1);
    struct rinstr *list = code->instr;

    if (!p)
        return E_NOMEM;
    p->code = code;
    for (u32 i = 0; i < code->count; i++) {
        if (list[i].row >= RDNA_PSEUDOS)
            shorten(&list[i]);
        if (row_of(&list[i])->flags & R_END)
            drop_last_fences(p);
        if (!is_idle(&list[i]))
            keep(p, &list[i]);
    }
    code->count = p->kept;
    for (u32 i = 0; i < code->count; i++) {
        if (list[i].row < RDNA_PSEUDOS)
            continue;
        note_loads(p, &list[i]);
        u32 partner = fits_half(&list[i], false) ? find_partner(p, i) : 0;
        if (!partner)
            continue;
        bring_up(list, partner, i + 1);
        note_loads(p, &list[++i]);
    }
    return OK;
}
