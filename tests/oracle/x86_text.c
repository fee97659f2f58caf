/*
 * x86_text.c: the listing: one line of Intel-syntax assembly per machine instruction, as llvm-mc
 * reads it.
 */
#include "tests/oracle/listing.h"

static const char *const names64[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const char *const names32[] = {"eax", "ecx", "edx",  "ebx",  "esp",  "ebp",  "esi",  "edi",
                                      "r8d", "r9d", "r10d", "r11d", "r12d", "r13d", "r14d", "r15d"};

static void print_vector(u32 reg, u32 bytes, struct text *out)
{
    text_fmt(out, "%cmm%u", bytes > 32 ? 'z' : bytes > 16 ? 'y' : 'x', reg);
}

/* Bytes of a vector operand: the r/m side of a conversion may be narrower than the instruction. */
static u32 operand_bytes(const struct minstr *instr, u32 k)
{
    const struct x86_row *row = &x86_rows[instr->row];

    return x86_forms[row->form].rm == (i32)k ? x86_rm_bytes(instr) : 16u << instr->size;
}

static void print_register(const struct minstr *instr, u32 k, struct text *out)
{
    const struct x86_row *row = &x86_rows[instr->row];
    const struct x86_form *form = &x86_forms[row->form];
    bool is_rm = form->rm == (i32)k;
    u32 reg = instr->op[k];

    if ((row->traits & T_K && form->reg == (i32)k) ||
        (row->traits & T_M && (is_rm || form->vvvv == (i32)k)))
        text_fmt(out, "k%u", reg);
    else if (row->encodings & ENC_L || (row->traits & T_G && is_rm))
        text_put(out, str_of((row->w || row->form == FORM_O) && !(is_rm && row->memory == MEM_4)
                                 ? names64[reg]
                                 : names32[reg]));
    else
        print_vector(reg, operand_bytes(instr, k), out);
    if (k == 0 && instr->flags & MI_MASKED)
        text_fmt(out, " {k%u}", X86_MASK);
}

static void print_memory(const struct minstr *instr, struct text *out)
{
    static const char *const words[] = {"byte",    "word",    "dword",  "qword",
                                        "xmmword", "ymmword", "zmmword"};
    const struct lir_mem *mem = &instr->mem;
    u32 bytes = x86_rm_bytes(instr), lanes = 4u << instr->size;

    if (!(instr->flags & MI_INDEX_VECTOR))
        text_fmt(out, "%s ptr ", words[__builtin_ctz(bytes)]);
    text_fmt(out, "[%s", names64[mem->base]);
    if (mem->index != LIR_NONE) {
        text_fmt(out, " + %u*", mem->scale);
        if (instr->flags & MI_INDEX_VECTOR)
            print_vector(mem->index, 16u << instr->size, out);
        else
            text_put(out, str_of(names64[mem->index]));
    }
    if (mem->disp)
        text_fmt(out, " %c %u", mem->disp < 0 ? '-' : '+',
                 mem->disp < 0 ? 0u - (u32)mem->disp : (u32)mem->disp);
    text_char(out, ']');
    if (instr->flags & MI_BROADCAST)
        text_fmt(out, "{1to%u}", lanes);
}

void x86_print(const struct minstr *instr, bool evex, struct text *out)
{
    const struct x86_row *row = &x86_rows[instr->row];
    const struct x86_form *form = &x86_forms[row->form];
    bool evex_name = row->encodings & 8 && x86_needs_evex(instr, evex);
    const char *comma = " ";

    text_fmt(out, "    %s%s", row->name, evex_name ? "d" : "");
    for (const char *c = form->text; *c; c++) {
        text_put(out, str_of(comma));
        comma = ", ";
        u32 k = (u32)(*c - '0');
        if (*c == 'i')
            text_fmt(out, "%lld", (long long)instr->imm);
        else if (*c == 'm' || (form->rm == (i32)k && instr->flags & MI_MEMORY))
            print_memory(instr, out);
        else
            print_register(instr, k, out);
    }
    if (row->traits & T_I && (!*form->text || form->text[strlen(form->text) - 1] != 'i'))
        text_fmt(out, ", %u", (u32)instr->imm & 0xff);
    text_char(out, '\n');
}

/* Labels: 2n the head of loop n, 2n + 1 its end. Jumps to an end are of the long form. */
void x86_look(const struct code_out *out, const struct minstr *instr, bool evex)
{
    const char *name = x86_rows[instr->row].name;
    u64 imm = (u64)instr->imm;

    if (!out->listing)
        return;
    if (instr->row < MACHINE_ROWS)
        text_fmt(out->listing, "L%lu:\n", 2 * imm + (instr->row == MACHINE_ENDLOOP));
    else if (instr->row == X_JL || instr->row == X_JGE)
        text_fmt(out->listing, "    %s%s L%lu\n", imm & 1 ? "{disp32} " : "", name, imm);
    else
        x86_print(instr, evex, out->listing);
}
