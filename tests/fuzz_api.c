/*
 * fuzz_api.c: any bytes on a connection of the whole server half, with a runtime that answers in
 * between: no CHECK, no lost block, every answer starts as HTTP, the next client is served.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/host/platform.h"
#include "tests/net_fake.c"

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes);

void test_fail(const char *file, int line, const char *format, ...)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, format);
    abort();
}

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes)
{
    static struct fake fake;
    struct wire wire;

    if (!fake.server)
        fake_open(&fake);
    wire_open(&fake, &wire);
    wire.recv_max = bytes ? data[0] % 8 : 0;
    fake.hold = bytes && (data[0] & 0x10);
    wire_feed(&wire, (struct str){(const char *)data + (bytes != 0), bytes - (bytes != 0)});
    fake_settle(&fake);
    EXPECT(wire.out_len == 0 || str_starts(wire_out(&wire), STR("HTTP/1.1 ")));
    wire_close(&wire);
    fake_settle(&fake);
    EXPECT(fake.server->in_pool.used == 0 && fake.server->out_pool.used == 0);
    EXPECT(server_connections(fake.server) == 0 && fake_running(&fake) == 0);
    return 0;
}
