/*
 * serve.c: `radeon serve`: options, sockets, and the loop that turns cards and clients by turns.
 * One thread: a message is whole before it is looked at, a card steps between messages, and time
 * passes for it as it passes for the client. Knows nothing of what is in a message (serve_tcp.c,
 * serve_vfu.c) nor inside a card. Only the loopback interface and unix sockets are served.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
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

#include "sim/radeon.h"
#include "sim/serve.h"

#define STEP_BUDGET  50000u /* about 0.1 ms of wave instructions: how late a message may be seen */
#define IDLE_MS      1
#define WAIT_S       10 /* for the rest of a message, for room for an answer */
#define HEADER_MAX   64u
#define LEDGER_BYTES (256 * KIB)
#define FULL_BAR     (32 * GIB)

static const char help[] =
    "usage: radeon serve (--tcp HOST:PORT | --socket PATH...) [options]\n"
    "Gives simulated cards to clients until SIGINT or SIGTERM. Says on stdout where.\n"
    "  --tcp HOST:PORT  tinygrad's REMOTE protocol; 127.0.0.1 only, port 0: any free one\n"
    "  --socket PATH    vfio-user, for QEMU; once for each card\n"
    "  --cards N        cards behind --tcp (default 1)\n"
    "  --seed N         of latencies, orders, and what fresh memory holds (default 1)\n"
    "  --fast           falsification off     --lenient   findings are only logged\n"
    "  --threads N      that compute when fast (default: as many as processors)\n"
    "  --report FILE    cards as a driver has reported them (GET /debug/gpu), instead of navi31\n"
    "  --vram MIB       memory of a card (default: the profile's)\n"
    "  --bar0 MIB       size of BAR 0 at power-on (default: tcp 256, socket 32768)\n"
    "  --gone N         the last card is off the bus from its Nth access on\n"
    "  --trace FILE     every register access  --ledger FILE  totals as JSON at the end\n"
    "The exit status is 1 when a card has found a fault in its driver.\n"
    "Example:\n"
    "  radeon serve --tcp 127.0.0.1:6667 &\n"
    "  REMOTE=127.0.0.1:6667 DEV=PCI+AMD:LLVM python -c 'from tinygrad import Tensor;\n"
    "      print((Tensor([1, 2]) + 1).tolist())'\n";

struct serve_options {
    struct sim_options sim;
    struct str report;
    const char *tcp, *ledger;
    const char *sockets[SERVE_CARDS_MAX];
    u32 socket_count, cards;
    u64 gone;
};

static struct serve_options options_read(int argc, char **argv);
static void serve_open(struct serve *serve, const struct serve_options *options);
static void serve_loop(struct serve *serve, int signals);
static bool serve_close(struct serve *serve, const struct serve_options *options);

int serve_main(int argc, char **argv)
{
    struct serve_options options = options_read(argc, argv);
    struct serve *serve = calloc(1, sizeof(*serve));
    sigset_t ends;

    CHECK(serve);
    sigemptyset(&ends);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGTERM);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    serve_open(serve, &options);
    serve_loop(serve, signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK));
    return serve_close(serve, &options) ? 0 : 1;
}

/* ---- options ---- */

static const struct option names[] = {
    {"tcp", 1, NULL, 't'},   {"socket", 1, NULL, 's'},  {"cards", 1, NULL, 'c'},
    {"seed", 1, NULL, 'r'},  {"vram", 1, NULL, 'v'},    {"bar0", 1, NULL, 'b'},
    {"trace", 1, NULL, 'w'}, {"ledger", 1, NULL, 'l'},  {"fast", 0, NULL, 'f'},
    {"gone", 1, NULL, 'g'},  {"threads", 1, NULL, 'j'}, {"lenient", 0, NULL, 'n'},
    {"help", 0, NULL, 'h'},  {"report", 1, NULL, 'p'},  {},
};

/* `text` NULL: none was given. Exits with a message when it is none of 1..max. */
static u64 number(const char *text, u64 max)
{
    u64 value = 0;

    if (text && (str_to_u64(str_of(text), &value) != OK || value < 1 || value > max))
        radeon_fail("serve: '%s' is no number from 1 to %llu", text, (unsigned long long)max);
    return value;
}

static struct serve_options options_read(int argc, char **argv)
{
    struct serve_options options = {};
    const char *given[128] = {};
    int name;

    while ((name = getopt_long(argc, argv, "", names, NULL)) > 0) {
        if (name == '?')
            exit(2); /* getopt has said why */
        if (name == 's' && options.socket_count == SERVE_CARDS_MAX)
            radeon_fail("serve: at most %u sockets", SERVE_CARDS_MAX);
        if (name == 's')
            options.sockets[options.socket_count++] = optarg;
        given[name] = optarg ? optarg : "";
    }
    if (given['h'] && fputs(help, stdout) >= 0)
        exit(0);
    if (optind != argc || !given['t'] == !options.socket_count)
        radeon_fail("serve: --tcp or --socket, one of them (--help says more)");
    options.tcp = given['t'];
    options.ledger = given['l'];
    if (given['p'])
        options.report.ptr = (char *)radeon_file(given['p'], &options.report.len);
    u32 threads = given['j'] ? (u32)number(given['j'], 64) : (u32)sysconf(_SC_NPROCESSORS_ONLN);
    options.gone = number(given['g'], UINT32_MAX);
    options.cards = given['c'] ? (u32)number(given['c'], SERVE_CARDS_MAX) : 1;
    options.sim = (struct sim_options){.seed = given['r'] ? number(given['r'], UINT64_MAX) : 1,
                                       .fast = given['f'] != NULL,
                                       .threads = threads,
                                       .lenient = given['n'] != NULL,
                                       .vram_bytes = number(given['v'], MIB) * MIB,
                                       .bar0_bytes = number(given['b'], MIB) * MIB,
                                       .trace = given['w']};
    if (options.socket_count && !options.sim.bar0_bytes)
        options.sim.bar0_bytes = FULL_BAR;
    return options;
}

/* ---- cards and listeners ---- */

static struct card_profile *profile_open(struct str report, u32 number)
{
    char said[160];
    struct text why = TEXT_ON(said);
    struct card_profile *profile = sim_profile_read(report, number, &why);

    if (!profile)
        radeon_fail("serve: %.*s", (int)why.len, why.ptr);
    return profile;
}

static void card_open(struct serve *serve, const struct serve_options *options, u32 number)
{
    struct serve_card *card = &serve->cards[number];
    struct sim_options sim = options->sim;
    struct sim_host host = memory_host(card);

    /* Cards behind --tcp stand in one machine; each QEMU has a memory of its own. */
    *card = (struct serve_card){NULL,   NULL, serve, &serve->memories[options->tcp ? 0 : number],
                                number, -1};
    sim.seed += number;
    if (options->gone && number + 1 == (options->tcp ? options->cards : options->socket_count))
        sim.fault = (struct sim_fault){SIM_FAULT_GONE, options->gone};
    sim.profile = card->profile =
        options->report.ptr ? profile_open(options->report, number) : NULL;
    card->sim = sim_create(&sim, &host);
    if (!card->sim)
        radeon_fail("serve: cannot have card %u: memory, or the trace's file", number);
    serve->card_count++;
    if (options->tcp)
        tcp_bars_assign(card);
}

/* A bound socket of this address, which listens. */
static int listener_open(const char *where, struct sockaddr *address, socklen_t bytes)
{
    int on = 1, fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || bind(fd, address, bytes) || listen(fd, SERVE_CLIENTS_MAX))
        radeon_fail("serve: %s: %s", where, strerror(errno));
    return fd;
}

static int listen_tcp(const char *where)
{
    struct str port_text, host = str_cut(str_of(where), ':', &port_text);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t bytes = sizeof(address);
    u64 port = 0;

    if (!str_eq(host, STR("127.0.0.1")) || str_to_u64(port_text, &port) != OK || port > 65535)
        radeon_fail("serve: --tcp wants 127.0.0.1:PORT, not '%s'", where);
    address.sin_port = htons((u16)port);
    int fd = listener_open(where, (struct sockaddr *)&address, bytes);
    getsockname(fd, (struct sockaddr *)&address, &bytes);
    printf("{\"tcp\":\"127.0.0.1:%u\"}\n", ntohs(address.sin_port));
    return fd;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        radeon_fail("serve: %s is too long a path", path);
    memcpy(address.sun_path, path, strlen(path));
    unlink(path);
    int fd = listener_open(path, (struct sockaddr *)&address, sizeof(address));
    printf("{\"socket\":\"%s\"}\n", path);
    return fd;
}

static void serve_open(struct serve *serve, const struct serve_options *options)
{
    u32 cards = options->tcp ? options->cards : options->socket_count;

    for (u32 i = 0; i < SERVE_CLIENTS_MAX; i++)
        serve->clients[i].fd = -1;
    for (u32 i = 0; i < cards; i++)
        card_open(serve, options, i);
    serve->listener_count = options->tcp ? 1 : cards;
    for (u32 i = 0; i < serve->listener_count; i++)
        serve->listeners[i] = options->tcp
                                  ? (struct listener){listen_tcp(options->tcp), &tcp_protocol, NULL}
                                  : (struct listener){listen_unix(options->sockets[i]),
                                                      &vfu_protocol, &serve->cards[i]};
    fflush(stdout);
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
        sim_profile_free(serve->cards[i].profile);
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
    *client = (struct serve_client){.fd = -1};
}

static void client_accept(struct serve *serve, const struct listener *listener)
{
    struct timeval wait = {WAIT_S, 0};
    int on = 1, fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);

    for (u32 i = 0; i < SERVE_CLIENTS_MAX && fd >= 0; i++) {
        if (serve->clients[i].fd >= 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
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

/* All of `bytes`, with the descriptors that come; false: the peer has gone or is too slow. */
static bool client_receive(struct serve_client *client, u8 *into, usize bytes)
{
    char control[CMSG_SPACE(SERVE_FDS_MAX * sizeof(int))];
    struct iovec part = {into, bytes};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};

    while (part.iov_len) {
        ssize_t got = recvmsg(client->fd, &message, MSG_WAITALL | MSG_CMSG_CLOEXEC);
        if (got <= 0)
            return false;
        fds_keep(client, &message);
        part = (struct iovec){(u8 *)part.iov_base + got, part.iov_len - (usize)got};
    }
    return true;
}

/* One message. Its rest has WAIT_S to follow its first byte. */
static bool client_work(struct serve_client *client)
{
    const struct serve_protocol *protocol = client->protocol;
    u8 header[HEADER_MAX];

    if (!client_receive(client, header, protocol->header_bytes))
        return false;
    usize bytes = protocol->message_bytes(header);
    u8 *message = bytes == MESSAGE_BAD ? NULL : malloc(bytes);
    if (!message)
        return false;
    memcpy(message, header, protocol->header_bytes);
    bool good =
        client_receive(client, message + protocol->header_bytes, bytes - protocol->header_bytes) &&
        protocol->handle(client, message, bytes);
    free(message);
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
        ssize_t sent = sendmsg(client->fd, &message, MSG_NOSIGNAL);
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
            if (fds[CLIENTS + i].revents && !client_work(client))
                client_close(client);
        }
    }
}
