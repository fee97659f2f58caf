/*
 * load.c: from a file to a model that is ready, as a table of steps that the event loop turns. Owns
 * the engine's state while it comes up, and what is said about it; must not know of requests.
 */
#include "ml/priv.h"

#define TABLES_BYTES_MIN (4 * MIB)
#define TABLES_BYTES_MAX (512 * MIB)
#define STEP_COMPILING   3u /* row of load_table: again for each card */

err ml_open(struct ml **out, const struct ml_config *config)
{
    struct ml *ml = pages_alloc(sizeof(*ml));

    if (!ml)
        return E_NOMEM;
    ml->config = *config;
    ml->reason = TEXT_ON(ml->reason_text);
    if (!config->part_count) {
        ml->state = ML_FAILED;
        text_fmt(&ml->reason, "no model file");
    }
    *out = ml;
    return OK;
}

static void close_arena(struct arena *arena)
{
    if (arena->base)
        pages_free(arena->base, arena->cap);
    *arena = (struct arena){};
}

static void forget_reason(struct ml *ml)
{
    memset(ml->reason_text, 0, sizeof(ml->reason_text));
    ml->reason.len = 0;
}

/* ---- the steps; E_BUSY: again ---- */

static err read_model(struct ml *ml)
{
    return gguf_open(&ml->gguf, ml->config.part, ml->config.part_count, &ml->tables, &ml->reason);
}

static err read_vocabulary(struct ml *ml)
{
    TRY(tokenizer_open(&ml->tok, &ml->gguf, &ml->vocabulary, &ml->reason));
    return chat_open(&ml->chat, &ml->gguf, ml->tok, &ml->vocabulary);
}

/* The file's name without folders and ending. */
static struct str file_name(struct str path)
{
    usize begin = path.len, ending = str_ends(path, STR(".gguf")) ? 5 : 0;

    while (begin > 0 && path.ptr[begin - 1] != '/')
        begin--;
    return str_slice(path, begin, path.len - ending);
}

/* The format in which most bytes are. */
static const char *main_format(const struct gguf *gguf)
{
    u64 bytes[QUANT_BF16 + 1] = {}, most = 0;
    const char *best = "";

    for (u32 i = 0; i < gguf->tensor_count; i++) {
        const struct gguf_tensor *t = &gguf->tensor[i];
        bytes[t->format->type] += t->bytes;
        best = bytes[t->format->type] > most ? t->format->name : best;
        most = max_u64(most, bytes[t->format->type]);
    }
    return best;
}

static err describe(struct ml *ml)
{
    const struct model_shape *shape = model_shape(ml->lane[0].model);
    struct str name = file_name(str_of(ml->config.part[0].name)), architecture = {};

    (void)gguf_str(&ml->gguf, "general.architecture", &architecture);
    if (!name.len)
        (void)gguf_str(&ml->gguf, "general.name", &name);
    ml->info = (struct ml_model_info){
        .id = arena_str(&ml->work, ml->config.model_id ? str_of(ml->config.model_id) : name),
        .architecture = arena_str(&ml->work, architecture),
        .quantisation = str_of(main_format(&ml->gguf)),
        .parameters = shape->parameters,
        .vocab = shape->vocab,
        .ctx_max = min_u32(shape->ctx_max, shape->kv_tokens),
        .ctx_train = shape->ctx_train,
        .embed = shape->embed,
        .created_unix_s = time_unix_s(),
    };
    for (u32 i = 0; i < ml->config.part_count; i++)
        ml->info.file_bytes += ml->config.part[i].bytes;
    return ml->info.id.ptr && ml->info.architecture.ptr ? OK : E_NOMEM;
}

/* One lane of all cards, each with its share of the layers. */
static void join_lanes(struct ml *ml)
{
    struct lane *all = &ml->lane[0];

    for (u32 i = 1; i < ml->lane_count; i++)
        all->gpu[all->gpu_count++] = ml->lane[i].gpu[0];
    log_info("ml", "the layers are split over %u cards", all->gpu_count);
    ml->lane_count = 1;
}

/* All cards that are READY, once none may still become so; each gets a copy of the model. */
static err await_cards(struct ml *ml)
{
    enum ml_device device = ml->config.device;
    u32 cards = device == ML_DEVICE_CPU ? 0 : min_u32(ml->config.gpu_count, ML_LANES_MAX);
    err e = E_NOTFOUND;

    ml->lane_count = 0;
    for (u32 i = 0; i < cards; i++) {
        forget_reason(ml);
        e = device_gpu_state(ml->config.gpu[i], &ml->reason);
        if (e == E_BUSY)
            return e;
        if (e == OK)
            ml->lane[ml->lane_count++] = (struct lane){.gpu = {ml->config.gpu[i]}, .gpu_count = 1};
    }
    TRY(device_open(&ml->cores, ml->config.threads));
    if (ml->lane_count > 1 && ml->config.split_layers)
        join_lanes(ml);
    if (ml->lane_count)
        return OK;
    if (device == ML_DEVICE_GPU)
        return e == E_NOTFOUND
                   ? gguf_refuse(&ml->reason, e, "nohost.conf wants a graphics card, there is none")
                   : e;
    if (e == E_DEVICE)
        log_warn("ml", "the CPU computes: %s", ml->reason_text);
    forget_reason(ml);
    ml->lane_count = 1;
    return OK;
}

/* With the first lane's cards joined by all others when one is too small; else without this lane;
 * without any on the cores. */
static err drop_lane(struct ml *ml, err why)
{
    struct lane *lane = &ml->lane[ml->load_lane];
    bool last = ml->lane_count == 1, cards = why == E_NOMEM || why == E_DEVICE;

    if (!lane->gpu_count || !cards || (last && ml->config.device == ML_DEVICE_GPU))
        return why;
    if (why == E_NOMEM && !last && ml->load_lane == 0) {
        log_info("ml", "%s", ml->reason_text);
        forget_reason(ml);
        join_lanes(ml);
        return OK;
    }
    log_warn("ml", "%s: %s", last ? "the CPU computes" : "one card less", ml->reason_text);
    forget_reason(ml);
    ml->lane_count -= !last;
    for (u32 i = ml->load_lane; i < ml->lane_count && !last; i++)
        ml->lane[i] = ml->lane[i + 1];
    if (last)
        *lane = (struct lane){};
    return OK;
}

/* One lane after the other; E_BUSY: again with what is left. */
static err build(struct ml *ml)
{
    struct lane *lane = &ml->lane[ml->load_lane];
    struct model_config config = {
        .limits = &ml->config, .cores = ml->cores, .gpu = lane->gpu, .gpu_count = lane->gpu_count};

    if (ml->load_lane == ml->lane_count) /* the last one was dropped */
        return OK;
    err e = model_open(&lane->model, &ml->gguf, &config, &ml->reason);
    if (e != OK) {
        TRY(drop_lane(ml, e));
        return E_BUSY;
    }
    u32 tokens = tokenizer_facts(ml->tok)->vocab, logits = model_shape(lane->model)->vocab;
    if (tokens > logits)
        return gguf_refuse(&ml->reason, E_FORMAT, "%u tokens, but the model has logits for %u",
                           tokens, logits);
    if (!ml->work.base) {
        TRY(engine_start(ml));
        TRY(describe(ml));
    }
    return batch_init(&lane->batch, &ml->work, model_shape(lane->model));
}

/* Then the next lane is compiled for. */
static err pack(struct ml *ml)
{
    struct lane *lane = &ml->lane[ml->load_lane];
    bool done;

    if (ml->load_lane < ml->lane_count) {
        err e = model_load(lane->model, ml->load_deadline_ns, &done, &ml->percent, &ml->reason);
        if (e != OK)
            TRY(drop_lane(ml, e));
        if (e == OK && !done)
            return E_BUSY;
        if (e == OK) {
            lane->state = LANE_READY;
            ml->load_lane++;
        }
        if (ml->load_lane < ml->lane_count) {
            ml->load_step = STEP_COMPILING;
            return E_BUSY;
        }
    }
    if (!model_keeps_file(ml->lane[0].model))
        close_arena(&ml->tables);
    return OK;
}

static const struct load_step {
    const char *name;
    err (*run)(struct ml *ml);
    usize arena; /* where in struct ml the one is whose size shows only while it is filled; or 0 */
} load_table[] = {
    {"reading model", read_model, offsetof(struct ml, tables)},
    {"reading vocabulary", read_vocabulary, offsetof(struct ml, vocabulary)},
    {"waiting for the graphics card", await_cards, 0},
    {"compiling", build, 0},
    {"repacking weights", pack, 0},
};

/* With an arena: tries again with more memory. */
static err run_step(struct ml *ml, const struct load_step *step)
{
    struct arena *arena = (void *)((u8 *)ml + step->arena);
    err why = step->arena ? E_NOMEM : step->run(ml);

    for (usize bytes = TABLES_BYTES_MIN; step->arena && why == E_NOMEM && bytes <= TABLES_BYTES_MAX;
         bytes *= 2) {
        close_arena(arena);
        void *memory = pages_alloc(bytes);
        if (!memory)
            return E_NOMEM;
        *arena = arena_on("model tables", memory, bytes);
        forget_reason(ml);
        why = step->run(ml);
    }
    return why;
}

bool load_advance(struct ml *ml, u64 deadline_ns)
{
    const struct load_step *step = &load_table[ml->load_step];

    ml->load_deadline_ns = deadline_ns;
    err why = run_step(ml, step);
    if (why != OK && why != E_BUSY) {
        if (!ml->reason.len)
            text_fmt(&ml->reason, "%s: %s", step->name, err_text(why));
        log_error("ml", "%s failed: %s", step->name, ml->reason_text);
        ml->state = ML_FAILED;
        return false;
    }
    ml->load_step += why == OK;
    if (ml->load_step < ARRAY_LEN(load_table))
        return true;
    ml->state = ML_READY;
    ml->loaded = true;
    log_info("ml", "%.*s is ready: %u slots of %u tokens", (int)ml->info.id.len, ml->info.id.ptr,
             ml->lane_count * ml->lane[0].batch.slots, ml->info.ctx_max);
    return false;
}

void ml_status(const struct ml *ml, struct ml_status *status)
{
    *status = (struct ml_status){.state = ml->state, .percent = ml->percent};
    status->step = ml->state == ML_READY ? "ready"
                   : ml->loaded          ? "sending the weights again"
                                         : load_table[ml->load_step].name;
    if (!ml->config.part_count)
        status->step = "no model file";
    if (ml->state == ML_FAILED)
        status->reason = ml->reason_text;
}

const struct ml_model_info *ml_model_info(const struct ml *ml)
{
    return &ml->info;
}
