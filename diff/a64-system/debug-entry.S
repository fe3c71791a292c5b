// The way into a case and out of it (debug.c, registers.c).

	.file	"debug-entry.S"
	.text
	.globl	_start
_start:
	ldr	x0, =stack_end
	mov	sp, x0
	bl	main
	ldr	x0, =0x84000008		// PSCI SYSTEM_OFF
	hvc	#0
1:	wfi
	b	1b

// enter(pstate, at, data_at): comes back by leave().
	.globl	enter
enter:
	ldr	x9, =context
	mov	x10, sp
	stp	x10, x30, [x9]
	stp	x19, x20, [x9, #16]
	stp	x21, x22, [x9, #32]
	stp	x23, x24, [x9, #48]
	stp	x25, x26, [x9, #64]
	stp	x27, x28, [x9, #80]
	str	x29, [x9, #96]
	msr	spsr_el1, x0
	msr	elr_el1, x1
	mov	x1, x2
	mov	x0, #0
	mov	x2, #0x55
	eret

	.globl	leave
leave:
	msr	daifset, #15
	ldr	x9, =context
	ldp	x10, x30, [x9]
	mov	sp, x10
	ldp	x19, x20, [x9, #16]
	ldp	x21, x22, [x9, #32]
	ldp	x23, x24, [x9, #48]
	ldp	x25, x26, [x9, #64]
	ldp	x27, x28, [x9, #80]
	ldr	x29, [x9, #96]
	ret

	.balign	2048
	.globl	vectors
vectors:
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	.balign	128
	stp	x0, x30, [sp, #-48]!
	mov	x0, #\n
	b	taken
	.endr
taken:
	stp	x1, x2, [sp, #16]
	stp	x3, x4, [sp, #32]
	bl	exception
	ldp	x3, x4, [sp, #32]
	ldp	x1, x2, [sp, #16]
	ldp	x0, x30, [sp], #48
	eret

	.bss
	.balign	16
context:
	.skip	112
	.balign	16
	.skip	16384
stack_end:
