/*
 * place.c: where results live and what must wait. Barriers split the kernels into phases; kernels
 * of one phase run side by side. Two buffers share workspace bytes only when no phase needs both.
 */
#include "ml/compile/priv.h"

/* The external behind a chain of SCATTERs. */
static u32 state_of(const struct graph *g, u32 node)
{
    while (g->node[node].op == OP_SCATTER)
        node = g->node[node].src[0];
    CHECK(g->node[node].op == OP_STATE);
    return g->node[node].source.external;
}

u32 node_place(const struct graph *graph, const struct schedule *schedule, u32 node)
{
    if (op_is_source(graph->node[node].op))
        return graph->node[node].source.external;
    return schedule->stage[schedule->stage_of[node]].place;
}

static void assign_places(const struct graph *g, struct schedule *s)
{
    for (u32 i = 0; i < s->stage_count; i++) {
        struct stage *stage = &s->stage[i];
        if (stage->local)
            continue;
        if (stage->kind == STAGE_SCATTER) {
            stage->place = state_of(g, stage->node);
            continue;
        }
        stage->place = g->external_count + s->buffer_count;
        s->buffer[s->buffer_count++] =
            (struct program_buffer){.bytes = round_up(max_u64(stage->bytes, 64), 64)};
    }
}

struct access {
    u32 read_phase, write_phase; /* 1 + last phase that did, 0: never */
    u32 first, last;             /* phases in which a buffer is alive */
};

struct phases {
    struct access *access; /* by place */
    u32 phase;
};

/* One stage's accesses in the phase; returns whether they would collide with another kernel of the
 * same phase. */
static bool touch(const struct graph *g, const struct schedule *s, const struct stage *stage,
                  struct phases *phases, bool commit)
{
    struct access *access = phases->access;
    u32 phase = phases->phase;
    const struct leaf *leaf = stage->leaf;
    bool collides = false;

    for (u32 i = 0; i < stage->leaf_count; i++) {
        u32 writer = s->stage_of[leaf[i].node];
        if (!op_is_source(g->node[leaf[i].node].op) && s->stage[writer].kernel == stage->kernel &&
            s->stage[writer].kind != STAGE_SCATTER)
            continue;
        if (!op_is_source(g->node[leaf[i].node].op) && s->stage[writer].local)
            continue;
        struct access *a = &access[node_place(g, s, leaf[i].node)];
        collides |= a->write_phase == phase + 1;
        if (commit) {
            a->read_phase = phase + 1;
            a->last = max_u32(a->last, phase);
        }
    }
    if (!stage->local) {
        struct access *a = &access[stage->place];
        collides |= a->write_phase == phase + 1 || a->read_phase == phase + 1;
        if (commit) {
            if (a->write_phase == 0)
                a->first = phase;
            a->write_phase = phase + 1;
            a->last = max_u32(a->last, phase);
        }
    }
    return collides;
}

static void find_phases(const struct graph *g, struct schedule *s, struct access *access)
{
    struct phases phases = {.access = access};

    for (u32 i = 0; i < s->kernel_count; i++) {
        struct kernel *k = &s->kernel[i];
        schedule_open(s, k);
        for (u32 j = 0; j < k->stage_count; j++)
            k->barrier |= touch(g, s, &s->stage[k->stage_first + j], &phases, false);
        phases.phase += k->barrier;
        for (u32 j = 0; j < k->stage_count; j++)
            touch(g, s, &s->stage[k->stage_first + j], &phases, true);
    }
}

/* First fit: the lowest offset that no buffer alive at the same time covers. */
static u64 fit(const struct schedule *s, const struct access *life, const u32 *alive,
               u32 alive_count, u32 b)
{
    u64 offset = 0;
    bool moved = true;

    while (moved) {
        moved = false;
        for (u32 i = 0; i < alive_count; i++) {
            const struct program_buffer *other = &s->buffer[alive[i]];
            if (life[alive[i]].last < life[b].first || life[alive[i]].first > life[b].last)
                continue;
            if (offset < other->offset + other->bytes &&
                other->offset < offset + s->buffer[b].bytes) {
                offset = other->offset + other->bytes;
                moved = true;
            }
        }
    }
    return offset;
}

err schedule_place(const struct graph *graph, struct arena *arena, struct schedule *s)
{
    assign_places(graph, s);
    usize mark = arena_mark(arena);
    struct access *access =
        arena_new(arena, struct access, graph->external_count + s->buffer_count + 1);
    u32 *alive = arena_new(arena, u32, s->buffer_count + 1);
    u32 alive_count = 0;

    if (!access || !alive)
        return E_NOMEM;
    find_phases(graph, s, access);
    struct access *life = access + graph->external_count;
    for (u32 i = 0; i < s->stage_count; i++)
        if (s->stage[i].output && s->stage[i].kind != STAGE_SCATTER)
            life[s->stage[i].place - graph->external_count].last = UINT32_MAX;
    for (u32 i = 0; i < s->kernel_count; i++)
        for (u32 j = 0; j < s->kernel[i].stage_count; j++) {
            const struct stage *stage = &s->stage[s->kernel[i].stage_first + j];
            if (stage->local || stage->kind == STAGE_SCATTER)
                continue;
            u32 b = stage->place - graph->external_count, kept = 0;
            for (u32 k = 0; k < alive_count;
                 k++) /* kernels stand in order of phases: what has ended is forgotten */
                if (life[alive[k]].last >= life[b].first)
                    alive[kept++] = alive[k];
            alive_count = kept;
            s->buffer[b].offset = fit(s, life, alive, alive_count, b);
            alive[alive_count++] = b;
            s->workspace_bytes =
                max_u64(s->workspace_bytes, s->buffer[b].offset + s->buffer[b].bytes);
        }
    arena_reset(arena, mark);
    return OK;
}
