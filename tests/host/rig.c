/*
 * rig.c: see rig.h. The driver's device.c is included here, so that it meets BARs and vectors of
 * the model; everything else of pci/ is the real thing.
 */
#define _GNU_SOURCE
#include "tests/host/rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/host/platform.h"
#include "tests/pci_fake.h"

static err rig_map_bar(struct pci_dev *dev, u32 bar, struct mmio *out);
static err rig_vector_on(struct pci_dev *dev, u32 idx, void (*handler)(void *ctx), void *ctx);
static err rig_resize_bar(struct pci_bus *bus, struct pci_dev *dev, u32 idx);
#define pci_map_bar    rig_map_bar
#define pci_vector_on  rig_vector_on
#define pci_resize_bar rig_resize_bar
#include "amdgpu/device.c"
#undef pci_map_bar
#undef pci_vector_on
#undef pci_resize_bar

#define CLOCK_START_NS NS_PER_S
#define HOST_HIGH      (0x7ull << 44) /* what vm_physical of the fake has cut off */
#define STEP_BUDGET    10000u
#define STEPS_A_TURN   20u
#define TURN_NS        200000u /* what the rest of the loop takes */

/* The machine's clock is that of the card which is furthest. */
static void tick(const struct rig *rig)
{
    if (!rig->real_time)
        platform_clock_fake(max_u64(time_ns(), CLOCK_START_NS + sim_now_ns(rig->sim)));
}

/* What another card of the machine has taken has passed for this one too. */
static void catch_up(struct rig *rig)
{
    u64 passed_ns = time_ns() - CLOCK_START_NS, now_ns = sim_now_ns(rig->sim);

    if (!rig->real_time && passed_ns > now_ns)
        sim_wait(rig->sim, passed_ns - now_ns);
}

/* ---- the card's side of the machine ---- */

static bool transfer(u64 bus, void *bytes, u64 count, bool write)
{
    struct iovec here = {bytes, count}, there = {(void *)(usize)(bus | HOST_HIGH), count};
    ssize_t done = write ? process_vm_writev(getpid(), &here, 1, &there, 1, 0)
                         : process_vm_readv(getpid(), &here, 1, &there, 1, 0);

    return !(bus >> 44) && done == (ssize_t)count;
}

static bool host_read(void *ctx, u64 bus, void *out, u64 bytes)
{
    (void)ctx;
    return transfer(bus, out, bytes, false);
}

static bool host_write(void *ctx, u64 bus, const void *in, u64 bytes)
{
    (void)ctx;
    return transfer(bus, (void *)(usize)in, bytes, true);
}

/* Page by page, for a card in fast mode. */
static u8 *host_map(void *ctx, u64 bus, u64 *bytes)
{
    u8 probe;

    (void)ctx;
    *bytes = PAGE_BYTES - bus % PAGE_BYTES;
    return transfer(bus, &probe, 1, false) ? (u8 *)(usize)(bus | HOST_HIGH) : NULL;
}

static void host_irq(void *ctx, u32 vector)
{
    struct rig *rig = ctx;

    rig->interrupts++;
    if (rig->handler && vector == 0)
        rig->handler(rig->handler_ctx);
}

static void host_log(void *ctx, const char *line)
{
    (void)ctx;
    log_info("sim", "%s", line);
}

/* ---- the driver's side ---- */

static u64 config_read(void *ctx, u64 offset, u32 width)
{
    struct rig_bar *function = ctx;
    u64 value = sim_config_read(function->rig->sim, function->bar, (u32)offset, width);

    function->rig->register_accesses++;
    tick(function->rig);
    return value;
}

static void config_write(void *ctx, u64 offset, u32 width, u64 value)
{
    struct rig_bar *function = ctx;

    function->rig->register_accesses++;
    sim_config_write(function->rig->sim, function->bar, (u32)offset, width, (u32)value);
    tick(function->rig);
}

static bool find_function(void *ctx, u8 bus, u8 device, u8 function, struct mmio *config)
{
    static const struct mmio_ops ops = {config_read, config_write};
    struct rig *rig = ctx;

    if (bus || device || function > 1)
        return false;
    *config = (struct mmio){.bytes = 4096, .ops = &ops, .ctx = &rig->bar[function]};
    return true;
}

static u64 bar_read(void *ctx, u64 offset, u32 width)
{
    struct rig_bar *bar = ctx;
    u64 value = sim_bar_read(bar->rig->sim, bar->bar, offset, width);

    /* The same register again is a poll. */
    bar->rig->register_accesses += bar->bar == 5 && offset != bar->rig->last_read;
    if (bar->bar == 5)
        bar->rig->last_read = offset;
    tick(bar->rig);
    return value;
}

static void bar_write(void *ctx, u64 offset, u32 width, u64 value)
{
    struct rig_bar *bar = ctx;

    bar->rig->register_accesses += bar->bar == 5;
    bar->rig->last_read = UINT64_MAX;
    sim_bar_write(bar->rig->sim, bar->bar, offset, width, value);
    tick(bar->rig);
}

/* Which rig a device belongs to shows by its config space. */
static struct rig *rig_of(const struct pci_dev *dev)
{
    return ((struct rig_bar *)dev->config.ctx)->rig;
}

static err rig_map_bar(struct pci_dev *dev, u32 bar, struct mmio *out)
{
    static const struct mmio_ops ops = {bar_read, bar_write};
    struct rig *rig = rig_of(dev);

    *out = (struct mmio){.bytes = sim_bar_bytes(rig->sim, bar), .ops = &ops, .ctx = &rig->bar[bar]};
    return out->bytes ? OK : E_NOTFOUND;
}

static err rig_vector_on(struct pci_dev *dev, u32 idx, void (*handler)(void *ctx), void *ctx)
{
    struct rig *rig = rig_of(dev);

    if (rig->no_msi)
        return E_UNSUPPORTED;
    rig->handler = handler;
    rig->handler_ctx = ctx;
    return pci_vector_on(dev, idx, handler, ctx);
}

static err rig_resize_bar(struct pci_bus *bus, struct pci_dev *dev, u32 idx)
{
    return rig_of(dev)->small_bar ? E_UNSUPPORTED : pci_resize_bar(bus, dev, idx);
}

/* ---- building and running ---- */

static struct str read_file(const char *path)
{
    struct stat info;
    int file = open(path, O_RDONLY);

    if (file < 0 || fstat(file, &info) != 0)
        return (struct str){};
    char *bytes = malloc((usize)info.st_size);
    CHECK(bytes && read(file, bytes, (usize)info.st_size) == info.st_size);
    close(file);
    return (struct str){bytes, (usize)info.st_size};
}

bool rig_read_firmware(struct rig *rig)
{
    static const char *const names[] = {"psp_13_0_0_sos.bin", "smu_13_0_0.bin",
                                        "sdma_6_0_0.bin",     "gc_11_0_0_mec.bin",
                                        "gc_11_0_0_imu.bin",  "gc_11_0_0_rlc.bin"};
    static struct str bytes[ARRAY_LEN(names)]; /* read once, never freed */
    char path[96];

    for (u32 i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(path, sizeof path, "build/firmware/%s", names[i]);
        if (!bytes[i].ptr)
            bytes[i] = read_file(path);
        if (!bytes[i].ptr)
            return false;
        rig->file[i] = (struct gpu_file){str_of(names[i]), bytes[i]};
    }
    rig->config.file = rig->file;
    rig->config.file_count = ARRAY_LEN(names);
    return true;
}

void rig_walk(struct rig *rig)
{
    struct pci_ecam ecam = {
        .base = 0xe0000000, .bus_last = 0, .function = find_function, .ctx = rig};

    memset(&rig->bus, 0, sizeof rig->bus);
    CHECK(pci_start(&rig->bus, &ecam, 1) == OK);
    rig->dev = pci_find(&rig->bus, NULL, GPU_VENDOR, 0x744c);
    CHECK(rig->dev || rig->options.fault.kind);
    rig->register_accesses = 0;
    fake_vectors_taken = 0;
}

void rig_power_on(struct rig *rig)
{
    static const struct {
        u32 at, value;
    } bars[] = {{16, 0}, {20, 0x40}, {24, 0x20000000}, {28, 0x40}, {36, 0xfd000000}, {4, 7}};
    rig->host = (struct sim_host){rig, host_read, host_write, host_map, host_irq, host_log};
    for (u32 i = 0; i < ARRAY_LEN(rig->bar); i++)
        rig->bar[i] = (struct rig_bar){rig, i};
    if (!rig->options.trace)
        rig->options.trace = getenv("RIG_TRACE"); /* to compare with another driver by diff */
    rig->sim = sim_create(&rig->options, &rig->host);
    rig->turned_ns = time_ns();
    CHECK(rig->sim);
    if (!rig->real_time)
        platform_clock_fake(CLOCK_START_NS);
    for (u32 i = 0; i < ARRAY_LEN(bars); i++) /* as the machine's firmware leaves it */
        sim_config_write(rig->sim, 0, bars[i].at, 4, bars[i].value);
    tick(rig);
    rig_walk(rig);
}

/* What has passed on the machine's clock; a start that only waits need not take so long. */
static void pass_real_time(struct rig *rig)
{
    if (rig_status(rig).state != GPU_READY)
        platform_clock_skip(TURN_NS);
    u64 now_ns = time_ns();
    sim_wait(rig->sim, now_ns - rig->turned_ns);
    rig->turned_ns = now_ns;
}

bool rig_turn(struct rig *rig)
{
    catch_up(rig);
    bool busy = gpu_step(rig->gpu), more = true;

    rig->turns++;
    for (u32 i = 0; i < STEPS_A_TURN && more; i++)
        more = sim_step(rig->sim, STEP_BUDGET);
    if (rig->real_time) {
        pass_real_time(rig);
        return busy || more;
    }
    /* A card that is still at it has worked for a while; so time passes in an endless kernel. */
    sim_wait(rig->sim, (more ? 50u : busy ? 1u : 5u) * TURN_NS);
    tick(rig);
    return busy || more;
}

void rig_start(struct rig *rig, u64 at_most_ms)
{
    CHECK(gpu_open(&rig->gpu, &rig->bus, rig->dev, &rig->config) == OK);
    u64 end = time_ns() + at_most_ms * NS_PER_MS;
    while (rig_status(rig).state != GPU_READY && rig_status(rig).state != GPU_DEAD &&
           time_ns() < end)
        rig_turn(rig);
}

err rig_wait(struct rig *rig, u64 fence, u64 at_most_ms)
{
    u64 end = time_ns() + at_most_ms * NS_PER_MS;
    err e;

    while ((e = gpu_fence_passed(rig->gpu, fence)) == E_BUSY && time_ns() < end)
        rig_turn(rig);
    return e;
}

void rig_close(struct rig *rig)
{
    sim_destroy(rig->sim);
}

struct gpu_status rig_status(struct rig *rig)
{
    struct gpu_status status;

    gpu_status(rig->gpu, &status);
    return status;
}
