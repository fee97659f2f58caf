/*
 * device.c: the CPU cores as a device. A run is cut into phases at the program's barriers, a phase
 * into chunks of items. One atomic word says which chunk of which phase comes next; whoever
 * finishes the last chunk of a phase opens the next. Knows programs, not graphs; the platform's
 * workers call in through device_work.
 */
#include "ml/device.h"

#define CHUNKS_PER_CORE 8u
#define CHUNK_ITEMS_MAX 64u
#define PHASE_IDLE      UINT32_MAX

struct phase {
    u32 launch, chunks; /* the first launch; chunks of all of them in this run */
};

struct loaded { /* in one run of pages with its tables and the workspace */
    struct program program;
    u8 *code, *scratch;
    usize scratch_stride; /* a worker's */
    u64 *table;           /* the global table: externals, buffers, symbols */
    u64 *args;            /* per launch, as the kernels read them */
    u64 *items;           /* per launch, of this run */
    u32 *chunk_items;
    struct phase *phase;
    u32 phase_count;
};

struct device {
    u32 threads;
    struct loaded *run; /* or, when it is NULL: */
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
static bool draw(struct device *d, u32 *phase, u32 *chunk)
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

static void open_phase(struct device *d, u32 phase)
{
    while (phase < d->phase_count && d->phase[phase].chunks == 0)
        phase++;
    d->done = 0;
    bool over = phase == d->phase_count;
    __atomic_store_n(&d->ticket, (u64)(over ? PHASE_IDLE : phase) << 32, __ATOMIC_RELEASE);
    if (over)
        __atomic_store_n(&d->running, 0, __ATOMIC_RELEASE);
}

static void run_launch_chunk(struct device *d, u32 phase, u32 chunk, u32 worker)
{
    const struct loaded *r = d->run;
    u32 l = r->phase[phase].launch;

    for (u32 chunks; chunk >= (chunks = (u32)div_up(r->items[l], r->chunk_items[l])); l++)
        chunk -= chunks;
    const struct launch *launch = &r->program.launch[l];
    u64 begin = (u64)chunk * r->chunk_items[l];
    u64 end = min_u64(begin + r->chunk_items[l], r->items[l]);
    kernel_entry entry = (kernel_entry)(uintptr_t)(r->code + launch->code_offset);
    entry(r->args + launch->arg_first, begin, end, r->scratch + worker * r->scratch_stride);
}

static bool run_chunk(struct device *d, u32 worker)
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
    struct device *d = ctx;

    if (worker >= d->threads)
        return false;
    if (run_chunk(d, worker))
        return true;
    cpu_relax();
    return __atomic_load_n(&d->running, __ATOMIC_ACQUIRE);
}

/* ---- the caller's side ---- */

static void begin(struct device *d, struct loaded *run, const struct phase *phase, u32 phase_count)
{
    d->run = run;
    d->phase = phase;
    d->phase_count = phase_count;
    d->running = 1;
    open_phase(d, 0);
    if (d->threads > 1)
        workers_wake();
}

static u64 launch_items(const struct launch *l, const u32 *sym_value)
{
    u64 items = 1;

    for (u32 a = 0; a < l->grid_rank; a++) {
        dim extent = l->grid[a];
        u64 value = dim_is_sym(extent) ? sym_value[dim_sym_idx(extent)] : (u64)extent.v;
        items *= div_up(value, l->grid_divisor[a]);
    }
    return items;
}

void device_start(struct device *d, struct loaded *r, const u32 *sym_value)
{
    const struct program *p = &r->program;
    u32 phase = 0;

    CHECK(!__atomic_load_n(&d->running, __ATOMIC_ACQUIRE));
    for (u32 i = 0; i < p->sym_count; i++) {
        CHECK(sym_value[i] <= p->sym[i].bound);
        r->table[p->external_count + p->buffer_count + i] = sym_value[i];
    }
    for (u32 i = 0; i < p->arg_count; i++)
        r->args[i] = r->table[p->arg[i]];
    for (u32 l = 0; l < p->launch_count; l++) {
        phase += l > 0 && p->launch[l].barrier;
        if (l == r->phase[phase].launch)
            r->phase[phase].chunks = 0;
        u64 items = launch_items(&p->launch[l], sym_value);
        u64 share = min_u64(CHUNK_ITEMS_MAX, items / (d->threads * CHUNKS_PER_CORE));
        r->items[l] = items;
        r->chunk_items[l] = (u32)max_u64(1, share);
        r->phase[phase].chunks += (u32)div_up(items, r->chunk_items[l]);
    }
    begin(d, r, r->phase, r->phase_count);
}

void device_start_work(struct device *d, device_work_fn work, void *ctx, u32 items)
{
    CHECK(!__atomic_load_n(&d->running, __ATOMIC_ACQUIRE));
    d->work = work;
    d->work_ctx = ctx;
    d->work_phase.chunks = items;
    begin(d, NULL, &d->work_phase, 1);
}

bool device_advance(struct device *d, u64 deadline_ns)
{
    for (;;) {
        if (!__atomic_load_n(&d->running, __ATOMIC_ACQUIRE))
            return true;
        if (!run_chunk(d, 0))
            cpu_relax();
        if (time_ns() >= deadline_ns)
            return !__atomic_load_n(&d->running, __ATOMIC_ACQUIRE);
    }
}

/* ---- loading ---- */

err device_open(struct device **out, u32 threads)
{
    struct device *d = pages_alloc(sizeof *d);

    if (!d)
        return E_NOMEM;
    d->threads = min_u32(threads ? threads : UINT_MAX, workers_count() + 1);
    d->ticket = (u64)PHASE_IDLE << 32;
    if (d->threads > 1)
        workers_start(device_work, d);
    *out = d;
    return OK;
}

static void *copy(struct arena *arena, const void *from, usize bytes)
{
    void *to = arena_alloc(arena, bytes, 8);

    CHECK(to);
    return memcpy(to, from, bytes);
}

/* The program with its tables, workspace and scratch in pages of its own; NULL: there are none. */
static struct loaded *carve(const struct program *p, u32 threads)
{
    u32 entries = p->external_count + p->buffer_count + p->sym_count;
    usize stride = round_up(p->scratch_bytes + 64, 4 * KIB);
    usize bytes = round_up(
        sizeof(struct loaded) + entries * 8ull + p->arg_count * 12ull +
            p->buffer_count * sizeof(struct program_buffer) + p->workspace_bytes +
            (p->launch_count + 1) * (sizeof(struct launch) + sizeof(struct phase) + 12ull) +
            stride * threads + 12 * KIB,
        4 * KIB);
    void *pages = pages_alloc(bytes);
    struct arena arena = arena_on("program", pages, bytes);

    if (!pages)
        return NULL;
    struct loaded *r = arena_new(&arena, struct loaded, 1);
    *r = (struct loaded){.program = *p, .scratch_stride = stride};
    r->program.launch = copy(&arena, p->launch, p->launch_count * sizeof *p->launch);
    r->program.buffer = copy(&arena, p->buffer, p->buffer_count * sizeof *p->buffer);
    r->program.arg = copy(&arena, p->arg, p->arg_count * sizeof *p->arg);
    r->table = arena_new(&arena, u64, entries);
    r->args = arena_new(&arena, u64, p->arg_count);
    r->items = arena_new(&arena, u64, p->launch_count);
    r->chunk_items = arena_new(&arena, u32, p->launch_count);
    r->phase = arena_new(&arena, struct phase, p->launch_count + 1);
    r->scratch = arena_take(&arena, stride * threads, 4 * KIB);
    u8 *workspace = arena_take(&arena, p->workspace_bytes, 4 * KIB);
    CHECK(workspace);
    for (u32 i = 0; i < p->buffer_count; i++)
        r->table[p->external_count + i] = (u64)(uintptr_t)(workspace + p->buffer[i].offset);
    for (u32 l = 0; l < p->launch_count; l++)
        if (l == 0 || p->launch[l].barrier)
            r->phase[r->phase_count++].launch = l;
    return r;
}

err device_load(struct device *d, const struct program *program, struct loaded **out)
{
    struct loaded *r = *out = carve(program, d->threads);
    usize code_bytes = round_up(max_u64(program->code_bytes, 1), 4 * KIB);
    u8 *code = code_alloc(code_bytes);

    if (!r || !code)
        return E_NOMEM;
    r->code = memcpy(code, program->code, program->code_bytes);
    return code_seal(code, code_bytes);
}

void device_bind(struct loaded *r, u32 external, void *data)
{
    CHECK(external < r->program.external_count);
    r->table[external] = (u64)(uintptr_t)data;
}

void *device_output(const struct loaded *r, u32 output)
{
    CHECK(output < r->program.output_count);
    return (void *)(uintptr_t)r->table[r->program.output_arg[output]];
}
