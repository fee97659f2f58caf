/*
 * valu.c: runs one vector operation: gathers its operands as rows of 32 lanes with their modifiers,
 * calls the row of valu.def, places the result under EXEC. DPP, VOPD, modes of rounding and
 * denormals, clamp, omod. Knows nothing of what an operation computes.
 */
#include <immintrin.h>
#include <string.h>

#include "sim/wave.h"

#define SIGN_32 0x80000000u
#define SIGN_16 0x8000u

static bool is_half(u32 type)
{
    return type >= TYPE_u16 && type <= TYPE_b16;
}
static bool is_wide(u32 type)
{
    return type >= TYPE_u64 && type <= TYPE_b64;
}
static bool is_float_64(u32 type)
{
    return type == TYPE_f64 || type == TYPE_b64;
}
static bool is_float_32(u32 type)
{
    return type == TYPE_f32 || type == TYPE_b32;
}
static bool is_float_16(u32 type)
{
    return type == TYPE_f16 || type == TYPE_b16;
}

/* ---- operands ---- */

/* 0, 1..64, -1..-16; then 0.5, -0.5, 1, -1, 2, -2, 4, -4, 1/(2 pi) by the operand's width. */
static u64 inline_constant(u32 code, u32 type)
{
    static const u64 f64s[] = {0x3fe0000000000000, 0xbfe0000000000000, 0x3ff0000000000000,
                               0xbff0000000000000, 0x4000000000000000, 0xc000000000000000,
                               0x4010000000000000, 0xc010000000000000, 0x3fc45f306dc9c882};
    static const u32 f32s[] = {0x3f000000, 0xbf000000, 0x3f800000, 0xbf800000, 0x40000000,
                               0xc0000000, 0x40800000, 0xc0800000, 0x3e22f983};
    static const u16 f16s[] = {0x3800, 0xb800, 0x3c00, 0xbc00, 0x4000,
                               0xc000, 0x4400, 0xc400, 0x3118};

    if (code <= ISA_INT_0 + 64)
        return code - ISA_INT_0;
    if (code <= ISA_INT_0 + 80)
        return (u64)(i64)(ISA_INT_0 + 64 - (i32)code);
    if (code == 235) /* apertures: shared base and limit, private base and limit */
        return APERTURE_SHARED;
    if (code == 236)
        return APERTURE_SHARED | 0xffffffff;
    if (code == 237)
        return APERTURE_PRIVATE;
    if (code == 238)
        return APERTURE_PRIVATE | 0xffffffff;
    if (code < ISA_FLOAT || code > ISA_FLOAT + 8)
        return 0;
    if (is_wide(type))
        return f64s[code - ISA_FLOAT];
    return is_half(type) || type == TYPE_pkf ? f16s[code - ISA_FLOAT] : f32s[code - ISA_FLOAT];
}

static u64 literal_value(const struct isa_inst *inst, u32 type)
{
    if (is_float_64(type))
        return (u64)inst->literal << 32;
    return type == TYPE_i64 ? (u64)(i64)(i32)inst->literal : inst->literal;
}

static bool needs_preparing(const struct isa_inst *inst, u32 n, u32 type)
{
    u32 signs = inst->neg | inst->abs;

    if (type == TYPE_pk || type == TYPE_pkf)
        return inst->format == ISA_VOP3P &&
               ((inst->op_sel >> n & 1) || !(inst->op_sel_hi >> n & 1) || (signs >> n & 1));
    if (type == TYPE_mask || type == TYPE_mix || type == TYPE_bytes)
        return false;
    return (signs >> n & 1) || (is_half(type) && (inst->op_sel >> n & 1));
}

void operand_decode(struct uop *uop, u32 n, enum lane_type type)
{
    struct operand *operand = &uop->src[n];
    u32 code = uop->inst.src[n];

    *operand = (struct operand){.type = (u8)type, .rows = is_wide(type) ? 2 : 1};
    if (type == TYPE_none)
        return;
    operand->reg = (u16)(code >= ISA_VGPR ? code - ISA_VGPR : code);
    if (code >= ISA_VGPR)
        operand->source = SOURCE_VGPR;
    else if (code < SCALARS)
        operand->source = SOURCE_SGPR;
    else if (code == ISA_VCCZ || code == ISA_EXECZ || code == ISA_SCC)
        operand->source = SOURCE_SPECIAL;
    else
        operand->source = SOURCE_CONST;
    operand->value =
        code == ISA_LITERAL ? literal_value(&uop->inst, type) : inline_constant(code, type);
    operand->prepare = needs_preparing(&uop->inst, n, type);
}

u64 operand_scalar(const struct wave *wave, const struct operand *operand)
{
    if (operand->source == SOURCE_CONST)
        return operand->value;
    if (operand->source == SOURCE_SGPR)
        return operand->rows == 2 ? wave->s[operand->reg] | (u64)wave->s[operand->reg + 1] << 32
                                  : wave->s[operand->reg];
    return operand->reg == ISA_SCC     ? wave->scc
           : operand->reg == ISA_EXECZ ? wave->EXEC == 0
                                       : wave->VCC == 0;
}

static const u32 *broadcast(struct wave *wave, const struct operand *operand, u32 *rows)
{
    u64 value = operand_scalar(wave, operand);

    VECTOR_LOOP rows[i] = (u32)value;
    if (operand->rows == 2)
        VECTOR_LOOP rows[LANES + i] = (u32)(value >> 32);
    return rows;
}

static inline const u32 *fetch(struct wave *wave, const struct operand *operand, u32 n)
{
    u32 *rows = wave->buffer[n][0], value;

    if (operand->source == SOURCE_VGPR)
        return wave->v[operand->reg];
    if (operand->source != SOURCE_SGPR || operand->rows == 2)
        return broadcast(wave, operand, rows);
    value = wave->s[operand->reg];
    VECTOR_LOOP rows[i] = value;
    return rows;
}

const u32 *operand_lanes(struct wave *wave, const struct uop *uop, u32 n)
{
    return fetch(wave, &uop->src[n], n);
}

/* abs, then neg; halves chosen. */
static void prepare(const struct isa_inst *inst, u32 n, u32 type, const u32 *from, u32 *to)
{
    u32 neg = inst->neg >> n & 1, abs = inst->abs >> n & 1, high = inst->op_sel >> n & 1;
    u32 keep = abs ? SIGN_32 - 1 : ~0u, flip = neg ? SIGN_32 : 0;

    if (type == TYPE_pk || type == TYPE_pkf) {
        u32 low_shift = 16 * high, high_shift = inst->op_sel_hi >> n & 1 ? 16 : 0;
        u32 signs = (neg ? SIGN_16 : 0) | (abs ? SIGN_32 : 0);
        VECTOR_LOOP to[i] = ((from[i] >> low_shift & 0xffff) | from[i] >> high_shift << 16) ^ signs;
    } else if (is_half(type)) {
        u32 shift = 16 * high, keep_16 = abs ? SIGN_16 - 1 : 0xffff, flip_16 = neg ? SIGN_16 : 0;
        VECTOR_LOOP to[i] = (from[i] >> shift & keep_16) ^ flip_16;
    } else if (is_wide(type)) {
        VECTOR_LOOP to[i] = from[i];
        VECTOR_LOOP to[LANES + i] = (from[LANES + i] & keep) ^ flip;
    } else {
        if (inst->format == ISA_VOP3P) /* what says neg_hi for halves is no abs here */
            keep = ~0u;
        VECTOR_LOOP to[i] = (from[i] & keep) ^ flip;
    }
}

/* Denormals to zero, in place. */
static void flush_lanes(u32 type, u32 *rows)
{
    if (is_float_32(type))
        VECTOR_LOOP rows[i] &= rows[i] & 0x7f800000 ? ~0u : SIGN_32;
    if (is_float_64(type))
        VECTOR_LOOP
        {
            bool normal = rows[LANES + i] & 0x7ff00000;
            rows[i] &= normal ? ~0u : 0;
            rows[LANES + i] &= normal ? ~0u : SIGN_32;
        }
    if (is_float_16(type) || type == TYPE_pkf)
        VECTOR_LOOP
        {
            u32 low = rows[i] & 0x7c00 ? 0xffff : SIGN_16;
            u32 high = rows[i] & 0x7c000000 ? 0xffff0000 : SIGN_32;
            rows[i] &= low | high;
        }
}

static bool flushes(const struct wave *wave, u32 type, u32 keep)
{
    u32 denorm = is_float_32(type) ? MODE_DENORM_F32(wave->mode) : MODE_DENORM_F64(wave->mode);

    return !(denorm & keep);
}

static const u32 *source(struct wave *wave, const struct uop *uop, u32 n)
{
    const struct operand *operand = &uop->src[n];
    const u32 *rows;
    u32 *own = wave->buffer[n][0];

    if (operand->source == SOURCE_NONE || operand->type == TYPE_mask)
        return NULL;
    rows = fetch(wave, operand, n);
    if (operand->prepare) {
        prepare(&uop->inst, n, operand->type, rows, own);
        rows = own;
    }
    if (!wave->plain_mode && flushes(wave, operand->type, DENORM_KEEP_IN)) {
        if (rows != own)
            memcpy(own, rows, operand->rows * sizeof(lanes));
        flush_lanes(operand->type, own);
        rows = own;
    }
    return rows;
}

/* ---- DPP: src0 is read across lanes ---- */

u32 dpp_lanes(const struct isa_inst *inst, u32 exec, u8 from[LANES])
{
    u32 takes_part = exec;

    for (u32 i = 0; i < LANES; i++) {
        u32 control = inst->dpp_ctrl, row = i & ~15u, at = i & 15, low = control & 15;
        bool valid = true;
        i32 lane = (i32)at;

        if (inst->dpp == ISA_DPP8) {
            from[i] = (u8)((i & ~7u) + (inst->dpp8 >> 3 * (i & 7) & 7));
        } else {
            if (control < 0x100)
                lane = (i32)((at & ~3u) + (control >> 2 * (at & 3) & 3)); /* quad_perm */
            else if (control < 0x110)
                lane = (i32)(at + low); /* row_shl */
            else if (control < 0x120)
                lane = (i32)at - (i32)low; /* row_shr */
            else if (control < 0x130)
                lane = (i32)((at - low) & 15); /* row_ror */
            else if (control == 0x140)
                lane = (i32)(15 - at); /* row_mirror */
            else if (control == 0x141)
                lane = (i32)(at ^ 7); /* row_half_mirror */
            else if (control >= 0x150 && control < 0x160)
                lane = (i32)low; /* row_share */
            else if (control >= 0x160)
                lane = (i32)(at ^ low); /* row_xmask */
            valid = lane >= 0 && lane < 16;
            from[i] = (u8)(row + (valid ? (u32)lane : at));
            if (!(inst->row_mask >> row / 16 & 1) || !(inst->bank_mask >> at / 4 & 1))
                takes_part &= ~(1u << i);
        }
        if (!inst->fetch_inactive && !(exec >> from[i] & 1))
            valid = false;
        if (valid)
            continue;
        from[i] = LANES; /* reads 0, or the lane takes no part */
        if (!inst->bound_ctrl && inst->dpp == ISA_DPP16)
            takes_part &= ~(1u << i);
    }
    return takes_part;
}

/* ---- results ---- */

void lanes_store(u32 *to, const u32 *from, u32 exec)
{
    VECTOR_LOOP to[i] = exec >> i & 1 ? from[i] : to[i];
}

static void half_store(u32 *to, const u32 *from, u32 exec, bool high)
{
    u32 shift = high ? 16 : 0, keep = high ? 0xffff : 0xffff0000;

    VECTOR_LOOP to[i] = exec >> i & 1 ? (to[i] & keep) | from[i] << shift : to[i];
}

static f64 modified(const struct uop *uop, f64 value, bool omod, bool dx10)
{
    static const f64 factor[] = {1, 2, 4, 0.5};

    if (omod)
        value *= factor[uop->inst.omod];
    if (!uop->inst.clamp)
        return value;
    if (value != value)
        return dx10 ? 0 : value;
    return value < 0 ? 0 : value > 1 ? 1 : value;
}

static u32 half_modified(const struct uop *uop, u32 half, bool omod, bool dx10)
{
    f64 value = modified(uop, _cvtsh_ss((u16)half), omod, dx10);

    return _cvtss_sh((f32)value, _MM_FROUND_CUR_DIRECTION);
}

/* omod works where the ISA lets it: not with IEEE rules, not where results may be denormal. */
static void modify(struct wave *wave, const struct uop *uop, u32 *rows)
{
    u32 type = uop->valu->result;
    bool flush = !wave->plain_mode && flushes(wave, type, DENORM_KEEP_OUT);
    bool omod = uop->inst.omod && flush && !(wave->mode & MODE_IEEE);
    bool dx10 = wave->mode & MODE_DX10_CLAMP;

    if (flush)
        flush_lanes(type, rows);
    if (!omod && !uop->inst.clamp)
        return;
    for (u32 i = 0; i < LANES; i++) {
        if (is_float_32(type)) {
            f32 value;
            memcpy(&value, &rows[i], sizeof value);
            value = (f32)modified(uop, value, omod, dx10);
            memcpy(&rows[i], &value, sizeof value);
        } else if (is_float_64(type)) {
            u64 bits = rows[i] | (u64)rows[LANES + i] << 32;
            f64 value;
            memcpy(&value, &bits, sizeof value);
            value = modified(uop, value, omod, dx10);
            memcpy(&bits, &value, sizeof value);
            rows[i] = (u32)bits;
            rows[LANES + i] = (u32)(bits >> 32);
        } else if (is_float_16(type) || type == TYPE_pkf) {
            u32 high = type == TYPE_pkf ? half_modified(uop, rows[i] >> 16, omod, dx10) : 0;
            rows[i] = half_modified(uop, rows[i] & 0xffff, omod, dx10) | high << 16;
        }
    }
}

static void place(struct wave *wave, const struct uop *uop, u32 *rows, u32 exec)
{
    u32 type = uop->valu->result;
    u32 *to = wave->v[(uop->inst.dst - ISA_VGPR) & (VGPRS_MAX - 1)];
    bool high = uop->inst.op == ISA_v_fma_mixhi_f16 ||
                (uop->inst.op != ISA_v_fma_mixlo_f16 && (uop->inst.op_sel & 8));

    if (is_half(type))
        half_store(to, rows, exec, high);
    else
        for (u32 row = 0; row < uop->row->dst_regs; row++)
            lanes_store(to + row * LANES, rows + row * LANES, exec);
}

/* ---- running ---- */

/* Rounding as the mode says for this type; MXCSR's directions are in another order. */
static u32 rounding_set(const struct wave *wave, u32 type)
{
    static const u32 direction[] = {_MM_ROUND_NEAREST, _MM_ROUND_UP, _MM_ROUND_DOWN,
                                    _MM_ROUND_TOWARD_ZERO};
    u32 before = _mm_getcsr();
    u32 mode = is_float_32(type) ? MODE_ROUND_F32(wave->mode) : MODE_ROUND_F64(wave->mode);

    _mm_setcsr((before & ~(u32)_MM_ROUND_MASK) | direction[mode]);
    return before;
}

static void compute(struct wave *wave, const struct uop *uop, struct lane_args *args)
{
    if (wave->plain_mode || !uop->rounds) {
        uop->lanes(args);
    } else {
        u32 before = rounding_set(wave, uop->valu->result);
        uop->lanes(args);
        _mm_setcsr(before);
    }
}

static void scalar_results(struct wave *wave, const struct uop *uop, u32 out, u32 exec)
{
    if (uop->valu->result != TYPE_mask) {
        if (uop->row->flags & ISA_SDST && uop->inst.sdst != ISA_NULL)
            wave->s[uop->inst.sdst] = out & exec;
    } else if (uop->row->flags & ISA_WR_EXEC) {
        wave->EXEC = out & exec;
    } else if (uop->inst.dst != ISA_NULL) {
        wave->s[uop->inst.dst] = out & exec;
    }
}

static struct lane_args arguments(struct wave *wave, const struct uop *uop)
{
    struct lane_args args = {
        .ieee = wave->mode & MODE_IEEE,
        .uop = uop,
    };

    for (u32 n = 0; n < 3; n++)
        args.s[n] = source(wave, uop, n);
    if (uop->src[2].type == TYPE_mask)
        args.in = (u32)operand_scalar(wave, &uop->src[2]);
    else if (uop->row->flags & ISA_RD_VCC)
        args.in = wave->VCC;
    return args;
}

static void run_direct(struct wave *wave, const struct uop *uop)
{
    struct lane_args args = arguments(wave, uop);
    u32 exec = wave->EXEC;

    if (exec == LANES_ALL && wave->plain_mode) {
        args.d = wave->v[uop->inst.dst - ISA_VGPR];
        uop->lanes(&args);
        return;
    }
    args.d = wave->result[0];
    compute(wave, uop, &args);
    if (!wave->plain_mode)
        modify(wave, uop, args.d);
    place(wave, uop, args.d, exec);
}

/* The common case: no modifiers, all lanes, the mode that compilers set. */
static void run_simple(struct wave *wave, const struct uop *uop)
{
    struct lane_args args;

    if (wave->EXEC != LANES_ALL || !wave->plain_mode) {
        run_direct(wave, uop);
        return;
    }
    args.ieee = wave->mode & MODE_IEEE;
    args.uop = uop;
    for (u32 n = 0; n < uop->sources; n++)
        args.s[n] = fetch(wave, &uop->src[n], n);
    args.d = wave->v[uop->inst.dst - ISA_VGPR];
    uop->lanes(&args);
}

static void run_general(struct wave *wave, const struct uop *uop)
{
    struct lane_args args = arguments(wave, uop);
    u32 exec = wave->EXEC;
    lanes across[2];
    u8 from[LANES];

    if (uop->inst.dpp) {
        exec = dpp_lanes(&uop->inst, exec, from);
        for (u32 i = 0; i < LANES; i++)
            across[0][i] = from[i] < LANES ? args.s[0][from[i]] : 0;
        args.s[0] = across[0];
    }
    args.d = wave->result[0];
    compute(wave, uop, &args);
    if (uop->inst.clamp || uop->inst.omod || !wave->plain_mode)
        modify(wave, uop, args.d);
    if (uop->valu->result != TYPE_mask)
        place(wave, uop, args.d, exec);
    scalar_results(wave, uop, args.out, exec);
}

/* The common case of comparisons and carries. */
static void run_mask(struct wave *wave, const struct uop *uop)
{
    struct lane_args args;
    u32 exec = wave->EXEC;
    bool compares = uop->valu->result == TYPE_mask;

    if ((exec != LANES_ALL && !compares) || !wave->plain_mode) {
        run_general(wave, uop);
        return;
    }
    for (u32 n = 0; n < uop->sources; n++)
        if (uop->src[n].type == TYPE_mask)
            args.in = (u32)operand_scalar(wave, &uop->src[n]);
        else
            args.s[n] = fetch(wave, &uop->src[n], n);
    args.ieee = wave->mode & MODE_IEEE;
    args.uop = uop;
    args.d = compares ? wave->result[0] : wave->v[uop->inst.dst - ISA_VGPR];
    uop->lanes(&args);
    scalar_results(wave, uop, args.out, exec);
}

/* Both halves read before either writes. */
static void run_dual(struct wave *wave, const struct uop *uop)
{
    struct lane_args args = arguments(wave, uop);

    args.d = wave->result[0];
    compute(wave, uop, &args);
    if (!wave->plain_mode)
        modify(wave, uop, args.d);
    args = arguments(wave, uop->y);
    args.d = wave->result[1];
    compute(wave, uop->y, &args);
    if (!wave->plain_mode)
        modify(wave, uop->y, args.d);
    place(wave, uop, wave->result[0], wave->EXEC);
    place(wave, uop->y, wave->result[1], wave->EXEC);
}

/* ---- decoding ---- */

static bool rounds(const struct uop *uop)
{
    u32 op = uop->inst.op;

    return !(uop->row->flags & ISA_TRANS) && op != ISA_v_rndne_f32 && op != ISA_v_rndne_f64 &&
           op != ISA_v_rndne_f16;
}

static bool decode_half(struct uop *uop)
{
    const struct valu_op *valu = &valu_ops[uop->inst.op];
    bool integer = valu->result != TYPE_pkf && !is_float_16(valu->result) &&
                   !is_float_32(valu->result) && !is_float_64(valu->result);

    bool prepared = false, masked = false, plain, scalar;

    if (!valu->run)
        return false;
    uop->valu = valu;
    uop->lanes = uop->inst.clamp && integer && valu->saturate
                     ? valu->saturate
                     : lanes_on_this_host(&uop->inst, valu->run);
    if (uop->row->flags & ISA_RD_DST && !uop->row->src_regs[2])
        uop->inst.src[2] = uop->inst.dst; /* fmac: the sum so far */
    for (u32 n = 0; n < 3; n++) {
        operand_decode(uop, n, valu->type[n]);
        uop->sources = valu->type[n] != TYPE_none ? (u8)(n + 1) : uop->sources;
        prepared |= uop->src[n].prepare;
        masked |= valu->type[n] == TYPE_mask;
    }
    uop->simple = !prepared && !(uop->row->flags & ISA_RD_VCC);
    uop->rounds = rounds(uop);
    plain = !uop->inst.clamp && !uop->inst.omod && !uop->inst.dpp && !is_half(valu->result);
    scalar = valu->result == TYPE_mask || uop->row->flags & ISA_SDST;
    uop->direct = plain && !scalar;
    uop->run = uop->direct                      ? uop->simple && !masked ? run_simple : run_direct
               : plain && scalar && uop->simple ? run_mask
                                                : run_general;
    return true;
}

static u8 class_of(const struct uop *uop)
{
    const char *name = uop->row->name;

    if (uop->row->flags & ISA_TRANS)
        return CLASS_TRANS;
    return !strncmp(name, "v_dot", 5) ? CLASS_DOT : CLASS_VALU;
}

bool valu_decode(struct uop *uop)
{
    if (!decode_half(uop))
        return false;
    uop->class = class_of(uop);
    if (uop->inst.format != ISA_VOPD)
        return true;
    uop->y->inst = (struct isa_inst){.op = uop->inst.y.op,
                                     .format = ISA_VOPD,
                                     .dst = uop->inst.y.dst,
                                     .sdst = ISA_NULL,
                                     .literal = uop->inst.literal,
                                     .op_sel_hi = 7};
    memcpy(uop->y->inst.src, uop->inst.y.src, sizeof uop->inst.y.src);
    uop->y->row = &isa_rows[uop->inst.y.op];
    uop->class = CLASS_VOPD;
    uop->run = run_dual;
    return decode_half(uop->y);
}
