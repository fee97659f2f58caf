/*
 * isn.c: TCP initial sequence numbers: a 4 us clock plus a keyed hash of the connection's two ends,
 * so that an outsider cannot forge segments. Knows nothing of TCP itself.
 * Follows: RFC 6528; J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF" (2012).
 */
#include "net/stack.h"

#define CLOCK_NS 4000u /* RFC 6528, section 3: M ticks every 4 microseconds */

/* lwIP asks without a context; the only interface there is carries it. */
u32_t port_tcp_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote,
                   u16_t remote_port)
{
    const struct net *net = netif_default->state;
    struct {
        u8 local[16], remote[16];
        u16 local_port, remote_port;
    } ends = {.local_port = local_port, .remote_port = remote_port};
    usize bytes = IP_IS_V6(local) ? 16 : 4;

    memcpy(ends.local, &local->u_addr, bytes);
    memcpy(ends.remote, &remote->u_addr, bytes);
    return (u32)(time_ns() / CLOCK_NS + siphash(net->isn_key, (const u8 *)&ends, sizeof ends));
}

static u64 rotate(u64 value, u32 by)
{
    return value << by | value >> (64 - by);
}

static void rounds(u64 v[4], u32 count)
{
    while (count--) {
        v[0] += v[1], v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1], v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

u64 siphash(const u64 key[2], const u8 *data, usize bytes)
{
    u64 v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};

    for (usize at = 0; at <= bytes; at += 8) { /* the last word is partly the length */
        usize rest = min_u64(bytes - at, 8);
        u64 word = rest < 8 ? (u64)bytes << 56 : 0;
        for (usize i = 0; i < rest; i++)
            word |= (u64)data[at + i] << 8 * i;
        v[3] ^= word;
        rounds(v, 2);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
