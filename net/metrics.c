/*
 * metrics.c: the numbers of server and runtime in Prometheus' text format 0.0.4, under our own
 * names and, for routers that pick a backend by its load, under those of vLLM's server. The table
 * is the list: a name that ends in _total is a counter, rows with the same name but other labels
 * follow each other.
 */
#include "ml/mathf.h"
#include "net/priv.h"

struct row {
    const char *name;
    f64 value;
};

static void put_row(struct text *out, const struct row *row, bool first, struct str model)
{
    struct str labels, name = str_cut(str_of(row->name), '{', &labels);

    if (first)
        text_fmt(out, "# TYPE %.*s %s\n", (int)name.len, name.ptr,
                 str_ends(name, STR("_total")) ? "counter" : "gauge");
    text_put(out, str_of(row->name));
    if (str_starts(name, STR("vllm:"))) { /* which model, also while there is none */
        text_fmt(out, "{engine=\"0\",model_name=");
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
    struct ml_status status;
    struct ml_stats ml = {};

    server->on->status(server->ml, &status);
    server->on->stats(server->ml, &ml);
    bool ready = status.state == ML_READY;
    const struct row rows[] = {
        {"nohost_ready", ready},
        {"nohost_uptime_seconds", (f64)time_ns() / second},
        {"nohost_connections", server_connections(server)},
        {"nohost_connections_accepted_total", (f64)s->accepted},
        {"nohost_http_malformed_total", (f64)s->bad_http},
        {"nohost_http_timeouts_total", (f64)s->timeouts},
        {"nohost_send_stalls_total", (f64)s->stalls},
        {"nohost_disconnects_total", (f64)s->disconnects},
        {"nohost_http_replies_total{class=\"2xx\"}", (f64)s->replies[2]},
        {"nohost_http_replies_total{class=\"4xx\"}", (f64)s->replies[4]},
        {"nohost_http_replies_total{class=\"5xx\"}", (f64)s->replies[5]},
        {"nohost_pool_blocks{pool=\"upload\",is=\"used\"}", server->in_pool.used},
        {"nohost_pool_blocks{pool=\"out\",is=\"used\"}", server->out_pool.used},
        {"nohost_requests_total", (f64)ml.requests_total},
        {"nohost_requests_cancelled_total", (f64)ml.cancelled_total},
        {"nohost_requests_failed_total", (f64)ml.failed_total},
        {"nohost_prompt_tokens_total", (f64)ml.prompt_tokens_total},
        {"nohost_generated_tokens_total", (f64)ml.generated_tokens_total},
        {"nohost_prompt_seconds_total", (f64)ml.prompt_ns_total / second},
        {"nohost_decode_seconds_total", (f64)ml.decode_ns_total / second},
        {"nohost_slots", ml.slots},
        {"nohost_slots_busy", ml.slots_busy},
        {"nohost_queue_waiting", ml.queue_waiting},
        {"nohost_memory_free_bytes", (f64)pages_available()},
        {"nohost_weights_bytes", (f64)ml.weights_bytes},
        {"nohost_kv_bytes", (f64)ml.kv_bytes},
        {"nohost_program_bytes", (f64)ml.program_bytes},
        {"vllm:num_requests_running", ml.slots_busy},
        {"vllm:num_requests_waiting", ml.queue_waiting},
        {"vllm:kv_cache_usage_perc", ml.kv_pages ? (f64)ml.kv_pages_used / ml.kv_pages : 0},
        {"vllm:prompt_tokens_total", (f64)ml.prompt_tokens_total},
        {"vllm:generation_tokens_total", (f64)ml.generated_tokens_total},
    };
    struct str labels, name, before = {};
    for (usize i = 0; i < ARRAY_LEN(rows); i++, before = name) {
        name = str_cut(str_of(rows[i].name), '{', &labels);
        put_row(out, &rows[i], !str_eq(name, before),
                ready ? server->on->model_info(server->ml)->id : STR(""));
    }
    if (server->config->metrics)
        server->config->metrics(out);
}
