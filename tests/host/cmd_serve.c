/*
 * cmd_serve.c: `nohost serve`: the server half of net/ over Linux sockets on 127.0.0.1, in one
 * thread, with the same two calls in its loop as on the target. Everything above struct stream is
 * the code that the firmware runs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/priv.h"
#include "tests/host/card.h"
#include "tests/host/platform.h"
#include "tests/host/tool.h"
#include "version.h"

#define SLICE_US    2000u
#define IDLE_MS     5
#define LINGER_NS   (2 * NS_PER_S)
#define SOCKETS_MAX (2 * NET_CONNECTIONS_MAX)

int cmd_serve(int argc, char **argv);

static const char help[] =
    "usage: nohost serve [--model FILE] [--port P] [options]\n"
    "The HTTP API of docs/API.md on 127.0.0.1. Without a model /health says so.\n"
    "Prints {\"url\":...} when it listens; ends with SIGINT or SIGTERM.\n"
    "  --port P        0: any free one (default 8080)\n"
    "  --api-key KEY   ask for it; privileged routes are on then\n"
    "  --ctx N --slots N --kv-tokens N --threads N\n"
    "  --device sim [--fast]  on the simulated card; --cards 2: a copy on each, or\n"
    "  --layers        each with a part of the layers\n"
    "  --verbose       the log on stderr\n";

static const char *const options[] = {
    "--model=",     "--port=",    "--api-key=", "--ctx=", "--slots=",
    "--kv-tokens=", "--threads=", CARD_OPTIONS, "--layers", "--verbose", "--help", NULL};

/* ---- a stream over a socket ---- */

struct socket_stream {
    struct stream stream;
    int fd; /* -1: free */
    bool peer_done, gone;
    u64 linger_until_ns; /* not 0: closed by the server, what still comes is thrown away */
};

static struct socket_stream *socket_of(struct stream *stream)
{
    return (struct socket_stream *)stream;
}

static usize socket_recv(struct stream *stream, void *out, usize cap)
{
    struct socket_stream *s = socket_of(stream);
    ssize_t got = cap ? recv(s->fd, out, cap, MSG_DONTWAIT) : -1;

    s->peer_done |= got == 0;
    s->gone |= cap && got < 0 && errno != EAGAIN && errno != EINTR;
    return got > 0 ? (usize)got : 0;
}

static usize socket_send(struct stream *stream, const void *data, usize len)
{
    struct socket_stream *s = socket_of(stream);
    ssize_t took = send(s->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);

    s->gone |= took < 0 && errno != EAGAIN && errno != EINTR;
    return took > 0 ? (usize)took : 0;
}

static usize socket_unsent(struct stream *stream)
{
    int bytes = 0;

    ioctl(socket_of(stream)->fd, TIOCOUTQ, &bytes);
    return (usize)bytes;
}

static enum stream_state socket_state(struct stream *stream)
{
    const struct socket_stream *s = socket_of(stream);

    return s->gone ? STREAM_GONE : s->peer_done ? STREAM_PEER_DONE : STREAM_OPEN;
}

static void release(struct socket_stream *s)
{
    close(s->fd);
    s->fd = -1;
}

static void socket_close(struct stream *stream)
{
    shutdown(socket_of(stream)->fd, SHUT_WR);
    socket_of(stream)->linger_until_ns = time_ns() + LINGER_NS;
}

static void linger(struct socket_stream *s)
{
    char rest[4096];

    while (socket_recv(&s->stream, rest, sizeof(rest)))
        ;
    if (s->peer_done || s->gone || time_ns() > s->linger_until_ns)
        release(s);
}

static void socket_abort(struct stream *stream)
{
    struct linger at_once = {1, 0};

    setsockopt(socket_of(stream)->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    release(socket_of(stream));
}

static const struct stream_ops socket_ops = {
    socket_recv, socket_send, socket_unsent, socket_state, socket_close, socket_abort,
};

/* ---- the loop ---- */

static struct socket_stream sockets[SOCKETS_MAX];
static volatile sig_atomic_t ended;

static void end(int signal)
{
    (void)signal;
    ended = 1;
}

static int listen_on(u16 port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(address);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) || listen(fd, 64) ||
        getsockname(fd, (struct sockaddr *)&address, &len))
        tool_fail("port %u of 127.0.0.1: %m", port);
    printf("{\"url\":\"http://127.0.0.1:%u\"}\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void accept_all(struct server *server, int listener)
{
    int on = 1, fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        u32 place = 0;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        while (place < SOCKETS_MAX && sockets[place].fd >= 0)
            place++;
        if (place == SOCKETS_MAX) {
            close(fd);
            continue;
        }
        sockets[place] = (struct socket_stream){.stream = {&socket_ops, "127.0.0.1"}, .fd = fd};
        if (!server_accept(server, &sockets[place].stream))
            socket_abort(&sockets[place].stream);
    }
}

/* Sleeps until something may be done; notes who has gone, also where nobody reads. */
static void watch(int listener, int timeout_ms)
{
    struct pollfd watched[SOCKETS_MAX + 1] = {{listener, POLLIN, 0}};

    for (u32 i = 0; i < SOCKETS_MAX; i++)
        watched[i + 1] = (struct pollfd){sockets[i].fd, POLLRDHUP | (timeout_ms ? POLLIN : 0), 0};
    poll(watched, ARRAY_LEN(watched), timeout_ms);
    for (u32 i = 0; i < SOCKETS_MAX; i++) {
        sockets[i].peer_done |= (watched[i + 1].revents & POLLRDHUP) != 0;
        sockets[i].gone |= (watched[i + 1].revents & (POLLERR | POLLHUP)) != 0;
        if (sockets[i].fd >= 0 && sockets[i].linger_until_ns)
            linger(&sockets[i]);
    }
}

static void serve(struct server *server, struct ml *ml, int listener)
{
    while (!ended) {
        accept_all(server, listener);
        bool work = server_poll(server);
        work |= card_turn();
        work |= ml_step(ml, SLICE_US);
        watch(listener, work ? 0 : IDLE_MS);
    }
}

static void end_process(void)
{
    ended = 1;
}

int cmd_serve(int argc, char **argv)
{
    static struct net_config config = {.hostname = STR("nohost"),
                                       .version = STR(NOHOST_VERSION),
                                       .reset = end_process,
                                       .power_off = end_process};
    static struct store part[ML_PARTS_MAX];
    struct ml_config ml_config = {.part = part};
    struct server *server;
    struct ml *ml;

    tool_check(argc, argv, options, help);
    const char *model = tool_option(argc, argv, "--model");
    const char *key = tool_option(argc, argv, "--api-key");
    ml_config.part_count = model ? tool_model(model, part) : 0;
    ml_config.ctx_max = (u32)tool_number(argc, argv, "--ctx", 0);
    ml_config.slots = (u32)tool_number(argc, argv, "--slots", 0);
    ml_config.kv_tokens = (u32)tool_number(argc, argv, "--kv-tokens", 0);
    ml_config.threads = (u32)tool_number(argc, argv, "--threads", 0);
    config.api_key[0] = str_of(key);
    config.api_key_count = key != NULL;
    config.port = (u16)tool_number(argc, argv, "--port", 8080);
    if (tool_flag(argc, argv, "--verbose"))
        platform_log_stderr();
    card_use(argc, argv, &ml_config);
    ml_config.split_layers = tool_flag(argc, argv, "--layers");
    for (u32 i = 0; i < SOCKETS_MAX; i++)
        sockets[i].fd = -1;
    signal(SIGINT, end);
    signal(SIGTERM, end);
    err e = ml_open(&ml, &ml_config);
    if (e != OK || (e = server_open(&server, &config, ml)) != OK)
        tool_fail("serve: %s", err_text(e));
    serve(server, ml, listen_on(config.port));
    server_close(server);
    return 0;
}
