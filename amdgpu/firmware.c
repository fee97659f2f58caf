/*
 * firmware.c: what a chip needs of which firmware file, and the files split into typed pieces.
 * Files come from outside: every offset is looked at before it is followed. Signatures are the
 * secure processor's to check. Must not know how a piece is loaded. Follows: Linux 6.12
 * amdgpu_ucode.h, psp_gfx_if.h.
 */
#include "amdgpu/priv.h"

#define ANY_MINOR 0xffffu

static err damaged(const struct gpu *gpu, const char *what, u64 want, u64 saw)
{
    log_error(gpu->name, "firmware: want %s %lx, saw %lx", what, want, saw);
    return E_FORMAT;
}

/* Bytes [offset, offset + bytes) of the file as the next piece to load. */
static err add(struct gpu *gpu, struct str file, enum psp_firmware kind, u64 offset, u64 bytes)
{
    if (!bytes || offset > file.len || bytes > file.len - offset)
        return damaged(gpu, "a piece inside so many bytes:", file.len, offset + bytes);
    if (bytes > BLOB_BYTES)
        return damaged(gpu, "a piece of at most so many bytes:", BLOB_BYTES, bytes);
    CHECK(gpu->piece_count < PIECES_MAX);
    struct firmware_header head;
    memcpy(&head, file.ptr, sizeof(head));
    gpu->piece[gpu->piece_count++] =
        (struct piece){kind, head.version, {file.ptr + offset, (usize)bytes}};
    return OK;
}

static err split_psp(struct gpu *gpu, struct str file)
{
    struct firmware_psp head;
    struct firmware_psp_piece piece;

    memcpy(&head, file.ptr, sizeof(head));
    u64 at = sizeof(head) + (head.header.minor ? 4 : 0);
    for (u32 i = 0; i < head.piece_count && i < 2 * PSP_PIECES; i++, at += sizeof(piece)) {
        if (at + sizeof(piece) > file.len)
            return damaged(gpu, "a list inside so many bytes:", file.len, at);
        memcpy(&piece, file.ptr + at, sizeof(piece));
        u64 offset = (u64)head.header.ucode_offset + piece.offset;
        if (piece.kind == 0 || piece.kind >= PSP_PIECES)
            continue;
        TRY(add(gpu, file, (enum psp_firmware)piece.kind, offset, piece.bytes));
        gpu->boot[piece.kind] = gpu->piece[--gpu->piece_count];
        gpu->boot[piece.kind].version = piece.version;
    }
    static const u8 wanted[] = {PSP_KDB, PSP_SYS, PSP_SOS, PSP_TOC};
    for (u32 i = 0; i < ARRAY_LEN(wanted); i++)
        if (!gpu->boot[wanted[i]].bytes.len)
            return damaged(gpu, "a secure processor's piece of kind", wanted[i], 0);
    return OK;
}

static err split_smu(struct gpu *gpu, struct str file)
{
    struct firmware_header head;

    memcpy(&head, file.ptr, sizeof(head));
    return add(gpu, file, PSP_FW_SMU, head.ucode_offset, head.ucode_bytes);
}

static err split_sdma(struct gpu *gpu, struct str file)
{
    struct firmware_sdma head;

    memcpy(&head, file.ptr, sizeof(head));
    TRY(add(gpu, file, PSP_FW_SDMA_TH1, head.control_offset, head.control_bytes));
    return add(gpu, file, PSP_FW_SDMA_TH0, head.header.ucode_offset, head.context_bytes);
}

static err split_mec(struct gpu *gpu, struct str file)
{
    struct firmware_rs64 head;

    memcpy(&head, file.ptr, sizeof(head));
    gpu->mec_start = (u64)head.start_hi << 32 | head.start_lo;
    TRY(add(gpu, file, PSP_FW_MEC, head.header.ucode_offset, head.code_bytes));
    return add(gpu, file, PSP_FW_MEC_STACK, head.data_offset, head.data_bytes);
}

static err split_imu(struct gpu *gpu, struct str file)
{
    struct firmware_imu head;

    memcpy(&head, file.ptr, sizeof(head));
    u64 at = head.header.ucode_offset;
    TRY(add(gpu, file, PSP_FW_IMU_I, at, head.iram_bytes));
    return add(gpu, file, PSP_FW_IMU_D, at + head.iram_bytes, head.dram_bytes);
}

static err split_rlc(struct gpu *gpu, struct str file)
{
    struct firmware_rlc head;

    memcpy(&head, file.ptr, sizeof(head));
    TRY(add(gpu, file, PSP_FW_RLC_IRAM, head.iram_offset, head.iram_bytes));
    TRY(add(gpu, file, PSP_FW_RLC_DRAM, head.dram_offset, head.dram_bytes));
    TRY(add(gpu, file, PSP_FW_RLC_P, head.p_offset, head.p_bytes));
    TRY(add(gpu, file, PSP_FW_RLC_V, head.v_offset, head.v_bytes));
    return add(gpu, file, PSP_FW_RLC_G, head.header.ucode_offset, head.header.ucode_bytes);
}

/* In the order of loading; the RLC's own code is last and starts the others. */
static const struct chip chips[] = {
    {"gfx1100",
     11 << 16,
     {{"psp_13_0_0_sos.bin", 2, ANY_MINOR, 13, sizeof(struct firmware_psp), split_psp},
      {"smu_13_0_0.bin", 2, ANY_MINOR, 13, sizeof(struct firmware_header), split_smu},
      {"sdma_6_0_0.bin", 2, 0, 6, sizeof(struct firmware_sdma), split_sdma},
      {"gc_11_0_0_mec.bin", 2, 0, 11, sizeof(struct firmware_rs64), split_mec},
      {"gc_11_0_0_imu.bin", 1, 0, 11, sizeof(struct firmware_imu), split_imu},
      {"gc_11_0_0_rlc.bin", 2, 3, 11, sizeof(struct firmware_rlc), split_rlc}}},
};

const struct chip *firmware_chip(u32 gc_version)
{
    for (u32 i = 0; i < ARRAY_LEN(chips); i++)
        if (chips[i].gc_version == gc_version)
            return &chips[i];
    return NULL;
}

static const struct gpu_file *find(const struct gpu *gpu, const char *name)
{
    for (u32 i = 0; i < gpu->config.file_count; i++)
        if (str_ends(gpu->config.file[i].name, str_of(name)))
            return &gpu->config.file[i];
    return NULL;
}

/* The right file, whole. A swapped one shows by its version or by the block that it is for. */
static err check(const struct gpu *gpu, const struct firmware_row *row, struct str file)
{
    struct firmware_header head;

    if (file.len < row->head_bytes)
        return damaged(gpu, "a header of so many bytes:", row->head_bytes, file.len);
    memcpy(&head, file.ptr, sizeof(head));
    if (head.file_bytes != file.len)
        return damaged(gpu, "so many bytes:", head.file_bytes, file.len);
    if (head.major != row->major || (row->minor != ANY_MINOR && head.minor != row->minor))
        return damaged(gpu, "header version", (u32)row->major << 16 | row->minor,
                       (u32)head.major << 16 | head.minor);
    return head.ip_major == row->ip_major
               ? OK
               : damaged(gpu, "firmware for a block of version", row->ip_major, head.ip_major);
}

err firmware_split(struct gpu *gpu)
{
    gpu->piece_count = 0;
    for (const struct firmware_row *row = gpu->chip->firmware; row->file; row++) {
        const struct gpu_file *file = find(gpu, row->file);
        if (!file) {
            log_error(gpu->name, "firmware: want the file %s, saw none of that name", row->file);
            return E_NOTFOUND;
        }
        err e = check(gpu, row, file->bytes);
        if (e == OK)
            e = row->split(gpu, file->bytes);
        if (e != OK) {
            log_error(gpu->name, "firmware: %s is not what it should be", row->file);
            return e;
        }
    }
    return OK;
}
