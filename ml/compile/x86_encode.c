/*
 * x86_encode.c: one machine instruction over physical registers to bytes. Follows the Intel SDM
 * volume 2, chapter 2: REX, VEX, EVEX, disp8*N. The tables of rows and forms are made here.
 */
#include "ml/compile/x86.h"

/* ---- tables ---- */

enum { L = ENC_L, V = ENC_V, E = ENC_E, VE = ENC_VE, VD = ENC_VD };
enum { F = MEM_F, B = MEM_B, H = MEM_H, Q = MEM_Q };

const struct x86_row x86_rows[] = {
#define X86(id, name, form, enc, map, pp, w, op, ext, mem, traits)                                 \
    [X_##id] = {name, FORM_##form, enc, map, pp, w, op, ext, mem, traits},
#include "ml/compile/x86.def"
#undef X86
};

const struct x86_form x86_forms[] = {
#define X86_FORM_ROW(name, reg, vvvv, rm, is4, tied, text) {reg, vvvv, rm, is4, tied, text},
    X86_FORMS(X86_FORM_ROW)
#undef X86_FORM_ROW
};

struct minstr x86_blank(u16 row, u8 size)
{
    return (struct minstr){.row = row,
                           .size = size,
                           .tied = x86_forms[x86_rows[row].form].tied,
                           .op = {LIR_NONE, LIR_NONE, LIR_NONE, LIR_NONE},
                           .mem = {.base = LIR_NONE, .index = LIR_NONE, .scale = 1}};
}

/* ---- fields ---- */

struct bytes {
    u8 *at;
    u32 len;
};

static void put8(struct bytes *out, u32 byte)
{
    out->at[out->len++] = (u8)byte;
}

static void put_le(struct bytes *out, u64 value, u32 count)
{
    for (u32 i = 0; i < count; i++)
        put8(out, (u8)(value >> 8 * i));
}

u32 x86_rm_bytes(const struct minstr *instr)
{
    u32 vector = 16u << instr->size;

    switch (x86_rows[instr->row].memory) {
    case MEM_F:
        return vector;
    case MEM_B:
        return instr->flags & MI_BROADCAST ? 4 : vector;
    case MEM_H:
        return vector / 2;
    case MEM_Q:
        return vector / 4;
    default:
        return x86_rows[instr->row].memory;
    }
}

bool x86_needs_evex(const struct minstr *instr, bool evex)
{
    const struct x86_row *row = &x86_rows[instr->row];
    bool high = instr->size == 2 || instr->flags & (MI_BROADCAST | MI_MASKED);

    if (!evex || !(row->encodings & ENC_E))
        return false;
    for (u32 i = 0; i < ARRAY_LEN(instr->op); i++)
        high |= instr->op[i] != LIR_NONE && instr->op[i] >= 16;
    return high || !(row->encodings & ENC_V);
}

/* Numbers of the fields, 0 where there is none; of memory, base and index. */
struct fields {
    u32 reg, vvvv, rm, index;
    bool memory, has_index;
};

static u32 operand(const struct minstr *instr, i32 k)
{
    return k < 0 || instr->op[k] == LIR_NONE ? 0 : instr->op[k];
}

static struct fields fields_of(const struct minstr *instr)
{
    const struct x86_row *row = &x86_rows[instr->row];
    const struct x86_form *form = &x86_forms[row->form];
    struct fields fields = {.reg = form->reg < 0 ? row->extension : operand(instr, form->reg),
                            .vvvv = operand(instr, form->vvvv),
                            .rm = operand(instr, form->rm)};

    if (instr->flags & MI_MEMORY) {
        fields.memory = true;
        fields.rm = instr->mem.base;
        fields.has_index = instr->mem.index != LIR_NONE;
        fields.index = fields.has_index ? instr->mem.index : 0;
    }
    return fields;
}

/* ModRM, SIB, displacement. disp8 counts in units of `unit` bytes (EVEX), else in bytes. */
static void put_modrm(struct bytes *out, const struct minstr *instr, const struct fields *f,
                      u32 unit)
{
    u32 reg = (f->reg & 7) << 3, base = f->rm & 7,
        scale = (u32)__builtin_ctz(instr->mem.scale | 8u);
    i32 disp = instr->mem.disp, narrow = disp / (i32)unit;
    bool short_disp = disp % (i32)unit == 0 && narrow >= INT8_MIN && narrow <= INT8_MAX;
    u32 mod = disp == 0 && base != RBP ? 0 : short_disp ? 1 : 2;

    if (!f->memory) {
        put8(out, 3u << 6 | reg | base);
        return;
    }
    put8(out, mod << 6 | reg | (f->has_index || base == RSP ? RSP : base));
    if (f->has_index)
        put8(out, scale << 6 | (f->index & 7) << 3 | base);
    else if (base == RSP)
        put8(out, RSP << 3 | base);
    if (mod == 1)
        put8(out, (u8)narrow);
    if (mod == 2)
        put_le(out, (u32)disp, 4);
}

static void put_vex(struct bytes *out, const struct minstr *instr, const struct fields *f)
{
    const struct x86_row *row = &x86_rows[instr->row];
    u32 r = ~f->reg >> 3 & 1, x = ~f->index >> 3 & 1, b = ~f->rm >> 3 & 1;
    u32 tail = (~f->vvvv & 15) << 3 | (u32)(instr->size == 1) << 2 | row->prefix;

    if (x && b && !row->w && row->map == 1) {
        put8(out, 0xc5);
        put8(out, r << 7 | tail);
    } else {
        put8(out, 0xc4);
        put8(out, r << 7 | x << 6 | b << 5 | row->map);
        put8(out, (u32)row->w << 7 | tail);
    }
    put8(out, row->opcode);
}

static void put_evex(struct bytes *out, const struct minstr *instr, const struct fields *f)
{
    const struct x86_row *row = &x86_rows[instr->row];
    bool vector_index = instr->flags & MI_INDEX_VECTOR;
    u32 x = f->memory ? f->index >> 3 : f->rm >> 4;
    u32 high = vector_index ? f->index >> 4 : f->vvvv >> 4;

    put8(out, 0x62);
    put8(out, (~f->reg >> 3 & 1) << 7 | (~x & 1) << 6 | (~f->rm >> 3 & 1) << 5 |
                  (~f->reg >> 4 & 1) << 4 | row->map);
    put8(out, (u32)row->w << 7 | (~f->vvvv & 15) << 3 | 4 | row->prefix);
    put8(out, (u32)instr->size << 5 | (u32) !!(instr->flags & MI_BROADCAST) << 4 |
                  (~high & 1) << 3 | (instr->flags & MI_MASKED ? X86_MASK : 0));
    put8(out, row->opcode);
}

static void put_legacy(struct bytes *out, const struct minstr *instr, const struct fields *f,
                       u32 opcode)
{
    const struct x86_row *row = &x86_rows[instr->row];
    u32 rex =
        (u32)row->w << 3 | (f->reg >> 3 & 1) << 2 | (f->index >> 3 & 1) << 1 | (f->rm >> 3 & 1);

    if (rex)
        put8(out, 0x40 | rex);
    if (row->map == 1)
        put8(out, 0x0f);
    put8(out, opcode);
}

static bool is_i8(i64 imm)
{
    return imm >= INT8_MIN && imm <= INT8_MAX;
}

static bool has_immediate(const struct x86_form *form)
{
    usize len = strlen(form->text);

    return len && form->text[len - 1] == 'i';
}

/* The forms of general registers. An immediate of 32 bits has an opcode of its own when it fits 8,
 * as a shift by 1 has. */
static void encode_legacy(struct bytes *out, const struct minstr *instr, const struct fields *f)
{
    const struct x86_row *row = &x86_rows[instr->row];
    bool i8_opcode = (row->opcode == 0x81 || row->opcode == 0x69) && is_i8(instr->imm);
    bool by_one = row->opcode == 0xc1 && instr->imm == 1;
    u32 opcode = row->opcode | (i8_opcode ? 2u : 0) | (by_one ? 0x10u : 0);
    u32 imm_bytes = row->traits & T_I ? !by_one : i8_opcode ? 1 : 4;

    CHECK(row->form == FORM_OI || (instr->imm >= INT32_MIN && instr->imm <= INT32_MAX));

    switch (row->form) {
    case FORM_Z:
        put8(out, row->opcode);
        break;
    case FORM_J:
        if (is_i8(instr->imm - 2)) {
            put8(out, row->opcode);
            put8(out, (u8)(instr->imm - 2));
        } else {
            put8(out, 0x0f);
            put8(out, row->opcode + 0x10u);
            put_le(out, (u64)instr->imm - 6, 4);
        }
        break;
    case FORM_O:
        put_legacy(out, instr, f, row->opcode | (f->rm & 7));
        break;
    case FORM_OI:
        put_legacy(out, instr, f, row->opcode | (f->rm & 7));
        put_le(out, (u64)instr->imm, row->w ? 8 : 4);
        break;
    default:
        put_legacy(out, instr, f, opcode);
        put_modrm(out, instr, f, 1);
        if (has_immediate(&x86_forms[row->form]) || row->traits & T_I)
            put_le(out, (u64)instr->imm, imm_bytes);
    }
}

u32 x86_encode(const struct minstr *instr, bool evex, u8 out[X86_BYTES_MAX])
{
    const struct x86_row *row = &x86_rows[instr->row];
    const struct x86_form *form = &x86_forms[row->form];
    struct bytes bytes = {.at = out};
    struct fields fields = fields_of(instr);
    bool is_evex = x86_needs_evex(instr, evex);

    if (row->encodings & ENC_L) {
        encode_legacy(&bytes, instr, &fields);
        return bytes.len;
    }
    if (is_evex)
        put_evex(&bytes, instr, &fields);
    else
        put_vex(&bytes, instr, &fields);
    if (row->form != FORM_Z)
        put_modrm(&bytes, instr, &fields, is_evex ? x86_rm_bytes(instr) : 1);
    if (form->is4 >= 0)
        put8(&bytes, operand(instr, form->is4) << 4);
    if (row->traits & T_I)
        put8(&bytes, (u8)instr->imm);
    return bytes.len;
}
