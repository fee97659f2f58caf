/*
 * cc.h: what lwIP asks of compiler and platform; netif.c, address.c and conn.c implement the port_*
 * functions. Follows: lwIP 2.2.1, lwip/arch.h.
 */
#ifndef NOHOST_LWIP_CC_H
#define NOHOST_LWIP_CC_H

#include <stdint.h>

#define LWIP_NO_CTYPE_H    1
#define LWIP_NO_INTTYPES_H 1

/* A broken invariant inside the stack is our own mistake, as CHECK is. */
__attribute__((noreturn)) void panic(const char *file, int line, const char *what);
#define LWIP_PLATFORM_ASSERT(what) panic(__FILE__, __LINE__, what)
#define LWIP_PLATFORM_DIAG(message)

uint32_t port_rand(void); /* ports, transaction ids, delays */
#define LWIP_RAND() port_rand()
struct ip_addr;
uint32_t port_tcp_isn(const struct ip_addr *local, uint16_t local_port,
                      const struct ip_addr *remote, uint16_t remote_port);
#define LWIP_HOOK_TCP_ISN port_tcp_isn
void port_time_set(uint32_t unix_s); /* SNTP has answered */

#endif
