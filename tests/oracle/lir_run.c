/*
 * lir_run.c: a graph on a target with groups, without a machine: what lowering made of each kernel
 * is run by lir_eval.c, group by group. So lowering is judged apart from the back end.
 */
#include <stdlib.h>

#include "tests/oracle/lir_eval.h"
#include "tests/oracle/listing.h"

#define SLACK_BYTES 256u

struct run {
    const struct lir_run *job;
    struct schedule schedule;
    struct emit *emit;
    struct lir_shadow *shadow;
    u64 *entry; /* the global table */
};

static err make_table(struct run *run)
{
    const struct graph *g = run->job->graph;
    const struct schedule *s = &run->schedule;
    u8 *workspace = arena_take(run->job->arena, s->workspace_bytes + SLACK_BYTES, 64);
    u32 count = g->external_count + s->buffer_count + g->sym_count;

    run->entry = arena_new(run->job->arena, u64, count + 1);
    if (!workspace || !run->entry)
        return E_NOMEM;
    memset(workspace, 0xa5, s->workspace_bytes);
    for (u32 i = 0; i < count; i++) {
        u32 buffer = i - g->external_count, sym = buffer - s->buffer_count;
        run->entry[i] = i < g->external_count      ? (u64)run->job->data[i]
                        : buffer < s->buffer_count ? (u64)workspace + s->buffer[buffer].offset
                                                   : run->job->sym_value[sym];
    }
    return OK;
}

static u64 item_count(const struct run *run, const struct kernel *k)
{
    const struct graph *g = run->job->graph;
    const struct stage *first = &run->schedule.stage[k->stage_first];
    const struct node *space = stage_space(g, first);
    u64 items = k->tiles;

    for (u32 a = 0; a < k->lead; a++)
        items *= div_up(dim_value(g, space->shape[a], run->job->sym_value), first->block[a]);
    return items;
}

/* Every second kernel backwards: no item may wait for another. */
static err run_kernel(struct run *run, u32 number)
{
    const struct compile_options *options = run->job->options;
    const struct kernel *k = &run->schedule.kernel[number];
    usize mark = arena_mark(run->job->arena);
    struct lowered *low = arena_take(run->job->arena, sizeof *low, 64);
    u64 args[KERNEL_ARGS_MAX], items = item_count(run, k);

    if (!low)
        return E_NOMEM;
    schedule_open(&run->schedule, k);
    TRY(lower_kernel(run->emit, k, run->job->arena, low));
    if (options->look)
        options->look(options, 'L', run->job->graph, &low->lir);
    TRY(lir_check(&low->lir, options->why));
    for (u32 i = 0; i < low->arg_count; i++)
        args[i] = run->entry[low->arg[i]];
    if (k->barrier)
        lir_shadow_phase(run->shadow);
    for (u64 i = 0; i < items; i++) {
        struct lir_group group = {.lir = &low->lir,
                                  .args = args,
                                  .item = number % 2 ? items - 1 - i : i,
                                  .waves = low->waves,
                                  .group_bytes = low->group_bytes,
                                  .shadow = run->shadow};
        TRY(lir_eval_group(&group, options->why));
    }
    arena_reset(run->job->arena, mark);
    return OK;
}

err lir_run(const struct lir_run *job)
{
    struct run run = {.job = job, .shadow = lir_shadow_open()};
    const struct graph *g = job->graph;

    TRY(graph_rewrite(job->graph, job->options));
    TRY(schedule_build(g, job->options->target, job->arena, &run.schedule));
    if (job->options->look)
        job->options->look(job->options, 'S', g, &run.schedule);
    TRY(make_table(&run));
    TRY(lower_open(g, &run.schedule, job->options->target, job->arena, &run.emit));
    for (u32 i = 0; i < run.schedule.kernel_count; i++) {
        err e = run_kernel(&run, i);
        if (e != OK) {
            text_fmt(job->options->why, " kernel %u: %s", i, err_text(e));
            return e;
        }
    }
    for (u32 i = 0; i < g->output_count; i++)
        job->output[i] = (void *)run.entry[node_place(g, &run.schedule, g->output[i])];
    lir_shadow_close(run.shadow);
    return OK;
}
