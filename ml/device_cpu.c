/*
 * device_cpu.c: the CPU cores as a device. A run is cut into phases at the program's barriers, a
 * phase into chunks of items. One atomic word says which chunk of which phase comes next; whoever
 * finishes the last chunk of a phase opens the next. Knows programs, not graphs; the platform's
 * workers call in through device_work.
 */
#include "ml/device_priv.h"

static const struct device_ops cpu_ops;

#define CHUNKS_PER_CORE 8u
#define CHUNK_ITEMS_MAX 64u
#define PHASE_IDLE      UINT32_MAX

struct phase {
    u32 launch, chunks; /* the first launch; chunks of all of them in this run */
};

struct cpu_loaded {
    struct loaded base;
    u8 *code, *scratch;
    usize scratch_stride; /* a worker's */
    u32 *chunk_items;     /* per launch */
    struct phase *phase;
    u32 phase_count;
};

struct cpu {
    struct device base;
    u32 threads;
    struct cpu_loaded *run; /* or, when it is NULL: */
    device_work_fn work;
    void *work_ctx;
    const struct phase *phase; /* of the program, or the only one of work: a chunk per item */
    u32 phase_count;
    struct phase work_phase;
    _Alignas(64) u64 ticket; /* phase << 32 | next chunk */
    _Alignas(64) u32 done;   /* finished chunks of the phase */
    _Alignas(64) u32 running;
};

/* ---- running: any core ---- */

/* Takes the next chunk of the open phase; false when all are taken. */
static bool draw(struct cpu *d, u32 *phase, u32 *chunk)
{
    u64 ticket = __atomic_load_n(&d->ticket, __ATOMIC_ACQUIRE);

    for (;;) {
        *phase = (u32)(ticket >> 32);
        *chunk = (u32)ticket;
        if (*phase == PHASE_IDLE || *chunk >= d->phase[*phase].chunks)
            return false;
        if (__atomic_compare_exchange_n(&d->ticket, &ticket, ticket + 1, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return true;
    }
}

static void open_phase(struct cpu *d, u32 phase)
{
    while (phase < d->phase_count && d->phase[phase].chunks == 0)
        phase++;
    d->done = 0;
    bool over = phase == d->phase_count;
    __atomic_store_n(&d->ticket, (u64)(over ? PHASE_IDLE : phase) << 32, __ATOMIC_RELEASE);
    if (over)
        __atomic_store_n(&d->running, 0, __ATOMIC_RELEASE);
}

static void run_launch_chunk(struct cpu *d, u32 phase, u32 chunk, u32 worker)
{
    const struct cpu_loaded *r = d->run;
    u32 l = r->phase[phase].launch;

    for (u32 chunks; chunk >= (chunks = (u32)div_up(r->base.items[l], r->chunk_items[l])); l++)
        chunk -= chunks;
    const struct launch *launch = &r->base.program.launch[l];
    u64 begin = (u64)chunk * r->chunk_items[l];
    u64 end = min_u64(begin + r->chunk_items[l], r->base.items[l]);
    kernel_entry entry = (kernel_entry)(uintptr_t)(r->code + launch->code_offset);
    entry(r->base.args + launch->arg_first, begin, end, r->scratch + worker * r->scratch_stride);
}

static bool run_chunk(struct cpu *d, u32 worker)
{
    u32 phase, chunk;

    if (!draw(d, &phase, &chunk))
        return false;
    u32 chunks = d->phase[phase].chunks;
    if (d->run)
        run_launch_chunk(d, phase, chunk, worker);
    else
        d->work(d->work_ctx, chunk, worker);
    if (__atomic_add_fetch(&d->done, 1, __ATOMIC_ACQ_REL) == chunks)
        open_phase(d, phase + 1);
    return true;
}

/* Between phases of a run a worker stays awake: the next one opens within microseconds. */
static bool device_work(void *ctx, u32 worker)
{
    struct cpu *d = ctx;

    if (worker >= d->threads)
        return false;
    if (run_chunk(d, worker))
        return true;
    cpu_relax();
    return __atomic_load_n(&d->running, __ATOMIC_ACQUIRE);
}

/* ---- the caller's side ---- */

static void begin(struct cpu *d, struct cpu_loaded *run, const struct phase *phase, u32 phase_count)
{
    d->run = run;
    d->phase = phase;
    d->phase_count = phase_count;
    d->running = 1;
    open_phase(d, 0);
    if (d->threads > 1)
        workers_wake();
}

static void cpu_start(struct device *device, struct loaded *loaded)
{
    struct cpu *d = (struct cpu *)device;
    struct cpu_loaded *r = (struct cpu_loaded *)loaded;
    const struct program *p = &loaded->program;
    u32 phase = 0;

    CHECK(!__atomic_load_n(&d->running, __ATOMIC_ACQUIRE));
    for (u32 l = 0; l < p->launch_count; l++) {
        phase += l > 0 && p->launch[l].barrier;
        if (l == r->phase[phase].launch)
            r->phase[phase].chunks = 0;
        u64 items = loaded->items[l];
        u64 share = min_u64(CHUNK_ITEMS_MAX, items / (d->threads * CHUNKS_PER_CORE));
        r->chunk_items[l] = (u32)max_u64(1, share);
        r->phase[phase].chunks += (u32)div_up(items, r->chunk_items[l]);
    }
    begin(d, r, r->phase, r->phase_count);
}

void device_start_work(struct device *device, device_work_fn work, void *ctx, u32 items)
{
    struct cpu *d = (struct cpu *)device;

    CHECK(device->ops == &cpu_ops);
    CHECK(!__atomic_load_n(&d->running, __ATOMIC_ACQUIRE));
    d->work = work;
    d->work_ctx = ctx;
    d->work_phase.chunks = items;
    begin(d, NULL, &d->work_phase, 1);
}

static err cpu_advance(struct device *device, u64 deadline_ns)
{
    struct cpu *d = (struct cpu *)device;

    for (;;) {
        if (!__atomic_load_n(&d->running, __ATOMIC_ACQUIRE))
            return OK;
        if (!run_chunk(d, 0))
            cpu_relax();
        if (time_ns() >= deadline_ns)
            return __atomic_load_n(&d->running, __ATOMIC_ACQUIRE) ? E_BUSY : OK;
    }
}

/* ---- loading ---- */

err device_open(struct device **out, u32 threads)
{
    struct cpu *d = pages_alloc(sizeof *d);

    if (!d)
        return E_NOMEM;
    d->base.ops = &cpu_ops;
    d->threads = min_u32(threads ? threads : UINT_MAX, workers_count() + 1);
    d->ticket = (u64)PHASE_IDLE << 32;
    if (d->threads > 1)
        workers_start(device_work, d);
    *out = &d->base;
    return OK;
}

static struct target cpu_target(struct device *device)
{
    return target_of(cpu_features(), ((struct cpu *)device)->threads);
}

static u64 cpu_bytes_free(struct device *device)
{
    (void)device;
    return pages_available();
}

/* The program with its tables, workspace and scratch in pages of its own; NULL: there are none. */
static struct cpu_loaded *carve(struct cpu *d, const struct program *p)
{
    usize stride = round_up(p->scratch_bytes + 64, 4 * KIB);
    usize bytes = round_up(sizeof(struct cpu_loaded) + loaded_bytes(p) + p->workspace_bytes +
                               (p->launch_count + 1) * (sizeof(struct phase) + 4ull) +
                               stride * d->threads + 12 * KIB,
                           4 * KIB);
    void *pages = pages_alloc(bytes);
    struct arena arena = arena_on("program", pages, bytes);

    if (!pages)
        return NULL;
    struct cpu_loaded *r = arena_new(&arena, struct cpu_loaded, 1);
    loaded_init(&r->base, &d->base, p, &arena);
    r->scratch_stride = stride;
    r->chunk_items = arena_new(&arena, u32, p->launch_count);
    r->phase = arena_new(&arena, struct phase, p->launch_count + 1);
    r->scratch = arena_take(&arena, stride * d->threads, 4 * KIB);
    u8 *workspace = arena_take(&arena, p->workspace_bytes, 4 * KIB);
    CHECK(workspace);
    for (u32 i = 0; i < p->buffer_count; i++) {
        r->base.cpu[p->external_count + i] = workspace + p->buffer[i].offset;
        r->base.table[p->external_count + i] = (u64)(uintptr_t)(workspace + p->buffer[i].offset);
    }
    for (u32 l = 0; l < p->launch_count; l++)
        if (l == 0 || p->launch[l].barrier)
            r->phase[r->phase_count++].launch = l;
    return r;
}

static err cpu_load(struct device *d, const struct program *program, struct loaded **out)
{
    struct cpu_loaded *r = carve((struct cpu *)d, program);
    usize code_bytes = round_up(max_u64(program->code_bytes, 1), 4 * KIB);
    u8 *code = code_alloc(code_bytes);

    *out = &r->base;
    if (!r || !code)
        return E_NOMEM;
    r->code = memcpy(code, program->code, program->code_bytes);
    return code_seal(code, code_bytes);
}

/* All is written before it is read. Vector loads may read a little beyond the last element. */
static err cpu_alloc(struct loaded *r, u32 external, u64 bytes, bool input)
{
    (void)input;
    r->cpu[external] = pages_take(round_up(bytes + 64, 4 * KIB));
    r->table[external] = (u64)(uintptr_t)r->cpu[external];
    return r->cpu[external] ? OK : E_NOMEM;
}

static u64 cpu_window_bytes(struct device *device, u64 least)
{
    (void)device;
    (void)least;
    return PTRDIFF_MAX;
}

static u8 *cpu_window(struct loaded *r, u32 external, u64 offset, u64 bytes)
{
    (void)bytes;
    return r->cpu[external] + offset;
}

static err cpu_zero(struct loaded *r, u32 external, u64 offset, u64 bytes)
{
    memset(r->cpu[external] + offset, 0, bytes);
    return OK;
}

static err cpu_zero_scratch(struct loaded *loaded)
{
    struct cpu_loaded *r = (struct cpu_loaded *)loaded;

    memset(r->scratch, 0, r->scratch_stride * ((struct cpu *)loaded->device)->threads);
    return OK;
}

static const struct device_ops cpu_ops = {
    .target = cpu_target,
    .bytes_free = cpu_bytes_free,
    .load = cpu_load,
    .alloc = cpu_alloc,
    .window_bytes = cpu_window_bytes,
    .window = cpu_window,
    .zero = cpu_zero,
    .zero_scratch = cpu_zero_scratch,
    .start = cpu_start,
    .advance = cpu_advance,
};
