/*
 * lir_eval.c: the direct interpreter of LIR. Slow and plain: one function per kind of
 * operation, one lane at a time, halves and bfloat16 by arithmetic instead of bit tricks.
 */
#include <math.h>
#include <string.h>

#include "tests/oracle/lir_eval.h"

#define LANES_MAX       32u
#define WAVES_MAX       16u
#define GROUP_BYTES_MAX (64 * KIB)
#define UNDEFINED       0x7fa5dead /* a signalling NaN and an odd integer */

union lane {
    f32 f;
    u32 u;
    i32 i;
};

/* One wave, or the one thread of a CPU. */
struct eval {
    const struct lir *lir;
    const u32 *partner;            /* by instruction: the other end of a loop */
    const struct lir_group *group; /* NULL on a CPU */
    u8 *memory;                    /* of the group */
    u32 wave, at;
    const char *fault;
    i64 scalar[LIR_VREGS_MAX];
    union lane vector[LIR_VREGS_MAX][LANES_MAX];
};

/* ---- elements of memory ---- */

static f32 f16_decode(u16 bits)
{
    u32 exponent = bits >> 10 & 31, fraction = bits & 1023;
    f64 size = exponent == 31 ? (fraction ? NAN : INFINITY)
               : exponent     ? ldexp(1024 + fraction, (int)exponent - 25)
                              : ldexp(fraction, -24);

    return (f32)(bits >> 15 ? -size : size);
}

static u16 f16_encode(f64 value)
{
    f64 size = fabs(value);
    u32 sign = signbit(value) ? 0x8000 : 0;
    int exponent = size > 0 && isfinite(size) ? ilogb(size) : -14;

    if (isnan(value))
        return (u16)(sign | 0x7e00);
    if (size >= 65520)
        return (u16)(sign | 0x7c00);
    exponent = exponent < -14 ? -14 : exponent;
    f64 units = nearbyint(ldexp(size, 10 - exponent));
    return (u16)(sign | (u32)((exponent + 14) * 1024 + (int)units));
}

static u16 bf16_encode(f32 value)
{
    union lane lane = {.f = value};
    u32 low = lane.u & 0xffff, high = lane.u >> 16;

    if (isnan(value))
        return (u16)(high | 0x40);
    return (u16)(high + (low > 0x8000 || (low == 0x8000 && high & 1)));
}

u32 lir_eval_load(enum dtype type, const void *from)
{
    union lane lane = {.u = 0};

    switch (type) {
    case DT_F16:
        lane.f = f16_decode(*(const u16 *)from);
        break;
    case DT_BF16:
        lane.u = (u32) * (const u16 *)from << 16;
        break;
    case DT_I8:
        lane.i = *(const i8 *)from;
        break;
    case DT_U8:
        lane.u = *(const u8 *)from;
        break;
    default:
        memcpy(&lane, from, 4);
    }
    return lane.u;
}

void lir_eval_store(enum dtype type, void *to, u32 bits)
{
    union lane lane = {.u = bits};
    u16 half = type == DT_F16 ? f16_encode((f64)lane.f) : bf16_encode(lane.f);

    if (type == DT_F16 || type == DT_BF16)
        memcpy(to, &half, 2);
    else if (type == DT_I8 || type == DT_U8)
        *(u8 *)to = (u8)bits;
    else
        memcpy(to, &bits, 4);
}

static void fail(struct eval *eval, const char *fault)
{
    eval->fault = eval->fault ? eval->fault : fault;
}

/* The bytes of one access; NULL when they lie outside of the group's memory. */
static u8 *address(struct eval *eval, const struct lir_instr *in, i64 index, u32 bytes)
{
    const struct lir_mem *mem = &in->mem;
    i64 at = eval->scalar[mem->base] + index * mem->scale + mem->disp;

    if (!eval->group)
        return (u8 *)(u64)at;
    if (mem->space == LIR_GROUP && (at < 0 || at + bytes > eval->group->group_bytes)) {
        fail(eval, "access outside of the group's memory");
        return NULL;
    }
    u8 *place = mem->space == LIR_GROUP ? eval->memory + at : (u8 *)(u64)at;
    const char *fault = lir_shadow_touch(
        eval->group->shadow, &(struct lir_touch){.at = (u64)place,
                                                 .bytes = bytes,
                                                 .wave = eval->wave,
                                                 .write = lir_rows[in->op].operands[4] == 'T',
                                                 .fixed = mem->fixed,
                                                 .shared = mem->space != LIR_GROUP});
    if (fault)
        fail(eval, fault);
    return place;
}

/* One lane's element or words of a tuple. */
static void move_lane(struct eval *eval, const struct lir_instr *in, u32 lane, u8 *at)
{
    bool four = in->op == LIR_V_LOAD4 || in->op == LIR_V_GATHER4 || in->op == LIR_V_SCATTER4;

    for (u32 k = 0; four && k < 4; k++) {
        bool store = in->op == LIR_V_SCATTER4;
        union lane *word = &eval->vector[(store ? in->a : in->dst) + k][lane];
        memcpy(store ? (void *)(at + 4 * k) : word, store ? (void *)word : at + 4 * k, 4);
    }
    if (four)
        return;
    if (in->op == LIR_V_STORE)
        lir_eval_store(in->mem_type, at, eval->vector[in->a][lane].u);
    else
        eval->vector[in->dst][lane].u =
            lir_eval_load(in->op == LIR_V_GATHER ? DT_I32 : in->mem_type, at);
}

static bool memory_op(struct eval *eval, const struct lir_instr *in)
{
    static const u32 bytes[] = {
        [DT_F32] = 4, [DT_I32] = 4, [DT_F16] = 2, [DT_BF16] = 2, [DT_I8] = 1, [DT_U8] = 1};
    bool gather = in->op == LIR_V_GATHER || in->op == LIR_V_GATHER4 || in->op == LIR_V_SCATTER4;
    bool four = in->op == LIR_V_LOAD4 || in->op == LIR_V_GATHER4 || in->op == LIR_V_SCATTER4;
    u32 size = four ? 16 : gather ? 4 : bytes[in->mem_type];

    if (lir_rows[in->op].operands[4] == '-')
        return false;
    i64 index = gather || in->mem.index == LIR_NONE ? 0 : eval->scalar[in->mem.index];
    u8 *first =
        gather ? NULL : address(eval, in, index, in->op == LIR_V_BCAST ? size : size * in->lanes);
    for (u32 i = 0; i < in->lanes; i++) {
        u8 *at = gather                  ? address(eval, in, eval->vector[in->mem.index][i].i, size)
                 : in->op == LIR_V_BCAST ? first
                                         : first + i * size;
        if (eval->fault)
            return true;
        if (four && (u64)at % 16)
            fail(eval, "four words that are not aligned");
        move_lane(eval, in, i, at);
    }
    return true;
}

/* ---- scalar ---- */

static i64 scalar_op(struct eval *eval, const struct lir_instr *in)
{
    bool lane = in->op == LIR_S_FROM_V;
    u64 a = in->a == LIR_NONE ? 0
            : lane            ? (u64)(i64)eval->vector[in->a][0].i
                              : (u64)eval->scalar[in->a];
    u64 b = in->b == LIR_NONE ? 0 : (u64)eval->scalar[in->b];
    u64 imm = (u64)in->imm;

    switch (in->op) {
    case LIR_S_CONST:
        return in->imm;
    case LIR_S_MOV:
    case LIR_S_FROM_V:
        return (i64)a;
    case LIR_S_ARG:
        return (i64)((const u64 *)eval->scalar[LIR_ARGS])[imm];
    case LIR_S_ADD:
        return (i64)(a + b);
    case LIR_S_ADDI:
        return (i64)(a + imm);
    case LIR_S_SUB:
        return (i64)(a - b);
    case LIR_S_MUL:
        return (i64)(a * b);
    case LIR_S_MULI:
        return (i64)(a * imm);
    case LIR_S_MIN:
        return (i64)a < (i64)b ? (i64)a : (i64)b;
    case LIR_S_MAX:
        return (i64)a > (i64)b ? (i64)a : (i64)b;
    case LIR_S_SHLI:
        return (i64)(a << imm);
    case LIR_S_SHRI:
        return (i64)a >> imm;
    case LIR_S_ANDI:
        return (i64)(a & imm);
    case LIR_S_DIV:
        return (i64)(a / b);
    case LIR_S_MOD:
        return (i64)(a % b);
    default:
        CHECK(in->op == LIR_OP_COUNT); /* no such scalar operation */
        return 0;
    }
}

/* ---- lanes ---- */

static f32 round_by(f32 value, u8 aux)
{
    return aux == LIR_NEAREST ? nearbyintf(value)
           : aux == LIR_DOWN  ? floorf(value)
           : aux == LIR_UP    ? ceilf(value)
                              : truncf(value);
}

static i32 to_int(f32 value, u8 aux)
{
    f32 whole = round_by(value, aux);

    return whole >= -0x1p31f && whole < 0x1p31f ? (i32)whole : INT32_MIN;
}

static bool holds(u8 predicate, bool less, bool equal)
{
    return predicate == LIR_EQ ? equal : predicate == LIR_LT ? less : less || equal;
}

static union lane float_op(const struct lir_instr *in, union lane a, union lane b, union lane c)
{
    switch (in->op) {
    case LIR_FADD:
        return (union lane){.f = a.f + b.f};
    case LIR_FSUB:
        return (union lane){.f = a.f - b.f};
    case LIR_FMUL:
        return (union lane){.f = a.f * b.f};
    case LIR_FDIV:
        return (union lane){.f = a.f / b.f};
    case LIR_FMAX:
        return (union lane){.f = a.f > b.f ? a.f : b.f};
    case LIR_FMIN:
        return (union lane){.f = a.f < b.f ? a.f : b.f};
    case LIR_FMA:
        return (union lane){.f = fmaf(a.f, b.f, c.f)};
    case LIR_FNMA:
        return (union lane){.f = fmaf(-a.f, b.f, c.f)};
    case LIR_FMAH:
        return (union lane){.f = fmaf(f16_decode((u16)(a.u >> 16 * in->imm)), b.f, c.f)};
    case LIR_FSQRT:
        return (union lane){.f = sqrtf(a.f)};
    case LIR_FROUND:
        return (union lane){.f = round_by(a.f, in->aux)};
    case LIR_CVT_F2I:
        return (union lane){.i = to_int(a.f, in->aux)};
    case LIR_CVT_I2F:
        return (union lane){.f = (f32)a.i};
    case LIR_FCMP:
        return (union lane){.u = holds(in->aux, a.f < b.f, a.f == b.f) ? UINT32_MAX : 0};
    default:
        CHECK(in->op == LIR_OP_COUNT); /* no such operation on lanes */
        return a;
    }
}

static u32 half_op(u8 op, u32 a, u32 b, u32 c)
{
    f64 x = (f64)f16_decode((u16)a), y = (f64)f16_decode((u16)b), z = (f64)f16_decode((u16)c);

    /* exact in 64 bits, but for a sum of the smallest and the largest; then one rounding */
    return f16_encode(op == LIR_H_ADD ? x + y : op == LIR_H_MUL ? x * y : x * y + z);
}

/* Both halves. */
static u32 half_pair(u8 op, u32 a, u32 b, u32 c)
{
    if (op == LIR_H_PACK) {
        union lane x = {.u = a}, y = {.u = b};
        return f16_encode((f64)x.f) | (u32)f16_encode((f64)y.f) << 16;
    }
    return half_op(op, a, b, c) | half_op(op, a >> 16, b >> 16, c >> 16) << 16;
}

static u32 dot4(u32 a, u32 b)
{
    i32 sum = 0;

    for (u32 i = 0; i < 32; i += 8)
        sum += (u8)(a >> i) * (i8)(b >> i);
    return (u32)sum;
}

static u32 dot8(u32 a, u32 b, bool b_signed)
{
    i32 sum = 0;

    for (u32 i = 0; i < 32; i += 4) {
        i32 right = b >> i & 15;
        sum += (i32)(a >> i & 15) * (b_signed && right > 7 ? right - 16 : right);
    }
    return (u32)sum;
}

static union lane lane_op(const struct lir_instr *in, union lane a, union lane b, union lane c)
{
    switch (in->op) {
    case LIR_V_MOV:
        return a;
    case LIR_IADD:
        return (union lane){.u = a.u + b.u};
    case LIR_ISUB:
        return (union lane){.u = a.u - b.u};
    case LIR_IMUL:
        return (union lane){.u = a.u * b.u};
    case LIR_IAND:
        return (union lane){.u = a.u & b.u};
    case LIR_IOR:
        return (union lane){.u = a.u | b.u};
    case LIR_IXOR:
        return (union lane){.u = a.u ^ b.u};
    case LIR_ISHLI:
        return (union lane){.u = a.u << in->imm};
    case LIR_ISHRI:
        return (union lane){.u = a.u >> in->imm};
    case LIR_ISARI:
        return (union lane){.i = a.i >> in->imm};
    case LIR_IMAX:
        return (union lane){.i = a.i > b.i ? a.i : b.i};
    case LIR_IMIN:
        return (union lane){.i = a.i < b.i ? a.i : b.i};
    case LIR_ICMP:
        return (union lane){.u = holds(in->aux, a.i < b.i, a.i == b.i) ? UINT32_MAX : 0};
    case LIR_SELECT:
        return a.u ? b : c;
    case LIR_DOT8:
        return (union lane){.u = c.u + dot8(a.u, b.u, in->imm != 0)};
    case LIR_DOT4:
        return (union lane){.u = c.u + dot4(a.u, b.u)};
    case LIR_H_PACK:
    case LIR_H_ADD:
    case LIR_H_MUL:
    case LIR_H_FMA:
        return (union lane){.u = half_pair(in->op, a.u, b.u, c.u)};
    default:
        return float_op(in, a, b, c);
    }
}

/* ---- across lanes ---- */

static union lane combine(u8 op, union lane a, union lane b)
{
    switch (op) {
    case LIR_HSUM_F:
        return (union lane){.f = a.f + b.f};
    case LIR_HSUM_I:
        return (union lane){.u = a.u + b.u};
    case LIR_HMAX_F:
        return (union lane){.f = a.f > b.f ? a.f : b.f};
    case LIR_HMIN_F:
        return (union lane){.f = a.f < b.f ? a.f : b.f};
    case LIR_HMAX_I:
        return (union lane){.i = a.i > b.i ? a.i : b.i};
    default:
        return (union lane){.i = a.i < b.i ? a.i : b.i};
    }
}

/* Every lane meets the one half a vector away, then a quarter, and so on. */
static void across(const struct lir_instr *in, const union lane *from, union lane *to)
{
    union lane now[LANES_MAX], next[LANES_MAX];

    memcpy(now, from, sizeof(now));
    for (u32 distance = (in->imm ? (u32)in->imm : in->lanes) / 2; distance; distance /= 2) {
        for (u32 i = 0; i < in->lanes; i++)
            next[i] = combine(in->op, now[i], now[i ^ distance]);
        memcpy(now, next, sizeof(now));
    }
    memcpy(to, now, in->lanes * sizeof(*now));
}

static void swap(const struct lir_instr *in, const union lane *from, union lane *to)
{
    union lane all[LANES_MAX];

    memcpy(all, from, sizeof(all));
    for (u32 i = 0; i < in->lanes; i++)
        to[i] = all[i ^ (u32)in->imm];
}

/* Half k of lane `lane` of a tuple of eight words. */
static f32 tuple_half(const struct eval *eval, u16 first, u32 lane, u32 k)
{
    return f16_decode((u16)(eval->vector[first + k / 2][lane].u >> 16 * (k % 2)));
}

static void wmma(struct eval *eval, const struct lir_instr *in)
{
    for (u32 i = 0; i < 8 * LANES_MAX; i++) {
        u32 word = i / LANES_MAX, lane = i % LANES_MAX, row = 2 * word + lane / 16;
        f64 sum = (f64)eval->vector[in->c + word][lane].f;
        for (u32 k = 0; k < 16; k++)
            sum +=
                (f64)tuple_half(eval, in->a, row, k) * (f64)tuple_half(eval, in->b, lane % 16, k);
        eval->vector[in->dst + word][lane].f = (f32)sum;
    }
}

static void vector_op(struct eval *eval, const struct lir_instr *in)
{
    static const union lane none[LANES_MAX];
    const union lane *a = in->a == LIR_NONE ? none : eval->vector[in->a];
    const union lane *b = in->b == LIR_NONE ? none : eval->vector[in->b];
    const union lane *c = in->c == LIR_NONE ? none : eval->vector[in->c];
    union lane *dst = eval->vector[in->dst];

    if (in->op >= LIR_HSUM_F && in->op <= LIR_HMIN_I) {
        across(in, a, dst);
        return;
    }
    if (in->op == LIR_V_SWAP) {
        swap(in, a, dst);
        return;
    }
    if (in->op == LIR_WMMA) {
        wmma(eval, in);
        return;
    }
    for (u32 i = 0; i < in->lanes; i++) {
        if (in->op == LIR_V_CONST)
            dst[i].u = (u32)in->imm;
        else if (in->op == LIR_V_FROM_S)
            dst[i].u = (u32)eval->scalar[in->a];
        else if (in->op == LIR_V_IOTA)
            dst[i].u = i;
        else
            dst[i] = lane_op(in, a[i], b[i], c[i]);
    }
}

/* ---- the walk ---- */

/* For each LOOP its ENDLOOP and the other way round. */
static u32 *partners(const struct lir *lir)
{
    u32 *partner = pages_alloc(lir->count * sizeof *partner + 1), open[LIR_LOOP_DEPTH_MAX],
        depth = 0;

    CHECK(partner != NULL);
    for (u32 at = 0; at < lir->count; at++) {
        CHECK(depth < LIR_LOOP_DEPTH_MAX || lir->instr[at].op != LIR_LOOP);
        if (lir->instr[at].op == LIR_LOOP)
            open[depth++] = at;
        if (lir->instr[at].op != LIR_ENDLOOP)
            continue;
        partner[at] = open[--depth];
        partner[open[depth]] = at;
    }
    return partner;
}

/* Returns the index of the next instruction. */
static u32 step(struct eval *eval, u32 at)
{
    const struct lir_instr *in = &eval->lir->instr[at];
    bool ends = in->op == LIR_ENDLOOP;
    u32 head = ends ? eval->partner[at] : at;
    const struct lir_instr *loop = &eval->lir->instr[head];

    if (ends)
        eval->scalar[loop->dst] += loop->imm;
    if (in->op == LIR_LOOP)
        eval->scalar[in->dst] = eval->scalar[in->a];
    if (ends || in->op == LIR_LOOP) {
        bool more = eval->scalar[loop->dst] < eval->scalar[loop->b];
        return more ? head + 1 : (ends ? at : eval->partner[at]) + 1;
    }
    if (memory_op(eval, in))
        ;
    else if (lir_rows[in->op].operands[0] == 'S')
        eval->scalar[in->dst] = scalar_op(eval, in);
    else
        vector_op(eval, in);
    if (lir_rows[in->op].operands[0] == 'V')
        for (u32 i = in->lanes; i < LANES_MAX; i++)
            eval->vector[in->dst][i].u = UNDEFINED;
    return at + 1;
}

void lir_eval(const struct lir *lir, const u64 *args, u64 begin, u64 end, void *scratch)
{
    struct eval *eval = pages_alloc(sizeof(*eval));
    u32 *partner = partners(lir);

    CHECK(eval != NULL);
    eval->lir = lir;
    eval->partner = partner;
    eval->scalar[LIR_ARGS] = (i64)(u64)args;
    eval->scalar[LIR_BEGIN] = (i64)begin;
    eval->scalar[LIR_END] = (i64)end;
    eval->scalar[LIR_SCRATCH] = (i64)(u64)scratch;
    for (u32 at = 0; at < lir->count;)
        at = step(eval, at);
    pages_free(partner, lir->count * sizeof *partner + 1);
    pages_free(eval, sizeof(*eval));
}

/* ---- groups ---- */

static void wave_open(struct eval *wave, const struct lir_group *group, u32 number)
{
    wave->lir = group->lir;
    wave->group = group;
    wave->wave = number;
    for (u32 i = 0; i < group->lir->vreg_count; i++) {
        wave->scalar[i] = UNDEFINED;
        for (u32 lane = 0; lane < LANES_MAX; lane++)
            wave->vector[i][lane].u = UNDEFINED;
    }
    wave->scalar[LIR_ARGS] = (i64)(u64)group->args;
    wave->scalar[LIR_BEGIN] = (i64)group->item;
    wave->scalar[LIR_SCRATCH] = 0;
    wave->scalar[LIR_WAVE] = number;
}

/* To the next barrier or the end. */
static void wave_run(struct eval *wave)
{
    const struct lir *lir = wave->lir;

    while (wave->at < lir->count && !wave->fault) {
        wave->at = lir->instr[wave->at].op == LIR_BARRIER ? wave->at + 1 : step(wave, wave->at);
        if (lir->instr[wave->at - 1].op == LIR_BARRIER)
            return;
    }
}

err lir_eval_group(const struct lir_group *group, struct text *why)
{
    struct eval *wave = pages_alloc(group->waves * sizeof *wave);
    u32 *partner = partners(group->lir), w = 0;
    u8 memory[GROUP_BYTES_MAX];
    const char *fault = NULL;

    CHECK(wave != NULL && group->waves <= WAVES_MAX && group->group_bytes <= sizeof memory);
    memset(memory, 0xa5, sizeof memory);
    lir_shadow_group(group->shadow);
    for (w = 0; w < group->waves; w++) {
        wave_open(&wave[w], group, w);
        wave[w].partner = partner;
        wave[w].memory = memory;
    }
    for (bool more = true; more && !fault;) {
        for (w = 0; w < group->waves && !fault; w++) {
            wave_run(&wave[w]);
            fault = wave[w].fault;
            if (!fault && wave[w].at != wave[0].at)
                fault = "waves stand at different barriers";
        }
        more = wave[0].at < group->lir->count;
        lir_shadow_barrier(group->shadow);
    }
    if (fault)
        text_fmt(why, "group %lu, wave %u, before instruction %u: %s", (unsigned long)group->item,
                 w - 1, wave[w - 1].at, fault);
    pages_free(partner, group->lir->count * sizeof *partner + 1);
    pages_free(wave, group->waves * sizeof *wave);
    return fault ? E_FORMAT : OK;
}
