/*
 * base.h: what every room may use. Types, slices, errors, arenas, the formatter, the log, and the
 * platform: the few services that a machine gives to portable code. The platform is kernel/ on the
 * target and tests/host/platform.c on Linux. Portable code (net, ml, ml/compile) includes this
 * header and no other of kernel/.
 */
#ifndef NOHOST_BASE_H
#define NOHOST_BASE_H

#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int32_t i32;
typedef int64_t i64;
typedef size_t usize;
typedef float f32;
typedef double f64;

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define KIB ((usize)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S 1000000000ull

static inline u64 min_u64(u64 a, u64 b) { return a < b ? a : b; }
static inline u64 max_u64(u64 a, u64 b) { return a > b ? a : b; }
static inline u32 min_u32(u32 a, u32 b) { return a < b ? a : b; }
static inline u32 max_u32(u32 a, u32 b) { return a > b ? a : b; }
static inline u64 round_up(u64 value, u64 step) { return (value + step - 1) / step * step; }
static inline u64 div_up(u64 value, u64 step) { return (value + step - 1) / step; }

/* ---- errors: one table holds name and text (docs/CONVENTIONS.md, "three answers") ---- */

#define ERR_TABLE(X)                                      \
    X(OK, "ok")                                           \
    X(E_TIMEOUT, "timed out")                             \
    X(E_DEVICE, "device failed")                          \
    X(E_BUSY, "busy, every place is taken")               \
    X(E_NOMEM, "not enough memory")                       \
    X(E_FORMAT, "malformed data")                         \
    X(E_LIMIT, "over a limit")                            \
    X(E_RANGE, "value out of range")                      \
    X(E_UNSUPPORTED, "not supported")                     \
    X(E_NOTFOUND, "not found")                            \
    X(E_IO, "read or write failed")                       \
    X(E_STATE, "not in a state to do that")

#define ERR_ENUM(name, text) name,
typedef enum [[nodiscard]] err { ERR_TABLE(ERR_ENUM) ERR_COUNT } err;
#undef ERR_ENUM

const char *err_text(err e);
const char *err_name(err e);

/* Our own mistake: panics with registers and the last log lines, in every build. */
__attribute__((noreturn)) void panic(const char *file, int line, const char *what);
#define CHECK(cond) ((cond) ? (void)0 : panic(__FILE__, __LINE__, #cond))

/* The world's mistake: hand it up. Whoever detected it has logged it once. */
#define TRY(expr)               \
    do {                        \
        err try_err_ = (expr);  \
        if (try_err_ != OK)     \
            return try_err_;    \
    } while (0)

/* ---- text.c: slices of text, bounded formatter ---- */

struct str {
    const char *ptr;
    usize len;
};

#define STR(literal) ((struct str){("" literal), sizeof(literal) - 1})

struct str str_of(const char *zero_terminated);
bool str_eq(struct str a, struct str b);
bool str_eq_nocase(struct str a, struct str b); /* ASCII case only */
bool str_starts(struct str text, struct str prefix);
bool str_ends(struct str text, struct str suffix);
/* Index of the first occurrence, or text.len. */
usize str_find(struct str text, struct str needle);
usize str_find_char(struct str text, char c);
struct str str_slice(struct str text, usize from, usize to); /* clamps both ends */
struct str str_trim(struct str text);                        /* spaces, tabs, CR, LF at both ends */
/* Splits off the part before `c`; *rest is what follows it (empty when there is no `c`). */
struct str str_cut(struct str text, char c, struct str *rest);
/* Decimal digits only (no sign, no space); E_FORMAT or E_RANGE. */
err str_to_u64(struct str text, u64 *value);
/* Decodes one code point; returns its bytes (1-4), 0 when the text is not valid or ends in it. */
usize utf8_decode(struct str text, u32 *code_point);
usize utf8_encode(u32 code_point, char out[4]);
bool utf8_valid(struct str text);

/* Appends to caller's memory. What does not fit is cut, `truncated` tells. */
struct text {
    char *ptr;
    usize len, cap;
    bool truncated;
};

#define TEXT_ON(array) ((struct text){(array), 0, sizeof(array), false})

void text_put(struct text *out, struct str text);
void text_char(struct text *out, char c);
/* printf subset: %s %c %d %u %x %% with l, ll, z, width, 0, -, .* and .N for strings.
 * No floating point here: ml/mathf.h has text_f64. */
__attribute__((format(printf, 2, 3))) void text_fmt(struct text *out, const char *format, ...);
void text_vfmt(struct text *out, const char *format, va_list args);
struct str text_str(const struct text *out);

/* ---- arena.c: memory that is given back all at once ---- */

struct arena {
    const char *name;
    u8 *base;
    usize used, cap, peak;
};

/* Memory of the caller's. */
struct arena arena_on(const char *name, void *base, usize bytes);
/* As arena_alloc, but holding whatever was there before. */
[[nodiscard]] void *arena_take(struct arena *arena, usize bytes, usize align);
/* Zeroed; NULL when the arena is full: the world's sizes decide that, the answer is E_NOMEM. */
[[nodiscard]] void *arena_alloc(struct arena *arena, usize bytes, usize align);
#define arena_new(arena, type, count)                                                           \
    ((type *)arena_alloc_array((arena), (count), sizeof(type), _Alignof(type)))
[[nodiscard]] void *arena_alloc_array(struct arena *arena, usize count, usize size, usize align);
[[nodiscard]] struct str arena_str(struct arena *arena, struct str text); /* ptr NULL when full */
static inline usize arena_mark(const struct arena *arena) { return arena->used; }
void arena_reset(struct arena *arena, usize mark);

/* Fixed number of equal places; the free list lives in the places. */
struct pool {
    const char *name;
    void *free;
    u32 used, peak, count;
    usize place_bytes;
};

/* Carves `count` places from the arena; E_NOMEM. */
err pool_init(struct pool *pool, const char *name, struct arena *arena, usize place_bytes,
              u32 count);
[[nodiscard]] void *pool_take(struct pool *pool); /* zeroed; NULL when every place is taken */
void pool_give(struct pool *pool, void *place);

/* ---- log.c: lines into a ring that every sink reads ---- */

enum log_level { LOG_INFO, LOG_WARN, LOG_ERROR };

/* `who` is the room or the device ("net", "00:02.0"). Lines over LOG_LINE_MAX bytes are cut. */
#define LOG_LINE_MAX 240
__attribute__((format(printf, 3, 4))) void log_line(enum log_level level, const char *who,
                                                    const char *format, ...);
#define log_info(who, ...) log_line(LOG_INFO, who, __VA_ARGS__)
#define log_warn(who, ...) log_line(LOG_WARN, who, __VA_ARGS__)
#define log_error(who, ...) log_line(LOG_ERROR, who, __VA_ARGS__)
/* Every line from here on is also given to `put`, line end included; at most 4 sinks. */
void log_sink_add(void (*put)(struct str line));
/* Copies the newest part of the ring that fits, whole lines, oldest first; returns bytes. */
usize log_read(char *out, usize cap);

/* ---- rt.c: what a freestanding compiler calls; on the host libc's ---- */

void *memcpy(void *restrict to, const void *restrict from, usize bytes);
void *memmove(void *to, const void *from, usize bytes);
void *memset(void *to, int byte, usize bytes);
int memcmp(const void *a, const void *b, usize bytes);
usize strlen(const char *text);

/* ---- the platform: kernel/ on the target, tests/host/platform.c on Linux, fakes in tests ---- */

/* Monotonic since power-on. */
u64 time_ns(void);
/* Seconds since 1970 by the machine's clock, corrected by SNTP when it has answered. */
i64 time_unix_s(void);
void time_unix_set(i64 seconds);
/* Unpredictable bytes (ChaCha20 over the boot entropy on the target). */
void random_bytes(void *out, usize bytes);

/* Zeroed pages (4 KiB, aligned to as much); NULL when there are none. Panics after mem_seal(). */
[[nodiscard]] void *pages_alloc(usize bytes);
/* The same, holding whatever was there before: for memory that is written before it is read. */
[[nodiscard]] void *pages_take(usize bytes);
void pages_free(void *ptr, usize bytes);
usize pages_available(void); /* bytes */
/* Generated code: written while RW, then sealed read + execute; W^X holds at every moment. */
[[nodiscard]] void *code_alloc(usize bytes);
err code_seal(void *code, usize bytes);
/* From here on pages_alloc and code_alloc panic: nothing grows while serving. */
void mem_seal(void);

/* ---- bytes of a file: extents behind one face, never a resident pointer ---- */

struct store {
    const char *name;
    u64 bytes;
    void *ctx;
    err (*read)(struct store *store, u64 offset, void *out, usize bytes);
    /* The range is never read again: its memory may go back to the pages. May be NULL. */
    void (*release)(struct store *store, u64 offset, u64 bytes);
};

/* The workers: every core but the caller's. Each calls work(ctx, worker) again and again, worker =
 * 1..workers_count(); when it returns false, there was nothing to do: the core idles until
 * workers_wake(). */
u32 workers_count(void);
void workers_start(bool (*work)(void *ctx, u32 worker), void *ctx);
void workers_wake(void);
static inline void cpu_relax(void) { __builtin_ia32_pause(); }

/* What this CPU can do and the operating state (XCR0) allows. */
struct cpu_features {
    bool avx2;       /* with FMA, F16C, BMI2: the floor */
    bool avx512;     /* F, BW, DQ, VL */
    bool avx512_vnni;
    bool avx_vnni;
    bool amx_int8;
    bool translated; /* QEMU's TCG: float lanes cost far more than integer ones */
};
const struct cpu_features *cpu_features(void);

#endif
