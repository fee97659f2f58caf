/*
 * card.h: the simulated cards of the instrument: `--device sim` of the subcommands. One or --cards,
 * with the genuine firmware of build/firmware and our driver; strict unless --fast.
 */
#ifndef NOHOST_CARD_H
#define NOHOST_CARD_H

#include "amdgpu/amdgpu.h"
#include "ml/ml.h"

#define CARD_OPTIONS "--device=", "--fast", "--trace=", "--vram=", "--cards="
#define CARD_USAGE                                                                                 \
    "  --device sim computes on the simulated card; it judges each access, --fast does not.\n" \
    "  --vram MIB gives it so much memory instead of its own; --cards N: so many of them.\n"

/* The first card, READY by the options; NULL for --device cpu or none. Exits for another device,
 * without firmware, and when a card does not start. */
struct gpu *card_open(int argc, char **argv);
/* The same, as the cards of a configuration. */
void card_use(int argc, char **argv, struct ml_config *config);
/* One turn of each card and its driver; exits when a card's model has found something. Returns
 * whether one has more to do. */
bool card_turn(void);
/* What the first card has done, as a member of a JSON object: ,"card":{...}; nothing without. */
void card_print(void);

#endif
