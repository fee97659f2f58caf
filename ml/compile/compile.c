/*
 * compile.c: all passes in order, and the program they end in. Kernels with the same LIR share their code: only the
 * argument lists of their launches differ.
 */
#include "ml/compile/priv.h"

#define CODE_BYTES_MAX (8 * MIB)

struct target target_of(const struct cpu_features *cpu, u32 cores)
{
    if (cpu->avx512)
        return (struct target){ISA_AVX512, 16, 32, cpu->avx512_vnni, cores};
    return (struct target){ISA_AVX2, 8, 16, false, cores};
}

struct kernel_code { u64 hash[2]; u32 offset; };

struct build {
    const struct graph *graph;
    const struct target *target;
    const struct compile_options *options;
    struct schedule schedule;
    struct arena *arena;
    struct program *program;
    struct kernel_code *known;
    struct emit *emit;
};

static bool dumps(const struct compile_options *options, char pass)
{
    for (const char *c = options->dump ? options->dump_passes : ""; c && *c; c++)
        if (*c == pass)
            return true;
    return false;
}

/* Two independent 64-bit hashes of the instructions stand for them. By field: padding may hold anything. */
static void lir_hash(const struct lir *lir, u64 hash[2])
{
    u64 a = lir->count, b = ~a;

    for (u32 n = 0; n < lir->count; n++) {
        const struct lir_instr *i = &lir->instr[n];
        const u64 word[] = {(u64)i->op << 24 | (u64)i->lanes << 16 | (u64)i->mem_type << 8 | i->aux,
                            (u64)i->dst << 48 | (u64)i->a << 32 | (u64)i->b << 16 | i->c, (u64)i->imm,
                            (u64)i->mem.base << 48 | (u64)i->mem.index << 32 | (u32)i->mem.disp, i->mem.scale};
        for (u32 k = 0; k < ARRAY_LEN(word); k++) {
            a = (a ^ word[k]) * 0x9e3779b97f4a7c15ull;
            a ^= a >> 32;
            b = (b + word[k]) * 0xc2b2ae3d27d4eb4full;
            b ^= b >> 29;
        }
    }
    hash[0] = a;
    hash[1] = b;
}

/* Finds or emits the code of a lowered kernel. */
static err kernel_code(struct build *b, struct lowered *low, u32 *offset)
{
    struct program *p = b->program;
    struct code_out out = {.bytes = p->code, .len = p->code_bytes, .cap = CODE_BYTES_MAX};
    u64 hash[2];

    lir_hash(&low->lir, hash);
    for (u32 i = 0; i < p->kernel_count; i++)
        if (b->known[i].hash[0] == hash[0] && b->known[i].hash[1] == hash[1]) {
            *offset = b->known[i].offset;
            return OK;
        }
    if (dumps(b->options, 'L')) {
        text_fmt(b->options->dump, "kernel code %u\n", p->kernel_count);
        lir_print(&low->lir, b->options->dump);
    }
    if (dumps(b->options, 'A'))
        out.listing = b->options->dump;
    out.len = round_up(out.len, 64);
    if (out.len > out.cap)
        return E_LIMIT;
    *offset = (u32)out.len;
    TRY(x86_emit(&low->lir, b->target, b->arena, &out));
    p->code_bytes = out.len;
    b->known[p->kernel_count++] = (struct kernel_code){{hash[0], hash[1]}, *offset};
    return OK;
}

static err build_launch(struct build *b, u32 index)
{
    const struct kernel *k = &b->schedule.kernel[index];
    const struct node *space = stage_space(b->graph, &b->schedule.stage[k->stage_first]);
    struct program *p = b->program;
    struct launch *l = &p->launch[index];
    usize mark = arena_mark(b->arena);
    struct lowered *low = arena_take(b->arena, sizeof *low, _Alignof(struct lowered));

    if (!low)
        return E_NOMEM;
    TRY(lower_kernel(b->emit, k, b->arena, low));
    TRY(lir_hoist(&low->lir, b->arena));
    TRY(kernel_code(b, low, &l->code_offset));
    l->node = b->schedule.stage[k->stage_first + k->stage_count - 1].node;
    l->barrier = k->barrier;
    l->grid_rank = k->grid_rank;
    for (u32 a = 0; a < k->grid_rank; a++) {
        l->grid[a] = space->shape[a];
        l->grid_divisor[a] = k->divisor[a];
    }
    l->arg_first = p->arg_count;
    l->arg_count = low->arg_count;
    memcpy(p->arg + p->arg_count, low->arg, low->arg_count * sizeof *low->arg);
    p->arg_count += low->arg_count;
    p->scratch_bytes = max_u32(p->scratch_bytes, k->scratch_bytes);
    arena_reset(b->arena, mark);
    return OK;
}

static void build_outputs(struct build *b)
{
    struct program *p = b->program;

    p->output_count = b->graph->output_count;
    for (u32 i = 0; i < p->output_count; i++)
        p->output_arg[i] = node_place(b->graph, &b->schedule, b->graph->output[i]);
}

static err build_program(struct build *b, struct text *why)
{
    struct program *p = b->program;
    u32 kernels = b->schedule.kernel_count;

    p->launch = arena_new(b->arena, struct launch, kernels + 1);
    p->arg = arena_new(b->arena, u32, (usize)kernels * KERNEL_ARGS_MAX + 1);
    b->known = arena_new(b->arena, struct kernel_code, kernels + 1);
    p->code = arena_take(b->arena, CODE_BYTES_MAX, 64);
    if (!p->launch || !p->arg || !b->known || !p->code)
        return E_NOMEM;
    TRY(lower_open(b->graph, &b->schedule, b->target, b->arena, &b->emit));
    for (u32 i = 0; i < kernels; i++) {
        err e = build_launch(b, i);
        if (e != OK) {
            text_fmt(why, "kernel %u (node %u, %s): %s", i, b->schedule.stage[b->schedule.kernel[i].stage_first].node,
                     op_row[b->graph->node[b->schedule.stage[b->schedule.kernel[i].stage_first].node].op].name,
                     err_text(e));
            return e;
        }
        p->launch_count++;
    }
    p->buffer = b->schedule.buffer;
    p->buffer_count = b->schedule.buffer_count;
    p->workspace_bytes = b->schedule.workspace_bytes;
    p->external_count = b->graph->external_count;
    p->sym_count = b->graph->sym_count;
    memcpy(p->sym, b->graph->sym, sizeof p->sym);
    build_outputs(b);
    return OK;
}

err compile(struct graph *graph, const struct target *target, const struct compile_options *options, struct arena *arena,
            struct program *program, struct text *why)
{
    struct build b = {.graph = graph, .target = target, .options = options, .arena = arena, .program = program};

    *program = (struct program){};
    if (dumps(options, 'G'))
        graph_print(graph, options->dump);
    err e = graph_rewrite(graph, options);
    if (e == OK)
        e = graph_check(graph);
    if (e != OK) {
        text_fmt(why, "graph: %s", graph->why[0] ? graph->why : err_text(e));
        return e;
    }
    if (dumps(options, 'R'))
        graph_print(graph, options->dump);
    e = schedule_build(graph, target, arena, &b.schedule);
    if (e != OK) {
        text_fmt(why, "schedule: %s", err_text(e));
        return e;
    }
    if (dumps(options, 'S'))
        schedule_print(graph, &b.schedule, options->dump);
    return build_program(&b, why);
}
