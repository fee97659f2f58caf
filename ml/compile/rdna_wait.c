/*
 * rdna_wait.c: what gfx11 leaves to software, after registers are known: waits for memory with the
 * highest counts that do, and the hazards of the vector unit. A state says for each register how
 * many operations of its counter came after the one that will write it; where paths meet the
 * nearest counts; loops are walked until nothing changes. Follows AMD's "RDNA3 Instruction Set
 * Architecture" reference (5.3 to 5.7, 7.6) and LLVM's GCNHazardRecognizer.
 */
#include "ml/compile/rdna.h"

#define AGE_NONE      255u
#define AGE_MAX       62u /* the counters hold 63 */
#define TRANS_COVER   5u  /* that many vector instructions do not cover a transcendental result */
#define DEPCTR_VALU   0xfff
#define WAIT_ANY      63u
#define DEALLOC_VGPRS 3u
#define WALKS_MAX     64u
#define LOOK_AHEAD    32u /* instructions whose waits are joined to one */
#define CLAUSE_MIN    4u  /* loads that are worth a hint to keep them together */
#define CLAUSE_MAX    63u

/* What is counted apart: vector loads, LDS, scalar loads (in no order), stores, and vector
 * instructions since a transcendental one. */
enum unit { UNIT_LOAD, UNIT_LDS, UNIT_SCALAR, UNIT_STORE, UNIT_TRANS, UNITS };

/* Beside registers: any LDS operation, any store, loads of what may be written. */
enum { CODE_LDS = RDNA_VIRTUAL, CODE_STORE, CODE_LOOSE, CODES };

/* Operations of a unit are numbered as they are issued; a register has the number of the one that
 * will write it, 0: none. Its age is how many came after that one. */
struct state {
    u16 number[UNITS][CODES];
    u16 issued[UNITS], done[UNITS]; /* the last number; up to which all are known to be done */
    u16 wmma_dst; /* of the vector instruction before, 0: it is no WMMA, RDNA_NONE: of one of many
                   */
    bool cmpx;    /* that instruction wrote EXEC */
    bool reached;
};

struct wait {
    const struct rcode *in;
    struct rcode *out; /* instr NULL: only count */
    struct state now, *at_label;
    bool changed;
};

static const struct rdna_row *row_of(const struct rinstr *instr)
{
    return &rdna_rows[instr->row];
}

static bool is_valu(const struct rinstr *instr)
{
    return row_of(instr)->format >= F_VOP1 && row_of(instr)->format <= F_VOP3P;
}

static bool is_memory(const struct rinstr *instr)
{
    return row_of(instr)->flags & (R_LOAD | R_STORE);
}

static enum unit unit_of(const struct rinstr *instr)
{
    if (row_of(instr)->format == F_SMEM)
        return UNIT_SCALAR;
    if (row_of(instr)->format == F_DS)
        return UNIT_LDS;
    return row_of(instr)->flags & R_STORE ? UNIT_STORE : UNIT_LOAD;
}

/* ---- states ---- */

static u32 age_of(const struct state *state, enum unit unit, u32 code)
{
    u32 number = state->number[unit][code], age = state->issued[unit] - number;

    if (number <= state->done[unit] || (unit == UNIT_TRANS && age > TRANS_COVER))
        return AGE_NONE;
    return unit == UNIT_SCALAR ? 0 : min_u32(age, AGE_MAX);
}

/* To what holds on either way, numbered anew. Whether it changed. */
static bool state_join(struct state *to, const struct state *from)
{
    bool changed = !to->reached || (from->cmpx && !to->cmpx);

    for (enum unit unit = 0; unit < UNITS; unit++) {
        for (u32 code = 0; code < CODES; code++) {
            u32 age = age_of(from, unit, code);
            u32 before = to->reached ? age_of(to, unit, code) : AGE_NONE;
            changed |= age < before;
            age = min_u32(age, before);
            to->number[unit][code] = age == AGE_NONE ? 0 : (u16)(AGE_NONE - age);
        }
        to->issued[unit] = AGE_NONE;
        to->done[unit] = 0;
    }
    if (from->wmma_dst && from->wmma_dst != to->wmma_dst && to->wmma_dst != RDNA_NONE) {
        to->wmma_dst = to->wmma_dst ? RDNA_NONE : from->wmma_dst;
        changed = true;
    }
    to->cmpx |= from->cmpx;
    to->reached = true;
    return changed;
}

/* At most `count` operations of the unit are under way. */
static void state_waited(struct state *state, enum unit unit, u32 count)
{
    if (count < WAIT_ANY && count < state->issued[unit])
        state->done[unit] = (u16)max_u32(state->done[unit], state->issued[unit] - count);
}

/* ---- what an instruction must wait for ---- */

struct need {
    u32 age[UNITS];
};

static void need_code(struct need *need, const struct state *state, enum unit unit, u32 code)
{
    need->age[unit] = min_u32(need->age[unit], age_of(state, unit, code));
}

/* Loads of one unit come back in order: the next may write the same register. */
static void need_registers(struct need *need, const struct state *state, const struct rinstr *instr)
{
    struct rdna_ref refs[RDNA_REFS_MAX];
    u32 count = rdna_refs(instr, refs);

    for (u32 r = 0; r < count; r++)
        for (u32 code = refs[r].code; code < refs[r].code + (u32)refs[r].width; code++) {
            for (enum unit unit = UNIT_LOAD; unit <= UNIT_SCALAR; unit++)
                if (!refs[r].write || unit == UNIT_SCALAR || !is_memory(instr) ||
                    unit_of(instr) != unit)
                    need_code(need, state, unit, code);
            if (!refs[r].write && is_valu(instr))
                need_code(need, state, UNIT_TRANS, code);
        }
}

static struct need needs_of(const struct state *state, const struct rinstr *instr)
{
    struct need need;

    memset(&need, 0xff, sizeof(need));
    need_registers(&need, state, instr);
    if (instr->dual)
        need_registers(&need, state, instr + 1);
    if (instr->row == R_s_barrier) {
        need_code(&need, state, UNIT_LDS, CODE_LDS);
        need_code(&need, state, UNIT_STORE, CODE_STORE);
        need_code(&need, state, UNIT_LOAD, CODE_LOOSE);
    }
    return need;
}

/* ---- output ---- */

static void put(struct wait *wait, const struct rinstr *instr)
{
    if (wait->out->instr)
        wait->out->instr[wait->out->count] = *instr;
    wait->out->count++;
}

static void put_number(struct wait *wait, u16 row, u32 number)
{
    struct rinstr instr = rdna_blank(row);

    instr.imm = (i32)number;
    if (row == R_s_waitcnt_vscnt)
        instr.dst = RDNA_NULL;
    put(wait, &instr);
}

static void put_waits(struct wait *wait, const struct need *need)
{
    const u32 *age = need->age;
    u32 load = min_u32(age[UNIT_LOAD], WAIT_ANY);
    u32 lgkm = age[UNIT_SCALAR] < AGE_NONE ? 0 : min_u32(age[UNIT_LDS], WAIT_ANY);

    if (load < WAIT_ANY || lgkm < WAIT_ANY)
        put_number(wait, R_s_waitcnt, load << 10 | lgkm << 4 | 7);
    if (age[UNIT_STORE] < WAIT_ANY)
        put_number(wait, R_s_waitcnt_vscnt, age[UNIT_STORE]);
    if (age[UNIT_TRANS] < AGE_NONE)
        put_number(wait, R_s_waitcnt_depctr, DEPCTR_VALU);
    state_waited(&wait->now, UNIT_LOAD, load);
    state_waited(&wait->now, UNIT_LDS, lgkm);
    if (lgkm == 0)
        state_waited(&wait->now, UNIT_SCALAR, 0);
    state_waited(&wait->now, UNIT_STORE, age[UNIT_STORE]);
    if (age[UNIT_TRANS] < AGE_NONE)
        state_waited(&wait->now, UNIT_TRANS, 0);
}

/* A WMMA whose A or B is what the one before writes, a permlane behind v_cmpx: one vector
 * instruction between. */
static void put_hazards(struct wait *wait, const struct rinstr *instr)
{
    u32 last = wait->now.wmma_dst;
    bool overlap = last == RDNA_NONE;

    for (u32 k = 0; k < 2; k++)
        overlap |= instr->src[k] < last + 8 &&
                   instr->src[k] + (row_of(instr)->operand[k + 1] & 255u) > last;
    if ((row_of(instr)->flags & R_WMMA && last && overlap) ||
        (wait->now.cmpx &&
         (instr->row == R_v_permlane16_b32 || instr->row == R_v_permlanex16_b32))) {
        put_number(wait, R_v_nop, 0);
        wait->now.issued[UNIT_TRANS]++;
    }
}

/* ---- the walk ---- */

static void mark_writes(struct state *state, const struct rinstr *instr, enum unit unit)
{
    struct rdna_ref refs[RDNA_REFS_MAX];
    u32 count = rdna_refs(instr, refs);

    for (u32 r = 0; r < count; r++)
        for (u32 n = 0; n < refs[r].width && refs[r].write; n++)
            state->number[unit][refs[r].code + n] = state->issued[unit];
}

static void step_memory(struct state *state, const struct rinstr *instr)
{
    enum unit unit = unit_of(instr);

    if (unit != UNIT_SCALAR)
        state_waited(state, UNIT_TRANS, 0); /* vector memory waits for the vector unit */
    CHECK(++state->issued[unit] != 0);
    mark_writes(state, instr, unit);
    if (unit == UNIT_LDS)
        state->number[unit][CODE_LDS] = state->issued[unit];
    if (unit == UNIT_STORE)
        state->number[unit][CODE_STORE] = state->issued[unit];
    if (unit == UNIT_LOAD && !instr->fixed)
        state->number[unit][CODE_LOOSE] = state->issued[unit];
}

static void step_valu(struct state *state, const struct rinstr *instr)
{
    CHECK(++state->issued[UNIT_TRANS] != 0);
    if (row_of(instr)->flags & R_TRANS)
        mark_writes(state, instr, UNIT_TRANS);
    state->wmma_dst = row_of(instr)->flags & R_WMMA ? instr->dst : 0;
    state->cmpx = row_of(instr)->flags & R_WR_EXEC;
}

static bool waits_for_load(const struct need *need)
{
    u32 least = AGE_NONE;

    for (u32 unit = UNIT_LOAD; unit <= UNIT_SCALAR; unit++)
        least = min_u32(least, need->age[unit]);
    return least < AGE_NONE;
}

static bool is_straight(const struct rinstr *instr)
{
    return instr->row >= RDNA_PSEUDOS && !is_memory(instr) &&
           !(row_of(instr)->flags & (R_BRANCH | R_END | R_FENCE | R_WMMA));
}

/* Where one waits, it waits for what the next few need of memory too; a matrix product is no
 * few. */
static void look_ahead(const struct wait *wait, const struct rinstr *instr, struct need *need)
{
    const struct rinstr *end = wait->in->instr + wait->in->count;

    for (u32 i = 0; i < LOOK_AHEAD && instr + 1 < end && is_straight(instr); i++) {
        instr += 1 + instr->dual;
        if (instr >= end || instr->row < RDNA_PSEUDOS || row_of(instr)->flags & R_FENCE)
            break;
        struct need next = needs_of(&wait->now, instr);
        for (u32 unit = UNIT_LOAD; unit <= UNIT_SCALAR; unit++)
            need->age[unit] = min_u32(need->age[unit], next.age[unit]);
    }
}

static void step(struct wait *wait, const struct rinstr *instr)
{
    struct need need = needs_of(&wait->now, instr);

    if (waits_for_load(&need))
        look_ahead(wait, instr, &need);
    put_waits(wait, &need);
    put_hazards(wait, instr);
    if (row_of(instr)->flags & R_END && age_of(&wait->now, UNIT_STORE, CODE_STORE) < AGE_NONE) {
        put_number(wait, R_s_nop, 0); /* a wave gives its registers back before its stores land */
        put_number(wait, R_s_sendmsg, DEALLOC_VGPRS);
    }
    put(wait, instr);
    if (instr->dual)
        put(wait, instr + 1);
    if (is_memory(instr))
        step_memory(&wait->now, instr);
    if (is_valu(instr))
        step_valu(&wait->now, instr);
}

static void step_flow(struct wait *wait, const struct rinstr *instr)
{
    struct state *label = &wait->at_label[instr->imm];

    if (instr->row == R_LABEL) {
        if (wait->now.reached)
            wait->changed |= state_join(label, &wait->now);
        wait->now = *label;
    } else if (instr->row >= RDNA_PSEUDOS && wait->now.reached) {
        wait->changed |= state_join(label, &wait->now);
        wait->now.reached = instr->row != R_s_branch;
    }
}

static void walk(struct wait *wait)
{
    wait->out->count = 0;
    wait->changed = false;
    wait->now = (struct state){.reached = true};
    for (u32 i = 0; i < wait->in->count; i++) {
        const struct rinstr *instr = &wait->in->instr[i];
        bool jumps = row_of(instr)->flags & R_BRANCH && row_of(instr)->format == F_SOPP;
        if (instr->row >= RDNA_PSEUDOS)
            step(wait, instr);
        else
            put(wait, instr);
        if (jumps || instr->row == R_LABEL)
            step_flow(wait, instr);
        else if (row_of(instr)->flags & (R_BRANCH | R_END))
            wait->now.reached = false;
        i += instr->dual;
    }
}

/* ---- clauses ---- */

/* Loads of one kind from `at` on that nothing stands between. */
static u32 run_of_loads(const struct rcode *code, u32 at)
{
    const struct rinstr *instr = &code->instr[at];
    u32 end = at;

    if (instr->row < RDNA_PSEUDOS || !(row_of(instr)->flags & R_LOAD) ||
        row_of(instr)->format == F_DS)
        return 0;
    while (end < code->count && end < at + CLAUSE_MAX && code->instr[end].row >= RDNA_PSEUDOS &&
           row_of(&code->instr[end])->flags & R_LOAD &&
           row_of(&code->instr[end])->format == row_of(instr)->format)
        end++;
    return end - at;
}

/* The cache serves such a run without other waves' between. */
static void put_clauses(struct rcode *code)
{
    for (u32 i = 0; i < code->count; i++) {
        u32 run = run_of_loads(code, i);
        if (run < CLAUSE_MIN)
            continue;
        memmove(code->instr + i + 1, code->instr + i, (code->count - i) * sizeof(*code->instr));
        code->instr[i] = rdna_blank(R_s_clause);
        code->instr[i].imm = (i32)run - 1;
        code->count++;
        i += run;
    }
}

err rdna_wait(const struct rcode *code, struct arena *arena, struct rcode *out)
{
    struct wait *wait = arena_new(arena, struct wait, 1);
    u32 labels = 1, walks = 0;

    if (!wait)
        return E_LIMIT;
    *out = *code;
    out->instr = NULL;
    wait->in = code;
    wait->out = out;
    for (u32 i = 0; i < code->count; i++)
        if (code->instr[i].row == R_LABEL)
            labels = max_u32(labels, (u32)code->instr[i].imm + 1);
    wait->at_label = arena_new(arena, struct state, labels);
    if (!wait->at_label)
        return E_LIMIT;
    do
        walk(wait);
    while (wait->changed && ++walks < WALKS_MAX);
    CHECK(!wait->changed);
    out->max = out->count + out->count / CLAUSE_MIN;
    out->instr = arena_new(arena, struct rinstr, out->max);
    if (!out->instr)
        return E_LIMIT;
    walk(wait);
    CHECK(out->count <= out->max);
    put_clauses(out);
    return OK;
}
