# Entries of all vectors, 16 bytes each from idt_entries on: they end in one frame, struct ex_regs, whatever the processor
# pushed. route_exception finds a handler; what it leaves in the frame is what the guest goes on with.
	.file	"handlers.S"

	.text
	.balign	16
	.globl	idt_entries
idt_entries:
	.set	vector, 0
	.rept	256
	.balign	16
	# Vectors that push an error code: 8, 10 to 14, 17, 21, 29, 30.
	.if	!((vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30))
	pushq	$0
	.endif
	pushq	$vector
	jmp	enter
	.set	vector, vector + 1
	.endr

enter:
	push	%r15
	push	%r14
	push	%r13
	push	%r12
	push	%r11
	push	%r10
	push	%r9
	push	%r8
	push	%rdi
	push	%rsi
	push	%rbp
	push	%rbx
	push	%rdx
	push	%rcx
	push	%rax
	mov	%rsp, %rdi
	mov	%rsp, %rbp
	and	$-16, %rsp
	call	route_exception
	mov	%rbp, %rsp
	pop	%rax
	pop	%rcx
	pop	%rdx
	pop	%rbx
	pop	%rbp
	pop	%rsi
	pop	%rdi
	pop	%r8
	pop	%r9
	pop	%r10
	pop	%r11
	pop	%r12
	pop	%r13
	pop	%r14
	pop	%r15
	add	$16, %rsp		# vector and error code
	iretq

# Where a vCPU starts: the host has set RSP, the arguments, and RAX to the function to call. What returns is done.
	.globl	guest_start
guest_start:
	call	*%rax
	mov	$3, %edi		# UCALL_DONE
	xor	%esi, %esi
	xor	%eax, %eax
	call	ucall
	call	guest_spin
