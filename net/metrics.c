/*
 * metrics.c: the numbers of server and runtime in Prometheus' text format 0.0.4. Under our own names,
 * and for routers that pick a backend by load under the names of vLLM's server.
 */
#include "ml/mathf.h"
#include "net/priv.h"

struct family {
    const char *name, *type, *help;
    f64 value;
};

static void put_family(struct text *out, const struct family *family, struct str labels)
{
    text_fmt(out, "# HELP %s %s\n# TYPE %s %s\n%s", family->name, family->help, family->name,
             family->type, family->name);
    if (labels.len)
        text_fmt(out, "{%.*s}", (int)labels.len, labels.ptr);
    text_char(out, ' ');
    text_f64(out, family->value, 9, STR("NaN"));
    text_char(out, '\n');
}

static void put_replies(struct server *server, struct text *out)
{
    text_put(out, STR("# HELP nohost_http_replies_total Answers by class of status.\n"
                      "# TYPE nohost_http_replies_total counter\n"));
    for (u32 class = 2; class < ARRAY_LEN(server->stats.replies); class ++)
        text_fmt(out, "nohost_http_replies_total{class=\"%uxx\"} %lu\n", class,
                 server->stats.replies[class]);
}

static void put_pools(struct server *server, struct text *out)
{
    const struct pool *pool[] = {&server->in_pool, &server->out_pool};

    text_put(out, STR("# HELP nohost_pool_blocks Blocks of the server's byte pools.\n"
                      "# TYPE nohost_pool_blocks gauge\n"));
    for (u32 i = 0; i < ARRAY_LEN(pool); i++)
        text_fmt(out,
                 "nohost_pool_blocks{pool=\"%s\",is=\"used\"} %u\n"
                 "nohost_pool_blocks{pool=\"%s\",is=\"peak\"} %u\n"
                 "nohost_pool_blocks{pool=\"%s\",is=\"all\"} %u\n",
                 pool[i]->name, pool[i]->used, pool[i]->name, pool[i]->peak, pool[i]->name,
                 pool[i]->count);
}

static void put_server(struct server *server, struct text *out)
{
    const struct server_stats *s = &server->stats;
    struct ml_status status;

    server->on->status(server->ml, &status);
    // clang-format off
    const struct family family[] = {
        {"nohost_ready", "gauge", "1 when the model answers.", status.state == ML_READY},
        {"nohost_uptime_seconds", "gauge", "Since power-on.", (f64)time_ns() / (f64)NS_PER_S},
        {"nohost_connections", "gauge", "Open connections.", server_connections(server)},
        {"nohost_connections_accepted_total", "counter", "Connections accepted.", (f64)s->accepted},
        {"nohost_connections_refused_total", "counter", "Connections turned away, every place taken.", (f64)s->refused},
        {"nohost_connections_evicted_total", "counter", "Idle connections closed for new ones.", (f64)s->evicted},
        {"nohost_http_malformed_total", "counter", "Requests that were not HTTP.", (f64)s->bad_http},
        {"nohost_http_timeouts_total", "counter", "Requests that did not arrive in time.", (f64)s->timeouts},
        {"nohost_send_stalls_total", "counter", "Connections dropped because nobody read.", (f64)s->stalls},
        {"nohost_disconnects_total", "counter", "Runs cancelled because the client left.", (f64)s->disconnects},
    };
    // clang-format on
    for (u32 i = 0; i < ARRAY_LEN(family); i++)
        put_family(out, &family[i], (struct str){});
}

static void put_runtime(struct server *server, struct text *out)
{
    struct ml_stats s = {};

    server->on->stats(server->ml, &s);
    // clang-format off
    const struct family family[] = {
        {"nohost_requests_total", "counter", "Requests given to the model.", (f64)s.requests_total},
        {"nohost_requests_cancelled_total", "counter", "Requests cancelled.", (f64)s.cancelled_total},
        {"nohost_requests_failed_total", "counter", "Requests that failed.", (f64)s.failed_total},
        {"nohost_prompt_tokens_total", "counter", "Prompt tokens computed.", (f64)s.prompt_tokens_total},
        {"nohost_generated_tokens_total", "counter", "Tokens generated.", (f64)s.generated_tokens_total},
        {"nohost_prompt_seconds_total", "counter", "Time in prompts.", (f64)s.prompt_ns_total / (f64)NS_PER_S},
        {"nohost_decode_seconds_total", "counter", "Time in generation.", (f64)s.decode_ns_total / (f64)NS_PER_S},
        {"nohost_steps_total", "counter", "Steps of the engine.", (f64)s.steps_total},
        {"nohost_slots", "gauge", "Sequences that can run at a time.", s.slots},
        {"nohost_slots_busy", "gauge", "Sequences that run.", s.slots_busy},
        {"nohost_queue_waiting", "gauge", "Requests that wait for a slot.", s.queue_waiting},
        {"nohost_kv_pages", "gauge", "Pages of the KV pool.", s.kv_pages},
        {"nohost_kv_pages_used", "gauge", "Pages in use.", s.kv_pages_used},
        {"nohost_weights_bytes", "gauge", "Memory of the weights.", (f64)s.weights_bytes},
        {"nohost_kv_bytes", "gauge", "Memory of the KV pool.", (f64)s.kv_bytes},
        {"nohost_program_bytes", "gauge", "Memory of generated code.", (f64)s.program_bytes},
    };
    // clang-format on
    for (u32 i = 0; i < ARRAY_LEN(family); i++)
        put_family(out, &family[i], (struct str){});
}

/* What an endpoint picker scrapes: the model's name is a label there. */
static void put_vllm(struct server *server, struct text *out)
{
    const struct ml_model_info *info = server->on->model_info(server->ml);
    char label[256];
    struct text labels = TEXT_ON(label);
    struct ml_status status;
    struct ml_stats s = {};

    server->on->status(server->ml, &status);
    server->on->stats(server->ml, &s);
    text_put(&labels, STR("model_name="));
    json_put_str(&labels, status.state == ML_READY ? str_slice(info->id, 0, 100) : STR(""));
    text_put(&labels, STR(",engine=\"0\""));
    // clang-format off
    const struct family family[] = {
        {"vllm:num_requests_running", "gauge", "Sequences that run.", s.slots_busy},
        {"vllm:num_requests_waiting", "gauge", "Requests that wait for a slot.", s.queue_waiting},
        {"vllm:kv_cache_usage_perc", "gauge", "Used part of the KV pool, 0 to 1.",
         s.kv_pages ? (f64)s.kv_pages_used / s.kv_pages : 0},
        {"vllm:prompt_tokens_total", "counter", "Prompt tokens computed.", (f64)s.prompt_tokens_total},
        {"vllm:generation_tokens_total", "counter", "Tokens generated.", (f64)s.generated_tokens_total},
    };
    // clang-format on
    for (u32 i = 0; i < ARRAY_LEN(family); i++)
        put_family(out, &family[i], text_str(&labels));
    text_fmt(out, "# HELP vllm:cache_config_info Shape of the KV pool.\n"
                  "# TYPE vllm:cache_config_info gauge\n"
                  "vllm:cache_config_info{%.*s,block_size=\"%u\",num_gpu_blocks=\"%u\"} 1\n",
             (int)labels.len, labels.ptr, s.kv_page_tokens, s.kv_pages);
}

void metrics_write(struct server *server, struct text *out)
{
    put_server(server, out);
    put_replies(server, out);
    put_pools(server, out);
    put_runtime(server, out);
    put_vllm(server, out);
    if (server->config->metrics)
        server->config->metrics(out);
}
