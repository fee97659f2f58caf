/*
 * formats.h: what the card reads and writes in memory: discovery table, firmware files, frames for
 * the secure processor, messages of the power controller, page table entries, queue descriptor,
 * packets, interrupt entries. Facts only, for the driver and for the simulated card. Sources: Linux
 * 6.12 drivers/gpu/drm/amd: discovery.h, amdgpu_ucode.h, psp_gfx_if.h, smu_v13_0_0_ppsmc.h,
 * smu13_driver_if_v13_0_0.h, amdgpu_vm.h, v11_structs.h, nvd.h, sdma_v6_0_0_pkt_open.h,
 * soc15_ih_clientid.h, irqsrcs_gfx_11_0_0.h. All of it is little endian.
 */
#ifndef NOHOST_AMDGPU_FORMATS_H
#define NOHOST_AMDGPU_FORMATS_H

#include "kernel/base.h"

// clang-format off
/* ---- the discovery table: 64 KiB below the end of VRAM ---- */

#define DISCOVERY_FROM_END  0x10000u
#define DISCOVERY_BYTES_MAX 0x2800u
#define DISCOVERY_SIGNATURE 0x28211407u
#define DISCOVERY_IPS       0x53445049u /* "IPDS" */
#define DISCOVERY_GC        0x4347u     /* "GC" */
#define DISCOVERY_HARVEST   0x56524148u /* "HARV" */
enum discovery_list { DISCOVERY_LIST_IPS, DISCOVERY_LIST_GC, DISCOVERY_LIST_HARVEST };

struct discovery_header {
    u32 signature;
    u16 major, minor;
    u16 checksum; /* sum of the bytes from `bytes` to the end */
    u16 bytes;    /* of the whole */
    struct discovery_list_entry {
        u16 offset, checksum, bytes, pad;
    } list[6];
};
_Static_assert(sizeof(struct discovery_header) == 60, "layout");

struct discovery_ips {
    u32 signature;
    u16 version, bytes;
    u32 id;
    u16 die_count;
    struct {
        u16 id, offset; /* of its discovery_die, from the start of the table */
    } die[16];
    u16 flags; /* version 4: bit 0: bases of 64 bits */
};
_Static_assert(sizeof(struct discovery_ips) == 80, "layout");

struct discovery_die {
    u16 id, ip_count;
};

struct discovery_ip { /* base_count bases follow */
    u16 hw_id;
    u8 instance, base_count, major, minor, revision, sub_revision;
};
_Static_assert(sizeof(struct discovery_ip) == 8, "layout");

struct discovery_gc { /* versions 1.x */
    u32 signature;
    u16 major, minor;
    u32 bytes;
    u32 se_count, wgp0_per_sa, wgp1_per_sa, rb_per_se, gl2c_count, gprs, gs_threads_max,
        gs_table_depth, gsprim_depth, parameter_depth, double_offchip_lds, wave_size,
        waves_per_simd_max, scratch_slots_per_cu_max, lds_size, sc_per_se, sa_per_se;
};
_Static_assert(sizeof(struct discovery_gc) == 80, "layout");

struct discovery_harvest {
    u32 signature, version;
    struct {
        u16 hw_id;
        u8 instance, pad;
    } list[32];
};

enum hw_id {
    HW_MP1 = 1, HW_GC = 11, HW_MMHUB = 34, HW_OSSSYS = 40, HW_HDP = 41, HW_SDMA0 = 42,
    HW_SDMA1 = 43, HW_NBIF = 108, HW_MP0 = 255,
};

/* ---- firmware files ---- */

struct firmware_header {
    u32 file_bytes, header_bytes;
    u16 major, minor, ip_major, ip_minor;
    u32 version, ucode_bytes, ucode_offset, crc32;
};
_Static_assert(sizeof(struct firmware_header) == 32, "layout");

struct firmware_psp { /* 2.0; in 2.1 one more word stands before the pieces */
    struct firmware_header header;
    u32 piece_count;
    struct firmware_psp_piece {
        u32 kind, version, offset, bytes; /* offset from header.ucode_offset */
    } piece[];
};
enum psp_piece {
    PSP_SOS = 1, PSP_SYS, PSP_KDB, PSP_TOC, PSP_SPL, PSP_RL, PSP_SOC, PSP_INTF, PSP_DBG, PSP_RAS,
    PSP_IPKEYMGR, PSP_PIECES
};
#define PSP_BLOB_MAGIC        0x31535024u /* "$PS1", in each signed blob */
#define PSP_BLOB_MAGIC_OFFSET 0x10u

struct firmware_rs64 { /* gfx 2.0: MEC */
    struct firmware_header header;
    u32 feature, code_bytes, code_offset, data_bytes, data_offset, start_lo, start_hi;
};
struct firmware_sdma { /* 2.0 */
    struct firmware_header header;
    u32 feature, context_bytes, context_jt, context_jt_bytes, control_offset, control_bytes,
        control_jt, control_jt_bytes;
};
struct firmware_imu { /* 1.0; data follows code */
    struct firmware_header header;
    u32 iram_bytes, iram_offset, dram_bytes, dram_offset;
};
struct firmware_rlc { /* 2.3 */
    struct firmware_header header;
    u32 not_used[31]; /* of 2.0 and 2.1 */
    u32 iram_bytes, iram_offset, dram_bytes, dram_offset;
    u32 p_version, p_feature, p_bytes, p_offset, v_version, v_feature, v_bytes, v_offset;
};
_Static_assert(sizeof(struct firmware_rlc) == 204 && offsetof(struct firmware_rlc, iram_bytes) ==
               156, "layout");

/* ---- the secure processor (MP0): boot loader, ring, commands ---- */

enum psp_boot_command { /* C2PMSG_35; the blob is at C2PMSG_36 MiB */
    PSP_BOOT_SYS = 0x10000, PSP_BOOT_SOS = 0x20000, PSP_BOOT_KDB = 0x80000,
    PSP_BOOT_SOC = 0xb0000, PSP_BOOT_DBG = 0xc0000, PSP_BOOT_INTF = 0xd0000,
    PSP_BOOT_RAS = 0xe0000, PSP_BOOT_SPL = 0x10000000,
};
enum psp_ring_command { PSP_RING_CREATE = 0x20000, PSP_RING_DESTROY = 0x30000 }; /* C2PMSG_64 */
#define PSP_RING_STATUS 0x8000ffffu /* ready, and no error */

struct psp_frame {
    u32 command_lo, command_hi, command_bytes, fence_lo, fence_hi, fence, sid_lo, sid_hi;
    u8 vmid, type, pad[2];
    u32 pad2[7];
};
_Static_assert(sizeof(struct psp_frame) == 64, "layout");

enum psp_command_id {
    PSP_CMD_SETUP_TMR = 5, PSP_CMD_LOAD_IP_FW = 6, PSP_CMD_LOAD_TOC = 0x20,
    PSP_CMD_AUTOLOAD_RLC = 0x21,
};
struct psp_command {
    u32 bytes, version, id, response_lo, response_hi, response_offset, response_bytes;
    u32 argument[6]; /* address lo, hi, bytes; then type, or for SETUP_TMR flags, system lo, hi */
    u8 pad[812];
    struct {
        u32 status, session, address_lo, address_hi, tmr_bytes, pad[19];
    } response;
    u8 pad2[64];
};
_Static_assert(sizeof(struct psp_command) == 1024 && offsetof(struct psp_command, response) == 864,
               "layout");
#define PSP_TMR_VIRT_PHYS 2u       /* both addresses are given */
#define PSP_TMR_ALIGN     0x100000u /* Linux: PSP_TMR_ALIGNMENT */

enum psp_firmware {
    PSP_FW_RLC_V = 7, PSP_FW_RLC_G = 8, PSP_FW_SMU = 18, PSP_FW_RLC_P = 25, PSP_FW_RLC_IRAM = 26,
    PSP_FW_RLC_DRAM = 48, PSP_FW_IMU_I = 68, PSP_FW_IMU_D = 69, PSP_FW_SDMA_TH0 = 71,
    PSP_FW_SDMA_TH1 = 72, PSP_FW_MEC = 89, PSP_FW_MEC_STACK = 94,
};

/* ---- the power controller (MP1): mailbox C2PMSG_66, 82, 90; debug 75, 53, 54 ---- */

enum smu_message {
    SMU_GET_VERSION = 2, SMU_GET_INTERFACE_VERSION = 3, SMU_ENABLE_ALL = 6, SMU_TABLE_HIGH = 0xe,
    SMU_TABLE_LOW = 0xf, SMU_TABLE_TO_DRAM = 0x12, SMU_SOFT_MIN = 0x19, SMU_SOFT_MAX = 0x1a,
    SMU_GET_DPM = 0x1f, SMU_DISALLOW_GFXOFF = 0x29, SMU_MODE1_RESET = 0x2f, SMU_SET_PPT = 0x32,
    SMU_GET_PPT = 0x33,
};
#define SMU_DEBUG_MODE1_RESET 2u
enum smu_answer {
    SMU_OK = 1, SMU_BUSY = 0xfc, SMU_NOT_YET = 0xfd, SMU_UNKNOWN = 0xfe, SMU_FAILED = 0xff
};
enum smu_clock { SMU_GFXCLK, SMU_SOCCLK, SMU_UCLK, SMU_FCLK };
#define SMU_DPM_COUNT     0xffu /* as index: how many levels */
#define SMU_TABLE_METRICS 5u

struct smu_metrics { /* the part that is used; the table has 392 bytes */
    u32 clock_mhz[13]; /* by enum smu_clock */
    u16 pad[14];
    u32 counter;
    u16 pad2[10];
    u16 gfx_percent, memory_percent, pad3[2];
    u32 energy;
    u16 socket_w, board_w;
    u16 celsius[13]; /* edge, hot spot, GFX, SOC, memory, ... */
    u16 fan_intake_celsius;
    u8 pcie_rate, pcie_width, fan_percent, pad4;
    u16 fan_rpm, pad5;
};
_Static_assert(offsetof(struct smu_metrics, gfx_percent) == 104 &&
               offsetof(struct smu_metrics, board_w) == 118 &&
               offsetof(struct smu_metrics, fan_rpm) == 152, "layout");

/* ---- page table entries, four levels of 512: 512 GiB, 1 GiB, 2 MiB, 4 KiB each ---- */

#define PTE_VALID       (1ull << 0)
#define PTE_SYSTEM      (1ull << 1)
#define PTE_SNOOPED     (1ull << 2)
#define PTE_EXECUTE     (1ull << 4)
#define PTE_READ        (1ull << 5)
#define PTE_WRITE       (1ull << 6)
#define PTE_FRAGMENT(n) ((u64)(n) << 7) /* 4 KiB << n is contiguous and aligned */
#define PTE_ADDRESS     0x0000fffffffff000ull
#define PTE_UNCACHED    (3ull << 48) /* MTYPE of gfx10 and gfx11 */
#define PTE_LEAF        (1ull << 54) /* in a directory: this is a large page */

/* ---- queue descriptor of a compute queue: v11_compute_mqd, as word numbers ---- */

#define MQD_WORDS      512u
#define MQD_HEADER     0xc0310800u
#define MQD_HQD_FIRST  0x80u /* the words from here are those of CP_MQD_BASE_ADDR and following */
#define MQD_HQD_COUNT  56u
#define MQD_STATIC_SE0 0x17u /* static_thread_mgmt: 0, 1 here, 2, 3 at 0x1a, 4 to 7 at 0x2c */
#define MQD_STATIC_SE2 0x1au
#define MQD_STATIC_SE4 0x2cu

/* ---- PM4 packets ---- */

#define PM4(op, words) (3u << 30 | ((words) - 1) << 16 | (op) << 8) /* words after the header */
enum pm4 {
    PM4_NOP = 0x10, PM4_DISPATCH_DIRECT = 0x15, PM4_PRED_EXEC = 0x23, PM4_WRITE_DATA = 0x37,
    PM4_WAIT_REG_MEM = 0x3c, PM4_INDIRECT_BUFFER = 0x3f, PM4_COPY_DATA = 0x40,
    PM4_EVENT_WRITE = 0x46, PM4_RELEASE_MEM = 0x49, PM4_ACQUIRE_MEM = 0x58, PM4_SET_SH_REG = 0x76,
    PM4_SET_UCONFIG_REG = 0x79,
};
#define PM4_NOP_WORD      0xffff1000u /* a packet of this word alone */
#define PM4_SH_START      0x2c00u
#define PM4_UCONFIG_START 0xc000u

/* WAIT_REG_MEM, first word: what to compare how, and where */
#define PM4_WAIT_EQUAL         3u
#define PM4_WAIT_AT_LEAST      5u
#define PM4_WAIT_MEMORY        0x10u
#define PM4_WAIT_WRITE_THEN    0x40u /* write the first register, wait for the second */
#define PM4_IB_VALID           (1u << 23)
#define PM4_CS_PARTIAL_FLUSH   0x407u /* event 7, index 4 */
#define PM4_DISPATCH_INITIATOR 0x8005u /* enable, start at 000, wave32 */

/* ACQUIRE_MEM, last word */
#define GCR_GLI_INV 0x1u
#define GCR_GLM_WB  0x10u
#define GCR_GLM_INV 0x20u
#define GCR_GLK_WB  0x40u
#define GCR_GLK_INV 0x80u
#define GCR_GLV_INV 0x100u
#define GCR_GL1_INV 0x200u
#define GCR_GL2_INV 0x4000u
#define GCR_GL2_WB  0x8000u
/* RELEASE_MEM, first word: event 0x14 (flush and invalidate, timestamp), index 5 (end of pipe),
 * write back and invalidate GL2, GLM, GL1, GLV in order */
#define PM4_RELEASE_ALL      0x0070f514u
#define PM4_RELEASE_DATA32   (1u << 29)
#define PM4_RELEASE_DATA64   (2u << 29)
#define PM4_RELEASE_CLOCK    (3u << 29)
#define PM4_RELEASE_IRQ      (2u << 24) /* once the data is written */

/* ---- what SQ_IND_INDEX names of a wave: ixSQ_WAVE_* ---- */

enum sq_wave {
    SQ_WAVE_STATUS = 0x102, SQ_WAVE_TRAPSTS = 0x103, SQ_WAVE_PC_LO = 0x108, SQ_WAVE_PC_HI = 0x109
};
#define SQ_STATUS_VALID      0x10000u
#define SQ_STATUS_FATAL_HALT 0x800000u
#define SQ_TRAP_VIOLATION    0x100u
#define SQ_TRAP_ILLEGAL      0x800u
#define WGP_SIMDS            4u
#define SIMD_WAVES           16u

/* ---- SDMA packets ---- */

enum sdma {
    SDMA_NOP = 0, SDMA_COPY = 1, SDMA_WRITE = 2, SDMA_INDIRECT = 4, SDMA_FENCE = 5, SDMA_TRAP = 6,
    SDMA_POLL_REGMEM = 8, SDMA_FILL = 11, SDMA_TIMESTAMP = 13,
};
#define SDMA_COPY_BYTES_MAX 0x400000u /* as Linux: sdma_v6_0_buffer_funcs */
#define SDMA_FENCE_UNCACHED (3u << 16)
#define SDMA_FILL_WORDS     (2u << 30) /* the pattern has 32 bits (Mesa: dword fill) */

/* ---- interrupts: entries of eight words ---- */

#define IH_ENTRY_BYTES     32u
#define IH_CLIENT(word0)   ((word0) & 0xffu)
#define IH_SOURCE(word0)   ((word0) >> 8 & 0xffu)
#define IH_RING(word0)     ((word0) >> 16 & 0xffu)
#define IH_VMID(word0)     ((word0) >> 24 & 0xfu)
#define IH_CONTEXT         4u /* the word of context 0 */
enum ih_client { IH_CLIENT_GFX = 0x0a, IH_CLIENT_VMC = 0x12, IH_CLIENT_GRBM_CP = 0x14 };
enum ih_source {
    IH_UTCL2_FAULT = 0, IH_SDMA_TRAP = 49, IH_CP_EOP = 181, IH_CP_BAD_OPCODE = 183,
    IH_CP_PRIV_REG = 184, IH_CP_PRIV_INSTR = 185, IH_SQ = 239,
};
/* IH_SQ: context 1, bits 7:6: kind; context 0, bits 24:21: which error */
enum ih_sq_kind { IH_SQ_AUTO, IH_SQ_WAVE, IH_SQ_ERROR };
enum ih_sq_error { IH_SQ_FUE, IH_SQ_ILLEGAL, IH_SQ_VIOLATION, IH_SQ_FED };
// clang-format on

#endif
