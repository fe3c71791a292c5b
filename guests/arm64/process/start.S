// Process entry and system calls: number in X8, arguments in X0 to X2, result in X0.
        .section .text.start, "ax"
        .globl  _start
_start:
        mov     x29, #0
        mov     x30, #0
        bl      main
        mov     x8, #2
        svc     #0
        udf     #0

// int64_t system_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c)
        .globl  system_call
system_call:
        mov     x8, x0
        mov     x0, x1
        mov     x1, x2
        mov     x2, x3
        svc     #0
        ret
