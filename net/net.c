/*
 * net.c: the room put together: stack below, connections between, server above; its lines for
 * /metrics. Decides nothing.
 */
#include "net/stack.h"

#include "lwip/stats.h"

err net_open(struct net **out, const struct net_config *config, struct nic *nic, struct ml *ml)
{
    struct net *net = pages_alloc(sizeof *net);

    if (!net)
        return E_NOMEM;
    net->config = *config;
    net->nic = nic;
    stack_open(net);
    TRY(conns_open(net));
    TRY(server_open(&net->server, &net->config, ml));
    *out = net;
    return OK;
}

bool net_poll(struct net *net)
{
    bool worked = stack_poll(net);

    for (struct stream *stream; (stream = conns_next(net)); worked = true) {
        if (!server_accept(net->server, stream))
            stream->ops->abort(stream);
    }
    return server_poll(net->server) || worked;
}

bool net_bound(const struct net *net)
{
    return !ip4_addr_isany(netif_ip4_addr(&net->netif));
}

/* ---- metrics (Prometheus text format) ---- */

static void metrics_pool(struct text *out, const char *name, const struct stats_mem *pool)
{
    text_fmt(out, "nohost_net_pool_used{pool=\"%s\"} %lu\n", name, (u64)pool->used);
    text_fmt(out, "nohost_net_pool_peak{pool=\"%s\"} %lu\n", name, (u64)pool->max);
    text_fmt(out, "nohost_net_pool_refused_total{pool=\"%s\"} %u\n", name, (u32)pool->err);
}

void net_metrics(struct text *out)
{
    static const char *const names[NET_COUNTS] = {"rx_frames", "rx_bytes", "rx_dropped",
                                                  "tx_frames", "tx_bytes", "tx_dropped"};

    metrics_pool(out, "tcp_connection", lwip_stats.memp[MEMP_TCP_PCB]);
    metrics_pool(out, "tcp_segment", lwip_stats.memp[MEMP_TCP_SEG]);
    metrics_pool(out, "frame", lwip_stats.memp[MEMP_PBUF_POOL]);
    metrics_pool(out, "heap_bytes", &lwip_stats.mem);
    for (u32 i = 0; netif_default && i < NET_COUNTS; i++)
        text_fmt(out, "nohost_net_%s_total %lu\n", names[i],
                 ((const struct net *)netif_default->state)->count[i]);
}
