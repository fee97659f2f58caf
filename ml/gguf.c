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
#define KEY_BYTES_MIN          13u /* empty name, type, one byte */
#define TENSOR_BYTES_MIN       32u /* empty name, one dim, type, offset */
#define READ_BYTES             (256 * KIB)
#define SHOWN_MAX              64u  /* bytes of a name in a message */
#define PROBES_MAX             512u /* a table that is half full needs some dozens at worst */

#define TYPE(name) (1u << GGUF_##name)
#define FLOATS     (TYPE(F32) | TYPE(F64))
#define SIGNED     (TYPE(I8) | TYPE(I16) | TYPE(I32) | TYPE(I64))
#define INTEGERS   (SIGNED | TYPE(U8) | TYPE(U16) | TYPE(U32) | TYPE(U64) | TYPE(BOOL))

static const u8 type_bytes[GGUF_TYPE_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* What a part starts with. */
struct header {
    u32 magic, version;
    u64 tensors, keys;
};
_Static_assert(sizeof(struct header) == 24, "as in the file");

/* One part while it is judged. */
struct reader {
    struct gguf *gguf; /* with this part's keys */
    struct arena *arena;
    struct text *reason;
    struct store *store;
    u32 part;
    struct str item; /* the key or tensor that is looked at */
    char *copy;      /* of the store's bytes behind the header, growing at the arena's end */
    u64 have, at;
};

err gguf_refuse(struct text *reason, err why, const char *format, ...)
{
    va_list args;

    reason->len = 0;
    va_start(args, format);
    text_vfmt(reason, format, args);
    va_end(args);
    if (why != E_NOMEM) /* the caller may have more memory, and try again */
        log_error("model", "%.*s (%s)", (int)reason->len, reason->ptr, err_text(why));
    return why;
}

/* The same, about the reader's item. */
#define FAULT(r, why, format, ...)                                                                 \
    gguf_refuse((r)->reason, why, "model part %u, \"%.*s\": " format, (r)->part,                   \
                (int)min_u64((r)->item.len, SHOWN_MAX), (r)->item.ptr __VA_OPT__(, ) __VA_ARGS__)

/* ---- values of what was judged ---- */

static u64 number_at(const char *at, u32 bytes)
{
    u64 value = 0;

    memcpy(&value, at, bytes);
    return value;
}

static bool is_type(const struct gguf_key *key, u32 types)
{
    return types >> key->type & 1;
}

f64 gguf_number(const struct gguf_key *key, u32 index)
{
    u32 bytes = type_bytes[key->type], spare = 64 - 8 * bytes;
    union {
        u64 bits;
        f32 single;
        f64 wide;
    } value;

    CHECK(is_type(key, INTEGERS | FLOATS) && index < key->count);
    value.bits = number_at(key->data.ptr + (usize)index * bytes, bytes);
    if (is_type(key, FLOATS))
        return key->type == GGUF_F32 ? (f64)value.single : value.wide;
    if (is_type(key, SIGNED)) /* the sign bit to the top and back */
        return (f64)((i64)(value.bits << spare) >> spare);
    return (f64)value.bits;
}

struct str gguf_cut_str(struct str *rest)
{
    struct str text = str_slice(*rest, 8, 8 + (usize)number_at(rest->ptr, 8));

    *rest = str_slice(*rest, 8 + text.len, rest->len);
    return text;
}

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
    const struct gguf_key *key = *found = gguf_key(gguf, name);

    if (key == NULL)
        return E_NOTFOUND;
    return key->is_array == is_array && is_type(key, types) ? OK : E_FORMAT;
}

err gguf_u32(const struct gguf *gguf, const char *name, u32 *value)
{
    const struct gguf_key *key;

    TRY(find_value(gguf, name, INTEGERS, false, &key));
    if (gguf_number(key, 0) < 0 || gguf_number(key, 0) > UINT32_MAX)
        return E_RANGE;
    *value = (u32)gguf_number(key, 0);
    return OK;
}

err gguf_f32(const struct gguf *gguf, const char *name, f32 *value)
{
    const struct gguf_key *key;

    TRY(find_value(gguf, name, FLOATS, false, &key));
    *value = (f32)gguf_number(key, 0);
    return OK;
}

err gguf_str(const struct gguf *gguf, const char *name, struct str *value)
{
    const struct gguf_key *key;

    TRY(find_value(gguf, name, TYPE(STRING), false, &key));
    *value = str_slice(key->data, 8, key->data.len);
    return OK;
}

err gguf_array(const struct gguf *gguf, const char *name, enum gguf_type type,
               const struct gguf_key **array)
{
    return find_value(gguf, name, 1u << type, true, array);
}

err gguf_read(const struct gguf *gguf, const struct gguf_tensor *tensor, u64 from, void *out,
              usize bytes)
{
    struct store *store = &gguf->part[tensor->part];

    CHECK(from <= tensor->bytes && bytes <= tensor->bytes - from);
    return store->read(store, tensor->offset + from, out, bytes);
}

/* ---- bytes: nothing is looked at before it is known to be there ---- */

static err copy_more(struct reader *r, u64 bytes)
{
    u64 left = r->store->bytes - sizeof(struct header) - r->have;
    u64 step = min_u64(max_u64(bytes, READ_BYTES), left);
    u8 *to;

    if (bytes > left)
        return FAULT(r, E_FORMAT, "the file ends here, after %lu bytes", r->store->bytes);
    if (r->have + bytes > GGUF_META_BYTES_MAX)
        return FAULT(r, E_LIMIT, "over %lu bytes of metadata", GGUF_META_BYTES_MAX);
    to = arena_alloc(r->arena, (usize)step, 1);
    if (to == NULL)
        return FAULT(r, E_NOMEM, "%lu bytes of metadata", r->have + step);
    TRY(r->store->read(r->store, sizeof(struct header) + r->have, to, (usize)step));
    r->have += step;
    return OK;
}

static err take(struct reader *r, u64 bytes, struct str *out)
{
    if (bytes > r->have - r->at)
        TRY(copy_more(r, bytes - (r->have - r->at)));
    *out = (struct str){r->copy + r->at, (usize)bytes};
    r->at += bytes;
    return OK;
}

static err take_number(struct reader *r, u32 bytes, u64 *value)
{
    struct str data;

    TRY(take(r, bytes, &data));
    *value = number_at(data.ptr, bytes);
    return OK;
}

static err take_text(struct reader *r, u64 max, struct str *text)
{
    u64 len;

    TRY(take_number(r, 8, &len));
    if (len > max)
        return FAULT(r, E_LIMIT, "text of %lu bytes, at most %lu", len, max);
    return take(r, len, text);
}

/* Of a key or tensor, which messages from here on carry. */
static err take_name(struct reader *r, struct str *name)
{
    TRY(take_text(r, GGUF_NAME_BYTES_MAX, name));
    r->item = *name;
    if (name->len == 0 || !utf8_valid(*name) || str_find_char(*name, 0) < name->len)
        return FAULT(r, E_FORMAT, "a name that is empty, not UTF-8 or has a NUL in it");
    return OK;
}

/* ---- first pass: structure ---- */

static err read_header(struct reader *r, struct header *h)
{
    u64 bytes = r->store->bytes;

    if (bytes < sizeof(*h))
        return FAULT(r, E_FORMAT, "%lu bytes are no model", bytes);
    TRY(r->store->read(r->store, 0, h, sizeof(*h)));
    if (h->magic != GGUF_MAGIC)
        return FAULT(r, E_FORMAT, "no GGUF file, it starts with %08x", h->magic);
    if (h->version != 2 && h->version != 3)
        return FAULT(r, E_UNSUPPORTED, "GGUF version %u, want 2 or 3", h->version);
    if (h->keys > GGUF_KEYS_MAX || h->tensors > GGUF_TENSORS_MAX)
        return FAULT(r, E_LIMIT, "%lu keys and %lu tensors", h->keys, h->tensors);
    if (h->keys * KEY_BYTES_MIN + h->tensors * TENSOR_BYTES_MIN > bytes - sizeof(*h))
        return FAULT(r, E_FORMAT, "%lu keys, %lu tensors in %lu bytes", h->keys, h->tensors, bytes);
    return OK;
}

/* The elements behind the key's type: their extent, and what no reader should have to ask. */
static err walk_elements(struct reader *r, struct gguf_key *key)
{
    u64 from = r->at;
    struct str data;

    for (u32 i = 0; key->type == GGUF_STRING && i < key->count; i++) {
        TRY(take_text(r, GGUF_STRING_BYTES_MAX, &data));
        if (!key->is_array && !utf8_valid(data))
            return FAULT(r, E_FORMAT, "text that is not UTF-8");
    }
    TRY(take(r, (u64)key->count * type_bytes[key->type], &data));
    key->data = (struct str){r->copy + from, (usize)(r->at - from)};
    for (u32 i = 0; key->type == GGUF_BOOL && i < key->count; i++) {
        if ((u8)data.ptr[i] > 1)
            return FAULT(r, E_FORMAT, "a bool that is not 0 or 1");
    }
    if (!key->is_array && is_type(key, FLOATS) && gguf_number(key, 0) - gguf_number(key, 0) != 0)
        return FAULT(r, E_FORMAT, "a number that is not finite");
    return OK;
}

static err walk_key(struct reader *r, struct gguf_key *key)
{
    u64 type, count = 1;

    TRY(take_name(r, &key->name));
    TRY(take_number(r, 4, &type));
    key->is_array = type == GGUF_ARRAY;
    if (key->is_array) {
        TRY(take_number(r, 4, &type));
        TRY(take_number(r, 8, &count));
    }
    if (type >= GGUF_TYPE_COUNT || type == GGUF_ARRAY)
        return FAULT(r, E_FORMAT, "value type %lu, or an array of arrays", type);
    if (count > GGUF_ARRAY_MAX)
        return FAULT(r, E_LIMIT, "an array of %lu, at most %u", count, GGUF_ARRAY_MAX);
    key->type = (enum gguf_type)type;
    key->count = (u32)count;
    return walk_elements(r, key);
}

static err walk_tensor(struct reader *r, struct gguf_tensor *t)
{
    u64 dims, type;

    TRY(take_name(r, &t->name));
    TRY(take_number(r, 4, &dims));
    if (dims == 0 || dims > GGUF_DIMS_MAX)
        return FAULT(r, E_FORMAT, "%lu dimensions, want 1 to %u", dims, GGUF_DIMS_MAX);
    *t = (struct gguf_tensor){t->name, NULL, (u32)dims, {1, 1, 1, 1}, 1, 0, r->part, 0};
    for (u32 i = 0; i < dims; i++) {
        TRY(take_number(r, 8, &t->dim[i]));
        if (t->dim[i] == 0)
            return FAULT(r, E_FORMAT, "dimension %u is 0", i);
        if (t->dim[i] > GGUF_ELEMENTS_MAX / t->elements)
            return FAULT(r, E_LIMIT, "over %llu elements", GGUF_ELEMENTS_MAX);
        t->elements *= t->dim[i];
    }
    TRY(take_number(r, 4, &type));
    TRY(take_number(r, 8, &t->offset));
    t->format = quant_format((u32)type);
    if (t->format == NULL)
        return FAULT(r, E_UNSUPPORTED, "tensor type %lu", type);
    if (t->dim[0] % t->format->elements != 0)
        return FAULT(r, E_FORMAT, "rows of %lu in blocks of %u", t->dim[0], t->format->elements);
    t->bytes = quant_bytes(t->format, t->elements);
    return OK;
}

/* ---- second pass: what the entries say about each other ---- */

static struct str key_name(const void *table, u32 entry)
{
    return ((const struct gguf_key *)table)[entry].name;
}

static struct str tensor_name(const void *table, u32 entry)
{
    return ((const struct gguf_tensor *)table)[entry].name;
}

static err index_names(struct reader *r, struct names *names, u32 count)
{
    if (names_init(names, r->arena, count) != OK)
        return FAULT(r, E_NOMEM, "%u names", count);
    for (u32 i = 0; i < count; i++) {
        r->item = names->name(names->table, i);
        if (names_put(names, i) != OK)
            return FAULT(r, E_FORMAT, "this name is there twice");
    }
    return OK;
}

/* A number of this part; *value is what holds when it does not say. */
static err part_number(struct reader *r, const char *name, u32 *value)
{
    err e = gguf_u32(r->gguf, name, value);

    r->item = str_of(name);
    return e == OK || e == E_NOTFOUND ? OK : FAULT(r, E_FORMAT, "no number of 32 bits");
}

static err judge_split(struct reader *r, const char *name, u32 want)
{
    u32 seen = r->gguf->part_count == 1 ? want : UINT32_MAX; /* one part need not say so */

    TRY(part_number(r, name, &seen));
    return seen == want ? OK : FAULT(r, E_FORMAT, "%u, but here it is %u", seen, want);
}

/* Offsets become places in the part. Writers put the data in the order of the table. */
static err place_tensors(struct reader *r, struct gguf_tensor *tensor, u64 count)
{
    u32 step = GGUF_ALIGNMENT_DEFAULT;
    u64 end = 0, data, room;

    TRY(part_number(r, "general.alignment", &step));
    if (step < GGUF_ALIGNMENT_MIN || step > GGUF_ALIGNMENT_MAX || (step & (step - 1)) != 0)
        return FAULT(r, E_FORMAT, "%u, want a power of two from %u to %u", step, GGUF_ALIGNMENT_MIN,
                     GGUF_ALIGNMENT_MAX);
    data = round_up(sizeof(struct header) + r->at, step);
    room = r->store->bytes - min_u64(data, r->store->bytes);
    for (struct gguf_tensor *t = tensor; t < tensor + count; t++) {
        r->item = t->name;
        if (t->offset % step != 0 || t->offset < end)
            return FAULT(r, E_FORMAT, "at %lu: not aligned, or in another tensor", t->offset);
        if (t->offset > room || t->bytes > room - t->offset)
            return FAULT(r, E_FORMAT, "%lu at %lu of %lu bytes", t->bytes, t->offset, room);
        end = t->offset + t->bytes;
        t->offset += data;
    }
    return OK;
}

static err judge_part(struct reader *r, const struct header *h, struct gguf_tensor *tensor)
{
    struct gguf *g = r->gguf;
    usize mark;

    g->key_count = (u32)h->keys;
    g->key = arena_new(r->arena, struct gguf_key, g->key_count);
    g->key_names = (struct names){.table = g->key, .name = key_name};
    if (g->key == NULL)
        return FAULT(r, E_NOMEM, "%u keys", g->key_count);
    mark = arena_mark(r->arena);
    r->copy = (char *)r->arena->base + mark;
    r->have = r->at = 0;
    for (u32 i = 0; i < g->key_count; i++)
        TRY(walk_key(r, &g->key[i]));
    for (u32 i = 0; i < h->tensors; i++)
        TRY(walk_tensor(r, &tensor[i]));
    arena_reset(r->arena, mark + (usize)r->at);
    TRY(index_names(r, &g->key_names, g->key_count));
    TRY(judge_split(r, "split.count", g->part_count));
    TRY(judge_split(r, "split.no", r->part));
    TRY(judge_split(r, "split.tensors.count", g->tensor_count));
    return place_tensors(r, tensor, h->tensors);
}

err gguf_open(struct gguf *gguf, struct store *part, u32 part_count, struct arena *arena,
              struct text *reason)
{
    struct reader r = {.gguf = gguf, .arena = arena, .reason = reason, .item = STR("header")};
    struct header header[ML_PARTS_MAX];
    u64 total = 0;

    CHECK(part_count > 0 && part_count <= ML_PARTS_MAX);
    *gguf = (struct gguf){.part = part, .part_count = part_count};
    for (u32 i = 0; i < part_count; i++) {
        r.part = i;
        r.store = &part[i];
        TRY(read_header(&r, &header[i]));
        total += header[i].tensors;
    }
    if (total > GGUF_TENSORS_MAX)
        return FAULT(&r, E_LIMIT, "%lu tensors, at most %u", total, GGUF_TENSORS_MAX);
    gguf->tensor_count = (u32)total;
    gguf->tensor = arena_new(arena, struct gguf_tensor, total);
    gguf->tensor_names = (struct names){.table = gguf->tensor, .name = tensor_name};
    if (gguf->tensor == NULL)
        return FAULT(&r, E_NOMEM, "%lu tensors", total);
    for (u32 i = part_count; i-- > 0;) { /* backwards: the first part's keys are what stays */
        r.part = i;
        r.store = &part[i];
        total -= header[i].tensors;
        TRY(judge_part(&r, &header[i], gguf->tensor + total));
    }
    return index_names(&r, &gguf->tensor_names, gguf->tensor_count);
}

/* ---- names: of keys, tensors, the vocabulary and its merges ---- */

err names_init(struct names *names, struct arena *arena, u32 count)
{
    u32 slots = 2;

    while (slots / 2 < count)
        slots *= 2;
    names->slot = arena_new(arena, u32, slots);
    names->mask = slots - 1;
    return names->slot == NULL ? E_NOMEM : OK;
}

/* The slot that holds the name, or the free one where it would go; NULL: too many probes. */
static u32 *slot_of(const struct names *names, struct str name)
{
    u64 hash = 0xcbf29ce484222325ull; /* FNV-1a, then its high half folded in */

    for (usize i = 0; i < name.len; i++)
        hash = (hash ^ (u8)name.ptr[i]) * 0x100000001b3ull;
    hash ^= hash >> 32;
    for (u32 probe = 0; probe < PROBES_MAX; probe++) {
        u32 *slot = &names->slot[(hash + probe) & names->mask];

        if (*slot == 0 || str_eq(names->name(names->table, *slot - 1), name))
            return slot;
    }
    return NULL;
}

err names_put(struct names *names, u32 entry)
{
    u32 *slot = slot_of(names, names->name(names->table, entry));

    if (slot == NULL || *slot != 0)
        return slot == NULL ? E_LIMIT : E_STATE;
    *slot = entry + 1;
    return OK;
}

u32 names_find(const struct names *names, struct str name)
{
    u32 *slot = names->slot == NULL ? NULL : slot_of(names, name); /* of zeroes: empty */

    return slot == NULL ? NAMES_NONE : *slot - 1; /* a free slot gives NAMES_NONE too */
}
