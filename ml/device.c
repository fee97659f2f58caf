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
#define THREADS_MAX     256u

struct loaded {
    struct program program;
    u8 *code;
    usize code_bytes;
    u8 *workspace;
    usize workspace_bytes;
    u64 *table;        /* the global table: externals, buffers, symbols */
    u64 *args;         /* per launch, as the kernels read them */
    u64 *items;        /* per launch, of this run */
    u32 *chunk_items;  /* per launch */
    u32 *phase_launch; /* first launch of each phase; one more at the end */
    u32 *phase_chunks;
    u32 phase_count;
    void *pages;
    usize pages_bytes;
};

struct device {
    u32 threads;
    struct loaded *run; /* or */
    device_work_fn work;
    void *work_ctx;
    u32 work_items;
    u8 *scratch;
    usize scratch_bytes, scratch_stride;
    _Alignas(64) u64 ticket; /* phase << 32 | next chunk */
    _Alignas(64) u32 done;   /* finished chunks of the phase */
    _Alignas(64) u32 running;
};

/* ---- running: any core ---- */

static u64 launch_items(const struct launch *l, const u32 *sym_value)
{
    u64 items = 1;
    for (u32 a = 0; a < l->grid_rank; a++) {
        u64 extent =
            dim_is_sym(l->grid[a]) ? sym_value[dim_sym_idx(l->grid[a])] : (u64)l->grid[a].v;
        items *= div_up(extent, l->grid_divisor[a]);
    }
    return items;
}

/* A piece of work is one phase of one item per chunk. */
static u32 phases_of(const struct device *d)
{
    return d->work ? 1 : d->run->phase_count;
}
static u32 chunks_of(const struct device *d, u32 phase)
{
    return d->work ? d->work_items : d->run->phase_chunks[phase];
}

/* Takes the next chunk of the open phase; false when all are taken. */
static bool draw(struct device *d, u32 *phase, u32 *chunk)
{
    u64 ticket = __atomic_load_n(&d->ticket, __ATOMIC_ACQUIRE);

    for (;;) {
        *phase = (u32)(ticket >> 32);
        *chunk = (u32)ticket;
        if (*phase == PHASE_IDLE || *chunk >= chunks_of(d, *phase))
            return false;
        if (__atomic_compare_exchange_n(&d->ticket, &ticket, ticket + 1, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return true;
    }
}

static void open_phase(struct device *d, u32 phase)
{
    while (phase < phases_of(d) && chunks_of(d, phase) == 0)
        phase++;
    d->done = 0;
    if (phase == phases_of(d)) {
        __atomic_store_n(&d->ticket, (u64)PHASE_IDLE << 32, __ATOMIC_RELEASE);
        __atomic_store_n(&d->running, 0, __ATOMIC_RELEASE);
        return;
    }
    __atomic_store_n(&d->ticket, (u64)phase << 32, __ATOMIC_RELEASE);
}

static void run_launch_chunk(struct device *d, u32 phase, u32 chunk, u32 worker)
{
    struct loaded *r = d->run;
    u32 l = r->phase_launch[phase], rest = chunk;
    for (;; l++) {
        u32 chunks = (u32)div_up(r->items[l], r->chunk_items[l]);
        if (rest < chunks)
            break;
        rest -= chunks;
    }
    const struct launch *launch = &r->program.launch[l];
    u64 begin = (u64)rest * r->chunk_items[l],
        end = min_u64(begin + r->chunk_items[l], r->items[l]);
    kernel_entry entry = (kernel_entry)(uintptr_t)(r->code + launch->code_offset);
    entry(r->args + launch->arg_first, begin, end, d->scratch + worker * d->scratch_stride);
}

static bool run_chunk(struct device *d, u32 worker)
{
    u32 phase, chunk;

    if (!draw(d, &phase, &chunk))
        return false;
    u32 chunks = chunks_of(d, phase);
    if (d->work)
        d->work(d->work_ctx, chunk, worker);
    else
        run_launch_chunk(d, phase, chunk, worker);
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

static void begin(struct device *d)
{
    d->running = 1;
    open_phase(d, 0);
    if (d->threads > 1)
        workers_wake();
}

void device_start(struct device *d, struct loaded *r, const u32 *sym_value)
{
    const struct program *p = &r->program;

    CHECK(!__atomic_load_n(&d->running, __ATOMIC_ACQUIRE));
    for (u32 i = 0; i < p->sym_count; i++) {
        CHECK(sym_value[i] <= p->sym[i].bound);
        r->table[p->external_count + p->buffer_count + i] = sym_value[i];
    }
    for (u32 i = 0; i < p->arg_count; i++)
        r->args[i] = r->table[p->arg[i]];
    for (u32 phase = 0; phase < r->phase_count; phase++) {
        u32 chunks = 0;
        for (u32 l = r->phase_launch[phase]; l < r->phase_launch[phase + 1]; l++) {
            r->items[l] = launch_items(&p->launch[l], sym_value);
            r->chunk_items[l] = (u32)max_u64(
                1, min_u64(CHUNK_ITEMS_MAX, r->items[l] / (d->threads * CHUNKS_PER_CORE)));
            chunks += (u32)div_up(r->items[l], r->chunk_items[l]);
        }
        r->phase_chunks[phase] = chunks;
    }
    d->run = r;
    d->work = NULL;
    begin(d);
}

void device_start_work(struct device *d, device_work_fn work, void *ctx, u32 items)
{
    CHECK(!__atomic_load_n(&d->running, __ATOMIC_ACQUIRE));
    d->work = work;
    d->work_ctx = ctx;
    d->work_items = items;
    begin(d);
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
    d->threads = workers_count() + 1;
    if (threads)
        d->threads = min_u32(threads, d->threads);
    d->threads = min_u32(d->threads, THREADS_MAX);
    d->ticket = (u64)PHASE_IDLE << 32;
    if (d->threads > 1)
        workers_start(device_work, d);
    *out = d;
    return OK;
}

u32 device_threads(const struct device *d)
{
    return d->threads;
}

void device_close(struct device *d)
{
    CHECK(!d->running);
    if (d->threads > 1)
        workers_start(NULL, NULL);
    if (d->scratch)
        pages_free(d->scratch, d->scratch_bytes);
    pages_free(d, sizeof *d);
}

static u32 count_phases(const struct program *p)
{
    u32 phases = 1;
    for (u32 l = 1; l < p->launch_count; l++)
        phases += p->launch[l].barrier;
    return phases;
}

/* All tables of a loaded program in one run of pages. */
static err carve(struct loaded *r)
{
    struct program *p = &r->program;
    u32 entries = p->external_count + p->buffer_count + p->sym_count;

    r->phase_count = p->launch_count ? count_phases(p) : 0;
    r->pages_bytes = round_up(
        entries * 8ull + p->arg_count * 12ull + p->launch_count * (sizeof(struct launch) + 12ull) +
            p->buffer_count * sizeof(struct program_buffer) + r->phase_count * 8ull + 1024,
        4 * KIB);
    r->pages = pages_alloc(r->pages_bytes);
    if (!r->pages)
        return E_NOMEM;
    struct arena arena = arena_on("program", r->pages, r->pages_bytes);
    const struct program from = *p;
    r->table = arena_new(&arena, u64, entries);
    r->args = arena_new(&arena, u64, p->arg_count);
    r->items = arena_new(&arena, u64, p->launch_count);
    p->launch = arena_new(&arena, struct launch, p->launch_count);
    p->buffer = arena_new(&arena, struct program_buffer, p->buffer_count);
    p->arg = arena_new(&arena, u32, p->arg_count);
    r->chunk_items = arena_new(&arena, u32, p->launch_count);
    r->phase_launch = arena_new(&arena, u32, r->phase_count + 1);
    r->phase_chunks = arena_new(&arena, u32, r->phase_count + 1);
    CHECK(r->phase_chunks);
    memcpy(p->launch, from.launch, p->launch_count * sizeof *p->launch);
    memcpy(p->buffer, from.buffer, p->buffer_count * sizeof *p->buffer);
    memcpy(p->arg, from.arg, p->arg_count * sizeof *p->arg);
    u32 phase = 0;
    for (u32 l = 0; l < p->launch_count; l++)
        if (l > 0 && p->launch[l].barrier)
            r->phase_launch[++phase] = l;
    r->phase_launch[r->phase_count] = p->launch_count;
    return OK;
}

static err grow_scratch(struct device *d, u32 bytes)
{
    usize stride = round_up(bytes + 64, 4 * KIB);

    if (stride <= d->scratch_stride)
        return OK;
    u8 *scratch = pages_alloc(stride * d->threads);
    if (!scratch)
        return E_NOMEM;
    if (d->scratch)
        pages_free(d->scratch, d->scratch_bytes);
    d->scratch = scratch;
    d->scratch_stride = stride;
    d->scratch_bytes = stride * d->threads;
    return OK;
}

err device_load(struct device *d, const struct program *program, struct loaded **out)
{
    struct loaded *r = pages_alloc(sizeof *r);

    if (!r)
        return E_NOMEM;
    r->program = *program;
    r->code_bytes = round_up(max_u64(program->code_bytes, 1), 4 * KIB);
    r->workspace_bytes = round_up(max_u64(program->workspace_bytes, 1), 4 * KIB);
    err e = carve(r);
    if (e == OK)
        e = grow_scratch(d, program->scratch_bytes);
    if (e == OK && !(r->workspace = pages_alloc(r->workspace_bytes)))
        e = E_NOMEM;
    if (e == OK && !(r->code = code_alloc(r->code_bytes)))
        e = E_NOMEM;
    if (e == OK) {
        memcpy(r->code, program->code, program->code_bytes);
        e = code_seal(r->code, r->code_bytes);
    }
    if (e != OK) {
        device_unload(d, r);
        return e;
    }
    for (u32 i = 0; i < program->buffer_count; i++)
        r->table[program->external_count + i] =
            (u64)(uintptr_t)(r->workspace + program->buffer[i].offset);
    *out = r;
    return OK;
}

void device_unload(struct device *d, struct loaded *r)
{
    CHECK(!d->running);
    if (r->code)
        pages_free(r->code, r->code_bytes);
    if (r->workspace)
        pages_free(r->workspace, r->workspace_bytes);
    if (r->pages)
        pages_free(r->pages, r->pages_bytes);
    pages_free(r, sizeof *r);
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
