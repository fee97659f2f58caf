/*
 * ml_device_test.c: a program on a simulated card: made by hand from one kernel in RDNA3 machine
 * code, so that nothing of the compiler is asked. Memory, windows, barriers, runs of nothing, and
 * what becomes of a run when a kernel faults or the card dies.
 */
#include "ml/compile/priv.h"
#include "ml/device.h"
#include "tests/amdgpu_rig.h"
#include "tests/test.h"

#define START_MS   60000u
#define GROUPS     20u
#define WORDS      (GROUPS * 32u)
#define BYTES      (WORDS * 4u)
#define CODE_BYTES 512u /* the kernel, and one that is no code */
#define TURNS_MAX  100000u

enum { STATE, INPUT, EXTERNALS };

static struct rig rig;
static u8 code[CODE_BYTES];
static struct launch launch[3];
static struct dispatch dispatch[3];

/* Each launch increments all of one external: STATE, STATE, INPUT. */
static struct program program_of(void)
{
    static u32 arg[] = {STATE, STATE, INPUT};

    memcpy(code, rig_increment_code, sizeof rig_increment_code);
    memset(code + 256, 0xff, 256);
    for (u32 i = 0; i < ARRAY_LEN(launch); i++)
        launch[i] = (struct launch){.arg_first = i,
                                    .arg_count = 1,
                                    .grid = {dim_sym(0)},
                                    .grid_divisor = {1},
                                    .grid_rank = 1,
                                    .barrier = true,
                                    .waves = 1,
                                    .rsrc = {0x40af0000, 0x84}};
    for (u32 i = 0; i < ARRAY_LEN(launch); i++)
        dispatch[i] = (struct dispatch){.arg_first = i,
                                        .launch_first = i,
                                        .launch_count = 1,
                                        .barrier = true,
                                        .waves = 1,
                                        .rsrc = {0x40af0000, 0x84}};
    return (struct program){.code = code,
                            .code_bytes = sizeof code,
                            .launch = launch,
                            .launch_count = ARRAY_LEN(launch),
                            .dispatch = dispatch,
                            .dispatch_count = ARRAY_LEN(dispatch),
                            .arg = arg,
                            .arg_count = ARRAY_LEN(arg),
                            .external_count = EXTERNALS,
                            .sym_count = 1,
                            .output_arg = {STATE},
                            .output_count = 1,
                            .sym = {{STR("N"), GROUPS}}};
}

static struct device *start(void)
{
    struct device *device;

    memset(&rig, 0, sizeof rig);
    rig_firmware(&rig);
    rig_power_on(&rig);
    rig_start(&rig, START_MS);
    EXPECT_OK(device_open_gpu(&device, rig.gpu));
    EXPECT_EQ(device_target(device).isa, ISA_GFX11);
    return device;
}

static void send_counts_to(struct loaded *loaded, u32 external, u32 first)
{
    u8 *to = device_window(loaded, external, 0, BYTES);

    EXPECT(to);
    for (u32 i = 0; i < WORDS; i++, first++)
        memcpy(to + 4 * i, &first, 4);
    EXPECT_OK(device_send(loaded));
}

static void send_counts(struct loaded *loaded, u32 first)
{
    send_counts_to(loaded, STATE, first);
}

static struct loaded *load(struct device *device, const struct program *program, u64 bytes)
{
    struct loaded *loaded;

    EXPECT_OK(device_load(device, program, &loaded));
    EXPECT(device_window_bytes(device, BYTES) >= BYTES);
    EXPECT_OK(device_alloc(loaded, STATE, bytes, false));
    EXPECT_OK(device_alloc(loaded, INPUT, BYTES, true));
    memset(device_input(loaded, INPUT), 0, BYTES);
    return loaded;
}

static err run(struct device *device, struct loaded *loaded, u32 groups)
{
    u32 sym_value[] = {groups, 0};
    err e;

    device_start(device, loaded, sym_value);
    while ((e = device_advance(device, 0)) == E_BUSY)
        rig_turn(&rig);
    return e;
}

static void expect_counts(struct loaded *loaded, u32 first, u32 by)
{
    const u32 *seen = device_output(loaded, 0);

    for (u32 i = 0; i < WORDS; i++)
        EXPECT_EQ(seen[i], first + i + by);
}

static void expect_clean(void)
{
    if (sim_failure(rig.sim))
        test_fail(__FILE__, __LINE__, "%s", sim_failure(rig.sim));
    rig_close(&rig);
}

/* The card's ledger: all of the LDS of 96 compute units was written. */
static void expect_lds_zeroed(void)
{
    static char json[1 << 20];

    EXPECT(sim_ledger(rig.sim, json, sizeof json) < sizeof json);
    EXPECT(str_find(str_of(json), STR("\"lds_bytes\":6291456")) < strlen(json));
}

TEST(ml_device_card_runs_a_program)
{
    struct device *device = start();
    struct program program = program_of();
    struct loaded *loaded = load(device, &program, BYTES);

    send_counts(loaded, 1000);
    EXPECT_OK(run(device, loaded, GROUPS));
    expect_counts(loaded, 1000, 2);
    EXPECT_OK(run(device, loaded, 0));
    expect_counts(loaded, 1000, 2);
    EXPECT_OK(device_zero(loaded, STATE, 0, BYTES / 2));
    send_counts(loaded, 0);
    EXPECT_OK(device_zero(loaded, STATE, BYTES - 4, 4));
    EXPECT_OK(run(device, loaded, GROUPS / 2));
    const u32 *seen = device_output(loaded, 0);
    for (u32 i = 0; i < WORDS - 1; i++)
        EXPECT_EQ(seen[i], i + (i < WORDS / 2 ? 2 : 0));
    EXPECT_EQ(seen[WORDS - 1], 0);
    EXPECT_OK(device_zero_scratch(loaded));
    EXPECT_OK(run(device, loaded, 0));
    expect_lds_zeroed();
    expect_clean();
}

/* More bytes than two windows hold: the third waits, none is lost. */
TEST(ml_device_card_windows_take_turns)
{
    struct device *device = start();
    struct program program = program_of();
    u64 window = device_window_bytes(device, 0), bytes = 5 * window,
        free = device_bytes_free(device);
    struct loaded *loaded = load(device, &program, bytes);
    u32 waits = 0;

    EXPECT(window && free - device_bytes_free(device) >= bytes);
    for (u64 at = 0; at < bytes; at += window) {
        u8 *to;
        for (; !(to = device_window(loaded, STATE, at, window)); waits++)
            rig_turn(&rig);
        memset(to, (int)(at / window) + 1, window);
        EXPECT_OK(device_send(loaded));
    }
    EXPECT(waits > 0);
    while (device_sent(loaded) == E_BUSY)
        rig_turn(&rig);
    EXPECT_OK(run(device, loaded, 0));
    const u8 *seen = device_output(loaded, 0);
    for (u64 at = 0; at < bytes; at += 4096)
        EXPECT_EQ(seen[at], at / window + 1);
    expect_clean();
}

/* Launches side by side are one dispatch: each group finds its kernel, its arguments and its own
 * number, and waves that its kernel has no use for end. The last launch has two waves and no group.
 */
TEST(ml_device_card_runs_launches_as_one)
{
    struct device *device = start();
    struct program program = program_of();
    u8 *memory = pages_alloc(MIB), *bytes = memory + MIB / 2;
    struct arena arena = arena_on("test", memory, MIB / 2);
    struct code_out out = {.bytes = bytes, .len = CODE_BYTES, .cap = MIB / 2};
    u32 arg[8];

    memcpy(bytes, code, sizeof code);
    program.code = bytes;
    program.arg = arg;
    program.sym[program.sym_count++] = (struct sym){STR("none"), GROUPS};
    program.arg_count = program.dispatch_count = 0;
    launch[2].waves = 2;
    launch[2].grid[0] = dim_sym(1);
    dispatch_open(&program, 0, 3);
    for (u32 i = 0; i < ARRAY_LEN(launch); i++) {
        launch[i].arg_first = program.arg_count;
        launch[i].barrier = false;
        arg[program.arg_count++] = i ? INPUT : STATE;
    }
    EXPECT_OK(dispatch_close(&program, &arena, &out));
    program.code_bytes = out.len;
    program.output_arg[program.output_count++] = INPUT;
    EXPECT_EQ(program.dispatch[0].waves, 2);

    struct loaded *loaded;
    EXPECT_OK(device_load(device, &program, &loaded));
    EXPECT(device_window_bytes(device, BYTES) >= BYTES);
    EXPECT_OK(device_alloc(loaded, STATE, BYTES, false));
    EXPECT_OK(device_alloc(loaded, INPUT, BYTES, false));
    for (u32 groups = GROUPS; groups > 0; groups /= 3) {
        const u32 *state = device_output(loaded, 0), *second = device_output(loaded, 1);
        send_counts_to(loaded, STATE, 1000);
        send_counts_to(loaded, INPUT, 9000);
        EXPECT_OK(run(device, loaded, groups));
        for (u32 i = 0; i < WORDS; i++) {
            EXPECT_EQ(state[i], 1000 + i + (i / 32 < groups));
            EXPECT_EQ(second[i], 9000 + i + (i / 32 < groups));
        }
    }
    pages_free(memory, MIB);
    expect_clean();
}

/* The run is lost and says so; the next one works on what VRAM still holds. */
TEST(ml_device_card_survives_a_kernel_that_faults)
{
    struct device *device = start();
    struct program good = program_of(), bad = good;
    struct loaded *loaded = load(device, &good, BYTES);
    struct dispatch broken[ARRAY_LEN(dispatch)];
    char words[200];
    struct text why = TEXT_ON(words);

    memcpy(broken, dispatch, sizeof broken);
    broken[2].code_offset = 256;
    bad.dispatch = broken;
    struct loaded *faulty = load(device, &bad, BYTES);
    send_counts(loaded, 1000);
    EXPECT_OK(run(device, loaded, GROUPS));
    EXPECT_EQ(run(device, faulty, GROUPS), E_DEVICE);
    for (u32 turn = 0; turn < TURNS_MAX && device_health(device, &why) == E_BUSY; turn++)
        rig_turn(&rig);
    EXPECT_OK(device_health(device, &why));
    struct str reason = str_of(rig_status(&rig).reason);
    EXPECT(str_find(reason, STR("illegal")) < reason.len);
    EXPECT_EQ(rig_status(&rig).vram_losses, 0);
    EXPECT_OK(run(device, loaded, GROUPS));
    expect_counts(loaded, 1000, 4);
    rig_close(&rig);
}

/* The driver lets go of the card in the middle: the run ends, and health says so for ever. */
TEST(ml_device_card_dies)
{
    struct device *device = start();
    struct program program = program_of();
    struct loaded *loaded = load(device, &program, BYTES);
    char words[200];
    struct text why = TEXT_ON(words);

    send_counts(loaded, 1000);
    EXPECT_OK(run(device, loaded, GROUPS));
    gpu_close(rig.gpu);
    EXPECT_EQ(run(device, loaded, GROUPS), E_DEVICE);
    EXPECT_EQ(device_health(device, &why), E_DEVICE);
    EXPECT(why.len);
    rig_close(&rig);
}
