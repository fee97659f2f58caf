/*
 * sim_queues.h: a simulated card with its compute and its SDMA queue running, rings and data in
 * host memory mapped at VA_START, and words to put into them.
 */
#ifndef NOHOST_TESTS_SIM_QUEUES_H
#define NOHOST_TESTS_SIM_QUEUES_H

#include "tests/sim_driver.h"

/* Offsets in the machine's memory; va() is where the card sees them. */
#define RAM_PAGES 512u
#define POINTERS  0x20000u /* read pointers: compute, SDMA 0x80 further */
#define IB_AT     0x22000u
#define DATA_AT   0x30000u
#define IH_AT     (45 * MIB) /* in VRAM: the interrupt ring */
#define RING_LOG2 12u        /* words */
#define DOORBELL  0x18u
#define SDMA_BELL 0x800u

struct card {
    struct machine m;
    u32 wptr, sdma_wptr; /* words */
};

void card_start(struct card *card, const struct sim_options *options);
/* Parts of it, for recovery and for mistakes: GRBM_GFX_CNTL is left on queue 0. */
void mec(struct machine *m);
void hqd(struct machine *m); /* a descriptor's registers, ACTIVE apart */
void queue(struct card *card);
/* Queue and CP reset, MEC and queue started anew. */
void recover(struct card *card);

u64 va(u32 offset);
u32 lo(u64 value);
u32 hi(u64 value);
u32 ram(const struct card *card, u32 offset);
void ram_set(struct card *card, u32 offset, u32 value);

void settle(struct card *card); /* until the card has nothing to do */
void emit(struct card *card, const u32 *words, u32 count);
void ring_bell(struct card *card);
void sdma_emit(struct card *card, const u32 *words, u32 count);
void sdma_bell(struct card *card);
void emit_write(struct card *card, u32 offset, u32 value);
void emit_release(struct card *card, u32 offset, u32 value, u32 how);

#define EMIT(card, ...)                                                                            \
    do {                                                                                           \
        const u32 words_[] = {__VA_ARGS__};                                                        \
        emit(card, words_, ARRAY_LEN(words_));                                                     \
    } while (0)
#define SDMA_EMIT(card, ...)                                                                       \
    do {                                                                                           \
        const u32 words_[] = {__VA_ARGS__};                                                        \
        sdma_emit(card, words_, ARRAY_LEN(words_));                                                \
    } while (0)

struct refusal { /* words that must be refused, and by which name */
    const char *name;
    u32 count, words[10];
};

#endif
