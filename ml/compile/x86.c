/*
 * x86.c: x86_emit: selects, allocates, then writes a kernel: frame, loops, and each instruction
 * with physical registers, reloading what was spilled. Follows the System V ABI. Knows LIR only as
 * the caller of x86_select.
 */
#include "ml/compile/x86.h"

#define LOOP_ALIGN      16u
#define FRAME_BYTES_MAX (32 * KIB) /* half of a worker's stack, which has a guard page below */

/* ---- registers ---- */

/* rax and rdx stay free for division and reloads; callee-saved registers come last. */
static const struct reg_file general_file = {
    .order = {RDI, RSI, RCX, R8, R9, R10, R11, RBX, RBP, R12, R13, R14, R15},
    .count = 13,
    .slot_bytes = 8,
};
static const u32 callee_saved = 1u << RBX | 1u << RBP | 0xfu << R12;

static struct reg_file vector_file(const struct target *target)
{
    struct reg_file file = {.count = (u8)target->vector_regs, .scratch = 2};

    for (u32 i = 0; i < target->vector_regs; i++)
        file.order[i] = (u8)i;
    file.slot_bytes = target->isa == ISA_AVX512 ? 64 : 32;
    return file;
}

/* ---- the kernel ---- */

struct emitter {
    const struct target *target;
    const struct allocation *alloc;
    struct code_out *out;
    bool evex;
    usize *head;  /* offset in out, by loop */
    usize *jump;  /* end of the jump over a loop, by loop; 0: none */
    u32 saved;    /* callee-saved registers pushed */
    u32 rsp_slot; /* where the caller's stack pointer is kept; frame only */
    u16 spare[2]; /* vector registers for reloads */
    err status;
};

/* ---- one instruction over physical registers ---- */

static void look(const struct emitter *e, const struct minstr *instr)
{
    if (e->out->look)
        e->out->look(e->out, instr, e->evex);
}

static void put_bytes(struct emitter *e, const struct minstr *instr)
{
    struct code_out *out = e->out;

    if (out->cap - out->len < X86_BYTES_MAX)
        e->status = E_LIMIT;
    else
        out->len += x86_encode(instr, e->evex, out->bytes + out->len);
}

static void emit(struct emitter *e, const struct minstr *instr)
{
    put_bytes(e, instr);
    look(e, instr);
}

/* At full size, when it has vectors. */
static struct minstr blank(const struct emitter *e, u16 row)
{
    bool vectors = !(x86_rows[row].encodings & ENC_L) && x86_rows[row].form != FORM_Z;

    return x86_blank(row, !vectors ? 0 : e->evex ? 2 : 1);
}

static void emit_simple(struct emitter *e, u16 row, u16 dst, u16 a, i64 imm)
{
    struct minstr instr = blank(e, row);

    instr.op[0] = dst;
    instr.op[1] = a;
    instr.imm = imm;
    emit(e, &instr);
}

static struct lir_mem based_on(u16 base, u32 offset)
{
    return (struct lir_mem){.base = base, .index = LIR_NONE, .scale = 1, .disp = (i32)offset};
}

static void emit_frame(struct emitter *e, u16 row, u16 reg, u32 offset)
{
    struct minstr instr = blank(e, row);

    instr.op[x86_forms[x86_rows[row].form].reg] = reg;
    instr.flags = MI_MEMORY;
    instr.mem = based_on(RSP, offset);
    emit(e, &instr);
}

/* ---- the frame ---- */

static void put_prologue(struct emitter *e)
{
    e->saved = e->alloc->used[LIR_SCALAR] & callee_saved;
    for (u16 reg = 0; reg < 16; reg++)
        if (e->saved >> reg & 1)
            emit_simple(e, X_PUSH, reg, LIR_NONE, 0);
    if (!e->alloc->frame_bytes)
        return;
    e->rsp_slot = e->alloc->frame_bytes;
    emit_simple(e, X_MOV, RAX, RSP, 0);
    emit_simple(e, X_SUB_I, RSP, RSP, (i64)round_up(e->rsp_slot + 8, 64));
    emit_simple(e, X_AND_I, RSP, RSP, -64);
    emit_frame(e, X_MOV_STORE, RAX, e->rsp_slot);
}

static void put_epilogue(struct emitter *e)
{
    emit_simple(e, X_VZEROUPPER, LIR_NONE, LIR_NONE, 0);
    if (e->alloc->frame_bytes)
        emit_frame(e, X_MOV, RSP, e->rsp_slot);
    for (u16 reg = 16; reg-- > 0;)
        if (e->saved >> reg & 1)
            emit_simple(e, X_POP, reg, LIR_NONE, 0);
    emit_simple(e, X_RET, LIR_NONE, LIR_NONE, 0);
}

/* ---- loops and jumps ---- */

static void align_code(struct emitter *e, u32 align)
{
    static const u8 nops[][4] = {{0x90}, {0x66, 0x90}, {0x0f, 0x1f, 0}, {0x0f, 0x1f, 0x40, 0}};
    struct code_out *out = e->out;
    usize gap = round_up(out->len, align) - out->len;

    if (gap > out->cap - out->len) {
        e->status = E_LIMIT;
        return;
    }
    while (gap) {
        usize len = min_u64(gap, ARRAY_LEN(nops));
        memcpy(out->bytes + out->len, nops[len - 1], len);
        out->len += len;
        gap -= len;
    }
}

/* A forward jump's distance is filled in at the loop's end. */
static void put_jump(struct emitter *e, const struct minstr *instr)
{
    struct code_out *out = e->out;
    struct minstr jump = *instr;
    bool forward = instr->imm & 1;
    usize *end = &e->jump[instr->imm / 2];

    jump.imm = forward ? INT32_MAX : (i64)e->head[instr->imm / 2] - (i64)out->len;
    put_bytes(e, &jump);
    if (forward)
        *end = out->len;
    look(e, instr);
}

static void put_marker(struct emitter *e, const struct minstr *instr)
{
    bool head = instr->row == MACHINE_LOOP;
    usize loop = (usize)instr->imm, jump = e->jump[loop];

    if (head)
        align_code(e, LOOP_ALIGN);
    else if (jump)
        memcpy(e->out->bytes + jump - 4, &(u32){(u32)(e->out->len - jump)}, 4);
    e->head[loop] = head ? e->out->len : 0;
    look(e, instr);
}

/* ---- places: where an operand is, and how it gets into a register ---- */

struct placing {
    struct emitter *e;
    struct place at[4]; /* of the operands */
    struct minstr to;   /* the same instruction over physical registers */
    bool vector;
    u32 busy;   /* of rax and rdx: bit mask */
    u32 spares; /* vector registers of emitter.spare in use */
};

static struct place place_of(const struct emitter *e, u16 v)
{
    if (v == LIR_NONE)
        return (struct place){};
    if (v >= MACHINE_FIXED)
        return (struct place){.kind = PLACE_REG, .reg = (u8)(v - MACHINE_FIXED)};
    return e->alloc->place[v];
}

static void load_place(struct emitter *e, bool vector, u16 reg, struct place from)
{
    if (from.kind == PLACE_SLOT)
        emit_frame(e, vector ? X_VMOVUPS : X_MOV, reg, from.offset);
    else if (from.reg != reg)
        emit_simple(e, vector ? X_VMOVAPS : X_MOV, reg, from.reg, 0);
}

static void store_place(struct emitter *e, bool vector, struct place to, u16 reg)
{
    emit_frame(e, vector ? X_VMOVUPS_ST : X_MOV_STORE, reg, to.offset);
}

/* A register for a reload. When a store's address has taken both general ones, the address is
 * computed into rax first. */
static u16 spare(struct placing *p, bool vector)
{
    struct lir_mem *mem = &p->to.mem;

    if (vector) {
        CHECK(p->spares < ARRAY_LEN(p->e->spare));
        return p->e->spare[p->spares++];
    }
    if (p->busy == (1u << RAX | 1u << RDX)) {
        struct minstr lea = x86_blank(X_LEA, 0);
        lea.op[0] = RAX;
        lea.flags = MI_MEMORY;
        lea.mem = *mem;
        emit(p->e, &lea);
        *mem = based_on(RAX, 0);
        p->busy = 1u << RAX;
    }
    u16 reg = p->busy >> RAX & 1 ? RDX : RAX;
    p->busy |= 1u << reg;
    return reg;
}

static u16 in_register(struct placing *p, bool vector, struct place from)
{
    if (from.kind == PLACE_REG)
        return from.reg;
    u16 reg = spare(p, vector);
    load_place(p->e, vector, reg, from);
    return reg;
}

static void place_memory(struct placing *p, const struct minstr *from)
{
    bool vector_index = from->flags & MI_INDEX_VECTOR;

    p->to.mem = from->mem;
    p->to.mem.base = in_register(p, false, place_of(p->e, from->mem.base));
    if (from->mem.index != LIR_NONE)
        p->to.mem.index = in_register(p, vector_index, place_of(p->e, from->mem.index));
}

static void use_slot(struct placing *p, u32 k)
{
    p->to.flags |= MI_MEMORY;
    p->to.mem = based_on(RSP, p->at[k].offset);
    p->at[k] = (struct place){};
}

static bool operand_is_vector(const struct placing *p, u32 k)
{
    const struct x86_row *row = &x86_rows[p->to.row];

    return p->vector && !(row->traits & T_G && x86_forms[row->form].rm == (i32)k);
}

static void finish(struct placing *p)
{
    emit(p->e, &p->to);
    if (p->at[0].kind == PLACE_SLOT)
        store_place(p->e, operand_is_vector(p, 0), p->at[0], p->to.op[0]);
}

static void place_move(struct placing *p)
{
    if (p->at[0].kind == PLACE_REG)
        load_place(p->e, p->vector, p->at[0].reg, p->at[1]);
    else
        store_place(p->e, p->vector, p->at[0], in_register(p, p->vector, p->at[1]));
}

/* A sum into a third register. */
static bool place_as_lea(struct placing *p)
{
    struct place *at = p->at;
    bool plain = p->to.row == X_ADD && at[2].kind == PLACE_REG && at[2].reg != at[0].reg;

    if (at[0].kind != PLACE_REG || at[1].kind != PLACE_REG || at[0].reg == at[1].reg ||
        !(plain || p->to.row == X_ADD_I))
        return false;
    p->to.mem = based_on(at[1].reg, plain ? 0 : (u32)p->to.imm);
    p->to.mem.index = plain ? at[2].reg : LIR_NONE;
    p->to.row = X_LEA;
    p->to.flags = MI_MEMORY;
    p->to.op[0] = at[0].reg;
    finish(p);
    return true;
}

static void place_tied(struct placing *p, u32 tied)
{
    struct place *at = p->at;
    u16 dst = at[0].kind == PLACE_REG ? at[0].reg : spare(p, p->vector);

    if (tied == 1 && x86_rows[p->to.row].traits & T_C && at[2].kind == PLACE_REG &&
        at[2].reg == dst) {
        at[2] = at[1];
        at[1] = (struct place){.kind = PLACE_REG, .reg = (u8)dst};
    }
    p->to.op[0] = p->to.op[tied] = dst;
}

static void place_general(struct placing *p, const struct minstr *from)
{
    const struct x86_row *row = &x86_rows[p->to.row];
    const struct x86_form *form = &x86_forms[row->form];
    struct place *at = p->at;

    if (form->tied)
        place_tied(p, form->tied);
    if (form->rm > 0 && at[form->rm].kind == PLACE_SLOT && !(row->traits & T_N) &&
        !(p->to.flags & MI_MEMORY))
        use_slot(p, (u32)form->rm);
    for (u32 k = 1; k < 4; k++)
        if (at[k].kind != PLACE_NONE && k != form->tied)
            p->to.op[k] = in_register(p, operand_is_vector(p, k), at[k]);
    if (!form->tied && at[0].kind == PLACE_REG)
        p->to.op[0] = at[0].reg;
    else if (!form->tied && at[0].kind == PLACE_SLOT)
        p->to.op[0] = from->flags & MI_APART ? spare(p, p->vector)
                      : p->vector            ? p->e->spare[0]
                                             : RAX;
    if (form->tied && !(from->flags & MI_SELF))
        load_place(p->e, p->vector, p->to.op[0], at[form->tied]);
    if (from->flags & MI_SELF)
        p->to.op[1] = p->to.op[2] = p->to.op[0];
    finish(p);
}

static void place_instr(struct emitter *e, const struct minstr *from)
{
    struct placing p = {.e = e, .to = *from, .vector = !(x86_rows[from->row].encodings & ENC_L)};
    const u16 rax = X86_FIXED(RAX), rdx = X86_FIXED(RDX);

    p.busy = (u32)(from->mem.base == rax || from->mem.index == rax) << RAX;
    for (u32 k = 0; k < ARRAY_LEN(p.at); k++) {
        p.at[k] = place_of(e, from->op[k]);
        p.to.op[k] = LIR_NONE;
        if (k && (from->op[k] == rax || from->op[k] == rdx))
            p.busy |= 1u << (from->op[k] - MACHINE_FIXED);
    }
    if (from->flags & MI_MEMORY)
        place_memory(&p, from);
    if ((from->row == X_MOV || from->row == X_VMOVAPS) && !(from->flags & MI_MEMORY))
        place_move(&p);
    else if (!place_as_lea(&p))
        place_general(&p, from);
}

static void put_kernel(struct emitter *e, const struct mcode *code)
{
    put_prologue(e);
    for (u32 i = 0; i < code->count && e->status == OK; i++) {
        const struct minstr *instr = &code->instr[i];
        if (instr->row < MACHINE_ROWS)
            put_marker(e, instr);
        else if (instr->row == X_JL || instr->row == X_JGE)
            put_jump(e, instr);
        else
            place_instr(e, instr);
    }
    put_epilogue(e);
}

err x86_emit(const struct lir *lir, const struct target *target, struct arena *scratch,
             struct code_out *out)
{
    const struct reg_file file[] = {general_file, vector_file(target)};
    const u8 *last = &file[LIR_VECTOR].order[target->vector_regs - 1];
    struct emitter e = {.target = target,
                        .out = out,
                        .evex = target->isa == ISA_AVX512,
                        .spare = {last[0], last[-1]}};
    struct mcode code;
    struct allocation alloc;

    TRY(lir->status);
    TRY(x86_select(lir, target, scratch, &code));
    TRY(regalloc(&code, file, scratch, &alloc));
    if (alloc.frame_bytes > FRAME_BYTES_MAX)
        return E_LIMIT;
    e.alloc = &alloc;
    e.head = arena_new(scratch, usize, lir->count + 1);
    e.jump = arena_new(scratch, usize, lir->count + 1);
    if (!e.head || !e.jump)
        return E_NOMEM;
    put_kernel(&e, &code);
    return e.status;
}
