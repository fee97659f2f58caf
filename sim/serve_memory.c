/*
 * serve_memory.c: the bus between a served card and its clients: their memory and BAR 0 of the
 * other cards, as the card sees them; the card's regions, as they see it. Knows no protocol.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim/serve.h"

/* Index of the first range that begins above `bus`. */
static u32 range_above(const struct memory *memory, u64 bus)
{
    u32 low = 0, high = memory->count;

    while (low < high) {
        u32 middle = (low + high) / 2;
        if (memory->ranges[middle].bus <= bus)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool memory_add(struct memory *memory, struct memory_range range)
{
    u32 at = range_above(memory, range.bus);

    if (range.bytes == 0 || range.bus + range.bytes < range.bus ||
        memory_range_at(memory, range.bus) ||
        (at < memory->count && memory->ranges[at].bus - range.bus < range.bytes) ||
        memory->count == RANGES_MAX)
        return false;
    memmove(&memory->ranges[at + 1], &memory->ranges[at], (memory->count - at) * sizeof(range));
    memory->ranges[at] = range;
    memory->count++;
    return true;
}

void memory_remove(struct memory *memory, u32 owner, u64 bus, u64 bytes)
{
    u32 kept = 0;

    for (u32 i = 0; i < memory->count; i++) {
        const struct memory_range *range = &memory->ranges[i];
        if (range->owner != owner || range->bus < bus || range->bus - bus >= bytes) {
            memory->ranges[kept++] = *range;
            continue;
        }
        /* The card may still hold a pointer: nothing of ours may ever lie there. */
        void *blank = mmap(range->host, range->bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        CHECK(blank == range->host);
    }
    memory->count = kept;
}

const struct memory_range *memory_range_at(const struct memory *memory, u64 bus)
{
    u32 above = range_above(memory, bus);
    const struct memory_range *range = above ? &memory->ranges[above - 1] : NULL;

    return range && bus - range->bus < range->bytes ? range : NULL;
}

u8 *memory_find(const struct memory *memory, u64 bus, u64 *bytes)
{
    const struct memory_range *range = memory_range_at(memory, bus);

    if (!range)
        return NULL;
    *bytes = range->bytes - (bus - range->bus);
    return range->host + (bus - range->bus);
}

/* ---- what a card asks ---- */

/* Another card whose BAR 0 answers at `bus`; *offset in it, *bytes to its end. */
static struct sim *find_peer(const struct serve_card *card, u64 bus, u64 *offset, u64 *bytes)
{
    enum { COMMAND = 4, MEMORY_ENABLE = 2, BAR0 = 0x10, FLAGS = 0xf };
    const struct serve *serve = card->serve;

    for (u32 i = 0; i < serve->card_count; i++) {
        struct sim *peer = serve->cards[i].sim;
        if (i == card->number || !(sim_config_read(peer, 0, COMMAND, 2) & MEMORY_ENABLE))
            continue;
        u64 base = (u64)sim_config_read(peer, 0, BAR0 + 4, 4) << 32 |
                   (sim_config_read(peer, 0, BAR0, 4) & ~(u32)FLAGS);
        if (bus >= base && bus - base < sim_bar_bytes(peer, 0)) {
            *offset = bus - base;
            *bytes = sim_bar_bytes(peer, 0) - *offset;
            return peer;
        }
    }
    return NULL;
}

static u8 *host_map(void *ctx, u64 bus, u64 *bytes)
{
    return memory_find(((struct serve_card *)ctx)->memory, bus, bytes);
}

static bool host_read(void *ctx, u64 bus, void *out, u64 bytes)
{
    u8 *to = out;
    u64 there, offset;

    while (bytes) {
        const u8 *from = host_map(ctx, bus, &there);
        struct sim *peer = from ? NULL : find_peer(ctx, bus, &offset, &there);
        if (!from && !peer)
            return false;
        u64 piece = min_u64(there, bytes);
        if (from)
            memcpy(to, from, piece);
        else
            sim_vram_read(peer, offset, to, piece);
        bus += piece;
        to += piece;
        bytes -= piece;
    }
    return true;
}

static bool host_write(void *ctx, u64 bus, const void *in, u64 bytes)
{
    const u8 *from = in;
    u64 there, offset;

    while (bytes) {
        u8 *to = host_map(ctx, bus, &there);
        struct sim *peer = to ? NULL : find_peer(ctx, bus, &offset, &there);
        if (!to && !peer)
            return false;
        u64 piece = min_u64(there, bytes);
        if (to)
            memcpy(to, from, piece);
        else
            sim_vram_write(peer, offset, from, piece);
        bus += piece;
        from += piece;
        bytes -= piece;
    }
    return true;
}

static void host_irq(void *ctx, u32 vector)
{
    const struct serve_card *card = ctx;
    u64 one = 1;

    (void)vector; /* one vector: MSI without multiple messages */
    if (card->irq_fd >= 0 && write(card->irq_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        fprintf(stderr, "card %u: interrupt: %s\n", card->number, strerror(errno));
}

static void host_log(void *ctx, const char *line)
{
    fprintf(stderr, "card %u: %s\n", ((const struct serve_card *)ctx)->number, line);
}

struct sim_host memory_host(struct serve_card *card)
{
    return (struct sim_host){card, host_read, host_write, host_map, host_irq, host_log};
}

/* ---- what a client asks ---- */

u64 region_size(struct sim *sim, u32 number)
{
    if (number == REGION_CONFIG)
        return REGION_CONFIG_SIZE;
    return number <= 5 ? sim_bar_bytes(sim, number) : 0;
}

bool region_fits(struct sim *sim, const struct region *region)
{
    u64 size = region_size(sim, region->number);

    return region->offset <= size && region->bytes <= size - region->offset;
}

static u64 piece_access(struct sim *sim, struct region at, u64 value, bool write)
{
    u32 width = (u32)at.bytes;

    if (at.number == REGION_CONFIG && write)
        sim_config_write(sim, 0, (u32)at.offset, width, (u32)value);
    else if (at.number == REGION_CONFIG)
        return sim_config_read(sim, 0, (u32)at.offset, width);
    else if (write)
        sim_bar_write(sim, at.number, at.offset, width, value);
    else
        return sim_bar_read(sim, at.number, at.offset, width);
    return value;
}

void region_access(struct sim *sim, const struct region *region, u8 *data, bool write)
{
    struct region at = *region;

    if (region->number == 0 && write)
        sim_vram_write(sim, region->offset, data, region->bytes);
    else if (region->number == 0)
        sim_vram_read(sim, region->offset, data, region->bytes);
    else
        for (u64 done = 0; done < region->bytes; done += at.bytes) {
            u64 value = 0;
            at.offset = region->offset + done;
            at.bytes = region->number == 2 ? 8 : 4;
            while (at.offset % at.bytes || region->bytes - done < at.bytes)
                at.bytes /= 2;
            if (write)
                memcpy(&value, data + done, at.bytes);
            value = piece_access(sim, at, value, write);
            if (!write)
                memcpy(data + done, &value, at.bytes);
        }
}
