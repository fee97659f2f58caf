/*
 * ml_gguf_build.h: writes small GGUF files in memory, right or wrong, and serves them as a store
 * that can fail.
 */
#ifndef NOHOST_TEST_GGUF_BUILD_H
#define NOHOST_TEST_GGUF_BUILD_H

#include "ml/gguf.h"

#define BUILD_BYTES_MAX (4 * MIB)

struct build {
    u8 *bytes;
    usize len;
    u32 keys, tensors;
    u64 data_bytes; /* of the tensors so far */
};

/* Header with counts that build_store fills in. */
void build_start(struct build *b);
void build_u32(struct build *b, u32 value);
void build_u64(struct build *b, u64 value);
void build_text(struct build *b, struct str text);
void build_key(struct build *b, const char *name, enum gguf_type type); /* the value comes next */
void build_key_u32(struct build *b, const char *name, u32 value);
void build_key_str(struct build *b, const char *name, const char *value);
/* An array whose elements come next. */
void build_key_array(struct build *b, const char *name, enum gguf_type type, u64 count);
/* One or two dims (dim1 of 0: one); its data lies behind that of the tensors before. */
void build_tensor(struct build *b, const char *name, u32 type, u64 dim0, u64 dim1);
/* Counts, padding to 32, data bytes that count up. The store reads from b's memory. */
void build_finish(struct build *b);
void build_free(struct build *b);

/* A store over memory. Reads fail from the n-th on when fail_at is not 0. */
struct fake_store {
    struct store store;
    const u8 *bytes;
    u32 reads, fail_at;
    u64 read_to;     /* first byte behind all that was read */
    bool read_twice; /* some header byte was asked for again */
};
void fake_store_start(struct fake_store *fake, const void *bytes, usize len);

#endif
