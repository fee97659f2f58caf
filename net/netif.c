/*
 * netif.c: the interface under lwIP: frames between the card and the stack, checksums left to the
 * card, link, and a card that fails. Knows no connection; addresses are address.c's.
 * Follows: lwIP 2.2.1, doc/NO_SYS_SampleCode.c; virtio 1.2, 5.1.6.2 (checksum offload).
 */
#include "net/stack.h"

#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/init.h"
#include "lwip/prot/tcp.h"
#include "lwip/sys.h"
#include "lwip/timeouts.h"
#include "netif/ethernet.h"

#define LOOK_NS         (100 * NS_PER_MS) /* card and link are looked at ten times a second */
#define POLL_NS         NS_PER_MS         /* and frames this often when the card cannot interrupt */
#define TX_STALL_NS     (5 * NS_PER_S)
#define FAULT_FORGET_NS (600 * NS_PER_S)
#define FAULTS_MAX      8u

static err_t interface_init(struct netif *netif);
static err_t frame_out(struct netif *netif, struct pbuf *chain);
static bool frame_in(struct stack *stack);
static void look(struct stack *stack, u64 now);

void stack_open(struct stack *stack, const struct net_config *config, struct nic *nic)
{
    stack->config = config;
    stack->nic = nic;
    random_bytes(stack->isn_key, sizeof stack->isn_key);
    lwip_init();
    if (!nic)
        return;
    CHECK(netif_add_noaddr(&stack->netif, stack, interface_init, ethernet_input));
    netif_set_default(&stack->netif);
    netif_set_up(&stack->netif);
    address_start(stack);
    log_info("net", "%s: %02x:%02x:%02x:%02x:%02x:%02x, %s, transmit checksums by %s", nic->name,
             nic->mac[0], nic->mac[1], nic->mac[2], nic->mac[3], nic->mac[4], nic->mac[5],
             nic->has_irq ? "interrupts" : "polled", nic->tx_checksum ? "the card" : "us");
}

bool stack_poll(struct stack *stack)
{
    u64 now = time_ns();
    u32 frames = 0;

    if (stack_has_card(stack)) {
        if (stack->irq_on)
            stack->nic->ops->irq(stack->nic, false);
        stack->irq_on = false;
        if (now >= stack->look_ns || stack->nic->failed)
            look(stack, now);
        while (frames < NET_BATCH_MAX && frame_in(stack))
            frames++;
        address_note(stack, now);
    }
    sys_check_timeouts();
    return frames > 0;
}

void stack_flush(struct stack *stack)
{
    if (stack->tx_waiting && stack_has_card(stack))
        stack->nic->ops->tx_kick(stack->nic);
    stack->tx_waiting = false;
}

bool stack_irq_arm(struct stack *stack)
{
    struct nic_frame frame;

    if (!stack_has_card(stack))
        return true;
    stack->nic->ops->irq(stack->nic, true);
    stack->irq_on = true;
    return !stack->nic->ops->rx_next(stack->nic, &frame);
}

u64 stack_idle_ns(const struct stack *stack)
{
    u64 most = stack_has_card(stack) && !stack->nic->has_irq ? POLL_NS : LOOK_NS;

    return min_u64(sys_timeouts_sleeptime() * NS_PER_MS, most);
}

void nic_interrupted(void *nothing)
{
    (void)nothing;
}

/* ---- frames in ---- */

static bool part_keep(struct stack *stack, const struct nic_frame *part);
static u32 tcp_start(const u8 *frame, u32 len);

/* One buffer of the card; the last of a frame gives the frame to lwIP. */
static bool frame_in(struct stack *stack)
{
    struct nic_frame part;

    if (!stack->nic->ops->rx_next(stack->nic, &part))
        return false;
    if (!stack->in_dropped && !part_keep(stack, &part)) {
        if (stack->in)
            pbuf_free(stack->in);
        stack->in = NULL;
        stack->in_dropped = true;
        stack->count.rx_dropped++;
    }
    stack->count.rx_bytes += part.len;
    stack->count.rx_frames += !part.more;
    stack->nic->ops->rx_release(stack->nic);
    if (part.more)
        return true;

    struct pbuf *frame = stack->in;
    stack->in = NULL;
    stack->in_dropped = false;
    if (!frame)
        return true;
    pbuf_realloc(frame, stack->in_len);
    u32 tcp = tcp_start(frame->payload, frame->len);
    if (tcp)
        conns_reopen((const u8 *)frame->payload + SIZEOF_ETH_HDR, (const u8 *)frame->payload + tcp);
    /* Flags belong to the interface, checksums to frames: input ends before the next frame. */
    stack->netif.chksum_flags &= (u16) ~(NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP);
    if (!stack->in_checked)
        stack->netif.chksum_flags |= NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP;
    if (stack->netif.input(frame, &stack->netif) != ERR_OK)
        pbuf_free(frame);
    return true;
}

/* All parts lie in one buffer: lwIP wants headers in one piece. */
static bool part_keep(struct stack *stack, const struct nic_frame *part)
{
    if (!stack->in) {
        stack->in = pbuf_alloc(PBUF_RAW, NIC_FRAME_MAX, PBUF_POOL);
        stack->in_len = 0;
        stack->in_checked = part->checksum_good;
    }
    if (!stack->in || part->len > NIC_FRAME_MAX - stack->in_len)
        return false;
    pbuf_take_at(stack->in, part->data, (u16)part->len, stack->in_len);
    stack->in_len = (u16)(stack->in_len + part->len);
    return true;
}

/* ---- frames out ---- */

static u16 checksum_start(u8 *frame, u32 len);

static err_t frame_out(struct netif *netif, struct pbuf *chain)
{
    struct stack *stack = netif->state;
    struct nic *nic = stack->nic;
    struct str frame = {chain->payload, chain->tot_len};

    if (nic->failed || frame.len > NIC_FRAME_MAX)
        return ERR_IF;
    if (chain->next) {
        pbuf_copy_partial(chain, stack->out, chain->tot_len, 0);
        frame.ptr = (const char *)stack->out;
    }
    u16 start = nic->tx_checksum ? checksum_start((u8 *)(uintptr_t)frame.ptr, (u32)frame.len) : 0;
    if (nic->ops->tx(nic, frame, start, offsetof(struct tcp_hdr, chksum)) != OK) {
        stack->count.tx_dropped++;
        return ERR_MEM; /* TCP keeps its segment and tries again */
    }
    stack->tx_waiting = true;
    stack->sent_ns = time_ns();
    stack->count.tx_frames++;
    stack->count.tx_bytes += frame.len;
    return ERR_OK;
}

static u16 sum_words(const u8 *data, u32 bytes, u32 sum)
{
    for (u32 i = 0; i < bytes; i += 2)
        sum += (u32)(data[i] << 8 | data[i + 1]);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (u16)sum;
}

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

/* The card sums from the TCP header on, into a field that holds the pseudo header's sum already
 * (RFC 9293, 3.1; RFC 8200, 8.1). Everything but TCP has lwIP's checksum. */
static u16 checksum_start(u8 *frame, u32 len)
{
    const u8 *ip = frame + SIZEOF_ETH_HDR;
    u32 start = tcp_start(frame, len);

    if (!start)
        return 0;
    u16 sum = sum_words(ip[0] >> 4 == 4 ? ip + 12 : ip + 8, ip[0] >> 4 == 4 ? 8 : 32,
                        IP_PROTO_TCP + len - start);
    frame[start + offsetof(struct tcp_hdr, chksum)] = (u8)(sum >> 8);
    frame[start + offsetof(struct tcp_hdr, chksum) + 1] = (u8)sum;
    return (u16)start;
}

/* ---- the interface, its card and its link ---- */

static err_t interface_init(struct netif *netif)
{
    struct stack *stack = netif->state;

    memcpy(netif->name, "en", 2);
    memcpy(netif->hwaddr, stack->nic->mac, sizeof stack->nic->mac);
    netif->hwaddr_len = sizeof stack->nic->mac;
    netif->mtu = NIC_MTU;
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET |
                   NETIF_FLAG_IGMP | NETIF_FLAG_MLD6;
    netif->output = etharp_output;
    netif->output_ip6 = ethip6_output;
    netif->linkoutput = frame_out;
    if (stack->nic->tx_checksum)
        netif->chksum_flags &= (u16)~NETIF_CHECKSUM_GEN_TCP;
    return ERR_OK;
}

/* The driver has logged what is wrong. A card that fails again and again stays off. */
static void card_restart(struct stack *stack, u64 now)
{
    struct nic *nic = stack->nic;

    nic->rx_errors++;
    stack->faults = now - stack->fault_ns > FAULT_FORGET_NS ? 1 : stack->faults + 1;
    stack->fault_ns = now;
    nic->failed = false;
    if (stack->faults <= FAULTS_MAX && nic->ops->start(nic) == OK)
        return;
    log_error("net", "%s: switched off after %u faults", nic->name, stack->faults);
    nic->ops->stop(nic);
    nic->failed = stack->off = true;
}

static void look_at_link(struct stack *stack, u64 now)
{
    bool link = !stack->off && stack->nic->ops->link_up(stack->nic);

    if (link == stack->link)
        return;
    log_info("net", "%s: link is %s", stack->nic->name, link ? "up" : "down");
    stack->link = link;
    stack->link_ns = now;
    if (link)
        netif_set_link_up(&stack->netif); /* DHCP, DAD and mDNS start afresh */
    else
        netif_set_link_down(&stack->netif);
}

static void look(struct stack *stack, u64 now)
{
    struct nic *nic = stack->nic;

    stack->look_ns = now + LOOK_NS;
    if (stack->count.tx_dropped != stack->dropped_seen && now - stack->sent_ns > TX_STALL_NS) {
        log_error("net", "%s: want room for a frame within 5 s, saw none", nic->name);
        nic->failed = true;
    }
    stack->dropped_seen = stack->count.tx_dropped;
    if (nic->failed)
        card_restart(stack, now);
    look_at_link(stack, now);
    address_look(stack, now);
}

/* ---- what net/port/arch/cc.h promises to lwIP ---- */

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
