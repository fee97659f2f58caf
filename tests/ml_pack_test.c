/*
 * ml_pack_test.c: repacked weights, for every format and target, read back by an own reader.
 */
#include <math.h>
#include <string.h>

#include "ml/model_priv.h"
#include "tests/oracle/oracle.h"
#include "tests/test.h"

#define ROWS        40u
#define COLUMNS_MAX 1536u
#define TILES_BYTES (512 * KIB)

/* Exponents stay small: no NaN, no infinity. */
static void fill(const struct quant_format *format, u8 *bytes, u64 count)
{
    for (u64 i = 0; i < count; i++)
        bytes[i] = (u8)test_random() & (format->unpack ? 0xbf : 0x3f);
}

static void check(const struct quant_format *format, const struct target *target, u32 columns)
{
    static u8 file[ROWS * COLUMNS_MAX * 4], packed[TILES_BYTES];
    static f32 want[COLUMNS_MAX], got[COLUMNS_MAX];
    struct packing packing = packing_for(format, target);
    u64 row_bytes = quant_bytes(format, columns);
    u64 tile_bytes = packing_bytes(&packing, packing.tile, columns);

    EXPECT(packing_bytes(&packing, ROWS, columns) <= sizeof packed);
    fill(format, file, ROWS * row_bytes);
    memset(packed, 0xff, sizeof packed);
    for (u32 first = 0; first < ROWS; first += packing.tile) {
        const u8 *row[PACK_TILE_MAX] = {};
        for (u32 i = 0; i < packing.tile && first + i < ROWS; i++)
            row[i] = file + (first + i) * row_bytes;
        pack_tile_rows(&packing, format, row, columns, packed + first / packing.tile * tile_bytes);
    }
    for (u32 row = 0; row < ROWS; row++) {
        quant_decode(format, file + row * row_bytes, want, columns);
        packing_row(&packing, packed, columns, row, got);
        for (u32 k = 0; k < columns; k++)
            if (!(fabsf(got[k] - want[k]) <= 1e-6f * fabsf(want[k]) + 1e-9f) && isfinite(want[k]))
                test_fail(__FILE__, __LINE__,
                          "%s, %u lanes, %u columns: row %u column %u is %a, "
                          "want %a",
                          format->name, target->lanes, columns, row, k, (f64)got[k], (f64)want[k]);
    }
    if (target->waves && columns % 256 == 0)
        EXPECT(100 * tile_bytes <= 105 * packing.tile * row_bytes);
}

/* Guards: every weight stands where struct packing says, and takes no more room on a card than 5 %
 * over the file. */
TEST(ml_pack_reads_back)
{
    const struct target targets[] = {{.isa = ISA_AVX2, .lanes = 8},
                                     {.isa = ISA_AVX512, .lanes = 16},
                                     {.isa = ISA_AVX2_WORDS, .lanes = 8},
                                     target_gfx11(96)};
    const u32 columns[] = {32, 96, 160, 256, 416, 576, 608, 768, 1536};

    for (u32 type = 0; type < 40; type++) {
        const struct quant_format *format = quant_format(type);
        for (u32 t = 0; t < ARRAY_LEN(targets) && format; t++)
            for (u32 i = 0; i < ARRAY_LEN(columns); i++)
                if (columns[i] % format->elements == 0)
                    check(format, &targets[t], columns[i]);
    }
}
