/*
 * fuzz_radeon.c: what clients of `radeon serve` send: messages of tinygrad's REMOTE protocol (first
 * byte even) and of vfio-user (odd), whole and in a row, as the loop hands them on. The card behind
 * is a lenient one, so that what it finds does not end it; a descriptor goes with every message.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sim/serve.h"
#include "tests/test.h"

int LLVMFuzzerTestOneInput(const u8 *data, usize size);

/* One machine for all inputs; the answers go to a thread that throws them away. */
static struct serve serve;
static int answers[2];

static void *drain(void *nothing)
{
    u8 buffer[65536];

    while (read(answers[1], buffer, sizeof(buffer)) > 0)
        ;
    return nothing;
}

static void no_log(void *ctx, const char *line)
{
    (void)ctx;
    (void)line;
}

static void machine_build(void)
{
    struct serve_card *card = &serve.cards[0];
    struct sim_options options = {.seed = 1, .lenient = true, .vram_bytes = 64 * MIB};
    pthread_t thread;

    *card = (struct serve_card){NULL, NULL, &serve, &serve.memories[0], 0, -1};
    struct sim_host host = memory_host(card);
    host.log = no_log;
    card->sim = sim_create(&options, &host);
    serve.card_count = 1;
    serve.quiet = true;
    CHECK(card->sim && socketpair(AF_UNIX, SOCK_STREAM, 0, answers) == 0);
    pthread_create(&thread, NULL, drain, NULL);
    pthread_detach(thread);
}

int LLVMFuzzerTestOneInput(const u8 *data, usize size)
{
    if (!serve.card_count)
        machine_build();
    if (size < 1)
        return 0;
    const struct serve_protocol *protocol = data[0] & 1 ? &vfu_protocol : &tcp_protocol;
    struct serve_client client = {.serve = &serve,
                                  .protocol = protocol,
                                  .card = data[0] & 1 ? &serve.cards[0] : NULL,
                                  .owner = 1,
                                  .fd = answers[0]};
    for (usize at = 1; size - at >= protocol->header_bytes;) {
        usize bytes = protocol->message_bytes(data + at);
        if (bytes == MESSAGE_BAD || bytes > size - at)
            break;
        client.fds[0] = open("/dev/zero", O_RDWR);
        client.fd_count = 1;
        /* Copied, so that a read behind the message is seen. */
        u8 *message = memcpy(malloc(bytes), data + at, bytes);
        bool good = protocol->handle(&client, message, bytes);
        free(message);
        while (client.fd_count)
            close(client_take_fd(&client));
        if (!good)
            break;
        at += bytes;
        sim_step(serve.cards[0].sim, 1000);
    }
    protocol->gone(&client);
    return 0;
}
