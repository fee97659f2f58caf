/*
 * limits.h: every bound and every patience of the server half, in one place. docs/API.md repeats
 * the ones a client can meet.
 */
#ifndef NOHOST_NET_LIMITS_H
#define NOHOST_NET_LIMITS_H

/* HTTP head: 431, 414, 413 beyond these. */
#define HTTP_HEAD_BYTES_MAX   (16 * KIB)
#define HTTP_FIELD_BYTES_MAX  (8 * KIB)
#define HTTP_FIELDS_MAX       100u
#define HTTP_TARGET_BYTES_MAX 2048u
#define HTTP_BODY_BYTES_MAX   (1 * MIB)
#define HTTP_READ_AHEAD_BYTES (4 * KIB) /* room behind the head for the body's next bytes */
#define HTTP_CHUNK_LINE_MAX   256u      /* size and extension of one chunk; a trailer line */
#define HTTP_CHUNK_DIGITS_MAX 8u
#define REQUEST_ID_BYTES_MAX  64u

/* JSON and the API's own lists: 400 beyond these. */
#define JSON_DEPTH_MAX 32u
#define JSON_NODES_MAX 65536u
#define MESSAGES_MAX   4096u

/* Bytes that wait, in blocks of two pools. What is small always finds room: for SMALL_BYTES of
 * every connection each pool keeps a reserve, which counts the blocks that are not full (one fifo
 * of uploads, six of an answer). Only the rest is shared by the large; when it is taken they get
 * 503. */
#define BLOCK_BYTES         (4 * KIB)
#define SMALL_BYTES         (16 * KIB)
#define UPLOAD_SPARE_BLOCKS (NET_CONNECTIONS_MAX * 5u)
#define OUT_SPARE_BLOCKS    (NET_CONNECTIONS_MAX * 10u)
#define UPLOAD_BLOCKS       (UPLOAD_SPARE_BLOCKS + 528u)
#define OUT_BLOCKS          (OUT_SPARE_BLOCKS + 768u)
#define OUT_BYTES_MAX       (256 * KIB)                /* behind one client that does not read */
#define LINE_BYTES_MAX      (OUT_BYTES_MAX + 96 * KIB) /* one answer or chunk, written at once */

/* Patience. */
#define HEAD_TIMEOUT_S       10u
#define IDLE_TIMEOUT_S       60u /* keep-alive, no byte of a next request */
#define BODY_IDLE_TIMEOUT_S  30u
#define BODY_TOTAL_TIMEOUT_S 120u
#define SEND_STALL_TIMEOUT_S 30u
#define PING_INTERVAL_S      10u
#define ACT_TIMEOUT_S        2u /* reset and power-off wait this long for their answer to leave */

#endif
