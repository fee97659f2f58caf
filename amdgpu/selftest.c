/*
 * selftest.c: `selftest = gpu` in nohost.conf: what a card does, measured by the machine's clock
 * and printed beside predictions.def (docs/PREDICTIONS.md). Must not know the machine: what has to
 * go on meanwhile is done by `turn`.
 */
#include "amdgpu/priv.h"

#define HOST_BYTES  (4 * MIB) /* of a copy; the list of launches fits too */
#define REGION      GIB       /* ten times what the caches hold */
#define ENOUGH_NS   (20 * NS_PER_MS)
#define DEADLINE_NS (20 * NS_PER_S)
#define CLOCKS_NS   (2 * NS_PER_S)
#define GROWTH      4u /* the amount, until it takes long enough */
#define LAUNCHES    1000u
#define GROUP_ITEMS 256u
#define ITEM_BYTES  16u
#define LOADS       4u  /* of a turn of the kernel's loop */
#define TURNS       16u /* and so many of a group */

struct test {
    struct gpu *gpu;
    void (*turn)(void *ctx);
    void *ctx;
    struct gpu_host host;
    gpuva region, code; /* code: nothing, then the kernel that reads */
    struct gpu_list *list;
    bool wait; /* of its launches */
};

/* s[0:1] points to {u64 from; u32 step, turns}; each group reads 4 KiB of every step:
 *   s_load_b128 s[4:7], s[0:1], 0x0       v_and_b32 v0, 0x3ff, v0
 *   s_lshl_b32 s8, s2, 12                 v_lshl_add_u32 v0, v0, 4, s8
 *   s_waitcnt lgkmcnt(0)
 * loop, four times the first three with other registers:
 *   global_load_b128 v[4:7], v0, s[4:5]   s_add_u32 s4, s4, s6     s_addc_u32 s5, s5, 0
 *   s_sub_u32 s7, s7, 1                   s_cmp_lg_u32 s7, 0       s_cbranch_scc1 loop
 *   s_waitcnt vmcnt(0)                    s_endpgm */
static const u32 read_code[] = {
    0xf4080100, 0xf8000000, 0x360000ff, 0x000003ff, 0x84088c02, 0xd6460000, 0x00210900, 0xbf89fc07,
    0xdc5e0000, 0x04040000, 0x80040604, 0x82058005, 0xdc5e0000, 0x08040000, 0x80040604, 0x82058005,
    0xdc5e0000, 0x0c040000, 0x80040604, 0x82058005, 0xdc5e0000, 0x10040000, 0x80040604, 0x82058005,
    0x80878107, 0xbf078007, 0xbfa2ffed, 0xbf8903f7, 0xbfb00000,
};
static const u32 nothing_code[] = {0xbfb00000};
#define READ_AT    256u
#define CODE_BYTES 4096u

/* ---- waiting ---- */

static err finish(struct test *t, u64 fence)
{
    u64 end_ns = time_ns() + DEADLINE_NS;
    err e;

    while ((e = gpu_fence_passed(t->gpu, fence)) == E_BUSY && time_ns() < end_ns)
        t->turn(t->ctx);
    return e == E_BUSY ? E_TIMEOUT : e;
}

/* ---- what is asked of the card: `amount` is bytes or launches ---- */

static err fill(struct test *t, u64 bytes)
{
    u64 fence;

    TRY(gpu_fill(t->gpu, t->region, 0, bytes, &fence));
    return finish(t, fence);
}

static err upload(struct test *t, u64 bytes, u64 *fence)
{
    for (u64 done = 0; done < bytes; done += HOST_BYTES)
        TRY(gpu_copy(t->gpu, t->region, t->host.va, HOST_BYTES, fence));
    return OK;
}

static err copy(struct test *t, u64 bytes, u64 *fence)
{
    return gpu_copy(t->gpu, (gpuva){t->region.v + REGION / 2}, t->region, bytes, fence);
}

static struct gpu_launch launch_of(const struct test *t, u32 code_at, u32 groups)
{
    return (struct gpu_launch){.name = "selftest",
                               .code = {t->code.v + code_at},
                               .kernarg = t->host.va,
                               .rsrc1 = 2 | 0xc0000 | 1u << 30, /* 24 VGPRs, denormals, in order */
                               .rsrc2 = 2u << 1 | 1u << 7,      /* two user SGPRs, group id x */
                               .groups = {groups, 1, 1},
                               .group_size = {GROUP_ITEMS, 1, 1},
                               .wait = t->wait};
}

static err read(struct test *t, u64 bytes, u64 *fence)
{
    u32 step = (u32)(bytes / LOADS / TURNS);
    const struct gpu_launch launch = launch_of(t, READ_AT, step / (GROUP_ITEMS * ITEM_BYTES));

    memcpy(t->host.ptr, &t->region, sizeof(t->region));
    memcpy(t->host.ptr + 8, (u32[]){step, TURNS}, 8);
    return gpu_submit(t->gpu, &launch, 1, fence);
}

static err make_list(struct test *t, u64 count)
{
    const struct gpu_host memory = {t->host.ptr, t->host.va, HOST_BYTES / 2};
    struct gpu_launch *launch = (struct gpu_launch *)(t->host.ptr + HOST_BYTES / 2);

    for (u32 i = 0; i < count; i++)
        launch[i] = launch_of(t, 0, 1);
    return gpu_list_make(t->gpu, &memory, launch, (u32)count, &t->list);
}

static err submit(struct test *t, u64 count, u64 *fence)
{
    (void)count;
    return gpu_list_submit(t->gpu, t->list, fence);
}

/* ---- the rows ---- */

#define PREDICT(name, ...) PREDICTED_##name,
enum {
#include "amdgpu/predictions.def"
};
#undef PREDICT
#define PREDICT(name, ...) {__VA_ARGS__},
static const struct prediction {
    const char *what, *unit;
    u32 least, most;
} predictions[] = {
#include "amdgpu/predictions.def"
};
#undef PREDICT

static void print(u32 row, u64 seen)
{
    const struct prediction *p = &predictions[row];

    if (p->most)
        log_info("selftest", "%s: %lu %s, predicted %u to %u", p->what, seen, p->unit, p->least,
                 p->most);
    else
        log_info("selftest", "%s: %lu %s, not predicted", p->what, seen, p->unit);
}

static const struct row {
    u32 name;
    u64 first, last, scale; /* bytes at scale / ns; 0: ns for each */
    err (*prepare)(struct test *t, u64 amount);
    err (*ask)(struct test *t, u64 amount, u64 *fence);
    bool wait;
} rows[] = {
    {PREDICTED_UPLOAD, HOST_BYTES, 32 * HOST_BYTES, 1000, fill, upload, false},
    {PREDICTED_COPY_VRAM, HOST_BYTES, REGION / 2, 1000, fill, copy, false},
    {PREDICTED_READ_VRAM, 16 * MIB, REGION, 1000, fill, read, false},
    {PREDICTED_LAUNCH_FREE, 100, LAUNCHES, 0, make_list, submit, false},
    {PREDICTED_LAUNCH_GAP, 100, LAUNCHES, 0, make_list, submit, true},
    {PREDICTED_ROUND_TRIP, 1, 1, 0, make_list, submit, false},
};

/* Ever more, until it takes long enough for the clock. */
static err measure(struct test *t, const struct row *row)
{
    u64 took_ns = 0, seen = 0, fence;

    t->wait = row->wait;
    for (u64 amount = row->first; amount <= row->last && took_ns < ENOUGH_NS; amount *= GROWTH) {
        TRY(row->prepare(t, amount));
        u64 start_ns = time_ns();
        TRY(row->ask(t, amount, &fence));
        TRY(finish(t, fence));
        took_ns = max_u64(time_ns() - start_ns, 1);
        seen = row->scale ? amount * row->scale / took_ns : took_ns / amount;
    }
    print(row->name, seen);
    return OK;
}

/* A measurement of the power controller's while waves read. */
static err measure_clocks(struct test *t)
{
    u64 end_ns = time_ns() + CLOCKS_NS;
    struct gpu_status status;
    u64 fence;

    TRY(fill(t, 16 * MIB));
    t->gpu->metrics_ns = 0;
    do {
        gpu_status(t->gpu, &status);
        TRY(read(t, 16 * MIB, &fence));
        TRY(finish(t, fence));
    } while (!t->gpu->metrics_ns && time_ns() < end_ns);
    gpu_status(t->gpu, &status);
    print(PREDICTED_SHADER_CLOCK, status.gfx_mhz);
    print(PREDICTED_MEMORY_CLOCK, status.memory_mhz);
    return OK;
}

static err prepare(struct test *t)
{
    u64 fence;

    TRY(gpu_host_alloc(t->gpu, HOST_BYTES, &t->host));
    TRY(gpu_alloc(t->gpu, REGION, &t->region));
    TRY(gpu_alloc(t->gpu, CODE_BYTES, &t->code));
    memcpy(t->host.ptr, nothing_code, sizeof(nothing_code));
    memcpy(t->host.ptr + READ_AT, read_code, sizeof(read_code));
    TRY(gpu_copy(t->gpu, t->code, t->host.va, CODE_BYTES, &fence));
    return finish(t, fence);
}

err gpu_selftest(struct gpu *gpu, void (*turn)(void *ctx), void *ctx)
{
    struct test t = {.gpu = gpu, .turn = turn, .ctx = ctx};

    TRY(prepare(&t));
    log_info("selftest", "by this machine's clock; of a simulated card it is the model's");
    if (!gpu->partial)
        print(gpu->start_reset ? PREDICTED_START_WARM : PREDICTED_START_COLD, gpu->start_ms);
    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        err e = measure(&t, &rows[i]);
        if (e != OK)
            log_error("selftest", "%s: %s", predictions[rows[i].name].what, err_text(e));
    }
    err e = measure_clocks(&t);
    gpu_free(gpu, t.code);
    gpu_free(gpu, t.region);
    return e;
}
