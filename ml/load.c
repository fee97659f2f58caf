/*
 * load.c: from a file to a model that is ready, as a table of steps that the event loop turns. Owns
 * the engine's state while it comes up, and what is said about it; must not know of requests.
 */
#include "ml/priv.h"

#define TABLES_BYTES_MIN (4 * MIB)
#define TABLES_BYTES_MAX (512 * MIB)

static err read_model(struct ml *ml, u64 deadline_ns, bool *done);
static err read_vocabulary(struct ml *ml, u64 deadline_ns, bool *done);
static err build(struct ml *ml, u64 deadline_ns, bool *done);
static err pack(struct ml *ml, u64 deadline_ns, bool *done);

static const struct load_step {
    const char *name;
    err (*run)(struct ml *ml, u64 deadline_ns, bool *done);
} load_table[] = {
    {"reading model", read_model},
    {"reading vocabulary", read_vocabulary},
    {"compiling", build},
    {"repacking weights", pack},
};

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

void ml_close(struct ml *ml)
{
    if (ml->model)
        model_close(ml->model);
    close_arena(&ml->tables);
    close_arena(&ml->vocabulary);
    close_arena(&ml->work);
    close_arena(&ml->scratch);
    pages_free(ml, sizeof(*ml));
}

bool load_advance(struct ml *ml, u64 deadline_ns)
{
    const struct load_step *step = &load_table[ml->load_step];
    bool done = true;
    err why = step->run(ml, deadline_ns, &done);

    if (why != OK) {
        if (!ml->reason.len)
            text_fmt(&ml->reason, "%s: %s", step->name, err_text(why));
        log_error("ml", "%s failed: %.*s", step->name, (int)ml->reason.len, ml->reason.ptr);
        ml->state = ML_FAILED;
        return false;
    }
    ml->load_step += done;
    if (ml->load_step == ARRAY_LEN(load_table)) {
        ml->state = ML_READY;
        log_info("ml", "%.*s is ready: %u slots of %u tokens", (int)ml->info.id.len,
                 ml->info.id.ptr, ml->batch.slots, ml->info.ctx_max);
    }
    return ml->state == ML_LOADING;
}

void ml_status(const struct ml *ml, struct ml_status *status)
{
    *status = (struct ml_status){.state = ml->state, .percent = ml->percent};
    status->step = ml->state == ML_READY ? "ready" : load_table[ml->load_step].name;
    if (!ml->config.part_count)
        status->step = "no model file";
    if (ml->state == ML_FAILED)
        status->reason = ml->reason_text;
}

const struct ml_model_info *ml_model_info(const struct ml *ml) { return &ml->info; }

/* ---- the steps ---- */

/* How much a file's tables need shows only when they are read: tries again with more memory. */
static err with_enough(struct ml *ml, struct arena *arena, err (*run)(struct ml *ml))
{
    err why = E_NOMEM;

    for (usize bytes = TABLES_BYTES_MIN; why == E_NOMEM && bytes <= TABLES_BYTES_MAX; bytes *= 2) {
        close_arena(arena);
        void *memory = pages_alloc(bytes);
        if (!memory)
            return E_NOMEM;
        *arena = arena_on("model tables", memory, bytes);
        memset(ml->reason_text, 0, sizeof(ml->reason_text));
        ml->reason.len = 0;
        why = run(ml);
    }
    return why;
}

static err open_gguf(struct ml *ml)
{
    return gguf_open(&ml->gguf, ml->config.part, ml->config.part_count, &ml->tables, &ml->reason);
}

static err read_model(struct ml *ml, u64 deadline_ns, bool *done)
{
    (void)deadline_ns, (void)done;
    return with_enough(ml, &ml->tables, open_gguf);
}

static struct str copy_key(struct ml *ml, const char *name)
{
    struct str value = {};

    if (gguf_key(&ml->gguf, name) && gguf_str(&ml->gguf, name, &value) != OK)
        return (struct str){};
    return arena_str(&ml->vocabulary, value);
}

/* The file's name without folders and ending. */
static struct str file_name(struct str path)
{
    struct str rest = path;

    while (str_find_char(rest, '/') < rest.len)
        (void)str_cut(path, '/', &rest), path = rest;
    return str_ends(path, STR(".gguf")) ? str_slice(path, 0, path.len - 5) : path;
}

/* The format in which most bytes are. */
static const char *main_format(const struct gguf *gguf)
{
    const struct quant_format *best = NULL;
    u64 most = 0;

    for (u32 i = 0; i < gguf->tensor_count; i++) {
        u64 bytes = 0;
        for (u32 n = 0; n < gguf->tensor_count; n++)
            bytes += gguf->tensor[n].format == gguf->tensor[i].format ? gguf->tensor[n].bytes : 0;
        if (bytes > most && gguf->tensor[i].format != best) {
            best = gguf->tensor[i].format;
            most = bytes;
        }
    }
    return best ? best->name : "";
}

static err open_vocabulary(struct ml *ml)
{
    TRY(tokenizer_open(&ml->tok, &ml->gguf, &ml->vocabulary, &ml->reason));
    TRY(chat_open(&ml->chat, &ml->gguf, ml->tok, &ml->vocabulary));
    struct str name = file_name(str_of(ml->config.part[0].name));
    if (!name.len)
        name = copy_key(ml, "general.name");
    ml->info = (struct ml_model_info){
        .id = ml->config.model_id ? str_of(ml->config.model_id) : name,
        .architecture = copy_key(ml, "general.architecture"),
        .quantisation = str_of(main_format(&ml->gguf)),
        .created_unix_s = time_unix_s(),
        .has_chat_template = ml->chat.source.len > 0,
    };
    return ml->info.id.ptr && ml->info.architecture.ptr ? OK : E_NOMEM;
}

static err read_vocabulary(struct ml *ml, u64 deadline_ns, bool *done)
{
    (void)deadline_ns, (void)done;
    return with_enough(ml, &ml->vocabulary, open_vocabulary);
}

static err build(struct ml *ml, u64 deadline_ns, bool *done)
{
    (void)deadline_ns, (void)done;
    TRY(model_open(&ml->model, &ml->gguf, &ml->config, 0, &ml->reason));
    const struct model_shape *shape = model_shape(ml->model);
    if (tokenizer_vocab(ml->tok) > shape->vocab)
        return gguf_refuse(&ml->reason, E_FORMAT, "%u tokens, but the model has logits for %u",
                           tokenizer_vocab(ml->tok), shape->vocab);
    for (u32 i = 0; i < ml->config.part_count; i++)
        ml->info.file_bytes += ml->config.part[i].bytes;
    ml->info.parameters = shape->parameters;
    ml->info.vocab = shape->vocab;
    ml->info.ctx_max = min_u32(shape->ctx_max, shape->kv_tokens);
    ml->info.ctx_train = shape->ctx_train;
    ml->info.layers = shape->layers;
    ml->info.embed = shape->embed;
    return engine_start(ml);
}

static err pack(struct ml *ml, u64 deadline_ns, bool *done)
{
    TRY(model_load(ml->model, deadline_ns, done, &ml->percent, &ml->reason));
    if (*done)
        close_arena(&ml->tables);
    return OK;
}
