/*
 * metadata.c: a code object's metadata note: MessagePack, of which only kernels' arguments are
 * read. Must not recurse nor trust a length. Follows the MessagePack specification and LLVM's
 * "Code Object V5 Metadata".
 */
#include "sim/elf.h"

struct reader {
    struct str left;
    bool bad;
};

enum value_type { VALUE_OTHER, VALUE_INT, VALUE_TEXT, VALUE_ARRAY, VALUE_MAP };

struct value {
    enum value_type type;
    u64 number; /* INT; ARRAY and MAP: how many entries follow */
    struct str text;
};

static u64 take_number(struct reader *r, u32 bytes)
{
    u64 value = 0;

    if (r->left.len < bytes) {
        r->bad = true;
        r->left.len = 0;
        return 0;
    }
    for (u32 i = 0; i < bytes; i++)
        value = value << 8 | (u8)r->left.ptr[i];
    r->left = str_slice(r->left, bytes, r->left.len);
    return value;
}

static struct str take_text(struct reader *r, u64 bytes)
{
    struct str text = str_slice(r->left, 0, bytes);

    r->bad |= text.len < bytes;
    r->left = str_slice(r->left, text.len, r->left.len);
    return text;
}

/* One token: of a map or an array just the count. */
static struct value take(struct reader *r)
{
    u32 tag = (u32)take_number(r, 1);

    if (tag < 0x80 || tag >= 0xe0)
        return (struct value){.type = VALUE_INT, .number = tag < 0x80 ? tag : tag - 0x100};
    if (tag < 0x90)
        return (struct value){.type = VALUE_MAP, .number = tag & 15};
    if (tag < 0xa0)
        return (struct value){.type = VALUE_ARRAY, .number = tag & 15};
    if (tag < 0xc0)
        return (struct value){.type = VALUE_TEXT, .text = take_text(r, tag & 31)};
    if (tag == 0xc0 || tag == 0xc2 || tag == 0xc3) /* nil, false, true */
        return (struct value){.type = VALUE_INT, .number = tag == 0xc3};
    if (tag >= 0xcc && tag <= 0xd3)
        return (struct value){.type = VALUE_INT, .number = take_number(r, 1u << (tag & 3))};
    if (tag >= 0xd9 && tag <= 0xdb)
        return (struct value){.type = VALUE_TEXT,
                              .text = take_text(r, take_number(r, 1u << (tag - 0xd9)))};
    if (tag == 0xdc || tag == 0xdd)
        return (struct value){.type = VALUE_ARRAY, .number = take_number(r, tag == 0xdc ? 2 : 4)};
    if (tag == 0xde || tag == 0xdf)
        return (struct value){.type = VALUE_MAP, .number = take_number(r, tag == 0xde ? 2 : 4)};
    r->bad = true; /* floats, binary and extensions do not occur */
    return (struct value){};
}

/* Takes one value with all that is in it. */
static struct value take_whole(struct reader *r)
{
    struct value first = take(r), inner = first;
    u64 left = 1;

    while (!r->bad && left) {
        left--;
        if (inner.type == VALUE_ARRAY)
            left += inner.number;
        if (inner.type == VALUE_MAP)
            left += 2 * inner.number;
        if (left)
            inner = take(r);
    }
    return first;
}

/* Begins a map or array; how many entries it has. */
static u64 begin(struct reader *r, enum value_type type)
{
    struct value value = take(r);

    r->bad |= value.type != type;
    return r->bad ? 0 : value.number;
}

/* ---- arguments ---- */

static enum kernel_arg_kind kind_of(struct str name)
{
    static const struct {
        const char *name;
        enum kernel_arg_kind kind;
    } kinds[] = {
        {"by_value", KERNEL_ARG_VALUE},
        {"global_buffer", KERNEL_ARG_BUFFER},
        {"dynamic_shared_pointer", KERNEL_ARG_LDS},
        {"hidden_block_count_x", KERNEL_ARG_COUNT_X},
        {"hidden_block_count_y", KERNEL_ARG_COUNT_Y},
        {"hidden_block_count_z", KERNEL_ARG_COUNT_Z},
        {"hidden_group_size_x", KERNEL_ARG_GROUP_X},
        {"hidden_group_size_y", KERNEL_ARG_GROUP_Y},
        {"hidden_group_size_z", KERNEL_ARG_GROUP_Z},
        {"hidden_remainder_x", KERNEL_ARG_REST_X},
        {"hidden_remainder_y", KERNEL_ARG_REST_Y},
        {"hidden_remainder_z", KERNEL_ARG_REST_Z},
        {"hidden_global_offset_x", KERNEL_ARG_OFFSET_X},
        {"hidden_global_offset_y", KERNEL_ARG_OFFSET_Y},
        {"hidden_global_offset_z", KERNEL_ARG_OFFSET_Z},
        {"hidden_grid_dims", KERNEL_ARG_DIMS},
        {"hidden_dynamic_lds_size", KERNEL_ARG_DYNAMIC_LDS},
        {"hidden_private_base", KERNEL_ARG_PRIVATE_BASE},
        {"hidden_shared_base", KERNEL_ARG_SHARED_BASE},
        {"hidden_queue_ptr", KERNEL_ARG_QUEUE},
    };

    for (u32 n = 0; n < ARRAY_LEN(kinds); n++)
        if (str_eq(name, str_of(kinds[n].name)))
            return kinds[n].kind;
    return str_starts(name, STR("hidden_")) ? KERNEL_ARG_ZERO : KERNEL_ARG_OTHER;
}

static err read_arg(struct reader *r, struct kernel *kernel)
{
    struct kernel_arg arg = {.kind = KERNEL_ARG_OTHER};
    u64 offset = UINT64_MAX, bytes = 0;

    for (u64 n = begin(r, VALUE_MAP); n && !r->bad; n--) {
        struct str key = take(r).text;
        struct value value = take_whole(r);

        if (str_eq(key, STR(".offset")))
            offset = value.number;
        else if (str_eq(key, STR(".size")))
            bytes = value.number;
        else if (str_eq(key, STR(".value_kind")))
            arg.kind = kind_of(value.text);
    }
    if (kernel->arg_count == KERNEL_ARGS_MAX)
        return E_LIMIT;
    if (offset > kernel->kernarg_bytes || bytes > kernel->kernarg_bytes - offset)
        r->bad = true;
    arg.offset = (u32)offset;
    arg.bytes = (u32)bytes;
    kernel->arg[kernel->arg_count++] = arg;
    return OK;
}

/* One entry of amdhsa.kernels; *found when it is the one. */
static err read_kernel(struct reader *r, struct str name, struct kernel *kernel, bool *found)
{
    struct reader args = {};
    struct str own = {};

    for (u64 n = begin(r, VALUE_MAP); n && !r->bad; n--) {
        struct str key = take(r).text;
        struct reader here = *r;
        struct value value = take_whole(r);

        if (str_eq(key, STR(".name")))
            own = value.text;
        else if (str_eq(key, STR(".args")))
            args = here;
    }
    *found = str_eq(own, name);
    if (!*found || !args.left.len)
        return OK;
    for (u64 n = begin(&args, VALUE_ARRAY); n && !args.bad; n--)
        TRY(read_arg(&args, kernel));
    r->bad |= args.bad;
    return OK;
}

err metadata_kernel(struct str metadata, struct str name, struct kernel *kernel)
{
    struct reader r = {.left = metadata};
    bool found = false;

    for (u64 n = begin(&r, VALUE_MAP); n && !r.bad && !found; n--) {
        struct str key = take(&r).text;

        if (!str_eq(key, STR("amdhsa.kernels"))) {
            (void)take_whole(&r);
            continue;
        }
        for (u64 k = begin(&r, VALUE_ARRAY); k && !r.bad && !found; k--)
            TRY(read_kernel(&r, name, kernel, &found));
    }
    if (r.bad) {
        log_error("code", "code object: malformed metadata");
        return E_FORMAT;
    }
    if (!found)
        log_error("code", "the metadata has no kernel %.*s", (int)name.len, name.ptr);
    return found ? OK : E_NOTFOUND;
}
