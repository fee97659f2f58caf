/*
 * address.c: the interface's addresses and name: DHCP with a fallback, static, SLAAC, DNS, mDNS,
 * and the clock by SNTP. Knows no frame. Follows: RFC 2131 (DHCP), 3927 (link-local), 4862 (SLAAC),
 * 6762 (mDNS), 4330 (SNTP).
 */
#include "net/stack.h"

#include "lwip/acd.h"
#include "lwip/apps/mdns.h"
#include "lwip/apps/sntp.h"
#include "lwip/autoip.h"
#include "lwip/dhcp.h"
#include "lwip/dns.h"

#define DHCP_PATIENCE_S  4u /* two of DHCP's tries (RFC 2131, 4.1), then the fallback */
#define ADDRESS_TEXT_MAX 48u

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

/* False when the configuration has no such address. */
static bool address_take(struct net *net, struct str text, const char *what)
{
    ip4_addr_t address, netmask, gateway = {0};

    if (!address_read(text, what, &address))
        return false;
    IP4_ADDR(&netmask, 255, 255, 255, 0);
    (void)address_read(net->config.ip4_netmask, "netmask", &netmask);
    (void)address_read(net->config.ip4_gateway, "gateway", &gateway);
    netif_set_addr(&net->netif, &address, &netmask, &gateway);
    return true;
}

void address_look(struct net *net, u64 now)
{
    struct autoip *autoip = netif_autoip_data(&net->netif);

    if (!net->link || !netif_dhcp_data(&net->netif) || dhcp_supplied_address(&net->netif)) {
        if (net->fallback && autoip) {
            autoip_stop(&net->netif);
            acd_stop(&autoip->acd); /* else its probes run on, and end in its address (2.2.1) */
        }
        net->fallback = false;
        net->asks_ns = now;
    } else if (!net->fallback && now - net->asks_ns > DHCP_PATIENCE_S * NS_PER_S) {
        net->fallback = true;
        log_warn("net", "no DHCP server answered in %u s, still asking", DHCP_PATIENCE_S);
        if (!address_take(net, net->config.ip4_fallback, "fallback"))
            (void)autoip_start(&net->netif);
    }
}

/* lwIP calls this when an address may have become valid. */
static void address_changed(struct netif *netif, netif_nsc_reason_t reason,
                            const netif_ext_callback_args_t *args)
{
    struct net *net = netif->state;
    const char *address = NULL;
    ip_addr_t dns = {};

    if (reason & LWIP_NSC_IPV4_ADDR_VALID) {
        address = ip4addr_ntoa(netif_ip4_addr(netif));
        if (address_read(net->config.dns, "dns", ip_2_ip4(&dns)))
            dns_setserver(0, &dns); /* rather than DHCP's */
        sntp_init();                /* which does nothing but once */
    } else if (reason & LWIP_NSC_IPV6_ADDR_STATE_CHANGED) {
        i8 at = args->ipv6_addr_state_changed.addr_index;
        if (ip6_addr_ispreferred(netif_ip6_addr_state(netif, at)))
            address = ip6addr_ntoa(netif_ip6_addr(netif, at));
    }
    if (address)
        log_info("net", "address %s, %u ms after link", address,
                 (u32)((time_ns() - net->link_ns) / NS_PER_MS));
}

static void name_result(struct netif *netif, u8_t result, s8_t)
{
    if (result != MDNS_PROBING_SUCCESSFUL)
        log_warn("net", "another machine is %s.local: ask for this one by address",
                 netif_get_hostname(netif));
}

void address_start(struct net *net)
{
    struct text host = {net->hostname, 0, HOSTNAME_MAX, false};
    struct text server = {net->sntp_server, 0, sizeof net->sntp_server - 1, false};

    text_put(&host, net->config.hostname);
    netif_set_hostname(&net->netif, net->hostname);
    mdns_resp_init();
    mdns_resp_register_name_result_cb(name_result);
    if (mdns_resp_add_netif(&net->netif, net->hostname) != ERR_OK ||
        mdns_resp_add_service(&net->netif, net->hostname, "_http", DNSSD_PROTO_TCP,
                              net->config.port, NULL, NULL) < 0)
        log_error("net", "mDNS did not start");
    sntp_setoperatingmode(SNTP_OPMODE_POLL);
    text_put(&server, net->config.sntp_server);
    if (server.len)
        sntp_setservername(0, net->sntp_server);
    else
        sntp_servermode_dhcp(1);
    netif_add_ext_callback(&net->address_watch, address_changed);
    netif_create_ip6_linklocal_address(&net->netif, 1);
    netif_set_ip6_autoconfig_enabled(&net->netif, 1);
    if (!address_take(net, net->config.ip4_address, "address") && dhcp_start(&net->netif) != ERR_OK)
        log_error("net", "DHCP did not start");
}

void port_time_set(u32 unix_s)
{
    log_info("net", "SNTP: %u s since 1970, our clock said %lld", unix_s, (long long)time_unix_s());
    time_unix_set(unix_s);
}
