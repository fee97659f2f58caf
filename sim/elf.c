/*
 * elf.c: code objects as files: headers, segments, symbols, relocations, kernel descriptors.
 * Must not trust a byte: every offset and count is checked against the file before use. Knows
 * nothing of how a kernel is started.
 */
#include "sim/elf.h"

#define HEADER_BYTES     64u
#define MACHINE_AMDGPU   224u
#define OSABI_HSA        64u
#define FLAG_MACH        0xffu
#define MACH_GFX1100     0x41u
#define MACH_GFX11       0x54u /* gfx11-generic */
#define SEGMENT_BYTES    56u
#define SYMBOL_BYTES     24u
#define RELOCATION_BYTES 24u
#define DYNAMIC_BYTES    16u
#define DESCRIPTOR_BYTES 64u
#define NOTE_METADATA    32u
#define BUNDLE_MAGIC     STR("__CLANG_OFFLOAD_BUNDLE__")
#define BUNDLE_MAX       64u

enum { PT_LOAD = 1, PT_DYNAMIC = 2, PT_NOTE = 4, PF_EXECUTE = 1, PF_WRITE = 2 };
enum { DT_STRTAB = 5, DT_SYMTAB = 6, DT_RELA = 7, DT_RELASZ = 8, DT_STRSZ = 10, DT_HASH = 4 };
enum { R_NONE, R_ABS32_LO, R_ABS32_HI, R_ABS64, R_ABS32 = 6, R_RELATIVE64 = 13 };

static u64 get(const u8 *at, u32 bytes)
{
    u64 value = 0;

    for (u32 i = 0; i < bytes; i++)
        value |= (u64)at[i] << (8 * i);
    return value;
}

static void put(u8 *at, u64 value, u32 bytes)
{
    for (u32 i = 0; i < bytes; i++)
        at[i] = (u8)(value >> (8 * i));
}

static bool inside(u64 offset, u64 bytes, u64 whole)
{
    return offset <= whole && bytes <= whole - offset;
}

static err bad(const char *what)
{
    log_error("code", "code object: %s", what);
    return E_FORMAT;
}

/* ---- a bundle holds code objects of several chips, and the host's ---- */

static err unbundle(struct code_object *code)
{
    struct str all = {(const char *)code->file, code->bytes};
    u64 at = BUNDLE_MAGIC.len + 8;

    if (!str_starts(all, BUNDLE_MAGIC))
        return OK;
    if (code->bytes < at)
        return bad("bundle ends in its header");
    for (u64 n = min_u64(get(code->file + at - 8, 8), BUNDLE_MAX); n; n--) {
        u64 offset, bytes, name_bytes;

        if (!inside(at, 24, code->bytes))
            return bad("bundle ends in its table");
        offset = get(code->file + at, 8);
        bytes = get(code->file + at + 8, 8);
        name_bytes = get(code->file + at + 16, 8);
        at += 24;
        if (!inside(at, name_bytes, code->bytes) || !inside(offset, bytes, code->bytes))
            return bad("bundle: an entry lies outside of the file");
        if (str_find(str_slice(all, at, at + name_bytes), STR("gfx1100")) < name_bytes) {
            code->file += offset;
            code->bytes = bytes;
            return OK;
        }
        at += name_bytes;
    }
    log_error("code", "bundle: nothing for gfx1100 in it");
    return E_UNSUPPORTED;
}

/* ---- headers ---- */

static err check_header(const struct code_object *code)
{
    const u8 *h = code->file;
    u64 machine;

    if (code->bytes < HEADER_BYTES || get(h, 4) != 0x464c457f || h[4] != 2 || h[5] != 1)
        return bad("want a 64-bit little-endian ELF file");
    if (get(h + 18, 2) != MACHINE_AMDGPU || h[7] != OSABI_HSA || get(h + 16, 2) != 3) {
        log_error("code",
                  "want a linked code object for amdhsa, see machine %llu, OS ABI %u, "
                  "type %llu",
                  (unsigned long long)get(h + 18, 2), h[7], (unsigned long long)get(h + 16, 2));
        return E_UNSUPPORTED;
    }
    machine = get(h + 48, 4) & FLAG_MACH;
    if (machine != MACH_GFX1100 && machine != MACH_GFX11) {
        log_error("code", "made for another chip: want gfx1100 (%02x), see machine %02llx",
                  MACH_GFX1100, (unsigned long long)machine);
        return E_UNSUPPORTED;
    }
    if (h[8] < 2 || h[8] > 4) {
        log_error("code", "code object version %u, want 4 to 6", h[8] + 2u);
        return E_UNSUPPORTED;
    }
    if (get(h + 54, 2) != SEGMENT_BYTES ||
        !inside(get(h + 32, 8), get(h + 56, 2) * SEGMENT_BYTES, code->bytes))
        return bad("program headers lie outside of the file");
    return OK;
}

static err add_segment(struct code_object *code, const u8 *p)
{
    struct code_segment *segment = &code->segment[code->segment_count];
    u64 flags = get(p + 4, 4);

    if (code->segment_count == CODE_SEGMENTS_MAX)
        return bad("too many segments");
    *segment = (struct code_segment){.address = get(p + 16, 8),
                                     .offset = get(p + 8, 8),
                                     .file_bytes = get(p + 32, 8),
                                     .bytes = get(p + 40, 8),
                                     .write = flags & PF_WRITE,
                                     .execute = flags & PF_EXECUTE};
    if (!inside(segment->offset, segment->file_bytes, code->bytes) ||
        segment->file_bytes > segment->bytes)
        return bad("a segment lies outside of the file");
    if (!inside(segment->address, segment->bytes, CODE_IMAGE_MAX)) {
        log_error("code", "image over %llu MiB", (unsigned long long)(CODE_IMAGE_MAX / MIB));
        return E_LIMIT;
    }
    code->span = max_u64(code->span, segment->address + segment->bytes);
    code->segment_count++;
    return OK;
}

/* The AMDGPU note with the metadata. */
static void find_note(struct code_object *code, u64 offset, u64 bytes)
{
    u64 end = offset + bytes;

    while (offset < end && end - offset >= 12) {
        u64 name = get(code->file + offset, 4), text = get(code->file + offset + 4, 4);
        u64 name_room = round_up(name, 4), text_room = round_up(text, 4);

        if (name_room + text > end - offset - 12)
            return;
        if (get(code->file + offset + 8, 4) == NOTE_METADATA)
            code->metadata = (struct str){(const char *)code->file + offset + 12 + name_room, text};
        offset += min_u64(12 + name_room + text_room, end - offset);
    }
}

/* A table that .dynamic points to, as an offset in the file; 0: not there. */
static u64 table_at(const struct code_object *code, u64 address, u64 bytes)
{
    const u8 *at = object_at(code, address, bytes);

    return at ? (u64)(at - code->file) : 0;
}

static err read_dynamic(struct code_object *code, u64 offset, u64 bytes)
{
    u64 value[16] = {}, count = 0;
    const u8 *hash;

    for (u64 at = 0; at + DYNAMIC_BYTES <= bytes; at += DYNAMIC_BYTES) {
        u64 tag = get(code->file + offset + at, 8);

        if (tag < ARRAY_LEN(value))
            value[tag] = get(code->file + offset + at + 8, 8);
    }
    hash = object_at(code, value[DT_HASH], 8);
    count = hash ? get(hash + 4, 4) : 0;
    code->symbols.offset = table_at(code, value[DT_SYMTAB], count * SYMBOL_BYTES);
    code->symbols.count = code->symbols.offset ? count : 0;
    code->strings.ptr =
        (const char *)code->file + table_at(code, value[DT_STRTAB], value[DT_STRSZ]);
    code->strings.len = code->strings.ptr == (const char *)code->file ? 0 : value[DT_STRSZ];
    code->relocations.offset = table_at(code, value[DT_RELA], value[DT_RELASZ]);
    if (value[DT_RELASZ] && !code->relocations.offset)
        return bad("relocations lie outside of the file");
    code->relocations.count = value[DT_RELASZ] / RELOCATION_BYTES;
    return code->symbols.count && code->strings.len ? OK : bad("no dynamic symbols");
}

err object_open(const u8 *file, usize bytes, struct code_object *code)
{
    u64 headers, count, dynamic = 0, dynamic_bytes = 0;

    *code = (struct code_object){.file = file, .bytes = bytes};
    TRY(unbundle(code));
    TRY(check_header(code));
    headers = get(code->file + 32, 8);
    count = get(code->file + 56, 2);
    for (u64 n = 0; n < count; n++) {
        const u8 *p = code->file + headers + n * SEGMENT_BYTES;
        u64 type = get(p, 4), offset = get(p + 8, 8), in_file = get(p + 32, 8);

        if ((type == PT_DYNAMIC || type == PT_NOTE) && !inside(offset, in_file, code->bytes))
            return bad("a segment lies outside of the file");
        if (type == PT_LOAD)
            TRY(add_segment(code, p));
        if (type == PT_NOTE)
            find_note(code, offset, in_file);
        if (type == PT_DYNAMIC) {
            dynamic = offset;
            dynamic_bytes = in_file;
        }
    }
    return read_dynamic(code, dynamic, dynamic_bytes);
}

const u8 *object_at(const struct code_object *code, u64 address, u64 bytes)
{
    for (u32 n = 0; n < code->segment_count; n++) {
        const struct code_segment *segment = &code->segment[n];

        if (address >= segment->address &&
            inside(address - segment->address, bytes, segment->file_bytes))
            return code->file + segment->offset + (address - segment->address);
    }
    return NULL;
}

/* ---- symbols ---- */

struct symbol {
    struct str name;
    u32 type, section;
    u64 address, bytes;
};

static struct symbol symbol_of(const struct code_object *code, u64 n)
{
    const u8 *at = code->file + code->symbols.offset + n * SYMBOL_BYTES;
    struct str name = str_slice(code->strings, get(at, 4), code->strings.len);

    return (struct symbol){.name = str_slice(name, 0, str_find_char(name, 0)),
                           .type = at[4] & 15,
                           .section = (u32)get(at + 6, 2),
                           .address = get(at + 8, 8),
                           .bytes = get(at + 16, 8)};
}

bool object_function(const struct code_object *code, u32 n, struct object_function *function)
{
    for (u64 i = 0; i < code->symbols.count; i++) {
        struct symbol symbol = symbol_of(code, i);

        if (symbol.type != 2 || !object_at(code, symbol.address, symbol.bytes))
            continue;
        if (!n--) {
            *function = (struct object_function){symbol.name, symbol.address, symbol.bytes};
            return true;
        }
    }
    return false;
}

/* ---- the image ---- */

static err relocate(const struct code_object *code, const u8 *entry, u64 base, u8 *image)
{
    u64 offset = get(entry, 8), type = get(entry + 8, 4), symbol = get(entry + 12, 4);
    u64 value = get(entry + 16, 8) + base;
    u32 bytes = type == R_ABS64 || type == R_RELATIVE64 ? 8 : 4;

    if (type == R_NONE)
        return OK;
    if (!inside(offset, bytes, code->span))
        return bad("a relocation lies outside of the image");
    if (type != R_ABS32_LO && type != R_ABS32_HI && type != R_ABS64 && type != R_ABS32 &&
        type != R_RELATIVE64) {
        log_error("code", "relocation type %llu is not supported", (unsigned long long)type);
        return E_UNSUPPORTED;
    }
    if (type != R_RELATIVE64) {
        if (symbol >= code->symbols.count)
            return bad("a relocation names no symbol");
        if (!symbol_of(code, symbol).section) {
            struct str name = symbol_of(code, symbol).name;

            log_error("code", "undefined symbol %.*s", (int)name.len, name.ptr);
            return E_NOTFOUND;
        }
        value += symbol_of(code, symbol).address;
    }
    put(image + offset, type == R_ABS32_HI ? value >> 32 : value, bytes);
    return OK;
}

err object_load(const struct code_object *code, u64 base, u8 *image)
{
    for (u64 i = 0; i < code->span; i++)
        image[i] = 0;
    for (u32 n = 0; n < code->segment_count; n++) {
        const struct code_segment *segment = &code->segment[n];

        for (u64 i = 0; i < segment->file_bytes; i++)
            image[segment->address + i] = code->file[segment->offset + i];
    }
    for (u64 n = 0; n < code->relocations.count; n++)
        TRY(relocate(code, code->file + code->relocations.offset + n * RELOCATION_BYTES, base,
                     image));
    return OK;
}

/* ---- kernels ---- */

static err read_descriptor(const struct code_object *code, u64 address, struct kernel *kernel)
{
    const u8 *at = object_at(code, address, DESCRIPTOR_BYTES);

    if (!at)
        return bad("a kernel descriptor lies outside of the file");
    kernel->descriptor = address;
    kernel->entry = address + get(at + 16, 8);
    kernel->lds_bytes = (u32)get(at, 4);
    kernel->scratch_bytes = (u32)get(at + 4, 4);
    kernel->kernarg_bytes = (u32)get(at + 8, 4);
    kernel->rsrc3 = (u32)get(at + 44, 4);
    kernel->rsrc1 = (u32)get(at + 48, 4);
    kernel->rsrc2 = (u32)get(at + 52, 4);
    kernel->properties = (u32)get(at + 56, 2);
    kernel->wave32 = kernel->properties & KERNEL_WAVE32;
    kernel->dynamic_stack = kernel->properties & KERNEL_DYNAMIC_STACK;
    if (get(at + 58, 2))
        return bad("kernel arguments preloaded into SGPRs: gfx1100 cannot");
    return object_at(code, kernel->entry, 4) ? OK
                                             : bad("a kernel's entry lies outside of the file");
}

err object_kernel(const struct code_object *code, struct str name, struct kernel *kernel)
{
    *kernel = (struct kernel){};
    for (u64 i = 0; i < code->symbols.count; i++) {
        struct symbol symbol = symbol_of(code, i);

        if (symbol.name.len != name.len + 3 || !str_starts(symbol.name, name) ||
            !str_ends(symbol.name, STR(".kd")))
            continue;
        TRY(read_descriptor(code, symbol.address, kernel));
        return metadata_kernel(code->metadata, name, kernel);
    }
    log_error("code", "there is no kernel %.*s", (int)name.len, name.ptr);
    return E_NOTFOUND;
}
