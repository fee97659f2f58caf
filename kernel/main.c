/*
 * main.c: the composition root: the boot table, then the event loop. The only file that sees every
 * room; it holds no logic of theirs. The network is up before the model is, so that /health can say
 * what the machine is doing. Follows: docs/MAP.md.
 */
#include "amdgpu/amdgpu.h"
#include "kernel/kernel.h"
#include "ml/ml.h"
#include "net/net.h"
#include "pci/pci.h"
#include "version.h"

#define SLICE_US       2000u    /* of computing between two looks at the network */
#define IDLE_MAX_NS    NS_PER_S /* the watchdog is fed at least this often */
#define FEED_EVERY_NS  NS_PER_S
#define MODEL_ID_BYTES 65u /* conf.c's limit, and the end */
#define HEAD_START_MS  100u
#define FAREWELL_MS    100u
#define DEAF_NS        (20 * NS_PER_MS) /* a step of loading that made peers wait */
#define QUIET_MS       20u              /* after it, for those who have given up and ask again */
#define TALK_MAX_MS    50u
#define GPU_NAVI31     0x744cu
#define GPU_START_MS   60000u
#define GPU_SLOW_MS    600000u /* no hang yet: a simulated card computes a long prompt */

struct system {
    const struct handoff *handoff;
    struct config config;
    struct pci_bus bus;
    struct nic *nic;
    struct net *net;
    struct ml *ml;
    struct store part[ML_PARTS_MAX];
    struct watchdog watchdog;
    u64 fed_ns;
    struct gpu *gpu[GPU_CARDS_MAX];
    u32 gpu_count;
    struct gpu_file firmware[HANDOFF_FILES_MAX];
    void (*leaving)(void); /* what an authorised client has asked for: the loop does it */
    bool sealed;
    char model_id[MODEL_ID_BYTES];
};

u64 __stack_chk_guard;
static struct system machine; /* callbacks without a context find it here */
void kernel_main(const struct handoff *handoff);

/* ---- the boot table ---- */

static err start_machine(struct system *sys)
{
    char bytes[64];
    struct text name = TEXT_ON(bytes);

    trap_start();
    cpu_start();
    cpu_core_start(core_at(0));
    CHECK(cpu_features()->avx2);
    mem_start(sys->handoff);
    vm_start(sys->handoff);
    acpi_start(sys->handoff->rsdp);
    apic_start();
    clock_start(sys->handoff->unix_s);
    apic_timer_start();
    random_start(sys->handoff);
    screen_start(&sys->handoff->framebuffer);
    smp_start((paddr){sys->handoff->low_page});
    cpu_name(&name);
    log_info("nohost", "%s on %.*s, %lu MiB free", NOHOST_VERSION, (int)name.len, name.ptr,
             pages_available() / MIB);
    return OK;
}

static err start_config(struct system *sys)
{
    const struct handoff_file *file = sys->handoff->files;
    const char *text = (const char *)(HANDOFF_DIRECT_MAP + file->base);

    for (u32 i = 0; i < sys->handoff->file_count; i++)
        if (file[i].status)
            log_warn("files", "%s was not read (UEFI status %lu)", file[i].name, file[i].status);
    conf_read(&sys->config, (struct str){text, file->bytes});
    return OK;
}

static err start_pci(struct system *sys)
{
    struct pci_ecam ecam[ACPI_ECAM_MAX] = {};

    for (u32 i = 0; i < acpi()->ecam_count; i++) {
        const struct acpi_window *w = &acpi()->ecam[i];
        ecam[i] = (struct pci_ecam){w->base, w->segment, w->bus_first, w->bus_last, NULL, NULL};
    }
    TRY(pci_start(&sys->bus, ecam, acpi()->ecam_count));
    err e = watchdog_start(&sys->bus, (u32)sys->config.watchdog_s, &sys->watchdog);
    return e == E_NOTFOUND ? OK : e;
}

/* Opens only: the event loop brings the cards up, step by step. One that cannot be had is left out.
 */
static err start_gpus(struct system *sys)
{
    struct gpu_config config = {.file = sys->firmware,
                                .power_cap_w = (u32)sys->config.power_cap_w,
                                .hang_ms = cpu_features()->translated ? GPU_SLOW_MS : 0};
    struct pci_dev *dev = NULL;

    for (u32 i = 0; i < sys->handoff->file_count; i++) {
        const struct handoff_file *file = &sys->handoff->files[i];
        if (!file->status && str_starts(str_of(file->name), STR("firmware/")))
            sys->firmware[config.file_count++] = (struct gpu_file){
                str_of(file->name), {(const char *)(HANDOFF_DIRECT_MAP + file->base), file->bytes}};
    }
    while (sys->gpu_count < GPU_CARDS_MAX &&
           (dev = pci_find(&sys->bus, dev, GPU_VENDOR, GPU_NAVI31)))
        sys->gpu_count += gpu_open(&sys->gpu[sys->gpu_count], &sys->bus, dev, &config) == OK;
    return OK;
}

/* Opens only: the event loop loads step by step. */
static err start_model(struct system *sys)
{
    const struct config *c = &sys->config;
    struct ml_config ml = {.ctx_max = (u32)c->ctx,
                           .slots = (u32)c->slots,
                           .kv_tokens = (u32)c->kv_tokens,
                           .threads = (u32)c->threads};

    for (u32 i = 0; i < sys->handoff->file_count && ml.part_count < ML_PARTS_MAX; i++) {
        struct store *store = file_store(sys->handoff, i);
        if (store && str_ends(str_of(store->name), STR(".gguf")))
            sys->part[ml.part_count++] = *store;
    }
    static const struct str devices[] = {STR("auto"), STR("cpu"), STR("gpu")}; /* enum ml_device */
    for (u32 i = 0; i < ARRAY_LEN(devices); i++)
        ml.device = str_eq_nocase(c->device, devices[i]) ? (enum ml_device)i : ml.device;
    ml.split_layers = str_eq_nocase(c->cards, STR("layers"));
    ml.gpu = sys->gpu;
    ml.gpu_count = sys->gpu_count;
    ml.part = sys->part;
    memcpy(sys->model_id, c->model_id.ptr, min_u64(c->model_id.len, MODEL_ID_BYTES - 1));
    ml.model_id = c->model_id.len ? sys->model_id : NULL;
    return ml_open(&sys->ml, &ml);
}

static void put_metrics(struct text *out)
{
    net_metrics(out);
    text_fmt(out, "# TYPE nohost_memory_free_bytes gauge\nnohost_memory_free_bytes %lu\n",
             pages_available());
}

/* What the cards are doing, or have died of; false: there are none. */
static bool put_gpu_step(struct text *out)
{
    struct gpu_status status;

    for (u32 i = 0; i < machine.gpu_count; i++) {
        gpu_status(machine.gpu[i], &status);
        text_fmt(out, "%s%s%s%s", i ? "; " : "", status.step, status.state == GPU_DEAD ? ": " : "",
                 status.state == GPU_DEAD ? status.reason : "");
    }
    return machine.gpu_count;
}

static void put_gpus(struct text *out)
{
    text_fmt(out, "{\"gpus\":[");
    for (u32 i = 0; i < machine.gpu_count; i++) {
        text_fmt(out, i ? "," : "");
        gpu_report(machine.gpu[i], out);
    }
    text_fmt(out, "]}");
}

static void ask_reset(void)
{
    machine.leaving = machine_reset;
}

static void ask_power_off(void)
{
    machine.leaving = machine_power_off;
}

static err start_net(struct system *sys)
{
    const struct config *c = &sys->config;
    struct net_config net = {
        .hostname = c->hostname,
        .ip4_address = c->ip,
        .ip4_netmask = c->netmask,
        .ip4_gateway = c->gateway,
        .dns = c->dns,
        .sntp_server = c->ntp,
        .ip4_fallback = c->fallback_ip,
        .api_key_count = c->api_key_count,
        .port = (u16)c->port,
        .version = str_of(NOHOST_VERSION),
        .reset = ask_reset,
        .power_off = ask_power_off,
        .metrics = put_metrics,
        .gpu_step = put_gpu_step,
        .gpus = put_gpus,
    };

    memcpy(net.api_key, c->api_key, sizeof(net.api_key));
    sys->nic = nic_virtio_start(&sys->bus);
    if (!sys->nic)
        sys->nic = nic_e1000e_start(&sys->bus);
    if (!sys->nic)
        log_error("net", "no network card that I can drive (virtio-net, Intel 82574)");
    return net_open(&sys->net, &net, sys->nic, sys->ml);
}

static const struct step {
    const char *name;
    err (*run)(struct system *sys);
    bool vital;
} boot_table[] = {
    {"machine", start_machine, true}, {"config", start_config, true}, {"pci", start_pci, false},
    {"gpus", start_gpus, false},      {"model", start_model, true},   {"net", start_net, true},
};

static void boot(struct system *sys)
{
    char bytes[LOG_LINE_MAX];
    struct text took = TEXT_ON(bytes);

    for (u32 i = 0; i < ARRAY_LEN(boot_table); i++) {
        u64 start = cpu_tsc();
        err e = boot_table[i].run(sys);
        u64 took_us = (cpu_tsc() - start) * 1000000 / clock_hz();
        text_fmt(&took, " %s %lu.%lu", boot_table[i].name, took_us / 1000, took_us / 100 % 10);
        if (e == OK)
            continue;
        log_error("boot", "%s: %s", boot_table[i].name, err_text(e));
        CHECK(!boot_table[i].vital);
    }
    log_info("boot", "milliseconds:%.*s", (int)took.len, took.ptr);
}

/* ---- the event loop ---- */

/* Once loading has ended, well or badly, nothing may grow any more. */
static void note_ready(struct system *sys)
{
    struct ml_status status;

    ml_status(sys->ml, &status);
    if (sys->sealed || status.state == ML_LOADING)
        return;
    mem_seal();
    sys->sealed = true;
    if (status.state == ML_READY)
        log_info("nohost", "ready %llu ms after power-on", time_ns() / NS_PER_MS);
    else
        log_error("nohost", "no model is served: %s", status.reason);
}

static void feed_watchdog(struct system *sys)
{
    if (time_ns() - sys->fed_ns < FEED_EVERY_NS)
        return;
    sys->fed_ns = time_ns();
    watchdog_feed(&sys->watchdog);
}

/* Halts until an interrupt or the next timer; not when a frame has come in meanwhile, or a card has
 * called. */
static void idle(struct system *sys)
{
    cpu_interrupts(false);
    u64 idle_ns = net_idle_ns(sys->net);
    for (u32 i = 0; i < sys->gpu_count; i++)
        idle_ns = gpu_called(sys->gpu[i]) ? 0 : idle_ns;
    if (idle_ns)
        clock_idle(min_u64(idle_ns, IDLE_MAX_NS));
    else
        cpu_interrupts(true);
}

/* Only the network, until it has been quiet for so long. */
static void serve_network(struct system *sys, u64 quiet_ms, u64 most_ms)
{
    struct deadline quiet = deadline_ms(quiet_ms), end = deadline_ms(most_ms);

    while (!deadline_passed(quiet) && !deadline_passed(end))
        if (net_poll(sys->net))
            quiet = deadline_ms(quiet_ms);
}

/* An address takes milliseconds where a DHCP server is near; a step of loading takes longer. */
static void await_address(struct system *sys)
{
    struct deadline end = deadline_ms(HEAD_START_MS);

    while (sys->nic && !net_bound(sys->net) && !deadline_passed(end)) {
        (void)net_poll(sys->net);
        idle(sys);
    }
}

/* Only once the answer to who asked for it has left, and the peer has had time to say so. */
static void leave(struct system *sys)
{
    serve_network(sys, FAREWELL_MS, FAREWELL_MS);
    for (u32 i = 0; i < sys->gpu_count; i++)
        gpu_close(sys->gpu[i]);
    sys->leaving();
    sys->leaving = NULL;
}

static void serve(struct system *sys)
{
    bool deaf = true;

    await_address(sys);
    for (;;) {
        bool busy = net_poll(sys->net);
        if (busy && deaf)
            serve_network(sys, QUIET_MS, TALK_MAX_MS);
        u64 start_ns = time_ns();
        for (u32 i = 0; i < sys->gpu_count; i++)
            busy |= gpu_step(sys->gpu[i]);
        busy |= ml_step(sys->ml, SLICE_US);
        deaf = time_ns() - start_ns > DEAF_NS;
        note_ready(sys);
        feed_watchdog(sys);
        if (sys->leaving)
            leave(sys);
        if (!busy)
            idle(sys);
    }
}

static void turn_gpus(void *ctx)
{
    struct system *sys = ctx;

    for (u32 i = 0; i < sys->gpu_count; i++)
        (void)gpu_step(sys->gpu[i]);
    feed_watchdog(sys);
}

/* `selftest = gpu`: each card alone, before anybody is served. */
static void test_gpus(struct system *sys)
{
    struct deadline end = deadline_ms(GPU_START_MS);
    struct gpu_status status;

    for (u32 i = 0; i < sys->gpu_count; i++) {
        do {
            turn_gpus(sys);
            gpu_status(sys->gpu[i], &status);
        } while (status.state != GPU_READY && status.state != GPU_DEAD && !deadline_passed(end));
        err e = status.state == GPU_READY ? gpu_selftest(sys->gpu[i], turn_gpus, sys) : E_STATE;
        log_info("selftest", "card %u of %u: %s", i + 1, sys->gpu_count, err_text(e));
    }
}

void kernel_main(const struct handoff *handoff)
{
    memcpy(&__stack_chk_guard, handoff->entropy, sizeof(__stack_chk_guard));
    __stack_chk_guard ^= cpu_tsc();
    __stack_chk_guard &= ~0xffull; /* a zero byte stops string overruns */
    serial_start();
    CHECK(handoff->magic == HANDOFF_MAGIC && handoff->version == HANDOFF_VERSION &&
          handoff->bytes == sizeof(struct handoff));
    machine.handoff = handoff;
    boot(&machine);
    selftest(machine.config.selftest);
    if (str_eq(machine.config.selftest, STR("gpu")))
        test_gpus(&machine);
    serve(&machine);
}
