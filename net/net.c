/*
 * net.c: the room put together: stack below, connections between, server above; its status and its
 * lines for /metrics. Decides nothing.
 */
#include "net/net.h"
#include "net/priv.h"
#include "net/stack.h"

#include "lwip/stats.h"

struct net {
    struct stack stack;
    struct tcp_conns conns;
    struct server *server;
    struct net_config config;
};

static bool offer(void *ctx, struct stream *stream)
{
    return server_accept(ctx, stream);
}

err net_open(struct net **out, const struct net_config *config, struct nic *nic, struct ml *ml)
{
    struct net *net = pages_alloc(sizeof *net);

    if (!net)
        return E_NOMEM;
    net->config = *config;
    stack_open(&net->stack, &net->config, nic);
    TRY(conns_open(&net->conns, config->port));
    TRY(server_open(&net->server, &net->config, ml));
    *out = net;
    return OK;
}

bool net_poll(struct net *net)
{
    bool worked = stack_poll(&net->stack);

    worked |= conns_accept(&net->conns, offer, net->server);
    worked |= server_poll(net->server);
    return worked;
}

void net_flush(struct net *net)
{
    conns_flush(&net->conns);
    stack_flush(&net->stack);
}

u64 net_idle_ns(const struct net *net)
{
    return stack_idle_ns(&net->stack);
}

bool net_irq_arm(struct net *net)
{
    return stack_irq_arm(&net->stack);
}

void net_status(const struct net *net, struct net_status *status)
{
    const struct netif *netif = &net->stack.netif;
    u32 found = 0;

    *status = (struct net_status){.link_up = net->stack.link,
                                  .connections = server_connections(net->server)};
    if (!net->stack.nic)
        return;
    status->bound = !ip4_addr_isany(netif_ip4_addr(netif));
    ip4addr_ntoa_r(netif_ip4_addr(netif), status->ip4, sizeof status->ip4);
    for (i8 i = 0; i < LWIP_IPV6_NUM_ADDRESSES && found < ARRAY_LEN(status->ip6); i++) {
        if (ip6_addr_ispreferred(netif_ip6_addr_state(netif, i)))
            ip6addr_ntoa_r(netif_ip6_addr(netif, i), status->ip6[found++], sizeof status->ip6[0]);
    }
}

/* ---- metrics (Prometheus text format) ---- */

static const struct {
    const char *name;
    memp_t pool;
} pools[] = {
    {"tcp_connection", MEMP_TCP_PCB}, {"tcp_segment", MEMP_TCP_SEG}, {"frame", MEMP_PBUF_POOL},
    {"buffer_head", MEMP_PBUF},       {"udp_socket", MEMP_UDP_PCB},  {"timer", MEMP_SYS_TIMEOUT},
};

static void metrics_pool(struct text *out, const char *name, const struct stats_mem *pool)
{
    text_fmt(out, "nohost_net_pool_used{pool=\"%s\"} %lu\n", name, (u64)pool->used);
    text_fmt(out, "nohost_net_pool_peak{pool=\"%s\"} %lu\n", name, (u64)pool->max);
    text_fmt(out, "nohost_net_pool_size{pool=\"%s\"} %lu\n", name, (u64)pool->avail);
    text_fmt(out, "nohost_net_pool_refused_total{pool=\"%s\"} %u\n", name, (u32)pool->err);
}

void net_metrics(struct text *out)
{
    for (u32 i = 0; i < ARRAY_LEN(pools); i++)
        metrics_pool(out, pools[i].name, lwip_stats.memp[pools[i].pool]);
    metrics_pool(out, "heap_bytes", &lwip_stats.mem);
    if (!netif_default)
        return;
    const struct stack *stack = netif_default->state;
    const struct {
        const char *name;
        u64 value;
    } counts[] = {
        {"rx_frames", stack->count.rx_frames},   {"rx_bytes", stack->count.rx_bytes},
        {"rx_dropped", stack->count.rx_dropped}, {"rx_errors", stack->nic->rx_errors},
        {"tx_frames", stack->count.tx_frames},   {"tx_bytes", stack->count.tx_bytes},
        {"tx_dropped", stack->count.tx_dropped},
    };
    for (u32 i = 0; i < ARRAY_LEN(counts); i++)
        text_fmt(out, "nohost_net_%s_total %lu\n", counts[i].name, counts[i].value);
}
