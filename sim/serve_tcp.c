/*
 * serve_tcp.c: the server's half of the protocol with which tinygrad reaches a card on another
 * machine (its runtime/support/system.py, class RemotePCIDevice). The server is the machine: it
 * assigns BARs, resizes BAR 0, and owns the memory that the card reaches by DMA. Little endian; a
 * request is 33 bytes and sometimes data, an answer 17 and sometimes data; writes have no answer.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sim/serve.h"

#define REQUEST_BYTES 33u
#define DATA_MAX      (256 * MIB)
#define SYSMEM_MAX    (4 * GIB)
#define SYSMEM_BASE   0x100000000ull /* bus address of the first allocation */
#define BAR2_BASE     0xe0000000u
#define BAR5_BASE     0xe8000000u
#define BAR_STEP      0x01000000u

enum command {
    PROBE,
    MAP_BAR,
    MAP_SYSMEM_FD,
    CFG_READ,
    CFG_WRITE,
    RESET,
    MMIO_READ,
    MMIO_WRITE,
    MAP_SYSMEM,
    SYSMEM_READ,
    SYSMEM_WRITE,
    RESIZE_BAR,
    PING,
    COMMAND_COUNT
};

struct request {
    u8 command;
    u32 card, bar;
    u64 arg[3];
    const u8 *data;
};

static struct request request_read(const u8 *message)
{
    struct request request = {.command = message[0], .data = message + REQUEST_BYTES};

    memcpy(&request.card, message + 1, 4);
    memcpy(&request.bar, message + 5, 4);
    memcpy(request.arg, message + 9, sizeof(request.arg));
    return request;
}

static usize tcp_message_bytes(const u8 *header)
{
    struct request request = request_read(header);
    bool data = request.command == PROBE || request.command == MMIO_WRITE ||
                request.command == SYSMEM_WRITE;

    if (request.command >= COMMAND_COUNT || (data && request.arg[1] > DATA_MAX))
        return MESSAGE_BAD;
    return REQUEST_BYTES + (data ? request.arg[1] : 0);
}

static bool answer(struct serve_client *client, u64 first, u64 second)
{
    u8 reply[17] = {0};

    memcpy(reply + 1, &first, 8);
    memcpy(reply + 9, &second, 8);
    return client_send(client, reply, sizeof(reply), -1);
}

static bool answer_data(struct serve_client *client, const void *data, u64 bytes)
{
    return answer(client, bytes, 0) && (!bytes || client_send(client, data, bytes, -1));
}

static bool refuse(struct serve_client *client, const char *why)
{
    u8 reply[17] = {1};
    u64 bytes = strlen(why);

    memcpy(reply + 1, &bytes, 8);
    client_log(client, "%s", why);
    return client_send(client, reply, sizeof(reply), -1) && client_send(client, why, bytes, -1);
}

/* ---- the machine's firmware and operating system ---- */

enum {
    CONFIG_COMMAND = 4,
    CONFIG_BAR0 = 0x10,
    COMMAND_MEMORY = 2,
    CONFIG_EXTENDED = 0x100,
    CAP_REBAR = 0x15
};

void tcp_bars_assign(struct serve_card *card)
{
    u64 bar0 = SERVE_BAR0_BASE + card->number * SERVE_BAR0_STEP;
    u32 bars[6] = {(u32)bar0,
                   (u32)(bar0 >> 32),
                   BAR2_BASE + card->number * BAR_STEP,
                   0,
                   0,
                   BAR5_BASE + card->number * BAR_STEP};

    for (u32 i = 0; i < ARRAY_LEN(bars); i++)
        sim_config_write(card->sim, 0, CONFIG_BAR0 + 4 * i, 4, bars[i]);
    u32 command = sim_config_read(card->sim, 0, CONFIG_COMMAND, 2);
    sim_config_write(card->sim, 0, CONFIG_COMMAND, 2, command | COMMAND_MEMORY);
}

/* 0: the card has no Resizable BAR capability. */
static u32 rebar_find(struct sim *sim)
{
    u32 offset = CONFIG_EXTENDED;

    for (u32 hops = 0; hops < 64 && offset >= CONFIG_EXTENDED; hops++) {
        u32 header = sim_config_read(sim, 0, offset, 4);
        if ((header & 0xffff) == CAP_REBAR)
            return offset;
        offset = (header >> 20) & (REGION_CONFIG_SIZE - 4);
    }
    return 0;
}

/* The largest size that the capability offers, with memory decoding off meanwhile. */
static bool bar_resize(struct sim *sim, u32 bar)
{
    enum { SIZES = 4, CONTROL = 8, BAR_IDX = 7, COUNT_SHIFT = 5, SIZE_SHIFT = 8 };
    u32 cap = rebar_find(sim);
    u32 count = cap ? (sim_config_read(sim, 0, cap + CONTROL, 4) >> COUNT_SHIFT) & 7 : 0;

    for (u32 i = 0; i < count; i++) {
        u32 entry = cap + 8 * i;
        u32 control = sim_config_read(sim, 0, entry + CONTROL, 4);
        u32 sizes = sim_config_read(sim, 0, entry + SIZES, 4) >> 4;
        if ((control & BAR_IDX) != bar || !sizes)
            continue;
        u32 command = sim_config_read(sim, 0, CONFIG_COMMAND, 2);
        sim_config_write(sim, 0, CONFIG_COMMAND, 2, command & ~(u32)COMMAND_MEMORY);
        control = (control & ~(0x3fu << SIZE_SHIFT)) | (31 - (u32)__builtin_clz(sizes))
                                                           << SIZE_SHIFT;
        sim_config_write(sim, 0, entry + CONTROL, 4, control);
        sim_config_write(sim, 0, CONFIG_COMMAND, 2, command);
        return true;
    }
    return false;
}

static u64 bar_address(struct sim *sim, u32 bar)
{
    enum { IS_64 = 4, FLAGS = 0xf };
    u32 low = sim_config_read(sim, 0, CONFIG_BAR0 + 4 * bar, 4);
    u64 high = low & IS_64 ? sim_config_read(sim, 0, CONFIG_BAR0 + 4 * bar + 4, 4) : 0;

    return high << 32 | (low & ~(u32)FLAGS);
}

/* A reset loses what was assigned: as an operating system does, put it back. */
static void card_reset(struct serve_card *card)
{
    u32 command = sim_config_read(card->sim, 0, CONFIG_COMMAND, 2);

    sim_reset(card->sim);
    sim_wait(card->sim, RESET_WAIT_NS);
    tcp_bars_assign(card);
    sim_config_write(card->sim, 0, CONFIG_COMMAND, 2, command);
}

/* ---- commands ---- */

/* Whether one of the (mask, device) pairs matches. */
static bool probe_match(const struct request *request, u32 id)
{
    for (u64 at = 0; at + 8 <= request->arg[1]; at += 8) {
        u32 pair[2];
        memcpy(pair, request->data + at, sizeof(pair));
        if (((id >> 16) & pair[0]) == pair[1])
            return true;
    }
    return false;
}

static bool do_probe(struct serve_client *client, const struct request *request)
{
    char list[SERVE_CARDS_MAX * 24];
    struct text out = TEXT_ON(list);

    for (u32 i = 0; i < client->serve->card_count; i++) {
        u32 id = sim_config_read(client->serve->cards[i].sim, 0, 0, 4);
        if ((id & 0xffff) == request->arg[2] && probe_match(request, id))
            text_fmt(&out, "%s0000:%02x:00.0:%u", out.len ? "\n" : "", 3 + 3 * i, i);
    }
    return answer_data(client, out.ptr, out.len);
}

static bool do_mmio(struct serve_client *client, struct sim *sim, const struct request *request)
{
    struct region region = {request->bar, request->arg[0], request->arg[1]};
    bool read = request->command == MMIO_READ;
    u8 *data = (u8 *)(uintptr_t)request->data; /* region_access() only reads it */

    if (region.bytes > DATA_MAX || region.number > 5 || !region_fits(sim, &region)) {
        client_log(client, "BAR %u: %llx, %llx bytes, is outside", request->bar,
                   (unsigned long long)region.offset, (unsigned long long)region.bytes);
        return read && refuse(client, "outside the BAR");
    }
    if (read)
        data = malloc(region.bytes + 1);
    if (!data)
        return false;
    region_access(sim, &region, data, !read);
    bool good = !read || answer_data(client, data, region.bytes);
    if (read)
        free(data);
    return good;
}

static bool do_config(struct serve_client *client, struct sim *sim, const struct request *request)
{
    u64 offset = request->arg[0], width = request->arg[1];

    if ((width != 1 && width != 2 && width != 4) || offset % width || offset >= REGION_CONFIG_SIZE)
        return refuse(client, "no such place in config space");
    if (request->command == CFG_READ)
        return answer(client, sim_config_read(sim, 0, (u32)offset, (u32)width), 0);
    sim_config_write(sim, 0, (u32)offset, (u32)width, (u32)request->arg[2]);
    return answer(client, 0, 0);
}

/* ---- memory for DMA. A handle is the number of its first page on the bus; the pages of what need
 * not be contiguous lie in falling order, so that a driver which takes one address for all of them
 * is found out. ---- */

static u64 page_offset(const struct memory_range *range, u64 page)
{
    return (range->falling ? range->bytes / SERVE_PAGE - 1 - page : page) * SERVE_PAGE;
}

/* The memory of `bytes` that the card is to see; *list gets the address of each page. */
static bool sysmem_add(struct serve_client *client, u64 bytes, bool contiguous, u64 *list)
{
    struct memory *memory = &client->serve->memories[0];
    u64 bus = max_u64(memory->next_bus, SYSMEM_BASE);
    u8 *host = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct memory_range range = {bus, bytes, host, client->owner, !contiguous};

    if (host == MAP_FAILED || bus + bytes > SERVE_BAR0_BASE || !memory_add(memory, range))
        return false;
    memory->next_bus = bus + bytes + SERVE_PAGE;
    for (u64 page = 0; page < bytes / SERVE_PAGE; page++)
        list[page] = bus + page_offset(&range, page);
    return true;
}

static bool do_map_sysmem(struct serve_client *client, const struct request *request)
{
    bool contiguous = request->arg[1] != 0;

    if (!request->arg[0] || request->arg[0] > SYSMEM_MAX)
        return refuse(client, "that much memory is not to be had");
    u64 pages = div_up(request->arg[0], SERVE_PAGE);
    u64 *list = malloc(pages * sizeof(*list));
    if (!list || !sysmem_add(client, pages * SERVE_PAGE, contiguous, list)) {
        free(list);
        return refuse(client, "out of memory");
    }
    u64 first = contiguous ? list[0] : list[pages - 1];
    bool good = answer(client, pages * sizeof(*list), first / SERVE_PAGE) &&
                client_send(client, list, pages * sizeof(*list), -1);
    free(list);
    return good;
}

static bool do_sysmem(struct serve_client *client, const struct request *request)
{
    bool read = request->command == SYSMEM_READ;
    u64 offset = request->arg[0], bytes = request->arg[1];
    const struct memory_range *range =
        memory_range_at(&client->serve->memories[0], request->bar * SERVE_PAGE);

    if (!range || range->bus != request->bar * SERVE_PAGE || bytes > DATA_MAX ||
        offset > range->bytes || bytes > range->bytes - offset)
        return read && refuse(client, "outside the memory");
    u8 *out = read ? malloc(bytes + 1) : NULL;
    if (read && !out)
        return false;
    for (u64 at = 0, piece; at < bytes; at += piece) {
        u64 in_page = (offset + at) % SERVE_PAGE;
        u8 *host = range->host + page_offset(range, (offset + at) / SERVE_PAGE) + in_page;
        piece = min_u64(SERVE_PAGE - in_page, bytes - at);
        if (read)
            memcpy(out + at, host, piece);
        else
            memcpy(host, request->data + at, piece);
    }
    bool good = !read || answer_data(client, out, bytes);
    free(out);
    return good;
}

static bool tcp_handle(struct serve_client *client, const u8 *message, usize bytes)
{
    struct request request = request_read(message);
    struct serve_card *card;

    (void)bytes;
    if (request.command == PROBE)
        return do_probe(client, &request);
    if (request.card >= client->serve->card_count)
        return refuse(client, "no such card");
    card = &client->serve->cards[request.card];
    switch (request.command) {
    case MAP_BAR:
        if (request.bar > 5 || !sim_bar_bytes(card->sim, request.bar))
            return refuse(client, "no such BAR");
        return answer(client, bar_address(card->sim, request.bar),
                      sim_bar_bytes(card->sim, request.bar));
    case CFG_READ:
    case CFG_WRITE:
        return do_config(client, card->sim, &request);
    case RESET:
        card_reset(card);
        return answer(client, 0, 0);
    case MMIO_READ:
    case MMIO_WRITE:
        return do_mmio(client, card->sim, &request);
    case MAP_SYSMEM:
        return do_map_sysmem(client, &request);
    case SYSMEM_READ:
    case SYSMEM_WRITE:
        return do_sysmem(client, &request);
    case RESIZE_BAR:
        if (!bar_resize(card->sim, request.bar))
            return refuse(client, "that BAR has one size");
        return answer(client, 0, 0);
    case PING:
        return answer(client, 0, 0);
    default:
        return refuse(client, "no such command");
    }
}

static void tcp_gone(struct serve_client *client)
{
    memory_remove(&client->serve->memories[0], client->owner, 0, UINT64_MAX);
}

const struct serve_protocol tcp_protocol = {REQUEST_BYTES, tcp_message_bytes, tcp_handle, tcp_gone};
