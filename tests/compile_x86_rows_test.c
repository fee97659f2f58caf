/*
 * compile_x86_rows_test.c: every row of x86.def in many operand variants, and whole kernels with
 * their listing, judged by llvm-mc (tests/witness/x86_llvm_mc.py). Skipped where there is no
 * llvm-mc.
 */
#include <stdio.h>

#include "tests/compile_lir_random.h"
#include "tests/llvm_mc.h"
#include "tests/oracle/listing.h"
#include "tests/test.h"

#define VARIANTS 48u

static const struct x86_row *row_of(const struct minstr *instr)
{
    return &x86_rows[instr->row];
}

static bool has_form(const struct minstr *instr, u32 form)
{
    return row_of(instr)->form == form;
}

/* ---- variants ---- */

/* The sizes that an instruction exists in: a bit for 128, 256, 512. */
static u32 sizes_of(const struct x86_row *row, u16 id)
{
    u32 sizes = row->encodings & ENC_E ? 7 : 3;

    switch (id) {
    case X_VMOVSS:
    case X_VMOVSS_ST:
    case X_VMOVD:
    case X_VMOVD_ST:
    case X_VMOVQ:
    case X_VMOVQ_ST:
    case X_VPINSRQ:
    case X_VPEXTRB_ST:
    case X_VPEXTRW_ST:
    case X_VZEROUPPER:
        return 1;
    case X_VPERMQ:
    case X_VPERM2F128:
    case X_KXNORW:
        return 2;
    case X_VSHUFF32X4:
        return 6;
    default:
        return row->encodings & ENC_L ? 1 : sizes;
    }
}

static u8 pick_size(u32 sizes)
{
    u8 size;

    do
        size = (u8)test_random_below(3);
    while (!(sizes >> size & 1));
    return size;
}

static i32 pick_disp(u32 unit)
{
    const i32 near[] = {0,
                        1,
                        127,
                        128,
                        -128,
                        -129,
                        4096,
                        (i32)unit,
                        127 * (i32)unit,
                        128 * (i32)unit,
                        -128 * (i32)unit,
                        -129 * (i32)unit,
                        INT32_MAX,
                        INT32_MIN};

    return near[test_random_below(ARRAY_LEN(near))];
}

static void pick_memory(struct minstr *instr, bool high)
{
    bool vector = has_form(instr, FORM_GATHER) || instr->row == X_VGATHERDPS_K;

    instr->flags |= MI_MEMORY;
    instr->mem.base = (u16)test_random_below(16);
    instr->mem.scale = (u8)(1u << test_random_below(4));
    if (vector) {
        instr->flags |= MI_INDEX_VECTOR;
        instr->mem.index = (u16)((instr->op[0] + 1 + test_random_below(3)) % (high ? 32 : 16));
    } else if (test_random_below(2)) {
        do
            instr->mem.index = (u16)test_random_below(16);
        while (instr->mem.index == RSP);
    }
    if (row_of(instr)->memory == MEM_B && row_of(instr)->encodings & ENC_E && high &&
        !test_random_below(3))
        instr->flags |= MI_BROADCAST;
    instr->mem.disp = pick_disp(x86_rm_bytes(instr));
}

static i64 pick_imm(const struct x86_row *row)
{
    const i64 values[] = {0, 1, 2, 127, -1, -128, 128, -129, 0x12345, INT32_MAX, INT32_MIN};
    i64 imm = values[test_random_below(ARRAY_LEN(values))];

    if (row->form == FORM_OI && !row->w)
        return (u32)imm;
    if (row->form == FORM_OI)
        return (i64)test_random() | 1ll << 62;
    if (row->encodings & ENC_L && row->traits & T_I)
        return 1 + test_random_below(63);
    return row->traits & T_I ? imm & 0xff & (row->form == FORM_VMI ? 31 : 255) : imm;
}

static u16 pick_operand(const struct x86_row *row, const struct x86_form *form, i32 k, bool high)
{
    bool mask = (row->traits & T_K && form->reg == k) ||
                (row->traits & T_M && (form->rm == k || form->vvvv == k));
    bool general = row->encodings & ENC_L || (row->traits & T_G && form->rm == k);

    return (u16)test_random_below(mask ? 8 : general || !high ? 16 : 32);
}

/* The operand fields that no form uses stay absent. */
static struct minstr variant(u16 id, bool high)
{
    const struct x86_row *row = &x86_rows[id];
    const struct x86_form *form = &x86_forms[row->form];
    struct minstr instr = {.row = id,
                           .size = pick_size(high ? sizes_of(row, id) : sizes_of(row, id) & 3),
                           .op = {LIR_NONE, LIR_NONE, LIR_NONE, LIR_NONE},
                           .mem = {LIR_NONE, LIR_NONE, 1, 0, LIR_GLOBAL, false}};

    for (i32 k = 0; k < 4; k++)
        if (form->reg == k || form->vvvv == k || form->rm == k || form->is4 == k)
            instr.op[k] = pick_operand(row, form, k, high);
    instr.imm = pick_imm(row);
    if (row->traits & T_O || (form->rm >= 0 && !(row->traits & T_N) && row->form != FORM_O &&
                              row->form != FORM_OI && test_random_below(2))) {
        if (form->rm >= 0)
            instr.op[form->rm] = LIR_NONE;
        pick_memory(&instr, high);
    }
    if (row->form == FORM_GATHER)
        instr.op[1] = (u16)((instr.op[0] + 5) % 16);
    if (id == X_VBLENDMPS || id == X_VGATHERDPS_K)
        instr.flags |= high ? MI_MASKED : 0;
    return instr;
}

/* ---- the witness ---- */

static void write_hex(FILE *file, const u8 *bytes, usize len)
{
    for (usize i = 0; i < len; i++)
        fprintf(file, "%02x", bytes[i]);
}

static void write_variant(FILE *file, const struct minstr *instr, bool evex, u8 flip)
{
    u8 bytes[X86_BYTES_MAX];
    char line[200];
    struct text text = TEXT_ON(line);
    u32 len = x86_encode(instr, evex, bytes);
    u32 opcode = bytes[0] == 0x62 ? 4 : bytes[0] == 0xc4 ? 3 : bytes[0] == 0xc5 ? 2 : 1;

    bytes[opcode] ^= flip;
    write_hex(file, bytes, len);
    x86_print(instr, evex, &text);
    fprintf(file, "\t%.*s", (int)text.len, text.ptr);
}

/* Guards each row's prefix, map, opcode, width and displacement scale, and the listing's text. */
TEST(compile_x86_rows_against_llvm_mc)
{
    struct witness witness;
    u32 rows = 0;

    witness_open(&witness);
    for (u16 id = MACHINE_ROWS; id < X_END; id++) {
        bool evex_only = !(x86_rows[id].encodings & (ENC_L | ENC_V));
        EXPECT(x86_rows[id].name != NULL);
        if (x86_rows[id].form == FORM_J) /* the kernels' listings have them */
            continue;
        for (u32 i = 0; i < VARIANTS; i++) {
            bool high = x86_rows[id].encodings & ENC_E && (evex_only || i % 2);
            struct minstr instr = variant(id, high);
            write_variant(witness.file, &instr, high, 0);
        }
        rows++;
    }
    EXPECT_EQ(rows, X86_ROWS - 2);
    if (!witness_agrees(&witness, "x86_llvm_mc.py rows"))
        test_fail(__FILE__, __LINE__, "llvm-mc disagrees, see %s.log", witness.path);
}

/* Guards the guard: one wrong bit of one opcode must be seen, in each kind of encoding. */
TEST(compile_x86_wrong_row_is_noticed)
{
    const u16 ids[] = {X_ADD, X_VMULPS, X_VPSUBD, X_VPMULLD, X_VPDPBUSD};

    for (u32 i = 0; i < ARRAY_LEN(ids); i++) {
        struct witness witness;
        bool high = !(x86_rows[ids[i]].encodings & (ENC_L | ENC_V));
        struct minstr right = variant(ids[i], high), wrong = variant(ids[i], high);
        witness_open(&witness);
        write_variant(witness.file, &right, high, 0);
        write_variant(witness.file, &wrong, high, 1);
        EXPECT(!witness_agrees(&witness, "x86_llvm_mc.py rows"));
    }
}

static void check_listing(struct target target, struct arena arena, u8 *bytes, struct text listing)
{
    struct program_maker *maker = arena_new(&arena, struct program_maker, 1);
    struct code_out out = {.bytes = bytes, .cap = MIB, .look = x86_look, .listing = &listing};
    struct witness witness;

    EXPECT(maker != NULL);
    random_program(maker, target.lanes, 250, &arena);
    EXPECT_OK(x86_emit(&maker->lir, &target, &arena, &out));
    EXPECT(!listing.truncated);
    witness_open(&witness);
    write_hex(witness.file, out.bytes, out.len);
    fprintf(witness.file, "\n%.*s", (int)listing.len, listing.ptr);
    if (!witness_agrees(&witness, "x86_llvm_mc.py kernel"))
        test_fail(__FILE__, __LINE__, "listing is not the code, see %s.log", witness.path);
}

/* Guards the listing of whole kernels: labels, jumps, paddings, frame, reloads. */
TEST(compile_x86_listing_against_llvm_mc)
{
    const struct target targets[] = {
        {.isa = ISA_AVX2, .lanes = 8, .vector_regs = 16, .cores = 1},
        {.isa = ISA_AVX512, .lanes = 16, .vector_regs = 32, .vnni = true, .cores = 1}};
    u8 *memory = pages_alloc(64 * MIB);

    EXPECT(memory != NULL);
    for (u32 i = 0; i < 4; i++)
        check_listing(targets[i % 2], arena_on("listing", memory, 60 * MIB), memory + 60 * MIB,
                      (struct text){.ptr = (char *)memory + 61 * MIB, .cap = 3 * MIB});
    pages_free(memory, 64 * MIB);
}
