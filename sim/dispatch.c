/*
 * dispatch.c: a dispatch from its registers to its end: how many workgroups fit, whose turn it is,
 * host threads, failures, the ledger. Knows no instruction.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/wave.h"

#define WGP_LDS_BYTES   (2 * LDS_BYTES_MAX)
#define WGP_WAVES       64u
#define SIMD_WAVES      16u
#define SIMD_VGPRS      1536u
#define VGPR_GRANULE    24u
#define GROUP_ITEMS_MAX 1024u
#define QUANTUM_STRICT  64u
#define QUANTUM_FAST    4096u
#define PATIENCE        20000u /* instructions without a workgroup's end, then one more comes */

/* ---- failures ---- */

static void describe(const struct wave *wave, struct compute_failure *failure, const char *format,
                     va_list args)
{
    char text[160] = "", place[200], code[128] = "";
    const struct group *group = wave->group;

    vsnprintf(text, sizeof text, format, args);
    if (wave->running)
        isa_print(&wave->running->inst, wave->at, code, sizeof code);
    snprintf(place, sizeof place, "group %u,%u,%u wave %u pc %lx", group->id[0], group->id[1],
             group->id[2], wave->index, wave->at);
    snprintf(failure->text, sizeof failure->text, "%s: `%s`: %s", place, code, text);
    memcpy(failure->group, group->id, sizeof failure->group);
    failure->wave = wave->index;
    failure->pc = wave->at;
}

void wave_fail(struct wave *wave, int kind, const char *name, const char *format, ...)
{
    struct compute *compute = wave->compute;
    va_list args;

    if (compute->state != COMPUTE_RUNNING)
        return;
    compute->state = COMPUTE_FAILED;
    compute->failure = (struct compute_failure){.name = name};
    memcpy(&compute->failure.kind, &kind, sizeof kind);
    va_start(args, format);
    describe(wave, &compute->failure, format, args);
    va_end(args);
}

void wave_find(struct wave *wave, const char *name, const char *format, ...)
{
    struct compute *compute = wave->compute;
    struct compute_failure found = {.name = name, .kind = COMPUTE_FALSIFIED};
    char line[640];
    va_list args;

    if (compute->state != COMPUTE_RUNNING || !wave->strict)
        return;
    va_start(args, format);
    describe(wave, &found, format, args);
    va_end(args);
    if (!compute->options.lenient) {
        compute->failure = found;
        compute->state = COMPUTE_FAILED;
    } else if (compute->options.report) {
        snprintf(line, sizeof line, "%s: %s", name, found.text);
        compute->options.report(compute->options.report_ctx, line);
    }
}

/* ---- creation ---- */

/* splitmix64. */
u64 compute_random(struct compute *compute)
{
    u64 z = compute->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static struct compute *engine_create(const struct compute_memory *memory,
                                     const struct compute_options *options)
{
    struct compute *compute = calloc(1, sizeof *compute);

    CHECK(compute);
    compute->memory = *memory;
    compute->options = *options;
    compute->options.wgps = max_u32(1, min_u32(options->wgps, COMPUTE_WGPS_MAX));
    compute->random = options->seed;
    compute->code = code_create();
    return compute;
}

static void *thread_run(void *argument);

struct compute *compute_create(const struct compute_memory *memory,
                               const struct compute_options *options)
{
    struct compute *compute = engine_create(memory, options);
    u32 threads = options->fast ? min_u32(options->threads, HELPERS_MAX + 1) : 1;

    for (u32 n = 1; n < threads; n++) {
        struct compute *helper = engine_create(memory, options);
        CHECK(!sem_init(&helper->go, 0, 0) && !sem_init(&helper->done, 0, 0) &&
              !pthread_create(&helper->thread, NULL, thread_run, helper));
        compute->helper[compute->helper_count++] = helper;
    }
    return compute;
}

void compute_destroy(struct compute *compute)
{
    if (!compute)
        return;
    compute_kill(compute);
    traffic_clear(&compute->traffic);
    for (u32 n = 0; n < compute->helper_count; n++) {
        struct compute *helper = compute->helper[n];
        helper->leaves = true;
        sem_post(&helper->go);
        pthread_join(helper->thread, NULL);
        compute_destroy(helper);
    }
    for (struct wave *wave = compute->free_waves, *next; wave; wave = next) {
        next = wave->next;
        strict_destroy(wave->strict);
        free(wave);
    }
    for (struct group *group = compute->free_groups, *next; group; group = next) {
        next = group->next;
        free(group->lds);
        free(group->words);
        free(group->written);
        free(group);
    }
    for (struct flight *flight = compute->free_flights, *next; flight; flight = next) {
        next = flight->next;
        free(flight);
    }
    code_destroy(compute->code);
    free(compute);
}

void compute_forget(struct compute *compute)
{
    for (u32 n = 0; n < compute->helper_count; n++)
        compute_forget(compute->helper[n]);
    code_forget(compute->code);
    memset(compute->pages, 0, sizeof compute->pages);
    for (u32 n = 0; n < compute->resident; n++)
        for (u32 w = 0; w < compute->group[n]->wave_count; w++) {
            compute->group[n]->wave[w]->code = NULL;
            compute->group[n]->wave[w]->running = NULL;
        }
}

/* ---- starting ---- */

static err check_sizes(const struct compute_dispatch *dispatch)
{
    u64 items = 1, groups = 1;

    for (u32 d = 0; d < 3; d++) {
        items *= dispatch->group_size[d];
        groups *= dispatch->groups[d];
        if (items > GROUP_ITEMS_MAX || groups >> 40 ||
            dispatch->last_size[d] > dispatch->group_size[d]) {
            log_error("compute", "want at most %u work-items a group, in a grid below 2^40 groups",
                      GROUP_ITEMS_MAX);
            return E_RANGE;
        }
    }
    if (!items) {
        log_error("compute", "want a work-item in a group, seen a size of 0");
        return E_RANGE;
    }
    if (dispatch->wave64) {
        log_error("compute", "waves of 64 lanes are not modelled");
        return E_UNSUPPORTED;
    }
    return OK;
}

/* What one WGP takes: by waves, registers and LDS. */
static u32 groups_per_wgp(const struct compute *compute)
{
    u32 vgprs = (u32)round_up(compute->vgprs, VGPR_GRANULE);
    u32 waves = min_u32(WGP_WAVES, 4 * min_u32(SIMD_WAVES, SIMD_VGPRS / vgprs));
    u32 groups = max_u32(1, waves / compute->waves_per_group);

    if (compute->lds_bytes)
        groups = min_u32(groups, WGP_LDS_BYTES / compute->lds_bytes);
    return min_u32(groups, RESIDENT_MAX / compute->options.wgps);
}

/* The nth of `engines`, which share groups and scratch memory. */
static err engine_start(struct compute *compute, const struct compute_dispatch *dispatch, u32 nth,
                        u32 engines)
{
    u32 slots = SLOTS_MAX, items = 1;
    bool strict = !compute->options.fast;

    compute_kill(compute);
    compute->dispatch = *dispatch;
    memset(&compute->ledger, 0, sizeof compute->ledger);
    memset(compute->count, 0, sizeof compute->count);
    traffic_clear(&compute->traffic);
    compute->failure = (struct compute_failure){};
    compute->group_count = 1;
    for (u32 d = 0; d < 3; d++) {
        items *= dispatch->group_size[d];
        compute->group_count *= dispatch->groups[d];
    }
    compute->waves_per_group = (u32)div_up(items, LANES);
    compute->vgprs = min_u32((bit_field(dispatch->rsrc1, 0, 6) + 1) * 8, VGPRS_MAX);
    compute->lds_bytes = bit_field(dispatch->rsrc2, 15, 9) * 512;
    if (compute->lds_bytes > LDS_BYTES_MAX) {
        log_error("compute", "want at most %u bytes of LDS, seen %u", LDS_BYTES_MAX,
                  compute->lds_bytes);
        return E_RANGE;
    }
    if (dispatch->rsrc2 & 1 && bit_field(dispatch->tmpring, 12, 15))
        slots = min_u32(bit_field(dispatch->tmpring, 0, 12), SLOTS_MAX);
    if (slots < compute->waves_per_group) {
        log_error("compute", "want scratch for %u waves, seen %u", compute->waves_per_group, slots);
        return E_RANGE;
    }
    engines = min_u32(engines, slots / compute->waves_per_group);
    slots /= engines;
    compute->slot_first = nth * slots;
    compute->slot_count = slots;
    compute->groups_per_wgp = groups_per_wgp(compute);
    compute->ledger.wgp_groups = nth ? 0 : compute->groups_per_wgp;
    compute->resident_max =
        min_u32(compute->groups_per_wgp * compute->options.wgps, slots / compute->waves_per_group);
    compute->resident_wish = strict ? 3 : 1;
    /* A permutation of the groups: an odd factor modulo a power of two, what is too large skipped.
     */
    compute->order_mask = 0;
    while (compute->order_mask < compute->group_count)
        compute->order_mask = compute->order_mask * 2 + 1;
    compute->order_factor = strict ? compute_random(compute) | 1 : 1;
    compute->order_start = strict ? compute_random(compute) : 0;
    compute->own_next_group = 0;
    compute->next_group = &compute->own_next_group;
    compute->state = nth < engines ? COMPUTE_RUNNING : COMPUTE_DONE;
    return OK;
}

err compute_start(struct compute *compute, const struct compute_dispatch *dispatch)
{
    u32 engines = compute->helper_count + 1;

    TRY(check_sizes(dispatch));
    TRY(engine_start(compute, dispatch, 0, engines));
    for (u32 n = 0; n < compute->helper_count; n++) {
        TRY(engine_start(compute->helper[n], dispatch, n + 1, engines));
        compute->helper[n]->next_group = &compute->own_next_group;
    }
    return OK;
}

/* ---- running ---- */

static bool is_vector(u32 class)
{
    return class >= CLASS_VALU && class <= CLASS_TRANS;
}

/* The uop at the wave's pc: most often what followed `last` before. */
static inline struct uop *next_uop(struct wave *wave, struct uop *last)
{
    struct uop *uop = last ? last->follower : NULL;

    if (uop && uop->at == wave->pc)
        return uop;
    wave->at = wave->pc;
    wave->running = NULL;
    uop = code_at(wave, wave->pc);
    if (last)
        last->follower = uop;
    return uop;
}

static u64 run_fast(struct compute *compute, struct wave *wave, u64 budget)
{
    u64 left = budget, active = 0;
    struct uop *uop = NULL;

    while (left) {
        uop = next_uop(wave, uop);
        if (!uop)
            break;
        wave->pc += uop->inst.bytes;
        compute->count[uop->class]++;
        left--;
        if (uop->idle)
            continue;
        wave->at = uop->at;
        wave->running = uop;
        active += is_vector(uop->class) ? (u32)__builtin_popcount(wave->EXEC) : 0;
        uop->run(wave, uop);
        if (wave->state != WAVE_RUNNING || compute->state != COMPUTE_RUNNING)
            break;
    }
    compute->ledger.lanes += active;
    wave->issued += budget - left;
    return budget - left;
}

static u64 run_strict(struct compute *compute, struct wave *wave, u64 budget)
{
    u64 left = budget;

    while (left && wave->state == WAVE_RUNNING && compute->state == COMPUTE_RUNNING) {
        const struct uop *uop;

        wave->at = wave->pc;
        wave->running = NULL;
        uop = code_at(wave, wave->pc);
        if (!uop)
            break;
        wave->running = uop;
        wave->pc += uop->inst.bytes;
        compute->count[uop->class]++;
        if (is_vector(uop->class))
            compute->ledger.lanes += (u32)__builtin_popcount(wave->EXEC);
        strict_before(wave, uop);
        if (compute->state != COMPUTE_RUNNING)
            break;
        uop->run(wave, uop);
        strict_after(wave, uop);
        wave->issued++;
        left--;
    }
    return budget - left;
}

/* A wave of the group that can run, from a random or the next place on; NULL: all wait or ended. */
static struct wave *runnable(const struct group *group, u64 from)
{
    for (u32 n = 0; n < group->wave_count; n++) {
        struct wave *wave = group->wave[(from + n) % group->wave_count];
        if (wave->state == WAVE_RUNNING)
            return wave;
    }
    return NULL;
}

static void retire(struct compute *compute, u32 at)
{
    compute_group_free(compute, compute->group[at]);
    compute->group[at] = compute->group[--compute->resident];
    compute->since_progress = 0;
    if (compute->options.fast)
        compute->resident_wish = 1;
}

static enum compute_state engine_step(struct compute *compute, u64 budget)
{
    bool fast = compute->options.fast;

    while (compute->state == COMPUTE_RUNNING && budget) {
        u64 random = fast ? compute->turn++ : compute_random(compute), ran;
        u64 quantum = fast ? QUANTUM_FAST : 1 + random % QUANTUM_STRICT;
        struct wave *wave;
        u32 at;

        if (!compute_admit(compute)) {
            compute->state = COMPUTE_DONE;
            break;
        }
        at = (u32)((random >> 8) % compute->resident);
        if (fast)
            at = (u32)(random / 8 % compute->resident);
        wave = runnable(compute->group[at], fast ? 0 : random >> 40);
        if (!wave) {
            retire(compute, at);
            continue;
        }
        ran = fast ? run_fast(compute, wave, min_u64(budget, quantum))
                   : run_strict(compute, wave, min_u64(budget, quantum));
        budget -= min_u64(budget, max_u64(ran, 1));
        compute->since_progress += ran;
        if (compute->since_progress > PATIENCE) {
            compute->since_progress = 0;
            compute->resident_wish += compute->resident_wish < compute->resident_max;
        }
    }
    return compute->state;
}

/* Sums of 64-bit counters, all but the one maximum. */
static void ledger_add(struct compute_ledger *sum, const struct compute_ledger *more)
{
    u64 total[sizeof *sum / sizeof(u64)], part[sizeof *sum / sizeof(u64)];
    u64 most = max_u64(sum->flight_bytes_max, more->flight_bytes_max);

    memcpy(total, sum, sizeof total);
    memcpy(part, more, sizeof part);
    for (u32 n = 0; n < ARRAY_LEN(total); n++)
        total[n] += part[n];
    memcpy(sum, total, sizeof total);
    sum->flight_bytes_max = most;
}

static void ledger_fill(struct compute *compute)
{
    struct compute_ledger *ledger = &compute->ledger;

    for (u32 n = 0; n < compute->helper_count; n++) {
        ledger_add(ledger, &compute->helper[n]->ledger);
        memset(&compute->helper[n]->ledger, 0, sizeof compute->helper[n]->ledger);
        for (u32 c = 0; c < CLASSES; c++) {
            compute->count[c] += compute->helper[n]->count[c];
            compute->helper[n]->count[c] = 0;
        }
    }
    ledger->salu = compute->count[CLASS_SALU];
    ledger->valu = compute->count[CLASS_VALU];
    ledger->vopd = compute->count[CLASS_VOPD];
    ledger->dot = compute->count[CLASS_DOT];
    ledger->wmma = compute->count[CLASS_WMMA];
    ledger->trans = compute->count[CLASS_TRANS];
    ledger->smem = compute->count[CLASS_SMEM];
    ledger->lds = compute->count[CLASS_LDS];
    ledger->vmem_loads = compute->count[CLASS_VMEM_LOAD];
    ledger->vmem_stores = compute->count[CLASS_VMEM_STORE];
    ledger->atomics = compute->count[CLASS_ATOMIC];
    ledger->branches = compute->count[CLASS_BRANCH];
    ledger->waits = compute->count[CLASS_WAIT];
    ledger->other = compute->count[CLASS_OTHER];
    ledger->lines_loaded = compute->options.fast ? 0 : compute->traffic.count;
}

/* A helper's life: a step whenever it is asked for one. */
static void *thread_run(void *argument)
{
    struct compute *compute = argument;

    for (;;) {
        while (sem_wait(&compute->go))
            ;
        if (compute->leaves)
            return NULL;
        engine_step(compute, compute->budget);
        sem_post(&compute->done);
    }
}

static void helpers_start(struct compute *compute, u64 budget)
{
    for (u32 n = 0; n < compute->helper_count; n++) {
        struct compute *helper = compute->helper[n];
        helper->asked = helper->state == COMPUTE_RUNNING;
        helper->budget = budget;
        if (helper->asked)
            sem_post(&helper->go);
    }
}

static void helpers_await(struct compute *compute)
{
    for (u32 n = 0; n < compute->helper_count; n++)
        while (compute->helper[n]->asked && sem_wait(&compute->helper[n]->done))
            ;
}

enum compute_state compute_step(struct compute *compute, u64 budget)
{
    enum compute_state state;

    if (compute->state != COMPUTE_RUNNING)
        return compute->state;
    helpers_start(compute, budget);
    state = engine_step(compute, budget);
    helpers_await(compute);
    for (u32 n = 0; n < compute->helper_count; n++) {
        const struct compute *helper = compute->helper[n];
        if (helper->state == COMPUTE_FAILED && state != COMPUTE_FAILED)
            compute->failure = helper->failure;
        if (helper->state == COMPUTE_FAILED ||
            (helper->state == COMPUTE_RUNNING && state == COMPUTE_DONE))
            state = helper->state;
    }
    compute->state = state;
    ledger_fill(compute);
    return state;
}

const struct compute_failure *compute_failure(const struct compute *compute)
{
    return &compute->failure;
}

const struct compute_ledger *compute_ledger(const struct compute *compute)
{
    return &compute->ledger;
}

static bool halted(const struct compute *compute, const struct wave *wave)
{
    const struct compute_failure *failure = &compute->failure;

    return compute->state == COMPUTE_FAILED && wave->index == failure->wave &&
           !memcmp(wave->group->id, failure->group, sizeof failure->group);
}

static bool engine_wave(const struct compute *compute, u32 wgp, u32 *nth, struct compute_wave *out)
{
    for (u32 g = 0; g < compute->resident; g++)
        for (u32 n = 0; n < compute->group[g]->wave_count; n++) {
            const struct wave *wave = compute->group[g]->wave[n];
            if (compute->group[g]->wgp != wgp || wave->state == WAVE_ENDED || (*nth)--)
                continue;
            *out = (struct compute_wave){wave->at, halted(compute, wave)};
            return true;
        }
    return false;
}

bool compute_wave(const struct compute *compute, u32 wgp, u32 nth, struct compute_wave *out)
{
    bool found = engine_wave(compute, wgp, &nth, out);

    for (u32 n = 0; n < compute->helper_count && !found; n++)
        found = engine_wave(compute->helper[n], wgp, &nth, out);
    return found;
}

void compute_kill(struct compute *compute)
{
    for (u32 n = 0; n < compute->helper_count; n++)
        compute_kill(compute->helper[n]);
    while (compute->resident)
        compute_group_free(compute, compute->group[--compute->resident]);
    compute->state = COMPUTE_IDLE;
}

/* ---- host memory, fast mode ---- */

u8 *wave_host(struct wave *wave, u64 va, u64 bytes, bool write)
{
    struct compute *compute = wave->compute;
    struct host_page *page = &compute->pages[va >> 16 & (HOST_PAGES - 1)];
    u64 good;

    if (va >= page->va && va + bytes <= page->end && page->write >= write)
        return page->host + (va - page->va);
    if (!compute->options.fast || !compute->memory.page)
        return NULL;
    page->end = 0;
    page->host = compute->memory.page(compute->memory.ctx, va, write, &good);
    if (!page->host)
        return NULL;
    page->va = va;
    page->end = va + good;
    page->write = write;
    return bytes <= good ? page->host : NULL;
}
