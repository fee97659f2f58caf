/*
 * gguf.h: the model file. gguf_open decides everything that can be wrong with the container
 * before the first value is used; after it nobody re-checks sizes, types, offsets or text.
 * Follows ggml's docs/gguf.md, versions 2 and 3, little-endian, and the split files of llama.cpp
 * (split.no, split.count, split.tensors.count).
 */
#ifndef NOHOST_GGUF_H
#define NOHOST_GGUF_H

#include "ml/ml.h"
#include "ml/quant.h"

/* Every number that a file can choose has its cap here; over it is E_LIMIT. */
#define GGUF_META_BYTES_MAX   (256 * MIB) /* header, keys and tensor table of one part */
#define GGUF_KEYS_MAX         4096u       /* per part */
#define GGUF_TENSORS_MAX      65536u      /* all parts together */
#define GGUF_STRING_BYTES_MAX (16 * MIB)
#define GGUF_NAME_BYTES_MAX   256u        /* of a key or tensor */
#define GGUF_ARRAY_MAX        (16u << 20) /* elements */
#define GGUF_ALIGNMENT_MAX    65536u
#define GGUF_DIMS_MAX         4u
#define GGUF_ELEMENTS_MAX     (1ull << 40) /* of one tensor */
#define GGUF_REASON_MAX       200u         /* bytes that a reason sentence needs at most */

// clang-format off
enum gguf_type { /* numbers of the file format */
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32,
    GGUF_BOOL, GGUF_STRING, GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF_TYPE_COUNT
};
// clang-format on

struct gguf_key {
    struct str name;
    enum gguf_type type; /* of the value, or of the elements when is_array */
    bool is_array;
    u32 count;       /* elements; 1 for a single value */
    struct str data; /* the value or the elements, unaligned; strings are read by gguf_cut_str */
};

struct gguf_tensor {
    struct str name;
    const struct quant_format *format; /* never NULL */
    u32 dim_count;                     /* 1..4; the unused dims are 1 */
    u64 dim[GGUF_DIMS_MAX];            /* dim[0] is the contiguous one */
    u64 elements, bytes;
    u32 part;
    u64 offset; /* of the first byte in the part's store */
};

/* Finds an entry of a caller's table by its name, which is any bytes. Open addressing with a
 * bounded number of probes, so that no file can make it slow. */
#define NAMES_NONE 0xffffffffu
struct names {
    u32 *slot; /* entry + 1; 0: free */
    u32 mask;
    const void *table;
    struct str (*name)(const void *table, u32 entry);
};

struct gguf {
    struct store *part;
    u32 part_count;
    struct gguf_key *key; /* of the first part */
    u32 key_count;
    struct gguf_tensor *tensor; /* of all parts, in file order */
    u32 tensor_count;
    struct names key_names, tensor_names;
};

/*
 * Reads and checks all headers. Text and tables live in the arena (about the size of the metadata
 * plus 96 bytes per tensor). On failure the first fault is logged and `reason` holds it as a
 * sentence: E_FORMAT, E_LIMIT, E_UNSUPPORTED (version, tensor type), E_NOMEM (arena), or what the
 * store's read returned.
 */
err gguf_open(struct gguf *gguf, struct store *part, u32 part_count, struct arena *arena,
              struct text *reason);

/* NULL when there is none. */
const struct gguf_key *gguf_key(const struct gguf *gguf, const char *name);
const struct gguf_tensor *gguf_tensor(const struct gguf *gguf, struct str name);

/* Typed values, all silent: E_NOTFOUND, E_FORMAT (another type), E_RANGE (does not fit). Every
 * integer type and bool is accepted for integers, f32 and f64 for floats. On failure *value is
 * untouched, so it may hold a default. */
err gguf_u32(const struct gguf *gguf, const char *name, u32 *value);
err gguf_f32(const struct gguf *gguf, const char *name, f32 *value);
err gguf_str(const struct gguf *gguf, const char *name, struct str *value);
/* The key as an array of `type`. */
err gguf_array(const struct gguf *gguf, const char *name, enum gguf_type type,
               const struct gguf_key **array);

/* An element of numbers (or index 0 of a single one); type and index are CHECKed. */
f64 gguf_number(const struct gguf_key *key, u32 index);
/* Takes the next string off *rest, at first the data of an array of strings. */
struct str gguf_cut_str(struct str *rest);

/* Bytes [from, from + bytes) of the tensor's data; the range is CHECKed. */
err gguf_read(const struct gguf *gguf, const struct gguf_tensor *tensor, u64 from, void *out,
              usize bytes);

/* `table` and `name` are set by the caller. E_NOMEM. */
err names_init(struct names *names, struct arena *arena, u32 count);
/* E_STATE: the name is there already; E_LIMIT: too many probes. */
err names_put(struct names *names, u32 entry);
u32 names_find(const struct names *names, struct str name); /* NAMES_NONE */

/* For every judge of the file: the sentence goes into *reason (replacing it) and once to the log,
 * but for E_NOMEM, which the caller may mend. */
__attribute__((format(printf, 3, 4))) err gguf_refuse(struct text *reason, err why,
                                                      const char *format, ...);

#endif
