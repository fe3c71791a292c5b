// Entry, vectors and the way to EL0. The VMM starts us at EL1 with the MMU off, interrupts masked and X0 holding the
// physical address of struct boot_info.

        .equ    LINEAR, 0xffff000000000000
        // Blocks of 1 GB: device memory below, RAM above. AF, inner shareable, not for EL0.
        .equ    DEVICE_BLOCK, 0x0060000000000405
        .equ    NORMAL_BLOCK, 0x0040000000000701
        .equ    RAM, 0x40000000

        .section .text.boot, "ax"
        .globl  _start
_start:
        mov     x19, x0
        adrp    x1, boot_level1
        add     x1, x1, :lo12:boot_level1
        ldr     x2, =DEVICE_BLOCK
        str     x2, [x1]
        ldr     x2, =NORMAL_BLOCK + RAM
        str     x2, [x1, #8]
        adrp    x0, boot_level0
        add     x0, x0, :lo12:boot_level0
        orr     x2, x1, #3
        str     x2, [x0]
        dsb     sy
        // Attribute 0 normal write-back, 1 Device-nGnRnE.
        mov     x1, #0xff
        msr     mair_el1, x1
        ldr     x1, =0x14b5103510           // 48-bit ranges, 4 KB, 44-bit output, 16-bit ASIDs, write-back walks
        msr     tcr_el1, x1
        msr     ttbr0_el1, x0
        msr     ttbr1_el1, x0
        isb
        tlbi    vmalle1
        dsb     nsh
        isb
        ldr     x1, =0x30d0181d             // M, C, I, SA, SA0; RES1 bits of v8.0
        ldr     x2, =1f
        msr     sctlr_el1, x1
        isb
        br      x2
        .ltorg
1:      // From here on at linear addresses.
        adrp    x0, boot_stack_top
        add     sp, x0, :lo12:boot_stack_top
        adrp    x0, vectors
        add     x0, x0, :lo12:vectors
        msr     vbar_el1, x0
        isb
        mov     x29, #0
        mov     x30, #0
        ldr     x1, =LINEAR
        orr     x0, x19, x1
        bl      kernel_main
2:      wfi
        b       2b
        .ltorg

        .text
// struct trap_frame: x0 to x30, sp_el0, elr, spsr, esr, far
        .equ    FRAME, 36 * 8
        .macro  enter kind
        .balign 128
        sub     sp, sp, #FRAME
        stp     x0, x1, [sp]
        mov     x0, #\kind
        b       common
        .endm

        .globl  vectors
        .balign 2048
vectors:
        .set    n, 0
        .rept   16
        enter   n
        .set    n, n + 1
        .endr

common:
        stp     x2, x3, [sp, #16]
        stp     x4, x5, [sp, #32]
        stp     x6, x7, [sp, #48]
        stp     x8, x9, [sp, #64]
        stp     x10, x11, [sp, #80]
        stp     x12, x13, [sp, #96]
        stp     x14, x15, [sp, #112]
        stp     x16, x17, [sp, #128]
        stp     x18, x19, [sp, #144]
        stp     x20, x21, [sp, #160]
        stp     x22, x23, [sp, #176]
        stp     x24, x25, [sp, #192]
        stp     x26, x27, [sp, #208]
        stp     x28, x29, [sp, #224]
        mrs     x1, sp_el0
        stp     x30, x1, [sp, #240]
        mrs     x1, elr_el1
        mrs     x2, spsr_el1
        stp     x1, x2, [sp, #256]
        mrs     x1, esr_el1
        mrs     x2, far_el1
        stp     x1, x2, [sp, #272]
        mov     x1, sp
        bl      trap
        .globl  leave_trap
leave_trap:
        ldp     x1, x2, [sp, #256]
        msr     elr_el1, x1
        msr     spsr_el1, x2
        ldp     x30, x1, [sp, #240]
        msr     sp_el0, x1
        ldp     x2, x3, [sp, #16]
        ldp     x4, x5, [sp, #32]
        ldp     x6, x7, [sp, #48]
        ldp     x8, x9, [sp, #64]
        ldp     x10, x11, [sp, #80]
        ldp     x12, x13, [sp, #96]
        ldp     x14, x15, [sp, #112]
        ldp     x16, x17, [sp, #128]
        ldp     x18, x19, [sp, #144]
        ldp     x20, x21, [sp, #160]
        ldp     x22, x23, [sp, #176]
        ldp     x24, x25, [sp, #192]
        ldp     x26, x27, [sp, #208]
        ldp     x28, x29, [sp, #224]
        ldp     x0, x1, [sp], #16
        add     sp, sp, #FRAME - 16
        eret

// void enter_process(uint64_t pc, uint64_t sp): to EL0, interrupts on.
        .globl  enter_process
enter_process:
        msr     elr_el1, x0
        msr     sp_el0, x1
        msr     spsr_el1, xzr
        mov     x0, xzr
        mov     x1, xzr
        eret

        .section .rodata
        .globl  process_image, process_image_end
        .balign 4096
process_image:
        .incbin PROCESS_IMAGE
process_image_end:

        .bss
        .balign 4096
boot_level0:
        .skip   4096
boot_level1:
        .skip   4096
        .skip   16384
        .globl  boot_stack_top
boot_stack_top:
