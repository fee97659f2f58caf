/*
 * fuzz_firmware.c: firmware files and the discovery table with any bytes: never more than a
 * refusal. The first byte says which file is replaced (or the table), the rest is its contents; the
 * genuine header of that file may stand before it so that the fuzzer gets past the checks of
 * versions.
 */
#include <stdlib.h>

#include "amdgpu/priv.h"

int LLVMFuzzerTestOneInput(const u8 *data, usize size);

/* What the driver reads of VRAM is the fuzzer's. */
struct window {
    const u8 *bytes;
    usize len;
};

static u64 vram_word(void *ctx, u64 offset, u32 width)
{
    const struct window *window = ctx;
    u64 word = 0, at = offset % DISCOVERY_FROM_END;

    if (at < window->len)
        memcpy(&word, window->bytes + at, min_u64(width, window->len - at));
    return word;
}

/* Sums that a fuzzer would never find. */
static void seal_table(u8 *bytes, usize len)
{
    struct discovery_header head;
    u16 sum = 0;

    if (len < sizeof head)
        return;
    memcpy(&head, bytes, sizeof head);
    head.signature = DISCOVERY_SIGNATURE;
    head.bytes = (u16)min_u64(len, DISCOVERY_BYTES_MAX);
    memcpy(bytes, &head, sizeof head);
    for (usize i = offsetof(struct discovery_header, bytes); i < head.bytes; i++)
        sum = (u16)(sum + bytes[i]);
    head.checksum = sum;
    memcpy(bytes, &head, sizeof head);
}

static void try_table(struct gpu *gpu, const u8 *data, usize size)
{
    static const struct mmio_ops ops = {.read = vram_word};
    u8 *copy = malloc(size + 1);

    memcpy(copy, data, size);
    seal_table(copy, size);
    struct window window = {copy, size};
    gpu->vram_bytes = GIB;
    gpu->vram = (struct mmio){.bytes = GIB, .ops = &ops, .ctx = &window};
    ip_start(gpu);
    (void)!ip_discover(gpu);
    free(copy);
}

static void try_file(struct gpu *gpu, u32 which, const u8 *data, usize size)
{
    const struct firmware_row *row = &gpu->chip->firmware[which];
    struct firmware_header head = {
        .file_bytes = (u32)size, .major = row->major, .ip_major = row->ip_major};
    u8 *copy = malloc(size + 1);
    struct gpu_file file = {str_of(row->file), {(const char *)copy, size}};

    head.minor = row->minor == UINT16_MAX ? 0 : row->minor;
    memcpy(copy, data, size);
    if (size >= sizeof head) {
        memcpy(copy + offsetof(struct firmware_header, version),
               data + offsetof(struct firmware_header, version), 16);
        memcpy(copy, &head, offsetof(struct firmware_header, version));
    }
    gpu->config.file = &file;
    gpu->config.file_count = 1;
    if (size >= row->head_bytes)
        (void)!row->split(gpu, file.bytes);
    for (u32 i = 0; i < gpu->piece_count; i++)
        CHECK(gpu->piece[i].bytes.ptr >= (const char *)copy &&
              gpu->piece[i].bytes.ptr + gpu->piece[i].bytes.len <= (const char *)copy + size);
    (void)!firmware_split(gpu);
    free(copy);
}

int LLVMFuzzerTestOneInput(const u8 *data, usize size)
{
    static struct gpu gpu;
    static struct pci_dev dev;

    if (!size)
        return 0;
    memset(&gpu, 0, sizeof gpu);
    gpu.name = "fuzz";
    gpu.dev = &dev;
    gpu.chip = firmware_chip(11 << 16);
    if (data[0] % 7 == 6)
        try_table(&gpu, data + 1, size - 1);
    else
        try_file(&gpu, data[0] % 7, data + 1, size - 1);
    return 0;
}
