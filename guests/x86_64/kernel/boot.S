# Entry, exception and interrupt stubs, system call entry. The VMM starts us in 64-bit mode with
# memory identity-mapped, interrupts off and RDI pointing at struct boot_info.
        .section .text.boot, "ax"
        .globl _start
_start:
        lea     boot_stack_top(%rip), %rsp
        xor     %ebp, %ebp
        call    kernel_main
1:      hlt
        jmp     1b

        .text
        .macro  stub number error
        .balign 16
        .if \error == 0
        push    $0
        .endif
        push    $\number
        jmp     trap_common
        .endm

        .globl trap_stubs
        .balign 16
trap_stubs:
        .set    n, 0
        .rept   256
        .if     n == 8 || (n >= 10 && n <= 14) || n == 17 || n == 21
        stub    n, 1
        .else
        stub    n, 0
        .endif
        .set    n, n + 1
        .endr

# struct trap_frame: r15..rax, vector, error, rip, cs, rflags, rsp, ss
trap_common:
        push    %rax
        push    %rcx
        push    %rdx
        push    %rbx
        push    %rbp
        push    %rsi
        push    %rdi
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, %rdi
        cld
        call    trap
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %r11
        pop     %r10
        pop     %r9
        pop     %r8
        pop     %rdi
        pop     %rsi
        pop     %rbp
        pop     %rbx
        pop     %rdx
        pop     %rcx
        pop     %rax
        add     $16, %rsp
        iretq

# SYSCALL: number in RAX, arguments in RDI, RSI, RDX; result in RAX. One CPU, one process.
        .globl  syscall_entry
syscall_entry:
        mov     %rsp, user_rsp(%rip)
        lea     kernel_stack_top(%rip), %rsp
        push    %rcx
        push    %r11
        mov     %rdx, %rcx
        mov     %rsi, %rdx
        mov     %rdi, %rsi
        mov     %rax, %rdi
        call    syscall
        pop     %r11
        pop     %rcx
        mov     user_rsp(%rip), %rsp
        sysretq

# void enter_process(uint64_t rip, uint64_t rsp): to ring 3, interrupts on.
        .globl  enter_process
enter_process:
        mov     %rdi, %rcx
        mov     %rsi, %rsp
        mov     $0x202, %r11d
        sysretq

        .section .rodata
        .globl  process_image, process_image_end
        .balign 4096
process_image:
        .incbin PROCESS_IMAGE
process_image_end:

        .bss
        .balign 16
user_rsp:
        .skip   16
        .skip   16384
boot_stack_top:
        .globl  kernel_stack_top
        .skip   16384
kernel_stack_top:
        .globl  fault_stack_top
        .skip   8192
fault_stack_top:
