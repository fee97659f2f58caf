/*
 * entry.S: entry from the loader, trap stubs, start code of the other cores.
 * Follows: AMD64 volume 2, chapters 8 (exceptions), 14 (long mode activation), 16.5 (core start).
 */
    .section .text.entry, "ax"
    .globl kernel_entry
kernel_entry:                   /* rdi: handoff, in the direct map */
    cli
    cld
    mov $boot_stack_top, %rsp
    xor %ebp, %ebp              /* backtraces end here */
    call kernel_main
1:  hlt
    jmp 1b

/* ---- traps: 256 stubs of 16 bytes; the mask has a bit for each vector with an error code ---- */

    .text
    .balign 16
    .globl trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector >= 32) || ((0x60227d00 >> (vector & 31)) & 1) == 0
    push $0                     /* in its place, so that all frames have one shape */
    .endif
    push $vector
    jmp trap_common
    .set vector, vector + 1
    .endr

trap_common:                    /* struct trap_frame of trap.c, last field first */
    .irp register, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
    push %\register
    .endr
    cld
    mov %rsp, %rdi
    call trap_handle
    .irp register, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax
    pop %\register
    .endr
    add $16, %rsp
    iretq

/* u32 trap_try(void (*fn)(void *), void *ctx): the frame that a trap inside fn returns to. */
    .globl trap_try
trap_try:
    .irp register, rbx, rbp, r12, r13, r14, r15
    push %\register
    .endr
    sub $8, %rsp
    mov %rsp, %gs:8             /* core.recover_rsp */
    mov %rdi, %rax
    mov %rsi, %rdi
    call *%rax
    mov $256, %eax              /* TRAP_NONE */
    .globl trap_try_resume
trap_try_resume:                /* a trap comes here with rsp as saved and its vector in eax */
    movq $0, %gs:8
    add $8, %rsp
    .irp register, r15, r14, r13, r12, rbp, rbx
    pop %\register
    .endr
    ret

/* ---- what selftest.c provokes ---- */

    .globl provoke_divide, provoke_opcode, provoke_selector
    .globl provoke_store, provoke_jump, provoke_overflow
provoke_divide:
    xor %eax, %eax
    cltd
    div %rax
provoke_opcode:
    ud2
provoke_selector:
    mov $0x1234, %eax
    mov %eax, %fs
provoke_store:
    movb $0, (%rdi)
    ret
provoke_jump:
    jmp *%rdi
provoke_overflow:               /* as deep as it takes */
    push $0
    jmp provoke_overflow

/* ---- the other cores: copied to a page below 1 MiB, entered in real mode at its start ---- */

    .section .rodata
    .balign 16
    .globl ap_code, ap_code_end, ap_page_table, ap_gdt_base, ap_far_target
    .code16
ap_code:
    cli
    mov %cs, %ax
    mov %ax, %ds
    lgdtl ap_gdt_pointer - ap_code
    mov $0x20, %eax             /* CR4: PAE */
    mov %eax, %cr4
    mov ap_page_table - ap_code, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx       /* EFER: long mode, no-execute */
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80010033, %eax       /* CR0: paging, write-protect, ET, NE, MP, PE */
    mov %eax, %cr0
    ljmpl *(ap_far_target - ap_code)
    .code64
ap_long:
    mov $1, %eax
    mov $smp_arrivals, %rcx
    lock xadd %eax, (%rcx)      /* cores number themselves as they come */
    mov $smp_prepared, %rcx
    cmp (%rcx), %eax
    jae 1f
    mov %eax, %edi
    mov $smp_stacks, %rcx
    mov (%rcx,%rax,8), %rsp
    xor %ebp, %ebp
    mov $smp_core_main, %rcx    /* absolute: this code runs at its copy */
    call *%rcx
1:  hlt
    jmp 1b
    .balign 8
ap_gdt:
    .quad 0, 0x00209a0000000000, 0x0000920000000000
    .word 0                     /* so that the base is aligned */
ap_gdt_pointer:
    .word 23
ap_gdt_base:
    .long ap_gdt - ap_code
    .balign 4
ap_far_target:
    .long ap_long - ap_code
    .word 8
    .balign 4
ap_page_table:
    .long 0
ap_code_end:

    .section .note.GNU-stack, "", @progbits
