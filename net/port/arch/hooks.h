/*
 * hooks.h: where lwIP asks us. Initial sequence numbers must not be guessable (RFC 6528): isn.c.
 */
#ifndef NOHOST_LWIP_HOOKS_H
#define NOHOST_LWIP_HOOKS_H

#include "lwip/ip_addr.h"

u32_t port_tcp_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote,
                   u16_t remote_port);
#define LWIP_HOOK_TCP_ISN port_tcp_isn

#endif
