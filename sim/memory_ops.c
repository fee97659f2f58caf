/*
 * memory_ops.c: what each memory instruction moves, and what each atomic computes. Follows the
 * opcode chapters of AMD's "RDNA3 Instruction Set Architecture" reference.
 */
#include "sim/lane_math.h"
#include "sim/wave.h"

/* ATOMIC(name, type, expression of m = memory, d = data, c = compare) */
#define COMMON_32(X)                                                                               \
    X(add_u32, u32, m + d)                                                                         \
    X(sub_u32, u32, m - d)                                                                         \
    X(min_i32, i32, d < m ? d : m)                                                                 \
    X(max_i32, i32, d >= m ? d : m)                                                                \
    X(min_u32, u32, d < m ? d : m)                                                                 \
    X(max_u32, u32, d >= m ? d : m)                                                                \
    X(and_b32, u32, m &d)                                                                          \
    X(or_b32, u32, m | d)                                                                          \
    X(xor_b32, u32, m ^ d)                                                                         \
    X(inc_u32, u32, m >= d ? 0 : m + 1)                                                            \
    X(dec_u32, u32, m == 0 || m > d ? d : m - 1)
#define COMMON_64(X)                                                                               \
    X(add_u64, u64, m + d)                                                                         \
    X(sub_u64, u64, m - d)                                                                         \
    X(min_i64, i64, d < m ? d : m)                                                                 \
    X(max_i64, i64, d >= m ? d : m)                                                                \
    X(min_u64, u64, d < m ? d : m)                                                                 \
    X(max_u64, u64, d >= m ? d : m)                                                                \
    X(and_b64, u64, m &d)                                                                          \
    X(or_b64, u64, m | d)                                                                          \
    X(xor_b64, u64, m ^ d)                                                                         \
    X(inc_u64, u64, m >= d ? 0 : m + 1)                                                            \
    X(dec_u64, u64, m == 0 || m > d ? d : m - 1)
#define FLOATS(X)                                                                                  \
    X(min_f32, f32, d < m ? d : m)                                                                 \
    X(max_f32, f32, d > m ? d : m)
#define LDS_RTN_AND_NOT(X)                                                                         \
    X(rsub_u32, u32, d - m)                                                                        \
    X(rsub_u64, u64, d - m)                                                                        \
    X(mskor_b32, u32, (m & ~d) | c)                                                                \
    X(mskor_b64, u64, (m & ~d) | c)                                                                \
    X(cmpstore_b32, u32, m == c ? d : m)                                                           \
    X(cmpstore_b64, u64, m == c ? d : m)                                                           \
    X(cmpstore_f32, f32, m == c ? d : m)                                                           \
    X(cmpstore_f64, f64, m == c ? d : m)                                                           \
    X(min_f64, f64, d < m ? d : m)                                                                 \
    X(max_f64, f64, d > m ? d : m)
#define GLOBAL_ONLY(X)                                                                             \
    X(swap_b32, u32, d)                                                                            \
    X(swap_b64, u64, d)                                                                            \
    X(cmpswap_b32, u32, m == c ? d : m)                                                            \
    X(cmpswap_b64, u64, m == c ? d : m)                                                            \
    X(cmpswap_f32, f32, m == c ? d : m)
#define SUBTRACT_CLAMPED(X) X(csub_u32, u32, m < d ? 0 : m - d)
#define ADD_FLOAT(X)        X(add_f32, f32, m + d)
#define WRAP(X)             X(wrap_b32, u32, m >= d ? m - d : m + c)

#define FROM_u32(bits) (u32)(bits)
#define FROM_i32(bits) (i32)(u32)(bits)
#define FROM_f32(bits) f32_of_bits((u32)(bits))
#define FROM_u64(bits) (bits)
#define FROM_i64(bits) (i64)(bits)
#define FROM_f64(bits) f64_of_bits(bits)
#define TO_u32(value)  (value)
#define TO_i32(value)  (u32)(value)
#define TO_f32(value)  bits_of_f32(value)
#define TO_u64(value)  (value)
#define TO_i64(value)  (u64)(value)
#define TO_f64(value)  bits_of_f64(value)
#define BYTES_u32      4
#define BYTES_i32      4
#define BYTES_f32      4
#define BYTES_u64      8
#define BYTES_i64      8
#define BYTES_f64      8
#define FUNCTION(name, T, expression)                                                              \
    static u64 atomic_##name(u64 old, u64 data, u64 compare)                                       \
    {                                                                                              \
        __attribute__((unused)) const T m = FROM_##T(old), d = FROM_##T(data);                     \
        __attribute__((unused)) const T c = FROM_##T(compare);                                     \
        const T result = expression;                                                               \
                                                                                                   \
        return TO_##T(result);                                                                     \
    }
COMMON_32(FUNCTION)
COMMON_64(FUNCTION)
FLOATS(FUNCTION)
LDS_RTN_AND_NOT(FUNCTION)
GLOBAL_ONLY(FUNCTION)
SUBTRACT_CLAMPED(FUNCTION)
ADD_FLOAT(FUNCTION)
WRAP(FUNCTION)

#define ROW(T, function)                                                                           \
    {                                                                                              \
        .kind = MEMORY_ATOMIC, .bytes = BYTES_##T, .atomic = atomic_##function                     \
    }
#define IN_MEMORY(name, T, expression)                                                             \
    [ISA_flat_atomic_##name] = ROW(T, name), [ISA_global_atomic_##name] = ROW(T, name),            \
    [ISA_buffer_atomic_##name] = ROW(T, name),
#define IN_MEMORY_NOT_FLAT(name, T, expression)                                                    \
    [ISA_global_atomic_##name] = ROW(T, name), [ISA_buffer_atomic_##name] = ROW(T, name),
#define IN_LDS(name, T, expression) [ISA_ds_##name] = ROW(T, name),

/* MOVE(name, kind, bytes, half, sign), in four address spaces. */
#define MOVE(name, move, size, part, is_signed)                                                    \
    [ISA_flat_##name] = {MEMORY_##move, size, HALF_##part, is_signed, 0, NULL},                    \
    [ISA_global_##name] = {MEMORY_##move, size, HALF_##part, is_signed, 0, NULL},                  \
    [ISA_scratch_##name] = {MEMORY_##move, size, HALF_##part, is_signed, 0, NULL},                 \
    [ISA_buffer_##name] = {MEMORY_##move, size, HALF_##part, is_signed, 0, NULL},
#define LDS(name, move, size, part, is_signed, stride)                                             \
    [ISA_ds_##name] = {MEMORY_##move, size, HALF_##part, is_signed, stride, NULL},
#define RETURN(name, type, size)                                                                   \
    [ISA_ds_##name##_rtn_##type] = {MEMORY_ATOMIC, size, 0, false, 0, atomic_##name##_##type},

const struct memory_op memory_ops[ISA_OPS] = {
    COMMON_32(IN_MEMORY) COMMON_64(IN_MEMORY) FLOATS(IN_MEMORY) GLOBAL_ONLY(IN_MEMORY)
        ADD_FLOAT(IN_MEMORY) SUBTRACT_CLAMPED(IN_MEMORY_NOT_FLAT) COMMON_32(IN_LDS)
            COMMON_64(IN_LDS) FLOATS(IN_LDS) ADD_FLOAT(IN_LDS) LDS_RTN_AND_NOT(IN_LDS)
    // clang-format off
    RETURN(add, u32, 4)  RETURN(sub, u32, 4)  RETURN(rsub, u32, 4)
    RETURN(inc, u32, 4)  RETURN(dec, u32, 4)  RETURN(min, i32, 4)
    RETURN(max, i32, 4)  RETURN(min, u32, 4)  RETURN(max, u32, 4)
    RETURN(and, b32, 4)  RETURN(or, b32, 4)   RETURN(xor, b32, 4)
    RETURN(mskor, b32, 4) RETURN(cmpstore, b32, 4) RETURN(cmpstore, f32, 4)
    RETURN(min, f32, 4)  RETURN(max, f32, 4)  RETURN(add, f32, 4)
    RETURN(wrap, b32, 4)
    RETURN(add, u64, 8)  RETURN(sub, u64, 8)  RETURN(rsub, u64, 8)
    RETURN(inc, u64, 8)  RETURN(dec, u64, 8)  RETURN(min, i64, 8)
    RETURN(max, i64, 8)  RETURN(min, u64, 8)  RETURN(max, u64, 8)
    RETURN(and, b64, 8)  RETURN(or, b64, 8)   RETURN(xor, b64, 8)
    RETURN(mskor, b64, 8) RETURN(cmpstore, b64, 8) RETURN(cmpstore, f64, 8)
    RETURN(min, f64, 8)  RETURN(max, f64, 8)
    [ISA_ds_storexchg_rtn_b32] = {MEMORY_ATOMIC, 4, 0, false, 0, atomic_swap_b32},
    [ISA_ds_storexchg_rtn_b64] = {MEMORY_ATOMIC, 8, 0, false, 0, atomic_swap_b64},
    [ISA_ds_storexchg_2addr_rtn_b32] = {MEMORY_ATOMIC, 4, 0, false, 4, atomic_swap_b32},
    [ISA_ds_storexchg_2addr_rtn_b64] = {MEMORY_ATOMIC, 8, 0, false, 8, atomic_swap_b64},
    [ISA_ds_storexchg_2addr_stride64_rtn_b32] = {MEMORY_ATOMIC, 4, 0, false, 256, atomic_swap_b32},
    [ISA_ds_storexchg_2addr_stride64_rtn_b64] = {MEMORY_ATOMIC, 8, 0, false, 512, atomic_swap_b64},
    MOVE(load_u8,          LOAD,  1,  NONE, false) MOVE(load_i8,          LOAD,  1,  NONE, true)
    MOVE(load_u16,         LOAD,  2,  NONE, false) MOVE(load_i16,         LOAD,  2,  NONE, true)
    MOVE(load_b32,         LOAD,  4,  NONE, false) MOVE(load_b64,         LOAD,  8,  NONE, false)
    MOVE(load_b96,         LOAD,  12, NONE, false) MOVE(load_b128,        LOAD,  16, NONE, false)
    MOVE(load_d16_u8,      LOAD,  1,  LOW,  false) MOVE(load_d16_i8,      LOAD,  1,  LOW,  true)
    MOVE(load_d16_b16,     LOAD,  2,  LOW,  false) MOVE(load_d16_hi_u8,   LOAD,  1,  HIGH, false)
    MOVE(load_d16_hi_i8,   LOAD,  1,  HIGH, true)  MOVE(load_d16_hi_b16,  LOAD,  2,  HIGH, false)
    MOVE(store_b8,         STORE, 1,  NONE, false) MOVE(store_b16,        STORE, 2,  NONE, false)
    MOVE(store_b32,        STORE, 4,  NONE, false) MOVE(store_b64,        STORE, 8,  NONE, false)
    MOVE(store_b96,        STORE, 12, NONE, false) MOVE(store_b128,       STORE, 16, NONE, false)
    MOVE(store_d16_hi_b8,  STORE, 1,  HIGH, false) MOVE(store_d16_hi_b16, STORE, 2,  HIGH, false)
    LDS(load_u8,           LOAD,  1,  NONE, false, 0) LDS(load_i8,        LOAD,  1,  NONE, true, 0)
    LDS(load_u16,          LOAD,  2,  NONE, false, 0) LDS(load_i16,       LOAD,  2,  NONE, true, 0)
    LDS(load_b32,          LOAD,  4,  NONE, false, 0) LDS(load_b64,       LOAD,  8,  NONE, false, 0)
    LDS(load_b96,          LOAD,  12, NONE, false, 0) LDS(load_b128,      LOAD,  16, NONE, false, 0)
    LDS(load_u8_d16,       LOAD,  1,  LOW,  false, 0) LDS(load_i8_d16,    LOAD,  1,  LOW,  true, 0)
    LDS(load_u16_d16,      LOAD,  2,  LOW,  false, 0) LDS(load_u8_d16_hi, LOAD,  1,  HIGH, false, 0)
    LDS(load_i8_d16_hi,    LOAD,  1,  HIGH, true, 0)
    LDS(load_u16_d16_hi, LOAD, 2,  HIGH, false, 0)
    LDS(store_b8,          STORE, 1,  NONE, false, 0) LDS(store_b16,      STORE, 2,  NONE, false, 0)
    LDS(store_b32,         STORE, 4,  NONE, false, 0) LDS(store_b64,      STORE, 8,  NONE, false, 0)
    LDS(store_b96,         STORE, 12, NONE, false, 0) LDS(store_b128,     STORE, 16, NONE, false, 0)
    LDS(store_b8_d16_hi,   STORE, 1,  HIGH, false, 0)
    LDS(store_b16_d16_hi, STORE, 2, HIGH, false, 0)
    LDS(load_2addr_b32,    LOAD,  4,  NONE, false, 4) LDS(load_2addr_b64, LOAD,  8,  NONE, false, 8)
    LDS(store_2addr_b32,   STORE, 4,  NONE, false, 4) LDS(store_2addr_b64, STORE, 8, NONE, false, 8)
    LDS(load_2addr_stride64_b32,  LOAD,  4, NONE, false, 256)
    LDS(load_2addr_stride64_b64,  LOAD,  8, NONE, false, 512)
    LDS(store_2addr_stride64_b32, STORE, 4, NONE, false, 256)
    LDS(store_2addr_stride64_b64, STORE, 8, NONE, false, 512)
    LDS(load_addtid_b32,   LOAD,  4,  NONE, false, 0)
    LDS(store_addtid_b32, STORE, 4, NONE, false, 0)
    [ISA_global_load_addtid_b32] = {MEMORY_LOAD, 4, 0, false, 0, NULL},
    [ISA_global_store_addtid_b32] = {MEMORY_STORE, 4, 0, false, 0, NULL},
    // clang-format on
};
