/*
 * serve.h: `radeon serve`: cards of one process given to clients on sockets. serve.c owns the
 * sockets, the loop and the machine's memory; serve_tcp.c and serve_vfu.c are the two protocols:
 * they say how long a message is and what it does. They see cards only through sim.h.
 */
#ifndef NOHOST_SIM_SERVE_H
#define NOHOST_SIM_SERVE_H

#include "sim/sim.h"

#define SERVE_CARDS_MAX   8u
#define SERVE_CLIENTS_MAX 16u
#define SERVE_FDS_MAX     16u
#define RANGES_MAX        16384u
#define SERVE_PAGE        4096ull
#define MESSAGE_BAD       ((usize)-1)
#define RESET_WAIT_NS     (200 * NS_PER_MS) /* what a reset may take; operating systems wait so */
/* Where the machine has put BAR 0 of its cards, for those whose clients leave that to us. */
#define SERVE_BAR0_BASE 0x80000000000ull
#define SERVE_BAR0_STEP 0x1000000000ull

/* ---- serve_memory.c: what answers on the bus besides this card ---- */

struct memory_range {
    u64 bus, bytes;
    u8 *host;
    u32 owner;
    bool falling; /* the owner's first page is the last one of the range */
};

/* Memory of clients', by bus address. */
struct memory {
    struct memory_range ranges[RANGES_MAX];
    u32 count;
    u64 next_bus; /* for ranges that we place */
};

/* The memory is the table's from then on; false when it overlaps or there is no room. */
bool memory_add(struct memory *memory, struct memory_range range);
/* Gives back what of `owner` begins in bus..bus+bytes. */
void memory_remove(struct memory *memory, u32 owner, u64 bus, u64 bytes);
/* NULL: nothing there. */
const struct memory_range *memory_range_at(const struct memory *memory, u64 bus);
u8 *memory_find(const struct memory *memory, u64 bus, u64 *bytes);

struct serve_card {
    struct sim *sim;
    struct card_profile *profile; /* of a report, NULL: none was given */
    struct serve *serve;
    struct memory *memory;
    u32 number;
    int irq_fd; /* an eventfd of the client's, -1: none */
};

struct sim_host memory_host(struct serve_card *card);

/* A client's access to a card: BAR 0, 2, 5, or config space. */
struct region {
    u32 number;
    u64 offset, bytes;
};
#define REGION_CONFIG      7u
#define REGION_CONFIG_SIZE 4096u
u64 region_size(struct sim *sim, u32 number);
bool region_fits(struct sim *sim, const struct region *region);
/* In pieces as wide as offset and length allow, as the bus would; VRAM at once. */
void region_access(struct sim *sim, const struct region *region, u8 *data, bool write);

/* ---- serve.c ---- */

struct serve_client {
    struct serve *serve;
    const struct serve_protocol *protocol;
    struct serve_card *card; /* NULL: each message names one */
    u32 owner;               /* of its memory */
    int fd;                  /* -1: free */
    int fds[SERVE_FDS_MAX];  /* descriptors that came, not yet taken */
    u32 fd_count;
};

struct serve_protocol {
    usize header_bytes;
    /* Of the message that begins in `header`; MESSAGE_BAD hangs up. */
    usize (*message_bytes)(const u8 *header);
    bool (*handle)(struct serve_client *client, const u8 *message,
                   usize bytes); /* false: hang up */
    void (*gone)(struct serve_client *client);
};

struct serve {
    struct serve_card cards[SERVE_CARDS_MAX];
    struct memory memories[SERVE_CARDS_MAX];
    struct serve_client clients[SERVE_CLIENTS_MAX];
    u32 card_count, listener_count, owners;
    struct listener {
        int fd;
        const struct serve_protocol *protocol;
        struct serve_card *card;
    } listeners[SERVE_CARDS_MAX];
    bool quiet; /* what clients do wrong is not said */
};

/* False: the client is gone or takes nothing. fd -1: none goes with it. */
bool client_send(struct serve_client *client, const void *data, usize bytes, int fd);
/* The oldest descriptor that came; -1: none. The caller closes it. */
int client_take_fd(struct serve_client *client);
__attribute__((format(printf, 2, 3))) void client_log(const struct serve_client *client,
                                                      const char *format, ...);

int serve_main(int argc, char **argv);

/* ---- serve_tcp.c: tinygrad's REMOTE protocol, serve_vfu.c: vfio-user ---- */

extern const struct serve_protocol tcp_protocol;
extern const struct serve_protocol vfu_protocol;
/* What firmware does: addresses into the BARs, memory accesses on. */
void tcp_bars_assign(struct serve_card *card);

#endif
