/*
 * netif.c: the room put together, and the interface under lwIP: frames between the card and the
 * stack, checksums left to the card, link, and a card that fails. Knows no connection; addresses
 * are address.c's. Follows: lwIP 2.2.1, doc/NO_SYS_SampleCode.c; virtio 1.2, 5.1.6.2 (checksums).
 */
#include "net/stack.h"

#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/inet_chksum.h"
#include "lwip/init.h"
#include "lwip/prot/tcp.h"
#include "lwip/stats.h"
#include "lwip/sys.h"
#include "lwip/timeouts.h"
#include "netif/ethernet.h"

#define BATCH_MAX       64u               /* frames per turn of the loop */
#define LOOK_NS         (100 * NS_PER_MS) /* card and link are looked at ten times a second */
#define POLL_NS         NS_PER_MS         /* and frames this often when the card cannot interrupt */
#define TX_STALL_NS     (5 * NS_PER_S)
#define FAULT_FORGET_NS (600 * NS_PER_S)
#define FAULTS_MAX      8u

err net_open(struct net **out, const struct net_config *config, struct nic *nic, struct ml *ml)
{
    struct net *net = *out = pages_alloc(sizeof *net);

    if (!net)
        return E_NOMEM;
    net->config = *config;
    net->nic = nic;
    stack_open(net);
    TRY(conns_open(net));
    return server_open(&net->server, &net->config, ml);
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

void net_metrics(struct text *out)
{
    static const char *const names[NET_COUNTS] = {"rx_frames", "rx_bytes", "rx_dropped",
                                                  "tx_frames", "tx_bytes", "tx_dropped"};

    text_fmt(out, "nohost_net_pool_used{pool=\"frame\"} %lu\n",
             (u64)lwip_stats.memp[MEMP_PBUF_POOL]->used);
    for (u32 i = 0; netif_default && i < NET_COUNTS; i++)
        text_fmt(out, "nohost_net_%s_total %lu\n", names[i],
                 ((const struct net *)netif_default->state)->count[i]);
}

/* ---- frames in ---- */

/* Where the TCP header of an IP packet that is no fragment begins; 0: there is none. */
static u32 tcp_start(const u8 *frame, u32 len)
{
    const u8 *ip = frame + SIZEOF_ETH_HDR;
    bool v4 = len >= SIZEOF_ETH_HDR + IP_HLEN && ip[0] >> 4 == 4 && ip[9] == IP_PROTO_TCP &&
              !(ip[6] & 0x3f) && !ip[7];
    bool v6 = len >= SIZEOF_ETH_HDR + IP6_HLEN && ip[0] >> 4 == 6 && ip[6] == IP_PROTO_TCP;
    u32 start = SIZEOF_ETH_HDR + (v4 ? (ip[0] & 15u) * 4 : IP6_HLEN);

    return (v4 || v6) && start + TCP_HLEN <= len ? start : 0;
}

/* False when there was none. */
static bool frame_in(struct net *net)
{
    struct nic_frame *in = &net->in;

    if (net->nic->failed || !net->nic->ops->rx(net->nic, in))
        return false;
    struct pbuf *frame = in->len ? pbuf_alloc(PBUF_RAW, (u16)in->len, PBUF_POOL) : NULL;
    if (!frame) {
        net->count[RX_DROPPED]++;
        return true;
    }
    pbuf_take(frame, in->data, (u16)in->len);
    net->count[RX_FRAMES]++;
    net->count[RX_BYTES] += in->len;
    u32 tcp = tcp_start(in->data, in->len);
    if (tcp)
        conns_reopen(in->data + SIZEOF_ETH_HDR, in->data + tcp);
    /* Flags belong to the interface, checksums to frames: input ends before the next frame. */
    net->netif.chksum_flags |= NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP;
    if (in->checksum_good)
        net->netif.chksum_flags ^= NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP;
    if (net->netif.input(frame, &net->netif) != ERR_OK)
        pbuf_free(frame);
    return true;
}

/* ---- frames out ---- */

/* The card sums from the TCP header on, into a field that holds the pseudo header's sum already
 * (RFC 9293, 3.1; RFC 8200, 8.1). Everything but TCP has lwIP's checksum. */
static u16 checksum_prepare(u8 *frame, u32 len)
{
    const u8 *ip = frame + SIZEOF_ETH_HDR;
    bool v4 = ip[0] >> 4 == 4;
    u32 start = tcp_start(frame, len);
    u32 sum = (u16)~inet_chksum(v4 ? ip + 12 : ip + 8, v4 ? 8 : 32);

    sum += lwip_htons((u16)(IP_PROTO_TCP + len - start));
    u16 folded = (u16)((sum & 0xffff) + (sum >> 16));
    if (start)
        memcpy(frame + start + offsetof(struct tcp_hdr, chksum), &folded, sizeof folded);
    return (u16)start;
}

static err_t frame_out(struct netif *netif, struct pbuf *chain)
{
    struct net *net = netif->state;
    struct nic *nic = net->nic;
    struct str frame = {(const char *)net->out, chain->tot_len};
    u64 now = time_ns();

    if (nic->failed || frame.len > NIC_FRAME_MAX)
        return ERR_IF;
    pbuf_copy_partial(chain, net->out, chain->tot_len, 0);
    u16 start = nic->tx_checksum ? checksum_prepare(net->out, chain->tot_len) : 0;
    if (nic->ops->tx(nic, frame, start) != OK) {
        net->count[TX_DROPPED]++;
        if (now - net->sent_ns > TX_STALL_NS)
            (void)nic_fault(nic, "room for a frame within 5 s", 0);
        return ERR_MEM; /* TCP keeps its segment and tries again */
    }
    net->sent_ns = now;
    net->count[TX_FRAMES]++;
    net->count[TX_BYTES] += frame.len;
    return ERR_OK;
}

/* ---- the card and its link ---- */

/* The driver has logged what is wrong. A card that fails again and again stays off. */
static void card_restart(struct net *net, u64 now)
{
    struct nic *nic = net->nic;

    net->faults = now - net->fault_ns > FAULT_FORGET_NS ? 1 : net->faults + 1;
    net->fault_ns = net->sent_ns = now;
    nic->failed = false;
    if (net->faults <= FAULTS_MAX && nic->ops->start(nic) == OK)
        return;
    log_error("net", "%s: switched off after %u faults", nic->name, net->faults);
    (void)nic->ops->reset(nic);
    nic->failed = true;
    net->faults = FAULTS_MAX + 1;
}

static void look(struct net *net, u64 now)
{
    struct nic *nic = net->nic;

    net->look_ns = now + LOOK_NS;
    if (nic->failed && net->faults <= FAULTS_MAX)
        card_restart(net, now);
    bool link = !nic->failed && nic->ops->link_up(nic);
    if (link != net->link) {
        log_info("net", "%s: link is %s", nic->name, link ? "up" : "down");
        net->link = link;
        net->link_ns = net->asks_ns = now;
        (link ? netif_set_link_up : netif_set_link_down)(&net->netif); /* up: DHCP starts afresh */
    }
    address_look(net, now);
}

bool stack_poll(struct net *net)
{
    u64 now = time_ns();
    u32 frames = 0;

    if (net->nic) {
        if (!net->nic->failed)
            net->nic->ops->irq(net->nic, false);
        if (now >= net->look_ns || net->nic->failed)
            look(net, now);
        while (frames < BATCH_MAX && frame_in(net))
            frames++;
    }
    sys_check_timeouts();
    return frames > 0;
}

u64 net_idle_ns(struct net *net)
{
    struct nic *nic = net->nic;

    if (nic && !nic->failed) {
        nic->ops->irq(nic, true);
        if (frame_in(net))
            return 0;
    }
    return min_u64(sys_timeouts_sleeptime() * NS_PER_MS, nic && !nic->has_irq ? POLL_NS : LOOK_NS);
}

/* ---- start ---- */

static err_t interface_init(struct netif *netif)
{
    struct nic *nic = ((struct net *)netif->state)->nic;

    memcpy(netif->name, "en", 2);
    memcpy(netif->hwaddr, nic->mac, sizeof nic->mac);
    netif->hwaddr_len = sizeof nic->mac;
    netif->mtu = NIC_MTU;
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET |
                   NETIF_FLAG_IGMP | NETIF_FLAG_MLD6;
    netif->output = etharp_output;
    netif->output_ip6 = ethip6_output;
    netif->linkoutput = frame_out;
    if (nic->tx_checksum)
        netif->chksum_flags &= (u16)~NETIF_CHECKSUM_GEN_TCP;
    return ERR_OK;
}

void stack_open(struct net *net)
{
    struct nic *nic = net->nic;

    random_bytes(net->isn_key, sizeof net->isn_key);
    lwip_init();
    if (!nic)
        return;
    CHECK(netif_add_noaddr(&net->netif, net, interface_init, ethernet_input));
    netif_set_default(&net->netif);
    netif_set_up(&net->netif);
    address_start(net);
    log_info("net", "%s: %02x:%02x:%02x:%02x:%02x:%02x, %s, transmit checksums by %s", nic->name,
             nic->mac[0], nic->mac[1], nic->mac[2], nic->mac[3], nic->mac[4], nic->mac[5],
             nic->has_irq ? "interrupts" : "polled", nic->tx_checksum ? "the card" : "us");
}

/* ---- for the drivers, and what net/port/arch/cc.h promises to lwIP ---- */

err nic_fault(struct nic *nic, const char *want, u64 seen)
{
    log_error(nic->name, "network card: want %s, saw %lx", want, seen);
    nic->failed = true;
    return E_DEVICE;
}

void nic_interrupted(void *) {}

u32_t sys_now(void)
{
    return (u32)(time_ns() / NS_PER_MS);
}

u32 port_rand(void)
{
    u32 value;

    random_bytes(&value, sizeof value);
    return value;
}
