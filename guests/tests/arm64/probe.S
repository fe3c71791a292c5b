// What C cannot say: all registers at known values around a BRK, and the way to EL0.
	.file	"probe.S"

	.text
// frame_probe(after): X0 to X28 hold their numbers at the BRK; what they hold after it goes to `after`, NZCV to [31].
	.globl	frame_probe
frame_probe:
	stp	x29, x30, [sp, #-96]!
	stp	x19, x20, [sp, #16]
	stp	x21, x22, [sp, #32]
	stp	x23, x24, [sp, #48]
	stp	x25, x26, [sp, #64]
	stp	x27, x28, [sp, #80]
	ldr	x1, =probe_saved
	str	x0, [x1]
	ldr	x1, =probe_sp
	mov	x2, sp
	str	x2, [x1]
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29
	mov	x\n, #\n
	.endr
	msr	nzcv, xzr
	brk	#7
	brk	#8			// passed over
	ldr	x30, =probe_saved
	ldr	x30, [x30]
	stp	x0, x1, [x30]
	stp	x2, x3, [x30, #16]
	stp	x4, x5, [x30, #32]
	stp	x6, x7, [x30, #48]
	stp	x8, x9, [x30, #64]
	stp	x10, x11, [x30, #80]
	stp	x12, x13, [x30, #96]
	stp	x14, x15, [x30, #112]
	stp	x16, x17, [x30, #128]
	stp	x18, x19, [x30, #144]
	stp	x20, x21, [x30, #160]
	stp	x22, x23, [x30, #176]
	stp	x24, x25, [x30, #192]
	stp	x26, x27, [x30, #208]
	stp	x28, x29, [x30, #224]
	mrs	x0, nzcv
	str	x0, [x30, #248]
	ldp	x27, x28, [sp, #80]
	ldp	x25, x26, [sp, #64]
	ldp	x23, x24, [sp, #48]
	ldp	x21, x22, [sp, #32]
	ldp	x19, x20, [sp, #16]
	ldp	x29, x30, [sp], #96
	ret

// to_el0(at, stack): never returns.
	.globl	to_el0
to_el0:
	msr	elr_el1, x0
	msr	sp_el0, x1
	msr	spsr_el1, xzr
	eret

// Pages that EL0 may execute.
	.section .text.user, "ax"
	.balign	4096
	.globl	el0_svc
el0_svc:
	svc	#5
1:	b	1b
	.globl	el0_wait
el0_wait:
	b	el0_wait
	.balign	4096

	.bss
	.balign	8
probe_saved:
	.skip	8
