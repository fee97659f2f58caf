/*
 * gguf.c: reads and judges the headers of a GGUF model. Each part's header is copied once into the
 * arena and judged from that copy, so a store that changes under us cannot pass one text and serve
 * another. First pass: structure (counts, lengths, types, products). Second pass: what the entries
 * say about each other (names, alignment, offsets, splitting). Must not know what a model does with
 * a key or a tensor. Follows ggml's docs/gguf.md.
 */
#include "ml/gguf.h"

#define GGUF_MAGIC             0x46554747u /* "GGUF" */
#define GGUF_ALIGNMENT_DEFAULT 32u
#define GGUF_ALIGNMENT_MIN     8u
#define HEADER_BYTES           24u
#define KEY_BYTES_MIN          13u /* empty name, type, one byte */
#define TENSOR_BYTES_MIN       32u /* empty name, one dim, type, offset */
#define READ_BYTES             (256 * KIB)
#define SHOWN_MAX              64u /* bytes of a name in a message */

#define TYPE(name) (1u << GGUF_##name)
#define FLOATS     (TYPE(F32) | TYPE(F64))
#define SIGNED     (TYPE(I8) | TYPE(I16) | TYPE(I32) | TYPE(I64))
#define INTEGERS   (SIGNED | TYPE(U8) | TYPE(U16) | TYPE(U32) | TYPE(U64))

static const u8 type_bytes[GGUF_TYPE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* One part while it is judged. */
struct reader {
    const struct gguf *gguf;
    struct store *store;
    struct arena *arena;
    struct text *reason;
    struct str item; /* the key or tensor that is looked at, for messages */
    u32 part, key_count, tensor_count;
    u8 *copy; /* of the store's bytes behind the header, growing at the arena's end */
    u64 have, at;
    struct gguf_key *key;
    struct gguf_tensor *tensor;
    struct names names; /* of the keys */
};

static err read_header(struct reader *r);
static err walk_keys(struct reader *r);
static err walk_tensors(struct reader *r);
static err judge_keys(struct reader *r);
static err judge_split(struct reader *r, u32 tensors_total);
static err place_tensors(struct reader *r);
static err judge_tensor_names(struct reader *r, struct gguf *gguf);
__attribute__((format(printf, 3, 4))) static err fault(struct reader *r, err why,
                                                       const char *format, ...);

static err judge_part(struct reader *r, u32 tensors_total)
{
    r->key = arena_new(r->arena, struct gguf_key, r->key_count);
    if (r->key == NULL)
        return fault(r, E_NOMEM, "%u keys", r->key_count);
    r->copy = r->arena->base + r->arena->used;
    TRY(walk_keys(r));
    TRY(walk_tensors(r));
    arena_reset(r->arena, (usize)(r->copy - r->arena->base) + (usize)r->at);
    TRY(judge_keys(r));
    TRY(judge_split(r, tensors_total));
    return place_tensors(r);
}

err gguf_open(struct gguf *gguf, struct store *part, u32 part_count, struct arena *arena,
              struct text *reason)
{
    struct reader reader = {.gguf = gguf, .arena = arena, .reason = reason}, r = reader;
    u32 keys[ML_PARTS_MAX], tensors[ML_PARTS_MAX], total = 0;

    CHECK(part_count > 0 && part_count <= ML_PARTS_MAX);
    *gguf = (struct gguf){.part = part, .part_count = part_count};
    for (r.part = 0; r.part < part_count; r.part++) {
        r.store = &part[r.part];
        TRY(read_header(&r));
        keys[r.part] = r.key_count;
        tensors[r.part] = r.tensor_count;
        total += r.tensor_count;
    }
    if (total > GGUF_TENSORS_MAX)
        return fault(&r, E_LIMIT, "%u tensors, at most %u", total, GGUF_TENSORS_MAX);
    gguf->tensor = arena_new(arena, struct gguf_tensor, total);
    if (gguf->tensor == NULL)
        return fault(&r, E_NOMEM, "%u tensors", total);
    for (u32 i = 0; i < part_count; i++) {
        r = reader;
        r.part = i;
        r.store = &part[i];
        r.key_count = keys[i];
        r.tensor_count = tensors[i];
        r.tensor = gguf->tensor + gguf->tensor_count;
        TRY(judge_part(&r, total));
        gguf->tensor_count += tensors[i];
        if (i == 0) {
            gguf->key = r.key;
            gguf->key_count = r.key_count;
            gguf->key_names = r.names;
        }
    }
    return judge_tensor_names(&r, gguf);
}

static err refuse(struct text *reason, err why, const char *format, va_list args)
{
    text_vfmt(reason, format, args);
    if (why != E_NOMEM) /* the caller may have more memory, and try again */
        log_error("model", "%.*s (%s)", (int)reason->len, reason->ptr, err_text(why));
    return why;
}

err gguf_refuse(struct text *reason, err why, const char *format, ...)
{
    va_list args;

    reason->len = 0;
    va_start(args, format);
    why = refuse(reason, why, format, args);
    va_end(args);
    return why;
}

static err fault(struct reader *r, err why, const char *format, ...)
{
    va_list args;

    r->reason->len = 0;
    text_fmt(r->reason, "model part %u, \"%.*s\": ", r->part, (int)min_u64(r->item.len, SHOWN_MAX),
             r->item.ptr);
    va_start(args, format);
    why = refuse(r->reason, why, format, args);
    va_end(args);
    return why;
}

/* ---- bytes: nothing is looked at before it is known to be there ---- */

static u64 number_at(const u8 *bytes, u32 count)
{
    u64 value = 0;

    memcpy(&value, bytes, count);
    return value;
}

static err copy_more(struct reader *r, u64 bytes)
{
    u64 left = r->store->bytes - HEADER_BYTES - r->have;
    u64 step = min_u64(max_u64(bytes, READ_BYTES), left);
    u8 *to;

    if (bytes > left)
        return fault(r, E_FORMAT, "the file ends here, after %lu bytes", r->store->bytes);
    if (r->have + bytes > GGUF_META_BYTES_MAX)
        return fault(r, E_LIMIT, "over %lu bytes of metadata", GGUF_META_BYTES_MAX);
    to = arena_alloc(r->arena, (usize)step, 1);
    if (to == NULL)
        return fault(r, E_NOMEM, "%lu bytes of metadata", r->have + step);
    CHECK(to == r->copy + r->have);
    TRY(r->store->read(r->store, HEADER_BYTES + r->have, to, (usize)step));
    r->have += step;
    return OK;
}

static err take(struct reader *r, u64 bytes, const u8 **out)
{
    if (bytes > r->have - r->at)
        TRY(copy_more(r, bytes - (r->have - r->at)));
    *out = r->copy + r->at;
    r->at += bytes;
    return OK;
}

static err take_number(struct reader *r, u32 bytes, u64 *value)
{
    const u8 *ptr;

    TRY(take(r, bytes, &ptr));
    *value = number_at(ptr, bytes);
    return OK;
}

static err take_text(struct reader *r, u64 max, struct str *text)
{
    const u8 *ptr;
    u64 len;

    TRY(take_number(r, 8, &len));
    if (len > max)
        return fault(r, E_LIMIT, "text of %lu bytes, at most %lu", len, max);
    TRY(take(r, len, &ptr));
    *text = (struct str){(const char *)ptr, (usize)len};
    return OK;
}

/* Of a key or tensor, which messages from here on carry. */
static err take_name(struct reader *r, u64 max, struct str *name)
{
    TRY(take_text(r, max, name));
    r->item = *name;
    if (name->len == 0 || !utf8_valid(*name) || str_find_char(*name, 0) < name->len)
        return fault(r, E_FORMAT, "a name that is empty, not UTF-8 or has a NUL in it");
    return OK;
}

/* ---- first pass: structure ---- */

static err read_header(struct reader *r)
{
    u8 bytes[HEADER_BYTES];
    u64 magic, version, tensors, keys;

    if (r->store->bytes < HEADER_BYTES)
        return fault(r, E_FORMAT, "%lu bytes are no model, want %u at least", r->store->bytes,
                     HEADER_BYTES);
    TRY(r->store->read(r->store, 0, bytes, sizeof(bytes)));
    magic = number_at(bytes, 4);
    version = number_at(bytes + 4, 4);
    tensors = number_at(bytes + 8, 8);
    keys = number_at(bytes + 16, 8);
    if (magic != GGUF_MAGIC)
        return fault(r, E_FORMAT, "no GGUF file, it starts with %08lx", magic);
    if (version != 2 && version != 3)
        return fault(r, E_UNSUPPORTED, "GGUF version %lu, want 2 or 3", version);
    if (keys > GGUF_KEYS_MAX || tensors > GGUF_TENSORS_MAX)
        return fault(r, E_LIMIT, "%lu keys and %lu tensors, at most %u and %u", keys, tensors,
                     GGUF_KEYS_MAX, GGUF_TENSORS_MAX);
    if (keys * KEY_BYTES_MIN + tensors * TENSOR_BYTES_MIN > r->store->bytes - HEADER_BYTES)
        return fault(r, E_FORMAT, "%lu keys and %lu tensors in %lu bytes", keys, tensors,
                     r->store->bytes);
    r->key_count = (u32)keys;
    r->tensor_count = (u32)tensors;
    return OK;
}

static bool is_finite(const u8 *bytes, enum gguf_type type)
{
    u64 bits = number_at(bytes, type_bytes[type]);

    if (type == GGUF_F32)
        return (~bits & 0x7f800000u) != 0;
    return type != GGUF_F64 || (~bits & 0x7ff0000000000000ull) != 0;
}

/* The elements behind the key's type: their extent, and what no reader should have to ask. */
static err walk_elements(struct reader *r, struct gguf_key *key)
{
    u64 from = r->at;
    const u8 *bytes;
    struct str text;

    for (u32 i = 0; key->type == GGUF_STRING && i < key->count; i++) {
        TRY(take_text(r, GGUF_STRING_BYTES_MAX, &text));
        if (!key->is_array && !utf8_valid(text))
            return fault(r, E_FORMAT, "text that is not UTF-8");
    }
    TRY(take(r, (u64)key->count * type_bytes[key->type], &bytes));
    for (u32 i = 0; key->type == GGUF_BOOL && i < key->count; i++) {
        if (bytes[i] > 1)
            return fault(r, E_FORMAT, "a bool of %u", bytes[i]);
    }
    if (!key->is_array && !is_finite(bytes, key->type))
        return fault(r, E_FORMAT, "a number that is not finite");
    key->bytes = r->copy + from;
    return OK;
}

static err walk_keys(struct reader *r)
{
    for (u32 i = 0; i < r->key_count; i++) {
        struct gguf_key *key = &r->key[i];
        u64 type, count = 1;

        TRY(take_name(r, GGUF_KEY_BYTES_MAX, &key->name));
        TRY(take_number(r, 4, &type));
        key->is_array = type == GGUF_ARRAY;
        if (key->is_array) {
            TRY(take_number(r, 4, &type));
            TRY(take_number(r, 8, &count));
        }
        if (type >= GGUF_TYPE_COUNT || type == GGUF_ARRAY)
            return fault(r, E_FORMAT, "value type %lu, or an array of arrays", type);
        if (count > GGUF_ARRAY_MAX)
            return fault(r, E_LIMIT, "an array of %lu, at most %u", count, GGUF_ARRAY_MAX);
        key->type = (enum gguf_type)type;
        key->count = (u32)count;
        TRY(walk_elements(r, key));
    }
    return OK;
}

static err walk_dims(struct reader *r, struct gguf_tensor *t)
{
    u64 count;

    TRY(take_number(r, 4, &count));
    if (count == 0 || count > GGUF_DIMS_MAX)
        return fault(r, E_FORMAT, "%lu dimensions, want 1 to %u", count, GGUF_DIMS_MAX);
    t->dim_count = (u32)count;
    t->elements = 1;
    for (u32 i = 0; i < GGUF_DIMS_MAX; i++) {
        t->dim[i] = 1;
        if (i < count)
            TRY(take_number(r, 8, &t->dim[i]));
        if (t->dim[i] == 0)
            return fault(r, E_FORMAT, "dimension %u is 0", i);
        if (t->dim[i] > GGUF_ELEMENTS_MAX / t->elements)
            return fault(r, E_LIMIT, "over %lu elements", (u64)GGUF_ELEMENTS_MAX);
        t->elements *= t->dim[i];
    }
    return OK;
}

static err walk_tensors(struct reader *r)
{
    for (u32 i = 0; i < r->tensor_count; i++) {
        struct gguf_tensor *t = &r->tensor[i];
        u64 type;

        t->part = r->part;
        TRY(take_name(r, GGUF_NAME_BYTES_MAX, &t->name));
        TRY(walk_dims(r, t));
        TRY(take_number(r, 4, &type));
        TRY(take_number(r, 8, &t->offset));
        t->format = quant_format((u32)type);
        if (t->format == NULL)
            return fault(r, E_UNSUPPORTED, "tensor type %lu", type);
        if (t->dim[0] % t->format->elements != 0)
            return fault(r, E_FORMAT, "rows of %lu in blocks of %u", t->dim[0],
                         t->format->elements);
        t->bytes = quant_bytes(t->format, t->elements);
    }
    r->item = STR("");
    return OK;
}

/* ---- second pass: what the entries say about each other ---- */

/* Where each string of an array starts. */
static err index_strings(struct reader *r, struct gguf_key *key)
{
    u32 *at = arena_new(r->arena, u32, key->count);
    u64 offset = 0;

    if (at == NULL)
        return fault(r, E_NOMEM, "an array of %u strings", key->count);
    for (u32 i = 0; i < key->count; i++) {
        at[i] = (u32)offset;
        offset += 8 + number_at(key->bytes + offset, 8);
    }
    key->at = at;
    return OK;
}

static struct str key_name(const void *table, u32 entry)
{
    return ((const struct gguf_key *)table)[entry].name;
}

static err judge_keys(struct reader *r)
{
    r->names = (struct names){.table = r->key, .name = key_name};
    if (names_init(&r->names, r->arena, r->key_count) != OK)
        return fault(r, E_NOMEM, "%u keys", r->key_count);
    for (u32 i = 0; i < r->key_count; i++) {
        r->item = r->key[i].name;
        if (names_put(&r->names, i) != OK)
            return fault(r, E_FORMAT, "this key is there twice");
        if (r->key[i].is_array && r->key[i].type == GGUF_STRING)
            TRY(index_strings(r, &r->key[i]));
    }
    return OK;
}

static bool is_type(const struct gguf_key *key, u32 types)
{
    return types >> key->type & 1;
}

/* The integer of a key of this part, `absent` when there is no such key, -1 when it is no
 * integer. */
static i64 part_number(struct reader *r, struct str name, i64 absent)
{
    u32 entry = names_find(&r->names, name);
    const struct gguf_key *key = &r->key[entry == NAMES_NONE ? 0 : entry];

    r->item = name;
    if (entry == NAMES_NONE)
        return absent;
    return key->is_array || !is_type(key, INTEGERS) ? -1 : gguf_at_int(key, 0);
}

static err judge_split(struct reader *r, u32 tensors_total)
{
    const struct {
        struct str name;
        i64 want;
    } rows[] = {{STR("split.count"), r->gguf->part_count},
                {STR("split.no"), r->part},
                {STR("split.tensors.count"), tensors_total}};

    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        i64 absent = r->gguf->part_count == 1 ? rows[i].want : -1;
        i64 seen = part_number(r, rows[i].name, absent);

        if (seen != rows[i].want)
            return fault(r, E_FORMAT, "%ld, but here it is %ld", seen, rows[i].want);
    }
    return OK;
}

/* Offsets become places in the part. Writers put the data in the order of the table. */
static err place_tensors(struct reader *r)
{
    i64 alignment = part_number(r, STR("general.alignment"), GGUF_ALIGNMENT_DEFAULT);
    u64 step = (u64)alignment, end = 0, data, room;

    if (step < GGUF_ALIGNMENT_MIN || step > GGUF_ALIGNMENT_MAX || (step & (step - 1)) != 0)
        return fault(r, E_FORMAT, "%ld, want a power of two from %u to %u", alignment,
                     GGUF_ALIGNMENT_MIN, GGUF_ALIGNMENT_MAX);
    data = round_up(HEADER_BYTES + r->at, step);
    room = r->store->bytes - min_u64(data, r->store->bytes);
    for (u32 i = 0; i < r->tensor_count; i++) {
        struct gguf_tensor *t = &r->tensor[i];

        r->item = t->name;
        if (t->offset % step != 0 || t->offset < end)
            return fault(r, E_FORMAT, "data at %lu: not aligned, or inside of the tensor before",
                         t->offset);
        if (t->offset > room || t->bytes > room - t->offset)
            return fault(r, E_FORMAT, "%lu bytes at %lu, the file has %lu", t->bytes, t->offset,
                         room);
        end = t->offset + t->bytes;
        t->offset += data;
    }
    return OK;
}

static struct str tensor_name(const void *table, u32 entry)
{
    return ((const struct gguf_tensor *)table)[entry].name;
}

static err judge_tensor_names(struct reader *r, struct gguf *gguf)
{
    gguf->tensor_names = (struct names){.table = gguf->tensor, .name = tensor_name};
    if (names_init(&gguf->tensor_names, r->arena, gguf->tensor_count) != OK)
        return fault(r, E_NOMEM, "%u tensors", gguf->tensor_count);
    for (u32 i = 0; i < gguf->tensor_count; i++) {
        r->item = gguf->tensor[i].name;
        if (names_put(&gguf->tensor_names, i) != OK)
            return fault(r, E_FORMAT, "this tensor is there twice");
    }
    return OK;
}

/* ---- readers of what was judged ---- */

const struct gguf_key *gguf_key(const struct gguf *gguf, const char *name)
{
    u32 entry = names_find(&gguf->key_names, str_of(name));

    return entry == NAMES_NONE ? NULL : &gguf->key[entry];
}

const struct gguf_tensor *gguf_tensor(const struct gguf *gguf, struct str name)
{
    u32 entry = names_find(&gguf->tensor_names, name);

    return entry == NAMES_NONE ? NULL : &gguf->tensor[entry];
}

static err find_value(const struct gguf *gguf, const char *name, u32 types, bool is_array,
                      const struct gguf_key **found)
{
    const struct gguf_key *key = gguf_key(gguf, name);

    if (key == NULL)
        return E_NOTFOUND;
    if (key->is_array != is_array || !is_type(key, types)) {
        log_error("model", "key \"%s\" is of another type (%u) than it must", name, key->type);
        return E_FORMAT;
    }
    *found = key;
    return OK;
}

err gguf_u32(const struct gguf *gguf, const char *name, u32 *value)
{
    const struct gguf_key *key;
    i64 wide;

    TRY(find_value(gguf, name, INTEGERS, false, &key));
    wide = gguf_at_int(key, 0);
    if (wide < 0 || wide > UINT32_MAX) {
        log_error("model", "key \"%s\" is %ld, want 0 to 2^32 - 1", name, wide);
        return E_RANGE;
    }
    *value = (u32)wide;
    return OK;
}

err gguf_f32(const struct gguf *gguf, const char *name, f32 *value)
{
    const struct gguf_key *key;

    TRY(find_value(gguf, name, FLOATS, false, &key));
    *value = (f32)gguf_at_float(key, 0);
    return OK;
}

err gguf_bool(const struct gguf *gguf, const char *name, bool *value)
{
    const struct gguf_key *key;

    TRY(find_value(gguf, name, TYPE(BOOL), false, &key));
    *value = key->bytes[0] != 0;
    return OK;
}

err gguf_str(const struct gguf *gguf, const char *name, struct str *value)
{
    const struct gguf_key *key;

    TRY(find_value(gguf, name, TYPE(STRING), false, &key));
    *value = gguf_at_str(key, 0);
    return OK;
}

err gguf_array(const struct gguf *gguf, const char *name, enum gguf_type type,
               const struct gguf_key **array)
{
    return find_value(gguf, name, 1u << type, true, array);
}

struct str gguf_at_str(const struct gguf_key *array, u32 index)
{
    const u8 *at;

    CHECK(array->type == GGUF_STRING && index < array->count);
    at = array->bytes + (array->at == NULL ? 0 : array->at[index]);
    return (struct str){(const char *)at + 8, (usize)number_at(at, 8)};
}

i64 gguf_at_int(const struct gguf_key *array, u32 index)
{
    u32 bytes = type_bytes[array->type], spare = 64 - 8 * bytes;
    u64 value;

    CHECK(is_type(array, INTEGERS) && index < array->count);
    value = number_at(array->bytes + (u64)index * bytes, bytes);
    if (is_type(array, SIGNED))
        return (i64)(value << spare) >> spare; /* the sign bit to the top and back */
    return (i64)min_u64(value, INT64_MAX);
}

f64 gguf_at_float(const struct gguf_key *array, u32 index)
{
    f32 single;
    f64 value;

    CHECK(is_type(array, FLOATS) && index < array->count);
    if (array->type == GGUF_F64) {
        memcpy(&value, array->bytes + (u64)index * sizeof(value), sizeof(value));
        return value;
    }
    memcpy(&single, array->bytes + (u64)index * sizeof(single), sizeof(single));
    return (f64)single;
}

err gguf_read(const struct gguf *gguf, const struct gguf_tensor *tensor, u64 from, void *out,
              usize bytes)
{
    struct store *store = &gguf->part[tensor->part];

    CHECK(from <= tensor->bytes && bytes <= tensor->bytes - from);
    return store->read(store, tensor->offset + from, out, bytes);
}
