// One access at a time, from EL1 or EL0, and every exception on the way back (translation.c).

	.file	"access.S"
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

// int access_el1(kind, at): 1 when an exception was taken.
	.globl	access_el1
access_el1:
	ldr	x9, =context
	mov	x10, sp
	stp	x10, x30, [x9]
	stp	x19, x20, [x9, #16]
	stp	x21, x22, [x9, #32]
	stp	x23, x24, [x9, #48]
	stp	x25, x26, [x9, #64]
	stp	x27, x28, [x9, #80]
	str	x29, [x9, #96]
	adr	x10, el1_kinds
	add	x10, x10, x0, lsl #4
	mov	x2, #0
	ldr	x3, =0xd4000001d4000001
	mov	x4, x3
	br	x10
// Four instructions each.
	.balign	16
el1_kinds:
	br	x1;			nop;			nop;		nop	// 0: execute
	ldr	x0, [x1];		b done;			nop;		nop
	str	x3, [x1];		b done;			nop;		nop
	ldrb	w0, [x1];		b done;			nop;		nop
	strb	w3, [x1];		b done;			nop;		nop
	ldtr	x0, [x1];		b done;			nop;		nop	// 5
	sttr	x3, [x1];		b done;			nop;		nop
	ldxr	x0, [x1];		clrex;			b done;		nop
	ldar	w0, [x1];		b done;			nop;		nop
	stlr	x3, [x1];		b done;			nop;		nop
	ldr	w0, [x1];		b done;			nop;		nop	// 10
	strh	w3, [x1];		b done;			nop;		nop
	ldp	x0, x5, [x1];		b done;			nop;		nop
	dc	zva, x1;		b zeroed;		nop;		nop
	at	s1e1r, x1;		isb;			b done;		nop	// 14
	at	s1e1w, x1;		isb;			b done;		nop
	at	s1e0r, x1;		isb;			b done;		nop
	at	s1e0w, x1;		isb;			b done;		nop
zeroed:					// the target is SVC again
	bic	x1, x1, #63
	stp	x3, x4, [x1]
	stp	x3, x4, [x1, #16]
	stp	x3, x4, [x1, #32]
	stp	x3, x4, [x1, #48]
done:
	mov	x0, #0
	ret

// int access_el0(kind, at): from a page at 2 GB that EL0 executes.
	.globl	access_el0
access_el0:
	ldr	x9, =context
	mov	x10, sp
	stp	x10, x30, [x9]
	stp	x19, x20, [x9, #16]
	stp	x21, x22, [x9, #32]
	stp	x23, x24, [x9, #48]
	stp	x25, x26, [x9, #64]
	stp	x27, x28, [x9, #80]
	str	x29, [x9, #96]
	ldr	x3, =0xd4000001d4000001
	mov	x10, #0x80000000
	add	x10, x10, x0, lsl #4
	msr	elr_el1, x10
	msr	spsr_el1, xzr
	eret

	.globl	el0_stubs, el0_stubs_end
el0_stubs:
	br	x1;			nop;			nop;		nop	// 0: execute
	ldr	x0, [x1];		svc #1;			nop;		nop
	str	x3, [x1];		svc #1;			nop;		nop
	ldrb	w0, [x1];		svc #1;			nop;		nop
	strb	w3, [x1];		svc #1;			nop;		nop
	ldxr	x0, [x1];		svc #1;			nop;		nop	// 5
	ldar	w0, [x1];		svc #1;			nop;		nop
	stlr	x3, [x1];		svc #1;			nop;		nop
	ldr	w0, [x1];		svc #1;			nop;		nop
	ldtr	x0, [x1];		svc #1;			nop;		nop
el0_stubs_end:

	.balign	2048
	.globl	vectors
vectors:
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	.balign	128
	mov	x0, #\n
	b	taken
	.endr
taken:
	ldr	x1, =record
	str	x0, [x1]
	mrs	x2, esr_el1
	str	x2, [x1, #8]
	mrs	x2, far_el1
	str	x2, [x1, #16]
	mrs	x2, elr_el1
	str	x2, [x1, #24]
	mrs	x2, spsr_el1
	str	x2, [x1, #32]
	clrex
	ldr	x9, =context
	ldp	x10, x30, [x9]
	mov	sp, x10
	ldp	x19, x20, [x9, #16]
	ldp	x21, x22, [x9, #32]
	ldp	x23, x24, [x9, #48]
	ldp	x25, x26, [x9, #64]
	ldp	x27, x28, [x9, #80]
	ldr	x29, [x9, #96]
	mov	x0, #1
	ret

	.bss
	.balign	16
context:
	.skip	112
	.balign	16
	.skip	16384
stack_end:
