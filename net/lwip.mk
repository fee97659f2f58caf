# lwip.mk: what of lwIP is built. The Makefile includes this with LWIP set to the unpacked source.
# Its files see -isystem of LWIP_INC (net/port: the port headers) and are compiled with relaxed warnings; net/*.c needs LWIP_INC too.

LWIP_INC = $(LWIP)/src/include net/port

LWIP_SRC = $(addprefix $(LWIP)/src/, \
    $(addprefix core/, init.c def.c dns.c inet_chksum.c ip.c mem.c memp.c netif.c pbuf.c stats.c \
        tcp.c tcp_in.c tcp_out.c timeouts.c udp.c) \
    $(addprefix core/ipv4/, acd.c autoip.c dhcp.c etharp.c icmp.c igmp.c ip4.c ip4_addr.c ip4_frag.c) \
    $(addprefix core/ipv6/, ethip6.c icmp6.c inet6.c ip6.c ip6_addr.c ip6_frag.c mld6.c nd6.c) \
    netif/ethernet.c \
    apps/mdns/mdns.c apps/mdns/mdns_domain.c apps/mdns/mdns_out.c \
    apps/sntp/sntp.c)
