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

static void names_start(struct stack *stack);
static void name_change(struct stack *stack);
static void fallback_take(struct stack *stack);
static void fallback_leave(struct stack *stack);

static bool address_read(struct str text, const char *what, ip4_addr_t *out);
static void address_take(struct stack *stack, const ip4_addr_t *address);

void address_start(struct stack *stack)
{
    struct text host = {stack->hostname, 0, HOSTNAME_MAX, false};
    ip4_addr_t address;

    text_put(&host, stack->config->hostname);
    netif_set_hostname(&stack->netif, stack->hostname);
    netif_create_ip6_linklocal_address(&stack->netif, 1);
    netif_set_ip6_autoconfig_enabled(&stack->netif, 1);
    if (address_read(stack->config->ip4_address, "address", &address))
        address_take(stack, &address);
    else if (dhcp_start(&stack->netif) != ERR_OK)
        log_error("net", "DHCP did not start");
    names_start(stack);
}

void address_look(struct stack *stack, u64 now)
{
    bool asks = netif_dhcp_data(&stack->netif) && !dhcp_supplied_address(&stack->netif);

    if (!stack->link || !asks) {
        if (stack->fallback && stack->link)
            fallback_leave(stack);
        stack->fallback = false;
        stack->bound_ns = now;
    } else if (!stack->fallback &&
               now - max_u64(stack->bound_ns, stack->link_ns) > DHCP_PATIENCE_S * NS_PER_S) {
        fallback_take(stack);
    }
    if (stack->name_taken)
        name_change(stack);
}

void address_note(struct stack *stack, u64 now)
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

/* ---- IPv4 ---- */

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

static void fallback_take(struct stack *stack)
{
    ip4_addr_t address;

    stack->fallback = true;
    log_warn("net", "no DHCP server answered in %u s, still asking", DHCP_PATIENCE_S);
    if (address_read(stack->config->ip4_fallback, "fallback", &address))
        address_take(stack, &address);
    else if (autoip_start(&stack->netif) != ERR_OK)
        log_error("net", "AutoIP did not start");
}

/* lwIP's autoip_stop lets the probes run on, and they would end in its address (2.2.1). */
static void fallback_leave(struct stack *stack)
{
    struct autoip *autoip = netif_autoip_data(&stack->netif);

    if (!autoip)
        return; /* it was a static one: DHCP's has replaced it */
    autoip_stop(&stack->netif);
    acd_stop(&autoip->acd);
}

/* ---- name and clock ---- */

/* RFC 6762, 9: another machine has it. Ours gets the end of its address. */
static void name_change(struct stack *stack)
{
    usize keep = min_u64(strlen(stack->hostname), HOSTNAME_MAX - strlen("-0123"));
    struct text name = {stack->hostname, keep, HOSTNAME_MAX, false};

    text_fmt(&name, "-%02x%02x", stack->nic->mac[4], stack->nic->mac[5]);
    stack->name_taken = false;
    log_warn("net", "another machine has this name: now %s.local", stack->hostname);
    mdns_resp_rename_netif(&stack->netif, stack->hostname);
}

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

void port_time_set(u32 unix_s)
{
    log_info("net", "SNTP: %u s since 1970, our clock said %lld", unix_s, (long long)time_unix_s());
    time_unix_set(unix_s);
}
