/*
 * http.c: HTTP/1.1 as pure functions over bytes: the head of a request, its body, the head of a
 * reply. No allocation, no I/O, no clock. Follows RFC 9110 and RFC 9112 and is stricter wherever
 * two readers of one message could disagree (section 11.2, request smuggling): lines end with
 * CRLF and nothing else, no folding, no space around a field's name, one length, one framing.
 */
#include "net/priv.h"

const char *const http_method_names[HTTP_METHODS] = {"GET", "HEAD",   "POST", "OPTIONS",
                                                     "PUT", "DELETE", "PATCH"};

/* The fields that steer us. Twice the same of a `single` one could mean two things: refused. */
static const struct {
    struct str name;
    bool single;
} fields[FIELD_COUNT] = {
    [FIELD_HOST] = {STR("host"), true},
    [FIELD_CONTENT_LENGTH] = {STR("content-length"), true},
    [FIELD_TRANSFER_ENCODING] = {STR("transfer-encoding"), true},
    [FIELD_CONNECTION] = {STR("connection"), false},
    [FIELD_EXPECT] = {STR("expect"), true},
    [FIELD_AUTHORIZATION] = {STR("authorization"), true},
    [FIELD_CONTENT_TYPE] = {STR("content-type"), true},
    [FIELD_REQUEST_ID] = {STR("x-request-id"), false},
};

static enum http_step read_request_line(struct http_head *head, struct str line);
static enum http_step read_field(struct http_head *head, struct str line);
static enum http_step judge(struct http_head *head);

static enum http_step bad(struct http_head *head, u32 status, const char *why)
{
    head->status = status;
    head->why = why;
    return HTTP_BAD;
}

/* ---- lines ---- */

/* Can the byte stand in a head at all? A CR only before an LF, an LF only after it. */
static bool byte_allowed(struct str bytes, usize at)
{
    u8 c = (u8)bytes.ptr[at];
    u8 before = at ? (u8)bytes.ptr[at - 1] : 0;

    return (c == '\n') == (before == '\r') && (c >= 0x20 || c == '\t' || c == '\r' || c == '\n') &&
           c != 0x7f;
}

/* What a line that has not ended yet already breaks. */
static enum http_step judge_length(struct http_head *head, usize line_len, usize all)
{
    if (!head->lines && line_len > HTTP_TARGET_BYTES_MAX + 32)
        return bad(head, 414, "the request line is too long");
    if (line_len > HTTP_FIELD_BYTES_MAX)
        return bad(head, 431, "a header field is too long");
    if (all > HTTP_HEAD_BYTES_MAX)
        return bad(head, 431, "the request header is too long");
    return HTTP_MORE;
}

static enum http_step read_line(struct http_head *head, struct str line)
{
    if (head->lines == 0)
        return read_request_line(head, line);
    if (head->lines > HTTP_FIELDS_MAX && line.len)
        return bad(head, 431, "too many header fields");
    return line.len ? read_field(head, line) : judge(head);
}

enum http_step http_head_read(struct http_head *head, struct str bytes)
{
    for (; head->scanned < bytes.len; head->scanned++) {
        usize at = head->scanned;
        if (judge_length(head, at - head->line_start, at + 1) == HTTP_BAD)
            return HTTP_BAD;
        if (!byte_allowed(bytes, at))
            return bad(head, 400, "a byte that no request header can hold");
        if (bytes.ptr[at] != '\n')
            continue;
        struct str line = str_slice(bytes, head->line_start, at - 1);
        head->line_start = at + 1;
        if (head->lines == 0 && line.len == 0 && at == 1)
            continue; /* RFC 9112, 2.2: one empty line before a request is forgiven */
        enum http_step step = read_line(head, line);
        head->lines++;
        if (step != HTTP_MORE)
            return step;
    }
    return HTTP_MORE;
}

/* ---- the request line ---- */

static bool is_token_char(u8 c)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    u8 lower = c | 0x20;

    return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') ||
           str_find_char((struct str){others, sizeof(others) - 1}, (char)c) < sizeof(others) - 1;
}

static bool is_token(struct str text)
{
    for (usize i = 0; i < text.len; i++)
        if (!is_token_char((u8)text.ptr[i]))
            return false;
    return text.len > 0;
}

static enum http_step read_version(struct http_head *head, struct str version)
{
    if (version.len != 8 || !str_starts(version, STR("HTTP/")) || version.ptr[6] != '.' ||
        version.ptr[5] < '0' || version.ptr[5] > '9' || version.ptr[7] < '0' ||
        version.ptr[7] > '9')
        return bad(head, 400, "the request line has no HTTP version");
    if (version.ptr[5] != '1' || version.ptr[7] > '1')
        return bad(head, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    head->minor = (u32)(version.ptr[7] - '0');
    return HTTP_MORE;
}

static enum http_step read_target(struct http_head *head, struct str target)
{
    struct str rest, path = target;

    for (usize i = 0; i < target.len; i++)
        if ((u8)target.ptr[i] <= ' ' || (u8)target.ptr[i] >= 0x7f || target.ptr[i] == '#')
            return bad(head, 400, "a byte that no URI can hold");
    if (target.len > HTTP_TARGET_BYTES_MAX)
        return bad(head, 414, "the URI is too long");
    if (str_starts(path, STR("http://"))) { /* absolute form; the rest of it Host says */
        path = str_slice(path, 7, path.len);
        path = str_slice(path, str_find_char(path, '/'), path.len);
        path = path.len ? path : STR("/");
    }
    bool asterisk = head->method == HTTP_OPTIONS && str_eq(path, STR("*"));
    if (!str_starts(path, STR("/")) && !asterisk)
        return bad(head, 400, "the request target is not a path");
    head->path = str_cut(path, '?', &rest);
    return HTTP_MORE;
}

static enum http_step read_request_line(struct http_head *head, struct str line)
{
    struct str rest, version, method = str_cut(line, ' ', &rest);
    struct str target = str_cut(rest, ' ', &version);

    if (!is_token(method))
        return bad(head, 400, "the request line has no method");
    if (read_version(head, version) == HTTP_BAD)
        return HTTP_BAD;
    while (head->method < HTTP_METHODS && !str_eq(method, str_of(http_method_names[head->method])))
        head->method++;
    if (head->method == HTTP_METHODS)
        return bad(head, 501, "an unknown method");
    return read_target(head, target);
}

/* ---- fields ---- */

static u32 field_of(struct str name)
{
    u32 field = 0;

    while (field < FIELD_COUNT && !str_eq_nocase(name, fields[field].name))
        field++;
    return field;
}

/* The name before the colon and the value without the spaces around it; false: malformed. */
static bool split_field(struct str line, struct str *name, struct str *value)
{
    usize colon = str_find_char(line, ':');

    *name = str_slice(line, 0, colon);
    *value = str_trim(str_slice(line, colon + 1, line.len));
    return colon < line.len && is_token(*name);
}

static void read_connection(struct http_head *head, struct str value)
{
    while (value.len) {
        struct str option = str_trim(str_cut(value, ',', &value));
        head->said_close |= str_eq_nocase(option, STR("close"));
        head->keep_alive |= str_eq_nocase(option, STR("keep-alive"));
    }
}

static enum http_step read_field(struct http_head *head, struct str line)
{
    struct str name, value;

    if (!split_field(line, &name, &value))
        return bad(head, 400, "a header field without a proper name");
    u32 field = field_of(name);
    if (field == FIELD_COUNT)
        return HTTP_MORE;
    if (head->field[field].ptr && fields[field].single)
        return bad(head, 400, "a header field that may stand only once stands twice");
    head->field[field] = value;
    if (field == FIELD_CONNECTION)
        read_connection(head, value);
    return HTTP_MORE;
}

/* ---- the head as a whole: framing, connection, expectation ---- */

static enum http_step judge_framing(struct http_head *head)
{
    struct str length = head->field[FIELD_CONTENT_LENGTH];
    struct str coding = head->field[FIELD_TRANSFER_ENCODING];

    if (coding.ptr && (length.ptr || head->minor == 0))
        return bad(head, 400, "Transfer-Encoding beside Content-Length or in HTTP/1.0");
    if (coding.ptr && !str_eq_nocase(coding, STR("chunked")))
        return bad(head, 501, "a transfer coding other than chunked");
    head->chunked = coding.ptr != NULL;
    if (!length.ptr)
        return HTTP_MORE;
    err e = str_to_u64(length, &head->content_length);
    if (e == E_FORMAT)
        return bad(head, 400, "Content-Length is not a number");
    if (e != OK || head->content_length > HTTP_BODY_BYTES_MAX)
        return bad(head, 413, "the body is too large");
    return HTTP_MORE;
}

static enum http_step judge(struct http_head *head)
{
    struct str expect = head->field[FIELD_EXPECT], host = head->field[FIELD_HOST];

    if (head->minor && !host.ptr)
        return bad(head, 400, "HTTP/1.1 needs a Host field");
    for (usize i = 0; i < host.len; i++)
        if ((u8)host.ptr[i] <= ' ' || (u8)host.ptr[i] >= 0x7f || host.ptr[i] == ',')
            return bad(head, 400, "the Host field is no host");
    if (judge_framing(head) == HTTP_BAD)
        return HTTP_BAD;
    if (expect.ptr && !str_eq_nocase(expect, STR("100-continue")))
        return bad(head, 417, "an expectation other than 100-continue");
    head->keep_alive = !head->said_close && (head->minor == 1 || head->keep_alive);
    head->wants_continue = expect.ptr && head->minor == 1;
    return HTTP_DONE;
}

/* ---- the body ---- */

enum { BODY_DONE, BODY_LENGTH, BODY_SIZE_LINE, BODY_CHUNK, BODY_CHUNK_END, BODY_TRAILER };

struct http_body http_body_start(const struct http_head *head)
{
    u32 state = head->chunked ? BODY_SIZE_LINE : head->content_length ? BODY_LENGTH : BODY_DONE;

    return (struct http_body){.state = state, .left = head->content_length};
}

static enum http_step bad_body(struct http_body *body, u32 status, const char *why)
{
    body->status = status;
    body->why = why;
    return HTTP_BAD;
}

/* A whole line at the front of `bytes`, without its end; HTTP_MORE when it has not all arrived. */
static enum http_step take_line(struct http_body *body, struct str bytes, struct str *line)
{
    usize end = 0;

    for (; end < bytes.len && (end == 0 || bytes.ptr[end - 1] != '\n'); end++)
        if (!byte_allowed(bytes, end) || end > HTTP_CHUNK_LINE_MAX)
            return bad_body(body, 400, "a malformed line between chunks");
    if (end == 0 || bytes.ptr[end - 1] != '\n')
        return HTTP_MORE;
    *line = str_slice(bytes, 0, end - 2);
    return HTTP_DONE;
}

/* chunk-size [ chunk-ext ]: extensions are read over. */
static enum http_step read_chunk_size(struct http_body *body, struct str line)
{
    u64 size = 0;
    u32 digit;
    usize i = 0;

    for (; i < line.len && line.ptr[i] != ';'; i++) {
        if (!json_hex(line.ptr[i], &digit) || i == HTTP_CHUNK_DIGITS_MAX)
            return bad_body(body, 400, "a malformed chunk size");
        size = size << 4 | digit;
    }
    if (i == 0)
        return bad_body(body, 400, "a chunk without a size");
    if (body->total + size > HTTP_BODY_BYTES_MAX)
        return bad_body(body, 413, "the body is too large");
    body->left = size;
    body->state = size ? BODY_CHUNK : BODY_TRAILER;
    return HTTP_MORE;
}

/* Fields after the body are checked and dropped; one that would have framed the body is a lie. */
static enum http_step read_trailer(struct http_body *body, struct str line)
{
    struct str name, value;

    if (line.len == 0) {
        body->state = BODY_DONE;
        return HTTP_DONE;
    }
    if (!split_field(line, &name, &value) || field_of(name) < FIELD_COUNT ||
        ++body->lines > HTTP_FIELDS_MAX)
        return bad_body(body, 400, "a malformed or forbidden trailer field");
    return HTTP_MORE;
}

static enum http_step read_body_line(struct http_body *body, struct str bytes, usize *used)
{
    struct str line = {};
    enum http_step step = take_line(body, bytes, &line);

    if (step != HTTP_DONE)
        return step;
    *used = line.len + 2;
    if (body->state == BODY_SIZE_LINE)
        return read_chunk_size(body, line);
    if (body->state == BODY_TRAILER)
        return read_trailer(body, line);
    body->state = BODY_SIZE_LINE;
    return line.len ? bad_body(body, 400, "a chunk longer than its size") : HTTP_MORE;
}

enum http_step http_body_read(struct http_body *body, struct str bytes, usize *used,
                              struct str *data)
{
    *used = 0;
    *data = (struct str){};
    if (body->state == BODY_DONE)
        return HTTP_DONE;
    if (body->state != BODY_LENGTH && body->state != BODY_CHUNK)
        return read_body_line(body, bytes, used);
    *data = str_slice(bytes, 0, body->left);
    *used = data->len;
    body->left -= data->len;
    body->total += data->len;
    if (body->left == 0)
        body->state = body->state == BODY_LENGTH ? BODY_DONE : BODY_CHUNK_END;
    return body->state == BODY_DONE ? HTTP_DONE : HTTP_MORE;
}

/* ---- the head of a reply ---- */

static const char *reason_of(u32 status)
{
    // clang-format off
    static const struct {
        u32 status;
        const char *reason;
    } reasons[] = {
        {200, "OK"}, {204, "No Content"}, {400, "Bad Request"}, {401, "Unauthorized"},
        {403, "Forbidden"}, {404, "Not Found"}, {405, "Method Not Allowed"},
        {408, "Request Timeout"}, {413, "Content Too Large"}, {414, "URI Too Long"},
        {415, "Unsupported Media Type"}, {417, "Expectation Failed"}, {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"}, {500, "Internal Server Error"},
        {501, "Not Implemented"}, {503, "Service Unavailable"}, {505, "HTTP Version Not Supported"},
    };
    // clang-format on

    for (usize i = 0; i < ARRAY_LEN(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "";
}

void http_reply_head(struct text *out, struct http_reply reply, u64 length,
                     const struct http_sender *sender)
{
    text_fmt(out, "HTTP/1.1 %u %s\r\nServer: nohost/", reply.status, reason_of(reply.status));
    text_put(out, sender->version);
    text_put(out, STR("\r\nX-Request-Id: "));
    text_put(out, sender->request_id);
    text_fmt(out, "\r\nConnection: %s\r\n", sender->close ? "close" : "keep-alive");
    if (reply.content_type)
        text_fmt(out, "Content-Type: %s\r\nX-Content-Type-Options: nosniff\r\n",
                 reply.content_type);
    if (length == HTTP_LENGTH_CHUNKED)
        text_put(out, STR("Transfer-Encoding: chunked\r\n"));
    else if (reply.content_type && length != HTTP_LENGTH_UNTIL_CLOSE)
        text_fmt(out, "Content-Length: %lu\r\n", length);
    text_fmt(out, "Cache-Control: no-store\r\n%s\r\n", reply.extra);
}
