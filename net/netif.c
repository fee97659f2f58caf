/*
 * netif.c: the interface under lwIP: frames between the card and the stack, checksums left to the
 * card, link, addresses (DHCP, static, fallback, SLAAC), name service (mDNS) and clock (SNTP).
 * Knows no connection. Follows: lwIP 2.2.1, doc/NO_SYS_SampleCode.c; RFC 2131, 3927, 4862, 6762,
 * 4330.
 */
#include "net/stack.h"

#include "lwip/apps/mdns.h"
#include "lwip/apps/sntp.h"
#include "lwip/autoip.h"
#include "lwip/dhcp.h"
#include "lwip/dns.h"
#include "lwip/ethip6.h"
#include "lwip/etharp.h"
#include "lwip/init.h"
#include "lwip/prot/tcp.h"
#include "lwip/sys.h"
#include "lwip/timeouts.h"
#include "netif/ethernet.h"

#define LOOK_NS (100 * NS_PER_MS) /* the link is looked at ten times a second */
#define POLL_NS (1 * NS_PER_MS)   /* and frames this often when the card cannot interrupt */
#define DHCP_PATIENCE_NS                                                                           \
    (4 * NS_PER_S) /* two of DHCP's tries (RFC 2131, 4.1), then the fallback                       \
                    */
#define MTU_MAX          1500u
#define ADDRESS_TEXT_MAX 48u

static err_t interface_init(struct netif *netif);
static err_t frame_out(struct netif *netif, struct pbuf *chain);
static bool frame_in(struct stack *stack);
static void addresses_start(struct stack *stack);
static void names_start(struct stack *stack);
static void look(struct stack *stack, u64 now);
static void log_addresses(struct stack *stack, u64 now);

void stack_open(struct stack *stack, const struct net_config *config, struct nic *nic)
{
    stack->config = config;
    stack->nic = nic;
    random_bytes(stack->isn_key, sizeof stack->isn_key);
    lwip_init();
    if (!nic)
        return;
    struct text host = {stack->hostname, 0, HOSTNAME_MAX, false};
    text_put(&host, config->hostname.len ? config->hostname : STR("nohost"));
    CHECK(netif_add_noaddr(&stack->netif, stack, interface_init, ethernet_input));
    netif_set_default(&stack->netif);
    netif_set_up(&stack->netif);
    addresses_start(stack);
    names_start(stack);
}

bool stack_poll(struct stack *stack)
{
    u64 now = time_ns();
    u32 frames = 0;

    if (stack->nic) {
        if (stack->irq_on)
            stack->nic->ops->irq(stack->nic, false);
        stack->irq_on = false;
        if (now >= stack->look_ns || stack->nic->irq_pending)
            look(stack, now);
        stack->nic->irq_pending = false;
        while (frames < NET_BATCH_MAX && frame_in(stack))
            frames++;
    }
    sys_check_timeouts();
    if (stack->nic)
        log_addresses(stack, now);
    return frames > 0;
}

void stack_flush(struct stack *stack)
{
    if (stack->tx_waiting)
        stack->nic->ops->tx_kick(stack->nic);
    stack->tx_waiting = false;
}

bool stack_irq_arm(struct stack *stack)
{
    struct nic_frame frame;

    if (!stack->nic)
        return true;
    stack->nic->ops->irq(stack->nic, true);
    stack->irq_on = true;
    return !stack->nic->ops->rx_next(stack->nic, &frame);
}

u64 stack_idle_ns(const struct stack *stack)
{
    u64 most = stack->nic && !stack->nic->has_irq ? POLL_NS : LOOK_NS;

    return min_u64(sys_timeouts_sleeptime() * NS_PER_MS, most);
}

/* ---- frames in ---- */

static bool part_keep(struct stack *stack, const struct nic_frame *part);

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
        stack->nic->stats.rx_dropped++;
    }
    stack->nic->ops->rx_release(stack->nic);
    if (part.more)
        return true;

    struct pbuf *frame = stack->in;
    stack->in = NULL;
    stack->in_dropped = false;
    if (frame)
        pbuf_realloc(frame, stack->in_len);
    /* Flags belong to the interface, checksums to frames: input runs to its end before the next
     * frame. */
    u16 verify = stack->in_checked ? 0 : NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP;
    stack->netif.chksum_flags &= (u16) ~(NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP);
    stack->netif.chksum_flags |= verify;
    if (frame && stack->netif.input(frame, &stack->netif) != ERR_OK)
        pbuf_free(frame);
    return true;
}

/* All parts lie in one buffer: lwIP wants headers in one piece. */
static bool part_keep(struct stack *stack, const struct nic_frame *part)
{
    if (!stack->in) {
        stack->in = pbuf_alloc(PBUF_RAW, FRAME_BYTES_MAX, PBUF_POOL);
        stack->in_len = 0;
        stack->in_checked = part->checksum_good;
    }
    if (!stack->in || part->len > (u32)FRAME_BYTES_MAX - stack->in_len)
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
    u8 *frame = chain->payload;

    if (chain->tot_len > FRAME_BYTES_MAX)
        return ERR_BUF;
    if (chain->next) {
        frame = stack->out;
        pbuf_copy_partial(chain, frame, chain->tot_len, 0);
    }
    u16 start = nic->tx_checksum ? checksum_start(frame, chain->tot_len) : 0;
    if (nic->ops->tx(nic, (struct str){(const char *)frame, chain->tot_len}, start,
                     offsetof(struct tcp_hdr, chksum)) != OK) {
        nic->stats.tx_dropped++;
        return ERR_MEM; /* TCP keeps its segment and tries again */
    }
    stack->tx_waiting = true;
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

/* Where the card begins to sum: the TCP header, whose checksum field gets the pseudo header's sum
 * (RFC 9293, 3.1; RFC 8200, 8.1). 0 for everything but TCP: lwIP has summed that. */
static u16 checksum_start(u8 *frame, u32 len)
{
    const u8 *ip = frame + SIZEOF_ETH_HDR;
    bool v4 =
        len >= SIZEOF_ETH_HDR + IP_HLEN + TCP_HLEN && ip[0] >> 4 == 4 && ip[9] == IP_PROTO_TCP;
    bool v6 =
        len >= SIZEOF_ETH_HDR + IP6_HLEN + TCP_HLEN && ip[0] >> 4 == 6 && ip[6] == IP_PROTO_TCP;
    u32 start = SIZEOF_ETH_HDR + (v4 ? (ip[0] & 15u) * 4 : IP6_HLEN);

    if ((!v4 && !v6) || start + TCP_HLEN > len)
        return 0;
    u16 sum = v4 ? sum_words(ip + 12, 8, IP_PROTO_TCP) : sum_words(ip + 8, 32, IP_PROTO_TCP);
    u8 tcp_bytes[2] = {(u8)((len - start) >> 8), (u8)(len - start)};
    sum = sum_words(tcp_bytes, 2, sum);
    frame[start + offsetof(struct tcp_hdr, chksum)] = (u8)(sum >> 8);
    frame[start + offsetof(struct tcp_hdr, chksum) + 1] = (u8)sum;
    return (u16)start;
}

/* ---- the interface and its addresses ---- */

static err_t interface_init(struct netif *netif)
{
    struct stack *stack = netif->state;

    memcpy(netif->name, "en", 2);
    memcpy(netif->hwaddr, stack->nic->mac, sizeof stack->nic->mac);
    netif->hwaddr_len = sizeof stack->nic->mac;
    netif->mtu = (u16)min_u32(stack->nic->mtu, MTU_MAX);
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET |
                   NETIF_FLAG_IGMP | NETIF_FLAG_MLD6;
    netif->output = etharp_output;
    netif->output_ip6 = ethip6_output;
    netif->linkoutput = frame_out;
    netif->hostname = stack->hostname;
    if (stack->nic->tx_checksum)
        netif->chksum_flags &= (u16)~NETIF_CHECKSUM_GEN_TCP;
    return ERR_OK;
}

/* False when the text is empty or no address; a bad one in the configuration is said once. */
static bool address_read(struct str text, const char *what, ip4_addr_t *out)
{
    char buffer[ADDRESS_TEXT_MAX] = {0};

    if (!text.len)
        return false;
    memcpy(buffer, text.ptr, min_u64(text.len, sizeof buffer - 1));
    if (ip4addr_aton(buffer, out))
        return true;
    log_error("net", "configuration: want an IPv4 address as %s, saw \"%s\"", what, buffer);
    return false;
}

static void address_take(struct stack *stack, const ip4_addr_t *address)
{
    ip4_addr_t netmask, gateway = {0};

    IP4_ADDR(&netmask, 255, 255, 255, 0);
    (void)address_read(stack->config->ip4_netmask, "netmask", &netmask);
    (void)address_read(stack->config->ip4_gateway, "gateway", &gateway);
    netif_set_addr(&stack->netif, address, &netmask, &gateway);
}

static void addresses_start(struct stack *stack)
{
    ip4_addr_t address;

    netif_create_ip6_linklocal_address(&stack->netif, 1);
    netif_set_ip6_autoconfig_enabled(&stack->netif, 1);
    if (address_read(stack->config->ip4_address, "address", &address))
        address_take(stack, &address);
    else if (dhcp_start(&stack->netif) != ERR_OK)
        log_error("net", "DHCP did not start");
}

static void fallback_take(struct stack *stack)
{
    ip4_addr_t address;

    stack->fallback = true;
    log_warn("net", "no DHCP server answered in %u s, still asking",
             (u32)(DHCP_PATIENCE_NS / NS_PER_S));
    if (address_read(stack->config->ip4_fallback, "fallback", &address))
        address_take(stack, &address);
    else if (autoip_start(&stack->netif) != ERR_OK)
        log_error("net", "AutoIP did not start");
}

static void look_at_dhcp(struct stack *stack, u64 now)
{
    if (dhcp_supplied_address(&stack->netif)) {
        if (stack->fallback)
            autoip_stop(&stack->netif); /* leaves an address that is not link-local alone */
        stack->fallback = false;
        stack->unbound_ns = now;
    } else if (stack->link && !stack->fallback && now - stack->unbound_ns > DHCP_PATIENCE_NS) {
        fallback_take(stack);
    }
}

static void look(struct stack *stack, u64 now)
{
    bool link = stack->nic->ops->link_up(stack->nic);

    stack->look_ns = now + LOOK_NS;
    if (link != stack->link) {
        log_info("net", "%s: link is %s", stack->nic->name, link ? "up" : "down");
        stack->link = link;
        stack->fallback = false;
        stack->link_ns = stack->unbound_ns = now;
        if (link)
            netif_set_link_up(&stack->netif); /* DHCP, DAD and mDNS start afresh */
        else
            netif_set_link_down(&stack->netif);
    }
    if (netif_dhcp_data(&stack->netif))
        look_at_dhcp(stack, now);
    if (stack->name_taken) {
        const u8 *mac = stack->nic->mac;
        struct text name = {stack->hostname, strlen(stack->hostname), HOSTNAME_MAX, false};
        name.len = min_u64(name.len, HOSTNAME_MAX - strlen("-0123"));
        text_fmt(&name, "-%02x%02x", mac[4], mac[5]);
        stack->hostname[name.len] = 0;
        stack->name_taken = false;
        log_warn("net", "another machine has this name: now %s.local", stack->hostname);
        mdns_resp_rename_netif(&stack->netif, stack->hostname);
    }
}

static void log_addresses(struct stack *stack, u64 now)
{
    u32 ms = (u32)((now - stack->link_ns) / NS_PER_MS);
    const ip4_addr_t *ip4 = netif_ip4_addr(&stack->netif);
    ip4_addr_t dns;

    if (!ip4_addr_eq(ip4, &stack->ip4_seen)) {
        ip4_addr_copy(stack->ip4_seen, *ip4);
        log_info("net", "address %s, %u ms after link", ip4addr_ntoa(ip4), ms);
        if (address_read(stack->config->dns, "dns", &dns)) {
            ip_addr_t server = IPADDR4_INIT(dns.addr);
            dns_setserver(0, &server);
        }
        if (!stack->time_asked)
            sntp_init();
        stack->time_asked = true;
    }
    for (u8 i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) {
        bool valid = ip6_addr_ispreferred(netif_ip6_addr_state(&stack->netif, i));
        if (valid && !(stack->ip6_seen >> i & 1))
            log_info("net", "address %s, %u ms after link",
                     ip6addr_ntoa(netif_ip6_addr(&stack->netif, i)), ms);
        stack->ip6_seen = (u8)((stack->ip6_seen & ~(1u << i)) | (u32)valid << i);
    }
}

/* ---- name and clock ---- */

static void name_result(struct netif *netif, u8_t result, s8_t slot)
{
    struct stack *stack = netif->state;

    (void)slot;
    if (result != MDNS_PROBING_SUCCESSFUL && !stack->named)
        stack->name_taken = stack->named = true; /* once: a second clash is an attack or a mirror */
}

static void names_start(struct stack *stack)
{
    struct text server = {stack->sntp_server, 0, sizeof stack->sntp_server - 1, false};

    mdns_resp_init();
    mdns_resp_register_name_result_cb(name_result);
    if (mdns_resp_add_netif(&stack->netif, stack->hostname) != ERR_OK ||
        mdns_resp_add_service(&stack->netif, stack->hostname, "_http", DNSSD_PROTO_TCP,
                              stack->config->port, NULL, NULL) < 0)
        log_error("net", "mDNS did not start");
    sntp_setoperatingmode(SNTP_OPMODE_POLL);
    text_put(&server, stack->config->sntp_server);
    if (server.len)
        sntp_setservername(0, stack->sntp_server);
    else
        sntp_servermode_dhcp(1);
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

void port_time_set(u32 unix_s)
{
    log_info("net", "SNTP: %u s since 1970, our clock said %lld", unix_s, (long long)time_unix_s());
    time_unix_set(unix_s);
}
