/*
 * serve.c: `radeon serve`: options, sockets, and the loop that turns cards and clients by turns.
 * One thread: a message is whole before it is looked at, a card steps between messages, and time
 * passes for it as it passes for the client. Knows nothing of what is in a message (serve_tcp.c,
 * serve_vfu.c) nor inside a card. Only the loopback interface and unix sockets are served.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sim/serve.h"

#define STEP_BUDGET   50000u /* about 0.1 ms of wave instructions: how late a message may be seen */
#define IDLE_MS       1
#define SEND_WAIT_MS  10000
#define RECV_BYTES    (256 * KIB)
#define LEDGER_BYTES  (256 * KIB)
#define FULL_BAR_BITS 15u /* 32 GiB in MiB */

static const char help[] =
    "usage: radeon serve (--tcp HOST:PORT | --socket PATH...) [options]\n"
    "Gives simulated cards to clients until SIGINT or SIGTERM. Says on stdout where.\n"
    "  --tcp HOST:PORT  tinygrad's REMOTE protocol; 127.0.0.1 only, port 0: any free one\n"
    "  --socket PATH    vfio-user, for QEMU; once for each card\n"
    "  --cards N        cards behind --tcp (default 1)\n"
    "  --seed N         of latencies, orders, and what fresh memory holds (default 1)\n"
    "  --fast           falsification off     --lenient   findings are only logged\n"
    "  --vram MIB       memory of a card (default: the profile's)\n"
    "  --bar0 MIB       size of BAR 0 at power-on (default: tcp 256, socket 32768)\n"
    "  --trace FILE     every register access  --ledger FILE  totals as JSON at the end\n"
    "The exit status is 1 when a card has found a fault in its driver.\n"
    "Example:\n"
    "  radeon serve --tcp 127.0.0.1:6667 &\n"
    "  REMOTE=127.0.0.1:6667 DEV=PCI+AMD:LLVM python -c 'from tinygrad import Tensor;\n"
    "      print((Tensor([1, 2]) + 1).tolist())'\n";

struct serve_options {
    struct sim_options sim;
    const char *tcp, *ledger;
    const char *sockets[SERVE_CARDS_MAX];
    u32 socket_count, cards;
};

static bool options_read(struct serve_options *options, int argc, char **argv);
static bool serve_open(struct serve *serve, const struct serve_options *options);
static void serve_loop(struct serve *serve, int signals);
static bool serve_close(struct serve *serve, const struct serve_options *options);

int serve_main(int argc, char **argv)
{
    struct serve_options options = {.cards = 1, .sim.seed = 1};
    struct serve *serve = calloc(1, sizeof(*serve));
    sigset_t ends;

    if (argc > 1 && !strcmp(argv[1], "--help")) {
        fputs(help, stdout);
        return 0;
    }
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    signal(SIGPIPE, SIG_IGN);
    int signals = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
    if (!serve || signals < 0 || !options_read(&options, argc, argv) ||
        !serve_open(serve, &options))
        return 2;
    serve_loop(serve, signals);
    return serve_close(serve, &options) ? 0 : 1;
}

/* ---- options ---- */

static bool number_read(const char *name, const char *text, u64 *value)
{
    if (str_to_u64(str_of(text), value) == OK)
        return true;
    fprintf(stderr, "radeon serve: %s wants a number, not '%s'\n", name, text);
    return false;
}

/* An option with a value. */
static bool option_set(struct serve_options *options, const char *name, const char *value)
{
    u64 number = 0;

    if (!strcmp(name, "--tcp"))
        options->tcp = value;
    else if (!strcmp(name, "--trace"))
        options->sim.trace = value;
    else if (!strcmp(name, "--ledger"))
        options->ledger = value;
    else if (!strcmp(name, "--socket") && options->socket_count < SERVE_CARDS_MAX)
        options->sockets[options->socket_count++] = value;
    else if (!number_read(name, value, &number))
        return false;
    else if (!strcmp(name, "--seed"))
        options->sim.seed = number;
    else if (!strcmp(name, "--vram") && number <= 1 << 20)
        options->sim.vram_bytes = number * MIB;
    else if (!strcmp(name, "--bar0") && number <= 1 << 20)
        options->sim.bar0_bytes = number * MIB;
    else if (!strcmp(name, "--cards") && number >= 1 && number <= SERVE_CARDS_MAX)
        options->cards = (u32)number;
    else
        return false;
    return true;
}

static bool options_read(struct serve_options *options, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--fast"))
            options->sim.fast = true;
        else if (!strcmp(argv[i], "--lenient"))
            options->sim.lenient = true;
        else if (i + 1 == argc || !option_set(options, argv[i], argv[i + 1])) {
            fprintf(stderr, "radeon serve: '%s' is not to be had (--help says more)\n", argv[i]);
            return false;
        } else
            i++;
    }
    if (!options->tcp == !options->socket_count) {
        fputs("radeon serve: --tcp or --socket, one of them\n", stderr);
        return false;
    }
    if (options->socket_count && !options->sim.bar0_bytes)
        options->sim.bar0_bytes = (u64)MIB << FULL_BAR_BITS;
    return true;
}

/* ---- cards and listeners ---- */

static bool card_open(struct serve *serve, const struct serve_options *options, u32 number)
{
    struct serve_card *card = &serve->cards[number];
    struct sim_options sim = options->sim;
    struct sim_host host = memory_host(card);

    /* Cards behind --tcp stand in one machine; each QEMU has a memory of its own. */
    *card =
        (struct serve_card){NULL, serve, &serve->memories[options->tcp ? 0 : number], number, -1};
    sim.seed += number;
    card->sim = sim_create(&sim, &host);
    if (!card->sim) {
        fprintf(stderr, "radeon serve: no memory for card %u\n", number);
        return false;
    }
    serve->card_count++;
    if (options->tcp)
        tcp_bars_assign(card);
    return true;
}

static int listen_tcp(const char *where)
{
    struct str port_text, host = str_cut(str_of(where), ':', &port_text);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(address);
    u64 port = 0;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (!str_eq(host, STR("127.0.0.1")) || str_to_u64(port_text, &port) != OK || port > 65535) {
        fprintf(stderr, "radeon serve: --tcp wants 127.0.0.1:PORT, not '%s'\n", where);
        return -1;
    }
    address.sin_port = htons((u16)port);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) || listen(fd, SERVE_CLIENTS_MAX) ||
        getsockname(fd, (struct sockaddr *)&address, &len)) {
        fprintf(stderr, "radeon serve: %s: %s\n", where, strerror(errno));
        return -1;
    }
    printf("{\"tcp\":\"127.0.0.1:%u\"}\n", ntohs(address.sin_port));
    return fd;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(address.sun_path)) {
        fprintf(stderr, "radeon serve: %s is too long a path\n", path);
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1)) {
        fprintf(stderr, "radeon serve: %s: %s\n", path, strerror(errno));
        return -1;
    }
    printf("{\"socket\":\"%s\"}\n", path);
    return fd;
}

static bool serve_open(struct serve *serve, const struct serve_options *options)
{
    u32 cards = options->tcp ? options->cards : options->socket_count;

    for (u32 i = 0; i < SERVE_CLIENTS_MAX; i++)
        serve->clients[i].fd = -1;
    for (u32 i = 0; i < cards; i++)
        if (!card_open(serve, options, i))
            return false;
    serve->listener_count = options->tcp ? 1 : cards;
    for (u32 i = 0; i < serve->listener_count; i++) {
        serve->listeners[i] = options->tcp ? (struct listener){0, &tcp_protocol, NULL}
                                           : (struct listener){0, &vfu_protocol, &serve->cards[i]};
        serve->listeners[i].fd =
            options->tcp ? listen_tcp(options->tcp) : listen_unix(options->sockets[i]);
        if (serve->listeners[i].fd < 0)
            return false;
    }
    fflush(stdout);
    return true;
}

/* Returns whether no card has found anything. */
static bool serve_close(struct serve *serve, const struct serve_options *options)
{
    FILE *file = options->ledger ? fopen(options->ledger, "w") : NULL;
    char *json = calloc(1, LEDGER_BYTES);
    bool clean = true;

    for (u32 i = 0; i < options->socket_count; i++)
        unlink(options->sockets[i]);
    for (u32 i = 0; i < serve->card_count; i++) {
        struct sim *sim = serve->cards[i].sim;
        clean &= sim_failure(sim) == NULL;
        if (file && json && sim_ledger(sim, json, LEDGER_BYTES) <= LEDGER_BYTES)
            fprintf(file, "%s\n", json);
        sim_destroy(sim);
    }
    if (file)
        fclose(file);
    free(json);
    return clean;
}

/* ---- clients ---- */

static void client_close(struct serve_client *client)
{
    client->protocol->gone(client);
    while (client->fd_count)
        close(client_take_fd(client));
    close(client->fd);
    free(client->in);
    *client = (struct serve_client){.fd = -1};
}

static void client_accept(struct serve *serve, const struct listener *listener)
{
    int on = 1, fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);

    for (u32 i = 0; i < SERVE_CLIENTS_MAX && fd >= 0; i++) {
        if (serve->clients[i].fd >= 0)
            continue;
        if (!listener->card)
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        serve->clients[i] = (struct serve_client){.serve = serve,
                                                  .protocol = listener->protocol,
                                                  .card = listener->card,
                                                  .owner = ++serve->owners,
                                                  .fd = fd};
        return;
    }
    if (fd >= 0)
        close(fd); /* every place is taken */
}

/* Makes room for `bytes` in all. */
static bool client_reserve(struct serve_client *client, usize bytes)
{
    if (bytes <= client->in_cap)
        return true;
    u8 *more = realloc(client->in, bytes);
    if (!more)
        return false;
    client->in = more;
    client->in_cap = bytes;
    return true;
}

/* What a message brought beside its bytes. More descriptors than fit are closed. */
static void fds_keep(struct serve_client *client, struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        for (usize at = 0; at + sizeof(int) <= part->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + at, sizeof(fd));
            if (client->fd_count < SERVE_FDS_MAX)
                client->fds[client->fd_count++] = fd;
            else
                close(fd);
        }
    }
}

/* False: the peer has gone or is to go. */
static bool client_receive(struct serve_client *client)
{
    char control[CMSG_SPACE(SERVE_FDS_MAX * sizeof(int))];

    if (!client_reserve(client, client->in_bytes + RECV_BYTES))
        return false;
    struct iovec into = {client->in + client->in_bytes, client->in_cap - client->in_bytes};
    struct msghdr message = {.msg_iov = &into,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    ssize_t got = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    fds_keep(client, &message);
    client->in_bytes += (usize)got;
    return true;
}

/* Every whole message that has come. */
static bool client_work(struct serve_client *client)
{
    const struct serve_protocol *protocol = client->protocol;
    usize at = 0;
    bool good = true;

    while (good && client->in_bytes - at >= protocol->header_bytes) {
        usize bytes = protocol->message_bytes(client->in + at);
        if (bytes == MESSAGE_BAD)
            return false;
        if (bytes > client->in_bytes - at) {
            good = client_reserve(client, at + bytes);
            break;
        }
        good = protocol->handle(client, client->in + at, bytes);
        at += bytes;
    }
    client->in_bytes -= at;
    memmove(client->in, client->in + at, client->in_bytes);
    return good;
}

bool client_send(struct serve_client *client, const void *data, usize bytes, int fd)
{
    char control[CMSG_SPACE(sizeof(int))] = {};
    struct iovec from = {(void *)(uintptr_t)data, bytes};
    struct msghdr message = {.msg_iov = &from, .msg_iovlen = 1};

    if (fd >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        struct cmsghdr *part = CMSG_FIRSTHDR(&message);
        *part = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(part), &fd, sizeof(fd));
    }
    while (from.iov_len) {
        struct pollfd writable = {.fd = client->fd, .events = POLLOUT};
        ssize_t sent = sendmsg(client->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN && poll(&writable, 1, SEND_WAIT_MS) == 1)
            continue;
        if (sent < 0)
            return false;
        message.msg_control = NULL; /* the descriptor went with the first byte */
        message.msg_controllen = 0;
        from = (struct iovec){(u8 *)from.iov_base + sent, from.iov_len - (usize)sent};
    }
    return true;
}

int client_take_fd(struct serve_client *client)
{
    int fd = client->fd_count ? client->fds[0] : -1;

    if (client->fd_count)
        memmove(client->fds, client->fds + 1, --client->fd_count * sizeof(int));
    return fd;
}

void client_log(const struct serve_client *client, const char *format, ...)
{
    va_list args;

    if (client->serve->quiet)
        return;
    va_start(args, format);
    fprintf(stderr, "client %u: ", client->owner);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* ---- the loop ---- */

/* Returns whether a card has something to do right now. */
static bool cards_step(struct serve *serve, u64 passed_ns)
{
    bool busy = false;

    for (u32 i = 0; i < serve->card_count; i++) {
        sim_wait(serve->cards[i].sim, passed_ns);
        busy |= sim_step(serve->cards[i].sim, STEP_BUDGET);
    }
    return busy;
}

static void serve_loop(struct serve *serve, int signals)
{
    enum { LISTENERS = 1, CLIENTS = LISTENERS + SERVE_CARDS_MAX };
    struct pollfd fds[CLIENTS + SERVE_CLIENTS_MAX];
    u64 last_ns = time_ns();

    for (;;) {
        u64 now_ns = time_ns();
        bool busy = cards_step(serve, now_ns - last_ns);
        last_ns = now_ns;
        for (u32 i = 0; i < ARRAY_LEN(fds); i++)
            fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
        fds[0].fd = signals;
        for (u32 i = 0; i < serve->listener_count; i++)
            fds[LISTENERS + i].fd = serve->listeners[i].fd;
        for (u32 i = 0; i < SERVE_CLIENTS_MAX; i++)
            fds[CLIENTS + i].fd = serve->clients[i].fd;
        if (poll(fds, ARRAY_LEN(fds), busy ? 0 : IDLE_MS) <= 0)
            continue;
        if (fds[0].revents)
            return;
        for (u32 i = 0; i < serve->listener_count; i++)
            if (fds[LISTENERS + i].revents)
                client_accept(serve, &serve->listeners[i]);
        for (u32 i = 0; i < SERVE_CLIENTS_MAX; i++) {
            struct serve_client *client = &serve->clients[i];
            if (fds[CLIENTS + i].revents && !(client_receive(client) && client_work(client)))
                client_close(client);
        }
    }
}
