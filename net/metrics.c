/*
 * metrics.c: the numbers of server and runtime in Prometheus' text format 0.0.4, under our own
 * names and, for routers that pick a backend by its load, under those of vLLM's server. The table
 * is the list: a name that ends in _total is a counter, rows with the same name but other labels
 * follow each other, only the first has a help text.
 */
#include "ml/mathf.h"
#include "net/priv.h"

struct row {
    const char *name, *help;
    f64 value;
};

static void put_row(struct text *out, const struct row *row, struct str model)
{
    struct str labels, name = str_cut(str_of(row->name), '{', &labels);

    if (row->help)
        text_fmt(out, "# HELP %.*s %s\n# TYPE %.*s %s\n", (int)name.len, name.ptr, row->help,
                 (int)name.len, name.ptr, str_ends(name, STR("_total")) ? "counter" : "gauge");
    text_put(out, str_of(row->name));
    if (str_starts(name, STR("vllm:"))) { /* which model, also while there is none */
        text_put(out, STR("{engine=\"0\",model_name="));
        json_put_str(out, model);
        text_char(out, '}');
    }
    text_char(out, ' ');
    text_f64(out, row->value, 9, STR("NaN"));
    text_char(out, '\n');
}

void metrics_write(struct server *server, struct text *out)
{
    const f64 second = (f64)NS_PER_S;
    const struct server_stats *s = &server->stats;
    const struct pool *in = &server->in_pool, *wait = &server->out_pool;
    struct ml_status status;
    struct ml_stats ml = {};

    server->on->status(server->ml, &status);
    server->on->stats(server->ml, &ml);
    bool ready = status.state == ML_READY;
    // clang-format off
    const struct row rows[] = {
        {"nohost_ready", "1 when the model answers.", ready},
        {"nohost_uptime_seconds", "Since power-on.", (f64)time_ns() / second},
        {"nohost_connections", "Open connections.", server_connections(server)},
        {"nohost_connections_accepted_total", "Connections taken.", (f64)s->accepted},
        {"nohost_http_malformed_total", "Requests that were not HTTP.", (f64)s->bad_http},
        {"nohost_http_timeouts_total", "Requests too slow to arrive.", (f64)s->timeouts},
        {"nohost_send_stalls_total", "Dropped, nobody read.", (f64)s->stalls},
        {"nohost_disconnects_total", "Runs whose client left.", (f64)s->disconnects},
        {"nohost_http_replies_total{class=\"2xx\"}", "Answers by status.", (f64)s->replies[2]},
        {"nohost_http_replies_total{class=\"4xx\"}", NULL, (f64)s->replies[4]},
        {"nohost_http_replies_total{class=\"5xx\"}", NULL, (f64)s->replies[5]},
        {"nohost_pool_blocks{pool=\"upload\",is=\"used\"}", "Blocks of the byte pools.", in->used},
        {"nohost_pool_blocks{pool=\"out\",is=\"used\"}", NULL, wait->used},
        {"nohost_requests_total", "Requests given to the model.", (f64)ml.requests_total},
        {"nohost_requests_cancelled_total", "Requests cancelled.", (f64)ml.cancelled_total},
        {"nohost_requests_failed_total", "Requests that failed.", (f64)ml.failed_total},
        {"nohost_prompt_tokens_total", "Prompt tokens computed.", (f64)ml.prompt_tokens_total},
        {"nohost_generated_tokens_total", "Tokens generated.", (f64)ml.generated_tokens_total},
        {"nohost_prompt_seconds_total", "Time in prompts.", (f64)ml.prompt_ns_total / second},
        {"nohost_decode_seconds_total", "Time in generation.", (f64)ml.decode_ns_total / second},
        {"nohost_slots", "Sequences that can run at a time.", ml.slots},
        {"nohost_slots_busy", "Sequences that run.", ml.slots_busy},
        {"nohost_queue_waiting", "Requests that wait for a slot.", ml.queue_waiting},
        {"nohost_weights_bytes", "Memory of the weights.", (f64)ml.weights_bytes},
        {"nohost_kv_bytes", "Memory of the KV pool.", (f64)ml.kv_bytes},
        {"nohost_program_bytes", "Memory of generated code.", (f64)ml.program_bytes},
        {"vllm:num_requests_running", "Sequences that run.", ml.slots_busy},
        {"vllm:num_requests_waiting", "Requests that wait for a slot.", ml.queue_waiting},
        {"vllm:kv_cache_usage_perc", "Used part of the KV pool, 0 to 1.",
         ml.kv_pages ? (f64)ml.kv_pages_used / ml.kv_pages : 0},
        {"vllm:prompt_tokens_total", "Prompt tokens computed.", (f64)ml.prompt_tokens_total},
        {"vllm:generation_tokens_total", "Tokens generated.", (f64)ml.generated_tokens_total},
    };
    // clang-format on
    for (usize i = 0; i < ARRAY_LEN(rows); i++)
        put_row(out, &rows[i], ready ? server->on->model_info(server->ml)->id : STR(""));
    if (server->config->metrics)
        server->config->metrics(out);
}
