/*
 * x86_select.c: instruction selection: LIR to rows of x86.def over virtual registers. Every LIR operation has one entry in
 * the table at the end: a row and the function that writes it. Loads with one user become its memory operand, constants are
 * made once at the kernel's entry. Knows no physical registers but rax and rdx (division, moves into vectors) and k1.
 */
#include "ml/compile/x86.h"

#define FOLD_REACH 128u         /* how far behind a load its user may stand */
#define MINSTRS_PER_LIR 14u     /* the longest expansion */
#define INT8_PAIR_SAFE_MAX 128  /* unsigned bytes up to here: two products by int8 never exceed int16 */

enum { HEAD, BODY, STREAMS };   /* entry code, then the rest */

struct constant {
    u64 key;
    u16 vreg;
};

struct open_loop {
    const struct lir_instr *instr;
    u32 id;
    bool single_trip;
};

struct select {
    const struct lir *lir;
    const struct target *target;
    bool wide;                     /* AVX-512 */
    u8 size;                       /* of the instruction at hand */
    struct minstr *stream[STREAMS];
    u32 count[STREAMS], max[STREAMS], at;
    struct mcode *out;
    struct constant *constant;
    u32 constant_count, constant_max;
    struct open_loop open[LIR_LOOP_DEPTH_MAX];
    u32 depth, loop_count;
    err status;
    u16 uses[LIR_VREGS_MAX];
    u16 writes[LIR_VREGS_MAX];
    u16 writer[LIR_VREGS_MAX];     /* the last instruction that writes it */
    u16 name[LIR_VREGS_MAX];       /* LIR register to machine register */
    bool folded[LIR_VREGS_MAX];    /* its writer is part of its user */
    bool *has_memory;              /* by instruction: a load was folded into it */
};

typedef void expand(struct select *s, const struct lir_instr *in, u16 row);
struct pattern {
    expand *expand;
    u16 row;
};
static const struct pattern patterns[LIR_OP_COUNT];

/* ---- writing machine instructions ---- */

static struct minstr *put(struct select *s, u16 row, u16 dst, u16 a, u16 b)
{
    const struct x86_form *form = &x86_forms[x86_rows[row].form];
    struct minstr *instr = &s->stream[s->at][s->count[s->at]];
    bool commutes = x86_rows[row].traits & T_C;

    if (s->count[s->at] == s->max[s->at])
        s->status = E_LIMIT;
    else
        s->count[s->at]++;
    *instr = (struct minstr){.row = row, .size = s->size, .tied = form->tied};
    instr->flags = form->tied && !commutes ? MI_APART : 0;
    instr->op[0] = dst;
    instr->op[1] = a;
    instr->op[2] = b;
    instr->op[3] = LIR_NONE;
    instr->mem.base = instr->mem.index = LIR_NONE;
    return instr;
}

static void put_imm(struct select *s, u16 row, u16 dst, u16 a, i64 imm)
{
    put(s, row, dst, a, LIR_NONE)->imm = imm;
}

static void put_binary_imm(struct select *s, u16 row, u16 dst, const u16 source[2], i64 imm)
{
    put(s, row, dst, source[0], source[1])->imm = imm;
}

static struct minstr *put_memory(struct select *s, u16 row, u16 dst, u16 a, const struct lir_mem *mem)
{
    struct minstr *instr = put(s, row, dst, a, LIR_NONE);

    instr->flags |= MI_MEMORY;
    instr->mem = *mem;
    return instr;
}

static u16 temporary(struct select *s, enum lir_class class)
{
    if (s->out->vreg_count == MACHINE_VREGS_MAX - 1) {
        s->status = E_LIMIT;
        return 0;
    }
    s->out->class[s->out->vreg_count] = (u8)class;
    return (u16)s->out->vreg_count++;
}

static u16 vector(struct select *s)
{
    return temporary(s, LIR_VECTOR);
}

static u8 full_size(const struct select *s)
{
    return s->wide ? 2 : 1;
}

/* Operand k of instr is v: its register, or the memory that was folded. */
static void use(struct select *s, struct minstr *instr, u32 k, u16 v)
{
    const struct lir_instr *load = &s->lir->instr[s->writer[v]];

    if (!s->folded[v]) {
        instr->op[k] = s->name[v];
        return;
    }
    instr->op[k] = LIR_NONE;
    instr->mem = load->mem;
    instr->flags |= load->op == LIR_V_BCAST ? MI_MEMORY | MI_BROADCAST : MI_MEMORY;
}

/* ---- constants: one register for each value, made at the entry ---- */

#define KEY_IOTA (1ull << 32)

static void make_iota(struct select *s, u16 dst)
{
    const u64 low = 0x0706050403020100, high = 0x0f0e0d0c0b0a0908;
    u16 bytes = vector(s), more = vector(s);

    s->size = 0;
    put_imm(s, X_MOV_I64, X86_FIXED(RAX), LIR_NONE, (i64)low);
    put(s, X_VMOVQ, bytes, X86_FIXED(RAX), LIR_NONE);
    put_imm(s, X_MOV_I64, X86_FIXED(RAX), LIR_NONE, (i64)high);
    put(s, X_VPINSRQ, more, bytes, X86_FIXED(RAX))->imm = 1;
    s->size = full_size(s);
    put(s, X_VPMOVZXBD, dst, more, LIR_NONE);
}

static void make_constant(struct select *s, u16 dst, u32 bits)
{
    s->size = full_size(s);
    if (bits == 0) {
        s->size = 0; /* clears the whole register, in the short encoding */
        put(s, X_VPXOR, dst, LIR_NONE, LIR_NONE)->flags |= MI_SELF;
    } else if (bits == UINT32_MAX) {
        struct minstr *ones = put(s, s->wide ? X_VPTERNLOGD : X_VPCMPEQD, dst, LIR_NONE, LIR_NONE);
        ones->flags |= MI_SELF;
        ones->imm = 0xff;
    } else {
        put_imm(s, X_MOV_I32, X86_FIXED(RAX), LIR_NONE, bits);
        if (s->wide) {
            put(s, X_VPBROADCASTD_G, dst, X86_FIXED(RAX), LIR_NONE);
        } else {
            u16 low = vector(s);
            put(s, X_VMOVD, low, X86_FIXED(RAX), LIR_NONE)->size = 0;
            put(s, X_VBROADCASTSS, dst, low, LIR_NONE);
        }
    }
}

static u16 constant(struct select *s, u64 key)
{
    u8 size = s->size;
    u32 at = s->at, i = 0;

    while (i < s->constant_count && s->constant[i].key != key)
        i++;
    if (i < s->constant_count)
        return s->constant[i].vreg;
    if (i == s->constant_max) {
        s->status = E_LIMIT;
        return s->constant[0].vreg;
    }
    s->constant[i] = (struct constant){key, vector(s)};
    s->constant_count++;
    s->at = HEAD;
    if (key == KEY_IOTA)
        make_iota(s, s->constant[i].vreg);
    else
        make_constant(s, s->constant[i].vreg, (u32)key);
    s->at = at;
    s->size = size;
    return s->constant[i].vreg;
}

static void to_constant(struct select *s, const struct lir_instr *in, u16 row)
{
    u64 key = in->op == LIR_V_IOTA ? KEY_IOTA : (u32)in->imm;

    if (s->writes[in->dst] == 1)
        s->name[in->dst] = constant(s, key);
    else if (key == 0)
        make_constant(s, in->dst, 0);
    else
        put(s, row, in->dst, constant(s, key), LIR_NONE);
}

/* ---- scalar ---- */

static void set_scalar(struct select *s, u16 dst, i64 imm)
{
    u16 row = X_MOV_I64;

    if (imm >= 0 && imm <= UINT32_MAX)
        row = X_MOV_I32;
    else if (imm >= INT32_MIN && imm < 0)
        row = X_MOV_SX32;
    put_imm(s, row, dst, LIR_NONE, imm);
}

/* Written once, by S_CONST, and short enough for an immediate. */
static bool is_immediate(const struct select *s, u16 v)
{
    const struct lir_instr *writer = &s->lir->instr[s->writer[v]];

    return s->writes[v] == 1 && writer->op == LIR_S_CONST && writer->imm >= INT32_MIN &&
           writer->imm <= INT32_MAX;
}

static i64 immediate(const struct select *s, u16 v)
{
    return s->lir->instr[s->writer[v]].imm;
}

static void scalar_constant(struct select *s, const struct lir_instr *in, u16 row)
{
    (void)row;
    set_scalar(s, in->dst, in->imm);
}

static void scalar_binary(struct select *s, const struct lir_instr *in, u16 row)
{
    put(s, row, in->dst, in->a, in->b);
}

static void scalar_immediate(struct select *s, const struct lir_instr *in, u16 row)
{
    i64 imm = in->imm;

    if (in->op == LIR_S_MULI && imm > 0 && !(imm & (imm - 1))) {
        row = X_SHL_I;
        imm = __builtin_ctzll((u64)imm);
    }
    if (row == X_SHL_I && imm == 1)
        put(s, X_ADD, in->dst, in->a, in->a);
    else if ((row == X_SHL_I || row == X_SAR_I || row == X_ADD_I) && imm == 0)
        put(s, X_MOV, in->dst, in->a, LIR_NONE);
    else
        put_imm(s, row, in->dst, in->a, imm);
}

static void scalar_choose(struct select *s, const struct lir_instr *in, u16 row)
{
    put(s, X_CMP, LIR_NONE, in->a, in->b);
    put(s, row, in->dst, in->a, in->b);
}

static void scalar_divide(struct select *s, const struct lir_instr *in, u16 row)
{
    u16 rax = X86_FIXED(RAX), rdx = X86_FIXED(RDX);

    put(s, X_MOV, rax, in->a, LIR_NONE);
    put(s, X_XOR32, rdx, rdx, rdx);
    put(s, row, LIR_NONE, in->b, LIR_NONE);
    put(s, X_MOV, in->dst, in->op == LIR_S_DIV ? rax : rdx, LIR_NONE);
}

static void scalar_load(struct select *s, const struct lir_instr *in, u16 row)
{
    struct lir_mem mem = in->mem;

    if (in->op == LIR_S_ARG)
        mem = (struct lir_mem){.base = LIR_ARGS, .index = LIR_NONE, .disp = (i32)(in->imm * 8)};
    else if (in->mem_type == DT_I8)
        row = X_MOVSX8;
    else if (in->mem_type == DT_U8)
        row = X_MOVZX8;
    put_memory(s, row, in->dst, LIR_NONE, &mem);
}

static void scalar_store(struct select *s, const struct lir_instr *in, u16 row)
{
    put_memory(s, row, LIR_NONE, in->a, &in->mem);
}

static void scalar_move(struct select *s, const struct lir_instr *in, u16 row)
{
    put(s, row, in->dst, in->a, LIR_NONE);
}

/* ---- loops: tested before the first trip where that is not known, then at the bottom ---- */

static void compare_counter(struct select *s, const struct lir_instr *loop)
{
    if (is_immediate(s, loop->b))
        put_imm(s, X_CMP_I, LIR_NONE, loop->dst, immediate(s, loop->b));
    else
        put(s, X_CMP, LIR_NONE, loop->dst, loop->b);
}

static void loop_head(struct select *s, const struct lir_instr *in, u16 row)
{
    bool known = is_immediate(s, in->a) && is_immediate(s, in->b);
    struct open_loop *loop = &s->open[s->depth++];

    *loop = (struct open_loop){.instr = in, .id = s->loop_count++};
    if (is_immediate(s, in->a))
        set_scalar(s, in->dst, immediate(s, in->a));
    else
        put(s, X_MOV, in->dst, in->a, LIR_NONE);
    if (!known || immediate(s, in->a) >= immediate(s, in->b)) {
        compare_counter(s, in);
        put_imm(s, X_JGE, LIR_NONE, LIR_NONE, 2 * loop->id + 1);
    }
    loop->single_trip = known && immediate(s, in->a) + in->imm >= immediate(s, in->b);
    put_imm(s, row, LIR_NONE, LIR_NONE, loop->id);
}

static void loop_end(struct select *s, const struct lir_instr *in, u16 row)
{
    const struct open_loop *loop = &s->open[--s->depth];
    (void)in;

    if (!loop->single_trip) {
        put_imm(s, X_ADD_I, loop->instr->dst, loop->instr->dst, loop->instr->imm);
        compare_counter(s, loop->instr);
        put_imm(s, X_JL, LIR_NONE, LIR_NONE, 2 * loop->id);
    }
    put_imm(s, row, LIR_NONE, LIR_NONE, loop->id);
}

/* ---- loads and stores ---- */

/* By enum dtype: full vector from memory, one element to all places, then the conversion of a register. */
static const struct widening {
    u16 load, spread, convert;
} widenings[DT_COUNT] = {
    [DT_F16] = {X_VCVTPH2PS, X_VPBROADCASTW, X_VCVTPH2PS},
    [DT_BF16] = {X_VPMOVZXWD, X_VPBROADCASTW, X_VPSLLD},
    [DT_I8] = {X_VPMOVSXBD, X_VPBROADCASTB, X_VPMOVSXBD},
    [DT_U8] = {X_VPMOVZXBD, X_VPBROADCASTB, X_VPMOVZXBD},
};

static void load_vector(struct select *s, const struct lir_instr *in, u16 row)
{
    const struct widening *wide = &widenings[in->mem_type];
    bool one = in->lanes == 1 || in->op == LIR_V_BCAST;

    if (in->mem_type == DT_F32 || in->mem_type == DT_I32) {
        put_memory(s, in->lanes == 1 ? X_VMOVSS : row, in->dst, LIR_NONE, &in->mem);
    } else if (one || in->mem_type == DT_BF16) {
        u16 raw = vector(s);
        put_memory(s, one ? wide->spread : wide->load, raw, LIR_NONE, &in->mem);
        put_imm(s, wide->convert, in->dst, raw, 16); /* the shift of BF16 */
    } else {
        put_memory(s, wide->load, in->dst, LIR_NONE, &in->mem);
    }
}

static void choose(struct select *s, u16 dst, u16 mask, const u16 either[2])
{
    struct minstr *instr = put(s, s->wide ? X_VBLENDMPS : X_VBLENDVPS, dst, either[1], either[0]);

    instr->op[3] = s->wide ? LIR_NONE : mask;
    instr->flags |= s->wide ? MI_MASKED : 0;
}

/* Nearest even by adding 0x7fff and the lowest kept bit; a NaN stays one (its payload could be rounded away). */
static u16 round_to_bf16(struct select *s, u16 x)
{
    const u8 unordered = 3;
    u16 high = vector(s), odd = vector(s), sum = vector(s), rounded = vector(s);
    u16 quiet = vector(s), dst = vector(s), mask = s->wide ? X86_FIXED(X86_MASK) : vector(s);

    put_imm(s, X_VPSRLD, high, x, 16);
    put(s, X_VPAND, odd, high, constant(s, 1));
    put(s, X_VPADDD, sum, x, odd);
    put(s, X_VPADDD, sum, sum, constant(s, 0x7fff));
    put_imm(s, X_VPSRLD, rounded, sum, 16);
    put(s, X_VPOR, quiet, high, constant(s, 0x40));
    put_binary_imm(s, s->wide ? X_VCMPPS_K : X_VCMPPS, mask, (u16[]){x, x}, unordered);
    choose(s, dst, mask, (u16[]){quiet, rounded});
    return dst;
}

/* The low 16 or 8 bits of each lane. */
static void store_narrow(struct select *s, u16 value, u32 bytes, const struct lir_mem *mem)
{
    u16 words = vector(s);

    if (!s->size) {
        put_memory(s, bytes == 1 ? X_VPEXTRB_ST : X_VPEXTRW_ST, LIR_NONE, value, mem);
        return;
    }
    if (s->wide) {
        put_memory(s, bytes == 1 ? X_VPMOVDB_ST : X_VPMOVDW_ST, LIR_NONE, value, mem);
        return;
    }
    u16 low = vector(s);
    put(s, X_VPAND, low, value, constant(s, bytes == 1 ? 0xff : 0xffff));
    put(s, X_VPACKUSDW, words, low, low);
    put_imm(s, X_VPERMQ, words, words, 0x08); /* both halves' words together */
    s->size = 0;
    if (bytes == 1)
        put(s, X_VPACKUSWB, words, words, words);
    put_memory(s, bytes == 1 ? X_VMOVQ_ST : X_VMOVUPS_ST, LIR_NONE, words, mem);
}

static void store_vector(struct select *s, const struct lir_instr *in, u16 row)
{
    u16 value = s->name[in->a];
    u16 half;

    switch (in->mem_type) {
    case DT_F16:
        if (s->size) {
            put_memory(s, X_VCVTPS2PH_ST, LIR_NONE, value, &in->mem);
            break;
        }
        half = vector(s);
        put(s, X_VCVTPS2PH_ST, half, value, LIR_NONE);
        store_narrow(s, half, 2, &in->mem);
        break;
    case DT_BF16:
        store_narrow(s, round_to_bf16(s, value), 2, &in->mem);
        break;
    case DT_I8:
    case DT_U8:
        store_narrow(s, value, 1, &in->mem);
        break;
    default:
        put_memory(s, s->size ? row : X_VMOVSS_ST, LIR_NONE, value, &in->mem);
    }
}

static void gather(struct select *s, const struct lir_instr *in, u16 row)
{
    struct lir_mem mem = in->mem;
    u16 rax = X86_FIXED(RAX), mask = LIR_NONE;

    mem.index = s->name[mem.index];
    if (!s->size) {
        put(s, X_VMOVD_ST, rax, mem.index, LIR_NONE);
        put(s, X_MOVSXD, rax, rax, LIR_NONE);
        mem.index = rax;
        put_memory(s, X_VMOVSS, in->dst, LIR_NONE, &mem);
        return;
    }
    if (s->wide) {
        u16 k = X86_FIXED(X86_MASK);
        put(s, X_KXNORW, k, k, k)->size = 1;
        row = X_VGATHERDPS_K;
    } else {
        mask = vector(s);
        put(s, X_VPCMPEQD, mask, LIR_NONE, LIR_NONE)->flags |= MI_SELF;
    }
    put_memory(s, row, in->dst, mask, &mem)->flags |=
        MI_APART | MI_INDEX_VECTOR | (s->wide ? MI_MASKED : 0);
}

static void from_scalar(struct select *s, const struct lir_instr *in, u16 row)
{
    u16 low = s->size && !s->wide ? vector(s) : in->dst;

    if (s->size && s->wide) {
        put(s, X_VPBROADCASTD_G, in->dst, in->a, LIR_NONE);
        return;
    }
    put(s, row, low, in->a, LIR_NONE)->size = 0;
    if (low != in->dst)
        put(s, X_VBROADCASTSS, in->dst, low, LIR_NONE);
}

/* ---- arithmetic of lanes ---- */

static void unary(struct select *s, const struct lir_instr *in, u16 row)
{
    struct minstr *instr = put(s, row, in->dst, LIR_NONE, LIR_NONE);

    use(s, instr, 1, in->a);
    instr->imm = in->imm;
}

static void binary(struct select *s, const struct lir_instr *in, u16 row)
{
    use(s, put(s, row, in->dst, s->name[in->a], LIR_NONE), 2, in->b);
}

static void commutative(struct select *s, const struct lir_instr *in, u16 row)
{
    bool swap = s->folded[in->a];

    use(s, put(s, row, in->dst, s->name[swap ? in->b : in->a], LIR_NONE), 2, swap ? in->a : in->b);
}

static void multiply_add(struct select *s, const struct lir_instr *in, u16 row)
{
    bool swap = s->folded[in->a];
    struct minstr *instr = put(s, row, in->dst, s->name[swap ? in->b : in->a], LIR_NONE);

    use(s, instr, 3, in->c);
    use(s, instr, 2, swap ? in->a : in->b);
}

static void round_float(struct select *s, const struct lir_instr *in, u16 row)
{
    struct minstr *instr = put(s, s->wide ? X_VRNDSCALEPS : row, in->dst, LIR_NONE, LIR_NONE);

    use(s, instr, 1, in->a);
    instr->imm = in->aux | 8; /* LIR's numbers are x86's; 8: inexact is no exception */
}

static void float_to_int(struct select *s, const struct lir_instr *in, u16 row)
{
    unary(s, in, in->aux == LIR_TRUNC ? X_VCVTTPS2DQ : row);
}

/* Into k1 (AVX-512) or as lanes of ones. */
static void compare(struct select *s, const struct lir_instr *in, u16 dst)
{
    static const u8 float_predicate[] = {[LIR_EQ] = 0, [LIR_LT] = 17, [LIR_LE] = 18}; /* ordered, quiet */
    bool is_float = in->op == LIR_FCMP;
    u16 row = is_float ? X_VCMPPS : X_VPCMPEQD, a = s->name[in->a], b = in->b;
    struct minstr *instr;

    if (s->wide) {
        row = is_float ? X_VCMPPS_K : X_VPCMPD_K;
    } else if (!is_float && in->aux == LIR_LT) {
        put(s, X_VPCMPGTD, dst, s->name[b], a);
        return;
    } else if (!is_float && in->aux == LIR_LE) {
        u16 greater = vector(s);
        put(s, X_VPCMPGTD, greater, a, s->name[b]);
        put(s, X_VPXOR, dst, greater, constant(s, UINT32_MAX));
        return;
    }
    instr = put(s, row, dst, a, LIR_NONE);
    use(s, instr, 2, b);
    instr->imm = is_float ? float_predicate[in->aux] : in->aux;
}

static void compare_lanes(struct select *s, const struct lir_instr *in, u16 row)
{
    (void)row;
    compare(s, in, s->wide ? X86_FIXED(X86_MASK) : in->dst);
    if (s->wide)
        put(s, X_VPMOVM2D, in->dst, X86_FIXED(X86_MASK), LIR_NONE);
}

static void select_lanes(struct select *s, const struct lir_instr *in, u16 row)
{
    if (s->folded[in->a])
        compare(s, &s->lir->instr[s->writer[in->a]], X86_FIXED(X86_MASK));
    else if (s->wide)
        put(s, X_VPMOVD2M, X86_FIXED(X86_MASK), s->name[in->a], LIR_NONE);
    struct minstr *instr = put(s, s->wide ? X_VBLENDMPS : row, in->dst, s->name[in->c], LIR_NONE);
    use(s, instr, 2, in->b);
    instr->op[3] = s->wide ? LIR_NONE : s->name[in->a];
    instr->flags |= s->wide ? MI_MASKED : 0;
}

/* ---- byte products ---- */

/* dst = c + pairs of unsigned a times signed b, where no pair exceeds int16. b: a LIR register that may be folded. */
static void dot_pairs(struct select *s, u16 dst, u16 a, u16 b, u16 c)
{
    u16 words = vector(s), sums = vector(s);

    put(s, X_VPMADDUBSW, words, a, b);
    put(s, X_VPMADDWD, sums, words, constant(s, 0x00010001));
    put(s, X_VPADDD, dst, c, sums);
}

static void dot_unsigned(struct select *s, const struct lir_instr *in, u16 row)
{
    u16 a = s->name[in->a], c = s->name[in->c], low, high, sum;

    if (s->target->vnni) {
        struct minstr *dot = put(s, s->wide ? row : X_VPDPBUSD_V, in->dst, a, LIR_NONE);
        dot->op[3] = c;
        use(s, dot, 2, in->b);
        return;
    }
    u16 b = s->name[in->b];
    if (in->imm <= INT8_PAIR_SAFE_MAX) {
        dot_pairs(s, in->dst, a, b, c);
        return;
    }
    low = vector(s);
    high = vector(s);
    sum = vector(s);
    put(s, X_VPAND, low, a, constant(s, 0x7f7f7f7f));
    put(s, X_VPAND, high, a, constant(s, 0x80808080));
    dot_pairs(s, sum, low, b, c);
    dot_pairs(s, in->dst, high, b, sum);
}

/* |a| times b with a's sign: |a| <= 128 and |b| <= 127 keep each pair in int16. */
static void dot_signed(struct select *s, const struct lir_instr *in, u16 row)
{
    u16 a = s->name[in->a], b = s->name[in->b], magnitude = vector(s), moved = vector(s);

    put(s, X_VPABSB, magnitude, a, LIR_NONE);
    if (s->wide) {
        u16 k = X86_FIXED(X86_MASK);
        put(s, X_VPMOVB2M, k, a, LIR_NONE);
        struct minstr *negate = put(s, X_VPSUBB, moved, constant(s, 0), b);
        negate->op[3] = b;
        negate->flags |= MI_MASKED;
    } else {
        put(s, X_VPSIGNB, moved, b, a);
    }
    if (s->target->vnni)
        put(s, s->wide ? row : X_VPDPBUSD_V, in->dst, magnitude, moved)->op[3] = s->name[in->c];
    else
        dot_pairs(s, in->dst, magnitude, moved, s->name[in->c]);
}

/* ---- across lanes: each step combines every lane with its partner in the other half ---- */

static void reduce(struct select *s, const struct lir_instr *in, u16 row)
{
    const u8 swap_halves = 0x4e, swap_neighbours = 0xb1;
    const struct step {
        u16 row;
        u8 imm, sources;
    } wide[] = {{X_VSHUFF32X4, swap_halves, 2}, {X_VSHUFF32X4, swap_neighbours, 2},
                {X_VPERMILPS, swap_halves, 1}, {X_VPERMILPS, swap_neighbours, 1}},
      narrow[] = {{X_VPERM2F128, 1, 2}, {X_VPERMILPS, swap_halves, 1},
                  {X_VPERMILPS, swap_neighbours, 1}};
    const struct step *step = s->wide ? wide : narrow;
    u32 steps = s->wide ? ARRAY_LEN(wide) : ARRAY_LEN(narrow);
    u16 value = s->name[in->a];

    for (u32 i = 0; s->size && i < steps; i++) {
        u16 moved = vector(s), next = i + 1 < steps ? vector(s) : in->dst;
        put_binary_imm(s, step[i].row, moved,
                       (u16[]){value, step[i].sources == 2 ? value : LIR_NONE}, step[i].imm);
        put(s, row, next, value, moved);
        value = next;
    }
    if (!s->size)
        put(s, X_VMOVAPS, in->dst, value, LIR_NONE);
}

/* ---- the table ---- */

// clang-format off
static const struct pattern patterns[LIR_OP_COUNT] = {
    [LIR_S_CONST] = {scalar_constant,  X_MOV_I64},
    [LIR_S_MOV]   = {scalar_move,      X_MOV},
    [LIR_S_ARG]   = {scalar_load,      X_MOV},
    [LIR_S_ADD]   = {scalar_binary,    X_ADD},
    [LIR_S_ADDI]  = {scalar_immediate, X_ADD_I},
    [LIR_S_SUB]   = {scalar_binary,    X_SUB},
    [LIR_S_MUL]   = {scalar_binary,    X_IMUL},
    [LIR_S_MULI]  = {scalar_immediate, X_IMUL_I},
    [LIR_S_MIN]   = {scalar_choose,    X_CMOVG},
    [LIR_S_MAX]   = {scalar_choose,    X_CMOVL},
    [LIR_S_SHLI]  = {scalar_immediate, X_SHL_I},
    [LIR_S_SHRI]  = {scalar_immediate, X_SAR_I},
    [LIR_S_ANDI]  = {scalar_immediate, X_AND_I},
    [LIR_S_DIV]   = {scalar_divide,    X_DIV},
    [LIR_S_MOD]   = {scalar_divide,    X_DIV},
    [LIR_S_LOAD]  = {scalar_load,      X_MOVSXD},
    [LIR_S_STORE] = {scalar_store,     X_MOV_STORE32},
    [LIR_LOOP]    = {loop_head,        MACHINE_LOOP},
    [LIR_ENDLOOP] = {loop_end,         MACHINE_ENDLOOP},
    [LIR_V_CONST] = {to_constant,      X_VMOVAPS},
    [LIR_V_MOV]   = {unary,            X_VMOVAPS},
    [LIR_V_LOAD]  = {load_vector,      X_VMOVUPS},
    [LIR_V_BCAST] = {load_vector,      X_VBROADCASTSS},
    [LIR_V_STORE] = {store_vector,     X_VMOVUPS_ST},
    [LIR_V_GATHER] = {gather,          X_VGATHERDPS},
    [LIR_V_FROM_S] = {from_scalar,     X_VMOVD},
    [LIR_V_IOTA]  = {to_constant,      X_VMOVAPS},
    [LIR_FADD]    = {commutative,      X_VADDPS},
    [LIR_FSUB]    = {binary,           X_VSUBPS},
    [LIR_FMUL]    = {commutative,      X_VMULPS},
    [LIR_FDIV]    = {binary,           X_VDIVPS},
    [LIR_FMAX]    = {binary,           X_VMAXPS},
    [LIR_FMIN]    = {binary,           X_VMINPS},
    [LIR_FMA]     = {multiply_add,     X_VFMADD231PS},
    [LIR_FNMA]    = {multiply_add,     X_VFNMADD231PS},
    [LIR_FSQRT]   = {unary,            X_VSQRTPS},
    [LIR_FROUND]  = {round_float,      X_VROUNDPS},
    [LIR_CVT_F2I] = {float_to_int,     X_VCVTPS2DQ},
    [LIR_CVT_I2F] = {unary,            X_VCVTDQ2PS},
    [LIR_FCMP]    = {compare_lanes,    X_VCMPPS},
    [LIR_IADD]    = {commutative,      X_VPADDD},
    [LIR_ISUB]    = {binary,           X_VPSUBD},
    [LIR_IMUL]    = {commutative,      X_VPMULLD},
    [LIR_IAND]    = {commutative,      X_VPAND},
    [LIR_IOR]     = {commutative,      X_VPOR},
    [LIR_IXOR]    = {commutative,      X_VPXOR},
    [LIR_ISHLI]   = {unary,            X_VPSLLD},
    [LIR_ISHRI]   = {unary,            X_VPSRLD},
    [LIR_ISARI]   = {unary,            X_VPSRAD},
    [LIR_IMAX]    = {commutative,      X_VPMAXSD},
    [LIR_IMIN]    = {commutative,      X_VPMINSD},
    [LIR_ICMP]    = {compare_lanes,    X_VPCMPEQD},
    [LIR_SELECT]  = {select_lanes,     X_VBLENDVPS},
    [LIR_DOT4_US] = {dot_unsigned,     X_VPDPBUSD},
    [LIR_DOT4_SS] = {dot_signed,       X_VPDPBUSD},
    [LIR_HSUM_F]  = {reduce,           X_VADDPS},
    [LIR_HSUM_I]  = {reduce,           X_VPADDD},
    [LIR_HMAX_F]  = {reduce,           X_VMAXPS},
    [LIR_HMIN_F]  = {reduce,           X_VMINPS},
    [LIR_HMAX_I]  = {reduce,           X_VPMAXSD},
    [LIR_HMIN_I]  = {reduce,           X_VPMINSD},
};
// clang-format on

/* ---- what can be part of its user ---- */

static bool takes_memory(const struct select *s, const struct lir_instr *user, u16 v)
{
    expand *how = patterns[user->op].expand;

    if (how == commutative)
        return true;
    if (how == multiply_add)
        return true;
    if (how == unary)
        return user->op != LIR_V_MOV && !(x86_rows[patterns[user->op].row].traits & T_N);
    if (how == round_float || how == float_to_int)
        return true;
    if (how == dot_unsigned)
        return s->target->vnni && user->b == v;
    if (user->op == LIR_ICMP && !s->wide && user->aux != LIR_EQ)
        return false;
    return (how == binary || how == compare_lanes || how == select_lanes) && user->b == v;
}

/* Whether writer may be executed in the place of its one user. */
static bool fits(const struct select *s, const struct lir_instr *writer, u32 user_at)
{
    const struct lir_instr *user = &s->lir->instr[user_at];

    if (user->lanes != writer->lanes)
        return false;
    if (writer->op == LIR_FCMP || writer->op == LIR_ICMP)
        return s->wide && user->op == LIR_SELECT && user->a == writer->dst;
    if (s->has_memory[user_at] || (user->dst != LIR_NONE && s->folded[user->dst]))
        return false;
    return takes_memory(s, user, writer->dst);
}

static bool may_fold(const struct select *s, const struct lir_instr *in)
{
    bool word = in->mem_type == DT_F32 || in->mem_type == DT_I32;

    if (in->dst == LIR_NONE || s->writes[in->dst] != 1 || s->uses[in->dst] != 1)
        return false;
    if (in->op == LIR_V_LOAD)
        return word && in->lanes > 1;
    if (in->op == LIR_V_BCAST)
        return word && s->wide;
    return in->op == LIR_FCMP || in->op == LIR_ICMP;
}

static bool reads(const struct lir_instr *in, u16 v)
{
    return in->a == v || in->b == v || in->c == v || in->mem.base == v || in->mem.index == v;
}

static void try_fold(struct select *s, u32 at)
{
    const struct lir_instr *writer = &s->lir->instr[at];
    bool is_load = lir_rows[writer->op].operands[4] == 'L';

    for (u32 i = at + 1; i < s->lir->count && i <= at + FOLD_REACH; i++) {
        const struct lir_instr *in = &s->lir->instr[i];
        if (in->op == LIR_LOOP || in->op == LIR_ENDLOOP)
            return;
        if (reads(in, writer->dst)) {
            s->folded[writer->dst] = fits(s, writer, i);
            s->has_memory[i] |= is_load && s->folded[writer->dst];
            return;
        }
        if (is_load && lir_rows[in->op].operands[4] == 'T')
            return;
        if (in->dst != LIR_NONE && reads(writer, in->dst))
            return;
    }
}

static void count_use(struct select *s, u16 v)
{
    if (v != LIR_NONE && s->uses[v] < UINT16_MAX)
        s->uses[v]++;
}

static void survey(struct select *s)
{
    for (u32 i = 0; i < s->lir->count; i++) {
        const struct lir_instr *in = &s->lir->instr[i];
        if (in->dst == LIR_NONE)
            continue;
        if (s->writes[in->dst] < UINT16_MAX)
            s->writes[in->dst]++;
        s->writer[in->dst] = (u16)i;
    }
    for (u32 i = 0; i < s->lir->count; i++) {
        const struct lir_instr *in = &s->lir->instr[i];
        bool loop = in->op == LIR_LOOP;
        if (in->a != LIR_NONE && !(loop && is_immediate(s, in->a)))
            count_use(s, in->a);
        if (in->b != LIR_NONE && !(loop && is_immediate(s, in->b)))
            count_use(s, in->b);
        count_use(s, in->c);
        count_use(s, in->mem.base);
        count_use(s, in->mem.index);
        count_use(s, in->op == LIR_S_ARG ? LIR_ARGS : LIR_NONE);
        count_use(s, loop ? in->dst : LIR_NONE);
    }
    for (u32 i = s->lir->count; i-- > 0;)
        if (may_fold(s, &s->lir->instr[i]))
            try_fold(s, i);
}

/* ---- the walk ---- */

/* SysV: rdi, rsi, rdx, rcx. rdx is needed for division, so `end` moves last, when the others have their places. */
static void put_entry(struct select *s)
{
    static const struct {
        u16 vreg, reg;
    } entry[] = {{LIR_ARGS, RDI}, {LIR_BEGIN, RSI}, {LIR_SCRATCH, RCX}, {LIR_END, RDX}};

    s->at = HEAD;
    for (u32 i = 0; i < ARRAY_LEN(entry); i++)
        if (s->uses[entry[i].vreg])
            put(s, X_MOV, entry[i].vreg, X86_FIXED(entry[i].reg), LIR_NONE);
    s->at = BODY;
}

/* Two-operand forms write the destination before they have read these sources. */
static bool overwrites_source(const struct lir_instr *in)
{
    switch (in->op) {
    case LIR_S_SUB:
    case LIR_S_MIN:
    case LIR_S_MAX:
        return in->dst == in->b;
    case LIR_DOT4_US:
    case LIR_DOT4_SS:
        return in->dst == in->a || in->dst == in->b;
    default:
        return in->op == LIR_V_GATHER && in->dst == in->mem.index;
    }
}

static void expand_one(struct select *s, const struct lir_instr *in)
{
    const struct pattern *pattern = &patterns[in->op];
    struct lir_instr apart = *in;
    bool vector = lir_rows[in->op].operands[0] == 'V';

    s->size = in->lanes <= 1 ? 0 : full_size(s);
    if (!overwrites_source(in)) {
        pattern->expand(s, in, pattern->row);
        return;
    }
    apart.dst = temporary(s, vector ? LIR_VECTOR : LIR_SCALAR);
    pattern->expand(s, &apart, pattern->row);
    put(s, vector ? X_VMOVAPS : X_MOV, in->dst, apart.dst, LIR_NONE);
}

static void walk(struct select *s)
{
    for (u32 i = 0; i < s->lir->count && s->status == OK; i++) {
        const struct lir_instr *in = &s->lir->instr[i];
        if (in->dst != LIR_NONE && (!s->uses[in->dst] || s->folded[in->dst]))
            continue;
        expand_one(s, in);
    }
}

static err prepare(struct select *s, struct arena *arena)
{
    u32 count = s->lir->count;

    s->max[BODY] = count * MINSTRS_PER_LIR;
    s->constant_max = count + 16;
    s->max[HEAD] = s->constant_max * 3 + 16;
    s->out->max = s->max[HEAD] + s->max[BODY];
    s->out->instr = arena_new(arena, struct minstr, s->out->max + 1);
    s->stream[HEAD] = s->out->instr;
    s->stream[BODY] = s->out->instr + s->max[HEAD];
    s->out->class = arena_new(arena, u8, s->lir->vreg_count + s->out->max + 1);
    s->has_memory = arena_new(arena, bool, count + 1);
    s->constant = arena_new(arena, struct constant, s->constant_max);
    if (!s->out->instr || !s->out->class || !s->has_memory || !s->constant)
        return E_NOMEM;
    memcpy(s->out->class, s->lir->vreg_class, s->lir->vreg_count);
    s->out->vreg_count = s->lir->vreg_count;
    for (u32 v = 0; v < LIR_VREGS_MAX; v++)
        s->name[v] = (u16)v;
    return OK;
}

err x86_select(const struct lir *lir, const struct target *target, struct arena *arena,
               struct mcode *out)
{
    struct select *s = arena_new(arena, struct select, 1);

    *out = (struct mcode){};
    if (!s)
        return E_NOMEM;
    s->lir = lir;
    s->target = target;
    s->wide = target->isa == ISA_AVX512;
    s->out = out;
    TRY(prepare(s, arena));
    survey(s);
    put_entry(s);
    walk(s);
    memmove(s->stream[HEAD] + s->count[HEAD], s->stream[BODY], s->count[BODY] * sizeof(struct minstr));
    out->count = s->count[HEAD] + s->count[BODY];
    return s->status;
}
