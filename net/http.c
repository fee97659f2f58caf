/*
 * http.c: a request of HTTP/1.1 as pure functions over bytes: its head, its body. No allocation,
 * no I/O, no clock. Follows RFC 9110 and RFC 9112 and is stricter wherever two readers of one
 * message could disagree (section 11.2, request smuggling): lines end with CRLF and nothing else,
 * no folding, no space around a field's name, one length, one framing.
 */
#include "net/priv.h"

const char *const http_method_names[HTTP_METHODS] = {"GET", "HEAD",   "POST", "OPTIONS",
                                                     "PUT", "DELETE", "PATCH"};
static const char *const field_names[FIELD_COUNT] = {
    "host",          "content-length", "transfer-encoding", "expect",
    "authorization", "content-type",   "connection",        "x-request-id"};

static enum http_step bad(struct http_request *request, u32 status, const char *why)
{
    request->status = status;
    request->why = why;
    return HTTP_BAD;
}

bool http_visible(struct str text, char except)
{
    for (usize i = 0; i < text.len; i++)
        if (text.ptr[i] <= ' ' || text.ptr[i] >= 0x7f || text.ptr[i] == except)
            return false;
    return true;
}

static bool is_token(struct str text)
{
    static const struct str others = STR("!#$%&'*+-.^_`|~0123456789");

    for (usize i = 0; i < text.len; i++) {
        char lower = text.ptr[i] | 0x20;
        if ((lower < 'a' || lower > 'z') && str_find_char(others, text.ptr[i]) == others.len)
            return false;
    }
    return text.len > 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* ---- the request line ---- */

/* In absolute form, what stands before the path is Host's to say. */
static enum http_step read_target(struct http_request *request, struct str target)
{
    struct str rest, path = target;

    if (!http_visible(target, '#'))
        return bad(request, 400, "a byte that no URI can hold");
    if (target.len > HTTP_TARGET_BYTES_MAX)
        return bad(request, 414, "the URI is too long");
    if (str_starts(path, STR("http://"))) {
        path = str_slice(path, 7, path.len);
        path = str_slice(path, str_find_char(path, '/'), path.len);
        path = path.len ? path : STR("/");
    }
    bool asterisk = request->method == HTTP_OPTIONS && str_eq(path, STR("*"));
    request->path = str_cut(path, '?', &rest);
    return str_starts(path, STR("/")) || asterisk
               ? HTTP_MORE
               : bad(request, 400, "the request target is not a path");
}

static enum http_step read_request_line(struct http_request *request, struct str line)
{
    struct str rest, version, method = str_cut(line, ' ', &rest);
    struct str target = str_cut(rest, ' ', &version);
    u32 *at = &request->method;

    if (!is_token(method))
        return bad(request, 400, "the request line has no method");
    if (version.len != 8 || !str_starts(version, STR("HTTP/")) || version.ptr[6] != '.' ||
        !is_digit(version.ptr[5]) || !is_digit(version.ptr[7]))
        return bad(request, 400, "the request line has no HTTP version");
    request->minor = version.ptr[7] != '0';
    if (version.ptr[5] != '1' || version.ptr[7] > '1')
        return bad(request, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    while (*at < HTTP_METHODS && !str_eq(method, str_of(http_method_names[*at])))
        ++*at;
    return *at < HTTP_METHODS ? read_target(request, target)
                              : bad(request, 501, "an unknown method");
}

/* ---- fields ---- */

/* The name before the colon and the value without the spaces around it. FIELD_COUNT: none that
 * steers us, FIELD_COUNT + 1: malformed. */
static u32 split_field(struct str line, struct str *value)
{
    usize colon = str_find_char(line, ':');
    struct str name = str_slice(line, 0, colon);
    u32 field = 0;

    *value = str_trim(str_slice(line, colon + 1, line.len));
    if (colon == line.len || !is_token(name))
        return FIELD_COUNT + 1;
    while (field < FIELD_COUNT && !str_eq_nocase(name, str_of(field_names[field])))
        field++;
    return field;
}

static enum http_step read_field(struct http_request *request, struct str line)
{
    struct str value;
    u32 field = split_field(line, &value);

    if (field > FIELD_COUNT)
        return bad(request, 400, "a header field without a proper name");
    if (field == FIELD_COUNT)
        return HTTP_MORE;
    if (request->field[field].ptr && field < FIELD_CONNECTION)
        return bad(request, 400, "a header field that may stand only once stands twice");
    request->field[field] = value;
    while (field == FIELD_CONNECTION && value.len) {
        struct str option = str_trim(str_cut(value, ',', &value));
        request->said_close |= str_eq_nocase(option, STR("close"));
        request->keep_alive |= str_eq_nocase(option, STR("keep-alive"));
    }
    return HTTP_MORE;
}

/* The head as a whole: connection, expectation, framing. */
static enum http_step judge(struct http_request *request)
{
    struct str host = request->field[FIELD_HOST], expect = request->field[FIELD_EXPECT];
    struct str length = request->field[FIELD_CONTENT_LENGTH];
    struct str coding = request->field[FIELD_TRANSFER_ENCODING];
    err e = length.ptr ? str_to_u64(length, &request->left) : OK;
    const struct {
        bool broken;
        u32 status;
        const char *why;
    } rules[] = {
        {request->minor && !host.ptr, 400, "HTTP/1.1 needs a Host field"},
        {!http_visible(host, ','), 400, "the Host field is no host"},
        {expect.ptr && !str_eq_nocase(expect, STR("100-continue")), 417, "an unknown expectation"},
        {coding.ptr && length.ptr, 400, "Transfer-Encoding beside Content-Length"},
        {coding.ptr && !request->minor, 400, "Transfer-Encoding in HTTP/1.0"},
        {coding.ptr && !str_eq_nocase(coding, STR("chunked")), 501, "an unknown transfer coding"},
        {e == E_FORMAT, 400, "Content-Length is not a number"},
        {e != OK || request->left > HTTP_BODY_BYTES_MAX, 413, "the body is too large"},
    };

    for (usize i = 0; i < ARRAY_LEN(rules); i++)
        if (rules[i].broken)
            return bad(request, rules[i].status, rules[i].why);
    request->keep_alive = !request->said_close && (request->minor || request->keep_alive);
    request->wants_continue = expect.ptr && request->minor;
    request->lines = 0; /* from here on those of the trailer */
    request->body = coding.ptr ? BODY_SIZE_LINE : request->left ? BODY_LENGTH : BODY_DONE;
    return HTTP_DONE;
}

/* ---- the head, byte by byte: the verdict does not depend on how it was cut ---- */

/* Can the byte stand in a head at all? A CR only before an LF, an LF only after it. */
static bool byte_allowed(struct str bytes, usize at)
{
    u8 c = (u8)bytes.ptr[at];
    u8 before = at ? (u8)bytes.ptr[at - 1] : 0;

    return (c == '\n') == (before == '\r') && (c >= 0x20 || c == '\t' || c == '\r' || c == '\n') &&
           c != 0x7f;
}

static enum http_step read_line(struct http_request *request, struct str line)
{
    if (request->lines++ == 0)
        return read_request_line(request, line);
    if (request->lines > HTTP_FIELDS_MAX + 1 && line.len)
        return bad(request, 431, "too many header fields");
    return line.len ? read_field(request, line) : judge(request);
}

enum http_step http_head_read(struct http_request *request, struct str bytes)
{
    enum http_step step = HTTP_MORE;

    for (; step == HTTP_MORE && request->scanned < bytes.len; request->scanned++) {
        usize at = request->scanned, start = request->line_start;
        if (!request->lines && at - start > HTTP_TARGET_BYTES_MAX + 32)
            return bad(request, 414, "the request line is too long");
        if (at - start > HTTP_FIELD_BYTES_MAX || at >= HTTP_HEAD_BYTES_MAX)
            return bad(request, 431, "the request header or a field of it is too long");
        if (!byte_allowed(bytes, at))
            return bad(request, 400, "a byte that no request header can hold");
        if (bytes.ptr[at] != '\n')
            continue;
        request->line_start = at + 1;
        if (at != 1) /* RFC 9112, 2.2: one empty line before a request is forgiven */
            step = read_line(request, str_slice(bytes, start, at - 1));
    }
    return step;
}

/* ---- the body ---- */

/* chunk-size [ chunk-ext ]: extensions are read over. */
static enum http_step read_chunk_size(struct http_request *request, struct str line)
{
    u32 digit;
    usize i = 0;

    for (request->left = 0; i < line.len && line.ptr[i] != ';'; i++) {
        if (!json_hex(line.ptr[i], &digit) || i == HTTP_CHUNK_DIGITS_MAX)
            return bad(request, 400, "a malformed chunk size");
        request->left = request->left << 4 | digit;
    }
    if (i == 0)
        return bad(request, 400, "a chunk without a size");
    if (request->total + request->left > HTTP_BODY_BYTES_MAX)
        return bad(request, 413, "the body is too large");
    request->body = request->left ? BODY_CHUNK : BODY_TRAILER;
    return HTTP_MORE;
}

/* Fields after the body are checked and dropped; one that would have framed the body is a lie. */
static enum http_step read_trailer(struct http_request *request, struct str line)
{
    struct str value;

    if (line.len == 0) {
        request->body = BODY_DONE;
        return HTTP_DONE;
    }
    if (split_field(line, &value) != FIELD_COUNT || ++request->lines > HTTP_FIELDS_MAX)
        return bad(request, 400, "a malformed or forbidden trailer field");
    return HTTP_MORE;
}

/* The line at the front of `bytes`; takes nothing when it has not all arrived. */
static enum http_step read_body_line(struct http_request *request, struct str bytes, usize *used)
{
    usize end = 0;

    for (; end < bytes.len && (end == 0 || bytes.ptr[end - 1] != '\n'); end++)
        if (!byte_allowed(bytes, end) || end > HTTP_CHUNK_LINE_MAX)
            return bad(request, 400, "a malformed line between chunks");
    if (end == 0 || bytes.ptr[end - 1] != '\n')
        return HTTP_MORE;
    *used = end;
    if (request->body == BODY_SIZE_LINE)
        return read_chunk_size(request, str_slice(bytes, 0, end - 2));
    if (request->body == BODY_TRAILER)
        return read_trailer(request, str_slice(bytes, 0, end - 2));
    request->body = BODY_SIZE_LINE;
    return end > 2 ? bad(request, 400, "a chunk longer than its size") : HTTP_MORE;
}

enum http_step http_body_read(struct http_request *request, struct str bytes, usize *used,
                              struct str *data)
{
    *used = 0;
    *data = (struct str){};
    if (request->body == BODY_DONE)
        return HTTP_DONE;
    if (request->body != BODY_LENGTH && request->body != BODY_CHUNK)
        return read_body_line(request, bytes, used);
    *data = str_slice(bytes, 0, request->left);
    *used = data->len;
    request->left -= data->len;
    request->total += data->len;
    if (request->left == 0)
        request->body = request->body == BODY_LENGTH ? BODY_DONE : BODY_CHUNK_END;
    return request->body == BODY_DONE ? HTTP_DONE : HTTP_MORE;
}
