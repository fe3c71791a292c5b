# Entry of every vCPU: 64-bit mode, memory identity-mapped, interrupts off, a stack in RSP. RDI to RCX are main's arguments.
        .section .text.boot, "ax"
        .globl _start
_start:
        xor     %ebp, %ebp
        call    main
1:      hlt
        jmp     1b
