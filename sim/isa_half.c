/*
 * isa_half.c: decodes vector instructions whose 16-bit operands are upper halves of registers
 * (v0.h), which compilers from LLVM 20 on make. They are the known encodings with a bit set that
 * these leave clear, so they are decoded without it and get it back as op_sel. The table of isa.def
 * does not hold them: LLVM 19, its judge, refuses them.
 */
#include "sim/isa_decode.h"

#define VOP1_PREFIX 0x3fu
#define VOPC_PREFIX 0x3eu
#define VOP3_PREFIX 0x35u
#define MOV_B16     28u /* among VOP1; in VOP3 384 more */
#define HIGH        (1u << 7)

static u32 word_at(const u8 *code)
{
    u32 word;

    memcpy(&word, code, sizeof word);
    return word;
}

/* With these bits of the first word clear. */
static err decode_without(const u8 *code, usize bytes, u32 clear, struct isa_inst *out)
{
    u8 copy[20] = {};
    u32 word = word_at(code) & ~clear;

    memcpy(copy, code, min_u64(bytes, sizeof copy));
    memcpy(copy, &word, sizeof word);
    return isa_decode(copy, min_u64(bytes, sizeof copy), out);
}

/* A move of 16 bits as the larger of the operand and itself. */
static err decode_move(u32 dst, u32 source, u32 op_sel, struct isa_inst *out)
{
    u32 words[2] = {VOP3_PREFIX << 26 | (u32)isa_rows[ISA_v_max_u16].opcode << 16 | dst,
                    source | source << 9};
    err result = isa_decode((const u8 *)words, sizeof words, out);

    out->op_sel = (u8)((op_sel & 9) | (op_sel & 1) << 1);
    return result;
}

static err decode_vop3_halves(const u8 *code, usize bytes, u32 word, struct isa_inst *out)
{
    u32 op_sel = word >> 11 & 15;

    if (bytes < 8)
        return E_FORMAT;
    if ((word >> 16 & 0x3ff) == 384 + MOV_B16)
        return decode_move(word & 0xff, word_at(code + 4) & 0x1ff, op_sel, out);
    TRY(decode_without(code, bytes, 0x7800, out));
    out->op_sel = (u8)op_sel;
    return isa_rows[out->op].flags & ISA_16 ? OK : E_FORMAT;
}

/* One word: bit 7 of the number of dst and of each vector source. */
static err decode_short_halves(const u8 *code, usize bytes, u32 word, struct isa_inst *out)
{
    u32 prefix = word >> 25, sources = word & 0x100 ? word & HIGH : 0;
    u32 dst = prefix == VOPC_PREFIX ? 0 : word & HIGH << 17;

    if (prefix != VOP1_PREFIX)
        sources |= word & HIGH << 9;
    if (prefix == VOP1_PREFIX && (word >> 9 & 0xff) == MOV_B16) {
        TRY(decode_move(word >> 17 & 0x7f, word & 0x1ff & ~sources,
                        (sources ? 1u : 0) | (dst ? 8u : 0), out));
        out->bytes = 4;
        return OK;
    }
    for (u32 way = 1; way < 4; way++) {
        u32 clear = (way & 1 ? sources : 0) | (way & 2 ? dst : 0);
        u32 wanted = (way & 1 ? (u32)ISA_SRC16 : 0) | (way & 2 ? (u32)ISA_DST16 : 0);

        if (!clear || decode_without(code, bytes, clear, out) != OK)
            continue;
        if ((isa_rows[out->op].flags & wanted) != wanted)
            continue;
        out->op_sel = (u8)((clear & HIGH ? 1 : 0) | (clear & HIGH << 9 ? 2 : 0) |
                           (clear & HIGH << 17 ? 8 : 0));
        return OK;
    }
    return E_FORMAT;
}

err isa_decode_halves(const u8 *code, usize bytes, struct isa_inst *out)
{
    u32 word;

    if (bytes < 4)
        return E_FORMAT;
    word = word_at(code);
    if (word >> 31 == 0)
        return decode_short_halves(code, bytes, word, out);
    return word >> 26 == VOP3_PREFIX ? decode_vop3_halves(code, bytes, word, out) : E_FORMAT;
}
