# Entry of the encrypted guest: 64-bit mode, identity-mapped with the C-bit on RAM, RDI at struct boot_info.
        .section .text.boot, "ax"
        .globl _start
_start:
        lea     stack_top(%rip), %rsp
        xor     %ebp, %ebp
        call    guest_main
1:      hlt
        jmp     1b

        .bss
        .balign 16
        .skip   16384
stack_top:
