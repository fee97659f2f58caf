/*
 * ml_pack.h: many small files in one, as the witnesses of tests/witness write them for a test:
 * per file a byte that says what to expect, the lengths of name and content (u32), name, content.
 */
#ifndef NOHOST_TEST_PACK_H
#define NOHOST_TEST_PACK_H

#include "kernel/base.h"

enum { PACK_REFUSE, PACK_ACCEPT, PACK_EITHER }; /* what the byte says */

struct pack {
    u8 *bytes;
    usize len, at;
};

struct pack_file {
    u8 expect;
    char name[128];
    u8 *bytes; /* of its own, so that a sanitizer sees its ends; the next call frees it */
    usize len;
};

/* The file given with --data NAME=PATH; skips the test when there is none. */
struct pack pack_open(const char *data_name);
/* file->bytes must be NULL or of the last call. */
bool pack_next(struct pack *pack, struct pack_file *file);
void pack_close(struct pack *pack);

#endif
