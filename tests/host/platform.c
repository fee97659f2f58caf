/*
 * platform.c: the platform half of kernel/base.h on Linux: clock, chance, pages, code, workers, CPU
 * features, panic. It is test equipment: the portable rooms must not notice that they do not run on
 * the kernel. Follows: Intel SDM volume 2A, CPUID; volume 1, 13.3 (XCR0); Linux
 * Documentation/arch/x86/xstate.rst (AMX permission).
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "tests/host/platform.h"

#define PAGE_BYTES  4096ull
#define WORKERS_MAX 255u
#define SPIN_ROUNDS 20000u /* about 0.3 ms: launches of one step follow each other much faster */

static struct {
    u64 fake_ns; /* 0: the real clock */
    u64 skipped_ns;
    i64 unix_offset_s;
    u64 random_state; /* 0: the real source */
    bool sealed;
    struct cpu_features cpu;
    bool cpu_known;
    void (*panic_hook)(const char *file, int line, const char *what);
} platform;

void platform_reset(void)
{
    platform.fake_ns = 0;
    platform.unix_offset_s = 0;
    platform.random_state = 0;
    platform.sealed = false;
    platform.cpu_known = false;
}

/* ---- time and chance ---- */

u64 time_ns(void)
{
    struct timespec now;

    if (platform.fake_ns)
        return platform.fake_ns;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (u64)now.tv_sec * NS_PER_S + (u64)now.tv_nsec + platform.skipped_ns;
}

i64 time_unix_s(void)
{
    return (i64)time(NULL) + platform.unix_offset_s;
}

void time_unix_set(i64 seconds)
{
    platform.unix_offset_s = seconds - (i64)time(NULL);
}

void platform_clock_fake(u64 now_ns)
{
    platform.fake_ns = now_ns;
}

void platform_clock_skip(u64 ns)
{
    platform.skipped_ns += ns;
}

void random_bytes(void *out, usize bytes)
{
    u8 *to = out;

    while (bytes && platform.random_state) { /* xorshift64*: repeatable, nothing more */
        platform.random_state ^= platform.random_state >> 12;
        platform.random_state ^= platform.random_state << 25;
        platform.random_state ^= platform.random_state >> 27;
        *to++ = (u8)((platform.random_state * 0x2545f4914f6cdd1dull) >> 56);
        bytes--;
    }
    while (bytes) {
        ssize_t got = getrandom(to, bytes, 0);
        if (got > 0) {
            to += got;
            bytes -= (usize)got;
        }
    }
}

void platform_random_seed(u64 seed)
{
    platform.random_state = seed | 1ull << 63;
}

/* ---- pages and code ---- */

/* A page without access follows, so that running over the end faults at once. */
static void *map_guarded(usize bytes)
{
    usize whole = round_up(bytes, PAGE_BYTES);
    u8 *ptr = mmap(NULL, whole + PAGE_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    CHECK(!platform.sealed);
    if (ptr == MAP_FAILED)
        return NULL;
    mprotect(ptr + whole, PAGE_BYTES, PROT_NONE);
    return ptr;
}

void *pages_alloc(usize bytes)
{
    void *ptr = bytes <= PTRDIFF_MAX ? map_guarded(bytes) : NULL;

    if (ptr)
        madvise(ptr, round_up(bytes, PAGE_BYTES),
                MADV_HUGEPAGE); /* the kernel maps weights in 2 MiB pages as well */
    return ptr;
}

void *pages_take(usize bytes)
{
    return pages_alloc(bytes);
}

void pages_free(void *ptr, usize bytes)
{
    munmap(ptr, round_up(bytes, PAGE_BYTES) + PAGE_BYTES);
}

usize pages_available(void)
{
    return (usize)sysconf(_SC_AVPHYS_PAGES) * PAGE_BYTES;
}

void *code_alloc(usize bytes)
{
    return map_guarded(bytes);
}

err code_seal(void *code, usize bytes)
{
    return mprotect(code, round_up(bytes, PAGE_BYTES), PROT_READ | PROT_EXEC) == 0 ? OK : E_NOMEM;
}

void mem_seal(void)
{
    platform.sealed = true;
}

/* ---- workers: threads that watch a counter, then sleep on it ---- */

struct job {
    bool (*work)(void *ctx, u32 worker);
    void *ctx;
};

static struct {
    struct job job[2]; /* the current one, and the one before while workers leave it */
    _Atomic(struct job *) current;
    _Atomic u32 inside[WORKERS_MAX + 1];
    _Atomic u32 calls; /* counts workers_wake() */
    _Atomic u32 sleeping;
    u32 count;
    bool count_known, started;
} workers;

static void *worker_main(void *number);
static void worker_wait(u32 seen);

u32 workers_count(void)
{
    if (!workers.count_known) {
        /* Tests try more workers than the machine has cores. */
        const char *wanted = getenv("NOHOST_WORKERS");
        long cores = wanted ? atol(wanted) + 1 : sysconf(_SC_NPROCESSORS_ONLN);
        workers.count = cores < 1 ? 0 : min_u32((u32)cores - 1, WORKERS_MAX);
        workers.count_known = true;
    }
    return workers.count;
}

/* May be called again: it returns when no worker is inside the former job, whose memory may go. */
void workers_start(bool (*work)(void *ctx, u32 worker), void *ctx)
{
    struct job *next = &workers.job[workers.current == &workers.job[0]];

    *next = (struct job){work, ctx};
    workers.current = next;
    for (u32 worker = 1; worker <= workers_count(); worker++) {
        while (workers.inside[worker])
            cpu_relax();
    }
    for (u32 worker = 1; worker <= workers_count() && !workers.started; worker++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, worker_main, (void *)(uintptr_t)worker) == 0);
        pthread_detach(thread);
    }
    workers.started = true;
    workers_wake();
}

void workers_wake(void)
{
    workers.calls++;
    if (workers.sleeping)
        syscall(SYS_futex, &workers.calls, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void *worker_main(void *number)
{
    u32 worker = (u32)(uintptr_t)number;

    for (;;) {
        u32 seen = workers.calls;
        bool busy = true;

        while (busy) {
            /* Before reading the job: workers_start() looks at it after writing the job. */
            workers.inside[worker] = 1;
            struct job *job = workers.current;
            busy = job->work && job->work(job->ctx, worker);
            workers.inside[worker] = 0;
        }
        worker_wait(seen);
    }
    return NULL;
}

static void worker_wait(u32 seen)
{
    for (u32 round = 0; round < SPIN_ROUNDS && workers.calls == seen; round++)
        cpu_relax();
    if (workers.calls != seen)
        return;
    workers.sleeping++;
    syscall(SYS_futex, &workers.calls, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    workers.sleeping--;
}

/* ---- CPU features ---- */

/* In this order each needs what stands above it, AVX-VNNI apart. */
static const struct {
    struct str name;
    struct cpu_features at_most;
} cpu_limits[] = {
    {STR("avx2"), {.avx2 = true}},
    {STR("translated"), {.avx2 = true, .translated = true}},
    {STR("avx_vnni"), {.avx2 = true, .avx_vnni = true}},
    {STR("avx512"), {.avx2 = true, .avx512 = true}},
    {STR("avx512_vnni"), {.avx2 = true, .avx512 = true, .avx512_vnni = true, .avx_vnni = true}},
    {STR("amx_int8"),
     {.avx2 = true, .avx512 = true, .avx512_vnni = true, .avx_vnni = true, .amx_int8 = true}},
};

static struct cpu_features cpu_read(void);

const struct cpu_features *cpu_features(void)
{
    if (!platform.cpu_known) {
        const char *limit = getenv("NOHOST_CPU");
        platform.cpu = cpu_read();
        platform.cpu_known = true;
        if (limit && platform_cpu_limit(str_of(limit)) != OK)
            panic(__FILE__, __LINE__, "NOHOST_CPU names no feature level");
    }
    return &platform.cpu;
}

err platform_cpu_limit(struct str name)
{
    for (usize i = 0; i < ARRAY_LEN(cpu_limits); i++) {
        const struct cpu_features *limit = &cpu_limits[i].at_most;
        if (!str_eq(cpu_limits[i].name, name))
            continue;
        struct cpu_features real = cpu_read();
        platform.cpu = (struct cpu_features){
            .avx2 = real.avx2 && limit->avx2,
            .avx512 = real.avx512 && limit->avx512,
            .avx512_vnni = real.avx512_vnni && limit->avx512_vnni,
            .avx_vnni = real.avx_vnni && limit->avx_vnni,
            .amx_int8 = real.amx_int8 && limit->amx_int8,
            .translated = limit->translated,
        };
        platform.cpu_known = true;
        return OK;
    }
    return E_NOTFOUND;
}

static bool bits(u32 value, u32 wanted)
{
    return (value & wanted) == wanted;
}

static struct cpu_features cpu_read(void)
{
    enum {
        XCR0_AVX = 0x6,
        XCR0_AVX512 = 0xe6,
        XCR0_AMX = 0x60000,
        ARCH_REQ_XCOMP_PERM = 0x1023,
        XFEATURE_TILEDATA = 18
    };
    u32 a, b1, b7 = 0, c1, c7 = 0, d1, d7 = 0, a71 = 0, bx, cx, dx, xcr0 = 0, high;

    __cpuid(1, a, b1, c1, d1);
    __cpuid_count(7, 0, a, b7, c7, d7);
    __cpuid_count(7, 1, a71, bx, cx, dx);
    if (bits(c1, 1u << 27)) /* OSXSAVE */
        __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    bool avx2 =
        bits(xcr0, XCR0_AVX) && bits(c1, 1u << 12 | 1u << 29) && bits(b7, 1u << 5 | 1u << 8);
    bool avx512 =
        avx2 && bits(xcr0, XCR0_AVX512) && bits(b7, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31);
    bool amx = avx512 && bits(xcr0, XCR0_AMX) && bits(d7, 1u << 24 | 1u << 25) &&
               syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILEDATA) == 0;
    return (struct cpu_features){
        avx2, avx512, avx512 && bits(c7, 1u << 11), avx2 && bits(a71, 1u << 4), amx, false};
}

/* ---- panic and the log's way out ---- */

void panic(const char *file, int line, const char *what)
{
    if (platform.panic_hook)
        platform.panic_hook(file, line, what);
    fflush(stdout);
    fprintf(stderr, "panic: %s:%d: %s\n", file, line, what);
    abort();
}

void platform_panic_hook(void (*hook)(const char *file, int line, const char *what))
{
    platform.panic_hook = hook;
}

static void log_to_stderr(struct str line)
{
    fprintf(stderr, "%.*s", (int)line.len, line.ptr);
}

void platform_log_stderr(void)
{
    log_sink_add(log_to_stderr);
}
