/*
 * signature.c: what a kernel's code depends on, as a hash: the shape of its stages' expressions,
 * with memory places replaced by the order in which they are met. Layers of a model then lower
 * once: equal signatures, equal code, and the places in that order are the launch's arguments.
 */
#include "ml/compile/priv.h"

#define SIGNATURE_STACK_MAX 256u

struct walk {
    const struct graph *graph;
    const struct schedule *schedule;
    u32 *seen; /* per node: stamp << 10 | number in this kernel */
    u32 stamp, number;
    struct signature *out;
    u32 stack[SIGNATURE_STACK_MAX];
    u32 depth;
};

static void mix(struct walk *w, u64 value)
{
    u64 *h = w->out->hash;

    h[0] = (h[0] ^ value) * 0x9e3779b97f4a7c15ull;
    h[0] ^= h[0] >> 32;
    h[1] = (h[1] + value) * 0xc2b2ae3d27d4eb4full;
    h[1] ^= h[1] >> 29;
}

static void mix_place(struct walk *w, u32 place)
{
    struct signature *out = w->out;
    u32 i = 0;

    while (i < out->place_count && out->place[i] != place)
        i++;
    if (i == out->place_count && i < KERNEL_ARGS_MAX)
        out->place[out->place_count++] = place;
    out->complete &= i < KERNEL_ARGS_MAX;
    mix(w, i);
}

static void mix_shape(struct walk *w, const struct node *n)
{
    mix(w, (u64)n->op << 16 | (u64)n->dtype << 8 | n->rank);
    for (u32 d = 0; d < n->rank; d++)
        mix(w, (u32)n->shape[d].v);
}

static void mix_memory(struct walk *w, u32 node)
{
    const struct node *n = &w->graph->node[node];
    u32 stage = w->schedule->stage_of[node];

    mix_shape(w, n);
    if (!op_is_source(n->op)) {
        const struct stage *s = &w->schedule->stage[stage];
        mix(w, (u64)s->kind << 8 | (u64)s->output << 1 | s->local);
        mix(w, n->op == OP_QUANT ? (u32)n->quant.block << 2 | quant_row(w->graph, node).forms : 0);
        if (s->local) {
            mix(w, s->place);
            return;
        }
    } else {
        const struct external *x = &w->graph->external[n->source.external];
        const struct packing *p = &x->packing;
        mix(w, (u64)x->storage << 8 | x->kind);
        mix(w, (u64)p->float_type << 48 | (u64)p->code_bits << 40 | (u64)p->zero << 32 |
                   (u64)p->has_min << 30 | (u64)p->scale_type << 24 | (u64)p->block << 16 |
                   (u64)p->super << 8 | p->tile | (u64)p->granule << 56);
    }
    mix_place(w, node_place(w->graph, w->schedule, node));
}

static void visit(struct walk *w, u32 node, bool root)
{
    const struct node *n = &w->graph->node[node];

    if (w->seen[node] >> 10 == w->stamp) {
        mix(w, w->seen[node] & 1023);
        return;
    }
    w->seen[node] = w->stamp << 10 | (w->number++ & 1023);
    w->out->complete &= w->number < 1024;
    if (op_is_source(n->op) ||
        (!root && w->schedule->stage_of[node] != NO_NODE && n->op != OP_SCALAR)) {
        mix_memory(w, node);
        return;
    }
    mix_shape(w, n);
    for (u32 i = 0; i < RANK_MAX; i++)
        mix(w, n->raw[i]);
    w->out->complete &= w->depth + n->src_count <= SIGNATURE_STACK_MAX;
    for (u32 i = n->src_count; i-- > 0 && w->out->complete;)
        w->stack[w->depth++] = n->src[i];
}

static void walk_from(struct walk *w, u32 node)
{
    w->depth = 0;
    visit(w, node, true);
    while (w->depth > 0)
        visit(w, w->stack[--w->depth], false);
}

void kernel_signature(const struct graph *graph, const struct schedule *schedule,
                      const struct kernel *kernel, struct signature_notes *notes,
                      struct signature *out)
{
    u32 *seen = notes->seen;
    struct walk w = {
        .graph = graph, .schedule = schedule, .seen = seen, .stamp = ++notes->stamp, .out = out};

    out->hash[0] = out->hash[1] = out->place_count = 0;
    out->complete = true;
    mix(&w, (u64)kernel->lead << 32 | kernel->tiles);
    for (u32 i = 0; i < kernel->stage_count; i++) {
        const struct stage *s = &schedule->stage[kernel->stage_first + i];
        mix(&w, (u64)s->kind << 8 | (u64)s->again << 7 | s->len_axis);
        for (u32 a = 0; a < RANK_MAX; a++)
            mix(&w, s->block[a]);
        walk_from(&w, s->node);
        mix(&w, s->heavy == NO_NODE ? UINT32_MAX : seen[s->heavy] & 1023);
        if (s->len_node != NO_NODE)
            walk_from(&w, s->len_node);
        seen[s->node] = 0; /* a later stage reads it as memory */
        mix_memory(&w, s->node);
    }
}
