/*
 * rdna_wave.h: small RDNA3 programs over physical registers, made at random, and the strict engine
 * that runs one as a wave.
 */
#ifndef NOHOST_TESTS_RDNA_WAVE_H
#define NOHOST_TESTS_RDNA_WAVE_H

#include "ml/compile/rdna.h"
#include "tests/test.h"

#define WAVE_OUT_BYTES 4096u

/* v0: lane, v1: 4 lanes, v2: 16 lanes, s[0:1]: data that is only read, s[2:3]: written. Values in
 * v16..v47 and s16..s31, zeros for matrices in v64..v103. */
enum { V_LANE4 = RDNA_VGPR + 1, V_LANE16, V_FREE = RDNA_VGPR + 16, V_ZERO = RDNA_VGPR + 64 };
enum { S_READ = 0, S_WRITTEN = 2, S_COUNT = 8, S_FREE = 16 };

struct rcode wave_list(struct arena *arena); /* empty */
struct rinstr *wave_add(struct rcode *code, u16 row, u16 dst, u16 src0, u16 src1);
void wave_add_start(struct rcode *code); /* writes all of these registers and the LDS */
void wave_add_end(struct rcode *code);   /* stores v16..v47 */

void wave_add_pairable(struct rcode *code); /* one that may be half of a pair */

enum shape { STRAIGHT, LOOPS, FORKS };
void wave_random(struct rcode *code, enum shape shape);

/* What the strict engine finds when the list runs as a wave (two, when it has a barrier); NULL:
 * nothing. out: what it wrote; NULL: never mind. */
const char *wave_run(const struct rcode *code, struct arena arena, u64 seed,
                     u8 out[WAVE_OUT_BYTES]);

#endif
