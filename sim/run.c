/*
 * run.c: `radeon run`: a kernel out of a code object, with buffers from files, on the shader
 * engines alone. Does what a runtime and the packet processor do for a launch: loads the code, lays
 * the arguments out, sets the first SGPRs up. Follows LLVM's "User Guide for AMDGPU Backend",
 * sections "Kernel Dispatch" and "Initial Kernel Execution State".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/elf.h"
#include "sim/radeon.h"
#include "sim/run.h"
#include "sim/space.h"

#define STEP_INSTRUCTIONS (1ull << 20)
#define LDS_BYTES_MAX     65536u
#define LDS_GRANULE       512u
#define SCRATCH_GRANULE   256u
#define WAVE_LANES        32u
#define WGPS              48u /* of an RX 7900 XTX */
#define WAVES_A_WGP       64u
#define QUEUE_BYTES       256u

struct launch {
    const struct run_options *options;
    struct code_object code;
    struct kernel kernel;
    struct space space;
    u8 *kernarg;
    u64 image_va, kernarg_va, packet_va, queue_va;
    u32 lds_bytes;
    struct compute_dispatch dispatch;
};

/* ---- memory ---- */

static void load_code(struct launch *run)
{
    struct space_region *image;
    usize bytes;
    const u8 *file = radeon_file(run->options->path, &bytes);

    if (object_open(file, bytes, &run->code) != OK ||
        object_kernel(&run->code, str_of(run->options->kernel), &run->kernel) != OK)
        radeon_fail("%s: cannot be run", run->options->path);
    image = space_add(&run->space, "the code object", round_up(run->code.span, 4096), true, true);
    run->image_va = image->va;
    if (object_load(&run->code, image->va, image->host) != OK)
        radeon_fail("%s: cannot be loaded", run->options->path);
    run->dispatch.code = image->va + run->kernel.entry;
}

static void fill_buffer(struct run_arg *arg, u8 *host)
{
    usize bytes;
    u8 *data;

    if (arg->kind == RUN_OUT)
        return;
    data = radeon_file(arg->path, &bytes);
    memcpy(host, data, min_u64(bytes, arg->bytes));
    free(data);
}

static u64 buffer_of(struct launch *run, struct run_arg *arg, u32 number)
{
    char name[32];
    struct space_region *region;

    if (arg->kind != RUN_OUT)
        free(radeon_file(arg->path, (usize *)&arg->bytes));
    snprintf(name, sizeof(name), "argument %u", number);
    region = space_add(&run->space, name, arg->bytes, arg->kind != RUN_IN, arg->kind != RUN_OUT);
    arg->host = region->host;
    fill_buffer(arg, region->host);
    return region->va;
}

/* ---- arguments ---- */

static u64 hidden_value(const struct launch *run, enum kernel_arg_kind kind)
{
    const struct run_options *options = run->options;
    u32 axis = ((u32)kind - KERNEL_ARG_COUNT_X) % 3;

    switch (kind) {
    case KERNEL_ARG_COUNT_X:
    case KERNEL_ARG_COUNT_Y:
    case KERNEL_ARG_COUNT_Z:
        return options->grid[axis] / options->block[axis];
    case KERNEL_ARG_GROUP_X:
    case KERNEL_ARG_GROUP_Y:
    case KERNEL_ARG_GROUP_Z:
        return options->block[axis];
    case KERNEL_ARG_REST_X:
    case KERNEL_ARG_REST_Y:
    case KERNEL_ARG_REST_Z:
        return options->grid[axis] % options->block[axis];
    case KERNEL_ARG_DIMS:
        return options->dims;
    case KERNEL_ARG_DYNAMIC_LDS:
        return run->lds_bytes - run->kernel.lds_bytes;
    case KERNEL_ARG_PRIVATE_BASE:
        return 0x20000; /* upper halves of the apertures, as SH_MEM_BASES has them */
    case KERNEL_ARG_SHARED_BASE:
        return 0x10000;
    case KERNEL_ARG_QUEUE:
        return run->queue_va;
    default: /* global offsets too */
        return 0;
    }
}

/* One argument's bytes into its place. */
static void place(struct launch *run, const struct kernel_arg *to, const void *from, usize bytes,
                  u32 number)
{
    if (bytes < to->bytes)
        radeon_fail("argument %u has %u bytes, %zu are given", number, to->bytes, bytes);
    memcpy(run->kernarg + to->offset, from, to->bytes);
}

static void place_argument(struct launch *run, const struct kernel_arg *to, struct run_arg *arg,
                           u32 number)
{
    bool buffer = arg->kind == RUN_IN || arg->kind == RUN_INOUT || arg->kind == RUN_OUT;
    u64 value = arg->value;

    if (to->kind == KERNEL_ARG_OTHER)
        radeon_fail("argument %u is of a kind that is not supported", number);
    if (buffer != (to->kind == KERNEL_ARG_BUFFER) &&
        !(arg->kind == RUN_VALUE && to->kind == KERNEL_ARG_BUFFER))
        radeon_fail("argument %u: %s a buffer", number, buffer ? "is not" : "must be");
    if ((arg->kind == RUN_LDS) != (to->kind == KERNEL_ARG_LDS))
        radeon_fail("argument %u: lds:BYTES goes with __local pointers only", number);
    if (arg->kind == RUN_LDS) {
        value = round_up(run->lds_bytes, 16);
        run->lds_bytes = (u32)(value + arg->bytes);
    }
    if (buffer)
        value = buffer_of(run, arg, number);
    if (arg->kind == RUN_BYTES)
        place(run, to, arg->data, arg->bytes, number);
    else
        place(run, to, &value, arg->kind == RUN_VALUE ? arg->bytes : 8, number);
}

static void lay_out_arguments(struct launch *run)
{
    struct run_options *options = (struct run_options *)run->options;
    struct space_region *region =
        space_add(&run->space, "the kernel arguments",
                  round_up((u64)run->kernel.kernarg_bytes + 1, 256), false, true);
    u32 given = 0;

    run->kernarg = region->host;
    run->kernarg_va = region->va;
    run->lds_bytes = run->kernel.lds_bytes + options->lds_bytes;
    for (u32 n = 0; n < run->kernel.arg_count; n++) {
        const struct kernel_arg *to = &run->kernel.arg[n];

        if (to->kind >= KERNEL_ARG_COUNT_X)
            continue;
        if (given == options->arg_count)
            radeon_fail("argument %u is missing", given);
        place_argument(run, to, &options->arg[given], given);
        given++;
    }
    if (given != options->arg_count)
        radeon_fail("%s takes %u arguments, %u are given", options->kernel, given,
                    options->arg_count);
    for (u32 n = 0; n < run->kernel.arg_count; n++) {
        u64 value = hidden_value(run, run->kernel.arg[n].kind);

        if (run->kernel.arg[n].kind >= KERNEL_ARG_COUNT_X)
            memcpy(run->kernarg + run->kernel.arg[n].offset, &value,
                   min_u32(run->kernel.arg[n].bytes, 8));
    }
}

/* ---- what SGPRs point to ---- */

/* The AQL packet that a kernel may look at. */
static void write_packet(struct launch *run)
{
    const struct run_options *options = run->options;
    struct packet {
        u16 header, setup, group[3], reserved;
        u32 grid[3], scratch_bytes, lds_bytes;
        u64 kernel, kernarg, reserved2, signal;
    } packet = {.header = 2, /* a kernel dispatch */
                .setup = (u16)options->dims,
                .scratch_bytes = run->kernel.scratch_bytes,
                .lds_bytes = run->lds_bytes,
                .kernel = run->image_va + run->kernel.descriptor,
                .kernarg = run->kernarg_va};
    struct space_region *region = space_add(&run->space, "the dispatch packet", 64, false, true);

    _Static_assert(sizeof(packet) == 64, "an AQL packet");
    for (u32 axis = 0; axis < 3; axis++) {
        packet.group[axis] = (u16)options->block[axis];
        packet.grid[axis] = options->grid[axis];
    }
    memcpy(region->host, &packet, sizeof(packet));
    run->packet_va = region->va;
}

static void set_up_sgprs(struct launch *run)
{
    const u64 pointers[] = {run->packet_va, run->queue_va, run->kernarg_va, 0, 0};
    u32 *sgpr = run->dispatch.user_data, count = run->dispatch.rsrc2 >> 1 & 31, at = 0;

    if (run->kernel.properties & KERNEL_PRIVATE_BUFFER)
        at += 4; /* nobody uses it where scratch instructions exist */
    for (u32 n = 0; n < ARRAY_LEN(pointers) && at + 2 <= ARRAY_LEN(run->dispatch.user_data); n++)
        if (run->kernel.properties & (u32)KERNEL_DISPATCH_PTR << n) {
            sgpr[at++] = (u32)pointers[n];
            sgpr[at++] = (u32)(pointers[n] >> 32);
        }
    if (run->kernel.properties & KERNEL_PRIVATE_SIZE && at < ARRAY_LEN(run->dispatch.user_data))
        sgpr[at++] = run->kernel.scratch_bytes;
    if (at > count)
        radeon_fail("the kernel wants %u user SGPRs and has %u", at, count);
}

static void set_up_scratch(struct launch *run)
{
    u32 lane_bytes = max_u32(run->kernel.scratch_bytes, run->options->scratch_bytes);
    u64 wave_bytes = round_up((u64)lane_bytes * WAVE_LANES, SCRATCH_GRANULE);
    u64 waves = WGPS * WAVES_A_WGP;

    if (run->kernel.dynamic_stack && !run->options->scratch_bytes)
        radeon_fail("the kernel's stack grows as it runs: say --scratch BYTES for a work-item's");
    if (!lane_bytes)
        return;
    run->dispatch.scratch =
        space_add(&run->space, "scratch memory", waves * wave_bytes, true, false)->va;
    run->dispatch.tmpring = (u32)(waves | wave_bytes / SCRATCH_GRANULE << 12);
}

static void set_up(struct launch *run)
{
    const struct run_options *options = run->options;
    struct compute_dispatch *dispatch = &run->dispatch;
    u32 lds_blocks;

    load_code(run);
    lay_out_arguments(run);
    run->queue_va = space_add(&run->space, "the queue", QUEUE_BYTES, false, true)->va;
    write_packet(run);
    set_up_scratch(run);
    lds_blocks = (u32)div_up(run->lds_bytes, LDS_GRANULE);
    if (run->lds_bytes > LDS_BYTES_MAX)
        radeon_fail("%u bytes of LDS, a workgroup may have %u", run->lds_bytes, LDS_BYTES_MAX);
    dispatch->rsrc1 = run->kernel.rsrc1;
    dispatch->rsrc2 = (run->kernel.rsrc2 & ~(0x1ffu << 15)) | lds_blocks << 15;
    dispatch->rsrc3 = run->kernel.rsrc3;
    dispatch->wave64 = !run->kernel.wave32;
    for (u32 axis = 0; axis < 3; axis++) {
        dispatch->groups[axis] = (u32)div_up(options->grid[axis], options->block[axis]);
        dispatch->group_size[axis] = options->block[axis];
        dispatch->last_size[axis] = options->grid[axis] % options->block[axis];
    }
    set_up_sgprs(run);
}

/* ---- answers ---- */

static void write_buffers(const struct run_options *options)
{
    for (u32 n = 0; n < options->arg_count; n++) {
        const struct run_arg *arg = &options->arg[n];
        FILE *file;

        if (arg->kind != RUN_INOUT && arg->kind != RUN_OUT)
            continue;
        file = fopen(arg->path, "wb");
        if (!file || fwrite(arg->host, 1, arg->bytes, file) != arg->bytes || fclose(file))
            radeon_fail("cannot write %s", arg->path);
    }
}

static void print_ledger(const struct launch *run, const struct compute_ledger *ledger)
{
    const struct run_options *options = run->options;
    const struct {
        const char *name;
        u64 value;
    } counts[] = {{"waves", ledger->waves},
                  {"groups", ledger->groups},
                  {"barriers", ledger->barriers},
                  {"salu", ledger->salu},
                  {"valu", ledger->valu},
                  {"vopd", ledger->vopd},
                  {"dot", ledger->dot},
                  {"wmma", ledger->wmma},
                  {"trans", ledger->trans},
                  {"smem", ledger->smem},
                  {"lds", ledger->lds},
                  {"vmem_loads", ledger->vmem_loads},
                  {"vmem_stores", ledger->vmem_stores},
                  {"atomics", ledger->atomics},
                  {"branches", ledger->branches},
                  {"waits", ledger->waits},
                  {"other", ledger->other},
                  {"lanes", ledger->lanes},
                  {"load_bytes", ledger->load_bytes},
                  {"store_bytes", ledger->store_bytes},
                  {"sectors_loaded", ledger->sectors_loaded},
                  {"sectors_stored", ledger->sectors_stored},
                  {"requests", ledger->requests},
                  {"lds_bytes", ledger->lds_bytes},
                  {"lds_conflicts", ledger->lds_conflicts},
                  {"lines_loaded", ledger->lines_loaded},
                  {"flight_bytes_max", ledger->flight_bytes_max},
                  {"wgp_groups", ledger->wgp_groups}};

    printf("{\"kernel\": \"%s\", \"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], "
           "\"mode\": \"%s\", \"seed\": %llu",
           options->kernel, options->grid[0], options->grid[1], options->grid[2], options->block[0],
           options->block[1], options->block[2],
           options->fast      ? "fast"
           : options->lenient ? "lenient"
                              : "strict",
           (unsigned long long)options->seed);
    for (u32 n = 0; n < ARRAY_LEN(counts); n++)
        printf(", \"%s\": %llu", counts[n].name, (unsigned long long)counts[n].value);
    printf("}\n");
}

static int explain_failure(const struct launch *run, const struct compute_failure *why)
{
    char memory[256] = "";

    if (why->kind == COMPUTE_VIOLATION)
        space_explain(&run->space, memory, sizeof(memory));
    fprintf(stderr, "radeon: %s: %s\n", why->name, why->text);
    if (memory[0])
        fprintf(stderr, "radeon: %s\n", memory);
    fprintf(stderr, "radeon: workgroup %u,%u,%u wave %u, pc %s+%#llx\n", why->group[0],
            why->group[1], why->group[2], why->wave, run->options->kernel,
            (unsigned long long)(why->pc - run->dispatch.code));
    return 1;
}

static void report(void *ctx, const char *line)
{
    (void)ctx;
    fprintf(stderr, "radeon: %s\n", line);
}

int run_kernel(const struct run_options *options)
{
    struct launch run = {.options = options,
                         .space = {.seed = options->seed, .direct = options->fast}};
    struct compute_memory memory = space_memory(&run.space);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct compute_options how = {.seed = options->seed,
                                  .fast = options->fast,
                                  .lenient = options->lenient,
                                  .wgps = WGPS,
                                  .threads = options->fast && cores > 1 ? (u32)cores : 1,
                                  .report = report};
    enum compute_state state = COMPUTE_RUNNING;
    struct compute *compute;

    set_up(&run);
    compute = compute_create(&memory, &how);
    if (!compute || compute_start(compute, &run.dispatch) != OK)
        radeon_fail("%s cannot be started", options->kernel);
    for (u64 left = options->limit; state == COMPUTE_RUNNING && left;
         left -= min_u64(left, STEP_INSTRUCTIONS))
        state = compute_step(compute, STEP_INSTRUCTIONS);
    if (state == COMPUTE_FAILED)
        return explain_failure(&run, compute_failure(compute));
    if (state != COMPUTE_DONE) {
        fprintf(stderr, "radeon: time-limit: still running after %llu instructions of waves\n",
                (unsigned long long)options->limit);
        return 1;
    }
    write_buffers(options);
    print_ledger(&run, compute_ledger(compute));
    compute_destroy(compute);
    return 0;
}
