/*
 * rdna_schedule.c: the order of instructions between two points of control flow, before registers
 * are given out: list scheduling by what depends on what. Loads go first, as long as their results
 * leave room for as many waves as a SIMD holds, then what makes their addresses, then the rest in
 * the order it came, around results that are not there yet. Knows no waits: rdna_wait.c.
 */
#include "ml/compile/rdna.h"

#define VGPRS_MAX   240u
#define WMMA_CYCLES 32u

/* Beside registers: what memory holds, the condition bit. */
enum { CODE_LDS, CODE_GLOBAL, CODE_SCC, SPECIALS };

struct edge {
    u32 to, next;
};

/* The first registers of the tuples that an instruction names; bit n of writes: it writes v[n]. */
struct tuples {
    u16 v[RDNA_REFS_MAX];
    u8 count, writes;
};

struct item {
    struct tuples tuples;
    u32 succ;      /* the first edge, 0: none */
    u32 waits;     /* for so many instructions that are not placed yet */
    u32 ready;     /* when its operands are there */
    u8 feeds;      /* enum load_kind of loads whose address depends on it */
    bool scc_live; /* somebody reads the condition bit it writes */
};

/* The registers of a tuple in the region. */
struct use {
    u32 reads; /* not placed yet */
    bool outside, seen;
};
/* Where in the list a tuple is named first and last. */
struct span {
    u32 from, to;
};

struct region {
    struct rcode *code;
    const u16 *first; /* of the tuple, by virtual register */
    const u8 *tuple;
    struct rinstr *instr; /* the region's */
    u32 count;
    struct item *item;
    struct edge *edge;
    u32 edges, edges_max;
    bool full;             /* there are more: the region keeps its order */
    u32 *writer, *readers; /* by code: a node + 1; an edge */
    u32 codes;             /* how many there are */
    struct use *use;       /* by virtual register */
    struct span *span;     /* by virtual register, of a tuple's first */
    u32 live[2], live_max[2];
    u32 now;
    bool matrix; /* the list has products of matrices: LDS, not registers, bounds its waves */
    struct rinstr *out;
    u32 *ready, ready_count;
};

/* ---- instructions ---- */

static const struct rdna_row *row_of(const struct rinstr *instr)
{
    return &rdna_rows[instr->row];
}

static bool is_vector(const struct rinstr *instr)
{
    return row_of(instr)->format >= F_VOP1;
}

enum load_kind { LOAD_VECTOR = 1, LOAD_SCALAR = 2 };

static u8 load_kind(const struct rinstr *instr)
{
    if (!(row_of(instr)->flags & R_LOAD) || row_of(instr)->format == F_DS)
        return 0;
    return row_of(instr)->format == F_SMEM ? LOAD_SCALAR : LOAD_VECTOR;
}

static bool is_boundary(const struct rinstr *instr)
{
    return instr->row < RDNA_PSEUDOS || row_of(instr)->flags & (R_BRANCH | R_END | R_FENCE);
}

/* Cycles until a result can be used; those of memory are meant to be hidden. */
static u32 latency_of(const struct rinstr *instr)
{
    u32 flags = row_of(instr)->flags;

    if (flags & R_LOAD)
        return row_of(instr)->format == F_GLOBAL ? 800 : 64;
    if (flags & R_WMMA)
        return WMMA_CYCLES;
    return !is_vector(instr) ? 2 : flags & R_TRANS ? 10 : 5;
}

/* Vector memory takes longest: it and what makes its addresses come first. */
enum rank {
    RANK_VECTOR_LOAD,
    RANK_FEEDS_VECTOR,
    RANK_SCALAR_LOAD,
    RANK_FEEDS_SCALAR,
    RANK_FREE,
    RANK_STALLS,
    RANK_NO_ROOM,
    RANK_LOAD_NO_ROOM
};

struct access {
    u32 code, count;
    bool write;
};
#define ACCESSES_MAX (RDNA_REFS_MAX + 3)

/* Everything read and written, the condition bit apart. */
static u32 accesses(const struct region *r, const struct rinstr *instr,
                    struct access out[ACCESSES_MAX])
{
    const struct rdna_row *row = row_of(instr);
    struct rdna_ref refs[RDNA_REFS_MAX];
    u32 count = rdna_refs(instr, refs), special = r->codes - SPECIALS;
    bool vector_memory = row->format == F_DS || row->format == F_GLOBAL;

    for (u32 k = 0; k < count; k++)
        out[k] = (struct access){refs[k].code, refs[k].width, refs[k].write};
    if (is_vector(instr) || row->flags & (R_RD_EXEC | R_WR_EXEC))
        out[count++] = (struct access){RDNA_EXEC, 1, row->flags & R_WR_EXEC};
    if (row->flags & R_RD_VCC)
        out[count++] = (struct access){RDNA_VCC, 1, false};
    if (vector_memory && (row->flags & R_STORE || !instr->fixed))
        out[count++] = (struct access){special + (row->format == F_DS ? CODE_LDS : CODE_GLOBAL), 1,
                                       row->flags & R_STORE};
    return count;
}

/* ---- what depends on what ---- */

static void add_edge(struct region *r, u32 *list, u32 to)
{
    r->full |= r->edges == r->edges_max;
    if (r->full)
        return;
    r->edge[r->edges] = (struct edge){to, *list};
    *list = r->edges++;
}

static void depend(struct region *r, u32 from, u32 to)
{
    if (from == to)
        return;
    add_edge(r, &r->item[from].succ, to);
    r->item[to].waits++;
}

static void depend_on_list(struct region *r, u32 *list, u32 to)
{
    for (u32 e = *list; e; e = r->edge[e].next)
        depend(r, r->edge[e].to, to);
}

static void note_access(struct region *r, u32 n, u32 code, bool write)
{
    if (r->writer[code])
        depend(r, r->writer[code] - 1, n);
    if (write) {
        depend_on_list(r, &r->readers[code], n);
        r->readers[code] = 0;
        r->writer[code] = n + 1;
    } else {
        add_edge(r, &r->readers[code], n);
    }
}

/* Writers whose bit nobody reads keep no order among themselves; they only stay out of the way
 * between a writer and its readers. */
static void note_scc(struct region *r, u32 n, u32 *dead)
{
    u32 code = r->codes - SPECIALS + CODE_SCC, flags = row_of(&r->instr[n])->flags;

    if (flags & R_RD_SCC) {
        if (r->writer[code])
            depend(r, r->writer[code] - 1, n);
        add_edge(r, &r->readers[code], n);
    }
    if (!(flags & R_WR_SCC))
        return;
    depend_on_list(r, &r->readers[code], n);
    if (!r->item[n].scc_live) {
        add_edge(r, dead, n);
        return;
    }
    depend_on_list(r, dead, n);
    *dead = r->readers[code] = 0;
    r->writer[code] = n + 1;
}

/* The last one counts as read: by the branch behind. */
static void find_scc_readers(struct region *r)
{
    bool read = true;

    for (u32 n = r->count; n-- > 0;) {
        u32 flags = row_of(&r->instr[n])->flags;
        if (flags & R_WR_SCC) {
            r->item[n].scc_live = read;
            read = false;
        }
        read = read || flags & R_RD_SCC;
    }
}

static void find_dependences(struct region *r)
{
    struct access access[ACCESSES_MAX];
    u32 dead = 0;

    memset(r->writer, 0, r->codes * sizeof(u32));
    memset(r->readers, 0, r->codes * sizeof(u32));
    r->edges = 1;
    find_scc_readers(r);
    for (u32 n = 0; n < r->count; n++) {
        u32 count = accesses(r, &r->instr[n], access);
        for (u32 pass = 0; pass < 2; pass++) /* reads first */
            for (u32 k = 0; k < count; k++)
                for (u32 i = 0; i < access[k].count && access[k].write == pass; i++)
                    note_access(r, n, access[k].code + i, pass);
        note_scc(r, n, &dead);
    }
    for (u32 n = r->count; n-- > 0;)
        for (u32 e = r->item[n].succ; e; e = r->edge[e].next)
            r->item[n].feeds |= load_kind(&r->instr[r->edge[e].to]) | r->item[r->edge[e].to].feeds;
}

/* ---- registers in use ---- */

static u32 width_of(const struct region *r, u32 v)
{
    return r->tuple[v] ? r->tuple[v] : 1;
}

static struct tuples tuples_of(const struct region *r, const struct rinstr *instr)
{
    struct rdna_ref refs[RDNA_REFS_MAX];
    struct tuples tuples = {};
    u32 count = rdna_refs(instr, refs);

    for (u32 k = 0; k < count; k++) {
        if (refs[k].code < RDNA_VIRTUAL)
            continue;
        tuples.v[tuples.count] = r->first[refs[k].code - RDNA_VIRTUAL];
        tuples.writes |= (u8)(refs[k].write << tuples.count++);
    }
    return tuples;
}

/* What is named elsewhere too counts as in use all the time. */
static void find_uses(struct region *r)
{
    u32 start = (u32)(r->instr - r->code->instr), end = start + r->count;

    memset(r->use, 0, r->code->vreg_count * sizeof(*r->use));
    r->live[LIR_SCALAR] = r->live[LIR_VECTOR] = 0;
    for (u32 n = 0; n < r->count; n++) {
        const struct tuples *t = &r->item[n].tuples;
        r->item[n].tuples = tuples_of(r, &r->instr[n]);
        for (u32 k = 0; k < t->count; k++)
            r->use[t->v[k]].reads += !(t->writes >> k & 1);
    }
    for (u32 t = 0; t < r->code->vreg_count; t++) {
        bool touched = r->span[t].from < end && r->span[t].to >= start;
        r->use[t].outside = touched && (r->span[t].from < start || r->span[t].to >= end);
        if (r->use[t].outside)
            r->live[r->code->class[t]] += width_of(r, t);
    }
}

/* How many registers of each class more are in use behind the instruction; done: it is placed. */
static void account(struct region *r, u32 n, bool done, i32 more[2])
{
    const struct tuples *t = &r->item[n].tuples;

    more[LIR_SCALAR] = more[LIR_VECTOR] = 0;
    for (u32 k = 0; k < t->count; k++) {
        struct use *use = &r->use[t->v[k]];
        i32 width = use->outside ? 0 : (i32)width_of(r, t->v[k]);
        u8 class = r->code->class[t->v[k]];
        bool write = t->writes >> k & 1;
        if (write && !use->seen && use->reads)
            more[class] += width;
        else if (!write && use->reads == 1)
            more[class] -= width;
        use->seen |= done && write;
        use->reads -= done && !write;
    }
}

/* ---- choice ---- */

/* The smaller the better; 0: at once. */
static u32 rank_of(struct region *r, u32 n)
{
    const struct rinstr *instr = &r->instr[n];
    i32 more[2];
    bool room = true, stalls = r->item[n].ready > r->now;
    u8 feeds = r->item[n].feeds;

    account(r, n, false, more);
    for (u32 class = 0; class < 2; class ++)
        room &= more[class] <= 0 || (i32)r->live[class] + more[class] <= (i32)r->live_max[class];
    if (!room)
        return load_kind(instr) ? RANK_LOAD_NO_ROOM : RANK_NO_ROOM;
    if (load_kind(instr))
        return load_kind(instr) == LOAD_VECTOR ? RANK_VECTOR_LOAD : RANK_SCALAR_LOAD;
    if (stalls)
        return RANK_STALLS;
    return feeds & LOAD_VECTOR ? RANK_FEEDS_VECTOR : feeds ? RANK_FEEDS_SCALAR : RANK_FREE;
}

/* The place in the ready list of the next one: by rank, stalled ones by when they are ready, those
 * without room by the order they came in. */
static u32 choose(struct region *r)
{
    u32 best = 0, best_rank = UINT32_MAX;

    for (u32 i = 0; i < r->ready_count && best_rank; i++) {
        u32 n = r->ready[i], rank = rank_of(r, n);
        bool sooner =
            rank == 3 && rank == best_rank && r->item[n].ready < r->item[r->ready[best]].ready;
        if (rank < best_rank || sooner) {
            best = i;
            best_rank = rank;
        }
    }
    return best;
}

/* Keeps the list in the order of the region. */
static void make_ready(struct region *r, u32 n)
{
    u32 at = r->ready_count++;

    for (; at && r->ready[at - 1] > n; at--)
        r->ready[at] = r->ready[at - 1];
    r->ready[at] = n;
}

static void place(struct region *r, u32 n)
{
    const struct rinstr *instr = &r->instr[n];
    u32 start = max_u32(r->now, load_kind(instr) ? 0 : r->item[n].ready);
    i32 more[2];

    account(r, n, true, more);
    for (u32 class = 0; class < 2; class ++)
        r->live[class] = (u32)((i32)r->live[class] + more[class]);
    r->now = start + (row_of(instr)->flags & R_WMMA ? WMMA_CYCLES : 1);
    for (u32 e = r->item[n].succ; e; e = r->edge[e].next) {
        struct item *to = &r->item[r->edge[e].to];
        to->ready = max_u32(to->ready, start + latency_of(instr));
        if (--to->waits == 0)
            make_ready(r, r->edge[e].to);
    }
}

static void schedule(struct region *r)
{
    r->ready_count = r->now = 0;
    for (u32 n = 0; n < r->count; n++)
        if (!r->item[n].waits)
            r->ready[r->ready_count++] = n;
    for (u32 placed = 0; placed < r->count; placed++) {
        CHECK(r->ready_count > 0);
        u32 at = choose(r), n = r->ready[at];
        r->ready_count--;
        memmove(r->ready + at, r->ready + at + 1, (r->ready_count - at) * sizeof(u32));
        r->out[placed] = r->instr[n];
        place(r, n);
    }
    memcpy(r->instr, r->out, r->count * sizeof(*r->instr));
}

/* ---- the list ---- */

static void run_region(struct region *r, u32 start, u32 end)
{
    static const u32 steps[] = {96, 128, 192}; /* 16, 12, 8 waves of a SIMD */
    u32 vgprs = VGPRS_MAX;

    r->instr = r->code->instr + start;
    r->count = end - start;
    if (r->count < 3)
        return;
    memset(r->item, 0, r->count * sizeof(*r->item));
    r->full = false;
    find_dependences(r);
    find_uses(r);
    for (u32 i = r->matrix ? 0 : ARRAY_LEN(steps); i-- > 0;)
        vgprs = r->live[LIR_VECTOR] + steps[0] / 3 <= steps[i] ? steps[i] : vgprs;
    r->live_max[LIR_VECTOR] = vgprs;
    if (!r->full)
        schedule(r);
}

static void find_spans(struct region *r, u16 *first)
{
    for (u32 t = 0; t < r->code->vreg_count; t++) {
        u32 width = width_of(r, t);
        r->span[t] = (struct span){UINT32_MAX, 0};
        for (u32 i = 0; i < width; i++)
            first[t + i] = (u16)t;
        t += width - 1;
    }
    for (u32 i = 0; i < r->code->count; i++) {
        if (r->code->instr[i].row < RDNA_PSEUDOS)
            continue;
        struct tuples tuples = tuples_of(r, &r->code->instr[i]);
        for (u32 k = 0; k < tuples.count; k++) {
            struct span *span = &r->span[tuples.v[k]];
            span->from = min_u32(span->from, i);
            span->to = i;
        }
    }
}

static err prepare(struct region *r, struct arena *arena)
{
    u32 count = r->code->count + 1, vregs = r->code->vreg_count + 1;
    u16 *first = arena_new(arena, u16, vregs);

    r->codes = RDNA_VIRTUAL + vregs + SPECIALS;
    r->edges_max = count * 32;
    r->item = arena_new(arena, struct item, count);
    r->edge = arena_new(arena, struct edge, r->edges_max);
    r->writer = arena_new(arena, u32, r->codes);
    r->readers = arena_new(arena, u32, r->codes);
    r->use = arena_new(arena, struct use, vregs);
    r->span = arena_new(arena, struct span, vregs);
    r->out = arena_new(arena, struct rinstr, count);
    r->ready = arena_new(arena, u32, count);
    if (!first || !r->item || !r->edge || !r->writer || !r->readers || !r->use || !r->span ||
        !r->out || !r->ready)
        return E_NOMEM;
    r->first = first;
    find_spans(r, first);
    return OK;
}

err rdna_schedule(struct rcode *code, const u8 *tuple, u32 sgprs, struct arena *arena)
{
    struct region r = {.code = code, .tuple = tuple, .live_max = {[LIR_SCALAR] = sgprs}};
    u32 start = 0;

    TRY(prepare(&r, arena));
    for (u32 i = 0; i < code->count; i++)
        r.matrix |= row_of(&code->instr[i])->flags & R_WMMA;
    for (u32 i = 0; i < code->count; i++)
        if (is_boundary(&code->instr[i])) {
            run_region(&r, start, i);
            start = i + 1;
        }
    run_region(&r, start, code->count);
    return OK;
}
