/*
 * fuzz_http.c: any bytes as a request, in one piece and in pieces whose sizes the input chooses:
 * both ways the same verdict, the same body, and no byte read that is not there.
 */
#include <stdlib.h>

#include "net/priv.h"

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes);

struct outcome {
    enum http_step step;
    u32 status;
    usize used;
    u64 body_hash, body_len;
};

static void note(struct outcome *outcome, struct str data)
{
    for (usize i = 0; i < data.len; i++)
        outcome->body_hash = (outcome->body_hash ^ (u8)data.ptr[i]) * 0x100000001b3ull;
    outcome->body_len += data.len;
}

static struct outcome parse(const char *bytes, usize len, usize piece)
{
    struct outcome out = {};
    struct http_request head = {};
    bool in_body = false;
    usize at = 0;

    for (usize have = min_u64(piece, len);; have = min_u64(have + piece, len)) {
        if (!in_body) {
            out.step = http_head_read(&head, (struct str){bytes, have});
            out.status = head.status;
            at = head.line_start;
            in_body = out.step == HTTP_DONE;
        }
        for (usize used = 1; in_body && used && (out.step != HTTP_BAD);) {
            struct str data;
            out.step = http_body_read(&head, (struct str){bytes + at, have - at}, &used, &data);
            out.status = head.status;
            at += used;
            note(&out, data);
            if (out.step == HTTP_DONE)
                break;
        }
        if (out.step != HTTP_MORE || have == len)
            break;
    }
    out.used = out.step == HTTP_DONE ? at : 0;
    CHECK(out.body_len <= HTTP_BODY_BYTES_MAX);
    CHECK((out.step == HTTP_BAD) == (out.status != 0));
    return out;
}

int LLVMFuzzerTestOneInput(const u8 *data, usize bytes)
{
    if (bytes < 2)
        return 0;
    usize piece = 1 + data[0] % 64, len = bytes - 1;
    char *copy = malloc(len);

    memcpy(copy, data + 1, len);
    struct outcome whole = parse(copy, len, len), cut = parse(copy, len, piece);
    CHECK(whole.step == cut.step && whole.status == cut.status && whole.used == cut.used);
    CHECK(whole.step == HTTP_BAD || whole.body_hash == cut.body_hash);
    free(copy);
    return 0;
}
