/*
 * enter.S: control registers, and the last instructions of the loader.
 * Follows: AMD64 volume 2, 5.3 (paging), 3.1 (CR0, EFER).
 */
    .text
    .globl cpu_cr3, cpu_cr4, kernel_jump
cpu_cr3:
    mov %cr3, %rax
    ret
cpu_cr4:
    mov %cr4, %rax
    ret

/* kernel_jump(rdi handoff, rsi page table, rdx entry): these instructions stay mapped, because the
 * new page table keeps the firmware's own lower half until the kernel drops it. */
kernel_jump:
    cli
    cld
    mov %rdx, %r8
    mov $0xc0000080, %ecx /* EFER */
    rdmsr
    or $(1 << 11), %eax   /* no-execute */
    wrmsr
    mov %cr0, %rax
    or $(1 << 16), %rax   /* write-protect: ring 0 keeps to read-only pages too */
    mov %rax, %cr0
    mov %rsi, %cr3
    jmp *%r8

    .section .note.GNU-stack, "", @progbits
