/*
 * stream.c: bytes of tokens -> text that may be shown. Owns what is held back: an unfinished
 * character, and text that may still turn out to be the start of a stop sequence. Must not know of
 * tokens or requests. What is no text becomes U+FFFD once per maximal part, as Unicode recommends.
 */
#include "ml/priv.h"

err stream_start(struct stream *stream, const struct str *stop, u32 stop_count)
{
    stream->utf8 = (struct utf8_stream){};
    stream->held_len = stream->stop_count = 0;
    if (stop_count > ML_STOPS_MAX)
        return E_RANGE;
    for (u32 i = 0; i < stop_count; i++) {
        if (stop[i].len > ML_STOP_BYTES_MAX || !utf8_valid(stop[i]))
            return E_RANGE; /* half a character would cut the text inside of one */
        if (!stop[i].len)
            continue;
        memcpy(stream->stop[stream->stop_count], stop[i].ptr, stop[i].len);
        stream->stop_len[stream->stop_count++] = (u32)stop[i].len;
    }
    return OK;
}

static struct str stop_of(const struct stream *stream, u32 i)
{
    return (struct str){stream->stop[i], stream->stop_len[i]};
}

/* Where the stop sequence begins that is complete first, of two the longer one: how the text was
 * cut into tokens makes no difference. held_len when there is none. */
static u32 find_stop(const struct stream *stream)
{
    u32 longest = 0, end = 0;

    while (!longest && end++ < stream->held_len)
        for (u32 i = 0; i < stream->stop_count; i++)
            if (str_ends((struct str){stream->held, end}, stop_of(stream, i)))
                longest = max_u32(longest, stream->stop_len[i]);
    return longest ? end - longest : stream->held_len;
}

/* How many bytes at the end could be the start of a stop sequence. */
static u32 undecided(const struct stream *stream)
{
    struct str held = {stream->held, stream->held_len};

    for (usize from = 0; from < held.len; from++)
        for (u32 i = 0; i < stream->stop_count; i++)
            if (str_starts(stop_of(stream, i), str_slice(held, from, held.len)))
                return (u32)(held.len - from);
    return 0;
}

static void release(struct stream *stream, u32 bytes, struct text *out)
{
    text_put(out, (struct str){stream->held, bytes});
    stream->held_len -= bytes;
    memmove(stream->held, stream->held + bytes, stream->held_len);
}

bool stream_put(struct stream *stream, struct str bytes, struct text *out)
{
    struct text held = {stream->held, stream->held_len, STREAM_HELD_MAX, false};

    CHECK(bytes.len <= TOKEN_BYTES_MAX);
    utf8_stream_put(&stream->utf8, bytes, &held);
    CHECK(!held.truncated);
    stream->held_len = (u32)held.len;
    u32 stop = find_stop(stream);
    bool found = stop < stream->held_len;
    release(stream, found ? stop : stream->held_len - undecided(stream), out);
    if (found) {
        stream->held_len = 0;
        stream->utf8 = (struct utf8_stream){};
    }
    return found;
}

void stream_end(struct stream *stream, struct text *out)
{
    struct text held = {stream->held, stream->held_len, STREAM_HELD_MAX, false};

    utf8_stream_end(&stream->utf8, &held);
    stream->held_len = (u32)held.len;
    release(stream, stream->held_len, out);
}

/* ---- characters ---- */

/* Whether more bytes could make this one character: if so, the lowest or the highest ones do. */
static bool is_unfinished(const struct utf8_stream *s)
{
    struct utf8_stream low = *s, high = *s;
    u32 code;

    memset(low.held + s->held_len, 0x80, sizeof(low.held) - s->held_len);
    memset(high.held + s->held_len, 0xbf, sizeof(high.held) - s->held_len);
    return utf8_decode((struct str){low.held, sizeof(low.held)}, &code) > s->held_len ||
           utf8_decode((struct str){high.held, sizeof(high.held)}, &code) > s->held_len;
}

void utf8_stream_put(struct utf8_stream *s, struct str bytes, struct text *out)
{
    for (usize i = 0; i < bytes.len; i++) {
        u32 code;

        s->held[s->held_len++] = bytes.ptr[i];
        if (utf8_decode((struct str){s->held, s->held_len}, &code) == s->held_len) {
            text_put(out, (struct str){s->held, s->held_len});
            s->held_len = 0;
        } else if (!is_unfinished(s)) {
            i -= s->held_len > 1; /* the last byte may start a character of its own */
            s->held_len = 1;
            utf8_stream_end(s, out);
        }
    }
}

void utf8_stream_end(struct utf8_stream *s, struct text *out)
{
    if (s->held_len > 0)
        text_put(out, STR("\uFFFD"));
    s->held_len = 0;
}
