/*
 * sim_code_test.c: instructions and code objects that end too early, at every byte: what comes
 * from outside is refused, never read past.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/elf.h"
#include "sim/isa.h"
#include "tests/test.h"

/* A copy of exactly so many bytes: the sanitizer sees a read behind it. */
static u8 *copy_of(const u8 *bytes, usize count)
{
    u8 *copy = malloc(count + (count == 0));

    EXPECT(copy);
    memcpy(copy, bytes, count);
    return copy;
}

TEST(sim_isa_ends_too_early)
{
    /* v_fma_f32 with a literal, v_add_f32 with DPP, v_dual with a literal, s_mov_b32 with one */
    static const struct {
        u8 code[12], bytes;
    } whole[] = {
        {{0x00, 0x00, 0x13, 0xd6, 0xff, 0x02, 0x0e, 0x04, 0x78, 0x56, 0x34, 0x12}, 12},
        {{0xfa, 0x04, 0x02, 0x06, 0x01, 0x1b, 0x00, 0xff}, 8},
        {{0xff, 0x04, 0xc8, 0xc8, 0x04, 0x0b, 0x00, 0x00, 0x78, 0x56, 0x34, 0x12}, 12},
        {{0xff, 0x00, 0x84, 0xbe, 0x78, 0x56, 0x34, 0x12}, 8},
        {{0x00, 0x00, 0x80, 0xbf}, 4},
    };
    struct isa_inst inst;

    for (u32 n = 0; n < ARRAY_LEN(whole); n++)
        for (usize bytes = 0; bytes <= whole[n].bytes; bytes++) {
            u8 *code = copy_of(whole[n].code, bytes);
            err seen = isa_decode(code, bytes, &inst);

            free(code);
            EXPECT_EQ(seen, bytes == whole[n].bytes ? OK : E_FORMAT);
            EXPECT_EQ(inst.bytes, bytes == whole[n].bytes ? whole[n].bytes : 4);
        }
}

/* What clang makes of halves since LLVM 20: words out of Debian's libggml0-backend-hip. */
TEST(sim_isa_upper_halves)
{
    static const struct {
        u32 words[2];
        u16 op;
        u8 bytes, op_sel;
        u16 dst, src;
    } rows[] = {
        {{0x7e1a178a}, ISA_v_cvt_f32_f16, 4, 1, ISA_VGPR + 13, ISA_VGPR + 10},
        {{0x7f001506}, ISA_v_cvt_f16_f32, 4, 8, ISA_VGPR + 0, ISA_VGPR + 6},
        {{0x7e0e3880}, ISA_v_max_u16, 4, 0, ISA_VGPR + 7, ISA_INT_0},
        {{0x7f0e3981}, ISA_v_max_u16, 4, 11, ISA_VGPR + 7, ISA_VGPR + 1},
        {{0xd59c4007, 0x00000101}, ISA_v_max_u16, 8, 8, ISA_VGPR + 7, ISA_VGPR + 1},
    };
    struct isa_inst inst;

    for (u32 n = 0; n < ARRAY_LEN(rows); n++) {
        const u8 *code = (const u8 *)rows[n].words;

        EXPECT_EQ(isa_decode(code, rows[n].bytes, &inst), E_FORMAT);
        EXPECT_OK(isa_decode_halves(code, rows[n].bytes, &inst));
        EXPECT_EQ(inst.op, rows[n].op);
        EXPECT_EQ(inst.bytes, rows[n].bytes);
        EXPECT_EQ(inst.op_sel, rows[n].op_sel);
        EXPECT_EQ(inst.dst, rows[n].dst);
        EXPECT_EQ(inst.src[0], rows[n].src);
        for (usize bytes = 0; bytes < rows[n].bytes; bytes++) {
            u8 *copy = copy_of(code, bytes);

            EXPECT_EQ(isa_decode_halves(copy, bytes, &inst), E_FORMAT);
            free(copy);
        }
    }
}

TEST(sim_object_ends_too_early)
{
    static const char path[] = "tests/data/fuzz_code_object/scratch_v5";
    static u8 file[8 * KIB];
    FILE *in = fopen(path, "rb");
    struct code_object object;
    struct kernel kernel;
    usize whole;

    EXPECT(in);
    whole = fread(file, 1, sizeof(file), in);
    fclose(in);
    EXPECT(whole > 4 * KIB && whole < sizeof(file));
    for (usize bytes = 0; bytes < whole; bytes += bytes < 4 * KIB ? 1 : 16) {
        u8 *copy = copy_of(file, bytes);

        if (object_open(copy, bytes, &object) == OK)
            EXPECT(object_kernel(&object, STR("k3"), &kernel) != E_LIMIT);
        free(copy);
    }
    EXPECT_OK(object_open(file, whole, &object));
    EXPECT_OK(object_kernel(&object, STR("k3"), &kernel));
    EXPECT_EQ(kernel.scratch_bytes, 176);
    EXPECT_EQ(kernel.arg_count, 19);
    EXPECT_EQ(object_kernel(&object, STR("k"), &kernel), E_NOTFOUND);
}
