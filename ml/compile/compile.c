/*
 * compile.c: all passes in order, and the program they end in. Kernels with the same LIR share
 * their code: only the argument lists of their launches differ.
 */
#include "ml/compile/priv.h"

#define CODE_BYTES_MAX (8 * MIB)
#define CODE_ALIGN     256u /* a card's launch names code by so many bytes */
/* Of a group's own memory. Partial results of its waves lie behind what the schedule puts there. */
#define GROUP_BYTES_MAX (64 * KIB)
#define ARG_SYMBOL      0x80000000u

struct target target_of(const struct cpu_features *cpu, u32 cores)
{
    struct target t = {.isa = cpu->translated ? ISA_AVX2_WORDS : ISA_AVX2,
                       .lanes = 8,
                       .vector_regs = 16,
                       .cores = cores,
                       .scratch_bytes = MIB};

    if (!cpu->avx512)
        return t;
    t.isa = ISA_AVX512;
    t.lanes = 16;
    t.vector_regs = 32;
    t.vnni = cpu->avx512_vnni;
    return t;
}

struct target target_gfx11(u32 cu_count)
{
    return (struct target){.isa = ISA_GFX11,
                           .lanes = 32,
                           .vector_regs = 256,
                           .vnni = true,
                           .cores = cu_count,
                           .waves = 8,
                           .tile = 32,
                           .scratch_bytes = 44 * KIB};
}

/* Code that stands for all kernels of its signature: arg[i] says which place of the signature is
 * argument i, or names a symbol's entry of the global table. */
struct kernel_code {
    u64 hash[2];
    u32 offset;
    u32 arg[KERNEL_ARGS_MAX];
    u32 arg_count;
    u32 waves, group_bytes;
    struct launch_resources resources; /* targets with groups */
};

struct build {
    const struct graph *graph;
    const struct target *target;
    const struct compile_options *options;
    struct schedule schedule;
    struct arena *arena;
    struct program *program;
    struct kernel_code *known;
    struct signature_notes notes;
    struct emit *emit;
};

static void look(const struct build *b, char pass, void *made)
{
    if (b->options->look)
        b->options->look(b->options, pass, b->graph, made);
}

static err emit_code(const struct build *b, const struct lir *lir, struct code_out *out,
                     struct launch_resources *resources)
{
    if (b->target->isa == ISA_GFX11)
        return rdna_emit(lir, b->arena, out, resources);
    return x86_emit(lir, b->target, b->arena, out);
}

/* Lowers and emits a kernel that is new. */
static err new_code(struct build *b, const struct kernel *k, const struct signature *sig,
                    struct kernel_code *code)
{
    struct program *p = b->program;
    struct code_out out = {
        .bytes = p->code, .len = round_up(p->code_bytes, CODE_ALIGN), .cap = CODE_BYTES_MAX};
    struct lowered *low = arena_take(b->arena, sizeof *low, _Alignof(struct lowered));

    if (!low)
        return E_NOMEM;
    TRY(lower_kernel(b->emit, k, b->arena, low));
    if (b->target->waves && low->group_bytes > GROUP_BYTES_MAX)
        return E_LIMIT;
    look(b, 'L', &low->lir);
    look(b, 'A', &out);
    code->hash[0] = sig->hash[0];
    code->hash[1] = sig->hash[1];
    code->offset = (u32)out.len;
    TRY(emit_code(b, &low->lir, &out, &code->resources));
    code->waves = low->waves;
    code->group_bytes = low->group_bytes;
    p->code_bytes = out.len;
    code->arg_count = low->arg_count;
    for (u32 i = 0; i < low->arg_count; i++) {
        u32 at = 0;
        while (at < sig->place_count && sig->place[at] != low->arg[i])
            at++;
        bool symbol = low->arg[i] >= b->graph->external_count + b->schedule.buffer_count;
        CHECK(symbol || at < sig->place_count);
        code->arg[i] = symbol ? low->arg[i] | ARG_SYMBOL : at;
    }
    return OK;
}

static err build_launch(struct build *b, u32 index)
{
    const struct kernel *k = &b->schedule.kernel[index];
    const struct stage *first = &b->schedule.stage[k->stage_first];
    const struct node *space = stage_space(b->graph, first);
    struct program *p = b->program;
    struct launch *l = &p->launch[index];
    struct signature sig;
    usize mark = arena_mark(b->arena);
    u32 known = 0;

    schedule_open(&b->schedule, k);
    kernel_signature(b->graph, &b->schedule, k, &b->notes, &sig);
    if (!sig.complete)
        return E_LIMIT;
    while (known < p->kernel_count &&
           (b->known[known].hash[0] != sig.hash[0] || b->known[known].hash[1] != sig.hash[1]))
        known++;
    if (known == p->kernel_count) {
        TRY(new_code(b, k, &sig, &b->known[known]));
        p->kernel_count++;
    }
    const struct kernel_code *code = &b->known[known];
    l->code_offset = code->offset;
    l->waves = code->waves;
    l->group_bytes = code->group_bytes;
    memcpy(l->rsrc, code->resources.rsrc, sizeof l->rsrc);
    l->node = b->schedule.stage[k->stage_first + k->stage_count - 1].node;
    l->barrier = k->barrier;
    l->grid_rank = k->lead + 1u;
    for (u32 a = 0; a < k->lead; a++) {
        l->grid[a] = space->shape[a];
        l->grid_divisor[a] = first->block[a];
    }
    l->grid[k->lead] = dim_of(k->tiles);
    l->grid_divisor[k->lead] = 1;
    l->arg_first = p->arg_count;
    l->arg_count = code->arg_count;
    for (u32 i = 0; i < code->arg_count; i++)
        p->arg[p->arg_count++] =
            code->arg[i] & ARG_SYMBOL ? code->arg[i] & ~ARG_SYMBOL : sig.place[code->arg[i]];
    p->scratch_bytes = max_u32(p->scratch_bytes, k->scratch_bytes);
    arena_reset(b->arena, mark);
    return OK;
}

static err build_launches(struct build *b, u32 count)
{
    struct program *p = b->program;

    for (u32 end = p->launch_count + count; p->launch_count < end; p->launch_count++) {
        const struct kernel *k = &b->schedule.kernel[p->launch_count];
        u32 node = b->schedule.stage[k->stage_first].node;
        err e = build_launch(b, p->launch_count);
        if (e != OK) {
            text_fmt(b->options->why, "kernel %u (node %u, %s): %s", p->launch_count, node,
                     op_row[b->graph->node[node].op].name, err_text(e));
            return e;
        }
    }
    return OK;
}

/* The next launches that wait for nothing between them. */
static err build_dispatch(struct build *b)
{
    struct program *p = b->program;
    u32 count = dispatch_launches(&b->schedule, p->launch_count);

    dispatch_open(p, p->launch_count, count);
    TRY(build_launches(b, count));
    struct code_out out = {
        .bytes = p->code, .len = round_up(p->code_bytes, CODE_ALIGN), .cap = CODE_BYTES_MAX};
    usize from = out.len;
    TRY(dispatch_close(p, b->arena, &out));
    p->code_bytes = out.len > from ? out.len : p->code_bytes;
    return OK;
}

static void build_outputs(struct build *b)
{
    struct program *p = b->program;

    p->output_count = b->graph->output_count;
    for (u32 i = 0; i < p->output_count; i++)
        p->output_arg[i] = node_place(b->graph, &b->schedule, b->graph->output[i]);
}

static err build_program(struct build *b)
{
    struct program *p = b->program;
    u32 kernels = b->schedule.kernel_count;

    p->launch = arena_new(b->arena, struct launch, kernels + 1);
    p->dispatch = arena_new(b->arena, struct dispatch, kernels + 1);
    p->arg = arena_new(b->arena, u32, (usize)kernels * (KERNEL_ARGS_MAX + 1) + 1);
    b->known = arena_new(b->arena, struct kernel_code, kernels + 1);
    b->notes.seen = arena_new(b->arena, u32, b->graph->node_count);
    p->code = arena_take(b->arena, CODE_BYTES_MAX, 64);
    if (!p->launch || !p->dispatch || !p->arg || !b->known || !b->notes.seen || !p->code)
        return E_NOMEM;
    p->buffer = b->schedule.buffer;
    p->buffer_count = b->schedule.buffer_count;
    p->workspace_bytes = b->schedule.workspace_bytes;
    p->external_count = b->graph->external_count;
    p->sym_count = b->graph->sym_count;
    memcpy(p->sym, b->graph->sym, sizeof p->sym);
    build_outputs(b);
    TRY(lower_open(b->graph, &b->schedule, b->target, b->arena, &b->emit));
    while (p->launch_count < kernels)
        TRY(b->target->waves ? build_dispatch(b) : build_launches(b, kernels));
    return OK;
}

err compile(struct graph *graph, const struct compile_options *options, struct arena *arena,
            struct program *program)
{
    struct build b = {

        .graph = graph,
        .target = options->target,
        .options = options,
        .arena = arena,
        .program = program};

    *program = (struct program){};
    look(&b, 'G', NULL);
    err e = graph_rewrite(graph, options);
    if (e != OK) {
        text_fmt(options->why, "graph: %s", graph->why[0] ? graph->why : err_text(e));
        return e;
    }
    look(&b, 'R', NULL);
    e = schedule_build(graph, b.target, arena, &b.schedule);
    if (e != OK) {
        text_fmt(options->why, "schedule: %s", err_text(e));
        return e;
    }
    look(&b, 'S', &b.schedule);
    return build_program(&b);
}
