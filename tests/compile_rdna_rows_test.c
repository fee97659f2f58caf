/*
 * compile_rdna_rows_test.c: every row of rdna.def in many operand variants, judged by llvm-mc
 * (tests/witness/rdna_llvm_mc.py). Skipped where there is no llvm-mc.
 */
#include <stdio.h>

#include "tests/llvm_mc.h"
#include "tests/oracle/listing.h"
#include "tests/rdna_wave.h"

#define VARIANTS 32u

static u32 below(u32 end)
{
    return (u32)test_random_below(end);
}

static const struct rdna_row *row_of(const struct rinstr *instr)
{
    return &rdna_rows[instr->row];
}

/* ---- operands ---- */

static u16 pick_scalar(u32 width)
{
    u32 align = min_u32(width, 4);

    if (width == 1 && !below(8))
        return below(2) ? RDNA_VCC : RDNA_M0;
    return (u16)(below((RDNA_SGPRS - width) / align) * align);
}

static u16 pick_vector(u32 width)
{
    return (u16)(RDNA_VGPR + below(RDNA_VGPRS + 1 - width));
}

static u16 pick_constant(struct rinstr *instr, u32 width)
{
    static const u32 values[] = {0,          1,          64,         65,         0xfffffff0,
                                 0xffffffef, 0x3f800000, 0xc0800000, 0x3e22f983, 0x12345678};

    if (below(2))
        return below(2) ? (u16)(RDNA_ZERO + below(65)) : (u16)(RDNA_ZERO + 65 + below(16));
    instr->literal = values[below(ARRAY_LEN(values))];
    if (width == 2)
        instr->literal &= 0x7fffffff; /* a double's bits are another constant */
    return RDNA_CONST;
}

/* At most two scalars or constants feed the vector unit; a literal counts. */
static u16 pick_source(struct rinstr *instr, u32 k, u32 *scalars)
{
    u32 kind = row_of(instr)->operand[k + 1] >> 8, width = row_of(instr)->operand[k + 1] & 255;
    bool literal =
        !(row_of(instr)->flags & (R_HALF | R_PACKED | R_LITERAL)) && instr->dpp == DPP_OFF;

    switch (kind) {
    case K_S:
    case K_M:
        *scalars += 1;
        return row_of(instr)->format == F_SMEM ? (u16)(below(50) * 2) : pick_scalar(width);
    case K_B:
        return below(4) ? pick_scalar(width) : RDNA_NONE;
    case K_X:
        if ((instr->dpp != DPP_OFF && k == 1) || *scalars >= 1 || below(2))
            return pick_vector(width);
        *scalars += 1;
        return below(2) || !literal ? pick_scalar(width) : pick_constant(instr, width);
    case K_C:
        if (below(2) || *scalars || row_of(instr)->format == F_VOP3) /* lane selects */
            return pick_scalar(width);
        *scalars += 1;
        return pick_constant(instr, width);
    case K_W:
        return below(2) ? RDNA_ZERO : pick_vector(width);
    default:
        return kind == K_NONE ? RDNA_NONE : pick_vector(width);
    }
}

static void pick_operands(struct rinstr *instr)
{
    const struct rdna_row *row = row_of(instr);
    u32 kind = row->operand[0] >> 8, width = row->operand[0] & 255, scalars = 0;

    if (kind == K_M)
        instr->dst = below(2) ? RDNA_VCC : (u16)below(RDNA_SGPRS);
    else if (kind == K_S)
        instr->dst = pick_scalar(width);
    else if (kind != K_NONE)
        instr->dst = pick_vector(width);
    for (u32 k = 3; k-- > 0;)
        instr->src[k] = pick_source(instr, k, &scalars);
    if (row->flags & R_SDST)
        instr->sdst = below(2) ? RDNA_VCC : (u16)below(RDNA_SGPRS);
    if (row->format == F_SMEM && row->flags & R_LOAD && below(2))
        instr->src[1] = RDNA_NONE;
}

/* ---- modifiers ---- */

static void pick_dpp(struct rinstr *instr)
{
    const u32 ctrl[] = {below(256),
                        DPP_ROW_SHL + 1 + below(15),
                        DPP_ROW_SHR + 1 + below(15),
                        DPP_ROW_ROR + 1 + below(15),
                        DPP_ROW_MIRROR,
                        DPP_ROW_HALF_MIRROR,
                        DPP_ROW_SHARE + below(16),
                        DPP_ROW_XMASK + below(16)};

    instr->dpp = (u16)ctrl[below(ARRAY_LEN(ctrl))];
    instr->row_mask = (u8)below(16);
    instr->bank_mask = (u8)below(16);
    instr->bound_ctrl = below(2);
}

/* Whether the result may be multiplied. */
static bool is_float_result(const struct rdna_row *row)
{
    static const char *const integers[] = {
        "v_cvt_i",    "v_cvt_u", "v_cvt_nearest", "v_cvt_floor", "v_frexp_exp", "v_cvt_pk_i",
        "v_cvt_pk_u", "v_cmp",   "v_cvt_f16",     "v_pack",      "v_cvt_pk_rtz"};
    bool is_float = row->flags & R_NEG;

    for (u32 i = 0; i < ARRAY_LEN(integers); i++)
        is_float &= !str_starts(str_of(row->name), str_of(integers[i]));
    return is_float;
}

static void pick_modifiers(struct rinstr *instr)
{
    const struct rdna_row *row = row_of(instr);
    u32 used = 0;

    for (u32 k = 0; k < 3; k++)
        used |= (u32)(row->operand[k + 1] >> 8 != K_NONE &&
                      (instr->src[k] >= RDNA_VGPR || instr->src[k] < RDNA_VCC))
                << k;
    if (instr->row == R_v_ldexp_f32 || instr->row == R_v_cmp_class_f32)
        used &= 1;
    if (row->flags & (R_NEG | R_PACKED) && !(row->flags & R_WMMA))
        instr->neg = below(2) ? (u8)(below(8) & used) : 0;
    if (row->flags & R_PACKED && row->flags & R_DPP) {
        instr->op_sel_hi = (u8)(below(8) & used);
        instr->op_sel = (u8)(below(8) & used);
        instr->abs = (u8)(below(8) & used);
    }
    if (row->flags & R_NEG && !(row->flags & R_SDST))
        instr->abs = below(2) ? (u8)(below(8) & used) : 0;
    if (is_float_result(row))
        instr->omod = (u8)(below(3) ? 0 : below(4));
}

/* Which memory offsets and numbers each format holds. */
static i32 pick_number(const struct rdna_row *row)
{
    switch (row->format) {
    case F_DS:
        return (i32)below(65536);
    case F_GLOBAL:
        return (i32)below(8192) - 4096;
    case F_SMEM:
        return row->flags & R_LOAD ? (i32)below(1u << 20) : 0;
    case F_SOPK:
        return (i32)below(32768);
    case F_SOPP:
        return row->flags & (R_END | R_FENCE) ? 0 : (i32)below(8);
    default:
        return 0;
    }
}

static struct rinstr variant(u16 id, u32 turn)
{
    struct rinstr instr = rdna_blank(id);
    const struct rdna_row *row = &rdna_rows[id];

    if (row->flags & R_DPP && turn % 3 == 0)
        pick_dpp(&instr);
    pick_operands(&instr);
    if (instr.dpp != DPP_OFF)
        instr.src[0] = pick_vector(1);
    if (row->format == F_SMEM && instr.dst == RDNA_M0)
        instr.dst = RDNA_VCC;
    if (row->flags & R_LITERAL)
        instr.literal = (u32)test_random() | 0x10000;
    if (id == R_s_waitcnt_vscnt)
        instr.dst = RDNA_NULL;
    instr.imm = pick_number(row);
    if (turn % 3 == 1)
        pick_modifiers(&instr);
    if (row->format == F_GLOBAL && !str_starts(str_of(row->name), str_of("global_atomic")))
        instr.cache = (u8)below(8);
    return instr;
}

/* ---- the witness ---- */

static void write_instr(FILE *file, const struct rinstr *instr, u32 flip)
{
    u32 words[RDNA_WORDS_MAX];
    char line[300];
    struct text text = TEXT_ON(line);
    u32 len = rdna_encode(instr, words);

    words[0] ^= flip;
    for (u32 i = 0; i < len; i++)
        fprintf(file, "%s%08x", i ? " " : "", words[i]);
    rdna_print(instr, &text);
    fprintf(file, "\t%.*s", (int)text.len, text.ptr);
}

/* Guards each row's opcode, format, the choice of form, modifiers, and the listing's text. */
TEST(compile_rdna_rows_against_llvm_mc)
{
    struct witness witness;

    witness_open(&witness);
    for (u16 id = RDNA_PSEUDOS; id < RDNA_ROWS_END; id++)
        for (u32 turn = 0; turn < VARIANTS; turn++) {
            struct rinstr instr = variant(id, turn);
            write_instr(witness.file, &instr, 0);
        }
    if (!witness_agrees(&witness, "rdna_llvm_mc.py"))
        test_fail(__FILE__, __LINE__, "llvm-mc disagrees, see %s.log", witness.path);
}

/* ---- two in one ---- */

static const u16 halves[] = {R_v_fmac_f32, R_v_fmaak_f32, R_v_fmamk_f32,  R_v_mul_f32,
                             R_v_add_f32,  R_v_sub_f32,   R_v_subrev_f32, R_v_mov_b32,
                             R_v_max_f32,  R_v_min_f32,   R_v_add_nc_u32, R_v_lshlrev_b32,
                             R_v_and_b32};

/* The rules of banks hold: sources of a kind from different ones, results of different parity. */
static struct rinstr half(u16 id, u32 bank, u32 literal)
{
    struct rinstr instr = rdna_blank(id);

    instr.dst = (u16)(RDNA_VGPR + below(128) * 2 + bank);
    instr.src[0] = (u16)(RDNA_VGPR + below(64) * 4 + bank);
    if (rdna_rows[id].operand[2])
        instr.src[1] = (u16)(RDNA_VGPR + below(64) * 4 + 2 + bank);
    instr.literal = literal;
    return instr;
}

/* Guards both opcodes, the fields of the second half, a literal both may have. */
TEST(compile_rdna_dual_against_llvm_mc)
{
    struct witness witness;

    witness_open(&witness);
    for (u32 x = 0; x < ARRAY_LEN(halves) - 3; x++)
        for (u32 y = 0; y < ARRAY_LEN(halves); y++) {
            u32 literal = (u32)test_random() | 0x10000;
            struct rinstr pair[] = {half(halves[x], 0, literal), half(halves[y], 1, literal)};
            pair[0].dual = true;
            write_instr(witness.file, pair, 0);
        }
    if (!witness_agrees(&witness, "rdna_llvm_mc.py"))
        test_fail(__FILE__, __LINE__, "llvm-mc disagrees, see %s.log", witness.path);
}

/* Guards what is joined: llvm-mc refuses halves whose registers share a bank, two literals, a third
 * scalar. */
TEST(compile_rdna_pairs_against_llvm_mc)
{
    u8 *memory = pages_alloc(MIB);
    struct arena arena = arena_on("pairs", memory, MIB);
    struct rcode code = wave_list(&arena);
    struct witness witness;
    u32 pairs = 0;

    witness_open(&witness);
    for (u32 i = 0; i < 8; i++) {
        for (code.count = 0; code.count < code.max / 2;)
            wave_add_pairable(&code);
        EXPECT_OK(rdna_pair(&code, &arena));
        for (u32 n = 0; n < code.count; n++)
            if (code.instr[n].dual) {
                write_instr(witness.file, &code.instr[n], 0);
                pairs++;
            }
    }
    EXPECT(pairs > 100);
    if (!witness_agrees(&witness, "rdna_llvm_mc.py"))
        test_fail(__FILE__, __LINE__, "llvm-mc disagrees, see %s.log", witness.path);
    pages_free(memory, MIB);
}

/* Guards the guard: one wrong bit must be seen, in each format. */
TEST(compile_rdna_wrong_row_is_noticed)
{
    const u16 ids[] = {R_s_add_u32, R_v_add_f32, R_v_dot4_i32_iu8, R_global_load_b32};

    for (u32 i = 0; i < ARRAY_LEN(ids); i++) {
        struct witness witness;
        struct rinstr right = variant(ids[i], 2), wrong = variant(ids[i], 2);
        witness_open(&witness);
        write_instr(witness.file, &right, 0);
        write_instr(witness.file, &wrong, 1u << 18);
        EXPECT(!witness_agrees(&witness, "rdna_llvm_mc.py"));
    }
}
