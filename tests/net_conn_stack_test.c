/*
 * net_conn_stack_test.c: the interface and its addresses: lwIP as configured, netif.c, address.c,
 * with a peer that builds its frames by hand (net_wire.c).
 */
#include "tests/net_wire.h"
#include "tests/test.h"

static u32 our_ip4(const struct wire *w)
{
    return wire_get32((const u8 *)netif_ip4_addr(&w->net.netif));
}

static void link_down(struct wire *w)
{
    w->link = false;
    wire_run(w, 200);
    wire_drop_all(w);
}

/* Guards: an address from DHCP within a second of link, without the seconds of conflict probes. */
TEST(net_conn_dhcp_binds_within_a_second)
{
    struct wire *w = wire_plug();

    EXPECT(wire_bind(w) < 1000);
    EXPECT_EQ(our_ip4(w), WIRE_OUR_IP);
}

/* Guards: a link that goes and comes back is noticed, and DHCP asks again. */
TEST(net_conn_link_flap_asks_dhcp_again)
{
    struct wire *w = wire_plug();

    wire_bind(w);
    link_down(w);
    EXPECT(!w->net.link);
    w->link = true;
    wire_run(w, 300);
    u32 asked = 0, len;
    for (const u8 *frame; (frame = wire_take(w, &len));)
        asked +=
            wire_get16(frame + 12) == 0x0800 && frame[23] == 17 && wire_get16(frame + 36) == 67;
    EXPECT(asked >= 1);
    EXPECT(wire_bind(w) != WIRE_NO_ANSWER);
}

/* Guards: a DHCP server that answers while link-local addresses are probed for is not overruled by
 * them. */
TEST(net_conn_late_dhcp_wins_over_probes)
{
    struct wire *w = wire_plug();

    wire_bind(w);
    link_down(w);
    w->link = true;
    wire_run(w, 5000);
    EXPECT(w->net.fallback);
    wire_drop_all(w);
    EXPECT(wire_bind(w) < 60000);
    for (u32 i = 0; i < 20; i++) {
        wire_run(w, 1000);
        wire_answer(w, true, NULL, NULL);
        EXPECT_EQ(our_ip4(w), WIRE_OUR_IP);
    }
}

/* Guards: a silent DHCP server leaves the machine reachable at the configured address, and a server
 * that wakes up later is still heard. */
TEST(net_conn_fallback_is_static_when_configured)
{
    struct wire *w = wire_plug();

    wire_bind(w);
    link_down(w);
    w->net.config.ip4_fallback = STR("10.0.2.99");
    w->link = true;
    wire_run(w, 3000);
    EXPECT(!w->net.fallback);
    wire_run(w, 2000);
    EXPECT(w->net.fallback);
    EXPECT_EQ(our_ip4(w), 0x0a000263);
    wire_drop_all(w);
    w->net.config.ip4_fallback = STR("");
    EXPECT(wire_bind(w) < 60000);
    wire_run(w, 200);
    EXPECT(!w->net.fallback);
}

/* Guards: without any configuration the fallback is link-local (RFC 3927), after its probes, and
 * DHCP wins later. */
TEST(net_conn_fallback_is_link_local)
{
    struct wire *w = wire_plug();

    wire_bind(w);
    link_down(w);
    w->link = true;
    for (u32 i = 0; i < 20 && our_ip4(w) >> 16 != 0xa9fe; i++)
        wire_run(w, 1000), wire_drop_all(w);
    EXPECT_EQ(our_ip4(w) >> 16, 0xa9fe);
    EXPECT(wire_bind(w) < 60000);
    wire_run(w, 15000);
    wire_answer(w, true, NULL, NULL);
    EXPECT_EQ(our_ip4(w), WIRE_OUR_IP);
}

struct found {
    u32 count;
    u8 frame[WIRE_FRAME_MAX];
    u8 protocol;
    u32 port;
};

static void find_ip(void *ctx, const u8 *frame, u32 len)
{
    struct found *f = ctx;

    if (wire_get16(frame + 12) != 0x0800 || frame[23] != f->protocol ||
        (f->port && wire_get16(frame + 36) != f->port))
        return;
    f->count++;
    memcpy(f->frame, frame, len);
}

static u32 echo_replies(struct wire *w)
{
    struct found f = {.protocol = 1};

    wire_turn(w);
    wire_answer(w, true, find_ip, &f);
    wire_turn(w); /* ARP first: the reply waits for it */
    wire_answer(w, true, find_ip, &f);
    return f.count;
}

static void send_echo(struct wire *w)
{
    u8 echo[64] = {8, 0};

    wire_put16(echo + 2, wire_sum(echo, sizeof echo, 0));
    wire_ip4(w, WIRE_OUR_IP, 1, echo, sizeof echo);
}

/* Guards: ping works. */
TEST(net_conn_answers_ping)
{
    struct wire *w = wire_plug();

    wire_bind(w);
    send_echo(w);
    EXPECT_EQ(echo_replies(w), 1);
}

/* Guards: a damaged or giant frame is dropped and counted, and the next one is not touched. */
TEST(net_conn_drops_giant_frames)
{
    struct wire *w = wire_plug();
    static const u8 zero[NIC_FRAME_MAX + 1];

    wire_bind(w);
    u64 before = w->net.count[RX_DROPPED];
    struct wire_pools pools = wire_pools();
    wire_send(w, zero, sizeof zero);
    send_echo(w);
    EXPECT_EQ(echo_replies(w), 1);
    EXPECT_EQ(w->net.count[RX_DROPPED], before + 1);
    struct wire_pools after = wire_pools();
    EXPECT(memcmp(&pools, &after, sizeof pools) == 0);
}

/* Guards: when every frame buffer is taken, frames are dropped and counted; afterwards all works
 * again. */
TEST(net_conn_survives_an_empty_frame_pool)
{
    struct wire *w = wire_plug();
    static struct pbuf *taken[PBUF_POOL_SIZE + 1];
    u32 count = 0;

    wire_bind(w);
    while ((taken[count] = pbuf_alloc(PBUF_RAW, 100, PBUF_POOL)))
        count++;
    EXPECT_EQ(count, PBUF_POOL_SIZE);
    u64 before = w->net.count[RX_DROPPED];
    send_echo(w);
    EXPECT_EQ(echo_replies(w), 0);
    EXPECT_EQ(w->net.count[RX_DROPPED], before + 1);
    while (count)
        pbuf_free(taken[--count]);
    send_echo(w);
    EXPECT_EQ(echo_replies(w), 1);
}

/* Guards: a card that failed is started again; after eight failures in ten minutes, or when it does
 * not come back, it stays off and the link is down. */
TEST(net_conn_restarts_a_failed_card)
{
    struct wire *w = wire_plug();

    wire_bind(w);
    w->starts = 0;
    w->net.faults = 0;
    for (u32 n = 0; n < 8; n++) {
        w->nic.failed = true;
        wire_run(w, 10);
        EXPECT(!w->nic.failed);
    }
    EXPECT_EQ(w->starts, 8);
    wire_run(w, 601000); /* forgiven */
    w->nic.failed = true;
    wire_run(w, 10);
    EXPECT(!w->nic.failed);
    w->broken = w->nic.failed = true;
    wire_run(w, 10);
    wire_run(w, 1000);
    EXPECT(w->nic.failed && !w->net.link && w->starts == 10);
    send_echo(w);
    EXPECT_EQ(echo_replies(w), 0);
    w->in.count = 0;
    w->broken = w->nic.failed = false; /* for the tests that follow */
    w->net.faults = 0;
    EXPECT(wire_bind(w) != WIRE_NO_ANSWER);
    wire_run(w, 200);
}

/* Guards: a card that has no room for a frame for five seconds is started again. */
TEST(net_conn_restarts_a_stalled_card)
{
    struct wire *w = wire_plug();

    wire_bind(w);
    w->starts = 0;
    w->full = true;
    for (u32 i = 0; i < 80 && !w->starts; i++) {
        send_echo(w);
        wire_run(w, 100);
    }
    EXPECT_EQ(w->starts, 1);
    w->full = false;
    wire_run(w, 2000); /* an ARP question was lost: it is asked again */
    wire_drop_all(w);
    send_echo(w);
    EXPECT_EQ(echo_replies(w), 1);
}

/* Guards: <hostname>.local resolves by multicast DNS (RFC 6762), to the address of the interface.
 */
TEST(net_conn_mdns_answers_its_name)
{
    struct wire *w = wire_plug();
    static const u8 question[] = "\0\0\0\0\0\1\0\0\0\0\0\0\6nohost\5local\0\0\1\0\1";
    struct found f = {.protocol = 17, .port = 5353};

    wire_bind(w);
    wire_run(w, 4000); /* probing and announcing */
    wire_answer(w, true, NULL, NULL);
    wire_udp4(w, 0xe00000fb, 5353, 5353, (struct str){(const char *)question, sizeof question - 1});
    memcpy(w->in.frame[(w->in.head + w->in.count - 1) % WIRE_FRAMES], "\1\0\136\0\0\373", 6);
    for (u32 i = 0; i < 300 && !f.count; i++) {
        wire_run(w, 10);
        wire_answer(w, true, find_ip, &f);
    }
    EXPECT_EQ(f.count, 1);
    u32 len = wire_get16(f.frame + 16) + 14;
    bool has_address = false;
    for (u32 at = 42; at + 4 <= len; at++)
        has_address |= wire_get32(f.frame + at) == WIRE_OUR_IP;
    EXPECT(has_address);
}

/* Guards: the clock is set from the DHCP server's NTP option, and only by a reply to our own
 * question. */
TEST(net_conn_sntp_sets_the_clock)
{
    struct wire *w = wire_plug();
    struct found f = {.protocol = 17, .port = 123};
    u8 reply[48] = {0x24, 2};
    i64 before = time_unix_s();

    wire_bind(w);
    for (u32 i = 0; i < 200000 / 100 && !f.count; i++) {
        wire_run(w, 100);
        wire_answer(w, true, find_ip, &f);
    }
    EXPECT(f.count >= 1);
    u16 port = (u16)wire_get16(f.frame + 34);
    wire_put32(reply + 40, 2208988800u + 2000000000u);
    wire_udp4(w, WIRE_OUR_IP, 123, port, (struct str){(char *)reply, sizeof reply});
    wire_turn(w);
    EXPECT(time_unix_s() - before < 10); /* it did not repeat our time stamp: forged */
    memcpy(reply + 24, f.frame + 42 + 40, 8);
    wire_udp4(w, WIRE_OUR_IP, 123, port, (struct str){(char *)reply, sizeof reply});
    wire_turn(w);
    EXPECT(time_unix_s() >= 2000000000 && time_unix_s() < 2000000010);
}

static const u8 peer6[16] = {0xfe, 0x80, [15] = 1};
static const u8 our6[16] = {0xfe, 0x80, [10] = 0, 0xff, 0xfe, [15] = 2}; /* of 02:00:00:00:00:02 */

static u16 sum6(const u8 *ip, u8 next, const u8 *payload, u32 len)
{
    return wire_sum(payload, len, (u16)~wire_sum(ip + 8, 32, next + len));
}

/* `payload` gets its checksum at offset `at`. */
static void send_ip6(struct wire *w, const u8 to[16], u8 next, struct str payload, u32 at)
{
    u8 frame[WIRE_FRAME_MAX] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60};

    wire_put16(frame + 18, (u32)payload.len);
    frame[20] = next;
    frame[21] = 255;
    memcpy(frame + 22, peer6, 16);
    memcpy(frame + 38, to, 16);
    memcpy(frame + 54, payload.ptr, payload.len);
    wire_put16(frame + 54 + at, sum6(frame + 14, next, frame + 54, (u32)payload.len));
    wire_send(w, frame, 54 + (u32)payload.len);
}

/* Guards: a router's advertisement gives an address of its prefix (RFC 4862), after duplicate
 * detection. */
TEST(net_conn_ipv6_takes_a_prefix)
{
    struct wire *w = wire_plug();
    static const u8 all_nodes[16] = {0xff, 2, [15] = 1};
    u8 advert[16 + 32] = {134, [4] = 64, [6] = 1, [16] = 3, 4, 64, 0xc0};

    wire_bind(w);
    wire_put32(advert + 20, 86400);
    wire_put32(advert + 24, 86400);
    memcpy(advert + 32, "\x20\x01\x0d\xb8\0\1\0\2", 8);
    send_ip6(w, all_nodes, 58, (struct str){(char *)advert, sizeof advert}, 2);
    wire_run(w, 3000);
    wire_drop_all(w);
    u32 found = 0;
    for (u32 i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) {
        const u8 *address = (const u8 *)netif_ip6_addr(&w->net.netif, i)->addr;
        if (ip6_addr_ispreferred(netif_ip6_addr_state(&w->net.netif, i)))
            found |= address[0] == 0xfe                                    ? 1
                     : memcmp(address, "\x20\x01\x0d\xb8\0\1\0\2", 8) == 0 ? 2
                                                                           : 4;
    }
    EXPECT_EQ(found, 3);
}

struct heard6 {
    struct wire *w;
    u8 flags;
};

static void hear6(void *ctx, const u8 *frame, u32 len)
{
    struct heard6 *heard = ctx;
    const u8 *payload = frame + 54;
    u8 advert[32] = {136, [4] = 0x60, [24] = 2, 1, 2, 0, 0, 0, 0, 1};

    if (len < 78 || wire_get16(frame + 12) != 0x86dd)
        return;
    if (frame[20] == 58 && payload[0] == 135 && memcmp(payload + 8, peer6, 16) == 0) {
        memcpy(advert + 8, peer6, 16);
        send_ip6(heard->w, our6, 58, (struct str){(char *)advert, sizeof advert}, 2);
    } else if (frame[20] == 6) {
        EXPECT_EQ(sum6(frame + 14, 6, payload, wire_get16(frame + 18)), 0);
        heard->flags = payload[13];
    }
}

/* Guards: TCP over IPv6 is answered, with a checksum that the card completes. */
TEST(net_conn_ipv6_accepts_tcp)
{
    struct heard6 heard = {.w = wire_plug()};
    u8 syn[24] = {0x77, 0x77, 0, WIRE_PORT, [12] = 0x60, 2, 0xff, 0xff, [20] = 2, 4, 5, 0xa0};

    wire_bind(heard.w);
    wire_run(heard.w, 3000); /* duplicate detection */
    wire_drop_all(heard.w);
    send_ip6(heard.w, our6, 6, (struct str){(char *)syn, sizeof syn}, 16);
    for (u32 i = 0; i < 3; i++) {
        wire_turn(heard.w);
        wire_answer(heard.w, true, hear6, &heard);
    }
    EXPECT_EQ(heard.flags, TCP_F_SYN | TCP_F_ACK);
    EXPECT(heard.w->tcp_start == 54);
}

/* Guards: SipHash-2-4 against the reference vector of its paper, appendix A. */
TEST(net_conn_siphash_matches_the_paper)
{
    const u64 key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    const u64 message[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908}; /* 15 bytes, their number */

    EXPECT(siphash(key, message, 2) == 0xa129ca6149be45e5);
}
