// The vector table. Slots 4 to 15 save a struct ex_regs, let route_exception find a handler, and return with what the
// handler left in it. Slots 0 to 3 save nothing: taken with SP_EL0 selected, they run on an SP_EL1 that may be unusable.
//
// EXCEPTION_FRAME_V2 builds the frame of the library's second revision instead: for 8 to 15 its sp is SP_EL0, which is
// written back from it; for 4 to 7 it is SP_EL1 below the frame, 272 less than at the exception.
	.file	"handlers.S"

#define FRAME 272

.macro save vector
	sub	sp, sp, #FRAME
	stp	x0, x1, [sp, #16 * 0]
	stp	x2, x3, [sp, #16 * 1]
	stp	x4, x5, [sp, #16 * 2]
	stp	x6, x7, [sp, #16 * 3]
	stp	x8, x9, [sp, #16 * 4]
	stp	x10, x11, [sp, #16 * 5]
	stp	x12, x13, [sp, #16 * 6]
	stp	x14, x15, [sp, #16 * 7]
	stp	x16, x17, [sp, #16 * 8]
	stp	x18, x19, [sp, #16 * 9]
	stp	x20, x21, [sp, #16 * 10]
	stp	x22, x23, [sp, #16 * 11]
	stp	x24, x25, [sp, #16 * 12]
	stp	x26, x27, [sp, #16 * 13]
	stp	x28, x29, [sp, #16 * 14]
#ifdef EXCEPTION_FRAME_V2
	.if \vector >= 8
	mrs	x1, sp_el0
	.else
	mov	x1, sp
	.endif
#else
	add	x1, sp, #FRAME
#endif
	stp	x30, x1, [sp, #16 * 15]
	mrs	x1, elr_el1
	mrs	x2, spsr_el1
	stp	x1, x2, [sp, #16 * 16]
.endm

.macro restore vector
#ifdef EXCEPTION_FRAME_V2
	.if \vector >= 8
	ldr	x1, [sp, #16 * 15 + 8]
	msr	sp_el0, x1
	.endif
#endif
	ldp	x1, x2, [sp, #16 * 16]
	msr	elr_el1, x1
	msr	spsr_el1, x2
	ldp	x0, x1, [sp, #16 * 0]
	ldp	x2, x3, [sp, #16 * 1]
	ldp	x4, x5, [sp, #16 * 2]
	ldp	x6, x7, [sp, #16 * 3]
	ldp	x8, x9, [sp, #16 * 4]
	ldp	x10, x11, [sp, #16 * 5]
	ldp	x12, x13, [sp, #16 * 6]
	ldp	x14, x15, [sp, #16 * 7]
	ldp	x16, x17, [sp, #16 * 8]
	ldp	x18, x19, [sp, #16 * 9]
	ldp	x20, x21, [sp, #16 * 10]
	ldp	x22, x23, [sp, #16 * 11]
	ldp	x24, x25, [sp, #16 * 12]
	ldp	x26, x27, [sp, #16 * 13]
	ldp	x28, x29, [sp, #16 * 14]
	ldr	x30, [sp, #16 * 15]
	add	sp, sp, #FRAME
	eret
.endm

.macro slot vector
	.balign	0x80
	b	enter_\vector
.endm

.macro body vector
enter_\vector:
	save	\vector
	mov	x0, sp
	mov	x1, #\vector
	bl	route_exception
	restore	\vector
.endm

.macro unsaved_body vector
enter_\vector:
	mov	x0, #\vector
	b	report_without_stack
.endm

	.text
	.balign	0x800
	.globl	vectors
vectors:
	.irp	vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	slot	\vector
	.endr

	.balign	0x80
	.irp	vector, 0, 1, 2, 3
	unsaved_body	\vector
	.endr
	.irp	vector, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	body	\vector
	.endr

// report_unhandled(vector, 0, 0) without a stack. Never returns.
report_without_stack:
	ldr	x1, =stackless_report
	mov	x2, #4			// UCALL_UNHANDLED
	stp	x2, x0, [x1]
	stp	xzr, xzr, [x1, #16]
	ldr	x2, =ucall_address
	ldr	x2, [x2]
	str	x1, [x2]
	b	.

	.bss
	.balign	8
stackless_report:
	.skip	8 * 9
