/*
 * lwipopts.h: how lwIP is built: raw API, one thread, fixed pools, both address families, nothing
 * that a server of one port does not need; what is not here keeps lwIP's default. Sizes follow from
 * NET_CONNECTIONS_MAX (64): a peer may exhaust its own share only. Follows: lwIP 2.2.1, lwip/opt.h.
 */
#ifndef NOHOST_LWIPOPTS_H
#define NOHOST_LWIPOPTS_H

#define NO_SYS              1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_SOCKET         0
#define LWIP_NETCONN        0

/* A heap for what is sent, pools for everything else, no malloc. */
#define MEM_ALIGNMENT       8
#define MEM_SIZE            (3 * 1024 * 1024) /* 64 connections with a full send queue: 2.2 MB */
#define PBUF_POOL_SIZE      512 /* frames on their way in; conn.c empties them at once */
#define PBUF_POOL_BUFSIZE   1536
#define MEMP_NUM_PBUF       128
#define MEMP_NUM_TCP_PCB    288 /* 64 connections, 128 half open, the rest closing */
#define MEMP_NUM_TCP_SEG    (64 * TCP_SND_QUEUELEN)
#define MEMP_NUM_UDP_PCB    8 /* DHCP, DNS, mDNS, SNTP */
#define MEMP_NUM_SYS_TIMEOUT (LWIP_NUM_SYS_TIMEOUT_INTERNAL + 16) /* mDNS and SNTP have their own */
#define LWIP_STATS          1 /* pools are counted for /metrics and for the leak tests */

/* The interface, IPv4, IPv6. */
#define LWIP_SINGLE_NETIF   1
#define LWIP_NETIF_HOSTNAME 1
#define LWIP_NETIF_EXT_STATUS_CALLBACK 1
#define LWIP_NUM_NETIF_CLIENT_DATA 1 /* mDNS */
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1 /* netif.c sets the flags frame by frame */
#define ARP_TABLE_SIZE      64
#define IP_REASS_MAX_PBUFS  16
#define LWIP_IGMP           1
#define LWIP_DHCP           1
#define LWIP_DHCP_DOES_ACD_CHECK 0 /* takes seconds; the server knows what it gives */
#define LWIP_DHCP_GET_NTP_SRV 1
#define LWIP_AUTOIP         1
#define LWIP_IPV6           1
#define IPV6_FRAG_COPYHEADER 1 /* pointers are 64 bits wide */
#define LWIP_IPV6_NUM_ADDRESSES 4
#define LWIP_ND6_NUM_NEIGHBORS 32
#define LWIP_ND6_NUM_DESTINATIONS 64
#define LWIP_ND6_RDNSS_MAX_DNS_SERVERS 1

/* TCP, and the services over UDP. */
#define TCP_MSS             1440 /* fits a 1500-byte frame over IPv4 and IPv6 */
#define TCP_WND             (32 * 1024) /* conn.c keeps as much room per connection */
#define TCP_SND_BUF         (16 * TCP_MSS)
#define TCP_SND_QUEUELEN    48
#define TCP_OVERSIZE        256 /* streams send small pieces: whole segments would waste the heap */
#define TCP_OOSEQ_MAX_PBUFS 6 /* 64 connections cannot hold more than 384 of the 512 frames */
#define TCP_LISTEN_BACKLOG  1
#define TCP_DEFAULT_LISTEN_BACKLOG 128 /* a half open one stays for 20 s */
#define TCP_MAXRTX          8
#define TCP_MSL             30000UL
#define TCP_KEEPIDLE_DEFAULT 60000UL /* a peer that vanished silently is found in two minutes */
#define TCP_KEEPINTVL_DEFAULT 10000UL
#define TCP_KEEPCNT_DEFAULT 6U
#define LWIP_DNS            1
#define DNS_TABLE_SIZE      2
#define LWIP_MDNS_RESPONDER 1
#define LWIP_MDNS_SEARCH    0
#define SNTP_SERVER_DNS     1
#define SNTP_CHECK_RESPONSE 2 /* the reply repeats the random time stamp of our question */
#define SNTP_STARTUP_DELAY  0
#define SNTP_GET_SYSTEM_TIME(s, us) ((s) = port_rand(), (us) = port_rand() % 1000000)
#define SNTP_SET_SYSTEM_TIME(s) port_time_set(s)

#endif
